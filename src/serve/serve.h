/*
 * serve: one request → one stream of events. Leases the instance, renders the template, encodes, submits, detokenises, splits reasoning
 * and tool calls from text, finds stop strings, counts. Dialects (src/api) turn wire JSON into a serve_request and events into wire JSON.
 *
 * Threads: the loop's thread only. Events come from the loop, never from inside serve_start. A call ends with exactly one SERVE_DONE or
 * SERVE_FAILED, after which it is freed; serve_cancel ends it without any further event.
 * Not here: JSON of dialects, HTTP, which model is loaded where (src/node).
 */
#ifndef SHOAL_SERVE_H
#define SHOAL_SERVE_H

#include "base/base.h"
#include "http/http.h"
#include "node/node.h"

typedef struct serve serve;
typedef struct serve_call serve_call;

typedef struct serve_options {
    int max_choices; /* 0 = 32 */
} serve_options;

status serve_create(serve **out, http_loop *loop, node *n, const serve_options *o, err *e);
void serve_destroy(serve *s); /* cancels what is live */

/* A tool whose calls are held to a form. */
typedef struct serve_tool {
    str name;
    str parameters; /* the JSON schema of its arguments; NULL: it has none */
    bool
        strict; /* arguments fit the schema, or the request is refused; else where the schema is one that we know how to hold to */
} serve_tool;

/* Everything is borrowed for the call of serve_start and copied. */
typedef struct serve_request {
    const char *model; /* as the client named it; NULL = the default */

    /* A chat: the JSON object of template variables {messages, tools?, add_generation_prompt, …}; NULL for a completion. */
    str chat_variables;
    bool has_tools; /* tools are in the variables: tool calls are looked for */

    /* Answers of a chat that are held to a form. */
    str schema;     /* JSON that fits this JSON schema; NULL = any text */
    bool must_call; /* one of `tools`, instead of text */
    bool one_call;  /* the answer ends behind the first */
    int n_tools; /* must_call: those that may be called; else all, when one is strict; 0 = calls are free */
    const serve_tool *tools;

    /* A completion: text, or ids taken as they are. */
    str prompt;
    const int32_t *prompt_ids;
    int n_prompt_ids;
    bool
        echo; /* the prompt's text comes first, as SERVE_TEXT; with top_logprobs ≥ 0 its tokens as SERVE_LOGPROBS, too */
    bool prompt_only; /* nothing is generated */

    int n_choices;
    int best_of; /* 0 = n_choices; best_of ≥ n: the best by mean logprob are kept (no streaming then) */
    int max_tokens; /* 0 = until the context is full */
    int n_stop;
    const str *stop; /* text that ends a choice, not emitted */
    bool include_stop;
    bool ignore_end;       /* end tokens are ordinary: benchmarks */
    sample_options sample; /* seed 0 and !has_seed: a random one */
    bool has_seed;
    int top_logprobs; /* −1 none */
    bool raw_text;    /* reasoning and tool calls stay in the text */
} serve_request;

typedef enum serve_event_kind {
    SERVE_LOADING,        /* share: the model is being loaded; repeated about once a second */
    SERVE_STARTED,        /* n_prompt, n_cached */
    SERVE_TEXT,           /* choice, text */
    SERVE_REASONING,      /* choice, text */
    SERVE_TOOL_BEGIN,     /* choice, tool_index, tool_id, tool_name */
    SERVE_TOOL_ARGUMENTS, /* choice, tool_index, text */
    SERVE_TOOL_END,
    /* choice, one token: token_text, logprob, top; comes before the text it belongs to (the prompt's: behind it). logprob NaN: none,
     * of the first token of all. */
    SERVE_LOGPROBS,
    SERVE_FINISH, /* choice, reason: this choice has ended */
    SERVE_DONE,   /* all choices have: usage */
    SERVE_FAILED  /* error */
} serve_event_kind;

typedef enum serve_reason { SERVE_STOP, SERVE_LENGTH, SERVE_TOOL_CALLS } serve_reason;

typedef struct serve_top {
    int32_t token;
    str text; /* the token's bytes; may be part of a character */
    float logprob;
} serve_top;

typedef struct serve_event {
    serve_event_kind kind;
    int choice;
    str text;
    int tool_index;
    str tool_id, tool_name;
    serve_top token; /* LOGPROBS */
    int n_top;
    const serve_top *top;
    serve_reason reason;
    str stop; /* FINISH: the stop string that ended it, empty = none */
    double share;
    int n_prompt, n_cached, n_generated; /* STARTED, DONE; n_generated over all choices */
    int n_drafted,
        n_accepted;         /* DONE: guesses that were checked, and that stood, over all choices */
    const err *error;       /* FAILED */
    uint64_t retry_after_s; /* FAILED with BUSY or LOADING; 0 = not said */
} serve_event;

typedef void (*serve_sink)(void *context, const serve_event *event);

/* id: of the request, for logs and cancelling ("chatcmpl-…"), copied. Refusals that are known at once (unknown model, bad template
 * variables) are returned; the others come as SERVE_FAILED. */
status serve_start(serve_call **out, serve *s, const char *id, const serve_request *r,
                   serve_sink sink, void *context, err *e);
void serve_cancel(serve_call *c); /* frees c; no event follows */
/* What SERVE_STARTED told, for dialects that need it late. */
/* Whether answers can be held to this JSON schema; INVALID says where in it and which keyword cannot. */
status serve_check_schema(str schema, err *e);
const char *serve_call_model(
    const serve_call *c); /* the instance's name; what the client said while it is not known */
void serve_call_fingerprint(const serve_call *c,
                            char out[64]); /* numerics and model hash: "exact/1-3fa94c…" */
/* A slow client: true keeps its choices out of further steps until false; see http_stream_pending. */
void serve_pause(serve_call *c, bool on);

/* ---- embeddings ---------------------------------------------------------------------------------------------------- */

typedef struct serve_embedding serve_embedding;

/* A text, or ids taken as they are (ids not NULL). */
typedef struct serve_text {
    str text;
    const int32_t *ids;
    int n_ids;
} serve_text;

typedef struct serve_vectors {
    const err *error; /* NULL = fine; INVALID: the model has no embeddings */
    uint64_t retry_after_s;
    int failed_at; /* the text that was refused, −1 = none of them in particular */
    int n, width;
    const float *values; /* [n, width], each of length 1 */
    uint64_t n_tokens;
    const char *model; /* the instance's name */
} serve_vectors;

/* n ≥ 1 texts, copied. done: once, from the loop, never from inside; nothing may be done with *out after it. */
status serve_embed(serve_embedding **out, serve *s, const char *id, const char *name,
                   const serve_text *texts, int n,
                   void (*done)(void *context, const serve_vectors *v), void *context, err *e);
void serve_embed_cancel(serve_embedding *j); /* done is not called any more */

/* Tokenizing for /tokenize and friends, on a leased instance that is ready. Calls done once, from the loop. */
typedef struct serve_tokens {
    const err *error; /* NULL = fine */
    const int32_t *ids;
    size_t n;
    str text;
    const text_tokenizer *tokenizer; /* for the bytes of single tokens; NULL with an error */
} serve_tokens;
status serve_tokenize(serve *s, const char *name, str text, bool add_special, bool parse_special,
                      void (*done)(void *context, const serve_tokens *t), void *context, err *e);
status serve_detokenize(serve *s, const char *name, const int32_t *ids, size_t n,
                        void (*done)(void *context, const serve_tokens *t), void *context, err *e);

/* ---- counters ------------------------------------------------------------------------------------------------------ */

enum { SERVE_BUCKETS = 16 };
extern const double serve_bucket_limits_s[SERVE_BUCKETS]; /* upper limits; the last is +Inf */

typedef struct serve_histogram {
    uint64_t counts[SERVE_BUCKETS]; /* not cumulative */
    uint64_t n;
    double sum_s;
} serve_histogram;

typedef struct serve_counters {
    uint64_t requests, failed, cancelled, prompt_tokens, cached_tokens, generated_tokens;
    uint64_t drafted_tokens, accepted_tokens;
    int live;
    serve_histogram first_token, per_token, whole;
} serve_counters;
const serve_counters *serve_get_counters(const serve *s);

#endif
