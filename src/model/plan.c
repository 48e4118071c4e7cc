/* What is known of a model before its weights are touched, put together: source, family, configuration, weights, classes of state. */
#include "kernel/scalar.h"
#include "model/inside.h"

#include <string.h>

/* The class of that kind, made when it is new. */
static int class_for(model_plan *p, model_state_kind kind, int window)
{
    for (int i = 0; i < p->n_classes; i++)
        if (p->pools[i].info.kind == kind)
            return i;
    p->pools[p->n_classes].info = (model_state_class){
        .kind = kind,
        .page_tokens = kind == MODEL_STATE_CONSTANT ? 0 : KERNEL_RANGE,
        .window = window,
    };
    return p->n_classes++;
}

/* All ranks have the same classes, so that page ids are the same everywhere; layers are counted where they are held. */
static void sort_layers(model_plan *p)
{
    const model_config *c = &p->config;
    p->decay_class = -1;
    for (int64_t l = 0; l < c->L; l++) {
        bool windowed = c->windowed[l] && c->window > 0;
        int i = class_for(p, windowed ? MODEL_STATE_WINDOWED : MODEL_STATE_PAGED,
                          windowed ? c->window : 0);
        bool ours = l >= p->share.layer_begin && l < p->share.layer_end;
        p->class_of[l] = i;
        p->index_in[l] = p->pools[i].info.n_layers;
        p->pools[i].info.n_layers += ours;
        if (!c->decay[l])
            continue;
        p->decay_class = class_for(p, MODEL_STATE_CONSTANT, 0);
        p->decay_index[l] = p->pools[p->decay_class].info.n_layers;
        p->pools[p->decay_class].info.n_layers += ours;
    }
}

status model_plan_init(model_plan *p, const file_model *f, const model_shard *shard, err *e)
{
    memset(p, 0, sizeof(*p));
    status s = model_source_create(&p->source, f, e);
    if (s == STATUS_OK)
        s = model_find_family(&p->family, p->source, e);
    if (s == STATUS_OK)
        s = model_read_config(&p->config, p->family, p->source, e);
    if (s == STATUS_OK)
        s = model_share_init(&p->share, shard, &p->config, f->path, e);
    if (s == STATUS_OK)
        s = weights_find(&p->weights, p->family, &p->config, f, e);
    if (s != STATUS_OK) {
        model_plan_fini(p);
        return s;
    }
    if (p->config.pooling != MODEL_POOLING_NONE)
        p->weights.global[W_OUTPUT].row = NULL; /* nobody asks for logits */
    p->config.tied =
        p->weights.global[W_OUTPUT].row == NULL && p->config.pooling == MODEL_POOLING_NONE;
    if (p->config.attention_scale == 0.0)
        p->config.attention_scale = (double)kernel_rsqrtf((float)p->config.dh);
    weights_share(&p->weights, &p->config, &p->share);
    sort_layers(p);
    return STATUS_OK;
}

void model_plan_fini(model_plan *p)
{
    weights_fini(&p->weights);
    model_source_destroy(p->source);
    p->source = NULL;
}
