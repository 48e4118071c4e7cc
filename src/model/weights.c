/*
 * The weight table meets the file: every row of the family's table becomes a tensor with a checked shape and a known type, or is rightly
 * absent. Places in the device come later (load.c).
 */
#include "model/family.h"

#include <stdio.h>
#include <string.h>

int64_t model_dim(const model_config *c, weight_dim d)
{
    switch (d) {
    case DIM_NONE:
        return 0;
    case DIM_1:
        return 1;
    case DIM_D:
        return c->D;
    case DIM_HEADS:
        return c->H * c->dh;
    case DIM_KV_HEADS:
        return c->G * c->dh;
    case DIM_HEAD:
        return c->dh;
    case DIM_F:
        return c->F;
    case DIM_V:
        return c->V;
    case DIM_HALF_ROTARY:
        return c->rope[0].width / 2;
    case DIM_POSITIONS:
        return c->context;
    case DIM_TYPES:
        return c->n_types;
    case DIM_QKV:
        return (c->H + 2 * c->G) * c->dh;
    case DIM_2F:
        return 2 * c->F;
    }
    return 0;
}

const model_weight *weights_get(const model_weights *w, int64_t layer, weight_id id)
{
    return id < W_LAYER ? &w->global[id] : &w->layer[layer][id - W_LAYER];
}

/* "blk.%d.x" with the layer put in. Patterns are short: they are ours. */
static void name_of(char out[256], const char *pattern, int64_t layer)
{
    const char *hole = strstr(pattern, "%d");
    if (hole == NULL)
        snprintf(out, 256, "%s", pattern);
    else
        snprintf(out, 256, "%.*s%lld%s", (int)(hole - pattern), pattern, (long long)layer,
                 hole + 2);
}

static status check_shape(const model_weight *w, const model_config *c, const char *path,
                          const char *name, err *e)
{
    const file_tensor *t = w->tensor;
    bool vector = (w->row->flags & WEIGHT_VECTOR) != 0;
    int64_t rows = model_dim(c, w->row->whole != DIM_NONE ? w->row->whole : w->row->rows);
    int64_t columns = model_dim(c, w->row->columns);
    uint64_t found_rows = t->n_dims >= 2 ? t->dims[1] : 1;
    if (t->n_dims > 2 || (vector && found_rows != 1) || t->dims[0] != (uint64_t)columns ||
        found_rows != (uint64_t)rows)
        return err_set(e, STATUS_CORRUPT, "%s: %s is %llu x %llu (%u dims), expected %lld x %lld",
                       path, name, (unsigned long long)found_rows, (unsigned long long)t->dims[0],
                       t->n_dims, (long long)rows, (long long)columns);
    const kernel_type *type = kernel_type_find((int)t->type);
    if (type == NULL)
        return err_set(e, STATUS_UNSUPPORTED,
                       "%s: %s has the weight type %s, which is not known yet", path, name,
                       file_type_name(t->type));
    if (columns % type->block_elements != 0)
        return err_set(e, STATUS_CORRUPT, "%s: %s has rows of %lld, no multiple of %d as %s wants",
                       path, name, (long long)columns, type->block_elements, type->name);
    if (vector && type->quantised)
        return err_set(e, STATUS_UNSUPPORTED, "%s: %s is of type %s, expected floats", path, name,
                       type->name);
    return STATUS_OK;
}

static const char model_prefix[] = "model.";

static status find_one(model_weight *w, const weight_row *row, int64_t layer, const model_config *c,
                       const file_model *f, err *e)
{
    const char *pattern = f->format == FILE_GGUF ? row->gguf : row->hf;
    char name[256] = "";
    const file_tensor *t = NULL;
    if (pattern != NULL) {
        name_of(name, pattern, layer);
        t = file_find_tensor(f, name);
    }
    if (t == NULL && strncmp(name, model_prefix, strlen(model_prefix)) == 0)
        t = file_find_tensor(f, name + strlen(model_prefix)); /* saved without its head */
    if (t == NULL) {
        if (row->flags & WEIGHT_OPTIONAL)
            return STATUS_OK;
        return err_set(e, STATUS_CORRUPT, "%s: the tensor %s is missing", f->path, name);
    }
    w->row = row;
    w->tensor = t;
    w->first_row = model_dim(c, row->skip[0]) + model_dim(c, row->skip[1]);
    w->device.type = kernel_type_find((int)t->type);
    w->device.rows = model_dim(c, row->rows);
    w->device.columns = model_dim(c, row->columns);
    w->device.at = DEVICE_NOWHERE;
    w->file_columns = w->device.columns;
    return check_shape(w, c, f->path, name, e);
}

/* The layer of "blk.7.x" or "model.layers.7.x"; −1 when the tensor belongs to no layer. */
static int64_t layer_of(const file_model *f, str name)
{
    static const char *const prefixes[] = {"model.layers.", "layers.", "encoder.layer."};
    const char *prefix = f->format == FILE_GGUF ? "blk." : prefixes[0];
    for (size_t i = 0; f->format != FILE_GGUF && i < BASE_COUNT(prefixes); i++)
        if (str_starts(name, prefixes[i]))
            prefix = prefixes[i];
    int64_t layer = 0;
    size_t at = strlen(prefix);
    if (!str_starts(name, prefix) || at >= name.length || name.data[at] < '0' ||
        name.data[at] > '9')
        return -1;
    for (; at < name.length && name.data[at] >= '0' && name.data[at] <= '9' &&
           layer < MODEL_MAX_LAYERS;
         at++)
        layer = layer * 10 + (name.data[at] - '0');
    return layer;
}

/* A tensor of a layer that nobody reads (a bias, one more norm) means that the model is not what we take it for. Layers behind the last
 * (draft heads) and tables of rotary angles are rightly left alone. */
static status check_unused(const model_weights *w, const file_model *f, err *e)
{
    bool *used = base_zalloc(f->n_tensors, sizeof(*used));
    if (used == NULL)
        return err_set(e, STATUS_NO_MEMORY, "%s: no memory for %u tensors", f->path, f->n_tensors);
    for (int64_t l = 0; l < w->n_layers; l++)
        for (int id = 0; id < W_IDS - W_LAYER; id++)
            if (w->layer[l][id].row != NULL)
                used[w->layer[l][id].tensor - f->tensors] = true;
    status s = STATUS_OK;
    for (uint32_t i = 0; i < f->n_tensors && s == STATUS_OK; i++) {
        str name = f->tensors[i].name;
        int64_t layer = layer_of(f, name);
        bool angles = name.length > 9 && memcmp(name.data + name.length - 9, ".inv_freq", 9) == 0;
        if (!used[i] && !angles && layer >= 0 && layer < w->n_layers)
            s = err_set(
                e, STATUS_UNSUPPORTED,
                "%s: the family has no use for the tensor %.*s: the model is of another kind",
                f->path, (int)BASE_MIN(name.length, 100), name.data);
    }
    base_free(used);
    return s;
}

status weights_find(model_weights *w, const model_family *family, const model_config *c,
                    const file_model *f, err *e)
{
    memset(w, 0, sizeof(*w));
    if ((uint64_t)c->L > f->n_tensors)
        return err_set(e, STATUS_CORRUPT, "%s: %lld layers are named, the file has %u tensors",
                       f->path, (long long)c->L, f->n_tensors);
    w->n_layers = c->L;
    w->layer = base_zalloc((size_t)c->L, sizeof(*w->layer));
    if (w->layer == NULL)
        return err_set(e, STATUS_NO_MEMORY, "%s: no memory for %lld layers", f->path,
                       (long long)c->L);
    status s = STATUS_OK;
    for (int i = 0; i < family->n_weights && s == STATUS_OK; i++) {
        const weight_row *row = &family->weights[i];
        if (row->id < W_LAYER) {
            s = find_one(&w->global[row->id], row, 0, c, f, e);
            continue;
        }
        for (int64_t l = 0; l < c->L && s == STATUS_OK; l++)
            if (row->id != W_DECAY || c->decay[l])
                s = find_one(&w->layer[l][row->id - W_LAYER], row, l, c, f, e);
    }
    if (s == STATUS_OK)
        s = check_unused(w, f, e);
    if (s != STATUS_OK)
        weights_fini(w);
    return s;
}

/* The range of a cut weight's dimension that the rank holds, in elements; false: it is not cut. */
static bool cut_range(int64_t *begin, int64_t *end, weight_cut cut, const model_config *c,
                      const model_share *s)
{
    switch (cut) {
    case CUT_ROWS_HEADS:
    case CUT_COLUMNS_HEADS:
        *begin = s->head_begin * c->dh;
        *end = s->head_end * c->dh;
        return true;
    case CUT_ROWS_KV_HEADS:
        *begin = s->kv_begin * c->dh;
        *end = s->kv_end * c->dh;
        return true;
    case CUT_ROWS_FFN:
    case CUT_COLUMNS_FFN:
        *begin = s->ffn_begin;
        *end = s->ffn_end;
        return true;
    case CUT_NONE:
    case CUT_ROWS_VOCABULARY:
        break;
    }
    return false;
}

static void share_one(model_weight *w, const model_config *c, const model_share *s)
{
    int64_t begin, end;
    if (w->row == NULL || !cut_range(&begin, &end, w->row->cut, c, s))
        return;
    bool columns = w->row->cut == CUT_COLUMNS_HEADS || w->row->cut == CUT_COLUMNS_FFN ||
                   (w->row->flags & WEIGHT_VECTOR);
    if (begin == end) {
        w->row = NULL;
    } else if (columns) {
        w->first_column = w->device.column_begin = begin;
        w->device.columns = end - begin;
    } else {
        w->first_row += begin;
        w->device.rows = end - begin;
    }
}

bool weights_embedding_is_cut(const model_weights *w, const model_share *s)
{
    return s->first && s->tensor_ranks > 1 && w->global[W_POSITIONS].row == NULL &&
           w->global[W_TYPES].row == NULL;
}

/* Our rows of a matrix over the vocabulary; none: no matrix. */
static void share_rows(model_weight *w, const model_share *s)
{
    w->first_row = s->vocab_begin;
    w->device.rows = s->vocab_end - s->vocab_begin;
    if (w->device.rows == 0)
        w->row = NULL;
}

/* The vocabulary: the ranks of the first stage share the rows of the embedding, those of the last the rows of the output matrix. A tied one
 * is the embedding, and is held once. Alone in the first stage, or where more tables are added to it, ranks hold the whole embedding. */
static void share_vocabulary(model_weights *w, const model_share *s)
{
    model_weight *embedding = &w->global[W_EMBEDDING], *output = &w->global[W_OUTPUT];
    bool tied = output->row == NULL, looks_up = s->first, heads = s->last;
    if (s->last && !tied)
        share_rows(output, s);
    else
        output->row = NULL;
    if (!looks_up && !(tied && heads))
        embedding->row = NULL;
    else if (!looks_up || weights_embedding_is_cut(w, s))
        share_rows(embedding, s);
    if (!s->last)
        w->global[W_OUTPUT_NORM].row = NULL;
}

void weights_share(model_weights *w, const model_config *c, const model_share *s)
{
    for (int64_t l = 0; l < w->n_layers; l++) {
        for (int id = 0; id < W_IDS - W_LAYER; id++) {
            if (l < s->layer_begin || l >= s->layer_end)
                w->layer[l][id].row = NULL;
            else
                share_one(&w->layer[l][id], c, s);
        }
    }
    share_vocabulary(w, s);
}

void weights_fini(model_weights *w)
{
    base_free(w->layer);
    *w = (model_weights){0};
}
