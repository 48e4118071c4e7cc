/*
 * What the files of http share: the parser of a request head, the decoder of chunks, the guards, the connection.
 * Not for other modules.
 */
#ifndef SHOAL_HTTP_INTERNAL_H
#define SHOAL_HTTP_INTERNAL_H

#include <sys/time.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "http/http.h"
#include "os/os.h"

/* ---- parse.c: bytes → head, bytes → body; no sockets, no clock ---- */

/* Why a request is refused; code 0 = it is not. */
typedef struct http_refusal {
    int code;
    char text[200];
} http_refusal;

typedef struct http_field {
    const char *name, *value;
} http_field;

enum { HTTP_FIELDS_MAX = 128 };

typedef struct http_head {
    const char *method, *path, *query; /* in the arena */
    const char *authority;             /* of an absolute-form target; NULL otherwise */
    const char *host, *origin;         /* values of these headers, NULL when absent */
    http_field *fields;
    size_t n_fields;
    int minor; /* HTTP/1.minor */
    bool keep_alive, chunked, has_length, expect_continue;
    uint64_t length; /* of the body, when has_length */
} http_head;

/* Where the search for the end of a head stands; zero at its start. */
typedef struct http_scan {
    size_t line, seen;
} http_scan;

/* Finds the blank line. 1: *end = bytes of the head with it; 0: more bytes wanted; -1: a line that does not end in CR LF. */
int http_scan_head(http_scan *scan, const char *bytes, size_t n, size_t *end);
/* bytes[0..n) is one head as http_scan_head found it. On refusal (false) out is unspecified. Strings live in memory. */
bool http_parse_head(http_head *out, arena *memory, const char *bytes, size_t n, http_refusal *why);

/* "name", "name:port", "[v6]:port" → lower-case name without brackets or trailing dot, port or -1. false: bad syntax. */
bool http_split_host(const char *text, char *name, size_t name_bytes, int *port);

/* The decoder of a chunked body; zero at its start. */
typedef struct http_chunks {
    int state;
    unsigned digits;
    uint64_t left;
    size_t line_bytes, trailer_bytes;
} http_chunks;

/* Takes what it can of bytes (*used), adds decoded bytes to body. *done after the last trailer. False: *why. */
bool http_chunks_feed(http_chunks *c, const char *bytes, size_t n, size_t *used, sb *body,
                      uint64_t limit, bool *done, http_refusal *why);

void http_refuse(http_refusal *why, int code, const char *format, ...) BASE_PRINTF(3, 4);
bool http_same_name(const char *a, const char *b); /* ASCII case-insensitive */

/* ---- guards.c: who may ask ---- */

typedef struct http_allow {
    char **hosts, **origins; /* owned */
    size_t n_hosts, n_origins;
    bool any_host, any_origin;
} http_allow;

status http_allow_init(http_allow *a, const http_options *o, err *e);
void http_allow_fini(http_allow *a);
/* local: the connection came in over loopback. */
bool http_guard(const http_allow *a, const http_head *h, bool local, http_refusal *why);

/* ---- loop.c ---- */

struct event_base *http_loop_base(http_loop *l);
struct timeval http_timeval(uint64_t us);

/* ---- server.c and answer.c ---- */

typedef enum http_state {
    HTTP_IDLE,    /* waits for the first byte of a request */
    HTTP_HEAD,    /* in its head */
    HTTP_BODY,    /* in its body */
    HTTP_BUSY,    /* the handler has it */
    HTTP_CLOSING, /* the last answer is on its way out */
    HTTP_LINGER /* our side is shut; what still comes in is thrown away, so that no reset overtakes the answer */
} http_state;

typedef struct http_connection http_connection;

typedef struct http_link {
    http_connection *previous, *next;
} http_link;

struct http_connection {
    http_server *server;
    http_link all, dirty;
    int fd;
    struct event read_event, write_event, timer_event;
    sb in; /* bytes not parsed yet begin at in_used */
    size_t in_used;
    struct evbuffer *out;
    http_request *request; /* from its head on; NULL while there is none */
    http_scan scan;
    http_chunks chunks;
    http_state state;
    uint64_t idle_since_us,
        progress_us; /* progress: the kernel took bytes, or had nothing waiting */
    bool fresh;      /* no request yet */
    bool is_dirty;   /* in the server's list of connections to write out at the end of this turn */
    bool is_reading; /* read_event is added */
    bool is_writing; /* write_event is added */
    bool close_after, linger, doomed;
    bool local;
    bool stall_armed;
    char peer[64];
};

struct http_request {
    http_connection *connection; /* NULL once gone */
    http_server *server;
    arena memory;
    http_head head;
    sb body;
    sb extra; /* header lines for the answer */
    void *user;
    void (*gone)(void *context, http_request *r);
    void *gone_context;
    void (*drained)(void *context, http_request *r);
    void *drained_context;
    uint64_t drained_low;
    int code;     /* answered with; 0 before */
    bool handed;  /* the handler has seen it */
    bool chunked; /* the streamed answer is */
    bool no_body; /* HEAD, 204, 304 */
};

struct http_server {
    http_loop *loop;
    http_options options; /* its arrays are not kept: allow has them */
    http_allow allow;
    http_handler handle;
    void *context;
    struct evconnlistener **listeners;
    size_t n_listeners;
    http_connection *connections, *dirty_first, *dirty_last;
    size_t n_connections, n_requests, n_dirty;
    struct event flush_event, accept_event;
    bool closing;
    char date[40]; /* of the second date_second */
    uint64_t date_second;
    char scratch[64 * 1024];
};

/* server.c, used by answer.c */
void http_connection_dirty(http_connection *c); /* written and advanced at the end of this turn */
void http_connection_answered(http_connection *c); /* frees the request, goes to idle or closing */
void http_request_free(http_request *r);
/* answer.c, used by server.c: the JSON error that the server answers by itself; r may be NULL */
void http_answer_refusal(http_connection *c, const http_request *r, const http_refusal *why);
void http_answer_preflight(http_request *r);

#endif
