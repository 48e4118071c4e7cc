/* Methods of strings, lists, tuples, dictionaries, floats, cyclers and loops. Names and arguments are Python's. */
#include <math.h>
#include <string.h>

#include "chat/jinja.h"

#define METHOD(name)                                                                               \
    static chat_value name(chat_runtime *rt, chat_value self, const chat_value *p,                 \
                           const chat_args *raw)
#define UNUSED (void)rt, (void)self, (void)p, (void)raw

static int64_t integer_or(chat_runtime *rt, chat_value v, int64_t missing, const char *what)
{
    return chat_given(v) && v.kind != CHAT_V_NONE ? chat_want_integer(rt, v, what) : missing;
}

/* ---- strings: case and classes ---------------------------------------------------------------------------------------- */

#define CASE_METHOD(name, how)                                                                     \
    METHOD(name)                                                                                   \
    {                                                                                              \
        UNUSED;                                                                                    \
        return chat_text_case(rt, chat_str(self), how);                                            \
    }
CASE_METHOD(string_upper, 'u')
CASE_METHOD(string_lower, 'l')
CASE_METHOD(string_title, 't')
CASE_METHOD(string_capitalize, 'c')
CASE_METHOD(string_swapcase, 's')

#define CLASS_METHOD(name, what)                                                                   \
    METHOD(name)                                                                                   \
    {                                                                                              \
        UNUSED;                                                                                    \
        chat_spend(rt, self.length);                                                               \
        return chat_bool(chat_text_is(chat_str(self), what));                                      \
    }
CLASS_METHOD(string_isupper, 'u')
CLASS_METHOD(string_islower, 'l')
CLASS_METHOD(string_istitle, 't')
CLASS_METHOD(string_isascii, 'A')
CLASS_METHOD(string_isspace, 's')
CLASS_METHOD(string_isprintable, 'p')
CLASS_METHOD(string_isalpha, 'a')
CLASS_METHOD(string_isalnum, 'm')
CLASS_METHOD(string_isdecimal, 'D')
CLASS_METHOD(string_isdigit, 'd')
CLASS_METHOD(string_isnumeric, 'n')
CLASS_METHOD(string_isidentifier, 'i')

/* ---- strings: stripping and padding ------------------------------------------------------------------------------------- */

METHOD(string_strip)
{
    UNUSED;
    return chat_text_strip(rt, self, p[0], true, true);
}

METHOD(string_lstrip)
{
    UNUSED;
    return chat_text_strip(rt, self, p[0], true, false);
}

METHOD(string_rstrip)
{
    UNUSED;
    return chat_text_strip(rt, self, p[0], false, true);
}

static chat_value padded(chat_runtime *rt, chat_value self, const chat_value *p, int where)
{
    str fill = chat_given(p[1]) ? chat_want_string(rt, p[1], "fillchar") : str_from(" ");
    if (chat_utf8_length(fill.data, fill.length) != 1)
        chat_fail(rt, "the fill character must be exactly one character long");
    return chat_text_center(rt, self, chat_want_integer(rt, p[0], "width"), fill, where);
}

METHOD(string_center)
{
    UNUSED;
    return padded(rt, self, p, 0);
}

METHOD(string_ljust)
{
    UNUSED;
    return padded(rt, self, p, -1);
}

METHOD(string_rjust)
{
    UNUSED;
    return padded(rt, self, p, 1);
}

METHOD(string_zfill)
{
    UNUSED;
    int64_t width = chat_want_integer(rt, p[0], "width");
    bool sign = self.length && (self.as.text[0] == '-' || self.as.text[0] == '+');
    if (!sign)
        return chat_text_center(rt, self, width, str_from("0"), 1);
    chat_value rest = chat_string(rt, self.as.text + 1, self.length - 1);
    rest = chat_text_center(rt, rest, width - 1, str_from("0"), 1);
    return chat_binary(rt, CHAT_OP_ADD, chat_string(rt, self.as.text, 1), rest);
}

METHOD(string_expandtabs)
{
    UNUSED;
    chat_capture c;
    int64_t size = integer_or(rt, p[0], 8, "tabsize"), column = 0;
    const char *q = self.as.text, *end = q + self.length;
    chat_capture_begin(rt, &c);
    while (q < end) {
        const char *from = q;
        uint32_t point = chat_utf8_next(&q, end);
        if (point == '\t') {
            int64_t n = size > 0 ? size - column % size : 0;
            for (int64_t i = 0; i < n; i++)
                chat_write(rt, " ", 1);
            column += n;
        } else {
            chat_write(rt, from, (size_t)(q - from));
            column = point == '\n' || point == '\r' ? 0 : column + 1;
        }
    }
    return chat_capture_end(rt, &c);
}

/* ---- strings: searching ------------------------------------------------------------------------------------------------- */

/* The part of s between two character positions given as in a slice; *offset = characters before it. */
static bool part(chat_runtime *rt, chat_value s, chat_value from, chat_value to, chat_value *out,
                 int64_t *offset)
{
    int64_t n = (int64_t)chat_string_length(s);
    int64_t a = integer_or(rt, from, 0, "start"), b = integer_or(rt, to, n, "end");
    a = a < 0 ? BASE_MAX(a + n, 0) : a;
    b = b < 0 ? BASE_MAX(b + n, 0) : BASE_MIN(b, n);
    *offset = a;
    if (a > n || a > b)
        return false;
    *out = a == 0 && b == n ? s : chat_getslice(rt, s, chat_int(a), chat_int(b), chat_none());
    return true;
}

static const char *last_hit(str s, str what)
{
    if (what.length > s.length)
        return NULL;
    for (const char *p = s.data + s.length - what.length;; p--) {
        if (memcmp(p, what.data, what.length) == 0)
            return p;
        if (p == s.data)
            return NULL;
    }
}

static const char *first_hit(str s, str what)
{
    return what.length == 0 ? s.data
           : s.length       ? memmem(s.data, s.length, what.data, what.length)
                            : NULL;
}

static int64_t find(chat_runtime *rt, chat_value self, const chat_value *p, bool last)
{
    str what = chat_want_string(rt, p[0], "find");
    chat_value s;
    int64_t offset;
    chat_spend(rt, self.length * (last ? (uint64_t)what.length / 16 + 1 : 1));
    if (!part(rt, self, p[1], p[2], &s, &offset))
        return -1;
    const char *hit = last ? last_hit(chat_str(s), what) : first_hit(chat_str(s), what);
    return hit ? offset + (int64_t)chat_utf8_length(s.as.text, (size_t)(hit - s.as.text)) : -1;
}

METHOD(string_find)
{
    UNUSED;
    return chat_int(find(rt, self, p, false));
}

METHOD(string_rfind)
{
    UNUSED;
    return chat_int(find(rt, self, p, true));
}

static chat_value found_index(chat_runtime *rt, int64_t at)
{
    if (at < 0)
        chat_fail(rt, "substring not found");
    return chat_int(at);
}

METHOD(string_index)
{
    UNUSED;
    return found_index(rt, find(rt, self, p, false));
}

METHOD(string_rindex)
{
    UNUSED;
    return found_index(rt, find(rt, self, p, true));
}

METHOD(string_count)
{
    UNUSED;
    str what = chat_want_string(rt, p[0], "count");
    chat_value s;
    int64_t offset, n = 0;
    chat_spend(rt, self.length);
    if (!part(rt, self, p[1], p[2], &s, &offset))
        return chat_int(0);
    if (what.length == 0)
        return chat_int((int64_t)chat_string_length(s) + 1);
    str rest = chat_str(s);
    for (const char *hit; (hit = first_hit(rest, what)); n++)
        rest = (str){hit + what.length, (size_t)(rest.data + rest.length - hit) - what.length};
    return chat_int(n);
}

static bool affix(str s, str what, bool at_end)
{
    return what.length <= s.length &&
           memcmp(at_end ? s.data + s.length - what.length : s.data, what.data, what.length) == 0;
}

static chat_value has_affix(chat_runtime *rt, chat_value self, const chat_value *p, bool at_end)
{
    chat_value s;
    int64_t offset;
    if (!part(rt, self, p[1], p[2], &s, &offset))
        return chat_bool(false);
    if (p[0].kind == CHAT_V_TUPLE) {
        bool any = false;
        for (size_t i = 0; i < p[0].as.list->n; i++)
            any |= affix(chat_str(s),
                         chat_want_string(rt, p[0].as.list->items[i], "prefix or suffix"), at_end);
        return chat_bool(any);
    }
    return chat_bool(affix(chat_str(s), chat_want_string(rt, p[0], "prefix or suffix"), at_end));
}

METHOD(string_startswith)
{
    UNUSED;
    return has_affix(rt, self, p, false);
}

METHOD(string_endswith)
{
    UNUSED;
    return has_affix(rt, self, p, true);
}

METHOD(string_removeprefix)
{
    UNUSED;
    str what = chat_want_string(rt, p[0], "prefix");
    bool cut = affix(chat_str(self), what, false);
    return cut ? chat_string(rt, self.as.text + what.length, self.length - what.length) : self;
}

METHOD(string_removesuffix)
{
    UNUSED;
    str what = chat_want_string(rt, p[0], "suffix");
    return affix(chat_str(self), what, true)
               ? chat_string(rt, self.as.text, self.length - what.length)
               : self;
}

METHOD(string_replace)
{
    UNUSED;
    return chat_text_replace(rt, chat_str(self), chat_want_string(rt, p[0], "replace"),
                             chat_want_string(rt, p[1], "replace"),
                             integer_or(rt, p[2], -1, "count"));
}

/* ---- strings: splitting and joining --------------------------------------------------------------------------------------- */

static void push_piece(chat_runtime *rt, chat_list *out, const char *from, const char *to)
{
    chat_list_push(rt, out, chat_string(rt, from, (size_t)(to - from)));
}

/* On runs of white space, empty pieces dropped. */
static void split_blank(chat_runtime *rt, chat_list *out, str s, int64_t limit)
{
    const char *p = s.data, *end = p + s.length;
    for (;;) {
        const char *from, *q;
        for (q = p; q < end && chat_char_space(chat_utf8_next(&q, end)); p = q)
            ;
        if (p == end)
            return;
        from = p;
        if (limit-- == 0) {
            push_piece(rt, out, from, end);
            return;
        }
        for (q = p; q < end && !chat_char_space(chat_utf8_next(&q, end)); p = q)
            ;
        push_piece(rt, out, from, p);
    }
}

static void reverse(chat_list *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        chat_value swap = l->items[i];
        l->items[i] = l->items[l->n - 1 - i];
        l->items[l->n - 1 - i] = swap;
    }
}

static void rsplit_blank(chat_runtime *rt, chat_list *out, str s, int64_t limit)
{
    const char *begin = s.data, *p = begin + s.length;
    for (;;) {
        const char *to, *q;
        for (q = p; q > begin && chat_char_space(chat_utf8_previous(&q, begin)); p = q)
            ;
        if (p == begin)
            break;
        to = p;
        if (limit-- == 0) {
            push_piece(rt, out, begin, to);
            break;
        }
        for (q = p; q > begin && !chat_char_space(chat_utf8_previous(&q, begin)); p = q)
            ;
        push_piece(rt, out, p, to);
    }
    reverse(out);
}

static void split_on(chat_runtime *rt, chat_list *out, str s, str by, int64_t limit)
{
    const char *p = s.data, *end = p + s.length;
    while (limit-- != 0) {
        const char *hit = first_hit((str){p, (size_t)(end - p)}, by);
        if (!hit)
            break;
        push_piece(rt, out, p, hit);
        p = hit + by.length;
    }
    push_piece(rt, out, p, end);
}

static void rsplit_on(chat_runtime *rt, chat_list *out, str s, str by, int64_t limit)
{
    const char *end = s.data + s.length;
    while (limit-- != 0) {
        const char *hit = last_hit((str){s.data, (size_t)(end - s.data)}, by);
        if (!hit)
            break;
        push_piece(rt, out, hit + by.length, end);
        end = hit;
    }
    push_piece(rt, out, s.data, end);
    reverse(out);
}

static chat_value split(chat_runtime *rt, chat_value self, const chat_value *p, bool from_right)
{
    chat_value out = chat_list_value(rt, 0);
    int64_t limit = integer_or(rt, p[1], -1, "maxsplit");
    chat_spend(rt, self.length);
    if (!chat_given(p[0]) || p[0].kind == CHAT_V_NONE) {
        (from_right ? rsplit_blank : split_blank)(rt, out.as.list, chat_str(self), limit);
        return out;
    }
    str by = chat_want_string(rt, p[0], "separator");
    if (by.length == 0)
        chat_fail(rt, "empty separator");
    if (from_right)
        chat_spend(rt, self.length * (by.length / 16 + 1));
    (from_right ? rsplit_on : split_on)(rt, out.as.list, chat_str(self), by, limit);
    return out;
}

METHOD(string_split)
{
    UNUSED;
    return split(rt, self, p, false);
}

METHOD(string_rsplit)
{
    UNUSED;
    return split(rt, self, p, true);
}

METHOD(string_splitlines)
{
    UNUSED;
    chat_value out = chat_list_value(rt, 0);
    *out.as.list = chat_text_lines(rt, chat_str(self), chat_given(p[0]) && chat_truth(p[0]));
    return out;
}

static chat_value partition(chat_runtime *rt, chat_value self, chat_value by, bool last)
{
    str s = chat_str(self), what = chat_want_string(rt, by, "separator");
    if (what.length == 0)
        chat_fail(rt, "empty separator");
    chat_spend(rt, self.length * (what.length / 16 + 1));
    const char *hit = last ? last_hit(s, what) : first_hit(s, what);
    chat_value empty = chat_string_literal(""),
               parts[3] = {last ? empty : self, empty, last ? self : empty};
    if (hit) {
        const char *behind = hit + what.length;
        parts[0] = chat_string(rt, s.data, (size_t)(hit - s.data));
        parts[1] = by;
        parts[2] = chat_string(rt, behind, (size_t)(s.data + s.length - behind));
    }
    return chat_tuple_value(rt, parts, 3);
}

METHOD(string_partition)
{
    UNUSED;
    return partition(rt, self, p[0], false);
}

METHOD(string_rpartition)
{
    UNUSED;
    return partition(rt, self, p[0], true);
}

METHOD(string_join)
{
    UNUSED;
    chat_capture c;
    chat_list items = chat_items(rt, p[0]);
    chat_capture_begin(rt, &c);
    for (size_t i = 0; i < items.n; i++) {
        if (items.items[i].kind != CHAT_V_STRING)
            chat_fail(rt, "sequence item %zu: expected str instance, %s found", i,
                      chat_type_name(items.items[i]));
        if (i)
            chat_write(rt, self.as.text, self.length);
        chat_write(rt, items.items[i].as.text, items.items[i].length);
    }
    return chat_capture_end(rt, &c);
}

METHOD(string_format)
{
    UNUSED;
    return chat_format_braces(rt, chat_str(self), raw);
}

METHOD(string_format_map)
{
    UNUSED;
    chat_args args = {0};
    if (p[0].kind != CHAT_V_DICT)
        chat_fail(rt, "format_map: a mapping is expected, got '%s'", chat_type_name(p[0]));
    const chat_dict *d = p[0].as.dict;
    args.keywords = chat_alloc_array(rt, d->n + 1, sizeof *args.keywords);
    for (size_t i = 0; i < d->n; i++)
        if (d->entries[i].key.kind == CHAT_V_STRING)
            args.keywords[args.n_keywords++] =
                (chat_keyword){chat_str(d->entries[i].key), d->entries[i].value};
    return chat_format_braces(rt, chat_str(self), &args);
}

const chat_builtin chat_methods_string[] = {
    {"upper", string_upper, 0, 0, {0}},
    {"lower", string_lower, 0, 0, {0}},
    {"casefold", string_lower, 0, 0, {0}},
    {"title", string_title, 0, 0, {0}},
    {"capitalize", string_capitalize, 0, 0, {0}},
    {"swapcase", string_swapcase, 0, 0, {0}},
    {"isupper", string_isupper, 0, 0, {0}},
    {"islower", string_islower, 0, 0, {0}},
    {"istitle", string_istitle, 0, 0, {0}},
    {"isascii", string_isascii, 0, 0, {0}},
    {"isspace", string_isspace, 0, 0, {0}},
    {"isprintable", string_isprintable, 0, 0, {0}},
    {"isalpha", string_isalpha, 0, 0, {0}},
    {"isalnum", string_isalnum, 0, 0, {0}},
    {"isdecimal", string_isdecimal, 0, 0, {0}},
    {"isdigit", string_isdigit, 0, 0, {0}},
    {"isnumeric", string_isnumeric, 0, 0, {0}},
    {"isidentifier", string_isidentifier, 0, 0, {0}},
    {"strip", string_strip, 0, 1, {"chars"}},
    {"lstrip", string_lstrip, 0, 1, {"chars"}},
    {"rstrip", string_rstrip, 0, 1, {"chars"}},
    {"center", string_center, 1, 2, {"width", "fillchar"}},
    {"ljust", string_ljust, 1, 2, {"width", "fillchar"}},
    {"rjust", string_rjust, 1, 2, {"width", "fillchar"}},
    {"zfill", string_zfill, 1, 1, {"width"}},
    {"expandtabs", string_expandtabs, 0, 1, {"tabsize"}},
    {"find", string_find, 1, 3, {"sub", "start", "end"}},
    {"rfind", string_rfind, 1, 3, {"sub", "start", "end"}},
    {"index", string_index, 1, 3, {"sub", "start", "end"}},
    {"rindex", string_rindex, 1, 3, {"sub", "start", "end"}},
    {"count", string_count, 1, 3, {"sub", "start", "end"}},
    {"startswith", string_startswith, 1, 3, {"prefix", "start", "end"}},
    {"endswith", string_endswith, 1, 3, {"suffix", "start", "end"}},
    {"removeprefix", string_removeprefix, 1, 1, {"prefix"}},
    {"removesuffix", string_removesuffix, 1, 1, {"suffix"}},
    {"replace", string_replace, 2, 3, {"old", "new", "count"}},
    {"split", string_split, 0, 2, {"sep", "maxsplit"}},
    {"rsplit", string_rsplit, 0, 2, {"sep", "maxsplit"}},
    {"splitlines", string_splitlines, 0, 1, {"keepends"}},
    {"partition", string_partition, 1, 1, {"sep"}},
    {"rpartition", string_rpartition, 1, 1, {"sep"}},
    {"join", string_join, 1, 1, {"iterable"}},
    {"format", string_format, 0, CHAT_VARIADIC, {0}},
    {"format_map", string_format_map, 1, 1, {"mapping"}},
    {0},
};

/* ---- lists -------------------------------------------------------------------------------------------------------------- */

METHOD(list_append)
{
    UNUSED;
    chat_list_push(rt, self.as.list, p[0]);
    return chat_none();
}

METHOD(list_extend)
{
    UNUSED;
    chat_list more = chat_items(rt, p[0]);
    for (size_t i = 0; i < more.n; i++)
        chat_list_push(rt, self.as.list, more.items[i]);
    return chat_none();
}

METHOD(list_insert)
{
    UNUSED;
    chat_list *l = self.as.list;
    int64_t at = chat_want_integer(rt, p[0], "index"), n = (int64_t)l->n;
    at = at < 0 ? BASE_MAX(at + n, 0) : BASE_MIN(at, n);
    chat_list_push(rt, l, p[1]);
    chat_spend(rt, (uint64_t)(n - at) * sizeof(chat_value));
    memmove(l->items + at + 1, l->items + at, (size_t)(n - at) * sizeof *l->items);
    l->items[at] = p[1];
    return chat_none();
}

static chat_value remove_at(chat_runtime *rt, chat_list *l, size_t at)
{
    chat_value v = l->items[at];
    chat_spend(rt, (l->n - at) * sizeof v);
    memmove(l->items + at, l->items + at + 1, (l->n - at - 1) * sizeof v);
    l->n--;
    return v;
}

METHOD(list_pop)
{
    UNUSED;
    chat_list *l = self.as.list;
    int64_t at = integer_or(rt, p[0], -1, "index");
    at += at < 0 ? (int64_t)l->n : 0;
    if (l->n == 0)
        chat_fail(rt, "pop from empty list");
    if (at < 0 || at >= (int64_t)l->n)
        chat_fail(rt, "pop index out of range");
    return remove_at(rt, l, (size_t)at);
}

static int64_t position(chat_runtime *rt, const chat_list *l, chat_value v)
{
    for (size_t i = 0; i < l->n; i++)
        if (chat_equal(rt, l->items[i], v))
            return (int64_t)i;
    return -1;
}

METHOD(list_remove)
{
    UNUSED;
    int64_t at = position(rt, self.as.list, p[0]);
    if (at < 0)
        chat_fail(rt, "list.remove(x): x not in list");
    remove_at(rt, self.as.list, (size_t)at);
    return chat_none();
}

METHOD(list_index)
{
    UNUSED;
    int64_t at = position(rt, self.as.list, p[0]);
    if (at < 0)
        chat_fail(rt, "the value is not in the list");
    return chat_int(at);
}

METHOD(list_count)
{
    UNUSED;
    int64_t n = 0;
    for (size_t i = 0; i < self.as.list->n; i++)
        n += chat_equal(rt, self.as.list->items[i], p[0]);
    return chat_int(n);
}

METHOD(list_clear)
{
    UNUSED;
    self.as.list->n = 0;
    return chat_none();
}

METHOD(list_reverse)
{
    UNUSED;
    chat_spend(rt, self.as.list->n * sizeof(chat_value));
    reverse(self.as.list);
    return chat_none();
}

METHOD(list_sort)
{
    UNUSED;
    chat_sort(rt, self.as.list, self.as.list->items, chat_given(p[0]) && chat_truth(p[0]));
    return chat_none();
}

METHOD(list_copy)
{
    UNUSED;
    chat_value out = chat_list_value(rt, 0);
    *out.as.list = chat_items(rt, self);
    return out;
}

const chat_builtin chat_methods_list[] = {
    {"append", list_append, 1, 1, {"object"}},
    {"extend", list_extend, 1, 1, {"iterable"}},
    {"insert", list_insert, 2, 2, {"index", "object"}},
    {"pop", list_pop, 0, 1, {"index"}},
    {"remove", list_remove, 1, 1, {"value"}},
    {"index", list_index, 1, 1, {"value"}},
    {"count", list_count, 1, 1, {"value"}},
    {"clear", list_clear, 0, 0, {0}},
    {"reverse", list_reverse, 0, 0, {0}},
    {"sort", list_sort, 0, 1, {"reverse"}},
    {"copy", list_copy, 0, 0, {0}},
    {0},
};

const chat_builtin chat_methods_tuple[] = {
    {"index", list_index, 1, 1, {"value"}},
    {"count", list_count, 1, 1, {"value"}},
    {0},
};

/* ---- dictionaries --------------------------------------------------------------------------------------------------------- */

static chat_value view(chat_runtime *rt, chat_value self, chat_view_kind kind)
{
    chat_view *v = chat_alloc(rt, sizeof *v);
    *v = (chat_view){self.as.dict, kind};
    return (chat_value){.kind = CHAT_V_VIEW, .as.view = v};
}

METHOD(dict_keys)
{
    UNUSED;
    return view(rt, self, CHAT_VIEW_KEYS);
}

METHOD(dict_values)
{
    UNUSED;
    return view(rt, self, CHAT_VIEW_VALUES);
}

METHOD(dict_items)
{
    UNUSED;
    return view(rt, self, CHAT_VIEW_ITEMS);
}

static chat_value *lookup(chat_runtime *rt, chat_value self, chat_value key)
{
    if (!chat_hashable(key))
        chat_fail(rt, "unhashable type: '%s'", chat_type_name(key));
    return chat_dict_get(rt, self.as.dict, key);
}

METHOD(dict_get)
{
    UNUSED;
    chat_value *v = lookup(rt, self, p[0]);
    return v ? *v : chat_given(p[1]) ? p[1] : chat_none();
}

METHOD(dict_pop)
{
    UNUSED;
    chat_value v;
    if (chat_dict_remove(rt, self.as.dict, p[0], &v))
        return v;
    if (!chat_given(p[1]))
        chat_fail(rt, "pop: the dictionary has no such key");
    return p[1];
}

METHOD(dict_popitem)
{
    UNUSED;
    chat_dict *d = self.as.dict;
    if (d->n == 0)
        chat_fail(rt, "popitem(): dictionary is empty");
    chat_value pair[2] = {d->entries[d->n - 1].key, chat_none()};
    chat_dict_remove(rt, d, pair[0], &pair[1]);
    return chat_tuple_value(rt, pair, 2);
}

METHOD(dict_setdefault)
{
    UNUSED;
    chat_value *v = lookup(rt, self, p[0]);
    if (v)
        return *v;
    chat_value missing = chat_given(p[1]) ? p[1] : chat_none();
    chat_dict_set(rt, self.as.dict, p[0], missing);
    return missing;
}

static void update(chat_runtime *rt, chat_dict *d, chat_value from)
{
    if (from.kind == CHAT_V_DICT) {
        for (size_t i = 0; i < from.as.dict->n; i++)
            chat_dict_set(rt, d, from.as.dict->entries[i].key, from.as.dict->entries[i].value);
        return;
    }
    chat_list items = chat_items(rt, from);
    for (size_t i = 0; i < items.n; i++) {
        chat_list pair = chat_items(rt, items.items[i]);
        if (pair.n != 2)
            chat_fail(rt, "dictionary update sequence element #%zu has length %zu; 2 is required",
                      i, pair.n);
        chat_dict_set(rt, d, pair.items[0], pair.items[1]);
    }
}

METHOD(dict_update)
{
    UNUSED;
    if (raw->n > 1)
        chat_fail(rt, "update expected at most 1 argument, got %zu", raw->n);
    if (raw->n)
        update(rt, self.as.dict, raw->items[0]);
    for (size_t i = 0; i < raw->n_keywords; i++) {
        str name = raw->keywords[i].name;
        chat_dict_set(rt, self.as.dict, chat_string(rt, name.data, name.length),
                      raw->keywords[i].value);
    }
    return chat_none();
}

METHOD(dict_clear)
{
    UNUSED;
    *self.as.dict = (chat_dict){0};
    return chat_none();
}

METHOD(dict_copy)
{
    UNUSED;
    chat_value out = chat_dict_value(rt);
    update(rt, out.as.dict, self);
    return out;
}

const chat_builtin chat_methods_dict[] = {
    {"keys", dict_keys, 0, 0, {0}},
    {"values", dict_values, 0, 0, {0}},
    {"items", dict_items, 0, 0, {0}},
    {"get", dict_get, 1, 2, {"key", "default"}},
    {"pop", dict_pop, 1, 2, {"key", "default"}},
    {"popitem", dict_popitem, 0, 0, {0}},
    {"setdefault", dict_setdefault, 1, 2, {"key", "default"}},
    {"update", dict_update, 0, CHAT_VARIADIC, {0}},
    {"clear", dict_clear, 0, 0, {0}},
    {"copy", dict_copy, 0, 0, {0}},
    {0},
};

/* ---- the rest ------------------------------------------------------------------------------------------------------------- */

METHOD(float_is_integer)
{
    UNUSED;
    return chat_bool(isfinite(self.as.number) && floor(self.as.number) == self.as.number);
}

const chat_builtin chat_methods_float[] = {{"is_integer", float_is_integer, 0, 0, {0}}, {0}};

METHOD(cycler_next)
{
    UNUSED;
    chat_cycler *c = self.as.cycler;
    chat_value v = c->items[c->position];
    c->position = (c->position + 1) % c->n;
    return v;
}

METHOD(cycler_reset)
{
    UNUSED;
    self.as.cycler->position = 0;
    return chat_none();
}

const chat_builtin chat_methods_cycler[] = {
    {"next", cycler_next, 0, 0, {0}}, {"reset", cycler_reset, 0, 0, {0}}, {0}};

METHOD(loop_cycle)
{
    UNUSED;
    return raw->items[self.as.loop->index0 % raw->n];
}

METHOD(loop_changed)
{
    UNUSED;
    chat_loop *l = self.as.loop;
    bool same = l->has_changed && l->changed.n == raw->n;
    for (size_t i = 0; same && i < raw->n; i++)
        same = chat_equal(rt, l->changed.items[i], raw->items[i]);
    l->changed = *raw;
    l->has_changed = true;
    return chat_bool(!same);
}

const chat_builtin chat_methods_loop[] = {{"cycle", loop_cycle, 1, CHAT_VARIADIC, {0}},
                                          {"changed", loop_changed, 0, CHAT_VARIADIC, {0}},
                                          {0}};
