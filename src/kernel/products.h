/*
 * Products, written once over registers of 16, 32 or 64 bytes: x86_512.h, x86_256.h and arm_128.h define the operations (vi_ on bytes and integers, vf_
 * on floats, sums_ on doubles, dot4, dot4_wide) and include this file. A group is the GROUP_ROWS rows of a strip that fill a register: 16, 8 or 4,
 * and then a strip is one, two or four groups.
 *
 *   open_TYPE   one unit of a group → 8 registers of unsigned bytes (4 columns each), scale, minimum or half scales: units.h
 *   vec_*       one token: some strips walked at once as separate memory streams, nothing stored in between
 *   mat_*       T tokens: 8 units of MAT_GROUPS groups are opened into scratch once and then met by up to 32 tokens, some at a time inside
 *               each step of 4 columns; running sums stay in scratch between the chunks of units
 *   float_*     the same for float weights and for the exact class, four accumulators per element: floats.h
 *
 * The order of operations of every element is that of portable.c. Not here: the row functions (vector.h).
 */

enum { GROUPS = KERNEL_TILE_ROWS / GROUP_ROWS };

#include "kernel/units.h"

/* ---- one block of columns ------------------------------------------------------------------------------------------- */

/* What a product function knows at compile time about its type. */
typedef struct shape {
    kind kind;
    int bias;       /* the stored bytes are this much too great */
    bool wide;      /* stored bytes beyond 127 */
    int run_units;  /* as in kernel_type */
    int unit_bytes; /* that a unit takes of memory, its share of the header included */
} shape;

ALWAYS vi four_columns(const kernel_act *x, int j)
{
    int32_t v;
    memcpy(&v, x->q + 4 * j, 4);
    return vi_set32(v);
}

ALWAYS vi half_sums(const kernel_act *x)
{
    int32_t v;
    memcpy(&v, x->sum, 4);
    return vi_set32(v);
}

/* Of wide bytes some tables take the weights as signed ones: then nothing is to be taken away. */
#ifdef DOT_WIDE_SIGNED
#define DOT_BIAS(s) ((s).wide ? 0 : (s).bias)
#else
#define DOT_BIAS(s) ((s).bias)
#endif

ALWAYS vi dot(shape s, vi acc, vi u, vi x)
{
    return s.wide ? dot4_wide(acc, u, x) : dot4(acc, u, x);
}

/* Of how many steps of four columns the dot products are added at once where many tokens meet bytes that are not wide: more than one where that
 * is less work. */
#ifndef DOT_STEPS
#define DOT_STEPS 1
#endif

ALWAYS vi dots(shape s, vi acc, const vi *u, const vi *x)
{
#if DOT_STEPS ==                                                                                   \
    4 /* what is added in 16 bits stays under 2^15: 4·2·31·127, of types with two scales 2·2·63·127 */
    if (!s.wide) {
        vi one = vi_set16(1), a = vi_add16(dot_pairs(u[0], x[0]), dot_pairs(u[1], x[1])),
           b = vi_add16(dot_pairs(u[2], x[2]), dot_pairs(u[3], x[3]));
        if (s.kind < HALVES)
            return vi_add32(acc, vi_madd16(vi_add16(a, b), one));
        return vi_add32(vi_add32(acc, vi_madd16(a, one)), vi_madd16(b, one));
    }
#endif
    return dot(s, acc, *u, *x);
}

/* Two factors for half_sums. */
ALWAYS vi pair(int first, int second)
{
    return vi_set32((int)((uint32_t)(first & 0xFFFF) | (uint32_t)(second & 0xFFFF) << 16));
}

/* acc after one block, given the exact integers of its halves (or of the whole in i0) */
ALWAYS vf block_end(shape s, const unit *u, vi i0, vi i1, const kernel_act *x, vi sums, vf acc)
{
    vf scale = vf_set(x->scale), whole = vf_from_int(i0);
    if (s.kind >= HALVES) /* integers under 2^24: exact */
        whole = vf_fma(vf_from_int(i1), u->s[1], vf_mul(whole, u->s[0]));
    acc = vf_fma(whole, vf_mul(u->d, scale), acc);
    if (s.kind == MINIMUM) {
        vf total = vf_from_int(vi_madd16(sums, pair(1, 1)));
        acc = vf_fma(u->m, vf_mul(total, scale), acc);
    }
    if (s.kind == HALVES_MINIMUM) {
        vf sum0 = vf_from_int(vi_madd16(sums, pair(1, 0))),
           sum1 = vf_from_int(vi_madd16(sums, pair(0, 1)));
        vf total = vf_fma(u->j[1], sum1, vf_mul(u->j[0], sum0));
        acc = vf_fma(u->m, vf_mul(total, scale), acc);
    }
    return acc;
}

/* Writes the rows of a group for token t; rows beyond the matrix are left alone. */
ALWAYS bool write_rows(const kernel_product *p, int64_t row, int64_t t, vf acc,
                       const wide_sums *sums)
{
    int64_t n = BASE_MIN(GROUP_ROWS, p->w->rows - row), at = t * p->dst_stride + row;
    double values[GROUP_ROWS];
    if (n <= 0)
        return true;
    if (p->output == KERNEL_F32) {
        vf_store_n((float *)p->dst + at, acc, (int)n);
        return true;
    }
    sums_store(values, sums);
    if (p->output == KERNEL_SUMS_F32)
        return kernel_finish((float *)p->dst + at, values, n);
    memcpy((double *)p->dst + at, values, (size_t)n * sizeof(double));
    return true;
}

/* A place in a strip, relative to its beginning: all streams and groups are at the same one. */
typedef struct place {
    uint64_t header, unit;
    uint64_t
        share; /* where the unit would begin if headers were spread over their units: prefetching goes by it and leaves no line out */
    int in_run;
} place;

ALWAYS place place_start(const kernel_matrix *w, int run_units)
{
    return (place){0, (uint64_t)w->type->header_bytes, 0,
                   (int)(w->column_begin / KERNEL_UNIT % run_units)};
}

ALWAYS void place_next(place *at, const kernel_type *type, int run_units)
{
    at->unit += (uint64_t)type->unit_bytes;
    if (run_units == 1 || ++at->in_run == run_units) {
        at->in_run = 0;
        at->header = at->unit;
        at->unit += (uint64_t)type->header_bytes;
    }
}

ALWAYS const unsigned char *strip_at(const kernel_matrix *w, int64_t strip)
{
    return (const unsigned char *)w->tiles + (uint64_t)strip * w->strip_bytes;
}

/* ---- one token ---------------------------------------------------------------------------------------------------------- */

enum { VEC_AHEAD = 2304, ONE_STREAM_AHEAD = 3456, FLOAT_AHEAD = 3456 }; /* bytes of prefetch */

/* at: the beginning of a unit's share of its strip */
ALWAYS void prefetch_unit(shape s, const unsigned char *at, int ahead)
{
    for (int line = 0; line < (s.unit_bytes + 63) / 64; line++)
        __builtin_prefetch(at + ahead + 64 * line);
}

ALWAYS vf vec_block(shape s, const unit *u, const kernel_act *x, vi sums, vf acc)
{
    const int bias = DOT_BIAS(s);
    vi i0 = bias ? vi_madd16(sums, pair(-bias, s.kind >= HALVES ? 0 : -bias)) : vi_zero();
    vi i1 = bias && s.kind >= HALVES ? vi_madd16(sums, pair(0, -bias)) : vi_zero();
    UNROLL for (int j = 0; j < 4; j++)
    {
        i0 = dot(s, i0, u->q[j], four_columns(x, j));
        i1 = dot(s, i1, u->q[4 + j], four_columns(x, 4 + j));
    }
    if (s.kind < HALVES)
        i0 = vi_add32(i0, i1);
    return block_end(s, u, i0, i1, x, sums, acc);
}

/* The block of FEW_TOKENS tokens against one unit, token beside token inside each step of four columns: as many chains as there are tokens.
 * Their sums are GROUPS apart. */
ALWAYS void few_block(shape s, const unit *u, const char *const *x, uint64_t column, vf *acc)
{
    const int bias = DOT_BIAS(s);
    vi total[FEW_TOKENS];
    const kernel_act *a[FEW_TOKENS];
    UNROLL for (int t = 0; t < FEW_TOKENS; t++)
    {
        a[t] = (const kernel_act *)(const void *)(x[t] + column);
        total[t] = bias ? vi_madd16(half_sums(a[t]), pair(-bias, -bias)) : vi_zero();
    }
    UNROLL for (int j = 0; j < 8; j++) UNROLL for (int t = 0; t < FEW_TOKENS; t++) total[t] =
        dot(s, total[t], u->q[j], four_columns(a[t], j));
    UNROLL for (int t = 0; t < FEW_TOKENS; t++) acc[t * GROUPS] =
        block_end(s, u, total[t], vi_zero(), a[t], half_sums(a[t]), acc[t * GROUPS]);
}

/* n_streams (constant) strips, `step` strips apart and none beyond last, against n_tokens (constant) tokens, none beyond p->n_tokens. What is
 * beyond is done again with the last one. */
ALWAYS bool vec_strips(const kernel_product *p, open_unit *open, shape s, int n_streams,
                       int n_tokens, int64_t strip, int64_t step, int64_t last)
{
    enum { MOST = 8 }; /* sums of a strip at once: VEC_STREAMS × 1, 2 × 4, 1 × FEW_TOKENS */
    const kernel_matrix *w = p->w;
    const unsigned char *base[VEC_STREAMS];
    const char *x[FEW_TOKENS];
    vf acc[MOST * GROUPS];
    wide_sums sums[MOST * GROUPS];
    place at = place_start(w, s.run_units);
    int64_t left = (w->column_end - w->column_begin) / KERNEL_UNIT,
            leaf = p->output == KERNEL_F32 ? left : p->leaf / KERNEL_UNIT;
    const int n_sums = n_streams * n_tokens * GROUPS;
    UNROLL for (int i = 0; i < n_streams; i++) base[i] =
        strip_at(w, BASE_MIN(strip + i * step, last));
    UNROLL for (int t = 0; t < n_tokens; t++) x[t] =
        (const char *)p->x + (uint64_t)BASE_MIN(t, p->n_tokens - 1) * p->x_bytes;
    UNROLL for (int i = 0; i < n_sums; i++)
    {
        sums_clear(&sums[i]);
        acc[i] = vf_zero();
    }
    for (uint64_t column = 0; left > 0;) {
        int64_t n = BASE_MIN(leaf, left);
        left -= n;
        UNROLL for (int i = 0; i < n_sums; i++) acc[i] = vf_zero();
        for (; n > 0; n--, column += sizeof(kernel_act)) {
            UNROLL for (int i = 0; i < n_streams; i++)
            {
                prefetch_unit(s, base[i] + at.share, n_streams == 1 ? ONE_STREAM_AHEAD : VEC_AHEAD);
                UNROLL for (int g = 0; g < GROUPS; g++)
                {
                    unit u;
                    open(&u, base[i] + at.header, base[i] + at.unit, at.in_run, g);
                    if (n_tokens == FEW_TOKENS && s.kind < HALVES) {
                        few_block(s, &u, x, column, &acc[i * n_tokens * GROUPS + g]);
                        continue;
                    }
                    UNROLL for (int t = 0; t < n_tokens; t++)
                    {
                        const kernel_act *a = (const kernel_act *)(const void *)(x[t] + column);
                        vf *sum = &acc[(i * n_tokens + t) * GROUPS + g];
                        *sum = vec_block(s, &u, a, half_sums(a), *sum);
                    }
                }
            }
            place_next(&at, w->type, s.run_units);
            at.share += (uint64_t)s.unit_bytes;
        }
        if (p->output != KERNEL_F32)
            UNROLL for (int i = 0; i < n_sums; i++) sums_add_leaf(&sums[i], acc[i]);
    }
    bool good = true;
    UNROLL for (int i = 0; i < n_sums; i++)
    {
        int64_t t = i / GROUPS % n_tokens,
                row = (strip + i / GROUPS / n_tokens * step) * KERNEL_TILE_ROWS +
                      i % GROUPS * GROUP_ROWS;
        if (t < p->n_tokens && row / KERNEL_TILE_ROWS <= last)
            good &= write_rows(p, row, t, acc[i], &sums[i]);
    }
    return good;
}

/* The streams run through equal shares of the strips, each from start to end, so that prefetching runs on into the next strip. */
ALWAYS bool vec_product(const kernel_product *p, open_unit *open, shape s, int64_t begin,
                        int64_t end)
{
    bool good = true;
    int64_t share = (end - begin) / VEC_STREAMS, strip = begin + share * VEC_STREAMS;
    for (int64_t i = 0; i < share; i++)
        good &= vec_strips(p, open, s, VEC_STREAMS, 1, begin + i, share, end - 1);
    for (; strip < end; strip++)
        good &= vec_strips(p, open, s, 1, 1, strip, 1, strip);
    return good;
}

/* 2..FEW_TOKENS tokens: still bound by memory, so nothing is stored in between either. */
ALWAYS bool few_product(const kernel_product *p, open_unit *open, shape s, int64_t begin,
                        int64_t end)
{
    bool good = true;
    int64_t share = (end - begin + 1) / 2;
    if (FEW_TOKENS > 4 && p->n_tokens > 4) {
        for (int64_t strip = begin; strip < end; strip++)
            good &= vec_strips(p, open, s, 1, FEW_TOKENS, strip, 1, strip);
        return good;
    }
    for (int64_t i = 0; i < share; i++)
        good &= vec_strips(p, open, s, 2, 4, begin + i, share, end - 1);
    return good;
}

/* ---- many tokens ---------------------------------------------------------------------------------------------------------- */

enum { MAT_TOKENS = 64, MAT_UNITS = 8 };

/* Everything MAT_GROUPS groups need between the chunks of their units. Leaves of exact sums are added two by two, which takes half the
 * instructions: the first one waits in acc[0] while the second grows in acc[1]. */
typedef struct mat_scratch {
    vi bias[2];     /* what the sums of the halves are multiplied with to start the integer sums */
    int leaf_units; /* 1, 2, 4 or 8; 0: no exact sums */
    int odd;        /* the leaf in work is the second of its pair */
    unit units[MAT_UNITS][MAT_GROUPS];
    vf acc[2][MAT_TOKENS][MAT_GROUPS];
    wide_sums sums[MAT_TOKENS][MAT_GROUPS];
} mat_scratch;

ALWAYS const kernel_act *act_at(const char *x, uint64_t x_bytes, int t)
{
    return (const kernel_act *)(const void *)(x + (uint64_t)t * x_bytes);
}

/* A pair of leaves ends; without a second acc[1] is zero. */
ALWAYS void mat_end_pair(mat_scratch *m, int t0, int n_tokens)
{
    for (int t = t0; t < t0 + n_tokens; t++)
        UNROLL for (int g = 0; g < MAT_GROUPS; g++)
        {
            sums_add_pair(&m->sums[t][g], &m->acc[0][t][g], &m->acc[1][t][g]);
            m->acc[0][t][g] = m->acc[1][t][g] = vf_zero();
        }
}

/* n_tokens (constant) tokens from t0 on against n_units units. x: the first one's block of the first unit. */
ALWAYS void mat_chunk(shape s, mat_scratch *m, int n_units, int t0, int n_tokens, const char *x,
                      uint64_t x_bytes)
{
    int odd = m->odd, leaf_mask = m->leaf_units ? m->leaf_units - 1 : ~0;
    vf(*acc)[MAT_GROUPS] = m->acc[odd] + t0;
    x += (uint64_t)t0 * x_bytes;
    for (int k = 0; k < n_units; k++, x += sizeof(kernel_act)) {
        const unit *units = m->units[k];
        vi i0[MAT_WIDE][MAT_GROUPS], i1[MAT_WIDE][MAT_GROUPS];
        UNROLL for (int t = 0; t < n_tokens; t++)
        {
            vi sums = half_sums(act_at(x, x_bytes, t));
            UNROLL for (int g = 0; g < MAT_GROUPS; g++)
            {
                i0[t][g] = vi_madd16(sums, m->bias[0]);
                i1[t][g] = s.kind >= HALVES ? vi_madd16(sums, m->bias[1]) : vi_zero();
            }
        }
        const int steps = s.wide ? 1 : DOT_STEPS;
        UNROLL for (int j = 0; j < 8; j += steps)
        {
            UNROLL for (int t = 0; t < n_tokens; t++)
            {
                vi x4[DOT_STEPS];
                UNROLL for (int i = 0; i < steps; i++) x4[i] =
                    four_columns(act_at(x, x_bytes, t), j + i);
                UNROLL for (int g = 0; g < MAT_GROUPS; g++)
                {
                    if (s.kind >= HALVES && j >= 4)
                        i1[t][g] = dots(s, i1[t][g], units[g].q + j, x4);
                    else
                        i0[t][g] = dots(s, i0[t][g], units[g].q + j, x4);
                }
            }
        }
        UNROLL for (int t = 0; t < n_tokens; t++)
        {
            const kernel_act *a = act_at(x, x_bytes, t);
            vi sums = half_sums(a);
            UNROLL for (int g = 0; g < MAT_GROUPS; g++) acc[t][g] =
                block_end(s, &units[g], i0[t][g], i1[t][g], a, sums, acc[t][g]);
        }
        if (((k + 1) & leaf_mask) == 0) {
            if (odd)
                mat_end_pair(m, t0, n_tokens);
            odd ^= 1;
            acc = m->acc[odd] + t0;
        }
    }
}

/* All tokens of a block (up to 32) against the opened units; one function per kind, the bias is data. */
typedef void mat_tokens(mat_scratch *m, int n_units, int n, const char *x, uint64_t x_bytes);

#define MAT_TOKENS_OF(name, kind_of, wide)                                                         \
    static void mat_##name(mat_scratch *m, int n_units, int n, const char *x, uint64_t x_bytes)    \
    {                                                                                              \
        const shape s = {kind_of, 0, wide, 1, 1};                                                  \
        int t = 0;                                                                                 \
        for (; t + MAT_WIDE <= n && s.kind < HALVES; t += MAT_WIDE)                                \
            mat_chunk(s, m, n_units, t, MAT_WIDE, x, x_bytes);                                     \
        for (; t + MAT_WIDE / 2 <= n; t += MAT_WIDE / 2)                                           \
            mat_chunk(s, m, n_units, t, MAT_WIDE / 2, x, x_bytes);                                 \
        for (; t < n; t++)                                                                         \
            mat_chunk(s, m, n_units, t, 1, x, x_bytes);                                            \
    }
MAT_TOKENS_OF(plain, PLAIN, false)
MAT_TOKENS_OF(wide, PLAIN, true)
MAT_TOKENS_OF(minimum, MINIMUM, false)
MAT_TOKENS_OF(halves, HALVES, false)
MAT_TOKENS_OF(minima, HALVES_MINIMUM, false)

ALWAYS mat_tokens *mat_tokens_of(shape s)
{
    static mat_tokens *const by_kind[] = {mat_plain, mat_minimum, mat_halves, mat_minima};
    return s.wide ? mat_wide : by_kind[s.kind];
}

/* n_groups groups from `group` on (two strips of one, or one strip of two) against n tokens. Missing groups count as the first. */
ALWAYS bool mat_groups(const kernel_product *p, open_unit *open, shape s, int64_t group,
                       int n_groups, int64_t t0, int n, mat_scratch *m)
{
    const kernel_matrix *w = p->w;
    const char *x = (const char *)p->x + (uint64_t)t0 * p->x_bytes;
    place at = place_start(w, s.run_units);
    int64_t left = (w->column_end - w->column_begin) / KERNEL_UNIT;
    m->odd = 0;
    memset(m->acc[0], 0, (size_t)n * sizeof m->acc[0][0]);
    memset(m->acc[1], 0, (size_t)n * sizeof m->acc[1][0]);
    memset(m->sums, 0, (size_t)n * sizeof m->sums[0]);
    while (left > 0) {
        int units = (int)BASE_MIN(MAT_UNITS, left);
        for (int k = 0; k < units; k++) {
            for (int g = 0; g < n_groups; g++) {
                const unsigned char *from = strip_at(w, (group + g) / GROUPS);
                prefetch_unit(s, from + at.share, VEC_AHEAD);
                open(&m->units[k][g], from + at.header, from + at.unit, at.in_run,
                     (int)((group + g) % GROUPS));
            }
            for (int g = n_groups; g < MAT_GROUPS; g++)
                m->units[k][g] = m->units[k][0];
            place_next(&at, w->type, s.run_units);
            at.share += (uint64_t)s.unit_bytes;
        }
        mat_tokens_of(s)(m, units, n, x, p->x_bytes);
        x += (uint64_t)units * sizeof(kernel_act);
        left -= units;
        if (m->leaf_units)
            m->odd ^= units / m->leaf_units & 1;
    }
    if (m->leaf_units) /* what is left: a leaf without a second, an unfinished one, or zeros */
        mat_end_pair(m, 0, n);
    bool good = true;
    for (int t = 0; t < n; t++)
        for (int g = 0; g < n_groups; g++)
            good &=
                write_rows(p, (group + g) * GROUP_ROWS, t0 + t, m->acc[0][t][g], &m->sums[t][g]);
    return good;
}

/* Strips that fit the second cache, about 1 MB: they meet all tokens before the next ones are read from memory. Even, for pairs of groups. */
ALWAYS int64_t mat_block(const kernel_product *p)
{
    return 2 * BASE_MAX((int64_t)((1 << 19) / BASE_MAX(p->w->strip_bytes, 1)), 1);
}

ALWAYS bool mat_product(const kernel_product *p, open_unit *open, shape s, int64_t begin,
                        int64_t end)
{
    mat_scratch m;
    bool good = true;
    m.bias[0] = pair(-DOT_BIAS(s), s.kind >= HALVES ? 0 : -DOT_BIAS(s));
    m.bias[1] = pair(0, -DOT_BIAS(s));
    m.leaf_units = p->output == KERNEL_F32 ? 0 : p->leaf / KERNEL_UNIT;
    for (int64_t next; begin < end; begin = next) {
        next = BASE_MIN(begin + mat_block(p), end);
        for (int64_t t = 0; t < p->n_tokens; t += MAT_TOKENS) {
            int n = (int)BASE_MIN(MAT_TOKENS, p->n_tokens - t);
            for (int64_t group = begin * GROUPS; group < next * GROUPS; group += MAT_GROUPS)
                good &= mat_groups(p, open, s, group,
                                   (int)BASE_MIN(MAT_GROUPS, next * GROUPS - group), t, n, &m);
        }
    }
    return good;
}

#include "kernel/floats.h"

/* ---- the functions of the table ----------------------------------------------------------------------------------------- */

#define FLOAT_PRODUCT(name, type, fill)                                                            \
    static bool product_##name(const kernel_product *p, int64_t begin, int64_t end)                \
    {                                                                                              \
        if (p->n_tokens == 1)                                                                      \
            return float_vec(p, type, begin, end);                                                 \
        return float_mat(p, fill, begin, end);                                                     \
    }

/* The class of dequantised weights, and the way of many tokens: one function a type. */
#define EXACT_PRODUCT(name, ...)                                                                   \
    ALWAYS void fill_##name(vf *dst, const unsigned char *header, const unsigned char *p, int i,   \
                            int g)                                                                 \
    {                                                                                              \
        unit u;                                                                                    \
        open_##name(&u, header, p, i, g);                                                          \
        fill_unit(dst, &u, (shape){__VA_ARGS__, 1});                                               \
    }                                                                                              \
    static bool exact_##name(const kernel_product *p, int64_t begin, int64_t end)                  \
    {                                                                                              \
        return float_mat(p, fill_##name, begin, end);                                              \
    }

/* name, bytes of memory per unit, then kind, bias, wide, units of a run. The types that most weights come in. */
#define QUANTISED_PRODUCT(name, unit_bytes, ...)                                                   \
    static bool product_##name(const kernel_product *p, int64_t begin, int64_t end)                \
    {                                                                                              \
        const shape s = {__VA_ARGS__, unit_bytes};                                                 \
        if (p->n_tokens == 1)                                                                      \
            return vec_product(p, open_##name, s, begin, end);                                     \
        if (p->n_tokens <= FEW_TOKENS)                                                             \
            return few_product(p, open_##name, s, begin, end);                                     \
        return mat_product(p, open_##name, s, begin, end);                                         \
    }                                                                                              \
    EXACT_PRODUCT(name, __VA_ARGS__)

/* The same for types that are rarely met: as fast for one token and for many, less code. */
#define RARE_PRODUCT(name, unit_bytes, ...)                                                        \
    static bool product_##name(const kernel_product *p, int64_t begin, int64_t end)                \
    {                                                                                              \
        const shape s = {__VA_ARGS__, unit_bytes};                                                 \
        if (p->n_tokens > 1)                                                                       \
            return mat_product(p, open_##name, s, begin, end);                                     \
        bool good = true;                                                                          \
        int64_t share = (end - begin + VEC_STREAMS - 1) / VEC_STREAMS;                             \
        for (int64_t i = 0; i < share; i++)                                                        \
            good &= vec_strips(p, open_##name, s, VEC_STREAMS, 1, begin + i, share, end - 1);      \
        return good;                                                                               \
    }                                                                                              \
    EXACT_PRODUCT(name, __VA_ARGS__)

FLOAT_PRODUCT(f32, TYPE_F32, fill_f32)
FLOAT_PRODUCT(f16, TYPE_F16, fill_f16)
FLOAT_PRODUCT(bf16, TYPE_BF16, fill_bf16)
QUANTISED_PRODUCT(q8_0, 544, PLAIN, 128, true, 1)
QUANTISED_PRODUCT(q4_0, 288, PLAIN, 8, false, 1)
QUANTISED_PRODUCT(q4_k, 288, MINIMUM, 0, false, 8)
QUANTISED_PRODUCT(q6_k, 420, HALVES, 32, false, 8)
QUANTISED_PRODUCT(mxfp4, 272, PLAIN, 12, false, 1)
RARE_PRODUCT(q4_1, 320, MINIMUM, 0, false, 1)
RARE_PRODUCT(q5_0, 352, PLAIN, 16, false, 1)
RARE_PRODUCT(q5_1, 384, MINIMUM, 0, false, 1)
RARE_PRODUCT(q2_k, 168, HALVES_MINIMUM, 0, false, 8)
RARE_PRODUCT(q3_k, 220, HALVES, 4, false, 8)
RARE_PRODUCT(q5_k, 352, MINIMUM, 0, false, 8)
RARE_PRODUCT(iq4_nl, 288, PLAIN, 128, true, 1)
RARE_PRODUCT(iq4_xs, 272, PLAIN, 128, true, 8)

#define PRODUCT_ROWS                                                                               \
    .product = {[TYPE_F32] = product_f32,       [TYPE_F16] = product_f16,                          \
                [TYPE_BF16] = product_bf16,     [TYPE_Q8_0] = product_q8_0,                        \
                [TYPE_Q4_0] = product_q4_0,     [TYPE_Q4_K] = product_q4_k,                        \
                [TYPE_Q6_K] = product_q6_k,     [TYPE_Q4_1] = product_q4_1,                        \
                [TYPE_Q5_0] = product_q5_0,     [TYPE_Q5_1] = product_q5_1,                        \
                [TYPE_Q2_K] = product_q2_k,     [TYPE_Q3_K] = product_q3_k,                        \
                [TYPE_Q5_K] = product_q5_k,     [TYPE_IQ4_NL] = product_iq4_nl,                    \
                [TYPE_IQ4_XS] = product_iq4_xs, [TYPE_MXFP4] = product_mxfp4},                     \
    .product_exact = {                                                                             \
        [TYPE_F32] = product_f32,  [TYPE_F16] = product_f16,     [TYPE_BF16] = product_bf16,       \
        [TYPE_Q8_0] = exact_q8_0,  [TYPE_Q4_0] = exact_q4_0,     [TYPE_Q4_K] = exact_q4_k,         \
        [TYPE_Q6_K] = exact_q6_k,  [TYPE_Q4_1] = exact_q4_1,     [TYPE_Q5_0] = exact_q5_0,         \
        [TYPE_Q5_1] = exact_q5_1,  [TYPE_Q2_K] = exact_q2_k,     [TYPE_Q3_K] = exact_q3_k,         \
        [TYPE_Q5_K] = exact_q5_k,  [TYPE_IQ4_NL] = exact_iq4_nl, [TYPE_IQ4_XS] = exact_iq4_xs,     \
        [TYPE_MXFP4] = exact_mxfp4}
