/*
 * api: the HTTP API of a node. Routes a request to its dialect, which turns wire JSON into a serve_request and events back into
 * wire JSON. One file a dialect or group of endpoints, each exporting one const table of routes (api_internal.h); nothing else
 * knows their names but the list in api.c.
 *
 *   POST /v1/chat/completions  /v1/completions       OpenAI, streamed (SSE) or whole
 *   GET  /v1/models  /v1/models/{id}
 *   GET  /health  /metrics  /v1/status   DELETE /v1/requests/{id}   POST /tokenize  /detokenize   GET /
 *
 * Keys: when there are any, every path but GET / and /health wants one, as `Authorization: Bearer KEY` or `x-api-key: KEY`.
 * Bodies are JSON as jansson reads it: no lone surrogates (\ud800 without its second half: 400, because no tokenizer could say
 * what it stands for), no NUL in the name of a member, whole numbers within 64 bits, nesting up to 2,048. Unknown members are ignored;
 * one of a wrong type is a 400 that names its path, what was expected and what came.
 *
 * Threads: the loop's thread only. Not here: sockets and limits of HTTP (src/http), what is loaded (src/node), templates (src/serve).
 */
#ifndef SHOAL_API_H
#define SHOAL_API_H

#include "base/base.h"
#include "http/http.h"
#include "node/node.h"
#include "serve/serve.h"

typedef struct api api;

/* Strings are copied. */
typedef struct api_options {
    const char *const *keys; /* NULL = none wanted */
    size_t n_keys;
    uint64_t ping_us; /* a silent stream gets a comment so often; 0 = 10 s */
} api_options;

/* loop, n and s are borrowed and outlive it. */
status api_create(api **out, http_loop *loop, serve *s, node *n, const api_options *o, err *e);
/* After the server whose requests it handles, so that none is left. */
void api_destroy(api *a);

/* The http_handler; context is the api. */
void api_handle(void *context, http_request *r);

#endif
