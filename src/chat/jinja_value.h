/*
 * The values of the template language: their forms, making them, asking them, their text. Internal to src/chat.
 *
 * A value is two words and is passed by value; what does not fit lies in the render's arena and lives as long as the render. Functions that take the
 * runtime may fail, and leave by longjmp (jinja.h). jinja_value.c, jinja_access.c, jinja_print.c, jinja_json.c, jinja_format.c, jinja_time.c.
 */
#ifndef SHOAL_CHAT_JINJA_VALUE_H
#define SHOAL_CHAT_JINJA_VALUE_H

#include "chat/chat.h"

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

/* ---- making ------------------------------------------------------------------------------------------------ */

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

/* ---- asking ------------------------------------------------------------------------------------------------ */

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
/* Operators of two values. */
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
