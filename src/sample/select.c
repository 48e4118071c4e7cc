/*
 * Finding the few large values of a long row without sorting it.
 *
 * One pass takes the maximum of every block of 128; after it, whoever looks for values above a threshold visits only blocks that have
 * one. The k-th largest block maximum is a lower bound of the k-th largest value, which makes the threshold for top-k. What passes
 * is cut by quickselect, by count or by weight. The order is total (falling value, rising id), so results do not depend on the pivots.
 */
#include "kernel/scalar.h"
#include "sample/inside.h"

#include <stdlib.h>

enum { BUCKETS = 512 };

/* ---- blocks ---------------------------------------------------------------------------------------------------- */

int32_t select_first_best(const scored_row *row, const float *s)
{
    int b = 0;
    while (row->block_max[b] != row->max)
        b++;
    int32_t i = b * BLOCK;
    while (s[i] != row->max)
        i++;
    return row->first + i;
}

/* Bits of the tokens of block b with s ≥ threshold. False: it has none. */
static bool mask_of_block(uint64_t mask[BLOCK / 64], const scored_row *row, const float *s, int b,
                          float threshold, const block_table *block)
{
    int first = b * BLOCK;
    if (row->block_max[b] < threshold)
        return false;
    if (first + BLOCK <= row->n) {
        block->select(mask, s + first, threshold);
        return true;
    }
    for (int w = 0; w < BLOCK / 64; w++)
        mask[w] = 0;
    for (int i = first; i < row->n; i++)
        mask[(i - first) / 64] |= (uint64_t)(s[i] >= threshold) << (i - first) % 64;
    return true;
}

/* The least value that is not excluded. */
static float not_excluded(float threshold)
{
    const float least = -0x1.431e0ep+96f; /* the one above EXCLUDED_MAX */
    return threshold > least ? threshold : least;
}

int select_at_least(candidate *out, const scored_row *row, const float *s, float threshold,
                    const kernel_table *t)
{
    int n = 0;
    uint64_t mask[BLOCK / 64];
    const block_table *block = block_table_for(t);
    threshold = not_excluded(threshold);
    for (int b = 0; b < row->n_blocks; b++) {
        if (!mask_of_block(mask, row, s, b, threshold, block))
            continue;
        for (int w = 0; w < BLOCK / 64; w++)
            for (uint64_t left = mask[w]; left; left &= left - 1) {
                int i = b * BLOCK + w * 64 + __builtin_ctzll(left);
                out[n++] = (candidate){s[i], row->first + i, 0};
            }
    }
    return n;
}

int select_blocks(const scored_row *row, float threshold)
{
    int n = 0;
    for (int b = 0; b < row->n_blocks; b++)
        n += row->block_max[b] >= threshold;
    return n;
}

/* ---- quickselect ----------------------------------------------------------------------------------------------- */

static inline bool before(const candidate *a, const candidate *b)
{
    return a->s > b->s || (a->s == b->s && a->id < b->id);
}

static void swap(candidate *a, candidate *b)
{
    candidate t = *a;
    *a = *b;
    *b = t;
}

/* Partitions c[n], n ≥ 1, around the median of three; returns the pivot's place. */
static int partition(candidate *c, int n)
{
    int middle = n / 2, last = n - 1;
    if (before(&c[middle], &c[0]))
        swap(&c[middle], &c[0]);
    if (before(&c[last], &c[0]))
        swap(&c[last], &c[0]);
    if (before(&c[last], &c[middle]))
        swap(&c[last], &c[middle]);
    swap(&c[middle], &c[last]); /* the pivot waits at the end */
    int at = 0;
    for (int i = 0; i < last; i++)
        if (before(&c[i], &c[last]))
            swap(&c[i], &c[at++]);
    swap(&c[at], &c[last]);
    return at;
}

/* The k-th goes to place k − 1. */
void select_first(candidate *c, int n, int k)
{
    while (n > 1) {
        int at = partition(c, n);
        if (at == k - 1)
            return;
        if (at >= k) {
            n = at;
        } else {
            c += at + 1;
            n -= at + 1;
            k -= at + 1;
        }
    }
}

int select_top_k(candidate *out, candidate *blocks, const scored_row *row, const float *s, int k,
                 const kernel_table *t)
{
    float threshold = EXCLUDED;
    if (k <= row->n_blocks) {
        for (int b = 0; b < row->n_blocks; b++)
            blocks[b] = (candidate){row->block_max[b], b, 0};
        select_first(blocks, row->n_blocks, k);
        threshold = blocks[k - 1].s;
    }
    int n = select_at_least(out, row, s, threshold, t);
    if (n <= k)
        return n;
    select_first(out, n, k);
    return k;
}

static int compare(const void *a, const void *b)
{
    return before(a, b) ? -1 : before(b, a);
}

void select_sort(candidate *c, int n)
{
    if (n > 1)
        qsort(c, (size_t)n, sizeof *c, compare);
}

/* ---- mass ------------------------------------------------------------------------------------------------------ */

void select_weigh(candidate *c, int n, float max)
{
    for (int i = 0; i < n; i++)
        c[i].weight = (uint64_t)((double)kernel_expf(c[i].s - max) * WEIGHT_ONE);
}

/* The prefix with mass `target` of c[n], by quickselect; the places before it are settled. */
static int select_mass_in(candidate *c, int n, double target)
{
    int kept = 0;
    uint64_t mass =
        0; /* of c[0..kept), which belong to the prefix; n counts what is open behind them */
    while (n > 0) {
        int at = partition(c + kept, n);
        uint64_t left = 0;
        for (int i = 0; i < at; i++)
            left += c[kept + i].weight;
        if ((double)(mass + left) >= target && at > 0) { /* reached before the pivot */
            n = at;
            continue;
        }
        mass += left + c[kept + at].weight;
        kept += at + 1;
        n -= at + 1;
        if ((double)mass >= target)
            return kept;
    }
    return kept;
}

/* Buckets of equal width below the maximum; the last takes the rest. Rising with falling s, whatever the rounding. */
static inline int bucket_of(const candidate *c, float max)
{
    float place = (max - c->s) * (BUCKETS / 32.0f);
    return place < BUCKETS - 1 ? (int)place : BUCKETS - 1;
}

int select_mass(candidate *c, int n, float max, double target)
{
    if (n < 2 * BUCKETS)
        return select_mass_in(c, n, target);
    uint64_t masses[BUCKETS] = {0}, before_it = 0;
    for (int i = 0; i < n; i++)
        masses[bucket_of(&c[i], max)] += c[i].weight;
    int border = 0;
    while (border < BUCKETS - 1 && (double)(before_it + masses[border]) < target)
        before_it += masses[border++];
    int whole = 0,
        open = 0; /* better buckets to the front, then the border's, which quickselect cuts */
    for (int i = 0; i < n; i++)
        if (bucket_of(&c[i], max) < border)
            swap(&c[i], &c[whole++]);
    for (int i = whole; i < n; i++)
        if (bucket_of(&c[i], max) == border)
            swap(&c[i], &c[whole + open++]);
    return whole + select_mass_in(c + whole, open, target - (double)before_it);
}
