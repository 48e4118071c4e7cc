/*
 * What goes into a step and what comes of it: every decoding sequence its token and its guesses, chunks of prompts out of what is left of the budget;
 * then states take what was computed, and who reached the end of his list gets a token. Where state runs out the youngest gives way.
 * Not here: who is there at all (engine.c), sequences on their way to another epoch (switch.c).
 */
#include "engine/inside.h"
#include "engine/rows.h"
#include "os/os.h"

#include <string.h>

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
    q->scored = engine_scores(q);
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
    return g->draft && decodes(g, q) && engine_emitted(q) > 0;
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
        if (engine_scores(q)) /* every row of it is an output */
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
        engine_finish(g, q, engine_emitted(q), ENGINE_ERROR, &e);
        return false;
    }
    int32_t token = g->result.token;
    if (end) {
        engine_finish(g, q, engine_emitted(q), ENGINE_STOPPED, NULL);
        return false;
    }
    sample_accept(q->sampler, token);
    q->tokens[q->n_tokens++] = token;
    g->stats.generated_tokens++;
    engine_event event = {.kind = ENGINE_TOKEN,
                          .id = r->r.id,
                          .choice = q->choice,
                          .index = engine_emitted(q) - 1,
                          .token = token};
    if (r->r.top_logprobs >= 0)
        fill_logprobs(&event, &g->result);
    g->sink(g->context, &event);
    bool full = q->n_tokens >= g->positions ||
                (r->r.max_tokens > 0 && engine_emitted(q) >= r->r.max_tokens);
    bool over = q->guide && sample_guide_is_over(q->guide);
    if (over || full)
        engine_finish(g, q, engine_emitted(q), over ? ENGINE_STOPPED : ENGINE_LENGTH, NULL);
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
        if (engine_new_sequence(&q, g, r, i, first->tokens, first->n_tokens, &e) != STATUS_OK) {
            engine_send_done(g, r, i, 0, ENGINE_ERROR, &e);
            g->n_sequences--;
            r->n_live--;
            continue;
        }
        q->age = first->age;
        q->side = first->side;
        if (engine_state_fork(&q->state, first->state, NULL) != STATUS_OK)
            q->state = NULL; /* it will read the prompt again, out of the cache */
        engine_insert(g, q);
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
    engine_finish(g, q, 0, ENGINE_STOPPED, NULL);
}

/* Nothing was to be generated: all choices are done. */
static void end_prompt(engine *g, sequence *q)
{
    request *r = q->of;
    for (int i = 1; i < r->r.n_choices; i++) {
        engine_send_done(g, r, i, 0, ENGINE_LENGTH, NULL);
        r->n_live--;
        g->n_sequences--;
    }
    engine_finish(g, q, 0, ENGINE_LENGTH, NULL);
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
        bool guessed = g->draft && q->output >= 0 && n == 1 + q->n_draft && engine_emitted(q) > 0;
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
        if (q->choice == 0 && engine_emitted(q) == 0) {
            for (int k = 1; k < r->r.n_choices; k++) {
                engine_send_done(g, r, k, 0, ENGINE_ERROR, why);
                r->n_live--;
                g->n_sequences--;
            }
        }
        engine_finish(g, q, engine_emitted(q), ENGINE_ERROR, why);
    }
}

status engine_step_side(engine *g, err *e)
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
