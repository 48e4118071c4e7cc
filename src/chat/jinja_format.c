/*
 * Python's two formatting languages: `"%-5s %03d" % args` and `"{0:>5} {name!r}".format(…)`, for the types templates have.
 * Not here: %a and !a, locale-dependent `n`, nested replacement fields inside a format spec.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "chat/jinja.h"

typedef struct spec { /* of one field, both languages */
    str fill;         /* one character */
    char align;       /* < > ^ = or 0 */
    char sign;        /* + - space */
    bool alternate, zero;
    char grouping;            /* , _ or 0 */
    int64_t width, precision; /* precision −1: not given */
    char type;
} spec;

enum { MAX_WIDTH = 1 << 20, MAX_PRECISION = 200 };

static const spec default_spec = {.fill = {" ", 1}, .sign = '-', .precision = -1};

/* Adds `text` of a field, padded to the width. prefix (sign, 0x) stays in front of '=' padding. */
static void pad(chat_runtime *rt, const spec *s, char default_align, str prefix, str text)
{
    sb *out = &rt->capture->text;
    char align = s->align ? s->align : default_align;
    int64_t length = (int64_t)(chat_utf8_length(text.data, text.length) + prefix.length);
    int64_t gap = s->width > length ? s->width - length : 0;
    int64_t left = align == '>' || align == '=' ? gap : align == '^' ? gap / 2 : 0;
    if (align == '=')
        sb_add(out, prefix.data, prefix.length);
    for (int64_t i = 0; i < left; i++)
        sb_add(out, s->fill.data, s->fill.length);
    if (align != '=')
        sb_add(out, prefix.data, prefix.length);
    sb_add(out, text.data, text.length);
    for (int64_t i = left; i < gap; i++)
        sb_add(out, s->fill.data, s->fill.length);
    chat_capture_check(rt);
}

static str sign_prefix(bool negative, char sign)
{
    return negative      ? str_from("-")
           : sign == '+' ? str_from("+")
           : sign == ' ' ? str_from(" ")
                         : str_from("");
}

/* Digits with a separator between groups; text in front of the first digit run of `whole` digits stays. */
static void group_digits(sb *out, const char *digits, size_t whole, char separator, size_t every)
{
    for (size_t i = 0; i < whole; i++) {
        if (i && separator && (whole - i) % every == 0)
            sb_putc(out, separator);
        sb_putc(out, digits[i]);
    }
    sb_puts(out, digits + whole);
}

static void format_integer(chat_runtime *rt, const spec *s, int64_t v)
{
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    char digits[72];
    size_t n = sizeof digits;
    char type = s->type ? s->type : 'd';
    unsigned base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
    digits[--n] = 0;
    do {
        unsigned d = (unsigned)(u % base);
        digits[--n] = (char)(d < 10 ? '0' + d : (type == 'X' ? 'A' : 'a') + d - 10);
        u /= base;
    } while (u);
    sb text, prefix;
    sb_init(&text);
    sb_init(&prefix);
    sb_add(&prefix, sign_prefix(v < 0, s->sign).data, sign_prefix(v < 0, s->sign).length);
    if (s->alternate && base != 10)
        sb_printf(&prefix, "0%c", type);
    for (int64_t i = (int64_t)strlen(digits + n); i < s->precision; i++)
        sb_putc(&text, '0');
    group_digits(&text, digits + n, strlen(digits + n), s->grouping, base == 10 ? 3 : 4);
    char small[300] = "", front[8] = "";
    bool fits = text.length < sizeof small && prefix.length < sizeof front && text.data &&
                !text.failed && !prefix.failed;
    size_t text_n = text.length, front_n = prefix.length;
    if (fits) {
        memcpy(small, text.data, text_n);
        if (front_n)
            memcpy(front, prefix.data, front_n);
    }
    sb_fini(&text);
    sb_fini(&prefix);
    if (!fits)
        chat_fail_status(rt, STATUS_NO_MEMORY, "no memory for text");
    pad(rt, s, '>', (str){front, front_n}, (str){small, text_n});
}

static void format_float(chat_runtime *rt, const spec *s, double d)
{
    char type = s->type, digits[600], grouped[900];
    bool percent = type == '%', negative = signbit(d) && !isnan(d);
    int precision = s->precision < 0 ? 6 : (int)s->precision;
    d = fabs(percent ? d * 100 : d);
    if (!isfinite(d)) {
        snprintf(digits, sizeof digits, "%s", isnan(d) ? "nan" : "inf");
    } else if (!type && s->precision < 0) {
        sb text;
        sb_init(&text);
        chat_print_float(&text, d);
        snprintf(digits, sizeof digits, "%s", text.data ? text.data : "");
        sb_fini(&text);
    } else {
        char kind = percent ? 'f' : type == 'F' ? 'f' : type ? type : 'g';
        if ((kind == 'g' || kind == 'G') && precision == 0)
            precision = 1;
        chat_double_text(digits, sizeof digits, kind, precision, d);
        if (!type && !strpbrk(digits, ".e")) /* no type: always looks like a float */
            snprintf(digits + strlen(digits), 3, ".0");
        if (s->alternate && precision == 0 && !strchr(digits, '.'))
            snprintf(digits + strlen(digits), 2, ".");
    }
    if (percent)
        snprintf(digits + strlen(digits), 2, "%%");
    size_t whole = strspn(digits, "0123456789"), n = 0;
    for (size_t i = 0; digits[i] && n + 2 < sizeof grouped; i++) {
        if (i && i < whole && s->grouping && (whole - i) % 3 == 0)
            grouped[n++] = s->grouping;
        grouped[n++] = digits[i];
    }
    pad(rt, s, '>', sign_prefix(negative, s->sign), (str){grouped, n});
}

static str cut_characters(str text, int64_t n)
{
    const char *p = text.data, *end = text.data + text.length;
    while (n-- > 0 && p < end)
        chat_utf8_next(&p, end);
    return (str){text.data, (size_t)(p - text.data)};
}

static void format_text(chat_runtime *rt, const spec *s, str text, char default_align)
{
    if (s->precision >= 0)
        text = cut_characters(text, s->precision);
    pad(rt, s, default_align, str_from(""), text);
}

/* Digits as a number; anything above the limits stays above them. */
static int64_t digits_at(const char **p, const char *end)
{
    int64_t v = 0;
    for (; *p < end && **p >= '0' && **p <= '9'; ++*p)
        v = BASE_MIN(v * 10 + (**p - '0'), (int64_t)MAX_WIDTH + 1);
    return v;
}

/* ---- % -------------------------------------------------------------------------------------------------------------- */

typedef struct percent {
    chat_runtime *rt;
    const char *p, *end;
    chat_value args;
    size_t used;
} percent;

static chat_value next_argument(percent *f)
{
    if (f->args.kind == CHAT_V_TUPLE) {
        if (f->used >= f->args.as.list->n)
            chat_fail(f->rt, "not enough arguments for format string");
        return f->args.as.list->items[f->used++];
    }
    if (f->used++)
        chat_fail(f->rt, "not enough arguments for format string");
    return f->args;
}

static int64_t number_or_star(percent *f)
{
    if (f->p < f->end && *f->p == '*') {
        f->p++;
        return chat_want_integer(f->rt, next_argument(f), "format width");
    }
    return digits_at(&f->p, f->end);
}

static void check_spec(chat_runtime *rt, spec *s)
{
    if (s->width > MAX_WIDTH || s->precision > MAX_PRECISION)
        chat_fail_status(rt, STATUS_TOO_LARGE, "a format width or precision that is too large");
}

static void percent_spec(percent *f, spec *s)
{
    for (; f->p < f->end && strchr("-+ #0", *f->p) && *f->p; f->p++) {
        if (*f->p == '-')
            s->align = '<';
        else if (*f->p == '+' || (*f->p == ' ' && s->sign != '+'))
            s->sign = *f->p;
        else if (*f->p == '#')
            s->alternate = true;
        else if (*f->p == '0')
            s->zero = true;
    }
    s->width = number_or_star(f);
    if (s->width < 0) {
        s->align = '<';
        s->width = s->width < -MAX_WIDTH ? MAX_WIDTH + 1 : -s->width;
    }
    if (f->p < f->end && *f->p == '.') {
        f->p++;
        s->precision = number_or_star(f);
        if (s->precision < 0)
            s->precision = 0;
    }
    while (f->p < f->end && (*f->p == 'l' || *f->p == 'h' || *f->p == 'L'))
        f->p++;
    check_spec(f->rt, s);
}

static void percent_number(percent *f, spec *s, chat_value v)
{
    double d = 0;
    int64_t i = 0;
    chat_runtime *rt = f->rt;
    if (v.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, v);
    if (!chat_number(v, &d))
        chat_fail(rt, "%%%c format: a real number is required, not %s", s->type, chat_type_name(v));
    if (s->zero && s->align != '<') {
        s->fill = str_from("0");
        s->align = '=';
    }
    if (strchr("eEfFgG", s->type)) {
        format_float(rt, s, d);
        return;
    }
    bool whole = chat_integer(v, &i);
    if (!whole && (strchr("xXo", s->type) || !isfinite(d) || fabs(d) >= 9.2e18))
        chat_fail(rt, "%%%c format: an integer is required, not %s", s->type, chat_type_name(v));
    if (s->type == 'i' || s->type == 'u')
        s->type = 'd';
    format_integer(rt, s, whole ? i : (int64_t)d);
}

static void percent_character(percent *f, const spec *s, chat_value v)
{
    char bytes[4];
    int64_t i;
    if (chat_integer(v, &i)) {
        if (i < 0 || i > 0x10ffff)
            chat_fail(f->rt, "%%c arg not in range(0x110000)");
        format_text(f->rt, s, (str){bytes, chat_utf8_put(bytes, (uint32_t)i)}, '>');
        return;
    }
    if (v.kind != CHAT_V_STRING || chat_string_length(v) != 1)
        chat_fail(f->rt, "%%c requires int or char");
    format_text(f->rt, s, chat_str(v), '>');
}

static chat_value repr_value(chat_runtime *rt, chat_value v)
{
    chat_capture c;
    chat_capture_begin(rt, &c);
    chat_repr(rt, &c.text, v);
    return chat_capture_end(rt, &c);
}

/* Python's ascii(): repr with everything above 127 escaped. */
static chat_value ascii_value(chat_runtime *rt, chat_value v)
{
    chat_capture c;
    str text = chat_str(repr_value(rt, v));
    const char *p = text.data, *end = p + text.length;
    chat_capture_begin(rt, &c);
    while (p < end) {
        uint32_t point = chat_utf8_next(&p, end);
        if (point < 128)
            sb_putc(&c.text, (char)point);
        else if (point < 256)
            sb_printf(&c.text, "\\x%02x", (unsigned)point);
        else
            sb_printf(&c.text, point < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)point);
        chat_capture_check(rt);
    }
    return chat_capture_end(rt, &c);
}

/* One field; f->p is behind the '%'. */
static void percent_field(percent *f)
{
    spec s = default_spec;
    chat_value v = {.kind = CHAT_V_ABSENT};
    chat_runtime *rt = f->rt;
    if (f->p < f->end && *f->p == '(') {
        const char *from = ++f->p;
        while (f->p < f->end && *f->p != ')')
            f->p++;
        if (f->p == f->end)
            chat_fail(rt, "incomplete format key");
        str key = {from, (size_t)(f->p++ - from)};
        if (f->args.kind != CHAT_V_DICT)
            chat_fail(rt, "format requires a mapping");
        chat_value *member = chat_dict_get_str(f->args.as.dict, key);
        if (!member)
            chat_fail(rt, "format: no member '%.*s'", (int)BASE_MIN(key.length, (size_t)100),
                      key.data);
        v = *member;
        f->used = 1;
    }
    percent_spec(f, &s);
    if (f->p == f->end)
        chat_fail(rt, "incomplete format");
    s.type = *f->p++;
    if (s.type == '%') {
        chat_write(rt, "%", 1);
        return;
    }
    if (!strchr("diuoxXeEfFgGcrsa", s.type))
        chat_fail(rt, "unsupported format character '%c'", s.type);
    if (!chat_given(v))
        v = next_argument(f);
    if (s.type == 's')
        format_text(rt, &s, chat_str(chat_to_string(rt, v)), '>');
    else if (s.type == 'r')
        format_text(rt, &s, chat_str(repr_value(rt, v)), '>');
    else if (s.type == 'a')
        format_text(rt, &s, chat_str(ascii_value(rt, v)), '>');
    else if (s.type == 'c')
        percent_character(f, &s, v);
    else
        percent_number(f, &s, v);
}

chat_value chat_format_percent(chat_runtime *rt, str format, chat_value args)
{
    chat_capture c;
    chat_capture_begin(rt, &c);
    percent f = {.rt = rt, .p = format.data, .end = format.data + format.length, .args = args};
    while (f.p < f.end) {
        const char *mark = memchr(f.p, '%', (size_t)(f.end - f.p));
        chat_write(rt, f.p, (size_t)((mark ? mark : f.end) - f.p));
        if (!mark)
            break;
        f.p = mark + 1;
        percent_field(&f);
    }
    bool all = args.kind == CHAT_V_TUPLE
                   ? f.used >= args.as.list->n
                   : f.used || args.kind == CHAT_V_DICT || args.kind == CHAT_V_UNDEFINED;
    if (!all && args.kind != CHAT_V_LIST)
        chat_fail(rt, "not all arguments converted during string formatting");
    return chat_capture_end(rt, &c);
}

/* ---- {} ------------------------------------------------------------------------------------------------------------- */

typedef struct braces {
    chat_runtime *rt;
    const chat_args *args;
    size_t automatic; /* fields without a number so far */
    bool manual;
} braces;

static bool all_digits(str s)
{
    for (size_t i = 0; i < s.length; i++)
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
    return s.length > 0 && s.length < 9;
}

static size_t small_number(str s)
{
    size_t v = 0;
    for (size_t i = 0; i < s.length; i++)
        v = v * 10 + (size_t)(s.data[i] - '0');
    return v;
}

static chat_value first_object(braces *f, str name)
{
    if (name.length == 0 || all_digits(name)) {
        if (name.length ? f->automatic > 0 : f->manual)
            chat_fail(f->rt, "cannot mix {} and {0} in a format string");
        f->manual = name.length > 0;
        size_t at = name.length ? small_number(name) : f->automatic++;
        if (at >= f->args->n)
            chat_fail(f->rt, "Replacement index %zu out of range for positional args tuple", at);
        return f->args->items[at];
    }
    for (size_t i = 0; i < f->args->n_keywords; i++)
        if (str_equal(f->args->keywords[i].name, name))
            return f->args->keywords[i].value;
    chat_fail(f->rt, "format: no argument named '%.*s'", (int)BASE_MIN(name.length, (size_t)100),
              name.data);
}

static str until(const char **p, const char *end, const char *stops)
{
    const char *from = *p;
    while (*p < end && !strchr(stops, **p))
        ++*p;
    return (str){from, (size_t)(*p - from)};
}

/* name, .attribute and [key] parts */
static chat_value field_object(braces *f, str field)
{
    const char *p = field.data, *end = field.data + field.length;
    chat_value v = first_object(f, until(&p, end, ".["));
    while (p < end) {
        if (*p++ == '.') {
            v = chat_getattr(f->rt, v, until(&p, end, ".["));
            continue;
        }
        str key = until(&p, end, "]");
        if (p == end)
            chat_fail(f->rt, "Missing ']' in format string");
        p++;
        v = chat_getitem(f->rt, v,
                         all_digits(key) ? chat_int((int64_t)small_number(key))
                                         : chat_string(f->rt, key.data, key.length));
    }
    return v;
}

static void parse_spec(chat_runtime *rt, str text, spec *s)
{
    const char *p = text.data, *end = p + text.length, *q = p;
    if (p < end) {
        chat_utf8_next(&q, end);
        if (q < end && strchr("<>^=", *q)) {
            s->fill = (str){p, (size_t)(q - p)};
            s->align = *q;
            p = q + 1;
        } else if (strchr("<>^=", *p))
            s->align = *p++;
    }
    if (p < end && strchr("+- ", *p))
        s->sign = *p++;
    if (p < end && *p == '#') {
        s->alternate = true;
        p++;
    }
    if (p < end && *p == '0') {
        s->zero = true;
        p++;
    }
    s->width = digits_at(&p, end);
    if (p < end && (*p == ',' || *p == '_'))
        s->grouping = *p++;
    if (p < end && *p == '.') {
        p++;
        s->precision = digits_at(&p, end);
    }
    if (p < end)
        s->type = *p++;
    if (p != end)
        chat_fail(rt, "Invalid format specifier");
    check_spec(rt, s);
}

static void format_value(chat_runtime *rt, chat_value v, str text)
{
    spec s = default_spec;
    double d = 0;
    int64_t i = 0;
    parse_spec(rt, text, &s);
    if (text.length == 0 || v.kind == CHAT_V_STRING || !chat_number(v, &d)) {
        if (text.length && v.kind != CHAT_V_STRING)
            chat_fail(rt, "unsupported format string passed to %s.__format__", chat_type_name(v));
        if (s.type && s.type != 's')
            chat_fail(rt, "Unknown format code '%c' for object of type '%s'", s.type,
                      chat_type_name(v));
        if (s.grouping)
            chat_fail(rt, "Cannot specify '%c' with 's'.", s.grouping);
        if (s.sign != '-')
            chat_fail(rt, "Sign not allowed in string format specifier");
        if (s.align == '=')
            chat_fail(rt, "'=' alignment not allowed in string format specifier");
        if (s.zero && !s.align)
            s.fill = str_from("0");
        format_text(rt, &s, chat_str(chat_to_string(rt, v)), '<');
        return;
    }
    if (s.zero && !s.align) {
        s.fill = str_from("0");
        s.align = '=';
    }
    bool whole = chat_integer(v, &i);
    if (s.type && strchr("eEfFgG%", s.type))
        format_float(rt, &s, d);
    else if (whole && s.type == 'c') {
        char bytes[4];
        format_text(rt, &s, (str){bytes, chat_utf8_put(bytes, (uint32_t)BASE_MAX(i, 0))}, '<');
    } else if (whole && s.precision < 0 && (!s.type || strchr("dxXobn", s.type)))
        format_integer(rt, &s, i);
    else if (!whole && (!s.type || s.type == 'n'))
        format_float(rt, &s, d);
    else
        chat_fail(rt, "Unknown format code '%c' for object of type '%s'", s.type ? s.type : '?',
                  chat_type_name(v));
}

/* One field: p stands behind '{'; gives the place behind its '}'. */
static const char *braces_field(braces *f, const char *p, const char *end)
{
    const char *from = p;
    int open = 1;
    for (; p < end; p++) {
        open += *p == '{' ? 1 : *p == '}' ? -1 : 0;
        if (!open)
            break;
    }
    if (p == end)
        chat_fail(f->rt, "expected '}' before end of string");
    const char *q = from;
    str field = until(&q, p, "!:"), format = {p, 0};
    char conversion = 0;
    if (q < p && *q == '!') {
        conversion = q + 1 < p ? q[1] : 0;
        q += 2;
        if (!conversion || !strchr("rsa", conversion) || (q < p && *q != ':'))
            chat_fail(f->rt, "expected ':' after conversion specifier");
    }
    if (q < p)
        format = (str){q + 1, (size_t)(p - q - 1)};
    chat_value v = field_object(f, field);
    if (conversion)
        v = conversion == 's'   ? chat_to_string(f->rt, v)
            : conversion == 'r' ? repr_value(f->rt, v)
                                : ascii_value(f->rt, v);
    format_value(f->rt, v, format);
    return p + 1;
}

chat_value chat_format_braces(chat_runtime *rt, str format, const chat_args *args)
{
    chat_capture c;
    chat_capture_begin(rt, &c);
    braces f = {.rt = rt, .args = args};
    const char *p = format.data, *end = p + format.length;
    while (p < end) {
        const char *from = p;
        while (p < end && *p != '{' && *p != '}')
            p++;
        chat_write(rt, from, (size_t)(p - from));
        if (p == end)
            break;
        if (p + 1 < end && p[1] == *p) {
            chat_write(rt, p, 1);
            p += 2;
        } else if (*p == '}')
            chat_fail(rt, "Single '}' encountered in format string");
        else
            p = braces_field(&f, p + 1, end);
    }
    return chat_capture_end(rt, &c);
}
