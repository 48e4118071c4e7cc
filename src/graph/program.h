/*
 * program: what a device runs: weights and values in its memory, the ops on them, and what changes from step to step. Plain data, that the
 * builder (src/model) writes, graph.h plans and cuts, and a device compiles (device.h).
 *
 * Shapes by the letters of DESIGN section 1; rows are the step's tokens, or its wanted outputs.
 * Not here: who computes it (device.h), where values lie and what ranks sum (graph.h).
 */
#ifndef SHOAL_PROGRAM_H
#define SHOAL_PROGRAM_H

#include "kernel/matrix.h"

/* A place in a device's memory. buffer −1 = nothing. */
typedef struct device_ref {
    int32_t buffer;
    uint64_t offset;
} device_ref;

#define DEVICE_NOWHERE ((device_ref){-1, 0})

/* ---- weights ------------------------------------------------------------------------------------------------------- */

/* A matrix [rows, columns] of products in the device's layout, or (columns = length, rows = 1, vector) a vector of f32. */
typedef struct device_weight {
    device_ref at;
    const kernel_type *type;
    int64_t rows, columns;
    int64_t column_begin; /* of this rank's columns in the whole matrix; a multiple of 32 */
} device_weight;

/* ---- values -------------------------------------------------------------------------------------------------------- */

/* What a program computes on: a row for every token of the step, or for every wanted output. */
typedef enum device_format {
    DEVICE_F32,   /* [rows, width] floats */
    DEVICE_F64,   /* [rows, width] exact partial sums (contract b): multiples of 2^-24 */
    DEVICE_INPUT, /* what products read: the device's own form of [rows, width], int8 blocks and/or floats as the weights need */
    DEVICE_ROTARY /* [rows, width] cosines, then sines, of width/2 angles: of the rows' positions */
} device_format;

enum { DEVICE_NEEDS_F32 = 1, DEVICE_NEEDS_Q8 = 2 };

typedef struct device_value {
    device_format format;
    unsigned needs; /* INPUT: DEVICE_NEEDS_* of the weights that read it, filled by the builder */
    bool outputs_only; /* a row for every wanted output, not for every token */
    int64_t width;
    device_ref at; /* by the memory plan */
} device_value;

/* ---- ops: each is one dispatch of the pool at most ------------------------------------------------------------------ */

enum { DEVICE_PARTS = 4, DEVICE_ROTARIES = 2 };

typedef enum device_op_kind {
    DEVICE_OP_BEGIN,     /* gather embedding rows; tables of angles */
    DEVICE_OP_INPUT,     /* a value as product input */
    DEVICE_OP_NORM,      /* residual add and RMS norm, to product input */
    DEVICE_OP_PRODUCT,   /* up to DEVICE_PARTS matrices on one input */
    DEVICE_OP_GATED,     /* act(gate·x) ∘ (up·x), to product input */
    DEVICE_OP_GELU,      /* x·Φ(x), to product input */
    DEVICE_OP_KEYS,      /* head norms, rotation, store of keys and values */
    DEVICE_OP_ATTENTION, /* over pages, to product input */
    DEVICE_OP_DECAY,     /* state ← decay ∘ state + x: the constant-size layer of the tests */
    DEVICE_OP_ZERO,      /* value ← 0: the partial sum of a rank that holds nothing of a matrix */
    DEVICE_OP_SUM,       /* value ← sum of it over all ranks: ends a segment */
    DEVICE_OP_GATHER,    /* value ← rows of it from the ranks that made them: ends a segment */
    DEVICE_OP_KINDS
} device_op_kind;

typedef enum device_gate { DEVICE_GATE_SILU, DEVICE_GATE_GELU_TANH } device_gate;

/* One layer's keys and values inside the pages of its class. */
typedef struct device_cache {
    device_ref at;         /* page 0 of the class's pool */
    uint64_t page_bytes;   /* from page to page */
    uint64_t layer_offset; /* of this layer's cache_bytes inside a page */
    int state_class;       /* which page table of the step */
} device_cache;

/* Value numbers are indices into the program's values; −1 = none. Vectors are device_refs of f32. */
typedef struct device_op {
    device_op_kind kind;
    int layer; /* −1 outside layers; for reports */
    union {
        struct {
            device_weight embedding; /* rows 0: this rank has none of it */
            device_weight positions,
                types; /* rows that are added: of the position; row 0. rows 0 = none; not where shared */
            bool
                shared; /* the embedding's rows are cut over ranks: x ← 0, partial ← the row where it is ours, else 0 */
            int partial; /* out, where shared: F64 [T, D], to be summed; exact, as one rank at most has the row */
            int64_t first_row; /* of ours in the whole embedding */
            float scale;       /* of the embedding, 1 = none */
            int x;             /* out: F32 [T, D]; −1: no embedding, only angles */
            int received;      /* F32 [T, D], filled before the program runs; −1 = none */
            int rotary[DEVICE_ROTARIES];             /* out */
            device_ref frequencies[DEVICE_ROTARIES]; /* f64 [width/2] radians a position */
            float rotary_scale[DEVICE_ROTARIES];     /* of cosines and sines */
        } begin;
        struct {
            int x;   /* F32 [T, width] */
            int out; /* INPUT [T, width] */
        } input;
        struct {
            int x;           /* F32 [T, D], in and out: x += norm(add + bias)·add_norm */
            bool layer;      /* a layer norm, with norm_bias; else RMS, without */
            bool replace;    /* x becomes what was normed: norms behind the residual add (BERT) */
            int add;         /* F32 or F64 [T, D], or −1 */
            device_ref bias; /* [D], or nowhere */
            device_ref add_norm;  /* [D], or nowhere: add is added as it is */
            device_ref norm;      /* [D] */
            device_ref norm_bias; /* [D], with layer */
            float eps;
            int out; /* INPUT or F32 [T or outputs, D]; when outputs_only, the other rows of x are no longer kept */
            bool divided; /* only the step's own rows, of out and of x: by graph_plan */
        } norm;
        struct {
            int input;
            int n_parts;
            device_weight weight[DEVICE_PARTS]; /* [rows, K] each */
            device_ref bias[DEVICE_PARTS];
            int out[DEVICE_PARTS]; /* F32 [·, rows]; or F64 where `leaf` is set */
            int leaf; /* columns of a leaf of the exact sum, F64 partial or F32 when no rank shares it; 0 = a plain product */
        } product;
        struct {
            int input;
            device_weight gate, up; /* [F, D] */
            device_gate function;
            int out; /* INPUT [T or outputs, F] */
        } gated;
        struct {
            int x;   /* F32 [T or outputs, F] */
            int out; /* INPUT, likewise */
        } gelu;
        struct {
            int q, k, v; /* F32 [T, H dh], [T, G dh], [T, G dh]; q is changed in place */
            device_ref q_norm, k_norm; /* [dh], or nowhere */
            float eps;
            int rotary;      /* value, or −1 */
            bool neighbours; /* pairs (2i, 2i+1); else (i, i + width/2) */
            int64_t n_heads, n_kv_heads, head_dim;
            device_cache cache;
        } keys;
        struct {
            int q;   /* F32 [T, H dh] */
            int out; /* INPUT [T or outputs, H dh] */
            int64_t n_heads, n_kv_heads, head_dim;
            int64_t group;      /* query heads that a K/V head has in the whole model */
            int64_t group_skip; /* of the first K/V head's: those that other ranks hold */
            float scale;
            int window;       /* 0 = all */
            bool both_ways;   /* keys behind a query count too: runs are whole sequences */
            device_ref sinks; /* [H], or nowhere */
            device_cache cache;
        } attention;
        struct {
            int x;            /* F32 [T, D] */
            int out;          /* F32 [T, D] */
            device_ref decay; /* [D] */
            device_ref state; /* slot 0 */
            uint64_t slot_bytes, offset;
            int state_class;
        } decay;
        struct {
            int value;    /* F64 [T or outputs, width] */
            bool divided; /* sum: only own rows are wanted; by graph_plan */
        } sum, zero;
        struct {
            int value; /* F32 or INPUT [T or outputs, width] */
        } gather;      /* by graph_plan */
    } u;
} device_op;

/* ---- the step ------------------------------------------------------------------------------------------------------ */

typedef struct device_run {
    int32_t first, n_tokens; /* rows of the batch */
    int64_t position;
    int32_t pages[4]; /* by class: index of the run's page table in device_step.pages */
    int32_t slot[4];
} device_run;

/* All that changes from step to step. Borrowed until wait on `cpu`; copied by enqueue on devices with memory of their own. */
typedef struct device_step {
    int32_t n_tokens, n_runs, n_outputs, n_pages;
    /* Rows, and outputs among them, whose divided norms are this rank's: by the graph. */
    int32_t row_begin, row_end, output_begin, output_end;
    const int32_t *ids;       /* [n_tokens] */
    const int64_t *positions; /* [n_tokens] */
    const int32_t *run_of;    /* [n_tokens] */
    const device_run *runs;   /* [n_runs] */
    const int32_t *pages;     /* [n_pages] all page tables, one behind another */
    const int32_t *outputs;   /* [n_outputs] rows */
} device_step;

/* The most that a step may hold: devices size their scratch and copies by it. */
typedef struct device_limits {
    int32_t n_tokens, n_runs, n_outputs, n_pages;
} device_limits;

#endif
