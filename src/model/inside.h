/*
 * Inside of src/model: the loaded model and what load.c, step.c and card.c share.
 */
#ifndef SHOAL_MODEL_INSIDE_H
#define SHOAL_MODEL_INSIDE_H

#include "model/family.h"

/* Everything known before weights are touched. */
typedef struct model_plan {
    model_source *source;
    const model_family *family;
    model_config config;
    model_share share;
    model_weights weights;
    int n_classes, decay_class; /* −1 = none */
    model_pool pools[MODEL_STATE_CLASSES];
    int class_of[MODEL_MAX_LAYERS], index_in[MODEL_MAX_LAYERS], decay_index[MODEL_MAX_LAYERS];
} model_plan;

/* Reads, checks and finds everything; classes have kinds, layers and windows, but no bytes. */
status model_plan_init(model_plan *p, const file_model *f, const model_shard *shard, err *e);
void model_plan_fini(model_plan *p);

struct model {
    model_card *card;
    model_options options;
    model_need used;
    model_config config; /* for sizes */
    device *device;
    graph *graph;
    const kernel_table *kernels;
    const char *isa, *numerics;
    int n_classes;
    model_pool pools[MODEL_STATE_CLASSES];
    model_share share;
    int logits, received, sent; /* values; −1 = none */
    float *stream;              /* [limits.n_tokens, D] between stages */
    float *slice;               /* [limits.n_outputs, our logits] to be gathered */
    device_limits limits;
    /* The step in hand: [limits…] */
    device_step step;
    int32_t *ids, *run_of, *pages, *outputs;
    int64_t *positions;
    device_run *runs;
};

#endif
