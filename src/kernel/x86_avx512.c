/*
 * AVX-512 (F, BW, VL, DQ) without VNNI: vpmaddubsw as in x86_avx2.c, where it is said why nothing saturates. The rest: x86_512.h.
 */
#include <immintrin.h>

#define DOT_STEPS 4
static inline __attribute__((always_inline)) __m512i dot_pairs(__m512i u, __m512i x)
{
    return _mm512_maddubs_epi16(u, x);
}

static inline __attribute__((always_inline)) __m512i dot4(__m512i acc, __m512i u, __m512i x)
{
    return _mm512_add_epi32(acc, _mm512_madd_epi16(dot_pairs(u, x), _mm512_set1_epi16(1)));
}

/* The weight is u − 128. */
#define DOT_WIDE_SIGNED
static inline __attribute__((always_inline)) __m512i dot4_wide(__m512i acc, __m512i u, __m512i x)
{
    __m512i w = _mm512_xor_si512(u, _mm512_set1_epi8(-128));
    x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
    return dot4(acc, _mm512_abs_epi8(w), x);
}

#include "kernel/x86_512.h"

const kernel_table kernel_avx512 = {
    .name = "avx512",
    .features = KERNEL_CPU_AVX2 | KERNEL_CPU_AVX512,
    PRODUCT_ROWS,
    V_TABLE_ROWS,
};
