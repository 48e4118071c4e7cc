/*
 * Tokens, the tree and the parser of the template language. Internal to src/chat.
 *
 * source → jinja_lex.c (tokens) → jinja_parse.c (statements), jinja_expression.c (expressions) → the tree, in the template's arena, immutable from then on:
 * any number of threads may render it.
 */
#ifndef SHOAL_CHAT_JINJA_TREE_H
#define SHOAL_CHAT_JINJA_TREE_H

#include <setjmp.h>

#include "chat/jinja_value.h"

/* ---- tokens -------------------------------------------------------------------------------------------------------- */

typedef enum chat_token_kind {
    CHAT_T_EOF,
    CHAT_T_DATA,
    CHAT_T_BLOCK_BEGIN,
    CHAT_T_BLOCK_END,
    CHAT_T_VARIABLE_BEGIN,
    CHAT_T_VARIABLE_END,
    CHAT_T_NAME,
    CHAT_T_STRING,
    CHAT_T_INT,
    CHAT_T_FLOAT,
    CHAT_T_OPERATOR
} chat_token_kind;

typedef struct chat_token {
    chat_token_kind kind;
    uint32_t line, column;
    str text; /* DATA and NAME: the bytes; STRING: unescaped; OPERATOR: as written */
    union {
        int64_t integer;
        double number;
    } as;
} chat_token;

/* ---- the tree ------------------------------------------------------------------------------------------------------ */

typedef enum chat_node_kind {
    /* statements; body = items */
    CHAT_N_DATA,   /* text */
    CHAT_N_OUTPUT, /* a */
    CHAT_N_IF,     /* a, items; extra = the else branch (an elif is one IF in it) */
    CHAT_N_FOR, /* a = target, b = iterable, c = condition, items, extra = else; flag = recursive */
    CHAT_N_SET, /* a = target, b */
    CHAT_N_SET_BLOCK,    /* a = target, b = filter chain or NULL, items */
    CHAT_N_MACRO,        /* name, extra = parameters, items; also a call block's body */
    CHAT_N_CALL_BLOCK,   /* a = the call, b = MACRO */
    CHAT_N_FILTER_BLOCK, /* b = filter chain, items */
    CHAT_N_WITH,         /* extra = SET …, items */
    CHAT_N_BLOCK,        /* items */
    CHAT_N_GENERATION,   /* items */
    CHAT_N_BREAK,
    CHAT_N_CONTINUE,
    /* expressions */
    CHAT_N_CONST,   /* constant */
    CHAT_N_NAME,    /* name */
    CHAT_N_NSREF,   /* name, attribute (assignment target) */
    CHAT_N_LIST,    /* items */
    CHAT_N_TUPLE,   /* items */
    CHAT_N_DICT,    /* items = key, value, … */
    CHAT_N_NOT,     /* a */
    CHAT_N_NEGATE,  /* a */
    CHAT_N_PLUS,    /* a */
    CHAT_N_AND,     /* a, b */
    CHAT_N_OR,      /* a, b */
    CHAT_N_BINARY,  /* op, a, b */
    CHAT_N_CONCAT,  /* items */
    CHAT_N_COMPARE, /* a, items = COMPARE operands (op, a) */
    CHAT_N_COND,    /* a = condition, b = then, c = else or NULL */
    CHAT_N_GETATTR, /* a, text */
    CHAT_N_GETITEM, /* a, b */
    CHAT_N_SLICE,   /* a, b, c each NULL or given */
    CHAT_N_CALL,    /* a; arguments: items, extra = KEYWORD (text, a), b = *args, c = **kwargs */
    CHAT_N_FILTER,  /* a (NULL: the text of a block), text, builtin; arguments as CALL */
    CHAT_N_TEST,    /* a, text, builtin; arguments as CALL */
    CHAT_N_KEYWORD,
    CHAT_N_FILTER_INPUT /* the text that a filter chain of a block starts from */
} chat_node_kind;

typedef struct chat_symbol { /* an interned name */
    str text;
    struct chat_symbol *next;
} chat_symbol;

enum { CHAT_USES_CALLER = 1, CHAT_USES_VARARGS = 2, CHAT_USES_KWARGS = 4 };

struct chat_node {
    uint8_t kind, op, flag; /* MACRO: flag = CHAT_USES_* */
    uint32_t line, column;
    chat_node *a, *b, *c;
    chat_node **items, **extra;
    uint32_t n, n_extra;
    const chat_symbol *name;
    str text;
    chat_value constant;
    const chat_builtin *builtin;
};

enum { CHAT_N_BUCKETS = 256 };

struct chat_template {
    arena memory;
    str source;
    chat_node *root; /* BLOCK */
    chat_symbol *buckets[CHAT_N_BUCKETS];
    const chat_symbol *loop, *caller, *varargs, *kwargs;
    chat_traits traits;
};

status chat_jinja_lex(arena *a, str source, chat_token **out, size_t *out_n, err *e);
status chat_jinja_parse(chat_template *t, err *e); /* t->source → t->root */

/* The parser's state, shared by the statement and the expression half. Failures leave by longjmp. */
typedef struct chat_parser_state {
    chat_template *t;
    const chat_token *tokens;
    size_t at, n;
    int depth, loops; /* nesting; open loops, for break and continue */
    unsigned uses;    /* CHAT_USES_* seen in the macro that is open */
    jmp_buf escape;
    err *e;
    status code;
} chat_parser_state;

BASE_NORETURN void chat_parse_fail(chat_parser_state *p, const chat_token *where,
                                   const char *format, ...) BASE_PRINTF(3, 4);
BASE_NORETURN void chat_parse_no_memory(chat_parser_state *p);
const chat_token *chat_parse_peek(chat_parser_state *p, size_t ahead);
bool chat_parse_is(chat_parser_state *p, chat_token_kind kind,
                   const char *text); /* text NULL: any */
bool chat_parse_skip(chat_parser_state *p, chat_token_kind kind, const char *text);
const chat_token *chat_parse_expect(chat_parser_state *p, chat_token_kind kind, const char *text);
chat_node *chat_parse_node(chat_parser_state *p, chat_node_kind kind, const chat_token *where);
const chat_symbol *chat_parse_symbol(chat_parser_state *p, str text);
void chat_parse_enter(chat_parser_state *p); /* one level deeper; too deep fails */

typedef struct chat_nodes { /* a growing list of nodes in the template's arena */
    chat_node **items;
    uint32_t n, capacity;
} chat_nodes;
void chat_parse_push(chat_parser_state *p, chat_nodes *list, chat_node *node);

chat_node *chat_parse_expression(chat_parser_state *p, bool with_condition);
chat_node *chat_parse_primary(chat_parser_state *p);
/* simplified: assignment targets. end: a name that ends the tuple, or NULL. */
chat_node *chat_parse_tuple(chat_parser_state *p, bool simplified, bool with_condition,
                            const char *end);
chat_node *chat_parse_filter_chain(chat_parser_state *p, chat_node *start, bool inline_first);

#endif
