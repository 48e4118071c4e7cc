/*
 * The noise of contract (d) and the search for the winner.
 *
 * (seed, choice, position) are hashed once to a key of 64 bits; a token's 32 random bits are a short mix of its id and the key, the
 * same 32-bit operations in every lane of a vector. u = (bits + ½)/2^32, noise = −log(−log u) with the kernel's own double log.
 *
 * Over a whole vocabulary the logarithms would cost far more than the rest, so bounds come first: −log(−log u) ≤ −log(1 − u), hence a
 * token can beat the best score so far only if its 1 − u is under e^−(best − s). That is one integer comparison a token, and blocks
 * whose maximum is too far below are not even hashed, and those none of whose bits reach it are not looked through. The result is exactly
 * that of scoring every token.
 */
#include "sample/noise_block.h"

#define NOISE_MAX 22.9 /* −log(−log(1 − 2^−33)) is 22.87 */
#define LIMITS    24

noise_key noise_key_of(uint64_t seed, int choice, int64_t position)
{
    uint64_t h = hash_u64((uint64_t)position, hash_u64((uint64_t)choice, seed));
    return (noise_key){(uint32_t)h, (uint32_t)(h >> 32)};
}

static double gumbel(uint32_t bits)
{
    double u = ((double)bits + 0.5) * 0x1p-32;
    return -kernel_log64(-kernel_log64(u));
}

double noise_of(noise_key key, int32_t token)
{
    return gumbel(random_bits(key, (uint32_t)token));
}

double sample_noise(uint64_t seed, int choice, int64_t position, int32_t token)
{
    return noise_of(noise_key_of(seed, choice, position), token);
}

typedef struct best_token {
    double score;
    int32_t id;
} best_token;

static void consider(best_token *best, float s, int32_t id, uint32_t bits)
{
    double score = (double)s + gumbel(bits);
    if (score > best->score || (score == best->score && id < best->id))
        *best = (best_token){score, id};
}

/* ~bits below the limit can have a noise above `distance`: 1 − u = (~bits + ½)/2^32 < e^−distance. Rounded up to be safe. */
static void make_limits(uint32_t limits[LIMITS])
{
    for (int d = 0; d < LIMITS; d++) {
        double limit = kernel_exp64(-(double)d) * 4294967296.0 + 2;
        limits[d] = limit < 4294967295.0 ? (uint32_t)limit : UINT32_MAX;
    }
}

typedef uint32_t block_fn(uint32_t bits[BLOCK], noise_key key, uint32_t first);

static uint32_t block_plain(uint32_t bits[BLOCK], noise_key key, uint32_t first)
{
    return random_block(bits, key, first);
}

static block_fn *block_for(const kernel_table *k)
{
#if defined(__x86_64__)
    if (k->features & KERNEL_CPU_AVX2)
        return noise_block_avx2;
#endif
    (void)k;
    return block_plain;
}

int32_t noise_choose_row(const scored_row *row, float floor, noise_key key, const kernel_table *k)
{
    uint32_t limits[LIMITS], bits[BLOCK];
    block_fn *block = block_for(k);
    make_limits(limits);
    int32_t greatest = select_first_best(row, row->s);
    best_token best = {(double)row->max + noise_of(key, greatest), greatest};
    for (int b = 0; b < row->n_blocks; b++) {
        double distance = best.score - (double)row->block_max[b];
        if (distance > NOISE_MAX || row->block_max[b] <= EXCLUDED_MAX || row->block_max[b] < floor)
            continue;
        uint32_t limit = distance < 0 ? UINT32_MAX : limits[(int)distance];
        int first = b * BLOCK, end = BASE_MIN(first + BLOCK, row->n);
        if (~block(bits, key, (uint32_t)(row->first + first)) > limit)
            continue;
        for (int i = first; i < end; i++)
            if (~bits[i - first] <= limit && row->s[i] >= floor)
                consider(&best, row->s[i], row->first + i, bits[i - first]);
    }
    return best.id;
}

int32_t noise_choose(const candidate *c, int n, noise_key key)
{
    uint32_t limits[LIMITS];
    if (n > LIMITS)
        make_limits(limits);
    best_token best = {(double)c[0].s + noise_of(key, c[0].id), c[0].id};
    for (int i = 1; i < n; i++) {
        uint32_t bits = random_bits(key, (uint32_t)c[i].id);
        double distance = best.score - (double)c[i].s;
        if (n <= LIMITS || distance < 0 ||
            (distance <= NOISE_MAX && ~bits <= limits[(int)distance]))
            consider(&best, c[i].s, c[i].id, bits);
    }
    return best.id;
}
