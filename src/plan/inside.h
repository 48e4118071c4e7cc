/*
 * Inside of src/plan: the shape of a question (bytes and multiply-adds of every unit of a cut), what one stage of it costs, and the search
 * over stages. cost.c holds the first two, search.c the third, plan.c what the caller sees.
 */
#ifndef SHOAL_PLAN_INSIDE_H
#define SHOAL_PLAN_INSIDE_H

#include "plan/plan.h"

/* A node must gain this share of a score to be taken: of equals the fewest nodes. */
#define PLAN_TIES 5e-3

enum { PLAN_CHUNK = 256 }; /* tokens of a prompt that go through a stage at once */

/* Parts of a layer, in stored bytes; multiply-adds of one token are the parameters read. */
typedef struct plan_shape {
    const plan_model *m;
    const plan_cluster *c;
    const plan_engine *g;
    const plan_request *r;
    int n_units[PLAN_KINDS];        /* sliced experts: columns / 32 */
    double weight, expert_weight;   /* bytes a parameter */
    double attention_fixed, router; /* parameters that every rank holds, a layer */
    double head, kv_head;           /* parameters of a query head, of a K/V head */
    double feed, expert, shared,
        row16; /* parameters of a unit; expert: of 32 columns of one expert, shared: of all shared ones */
    double state_fixed, state_kv_head; /* bytes a position a layer: replicated, of a K/V head */
    double state_positions;            /* a sequence's memory, mean over layers */
    double head_macs;                  /* of a query head with one position */
    int ops_dense, ops_expert;         /* a layer */
} plan_shape;

void plan_shape_of(plan_shape *out, const plan_model *m, const plan_cluster *c,
                   const plan_engine *g, const plan_request *r);

/* What a stage holds and what goes through it. */
typedef struct plan_span {
    int n_dense, n_expert; /* layers */
    bool first, last;      /* has the embedding, the output matrix */
} plan_span;

typedef struct plan_load {
    double tokens, sequences; /* of a step; sequences share nothing but weights */
    double positions;         /* before each token, mean */
} plan_load;

plan_span plan_span_of(const plan_model *m, int first, int last);
plan_load plan_load_decode(const plan_request *r, double sequences);
plan_load plan_load_prompt(const plan_request *r);

/* How the ranks of a stage share it: units[kind * n + i]. */
typedef struct plan_shares {
    int n;
    const int *nodes;
    int *units; /* [PLAN_KINDS, n] */
    bool whole; /* experts are units */
} plan_shares;

typedef struct plan_cost {
    double compute_us, sum_us; /* infinite when a rank's memory does not hold it */
} plan_cost;

/* Memory of rank i: weights, state and scratch; the reserve is the node's. */
typedef struct plan_need {
    double weights, state, scratch;
} plan_need;
plan_need plan_stage_need(const plan_shape *s, const plan_shares *h, plan_span p, int i);
bool plan_stage_fits(const plan_shape *s, const plan_shares *h, plan_span p);

/* With given shares; does not look at memory. */
plan_cost plan_stage_cost(const plan_shape *s, const plan_shares *h, plan_span p, plan_load l,
                          plan_link worst);
/* Attention by heads or by K/V groups, experts sliced or whole: a set of bits, PLAN_VARIANTS = all are tried, with THOROUGH in more ways
 * where memory binds. */
enum { PLAN_VARIANTS = 15 + 16, PLAN_THOROUGH = 16 };

/* Chooses the shares for this load under the memory caps and returns their cost. scratch: [plan_scratch_doubles(n)]. */
plan_cost plan_stage_share(const plan_shape *s, plan_shares *h, plan_span p, plan_load l,
                           plan_link worst, int variants, double *scratch);
size_t plan_scratch_doubles(int n);
/* The same as if memory were endless: the shares then do not depend on the number of layers. Returns the chosen variant. */
int plan_share_free(const plan_shape *s, plan_shares *h, plan_span p, plan_load l, plan_link worst,
                    double *scratch);
/* Moves units between ranks while that is quicker: where memory binds, water-filling kind by kind is not always the best. Shares must
 * fit. Only for a plan that is shown: it takes milliseconds. */
void plan_stage_polish(const plan_shape *s, plan_shares *h, plan_span p, plan_load l,
                       plan_link worst);
/* Weights and state of a span, once: the least that its ranks need together. */
double plan_span_bytes(const plan_shape *s, plan_span p);
/* The slowest link inside a group; bandwidth 0 when two of it have none. */
plan_link plan_worst_link(const plan_cluster *c, const int *nodes, int n);
/* From any rank of one stage to every rank of another; bytes 0 = one token id. Infinite without links. */
double plan_hop_us(const plan_shape *s, const int *from, int n_from, const int *to, int n_to,
                   double bytes);

/* ---- search -------------------------------------------------------------------------------------------------------- */

/* A found cut in nodes of the shape's cluster: stage i has nodes[start[i] .. start[i + 1]) and layers [border[i], border[i + 1]). */
typedef struct plan_found {
    int n_stages;
    int *start, *border, *nodes;
    double score;
} plan_found;

typedef struct plan_search {
    arena *memory;
    int n_found;
    plan_found found[PLAN_RANKED]; /* best first */
    double *best_with;             /* [n] score of the best that uses a node; infinite without */
    uint64_t tried;
} plan_search;

/* Needs s->c in an order that does not depend on the caller's. NO_MEMORY only. */
status plan_search_run(plan_search *out, const plan_shape *s, err *e);

/* The goal's score of a cut whose shares are chosen; fills p's stages' ranks and figures. Stages' nodes and borders are given. */
status plan_evaluate(plan_cut *p, const plan_shape *s, arena *memory, bool choose, err *e);
double plan_score(const plan_shape *s, const plan_cut *p);

#endif
