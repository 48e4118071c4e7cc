/*
 * Which structures of more than six nodes are tried first: islands of the link graph under each latency; in each, tensor groups of the fastest
 * nodes, pipelines by speed and by memory, equal groups in a row, finer islands in a row. They are beginnings for exchange.c.
 */
#include "plan/search.h"

#include <math.h>
#include <string.h>

enum { CLASSES = 8 };

static void try_pipeline(searcher *x, search_group *const *groups, int n)
{
    n = BASE_MIN(n, x->max_depth);
    if (x->s->r->goal != PLAN_THROUGHPUT) {
        search_try_prefixes(x, groups, n);
        return;
    }
    for (int k = 1; k < n; k += 1 + k / 4)
        search_try(x, groups, k);
    if (n)
        search_try(x, groups, n);
}

/* ---- many nodes: islands -------------------------------------------------------------------------------------------- */

typedef enum order { BY_SPEED, BY_MEMORY, BY_NAME } order;

static bool before(const searcher *x, order o, int a, int b)
{
    const plan_node *p = &x->s->c->nodes[a], *q = &x->s->c->nodes[b];
    if (o == BY_SPEED && p->bandwidth != q->bandwidth)
        return p->bandwidth > q->bandwidth;
    if (o == BY_SPEED && p->rate != q->rate)
        return p->rate > q->rate;
    if (o == BY_MEMORY && plan_node_room(x->s, a) != plan_node_room(x->s, b))
        return plan_node_room(x->s, a) > plan_node_room(x->s, b);
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
        search_group *g = search_group_of(x, nodes, k);
        search_try(x, &g, 1);
    }
    search_group *g = search_group_of(x, nodes, n);
    search_try(x, &g, 1);
}

static void singles(searcher *x, const int *nodes, int n, search_group **groups)
{
    for (int i = 0; i < n; i++)
        groups[i] = search_group_of(x, &nodes[i], 1);
    try_pipeline(x, groups, n);
}

/* Groups of k in a row, in the order of the nodes. */
static void rows_of(searcher *x, const int *nodes, int n, int k, search_group **groups)
{
    int m = 0;
    for (int i = 0; i < n; i += k)
        groups[m++] = search_group_of(x, nodes + i, BASE_MIN(k, n - i));
    try_pipeline(x, groups, m);
}

/* One tensor group of the first k, then the others one by one. */
static void head_and_singles(searcher *x, const int *nodes, int n, int k, search_group **groups)
{
    int m = 0;
    groups[m++] = search_group_of(x, nodes, k);
    for (int i = k; i < n; i++)
        groups[m++] = search_group_of(x, &nodes[i], 1);
    try_pipeline(x, groups, m);
}

static void island_cuts(searcher *x, int *nodes, int n, search_group **groups)
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
static void islands_in_a_row(searcher *x, const int *island, int *nodes, search_group **groups,
                             int most)
{
    int m = 0;
    for (int root = 0; root < x->n; root++) {
        int n = members(x, island, root, nodes);
        if (!n)
            continue;
        sort_nodes(x, BY_SPEED, nodes, n);
        search_group *g = search_group_of(x, nodes, BASE_MIN(n, most));
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
    int *island = search_take(x, n, sizeof(int)), *nodes = search_take(x, n, sizeof(int));
    search_group **groups = search_take(x, n, sizeof(search_group *));
    if (!island || !nodes || !groups)
        return;
    for (int i = 0; i < x->n; i++) {
        search_group *g = search_group_of(x, &i, 1);
        search_try(x, &g, 1);
    }
    int classes = thresholds(x, latency);
    for (int c = 0; c < classes && !x->failed && !(x->any_will_do && x->out->n_found); c++) {
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

void search_many(searcher *x)
{
    x->probes = 8;
    islands(x);
    if (!x->any_will_do || !x->out->n_found)
        search_exchange(x);
}
