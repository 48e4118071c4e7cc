/*
 * AVX2, FMA, F16C. vpmaddubsw adds two products in 16 bits with saturation, which never happens as long as the unsigned byte is at most 127:
 * 2·127·128 < 2^15. Wider bytes are split into their low seven bits and the eighth. The rest: x86_256.h.
 */
#include <immintrin.h>

static inline __attribute__((always_inline)) __m256i dot4(__m256i acc, __m256i u, __m256i x)
{
    return _mm256_add_epi32(acc,
                            _mm256_madd_epi16(_mm256_maddubs_epi16(u, x), _mm256_set1_epi16(1)));
}

static inline __attribute__((always_inline)) __m256i dot4_wide(__m256i acc, __m256i u, __m256i x)
{
    __m256i low = _mm256_maddubs_epi16(_mm256_and_si256(u, _mm256_set1_epi8(127)), x);
    __m256i high =
        _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(u, 7), _mm256_set1_epi8(1)), x);
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(high, _mm256_set1_epi16(128)));
}

#include "kernel/x86_256.h"

const kernel_table kernel_avx2 = {
    .name = "avx2",
    .features = KERNEL_CPU_AVX2,
    PRODUCT_ROWS,
    V_TABLE_ROWS,
};
