/* The passes of block.c over registers of 64 bytes. */
#include "sample/noise_block.h"

#include <immintrin.h>

enum { LANES = 16 };

static float fill_block(float *s, const float *logits, float inverse, uint32_t *bad)
{
    __m512 by = _mm512_set1_ps(inverse), most = _mm512_mul_ps(_mm512_loadu_ps(logits), by);
    __mmask16 seen = 0;
    for (int i = 0; i < BLOCK; i += LANES) {
        __m512 x = _mm512_loadu_ps(logits + i), y = _mm512_mul_ps(x, by);
        seen |= _mm512_fpclass_ps_mask(x, 0x99); /* quiet NaN, ±infinity, signalling NaN */
        most = _mm512_max_ps(y, most);
        _mm512_storeu_ps(s + i, y);
    }
    *bad |= seen ? 0x80000000u : 0;
    return _mm512_reduce_max_ps(most);
}

static void select_block(uint64_t mask[BLOCK / 64], const float *s, float threshold)
{
    __m512 t = _mm512_set1_ps(threshold);
    for (int w = 0; w < BLOCK / 64; w++) {
        uint64_t word = 0;
        for (int i = 0; i < 64; i += LANES)
            word |= (uint64_t)_mm512_cmp_ps_mask(_mm512_loadu_ps(s + 64 * w + i), t, _CMP_GE_OQ)
                    << i;
        mask[w] = word;
    }
}

/* The last step of mixed_bits leaves the upper half as it is, so that half is compared without it. */
static bool noise_block(uint64_t mask[BLOCK / 64], noise_key key, uint32_t first, uint32_t least)
{
    uint32_t product[LANES];
    for (uint32_t i = 0; i < LANES; i++)
        product[i] = product_of_place(key, i);
    __m512i places = _mm512_loadu_si512(product), second = _mm512_set1_epi32((int)key.second),
            limit = _mm512_set1_epi32((int)(least & 0xFFFF0000u));
    for (int w = 0; w < BLOCK / 64; w++) {
        uint64_t word = 0;
        for (int i = 0; i < 64; i += LANES) {
            uint32_t ids = product_of_ids(key, first + (uint32_t)(64 * w + i));
            __m512i x = _mm512_add_epi32(places, _mm512_set1_epi32((int)ids));
            x = _mm512_add_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 16)), second);
            x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
            x = _mm512_mullo_epi32(x, _mm512_set1_epi32(0x7FEB352D));
            x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
            x = _mm512_mullo_epi32(x, _mm512_set1_epi32((int)0x846CA68Bu));
            word |= (uint64_t)_mm512_cmpge_epu32_mask(x, limit) << i;
        }
        mask[w] = word;
    }
    return (mask[0] | mask[1]) != 0;
}

const block_table block_avx512 = {fill_block, select_block, noise_block};
