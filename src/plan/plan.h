/*
 * plan: how to cut a model over machines, how fast it will be, and why. The same code plans for a live cluster and simulates hardware
 * that nobody here owns. Pure functions: no I/O, no clock, no randomness; the same question gives the same answer in any node order.
 *
 * A *plan* is a pipeline of stages of contiguous layers; a stage is shared by one or more ranks (one a node) with uneven shares, counted
 * in units that cannot be divided: query heads, 32 columns of feed-forward, 32 columns of every expert (or whole experts), 16 rows of the
 * vocabulary. The prediction (DESIGN section 6):
 *
 *     t = Σ stages Σ segments ( max over ranks of max(bytes / bandwidth, multiply-adds / rate) + ops + t_sum(N, width) ) + Σ hops
 *
 * Search (search.c, share.c, many.c, exchange.c, assemble*.c, quick.c): with six nodes or fewer every order of every grouping, borders by dynamic programming, shares by an exact
 * least greatest time under budgets of memory. There these hold always: no rank is over its memory; a faster device, a faster link or more
 * memory never makes the best score worse, nor a plan impossible. Why: the cuts that are compared are chosen by names, counts and memory,
 * never by speeds; what memory allows only grows with it; each cut's time never grows with a speed; and the best of a growing set of
 * shrinking times does not get worse (proved at the head of share.c and search.c, tested on 10,000 random clusters). With more nodes
 * the search is bounded by counted work, never by time: up to 12 nodes by branch and bound (assemble.c), which nearly always ends before,
 * and above over parts of the cluster. There only "never over memory" and "the order of nodes changes nothing" hold always.
 *
 * Units: bytes, bytes/s, multiply-adds/s, microseconds (double). Threads: no state but the result; anything may run at once.
 * Memory: a result owns everything it points to. Errors: INVALID names the field; TOO_LARGE when the model fits nowhere (the result is
 * then filled too, with the nearest miss and no plans); NO_MEMORY.
 * Not here: measuring (src/os, src/cli, src/cluster), files and JSON (src/cli), moving weights (src/node).
 */
#ifndef SHOAL_PLAN_H
#define SHOAL_PLAN_H

#include "base/base.h"

enum { PLAN_NAME = 64, PLAN_NODES = 256, PLAN_LAYERS = 512, PLAN_RANKED = 5 };

/* ---- what is cut: the shape of a model ------------------------------------------------------------------------------ */

/* Everything follows from the config; letters are those of DESIGN section 1. A field that does not apply is 0. */
typedef struct plan_model {
    char name[PLAN_NAME];
    int n_layers; /* L */
    int n_dense_layers; /* the first layers, with feed-forward; the rest have experts. L when n_experts is 0 */
    int d_model, n_heads, n_kv_heads, head_dim, d_ff, n_vocab;
    bool tied;               /* the output matrix is the embedding */
    int n_experts, n_active; /* E, K */
    int d_expert, n_shared;  /* width of an expert; shared experts of that width */
    int q_rank, kv_rank, rope_dim,
        v_dim; /* latent attention when kv_rank > 0: head_dim is the part without position */
    int window, n_window_layers; /* layers that remember `window` positions only */
    double bits,
        expert_bits; /* stored bits a weight, scales included: of everything else, of routed experts */
    double state_bits; /* a number of keys and values: 16, or 8.5 for q8_0 */
} plan_model;

/* A quantisation by name: "q4_0" 4.5 bits for all, "int4-experts" 4.5 for experts and 16 elsewhere, ... (quants.def). */
status plan_model_quantise(plan_model *m, const char *quant, err *e);
/* Checks the shape and its ranges. */
status plan_model_check(const plan_model *m, err *e);

typedef struct plan_size {
    double parameters, active;            /* active: read for one token */
    double weight_bytes, bytes_per_token; /* of the whole; read by a decode step of one token */
    double state_bytes_per_token;         /* all layers, without windows */
} plan_size;
void plan_model_size(plan_size *out, const plan_model *m);

/* ---- what it is cut over -------------------------------------------------------------------------------------------- */

typedef struct plan_node {
    char name[PLAN_NAME]; /* unique in its cluster */
    double memory_bytes;  /* of the device, or free */
    double reserve_bytes; /* of them not to be used */
    double bandwidth,
        rate; /* of the data sheet in a simulation, of the real kernels when measured */
    bool
        measured; /* bandwidth and rate are those of the kernels: the engine's shares of them do not count */
    int host;              /* devices of one machine share a number >= 0; −1 = alone */
    double host_bandwidth; /* of all devices of the host together; 0 = each has its own */
    double watts, price;   /* under load; in US dollars. 0 = not known */
} plan_node;

typedef struct plan_link {
    double latency_us; /* one way, a small message */
    double bandwidth;  /* bytes/s; 0 = there is no link */
} plan_link;

typedef struct plan_cluster {
    int n_nodes;
    const plan_node *nodes; /* [n] borrowed */
    const plan_link
        *links; /* [n, n] borrowed; both directions must agree, the diagonal is not read */
} plan_cluster;

/* What an engine makes of the hardware. The first three are the constants that are fitted to published runs (docs/planner.md). */
typedef struct plan_engine {
    const char *name;
    double efficiency;      /* share of the node's bandwidth that decoding reaches */
    double op_us, hop_us;   /* time per op; per message beyond the link's latency */
    double rate_efficiency; /* share of the node's rate that a prompt reaches */
    double expert_us;       /* per expert that a rank touches in a layer */
    double wire_bytes;      /* a number of a sum on the wire */
    double hop_bytes;       /* a number between stages */
    double announce_bytes;  /* what the leader tells every rank of a step; 0 = nothing */
    double logit_bytes;     /* a word's score, which the leader gathers; 0 = the best word alone */
    double
        slow_logits; /* a multiply-add of a word's score takes as long as so many at the node's full rate; 0 = as all others */
    bool embedding_sum; /* ranks of the first stage add up the rows of the embedding */
    bool
        star; /* sums go through the first rank, which sends to and receives from one after the other */
} plan_engine;

/* ---- the question --------------------------------------------------------------------------------------------------- */

typedef enum plan_goal { PLAN_SPEED, PLAN_TTFT, PLAN_THROUGHPUT, PLAN_FEWEST } plan_goal;
typedef enum plan_mode { PLAN_ANY, PLAN_TENSOR, PLAN_PIPELINE } plan_mode;

typedef struct plan_request {
    plan_goal goal;
    plan_mode mode;
    int64_t context; /* positions promised to each sequence; memory is kept for all of them */
    int64_t
        prompt; /* tokens of the prompt whose first answer is timed, and of the context while decoding */
    int concurrency;      /* sequences at once */
    const bool *allowed;  /* [n] nodes that may be used; NULL = all */
    const double *shares; /* [n] pinned shares of a tensor group, > 0; NULL = chosen */
} plan_request;

/* ---- the answer ----------------------------------------------------------------------------------------------------- */

typedef enum plan_kind {
    PLAN_ATTENTION,
    PLAN_FEED,
    PLAN_EXPERTS,
    PLAN_VOCABULARY,
    PLAN_KINDS
} plan_kind;
typedef enum plan_sum {
    PLAN_SUM_NONE,
    PLAN_SUM_DIRECT,
    PLAN_SUM_TWO_SHOT,
    PLAN_SUM_RING,
    PLAN_SUM_DOUBLING
} plan_sum;

typedef struct plan_rank {
    int node;              /* index in the caller's cluster */
    int units[PLAN_KINDS]; /* of the stage's units */
    double weight_bytes, state_bytes, scratch_bytes, reserve_bytes, memory_bytes;
} plan_rank;

typedef struct plan_stage {
    int first, last; /* layers [first, last) */
    int n_ranks;
    plan_rank *ranks;
    int units[PLAN_KINDS]; /* how many there are of a kind, 0 = none in this stage */
    bool whole_experts;    /* experts are not sliced: a unit is one expert */
    plan_sum sum;          /* the algorithm for one token's sum */
    double compute_us, sum_us,
        hop_us; /* of one decode step of one sequence; hop: to the next stage (of the last: the token back) */
} plan_stage;

typedef struct plan_cut {
    int n_stages, n_nodes;
    plan_stage *stages;
    double score;                      /* smaller is better; the goal's time in µs */
    double step_us;                    /* one token of one sequence */
    double compute_us, sum_us, hop_us; /* its parts */
    double tokens_s;                   /* one stream */
    double throughput;                 /* tokens/s of all sequences together */
    double ttft_us;
} plan_cut;

typedef struct plan_result {
    arena memory;
    int n_plans;
    plan_cut plans[PLAN_RANKED]; /* best first, different in structure */
    int n_reasons;
    const char **reasons; /* in words: why this cut, why a node is left out, what is missing */
    double missing_bytes; /* when nothing fits: at least so much more memory is needed; else 0 */
    uint64_t tried;       /* structures looked at */
} plan_result;

status plan_make(plan_result *out, const plan_model *m, const plan_cluster *c, const plan_engine *g,
                 const plan_request *r, err *e);
void plan_result_fini(plan_result *r);

/* Predicts a cut with given stages, borders, ranks and units (the oracle of the tests; a plan from a record). Fills every figure of p
 * from its structure; INVALID when a rank's memory does not hold it. */
status plan_predict(plan_cut *p, const plan_model *m, const plan_cluster *c, const plan_engine *g,
                    const plan_request *r, err *e);

/* Time of one sum over n ranks of `bytes` each, by the best algorithm. */
double plan_sum_us(plan_sum *chosen, int n, double bytes, plan_link worst, const plan_engine *g);

const char *plan_kind_name(plan_kind k);
const char *plan_sum_name(plan_sum s);
const char *plan_goal_name(plan_goal g);

/* ---- what to buy next ----------------------------------------------------------------------------------------------- */

typedef struct plan_growth {
    const char *device;
    double score, tokens_s, throughput, ttft_us,
        price; /* of the best plan with one more of it; price of the device */
    bool used; /* the plan uses it */
} plan_growth;

/* One more machine of every known device that has a price, joined by `link` to every node; best first by the goal. out: [*n], *n in:
 * capacity, out: how many. */
status plan_grow(plan_growth *out, int *n, const plan_model *m, const plan_cluster *c,
                 const plan_engine *g, const plan_request *r, plan_link link, err *e);

/* ---- known names (models.def, devices.def, links.def, engines.def, quants.def) --------------------------------------- */

typedef struct plan_device {
    const char *name, *title;
    double memory_gb, bandwidth_gb_s, tflops, watts,
        price; /* data sheet; memory: the largest sold */
    const char *source;
} plan_device;
typedef struct plan_link_kind {
    const char *name, *title;
    double latency_us, gbit_s;
    const char *source;
} plan_link_kind;
typedef struct plan_model_row {
    const char *name, *quant, *source; /* quant: the one it is published in */
} plan_model_row;

int plan_n_devices(void);
int plan_n_links(void);
int plan_n_models(void);
int plan_n_engines(void);
int plan_n_quants(void);
const plan_device *plan_device_at(int i);
const plan_link_kind *plan_link_at(int i);
const plan_model_row *plan_model_at(int i);
const plan_engine *plan_engine_at(int i);
const char *plan_quant_at(int i);
/* By name, case aside; NOT_FOUND names the nearest. */
status plan_device_find(const plan_device **out, const char *name, err *e);
status plan_link_find(const plan_link_kind **out, const char *name, err *e);
status plan_engine_find(const plan_engine **out, const char *name, err *e);
/* "qwen3-30b-a3b" or "qwen3-30b-a3b:q8_0". */
status plan_model_find(plan_model *out, const char *name, err *e);
/* A node of a known device; memory_bytes 0 = the largest sold. Reserve: 2 GiB and 4 % for a whole machine, 1 GB for a card. */
void plan_node_of(plan_node *out, const char *name, const plan_device *d, double memory_bytes);
plan_link plan_link_of(const plan_link_kind *k);
/* A link as ranks measured it (link_measure): a message of n bytes takes latency_us + n · us_per_byte, all told. The engine's own time per
 * message, which predictions add, is taken off. us_per_byte 0: nothing is said about bandwidth, as good as 1 TB/s. */
plan_link plan_link_measured(const plan_engine *g, double latency_us, double us_per_byte);

#endif
