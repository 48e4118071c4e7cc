/*
 * AVX-512 (F, BW, VL, DQ) without VNNI. vpmaddubsw adds two products in 16 bits with saturation, which never happens as long as the unsigned
 * byte is at most 127: 2·127·128 < 2^15. Wider bytes are split into their low seven bits and the eighth. The rest: x86_512.h.
 */
#include <immintrin.h>

static inline __attribute__((always_inline)) __m512i dot4(__m512i acc, __m512i u, __m512i x)
{
    return _mm512_add_epi32(acc,
                            _mm512_madd_epi16(_mm512_maddubs_epi16(u, x), _mm512_set1_epi16(1)));
}

static inline __attribute__((always_inline)) __m512i dot4_wide(__m512i acc, __m512i u, __m512i x)
{
    __m512i low = _mm512_maddubs_epi16(_mm512_and_si512(u, _mm512_set1_epi8(127)), x);
    __m512i high =
        _mm512_maddubs_epi16(_mm512_and_si512(_mm512_srli_epi16(u, 7), _mm512_set1_epi8(1)), x);
    acc = _mm512_add_epi32(acc, _mm512_madd_epi16(low, _mm512_set1_epi16(1)));
    return _mm512_add_epi32(acc, _mm512_madd_epi16(high, _mm512_set1_epi16(128)));
}

#include "kernel/x86_512.h"

const kernel_table kernel_avx512 = {
    .name = "avx512",
    .features = KERNEL_CPU_AVX2 | KERNEL_CPU_AVX512,
    PRODUCT_ROWS,
    V_TABLE_ROWS,
};
