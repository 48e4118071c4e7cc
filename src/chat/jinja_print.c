/*
 * Values → text as Python's str() and repr() write them, and numbers ↔ text: the shortest digits that read back as the same
 * double, int() and float() of strings. Locale never matters: whatever decimal point libc uses becomes '.'.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat/jinja.h"

/* ---- numbers -------------------------------------------------------------------------------------------------------- */

void chat_double_text(char *out, size_t out_bytes, char type, int precision, double d)
{
    char format[8] = {'%', '.', '*', type, 0};
    int n = snprintf(out, out_bytes, format, precision, d);
    for (int i = 0; i < n && (size_t)i < out_bytes; i++) {
        char c = out[i];
        bool known =
            (c >= '0' && c <= '9') || c == '-' || c == '+' || c == 'e' || c == 'E' || c == '.';
        if (!known && isfinite(d))
            out[i] = '.';
    }
}

double chat_parse_double(const char *digits, size_t n)
{
    char text[512];
    double d = 0;
    if (n >= sizeof text)
        return HUGE_VAL; /* only BIG integers are so long */
    memcpy(text, digits, n);
    text[n] = 0;
    if (base_parse_double(text, &d))
        return d;
    /* overflow reads as infinity and underflow as zero, as Python does */
    const char *e = strpbrk(text, "eE");
    return e && e[1] == '-' ? 0.0 : text[0] == '-' ? -HUGE_VAL : HUGE_VAL;
}

/* digits without the point, and where the point stands: 0.digits * 10^point */
static int shortest(double d, char digits[32], int *point)
{
    char text[40];
    for (int precision = 0; precision < 17; precision++) {
        chat_double_text(text, sizeof text, 'e', precision, d);
        if (precision == 16 || chat_parse_double(text, strlen(text)) == d)
            break;
    }
    int n = 0;
    const char *p = text;
    for (; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    *point = (int)strtol(p + 1, NULL, 10) + 1;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    return n;
}

void chat_print_float(sb *out, double d)
{
    if (isnan(d) || isinf(d)) {
        sb_puts(out, isnan(d) ? "nan" : d < 0 ? "-inf" : "inf");
        return;
    }
    if (signbit(d))
        sb_putc(out, '-');
    char digits[32];
    int point, n = shortest(fabs(d), digits, &point);
    if (d == 0) {
        sb_puts(out, "0.0");
    } else if (point > 16 || point < -3) {
        sb_add(out, digits, 1);
        if (n > 1) {
            sb_putc(out, '.');
            sb_add(out, digits + 1, (size_t)n - 1);
        }
        sb_printf(out, "e%c%02d", point - 1 < 0 ? '-' : '+', abs(point - 1));
    } else if (point <= 0) {
        sb_puts(out, "0.");
        for (int i = point; i < 0; i++)
            sb_putc(out, '0');
        sb_add(out, digits, (size_t)n);
    } else {
        for (int i = 0; i < BASE_MAX(n, point + 1); i++) {
            if (i == point)
                sb_putc(out, '.');
            sb_putc(out, i < n ? digits[i] : '0');
        }
    }
}

static str strip_blank(str s)
{
    const char *p = s.data, *end = s.data + s.length;
    while (p < end) {
        const char *q = p;
        if (!chat_char_space(chat_utf8_next(&q, end)))
            break;
        p = q;
    }
    while (end > p) {
        const char *q = end;
        if (!chat_char_space(chat_utf8_previous(&q, p)))
            break;
        end = q;
    }
    return (str){p, (size_t)(end - p)};
}

static int digit_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'z' ? c - 'a' + 10
           : c >= 'A' && c <= 'Z' ? c - 'A' + 10
                                  : 99;
}

bool chat_parse_int(str s, int base, int64_t *out)
{
    s = strip_blank(s);
    bool negative = s.length && s.data[0] == '-';
    size_t i = s.length && (s.data[0] == '-' || s.data[0] == '+');
    char mark = i + 1 < s.length && s.data[i] == '0' ? (char)(s.data[i + 1] | 32) : 0;
    int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked && (base == 0 || base == marked)) {
        base = marked;
        i += 2;
    } else if (base == 0)
        base = 10;
    if (base < 2 || base > 36 || i >= s.length)
        return false;
    uint64_t v = 0;
    for (bool after_digit = marked != 0; i < s.length; i++) {
        if (s.data[i] == '_' && after_digit && i + 1 < s.length) {
            after_digit = false;
            continue;
        }
        int d = digit_value(s.data[i]);
        if (d >= base || v > (uint64_t)INT64_MAX / (unsigned)base)
            return false;
        v = v * (unsigned)base + (unsigned)d;
        if (v > (uint64_t)INT64_MAX + negative)
            return false;
        after_digit = true;
    }
    *out = !negative ? (int64_t)v : v > (uint64_t)INT64_MAX ? INT64_MIN : -(int64_t)v;
    return true;
}

static bool word_is(str s, const char *word)
{
    return s.length == strlen(word) && strncasecmp(s.data, word, s.length) == 0;
}

bool chat_parse_float(str s, double *out)
{
    s = strip_blank(s);
    char text[400];
    size_t n = 0, sign = s.length && (s.data[0] == '-' || s.data[0] == '+');
    str rest = {s.data + sign, s.length - sign};
    if (word_is(rest, "nan") || word_is(rest, "inf") || word_is(rest, "infinity")) {
        double v = word_is(rest, "nan") ? (double)NAN : HUGE_VAL;
        *out = sign && s.data[0] == '-' ? -v : v;
        return true;
    }
    bool digit = false, point = false, exponent = false;
    for (size_t i = sign; i < s.length; i++) {
        char c = s.data[i];
        if (c >= '0' && c <= '9')
            digit = true;
        else if (c == '_' && i > 0 && i + 1 < s.length && digit_value(s.data[i - 1]) < 10 &&
                 digit_value(s.data[i + 1]) < 10)
            continue;
        else if (c == '.' && !point && !exponent)
            point = true;
        else if ((c == 'e' || c == 'E') && digit && !exponent) {
            exponent = true;
            digit = false;
            if (i + 1 < s.length && (s.data[i + 1] == '-' || s.data[i + 1] == '+') &&
                n + 2 < sizeof text) {
                text[n++] = 'e';
                c = s.data[++i];
            }
        } else
            return false;
        if (n + 2 >= sizeof text)
            return false;
        text[n++] = c;
    }
    if (!digit)
        return false;
    double v = chat_parse_double(text, n);
    *out = sign && s.data[0] == '-' ? -v : v;
    return true;
}

/* ---- repr ----------------------------------------------------------------------------------------------------------- */

static void repr_string(sb *out, str s)
{
    char quote = memchr(s.data, '\'', s.length) && !memchr(s.data, '"', s.length) ? '"' : '\'';
    const char *p = s.data, *end = s.data + s.length;
    sb_putc(out, quote);
    while (p < end) {
        const char *from = p;
        uint32_t c = chat_utf8_next(&p, end);
        if (c == (unsigned char)quote || c == '\\')
            sb_printf(out, "\\%c", (int)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            sb_puts(out, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        else if (c < 0x20 || c == 0x7f)
            sb_printf(out, "\\x%02x", c);
        else if (c < 0x7f || (chat_char_class(c) & CHAT_PRINTABLE))
            sb_add(out, from, (size_t)(p - from));
        else
            sb_printf(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
    sb_putc(out, quote);
}

static void repr_list(chat_runtime *rt, sb *out, const chat_list *l, const char *open,
                      const char *close)
{
    sb_puts(out, open);
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            sb_puts(out, ", ");
        chat_repr(rt, out, l->items[i]);
    }
    sb_puts(out, close);
}

static void repr_dict(chat_runtime *rt, sb *out, const chat_dict *d)
{
    sb_putc(out, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            sb_puts(out, ", ");
        chat_repr(rt, out, d->entries[i].key);
        sb_puts(out, ": ");
        chat_repr(rt, out, d->entries[i].value);
    }
    sb_putc(out, '}');
}

static void repr_view(chat_runtime *rt, sb *out, chat_value v)
{
    chat_list items = chat_items(rt, v);
    sb_puts(out, chat_type_name(v));
    repr_list(rt, out, &items, "([", "])");
}

static void repr_function(sb *out, const chat_function *f)
{
    int n = (int)f->name.length;
    if (f->builtin)
        sb_printf(out, "<built-in method %.*s>", n, f->name.data);
    else if (f->macro->name)
        sb_printf(out, "<Macro '%.*s'>", n, f->name.data);
    else
        sb_puts(out, "<Macro anonymous>");
}

static void repr_range(sb *out, const chat_range *r)
{
    sb_printf(out, "range(%lld, %lld", (long long)r->start, (long long)r->stop);
    if (r->step != 1)
        sb_printf(out, ", %lld", (long long)r->step);
    sb_putc(out, ')');
}

/* Everything but strings, lists and dictionaries: the same for str() and repr(). */
static void print_simple(chat_runtime *rt, sb *out, chat_value v)
{
    switch (v.kind) {
    case CHAT_V_NONE:
        sb_puts(out, "None");
        break;
    case CHAT_V_BOOL:
        sb_puts(out, v.as.boolean ? "True" : "False");
        break;
    case CHAT_V_INT:
        sb_printf(out, "%lld", (long long)v.as.integer);
        break;
    case CHAT_V_BIG:
        sb_add(out, v.as.text, v.length);
        break;
    case CHAT_V_FLOAT:
        chat_print_float(out, v.as.number);
        break;
    case CHAT_V_RANGE:
        repr_range(out, v.as.range);
        break;
    case CHAT_V_VIEW:
        repr_view(rt, out, v);
        break;
    case CHAT_V_FUNCTION:
        repr_function(out, v.as.function);
        break;
    case CHAT_V_LOOP:
        sb_printf(out, "<LoopContext %zu/%zu>", v.as.loop->index0 + 1, v.as.loop->n);
        break;
    case CHAT_V_NAMESPACE:
        sb_puts(out, "<Namespace ");
        repr_dict(rt, out, v.as.dict);
        sb_putc(out, '>');
        break;
    default:
        sb_printf(out, "<%s object>", chat_type_name(v));
    }
}

static void check_growth(chat_runtime *rt, const sb *out, size_t before)
{
    if (out->failed)
        chat_fail_status(rt, STATUS_NO_MEMORY, "no memory for text");
    chat_spend(rt, out->length - before);
    if (out->length > rt->max_output)
        chat_fail_status(rt, STATUS_TOO_LARGE, "more output than the budget of %llu bytes",
                         (unsigned long long)rt->max_output);
}

void chat_repr(chat_runtime *rt, sb *out, chat_value v)
{
    size_t before = out->length;
    chat_enter(rt);
    if (v.kind == CHAT_V_STRING) {
        if (v.flags & CHAT_FLAG_MARKUP)
            sb_puts(out, "Markup(");
        repr_string(out, chat_str(v));
        if (v.flags & CHAT_FLAG_MARKUP)
            sb_putc(out, ')');
    } else if (v.kind == CHAT_V_UNDEFINED)
        sb_puts(out, "Undefined");
    else if (v.kind == CHAT_V_LIST)
        repr_list(rt, out, v.as.list, "[", "]");
    else if (v.kind == CHAT_V_TUPLE)
        repr_list(rt, out, v.as.list, "(", v.as.list->n == 1 ? ",)" : ")");
    else if (v.kind == CHAT_V_DICT)
        repr_dict(rt, out, v.as.dict);
    else
        print_simple(rt, out, v);
    rt->depth--;
    check_growth(rt, out, before);
}

void chat_print(chat_runtime *rt, sb *out, chat_value v)
{
    size_t before = out->length;
    if (v.kind == CHAT_V_STRING)
        sb_add(out, v.as.text, v.length);
    else if (v.kind != CHAT_V_UNDEFINED) {
        chat_repr(rt, out, v);
        return;
    }
    check_growth(rt, out, before);
}

chat_value chat_to_string(chat_runtime *rt, chat_value v)
{
    if (v.kind == CHAT_V_STRING)
        return v;
    chat_capture c;
    chat_capture_begin(rt, &c);
    chat_print(rt, &c.text, v);
    return chat_capture_end(rt, &c);
}
