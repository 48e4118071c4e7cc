/*
 * What goes into a step and what comes of it: every decoding sequence its token and its guesses, chunks of prompts out of what is left of the budget;
 * then states take what was computed, and who reached the end of his list gets a token. Where state runs out the youngest gives way.
 * Not here: who is there at all (engine.c), sequences on their way to another epoch (switch.c).
 */
#include "engine/inside.h"
#include "engine/rows.h"
#include "os/os.h"

#include <string.h>

enum { LEAST_PIECE = 64, PIECE_COST = 8 /* tokens */ };

/* The youngest sequence with state, held ones before others, gives it up. false: only q itself has any. */
static bool preempt_other(engine *g, const sequence *q)
{
    sequence *victim = NULL;
    for (sequence *other = g->sequences; other; other = other->next)
        if (other != q && is_here(g, other) && other->n_run == 0 && !other->flying &&
            (!victim || other->held >= victim->held))
            victim = other;
    if (!victim || (!victim->held && victim->age < q->age))
        return false;
    engine_give_up_state(g, victim);
    return true;
}

static bool is_any_flying(const engine *g)
{
    for (const sequence *q = g->sequences; q; q = q->next)
        if (q->flying)
            return true;
    return false;
}

/* Makes room for n positions of q, at others' cost when need be. Those whose step is under way can give way when it is back, so q waits for them. */
static bool make_room(engine *g, sequence *q, int64_t n)
{
    while (engine_state_extend(q->state, n, NULL) != STATUS_OK) {
        if (preempt_other(g, q))
            continue;
        if (!is_any_flying(g))
            engine_give_up_state(g, q);
        return false;
    }
    return true;
}

static void add_run(engine *g, flight *f, sequence *q, int64_t n)
{
    int64_t length = engine_state_length(q->state);
    memcpy(f->ids + f->n_tokens, q->tokens + length, sizeof(int32_t) * (size_t)n);
    engine_state_run(q->state, (int)n, &f->runs[f->n_runs]);
    f->run_of[f->n_runs++] = q;
    f->n_tokens += (int)n;
    q->n_run = (int)n;
    q->output = -1;
    q->scored = engine_scores(q);
    bool all = g->pooling == MODEL_POOLING_MEAN || q->scored;
    if (all || (g->pooling == MODEL_POOLING_CLS && length == 0)) {
        q->output = f->n_outputs;
        for (int i = 0; i < (all ? (int)n : 1); i++)
            g->outputs[f->n_outputs++] = f->n_tokens - (int)n + i;
    } else if (g->pooling != MODEL_POOLING_CLS && length + n == q->n_tokens + q->n_draft) {
        q->output = f->n_outputs;
        for (int i = q->n_draft; i >= 0; i--)
            g->outputs[f->n_outputs++] = f->n_tokens - 1 - i;
    }
}

static bool decodes(const engine *g, const sequence *q)
{
    return is_here(g, q) && !q->held && !q->flying && pending(q) == 1;
}

/* Sequences that get a token out of a step that is under way, or of the next ones. */
static int count_decoding(const engine *g)
{
    int n = 0;
    for (const sequence *q = g->sequences; q; q = q->next)
        n += q->flying != NULL || decodes(g, q);
    return n;
}

/* Every stage of a pipeline has a step of its own: an equal part of those that decode is in each. */
static int in_a_step(const engine *g, int n_decoding)
{
    int n = g->at[1].m ? 1 : model_n_stages(g->at[0].m);
    return BASE_MAX((n_decoding + n - 1) / n, 1);
}

/* Steps that may be under way. One more than stages would only delay tokens. */
static int most_flights(const engine *g, int n_decoding)
{
    if (g->at[1].m)
        return 1;
    int n = model_most_flights(g->at[0].m);
    return n_decoding ? BASE_MIN(n, model_n_stages(g->at[0].m)) : n;
}

/* Guesses that q may check: as many tokens as it may still have but one, and as far as its state can go in one run. */
static int guess_room(const engine *g, const sequence *q)
{
    int64_t left = BASE_MIN((int64_t)q->capacity - 1, g->positions) - q->n_tokens;
    return (int)BASE_MIN(left, engine_state_run_limit(q->state)) - 1;
}

static bool may_guess(const engine *g, const sequence *q)
{
    return g->draft && q->in_turn && engine_emitted(q) > 0;
}

/* Whose turn it is, and guesses for each of them; they lie behind its tokens, n_draft of them. */
static void guess(engine *g, int n_turns)
{
    int n = 0, n_rows = 0;
    for (sequence *q = g->sequences; q; q = q->next) {
        q->in_turn = n_turns > 0 && decodes(g, q);
        n_turns -= q->in_turn;
        if (q->flying)
            continue;
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

/* With pieces of p tokens each of S stages takes (n / p + S − 1) · (p + a piece's own cost), which is least where p is the root of n · cost ÷ (S − 1). */
int engine_prompt_piece(const model *m, int64_t n, int most)
{
    int64_t others = model_n_stages(m) - 1, piece = LEAST_PIECE;
    if (others == 0 || n <= 0)
        return most;
    while (piece < most && piece * piece * others < n * PIECE_COST)
        piece += LEAST_PIECE;
    return (int)BASE_MIN(piece, (int64_t)most);
}

/* Prompt tokens of a step. */
static int prompt_budget(const engine *g, const flight *f, int n_decoding)
{
    bool decoding = (f->n_tokens || g->now == 1 || n_decoding) && g->pooling == MODEL_POOLING_NONE;
    int most = decoding ? g->o.chunk : g->max_tokens;
    int64_t n = 0;
    for (const sequence *q = g->sequences; q; q = q->next)
        n += is_here(g, q) && !q->held && !q->flying && !q->n_run ? pending(q) : 0;
    if (!g->at[1].m && !g->both_ways)
        most = engine_prompt_piece(g->at[0].m, n, most);
    return BASE_MIN(most, g->max_tokens - f->n_tokens);
}

/* Decoding sequences first, each its token; then prompts, oldest first, out of what is left. */
static void make_plan(engine *g, flight *f, int n_decoding)
{
    f->n_tokens = f->n_runs = f->n_outputs = 0;
    for (sequence *q = g->sequences; q; q = q->next)
        if (!q->flying)
            q->n_run = 0;
    guess(g, in_a_step(g, n_decoding));
    for (sequence *q = g->sequences; q; q = q->next)
        if (q->in_turn && decodes(g, q) && f->n_outputs < g->max_outputs &&
            make_room_to_decode(g, q))
            add_run(g, f, q, 1 + q->n_draft);
    int budget = prompt_budget(g, f, n_decoding);
    if (g->now == 1)
        engine_plan_twins(g, f, &budget);
    for (sequence *q = g->sequences; q && budget > 0; q = q->next) {
        if (!is_here(g, q) || q->held || q->n_run || q->flying)
            continue;
        int64_t n =
            BASE_MIN(BASE_MIN(pending(q), (int64_t)budget), engine_state_run_limit(q->state));
        bool whole = n == pending(q);
        if (g->both_ways && !whole)
            continue;
        if (engine_scores(q)) /* every row of it is an output */
            n = BASE_MIN(n, g->max_outputs - f->n_outputs);
        if (n == 0)
            continue;
        whole = n == pending(q);
        if (whole && f->n_outputs >= g->max_outputs && --n == 0)
            continue;
        if (!make_room(g, q, n))
            continue;
        add_run(g, f, q, n);
        budget -= (int)n;
    }
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

static float *row_at(const engine *g, const flight *f, int row)
{
    return f->logits + (size_t)row * (size_t)g->width;
}

/* Tells the log-probabilities of the prompt's tokens behind n rows of a step. */
static status score_rows(engine *g, const flight *f, sequence *q, int n, err *e)
{
    request *r = q->of;
    int64_t first = engine_state_length(q->state) - n; /* position of the first row */
    for (int i = 0; i < n; i++) {
        int64_t at = first + i + 1;
        if (at >= q->n_prompt || at <= r->n_scored)
            continue;
        int row = q->output + i;
        status s = STATUS_OK;
        if (!engine_answer(f, row, 0, &g->result, &s, e))
            s = sample_score(g->scratch, g->kernels, row_at(g, f, row), r->prompt[at],
                             r->r.top_logprobs, &g->result, e);
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

static status sample_row(engine *g, const flight *f, sequence *q, int row, int choice, err *e)
{
    sample_call call = {.logits = row_at(g, f, row),
                        .position = q->n_tokens,
                        .top_logprobs = q->of->r.top_logprobs};
    status s;
    if (engine_answer(f, row, choice, &g->result, &s, e))
        return s;
    s = q->guide ? sample_guide_mask(q->guide, &call.allowed, e) : STATUS_OK;
    return s == STATUS_OK ? sample_next(q->sampler, g->scratch, &call, &g->result, e) : s;
}

/* The next token of q out of a row of the step. choice: how many others of its request got theirs out of it before. false: q is gone. */
static bool choose_token(engine *g, const flight *f, sequence *q, int row, int choice)
{
    request *r = q->of;
    err e;
    status s = sample_row(g, f, q, row, choice, &e);
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
static void fork_choices(engine *g, const flight *f, sequence *first, int row)
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
        choose_token(g, f, q, row, i);
    }
}

/* Row by row while the guesses stand: each token that the sampler chooses says whether the next row was computed from it. What was is
 * committed before the token goes out, so that an answer that ends leaves its pages to the cache; but constant-size state has gone on
 * to the last guess: when that was wrong it goes back, and the tokens are read again. */
static status take_guessed(engine *g, const flight *f, sequence *q, const int32_t *ids, bool keep,
                           err *e)
{
    int n_before = q->n_tokens, n_draft = q->n_draft;
    bool at_once = n_draft == 0 || !engine_pool_has_constant(g->at[g->now].pool);
    q->n_drafted += n_draft;
    g->stats.drafted_tokens += (uint64_t)n_draft;
    for (int i = 0, row = q->output;; i++) {
        status s = at_once ? engine_state_commit(q->state, ids + i, 1, keep, e) : STATUS_OK;
        if (s != STATUS_OK)
            return s;
        if (!choose_token(g, f, q, row + i, 0))
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

/* The rows of q's run of n ids are there. *gone: its step is no longer q's business, or q is no more. */
static status take_run(engine *g, flight *f, sequence *q, const int32_t *ids, int n, bool *gone,
                       err *e)
{
    bool keep = reuses(g, q);
    if (q->side != g->now) /* its twin was read */
        return engine_state_commit(q->twin, ids, n, keep, e);
    int row = q->output;
    bool guessed = engine_is_guessed(g, q, n);
    status s = guessed ? take_guessed(g, f, q, ids, keep, e)
                       : engine_state_commit(q->state, ids, n, keep, e);
    if (s != STATUS_OK)
        return s;
    *gone = true;
    if (guessed)
        return s;
    g->stats.prompt_tokens += (uint64_t)(q->n_tokens == q->n_prompt ? n : 0);
    if (q->of->r.embed) {
        take_rows(g, q, row_at(g, f, row), n);
        return s;
    }
    if (q->scored && (s = score_rows(g, f, q, n, e)) != STATUS_OK) {
        *gone = false; /* it ends with the step */
        return s;
    }
    if (q->scored)
        row += n - 1; /* the last one */
    if (q->scored && engine_state_length(q->state) < q->n_tokens)
        return s;
    if (q->of->r.prompt_only) {
        end_prompt(g, q);
        return s;
    }
    if (q->choice == 0 && q->n_tokens == q->n_prompt)
        fork_choices(g, f, q, row);
    choose_token(g, f, q, row, 0);
    return s;
}

/* A step is back: states take what was computed, sequences that reached the end of their list get a token. */
static status take_results(engine *g, flight *f, err *e)
{
    const int32_t *ids = f->ids;
    for (int i = 0; i < f->n_runs; i++) {
        sequence *q = f->run_of[i];
        int n = f->runs[i].n_tokens;
        bool gone = false;
        if (q && q->flying == f) {
            q->flying = NULL;
            q->n_run = 0;
            status s = take_run(g, f, q, ids, n, &gone, e);
            if (s != STATUS_OK)
                return s;
        }
        if (gone)
            f->run_of[i] = NULL;
        ids += n;
    }
    return STATUS_OK;
}

/* The step failed: whoever was in it ends with the reason. */
static void fail_step(engine *g, flight *f, const err *why)
{
    for (int i = 0; i < f->n_runs; i++) {
        sequence *q = f->run_of[i];
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

/* Runs of which nothing is to come back are done with as far as we are concerned: what follows comes behind them on every rank. */
static status leave_behind(engine *g, flight *f, err *e)
{
    const int32_t *ids = f->ids;
    for (int i = 0; i < f->n_runs; i++) {
        sequence *q = f->run_of[i];
        int n = f->runs[i].n_tokens;
        q->flying = q->output >= 0 || q->side != g->now ? f : NULL;
        if (!q->flying) {
            status s = engine_state_commit(q->state, ids, n, reuses(g, q), e);
            if (s != STATUS_OK)
                return s;
            g->stats.prompt_tokens += (uint64_t)(q->n_tokens == q->n_prompt ? n : 0);
            q->n_run = 0;
        }
        ids += n;
    }
    return STATUS_OK;
}

static status start_step(engine *g, int n_decoding, bool *started, err *e)
{
    flight *f = &g->flights[(g->first_flight + g->n_flights) % g->n_rooms];
    make_plan(g, f, n_decoding);
    *started = f->n_tokens > 0;
    if (!*started)
        return STATUS_OK;
    model_batch batch = {.n_tokens = f->n_tokens,
                         .ids = f->ids,
                         .n_runs = f->n_runs,
                         .runs = f->runs,
                         .n_outputs = f->n_outputs,
                         .outputs = g->outputs};
    f->begun_us = os_now_us();
    engine_ask(g, f);
    status s = model_step_start(g->at[g->now].m, &batch, f->logits, e);
    if (s != STATUS_OK)
        return s;
    g->n_flights++;
    g->stats.most_flights = BASE_MAX(g->stats.most_flights, g->n_flights);
    f->result = leave_behind(g, f, &f->why);
    return STATUS_OK;
}

/* Waits for the oldest step. */
static status finish_step(engine *g, flight *f, err *e)
{
    status s = model_step_finish(g->at[g->now].m, e);
    uint64_t now = os_now_us(), us = now - BASE_MAX(f->begun_us, g->finished_us);
    g->finished_us = now;
    g->stats.step_us += us; /* of several under way: from one end to the next */
    g->stats.steps++;
    if (g->draft)
        draft_measure(g->draft, f->n_tokens, us);
    if (s == STATUS_OK && f->result != STATUS_OK) {
        s = f->result;
        *e = f->why;
    }
    return s;
}

/* A step of a next epoch failed: the old one is unharmed, everybody goes on there. */
static status give_up_next(engine *g, status s, const err *why)
{
    for (sequence *q = g->sequences; q; q = q->next)
        q->flying = NULL;
    g->switch_failed = s;
    g->switch_error = *why;
    engine_switch_cancel(g);
    return STATUS_OK;
}

static status land_one(engine *g, err *e)
{
    flight *f = &g->flights[g->first_flight];
    g->first_flight = (g->first_flight + 1) % g->n_rooms;
    g->n_flights--;
    err why = {0};
    status s = finish_step(g, f, &why);
    if (s != STATUS_OK && g->now == 1)
        return give_up_next(g, s, &why);
    if (s == STATUS_OK)
        s = take_results(g, f, &why);
    if (s != STATUS_OK) {
        fail_step(g, f, &why);
        if (e)
            *e = why;
    }
    return s;
}

status engine_land(engine *g, err *e)
{
    status s = STATUS_OK;
    while (g->n_flights > 0) {
        status of_one = land_one(g, s == STATUS_OK ? e : NULL);
        s = s == STATUS_OK ? of_one : s;
    }
    return s;
}

status engine_step_side(engine *g, err *e)
{
    int n_decoding = count_decoding(g);
    bool started = false;
    err why = {0};
    if (g->n_flights < most_flights(g, n_decoding)) {
        status s = start_step(g, n_decoding, &started, &why);
        if (s != STATUS_OK && g->now == 1)
            return give_up_next(g, s, &why);
        if (s != STATUS_OK) {
            fail_step(g, &g->flights[(g->first_flight + g->n_flights) % g->n_rooms], &why);
            (void)engine_land(g, NULL);
            if (e)
                *e = why;
            return s;
        }
    }
    status s = STATUS_OK;
    if (g->n_flights > 0 && (!started || g->n_flights >= most_flights(g, n_decoding)))
        s = land_one(g, e);
    if (s != STATUS_OK)
        (void)engine_land(g, NULL);
    return s;
}

void engine_forget(engine *g, const sequence *q)
{
    for (int k = 0; k < g->n_rooms; k++)
        for (int i = 0; i < g->flights[k].n_runs; i++)
            if (g->flights[k].run_of[i] == q)
                g->flights[k].run_of[i] = NULL;
}

static void free_flight(flight *f)
{
    base_free(f->ids);
    base_free(f->runs);
    base_free(f->run_of);
    base_free(f->logits);
    base_free(f->answer);
    *f = (flight){0};
}

status engine_make_flights(engine *g, const model *m, err *e)
{
    size_t tokens = (size_t)g->max_tokens, rows = (size_t)g->max_outputs;
    REQUIRE(g->n_flights == 0);
    g->first_flight = 0;
    while (g->n_rooms < model_most_flights(m)) {
        flight *f = &g->flights[g->n_rooms];
        *f = (flight){.ids = base_alloc(sizeof *f->ids * tokens),
                      .runs = base_alloc(sizeof *f->runs * tokens),
                      .run_of = base_alloc(sizeof *f->run_of * tokens),
                      .logits = base_alloc(sizeof *f->logits * rows * (size_t)g->width),
                      .answer = base_alloc(sizeof *f->answer * rows)};
        if (!f->ids || !f->runs || !f->run_of || !f->logits || !f->answer) {
            free_flight(f); /* the rooms that there are stay good */
            return err_set(e, STATUS_NO_MEMORY, "engine: no memory for steps of %d tokens",
                           g->max_tokens);
        }
        g->n_rooms++;
    }
    return STATUS_OK;
}

void engine_free_flights(engine *g)
{
    while (g->n_rooms > 0)
        free_flight(&g->flights[--g->n_rooms]);
}
