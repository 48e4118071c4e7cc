/* The drafting part of `shoal bench`: the same sequences through the engine with and without guesses, by turns. Not here: options. */
#ifndef SHOAL_CLI_BENCH_DRAFT_H
#define SHOAL_CLI_BENCH_DRAFT_H

#include "engine/engine.h"

typedef struct bench_draft {
    model *m; /* loaded for n_sequences, with ENGINE_DRAFT_ROWS more rows of logits */
    engine_draft kind;
    model *draft_model; /* NULL for lookup */
    int n_sequences, depth, gen;
    float temperature;
    int alphabet; /* > 0: only so many tokens may be chosen, so that any model's text repeats itself; at most BENCH_ALPHABET */
} bench_draft;

enum { BENCH_ALPHABET = 64 };

typedef struct bench_draft_result {
    double plain, drafted; /* tokens a second, all sequences together */
    uint64_t n_drafted, n_accepted, n_steps, n_tokens;
} bench_draft_result;

/* One turn of each, the plain one first when `plain_first`. Prompts are made up; the first token of each sequence is not timed. INTERNAL: the
 * texts differ. */
status bench_draft_turn(bench_draft_result *out, const bench_draft *p, bool plain_first, err *e);

#endif
