/* Random models and clusters for the planner's tests; the same seed gives the same ones. */
#ifndef TESTS_PLAN_RANDOM_H
#define TESTS_PLAN_RANDOM_H

#include "plan/plan.h"

#include <stdio.h>

enum { RANDOM_NODES = 16 };

typedef struct random_case {
    plan_model model;
    plan_node nodes[RANDOM_NODES];
    plan_link links[RANDOM_NODES * RANDOM_NODES];
    plan_cluster cluster;
    plan_request request;
    plan_engine engine;
    uint64_t state;
} random_case;

static inline uint64_t random_next(random_case *c)
{
    c->state = hash_u64(c->state + 0x9e3779b97f4a7c15ull, 77);
    return c->state;
}

static inline int random_below(random_case *c, int n)
{
    return (int)(random_next(c) % (uint64_t)n);
}

/* Between low and high, as many small as large ones. */
static inline double random_scale(random_case *c, double low, double high)
{
    double x = (double)(random_next(c) >> 11) / 9007199254740992.0, ratio = high / low, y = low;
    for (int i = 0; i < 16;
         i++, x *= 2) { /* low * ratio^x by its bits, so that every libm gives the same */
        double root = ratio;
        for (int k = 0; k <= i; k++)
            root = root > 0 ? __builtin_sqrt(root) : 1;
        if (x >= 1)
            x -= 1;
        if (x >= 0.5)
            y *= root;
    }
    return y;
}

static inline void random_links(random_case *c)
{
    int n = c->cluster.n_nodes, island[RANDOM_NODES];
    double near = random_scale(c, 5, 200), far = random_scale(c, 50, 5000);
    for (int i = 0; i < n; i++)
        island[i] = random_below(c, 3);
    for (int i = 0; i < n; i++)
        for (int k = i + 1; k < n; k++) {
            plan_link l = {island[i] == island[k] ? near : far, random_scale(c, 5e7, 5e9)};
            if (random_below(c, 12) == 0)
                l = (plan_link){random_scale(c, 5, 5000), random_below(c, 3) ? 1e9 : 0};
            c->links[i * n + k] = c->links[k * n + i] = l;
        }
}

/* n nodes of which all together have between half and five times the memory that the model needs. */
static inline void random_nodes(random_case *c, int n)
{
    plan_size size;
    plan_model_size(&size, &c->model);
    double state = size.state_bytes_per_token * (double)c->request.context * c->request.concurrency;
    double scratch = 4.0 * 256 * 8 * c->model.d_model;
    for (int i = 0; i < n; i++) {
        plan_node *node = &c->nodes[i];
        *node = (plan_node){.host = -1};
        snprintf(node->name, sizeof node->name, "node-%c", 'a' + i);
        node->memory_bytes = (size.weight_bytes + state + scratch) / n * random_scale(c, 0.5, 5);
        node->reserve_bytes = node->memory_bytes * 0.05;
        node->bandwidth = random_scale(c, 1e10, 1e12);
        node->rate = node->bandwidth * random_scale(c, 3, 100);
    }
    c->cluster = (plan_cluster){n, c->nodes, c->links};
    random_links(c);
}

#endif
