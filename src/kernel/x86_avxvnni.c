/*
 * AVX2 with AVX-VNNI (client processors without AVX-512): the dot product of four unsigned and four signed bytes is one exact instruction.
 * The rest: x86_256.h.
 */
#include <immintrin.h>

static inline __attribute__((always_inline)) __m256i dot4(__m256i acc, __m256i u, __m256i x)
{
    return _mm256_dpbusd_avx_epi32(acc, u, x);
}

#define dot4_wide dot4

#include "kernel/x86_256.h"

const kernel_table kernel_avxvnni = {
    .name = "avxvnni",
    .features = KERNEL_CPU_AVX2 | KERNEL_CPU_AVX_VNNI,
    PRODUCT_ROWS,
    V_TABLE_ROWS,
};
