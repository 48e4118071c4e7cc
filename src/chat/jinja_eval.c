/*
 * Expressions: tree → value. Names are looked up from the innermost scope outwards, then among the globals; arguments are bound
 * to parameters by one routine for filters, tests, methods and globals.
 */
#include <string.h>

#include "chat/jinja.h"

static chat_value function_value(chat_runtime *rt, const chat_builtin *b)
{
    chat_function *f = chat_alloc(rt, sizeof *f);
    *f = (chat_function){.builtin = b, .receiver = chat_none(), .name = str_from(b->name)};
    return (chat_value){.kind = CHAT_V_FUNCTION, .as.function = f};
}

static chat_value eval_name(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_value *v = chat_scope_find(s, n->name);
    if (v)
        return *v;
    const chat_builtin *global = chat_find_builtin(chat_globals, n->name->text);
    bool no_clock = rt->now.month == 0 && str_is(n->name->text, "strftime_now");
    if (global && !no_clock)
        return function_value(rt, global);
    return chat_undefined_value(rt, NULL, n->name->text);
}

/* ---- calls ---------------------------------------------------------------------------------------------------------- */

static void push_keyword(chat_runtime *rt, chat_args *a, size_t *capacity, str name, chat_value v)
{
    for (size_t i = 0; i < a->n_keywords; i++)
        if (str_equal(a->keywords[i].name, name))
            chat_fail(rt, "got multiple values for keyword argument '%.*s'",
                      (int)BASE_MIN(name.length, (size_t)100), name.data);
    if (a->n_keywords == *capacity) {
        *capacity = *capacity ? *capacity * 2 : 4;
        chat_keyword *more = chat_alloc_array(rt, *capacity, sizeof *more);
        if (a->n_keywords)
            memcpy(more, a->keywords, a->n_keywords * sizeof *more);
        a->keywords = more;
    }
    a->keywords[a->n_keywords++] = (chat_keyword){name, v};
}

void chat_eval_args(chat_runtime *rt, chat_scope *s, const chat_node *n, chat_args *out)
{
    chat_list items = {0};
    size_t capacity = 0;
    *out = (chat_args){0};
    for (uint32_t i = 0; i < n->n; i++)
        chat_list_push(rt, &items, chat_eval(rt, s, n->items[i]));
    if (n->b) {
        chat_list more = chat_items(rt, chat_eval(rt, s, n->b));
        for (size_t i = 0; i < more.n; i++)
            chat_list_push(rt, &items, more.items[i]);
    }
    for (uint32_t i = 0; i < n->n_extra; i++)
        push_keyword(rt, out, &capacity, n->extra[i]->text, chat_eval(rt, s, n->extra[i]->a));
    if (n->c) {
        chat_value more = chat_eval(rt, s, n->c);
        if (more.kind != CHAT_V_DICT)
            chat_fail(rt, "argument after ** must be a mapping, not %s", chat_type_name(more));
        if (out->n_keywords + more.as.dict->n > 1000)
            chat_fail_status(rt, STATUS_TOO_LARGE, "more than 1000 keyword arguments");
        for (size_t i = 0; i < more.as.dict->n; i++) {
            const chat_entry *e = &more.as.dict->entries[i];
            push_keyword(rt, out, &capacity, chat_want_string(rt, e->key, "keywords"), e->value);
        }
    }
    out->items = items.items;
    out->n = items.n;
    rt->at = n;
}

chat_value chat_call_builtin(chat_runtime *rt, const chat_builtin *b, chat_value subject,
                             const chat_args *args)
{
    chat_value p[CHAT_MAX_PARAMS];
    memset(p, 0, sizeof p);
    chat_spend(rt, 0);
    if (b->n == CHAT_VARIADIC) {
        if (args->n < b->required)
            chat_fail(rt, "%s: at least %d argument(s) expected", b->name, b->required);
        return b->call(rt, subject, p, args);
    }
    if (args->n > b->n)
        chat_fail(rt, "%s: at most %d argument(s) expected, got %zu", b->name, b->n, args->n);
    for (size_t i = 0; i < args->n; i++)
        p[i] = args->items[i];
    for (size_t i = 0; i < args->n_keywords; i++) {
        const chat_keyword *k = &args->keywords[i];
        size_t at = 0;
        while (at < b->n && !str_is(k->name, b->params[at]))
            at++;
        if (at == b->n)
            chat_fail(rt, "%s: got an unexpected keyword argument '%.*s'", b->name,
                      (int)BASE_MIN(k->name.length, (size_t)100), k->name.data);
        if (chat_given(p[at]))
            chat_fail(rt, "%s: got multiple values for argument '%s'", b->name, b->params[at]);
        p[at] = k->value;
    }
    for (size_t i = 0; i < b->required; i++)
        if (!chat_given(p[i]))
            chat_fail(rt, "%s: missing the argument '%s'", b->name, b->params[i]);
    return b->call(rt, subject, p, args);
}

chat_value chat_call(chat_runtime *rt, chat_value callee, const chat_args *args)
{
    if (callee.kind == CHAT_V_UNDEFINED)
        chat_undefined_fail(rt, callee);
    if (callee.kind == CHAT_V_FUNCTION) {
        const chat_function *f = callee.as.function;
        return f->builtin ? chat_call_builtin(rt, f->builtin, f->receiver, args)
                          : chat_call_macro(rt, f, args);
    }
    if (callee.kind == CHAT_V_JOINER) {
        bool first = !callee.as.joiner->used;
        callee.as.joiner->used = true;
        return first ? chat_string_literal("") : callee.as.joiner->separator;
    }
    if (callee.kind == CHAT_V_LOOP) {
        const chat_loop *l = callee.as.loop;
        if (!l->node->flag)
            chat_fail(rt, "the loop must have the 'recursive' marker to be called recursively");
        if (args->n != 1 || args->n_keywords)
            chat_fail(rt, "loop(…) takes one argument");
        return chat_run_loop(rt, l->closure, l->node, args->items[0], l->depth0 + 1, true, NULL);
    }
    chat_fail(rt, "'%s' object is not callable", chat_type_name(callee));
}

/* The subject of a filter or test stands in front of its arguments; unknown names fail here, when they are used. */
static chat_value eval_filter(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_args args;
    chat_value subject = chat_eval(rt, s, n->a);
    rt->at = n;
    if (!n->builtin)
        chat_fail(rt, "no %s named '%.*s'", n->kind == CHAT_N_FILTER ? "filter" : "test",
                  (int)BASE_MIN(n->text.length, (size_t)100), n->text.data);
    chat_eval_args(rt, s, n, &args);
    return chat_call_builtin(rt, n->builtin, subject, &args);
}

static chat_value eval_call(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_args args;
    chat_value callee = chat_eval(rt, s, n->a);
    rt->at = n;
    chat_eval_args(rt, s, n, &args);
    return chat_call(rt, callee, &args);
}

/* ---- operators ------------------------------------------------------------------------------------------------------ */

static bool compare(chat_runtime *rt, chat_op op, chat_value a, chat_value b)
{
    int c;
    switch (op) {
    case CHAT_OP_EQUAL:
        return chat_equal(rt, a, b);
    case CHAT_OP_NOT_EQUAL:
        return !chat_equal(rt, a, b);
    case CHAT_OP_IN:
        return chat_contains(rt, b, a);
    case CHAT_OP_NOT_IN:
        return !chat_contains(rt, b, a);
    case CHAT_OP_LESS:
        return chat_compare(rt, a, b, "<") == -1;
    case CHAT_OP_LESS_EQUAL:
        c = chat_compare(rt, a, b, "<=");
        return c == -1 || c == 0;
    case CHAT_OP_GREATER:
        return chat_compare(rt, a, b, ">") == 1;
    default:
        c = chat_compare(rt, a, b, ">=");
        return c == 1 || c == 0;
    }
}

static chat_value eval_compare(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_value left = chat_eval(rt, s, n->a);
    for (uint32_t i = 0; i < n->n; i++) {
        chat_value right = chat_eval(rt, s, n->items[i]->a);
        rt->at = n->items[i];
        if (!compare(rt, (chat_op)n->items[i]->op, left, right))
            return chat_bool(false);
        left = right;
    }
    return chat_bool(true);
}

static chat_value eval_concat(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_capture c;
    chat_list parts = {0};
    for (uint32_t i = 0; i < n->n; i++)
        chat_list_push(rt, &parts, chat_eval(rt, s, n->items[i]));
    rt->at = n;
    chat_capture_begin(rt, &c);
    for (size_t i = 0; i < parts.n; i++)
        chat_print(rt, &c.text, parts.items[i]);
    return chat_capture_end(rt, &c);
}

static chat_value eval_slice(chat_runtime *rt, chat_scope *s, const chat_node *n, chat_value object)
{
    const chat_node *slice = n->b;
    chat_value start = slice->a ? chat_eval(rt, s, slice->a) : chat_none();
    chat_value stop = slice->b ? chat_eval(rt, s, slice->b) : chat_none();
    chat_value step = slice->c ? chat_eval(rt, s, slice->c) : chat_none();
    rt->at = n;
    return chat_getslice(rt, object, start, stop, step);
}

static chat_value eval_getitem(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_value object = chat_eval(rt, s, n->a);
    if (n->b->kind == CHAT_N_SLICE)
        return eval_slice(rt, s, n, object);
    chat_value key = chat_eval(rt, s, n->b);
    rt->at = n;
    return chat_getitem(rt, object, key);
}

static chat_value eval_sequence(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_value v = chat_list_value(rt, n->n);
    for (uint32_t i = 0; i < n->n; i++)
        chat_list_push(rt, v.as.list, chat_eval(rt, s, n->items[i]));
    if (n->kind == CHAT_N_TUPLE)
        v.kind = CHAT_V_TUPLE;
    return v;
}

static chat_value eval_dict(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_value v = chat_dict_value(rt);
    for (uint32_t i = 0; i + 1 < n->n; i += 2) {
        chat_value key = chat_eval(rt, s, n->items[i]), value = chat_eval(rt, s, n->items[i + 1]);
        rt->at = n;
        chat_dict_set(rt, v.as.dict, key, value);
    }
    return v;
}

static chat_value eval_binary(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_value a = chat_eval(rt, s, n->a), b = chat_eval(rt, s, n->b);
    rt->at = n;
    return chat_binary(rt, (chat_op)n->op, a, b);
}

static chat_value eval_unary(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_value v = chat_eval(rt, s, n->a);
    rt->at = n;
    if (n->kind == CHAT_N_NOT)
        return chat_bool(!chat_truth(v));
    if (n->kind == CHAT_N_NEGATE)
        return chat_negate(rt, v);
    double d;
    if (!chat_number(v, &d))
        chat_fail(rt, "bad operand type for unary +: '%s'", chat_type_name(v));
    return v.kind == CHAT_V_BOOL ? chat_int(v.as.boolean) : v;
}

static chat_value eval_logic(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_value a = chat_eval(rt, s, n->a);
    return chat_truth(a) == (n->kind == CHAT_N_AND) ? chat_eval(rt, s, n->b) : a;
}

static chat_value eval_condition(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    if (chat_truth(chat_eval(rt, s, n->a)))
        return chat_eval(rt, s, n->b);
    if (n->c)
        return chat_eval(rt, s, n->c);
    return chat_undefined_hint(
        rt, "the inline if-expression evaluated to false and no else section was defined");
}

static chat_value eval_getattr(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_value object = chat_eval(rt, s, n->a);
    rt->at = n;
    return chat_getattr(rt, object, n->text);
}

static chat_value eval_kind(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    switch (n->kind) {
    case CHAT_N_NAME:
        return eval_name(rt, s, n);
    case CHAT_N_GETATTR:
        return eval_getattr(rt, s, n);
    case CHAT_N_GETITEM:
        return eval_getitem(rt, s, n);
    case CHAT_N_CALL:
        return eval_call(rt, s, n);
    case CHAT_N_FILTER:
    case CHAT_N_TEST:
        return eval_filter(rt, s, n);
    case CHAT_N_FILTER_INPUT:
        return rt->filter_input;
    case CHAT_N_COMPARE:
        return eval_compare(rt, s, n);
    case CHAT_N_BINARY:
        return eval_binary(rt, s, n);
    case CHAT_N_CONCAT:
        return eval_concat(rt, s, n);
    case CHAT_N_AND:
    case CHAT_N_OR:
        return eval_logic(rt, s, n);
    case CHAT_N_NOT:
    case CHAT_N_NEGATE:
    case CHAT_N_PLUS:
        return eval_unary(rt, s, n);
    case CHAT_N_COND:
        return eval_condition(rt, s, n);
    case CHAT_N_LIST:
    case CHAT_N_TUPLE:
        return eval_sequence(rt, s, n);
    case CHAT_N_DICT:
        return eval_dict(rt, s, n);
    default:
        rt->at = n;
        chat_fail(rt, "a slice has no meaning here");
    }
}

chat_value chat_eval(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    rt->at = n;
    if (n->kind == CHAT_N_CONST) {
        chat_spend(rt, 0);
        return n->constant;
    }
    chat_enter(rt);
    chat_value v = eval_kind(rt, s, n);
    rt->depth--;
    return v;
}
