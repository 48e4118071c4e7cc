/*
 * Ops of the `cpu` device, all but attention: each sets up one dispatch of the pool. Rows of weights are the unit of products, tokens the
 * unit of everything else; what a worker computes is whole elements, so the split changes no bit.
 *
 * Deliberately not: arithmetic. Every number comes from a kernel.
 */
#include "graph/cpu.h"
#include "kernel/scalar.h"

#include <string.h>

void cpu_dispatch(cpu_task *t, os_pool_task task, int64_t n, int64_t chunk)
{
    if (n <= chunk || t->d->n_threads == 1) {
        if (n > 0)
            task(t, 0, n, 0);
        return;
    }
    os_pool_run(t->d->pool, task, t, n, chunk);
}

/* Rows of weights: about 16 pieces a thread, 8 where many tokens would be read anew for each: a starved worker delays little, and a piece is
 * still a long run of memory. Even for more than one token: the kernels then take strips by twos. One token waits for memory alone, and the
 * thread that ends first would leave half of it unused: pieces in multiples of `least` that become smaller towards the end. */
static void dispatch_rows(cpu_task *t, os_pool_task task, int64_t n, int64_t least)
{
    int64_t pieces = t->d->n_threads * (t->rows < 64 ? 16 : 8);
    int64_t chunk = BASE_MIN(BASE_MAX(n / pieces, 1), 64);
    if (t->rows > 1)
        cpu_dispatch(t, task, n, chunk + (chunk & 1));
    else if (n <= chunk || t->d->n_threads == 1)
        cpu_dispatch(t, task, n, chunk);
    else
        os_pool_run_shrinking(t->d->pool, task, t, n, least, (chunk + least - 1) / least);
}

/* Writes a row of f32 (in the value's own f32 row or elsewhere) as product input. */
static void put_input(const cpu_task *t, const device_value *v, int64_t row, const float *x)
{
    int64_t padded = cpu_padded(v->width);
    if (v->needs & DEVICE_NEEDS_F32) {
        float *to = cpu_input_f32(t, v, row);
        if (to != x)
            memcpy(to, x, (size_t)v->width * sizeof(float));
        memset(to + v->width, 0, (size_t)(padded - v->width) * sizeof(float));
        x = to;
    }
    if (v->needs & DEVICE_NEEDS_Q8)
        t->d->kernels->quantise(cpu_input_q8(t, v, row), x, padded);
}

/* ---- begin --------------------------------------------------------------------------------------------------------- */

/* x += row of one of the op's further tables. */
static void add_gathered(const cpu_task *t, float *x, int table, int64_t row, float *scratch)
{
    if (t->matrix[table].rows == 0)
        return;
    kernel_gather_row(scratch, &t->matrix[table], row);
    t->d->kernels->add(x, x, scratch, t->op->u.begin.embedding.columns);
}

/* Row `row` of the residual stream, or where ranks share the embedding its part of the sum. */
static void look_up(const cpu_task *t, int64_t row, float *scratch)
{
    const kernel_table *k = t->d->kernels;
    const device_op *op = t->op;
    int64_t n = op->u.begin.embedding.columns, id = t->step->ids[row] - op->u.begin.first_row;
    float *x = cpu_row(t, op->u.begin.x, row);
    bool ours = !op->u.begin.shared || (id >= 0 && id < op->u.begin.embedding.rows);
    if (ours) {
        kernel_gather_row(x, &t->matrix[0], id);
        if (op->u.begin.scale != 1.0f)
            k->scale(x, x, op->u.begin.scale, n);
        add_gathered(t, x, 2, 0, scratch);
        add_gathered(t, x, 1, t->step->positions[row], scratch);
    }
    if (!op->u.begin.shared)
        return;
    double *partial = (double *)cpu_at(t->d, cpu_value(t, op->u.begin.partial)->at) + row * n;
    for (int64_t i = 0; i < n; i++)
        partial[i] = ours ? (double)x[i] : 0.0;
    memset(x, 0, (size_t)n * sizeof *x);
}

static void begin_task(void *context, int64_t begin, int64_t end, int worker)
{
    const cpu_task *t = context;
    for (int64_t row = begin; row < end; row++) {
        if (t->op->u.begin.x >= 0)
            look_up(t, row, cpu_scratch(t, worker));
        for (int i = 0; i < DEVICE_ROTARIES; i++) {
            int v = t->op->u.begin.rotary[i];
            if (v < 0)
                continue;
            int half = (int)(cpu_value(t, v)->width / 2);
            float *cosines = cpu_row(t, v, row);
            kernel_rope_table(cosines, cosines + half, cpu_at(t->d, t->op->u.begin.frequencies[i]),
                              half, t->step->positions[row],
                              (double)t->op->u.begin.rotary_scale[i]);
        }
    }
}

static void run_begin(cpu_task *t)
{
    cpu_dispatch(t, begin_task, t->step->n_tokens, 4);
}

/* ---- input --------------------------------------------------------------------------------------- */

static void input_task(void *context, int64_t begin, int64_t end, int worker)
{
    const cpu_task *t = context;
    const device_value *out = cpu_value(t, t->op->u.input.out);
    float *scratch = cpu_scratch(t, worker);
    memset(scratch + out->width, 0, (size_t)(cpu_padded(out->width) - out->width) * sizeof(float));
    for (int64_t row = begin; row < end; row++) {
        memcpy(scratch, cpu_row(t, t->op->u.input.x, row), (size_t)out->width * sizeof(float));
        put_input(t, out, row, scratch);
    }
}

static void run_input(cpu_task *t)
{
    cpu_dispatch(t, input_task, t->rows, 4);
}

/* ---- norm ---------------------------------------------------------------------------------------------------------- */

/* x += add[row] (+ bias, normed by add_norm). scratch: D floats. */
static void add_residual(const cpu_task *t, int64_t row, float *x, float *scratch)
{
    const kernel_table *k = t->d->kernels;
    const device_value *add = cpu_value(t, t->op->u.norm.add);
    int64_t n = add->width;
    const float *y;
    if (add->format == DEVICE_F64) {
        const double *sums = (const double *)cpu_at(t->d, add->at) + row * n;
        if (!k->finish(scratch, sums, n))
            atomic_store_explicit(&t->d->out_of_range, true, memory_order_relaxed);
        y = scratch;
    } else {
        y = cpu_row(t, t->op->u.norm.add, row);
    }
    const float *bias = cpu_at(t->d, t->op->u.norm.bias);
    if (bias != NULL) {
        k->add(scratch, y, bias, n);
        y = scratch;
    }
    const float *norm = cpu_at(t->d, t->op->u.norm.add_norm);
    if (norm != NULL) {
        k->rms_norm(scratch, y, norm, n, t->op->u.norm.eps);
        y = scratch;
    }
    k->add(x, x, y, n);
}

/* What was normed, in scratch: back into x where the op says so, and to the output. */
static void put_normed(const cpu_task *t, const device_value *out, int64_t i, float *x,
                       float *scratch)
{
    size_t bytes = (size_t)out->width * sizeof(float);
    if (t->op->u.norm.replace)
        memcpy(x, scratch, bytes);
    if (out->format == DEVICE_F32) {
        memcpy(cpu_row(t, t->op->u.norm.out, i), scratch, bytes);
        return;
    }
    memset(scratch + out->width, 0, (size_t)(cpu_padded(out->width) - out->width) * sizeof(float));
    put_input(t, out, i, scratch);
}

static void norm_task(void *context, int64_t begin, int64_t end, int worker)
{
    const cpu_task *t = context;
    const kernel_table *k = t->d->kernels;
    const device_value *out = cpu_value(t, t->op->u.norm.out);
    const float *w = cpu_at(t->d, t->op->u.norm.norm);
    float *scratch = cpu_scratch(t, worker);
    for (int64_t i = t->first + begin; i < t->first + end; i++) {
        int64_t row = out->outputs_only ? t->step->outputs[i] : i;
        float *x = cpu_row(t, t->op->u.norm.x, row);
        if (t->op->u.norm.add >= 0)
            add_residual(t, cpu_value(t, t->op->u.norm.add)->outputs_only ? i : row, x, scratch);
        if (t->op->u.norm.layer)
            k->layer_norm(scratch, x, w, cpu_at(t->d, t->op->u.norm.norm_bias), out->width,
                          t->op->u.norm.eps);
        else if (out->needs == DEVICE_NEEDS_Q8 && out->width % KERNEL_UNIT == 0 &&
                 out->format == DEVICE_INPUT && !t->op->u.norm.replace) {
            k->rms_norm_quantise(cpu_input_q8(t, out, i), x, w, out->width, t->op->u.norm.eps);
            continue;
        } else
            k->rms_norm(scratch, x, w, out->width, t->op->u.norm.eps);
        put_normed(t, out, i, x, scratch);
    }
}

static void run_norm(cpu_task *t)
{
    const device_step *s = t->step;
    if (t->op->u.norm.divided) {
        bool outputs = cpu_value(t, t->op->u.norm.out)->outputs_only;
        t->first = outputs ? s->output_begin : s->row_begin;
        t->rows = (outputs ? s->output_end : s->row_end) - t->first;
    }
    cpu_dispatch(t, norm_task, t->rows, 1);
}

/* ---- products ------------------------------------------------------------------------------------------------------ */

static kernel_product product_of(const cpu_task *t, const kernel_matrix *w, int input)
{
    const device_value *in = cpu_value(t, input);
    bool q8 = w->type->quantised && !t->d->exact;
    int64_t padded = cpu_padded(in->width);
    return (kernel_product){
        .w = w,
        .output = KERNEL_F32,
        .exact = t->d->exact,
        .n_tokens = t->rows,
        .x = q8 ? (const void *)cpu_input_q8(t, in, 0) : (const void *)cpu_input_f32(t, in, 0),
        .x_bytes = q8 ? kernel_act_bytes(in->width) : (uint64_t)padded * sizeof(float),
    };
}

static void add_bias(const cpu_task *t, const kernel_product *p, const float *bias, int64_t begin,
                     int64_t end)
{
    end = BASE_MIN(end, p->w->rows);
    for (int64_t i = 0; i < p->n_tokens; i++) {
        float *y = (float *)p->dst + i * p->dst_stride + begin;
        t->d->kernels->add(y, y, bias + begin, end - begin);
    }
}

static void product_part(const cpu_task *t, int part, int64_t begin, int64_t end)
{
    const device_value *out = cpu_value(t, t->op->u.product.out[part]);
    kernel_product p = product_of(t, &t->matrix[part], t->op->u.product.input);
    if (t->op->u.product.leaf > 0) {
        p.output = out->format == DEVICE_F64 ? KERNEL_SUMS : KERNEL_SUMS_F32;
        p.leaf = t->op->u.product.leaf;
    }
    p.dst = cpu_at(t->d, out->at);
    p.dst_stride = out->width;
    if (!kernel_multiply(t->d->kernels, &p, begin, end))
        atomic_store_explicit(&t->d->out_of_range, true, memory_order_relaxed);
    const float *bias = cpu_at(t->d, t->op->u.product.bias[part]);
    if (bias != NULL)
        add_bias(t, &p, bias, begin * KERNEL_TILE_ROWS, end * KERNEL_TILE_ROWS);
}

/* Strips of all parts are counted through. */
static void product_task(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const cpu_task *t = context;
    int64_t first = 0;
    for (int part = 0; part < t->op->u.product.n_parts && first < end; part++) {
        int64_t strips = kernel_strips(t->matrix[part].rows);
        int64_t from = BASE_MAX(begin - first, 0), to = BASE_MIN(end - first, strips);
        if (from < to)
            product_part(t, part, from, to);
        first += strips;
    }
}

static void run_product(cpu_task *t)
{
    int64_t strips = 0;
    for (int part = 0; part < t->op->u.product.n_parts; part++)
        strips += kernel_strips(t->matrix[part].rows);
    dispatch_rows(t, product_task, strips, 4);
}

/* ---- gated ------------------------------------------------------------------------------------- */

/* A view of n blocks of 32 rows from `unit` on: each becomes one block of columns of the output. */
static kernel_matrix units_of(const kernel_matrix *w, int64_t unit, int64_t n)
{
    kernel_matrix m = *w;
    m.tiles = (const char *)w->tiles + (uint64_t)(2 * unit) * w->strip_bytes;
    m.rows = BASE_MIN(w->rows - unit * KERNEL_UNIT, n * KERNEL_UNIT);
    return m;
}

/* n columns (whole blocks, but for the last of the matrix) from `unit` on, of one row. */
static void gated_row(const cpu_task *t, int64_t row, int64_t unit, float *gate, const float *up,
                      int64_t n)
{
    const kernel_table *k = t->d->kernels;
    const device_value *out = cpu_value(t, t->op->u.gated.out);
    bool silu = t->op->u.gated.function == DEVICE_GATE_SILU;
    int64_t padded = cpu_padded(n);
    kernel_act *act = cpu_input_q8(t, out, row) + unit;
    if (silu && n == padded && out->needs == DEVICE_NEEDS_Q8) {
        k->silu_multiply_quantise(act, gate, up, n);
        return;
    }
    (silu ? k->silu_multiply : k->gelu_multiply)(gate, gate, up, n);
    memset(gate + n, 0, (size_t)(padded - n) * sizeof(float));
    if (out->needs & DEVICE_NEEDS_F32)
        memcpy(cpu_input_f32(t, out, row) + unit * KERNEL_UNIT, gate,
               (size_t)padded * sizeof(float));
    if (out->needs & DEVICE_NEEDS_Q8)
        k->quantise(act, gate, padded);
}

/* Units [unit, unit + n) for n_rows rows from `first` on. */
static void gated_block(const cpu_task *t, float *scratch, int64_t unit, int64_t n, int64_t first,
                        int64_t n_rows)
{
    int64_t stride = n * KERNEL_UNIT;
    float *gate = scratch, *up = gate + n_rows * stride;
    kernel_matrix w[2] = {units_of(&t->matrix[0], unit, n), units_of(&t->matrix[1], unit, n)};
    for (int i = 0; i < 2; i++) {
        kernel_product p = product_of(t, &w[i], t->op->u.gated.input);
        p.x = (const char *)p.x + (uint64_t)first * p.x_bytes;
        p.n_tokens = n_rows;
        p.dst = i == 0 ? gate : up;
        p.dst_stride = stride;
        kernel_multiply(t->d->kernels, &p, 0, kernel_strips(w[i].rows));
    }
    for (int64_t i = 0; i < n_rows; i++)
        gated_row(t, first + i, unit, gate + i * stride, up + i * stride, w[0].rows);
}

/* As many units at a time as the scratch holds for these tokens: few tokens want long runs of memory. Many are met in blocks, by no more units
 * than stay in the second cache meanwhile (1 MB). */
static void gated_task(void *context, int64_t begin, int64_t end, int worker)
{
    const cpu_task *t = context;
    int64_t block = BASE_MIN(t->rows, t->matrix[0].type->quantised && !t->d->exact ? 64 : 96);
    int64_t most = BASE_MAX(t->p->limits.n_tokens / block, 1);
    if (block < t->rows)
        most =
            BASE_MIN(most, BASE_MAX((1 << 18) / BASE_MAX((int64_t)t->matrix[0].strip_bytes, 1), 1));
    for (int64_t unit = begin; unit < end; unit += most)
        for (int64_t first = 0; first < t->rows; first += block)
            gated_block(t, cpu_scratch(t, worker), unit, BASE_MIN(most, end - unit), first,
                        BASE_MIN(block, t->rows - first));
}

static void run_gated(cpu_task *t)
{
    int64_t units = cpu_padded(t->matrix[0].rows) / KERNEL_UNIT;
    dispatch_rows(t, gated_task, units, 2);
}

/* ---- gelu ---------------------------------------------------------------------------------------------------------- */

static void gelu_task(void *context, int64_t begin, int64_t end, int worker)
{
    const cpu_task *t = context;
    const device_value *out = cpu_value(t, t->op->u.gelu.out);
    float *scratch = cpu_scratch(t, worker);
    memset(scratch + out->width, 0, (size_t)(cpu_padded(out->width) - out->width) * sizeof(float));
    for (int64_t row = begin; row < end; row++) {
        t->d->kernels->gelu(scratch, cpu_row(t, t->op->u.gelu.x, row), out->width);
        put_input(t, out, row, scratch);
    }
}

static void run_gelu(cpu_task *t)
{
    cpu_dispatch(t, gelu_task, t->rows, 4);
}

/* ---- decay --------------------------------------------------------------------------------------------------------- */

/* Columns [begin, end) of the state of every run, tokens in order. */
static void decay_task(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const cpu_task *t = context;
    const float *decay = cpu_at(t->d, t->op->u.decay.decay);
    for (int32_t r = 0; r < t->step->n_runs; r++) {
        const device_run *run = &t->step->runs[r];
        char *slots = cpu_at(t->d, t->op->u.decay.state);
        float *state =
            (float *)(slots +
                      (uint64_t)run->slot[t->op->u.decay.state_class] * t->op->u.decay.slot_bytes +
                      t->op->u.decay.offset);
        for (int64_t i = begin; i < end; i++) {
            float s = run->position == 0 ? 0.0f : state[i];
            for (int32_t n = 0; n < run->n_tokens; n++) {
                s = __builtin_fmaf(s, decay[i], cpu_row(t, t->op->u.decay.x, run->first + n)[i]);
                cpu_row(t, t->op->u.decay.out, run->first + n)[i] = s;
            }
            state[i] = s;
        }
    }
}

static void run_decay(cpu_task *t)
{
    int64_t width = cpu_value(t, t->op->u.decay.x)->width;
    cpu_dispatch(t, decay_task, width, 64);
}

/* ---- zero ---------------------------------------------------------------------------------------------------------- */

static void run_zero(cpu_task *t)
{
    const device_value *v = cpu_value(t, t->op->u.zero.value);
    memset(cpu_at(t->d, v->at), 0, (size_t)(t->rows * v->width) * sizeof(double));
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

void (*const cpu_run_op[])(cpu_task *t) = {
    [DEVICE_OP_BEGIN] = run_begin,   [DEVICE_OP_NORM] = run_norm,
    [DEVICE_OP_INPUT] = run_input,   [DEVICE_OP_PRODUCT] = run_product,
    [DEVICE_OP_GATED] = run_gated,   [DEVICE_OP_GELU] = run_gelu,
    [DEVICE_OP_KEYS] = cpu_run_keys, [DEVICE_OP_ATTENTION] = cpu_run_attention,
    [DEVICE_OP_DECAY] = run_decay,   [DEVICE_OP_ZERO] = run_zero,
    [DEVICE_OP_SUM] = NULL, /* the graph's: they go over ranks */
    [DEVICE_OP_GATHER] = NULL,
};

uint64_t cpu_scratch_need(const struct device_program *p)
{
    int64_t floats = 2 * KERNEL_UNIT * (int64_t)p->limits.n_tokens;
    for (int i = 0; i < p->n_values; i++)
        floats = BASE_MAX(floats, cpu_padded(p->values[i].width));
    return ((uint64_t)floats * sizeof(float) + 255) & ~(uint64_t)255;
}
