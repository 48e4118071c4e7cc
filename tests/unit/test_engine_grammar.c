/*
 * Answers held to a form, through the engine: random models under high temperature write what parses and fits; choices, drafts-free company,
 * preemption and repetition change nothing; an answer stops where its form is complete. And log-probabilities of prompts: those of a plain
 * loop, however the prompt was read, cached or not.
 */
#include "engine/engine.h"
#include "model_run.h"
#include "os/os.h"
#include "schema_fits.h"

enum { REQUESTS = 48, TOKENS = 400 };

typedef struct answer {
    int n, done;
    int32_t ids[TOKENS];
    engine_reason reason;
    status code;
    char text[ERR_TEXT];
    int n_scored;
    int32_t scored[TOKENS];
    float scores[TOKENS];
} answer;

typedef struct record {
    answer of[REQUESTS][2];
} record;

static void note(void *context, const engine_event *event)
{
    record *r = context;
    assert_true(event->id < REQUESTS && event->choice < 2);
    answer *a = &r->of[event->id][event->choice];
    if (event->kind == ENGINE_TOKEN) {
        assert_true(a->n < TOKENS);
        a->ids[a->n++] = event->token;
    } else if (event->kind == ENGINE_PROMPT) {
        assert_int_equal(event->index, a->n_scored + 1);
        a->scored[a->n_scored] = event->token;
        a->scores[a->n_scored++] = event->logprob;
    } else if (event->kind == ENGINE_DONE) {
        a->done++;
        a->reason = event->reason;
        a->code = event->code;
        memcpy(a->text, event->text, sizeof a->text);
    }
}

typedef struct rig {
    model *m;
    engine *g;
    text_tokenizer *t;
    record r;
} rig;

static void rig_start_with(rig *x, const model_options *mo, engine_options eo)
{
    err e = {0};
    memset(x, 0, sizeof *x);
    x->m = run_load(TEST_DATA "/models/tiny-q8_0.gguf", mo);
    must(model_tokenizer_create(&x->t, model_get_card(x->m), &e), &e);
    must(engine_create(&x->g, x->m, &eo, note, &x->r, &e), &e);
}

static void rig_start(rig *x, const model_options *mo)
{
    rig_start_with(x, mo, (engine_options){0});
}

static void rig_stop(rig *x)
{
    engine_destroy(x->g);
    model_destroy(x->m);
    text_tokenizer_destroy(x->t);
}

static void run(rig *x)
{
    bool busy = true;
    err e = {0};
    for (int guard = 0; busy; guard++) {
        assert_true(guard < 100000);
        must(engine_step(x->g, &busy, &e), &e);
    }
}

static const char *const schemas[] = {
    "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"maxLength\":12},\"days\":"
    "{\"type\":\"integer\",\"minimum\":1,"
    "\"maximum\":14},\"sunny\":{\"type\":\"boolean\"}},\"required\":[\"city\",\"days\"],"
    "\"additionalProperties\":false}",
    "{\"type\":\"array\",\"items\":{\"enum\":[\"red\",\"green\",\"blue\"]},\"minItems\":1,"
    "\"maxItems\":6}",
    "{\"anyOf\":[{\"type\":\"number\"},{\"type\":\"object\",\"properties\":{\"child\":{\"$ref\":\"#"
    "\"}},\"required\":[\"child\"],"
    "\"additionalProperties\":false}]}",
};

static engine_request request_of(int i, const int32_t *prompt, int n, const char *grammar,
                                 const text_tokenizer *t)
{
    engine_request q = {.id = (uint64_t)i,
                        .prompt = prompt,
                        .n_prompt = n,
                        .max_tokens = 300,
                        .sample = SAMPLE_DEFAULTS,
                        .top_logprobs = -1,
                        .grammar = grammar};
    q.sample.temperature = 1.5f;
    q.sample.seed = (uint64_t)i + 1;
    q.n_end = (int)text_end_tokens(t, &q.end);
    return q;
}

static void check_answer(const rig *x, const answer *a, const char *schema_text, int *ended)
{
    sb text;
    sb_init(&text);
    assert_int_equal(a->done, 1);
    if (a->reason == ENGINE_ERROR)
        fail_msg("%s", a->text);
    if (a->reason == ENGINE_STOPPED) {
        json_error_t error;
        assert_int_equal(text_decode(x->t, a->ids, (size_t)a->n, 0, &text, NULL), STATUS_OK);
        json_t *v = json_loadb(text.data, text.length, JSON_DECODE_ANY, &error);
        json_t *schema = json_loads(schema_text, JSON_DECODE_ANY, NULL);
        if (!v || !fits(v, schema, schema))
            fail_msg("%s\nwrote %.*s", schema_text, (int)text.length, text.data);
        json_decref(v);
        json_decref(schema);
        ++*ended;
    }
    sb_fini(&text);
}

static void submit_all(rig *x, int n_choices)
{
    static const int32_t prompt[] = {72, 105, 33};
    err e = {0};
    for (int i = 0; i < REQUESTS; i++) {
        char spec[1024];
        snprintf(spec, sizeof spec, "{\"schema\":%s}", schemas[i % 3]);
        engine_request q = request_of(i, prompt, 3, spec, x->t);
        q.n_choices = n_choices;
        must(engine_submit(x->g, &q, &e), &e);
    }
    run(x);
}

static void test_random_models_fit(void **state)
{
    (void)state;
    static rig x;
    int ended = 0;
    rig_start(&x, &(model_options){.n_threads = 1, .context = 512, .n_sequences = 8});
    submit_all(&x, 2);
    for (int i = 0; i < REQUESTS; i++)
        for (int c = 0; c < 2; c++)
            check_answer(&x, &x.r.of[i][c], schemas[i % 3], &ended);
    printf("%d of %d answers ended by themselves\n", ended, 2 * REQUESTS);
    assert_true(ended >= REQUESTS);
    rig_stop(&x);
}

/* A form does not change with the company: with state for few and in small steps, with guesses that are checked. */
static void test_same_alone_and_in_company(void **state)
{
    (void)state;
    static rig all, few, guessed;
    rig_start(&all, &(model_options){.n_threads = 1, .context = 512, .n_sequences = 16});
    submit_all(&all, 1);
    rig_start(&few, &(model_options){.n_threads = 1,
                                     .context = 512,
                                     .n_sequences = 3,
                                     .state_tokens = 512,
                                     .max_tokens = 5});
    submit_all(&few, 1);
    rig_start_with(
        &guessed,
        &(model_options){.n_threads = 1, .context = 512, .n_sequences = 16, .max_outputs = 64},
        (engine_options){.draft = ENGINE_DRAFT_LOOKUP, .draft_always = true});
    submit_all(&guessed, 1);
    for (int i = 0; i < REQUESTS; i++) {
        const answer *a = &all.r.of[i][0];
        const answer *const others[] = {&few.r.of[i][0], &guessed.r.of[i][0]};
        for (size_t k = 0; k < BASE_COUNT(others); k++) {
            assert_int_equal(a->n, others[k]->n);
            assert_int_equal(a->reason, others[k]->reason);
            assert_memory_equal(a->ids, others[k]->ids, sizeof *a->ids * (size_t)a->n);
        }
    }
    engine_stats stats;
    engine_get_stats(guessed.g, &stats);
    assert_true(stats.drafted_tokens > 0);
    rig_stop(&guessed);
    rig_stop(&all);
    rig_stop(&few);
}

static void test_stops_when_complete(void **state)
{
    (void)state;
    static rig x;
    static const int32_t prompt[] = {1, 2};
    err e = {0};
    rig_start(&x, &(model_options){.n_threads = 1, .context = 512});
    engine_request q = request_of(0, prompt, 2, "{\"text\":\"shoal\"}", x.t);
    q.n_end = 0; /* end tokens are ignored: still it stops */
    must(engine_submit(x.g, &q, &e), &e);
    q.id = 1;
    q.grammar = "{\"schema\":{\"not\":{}}}";
    must(engine_submit(x.g, &q, &e), &e);
    run(&x);
    sb text;
    sb_init(&text);
    assert_int_equal(x.r.of[0][0].reason, ENGINE_STOPPED);
    assert_int_equal(text_decode(x.t, x.r.of[0][0].ids, (size_t)x.r.of[0][0].n, 0, &text, NULL),
                     STATUS_OK);
    assert_int_equal(text.length, 5);
    assert_memory_equal(text.data, "shoal", 5);
    assert_int_equal(x.r.of[1][0].reason, ENGINE_ERROR);
    assert_int_equal(x.r.of[1][0].code, STATUS_INVALID);
    assert_non_null(strstr(x.r.of[1][0].text, "not"));
    sb_fini(&text);
    rig_stop(&x);
}

/* ---- log-probabilities of prompts ------------------------------------------------------------------------------------ */

static void test_prompt_scores(void **state)
{
    (void)state;
    enum { N = 150 };
    static rig x;
    static float logits[N * 331], want[N];
    int32_t ids[N];
    err e = {0};
    for (int i = 0; i < N; i++)
        ids[i] = (int32_t)(hash_u64((uint64_t)i, 9) % 331);
    model_options mo = {.n_threads = 1, .context = 512, .max_outputs = 64, .max_tokens = 64};
    model *m = run_load(TEST_DATA "/models/tiny-q8_0.gguf", &mo);
    run_pool pool = {0};
    run_sequence s;
    run_sequence_init(&s, &pool);
    run_feed(m, &pool, &s, ids, N, 33, logits);
    for (int i = 1; i < N; i++) {
        const float *row = logits + (i - 1) * 331;
        double sum = 0;
        for (int k = 0; k < 331; k++)
            sum += exp((double)row[k]);
        want[i] = (float)((double)row[ids[i]] - log(sum));
    }
    model_destroy(m);
    static const struct {
        int max_tokens, n_sequences;
    } ways[] = {{256, 8}, {16, 2}, {64, 1}};
    for (size_t w = 0; w < BASE_COUNT(ways); w++) {
        rig_start(&x, &(model_options){.n_threads = 1,
                                       .context = 512,
                                       .n_sequences = ways[w].n_sequences,
                                       .max_tokens = ways[w].max_tokens});
        for (int i = 0; i < 6;
             i++) { /* the later ones find the prompt in the cache, and must not skip it */
            engine_request q = request_of(i, ids, N - i, NULL, x.t);
            q.top_logprobs = i % 3;
            q.score_prompt = i != 1;
            q.prompt_only = i % 2 == 0;
            q.max_tokens = 4;
            must(engine_submit(x.g, &q, &e), &e);
            if (i % 2)
                run(&x);
        }
        run(&x);
        for (int i = 0; i < 6; i++) {
            const answer *a = &x.r.of[i][0];
            assert_int_equal(a->done, 1);
            assert_int_equal(a->n_scored, i == 1 ? 0 : N - i - 1);
            for (int k = 0; k < a->n_scored; k++) {
                assert_int_equal(a->scored[k], ids[k + 1]);
                assert_true(fabs((double)(a->scores[k] - want[k + 1])) < 1e-4);
            }
            assert_int_equal(a->n > 0, i % 2);
            if (i % 2 == 0)
                assert_int_equal(a->reason, ENGINE_LENGTH);
        }
        rig_stop(&x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_models_fit),
        cmocka_unit_test(test_same_alone_and_in_company),
        cmocka_unit_test(test_stops_when_complete),
        cmocka_unit_test(test_prompt_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
