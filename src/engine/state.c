/*
 * The state of one sequence: which pages and slots hold its past, and the ids of that past.
 *
 *   extend   pages for the next positions; a page that someone else also has is copied before it is written
 *   commit   the step wrote them: full pages become cached prefixes, pages behind a window go, snapshots are taken
 *   reuse    start from cached pages instead of nothing
 *   fork     a second table over the same pages
 *   truncate back to a shorter past; constant-size state goes back to a snapshot, a lost window to the cached prefix
 *
 * A page in a cached prefix is never written again: it is full, and only a cut back into it followed by extend would, which copies it.
 */
#include "engine/pool.h"

#include <string.h>

typedef struct snapshot {
    int64_t length; /* −1 = none */
    int32_t slot[MODEL_STATE_CLASSES];
} snapshot;

struct engine_state {
    engine_pool *pool;
    int64_t length, capacity;            /* positions: computed; the most there can be */
    int32_t *ids;                        /* [capacity] of the computed positions */
    int32_t *table[MODEL_STATE_CLASSES]; /* pages by position / 64; −1 = freed behind the window */
    int n_table[MODEL_STATE_CLASSES];
    int32_t slot[MODEL_STATE_CLASSES]; /* −1 = none */
    prefix_node *chain;                /* pinned: the newest full page in the cache, NULL = none */
    bool broken; /* a full page before `length` is not in the cache: nothing after it can be */
    snapshot kept;
};

static int64_t page_count(int64_t positions)
{
    return (positions + POOL_PAGE - 1) / POOL_PAGE;
}

static void set_chain(engine_state *s, prefix_node *node)
{
    prefix_pin(node);
    prefix_unpin(s->chain);
    s->chain = node;
}

/* ---- creation and the end ------------------------------------------------------------------------------------------ */

status engine_state_create(engine_state **out, engine_pool *p, err *e)
{
    engine_state *s = base_zalloc(1, sizeof *s);
    if (!s)
        goto no_memory;
    s->pool = p;
    s->capacity = p->context;
    s->kept.length = -1;
    s->ids = base_alloc(sizeof(int32_t) * (size_t)s->capacity);
    bool good = s->ids != NULL;
    for (int c = 0; c < MODEL_STATE_CLASSES; c++) {
        s->slot[c] = s->kept.slot[c] = -1;
        if (c >= p->n_classes || unit_is_constant(&p->classes[c]))
            continue;
        s->table[c] = base_alloc(sizeof(int32_t) * (size_t)page_count(s->capacity));
        good &= s->table[c] != NULL;
    }
    if (good) {
        *out = s;
        return STATUS_OK;
    }
no_memory:
    engine_state_drop(s);
    return err_set(e, STATUS_NO_MEMORY, "engine: no memory for a sequence");
}

static void drop_kept(engine_state *s)
{
    for (int c = 0; c < s->pool->n_classes; c++) {
        if (s->kept.slot[c] >= 0)
            pool_unref(&s->pool->classes[c], s->kept.slot[c]);
        s->kept.slot[c] = -1;
    }
    s->kept.length = -1;
}

/* Gives pages from index `first` on back. */
static void drop_pages(engine_state *s, int c, int64_t first)
{
    while (s->n_table[c] > first) {
        int32_t page = s->table[c][--s->n_table[c]];
        if (page >= 0)
            pool_unref(&s->pool->classes[c], page);
    }
}

/* Back to nothing; ids stay in memory for whoever wants to look them up. */
static void empty(engine_state *s)
{
    for (int c = 0; c < s->pool->n_classes; c++) {
        drop_pages(s, c, 0);
        if (s->slot[c] >= 0)
            pool_unref(&s->pool->classes[c], s->slot[c]);
        s->slot[c] = -1;
    }
    set_chain(s, NULL);
    s->broken = false;
    s->length = 0;
}

void engine_state_drop(engine_state *s)
{
    if (!s)
        return;
    empty(s);
    drop_kept(s);
    for (int c = 0; c < MODEL_STATE_CLASSES; c++)
        base_free(s->table[c]);
    base_free(s->ids);
    base_free(s);
}

int64_t engine_state_length(const engine_state *s)
{
    return s->length;
}

/* ---- reuse --------------------------------------------------------------------------------------------------------- */

/* Do the nodes up to `tip` hold what a sequence of that length needs of class c? path[i] = node of page i. */
static bool class_is_held(const engine_pool *p, prefix_node *const *path, int64_t depth, int c)
{
    const unit_pool *u = &p->classes[c];
    if (unit_is_constant(u))
        return path[depth - 1]->unit[c] >= 0;
    int64_t first = 0;
    if (u->info.kind == MODEL_STATE_WINDOWED)
        first = BASE_MAX((int64_t)0, depth * POOL_PAGE - u->info.window + 1) / POOL_PAGE;
    for (int64_t i = first; i < depth; i++)
        if (path[i]->unit[c] < 0)
            return false;
    return true;
}

/* The cached path of ids, as deep as it goes, into path[]. */
static int64_t find_path(const engine_pool *p, prefix_node **path, const int32_t *ids,
                         int64_t limit)
{
    int64_t depth = 0;
    prefix_node *node = NULL;
    while ((depth + 1) * POOL_PAGE <= limit &&
           (node = prefix_find(p, node, ids + depth * POOL_PAGE)))
        path[depth++] = node;
    return depth;
}

static void take_pages(engine_state *s, prefix_node *const *path, int64_t depth, int c)
{
    unit_pool *u = &s->pool->classes[c];
    int64_t first = 0;
    if (u->info.kind == MODEL_STATE_WINDOWED)
        first = BASE_MAX((int64_t)0, depth * POOL_PAGE - u->info.window + 1) / POOL_PAGE;
    for (int64_t i = 0; i < depth; i++) {
        int32_t page = i < first ? -1 : path[i]->unit[c];
        if (page >= 0)
            pool_ref(u, page);
        s->table[c][i] = page;
    }
    s->n_table[c] = (int)depth;
}

static bool copy_unit(engine_pool *p, int c, int32_t from, int32_t to)
{
    model_copy copy = {from, to};
    return model_copy_state(p->m, c, &copy, 1, NULL) == STATUS_OK;
}

/* Own slots with the snapshots of `node` in them. */
static bool take_snapshots(engine_state *s, const prefix_node *node)
{
    engine_pool *p = s->pool;
    for (int c = 0; c < p->n_classes; c++) {
        unit_pool *u = &p->classes[c];
        if (!unit_is_constant(u))
            continue;
        int32_t from = node->unit[c];
        pool_ref(u, from); /* making room must not evict it */
        s->slot[c] = pool_take(p, c);
        bool good = s->slot[c] >= 0 && copy_unit(p, c, from, s->slot[c]);
        pool_unref(u, from);
        if (!good)
            return false;
    }
    return true;
}

int64_t engine_state_reuse(engine_state *s, const int32_t *ids, int64_t n)
{
    engine_pool *p = s->pool;
    REQUIRE(s->length == 0);
    int64_t limit = BASE_MIN(n - 1, s->capacity), depth;
    if (limit < POOL_PAGE || p->n_used_nodes == 0)
        return 0;
    prefix_node **path = base_alloc(sizeof *path * (size_t)(limit / POOL_PAGE));
    if (!path)
        return 0;
    for (depth = find_path(p, path, ids, limit); depth > 0; depth--) {
        bool held = true;
        for (int c = 0; c < p->n_classes && held; c++)
            held = class_is_held(p, path, depth, c);
        if (held)
            break;
    }
    if (depth > 0) {
        set_chain(s, path[depth - 1]);
        for (int c = 0; c < p->n_classes; c++)
            if (!unit_is_constant(&p->classes[c]))
                take_pages(s, path, depth, c);
        if (take_snapshots(s, s->chain)) {
            s->length = depth * POOL_PAGE;
            memmove(s->ids, ids, sizeof *ids * (size_t)s->length);
            prefix_touch(p, s->chain);
        } else {
            empty(s);
        }
    }
    base_free(path);
    return s->length;
}

/* ---- extend -------------------------------------------------------------------------------------------------------- */

/* How many units class c must hand out for n more positions, with a copy of the shared page that they begin in. */
static int64_t units_needed(const engine_state *s, int c, int64_t n, bool *copies_last)
{
    const unit_pool *u = &s->pool->classes[c];
    *copies_last = false;
    if (unit_is_constant(u))
        return s->slot[c] < 0;
    if (s->length % POOL_PAGE) {
        int32_t last = s->table[c][s->length / POOL_PAGE];
        *copies_last = last >= 0 && u->refs[last] > 1;
    }
    return page_count(s->length + n) - s->n_table[c] + *copies_last;
}

bool engine_pool_has_room(const engine_pool *p, const engine_state *s, int64_t more)
{
    for (int c = 0; c < p->n_classes; c++) {
        const unit_pool *u = &p->classes[c];
        bool copies;
        int64_t needed = s                     ? units_needed(s, c, more, &copies)
                         : unit_is_constant(u) ? 1
                                               : page_count(more);
        if (u->info.kind ==
            MODEL_STATE_WINDOWED) /* pages are freed while it is read, a step's worth at a time */
            needed = BASE_MIN(
                needed,
                page_count(u->info.window + POOL_SLACK + model_get_options(p->m)->max_tokens) + 1);
        if (needed > u->n_free + u->n_cached_only)
            return false;
    }
    return true;
}

static status no_room(const engine_state *s, int c, int64_t n, err *e)
{
    const unit_pool *u = &s->pool->classes[c];
    return err_set(e, STATUS_NO_MEMORY,
                   "engine: state is full: %lld positions and %lld more, %d of %d %s free",
                   (long long)s->length, (long long)n, u->n_free + u->n_cached_only, u->n,
                   unit_is_constant(u) ? "slots" : "pages");
}

/* Replaces the page that the next position lies in by a copy of its own. */
static bool own_last_page(engine_state *s, int c)
{
    unit_pool *u = &s->pool->classes[c];
    int32_t *last = &s->table[c][s->length / POOL_PAGE], page = pool_take(s->pool, c);
    if (page < 0)
        return false;
    if (!copy_unit(s->pool, c, *last, page)) {
        pool_unref(u, page);
        return false;
    }
    pool_unref(u, *last);
    *last = page;
    return true;
}

static status extend_class(engine_state *s, int c, int64_t n, err *e)
{
    unit_pool *u = &s->pool->classes[c];
    bool copies_last;
    int64_t needed = units_needed(s, c, n, &copies_last);
    if (needed > u->n_free + u->n_cached_only)
        return no_room(s, c, n, e);
    if (unit_is_constant(u)) {
        if (s->slot[c] < 0 && (s->slot[c] = pool_take(s->pool, c)) < 0)
            return no_room(s, c, n, e);
        return STATUS_OK;
    }
    if (copies_last && !own_last_page(s, c))
        return no_room(s, c, n, e);
    while (s->n_table[c] < page_count(s->length + n)) {
        int32_t page = pool_take(s->pool, c);
        if (page < 0)
            return no_room(s, c, n, e);
        s->table[c][s->n_table[c]++] = page;
    }
    return STATUS_OK;
}

status engine_state_extend(engine_state *s, int64_t n, err *e)
{
    if (n > s->capacity - s->length)
        return err_set(e, STATUS_TOO_LONG,
                       "engine: %lld positions and %lld more are over the context of %lld",
                       (long long)s->length, (long long)n, (long long)s->capacity);
    for (int c = 0; c < s->pool->n_classes; c++)
        drop_pages(s, c, page_count(s->length)); /* granted before and not used */
    for (int c = 0; c < s->pool->n_classes; c++) {
        status result = extend_class(s, c, n, e);
        if (result == STATUS_OK)
            continue;
        for (int k = 0; k < s->pool->n_classes;
             k++) /* pages of the positions that were not granted */
            drop_pages(s, k, page_count(s->length));
        return result;
    }
    return STATUS_OK;
}

/* ---- commit -------------------------------------------------------------------------------------------------------- */

/* A snapshot of class c for the node, when there is (or can be made) a slot for it. */
static void snapshot_into(engine_state *s, prefix_node *node, int c)
{
    engine_pool *p = s->pool;
    unit_pool *u = &p->classes[c];
    if (node->unit[c] >= 0 || s->length != node->depth * POOL_PAGE)
        return;
    if (p->n_snapshots >= p->cache_slots && !pool_evict(p, c))
        return;
    int32_t slot = p->n_snapshots < p->cache_slots ? pool_take(p, c) : -1;
    if (slot < 0)
        return;
    if (copy_unit(p, c, s->slot[c], slot))
        prefix_hold(p, node, c, slot);
    pool_unref(u, slot);
}

/* The page of this node that the cache has and the one that we have hold the same bits: keep one. */
static void share_page(engine_state *s, prefix_node *node, int c)
{
    engine_pool *p = s->pool;
    unit_pool *u = &p->classes[c];
    int32_t *ours = &s->table[c][node->depth - 1];
    if (node->unit[c] < 0) {
        if (*ours >= 0 && !u->held[*ours])
            prefix_hold(p, node, c, *ours);
    } else if (*ours >= 0 && *ours != node->unit[c]) {
        pool_ref(u, node->unit[c]);
        pool_unref(u, *ours);
        *ours = node->unit[c];
    }
}

/* Full pages since the newest cached one enter the cache. */
static void cache_full_pages(engine_state *s)
{
    engine_pool *p = s->pool;
    int64_t full = s->length / POOL_PAGE;
    while (!s->broken && (s->chain ? s->chain->depth : 0) < full) {
        int64_t i = s->chain ? s->chain->depth : 0;
        prefix_node *node = prefix_find(p, s->chain, s->ids + i * POOL_PAGE);
        if (!node)
            node = prefix_add(p, s->chain, s->ids + i * POOL_PAGE);
        if (!node) {
            s->broken = true;
            return;
        }
        set_chain(s, node);
        for (int c = 0; c < p->n_classes; c++) {
            if (unit_is_constant(&p->classes[c]))
                snapshot_into(s, node, c);
            else
                share_page(s, node, c);
        }
        prefix_touch(p, node);
    }
}

static void free_behind_window(engine_state *s, int c)
{
    unit_pool *u = &s->pool->classes[c];
    int64_t keep_from = s->length - u->info.window - POOL_SLACK +
                        1; /* first position that may still be looked at */
    int64_t n = BASE_MIN(keep_from > 0 ? keep_from / POOL_PAGE : 0, (int64_t)s->n_table[c]);
    for (int64_t i = n - 1; i >= 0 && s->table[c][i] >= 0; i--) {
        pool_unref(u, s->table[c][i]);
        s->table[c][i] = -1;
    }
}

status engine_state_commit(engine_state *s, const int32_t *ids, int64_t n, bool keep, err *e)
{
    if (n < 0 || n > s->capacity - s->length)
        return err_set(e, STATUS_INVALID,
                       "engine: commit of %lld positions behind %lld, the context has %lld",
                       (long long)n, (long long)s->length, (long long)s->capacity);
    memmove(s->ids + s->length, ids, sizeof *ids * (size_t)n);
    s->length += n;
    if (keep)
        cache_full_pages(s);
    else if (s->length / POOL_PAGE > (s->chain ? s->chain->depth : 0))
        s->broken = true;
    for (int c = 0; c < s->pool->n_classes; c++)
        if (s->pool->classes[c].info.kind == MODEL_STATE_WINDOWED)
            free_behind_window(s, c);
    return STATUS_OK;
}

int64_t engine_state_run_limit(const engine_state *s)
{
    return s->pool->has_constant ? POOL_PAGE - s->length % POOL_PAGE : INT64_MAX;
}

/* ---- fork, truncate, snapshot -------------------------------------------------------------------------------------- */

status engine_state_fork(engine_state **out, engine_state *s, err *e)
{
    engine_state *copy;
    status result = engine_state_create(&copy, s->pool, e);
    if (result != STATUS_OK)
        return result;
    for (int c = 0; c < s->pool->n_classes; c++) {
        unit_pool *u = &s->pool->classes[c];
        drop_pages(s, c, page_count(s->length)); /* granted and not used: not to be shared */
        for (int i = 0; i < s->n_table[c]; i++) {
            if (s->table[c][i] >= 0)
                pool_ref(u, s->table[c][i]);
            copy->table[c][i] = s->table[c][i];
        }
        copy->n_table[c] = s->n_table[c];
        if (s->slot[c] < 0)
            continue;
        copy->slot[c] = pool_take(s->pool, c);
        if (copy->slot[c] < 0 || !copy_unit(s->pool, c, s->slot[c], copy->slot[c])) {
            engine_state_drop(copy);
            return no_room(s, c, 0, e);
        }
    }
    memcpy(copy->ids, s->ids, sizeof *s->ids * (size_t)s->length);
    copy->length = s->length;
    copy->broken = s->broken;
    set_chain(copy, s->chain);
    *out = copy;
    return STATUS_OK;
}

/* Are the pages that a query at position `length` looks at still in the table? */
static bool window_is_there(const engine_state *s, int c, int64_t length)
{
    int64_t first = BASE_MAX((int64_t)0, length - s->pool->classes[c].info.window + 1) / POOL_PAGE;
    for (int64_t i = first; i < page_count(length); i++)
        if (s->table[c][i] < 0)
            return false;
    return true;
}

static void cut_tables(engine_state *s, int64_t length)
{
    prefix_node *node = s->chain;
    for (int c = 0; c < s->pool->n_classes; c++)
        drop_pages(s, c, page_count(length));
    while (node && node->depth > length / POOL_PAGE)
        node = node->parent;
    s->broken = s->broken && length / POOL_PAGE > (node ? node->depth : 0);
    set_chain(s, node);
    s->length = length;
}

/* Copies the kept snapshot back into the slots. */
static bool restore_kept(engine_state *s)
{
    for (int c = 0; c < s->pool->n_classes; c++)
        if (s->kept.slot[c] >= 0 && !copy_unit(s->pool, c, s->kept.slot[c], s->slot[c]))
            return false;
    return true;
}

status engine_state_truncate(engine_state *s, int64_t length, int64_t *length_now, err *e)
{
    if (length < 0 || length > s->length)
        return err_set(e, STATUS_INVALID, "engine: cannot cut %lld positions to %lld",
                       (long long)s->length, (long long)length);
    int64_t target = length;
    bool possible = true;
    if (length < s->length && s->pool->has_constant) {
        target = s->kept.length;
        possible = target >= 0 && target <= length;
    }
    for (int c = 0; c < s->pool->n_classes && possible; c++)
        if (s->pool->classes[c].info.kind == MODEL_STATE_WINDOWED)
            possible = window_is_there(s, c, target);
    if (possible && s->pool->has_constant && length < s->length)
        possible = restore_kept(s);
    if (possible) {
        cut_tables(s, target);
    } else { /* begin again from the cache; reuse leaves the last position to be computed, so look one further */
        empty(s);
        engine_state_reuse(s, s->ids, length + 1);
    }
    if (s->kept.length > s->length)
        drop_kept(s);
    *length_now = s->length;
    return STATUS_OK;
}

status engine_state_snapshot(engine_state *s, err *e)
{
    engine_pool *p = s->pool;
    if (!p->has_constant)
        return STATUS_OK;
    drop_kept(s);
    for (int c = 0; c < p->n_classes; c++) {
        if (s->slot[c] < 0)
            continue;
        s->kept.slot[c] = pool_take(p, c);
        if (s->kept.slot[c] < 0 || !copy_unit(p, c, s->slot[c], s->kept.slot[c])) {
            drop_kept(s);
            return err_set(e, STATUS_BUSY, "engine: no slot for a snapshot: all %d are in use",
                           p->classes[c].n);
        }
    }
    s->kept.length = s->length;
    return STATUS_OK;
}

status engine_state_restore(engine_state *s, err *e)
{
    if (!s->pool->has_constant)
        return STATUS_OK;
    if (s->kept.length != s->length || !restore_kept(s))
        return err_set(e, STATUS_INTERNAL, "engine: no snapshot of position %lld",
                       (long long)s->length);
    return STATUS_OK;
}

void engine_state_run(const engine_state *s, int n, model_run *run)
{
    *run = (model_run){.n_tokens = n, .position = s->length};
    for (int c = 0; c < s->pool->n_classes; c++) {
        run->pages[c] = s->table[c];
        run->n_pages[c] = s->n_table[c];
        run->slot[c] = s->slot[c];
    }
}
