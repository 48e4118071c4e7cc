/*
 * Values: making them in the render's arena, dictionaries, truth, equality, order, hashes. Python's rules: 1 == 1.0 == True, order
 * only among numbers, strings and sequences, dictionaries keep insertion order.
 * Not here: printing (jinja_print.c), attributes and arithmetic (jinja_access.c, jinja_arithmetic.c).
 */
#include <math.h>
#include <string.h>

#include "chat/jinja.h"

void *chat_alloc_array(chat_runtime *rt, size_t n, size_t size)
{
    uint64_t bytes;
    if (!checked_mul(n, size, &bytes))
        chat_fail_status(rt, STATUS_TOO_LARGE, "more memory than the budget allows");
    return chat_alloc(rt, bytes);
}

chat_value chat_string(chat_runtime *rt, const char *bytes, size_t n)
{
    if (n > UINT32_MAX)
        chat_fail_status(rt, STATUS_TOO_LARGE, "a string of more than 4 GiB");
    unsigned char high = 0;
    for (size_t i = 0; i < n; i++)
        high |= (unsigned char)bytes[i];
    return (chat_value){.kind = CHAT_V_STRING,
                        .flags = high < 0x80 ? CHAT_FLAG_ASCII : 0,
                        .length = (uint32_t)n,
                        .as.text = bytes};
}

chat_value chat_string_copy(chat_runtime *rt, const char *bytes, size_t n)
{
    chat_spend(rt, n);
    char *copy = chat_alloc(rt, n + 1);
    if (n)
        memcpy(copy, bytes, n);
    copy[n] = 0;
    return chat_string(rt, copy, n);
}

chat_value chat_string_literal(const char *s)
{
    return (chat_value){.kind = CHAT_V_STRING,
                        .flags = CHAT_FLAG_ASCII,
                        .length = (uint32_t)strlen(s),
                        .as.text = s};
}

static chat_list *new_list(chat_runtime *rt, size_t capacity)
{
    chat_list *l = chat_alloc(rt, sizeof *l);
    *l = (chat_list){.capacity = capacity};
    if (capacity)
        l->items = chat_alloc_array(rt, capacity, sizeof *l->items);
    return l;
}

chat_value chat_list_value(chat_runtime *rt, size_t capacity)
{
    return (chat_value){.kind = CHAT_V_LIST, .as.list = new_list(rt, capacity)};
}

chat_value chat_tuple_value(chat_runtime *rt, const chat_value *items, size_t n)
{
    chat_list *l = new_list(rt, n);
    if (n)
        memcpy(l->items, items, n * sizeof *items);
    l->n = n;
    return (chat_value){.kind = CHAT_V_TUPLE, .as.list = l};
}

chat_value chat_generator_value(chat_runtime *rt, chat_list items)
{
    chat_generator *g = chat_alloc(rt, sizeof *g);
    *g = (chat_generator){items, 0};
    return (chat_value){.kind = CHAT_V_GENERATOR, .as.generator = g};
}

chat_value chat_dict_value(chat_runtime *rt)
{
    chat_dict *d = chat_alloc(rt, sizeof *d);
    *d = (chat_dict){0};
    return (chat_value){.kind = CHAT_V_DICT, .as.dict = d};
}

chat_value chat_undefined_value(chat_runtime *rt, const char *owner, str name)
{
    chat_undefined *u = chat_alloc(rt, sizeof *u);
    *u = (chat_undefined){owner, name};
    return (chat_value){.kind = CHAT_V_UNDEFINED, .as.undefined = u};
}

chat_value chat_undefined_hint(chat_runtime *rt, const char *hint)
{
    return chat_undefined_value(rt, hint, (str){NULL, 0});
}

void chat_undefined_fail(chat_runtime *rt, chat_value v)
{
    const chat_undefined *u = v.as.undefined;
    int n = (int)BASE_MIN(u->name.length, (size_t)100);
    if (!u->name.data)
        chat_fail(rt, "%s", u->owner);
    if (!u->owner)
        chat_fail(rt, "'%.*s' is undefined", n, u->name.data);
    chat_fail(rt, "'%s object' has no attribute '%.*s'", u->owner, n, u->name.data);
}

void chat_list_push(chat_runtime *rt, chat_list *l, chat_value v)
{
    if (l->n == l->capacity) {
        size_t capacity = l->capacity ? l->capacity * 2 : 4;
        chat_value *more = chat_alloc_array(rt, capacity, sizeof *more);
        if (l->n)
            memcpy(more, l->items, l->n * sizeof *more);
        l->items = more;
        l->capacity = capacity;
    }
    l->items[l->n++] = v;
}

/* ---- dictionaries --------------------------------------------------------------------------------------------------- */

bool chat_hashable(chat_value v)
{
    switch (v.kind) {
    case CHAT_V_LIST:
    case CHAT_V_DICT:
    case CHAT_V_VIEW:
        return false;
    case CHAT_V_TUPLE:
        for (size_t i = 0; i < v.as.list->n; i++) {
            chat_value item = v.as.list->items[i];
            if (item.kind == CHAT_V_TUPLE ||
                !chat_hashable(item)) /* nested tuples as keys: nobody does that */
                return false;
        }
        return true;
    default:
        return true;
    }
}

uint64_t chat_hash(chat_value v)
{
    double number;
    if (v.kind == CHAT_V_STRING || v.kind == CHAT_V_BIG)
        return hash_bytes(v.as.text, v.length, 1);
    if (chat_number(v, &number)) {
        uint64_t bits;
        number += 0.0; /* -0.0 → 0.0 */
        memcpy(&bits, &number, sizeof bits);
        return hash_u64(bits, 2);
    }
    if (v.kind == CHAT_V_TUPLE) {
        uint64_t h = 3;
        for (size_t i = 0; i < v.as.list->n; i++)
            h = hash_u64(chat_hash(v.as.list->items[i]), h);
        return h;
    }
    if (v.kind == CHAT_V_NONE || v.kind == CHAT_V_UNDEFINED)
        return v.kind;
    return hash_u64((uint64_t)(uintptr_t)v.as.list, 4);
}

static void rebuild_slots(chat_runtime *rt, chat_dict *d)
{
    if (d->n_slots < d->capacity * 2) {
        d->n_slots = d->capacity * 2;
        d->slots = chat_alloc_array(rt, d->n_slots, sizeof *d->slots);
    }
    memset(d->slots, 0, d->n_slots * sizeof *d->slots);
    for (size_t i = 0; i < d->n; i++) {
        size_t at = d->entries[i].hash & (d->n_slots - 1);
        while (d->slots[at])
            at = (at + 1) & (d->n_slots - 1);
        d->slots[at] = (uint32_t)i + 1;
    }
}

static bool same_string(const chat_entry *e, str key, uint64_t hash)
{
    return e->hash == hash && e->key.kind == CHAT_V_STRING && str_equal(chat_str(e->key), key);
}

chat_value *chat_dict_get_str(const chat_dict *d, str key)
{
    uint64_t hash = hash_bytes(key.data, key.length, 1);
    if (!d->slots) {
        for (size_t i = 0; i < d->n; i++)
            if (same_string(&d->entries[i], key, hash))
                return &d->entries[i].value;
        return NULL;
    }
    for (size_t at = hash & (d->n_slots - 1); d->slots[at]; at = (at + 1) & (d->n_slots - 1))
        if (same_string(&d->entries[d->slots[at] - 1], key, hash))
            return &d->entries[d->slots[at] - 1].value;
    return NULL;
}

static chat_entry *find_entry(chat_runtime *rt, const chat_dict *d, chat_value key, uint64_t hash)
{
    if (!d->slots) {
        for (size_t i = 0; i < d->n; i++)
            if (d->entries[i].hash == hash && chat_equal(rt, d->entries[i].key, key))
                return &d->entries[i];
        return NULL;
    }
    for (size_t at = hash & (d->n_slots - 1); d->slots[at]; at = (at + 1) & (d->n_slots - 1)) {
        chat_entry *e = &d->entries[d->slots[at] - 1];
        if (e->hash == hash && chat_equal(rt, e->key, key))
            return e;
    }
    return NULL;
}

chat_value *chat_dict_get(chat_runtime *rt, const chat_dict *d, chat_value key)
{
    if (key.kind == CHAT_V_STRING)
        return chat_dict_get_str(d, chat_str(key));
    if (!chat_hashable(key))
        return NULL;
    chat_entry *e = find_entry(rt, d, key, chat_hash(key));
    return e ? &e->value : NULL;
}

void chat_dict_set(chat_runtime *rt, chat_dict *d, chat_value key, chat_value v)
{
    if (!chat_hashable(key))
        chat_fail(rt, "unhashable type: '%s'", chat_type_name(key));
    chat_value *old = chat_dict_get(rt, d, key);
    if (old) {
        *old = v;
        return;
    }
    uint64_t hash = chat_hash(key);
    if (d->n == d->capacity) {
        size_t capacity = d->capacity ? d->capacity * 2 : 8;
        if (capacity > UINT32_MAX / 4)
            chat_fail_status(rt, STATUS_TOO_LARGE, "a dictionary with too many members");
        chat_entry *more = chat_alloc_array(rt, capacity, sizeof *more);
        if (d->n)
            memcpy(more, d->entries, d->n * sizeof *more);
        d->entries = more;
        d->capacity = capacity;
        if (capacity > 8)
            rebuild_slots(rt, d);
    }
    d->entries[d->n] = (chat_entry){key, v, hash};
    if (d->slots) {
        size_t at = hash & (d->n_slots - 1);
        while (d->slots[at])
            at = (at + 1) & (d->n_slots - 1);
        d->slots[at] = (uint32_t)d->n + 1;
    }
    d->n++;
}

bool chat_dict_remove(chat_runtime *rt, chat_dict *d, chat_value key, chat_value *out)
{
    chat_value *v = chat_dict_get(rt, d, key);
    if (!v)
        return false;
    chat_entry *e = (chat_entry *)((char *)v - offsetof(chat_entry, value));
    size_t at = (size_t)(e - d->entries);
    *out = *v;
    chat_spend(rt, (d->n - at) * sizeof *e);
    memmove(e, e + 1, (d->n - at - 1) * sizeof *e);
    d->n--;
    if (d->slots)
        rebuild_slots(rt, d);
    return true;
}

/* ---- questions ------------------------------------------------------------------------------------------------------ */

const char *chat_type_name(chat_value v)
{
    static const char *const names[] = {
        "missing",   "Undefined", "NoneType",    "bool",   "int",       "int",   "float",
        "str",       "list",      "tuple",       "dict",   "Namespace", "range", "dict_items",
        "generator", "function",  "LoopContext", "Cycler", "Joiner"};
    if (v.kind == CHAT_V_VIEW)
        return v.as.view->kind == CHAT_VIEW_KEYS     ? "dict_keys"
               : v.as.view->kind == CHAT_VIEW_VALUES ? "dict_values"
                                                     : "dict_items";
    if (v.kind == CHAT_V_FUNCTION && !v.as.function->builtin)
        return "Macro";
    if (v.kind == CHAT_V_STRING && (v.flags & CHAT_FLAG_MARKUP))
        return "Markup";
    return names[v.kind];
}

bool chat_truth(chat_value v)
{
    int64_t n;
    switch (v.kind) {
    case CHAT_V_ABSENT:
    case CHAT_V_UNDEFINED:
    case CHAT_V_NONE:
        return false;
    case CHAT_V_BOOL:
        return v.as.boolean;
    case CHAT_V_INT:
        return v.as.integer != 0;
    case CHAT_V_FLOAT:
        return v.as.number != 0;
    case CHAT_V_STRING:
        return v.length > 0;
    case CHAT_V_LOOP:
        return true;
    default:
        return chat_length(v, &n) ? n > 0 : true;
    }
}

bool chat_integer(chat_value v, int64_t *out)
{
    if (v.kind == CHAT_V_INT)
        *out = v.as.integer;
    else if (v.kind == CHAT_V_BOOL)
        *out = v.as.boolean;
    else
        return false;
    return true;
}

bool chat_number(chat_value v, double *out)
{
    int64_t i;
    if (v.kind == CHAT_V_FLOAT)
        *out = v.as.number;
    else if (v.kind == CHAT_V_BIG)
        *out = chat_parse_double(v.as.text, v.length);
    else if (chat_integer(v, &i))
        *out = (double)i;
    else
        return false;
    return true;
}

size_t chat_string_length(chat_value v)
{
    return v.flags & CHAT_FLAG_ASCII ? v.length : chat_utf8_length(v.as.text, v.length);
}

bool chat_length(chat_value v, int64_t *out)
{
    switch (v.kind) {
    case CHAT_V_UNDEFINED:
        *out = 0;
        return true;
    case CHAT_V_STRING:
        *out = (int64_t)chat_string_length(v);
        return true;
    case CHAT_V_LIST:
    case CHAT_V_TUPLE:
        *out = (int64_t)v.as.list->n;
        return true;
    case CHAT_V_DICT:
        *out = (int64_t)v.as.dict->n;
        return true;
    case CHAT_V_VIEW:
        *out = (int64_t)v.as.view->dict->n;
        return true;
    case CHAT_V_RANGE:
        *out = v.as.range->n;
        return true;
    case CHAT_V_LOOP:
        *out = (int64_t)v.as.loop->n;
        return true;
    default:
        return false;
    }
}

int64_t chat_want_integer(chat_runtime *rt, chat_value v, const char *what)
{
    int64_t i;
    if (v.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, v);
    if (!chat_integer(v, &i))
        chat_fail(rt, "%s: an integer is expected, got '%s'", what, chat_type_name(v));
    return i;
}

str chat_want_string(chat_runtime *rt, chat_value v, const char *what)
{
    if (v.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, v);
    if (v.kind != CHAT_V_STRING)
        chat_fail(rt, "%s: a string is expected, got '%s'", what, chat_type_name(v));
    return chat_str(v);
}

bool chat_iterable(chat_value v)
{
    switch (v.kind) {
    case CHAT_V_UNDEFINED:
    case CHAT_V_STRING:
    case CHAT_V_LIST:
    case CHAT_V_TUPLE:
    case CHAT_V_DICT:
    case CHAT_V_RANGE:
    case CHAT_V_VIEW:
    case CHAT_V_GENERATOR:
    case CHAT_V_LOOP:
        return true;
    default:
        return false;
    }
}

static void push_characters(chat_runtime *rt, chat_list *out, chat_value v)
{
    const char *p = v.as.text, *end = p + v.length;
    while (p < end) {
        const char *from = p;
        chat_utf8_next(&p, end);
        chat_list_push(rt, out, chat_string(rt, from, (size_t)(p - from)));
    }
}

static void push_view(chat_runtime *rt, chat_list *out, const chat_dict *d, chat_view_kind kind)
{
    for (size_t i = 0; i < d->n; i++) {
        chat_value both[2] = {d->entries[i].key, d->entries[i].value};
        chat_list_push(rt, out,
                       kind == CHAT_VIEW_ITEMS ? chat_tuple_value(rt, both, 2) : both[kind]);
    }
}

chat_list chat_items(chat_runtime *rt, chat_value v)
{
    chat_list out = {0};
    int64_t n;
    chat_spend(rt, chat_length(v, &n) ? (uint64_t)n * sizeof(chat_value) : 0);
    switch (v.kind) {
    case CHAT_V_UNDEFINED:
        break;
    case CHAT_V_STRING:
        push_characters(rt, &out, v);
        break;
    case CHAT_V_LIST:
    case CHAT_V_TUPLE:
        for (size_t i = 0; i < v.as.list->n; i++)
            chat_list_push(rt, &out, v.as.list->items[i]);
        break;
    case CHAT_V_DICT:
        push_view(rt, &out, v.as.dict, CHAT_VIEW_KEYS);
        break;
    case CHAT_V_VIEW:
        push_view(rt, &out, v.as.view->dict, v.as.view->kind);
        break;
    case CHAT_V_RANGE:
        for (int64_t i = 0; i < v.as.range->n; i++)
            chat_list_push(rt, &out, chat_int(v.as.range->start + i * v.as.range->step));
        break;
    case CHAT_V_GENERATOR: {
        chat_generator *g = v.as.generator;
        for (; g->position < g->items.n; g->position++)
            chat_list_push(rt, &out, g->items.items[g->position]);
        break;
    }
    case CHAT_V_LOOP:
        for (size_t i = v.as.loop->index0 + 1; i < v.as.loop->n; i++)
            chat_list_push(rt, &out, v.as.loop->items[i]);
        break;
    default:
        chat_fail(rt, "'%s' object is not iterable", chat_type_name(v));
    }
    return out;
}

/* ---- equality and order --------------------------------------------------------------------------------------------- */

static bool equal_lists(chat_runtime *rt, const chat_list *a, const chat_list *b)
{
    if (a->n != b->n)
        return false;
    chat_enter(rt);
    bool same = true;
    for (size_t i = 0; same && i < a->n; i++)
        same = chat_equal(rt, a->items[i], b->items[i]);
    rt->depth--;
    return same;
}

static bool equal_dicts(chat_runtime *rt, const chat_dict *a, const chat_dict *b)
{
    if (a->n != b->n)
        return false;
    chat_enter(rt);
    bool same = true;
    for (size_t i = 0; same && i < a->n; i++) {
        chat_value *other = chat_dict_get(rt, b, a->entries[i].key);
        same = other && chat_equal(rt, a->entries[i].value, *other);
    }
    rt->depth--;
    return same;
}

bool chat_equal(chat_runtime *rt, chat_value a, chat_value b)
{
    double x, y;
    chat_spend(rt, a.kind == CHAT_V_STRING ? a.length : 0);
    if (a.kind == CHAT_V_INT && b.kind == CHAT_V_INT)
        return a.as.integer == b.as.integer;
    if (a.kind == CHAT_V_BIG && b.kind == CHAT_V_BIG)
        return str_equal(chat_str(a), chat_str(b));
    if (chat_number(a, &x))
        return chat_number(b, &y) && x == y;
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case CHAT_V_UNDEFINED:
    case CHAT_V_NONE:
        return true;
    case CHAT_V_STRING:
        return a.length == b.length && memcmp(a.as.text, b.as.text, a.length) == 0;
    case CHAT_V_LIST:
    case CHAT_V_TUPLE:
        return a.as.list == b.as.list || equal_lists(rt, a.as.list, b.as.list);
    case CHAT_V_DICT:
        return a.as.dict == b.as.dict || equal_dicts(rt, a.as.dict, b.as.dict);
    case CHAT_V_RANGE:
        return a.as.range->n == b.as.range->n &&
               (a.as.range->n == 0 ||
                (a.as.range->start == b.as.range->start &&
                 (a.as.range->n == 1 || a.as.range->step == b.as.range->step)));
    default:
        return a.as.list == b.as.list;
    }
}

static int order_strings(chat_value a, chat_value b)
{
    /* UTF-8 bytes order as code points do */
    int c = memcmp(a.as.text, b.as.text, BASE_MIN(a.length, b.length));
    return c ? (c > 0) - (c < 0) : (a.length > b.length) - (a.length < b.length);
}

static int order_lists(chat_runtime *rt, const chat_list *a, const chat_list *b, const char *op)
{
    chat_enter(rt);
    int c = 0;
    size_t n = BASE_MIN(a->n, b->n), i = 0;
    while (i < n && chat_equal(rt, a->items[i], b->items[i]))
        i++;
    if (i < n)
        c = chat_compare(rt, a->items[i], b->items[i], op);
    else
        c = (a->n > b->n) - (a->n < b->n);
    rt->depth--;
    return c;
}

int chat_compare(chat_runtime *rt, chat_value a, chat_value b, const char *op)
{
    double x, y;
    chat_spend(rt, a.kind == CHAT_V_STRING ? a.length : 0);
    if (a.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, a);
    if (b.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, b);
    if (a.kind == CHAT_V_INT && b.kind == CHAT_V_INT)
        return (a.as.integer > b.as.integer) - (a.as.integer < b.as.integer);
    if (chat_number(a, &x) && chat_number(b, &y))
        return isnan(x) || isnan(y) ? 2 : (x > y) - (x < y);
    if (a.kind == CHAT_V_STRING && b.kind == CHAT_V_STRING)
        return order_strings(a, b);
    if (a.kind == b.kind && (a.kind == CHAT_V_LIST || a.kind == CHAT_V_TUPLE))
        return order_lists(rt, a.as.list, b.as.list, op);
    chat_fail(rt, "'%s' not supported between instances of '%s' and '%s'", op, chat_type_name(a),
              chat_type_name(b));
}

static bool find_bytes(str in, str what)
{
    return what.length == 0 || (in.length && memmem(in.data, in.length, what.data, what.length));
}

bool chat_contains(chat_runtime *rt, chat_value container, chat_value item)
{
    if (container.kind == CHAT_V_STRING) {
        if (item.kind == CHAT_V_UNDEFINED)
            chat_undefined_fail(rt, item);
        if (item.kind != CHAT_V_STRING)
            chat_fail(rt, "'in <string>' requires string as left operand, not %s",
                      chat_type_name(item));
        chat_spend(rt, container.length);
        return find_bytes(chat_str(container), chat_str(item));
    }
    if (container.kind == CHAT_V_DICT ||
        (container.kind == CHAT_V_VIEW && container.as.view->kind == CHAT_VIEW_KEYS)) {
        chat_dict *d = container.kind == CHAT_V_DICT ? container.as.dict : container.as.view->dict;
        if (!chat_hashable(item))
            chat_fail(rt, "unhashable type: '%s'", chat_type_name(item));
        return chat_dict_get(rt, d, item) != NULL;
    }
    if (!chat_iterable(container))
        chat_fail(rt, "argument of type '%s' is not iterable", chat_type_name(container));
    chat_list items = container.kind == CHAT_V_LIST || container.kind == CHAT_V_TUPLE
                          ? *container.as.list
                          : chat_items(rt, container);
    for (size_t i = 0; i < items.n; i++)
        if (chat_equal(rt, items.items[i], item))
            return true;
    return false;
}
