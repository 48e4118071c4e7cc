/*
 * The search for a cut. A *structure* is a pipeline of groups of nodes. Given one, dynamic programming over layers finds the borders; the
 * time of some layers on a group is that of its best shares (share.c), which is computed only where it may matter:
 *
 * - *Optimistic rows.* Shares as if memory were endless, on a group whose memory were one store, cost a line in the number of layers. They
 *   give every structure a score that it cannot beat, for little: one sliding minimum a stage.
 * - *Exact rows* are computed for structures in the order of these scores, until no other can be among the best, and in them only for
 *   borders that may be part of something that is kept.
 * - Where the slowest stage counts (time to first token, throughput), the objective is a sum and a maximum: the structure is solved again
 *   with every stage pressed below a bound, halving what is left between the bounds, until nothing better can be between them.
 *
 * With six nodes or fewer every order of every grouping is looked at: which structures those are does not depend on speeds or memory, the
 * time of every cell never grows with a faster device, a faster link or more memory (share.c), and sums, maxima and minima of such values
 * do not either. So a better cluster never has a worse best plan, and one that fits still fits. More nodes: many.c chooses structures.
 */
#include "plan/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Layers of a cell with these ends; those behind a border are all of the last kind (border_allowed). */
static plan_span span_of(const searcher *x, int layers, int ends)
{
    const plan_model *m = x->s->m;
    bool plain = m->n_dense_layers == x->L;
    plan_span p = {plain ? layers : 0, plain ? 0 : layers, false, ends >> 1};
    return ends & 1 ? plan_span_of(m, 0, layers) : p;
}

/* hopes[ends][layers]: no cell is less. Shares as if memory were endless, and the flow of bytes into ranks that fill up. */
static const double *hopes_of(searcher *x, const search_group *g, search_table *t, int ends)
{
    if (t->hopes[ends])
        return t->hopes[ends];
    double *row = search_take(x, (size_t)x->L + 1, sizeof *row);
    if (!row)
        return NULL;
    bool fits = true;
    row[0] = INFINITY;
    for (int n = 1; n <= x->L; n++) {
        plan_span p = span_of(x, n, ends);
        fits = fits && (ends != 3 || n == x->L) ? plan_span_bytes(x->s, p) <= g->room : fits;
        row[n] = INFINITY;
        if (!fits)
            continue;
        plan_cost cost = plan_free_cost(&t->free, p);
        double ops = cost.compute_us - plan_free_units_us(&t->free, p);
        double least = plan_least_us(x->s, g->nodes, g->n, p, x->load, x->scratch);
        row[n] = plan_more(cost.compute_us, ops + least) + cost.sum_us;
        row[n] *= 1 - 1e-12; /* sums in another order */
        x->work += 20 + 30.0 * g->n;
    }
    return t->hopes[ends] = row;
}

/* A convex line of few pieces below hopes[0], beginning at 0 layers. */
static bool find_pieces(searcher *x, const search_group *g, search_table *t)
{
    const double *row = hopes_of(x, g, t, 0);
    double *step = x->line; /* [L + 1] from n − 1 layers to n */
    int most = x->L;
    if (!row)
        return false;
    while (most > 0 && isinf(row[most]))
        most--;
    for (int n = most; n > 0; n--) {
        step[n] = row[n] - (n > 1 ? row[n - 1] : 0);
        if (n < most)
            step[n] = plan_less(step[n], step[n + 1]);
    }
    t->n_pieces = 0;
    for (int n = 1; n <= most; n++) {
        int last = t->n_pieces - 1;
        bool same = last >= 0 && (step[n] <= t->piece_us[last] * 1.01 || last == SEARCH_PIECES - 1);
        if (same) {
            t->piece_layers[last]++;
            continue;
        }
        t->piece_us[++last] = step[n];
        t->piece_layers[last] = 1;
        t->n_pieces++;
    }
    return true;
}

static search_table *table_of(searcher *x, search_group *g)
{
    for (search_table *t = g->tables; t; t = t->next)
        if (t->sequences == x->load.sequences)
            return t;
    search_table *t = search_take(x, 1, sizeof *t);
    if (!t || !(t->free.units = search_take(x, 2 * PLAN_KINDS * (size_t)g->n, sizeof(int))))
        return NULL;
    t->sequences = x->load.sequences;
    plan_free_of(&t->free, x->s, g->nodes, g->n, x->load, g->worst, x->scratch);
    x->work += g->n > 1 ? 1000.0 * g->n : 800;
    if (!find_pieces(x, g, t))
        return NULL;
    t->next = g->tables;
    return g->tables = t;
}

static double cell_compute(searcher *x, const search_group *g, search_table *t, int first, int last)
{
    plan_span span = plan_span_of(x->s->m, first, last);
    plan_shares h = {g->n, g->nodes, x->spare, false};
    x->work += g->n > 1 ? 2000 + 800.0 * g->n : 100;
    if (plan_span_bytes(x->s, span) > g->room)
        return INFINITY;
    plan_cost cost = plan_stage_share(x->s, &h, span, x->load, g->worst, &t->free, x->scratch);
    return cost.compute_us + cost.sum_us;
}

/* Time of layers [first, last) on a group; infinite where they do not fit. Borders fall only between layers of one kind, so that a cell
 * depends on its ends and number of layers. */
static double cell(searcher *x, const search_group *g, search_table *t, int first, int last)
{
    int ends = (first == 0) | (last == x->L) << 1;
    if (!t->cells[ends]) {
        t->cells[ends] = search_take(x, (size_t)x->L + 1, sizeof(double));
        if (!t->cells[ends])
            return INFINITY;
        for (int i = 0; i <= x->L; i++)
            t->cells[ends][i] = NAN;
    }
    double *c = &t->cells[ends][last - first];
    if (isnan(*c))
        *c = cell_compute(x, g, t, first, last);
    return *c;
}

const double *search_hopes(searcher *x, search_group *g, int ends)
{
    search_table *t = table_of(x, g);
    return t ? hopes_of(x, g, t, ends) : NULL;
}

double search_cell(searcher *x, search_group *g, int layers, int ends, bool known)
{
    int border = x->s->m->n_dense_layers == x->L ? 1 : BASE_MAX(1, x->s->m->n_dense_layers);
    int first = ends & 1 ? 0 : ends & 2 ? x->L - layers : border, last = first + layers;
    search_table *t = g->tables;
    if (first < 0 || last > x->L || (first == 0) != (ends & 1) || (last == x->L) != (ends >> 1 & 1))
        return INFINITY; /* never so many */
    if (!known)
        t = table_of(x, g);
    while (t && t->sequences != x->load.sequences)
        t = t->next;
    if (known && (!t || !t->cells[ends]))
        return NAN;
    return !t ? NAN : known ? t->cells[ends][layers] : cell(x, g, t, first, last);
}

static bool border_allowed(const searcher *x, int layer)
{
    int dense = x->s->m->n_dense_layers;
    return layer >= dense || dense == x->L;
}

/* ---- optimistic rows ------------------------------------------------------------------------------------------------ */

/* out[l] = min over l − most <= k < l of in[k] + base + slope · (l − k), l ascending; in and out may not be the same. */
static void slide(searcher *x, double *out, const double *in, int n, int most, double base,
                  double slope)
{
    int head = 0, tail = 0;
    for (int l = 0; l < n; l++) {
        while (head < tail && x->queue[head] < l - most)
            head++;
        int k = head < tail ? x->queue[head] : -1;
        out[l] = k < 0 ? INFINITY : in[k] + base + slope * (l - k);
        if (isinf(in[l]))
            continue;
        while (head < tail &&
               in[x->queue[tail - 1]] - slope * x->queue[tail - 1] >= in[l] - slope * l)
            tail--;
        x->queue[tail++] = l;
    }
}

/* out[l] = min over k < l of in[k] + a group's pieces for l − k layers: of a convex line, the cheaper pieces come first. */
static void slide_pieces(searcher *x, double *out, const double *in, const search_table *t,
                         double hop)
{
    double *spare = x->line + 2 * (x->L + 1);
    for (int i = 0; i < t->n_pieces; i++) {
        slide(x, i ? spare : out, i ? out : in, x->L, t->piece_layers[i], i ? 0 : hop,
              t->piece_us[i]);
        for (int l = 0; i && l < x->L; l++)
            out[l] = plan_less(out[l], spare[l]);
    }
    for (int l = 0; !t->n_pieces && l < x->L; l++)
        out[l] = INFINITY;
}

/* Appends a group to the path; false when there is no way over it. */
static bool push(searcher *x, search_group *g)
{
    int L = x->L, width = L + 1, d = x->depth;
    if (!g || !g->linked || d >= x->max_depth)
        return false;
    search_table *t = table_of(x, g);
    if (!t)
        return false;
    double *row = x->hopes + (size_t)(d + 1) * (size_t)width, hop = 0;
    const double *before = x->hopes + (size_t)d * (size_t)width;
    bool reached = false;
    if (d) {
        const search_group *p = x->path[d - 1];
        double bytes = plan_hop_bytes(x->s, x->load);
        hop = plan_hop_us(x->s, p->nodes, p->n, g->nodes, g->n, bytes);
        if (isinf(hop))
            return false;
        const double *ends = hopes_of(x, g, t, 2);
        if (!ends)
            return false;
        slide_pieces(x, row, before, t, hop);
        row[L] = INFINITY;
        for (int k = 1; k < L; k++)
            row[L] = plan_less(row[L], before[k] + ends[L - k] + hop);
        x->work += 4.0 * p->n * g->n;
    } else {
        const double *first = hopes_of(x, g, t, 1), *all = hopes_of(x, g, t, 3);
        if (!first || !all)
            return false;
        for (int l = 0; l <= L; l++)
            row[l] = l == L ? all[L] : border_allowed(x, l) ? first[l] : INFINITY;
    }
    for (int l = 1; l <= L; l++)
        reached |= isfinite(row[l]);
    x->work += 20.0 * L;
    x->path[d] = g;
    x->table[d] = t;
    x->hop[d] = hop;
    x->depth = d + 1;
    x->out->tried++;
    return reached;
}

/* ---- scores --------------------------------------------------------------------------------------------------------- */

static double back_hop(const searcher *x, int depth)
{
    const search_group *a = x->path[depth - 1], *b = x->path[0];
    return depth < 2
               ? 0
               : plan_hop_us(x->s, a->nodes, a->n, b->nodes, b->n, plan_back_bytes(x->s, x->load));
}

static int nodes_of(const searcher *x, int depth)
{
    int n = 0;
    for (int d = 0; d < depth; d++)
        n += x->path[d]->n;
    return n;
}

/* The same formulas as plan_score. */
double search_goal(const searcher *x, int nodes, double back_us, double sum, double slowest)
{
    const plan_request *r = x->s->r;
    double ties = 1 + PLAN_TIES * nodes, once = sum + back_us;
    switch (r->goal) {
    case PLAN_FEWEST:
        return nodes * 1e9 + once;
    case PLAN_TTFT:
        return (once + (ceil((double)r->prompt / PLAN_CHUNK) - 1) * slowest) * ties;
    case PLAN_THROUGHPUT:
        return plan_more(once, ceil(r->concurrency / x->load.sequences) * slowest) * ties;
    default:
        return once * ties;
    }
}

static double score_of(const searcher *x, int depth, double sum, double slowest)
{
    return search_goal(x, nodes_of(x, depth), back_hop(x, depth), sum, slowest);
}

static bool slowest_counts(const searcher *x, int depth)
{
    return depth > 1 && (x->s->r->goal == PLAN_TTFT || x->s->r->goal == PLAN_THROUGHPUT);
}

/* A sum of stages from which on the score is at least `score`: the slowest is at least the mean. */
static double sum_for(const searcher *x, int depth, double score)
{
    const plan_request *r = x->s->r;
    double nodes = nodes_of(x, depth), time = score / (1 + PLAN_TIES * nodes), sum;
    if (isinf(score))
        return INFINITY;
    switch (r->goal) {
    case PLAN_FEWEST:
        sum = score - nodes * 1e9 - back_hop(x, depth);
        break;
    case PLAN_TTFT:
        sum =
            (time - back_hop(x, depth)) / (1 + (ceil((double)r->prompt / PLAN_CHUNK) - 1) / depth);
        break;
    case PLAN_THROUGHPUT:
        sum = fmin(time - back_hop(x, depth),
                   time * depth / ceil(r->concurrency / x->load.sequences));
        break;
    default:
        sum = time - back_hop(x, depth);
    }
    return sum * (1 + 1e-12);
}

/* A time that the slowest stage cannot stay below: the stages together do not hold all layers within less. */
static double bottleneck(const searcher *x, int depth)
{
    double low = 0, high = 0;
    for (int step = -1; step < 24; step++) {
        double bound = step < 0 ? INFINITY : low + (high - low) / 2, longest = 0;
        int layers = 0;
        for (int d = 0; d < depth; d++) {
            const double *row = x->table[d]->hopes[d ? d == depth - 1 ? 2 : 0 : depth == 1 ? 3 : 1];
            int holds = 0, over = x->L + 1;
            while (holds + 1 < over) {
                int middle = (holds + over) / 2;
                if (row[middle] + x->hop[d] < bound)
                    holds = middle;
                else
                    over = middle;
            }
            layers += holds;
            longest = plan_more(longest, holds ? row[holds] + x->hop[d] : 0);
        }
        if (step < 0)
            high = longest;
        else if (layers >= x->L)
            high = bound;
        else
            low = bound;
    }
    return low * (1 - 1e-9);
}

/* ---- keeping the best ----------------------------------------------------------------------------------------------- */

static uint64_t key_of(const searcher *x, int depth)
{
    uint64_t key = (uint64_t)depth;
    for (int d = 0; d < depth; d++) /* whatever the order */
        key += hash_u64(x->path[d]->key, 7);
    return key;
}

/* What a structure must beat to be kept: the last of the ranked, or the same groups in another order. */
static double must_beat(const searcher *x, int depth)
{
    const plan_search *o = x->out;
    uint64_t key = key_of(x, depth);
    for (int i = 0; i < o->n_found; i++)
        if (x->keys[i] == key)
            return plan_less(o->found[i].score, x->limit);
    return isfinite(x->limit)          ? x->limit
           : o->n_found == PLAN_RANKED ? o->found[PLAN_RANKED - 1].score
                                       : INFINITY;
}

static bool found_copy(searcher *x, plan_found *f, int depth, double score)
{
    plan_found n = {.n_stages = depth, .score = score};
    n.start = search_take(x, (size_t)depth + 1, sizeof(int));
    n.border = search_take(x, (size_t)depth + 1, sizeof(int));
    n.nodes = search_take(x, (size_t)nodes_of(x, depth), sizeof(int));
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

/* ---- exact rows ----------------------------------------------------------------------------------------------------- */

/* rest[d, l]: layers from l on by the groups from d on, optimistic. */
static void look_ahead(searcher *x, int depth)
{
    int L = x->L, width = L + 1;
    for (int d = depth; d >= 1; d--) {
        double *rest = x->rest + (size_t)d * (size_t)width;
        if (d == depth) {
            for (int l = 0; l <= L; l++)
                rest[l] = l == L ? 0 : INFINITY;
            continue;
        }
        const search_table *t = x->table[d];
        if (d == depth - 1) {
            for (int l = 0; l <= L; l++)
                rest[l] = l > 0 && l < L ? t->hopes[2][L - l] + x->hop[d] : INFINITY;
            continue;
        }
        double *in = x->line, *out = x->line + width;
        const double *next = x->rest + (size_t)(d + 1) * (size_t)width;
        for (int l = 0; l < L; l++) /* layers 1 .. L − 1, backwards */
            in[l] = l && l < L ? next[L - l] : INFINITY;
        slide_pieces(x, out, in, t, x->hop[d]);
        for (int l = 0; l <= L; l++)
            rest[l] = l > 0 && l < L ? out[L - l] : INFINITY;
    }
    x->work += 20.0 * L * depth;
}

typedef struct solution {
    double sum, slowest; /* sum infinite = none */
} solution;

/* The exact row d + 1 from row d: only what may end below `most` in all, with every stage within `bound`. */
static void row_of(searcher *x, int d, int depth, double most, double bound, bool below)
{
    int L = x->L, width = L + 1;
    const double *before = x->rows + (size_t)d * (size_t)width;
    const double *rest = x->rest + (size_t)d * (size_t)width, *next = rest + width;
    double *row = x->rows + (size_t)(d + 1) * (size_t)width, hop = x->hop[d];
    int *from = x->from + (size_t)(d + 1) * (size_t)width;
    const search_group *g = x->path[d];
    search_table *t = x->table[d];
    const double *middle = t->hopes[d ? 0 : 1], *end = t->hopes[d ? 2 : 3];
    for (int l = 0; l <= L; l++)
        row[l] = INFINITY;
    for (int k = d ? 1 : 0; k < (d ? L : 1); k++) {
        if (d && !(before[k] + rest[k] < most))
            continue;
        for (int l = d == depth - 1 ? L : k + 1; l <= L; l++) {
            if (l < L && !border_allowed(x, l))
                continue;
            double hoped = (l == L ? end : middle)[l - k] + hop;
            if (hoped > bound)
                break; /* more layers take longer */
            x->work += 15;
            if (!(before[k] + hoped + next[l] < most) || before[k] + hoped >= row[l])
                continue;
            double stage = cell(x, g, t, k, l) + hop;
            if (stage > bound || (below && stage >= bound) || before[k] + stage >= row[l])
                continue;
            row[l] = before[k] + stage;
            from[l] = k;
        }
    }
}

static solution solve(searcher *x, int depth, double most, double bound, bool below)
{
    int width = x->L + 1, l = x->L;
    for (int d = 0; d < depth; d++)
        row_of(x, d, depth, most, bound, below);
    solution got = {x->rows[(size_t)depth * (size_t)width + (size_t)x->L], 0};
    if (isinf(got.sum))
        return got;
    for (int d = depth; d > 0; d--) {
        x->border[d] = l;
        l = x->from[(size_t)d * (size_t)width + (size_t)l];
        got.slowest = fmax(got.slowest, cell(x, x->path[d - 1], x->table[d - 1], l, x->border[d]) +
                                            x->hop[d - 1]);
    }
    x->border[0] = 0;
    return got;
}

static void offer(searcher *x, int depth, solution got)
{
    double score = score_of(x, depth, got.sum, got.slowest);
    if (!isfinite(score))
        return;
    keep(x, depth, score);
    x->offered = plan_less(x->offered, score);
    if (score < x->limit && isfinite(x->limit))
        x->limit = score;
}

/* Solutions whose slowest stage is between low and high; each has at least high's sum. */
static void press(searcher *x, int depth, double low, solution high, int *probes)
{
    while (*probes != 0) {
        double best = must_beat(x, depth);
        low = fmax(low, high.sum / depth * (1 - 1e-12));
        if (score_of(x, depth, high.sum, low) >= best * (1 - 1e-10))
            return;
        double middle = low + (high.slowest - low) / 2;
        solution got = solve(x, depth, sum_for(x, depth, best), middle, false);
        --*probes;
        if (isfinite(got.sum)) {
            offer(x, depth, got);
            press(x, depth, low, got, probes);
            best = must_beat(x, depth);
        }
        low = middle; /* what is left is between the middle and high */
        if (score_of(x, depth, high.sum, low) >= best * (1 - 1e-10) || *probes == 0)
            return;
        got = solve(x, depth, sum_for(x, depth, best), high.slowest, true);
        --*probes;
        if (isinf(got.sum) || got.slowest >= high.slowest)
            return;
        offer(x, depth, got);
        high = got;
        if (high.slowest <= low)
            return;
    }
}

/* The path's first `depth` groups, exactly, when its optimistic score may be kept. */
static void settle(searcher *x, int depth)
{
    double best = must_beat(x, depth), low = 0;
    if (slowest_counts(x, depth)) {
        double sum = x->hopes[(size_t)depth * (size_t)(x->L + 1) + (size_t)x->L];
        low = bottleneck(x, depth);
        if (score_of(x, depth, sum, plan_more(low, sum / depth)) * (1 - 1e-12) >= best)
            return;
    }
    look_ahead(x, depth);
    solution got = solve(x, depth, sum_for(x, depth, best), INFINITY, false);
    if (isinf(got.sum))
        return;
    offer(x, depth, got);
    int probes = x->probes ? x->probes : -1;
    if (slowest_counts(x, depth))
        press(x, depth, low, got, &probes);
}

/* The score that the path's first `depth` groups cannot beat. */
static double hoped_score(searcher *x, int depth)
{
    double sum = x->hopes[(size_t)depth * (size_t)(x->L + 1) + (size_t)x->L];
    if (isinf(sum))
        return INFINITY;
    double score = score_of(x, depth, sum, sum / depth) * (1 - 1e-12);
    for (int d = 0; d < depth; d++)
        for (int i = 0; i < x->path[d]->n; i++) {
            double *least = &x->hope_with[x->path[d]->nodes[i]];
            *least = fmin(*least, score);
        }
    return score;
}

/* ---- one structure -------------------------------------------------------------------------------------------------- */

void search_set_load(searcher *x, int depth)
{
    const plan_request *r = x->s->r;
    plan_load before = x->load;
    if (r->goal == PLAN_TTFT)
        x->load = plan_load_prompt(r);
    else if (r->goal == PLAN_THROUGHPUT)
        x->load =
            plan_load_decode(r, ceil((double)r->concurrency / BASE_MIN(depth, r->concurrency)));
    else
        x->load = plan_load_decode(r, 1);
    if (x->load.sequences != before.sequences || x->load.tokens != before.tokens)
        x->depth = 0;
}

bool search_mode_allows(const searcher *x, const search_group *g, int depth)
{
    plan_mode mode = x->s->r->mode;
    return mode == PLAN_ANY || (mode == PLAN_TENSOR ? depth == 0 : g->n == 1);
}

/* Makes the path these groups, keeping what it begins with; how many could be pushed. */
static int walk(searcher *x, search_group *const *groups, int n)
{
    int same = 0;
    while (same < n && same < x->depth && x->path[same] == groups[same])
        same++;
    x->depth = same;
    for (int d = same; d < n; d++)
        if (!groups[d] || !search_mode_allows(x, groups[d], d) || !push(x, groups[d]))
            return d;
    return n;
}

void search_try(searcher *x, search_group *const *groups, int n)
{
    const plan_search *o = x->out;
    search_set_load(x, n);
    if (x->n > SEARCH_FEW && o->n_found == PLAN_RANKED &&
        search_quick_score(x, groups, n) >= o->found[PLAN_RANKED - 1].score)
        return;
    if (walk(x, groups, n) == n && hoped_score(x, n) < must_beat(x, n))
        settle(x, n);
}

double search_score(searcher *x, search_group *const *groups, int n, double most)
{
    search_set_load(x, n);
    if (search_quick_score(x, groups, n) >= most)
        return INFINITY;
    x->limit = most;
    x->offered = INFINITY;
    if (walk(x, groups, n) == n && hoped_score(x, n) < must_beat(x, n))
        settle(x, n);
    x->limit = INFINITY;
    return x->offered < most ? x->offered : INFINITY;
}

void search_try_prefixes(searcher *x, search_group *const *groups, int n)
{
    search_set_load(x, 1);
    n = walk(x, groups, n);
    for (int tried = 0; tried < n; tried++) { /* the most hopeful first */
        int best = 0;
        double least = INFINITY;
        for (int d = 1; d <= n; d++) {
            double score = tried ? x->line[3 * (x->L + 1) + d]
                                 : (x->line[3 * (x->L + 1) + d] = hoped_score(x, d));
            if (score < least) {
                least = score;
                best = d;
            }
        }
        if (!best)
            return;
        x->line[3 * (x->L + 1) + best] = INFINITY;
        if (least < must_beat(x, best))
            settle(x, best);
    }
}

/* ---- few nodes: everything ------------------------------------------------------------------------------------------ */

typedef struct structure {
    double hoped;
    uint64_t code; /* six bits a group, the first lowest */
    int depth;
} structure;

enum { SETTLED_FIRST = 16 }; /* structures before the others' bounds are sharpened */

typedef struct structures {
    structure *all; /* arena */
    size_t n, room;
} structures;

static void note(searcher *x, structures *all, uint64_t code, int depth)
{
    double hoped = hoped_score(x, depth);
    if (isinf(hoped))
        return;
    if (all->n == all->room) {
        size_t room = all->room ? 2 * all->room : 512;
        structure *more = search_take(x, room, sizeof *more);
        if (!more)
            return;
        if (all->n)
            memcpy(more, all->all, all->n * sizeof *more);
        all->all = more;
        all->room = room;
    }
    all->all[all->n++] = (structure){hoped, code, depth};
}

static search_group *few_group(searcher *x, uint64_t subset)
{
    uint64_t bits[SEARCH_WORDS] = {subset};
    if (!x->few[subset])
        x->few[subset] = search_group_of_bits(x, bits);
    return x->few[subset];
}

static void descend(searcher *x, structures *all, unsigned used, uint64_t code, int depth,
                    int target)
{
    unsigned every = (1u << x->n) - 1, rest = every & ~used; /* subsets ascend */
    for (unsigned subset = (0 - rest) & rest; subset; subset = (subset - rest) & rest) {
        uint64_t here = code | (uint64_t)subset << (6 * depth);
        search_group *g = few_group(x, subset);
        if (x->failed)
            return;
        x->depth = depth;
        if (!search_mode_allows(x, g, depth) || !push(x, g))
            continue;
        if (!target || depth + 1 == target)
            note(x, all, here, depth + 1);
        if (depth + 1 < x->max_depth && (!target || depth + 1 < target))
            descend(x, all, used | subset, here, depth + 1, target);
    }
}

static int more_hopeful(const void *a, const void *b)
{
    const structure *p = a, *q = b;
    if (p->hoped != q->hoped)
        return p->hoped < q->hoped ? -1 : 1;
    return p->code < q->code ? -1 : p->code > q->code;
}

static int groups_of(searcher *x, const structure *w, search_group **groups)
{
    for (int d = 0; d < w->depth; d++)
        groups[d] = few_group(x, w->code >> (6 * d) & 63);
    return w->depth;
}

/* Better bounds for structures whose slowest stage counts: what it cannot stay below. */
static void sharpen(searcher *x, structure *all, size_t n)
{
    search_group *groups[SEARCH_FEW];
    double bytes = plan_hop_bytes(x->s, x->load);
    for (size_t i = 0; i < n; i++) {
        structure *w = &all[i];
        int depth = groups_of(x, w, groups);
        search_set_load(x, depth);
        if (w->hoped >= x->out->found[x->out->n_found - 1].score || depth < 2)
            continue;
        for (int d = 0; d < depth; d++) {
            const search_group *p = d ? groups[d - 1] : NULL, *g = groups[d];
            x->path[d] = groups[d];
            x->table[d] = table_of(x, groups[d]);
            x->hop[d] = d ? plan_hop_us(x->s, p->nodes, p->n, g->nodes, g->n, bytes) : 0;
            if (!x->table[d] || !hopes_of(x, g, x->table[d], 1) ||
                !hopes_of(x, g, x->table[d], 2) || !hopes_of(x, g, x->table[d], 3))
                return;
        }
        double sum = sum_for(x, depth, w->hoped) * (1 - 1e-11);
        double score = score_of(x, depth, sum, plan_more(bottleneck(x, depth), sum / depth));
        w->hoped = plan_more(w->hoped, score);
    }
    x->depth = 0; /* rows are those of other paths */
    qsort(all, n, sizeof *all, more_hopeful);
}

static void everything(searcher *x)
{
    structures all = {0};
    search_group *groups[SEARCH_FEW];
    plan_search *o = x->out;
    if (x->s->r->goal == PLAN_THROUGHPUT) {
        for (int depth = 1; depth <= x->max_depth; depth++) {
            search_set_load(x, depth);
            descend(x, &all, 0, 0, 0, depth);
        }
    } else {
        search_set_load(x, 1);
        descend(x, &all, 0, 0, 0, 0);
    }
    if (all.n)
        qsort(all.all, all.n, sizeof *all.all, more_hopeful);
    bool sharp = !slowest_counts(x, 2);
    for (size_t i = 0; i < all.n && !x->failed; i++) {
        if (o->n_found && (x->any_will_do || (o->n_found == PLAN_RANKED &&
                                              all.all[i].hoped >= o->found[PLAN_RANKED - 1].score)))
            break;
        if (!sharp && i >= SETTLED_FIRST && o->n_found == PLAN_RANKED) {
            sharpen(x, all.all + i, all.n - i);
            sharp = true;
        }
        search_try(x, groups, groups_of(x, &all.all[i], groups));
    }
}

/* Shares are given: one group of all. */
static void pinned(searcher *x)
{
    uint64_t bits[SEARCH_WORDS] = {0};
    for (int i = 0; i < x->n; i++)
        bits[i / 64] |= 1ull << (i % 64);
    search_group *g = search_group_of_bits(x, bits);
    search_try(x, &g, 1);
}

/* ---- the whole ------------------------------------------------------------------------------------------------------ */

static void make_rows(searcher *x)
{
    size_t depth = (size_t)x->max_depth, width = (size_t)x->L + 1, n = (size_t)x->n;
    x->scratch = plan_scratch_create(x->memory, x->n);
    x->failed |= !x->scratch;
    x->spare = search_take(x, PLAN_KINDS * n, sizeof(int));
    x->rows = search_take(x, (depth + 1) * width, sizeof(double));
    x->hopes = search_take(x, (depth + 1) * width, sizeof(double));
    x->rest = search_take(x, (depth + 1) * width, sizeof(double));
    x->from = search_take(x, (depth + 1) * width, sizeof(int));
    x->path = search_take(x, depth, sizeof *x->path);
    x->table = search_take(x, depth, sizeof *x->table);
    x->hop = search_take(x, depth, sizeof(double));
    x->border = search_take(x, depth + 1, sizeof(int));
    x->line = search_take(x, 3 * width + depth + 1, sizeof(double));
    x->queue = search_take(x, width, sizeof(int));
    x->hope_with = search_take(x, n, sizeof(double));
    x->out->best_with = search_take(x, n, sizeof(double));
    for (int i = 0; !x->failed && i < x->n; i++)
        x->hope_with[i] = x->out->best_with[i] = INFINITY;
    for (size_t l = 1; !x->failed && l < width; l++)
        x->rows[l] = x->hopes[l] = INFINITY;
}

status plan_search_run(plan_search *out, const plan_shape *s, bool any_will_do, err *e)
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
    x->any_will_do = any_will_do;
    x->limit = x->offered = INFINITY;
    make_rows(x);
    double room = 0, fixed = plan_rank_fixed_bytes(s, (plan_span){0, 0, false, false});
    for (int i = 0; i < x->n; i++) /* what no rank can use is not room */
        room += fmax(0, plan_node_room(s, i) - fixed);
    if (!x->failed) {
        if (plan_span_bytes(s, plan_span_of(s->m, 0, x->L)) > room)
            return STATUS_OK; /* nothing fits */
        if (s->r->shares)
            pinned(x);
        else if (x->n <= SEARCH_FEW)
            everything(x);
        else
            search_many(x);
        for (int i = 0; !x->failed && i < x->n; i++) /* looked at, but not worth settling */
            if (isinf(out->best_with[i]))
                out->best_with[i] = x->hope_with[i];
    }
    return x->failed ? err_set(e, STATUS_NO_MEMORY, "plan: no memory to search over %d nodes", x->n)
                     : STATUS_OK;
}
