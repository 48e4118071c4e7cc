/*
 * Pairs of tokens and experts: a counting sort, and products of kernel.h over what lies together. See experts.h.
 */
#include "kernel/experts.h"
#include "kernel/internal.h"

enum { ADD_PAIRS = 64 }; /* of an expert at once: as many tokens as a product meets in one block */

uint64_t kernel_pairs_bytes(int n_experts, int64_t n_choices)
{
    REQUIRE(n_experts >= 0 && n_choices >= 0 && n_choices <= INT32_MAX);
    return ((uint64_t)n_experts * 2 + 1) * sizeof(int32_t) +
           (uint64_t)n_choices * (sizeof(int32_t) + sizeof(float));
}

/* Counts from the shard's first expert; negative: not of this shard. */
static int64_t local_expert(const kernel_choice *c, int first, int n_experts)
{
    int64_t e = (int64_t)c->expert - first;
    return e < n_experts ? e : -1;
}

void kernel_group(kernel_pairs *out, void *memory, const kernel_choice *choices, int64_t n_tokens,
                  int n_chosen, int first, int n_experts)
{
    int64_t n_choices = n_tokens * n_chosen;
    int32_t *begin = memory;
    REQUIRE(n_choices <= INT32_MAX);
    *out = (kernel_pairs){.n_experts = n_experts, .begin = begin, .used = begin + n_experts + 1};
    out->token = out->used + n_experts;
    out->weight = (float *)(void *)(out->token + n_choices);
    memset(begin, 0, ((size_t)n_experts + 1) * sizeof *begin);
    for (int64_t i = 0; i < n_choices; i++) {
        int64_t e = local_expert(&choices[i], first, n_experts);
        if (e >= 0)
            begin[e + 1]++;
    }
    for (int e = 0; e < n_experts; e++) {
        if (begin[e + 1])
            out->used[out->n_used++] = e;
        begin[e + 1] += begin[e];
    }
    out->n_pairs = begin[n_experts];
    for (int64_t i = 0; i < n_choices; i++) {
        int64_t e = local_expert(&choices[i], first, n_experts);
        if (e < 0)
            continue;
        int32_t at = begin[e]++; /* now its beginning is the next one's: moved back below */
        out->token[at] = (int32_t)(i / n_chosen);
        out->weight[at] = choices[i].weight;
    }
    memmove(begin + 1, begin, (size_t)n_experts * sizeof *begin);
    begin[0] = 0;
}

void kernel_pairs_gather(void *dst, const void *x, uint64_t row_bytes, const kernel_pairs *pairs,
                         int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++)
        memcpy((char *)dst + (uint64_t)i * row_bytes,
               (const char *)x + (uint64_t)pairs->token[i] * row_bytes, row_bytes);
}

/* No subnormal may arise, here or in what is multiplied with it (contract e). */
static float weighed(float x, float weight)
{
    float v = x * weight;
    return (float_to_bits(v) & 0x7FFFFFFF) < (uint32_t)(127 - 100) << 23 ? 0 : v;
}

void kernel_pairs_weigh(void *rows, bool quantised, int64_t columns, const kernel_pairs *pairs,
                        int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++) {
        float weight = pairs->weight[i];
        if (quantised) {
            kernel_act *act = (kernel_act *)rows + i * (columns / KERNEL_UNIT);
            for (int64_t j = 0; j < columns / KERNEL_UNIT; j++)
                act[j].scale = weighed(act[j].scale, weight);
        } else {
            float *x = (float *)rows + i * columns;
            for (int64_t j = 0; j < columns; j++)
                x[j] = weighed(x[j], weight);
        }
    }
}

/* The product of a matrix of an expert with its pairs [first, first + n); where it writes is left to the caller. */
static kernel_product product_of(const kernel_pairs_product *p, const kernel_matrix *w,
                                 int64_t first, int64_t n)
{
    return (kernel_product){.w = w,
                            .exact = p->exact,
                            .leaf = p->leaf,
                            .n_tokens = n,
                            .x = (const char *)p->x + (uint64_t)first * p->x_bytes,
                            .x_bytes = p->x_bytes};
}

void kernel_pairs_multiply(const kernel_table *k, const kernel_pairs_product *p, int64_t begin,
                           int64_t end)
{
    for (int64_t next; begin < end; begin = next) {
        int64_t strips = kernel_strips(p->w->rows), from = begin % strips;
        int e = p->pairs->used[begin / strips];
        int64_t first = p->pairs->begin[e];
        kernel_product one = product_of(p, &p->w[e], first, p->pairs->begin[e + 1] - first);
        one.output = KERNEL_F32;
        one.dst = (float *)p->dst + first * p->dst_stride;
        one.dst_stride = p->dst_stride;
        next = BASE_MIN(end, begin - from + strips);
        kernel_multiply(k, &one, from, from + (next - begin));
    }
}

/* Adds the pairs [first, first + n) of expert e to the rows of the strips [strip, strip + n_strips) of their tokens. */
static void add_pairs(const kernel_table *k, const kernel_pairs_product *p, int e, int64_t first,
                      int64_t n, int64_t strip, int64_t n_strips, double *scratch)
{
    kernel_matrix w = p->w[e];
    int64_t row = strip * KERNEL_TILE_ROWS;
    w.tiles = (const char *)w.tiles + (uint64_t)strip * w.strip_bytes;
    w.rows = BASE_MIN(w.rows - row, n_strips * KERNEL_TILE_ROWS);
    kernel_product one = product_of(p, &w, first, n);
    one.output = KERNEL_SUMS;
    one.dst = scratch;
    one.dst_stride = w.rows;
    kernel_multiply(k, &one, 0, n_strips);
    for (int64_t i = 0; i < n; i++) {
        const double *from = scratch + i * w.rows;
        double *to = (double *)p->dst + p->pairs->token[first + i] * p->dst_stride + row;
        for (int64_t r = 0; r < w.rows; r++)
            to[r] += from[r];
    }
}

/* Few pairs of an expert are about memory: then long runs of its strips are read at once. */
static int64_t strips_at_once(const kernel_pairs *pairs)
{
    int64_t most = 1;
    for (int i = 0; i < pairs->n_used; i++) {
        int e = pairs->used[i];
        most = BASE_MAX(most, pairs->begin[e + 1] - pairs->begin[e]);
    }
    return KERNEL_PAIRS_SCRATCH / (BASE_MIN(most, ADD_PAIRS) * KERNEL_TILE_ROWS);
}

void kernel_pairs_add(const kernel_table *k, const kernel_pairs_product *p, int64_t begin,
                      int64_t end, double scratch[KERNEL_PAIRS_SCRATCH])
{
    const kernel_pairs *pairs = p->pairs;
    int64_t most = strips_at_once(pairs);
    for (int64_t strip = begin, n; strip < end; strip += n) {
        int64_t row = strip * KERNEL_TILE_ROWS;
        n = BASE_MIN(most, end - strip);
        int64_t rows = BASE_MIN(p->w->rows - row, n * KERNEL_TILE_ROWS);
        for (int64_t t = 0; t < p->n_tokens; t++)
            memset((double *)p->dst + t * p->dst_stride + row, 0, (size_t)rows * sizeof(double));
        for (int i = 0; i < pairs->n_used; i++) {
            int e = pairs->used[i];
            for (int64_t first = pairs->begin[e]; first < pairs->begin[e + 1]; first += ADD_PAIRS)
                add_pairs(k, p, e, first, BASE_MIN(ADD_PAIRS, pairs->begin[e + 1] - first), strip,
                          n, scratch);
        }
    }
}
