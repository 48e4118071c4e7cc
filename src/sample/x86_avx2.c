/* The passes of block.c over registers of 32 bytes. */
#include "sample/noise_block.h"

#include <immintrin.h>

enum { LANES = 8 };

static float fill_block(float *s, const float *logits, float inverse, uint32_t *bad)
{
    const __m256i exponent = _mm256_set1_epi32(0x7F800000), one = _mm256_set1_epi32(0x00800000);
    __m256 by = _mm256_set1_ps(inverse), most = _mm256_mul_ps(_mm256_loadu_ps(logits), by);
    __m256i seen = _mm256_setzero_si256();
    for (int i = 0; i < BLOCK; i += LANES) {
        __m256 x = _mm256_loadu_ps(logits + i), y = _mm256_mul_ps(x, by);
        __m256i e = _mm256_and_si256(_mm256_castps_si256(x), exponent);
        seen = _mm256_or_si256(seen, _mm256_add_epi32(e, one));
        most = _mm256_max_ps(y, most);
        _mm256_storeu_ps(s + i, y);
    }
    *bad |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(seen)) ? 0x80000000u : 0;
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static void select_block(uint64_t mask[BLOCK / 64], const float *s, float threshold)
{
    __m256 t = _mm256_set1_ps(threshold);
    for (int w = 0; w < BLOCK / 64; w++) {
        uint64_t word = 0;
        for (int i = 0; i < 64; i += LANES) {
            __m256 x = _mm256_loadu_ps(s + 64 * w + i);
            unsigned at_least = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(x, t, _CMP_GE_OQ));
            word |= (uint64_t)at_least << i;
        }
        mask[w] = word;
    }
}

/* The last step of mixed_bits leaves the upper half as it is, so that half is compared without it. */
static bool noise_block(uint64_t mask[BLOCK / 64], noise_key key, uint32_t first, uint32_t least)
{
    uint32_t product[2 * LANES];
    for (uint32_t i = 0; i < 2 * LANES; i++)
        product[i] = product_of_place(key, i);
    __m256i second = _mm256_set1_epi32((int)key.second),
            limit = _mm256_set1_epi32((int)(least & 0xFFFF0000u));
    for (int w = 0; w < BLOCK / 64; w++) {
        uint64_t word = 0;
        for (int i = 0; i < 64; i += LANES) {
            uint32_t ids = product_of_ids(key, first + (uint32_t)((64 * w + i) & ~15));
            const void *places = &product[i & 15];
            __m256i x = _mm256_add_epi32(_mm256_loadu_si256(places), _mm256_set1_epi32((int)ids));
            x = _mm256_add_epi32(_mm256_xor_si256(x, _mm256_srli_epi32(x, 16)), second);
            x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 15));
            x = _mm256_mullo_epi32(x, _mm256_set1_epi32(0x7FEB352D));
            x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 15));
            x = _mm256_mullo_epi32(x, _mm256_set1_epi32((int)0x846CA68Bu));
            x = _mm256_cmpeq_epi32(_mm256_max_epu32(x, limit), x); /* x ≥ limit */
            word |= (uint64_t)(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(x)) << i;
        }
        mask[w] = word;
    }
    return (mask[0] | mask[1]) != 0;
}

const block_table block_avx2 = {fill_block, select_block, noise_block};
