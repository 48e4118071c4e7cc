/* What passes over whole rows, for AVX2: noise_block.h, and which values of a block are at least a threshold. */
#include "sample/noise_block.h"

#include <immintrin.h>

uint32_t noise_block_avx2(uint32_t bits[BLOCK], noise_key key, uint32_t first)
{
    return random_block(bits, key, first);
}

void select_block_avx2(uint64_t mask[BLOCK / 64], const float *s, float threshold)
{
    __m256 t = _mm256_set1_ps(threshold);
    for (int w = 0; w < BLOCK / 64; w++) {
        uint64_t word = 0;
        for (int i = 0; i < 8; i++) {
            __m256 x = _mm256_loadu_ps(s + 64 * w + 8 * i);
            unsigned at_least = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(x, t, _CMP_GE_OQ));
            word |= (uint64_t)at_least << (8 * i);
        }
        mask[w] = word;
    }
}
