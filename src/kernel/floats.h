/*
 * The part of products.h for float weights, and for the exact class, which dequantises the others: mat-vec from memory, and many tokens through
 * scratch. Meant to be included there only, once in an ISA file.
 */

/* One unit of a group as f32 [32][GROUP_ROWS]. */
typedef void fill_floats(vf *dst, const unsigned char *header, const unsigned char *p, int i,
                         int g);

ALWAYS vf float_load(const unsigned char *p, int type, int column, int g)
{
    if (type == TYPE_F32)
        return vf_load(p + 64 * column + 4 * GROUP_ROWS * g);
    p += 32 * column + 2 * GROUP_ROWS * g;
    return type == TYPE_F16 ? vf_load_half(p) : vf_as(vi_shl32(vi_from_u16(p), 16));
}

#define FILL_FLOATS(name, type)                                                                    \
    ALWAYS void name(vf *dst, const unsigned char *header, const unsigned char *p, int i, int g)   \
    {                                                                                              \
        (void)header, (void)i;                                                                     \
        for (int c = 0; c < KERNEL_UNIT; c++)                                                      \
            dst[c] = float_load(p, type, c, g);                                                    \
    }
FILL_FLOATS(fill_f32, TYPE_F32)
FILL_FLOATS(fill_f16, TYPE_F16)
FILL_FLOATS(fill_bf16, TYPE_BF16)

/* Dequantises an opened unit: fma(d·s, q − bias, m·j). */
ALWAYS void fill_unit(vf *dst, const unit *u, shape s)
{
    UNROLL for (int j = 0; j < 8; j++)
    {
        int h = j / 4;
        vf d = s.kind >= HALVES ? vf_mul(u->d, u->s[h]) : u->d;
        vf m = s.kind == HALVES_MINIMUM ? vf_mul(u->m, u->j[h])
               : s.kind == MINIMUM      ? u->m
                                        : vf_zero();
        UNROLL for (int b = 0; b < 4; b++)
        {
            vi q = low_bits(vi_shr32(u->q[j], 8 * b), 255);
            dst[4 * j + b] = vf_fma(d, vf_from_int(vi_sub32(q, vi_set32(s.bias))), m);
        }
    }
}

ALWAYS vf float_value(const vf *acc)
{
    return vf_add(vf_add(acc[0], acc[1]), vf_add(acc[2], acc[3]));
}

/* One token, float types: one group of n_streams (constant) strips at once, weights straight from memory. */
ALWAYS bool float_vec_groups(const kernel_product *p, int type, int n_streams, int64_t strip,
                             int64_t step, int g)
{
    const kernel_matrix *w = p->w;
    const unsigned char *base[VEC_STREAMS];
    vf acc[VEC_STREAMS][4];
    wide_sums sums[VEC_STREAMS];
    const float *x = p->x;
    int64_t columns = w->column_end - w->column_begin,
            leaf = p->output == KERNEL_F32 ? columns : p->leaf;
    int column_bytes = type == TYPE_F32 ? 64 : 32;
    UNROLL for (int i = 0; i < n_streams; i++)
    {
        base[i] = strip_at(w, strip + i * step);
        sums_clear(&sums[i]);
        UNROLL for (int a = 0; a < 4; a++) acc[i][a] = vf_zero();
    }
    for (int64_t c = 0; c < columns;) {
        int64_t end = BASE_MIN(c + leaf, columns);
        UNROLL for (int i = 0; i < n_streams; i++) UNROLL for (int a = 0; a < 4; a++) acc[i][a] =
            vf_zero();
        for (; c + 4 <= end; c += 4) {
            UNROLL for (int i = 0; i < n_streams; i++)
            {
                const unsigned char *from = base[i] + c * column_bytes;
                for (int line = 0; line < column_bytes * 4 / 64 && g == 0; line++)
                    __builtin_prefetch(from + FLOAT_AHEAD + 64 * line);
                UNROLL for (int a = 0; a < 4; a++) acc[i][a] =
                    vf_fma(float_load(from, type, a, g), vf_set(x[c + a]), acc[i][a]);
            }
        }
        for (; c < end; c++)
            for (int i = 0; i < n_streams; i++)
                acc[i][c & 3] = vf_fma(float_load(base[i] + c * column_bytes, type, 0, g),
                                       vf_set(x[c]), acc[i][c & 3]);
        if (p->output != KERNEL_F32)
            UNROLL for (int i = 0; i < n_streams; i++) sums_add_leaf(&sums[i], float_value(acc[i]));
    }
    bool good = true;
    UNROLL for (int i = 0; i < n_streams; i++) good &=
        write_rows(p, (strip + i * step) * KERNEL_TILE_ROWS + g * GROUP_ROWS, 0,
                   float_value(acc[i]), &sums[i]);
    return good;
}

ALWAYS bool float_vec(const kernel_product *p, int type, int64_t begin, int64_t end)
{
    bool good = true;
    int64_t share = (end - begin) / VEC_STREAMS, strip = begin + share * VEC_STREAMS;
    for (int64_t i = 0; i < share; i++)
        for (int g = 0; g < GROUPS; g++)
            good &= float_vec_groups(p, type, VEC_STREAMS, begin + i, share, g);
    for (; strip < end; strip++)
        for (int g = 0; g < GROUPS; g++)
            good &= float_vec_groups(p, type, 1, strip, 1, g);
    return good;
}

enum { FLOAT_TOKENS = 48, FLOAT_UNITS = 4 };

typedef struct float_scratch {
    vf w[FLOAT_UNITS * KERNEL_UNIT];
    vf acc[FLOAT_TOKENS][4];
    wide_sums sums[FLOAT_TOKENS];
} float_scratch;

ALWAYS const float *floats_at(const char *x, uint64_t x_bytes, int t)
{
    return (const float *)(const void *)(x + (uint64_t)t * x_bytes);
}

/* n_tokens (constant) tokens against `columns` columns of the group in scratch. */
ALWAYS void float_chunk(const vf *w, int columns, int n_tokens, vf (*acc)[4], const char *x,
                        uint64_t x_bytes)
{
    vf sum[FLOAT_GROUP][4];
    int c = 0;
    UNROLL for (int t = 0; t < n_tokens; t++) UNROLL for (int a = 0; a < 4; a++) sum[t][a] =
        acc[t][a];
    for (; c + 4 <= columns; c += 4)
        UNROLL for (int a = 0; a < 4; a++)
        {
            vf weights = w[c + a];
            UNROLL for (int t = 0; t < n_tokens; t++) sum[t][a] =
                vf_fma(weights, vf_set(floats_at(x, x_bytes, t)[c + a]), sum[t][a]);
        }
    UNROLL for (int t = 0; t < n_tokens; t++) UNROLL for (int a = 0; a < 4; a++) acc[t][a] =
        sum[t][a];
    for (; c < columns; c++)
        for (int t = 0; t < n_tokens; t++)
            acc[t][c & 3] = vf_fma(w[c], vf_set(floats_at(x, x_bytes, t)[c]), acc[t][c & 3]);
}

static void float_tokens(const vf *w, int columns, int n, vf (*acc)[4], const char *x,
                         uint64_t x_bytes)
{
    for (int t = 0, size; t < n; t += size, x += (uint64_t)size * x_bytes) {
        int rest = n - t;
        size = rest >= FLOAT_GROUP && rest != 8 ? FLOAT_GROUP
               : rest >= 4 && FLOAT_GROUP > 4   ? 4
               : rest >= 2                      ? 2
                                                : 1;
        if (size == FLOAT_GROUP)
            float_chunk(w, columns, FLOAT_GROUP, acc + t, x, x_bytes);
        else if (FLOAT_GROUP > 4 && size == 4)
            float_chunk(w, columns, 4, acc + t, x, x_bytes);
        else if (size == 2)
            float_chunk(w, columns, 2, acc + t, x, x_bytes);
        else
            float_chunk(w, columns, 1, acc + t, x, x_bytes);
    }
}

ALWAYS bool float_rows(const kernel_product *p, fill_floats *fill, int64_t group, int64_t t0, int n,
                       float_scratch *m)
{
    const kernel_matrix *w = p->w;
    const unsigned char *base = strip_at(w, group / GROUPS);
    const char *x = (const char *)p->x + (uint64_t)t0 * p->x_bytes;
    place at = place_start(w, w->type->run_units);
    int64_t left = w->column_end - w->column_begin, until_leaf = p->leaf;
    memset(m->acc, 0, (size_t)n * sizeof m->acc[0]);
    memset(m->sums, 0, (size_t)n * sizeof m->sums[0]);
    while (left > 0) {
        int64_t columns = BASE_MIN(FLOAT_UNITS * KERNEL_UNIT, left);
        if (p->output != KERNEL_F32)
            columns = BASE_MIN(columns, until_leaf);
        for (int k = 0; k * KERNEL_UNIT < columns; k++) {
            for (int line = 0; line < w->type->unit_bytes / 64; line++)
                __builtin_prefetch(base + at.unit + FLOAT_AHEAD + 64 * line);
            fill(m->w + k * KERNEL_UNIT, base + at.header, base + at.unit, at.in_run,
                 (int)(group % GROUPS));
            place_next(&at, w->type, w->type->run_units);
        }
        float_tokens(m->w, (int)columns, n, m->acc, x, p->x_bytes);
        x += (uint64_t)columns * sizeof(float);
        left -= columns;
        until_leaf -= columns;
        if (p->output == KERNEL_F32 || (until_leaf > 0 && left > 0))
            continue;
        until_leaf = p->leaf;
        for (int t = 0; t < n; t++)
            sums_add_leaf(&m->sums[t], float_value(m->acc[t]));
        memset(m->acc, 0, (size_t)n * sizeof m->acc[0]);
    }
    bool good = true;
    for (int t = 0; t < n; t++)
        good &= write_rows(p, group * GROUP_ROWS, t0 + t, float_value(m->acc[t]), &m->sums[t]);
    return good;
}

ALWAYS bool float_mat(const kernel_product *p, fill_floats *fill, int64_t begin, int64_t end)
{
    float_scratch m;
    bool good = true;
    for (int64_t next; begin < end; begin = next) {
        next = BASE_MIN(begin + mat_block(p), end);
        for (int64_t t = 0; t < p->n_tokens; t += FLOAT_TOKENS)
            for (int64_t group = begin * GROUPS; group < next * GROUPS; group++)
                good &=
                    float_rows(p, fill, group, t, (int)BASE_MIN(FLOAT_TOKENS, p->n_tokens - t), &m);
    }
    return good;
}
