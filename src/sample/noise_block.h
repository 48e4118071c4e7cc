/* The random bits of one block of tokens, as a body that is compiled once plainly and once for AVX2 (x86_avx2.c): integer operations,
 * hence the same bits from both. Private. */
#ifndef SHOAL_SAMPLE_NOISE_BLOCK_H
#define SHOAL_SAMPLE_NOISE_BLOCK_H

#include "sample/inside.h"

/* One-to-one in the id for any key, so no two tokens of a step have the same noise. */
static inline uint32_t random_bits(noise_key key, uint32_t id)
{
    uint32_t x = (id ^ key.first) * 0x9E3779B1u;
    x = (x ^ x >> 16) + key.second;
    x = (x ^ x >> 15) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    return x ^ x >> 16;
}

/* bits[i] of token first + i; returns the greatest. A constant count: compilers make vectors of the loop. */
static inline uint32_t random_block(uint32_t bits[BLOCK], noise_key key, uint32_t first)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < BLOCK; i++) {
        bits[i] = random_bits(key, first + i);
        most = bits[i] > most ? bits[i] : most;
    }
    return most;
}

#endif
