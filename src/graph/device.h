/*
 * device: the narrow seam between a model's program and the thing that computes it. A device allocates buffers, takes weights into a
 * layout of its own choice, compiles a list of ops into segments, and runs a segment for one step. It is seen only through this file.
 *
 *   alloc → buffer handle; a device_ref is (handle, byte offset): no host pointer crosses the seam
 *   upload → rows of a weight as they lie in the model file; read/write/copy → plain bytes
 *   compile(values, ops) → program: segments between sums; a segment calls nothing on the host
 *   enqueue(program, segment, step) → returns at once; wait → all that was enqueued is done
 *
 * `cpu` runs a segment inside enqueue on a fork-join pool. `cpu_copy` is the same arithmetic behind a queue with a thread of its own and
 * an address space that only read, write and upload reach: it proves that nothing leans on shared memory.
 *
 * Threads: one thread uses a device at a time (the engine's), with whatever it made. enqueue, wait, read, write and copy neither
 * allocate nor call the system (beyond waking threads).
 * Numerics: every implementation computes the contract of DESIGN section 7.
 * Not here: which ops a model needs (src/model), sums between ranks (graph.h), memory for values (graph.h).
 */
#ifndef SHOAL_DEVICE_H
#define SHOAL_DEVICE_H

#include "base/base.h"
#include "kernel/kernel.h"

typedef struct device device;

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

typedef struct device_program device_program;

/* Time of one op kind since the last reset. */
typedef struct device_op_time {
    uint64_t calls, us;
} device_op_time;

/* ---- the device ---------------------------------------------------------------------------------------------------- */

typedef struct device_options {
    int n_threads;               /* 0 = all usable */
    const kernel_table *kernels; /* of the ISA to use */
    kernel_kv kv;                /* type of keys and values; not looked at with exact */
    bool exact; /* class reference/1: f32 activations, dequantised weights, f32 keys and values */
    bool time_ops;
    double pace; /* share of its time that it works, as a slower device would; 0 = all */
} device_options;

typedef struct device_ops {
    const char *name;
    status (*open)(device **out, const device_options *o, err *e);
    void (*close)(device *d); /* frees buffers and programs too */
    int (*threads)(const device *d);

    /* Zeroed. Freed by close, or earlier by free. Handles ascend by one and are not given out again. */
    status (*alloc)(device *d, uint64_t bytes, int32_t *out_buffer, err *e);
    int32_t (*next_buffer)(const device *d); /* the handle that the next alloc will give */
    void (*free)(device *d, int32_t buffer);
    /* Nobody needs these bytes any more: their memory goes back to the system as far as it can, the handle stays. */
    void (*drop)(device *d, device_ref at, uint64_t n);
    status (*write)(device *d, device_ref to, const void *bytes, uint64_t n, err *e);
    status (*read)(device *d, void *bytes, device_ref from, uint64_t n, err *e);
    status (*copy)(device *d, device_ref to, device_ref from, uint64_t n, err *e);
    /* The bytes themselves, where host and device share memory and an order of things; else NULL, or no such function. For what a sum over
     * ranks would otherwise copy twice; valid between wait and the next enqueue. */
    void *(*host)(device *d, device_ref at, uint64_t n);

    /* Bytes of a matrix in this device's layout, a 64-byte multiple (`at` is not looked at); 0 when it cannot hold that
     * type or shape. */
    uint64_t (*weight_bytes)(const device *d, const device_weight *w);
    /* Where row `row` (a multiple of 16) of w begins, in bytes from w.at: rows from there on are a matrix of their own. */
    uint64_t (*row_offset)(const device *d, const device_weight *w, int64_t row);
    /* DEVICE_NEEDS_*: what products with such a weight read. */
    unsigned (*needs)(const device *d, const kernel_type *type);
    /* Bytes of KERNEL_RANGE positions of one layer's keys and values; 0 when the widths cannot be. */
    uint64_t (*cache_bytes)(const device *d, int64_t n_kv_heads, int64_t head_dim);
    /* Rows [first_row, first_row + n_rows) of w, as they lie in the file (unaligned, row_bytes apart, whole rows even
     * where w has some columns only). first_row and, but for the last rows, n_rows are multiples of 16. The source may go
     * away when it returns. */
    status (*upload)(device *d, const device_weight *w, const void *rows, uint64_t row_bytes,
                     int64_t first_row, int64_t n_rows, err *e);

    /* The same for any rectangle of w: n_rows rows from first_row on, columns [column_begin, column_end) of the whole matrix (multiples of 32, or
     * w's end). What lies beside it stays. Only the file blocks that hold those columns are looked at. */
    status (*upload_part)(device *d, const device_weight *w, const void *rows, uint64_t row_bytes,
                          int64_t first_row, int64_t n_rows, int64_t column_begin,
                          int64_t column_end, err *e);
    /* A rectangle from one matrix to another of the same tensor: rows to_row … of `to` are rows from_row … of `from`. */
    status (*move_part)(device *d, const device_weight *to, int64_t to_row,
                        const device_weight *from, int64_t from_row, int64_t n_rows,
                        int64_t column_begin, int64_t column_end, err *e);

    /* Bytes that a value takes for that many rows. */
    uint64_t (*value_bytes)(const device *d, const device_value *v, int64_t n_rows);
    /* Where the rows of v lie one behind another, row_bytes[i] each, in a program of these limits; returns in how many places. What an INPUT is
     * there is the device's own form, which ranks of one numerics class share. */
    int (*row_places)(const device *d, const device_value *v, const device_limits *l,
                      device_ref at[2], uint64_t row_bytes[2]);
    /* values and ops are copied. */
    status (*compile)(device *d, device_program **out, const device_value *values, int n_values,
                      const device_op *ops, int n_ops, const device_limits *limits, err *e);
    void (*discard)(device *d, device_program *p); /* else close does it; NULL is fine */
    int (*n_segments)(const device_program *p);
    status (*enqueue)(device *d, const device_program *p, int segment, const device_step *step,
                      err *e);
    status (*wait)(device *d, err *e);
    /* out[DEVICE_OP_KINDS], may be NULL. */
    void (*op_times)(device *d, device_op_time *out, bool reset);
} device_ops;

struct device {
    const device_ops *ops; /* first member of every implementation's own struct */
};

extern const device_ops device_cpu, device_cpu_copy;

const device_ops *device_find(const char *name); /* NULL name: "cpu"; NULL when unknown */
const char *device_op_name(device_op_kind kind);

#endif
