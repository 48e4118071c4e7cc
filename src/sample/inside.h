/* What the files of src/sample share: the noise, the row with its block maxima, and candidates. Private. */
#ifndef SHOAL_SAMPLE_INSIDE_H
#define SHOAL_SAMPLE_INSIDE_H

#include "sample/sample.h"

enum { BLOCK = 128 }; /* logits under one maximum */

#define EXCLUDED                                                                                   \
    -1e30f /* the logit of a token that may not be sampled: finite, and exp of it is 0 */
#define EXCLUDED_MAX -1e29f /* whatever is not above this is excluded */
#define WEIGHT_ONE                                                                                 \
    4294967296.0 /* 2^32: weights are exp(s − maximum) in integers, so that their sums are exact in any order */

/* A token that may win. */
typedef struct candidate {
    float s; /* logit / temperature */
    int32_t id;
    uint64_t weight;
} candidate;

typedef struct noise_key {
    uint32_t first, second;
} noise_key;

/* A slice of a row of scores and the greatest of every block of it: passes that look for large values skip blocks. */
typedef struct scored_row {
    int32_t first;    /* token of s[0] */
    float *s;         /* [n] */
    float *block_max; /* [⌈n/BLOCK⌉] */
    int n, n_blocks;
    float max; /* of all */
} scored_row;

struct sample_scratch {
    int vocabulary;
    scored_row row, raw;   /* raw.s is not used: it is the caller's */
    candidate *candidates; /* [vocabulary] */
    candidate *blocks;     /* [n_blocks] */
    bool is_raw;           /* the row is the logits themselves */
    int fault;             /* of the logits in row: row_fault, of which token */
    int32_t fault_token;
    const sample_cut *owner; /* whose slice `slice` is in row; NULL: nobody's */
    int slice, n_listed;     /* n_listed ≥ 0: candidates of its last MASS */
};

#define GREEDY_BELOW 1e-6f

typedef enum row_fault { ROW_FINE, ROW_INFINITE, ROW_NOT_A_NUMBER } row_fault;

/* ---- sample.c ---- */
/* logits [n] of tokens first and on → w->row: everything up to and with the temperature; and whether they are numbers. */
void row_make(sample_scratch *w, const kernel_table *k, const sample_want *want,
              const float *logits, int32_t first, int n);
/* w->raw: maxima of the logits themselves. */
void row_make_raw(sample_scratch *w, const kernel_table *k, const float *logits);

/* A place in the order of tokens: falling s, rising id. Before {floor, INT32_MAX} are all with s ≥ floor. */
typedef struct token_place {
    float s;
    int32_t id;
} token_place;

static inline bool is_before(float s, int32_t id, token_place end)
{
    return s > end.s || (s == end.s && id < end.id);
}

/* ---- block.c: what passes over whole rows, a block of BLOCK at a time, with a form for every instruction set ---- */
typedef struct block_table {
    /* s = logits·inverse, returns the greatest; the sign bit of *bad is set when a logit isn't finite */
    float (*fill)(float *s, const float *logits, float inverse, uint32_t *bad);
    /* mask: the tokens with s ≥ threshold */
    void (*select)(uint64_t mask[BLOCK / 64], const float *s, float threshold);
    /* mask: the tokens first + i, first a multiple of 16, whose random bits are at least `least`, and some with fewer; false: there are none */
    bool (*noise)(uint64_t mask[BLOCK / 64], noise_key key, uint32_t first, uint32_t least);
} block_table;
const block_table *block_table_for(const kernel_table *k);
#if defined(__x86_64__)
extern const block_table block_avx2, block_avx512;
#endif

/* ---- noise.c ---- */
noise_key noise_key_of(uint64_t seed, int choice, int64_t position);
double noise_of(noise_key key, int32_t token);
/* argmax of s + noise over the row's tokens before `end` (one is), or over candidates; the lower id among equals. Excluded tokens never win
 * over others. */
int32_t noise_choose_row(const scored_row *row, token_place end, noise_key key,
                         const kernel_table *k);
int32_t noise_choose(const candidate *c, int n, noise_key key);

/* ---- select.c ---- */
int32_t select_first_best(const scored_row *row,
                          const float *s); /* the lowest id of the greatest value */
/* The k best, best first among nothing: unordered. Returns how many (fewer than k only when there are fewer that are not excluded). */
int select_top_k(candidate *out, candidate *blocks, const scored_row *row, const float *s, int k,
                 const kernel_table *t);
/* Brings the k best of c[n] to the front. 1 ≤ k ≤ n. */
void select_first(candidate *c, int n, int k);
/* Falling, lower id first. */
void select_sort(candidate *c, int n);
/* Every token with s ≥ threshold that is not excluded, by rising id; returns how many. */
int select_at_least(candidate *out, const scored_row *row, const float *s, float threshold,
                    const kernel_table *t);
/* Blocks that hold such tokens. */
int select_blocks(const scored_row *row, float threshold);
/* Moves the shortest prefix (falling s, rising id) whose weight reaches target to the front; returns its length, n when it never does. max: of s. */
int select_mass(candidate *c, int n, float max, double target);
void select_weigh(candidate *c, int n, float max); /* weight = exp(s − max) */

/* ---- nucleus.c ---- */
/* The token of the shortest prefix with the share p of all (0 < p < 1), of those with s ≥ floor. The row is the whole one. */
int32_t nucleus_choose(const scored_row *row, candidate *room, float p, float floor, noise_key key,
                       const kernel_table *k);

#endif
