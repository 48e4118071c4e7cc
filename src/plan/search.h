/*
 * The searcher that search.c and many.c share: groups of nodes, what is known of each under a load, and the trial of one structure. search.c
 * tries every structure of few nodes; many.c chooses structures of many. Private to src/plan.
 */
#ifndef SHOAL_PLAN_SEARCH_H
#define SHOAL_PLAN_SEARCH_H

#include "plan/inside.h"

enum {
    SEARCH_FEW = 6,
    SEARCH_MOVES = 32,
    SEARCH_ITEMS = 12,
    SEARCH_WORDS = PLAN_NODES / 64,
    SEARCH_BUCKETS = 4096,
    SEARCH_PIECES = 4
};

/* A group under a load. */
typedef struct search_table {
    struct search_table *next;
    double sequences; /* of the load */
    plan_free free;
    double *hopes
        [4]; /* [L + 1] by ends, bit 0 first, bit 1 last: less than the least time of so many layers; NULL = not computed */
    double *cells[4]; /* [L + 1]: the least time; NaN = not computed */
    int n_pieces;     /* a convex line of pieces below hopes[0]: so many layers at so much each */
    int piece_layers[SEARCH_PIECES];
    double piece_us[SEARCH_PIECES];
} search_table;

/* A bound of one layer on a group under a load, from sums over its nodes alone (quick.c). */
typedef struct search_quick {
    struct search_quick *next;
    double sequences; /* of the load */
    double layer_us;  /* a layer behind every border: no shares of it take less */
    double
        first_us; /* of the first stage besides: layers before any border, sums of the embedding */
    double last_us, all_us; /* the output; what a stage alone does besides */
    int holds;              /* layers behind a border: no more than that fit */
    bool sharp;             /* as good as quick.c can; else what sums over nodes alone say */
} search_quick;

typedef struct search_group {
    struct search_group *next;        /* in its bucket */
    uint64_t bits[SEARCH_WORDS], key; /* key: a hash of the bits */
    int n, *nodes;
    double room, speed; /* usable bytes, bytes/s together */
    plan_link worst;
    bool linked;
    search_table *tables;
    search_quick *quick;
    unsigned holds_known; /* bits, by ends */
    int holds[4];         /* what search_holds says */
    int misfit[4]; /* layers behind a border that are known not to fit, by ends; 0 = not known */
} search_group;

/* Memory of a stage, as far as it is a line in the number of its layers. */
typedef struct search_memory {
    double once, kv, unit[PLAN_KINDS]; /* as plan_terms */
    double fixed, bytes;               /* on every rank; of all else, once */
} search_memory;

typedef struct searcher {
    plan_search *out;
    const plan_shape *s;
    arena *memory;
    search_group *buckets[SEARCH_BUCKETS], *few[1 << SEARCH_FEW]; /* few: by their bits */
    plan_scratch *scratch;
    int *spare; /* [PLAN_KINDS, n] */
    int L, n, max_depth;
    plan_load load;
    /* The structure being looked at, and its optimistic rows: hopes[d, l] is a time below which the first d groups cannot compute l layers. */
    int depth;
    search_group **path;  /* [max_depth] */
    search_table **table; /* [max_depth] */
    double *hop;          /* [max_depth] into the stage */
    double *hopes;        /* [max_depth + 1, L + 1] */
    /* The same, exactly; filled only for structures that may be kept. */
    double *rows,
        *rest; /* [max_depth + 1, L + 1]; rest: the least time of the layers from l on by the groups from d on, optimistic */
    int *from;
    int *border;  /* [max_depth + 1] */
    double *line; /* [4, L + 1] */
    int *queue;   /* [L + 1] */
    uint64_t keys[PLAN_RANKED];
    double *hope_with;      /* [n] the least optimistic score with a node */
    search_memory needs[5]; /* by ends, without layers; what a layer needs more */
    struct assembly *assembly[SEARCH_ITEMS + 1]; /* tables of search_assemble, by its items */
    double limit,
        offered; /* what a trial must beat, infinite: what is kept; the least score that was offered */
    bool any_will_do; /* ends with the first that fits */
    int probes; /* how many times a structure's slowest stage may be pressed; 0 = until nothing better can be */
    double work; /* counted, in roughly nanoseconds */
    bool failed; /* no memory */
} searcher;

void *search_take(searcher *x, size_t count, size_t size);
search_group *search_group_of(searcher *x, const int *nodes, int n);
search_group *search_group_of_bits(searcher *x, const uint64_t bits[SEARCH_WORDS]);
bool search_mode_allows(const searcher *x, const search_group *g, int depth);
/* The load of a step when the pipeline has so many stages. */
void search_set_load(searcher *x, int depth);
/* One structure, or all beginnings of it: kept when it is among the best. */
void search_try(searcher *x, search_group *const *groups, int n);
/* Its score when that is below `most` and no other order of its groups that is kept is better; else infinite. Kept as by search_try. */
double search_score(searcher *x, search_group *const *groups, int n, double most);
void search_try_prefixes(searcher *x, search_group *const *groups, int n);

/* The exact time of so many layers on a group, by ends: bit 0 first, bit 1 last. NaN when it is not known yet and only what is known is asked
 * for; infinite when they do not fit, or there are never so many. */
double search_cell(searcher *x, search_group *g, int layers, int ends, bool known);
/* [L + 1] no cell with these ends is less: shares as if memory were endless. NULL without memory. */
const double *search_hopes(searcher *x, search_group *g, int ends);
/* The goal's score of a structure with so many nodes, from the sum of its stages and its slowest. */
double search_goal(const searcher *x, int nodes, double back_us, double sum, double slowest);
/* A score that the structure cannot beat, for little: its tables are not needed. The load must be set for its depth. (quick.c) */
double search_quick_score(searcher *x, search_group *const *groups, int n);
search_quick *search_quick_of(searcher *x, search_group *g);
search_quick *search_rough_of(searcher *x, search_group *g); /* no better than it must be */
/* No more layers behind a border than that fit, with ends as search_cell; −1 when not even those before it do. */
int search_holds(searcher *x, search_group *g, int ends);
typedef struct search_flows {
    double room[PLAN_NODES], pace[PLAN_NODES], bytes, other_us;
} search_flows;
/* How quickly the ranks of a group fill with layers behind a border (bytes/µs), bytes of a layer, and its time that is no flow. */
void search_flows_of(searcher *x, const search_group *g, search_flows *f);
/* The time within which ranks take so many bytes, none more than its room nor faster than its pace; not below `us`. */
double search_flow(const search_flows *f, int n, double bytes, double us);
/* The best structure built of unions of these items, the first n_alone of which join no others, kept; false when the work ran out before that was sure. (assemble.c) */
bool search_assemble(searcher *x, search_group *const *items, int n, int n_alone, double most);

void search_many(searcher *x);     /* many.c */
void search_exchange(searcher *x); /* exchange.c */

#endif
