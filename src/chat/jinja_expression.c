/*
 * Tokens → the tree, expressions half. The levels, loosest first: if/else, or, and, not, comparison and in, + -, ~, * / // %,
 * **, unary minus, then a primary with its subscripts, calls, filters and tests. As in jinja2: `~` binds tighter than `+`,
 * and a filter or test behind a negated number belongs to the negation.
 */
#include <string.h>

#include "chat/jinja.h"

static chat_node *parse_or(chat_parser_state *p);
static chat_node *parse_unary(chat_parser_state *p, bool with_filter);

static bool is_operator(chat_parser_state *p, const char *text)
{
    return chat_parse_is(p, CHAT_T_OPERATOR, text);
}

static bool is_name(chat_parser_state *p, const char *text)
{
    return chat_parse_is(p, CHAT_T_NAME, text);
}

static void set_items(chat_node *n, chat_nodes list)
{
    n->items = list.items;
    n->n = list.n;
}

static chat_node *pair(chat_parser_state *p, chat_node_kind kind, const chat_token *where,
                       chat_node *a, chat_node *b)
{
    chat_node *n = chat_parse_node(p, kind, where);
    n->a = a;
    n->b = b;
    return n;
}

static chat_node *constant(chat_parser_state *p, const chat_token *where, chat_value v)
{
    chat_node *n = chat_parse_node(p, CHAT_N_CONST, where);
    n->constant = v;
    return n;
}

static chat_value text_value(chat_parser_state *p, const chat_token *where, str text)
{
    if (text.length > UINT32_MAX)
        chat_parse_fail(p, where, "a string of more than 4 GiB");
    bool ascii = true;
    for (size_t i = 0; i < text.length; i++)
        ascii &= (unsigned char)text.data[i] < 0x80;
    return (chat_value){.kind = CHAT_V_STRING,
                        .flags = ascii ? CHAT_FLAG_ASCII : 0,
                        .length = (uint32_t)text.length,
                        .as.text = text.data};
}

/* ---- arguments ------------------------------------------------------------------------------------------------------ */

/* "(" … ")" into n: items, extra (keywords), b = *args, c = **kwargs. */
static void parse_arguments(chat_parser_state *p, chat_node *n)
{
    chat_nodes items = {0}, keywords = {0};
    const chat_token *open = chat_parse_expect(p, CHAT_T_OPERATOR, "(");
    bool first = true;
    while (!is_operator(p, ")")) {
        if (!first) {
            chat_parse_expect(p, CHAT_T_OPERATOR, ",");
            if (is_operator(p, ")"))
                break;
        }
        first = false;
        const chat_token *t = chat_parse_peek(p, 0), *next = chat_parse_peek(p, 1);
        bool ok = true;
        if (chat_parse_skip(p, CHAT_T_OPERATOR, "*")) {
            ok = !n->b && !n->c;
            n->b = chat_parse_expression(p, true);
        } else if (chat_parse_skip(p, CHAT_T_OPERATOR, "**")) {
            ok = !n->c;
            n->c = chat_parse_expression(p, true);
        } else if (t->kind == CHAT_T_NAME && next->kind == CHAT_T_OPERATOR &&
                   str_is(next->text, "=")) {
            ok = !n->c;
            p->at += 2;
            chat_node *keyword = chat_parse_node(p, CHAT_N_KEYWORD, t);
            keyword->text = t->text;
            keyword->a = chat_parse_expression(p, true);
            chat_parse_push(p, &keywords, keyword);
        } else {
            ok = !n->b && !n->c && !keywords.n;
            chat_parse_push(p, &items, chat_parse_expression(p, true));
        }
        if (!ok)
            chat_parse_fail(p, open, "arguments in the wrong order");
    }
    p->at++;
    set_items(n, items);
    n->extra = keywords.items;
    n->n_extra = keywords.n;
}

/* ---- primaries ------------------------------------------------------------------------------------------------------ */

static chat_node *parse_list(chat_parser_state *p, const chat_token *where)
{
    chat_nodes items = {0};
    while (!is_operator(p, "]")) {
        if (items.n)
            chat_parse_expect(p, CHAT_T_OPERATOR, ",");
        if (is_operator(p, "]"))
            break;
        chat_parse_push(p, &items, chat_parse_expression(p, true));
    }
    p->at++;
    chat_node *n = chat_parse_node(p, CHAT_N_LIST, where);
    set_items(n, items);
    return n;
}

static chat_node *parse_dict(chat_parser_state *p, const chat_token *where)
{
    chat_nodes items = {0};
    while (!is_operator(p, "}")) {
        if (items.n)
            chat_parse_expect(p, CHAT_T_OPERATOR, ",");
        if (is_operator(p, "}"))
            break;
        chat_parse_push(p, &items, chat_parse_expression(p, true));
        chat_parse_expect(p, CHAT_T_OPERATOR, ":");
        chat_parse_push(p, &items, chat_parse_expression(p, true));
    }
    p->at++;
    chat_node *n = chat_parse_node(p, CHAT_N_DICT, where);
    set_items(n, items);
    return n;
}

static chat_node *parse_name(chat_parser_state *p, const chat_token *t)
{
    if (str_is(t->text, "true") || str_is(t->text, "True"))
        return constant(p, t, chat_bool(true));
    if (str_is(t->text, "false") || str_is(t->text, "False"))
        return constant(p, t, chat_bool(false));
    if (str_is(t->text, "none") || str_is(t->text, "None"))
        return constant(p, t, chat_none());
    chat_node *n = chat_parse_node(p, CHAT_N_NAME, t);
    n->name = chat_parse_symbol(p, t->text);
    if (n->name == p->t->caller)
        p->uses |= CHAT_USES_CALLER;
    else if (n->name == p->t->varargs)
        p->uses |= CHAT_USES_VARARGS;
    else if (n->name == p->t->kwargs)
        p->uses |= CHAT_USES_KWARGS;
    return n;
}

/* Neighbouring literals are one string. */
static chat_node *parse_strings(chat_parser_state *p, const chat_token *first)
{
    size_t total = first->text.length, n = 1;
    while (chat_parse_is(p, CHAT_T_STRING, NULL)) {
        total += chat_parse_peek(p, 0)->text.length;
        n++;
        p->at++;
    }
    if (n == 1)
        return constant(p, first, text_value(p, first, first->text));
    char *text = arena_alloc(&p->t->memory, total + 1);
    if (!text)
        chat_parse_no_memory(p);
    char *to = text;
    for (size_t i = 0; i < n; i++) {
        str piece = first[i].text;
        memcpy(to, piece.data, piece.length);
        to += piece.length;
    }
    return constant(p, first, text_value(p, first, (str){text, total}));
}

chat_node *chat_parse_primary(chat_parser_state *p)
{
    const chat_token *t = chat_parse_peek(p, 0);
    p->at++;
    switch (t->kind) {
    case CHAT_T_NAME:
        return parse_name(p, t);
    case CHAT_T_STRING:
        return parse_strings(p, t);
    case CHAT_T_INT:
        return constant(p, t, chat_int(t->as.integer));
    case CHAT_T_FLOAT:
        return constant(p, t, chat_float(t->as.number));
    case CHAT_T_OPERATOR:
        if (str_is(t->text, "(")) {
            chat_node *n = NULL;
            if (is_operator(p, ")"))
                n = chat_parse_node(p, CHAT_N_TUPLE, t);
            else
                n = chat_parse_tuple(p, false, true, NULL);
            chat_parse_expect(p, CHAT_T_OPERATOR, ")");
            return n;
        }
        if (str_is(t->text, "["))
            return parse_list(p, t);
        if (str_is(t->text, "{"))
            return parse_dict(p, t);
        break;
    default:
        break;
    }
    p->at--;
    if (t->kind == CHAT_T_OPERATOR)
        chat_parse_fail(p, t, "expected an expression, got '%.*s'", (int)t->text.length,
                        t->text.data);
    chat_parse_fail(p, t, "expected an expression");
}

/* One index or slice between brackets. */
static chat_node *parse_subscribed(chat_parser_state *p)
{
    const chat_token *t = chat_parse_peek(p, 0);
    chat_node *parts[3] = {NULL, NULL, NULL};
    if (!is_operator(p, ":")) {
        parts[0] = chat_parse_expression(p, true);
        if (!is_operator(p, ":"))
            return parts[0];
    }
    for (int i = 1; i < 3 && chat_parse_skip(p, CHAT_T_OPERATOR, ":"); i++) {
        if (!is_operator(p, ":") && !is_operator(p, "]") && !is_operator(p, ","))
            parts[i] = chat_parse_expression(p, true);
    }
    chat_node *n = chat_parse_node(p, CHAT_N_SLICE, t);
    n->a = parts[0];
    n->b = parts[1];
    n->c = parts[2];
    return n;
}

static chat_node *parse_subscript(chat_parser_state *p, chat_node *object)
{
    const chat_token *t = chat_parse_peek(p, 0);
    if (chat_parse_skip(p, CHAT_T_OPERATOR, ".")) {
        const chat_token *name = chat_parse_peek(p, 0);
        p->at++;
        if (name->kind == CHAT_T_INT)
            return pair(p, CHAT_N_GETITEM, t, object,
                        constant(p, name, chat_int(name->as.integer)));
        if (name->kind != CHAT_T_NAME)
            chat_parse_fail(p, name, "expected a name or a number behind the dot");
        chat_node *n = pair(p, CHAT_N_GETATTR, t, object, NULL);
        n->text = name->text;
        return n;
    }
    p->at++;
    chat_nodes keys = {0};
    while (!is_operator(p, "]")) {
        if (keys.n)
            chat_parse_expect(p, CHAT_T_OPERATOR, ",");
        chat_parse_push(p, &keys, parse_subscribed(p));
    }
    p->at++;
    if (keys.n == 1)
        return pair(p, CHAT_N_GETITEM, t, object, keys.items[0]);
    chat_node *tuple = chat_parse_node(p, CHAT_N_TUPLE, t);
    set_items(tuple, keys);
    return pair(p, CHAT_N_GETITEM, t, object, tuple);
}

static chat_node *parse_call(chat_parser_state *p, chat_node *callee)
{
    chat_node *n = chat_parse_node(p, CHAT_N_CALL, chat_parse_peek(p, 0));
    n->a = callee;
    parse_arguments(p, n);
    return n;
}

static chat_node *parse_postfix(chat_parser_state *p, chat_node *n)
{
    for (;;) {
        if (is_operator(p, ".") || is_operator(p, "["))
            n = parse_subscript(p, n);
        else if (is_operator(p, "("))
            n = parse_call(p, n);
        else
            return n;
    }
}

/* A dotted filter or test name. */
static str parse_dotted(chat_parser_state *p)
{
    str name = chat_parse_expect(p, CHAT_T_NAME, NULL)->text;
    while (chat_parse_skip(p, CHAT_T_OPERATOR, ".")) {
        str more = chat_parse_expect(p, CHAT_T_NAME, NULL)->text;
        name.length = (size_t)(more.data + more.length - name.data);
    }
    return name;
}

chat_node *chat_parse_filter_chain(chat_parser_state *p, chat_node *start, bool inline_first)
{
    chat_node *n = start;
    while (inline_first || chat_parse_skip(p, CHAT_T_OPERATOR, "|")) {
        inline_first = false;
        chat_node *filter = pair(p, CHAT_N_FILTER, chat_parse_peek(p, 0), n, NULL);
        filter->text = parse_dotted(p);
        filter->builtin = chat_find_filter(filter->text);
        if (is_operator(p, "("))
            parse_arguments(p, filter);
        n = filter;
    }
    return n;
}

static bool starts_test_argument(chat_parser_state *p)
{
    const chat_token *t = chat_parse_peek(p, 0);
    switch (t->kind) {
    case CHAT_T_NAME:
        return !str_is(t->text, "else") && !str_is(t->text, "or") && !str_is(t->text, "and");
    case CHAT_T_STRING:
    case CHAT_T_INT:
    case CHAT_T_FLOAT:
        return true;
    case CHAT_T_OPERATOR:
        return str_is(t->text, "[") || str_is(t->text, "{");
    default:
        return false;
    }
}

static chat_node *parse_test(chat_parser_state *p, chat_node *subject)
{
    const chat_token *where = chat_parse_peek(p, 0);
    p->at++;
    bool negated = chat_parse_skip(p, CHAT_T_NAME, "not");
    chat_node *test = pair(p, CHAT_N_TEST, where, subject, NULL);
    test->text = parse_dotted(p);
    test->builtin = chat_find_test(test->text);
    if (is_operator(p, "("))
        parse_arguments(p, test);
    else if (starts_test_argument(p)) {
        if (is_name(p, "is"))
            chat_parse_fail(p, chat_parse_peek(p, 0), "tests with 'is' cannot be chained");
        chat_nodes items = {0};
        chat_parse_push(p, &items, parse_postfix(p, chat_parse_primary(p)));
        set_items(test, items);
    }
    return negated ? pair(p, CHAT_N_NOT, where, test, NULL) : test;
}

static chat_node *parse_filters_and_tests(chat_parser_state *p, chat_node *n)
{
    for (;;) {
        if (is_operator(p, "|"))
            n = chat_parse_filter_chain(p, n, false);
        else if (is_name(p, "is"))
            n = parse_test(p, n);
        else if (is_operator(p, "("))
            n = parse_call(p, n);
        else
            return n;
    }
}

/* ---- operators ------------------------------------------------------------------------------------------------------ */

static chat_node *parse_unary(chat_parser_state *p, bool with_filter)
{
    const chat_token *t = chat_parse_peek(p, 0);
    chat_node *n;
    chat_parse_enter(p);
    if (chat_parse_skip(p, CHAT_T_OPERATOR, "-"))
        n = pair(p, CHAT_N_NEGATE, t, parse_unary(p, false), NULL);
    else if (chat_parse_skip(p, CHAT_T_OPERATOR, "+"))
        n = pair(p, CHAT_N_PLUS, t, parse_unary(p, false), NULL);
    else
        n = chat_parse_primary(p);
    n = parse_postfix(p, n);
    if (with_filter)
        n = parse_filters_and_tests(p, n);
    p->depth--;
    return n;
}

typedef struct operator_row {
    const char *text;
    chat_op op;
} operator_row;

static const operator_row *find_operator(chat_parser_state *p, const operator_row *rows)
{
    const chat_token *t = chat_parse_peek(p, 0);
    if (t->kind != CHAT_T_OPERATOR)
        return NULL;
    for (; rows->text; rows++)
        if (str_is(t->text, rows->text))
            return rows;
    return NULL;
}

static chat_node *binary(chat_parser_state *p, const operator_row *row, chat_node *left,
                         chat_node *(*next)(chat_parser_state *p))
{
    const chat_token *t = chat_parse_peek(p, 0);
    p->at++;
    chat_node *n = pair(p, CHAT_N_BINARY, t, left, next(p));
    n->op = (uint8_t)row->op;
    return n;
}

static chat_node *parse_operand(chat_parser_state *p)
{
    return parse_unary(p, true);
}

static chat_node *parse_power(chat_parser_state *p)
{
    static const operator_row rows[] = {{"**", CHAT_OP_POWER}, {NULL, 0}};
    chat_node *n = parse_operand(p);
    for (const operator_row *row; (row = find_operator(p, rows));)
        n = binary(p, row, n, parse_operand);
    return n;
}

static chat_node *parse_product(chat_parser_state *p)
{
    static const operator_row rows[] = {{"*", CHAT_OP_MULTIPLY},
                                        {"/", CHAT_OP_DIVIDE},
                                        {"//", CHAT_OP_FLOOR_DIVIDE},
                                        {"%", CHAT_OP_MODULO},
                                        {NULL, 0}};
    chat_node *n = parse_power(p);
    for (const operator_row *row; (row = find_operator(p, rows));)
        n = binary(p, row, n, parse_power);
    return n;
}

static chat_node *parse_concat(chat_parser_state *p)
{
    const chat_token *t = chat_parse_peek(p, 0);
    chat_node *first = parse_product(p);
    if (!is_operator(p, "~"))
        return first;
    chat_nodes items = {0};
    chat_parse_push(p, &items, first);
    while (chat_parse_skip(p, CHAT_T_OPERATOR, "~"))
        chat_parse_push(p, &items, parse_product(p));
    chat_node *n = chat_parse_node(p, CHAT_N_CONCAT, t);
    set_items(n, items);
    return n;
}

static chat_node *parse_sum(chat_parser_state *p)
{
    static const operator_row rows[] = {{"+", CHAT_OP_ADD}, {"-", CHAT_OP_SUBTRACT}, {NULL, 0}};
    chat_node *n = parse_concat(p);
    for (const operator_row *row; (row = find_operator(p, rows));)
        n = binary(p, row, n, parse_concat);
    return n;
}

/* The comparison at the current token; moves behind it. */
static bool comparison(chat_parser_state *p, chat_op *op)
{
    static const operator_row rows[] = {{"==", CHAT_OP_EQUAL},
                                        {"!=", CHAT_OP_NOT_EQUAL},
                                        {"<", CHAT_OP_LESS},
                                        {"<=", CHAT_OP_LESS_EQUAL},
                                        {">", CHAT_OP_GREATER},
                                        {">=", CHAT_OP_GREATER_EQUAL},
                                        {NULL, 0}};
    const operator_row *row = find_operator(p, rows);
    if (row) {
        *op = row->op;
        p->at++;
        return true;
    }
    if (chat_parse_skip(p, CHAT_T_NAME, "in")) {
        *op = CHAT_OP_IN;
        return true;
    }
    const chat_token *next = chat_parse_peek(p, 1);
    if (is_name(p, "not") && next->kind == CHAT_T_NAME && str_is(next->text, "in")) {
        p->at += 2;
        *op = CHAT_OP_NOT_IN;
        return true;
    }
    return false;
}

static chat_node *parse_compare(chat_parser_state *p)
{
    chat_node *first = parse_sum(p), *n = NULL;
    chat_nodes operands = {0};
    chat_op op = CHAT_OP_EQUAL;
    for (;;) {
        const chat_token *t = chat_parse_peek(p, 0);
        if (!comparison(p, &op))
            break;
        if (!n)
            n = pair(p, CHAT_N_COMPARE, t, first, NULL);
        chat_node *operand = pair(p, CHAT_N_COMPARE, t, parse_sum(p), NULL);
        operand->op = (uint8_t)op;
        chat_parse_push(p, &operands, operand);
    }
    if (!n)
        return first;
    set_items(n, operands);
    return n;
}

static chat_node *parse_not(chat_parser_state *p)
{
    const chat_token *t = chat_parse_peek(p, 0);
    if (!is_name(p, "not"))
        return parse_compare(p);
    p->at++;
    chat_parse_enter(p);
    chat_node *n = pair(p, CHAT_N_NOT, t, parse_not(p), NULL);
    p->depth--;
    return n;
}

static chat_node *parse_and(chat_parser_state *p)
{
    chat_node *n = parse_not(p);
    for (const chat_token *t; (t = chat_parse_peek(p, 0), chat_parse_skip(p, CHAT_T_NAME, "and"));)
        n = pair(p, CHAT_N_AND, t, n, parse_not(p));
    return n;
}

static chat_node *parse_or(chat_parser_state *p)
{
    chat_node *n = parse_and(p);
    for (const chat_token *t; (t = chat_parse_peek(p, 0), chat_parse_skip(p, CHAT_T_NAME, "or"));)
        n = pair(p, CHAT_N_OR, t, n, parse_and(p));
    return n;
}

chat_node *chat_parse_expression(chat_parser_state *p, bool with_condition)
{
    chat_parse_enter(p);
    chat_node *n = parse_or(p);
    for (const chat_token *t;
         with_condition && (t = chat_parse_peek(p, 0), chat_parse_skip(p, CHAT_T_NAME, "if"));) {
        chat_node *condition = chat_parse_node(p, CHAT_N_COND, t);
        condition->a = parse_or(p);
        condition->b = n;
        if (chat_parse_skip(p, CHAT_T_NAME, "else"))
            condition->c = chat_parse_expression(p, true);
        n = condition;
    }
    p->depth--;
    return n;
}

chat_node *chat_parse_tuple(chat_parser_state *p, bool simplified, bool with_condition,
                            const char *end)
{
    const chat_token *t = chat_parse_peek(p, 0);
    chat_nodes items = {0};
    bool is_tuple = false;
    chat_parse_enter(p);
    for (;;) {
        if (items.n && !chat_parse_skip(p, CHAT_T_OPERATOR, ","))
            break;
        is_tuple = items.n > 0;
        bool over = chat_parse_is(p, CHAT_T_VARIABLE_END, NULL) ||
                    chat_parse_is(p, CHAT_T_BLOCK_END, NULL) || is_operator(p, ")") ||
                    (end && is_name(p, end));
        if (over)
            break;
        chat_parse_push(p, &items,
                        simplified ? chat_parse_primary(p)
                                   : chat_parse_expression(p, with_condition));
    }
    p->depth--;
    if (!is_tuple && items.n)
        return items.items[0];
    if (!items.n)
        chat_parse_fail(p, t, "expected an expression");
    chat_node *n = chat_parse_node(p, CHAT_N_TUPLE, t);
    set_items(n, items);
    return n;
}
