/*
 * AVX-512 (F, BW, VL, DQ): the lanes of vector.h and the operations of products.h on registers of 64 bytes, a strip's 16 rows in one.
 * x86_avx512.c and x86_avx512vnni.c define dot4 and dot4_wide and include this file.
 */
#include <immintrin.h>

#include "kernel/internal.h"

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL KERNEL_UNROLL

#if defined(                                                                                       \
    __clang__) /* its checks of every unrolled index cost minutes of compiling; gcc's stay on */
#pragma clang attribute push(__attribute__((no_sanitize("undefined"))), apply_to = function)
#endif

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
/* Steps +8 and +4 (by 128-bit parts), +2 and +1 of the tree for two rows in one operation. */
#define LANES_FOLDS
#define FOLD_PARTS(p, q, low, high)                                                                \
    _mm512_add_ps(_mm512_shuffle_f32x4(p, q, low), _mm512_shuffle_f32x4(p, q, high))
ALWAYS lanes fold_pairs(lanes p, lanes q)
{
    __m512d x = _mm512_castps_pd(p), y = _mm512_castps_pd(q);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}
ALWAYS lanes fold_single(lanes p, lanes q)
{
    return _mm512_add_ps(_mm512_shuffle_ps(p, q, 0x88), _mm512_shuffle_ps(p, q, 0xDD));
}
ALWAYS lanes lanes_folds(const lanes a[16])
{
    lanes x[8];
    UNROLL for (int i = 0; i < 8; i++) x[i] = FOLD_PARTS(a[2 * i], a[2 * i + 1], 0x44, 0xEE);
    UNROLL for (int i = 0; i < 4; i++) x[i] = FOLD_PARTS(x[2 * i], x[2 * i + 1], 0x88, 0xDD);
    return fold_single(fold_pairs(x[0], x[1]), fold_pairs(x[2], x[3]));
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
ALWAYS lanes lanes_load_bytes(const int8_t *p)
{
    __m128i q = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q));
}
ALWAYS int lanes_store_bytes(int8_t *p, lanes a)
{
    __m512i q = _mm512_cvtps_epi32(a);
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtsepi32_epi8(q));
    return _mm512_reduce_add_epi32(q);
}

/* ---- the operations of products.h -------------------------------------------------------- */

enum {
    GROUP_ROWS = 16,
    VEC_STREAMS = 4,
    FEW_TOKENS = 8,
    MAT_GROUPS = 2,
    MAT_WIDE = 8,
    FLOAT_GROUP = 6
};

typedef __m512i vi;
typedef __m512 vf;

#define vf_as             _mm512_castsi512_ps
#define vi_set32          _mm512_set1_epi32
#define vi_set16          _mm512_set1_epi16
#define vi_set8           _mm512_set1_epi8
#define vi_zero           _mm512_setzero_si512
#define vi_and            _mm512_and_si512
#define vi_or             _mm512_or_si512
#define vi_add32          _mm512_add_epi32
#define vi_add16          _mm512_add_epi16
#define vi_sub32          _mm512_sub_epi32
#define vi_shl32(a, n)    _mm512_slli_epi32(a, (unsigned)(n))
#define vi_shr32(a, n)    _mm512_srli_epi32(a, (unsigned)(n))
#define vi_sar32(a, n)    _mm512_srai_epi32(a, (unsigned)(n))
#define vi_shr16(a, n)    _mm512_srli_epi16(a, (unsigned)(n))
#define vi_shr32_by(a, n) _mm512_srl_epi32(a, _mm_cvtsi32_si128(n))
#define vi_shlv32         _mm512_sllv_epi32
#define vi_madd16         _mm512_madd_epi16
#define vi_shuffle8       _mm512_shuffle_epi8
#define vf_zero           _mm512_setzero_ps
#define vf_set            _mm512_set1_ps
#define vf_add            _mm512_add_ps
#define vf_mul            _mm512_mul_ps
#define vf_fma            _mm512_fmadd_ps
#define vf_negate         lanes_negate
#define vf_from_int       _mm512_cvtepi32_ps

ALWAYS vi vi_load(const unsigned char *p)
{
    return _mm512_loadu_si512(p);
}
ALWAYS vf vf_load(const unsigned char *p)
{
    return _mm512_loadu_ps(p);
}
ALWAYS vf vf_load_half(const unsigned char *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
ALWAYS vi vi_from_u16(const unsigned char *p)
{
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
ALWAYS vi vi_from_u8(const unsigned char *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
ALWAYS vi vi_table(const uint8_t table[16])
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)table));
}
/* a < b ? x : y on integers */
ALWAYS vi vi_less(vi a, vi b, vi x, vi y)
{
    return _mm512_mask_blend_epi32(_mm512_cmplt_epi32_mask(a, b), y, x);
}
ALWAYS void vf_store_n(float *p, vf a, int n)
{
    _mm512_mask_storeu_ps(p, lanes_mask(n), a);
}

typedef struct wide_sums {
    __m512d low, high;
} wide_sums;

ALWAYS void sums_clear(wide_sums *sums)
{
    sums->low = sums->high = _mm512_setzero_pd();
}
ALWAYS void sums_add_leaf(wide_sums *sums, vf v)
{
    __m512d m = _mm512_set1_pd(LEAF_ROUND);
    __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(v)),
            b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
    sums->low = _mm512_add_pd(sums->low, _mm512_sub_pd(_mm512_add_pd(a, m), m));
    sums->high = _mm512_add_pd(sums->high, _mm512_sub_pd(_mm512_add_pd(b, m), m));
}
/* The same for two leaves: (a + M) + (b − M) is exact, and M's own parity is even both ways. Halves are converted straight from memory. */
ALWAYS void sums_add_pair(wide_sums *sums, const vf *a, const vf *b)
{
    const __m256 *x = (const __m256 *)(const void *)a, *y = (const __m256 *)(const void *)b;
    __m512d m = _mm512_set1_pd(LEAF_ROUND);
    __m512d low = _mm512_add_pd(_mm512_cvtps_pd(x[0]), m),
            high = _mm512_add_pd(_mm512_cvtps_pd(x[1]), m);
    low = _mm512_add_pd(low, _mm512_sub_pd(_mm512_cvtps_pd(y[0]), m));
    high = _mm512_add_pd(high, _mm512_sub_pd(_mm512_cvtps_pd(y[1]), m));
    sums->low = _mm512_add_pd(sums->low, low);
    sums->high = _mm512_add_pd(sums->high, high);
}
ALWAYS void sums_store(double *p, const wide_sums *sums)
{
    _mm512_storeu_pd(p, sums->low);
    _mm512_storeu_pd(p + 8, sums->high);
}

#include "kernel/products.h"
#include "kernel/vector.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
