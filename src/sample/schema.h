/* Inside of the compiler of grammars: what spec.c (what is around schemas), schema.c and schema_facts.c (what a schema says) and json.c (how JSON is written) share. */
#ifndef SHOAL_SAMPLE_SCHEMA_H
#define SHOAL_SAMPLE_SCHEMA_H

#include "sample/grammar.h"

#include <jansson.h>

/* Rules that every grammar may need, made when first called for. */
typedef enum json_rule {
    RULE_WS,     /* nothing, a space, or a new line with indentation */
    RULE_CHAR,   /* one character of a string, or its escape */
    RULE_STRING, /* with its quotes */
    RULE_INT,
    RULE_NUM,
    RULE_ANY,
    RULE_ANY_OBJECT,
    RULE_ANY_ARRAY,
    RULE_COUNT
} json_rule;

enum { SCHEMA_BUCKETS = 1024 };

/* A subschema and its rule. */
typedef struct schema_known {
    const json_t *schema, *root;
    const char *path;
    int rule, chain;
} schema_known;

typedef struct compiler {
    grammar_program p;
    arena memory;
    schema_known *schemas;
    int n, done, capacity;
    int bucket[SCHEMA_BUCKETS];
    int json[RULE_COUNT]; /* rules, −1: not asked for */
    bool json_made[RULE_COUNT];
    err *e;
    status failed;
} compiler;

grammar_program *compiler_program(compiler *c);
/* False, and what at `path` is refused as the compiler's error: the first that is said stays. */
bool schema_refuse(compiler *c, const char *path, const char *format, ...) BASE_PRINTF(3, 4);
/* The rule of a subschema, whose body comes later; path: what errors call it. root: what its references begin at. */
void schema_call(compiler *c, const json_t *schema, const json_t *root, const char *path);
/* Bodies of the rules that were called: of schemas, and of JSON. Writing one may call for more. */
void schema_emit_rules(compiler *c);
/* Types of values, a set of bits. */
enum {
    T_NULL = 1,
    T_BOOL = 2,
    T_OBJECT = 4,
    T_ARRAY = 8,
    T_STRING = 16,
    T_INTEGER = 32,
    T_NUMBER = 64 | T_INTEGER,
    T_ALL = 127
};

/* "#/$defs/a" in root; NULL: not there. */
const json_t *schema_resolve(const json_t *root, const char *ref);
int schema_type_of(const json_t *value);
/* What "type" names; T_ALL when there is no such word, 0 when it is wrong. */
int schema_types_named(const json_t *schema);
/* The same; without "type" what the other words are about. */
int schema_types_meant(const json_t *schema);
/* No value fits both: other types, other constants, or a member that both require with other constants. False: not known. */
bool schema_disjoint(const json_t *a, const json_t *b, const json_t *root);

/* The end of a rule or of an alternative. */
void schema_end(compiler *c);
/* The body of a rule for whole or any numbers within a schema's bounds (schema_numbers.c); false: refused. */
bool schema_integer(compiler *c, const json_t *schema, const char *path);
bool schema_number(compiler *c, const json_t *schema, const char *path);
void json_call(compiler *c, json_rule rule);
/* The body of one of them. */
void json_emit(compiler *c, json_rule rule);

/* Alternatives of a rule: each begins with alternative_begin and ends with a RETURN. split: −1 at first. */
void alternative_begin(grammar_program *p, int *split, bool last);
/* A colon and the space that may follow it. */
void json_colon(grammar_program *p);
/* "…" of min to max characters; max −1: any number. */
void json_string_of(compiler *c, int64_t min, int64_t max);
/* The text of strings that match a regular expression, with its quotes; NULL, or what in it is not known (pattern.c). */
const char *json_pattern(compiler *c, const char *text);
/* [low, high], each within ±10^15. */
void json_int_range(grammar_program *p, int64_t low, int64_t high);
/* A rule: the rest of a member's name after its quote, and the closing quote, but none of the n names. */
int json_other_name(compiler *c, const char *const *names, int n);

#endif
