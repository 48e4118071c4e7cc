/*
 * The row functions of the table (norm, quantise, softmax, gates, rope, K/V store, attention, sums), written once over 16 lanes of f32. An
 * ISA file defines `lanes` and the lane operations below, includes this file, and has them all with the same order of operations: that is
 * how every table gives the same bits. Lanes never depend on the width of the machine: it is 16 for all.
 *
 * The ISA file provides (static inline): lanes_load, lanes_store, lanes_load_n(p, n, fill) and lanes_store_n for n < 16 elements,
 * lanes_set, lanes_add/sub/mul, lanes_fma(a, b, c) = a·b + c in one rounding, lanes_max/min (a > b ? a : b), lanes_less(a, b, x, y) =
 * a < b ? x : y, lanes_abs, lanes_negate, lanes_bits_add/sub(a, b) on the bits as integers, lanes_shift_left(a, n), lanes_shift_right
 * (logical), lanes_fold (the tree: i + (i+8), +4, +2, +1), lanes_fold_max, lanes_load_half / lanes_store_half (16 f16, round to even), lanes_load_bytes (16 int8),
 * lanes_store_bytes (integers in −127..127 held as floats → int8), and, with LANES_FOLDS, lanes_folds (the
 * lanes_fold of 16 of them, in any order).
 * Not here: products (each ISA has its own).
 */
#include "kernel/math.h"

#define V_LANES 16
#define V_TINY  0x1p-100f /* gate products under this become +0 */

/* ---- functions on lanes: the sequences of math.c ------------------------------------------------------------------ */

static inline lanes lanes_int(uint32_t u)
{
    return lanes_set(float_from_bits(u));
}

/* x > 0 */
static inline lanes v_recip(lanes x)
{
    lanes y = lanes_bits_sub(lanes_int(RECIP_ESTIMATE), x), one = lanes_set(1.0f),
          minus = lanes_negate(x);
    for (int i = 0; i < 4; i++)
        y = lanes_fma(y, lanes_fma(minus, y, one), y);
    return y;
}

static inline lanes v_exp(lanes x)
{
    lanes magic = lanes_set(ROUND_MAGIC);
    lanes c = lanes_min(x, lanes_set(88.0f));
    lanes z = lanes_fma(c, lanes_set(EXP_LOG2E), magic), n = lanes_sub(z, magic);
    lanes r = lanes_fma(n, lanes_set(-EXP_LN2_HIGH), c);
    r = lanes_fma(n, lanes_set(-(EXP_LN2_LOW)), r);
    lanes p = lanes_fma(r, lanes_set(1.98412698e-4f), lanes_set(1.38888889e-3f));
    p = lanes_fma(p, r, lanes_set(8.33333377e-3f));
    p = lanes_fma(p, r, lanes_set(4.16666679e-2f));
    p = lanes_fma(p, r, lanes_set(1.66666672e-1f));
    p = lanes_fma(p, r, lanes_set(0.5f));
    p = lanes_add(lanes_fma(lanes_mul(p, r), r, r), lanes_set(1.0f));
    p = lanes_bits_add(p, lanes_shift_left(z, 23));
    return lanes_less(x, lanes_set(-60.0f), lanes_set(0.0f), p);
}

static inline lanes v_sigmoid(lanes x)
{
    lanes one = lanes_set(1.0f), e = v_exp(lanes_negate(lanes_abs(x)));
    return lanes_mul(lanes_less(x, lanes_set(0.0f), e, one), v_recip(lanes_add(one, e)));
}

static inline lanes v_silu_multiply(lanes gate, lanes up)
{
    lanes y = lanes_mul(lanes_mul(gate, v_sigmoid(gate)), up);
    return lanes_less(lanes_abs(y), lanes_set(V_TINY), lanes_set(0.0f), y);
}

/* gelu_tanh(x) = x·sigmoid(2u), u = √(2/π)·(x + 0.044715·x³) */
static inline lanes v_gelu_multiply(lanes gate, lanes up)
{
    lanes cube = lanes_mul(lanes_mul(gate, gate), gate);
    lanes u = lanes_mul(lanes_fma(cube, lanes_set(0.044715f), gate), lanes_set(1.59576912f));
    lanes y = lanes_mul(lanes_mul(gate, v_sigmoid(u)), up);
    return lanes_less(lanes_abs(y), lanes_set(V_TINY), lanes_set(0.0f), y);
}

/* x·Φ(x): Φ(−|x|) = ½·erfc(|x|/√2) = ½·(a1·t + … + a5·t⁵)·exp(−x²/2), t = recip(1 + p·|x|/√2) */
static inline lanes v_gelu(lanes x)
{
    lanes one = lanes_set(1.0f), z = lanes_mul(lanes_abs(x), lanes_set(0.70710678f));
    lanes t = v_recip(lanes_fma(z, lanes_set(0.3275911f), one));
    lanes p = lanes_fma(t, lanes_set(1.061405429f), lanes_set(-1.453152027f));
    p = lanes_fma(p, t, lanes_set(1.421413741f));
    p = lanes_fma(p, t, lanes_set(-0.284496736f));
    p = lanes_fma(p, t, lanes_set(0.254829592f));
    p = lanes_mul(lanes_mul(p, t),
                  lanes_mul(v_exp(lanes_negate(lanes_mul(z, z))), lanes_set(0.5f)));
    lanes y = lanes_mul(x, lanes_less(x, lanes_set(0.0f), p, lanes_sub(one, p)));
    return lanes_less(lanes_abs(y), lanes_set(V_TINY), lanes_set(0.0f), y);
}

/* ---- quantise ------------------------------------------------------------------------------------------------------ */

static inline void v_quantise_block(kernel_act *dst, lanes a, lanes b)
{
    float amax = lanes_fold_max(lanes_max(lanes_abs(a), lanes_abs(b)));
    if (!(amax >= 0x1p-60f)) {
        memset(dst, 0, sizeof *dst);
        return;
    }
    lanes inverse = lanes_set(127.0f * math_recip(amax));
    dst->scale = amax * (1.0f / 127.0f); /* the constant, rounded once */
    dst->sum[0] = (int16_t)lanes_store_bytes(dst->q, lanes_mul(a, inverse));
    dst->sum[1] = (int16_t)lanes_store_bytes(dst->q + 16, lanes_mul(b, inverse));
}

static void v_quantise(kernel_act *dst, const float *x, int64_t columns)
{
    for (int64_t c = 0; c < columns; c += KERNEL_UNIT)
        v_quantise_block(dst++, lanes_load(x + c), lanes_load(x + c + V_LANES));
}

/* ---- norms --------------------------------------------------------------------------------------------------------- */

static float v_norm_factor(const float *x, int64_t n, float epsilon)
{
    lanes squares = lanes_set(0.0f);
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES) {
        lanes a = lanes_load(x + i);
        squares = lanes_fma(a, a, squares);
    }
    if (i < n) {
        lanes a = lanes_load_n(x + i, (int)(n - i), 0.0f);
        squares = lanes_fma(a, a, squares);
    }
    return math_rsqrt(lanes_fold(squares) * math_recip((float)n) + epsilon);
}

static inline lanes v_norm_lanes(const float *x, const float *w, lanes factor)
{
    lanes y = lanes_mul(lanes_load(x), factor);
    return w ? lanes_mul(y, lanes_load(w)) : y;
}

static void v_rms_norm(float *dst, const float *x, const float *w, int64_t n, float epsilon)
{
    lanes factor = lanes_set(v_norm_factor(x, n, epsilon));
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        lanes_store(dst + i, v_norm_lanes(x + i, w ? w + i : NULL, factor));
    if (i < n) {
        lanes y = lanes_mul(lanes_load_n(x + i, (int)(n - i), 0.0f), factor);
        if (w)
            y = lanes_mul(y, lanes_load_n(w + i, (int)(n - i), 0.0f));
        lanes_store_n(dst + i, y, (int)(n - i));
    }
}

static void v_rms_norm_quantise(kernel_act *dst, const float *x, const float *w, int64_t n,
                                float epsilon)
{
    lanes factor = lanes_set(v_norm_factor(x, n, epsilon));
    for (int64_t i = 0; i < n; i += KERNEL_UNIT)
        v_quantise_block(dst++, v_norm_lanes(x + i, w ? w + i : NULL, factor),
                         v_norm_lanes(x + i + V_LANES, w ? w + i + V_LANES : NULL, factor));
}

/* Of the elements from i on, at most 16; what is missing becomes `fill`. */
static inline lanes v_load_some(const float *x, int64_t i, int64_t n, float fill)
{
    return i + V_LANES <= n ? lanes_load(x + i) : lanes_load_n(x + i, (int)(n - i), fill);
}

static inline void v_store_some(float *dst, int64_t i, int64_t n, lanes y)
{
    if (i + V_LANES <= n)
        lanes_store(dst + i, y);
    else
        lanes_store_n(dst + i, y, (int)(n - i));
}

static void v_layer_norm(float *dst, const float *x, const float *w, const float *b, int64_t n,
                         float epsilon)
{
    lanes sum = lanes_set(0.0f), squares = sum;
    float one_nth = math_recip((float)n);
    for (int64_t i = 0; i < n; i += V_LANES)
        sum = lanes_add(sum, v_load_some(x, i, n, 0.0f));
    float middle = lanes_fold(sum) * one_nth;
    lanes mean = lanes_set(middle);
    for (int64_t i = 0; i < n; i += V_LANES) {
        lanes d = lanes_sub(v_load_some(x, i, n, middle), mean);
        squares = lanes_fma(d, d, squares);
    }
    lanes factor = lanes_set(math_rsqrt(lanes_fold(squares) * one_nth + epsilon));
    for (int64_t i = 0; i < n; i += V_LANES) {
        lanes d = lanes_mul(lanes_sub(v_load_some(x, i, n, middle), mean), factor);
        v_store_some(dst, i, n,
                     lanes_fma(d, v_load_some(w, i, n, 0.0f), v_load_some(b, i, n, 0.0f)));
    }
}

static void v_gelu_row(float *dst, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += V_LANES)
        v_store_some(dst, i, n, v_gelu(v_load_some(x, i, n, 0.0f)));
}

/* ---- element by element -------------------------------------------------------------------------------------------- */

/* A loop over n elements with a tail: the body sees whole lanes; `value` may use LOAD(pointer). */
#define V_ELEMENTS(value)                                                                          \
    int64_t i = 0;                                                                                 \
    for (; i + V_LANES <= n; i += V_LANES) {                                                       \
        V_LOAD_WHOLE lanes_store(dst + i, value);                                                  \
    }                                                                                              \
    if (i < n) {                                                                                   \
        V_LOAD_PART lanes_store_n(dst + i, value, (int)(n - i));                                   \
    }
#define V_LOAD_WHOLE lanes va = lanes_load(a + i), vb = lanes_load(b + i);
#define V_LOAD_PART                                                                                \
    lanes va = lanes_load_n(a + i, (int)(n - i), 0.0f),                                            \
          vb = lanes_load_n(b + i, (int)(n - i), 0.0f);

static void v_add(float *dst, const float *a, const float *b, int64_t n)
{
    V_ELEMENTS(lanes_add(va, vb))
}

static void v_silu_multiply_row(float *dst, const float *a, const float *b, int64_t n)
{
    V_ELEMENTS(v_silu_multiply(va, vb))
}

static void v_gelu_multiply_row(float *dst, const float *a, const float *b, int64_t n)
{
    V_ELEMENTS(v_gelu_multiply(va, vb))
}

static void v_multiply_add(float *dst, const float *a, float s, int64_t n)
{
    const float *b = dst;
    V_ELEMENTS(lanes_fma(va, lanes_set(s), vb))
}

static void v_scale(float *dst, const float *a, float s, int64_t n)
{
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        lanes_store(dst + i, lanes_mul(lanes_load(a + i), lanes_set(s)));
    if (i < n)
        lanes_store_n(dst + i, lanes_mul(lanes_load_n(a + i, (int)(n - i), 0.0f), lanes_set(s)),
                      (int)(n - i));
}

static void v_silu_multiply_quantise(kernel_act *dst, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i += KERNEL_UNIT)
        v_quantise_block(
            dst++, v_silu_multiply(lanes_load(gate + i), lanes_load(up + i)),
            v_silu_multiply(lanes_load(gate + i + V_LANES), lanes_load(up + i + V_LANES)));
}

/* ---- rope ---------------------------------------------------------------------------------------------------------- */

static inline void v_turn(float *a, float *b, float c, float s)
{
    float x = *a, y = *b;
    *a = __builtin_fmaf(x, c, -(y * s));
    *b = __builtin_fmaf(x, s, y * c);
}

static void v_rope_halves(float *x, int half, const float *cosines, const float *sines)
{
    int i = 0;
    for (; i + V_LANES <= half; i += V_LANES) {
        lanes a = lanes_load(x + i), b = lanes_load(x + half + i);
        lanes c = lanes_load(cosines + i), s = lanes_load(sines + i);
        lanes_store(x + i, lanes_fma(a, c, lanes_negate(lanes_mul(b, s))));
        lanes_store(x + half + i, lanes_fma(a, s, lanes_mul(b, c)));
    }
    for (; i < half; i++)
        v_turn(x + i, x + half + i, cosines[i], sines[i]);
}

static void v_rope(float *x, int64_t n_heads, int head_width, int rotary, const float *cosines,
                   const float *sines, kernel_rope_pairs pairs)
{
    for (int64_t h = 0; h < n_heads; h++, x += head_width) {
        if (pairs == KERNEL_ROPE_HALVES) {
            v_rope_halves(x, rotary / 2, cosines, sines);
            continue;
        }
        for (int i = 0; i < rotary / 2; i++)
            v_turn(x + 2 * i, x + 2 * i + 1, cosines[i], sines[i]);
    }
}

/* ---- softmax, max, sums of exponentials ---------------------------------------------------------------------------- */

static float v_max(const float *x, int64_t n)
{
    lanes m = lanes_set(-3.4028235e38f);
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        m = lanes_max(lanes_load(x + i), m);
    if (i < n)
        m = lanes_max(lanes_load_n(x + i, (int)(n - i), -3.4028235e38f), m);
    return lanes_fold_max(m);
}

static int64_t v_argmax(const float *x, int64_t n)
{
    float best = v_max(x, n);
    int64_t i = 0;
    for (; i + 4 * V_LANES <= n; i += 4 * V_LANES) { /* skip what does not hold it */
        lanes m = lanes_max(lanes_max(lanes_load(x + i), lanes_load(x + i + 16)),
                            lanes_max(lanes_load(x + i + 32), lanes_load(x + i + 48)));
        if (!(lanes_fold_max(m) < best))
            break;
    }
    for (; i < n; i++)
        if (!(x[i] < best))
            return i;
    return 0;
}

static void v_softmax(float *dst, const float *x, int64_t n)
{
    lanes max = lanes_set(v_max(x, n)), sum = lanes_set(0.0f);
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES) {
        lanes e = v_exp(lanes_sub(lanes_load(x + i), max));
        sum = lanes_add(sum, e);
        lanes_store(dst + i, e);
    }
    if (i < n) {
        lanes e = v_exp(lanes_sub(lanes_load_n(x + i, (int)(n - i), -3.4028235e38f), max));
        sum = lanes_add(sum, e);
        lanes_store_n(dst + i, e, (int)(n - i));
    }
    v_scale(dst, dst, math_recip(lanes_fold(sum)), n);
}

#ifndef LANES_FOLDS
/* The folds of 16 lanes, in any order. */
static inline lanes lanes_folds(const lanes a[V_LANES])
{
    float each[V_LANES];
    for (int i = 0; i < V_LANES; i++)
        each[i] = lanes_fold(a[i]);
    return lanes_load(each);
}
#endif

static double v_exp_sum(const float *x, int64_t n, float max)
{
    const lanes m = lanes_set(max);
    double sums[V_LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + V_LANES * V_LANES <= n; i += V_LANES * V_LANES) {
        lanes e[V_LANES];
        float leaves[V_LANES];
        KERNEL_UNROLL for (int j = 0; j < V_LANES; j++) e[j] =
            v_exp(lanes_sub(lanes_load(x + i + j * V_LANES), m));
        lanes_store(leaves, lanes_folds(e));
        for (int j = 0; j < V_LANES; j++)
            sums[j] += leaf_round(leaves[j]);
    }
    for (; i < n; i += V_LANES)
        sum += leaf_round(lanes_fold(v_exp(lanes_sub(v_load_some(x, i, n, -3.4028235e38f), m))));
    for (int j = 0; j < V_LANES; j++)
        sum += sums[j];
    return sum;
}

/* 2^n·2^f as exp does it, with a cubic for 2^f: within 2^-13.7 for 0 ≥ x ≥ −60, below that as at −60. */
static inline lanes v_exp_near(lanes x)
{
    lanes c = lanes_max(x, lanes_set(-60.0f)), magic = lanes_set(ROUND_MAGIC);
    lanes z = lanes_fma(c, lanes_set(EXP_LOG2E), magic), n = lanes_sub(z, magic);
    lanes f = lanes_fma(c, lanes_set(EXP_LOG2E), lanes_negate(n));
    lanes p = lanes_fma(f, lanes_set(0.0551716685f), lanes_set(0.242611125f));
    p = lanes_fma(p, f, lanes_set(0.693260968f));
    p = lanes_fma(p, f, lanes_set(0.999928057f));
    return lanes_bits_add(p, lanes_shift_left(z, 23));
}

static double v_exp_near_sum(const float *x, int64_t n, float max, float threshold, double *above)
{
    const int64_t some = 256 * V_LANES; /* so many in f32: an error under 2^-16 */
    const lanes m = lanes_set(max), t = lanes_set(threshold), zero = lanes_set(0.0f);
    double sum = 0;
    *above = 0;
    for (int64_t i = 0; i < n;) {
        lanes all = zero, high = zero;
        for (int64_t end = n - i < some ? n : i + some; i < end; i += V_LANES) {
            lanes a = v_load_some(x, i, n, -3.4028235e38f), e = v_exp_near(lanes_sub(a, m));
            all = lanes_add(all, e);
            high = lanes_add(high, lanes_less(a, t, zero, e));
        }
        sum += (double)lanes_fold(all);
        *above += (double)lanes_fold(high);
    }
    return sum;
}

/* ---- attention ------------------------------------------------------------------------------------------------------ */

static void v_kv_store(void *page, int slot, const float *k, const float *v, int n_kv_heads,
                       int key_width, int value_width)
{
    uint16_t *head = page;
    lanes top = lanes_set(65504.0f), bottom = lanes_set(-65504.0f);
    for (int g = 0; g < n_kv_heads; g++, head += KERNEL_RANGE * (key_width + value_width)) {
        uint16_t half[V_LANES];
        uint16_t *keys = head + (slot / 16) * 16 * key_width + slot % 16;
        uint16_t *values = head + KERNEL_RANGE * key_width + slot * value_width;
        for (int d = 0; d < key_width; d += V_LANES, k += V_LANES) {
            int n = BASE_MIN(V_LANES, key_width - d);
            lanes a = n == V_LANES ? lanes_load(k) : lanes_load_n(k, n, 0.0f);
            lanes_store_half(half, lanes_max(lanes_min(a, top), bottom));
            for (int i = 0; i < n; i++)
                keys[(d + i) * 16] = half[i];
            k -= V_LANES - n;
        }
        for (int d = 0; d < value_width; d += V_LANES, v += V_LANES) {
            int n = BASE_MIN(V_LANES, value_width - d);
            lanes a = n == V_LANES ? lanes_load(v) : lanes_load_n(v, n, 0.0f);
            lanes_store_half(half, lanes_max(lanes_min(a, top), bottom));
            memcpy(values + d, half, (size_t)n * 2);
            v -= V_LANES - n;
        }
    }
}

/* A block of n ≤ 32 elements of one head → its scale, and bytes[32]. */
static inline uint16_t v_quantise_kv(int8_t *bytes, const float *x, int n)
{
    lanes a = n >= V_LANES ? lanes_load(x) : lanes_load_n(x, n, 0.0f), b = lanes_set(0.0f);
    if (n == KERNEL_UNIT)
        b = lanes_load(x + V_LANES);
    else if (n > V_LANES)
        b = lanes_load_n(x + V_LANES, n - V_LANES, 0.0f);
    float amax = lanes_fold_max(lanes_max(lanes_abs(a), lanes_abs(b)));
    if (!(amax >= 0x1p-60f)) {
        memset(bytes, 0, KERNEL_UNIT);
        return 0;
    }
    lanes inverse = lanes_set(127.0f * math_recip(amax));
    lanes_store_bytes(bytes, lanes_mul(a, inverse));
    lanes_store_bytes(bytes + V_LANES, lanes_mul(b, inverse));
    return half_from_float(BASE_MIN(amax * (1.0f / 127.0f), 65504.0f));
}

static void v_kv_store_q8(void *page, int slot, const float *k, const float *v, int n_kv_heads,
                          int key_width, int value_width)
{
    int8_t bytes[KERNEL_UNIT];
    for (int h = 0; h < n_kv_heads; h++, k += key_width, v += value_width) {
        const kernel_kv_head at = kernel_kv_head_q8(page, h, key_width, value_width);
        int8_t *keys = at.keys + slot / 16 * 16 * key_width + slot % 16;
        uint16_t *scales = at.key_scales + slot / 16 * 16 * at.key_blocks + slot % 16;
        for (int d = 0; d < key_width; d += KERNEL_UNIT) {
            int n = BASE_MIN(KERNEL_UNIT, key_width - d);
            scales[d / KERNEL_UNIT * 16] = v_quantise_kv(bytes, k + d, n);
            for (int i = 0; i < n; i++)
                keys[(d + i) * 16] = bytes[i];
        }
        for (int d = 0; d < value_width; d += KERNEL_UNIT) {
            int n = BASE_MIN(KERNEL_UNIT, value_width - d);
            at.value_scales[slot * at.value_blocks + d / KERNEL_UNIT] =
                v_quantise_kv(bytes, v + d, n);
            memcpy(at.values + slot * value_width + d, bytes, (size_t)n);
        }
    }
}

/* A range is met by 1, 2, 4 or 8 queries together (the number is padded, the spare ones are dropped), so that a key is converted once and
 * there are eight independent sums: groups of keys, or blocks of values, make up for fewer queries. */
enum { V_QUERIES = 8, V_GROUPS = KERNEL_RANGE / V_LANES };

/* One query on its way over the ranges. */
typedef struct v_query {
    float *dst;
    int64_t first, last; /* visible positions, both included; last < first: a spare one */
    float max, sum;
    bool started;
} v_query;

typedef struct v_block {
    const kernel_attention *t;
    v_query queries[V_QUERIES];
    int n;                                 /* 1, 2, 4 or 8 */
    int count;                             /* of them real */
    float q[KERNEL_HEAD_MAX][V_QUERIES];   /* [key_width][n] */
    float scores[V_QUERIES][KERNEL_RANGE]; /* of the current range: s, then p */
    float a[V_QUERIES], b[V_QUERIES];      /* of its merge */
    const uint16_t *key_scales;            /* q8: of this range, [4][blocks][16] */
    int key_blocks, value_blocks;
    float value_scales[KERNEL_RANGE * ((KERNEL_HEAD_MAX + KERNEL_UNIT - 1) / KERNEL_UNIT)];
} v_block;

/* Elements i .. i + 15 from `from` on: f16, or (q8, constant) bytes without their scale. */
static inline __attribute__((always_inline)) lanes v_load_kv(bool q8, const char *from, int64_t i)
{
    return q8 ? lanes_load_bytes((const int8_t *)(const void *)from + i)
              : lanes_load_half((const uint16_t *)(const void *)from + i);
}

/* Scores of n (constant) queries with `groups` (constant) groups of 16 keys, each [key_width][16]. */
static inline __attribute__((always_inline)) void v_scores(v_block *w, bool q8, int n, int groups,
                                                           int first_group, const char *keys,
                                                           const char *next)
{
    const int bytes = V_LANES * (q8 ? 1 : 2); /* of 16 keys' element d */
    int width = w->t->key_width;
    const float *q = w->q[0];
    lanes sum[V_QUERIES], scale[V_GROUPS];
    KERNEL_UNROLL for (int i = 0; i < n * groups; i++) sum[i] = lanes_set(0.0f);
    KERNEL_UNROLL for (int g = 0; g < groups; g++) scale[g] = lanes_set(1.0f);
    for (int d = 0; d < width; d++, keys += bytes, next += bytes, q += V_QUERIES) {
        if (q8 && d % KERNEL_UNIT == 0)
            KERNEL_UNROLL for (int g = 0; g < groups; g++) scale[g] = lanes_load_half(
                w->key_scales + ((first_group + g) * w->key_blocks + d / KERNEL_UNIT) * V_LANES);
        KERNEL_UNROLL for (int g = 0; g < groups; g++)
        {
            lanes key = v_load_kv(q8, keys + g * bytes * width, 0);
            if (q8) /* exact: 7 bits by 11 */
                key = lanes_mul(key, scale[g]);
            if (!(d & (q8 ? 3 : 1)))
                __builtin_prefetch(next + g * bytes * width);
            KERNEL_UNROLL for (int j = 0; j < n; j++) sum[g * n + j] =
                lanes_fma(key, lanes_set(q[j]), sum[g * n + j]);
        }
    }
    KERNEL_UNROLL for (int g = 0; g < groups; g++) KERNEL_UNROLL for (int j = 0; j < n; j++)
        lanes_store(w->scores[j] + (first_group + g) * V_LANES,
                    lanes_mul(sum[g * n + j], lanes_set(w->t->scale)));
}

/* o = fma(o_r, b, o·a) for n (constant) queries and `blocks` (constant) blocks of 16 values from column d on. */
static inline __attribute__((always_inline)) void v_values(v_block *w, bool q8, int n, int blocks,
                                                           const char *values, const char *next,
                                                           int d, int begin, int end)
{
    const int size = q8 ? 1 : 2;
    int width = w->t->value_width;
    lanes o[V_QUERIES];
    KERNEL_UNROLL for (int i = 0; i < n * blocks; i++) o[i] = lanes_set(0.0f);
    for (int k = begin; k < end; k++) {
        KERNEL_UNROLL for (int g = 0; g < blocks; g++)
        {
            lanes v = v_load_kv(q8, values, k * width + d + g * V_LANES);
            if (q8)
                v = lanes_mul(
                    v, lanes_set(
                           w->value_scales[k * w->value_blocks + (d + g * V_LANES) / KERNEL_UNIT]));
            if (!(g & (q8 ? 3 : 1)))
                __builtin_prefetch(next + (k * width + d + g * V_LANES) * size);
            KERNEL_UNROLL for (int j = 0; j < n; j++) o[g * n + j] =
                lanes_fma(lanes_set(w->scores[j][k]), v, o[g * n + j]);
        }
    }
    for (int j = 0; j < w->count; j++) {
        float *dst = w->queries[j].dst + d;
        lanes a = lanes_set(w->a[j]), b = lanes_set(w->b[j]);
        for (int g = 0; g < blocks; g++)
            lanes_store(dst + g * V_LANES,
                        lanes_fma(o[g * n + j], b, lanes_mul(lanes_load(dst + g * V_LANES), a)));
    }
}

/* The last values of a width that is not a multiple of 16. */
static void v_values_tail(v_block *w, bool q8, const char *values, int d, int begin, int end)
{
    const int8_t *bytes = (const int8_t *)(const void *)values;
    const uint16_t *halves = (const uint16_t *)(const void *)values;
    int width = w->t->value_width;
    for (int j = 0; j < w->count; j++)
        for (int i = d; i < width; i++) {
            float o = 0, *dst = w->queries[j].dst + i;
            for (int k = begin; k < end; k++) {
                float v = q8 ? (float)bytes[k * width + i] *
                                   w->value_scales[k * w->value_blocks + i / KERNEL_UNIT]
                             : half_to_float(halves[k * width + i]);
                o = __builtin_fmaf(w->scores[j][k], v, o);
            }
            *dst = __builtin_fmaf(o, w->b[j], *dst * w->a[j]);
        }
}

/* Turns the scores of query j into weights in place and merges (m, l). begin..end: its visible slots. */
static void v_weigh(v_block *w, int j, int begin, int end)
{
    static const float numbers[V_LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    v_query *query = &w->queries[j];
    lanes least = lanes_set(-3.4028235e38f), top = least, total = lanes_set(0.0f), s[V_GROUPS];
    if (begin >= end) { /* sees nothing here: o stays */
        w->a[j] = 1.0f;
        w->b[j] = 0.0f;
        memset(w->scores[j], 0, sizeof w->scores[j]);
        return;
    }
    for (int g = 0; g < V_GROUPS; g++) {
        s[g] = lanes_load(w->scores[j] + g * V_LANES);
        if (begin > 0 ||
            end < KERNEL_RANGE) { /* what is not visible, written or not, weighs nothing */
            lanes slot = lanes_add(lanes_load(numbers), lanes_set((float)(g * V_LANES)));
            s[g] = lanes_less(slot, lanes_set((float)begin), least, s[g]);
            s[g] = lanes_less(slot, lanes_set((float)end), s[g], least);
        }
        top = lanes_max(top, s[g]);
    }
    float max = lanes_fold_max(top);
    top = lanes_set(max);
    for (int g = 0; g < V_GROUPS; g++) {
        lanes p = v_exp(lanes_sub(s[g], top));
        lanes_store(w->scores[j] + g * V_LANES, p);
        total = lanes_add(total, p);
    }
    float sum = lanes_fold(total), higher = query->started && query->max > max ? query->max : max;
    w->a[j] = query->started ? math_exp(query->max - higher) : 0.0f;
    w->b[j] = query->started ? math_exp(max - higher) : 1.0f;
    query->sum = query->started ? __builtin_fmaf(sum, w->b[j], query->sum * w->a[j]) : sum;
    query->max = higher;
    query->started = true;
}

/* One range: keys and values of this K/V head, and where the next range's are, to fetch them ahead. */
static inline __attribute__((always_inline)) void v_range(v_block *w, bool q8, int n, int64_t start,
                                                          int begin, int end, const char *keys,
                                                          const char *next)
{
    const int groups = n <= 2 ? 4 : V_QUERIES / n;
    int width = w->t->key_width, value_width = w->t->value_width, d = 0;
    int64_t group_bytes = (int64_t)V_LANES * width * (q8 ? 1 : 2);
    for (int g = begin / V_LANES / groups * groups; g * V_LANES < end; g += groups)
        v_scores(w, q8, n, groups, g, keys + g * group_bytes, next + g * group_bytes);
    for (int j = 0; j < w->count; j++)
        v_weigh(w, j, (int)BASE_MAX(0, w->queries[j].first - start),
                (int)BASE_MIN(KERNEL_RANGE, w->queries[j].last - start + 1));
    keys += V_GROUPS * group_bytes;
    next += V_GROUPS * group_bytes;
    for (; d + groups * V_LANES <= value_width; d += groups * V_LANES)
        v_values(w, q8, n, groups, keys, next, d, begin, end);
    for (; d + V_LANES <= value_width; d += V_LANES)
        v_values(w, q8, n, 1, keys, next, d, begin, end);
    if (d < value_width)
        v_values_tail(w, q8, keys, d, begin, end);
}

/* The scales of a range: those of keys where they are, those of values as floats. */
static void v_take_scales(v_block *w, const kernel_kv_head *at)
{
    w->key_scales = at->key_scales;
    w->key_blocks = at->key_blocks;
    w->value_blocks = at->value_blocks;
    for (int i = 0; i < KERNEL_RANGE * at->value_blocks; i += V_LANES)
        lanes_store(w->value_scales + i, lanes_load_half(at->value_scales + i));
}

static inline __attribute__((always_inline)) void v_ranges(v_block *w, bool q8)
{
    const kernel_attention *t = w->t;
    int64_t first = w->queries[0].first, last = w->queries[0].last;
    for (int j = 1; j < w->count; j++) {
        first = BASE_MIN(first, w->queries[j].first);
        last = BASE_MAX(last, w->queries[j].last);
    }
    for (int64_t page = first / KERNEL_RANGE; page <= last / KERNEL_RANGE; page++) {
        int64_t start = page * KERNEL_RANGE,
                head = (int64_t)t->kv_head * KERNEL_RANGE * (t->key_width + t->value_width) * 2;
        if (q8) {
            kernel_kv_head at = kernel_kv_head_q8((void *)(uintptr_t)t->pages[page], t->kv_head,
                                                  t->key_width, t->value_width);
            v_take_scales(w, &at);
            head = (const char *)at.keys - (const char *)t->pages[page];
        }
        const char *keys = (const char *)t->pages[page] + head;
        const char *next = (const char *)t->pages[page + (start + KERNEL_RANGE <= last)] + head;
        int begin = (int)BASE_MAX(0, first - start),
            end = (int)BASE_MIN(KERNEL_RANGE, last - start + 1);
        if (w->n == 8)
            v_range(w, q8, 8, start, begin, end, keys, next);
        else if (w->n == 4)
            v_range(w, q8, 4, start, begin, end, keys, next);
        else if (w->n == 2)
            v_range(w, q8, 2, start, begin, end, keys, next);
        else
            v_range(w, q8, 1, start, begin, end, keys, next);
    }
}

static void v_finish_query(const kernel_attention *t, v_query *query, int head)
{
    float sum = query->sum, factor = 1.0f;
    if (t->sinks) {
        float top = query->max > t->sinks[head] ? query->max : t->sinks[head];
        factor = math_exp(query->max - top);
        sum = __builtin_fmaf(sum, factor, math_exp(t->sinks[head] - top));
    }
    v_scale(query->dst, query->dst, math_recip(sum) * factor, t->value_width);
}

static void v_ranges_f16(v_block *w)
{
    v_ranges(w, false);
}

static void v_ranges_q8(v_block *w)
{
    v_ranges(w, true);
}

static void v_attend(const kernel_attention *t, void (*ranges)(v_block *w))
{
    v_block w;
    int64_t n = t->n_tokens * t->n_heads;
    w.t = t;
    for (int64_t i = 0; i < n; i += V_QUERIES) {
        w.count = (int)BASE_MIN(V_QUERIES, n - i);
        w.n = w.count > 4 ? 8 : w.count > 2 ? 4 : w.count;
        memset(w.q, 0, (size_t)t->key_width * sizeof w.q[0]);
        memset(w.scores, 0, sizeof w.scores);
        for (int j = 0; j < w.count; j++) {
            int64_t token = (i + j) / t->n_heads, head = (i + j) % t->n_heads,
                    position = t->end > 0 ? t->end - 1 : t->position + token;
            const float *q = t->q + token * t->q_stride + head * t->key_width;
            int64_t first = t->window > position ? 0 : position - t->window + 1;
            w.queries[j] = (v_query){t->dst + token * t->dst_stride + head * t->value_width,
                                     first,
                                     position,
                                     0,
                                     0,
                                     false};
            memset(w.queries[j].dst, 0, (size_t)t->value_width * sizeof(float));
            for (int d = 0; d < t->key_width; d++)
                w.q[d][j] = q[d];
        }
        ranges(&w);
        for (int j = 0; j < w.count; j++)
            v_finish_query(t, &w.queries[j], (int)((i + j) % t->n_heads));
    }
}

static void v_attention(const kernel_attention *t)
{
    v_attend(t, v_ranges_f16);
}

static void v_attention_q8(const kernel_attention *t)
{
    v_attend(t, v_ranges_q8);
}

/* ---- the part of a table that this file fills ----------------------------------------------------------------------- */

#define V_TABLE_ROWS                                                                               \
    .quantise = v_quantise, .rms_norm = v_rms_norm, .rms_norm_quantise = v_rms_norm_quantise,      \
    .add = v_add, .scale = v_scale, .multiply_add = v_multiply_add,                                \
    .silu_multiply = v_silu_multiply_row, .gelu_multiply = v_gelu_multiply_row,                    \
    .silu_multiply_quantise = v_silu_multiply_quantise, .rope = v_rope, .kv_store = v_kv_store,    \
    .layer_norm = v_layer_norm, .gelu = v_gelu_row, .attention = v_attention,                      \
    .kv_store_q8 = v_kv_store_q8, .attention_q8 = v_attention_q8, .softmax = v_softmax,            \
    .max = v_max, .argmax = v_argmax, .exp_sum = v_exp_sum, .exp_near = v_exp_near_sum,            \
    .finish = kernel_finish
