/*
 * Bytes of the messages: little-endian numbers, strings and arrays with a u32 length in front. A reader (struct cursor) that ran over the
 * end of its payload returns zeros and stays `bad`; every wire_get_* looks at that once, at its end, and refuses rests.
 */
#include "engine/wire.h"

#include <string.h>

/* ---- writing ------------------------------------------------------------------------------------------------------- */

static void put_u64(sb *out, uint64_t x)
{
    unsigned char bytes[8];
    base_store_u64(bytes, x);
    sb_add(out, bytes, 8);
}

static void put_u32(sb *out, uint32_t x)
{
    unsigned char bytes[4];
    base_store_u32(bytes, x);
    sb_add(out, bytes, 4);
}

static void put_i32(sb *out, int32_t x)
{
    put_u32(out, (uint32_t)x);
}

static void put_f32(sb *out, float x)
{
    put_u32(out, float_to_bits(x));
}

static void put_string(sb *out, const char *s)
{
    size_t n = s ? strlen(s) : 0;
    put_u32(out, (uint32_t)n);
    sb_add(out, s ? s : "", n);
}

static void put_ids(sb *out, const int32_t *ids, int n)
{
    put_u32(out, (uint32_t)n);
    for (int i = 0; i < n; i++)
        put_i32(out, ids[i]);
}

/* A frame is begun with its length open and closed when its payload is there. */
static size_t begin(sb *out, wire_message message)
{
    size_t at = out->length;
    put_u32(out, 0);
    put_u32(out, (uint32_t)message);
    return at;
}

static void end(sb *out, size_t at)
{
    if (out->failed)
        return;
    uint32_t n = (uint32_t)(out->length - at - WIRE_HEADER);
    for (int i = 0; i < 4; i++)
        out->data[at + (size_t)i] = (char)(n >> (8 * i));
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

typedef struct cursor {
    const unsigned char *at, *end;
    bool bad;
} cursor;

static cursor reader(const wire_frame *f)
{
    return (cursor){f->payload, f->payload + f->bytes, false};
}

static const unsigned char *take(cursor *c, size_t n)
{
    if (c->bad || (size_t)(c->end - c->at) < n) {
        c->bad = true;
        return NULL;
    }
    const unsigned char *p = c->at;
    c->at += n;
    return p;
}

static uint64_t get_u64(cursor *c)
{
    const unsigned char *p = take(c, 8);
    return p ? base_load_u64(p) : 0;
}

static uint32_t get_u32(cursor *c)
{
    const unsigned char *p = take(c, 4);
    return p ? base_load_u32(p) : 0;
}

static int32_t get_i32(cursor *c)
{
    return (int32_t)get_u32(c);
}

static bool get_bool(cursor *c)
{
    return get_u32(c) != 0;
}

static float get_f32(cursor *c)
{
    return float_from_bits(get_u32(c));
}

/* "" comes back as NULL when `optional`. */
static const char *get_string(cursor *c, arena *memory, bool optional)
{
    uint32_t n = get_u32(c);
    const unsigned char *p = take(c, n);
    if (!p || (n == 0 && optional))
        return optional ? NULL : "";
    const char *s = arena_strndup(memory, (const char *)p, n);
    if (!s)
        c->bad = true;
    return s ? s : "";
}

static const int32_t *get_ids(cursor *c, int *n, arena *memory)
{
    uint32_t count = get_u32(c);
    *n = 0;
    if (c->bad || count > (size_t)(c->end - c->at) / 4) {
        c->bad = true;
        return NULL;
    }
    int32_t *ids = arena_alloc(memory, sizeof *ids * count);
    if (!ids) {
        c->bad = true;
        return NULL;
    }
    for (uint32_t i = 0; i < count; i++)
        ids[i] = get_i32(c);
    *n = (int)count;
    return ids;
}

static const char *message_name(wire_message m)
{
    switch (m) {
#define MESSAGE(name, number, direction)                                                           \
    case WIRE_##name:                                                                              \
        return #name;
#include "engine/messages.def"
#undef MESSAGE
    }
    return NULL;
}

static status finish(const cursor *c, const wire_frame *f, wire_message expected, err *e)
{
    const char *name = message_name(expected);
    if (f->message != expected)
        return err_set(e, STATUS_INVALID, "wire: expected %s, got message %d", name,
                       (int)f->message);
    if (c->bad)
        return err_set(e, STATUS_CORRUPT, "wire: %s of %zu bytes is too short for its fields", name,
                       f->bytes);
    if (c->at != c->end)
        return err_set(e, STATUS_CORRUPT, "wire: %s has %zu bytes behind its fields", name,
                       (size_t)(c->end - c->at));
    return STATUS_OK;
}

status wire_next(wire_frame *out, bool *complete, const void *bytes, size_t n, err *e)
{
    const unsigned char *p = bytes;
    *complete = false;
    if (n < WIRE_HEADER)
        return STATUS_OK;
    cursor c = {p, p + n, false};
    uint32_t length = get_u32(&c), message = get_u32(&c);
    if (length > WIRE_MAX_PAYLOAD)
        return err_set(e, STATUS_CORRUPT, "wire: a frame of %u bytes, at most %d are allowed",
                       length, WIRE_MAX_PAYLOAD);
    if (!message_name((wire_message)message))
        return err_set(e, STATUS_CORRUPT, "wire: there is no message %u", message);
    *out = (wire_frame){(wire_message)message, p + WIRE_HEADER, length};
    *complete = n - WIRE_HEADER >= length;
    return STATUS_OK;
}

/* ---- LOAD ---------------------------------------------------------------------------------------------------------- */

static void put_shard(sb *out, const model_shard *s)
{
    const int64_t ranges[] = {s->layer_begin, s->layer_end, s->head_begin,  s->head_end,
                              s->ffn_begin,   s->ffn_end,   s->vocab_begin, s->vocab_end};
    put_u32(out, s->cut);
    put_i32(out, s->tensor_ranks);
    for (size_t i = 0; i < BASE_COUNT(ranges); i++)
        put_u64(out, (uint64_t)ranges[i]);
}

static void get_shard(model_shard *s, cursor *c)
{
    int64_t *const ranges[] = {&s->layer_begin, &s->layer_end, &s->head_begin,  &s->head_end,
                               &s->ffn_begin,   &s->ffn_end,   &s->vocab_begin, &s->vocab_end};
    s->cut = get_bool(c);
    s->tensor_ranks = get_i32(c);
    for (size_t i = 0; i < BASE_COUNT(ranges); i++)
        *ranges[i] = (int64_t)get_u64(c);
}

void wire_put_load(sb *out, const wire_load *m)
{
    const model_options *o = &m->model;
    const engine_options *g = &m->engine;
    size_t at = begin(out, WIRE_LOAD);
    put_string(out, m->source);
    put_string(out, o->device);
    put_string(out, o->isa);
    put_i32(out, o->n_threads);
    put_u32(out, o->exact);
    put_u32(out, (uint32_t)o->kv);
    put_u64(out, (uint64_t)o->context);
    put_u64(out, o->state_tokens);
    put_i32(out, o->n_sequences);
    put_ids(out, o->n_pages, MODEL_STATE_CLASSES);
    put_i32(out, o->max_tokens);
    put_i32(out, o->max_outputs);
    put_shard(out, &o->shard);
    put_u64(out, o->memory_limit);
    put_u32(out, o->time_ops);
    put_i32(out, g->max_sequences);
    put_i32(out, g->max_waiting);
    put_i32(out, g->chunk);
    put_i32(out, g->cache_slots);
    put_u32(out, g->no_cache);
    put_u32(out, (uint32_t)g->draft);
    put_string(out, m->draft_source);
    end(out, at);
}

status wire_get_load(wire_load *out, const wire_frame *f, arena *memory, err *e)
{
    cursor c = reader(f);
    wire_load m = {0};
    model_options *o = &m.model;
    engine_options *g = &m.engine;
    int n;
    m.source = get_string(&c, memory, false);
    o->device = get_string(&c, memory, true);
    o->isa = get_string(&c, memory, true);
    o->n_threads = get_i32(&c);
    o->exact = get_bool(&c);
    o->kv = (model_kv)get_u32(&c);
    o->context = (int64_t)get_u64(&c);
    o->state_tokens = get_u64(&c);
    o->n_sequences = get_i32(&c);
    const int32_t *pages = get_ids(&c, &n, memory);
    c.bad |= n != MODEL_STATE_CLASSES;
    for (int i = 0; i < MODEL_STATE_CLASSES && !c.bad; i++)
        o->n_pages[i] = pages[i];
    o->max_tokens = get_i32(&c);
    o->max_outputs = get_i32(&c);
    get_shard(&o->shard, &c);
    o->memory_limit = get_u64(&c);
    o->time_ops = get_bool(&c);
    g->max_sequences = get_i32(&c);
    g->max_waiting = get_i32(&c);
    g->chunk = get_i32(&c);
    g->cache_slots = get_i32(&c);
    g->no_cache = get_bool(&c);
    uint32_t guesses = get_u32(&c);
    c.bad |= guesses > ENGINE_DRAFT_MODEL;
    g->draft = (engine_draft)guesses;
    m.draft_source = get_string(&c, memory, true);
    status s = finish(&c, f, WIRE_LOAD, e);
    if (s == STATUS_OK)
        *out = m;
    return s;
}

/* ---- SUBMIT, CANCEL, HOLD, QUIT ------------------------------------------------------------------------------------ */

static void put_sample(sb *out, const sample_options *o)
{
    put_u64(out, o->seed);
    put_f32(out, o->temperature);
    put_i32(out, o->top_k);
    put_f32(out, o->top_p);
    put_f32(out, o->min_p);
    put_f32(out, o->repetition_penalty);
    put_f32(out, o->presence_penalty);
    put_f32(out, o->frequency_penalty);
    put_i32(out, o->penalty_window);
    put_u32(out, (uint32_t)o->n_bias);
    for (int i = 0; i < o->n_bias; i++) {
        put_i32(out, o->bias[i].token);
        put_f32(out, o->bias[i].bias);
    }
    put_ids(out, o->banned, o->n_banned);
}

static void get_sample(sample_options *o, cursor *c, arena *memory)
{
    o->seed = get_u64(c);
    o->temperature = get_f32(c);
    o->top_k = get_i32(c);
    o->top_p = get_f32(c);
    o->min_p = get_f32(c);
    o->repetition_penalty = get_f32(c);
    o->presence_penalty = get_f32(c);
    o->frequency_penalty = get_f32(c);
    o->penalty_window = get_i32(c);
    uint32_t n = get_u32(c);
    sample_bias *bias = NULL;
    if (!c->bad && n <= (size_t)(c->end - c->at) / 8)
        bias = arena_alloc(memory, sizeof *bias * n);
    c->bad |= !bias;
    for (uint32_t i = 0; i < n && !c->bad; i++) {
        bias[i].token = get_i32(c);
        bias[i].bias = get_f32(c);
    }
    o->n_bias = c->bad ? 0 : (int)n;
    o->bias = bias;
    o->banned = get_ids(c, &o->n_banned, memory);
}

void wire_put_submit(sb *out, const engine_request *m)
{
    size_t at = begin(out, WIRE_SUBMIT);
    put_u64(out, m->id);
    put_ids(out, m->prompt, m->n_prompt);
    put_i32(out, m->n_choices);
    put_i32(out, m->max_tokens);
    put_ids(out, m->end, m->n_end);
    put_i32(out, m->top_logprobs);
    put_u32(out, m->no_reuse);
    put_u32(out, m->embed);
    put_string(out, m->grammar);
    put_ids(out, m->shown, m->n_shown);
    put_u32(out, m->score_prompt);
    put_u32(out, m->prompt_only);
    put_sample(out, &m->sample);
    end(out, at);
}

status wire_get_submit(engine_request *out, const wire_frame *f, arena *memory, err *e)
{
    cursor c = reader(f);
    engine_request m = {0};
    m.id = get_u64(&c);
    m.prompt = get_ids(&c, &m.n_prompt, memory);
    m.n_choices = get_i32(&c);
    m.max_tokens = get_i32(&c);
    m.end = get_ids(&c, &m.n_end, memory);
    m.top_logprobs = get_i32(&c);
    m.no_reuse = get_bool(&c);
    m.embed = get_bool(&c);
    m.grammar = get_string(&c, memory, true);
    m.shown = get_ids(&c, &m.n_shown, memory);
    m.score_prompt = get_bool(&c);
    m.prompt_only = get_bool(&c);
    get_sample(&m.sample, &c, memory);
    status s = finish(&c, f, WIRE_SUBMIT, e);
    if (s == STATUS_OK)
        *out = m;
    return s;
}

void wire_put_cancel(sb *out, uint64_t id, int choice)
{
    size_t at = begin(out, WIRE_CANCEL);
    put_u64(out, id);
    put_i32(out, choice);
    end(out, at);
}

status wire_get_cancel(uint64_t *id, int *choice, const wire_frame *f, err *e)
{
    cursor c = reader(f);
    *id = get_u64(&c);
    *choice = get_i32(&c);
    return finish(&c, f, WIRE_CANCEL, e);
}

void wire_put_hold(sb *out, uint64_t id, int choice, bool on)
{
    size_t at = begin(out, WIRE_HOLD);
    put_u64(out, id);
    put_i32(out, choice);
    put_u32(out, on);
    end(out, at);
}

status wire_get_hold(uint64_t *id, int *choice, bool *on, const wire_frame *f, err *e)
{
    cursor c = reader(f);
    *id = get_u64(&c);
    *choice = get_i32(&c);
    *on = get_bool(&c);
    return finish(&c, f, WIRE_HOLD, e);
}

void wire_put_quit(sb *out)
{
    end(out, begin(out, WIRE_QUIT));
}

/* ---- JOIN ---------------------------------------------------------------------------------------------------------- */

static void put_place(sb *out, const engine_place *m)
{
    put_i32(out, m->cut.n_stages);
    put_i32(out, m->cut.n_tensor);
    put_u32(out, (uint32_t)m->cut.link);
    put_i32(out, m->cut.n_shares);
    for (int i = 0; i < m->cut.n_shares; i++)
        put_f32(out, m->cut.shares[i]);
    put_i32(out, m->cut.n_paces);
    for (int i = 0; i < m->cut.n_paces; i++)
        put_f32(out, m->cut.paces[i]);
    put_f32(out, m->cut.link_latency_us);
    put_f32(out, m->cut.link_gbit);
    put_i32(out, m->rank);
    put_u32(out, m->epoch.term);
    put_u32(out, m->epoch.number);
    put_u64(out, m->epoch.node);
    sb_add(out, m->secret, sizeof m->secret);
    put_u64(out, m->deadline_us);
    put_i32(out, m->n_handles);
}

static void get_place(cursor *c, engine_place *m)
{
    m->cut.n_stages = get_i32(c);
    m->cut.n_tensor = get_i32(c);
    uint32_t link = get_u32(c);
    m->cut.n_shares = get_i32(c);
    c->bad |= link >= ENGINE_LINKS || m->cut.n_shares < 0 || m->cut.n_shares > ENGINE_MOST_RANKS;
    for (int i = 0; i < m->cut.n_shares && !c->bad; i++)
        m->cut.shares[i] = get_f32(c);
    m->cut.n_paces = get_i32(c);
    c->bad |= m->cut.n_paces < 0 || m->cut.n_paces > ENGINE_MOST_RANKS;
    for (int i = 0; i < m->cut.n_paces && !c->bad; i++)
        m->cut.paces[i] = get_f32(c);
    m->cut.link = (engine_link)(c->bad ? 0 : link);
    m->cut.link_latency_us = get_f32(c);
    m->cut.link_gbit = get_f32(c);
    c->bad |= !engine_link_shape_fits(&m->cut) || !engine_cut_paces_fit(&m->cut);
    m->rank = get_i32(c);
    m->epoch.term = get_u32(c);
    m->epoch.number = get_u32(c);
    m->epoch.node = get_u64(c);
    const unsigned char *secret = take(c, sizeof m->secret);
    if (secret)
        memcpy(m->secret, secret, sizeof m->secret);
    m->deadline_us = get_u64(c);
    m->n_handles = get_i32(c);
    c->bad |= m->n_handles < 0 || m->n_handles > ENGINE_MOST_HANDLES;
}

void wire_put_join(sb *out, const engine_place *m)
{
    size_t at = begin(out, WIRE_JOIN);
    put_place(out, m);
    end(out, at);
}

status wire_get_join(engine_place *out, const wire_frame *f, err *e)
{
    cursor c = reader(f);
    engine_place m = {0};
    get_place(&c, &m);
    status s = finish(&c, f, WIRE_JOIN, e);
    if (s == STATUS_OK)
        *out = m;
    return s;
}

void wire_put_prepare(sb *out, const engine_place *m, bool paused)
{
    size_t at = begin(out, WIRE_PREPARE);
    put_u32(out, paused);
    put_place(out, m);
    end(out, at);
}

status wire_get_prepare(engine_place *out, bool *paused, const wire_frame *f, err *e)
{
    cursor c = reader(f);
    engine_place m = {0};
    uint32_t pauses = get_u32(&c);
    c.bad |= pauses > 1;
    get_place(&c, &m);
    status s = finish(&c, f, WIRE_PREPARE, e);
    if (s != STATUS_OK)
        return s;
    *out = m;
    *paused = pauses != 0;
    return s;
}

/* ---- HELLO, PROGRESS, READY, FAILED -------------------------------------------------------------------------------- */

void wire_put_hello(sb *out)
{
    size_t at = begin(out, WIRE_HELLO);
    put_u32(out, WIRE_VERSION);
    end(out, at);
}

status wire_get_hello(uint32_t *version, const wire_frame *f, err *e)
{
    cursor c = reader(f);
    *version = get_u32(&c);
    return finish(&c, f, WIRE_HELLO, e);
}

void wire_put_progress(sb *out, uint64_t done, uint64_t total)
{
    size_t at = begin(out, WIRE_PROGRESS);
    put_u64(out, done);
    put_u64(out, total);
    end(out, at);
}

status wire_get_progress(uint64_t *done, uint64_t *total, const wire_frame *f, err *e)
{
    cursor c = reader(f);
    *done = get_u64(&c);
    *total = get_u64(&c);
    return finish(&c, f, WIRE_PROGRESS, e);
}

void wire_put_ready(sb *out, const wire_ready *m)
{
    size_t at = begin(out, WIRE_READY);
    put_u64(out, (uint64_t)m->context);
    put_u64(out, m->state_tokens);
    put_i32(out, m->max_sequences);
    put_u64(out, m->weight_bytes);
    put_u64(out, m->state_bytes);
    put_u64(out, m->scratch_bytes);
    put_u64(out, m->load_us);
    put_string(out, m->isa);
    put_string(out, m->numerics);
    end(out, at);
}

status wire_get_ready(wire_ready *out, const wire_frame *f, arena *memory, err *e)
{
    cursor c = reader(f);
    wire_ready m = {0};
    m.context = (int64_t)get_u64(&c);
    m.state_tokens = get_u64(&c);
    m.max_sequences = get_i32(&c);
    m.weight_bytes = get_u64(&c);
    m.state_bytes = get_u64(&c);
    m.scratch_bytes = get_u64(&c);
    m.load_us = get_u64(&c);
    m.isa = get_string(&c, memory, false);
    m.numerics = get_string(&c, memory, false);
    status s = finish(&c, f, WIRE_READY, e);
    if (s == STATUS_OK)
        *out = m;
    return s;
}

void wire_put_failed(sb *out, const wire_failed *m)
{
    size_t at = begin(out, WIRE_FAILED);
    put_u32(out, (uint32_t)m->code);
    put_string(out, m->text);
    end(out, at);
}

static status get_status(cursor *c)
{
    uint32_t code = get_u32(c);
    return code < STATUS_COUNT ? (status)code : STATUS_INTERNAL;
}

/* Of something that failed: whatever it says, it is not OK. */
static status get_error(cursor *c)
{
    status code = get_status(c);
    return code == STATUS_OK ? STATUS_INTERNAL : code;
}

status wire_get_failed(wire_failed *out, const wire_frame *f, arena *memory, err *e)
{
    cursor c = reader(f);
    wire_failed m;
    m.code = get_error(&c);
    m.text = get_string(&c, memory, false);
    status s = finish(&c, f, WIRE_FAILED, e);
    if (s == STATUS_OK)
        *out = m;
    return s;
}

void wire_put_switched(sb *out, const wire_switched *m)
{
    size_t at = begin(out, WIRE_SWITCHED);
    put_u32(out, (uint32_t)m->code);
    put_string(out, m->text);
    put_u32(out, m->number);
    put_u64(out, m->weight_bytes);
    put_u64(out, m->state_bytes);
    put_u64(out, m->scratch_bytes);
    put_u64(out, m->read_bytes);
    put_u64(out, m->moved_bytes);
    end(out, at);
}

status wire_get_switched(wire_switched *out, const wire_frame *f, arena *memory, err *e)
{
    cursor c = reader(f);
    wire_switched m;
    m.code = get_status(&c);
    m.text = get_string(&c, memory, false);
    m.number = get_u32(&c);
    m.weight_bytes = get_u64(&c);
    m.state_bytes = get_u64(&c);
    m.scratch_bytes = get_u64(&c);
    m.read_bytes = get_u64(&c);
    m.moved_bytes = get_u64(&c);
    status s = finish(&c, f, WIRE_SWITCHED, e);
    if (s == STATUS_OK)
        *out = m;
    return s;
}

/* ---- EVENT, STATS -------------------------------------------------------------------------------------------------- */

void wire_put_event(sb *out, const engine_event *m)
{
    size_t at = begin(out, WIRE_EVENT);
    put_u32(out, (uint32_t)m->kind);
    put_u64(out, m->id);
    put_i32(out, m->choice);
    put_i32(out, m->index);
    put_i32(out, m->token);
    put_f32(out, m->logprob);
    put_i32(out, m->n_top);
    for (int i = 0; i < m->n_top; i++) {
        put_i32(out, m->top[i].token);
        put_f32(out, m->top[i].logprob);
    }
    put_u32(out, (uint32_t)m->reason);
    put_i32(out, m->n_prompt);
    put_i32(out, m->n_cached);
    put_i32(out, m->n_drafted);
    put_i32(out, m->n_accepted);
    put_u32(out, (uint32_t)m->code);
    put_string(out, m->text);
    put_u32(out, (uint32_t)m->n_vector);
    sb_add(out, m->vector ? m->vector : "", (size_t)m->n_vector * sizeof(float));
    end(out, at);
}

status wire_get_event(engine_event *out, const wire_frame *f, err *e)
{
    cursor c = reader(f);
    engine_event m = {0};
    m.kind = (engine_event_kind)get_u32(&c);
    m.id = get_u64(&c);
    m.choice = get_i32(&c);
    m.index = get_i32(&c);
    m.token = get_i32(&c);
    m.logprob = get_f32(&c);
    m.n_top = get_i32(&c);
    c.bad |= m.n_top < 0 || m.n_top > ENGINE_TOP_LOGPROBS || m.kind > ENGINE_PROMPT ||
             m.choice < 0 || m.choice >= ENGINE_CHOICES;
    for (int i = 0; i < m.n_top && !c.bad; i++) {
        m.top[i].token = get_i32(&c);
        m.top[i].logprob = get_f32(&c);
    }
    m.reason = (engine_reason)get_u32(&c);
    c.bad |= m.reason > ENGINE_ERROR;
    m.n_prompt = get_i32(&c);
    m.n_cached = get_i32(&c);
    m.n_drafted = get_i32(&c);
    m.n_accepted = get_i32(&c);
    m.code = m.kind == ENGINE_DONE && m.reason == ENGINE_ERROR ? get_error(&c) : get_status(&c);
    uint32_t n = get_u32(&c);
    const unsigned char *text = n < sizeof m.text ? take(&c, n) : NULL;
    if (text)
        memcpy(m.text, text, n);
    c.bad |= !text;
    uint32_t n_vector = get_u32(&c);
    c.bad |= n_vector > WIRE_MAX_PAYLOAD / sizeof(float);
    m.n_vector = c.bad ? 0 : (int)n_vector;
    m.vector = m.n_vector ? take(&c, (size_t)m.n_vector * sizeof(float)) : NULL;
    status s = finish(&c, f, WIRE_EVENT, e);
    if (s == STATUS_OK)
        *out = m;
    return s;
}

void wire_put_stats(sb *out, const engine_stats *m, uint64_t resident_bytes)
{
    size_t at = begin(out, WIRE_STATS);
    const uint64_t numbers[] = {m->steps,
                                m->prompt_tokens,
                                m->cached_tokens,
                                m->generated_tokens,
                                m->preemptions,
                                m->step_us,
                                m->state_tokens,
                                m->state_used_tokens,
                                m->cached_prefix_tokens,
                                m->drafted_tokens,
                                m->accepted_tokens};
    for (size_t i = 0; i < BASE_COUNT(numbers); i++)
        put_u64(out, numbers[i]);
    put_i32(out, m->waiting);
    put_i32(out, m->live);
    put_i32(out, m->decoding);
    put_u64(out, resident_bytes);
    end(out, at);
}

status wire_get_stats(engine_stats *out, uint64_t *resident_bytes, const wire_frame *f, err *e)
{
    cursor c = reader(f);
    engine_stats m = {0};
    uint64_t *numbers[] = {&m.steps,
                           &m.prompt_tokens,
                           &m.cached_tokens,
                           &m.generated_tokens,
                           &m.preemptions,
                           &m.step_us,
                           &m.state_tokens,
                           &m.state_used_tokens,
                           &m.cached_prefix_tokens,
                           &m.drafted_tokens,
                           &m.accepted_tokens};
    for (size_t i = 0; i < BASE_COUNT(numbers); i++)
        *numbers[i] = get_u64(&c);
    m.waiting = get_i32(&c);
    m.live = get_i32(&c);
    m.decoding = get_i32(&c);
    uint64_t resident = get_u64(&c);
    status s = finish(&c, f, WIRE_STATS, e);
    if (s == STATUS_OK) {
        *out = m;
        *resident_bytes = resident;
    }
    return s;
}
