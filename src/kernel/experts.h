/*
 * Mixtures of experts: every token takes K of E experts, and what they say is weighted and added. Pairs of a token and an expert are grouped by
 * expert, so that an expert's weights are read once for all tokens that chose it, and experts that nobody chose are not touched.
 *
 *   kernel_group          choices [T][K] → pairs, by expert
 *   kernel_pairs_gather   rows of activations in the order of the pairs
 *   kernel_pairs_multiply what every expert begins with (gate, up): y[pair] = W_expert · x[pair]
 *   kernel_pairs_weigh    the weight of a pair goes into what its expert ends with
 *   kernel_pairs_add      what every expert ends with (down): sums[token] = Σ over its pairs of the leaves of W_expert · h[pair]
 *
 * One answer: a pair's numbers are those of kernel.h's products, from its token, its expert and its weight alone. The weight is taken into the
 * scale of the activations before the last product, so that all that is ever added are leaves of exact sums (contract b): over the experts of a
 * token, the columns of an expert, and the ranks that hold some experts, or some columns of all, in any order. kernel_finish, after the sum over
 * ranks, as for any such product.
 *
 * Threads: functions on ranges may run at once on disjoint ranges. Errors: none. Choices that name no expert of this shard are left out.
 * Not here: how experts are chosen and weights made (a family's matter), the function between gate and down (kernel_table).
 */
#ifndef KERNEL_EXPERTS_H
#define KERNEL_EXPERTS_H

#include "kernel/kernel.h"

typedef struct kernel_choice {
    int32_t expert; /* of all experts of the layer */
    float weight;
} kernel_choice;

typedef struct kernel_pairs {
    int n_experts;   /* of this shard */
    int n_used;      /* with at least one pair */
    int64_t n_pairs; /* of this shard: T·K at most */
    int32_t *
        begin; /* [n_experts + 1]: those of expert e, counted from the shard's first, are begin[e] … begin[e + 1] − 1 */
    int32_t *used;  /* [n_used], ascending */
    int32_t *token; /* [n_pairs], ascending within an expert */
    float *weight;  /* [n_pairs] */
} kernel_pairs;

/* Memory that the pairs of n_choices = T·K choices live in; n_choices < 2^31. */
uint64_t kernel_pairs_bytes(int n_experts, int64_t n_choices);
/* choices: [n_tokens][n_chosen]. The shard holds the experts [first, first + n_experts). memory: kernel_pairs_bytes, aligned to 4. */
void kernel_group(kernel_pairs *out, void *memory, const kernel_choice *choices, int64_t n_tokens,
                  int n_chosen, int first, int n_experts);

/* Rows [begin, end) of dst [n_pairs]: copies of the rows of x [T] that the pairs' tokens have; row_bytes from row to row in both. */
void kernel_pairs_gather(void *dst, const void *x, uint64_t row_bytes, const kernel_pairs *pairs,
                         int64_t begin, int64_t end);
/* Rows [begin, end) of what the last products read: kernel_act [n_pairs][columns / 32] or float [n_pairs][columns], each in place times its pair's
 * weight, rounded once (of a kernel_act: its scale). Under 2^-100 it becomes +0. */
void kernel_pairs_weigh(void *rows, bool quantised, int64_t columns, const kernel_pairs *pairs,
                        int64_t begin, int64_t end);

/* All experts' matrices of one kind are of one type and shape. */
typedef struct kernel_pairs_product {
    const kernel_pairs *pairs;
    const kernel_matrix *w; /* [n_experts] */
    bool exact;             /* x is f32 whatever the type */
    int leaf;               /* columns, from kernel_leaf; read by kernel_pairs_add only */
    const void *x;          /* [n_pairs], as in kernel_product */
    uint64_t x_bytes;
    void *dst; /* _multiply: float [n_pairs][dst_stride]; _add: double [n_tokens][dst_stride] */
    int64_t dst_stride, n_tokens;
} kernel_pairs_product;

/* The strips of all used experts, one expert after the other: what begin and end of kernel_pairs_multiply count in. */
static inline int64_t kernel_pairs_strips(const kernel_pairs_product *p)
{
    return p->pairs->n_used ? p->pairs->n_used * kernel_strips(p->w->rows) : 0;
}
void kernel_pairs_multiply(const kernel_table *k, const kernel_pairs_product *p, int64_t begin,
                           int64_t end);

/* Of the calling thread, for kernel_pairs_add. */
enum { KERNEL_PAIRS_SCRATCH = 1 << 14 };
/* Rows of the strips [begin, end) of every token, begin and end counted in strips of one expert; tokens without a pair get zeros. */
void kernel_pairs_add(const kernel_table *k, const kernel_pairs_product *p, int64_t begin,
                      int64_t end, double scratch[KERNEL_PAIRS_SCRATCH]);

#endif
