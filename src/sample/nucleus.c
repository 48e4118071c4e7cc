/*
 * top-p over a whole row: the shortest prefix of the tokens (falling s, rising id) whose mass reaches p, and the winner of the noise in it.
 *
 * Where few blocks reach near the maximum, the prefix is looked for there and listed; the search widens. A long prefix is not listed: the winner
 * among all tokens is the winner of the prefix when it is in it, and if it isn't, nothing from it on is, so that the winner among those before
 * it is next. With mass p that takes 1 + ln(1/p) turns on average, 1.05 for p = 0.95. Whether a token is in the prefix is said by the mass before
 * it, for which sums with a known error do, but for a token right at the border.
 * Not here: slices of a row, which list (cut.c).
 */
#include "kernel/scalar.h"
#include "sample/inside.h"

enum { FEW_BLOCKS = 32 }; /* are looked through and listed */

static inline uint64_t weight_of(float s, float max)
{
    return (uint64_t)((double)kernel_expf(s - max) * WEIGHT_ONE);
}

/* Tokens behind `end` with the same s. */
static int count_equals(const scored_row *row, token_place end)
{
    int n = 0;
    for (int32_t i = end.id + 1; i < row->n; i++)
        n += row->s[i] == end.s;
    return n;
}

static uint64_t exact_mass(const scored_row *row, token_place end)
{
    uint64_t mass = 0;
    for (int b = 0; b < row->n_blocks; b++) {
        if (row->block_max[b] < end.s)
            continue;
        int last = BASE_MIN((b + 1) * BLOCK, row->n);
        for (int32_t i = b * BLOCK; i < last; i++)
            if (is_before(row->s[i], i, end))
                mass += weight_of(row->s[i], row->max);
    }
    return mass;
}

/* How far exp_sum is from the sum at most, as a weight: of every 16 it rounds the sum to a multiple of 2^-24. */
static double rounding_of(const scored_row *row)
{
    return (row->n / 16 + 1) * (WEIGHT_ONE * 0x1p-25);
}

/* Σ exp(s − max) over the tokens with s ≥ threshold, by the short exp. */
static double near_above(const scored_row *row, float threshold, const kernel_table *t)
{
    double all = 0;
    for (int b = 0; b < row->n_blocks;) {
        int run = b;
        while (run < row->n_blocks && row->block_max[run] >= threshold)
            run++;
        if (run > b) {
            double above;
            int first = b * BLOCK, end = BASE_MIN(run * BLOCK, row->n);
            t->exp_near(row->s + first, end - first, row->max, threshold, &above);
            all += above;
        }
        b = run + 1;
    }
    return all;
}

/* Whether the tokens before `end`, a token of the row, weigh `share` of all or more. *target: that weight; < 0: not known yet, and found when it is
 * needed. */
static bool reaches(const scored_row *row, token_place end, float share, double *target,
                    const kernel_table *t)
{
    const double near = 0x1p-12; /* twice the error of exp_near */
    double above, least_target = *target, most_target = *target;
    if (*target < 0) {
        double all = t->exp_near(row->s, row->n, row->max, end.s, &above) * WEIGHT_ONE;
        least_target = (double)share * (all * (1 - near) - rounding_of(row));
        most_target = (double)share * (all * (1 + near) + rounding_of(row));
    } else {
        above = near_above(row, end.s, t);
    }
    /* Weights are rounded down, each by less than 1. Of equal ones only those before `end` count. */
    double own = (double)weight_of(end.s, row->max);
    if (above * WEIGHT_ONE * (1 + near) + row->n - own < least_target)
        return false;
    if (above * WEIGHT_ONE * (1 - near) - row->n - own * (1 + count_equals(row, end)) >=
        most_target)
        return true;
    if (*target < 0)
        *target = (double)share * t->exp_sum(row->s, row->n, row->max) * WEIGHT_ONE;
    return (double)exact_mass(row, end) >= *target;
}

int32_t nucleus_choose(const scored_row *row, candidate *room, float p, float floor, noise_key key,
                       const kernel_table *k)
{
    double target = -1; /* not known yet */
    /* No more than the target: the greatest of the blocks weigh less than all. */
    double least = k->exp_sum(row->block_max, row->n_blocks, row->max) * WEIGHT_ONE;
    least = (double)p * (least * (1 - 0x1p-20) - 2 * rounding_of(row));
    float reach = 4, from = BASE_MAX(row->max - reach, floor);
    while (select_blocks(row, from) <= FEW_BLOCKS) {
        int n = select_at_least(room, row, row->s, from, k);
        select_weigh(room, n, row->max);
        uint64_t mass = 0;
        for (int i = 0; i < n; i++)
            mass += room[i].weight;
        if ((double)mass >= least && target < 0)
            target = (double)p * k->exp_sum(row->s, row->n, row->max) * WEIGHT_ONE;
        if (target >= 0 && (double)mass >= target)
            n = select_mass(room, n, row->max, target);
        if (from <= floor || (target >= 0 && (double)mass >= target))
            return noise_choose(room, n, key);
        reach *= 1.5f;
        from = reach > 60 ? floor : BASE_MAX(row->max - reach, floor); /* exp is 0 below −60 */
    }
    for (token_place end = {floor, INT32_MAX};;) {
        int32_t token = noise_choose_row(row, end, key, k);
        end = (token_place){row->s[token], token};
        if (!reaches(row, end, p, &target, k))
            return token;
    }
}
