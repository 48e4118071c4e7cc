/*
 * AVX2 with FMA and F16C: the lanes of vector.h (two registers) and the operations of products.h on registers of 32 bytes, a strip's 16
 * rows in two. x86_avx2.c and x86_avxvnni.c define dot4 and dot4_wide and include this file.
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

typedef struct lanes {
    __m256 a, b;
} lanes;

#define AS_INT   _mm256_castps_si256
#define AS_FLOAT _mm256_castsi256_ps
#define LANES_BOTH(x, y)                                                                           \
    (lanes)                                                                                        \
    {                                                                                              \
        x, y                                                                                       \
    }

/* All ones in the first n of 8 lanes. */
ALWAYS __m256i first_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
ALWAYS lanes lanes_set(float x)
{
    return LANES_BOTH(_mm256_set1_ps(x), _mm256_set1_ps(x));
}
ALWAYS lanes lanes_load(const float *p)
{
    return LANES_BOTH(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
}
ALWAYS lanes lanes_load_n(const float *p, int n, float fill)
{
    __m256i m = first_lanes(n), m2 = first_lanes(n - 8);
    return LANES_BOTH(
        _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, m), AS_FLOAT(m)),
        _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p + 8, m2), AS_FLOAT(m2)));
}
ALWAYS void lanes_store(float *p, lanes x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
ALWAYS void lanes_store_n(float *p, lanes x, int n)
{
    _mm256_maskstore_ps(p, first_lanes(n), x.a);
    _mm256_maskstore_ps(p + 8, first_lanes(n - 8), x.b);
}
ALWAYS lanes lanes_add(lanes x, lanes y)
{
    return LANES_BOTH(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b));
}
ALWAYS lanes lanes_sub(lanes x, lanes y)
{
    return LANES_BOTH(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b));
}
ALWAYS lanes lanes_mul(lanes x, lanes y)
{
    return LANES_BOTH(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b));
}
ALWAYS lanes lanes_fma(lanes x, lanes y, lanes z)
{
    return LANES_BOTH(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b));
}
ALWAYS lanes lanes_max(lanes x, lanes y)
{
    return LANES_BOTH(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b));
}
ALWAYS lanes lanes_min(lanes x, lanes y)
{
    return LANES_BOTH(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b));
}
ALWAYS lanes lanes_less(lanes a, lanes b, lanes x, lanes y)
{
    return LANES_BOTH(_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(a.a, b.a, _CMP_LT_OQ)),
                      _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(a.b, b.b, _CMP_LT_OQ)));
}
ALWAYS lanes lanes_abs(lanes x)
{
    __m256 m = AS_FLOAT(_mm256_set1_epi32(0x7FFFFFFF));
    return LANES_BOTH(_mm256_and_ps(x.a, m), _mm256_and_ps(x.b, m));
}
ALWAYS lanes lanes_negate(lanes x)
{
    __m256 m = AS_FLOAT(_mm256_set1_epi32(INT32_MIN));
    return LANES_BOTH(_mm256_xor_ps(x.a, m), _mm256_xor_ps(x.b, m));
}
ALWAYS lanes lanes_bits_add(lanes x, lanes y)
{
    return LANES_BOTH(AS_FLOAT(_mm256_add_epi32(AS_INT(x.a), AS_INT(y.a))),
                      AS_FLOAT(_mm256_add_epi32(AS_INT(x.b), AS_INT(y.b))));
}
ALWAYS lanes lanes_bits_sub(lanes x, lanes y)
{
    return LANES_BOTH(AS_FLOAT(_mm256_sub_epi32(AS_INT(x.a), AS_INT(y.a))),
                      AS_FLOAT(_mm256_sub_epi32(AS_INT(x.b), AS_INT(y.b))));
}
ALWAYS lanes lanes_shift_left(lanes x, int n)
{
    return LANES_BOTH(AS_FLOAT(_mm256_slli_epi32(AS_INT(x.a), n)),
                      AS_FLOAT(_mm256_slli_epi32(AS_INT(x.b), n)));
}
ALWAYS float lanes_fold(lanes x)
{
    __m256 b = _mm256_add_ps(x.a, x.b);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
/* Steps +4, +2 and +1 of the tree for two rows in one operation. */
#define LANES_FOLDS
ALWAYS __m256 fold_quarters(__m256 p, __m256 q)
{
    return _mm256_add_ps(_mm256_permute2f128_ps(p, q, 0x20), _mm256_permute2f128_ps(p, q, 0x31));
}
ALWAYS __m256 fold_pairs(__m256 p, __m256 q)
{
    __m256d x = _mm256_castps_pd(p), y = _mm256_castps_pd(q);
    return _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)),
                         _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
}
ALWAYS __m256 fold_single(__m256 p, __m256 q)
{
    return _mm256_add_ps(_mm256_shuffle_ps(p, q, 0x88), _mm256_shuffle_ps(p, q, 0xDD));
}
ALWAYS lanes lanes_folds(const lanes a[16])
{
    __m256 x[8];
    UNROLL for (int i = 0; i < 8; i++) x[i] = fold_quarters(
        _mm256_add_ps(a[2 * i].a, a[2 * i].b), _mm256_add_ps(a[2 * i + 1].a, a[2 * i + 1].b));
    UNROLL for (int i = 0; i < 4; i++) x[i] = fold_pairs(x[2 * i], x[2 * i + 1]);
    return LANES_BOTH(fold_single(x[0], x[1]), fold_single(x[2], x[3]));
}
ALWAYS float lanes_fold_max(lanes x)
{
    __m256 b = _mm256_max_ps(x.a, x.b);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
ALWAYS lanes lanes_load_half(const uint16_t *p)
{
    return LANES_BOTH(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)),
                      _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + 8))));
}
ALWAYS void lanes_store_half(uint16_t *p, lanes x)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(void *)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
ALWAYS lanes lanes_load_bytes(const int8_t *p)
{
    __m128i q = _mm_loadu_si128((const __m128i *)(const void *)p);
    return LANES_BOTH(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
                      _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8))));
}
ALWAYS int lanes_store_bytes(int8_t *p, lanes x)
{
    __m256i a = _mm256_cvtps_epi32(x.a), b = _mm256_cvtps_epi32(x.b), t = _mm256_add_epi32(a, b);
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8);
    _mm_storeu_si128((__m128i *)(void *)p, _mm_packs_epi16(_mm256_castsi256_si128(words),
                                                           _mm256_extracti128_si256(words, 1)));
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}

/* ---- the operations of products.h -------------------------------------------------------------------------------- */

enum {
    GROUP_ROWS = 8,
    VEC_STREAMS = 4,
    FEW_TOKENS = 4,
    MAT_GROUPS = 2,
    MAT_WIDE = 4,
    FLOAT_GROUP = 3
};

typedef __m256i vi;
typedef __m256 vf;

#define vf_as             _mm256_castsi256_ps
#define vi_set32          _mm256_set1_epi32
#define vi_set16          _mm256_set1_epi16
#define vi_set8           _mm256_set1_epi8
#define vi_zero           _mm256_setzero_si256
#define vi_and            _mm256_and_si256
#define vi_or             _mm256_or_si256
#define vi_add32          _mm256_add_epi32
#define vi_add16          _mm256_add_epi16
#define vi_sub32          _mm256_sub_epi32
#define vi_shl32          _mm256_slli_epi32
#define vi_shr32          _mm256_srli_epi32
#define vi_sar32          _mm256_srai_epi32
#define vi_shr16          _mm256_srli_epi16
#define vi_shr32_by(a, n) _mm256_srl_epi32(a, _mm_cvtsi32_si128(n))
#define vi_shlv32         _mm256_sllv_epi32
#define vi_madd16         _mm256_madd_epi16
#define vi_shuffle8       _mm256_shuffle_epi8
#define vf_zero           _mm256_setzero_ps
#define vf_set            _mm256_set1_ps
#define vf_add            _mm256_add_ps
#define vf_mul            _mm256_mul_ps
#define vf_fma            _mm256_fmadd_ps
#define vf_from_int       _mm256_cvtepi32_ps

ALWAYS vi vi_load(const unsigned char *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}
ALWAYS vf vf_load(const unsigned char *p)
{
    return _mm256_loadu_ps((const float *)(const void *)p);
}
ALWAYS vf vf_load_half(const unsigned char *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
ALWAYS vi vi_from_u16(const unsigned char *p)
{
    return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
ALWAYS vi vi_from_u8(const unsigned char *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
ALWAYS vi vi_table(const uint8_t table[16])
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)table));
}
/* a < b ? x : y on integers */
ALWAYS vi vi_less(vi a, vi b, vi x, vi y)
{
    return _mm256_blendv_epi8(y, x, _mm256_cmpgt_epi32(b, a));
}
ALWAYS vf vf_negate(vf a)
{
    return _mm256_xor_ps(a, AS_FLOAT(_mm256_set1_epi32(INT32_MIN)));
}
ALWAYS void vf_store_n(float *p, vf a, int n)
{
    _mm256_maskstore_ps(p, first_lanes(n), a);
}

typedef struct wide_sums {
    __m256d low, high;
} wide_sums;

ALWAYS void sums_clear(wide_sums *sums)
{
    sums->low = sums->high = _mm256_setzero_pd();
}
ALWAYS void sums_add_leaf(wide_sums *sums, vf v)
{
    __m256d m = _mm256_set1_pd(LEAF_ROUND);
    __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(v)),
            b = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
    sums->low = _mm256_add_pd(sums->low, _mm256_sub_pd(_mm256_add_pd(a, m), m));
    sums->high = _mm256_add_pd(sums->high, _mm256_sub_pd(_mm256_add_pd(b, m), m));
}
/* The same for two leaves: (a + M) + (b − M) is exact, and M's own parity is even both ways. Halves are converted straight from memory. */
ALWAYS void sums_add_pair(wide_sums *sums, const vf *a, const vf *b)
{
    const __m128 *x = (const __m128 *)(const void *)a, *y = (const __m128 *)(const void *)b;
    __m256d m = _mm256_set1_pd(LEAF_ROUND);
    __m256d low = _mm256_add_pd(_mm256_cvtps_pd(x[0]), m),
            high = _mm256_add_pd(_mm256_cvtps_pd(x[1]), m);
    low = _mm256_add_pd(low, _mm256_sub_pd(_mm256_cvtps_pd(y[0]), m));
    high = _mm256_add_pd(high, _mm256_sub_pd(_mm256_cvtps_pd(y[1]), m));
    sums->low = _mm256_add_pd(sums->low, low);
    sums->high = _mm256_add_pd(sums->high, high);
}
ALWAYS void sums_store(double *p, const wide_sums *sums)
{
    _mm256_storeu_pd(p, sums->low);
    _mm256_storeu_pd(p + 4, sums->high);
}

#include "kernel/products.h"
#include "kernel/vector.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
