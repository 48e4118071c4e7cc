/*
 * JSON ↔ values. Reading: the variables of a render, strictly (RFC 8259), key order kept, the last of equal keys wins, integers
 * beyond 64 bits keep their digits, lone surrogates become U+FFFD. Writing: Python's json.dumps, byte for byte.
 * Why not jansson: it refuses integers beyond 64 bits (schemas contain them) and would need a second walk into the arena.
 */
#include <math.h>
#include <string.h>

#include "chat/jinja.h"

/* ---- reading -------------------------------------------------------------------------------------------------------- */

typedef struct reader {
    chat_runtime *rt;
    const char *begin, *at, *end;
    int depth;
    jmp_buf *soft; /* where a malformed text leads instead of failing the render; may be NULL */
} reader;

enum { MAX_JSON_DEPTH = 256 };

static chat_value read_value(reader *r);

BASE_NORETURN static void read_fail(reader *r, const char *what)
{
    if (r->soft)
        longjmp(*r->soft, 1);
    r->rt->at = NULL;
    chat_fail(r->rt, "template variables: %s at byte %zu of the JSON text", what,
              (size_t)(r->at - r->begin));
}

static void skip_blank(reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t'))
        r->at++;
}

static bool take(reader *r, char c)
{
    skip_blank(r);
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static uint32_t read_hex4(reader *r)
{
    uint32_t v = 0;
    if (r->end - r->at < 4)
        read_fail(r, "a cut \\u escape");
    for (int i = 0; i < 4; i++) {
        char c = *r->at++;
        uint32_t d = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                     : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                            : 16;
        if (d > 15)
            read_fail(r, "a malformed \\u escape");
        v = v << 4 | d;
    }
    return v;
}

static char *read_escape(reader *r, char *to)
{
    static const char from[] = "\"\\/bfnrt", plain[] = "\"\\/\b\f\n\r\t";
    char c = r->at < r->end ? *r->at++ : 0;
    const char *simple = c ? memchr(from, c, sizeof from - 1) : NULL;
    if (simple) {
        *to++ = plain[simple - from];
        return to;
    }
    if (c != 'u')
        read_fail(r, "an unknown escape");
    uint32_t v = read_hex4(r);
    if (v >= 0xd800 && v < 0xdc00 && r->end - r->at >= 6 && r->at[0] == '\\' && r->at[1] == 'u') {
        const char *back = r->at;
        r->at += 2;
        uint32_t low = read_hex4(r);
        if (low >= 0xdc00 && low < 0xe000)
            v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
        else
            r->at = back;
    }
    return to + chat_utf8_put(to, v);
}

static chat_value read_string(reader *r)
{
    const char *from = r->at, *p = from;
    bool escaped = false;
    while (p < r->end && *p != '"') {
        if ((unsigned char)*p < 0x20) {
            r->at = p;
            read_fail(r, "a control character in a string");
        }
        escaped |= *p == '\\';
        p += *p == '\\' ? 2 : 1;
    }
    if (p >= r->end)
        read_fail(r, "a string without an end");
    chat_spend(r->rt, (uint64_t)(p - from));
    char *text = chat_alloc(r->rt, (size_t)(p - from) + 4),
         *to = text; /* no escape is shorter than its UTF-8 */
    if (!escaped) {
        memcpy(text, from, (size_t)(p - from));
        r->at = p + 1;
        return chat_string(r->rt, text, (size_t)(p - from));
    }
    while (*r->at != '"') {
        if (*r->at == '\\') {
            r->at++;
            to = read_escape(r, to);
        } else
            *to++ = *r->at++;
    }
    r->at++;
    return chat_string(r->rt, text, (size_t)(to - text));
}

static size_t read_digits(reader *r)
{
    const char *from = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
        r->at++;
    return (size_t)(r->at - from);
}

static chat_value read_number(reader *r)
{
    const char *from = r->at;
    bool real = false;
    if (*r->at == '-')
        r->at++;
    bool zero = r->at < r->end && *r->at == '0';
    size_t n = read_digits(r);
    if (n == 0 || (zero && n > 1))
        read_fail(r, "a malformed number");
    if (r->at < r->end && *r->at == '.') {
        real = true;
        r->at++;
        if (!read_digits(r))
            read_fail(r, "a malformed number");
    }
    if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        real = true;
        r->at++;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-'))
            r->at++;
        if (!read_digits(r))
            read_fail(r, "a malformed number");
    }
    size_t length = (size_t)(r->at - from);
    if (length > 500)
        read_fail(r, "a number of more than 500 digits");
    if (real)
        return chat_float(chat_parse_double(from, length));
    int64_t i;
    if (chat_parse_int((str){from, length}, 10, &i))
        return chat_int(i);
    chat_value v = chat_string_copy(r->rt, from, length);
    v.kind = CHAT_V_BIG;
    return v;
}

static chat_value read_list(reader *r)
{
    chat_value v = chat_list_value(r->rt, 0);
    if (take(r, ']'))
        return v;
    do
        chat_list_push(r->rt, v.as.list, read_value(r));
    while (take(r, ','));
    if (!take(r, ']'))
        read_fail(r, "expected ',' or ']'");
    return v;
}

static chat_value read_dict(reader *r)
{
    chat_value v = chat_dict_value(r->rt);
    if (take(r, '}'))
        return v;
    do {
        if (!take(r, '"'))
            read_fail(r, "expected a member name");
        chat_value key = read_string(r);
        if (!take(r, ':'))
            read_fail(r, "expected ':'");
        chat_dict_set(r->rt, v.as.dict, key, read_value(r));
    } while (take(r, ','));
    if (!take(r, '}'))
        read_fail(r, "expected ',' or '}'");
    return v;
}

static bool read_word(reader *r, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n) != 0)
        return false;
    r->at += n;
    return true;
}

static chat_value read_value(reader *r)
{
    chat_value v;
    skip_blank(r);
    if (r->at == r->end)
        read_fail(r, "the text ends too early");
    if (++r->depth > MAX_JSON_DEPTH)
        read_fail(r, "nested too deeply");
    chat_spend(r->rt, 0);
    char c = *r->at;
    if (c == '{' || c == '[' || c == '"') {
        r->at++;
        v = c == '{' ? read_dict(r) : c == '[' ? read_list(r) : read_string(r);
    } else if (c == '-' || (c >= '0' && c <= '9'))
        v = read_number(r);
    else if (read_word(r, "null"))
        v = chat_none();
    else if (read_word(r, "true"))
        v = chat_bool(true);
    else if (read_word(r, "false"))
        v = chat_bool(false);
    else
        read_fail(r, "not a JSON value");
    r->depth--;
    return v;
}

static chat_value load(reader *r)
{
    size_t n = (size_t)(r->end - r->begin), valid = chat_utf8_check(r->begin, n);
    if (valid != n) {
        r->at = r->begin + valid;
        read_fail(r, "not UTF-8");
    }
    chat_value v = read_value(r);
    skip_blank(r);
    if (r->at != r->end)
        read_fail(r, "text behind the value");
    return v;
}

chat_value chat_json_load(chat_runtime *rt, const char *bytes, size_t n)
{
    reader r = {.rt = rt, .begin = bytes, .at = bytes, .end = bytes + n};
    return load(&r);
}

bool chat_json_try(chat_runtime *rt, const char *bytes, size_t n, chat_value *out)
{
    jmp_buf soft;
    reader r = {.rt = rt, .begin = bytes, .at = bytes, .end = bytes + n, .soft = &soft};
    if (setjmp(soft))
        return false;
    *out = load(&r);
    return true;
}

/* ---- writing -------------------------------------------------------------------------------------------------------- */

static void dump_string(sb *out, str s, bool ensure_ascii)
{
    const char *p = s.data, *end = s.data + s.length;
    sb_putc(out, '"');
    while (p < end) {
        const char *from = p;
        while (p < end && (unsigned char)*p >= 0x20 && *p != '"' && *p != '\\' &&
               (!ensure_ascii || (unsigned char)*p < 0x7f))
            p++;
        if (p > from)
            sb_add(out, from, (size_t)(p - from));
        if (p == end)
            break;
        static const char codes[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
        uint32_t c = chat_utf8_next(&p, end);
        const char *known = c && c < 0x80 ? strchr(codes, (int)c) : NULL;
        if (known)
            sb_printf(out, "\\%c", letters[known - codes]);
        else if (c >= 0x10000)
            sb_printf(out, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
                      0xdc00 + ((c - 0x10000) & 0x3ff));
        else
            sb_printf(out, "\\u%04x", c);
    }
    sb_putc(out, '"');
}

static void dump_number(chat_runtime *rt, sb *out, chat_value v)
{
    if (v.kind == CHAT_V_FLOAT && !isfinite(v.as.number))
        sb_puts(out, isnan(v.as.number) ? "NaN" : v.as.number < 0 ? "-Infinity" : "Infinity");
    else
        chat_repr(rt, out, v);
}

static void dump_key(chat_runtime *rt, sb *out, chat_value key, const chat_json_options *o)
{
    double d;
    if (key.kind == CHAT_V_STRING) {
        dump_string(out, chat_str(key), o->ensure_ascii);
        return;
    }
    sb_putc(out, '"');
    if (key.kind == CHAT_V_BOOL)
        sb_puts(out, key.as.boolean ? "true" : "false");
    else if (key.kind == CHAT_V_NONE)
        sb_puts(out, "null");
    else if (chat_number(key, &d))
        dump_number(rt, out, key);
    else
        chat_fail(rt, "keys must be str, int, float, bool or None, not %s", chat_type_name(key));
    sb_putc(out, '"');
}

static void check_output(chat_runtime *rt, const sb *out)
{
    if (out->failed)
        chat_fail_status(rt, STATUS_NO_MEMORY, "no memory for text");
    if (out->length > rt->max_output)
        chat_fail_status(rt, STATUS_TOO_LARGE, "more output than the budget of %llu bytes",
                         (unsigned long long)rt->max_output);
}

static void dump_break(chat_runtime *rt, sb *out, const chat_json_options *o, int level)
{
    if (!o->pretty)
        return;
    sb_putc(out, '\n');
    for (int i = 0; i < level; i++) {
        sb_add(out, o->indent.data, o->indent.length);
        check_output(rt, out);
    }
}

static void dump(chat_runtime *rt, sb *out, chat_value v, const chat_json_options *o, int level);

static void dump_list(chat_runtime *rt, sb *out, const chat_list *l, const chat_json_options *o,
                      int level)
{
    sb_putc(out, '[');
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            sb_add(out, o->item_separator.data, o->item_separator.length);
        dump_break(rt, out, o, level + 1);
        dump(rt, out, l->items[i], o, level + 1);
    }
    if (l->n)
        dump_break(rt, out, o, level);
    sb_putc(out, ']');
}

static void dump_dict(chat_runtime *rt, sb *out, const chat_dict *d, const chat_json_options *o,
                      int level)
{
    chat_list order = {0};
    if (o->sort_keys && d->n) {
        chat_value *keys = chat_alloc_array(rt, d->n, sizeof *keys);
        for (size_t i = 0; i < d->n; i++) {
            keys[i] = d->entries[i].key;
            chat_list_push(rt, &order, chat_int((int64_t)i));
        }
        chat_sort(rt, &order, keys, false);
    }
    sb_putc(out, '{');
    for (size_t i = 0; i < d->n; i++) {
        const chat_entry *e = &d->entries[o->sort_keys ? (size_t)order.items[i].as.integer : i];
        if (i)
            sb_add(out, o->item_separator.data, o->item_separator.length);
        dump_break(rt, out, o, level + 1);
        dump_key(rt, out, e->key, o);
        sb_add(out, o->key_separator.data, o->key_separator.length);
        dump(rt, out, e->value, o, level + 1);
    }
    if (d->n)
        dump_break(rt, out, o, level);
    sb_putc(out, '}');
}

static void dump(chat_runtime *rt, sb *out, chat_value v, const chat_json_options *o, int level)
{
    double d;
    size_t before = out->length;
    chat_enter(rt);
    if (v.kind == CHAT_V_STRING)
        dump_string(out, chat_str(v), o->ensure_ascii);
    else if (v.kind == CHAT_V_LIST || v.kind == CHAT_V_TUPLE)
        dump_list(rt, out, v.as.list, o, level);
    else if (v.kind == CHAT_V_DICT)
        dump_dict(rt, out, v.as.dict, o, level);
    else if (v.kind == CHAT_V_BOOL)
        sb_puts(out, v.as.boolean ? "true" : "false");
    else if (v.kind == CHAT_V_NONE)
        sb_puts(out, "null");
    else if (chat_number(v, &d))
        dump_number(rt, out, v);
    else
        chat_fail(rt, "Object of type %s is not JSON serializable", chat_type_name(v));
    rt->depth--;
    chat_spend(rt, out->length - before);
    check_output(rt, out);
}

void chat_json_dump(chat_runtime *rt, sb *out, chat_value v, const chat_json_options *o)
{
    dump(rt, out, v, o, 0);
}
