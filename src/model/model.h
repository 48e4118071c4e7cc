/*
 * model: from a file of weights to logits. One const table a family (config keys, weight table, layer builder); the card of what is
 * known without touching weights; loading into a device; the step that turns a mixed batch of tokens into rows of logits.
 *
 * The numbers follow the contract of DESIGN section 7: a logit depends on (weights, ids of its own sequence, position) only, never on the
 * batch, the chunking of a prompt, threads, ISA, device or pages. `exact` is the reference arithmetic that fixtures are compared with.
 *
 * Sequence state lives in pages and slots whose ids the caller (the engine) hands out; this module never allocates them. A *class* is
 * the set of layers that share a kind of state: page p of a class holds 64 positions of all its layers.
 *
 * Threads: a card is immutable. One thread at a time uses a model; the step runs on the model's own pool. model_step, model_copy_state
 * and model_zero_state neither allocate nor call the system.
 * Not here: which sequence gets which page (src/engine), tokenizing (src/text), sampling (src/sample), sockets between ranks (src/link).
 */
#ifndef SHOAL_MODEL_H
#define SHOAL_MODEL_H

#include "base/base.h"
#include "file/file.h"
#include "text/text.h"

/* ---- the card ------------------------------------------------------------------------------------------------------ */

enum { MODEL_STATE_CLASSES = 4, MODEL_TEMPLATES = 8 };

typedef enum model_state_kind {
    MODEL_STATE_PAGED, /* keys and values of every position */
    MODEL_STATE_WINDOWED, /* the same, pages wholly behind the window may be freed (−1 in the page table) */
    MODEL_STATE_LATENT, /* one latent row a position, paged */
    MODEL_STATE_CONSTANT /* one slot a sequence whatever its length; cannot be cut back, only copied */
} model_state_kind;

typedef struct model_state_class {
    model_state_kind kind;
    int n_layers;
    int page_tokens; /* positions a page: 64; 0 for CONSTANT */
    int window;      /* WINDOWED: a query at position q sees keys in (q − window, q]; else 0 */
    uint64_t
        page_bytes; /* of one page, or of one slot, over all layers of the class, on this shard */
    int n_pages;    /* pages or slots in the pool: ids 0 … n_pages − 1; 0 in a card */
} model_state_class;

/* How the rows of a text become one vector. NONE: the model writes text. */
typedef enum model_pooling {
    MODEL_POOLING_NONE,
    MODEL_POOLING_MEAN, /* of all rows */
    MODEL_POOLING_CLS,  /* the first row */
    MODEL_POOLING_LAST  /* the last row */
} model_pooling;
const char *model_pooling_name(model_pooling p); /* "none", "mean", "cls", "last" */

/* Keys and values in memory. Q8_0: int8 in blocks of 32, a class of numerics of its own ("exact/1+kv-q8_0"). */
typedef enum model_kv { MODEL_KV_F16, MODEL_KV_F32, MODEL_KV_Q8_0, MODEL_KVS } model_kv;
const char *model_kv_name(model_kv kv); /* "f16", "f32", "q8_0" */

typedef struct model_template {
    const char *name; /* "default", "tool_use", … */
    const char *source;
} model_template;

/* Everything that can be known without weights. Strings and arrays are owned by the card. */
typedef struct model_card {
    const char *path;
    const char *family;       /* the family's table: "llama" */
    const char *architecture; /* as the file says: "llama", "LlamaForCausalLM" */
    const char *name;         /* general.name, else the file's or folder's name */
    const char *weights;      /* the commonest weight type by bytes: "Q4_K" */
    const char *rope;         /* "none", "linear", "llama3", "yarn" */
    uint64_t hash;            /* tells models apart: file_model_hash */
    const char *
        numerics; /* class of the serving arithmetic, "exact/1" (DESIGN section 7f); exact adds "reference/1" */
    int64_t n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, n_vocab; /* L D H G dh F V */
    int64_t trained_context; /* positions; 0 unknown */
    bool tied;               /* the output matrix is the embedding */
    model_pooling pooling;   /* not NONE: an embedding model, its rows are normed states */
    bool both_ways; /* an encoder: every token sees the whole text, which is one run of one step */
    uint64_t n_parameters, weight_bytes; /* in the file */
    uint64_t weight_bytes_per_token;     /* read by a decode step of one token */
    uint64_t kv_bytes_per_token;         /* paged classes, f16 */
    int n_classes;
    model_state_class classes[MODEL_STATE_CLASSES]; /* page_bytes for f16 */
    int n_templates;
    model_template templates
        [MODEL_TEMPLATES]; /* the first is the one to use without tools; 0 when the file has none */
    const text_vocab *vocab; /* GGUF's vocabulary; NULL when the file has none */
    str tokenizer_json,
        tokenizer_config_json; /* beside safetensors; copies, length 0 when there is none */
    str generation_config_json;
} model_card;

/* Checks config against tensors' shapes; an unknown architecture is UNSUPPORTED and names the known ones. f is borrowed for the
 * call only. */
status model_card_read(model_card **out, const file_model *f, err *e);
status model_card_open(model_card **out, const char *path,
                       err *e); /* the same from a path: opens, reads, closes */
/* Only what belongs to text: vocabulary, tokenizer files, templates, path and name; the rest is zero. No tensors are needed, so
 * vocabulary-only files and families that cannot be run do as well. */
status model_card_read_text(model_card **out, const file_model *f, err *e);
void model_card_destroy(model_card *c);
/* Keys and values of one position, over all layers. */
uint64_t model_kv_bytes_per_token(const model_card *c, model_kv kv);

/* The model's tokenizer: from GGUF's vocabulary or from tokenizer.json. NOT_FOUND when the file has neither. */
status model_tokenizer_create(text_tokenizer **out, const model_card *c, err *e);

/* ---- loading ------------------------------------------------------------------------------------------------------- */

/* The part of the model that this rank holds: a stage of layers, and of those its share. Not cut: the whole, the rest is not read. Ranges
 * are [begin, end) and may be empty. Heads are query heads; a K/V head is held by every rank that has one of its query heads. Borders lie
 * on multiples of model_cut_units (no leaf of an exact sum and no block of 32 columns is divided), those of the vocabulary on
 * multiples of 16; the ranks of the first stage hold the same rows of the embedding. */
typedef struct model_shard {
    bool cut;
    int tensor_ranks; /* how many ranks share the stage: 1 = no sums */
    int64_t layer_begin, layer_end;
    int64_t head_begin, head_end;
    int64_t ffn_begin, ffn_end;
    int64_t vocab_begin,
        vocab_end; /* of the logits in the last stage, of the embedding in the first */
} model_shard;

/* What the ranks of one step tell each other. Called in the same order by all ranks of a group, from model_step, on its thread. Any
 * status but OK ends the step with it. */
struct model_batch;
struct model_copy;
typedef struct model_exchange {
    /* values[n] ← their sums over the ranks that share the stage. They are multiples of 2^-24 that add exactly, in any order. */
    status (*sum)(void *context, double *values, int64_t n, err *e);
    /* NULL, or: they divide the rows of long steps among them (graph.h: graph_ranks), this one being number `index` of its stage. */
    bool (*divides)(void *context, int64_t n_rows, int64_t width);
    status (*scatter)(void *context, double *values, const size_t *parts, err *e);
    status (*share_rows)(void *context, void *rows, const size_t *parts, err *e);
    int index;
    /* The residual stream, rows[n] = [T, D], from the stage before and to the stage after. */
    status (*receive)(void *context, float *rows, int64_t n, err *e);
    status (*send)(void *context, const float *rows, int64_t n, err *e);
    void *context;
    /* The leader's: before a step, and at every copy of state, so that the others do the same. NULL elsewhere. */
    status (*announce)(void *context, const struct model_batch *b, err *e);
    status (*copied)(void *context, int state_class, const struct model_copy *copies, int n,
                     err *e);
    /* At the end of every step that has not failed, on all ranks: rows[n_rows, this rank's slice] (NULL: none here). Where the leader waits for
     * others' this posts them; its logits [n_rows, V] are filled when collect, called once for each gather in the same order, has returned. On
     * other ranks logits and collect are NULL. rows may be changed. gather NULL: model_step gives a rank its own slice only. */
    status (*gather)(void *context, float *rows, int n_rows, float *logits, err *e);
    status (*collect)(void *context, err *e);
    int n_stages; /* of the cut; 0 = 1 */
} model_exchange;

typedef struct model_options {
    const char *device; /* "cpu" (NULL) or "cpu_copy" */
    const char *isa;    /* kernel table by name, NULL or "" = the best of this CPU */
    int n_threads;      /* 0 = all usable */
    bool exact; /* class reference/1: dequantised weights × f32 activations, f32 keys and values */
    model_kv kv;     /* with exact always F32 */
    int64_t context; /* the longest sequence, positions; 0 = min(trained, 32768) */
    uint64_t
        state_tokens; /* positions in the pools together: live sequences and cached prefixes; 0 = context */
    int n_sequences;                  /* live at once: runs of a step; 0 = 8 */
    int n_pages[MODEL_STATE_CLASSES]; /* pages or slots by class; 0 = from the two lines above */
    int max_tokens;                   /* of one step; 0 = 256; of encoders at least the context */
    int max_outputs; /* rows of logits of one step; 0 = max(n_sequences, 8); of embedding models max_tokens */
    model_shard shard;       /* zeroes = the whole */
    model_exchange exchange; /* for cut models */
    uint64_t memory_limit;   /* bytes that may be used; 0 = what the system has available */
    bool time_ops;           /* keep time per op for model_op_times */
    float
        pace; /* share of its time that the device works; 0 = all. Measurements, in which it stands for a slower one */
} model_options;

typedef struct model_progress {
    bool (*report)(void *context, uint64_t done_bytes,
                   uint64_t total_bytes); /* false cancels: CANCELLED. May be NULL. */
    void *context;
} model_progress;

typedef struct model model;

/* What loading would take with these options. */
typedef struct model_need {
    uint64_t weight_bytes, state_bytes, scratch_bytes;
    uint64_t read_bytes; /* of the file, for the weights */
} model_need;
status model_needs(model_need *out, const file_model *f, const model_options *o, err *e);

/* Weights go from the mapping into the device's tiles once; f may be closed afterwards. NO_MEMORY says needed and free bytes before
 * anything is loaded. */
status model_load(model **out, const file_model *f, const model_options *o,
                  const model_progress *progress, err *e);
void model_destroy(model *m);

/* The same in slices, and beside another epoch of the model (or NULL), whose tiles it shares: weights that the borders leave as they were are one
 * and the same, of the others what both hold is moved in memory, and only the rest is read. Both run, on one device, from one thread; each has
 * state of its own, and either may be destroyed first. paused: where memory has no room for both, beside ends here: its state goes at once, its
 * tiles as soon as they are moved; from then on, also on error, it can only be destroyed. NO_MEMORY says what is missing; without paused
 * nothing has changed then. f and beside are borrowed until end or cancel. */
typedef struct model_loading model_loading;
status model_load_begin(model_loading **out, const file_model *f, const model_options *o,
                        model *beside, bool paused, err *e);
/* Moves and reads about `most` bytes of the file's form more. */
status model_load_more(model_loading *l, uint64_t most, bool *done, err *e);
uint64_t model_load_bytes(const model_loading *l, uint64_t *to_read); /* read so far, of how many */
status model_load_end(model **out, model_loading *l,
                      err *e); /* when done; frees l, also on error */
void model_load_cancel(model_loading *l);
/* What the load read of the file (in whole blocks of the weights' types), and what it moved from the other epoch's tiles, as bytes of the file. */
uint64_t model_read_bytes(const model *m);
uint64_t model_moved_bytes(const model *m);

const model_card *model_get_card(const model *m);
int model_n_classes(const model *m);
const model_state_class *model_class(const model *m,
                                     int i); /* with page_bytes and n_pages of this load */
const model_options *model_get_options(const model *m); /* zeroes replaced by what is in force */
const model_need *model_used(const model *m);
const char *model_isa(const model *m);
const char *model_numerics(const model *m);
/* V, or this rank's share of it; 0 before the last stage and of embedding models. */
int64_t model_n_logits(const model *m);
/* Of a row that a step gives: model_n_logits; D of embedding models. */
int64_t model_row_width(const model *m);

/* What borders of shards must be multiples of (or the end): query heads, columns of F. */
typedef struct model_cut_units {
    int64_t n_layers, n_heads, n_ffn, n_vocab; /* of the whole: L H F V */
    int64_t heads, ffn;
} model_cut_units;
status model_get_cut_units(model_cut_units *out, const file_model *f, err *e);

/* ---- the step ------------------------------------------------------------------------------------------------------ */

/* n_tokens consecutive positions of one sequence: a decode token (1), a draft, or a chunk of a prompt. Positions before `position` must
 * have been computed into the same pages and slots. Position 0 starts from empty state, whatever its slots hold. */
typedef struct model_run {
    int n_tokens;
    int64_t position; /* of the run's first token */
    /* By class. PAGED, WINDOWED, LATENT: entry i is the page of positions [64i, 64i + 64), up to the run's last position; −1 = freed
     * behind the window. Pages that the run writes belong to this sequence alone. */
    const int32_t *pages[MODEL_STATE_CLASSES];
    int n_pages[MODEL_STATE_CLASSES];
    int32_t slot
        [MODEL_STATE_CLASSES]; /* CONSTANT: the slot, read and replaced by the state after the run */
} model_run;

typedef struct model_batch {
    int n_tokens;       /* T = sum of the runs' n_tokens ≤ max_tokens */
    const int32_t *ids; /* [T], run after run */
    int n_runs;         /* ≤ n_sequences; different sequences */
    const model_run *runs;
    int n_outputs;          /* ≤ max_outputs; may be 0 */
    const int32_t *outputs; /* [n_outputs] rows of the batch whose logits are wanted, ascending */
} model_batch;

/* logits: [n_outputs, model_row_width], caller's; with exchange.gather [n_outputs, V] on the leader; NULL where there are none. Ids out of
 * the vocabulary, pages out of the pool and sizes over the limits are INVALID, and nothing has been computed or announced. */
status model_step(model *m, const model_batch *b, float *logits, err *e);

/* The two halves of it, so that the stages of a pipeline work on several steps at once: start computes what is this rank's to compute and
 * borrows logits until finish, which waits for the oldest step that was started. Up to model_most_flights may be under way. All that is called in between
 * (starts, copies of state) comes behind the steps started before it, on every rank; so pages that a step has written may be read by the next one,
 * or given to another sequence, at once. After an error of either every step that is under way has still to be finished. */
status model_step_start(model *m, const model_batch *b, float *logits, err *e);
status model_step_finish(model *m, err *e);
enum { MODEL_MOST_FLIGHTS = 14 };
int model_n_stages(const model *m);     /* 1 = not a pipeline */
int model_most_flights(const model *m); /* 1 unless it is a pipeline */

/* Copies whole pages (or slots) within a class: a fork's partial page, a snapshot, a restore. Pairs must not overlap. */
typedef struct model_copy {
    int32_t from, to;
} model_copy;
status model_copy_state(model *m, int state_class, const model_copy *copies, int n, err *e);

/* Time per op since loading or the last reset, when time_ops was set. One row an op kind. */
typedef struct model_op_time {
    const char *name;
    uint64_t calls, us;
} model_op_time;
int model_op_times(const model *m, model_op_time *out, int capacity);
void model_op_times_reset(model *m);

/* ---- for tests ----------------------------------------------------------------------------------------------------- */

/* Admits the reserved architecture "shoal-decay" (llama plus one layer of decaying sums: constant-size state), which is refused otherwise. */
void model_admit_test_families(bool on);

#endif
