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

/* ---- tiles (tiles.c) ------------------------------------------------------------------------------------------------ */

enum { TILES_KINDS = 3, TILES_JOBS = 5 };

/* One allocation of the device, of all that one load brought; freed with its last piece. */
typedef struct tiles_slab {
    int refs;
    int32_t buffer;
} tiles_slab;

/* The tiles of a group: counted by the epochs that hold them. */
typedef struct tiles_piece {
    int refs;
    tiles_slab *slab;
    device_ref at;
    uint64_t bytes;
} tiles_piece;

typedef struct tiles_group {
    tiles_piece *piece; /* NULL: nothing, or let go */
    bool kept;          /* it was there before */
    uint64_t begin, bytes;
} tiles_group;

/* All weights of an epoch, with their places. The tensors of `weights` belong to the file that was loaded from. */
typedef struct model_tiles {
    model_weights weights;
    signed char kind[W_IDS]; /* of border */
    int n_groups;
    tiles_group *group;               /* [n_groups] */
    uint64_t kept_bytes, fresh_bytes; /* in the device */
} model_tiles;

/* A rectangle of a tensor that is moved from the other epoch's tiles or read. bytes: in the file. */
typedef struct tiles_job {
    int64_t row_begin, row_end, column_begin, column_end;
    bool move;
    uint64_t bytes;
} tiles_job;

/* Takes the weights. */
status tiles_init(model_tiles *t, model_weights *weights, const model_family *family, err *e);
/* Gives every weight its place: in `beside` where it has the same, else in the buffer that will be made; angles: at the end of it. */
status tiles_place(model_tiles *t, const model_tiles *beside, const device *d, int32_t buffer,
                   uint64_t angle_bytes, device_ref *angles, const char *path, err *e);
/* The memory of all pieces, counted. */
status tiles_acquire(model_tiles *t, const model_tiles *beside, device *d, err *e);
void tiles_release(model_tiles *t, device *d);
/* Weights are numbered 0 … n − 1, those of a layer one behind another; the row of one that is not held is NULL. */
int tiles_n_weights(const model_tiles *t);
model_weight *tiles_weight(const model_tiles *t, int i);
bool tiles_is_kept(const model_tiles *t, int i);
/* What fills w, given the same weight of the other epoch (or NULL). */
int tiles_jobs(tiles_job jobs[TILES_JOBS], const model_weight *w, const model_weight *other);
uint64_t tiles_to_read(const model_tiles *t, const model_tiles *beside); /* bytes of the file */
/* Bytes that the other epoch could give back if it ended. */
uint64_t tiles_let_go_bytes(const model_tiles *t, const model_tiles *beside);
/* The other epoch gives up what nobody wants of it; and everything before weight i, which has been moved. */
void tiles_let_go_unused(const model_tiles *t, model_tiles *beside, device *d);
void tiles_let_go_until(const model_tiles *t, model_tiles *beside, int i, device *d);

/* A device and how many epochs use it. */
typedef struct model_home {
    device *device;
    int users;
} model_home;

struct model {
    model_card *card;
    model_options options;
    model_need used;
    model_config config; /* for sizes */
    model_home *home;
    device *device; /* home's */
    model_tiles tiles;
    int32_t buffers[1 + MODEL_STATE_CLASSES]; /* state and scratch */
    int n_buffers;
    uint64_t read_bytes, moved_bytes;
    graph *graph;
    const kernel_table *kernels;
    const char *isa, *numerics;
    int n_classes;
    model_pool pools[MODEL_STATE_CLASSES];
    model_share share;
    int logits, received, sent; /* values; −1 = none */
    float *stream;              /* [limits.n_tokens, D] between stages */
    float *slice;               /* [limits.n_outputs, our logits] to be gathered */
    int n_flights;              /* steps started and not finished */
    device_limits limits;
    /* The step in hand: [limits…] */
    device_step step;
    int32_t *ids, *run_of, *pages, *outputs;
    int64_t *positions;
    device_run *runs;
};

#endif
