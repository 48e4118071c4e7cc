/*
 * Shards: what a rank holds of a model, checked. Borders must not divide a leaf of an exact sum (then a cut could show in the last bit) nor a
 * block of 32 columns that is quantised as one.
 */
#include "model/inside.h"

model_cut_units model_cut_units_of(const model_config *c)
{
    model_cut_units u = {.n_layers = c->L,
                         .n_heads = c->H,
                         .n_ffn = c->F,
                         .n_vocab = c->V,
                         .heads = 1,
                         .ffn = kernel_leaf(c->F, 0)};
    while (u.heads < c->H && u.heads * c->dh % KERNEL_UNIT != 0)
        u.heads++;
    return u;
}

static status check_range(int64_t begin, int64_t end, int64_t limit, int64_t unit, const char *what,
                          const char *path, err *e)
{
    if (begin < 0 || end < begin || end > limit)
        return err_set(e, STATUS_INVALID, "%s: a shard of %s %lld to %lld, there are %lld", path,
                       what, (long long)begin, (long long)end, (long long)limit);
    if ((begin % unit != 0 && begin != limit) || (end % unit != 0 && end != limit))
        return err_set(e, STATUS_INVALID,
                       "%s: a shard of %s %lld to %lld: borders are multiples of %lld here", path,
                       what, (long long)begin, (long long)end, (long long)unit);
    return STATUS_OK;
}

static void whole(model_share *out, const model_config *c)
{
    *out = (model_share){
        .tensor_ranks = 1,
        .first = true,
        .last = true,
        .layer_end = c->L,
        .head_end = c->H,
        .kv_end = c->G,
        .ffn_end = c->F,
        .vocab_end = c->V,
    };
}

status model_share_init(model_share *out, const model_shard *s, const model_config *c,
                        const char *path, err *e)
{
    if (!s->cut) {
        whole(out, c);
        return STATUS_OK;
    }
    model_cut_units u = model_cut_units_of(c);
    if (s->tensor_ranks < 1)
        return err_set(e, STATUS_INVALID, "%s: a stage of %d ranks", path, s->tensor_ranks);
    status st = check_range(s->layer_begin, s->layer_end, c->L, 1, "layers", path, e);
    if (st == STATUS_OK && s->layer_begin == s->layer_end)
        st = err_set(e, STATUS_INVALID, "%s: a stage without layers", path);
    if (st == STATUS_OK)
        st = check_range(s->head_begin, s->head_end, c->H, u.heads, "query heads", path, e);
    if (st == STATUS_OK)
        st = check_range(s->ffn_begin, s->ffn_end, c->F, u.ffn, "feed-forward columns", path, e);
    if (st == STATUS_OK)
        st = check_range(s->vocab_begin, s->vocab_end, c->V, KERNEL_TILE_ROWS, "the vocabulary",
                         path, e);
    if (st != STATUS_OK)
        return st;
    int64_t group = c->H / c->G;
    *out = (model_share){
        .tensor_ranks = s->tensor_ranks,
        .first = s->layer_begin == 0,
        .last = s->layer_end == c->L,
        .layer_begin = s->layer_begin,
        .layer_end = s->layer_end,
        .head_begin = s->head_begin,
        .head_end = s->head_end,
        .kv_begin = s->head_begin / group,
        .kv_end = s->head_begin == s->head_end ? s->head_begin / group
                                               : (s->head_end + group - 1) / group,
        .ffn_begin = s->ffn_begin,
        .ffn_end = s->ffn_end,
        .vocab_begin = s->vocab_begin,
        .vocab_end = s->vocab_end,
    };
    return STATUS_OK;
}

status model_get_cut_units(model_cut_units *out, const file_model *f, err *e)
{
    model_plan p;
    model_shard all = {0};
    status s = model_plan_init(&p, f, &all, e);
    if (s != STATUS_OK)
        return s;
    *out = model_cut_units_of(&p.config);
    model_plan_fini(&p);
    return STATUS_OK;
}
