/*
 * Filters over sequences and mappings, as jinja2's builtin ones. Those that are lazy there give a generator here too (always true,
 * read once), though it is filled at once. Not here: random, which no prompt may depend on.
 */
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

static bool given(chat_value v)
{
    return chat_given(v) && v.kind != CHAT_V_NONE;
}

static chat_value list_of(chat_runtime *rt, chat_list items)
{
    chat_value v = chat_list_value(rt, 0);
    *v.as.list = items;
    return v;
}

/* ---- attributes ----------------------------------------------------------------------------------------------------------- */

static bool all_digits(str s)
{
    for (size_t i = 0; i < s.length; i++)
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
    return s.length > 0;
}

/* "a.b.0" of an item. missing: what an undefined part becomes (ABSENT: stays undefined). */
static chat_value attribute_path(chat_runtime *rt, chat_value item, str path, chat_value missing)
{
    for (size_t from = 0; from <= path.length;) {
        size_t to = from;
        int64_t at;
        while (to < path.length && path.data[to] != '.')
            to++;
        str part = {path.data + from, to - from};
        bool index = all_digits(part) && chat_parse_int(part, 10, &at);
        item =
            chat_getitem(rt, item, index ? chat_int(at) : chat_string(rt, part.data, part.length));
        if (item.kind == CHAT_V_UNDEFINED && given(missing))
            item = missing;
        from = to + 1;
    }
    return item;
}

static chat_value get_attribute(chat_runtime *rt, chat_value item, chat_value attribute,
                                chat_value missing)
{
    if (!given(attribute))
        return item;
    if (attribute.kind == CHAT_V_STRING)
        return attribute_path(rt, item, chat_str(attribute), missing);
    item = chat_getitem(rt, item, attribute);
    return item.kind == CHAT_V_UNDEFINED && given(missing) ? missing : item;
}

static chat_value fold_case(chat_runtime *rt, chat_value v, bool case_sensitive)
{
    return v.kind == CHAT_V_STRING && !case_sensitive ? chat_text_case(rt, chat_str(v), 'l') : v;
}

static chat_value *sort_keys(chat_runtime *rt, const chat_list *items, chat_value attribute,
                             bool case_sensitive, chat_value missing)
{
    chat_value *keys = chat_alloc_array(rt, items->n + 1, sizeof *keys);
    for (size_t i = 0; i < items->n; i++)
        keys[i] =
            fold_case(rt, get_attribute(rt, items->items[i], attribute, missing), case_sensitive);
    return keys;
}

/* ---- ends and lengths ------------------------------------------------------------------------------------------------------- */

FILTER(filter_length)
{
    UNUSED;
    int64_t n;
    if (!chat_length(self, &n))
        chat_fail(rt, "object of type '%s' has no len()", chat_type_name(self));
    return chat_int(n);
}

FILTER(filter_first)
{
    UNUSED;
    if (self.kind == CHAT_V_GENERATOR) { /* takes one item only */
        chat_generator *g = self.as.generator;
        if (g->position < g->items.n)
            return g->items.items[g->position++];
    }
    chat_list items = chat_items(rt, self);
    return items.n ? items.items[0] : chat_undefined_hint(rt, "No first item, sequence was empty.");
}

FILTER(filter_last)
{
    UNUSED;
    if (self.kind == CHAT_V_GENERATOR)
        chat_fail(rt, "'generator' object is not reversible");
    chat_list items = chat_items(rt, self);
    return items.n ? items.items[items.n - 1]
                   : chat_undefined_hint(rt, "No last item, sequence was empty.");
}

FILTER(filter_list)
{
    UNUSED;
    return list_of(rt, chat_items(rt, self));
}

FILTER(filter_reverse)
{
    UNUSED;
    if (self.kind == CHAT_V_STRING)
        return chat_getslice(rt, self, chat_none(), chat_none(), chat_int(-1));
    bool generator = self.kind == CHAT_V_GENERATOR;
    chat_list items = chat_items(rt, self);
    for (size_t i = 0; i < items.n / 2; i++) {
        chat_value swap = items.items[i];
        items.items[i] = items.items[items.n - 1 - i];
        items.items[items.n - 1 - i] = swap;
    }
    return generator ? list_of(rt, items) : chat_generator_value(rt, items);
}

FILTER(filter_join)
{
    UNUSED;
    chat_capture c;
    chat_value glue = chat_given(p[0]) ? chat_to_string(rt, p[0]) : chat_string_literal("");
    chat_list items = chat_items(rt, self);
    chat_value none = {.kind = CHAT_V_ABSENT};
    chat_capture_begin(rt, &c);
    for (size_t i = 0; i < items.n; i++) {
        if (i)
            chat_write(rt, glue.as.text, glue.length);
        chat_print(rt, &c.text, get_attribute(rt, items.items[i], p[1], none));
        chat_capture_check(rt);
    }
    return chat_capture_end(rt, &c);
}

FILTER(filter_default)
{
    UNUSED;
    bool missing = self.kind == CHAT_V_UNDEFINED || (flag(p[1]) && !chat_truth(self));
    return !missing ? self : chat_given(p[0]) ? p[0] : chat_string_literal("");
}

/* ---- picking and ordering ------------------------------------------------------------------------------------------------------ */

FILTER(filter_sort)
{
    UNUSED;
    chat_list items = chat_items(rt, self);
    chat_value none = {.kind = CHAT_V_ABSENT};
    bool sensitive = flag(p[1]);
    if (given(p[2]) && p[2].kind == CHAT_V_STRING && memchr(p[2].as.text, ',', p[2].length)) {
        /* several attributes: the key is the tuple of them */
        chat_args comma = {0};
        chat_value separator = chat_string_literal(",");
        comma.items = &separator;
        comma.n = 1;
        const chat_builtin *split = chat_find_builtin(chat_methods_string, str_from("split"));
        chat_list parts = *chat_call_builtin(rt, split, p[2], &comma).as.list;
        chat_value *keys = chat_alloc_array(rt, items.n + 1, sizeof *keys);
        for (size_t i = 0; i < items.n; i++) {
            keys[i] = chat_list_value(rt, parts.n);
            for (size_t k = 0; k < parts.n; k++)
                chat_list_push(rt, keys[i].as.list,
                               fold_case(rt,
                                         get_attribute(rt, items.items[i], parts.items[k], none),
                                         sensitive));
        }
        chat_sort(rt, &items, keys, flag(p[0]));
        return list_of(rt, items);
    }
    chat_sort(rt, &items, sort_keys(rt, &items, p[2], sensitive, none), flag(p[0]));
    return list_of(rt, items);
}

FILTER(filter_unique)
{
    UNUSED;
    chat_list items = chat_items(rt, self), out = {0};
    chat_value none = {.kind = CHAT_V_ABSENT}, seen = chat_dict_value(rt);
    chat_value *keys = sort_keys(rt, &items, p[1], flag(p[0]), none);
    for (size_t i = 0; i < items.n; i++) {
        size_t before = seen.as.dict->n;
        chat_dict_set(rt, seen.as.dict, keys[i], chat_none());
        if (seen.as.dict->n > before)
            chat_list_push(rt, &out, items.items[i]);
    }
    return chat_generator_value(rt, out);
}

static chat_value extreme(chat_runtime *rt, chat_value self, const chat_value *p, bool largest)
{
    chat_list items = chat_items(rt, self);
    chat_value none = {.kind = CHAT_V_ABSENT};
    if (items.n == 0)
        return chat_undefined_hint(rt, "No aggregated item, sequence was empty.");
    chat_value *keys = sort_keys(rt, &items, p[1], flag(p[0]), none);
    size_t best = 0;
    for (size_t i = 1; i < items.n; i++) {
        int c = largest ? chat_compare(rt, keys[i], keys[best], ">")
                        : -chat_compare(rt, keys[i], keys[best], "<");
        if (c == 1)
            best = i;
    }
    return items.items[best];
}

FILTER(filter_min)
{
    UNUSED;
    return extreme(rt, self, p, false);
}

FILTER(filter_max)
{
    UNUSED;
    return extreme(rt, self, p, true);
}

FILTER(filter_sum)
{
    UNUSED;
    chat_list items = chat_items(rt, self);
    chat_value total = chat_given(p[1]) ? p[1] : chat_int(0), none = {.kind = CHAT_V_ABSENT};
    if (total.kind == CHAT_V_STRING)
        chat_fail(rt, "sum() can't sum strings [use ''.join(seq) instead]");
    for (size_t i = 0; i < items.n; i++)
        total = chat_binary(rt, CHAT_OP_ADD, total, get_attribute(rt, items.items[i], p[0], none));
    return total;
}

/* ---- grouping ------------------------------------------------------------------------------------------------------------------ */

FILTER(filter_groupby)
{
    UNUSED;
    chat_list items = chat_items(rt, self), out = {0}, order = {0};
    bool sensitive = flag(p[2]);
    chat_value *keys = sort_keys(rt, &items, p[0], sensitive, p[1]);
    for (size_t i = 0; i < items.n; i++)
        chat_list_push(rt, &order, chat_int((int64_t)i));
    chat_sort(rt, &order, keys, false);
    for (size_t i = 0; i < items.n;) {
        size_t at = (size_t)order.items[i].as.integer;
        chat_value group[2] = {keys[at], chat_list_value(rt, 0)};
        if (!sensitive)
            group[0] = get_attribute(rt, items.items[at], p[0], p[1]);
        for (; i < items.n && chat_equal(rt, keys[order.items[i].as.integer], keys[at]); i++)
            chat_list_push(rt, group[1].as.list, items.items[order.items[i].as.integer]);
        chat_value tuple = chat_tuple_value(rt, group, 2);
        if (group[1].as.list->n == 0)
            chat_fail(rt, "groupby: a key that does not equal itself");
        tuple.flags = CHAT_FLAG_GROUP;
        chat_list_push(rt, &out, tuple);
    }
    return list_of(rt, out);
}

FILTER(filter_batch)
{
    UNUSED;
    int64_t size = chat_want_integer(rt, p[0], "linecount");
    chat_list items = chat_items(rt, self), out = {0};
    chat_value line = chat_none();
    for (size_t i = 0; i < items.n; i++) {
        if (line.kind == CHAT_V_NONE || (int64_t)line.as.list->n == size) {
            line = chat_list_value(rt, 0);
            chat_list_push(rt, &out, line);
        }
        chat_list_push(rt, line.as.list, items.items[i]);
    }
    while (given(p[1]) && line.kind == CHAT_V_LIST && (int64_t)line.as.list->n < size) {
        chat_spend(rt, 0);
        chat_list_push(rt, line.as.list, p[1]);
    }
    return chat_generator_value(rt, out);
}

FILTER(filter_slice)
{
    UNUSED;
    int64_t slices = chat_want_integer(rt, p[0], "slices");
    chat_list items = chat_items(rt, self), out = {0};
    if (slices == 0)
        chat_fail(rt, "integer division or modulo by zero");
    size_t at = 0;
    for (int64_t i = 0; i < slices; i++) {
        bool extra = i < (int64_t)items.n % slices;
        size_t n = items.n / (size_t)slices + extra;
        chat_value part = chat_list_value(rt, n + 1);
        chat_spend(rt, n * sizeof part);
        for (size_t k = 0; k < n; k++)
            chat_list_push(rt, part.as.list, items.items[at++]);
        if (given(p[1]) && !extra)
            chat_list_push(rt, part.as.list, p[1]);
        chat_list_push(rt, &out, part);
    }
    return chat_generator_value(rt, out);
}

/* ---- mappings ------------------------------------------------------------------------------------------------------------------ */

static chat_list pairs_of(chat_runtime *rt, const chat_dict *d)
{
    chat_list out = {0};
    chat_spend(rt, d->n * sizeof(chat_entry));
    for (size_t i = 0; i < d->n; i++) {
        chat_value pair[2] = {d->entries[i].key, d->entries[i].value};
        chat_list_push(rt, &out, chat_tuple_value(rt, pair, 2));
    }
    return out;
}

FILTER(filter_items)
{
    UNUSED;
    chat_list none = {0};
    if (self.kind == CHAT_V_UNDEFINED)
        return chat_generator_value(rt, none);
    if (self.kind != CHAT_V_DICT)
        chat_fail(rt, "Can only get item pairs from a mapping.");
    return chat_generator_value(rt, pairs_of(rt, self.as.dict));
}

FILTER(filter_dictsort)
{
    UNUSED;
    str by = chat_given(p[1]) ? chat_want_string(rt, p[1], "by") : str_from("key");
    if (self.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, self);
    if (self.kind != CHAT_V_DICT)
        chat_fail(rt, "dictsort: a mapping is expected, got '%s'", chat_type_name(self));
    if (!str_is(by, "key") && !str_is(by, "value"))
        chat_fail(rt, "You can only sort by either \"key\" or \"value\"");
    chat_list items = pairs_of(rt, self.as.dict);
    chat_value none = {.kind = CHAT_V_ABSENT};
    chat_value *keys = sort_keys(rt, &items, chat_int(str_is(by, "value")), flag(p[0]), none);
    chat_sort(rt, &items, keys, flag(p[2]));
    return list_of(rt, items);
}

FILTER(filter_attr)
{
    UNUSED;
    chat_value name = chat_to_string(rt, p[0]);
    if (self.kind == CHAT_V_DICT) { /* attributes only, not members */
        const chat_builtin *method = chat_find_builtin(chat_methods_dict, chat_str(name));
        if (!method)
            return chat_undefined_value(rt, chat_type_name(self), chat_str(name));
    }
    return chat_getattr(rt, self, chat_str(name));
}

/* ---- map, select, reject ----------------------------------------------------------------------------------------------------------- */

static chat_args rest_of(const chat_args *raw, size_t skip)
{
    chat_args rest = *raw;
    skip = BASE_MIN(skip, raw->n);
    rest.items = skip ? rest.items + skip : rest.items; /* NULL + 0 is undefined */
    rest.n -= skip;
    return rest;
}

static const chat_builtin *named(chat_runtime *rt, chat_value name, bool is_filter)
{
    str text =
        chat_want_string(rt, name, is_filter ? "the name of a filter" : "the name of a test");
    const chat_builtin *b = is_filter ? chat_find_filter(text) : chat_find_test(text);
    if (!b)
        chat_fail(rt, "no %s named '%.*s'", is_filter ? "filter" : "test",
                  (int)BASE_MIN(text.length, (size_t)100), text.data);
    return b;
}

static chat_value keyword(const chat_args *raw, const char *name)
{
    for (size_t i = 0; i < raw->n_keywords; i++)
        if (str_is(raw->keywords[i].name, name))
            return raw->keywords[i].value;
    return (chat_value){.kind = CHAT_V_ABSENT};
}

FILTER(filter_map)
{
    UNUSED;
    chat_list out = {0};
    chat_value attribute = keyword(raw, "attribute");
    if (!chat_truth(self))
        return chat_generator_value(rt, out);
    chat_list items = chat_items(rt, self);
    bool by_attribute = raw->n == 0 && chat_given(attribute);
    if (!by_attribute && raw->n == 0)
        chat_fail(rt, "map requires a filter argument");
    const chat_builtin *filter = by_attribute ? NULL : named(rt, raw->items[0], true);
    chat_args args = rest_of(raw, 1);
    chat_enter(rt);
    for (size_t i = 0; i < items.n; i++)
        chat_list_push(rt, &out,
                       by_attribute
                           ? get_attribute(rt, items.items[i], attribute, keyword(raw, "default"))
                           : chat_call_builtin(rt, filter, items.items[i], &args));
    rt->depth--;
    return chat_generator_value(rt, out);
}

static chat_value pick(chat_runtime *rt, chat_value self, const chat_args *raw, bool keep,
                       bool by_attribute)
{
    chat_list out = {0};
    chat_value none = {.kind = CHAT_V_ABSENT};
    if (by_attribute && raw->n == 0)
        chat_fail(rt, "Missing parameter for attribute name");
    if (!chat_truth(self))
        return chat_generator_value(rt, out);
    chat_list items = chat_items(rt, self);
    const chat_builtin *test =
        raw->n > by_attribute ? named(rt, raw->items[by_attribute], false) : NULL;
    chat_args args = rest_of(raw, (size_t)by_attribute + 1);
    chat_enter(rt);
    for (size_t i = 0; i < items.n; i++) {
        chat_value v =
            by_attribute ? get_attribute(rt, items.items[i], raw->items[0], none) : items.items[i];
        bool yes = chat_truth(test ? chat_call_builtin(rt, test, v, &args) : v);
        if (yes == keep)
            chat_list_push(rt, &out, items.items[i]);
    }
    rt->depth--;
    return chat_generator_value(rt, out);
}

FILTER(filter_select)
{
    UNUSED;
    return pick(rt, self, raw, true, false);
}

FILTER(filter_reject)
{
    UNUSED;
    return pick(rt, self, raw, false, false);
}

FILTER(filter_selectattr)
{
    UNUSED;
    return pick(rt, self, raw, true, true);
}

FILTER(filter_rejectattr)
{
    UNUSED;
    return pick(rt, self, raw, false, true);
}

const chat_builtin chat_filters_items[] = {
    {"length", filter_length, 0, 0, {0}},
    {"count", filter_length, 0, 0, {0}},
    {"first", filter_first, 0, 0, {0}},
    {"last", filter_last, 0, 0, {0}},
    {"list", filter_list, 0, 0, {0}},
    {"reverse", filter_reverse, 0, 0, {0}},
    {"join", filter_join, 0, 2, {"d", "attribute"}},
    {"default", filter_default, 0, 2, {"default_value", "boolean"}},
    {"d", filter_default, 0, 2, {"default_value", "boolean"}},
    {"sort", filter_sort, 0, 3, {"reverse", "case_sensitive", "attribute"}},
    {"unique", filter_unique, 0, 2, {"case_sensitive", "attribute"}},
    {"min", filter_min, 0, 2, {"case_sensitive", "attribute"}},
    {"max", filter_max, 0, 2, {"case_sensitive", "attribute"}},
    {"sum", filter_sum, 0, 2, {"attribute", "start"}},
    {"groupby", filter_groupby, 1, 3, {"attribute", "default", "case_sensitive"}},
    {"batch", filter_batch, 1, 2, {"linecount", "fill_with"}},
    {"slice", filter_slice, 1, 2, {"slices", "fill_with"}},
    {"items", filter_items, 0, 0, {0}},
    {"dictsort", filter_dictsort, 0, 3, {"case_sensitive", "by", "reverse"}},
    {"attr", filter_attr, 1, 1, {"name"}},
    {"map", filter_map, 0, CHAT_VARIADIC, {0}},
    {"select", filter_select, 0, CHAT_VARIADIC, {0}},
    {"reject", filter_reject, 0, CHAT_VARIADIC, {0}},
    {"selectattr", filter_selectattr, 0, CHAT_VARIADIC, {0}},
    {"rejectattr", filter_rejectattr, 0, CHAT_VARIADIC, {0}},
    {0},
};
