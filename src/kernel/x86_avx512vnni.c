/*
 * AVX-512 (F, BW, VL, DQ) with VNNI: the dot product of four unsigned and four signed bytes is one exact instruction. The rest: x86_512.h.
 */
#include <immintrin.h>

static inline __attribute__((always_inline)) __m512i dot4(__m512i acc, __m512i u, __m512i x)
{
    return _mm512_dpbusd_epi32(acc, u, x);
}

#define dot4_wide dot4

#include "kernel/x86_512.h"

const kernel_table kernel_avx512vnni = {
    .name = "avx512vnni",
    .features = KERNEL_CPU_AVX2 | KERNEL_CPU_AVX512 | KERNEL_CPU_AVX512_VNNI,
    PRODUCT_ROWS,
    V_TABLE_ROWS,
};
