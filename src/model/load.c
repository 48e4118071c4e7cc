/*
 * Loading: plan everything, say what it takes, then read the bytes of the shard's tensors once, straight from the mapping into the
 * device's layout: all of them, or beside another epoch of the same model those that it has not (tiles.c).
 *
 * Buffers come in a fixed order (weights, one pool a class of state, scratch) and devices number them ascending, so ops can be built and
 * everything can be counted before anything is allocated. Reading goes on in slices, so that an epoch can run between them.
 */
#include "model/inside.h"

#include "os/os.h"

#include <string.h>

enum { BUFFER_WEIGHTS, BUFFER_POOLS }; /* from loading.first_buffer on */
enum { SLICE_BYTES = 8 << 20 };        /* of the file, between two looks at the progress */

/* A load under way: the plan and the model that it fills. */
struct model_loading {
    const file_model *file;
    model_plan plan;
    model *m, *beside;
    bool paused; /* beside gives up its tiles on the way */
    int32_t first_buffer;
    uint64_t frequencies_at[MODEL_MAX_ROTARIES]; /* in the weights' buffer */
    double frequency[MODEL_MAX_ROTARIES][KERNEL_HEAD_MAX / 2];
    double factor[MODEL_MAX_ROTARIES];
    uint64_t to_read;
    int weight, job; /* at hand */
    int64_t row;     /* of the job, done so far */
};
typedef model_loading loading;

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

/* A device belongs to all epochs that share tiles in it. */
static status join_device(loading *l, err *e)
{
    model *m = l->m, *other = l->beside;
    const model_options *a = &m->options, *b = &other->options;
    if (other->card->hash != file_model_hash(l->file))
        return err_set(e, STATUS_INVALID, "%s: not the model that its other epoch has",
                       l->file->path);
    if (a->exact != b->exact || a->kv != b->kv ||
        (a->device != NULL && strcmp(a->device, b->device) != 0))
        return err_set(e, STATUS_INVALID, "%s: epochs of one model differ in their arithmetic",
                       l->file->path);
    m->home = other->home;
    m->home->users++;
    m->device = m->home->device;
    m->kernels = other->kernels;
    m->isa = other->isa;
    m->numerics = other->numerics;
    m->options.isa = b->isa;
    m->options.device = b->device;
    m->options.n_threads = b->n_threads;
    m->options.time_ops = b->time_ops;
    return STATUS_OK;
}

static status open_device(loading *l, err *e)
{
    model *m = l->m;
    if (l->beside != NULL)
        return join_device(l, e);
    m->home = base_zalloc(1, sizeof(*m->home));
    if (m->home == NULL)
        return err_set(e, STATUS_NO_MEMORY, "%s: no memory for a device", l->file->path);
    m->home->users = 1;
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
        .pace = (double)m->options.pace,
    };
    s = ops->open(&m->home->device, &o, e);
    m->device = m->home->device;
    if (s == STATUS_OK)
        m->options.n_threads = ops->threads(m->device);
    return s;
}

/* ---- places -------------------------------------------------------------------------------------------------------- */

static const model_tiles *tiles_beside(const loading *l)
{
    return l->beside ? &l->beside->tiles : NULL;
}

static status place_weights(loading *l, err *e)
{
    const model_config *c = &l->plan.config;
    model *m = l->m;
    uint64_t bytes[MODEL_MAX_ROTARIES] = {0}, all = 0;
    device_ref angles;
    for (int i = 0; i < c->n_ropes; i++) {
        bytes[i] = ((uint64_t)(c->rope[i].width / 2) * sizeof(double) + 63) & ~(uint64_t)63;
        all += bytes[i];
    }
    l->first_buffer = m->device->ops->next_buffer(m->device);
    status s = tiles_init(&m->tiles, &l->plan.weights, l->plan.family, e);
    if (s == STATUS_OK)
        s = tiles_place(&m->tiles, tiles_beside(l), m->device, l->first_buffer + BUFFER_WEIGHTS,
                        all, &angles, l->file->path, e);
    if (s != STATUS_OK)
        return s;
    for (int i = 0; i < c->n_ropes; i++) {
        l->frequencies_at[i] = angles.offset;
        angles.offset += bytes[i];
    }
    m->used.weight_bytes = m->tiles.fresh_bytes + m->tiles.kept_bytes;
    m->used.read_bytes = l->to_read = tiles_to_read(&m->tiles, tiles_beside(l));
    return STATUS_OK;
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
        p->at = (device_ref){l->first_buffer + BUFFER_POOLS + i, 0};
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
        .weights = &m->tiles.weights,
        .pools = m->pools,
        .class_of = l->plan.class_of,
        .index_in = l->plan.index_in,
        .decay_class = l->plan.decay_class,
        .decay_index = l->plan.decay_index,
    };
    for (int i = 0; i < MODEL_MAX_ROTARIES; i++) {
        b.frequencies[i] = (device_ref){l->first_buffer + BUFFER_WEIGHTS, l->frequencies_at[i]};
        b.rotary_factor[i] = (float)l->factor[i];
    }
    s = l->plan.family->build(&b, e);
    if (s != STATUS_OK)
        return s;
    m->logits = b.logits;
    m->received = b.received;
    m->sent = b.sent;
    m->share = l->plan.share;
    const model_exchange *x = &m->options.exchange;
    graph_set_ranks(m->graph, &(graph_ranks){.n = m->share.tensor_ranks,
                                             .own = x->index,
                                             .sum = x->sum,
                                             .divides = x->divides,
                                             .scatter = x->scatter,
                                             .gather = x->share_rows,
                                             .context = x->context});
    return graph_plan(m->graph, l->first_buffer + BUFFER_POOLS + m->n_classes,
                      &m->used.scratch_bytes, e);
}

/* ---- values that come from weights but are not uploaded as they are -------------------------------------------------- */

/* Elements [begin, end) of a vector tensor as floats. */
static void read_vector(const model_weight *w, bool gguf, int64_t begin, int64_t end, float *out)
{
    uint64_t skip = kernel_row_bytes(w->device.type, begin);
    kernel_dequantise(w->device.type, out, w->tensor->data + skip, end - begin);
    if ((w->row->flags & WEIGHT_PLUS_ONE) && !gguf)
        for (int64_t i = 0; i < end - begin; i++)
            out[i] += 1.0f;
}

/* Frequencies of all rotaries; with divisors from the file where there are some. */
static status frequencies(loading *l, err *e)
{
    const model_config *c = &l->plan.config;
    const model_weight *w = &l->plan.weights.global[W_ROPE_DIVISORS];
    float divisors[KERNEL_HEAD_MAX / 2];
    if (w->row != NULL) {
        read_vector(w, true, 0, w->device.columns, divisors);
        for (int64_t i = 0; i < w->device.columns; i++)
            if (!(divisors[i] >= 1e-6f && divisors[i] <= 1e6f))
                return err_set(e, STATUS_CORRUPT, "%s: rope_freqs.weight[%lld] is %g",
                               l->file->path, (long long)i, (double)divisors[i]);
    }
    for (int i = 0; i < c->n_ropes; i++)
        model_rope_frequencies(&c->rope[i], w->row != NULL && i == 0 ? divisors : NULL,
                               l->frequency[i], &l->factor[i]);
    return STATUS_OK;
}

/* ---- upload -------------------------------------------------------------------------------------------------------- */

static status move_vector(loading *l, const model_weight *w, const model_weight *other,
                          const tiles_job *j, err *e)
{
    device *d = l->m->device;
    device_ref to = w->device.at, from = other->device.at;
    to.offset += (uint64_t)(j->column_begin - w->first_column) * sizeof(float);
    from.offset += (uint64_t)(j->column_begin - other->first_column) * sizeof(float);
    return d->ops->copy(d, to, from, (uint64_t)(j->column_end - j->column_begin) * sizeof(float),
                        e);
}

static status upload_vector(loading *l, const model_weight *w, const tiles_job *j, err *e)
{
    int64_t n = j->column_end - j->column_begin;
    float *v = base_zalloc((size_t)n, sizeof(*v));
    if (v == NULL)
        return err_set(e, STATUS_NO_MEMORY, "%s: no memory for a vector", l->file->path);
    read_vector(w, l->file->format == FILE_GGUF, j->column_begin, j->column_end, v);
    device_ref to = w->device.at;
    to.offset += (uint64_t)(j->column_begin - w->first_column) * sizeof(float);
    status s = l->m->device->ops->write(l->m->device, to, v, (uint64_t)n * sizeof(float), e);
    base_free(v);
    return s;
}

/* Rows [row, row + n) of the job, from the file. Whole strips of all columns are packed where they lie; whatever else, part by part. */
static status upload_rows(loading *l, const model_weight *w, const tiles_job *j, int64_t row,
                          int64_t n, err *e)
{
    device *d = l->m->device;
    uint64_t row_bytes = kernel_row_bytes(w->device.type, w->file_columns),
             offset = (uint64_t)row * row_bytes;
    int64_t at = row - w->first_row;
    bool whole = j->column_begin == w->device.column_begin &&
                 j->column_end == w->device.column_begin + w->device.columns &&
                 at % KERNEL_TILE_ROWS == 0 &&
                 (n % KERNEL_TILE_ROWS == 0 || at + n == w->device.rows);
    const char *rows = (const char *)w->tensor->data + offset;
    status s = whole ? d->ops->upload(d, &w->device, rows, row_bytes, at, n, e)
                     : d->ops->upload_part(d, &w->device, rows, row_bytes, at, n, j->column_begin,
                                           j->column_end, e);
    file_forget(l->file, w->tensor, offset, (uint64_t)n * row_bytes);
    return s;
}

/* The next piece of the job at hand, at most about `most` bytes of it; *bytes: done now. */
static status do_job(loading *l, const model_weight *w, const model_weight *other,
                     const tiles_job *j, uint64_t most, uint64_t *bytes, err *e)
{
    device *d = l->m->device;
    int64_t n_rows = j->row_end - j->row_begin, left = n_rows - l->row;
    uint64_t row_bytes = BASE_MAX(j->bytes / (uint64_t)n_rows, 1);
    int64_t n = (int64_t)BASE_MIN(most, SLICE_BYTES) / (int64_t)row_bytes;
    n = BASE_MIN(BASE_MAX(n / KERNEL_TILE_ROWS * KERNEL_TILE_ROWS, KERNEL_TILE_ROWS), left);
    int64_t row = j->row_begin + l->row;
    status s;
    if (w->row->flags & WEIGHT_VECTOR)
        s = j->move ? move_vector(l, w, other, j, e) : upload_vector(l, w, j, e);
    else if (j->move)
        s = d->ops->move_part(d, &w->device, row - w->first_row, &other->device,
                              row - other->first_row, n, j->column_begin, j->column_end, e);
    else
        s = upload_rows(l, w, j, row, n, e);
    if (s != STATUS_OK)
        return s;
    *bytes = (uint64_t)n * row_bytes;
    *(j->move ? &l->m->moved_bytes : &l->m->read_bytes) += *bytes;
    l->row += n;
    if (l->row == n_rows) {
        l->row = 0;
        l->job++;
    }
    return STATUS_OK;
}

status model_load_more(model_loading *l, uint64_t most, bool *done, err *e)
{
    model_tiles *t = &l->m->tiles;
    status s = STATUS_OK;
    int n_weights = tiles_n_weights(t);
    for (uint64_t spent = 0; s == STATUS_OK && spent < most && l->weight < n_weights;) {
        const model_weight *w = tiles_weight(t, l->weight),
                           *other = l->beside ? tiles_weight(&l->beside->tiles, l->weight) : NULL;
        tiles_job jobs[TILES_JOBS];
        bool nothing = w->row == NULL || tiles_is_kept(t, l->weight);
        int n = nothing ? 0 : tiles_jobs(jobs, w, other);
        uint64_t bytes = 0;
        if (l->job < n) {
            s = do_job(l, w, other, &jobs[l->job], most - spent, &bytes, e);
            spent += bytes;
            continue;
        }
        l->weight++;
        l->job = 0;
        if (l->paused)
            tiles_let_go_until(t, &l->beside->tiles, l->weight, l->m->device);
    }
    *done = l->weight == n_weights;
    return s;
}

uint64_t model_load_bytes(const model_loading *l, uint64_t *to_read)
{
    *to_read = l->to_read;
    return l->m->read_bytes;
}

static status write_angles(loading *l, err *e)
{
    const model_config *c = &l->plan.config;
    const device_ops *ops = l->m->device->ops;
    status s = STATUS_OK;
    for (int i = 0; i < c->n_ropes && s == STATUS_OK; i++)
        s = ops->write(l->m->device,
                       (device_ref){l->first_buffer + BUFFER_WEIGHTS, l->frequencies_at[i]},
                       l->frequency[i], (uint64_t)(c->rope[i].width / 2) * sizeof(double), e);
    return s;
}

/* ---- all of it ----------------------------------------------------------------------------------------------------- */

/* Everything but memory: after this used and limits are known. */
static status prepare(loading *l, const file_model *f, const model_options *o, err *e)
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
        s = frequencies(l, e);
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

/* Bytes that this load needs of what is free. A limit is on all that there is then, and counts what the other epoch keeps meanwhile. */
static uint64_t needed_bytes(const loading *l)
{
    const model *m = l->m, *other = l->beside;
    uint64_t sum, fresh = m->tiles.fresh_bytes;
    if (l->paused) {
        uint64_t gone = tiles_let_go_bytes(&m->tiles, &other->tiles);
        fresh = m->options.memory_limit ? m->used.weight_bytes : fresh - BASE_MIN(fresh, gone);
    } else if (other && m->options.memory_limit) {
        fresh += other->used.weight_bytes + other->used.state_bytes + other->used.scratch_bytes;
    }
    if (!checked_add(fresh, m->used.state_bytes, &sum) ||
        !checked_add(sum, m->used.scratch_bytes, &sum))
        return UINT64_MAX;
    return sum;
}

static status check_memory(const loading *l, err *e)
{
    const model_need *n = &l->m->used;
    uint64_t needed = needed_bytes(l), available = l->m->options.memory_limit;
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
                   "%s: needs %s%s (weights %s, state %s, scratch %s), free are %s", l->file->path,
                   base_format_bytes(a, needed), l->beside ? " beside another epoch" : "",
                   base_format_bytes(b, n->weight_bytes), base_format_bytes(c, n->state_bytes),
                   base_format_bytes(d, n->scratch_bytes), base_format_bytes(free_text, available));
}

static status allocate(loading *l, err *e)
{
    model *m = l->m;
    const device_ops *ops = m->device->ops;
    status s = tiles_acquire(&m->tiles, tiles_beside(l), m->device, e);
    for (int i = 0; i <= m->n_classes && s == STATUS_OK; i++) {
        uint64_t bytes = i == m->n_classes
                             ? m->used.scratch_bytes
                             : m->pools[i].info.page_bytes * (uint64_t)m->pools[i].info.n_pages;
        s = ops->alloc(m->device, bytes, &m->buffers[i], e);
        m->n_buffers += s == STATUS_OK;
    }
    REQUIRE(s != STATUS_OK ||
            m->buffers[m->n_classes] == l->first_buffer + BUFFER_POOLS + m->n_classes);
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

/* On error or when all is done. */
static void loading_destroy(loading *l)
{
    model_plan_fini(&l->plan);
    model_destroy(l->m);
    base_free(l);
}

status model_needs(model_need *out, const file_model *f, const model_options *o, err *e)
{
    loading *l = loading_create(e);
    if (l == NULL)
        return STATUS_NO_MEMORY;
    model_options one = *o;
    one.n_threads = 1;
    status s = prepare(l, f, &one, e);
    if (s == STATUS_OK)
        *out = l->m->used;
    loading_destroy(l);
    return s;
}

/* The state, scratch and program of an epoch whose weights are still wanted. */
static void end_running(model *m)
{
    graph_destroy(m->graph);
    m->graph = NULL;
    for (int i = 0; i < m->n_buffers; i++)
        m->device->ops->free(m->device, m->buffers[i]);
    m->n_buffers = 0;
}

status model_load_begin(model_loading **out, const file_model *f, const model_options *o,
                        model *beside, bool paused, err *e)
{
    loading *l = loading_create(e);
    if (l == NULL)
        return STATUS_NO_MEMORY;
    l->beside = beside;
    l->paused = paused && beside != NULL;
    status s = prepare(l, f, o, e);
    if (s == STATUS_OK && l->paused) {
        end_running(beside);
        tiles_let_go_unused(&l->m->tiles, &beside->tiles, beside->device);
    }
    if (s == STATUS_OK)
        s = check_memory(l, e);
    if (s == STATUS_OK &&
        beside == NULL) /* class exact/1 is proved, not assumed; some milliseconds */
        s = kernel_self_test(l->m->kernels, e);
    if (s == STATUS_OK)
        s = model_card_read(&l->m->card, f, e);
    if (s == STATUS_OK)
        s = allocate(l, e);
    if (s == STATUS_OK)
        *out = l;
    else
        loading_destroy(l);
    return s;
}

status model_load_end(model **out, model_loading *l, err *e)
{
    REQUIRE(l->weight == tiles_n_weights(&l->m->tiles));
    status s = write_angles(l, e);
    if (s == STATUS_OK)
        s = graph_compile(l->m->graph, e);
    if (s == STATUS_OK) {
        *out = l->m;
        l->m = NULL;
    }
    loading_destroy(l);
    return s;
}

void model_load_cancel(model_loading *l)
{
    if (l != NULL)
        loading_destroy(l);
}

status model_load(model **out, const file_model *f, const model_options *o,
                  const model_progress *progress, err *e)
{
    model_loading *l;
    status s = model_load_begin(&l, f, o, NULL, false, e);
    if (s != STATUS_OK)
        return s;
    for (bool done = false; !done && s == STATUS_OK;) {
        s = model_load_more(l, SLICE_BYTES, &done, e);
        if (s == STATUS_OK && progress != NULL && progress->report != NULL &&
            !progress->report(progress->context, l->m->read_bytes, l->to_read))
            s = err_set(e, STATUS_CANCELLED, "%s: loading was cancelled", f->path);
    }
    if (s == STATUS_OK)
        return model_load_end(out, l, e);
    loading_destroy(l);
    return s;
}

void model_destroy(model *m)
{
    if (m == NULL)
        return;
    if (m->device != NULL) {
        end_running(m);
        tiles_release(&m->tiles, m->device);
    } else {
        weights_fini(&m->tiles.weights);
    }
    if (m->home != NULL && --m->home->users == 0) {
        if (m->device != NULL)
            m->device->ops->close(m->device);
        base_free(m->home);
    }
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
