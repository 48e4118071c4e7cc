/*
 * Groups of nodes, and a bound of a structure's score for little. Every structure that the search of many nodes thinks of goes through here,
 * and most end here: no tables of layers, no shares, no borders, only sums over the nodes of its groups.
 *
 * A layer on a group takes at least what its bytes and multiply-adds take at the speed of all its nodes together, its ops, and its sums; a
 * group holds no more layers than go into its nodes' memory together. Layers are given to the quickest groups first, at least one to each:
 * no borders and no shares do better. That is all; the exact time is search.c's and share.c's.
 */
#include "plan/search.h"

#include <math.h>
#include <string.h>

void *search_take(searcher *x, size_t count, size_t size)
{
    void *p = arena_zalloc(x->memory, count ? count : 1, size);
    x->failed |= !p;
    return p;
}

/* ---- groups --------------------------------------------------------------------------------------------------------- */

static search_group *group_new(searcher *x, const uint64_t bits[SEARCH_WORDS], uint64_t key)
{
    search_group *g = search_take(x, 1, sizeof *g);
    if (!g)
        return NULL;
    memcpy(g->bits, bits, sizeof g->bits);
    g->key = key;
    for (int i = 0; i < x->n; i++)
        g->n += bits[i / 64] >> (i % 64) & 1;
    g->nodes = search_take(x, (size_t)g->n, sizeof(int));
    if (!g->nodes)
        return NULL;
    int at = 0;
    for (int i = 0; i < x->n; i++)
        if (bits[i / 64] >> (i % 64) & 1) {
            g->nodes[at++] = i;
            g->room += fmax(0, plan_node_room(x->s, i));
            g->speed += x->s->c->nodes[i].bandwidth;
        }
    g->worst = plan_worst_link(x->s->c, g->nodes, g->n);
    x->work += 250 + 3.0 * g->n * g->n;
    g->linked = g->n == 1 || g->worst.bandwidth > 0;
    return g;
}

search_group *search_group_of_bits(searcher *x, const uint64_t bits[SEARCH_WORDS])
{
    uint64_t key = 0;
    for (int i = 0; i < SEARCH_WORDS; i++)
        if (bits[i])
            key += hash_u64(bits[i], (uint64_t)i);
    search_group **bucket = &x->buckets[key % SEARCH_BUCKETS];
    for (search_group *g = *bucket; g; g = g->next)
        if (g->key == key && !memcmp(g->bits, bits, sizeof g->bits))
            return g;
    search_group *g = group_new(x, bits, key);
    if (g) {
        g->next = *bucket;
        *bucket = g;
    }
    return g;
}

search_group *search_group_of(searcher *x, const int *nodes, int n)
{
    uint64_t bits[SEARCH_WORDS] = {0};
    for (int i = 0; i < n; i++)
        bits[nodes[i] / 64] |= 1ull << (nodes[i] % 64);
    return search_group_of_bits(x, bits);
}

/* ---- bounds --------------------------------------------------------------------------------------------------------- */

/* Bytes and multiply-adds of all units of a kind once, at these speeds. */
static double kind_us(const plan_terms *t, double bandwidth, double rate)
{
    double kv = t->group ? t->total / t->group : 0;
    double bytes = t->bytes_once + t->total * t->bytes_unit + kv * t->bytes_kv;
    double macs = t->macs_once + t->total * t->macs_unit + kv * t->macs_kv;
    return t->total ? plan_more(bytes / bandwidth, macs / rate) : 0;
}

/* Units that a store holds when `once` comes first and `pack` with each group of them. */
static double units_within(double store, double once, double unit, double pack, double group)
{
    double left = store - once, whole = group * unit + pack;
    if (left < 0)
        return 0;
    if (whole <= 0)
        return 1e9;
    double packs = floor(left / whole), more = left - packs * whole - pack;
    return packs * group + (more > 0 && unit > 0 ? floor(more / unit) : 0);
}

/* As kind_us, of units that cannot be divided: a time within which the nodes do not take all of them. */
static double whole_units_us(const plan_terms *t, int total, double bytes, double macs,
                             const double *bandwidth, const double *rate, int n, double low)
{
    double group = t->group > 1 ? t->group : 1, high = INFINITY, kvs = t->group ? total / group : 0;
    for (int i = 0; i < n; i++)
        high = plan_less(
            high, plan_more((t->bytes_once + total * bytes + kvs * t->bytes_kv) / bandwidth[i],
                            (t->macs_once + total * macs + kvs * t->macs_kv) / rate[i]));
    for (int step = 0; step < 12 && high > low * 1.002; step++) {
        double us = (low + high) / 2, units = 0;
        for (int i = 0; i < n; i++)
            units +=
                plan_less(units_within(us * bandwidth[i], t->bytes_once, bytes, t->bytes_kv, group),
                          units_within(us * rate[i], t->macs_once, macs, t->macs_kv, group));
        if (units < total)
            low = us;
        else
            high = us;
    }
    return low;
}

/* What a stage with these ends needs before any layer behind a border, and what each such layer needs more: both are lines. */
static void set_memory(searcher *x)
{
    const plan_model *m = x->s->m;
    bool plain = m->n_dense_layers == x->L;
    plan_terms t[PLAN_KINDS];
    for (int ends = 0; ends <= 4; ends++) {
        search_memory *n = &x->needs[ends];
        plan_span p = {ends & 1 && !plain ? m->n_dense_layers : 0, 0, ends & 1, ends >> 1 & 1};
        if (ends == 4)
            p = (plan_span){plain, !plain, false, false};
        plan_stage_terms(t, x->s, p, x->load, false, 2);
        for (int k = 0; k < PLAN_KINDS; k++)
            n->unit[k] = t[k].memory_unit;
        n->once = t[PLAN_ATTENTION].memory_once;
        n->kv = t[PLAN_ATTENTION].memory_kv;
        n->fixed = plan_rank_fixed_bytes(x->s, p);
        n->bytes = plan_span_bytes(x->s, p) - p.n_expert * x->s->router * x->s->weight;
        if (ends == 4)
            n->fixed -= plan_rank_fixed_bytes(x->s, (plan_span){0, 0, false, false});
    }
}

/* Whether so many layers behind a border may go into the memory of a group: all together, and each kind alone. */
static bool may_hold(const searcher *x, const search_group *g, int layers, int ends)
{
    const plan_model *m = x->s->m;
    const search_memory *base = &x->needs[ends], *more = &x->needs[4];
    double once = base->once + layers * more->once, kv = base->kv + layers * more->kv;
    double fixed = base->fixed + layers * more->fixed,
           group = m->kv_rank ? 1 : m->n_heads / m->n_kv_heads;
    double unit[PLAN_KINDS], all = 0, units[PLAN_KINDS] = {0}, experts = 0, expert;
    for (int k = 0; k < PLAN_KINDS; k++)
        unit[k] = base->unit[k] + layers * more->unit[k];
    expert = m->n_experts ? unit[PLAN_EXPERTS] * x->s->n_units[PLAN_EXPERTS] / m->n_experts : 0;
    for (int i = 0; i < g->n; i++) {
        double room = plan_node_room(x->s, g->nodes[i]) * (1 + 1e-12) - fixed;
        if (room < 0)
            return false;
        all += room;
        if (g->n < 2)
            continue;
        units[0] += unit[0] > 0 ? units_within(room, once, unit[0], kv, group) : 1e9;
        for (int k = 1; k < PLAN_KINDS; k++)
            units[k] += unit[k] > 0 ? floor(room / unit[k]) : 1e9;
        experts += expert > 0 ? floor(room / expert) : 1e9;
    }
    for (int k = 0; k < PLAN_KINDS && g->n > 1; k++)
        if (units[k] < x->s->n_units[k] && (k != PLAN_EXPERTS || experts < m->n_experts))
            return false;
    return base->bytes + layers * more->bytes <= all * (1 + 1e-12);
}

int search_holds(searcher *x, search_group *g, int ends)
{
    if (g->holds_known >> ends & 1)
        return g->holds[ends];
    const search_memory *base = &x->needs[ends], *more = &x->needs[4];
    int dense = x->s->m->n_dense_layers, most = dense < x->L ? x->L - dense : x->L;
    if (!more->bytes)
        set_memory(x);
    double over =
        (g->room - g->n * base->fixed - base->bytes) / (more->bytes + g->n * more->fixed) + 1e-6;
    int holds = over < 0 ? -1 : over > most ? most : (int)over, fails = holds + 1;
    while (holds >= 0) { /* most often at once */
        x->work += 10 + 8.0 * g->n;
        if (may_hold(x, g, holds, ends))
            break;
        fails = holds;
        holds = holds > 4 ? holds / 2 : holds - 1;
    }
    while (holds + 1 < fails) {
        int middle = (holds + fails) / 2;
        x->work += 10 + 8.0 * g->n;
        if (may_hold(x, g, middle, ends))
            holds = middle;
        else
            fails = middle;
    }
    g->holds_known |= 1u << ends;
    return g->holds[ends] = holds;
}

/* sharp: heads and experts that cannot be divided count. */
static void set_quick(searcher *x, search_group *g, search_quick *q, bool sharp)
{
    const plan_shape *s = x->s;
    int dense = s->m->n_dense_layers;
    bool plain = dense == x->L;
    plan_terms t[PLAN_KINDS];
    plan_span all = {dense, x->L - dense, true, true};
    plan_fixed f = plan_fixed_of(s, x->load, g->worst, g->n);
    double bandwidth = 0, rate = 0, us[PLAN_KINDS], each_bandwidth[PLAN_NODES],
           each_rate[PLAN_NODES];
    for (int i = 0; i < g->n; i++) {
        bandwidth += each_bandwidth[i] = plan_node_bandwidth(s, &g->nodes[i], 1, 0);
        rate += each_rate[i] = plan_node_rate(s, g->nodes[i]);
    }
    plan_stage_terms(t, s, all, x->load, false, g->n);
    for (int k = 0; k < PLAN_KINDS; k++)
        us[k] = kind_us(&t[k], bandwidth, rate);
    sharp = sharp && g->n > 1 && g->n <= 16;
    if (sharp)
        us[PLAN_ATTENTION] = whole_units_us(&t[0], t[0].total, t[0].bytes_unit, t[0].macs_unit,
                                            each_bandwidth, each_rate, g->n, us[0]);
    if (sharp && !plain) {
        const plan_terms *e = &t[PLAN_EXPERTS];
        double ratio = (double)e->total / s->m->n_experts, low = us[PLAN_EXPERTS];
        double sliced = whole_units_us(e, e->total, e->bytes_unit, e->macs_unit, each_bandwidth,
                                       each_rate, g->n, low);
        double whole = whole_units_us(e, s->m->n_experts, e->bytes_unit * ratio,
                                      e->macs_unit * ratio, each_bandwidth, each_rate, g->n, low);
        us[PLAN_EXPERTS] = plan_less(sliced, whole);
    }
    double expert = us[PLAN_EXPERTS] + t[PLAN_EXPERTS].more_us / g->n + f.expert_ops_us;
    double feed = us[PLAN_FEED] + f.dense_ops_us, attention = us[PLAN_ATTENTION] + f.layer_sums_us;
    q->layer_us = attention + (plain ? feed : expert);
    q->first_us = f.first_sums_us + (plain ? 0 : dense * (attention + feed));
    q->last_us = us[PLAN_VOCABULARY] + f.last_ops_us + f.last_sum_us;
    q->all_us = f.round_us;
    q->holds = BASE_MAX(0, search_holds(x, g, 0));
    x->work += 300 + (sharp ? (plain ? 250.0 : 750.0) : 20) * g->n;
}

static search_quick *quick_of(searcher *x, search_group *g, bool sharp)
{
    search_quick *q = g->quick;
    while (q && q->sequences != x->load.sequences)
        q = q->next;
    if (q && (q->sharp || !sharp))
        return q;
    if (!q) {
        if (!(q = search_take(x, 1, sizeof *q)))
            return NULL;
        q->sequences = x->load.sequences;
        q->next = g->quick;
        g->quick = q;
    }
    set_quick(x, g, q, sharp);
    q->sharp = sharp;
    return q;
}

search_quick *search_quick_of(searcher *x, search_group *g)
{
    return quick_of(x, g, true);
}

search_quick *search_rough_of(searcher *x, search_group *g)
{
    return quick_of(x, g, false);
}

void search_flows_of(searcher *x, const search_group *g, search_flows *out)
{
    const plan_shape *s = x->s;
    bool plain = s->m->n_dense_layers == x->L;
    plan_span one = {plain, !plain, false, false}, none = {0, 0, false, false};
    plan_terms t[PLAN_KINDS];
    plan_fixed f = plan_fixed_of(s, x->load, g->worst, g->n);
    plan_stage_terms(t, s, one, x->load, false, g->n);
    out->bytes = 0;
    out->other_us = f.layer_sums_us + (plain ? f.dense_ops_us : f.expert_ops_us);
    double most[PLAN_KINDS] = {0};
    for (int k = 0; k < PLAN_KINDS; k++) {
        double kv = t[k].group ? 1.0 / t[k].group : 0;
        most[k] = t[k].total * (t[k].memory_unit + kv * t[k].memory_kv);
        out->bytes += most[k];
    }
    for (int i = 0; i < g->n; i++) {
        out->room[i] =
            plan_more(0, plan_node_room(s, g->nodes[i]) - plan_rank_fixed_bytes(s, none));
        out->pace[i] = 0;
        for (int k = 0; k < PLAN_KINDS; k++) {
            double kv = t[k].group ? 1.0 / t[k].group : 0;
            double read = t[k].total * (t[k].bytes_unit + kv * t[k].bytes_kv);
            double macs = t[k].total * (t[k].macs_unit + kv * t[k].macs_kv);
            double us = plan_more(read / plan_node_bandwidth(s, &g->nodes[i], 1, 0),
                                  macs / plan_node_rate(s, g->nodes[i]));
            if (most[k] > 0)
                out->pace[i] = plan_more(out->pace[i], most[k] / (us + 1e-30));
        }
    }
    x->work += 100 + 40.0 * g->n;
}

double search_flow(const search_flows *f, int n, double bytes, double us)
{
    for (int turn = 0; turn <= n; turn++) {
        double flow = 0, left = bytes;
        for (int i = 0; i < n; i++)
            if (f->room[i] < us * f->pace[i])
                left -= f->room[i];
            else
                flow += f->pace[i];
        if (left <= 0)
            break;
        if (flow <= 0)
            return INFINITY;
        double next = left / flow * (1 - 1e-9);
        if (next <= us)
            break;
        us = next;
    }
    return us;
}

/* The least time of so many layers over groups of which each takes at least what it must have, in `must`. */
static double fill(searcher *x, search_quick *const *q, int n, int left, bool first_may_be_empty)
{
    double sum = 0;
    for (int d = first_may_be_empty; d < n; d++) {
        if (q[d]->holds < 1)
            return INFINITY;
        sum += q[d]->layer_us;
        left--;
    }
    if (left < 0)
        return INFINITY;
    for (double done = -1; left > 0;) { /* the quickest after those that are full */
        double next = INFINITY;
        int room = 0;
        for (int d = 0; d < n; d++)
            if (q[d]->layer_us > done && q[d]->layer_us <= next) {
                int more = q[d]->holds - (d >= first_may_be_empty);
                room = (q[d]->layer_us < next ? 0 : room) + more;
                next = q[d]->layer_us;
            }
        if (isinf(next))
            return INFINITY;
        sum += BASE_MIN(room, left) * next;
        left -= room;
        done = next;
    }
    x->work += 5.0 * n;
    return sum;
}

double search_quick_score(searcher *x, search_group *const *groups, int n)
{
    search_quick *quick[PLAN_NODES];
    const plan_shape *s = x->s;
    int dense = s->m->n_dense_layers, layers = dense == x->L ? x->L : x->L - dense, nodes = 0;
    double hops = 0, flow = 0, longest = 0, passed = plan_hop_bytes(s, x->load), back = 0;
    for (int d = 0; d < n; d++) {
        search_group *g = groups[d];
        if (!g || !g->linked || !(quick[d] = search_quick_of(x, g)))
            return INFINITY;
        nodes += g->n;
    }
    double sum = fill(x, quick, n, layers, dense < x->L);
    if (isinf(sum))
        return INFINITY;
    for (int d = 0; d < n; d++) {
        const search_group *g = groups[d], *p = d ? groups[d - 1] : NULL;
        double hop = d ? plan_hop_us(s, p->nodes, p->n, g->nodes, g->n, passed) : 0;
        hops += hop;
        flow += 1 / quick[d]->layer_us;
        longest = plan_more(longest, hop + (d ? quick[d]->layer_us : 0));
        x->work += d ? 3.0 * p->n * g->n : 0;
    }
    if (n > 1)
        back = plan_hop_us(s, groups[n - 1]->nodes, groups[n - 1]->n, groups[0]->nodes,
                           groups[0]->n, plan_back_bytes(s, x->load));
    sum += hops + quick[0]->first_us + quick[n - 1]->last_us + (n == 1 ? quick[0]->all_us : 0);
    double slowest = plan_more(longest, plan_more(sum / n, layers / flow));
    return search_goal(x, nodes, back, sum, slowest) * (1 - 1e-9);
}
