/*
 * Inside of api: routes, faults (an error with the path of the member and a code), readers of JSON members with their paths, and the
 * exchange, which is one HTTP request and the serve calls that answer it. A dialect is written against this file.
 */
#ifndef SHOAL_API_INTERNAL_H
#define SHOAL_API_INTERNAL_H

#include "api/api.h"

#include <jansson.h>

enum { API_PATH = 160, API_ID = 25, API_CALLS = 256, API_STOPS = 16 };

/* ---- faults -------------------------------------------------------------------------------------------------------- */

/* What goes to a client when something is wrong. */
typedef struct api_fault {
    err e;
    char param[API_PATH]; /* "messages[2].content"; "" = none */
    const char *code;     /* "model_not_found"; NULL = none */
    int http;             /* 0 = that of e.code */
    uint64_t retry_after_s;
} api_fault;

/* All return false, so that `return api_fault_set(...)` reads well. The text begins with the path when there is one. */
bool api_fault_set(api_fault *f, status code, const char *param, const char *format, ...)
    BASE_PRINTF(4, 5);
bool api_fault_unsupported(api_fault *f, const char *param, const char *format, ...)
    BASE_PRINTF(3, 4); /* 400 unsupported_parameter */
/* From an error of below, with the code that clients know. */
bool api_fault_from(api_fault *f, const err *e);
void api_fault_cancelled(api_fault *f); /* by its id, from another connection */
int api_fault_http(const api_fault *f);

/* ---- routes and dialects ------------------------------------------------------------------------------------------- */

/* A request on its way through a handler. */
typedef struct api_request {
    api *of;
    http_request *r;
    const char *rest; /* what "*" of the route's path stands for */
    char id[API_ID];  /* random, hex; x-request-id is "req-" and this */
} api_request;

/* Whether `wanted` names r, whose id is `id`: the id of the answer ("chatcmpl-…") or of x-request-id ("req-…"), whose ends are both `id`, or what the
 * client itself called it in x-client-request-id, which it knows before any answer. */
bool api_request_is(const http_request *r, const char *id, const char *wanted);

typedef struct api_route {
    const char *method, *path; /* path may end in "*": at least one more byte */
    void (*handle)(const api_request *q);
    bool open; /* needs no key */
} api_route;

typedef struct api_dialect {
    const char *name;
    const api_route *routes;
    size_t n_routes;
    void (*write_error)(sb *out, const api_fault *f); /* the body of an error answer */
} api_dialect;

extern const api_dialect api_openai_chat, api_openai_completions, api_openai_embeddings,
    api_openai_models, api_admin;

void api_reply_json(http_request *r, int code, const sb *body); /* 500 when the builder failed */
void api_reply_fault(http_request *r, const api_dialect *d, const api_fault *f);

/* ---- reading JSON (read.c) ----------------------------------------------------------------------------------------- */

/* The body as an object; *out is the caller's reference. A model that it names by path is refused to other machines. */
bool api_read_body(json_t **out, const api_request *q, api_fault *f);

/* Member `name` of object, whose own path is `path` ("" or "messages[2]."). Absent and null leave *out as it is. */
bool api_get_bool(bool *out, const json_t *object, const char *path, const char *name,
                  api_fault *f);
bool api_get_whole(int64_t *out, int64_t least, int64_t most, const json_t *object,
                   const char *path, const char *name, api_fault *f);
bool api_get_number(float *out, const json_t *object, const char *path, const char *name,
                    api_fault *f);
bool api_get_string(const char **out, const json_t *object, const char *path, const char *name,
                    api_fault *f); /* without NUL inside; borrowed from object */
/* kind: JSON_OBJECT or JSON_ARRAY; NULL when absent. */
bool api_get_container(json_t **out, json_type kind, const json_t *object, const char *path,
                       const char *name, api_fault *f);
/* "param: expected …, got a number". */
bool api_wrong_type(api_fault *f, const char *param, const char *expected, const json_t *got);
/* The path of a member, cut at what a fault holds; returns out. */
const char *api_path(char out[API_PATH], const char *format, ...) BASE_PRINTF(2, 3);
str api_json_str(const json_t *string);
/* An array of token ids, in the arena; may be empty. */
bool api_read_ids(const int32_t **out, int *n, const json_t *array, const char *param,
                  arena *memory, api_fault *f);

/* ---- members that chats and completions share (params.c) ------------------------------------------------------------ */

typedef struct api_params {
    serve_request q;
    bool stream, include_usage;
    str stop[API_STOPS];
    arena memory; /* of arrays in q */
} api_params;

void api_params_init(api_params *p);
void api_params_fini(api_params *p);
bool api_read_params(api_params *p, const json_t *body, api_fault *f);

/* ---- exchanges (exchange.c) ----------------------------------------------------------------------------------------- */

typedef struct api_exchange api_exchange;

/* How a dialect answers. event: all but LOADING, DONE and FAILED, of call `call`. finish: every call is done; answers or ends the
 * stream. fail_stream: the stream has begun: says so in the dialect's way, the exchange ends it. None of them frees the exchange. */
typedef struct api_voice {
    const api_dialect *dialect;
    void (*event)(api_exchange *x, int call, const serve_event *event);
    void (*finish)(api_exchange *x);
    void (*fail_stream)(api_exchange *x, const api_fault *f);
    void (*free_state)(void *state);
} api_voice;

struct api_exchange {
    api *of;
    http_request *r;
    const api_voice *voice;
    void *state; /* the dialect's, owned */
    char id[64]; /* "chatcmpl-…" */
    bool stream, paused;
    bool broken;                         /* there was no memory for an event: ends with an error */
    int64_t created;                     /* unix seconds */
    char *model;                         /* NULL until a call has begun */
    char fingerprint[64];                /* "" until then */
    int n_calls, n_open;                 /* calls not yet done */
    struct api_leg *legs;                /* [n_calls] */
    int n_prompt, n_cached, n_generated; /* of calls that are done */
    int n_drafted, n_accepted;
    uint64_t last_us; /* something was sent, or the request came */
    api_exchange *next;
};

/* Starts n calls that together answer q->r. Owns state from now on, also when it fails; answers errors itself. */
void api_exchange_run(const api_request *q, const api_voice *voice, void *state, const char *prefix,
                      bool stream, const serve_request *requests, int n);
/* One data event of the stream. */
void api_exchange_send(api_exchange *x, const sb *data);
/* Cancels what is live, answers with f and frees x. */
void api_exchange_fail(api_exchange *x, const api_fault *f);
/* Cancels the request that `wanted` names and tells its client; false: there is none. */
bool api_exchange_cancel(api *a, const char *wanted);
/* Says something when nothing was said for long. */
void api_exchange_ping(api_exchange *x);

/* ---- what the files of OpenAI share (openai.c) ------------------------------------------------------------------------ */

void api_openai_error(sb *out, const api_fault *f);
void api_openai_fail_stream(api_exchange *x, const api_fault *f);
/* ,"usage":{…} without the comma */
void api_openai_usage(sb *out, const api_exchange *x);
/* {"token":…,"logprob":…,"bytes":[…],"top_logprobs":[…]} */
void api_openai_logprob(sb *out, const serve_event *event);
/* `"name":"escaped"` */
void api_put_member(sb *out, const char *name, str value);
void api_put_number(sb *out, double value);

void api_get_metrics(const api_request *q); /* metrics.c */

/* ---- the api itself (api.c) ---------------------------------------------------------------------------------------- */

/* A question to serve_tokenize that is on its way (admin.c). */
typedef struct api_ask {
    api *of;
    http_request *r; /* NULL: the client is gone */
    bool pieces;
    struct api_ask *next;
} api_ask;

typedef struct api_embed api_embed; /* a request for embeddings on its way (openai_embeddings.c) */

api_embed *api_embed_next(const api_embed *x);
bool api_embed_cancel(api *a, const char *wanted); /* as api_exchange_cancel */

struct api {
    http_loop *loop;
    serve *s;
    node *n;
    http_timer *tick;
    char **keys;
    size_t n_keys;
    uint64_t ping_us, began_us;
    api_exchange *exchanges;
    api_ask *asks;
    api_embed *embeds;
};

#endif
