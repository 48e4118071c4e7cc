/*
 * Measuring the connections of a group that is up: N − 1 rounds in which every rank has one partner (the circle method), so no rank is
 * measured twice at a time. In a round the lower rank sends small and middle messages to and fro, then a stream; it keeps the clock and
 * tells the other what came out. A gather at the end gives everybody everything, so all ranks choose alike afterwards.
 *
 * What is kept of repeated measurements is their lower quartile: a rank that was preempted says nothing about the link.
 * Not here: links between nodes that have no group yet (src/cluster probes those).
 */
#include "link/group.h"

#include <stdlib.h>
#include <string.h>

enum {
    SMALL_BYTES = 64,
    MIDDLE_BYTES = 16384,
    STREAM_BYTES = 1 << 20,
    SAMPLES = 12,
    TURNS = 8,        /* to and fro in one sample: the clock counts microseconds */
    STREAM_US = 20000 /* a stream goes on for at least this long, in pieces of STREAM_BYTES / 4 */
};

/* Whom `rank` meets in `round` of n_ranks − 1 (or n_ranks, for an odd number): −1 nobody. */
static int partner_of(int rank, int round, int n_ranks)
{
    int n = n_ranks + n_ranks % 2, last = n - 1;
    int other = rank == last    ? round
                : rank == round ? last
                                : ((2 * round - rank) % last + last) % last;
    /* places on the circle add up to 2 · round; the last rank sits in the middle and meets the one that would meet itself */
    return other < n_ranks ? other : -1;
}

static int by_size(const void *a, const void *b)
{
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

/* One way, from to-and-fro. */
static status measure_turns(double *out_us, link_group *g, int peer, unsigned char *bytes, size_t n,
                            err *e)
{
    bool leads = g->config.rank < peer;
    double us[SAMPLES];
    for (int i = 0; i < SAMPLES; i++) {
        uint64_t start = os_now_us();
        for (int turn = 0; turn < 2 * TURNS; turn++) {
            bool sends = leads == (turn % 2 == 0);
            status s =
                sends ? link_send(g, peer, 0, bytes, n, e) : link_recv(g, peer, 0, bytes, n, e);
            if (s != STATUS_OK)
                return s;
        }
        us[i] = (double)(os_now_us() - start) / (2 * TURNS);
    }
    qsort(us, SAMPLES, sizeof us[0], by_size);
    *out_us = us[SAMPLES / 4];
    return STATUS_OK;
}

/* Pieces, and behind each a word whether another follows; a word back ends it. */
static status measure_stream(double *bytes_per_s, link_group *g, int peer, unsigned char *bytes,
                             err *e)
{
    bool leads = g->config.rank < peer;
    unsigned char more = 1;
    uint64_t start = os_now_us(), sent = 0;
    status s = STATUS_OK;
    while (s == STATUS_OK && more) {
        more = os_now_us() - start < STREAM_US;
        s = leads ? link_send(g, peer, 0, bytes, STREAM_BYTES / 4, e)
                  : link_recv(g, peer, 0, bytes, STREAM_BYTES / 4, e);
        sent += STREAM_BYTES / 4;
        if (s == STATUS_OK)
            s = leads ? link_send(g, peer, 0, &more, 1, e) : link_recv(g, peer, 0, &more, 1, e);
    }
    if (s == STATUS_OK)
        s = leads ? link_recv(g, peer, 0, &more, 1, e) : link_send(g, peer, 0, &more, 1, e);
    *bytes_per_s = (double)sent * 1e6 / (double)BASE_MAX(os_now_us() - start, UINT64_C(1));
    return s;
}

static status measure_pair(link_rates *out, link_group *g, int peer, unsigned char *bytes, err *e)
{
    link_rates r;
    bool leads = g->config.rank < peer;
    status s = measure_turns(&r.small_us, g, peer, bytes, SMALL_BYTES, e);
    if (s == STATUS_OK)
        s = measure_turns(&r.middle_us, g, peer, bytes, MIDDLE_BYTES, e);
    if (s == STATUS_OK)
        s = measure_stream(&r.bytes_per_s, g, peer, bytes, e);
    if (s == STATUS_OK)
        s = leads ? link_send(g, peer, 0, &r, sizeof r, e) : link_recv(g, peer, 0, &r, sizeof r, e);
    if (s == STATUS_OK)
        *out = r;
    return s;
}

link_cost link_cost_of(const link_rates *rates)
{
    double slope = (rates->middle_us - rates->small_us) / (MIDDLE_BYTES - SMALL_BYTES);
    double stream = rates->bytes_per_s > 0 ? 1e6 / rates->bytes_per_s : 0;
    /* messages that fit into buffers hide what a full connection costs, and a busy rank hides the slope */
    return (link_cost){.latency_us = rates->small_us, .us_per_byte = BASE_MAX(slope, stream)};
}

static status gather_rates(link_rates *all, link_group *g, err *e)
{
    size_t bytes[LINK_MAX_RANKS];
    for (int r = 0; r < g->config.n_ranks; r++)
        bytes[r] = (size_t)g->config.n_ranks * sizeof *all;
    return link_gather(g, all, bytes, e);
}

status link_measure(link_group *g, link_rates *all, err *e)
{
    int n = g->config.n_ranks, rank = g->config.rank;
    unsigned char *bytes = base_zalloc(1, STREAM_BYTES / 4);
    link_rates *rates = base_zalloc((size_t)n * (size_t)n, sizeof *rates);
    status s = bytes && rates ? STATUS_OK : err_set(e, STATUS_NO_MEMORY, "measuring %d ranks", n);
    for (int round = 0; round < n - 1 + n % 2 && s == STATUS_OK; round++) {
        int peer = partner_of(rank, round, n);
        if (peer >= 0)
            s = measure_pair(&rates[rank * n + peer], g, peer, bytes, e);
    }
    if (s == STATUS_OK)
        s = gather_rates(rates, g, e);
    if (s == STATUS_OK) {
        link_cost worst = {0, 0};
        for (int a = 0; a < n; a++)
            for (int b = 0; b < n; b++) {
                link_cost c = link_cost_of(&rates[a * n + b]);
                worst.latency_us = BASE_MAX(worst.latency_us, a == b ? 0 : c.latency_us);
                worst.us_per_byte = BASE_MAX(worst.us_per_byte, a == b ? 0 : c.us_per_byte);
            }
        g->config.cost = worst;
        if (all)
            memcpy(all, rates, (size_t)n * (size_t)n * sizeof *rates);
    }
    base_free(bytes);
    base_free(rates);
    return s;
}

link_cost link_group_cost(const link_group *g)
{
    return g->config.cost;
}
