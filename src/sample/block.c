/*
 * The passes over whole rows, one block at a time, in plain C: compilers make vectors of loops with a constant count. x86_avx2.c and
 * x86_avx512.c hold the same for their registers; all give the same results.
 */
#include "sample/noise_block.h"

#include <string.h>

static inline uint32_t exponent_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x7F800000u;
}

static float fill_plain(float *s, const float *logits, float inverse, uint32_t *bad)
{
    float most[16];
    uint32_t seen = 0;
    for (int i = 0; i < BLOCK; i++)
        seen |= exponent_of(logits[i]) + 0x00800000u;
    for (int i = 0; i < BLOCK; i++)
        s[i] = logits[i] * inverse;
    memcpy(most, s, sizeof most);
    for (int first = 16; first < BLOCK; first += 16)
        for (int i = 0; i < 16; i++)
            most[i] = s[first + i] > most[i] ? s[first + i] : most[i];
    for (int i = 1; i < 16; i++)
        most[0] = most[i] > most[0] ? most[i] : most[0];
    *bad |= seen;
    return most[0];
}

static void select_plain(uint64_t mask[BLOCK / 64], const float *s, float threshold)
{
    for (int w = 0; w < BLOCK / 64; w++) {
        uint64_t word = 0;
        for (int i = 0; i < 64; i++)
            word |= (uint64_t)(s[64 * w + i] >= threshold) << i;
        mask[w] = word;
    }
}

static bool noise_plain(uint64_t mask[BLOCK / 64], noise_key key, uint32_t first, uint32_t least)
{
    uint32_t bits[BLOCK], most = 0;
    for (uint32_t i = 0; i < BLOCK; i++) {
        bits[i] = random_bits(key, first + i);
        most = bits[i] > most ? bits[i] : most;
    }
    if (most < least)
        return false;
    for (int w = 0; w < BLOCK / 64; w++) {
        mask[w] = 0;
        for (int i = 0; i < 64; i++)
            mask[w] |= (uint64_t)(bits[64 * w + i] >= least) << i;
    }
    return true;
}

const block_table *block_table_for(const kernel_table *k)
{
    static const block_table plain = {fill_plain, select_plain, noise_plain};
#if defined(__x86_64__)
    if (k->features & KERNEL_CPU_AVX512)
        return &block_avx512;
    if (k->features & KERNEL_CPU_AVX2)
        return &block_avx2;
#endif
    (void)k;
    return &plain;
}
