/*
 * text: reason phrases, percent encoding (RFC 3986), and the reader of event streams (WHATWG HTML 9.2.6).
 *
 * The reader keeps the line and the event that are not complete yet, so bytes may be cut anywhere, also inside CR LF. It does
 * not keep ids or retry times: nothing here reconnects.
 */
#include "http/http_internal.h"

#include <string.h>

const char *http_reason(int code)
{
    static const struct {
        int code;
        const char *reason;
    } reasons[] = {
        {100, "Continue"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
        {529, "Overloaded"},
    };
    for (size_t i = 0; i < BASE_COUNT(reasons); i++)
        if (reasons[i].code == code)
            return reasons[i].reason;
    return code < 400 ? "OK" : "Error";
}

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

void http_percent_encode(sb *out, str s, const char *keep)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < s.length; i++) {
        char c = s.data[i];
        if (is_unreserved(c) || (c && strchr(keep, c))) {
            sb_putc(out, c);
        } else {
            sb_putc(out, '%');
            sb_putc(out, digits[(unsigned char)c >> 4]);
            sb_putc(out, digits[(unsigned char)c & 15]);
        }
    }
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool http_percent_decode(sb *out, str s, bool plus)
{
    for (size_t i = 0; i < s.length; i++) {
        char c = s.data[i];
        if (c == '%') {
            if (s.length - i < 3)
                return false;
            int h = hex_digit(s.data[i + 1]), l = hex_digit(s.data[i + 2]);
            if (h < 0 || l < 0 || (h == 0 && l == 0))
                return false;
            c = (char)(h * 16 + l);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        sb_putc(out, c);
    }
    return true;
}

/* ---- event streams ---- */

void http_sse_reader_init(http_sse_reader *s, uint64_t limit_bytes)
{
    *s = (http_sse_reader){.limit = limit_bytes};
    sb_init(&s->line);
    sb_init(&s->data);
    sb_init(&s->event);
}

void http_sse_reader_fini(http_sse_reader *s)
{
    sb_fini(&s->line);
    sb_fini(&s->data);
    sb_fini(&s->event);
}

static status dispatch(http_sse_reader *s, http_sse_event event, void *context, err *e)
{
    status result = STATUS_OK;
    if (s->has_data)
        result = event(context, s->event.length ? s->event.data : "",
                       (str){s->data.length ? s->data.data : "", s->data.length}, e);
    s->has_data = false;
    sb_clear(&s->data);
    sb_clear(&s->event);
    return result;
}

static status take_line(http_sse_reader *s, http_sse_event event, void *context, err *e)
{
    const char *p = s->line.length ? s->line.data : "";
    size_t n = s->line.length;
    if (!s->started && n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) {
        p += 3;
        n -= 3;
    }
    s->started = true;
    if (n == 0)
        return dispatch(s, event, context, e);
    const char *colon = memchr(p, ':', n);
    size_t name = colon ? (size_t)(colon - p) : n;
    size_t from = colon ? name + 1 : n;
    if (from < n && p[from] == ' ')
        from++;
    if (name == 4 && memcmp(p, "data", 4) == 0) {
        if (s->has_data)
            sb_putc(&s->data, '\n');
        sb_add(&s->data, p + from, n - from);
        s->has_data = true;
    } else if (name == 5 && memcmp(p, "event", 5) == 0) {
        sb_clear(&s->event);
        sb_add(&s->event, p + from, n - from);
    }
    return STATUS_OK;
}

status http_sse_feed(http_sse_reader *s, const char *bytes, size_t n, http_sse_event event,
                     void *context, err *e)
{
    for (size_t i = 0; i < n;) {
        if (s->after_cr && bytes[i] == '\n') {
            s->after_cr = false;
            i++;
            continue;
        }
        s->after_cr = false;
        size_t end = i;
        while (end < n && bytes[end] != '\n' && bytes[end] != '\r')
            end++;
        sb_add(&s->line, bytes + i, end - i);
        if (s->line.length + s->data.length > s->limit)
            return err_set(e, STATUS_TOO_LARGE, "an event of the stream is larger than %llu bytes",
                           (unsigned long long)s->limit);
        i = end;
        if (end == n)
            break;
        s->after_cr = bytes[end] == '\r';
        i++;
        status result = take_line(s, event, context, e);
        sb_clear(&s->line);
        if (result != STATUS_OK)
            return result;
    }
    if (s->line.failed || s->data.failed || s->event.failed)
        return err_set(e, STATUS_NO_MEMORY, "no memory for an event of the stream");
    return STATUS_OK;
}
