/*
 * What the three files that assemble structures share: the tables over unions of items (head of assemble.c) under one load, and what they
 * call of each other. Who fills what:
 *
 *     assemble_tables.c   group, quick, hop_in, hops, cost, known, most as bounds; shared, holds, low, high; rest, slowest, line, active
 *     assemble_exact.c    cost and known made exact, most and quick where something is struck out; risk, refused, found_most, choices
 *     assemble.c          hop, sum, slow, children, path: stages one after the other; the memory of all
 *
 * All of it belongs to the searcher's arena. Private to src/plan; not what a search asks for: that is search_assemble (search.h).
 */
#ifndef SHOAL_PLAN_ASSEMBLE_H
#define SHOAL_PLAN_ASSEMBLE_H

#include "plan/search.h"

#include <math.h>

#define NEVER 1e300 /* of times, to compare with: struck out */

enum { FIRST = 1, LAST = 2, ENDS = 4 }; /* what a stage, or some stages together, begin and end */

typedef struct assemble_child {
    double least; /* no score of what begins so is below */
    int set;
} assemble_child;

typedef struct assemble_choice {
    double least; /* no score with so many layers on this union is below */
    int set, layers, ends;
} assemble_choice;

typedef struct assembly {
    searcher *x;
    int n, n_alone, width,
        n_layers;      /* items; the first so many are stages; blocks of layers, and one more */
    int block, before; /* layers of a block; that the first stage has besides */
    double slack;      /* 1, or less where blocks are coarse */
    int depth_least, depth_most;
    search_group *const *items; /* [n] */
    search_group **group;       /* [2^n] unions; NULL = no stage */
    search_quick **quick;       /* [2^n] */
    double *hop_in;             /* [2^n] the least hop into it */
    double *hops;               /* [2^n, nodes] from a union to each node */
    double *hop;                /* [n, 2^n] from the path's last stage to each union */
    double *cost[ENDS];         /* [2^n, width] of a stage, without the hop into it */
    bool *
        shared; /* [2^n] its costs are those of its best shares as if memory were endless, or more */
    bool *found_most;                      /* [2^n] what fits of it is known exactly */
    double *risk[ENDS], *refused, *no_hop; /* [2^n, width]; [2^n] of find_any */
    bool *known[ENDS];                     /* [2^n, width] that is exact */
    int *most[ENDS];                       /* [2^n] layers for which it may be finite */
    double *holds;            /* [2^n] blocks that go into the memory of a set, together */
    int *low, *high;          /* [2^n] so many layers at least and at most are on a set */
    double *rest[ENDS];       /* [2^n, width] the least time of so many layers on items of a set */
    double *slowest;          /* [2^n, width] the least slowest stage */
    double *line;             /* [width] */
    double *sum, *slow;       /* [n + 1, width] of the path: layers done, least time */
    int *active, *n_active;   /* [n, 2^n] stages whose lowest item this is; [n] */
    assemble_child *children; /* [n, 2^n] */
    assemble_choice *choices; /* [ENDS 2^n width] */
    search_group **path;      /* [n] */
    bool counts;              /* the slowest stage */
    double work;              /* where to stop */
} assembly;

/* Entries of a row that matter. */
typedef struct assemble_part {
    int low, high;
} assemble_part;

/* The work that may be done is. */
static inline bool assemble_spent(const assembly *a)
{
    return a->x->failed || a->x->work >= a->work;
}

/* What a score must be below to matter; infinite while nothing is known. */
static inline double assemble_best(const assembly *a)
{
    return a->x->out->n_found ? a->x->out->found[0].score * (1 - 1e-12) / a->slack : INFINITY;
}

/* Where the row of a set begins in tables [2^n, width]. */
static inline size_t assemble_row(const assembly *a, int set)
{
    return (size_t)set * (size_t)a->width;
}

/* Blocks of layers of a stage with these ends. */
static inline int assemble_least_layers(const assembly *a, int ends)
{
    return ends == FIRST && a->before ? 0 : 1;
}

/* Layers of so many blocks. */
static inline int assemble_layers_with(const assembly *a, int blocks, int ends)
{
    return blocks * a->block + (ends & FIRST ? a->before : 0);
}

/* ---- assemble_tables.c ---------------------------------------------------------------------------------------------- */

/* The unions that may be stages under the load that is set, and what they cost at least. False when the work is spent. */
bool assemble_set_groups(assembly *a);
/* How many layers there are on every set. Needs the memory of a layer, which assemble_set_groups has found. */
void assemble_set_widths(assembly *a);
/* What takes longer to find, of the stages that are not struck out. */
void assemble_refine_groups(assembly *a);
/* Costs of a union as of the best shares if memory were endless. */
void assemble_share_out(assembly *a, int set);
/* rest and slowest, of all sets, from the costs as they are. */
void assemble_set_tables(assembly *a);
/* into[m] = min over j in [least, most] of from[m − j] + hop + cost[j], with what is there. */
void assemble_add_stage(assembly *a, double *into, assemble_part to, const double *from,
                        assemble_part of, double hop, const double *cost, int least, int most);
/* The same of the slowest. */
void assemble_add_slowest(assembly *a, double *into, assemble_part to, const double *from,
                          assemble_part of, double hop, const double *cost, int least, int most);

/* ---- assemble_exact.c ----------------------------------------------------------------------------------------------- */

/* Strikes out what cannot matter before there are tables, which take the more time the more is left. */
void assemble_strike_early(assembly *a);
/* Exact costs, the most hopeful first, until all that matter are. */
void assemble_sharpen(assembly *a);

#endif
