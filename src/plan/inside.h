/*
 * Inside of src/plan: the shape of a question (bytes and multiply-adds of every unit of a cut) and what one stage of it costs (cost.c),
 * the best shares of a stage (share.c), the search over stages (search.c, many.c for more than six nodes). plan.c is what the caller sees.
 */
#ifndef SHOAL_PLAN_INSIDE_H
#define SHOAL_PLAN_INSIDE_H

#include "plan/plan.h"

/* A node must gain this share of a score to be taken: of equals the fewest nodes. */
#define PLAN_TIES 5e-3

/* fmax and fmin are calls, and these stand in the innermost loops; never for NaN. */
static inline double plan_more(double a, double b)
{
    return a > b ? a : b;
}

static inline double plan_less(double a, double b)
{
    return a < b ? a : b;
}

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
double plan_node_room(const plan_shape *s, int node); /* usable bytes */
double plan_rank_fixed_bytes(const plan_shape *s,
                             plan_span p); /* of every rank, whatever its units */

/* What units of one kind cost a rank in one layer, max(bytes / bandwidth, macs / rate) + more_us, and in memory over all layers of the
 * span. A number of units u of attention is an interval of heads that touches some K/V heads:
 *     bytes = u ? bytes_once + u · bytes_unit + kv · bytes_kv : bytes_idle, the others likewise.
 * Whole experts (all > 0) add the experts that are touched, which is no line. */
typedef struct plan_terms {
    int total,
        group; /* units in the stage, 0 = none; query heads of a K/V head, 0 = not attention by heads */
    double times; /* how often a step has it: layers */
    double bytes_idle, macs_idle;
    double bytes_once, bytes_unit, bytes_kv;
    double macs_once, macs_unit, macs_kv;
    double more_us;
    double all, picks, luck, expert_bytes, expert_macs, expert_us;
    double memory_once, memory_unit, memory_kv;
} plan_terms;
void plan_stage_terms(plan_terms t[PLAN_KINDS], const plan_shape *s, plan_span p, plan_load l,
                      bool whole, int n);
/* K/V heads that the query heads [first, end) read. */
int plan_kv_heads(int group, int first, int end);
/* Units [first, end): only attention cares which. bandwidth: bytes/µs, rate: multiply-adds/µs. */
double plan_units_us(const plan_terms *t, int first, int end, double bandwidth, double rate);
/* What the engine reaches of rank i of a group: bytes/µs, with the devices of one host sharing its own; multiply-adds/µs. */
double plan_node_bandwidth(const plan_shape *s, const int *nodes, int n, int i);
double plan_node_rate(const plan_shape *s, int node);

/* What does not depend on shares. */
typedef struct plan_fixed {
    double dense_ops_us, expert_ops_us, last_ops_us;            /* a layer; the output */
    double layer_sums_us, first_sums_us, last_sum_us, round_us; /* round: of one stage alone */
} plan_fixed;
plan_fixed plan_fixed_of(const plan_shape *s, plan_load l, plan_link worst, int n);
plan_cost plan_cost_of(const plan_terms t[PLAN_KINDS], const double us[PLAN_KINDS],
                       const plan_fixed *f, plan_span p);

/* With given shares; does not look at memory. */
plan_cost plan_stage_cost(const plan_shape *s, const plan_shares *h, plan_span p, plan_load l,
                          plan_link worst);

/* ---- shares (share.c) ----------------------------------------------------------------------------------------------- */

typedef struct plan_scratch plan_scratch;
plan_scratch *plan_scratch_create(arena *memory, int n); /* n: nodes of the cluster */

/* The best shares of a group as if memory were endless: they depend on no layers, and no others are quicker. */
typedef struct plan_free {
    plan_fixed fixed;
    double us[2][PLAN_KINDS]; /* a layer; experts sliced, whole */
    bool whole;
    int *units; /* [2, PLAN_KINDS, n] the caller's */
} plan_free;
void plan_free_of(plan_free *out, const plan_shape *s, const int *nodes, int n, plan_load l,
                  plan_link worst, plan_scratch *w);
plan_cost plan_free_cost(const plan_free *f, plan_span p);
double plan_free_units_us(const plan_free *f, plan_span p); /* of it, what depends on shares */

/* Ranks cannot compute the span in less, sums and ops aside: within a time a rank takes no more bytes than it can read, nor than it holds. */
double plan_least_us(const plan_shape *s, const int *nodes, int n, plan_span p, plan_load l,
                     plan_scratch *w);

/* Chooses the shares for this load under the memory of the ranks and returns their cost. */
plan_cost plan_stage_share(const plan_shape *s, plan_shares *h, plan_span p, plan_load l,
                           plan_link worst, const plan_free *f, plan_scratch *w);
/* Weights and state of a span, once: the least that its ranks need together. */
double plan_span_bytes(const plan_shape *s, plan_span p);
/* The slowest link inside a group; bandwidth 0 when two of it have none. */
plan_link plan_worst_link(const plan_cluster *c, const int *nodes, int n);
/* Bytes between stages: of a step, and of what the last stage sends back. */
double plan_hop_bytes(const plan_shape *s, plan_load l);
double plan_back_bytes(const plan_shape *s, plan_load l);
/* From any rank of one stage to every rank of another. Infinite without links. */
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

/* Needs s->c in an order that does not depend on the caller's. any_will_do: ends with the first cut that fits. NO_MEMORY only. */
status plan_search_run(plan_search *out, const plan_shape *s, bool any_will_do, err *e);

/* The goal's score of a cut whose shares are chosen; fills p's stages' ranks and figures. Stages' nodes and borders are given. */
status plan_evaluate(plan_cut *p, const plan_shape *s, arena *memory, bool choose, err *e);
double plan_score(const plan_shape *s, const plan_cut *p);

#endif
