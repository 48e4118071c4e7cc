/*
 * server: listeners and the life of a connection.
 *
 *   IDLE ─first byte→ HEAD ─blank line→ BODY ─complete→ BUSY ─answered→ IDLE …          (advance, http_connection_answered)
 *   HEAD, BODY ─refused or too slow→ CLOSING                                            (refuse)
 *   BUSY ─answered, not kept alive→ CLOSING ─written→ LINGER ─end of file or 2 s→ freed (flush, on_timer)
 *   any ─end of file, error, stalled→ gone for an unanswered request, then freed        (lost)
 *
 * A connection is freed only at the end of one of its own event callbacks or of its turn in the list of dirty ones, never
 * inside a call of the handler's: what the handler writes goes into the out buffer and the connection into that list, which one
 * event of the same turn of the loop writes out. Each deadline is absolute; the one timer of a connection holds it.
 *
 * Not here: syntax (parse.c), who may ask (guards.c), what an answer looks like (answer.c).
 */
#include "http/http_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/listener.h>

enum {
    BACKLOG = 1024,
    BUSY_INPUT = 64 * 1024, /* bytes of later requests that are read while one is being answered */
    OUT_AHEAD =
        256 * 1024, /* no further pipelined request is begun while more waits to be written */
    LINGER_US = 2000000,
    ACCEPT_PAUSE_US = 100000 /* after accept failed (no descriptors) */
};

/* ---- small parts ---- */

static void dirty_unlink(http_connection *c)
{
    http_server *s = c->server;
    if (!c->is_dirty)
        return;
    *(c->dirty.previous ? &c->dirty.previous->dirty.next : &s->dirty_first) = c->dirty.next;
    *(c->dirty.next ? &c->dirty.next->dirty.previous : &s->dirty_last) = c->dirty.previous;
    c->is_dirty = false;
    s->n_dirty--;
}

void http_connection_dirty(http_connection *c)
{
    http_server *s = c->server;
    if (c->is_dirty)
        return;
    c->is_dirty = true;
    s->n_dirty++;
    c->dirty = (http_link){s->dirty_last, NULL};
    *(s->dirty_last ? &s->dirty_last->dirty.next : &s->dirty_first) = c;
    s->dirty_last = c;
    event_active(&s->flush_event, EV_TIMEOUT, 0);
}

static void set_deadline(http_connection *c, uint64_t us)
{
    struct timeval wait = http_timeval(us);
    c->stall_armed = false;
    event_add(&c->timer_event, &wait);
}

static void clear_deadline(http_connection *c)
{
    c->stall_armed = false;
    event_del(&c->timer_event);
}

static void set_reading(http_connection *c, bool on)
{
    if (on != c->is_reading)
        (on ? event_add(&c->read_event, NULL) : event_del(&c->read_event));
    c->is_reading = on;
}

static void set_writing(http_connection *c, bool on)
{
    if (on != c->is_writing)
        (on ? event_add(&c->write_event, NULL) : event_del(&c->write_event));
    c->is_writing = on;
}

static size_t unread(const http_connection *c)
{
    return c->in.length - c->in_used;
}

/* Forgets the parsed bytes; an idle connection holds no buffer. */
static void compact(http_connection *c)
{
    if (c->in_used == c->in.length) {
        sb_fini(&c->in);
        sb_init(&c->in);
    } else if (c->in_used > 0) {
        memmove(c->in.data, c->in.data + c->in_used, unread(c));
        c->in.length -= c->in_used;
    }
    c->in_used = 0;
}

void http_request_free(http_request *r)
{
    sb_fini(&r->body);
    sb_fini(&r->extra);
    arena_fini(&r->memory);
    base_free(r);
}

static void request_drop(http_connection *c)
{
    http_request *r = c->request;
    if (!r)
        return;
    c->request = NULL;
    if (r->handed)
        c->server->n_requests--;
    http_request_free(r);
}

static void connection_free(http_connection *c)
{
    http_server *s = c->server;
    event_del(&c->read_event);
    event_del(&c->write_event);
    event_del(&c->timer_event);
    dirty_unlink(c);
    *(c->all.previous ? &c->all.previous->all.next : &s->connections) = c->all.next;
    if (c->all.next)
        c->all.next->all.previous = c->all.previous;
    s->n_connections--;
    request_drop(c);
    sb_fini(&c->in);
    evbuffer_free(c->out);
    os_close(c->fd);
    base_free(c);
}

/* The client is gone (or has to go). */
static void lost(http_connection *c)
{
    http_request *r = c->request;
    if (r && r->handed) {
        c->request = NULL;
        r->connection = NULL;
        c->server->n_requests--;
        log_debug("http", "gone peer=%s %s %s", c->peer, r->head.method, r->head.path);
        if (r->gone)
            r->gone(r->gone_context, r);
        http_request_free(r);
    }
    connection_free(c);
}

static void to_idle(http_connection *c)
{
    c->state = HTTP_IDLE;
    c->idle_since_us = os_now_us();
    c->scan = (http_scan){0};
    set_deadline(c, c->server->options.idle_us);
}

void http_connection_answered(http_connection *c)
{
    log_debug("http", "peer=%s %s %s %d", c->peer, c->request->head.method, c->request->head.path,
              c->request->code);
    request_drop(c);
    clear_deadline(c);
    if (c->close_after) {
        c->state = HTTP_CLOSING;
        c->linger = true;
    } else {
        to_idle(c);
    }
    http_connection_dirty(c);
}

static void refuse(http_connection *c, const http_refusal *why)
{
    log_debug("http", "refused peer=%s code=%d %s", c->peer, why->code, why->text);
    http_answer_refusal(c, c->request, why);
    request_drop(c);
    clear_deadline(c);
    c->state = HTTP_CLOSING;
    c->linger = true;
    http_connection_dirty(c);
}

/* ---- a request comes in ---- */

/* Head complete: c->request exists and the guards have passed, or the request is refused. */
static void begin_request(http_connection *c, size_t head_bytes)
{
    http_server *s = c->server;
    http_refusal why = {0};
    http_request *r = base_zalloc(1, sizeof *r);
    if (!r) {
        c->doomed = true;
        http_connection_dirty(c);
        return;
    }
    arena_init(&r->memory, 0);
    sb_init(&r->body);
    sb_init(&r->extra);
    r->connection = c;
    r->server = s;
    c->request = r;
    const char *bytes = c->in.data + c->in_used;
    c->in_used += head_bytes;
    if (!http_parse_head(&r->head, &r->memory, bytes, head_bytes, &why) ||
        !http_guard(&s->allow, &r->head, c->local, &why)) {
        refuse(c, &why);
        return;
    }
    if (r->head.has_length && r->head.length > s->options.body_bytes) {
        http_refuse(&why, 413, "the body of %llu bytes is larger than %llu",
                    (unsigned long long)r->head.length, (unsigned long long)s->options.body_bytes);
        refuse(c, &why);
        return;
    }
    c->close_after = !r->head.keep_alive || s->closing;
    c->chunks = (http_chunks){0};
    c->state = HTTP_BODY;
    bool has_body = r->head.chunked || r->head.length > 0;
    if (has_body)
        set_deadline(c, s->options.body_us);
    if (has_body && r->head.expect_continue && unread(c) == 0) {
        evbuffer_add_printf(c->out, "HTTP/1.1 100 Continue\r\n\r\n");
        http_connection_dirty(c);
    }
}

/* True when the body is complete; false: more bytes wanted, or refused. */
static bool take_body(http_connection *c)
{
    http_request *r = c->request;
    http_refusal why = {0};
    const char *bytes = c->in.data ? c->in.data + c->in_used : "";
    size_t used = 0;
    bool done = false;
    if (r->head.chunked) {
        http_chunks_feed(&c->chunks, bytes, unread(c), &used, &r->body,
                         c->server->options.body_bytes, &done, &why);
    } else {
        used = (size_t)BASE_MIN((uint64_t)unread(c), r->head.length - r->body.length);
        sb_add(&r->body, bytes, used);
        done = r->body.length == r->head.length;
    }
    if (r->body.failed)
        http_refuse(&why, 507, "no memory for the body");
    if (why.code) {
        refuse(c, &why);
        return false;
    }
    c->in_used += used;
    return done;
}

static void hand_over(http_connection *c)
{
    http_server *s = c->server;
    http_request *r = c->request;
    clear_deadline(c);
    c->fresh = false;
    c->state = HTTP_BUSY;
    c->progress_us = os_now_us();
    r->handed = true;
    s->n_requests++;
    if (strcmp(r->head.method, "OPTIONS") == 0 && r->head.origin &&
        http_request_header(r, "Access-Control-Request-Method")) {
        http_answer_preflight(r);
        return;
    }
    s->handle(s->context, r);
    if (c->request == r && !r->gone) {
        log_error("http", "handler kept %s %s without http_on_gone", r->head.method, r->head.path);
        if (r->code == 0)
            http_reply_text(r, 500, "internal error");
        else
            http_stream_abort(r);
    }
}

/* True when the head is complete (or refused). */
static bool take_head(http_connection *c)
{
    http_refusal why = {0};
    size_t end = 0;
    int found = http_scan_head(&c->scan, c->in.data + c->in_used, unread(c), &end);
    if (found < 0)
        http_refuse(&why, 400, "a line does not end in CR LF");
    else if ((found ? end : unread(c)) > c->server->options.header_bytes)
        http_refuse(&why, 431, "the request head is larger than %llu bytes",
                    (unsigned long long)c->server->options.header_bytes);
    if (why.code)
        refuse(c, &why);
    else if (found)
        begin_request(c, end);
    return why.code || found;
}

/* True when a next request has begun. */
static bool take_first_byte(http_connection *c)
{
    while (unread(c) >= 2 && memcmp(c->in.data + c->in_used, "\r\n", 2) == 0)
        c->in_used += 2; /* RFC 9112 2.2: empty lines before a request line are skipped */
    bool only_cr = unread(c) == 1 && c->in.data[c->in_used] == '\r';
    if (unread(c) == 0 || only_cr || evbuffer_get_length(c->out) > OUT_AHEAD)
        return false;
    c->state = HTTP_HEAD;
    if (!c->fresh)
        set_deadline(c, c->server->options.header_us);
    return true;
}

/* One transition; false when there is none to make with what has been read. */
static bool step(http_connection *c)
{
    switch (c->state) {
    case HTTP_IDLE:
        return take_first_byte(c);
    case HTTP_HEAD:
        return take_head(c);
    case HTTP_BODY:
        if (!take_body(c))
            return false;
        hand_over(c);
        return true;
    default:
        return false;
    }
}

static void advance(http_connection *c)
{
    while (!c->doomed && step(c))
        ;
    if (c->in_used == c->in.length || c->in_used >= BUSY_INPUT / 2)
        compact(c);
    bool waits = c->state == HTTP_BUSY || c->state == HTTP_IDLE;
    if (c->state <= HTTP_BUSY)
        set_reading(c, !waits || unread(c) < BUSY_INPUT);
}

/* ---- events ---- */

/* End of file from the client. */
static void ended(http_connection *c)
{
    if (c->request || evbuffer_get_length(c->out) == 0) {
        lost(c);
        return;
    }
    set_reading(c, false);
    c->state = HTTP_CLOSING; /* all it asked for is answered and on its way */
    c->linger = false;
}

static void on_read(evutil_socket_t fd, short what, void *context)
{
    (void)what;
    http_connection *c = context;
    http_server *s = c->server;
    ssize_t n = read(fd, s->scratch, sizeof s->scratch);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n < 0) {
        lost(c);
        return;
    }
    if (c->state == HTTP_CLOSING || c->state == HTTP_LINGER) {
        if (n == 0 && c->state == HTTP_LINGER)
            lost(c);
        else if (n == 0)
            set_reading(c, false);
        return;
    }
    if (n == 0) {
        ended(c);
        return;
    }
    sb_add(&c->in, s->scratch, (size_t)n);
    if (c->in.failed) {
        lost(c);
        return;
    }
    advance(c);
}

/* Tells a paused producer that it may go on. */
static void notify_drained(http_connection *c)
{
    http_request *r = c->request;
    if (c->state != HTTP_BUSY || !r || !r->drained || evbuffer_get_length(c->out) > r->drained_low)
        return;
    void (*drained)(void *, http_request *) = r->drained;
    r->drained = NULL;
    drained(r->drained_context, r);
}

/* While an answer waits to be taken, the deadline is that of a stalled reader. */
static void watch_stall(http_connection *c, bool waits)
{
    bool answering = c->state == HTTP_BUSY || c->state == HTTP_CLOSING || c->state == HTTP_IDLE;
    if (waits && !c->stall_armed && answering) {
        set_deadline(c, c->server->options.stall_us);
        c->stall_armed = true;
    } else if (!waits && c->stall_armed && c->state == HTTP_IDLE) {
        set_deadline(c, c->server->options.idle_us);
    }
}

/* Writes what waits. False: the connection is freed. */
static bool flush(http_connection *c)
{
    http_server *s = c->server;
    if (c->doomed) {
        lost(c);
        return false;
    }
    while (evbuffer_get_length(c->out) > 0) {
        int n = evbuffer_write(c->out, c->fd);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (n <= 0) {
            lost(c);
            return false;
        }
        c->progress_us = os_now_us();
    }
    if (c->state == HTTP_BUSY && evbuffer_get_length(c->out) > s->options.pending_bytes) {
        log_info("http", "dropped a client for which too much waits peer=%s", c->peer);
        lost(c);
        return false;
    }
    bool waits = evbuffer_get_length(c->out) > 0;
    set_writing(c, waits);
    watch_stall(c, waits);
    if (!waits && c->state == HTTP_CLOSING) {
        if (!c->linger || shutdown(c->fd, SHUT_WR) != 0) {
            lost(c);
            return false;
        }
        c->state = HTTP_LINGER;
        sb_fini(&c->in);
        sb_init(&c->in);
        c->in_used = 0;
        set_reading(c, true);
        set_deadline(c, LINGER_US);
        return true;
    }
    notify_drained(c);
    return true;
}

static void on_write(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    http_connection *c = context;
    if (flush(c) && c->state == HTTP_IDLE)
        advance(c);
}

static void on_flush(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    http_server *s = context;
    /* Those that drained callbacks add meanwhile get their turn after other events. */
    for (size_t n = s->n_dirty; n > 0 && s->dirty_first; n--) {
        http_connection *c = s->dirty_first;
        dirty_unlink(c);
        if (flush(c) && c->state == HTTP_IDLE)
            advance(c);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    http_connection *c = context;
    http_refusal why = {0};
    if (c->stall_armed) {
        c->stall_armed = false;
        uint64_t stall_us = c->server->options.stall_us, still = os_now_us() - c->progress_us;
        if (evbuffer_get_length(c->out) == 0)
            return;
        if (still >= stall_us) {
            log_info("http", "dropped a client that takes nothing peer=%s waiting=%zu", c->peer,
                     evbuffer_get_length(c->out));
            lost(c);
            return;
        }
        set_deadline(c, stall_us - still);
        c->stall_armed = true;
    } else if (c->state == HTTP_HEAD || c->state == HTTP_BODY) {
        http_refuse(&why, 408, "the request did not arrive in time");
        refuse(c, &why);
    } else if (c->state != HTTP_BUSY) {
        lost(c);
    }
}

/* ---- connections and listeners ---- */

static void describe_peer(http_connection *c)
{
    struct sockaddr_storage peer, own;
    socklen_t peer_n = sizeof peer, own_n = sizeof own;
    char text[INET6_ADDRSTRLEN] = "";
    c->local = true;
    snprintf(c->peer, sizeof c->peer, "local");
    if (getpeername(c->fd, (struct sockaddr *)&peer, &peer_n) != 0 ||
        getsockname(c->fd, (struct sockaddr *)&own, &own_n) != 0)
        return;
    if (own.ss_family == AF_INET) {
        const struct sockaddr_in *p = (const struct sockaddr_in *)&peer,
                                 *o = (const struct sockaddr_in *)&own;
        inet_ntop(AF_INET, &p->sin_addr, text, sizeof text);
        snprintf(c->peer, sizeof c->peer, "%s:%d", text, ntohs(p->sin_port));
        c->local = ntohl(o->sin_addr.s_addr) >> 24 == 127;
    } else if (own.ss_family == AF_INET6) {
        const struct sockaddr_in6 *p = (const struct sockaddr_in6 *)&peer,
                                  *o = (const struct sockaddr_in6 *)&own;
        inet_ntop(AF_INET6, &p->sin6_addr, text, sizeof text);
        snprintf(c->peer, sizeof c->peer, "[%s]:%d", text, ntohs(p->sin6_port));
        c->local = IN6_IS_ADDR_LOOPBACK(&o->sin6_addr);
    }
}

/* At the limit of connections: ends the one that has waited longest for a next request. */
static bool make_room(http_server *s)
{
    http_connection *oldest = NULL;
    for (http_connection *c = s->connections; c; c = c->all.next)
        if (c->state == HTTP_IDLE && evbuffer_get_length(c->out) == 0 && !c->is_dirty &&
            (!oldest || c->idle_since_us < oldest->idle_since_us))
            oldest = c;
    if (oldest)
        connection_free(oldest);
    return oldest != NULL;
}

static status connection_create(http_server *s, int fd, err *e)
{
    http_connection *c = base_zalloc(1, sizeof *c);
    if (!c)
        return err_set(e, STATUS_NO_MEMORY, "http: no memory for a connection");
    c->out = evbuffer_new();
    if (!c->out) {
        base_free(c);
        return err_set(e, STATUS_NO_MEMORY, "http: no memory for a connection");
    }
    struct event_base *base = http_loop_base(s->loop);
    c->server = s;
    c->fd = fd;
    c->fresh = true;
    sb_init(&c->in);
    describe_peer(c);
    event_assign(&c->read_event, base, fd, EV_READ | EV_PERSIST, on_read, c);
    event_assign(&c->write_event, base, fd, EV_WRITE | EV_PERSIST, on_write, c);
    evtimer_assign(&c->timer_event, base, on_timer, c);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one,
               sizeof one); /* fails on other sockets: harmless */
    c->all.next = s->connections;
    if (s->connections)
        s->connections->all.previous = c;
    s->connections = c;
    s->n_connections++;
    to_idle(c);
    set_deadline(c, s->options.header_us);
    set_reading(c, true);
    if (s->n_connections > s->options.connections) {
        http_refusal why = {0};
        http_refuse(&why, 503, "too many connections (%u)", s->options.connections);
        refuse(c, &why);
    }
    return STATUS_OK;
}

status http_server_adopt(http_server *s, int fd, err *e)
{
    status result = os_set_nonblocking(fd, true, e);
    if (result != STATUS_OK)
        return result;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (s->n_connections >= s->options.connections)
        make_room(s);
    /* Refusals need descriptors too, but not without end. */
    if (s->n_connections >= (size_t)s->options.connections + 256)
        return err_set(e, STATUS_BUSY, "http: %zu connections are open", s->n_connections);
    return connection_create(s, fd, e);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int n, void *context)
{
    (void)listener, (void)address, (void)n;
    err e = {0};
    if (http_server_adopt(context, fd, &e) != STATUS_OK) {
        log_warn("http", "connection refused: %s", e.text);
        os_close(fd);
    }
}

/* No descriptors left, most likely: a listener would report it again and again without a pause. */
static void on_accept_error(struct evconnlistener *listener, void *context)
{
    (void)listener;
    http_server *s = context;
    log_warn("http", "cannot accept a connection: %s; trying again soon", strerror(errno));
    for (size_t i = 0; i < s->n_listeners; i++)
        evconnlistener_disable(s->listeners[i]);
    struct timeval wait = http_timeval(ACCEPT_PAUSE_US);
    event_add(&s->accept_event, &wait);
}

static void on_accept_again(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    http_server *s = context;
    for (size_t i = 0; i < s->n_listeners; i++)
        evconnlistener_enable(s->listeners[i]);
}

typedef union any_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} any_address;

static status parse_address(any_address *out, socklen_t *n, const char *text, err *e)
{
    char name[256];
    int port;
    memset(out, 0, sizeof *out);
    if (!http_split_host(text, name, sizeof name, &port) || port < 0)
        return err_set(e, STATUS_INVALID,
                       "http: \"%s\" is not ADDRESS:PORT like 127.0.0.1:52415 or [::1]:52415",
                       text);
    const char *number = strcmp(name, "localhost") == 0 ? "127.0.0.1" : name;
    if (inet_pton(AF_INET, number, &out->v4.sin_addr) == 1) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons((uint16_t)port);
        *n = sizeof out->v4;
    } else if (inet_pton(AF_INET6, number, &out->v6.sin6_addr) == 1) {
        out->v6.sin6_family = AF_INET6;
        out->v6.sin6_port = htons((uint16_t)port);
        *n = sizeof out->v6;
    } else {
        return err_set(e, STATUS_INVALID,
                       "http: cannot listen on \"%s\": the address must be a number", text);
    }
    return STATUS_OK;
}

static status listen_failed(const char *address, err *e)
{
    if (errno == EADDRINUSE)
        return err_set(e, STATUS_CONFLICT,
                       "http: cannot listen on %s: the port is in use by another program", address);
    return err_errno(e, errno, "http: cannot listen on %s", address);
}

status http_server_listen(http_server *s, const char *address, int *out_port, err *e)
{
    any_address a;
    socklen_t n;
    status result = parse_address(&a, &n, address, e);
    if (result != STATUS_OK)
        return result;
    struct evconnlistener **bigger =
        base_realloc(s->listeners, (s->n_listeners + 1) * sizeof *bigger);
    if (!bigger)
        return err_set(e, STATUS_NO_MEMORY, "http: no memory for a listener");
    s->listeners = bigger;
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;
    if (a.any.sa_family == AF_INET6)
        flags |= LEV_OPT_BIND_IPV6ONLY;
    errno = 0;
    struct evconnlistener *l = evconnlistener_new_bind(http_loop_base(s->loop), on_accept, s, flags,
                                                       BACKLOG, &a.any, (int)n);
    if (!l)
        return listen_failed(address, e);
    evconnlistener_set_error_cb(l, on_accept_error);
    if (getsockname(evconnlistener_get_fd(l), &a.any, &n) != 0) {
        result = listen_failed(address, e);
        evconnlistener_free(l);
        return result;
    }
    s->listeners[s->n_listeners++] = l;
    if (out_port)
        *out_port = ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
    return STATUS_OK;
}

void http_server_close_listeners(http_server *s)
{
    for (size_t i = 0; i < s->n_listeners; i++)
        evconnlistener_free(s->listeners[i]);
    s->n_listeners = 0;
    event_del(&s->accept_event);
    s->closing = true;
    for (http_connection *c = s->connections, *next; c; c = next) {
        next = c->all.next;
        c->close_after = true;
        if (c->state == HTTP_IDLE && evbuffer_get_length(c->out) == 0 && unread(c) == 0 &&
            !c->is_dirty)
            connection_free(c);
    }
}

static void default_to(uint64_t *value, uint64_t otherwise)
{
    if (*value == 0)
        *value = otherwise;
}

status http_server_create(http_server **out, http_loop *l, const http_options *options,
                          http_handler handle, void *context, err *e)
{
    http_server *s = base_zalloc(1, sizeof *s);
    if (!s)
        return err_set(e, STATUS_NO_MEMORY, "http: no memory for a server");
    http_options o = options ? *options : (http_options){0};
    status result = http_allow_init(&s->allow, &o, e);
    if (result != STATUS_OK) {
        base_free(s);
        return result;
    }
    default_to(&o.header_bytes, 64 << 10);
    default_to(&o.body_bytes, 32 << 20);
    default_to(&o.header_us, 10000000);
    default_to(&o.body_us, 120000000);
    default_to(&o.idle_us, 75000000);
    default_to(&o.stall_us, 60000000);
    default_to(&o.pending_bytes, 32 << 20);
    if (o.connections == 0)
        o.connections = 4096;
    s->options = o;
    s->loop = l;
    s->handle = handle;
    s->context = context;
    event_assign(&s->flush_event, http_loop_base(l), -1, 0, on_flush, s);
    event_assign(&s->accept_event, http_loop_base(l), -1, 0, on_accept_again, s);
    *out = s;
    return STATUS_OK;
}

void http_server_destroy(http_server *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_listeners; i++)
        evconnlistener_free(s->listeners[i]);
    while (s->connections)
        lost(s->connections);
    event_del(&s->flush_event);
    event_del(&s->accept_event);
    http_allow_fini(&s->allow);
    base_free(s->listeners);
    base_free(s);
}

size_t http_server_connections(const http_server *s)
{
    return s->n_connections;
}

size_t http_server_requests(const http_server *s)
{
    return s->n_requests;
}
