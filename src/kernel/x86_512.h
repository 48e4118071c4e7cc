/*
 * The AVX-512 kernels, written once for machines with and without VNNI: x86_avx512.c and x86_avx512vnni.c define dot4 and dot4_wide, include
 * this file and fill their tables from it. One 64-byte register holds 4 columns of the 16 rows of a strip.
 *
 *   open_TYPE       one unit of a strip → 8 registers of unsigned bytes, scale, minimum or half scales
 *   vec_*           one token: up to four strips walked at once as separate memory streams, nothing stored in between
 *   mat_*           T tokens: 8 units of two strips are opened into scratch once and then met by up to 64 tokens, 8 at a time inside
 *                   each step of 4 columns; running sums stay in scratch between the chunks of units
 *   float_*         the same for float weights and for the exact class, four accumulators per element
 *
 * The order of operations of every element is that of portable.c. Not here: the row functions (vector.h).
 */
#include <immintrin.h>

#include "kernel/internal.h"

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL KERNEL_UNROLL

/* ---- lanes ---------------------------------------------------------------------------------------------------------- */

typedef __m512 lanes;

#define AS_INT(a)   _mm512_castps_si512(a)
#define AS_FLOAT(a) _mm512_castsi512_ps(a)

ALWAYS __mmask16 lanes_mask(int n)
{
    return (__mmask16)((1u << n) - 1);
}
ALWAYS lanes lanes_set(float x)
{
    return _mm512_set1_ps(x);
}
ALWAYS lanes lanes_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
ALWAYS lanes lanes_load_n(const float *p, int n, float fill)
{
    return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), lanes_mask(n), p);
}
ALWAYS void lanes_store(float *p, lanes a)
{
    _mm512_storeu_ps(p, a);
}
ALWAYS void lanes_store_n(float *p, lanes a, int n)
{
    _mm512_mask_storeu_ps(p, lanes_mask(n), a);
}
ALWAYS lanes lanes_add(lanes a, lanes b)
{
    return _mm512_add_ps(a, b);
}
ALWAYS lanes lanes_sub(lanes a, lanes b)
{
    return _mm512_sub_ps(a, b);
}
ALWAYS lanes lanes_mul(lanes a, lanes b)
{
    return _mm512_mul_ps(a, b);
}
ALWAYS lanes lanes_fma(lanes a, lanes b, lanes c)
{
    return _mm512_fmadd_ps(a, b, c);
}
ALWAYS lanes lanes_max(lanes a, lanes b)
{
    return _mm512_max_ps(a, b);
}
ALWAYS lanes lanes_min(lanes a, lanes b)
{
    return _mm512_min_ps(a, b);
}
ALWAYS lanes lanes_less(lanes a, lanes b, lanes x, lanes y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
ALWAYS lanes lanes_abs(lanes a)
{
    return AS_FLOAT(_mm512_and_si512(AS_INT(a), _mm512_set1_epi32(0x7FFFFFFF)));
}
ALWAYS lanes lanes_negate(lanes a)
{
    return AS_FLOAT(_mm512_xor_si512(AS_INT(a), _mm512_set1_epi32(INT32_MIN)));
}
ALWAYS lanes lanes_bits_add(lanes a, lanes b)
{
    return AS_FLOAT(_mm512_add_epi32(AS_INT(a), AS_INT(b)));
}
ALWAYS lanes lanes_bits_sub(lanes a, lanes b)
{
    return AS_FLOAT(_mm512_sub_epi32(AS_INT(a), AS_INT(b)));
}
ALWAYS lanes lanes_shift_left(lanes a, int n)
{
    return AS_FLOAT(_mm512_slli_epi32(AS_INT(a), (unsigned)n));
}
ALWAYS float lanes_fold(lanes a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
ALWAYS float lanes_fold_max(lanes a)
{
    return _mm512_reduce_max_ps(a);
}
ALWAYS lanes lanes_load_half(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
ALWAYS void lanes_store_half(uint16_t *p, lanes a)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
ALWAYS int lanes_store_bytes(int8_t *p, lanes a)
{
    __m512i q = _mm512_cvtps_epi32(a);
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtsepi32_epi8(q));
    return _mm512_reduce_add_epi32(q);
}

#include "kernel/vector.h"

/* ---- units ---------------------------------------------------------------------------------------------------------- */

/* A unit ready for dot products. value = fma(d·s, q − bias, m·j); what a kind does not use stays undefined. */
typedef struct unit {
    __m512i q[8]; /* columns 4j..4j+3 of 16 rows */
    __m512 d, m;
    __m512 s[2], j[2]; /* of the halves: integers held as floats */
} unit;

typedef enum kind {
    PLAIN,         /* one scale */
    MINIMUM,       /* and a minimum */
    HALVES,        /* two integer scales a block */
    HALVES_MINIMUM /* and two minima */
} kind;

typedef void open_unit(unit *u, const unsigned char *header, const unsigned char *p, int i);

ALWAYS __m512i load(const unsigned char *p)
{
    return _mm512_loadu_si512(p);
}
ALWAYS __m512 load_halves(const unsigned char *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
ALWAYS __m512i bytes(int b)
{
    return _mm512_set1_epi8((char)b);
}
ALWAYS __m512i shift_right(__m512i a, int n)
{
    return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n));
}
ALWAYS __m512i low_bits(__m512i a, int mask)
{
    return _mm512_and_si512(a, _mm512_set1_epi32(mask));
}

ALWAYS void open_nibbles(unit *u, const unsigned char *p)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m512i n = load(p + 64 * i);
        u->q[i] = _mm512_and_si512(n, bytes(15));
        u->q[4 + i] = _mm512_and_si512(_mm512_srli_epi16(n, 4), bytes(15));
    }
}

/* bit j of every byte of `singles`, moved to `to` */
ALWAYS __m512i single_bit(__m512i singles, int j, int to)
{
    __m512i s = j < to ? _mm512_slli_epi32(singles, (unsigned)(to - j))
                       : _mm512_srli_epi32(singles, (unsigned)(j - to));
    return _mm512_and_si512(s, bytes(1 << to));
}

/* bits 2j, 2j + 1 of every byte, moved to `to` */
ALWAYS __m512i bit_pair(__m512i pairs, int j, int to)
{
    __m512i s = 2 * j < to ? _mm512_slli_epi32(pairs, (unsigned)(to - 2 * j))
                           : _mm512_srli_epi32(pairs, (unsigned)(2 * j - to));
    return _mm512_and_si512(s, bytes(3 << to));
}

ALWAYS void open_q8_0(unit *u, const unsigned char *header, const unsigned char *p, int i)
{
    (void)header, (void)i;
    u->d = load_halves(p);
    UNROLL for (int j = 0; j < 8; j++) u->q[j] = load(p + 32 + 64 * j);
}

ALWAYS void open_q4_0(unit *u, const unsigned char *header, const unsigned char *p, int i)
{
    (void)header, (void)i;
    u->d = load_halves(p);
    open_nibbles(u, p + 32);
}

ALWAYS void open_q4_1(unit *u, const unsigned char *header, const unsigned char *p, int i)
{
    (void)header, (void)i;
    u->d = load_halves(p);
    u->m = load_halves(p + 32);
    open_nibbles(u, p + 64);
}

ALWAYS void open_fifth_bits(unit *u, const unsigned char *p)
{
    __m512i singles = load(p);
    open_nibbles(u, p + 64);
    UNROLL for (int j = 0; j < 8; j++) u->q[j] =
        _mm512_or_si512(u->q[j], single_bit(singles, j, 4));
}

ALWAYS void open_q5_0(unit *u, const unsigned char *header, const unsigned char *p, int i)
{
    (void)header, (void)i;
    u->d = load_halves(p);
    open_fifth_bits(u, p + 32);
}

ALWAYS void open_q5_1(unit *u, const unsigned char *header, const unsigned char *p, int i)
{
    (void)header, (void)i;
    u->d = load_halves(p);
    u->m = load_halves(p + 32);
    open_fifth_bits(u, p + 64);
}

ALWAYS void look_up(unit *u, __m128i table)
{
    __m512i t = _mm512_broadcast_i32x4(table);
    UNROLL for (int j = 0; j < 8; j++) u->q[j] = _mm512_shuffle_epi8(t, u->q[j]);
}

/* the values of IQ4_NL and IQ4_XS plus 128 */
ALWAYS void look_up_iq4(unit *u)
{
    look_up(u, _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, (char)129, (char)141, (char)153,
                             (char)166, (char)181, (char)197, (char)217, (char)241));
}

ALWAYS void open_iq4_nl(unit *u, const unsigned char *header, const unsigned char *p, int i)
{
    open_q4_0(u, header, p, i);
    look_up_iq4(u);
}

ALWAYS void open_mxfp4(unit *u, const unsigned char *header, const unsigned char *p, int i)
{
    (void)header, (void)i;
    __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __m512i tiny = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    u->d = AS_FLOAT(
        _mm512_mask_blend_epi32(_mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2)), normal, tiny));
    open_nibbles(u, p + 16);
    look_up(u, _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4,
                             0)); /* doubled, plus 12 */
}

/* Scales and minima of Q4_K and Q5_K: three words of a row's header, see q4_k_scales in types.c. */
ALWAYS void open_k_scales(unit *u, const unsigned char *header, int i)
{
    __m512i a = load(header + 64), b = load(header + 128), scale, minimum;
    if (i < 4) {
        scale = low_bits(shift_right(a, 8 * i), 63);
        minimum = low_bits(shift_right(b, 8 * i), 63);
    } else {
        __m512i c = shift_right(load(header + 192), 8 * (i - 4));
        scale = _mm512_or_si512(low_bits(c, 15), low_bits(shift_right(a, 8 * (i - 4) + 2), 48));
        minimum = _mm512_or_si512(low_bits(_mm512_srli_epi32(c, 4), 15),
                                  low_bits(shift_right(b, 8 * (i - 4) + 2), 48));
    }
    u->d = _mm512_mul_ps(load_halves(header), _mm512_cvtepi32_ps(scale));
    u->m = lanes_negate(_mm512_mul_ps(load_halves(header + 32), _mm512_cvtepi32_ps(minimum)));
}

ALWAYS void open_q4_k(unit *u, const unsigned char *header, const unsigned char *p, int i)
{
    open_k_scales(u, header, i);
    open_nibbles(u, p);
}

ALWAYS void open_q5_k(unit *u, const unsigned char *header, const unsigned char *p, int i)
{
    open_k_scales(u, header, i);
    open_fifth_bits(u, p);
}

ALWAYS void open_q6_k(unit *u, const unsigned char *header, const unsigned char *p, int i)
{
    __m512i pairs[2] = {load(p), load(p + 64)};
    __m512i scales = shift_right(load(header + 32 + 64 * (i / 2)), 16 * (i & 1));
    u->d = load_halves(header);
    u->s[0] = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(scales, 24), 24));
    u->s[1] = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(scales, 16), 24));
    open_nibbles(u, p + 128);
    UNROLL for (int j = 0; j < 8; j++) u->q[j] =
        _mm512_or_si512(u->q[j], bit_pair(pairs[j / 4], j % 4, 4));
}

ALWAYS void open_q3_k(unit *u, const unsigned char *header, const unsigned char *p, int i)
{
    __m512i pairs[2] = {load(p), load(p + 64)}, singles = load(p + 128);
    u->d = load_halves(header);
    UNROLL for (int h = 0; h < 2; h++)
    {
        int s = 2 * i + h, low = s & 7;
        __m512i a =
            shift_right(load(header + 32 + 64 * (low / 4)), 8 * (low % 4) + (s < 8 ? 0 : 4));
        __m512i b = shift_right(load(header + 160), 8 * (s % 4) + 2 * (s / 4));
        a = _mm512_or_si512(low_bits(a, 15), _mm512_slli_epi32(low_bits(b, 3), 4));
        u->s[h] = _mm512_cvtepi32_ps(_mm512_sub_epi32(a, _mm512_set1_epi32(32)));
    }
    UNROLL for (int j = 0; j < 8; j++) u->q[j] =
        _mm512_or_si512(bit_pair(pairs[j / 4], j % 4, 0), single_bit(singles, j, 2));
}

ALWAYS void open_q2_k(unit *u, const unsigned char *header, const unsigned char *p, int i)
{
    __m512i pairs[2] = {load(p), load(p + 64)};
    __m512i scales = shift_right(load(header + 64 + 64 * (i / 2)), 16 * (i & 1));
    u->d = load_halves(header);
    u->m = lanes_negate(load_halves(header + 32));
    u->s[0] = _mm512_cvtepi32_ps(low_bits(scales, 15));
    u->s[1] = _mm512_cvtepi32_ps(low_bits(_mm512_srli_epi32(scales, 8), 15));
    u->j[0] = _mm512_cvtepi32_ps(low_bits(_mm512_srli_epi32(scales, 4), 15));
    u->j[1] = _mm512_cvtepi32_ps(low_bits(_mm512_srli_epi32(scales, 12), 15));
    UNROLL for (int j = 0; j < 8; j++) u->q[j] = bit_pair(pairs[j / 4], j % 4, 0);
}

ALWAYS void open_iq4_xs(unit *u, const unsigned char *header, const unsigned char *p, int i)
{
    __m512i high =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(header + 32)));
    __m512i low = low_bits(shift_right(load(header + 64), 4 * i), 15);
    high = _mm512_slli_epi32(low_bits(shift_right(high, 2 * i), 3), 4);
    __m512i scale = _mm512_sub_epi32(_mm512_or_si512(low, high), _mm512_set1_epi32(32));
    u->d = _mm512_mul_ps(load_halves(header), _mm512_cvtepi32_ps(scale));
    open_nibbles(u, p);
    look_up_iq4(u);
}

/* ---- one block of columns ------------------------------------------------------------------------------------------- */

/* What a product function knows at compile time about its type. */
typedef struct shape {
    kind kind;
    int bias;  /* the stored bytes are this much too great */
    bool wide; /* stored bytes beyond 127 */
} shape;

ALWAYS __m512i four_columns(const kernel_act *x, int j)
{
    int32_t v;
    memcpy(&v, x->q + 4 * j, 4);
    return _mm512_set1_epi32(v);
}

ALWAYS __m512i half_sums(const kernel_act *x)
{
    int32_t v;
    memcpy(&v, x->sum, 4);
    return _mm512_set1_epi32(v);
}

ALWAYS __m512i dot(shape s, __m512i acc, __m512i u, __m512i x)
{
    return s.wide ? dot4_wide(acc, u, x) : dot4(acc, u, x);
}

ALWAYS __m512i bias_pair(int first, int second)
{
    return _mm512_set1_epi32(
        (int)((uint32_t)(-first & 0xFFFF) | (uint32_t)(-second & 0xFFFF) << 16));
}

/* acc after one block, given the exact integers of its halves (or of the whole in i0) */
ALWAYS __m512 block_end(shape s, const unit *u, __m512i i0, __m512i i1, const kernel_act *x,
                        __m512i sums, __m512 acc)
{
    __m512 scale = _mm512_set1_ps(x->scale), whole = _mm512_cvtepi32_ps(i0);
    if (s.kind >= HALVES) /* integers under 2^24: exact */
        whole = _mm512_fmadd_ps(_mm512_cvtepi32_ps(i1), u->s[1], _mm512_mul_ps(whole, u->s[0]));
    acc = _mm512_fmadd_ps(whole, _mm512_mul_ps(u->d, scale), acc);
    if (s.kind == MINIMUM) {
        __m512 total = _mm512_cvtepi32_ps(_mm512_madd_epi16(sums, _mm512_set1_epi16(1)));
        acc = _mm512_fmadd_ps(u->m, _mm512_mul_ps(total, scale), acc);
    }
    if (s.kind == HALVES_MINIMUM) {
        __m512 sum0 = _mm512_cvtepi32_ps(_mm512_madd_epi16(sums, bias_pair(-1, 0)));
        __m512 sum1 = _mm512_cvtepi32_ps(_mm512_madd_epi16(sums, bias_pair(0, -1)));
        __m512 total = _mm512_fmadd_ps(u->j[1], sum1, _mm512_mul_ps(u->j[0], sum0));
        acc = _mm512_fmadd_ps(u->m, _mm512_mul_ps(total, scale), acc);
    }
    return acc;
}

/* ---- end of leaves and of rows --------------------------------------------------------------------------------------- */

typedef struct wide_sums {
    __m512d low, high;
} wide_sums;

ALWAYS void add_leaf(wide_sums *sums, __m512 v)
{
    __m512d m = _mm512_set1_pd(LEAF_ROUND);
    __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(v)),
            b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
    sums->low = _mm512_add_pd(sums->low, _mm512_sub_pd(_mm512_add_pd(a, m), m));
    sums->high = _mm512_add_pd(sums->high, _mm512_sub_pd(_mm512_add_pd(b, m), m));
}

/* Writes 16 rows of token t; rows beyond the matrix are left alone. */
ALWAYS bool write_rows(const kernel_product *p, int64_t strip, int64_t t, __m512 acc,
                       const wide_sums *sums)
{
    int64_t row = strip * KERNEL_TILE_ROWS, n = BASE_MIN(KERNEL_TILE_ROWS, p->w->rows - row),
            at = t * p->dst_stride + row;
    __mmask16 mask = lanes_mask((int)n);
    if (p->output == KERNEL_F32) {
        _mm512_mask_storeu_ps((float *)p->dst + at, mask, acc);
        return true;
    }
    if (p->output == KERNEL_SUMS) {
        _mm512_mask_storeu_pd((double *)p->dst + at, (__mmask8)mask, sums->low);
        if (n > 8)
            _mm512_mask_storeu_pd((double *)p->dst + at + 8, (__mmask8)(mask >> 8), sums->high);
        return true;
    }
    double values[16];
    _mm512_storeu_pd(values, sums->low);
    _mm512_storeu_pd(values + 8, sums->high);
    return kernel_finish((float *)p->dst + at, values, n);
}

/* ---- one token ---------------------------------------------------------------------------------------------------------- */

enum { VEC_STREAMS = 4, VEC_AHEAD = 3456 }; /* bytes of prefetch in every stream */

/* Where a strip begins, and the walk's place relative to it: all streams are at the same one. */
typedef struct vec_place {
    uint64_t header, unit;
    int in_run;
} vec_place;

ALWAYS void vec_step(const kernel_type *type, int run_units, vec_place *at)
{
    at->unit += (uint64_t)type->unit_bytes;
    if (run_units == 1 || ++at->in_run == run_units) {
        at->in_run = 0;
        at->header = at->unit;
        at->unit += (uint64_t)type->header_bytes;
    }
}

ALWAYS __m512 vec_block(shape s, const unit *u, const __m512i *x4, const kernel_act *x,
                        __m512i sums, __m512 acc)
{
    __m512i i0, i1;
    if (s.kind >= HALVES) {
        i0 = s.bias ? _mm512_madd_epi16(sums, bias_pair(s.bias, 0)) : _mm512_setzero_si512();
        i1 = s.bias ? _mm512_madd_epi16(sums, bias_pair(0, s.bias)) : _mm512_setzero_si512();
    } else {
        i0 = s.bias ? _mm512_madd_epi16(sums, bias_pair(s.bias, s.bias)) : _mm512_setzero_si512();
        i1 = _mm512_setzero_si512();
    }
    UNROLL for (int j = 0; j < 4; j++)
    {
        i0 = dot(s, i0, u->q[j], x4[j]);
        i1 = dot(s, i1, u->q[4 + j], x4[4 + j]);
    }
    if (s.kind < HALVES)
        i0 = _mm512_add_epi32(i0, i1);
    return block_end(s, u, i0, i1, x, sums, acc);
}

/* n_streams strips, `step` strips apart, against one token. */
ALWAYS bool vec_strips(const kernel_product *p, open_unit *open, shape s, int run_units,
                       int unit_lines, int n_streams, int64_t strip, int64_t step)
{
    const kernel_matrix *w = p->w;
    const kernel_type *type = w->type;
    const unsigned char *base[VEC_STREAMS];
    __m512 acc[VEC_STREAMS];
    wide_sums sums[VEC_STREAMS];
    vec_place at = {0, (uint64_t)type->header_bytes,
                    (int)(w->column_begin / KERNEL_UNIT % run_units)};
    const kernel_act *x = p->x;
    int64_t left = (w->column_end - w->column_begin) / KERNEL_UNIT,
            leaf = p->output == KERNEL_F32 ? left : p->leaf / KERNEL_UNIT;
    UNROLL for (int i = 0; i < n_streams; i++)
    {
        base[i] = (const unsigned char *)w->tiles + (uint64_t)(strip + i * step) * w->strip_bytes;
        sums[i].low = sums[i].high = _mm512_setzero_pd();
        acc[i] = _mm512_setzero_ps();
    }
    while (left > 0) {
        int64_t n = BASE_MIN(leaf, left);
        left -= n;
        UNROLL for (int i = 0; i < n_streams; i++) acc[i] = _mm512_setzero_ps();
        for (; n > 0; n--, x++) {
            __m512i x4[8], halves = half_sums(x);
            UNROLL for (int j = 0; j < 8; j++) x4[j] = four_columns(x, j);
            UNROLL for (int i = 0; i < n_streams; i++)
            {
                unit u;
                for (int line = 0; line < unit_lines; line++)
                    _mm_prefetch((const char *)base[i] + at.unit + VEC_AHEAD + 64 * line,
                                 _MM_HINT_T0);
                open(&u, base[i] + at.header, base[i] + at.unit, at.in_run);
                acc[i] = vec_block(s, &u, x4, x, halves, acc[i]);
            }
            vec_step(type, run_units, &at);
        }
        if (p->output != KERNEL_F32)
            UNROLL for (int i = 0; i < n_streams; i++) add_leaf(&sums[i], acc[i]);
    }
    bool good = true;
    UNROLL for (int i = 0; i < n_streams; i++) good &=
        write_rows(p, strip + i * step, 0, acc[i], &sums[i]);
    return good;
}

/* The streams run through equal shares of the strips, each from start to end, so that prefetching runs on into the next strip. */
ALWAYS bool vec_product(const kernel_product *p, open_unit *open, shape s, int run_units,
                        int unit_lines, int64_t begin, int64_t end)
{
    bool good = true;
    int64_t n = end - begin, share = n / VEC_STREAMS, strip = begin + share * VEC_STREAMS;
    for (int64_t i = 0; i < share; i++)
        good &= vec_strips(p, open, s, run_units, unit_lines, VEC_STREAMS, begin + i, share);
    if (end - strip >= 2) {
        good &= vec_strips(p, open, s, run_units, unit_lines, 2, strip, 1);
        strip += 2;
    }
    if (strip < end)
        good &= vec_strips(p, open, s, run_units, unit_lines, 1, strip, 1);
    return good;
}

/* ---- many tokens ---------------------------------------------------------------------------------------------------------- */

enum { MAT_TOKENS = 64, MAT_UNITS = 8, MAT_STRIPS = 2 };

/* Everything a pair of strips needs between the chunks of its units. */
typedef struct mat_scratch {
    __m512i bias[2]; /* what the sums of the halves are multiplied with to start the integer sums */
    unit units[MAT_UNITS][MAT_STRIPS];
    __m512 acc[MAT_TOKENS][MAT_STRIPS];
    wide_sums sums[MAT_TOKENS][MAT_STRIPS];
} mat_scratch;

/* n_tokens (constant) tokens against n_units units of n_strips (constant) strips. x: the first token's block of the first unit. */
ALWAYS void mat_chunk(shape s, mat_scratch *m, int n_units, int n_strips, int n_tokens,
                      __m512 (*acc)[MAT_STRIPS], const char *x, uint64_t x_bytes)
{
    for (int k = 0; k < n_units; k++, x += sizeof(kernel_act)) {
        const unit *units = m->units[k];
        __m512i i0[8][MAT_STRIPS], i1[8][MAT_STRIPS];
        UNROLL for (int t = 0; t < n_tokens; t++)
        {
            __m512i sums = half_sums((const kernel_act *)(const void *)(x + (uint64_t)t * x_bytes));
            UNROLL for (int r = 0; r < n_strips; r++)
            {
                i0[t][r] = _mm512_madd_epi16(sums, m->bias[0]);
                i1[t][r] =
                    s.kind >= HALVES ? _mm512_madd_epi16(sums, m->bias[1]) : _mm512_setzero_si512();
            }
        }
        UNROLL for (int j = 0; j < 8; j++)
        {
            UNROLL for (int t = 0; t < n_tokens; t++)
            {
                __m512i x4 =
                    four_columns((const kernel_act *)(const void *)(x + (uint64_t)t * x_bytes), j);
                UNROLL for (int r = 0; r < n_strips; r++)
                {
                    if (s.kind >= HALVES && j >= 4)
                        i1[t][r] = dot(s, i1[t][r], units[r].q[j], x4);
                    else
                        i0[t][r] = dot(s, i0[t][r], units[r].q[j], x4);
                }
            }
        }
        UNROLL for (int t = 0; t < n_tokens; t++)
        {
            const kernel_act *a = (const kernel_act *)(const void *)(x + (uint64_t)t * x_bytes);
            __m512i sums = half_sums(a);
            UNROLL for (int r = 0; r < n_strips; r++) acc[t][r] =
                block_end(s, &units[r], i0[t][r], i1[t][r], a, sums, acc[t][r]);
        }
    }
}

/* All tokens of a block (up to 64) against the opened units; one function per kind and number of strips. */
typedef void mat_tokens(mat_scratch *m, int n_units, int n, const char *x, uint64_t x_bytes);

#define MAT_TOKENS_OF(name, kind_of, wide, n_strips)                                               \
    static void mat_##name##_##n_strips(mat_scratch *m, int n_units, int n, const char *x,         \
                                        uint64_t x_bytes)                                          \
    {                                                                                              \
        const shape s = {kind_of, 0, wide};                                                        \
        int t = 0;                                                                                 \
        for (; t + 8 <= n && s.kind < HALVES; t += 8) /* 16 integer sums in registers */           \
            mat_chunk(s, m, n_units, n_strips, 8, m->acc + t, x + (uint64_t)t * x_bytes, x_bytes); \
        for (; t + 4 <= n; t += 4)                                                                 \
            mat_chunk(s, m, n_units, n_strips, 4, m->acc + t, x + (uint64_t)t * x_bytes, x_bytes); \
        for (; t + 2 <= n; t += 2)                                                                 \
            mat_chunk(s, m, n_units, n_strips, 2, m->acc + t, x + (uint64_t)t * x_bytes, x_bytes); \
        if (t < n)                                                                                 \
            mat_chunk(s, m, n_units, n_strips, 1, m->acc + t, x + (uint64_t)t * x_bytes, x_bytes); \
    }
#define MAT_TOKENS_PAIR(name, kind, wide)                                                          \
    MAT_TOKENS_OF(name, kind, wide, 1)                                                             \
    MAT_TOKENS_OF(name, kind, wide, 2)
MAT_TOKENS_PAIR(plain, PLAIN, false)
MAT_TOKENS_PAIR(wide, PLAIN, true)
MAT_TOKENS_PAIR(minimum, MINIMUM, false)
MAT_TOKENS_PAIR(halves, HALVES, false)
MAT_TOKENS_PAIR(minima, HALVES_MINIMUM, false)

ALWAYS mat_tokens *mat_tokens_of(shape s, int n_strips)
{
    switch (s.kind) {
    case PLAIN:
        return s.wide          ? n_strips == 1 ? mat_wide_1 : mat_wide_2
               : n_strips == 1 ? mat_plain_1
                               : mat_plain_2;
    case MINIMUM:
        return n_strips == 1 ? mat_minimum_1 : mat_minimum_2;
    case HALVES:
        return n_strips == 1 ? mat_halves_1 : mat_halves_2;
    default:
        return n_strips == 1 ? mat_minima_1 : mat_minima_2;
    }
}

static void mat_end_leaf(mat_scratch *m, int n, int n_strips)
{
    for (int t = 0; t < n; t++)
        for (int r = 0; r < n_strips; r++) {
            add_leaf(&m->sums[t][r], m->acc[t][r]);
            m->acc[t][r] = _mm512_setzero_ps();
        }
}

ALWAYS bool mat_strips(const kernel_product *p, open_unit *open, shape s, int run_units,
                       int n_strips, int64_t strip, int64_t t0, int n, mat_scratch *m)
{
    const kernel_matrix *w = p->w;
    const kernel_type *type = w->type;
    const unsigned char *base = (const unsigned char *)w->tiles + (uint64_t)strip * w->strip_bytes;
    const char *x = (const char *)p->x + (uint64_t)t0 * p->x_bytes;
    vec_place at = {0, (uint64_t)type->header_bytes,
                    (int)(w->column_begin / KERNEL_UNIT % run_units)};
    int64_t left = (w->column_end - w->column_begin) / KERNEL_UNIT;
    int chunk = p->output == KERNEL_F32 ? MAT_UNITS : p->leaf / KERNEL_UNIT;
    for (int t = 0; t < n; t++)
        for (int r = 0; r < n_strips; r++) {
            m->acc[t][r] = _mm512_setzero_ps();
            m->sums[t][r].low = m->sums[t][r].high = _mm512_setzero_pd();
        }
    while (left > 0) {
        int units = (int)BASE_MIN(chunk, left);
        for (int k = 0; k < units; k++) {
            for (int r = 0; r < n_strips; r++) {
                const unsigned char *from = base + (uint64_t)r * w->strip_bytes;
                open(&m->units[k][r], from + at.header, from + at.unit, at.in_run);
            }
            vec_step(type, run_units, &at);
        }
        mat_tokens_of(s, n_strips)(m, units, n, x, p->x_bytes);
        if (p->output != KERNEL_F32)
            mat_end_leaf(m, n, n_strips);
        x += (uint64_t)units * sizeof(kernel_act);
        left -= units;
    }
    bool good = true;
    for (int t = 0; t < n; t++)
        for (int r = 0; r < n_strips; r++)
            good &= write_rows(p, strip + r, t0 + t, m->acc[t][r], &m->sums[t][r]);
    return good;
}

ALWAYS bool mat_product(const kernel_product *p, open_unit *open, shape s, int run_units,
                        int64_t begin, int64_t end)
{
    mat_scratch m;
    bool good = true;
    m.bias[0] = bias_pair(s.bias, s.kind >= HALVES ? 0 : s.bias);
    m.bias[1] = bias_pair(0, s.bias);
    for (int64_t t = 0; t < p->n_tokens; t += MAT_TOKENS) {
        int n = (int)BASE_MIN(MAT_TOKENS, p->n_tokens - t);
        int64_t strip = begin;
        for (; strip + 2 <= end; strip += 2)
            good &= mat_strips(p, open, s, run_units, 2, strip, t, n, &m);
        if (strip < end)
            good &= mat_strips(p, open, s, run_units, 1, strip, t, n, &m);
    }
    return good;
}

/* ---- float weights and the exact class ------------------------------------------------------------------------------------- */

/* One unit as f32 [32][16]. */
typedef void fill_floats(__m512 *dst, const unsigned char *header, const unsigned char *p, int i);

ALWAYS __m512 float_load(const unsigned char *p, int type, int column)
{
    if (type == TYPE_F32)
        return _mm512_loadu_ps(p + 64 * column);
    __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32 * column));
    if (type == TYPE_F16)
        return _mm512_cvtph_ps(h);
    return AS_FLOAT(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

#define FILL_FLOATS(name, type)                                                                    \
    ALWAYS void name(__m512 *dst, const unsigned char *header, const unsigned char *p, int i)      \
    {                                                                                              \
        (void)header, (void)i;                                                                     \
        for (int c = 0; c < KERNEL_UNIT; c++)                                                      \
            dst[c] = float_load(p, type, c);                                                       \
    }
FILL_FLOATS(fill_f32, TYPE_F32)
FILL_FLOATS(fill_f16, TYPE_F16)
FILL_FLOATS(fill_bf16, TYPE_BF16)

/* Dequantises an opened unit: fma(d·s, q − bias, m·j). */
ALWAYS void fill_unit(__m512 *dst, const unit *u, shape s)
{
    UNROLL for (int j = 0; j < 8; j++)
    {
        int h = j / 4;
        __m512 d = s.kind >= HALVES ? _mm512_mul_ps(u->d, u->s[h]) : u->d;
        __m512 m = s.kind == HALVES_MINIMUM ? _mm512_mul_ps(u->m, u->j[h])
                   : s.kind == MINIMUM      ? u->m
                                            : _mm512_setzero_ps();
        UNROLL for (int b = 0; b < 4; b++)
        {
            __m512i q = low_bits(_mm512_srli_epi32(u->q[j], (unsigned)(8 * b)), 255);
            __m512 value = _mm512_cvtepi32_ps(_mm512_sub_epi32(q, _mm512_set1_epi32(s.bias)));
            dst[4 * j + b] = _mm512_fmadd_ps(d, value, m);
        }
    }
}

ALWAYS __m512 float_value(const __m512 *acc)
{
    return _mm512_add_ps(_mm512_add_ps(acc[0], acc[1]), _mm512_add_ps(acc[2], acc[3]));
}

/* One token, float types: n_streams strips at once, weights straight from memory. */
ALWAYS bool float_vec_strips(const kernel_product *p, int type, int n_streams, int64_t strip,
                             int64_t step)
{
    const kernel_matrix *w = p->w;
    const unsigned char *base[VEC_STREAMS];
    __m512 acc[VEC_STREAMS][4];
    wide_sums sums[VEC_STREAMS];
    const float *x = p->x;
    int64_t columns = w->column_end - w->column_begin,
            leaf = p->output == KERNEL_F32 ? columns : p->leaf;
    int column_bytes = type == TYPE_F32 ? 64 : 32;
    UNROLL for (int i = 0; i < n_streams; i++)
    {
        base[i] = (const unsigned char *)w->tiles + (uint64_t)(strip + i * step) * w->strip_bytes;
        sums[i].low = sums[i].high = _mm512_setzero_pd();
        UNROLL for (int a = 0; a < 4; a++) acc[i][a] = _mm512_setzero_ps();
    }
    for (int64_t c = 0; c < columns;) {
        int64_t end = BASE_MIN(c + leaf, columns);
        UNROLL for (int i = 0; i < n_streams; i++) UNROLL for (int a = 0; a < 4; a++) acc[i][a] =
            _mm512_setzero_ps();
        for (; c + 4 <= end; c += 4) {
            UNROLL for (int i = 0; i < n_streams; i++)
            {
                const unsigned char *from = base[i] + c * column_bytes;
                for (int line = 0; line < column_bytes * 4 / 64; line++)
                    _mm_prefetch((const char *)from + VEC_AHEAD + 64 * line, _MM_HINT_T0);
                UNROLL for (int a = 0; a < 4; a++) acc[i][a] =
                    _mm512_fmadd_ps(float_load(from, type, a), _mm512_set1_ps(x[c + a]), acc[i][a]);
            }
        }
        for (; c < end; c++)
            UNROLL for (int i = 0; i < n_streams; i++) acc[i][c & 3] =
                _mm512_fmadd_ps(float_load(base[i] + c * column_bytes, type, 0),
                                _mm512_set1_ps(x[c]), acc[i][c & 3]);
        if (p->output != KERNEL_F32)
            UNROLL for (int i = 0; i < n_streams; i++) add_leaf(&sums[i], float_value(acc[i]));
    }
    bool good = true;
    UNROLL for (int i = 0; i < n_streams; i++) good &=
        write_rows(p, strip + i * step, 0, float_value(acc[i]), &sums[i]);
    return good;
}

ALWAYS bool float_vec(const kernel_product *p, int type, int64_t begin, int64_t end)
{
    bool good = true;
    int64_t n = end - begin, share = n / VEC_STREAMS, strip = begin + share * VEC_STREAMS;
    for (int64_t i = 0; i < share; i++)
        good &= float_vec_strips(p, type, VEC_STREAMS, begin + i, share);
    for (; strip < end; strip++)
        good &= float_vec_strips(p, type, 1, strip, 1);
    return good;
}

enum { FLOAT_TOKENS = 48, FLOAT_GROUP = 6, FLOAT_UNITS = 4 };

typedef struct float_scratch {
    __m512 w[FLOAT_UNITS * KERNEL_UNIT];
    __m512 acc[FLOAT_TOKENS][4];
    wide_sums sums[FLOAT_TOKENS];
} float_scratch;

/* n_tokens (constant) tokens against `columns` columns of the strip in scratch. */
ALWAYS void float_chunk(const __m512 *w, int columns, int n_tokens, __m512 (*acc)[4], const char *x,
                        uint64_t x_bytes)
{
    __m512 sum[FLOAT_GROUP][4];
    int c = 0;
    UNROLL for (int t = 0; t < n_tokens; t++) UNROLL for (int a = 0; a < 4; a++) sum[t][a] =
        acc[t][a];
    for (; c + 4 <= columns; c += 4)
        UNROLL for (int a = 0; a < 4; a++)
        {
            __m512 weights = w[c + a];
            UNROLL for (int t = 0; t < n_tokens; t++)
            {
                const float *row = (const float *)(const void *)(x + (uint64_t)t * x_bytes);
                sum[t][a] = _mm512_fmadd_ps(weights, _mm512_set1_ps(row[c + a]), sum[t][a]);
            }
        }
    UNROLL for (int t = 0; t < n_tokens; t++) UNROLL for (int a = 0; a < 4; a++) acc[t][a] =
        sum[t][a];
    for (; c < columns; c++)
        for (int t = 0; t < n_tokens; t++) {
            const float *row = (const float *)(const void *)(x + (uint64_t)t * x_bytes);
            acc[t][c & 3] = _mm512_fmadd_ps(w[c], _mm512_set1_ps(row[c]), acc[t][c & 3]);
        }
}

static void float_tokens(const __m512 *w, int columns, int n, __m512 (*acc)[4], const char *x,
                         uint64_t x_bytes)
{
    int t = 0;
    for (; t + FLOAT_GROUP <= n; t += FLOAT_GROUP)
        float_chunk(w, columns, FLOAT_GROUP, acc + t, x + (uint64_t)t * x_bytes, x_bytes);
    for (; t + 2 <= n; t += 2)
        float_chunk(w, columns, 2, acc + t, x + (uint64_t)t * x_bytes, x_bytes);
    if (t < n)
        float_chunk(w, columns, 1, acc + t, x + (uint64_t)t * x_bytes, x_bytes);
}

ALWAYS bool float_strip(const kernel_product *p, fill_floats *fill, int64_t strip, int64_t t0,
                        int n, float_scratch *m)
{
    const kernel_matrix *w = p->w;
    const kernel_type *type = w->type;
    const unsigned char *base = (const unsigned char *)w->tiles + (uint64_t)strip * w->strip_bytes;
    const char *x = (const char *)p->x + (uint64_t)t0 * p->x_bytes;
    vec_place at = {0, (uint64_t)type->header_bytes,
                    (int)(w->column_begin / KERNEL_UNIT % type->run_units)};
    int64_t left = w->column_end - w->column_begin, until_leaf = p->leaf;
    memset(m->acc, 0, (size_t)n * sizeof m->acc[0]);
    memset(m->sums, 0, (size_t)n * sizeof m->sums[0]);
    while (left > 0) {
        int64_t columns = BASE_MIN(FLOAT_UNITS * KERNEL_UNIT, left);
        if (p->output != KERNEL_F32)
            columns = BASE_MIN(columns, until_leaf);
        for (int k = 0; k * KERNEL_UNIT < columns; k++) {
            fill(m->w + k * KERNEL_UNIT, base + at.header, base + at.unit, at.in_run);
            vec_step(type, type->run_units, &at);
        }
        float_tokens(m->w, (int)columns, n, m->acc, x, p->x_bytes);
        x += (uint64_t)columns * sizeof(float);
        left -= columns;
        until_leaf -= columns;
        if (p->output == KERNEL_F32 || (until_leaf > 0 && left > 0))
            continue;
        until_leaf = p->leaf;
        for (int t = 0; t < n; t++)
            add_leaf(&m->sums[t], float_value(m->acc[t]));
        memset(m->acc, 0, (size_t)n * sizeof m->acc[0]);
    }
    bool good = true;
    for (int t = 0; t < n; t++)
        good &= write_rows(p, strip, t0 + t, float_value(m->acc[t]), &m->sums[t]);
    return good;
}

ALWAYS bool float_mat(const kernel_product *p, fill_floats *fill, int64_t begin, int64_t end)
{
    float_scratch m;
    bool good = true;
    for (int64_t t = 0; t < p->n_tokens; t += FLOAT_TOKENS)
        for (int64_t strip = begin; strip < end; strip++)
            good &=
                float_strip(p, fill, strip, t, (int)BASE_MIN(FLOAT_TOKENS, p->n_tokens - t), &m);
    return good;
}

/* ---- the functions of the table ----------------------------------------------------------------------------------------- */

#define FLOAT_PRODUCT(name, type, fill)                                                            \
    static bool product_##name(const kernel_product *p, int64_t begin, int64_t end)                \
    {                                                                                              \
        if (p->n_tokens == 1)                                                                      \
            return float_vec(p, type, begin, end);                                                 \
        return float_mat(p, fill, begin, end);                                                     \
    }

#define QUANTISED_PRODUCT(name, kind, bias, wide, run_units, unit_bytes)                           \
    static bool product_##name(const kernel_product *p, int64_t begin, int64_t end)                \
    {                                                                                              \
        const shape s = {kind, bias, wide};                                                        \
        if (p->n_tokens == 1)                                                                      \
            return vec_product(p, open_##name, s, run_units, ((unit_bytes) + 63) / 64, begin,      \
                               end);                                                               \
        return mat_product(p, open_##name, s, run_units, begin, end);                              \
    }                                                                                              \
    ALWAYS void fill_##name(__m512 *dst, const unsigned char *header, const unsigned char *p,      \
                            int i)                                                                 \
    {                                                                                              \
        unit u;                                                                                    \
        open_##name(&u, header, p, i);                                                             \
        fill_unit(dst, &u, (shape){kind, bias, wide});                                             \
    }                                                                                              \
    static bool exact_##name(const kernel_product *p, int64_t begin, int64_t end)                  \
    {                                                                                              \
        return float_mat(p, fill_##name, begin, end);                                              \
    }

FLOAT_PRODUCT(f32, TYPE_F32, fill_f32)
FLOAT_PRODUCT(f16, TYPE_F16, fill_f16)
FLOAT_PRODUCT(bf16, TYPE_BF16, fill_bf16)
QUANTISED_PRODUCT(q8_0, PLAIN, 128, true, 1, 544)
QUANTISED_PRODUCT(q4_0, PLAIN, 8, false, 1, 288)
QUANTISED_PRODUCT(q4_k, MINIMUM, 0, false, 8, 288)
QUANTISED_PRODUCT(q6_k, HALVES, 32, false, 8, 420)
QUANTISED_PRODUCT(q4_1, MINIMUM, 0, false, 1, 320)
QUANTISED_PRODUCT(q5_0, PLAIN, 16, false, 1, 352)
QUANTISED_PRODUCT(q5_1, MINIMUM, 0, false, 1, 384)
QUANTISED_PRODUCT(q2_k, HALVES_MINIMUM, 0, false, 8, 168)
QUANTISED_PRODUCT(q3_k, HALVES, 4, false, 8, 220)
QUANTISED_PRODUCT(q5_k, MINIMUM, 0, false, 8, 352)
QUANTISED_PRODUCT(iq4_nl, PLAIN, 128, true, 1, 288)
QUANTISED_PRODUCT(iq4_xs, PLAIN, 128, true, 8, 272)
QUANTISED_PRODUCT(mxfp4, PLAIN, 12, false, 1, 272)

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
