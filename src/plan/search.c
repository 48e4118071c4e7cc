/*
 * The search for a cut. A *structure* is a pipeline of groups of nodes; given one, dynamic programming over layers finds the borders, one
 * row a stage: row d holds the least time in which the first d groups compute the first l layers. Rows are pushed one by one, so that
 * every prefix of a pipeline is a structure of its own at no cost.
 *
 * Few nodes: every order of every grouping. Many: islands of the link graph under each latency; in each, tensor groups of the fastest
 * nodes, pipelines by speed and by memory, equal groups in a row, finer islands in a row; then from the best the exchange of single nodes
 * until nothing gains or the counted work is spent. Shares of a group follow from its layers (cost.c), and are remembered by group.
 */
#include "plan/inside.h"

#include <math.h>
#include <string.h>

enum { FEW = 6, CLASSES = 8, WORDS = PLAN_NODES / 64, BUCKETS = 4096 };

/* Counted in roughly nanoseconds. */
#define EVERYTHING 25e6
#define EXCHANGES  22e6

typedef struct table {
    struct table *next;
    double sequences; /* of the load */
    int *units;       /* [PLAN_KINDS, n] shares while memory does not bind */
    bool whole;
    int variants;      /* for layers where memory binds */
    int least_full[4]; /* layers from which they do not fit, by ends */
    double *cells[4];  /* [L + 1] by ends: bit 0 first, bit 1 last; NaN = not computed */
} table;

typedef struct group {
    struct group *next; /* in its bucket */
    uint64_t bits[WORDS];
    int n, *nodes;
    double room, speed; /* usable bytes, bytes/s together */
    plan_link worst;
    bool linked;
    table *tables;
} group;

typedef struct searcher {
    plan_search *out;
    const plan_shape *s;
    arena *memory;
    group *buckets[BUCKETS];
    double *scratch;
    int *spare; /* [PLAN_KINDS, n] */
    int L, n, max_depth;
    double *rows; /* [max_depth + 1, L + 1] */
    int *from;
    group **path;   /* [max_depth] */
    table **tables; /* [max_depth] */
    double *hops;   /* [max_depth] into the stage */
    int *border;    /* [max_depth + 1] */
    uint64_t keys[PLAN_RANKED];
    plan_load load;
    double bound;    /* of one stage's time */
    double hopeless; /* sums from which on nothing is kept */
    double work;
    bool few;    /* everything is tried */
    bool failed; /* no memory */
} searcher;

static void *take(searcher *x, size_t count, size_t size)
{
    void *p = arena_zalloc(x->memory, count ? count : 1, size);
    x->failed |= !p;
    return p;
}

/* ---- groups --------------------------------------------------------------------------------------------------------- */

static group *group_new(searcher *x, const uint64_t bits[WORDS])
{
    group *g = take(x, 1, sizeof *g);
    if (!g)
        return NULL;
    memcpy(g->bits, bits, sizeof g->bits);
    for (int i = 0; i < x->n; i++)
        g->n += bits[i / 64] >> (i % 64) & 1;
    g->nodes = take(x, (size_t)g->n, sizeof(int));
    if (!g->nodes)
        return NULL;
    int at = 0;
    for (int i = 0; i < x->n; i++)
        if (bits[i / 64] >> (i % 64) & 1) {
            const plan_node *node = &x->s->c->nodes[i];
            g->nodes[at++] = i;
            g->room += fmax(0, node->memory_bytes - node->reserve_bytes);
            g->speed += node->bandwidth;
        }
    g->worst = plan_worst_link(x->s->c, g->nodes, g->n);
    g->linked = g->n == 1 || g->worst.bandwidth > 0;
    return g;
}

static group *group_of_bits(searcher *x, const uint64_t bits[WORDS])
{
    group **bucket = &x->buckets[hash_bytes(bits, WORDS * sizeof *bits, 1) % BUCKETS];
    for (group *g = *bucket; g; g = g->next)
        if (!memcmp(g->bits, bits, sizeof g->bits))
            return g;
    group *g = group_new(x, bits);
    if (g) {
        g->next = *bucket;
        *bucket = g;
    }
    return g;
}

static group *group_of(searcher *x, const int *nodes, int n)
{
    uint64_t bits[WORDS] = {0};
    for (int i = 0; i < n; i++)
        bits[nodes[i] / 64] |= 1ull << (nodes[i] % 64);
    return group_of_bits(x, bits);
}

static table *table_of(searcher *x, group *g)
{
    for (table *t = g->tables; t; t = t->next)
        if (t->sequences == x->load.sequences)
            return t;
    table *t = take(x, 1, sizeof *t);
    if (!t || !(t->units = take(x, PLAN_KINDS * (size_t)g->n, sizeof(int))))
        return NULL;
    for (int ends = 0; ends < 4; ends++) {
        t->cells[ends] = take(x, (size_t)x->L + 1, sizeof(double));
        if (!t->cells[ends])
            return NULL;
        for (int i = 0; i <= x->L; i++)
            t->cells[ends][i] = NAN;
        t->least_full[ends] = x->L + 1;
    }
    t->sequences = x->load.sequences;
    t->next = g->tables;
    g->tables = t;
    /* as if memory were endless: shares do not depend on how many layers there are */
    plan_shares h = {g->n, g->nodes, t->units, false};
    t->variants =
        plan_share_free(x->s, &h, plan_span_of(x->s->m, 0, x->L), x->load, g->worst, x->scratch);
    if (x->few)
        t->variants = PLAN_VARIANTS;
    t->whole = h.whole;
    x->work += 2000.0 * g->n;
    return t;
}

static double cell_compute(searcher *x, const group *g, table *t, int first, int last, int ends)
{
    plan_span span = plan_span_of(x->s->m, first, last);
    plan_shares h = {g->n, g->nodes, t->units, t->whole};
    plan_cost cost = {INFINITY, 0};
    int n = last - first;
    x->work += 60.0 * g->n + 100;
    if (plan_span_bytes(x->s, span) > g->room)
        return INFINITY;
    if (n < t->least_full[ends]) {
        if (plan_stage_fits(x->s, &h, span)) {
            cost = plan_stage_cost(x->s, &h, span, x->load, g->worst);
            return cost.compute_us + cost.sum_us;
        }
        t->least_full[ends] = n;
    }
    if (g->n == 1)
        return INFINITY;
    h.units = x->spare;
    cost = plan_stage_share(x->s, &h, span, x->load, g->worst, t->variants, x->scratch);
    x->work += 3000.0 * g->n;
    return cost.compute_us + cost.sum_us;
}

/* Time of layers [first, last) on a group; infinite where they do not fit. Borders fall between layers of one kind only where all are of
 * one kind, so that a cell depends on its ends and number of layers. */
static inline double cell(searcher *x, const group *g, table *t, int first, int last)
{
    int ends = (first == 0) | (last == x->L) << 1;
    double *c = &t->cells[ends][last - first];
    if (isnan(*c))
        *c = cell_compute(x, g, t, first, last, ends);
    return *c;
}

/* ---- borders -------------------------------------------------------------------------------------------------------- */

static bool border_allowed(const searcher *x, int layer)
{
    int dense = x->s->m->n_dense_layers;
    return layer >= dense || dense == x->L;
}

/* Row depth + 1 from row depth with one more group; false when no layers reach it. */
static bool push(searcher *x, int depth, group *g)
{
    int L = x->L, width = L + 1;
    if (!g || !g->linked || depth >= x->max_depth)
        return false;
    table *t = table_of(x, g);
    if (!t)
        return false;
    const double *before = x->rows + (size_t)depth * (size_t)width;
    double *row = x->rows + (size_t)(depth + 1) * (size_t)width;
    int *from = x->from + (size_t)(depth + 1) * (size_t)width;
    double hop = 0;
    if (depth) {
        const group *p = x->path[depth - 1];
        double bytes = x->load.tokens * x->s->m->d_model * x->s->g->wire_bytes;
        hop = plan_hop_us(x->s, p->nodes, p->n, g->nodes, g->n, bytes);
        if (isinf(hop))
            return false;
        x->work += 4.0 * p->n * g->n;
    }
    bool reached = false;
    for (int l = 0; l <= L; l++)
        row[l] = INFINITY;
    for (int k = 0; k < L; k++) {
        if (before[k] >= x->hopeless)
            continue;
        for (int l = k + 1; l <= L; l++) {
            if (l < L && !border_allowed(x, l))
                continue;
            double stage = cell(x, g, t, k, l) + hop;
            if (isinf(stage) && !x->few)
                break; /* more layers will hardly fit */
            if (stage > x->bound)
                break;
            if (before[k] + stage < row[l]) {
                row[l] = before[k] + stage;
                from[l] = k;
                reached = true;
            }
        }
        x->work += L - k;
    }
    x->path[depth] = g;
    x->tables[depth] = t;
    x->hops[depth] = hop;
    x->out->tried++;
    return reached;
}

static void trace(searcher *x, int depth)
{
    int l = x->L;
    for (int d = depth; d > 0; d--) {
        x->border[d] = l;
        l = x->from[(size_t)d * (size_t)(x->L + 1) + (size_t)l];
    }
    x->border[0] = 0;
}

static double back_hop(searcher *x, int depth)
{
    const group *a = x->path[depth - 1], *b = x->path[0];
    return depth < 2 ? 0 : plan_hop_us(x->s, a->nodes, a->n, b->nodes, b->n, 0);
}

static int nodes_of(const searcher *x, int depth)
{
    int n = 0;
    for (int d = 0; d < depth; d++)
        n += x->path[d]->n;
    return n;
}

/* ---- keeping the best ----------------------------------------------------------------------------------------------- */

static uint64_t key_of(const searcher *x, int depth)
{
    uint64_t key = (uint64_t)depth;
    for (int d = 0; d < depth; d++) /* whatever the order */
        key += hash_bytes(x->path[d]->bits, sizeof x->path[d]->bits, 7);
    return key;
}

static bool found_copy(searcher *x, plan_found *f, int depth, double score)
{
    plan_found n = {.n_stages = depth, .score = score};
    n.start = take(x, (size_t)depth + 1, sizeof(int));
    n.border = take(x, (size_t)depth + 1, sizeof(int));
    n.nodes = take(x, (size_t)nodes_of(x, depth), sizeof(int));
    if (!n.start || !n.border || !n.nodes)
        return false;
    memcpy(n.border, x->border, ((size_t)depth + 1) * sizeof(int));
    for (int d = 0; d < depth; d++) {
        n.start[d + 1] = n.start[d] + x->path[d]->n;
        memcpy(n.nodes + n.start[d], x->path[d]->nodes, (size_t)x->path[d]->n * sizeof(int));
    }
    *f = n;
    return true;
}

static void keep(searcher *x, int depth, double score)
{
    plan_search *o = x->out;
    for (int d = 0; d < depth; d++)
        for (int i = 0; i < x->path[d]->n; i++) {
            double *best = &o->best_with[x->path[d]->nodes[i]];
            *best = fmin(*best, score);
        }
    uint64_t key = key_of(x, depth);
    int at = 0, same = -1;
    for (int i = 0; i < o->n_found; i++)
        if (x->keys[i] == key)
            same = i;
    if (same >= 0 && o->found[same].score <= score)
        return;
    while (at < o->n_found && o->found[at].score <= score)
        at++;
    if (at == PLAN_RANKED)
        return;
    plan_found copy;
    if (!found_copy(x, &copy, depth, score))
        return;
    int end = same >= 0 ? same : BASE_MIN(o->n_found, PLAN_RANKED - 1);
    for (int i = end; i > at; i--) {
        o->found[i] = o->found[i - 1];
        x->keys[i] = x->keys[i - 1];
    }
    o->found[at] = copy;
    x->keys[at] = key;
    if (same < 0 && o->n_found < PLAN_RANKED)
        o->n_found++;
}

/* ---- the goals ------------------------------------------------------------------------------------------------------ */

static double slowest_stage(searcher *x, int depth)
{
    double most = 0;
    for (int d = 0; d < depth; d++)
        most = fmax(most,
                    cell(x, x->path[d], x->tables[d], x->border[d], x->border[d + 1]) + x->hops[d]);
    return most;
}

/* The same formulas as plan_score, from the sums of the rows. */
static double score_of(searcher *x, int depth, double sum)
{
    const plan_request *r = x->s->r;
    double nodes = nodes_of(x, depth), ties = 1 + PLAN_TIES * nodes;
    switch (r->goal) {
    case PLAN_FEWEST:
        return nodes * 1e9 + sum + back_hop(x, depth);
    case PLAN_TTFT: {
        double chunks = ceil((double)r->prompt / PLAN_CHUNK);
        return (sum + (chunks - 1) * slowest_stage(x, depth)) * ties;
    }
    case PLAN_THROUGHPUT: {
        double batches = ceil(r->concurrency / x->load.sequences);
        double cycle = fmax(sum + back_hop(x, depth), batches * slowest_stage(x, depth));
        return cycle * ties;
    }
    default:
        return (sum + back_hop(x, depth)) * ties;
    }
}

static void offer(searcher *x, int depth)
{
    double sum = x->rows[(size_t)depth * (size_t)(x->L + 1) + (size_t)x->L];
    if (isinf(sum))
        return;
    trace(x, depth);
    double score = score_of(x, depth, sum);
    if (isfinite(score))
        keep(x, depth, score);
}

/* What the score would be if all stages took the same time: none of this structure can be better. */
static double best_possible(searcher *x, int depth, double sum)
{
    const plan_request *r = x->s->r;
    if (r->goal == PLAN_TTFT)
        return sum + (ceil((double)r->prompt / PLAN_CHUNK) - 1) * sum / depth;
    return fmax(sum, ceil(r->concurrency / x->load.sequences) * sum / depth);
}

/* Where the slowest stage counts: the same structure again with shorter and shorter stages. */
static void offer_even(searcher *x, int depth)
{
    offer(x, depth);
    double sum = x->rows[(size_t)depth * (size_t)(x->L + 1) + (size_t)x->L];
    if (isinf(sum) || depth < 2 || x->s->r->goal == PLAN_SPEED || x->s->r->goal == PLAN_FEWEST)
        return;
    if (best_possible(x, depth, sum) >= x->out->found[0].score)
        return;
    for (int turn = 0; turn < 5; turn++) {
        double most = slowest_stage(x, depth);
        bool reached = true;
        x->bound = fmax(most * (turn ? 0.88 : 0.999), sum / depth);
        if (x->bound >= most)
            break;
        for (int d = 0; d < depth && reached; d++)
            reached = push(x, d, x->path[d]);
        if (!reached || isinf(x->rows[(size_t)depth * (size_t)(x->L + 1) + (size_t)x->L]))
            break;
        offer(x, depth);
    }
    x->bound = INFINITY;
    for (int d = 0; d < depth; d++) /* the rows as they were: a prefix of something longer */
        push(x, d, x->path[d]);
}

static void set_load(searcher *x, int depth)
{
    const plan_request *r = x->s->r;
    if (r->goal == PLAN_TTFT)
        x->load = plan_load_prompt(r);
    else if (r->goal == PLAN_THROUGHPUT)
        x->load =
            plan_load_decode(r, ceil((double)r->concurrency / BASE_MIN(depth, r->concurrency)));
    else
        x->load = plan_load_decode(r, 1);
}

static bool mode_allows(const searcher *x, const group *g, int depth)
{
    plan_mode mode = x->s->r->mode;
    return mode == PLAN_ANY || (mode == PLAN_TENSOR ? depth == 0 : g->n == 1);
}

/* A pipeline of groups and all its prefixes; depths that matter only when `exact`. */
static void try_prefixes(searcher *x, group *const *groups, int n)
{
    set_load(x, 1);
    for (int d = 0; d < n; d++) {
        if (!groups[d] || !mode_allows(x, groups[d], d) || !push(x, d, groups[d]))
            return;
        offer_even(x, d + 1);
    }
}

static void try_exactly(searcher *x, group *const *groups, int n)
{
    set_load(x, n);
    for (int d = 0; d < n; d++)
        if (!groups[d] || !mode_allows(x, groups[d], d) || !push(x, d, groups[d]))
            return;
    offer_even(x, n);
}

static void try_pipeline(searcher *x, group *const *groups, int n)
{
    n = BASE_MIN(n, x->max_depth);
    if (x->s->r->goal != PLAN_THROUGHPUT) {
        try_prefixes(x, groups, n);
        return;
    }
    for (int k = 1; k < n; k += 1 + k / 4)
        try_exactly(x, groups, k);
    if (n)
        try_exactly(x, groups, n);
}

/* ---- few nodes: everything ------------------------------------------------------------------------------------------ */

static void descend(searcher *x, unsigned used, int depth, int target)
{
    unsigned all = (1u << x->n) - 1, rest = all & ~used; /* subsets ascend */
    for (unsigned subset = (0 - rest) & rest; subset; subset = (subset - rest) & rest) {
        uint64_t bits[WORDS] = {subset};
        group *g = group_of_bits(x, bits);
        if (x->failed)
            return;
        if (!mode_allows(x, g, depth) || !push(x, depth, g))
            continue;
        if (!target || depth + 1 == target)
            offer_even(x, depth + 1);
        if (depth + 1 < x->max_depth && (!target || depth + 1 < target))
            descend(x, used | subset, depth + 1, target);
    }
}

static bool few(const searcher *x)
{
    static const double structures[] = {0, 1, 4, 21, 150, 1082, 9366};
    if (x->n > FEW)
        return false;
    double work = structures[x->n] * x->L * x->L;
    return (x->s->r->goal == PLAN_SPEED || x->s->r->goal == PLAN_FEWEST ? work : 4 * work) <=
           EVERYTHING;
}

static void everything(searcher *x)
{
    if (x->s->r->goal != PLAN_THROUGHPUT) {
        set_load(x, 1);
        descend(x, 0, 0, 0);
        return;
    }
    for (int depth = 1; depth <= x->max_depth; depth++) {
        set_load(x, depth);
        descend(x, 0, 0, depth);
    }
}

/* ---- many nodes: islands -------------------------------------------------------------------------------------------- */

typedef enum order { BY_SPEED, BY_MEMORY, BY_NAME } order;

static double room_of(const searcher *x, int node)
{
    return x->s->c->nodes[node].memory_bytes - x->s->c->nodes[node].reserve_bytes;
}

static bool before(const searcher *x, order o, int a, int b)
{
    const plan_node *p = &x->s->c->nodes[a], *q = &x->s->c->nodes[b];
    if (o == BY_SPEED && p->bandwidth != q->bandwidth)
        return p->bandwidth > q->bandwidth;
    if (o == BY_SPEED && p->rate != q->rate)
        return p->rate > q->rate;
    if (o == BY_MEMORY && room_of(x, a) != room_of(x, b))
        return room_of(x, a) > room_of(x, b);
    return a < b; /* nodes come sorted by name */
}

static void sort_nodes(const searcher *x, order o, int *nodes, int n)
{
    for (int i = 1; i < n; i++) {
        int node = nodes[i], k = i;
        for (; k > 0 && before(x, o, node, nodes[k - 1]); k--)
            nodes[k] = nodes[k - 1];
        nodes[k] = node;
    }
}

/* Different latencies of the links, at most CLASSES, ascending. */
static int thresholds(const searcher *x, double out[CLASSES])
{
    int n = 0;
    for (double after = -1; n < CLASSES; n++) {
        double least = INFINITY;
        for (int i = 0; i < x->n; i++)
            for (int k = 0; k < x->n; k++) {
                plan_link l = x->s->c->links[(size_t)i * (size_t)x->n + (size_t)k];
                if (i != k && l.bandwidth > 0 && l.latency_us > after)
                    least = fmin(least, l.latency_us);
            }
        if (isinf(least))
            break;
        out[n] = least;
        after = least * 1.3; /* nearly the same latency is the same class */
        out[n] = after;
    }
    return n;
}

/* island[i] = the smallest node that i reaches over links of at most this latency. */
static void components(const searcher *x, double latency, int *island, int *stack)
{
    for (int i = 0; i < x->n; i++)
        island[i] = -1;
    for (int root = 0; root < x->n; root++) {
        if (island[root] >= 0)
            continue;
        int depth = 0;
        island[root] = root;
        stack[depth++] = root;
        while (depth) {
            int i = stack[--depth];
            for (int k = 0; k < x->n; k++) {
                plan_link l = x->s->c->links[(size_t)i * (size_t)x->n + (size_t)k];
                if (island[k] >= 0 || k == i || l.bandwidth <= 0 || l.latency_us > latency)
                    continue;
                island[k] = root;
                stack[depth++] = k;
            }
        }
    }
}

static int members(const searcher *x, const int *island, int root, int *out)
{
    int n = 0;
    for (int i = 0; i < x->n; i++)
        if (island[i] == root)
            out[n++] = i;
    return n;
}

static void tensor_groups(searcher *x, const int *nodes, int n)
{
    if (x->s->r->mode == PLAN_PIPELINE)
        return;
    for (int k = 2; k <= n; k += k < 8 ? 1 : k < 32 ? 4 : 16) {
        group *g = group_of(x, nodes, k);
        try_exactly(x, &g, 1);
    }
    group *g = group_of(x, nodes, n);
    try_exactly(x, &g, 1);
}

static void singles(searcher *x, const int *nodes, int n, group **groups)
{
    for (int i = 0; i < n; i++)
        groups[i] = group_of(x, &nodes[i], 1);
    try_pipeline(x, groups, n);
}

/* Groups of k in a row, in the order of the nodes. */
static void rows_of(searcher *x, const int *nodes, int n, int k, group **groups)
{
    int m = 0;
    for (int i = 0; i < n; i += k)
        groups[m++] = group_of(x, nodes + i, BASE_MIN(k, n - i));
    try_pipeline(x, groups, m);
}

/* One tensor group of the first k, then the others one by one. */
static void head_and_singles(searcher *x, const int *nodes, int n, int k, group **groups)
{
    int m = 0;
    groups[m++] = group_of(x, nodes, k);
    for (int i = k; i < n; i++)
        groups[m++] = group_of(x, &nodes[i], 1);
    try_pipeline(x, groups, m);
}

static void island_cuts(searcher *x, int *nodes, int n, group **groups)
{
    static const order orders[] = {BY_SPEED, BY_MEMORY, BY_NAME};
    for (size_t o = 0; o < BASE_COUNT(orders); o++) {
        sort_nodes(x, orders[o], nodes, n);
        tensor_groups(x, nodes, n);
        singles(x, nodes, n, groups);
        if (x->s->r->mode != PLAN_ANY)
            continue;
        for (int k = 2; k <= 8 && k < n; k *= 2) {
            rows_of(x, nodes, n, k, groups);
            if (x->n <= 32)
                head_and_singles(x, nodes, n, k, groups);
        }
    }
}

/* The islands under a latency as the stages of one pipeline, the fastest first; each whole, or its fastest few. */
static void islands_in_a_row(searcher *x, const int *island, int *nodes, group **groups, int most)
{
    int m = 0;
    for (int root = 0; root < x->n; root++) {
        int n = members(x, island, root, nodes);
        if (!n)
            continue;
        sort_nodes(x, BY_SPEED, nodes, n);
        group *g = group_of(x, nodes, BASE_MIN(n, most));
        if (!g)
            return;
        int at = m++;
        for (; at > 0 && groups[at - 1]->speed < g->speed; at--)
            groups[at] = groups[at - 1];
        groups[at] = g;
    }
    try_pipeline(x, groups, m);
}

static void islands(searcher *x)
{
    double latency[CLASSES];
    size_t n = (size_t)x->n;
    int *island = take(x, n, sizeof(int)), *nodes = take(x, n, sizeof(int));
    group **groups = take(x, n, sizeof(group *));
    if (!island || !nodes || !groups)
        return;
    for (int i = 0; i < x->n; i++) {
        group *g = group_of(x, &i, 1);
        try_exactly(x, &g, 1);
    }
    int classes = thresholds(x, latency);
    for (int c = 0; c < classes && !x->failed; c++) {
        components(x, latency[c], island, nodes);
        for (int root = 0; root < x->n && !x->failed; root++) {
            int size = members(x, island, root, nodes);
            if (size > 1)
                island_cuts(x, nodes, size, groups);
        }
        if (x->s->r->mode == PLAN_ANY)
            for (int most = 2; most <= 8; most *= 2)
                islands_in_a_row(x, island, nodes, groups, most);
    }
}

/* ---- exchanges ------------------------------------------------------------------------------------------------------ */

static group *changed(searcher *x, const group *g, int without, int with)
{
    uint64_t bits[WORDS];
    memcpy(bits, g->bits, sizeof bits);
    if (without >= 0)
        bits[without / 64] &= ~(1ull << (without % 64));
    if (with >= 0)
        bits[with / 64] |= 1ull << (with % 64);
    return group_of_bits(x, bits);
}

typedef struct exchange {
    group **now; /* [m] the structure that is being improved */
    group **trial;
    int m;
    bool *used;
} exchange;

static void try_replaced(searcher *x, exchange *w, int at, group *g)
{
    memcpy(w->trial, w->now, (size_t)w->m * sizeof *w->now);
    w->trial[at] = g;
    try_exactly(x, w->trial, w->m);
}

static void try_without(searcher *x, exchange *w, int at)
{
    memcpy(w->trial, w->now, (size_t)at * sizeof *w->now);
    memcpy(w->trial + at, w->now + at + 1, (size_t)(w->m - at - 1) * sizeof *w->now);
    if (w->m > 1)
        try_exactly(x, w->trial, w->m - 1);
}

static void try_inserted(searcher *x, exchange *w, int at, group *g)
{
    memcpy(w->trial, w->now, (size_t)at * sizeof *w->now);
    w->trial[at] = g;
    memcpy(w->trial + at + 1, w->now + at, (size_t)(w->m - at) * sizeof *w->now);
    if (w->m < x->max_depth)
        try_exactly(x, w->trial, w->m + 1);
}

static void exchange_stage(searcher *x, exchange *w, int at)
{
    group *g = w->now[at];
    bool tensor = x->s->r->mode != PLAN_PIPELINE;
    try_without(x, w, at);
    if (at + 1 < w->m) {
        memcpy(w->trial, w->now, (size_t)w->m * sizeof *w->now);
        w->trial[at] = w->now[at + 1];
        w->trial[at + 1] = g;
        try_exactly(x, w->trial, w->m);
        uint64_t bits[WORDS];
        for (int i = 0; i < WORDS; i++)
            bits[i] = g->bits[i] | w->now[at + 1]->bits[i];
        memcpy(w->trial, w->now, (size_t)w->m * sizeof *w->now);
        memmove(w->trial + at + 1, w->trial + at + 2, (size_t)(w->m - at - 2) * sizeof *w->now);
        w->trial[at] = group_of_bits(x, bits);
        if (tensor)
            try_exactly(x, w->trial, w->m - 1);
    }
    for (int i = 0; i < g->n && g->n > 1; i++)
        try_replaced(x, w, at, changed(x, g, g->nodes[i], -1));
    for (int u = 0; u < x->n && x->work < EXCHANGES && !x->failed; u++) {
        if (w->used[u])
            continue;
        if (tensor)
            try_replaced(x, w, at, changed(x, g, -1, u));
        try_inserted(x, w, at, group_of(x, &u, 1));
        for (int i = 0; i < g->n && g->n <= 8; i++)
            try_replaced(x, w, at, changed(x, g, g->nodes[i], u));
    }
}

/* One round from a found structure: every single change of it. */
static void exchange_from(searcher *x, exchange *w, const plan_found *f)
{
    w->m = f->n_stages;
    memset(w->used, 0, (size_t)x->n * sizeof(bool));
    for (int i = 0; i < f->start[f->n_stages]; i++)
        w->used[f->nodes[i]] = true;
    for (int i = 0; i < w->m; i++)
        w->now[i] = group_of(x, f->nodes + f->start[i], f->start[i + 1] - f->start[i]);
    for (int i = 0; i < w->m && x->work < EXCHANGES && !x->failed; i++)
        exchange_stage(x, w, i);
}

/* From the best that has not been changed yet, until none of the kept ones is left. */
static void exchanges(searcher *x)
{
    exchange w = {.now = take(x, (size_t)x->max_depth + 1, sizeof(group *)),
                  .trial = take(x, (size_t)x->max_depth + 1, sizeof(group *)),
                  .used = take(x, (size_t)x->n, sizeof(bool))};
    uint64_t done[64];
    int n_done = 0;
    while (!x->failed && x->work < EXCHANGES && n_done < (int)BASE_COUNT(done)) {
        int next = 0;
        for (; next < x->out->n_found; next++) {
            int k = 0;
            while (k < n_done && done[k] != x->keys[next])
                k++;
            if (k == n_done)
                break;
        }
        if (next == x->out->n_found)
            break;
        done[n_done++] = x->keys[next];
        if (x->s->r->goal == PLAN_SPEED && x->out->n_found == PLAN_RANKED)
            x->hopeless = x->out->found[PLAN_RANKED - 1].score;
        plan_found from = x->out->found[next];
        exchange_from(x, &w, &from);
    }
}

/* Shares are given: one group of all. */
static void pinned(searcher *x)
{
    uint64_t bits[WORDS] = {0};
    for (int i = 0; i < x->n; i++)
        bits[i / 64] |= 1ull << (i % 64);
    group *g = group_of_bits(x, bits);
    try_exactly(x, &g, 1);
}

/* ---- the whole ------------------------------------------------------------------------------------------------------ */

status plan_search_run(plan_search *out, const plan_shape *s, err *e)
{
    searcher *x = arena_zalloc(out->memory, 1, sizeof *x);
    if (!x)
        return err_set(e, STATUS_NO_MEMORY, "plan: no memory to search");
    x->out = out;
    x->s = s;
    x->memory = out->memory;
    x->L = s->m->n_layers;
    x->n = s->c->n_nodes;
    x->max_depth = BASE_MIN(x->n, x->L);
    x->bound = x->hopeless = INFINITY;
    size_t depth = (size_t)x->max_depth, width = (size_t)x->L + 1;
    x->scratch = take(x, plan_scratch_doubles(x->n), sizeof(double));
    x->spare = take(x, PLAN_KINDS * (size_t)x->n, sizeof(int));
    x->rows = take(x, (depth + 1) * width, sizeof(double));
    x->from = take(x, (depth + 1) * width, sizeof(int));
    x->path = take(x, depth, sizeof(group *));
    x->tables = take(x, depth, sizeof(table *));
    x->hops = take(x, depth, sizeof(double));
    x->border = take(x, depth + 1, sizeof(int));
    out->best_with = take(x, (size_t)x->n, sizeof(double));
    double room = 0;
    for (int i = 0; i < x->n; i++)
        room += fmax(0, room_of(x, i));
    if (!x->failed) {
        for (int i = 0; i < x->n; i++)
            out->best_with[i] = INFINITY;
        for (size_t l = 1; l < width; l++)
            x->rows[l] = INFINITY;
        if (plan_span_bytes(s, plan_span_of(s->m, 0, x->L)) > room) {
            return STATUS_OK; /* nothing fits */
        } else if (s->r->shares) {
            pinned(x);
        } else if ((x->few = few(x))) {
            everything(x);
        } else {
            islands(x);
            exchanges(x);
        }
    }
    return x->failed ? err_set(e, STATUS_NO_MEMORY, "plan: no memory to search over %d nodes", x->n)
                     : STATUS_OK;
}
