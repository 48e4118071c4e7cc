/*
 * The pools and the tree of cached prefixes. Everything is allocated once, at creation: a node for every page there is.
 *
 * A node is findable by a hash of its parent's key and its 64 ids; parent and ids are compared too, so that a collision of hashes can
 * never give a wrong page. Eviction takes the least recently used: whole leaves for pages, the page or snapshot alone (the node stays as
 * a link) for windowed and constant classes.
 */
#include "engine/pool.h"

#include <string.h>

/* ---- units --------------------------------------------------------------------------------------------------------- */

static bool only_cached(const unit_pool *u, int32_t unit)
{
    return u->held[unit] && u->refs[unit] == 1;
}

void pool_ref(unit_pool *u, int32_t unit)
{
    u->n_cached_only -= only_cached(u, unit);
    u->refs[unit]++;
}

void pool_unref(unit_pool *u, int32_t unit)
{
    REQUIRE(unit >= 0 && unit < u->n && u->refs[unit] > 0);
    u->refs[unit]--;
    if (u->refs[unit] == 0)
        u->free[u->n_free++] = unit;
    else
        u->n_cached_only += only_cached(u, unit);
}

static void release_unit(engine_pool *p, prefix_node *node, int c)
{
    unit_pool *u = &p->classes[c];
    int32_t unit = node->unit[c];
    if (unit < 0)
        return;
    u->n_cached_only -= only_cached(u, unit);
    u->held[unit] = 0;
    node->unit[c] = -1;
    p->n_snapshots -= unit_is_constant(u);
    pool_unref(u, unit);
}

/* ---- nodes --------------------------------------------------------------------------------------------------------- */

static uint64_t key_of(const engine_pool *p, const prefix_node *parent, const int32_t *ids)
{
    return hash_bytes(ids, sizeof(int32_t) * POOL_PAGE, parent ? parent->key : p->salt);
}

prefix_node *prefix_find(const engine_pool *p, const prefix_node *parent, const int32_t *ids)
{
    uint64_t key = key_of(p, parent, ids);
    for (prefix_node *n = p->buckets[key & p->bucket_mask]; n; n = n->bucket_next)
        if (n->key == key && n->parent == parent && !memcmp(n->ids, ids, sizeof n->ids))
            return n;
    return NULL;
}

static void unlink_use(engine_pool *p, prefix_node *n)
{
    *(n->newer ? &n->newer->older : &p->newest) = n->older;
    *(n->older ? &n->older->newer : &p->oldest) = n->newer;
}

static void link_newest(engine_pool *p, prefix_node *n)
{
    n->newer = NULL;
    n->older = p->newest;
    *(p->newest ? &p->newest->newer : &p->oldest) = n;
    p->newest = n;
}

/* A parent counts as used after its child, so that leaves are always the older ones. */
void prefix_touch(engine_pool *p, prefix_node *node)
{
    for (; node; node = node->parent) {
        unlink_use(p, node);
        link_newest(p, node);
    }
}

void prefix_pin(prefix_node *node)
{
    if (node)
        node->n_pins++;
}

void prefix_unpin(prefix_node *node)
{
    if (node) {
        REQUIRE(node->n_pins > 0);
        node->n_pins--;
    }
}

static void remove_node(engine_pool *p, prefix_node *node)
{
    for (int c = 0; c < p->n_classes; c++)
        release_unit(p, node, c);
    prefix_node **at = &p->buckets[node->key & p->bucket_mask];
    while (*at != node)
        at = &(*at)->bucket_next;
    *at = node->bucket_next;
    unlink_use(p, node);
    if (node->parent)
        node->parent->n_children--;
    node->bucket_next = p->free_nodes;
    p->free_nodes = node;
    p->n_used_nodes--;
}

static bool evict_leaf(engine_pool *p)
{
    for (prefix_node *n = p->oldest; n; n = n->newer) {
        if (n->n_children == 0 && n->n_pins == 0) {
            remove_node(p, n);
            return true;
        }
    }
    return false;
}

/* Its node stays, as a link. */
bool pool_evict(engine_pool *p, int c)
{
    unit_pool *u = &p->classes[c];
    for (prefix_node *n = p->oldest; n; n = n->newer) {
        if (n->unit[c] >= 0 && u->refs[n->unit[c]] == 1) {
            release_unit(p, n, c);
            return true;
        }
    }
    return false;
}

prefix_node *prefix_add(engine_pool *p, prefix_node *parent, const int32_t *ids)
{
    if (!p->free_nodes) {
        prefix_pin(parent); /* the new node's past must survive making room for it */
        bool made_room = evict_leaf(p);
        prefix_unpin(parent);
        if (!made_room)
            return NULL;
    }
    prefix_node *n = p->free_nodes;
    p->free_nodes = n->bucket_next;
    *n = (prefix_node){
        .key = key_of(p, parent, ids), .parent = parent, .depth = parent ? parent->depth + 1 : 1};
    memcpy(n->ids, ids, sizeof n->ids);
    for (int c = 0; c < MODEL_STATE_CLASSES; c++)
        n->unit[c] = -1;
    prefix_node **bucket = &p->buckets[n->key & p->bucket_mask];
    n->bucket_next = *bucket;
    *bucket = n;
    if (parent)
        parent->n_children++;
    link_newest(p, n);
    p->n_used_nodes++;
    return n;
}

void prefix_hold(engine_pool *p, prefix_node *node, int c, int32_t unit)
{
    unit_pool *u = &p->classes[c];
    REQUIRE(node->unit[c] < 0 && !u->held[unit]);
    pool_ref(u, unit);
    u->held[unit] = 1;
    u->n_cached_only += only_cached(u, unit);
    node->unit[c] = unit;
    p->n_snapshots += unit_is_constant(u);
}

int32_t pool_take(engine_pool *p, int c)
{
    unit_pool *u = &p->classes[c];
    bool whole_leaves = u->info.kind == MODEL_STATE_PAGED || u->info.kind == MODEL_STATE_LATENT;
    while (u->n_free == 0) {
        bool evicted = u->n_cached_only > 0 && (whole_leaves ? evict_leaf(p) : pool_evict(p, c));
        if (!evicted)
            return -1;
    }
    int32_t unit = u->free[--u->n_free];
    u->refs[unit] = 1;
    return unit;
}

/* ---- creation ------------------------------------------------------------------------------------------------------ */

static status create_class(unit_pool *u, const model_state_class *info, err *e)
{
    size_t n = (size_t)info->n_pages;
    u->info = *info;
    u->refs = base_zalloc(n, sizeof *u->refs);
    u->held = base_zalloc(n, sizeof *u->held);
    u->free = base_zalloc(n, sizeof *u->free);
    if (!u->refs || !u->held || !u->free)
        return err_set(e, STATUS_NO_MEMORY, "engine: no memory for a pool of %zu pages", n);
    u->n = u->n_free = (int)n;
    for (size_t i = 0; i < n; i++)
        u->free[i] = (int32_t)(n - 1 - i);
    return STATUS_OK;
}

static status create_nodes(engine_pool *p, err *e)
{
    uint64_t n_buckets = 64;
    for (int c = 0; c < p->n_classes; c++)
        p->n_nodes = BASE_MAX(p->n_nodes, p->classes[c].n);
    while (n_buckets < 2 * (uint64_t)p->n_nodes)
        n_buckets *= 2;
    p->bucket_mask = n_buckets - 1;
    p->nodes = base_zalloc((size_t)p->n_nodes, sizeof *p->nodes);
    p->buckets = base_zalloc(n_buckets, sizeof *p->buckets);
    if (!p->nodes || !p->buckets)
        return err_set(e, STATUS_NO_MEMORY, "engine: no memory for %d cached pages", p->n_nodes);
    for (int i = p->n_nodes - 1; i >= 0; i--) {
        p->nodes[i].bucket_next = p->free_nodes;
        p->free_nodes = &p->nodes[i];
    }
    return STATUS_OK;
}

status engine_pool_create(engine_pool **out, model *m, uint64_t salt, int cache_slots, err *e)
{
    engine_pool *p = base_zalloc(1, sizeof *p);
    if (!p)
        return err_set(e, STATUS_NO_MEMORY, "engine: no memory for state pools");
    p->m = m;
    p->salt = salt;
    p->cache_slots = cache_slots;
    p->context = model_get_options(m)->context;
    p->n_classes = model_n_classes(m);
    status s = STATUS_OK;
    for (int c = 0; c < p->n_classes && s == STATUS_OK; c++) {
        s = create_class(&p->classes[c], model_class(m, c), e);
        p->has_constant |= unit_is_constant(&p->classes[c]);
    }
    if (s == STATUS_OK)
        s = create_nodes(p, e);
    if (s != STATUS_OK) {
        engine_pool_destroy(p);
        return s;
    }
    *out = p;
    return STATUS_OK;
}

void engine_pool_destroy(engine_pool *p)
{
    if (!p)
        return;
    for (int c = 0; c < p->n_classes; c++) {
        base_free(p->classes[c].refs);
        base_free(p->classes[c].held);
        base_free(p->classes[c].free);
    }
    base_free(p->nodes);
    base_free(p->buckets);
    base_free(p);
}

void engine_pool_forget_all(engine_pool *p)
{
    while (evict_leaf(p))
        ;
}

bool engine_pool_has_constant(const engine_pool *p)
{
    return p->has_constant;
}

/* ---- questions ----------------------------------------------------------------------------------------------------- */

static int64_t pages_of(int64_t positions)
{
    return (positions + POOL_PAGE - 1) / POOL_PAGE;
}

uint64_t engine_pool_bytes(const engine_pool *p, int64_t positions)
{
    uint64_t total = 0;
    for (int c = 0; c < p->n_classes; c++) {
        const model_state_class *info = &p->classes[c].info;
        int64_t units = pages_of(positions);
        if (info->kind == MODEL_STATE_CONSTANT)
            units = positions > 0;
        else if (info->kind == MODEL_STATE_WINDOWED)
            units = BASE_MIN(units, pages_of(info->window + POOL_SLACK) + 1);
        total += (uint64_t)units * info->page_bytes;
    }
    return total;
}

void engine_pool_usage(const engine_pool *p, uint64_t *total_pages, uint64_t *free_pages,
                       uint64_t *cached_pages)
{
    *total_pages = *free_pages = *cached_pages = 0;
    for (int c = 0; c < p->n_classes; c++) {
        const unit_pool *u = &p->classes[c];
        if (unit_is_constant(u) && p->n_classes > 1)
            continue;
        *total_pages += (uint64_t)u->n;
        *free_pages += (uint64_t)u->n_free;
        *cached_pages += (uint64_t)u->n_cached_only;
    }
}
