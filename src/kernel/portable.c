/*
 * The reference table: plain C, for every type, on every machine. Its results are the numerics contract; the ISA files are compared with
 * it bit by bit. Products go unit by unit through the row forms of types.c, a block of tokens at a time, so that one decode of a
 * tile serves them all. Not fast, on purpose: the compiler's baseline instruction set and no cleverness.
 */
#include "kernel/math.h"

/* ---- lanes ------------------------------------------------------------------------------------------------------- */

typedef struct lanes {
    float v[16];
} lanes;

#define LANES_EACH(expression)                                                                     \
    lanes y;                                                                                       \
    for (int i = 0; i < 16; i++)                                                                   \
        y.v[i] = (expression);                                                                     \
    return y

static inline lanes lanes_set(float x)
{
    LANES_EACH(x);
}
static inline lanes lanes_load(const float *p)
{
    LANES_EACH(p[i]);
}
static inline lanes lanes_load_n(const float *p, int n, float fill)
{
    LANES_EACH(i < n ? p[i] : fill);
}
static inline void lanes_store(float *p, lanes a)
{
    memcpy(p, a.v, sizeof a.v);
}
static inline void lanes_store_n(float *p, lanes a, int n)
{
    memcpy(p, a.v, (size_t)n * sizeof(float));
}
static inline lanes lanes_add(lanes a, lanes b)
{
    LANES_EACH(a.v[i] + b.v[i]);
}
static inline lanes lanes_sub(lanes a, lanes b)
{
    LANES_EACH(a.v[i] - b.v[i]);
}
static inline lanes lanes_mul(lanes a, lanes b)
{
    LANES_EACH(a.v[i] * b.v[i]);
}
static inline lanes lanes_fma(lanes a, lanes b, lanes c)
{
    LANES_EACH(__builtin_fmaf(a.v[i], b.v[i], c.v[i]));
}
static inline lanes lanes_max(lanes a, lanes b)
{
    LANES_EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}
static inline lanes lanes_min(lanes a, lanes b)
{
    LANES_EACH(a.v[i] < b.v[i] ? a.v[i] : b.v[i]);
}
static inline lanes lanes_less(lanes a, lanes b, lanes x, lanes z)
{
    LANES_EACH(a.v[i] < b.v[i] ? x.v[i] : z.v[i]);
}
static inline lanes lanes_abs(lanes a)
{
    LANES_EACH(float_from_bits(float_to_bits(a.v[i]) & 0x7FFFFFFFu));
}
static inline lanes lanes_negate(lanes a)
{
    LANES_EACH(float_from_bits(float_to_bits(a.v[i]) ^ 0x80000000u));
}
static inline lanes lanes_bits_add(lanes a, lanes b)
{
    LANES_EACH(float_from_bits(float_to_bits(a.v[i]) + float_to_bits(b.v[i])));
}
static inline lanes lanes_bits_sub(lanes a, lanes b)
{
    LANES_EACH(float_from_bits(float_to_bits(a.v[i]) - float_to_bits(b.v[i])));
}
static inline lanes lanes_shift_left(lanes a, int n)
{
    LANES_EACH(float_from_bits(float_to_bits(a.v[i]) << n));
}
static inline float lanes_fold(lanes a)
{
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++)
            a.v[i] = a.v[i] + a.v[i + width];
    return a.v[0];
}
static inline float lanes_fold_max(lanes a)
{
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++)
            a.v[i] = a.v[i] > a.v[i + width] ? a.v[i] : a.v[i + width];
    return a.v[0];
}
static inline lanes lanes_load_half(const uint16_t *p)
{
    LANES_EACH(half_to_float(p[i]));
}
static inline void lanes_store_half(uint16_t *p, lanes a)
{
    for (int i = 0; i < 16; i++)
        p[i] = half_from_float(a.v[i]);
}
static inline lanes lanes_load_bytes(const int8_t *p)
{
    LANES_EACH((float)p[i]);
}
static inline int lanes_store_bytes(int8_t *p, lanes a)
{
    int sum = 0;
    for (int i = 0; i < 16; i++) {
        int32_t q = (int32_t)(float_to_bits(a.v[i] + ROUND_MAGIC) - float_to_bits(ROUND_MAGIC));
        q = q > 127 ? 127 : q < -127 ? -127 : q; /* only for NaN: |a| ≤ 127·(1 + 2^-22) */
        p[i] = (int8_t)q;
        sum += q;
    }
    return sum;
}

#include "kernel/vector.h"

/* ---- products ------------------------------------------------------------------------------------------------------ */

enum { BLOCK_TOKENS = 16 };

/* Running sums of a strip for a block of tokens. */
typedef struct strip_sums {
    float acc[BLOCK_TOKENS][KERNEL_TILE_ROWS][4]; /* quantised types use [0] */
    double total[BLOCK_TOKENS][KERNEL_TILE_ROWS];
} strip_sums;

static const char *token_at(const kernel_product *p, int64_t t)
{
    return (const char *)p->x + (uint64_t)t * p->x_bytes;
}

static float acc_value(const float acc[4], bool quantised)
{
    return quantised ? acc[0] : (acc[0] + acc[1]) + (acc[2] + acc[3]);
}

static void unit_quantised(const kernel_product *p, strip_sums *s, const kernel_walk *w,
                           int64_t block, int64_t t0, int n)
{
    const kernel_layout *l = kernel_layout_of(p->w->type);
    for (int r = 0; r < KERNEL_TILE_ROWS; r++) {
        unsigned char header[ROW_HEADER_MAX], row[ROW_UNIT_MAX];
        kernel_view v;
        kernel_row_of(header, w->header, l->header_fields, r);
        kernel_row_of(row, w->unit, l->unit_fields, r);
        l->decode(&v, header, row, w->unit_in_run);
        for (int t = 0; t < n; t++) {
            const kernel_act *x = (const kernel_act *)token_at(p, t0 + t) + block;
            int32_t dot[2] = {0, 0};
            for (int i = 0; i < KERNEL_UNIT; i++)
                dot[i >> 4] += v.q[i] * x->q[i];
            int32_t whole = v.s[0] * dot[0] + v.s[1] * dot[1];
            float *acc = s->acc[t][r];
            *acc = __builtin_fmaf((float)whole, v.d * x->scale, *acc);
            if (v.j[0] | v.j[1]) {
                int32_t minimum = v.j[0] * x->sum[0] + v.j[1] * x->sum[1];
                *acc = __builtin_fmaf(v.m, (float)minimum * x->scale, *acc);
            }
        }
    }
}

static void unit_floats(const kernel_product *p, strip_sums *s, const kernel_walk *w, int64_t block,
                        int64_t t0, int n)
{
    float values[KERNEL_UNIT][KERNEL_TILE_ROWS];
    kernel_unit_floats(values, p->w->type, w->header, w->unit, w->unit_in_run);
    int64_t columns = p->w->column_end - p->w->column_begin - block * KERNEL_UNIT;
    int width = (int)BASE_MIN(KERNEL_UNIT, columns);
    for (int t = 0; t < n; t++) {
        const float *x = (const float *)token_at(p, t0 + t) + block * KERNEL_UNIT;
        for (int r = 0; r < KERNEL_TILE_ROWS; r++)
            for (int i = 0; i < width; i++)
                s->acc[t][r][i & 3] = __builtin_fmaf(values[i][r], x[i], s->acc[t][r][i & 3]);
    }
}

static void end_leaf(strip_sums *s, int n, bool quantised)
{
    for (int t = 0; t < n; t++)
        for (int r = 0; r < KERNEL_TILE_ROWS; r++)
            s->total[t][r] += leaf_round(acc_value(s->acc[t][r], quantised));
    memset(s->acc, 0, sizeof s->acc);
}

static bool write_strip(const kernel_product *p, const strip_sums *s, int64_t strip, int64_t t0,
                        int n, bool quantised)
{
    bool good = true;
    int64_t row = strip * KERNEL_TILE_ROWS;
    int rows = (int)BASE_MIN(KERNEL_TILE_ROWS, p->w->rows - row);
    for (int t = 0; t < n; t++) {
        int64_t at = (t0 + t) * p->dst_stride + row;
        if (p->output == KERNEL_F32)
            for (int r = 0; r < rows; r++)
                ((float *)p->dst)[at + r] = acc_value(s->acc[t][r], quantised);
        else if (p->output == KERNEL_SUMS)
            memcpy((double *)p->dst + at, s->total[t], (size_t)rows * sizeof(double));
        else
            good &= kernel_finish((float *)p->dst + at, s->total[t], rows);
    }
    return good;
}

static bool strip_tokens(const kernel_product *p, int64_t strip, int64_t t0, int n, bool quantised)
{
    const kernel_matrix *m = p->w;
    strip_sums s;
    kernel_walk w;
    memset(&s, 0, sizeof s);
    walk_start(&w, m->type, (const char *)m->tiles + (uint64_t)strip * m->strip_bytes,
               m->column_begin);
    int64_t column = m->column_begin;
    for (int64_t block = 0; column < m->column_end; block++) {
        if (quantised)
            unit_quantised(p, &s, &w, block, t0, n);
        else
            unit_floats(p, &s, &w, block, t0, n);
        walk_next(&w, m->type);
        column = BASE_MIN(column + KERNEL_UNIT, m->column_end);
        if (p->output != KERNEL_F32 && (column % p->leaf == 0 || column == m->column_end))
            end_leaf(&s, n, quantised);
    }
    return write_strip(p, &s, strip, t0, n, quantised);
}

static bool product(const kernel_product *p, int64_t strip_begin, int64_t strip_end, bool quantised)
{
    bool good = true;
    for (int64_t strip = strip_begin; strip < strip_end; strip++)
        for (int64_t t = 0; t < p->n_tokens; t += BLOCK_TOKENS)
            good &=
                strip_tokens(p, strip, t, (int)BASE_MIN(BLOCK_TOKENS, p->n_tokens - t), quantised);
    return good;
}

bool kernel_product_portable(const kernel_product *p, int64_t strip_begin, int64_t strip_end)
{
    return product(p, strip_begin, strip_end, p->w->type->quantised && !p->exact);
}

const kernel_table kernel_portable = {
    .name = "portable",
    .features = 0,
    .product = {KERNEL_ALL_TYPES(kernel_product_portable)},
    .product_exact = {KERNEL_ALL_TYPES(kernel_product_portable)},
    V_TABLE_ROWS,
};
