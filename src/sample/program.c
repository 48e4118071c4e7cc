/* Building of grammar programs: growing arrays, byte classes kept once, heights. See grammar.h. */
#include "sample/grammar.h"

#include <string.h>

void grammar_program_fini(grammar_program *p)
{
    base_free(p->ops);
    base_free(p->classes);
    base_free(p->rules);
    base_free(p->heights);
    *p = (grammar_program){0};
}

/* Room for one more element. */
static bool grow(grammar_program *p, void **array, int n, int *capacity, size_t size)
{
    if (p->failed)
        return false;
    if (n < *capacity)
        return true;
    int larger = *capacity ? 2 * *capacity : 256;
    void *grown = base_realloc(*array, (size_t)larger * size);
    if (!grown) {
        p->failed = true;
        return false;
    }
    *array = grown;
    *capacity = larger;
    return true;
}

int grammar_rule(grammar_program *p)
{
    if (!grow(p, (void **)&p->rules, p->n_rules, &p->rules_capacity, sizeof *p->rules))
        return 0;
    p->rules[p->n_rules] = 0;
    return p->n_rules++;
}

void grammar_place(grammar_program *p, int rule)
{
    if (!p->failed)
        p->rules[rule] = p->n_ops;
}

int grammar_emit(grammar_program *p, grammar_kind kind, int a, int b)
{
    if (p->n_ops >= GRAMMAR_OPS)
        p->failed = p->too_large = true;
    if (!grow(p, (void **)&p->ops, p->n_ops, &p->ops_capacity, sizeof *p->ops))
        return 0;
    p->ops[p->n_ops] = (grammar_op){(uint8_t)kind, (uint32_t)a, (uint32_t)b};
    return p->n_ops++;
}

void grammar_patch(grammar_program *p, int op, int a, int b)
{
    if (p->failed)
        return;
    if (a >= 0)
        p->ops[op].a = (uint32_t)a;
    if (b >= 0)
        p->ops[op].b = (uint32_t)b;
}

void grammar_one(grammar_program *p, const grammar_class *c)
{
    int i = 0;
    while (i < p->n_classes && memcmp(&p->classes[i], c, sizeof *c) != 0)
        i++;
    if (i == p->n_classes) { /* few: at most 256 single bytes and some ranges */
        if (!grow(p, (void **)&p->classes, i, &p->classes_capacity, sizeof *p->classes))
            return;
        p->classes[p->n_classes++] = *c;
    }
    grammar_emit(p, GRAMMAR_BYTES, i, 0);
}

void grammar_any_of(grammar_program *p, const char *ranges)
{
    grammar_class c = {{0}};
    for (size_t i = 0; ranges[i]; i += 2)
        for (int b = (unsigned char)ranges[i]; b <= (unsigned char)ranges[i + 1]; b++)
            c.bits[b / 64] |= (uint64_t)1 << b % 64;
    grammar_one(p, &c);
}

void grammar_text(grammar_program *p, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n && !p->failed; i++) {
        grammar_class c = {{0}};
        c.bits[(unsigned char)bytes[i] / 64] = (uint64_t)1 << (unsigned char)bytes[i] % 64;
        grammar_one(p, &c);
    }
}

static int height_of(const grammar_program *p, int i)
{
    const grammar_op *op = &p->ops[i];
    const int16_t *h = p->heights;
    int called;
    switch ((grammar_kind)op->kind) {
    case GRAMMAR_BYTES:
        return h[i + 1];
    case GRAMMAR_CALL:
        called = 1 + h[p->rules[op->a]];
        return BASE_MAX(called, (int)h[i + 1]);
    case GRAMMAR_SPLIT:
        return BASE_MIN(h[op->a], h[op->b]);
    case GRAMMAR_JUMP:
        return h[op->a];
    case GRAMMAR_RETURN:
    case GRAMMAR_ACCEPT:
        break;
    }
    return 0;
}

/* From "never" down; a height that has not settled in time is too high, which only forbids more. */
bool grammar_finish(grammar_program *p)
{
    p->heights = base_alloc(sizeof *p->heights * (size_t)(p->n_ops + 1));
    if (p->failed || !p->heights) {
        p->failed = true;
        return false;
    }
    for (int i = 0; i <= p->n_ops; i++)
        p->heights[i] = GRAMMAR_NEVER;
    bool changed = true;
    for (int pass = 0; changed && pass < 2 * GRAMMAR_DEPTH; pass++) {
        changed = false;
        for (int i = p->n_ops - 1; i >= 0; i--) {
            int h = BASE_MIN(height_of(p, i), GRAMMAR_NEVER);
            changed |= h != p->heights[i];
            p->heights[i] = (int16_t)h;
        }
    }
    return p->heights[p->rules[0]] <= GRAMMAR_DEPTH;
}
