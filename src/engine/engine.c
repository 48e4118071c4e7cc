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
#include "engine/rows.h"
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
    size_t tokens = (size_t)g->max_tokens, rows = (size_t)g->max_outputs;
    g->ids = base_alloc(sizeof *g->ids * tokens);
    g->runs = base_alloc(sizeof *g->runs * tokens);
    g->run_of = base_alloc(sizeof *g->run_of * tokens);
    g->outputs = base_alloc(sizeof *g->outputs * rows);
    g->logits = base_alloc(sizeof *g->logits * rows * (size_t)g->width);
    g->vector = base_alloc(sizeof *g->vector * (size_t)g->width);
    g->one_row = base_alloc(sizeof *g->one_row * (size_t)g->width);
    status s = STATUS_OK;
    if (!g->ids || !g->runs || !g->run_of || !g->outputs || !g->logits || !g->vector || !g->one_row)
        s = err_set(e, STATUS_NO_MEMORY, "engine: no memory for steps of %d tokens", g->max_tokens);
    if (s == STATUS_OK)
        s = kernel_select(&g->kernels, os_cpu_features(), model_isa(m), e);
    if (s == STATUS_OK)
        s = sample_scratch_create(&g->scratch, g->n_vocab, e);
    if (s == STATUS_OK)
        s = guides_create(&g->guides, m, e);
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
    g->n_sequences--;
    if (--q->of->n_live == 0)
        free_request(q->of);
    free_sequence(q);
}

void engine_destroy(engine *g)
{
    if (!g)
        return;
    while (g->sequences)
        remove_sequence(g, g->sequences);
    while (g->first_waiting) {
        request *r = g->first_waiting;
        g->first_waiting = r->next;
        free_request(r);
    }
    draft_destroy(g->draft);
    engine_pool_destroy(g->at[0].pool);
    engine_pool_destroy(g->at[1].pool);
    base_free(g->calls);
    base_free(g->ids);
    base_free(g->runs);
    base_free(g->run_of);
    base_free(g->outputs);
    base_free(g->logits);
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

static void send_done(engine *g, const request *r, int choice, int n_emitted, engine_reason reason,
                      const err *why)
{
    send_done_of(g, r, NULL, choice, n_emitted, reason, why);
}

static int emitted(const sequence *q)
{
    return q->n_tokens - q->n_prompt;
}

static void finish(engine *g, sequence *q, int n_emitted, engine_reason reason, const err *why)
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
            send_done(g, r, i, 0, ENGINE_CANCELLED, NULL);
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
        if (q->choice == 0 && emitted(q) == 0) {
            for (int i = 1; i < r->r.n_choices; i++) {
                send_done(g, r, i, 0, ENGINE_CANCELLED, NULL);
                r->n_live--;
                g->n_sequences--;
            }
        }
        finish(g, q, emitted(q), ENGINE_CANCELLED, NULL);
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

static status new_sequence(sequence **out, engine *g, request *r, int choice, const int32_t *tokens,
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

/* Into the list, by age. */
static void insert(engine *g, sequence *q)
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
        s = guides_acquire(g->guides, &r->r, &r->form, &e);
    if (s == STATUS_OK)
        s = new_sequence(&q, g, r, 0, r->prompt, r->r.n_prompt, &e);
    if (s != STATUS_OK) {
        for (int i = 0; i < r->r.n_choices; i++)
            send_done(g, r, i, 0, ENGINE_ERROR, &e);
        free_request(r);
        return;
    }
    q->age = g->next_age++;
    q->held = r->held;
    g->n_sequences += r->r.n_choices;
    insert(g, q);
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
        if (q->held && is_here(g, q)) {
            engine_give_up_state(g, q);
            return true;
        }
    }
    return false;
}

/* Whether rows of the prompt are still to be looked at for log-probabilities. */
static bool scores(const sequence *q)
{
    return q->of->r.score_prompt && q->choice == 0 && q->of->n_scored < q->n_prompt - 1;
}

/* Gives q a state, from the cache as far as it goes. false: there is no room now. */
static bool give_state(engine *g, sequence *q)
{
    bool reuse = reuses(g, q) && !scores(q);
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

/* ---- the step ------------------------------------------------------------------------------------------------------ */

/* The youngest sequence with state, held ones before others, gives it up. false: only q itself has any. */
static bool preempt_other(engine *g, const sequence *q)
{
    sequence *victim = NULL;
    for (sequence *other = g->sequences; other; other = other->next)
        if (other != q && is_here(g, other) && other->n_run == 0 &&
            (!victim || other->held >= victim->held))
            victim = other;
    if (!victim || (!victim->held && victim->age < q->age))
        return false;
    engine_give_up_state(g, victim);
    return true;
}

/* Makes room for n positions of q, at others' cost when need be. */
static bool make_room(engine *g, sequence *q, int64_t n)
{
    while (engine_state_extend(q->state, n, NULL) != STATUS_OK) {
        if (preempt_other(g, q))
            continue;
        engine_give_up_state(g, q);
        return false;
    }
    return true;
}

static void add_run(engine *g, plan *b, sequence *q, int64_t n)
{
    int64_t length = engine_state_length(q->state);
    memcpy(g->ids + b->n_tokens, q->tokens + length, sizeof(int32_t) * (size_t)n);
    engine_state_run(q->state, (int)n, &g->runs[b->n_runs]);
    g->run_of[b->n_runs++] = q;
    b->n_tokens += (int)n;
    q->n_run = (int)n;
    q->output = -1;
    q->scored = scores(q);
    bool all = g->pooling == MODEL_POOLING_MEAN || q->scored;
    if (all || (g->pooling == MODEL_POOLING_CLS && length == 0)) {
        q->output = b->n_outputs;
        for (int i = 0; i < (all ? (int)n : 1); i++)
            g->outputs[b->n_outputs++] = b->n_tokens - (int)n + i;
    } else if (g->pooling != MODEL_POOLING_CLS && length + n == q->n_tokens + q->n_draft) {
        q->output = b->n_outputs;
        for (int i = q->n_draft; i >= 0; i--)
            g->outputs[b->n_outputs++] = b->n_tokens - 1 - i;
    }
}

static bool decodes(const engine *g, const sequence *q)
{
    return is_here(g, q) && !q->held && pending(q) == 1;
}

/* Guesses that q may check: as many tokens as it may still have but one, and as far as its state can go in one run. */
static int guess_room(const engine *g, const sequence *q)
{
    int64_t left = BASE_MIN((int64_t)q->capacity - 1, g->positions) - q->n_tokens;
    return (int)BASE_MIN(left, engine_state_run_limit(q->state)) - 1;
}

static bool may_guess(const engine *g, const sequence *q)
{
    return g->draft && decodes(g, q) && emitted(q) > 0;
}

/* Asks for guesses for every sequence that decodes; they lie behind its tokens, n_draft of them. */
static void guess(engine *g)
{
    int n = 0, n_rows = 0;
    for (sequence *q = g->sequences; q; q = q->next) {
        q->n_draft = 0;
        if (g->draft && is_here(g, q) && !q->held)
            n_rows += (int)BASE_MIN(pending(q), (int64_t)g->o.chunk);
        if (may_guess(g, q) && n < g->o.max_sequences)
            g->calls[n++] = (draft_call){.s = q->guesses,
                                         .tokens = q->tokens,
                                         .n_tokens = q->n_tokens,
                                         .sampler = q->sampler,
                                         .room = guess_room(g, q)};
    }
    if (n == 0)
        return;
    int spare = BASE_MIN(g->max_outputs - g->o.max_sequences, (g->max_tokens - n) / 2);
    draft_propose(g->draft, g->calls, n, BASE_MIN(n_rows, g->max_tokens), spare);
    const draft_call *c = g->calls;
    for (sequence *q = g->sequences; q && c < g->calls + n; q = q->next) {
        if (!may_guess(g, q))
            continue;
        q->n_draft = c->n;
        memcpy(q->tokens + q->n_tokens, c->ids, sizeof(int32_t) * (size_t)c->n);
        c++;
    }
}

/* Room for q's newest token and its guesses. Nobody gives way for guesses, and constant-size state must be able to come back. */
static bool make_room_to_decode(engine *g, sequence *q)
{
    if (q->n_draft > 0 && engine_state_extend(q->state, 1 + q->n_draft, NULL) == STATUS_OK &&
        engine_state_snapshot(q->state, NULL) == STATUS_OK)
        return true;
    q->n_draft = 0;
    return make_room(g, q, 1);
}

/* Decoding sequences first, each its token; then prompts, oldest first, out of what is left. */
static plan make_plan(engine *g)
{
    plan b = {0};
    for (sequence *q = g->sequences; q; q = q->next)
        q->n_run = 0;
    guess(g);
    for (sequence *q = g->sequences; q; q = q->next)
        if (decodes(g, q) && b.n_outputs < g->max_outputs && make_room_to_decode(g, q))
            add_run(g, &b, q, 1 + q->n_draft);
    bool decoding = (b.n_tokens || g->now == 1) && g->pooling == MODEL_POOLING_NONE;
    int budget = BASE_MIN(decoding ? g->o.chunk : g->max_tokens, g->max_tokens - b.n_tokens);
    if (g->now == 1)
        engine_plan_twins(g, &b, &budget);
    for (sequence *q = g->sequences; q && budget > 0; q = q->next) {
        if (!is_here(g, q) || q->held || q->n_run)
            continue;
        int64_t n =
            BASE_MIN(BASE_MIN(pending(q), (int64_t)budget), engine_state_run_limit(q->state));
        bool whole = n == pending(q);
        if (g->both_ways && !whole)
            continue;
        if (scores(q)) /* every row of it is an output */
            n = BASE_MIN(n, g->max_outputs - b.n_outputs);
        if (n == 0)
            continue;
        whole = n == pending(q);
        if (whole && b.n_outputs >= g->max_outputs && --n == 0)
            continue;
        if (!make_room(g, q, n))
            continue;
        add_run(g, &b, q, n);
        budget -= (int)n;
    }
    return b;
}

static void fill_logprobs(engine_event *event, const sample_result *r)
{
    event->logprob = r->logprob;
    event->n_top = r->n_top;
    for (int i = 0; i < r->n_top; i++) {
        event->top[i].token = r->top[i].token;
        event->top[i].logprob = r->top[i].logprob;
    }
}

static bool is_end(const request *r, int32_t token)
{
    for (int i = 0; i < r->r.n_end; i++)
        if (r->end[i] == token)
            return true;
    return false;
}

/* Tells the log-probabilities of the prompt's tokens behind the rows of a step. */
static status score_rows(engine *g, sequence *q, const float *rows, int n, err *e)
{
    request *r = q->of;
    int64_t first = engine_state_length(q->state) - n; /* position of the first row */
    for (int i = 0; i < n; i++) {
        int64_t at = first + i + 1;
        if (at >= q->n_prompt || at <= r->n_scored)
            continue;
        status s = sample_score(g->scratch, g->kernels, rows + (size_t)i * (size_t)g->width,
                                r->prompt[at], r->r.top_logprobs, &g->result, e);
        if (s != STATUS_OK)
            return s;
        engine_event event = {
            .kind = ENGINE_PROMPT, .id = r->r.id, .index = (int)at, .token = r->prompt[at]};
        fill_logprobs(&event, &g->result);
        g->sink(g->context, &event);
        r->n_scored = (int)at;
    }
    return STATUS_OK;
}

/* The next token of q out of its row of logits. false: q is gone. */
static bool choose_token(engine *g, sequence *q, float *logits)
{
    request *r = q->of;
    err e;
    sample_call call = {
        .logits = logits, .position = q->n_tokens, .top_logprobs = r->r.top_logprobs};
    status s = q->guide ? sample_guide_mask(q->guide, &call.allowed, &e) : STATUS_OK;
    if (s == STATUS_OK)
        s = sample_next(q->sampler, g->scratch, &call, &g->result, &e);
    bool end = s == STATUS_OK && is_end(r, g->result.token);
    if (s == STATUS_OK && q->guide && !end)
        s = sample_guide_accept(q->guide, g->result.token, &e);
    if (s != STATUS_OK) {
        finish(g, q, emitted(q), ENGINE_ERROR, &e);
        return false;
    }
    int32_t token = g->result.token;
    if (end) {
        finish(g, q, emitted(q), ENGINE_STOPPED, NULL);
        return false;
    }
    sample_accept(q->sampler, token);
    q->tokens[q->n_tokens++] = token;
    g->stats.generated_tokens++;
    engine_event event = {.kind = ENGINE_TOKEN,
                          .id = r->r.id,
                          .choice = q->choice,
                          .index = emitted(q) - 1,
                          .token = token};
    if (r->r.top_logprobs >= 0)
        fill_logprobs(&event, &g->result);
    g->sink(g->context, &event);
    bool full =
        q->n_tokens >= g->positions || (r->r.max_tokens > 0 && emitted(q) >= r->r.max_tokens);
    bool over = q->guide && sample_guide_is_over(q->guide);
    if (over || full)
        finish(g, q, emitted(q), over ? ENGINE_STOPPED : ENGINE_LENGTH, NULL);
    return !over && !full;
}

/* The prompt of a request with several choices has been read: the others branch off here, each with its own noise. */
static void fork_choices(engine *g, sequence *first, float *logits)
{
    request *r = first->of;
    int n_choices = r->r.n_choices;
    for (int i = 1; i < n_choices; i++) {
        sequence *q;
        err e;
        if (new_sequence(&q, g, r, i, first->tokens, first->n_tokens, &e) != STATUS_OK) {
            send_done(g, r, i, 0, ENGINE_ERROR, &e);
            g->n_sequences--;
            r->n_live--;
            continue;
        }
        q->age = first->age;
        q->side = first->side;
        if (engine_state_fork(&q->state, first->state, NULL) != STATUS_OK)
            q->state = NULL; /* it will read the prompt again, out of the cache */
        insert(g, q);
        choose_token(g, q, logits);
    }
}

/* Row by row while the guesses stand: each token that the sampler chooses says whether the next row was computed from it. What was is
 * committed before the token goes out, so that an answer that ends leaves its pages to the cache; but constant-size state has gone on
 * to the last guess: when that was wrong it goes back, and the tokens are read again. */
static status take_guessed(engine *g, sequence *q, const int32_t *ids, bool keep, err *e)
{
    int n_before = q->n_tokens, n_draft = q->n_draft;
    bool at_once = n_draft == 0 || !engine_pool_has_constant(g->at[g->now].pool);
    float *row = g->logits + (size_t)q->output * (size_t)g->width;
    q->n_drafted += n_draft;
    g->stats.drafted_tokens += (uint64_t)n_draft;
    for (int i = 0;; i++, row += g->width) {
        status s = at_once ? engine_state_commit(q->state, ids + i, 1, keep, e) : STATUS_OK;
        if (s != STATUS_OK)
            return s;
        if (!choose_token(g, q, row))
            return STATUS_OK;
        if (i == n_draft || q->tokens[q->n_tokens - 1] != ids[i + 1])
            break;
        q->n_accepted++;
        g->stats.accepted_tokens++;
    }
    int n_right = q->n_tokens - n_before;
    draft_learn(g->draft, q->guesses, q->tokens, q->n_tokens, n_right);
    if (at_once)
        return STATUS_OK;
    return n_right > n_draft ? engine_state_commit(q->state, ids, n_right, keep, e)
                             : engine_state_restore(q->state, e);
}

/* The rows of an embedding request that a step gave; the vector when they are all there. */
static void take_rows(engine *g, sequence *q, const float *rows, int n)
{
    bool mean = g->pooling == MODEL_POOLING_MEAN;
    if (mean) {
        rows_add(q->sum, rows, n, g->width);
        if (engine_state_length(q->state) < q->n_tokens)
            return;
        rows_normalise(g->vector, q->sum, g->width);
    } else {
        double *one = g->one_row;
        memset(one, 0, sizeof *one * (size_t)g->width);
        rows_add(one, rows, 1, g->width);
        rows_normalise(g->vector, one, g->width);
    }
    engine_event event = {
        .kind = ENGINE_VECTOR, .id = q->of->r.id, .n_vector = (int)g->width, .vector = g->vector};
    g->sink(g->context, &event);
    finish(g, q, 0, ENGINE_STOPPED, NULL);
}

/* Nothing was to be generated: all choices are done. */
static void end_prompt(engine *g, sequence *q)
{
    request *r = q->of;
    for (int i = 1; i < r->r.n_choices; i++) {
        send_done(g, r, i, 0, ENGINE_LENGTH, NULL);
        r->n_live--;
        g->n_sequences--;
    }
    finish(g, q, 0, ENGINE_LENGTH, NULL);
}

/* After the model's step: states take what was computed, sequences that reached the end of their list get a token. */
static status take_results(engine *g, const plan *b, err *e)
{
    const int32_t *ids = g->ids;
    for (int i = 0; i < b->n_runs; i++) {
        sequence *q = g->run_of[i];
        bool keep = reuses(g, q);
        int n = q->n_run;
        if (q->side != g->now) { /* its twin was read */
            status s = engine_state_commit(q->twin, ids, n, keep, e);
            ids += n;
            q->n_run = 0;
            if (s != STATUS_OK)
                return s;
            continue;
        }
        bool guessed = g->draft && q->output >= 0 && n == 1 + q->n_draft && emitted(q) > 0;
        status s = guessed ? take_guessed(g, q, ids, keep, e)
                           : engine_state_commit(q->state, ids, n, keep, e);
        ids += n;
        if (s != STATUS_OK)
            return s;
        if (guessed) {
            g->run_of[i] = NULL; /* it may have ended */
            continue;
        }
        q->n_run = 0;
        g->stats.prompt_tokens += (uint64_t)(q->n_tokens == q->n_prompt ? n : 0);
        if (q->output < 0)
            continue;
        g->run_of[i] = NULL; /* it may end here */
        float *row = g->logits + (size_t)q->output * (size_t)g->width;
        if (q->of->r.embed) {
            take_rows(g, q, row, n);
            continue;
        }
        if (q->scored && (s = score_rows(g, q, row, n, e)) != STATUS_OK) {
            g->run_of[i] = q; /* it ends with the step */
            return s;
        }
        if (q->scored)
            row += (size_t)(n - 1) * (size_t)g->width; /* the last one */
        if (q->scored && engine_state_length(q->state) < q->n_tokens)
            continue;
        if (q->of->r.prompt_only) {
            end_prompt(g, q);
            continue;
        }
        if (q->choice == 0 && q->n_tokens == q->n_prompt)
            fork_choices(g, q, row);
        choose_token(g, q, row);
    }
    return STATUS_OK;
}

/* The step failed: whoever was in it ends with the reason. */
static void fail_step(engine *g, const plan *b, const err *why)
{
    for (int i = 0; i < b->n_runs; i++) {
        sequence *q = g->run_of[i];
        if (!q)
            continue;
        request *r = q->of;
        if (q->choice == 0 && emitted(q) == 0) {
            for (int k = 1; k < r->r.n_choices; k++) {
                send_done(g, r, k, 0, ENGINE_ERROR, why);
                r->n_live--;
                g->n_sequences--;
            }
        }
        finish(g, q, emitted(q), ENGINE_ERROR, why);
    }
}

/* Who waits for a place that only held sequences could free is no work: the next word comes from outside. */
static bool has_work(const engine *g)
{
    for (const sequence *q = g->sequences; q; q = q->next)
        if (!q->held || q->cancelled)
            return true;
    return g->first_waiting && g->n_sequences + g->first_waiting->r.n_choices <= g->o.max_sequences;
}

/* A step of the side at hand. */
static status step_side(engine *g, err *e)
{
    plan b = make_plan(g);
    if (b.n_tokens == 0)
        return STATUS_OK;
    model_batch batch = {.n_tokens = b.n_tokens,
                         .ids = g->ids,
                         .n_runs = b.n_runs,
                         .runs = g->runs,
                         .n_outputs = b.n_outputs,
                         .outputs = g->outputs};
    uint64_t before = os_now_us();
    err why = {0};
    status s = model_step(g->at[g->now].m, &batch, g->logits, &why);
    g->stats.step_us += os_now_us() - before;
    g->stats.steps++;
    if (g->draft)
        draft_measure(g->draft, b.n_tokens, os_now_us() - before);
    if (s != STATUS_OK && g->now == 1) { /* the old side is unharmed: everybody goes on there */
        g->switch_failed = s;
        g->switch_error = why;
        engine_switch_cancel(g);
        return STATUS_OK;
    }
    if (s == STATUS_OK)
        s = take_results(g, &b, &why);
    if (s != STATUS_OK) {
        fail_step(g, &b, &why);
        if (e)
            *e = why;
    }
    return s;
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
    status s = step_side(g, e);
    if (s == STATUS_OK && g->at[1].m) {
        g->now = 1;
        s = step_side(g, e);
        if (s == STATUS_OK && g->at[1].m)
            engine_move_sequences(g);
        g->now = 0;
    }
    *busy = has_work(g) || g->at[1].m;
    return s;
}

void engine_get_stats(const engine *g, engine_stats *out)
{
    uint64_t total, unused, cached;
    *out = g->stats;
    out->waiting = g->n_waiting;
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
