/*
 * The step: a batch is checked, flattened into the step descriptor that devices take, run, and the wanted logits are read back. Also
 * copies of state and the model's plain accessors. Nothing here allocates.
 */
#include "model/inside.h"

/* ---- accessors ----------------------------------------------------------------------------------------------------- */

const model_card *model_get_card(const model *m)
{
    return m->card;
}
int model_n_classes(const model *m)
{
    return m->n_classes;
}
const model_state_class *model_class(const model *m, int i)
{
    REQUIRE(i >= 0 && i < m->n_classes);
    return &m->pools[i].info;
}
const model_options *model_get_options(const model *m)
{
    return &m->options;
}
const model_need *model_used(const model *m)
{
    return &m->used;
}
uint64_t model_read_bytes(const model *m)
{
    return m->read_bytes;
}
uint64_t model_moved_bytes(const model *m)
{
    return m->moved_bytes;
}
const char *model_isa(const model *m)
{
    return m->isa;
}
int64_t model_n_logits(const model *m)
{
    bool embeds = m->config.pooling != MODEL_POOLING_NONE;
    return m->logits < 0 || embeds ? 0 : m->share.vocab_end - m->share.vocab_begin;
}
int64_t model_row_width(const model *m)
{
    bool embeds = m->config.pooling != MODEL_POOLING_NONE;
    return m->logits >= 0 && embeds ? m->config.D : model_n_logits(m);
}
const char *model_numerics(const model *m)
{
    return m->numerics;
}

/* ---- checks -------------------------------------------------------------------------------------------------------- */

static status check_pages(const model *m, const model_run *r, int number, int i, err *e)
{
    const model_state_class *c = &m->pools[i].info;
    if (c->kind == MODEL_STATE_CONSTANT) {
        if (r->slot[i] < 0 || r->slot[i] >= c->n_pages)
            return err_set(e, STATUS_INVALID, "step: run %d: slot %d of class %d, expected 0 to %d",
                           number, (int)r->slot[i], i, c->n_pages - 1);
        return STATUS_OK;
    }
    int64_t last = r->position + r->n_tokens - 1, first = 0;
    if (c->kind == MODEL_STATE_WINDOWED)
        first = BASE_MAX(r->position - c->window + 1, 0) / KERNEL_RANGE;
    if (r->n_pages[i] <= last / KERNEL_RANGE || r->pages[i] == NULL)
        return err_set(e, STATUS_INVALID,
                       "step: run %d: %d pages of class %d for positions to %lld", number,
                       r->n_pages[i], i, (long long)last);
    for (int64_t p = 0; p <= last / KERNEL_RANGE; p++)
        if (r->pages[i][p] >= c->n_pages || r->pages[i][p] < (p < first ? -1 : 0))
            return err_set(e, STATUS_INVALID,
                           "step: run %d: entry %lld of class %d is page %d, expected 0 to %d",
                           number, (long long)p, i, (int)r->pages[i][p], c->n_pages - 1);
    return STATUS_OK;
}

static status check_run(const model *m, const model_run *r, int number, err *e)
{
    if (r->n_tokens < 1 || r->position < 0)
        return err_set(e, STATUS_INVALID, "step: run %d: %d tokens from position %lld", number,
                       r->n_tokens, (long long)r->position);
    if (r->position > m->options.context - r->n_tokens)
        return err_set(e, STATUS_TOO_LONG,
                       "step: run %d: %d tokens from position %lld, the context is %lld", number,
                       r->n_tokens, (long long)r->position, (long long)m->options.context);
    if (m->config.both_ways && r->position != 0)
        return err_set(e, STATUS_INVALID,
                       "step: run %d: an encoder takes whole texts, not from %lld on", number,
                       (long long)r->position);
    for (int i = 0; i < m->n_classes; i++) {
        status s = check_pages(m, r, number, i, e);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static status check_batch(const model *m, const model_batch *b, err *e)
{
    if (b->n_tokens < 1 || b->n_tokens > m->limits.n_tokens || b->n_runs < 1 ||
        b->n_runs > m->limits.n_runs || b->n_outputs < 0 || b->n_outputs > m->limits.n_outputs)
        return err_set(
            e, STATUS_INVALID,
            "step: %d tokens in %d runs with %d outputs, expected 1 to %d, 1 to %d, 0 to %d",
            b->n_tokens, b->n_runs, b->n_outputs, (int)m->limits.n_tokens, (int)m->limits.n_runs,
            (int)m->limits.n_outputs);
    int64_t total = 0;
    for (int i = 0; i < b->n_runs; i++) {
        status s = check_run(m, &b->runs[i], i, e);
        if (s != STATUS_OK)
            return s;
        total += b->runs[i].n_tokens;
    }
    if (total != b->n_tokens)
        return err_set(e, STATUS_INVALID, "step: the runs have %lld tokens, the batch %d",
                       (long long)total, b->n_tokens);
    for (int i = 0; i < b->n_tokens; i++)
        if (b->ids[i] < 0 || b->ids[i] >= m->config.V)
            return err_set(e, STATUS_INVALID,
                           "step: token %d has id %d, the vocabulary ends at %lld", i,
                           (int)b->ids[i], (long long)m->config.V - 1);
    for (int i = 0; i < b->n_outputs; i++)
        if (b->outputs[i] < 0 || b->outputs[i] >= b->n_tokens ||
            (i > 0 && b->outputs[i] <= b->outputs[i - 1]))
            return err_set(e, STATUS_INVALID,
                           "step: output %d is row %d of %d, expected ascending rows", i,
                           (int)b->outputs[i], b->n_tokens);
    return STATUS_OK;
}

/* ---- the step ------------------------------------------------------------------------------------------------------ */

static void flatten(model *m, const model_batch *b)
{
    int32_t row = 0, page = 0;
    for (int i = 0; i < b->n_runs; i++) {
        const model_run *r = &b->runs[i];
        device_run *to = &m->runs[i];
        *to = (device_run){.first = row, .n_tokens = r->n_tokens, .position = r->position};
        for (int c = 0; c < m->n_classes; c++) {
            to->slot[c] = r->slot[c];
            to->pages[c] = page;
            if (m->pools[c].info.kind == MODEL_STATE_CONSTANT)
                continue;
            int64_t n = (r->position + r->n_tokens - 1) / KERNEL_RANGE + 1;
            for (int64_t p = 0; p < n; p++)
                m->pages[page++] = r->pages[c][p];
        }
        for (int k = 0; k < r->n_tokens; k++, row++) {
            m->positions[row] = r->position + k;
            m->run_of[row] = i;
            m->ids[row] = b->ids[row];
        }
    }
    for (int i = 0; i < b->n_outputs; i++)
        m->outputs[i] = b->outputs[i];
    m->step = (device_step){
        .n_tokens = b->n_tokens,
        .n_runs = b->n_runs,
        .n_outputs = b->n_outputs,
        .n_pages = page,
        .ids = m->ids,
        .positions = m->positions,
        .run_of = m->run_of,
        .runs = m->runs,
        .pages = m->pages,
        .outputs = m->outputs,
    };
}

/* The wanted rows: to the caller, or to the leader of the ranks. */
static status give_logits(model *m, int n_rows, float *logits, err *e)
{
    const model_exchange *x = &m->options.exchange;
    bool here = m->logits >= 0 && n_rows > 0;
    if (x->gather == NULL)
        return here ? graph_read(m->graph, m->logits, logits, n_rows, e) : STATUS_OK;
    status s = here ? graph_read(m->graph, m->logits, m->slice, n_rows, e) : STATUS_OK;
    return s == STATUS_OK ? x->gather(x->context, here ? m->slice : NULL, n_rows, logits, e) : s;
}

int model_n_stages(const model *m)
{
    return BASE_MAX(m->options.exchange.n_stages, 1);
}

/* One for every stage, and one that waits before the first. */
int model_most_flights(const model *m)
{
    int n = model_n_stages(m);
    return n == 1 ? 1 : BASE_MIN(n + 1, (int)MODEL_MOST_FLIGHTS);
}

status model_step_start(model *m, const model_batch *b, float *logits, err *e)
{
    REQUIRE(m->n_flights < model_most_flights(m));
    status s = check_batch(m, b, e);
    if (s != STATUS_OK)
        return s;
    const model_exchange *x = &m->options.exchange;
    int64_t stream = b->n_tokens * m->config.D;
    if (x->announce != NULL)
        s = x->announce(x->context, b, e);
    if (s != STATUS_OK)
        return s;
    flatten(m, b);
    if (m->received >= 0) {
        s = x->receive(x->context, m->stream, stream, e);
        if (s == STATUS_OK)
            s = graph_write(m->graph, m->received, m->stream, b->n_tokens, e);
    }
    if (s == STATUS_OK)
        s = graph_run(m->graph, &m->step, e);
    if (s == STATUS_OK && m->sent >= 0) {
        s = graph_read(m->graph, m->sent, m->stream, b->n_tokens, e);
        if (s == STATUS_OK)
            s = x->send(x->context, m->stream, stream, e);
    }
    if (s == STATUS_OK)
        s = give_logits(m, b->n_outputs, logits, e);
    m->n_flights += s == STATUS_OK;
    return s;
}

status model_step_finish(model *m, err *e)
{
    const model_exchange *x = &m->options.exchange;
    REQUIRE(m->n_flights > 0);
    m->n_flights--;
    return x->collect ? x->collect(x->context, e) : STATUS_OK;
}

status model_step(model *m, const model_batch *b, float *logits, err *e)
{
    REQUIRE(m->n_flights == 0);
    status s = model_step_start(m, b, logits, e);
    return s == STATUS_OK ? model_step_finish(m, e) : s;
}

status model_copy_state(model *m, int state_class, const model_copy *copies, int n, err *e)
{
    if (state_class < 0 || state_class >= m->n_classes)
        return err_set(e, STATUS_INVALID, "copy of state: class %d of %d", state_class,
                       m->n_classes);
    const model_pool *p = &m->pools[state_class];
    for (int i = 0; i < n; i++)
        if (copies[i].from < 0 || copies[i].from >= p->info.n_pages || copies[i].to < 0 ||
            copies[i].to >= p->info.n_pages)
            return err_set(e, STATUS_INVALID, "copy of state: page %d to %d of %d",
                           (int)copies[i].from, (int)copies[i].to, p->info.n_pages);
    const model_exchange *x = &m->options.exchange;
    if (x->copied != NULL) {
        status s = x->copied(x->context, state_class, copies, n, e);
        if (s != STATUS_OK)
            return s;
    }
    for (int i = 0; i < n; i++) {
        device_ref from = p->at, to = p->at;
        from.offset += (uint64_t)copies[i].from * p->info.page_bytes;
        to.offset += (uint64_t)copies[i].to * p->info.page_bytes;
        status s = m->device->ops->copy(m->device, to, from, p->info.page_bytes, e);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

/* ---- time per op --------------------------------------------------------------------------------------------------- */

int model_op_times(const model *m, model_op_time *out, int capacity)
{
    device_op_time times[DEVICE_OP_KINDS];
    m->device->ops->op_times(m->device, times, false);
    int n = 0;
    for (int k = 0; k < DEVICE_OP_KINDS && n < capacity; k++)
        if (times[k].calls > 0)
            out[n++] =
                (model_op_time){device_op_name((device_op_kind)k), times[k].calls, times[k].us};
    return n;
}

void model_op_times_reset(model *m)
{
    m->device->ops->op_times(m->device, NULL, true);
}
