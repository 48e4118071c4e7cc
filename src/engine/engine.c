/*
 * Continuous batching. A sequence is one choice of a request: a list of tokens (prompt and what was generated) and a state that holds
 * the first `length` of them. What is missing is pending: one token for a sequence that decodes, many for a prompt, or for a
 * sequence that gave up its state and is read again. A step gives every decoding sequence its token, then hands the rest of its budget
 * to the others, oldest first. A run that reaches the end of its list wants logits, and its sequence gets a new token.
 *
 * Order is age: requests begin in the order of submission; when pages run out the youngest sequence goes back to the front of the queue.
 * So the oldest always moves on, and the engine as a whole does.
 */
#include "engine/inside.h"
#include "os/os.h"

#include <string.h>

enum { DEFAULT_SEQUENCES = 32, DEFAULT_WAITING = 256, DEFAULT_CHUNK = 128 };

/* ---- creation ------------------------------------------------------------------------------------------------------ */

uint64_t engine_pool_salt(const model *m)
{
    const char *numerics = model_numerics(m);
    uint64_t salt = hash_bytes(numerics, strlen(numerics), model_get_card(m)->hash);
    return hash_u64((uint64_t)model_get_options(m)->kv, salt);
}

status engine_create(engine **out, model *m, const engine_options *o, engine_sink sink,
                     void *context, err *e)
{
    const model_options *mo = model_get_options(m);
    engine *g = base_zalloc(1, sizeof *g);
    if (!g)
        return err_set(e, STATUS_NO_MEMORY, "engine: no memory");
    g->at[0].m = m;
    g->o = *o;
    g->sink = sink;
    g->context = context;
    g->positions = mo->context;
    g->n_vocab = (int)model_get_card(m)->n_vocab;
    g->pooling = model_get_card(m)->pooling;
    g->width = g->pooling == MODEL_POOLING_NONE ? g->n_vocab : model_row_width(m);
    g->both_ways = model_get_card(m)->both_ways;
    g->max_tokens = mo->max_tokens;
    g->max_outputs = mo->max_outputs;
    int most = BASE_MIN(BASE_MIN(g->max_outputs, g->max_tokens), mo->n_sequences);
    g->o.max_sequences = BASE_MIN(o->max_sequences ? o->max_sequences : DEFAULT_SEQUENCES, most);
    g->o.max_waiting = o->max_waiting ? o->max_waiting : DEFAULT_WAITING;
    g->o.chunk = BASE_MIN(o->chunk ? o->chunk : DEFAULT_CHUNK, g->max_tokens);
    g->last_waiting = &g->first_waiting;
    g->outputs = base_alloc(sizeof *g->outputs * (size_t)g->max_outputs);
    g->vector = base_alloc(sizeof *g->vector * (size_t)g->width);
    g->one_row = base_alloc(sizeof *g->one_row * (size_t)g->width);
    status s = STATUS_OK;
    if (!g->outputs || !g->vector || !g->one_row)
        s = err_set(e, STATUS_NO_MEMORY, "engine: no memory for steps of %d tokens", g->max_tokens);
    if (s == STATUS_OK)
        s = engine_make_flights(g, m, e);
    if (s == STATUS_OK)
        s = kernel_select(&g->kernels, os_cpu_features(), model_isa(m), e);
    if (s == STATUS_OK)
        s = sample_scratch_create(&g->scratch, g->n_vocab, e);
    if (s == STATUS_OK)
        s = guides_create(&g->guides, e);
    if (s == STATUS_OK)
        s = engine_pool_create(&g->at[0].pool, m, engine_pool_salt(m), o->cache_slots, e);
    if (s == STATUS_OK)
        s = g->pooling == MODEL_POOLING_NONE ? draft_create(&g->draft, &g->o, m, e) : s;
    if (s == STATUS_OK && g->draft &&
        !(g->calls = base_alloc(sizeof *g->calls * (size_t)g->o.max_sequences)))
        s = err_set(e, STATUS_NO_MEMORY, "engine: no memory for drafts");
    if (s != STATUS_OK) {
        engine_destroy(g);
        return s;
    }
    *out = g;
    return STATUS_OK;
}

static void free_request(request *r)
{
    if (!r)
        return;
    base_free(r->prompt);
    base_free(r->end);
    base_free(r->bias);
    base_free(r->banned);
    base_free(r->shown);
    base_free(r->grammar);
    if (r->form)
        guides_release(r->forms, r->form);
    base_free(r);
}

static void free_sequence(sequence *q)
{
    if (!q)
        return;
    engine_state_drop(q->state);
    engine_state_drop(q->twin);
    draft_sequence_destroy(q->guesses);
    sample_destroy(q->sampler);
    sample_guide_destroy(q->guide);
    base_free(q->tokens);
    base_free(q->sum);
    base_free(q);
}

/* Takes q out of the list, frees it, and its request with the last choice. */
static void remove_sequence(engine *g, sequence *q)
{
    sequence **at = &g->sequences;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    engine_forget(g, q);
    g->n_sequences--;
    if (--q->of->n_live == 0)
        free_request(q->of);
    free_sequence(q);
}

void engine_destroy(engine *g)
{
    if (!g)
        return;
    while (g->sequences) /* first, so that nobody hears of what comes of their steps */
        remove_sequence(g, g->sequences);
    while (g->first_waiting) {
        request *r = g->first_waiting;
        g->first_waiting = r->next;
        free_request(r);
    }
    (void)engine_land(g, NULL);
    draft_destroy(g->draft);
    engine_pool_destroy(g->at[0].pool);
    engine_pool_destroy(g->at[1].pool);
    base_free(g->calls);
    engine_free_flights(g);
    base_free(g->outputs);
    base_free(g->vector);
    base_free(g->one_row);
    sample_scratch_destroy(g->scratch);
    guides_destroy(g->guides);
    base_free(g);
}

/* ---- submit -------------------------------------------------------------------------------------------------------- */

static status check_request(const engine *g, const engine_request *r, err *e)
{
    if (r->n_prompt < 1)
        return err_set(e, STATUS_INVALID, "the prompt is empty: at least one token is needed");
    if (r->embed != (g->pooling != MODEL_POOLING_NONE))
        return err_set(e, STATUS_INVALID,
                       r->embed ? "the model writes text and has no embeddings"
                                : "the model embeds texts and writes none");
    if (r->n_prompt >= g->positions + r->embed)
        return err_set(
            e, STATUS_TOO_LONG,
            "the prompt has %d tokens, %lld too many: the context of %lld needs room for one more",
            r->n_prompt, (long long)(r->n_prompt - g->positions + 1), (long long)g->positions);
    for (int i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= g->n_vocab)
            return err_set(e, STATUS_INVALID, "prompt token %d is %d: expected 0 to %d", i,
                           r->prompt[i], g->n_vocab - 1);
    int choices = r->n_choices ? r->n_choices : 1;
    if (r->embed && choices > 1)
        return err_set(e, STATUS_INVALID, "%d choices of a vector", choices);
    if (choices < 1 || choices > ENGINE_CHOICES || choices > g->o.max_sequences)
        return err_set(e, STATUS_INVALID, "%d choices: expected 1 to %d", r->n_choices,
                       BASE_MIN((int)ENGINE_CHOICES, g->o.max_sequences));
    if (r->embed && (r->grammar || r->score_prompt))
        return err_set(e, STATUS_INVALID, "a vector has no form and no log-probabilities");
    if (r->n_shown < 0 || (r->score_prompt && r->top_logprobs < 0))
        return err_set(e, STATUS_INVALID, "%d shown tokens, scores without logprobs", r->n_shown);
    if (r->max_tokens < 0 || r->n_end < 0 || r->top_logprobs < -1 ||
        r->top_logprobs > ENGINE_TOP_LOGPROBS)
        return err_set(e, STATUS_INVALID, "max_tokens %d, %d end tokens, %d logprobs: out of range",
                       r->max_tokens, r->n_end, r->top_logprobs);
    if (g->n_waiting >= g->o.max_waiting)
        return err_set(e, STATUS_BUSY, "%d requests are waiting already", g->n_waiting);
    return sample_options_check(&r->sample, g->n_vocab, e);
}

/* *out = a heap copy, valid (and to be freed) also for n = 0; false without memory. */
static bool copy_array(void *out, const void *from, size_t size, int n)
{
    void *copy = base_alloc(size * (size_t)n);
    if (copy && n)
        memcpy(copy, from, size * (size_t)n);
    memcpy(out, &copy, sizeof copy);
    return copy != NULL;
}

status engine_submit(engine *g, const engine_request *r, err *e)
{
    status s = check_request(g, r, e);
    if (s != STATUS_OK)
        return s;
    request *copy = base_zalloc(1, sizeof *copy);
    bool good = copy != NULL;
    good = good && copy_array(&copy->prompt, r->prompt, sizeof *r->prompt, r->n_prompt);
    good = good && copy_array(&copy->end, r->end, sizeof *r->end, r->n_end);
    good = good && copy_array(&copy->shown, r->shown, sizeof *r->shown, r->n_shown);
    if (good && r->grammar)
        good = (copy->grammar = base_strdup(r->grammar)) != NULL;
    good =
        good && copy_array(&copy->bias, r->sample.bias, sizeof *r->sample.bias, r->sample.n_bias);
    good = good && copy_array(&copy->banned, r->sample.banned, sizeof *r->sample.banned,
                              r->sample.n_banned);
    if (!good) {
        free_request(copy);
        return err_set(e, STATUS_NO_MEMORY, "engine: no memory for a prompt of %d tokens",
                       r->n_prompt);
    }
    copy->r = *r;
    copy->r.n_choices = copy->n_live = r->n_choices ? r->n_choices : 1;
    copy->r.prompt = copy->prompt;
    copy->r.end = copy->end;
    copy->r.shown = copy->shown;
    copy->r.grammar = copy->grammar;
    copy->r.sample.bias = copy->bias;
    copy->r.sample.banned = copy->banned;
    *g->last_waiting = copy;
    g->last_waiting = &copy->next;
    g->n_waiting++;
    return STATUS_OK;
}

/* ---- events -------------------------------------------------------------------------------------------------------- */

/* q: the choice's sequence, NULL when it never began */
static void send_done_of(engine *g, const request *r, const sequence *q, int choice, int n_emitted,
                         engine_reason reason, const err *why)
{
    engine_event event = {.kind = ENGINE_DONE,
                          .id = r->r.id,
                          .choice = choice,
                          .index = n_emitted,
                          .reason = reason,
                          .n_prompt = r->r.n_prompt,
                          .n_cached = r->n_cached,
                          .n_drafted = q ? q->n_drafted : 0,
                          .n_accepted = q ? q->n_accepted : 0};
    if (why) {
        event.code = why->code;
        size_t n = strnlen(why->text, sizeof event.text - 1);
        memcpy(event.text, why->text, n);
        event.text[n] = '\0';
    }
    g->sink(g->context, &event);
}

void engine_send_done(engine *g, const request *r, int choice, int n_emitted, engine_reason reason,
                      const err *why)
{
    send_done_of(g, r, NULL, choice, n_emitted, reason, why);
}

void engine_finish(engine *g, sequence *q, int n_emitted, engine_reason reason, const err *why)
{
    send_done_of(g, q->of, q, q->choice, n_emitted, reason, why);
    remove_sequence(g, q);
}

void engine_cancel(engine *g, uint64_t id, int choice)
{
    for (sequence *q = g->sequences; q; q = q->next)
        if (q->of->r.id == id && (choice < 0 || q->choice == choice))
            q->cancelled = true;
    for (request **at = &g->first_waiting; *at; at = &(*at)->next) {
        request *r = *at;
        if (r->r.id != id)
            continue;
        if (choice >= 0 && r->r.n_choices > 1)
            return; /* one choice of a request that has not begun: it begins with all of them */
        *at = r->next;
        if (g->last_waiting == &r->next)
            g->last_waiting = at;
        g->n_waiting--;
        for (int i = 0; i < r->r.n_choices; i++)
            engine_send_done(g, r, i, 0, ENGINE_CANCELLED, NULL);
        free_request(r);
        return;
    }
}

void engine_hold(engine *g, uint64_t id, int choice, bool on)
{
    for (sequence *q = g->sequences; q; q = q->next)
        if (q->of->r.id == id && (choice < 0 || q->choice == choice))
            q->held = on;
    for (request *r = g->first_waiting; r; r = r->next)
        if (r->r.id == id)
            r->held = on;
}

/* Cancelled sequences leave. A request whose first choice is cancelled before the others were forked ends as a whole. */
static void remove_cancelled(engine *g)
{
    for (sequence *q = g->sequences, *next; q; q = next) {
        next = q->next;
        if (!q->cancelled)
            continue;
        request *r = q->of;
        if (q->choice == 0 && engine_emitted(q) == 0) {
            for (int i = 1; i < r->r.n_choices; i++) {
                engine_send_done(g, r, i, 0, ENGINE_CANCELLED, NULL);
                r->n_live--;
                g->n_sequences--;
            }
        }
        engine_finish(g, q, engine_emitted(q), ENGINE_CANCELLED, NULL);
    }
}

void engine_give_up_state(engine *g, sequence *q)
{
    if (q->sum)
        memset(q->sum, 0, sizeof *q->sum * (size_t)g->width);
    engine_state_drop(q->state);
    engine_state_drop(q->twin);
    q->state = q->twin = NULL;
    draft_sequence_forget(q->guesses);
    g->stats.preemptions++;
}

/* ---- beginning ----------------------------------------------------------------------------------------------------- */

status engine_new_sequence(sequence **out, engine *g, request *r, int choice, const int32_t *tokens,
                           int n, err *e)
{
    sequence *q = base_zalloc(1, sizeof *q);
    int room = (int)g->positions;
    if (r->r.max_tokens > 0 && r->r.max_tokens < room - r->r.n_prompt)
        room = r->r.n_prompt + r->r.max_tokens;
    status s = STATUS_OK;
    if (q) {
        q->of = r;
        q->choice = choice;
        q->capacity = room + 1;
        q->tokens = base_alloc(sizeof(int32_t) * (size_t)q->capacity);
        if (r->r.embed && g->pooling == MODEL_POOLING_MEAN &&
            !(q->sum = base_zalloc((size_t)g->width, sizeof *q->sum)))
            s = err_set(e, STATUS_NO_MEMORY, "engine: no memory for a vector");
        else if (!r->r.embed && r->form)
            s = sample_guide_create(&q->guide, r->form, e);
        if (s == STATUS_OK && !r->r.embed)
            s = sample_create(&q->sampler, g->kernels, g->n_vocab, &r->r.sample, choice, e);
    }
    if (!q || !q->tokens)
        s = err_set(e, STATUS_NO_MEMORY, "engine: no memory for a sequence of %d tokens", room);
    if (s == STATUS_OK && g->draft)
        s = draft_sequence_create(&q->guesses, g->draft, q->capacity, e);
    if (s != STATUS_OK) {
        free_sequence(q);
        return s;
    }
    memcpy(q->tokens, tokens, sizeof(int32_t) * (size_t)n);
    q->n_tokens = n;
    q->n_prompt = r->r.n_prompt;
    if (q->sampler)
        sample_prompt(q->sampler, r->prompt, r->r.n_prompt);
    *out = q;
    return STATUS_OK;
}

void engine_insert(engine *g, sequence *q)
{
    sequence **at = &g->sequences;
    while (*at && (*at)->age <= q->age)
        at = &(*at)->next;
    q->next = *at;
    *at = q;
}

/* The first waiting request becomes a sequence without state. */
static void begin_request(engine *g)
{
    request *r = g->first_waiting;
    g->first_waiting = r->next;
    if (!g->first_waiting)
        g->last_waiting = &g->first_waiting;
    g->n_waiting--;
    sequence *q;
    err e;
    status s = STATUS_OK;
    r->forms = g->guides;
    if (r->grammar)
        s = guides_acquire(g->guides, model_get_card(g->at[0].m), &r->r, &r->form, &e);
    if (s == STATUS_OK)
        s = engine_new_sequence(&q, g, r, 0, r->prompt, r->r.n_prompt, &e);
    if (s != STATUS_OK) {
        for (int i = 0; i < r->r.n_choices; i++)
            engine_send_done(g, r, i, 0, ENGINE_ERROR, &e);
        free_request(r);
        return;
    }
    q->age = g->next_age++;
    q->held = r->held;
    g->n_sequences += r->r.n_choices;
    engine_insert(g, q);
}

static void send_started(engine *g, sequence *q, int64_t n_cached)
{
    request *r = q->of;
    if (r->started)
        return;
    r->started = true;
    r->n_cached = (int)n_cached;
    g->stats.cached_tokens += (uint64_t)n_cached;
    engine_event event = {
        .kind = ENGINE_STARTED, .id = r->r.id, .n_prompt = r->r.n_prompt, .n_cached = r->n_cached};
    g->sink(g->context, &event);
}

/* A held sequence gives up its state; false: none has any. */
static bool preempt_held(engine *g)
{
    for (sequence *q = g->sequences; q; q = q->next) {
        if (q->held && !q->flying && is_here(g, q)) {
            engine_give_up_state(g, q);
            return true;
        }
    }
    return false;
}

/* Gives q a state, from the cache as far as it goes. false: there is no room now. */
static bool give_state(engine *g, sequence *q)
{
    bool reuse = reuses(g, q) && !engine_scores(q);
    engine_state *state;
    engine_pool *pool = g->at[g->now].pool;
    if (engine_state_create(&state, pool, NULL) != STATUS_OK)
        return false;
    int64_t n_cached = reuse ? engine_state_reuse(state, q->tokens, q->n_tokens) : 0;
    while (!engine_pool_has_room(pool, state, q->n_tokens - n_cached + 1)) {
        if (is_alone(g, q))
            break;
        if (!preempt_held(g)) {
            engine_state_drop(state);
            return false;
        }
    }
    q->state = state;
    q->side = g->now;
    send_started(g, q, n_cached);
    return true;
}

/* Requests begin while there is a place for all their choices, and get state while there is room, strictly in order. */
static void admit(engine *g)
{
    g->now = g->at[1].m != NULL; /* who has no state begins where all are going */
    for (sequence *q = g->sequences; q; q = q->next)
        if (!q->state && !q->held && !give_state(g, q))
            return;
    while (g->first_waiting &&
           g->n_sequences + g->first_waiting->r.n_choices <= g->o.max_sequences) {
        begin_request(g);
        sequence *youngest = g->sequences;
        while (youngest && youngest->next)
            youngest = youngest->next;
        if (youngest && !youngest->state && !give_state(g, youngest))
            return;
    }
}

/* ---- steps --------------------------------------------------------------------------------------------------------- */

/* Who waits for a place that only held sequences could free is no work: the next word comes from outside. */
static bool has_work(const engine *g)
{
    for (const sequence *q = g->sequences; q; q = q->next)
        if (!q->held || q->cancelled)
            return true;
    return g->first_waiting && g->n_sequences + g->first_waiting->r.n_choices <= g->o.max_sequences;
}

status engine_step(engine *g, bool *busy, err *e)
{
    remove_cancelled(g);
    if (!g->at[0].pool) { /* between two epochs */
        *busy = has_work(g);
        return STATUS_OK;
    }
    admit(g);
    g->now = 0;
    status s = engine_step_side(g, e);
    if (s == STATUS_OK && g->at[1].m) {
        g->now = 1;
        s = engine_step_side(g, e);
        if (s == STATUS_OK && g->at[1].m)
            engine_move_sequences(g);
        g->now = 0;
    }
    *busy = has_work(g) || g->at[1].m || g->n_flights > 0;
    return s;
}

void engine_get_stats(const engine *g, engine_stats *out)
{
    uint64_t total, unused, cached;
    *out = g->stats;
    out->waiting = g->n_waiting;
    out->flights = g->n_flights;
    out->live = out->decoding = 0;
    for (const sequence *q = g->sequences; q; q = q->next) {
        out->live++;
        out->decoding += q->state && pending(q) == 1;
    }
    const engine_pool *pool = g->at[g->at[1].m != NULL].pool;
    total = unused = cached = 0;
    if (pool)
        engine_pool_usage(pool, &total, &unused, &cached);
    out->state_tokens = total * 64;
    out->state_used_tokens = (total - unused - cached) * 64;
    out->cached_prefix_tokens = cached * 64;
}
