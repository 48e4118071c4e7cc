/* Tests (`x is …`), global functions, and the look-up of builtins by name. */
#include <string.h>

#include "chat/jinja.h"

#define BUILTIN(name)                                                                              \
    static chat_value name(chat_runtime *rt, chat_value self, const chat_value *p,                 \
                           const chat_args *raw)
#define UNUSED (void)rt, (void)self, (void)p, (void)raw

const chat_builtin *chat_find_builtin(const chat_builtin *table, str name)
{
    for (; table->name; table++)
        if (str_is(name, table->name))
            return table;
    return NULL;
}

const chat_builtin *chat_find_filter(str name)
{
    const chat_builtin *b = chat_find_builtin(chat_filters_text, name);
    return b ? b : chat_find_builtin(chat_filters_items, name);
}

const chat_builtin *chat_find_test(str name)
{
    return chat_find_builtin(chat_tests, name);
}

/* ---- tests -------------------------------------------------------------------------------------------------------------- */

#define KIND_TEST(name, condition)                                                                 \
    BUILTIN(name)                                                                                  \
    {                                                                                              \
        UNUSED;                                                                                    \
        return chat_bool(condition);                                                               \
    }
KIND_TEST(test_defined, self.kind != CHAT_V_UNDEFINED)
KIND_TEST(test_undefined, self.kind == CHAT_V_UNDEFINED)
KIND_TEST(test_none, self.kind == CHAT_V_NONE)
KIND_TEST(test_boolean, self.kind == CHAT_V_BOOL)
KIND_TEST(test_true, self.kind == CHAT_V_BOOL && self.as.boolean)
KIND_TEST(test_false, self.kind == CHAT_V_BOOL && !self.as.boolean)
KIND_TEST(test_integer, self.kind == CHAT_V_INT || self.kind == CHAT_V_BIG)
KIND_TEST(test_float, self.kind == CHAT_V_FLOAT)
KIND_TEST(test_number, self.kind >= CHAT_V_BOOL && self.kind <= CHAT_V_FLOAT)
KIND_TEST(test_string, self.kind == CHAT_V_STRING)
KIND_TEST(test_mapping, self.kind == CHAT_V_DICT)
KIND_TEST(test_iterable, chat_iterable(self))
KIND_TEST(test_sequence, self.kind == CHAT_V_STRING || self.kind == CHAT_V_LIST ||
                             self.kind == CHAT_V_TUPLE || self.kind == CHAT_V_DICT ||
                             self.kind == CHAT_V_RANGE || self.kind == CHAT_V_UNDEFINED)
KIND_TEST(test_callable, self.kind == CHAT_V_FUNCTION || self.kind == CHAT_V_LOOP ||
                             self.kind == CHAT_V_JOINER || self.kind == CHAT_V_UNDEFINED)
KIND_TEST(test_escaped, self.kind == CHAT_V_STRING && (self.flags & CHAT_FLAG_MARKUP))
KIND_TEST(test_lower, chat_text_is(chat_str(chat_to_string(rt, self)), 'l'))
KIND_TEST(test_upper, chat_text_is(chat_str(chat_to_string(rt, self)), 'u'))
KIND_TEST(test_filter, self.kind == CHAT_V_STRING && chat_find_filter(chat_str(self)))
KIND_TEST(test_test, self.kind == CHAT_V_STRING && chat_find_test(chat_str(self)))
KIND_TEST(test_equal, chat_equal(rt, self, p[0]))
KIND_TEST(test_not_equal, !chat_equal(rt, self, p[0]))
KIND_TEST(test_less, chat_compare(rt, self, p[0], "<") == -1)
KIND_TEST(test_greater, chat_compare(rt, self, p[0], ">") == 1)
KIND_TEST(test_in, chat_contains(rt, p[0], self))

BUILTIN(test_less_equal)
{
    UNUSED;
    int c = chat_compare(rt, self, p[0], "<=");
    return chat_bool(c == -1 || c == 0);
}

BUILTIN(test_greater_equal)
{
    UNUSED;
    int c = chat_compare(rt, self, p[0], ">=");
    return chat_bool(c == 1 || c == 0);
}

static chat_value remainder_is(chat_runtime *rt, chat_value v, chat_value by, bool zero)
{
    chat_value rest = chat_binary(rt, CHAT_OP_MODULO, v, by);
    return chat_bool(chat_equal(rt, rest, chat_int(zero ? 0 : 1)));
}

BUILTIN(test_odd)
{
    UNUSED;
    return remainder_is(rt, self, chat_int(2), false);
}

BUILTIN(test_even)
{
    UNUSED;
    return remainder_is(rt, self, chat_int(2), true);
}

BUILTIN(test_divisibleby)
{
    UNUSED;
    return remainder_is(rt, self, p[0], true);
}

BUILTIN(test_sameas)
{
    UNUSED;
    if (self.kind != p[0].kind)
        return chat_bool(false);
    switch (self.kind) {
    case CHAT_V_NONE:
        return chat_bool(true);
    case CHAT_V_BOOL:
    case CHAT_V_INT:
    case CHAT_V_FLOAT:
        return chat_bool(chat_equal(rt, self, p[0]));
    case CHAT_V_STRING:
        return chat_bool(self.as.text == p[0].as.text && self.length == p[0].length);
    default:
        return chat_bool(self.as.list == p[0].as.list);
    }
}

const chat_builtin chat_tests[] = {
    {"defined", test_defined, 0, 0, {0}},
    {"undefined", test_undefined, 0, 0, {0}},
    {"none", test_none, 0, 0, {0}},
    {"boolean", test_boolean, 0, 0, {0}},
    {"true", test_true, 0, 0, {0}},
    {"false", test_false, 0, 0, {0}},
    {"integer", test_integer, 0, 0, {0}},
    {"float", test_float, 0, 0, {0}},
    {"number", test_number, 0, 0, {0}},
    {"string", test_string, 0, 0, {0}},
    {"mapping", test_mapping, 0, 0, {0}},
    {"iterable", test_iterable, 0, 0, {0}},
    {"sequence", test_sequence, 0, 0, {0}},
    {"callable", test_callable, 0, 0, {0}},
    {"escaped", test_escaped, 0, 0, {0}},
    {"lower", test_lower, 0, 0, {0}},
    {"upper", test_upper, 0, 0, {0}},
    {"filter", test_filter, 0, 0, {0}},
    {"test", test_test, 0, 0, {0}},
    {"odd", test_odd, 0, 0, {0}},
    {"even", test_even, 0, 0, {0}},
    {"divisibleby", test_divisibleby, 1, 1, {"num"}},
    {"sameas", test_sameas, 1, 1, {"other"}},
    {"in", test_in, 1, 1, {"seq"}},
    {"==", test_equal, 1, 1, {"other"}},
    {"eq", test_equal, 1, 1, {"other"}},
    {"equalto", test_equal, 1, 1, {"other"}},
    {"!=", test_not_equal, 1, 1, {"other"}},
    {"ne", test_not_equal, 1, 1, {"other"}},
    {"<", test_less, 1, 1, {"other"}},
    {"lt", test_less, 1, 1, {"other"}},
    {"lessthan", test_less, 1, 1, {"other"}},
    {"<=", test_less_equal, 1, 1, {"other"}},
    {"le", test_less_equal, 1, 1, {"other"}},
    {">", test_greater, 1, 1, {"other"}},
    {"gt", test_greater, 1, 1, {"other"}},
    {"greaterthan", test_greater, 1, 1, {"other"}},
    {">=", test_greater_equal, 1, 1, {"other"}},
    {"ge", test_greater_equal, 1, 1, {"other"}},
    {0},
};

/* ---- globals ------------------------------------------------------------------------------------------------------------ */

BUILTIN(global_range)
{
    UNUSED;
    chat_range *r = chat_alloc(rt, sizeof *r);
    int64_t first = chat_want_integer(rt, p[0], "range"), span;
    bool both = chat_given(p[1]);
    *r = (chat_range){both ? first : 0, both ? chat_want_integer(rt, p[1], "range") : first, 1, 0};
    if (chat_given(p[2]))
        r->step = chat_want_integer(rt, p[2], "range");
    if (r->step == 0)
        chat_fail(rt, "range() arg 3 must not be zero");
    bool runs = r->step > 0 ? r->start < r->stop : r->start > r->stop;
    if (runs && (__builtin_sub_overflow(r->stop, r->start, &span) || r->step == INT64_MIN))
        chat_fail_status(rt, STATUS_TOO_LARGE, "a range beyond 64 bits");
    if (runs)
        r->n = r->step > 0 ? (span - 1) / r->step + 1 : (-1 - span) / -r->step + 1;
    if (r->n > 100000) /* jinja2's sandbox says the same */
        chat_fail_status(rt, STATUS_TOO_LARGE, "a range of more than 100000 items");
    return (chat_value){.kind = CHAT_V_RANGE, .as.range = r};
}

BUILTIN(global_dict)
{
    UNUSED;
    chat_value d = chat_dict_value(rt);
    const chat_builtin *update = chat_find_builtin(chat_methods_dict, str_from("update"));
    chat_call_builtin(rt, update, d, raw);
    return d;
}

BUILTIN(global_namespace)
{
    chat_value d = global_dict(rt, self, p, raw);
    d.kind = CHAT_V_NAMESPACE;
    return d;
}

BUILTIN(global_cycler)
{
    UNUSED;
    chat_cycler *c = chat_alloc(rt, sizeof *c);
    *c = (chat_cycler){raw->items, raw->n, 0};
    return (chat_value){.kind = CHAT_V_CYCLER, .as.cycler = c};
}

BUILTIN(global_joiner)
{
    UNUSED;
    chat_joiner *j = chat_alloc(rt, sizeof *j);
    *j = (chat_joiner){chat_given(p[0]) ? p[0] : chat_string_literal(", "), false};
    return (chat_value){.kind = CHAT_V_JOINER, .as.joiner = j};
}

BUILTIN(global_raise_exception)
{
    UNUSED;
    str text = chat_str(chat_to_string(rt, p[0]));
    for (chat_capture *c = rt->capture; c; c = c->outer)
        sb_fini(&c->text);
    rt->capture = NULL;
    rt->code = err_set(rt->e, STATUS_INVALID, "%.*s", (int)BASE_MIN(text.length, (size_t)ERR_TEXT),
                       text.data);
    longjmp(rt->escape, 1);
}

BUILTIN(global_strftime_now)
{
    UNUSED;
    return chat_strftime(rt, chat_want_string(rt, p[0], "strftime_now"), &rt->now);
}

const chat_builtin chat_globals[] = {
    {"range", global_range, 1, 3, {"start", "stop", "step"}},
    {"dict", global_dict, 0, CHAT_VARIADIC, {0}},
    {"namespace", global_namespace, 0, CHAT_VARIADIC, {0}},
    {"cycler", global_cycler, 1, CHAT_VARIADIC, {0}},
    {"joiner", global_joiner, 0, 1, {"sep"}},
    {"raise_exception", global_raise_exception, 1, 1, {"message"}},
    {"strftime_now", global_strftime_now, 1, 1, {"format"}},
    {0},
};
