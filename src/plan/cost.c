/*
 * What a stage costs: the bytes and multiply-adds of every unit that can be cut, the time of a step over ranks with given units, and the
 * memory each rank needs.
 *
 * Two properties that the search relies on (share.c, search.c) hold term by term: a time never grows with bandwidth or rate, nor with a
 * link's bandwidth, and never falls with its latency; a rank that holds more units of a kind is never quicker and never needs less.
 * Not here: who holds which units (share.c), and which nodes and layers make a stage (search.c).
 */
#include "plan/inside.h"

#include <math.h>
#include <string.h>

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
    if (g->star) { /* to and from each of the others, whose answers are awaited together */
        if (chosen)
            *chosen = PLAN_SUM_DIRECT;
        return 2 * worst.latency_us + 2 * (n - 1) * (g->hop_us + bytes / worst.bandwidth * 1e6);
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

double plan_hop_bytes(const plan_shape *s, plan_load l)
{
    return l.tokens * s->m->d_model * s->g->hop_bytes;
}

double plan_back_bytes(const plan_shape *s, plan_load l)
{
    return l.sequences * s->m->n_vocab * s->g->logit_bytes;
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

static void attention_terms(plan_terms *t, const plan_shape *s, plan_load l)
{
    const plan_model *m = s->m;
    double positions = positions_kept(m, l.positions), state = l.sequences * positions;
    t->total = m->n_heads;
    t->group = m->kv_rank ? 0 : m->n_heads / m->n_kv_heads;
    t->bytes_once = s->attention_fixed * s->weight + state * s->state_fixed;
    t->bytes_unit = s->head * s->weight;
    t->bytes_kv = s->kv_head * s->weight + state * s->state_kv_head;
    t->macs_once = l.tokens * s->attention_fixed;
    t->macs_unit = l.tokens * (s->head + positions * s->head_macs);
    t->macs_kv = l.tokens * s->kv_head;
}

/* Of `mean` things that fall on n ranks, the unluckiest gets more than its share (the mean of the greatest of n normals, to a few per
 * cent): luck · sqrt(mean · share · (1 − share)). The share counts at most as a half, so that more units never mean less work. */
static void expert_terms(plan_terms *t, const plan_shape *s, plan_load l, bool whole, int n)
{
    const plan_model *m = s->m;
    double all = touched(m, l.tokens), picks = l.tokens * m->n_active;
    t->bytes_idle = t->bytes_once = s->router * s->weight;
    t->macs_idle = t->macs_once = l.tokens * s->router;
    t->total = s->n_units[PLAN_EXPERTS];
    if (!whole) {
        t->bytes_unit = all * s->expert * s->expert_weight + s->shared * s->weight;
        t->macs_unit = picks * s->expert + l.tokens * s->shared;
        t->more_us = all * s->g->expert_us;
        return;
    }
    double units = t->total;
    t->total = m->n_experts;
    t->all = all;
    t->picks = picks;
    t->luck = n < 2 ? 0 : 0.75 * sqrt(2 * log(n));
    t->expert_bytes = units * s->expert * s->expert_weight;
    t->expert_macs = units * s->expert;
    t->expert_us = s->g->expert_us;
    t->bytes_unit = units * s->shared * s->weight / m->n_experts;
    t->macs_unit = l.tokens * units * s->shared / m->n_experts;
}

static void memory_terms(plan_terms t[PLAN_KINDS], const plan_shape *s, plan_span p, bool whole);

void plan_stage_terms(plan_terms t[PLAN_KINDS], const plan_shape *s, plan_span p, plan_load l,
                      bool whole, int n)
{
    memset(t, 0, PLAN_KINDS * sizeof *t);
    attention_terms(&t[PLAN_ATTENTION], s, l);
    t[PLAN_FEED].total = s->n_units[PLAN_FEED];
    t[PLAN_FEED].bytes_unit = s->feed * s->weight;
    t[PLAN_FEED].macs_unit = l.tokens * s->feed;
    if (s->m->n_experts)
        expert_terms(&t[PLAN_EXPERTS], s, l, whole, n);
    t[PLAN_VOCABULARY].total = s->n_units[PLAN_VOCABULARY];
    t[PLAN_VOCABULARY].bytes_unit = s->row16 * s->weight;
    t[PLAN_VOCABULARY].macs_unit = l.sequences * s->row16;
    if (s->g->slow_logits > 0) /* of the full rate, not of what prompts reach */
        t[PLAN_VOCABULARY].macs_unit *= s->g->slow_logits * s->g->rate_efficiency;
    int layers = p.n_dense + p.n_expert;
    double times[] = {layers, p.n_dense, p.n_expert, p.last};
    bool present[] = {layers > 0, p.n_dense > 0, p.n_expert > 0, p.first || p.last};
    for (int k = 0; k < PLAN_KINDS; k++) {
        t[k].times = times[k];
        if (!present[k])
            t[k].total = 0;
    }
    memory_terms(t, s, p, whole);
}

int plan_kv_heads(int group, int first, int end)
{
    return group && end > first ? (end - 1) / group - first / group + 1 : 0;
}

double plan_units_us(const plan_terms *t, int first, int end, double bandwidth, double rate)
{
    if (end <= first)
        return plan_more(t->bytes_idle / bandwidth, t->macs_idle / rate);
    double units = end - first, kv = plan_kv_heads(t->group, first, end);
    double bytes = t->bytes_once + units * t->bytes_unit + kv * t->bytes_kv;
    double macs = t->macs_once + units * t->macs_unit + kv * t->macs_kv, more = t->more_us;
    if (t->all > 0) {
        double share = units / t->total,
               spread = plan_less(share, 0.5) * (1 - plan_less(share, 0.5));
        double experts = t->all * share + t->luck * sqrt(t->all * spread);
        experts = plan_less(experts, plan_less(units, t->all));
        bytes += experts * t->expert_bytes;
        more += experts * t->expert_us;
        macs += plan_less(t->picks, t->picks * share + t->luck * sqrt(t->picks * spread)) *
                t->expert_macs;
    }
    return plan_more(bytes / bandwidth, macs / rate) + more;
}

double plan_node_bandwidth(const plan_shape *s, const int *nodes, int n, int i)
{
    const plan_node *node = &s->c->nodes[nodes[i]];
    double own = node->bandwidth;
    if (node->host >= 0 && node->host_bandwidth > 0) {
        int k = 0;
        for (int j = 0; j < n; j++)
            k += s->c->nodes[nodes[j]].host == node->host;
        own = fmin(own, node->host_bandwidth / k);
    }
    return own * (node->measured ? 1 : s->g->efficiency) / 1e6;
}

double plan_node_rate(const plan_shape *s, int node)
{
    const plan_node *n = &s->c->nodes[node];
    return n->rate * (n->measured ? 1 : s->g->rate_efficiency) / 1e6;
}

/* What a leader sends to the others before a step and gets from them after it. Both take the link's latency, but not one after the other: who
 * hears of the step late is late in every sum by turns, the leader first, and is the earlier one when the scores go. */
static double round_us(const plan_shape *s, plan_load l, plan_link worst, int n)
{
    if (n < 2 || (s->g->announce_bytes <= 0 && s->g->logit_bytes <= 0))
        return 0;
    double bytes = s->g->announce_bytes + plan_back_bytes(s, l) * (n - 1) / n;
    return worst.latency_us + 2 * s->g->hop_us + bytes / worst.bandwidth * 1e6;
}

plan_fixed plan_fixed_of(const plan_shape *s, plan_load l, plan_link worst, int n)
{
    double bytes = l.tokens * s->m->d_model * s->g->wire_bytes, op = s->g->op_us;
    double sum = plan_sum_us(NULL, n, bytes, worst, s->g);
    bool gathers = s->g->logit_bytes > 0;
    return (plan_fixed){.dense_ops_us = op * s->ops_dense,
                        .expert_ops_us = op * s->ops_expert,
                        .last_ops_us = 2 * op,
                        .layer_sums_us = 2 * sum,
                        .first_sums_us = s->g->embedding_sum ? sum : 0,
                        /* the best token over the shards of the vocabulary */
                        .last_sum_us =
                            gathers ? 0 : plan_sum_us(NULL, n, 16 * l.sequences, worst, s->g),
                        .round_us = round_us(s, l, worst, n)};
}

plan_cost plan_cost_of(const plan_terms t[PLAN_KINDS], const double us[PLAN_KINDS],
                       const plan_fixed *f, plan_span p)
{
    int layers = p.n_dense + p.n_expert;
    plan_cost cost = {p.n_dense * f->dense_ops_us + p.n_expert * f->expert_ops_us,
                      layers * f->layer_sums_us};
    for (int k = 0; k < PLAN_KINDS; k++)
        if (t[k].times > 0)
            cost.compute_us += t[k].times * us[k];
    if (p.first)
        cost.sum_us += f->first_sums_us;
    if (p.last) {
        cost.compute_us += f->last_ops_us;
        cost.sum_us += f->last_sum_us;
    }
    if (p.first && p.last)
        cost.sum_us += f->round_us;
    return cost;
}

plan_cost plan_stage_cost(const plan_shape *s, const plan_shares *h, plan_span p, plan_load l,
                          plan_link worst)
{
    plan_terms t[PLAN_KINDS];
    plan_fixed f = plan_fixed_of(s, l, worst, h->n);
    double us[PLAN_KINDS] = {0};
    int at = 0;
    plan_stage_terms(t, s, p, l, h->whole, h->n);
    for (int i = 0; i < h->n; i++) {
        double bandwidth = plan_node_bandwidth(s, h->nodes, h->n, i);
        double rate = plan_node_rate(s, h->nodes[i]);
        int heads = h->units[i];
        us[0] = fmax(us[0], plan_units_us(&t[0], at, at + heads, bandwidth, rate));
        at += heads;
        for (int k = 1; k < PLAN_KINDS; k++)
            if (t[k].total)
                us[k] =
                    fmax(us[k], plan_units_us(&t[k], 0, h->units[k * h->n + i], bandwidth, rate));
    }
    return plan_cost_of(t, us, &f, p);
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
    int group = s->m->kv_rank ? 0 : s->m->n_heads / s->m->n_kv_heads;
    double kv = plan_kv_heads(group, at, at + heads);
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

static void memory_terms(plan_terms t[PLAN_KINDS], const plan_shape *s, plan_span p, bool whole)
{
    int layers = p.n_dense + p.n_expert;
    for (int k = 0; k < PLAN_KINDS; k++)
        t[k].memory_unit = unit_bytes(s, p, (plan_kind)k, whole);
    t[PLAN_ATTENTION].memory_once =
        layers *
        (s->attention_fixed * s->weight + s->r->concurrency * s->state_positions * s->state_fixed);
    t[PLAN_ATTENTION].memory_kv = s->m->kv_rank ? 0 : kv_head_bytes(s, p);
}

double plan_node_room(const plan_shape *s, int node)
{
    return s->c->nodes[node].memory_bytes - s->c->nodes[node].reserve_bytes;
}

double plan_rank_fixed_bytes(const plan_shape *s, plan_span p)
{
    return p.n_expert * s->router * s->weight + scratch_bytes(s, p);
}

bool plan_stage_fits(const plan_shape *s, const plan_shares *h, plan_span p)
{
    for (int i = 0; i < h->n; i++) {
        plan_need need = plan_stage_need(s, h, p, i);
        if (need.weights + need.state + need.scratch > plan_node_room(s, h->nodes[i]))
            return false;
    }
    return true;
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
