/* The random bits of tokens, in the form that the searches over blocks take: integer operations, hence the same from plain C and vectors. Private. */
#ifndef SHOAL_SAMPLE_NOISE_BLOCK_H
#define SHOAL_SAMPLE_NOISE_BLOCK_H

#include "sample/inside.h"

static inline uint32_t mixed_bits(noise_key key, uint32_t product)
{
    uint32_t x = (product ^ product >> 16) + key.second;
    x = (x ^ x >> 15) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    return x ^ x >> 16;
}

/* One-to-one in the id for any key, so no two tokens of a step have the same noise. */
static inline uint32_t random_bits(noise_key key, uint32_t id)
{
    return mixed_bits(key, (id ^ key.first) * 0x9E3779B1u);
}

/* The first product of 16 ids from a multiple of 16 on: a part of all of them plus a part of the place in them. */
static inline uint32_t product_of_ids(noise_key key, uint32_t first)
{
    return (first ^ (key.first & ~15u)) * 0x9E3779B1u;
}

static inline uint32_t product_of_place(noise_key key, uint32_t i)
{
    return (i ^ (key.first & 15)) * 0x9E3779B1u;
}

#endif
