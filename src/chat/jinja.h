/*
 * The template language inside chat: tokens, the tree, values and the running state. Internal to src/chat.
 *
 * source → jinja_lex.c (tokens) → jinja_parse.c, jinja_expression.c (tree, in the template's arena, immutable)
 *        → jinja_run.c (statements), jinja_eval.c (expressions) over values (jinja_value.c …, in the render's arena).
 *
 * A failure inside a render leaves by longjmp to chat_render: everything a render allocates is in its arena or in the list of open
 * captures, so nothing is lost, and the hundred small functions of the language need no error paths.
 * Not here: includes, imports, extends, autoescape, async, and the `random` and `urlize` filters of jinja2.
 */
#ifndef SHOAL_CHAT_JINJA_H
#define SHOAL_CHAT_JINJA_H

#include <setjmp.h>

#include "chat/chat.h"
#include "chat/jinja_unicode.h"

/* ---- values -------------------------------------------------------------------------------------------------------- */

typedef enum chat_kind {
    CHAT_V_ABSENT, /* an argument that was not given; never visible to a template */
    CHAT_V_UNDEFINED,
    CHAT_V_NONE,
    CHAT_V_BOOL,
    CHAT_V_INT,
    CHAT_V_BIG, /* an integer beyond 64 bits out of JSON: its digits, printed as they are */
    CHAT_V_FLOAT,
    CHAT_V_STRING,
    CHAT_V_LIST,
    CHAT_V_TUPLE,
    CHAT_V_DICT,
    CHAT_V_NAMESPACE,
    CHAT_V_RANGE,
    CHAT_V_VIEW,      /* dict.keys(), .values(), .items() */
    CHAT_V_GENERATOR, /* what lazy filters give: always true, read once */
    CHAT_V_FUNCTION,
    CHAT_V_LOOP,
    CHAT_V_CYCLER,
    CHAT_V_JOINER
} chat_kind;

enum { CHAT_FLAG_ASCII = 1, CHAT_FLAG_MARKUP = 2, CHAT_FLAG_GROUP = 4 };

typedef struct chat_value {
    uint8_t kind, flags;
    uint32_t length; /* STRING, BIG: bytes */
    union {
        bool boolean;
        int64_t integer;
        double number;
        const char *text;       /* STRING, BIG; UTF-8, no NUL behind */
        struct chat_list *list; /* LIST, TUPLE */
        struct chat_dict *dict; /* DICT, NAMESPACE */
        struct chat_range *range;
        struct chat_view *view;
        struct chat_generator *generator;
        struct chat_function *function;
        struct chat_loop *loop;
        struct chat_cycler *cycler;
        struct chat_joiner *joiner;
        struct chat_undefined *undefined;
    } as;
} chat_value;

typedef struct chat_list {
    chat_value *items;
    size_t n, capacity;
} chat_list;

typedef struct chat_entry {
    chat_value key, value;
    uint64_t hash;
} chat_entry;

typedef struct
    chat_dict { /* insertion order; `slots` (entry + 1, open addressing) once it has more than 8 entries */
    chat_entry *entries;
    uint32_t *slots;
    size_t n, capacity, n_slots;
} chat_dict;

typedef struct chat_range {
    int64_t start, stop, step, n;
} chat_range;

typedef enum chat_view_kind { CHAT_VIEW_KEYS, CHAT_VIEW_VALUES, CHAT_VIEW_ITEMS } chat_view_kind;
typedef struct chat_view {
    chat_dict *dict;
    chat_view_kind kind;
} chat_view;

typedef struct chat_generator {
    chat_list items;
    size_t position;
} chat_generator;

typedef struct chat_undefined { /* what the message of a misuse says */
    const char *
        owner; /* type name of the object that lacks `name`; NULL: a variable; hint when name is empty */
    str name;
} chat_undefined;

typedef struct chat_cycler {
    chat_value *items;
    size_t n, position;
} chat_cycler;

typedef struct chat_joiner {
    chat_value separator;
    bool used;
} chat_joiner;

typedef struct chat_runtime chat_runtime;
typedef struct chat_node chat_node;
typedef struct chat_scope chat_scope;

typedef struct chat_keyword {
    str name;
    chat_value value;
} chat_keyword;

typedef struct chat_args { /* of a call, evaluated */
    chat_value *items;
    size_t n;
    chat_keyword *keywords;
    size_t n_keywords;
} chat_args;

/* A filter, test, method or global function. p: one value a parameter, ABSENT when not given. raw: all as given (variadic ones). */
enum { CHAT_VARIADIC = 255, CHAT_MAX_PARAMS = 6 };
typedef struct chat_builtin {
    const char *name;
    chat_value (*call)(chat_runtime *rt, chat_value subject, const chat_value *p,
                       const chat_args *raw);
    uint8_t required, n;
    const char *params[CHAT_MAX_PARAMS];
} chat_builtin;

typedef struct chat_function {
    const chat_builtin *builtin; /* a bound method or a global; NULL: a macro */
    chat_value receiver;
    const chat_node *macro;
    chat_scope *closure;
    str name;
} chat_function;

typedef struct chat_loop {
    chat_value *items;
    size_t n, index0, depth0;
    chat_args changed;
    bool has_changed;
    const chat_node *node;
    chat_scope *closure;
} chat_loop;

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

typedef enum chat_op {
    CHAT_OP_ADD,
    CHAT_OP_SUBTRACT,
    CHAT_OP_MULTIPLY,
    CHAT_OP_DIVIDE,
    CHAT_OP_FLOOR_DIVIDE,
    CHAT_OP_MODULO,
    CHAT_OP_POWER,
    CHAT_OP_EQUAL,
    CHAT_OP_NOT_EQUAL,
    CHAT_OP_LESS,
    CHAT_OP_LESS_EQUAL,
    CHAT_OP_GREATER,
    CHAT_OP_GREATER_EQUAL,
    CHAT_OP_IN,
    CHAT_OP_NOT_IN
} chat_op;

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

/* ---- running ------------------------------------------------------------------------------------------------------- */

typedef struct chat_binding {
    const chat_symbol *name;
    chat_value value;
} chat_binding;

struct chat_scope {
    chat_scope *parent;
    chat_binding *bindings;
    uint32_t n, capacity;
    bool captured; /* a macro holds it: a loop may not reuse it */
};

typedef struct
    chat_capture { /* an output that is being collected; on the C stack of its owner, known to the runtime */
    sb text;
    struct chat_capture *outer;
} chat_capture;

struct chat_runtime {
    const chat_template *t;
    arena memory;
    chat_capture *capture; /* the innermost */
    chat_scope *root;
    const chat_node *at; /* for messages */
    chat_value filter_input;
    chat_time now;
    uint64_t steps, max_steps, output, max_output;
    int depth;
    jmp_buf escape;
    err *e;
    status code;
};

enum { CHAT_MAX_DEPTH = 800, CHAT_MAX_NESTING = 200, CHAT_MAX_SOURCE = 1 << 24 };

BASE_NORETURN void chat_fail(chat_runtime *rt, const char *format, ...) BASE_PRINTF(2, 3);
BASE_NORETURN void chat_fail_status(chat_runtime *rt, status code, const char *format, ...)
    BASE_PRINTF(3, 4);
void chat_spend(chat_runtime *rt, uint64_t bytes); /* one step and those bytes */
void chat_enter(chat_runtime *rt); /* one level of recursion; `rt->depth--` leaves it */
void *chat_alloc(chat_runtime *rt, size_t bytes);
void *chat_alloc_array(chat_runtime *rt, size_t n, size_t size);

void chat_capture_begin(chat_runtime *rt, chat_capture *c);
chat_value chat_capture_end(chat_runtime *rt, chat_capture *c); /* → a string in the arena */
void chat_capture_check(
    chat_runtime *rt); /* after adding to rt->capture->text: memory and budget */
void chat_write(chat_runtime *rt, const char *bytes, size_t n);

chat_value *chat_scope_find(chat_scope *s,
                            const chat_symbol *name); /* in s and its parents; NULL: nowhere */
void chat_scope_set(chat_runtime *rt, chat_scope *s, const chat_symbol *name, chat_value v);
chat_scope *chat_scope_create(chat_runtime *rt, chat_scope *parent);

typedef enum chat_flow { CHAT_FLOW_NORMAL, CHAT_FLOW_BREAK, CHAT_FLOW_CONTINUE } chat_flow;
chat_flow chat_run_body(chat_runtime *rt, chat_scope *s, chat_node *const *items, uint32_t n);
chat_value chat_eval(chat_runtime *rt, chat_scope *s, const chat_node *node);
void chat_eval_args(chat_runtime *rt, chat_scope *s, const chat_node *node, chat_args *out);
chat_value chat_call(chat_runtime *rt, chat_value callee, const chat_args *args);
chat_value chat_call_builtin(chat_runtime *rt, const chat_builtin *b, chat_value subject,
                             const chat_args *args);
chat_value chat_call_macro(chat_runtime *rt, const chat_function *f, const chat_args *args);
chat_value chat_run_loop(chat_runtime *rt, chat_scope *s, const chat_node *node,
                         chat_value iterable, size_t depth0, bool captured, chat_flow *flow);

/* ---- values: making ------------------------------------------------------------------------------------------------ */

static inline chat_value chat_none(void)
{
    return (chat_value){.kind = CHAT_V_NONE};
}
static inline chat_value chat_bool(bool b)
{
    return (chat_value){.kind = CHAT_V_BOOL, .as.boolean = b};
}
static inline chat_value chat_int(int64_t i)
{
    return (chat_value){.kind = CHAT_V_INT, .as.integer = i};
}
static inline chat_value chat_float(double d)
{
    return (chat_value){.kind = CHAT_V_FLOAT, .as.number = d};
}
static inline bool chat_is_string(chat_value v)
{
    return v.kind == CHAT_V_STRING;
}
static inline str chat_str(chat_value v) /* of a STRING */
{
    return (str){v.as.text, v.length};
}
static inline bool chat_given(chat_value v)
{
    return v.kind != CHAT_V_ABSENT;
}

chat_value chat_string(chat_runtime *rt, const char *bytes,
                       size_t n); /* borrows: bytes outlive the render */
chat_value chat_string_copy(chat_runtime *rt, const char *bytes, size_t n);
chat_value chat_string_literal(const char *s); /* a C literal, ASCII */
chat_value chat_list_value(chat_runtime *rt, size_t capacity);
chat_value chat_tuple_value(chat_runtime *rt, const chat_value *items, size_t n);
chat_value chat_generator_value(chat_runtime *rt, chat_list items);
chat_value chat_dict_value(chat_runtime *rt);
chat_value chat_undefined_value(chat_runtime *rt, const char *owner, str name);
chat_value chat_undefined_hint(chat_runtime *rt, const char *hint);
void chat_list_push(chat_runtime *rt, chat_list *l, chat_value v);
void chat_dict_set(chat_runtime *rt, chat_dict *d, chat_value key,
                   chat_value v); /* unhashable keys fail */
chat_value *chat_dict_get(chat_runtime *rt, const chat_dict *d,
                          chat_value key); /* NULL: not there (or unhashable) */
chat_value *chat_dict_get_str(const chat_dict *d, str key);
bool chat_dict_remove(chat_runtime *rt, chat_dict *d, chat_value key, chat_value *out);

/* ---- values: asking ------------------------------------------------------------------------------------------------ */

const char *chat_type_name(chat_value v); /* Python's: "str", "NoneType", … */
bool chat_truth(chat_value v);
bool chat_equal(chat_runtime *rt, chat_value a, chat_value b);
int chat_compare(chat_runtime *rt, chat_value a, chat_value b,
                 const char *op); /* -1, 0, 1; 2 = unordered (NaN); fails on odd types */
bool chat_hashable(chat_value v);
uint64_t chat_hash(chat_value v);
bool chat_contains(chat_runtime *rt, chat_value container, chat_value item);
bool chat_number(chat_value v, double *out);   /* bool, int, float, big */
bool chat_integer(chat_value v, int64_t *out); /* bool, int */
int64_t chat_want_integer(chat_runtime *rt, chat_value v, const char *what);
str chat_want_string(chat_runtime *rt, chat_value v, const char *what);
size_t chat_string_length(chat_value v);      /* characters */
bool chat_length(chat_value v, int64_t *out); /* false: has none */
/* Everything that can be iterated → a list of its own (a snapshot; generators are used up). Others fail. */
chat_list chat_items(chat_runtime *rt, chat_value v);
bool chat_iterable(chat_value v);
BASE_NORETURN void chat_undefined_fail(chat_runtime *rt, chat_value v);

chat_value chat_getattr(chat_runtime *rt, chat_value object, str name);
chat_value chat_getitem(chat_runtime *rt, chat_value object, chat_value key);
chat_value chat_getslice(chat_runtime *rt, chat_value object, chat_value start, chat_value stop,
                         chat_value step);
chat_value chat_binary(chat_runtime *rt, chat_op op, chat_value a, chat_value b);
chat_value chat_negate(chat_runtime *rt, chat_value v);

/* ---- text ---------------------------------------------------------------------------------------------------------- */

void chat_print(chat_runtime *rt, sb *out, chat_value v); /* str(v) */
void chat_repr(chat_runtime *rt, sb *out, chat_value v);  /* repr(v) */
chat_value chat_to_string(chat_runtime *rt,
                          chat_value v);  /* str(v) as a value; strings as they are */
void chat_print_float(sb *out, double d); /* repr(float) */
void chat_double_text(char *out, size_t out_bytes, char type, int precision,
                      double d); /* %e %f %g, '.' in any locale */
double chat_parse_double(const char *digits,
                         size_t n);                 /* a JSON or Python literal that was checked */
bool chat_parse_float(str s, double *out);          /* float("…") */
bool chat_parse_int(str s, int base, int64_t *out); /* int("…", base) */

typedef struct chat_json_options {
    bool ensure_ascii, sort_keys;
    bool pretty; /* one line an item, with `indent` */
    str indent, item_separator, key_separator;
} chat_json_options;
void chat_json_dump(chat_runtime *rt, sb *out, chat_value v, const chat_json_options *o);
chat_value chat_json_load(chat_runtime *rt, const char *bytes, size_t n);
bool chat_json_try(chat_runtime *rt, const char *bytes, size_t n,
                   chat_value *out);                     /* false: malformed */
void chat_adapt(chat_runtime *rt, chat_dict *variables); /* see chat_render_options.adapt */

chat_value chat_format_percent(chat_runtime *rt, str format, chat_value args);
chat_value chat_format_braces(chat_runtime *rt, str format, const chat_args *args);
chat_value chat_strftime(chat_runtime *rt, str format, const chat_time *t);
chat_value chat_escape(chat_runtime *rt, chat_value v); /* &<>"' → a markup string */

/* Tables (name NULL ends one) and look-ups in them. */
extern const chat_builtin chat_filters_text[], chat_filters_items[], chat_tests[], chat_globals[];
extern const chat_builtin chat_methods_string[], chat_methods_list[], chat_methods_tuple[],
    chat_methods_dict[], chat_methods_float[], chat_methods_cycler[], chat_methods_loop[];
const chat_builtin *chat_find_builtin(const chat_builtin *table, str name);
const chat_builtin *chat_find_filter(str name);
const chat_builtin *chat_find_test(str name);

/* Shared by methods and filters of the same name. */
chat_value chat_text_case(chat_runtime *rt, str s,
                          int how); /* 'u' upper 'l' lower 't' title 'c' capitalize 's' swapcase */
chat_value chat_text_strip(chat_runtime *rt, chat_value s, chat_value chars, bool left, bool right);
chat_value chat_text_replace(chat_runtime *rt, str s, str from, str to, int64_t count);
chat_value chat_text_center(chat_runtime *rt, chat_value s, int64_t width, str fill,
                            int where); /* -1 ljust 0 center 1 rjust */
chat_list chat_text_lines(chat_runtime *rt, str s, bool keep_ends);
bool chat_text_is(str s, int what); /* 'l' islower, 'u' isupper, … */
void chat_sort(chat_runtime *rt, chat_list *items, const chat_value *keys,
               bool reverse); /* stable, by keys[i] */

#endif
