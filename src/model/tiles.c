/*
 * Tiles: how the weights of one epoch come out of those of another. The weights of a layer that one kind of border cuts (query heads,
 * feed-forward, none) form a group, and so does every weight outside layers. A group's tiles lie side by side in one counted piece. An epoch whose
 * borders leave a group as it was refers to the same piece; else it has a new one, into which what both hold is moved inside the device, and only
 * the rest is read from the file: rows above and below, columns left and right of the rectangle that they share.
 *
 * Pieces that are loaded together share a slab; the memory of a piece goes back to the system when its last epoch does.
 * Deliberately not: tiles one by one in lists of pointers. A product runs over strips that lie one behind another, whatever plan they come from.
 */
#include "model/inside.h"

#include <string.h>

/* ---- groups -------------------------------------------------------------------------------------------------------- */

static int kind_of(weight_cut cut)
{
    switch (cut) {
    case CUT_ROWS_HEADS:
    case CUT_ROWS_KV_HEADS:
    case CUT_COLUMNS_HEADS:
        return 1;
    case CUT_ROWS_FFN:
    case CUT_COLUMNS_FFN:
        return 2;
    case CUT_NONE:
    case CUT_ROWS_VOCABULARY:
        break;
    }
    return 0;
}

int tiles_n_weights(const model_tiles *t)
{
    return W_LAYER + (int)t->weights.n_layers * (W_IDS - W_LAYER);
}

model_weight *tiles_weight(const model_tiles *t, int i)
{
    if (i < W_LAYER)
        return (model_weight *)&t->weights.global[i];
    i -= W_LAYER;
    return &t->weights.layer[i / (W_IDS - W_LAYER)][i % (W_IDS - W_LAYER)];
}

static int group_of(const model_tiles *t, int i)
{
    if (i < W_LAYER)
        return i;
    int layer = (i - W_LAYER) / (W_IDS - W_LAYER), id = (i - W_LAYER) % (W_IDS - W_LAYER);
    return W_LAYER + layer * TILES_KINDS + t->kind[W_LAYER + id];
}

status tiles_init(model_tiles *t, model_weights *weights, const model_family *family, err *e)
{
    t->weights = *weights;
    *weights = (model_weights){0};
    for (int i = 0; i < family->n_weights; i++)
        t->kind[family->weights[i].id] = (signed char)kind_of(family->weights[i].cut);
    t->n_groups = W_LAYER + (int)t->weights.n_layers * TILES_KINDS + 1; /* the last: angles */
    t->group = base_zalloc((size_t)t->n_groups, sizeof *t->group);
    if (!t->group)
        return err_set(e, STATUS_NO_MEMORY, "no memory for a list of %d weights",
                       tiles_n_weights(t));
    return STATUS_OK;
}

/* ---- places -------------------------------------------------------------------------------------------------------- */

static bool same_tiles(const model_weight *a, const model_weight *b)
{
    if (!a->row || !b->row)
        return !a->row && !b->row;
    return a->first_row == b->first_row && a->first_column == b->first_column &&
           a->device.rows == b->device.rows && a->device.columns == b->device.columns &&
           a->device.column_begin == b->device.column_begin && a->device.type == b->device.type;
}

/* Which groups the other epoch has just so. */
static void find_kept(model_tiles *t, const model_tiles *beside)
{
    for (int g = 0; g + 1 < t->n_groups; g++)
        t->group[g].kept = beside && beside->group[g].piece;
    for (int i = 0; beside && i < tiles_n_weights(t); i++)
        if (!same_tiles(tiles_weight(t, i), tiles_weight(beside, i)))
            t->group[group_of(t, i)].kept = false;
}

static bool take(uint64_t *end, uint64_t bytes, uint64_t *out_at)
{
    *out_at = *end;
    return checked_add(*end, bytes, end) && checked_align(*end, 64, end);
}

static status place(model_weight *w, const device *d, int32_t buffer, uint64_t *end,
                    const char *path, err *e)
{
    uint64_t bytes = (uint64_t)w->device.columns * sizeof(float);
    if (!(w->row->flags & WEIGHT_VECTOR))
        bytes = d->ops->weight_bytes(d, &w->device);
    w->device.at.buffer = buffer;
    if (bytes == 0 || !take(end, bytes, &w->device.at.offset))
        return err_set(e, STATUS_UNSUPPORTED, "%s: %.*s: %lld x %lld of %s does not fit the device",
                       path, (int)w->tensor->name.length, w->tensor->name.data,
                       (long long)w->device.rows, (long long)w->device.columns,
                       w->device.type->name);
    return STATUS_OK;
}

status tiles_place(model_tiles *t, const model_tiles *beside, const device *d, int32_t buffer,
                   uint64_t angle_bytes, device_ref *angles, const char *path, err *e)
{
    uint64_t end = 0;
    find_kept(t, beside);
    int n = tiles_n_weights(t);
    for (int g = 0; g + 1 < t->n_groups; g++) {
        tiles_group *group = &t->group[g];
        bool global = g < W_LAYER;
        int first = global ? g : W_LAYER + (g - W_LAYER) / TILES_KINDS * (W_IDS - W_LAYER),
            last = global ? g : first + W_IDS - W_LAYER - 1;
        group->begin = end;
        for (int i = first; i <= last && i < n; i++) {
            model_weight *w = tiles_weight(t, i);
            if (!w->row || group_of(t, i) != g)
                continue;
            status s = STATUS_OK;
            if (group->kept)
                w->device.at = tiles_weight(beside, i)->device.at;
            else
                s = place(w, d, buffer, &end, path, e);
            if (s != STATUS_OK)
                return s;
        }
        group->bytes = group->kept ? beside->group[g].piece->bytes : end - group->begin;
        t->kept_bytes += group->kept ? group->bytes : 0;
    }
    tiles_group *last = &t->group[t->n_groups - 1];
    *angles = (device_ref){buffer, end};
    last->begin = end;
    if (!take(&end, angle_bytes, &angles->offset))
        return err_set(e, STATUS_CORRUPT, "%s: the weights are too large", path);
    last->bytes = end - last->begin;
    t->fresh_bytes = end;
    return STATUS_OK;
}

/* ---- pieces -------------------------------------------------------------------------------------------------------- */

status tiles_acquire(model_tiles *t, const model_tiles *beside, device *d, err *e)
{
    tiles_slab *slab = base_zalloc(1, sizeof *slab);
    if (!slab)
        return err_set(e, STATUS_NO_MEMORY, "no memory for weights");
    status s = d->ops->alloc(d, t->fresh_bytes, &slab->buffer, e);
    if (s != STATUS_OK) {
        base_free(slab);
        return s;
    }
    slab->refs = 1; /* ours, until all pieces are made */
    for (int g = 0; g < t->n_groups && s == STATUS_OK; g++) {
        tiles_group *group = &t->group[g];
        if (group->kept) {
            group->piece = beside->group[g].piece;
            group->piece->refs++;
        } else if (group->bytes) {
            group->piece = base_zalloc(1, sizeof *group->piece);
            if (group->piece)
                *group->piece = (tiles_piece){1, slab, {slab->buffer, group->begin}, group->bytes};
            else
                s = err_set(e, STATUS_NO_MEMORY, "no memory for weights");
            slab->refs += s == STATUS_OK;
        }
    }
    if (--slab->refs == 0) {
        d->ops->free(d, slab->buffer);
        base_free(slab);
    }
    return s;
}

static void release(tiles_group *group, device *d)
{
    tiles_piece *p = group->piece;
    group->piece = NULL;
    if (!p || --p->refs > 0)
        return;
    if (--p->slab->refs > 0) {
        d->ops->drop(d, p->at, p->bytes);
    } else {
        d->ops->free(d, p->slab->buffer);
        base_free(p->slab);
    }
    base_free(p);
}

void tiles_release(model_tiles *t, device *d)
{
    for (int g = 0; t->group && g < t->n_groups; g++)
        release(&t->group[g], d);
    base_free(t->group);
    weights_fini(&t->weights);
    t->group = NULL;
}

/* ---- what has to come from where ----------------------------------------------------------------------------------- */

static int64_t rows_of(const model_weight *w)
{
    return w->row->flags & WEIGHT_VECTOR ? 1 : w->device.rows;
}

static uint64_t job_bytes(const model_weight *w, const tiles_job *j)
{
    int64_t block = w->device.type->block_elements, begin = j->column_begin / block * block,
            end = (j->column_end + block - 1) / block * block;
    return (uint64_t)(j->row_end - j->row_begin) * kernel_row_bytes(w->device.type, end - begin);
}

static int add_job(tiles_job *jobs, int n, const model_weight *w, tiles_job j)
{
    if (j.row_begin >= j.row_end || j.column_begin >= j.column_end)
        return n;
    jobs[n] = j;
    jobs[n].bytes = job_bytes(w, &j);
    return n + 1;
}

/* Rows and columns are the tensor's (a fused one's rows are counted from its beginning). */
int tiles_jobs(tiles_job jobs[TILES_JOBS], const model_weight *w, const model_weight *other)
{
    tiles_job all = {w->first_row,    w->first_row + rows_of(w),
                     w->first_column, w->first_column + w->device.columns,
                     false,           0};
    if (!other || !other->row)
        return add_job(jobs, 0, w, all);
    tiles_job both = {BASE_MAX(all.row_begin, other->first_row),
                      BASE_MIN(all.row_end, other->first_row + rows_of(other)),
                      BASE_MAX(all.column_begin, other->first_column),
                      BASE_MIN(all.column_end, other->first_column + other->device.columns),
                      true,
                      0};
    if (both.row_begin >= both.row_end || both.column_begin >= both.column_end)
        return add_job(jobs, 0, w, all);
    int n = add_job(jobs, 0, w, both);
    tiles_job rest = all;
    rest.row_end = both.row_begin;
    n = add_job(jobs, n, w, rest);
    rest = all;
    rest.row_begin = both.row_end;
    n = add_job(jobs, n, w, rest);
    rest = both;
    rest.move = false;
    rest.column_begin = all.column_begin;
    rest.column_end = both.column_begin;
    n = add_job(jobs, n, w, rest);
    rest.column_begin = both.column_end;
    rest.column_end = all.column_end;
    return add_job(jobs, n, w, rest);
}

bool tiles_is_kept(const model_tiles *t, int i)
{
    return t->group[group_of(t, i)].kept;
}

uint64_t tiles_to_read(const model_tiles *t, const model_tiles *beside)
{
    uint64_t sum = 0;
    for (int i = 0; i < tiles_n_weights(t); i++) {
        const model_weight *w = tiles_weight(t, i);
        tiles_job jobs[TILES_JOBS];
        if (!w->row || tiles_is_kept(t, i))
            continue;
        int n = tiles_jobs(jobs, w, beside ? tiles_weight(beside, i) : NULL);
        for (int k = 0; k < n; k++)
            sum += jobs[k].move ? 0 : jobs[k].bytes;
    }
    return sum;
}

uint64_t tiles_let_go_bytes(const model_tiles *t, const model_tiles *beside)
{
    uint64_t sum = 0;
    for (int g = 0; g < beside->n_groups; g++)
        if (beside->group[g].piece && beside->group[g].piece->refs == 1 && !t->group[g].kept)
            sum += beside->group[g].piece->bytes;
    return sum;
}

/* ---- letting go ---------------------------------------------------------------------------------------------------- */

void tiles_let_go_unused(const model_tiles *t, model_tiles *beside, device *d)
{
    int n = tiles_n_weights(t);
    for (int g = 0; g < beside->n_groups; g++) {
        bool used = t->group[g].kept;
        for (int i = 0; i < n && !used; i++) {
            const model_weight *w = tiles_weight(t, i), *old = tiles_weight(beside, i);
            used = group_of(t, i) == g && w->row && old->row;
        }
        if (!used)
            release(&beside->group[g], d);
    }
}

void tiles_let_go_until(const model_tiles *t, model_tiles *beside, int i, device *d)
{
    int whole = i < W_LAYER ? i : W_LAYER + (i - W_LAYER) / (W_IDS - W_LAYER) * TILES_KINDS;
    for (int g = 0; g < BASE_MIN(whole, beside->n_groups - 1); g++)
        if (!t->group[g].kept)
            release(&beside->group[g], d);
}
