/*
 * plans: what `shoal plan` reads and prints beside its options: clusters from a JSON file or a short text ("8xm4-pro/64G@thunderbolt5"), and
 * plans as a table, a diagram in text, JSON and SVG. docs/planner.md describes the file.
 */
#ifndef SHOAL_CLI_PLANS_H
#define SHOAL_CLI_PLANS_H

#include "plan/plan.h"

#include <jansson.h>

typedef struct plans_cluster {
    plan_node nodes[PLAN_NODES];
    plan_link links[PLAN_NODES * PLAN_NODES];
    bool is_this
        [PLAN_NODES]; /* the machine that plans: its speeds and memory are not filled in (plans_measure) */
    plan_link common; /* between nodes of which nothing else is said */
    plan_cluster cluster;
} plans_cluster;

/* text: the path of a file (ends in .json, or begins with / or .), or "COUNTxDEVICE/MEMORY,...@LINK". Heap memory: base_free. */
status plans_cluster_read(plans_cluster **out, const char *text, err *e);

/* Fills in the nodes `this` from the measured profile, for weights of about so many bits. Measures when nothing is kept. */
status plans_measure(plans_cluster *c, double bits, err *e);

typedef struct plans_answer {
    const plan_model *model;
    const plan_cluster *cluster;
    const plan_engine *engine;
    const plan_request *request;
    const plan_result *result;
    double kwh_price,
        token_price; /* US dollars: a kWh, a million tokens elsewhere; 0 = not asked */
} plans_answer;

/* Money for a plan at full use: what its nodes cost and draw. */
typedef struct plans_money {
    double price, watts;       /* of all nodes used */
    bool priced;               /* every node has a price and watts */
    double energy_per_million; /* dollars a million tokens, at the throughput of the concurrency */
    double even_tokens, even_days; /* break-even against token_price; infinite when never */
} plans_money;
plans_money plans_money_of(const plans_answer *a, const plan_cut *p);

/* Three digits and no exponent: "0.123", "15.8", "3741". */
const char *plans_figure(char out[32], double x);
/* The same of a time: "569 us", "14.5 ms", "41.6 s". */
const char *plans_span(char out[32], double us);

void plans_print(const plans_answer *a);
json_t *plans_json(const plans_answer *a);
void plans_svg(sb *out, const plans_answer *a);
void plans_print_known(void);
json_t *plans_known_json(void);

#endif
