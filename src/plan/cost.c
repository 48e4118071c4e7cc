/*
 * What a stage costs: the bytes and multiply-adds of every unit that can be cut, the time of a step over ranks with given units, the memory
 * each rank needs, and the shares that make the slowest rank fastest (water-filling: the smallest time T within which the ranks together
 * can take all units, each under its cap).
 *
 * Memory couples the kinds of units. Where it binds, two ways are tried: every kind capped at the fraction of the stage that a rank can
 * hold; and kinds one after the other, those that are read whole first, so that a fast small device keeps attention and a slow large one
 * the experts. Not here: which nodes and which layers make a stage (search.c).
 */
#include "plan/inside.h"

#include <math.h>
#include <string.h>

enum {
    COARSE = 64
}; /* with so few units of every kind each of them counts: shares are polished during the search */

#define WAVE                                                                                       \
    0.2 /* each further message of a direct sum costs this share of hop_us: they leave one after the other */

static double positions_kept(const plan_model *m, double positions)
{
    double windowed = m->window > 0 ? fmin(positions, m->window) : positions;
    double share = m->n_layers ? (double)m->n_window_layers / m->n_layers : 0;
    return positions * (1 - share) + windowed * share;
}

static void latent_shape(plan_shape *s, const plan_model *m)
{
    double D = m->d_model, query = m->head_dim + m->rope_dim;
    s->attention_fixed = D * (m->q_rank + m->kv_rank + m->rope_dim);
    s->head = (m->q_rank ? m->q_rank : D) * query + (double)m->kv_rank * (m->head_dim + m->v_dim) +
              (double)m->v_dim * D;
    s->state_fixed = (m->kv_rank + m->rope_dim) * m->state_bits / 8;
    s->head_macs = 2.0 * m->kv_rank + m->rope_dim;
}

static void plain_shape(plan_shape *s, const plan_model *m)
{
    double D = m->d_model;
    s->head = 2 * D * m->head_dim;
    s->kv_head = 2 * D * m->head_dim;
    s->state_kv_head = 2 * m->head_dim * m->state_bits / 8;
    s->head_macs = 2.0 * m->head_dim;
}

void plan_shape_of(plan_shape *out, const plan_model *m, const plan_cluster *c,
                   const plan_engine *g, const plan_request *r)
{
    plan_shape s = {.m = m, .c = c, .g = g, .r = r};
    double D = m->d_model;
    s.weight = m->bits / 8;
    s.expert_weight = m->expert_bits / 8;
    s.n_units[PLAN_ATTENTION] = m->n_heads;
    s.n_units[PLAN_FEED] = (m->d_ff + 31) / 32;
    s.n_units[PLAN_EXPERTS] = (m->d_expert + 31) / 32;
    s.n_units[PLAN_VOCABULARY] = (m->n_vocab + 15) / 16;
    if (m->kv_rank)
        latent_shape(&s, m);
    else
        plain_shape(&s, m);
    if (s.n_units[PLAN_FEED])
        s.feed = 3 * D * m->d_ff / s.n_units[PLAN_FEED];
    if (s.n_units[PLAN_EXPERTS]) {
        s.expert = 3 * D * m->d_expert / s.n_units[PLAN_EXPERTS];
        s.shared = s.expert * m->n_shared;
    }
    s.row16 = D * m->n_vocab / s.n_units[PLAN_VOCABULARY];
    s.router = D * m->n_experts;
    s.state_positions = positions_kept(m, (double)r->context);
    /* norm, q, k, v, two rotations, store, attention, o, add; latent: norm, q_a, norm, q_b, kv_a, norm, two rotations, store, absorb,
     * attention, back from latent, o, add, and one copy */
    int attention = m->kv_rank ? 15 : 10;
    /* norm, gate, up, product, down, add */
    s.ops_dense = attention + 6;
    /* norm, router, scores, top, weights, normalise, gate, up, product, down, weighted sum, add; shared: gate, up, product, down, add */
    s.ops_expert = attention + 12 + (m->n_shared ? 5 : 0);
    *out = s;
}

plan_span plan_span_of(const plan_model *m, int first, int last)
{
    int dense = BASE_MIN(last, m->n_dense_layers) - BASE_MIN(first, m->n_dense_layers);
    return (plan_span){dense, last - first - dense, first == 0, last == m->n_layers};
}

plan_load plan_load_decode(const plan_request *r, double sequences)
{
    return (plan_load){sequences, sequences, (double)r->prompt};
}

plan_load plan_load_prompt(const plan_request *r)
{
    return (plan_load){fmin((double)r->prompt, PLAN_CHUNK), 1, (double)r->prompt / 2};
}

/* ---- links ---------------------------------------------------------------------------------------------------------- */

double plan_sum_us(plan_sum *chosen, int n, double bytes, plan_link worst, const plan_engine *g)
{
    if (n < 2) {
        if (chosen)
            *chosen = PLAN_SUM_NONE;
        return 0;
    }
    double step = worst.latency_us + g->hop_us, wave = WAVE * g->hop_us * (n - 2);
    double wire = bytes / worst.bandwidth * 1e6, part = (n - 1.0) / n * wire;
    double times[] = {[PLAN_SUM_DIRECT] = step + wave + (n - 1) * wire,
                      [PLAN_SUM_TWO_SHOT] = 2 * (step + wave + part),
                      [PLAN_SUM_RING] = 2 * (n - 1) * step + 2 * part,
                      [PLAN_SUM_DOUBLING] = INFINITY};
    if (!(n & (n - 1)))
        times[PLAN_SUM_DOUBLING] = log2(n) * (step + wire);
    int best = PLAN_SUM_DIRECT;
    for (int i = best + 1; i <= PLAN_SUM_DOUBLING; i++)
        if (times[i] < times[best])
            best = i;
    if (chosen)
        *chosen = (plan_sum)best;
    return times[best];
}

plan_link plan_worst_link(const plan_cluster *c, const int *nodes, int n)
{
    plan_link worst = {0, INFINITY};
    for (int i = 0; i < n; i++)
        for (int k = i + 1; k < n; k++) {
            plan_link l = c->links[(size_t)nodes[i] * (size_t)c->n_nodes + (size_t)nodes[k]];
            worst.latency_us = fmax(worst.latency_us, l.latency_us);
            worst.bandwidth = fmin(worst.bandwidth, l.bandwidth);
        }
    return worst;
}

double plan_hop_us(const plan_shape *s, const int *from, int n_from, const int *to, int n_to,
                   double bytes)
{
    double slowest = 0;
    for (int k = 0; k < n_to; k++) {
        double quickest = INFINITY;
        for (int i = 0; i < n_from; i++) {
            if (from[i] == to[k]) {
                quickest = 0;
                break;
            }
            plan_link l = s->c->links[(size_t)from[i] * (size_t)s->c->n_nodes + (size_t)to[k]];
            if (l.bandwidth > 0)
                quickest = fmin(quickest, l.latency_us + s->g->hop_us + bytes / l.bandwidth * 1e6);
        }
        slowest = fmax(slowest, quickest);
    }
    return slowest;
}

/* ---- the time of a stage -------------------------------------------------------------------------------------------- */

/* Different experts of E that T tokens touch when each takes K of them at random. */
static double touched(const plan_model *m, double tokens)
{
    return m->n_experts * (1 - pow(1 - (double)m->n_active / m->n_experts, tokens));
}

/* Of `mean` things that fall on n ranks, how many more than its share the unluckiest rank gets (the mean of the greatest of n normals,
 * to a few per cent). */
static double bad_luck(double mean, double share, int n)
{
    return n < 2 ? 0 : 0.75 * sqrt(2 * log(n)) * sqrt(mean * share * (1 - share));
}

static double bandwidth_of(const plan_shape *s, const plan_shares *h, int i)
{
    const plan_node *node = &s->c->nodes[h->nodes[i]];
    double own = node->bandwidth;
    if (node->host >= 0 && node->host_bandwidth > 0) {
        int k = 0;
        for (int j = 0; j < h->n; j++)
            k += s->c->nodes[h->nodes[j]].host == node->host;
        own = fmin(own, node->host_bandwidth / k);
    }
    return own * s->g->efficiency / 1e6; /* bytes a µs */
}

static double rate_of(const plan_shape *s, const plan_shares *h, int i)
{
    return s->c->nodes[h->nodes[i]].rate * s->g->rate_efficiency / 1e6;
}

/* K/V heads that are read by `n` query heads from head `at` on. */
static double kv_heads(const plan_model *m, int at, int n)
{
    int group = m->n_heads / m->n_kv_heads;
    return n ? (at + n - 1) / group - at / group + 1 : 0;
}

typedef struct work {
    double bytes, macs;
} work;

static work attention_work(const plan_shape *s, plan_load l, int heads, double kv)
{
    work w = {0, 0};
    if (!heads)
        return w;
    double parameters = s->attention_fixed + heads * s->head + kv * s->kv_head;
    double state = s->state_fixed + kv * s->state_kv_head;
    double positions = positions_kept(s->m, l.positions);
    w.bytes = parameters * s->weight + l.sequences * positions * state;
    w.macs = l.tokens * (parameters + heads * positions * s->head_macs);
    return w;
}

static work expert_work(const plan_shape *s, plan_load l, const plan_shares *h, int i,
                        double *experts)
{
    work w = {s->router * s->weight, l.tokens * s->router};
    int n = s->n_units[PLAN_EXPERTS], mine = h->units[PLAN_EXPERTS * h->n + i];
    double all = touched(s->m, l.tokens), picks = l.tokens * s->m->n_active;
    *experts = 0;
    if (!mine)
        return w;
    if (h->whole) {
        double share = (double)mine / s->m->n_experts, luck = bad_luck(all, share, h->n);
        *experts = fmin(mine, all * share + luck);
        w.bytes += n * (*experts * s->expert * s->expert_weight + share * s->shared * s->weight);
        w.macs += n * ((picks * share + bad_luck(picks, share, h->n)) * s->expert +
                       l.tokens * share * s->shared);
        return w;
    }
    *experts = all;
    w.bytes += mine * (all * s->expert * s->expert_weight + s->shared * s->weight);
    w.macs += mine * (picks * s->expert + l.tokens * s->shared);
    return w;
}

static double time_of(work w, double bandwidth, double rate)
{
    return fmax(w.bytes / bandwidth, w.macs / rate);
}

plan_cost plan_stage_cost(const plan_shape *s, const plan_shares *h, plan_span p, plan_load l,
                          plan_link worst)
{
    double attention = 0, feed = 0, experts = 0, vocabulary = 0;
    int at = 0;
    for (int i = 0; i < h->n; i++) {
        double bandwidth = bandwidth_of(s, h, i), rate = rate_of(s, h, i), n_experts;
        int heads = h->units[PLAN_ATTENTION * h->n + i], columns = h->units[PLAN_FEED * h->n + i];
        work a = attention_work(s, l, heads, s->m->kv_rank ? 0 : kv_heads(s->m, at, heads));
        at += heads;
        attention = fmax(attention, time_of(a, bandwidth, rate));
        work f = {columns * s->feed * s->weight, l.tokens * columns * s->feed};
        feed = fmax(feed, time_of(f, bandwidth, rate));
        if (p.n_expert) {
            work x = expert_work(s, l, h, i, &n_experts);
            experts = fmax(experts, time_of(x, bandwidth, rate) + n_experts * s->g->expert_us);
        }
        double rows = h->units[PLAN_VOCABULARY * h->n + i];
        work v = {rows * s->row16 * s->weight, l.sequences * rows * s->row16};
        vocabulary = fmax(vocabulary, time_of(v, bandwidth, rate));
    }
    int layers = p.n_dense + p.n_expert;
    plan_cost cost;
    cost.compute_us = layers * attention + p.n_dense * feed + p.n_expert * experts +
                      s->g->op_us * (p.n_dense * s->ops_dense + p.n_expert * s->ops_expert) +
                      (p.last ? vocabulary + 2 * s->g->op_us : 0);
    double bytes = l.tokens * s->m->d_model * s->g->wire_bytes;
    cost.sum_us = 2 * layers * plan_sum_us(NULL, h->n, bytes, worst, s->g);
    if (p.last) /* the best token over the shards of the vocabulary */
        cost.sum_us += plan_sum_us(NULL, h->n, 16 * l.sequences, worst, s->g);
    return cost;
}

/* ---- memory --------------------------------------------------------------------------------------------------------- */

/* Stored parameters' bytes of one unit of a kind in all layers of the stage. */
static double unit_bytes(const plan_shape *s, plan_span p, plan_kind kind, bool whole)
{
    const plan_model *m = s->m;
    switch (kind) {
    case PLAN_ATTENTION:
        return (p.n_dense + p.n_expert) * s->head * s->weight;
    case PLAN_FEED:
        return p.n_dense * s->feed * s->weight;
    case PLAN_EXPERTS: {
        double column = m->n_experts * s->expert * s->expert_weight + s->shared * s->weight;
        return p.n_expert * (whole ? column * s->n_units[kind] / m->n_experts : column);
    }
    default:
        return (p.first + (p.last && !(p.first && m->tied))) * s->row16 * s->weight;
    }
}

static double kv_head_bytes(const plan_shape *s, plan_span p)
{
    return (p.n_dense + p.n_expert) *
           (s->kv_head * s->weight + s->r->concurrency * s->state_positions * s->state_kv_head);
}

static double scratch_bytes(const plan_shape *s, plan_span p)
{
    const plan_model *m = s->m;
    double wide = fmax(m->d_ff, (double)(m->n_active + m->n_shared) * m->d_expert);
    double step = 4.0 * PLAN_CHUNK * (6.0 * m->d_model + 2 * wide);
    return step + (p.last ? 4.0 * s->r->concurrency * m->n_vocab : 0);
}

plan_need plan_stage_need(const plan_shape *s, const plan_shares *h, plan_span p, int i)
{
    int at = 0, layers = p.n_dense + p.n_expert, heads = h->units[PLAN_ATTENTION * h->n + i];
    for (int k = 0; k < i; k++)
        at += h->units[PLAN_ATTENTION * h->n + k];
    plan_need need = {0, 0, scratch_bytes(s, p)};
    double kv = s->m->kv_rank ? 0 : kv_heads(s->m, at, heads);
    double sequences = s->r->concurrency * s->state_positions;
    if (heads) {
        need.weights = layers * (s->attention_fixed + kv * s->kv_head) * s->weight;
        need.state = layers * sequences * (s->state_fixed + kv * s->state_kv_head);
    }
    need.weights += p.n_expert * s->router * s->weight;
    for (int k = 0; k < PLAN_KINDS; k++)
        need.weights += h->units[k * h->n + i] * unit_bytes(s, p, (plan_kind)k, h->whole);
    return need;
}

static double room_of(const plan_shape *s, int node)
{
    return s->c->nodes[node].memory_bytes - s->c->nodes[node].reserve_bytes;
}

bool plan_stage_fits(const plan_shape *s, const plan_shares *h, plan_span p)
{
    for (int i = 0; i < h->n; i++) {
        plan_need need = plan_stage_need(s, h, p, i);
        if (need.weights + need.state + need.scratch > room_of(s, h->nodes[i]))
            return false;
    }
    return true;
}

/* ---- shares --------------------------------------------------------------------------------------------------------- */

/* Ranks that fill like vessels: rank i takes u units in base[i] + u·slope[i] µs, at most cap[i] of them. */
typedef struct vessels {
    int n, total;
    const double *base, *slope;
    const int *cap;
} vessels;

static int level(const vessels *v, int i, double t)
{
    double u = (t - v->base[i]) / v->slope[i] + 1e-9;
    return u <= 0 ? 0 : u >= v->cap[i] ? v->cap[i] : (int)u;
}

static int taken(const vessels *v, double t)
{
    int sum = 0;
    for (int i = 0; i < v->n && sum < v->total; i++)
        sum += level(v, i, t);
    return sum;
}

/* The smallest greatest time; false when the caps do not hold all units. */
static bool fill(int *units, const vessels *v)
{
    double high = 0, widest = 0, flow = 0;
    int64_t caps = 0;
    for (int i = 0; i < v->n; i++) {
        caps += v->cap[i];
        flow += 1 / v->slope[i];
        high = fmax(high, v->base[i] + v->slope[i] * v->cap[i]);
        widest = fmax(widest, v->base[i] + v->slope[i]);
    }
    if (caps < v->total)
        return false;
    double low = v->total / flow, near = low + widest; /* where no cap binds it is between these */
    if (near < high && taken(v, near) >= v->total)
        high = near;
    for (int step = 0; step < 48 && high - low > 2e-6 * high; step++) {
        double middle = (low + high) / 2;
        if (taken(v, middle) >= v->total)
            high = middle;
        else
            low = middle;
    }
    int sum = 0;
    for (int i = 0; i < v->n; i++)
        sum += units[i] = level(v, i, high);
    while (
        sum >
        v->total) { /* ranks that reach the level at the same time: one unit back from the latest */
        int latest = -1;
        double most = -1;
        for (int i = 0; i < v->n; i++) {
            double t = v->base[i] + v->slope[i] * units[i];
            if (units[i] && t >= most) {
                most = t;
                latest = i;
            }
        }
        units[latest]--;
        sum--;
    }
    return true;
}

typedef struct sharing {
    const plan_shape *s;
    plan_shares *h;
    plan_span p;
    plan_load l;
    double *room, *base, *slope; /* [n] */
    int *cap;                    /* [n] */
    bool by_group;               /* attention in whole K/V groups */
} sharing;

/* How many query heads make a unit of attention. */
static int heads_a_unit(const sharing *x)
{
    return x->by_group ? x->s->m->n_heads / x->s->m->n_kv_heads : 1;
}

static int n_units(const sharing *x, plan_kind kind)
{
    if (kind == PLAN_EXPERTS && x->h->whole)
        return x->s->m->n_experts;
    return kind == PLAN_ATTENTION ? x->s->n_units[kind] / heads_a_unit(x) : x->s->n_units[kind];
}

static bool has(const sharing *x, plan_kind kind)
{
    switch (kind) {
    case PLAN_FEED:
        return x->p.n_dense > 0;
    case PLAN_EXPERTS:
        return x->p.n_expert > 0;
    case PLAN_VOCABULARY:
        return x->p.first || x->p.last;
    default:
        return true;
    }
}

/* Base and slope of a kind on every rank. Attention by heads takes K/V heads as if they were divisible: each rank may hold one more. */
static void slopes(sharing *x, plan_kind kind)
{
    const plan_shape *s = x->s;
    for (int i = 0; i < x->h->n; i++) {
        double bandwidth = bandwidth_of(s, x->h, i), rate = rate_of(s, x->h, i);
        work base = {0, 0}, unit;
        double more = 0, pinned = s->r->shares ? s->r->shares[x->h->nodes[i]] : 0;
        if (kind == PLAN_ATTENTION) {
            double kv = (double)s->m->n_kv_heads / s->m->n_heads;
            base = attention_work(s, x->l, 1, kv);
            unit = attention_work(s, x->l, 2, 2 * kv);
            unit = (work){unit.bytes - base.bytes, unit.macs - base.macs};
            base = (work){base.bytes - unit.bytes, base.macs - unit.macs};
            unit = (work){unit.bytes * heads_a_unit(x), unit.macs * heads_a_unit(x)};
        } else if (kind == PLAN_EXPERTS) {
            double all = touched(s->m, x->l.tokens), picks = x->l.tokens * s->m->n_active;
            double f = x->h->whole ? (double)s->n_units[kind] / s->m->n_experts : 1;
            unit = (work){f * (all * s->expert * s->expert_weight + s->shared * s->weight),
                          f * (picks * s->expert + x->l.tokens * s->shared)};
            base = (work){s->router * s->weight, x->l.tokens * s->router};
            more = x->h->whole ? all / s->m->n_experts * s->g->expert_us : 0;
        } else {
            double parameters = kind == PLAN_FEED ? s->feed : s->row16;
            double tokens = kind == PLAN_FEED ? x->l.tokens : x->l.sequences;
            unit = (work){parameters * s->weight, tokens * parameters};
        }
        x->base[i] = pinned > 0 ? 0 : time_of(base, bandwidth, rate);
        x->slope[i] = pinned > 0 ? 1 / pinned : time_of(unit, bandwidth, rate) + more;
    }
}

static bool take_units(sharing *x, plan_kind kind, const vessels *v)
{
    int *units = x->h->units + kind * x->h->n;
    if (!fill(units, v))
        return false;
    for (int i = 0; i < x->h->n && kind == PLAN_ATTENTION; i++)
        units[i] *= heads_a_unit(x);
    return true;
}

static bool share_kind(sharing *x, plan_kind kind)
{
    slopes(x, kind);
    vessels v = {x->h->n, n_units(x, kind), x->base, x->slope, x->cap};
    return take_units(x, kind, &v);
}

/* Memory of a unit, K/V heads included. */
static double unit_memory(const sharing *x, plan_kind kind)
{
    double bytes = unit_bytes(x->s, x->p, kind, x->h->whole);
    if (kind != PLAN_ATTENTION)
        return bytes;
    if (!x->s->m->kv_rank)
        bytes += kv_head_bytes(x->s, x->p) * x->s->m->n_kv_heads / x->s->m->n_heads;
    return bytes * heads_a_unit(x);
}

/* What every rank holds beside its units. */
static double fixed_memory(const sharing *x)
{
    const plan_shape *s = x->s;
    int layers = x->p.n_dense + x->p.n_expert;
    double fixed = layers * (s->attention_fixed * s->weight +
                             s->r->concurrency * s->state_positions * s->state_fixed) +
                   x->p.n_expert * s->router * s->weight + scratch_bytes(s, x->p);
    if (!x->by_group && !s->m->kv_rank && s->m->n_heads > s->m->n_kv_heads)
        fixed += kv_head_bytes(s, x->p); /* heads that begin inside a group touch one more */
    return fixed;
}

/* As if memory were endless. */
static bool share_free(sharing *x)
{
    for (int kind = 0; kind < PLAN_KINDS; kind++) {
        for (int i = 0; i < x->h->n; i++)
            x->cap[i] = n_units(x, (plan_kind)kind);
        if (has(x, (plan_kind)kind) && !share_kind(x, (plan_kind)kind))
            return false;
    }
    return true;
}

/* Every kind at most by the fraction of the stage that the rank can hold. */
static bool share_evenly(sharing *x)
{
    double all = 0, fixed = fixed_memory(x);
    for (int kind = 0; kind < PLAN_KINDS; kind++)
        if (has(x, (plan_kind)kind))
            all += unit_memory(x, (plan_kind)kind) * n_units(x, (plan_kind)kind);
    for (int kind = 0; kind < PLAN_KINDS; kind++) {
        int n = n_units(x, (plan_kind)kind);
        for (int i = 0; i < x->h->n; i++) {
            double part = (room_of(x->s, x->h->nodes[i]) - fixed) / all;
            x->cap[i] = part <= 0 ? 0 : part >= 1 ? n : (int)(part * n);
        }
        if (has(x, (plan_kind)kind) && !share_kind(x, (plan_kind)kind))
            return false;
    }
    return true;
}

/* Kinds in order: those that are read whole at every step before experts, each under what memory is left. */
static bool share_in_turn(sharing *x)
{
    double fixed = fixed_memory(x);
    for (int i = 0; i < x->h->n; i++)
        x->room[i] = room_of(x->s, x->h->nodes[i]) - fixed;
    static const plan_kind order[] = {PLAN_ATTENTION, PLAN_FEED, PLAN_VOCABULARY, PLAN_EXPERTS};
    for (int k = 0; k < PLAN_KINDS; k++) {
        plan_kind kind = order[k];
        double bytes = unit_memory(x, kind);
        if (!has(x, kind))
            continue;
        for (int i = 0; i < x->h->n; i++) {
            double most = bytes > 0 ? floor(x->room[i] / bytes) : n_units(x, kind);
            x->cap[i] = most <= 0 ? 0 : (int)fmin(most, n_units(x, kind));
        }
        if (!share_kind(x, kind))
            return false;
        for (int i = 0; i < x->h->n; i++) {
            int units = x->h->units[kind * x->h->n + i];
            x->room[i] -= bytes * units / (kind == PLAN_ATTENTION ? heads_a_unit(x) : 1);
        }
    }
    return true;
}

/* Every kind by the memory of the ranks: whether this fits does not depend on speed. */
static bool share_by_memory(sharing *x)
{
    double fixed = fixed_memory(x);
    for (int kind = 0; kind < PLAN_KINDS; kind++) {
        for (int i = 0; i < x->h->n; i++) {
            double room = room_of(x->s, x->h->nodes[i]) - fixed;
            x->cap[i] = room > 0 ? n_units(x, (plan_kind)kind) : 0;
            x->base[i] = 0;
            x->slope[i] = 1e12 / fmax(room, 1);
        }
        vessels v = {x->h->n, n_units(x, (plan_kind)kind), x->base, x->slope, x->cap};
        if (has(x, (plan_kind)kind) && !take_units(x, (plan_kind)kind, &v))
            return false;
    }
    return true;
}

/* The largest units first, each to the rank with the most room left: for units so coarse that the other ways find no place. */
static bool share_packed(sharing *x)
{
    bool done[PLAN_KINDS] = {false};
    double fixed = fixed_memory(x);
    for (int i = 0; i < x->h->n; i++)
        x->room[i] = room_of(x->s, x->h->nodes[i]) - fixed;
    for (int turn = 0; turn < PLAN_KINDS; turn++) {
        int kind = -1;
        for (int k = 0; k < PLAN_KINDS; k++)
            if (!done[k] && has(x, (plan_kind)k) &&
                (kind < 0 || unit_memory(x, (plan_kind)k) > unit_memory(x, (plan_kind)kind)))
                kind = k;
        if (kind < 0)
            break;
        done[kind] = true;
        double bytes = unit_memory(x, (plan_kind)kind);
        int left = n_units(x, (plan_kind)kind), block = BASE_MAX(1, left / COARSE);
        for (; left > 0; left -= block) {
            int most = 0;
            block = BASE_MIN(block, left);
            for (int i = 1; i < x->h->n; i++)
                if (x->room[i] > x->room[most])
                    most = i;
            if (x->room[most] < bytes * block)
                return false;
            x->room[most] -= bytes * block;
            x->h->units[kind * x->h->n + most] +=
                block * (kind == PLAN_ATTENTION ? heads_a_unit(x) : 1);
        }
    }
    return true;
}

size_t plan_scratch_doubles(int n)
{
    return (size_t)n * 3 + ((size_t)n * (PLAN_KINDS + 1) * sizeof(int) + 7) / sizeof(double) + 1;
}

/* ---- polish --------------------------------------------------------------------------------------------------------- */

typedef struct move {
    int kind, from, to, units;
} move;

static bool moved(plan_shares *h, move m)
{
    int *from = &h->units[m.kind * h->n + m.from];
    if (*from < m.units)
        return false;
    *from -= m.units;
    h->units[m.kind * h->n + m.to] += m.units;
    return true;
}

static void move_back(plan_shares *h, move m)
{
    h->units[m.kind * h->n + m.from] += m.units;
    h->units[m.kind * h->n + m.to] -= m.units;
}

typedef struct polishing {
    const plan_shape *s;
    plan_shares *h;
    plan_span p;
    plan_load l;
    plan_link worst;
    double best;
} polishing;

/* Makes the moves if that is quicker and fits. */
static bool gains(polishing *x, const move *moves, int n)
{
    int done = 0;
    while (done < n && moved(x->h, moves[done]))
        done++;
    if (done == n && plan_stage_fits(x->s, x->h, x->p)) {
        plan_cost c = plan_stage_cost(x->s, x->h, x->p, x->l, x->worst);
        if (c.compute_us + c.sum_us < x->best * (1 - 1e-9)) {
            x->best = c.compute_us + c.sum_us;
            return true;
        }
    }
    while (done > 0)
        move_back(x->h, moves[--done]);
    return false;
}

/* Units of one kind from a to b, alone or against units of another kind of about the same bytes. */
static bool gains_between(polishing *x, int a, int b, int part)
{
    bool any = false;
    for (int k = 0; k < PLAN_KINDS; k++) {
        int units = BASE_MAX(x->h->units[k * x->h->n + a] / part, 1);
        double bytes = units * unit_bytes(x->s, x->p, (plan_kind)k, x->h->whole);
        move moves[2] = {{k, a, b, units}};
        any |= gains(x, moves, 1);
        for (int back = 0; back < PLAN_KINDS; back++) {
            double one = unit_bytes(x->s, x->p, (plan_kind)back, x->h->whole);
            if (back == k || one <= 0)
                continue;
            moves[1] = (move){back, b, a, (int)fmin(ceil(bytes / one), 1e6)};
            any |= gains(x, moves, 2);
        }
    }
    return any;
}

static int most_units(const plan_shape *s, const plan_shares *h)
{
    int most = h->whole ? s->m->n_experts : 1;
    for (int k = 0; k < PLAN_KINDS; k++)
        most = BASE_MAX(most, s->n_units[k]);
    return most;
}

void plan_stage_polish(const plan_shape *s, plan_shares *h, plan_span p, plan_load l,
                       plan_link worst)
{
    plan_cost now = plan_stage_cost(s, h, p, l, worst);
    polishing x = {s, h, p, l, worst, now.compute_us + now.sum_us};
    for (int part = 2; part <= 2 * most_units(s, h) && h->n <= 8; part *= 2)
        for (int turn = 0; turn < 4; turn++) {
            bool any = false;
            for (int a = 0; a < h->n; a++)
                for (int b = 0; b < h->n; b++)
                    any |= a != b && gains_between(&x, a, b, part);
            if (!any)
                break;
        }
}

/* ---- so few units that all can be tried ------------------------------------------------------------------------------ */

#define ALL_WAYS 6e4 /* ways to give out units that are tried one by one */

/* Ways to give `units` to n ranks. */
static double n_ways(int units, int n)
{
    double ways = 1;
    for (int i = 1; i < n; i++)
        ways = ways * (units + i) / i;
    return ways;
}

typedef struct attempt {
    polishing x; /* h: what is being filled */
    sharing units;
    double *room; /* [n] */
    plan_shares *best;
} attempt;

static void try_all(attempt *t, int kind, int rank, int left)
{
    plan_shares *h = t->x.h;
    size_t n = (size_t)h->n;
    while (rank == 0 && kind < PLAN_KINDS && !has(&t->units, (plan_kind)kind))
        kind++;
    if (kind == PLAN_KINDS) {
        plan_cost c;
        if (!plan_stage_fits(t->x.s, h, t->x.p))
            return;
        c = plan_stage_cost(t->x.s, h, t->x.p, t->x.l, t->x.worst);
        if (c.compute_us + c.sum_us < t->x.best * (1 - 1e-9)) {
            t->x.best = c.compute_us + c.sum_us;
            t->best->whole = h->whole;
            memcpy(t->best->units, h->units, PLAN_KINDS * n * sizeof(int));
        }
        return;
    }
    left = rank ? left : n_units(&t->units, (plan_kind)kind);
    int *mine = &h->units[kind * h->n + rank];
    double bytes = unit_bytes(t->x.s, t->x.p, (plan_kind)kind, h->whole);
    bool last = rank == h->n - 1;
    for (int u = last ? left : 0; u <= left && u * bytes <= t->room[rank]; u++) {
        *mine = u;
        t->room[rank] -= u * bytes;
        if (last)
            try_all(t, kind + 1, 0, 0);
        else
            try_all(t, kind, rank + 1, left - u);
        t->room[rank] += u * bytes;
    }
    *mine = 0;
}

/* Better shares than h's, where there are so few ways that each can be tried; h may hold none yet (now: infinite). */
static double share_all(const plan_shape *s, plan_shares *h, plan_span p, plan_load l,
                        plan_link worst, double now, plan_shares *spare, double *room)
{
    attempt t = {.x = {s, spare, p, l, worst, now}, .room = room, .best = h};
    t.units = (sharing){.s = s, .h = spare, .p = p, .l = l};
    for (int whole = 0; whole <= (p.n_expert > 0); whole++) {
        double ways = 1;
        spare->whole = whole;
        for (int k = 0; k < PLAN_KINDS; k++)
            ways *= has(&t.units, (plan_kind)k) ? n_ways(n_units(&t.units, (plan_kind)k), h->n) : 1;
        if (ways > ALL_WAYS)
            continue;
        memset(spare->units, 0, PLAN_KINDS * (size_t)h->n * sizeof(int));
        for (int i = 0; i < h->n; i++)
            room[i] = room_of(s, h->nodes[i]);
        try_all(&t, 0, 0, 0);
    }
    return t.x.best;
}

static void units_alone(const plan_shape *s, plan_shares *h, plan_span p)
{
    h->whole = false;
    h->units[PLAN_ATTENTION] = s->n_units[PLAN_ATTENTION];
    h->units[PLAN_FEED] = p.n_dense ? s->n_units[PLAN_FEED] : 0;
    h->units[PLAN_EXPERTS] = p.n_expert ? s->n_units[PLAN_EXPERTS] : 0;
    h->units[PLAN_VOCABULARY] = p.first || p.last ? s->n_units[PLAN_VOCABULARY] : 0;
}

/* The best of all variants (attention by head or by K/V group, experts sliced or whole) and ways (memory endless, even, in turn, by memory, packed). Where
 * `fitting`, what does not fit is left out and the later ways are tried only when the first does not. variants: a set in, the chosen one out. */
static plan_cost share_best(const plan_shape *s, plan_shares *h, plan_span p, plan_load l,
                            plan_link worst, double *scratch, bool fitting, int *variants)
{
    static bool (*const ways[])(sharing *) = {share_free, share_evenly, share_in_turn,
                                              share_by_memory, share_packed};
    size_t n = (size_t)h->n, n_ways = fitting ? BASE_COUNT(ways) : 1;
    int *cap = (int *)(void *)(scratch + 3 * n);
    plan_shares trial = {h->n, h->nodes, cap + n, false};
    plan_cost best = {INFINITY, 0};
    int chosen = 0;
    bool thorough = *variants & PLAN_THOROUGH;
    bool grouped = !s->m->kv_rank && s->m->n_kv_heads > 1 && s->m->n_kv_heads < s->m->n_heads;
    bool whole_too = p.n_expert > 0;
    for (int variant = 0; variant < 4; variant++) {
        if (!(*variants >> variant & 1) || ((variant & 1) && !grouped) ||
            ((variant & 2) && !whole_too))
            continue;
        trial.whole = variant & 2;
        for (size_t way = 0; way < n_ways; way++) {
            bool last_resort = ways[way] == share_by_memory || ways[way] == share_packed;
            if (last_resort && !thorough && isfinite(best.compute_us))
                break;
            if (ways[way] == share_packed && !thorough)
                break;
            sharing x = {
                s, &trial, p, l, scratch, scratch + n, scratch + 2 * n, cap, (variant & 1) != 0};
            memset(trial.units, 0, PLAN_KINDS * n * sizeof(int));
            if (!ways[way](&x) || (fitting && !plan_stage_fits(s, &trial, p)))
                continue;
            plan_cost cost = plan_stage_cost(s, &trial, p, l, worst);
            if (cost.compute_us + cost.sum_us < best.compute_us + best.sum_us) {
                best = cost;
                chosen = variant;
                h->whole = trial.whole;
                memcpy(h->units, trial.units, PLAN_KINDS * n * sizeof(int));
            }
            if (way == 0)
                break; /* memory does not bind */
        }
    }
    *variants = 1 << chosen;
    if (fitting && most_units(s, h) <= COARSE) {
        double now = best.compute_us + best.sum_us;
        if (isfinite(now))
            plan_stage_polish(s, h, p, l, worst);
        now = share_all(s, h, p, l, worst, now, &trial, scratch);
        if (isfinite(now))
            best = plan_stage_cost(s, h, p, l, worst);
    }
    return best;
}

plan_cost plan_stage_share(const plan_shape *s, plan_shares *h, plan_span p, plan_load l,
                           plan_link worst, int variants, double *scratch)
{
    if (h->n > 1)
        return share_best(s, h, p, l, worst, scratch, true, &variants);
    units_alone(s, h, p);
    if (!plan_stage_fits(s, h, p))
        return (plan_cost){INFINITY, 0};
    return plan_stage_cost(s, h, p, l, worst);
}

int plan_share_free(const plan_shape *s, plan_shares *h, plan_span p, plan_load l, plan_link worst,
                    double *scratch)
{
    int variants = PLAN_VARIANTS;
    if (h->n > 1)
        share_best(s, h, p, l, worst, scratch, false, &variants);
    else
        units_alone(s, h, p);
    return variants;
}

double plan_span_bytes(const plan_shape *s, plan_span p)
{
    double bytes = p.n_expert * s->router * s->weight +
                   (p.n_dense + p.n_expert) * s->attention_fixed * s->weight +
                   (s->m->kv_rank ? 0 : s->m->n_kv_heads * kv_head_bytes(s, p));
    bytes += (p.n_dense + p.n_expert) * s->r->concurrency * s->state_positions * s->state_fixed;
    for (int k = 0; k < PLAN_KINDS; k++)
        bytes += s->n_units[k] * unit_bytes(s, p, (plan_kind)k, false);
    return bytes;
}
