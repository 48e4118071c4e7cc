/* noise_block.h for AVX2. */
#include "sample/noise_block.h"

uint32_t noise_block_avx2(uint32_t bits[BLOCK], noise_key key, uint32_t first, uint32_t limit)
{
    return random_block(bits, key, first, limit);
}
