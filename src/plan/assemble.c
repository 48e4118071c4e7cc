/*
 * The best structure that can be built from a few *items*: nodes, or groups of nodes that stay together. Every stage is a union of items (some
 * items are stages as they are), every order counts. Branch and bound, exact unless its counted work runs out:
 *
 * - Order aside, and hops as short as any into a group, the least time of m layers on some of the items R is a table over all R and m: the
 *   stage that holds R's lowest item, and the rest; or that item stays unused. So is the least possible slowest stage.
 * - The times in these tables begin as bounds (quick.c). What cannot be part of anything better than the best that is known is struck out,
 *   first by a bound that needs no table: every item takes as many layers as it has room for, each in the least time of any stage that it
 *   may be in, the quickest items first. Of what is left the most hopeful times are made exact, and so on until all that matter are.
 * - Some items R hold no more layers than go into their memory, and no fewer than do not go into that of the others: rows of the tables are
 *   only as wide as that.
 * - Stages are then put one after the other, with true hops; what the table says of the items that are left bounds what may come of it.
 *
 * Layers are counted from the first that may have a border before it, in blocks where there are many: then borders fall between blocks, and
 * what is found is near the best instead of the best (search_score puts the borders where they should be).
 *
 * What stages cost at least and the tables are in assemble_tables.c, exact costs and striking out in assemble_exact.c, the order of stages and
 * the whole here. Not here: shares and the exact time of a stage (search_cell), which items are tried (exchange.c).
 */
#include "plan/assemble.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 20 };

/* ---- one stage after the other -------------------------------------------------------------------------------------- */

/* Rows d + 1: what comes of the path of d stages when this set is its next. */
static void set_rows(assembly *a, int d, int set, double hop)
{
    size_t width = (size_t)a->width;
    double *sum = a->sum + (size_t)(d + 1) * width, *slow = a->slow + (size_t)(d + 1) * width;
    const double *cost = a->cost[d ? 0 : FIRST] + assemble_row(a, set);
    int most = a->most[d ? 0 : FIRST][set];
    for (int m = 0; m < a->width; m++)
        sum[m] = slow[m] = d || m > most ? INFINITY : cost[m];
    if (!d)
        return;
    assemble_part all = {0, a->n_layers};
    assemble_add_stage(a, sum, all, sum - width, all, hop, cost, 1, most);
    if (a->counts)
        assemble_add_slowest(a, slow, all, slow - width, all, hop, cost, 1, most);
}

/* The score when the path of d stages ends with this set, hop back included. */
static double score_with_last(const assembly *a, int d, int set, int nodes, double hop)
{
    size_t width = (size_t)a->width;
    const double *sum = a->sum + (size_t)d * width, *slow = a->slow + (size_t)d * width;
    const search_group *g = a->group[set];
    double all = INFINITY, slowest = INFINITY, back = 0;
    int ends = d ? LAST : FIRST | LAST;
    if (d + 1 < a->depth_least || a->most[ends][set] < 0)
        return INFINITY;
    const double *cost = a->cost[ends] + assemble_row(a, set);
    if (!d)
        all = slowest = cost[a->n_layers];
    for (int l = 1; d && l <= a->most[ends][set]; l++) {
        all = plan_less(all, sum[a->n_layers - l] + hop + cost[l]);
        if (a->counts)
            slowest = plan_less(slowest, plan_more(slow[a->n_layers - l], hop + cost[l]));
    }
    if (isinf(all))
        return INFINITY;
    slowest = plan_more(a->counts ? slowest : 0, all / (d + 1));
    double score = search_goal(a->x, nodes + g->n, 0, all, slowest);
    if (score >= assemble_best(a) || !d)
        return score;
    back = plan_hop_us(a->x->s, g->nodes, g->n, a->path[0]->nodes, a->path[0]->n,
                       plan_back_bytes(a->x->s, a->x->load));
    return search_goal(a->x, nodes + g->n, back, all, slowest);
}

/* No score of what goes on after the path of d + 1 stages is below. */
static double score_to_go(const assembly *a, int d, int left, int nodes)
{
    size_t width = (size_t)a->width;
    const double *sum = a->sum + (size_t)(d + 1) * width, *slow = a->slow + (size_t)(d + 1) * width;
    const double *rest = a->rest[LAST] + assemble_row(a, left),
                 *slowest = a->slowest + assemble_row(a, left);
    double least = INFINITY, pressed = INFINITY;
    if (d + 1 >= a->depth_most || !left)
        return INFINITY;
    for (int m = 0; m < a->n_layers; m++) {
        least = plan_less(least, sum[m] + rest[a->n_layers - m]);
        if (a->counts)
            pressed = plan_less(pressed, plan_more(slow[m], slowest[a->n_layers - m]));
    }
    a->x->work += 1.5 * a->n_layers;
    if (isinf(least))
        return INFINITY;
    double slow_us = a->counts ? plan_more(pressed, least / a->depth_most) : 0;
    return search_goal(a->x, nodes + 1, 0, least, slow_us);
}

static int more_hopeful(const void *a, const void *b)
{
    const assemble_child *p = a, *q = b;
    if (p->least != q->least)
        return p->least < q->least ? -1 : 1;
    return p->set < q->set ? -1 : p->set > q->set;
}

/* From the path's last stage, the union `last`, to every union of what is left. */
static void set_hops(assembly *a, int d, int last, int left)
{
    double *hop = a->hop + ((size_t)d << a->n);
    const double *from = a->hops + (size_t)last * (size_t)a->x->n;
    for (int i = 0; i < a->n; i++) {
        const search_group *g = a->items[i];
        hop[1 << i] = 0;
        for (int k = 0; k < g->n && left >> i & 1; k++)
            hop[1 << i] = plan_more(hop[1 << i], d ? from[g->nodes[k]] : 0);
    }
    for (int set = left & -left, low; set; set = (set - left) & left) {
        low = set & -set;
        if (set != low)
            hop[set] = plan_more(hop[low], hop[set ^ low]);
    }
}

static void extend(assembly *a, int d, int used, int last, int nodes)
{
    assemble_child *children = a->children + ((size_t)d << a->n);
    int left = ((1 << a->n) - 1) & ~used, n = 0;
    const double *hop = a->hop + ((size_t)d << a->n);
    set_hops(a, d, last, left);
    for (int i = 0; i < a->n; i++)
        for (int k = 0; k < a->n_active[i] && (left >> i & 1) && !assemble_spent(a); k++) {
            int set = a->active[((size_t)i << a->n) + (size_t)k];
            a->x->work += 2;
            if ((set & ~left) || isinf(hop[set]))
                continue;
            set_rows(a, d, set, hop[set]);
            double end = score_with_last(a, d, set, nodes, hop[set]);
            double go = score_to_go(a, d, left & ~set, nodes + a->group[set]->n);
            double least = plan_less(end, go) * (1 - 1e-9);
            if (least < assemble_best(a))
                children[n++] = (assemble_child){least, set};
        }
    qsort(children, (size_t)n, sizeof *children, more_hopeful);
    for (int i = 0; i < n && !assemble_spent(a) && children[i].least < assemble_best(a); i++) {
        int set = children[i].set;
        a->path[d] = a->group[set];
        if (score_with_last(a, d, set, nodes, hop[set]) * (1 - 1e-9) < assemble_best(a))
            search_score(a->x, a->path, d + 1, assemble_best(a) * a->slack);
        set_rows(a, d, set, hop[set]);
        if (score_to_go(a, d, left & ~set, nodes + a->group[set]->n) * (1 - 1e-9) <
            assemble_best(a))
            extend(a, d + 1, used | set, set, nodes + a->group[set]->n);
    }
}

/* ---- the whole ------------------------------------------------------------------------------------------------------ */

static assembly *make(searcher *x, int n)
{
    assembly *a = x->assembly[n];
    int dense = x->s->m->n_dense_layers;
    plan_goal goal = x->s->r->goal;
    size_t sets = (size_t)1 << n;
    if (a)
        return a;
    a = search_take(x, 1, sizeof *a);
    if (!a)
        return NULL;
    int behind =
        dense < x->L ? x->L - dense : x->L; /* layers with a border before them, or the first */
    *a = (assembly){.x = x, .n = n, .block = (behind + BLOCKS - 1) / BLOCKS};
    a->n_layers = behind / a->block;
    a->before = x->L - a->n_layers * a->block;
    a->slack = a->block > 1 ? 0.97 : 1;
    a->width = a->n_layers + 1;
    a->counts = goal == PLAN_TTFT ? x->s->r->prompt > PLAN_CHUNK : goal == PLAN_THROUGHPUT;
    size_t width = (size_t)a->width, depth = (size_t)n + 1;
    a->group = search_take(x, sets, sizeof *a->group);
    a->quick = search_take(x, sets, sizeof *a->quick);
    a->hop_in = search_take(x, sets, sizeof(double));
    a->hops = search_take(x, sets * (size_t)x->n, sizeof(double));
    a->hop = search_take(x, depth * sets, sizeof(double));
    for (int ends = 0; ends < ENDS; ends++) {
        a->cost[ends] = search_take(x, sets * width, sizeof(double));
        a->known[ends] = search_take(x, sets * width, sizeof(bool));
        a->most[ends] = search_take(x, sets, sizeof(int));
        a->rest[ends] = search_take(x, sets * width, sizeof(double));
        a->risk[ends] = search_take(x, sets * width, sizeof(double));
    }
    a->refused = search_take(x, sets, sizeof(double));
    a->no_hop = search_take(x, sets, sizeof(double));
    a->found_most = search_take(x, sets, sizeof(bool));
    a->shared = search_take(x, sets, sizeof(bool));
    a->slowest = search_take(x, sets * width, sizeof(double));
    a->holds = search_take(x, sets, sizeof(double));
    a->low = search_take(x, sets, sizeof(int));
    a->high = search_take(x, sets, sizeof(int));
    a->line = search_take(x, width, sizeof(double));
    a->sum = search_take(x, depth * width, sizeof(double));
    a->slow = search_take(x, depth * width, sizeof(double));
    a->active = search_take(x, depth * sets, sizeof(int));
    a->n_active = search_take(x, depth, sizeof(int));
    a->children = search_take(x, depth * sets, sizeof *a->children);
    a->choices = search_take(x, ENDS * sets * width, sizeof *a->choices);
    a->path = search_take(x, depth, sizeof *a->path);
    x->assembly[n] = x->failed ? NULL : a;
    return x->assembly[n];
}

/* Structures of [least, most] stages, whose load is the same. */
static void assemble_depths(assembly *a, int least, int most)
{
    size_t sets = (size_t)1 << a->n;
    search_set_load(a->x, most);
    a->depth_least = least;
    a->depth_most = most;
    memset(a->group, 0, sets * sizeof *a->group);
    memset(a->quick, 0, sets * sizeof *a->quick);
    memset(a->shared, 0, sets * sizeof *a->shared);
    memset(a->found_most, 0, sets * sizeof *a->found_most);
    memset(a->refused, 0, sets * sizeof *a->refused);
    if (assemble_spent(a) || !assemble_set_groups(a))
        return;
    assemble_set_widths(a);
    assemble_strike_early(a);
    assemble_refine_groups(a);
    if (!assemble_spent(a))
        assemble_sharpen(a);
    if (!assemble_spent(a) && isfinite(a->rest[FIRST | LAST][assemble_row(a, 1 << a->n) - 1]))
        extend(a, 0, 0, 0, 0);
}

/* Sequences of a step with so many stages. */
static int share_of(const searcher *x, int depth)
{
    int c = x->s->r->concurrency, parts = BASE_MIN(depth, c);
    return (c + parts - 1) / parts;
}

bool search_assemble(searcher *x, search_group *const *items, int n, int n_alone, double most)
{
    int depth = x->s->r->mode == PLAN_TENSOR ? 1 : BASE_MIN(n, x->max_depth);
    assembly *a = n < 1 ? NULL : make(x, n);
    bool all = true;
    if (!a)
        return false;
    a->items = items;
    a->n_alone = n_alone;
    a->work = most;
    if (x->s->r->goal != PLAN_THROUGHPUT) {
        assemble_depths(a, 1, depth);
        return !assemble_spent(a);
    }
    for (int last = depth, least; last > 0; last = least - 1) { /* deep ones first: most fit */
        for (least = last; least > 1 && share_of(x, least - 1) == share_of(x, last); least--)
            continue;
        a->work = x->work + (most - x->work) * (least > 1 ? 0.5 : 1);
        assemble_depths(a, least, last);
        all = all && !assemble_spent(a);
    }
    return all;
}
