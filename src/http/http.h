/*
 * http: the event loop of the daemon, the HTTP/1.1 server on it, streamed answers (SSE, NDJSON), and a blocking client.
 *
 * Loop and server stand on libevent's core; the HTTP codec is our own (docs/decisions/http-codec.md). Everything of them runs
 * on the one thread that is in http_loop_run: except for http_loop_post and http_loop_stop, every function on a loop, timer,
 * watch, server or request must be called on that thread (or before it runs, or after it has ended). Callbacks must not
 * block. Clients are libcurl, one thread per client.
 *
 * Sources: RFC 9110, 9112 (HTTP/1.1), WHATWG Fetch (CORS) and HTML (event streams).
 * Not here: TLS of the server, HTTP/2, websockets, routing, JSON, API keys (src/api), resumed downloads (src/store).
 */
#ifndef SHOAL_HTTP_H
#define SHOAL_HTTP_H

#include "base/base.h"

/* ---- the loop --------------------------------------------------------------------------------------------------- */

typedef struct http_loop http_loop;
typedef struct http_timer http_timer;
typedef struct http_watch http_watch;
typedef void (*http_task)(void *context);

status http_loop_create(http_loop **out, err *e); /* also ignores SIGPIPE in this process */
void http_loop_destroy(
    http_loop *l); /* after run; its timers, watches and servers are destroyed before it */
void http_loop_run(http_loop *l);  /* until http_loop_stop; may be run again */
void http_loop_stop(http_loop *l); /* any thread, also before run: then run returns at once */

/* Runs task(context) on the loop's thread, in the order of posting; any thread. Many posts make one wake-up. Does not
 * allocate in the steady state. NO_MEMORY: not posted. Tasks still waiting when the loop is destroyed do not run. */
status http_loop_post(http_loop *l, http_task task, void *context);
/* What was posted with this context and has not run yet never will: for the end of an object, when the threads that post for it are
 * gone. */
void http_loop_forget(http_loop *l, void *context);

/* A timer; it may be restarted, stopped or destroyed in its own callback. */
status http_timer_create(http_timer **out, http_loop *l, http_task task, void *context, err *e);
void http_timer_once(http_timer *t, uint64_t after_us);   /* replaces what was set */
void http_timer_repeat(http_timer *t, uint64_t every_us); /* first after every_us */
void http_timer_stop(http_timer *t);
void http_timer_destroy(http_timer *t); /* NULL is fine */

enum { HTTP_READABLE = 1, HTTP_WRITABLE = 2 };
/* Calls ready(context, what) while fd is readable/writable (level-triggered; end of file and errors count as readable).
 * fd is borrowed: destroy the watch before closing it. May be changed or destroyed in its own callback. */
status http_watch_create(http_watch **out, http_loop *l, int fd, unsigned what,
                         void (*ready)(void *context, unsigned what), void *context, err *e);
status http_watch_set(http_watch *w, unsigned what, err *e); /* 0 = paused */
void http_watch_destroy(http_watch *w);                      /* NULL is fine */

/* ---- the server ------------------------------------------------------------------------------------------------- */

typedef struct http_server http_server;
typedef struct http_request http_request;

/* All zero means the defaults in brackets. Strings are copied. */
typedef struct http_options {
    uint64_t header_bytes; /* request line and headers [64 KiB]; more: 431 */
    uint64_t body_bytes;   /* [32 MiB]; more: 413 */
    uint64_t
        header_us; /* whole head of a request, from accept or from its first byte; not extended [10 s] */
    uint64_t body_us;  /* whole body, not extended [120 s] */
    uint64_t idle_us;  /* a kept-alive connection waiting for its next request [75 s] */
    uint64_t stall_us; /* a client that takes nothing of what waits for it is dropped [60 s] */
    uint64_t
        pending_bytes; /* so is one for which more than this waits [32 MiB]; see http_stream_pending */
    uint32_t connections; /* [4096]; beyond: the longest idle one makes room, else 503 */
    /* Names allowed in Host besides localhost, *.localhost, 127.0.0.1, ::1 and (on a connection that did not come in over
     * loopback) any IP literal, which cannot be the product of DNS rebinding. "*" = any. No ports here. */
    const char *const *hosts;
    size_t n_hosts;
    /* Origins ("https://chat.example") allowed besides http(s) of the loopback names, any port, and the server's own. "*" = any. */
    const char *const *origins;
    size_t n_origins;
} http_options;

/* Called for every well-formed request that passed the guards, body complete. It answers now or keeps r and answers later; a
 * handler that keeps r must have called http_on_gone (else 500 is answered for it). */
typedef void (*http_handler)(void *context, http_request *r);

status http_server_create(http_server **out, http_loop *l,
                          const http_options *options, /* NULL = defaults */
                          http_handler handle, void *context, err *e);
/* Closes listeners and connections; gone is called for unanswered requests. Not inside a callback of this server. */
void http_server_destroy(http_server *s);
/* address: "127.0.0.1:52415", "[::1]:0", "localhost:80" (= 127.0.0.1). Port 0 = a free one. May be called several times.
 * *out_port (may be NULL) = the port. Taken: CONFLICT, the text names address and port. */
status http_server_listen(http_server *s, const char *address, int *out_port, err *e);
void http_server_close_listeners(
    http_server *s); /* live requests go on; kept-alive connections end after their answer */
/* Takes over an accepted stream socket as if a listener had accepted it. On error fd stays the caller's. */
status http_server_adopt(http_server *s, int fd, err *e);
size_t http_server_connections(const http_server *s);
size_t http_server_requests(const http_server *s); /* given to the handler and not yet answered */

/* What the server itself answers, always with a JSON body {"error":{"message","type","code"}} and then closing the connection:
 * 400 bad syntax; Content-Length twice, not digits only, or beside Transfer-Encoding; Host missing, twice or bad; name of a header not a
 *     token or followed by space; obs-fold; bare CR, LF or NUL; bad chunk
 * 403 Host or Origin not allowed  408 deadline passed within a request  413 body  417 unknown Expect  431 head
 * 501 Transfer-Encoding other than exactly "chunked", methods other than GET HEAD POST DELETE OPTIONS PATCH PUT
 * 503 too many connections  505 not HTTP/1.x
 * A preflight (OPTIONS with Origin and Access-Control-Request-Method) is answered with 204 and never reaches the handler. */

/* ---- a request (valid until it is answered, ended, or gone has returned) ------------------------------------------ */

const char *http_request_method(const http_request *r); /* "GET" */
const char *http_request_path(
    const http_request *r); /* percent-decoded, begins with "/" (or is "*"); no NUL inside */
const char *http_request_query(const http_request *r); /* raw, without "?"; "" when none */
/* First value of a header by name (any case); NULL when absent. http_request_n_headers/_header_at walk all. */
const char *http_request_header(const http_request *r, const char *name);
size_t http_request_n_headers(const http_request *r);
void http_request_header_at(const http_request *r, size_t i, const char **name, const char **value);
/* The decoded value of name in the query; heap string (base_free). false: absent or not decodable. */
bool http_request_query_value(const http_request *r, const char *name, char **out);
str http_request_body(const http_request *r); /* NUL after the end */
char *http_request_take_body(
    http_request *r); /* the caller's now (base_free); length from http_request_body first */
const char *http_request_peer(const http_request *r); /* "127.0.0.1:40312" */
bool http_request_is_local(const http_request *r);    /* came in over loopback */
http_loop *http_request_loop(const http_request *r);
void http_request_set_user(http_request *r, void *user);
void *http_request_user(const http_request *r);

/* gone(context, r): the client closed or half-closed its connection, stalled, or the server is destroyed, before the answer was
 * complete. Called at once from the loop, never from inside an http_ call; r is freed when it returns. After http_reply or
 * http_stream_end it is not called. */
void http_on_gone(http_request *r, void (*gone)(void *context, http_request *r), void *context);

/* ---- answers ---------------------------------------------------------------------------------------------------- */

/* A header for the answer to come; before http_reply or http_stream_begin. Control characters in value become spaces. */
void http_add_header(http_request *r, const char *name, const char *value);
/* The whole answer; body is copied; content_type may be NULL. r is freed. HEAD gets the headers only. */
void http_reply(http_request *r, int code, const char *content_type, const void *body, size_t n);
/* http_reply as text/plain, printf-like, cut at 1,000 bytes. */
void http_reply_text(http_request *r, int code, const char *format, ...) BASE_PRINTF(3, 4);

/* A streamed answer (chunked; until close for HTTP/1.0). All sends of one turn of the loop leave in one write. */
void http_stream_begin(http_request *r, int code, const char *content_type);
void http_stream_send(http_request *r, const void *bytes,
                      size_t n);       /* copied; n = 0 does nothing */
void http_stream_end(http_request *r); /* r is freed */
void http_stream_abort(
    http_request
        *r); /* closes without the end mark, so that the client sees a broken answer; r is freed */
bool http_stream_begun(const http_request *r);
/* Bytes not yet taken by the kernel. A producer pauses above a limit of its own (64 KiB is right for tokens) and goes on in
 * drained, which is called once when no more than `low` bytes wait. */
uint64_t http_stream_pending(const http_request *r);
void http_on_drained(http_request *r, uint64_t low, void (*drained)(void *context, http_request *r),
                     void *context);

/* Event streams: 200 text/event-stream with Cache-Control: no-cache and X-Accel-Buffering: no. End with http_stream_end.
 * NDJSON is http_stream_begin(r, 200, "application/x-ndjson") and lines. */
void http_sse_begin(http_request *r);
void http_sse_send(http_request *r, const char *event, const void *data,
                   size_t n);                             /* event NULL = none; newlines split */
void http_sse_comment(http_request *r, const char *text); /* ": text\n\n", keeps proxies awake */

/* ---- text helpers ------------------------------------------------------------------------------------------------- */

const char *http_reason(int code); /* "Not Found" */
void http_percent_encode(sb *out, str s,
                         const char *keep); /* all but unreserved characters and those in keep */
bool http_percent_decode(sb *out, str s,
                         bool plus); /* false: bad escape or %00; plus: '+' is a space */

/* Splits an event stream, given in pieces of any size, into events (a "data:" block; comments are dropped). */
typedef struct http_sse_reader {
    sb line, data, event;
    uint64_t limit; /* bytes of one event */
    bool has_data, after_cr, started;
} http_sse_reader;
typedef status (*http_sse_event)(void *context, const char *event, str data,
                                 err *e); /* event "" = none was named */
void http_sse_reader_init(http_sse_reader *s, uint64_t limit_bytes);
void http_sse_reader_fini(http_sse_reader *s);
/* Stops at the first status that is not OK and returns it. An event without its blank line at the end of the stream is dropped. */
status http_sse_feed(http_sse_reader *s, const char *bytes, size_t n, http_sse_event event,
                     void *context, err *e);

/* ---- the client --------------------------------------------------------------------------------------------------- */

typedef struct http_client http_client; /* keeps its connections; one thread at a time */

typedef struct http_call {
    const char *method;         /* NULL: GET, or POST when there is a body */
    const char *url;            /* http:// or https:// */
    const char *const *headers; /* "Name: value" */
    size_t n_headers;
    const void *body;
    size_t body_bytes;
    uint64_t connect_us; /* 0 = 10 s */
    uint64_t timeout_us; /* whole call; 0 = none */
    uint64_t stall_us; /* nothing arrives for so long (coarse, whole seconds): TIMEOUT; 0 = none */
    uint64_t limit_bytes; /* of the body kept in the response; 0 = 32 MiB; more: TOO_LARGE */
    /* When set, the body of a 2xx answer goes here as it arrives and is not kept; other answers are kept, so that their text
     * can be shown. A status that is not OK ends the call, which returns it. */
    status (*on_bytes)(void *context, const char *bytes, size_t n, err *e);
    void *context;
    bool head_only; /* HEAD */
    bool
        follow_redirects; /* at most 5, http(s) only; request headers are sent to every one: never with a token */
} http_call;

typedef struct http_response {
    int code;
    sb body;    /* NUL after the end */
    sb headers; /* raw "Name: value\r\n" lines of the last answer */
} http_response;

status http_client_create(http_client **out, err *e);
void http_client_destroy(http_client *c);
/* OK for every complete answer, also 404: look at code. Otherwise e says what and where ("cannot connect to 127.0.0.1:1: connection
 * refused"): CLOSED no connection or broken, TIMEOUT, CANCELLED, TOO_LARGE. out is init'ed here and to be fini'ed after OK only.
 * TLS certificates are verified; no proxy is used for loopback addresses. */
status http_client_fetch(http_client *c, http_response *out, const http_call *call, err *e);
void http_client_cancel(
    http_client *c); /* any thread: the running and every later fetch returns CANCELLED */
void http_response_fini(http_response *r);
/* First value of a header of the answer, into out; false when absent or longer than fits. */
bool http_response_header(const http_response *r, const char *name, char *out, size_t out_bytes);

#endif
