/*
 * Inside of grammars: a program for an automaton with a stack, over bytes, and how it is built. schema.c writes programs, grammar.c runs
 * them. Rules are subroutines: CALL pushes the place behind it, RETURN pops. A program may branch (SPLIT): all branches are followed at
 * once. See sample.h for what may be asked for.
 */
#ifndef SHOAL_SAMPLE_GRAMMAR_H
#define SHOAL_SAMPLE_GRAMMAR_H

#include "sample/sample.h"

enum {
    GRAMMAR_OPS = 100000,   /* of a program */
    GRAMMAR_DEPTH = 200,    /* of the stack: calls inside calls */
    GRAMMAR_NEVER = 1 << 14 /* a height: cannot be finished */
};

typedef enum grammar_kind {
    GRAMMAR_BYTES, /* one byte of class a */
    GRAMMAR_CALL,  /* rule a, then go on */
    GRAMMAR_SPLIT, /* at a and at b */
    GRAMMAR_JUMP,  /* to a */
    GRAMMAR_RETURN,
    GRAMMAR_ACCEPT /* the text may end here */
} grammar_kind;

typedef struct grammar_op {
    uint8_t kind;
    uint32_t a, b;
} grammar_op;

typedef struct grammar_class {
    uint64_t bits[4]; /* byte b: bits[b / 64] >> b % 64 */
} grammar_class;

typedef struct grammar_program {
    grammar_op *ops;
    int n_ops, ops_capacity;
    grammar_class *classes;
    int n_classes, classes_capacity;
    int *rules; /* where a rule begins */
    int n_rules, rules_capacity;
    int16_t *heights; /* [n_ops] the least stack that finishes the rule from here on */
    bool failed; /* no memory, or more ops than there may be: every further call does nothing */
    bool too_large;
} grammar_program;

void grammar_program_fini(grammar_program *p);
/* Rule 0 is where a text begins; it ends with ACCEPT. */
int grammar_rule(grammar_program *p);             /* a new one, not yet placed */
void grammar_place(grammar_program *p, int rule); /* it begins here */
int grammar_emit(grammar_program *p, grammar_kind kind, int a, int b); /* → its place */
void grammar_patch(grammar_program *p, int op, int a, int b);          /* −1 = leave */
void grammar_text(grammar_program *p, const char *bytes, size_t n);    /* these bytes */
void grammar_any_of(grammar_program *p, const char *ranges);           /* "09AZ" = 0–9, A–Z */
void grammar_one(grammar_program *p, const grammar_class *c);
static inline int grammar_here(const grammar_program *p)
{
    return p->n_ops;
}
/* Heights of all ops; false: from rule 0 nothing can be finished. */
bool grammar_finish(grammar_program *p);

/* schema.c: INVALID (with the path inside the spec), TOO_LARGE, NO_MEMORY. */
status grammar_compile(grammar_program *p, str spec, err *e);

#endif
