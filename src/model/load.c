/*
 * Loading: plan everything, say what it takes, then read every byte of the shard's tensors once, straight from the mapping into the
 * device's layout.
 *
 * Buffers come in a fixed order, and devices number them from 0: weights, one pool a class of state, scratch. So ops can be built and
 * everything can be counted before anything is allocated.
 */
#include "model/inside.h"

#include "os/os.h"

#include <string.h>

enum { BUFFER_WEIGHTS, BUFFER_POOLS };
enum { SLICE_BYTES = 8 << 20 }; /* of the file, between two looks at the progress */

/* A load under way: the plan and the model that it fills. */
typedef struct loading {
    const file_model *file;
    model_plan plan;
    model *m;
    uint64_t frequencies_at[MODEL_MAX_ROTARIES]; /* in the weights' buffer */
    double factor[MODEL_MAX_ROTARIES];
    uint64_t done_bytes;
} loading;

/* ---- options ------------------------------------------------------------------------------------------------------- */

static status check_options(model_options *o, const model_config *c, const char *path, err *e)
{
    if (o->context <= 0)
        o->context = c->context > 0 ? BASE_MIN(c->context, 32768) : 4096;
    if (o->context > INT32_MAX / 2)
        return err_set(e, STATUS_INVALID, "%s: a context of %lld", path, (long long)o->context);
    if (c->n_ropes == 0 || c->both_ways) /* no position is known beyond */
        o->context = BASE_MIN(o->context, c->context);
    if (o->state_tokens == 0)
        o->state_tokens = (uint64_t)o->context;
    if (o->n_sequences <= 0)
        o->n_sequences = 8;
    if (o->max_tokens <= 0)
        o->max_tokens = 256;
    if (o->max_outputs <= 0)
        o->max_outputs = BASE_MAX(o->n_sequences, 8);
    if (c->both_ways)
        o->max_tokens = BASE_MAX(o->max_tokens, (int)o->context);
    if (c->pooling != MODEL_POOLING_NONE && o->exchange.gather != NULL)
        return err_set(e, STATUS_UNSUPPORTED, "%s: embedding models are not cut over ranks", path);
    if (c->pooling != MODEL_POOLING_NONE)
        o->max_outputs = o->max_tokens;
    if (o->n_sequences > 1 << 16 || o->max_tokens > 1 << 16 || o->max_outputs > 1 << 16)
        return err_set(e, STATUS_INVALID, "%s: more than 65536 sequences, tokens or outputs a step",
                       path);
    if (o->exact)
        o->kv = MODEL_KV_F32;
    else if (o->kv != MODEL_KV_F16 && o->kv != MODEL_KV_Q8_0)
        return err_set(e, STATUS_UNSUPPORTED,
                       "%s: keys and values are f16 or q8_0; f32 is for exact only", path);
    return STATUS_OK;
}

static status open_device(loading *l, err *e)
{
    model *m = l->m;
    const device_ops *ops = device_find(m->options.device);
    if (ops == NULL)
        return err_set(e, STATUS_INVALID, "device \"%s\" is not known (cpu and cpu_copy are)",
                       m->options.device);
    m->options.device = ops->name;
    const kernel_table *kernels;
    status s = kernel_select(&kernels, os_cpu_features(), m->options.isa, e);
    if (s != STATUS_OK)
        return s;
    m->kernels = kernels;
    m->isa = m->options.isa = kernels->name;
    bool q8 = m->options.kv == MODEL_KV_Q8_0;
    m->numerics = m->options.exact ? "reference/1"
                  : q8             ? KERNEL_NUMERICS "+kv-q8_0"
                                   : KERNEL_NUMERICS;
    device_options o = {
        .n_threads = m->options.n_threads,
        .kernels = kernels,
        .kv = q8 ? KERNEL_KV_Q8_0 : KERNEL_KV_F16,
        .exact = m->options.exact,
        .time_ops = m->options.time_ops,
    };
    s = ops->open(&m->device, &o, e);
    if (s == STATUS_OK)
        m->options.n_threads = ops->threads(m->device);
    return s;
}

/* ---- places -------------------------------------------------------------------------------------------------------- */

static bool take(uint64_t *end, uint64_t bytes, uint64_t *out_at)
{
    *out_at = *end;
    return checked_add(*end, bytes, end) && checked_align(*end, 64, end);
}

static status place_weight(loading *l, model_weight *w, uint64_t *end, err *e)
{
    if (w->row == NULL)
        return STATUS_OK;
    uint64_t bytes = (uint64_t)w->device.columns * sizeof(float);
    if (!(w->row->flags & WEIGHT_VECTOR))
        bytes = l->m->device->ops->weight_bytes(l->m->device, &w->device);
    w->device.at.buffer = BUFFER_WEIGHTS;
    if (bytes == 0 || !take(end, bytes, &w->device.at.offset))
        return err_set(e, STATUS_UNSUPPORTED, "%s: %.*s: %lld x %lld of %s does not fit the device",
                       l->file->path, (int)w->tensor->name.length, w->tensor->name.data,
                       (long long)w->device.rows, (long long)w->device.columns,
                       w->device.type->name);
    return STATUS_OK;
}

static status place_weights(loading *l, err *e)
{
    const model_config *c = &l->plan.config;
    model_weights *w = &l->plan.weights;
    uint64_t end = 0;
    status s = STATUS_OK;
    for (int id = 0; id < W_LAYER && s == STATUS_OK; id++)
        s = place_weight(l, &w->global[id], &end, e);
    for (int64_t layer = 0; layer < c->L; layer++)
        for (int id = 0; id < W_IDS - W_LAYER && s == STATUS_OK; id++)
            s = place_weight(l, &w->layer[layer][id], &end, e);
    for (int i = 0; i < c->n_ropes && s == STATUS_OK; i++)
        if (!take(&end, (uint64_t)(c->rope[i].width / 2) * sizeof(double), &l->frequencies_at[i]))
            s = err_set(e, STATUS_CORRUPT, "%s: the weights are too large", l->file->path);
    l->m->used.weight_bytes = end;
    return s;
}

/* Pages of a class when the caller does not say. */
static int64_t default_pages(const model_options *o, const model_state_class *c)
{
    int64_t full = (int64_t)((o->state_tokens + KERNEL_RANGE - 1) / KERNEL_RANGE) + o->n_sequences;
    if (c->kind == MODEL_STATE_CONSTANT)
        return 4 * (int64_t)o->n_sequences;
    if (c->kind != MODEL_STATE_WINDOWED)
        return full;
    int64_t each = ((int64_t)c->window + o->max_tokens) / KERNEL_RANGE + 2;
    return BASE_MIN(full, 2 * each * o->n_sequences);
}

static status place_pools(loading *l, err *e)
{
    const model_config *c = &l->plan.config;
    model *m = l->m;
    m->n_classes = l->plan.n_classes;
    int64_t n_kv = l->plan.share.kv_end - l->plan.share.kv_begin;
    for (int i = 0; i < l->plan.n_classes; i++) {
        model_pool *p = &l->plan.pools[i];
        p->layer_bytes = p->info.kind == MODEL_STATE_CONSTANT
                             ? (uint64_t)c->D * sizeof(float)
                             : m->device->ops->cache_bytes(m->device, n_kv, c->dh);
        if (n_kv == 0 && p->info.kind != MODEL_STATE_CONSTANT)
            p->layer_bytes = 64; /* no heads here: pages without content, with the same ids */
        if (p->layer_bytes == 0)
            return err_set(e, STATUS_UNSUPPORTED, "%s: heads of %lld do not fit the device",
                           l->file->path, (long long)c->dh);
        int64_t n = m->options.n_pages[i] > 0 ? m->options.n_pages[i]
                                              : default_pages(&m->options, &p->info);
        uint64_t bytes;
        if (n > INT32_MAX ||
            !checked_mul(p->layer_bytes, (uint64_t)BASE_MAX(p->info.n_layers, 1),
                         &p->info.page_bytes) ||
            !checked_mul(p->info.page_bytes, (uint64_t)n, &bytes) ||
            !checked_add(m->used.state_bytes, bytes, &m->used.state_bytes))
            return err_set(e, STATUS_INVALID, "%s: %lld pages of state are too many", l->file->path,
                           (long long)n);
        p->info.n_pages = m->options.n_pages[i] = (int)n;
        p->at = (device_ref){BUFFER_POOLS + i, 0};
        m->pools[i] = *p;
    }
    return STATUS_OK;
}

/* The most that a step can hold. */
static status set_limits(loading *l, err *e)
{
    model *m = l->m;
    int64_t paged = 0;
    for (int i = 0; i < m->n_classes; i++)
        paged += m->pools[i].info.page_tokens > 0;
    int64_t pages =
        paged * m->options.n_sequences * ((m->options.context + KERNEL_RANGE - 1) / KERNEL_RANGE);
    if (pages > INT32_MAX)
        return err_set(e, STATUS_INVALID, "%s: %d sequences of %lld positions are too many",
                       l->file->path, m->options.n_sequences, (long long)m->options.context);
    m->limits = (device_limits){
        .n_tokens = m->options.max_tokens,
        .n_runs = m->options.n_sequences,
        .n_outputs = m->options.max_outputs,
        .n_pages = (int32_t)pages,
    };
    return STATUS_OK;
}

static status build(loading *l, err *e)
{
    model *m = l->m;
    status s = graph_create(&m->graph, m->device, &m->limits, e);
    if (s != STATUS_OK)
        return s;
    model_builder b = {
        .g = m->graph,
        .config = &l->plan.config,
        .share = &l->plan.share,
        .device = m->device,
        .weights = &l->plan.weights,
        .pools = m->pools,
        .class_of = l->plan.class_of,
        .index_in = l->plan.index_in,
        .decay_class = l->plan.decay_class,
        .decay_index = l->plan.decay_index,
    };
    for (int i = 0; i < MODEL_MAX_ROTARIES; i++) {
        b.frequencies[i] = (device_ref){BUFFER_WEIGHTS, l->frequencies_at[i]};
        b.rotary_factor[i] = (float)l->factor[i];
    }
    s = l->plan.family->build(&b, e);
    if (s != STATUS_OK)
        return s;
    m->logits = b.logits;
    m->received = b.received;
    m->sent = b.sent;
    m->share = l->plan.share;
    graph_set_sum(m->graph, m->options.exchange.sum, m->options.exchange.context);
    return graph_plan(m->graph, BUFFER_POOLS + m->n_classes, &m->used.scratch_bytes, e);
}

/* ---- values that come from weights but are not uploaded as they are -------------------------------------------------- */

/* A vector tensor as floats, into memory of the caller: columns floats. */
static void read_vector(const model_weight *w, bool gguf, float *out)
{
    uint64_t skip = kernel_row_bytes(w->device.type, w->first_column);
    kernel_dequantise(w->device.type, out, w->tensor->data + skip, w->device.columns);
    if ((w->row->flags & WEIGHT_PLUS_ONE) && !gguf)
        for (int64_t i = 0; i < w->device.columns; i++)
            out[i] += 1.0f;
}

/* Frequencies of all rotaries; with divisors from the file where there are some. out: [MODEL_MAX_ROTARIES][KERNEL_HEAD_MAX / 2]. */
static status frequencies(loading *l, double (*out)[KERNEL_HEAD_MAX / 2], err *e)
{
    const model_config *c = &l->plan.config;
    const model_weight *w = &l->plan.weights.global[W_ROPE_DIVISORS];
    float divisors[KERNEL_HEAD_MAX / 2];
    if (w->row != NULL) {
        read_vector(w, true, divisors);
        for (int64_t i = 0; i < w->device.columns; i++)
            if (!(divisors[i] >= 1e-6f && divisors[i] <= 1e6f))
                return err_set(e, STATUS_CORRUPT, "%s: rope_freqs.weight[%lld] is %g",
                               l->file->path, (long long)i, (double)divisors[i]);
    }
    for (int i = 0; i < c->n_ropes; i++)
        model_rope_frequencies(&c->rope[i], w->row != NULL && i == 0 ? divisors : NULL, out[i],
                               &l->factor[i]);
    return STATUS_OK;
}

/* ---- upload -------------------------------------------------------------------------------------------------------- */

static status report(loading *l, const model_progress *p, uint64_t bytes, err *e)
{
    l->done_bytes += bytes;
    if (p != NULL && p->report != NULL &&
        !p->report(p->context, l->done_bytes, l->m->card->weight_bytes))
        return err_set(e, STATUS_CANCELLED, "%s: loading was cancelled", l->file->path);
    return STATUS_OK;
}

static status upload_vector(loading *l, const model_weight *w, const model_progress *p, err *e)
{
    float *v = base_zalloc((size_t)w->device.columns, sizeof(*v));
    if (v == NULL)
        return err_set(e, STATUS_NO_MEMORY, "%s: no memory for a vector", l->file->path);
    read_vector(w, l->file->format == FILE_GGUF, v);
    status s = l->m->device->ops->write(l->m->device, w->device.at, v,
                                        (uint64_t)w->device.columns * sizeof(float), e);
    base_free(v);
    return s == STATUS_OK ? report(l, p, w->tensor->bytes, e) : s;
}

static status upload_matrix(loading *l, const model_weight *w, const model_progress *p, err *e)
{
    uint64_t row_bytes = kernel_row_bytes(w->device.type, w->file_columns);
    int64_t step = (int64_t)(SLICE_BYTES / row_bytes) / KERNEL_TILE_ROWS * KERNEL_TILE_ROWS;
    step = BASE_MAX(step, KERNEL_TILE_ROWS);
    status s = STATUS_OK;
    for (int64_t row = 0; row < w->device.rows && s == STATUS_OK; row += step) {
        int64_t n = BASE_MIN(step, w->device.rows - row);
        uint64_t offset = (uint64_t)(w->first_row + row) * row_bytes,
                 bytes = (uint64_t)n * row_bytes;
        s = l->m->device->ops->upload(l->m->device, &w->device, w->tensor->data + offset, row_bytes,
                                      row, n, e);
        file_forget(l->file, w->tensor, offset, bytes);
        if (s == STATUS_OK)
            s = report(l, p, bytes, e);
    }
    return s;
}

static status upload(loading *l, const model_weight *w, const model_progress *p, err *e)
{
    if (w->row == NULL)
        return STATUS_OK;
    return w->row->flags & WEIGHT_VECTOR ? upload_vector(l, w, p, e) : upload_matrix(l, w, p, e);
}

static status upload_all(loading *l, double (*frequency)[KERNEL_HEAD_MAX / 2],
                         const model_progress *p, err *e)
{
    const model_config *c = &l->plan.config;
    const device *d = l->m->device;
    status s = STATUS_OK;
    for (int id = 0; id < W_LAYER && s == STATUS_OK; id++)
        s = upload(l, &l->plan.weights.global[id], p, e);
    for (int64_t layer = 0; layer < c->L; layer++)
        for (int id = W_LAYER; id < W_IDS && s == STATUS_OK; id++)
            s = upload(l, weights_get(&l->plan.weights, layer, (weight_id)id), p, e);
    for (int i = 0; i < c->n_ropes && s == STATUS_OK; i++)
        s = d->ops->write(l->m->device, (device_ref){BUFFER_WEIGHTS, l->frequencies_at[i]},
                          frequency[i], (uint64_t)(c->rope[i].width / 2) * sizeof(double), e);
    return s;
}

/* ---- all of it ----------------------------------------------------------------------------------------------------- */

/* Everything but memory: after this used and limits are known. */
static status prepare(loading *l, const file_model *f, const model_options *o,
                      double (*frequency)[KERNEL_HEAD_MAX / 2], err *e)
{
    model *m = l->m;
    l->file = f;
    status s = model_plan_init(&l->plan, f, &o->shard, e);
    if (s != STATUS_OK)
        return s;
    m->options = *o;
    m->config = l->plan.config;
    s = check_options(&m->options, &l->plan.config, f->path, e);
    if (s == STATUS_OK)
        s = open_device(l, e);
    if (s == STATUS_OK)
        s = frequencies(l, frequency, e);
    if (s == STATUS_OK)
        s = place_weights(l, e);
    if (s == STATUS_OK)
        s = place_pools(l, e);
    if (s == STATUS_OK)
        s = set_limits(l, e);
    if (s == STATUS_OK)
        s = build(l, e);
    return s;
}

static status check_memory(const loading *l, err *e)
{
    const model_need *n = &l->m->used;
    uint64_t needed, available = l->m->options.memory_limit;
    if (!checked_add(n->weight_bytes, n->state_bytes, &needed) ||
        !checked_add(needed, n->scratch_bytes, &needed))
        needed = UINT64_MAX;
    if (available == 0) {
        os_memory_info info;
        if (os_memory(&info, NULL) != STATUS_OK)
            return STATUS_OK; /* unknown: let allocation decide */
        available = info.available_bytes;
    }
    if (needed <= available)
        return STATUS_OK;
    char a[32], b[32], c[32], d[32], free_text[32];
    return err_set(e, STATUS_NO_MEMORY,
                   "%s: needs %s (weights %s, state %s, scratch %s), free are %s", l->file->path,
                   base_format_bytes(a, needed), base_format_bytes(b, n->weight_bytes),
                   base_format_bytes(c, n->state_bytes), base_format_bytes(d, n->scratch_bytes),
                   base_format_bytes(free_text, available));
}

static status allocate(loading *l, err *e)
{
    model *m = l->m;
    const device_ops *ops = m->device->ops;
    int32_t buffer;
    status s = ops->alloc(m->device, m->used.weight_bytes, &buffer, e);
    for (int i = 0; i < m->n_classes && s == STATUS_OK; i++)
        s = ops->alloc(m->device, m->pools[i].info.page_bytes * (uint64_t)m->pools[i].info.n_pages,
                       &buffer, e);
    if (s == STATUS_OK)
        s = ops->alloc(m->device, m->used.scratch_bytes, &buffer, e);
    REQUIRE(s != STATUS_OK || buffer == BUFFER_POOLS + m->n_classes);
    if (s != STATUS_OK)
        return s;
    m->ids = base_zalloc((size_t)m->limits.n_tokens, sizeof(*m->ids));
    m->run_of = base_zalloc((size_t)m->limits.n_tokens, sizeof(*m->run_of));
    m->positions = base_zalloc((size_t)m->limits.n_tokens, sizeof(*m->positions));
    m->runs = base_zalloc((size_t)m->limits.n_runs, sizeof(*m->runs));
    m->pages = base_zalloc((size_t)m->limits.n_pages + 1, sizeof(*m->pages));
    m->outputs = base_zalloc((size_t)m->limits.n_outputs, sizeof(*m->outputs));
    if (m->received >= 0 || m->sent >= 0)
        m->stream = base_zalloc((size_t)(m->limits.n_tokens * m->config.D), sizeof(*m->stream));
    bool gathers = m->options.exchange.gather != NULL && m->logits >= 0;
    if (gathers)
        m->slice =
            base_zalloc((size_t)(m->limits.n_outputs * model_n_logits(m)), sizeof(*m->slice));
    if ((gathers && !m->slice) || !m->ids || !m->run_of || !m->positions || !m->runs || !m->pages ||
        !m->outputs || (!m->stream && (m->received >= 0 || m->sent >= 0)))
        return err_set(e, STATUS_NO_MEMORY, "%s: no memory for steps", l->file->path);
    return STATUS_OK;
}

static loading *loading_create(err *e)
{
    loading *l = base_zalloc(1, sizeof(*l));
    model *m = base_zalloc(1, sizeof(*m));
    if (l == NULL || m == NULL) {
        base_free(l);
        base_free(m);
        err_set(e, STATUS_NO_MEMORY, "no memory for a model");
        return NULL;
    }
    l->m = m;
    return l;
}

status model_needs(model_need *out, const file_model *f, const model_options *o, err *e)
{
    double frequency[MODEL_MAX_ROTARIES][KERNEL_HEAD_MAX / 2];
    loading *l = loading_create(e);
    if (l == NULL)
        return STATUS_NO_MEMORY;
    model_options one = *o;
    one.n_threads = 1;
    status s = prepare(l, f, &one, frequency, e);
    if (s == STATUS_OK)
        *out = l->m->used;
    model_plan_fini(&l->plan);
    model_destroy(l->m);
    base_free(l);
    return s;
}

status model_load(model **out, const file_model *f, const model_options *o,
                  const model_progress *progress, err *e)
{
    double frequency[MODEL_MAX_ROTARIES][KERNEL_HEAD_MAX / 2];
    loading *l = loading_create(e);
    if (l == NULL)
        return STATUS_NO_MEMORY;
    status s = prepare(l, f, o, frequency, e);
    if (s == STATUS_OK)
        s = check_memory(l, e);
    if (s == STATUS_OK) /* class exact/1 is proved, not assumed; some milliseconds */
        s = kernel_self_test(l->m->kernels, e);
    if (s == STATUS_OK)
        s = model_card_read(&l->m->card, f, e);
    if (s == STATUS_OK)
        s = allocate(l, e);
    if (s == STATUS_OK)
        s = upload_all(l, frequency, progress, e);
    if (s == STATUS_OK)
        s = graph_compile(l->m->graph, e);
    if (s == STATUS_OK)
        *out = l->m;
    else
        model_destroy(l->m);
    model_plan_fini(&l->plan);
    base_free(l);
    return s;
}

void model_destroy(model *m)
{
    if (m == NULL)
        return;
    graph_destroy(m->graph);
    if (m->device != NULL)
        m->device->ops->close(m->device);
    model_card_destroy(m->card);
    base_free(m->ids);
    base_free(m->run_of);
    base_free(m->positions);
    base_free(m->runs);
    base_free(m->pages);
    base_free(m->outputs);
    base_free(m->stream);
    base_free(m->slice);
    base_free(m);
}
