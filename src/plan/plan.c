/*
 * What the caller sees: checks of the question, nodes in the order of their names (so that the caller's order changes nothing), the search,
 * the figures of each ranked cut, and the reasons in words. plan_predict and plan_grow use the same parts.
 */
#include "plan/inside.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const kind_names[] = {"attention", "feed-forward", "experts", "vocabulary"};
static const char *const sum_names[] = {"none", "direct", "two-shot", "ring", "doubling"};
static const char *const goal_names[] = {"speed", "ttft", "throughput", "fewest"};

const char *plan_kind_name(plan_kind k)
{
    return kind_names[k];
}

const char *plan_sum_name(plan_sum s)
{
    return sum_names[s];
}

const char *plan_goal_name(plan_goal g)
{
    return goal_names[g];
}

/* ---- checks --------------------------------------------------------------------------------------------------------- */

static bool between(double x, double low, double high)
{
    return x >= low && x <= high; /* not for NaN */
}

static status wrong(err *e, const char *what, double got, double low, double high)
{
    return err_set(e, STATUS_INVALID, "plan: %s must be from %g to %g, got %g", what, low, high,
                   got);
}

#define CHECK(what, value, low, high)                                                              \
    do {                                                                                           \
        if (!between((double)(value), low, high))                                                  \
            return wrong(e, what, (double)(value), low, high);                                     \
    } while (0)

status plan_model_check(const plan_model *m, err *e)
{
    CHECK("layers", m->n_layers, 1, PLAN_LAYERS);
    CHECK("dense layers", m->n_dense_layers, 0, m->n_layers);
    CHECK("model width", m->d_model, 1, 1 << 20);
    CHECK("query heads", m->n_heads, 1, 1 << 14);
    CHECK("key/value heads", m->n_kv_heads, 1, m->n_heads);
    CHECK("head width", m->head_dim, 1, 1 << 14);
    CHECK("feed-forward width", m->d_ff, m->n_dense_layers ? 1 : 0, 1 << 24);
    CHECK("vocabulary", m->n_vocab, 1, 1 << 26);
    CHECK("experts", m->n_experts, m->n_dense_layers < m->n_layers ? 1 : 0, 1 << 16);
    CHECK("experts a token", m->n_active, m->n_experts ? 1 : 0, m->n_experts);
    CHECK("expert width", m->d_expert, m->n_experts ? 1 : 0, 1 << 24);
    CHECK("shared experts", m->n_shared, 0, 1 << 10);
    CHECK("rank of latent keys", m->kv_rank, 0, 1 << 20);
    CHECK("rank of latent queries", m->q_rank, 0, 1 << 20);
    CHECK("rotary width", m->rope_dim, 0, 1 << 14);
    CHECK("value width", m->v_dim, 0, 1 << 14);
    CHECK("window", m->window, 0, 1 << 30);
    CHECK("windowed layers", m->n_window_layers, 0, m->n_layers);
    CHECK("bits a weight", m->bits, 0.5, 64);
    CHECK("bits a weight of experts", m->n_experts ? m->expert_bits : 1, 0.5, 64);
    CHECK("bits of keys and values", m->state_bits, 1, 64);
    if (m->n_heads % m->n_kv_heads)
        return err_set(e, STATUS_INVALID,
                       "plan: %d query heads cannot be divided over %d key/value heads", m->n_heads,
                       m->n_kv_heads);
    return STATUS_OK;
}

static status check_links(const plan_cluster *c, err *e)
{
    size_t n = (size_t)c->n_nodes;
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n; k++) {
            plan_link a = c->links[i * n + k], b = c->links[k * n + i];
            CHECK("latency of a link in us", a.latency_us, 0, 1e9);
            CHECK("bandwidth of a link", a.bandwidth, 0, 1e15);
            if (a.latency_us != b.latency_us || a.bandwidth != b.bandwidth)
                return err_set(
                    e, STATUS_INVALID,
                    "plan: the link between %s and %s is said to be %g us and %g B/s one "
                    "way, %g us and %g B/s the other",
                    c->nodes[i].name, c->nodes[k].name, a.latency_us, a.bandwidth, b.latency_us,
                    b.bandwidth);
        }
    return STATUS_OK;
}

static status check(const plan_model *m, const plan_cluster *c, const plan_engine *g,
                    const plan_request *r, err *e)
{
    status s = plan_model_check(m, e);
    if (s != STATUS_OK)
        return s;
    CHECK("nodes", c->n_nodes, 1, PLAN_NODES);
    for (int i = 0; i < c->n_nodes; i++) {
        CHECK("memory of a node", c->nodes[i].memory_bytes, 0, 1e18);
        CHECK("reserve of a node", c->nodes[i].reserve_bytes, 0, 1e18);
        CHECK("bandwidth of a node", c->nodes[i].bandwidth, 1, 1e18);
        CHECK("rate of a node", c->nodes[i].rate, 1, 1e21);
        CHECK("bandwidth of a host", c->nodes[i].host_bandwidth, 0, 1e18);
        if (r->shares)
            CHECK("share of a node", r->shares[i], 1e-6, 1e6);
    }
    CHECK("efficiency of bandwidth", g->efficiency, 1e-3, 2);
    CHECK("efficiency of the rate", g->rate_efficiency, 1e-4, 2);
    CHECK("time of an op in us", g->op_us, 0, 1e6);
    CHECK("time of a message in us", g->hop_us, 0, 1e7);
    CHECK("time of an expert in us", g->expert_us, 0, 1e6);
    CHECK("bytes of a number of a sum", g->wire_bytes, 0.1, 16);
    CHECK("bytes of a number between stages", g->hop_bytes, 0.1, 16);
    CHECK("bytes that announce a step", g->announce_bytes, 0, 1e6);
    CHECK("slowness of words' scores", g->slow_logits, 0, 1e6);
    CHECK("bytes of a word's score", g->logit_bytes, 0, 16);
    CHECK("context", r->context, 1, 1e9);
    CHECK("prompt", r->prompt, 1, (double)r->context);
    CHECK("concurrency", r->concurrency, 1, 1e6);
    return check_links(c, e);
}

/* ---- nodes in the order of their names ------------------------------------------------------------------------------ */

typedef struct ordered {
    plan_cluster cluster;
    int *caller; /* index of node i in the caller's cluster */
    plan_request request;
} ordered;

static status order_names(int *order, const plan_cluster *c, const bool *allowed, int *n, err *e)
{
    *n = 0;
    for (int i = 0; i < c->n_nodes; i++) {
        int at = *n;
        if (allowed && !allowed[i])
            continue;
        for (; at > 0 && strcmp(c->nodes[i].name, c->nodes[order[at - 1]].name) < 0; at--)
            order[at] = order[at - 1];
        order[at] = i;
        ++*n;
    }
    for (int i = 1; i < *n; i++)
        if (!strcmp(c->nodes[order[i]].name, c->nodes[order[i - 1]].name))
            return err_set(e, STATUS_INVALID, "plan: two nodes have the name '%s'",
                           c->nodes[order[i]].name);
    if (!*n)
        return err_set(e, STATUS_INVALID, "plan: no node may be used");
    return STATUS_OK;
}

static status put_in_order(ordered *o, arena *memory, const plan_cluster *c, const plan_request *r,
                           err *e)
{
    size_t all = (size_t)c->n_nodes;
    int n;
    o->caller = arena_zalloc(memory, all, sizeof(int));
    plan_node *nodes = arena_zalloc(memory, all, sizeof *nodes);
    plan_link *links = arena_zalloc(memory, all * all, sizeof *links);
    double *shares = arena_zalloc(memory, all, sizeof *shares);
    if (!o->caller || !nodes || !links || !shares)
        return err_set(e, STATUS_NO_MEMORY, "plan: no memory for %d nodes", c->n_nodes);
    status s = order_names(o->caller, c, r->allowed, &n, e);
    if (s != STATUS_OK)
        return s;
    for (int i = 0; i < n; i++) {
        nodes[i] = c->nodes[o->caller[i]];
        shares[i] = r->shares ? r->shares[o->caller[i]] : 0;
        for (int k = 0; k < n; k++)
            links[(size_t)i * (size_t)n + (size_t)k] =
                c->links[(size_t)o->caller[i] * all + (size_t)o->caller[k]];
    }
    o->cluster = (plan_cluster){n, nodes, links};
    o->request = *r;
    o->request.allowed = NULL;
    o->request.shares = r->shares ? shares : NULL;
    return STATUS_OK;
}

/* ---- the figures of a cut ------------------------------------------------------------------------------------------- */

typedef struct totals {
    double sum, slowest; /* over stages, hops included */
} totals;

/* Scratch of one stage. */
typedef struct bench_of_stage {
    int *nodes, *units, *free;
    plan_scratch *scratch;
} bench_of_stage;

static plan_shares shares_of(const plan_stage *t, const bench_of_stage *b)
{
    plan_shares h = {t->n_ranks, b->nodes, b->units, t->whole_experts};
    for (int i = 0; i < t->n_ranks; i++) {
        b->nodes[i] = t->ranks[i].node;
        for (int k = 0; k < PLAN_KINDS; k++)
            b->units[k * t->n_ranks + i] = t->ranks[i].units[k];
    }
    return h;
}

static double hop_between(const plan_shape *s, const plan_stage *a, const plan_stage *b,
                          double bytes)
{
    int from[PLAN_NODES], to[PLAN_NODES];
    for (int i = 0; i < a->n_ranks; i++)
        from[i] = a->ranks[i].node;
    for (int i = 0; i < b->n_ranks; i++)
        to[i] = b->ranks[i].node;
    return plan_hop_us(s, from, a->n_ranks, to, b->n_ranks, bytes);
}

/* Compute, sums and hops of a step with this load; with `into` also the stages' own figures. The hop back is not in it. */
static totals run_through(plan_cut *p, const plan_shape *s, const bench_of_stage *b, plan_load l,
                          bool into)
{
    totals t = {0, 0};
    double bytes = l.tokens * s->m->d_model * s->g->wire_bytes;
    double passed = plan_hop_bytes(s, l);
    for (int i = 0; i < p->n_stages; i++) {
        plan_stage *stage = &p->stages[i];
        plan_shares h = shares_of(stage, b);
        plan_link worst = plan_worst_link(s->c, b->nodes, h.n);
        plan_cost cost =
            plan_stage_cost(s, &h, plan_span_of(s->m, stage->first, stage->last), l, worst);
        double in = i ? hop_between(s, &p->stages[i - 1], stage, passed) : 0;
        double all = cost.compute_us + cost.sum_us + in;
        t.sum += all;
        t.slowest = fmax(t.slowest, all);
        if (!into)
            continue;
        stage->compute_us = cost.compute_us;
        stage->sum_us = cost.sum_us;
        if (i)
            p->stages[i - 1].hop_us = in;
        plan_sum_us(&stage->sum, h.n, bytes, worst, s->g);
    }
    return t;
}

static double hop_back(const plan_shape *s, const plan_cut *p, plan_load l)
{
    const plan_stage *last = &p->stages[p->n_stages - 1];
    return p->n_stages > 1 ? hop_between(s, last, &p->stages[0], plan_back_bytes(s, l)) : 0;
}

static void predict(plan_cut *p, const plan_shape *s, const bench_of_stage *b)
{
    const plan_request *r = s->r;
    plan_stage *last = &p->stages[p->n_stages - 1];
    run_through(p, s, b, plan_load_decode(r, 1), true);
    last->hop_us = hop_back(s, p, plan_load_decode(r, 1));
    p->compute_us = p->sum_us = p->hop_us = 0;
    p->n_nodes = 0;
    for (int i = 0; i < p->n_stages; i++) {
        p->compute_us += p->stages[i].compute_us;
        p->sum_us += p->stages[i].sum_us;
        p->hop_us += p->stages[i].hop_us;
        p->n_nodes += p->stages[i].n_ranks;
    }
    p->step_us = p->compute_us + p->sum_us + p->hop_us;
    p->tokens_s = 1e6 / p->step_us;
    double batch = ceil((double)r->concurrency / BASE_MIN(p->n_stages, r->concurrency));
    totals many = run_through(p, s, b, plan_load_decode(r, batch), false);
    double back = hop_back(s, p, plan_load_decode(r, batch));
    double cycle = fmax(many.sum + back, ceil(r->concurrency / batch) * many.slowest);
    p->throughput = r->concurrency * 1e6 / cycle;
    totals prompt = run_through(p, s, b, plan_load_prompt(r), false);
    p->ttft_us = prompt.sum + hop_back(s, p, plan_load_prompt(r)) +
                 (ceil((double)r->prompt / PLAN_CHUNK) - 1) * prompt.slowest;
    p->score = plan_score(s, p);
}

double plan_score(const plan_shape *s, const plan_cut *p)
{
    double ties = 1 + PLAN_TIES * p->n_nodes;
    switch (s->r->goal) {
    case PLAN_FEWEST:
        return p->n_nodes * 1e9 + p->step_us;
    case PLAN_TTFT:
        return p->ttft_us * ties;
    case PLAN_THROUGHPUT:
        return s->r->concurrency * 1e6 / p->throughput * ties;
    default:
        return p->step_us * ties;
    }
}

static void stage_units(plan_stage *t, const plan_shape *s, plan_span span)
{
    memcpy(t->units, s->n_units, sizeof t->units);
    if (!span.n_dense)
        t->units[PLAN_FEED] = 0;
    if (!span.n_expert)
        t->units[PLAN_EXPERTS] = 0;
    else if (t->whole_experts)
        t->units[PLAN_EXPERTS] = s->m->n_experts;
    if (!span.first && !span.last)
        t->units[PLAN_VOCABULARY] = 0;
}

static plan_load goal_load(const plan_shape *s, int n_stages)
{
    const plan_request *r = s->r;
    if (r->goal == PLAN_TTFT)
        return plan_load_prompt(r);
    if (r->goal == PLAN_THROUGHPUT)
        return plan_load_decode(r,
                                ceil((double)r->concurrency / BASE_MIN(n_stages, r->concurrency)));
    return plan_load_decode(r, 1);
}

static status settle_stage(plan_stage *t, const plan_shape *s, const bench_of_stage *b, bool choose,
                           plan_load l, err *e)
{
    plan_span span = plan_span_of(s->m, t->first, t->last);
    plan_shares h = shares_of(t, b);
    if (choose) {
        plan_link worst = plan_worst_link(s->c, b->nodes, h.n);
        plan_free free = {.units = b->free};
        plan_free_of(&free, s, h.nodes, h.n, l, worst, b->scratch);
        plan_stage_share(s, &h, span, l, worst, &free, b->scratch);
        t->whole_experts = h.whole;
    }
    stage_units(t, s, span);
    for (int i = 0; i < h.n; i++) {
        plan_rank *rank = &t->ranks[i];
        const plan_node *node = &s->c->nodes[rank->node];
        for (int k = 0; k < PLAN_KINDS; k++)
            rank->units[k] = t->units[k] ? h.units[k * h.n + i] : 0;
        plan_need need = plan_stage_need(s, &h, span, i);
        rank->weight_bytes = need.weights;
        rank->state_bytes = need.state;
        rank->scratch_bytes = need.scratch;
        rank->reserve_bytes = node->reserve_bytes;
        rank->memory_bytes = node->memory_bytes;
        double used = need.weights + need.state + need.scratch + node->reserve_bytes;
        if (used > node->memory_bytes)
            return err_set(e, STATUS_INVALID,
                           "plan: node %s has %.1f GB, its share of layers %d to %d needs %.1f GB",
                           node->name, node->memory_bytes / 1e9, t->first, t->last - 1, used / 1e9);
    }
    return STATUS_OK;
}

status plan_evaluate(plan_cut *p, const plan_shape *s, arena *memory, bool choose, err *e)
{
    size_t n = (size_t)s->c->n_nodes;
    bench_of_stage b = {
        arena_zalloc(memory, n, sizeof(int)), arena_zalloc(memory, PLAN_KINDS * n, sizeof(int)),
        arena_zalloc(memory, 2 * PLAN_KINDS * n, sizeof(int)), plan_scratch_create(memory, (int)n)};
    if (!b.nodes || !b.units || !b.free || !b.scratch)
        return err_set(e, STATUS_NO_MEMORY, "plan: no memory for a plan over %zu nodes", n);
    for (int i = 0; i < p->n_stages; i++) {
        status got = settle_stage(&p->stages[i], s, &b, choose, goal_load(s, p->n_stages), e);
        if (got != STATUS_OK)
            return got;
    }
    predict(p, s, &b);
    if (!isfinite(p->step_us))
        return err_set(e, STATUS_INVALID, "plan: there is no link between two of the plan's nodes");
    return STATUS_OK;
}

static status cut_of_found(plan_cut *out, const plan_found *f, const plan_shape *s, arena *memory,
                           err *e)
{
    plan_cut p = {.n_stages = f->n_stages};
    p.stages = arena_zalloc(memory, (size_t)f->n_stages, sizeof *p.stages);
    if (!p.stages)
        return err_set(e, STATUS_NO_MEMORY, "plan: no memory for %d stages", f->n_stages);
    for (int i = 0; i < f->n_stages; i++) {
        plan_stage *t = &p.stages[i];
        t->first = f->border[i];
        t->last = f->border[i + 1];
        t->n_ranks = f->start[i + 1] - f->start[i];
        t->ranks = arena_zalloc(memory, (size_t)t->n_ranks, sizeof *t->ranks);
        if (!t->ranks)
            return err_set(e, STATUS_NO_MEMORY, "plan: no memory for %d ranks", t->n_ranks);
        for (int k = 0; k < t->n_ranks; k++)
            t->ranks[k].node = f->nodes[f->start[i] + k];
    }
    status got = plan_evaluate(&p, s, memory, true, e);
    if (got == STATUS_OK)
        *out = p;
    return got;
}

/* ---- reasons -------------------------------------------------------------------------------------------------------- */

static void say(plan_result *out, const char *format, ...) BASE_PRINTF(2, 3);

enum { REASONS = PLAN_NODES + 8 };

static void say(plan_result *out, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!out->reasons)
        out->reasons = arena_zalloc(&out->memory, REASONS, sizeof *out->reasons);
    char *copy = arena_strndup(&out->memory, text, strlen(text));
    if (out->reasons && copy && out->n_reasons < REASONS)
        out->reasons[out->n_reasons++] = copy;
}

/* A score as people speak of it. */
static void spoken(char out[48], const plan_shape *s, double score)
{
    switch (s->r->goal) {
    case PLAN_TTFT:
        snprintf(out, 48, "%.2f s to the first token", score / 1e6);
        break;
    case PLAN_THROUGHPUT:
        snprintf(out, 48, "%.3g tok/s together", s->r->concurrency * 1e6 / score);
        break;
    default:
        snprintf(out, 48, "%.3g tok/s", 1e6 / fmod(score, 1e9));
    }
}

static bool uses(const plan_cut *p, int node)
{
    for (int i = 0; i < p->n_stages; i++)
        for (int k = 0; k < p->stages[i].n_ranks; k++)
            if (p->stages[i].ranks[k].node == node)
                return true;
    return false;
}

/* The quickest link of a node to a plan's nodes. */
static double link_to(const plan_shape *s, const plan_cut *p, int node)
{
    double best = INFINITY;
    for (int i = 0; i < s->c->n_nodes; i++) {
        plan_link l = s->c->links[(size_t)node * (size_t)s->c->n_nodes + (size_t)i];
        if (i != node && uses(p, i) && l.bandwidth > 0)
            best = fmin(best, l.latency_us);
    }
    return best;
}

static void say_left_out(plan_result *out, const plan_search *found, const plan_shape *s,
                         const plan_cut *p)
{
    char with[48], now[48];
    double ties = 1 + PLAN_TIES * p->n_nodes;
    spoken(now, s, p->score / ties);
    for (int i = 0; i < s->c->n_nodes; i++) {
        if (uses(p, i))
            continue;
        const plan_node *node = &s->c->nodes[i];
        double link = link_to(s, p, i), score = found->best_with[i];
        if (isinf(link))
            say(out, "node %s is left out: no link joins it to the others", node->name);
        else if (isinf(score))
            say(out, "node %s is left out: no cut that was tried fits with it (%.1f GB usable)",
                node->name, fmax(0, node->memory_bytes - node->reserve_bytes) / 1e9);
        else if (s->r->goal == PLAN_FEWEST)
            say(out, "node %s is left out: %d are enough", node->name, p->n_nodes);
        else if (score <= p->score * 1.001) {
            say(out, "node %s is left out: it would gain nothing, fewer nodes are enough",
                node->name);
        } else {
            spoken(with, s, score / ties);
            say(out,
                "node %s is left out: the best plan with it reaches %s instead of %s; its link "
                "takes "
                "%.3g ms, its memory reads %.3g GB/s",
                node->name, with, now, link / 1e3, node->bandwidth / 1e9);
        }
    }
}

static void say_best(plan_result *out, const plan_shape *s, const plan_cut *p)
{
    double parts[] = {p->compute_us, p->sum_us, p->hop_us};
    const char *const names[] = {"reading weights and computing", "sums between ranks",
                                 "hops between stages"};
    int most = 0;
    for (int i = 1; i < 3; i++)
        if (parts[i] > parts[most])
            most = i;
    say(out, "most of a token's time is %s: %.0f %% of %.3g ms", names[most],
        100 * parts[most] / p->step_us, p->step_us / 1e3);
    for (int i = 0; i < p->n_stages; i++)
        if (p->stages[i].n_ranks > 1 && p->stages[i].last > s->m->n_dense_layers &&
            s->m->n_experts) {
            say(out, "experts of stage %d are %s over its ranks: the other way is not faster here",
                i + 1, p->stages[i].whole_experts ? "whole" : "sliced");
            break;
        }
}

/* Whether something fits with another promise; used for words only. */
static bool fits_with(const plan_model *m, const ordered *o, const plan_engine *g,
                      double state_bits, int64_t context)
{
    plan_model changed = *m;
    plan_request r = o->request;
    plan_shape shape;
    arena memory;
    plan_search found = {.memory = &memory};
    changed.state_bits = state_bits;
    r.context = context;
    r.prompt = BASE_MIN(r.prompt, context);
    plan_shape_of(&shape, &changed, &o->cluster, g, &r);
    arena_init(&memory, 0);
    bool fits = plan_search_run(&found, &shape, true, NULL) == STATUS_OK && found.n_found;
    arena_fini(&memory);
    return fits;
}

static void say_nearest_miss(plan_result *out, const plan_shape *s, const ordered *o)
{
    double room = 0, need = plan_span_bytes(s, plan_span_of(s->m, 0, s->m->n_layers));
    plan_size size;
    plan_model_size(&size, s->m);
    for (int i = 0; i < s->c->n_nodes; i++) {
        const plan_node *node = &s->c->nodes[i];
        room += fmax(0, node->memory_bytes - node->reserve_bytes);
    }
    out->missing_bytes = fmax(need - room, 1);
    if (need > room)
        say(out,
            "%s needs %.1f GB (%.1f GB of weights, %.1f GB of state); the nodes offer %.1f GB: "
            "%.1f GB "
            "more are needed",
            s->m->name, need / 1e9, size.weight_bytes / 1e9, (need - size.weight_bytes) / 1e9,
            room / 1e9, (need - room) / 1e9);
    else
        say(out,
            "%s needs %.1f GB and the nodes offer %.1f GB together, but no cut into layers and "
            "units "
            "that their links allow fits into each",
            s->m->name, need / 1e9, room / 1e9);
    for (int i = 0; i < s->c->n_nodes; i++) {
        double own = fmax(0, s->c->nodes[i].memory_bytes - s->c->nodes[i].reserve_bytes);
        say(out, "node %s alone: %.1f GB usable, %.1f GB short", s->c->nodes[i].name, own / 1e9,
            (need - own) / 1e9);
    }
    if (s->m->state_bits > 8.5 && fits_with(s->m, o, s->g, 8.5, s->r->context))
        say(out, "it fits only with q8_0 keys and values");
    for (int64_t context = s->r->context / 2; context >= 512; context /= 2)
        if (fits_with(s->m, o, s->g, s->m->state_bits, context)) {
            say(out, "it fits with a context of %lld", (long long)context);
            break;
        }
}

/* ---- entry points --------------------------------------------------------------------------------------------------- */

static void name_as_caller(plan_cut *p, const ordered *o)
{
    for (int i = 0; i < p->n_stages; i++)
        for (int k = 0; k < p->stages[i].n_ranks; k++)
            p->stages[i].ranks[k].node = o->caller[p->stages[i].ranks[k].node];
}

static void rank_cut(plan_result *out, const plan_cut *cut)
{
    int at = out->n_plans++;
    for (; at > 0 && cut->score < out->plans[at - 1].score; at--)
        out->plans[at] = out->plans[at - 1];
    out->plans[at] = *cut;
}

static status make(plan_result *out, const plan_model *m, const plan_cluster *c,
                   const plan_engine *g, const plan_request *r, err *e)
{
    ordered o;
    plan_shape s;
    plan_search found = {.memory = &out->memory};
    status got = put_in_order(&o, &out->memory, c, r, e);
    if (got != STATUS_OK)
        return got;
    plan_shape_of(&s, m, &o.cluster, g, &o.request);
    got = plan_search_run(&found, &s, false, e);
    if (got != STATUS_OK)
        return got;
    out->tried = found.tried;
    for (int i = 0; i < found.n_found; i++) {
        plan_cut cut;
        got = cut_of_found(&cut, &found.found[i], &s, &out->memory, e);
        if (got == STATUS_NO_MEMORY)
            return got;
        if (got == STATUS_OK)
            rank_cut(out, &cut);
    }
    if (!out->n_plans) {
        say_nearest_miss(out, &s, &o);
        return err_set(e, STATUS_TOO_LARGE, "plan: %s",
                       out->n_reasons ? out->reasons[0] : "the model fits nowhere");
    }
    say_best(out, &s, &out->plans[0]);
    say_left_out(out, &found, &s, &out->plans[0]);
    for (int i = 0; i < out->n_plans; i++)
        name_as_caller(&out->plans[i], &o);
    return STATUS_OK;
}

status plan_make(plan_result *out, const plan_model *m, const plan_cluster *c, const plan_engine *g,
                 const plan_request *r, err *e)
{
    memset(out, 0, sizeof *out);
    arena_init(&out->memory, 0);
    status got = check(m, c, g, r, e);
    if (got == STATUS_OK)
        got = make(out, m, c, g, r, e);
    if (got != STATUS_OK && got != STATUS_TOO_LARGE) {
        plan_result_fini(out);
        memset(out, 0, sizeof *out);
    }
    return got;
}

void plan_result_fini(plan_result *r)
{
    arena_fini(&r->memory);
}

static status check_cut(const plan_cut *p, const plan_model *m, const plan_cluster *c, err *e)
{
    int layer = 0;
    for (int i = 0; i < p->n_stages; i++) {
        const plan_stage *t = &p->stages[i];
        if (t->first != layer || t->last <= layer || t->n_ranks < 1)
            return err_set(e, STATUS_INVALID,
                           "plan: stage %d has layers [%d, %d) and %d ranks, "
                           "expected layers from %d and a rank",
                           i + 1, t->first, t->last, t->n_ranks, layer);
        layer = t->last;
        for (int k = 0; k < t->n_ranks; k++)
            if (t->ranks[k].node < 0 || t->ranks[k].node >= c->n_nodes)
                return err_set(e, STATUS_INVALID, "plan: there is no node %d", t->ranks[k].node);
    }
    if (layer != m->n_layers)
        return err_set(e, STATUS_INVALID, "plan: stages hold %d of %d layers", layer, m->n_layers);
    return STATUS_OK;
}

status plan_predict(plan_cut *p, const plan_model *m, const plan_cluster *c, const plan_engine *g,
                    const plan_request *r, err *e)
{
    plan_shape s;
    arena memory;
    status got = check(m, c, g, r, e);
    if (got == STATUS_OK)
        got = check_cut(p, m, c, e);
    if (got != STATUS_OK)
        return got;
    plan_shape_of(&s, m, c, g, r);
    arena_init(&memory, 0);
    got = plan_evaluate(p, &s, &memory, false, e);
    arena_fini(&memory);
    return got;
}

void plan_model_size(plan_size *out, const plan_model *m)
{
    plan_shape s;
    plan_request r = {.context = 1, .prompt = 1, .concurrency = 1};
    plan_engine g = {.efficiency = 1};
    plan_cluster none = {0};
    plan_shape_of(&s, m, &none, &g, &r);
    int L = m->n_layers, expert_layers = L - m->n_dense_layers;
    double attention = s.attention_fixed + m->n_heads * s.head + m->n_kv_heads * s.kv_head;
    double feed = s.n_units[PLAN_FEED] * s.feed, vocabulary = s.n_units[PLAN_VOCABULARY] * s.row16;
    double one = s.n_units[PLAN_EXPERTS] * s.expert, shared = s.n_units[PLAN_EXPERTS] * s.shared;
    double plain = L * attention + m->n_dense_layers * feed + expert_layers * (s.router + shared);
    double matrices = m->tied ? 1 : 2;
    plan_size z = {.parameters = plain + expert_layers * m->n_experts * one + matrices * vocabulary,
                   .active = plain + expert_layers * m->n_active * one + vocabulary,
                   .weight_bytes = (plain + matrices * vocabulary) * s.weight +
                                   expert_layers * m->n_experts * one * s.expert_weight,
                   .bytes_per_token = (plain + vocabulary) * s.weight +
                                      expert_layers * m->n_active * one * s.expert_weight,
                   .state_bytes_per_token = L * (s.state_fixed + m->n_kv_heads * s.state_kv_head)};
    *out = z;
}

/* ---- what to buy next ----------------------------------------------------------------------------------------------- */

static void growth_keep(plan_growth *out, int n, plan_growth g)
{
    int at = n;
    for (; at > 0 && g.score < out[at - 1].score; at--)
        out[at] = out[at - 1];
    out[at] = g;
}

static status grow_by(plan_growth *out, const plan_device *d, plan_node *nodes, plan_link *links,
                      int n, const plan_model *m, const plan_engine *g, const plan_request *r,
                      err *e)
{
    plan_result result;
    plan_cluster c = {n + 1, nodes, links};
    plan_node_of(&nodes[n], "the new one", d, 0);
    *out = (plan_growth){.device = d->name, .score = INFINITY, .price = d->price};
    status got = plan_make(&result, m, &c, g, r, e);
    if (got == STATUS_OK) {
        const plan_cut *p = &result.plans[0];
        out->score = p->score;
        out->tokens_s = p->tokens_s;
        out->throughput = p->throughput;
        out->ttft_us = p->ttft_us;
        out->used = uses(p, n);
    }
    if (got == STATUS_OK || got == STATUS_TOO_LARGE)
        plan_result_fini(&result);
    return got == STATUS_TOO_LARGE ? STATUS_OK : got;
}

status plan_grow(plan_growth *out, int *n, const plan_model *m, const plan_cluster *c,
                 const plan_engine *g, const plan_request *r, plan_link link, err *e)
{
    size_t now = (size_t)c->n_nodes, more = now + 1;
    int capacity = *n, found = 0;
    status got = STATUS_OK;
    if (now >= PLAN_NODES)
        return err_set(e, STATUS_INVALID, "plan: no room for one more than %d nodes", PLAN_NODES);
    plan_node *nodes = base_zalloc(more, sizeof *nodes);
    plan_link *links = base_zalloc(more * more, sizeof *links);
    if (!nodes || !links)
        got = err_set(e, STATUS_NO_MEMORY, "plan: no memory for %zu nodes", more);
    for (size_t i = 0; got == STATUS_OK && i < more; i++) {
        if (i < now)
            nodes[i] = c->nodes[i];
        for (size_t k = 0; k < more; k++)
            links[i * more + k] = i < now && k < now ? c->links[i * now + k] : link;
    }
    plan_request open = *r;
    open.allowed = NULL;
    open.shares = NULL;
    for (int i = 0; got == STATUS_OK && i < plan_n_devices() && found < capacity; i++) {
        plan_growth growth;
        if (plan_device_at(i)->price <= 0)
            continue;
        got = grow_by(&growth, plan_device_at(i), nodes, links, (int)now, m, g, &open, e);
        if (got == STATUS_OK)
            growth_keep(out, found++, growth);
    }
    base_free(nodes);
    base_free(links);
    if (got == STATUS_OK)
        *n = found;
    return got;
}
