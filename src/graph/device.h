/*
 * device: the narrow seam between a model's program and the thing that computes it. A device allocates buffers, takes weights into a
 * layout of its own choice, compiles a list of ops into segments, and runs a segment for one step. It is seen only through this file;
 * what it runs is in program.h.
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

#include "graph/program.h"
#include "kernel/kernel.h"

typedef struct device device;
typedef struct device_program device_program;

/* Time of one op kind since the last reset. */
typedef struct device_op_time {
    uint64_t calls, us;
} device_op_time;

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
