/* Inside of the sequence state: pools of pages and slots by class, and the tree of cached prefixes over them. See engine.h. */
#ifndef SHOAL_ENGINE_POOL_H
#define SHOAL_ENGINE_POOL_H

#include "engine/engine.h"

enum {
    POOL_PAGE = 64,
    POOL_SLACK = 64
}; /* positions of a page; kept behind a window so that a short cut back needs no replay */

/* One full page of some text: its ids, the pages that hold it, snapshots of constant-size state at its end. */
typedef struct prefix_node {
    uint64_t key; /* hash of (parent's key, ids) */
    struct prefix_node *parent, *bucket_next;
    struct prefix_node *newer, *older; /* order of last use */
    int n_children, n_pins;            /* pins: live sequences whose newest full page this is */
    int64_t depth;                     /* full pages up to and with this one */
    int32_t ids[POOL_PAGE];
    int32_t unit[MODEL_STATE_CLASSES]; /* page, or snapshot slot; −1 = none */
} prefix_node;

/* Pages or slots of a class. refs counts live tables and nodes; cached_only those that only nodes hold. */
typedef struct unit_pool {
    model_state_class info;
    int32_t *refs;       /* [n] */
    unsigned char *held; /* [n] a node has it */
    int32_t *free;       /* stack of ids */
    int n, n_free, n_cached_only;
} unit_pool;

struct engine_pool {
    model *m;
    uint64_t salt;
    int64_t context;
    int n_classes, cache_slots, n_snapshots; /* snapshots in nodes, over all constant classes */
    bool has_constant;
    unit_pool classes[MODEL_STATE_CLASSES];
    prefix_node *nodes, *free_nodes; /* free ones linked by bucket_next */
    prefix_node **buckets;
    uint64_t bucket_mask;
    prefix_node *newest, *oldest;
    int n_nodes, n_used_nodes;
};

static inline bool unit_is_constant(const unit_pool *u)
{
    return u->info.kind == MODEL_STATE_CONSTANT;
}

/* Takes one, evicting cached ones when none is free; −1 when all are in use by sequences. It has one reference. */
int32_t pool_take(engine_pool *p, int state_class);
/* Drops the least recently used cached page or snapshot of the class that no sequence uses. */
bool pool_evict(engine_pool *p, int state_class);
void pool_ref(unit_pool *u, int32_t unit);
void pool_unref(unit_pool *u, int32_t unit);

/* The cached page behind `parent` (NULL = the start) with these ids; NULL when there is none. */
prefix_node *prefix_find(const engine_pool *p, const prefix_node *parent, const int32_t *ids);
/* Makes it, without units; NULL when no node can be had. */
prefix_node *prefix_add(engine_pool *p, prefix_node *parent, const int32_t *ids);
void prefix_hold(engine_pool *p, prefix_node *node, int state_class,
                 int32_t unit);                       /* adds a reference */
void prefix_touch(engine_pool *p, prefix_node *node); /* used just now, and everything before it */
void prefix_pin(prefix_node *node);                   /* NULL is fine */
void prefix_unpin(prefix_node *node);

#endif
