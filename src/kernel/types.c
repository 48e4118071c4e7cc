/*
 * The types of weights: sizes, and for each quantised one the way from a file block to units of 32 columns ("row form") and on to
 * numbers. A type is a row of two tables and up to three small functions; everything else (packing, exact dequantising, the portable
 * product) is generic over them.
 *
 * Row forms put the columns of a unit where wide kernels want them, without changing the number of bytes:
 *   nibbles, 16 bytes: low half of byte i = column i, high half = column 16 + i
 *   pairs, 8 bytes:    byte 4w + b, bits 2j..2j+1 = column 16w + 4j + b
 *   singles, 4 bytes:  byte b, bit j = column 4j + b
 *   signed bytes (Q8_0) are stored plus 128, as the unsigned operand of a dot product instruction.
 * Formats: the GGUF specification and the block structures that go with it. Not here: quantising weights.
 */
#include "kernel/internal.h"

/* ---- little pieces ---------------------------------------------------------------------------------------------- */

static float half_at(const unsigned char *p)
{
    return half_to_float((uint16_t)(p[0] | p[1] << 8));
}

/* 32 columns as 8 words of 4 bytes, so that a shift serves four columns; masks keep bytes apart. */
typedef struct quads {
    uint32_t w[8];
} quads;

static quads quads_load(const unsigned char *p)
{
    quads q;
    memcpy(q.w, p, 32);
    return q;
}

/* (q >> shift & bits) << up, in every byte */
static quads quads_bits(quads q, int shift, uint32_t bits, int up)
{
    for (int k = 0; k < 8; k++)
        q.w[k] = (q.w[k] >> shift & bits * 0x01010101u) << up;
    return q;
}

static quads quads_or(quads a, quads b)
{
    for (int k = 0; k < 8; k++)
        a.w[k] |= b.w[k];
    return a;
}

static void nibbles_put(unsigned char *dst, quads q)
{
    uint32_t w[4];
    for (int k = 0; k < 4; k++)
        w[k] = (q.w[k] & 0x0F0F0F0Fu) | (q.w[4 + k] & 0x0F0F0F0Fu) << 4;
    memcpy(dst, w, 16);
}

static int nibble_of(const unsigned char *nibbles, int column)
{
    return nibbles[column & 15] >> (column & 16 ? 4 : 0) & 15;
}

static void pairs_put(unsigned char *dst, quads q, int shift)
{
    uint32_t w[2] = {0, 0};
    for (int k = 0; k < 8; k++)
        w[k / 4] |= (q.w[k] >> shift & 0x03030303u) << 2 * (k % 4);
    memcpy(dst, w, 8);
}

static int pair_of(const unsigned char *pairs, int column)
{
    return pairs[4 * (column >> 4) + (column & 3)] >> 2 * (column >> 2 & 3) & 3;
}

static void singles_put(unsigned char *dst, quads q, int shift)
{
    uint32_t w = 0;
    for (int k = 0; k < 8; k++)
        w |= (q.w[k] >> shift & 0x01010101u) << k;
    memcpy(dst, &w, 4);
}

static int single_of(const unsigned char *singles, int column)
{
    return singles[column & 3] >> (column >> 2) & 1;
}

/* One scale, no minimum: what most types start from. */
static void view_plain(kernel_view *v, float d)
{
    v->d = d;
    v->m = 0;
    v->s[0] = v->s[1] = 1;
    v->j[0] = v->j[1] = 0;
}

/* ---- floats ------------------------------------------------------------------------------------------------------ */

static void float4_split(unsigned char *dst, const unsigned char *block, int unit)
{
    (void)unit;
    memcpy(dst, block, 4);
}

static void float2_split(unsigned char *dst, const unsigned char *block, int unit)
{
    (void)unit;
    memcpy(dst, block, 2);
}

/* ---- 32-column types --------------------------------------------------------------------------------------------- */

/* block: d f16, 32 × int8 */
static void q8_0_split(unsigned char *dst, const unsigned char *block, int unit)
{
    (void)unit;
    memcpy(dst, block, 2);
    quads q = quads_load(block + 2);
    for (int k = 0; k < 8; k++)
        q.w[k] ^= 0x80808080u;
    memcpy(dst + 2, q.w, 32);
}

static void q8_0_decode(kernel_view *v, const unsigned char *header, const unsigned char *row,
                        int unit)
{
    (void)header, (void)unit;
    view_plain(v, half_at(row));
    for (int i = 0; i < 32; i++)
        v->q[i] = (int8_t)(row[2 + i] - 128);
}

/* Row form = block: d f16, nibbles; value d·(q − 8) */
static void q4_0_split(unsigned char *dst, const unsigned char *block, int unit)
{
    (void)unit;
    memcpy(dst, block, 18);
}

static void q4_0_decode(kernel_view *v, const unsigned char *header, const unsigned char *row,
                        int unit)
{
    (void)header, (void)unit;
    view_plain(v, half_at(row));
    for (int i = 0; i < 32; i++)
        v->q[i] = (int8_t)(nibble_of(row + 2, i) - 8);
}

/* Row form = block: d, m f16, nibbles; value d·q + m */
static void q4_1_split(unsigned char *dst, const unsigned char *block, int unit)
{
    (void)unit;
    memcpy(dst, block, 20);
}

static void q4_1_decode(kernel_view *v, const unsigned char *header, const unsigned char *row,
                        int unit)
{
    (void)header, (void)unit;
    view_plain(v, half_at(row));
    v->m = half_at(row + 2);
    v->j[0] = v->j[1] = 1;
    for (int i = 0; i < 32; i++)
        v->q[i] = (int8_t)nibble_of(row + 4, i);
}

/* block: d f16 [, m f16], high bits u32 (bit c = column c), nibbles; row form with singles for the high bits */
static void q5_split(unsigned char *dst, const unsigned char *block, int scale_bytes)
{
    unsigned char high[KERNEL_UNIT];
    for (int c = 0; c < 32; c++)
        high[c] = block[scale_bytes + c / 8] >> (c & 7) & 1;
    memcpy(dst, block, (size_t)scale_bytes);
    singles_put(dst + scale_bytes, quads_load(high), 0);
    memcpy(dst + scale_bytes + 4, block + scale_bytes + 4, 16);
}

static void q5_0_split(unsigned char *dst, const unsigned char *block, int unit)
{
    (void)unit;
    q5_split(dst, block, 2);
}

static void q5_1_split(unsigned char *dst, const unsigned char *block, int unit)
{
    (void)unit;
    q5_split(dst, block, 4);
}

static void q5_0_decode(kernel_view *v, const unsigned char *header, const unsigned char *row,
                        int unit)
{
    (void)header, (void)unit;
    view_plain(v, half_at(row));
    for (int i = 0; i < 32; i++)
        v->q[i] = (int8_t)((nibble_of(row + 6, i) | single_of(row + 2, i) << 4) - 16);
}

static void q5_1_decode(kernel_view *v, const unsigned char *header, const unsigned char *row,
                        int unit)
{
    (void)header, (void)unit;
    view_plain(v, half_at(row));
    v->m = half_at(row + 2);
    v->j[0] = v->j[1] = 1;
    for (int i = 0; i < 32; i++)
        v->q[i] = (int8_t)(nibble_of(row + 8, i) | single_of(row + 4, i) << 4);
}

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static void iq4_nl_decode(kernel_view *v, const unsigned char *header, const unsigned char *row,
                          int unit)
{
    (void)header, (void)unit;
    view_plain(v, half_at(row));
    for (int i = 0; i < 32; i++)
        v->q[i] = iq4_values[nibble_of(row + 2, i)];
}

/* Row form = block: exponent byte (E8M0), nibbles of E2M1; the values are doubled, the scale halved. */
static void mxfp4_split(unsigned char *dst, const unsigned char *block, int unit)
{
    (void)unit;
    memcpy(dst, block, 17);
}

static void mxfp4_decode(kernel_view *v, const unsigned char *header, const unsigned char *row,
                         int unit)
{
    (void)header, (void)unit;
    uint32_t e = row[0]; /* 2^(e − 128); the two smallest are subnormal */
    view_plain(v, float_from_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23));
    for (int i = 0; i < 32; i++)
        v->q[i] = e2m1_doubled[nibble_of(row + 1, i)];
}

/* ---- 256-column types -------------------------------------------------------------------------------------------- */

/* block: scales[16] (4-bit scale, 4-bit minimum), qs[64], d, dmin. header: d, dmin, scales. unit: pairs */
static void q2_k_header(unsigned char *dst, const unsigned char *block)
{
    memcpy(dst, block + 80, 4);
    memcpy(dst + 4, block, 16);
}

static void pairs_split(unsigned char *dst, const unsigned char *qs, int unit)
{
    pairs_put(dst, quads_load(qs + 32 * (unit / 4)), 2 * (unit % 4));
}

static void q2_k_split(unsigned char *dst, const unsigned char *block, int unit)
{
    pairs_split(dst, block + 16, unit);
}

static void q2_k_decode(kernel_view *v, const unsigned char *header, const unsigned char *row,
                        int unit)
{
    v->d = half_at(header);
    v->m = -half_at(header + 2);
    for (int h = 0; h < 2; h++) {
        v->s[h] = header[4 + 2 * unit + h] & 15;
        v->j[h] = header[4 + 2 * unit + h] >> 4;
    }
    for (int i = 0; i < 32; i++)
        v->q[i] = (int8_t)pair_of(row, i);
}

/* block: hmask[32], qs[64], scales[12] (6-bit), d. header: d, scales. unit: pairs, singles; value d·(s − 32)·(q − 4) */
static void q3_k_header(unsigned char *dst, const unsigned char *block)
{
    memcpy(dst, block + 108, 2);
    memcpy(dst + 2, block + 96, 12);
}

static void q3_k_split(unsigned char *dst, const unsigned char *block, int unit)
{
    pairs_split(dst, block + 32, unit);
    singles_put(dst + 8, quads_load(block), unit);
}

static void q3_k_decode(kernel_view *v, const unsigned char *header, const unsigned char *row,
                        int unit)
{
    const unsigned char *scales = header + 2;
    view_plain(v, half_at(header));
    for (int h = 0; h < 2; h++) {
        int i = 2 * unit + h;
        int low = i < 8 ? scales[i] & 15 : scales[i - 8] >> 4;
        v->s[h] = (low | (scales[8 + i % 4] >> 2 * (i / 4) & 3) << 4) - 32;
    }
    for (int i = 0; i < 32; i++)
        v->q[i] = (int8_t)((pair_of(row, i) | single_of(row + 8, i) << 2) - 4);
}

/* Q4_K and Q5_K. block: d, dmin, scales[12] (6-bit scales and minima), [qh[32],] qs[128]. header: d, dmin, scales. */
static void q4_k_header(unsigned char *dst, const unsigned char *block)
{
    memcpy(dst, block, 16);
}

static void q4_k_nibbles(unsigned char *dst, const unsigned char *qs, int unit)
{
    nibbles_put(dst, quads_bits(quads_load(qs + 32 * (unit / 2)), unit & 1 ? 4 : 0, 15, 0));
}

static void q4_k_split(unsigned char *dst, const unsigned char *block, int unit)
{
    q4_k_nibbles(dst, block + 16, unit);
}

static void q5_k_split(unsigned char *dst, const unsigned char *block, int unit)
{
    singles_put(dst, quads_load(block + 16), unit);
    q4_k_nibbles(dst + 4, block + 48, unit);
}

static void q4_k_scales(kernel_view *v, const unsigned char *header, int unit)
{
    const unsigned char *q = header + 4;
    int scale = q[unit] & 63, minimum = q[(unit & 3) + 4] & 63;
    if (unit >= 4) {
        scale = (q[unit + 4] & 15) | q[unit - 4] >> 6 << 4;
        minimum = q[unit + 4] >> 4 | q[unit] >> 6 << 4;
    }
    view_plain(v, half_at(header) * (float)scale); /* exact: 11 + 6 bits */
    v->m = -(half_at(header + 2) * (float)minimum);
    v->j[0] = v->j[1] = 1;
}

static void q4_k_decode(kernel_view *v, const unsigned char *header, const unsigned char *row,
                        int unit)
{
    q4_k_scales(v, header, unit);
    for (int i = 0; i < 32; i++)
        v->q[i] = (int8_t)nibble_of(row, i);
}

static void q5_k_decode(kernel_view *v, const unsigned char *header, const unsigned char *row,
                        int unit)
{
    q4_k_scales(v, header, unit);
    for (int i = 0; i < 32; i++)
        v->q[i] = (int8_t)(nibble_of(row + 4, i) | single_of(row, i) << 4);
}

/* block: ql[128], qh[64], int8 scales[16], d. header: d, scales. unit: pairs (high bits), nibbles; value d·s·(q − 32) */
static void q6_k_header(unsigned char *dst, const unsigned char *block)
{
    memcpy(dst, block + 208, 2);
    memcpy(dst + 2, block + 192, 16);
}

static void q6_k_split(unsigned char *dst, const unsigned char *block, int unit)
{
    int half = unit / 4, j = unit % 4;
    quads low = quads_bits(quads_load(block + 64 * half + 32 * (j & 1)), j & 2 ? 4 : 0, 15, 0);
    quads high = quads_bits(quads_load(block + 128 + 32 * half), 2 * j, 3, 4),
          q = quads_or(low, high);
    pairs_put(dst, q, 4);
    nibbles_put(dst + 8, q);
}

static void q6_k_decode(kernel_view *v, const unsigned char *header, const unsigned char *row,
                        int unit)
{
    view_plain(v, half_at(header));
    v->s[0] = (int8_t)header[2 + 2 * unit];
    v->s[1] = (int8_t)header[3 + 2 * unit];
    for (int i = 0; i < 32; i++)
        v->q[i] = (int8_t)((nibble_of(row + 8, i) | pair_of(row, i) << 4) - 32);
}

/* block: d, scales_h u16, scales_l[4], qs[128] (16 bytes of nibbles for every 32 columns). header: the first 8 bytes. */
static void iq4_xs_header(unsigned char *dst, const unsigned char *block)
{
    memcpy(dst, block, 8);
}

static void iq4_xs_split(unsigned char *dst, const unsigned char *block, int unit)
{
    memcpy(dst, block + 8 + 16 * unit, 16);
}

static void iq4_xs_decode(kernel_view *v, const unsigned char *header, const unsigned char *row,
                          int unit)
{
    int high = (header[2] | header[3] << 8) >> 2 * unit & 3;
    int low = header[4 + unit / 2] >> (unit & 1 ? 4 : 0) & 15;
    view_plain(v, half_at(header) * (float)((low | high << 4) - 32)); /* exact: 11 + 6 bits */
    for (int i = 0; i < 32; i++)
        v->q[i] = iq4_values[nibble_of(row, i)];
}

/* ---- the tables -------------------------------------------------------------------------------------------------- */

/* name, GGUF number, block elements, block bytes, quantised, run units, header bytes, unit bytes, index */
static const kernel_type types[KERNEL_TYPES] = {
    {"F32", 0, 1, 4, false, 1, 0, 2048, TYPE_F32},
    {"F16", 1, 1, 2, false, 1, 0, 1024, TYPE_F16},
    {"BF16", 30, 1, 2, false, 1, 0, 1024, TYPE_BF16},
    {"Q8_0", 8, 32, 34, true, 1, 0, 544, TYPE_Q8_0},
    {"Q4_0", 2, 32, 18, true, 1, 0, 288, TYPE_Q4_0},
    {"Q4_K", 12, 256, 144, true, 8, 256, 256, TYPE_Q4_K},
    {"Q6_K", 14, 256, 210, true, 8, 288, 384, TYPE_Q6_K},
    {"Q4_1", 3, 32, 20, true, 1, 0, 320, TYPE_Q4_1},
    {"Q5_0", 6, 32, 22, true, 1, 0, 352, TYPE_Q5_0},
    {"Q5_1", 7, 32, 24, true, 1, 0, 384, TYPE_Q5_1},
    {"Q2_K", 10, 256, 84, true, 8, 320, 128, TYPE_Q2_K},
    {"Q3_K", 11, 256, 110, true, 8, 224, 192, TYPE_Q3_K},
    {"Q5_K", 13, 256, 176, true, 8, 256, 320, TYPE_Q5_K},
    {"IQ4_NL", 20, 32, 18, true, 1, 0, 288, TYPE_IQ4_NL},
    {"IQ4_XS", 23, 256, 136, true, 8, 128, 256, TYPE_IQ4_XS},
    {"MXFP4", 39, 32, 17, true, 1, 0, 272, TYPE_MXFP4},
};

static const kernel_layout layouts[KERNEL_TYPES] = {
    [TYPE_F32] = {{{0, 0}}, {{4, 32}}, NULL, float4_split, NULL},
    [TYPE_F16] = {{{0, 0}}, {{2, 32}}, NULL, float2_split, NULL},
    [TYPE_BF16] = {{{0, 0}}, {{2, 32}}, NULL, float2_split, NULL},
    [TYPE_Q8_0] = {{{0, 0}}, {{2, 1}, {4, 8}}, NULL, q8_0_split, q8_0_decode},
    [TYPE_Q4_0] = {{{0, 0}}, {{2, 1}, {4, 4}}, NULL, q4_0_split, q4_0_decode},
    [TYPE_Q4_K] = {{{2, 2}, {4, 3}}, {{4, 4}}, q4_k_header, q4_k_split, q4_k_decode},
    [TYPE_Q6_K] = {{{2, 1}, {4, 4}}, {{4, 6}}, q6_k_header, q6_k_split, q6_k_decode},
    [TYPE_Q4_1] = {{{0, 0}}, {{2, 2}, {4, 4}}, NULL, q4_1_split, q4_1_decode},
    [TYPE_Q5_0] = {{{0, 0}}, {{2, 1}, {4, 5}}, NULL, q5_0_split, q5_0_decode},
    [TYPE_Q5_1] = {{{0, 0}}, {{2, 2}, {4, 5}}, NULL, q5_1_split, q5_1_decode},
    [TYPE_Q2_K] = {{{2, 2}, {4, 4}}, {{4, 2}}, q2_k_header, q2_k_split, q2_k_decode},
    [TYPE_Q3_K] = {{{2, 1}, {4, 3}}, {{4, 3}}, q3_k_header, q3_k_split, q3_k_decode},
    [TYPE_Q5_K] = {{{2, 2}, {4, 3}}, {{4, 5}}, q4_k_header, q5_k_split, q5_k_decode},
    [TYPE_IQ4_NL] = {{{0, 0}}, {{2, 1}, {4, 4}}, NULL, q4_0_split, iq4_nl_decode},
    [TYPE_IQ4_XS] = {{{2, 2}, {4, 1}}, {{4, 4}}, iq4_xs_header, iq4_xs_split, iq4_xs_decode},
    [TYPE_MXFP4] = {{{0, 0}}, {{1, 1}, {4, 4}}, NULL, mxfp4_split, mxfp4_decode},
};

const kernel_type *kernel_type_find(int number)
{
    for (int i = 0; i < KERNEL_TYPES; i++)
        if (types[i].number == number)
            return &types[i];
    return NULL;
}

const kernel_type *kernel_type_at(int index)
{
    return &types[index];
}

const kernel_layout *kernel_layout_of(const kernel_type *type)
{
    return &layouts[type->index];
}

float kernel_row_float(const kernel_type *type, const unsigned char *row, int i)
{
    uint32_t u;
    uint16_t h;
    if (type->index == TYPE_F32) {
        memcpy(&u, row + 4 * i, 4);
        return float_from_bits(u);
    }
    memcpy(&h, row + 2 * i, 2);
    return type->index == TYPE_F16 ? half_to_float(h) : bf16_to_float(h);
}

uint64_t kernel_row_bytes(const kernel_type *type, int64_t n)
{
    return (uint64_t)(n / type->block_elements) * (uint64_t)type->block_bytes;
}

void kernel_view_floats(float dst[KERNEL_UNIT], const kernel_view *v)
{
    for (int i = 0; i < KERNEL_UNIT; i++) {
        int h = i >> 4;
        dst[i] = __builtin_fmaf(v->d * (float)v->s[h], (float)v->q[i], v->m * (float)v->j[h]);
    }
}

void kernel_dequantise(const kernel_type *type, float *dst, const void *src, int64_t n)
{
    const kernel_layout *l = &layouts[type->index];
    const unsigned char *block = src;
    if (!type->quantised) {
        for (int64_t i = 0; i < n; i++)
            dst[i] = kernel_row_float(type, block + i * type->block_bytes, 0);
        return;
    }
    for (int64_t b = 0; b < n / type->block_elements; b++, block += type->block_bytes) {
        unsigned char header[ROW_HEADER_MAX], row[ROW_UNIT_MAX];
        if (l->header)
            l->header(header, block);
        for (int u = 0; u < type->run_units; u++, dst += KERNEL_UNIT) {
            kernel_view v;
            l->split(row, block, u);
            l->decode(&v, header, row, u);
            kernel_view_floats(dst, &v);
        }
    }
}

void kernel_unit_floats(float dst[KERNEL_UNIT][KERNEL_TILE_ROWS], const kernel_type *type,
                        const unsigned char *header, const unsigned char *unit, int unit_in_run)
{
    const kernel_layout *l = &layouts[type->index];
    for (int r = 0; r < KERNEL_TILE_ROWS; r++) {
        unsigned char row_header[ROW_HEADER_MAX], row[ROW_UNIT_MAX];
        float values[KERNEL_UNIT];
        kernel_row_of(row_header, header, l->header_fields, r);
        kernel_row_of(row, unit, l->unit_fields, r);
        if (l->decode) {
            kernel_view v;
            l->decode(&v, row_header, row, unit_in_run);
            kernel_view_floats(values, &v);
        } else {
            for (int i = 0; i < KERNEL_UNIT; i++)
                values[i] = kernel_row_float(type, row, i);
        }
        for (int i = 0; i < KERNEL_UNIT; i++)
            dst[i][r] = values[i];
    }
}
