/*
 * kernel: everything that touches weights and activations with a CPU. Raw pointers, row ranges, no threads, no allocation, no I/O.
 *
 * One const table per instruction set (kernel_table), chosen once at start by kernel_select; every table gives the same bits
 * (DESIGN section 7, class exact/1), the portable one being the reference. Functions that are not in the table are scalar or
 * bound by memory and the same everywhere.
 *
 * Shapes: T tokens, K columns (inputs) and R rows (outputs) of a matrix, dh head width. Rows of f32 are contiguous unless a
 * stride is named; strides are in elements, sizes that end in _bytes in bytes. Pointers need the alignment of their element
 * only; tiles and pages are fastest when they begin on a multiple of 64 bytes. Buffers that are read as rows of 32-column
 * blocks must be readable up to a multiple of 32 columns. Nothing here fails on its data: sizes are the caller's to check
 * (kernel_type says what a type needs), NaN gives rubbish but no undefined behaviour. Any thread may call anything.
 *
 * One idea a header: matrix.h (types of weights, matrices in tiles), multiply.h (activations, products) and attention.h (pages, attention) come along
 * with this one (the table, how it is chosen and proved); scalar.h (functions of one number) and experts.h (mixtures of experts) are for who calls them.
 *
 * Not here: dispatch to threads, memory plans, devices (src/graph); files (src/file); sums over ranks (src/link).
 */
#ifndef KERNEL_KERNEL_H
#define KERNEL_KERNEL_H

#include "kernel/attention.h"
#include "kernel/multiply.h"

/* CPU features, the values of OS_CPU_* in os.h (this floor may not include it). */
enum {
    KERNEL_CPU_AVX2 = 1 << 0,
    KERNEL_CPU_AVX512 = 1 << 1,
    KERNEL_CPU_AVX512_VNNI = 1 << 2,
    KERNEL_CPU_AVX_VNNI = 1 << 3,
    KERNEL_CPU_NEON = 1 << 4,
    KERNEL_CPU_DOTPROD = 1 << 5,
    KERNEL_CPU_I8MM = 1 << 6
};

/* ---- the table ------------------------------------------------------------------------------------------------- */

/* Product of a type over strips [strip_begin, strip_end). false: a KERNEL_SUMS_F32 sum out of range. */
typedef bool kernel_product_fn(const kernel_product *p, int64_t strip_begin, int64_t strip_end);

typedef enum kernel_rope_pairs { KERNEL_ROPE_NEIGHBOURS, KERNEL_ROPE_HALVES } kernel_rope_pairs;

typedef struct kernel_table {
    /* "portable"; "avx2", "avxvnni", "avx512", "avx512vnni"; "neon", "dotprod", "i8mm" */
    const char *name;
    unsigned features; /* KERNEL_CPU_* that it needs, all of them */

    kernel_product_fn *product[KERNEL_TYPES]; /* by type->index; call kernel_multiply */
    kernel_product_fn *product_exact[KERNEL_TYPES];

    void (*quantise)(kernel_act *dst, const float *x,
                     int64_t columns); /* columns: multiple of 32 */
    /* dst[i] = (x[i]·r)·w[i], r = rsqrt(mean of squares + epsilon); squares: lane i of 16 takes x[i + 16j] by fma ascending, lanes
     * added i + (i+8), +4, +2, +1; mean = sum · recip(n). dst may be x. The second form equals norm, then quantise. w NULL: ones. */
    void (*rms_norm)(float *dst, const float *x, const float *w, int64_t n, float epsilon);
    void (*rms_norm_quantise)(kernel_act *dst, const float *x, const float *w, int64_t n,
                              float epsilon);
    /* dst[i] = fma((x[i] − mean)·r, w[i], b[i]), r = rsqrt(mean of (x − mean)² + epsilon); both sums by the 16-lane tree. dst may be x. */
    void (*layer_norm)(float *dst, const float *x, const float *w, const float *b, int64_t n,
                       float epsilon);
    /* dst = x·Φ(x), Φ of the normal distribution (erf within 2e-7, Abramowitz and Stegun 7.1.26); under 2^-100: +0. dst may be x. */
    void (*gelu)(float *dst, const float *x, int64_t n);
    /* dst = a + b; scale: dst = a · s. dst may be a. */
    void (*add)(float *dst, const float *a, const float *b, int64_t n);
    void (*scale)(float *dst, const float *a, float s, int64_t n);
    void (*multiply_add)(float *dst, const float *a, float s, int64_t n); /* dst = fma(a, s, dst) */
    /* dst = silu(gate)·up, gelu_tanh(gate)·up; results under 2^-100 become +0. dst may be gate. silu(x) = x·sigmoid(x). */
    void (*silu_multiply)(float *dst, const float *gate, const float *up, int64_t n);
    void (*gelu_multiply)(float *dst, const float *gate, const float *up, int64_t n);
    void (*silu_multiply_quantise)(kernel_act *dst, const float *gate, const float *up, int64_t n);
    /* In place on n_heads heads of head_width; the first `rotary` of each turn by cos, sin [rotary/2] of one position:
     * a' = fma(a, cos, −(b·sin)), b' = fma(a, sin, b·cos). Pairs (2i, 2i+1) or (i, i + rotary/2). */
    void (*rope)(float *x, int64_t n_heads, int head_width, int rotary, const float *cosines,
                 const float *sines, kernel_rope_pairs pairs);
    /* One token's K [n_kv_heads][key_width] and V [n_kv_heads][value_width] into slot 0..63 of a page. */
    void (*kv_store)(void *page, int slot, const float *k, const float *v, int n_kv_heads,
                     int key_width, int value_width);
    void (*attention)(const kernel_attention *a);
    /* The same on Q8_0 pages: k and v are the dequantised values q·scale, which f32 holds exactly. */
    void (*kv_store_q8)(void *page, int slot, const float *k, const float *v, int n_kv_heads,
                        int key_width, int value_width);
    void (*attention_q8)(const kernel_attention *a);

    void (*softmax)(float *dst, const float *x,
                    int64_t n);              /* whole row; sum by the 16-lane tree; dst may be x */
    float (*max)(const float *x, int64_t n); /* n ≥ 1 */
    int64_t (*argmax)(const float *x, int64_t n); /* the lowest index of the greatest value */
    /* Σ exp(x − max): leaves of 16 (the tree) as in contract (b), so that shards of the vocabulary (16-row units) add exactly. */
    double (*exp_sum)(const float *x, int64_t n, float max);
    /* Nearly that sum, and in *above what x ≥ threshold have in it, each within 2^-13 of its value (and n·2^-86): by a short exp, for bounds and
     * never for results. x ≤ max. */
    double (*exp_near)(const float *x, int64_t n, float max, float threshold, double *above);
    bool (*finish)(float *dst, const double *sums, int64_t n); /* kernel_finish */
} kernel_table;

/* The best table for these features, or the forced one by name. Forced but unknown or not runnable here: NOT_FOUND / UNSUPPORTED,
 * and the text names what there is. forced NULL or "": the best. The table is static. */
status kernel_select(const kernel_table **out, unsigned features, const char *forced, err *e);
/* 0 = portable; NULL after the last one built for this architecture */
const kernel_table *kernel_table_at(int i);
static inline bool kernel_runs(const kernel_table *k, unsigned features)
{
    return (k->features & features) == k->features;
}

/* Known-answer tests of class exact/1 over every function of the table; some milliseconds. INTERNAL names the first that differs. */
status kernel_self_test(const kernel_table *k, err *e);
#define KERNEL_NUMERICS "exact/1"

static inline bool kernel_multiply(const kernel_table *k, const kernel_product *p,
                                   int64_t strip_begin, int64_t strip_end)
{
    int i = p->w->type->index;
    return (p->exact ? k->product_exact : k->product)[i](p, strip_begin, strip_end);
}

#endif
