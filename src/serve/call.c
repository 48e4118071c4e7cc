/*
 * The life of a call: waiting for its model → running → over. Everything that comes from below arrives here on the loop. The sink may
 * cancel the call from inside an event; such a call is only marked, and freed when the last of our frames has left it.
 */
#include "serve/serve_internal.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* ---- freeing ------------------------------------------------------------------------------------------------------- */

static void free_call(serve_call *c)
{
    serve_call **at = &c->of->calls;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    c->of->counters.live--;
    if (c->lease)
        node_release(c->lease);
    for (int i = 0; i < c->n_engine_choices; i++)
        choice_fini(&c->choices[i]);
    sb_fini(&c->prompt_text);
    sb_fini(&c->form);
    text_ids_fini(&c->ids);
    base_free(c->id);
    base_free(c->model);
    arena_fini(&c->memory);
    base_free(c);
}

void call_enter(serve_call *c)
{
    c->depth++;
}

void call_leave(serve_call *c)
{
    if (--c->depth == 0 && c->dead)
        free_call(c);
}

bool call_is_over(const serve_call *c)
{
    return c->dead || c->phase == PHASE_OVER;
}

void call_emit(serve_call *c, serve_event *event)
{
    if (c->dead)
        return;
    call_enter(c);
    c->sink(c->context, event);
    c->depth--; /* whoever called emit is inside call_enter itself */
}

static void end_call(serve_call *c, serve_event *last)
{
    if (call_is_over(c))
        return;
    c->phase = PHASE_OVER;
    call_emit(c, last);
    c->dead = true;
}

void call_fail(serve_call *c, const err *why)
{
    serve_event event = {.kind = SERVE_FAILED, .error = why, .n_prompt = c->n_prompt};
    if (why->code == STATUS_BUSY || why->code == STATUS_LOADING)
        event.retry_after_s = 1;
    if (!call_is_over(c))
        c->of->counters.failed++;
    end_call(c, &event);
}

void serve_cancel(serve_call *c)
{
    if (c->dead)
        return;
    if (c->phase != PHASE_OVER)
        c->of->counters.cancelled++;
    c->dead = true;
    call_enter(c);
    call_leave(c);
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

static void finish_call(serve_call *c)
{
    serve_counters *k = &c->of->counters;
    int n_generated = 0;
    for (int i = 0; i < c->n_engine_choices; i++)
        n_generated += c->choices[i].n_tokens;
    counters_add(&k->whole, os_now_us() - c->began_us);
    serve_event event = {.kind = SERVE_DONE,
                         .n_prompt = c->n_prompt,
                         .n_cached = c->n_cached,
                         .n_generated = n_generated,
                         .n_drafted = c->n_drafted,
                         .n_accepted = c->n_accepted};
    end_call(c, &event);
}

/* best_of: the n choices with the greatest mean logprob, best first, go through the pipeline now. */
static status show_best(serve_call *c, err *e)
{
    status s = STATUS_OK;
    int n = c->r.n_choices ? c->r.n_choices : 1;
    bool shown[ENGINE_CHOICES] = {false};
    for (int rank = 0; rank < n && s == STATUS_OK; rank++) {
        int best = -1;
        double best_mean = 0;
        for (int i = 0; i < c->n_engine_choices; i++) {
            const serve_choice *h = &c->choices[i];
            double mean = h->n_kept ? h->logprob_sum / h->n_kept : 0;
            if (!shown[i] && (best < 0 || mean > best_mean)) {
                best = i;
                best_mean = mean;
            }
        }
        serve_choice *h = &c->choices[best];
        shown[best] = true;
        s = choice_init(h, c, rank, e);
        bool stopped = false;
        for (int k = 0; k < h->n_kept && s == STATUS_OK && !stopped && !call_is_over(c); k++)
            s = choice_feed(h, &h->kept[k], false, &stopped, e);
        if (s == STATUS_OK && !call_is_over(c))
            s = choice_end(h, e);
    }
    return s;
}

static void take_time(serve_call *c)
{
    serve_counters *k = &c->of->counters;
    uint64_t now = os_now_us();
    if (!c->first_us) {
        c->first_us = now;
        counters_add(&k->first_token, now - c->began_us);
    } else {
        counters_add(&k->per_token, now - c->last_us);
    }
    c->last_us = now;
    k->generated_tokens++;
}

static status take_token(serve_call *c, serve_choice *h, const engine_event *event, err *e)
{
    bool stopped = false;
    status s = STATUS_OK;
    if (h->cut)
        return STATUS_OK; /* it was on its way when the choice was stopped */
    take_time(c);
    h->n_tokens++;
    serve_kept one = {.token = event->token, .logprob = event->logprob, .n_top = event->n_top};
    memcpy(one.top, event->top, sizeof one.top);
    if (c->buffered) {
        h->logprob_sum += (double)event->logprob;
        s = choice_keep(h, event, e);
    }
    if (s == STATUS_OK)
        s = choice_feed(h, &one, c->buffered, &stopped, e);
    if (s == STATUS_OK && stopped && !call_is_over(c)) {
        h->cut = true;
        node_cancel(c->lease, c->engine_id, event->choice);
    }
    return s;
}

static status take_done(serve_call *c, serve_choice *h, const engine_event *event, err *e)
{
    if (event->reason == ENGINE_ERROR)
        return err_set(e, event->code, "%s", event->text);
    if (h->finished)
        return STATUS_OK;
    h->finished = true;
    c->n_drafted += event->n_drafted;
    c->n_accepted += event->n_accepted;
    c->of->counters.drafted_tokens += (uint64_t)event->n_drafted;
    c->of->counters.accepted_tokens += (uint64_t)event->n_accepted;
    h->reason = event->reason;
    status s = c->buffered ? STATUS_OK : choice_end(h, e);
    if (s != STATUS_OK || call_is_over(c))
        return s;
    if (++c->n_finished < c->n_engine_choices)
        return STATUS_OK;
    if (c->buffered)
        s = show_best(c, e);
    if (s == STATUS_OK && !call_is_over(c))
        finish_call(c);
    return s;
}

/* A token of the prompt with its log-probability, for every choice; NULL: the first one, which has none. */
static void emit_prompt_token(serve_call *c, const engine_event *event)
{
    const text_tokenizer *t = node_instance_tokenizer(node_lease_instance(c->lease));
    serve_top top[ENGINE_TOP_LOGPROBS];
    int n = c->r.n_choices ? c->r.n_choices : 1, n_top = event ? event->n_top : 0;
    int32_t token = event ? event->token : c->first_prompt_token;
    for (int i = 0; i < n_top; i++)
        top[i] = (serve_top){event->top[i].token, text_token_bytes(t, event->top[i].token),
                             event->top[i].logprob};
    for (int i = 0; i < n && !call_is_over(c); i++) {
        serve_event one = {
            .kind = SERVE_LOGPROBS,
            .choice = i,
            .token = {token, text_token_bytes(t, token), event ? event->logprob : NAN},
            .n_top = n_top,
            .top = top};
        call_emit(c, &one);
    }
}

static void on_event(void *context, const engine_event *event)
{
    serve_call *c = context;
    err e;
    status s = STATUS_OK;
    if (call_is_over(c) || event->choice >= c->n_engine_choices)
        return;
    call_enter(c);
    serve_choice *h = &c->choices[event->choice];
    if (event->kind == ENGINE_STARTED) {
        c->n_prompt = event->n_prompt;
        c->n_cached = event->n_cached;
        c->of->counters.prompt_tokens += (uint64_t)event->n_prompt;
        c->of->counters.cached_tokens += (uint64_t)event->n_cached;
        serve_event started = {
            .kind = SERVE_STARTED, .n_prompt = c->n_prompt, .n_cached = c->n_cached};
        call_emit(c, &started);
        if (c->r.echo && c->r.top_logprobs >= 0 && c->first_prompt_token >= 0)
            emit_prompt_token(c, NULL);
    } else if (event->kind == ENGINE_PROMPT) {
        emit_prompt_token(c, event);
    } else if (event->kind == ENGINE_TOKEN) {
        s = take_token(c, h, event, &e);
    } else {
        s = take_done(c, h, event, &e);
    }
    if (s != STATUS_OK && !call_is_over(c))
        call_fail(c, &e);
    call_leave(c);
}

/* ---- beginning ----------------------------------------------------------------------------------------------------- */

/* The prompt in c->ids goes to the rank. */
static status submit(serve_call *c, err *e)
{
    const text_tokenizer *t = node_instance_tokenizer(node_lease_instance(c->lease));
    status s = STATUS_OK;
    if (c->ids.n > INT32_MAX)
        s = err_set(e, STATUS_TOO_LONG, "a prompt of %zu tokens", c->ids.n);
    for (int i = 0; i < c->n_engine_choices && s == STATUS_OK; i++)
        s = choice_init(&c->choices[i], c, i, e);
    if (s == STATUS_OK) {
        const int32_t *end = NULL;
        size_t n_end = c->r.ignore_end ? 0 : text_end_tokens(t, &end);
        engine_request request = {.prompt = c->ids.ids,
                                  .n_prompt = (int)c->ids.n,
                                  .n_choices = c->n_engine_choices,
                                  .max_tokens = c->r.max_tokens,
                                  .n_end = (int)n_end,
                                  .end = end,
                                  .sample = c->r.sample,
                                  .grammar = c->form.length ? c->form.data : NULL,
                                  .n_shown = c->n_shown,
                                  .shown = c->shown,
                                  .score_prompt = c->r.echo && c->r.top_logprobs >= 0,
                                  .prompt_only = c->r.prompt_only,
                                  .top_logprobs = c->buffered ? BASE_MAX(c->r.top_logprobs, 0)
                                                              : c->r.top_logprobs};
        c->n_prompt = (int)c->ids.n;
        c->first_prompt_token = c->ids.n ? c->ids.ids[0] : -1;
        s = node_submit(c->lease, &request, &c->engine_id, e);
        c->submitted = s == STATUS_OK;
    }
    text_ids_fini(&c->ids);
    return s;
}

static serve_call *call_of(serve_work *w)
{
    return (serve_call *)(void *)((char *)w - offsetof(serve_call, work));
}

/* On the worker's thread. */
static void build_there(serve_work *w, text_scratch *scratch)
{
    serve_call *c = call_of(w);
    c->built = prompt_build(c, scratch, &c->ids, &c->built_why);
}

static void built_there(serve_work *w)
{
    serve_call *c = call_of(w);
    if (!call_is_over(c)) {
        err e = c->built_why;
        status s = c->built;
        if (s == STATUS_OK)
            s = submit(c, &e);
        if (s != STATUS_OK)
            call_fail(c, &e);
    }
    call_leave(c);
}

/* Builds the prompt, here or, when it is long, on the worker's thread, and submits it. */
static status begin(serve_call *c, err *e)
{
    if (!prompt_is_long(c)) {
        status s = prompt_build(c, c->of->scratch, &c->ids, e);
        return s == STATUS_OK ? submit(c, e) : s;
    }
    if (c->r.chat_variables.data)
        node_instance_template(node_lease_instance(c->lease), c->r.has_tools);
    c->work = (serve_work){.run = build_there, .done = built_there};
    call_enter(c); /* until built_there */
    worker_add(c->of->worker, &c->work);
    return STATUS_OK;
}

/* The prompt as text: what the client wrote, or what its ids stand for. */
static status emit_echo(serve_call *c, err *e)
{
    int n = c->r.n_choices ? c->r.n_choices : 1;
    const text_tokenizer *t = node_instance_tokenizer(node_lease_instance(c->lease));
    status s = STATUS_OK;
    sb text;
    sb_init(&text);
    if (!c->r.prompt.data)
        s = text_decode(t, c->r.prompt_ids, (size_t)c->r.n_prompt_ids, 0, &text, e);
    for (int i = 0; i < n && s == STATUS_OK && !call_is_over(c); i++) {
        serve_event event = {.kind = SERVE_TEXT, .choice = i, .text = c->r.prompt};
        if (!c->r.prompt.data)
            event.text = (str){text.data, text.length};
        call_emit(c, &event);
    }
    sb_fini(&text);
    return s;
}

static status check_model(const serve_call *c, err *e)
{
    const node_instance *i = node_lease_instance(c->lease);
    model_pooling pooling = node_instance_card(i)->pooling;
    if (pooling == MODEL_POOLING_NONE)
        return STATUS_OK;
    return err_set(
        e, STATUS_INVALID,
        "%s is an embedding model (pooling %s) and writes no text: it is for /v1/embeddings",
        node_instance_name(i), model_pooling_name(pooling));
}

static void on_ready(void *context)
{
    serve_call *c = context;
    err e;
    if (call_is_over(c))
        return;
    call_enter(c);
    c->phase = PHASE_RUNNING;
    status s = check_model(c, &e);
    if (s == STATUS_OK && c->r.echo)
        s = emit_echo(c, &e);
    if (s == STATUS_OK && !call_is_over(c))
        s = begin(c, &e);
    if (s != STATUS_OK)
        call_fail(c, &e);
    call_leave(c);
}

static void on_progress(void *context, double share)
{
    serve_call *c = context;
    c->share = share;
}

static void on_failed(void *context, const err *why)
{
    serve_call *c = context;
    if (call_is_over(c))
        return;
    call_enter(c);
    call_fail(c, why);
    call_leave(c);
}

static bool copy_bytes(arena *memory, str *s)
{
    if (!s->data)
        return true;
    s->data = arena_strndup(memory, s->data, s->length);
    return s->data != NULL;
}

static bool copy_list(arena *memory, void *list, size_t size, int n)
{
    const void *from;
    memcpy(&from, list, sizeof from);
    void *to = arena_alloc(memory, BASE_MAX(size * (size_t)n, (size_t)1));
    if (to && n)
        memcpy(to, from, size * (size_t)n);
    memcpy(list, &to, sizeof to);
    return to != NULL;
}

/* Everything that r borrows, into the call's own memory. */
static bool copy_request(serve_call *c, const serve_request *r)
{
    c->r = *r;
    bool good =
        copy_bytes(&c->memory, &c->r.chat_variables) && copy_bytes(&c->memory, &c->r.prompt);
    good = good && copy_list(&c->memory, &c->r.prompt_ids, sizeof *r->prompt_ids, r->n_prompt_ids);
    good =
        good && copy_list(&c->memory, &c->r.sample.bias, sizeof *r->sample.bias, r->sample.n_bias);
    good = good &&
           copy_list(&c->memory, &c->r.sample.banned, sizeof *r->sample.banned, r->sample.n_banned);
    str *stop = good ? arena_zalloc(&c->memory, (size_t)r->n_stop + 1, sizeof *stop) : NULL;
    good = stop != NULL;
    for (int i = 0; i < r->n_stop && good; i++) {
        stop[i] = r->stop[i];
        good = copy_bytes(&c->memory, &stop[i]);
    }
    serve_tool *tools =
        good ? arena_zalloc(&c->memory, (size_t)r->n_tools + 1, sizeof *tools) : NULL;
    good = tools && copy_bytes(&c->memory, &c->r.schema);
    for (int i = 0; i < r->n_tools && good; i++) {
        tools[i] = r->tools[i];
        good =
            copy_bytes(&c->memory, &tools[i].name) && copy_bytes(&c->memory, &tools[i].parameters);
    }
    c->r.tools = tools;
    c->r.stop = stop;
    c->r.model = c->model;
    return good;
}

static status check(const serve *s, const serve_request *r, err *e)
{
    int n = r->n_choices ? r->n_choices : 1, best = r->best_of ? r->best_of : n;
    int most = BASE_MIN(s->o.max_choices ? s->o.max_choices : ENGINE_CHOICES, (int)ENGINE_CHOICES);
    if (n < 1 || n > most)
        return err_set(e, STATUS_INVALID, "n: expected 1 to %d, got %d", most, n);
    if (best < n || best > most)
        return err_set(e, STATUS_INVALID, "best_of: expected n (%d) to %d, got %d", n, most, best);
    if (r->top_logprobs > ENGINE_TOP_LOGPROBS)
        return err_set(e, STATUS_INVALID, "top_logprobs: expected 0 to %d, got %d",
                       ENGINE_TOP_LOGPROBS, r->top_logprobs);
    return sample_options_check(&r->sample, 0, e);
}

status serve_start(serve_call **out, serve *s, const char *id, const serve_request *r,
                   serve_sink sink, void *context, err *e)
{
    status result = check(s, r, e);
    if (result != STATUS_OK)
        return result;
    serve_call *c = base_zalloc(1, sizeof *c);
    if (!c)
        return err_set(e, STATUS_NO_MEMORY, "serve: no memory for a request");
    arena_init(&c->memory, 0);
    c->of = s;
    c->sink = sink;
    c->context = context;
    c->began_us = os_now_us();
    c->next = s->calls;
    s->calls = c;
    s->counters.live++;
    s->counters.requests++;
    c->id = base_strdup(id);
    c->model = r->model ? base_strdup(r->model) : NULL;
    int n = r->n_choices ? r->n_choices : 1;
    c->n_engine_choices = BASE_MAX(n, r->best_of);
    c->buffered = c->n_engine_choices > n;
    if (!c->id || (r->model && !c->model) || !copy_request(c, r))
        result = err_set(e, STATUS_NO_MEMORY, "serve: no memory for a request");
    if (result == STATUS_OK && !r->has_seed)
        result = os_random(&c->r.sample.seed, sizeof c->r.sample.seed, e);
    if (result == STATUS_OK) {
        node_listener listener = {on_ready, on_progress, on_failed, on_event, c};
        result = node_acquire(&c->lease, s->n, r->model, &listener, e);
    }
    if (result != STATUS_OK) {
        s->counters.failed++;
        free_call(c);
        return result;
    }
    *out = c;
    return STATUS_OK;
}

/* ---- questions ----------------------------------------------------------------------------------------------------- */

const char *serve_call_model(const serve_call *c)
{
    return node_instance_name(node_lease_instance(c->lease));
}

void serve_call_fingerprint(const serve_call *c, char out[64])
{
    const node_instance *i = node_lease_instance(c->lease);
    const model_card *card = node_instance_card(i);
    unsigned char bytes[8] = {0};
    char hex[17];
    for (int k = 0; card && k < 8; k++)
        bytes[k] = (unsigned char)(card->hash >> (56 - 8 * k));
    base_hex(hex, bytes, sizeof bytes);
    const char *numerics = node_instance_numerics(i);
    size_t n = BASE_MIN(strlen(numerics), (size_t)40);
    memcpy(out, numerics, n);
    out[n] = '-';
    memcpy(out + n + 1, hex, sizeof hex);
}

void serve_pause(serve_call *c, bool on)
{
    if (c->submitted && !call_is_over(c))
        node_hold(c->lease, c->engine_id, -1, on);
}
