/*
 * graph: one shard's program. A builder collects values and ops, a memory plan gives every value a place in one scratch buffer (places
 * are shared by values that never live together), the device compiles; running sends one step through all segments.
 *
 *     graph_create → graph_value, graph_add … → graph_plan (bytes of scratch, nothing allocated) → graph_compile → graph_run …
 *
 * Building never fails half-way: the first error sticks and graph_plan reports it.
 * Threads: one at a time. graph_run neither allocates nor calls the system.
 * Not here: arithmetic (device.h, src/kernel), the meaning of layers (src/model).
 */
#ifndef SHOAL_GRAPH_H
#define SHOAL_GRAPH_H

#include "graph/device.h"

typedef struct graph graph;

/* The device is borrowed and must outlive the graph. */
status graph_create(graph **out, device *d, const device_limits *limits, err *e);
void graph_destroy(graph *g);

/* A new value; its number. */
int graph_value(graph *g, device_format format, int64_t width, bool outputs_only);
/* Appends an op (copied). Values must exist, widths must fit: misuse is INTERNAL at graph_plan. */
void graph_add(graph *g, const device_op *op);
int graph_n_ops(const graph *g);
const device_op *graph_op(const graph *g, int i);
int graph_n_values(const graph *g);
const device_value *graph_get_value(const graph *g, int v);

/* Places values. The scratch buffer will have the handle `buffer`. */
status graph_plan(graph *g, int32_t buffer, uint64_t *out_scratch_bytes, err *e);
/* After graph_plan, when the scratch buffer exists. */
status graph_compile(graph *g, err *e);

/* How ranks that share the layers exchange. Without sum DEVICE_OP_SUM is INTERNAL. */
typedef struct graph_ranks {
    int n, own; /* own: 0 … n − 1 */
    /* values[n] ← their sums over the ranks. */
    status (*sum)(void *context, double *values, int64_t n, err *e);
    /* NULL, or: in steps where `divides` says so (the same on all ranks) every rank gets the sums of its own rows only, adds and norms those, and
     * gives the result to the others, instead of all doing the same. parts[n]: values, bytes of each rank, one's behind another's. */
    bool (*divides)(void *context, int64_t n_rows, int64_t width);
    status (*scatter)(void *context, double *values, const size_t *parts, err *e);
    status (*gather)(void *context, void *rows, const size_t *parts, err *e);
    void *context;
} graph_ranks;
/* Before graph_plan. n ≤ GRAPH_MOST_RANKS. */
enum { GRAPH_MOST_RANKS = 64 };
void graph_set_ranks(graph *g, const graph_ranks *ranks);

/* A weight of that type reads the INPUT value v on another rank: it takes the form that it has there. */
void graph_need(graph *g, int v, const kernel_type *type);

/* All segments of one step; graph_run waits for them as well. At every sum the device is waited for and the sum is made. */
status graph_enqueue(graph *g, const device_step *step, err *e);
status graph_run(graph *g, const device_step *step, err *e);
/* Bytes of a DEVICE_F32 value after graph_run. */
status graph_read(graph *g, int value, float *out, int64_t n_rows, err *e);
/* Fills a DEVICE_F32 value before graph_run: what another stage computed. */
status graph_write(graph *g, int value, const float *in, int64_t n_rows, err *e);

#endif
