/*
 * parse: the bytes of a request head → http_head, the bytes of a chunked body → body. Strict where RFC 9112 allows a server to
 * be: whatever two readers could frame differently (bare LF, obs-fold, space before a colon, two lengths, a length beside a
 * transfer coding, signs or 0x in numbers) is refused, not repaired.
 *
 * Pure functions of their bytes; fuzzed by tests/fuzz/fuzz_http_request.c. Not here: who may ask (guards.c), limits of time.
 */
#include "http/http_internal.h"

#include <stdio.h>
#include <string.h>

void http_refuse(http_refusal *why, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    why->code = code;
    vsnprintf(why->text, sizeof why->text, format, args);
    va_end(args);
}

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

bool http_same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if (lower(*a) != lower(*b))
            return false;
    return *a == *b;
}

static bool is_token_char(char c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
        return true;
    return c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int http_scan_head(http_scan *scan, const char *bytes, size_t n, size_t *end)
{
    while (scan->seen < n) {
        const char *newline = memchr(bytes + scan->seen, '\n', n - scan->seen);
        if (!newline) {
            scan->seen = n;
            return 0;
        }
        size_t at = (size_t)(newline - bytes);
        if (at == scan->line || bytes[at - 1] != '\r')
            return -1;
        scan->seen = at + 1;
        if (at - 1 == scan->line) {
            *end = at + 1;
            return 1;
        }
        scan->line = at + 1;
    }
    return 0;
}

/* ---- host ---- */

bool http_split_host(const char *text, char *name, size_t name_bytes, int *port)
{
    size_t n = 0;
    const char *p = text;
    bool bracket = *p == '[';
    if (bracket)
        p++;
    for (; *p && *p != (bracket ? ']' : ':'); p++) {
        bool fits = bracket ? hex_value(*p) >= 0 || *p == ':' || *p == '.'
                            : is_digit(*p) || (lower(*p) >= 'a' && lower(*p) <= 'z') || *p == '-' ||
                                  *p == '.' || *p == '_';
        if (!fits || n + 1 >= name_bytes)
            return false;
        name[n++] = (char)lower(*p);
    }
    if (bracket && *p++ != ']')
        return false;
    if (!bracket && n > 1 && name[n - 1] == '.')
        n--;
    if (n == 0)
        return false;
    name[n] = 0;
    *port = -1;
    if (*p == 0)
        return true;
    if (*p++ != ':')
        return false;
    uint64_t number;
    if (*p == 0) /* "name:" is allowed by RFC 3986 */
        return true;
    if (strlen(p) > 5 || !is_digit(*p) || !base_parse_u64(p, &number) || number > 65535)
        return false;
    *port = (int)number;
    return true;
}

/* ---- the request line ---- */

static bool parse_version(http_head *out, const char *p, size_t n, http_refusal *why)
{
    if (n != 8 || memcmp(p, "HTTP/", 5) != 0 || !is_digit(p[5]) || p[6] != '.' || !is_digit(p[7])) {
        http_refuse(why, 400, "the request line is not METHOD TARGET HTTP/1.1");
        return false;
    }
    if (p[5] != '1') {
        http_refuse(why, 505, "HTTP/%c.%c is not spoken here, only HTTP/1.1", p[5], p[7]);
        return false;
    }
    out->minor = p[7] - '0';
    return true;
}

static bool known_method(const char *method)
{
    static const char *const known[] = {"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PATCH", "PUT"};
    for (size_t i = 0; i < BASE_COUNT(known); i++)
        if (strcmp(method, known[i]) == 0)
            return true;
    return false;
}

/* target without authority → path and query */
static bool parse_path(http_head *out, arena *memory, const char *p, size_t n, http_refusal *why)
{
    const char *question = memchr(p, '?', n);
    size_t path_length = question ? (size_t)(question - p) : n;
    sb decoded;
    sb_init(&decoded);
    bool fine = http_percent_decode(&decoded, (str){p, path_length}, false);
    if (fine && !decoded.failed) {
        out->path = arena_strndup(memory, decoded.data ? decoded.data : "", decoded.length);
        out->query = question ? arena_strndup(memory, question + 1, n - path_length - 1) : "";
    }
    sb_fini(&decoded);
    if (!fine)
        http_refuse(why, 400, "the path has a bad %% escape");
    else if (!out->path || !out->query)
        http_refuse(why, 507, "out of memory");
    return why->code == 0;
}

static bool parse_target(http_head *out, arena *memory, const char *p, size_t n, http_refusal *why)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] <= 0x20 || p[i] >= 0x7f || p[i] == '#') {
            http_refuse(why, 400,
                        "the request target has a byte that must be percent-encoded (at %zu)", i);
            return false;
        }
    }
    if (n == 1 && p[0] == '*' && strcmp(out->method, "OPTIONS") == 0) {
        out->path = "*";
        out->query = "";
        return true;
    }
    if (n > 7 && memcmp(p, "http://", 7) == 0) {
        size_t end = 7;
        while (end < n && p[end] != '/' && p[end] != '?')
            end++;
        out->authority = arena_strndup(memory, p + 7, end - 7);
        if (!out->authority) {
            http_refuse(why, 507, "out of memory");
            return false;
        }
        if (end == n)
            return parse_path(out, memory, "/", 1, why);
        p += end;
        n -= end;
    }
    if (n == 0 || p[0] != '/') {
        http_refuse(why, 400, "the request target does not begin with /");
        return false;
    }
    return parse_path(out, memory, p, n, why);
}

static bool parse_request_line(http_head *out, arena *memory, const char *line, size_t n,
                               http_refusal *why)
{
    size_t method_end = 0;
    while (method_end < n && is_token_char(line[method_end]))
        method_end++;
    const char *target = line + method_end + 1;
    const char *space = method_end && method_end < n && line[method_end] == ' '
                            ? memchr(target, ' ', n - method_end - 1)
                            : NULL;
    if (!space) {
        http_refuse(why, 400, "the request line is not METHOD TARGET HTTP/1.1");
        return false;
    }
    if (!parse_version(out, space + 1, (size_t)(line + n - space - 1), why))
        return false;
    out->method = arena_strndup(memory, line, method_end);
    if (!out->method) {
        http_refuse(why, 507, "out of memory");
        return false;
    }
    if (!known_method(out->method)) {
        http_refuse(why, 501, "method %.20s is not known here", out->method);
        return false;
    }
    return parse_target(out, memory, target, (size_t)(space - target), why);
}

/* ---- headers ---- */

static bool parse_field(http_head *out, arena *memory, const char *line, size_t n,
                        http_refusal *why)
{
    size_t name_end = 0;
    while (name_end < n && is_token_char(line[name_end]))
        name_end++;
    if (name_end == 0 || name_end == n || line[name_end] != ':') {
        http_refuse(why, 400,
                    "a header line is not NAME: VALUE (spaces before the colon and continued lines "
                    "are refused)");
        return false;
    }
    size_t from = name_end + 1, to = n;
    while (from < to && (line[from] == ' ' || line[from] == '\t'))
        from++;
    while (to > from && (line[to - 1] == ' ' || line[to - 1] == '\t'))
        to--;
    for (size_t i = from; i < to; i++) {
        unsigned char c = (unsigned char)line[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            http_refuse(why, 400, "header %.*s has a control character",
                        (int)BASE_MIN(name_end, 40), line);
            return false;
        }
    }
    if (out->n_fields == HTTP_FIELDS_MAX) {
        http_refuse(why, 431, "more than %d headers", HTTP_FIELDS_MAX);
        return false;
    }
    http_field *f = &out->fields[out->n_fields];
    f->name = arena_strndup(memory, line, name_end);
    f->value = arena_strndup(memory, line + from, to - from);
    if (!f->name || !f->value) {
        http_refuse(why, 507, "out of memory");
        return false;
    }
    out->n_fields++;
    return true;
}

/* The only value of a header; NULL when absent. *twice when there are several. */
static const char *single(const http_head *h, const char *name, bool *twice)
{
    const char *value = NULL;
    for (size_t i = 0; i < h->n_fields; i++) {
        if (!http_same_name(h->fields[i].name, name))
            continue;
        if (value)
            *twice = true;
        value = h->fields[i].value;
    }
    return value;
}

/* Is word a member of the comma-separated list in any header of that name? */
static bool list_has(const http_head *h, const char *name, const char *word)
{
    size_t length = strlen(word);
    for (size_t i = 0; i < h->n_fields; i++) {
        if (!http_same_name(h->fields[i].name, name))
            continue;
        for (const char *p = h->fields[i].value; *p;) {
            p += strspn(p, " \t,");
            size_t n = strcspn(p, " \t,;");
            bool same = n == length;
            for (size_t k = 0; same && k < n; k++)
                same = lower(p[k]) == lower(word[k]);
            if (same && n)
                return true;
            p += strcspn(p, ",");
        }
    }
    return false;
}

static bool parse_framing(http_head *h, http_refusal *why)
{
    bool twice = false;
    const char *length = single(h, "Content-Length", &twice);
    const char *coding = single(h, "Transfer-Encoding", &twice);
    if (twice)
        http_refuse(why, 400, "Content-Length or Transfer-Encoding is given twice");
    else if (length && coding)
        http_refuse(why, 400, "Content-Length beside Transfer-Encoding");
    else if (coding && h->minor == 0)
        http_refuse(why, 400, "Transfer-Encoding in HTTP/1.0");
    else if (coding && !http_same_name(coding, "chunked"))
        http_refuse(why, 501, "Transfer-Encoding \"%.40s\" is not supported, only chunked", coding);
    if (why->code)
        return false;
    h->chunked = coding != NULL;
    h->has_length = length != NULL;
    if (length &&
        (strspn(length, "0123456789") != strlen(length) || !base_parse_u64(length, &h->length))) {
        http_refuse(why, 400, "Content-Length \"%.40s\" is not a number", length);
        return false;
    }
    return true;
}

static bool parse_host(http_head *h, http_refusal *why)
{
    bool twice = false;
    char name[256];
    int port;
    h->host = single(h, "Host", &twice);
    if (!h->host && h->minor > 0)
        http_refuse(why, 400, "the Host header is missing");
    else if (twice)
        http_refuse(why, 400, "the Host header is given twice");
    else if (h->host && !http_split_host(h->host, name, sizeof name, &port))
        http_refuse(why, 400, "the Host header is not a host name");
    else if (h->authority && !http_split_host(h->authority, name, sizeof name, &port))
        http_refuse(why, 400, "the host of the request target is not a host name");
    if (why->code)
        return false;
    h->origin = single(h, "Origin", &twice);
    if (twice)
        http_refuse(why, 400, "the Origin header is given twice");
    return why->code == 0;
}

static bool parse_expect(http_head *h, http_refusal *why)
{
    bool twice = false;
    const char *expect = single(h, "Expect", &twice);
    if (!expect || h->minor == 0)
        return true;
    if (twice || !http_same_name(expect, "100-continue")) {
        http_refuse(why, 417, "Expect: only 100-continue is known");
        return false;
    }
    h->expect_continue = true;
    return true;
}

bool http_parse_head(http_head *out, arena *memory, const char *bytes, size_t n, http_refusal *why)
{
    *out = (http_head){.minor = 1};
    *why = (http_refusal){0};
    out->fields = arena_zalloc(memory, HTTP_FIELDS_MAX, sizeof *out->fields);
    if (!out->fields) {
        http_refuse(why, 507, "out of memory");
        return false;
    }
    const char *p = bytes, *end = bytes + n;
    for (bool first = true; p < end; first = false) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        if (!newline || newline == p || newline[-1] != '\r') {
            http_refuse(why, 400, "a line does not end in CR LF");
            return false;
        }
        size_t length = (size_t)(newline - p) - 1;
        if (length == 0 && !first)
            break;
        bool fine = first ? parse_request_line(out, memory, p, length, why)
                          : parse_field(out, memory, p, length, why);
        if (!fine)
            return false;
        p = newline + 1;
    }
    if (!out->method) {
        http_refuse(why, 400, "there is no request line");
        return false;
    }
    out->keep_alive = out->minor > 0 ? !list_has(out, "Connection", "close")
                                     : list_has(out, "Connection", "keep-alive");
    return parse_framing(out, why) && parse_host(out, why) && parse_expect(out, why);
}

/* ---- chunks ---- */

enum {
    SIZE,
    EXTENSION,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER,
    TRAILER_LINE,
    TRAILER_LF,
    END_LF,
    DONE
};

/* One byte of the framing between data. False: it does not belong there. */
static bool chunk_byte(http_chunks *c, char b)
{
    switch (c->state) {
    case SIZE: {
        int digit = hex_value(b);
        if (digit >= 0) {
            c->left = c->left * 16 + (uint64_t)digit;
            return ++c->digits <= 15;
        }
        c->state = b == ';' ? EXTENSION : SIZE_LF;
        return c->digits > 0 && (b == ';' || b == '\r');
    }
    case EXTENSION:
        if (b == '\r')
            c->state = SIZE_LF;
        return b == '\r' || ((unsigned char)b >= 0x20 && b != 0x7f) || b == '\t';
    case SIZE_LF:
        c->state = c->left ? DATA : TRAILER;
        c->line_bytes = 0;
        c->digits = 0;
        return b == '\n';
    case DATA_CR:
        c->state = DATA_LF;
        return b == '\r';
    case DATA_LF:
        c->state = SIZE;
        return b == '\n';
    case TRAILER:
        c->state = b == '\r' ? END_LF : TRAILER_LINE;
        return b == '\r' || is_token_char(b);
    case TRAILER_LINE:
        if (b == '\r')
            c->state = TRAILER_LF;
        return b == '\r' || ((unsigned char)b >= 0x20 && b != 0x7f) || b == '\t';
    case TRAILER_LF:
        c->state = TRAILER;
        return b == '\n';
    default:
        c->state = DONE;
        return b == '\n';
    }
}

bool http_chunks_feed(http_chunks *c, const char *bytes, size_t n, size_t *used, sb *body,
                      uint64_t limit, bool *done, http_refusal *why)
{
    size_t i = 0;
    while (i < n && c->state != DONE) {
        if (c->state == DATA) {
            size_t take = (size_t)BASE_MIN((uint64_t)(n - i), c->left);
            sb_add(body, bytes + i, take);
            i += take;
            c->left -= take;
            if (c->left == 0)
                c->state = DATA_CR;
            continue;
        }
        bool in_size = c->state == SIZE || c->state == EXTENSION;
        if (!chunk_byte(c, bytes[i++])) {
            http_refuse(why, 400, "the chunked body is malformed");
            return false;
        }
        c->line_bytes += in_size;
        c->trailer_bytes += c->state == TRAILER_LINE;
        if (c->line_bytes > 4096 || c->trailer_bytes > 8192) {
            http_refuse(why, 431, "a chunk extension or the trailer is too long");
            return false;
        }
        if (c->state == DATA && (body->length > limit || c->left > limit - body->length)) {
            http_refuse(why, 413, "the body is larger than %llu bytes", (unsigned long long)limit);
            return false;
        }
    }
    *used = i;
    *done = c->state == DONE;
    return true;
}
