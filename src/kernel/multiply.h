/*
 * kernel/multiply: activations as int8 blocks, and what a product of weights and activations is: its operands, its order of operations,
 * and the exact sums of a matrix whose columns a plan may cut (DESIGN section 7 a, b).
 *
 * A product is computed by the table's functions, over a range of strips (kernel_multiply in kernel.h). Not here: packing (matrix.h).
 */
#ifndef KERNEL_MULTIPLY_H
#define KERNEL_MULTIPLY_H

#include "kernel/matrix.h"

/* ---- activations ----------------------------------------------------------------------------------------------- */

/* A row of K f32 → K/32 blocks. scale = amax·fl(1/127); q = roundEven(x · (127·recip(amax))), in −127..127; amax < 2^-60 gives
 * zeros and scale 0. sum[h] = Σ q over columns 16h..16h+15. */
typedef struct kernel_act {
    float scale;
    int16_t sum[2];
    int8_t q[KERNEL_UNIT];
} kernel_act;
_Static_assert(sizeof(kernel_act) == 40, "activation block");

static inline uint64_t kernel_act_bytes(int64_t columns) /* of one token's row */
{
    return (uint64_t)((columns + KERNEL_UNIT - 1) / KERNEL_UNIT) * sizeof(kernel_act);
}

/* ---- products -------------------------------------------------------------------------------------------------- */

/* What a product writes. SUMS are for matrices whose columns a plan may cut (contract b), also on one device. */
typedef enum kernel_output {
    KERNEL_F32,  /* float dst[T][stride]: the whole row in order (a) */
    KERNEL_SUMS, /* double dst[T][stride]: exact partial sums of this shard's leaves; add shards in any order, then kernel_finish */
    KERNEL_SUMS_F32 /* float dst[T][stride]: KERNEL_SUMS followed by kernel_finish, for a matrix that is not cut */
} kernel_output;

/*
 * y[t][r] = Σ_k w[r][k] x[t][k] for T tokens and a range of strips. Order of operations for one element, whatever T is:
 *  quantised, per 32-column block ascending: i = Σ w·x exact in int32 (types with two scales per block: i = Σ_h s_h·i_h, exact),
 *      acc = fma((float)i, dw·dx, acc) with dw·dx rounded once; types with a minimum then acc = fma(m, (float)j·dx, acc), where
 *      value = dw·q + m·(…), j = Σ x over the block (Q2_K: Σ_h of the half's integer minimum times its Σ x), (float)j·dx rounded once;
 *  float: acc[k mod 4] = fma(w, x, acc[k mod 4]) ascending, then (acc0 + acc1) + (acc2 + acc3);
 *  exact (--exact): as float, with the dequantised weights of any type and f32 activations.
 * KERNEL_SUMS: each leaf (leaf columns, counted from column 0 of the whole matrix; column_begin and column_end are multiples
 * of it, or the matrix's own end) begins with acc = 0, its f32 v becomes ((double)v + M) − M, M = 1.5·2^28, and is added in double.
 */
typedef struct kernel_product {
    const kernel_matrix *w;
    kernel_output output;
    bool exact;       /* x is f32 whatever the type */
    int leaf;         /* columns, from kernel_leaf; read for SUMS only */
    int64_t n_tokens; /* T ≥ 1 */
    /* kernel_act[T][] when the type is quantised and not exact, else float[T][]; of the shard's columns only */
    const void *x;
    uint64_t x_bytes; /* from token to token */
    /* element [t][r] at t·dst_stride + r, r = row of the shard; rows beyond w->rows are not written */
    void *dst;
    int64_t dst_stride;
} kernel_product;

/* Leaf of contract (b) for a matrix of `columns` in all: the largest power of two ≤ 256 that divides columns (and head_width
 * when it is not 0: attention output) and leaves at least 16 leaves, but not under 32. */
int kernel_leaf(int64_t columns, int64_t head_width);

/* double sums → f32 (rounded once, −0 as +0). false: some |sum| ≥ 2^29 or not a number; dst is written all the same. */
bool kernel_finish(float *dst, const double *sums, int64_t n);

#endif
