/*
 * Inside of src/model: what a family's table says, and what the shared code (config.c, weights.c, build.c, card.c, load.c, step.c) makes
 * of it. A family is one file that exports one const model_family; families.def lists them.
 *
 * The weight table (weight_table.h) is the whole truth about tensors. Code that builds layers sees weights by id and never by name, file or rank.
 */
#ifndef SHOAL_MODEL_FAMILY_H
#define SHOAL_MODEL_FAMILY_H

#include "graph/graph.h"
#include "model/model.h"
#include "model/weight_table.h"

enum { MODEL_MAX_LAYERS = 1024, MODEL_MAX_ROTARIES = DEVICE_ROTARIES };

/* ---- configuration ------------------------------------------------------------------------------------------------- */

typedef enum rope_kind { ROPE_NONE, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN } rope_kind;

typedef struct rope_spec {
    rope_kind kind;
    int64_t width; /* leading dims of a head that rotate, even */
    double base, factor;
    double original_context;        /* llama3, yarn */
    double low_factor, high_factor; /* llama3 */
    double beta_fast, beta_slow;    /* yarn */
    double attention_factor;        /* yarn: on cosines and sines; 0 = 0.1 ln(factor) + 1 */
    bool keep_bounds;               /* yarn: correction bounds are not rounded */
} rope_spec;

typedef struct model_config {
    int64_t L, D, H, G, dh, F, V, context;
    double eps;
    bool tied;
    bool neighbours; /* rotary pairs (2i, 2i+1); else halves */
    int n_ropes;     /* 1, or 2: [0] of full layers, [1] of windowed ones */
    rope_spec rope[MODEL_MAX_ROTARIES];
    int window;                      /* 0 = none */
    bool windowed[MODEL_MAX_LAYERS]; /* which layers see only the window */
    bool decay[MODEL_MAX_LAYERS];    /* which layers begin with a decaying sum (tests) */
    double attention_scale;          /* 0 = dh^-0.5 */
    double embedding_scale;          /* 1 = none */
    device_gate gate;
    model_pooling pooling;
    bool both_ways;  /* attention sees the whole sequence */
    int64_t n_types; /* rows of the token types' table (BERT); 0 = none */
} model_config;

/* A shard with every range filled in, and what follows from it: the K/V heads of its query heads. */
typedef struct model_share {
    int tensor_ranks; /* > 1: products that are cut by columns end in a sum */
    bool first, last; /* stage */
    int64_t layer_begin, layer_end, head_begin, head_end, kv_begin, kv_end, ffn_begin, ffn_end;
    int64_t vocab_begin, vocab_end;
} model_share;

/* Checks a shard against the model; not cut = the whole. */
status model_share_init(model_share *out, const model_shard *s, const model_config *c,
                        const char *path, err *e);
model_cut_units model_cut_units_of(const model_config *c);

/* Where configuration comes from: GGUF metadata under the architecture's prefix, or config.json. */
typedef struct model_source model_source;

/* gguf: the key without prefix ("block_count"), hf: path in config.json ("rope_scaling.factor"); either may be NULL: missing.
 * *out is untouched when it is missing; `found` may be NULL, and then a missing key is CORRUPT. */
status source_i64(const model_source *s, const char *gguf, const char *hf, int64_t *out,
                  bool *found, err *e);
status source_f64(const model_source *s, const char *gguf, const char *hf, double *out, bool *found,
                  err *e);
status source_bool(const model_source *s, const char *gguf, const char *hf, bool *out, bool *found,
                   err *e);
status source_text(const model_source *s, const char *gguf, const char *hf, char *out,
                   size_t out_bytes, bool *found, err *e);
/* Element i of an array (a scalar counts as its own every element). */
status source_element_i64(const model_source *s, const char *gguf, const char *hf, int64_t i,
                          int64_t *out, bool *found, err *e);
/* Element i of an array of strings; the name is borrowed from the file. */
bool source_element_text(const model_source *s, const char *hf, int64_t i, str *out);
/* From what sentence-transformers keep beside a model; untouched when there is nothing. */
status source_pooling(const model_source *s, model_pooling *out, err *e);
const char *source_architecture(const model_source *s);
bool source_is_gguf(const model_source *s);
const file_model *source_file(const model_source *s);

status model_source_create(model_source **out, const file_model *f, err *e);
void model_source_destroy(model_source *s);

/* ---- weights found ------------------------------------------------------------------------------------------------- */

/* A weight found in the file and given its place in the device. */
typedef struct model_weight {
    const weight_row *row; /* NULL: the model does without */
    const file_tensor *tensor;
    int64_t first_row;    /* in the tensor */
    int64_t first_column; /* in its rows; device.column_begin for matrices */
    int64_t file_columns; /* of the tensor's rows */
    device_weight device;
    bool shared; /* tied: the place is another's, nothing to upload */
} model_weight;

typedef struct model_weights {
    model_weight global[W_LAYER];
    model_weight (*layer)[W_IDS - W_LAYER]; /* [L] */
    int64_t n_layers;
} model_weights;

const model_weight *weights_get(const model_weights *w, int64_t layer,
                                weight_id id); /* layer is ignored below W_LAYER */
int64_t model_dim(const model_config *c, weight_dim d);

/* ---- families ------------------------------------------------------------------------------------------------------ */

typedef struct model_builder model_builder;

typedef struct model_family {
    const char *name;
    const char *architectures[8]; /* of GGUF and of config.json */
    bool test_only;
    const weight_row *weights;
    int n_weights;
    bool encoder; /* attention both ways; embeds whatever the file says about pooling */
    /* What is special: runs after the common keys were read and before they are checked. May be NULL. */
    status (*configure)(model_config *c, const model_source *s, err *e);
    status (*build)(model_builder *b, err *e);
} model_family;

#define FAMILY(name) extern const model_family model_family_##name;
#include "model/families.def"
#undef FAMILY

/* By the architecture that the file names; UNSUPPORTED names all known ones. */
status model_find_family(const model_family **out, const model_source *s, err *e);

/* Common keys, then the family's, then what must hold between them. */
status model_read_config(model_config *c, const model_family *family, const model_source *s,
                         err *e);
/* For configure: the window's width, where the file has one; and which layers it covers: those that layer_types calls
 * "sliding_attention", else all but every period-th (period 1: all). Without a window no layer is windowed. */
status config_read_window(model_config *c, const model_source *s, err *e);
status config_read_layer_types(model_config *c, const model_source *s, int64_t period, err *e);
/* Radians a position of every pair, [width / 2], and the factor on cosines and sines. divisors: rope_freqs.weight, or NULL. */
void model_rope_frequencies(const rope_spec *r, const float *divisors, double *out,
                            double *out_factor);

/* ---- weights ------------------------------------------------------------------------------------------------------- */

/* Finds every tensor, checks shapes and types. */
status weights_find(model_weights *w, const model_family *family, const model_config *c,
                    const file_model *f, err *e);
/* Cuts what was found down to the share: rows and columns of the device's matrices; what the rank does not hold has no row. */
void weights_share(model_weights *w, const model_config *c, const model_share *s);
/* Whether ranks of the first stage hold rows of the embedding each, and x begins as their sum. */
bool weights_embedding_is_cut(const model_weights *w, const model_share *s);
void weights_fini(model_weights *w);

/* ---- building ------------------------------------------------------------------------------------------------------ */

/* The state layout of one class and where its pool lies. */
typedef struct model_pool {
    model_state_class info;
    device_ref at;
    uint64_t layer_bytes; /* of one layer inside a page */
} model_pool;

struct model_builder {
    graph *g;
    const model_config *config;
    const model_share *share;
    const model_weights *weights;
    const model_pool *pools;
    const int *class_of; /* [L] class of a layer's attention */
    const int *index_in; /* [L] its index among that class's layers */
    int decay_class;     /* −1 = none */
    const int *decay_index;
    device_ref frequencies[MODEL_MAX_ROTARIES];
    float rotary_factor[MODEL_MAX_ROTARIES];
    const device *device;
    int logits; /* out: the value of [outputs, V or the share of it], of embedding models [outputs, D]; −1 before the last stage */
    int received; /* out: the value of [T, D] that the stage before fills; −1 in the first */
    int sent;     /* out: the value of [T, D] for the stage after; −1 in the last */
};

/* The decoder that Llama and its kin share: attention, gated feed-forward, RMS norms; biases, head norms and post norms where the
 * weight table has them. */
status model_build_decoder(model_builder *b, err *e);
/* The encoder of BERT and its kin: attention both ways, layer norms behind the residual adds, a feed-forward with or without gate. */
status model_build_encoder(model_builder *b, err *e);

#endif
