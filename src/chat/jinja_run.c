/*
 * Statements: the running half of the interpreter, scopes, captures, the budget, macros and loops.
 *
 * Scopes chain outwards and are searched from the inside at the time of the look-up; loops, macros, with, call, filter and set blocks
 * open one, if does not. A loop reuses its scope from turn to turn unless a macro has captured it.
 * Budget: one step a node and one more for every 64 bytes touched; memory and output have limits of their own; depth is bounded.
 */
#include <stdio.h>
#include <string.h>

#include "chat/jinja.h"

/* ---- failures and budget -------------------------------------------------------------------------------------------- */

BASE_NORETURN static void leave(chat_runtime *rt, status code, const char *text)
{
    for (chat_capture *c = rt->capture; c; c = c->outer) /* here, while their frames still exist */
        sb_fini(&c->text);
    rt->capture = NULL;
    if (rt->at)
        rt->code = err_set(rt->e, code, "chat template: line %u column %u: %s", rt->at->line,
                           rt->at->column, text);
    else
        rt->code = err_set(rt->e, code, "chat template: %s", text);
    longjmp(rt->escape, 1);
}

void chat_fail_status(chat_runtime *rt, status code, const char *format, ...)
{
    char text[ERR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    leave(rt, code, text);
}

void chat_fail(chat_runtime *rt, const char *format, ...)
{
    char text[ERR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    leave(rt, STATUS_CORRUPT, text);
}

void chat_spend(chat_runtime *rt, uint64_t bytes)
{
    rt->steps += 1 + bytes / 64;
    if (rt->steps > rt->max_steps)
        chat_fail_status(rt, STATUS_TOO_LARGE, "more than the budget of %llu steps",
                         (unsigned long long)rt->max_steps);
}

void chat_enter(chat_runtime *rt)
{
    chat_spend(rt, 0);
    if (++rt->depth > CHAT_MAX_DEPTH)
        chat_fail_status(rt, STATUS_TOO_LARGE, "nested or recursive beyond %d levels",
                         CHAT_MAX_DEPTH);
}

void *chat_alloc(chat_runtime *rt, size_t bytes)
{
    void *p = arena_alloc(&rt->memory, bytes);
    if (p)
        return p;
    if (rt->memory.limit && bytes > rt->memory.limit - BASE_MIN(rt->memory.used, rt->memory.limit))
        chat_fail_status(rt, STATUS_TOO_LARGE, "more memory than the budget of %zu bytes",
                         rt->memory.limit);
    chat_fail_status(rt, STATUS_NO_MEMORY, "no memory for %zu bytes", bytes);
}

/* ---- output --------------------------------------------------------------------------------------------------------- */

void chat_capture_begin(chat_runtime *rt, chat_capture *c)
{
    sb_init(&c->text);
    c->outer = rt->capture;
    rt->capture = c;
}

chat_value chat_capture_end(chat_runtime *rt, chat_capture *c)
{
    chat_capture_check(rt);
    chat_value v = chat_string_copy(rt, c->text.data ? c->text.data : "", c->text.length);
    rt->capture = c->outer;
    sb_fini(&c->text);
    return v;
}

void chat_capture_check(chat_runtime *rt)
{
    const sb *text = &rt->capture->text;
    if (text->failed)
        chat_fail_status(rt, STATUS_NO_MEMORY, "no memory for the output");
    if (text->length > rt->max_output)
        chat_fail_status(rt, STATUS_TOO_LARGE, "more output than the budget of %llu bytes",
                         (unsigned long long)rt->max_output);
}

void chat_write(chat_runtime *rt, const char *bytes, size_t n)
{
    chat_spend(rt, n);
    sb_add(&rt->capture->text, bytes, n);
    chat_capture_check(rt);
}

/* ---- scopes --------------------------------------------------------------------------------------------------------- */

chat_scope *chat_scope_create(chat_runtime *rt, chat_scope *parent)
{
    chat_scope *s = chat_alloc(rt, sizeof *s);
    *s = (chat_scope){.parent = parent};
    return s;
}

static chat_value *find_here(chat_scope *s, const chat_symbol *name)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (s->bindings[i].name == name)
            return &s->bindings[i].value;
    return NULL;
}

chat_value *chat_scope_find(chat_scope *s, const chat_symbol *name)
{
    for (; s; s = s->parent) {
        chat_value *v = find_here(s, name);
        if (v)
            return v;
    }
    return NULL;
}

void chat_scope_set(chat_runtime *rt, chat_scope *s, const chat_symbol *name, chat_value v)
{
    chat_value *old = find_here(s, name);
    if (old) {
        *old = v;
        return;
    }
    if (s->n == s->capacity) {
        uint32_t capacity = s->capacity ? s->capacity * 2 : 4;
        chat_binding *more = chat_alloc_array(rt, capacity, sizeof *more);
        if (s->n)
            memcpy(more, s->bindings, s->n * sizeof *more);
        s->bindings = more;
        s->capacity = capacity;
    }
    s->bindings[s->n++] = (chat_binding){name, v};
}

static void mark_captured(chat_scope *s)
{
    for (; s && !s->captured; s = s->parent)
        s->captured = true;
}

static void assign(chat_runtime *rt, chat_scope *s, const chat_node *target, chat_value v)
{
    rt->at = target;
    if (target->kind == CHAT_N_NAME) {
        chat_scope_set(rt, s, target->name, v);
        return;
    }
    if (target->kind == CHAT_N_NSREF) {
        chat_value *space = chat_scope_find(s, target->name);
        if (!space || space->kind != CHAT_V_NAMESPACE)
            chat_fail(rt, "cannot assign attribute on non-namespace object '%.*s'",
                      (int)target->name->text.length, target->name->text.data);
        chat_dict_set(rt, space->as.dict, chat_string(rt, target->text.data, target->text.length),
                      v);
        return;
    }
    if (v.kind == CHAT_V_UNDEFINED || !chat_iterable(v))
        chat_fail(rt, "cannot unpack non-iterable %s object", chat_type_name(v));
    chat_list items = chat_items(rt, v);
    if (items.n != target->n)
        chat_fail(rt, "cannot unpack %zu values into %u names", items.n, target->n);
    for (uint32_t i = 0; i < target->n; i++)
        assign(rt, s, target->items[i], items.items[i]);
}

/* ---- macros --------------------------------------------------------------------------------------------------------- */

static bool take_keyword(const chat_args *args, bool *used, str name, chat_value *out)
{
    for (size_t i = 0; i < args->n_keywords; i++) {
        if (used[i] || !str_equal(args->keywords[i].name, name))
            continue;
        used[i] = true;
        *out = args->keywords[i].value;
        return true;
    }
    return false;
}

/* What is left of the keywords: `kwargs`, or an error. */
static void rest_of_keywords(chat_runtime *rt, chat_scope *s, const chat_function *f,
                             const chat_args *args, const bool *used)
{
    bool catches = f->macro->flag & CHAT_USES_KWARGS;
    chat_value rest = catches ? chat_dict_value(rt) : chat_none();
    for (size_t i = 0; i < args->n_keywords; i++) {
        str name = args->keywords[i].name;
        if (used[i])
            continue;
        if (!catches)
            chat_fail(rt, "macro '%.*s' takes no keyword argument '%.*s'",
                      (int)BASE_MIN(f->name.length, (size_t)100), f->name.data,
                      (int)BASE_MIN(name.length, (size_t)100), name.data);
        chat_dict_set(rt, rest.as.dict, chat_string(rt, name.data, name.length),
                      args->keywords[i].value);
    }
    if (catches)
        chat_scope_set(rt, s, rt->t->kwargs, rest);
}

static void bind_macro(chat_runtime *rt, chat_scope *s, const chat_function *f,
                       const chat_args *args)
{
    const chat_node *m = f->macro;
    bool *used = chat_alloc(rt, args->n_keywords + 1);
    memset(used, 0, args->n_keywords + 1);
    bool explicit_caller = false;
    chat_value v = chat_none();
    for (uint32_t i = 0; i < m->n_extra; i++) {
        const chat_node *p = m->extra[i];
        explicit_caller |= p->name == rt->t->caller;
        if (i < args->n)
            v = args->items[i];
        else if (!take_keyword(args, used, p->name->text, &v))
            v = p->b ? chat_eval(rt, s, p->b) : chat_undefined_value(rt, NULL, p->name->text);
        chat_scope_set(rt, s, p->name, v);
    }
    if ((m->flag & CHAT_USES_CALLER) && !explicit_caller) {
        if (!take_keyword(args, used, str_from("caller"), &v))
            v = chat_undefined_hint(rt, "No caller defined");
        chat_scope_set(rt, s, rt->t->caller, v);
    }
    rest_of_keywords(rt, s, f, args, used);
    if (m->flag & CHAT_USES_VARARGS) {
        size_t extra = args->n > m->n_extra ? args->n - m->n_extra : 0;
        chat_scope_set(rt, s, rt->t->varargs,
                       chat_tuple_value(rt, extra ? args->items + m->n_extra : NULL, extra));
    } else if (args->n > m->n_extra)
        chat_fail(rt, "macro '%.*s' takes not more than %u argument(s)",
                  (int)BASE_MIN(f->name.length, (size_t)100), f->name.data, m->n_extra);
}

chat_value chat_call_macro(chat_runtime *rt, const chat_function *f, const chat_args *args)
{
    chat_capture c;
    chat_value input = rt->filter_input;
    chat_enter(rt);
    chat_scope *s = chat_scope_create(rt, f->closure);
    bind_macro(rt, s, f, args);
    chat_capture_begin(rt, &c);
    chat_run_body(rt, s, f->macro->items, f->macro->n);
    rt->filter_input = input;
    rt->depth--;
    return chat_capture_end(rt, &c);
}

static chat_value macro_value(chat_runtime *rt, chat_scope *s, const chat_node *macro)
{
    chat_function *f = chat_alloc(rt, sizeof *f);
    *f =
        (chat_function){.macro = macro, .closure = s, .name = macro->text, .receiver = chat_none()};
    mark_captured(s);
    return (chat_value){.kind = CHAT_V_FUNCTION, .as.function = f};
}

/* ---- loops ---------------------------------------------------------------------------------------------------------- */

/* The items for which the loop's condition holds. */
static chat_list filter_items(chat_runtime *rt, chat_scope *outer, const chat_node *node,
                              chat_list items)
{
    chat_list kept = {0};
    chat_scope *s = chat_scope_create(rt, outer);
    for (size_t i = 0; i < items.n; i++) {
        if (s->captured)
            s = chat_scope_create(rt, outer);
        s->n = 0;
        assign(rt, s, node->a, items.items[i]);
        if (chat_truth(chat_eval(rt, s, node->c)))
            chat_list_push(rt, &kept, items.items[i]);
    }
    return kept;
}

/* Whether any turn came to the end of the body: as in jinja2, `else` is for loops of which none did. */
static bool loop_turns(chat_runtime *rt, chat_scope *outer, const chat_node *node, chat_loop *l)
{
    bool any = false;
    chat_value self = {.kind = CHAT_V_LOOP, .as.loop = l};
    chat_scope *s = chat_scope_create(rt, outer);
    for (; l->index0 < l->n; l->index0++) {
        if (s->captured)
            s = chat_scope_create(rt, outer);
        s->n = 0;
        chat_scope_set(rt, s, rt->t->loop, self);
        assign(rt, s, node->a, l->items[l->index0]);
        chat_flow flow = chat_run_body(rt, s, node->items, node->n);
        if (flow == CHAT_FLOW_BREAK)
            break;
        any |= flow == CHAT_FLOW_NORMAL;
    }
    return any;
}

/* flow: what a break or continue inside the else branch asks of the loop outside; NULL when there is none. */
chat_value chat_run_loop(chat_runtime *rt, chat_scope *outer, const chat_node *node,
                         chat_value iterable, size_t depth0, bool captured, chat_flow *flow)
{
    chat_capture c;
    chat_enter(rt);
    chat_list items = chat_items(rt, iterable);
    if (node->c)
        items = filter_items(rt, outer, node, items);
    chat_loop *l = chat_alloc(rt, sizeof *l);
    *l = (chat_loop){
        .items = items.items, .n = items.n, .depth0 = depth0, .node = node, .closure = outer};
    if (captured)
        chat_capture_begin(rt, &c);
    if (!loop_turns(rt, outer, node, l) && node->n_extra) {
        chat_flow f = chat_run_body(rt, chat_scope_create(rt, outer), node->extra, node->n_extra);
        if (flow)
            *flow = f;
    }
    rt->depth--;
    return captured ? chat_capture_end(rt, &c) : chat_none();
}

/* ---- statements ----------------------------------------------------------------------------------------------------- */

static chat_value run_captured(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_capture c;
    chat_capture_begin(rt, &c);
    chat_run_body(rt, chat_scope_create(rt, s), n->items, n->n);
    return chat_capture_end(rt, &c);
}

static chat_value run_filter_chain(chat_runtime *rt, chat_scope *s, const chat_node *chain,
                                   chat_value input)
{
    chat_value outer = rt->filter_input;
    rt->filter_input = input;
    chat_value v = chat_eval(rt, s, chain);
    rt->filter_input = outer;
    return v;
}

static void run_call_block(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_args args;
    chat_value callee = chat_eval(rt, s, n->a->a);
    chat_eval_args(rt, s, n->a, &args);
    chat_keyword *keywords = chat_alloc_array(rt, args.n_keywords + 1, sizeof *keywords);
    if (args.n_keywords)
        memcpy(keywords, args.keywords, args.n_keywords * sizeof *keywords);
    keywords[args.n_keywords++] = (chat_keyword){str_from("caller"), macro_value(rt, s, n->b)};
    args.keywords = keywords;
    chat_value v = chat_call(rt, callee, &args);
    chat_print(rt, &rt->capture->text, v);
}

static chat_flow run_with(chat_runtime *rt, chat_scope *outer, const chat_node *n)
{
    chat_scope *s = chat_scope_create(rt, outer);
    for (uint32_t i = 0; i < n->n_extra; i++) /* the values see the scope outside */
        assign(rt, s, n->extra[i]->a, chat_eval(rt, outer, n->extra[i]->b));
    return chat_run_body(rt, s, n->items, n->n);
}

static chat_flow run_if(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    for (;;) {
        if (chat_truth(chat_eval(rt, s, n->a)))
            return chat_run_body(rt, s, n->items, n->n);
        if (n->n_extra == 1 && n->extra[0]->kind == CHAT_N_IF)
            n = n->extra[0]; /* elif */
        else
            return chat_run_body(rt, s, n->extra, n->n_extra);
    }
}

static void run_set_block(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_value v = run_captured(rt, s, n);
    if (n->b)
        v = run_filter_chain(rt, s, n->b, v);
    assign(rt, s, n->a, v);
}

static chat_flow run_block(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    if (n->flag) /* print */
        return chat_run_body(rt, s, n->items, n->n);
    chat_run_body(rt, chat_scope_create(rt, rt->root), n->items, n->n);
    return CHAT_FLOW_NORMAL;
}

static chat_flow run_statement(chat_runtime *rt, chat_scope *s, const chat_node *n)
{
    chat_flow flow = CHAT_FLOW_NORMAL;
    switch (n->kind) {
    case CHAT_N_DATA:
        chat_write(rt, n->text.data, n->text.length);
        break;
    case CHAT_N_OUTPUT: {
        chat_value v = chat_eval(rt, s, n->a);
        rt->at = n;
        chat_print(rt, &rt->capture->text, v);
        chat_capture_check(rt);
        break;
    }
    case CHAT_N_IF:
        return run_if(rt, s, n);
    case CHAT_N_FOR: {
        chat_value iterable = chat_eval(rt, s, n->b);
        rt->at = n;
        chat_run_loop(rt, s, n, iterable, 0, false, &flow);
        return flow;
    }
    case CHAT_N_SET:
        assign(rt, s, n->a, chat_eval(rt, s, n->b));
        break;
    case CHAT_N_SET_BLOCK:
        run_set_block(rt, s, n);
        break;
    case CHAT_N_MACRO:
        chat_scope_set(rt, s, n->name, macro_value(rt, s, n));
        break;
    case CHAT_N_CALL_BLOCK:
        run_call_block(rt, s, n);
        break;
    case CHAT_N_FILTER_BLOCK:
        chat_print(rt, &rt->capture->text, run_filter_chain(rt, s, n->b, run_captured(rt, s, n)));
        break;
    case CHAT_N_WITH:
        return run_with(rt, s, n);
    case CHAT_N_BLOCK:
        return run_block(rt, s, n);
    case CHAT_N_GENERATION:
        chat_run_body(rt, chat_scope_create(rt, s), n->items, n->n);
        break;
    case CHAT_N_BREAK:
        return CHAT_FLOW_BREAK;
    default:
        return CHAT_FLOW_CONTINUE;
    }
    return CHAT_FLOW_NORMAL;
}

chat_flow chat_run_body(chat_runtime *rt, chat_scope *s, chat_node *const *items, uint32_t n)
{
    chat_flow flow = CHAT_FLOW_NORMAL;
    chat_enter(rt);
    for (uint32_t i = 0; i < n && flow == CHAT_FLOW_NORMAL; i++) {
        rt->at = items[i];
        chat_spend(rt, 0);
        flow = run_statement(rt, s, items[i]);
    }
    rt->depth--;
    return flow;
}
