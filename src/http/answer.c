/*
 * answer: what a handler reads of a request and writes back: whole answers, streams, event streams, CORS headers.
 *
 * Everything goes into the out buffer of the connection, which is written at the end of this turn of the loop (server.c). A
 * request whose client is gone has no connection: inside its gone callback every call here does nothing.
 *
 * Not here: content (src/api), which origins are allowed (guards.c).
 */
#include "http/http_internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include <event2/buffer.h>

/* ---- reading ---- */

const char *http_request_method(const http_request *r)
{
    return r->head.method;
}

const char *http_request_path(const http_request *r)
{
    return r->head.path;
}

const char *http_request_query(const http_request *r)
{
    return r->head.query;
}

const char *http_request_header(const http_request *r, const char *name)
{
    for (size_t i = 0; i < r->head.n_fields; i++)
        if (http_same_name(r->head.fields[i].name, name))
            return r->head.fields[i].value;
    return NULL;
}

size_t http_request_n_headers(const http_request *r)
{
    return r->head.n_fields;
}

void http_request_header_at(const http_request *r, size_t i, const char **name, const char **value)
{
    REQUIRE(i < r->head.n_fields);
    *name = r->head.fields[i].name;
    *value = r->head.fields[i].value;
}

bool http_request_query_value(const http_request *r, const char *name, char **out)
{
    for (const char *p = r->head.query; *p;) {
        size_t n = strcspn(p, "&");
        const char *equals = memchr(p, '=', n);
        size_t key_length = equals ? (size_t)(equals - p) : n;
        sb key, value;
        sb_init(&key);
        sb_init(&value);
        bool found = http_percent_decode(&key, (str){p, key_length}, true) && key.data &&
                     strcmp(key.data, name) == 0;
        bool fine =
            found &&
            (!equals || http_percent_decode(&value, (str){equals + 1, n - key_length - 1}, true));
        sb_fini(&key);
        if (found) {
            char *text = fine ? sb_take(&value) : NULL;
            sb_fini(&value);
            if (text)
                *out = text;
            return text != NULL;
        }
        sb_fini(&value);
        p += n + (p[n] == '&');
    }
    return false;
}

str http_request_body(const http_request *r)
{
    return (str){r->body.data ? r->body.data : "", r->body.length};
}

char *http_request_take_body(http_request *r)
{
    return sb_take(&r->body);
}

const char *http_request_peer(const http_request *r)
{
    return r->connection ? r->connection->peer : "gone";
}

bool http_request_is_local(const http_request *r)
{
    return r->connection && r->connection->local;
}

http_loop *http_request_loop(const http_request *r)
{
    return r->server->loop;
}

void http_request_set_user(http_request *r, void *user)
{
    r->user = user;
}

void *http_request_user(const http_request *r)
{
    return r->user;
}

void http_on_gone(http_request *r, void (*gone)(void *context, http_request *r), void *context)
{
    r->gone = gone;
    r->gone_context = context;
}

/* ---- the head of an answer ---- */

/* RFC 9110 5.6.7, made once a second. */
static const char *date(http_server *s)
{
    static const char days[] = "SunMonTueWedThuFriSat",
                      months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    uint64_t now = os_unix_us() / 1000000;
    time_t t = (time_t)now;
    struct tm utc;
    if (now != s->date_second && gmtime_r(&t, &utc)) {
        s->date_second = now;
        snprintf(s->date, sizeof s->date, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                 days + 3 * utc.tm_wday, utc.tm_mday, months + 3 * utc.tm_mon,
                 (utc.tm_year + 1900) % 10000, utc.tm_hour, utc.tm_min, utc.tm_sec);
    }
    return s->date;
}

static void add(http_connection *c, const void *bytes, size_t n)
{
    if (evbuffer_add(c->out, bytes, n) != 0)
        c->doomed = true; /* no memory: half an answer is worse than none */
}

static void add_text(http_connection *c, const char *format, ...) BASE_PRINTF(2, 3);
static void add_text(http_connection *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (evbuffer_add_vprintf(c->out, format, args) < 0)
        c->doomed = true;
    va_end(args);
}

static bool has_no_body(const http_request *r, int code)
{
    return code == 204 || code == 304 || (code >= 100 && code < 200) ||
           strcmp(r->head.method, "HEAD") == 0;
}

enum { UNKNOWN_LENGTH = -1 };

static void begin(http_request *r, int code, const char *content_type, int64_t length)
{
    http_connection *c = r->connection;
    r->code = code;
    r->no_body = has_no_body(r, code);
    bool until_close = length == UNKNOWN_LENGTH && r->head.minor == 0;
    if (until_close || r->server->closing)
        c->close_after = true;
    add_text(c, "HTTP/1.1 %d %s\r\nDate: %s\r\n", code, http_reason(code), date(r->server));
    if (content_type)
        add_text(c, "Content-Type: %s\r\n", content_type);
    if (length == UNKNOWN_LENGTH && !until_close) {
        r->chunked = !r->no_body;
        if (code != 204 && code != 304)
            add_text(c, "Transfer-Encoding: chunked\r\n");
    } else if (length >= 0 && code != 204 && code != 304) {
        add_text(c, "Content-Length: %lld\r\n", (long long)length);
    }
    if (c->close_after)
        add_text(c, "Connection: close\r\n");
    else if (r->head.minor == 0)
        add_text(c, "Connection: keep-alive\r\n");
    if (r->head.origin) /* allowed, or it had not come here */
        add_text(c,
                 "Access-Control-Allow-Origin: %s\r\nAccess-Control-Expose-Headers: *\r\nVary: "
                 "Origin\r\n",
                 r->head.origin);
    if (r->extra.failed)
        c->doomed = true;
    add(c, r->extra.data ? r->extra.data : "", r->extra.length);
    add(c, "\r\n", 2);
    http_connection_dirty(c);
}

void http_add_header(http_request *r, const char *name, const char *value)
{
    if (!r->connection)
        return;
    REQUIRE(r->code == 0);
    sb_printf(&r->extra, "%s: ", name);
    for (const char *p = value; *p; p++)
        sb_putc(&r->extra, (unsigned char)*p < 0x20 || *p == 0x7f ? ' ' : *p);
    sb_puts(&r->extra, "\r\n");
}

/* ---- whole answers ---- */

void http_reply(http_request *r, int code, const char *content_type, const void *body, size_t n)
{
    http_connection *c = r->connection;
    if (!c)
        return;
    REQUIRE(r->code == 0);
    begin(r, code, content_type, (int64_t)n);
    if (!r->no_body)
        add(c, body, n);
    http_connection_answered(c);
}

void http_reply_text(http_request *r, int code, const char *format, ...)
{
    char text[1001];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    http_reply(r, code, "text/plain; charset=utf-8", text,
               n < 0 ? 0 : BASE_MIN((size_t)n, sizeof text - 1));
}

static const char *refusal_type(int code)
{
    return code == 403   ? "permission_error"
           : code >= 500 ? "server_error"
                         : "invalid_request_error";
}

void http_answer_refusal(http_connection *c, const http_request *r, const http_refusal *why)
{
    bool head_only = r && r->head.method && strcmp(r->head.method, "HEAD") == 0;
    sb body;
    sb_init(&body);
    sb_puts(&body, "{\"error\":{\"message\":\"");
    sb_json(&body, why->text, strlen(why->text));
    sb_printf(&body, "\",\"type\":\"%s\",\"code\":%d}}\n", refusal_type(why->code), why->code);
    if (body.failed)
        sb_clear(&body);
    add_text(
        c,
        "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
        "Connection: close\r\n\r\n",
        why->code, http_reason(why->code), date(c->server), body.length);
    if (!head_only)
        add(c, body.data ? body.data : "", body.length);
    sb_fini(&body);
}

void http_answer_preflight(http_request *r)
{
    const char *wanted = http_request_header(r, "Access-Control-Request-Headers");
    http_add_header(r, "Access-Control-Allow-Methods",
                    "GET, HEAD, POST, DELETE, OPTIONS, PATCH, PUT");
    if (wanted)
        http_add_header(r, "Access-Control-Allow-Headers", wanted);
    http_add_header(r, "Access-Control-Max-Age", "600");
    http_reply(r, 204, NULL, NULL, 0);
}

/* ---- streams ---- */

void http_stream_begin(http_request *r, int code, const char *content_type)
{
    if (!r->connection)
        return;
    REQUIRE(r->code == 0);
    begin(r, code, content_type, UNKNOWN_LENGTH);
}

bool http_stream_begun(const http_request *r)
{
    return r->code != 0;
}

/* One chunk from up to three parts. */
static void send_parts(http_request *r, const str parts[3])
{
    http_connection *c = r->connection;
    if (!c)
        return;
    REQUIRE(r->code != 0);
    size_t n = parts[0].length + parts[1].length + parts[2].length;
    if (n == 0 || r->no_body || c->doomed)
        return;
    if (r->chunked) {
        char size[24];
        add(c, size, (size_t)snprintf(size, sizeof size, "%zx\r\n", n));
    }
    for (int i = 0; i < 3; i++)
        if (parts[i].length)
            add(c, parts[i].data, parts[i].length);
    if (r->chunked)
        add(c, "\r\n", 2);
    http_connection_dirty(c);
}

void http_stream_send(http_request *r, const void *bytes, size_t n)
{
    send_parts(r, (const str[3]){{bytes, n}, {NULL, 0}, {NULL, 0}});
}

void http_stream_end(http_request *r)
{
    http_connection *c = r->connection;
    if (!c)
        return;
    REQUIRE(r->code != 0);
    if (r->chunked)
        add(c, "0\r\n\r\n", 5);
    http_connection_answered(c);
}

void http_stream_abort(http_request *r)
{
    http_connection *c = r->connection;
    if (!c)
        return;
    c->close_after = true;
    http_connection_answered(c);
}

uint64_t http_stream_pending(const http_request *r)
{
    return r->connection ? evbuffer_get_length(r->connection->out) : 0;
}

void http_on_drained(http_request *r, uint64_t low, void (*drained)(void *context, http_request *r),
                     void *context)
{
    r->drained = drained;
    r->drained_context = context;
    r->drained_low = low;
    if (r->connection)
        http_connection_dirty(r->connection); /* it may have drained already */
}

/* ---- event streams ---- */

void http_sse_begin(http_request *r)
{
    http_add_header(r, "Cache-Control", "no-cache");
    http_add_header(r, "X-Accel-Buffering", "no");
    http_stream_begin(r, 200, "text/event-stream");
}

void http_sse_send(http_request *r, const char *event, const void *data, size_t n)
{
    const char *bytes = n ? data : "";
    if (!event && !memchr(bytes, '\n', n) &&
        !memchr(bytes, '\r', n)) { /* every token comes this way */
        send_parts(r, (const str[3]){{"data: ", 6}, {bytes, n}, {"\n\n", 2}});
        return;
    }
    sb lines;
    sb_init(&lines);
    if (event)
        sb_printf(&lines, "event: %s\n", event);
    for (size_t at = 0; at <= n;) {
        size_t end = at;
        while (end < n && bytes[end] != '\n' && bytes[end] != '\r')
            end++;
        sb_puts(&lines, "data: ");
        sb_add(&lines, bytes + at, end - at);
        sb_putc(&lines, '\n');
        at = end + 1 + (end + 1 < n && bytes[end] == '\r' && bytes[end + 1] == '\n');
    }
    sb_putc(&lines, '\n');
    if (lines.failed && r->connection)
        r->connection->doomed = true;
    http_stream_send(r, lines.data, lines.length);
    sb_fini(&lines);
}

void http_sse_comment(http_request *r, const char *text)
{
    size_t n = strcspn(text, "\r\n");
    send_parts(r, (const str[3]){{": ", 2}, {text, n}, {"\n\n", 2}});
}
