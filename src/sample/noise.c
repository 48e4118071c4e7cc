/*
 * The noise of contract (d) and the search for the winner.
 *
 * (seed, choice, position) are hashed once to a key of 64 bits; a token's 32 random bits are a short mix of its id and the key, the
 * same 32-bit operations in every lane of a vector. u = (bits + ½)/2^32, noise = −log(−log u) with the kernel's own double log.
 *
 * Over a whole vocabulary the logarithms would cost far more than the rest, so bounds come first: −log(−log u) ≤ −log(1 − u), hence a
 * token can beat the best score so far only if its 1 − u is under e^−(best − s). That is one integer comparison a token: first, in
 * vectors, with the s of its block's greatest, then, for the few that pass, with its own. Blocks whose maximum is too far below are not even
 * hashed. The result is exactly that of scoring every token.
 */
#include "kernel/scalar.h"
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

/* Whether a token can beat the best; also true for some that cannot. */
static inline bool may_win(const best_token *best, float s, uint32_t bits,
                           const uint32_t limits[LIMITS])
{
    double distance = best->score - (double)s;
    return distance < 0 || (distance <= NOISE_MAX && ~bits <= limits[(int)distance]);
}

static void consider_block(best_token *best, const scored_row *row, int first,
                           const uint64_t mask[BLOCK / 64], token_place end, noise_key key,
                           const uint32_t limits[LIMITS])
{
    for (int w = 0; w < BLOCK / 64; w++)
        for (uint64_t left = mask[w]; left; left &= left - 1) {
            int i = first + 64 * w + __builtin_ctzll(left);
            int32_t id = row->first + i;
            if (i >= row->n || !is_before(row->s[i], id, end))
                continue;
            uint32_t bits = random_bits(key, (uint32_t)id);
            if (may_win(best, row->s[i], bits, limits))
                consider(best, row->s[i], id, bits);
        }
}

int32_t noise_choose_row(const scored_row *row, token_place end, noise_key key,
                         const kernel_table *k)
{
    uint32_t limits[LIMITS];
    uint64_t mask[BLOCK / 64];
    const block_table *block = block_table_for(k);
    make_limits(limits);
    int32_t greatest = select_first_best(row, row->s);
    best_token best = {(double)row->max + noise_of(key, greatest), greatest};
    for (int b = 0; b < row->n_blocks; b++) {
        float most = row->block_max[b];
        double distance = best.score - (double)most;
        if (distance > NOISE_MAX || most <= EXCLUDED_MAX || most < end.s)
            continue;
        uint32_t limit = distance < 0 ? UINT32_MAX : limits[(int)distance];
        if (block->noise(mask, key, (uint32_t)(row->first + b * BLOCK), ~limit))
            consider_block(&best, row, b * BLOCK, mask, end, key, limits);
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
        if (n <= LIMITS || may_win(&best, c[i].s, bits, limits))
            consider(&best, c[i].s, c[i].id, bits);
    }
    return best.id;
}
