/*
 * AVX2, FMA, F16C. vpmaddubsw adds two products in 16 bits with saturation, which never happens: stored bytes go to 31 (63 in types of two scales a
 * block) and activations to ±127, so 4 (2) of its results still fit 16 bits and are added there; wide bytes are taken as signed ones,
 * |w| · (x with w's sign), at most 2·128·127 < 2^15. The rest: x86_256.h.
 */
#include <immintrin.h>

/* 16 sums of two products; of four steps at once where many tokens are met. */
#define DOT_STEPS 4
static inline __attribute__((always_inline)) __m256i dot_pairs(__m256i u, __m256i x)
{
    return _mm256_maddubs_epi16(u, x);
}

static inline __attribute__((always_inline)) __m256i dot4(__m256i acc, __m256i u, __m256i x)
{
    return _mm256_add_epi32(acc, _mm256_madd_epi16(dot_pairs(u, x), _mm256_set1_epi16(1)));
}

/* The weight is u − 128. */
#define DOT_WIDE_SIGNED
static inline __attribute__((always_inline)) __m256i dot4_wide(__m256i acc, __m256i u, __m256i x)
{
    __m256i w = _mm256_xor_si256(u, _mm256_set1_epi8(-128));
    return dot4(acc, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
}

#include "kernel/x86_256.h"

const kernel_table kernel_avx2 = {
    .name = "avx2",
    .features = KERNEL_CPU_AVX2,
    PRODUCT_ROWS,
    V_TABLE_ROWS,
};
