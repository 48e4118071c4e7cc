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

typedef struct search_group {
    struct search_group *next; /* in its bucket */
    uint64_t bits[SEARCH_WORDS];
    int n, *nodes;
    double room, speed; /* usable bytes, bytes/s together */
    plan_link worst;
    bool linked;
    search_table *tables;
} search_group;

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
    double *hope_with; /* [n] the least optimistic score with a node */
    bool any_will_do;  /* ends with the first that fits */
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
void search_try_prefixes(searcher *x, search_group *const *groups, int n);

void search_many(searcher *x);     /* many.c */
void search_exchange(searcher *x); /* exchange.c */

#endif
