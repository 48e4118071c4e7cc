/*
 * Tokens → the tree, statements half: bodies, tags and the parser's common tools. Recursive descent with bounded nesting;
 * failures leave by longjmp to chat_jinja_parse, which holds nothing but the template's arena.
 * Not here: expressions (jinja_expression.c); include, import and extends, which have no meaning for a single template.
 */
#include <stdio.h>
#include <string.h>

#include "chat/jinja.h"

void chat_parse_fail(chat_parser_state *p, const chat_token *where, const char *format, ...)
{
    char text[ERR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    p->code = err_set(p->e, STATUS_CORRUPT, "chat template: line %u column %u: %s", where->line,
                      where->column, text);
    longjmp(p->escape, 1);
}

void chat_parse_no_memory(chat_parser_state *p)
{
    p->code = err_set(p->e, STATUS_NO_MEMORY, "chat template: no memory for its tree");
    longjmp(p->escape, 1);
}

const chat_token *chat_parse_peek(chat_parser_state *p, size_t ahead)
{
    size_t at = p->at + ahead;
    return &p->tokens[at < p->n ? at : p->n - 1];
}

static bool token_is(const chat_token *t, chat_token_kind kind, const char *text)
{
    return t->kind == kind && (!text || str_is(t->text, text));
}

bool chat_parse_is(chat_parser_state *p, chat_token_kind kind, const char *text)
{
    return token_is(chat_parse_peek(p, 0), kind, text);
}

bool chat_parse_skip(chat_parser_state *p, chat_token_kind kind, const char *text)
{
    if (!chat_parse_is(p, kind, text))
        return false;
    p->at++;
    return true;
}

static const char *token_words(const chat_token *t, char out[64])
{
    static const char *const words[] = {"the end of the template", "text", "{%", "%}", "{{", "}}"};
    if (t->kind < BASE_COUNT(words))
        return words[t->kind];
    snprintf(out, 64, "'%.*s'", (int)BASE_MIN(t->text.length, (size_t)50), t->text.data);
    return out;
}

const chat_token *chat_parse_expect(chat_parser_state *p, chat_token_kind kind, const char *text)
{
    const chat_token *t = chat_parse_peek(p, 0);
    if (!token_is(t, kind, text)) {
        static const char *const kinds[] = {"the end",    "text",    "{%",         "%}",
                                            "{{",         "}}",      "a name",     "string",
                                            "an integer", "a float", "an operator"};
        char got[64];
        chat_parse_fail(p, t, "expected %s, got %s", text ? text : kinds[kind],
                        token_words(t, got));
    }
    p->at++;
    return t;
}

chat_node *chat_parse_node(chat_parser_state *p, chat_node_kind kind, const chat_token *where)
{
    chat_node *n = arena_zalloc(&p->t->memory, 1, sizeof *n);
    if (!n)
        chat_parse_no_memory(p);
    n->kind = (uint8_t)kind;
    n->line = where->line;
    n->column = where->column;
    return n;
}

const chat_symbol *chat_parse_symbol(chat_parser_state *p, str text)
{
    chat_symbol **bucket = &p->t->buckets[hash_bytes(text.data, text.length, 0) % CHAT_N_BUCKETS];
    for (chat_symbol *s = *bucket; s; s = s->next)
        if (str_equal(s->text, text))
            return s;
    chat_symbol *s = arena_alloc(&p->t->memory, sizeof *s);
    if (!s)
        chat_parse_no_memory(p);
    *s = (chat_symbol){text, *bucket};
    *bucket = s;
    return s;
}

void chat_parse_enter(chat_parser_state *p)
{
    if (++p->depth > CHAT_MAX_NESTING)
        chat_parse_fail(p, chat_parse_peek(p, 0), "nested too deeply (more than %d levels)",
                        CHAT_MAX_NESTING);
}

void chat_parse_push(chat_parser_state *p, chat_nodes *list, chat_node *node)
{
    if (list->n == list->capacity) {
        uint32_t capacity = list->capacity ? list->capacity * 2 : 4;
        chat_node **more = arena_alloc(&p->t->memory, capacity * sizeof *more);
        if (!more)
            chat_parse_no_memory(p);
        if (list->n)
            memcpy(more, list->items, list->n * sizeof *more);
        list->items = more;
        list->capacity = capacity;
    }
    list->items[list->n++] = node;
}

static void take_items(chat_node *n, chat_nodes list)
{
    n->items = list.items;
    n->n = list.n;
}

static void take_extra(chat_node *n, chat_nodes list)
{
    n->extra = list.items;
    n->n_extra = list.n;
}

/* ---- bodies --------------------------------------------------------------------------------------------------------- */

static chat_node *parse_tag(chat_parser_state *p);

static bool ends_body(chat_parser_state *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (chat_parse_is(p, CHAT_T_NAME, *ends))
            return true;
    return false;
}

/* Statements until a tag named in `ends` (NULL: the end of the template); stands on that name afterwards. */
static chat_nodes parse_until(chat_parser_state *p, const char *const *ends)
{
    chat_nodes body = {0};
    chat_parse_enter(p);
    const chat_token *start = chat_parse_peek(p, 0);
    for (;;) {
        const chat_token *t = chat_parse_peek(p, 0);
        if (t->kind == CHAT_T_EOF) {
            if (ends)
                chat_parse_fail(p, start, "the template ends before '%s'", ends[0]);
            break;
        }
        p->at++;
        if (t->kind == CHAT_T_DATA) {
            chat_node *n = chat_parse_node(p, CHAT_N_DATA, t);
            n->text = t->text;
            chat_parse_push(p, &body, n);
        } else if (t->kind == CHAT_T_VARIABLE_BEGIN) {
            chat_node *n = chat_parse_node(p, CHAT_N_OUTPUT, t);
            n->a = chat_parse_tuple(p, false, true, NULL);
            chat_parse_expect(p, CHAT_T_VARIABLE_END, NULL);
            chat_parse_push(p, &body, n);
        } else {
            if (ends_body(p, ends))
                break;
            chat_node *n = parse_tag(p);
            chat_parse_expect(p, CHAT_T_BLOCK_END, NULL);
            if (n)
                chat_parse_push(p, &body, n);
        }
    }
    p->depth--;
    return body;
}

/* The rest of the opening tag, then the body. The end's name stays unread. */
static chat_nodes parse_body(chat_parser_state *p, const char *const *ends)
{
    chat_parse_skip(p, CHAT_T_OPERATOR, ":");
    chat_parse_expect(p, CHAT_T_BLOCK_END, NULL);
    return parse_until(p, ends);
}

static chat_nodes parse_block_body(chat_parser_state *p, const char *end)
{
    const char *const ends[] = {end, NULL};
    chat_nodes body = parse_body(p, ends);
    p->at++;
    return body;
}

/* ---- targets -------------------------------------------------------------------------------------------------------- */

static void check_target(chat_parser_state *p, const chat_node *n, const chat_token *where)
{
    if (n->kind == CHAT_N_TUPLE) {
        for (uint32_t i = 0; i < n->n; i++)
            check_target(p, n->items[i], where);
        return;
    }
    if (n->kind != CHAT_N_NAME)
        chat_parse_fail(p, where, "cannot assign to this: a name or a tuple of names is expected");
}

static chat_node *parse_target(chat_parser_state *p, bool with_namespace, const char *end)
{
    const chat_token *t = chat_parse_peek(p, 0);
    if (with_namespace && t->kind == CHAT_T_NAME &&
        token_is(chat_parse_peek(p, 1), CHAT_T_OPERATOR, ".")) {
        chat_node *n = chat_parse_node(p, CHAT_N_NSREF, t);
        n->name = chat_parse_symbol(p, t->text);
        p->at += 2;
        n->text = chat_parse_expect(p, CHAT_T_NAME, NULL)->text;
        return n;
    }
    chat_node *n = chat_parse_tuple(p, true, false, end);
    check_target(p, n, t);
    return n;
}

static const chat_symbol *parse_name(chat_parser_state *p)
{
    return chat_parse_symbol(p, chat_parse_expect(p, CHAT_T_NAME, NULL)->text);
}

/* ---- tags ----------------------------------------------------------------------------------------------------------- */

static chat_node *parse_if(chat_parser_state *p, const chat_token *where)
{
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    chat_node *first = NULL, *last = NULL;
    for (;;) {
        chat_node *n = chat_parse_node(p, CHAT_N_IF, where);
        n->a = chat_parse_tuple(p, false, false, NULL);
        take_items(n, parse_body(p, ends));
        if (last) {
            chat_nodes chain = {0};
            chat_parse_push(p, &chain, n);
            take_extra(last, chain);
        }
        first = first ? first : n;
        last = n;
        where = chat_parse_peek(p, 0);
        p->at++;
        if (!str_is(where->text, "elif"))
            break;
    }
    if (str_is(where->text, "else"))
        take_extra(last, parse_block_body(p, "endif"));
    return first;
}

static chat_node *parse_for(chat_parser_state *p, const chat_token *where)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    chat_node *n = chat_parse_node(p, CHAT_N_FOR, where);
    n->a = parse_target(p, false, "in");
    chat_parse_expect(p, CHAT_T_NAME, "in");
    n->b = chat_parse_tuple(p, false, false, "recursive");
    if (chat_parse_skip(p, CHAT_T_NAME, "if"))
        n->c = chat_parse_expression(p, true);
    n->flag = chat_parse_skip(p, CHAT_T_NAME, "recursive");
    p->loops++;
    take_items(n, parse_body(p, ends));
    p->loops--;
    if (str_is(chat_parse_peek(p, 0)->text, "else")) {
        p->at++;
        take_extra(n, parse_block_body(p, "endfor"));
    } else
        p->at++;
    return n;
}

static chat_node *parse_set(chat_parser_state *p, const chat_token *where)
{
    chat_node *target = parse_target(p, true, NULL);
    if (chat_parse_skip(p, CHAT_T_OPERATOR, "=")) {
        chat_node *n = chat_parse_node(p, CHAT_N_SET, where);
        n->a = target;
        n->b = chat_parse_tuple(p, false, true, NULL);
        return n;
    }
    chat_node *n = chat_parse_node(p, CHAT_N_SET_BLOCK, where);
    n->a = target;
    if (chat_parse_is(p, CHAT_T_OPERATOR, "|"))
        n->b = chat_parse_filter_chain(p, chat_parse_node(p, CHAT_N_FILTER_INPUT, where), false);
    take_items(n, parse_block_body(p, "endset"));
    return n;
}

/* (a, b=1): a SET per parameter, b NULL without a default. */
static void parse_signature(chat_parser_state *p, chat_node *macro)
{
    chat_nodes parameters = {0};
    bool defaults = false;
    chat_parse_expect(p, CHAT_T_OPERATOR, "(");
    while (!chat_parse_is(p, CHAT_T_OPERATOR, ")")) {
        if (parameters.n)
            chat_parse_expect(p, CHAT_T_OPERATOR, ",");
        const chat_token *t = chat_parse_peek(p, 0);
        chat_node *n = chat_parse_node(p, CHAT_N_SET, t);
        n->name = parse_name(p);
        if (chat_parse_skip(p, CHAT_T_OPERATOR, "=")) {
            n->b = chat_parse_expression(p, true);
            defaults = true;
        } else if (defaults)
            chat_parse_fail(p, t, "a parameter without a default follows one with a default");
        chat_parse_push(p, &parameters, n);
    }
    p->at++;
    take_extra(macro, parameters);
}

/* Body of a macro or call block: its own world for break and for the special names. */
static void parse_macro_body(chat_parser_state *p, chat_node *macro, const char *end)
{
    int loops = p->loops;
    unsigned uses = p->uses;
    p->loops = 0;
    p->uses = 0;
    take_items(macro, parse_block_body(p, end));
    macro->flag = (uint8_t)p->uses;
    p->uses |= uses;
    p->loops = loops;
}

static chat_node *parse_macro(chat_parser_state *p, const chat_token *where)
{
    chat_node *n = chat_parse_node(p, CHAT_N_MACRO, where);
    n->name = parse_name(p);
    n->text = n->name->text;
    parse_signature(p, n);
    parse_macro_body(p, n, "endmacro");
    return n;
}

static chat_node *parse_call_block(chat_parser_state *p, const chat_token *where)
{
    chat_node *n = chat_parse_node(p, CHAT_N_CALL_BLOCK, where);
    n->b = chat_parse_node(p, CHAT_N_MACRO, where);
    n->b->text = str_from("caller");
    if (chat_parse_is(p, CHAT_T_OPERATOR, "("))
        parse_signature(p, n->b);
    n->a = chat_parse_expression(p, true);
    if (n->a->kind != CHAT_N_CALL)
        chat_parse_fail(p, where, "a call block needs a call");
    parse_macro_body(p, n->b, "endcall");
    return n;
}

static chat_node *parse_filter_block(chat_parser_state *p, const chat_token *where)
{
    chat_node *n = chat_parse_node(p, CHAT_N_FILTER_BLOCK, where);
    n->b = chat_parse_filter_chain(p, chat_parse_node(p, CHAT_N_FILTER_INPUT, where), true);
    take_items(n, parse_block_body(p, "endfilter"));
    return n;
}

static chat_node *parse_with(chat_parser_state *p, const chat_token *where)
{
    chat_node *n = chat_parse_node(p, CHAT_N_WITH, where);
    chat_nodes sets = {0};
    while (!chat_parse_is(p, CHAT_T_BLOCK_END, NULL)) {
        if (sets.n)
            chat_parse_expect(p, CHAT_T_OPERATOR, ",");
        chat_node *set = chat_parse_node(p, CHAT_N_SET, chat_parse_peek(p, 0));
        set->a = parse_target(p, false, NULL);
        chat_parse_expect(p, CHAT_T_OPERATOR, "=");
        set->b = chat_parse_expression(p, true);
        chat_parse_push(p, &sets, set);
    }
    take_extra(n, sets);
    take_items(n, parse_block_body(p, "endwith"));
    return n;
}

static chat_node *parse_block(chat_parser_state *p, const chat_token *where)
{
    chat_node *n = chat_parse_node(p, CHAT_N_BLOCK, where);
    str name = chat_parse_expect(p, CHAT_T_NAME, NULL)->text;
    chat_parse_skip(p, CHAT_T_NAME, "scoped");
    take_items(n, parse_block_body(p, "endblock"));
    if (chat_parse_is(p, CHAT_T_NAME, NULL) && str_equal(chat_parse_peek(p, 0)->text, name))
        p->at++;
    return n;
}

static chat_node *parse_generation(chat_parser_state *p, const chat_token *where)
{
    chat_node *n = chat_parse_node(p, CHAT_N_GENERATION, where);
    int loops = p->loops;
    p->loops = 0;
    take_items(n, parse_block_body(p, "endgeneration"));
    p->loops = loops;
    return n;
}

static chat_node *parse_print(chat_parser_state *p, const chat_token *where)
{
    chat_node *block = chat_parse_node(p, CHAT_N_BLOCK, where);
    block->flag = 1; /* no scope of its own */
    chat_nodes items = {0};
    while (!chat_parse_is(p, CHAT_T_BLOCK_END, NULL)) {
        if (items.n)
            chat_parse_expect(p, CHAT_T_OPERATOR, ",");
        chat_node *n = chat_parse_node(p, CHAT_N_OUTPUT, where);
        n->a = chat_parse_expression(p, true);
        chat_parse_push(p, &items, n);
    }
    take_items(block, items);
    return block;
}

static chat_node *parse_jump(chat_parser_state *p, const chat_token *where)
{
    if (p->loops == 0)
        chat_parse_fail(p, where, "'%.*s' outside a loop", (int)where->text.length,
                        where->text.data);
    return chat_parse_node(p, str_is(where->text, "break") ? CHAT_N_BREAK : CHAT_N_CONTINUE, where);
}

static chat_node *parse_tag(chat_parser_state *p)
{
    static const struct {
        const char *name;
        chat_node *(*parse)(chat_parser_state *p, const chat_token *where);
    } tags[] = {
        {"if", parse_if},           {"for", parse_for},
        {"set", parse_set},         {"macro", parse_macro},
        {"call", parse_call_block}, {"filter", parse_filter_block},
        {"with", parse_with},       {"block", parse_block},
        {"print", parse_print},     {"generation", parse_generation},
        {"break", parse_jump},      {"continue", parse_jump},
    };
    const chat_token *t = chat_parse_expect(p, CHAT_T_NAME, NULL);
    for (size_t i = 0; i < BASE_COUNT(tags); i++)
        if (str_is(t->text, tags[i].name))
            return tags[i].parse(p, t);
    chat_parse_fail(p, t, "unknown tag '%.*s'", (int)BASE_MIN(t->text.length, (size_t)60),
                    t->text.data);
}

status chat_jinja_parse(chat_template *t, err *e)
{
    chat_token *tokens = NULL;
    chat_parser_state p = {.t = t, .e = e};
    status s = chat_jinja_lex(&t->memory, t->source, &tokens, &p.n, e);
    if (s != STATUS_OK)
        return s;
    p.tokens = tokens;
    if (setjmp(p.escape))
        return p.code;
    t->loop = chat_parse_symbol(&p, str_from("loop"));
    t->caller = chat_parse_symbol(&p, str_from("caller"));
    t->varargs = chat_parse_symbol(&p, str_from("varargs"));
    t->kwargs = chat_parse_symbol(&p, str_from("kwargs"));
    t->root = chat_parse_node(&p, CHAT_N_BLOCK, &tokens[0]);
    take_items(t->root, parse_until(&p, NULL));
    return STATUS_OK;
}
