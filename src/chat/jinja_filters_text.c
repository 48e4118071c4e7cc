/*
 * Filters that make text or numbers out of their subject. Names, parameters and results are jinja2's builtin ones, except tojson,
 * which is transformers': json.dumps without HTML escapes. Not here: urlize.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "chat/jinja.h"

#define FILTER(name)                                                                               \
    static chat_value name(chat_runtime *rt, chat_value self, const chat_value *p,                 \
                           const chat_args *raw)
#define UNUSED (void)rt, (void)self, (void)p, (void)raw

static bool flag(chat_value v)
{
    return chat_given(v) && chat_truth(v);
}

static int64_t integer_or(chat_runtime *rt, chat_value v, int64_t missing, const char *what)
{
    return chat_given(v) ? chat_want_integer(rt, v, what) : missing;
}

#define CASE_FILTER(name, how)                                                                     \
    FILTER(name)                                                                                   \
    {                                                                                              \
        UNUSED;                                                                                    \
        return chat_text_case(rt, chat_str(chat_to_string(rt, self)), how);                        \
    }
CASE_FILTER(filter_upper, 'u')
CASE_FILTER(filter_lower, 'l')
CASE_FILTER(filter_capitalize, 'c')

/* Words begin behind white space and -({[< . */
FILTER(filter_title)
{
    UNUSED;
    chat_capture c;
    str s = chat_str(chat_to_string(rt, self));
    const char *q = s.data, *end = q + s.length;
    bool inside = false;
    chat_capture_begin(rt, &c);
    while (q < end) {
        uint32_t point = chat_utf8_next(&q, end), points[3];
        char bytes[4];
        bool border =
            chat_char_space(point) || (point < 0x80 && point && strchr("-({[<", (int)point));
        int n = chat_char_case(point, inside ? CHAT_CASE_LOWER : CHAT_CASE_UPPER, points);
        for (int i = 0; i < n; i++)
            sb_add(&c.text, bytes, chat_utf8_put(bytes, border ? point : points[i]));
        inside = !border;
    }
    return chat_capture_end(rt, &c);
}

FILTER(filter_string)
{
    UNUSED;
    return chat_to_string(rt, self);
}

FILTER(filter_trim)
{
    UNUSED;
    return chat_text_strip(rt, chat_to_string(rt, self), p[0], true, true);
}

FILTER(filter_replace)
{
    UNUSED;
    int64_t count =
        chat_given(p[2]) && p[2].kind != CHAT_V_NONE ? chat_want_integer(rt, p[2], "count") : -1;
    return chat_text_replace(rt, chat_str(chat_to_string(rt, self)),
                             chat_str(chat_to_string(rt, p[0])), chat_str(chat_to_string(rt, p[1])),
                             count);
}

FILTER(filter_center)
{
    UNUSED;
    return chat_text_center(rt, chat_to_string(rt, self), integer_or(rt, p[0], 80, "width"),
                            str_from(" "), 0);
}

static chat_value joined_lines(chat_runtime *rt, const chat_list *lines, str indent, bool first,
                               bool blank)
{
    chat_capture c;
    chat_capture_begin(rt, &c);
    if (first)
        chat_write(rt, indent.data, indent.length);
    for (size_t i = 0; i < lines->n; i++) {
        str line = chat_str(lines->items[i]);
        if (i) {
            chat_write(rt, "\n", 1);
            if (blank || line.length)
                chat_write(rt, indent.data, indent.length);
        }
        chat_write(rt, line.data, line.length);
    }
    return chat_capture_end(rt, &c);
}

FILTER(filter_indent)
{
    UNUSED;
    str s = chat_want_string(rt, self, "indent");
    chat_value indent = chat_given(p[0]) ? p[0] : chat_int(4);
    if (indent.kind != CHAT_V_STRING)
        indent = chat_binary(rt, CHAT_OP_MULTIPLY, chat_string_literal(" "), indent);
    chat_value closed =
        chat_binary(rt, CHAT_OP_ADD, chat_string(rt, s.data, s.length), chat_string_literal("\n"));
    chat_list lines = chat_text_lines(rt, chat_str(closed), false);
    return joined_lines(rt, &lines, chat_str(indent), flag(p[1]), flag(p[2]));
}

FILTER(filter_truncate)
{
    UNUSED;
    chat_value end = chat_given(p[2]) ? p[2] : chat_string_literal("...");
    chat_want_string(rt, end, "truncate");
    int64_t length = integer_or(rt, p[0], 255, "length"), end_n = (int64_t)chat_string_length(end),
            n = 0;
    int64_t leeway =
        chat_given(p[3]) && p[3].kind != CHAT_V_NONE ? chat_want_integer(rt, p[3], "leeway") : 5;
    if (length < end_n || leeway < 0)
        chat_fail(rt, "truncate: expected a length >= %lld and a leeway >= 0", (long long)end_n);
    if (chat_length(self, &n) && n - BASE_MIN(leeway, INT32_MAX) <= length)
        return self;
    str s = chat_want_string(rt, self, "truncate");
    chat_value head = chat_getslice(rt, self, chat_none(), chat_int(length - end_n), chat_none());
    if (!flag(p[1])) {
        size_t cut = head.length;
        while (cut && s.data[cut - 1] != ' ')
            cut--;
        if (cut)
            head = chat_string(rt, s.data, cut - 1);
    }
    return chat_binary(rt, CHAT_OP_ADD, head, end);
}

/* ---- wordwrap --------------------------------------------------------------------------------------------------------- */

typedef struct wrapper {
    int64_t width;
    bool break_long;
    str glue;
    int64_t column; /* characters on the open line */
    str blank;      /* white space not yet written */
    bool any;       /* a line was begun */
} wrapper;

static void wrap_newline(chat_runtime *rt, wrapper *w)
{
    chat_write(rt, w->glue.data, w->glue.length);
    w->column = 0;
    w->blank.length = 0;
}

static void wrap_word(chat_runtime *rt, wrapper *w, str word)
{
    int64_t n = (int64_t)chat_utf8_length(word.data, word.length);
    int64_t gap = w->column ? (int64_t)chat_utf8_length(w->blank.data, w->blank.length) : 0;
    if (w->column && w->column + gap + n > w->width) {
        if (n <= w->width || !w->break_long || w->column + gap >= w->width)
            wrap_newline(rt, w);
    }
    if (w->column || !w->any) {
        chat_write(rt, w->blank.data, w->blank.length);
        w->column += (int64_t)chat_utf8_length(w->blank.data, w->blank.length);
    }
    w->blank.length = 0;
    w->any = true;
    const char *q = word.data, *end = q + word.length;
    while (q < end) {
        const char *from = q;
        chat_utf8_next(&q, end);
        if (w->break_long && w->column >= w->width)
            wrap_newline(rt, w);
        chat_write(rt, from, (size_t)(q - from));
        w->column++;
    }
}

/* A word ends behind white space, and behind a hyphen between letters. */
static const char *word_end(const char *q, const char *end, bool hyphens)
{
    uint32_t previous = 0;
    while (q < end) {
        const char *next = q;
        uint32_t c = chat_utf8_next(&next, end);
        if (chat_char_space(c))
            return q;
        if (hyphens && c == '-' && (chat_char_class(previous) & CHAT_ALPHA) && next < end) {
            const char *peek = next;
            if (chat_char_class(chat_utf8_next(&peek, end)) & CHAT_ALPHA)
                return next;
        }
        previous = c;
        q = next;
    }
    return q;
}

FILTER(filter_wordwrap)
{
    UNUSED;
    chat_capture c;
    wrapper w = {.width = integer_or(rt, p[0], 79, "width")};
    w.break_long = !chat_given(p[1]) || chat_truth(p[1]);
    w.glue = chat_given(p[2]) && p[2].kind != CHAT_V_NONE ? chat_want_string(rt, p[2], "wrapstring")
                                                          : str_from("\n");
    bool hyphens = !chat_given(p[3]) || chat_truth(p[3]);
    if (w.width <= 0)
        chat_fail(rt, "wordwrap: invalid width %lld (must be > 0)", (long long)w.width);
    chat_list lines = chat_text_lines(rt, chat_want_string(rt, self, "wordwrap"), false);
    chat_capture_begin(rt, &c);
    for (size_t i = 0; i < lines.n; i++) {
        const char *q = lines.items[i].as.text, *end = q + lines.items[i].length;
        if (i)
            wrap_newline(rt, &w);
        w.any = false;
        while (q < end) {
            const char *from = q, *next = q;
            while (q < end && chat_char_space(chat_utf8_next(&next, end)))
                q = next;
            w.blank = (str){from, (size_t)(q - from)};
            from = q;
            q = word_end(q, end, hyphens);
            if (q > from)
                wrap_word(rt, &w, (str){from, (size_t)(q - from)});
        }
    }
    return chat_capture_end(rt, &c);
}

FILTER(filter_wordcount)
{
    UNUSED;
    str s = chat_str(chat_to_string(rt, self));
    const char *q = s.data, *end = q + s.length;
    int64_t n = 0;
    chat_spend(rt, s.length);
    for (bool inside = false; q < end;) {
        uint32_t point = chat_utf8_next(&q, end);
        bool word = point == '_' || chat_char_class(point) &
                                        (CHAT_ALPHA | CHAT_DECIMAL | CHAT_DIGIT | CHAT_NUMERIC);
        n += word && !inside;
        inside = word;
    }
    return chat_int(n);
}

/* ---- markup ----------------------------------------------------------------------------------------------------------- */

FILTER(filter_escape)
{
    UNUSED;
    return chat_escape(rt, self);
}

FILTER(filter_forceescape)
{
    UNUSED;
    chat_value s = chat_to_string(rt, self);
    s.flags &= (uint8_t)~CHAT_FLAG_MARKUP;
    return chat_escape(rt, s);
}

FILTER(filter_safe)
{
    UNUSED;
    chat_value s = chat_to_string(rt, self);
    s.flags |= CHAT_FLAG_MARKUP;
    return s;
}

static str entity(str s)
{
    static const char *const names[][2] = {{"&amp;", "&"},        {"&lt;", "<"},  {"&gt;", ">"},
                                           {"&#34;", "\""},       {"&#39;", "'"}, {"&quot;", "\""},
                                           {"&nbsp;", "\xc2\xa0"}};
    for (size_t i = 0; i < BASE_COUNT(names); i++)
        if (str_starts(s, names[i][0]))
            return (str){names[i][1], strlen(names[i][0])}; /* length: of the entity */
    return (str){NULL, 0};
}

/* Tags and comments go, white space collapses, the common entities are resolved. */
FILTER(filter_striptags)
{
    UNUSED;
    chat_capture c;
    str s = chat_str(chat_to_string(rt, self));
    const char *end = s.data + s.length;
    chat_capture_begin(rt, &c);
    for (const char *q = s.data; q < end;) {
        str rest = {q, (size_t)(end - q)};
        bool comment = str_starts(rest, "<!--");
        const char *close = comment     ? memmem(q, rest.length, "-->", 3)
                            : *q == '<' ? memchr(q, '>', rest.length)
                                        : NULL;
        chat_spend(rt, *q == '<' && !close ? rest.length : 0);
        if (close) {
            q = close + (comment ? 3 : 1);
            continue;
        }
        str e = entity(rest);
        if (e.data)
            sb_puts(&c.text, e.data);
        else
            sb_putc(&c.text, *q);
        q += e.data ? e.length : 1;
    }
    chat_list words = {0};
    chat_value text = chat_capture_end(rt, &c);
    const chat_builtin *split = chat_find_builtin(chat_methods_string, str_from("split"));
    chat_args none = {0};
    words = *chat_call_builtin(rt, split, text, &none).as.list;
    chat_capture_begin(rt, &c);
    for (size_t i = 0; i < words.n; i++) {
        chat_write(rt, " ", i > 0);
        chat_write(rt, words.items[i].as.text, words.items[i].length);
    }
    return chat_capture_end(rt, &c);
}

static void url_quote(chat_runtime *rt, chat_value v, bool query)
{
    str s = chat_str(chat_to_string(rt, v));
    sb *out = &rt->capture->text;
    for (size_t i = 0; i < s.length; i++) {
        unsigned char b = (unsigned char)s.data[i];
        bool plain = (b >= '0' && b <= '9') || (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') ||
                     (b && strchr("_.-~", b)) || (b == '/' && !query);
        if (plain)
            sb_putc(out, (char)b);
        else if (b == ' ' && query)
            sb_putc(out, '+');
        else
            sb_printf(out, "%%%02X", b);
    }
    chat_capture_check(rt);
}

FILTER(filter_urlencode)
{
    UNUSED;
    chat_capture c;
    chat_capture_begin(rt, &c);
    if (self.kind == CHAT_V_STRING || !chat_iterable(self)) {
        url_quote(rt, self, false);
        return chat_capture_end(rt, &c);
    }
    chat_view pairs = {self.as.dict, CHAT_VIEW_ITEMS};
    chat_value view = {.kind = CHAT_V_VIEW, .as.view = &pairs};
    chat_list items = chat_items(rt, self.kind == CHAT_V_DICT ? view : self);
    for (size_t i = 0; i < items.n; i++) {
        chat_list pair = chat_items(rt, items.items[i]);
        if (pair.n != 2)
            chat_fail(rt, "urlencode: pairs are expected");
        chat_write(rt, "&", i > 0);
        url_quote(rt, pair.items[0], true);
        chat_write(rt, "=", 1);
        url_quote(rt, pair.items[1], true);
    }
    return chat_capture_end(rt, &c);
}

FILTER(filter_xmlattr)
{
    UNUSED;
    chat_capture c;
    if (self.kind != CHAT_V_DICT)
        chat_fail(rt, "xmlattr: a mapping is expected, got '%s'", chat_type_name(self));
    bool space = !chat_given(p[0]) || chat_truth(p[0]);
    chat_capture_begin(rt, &c);
    for (size_t i = 0; i < self.as.dict->n; i++) {
        chat_entry e = self.as.dict->entries[i];
        if (e.value.kind == CHAT_V_NONE || e.value.kind == CHAT_V_UNDEFINED)
            continue;
        str key = chat_want_string(rt, e.key, "xmlattr");
        for (size_t k = 0; k < key.length; k++)
            if (!key.data[k] || strchr(" \t\n\r\f\v/>=", key.data[k]))
                chat_fail(rt, "invalid character in an attribute name");
        if (space || c.text.length)
            chat_write(rt, " ", 1);
        key = chat_str(chat_escape(rt, e.key));
        str value = chat_str(chat_escape(rt, e.value));
        chat_write(rt, key.data, key.length);
        chat_write(rt, "=\"", 2);
        chat_write(rt, value.data, value.length);
        chat_write(rt, "\"", 1);
    }
    return chat_capture_end(rt, &c);
}

/* ---- JSON and formats --------------------------------------------------------------------------------------------------- */

static void json_separators(chat_runtime *rt, chat_value v, chat_json_options *o)
{
    if (!chat_given(v) || v.kind == CHAT_V_NONE)
        return;
    chat_list both = chat_items(rt, v);
    if (both.n != 2)
        chat_fail(rt, "tojson: separators are a pair");
    o->item_separator = chat_want_string(rt, both.items[0], "separators");
    o->key_separator = chat_want_string(rt, both.items[1], "separators");
}

FILTER(filter_tojson)
{
    UNUSED;
    chat_capture c;
    chat_json_options o = {.item_separator = str_from(", "), .key_separator = str_from(": ")};
    o.ensure_ascii = flag(p[0]);
    o.sort_keys = flag(p[3]);
    if (chat_given(p[1]) && p[1].kind != CHAT_V_NONE) {
        chat_value indent = p[1];
        if (indent.kind != CHAT_V_STRING)
            indent = chat_binary(rt, CHAT_OP_MULTIPLY, chat_string_literal(" "), indent);
        o.pretty = true;
        o.indent = chat_str(indent);
        o.item_separator = str_from(",");
    }
    json_separators(rt, p[2], &o);
    chat_capture_begin(rt, &c);
    chat_json_dump(rt, &c.text, self, &o);
    return chat_capture_end(rt, &c);
}

FILTER(filter_pprint)
{
    UNUSED;
    chat_capture c;
    chat_capture_begin(rt, &c);
    chat_repr(rt, &c.text, self);
    return chat_capture_end(rt, &c);
}

FILTER(filter_format)
{
    UNUSED;
    chat_value args;
    if (raw->n && raw->n_keywords)
        chat_fail(rt, "format: positional and keyword arguments at the same time");
    if (raw->n_keywords) {
        args = chat_dict_value(rt);
        for (size_t i = 0; i < raw->n_keywords; i++) {
            str name = raw->keywords[i].name;
            chat_dict_set(rt, args.as.dict, chat_string(rt, name.data, name.length),
                          raw->keywords[i].value);
        }
    } else
        args = chat_tuple_value(rt, raw->items, raw->n);
    return chat_format_percent(rt, chat_str(chat_to_string(rt, self)), args);
}

FILTER(filter_filesizeformat)
{
    UNUSED;
    static const char *const decimal[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"};
    static const char *const binary[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
    double bytes, base = flag(p[0]) ? 1024 : 1000, unit = base;
    char text[400];
    if (!chat_number(self, &bytes) &&
        !(self.kind == CHAT_V_STRING && chat_parse_float(chat_str(self), &bytes)))
        chat_fail(rt, "filesizeformat: a number is expected, got '%s'", chat_type_name(self));
    if (bytes == 1)
        return chat_string_literal("1 Byte");
    if (bytes < base) {
        snprintf(text, sizeof text, "%.0f Bytes", trunc(bytes));
        return chat_string_copy(rt, text, strlen(text));
    }
    size_t i = 0;
    for (; i < 8; i++) {
        unit = pow(base, (double)i + 2);
        if (bytes < unit || i == 7)
            break;
    }
    chat_double_text(text, sizeof text - 8, 'f', 1, base * bytes / unit);
    size_t n = strlen(text);
    snprintf(text + n, sizeof text - n, " %s", (flag(p[0]) ? binary : decimal)[i]);
    return chat_string_copy(rt, text, strlen(text));
}

/* ---- numbers ------------------------------------------------------------------------------------------------------------ */

FILTER(filter_int)
{
    UNUSED;
    int64_t i, base = integer_or(rt, p[1], 10, "base");
    double d;
    if (self.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, self);
    if (chat_integer(self, &i))
        return chat_int(i);
    if (self.kind == CHAT_V_BIG)
        return self;
    if (self.kind == CHAT_V_STRING && base >= 0 && base <= 36 &&
        chat_parse_int(chat_str(self), (int)base, &i))
        return chat_int(i);
    bool number = chat_number(self, &d) ||
                  (self.kind == CHAT_V_STRING && chat_parse_float(chat_str(self), &d));
    if (!number || isnan(d))
        return chat_given(p[0]) ? p[0] : chat_int(0);
    if (fabs(d) >= 9.2e18)
        chat_fail_status(rt, STATUS_TOO_LARGE, "an integer beyond 64 bits");
    return chat_int((int64_t)d);
}

FILTER(filter_float)
{
    UNUSED;
    double d;
    if (self.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, self);
    if (chat_number(self, &d) ||
        (self.kind == CHAT_V_STRING && chat_parse_float(chat_str(self), &d)))
        return chat_float(d);
    return chat_given(p[0]) ? p[0] : chat_float(0);
}

FILTER(filter_abs)
{
    UNUSED;
    double d;
    int64_t i;
    if (chat_integer(self, &i))
        return i < 0 ? chat_negate(rt, chat_int(i)) : chat_int(i);
    if (self.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, self);
    if (!chat_number(self, &d))
        chat_fail(rt, "bad operand type for abs(): '%s'", chat_type_name(self));
    return chat_float(fabs(d));
}

/* Rounds as the decimal text of the double does: exact, ties to even only where the double is a tie. */
static double round_common(double d, int64_t precision)
{
    if (!isfinite(d) || precision > 300)
        return d;
    if (precision < 0) {
        if (precision < -308)
            return 0;
        double scale = pow(10, (double)-precision), q = d / scale;
        return nearbyint(q) * scale;
    }
    char text[700];
    chat_double_text(text, sizeof text, 'f', (int)precision, d);
    return chat_parse_double(text, BASE_MIN(strlen(text), (size_t)500));
}

FILTER(filter_round)
{
    UNUSED;
    double d;
    int64_t i = 0, precision = integer_or(rt, p[0], 0, "precision");
    str method = chat_given(p[1]) ? chat_want_string(rt, p[1], "method") : str_from("common");
    if (self.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, self);
    if (!chat_number(self, &d))
        chat_fail(rt, "round: a number is expected, got '%s'", chat_type_name(self));
    if (str_is(method, "common")) {
        if (chat_integer(self, &i) && precision >= 0)
            return chat_int(i);
        double r = round_common(d, precision);
        return self.kind == CHAT_V_FLOAT || fabs(r) >= 9.2e18 ? chat_float(r)
                                                              : chat_int((int64_t)r);
    }
    double scale = pow(10, (double)precision), scaled = d * scale;
    if (!str_is(method, "ceil") && !str_is(method, "floor"))
        chat_fail(rt, "method must be common, ceil or floor");
    return chat_float((str_is(method, "ceil") ? ceil(scaled) : floor(scaled)) / scale);
}

const chat_builtin chat_filters_text[] = {
    {"upper", filter_upper, 0, 0, {0}},
    {"lower", filter_lower, 0, 0, {0}},
    {"capitalize", filter_capitalize, 0, 0, {0}},
    {"title", filter_title, 0, 0, {0}},
    {"string", filter_string, 0, 0, {0}},
    {"trim", filter_trim, 0, 1, {"chars"}},
    {"replace", filter_replace, 2, 3, {"old", "new", "count"}},
    {"center", filter_center, 0, 1, {"width"}},
    {"indent", filter_indent, 0, 3, {"width", "first", "blank"}},
    {"truncate", filter_truncate, 0, 4, {"length", "killwords", "end", "leeway"}},
    {"wordwrap",
     filter_wordwrap,
     0,
     4,
     {"width", "break_long_words", "wrapstring", "break_on_hyphens"}},
    {"wordcount", filter_wordcount, 0, 0, {0}},
    {"e", filter_escape, 0, 0, {0}},
    {"escape", filter_escape, 0, 0, {0}},
    {"forceescape", filter_forceescape, 0, 0, {0}},
    {"safe", filter_safe, 0, 0, {0}},
    {"striptags", filter_striptags, 0, 0, {0}},
    {"urlencode", filter_urlencode, 0, 0, {0}},
    {"xmlattr", filter_xmlattr, 0, 1, {"autospace"}},
    {"tojson", filter_tojson, 0, 4, {"ensure_ascii", "indent", "separators", "sort_keys"}},
    {"pprint", filter_pprint, 0, 0, {0}},
    {"format", filter_format, 0, CHAT_VARIADIC, {0}},
    {"filesizeformat", filter_filesizeformat, 0, 1, {"binary"}},
    {"int", filter_int, 0, 2, {"default", "base"}},
    {"float", filter_float, 0, 1, {"default"}},
    {"abs", filter_abs, 0, 0, {0}},
    {"round", filter_round, 0, 2, {"precision", "method"}},
    {0},
};
