/*
 * Inside of src/graph: the `cpu` device's own struct and the ops it runs. cpu.c owns memory, weights and dispatch; cpu_ops.c and
 * cpu_attention.c compute.
 */
#ifndef SHOAL_GRAPH_CPU_H
#define SHOAL_GRAPH_CPU_H

#include "graph/device.h"
#include "os/os.h"

#include <stdatomic.h>

enum { CPU_MAX_WORKERS = 1024 };

typedef struct cpu_buffer {
    char *data;
    uint64_t bytes;
} cpu_buffer;

typedef struct cpu_device {
    device base;
    const kernel_table *kernels;
    os_pool *pool;
    int n_threads;
    kernel_kv kv;
    bool exact, time_ops;
    double pace;
    cpu_buffer *buffers; /* by handle; freed ones are empty */
    int n_buffers, buffers_capacity;
    device_op_time times[DEVICE_OP_KINDS];
    struct device_program *programs; /* list */
    atomic_bool out_of_range;        /* some exact sum left its range since the last wait */
} cpu_device;

/* A program ready to run. Ops and values are copies; matrices are parallel to ops. */
struct device_program {
    struct device_program *next;
    device_value *values;
    device_op *ops;
    kernel_matrix (*matrices)[DEVICE_PARTS]; /* [n_ops] */
    int n_values, n_ops, n_segments;
    int *segment_end; /* [n_segments] ops */
    device_limits limits;
    char *scratch; /* of every worker: scratch_bytes */
    uint64_t scratch_bytes;
    const void **pages; /* [limits.n_pages] pointers of one layer's pages */
};

/* One op of one step: what every task gets. */
typedef struct cpu_task {
    cpu_device *d;
    const struct device_program *p;
    const device_op *op;
    const kernel_matrix *matrix; /* [DEVICE_PARTS] */
    const device_step *step;
    int64_t rows;           /* of the op: tokens or outputs */
    int64_t first;          /* of a norm's rows */
    int64_t unit, n_blocks; /* attention */
} cpu_task;

static inline void *cpu_at(const cpu_device *d, device_ref r)
{
    return r.buffer < 0 ? NULL : d->buffers[r.buffer].data + r.offset;
}
static inline const device_value *cpu_value(const cpu_task *t, int v)
{
    return &t->p->values[v];
}
/* Row `row` of an F32 or ROTARY value. */
static inline float *cpu_row(const cpu_task *t, int v, int64_t row)
{
    return (float *)cpu_at(t->d, t->p->values[v].at) + row * t->p->values[v].width;
}
static inline void *cpu_scratch(const cpu_task *t, int worker)
{
    return t->p->scratch + (uint64_t)worker * t->p->scratch_bytes;
}

/* An INPUT value: [rows][width rounded up to 32] f32 where needed, then rows of kernel_act where needed. */
static inline int64_t cpu_padded(int64_t width)
{
    return (width + KERNEL_UNIT - 1) / KERNEL_UNIT * KERNEL_UNIT;
}
static inline int64_t cpu_input_rows(const cpu_task *t, const device_value *v)
{
    return v->outputs_only ? t->p->limits.n_outputs : t->p->limits.n_tokens;
}
static inline float *cpu_input_f32(const cpu_task *t, const device_value *v, int64_t row)
{
    return (float *)cpu_at(t->d, v->at) + row * cpu_padded(v->width);
}
static inline kernel_act *cpu_input_q8(const cpu_task *t, const device_value *v, int64_t row)
{
    char *base = cpu_at(t->d, v->at);
    if (v->needs & DEVICE_NEEDS_F32)
        base += (uint64_t)cpu_input_rows(t, v) * (uint64_t)cpu_padded(v->width) * sizeof(float);
    return (kernel_act *)base + row * (cpu_padded(v->width) / KERNEL_UNIT);
}

/* Runs task over [0, n): on the pool, or right here when one piece is all. */
void cpu_dispatch(cpu_task *t, os_pool_task task, int64_t n, int64_t chunk);

/* [DEVICE_OP_KINDS] NULL where there is nothing to compute. */
extern void (*const cpu_run_op[])(cpu_task *t);
void cpu_run_keys(cpu_task *t);
void cpu_run_attention(cpu_task *t);
uint64_t cpu_scratch_need(const struct device_program *p); /* of one worker */
uint64_t cpu_cache_bytes(const cpu_device *d, int64_t n_kv_heads, int64_t head_dim);

/* Pages of the exact class: f32, per K/V head keys [64][dh], then values [64][dh]. */
void cpu_exact_store(float *page, int slot, const float *k, const float *v, int64_t n_kv_heads,
                     int64_t head_dim);
void cpu_exact_attention(const kernel_attention *a);

#endif
