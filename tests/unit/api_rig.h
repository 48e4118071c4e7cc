/*
 * What the tests of api share: a whole node in this process (loop, node, serve, api, server), whose rank is this same test program, and
 * a client that sends a request and gives back code, headers, and JSON or events.
 */
#ifndef API_RIG_H
#define API_RIG_H

#include "http_harness.h"

#include "api/api.h"
#include "engine/engine.h"
#include "store/store.h"

#include <jansson.h>
#include <stdlib.h>

#define TINY TEST_DATA "/models/tiny-q8_0.gguf"

typedef struct api_rig {
    http_loop *loop;
    node *n;
    serve *s;
    api *a;
    http_server *server;
    os_thread *thread;
    int port;
} api_rig;

/* main of such a test: the node starts this program with "rank". */
static inline bool api_rig_is_rank(int argc, char **argv)
{
    return argc > 1 && !strcmp(argv[1], "rank");
}

static inline int api_rig_rank(void)
{
    engine_rank_options o = {.fd = 3, .open = store_open};
    log_set_level(LOG_WARN);
    return engine_rank_run(&o);
}

static inline void api_rig_start(api_rig *g, node_options no, const api_options *ao)
{
    err e = {0};
    char program[4096];
    serve_options so = {0};
    *g = (api_rig){0};
    log_set_level(LOG_ERROR);
    assert_int_equal(os_self_path(program, sizeof program, &e), STATUS_OK);
    no.program = program;
    no.n_threads = 1;
    assert_int_equal(http_loop_create(&g->loop, &e), STATUS_OK);
    assert_int_equal(node_create(&g->n, g->loop, &no, &e), STATUS_OK);
    assert_int_equal(serve_create(&g->s, g->loop, g->n, &so, &e), STATUS_OK);
    assert_int_equal(api_create(&g->a, g->loop, g->s, g->n, ao, &e), STATUS_OK);
    assert_int_equal(http_server_create(&g->server, g->loop, NULL, api_handle, g->a, &e),
                     STATUS_OK);
    assert_int_equal(http_server_listen(g->server, "127.0.0.1:0", &g->port, &e), STATUS_OK);
    assert_int_equal(os_thread_create(&g->thread, rig_loop, g->loop, "loop", &e), STATUS_OK);
}

static inline void api_rig_stop(api_rig *g)
{
    http_loop_stop(g->loop);
    os_thread_join(g->thread);
    http_server_destroy(g->server);
    serve_destroy(g->s);
    api_destroy(g->a);
    node_destroy(g->n);
    http_loop_destroy(g->loop);
}

/* ---- the client ---------------------------------------------------------------------------------------------------- */

typedef struct reply {
    int code;
    char *head; /* as it came */
    sb body;    /* without its chunks */
    json_t *
        json; /* the body, or for an event stream an array of the data of all events; NULL when it is no JSON */
    bool done; /* the stream ended with [DONE] */
} reply;

static inline void reply_fini(reply *r)
{
    base_free(r->head);
    sb_fini(&r->body);
    json_decref(r->json);
    *r = (reply){0};
}

static inline void undo_chunks(sb *out, const char *p)
{
    for (;;) {
        char *end;
        unsigned long n = strtoul(p, &end, 16);
        assert_true(end > p && !strncmp(end, "\r\n", 2));
        if (n == 0)
            return;
        sb_add(out, end + 2, n);
        p = end + 2 + n + 2;
    }
}

static inline status reply_event(void *context, const char *event, str data, err *e)
{
    reply *r = context;
    (void)event;
    (void)e;
    assert_false(r->done);
    if (str_is(data, "[DONE]")) {
        r->done = true;
        return STATUS_OK;
    }
    json_t *v = json_loadb(data.data, data.length, JSON_ALLOW_NUL, NULL);
    assert_non_null(v);
    json_array_append_new(r->json, v);
    return STATUS_OK;
}

static inline void reply_parse(reply *r, char *answer)
{
    char *body = strstr(answer, "\r\n\r\n");
    assert_non_null(body);
    assert_int_equal(strncmp(answer, "HTTP/1.1 ", 9), 0);
    r->code = (int)strtol(answer + 9, NULL, 10);
    r->head = base_strndup(answer, (size_t)(body - answer) + 2);
    sb_init(&r->body);
    if (strstr(r->head, "chunked"))
        undo_chunks(&r->body, body + 4);
    else
        sb_puts(&r->body, body + 4);
    if (strstr(r->head, "text/event-stream")) {
        http_sse_reader reader;
        err e;
        r->json = json_array();
        http_sse_reader_init(&reader, 1 << 20);
        assert_int_equal(http_sse_feed(&reader, r->body.data, r->body.length, reply_event, r, &e),
                         STATUS_OK);
        http_sse_reader_fini(&reader);
    } else if (r->body.length) {
        r->json = json_loadb(r->body.data, r->body.length, JSON_ALLOW_NUL, NULL);
    }
    base_free(answer);
}

/* headers: whole lines with \r\n, or "". */
static inline void ask_with(reply *r, const api_rig *g, const char *method, const char *path,
                            const char *headers, const char *body)
{
    sb request;
    *r = (reply){0};
    sb_init(&request);
    sb_printf(&request, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s", method,
              path, headers);
    if (body)
        sb_printf(&request, "Content-Length: %zu\r\n\r\n", strlen(body));
    else
        sb_puts(&request, "\r\n");
    sb_puts(&request, body ? body : "");
    reply_parse(r, talk_bytes(g->port, request.data, request.length));
    sb_fini(&request);
}

static inline void ask(reply *r, const api_rig *g, const char *method, const char *path,
                       const char *body)
{
    ask_with(r, g, method, path, "", body);
}

/* The value at a path like "choices.0.message.content"; NULL when there is none. */
static inline json_t *at(json_t *v, const char *path)
{
    while (v && *path) {
        size_t n = strcspn(path, ".");
        char name[64];
        assert_true(n < sizeof name);
        memcpy(name, path, n);
        name[n] = '\0';
        v = json_is_array(v) ? json_array_get(v, strtoul(name, NULL, 10))
                             : json_object_get(v, name);
        path += n + (path[n] == '.');
    }
    return v;
}

static inline const char *text_at(json_t *v, const char *path)
{
    const char *s = json_string_value(at(v, path));
    if (!s)
        fail_msg("no string at %s", path);
    return s;
}

static inline int whole_at(json_t *v, const char *path)
{
    const json_t *x = at(v, path);
    if (!json_is_integer(x))
        fail_msg("no whole number at %s", path);
    return (int)json_integer_value(x);
}

#endif
