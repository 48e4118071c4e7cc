/*
 * The builder, the memory plan, what ranks divide among them, and the execution of a shard's program.
 *
 * The plan is first fit over lifetimes: a value lives from the op that writes it first to the last op that touches it, and takes the
 * lowest gap among the values alive then. Programs have a dozen live values, so the quadratic search costs nothing.
 * Deliberately not: a scheduler. Ops run in the order they were added.
 */
#include "graph/graph.h"

#include <string.h>

struct graph {
    device *device; /* borrowed */
    device_limits limits;
    device_value *values;
    int n_values, values_capacity;
    device_op *ops;
    int n_ops, ops_capacity;
    device_program *program; /* owned by the device */
    graph_ranks ranks;
    int64_t widest;           /* of the values that are summed */
    double *room;             /* [limits.n_tokens, widest, rounded up] for what goes over ranks */
    const device_op **end_of; /* [segments] what goes over ranks behind a segment, or NULL */
    /* The step in hand. Not divided: one part, of all rows. */
    device_step step;
    bool divided;
    int parts;
    int32_t row[GRAPH_MOST_RANKS + 1],
        output[GRAPH_MOST_RANKS + 1]; /* where the ranks' rows begin */
    status failed;
    err error;
};

status graph_create(graph **out, device *d, const device_limits *limits, err *e)
{
    graph *g = base_zalloc(1, sizeof(*g));
    if (g == NULL)
        return err_set(e, STATUS_NO_MEMORY, "graph: no memory for a program");
    g->device = d;
    g->limits = *limits;
    *out = g;
    return STATUS_OK;
}

void graph_destroy(graph *g)
{
    if (g == NULL)
        return;
    if (g->program != NULL)
        g->device->ops->discard(g->device, g->program);
    base_free(g->values);
    base_free(g->ops);
    base_free(g->room);
    base_free(g->end_of);
    base_free(g);
}

static void fail(graph *g, status code, const char *what, int number)
{
    if (g->failed == STATUS_OK)
        g->failed = err_set(&g->error, code, "graph: %s (op or value %d)", what, number);
}

/* Makes room for one more element of `size` bytes. */
static bool grow(graph *g, void **array, int n, int *capacity, size_t size)
{
    if (n < *capacity)
        return true;
    int larger = *capacity == 0 ? 64 : *capacity * 2;
    void *p = base_realloc(*array, (size_t)larger * size);
    if (p == NULL) {
        fail(g, STATUS_NO_MEMORY, "no memory for a program", n);
        return false;
    }
    *array = p;
    *capacity = larger;
    return true;
}

int graph_value(graph *g, device_format format, int64_t width, bool outputs_only)
{
    if (!grow(g, (void **)&g->values, g->n_values, &g->values_capacity, sizeof(*g->values)))
        return 0;
    if (width <= 0)
        fail(g, STATUS_INTERNAL, "a value without width", g->n_values);
    g->values[g->n_values] = (device_value){
        .format = format, .outputs_only = outputs_only, .width = width, .at = DEVICE_NOWHERE};
    return g->n_values++;
}

int graph_n_ops(const graph *g)
{
    return g->n_ops;
}

const device_op *graph_op(const graph *g, int i)
{
    return &g->ops[i];
}

int graph_n_values(const graph *g)
{
    return g->n_values;
}

const device_value *graph_get_value(const graph *g, int v)
{
    return &g->values[v];
}

/* ---- which values an op touches ----------------------------------------------------------------------------------- */

enum { MAX_TOUCHED = 8 };

/* Fills out with the numbers of all values that op reads or writes. */
static int touched(const device_op *op, int out[MAX_TOUCHED])
{
    int n = 0;
    switch (op->kind) {
    case DEVICE_OP_BEGIN:
        out[n++] = op->u.begin.x;
        out[n++] = op->u.begin.received;
        out[n++] = op->u.begin.shared ? op->u.begin.partial : -1;
        for (int i = 0; i < DEVICE_ROTARIES; i++)
            out[n++] = op->u.begin.rotary[i];
        break;
    case DEVICE_OP_INPUT:
        out[n++] = op->u.input.x;
        out[n++] = op->u.input.out;
        break;
    case DEVICE_OP_NORM:
        out[n++] = op->u.norm.x;
        out[n++] = op->u.norm.add;
        out[n++] = op->u.norm.out;
        break;
    case DEVICE_OP_PRODUCT:
        out[n++] = op->u.product.input;
        for (int i = 0; i < op->u.product.n_parts; i++)
            out[n++] = op->u.product.out[i];
        break;
    case DEVICE_OP_GATED:
        out[n++] = op->u.gated.input;
        out[n++] = op->u.gated.out;
        break;
    case DEVICE_OP_GELU:
        out[n++] = op->u.gelu.x;
        out[n++] = op->u.gelu.out;
        break;
    case DEVICE_OP_KEYS:
        out[n++] = op->u.keys.q;
        out[n++] = op->u.keys.k;
        out[n++] = op->u.keys.v;
        out[n++] = op->u.keys.rotary;
        break;
    case DEVICE_OP_ATTENTION:
        out[n++] = op->u.attention.q;
        out[n++] = op->u.attention.out;
        break;
    case DEVICE_OP_DECAY:
        out[n++] = op->u.decay.x;
        out[n++] = op->u.decay.out;
        break;
    case DEVICE_OP_ZERO:
        out[n++] = op->u.zero.value;
        break;
    case DEVICE_OP_SUM:
        out[n++] = op->u.sum.value;
        break;
    case DEVICE_OP_GATHER:
        out[n++] = op->u.gather.value;
        break;
    case DEVICE_OP_KINDS:
        break;
    }
    return n;
}

/* ---- shapes -------------------------------------------------------------------------------------------------------- */

static bool is_value(const graph *g, int v, device_format format, int64_t width)
{
    return v >= 0 && v < g->n_values && g->values[v].format == format &&
           g->values[v].width == width;
}

/* −1: there is no such value. */
static int64_t width_of(const graph *g, int v)
{
    return v >= 0 && v < g->n_values ? g->values[v].width : -1;
}

/* Whether two values have the same rows. */
static bool same_rows(const graph *g, int a, int b)
{
    return g->values[a].outputs_only == g->values[b].outputs_only;
}

void graph_need(graph *g, int v, const kernel_type *type)
{
    g->values[v].needs |= g->device->ops->needs(g->device, type);
}

static bool check_product(graph *g, const device_op *op)
{
    if (op->u.product.n_parts < 1 || op->u.product.n_parts > DEVICE_PARTS)
        return false;
    for (int i = 0; i < op->u.product.n_parts; i++) {
        const device_weight *w = &op->u.product.weight[i];
        if (!is_value(g, op->u.product.input, DEVICE_INPUT, w->columns) ||
            (!is_value(g, op->u.product.out[i], DEVICE_F32, w->rows) &&
             (op->u.product.leaf == 0 || !is_value(g, op->u.product.out[i], DEVICE_F64, w->rows))))
            return false;
        if (!same_rows(g, op->u.product.input, op->u.product.out[i]))
            return false;
        graph_need(g, op->u.product.input, w->type);
    }
    return true;
}

static bool check_begin(const graph *g, const device_op *op)
{
    int64_t width = op->u.begin.embedding.columns;
    return op->u.begin.x < 0 ||
           (is_value(g, op->u.begin.x, DEVICE_F32, width) &&
            (!op->u.begin.shared || is_value(g, op->u.begin.partial, DEVICE_F64, width)));
}

static bool check_input(const graph *g, const device_op *op)
{
    int64_t width = width_of(g, op->u.input.x);
    return is_value(g, op->u.input.x, DEVICE_F32, width) &&
           is_value(g, op->u.input.out, DEVICE_INPUT, width);
}

static bool check_norm(const graph *g, const device_op *op)
{
    int64_t width = width_of(g, op->u.norm.x);
    return is_value(g, op->u.norm.x, DEVICE_F32, width) &&
           (op->u.norm.add < 0 || is_value(g, op->u.norm.add, DEVICE_F32, width) ||
            is_value(g, op->u.norm.add, DEVICE_F64, width)) &&
           (is_value(g, op->u.norm.out, DEVICE_INPUT, width) ||
            is_value(g, op->u.norm.out, DEVICE_F32, width)) &&
           (op->u.norm.add < 0 || !g->values[op->u.norm.add].outputs_only ||
            g->values[op->u.norm.out].outputs_only);
}

static bool check_gated(graph *g, const device_op *op)
{
    if (!is_value(g, op->u.gated.input, DEVICE_INPUT, op->u.gated.gate.columns) ||
        !is_value(g, op->u.gated.out, DEVICE_INPUT, op->u.gated.gate.rows) ||
        !same_rows(g, op->u.gated.input, op->u.gated.out) ||
        op->u.gated.gate.rows != op->u.gated.up.rows ||
        op->u.gated.gate.columns != op->u.gated.up.columns)
        return false;
    graph_need(g, op->u.gated.input, op->u.gated.gate.type);
    graph_need(g, op->u.gated.input, op->u.gated.up.type);
    return true;
}

static bool check_gelu(const graph *g, const device_op *op)
{
    int64_t width = width_of(g, op->u.gelu.x);
    return is_value(g, op->u.gelu.x, DEVICE_F32, width) &&
           is_value(g, op->u.gelu.out, DEVICE_INPUT, width) &&
           same_rows(g, op->u.gelu.x, op->u.gelu.out);
}

static bool check_keys(const graph *g, const device_op *op)
{
    int64_t dh = op->u.keys.head_dim, kv = op->u.keys.n_kv_heads * dh;
    return is_value(g, op->u.keys.q, DEVICE_F32, op->u.keys.n_heads * dh) &&
           is_value(g, op->u.keys.k, DEVICE_F32, kv) && is_value(g, op->u.keys.v, DEVICE_F32, kv) &&
           (op->u.keys.rotary < 0 || (op->u.keys.rotary < g->n_values &&
                                      g->values[op->u.keys.rotary].format == DEVICE_ROTARY &&
                                      g->values[op->u.keys.rotary].width <= dh));
}

static bool check_attention(graph *g, const device_op *op)
{
    int64_t width = op->u.attention.n_heads * op->u.attention.head_dim;
    if (op->u.attention.n_kv_heads <= 0 || op->u.attention.group <= 0 ||
        op->u.attention.group_skip < 0 ||
        op->u.attention.group_skip + op->u.attention.n_heads >
            op->u.attention.group * op->u.attention.n_kv_heads ||
        !is_value(g, op->u.attention.q, DEVICE_F32, width) ||
        !is_value(g, op->u.attention.out, DEVICE_INPUT, width))
        return false;
    g->values[op->u.attention.out].needs |= DEVICE_NEEDS_F32; /* where heads are put together */
    return true;
}

static bool check_decay(const graph *g, const device_op *op)
{
    int64_t width = width_of(g, op->u.decay.x);
    return is_value(g, op->u.decay.x, DEVICE_F32, width) &&
           is_value(g, op->u.decay.out, DEVICE_F32, width);
}

/* Whether its values are there and have its shapes; notes what products need of their inputs. */
static bool check_op(graph *g, const device_op *op)
{
    switch (op->kind) {
    case DEVICE_OP_BEGIN:
        return check_begin(g, op);
    case DEVICE_OP_INPUT:
        return check_input(g, op);
    case DEVICE_OP_NORM:
        return check_norm(g, op);
    case DEVICE_OP_PRODUCT:
        return check_product(g, op);
    case DEVICE_OP_GATED:
        return check_gated(g, op);
    case DEVICE_OP_GELU:
        return check_gelu(g, op);
    case DEVICE_OP_KEYS:
        return check_keys(g, op);
    case DEVICE_OP_ATTENTION:
        return check_attention(g, op);
    case DEVICE_OP_DECAY:
        return check_decay(g, op);
    case DEVICE_OP_ZERO:
    case DEVICE_OP_SUM:
        return is_value(g, op->u.sum.value, DEVICE_F64, width_of(g, op->u.sum.value));
    case DEVICE_OP_GATHER: /* ours, not the builder's */
    case DEVICE_OP_KINDS:
        break;
    }
    return false;
}

void graph_add(graph *g, const device_op *op)
{
    if (g->failed != STATUS_OK ||
        !grow(g, (void **)&g->ops, g->n_ops, &g->ops_capacity, sizeof(*g->ops)))
        return;
    if (!check_op(g, op)) {
        fail(g, STATUS_INTERNAL, device_op_name(op->kind), g->n_ops);
        return;
    }
    g->ops[g->n_ops++] = *op;
}

/* ---- rows divided among ranks -------------------------------------------------------------------------------------- */

static void append(graph *g, const device_op *op)
{
    if (grow(g, (void **)&g->ops, g->n_ops, &g->ops_capacity, sizeof(*g->ops)))
        g->ops[g->n_ops++] = *op;
}

static void append_gather(graph *g, int value)
{
    device_op op = {.kind = DEVICE_OP_GATHER, .layer = -1};
    op.u.gather.value = value;
    append(g, &op);
}

static bool touches(const device_op *op, int value)
{
    int list[MAX_TOUCHED];
    int n = touched(op, list);
    for (int i = 0; i < n; i++)
        if (list[i] == value)
            return true;
    return false;
}

/* Whether op is a norm that adds what the op before it sums. */
static bool adds_sum(const device_op *before, const device_op *op)
{
    return op->kind == DEVICE_OP_NORM && before->kind == DEVICE_OP_SUM &&
           op->u.norm.add == before->u.sum.value;
}

/* A norm that adds a sum may do the rows of its rank only; its result is then gathered, and so is the stream x where something but such a
 * norm reads it. Every rank's program has the same sums and norms, so all divide and gather alike. */
static void divide_rows(graph *g)
{
    device_op *ops = g->ops;
    int n = g->n_ops, parted = -1; /* the stream of which only own rows are there */
    bool outputs_only = false;
    g->ops = NULL;
    g->n_ops = g->ops_capacity = 0;
    for (int i = 0; i < n && g->failed == STATUS_OK; i++) {
        device_op op = ops[i];
        bool divided = i > 0 && adds_sum(&ops[i - 1], &op);
        if (op.kind == DEVICE_OP_SUM)
            op.u.sum.divided = i + 1 < n && adds_sum(&op, &ops[i + 1]);
        if (parted >= 0 && touches(&op, parted) && (!divided || op.u.norm.x != parted)) {
            append_gather(g, parted);
            parted = -1;
        }
        if (divided)
            op.u.norm.divided = true;
        append(g, &op);
        if (!divided)
            continue;
        append_gather(g, op.u.norm.out);
        parted = op.u.norm.x;
        outputs_only = g->values[op.u.norm.out].outputs_only;
    }
    if (parted >= 0 && !outputs_only)
        append_gather(g, parted); /* the caller reads it */
    base_free(ops);
}

static int32_t row_border(int32_t n_rows, int rank, int n_ranks)
{
    return (int32_t)((int64_t)n_rows * rank / n_ranks);
}

/* Outputs among rows before `row`. */
static int32_t outputs_before(const device_step *s, int32_t row)
{
    int32_t i = 0;
    while (i < s->n_outputs && s->outputs[i] < row)
        i++;
    return i;
}

/* The step with our rows in it: all of them where it is not divided. */
static const device_step *take_rows(graph *g, const device_step *step)
{
    const graph_ranks *r = &g->ranks;
    g->divided = r->divides && r->n > 1 && g->widest > 0 &&
                 r->divides(r->context, step->n_tokens, g->widest);
    int own = g->divided ? r->own : 0;
    g->parts = g->divided ? r->n : 1;
    REQUIRE(own >= 0 && own < g->parts);
    for (int i = 0; i <= g->parts; i++) {
        g->row[i] = row_border(step->n_tokens, i, g->parts);
        g->output[i] = outputs_before(step, g->row[i]);
    }
    g->step = *step;
    g->step.row_begin = g->row[own];
    g->step.row_end = g->row[own + 1];
    g->step.output_begin = g->output[own];
    g->step.output_end = g->output[own + 1];
    return &g->step;
}

/* ---- the memory plan ----------------------------------------------------------------------------------------------- */

typedef struct span {
    int first, last; /* ops, both included; first −1: never used */
    uint64_t offset, bytes;
} span;

static void lifetimes(const graph *g, span *spans)
{
    for (int v = 0; v < g->n_values; v++) {
        int64_t rows = g->values[v].outputs_only ? g->limits.n_outputs : g->limits.n_tokens;
        uint64_t bytes = g->device->ops->value_bytes(g->device, &g->values[v], rows);
        spans[v] = (span){.first = -1, .bytes = (bytes + 127) & ~(uint64_t)127};
    }
    for (int i = 0; i < g->n_ops; i++) {
        int list[MAX_TOUCHED];
        int n = touched(&g->ops[i], list);
        for (int k = 0; k < n; k++) {
            if (list[k] < 0)
                continue;
            span *s = &spans[list[k]];
            if (s->first < 0)
                s->first = i;
            s->last = i;
        }
    }
    /* What the last op leaves is read by the caller. Rows of logits live to the end anyway: nothing is placed after them. */
}

/* The lowest offset where span v does not meet any of the spans placed before it that live at the same time. */
static uint64_t first_fit(const span *spans, int v)
{
    uint64_t at = 0;
    bool moved = true;
    while (moved) {
        moved = false;
        for (int o = 0; o < v; o++) {
            const span *s = &spans[o];
            if (s->first < 0 || s->last < spans[v].first || s->first > spans[v].last)
                continue;
            if (at < s->offset + s->bytes && s->offset < at + spans[v].bytes) {
                at = s->offset + s->bytes;
                moved = true;
            }
        }
    }
    return at;
}

status graph_plan(graph *g, int32_t buffer, uint64_t *out_scratch_bytes, err *e)
{
    if (g->failed == STATUS_OK && g->ranks.n > 1 && g->ranks.divides)
        divide_rows(g);
    if (g->failed != STATUS_OK) {
        if (e != NULL)
            *e = g->error;
        return g->failed;
    }
    span *spans = base_zalloc((size_t)g->n_values + 1, sizeof(*spans));
    if (spans == NULL)
        return err_set(e, STATUS_NO_MEMORY, "graph: no memory for the plan of %d values",
                       g->n_values);
    lifetimes(g, spans);
    uint64_t end = 0;
    for (int v = 0; v < g->n_values; v++) {
        if (spans[v].first < 0)
            continue;
        spans[v].offset = first_fit(spans, v);
        g->values[v].at = (device_ref){buffer, spans[v].offset};
        end = BASE_MAX(end, spans[v].offset + spans[v].bytes);
    }
    base_free(spans);
    *out_scratch_bytes = end;
    return STATUS_OK;
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

/* What ends every segment, and room for the widest value that goes over ranks. */
static status prepare_ends(graph *g, err *e)
{
    int n = 0, n_segments = g->device->ops->n_segments(g->program);
    g->end_of = base_zalloc((size_t)n_segments, sizeof(*g->end_of));
    for (int i = 0; g->end_of != NULL && i < g->n_ops; i++) {
        const device_op *op = &g->ops[i];
        if (op->kind == DEVICE_OP_SUM)
            g->widest = BASE_MAX(g->widest, g->values[op->u.sum.value].width);
        if (op->kind == DEVICE_OP_SUM || op->kind == DEVICE_OP_GATHER)
            g->end_of[n++] = op;
    }
    if (g->widest > 0) /* rows of inputs are narrower than doubles */
        g->room =
            base_zalloc((size_t)((g->widest + KERNEL_UNIT) * g->limits.n_tokens), sizeof(*g->room));
    if (g->end_of == NULL || (g->widest > 0 && g->room == NULL))
        return err_set(e, STATUS_NO_MEMORY, "graph: no memory for %d sums", n);
    return STATUS_OK;
}

status graph_compile(graph *g, err *e)
{
    status s = g->device->ops->compile(g->device, &g->program, g->values, g->n_values, g->ops,
                                       g->n_ops, &g->limits, e);
    return s == STATUS_OK ? prepare_ends(g, e) : s;
}

void graph_set_ranks(graph *g, const graph_ranks *ranks)
{
    REQUIRE(ranks->n <= GRAPH_MOST_RANKS);
    g->ranks = *ranks;
}

static const int32_t *borders(const graph *g, int value)
{
    return g->values[value].outputs_only ? g->output : g->row;
}

static status exchange_sum(graph *g, bool divided, double *values, const int32_t *border,
                           int64_t width, err *e)
{
    const graph_ranks *r = &g->ranks;
    size_t parts[GRAPH_MOST_RANKS];
    if (!divided)
        return r->sum(r->context, values, border[g->parts] * width, e);
    for (int i = 0; i < r->n; i++)
        parts[i] = (size_t)((border[i + 1] - border[i]) * width);
    return r->scatter(r->context, values, parts, e);
}

/* Through the ranks; where the device has a memory of its own, off it and back. */
static status sum_value(graph *g, const device_op *op, err *e)
{
    const device_ops *ops = g->device->ops;
    const device_value *v = &g->values[op->u.sum.value];
    const int32_t *border = borders(g, op->u.sum.value);
    bool divided = g->divided && op->u.sum.divided;
    uint64_t bytes = (uint64_t)(border[g->parts] * v->width) * sizeof(double);
    if (g->ranks.sum == NULL)
        return err_set(e, STATUS_INTERNAL, "graph: a sum over ranks, and nobody to make it");
    status s = ops->wait(g->device, e);
    if (bytes == 0 || s != STATUS_OK)
        return s;
    double *in_place = ops->host ? ops->host(g->device, v->at, bytes) : NULL;
    if (in_place)
        return exchange_sum(g, divided, in_place, border, v->width, e);
    s = ops->read(g->device, g->room, v->at, bytes, e);
    if (s == STATUS_OK)
        s = exchange_sum(g, divided, g->room, border, v->width, e);
    if (s == STATUS_OK)
        s = ops->write(g->device, v->at, g->room, bytes, e);
    return s;
}

/* Own rows of one place to the others, theirs to us. */
static status gather_place(graph *g, device_ref at, uint64_t row_bytes, const int32_t *border,
                           err *e)
{
    const device_ops *ops = g->device->ops;
    const graph_ranks *r = &g->ranks;
    size_t parts[GRAPH_MOST_RANKS];
    for (int i = 0; i < r->n; i++)
        parts[i] = (size_t)(border[i + 1] - border[i]) * row_bytes;
    uint64_t bytes = (uint64_t)border[r->n] * row_bytes,
             skip = (uint64_t)border[r->own] * row_bytes;
    void *in_place = ops->host ? ops->host(g->device, at, bytes) : NULL;
    if (in_place)
        return r->gather(r->context, in_place, parts, e);
    device_ref own = {at.buffer, at.offset + skip};
    status s = ops->read(g->device, (char *)g->room + skip, own, parts[r->own], e);
    if (s == STATUS_OK)
        s = r->gather(r->context, g->room, parts, e);
    return s == STATUS_OK ? ops->write(g->device, at, g->room, bytes, e) : s;
}

static status gather_value(graph *g, const device_op *op, err *e)
{
    device_ref at[2];
    uint64_t row_bytes[2];
    const device_ops *ops = g->device->ops;
    const int32_t *border = borders(g, op->u.gather.value);
    if (!g->divided || border[g->parts] == 0)
        return STATUS_OK;
    int n = ops->row_places(g->device, &g->values[op->u.gather.value], &g->limits, at, row_bytes);
    status s = ops->wait(g->device, e);
    for (int i = 0; i < n && s == STATUS_OK; i++)
        s = gather_place(g, at[i], row_bytes[i], border, e);
    return s;
}

status graph_enqueue(graph *g, const device_step *step, err *e)
{
    const device_ops *ops = g->device->ops;
    int n = ops->n_segments(g->program);
    status s = STATUS_OK;
    step = take_rows(g, step);
    for (int i = 0; i < n && s == STATUS_OK; i++) {
        s = ops->enqueue(g->device, g->program, i, step, e);
        const device_op *end = g->end_of[i];
        if (s == STATUS_OK && end)
            s = end->kind == DEVICE_OP_SUM ? sum_value(g, end, e) : gather_value(g, end, e);
    }
    return s;
}

status graph_run(graph *g, const device_step *step, err *e)
{
    status s = graph_enqueue(g, step, e);
    status waited = g->device->ops->wait(g->device, s == STATUS_OK ? e : NULL);
    return s != STATUS_OK ? s : waited;
}

status graph_read(graph *g, int value, float *out, int64_t n_rows, err *e)
{
    const device_value *v = &g->values[value];
    REQUIRE(v->format == DEVICE_F32);
    return g->device->ops->read(g->device, out, v->at,
                                (uint64_t)(n_rows * v->width) * sizeof(float), e);
}

status graph_write(graph *g, int value, const float *in, int64_t n_rows, err *e)
{
    const device_value *v = &g->values[value];
    REQUIRE(v->format == DEVICE_F32);
    return g->device->ops->write(g->device, v->at, in,
                                 (uint64_t)(n_rows * v->width) * sizeof(float), e);
}
