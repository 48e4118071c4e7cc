/*
 * The engine against a slow truth: every answer, whatever company, chunking, reuse, preemption, fork or hold it met, equals the tokens
 * that a plain loop over model_step and a sampler of its own gives for the same prompt. Waiting is counted in steps.
 */
#include "engine/engine.h"
#include "model_make.h"
#include "model_run.h"
#include "os/os.h"

enum { MOST_REQUESTS = 64, MOST_TOKENS = 400 };

typedef struct shape_case {
    const char *name;
    make_shape shape;
} shape_case;

static const shape_case plain = {"plain", {"llama", 2, 64, 4, 2, 16, 96, 131, 0, "Q8_0", true, 11}};
static const shape_case hybrid = {"windows and decay",
                                  {"shoal-decay", 4, 64, 4, 2, 16, 96, 131, 20, "Q8_0", false, 12}};

typedef struct limits {
    int64_t context;
    uint64_t state_tokens;
    int n_sequences, max_tokens, slots;
} limits;

/* As one of so many stages, to whoever asks how many steps may be under way. */
static model *load_staged(const shape_case *c, const limits *l, int n_stages)
{
    model_options o = {.n_threads = 1,
                       .context = l->context,
                       .state_tokens = l->state_tokens,
                       .n_sequences = l->n_sequences,
                       .max_tokens = l->max_tokens,
                       .max_outputs = l->n_sequences,
                       .exchange.n_stages = n_stages};
    model_admit_test_families(true);
    for (int i = 0; l->slots && i < MODEL_STATE_CLASSES;
         i++) /* constant-size classes want slots for snapshots, too */
        o.n_pages[i] = l->slots;
    return run_load_made(&c->shape, &o);
}

static model *load(const shape_case *c, const limits *l)
{
    return load_staged(c, l, 1);
}

/* ---- what came out ------------------------------------------------------------------------------------------------- */

typedef struct answer {
    int n, done, started, n_cached;
    int32_t ids[MOST_TOKENS];
    float logprobs[MOST_TOKENS];
    engine_reason reason;
    status code;
    char text[ERR_TEXT];
    int last_step, longest_wait; /* in steps between two tokens */
} answer;

typedef struct record {
    answer of[MOST_REQUESTS][4]; /* by request id and choice */
    int step;
} record;

static void note(void *context, const engine_event *event)
{
    record *of = context;
    assert_true(event->id < MOST_REQUESTS && event->choice < 4);
    answer *a = &of->of[event->id][event->choice];
    if (event->kind == ENGINE_STARTED) {
        a->started++;
        a->n_cached = event->n_cached;
        return;
    }
    assert_int_equal(a->done, 0);
    if (event->kind == ENGINE_DONE) {
        a->done++;
        a->reason = event->reason;
        a->code = event->code;
        memcpy(a->text, event->text, sizeof a->text);
        assert_int_equal(event->index, a->n);
        return;
    }
    assert_int_equal(event->index, a->n);
    assert_true(a->n < MOST_TOKENS);
    if (a->n > 0)
        a->longest_wait = BASE_MAX(a->longest_wait, of->step - a->last_step);
    a->last_step = of->step;
    a->logprobs[a->n] = event->logprob;
    a->ids[a->n++] = event->token;
}

/* ---- an engine ----------------------------------------------------------------------------------------------------- */

/* Of the engine that a test has begun: what it said, and its model. */
static record r;
static model *loaded;

static engine *begin(const shape_case *c, limits l, engine_options o)
{
    engine *g;
    err e = {0};
    memset(&r, 0, sizeof r);
    loaded = load(c, &l);
    must(engine_create(&g, loaded, &o, note, &r, &e), &e);
    return g;
}

static engine_request request(int id, const int32_t *prompt, int n_prompt, int max_tokens)
{
    return (engine_request){.id = (uint64_t)id,
                            .prompt = prompt,
                            .n_prompt = n_prompt,
                            .max_tokens = max_tokens,
                            .top_logprobs = -1,
                            .sample = SAMPLE_DEFAULTS};
}

static void submit(engine *g, const engine_request *q)
{
    err e = {0};
    must(engine_submit(g, q, &e), &e);
}

/* Whether there was more to do after the last of n steps. */
static bool steps(engine *g, int n)
{
    bool busy = false;
    err e = {0};
    for (int i = 0; i < n; i++) {
        r.step++;
        must(engine_step(g, &busy, &e), &e);
    }
    return busy;
}

static void run_until_idle(engine *g)
{
    int guard = 20000;
    while (steps(g, 1))
        assert_true(--guard > 0);
}

static void assert_nothing_held(engine *g)
{
    engine_stats s;
    engine_get_stats(g, &s);
    assert_int_equal(s.live, 0);
    assert_int_equal(s.waiting, 0);
    assert_int_equal(s.state_used_tokens, 0);
}

/* With nothing left over. */
static void end(engine *g)
{
    assert_nothing_held(g);
    engine_destroy(g);
    model_destroy(loaded);
}

/* ---- the slow truth ------------------------------------------------------------------------------------------------ */

static void fill_prompt(int32_t *ids, int n, int n_vocab, uint64_t seed)
{
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)(hash_u64((uint64_t)i, seed) % (uint64_t)n_vocab);
}

/* n tokens after the prompt, one position a step, with a sampler of choice c. */
static void truth(const shape_case *c, const engine_request *q, int choice, int n, int32_t *out)
{
    limits l = {.context = 512, .state_tokens = 4096, .n_sequences = 4, .max_tokens = 64};
    model *m = load(c, &l);
    int n_vocab = (int)model_get_card(m)->n_vocab;
    float *logits = malloc(sizeof(float) * (size_t)n_vocab);
    run_pool pool = {0};
    run_sequence s;
    run_sequence_init(&s, &pool);
    const kernel_table *k;
    sample_scratch *scratch;
    sample *sampler;
    err e = {0};
    must(kernel_select(&k, os_cpu_features(), NULL, &e), &e);
    must(sample_scratch_create(&scratch, n_vocab, &e), &e);
    must(sample_create(&sampler, k, n_vocab, &q->sample, choice, &e), &e);
    sample_prompt(sampler, q->prompt, q->n_prompt);
    int32_t last = 0;
    for (int i = 0; i < q->n_prompt + n - 1; i++) {
        int32_t id = i < q->n_prompt ? q->prompt[i] : last, row = 0;
        model_run run = run_of(m, &pool, &s, 1);
        model_batch b = {1, &id, 1, &run, 1, &row};
        must(model_step(m, &b, logits, &e), &e);
        s.position++;
        if (i < q->n_prompt - 1)
            continue;
        sample_result got;
        sample_call call = {.logits = logits, .position = i + 1, .top_logprobs = -1};
        must(sample_next(sampler, scratch, &call, &got, &e), &e);
        sample_accept(sampler, got.token);
        last = out[i - q->n_prompt + 1] = got.token;
    }
    sample_destroy(sampler);
    sample_scratch_destroy(scratch);
    free(logits);
    model_destroy(m);
}

static void assert_true_answer(const shape_case *c, const engine_request *q, int choice,
                               const answer *a)
{
    int32_t expected[MOST_TOKENS];
    assert_int_equal(a->done, 1);
    if (a->reason == ENGINE_ERROR)
        fail_msg("%s: request %d failed: %s", c->name, (int)q->id, a->text);
    assert_true(a->n > 0);
    truth(c, q, choice, a->n, expected);
    for (int i = 0; i < a->n; i++)
        if (a->ids[i] != expected[i])
            fail_msg("%s: request %d, choice %d, token %d is %d, expected %d", c->name, (int)q->id,
                     choice, i, a->ids[i], expected[i]);
}

/* ---- many at once -------------------------------------------------------------------------------------------------- */

typedef struct crowd {
    int n, state_tokens, n_sequences, slots, chunk, more_tokens;
    bool no_cache, reuse_prefix, greedy;
} crowd;

static void run_crowd(const shape_case *c, const crowd *w, engine_stats *stats)
{
    static int32_t prompts[MOST_REQUESTS][256];
    engine *g =
        begin(c, (limits){512, (uint64_t)w->state_tokens, w->n_sequences, 48, w->slots},
              (engine_options){.chunk = w->chunk, .no_cache = w->no_cache, .cache_slots = 6});
    int n_vocab = (int)model_get_card(loaded)->n_vocab;
    engine_request q[MOST_REQUESTS];
    for (int i = 0; i < w->n; i++) {
        int length = 3 + (int)(hash_u64((uint64_t)i, 9) % 200);
        fill_prompt(prompts[i], length, n_vocab, (uint64_t)i + 100);
        if (w->reuse_prefix && length > 130)
            fill_prompt(prompts[i], 130, n_vocab, 5000);
        q[i] = request(i, prompts[i], length, 2 + i % 40 + w->more_tokens);
        q[i].sample.seed = (uint64_t)i;
        if (i % 3 == 0 || w->greedy)
            q[i].sample.temperature = 0;
        if (i % 5 == 1)
            q[i].sample.repetition_penalty = 1.3f;
        submit(g, &q[i]);
        steps(g, 1); /* they come one by one while others are under way */
    }
    run_until_idle(g);
    assert_nothing_held(g);
    engine_get_stats(g, stats);
    for (int i = 0; i < w->n; i++) {
        assert_int_equal(r.of[i][0].started, 1);
        assert_int_equal(r.of[i][0].reason, ENGINE_LENGTH);
        assert_int_equal(r.of[i][0].n, q[i].max_tokens);
        assert_true_answer(c, &q[i], 0, &r.of[i][0]);
    }
    end(g);
}

static void crowds(void **state)
{
    (void)state;
    engine_stats s;
    const shape_case *cases[] = {&plain, &hybrid};
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        run_crowd(cases[i],
                  &(crowd){.n = 16, .state_tokens = 8192, .n_sequences = 8, .slots = i ? 64 : 0},
                  &s);
        run_crowd(cases[i],
                  &(crowd){.n = 12,
                           .state_tokens = 8192,
                           .n_sequences = 8,
                           .slots = i ? 64 : 0,
                           .chunk = 7,
                           .no_cache = true},
                  &s);
        assert_int_equal(s.cached_tokens, 0);
        run_crowd(cases[i],
                  &(crowd){.n = 24,
                           .state_tokens = 8192,
                           .n_sequences = 6,
                           .slots = i ? 64 : 0,
                           .reuse_prefix = true},
                  &s);
        assert_true(s.cached_tokens >= 128);
    }
}

/* A pool that holds little more than one sequence: sequences give up their state and come back, nothing changes. */
static void preemption(void **state)
{
    (void)state;
    engine_stats s;
    run_crowd(
        &plain,
        &(crowd){
            .n = 12, .state_tokens = 512, .n_sequences = 8, .more_tokens = 100, .greedy = true},
        &s);
    run_crowd(&plain, &(crowd){.n = 24, .state_tokens = 640, .n_sequences = 8, .more_tokens = 100},
              &s);
    assert_true(s.preemptions > 0);
    run_crowd(
        &hybrid,
        &(crowd){.n = 12, .state_tokens = 512, .n_sequences = 8, .slots = 10, .more_tokens = 100},
        &s);
}

/* ---- one after another --------------------------------------------------------------------------------------------- */

/* A conversation: each turn's prompt is the last one, its answer and a few more. Turns after the first find their past. */
static void turns(void **state)
{
    (void)state;
    const shape_case *cases[] = {&plain, &hybrid};
    for (size_t k = 0; k < BASE_COUNT(cases); k++) {
        engine *g = begin(cases[k], (limits){512, 4096, 4, 64, k ? 64 : 0},
                          (engine_options){.cache_slots = 8});
        int32_t text[512];
        int n = 70;
        fill_prompt(text, n, (int)model_get_card(loaded)->n_vocab, 3);
        for (int turn = 0; turn < 4; turn++) {
            engine_request q = request(turn, text, n, 50);
            q.sample.seed = (uint64_t)turn;
            submit(g, &q);
            run_until_idle(g);
            answer *a = &r.of[turn][0];
            assert_true_answer(cases[k], &q, 0, a);
            /* of what was computed before (the newest token never was), all but the last partial page is found again */
            int known = turn == 0 ? 0 : (n - 8) / 64 * 64;
            assert_int_equal(a->n_cached, known);
            memcpy(text + n, a->ids, sizeof(int32_t) * (size_t)a->n);
            n += a->n;
            fill_prompt(text + n, 7, 100, (uint64_t)turn);
            n += 7;
        }
        end(g);
    }
}

/* The whole prompt is cached: the last position is computed again all the same. */
static void whole_prompt_cached(void **state)
{
    (void)state;
    engine *g = begin(&plain, (limits){512, 4096, 4, 64, 0}, (engine_options){0});
    int32_t text[128];
    fill_prompt(text, 128, 131, 4);
    for (int i = 0; i < 3; i++) {
        engine_request q = request(i, text, 128, 20);
        q.no_reuse = i == 2;
        submit(g, &q);
        run_until_idle(g);
        assert_int_equal(r.of[i][0].n_cached, i == 1 ? 64 : 0);
        assert_true_answer(&plain, &q, 0, &r.of[i][0]);
    }
    end(g);
}

/* ---- choices ------------------------------------------------------------------------------------------------------- */

static void choices(void **state)
{
    (void)state;
    const shape_case *cases[] = {&plain, &hybrid};
    for (size_t k = 0; k < BASE_COUNT(cases); k++) {
        engine *g = begin(cases[k], (limits){512, 4096, 8, 64, k ? 64 : 0},
                          (engine_options){.cache_slots = 4});
        int32_t text[100];
        fill_prompt(text, 100, 131, 8);
        engine_request q = request(1, text, 100, 40);
        q.n_choices = 4;
        q.top_logprobs = 3;
        q.sample.seed = 42;
        engine_request single = request(2, text, 60, 30);
        submit(g, &q);
        submit(g, &single);
        run_until_idle(g);
        for (int c = 0; c < 4; c++) {
            assert_int_equal(r.of[1][c].n, 40);
            assert_true_answer(cases[k], &q, c, &r.of[1][c]);
        }
        assert_memory_not_equal(r.of[1][0].ids, r.of[1][1].ids, 40 * sizeof(int32_t));
        assert_true(r.of[1][0].logprobs[0] < 0);
        assert_true_answer(cases[k], &single, 0, &r.of[2][0]);
        end(g);
    }
}

/* ---- fairness ------------------------------------------------------------------------------------------------------ */

/* 31 streams and the longest prompt that fits: every stream gets its token in every step. */
static void long_prompt_stalls_nobody(void **state)
{
    (void)state;
    static int32_t text[32][512];
    engine *g = begin(&plain, (limits){512, 32 * 512, 32, 64, 0}, (engine_options){.chunk = 16});
    for (int i = 0; i < 31; i++) {
        fill_prompt(text[i], 4, 131, (uint64_t)i);
        engine_request q = request(i, text[i], 4, 60);
        submit(g, &q);
    }
    steps(g, 12);
    fill_prompt(text[31], 511, 131, 77);
    engine_request q = request(31, text[31], 511, 0);
    submit(g, &q);
    run_until_idle(g);
    for (int i = 0; i < 31; i++) {
        assert_int_equal(r.of[i][0].n, 60);
        assert_int_equal(r.of[i][0].longest_wait, 1);
    }
    assert_int_equal(r.of[31][0].n, 1);
    assert_int_equal(r.of[31][0].reason, ENGINE_LENGTH);
    end(g);
}

/* ---- ends, refusals, cancelling, holding --------------------------------------------------------------------------- */

static void ends(void **state)
{
    (void)state;
    engine *g = begin(&plain, (limits){128, 1024, 4, 64, 0}, (engine_options){0});
    int32_t text[200];
    fill_prompt(text, 200, 131, 21);
    engine_request q = request(1, text, 20, 30);
    q.sample.temperature = 0;
    submit(g, &q);
    run_until_idle(g);
    int32_t last = r.of[1][0].ids[5];
    int first = 0;
    while (r.of[1][0].ids[first] != last)
        first++;
    q.id = 2;
    q.end = &last;
    q.n_end = 1;
    submit(g, &q);
    run_until_idle(g);
    assert_int_equal(r.of[2][0].reason, ENGINE_STOPPED);
    assert_int_equal(r.of[2][0].n, first);
    q = request(3, text, 120, 0);
    submit(g, &q);
    run_until_idle(g);
    assert_int_equal(r.of[3][0].n, 8); /* the context is full */
    end(g);
}

static void refusals(void **state)
{
    (void)state;
    engine *g = begin(&plain, (limits){128, 1024, 4, 64, 0}, (engine_options){.max_waiting = 3});
    int32_t text[200];
    fill_prompt(text, 200, 131, 21);
    engine_request q = request(3, text, 130, 0);
    err e = {0};
    assert_int_equal(engine_submit(g, &q, &e), STATUS_TOO_LONG);
    assert_non_null(strstr(e.text, "130 tokens, 3 too many"));
    q.n_prompt = 0;
    assert_int_equal(engine_submit(g, &q, &e), STATUS_INVALID);
    q.n_prompt = 10;
    text[3] = 131;
    assert_int_equal(engine_submit(g, &q, &e), STATUS_INVALID);
    assert_non_null(strstr(e.text, "131"));
    text[3] = 1;
    q.n_choices = 5;
    assert_int_equal(engine_submit(g, &q, &e), STATUS_INVALID);
    q.n_choices = 1;
    q.sample.top_p = 3;
    assert_int_equal(engine_submit(g, &q, &e), STATUS_INVALID);
    q.sample.top_p = 1;
    for (int i = 0; i < 3; i++) {
        q.id = (uint64_t)(10 + i);
        submit(g, &q);
    }
    q.id = 20;
    assert_int_equal(engine_submit(g, &q, &e), STATUS_BUSY);
    run_until_idle(g);
    end(g);
}

static void cancel_and_hold(void **state)
{
    (void)state;
    engine *g = begin(&plain, (limits){512, 4096, 4, 64, 0}, (engine_options){0});
    int32_t text[4][100];
    engine_request q[6];
    for (int i = 0; i < 6; i++) {
        fill_prompt(text[i % 4], 100, 131, (uint64_t)(i % 4));
        q[i] = request(i, text[i % 4], 100, 60);
        q[i].n_choices = i == 1 ? 2 : 1;
        submit(g, &q[i]);
    }
    engine_cancel(g, 5, -1); /* still waiting */
    assert_int_equal(r.of[5][0].reason, ENGINE_CANCELLED);
    assert_int_equal(r.of[5][0].started, 0);
    steps(g, 1);
    engine_cancel(g, 1, -1); /* while its prompt is read: both choices end */
    steps(g, 12);
    assert_int_equal(r.of[1][0].done, 1);
    assert_int_equal(r.of[1][1].done, 1);
    int before = r.of[0][0].n;
    assert_true(before > 0);
    engine_hold(g, 0, -1, true);
    engine_cancel(g, 2, -1);
    engine_cancel(g, 999, -1);
    run_until_idle(g);
    assert_int_equal(r.of[0][0].n, before); /* held: nothing moved */
    assert_int_equal(r.of[2][0].reason, ENGINE_CANCELLED);
    assert_true_answer(&plain, &q[3], 0, &r.of[3][0]);
    engine_hold(g, 0, -1, false);
    run_until_idle(g);
    assert_int_equal(r.of[0][0].n, 60);
    assert_true_answer(&plain, &q[0], 0, &r.of[0][0]);
    assert_true_answer(&plain, &q[4], 0, &r.of[4][0]);
    end(g);
}

/* Whoever waits for a place that a held sequence has is no work; holding reaches those that have not begun, too. */
static void waiting_behind_a_held_one(void **state)
{
    (void)state;
    engine *g = begin(&plain, (limits){512, 4096, 4, 64, 0}, (engine_options){.max_sequences = 1});
    int32_t text[2][100];
    engine_request q[2];
    for (int i = 0; i < 2; i++) {
        fill_prompt(text[i], 100, 131, (uint64_t)i);
        q[i] = request(i, text[i], 100, 10);
        submit(g, &q[i]);
    }
    steps(g, 5);
    engine_hold(g, 0, -1, true);
    engine_hold(g, 1, -1, true); /* still waiting */
    assert_false(steps(g, 1));
    engine_hold(g, 0, -1, false);
    run_until_idle(g);
    assert_true_answer(&plain, &q[0], 0, &r.of[0][0]);
    assert_int_equal(r.of[1][0].n, 0);
    assert_int_equal(r.of[1][0].done, 0);
    engine_hold(g, 1, -1, false);
    run_until_idle(g);
    assert_true_answer(&plain, &q[1], 0, &r.of[1][0]);
    end(g);
}

/* Held sequences hold all the state: they give it up to whoever can move. */
static void held_state_is_given_up(void **state)
{
    (void)state;
    engine *g = begin(&plain, (limits){512, 512, 4, 64, 0}, (engine_options){.no_cache = true});
    static int32_t text[2][400];
    engine_request q[2];
    for (int i = 0; i < 2; i++) {
        fill_prompt(text[i], 400, 131, (uint64_t)i);
        q[i] = request(i, text[i], 400, 20);
    }
    submit(g, &q[0]);
    steps(g, 10);
    engine_hold(g, 0, -1, true);
    submit(g, &q[1]);
    run_until_idle(g);
    assert_true_answer(&plain, &q[1], 0, &r.of[1][0]);
    engine_hold(g, 0, -1, false);
    run_until_idle(g);
    assert_true_answer(&plain, &q[0], 0, &r.of[0][0]);
    end(g);
}

/* Every allocation of a request's life fails once: it ends with an error or is refused, the engine goes on. */
static void failing_allocations(void **state)
{
    (void)state;
    engine *g = begin(&plain, (limits){256, 2048, 4, 64, 0}, (engine_options){0});
    int32_t text[100];
    fill_prompt(text, 100, 131, 3);
    int failures = 0;
    err e;
    for (int n = 1; n < 60; n++) {
        memset(&r, 0, sizeof r);
        engine_request q = request(1, text, 100, 5);
        q.n_choices = 2;
        base_fail_after((uint64_t)n);
        status s = engine_submit(g, &q, &e);
        bool busy = s == STATUS_OK;
        for (int guard = 0; busy && guard < 1000; guard++)
            engine_step(g, &busy, &e);
        base_fail_after(0);
        assert_false(busy);
        if (s == STATUS_OK) {
            assert_int_equal(r.of[1][0].done, 1);
            assert_int_equal(r.of[1][1].done, 1);
            failures += r.of[1][0].reason == ENGINE_ERROR;
        } else {
            assert_int_equal(s, STATUS_NO_MEMORY);
            failures++;
        }
        assert_nothing_held(g);
    }
    assert_true(failures > 3);
    end(g);
}

/* An epoch with more steps under way for which memory does not suffice, one allocation after the other: the running one goes on as it was. */
static void switch_without_memory(void **state)
{
    (void)state;
    const limits l = {256, 2048, 4, 64, 0};
    engine *g = begin(&plain, l, (engine_options){0});
    model *next = load_staged(&plain, &l, 3);
    err e;
    assert_true(model_most_flights(next) > model_most_flights(loaded));
    int32_t text[100];
    fill_prompt(text, 100, 131, 3);
    engine_request q = request(1, text, 100, 120);
    submit(g, &q);
    int failures = 0;
    for (status s = STATUS_NO_MEMORY; s != STATUS_OK; failures++) {
        assert_true(steps(g, 2));
        base_fail_after((uint64_t)failures + 1);
        s = engine_switch(g, next, &e);
        base_fail_after(0);
        assert_true(s == STATUS_OK || s == STATUS_NO_MEMORY);
        assert_int_equal(engine_is_switching(g), s == STATUS_OK);
    }
    assert_true(failures > 6); /* in both rooms, and in the pool */
    run_until_idle(g);
    assert_true_answer(&plain, &q, 0, &r.of[1][0]);
    end(g);
    model_destroy(next);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crowds),
        cmocka_unit_test(preemption),
        cmocka_unit_test(turns),
        cmocka_unit_test(whole_prompt_cached),
        cmocka_unit_test(choices),
        cmocka_unit_test(long_prompt_stalls_nobody),
        cmocka_unit_test(ends),
        cmocka_unit_test(refusals),
        cmocka_unit_test(cancel_and_hold),
        cmocka_unit_test(waiting_behind_a_held_one),
        cmocka_unit_test(held_state_is_given_up),
        cmocka_unit_test(failing_allocations),
        cmocka_unit_test(switch_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
