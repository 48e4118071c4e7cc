/*
 * The `cpu_copy` device: the arithmetic of `cpu` behind what a GPU would force on us. Memory is reached by read, write, copy and upload
 * only; a step is copied when it is enqueued; segments run on a thread of the device's own, in the order they came; everything that
 * looks at memory waits for them first.
 *
 * It proves the seam: a caller that changes a step after enqueue, or reads before wait, works by luck on `cpu` and fails here.
 * Deliberately not: fast.
 */
#include "graph/cpu.h"

#include <string.h>

enum { QUEUE = 8 };

/* A device_step with memory of its own. */
typedef struct step_copy {
    device_step step;
    int32_t *ids, *run_of, *pages, *outputs;
    int64_t *positions;
    device_run *runs;
} step_copy;

typedef struct job {
    const device_program *program;
    int segment;
    step_copy copy;
} job;

typedef struct copy_device {
    device base;
    device *inner; /* owned: a `cpu` that only the thread touches while jobs are queued */
    os_thread *thread;
    os_mutex *lock; /* guards everything below */
    os_cond *changed;
    job jobs[QUEUE]; /* ring: [head, head + n) are waiting or running */
    int head, n;
    bool stop;
    status failed; /* the first since the last wait */
    err error;
    device_limits limits; /* that the jobs' copies have room for */
} copy_device;

static copy_device *copy_of(device *d)
{
    return (copy_device *)d;
}
static const device *inner_of(const device *d)
{
    return ((const copy_device *)d)->inner;
}

/* ---- the thread ---------------------------------------------------------------------------------------------------- */

static void work(void *context)
{
    copy_device *d = context;
    os_mutex_lock(d->lock);
    while (!d->stop) {
        if (d->n == 0) {
            os_cond_wait(d->changed, d->lock);
            continue;
        }
        const job *j = &d->jobs[d->head];
        os_mutex_unlock(d->lock);
        err e = {0};
        status s = device_cpu.enqueue(d->inner, j->program, j->segment, &j->copy.step, &e);
        os_mutex_lock(d->lock);
        if (s != STATUS_OK && d->failed == STATUS_OK) {
            d->failed = s;
            d->error = e;
        }
        d->head = (d->head + 1) % QUEUE;
        d->n--;
        os_cond_broadcast(d->changed);
    }
    os_mutex_unlock(d->lock);
}

static void drain(copy_device *d)
{
    os_mutex_lock(d->lock);
    while (d->n > 0)
        os_cond_wait(d->changed, d->lock);
    os_mutex_unlock(d->lock);
}

/* ---- open and close ------------------------------------------------------------------------------------------------ */

static void step_copy_fini(step_copy *c)
{
    base_free(c->ids);
    base_free(c->run_of);
    base_free(c->pages);
    base_free(c->outputs);
    base_free(c->positions);
    base_free(c->runs);
    *c = (step_copy){0};
}

static bool step_copy_init(step_copy *c, const device_limits *l)
{
    c->ids = base_zalloc((size_t)l->n_tokens + 1, sizeof(*c->ids));
    c->run_of = base_zalloc((size_t)l->n_tokens + 1, sizeof(*c->run_of));
    c->positions = base_zalloc((size_t)l->n_tokens + 1, sizeof(*c->positions));
    c->pages = base_zalloc((size_t)l->n_pages + 1, sizeof(*c->pages));
    c->outputs = base_zalloc((size_t)l->n_outputs + 1, sizeof(*c->outputs));
    c->runs = base_zalloc((size_t)l->n_runs + 1, sizeof(*c->runs));
    return c->ids && c->run_of && c->positions && c->pages && c->outputs && c->runs;
}

static void copy_close(device *base)
{
    copy_device *d = copy_of(base);
    if (d == NULL)
        return;
    if (d->thread != NULL) {
        os_mutex_lock(d->lock);
        d->stop = true;
        os_cond_broadcast(d->changed);
        os_mutex_unlock(d->lock);
        os_thread_join(d->thread);
    }
    for (int i = 0; i < QUEUE; i++)
        step_copy_fini(&d->jobs[i].copy);
    if (d->changed != NULL)
        os_cond_destroy(d->changed);
    if (d->lock != NULL)
        os_mutex_destroy(d->lock);
    if (d->inner != NULL)
        device_cpu.close(d->inner);
    base_free(d);
}

static status copy_open(device **out, const device_options *o, err *e)
{
    copy_device *d = base_zalloc(1, sizeof(*d));
    if (d == NULL)
        return err_set(e, STATUS_NO_MEMORY, "cpu_copy: no memory for a device");
    d->base.ops = &device_cpu_copy;
    status s = device_cpu.open(&d->inner, o, e);
    if (s == STATUS_OK)
        s = os_mutex_create(&d->lock, e);
    if (s == STATUS_OK)
        s = os_cond_create(&d->changed, e);
    if (s == STATUS_OK)
        s = os_thread_create(&d->thread, work, d, "cpu_copy", e);
    if (s != STATUS_OK) {
        copy_close(&d->base);
        return s;
    }
    *out = &d->base;
    return STATUS_OK;
}

static int copy_threads(const device *d)
{
    return device_cpu.threads(inner_of(d));
}

/* ---- memory: wait, then the same ----------------------------------------------------------------------------------- */

static status copy_alloc(device *base, uint64_t bytes, int32_t *out_buffer, err *e)
{
    drain(copy_of(base));
    return device_cpu.alloc(copy_of(base)->inner, bytes, out_buffer, e);
}

static int32_t copy_next_buffer(const device *base)
{
    return device_cpu.next_buffer(inner_of(base));
}

static void copy_drop(device *base, device_ref at, uint64_t n)
{
    drain(copy_of(base));
    device_cpu.drop(copy_of(base)->inner, at, n);
}

static void copy_free(device *base, int32_t buffer)
{
    drain(copy_of(base));
    device_cpu.free(copy_of(base)->inner, buffer);
}

static status copy_write(device *base, device_ref to, const void *bytes, uint64_t n, err *e)
{
    drain(copy_of(base));
    return device_cpu.write(copy_of(base)->inner, to, bytes, n, e);
}

static status copy_read(device *base, void *bytes, device_ref from, uint64_t n, err *e)
{
    drain(copy_of(base));
    return device_cpu.read(copy_of(base)->inner, bytes, from, n, e);
}

static status copy_copy(device *base, device_ref to, device_ref from, uint64_t n, err *e)
{
    drain(copy_of(base));
    return device_cpu.copy(copy_of(base)->inner, to, from, n, e);
}

static uint64_t copy_row_offset(const device *base, const device_weight *w, int64_t row)
{
    return device_cpu.row_offset(inner_of(base), w, row);
}

static uint64_t copy_weight_bytes(const device *base, const device_weight *w)
{
    return device_cpu.weight_bytes(inner_of(base), w);
}

static unsigned copy_needs(const device *base, const kernel_type *type)
{
    return device_cpu.needs(inner_of(base), type);
}

static uint64_t copy_cache_bytes(const device *base, int64_t n_kv_heads, int64_t head_dim)
{
    return device_cpu.cache_bytes(inner_of(base), n_kv_heads, head_dim);
}

/* As a transfer would: nothing may lean on the source after an upload returns, or on its alignment. */
static void *stage(const void *rows, uint64_t bytes, err *e)
{
    void *staged = base_alloc(bytes);
    if (staged == NULL)
        err_set(e, STATUS_NO_MEMORY, "cpu_copy: no memory to stage %llu bytes",
                (unsigned long long)bytes);
    else
        memcpy(staged, rows, bytes);
    return staged;
}

static status copy_upload(device *base, const device_weight *w, const void *rows,
                          uint64_t row_bytes, int64_t first_row, int64_t n_rows, err *e)
{
    drain(copy_of(base));
    void *staged = stage(rows, row_bytes * (uint64_t)n_rows, e);
    if (staged == NULL)
        return STATUS_NO_MEMORY;
    status s = device_cpu.upload(copy_of(base)->inner, w, staged, row_bytes, first_row, n_rows, e);
    base_free(staged);
    return s;
}

static status copy_upload_part(device *base, const device_weight *w, const void *rows,
                               uint64_t row_bytes, int64_t first_row, int64_t n_rows,
                               int64_t column_begin, int64_t column_end, err *e)
{
    drain(copy_of(base));
    void *staged = stage(rows, row_bytes * (uint64_t)n_rows, e);
    if (staged == NULL)
        return STATUS_NO_MEMORY;
    status s = device_cpu.upload_part(copy_of(base)->inner, w, staged, row_bytes, first_row, n_rows,
                                      column_begin, column_end, e);
    base_free(staged);
    return s;
}

static status copy_move_part(device *base, const device_weight *to, int64_t to_row,
                             const device_weight *from, int64_t from_row, int64_t n_rows,
                             int64_t column_begin, int64_t column_end, err *e)
{
    drain(copy_of(base));
    return device_cpu.move_part(copy_of(base)->inner, to, to_row, from, from_row, n_rows,
                                column_begin, column_end, e);
}

/* ---- programs ------------------------------------------------------------------------------------------------------ */

static uint64_t copy_value_bytes(const device *base, const device_value *v, int64_t n_rows)
{
    return device_cpu.value_bytes(inner_of(base), v, n_rows);
}

static int copy_row_places(const device *base, const device_value *v, const device_limits *l,
                           device_ref at[2], uint64_t row_bytes[2])
{
    return device_cpu.row_places(inner_of(base), v, l, at, row_bytes);
}

/* Makes room in all jobs for steps of these limits as well. */
static status make_room(copy_device *d, const device_limits *l, err *e)
{
    d->limits.n_tokens = BASE_MAX(d->limits.n_tokens, l->n_tokens);
    d->limits.n_runs = BASE_MAX(d->limits.n_runs, l->n_runs);
    d->limits.n_outputs = BASE_MAX(d->limits.n_outputs, l->n_outputs);
    d->limits.n_pages = BASE_MAX(d->limits.n_pages, l->n_pages);
    for (int i = 0; i < QUEUE; i++) {
        step_copy_fini(&d->jobs[i].copy);
        if (!step_copy_init(&d->jobs[i].copy, &d->limits))
            return err_set(e, STATUS_NO_MEMORY, "cpu_copy: no memory for steps of %d tokens",
                           (int)l->n_tokens);
    }
    return STATUS_OK;
}

static status copy_compile(device *base, device_program **out, const device_value *values,
                           int n_values, const device_op *ops, int n_ops,
                           const device_limits *limits, err *e)
{
    copy_device *d = copy_of(base);
    drain(d);
    status s = make_room(d, limits, e);
    if (s != STATUS_OK)
        return s;
    return device_cpu.compile(d->inner, out, values, n_values, ops, n_ops, limits, e);
}

static void copy_discard(device *base, device_program *p)
{
    drain(copy_of(base));
    device_cpu.discard(copy_of(base)->inner, p);
}

static int copy_n_segments(const device_program *p)
{
    return device_cpu.n_segments(p);
}

static void copy_step(step_copy *to, const device_step *s)
{
    memcpy(to->ids, s->ids, (size_t)s->n_tokens * sizeof(*s->ids));
    memcpy(to->positions, s->positions, (size_t)s->n_tokens * sizeof(*s->positions));
    memcpy(to->run_of, s->run_of, (size_t)s->n_tokens * sizeof(*s->run_of));
    memcpy(to->runs, s->runs, (size_t)s->n_runs * sizeof(*s->runs));
    if (s->n_pages > 0)
        memcpy(to->pages, s->pages, (size_t)s->n_pages * sizeof(*s->pages));
    if (s->n_outputs > 0)
        memcpy(to->outputs, s->outputs, (size_t)s->n_outputs * sizeof(*s->outputs));
    to->step = *s;
    to->step.ids = to->ids;
    to->step.positions = to->positions;
    to->step.run_of = to->run_of;
    to->step.runs = to->runs;
    to->step.pages = to->pages;
    to->step.outputs = to->outputs;
}

static status copy_enqueue(device *base, const device_program *p, int segment,
                           const device_step *step, err *e)
{
    copy_device *d = copy_of(base);
    if (step->n_tokens > d->limits.n_tokens || step->n_runs > d->limits.n_runs ||
        step->n_outputs > d->limits.n_outputs || step->n_pages > d->limits.n_pages)
        return err_set(e, STATUS_INTERNAL, "cpu_copy: a step over the limits of its program");
    os_mutex_lock(d->lock);
    while (d->n == QUEUE)
        os_cond_wait(d->changed, d->lock);
    job *j = &d->jobs[(d->head + d->n) % QUEUE];
    j->program = p;
    j->segment = segment;
    copy_step(&j->copy, step);
    d->n++;
    os_cond_broadcast(d->changed);
    os_mutex_unlock(d->lock);
    return STATUS_OK;
}

static status copy_wait(device *base, err *e)
{
    copy_device *d = copy_of(base);
    drain(d);
    status s = d->failed;
    if (s != STATUS_OK && e != NULL)
        *e = d->error;
    d->failed = STATUS_OK;
    status inner = device_cpu.wait(d->inner, s == STATUS_OK ? e : NULL);
    return s != STATUS_OK ? s : inner;
}

static void copy_op_times(device *base, device_op_time *out, bool reset)
{
    drain(copy_of(base));
    device_cpu.op_times(copy_of(base)->inner, out, reset);
}

const device_ops device_cpu_copy = {
    .name = "cpu_copy",
    .open = copy_open,
    .close = copy_close,
    .threads = copy_threads,
    .alloc = copy_alloc,
    .next_buffer = copy_next_buffer,
    .free = copy_free,
    .drop = copy_drop,
    .write = copy_write,
    .read = copy_read,
    .copy = copy_copy,
    .weight_bytes = copy_weight_bytes,
    .row_offset = copy_row_offset,
    .needs = copy_needs,
    .cache_bytes = copy_cache_bytes,
    .upload = copy_upload,
    .upload_part = copy_upload_part,
    .move_part = copy_move_part,
    .value_bytes = copy_value_bytes,
    .row_places = copy_row_places,
    .compile = copy_compile,
    .discard = copy_discard,
    .n_segments = copy_n_segments,
    .enqueue = copy_enqueue,
    .wait = copy_wait,
    .op_times = copy_op_times,
};
