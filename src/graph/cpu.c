/*
 * The `cpu` device: host memory in huge-page slabs, weights in the kernels' tiles, a segment run op by op on the fork-join pool inside
 * enqueue. wait only reports what went wrong.
 *
 * Deliberately not: asynchronous. The caller's thread is worker 0, and a decode step has no time to hand over.
 */
#include "graph/cpu.h"

#include <string.h>

static cpu_device *cpu_of(device *d)
{
    return (cpu_device *)d;
}
static const cpu_device *cpu_of_const(const device *d)
{
    return (const cpu_device *)d;
}

/* ---- open and close ------------------------------------------------------------------------------------------------ */

static void program_destroy(struct device_program *p, int n_threads)
{
    base_free(p->values);
    base_free(p->ops);
    base_free(p->matrices);
    base_free(p->segment_end);
    base_free(p->pages);
    if (p->scratch != NULL)
        os_slab_destroy(p->scratch, p->scratch_bytes * (uint64_t)n_threads);
    base_free(p);
}

static void cpu_close(device *base)
{
    cpu_device *d = cpu_of(base);
    if (d == NULL)
        return;
    while (d->programs != NULL) {
        struct device_program *p = d->programs;
        d->programs = p->next;
        program_destroy(p, d->n_threads);
    }
    for (int i = 0; i < d->n_buffers; i++)
        if (d->buffers[i].data != NULL)
            os_slab_destroy(d->buffers[i].data, d->buffers[i].bytes);
    base_free(d->buffers);
    if (d->pool != NULL)
        os_pool_destroy(d->pool);
    base_free(d);
}

static status cpu_open(device **out, const device_options *o, err *e)
{
    REQUIRE(o->kernels != NULL);
    cpu_device *d = base_zalloc(1, sizeof(*d));
    if (d == NULL)
        return err_set(e, STATUS_NO_MEMORY, "cpu: no memory for a device");
    d->base.ops = &device_cpu;
    d->kernels = o->kernels;
    d->kv = o->kv;
    d->exact = o->exact;
    d->time_ops = o->time_ops;
    d->pace = o->pace;
    d->n_threads = BASE_MIN(o->n_threads > 0 ? o->n_threads : os_cpu_count(), CPU_MAX_WORKERS);
    status s = os_pool_create(&d->pool, d->n_threads, e);
    if (s != STATUS_OK) {
        cpu_close(&d->base);
        return s;
    }
    *out = &d->base;
    return STATUS_OK;
}

static int cpu_threads(const device *d)
{
    return cpu_of_const(d)->n_threads;
}

/* ---- memory -------------------------------------------------------------------------------------------------------- */

static status cpu_alloc(device *base, uint64_t bytes, int32_t *out_buffer, err *e)
{
    cpu_device *d = cpu_of(base);
    if (d->n_buffers == d->buffers_capacity) {
        int larger = BASE_MAX(2 * d->buffers_capacity, 16);
        cpu_buffer *more = base_realloc(d->buffers, sizeof(*more) * (size_t)larger);
        if (more == NULL)
            return err_set(e, STATUS_NO_MEMORY, "cpu: no memory for %d buffers", larger);
        d->buffers = more;
        d->buffers_capacity = larger;
    }
    cpu_buffer *b = &d->buffers[d->n_buffers];
    void *data;
    uint64_t rounded = BASE_MAX(bytes, 1);
    status s = os_slab_create(&data, rounded, e);
    if (s != STATUS_OK)
        return s;
    b->data = data;
    b->bytes = rounded;
    *out_buffer = d->n_buffers++;
    return STATUS_OK;
}

static int32_t cpu_next_buffer(const device *base)
{
    return cpu_of_const(base)->n_buffers;
}

static void cpu_free(device *base, int32_t buffer)
{
    cpu_device *d = cpu_of(base);
    REQUIRE(buffer >= 0 && buffer < d->n_buffers && d->buffers[buffer].data != NULL);
    os_slab_destroy(d->buffers[buffer].data, d->buffers[buffer].bytes);
    d->buffers[buffer] = (cpu_buffer){0};
}

static bool inside(const cpu_device *d, device_ref r, uint64_t n);

static void cpu_drop(device *base, device_ref at, uint64_t n)
{
    const cpu_device *d = cpu_of_const(base);
    REQUIRE(inside(d, at, n));
    os_slab_forget(cpu_at(d, at), n);
}

/* Whether [r, r + n) lies in a buffer. */
static bool inside(const cpu_device *d, device_ref r, uint64_t n)
{
    uint64_t end;
    return r.buffer >= 0 && r.buffer < d->n_buffers && checked_add(r.offset, n, &end) &&
           end <= d->buffers[r.buffer].bytes;
}

static status outside(device_ref r, uint64_t n, err *e)
{
    return err_set(e, STATUS_INTERNAL, "cpu: bytes %llu + %llu are not in buffer %d",
                   (unsigned long long)r.offset, (unsigned long long)n, (int)r.buffer);
}

static status cpu_write(device *base, device_ref to, const void *bytes, uint64_t n, err *e)
{
    cpu_device *d = cpu_of(base);
    if (!inside(d, to, n))
        return outside(to, n, e);
    memcpy(cpu_at(d, to), bytes, n);
    return STATUS_OK;
}

static status cpu_read(device *base, void *bytes, device_ref from, uint64_t n, err *e)
{
    cpu_device *d = cpu_of(base);
    if (!inside(d, from, n))
        return outside(from, n, e);
    memcpy(bytes, cpu_at(d, from), n);
    return STATUS_OK;
}

static status cpu_copy(device *base, device_ref to, device_ref from, uint64_t n, err *e)
{
    cpu_device *d = cpu_of(base);
    if (!inside(d, to, n))
        return outside(to, n, e);
    if (!inside(d, from, n))
        return outside(from, n, e);
    memmove(cpu_at(d, to), cpu_at(d, from), n);
    return STATUS_OK;
}

static void *cpu_host(device *base, device_ref at, uint64_t n)
{
    const cpu_device *d = cpu_of(base);
    return inside(d, at, n) ? cpu_at(d, at) : NULL;
}

/* ---- weights ------------------------------------------------------------------------------------------------------- */

static uint64_t strip_bytes_of(const device_weight *w)
{
    return kernel_strip_bytes(w->type, w->column_begin, w->column_begin + w->columns);
}

static uint64_t cpu_weight_bytes(const device *base, const device_weight *w)
{
    (void)base;
    uint64_t bytes;
    if (w->rows <= 0 || w->columns <= 0 || w->column_begin < 0 ||
        w->column_begin % KERNEL_UNIT != 0 || (w->type->quantised && w->columns % KERNEL_UNIT != 0))
        return 0;
    if (!checked_mul((uint64_t)kernel_strips(w->rows), strip_bytes_of(w), &bytes) ||
        !checked_align(bytes, 64, &bytes))
        return 0;
    return bytes;
}

static unsigned cpu_needs(const device *base, const kernel_type *type)
{
    return type->quantised && !cpu_of_const(base)->exact ? DEVICE_NEEDS_Q8 : DEVICE_NEEDS_F32;
}

static uint64_t cpu_cache_bytes_op(const device *base, int64_t n_kv_heads, int64_t head_dim)
{
    return cpu_cache_bytes(cpu_of_const(base), n_kv_heads, head_dim);
}

typedef struct upload_task {
    const device_weight *w;
    char *tiles; /* of first_row */
    const char *rows;
    uint64_t row_bytes, strip_bytes;
    int64_t n_rows;
} upload_task;

static void upload_strips(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const upload_task *u = context;
    for (int64_t strip = begin; strip < end; strip++) {
        int64_t row = strip * KERNEL_TILE_ROWS;
        int n = (int)BASE_MIN(u->n_rows - row, KERNEL_TILE_ROWS);
        kernel_pack(u->w->type, u->tiles + (uint64_t)strip * u->strip_bytes,
                    u->rows + (uint64_t)row * u->row_bytes, u->row_bytes, n, u->w->column_begin,
                    u->w->column_begin + u->w->columns);
    }
}

static status cpu_upload(device *base, const device_weight *w, const void *rows, uint64_t row_bytes,
                         int64_t first_row, int64_t n_rows, err *e)
{
    cpu_device *d = cpu_of(base);
    uint64_t bytes = cpu_weight_bytes(base, w);
    if (bytes == 0 || !inside(d, w->at, bytes))
        return outside(w->at, bytes, e);
    REQUIRE(first_row >= 0 && first_row % KERNEL_TILE_ROWS == 0 && n_rows > 0 &&
            first_row + n_rows <= w->rows);
    REQUIRE(n_rows % KERNEL_TILE_ROWS == 0 || first_row + n_rows == w->rows);
    uint64_t strip_bytes = strip_bytes_of(w);
    upload_task u = {
        .w = w,
        .tiles = (char *)cpu_at(d, w->at) + (uint64_t)(first_row / KERNEL_TILE_ROWS) * strip_bytes,
        .rows = rows,
        .row_bytes = row_bytes,
        .strip_bytes = strip_bytes,
        .n_rows = n_rows,
    };
    os_pool_run(d->pool, upload_strips, &u, kernel_strips(n_rows), 4);
    return STATUS_OK;
}

/* A rectangle of a matrix: from the file (rows), or from another matrix of the same tensor. */
typedef struct part_task {
    const device_weight *to, *from;
    char *to_tiles;
    const char *from_tiles, *rows;
    uint64_t row_bytes, to_strip, from_strip;
    int64_t to_row, from_row, n_rows, column_begin, column_end;
} part_task;

/* Lanes of strip `strip` of `to`: one run from the file, or runs from the one or two strips of `from` that hold them. */
static void part_of_strip(const part_task *p, int64_t strip)
{
    int64_t begin = BASE_MAX(strip * KERNEL_TILE_ROWS, p->to_row),
            end = BASE_MIN((strip + 1) * KERNEL_TILE_ROWS, p->to_row + p->n_rows);
    char *to = p->to_tiles + (uint64_t)strip * p->to_strip;
    const kernel_type *type = p->to->type;
    if (p->from == NULL) {
        kernel_pack_part(type, to, p->to->column_begin, (int)(begin % KERNEL_TILE_ROWS),
                         p->rows + (uint64_t)(begin - p->to_row) * p->row_bytes, p->row_bytes,
                         (int)(end - begin), p->column_begin, p->column_end);
        return;
    }
    while (begin < end) {
        int64_t row = p->from_row + begin - p->to_row;
        int lane = (int)(row % KERNEL_TILE_ROWS),
            n = (int)BASE_MIN(end - begin, KERNEL_TILE_ROWS - lane);
        kernel_move_part(type, to, p->to->column_begin, (int)(begin % KERNEL_TILE_ROWS),
                         p->from_tiles + (uint64_t)(row / KERNEL_TILE_ROWS) * p->from_strip,
                         p->from->column_begin, lane, n, p->column_begin, p->column_end);
        begin += n;
    }
}

static void part_strips(void *context, int64_t begin, int64_t end, int worker)
{
    const part_task *p = context;
    (void)worker;
    for (int64_t i = begin; i < end; i++)
        part_of_strip(p, p->to_row / KERNEL_TILE_ROWS + i);
}

static status run_part(cpu_device *d, part_task *p, err *e)
{
    const device_weight *w = p->to;
    uint64_t bytes = cpu_weight_bytes(&d->base, w);
    if (bytes == 0 || !inside(d, w->at, bytes))
        return outside(w->at, bytes, e);
    REQUIRE(p->to_row >= 0 && p->n_rows > 0 && p->to_row + p->n_rows <= w->rows);
    REQUIRE(p->column_begin >= w->column_begin && p->column_begin % KERNEL_UNIT == 0 &&
            p->column_end > p->column_begin && p->column_end <= w->column_begin + w->columns);
    p->to_tiles = cpu_at(d, w->at);
    p->to_strip = strip_bytes_of(w);
    int64_t first = p->to_row / KERNEL_TILE_ROWS;
    os_pool_run(d->pool, part_strips, p, kernel_strips(p->to_row + p->n_rows) - first, 4);
    return STATUS_OK;
}

static status cpu_upload_part(device *base, const device_weight *w, const void *rows,
                              uint64_t row_bytes, int64_t first_row, int64_t n_rows,
                              int64_t column_begin, int64_t column_end, err *e)
{
    part_task p = {.to = w,
                   .rows = rows,
                   .row_bytes = row_bytes,
                   .to_row = first_row,
                   .n_rows = n_rows,
                   .column_begin = column_begin,
                   .column_end = column_end};
    return run_part(cpu_of(base), &p, e);
}

static status cpu_move_part(device *base, const device_weight *to, int64_t to_row,
                            const device_weight *from, int64_t from_row, int64_t n_rows,
                            int64_t column_begin, int64_t column_end, err *e)
{
    cpu_device *d = cpu_of(base);
    uint64_t bytes = cpu_weight_bytes(base, from);
    if (bytes == 0 || !inside(d, from->at, bytes))
        return outside(from->at, bytes, e);
    REQUIRE(from->type == to->type && from_row >= 0 && from_row + n_rows <= from->rows);
    REQUIRE(column_begin >= from->column_begin && column_end <= from->column_begin + from->columns);
    part_task p = {.to = to,
                   .from = from,
                   .from_tiles = cpu_at(d, from->at),
                   .from_strip = strip_bytes_of(from),
                   .to_row = to_row,
                   .from_row = from_row,
                   .n_rows = n_rows,
                   .column_begin = column_begin,
                   .column_end = column_end};
    return run_part(d, &p, e);
}

/* ---- programs ------------------------------------------------------------------------------------------------------ */

static uint64_t cpu_row_offset(const device *base, const device_weight *w, int64_t row)
{
    (void)base;
    return (uint64_t)(row / KERNEL_TILE_ROWS) * strip_bytes_of(w);
}

static uint64_t cpu_value_bytes(const device *base, const device_value *v, int64_t n_rows)
{
    (void)base;
    uint64_t n = (uint64_t)n_rows * (uint64_t)v->width;
    if (v->format == DEVICE_F64)
        return n * sizeof(double);
    if (v->format != DEVICE_INPUT)
        return n * sizeof(float);
    uint64_t bytes = 0;
    if (v->needs & DEVICE_NEEDS_F32)
        bytes += (uint64_t)n_rows * (uint64_t)cpu_padded(v->width) * sizeof(float);
    if (v->needs & DEVICE_NEEDS_Q8)
        bytes += (uint64_t)n_rows * kernel_act_bytes(v->width);
    return bytes;
}

static status view(const cpu_device *d, kernel_matrix *m, const device_weight *w, err *e)
{
    uint64_t bytes = cpu_weight_bytes(&d->base, w);
    if (bytes == 0 || !inside(d, w->at, bytes))
        return outside(w->at, bytes, e);
    *m = (kernel_matrix){
        .type = w->type,
        .tiles = cpu_at(d, w->at),
        .rows = w->rows,
        .column_begin = w->column_begin,
        .column_end = w->column_begin + w->columns,
        .strip_bytes = strip_bytes_of(w),
    };
    return STATUS_OK;
}

static status view_all(const cpu_device *d, struct device_program *p, err *e)
{
    for (int i = 0; i < p->n_ops; i++) {
        const device_op *op = &p->ops[i];
        status s = STATUS_OK;
        if (op->kind == DEVICE_OP_BEGIN && op->u.begin.x >= 0 && op->u.begin.embedding.rows > 0) {
            s = view(d, &p->matrices[i][0], &op->u.begin.embedding, e);
            if (s == STATUS_OK && op->u.begin.positions.rows > 0)
                s = view(d, &p->matrices[i][1], &op->u.begin.positions, e);
            if (s == STATUS_OK && op->u.begin.types.rows > 0)
                s = view(d, &p->matrices[i][2], &op->u.begin.types, e);
        } else if (op->kind == DEVICE_OP_GATED) {
            s = view(d, &p->matrices[i][0], &op->u.gated.gate, e);
            if (s == STATUS_OK)
                s = view(d, &p->matrices[i][1], &op->u.gated.up, e);
        } else if (op->kind == DEVICE_OP_PRODUCT) {
            for (int k = 0; k < op->u.product.n_parts && s == STATUS_OK; k++)
                s = view(d, &p->matrices[i][k], &op->u.product.weight[k], e);
        }
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static int cpu_row_places(const device *base, const device_value *v, const device_limits *l,
                          device_ref at[2], uint64_t row_bytes[2])
{
    (void)base;
    int64_t rows = v->outputs_only ? l->n_outputs : l->n_tokens;
    int n = 0;
    if (v->format != DEVICE_INPUT) {
        at[0] = v->at;
        row_bytes[0] =
            (uint64_t)v->width * (v->format == DEVICE_F64 ? sizeof(double) : sizeof(float));
        return 1;
    }
    if (v->needs & DEVICE_NEEDS_F32) {
        at[n] = v->at;
        row_bytes[n++] = (uint64_t)cpu_padded(v->width) * sizeof(float);
    }
    if (v->needs & DEVICE_NEEDS_Q8) {
        at[n] = v->at;
        at[n].offset += n > 0 ? (uint64_t)rows * row_bytes[0] : 0;
        row_bytes[n++] = kernel_act_bytes(v->width);
    }
    return n;
}

/* Segments end behind everything that goes over ranks; with nothing of that there is one. */
static void cut_segments(struct device_program *p)
{
    for (int i = 0; i < p->n_ops; i++)
        if (p->ops[i].kind == DEVICE_OP_SUM || p->ops[i].kind == DEVICE_OP_GATHER)
            p->segment_end[p->n_segments++] = i + 1;
    if (p->n_segments == 0 || p->segment_end[p->n_segments - 1] < p->n_ops)
        p->segment_end[p->n_segments++] = p->n_ops;
}

static status cpu_compile(device *base, device_program **out, const device_value *values,
                          int n_values, const device_op *ops, int n_ops,
                          const device_limits *limits, err *e)
{
    cpu_device *d = cpu_of(base);
    struct device_program *p = base_zalloc(1, sizeof(*p));
    if (p == NULL)
        return err_set(e, STATUS_NO_MEMORY, "cpu: no memory for a program");
    p->n_values = n_values;
    p->n_ops = n_ops;
    p->limits = *limits;
    p->values = base_zalloc((size_t)n_values + 1, sizeof(*p->values));
    p->ops = base_zalloc((size_t)n_ops + 1, sizeof(*p->ops));
    p->matrices = base_zalloc((size_t)n_ops + 1, sizeof(*p->matrices));
    p->segment_end = base_zalloc((size_t)n_ops + 1, sizeof(*p->segment_end));
    p->pages = base_zalloc((size_t)limits->n_pages + 1, sizeof(*p->pages));
    status s = STATUS_NO_MEMORY;
    if (p->values == NULL || p->ops == NULL || p->matrices == NULL || p->segment_end == NULL ||
        p->pages == NULL) {
        err_set(e, s, "cpu: no memory for a program of %d ops", n_ops);
        goto out;
    }
    memcpy(p->values, values, (size_t)n_values * sizeof(*values));
    memcpy(p->ops, ops, (size_t)n_ops * sizeof(*ops));
    cut_segments(p);
    s = view_all(d, p, e);
    if (s != STATUS_OK)
        goto out;
    uint64_t scratch_bytes = cpu_scratch_need(p);
    void *scratch;
    s = os_slab_create(&scratch, scratch_bytes * (uint64_t)d->n_threads, e);
    if (s != STATUS_OK)
        goto out;
    p->scratch = scratch;
    p->scratch_bytes = scratch_bytes;
    p->next = d->programs;
    d->programs = p;
    *out = p;
out:
    if (s != STATUS_OK)
        program_destroy(p, d->n_threads);
    return s;
}

static void cpu_discard(device *base, device_program *p)
{
    cpu_device *d = cpu_of(base);
    struct device_program **at = &d->programs;
    while (*at != NULL && *at != p)
        at = &(*at)->next;
    if (p == NULL || *at == NULL)
        return;
    *at = p->next;
    program_destroy(p, d->n_threads);
}

static int cpu_n_segments(const device_program *p)
{
    return p->n_segments;
}

/* Whether an op works on the rows of wanted outputs: its result says so. */
static bool outputs_only(const struct device_program *p, const device_op *op)
{
    switch (op->kind) {
    case DEVICE_OP_INPUT:
        return p->values[op->u.input.out].outputs_only;
    case DEVICE_OP_NORM:
        return p->values[op->u.norm.out].outputs_only;
    case DEVICE_OP_PRODUCT:
        return p->values[op->u.product.input].outputs_only;
    case DEVICE_OP_GATED:
        return p->values[op->u.gated.out].outputs_only;
    case DEVICE_OP_GELU:
        return p->values[op->u.gelu.out].outputs_only;
    case DEVICE_OP_ATTENTION:
        return p->values[op->u.attention.out].outputs_only;
    case DEVICE_OP_ZERO:
        return p->values[op->u.zero.value].outputs_only;
    default:
        return false;
    }
}

static status cpu_enqueue(device *base, const device_program *p, int segment,
                          const device_step *step, err *e)
{
    cpu_device *d = cpu_of(base);
    const device_limits *l = &p->limits;
    if (step->n_tokens > l->n_tokens || step->n_runs > l->n_runs ||
        step->n_outputs > l->n_outputs || step->n_pages > l->n_pages)
        return err_set(e, STATUS_INTERNAL, "cpu: a step over the limits of its program");
    cpu_task t = {.d = d, .p = p, .step = step};
    for (int i = segment == 0 ? 0 : p->segment_end[segment - 1]; i < p->segment_end[segment]; i++) {
        t.op = &p->ops[i];
        t.matrix = p->matrices[i];
        t.rows = outputs_only(p, t.op) ? step->n_outputs : step->n_tokens;
        t.first = 0;
        if (cpu_run_op[t.op->kind] == NULL || t.rows == 0)
            continue;
        uint64_t begin = d->time_ops || d->pace > 0 ? os_now_us() : 0;
        cpu_run_op[t.op->kind](&t);
        if (d->pace > 0)
            os_keep_pace(begin, d->pace);
        if (d->time_ops) {
            d->times[t.op->kind].calls++;
            d->times[t.op->kind].us += os_now_us() - begin;
        }
    }
    return STATUS_OK;
}

static status cpu_wait(device *base, err *e)
{
    if (atomic_exchange_explicit(&cpu_of(base)->out_of_range, false, memory_order_relaxed))
        return err_set(e, STATUS_INTERNAL,
                       "cpu: an exact sum left its range of 2^29: the weights are damaged, or not "
                       "of this model");
    return STATUS_OK;
}

static void cpu_op_times(device *base, device_op_time *out, bool reset)
{
    cpu_device *d = cpu_of(base);
    if (out != NULL)
        memcpy(out, d->times, sizeof(d->times));
    if (reset)
        memset(d->times, 0, sizeof(d->times));
}

const device_ops device_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .threads = cpu_threads,
    .alloc = cpu_alloc,
    .next_buffer = cpu_next_buffer,
    .free = cpu_free,
    .drop = cpu_drop,
    .write = cpu_write,
    .read = cpu_read,
    .copy = cpu_copy,
    .host = cpu_host,
    .weight_bytes = cpu_weight_bytes,
    .row_offset = cpu_row_offset,
    .needs = cpu_needs,
    .cache_bytes = cpu_cache_bytes_op,
    .upload = cpu_upload,
    .upload_part = cpu_upload_part,
    .move_part = cpu_move_part,
    .value_bytes = cpu_value_bytes,
    .row_places = cpu_row_places,
    .compile = cpu_compile,
    .discard = cpu_discard,
    .n_segments = cpu_n_segments,
    .enqueue = cpu_enqueue,
    .wait = cpu_wait,
    .op_times = cpu_op_times,
};
