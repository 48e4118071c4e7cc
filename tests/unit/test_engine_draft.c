/*
 * Speculation changes nothing but time: a crowd of requests with every sampling option is answered with and without drafts, by lookup and
 * by draft models that are always, mostly or never right, over every kind of state, short of memory and not; all events are compared bit
 * by bit. And it does something: a text that repeats itself needs fewer steps, and the counters say why.
 */
#include "engine/draft.h"
#include "engine/engine.h"
#include "model_make.h"
#include "model_run.h"
#include "os/os.h"

enum { REQUESTS = 24, CHOICES = 3, TOKENS = 160 };

/* ---- models -------------------------------------------------------------------------------------------------------- */

typedef struct subject {
    const char *name, *path; /* path: of tests/data/models; NULL: made */
    make_shape shape;
    int slots;
    model_kv kv;
} subject;

static const subject subjects[] = {
    {.name = "pages", .shape = {"llama", 2, 64, 4, 2, 16, 96, 131, 0, "Q8_0", true, 11}},
    {.name = "windows", .shape = {"gemma3", 7, 64, 4, 2, 16, 96, 131, 20, "Q8_0", true, 15}},
    {.name = "windows and decay",
     .shape = {"shoal-decay", 4, 64, 4, 2, 16, 96, 131, 20, "Q8_0", false, 12},
     .slots = 64},
    {.name = "pages of q8_0",
     .shape = {"llama", 2, 64, 4, 2, 40, 96, 131, 0, "Q8_0", true, 11},
     .kv = MODEL_KV_Q8_0},
    {.name = "tiny-q8_0", .path = TEST_DATA "/models/tiny-q8_0.gguf"},
    {.name = "h14-2-q4_k", .path = TEST_DATA "/models/h14-2-q4_k.gguf"},
};

typedef struct limits {
    uint64_t state_tokens;
    int n_sequences, rows;
} limits;

static model *load(const subject *c, const limits *l, const char *device)
{
    model_options o = {.n_threads = 1,
                       .device = device,
                       .kv = c->kv,
                       .context = 512,
                       .state_tokens = l->state_tokens,
                       .n_sequences = l->n_sequences,
                       .max_tokens = 64,
                       .max_outputs = l->n_sequences + l->rows};
    model_admit_test_families(true);
    for (int i = 0; c->slots && i < MODEL_STATE_CLASSES; i++)
        o.n_pages[i] = c->slots;
    return c->path ? run_load(c->path, &o) : run_load_made(&c->shape, &o);
}

/* ---- what came out ------------------------------------------------------------------------------------------------- */

typedef struct answer {
    int n, done, n_drafted, n_accepted;
    engine_reason reason;
    struct answer_token {
        int32_t id;
        float logprob;
        int n_top;
        struct engine_top top[ENGINE_TOP_LOGPROBS];
    } tokens[TOKENS];
} answer;

typedef struct record {
    answer of[REQUESTS][CHOICES];
    engine_stats stats;
} record;

static void note(void *context, const engine_event *event)
{
    record *r = context;
    assert_true(event->id < REQUESTS && event->choice < CHOICES);
    answer *a = &r->of[event->id][event->choice];
    assert_int_equal(a->done, 0);
    if (event->kind == ENGINE_STARTED)
        return;
    assert_int_equal(event->index, a->n);
    if (event->kind == ENGINE_DONE) {
        if (event->reason == ENGINE_ERROR)
            fail_msg("request %d failed: %s", (int)event->id, event->text);
        a->done++;
        a->reason = event->reason;
        a->n_drafted = event->n_drafted;
        a->n_accepted = event->n_accepted;
        return;
    }
    assert_true(a->n < TOKENS);
    struct answer_token *t = &a->tokens[a->n++];
    t->id = event->token;
    t->logprob = event->logprob;
    t->n_top = event->n_top;
    memcpy(t->top, event->top, sizeof t->top);
}

static void finish(engine *g, record *r)
{
    bool busy = true;
    err e = {0};
    for (int guard = 0; busy; guard++) {
        assert_true(guard < 20000);
        must(engine_step(g, &busy, &e), &e);
    }
    engine_get_stats(g, &r->stats);
    assert_int_equal(r->stats.live, 0);
    assert_int_equal(r->stats.state_used_tokens, 0);
}

/* ---- the crowd ----------------------------------------------------------------------------------------------------- */

static const int32_t banned[] = {5, 6, 7, 8};
static const sample_bias bias[] = {{9, 4.0f}, {10, -3.0f}};
static const int32_t ends[] = {17, 18};

static void fill_prompt(int32_t *ids, int n, int n_vocab, uint64_t seed, int period)
{
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)(hash_u64((uint64_t)(period ? i % period : i), seed) % (uint64_t)n_vocab);
}

static engine_request make_request(int i, const int32_t *prompt, int n)
{
    engine_request q = {.id = (uint64_t)i,
                        .prompt = prompt,
                        .n_prompt = n,
                        .n_choices = i % 7 == 3 ? CHOICES : 1,
                        .max_tokens = 20 + i * 17 % 120,
                        .top_logprobs = i % 3 == 0 ? 4 : -1,
                        .no_reuse = i % 5 == 4,
                        .sample = SAMPLE_DEFAULTS};
    sample_options *s = &q.sample;
    s->seed = (uint64_t)i * 31;
    s->temperature = i % 2 ? 0.7f : 0;
    if (i % 8 == 1)
        s->top_k = 6;
    if (i % 8 == 3)
        s->top_p = 0.8f;
    if (i % 8 == 5)
        s->min_p = 0.1f;
    if (i % 6 == 2)
        s->repetition_penalty = 1.3f;
    if (i % 6 == 4) {
        s->presence_penalty = 0.5f;
        s->frequency_penalty = 0.2f;
    }
    if (i % 4 == 1) {
        s->bias = bias;
        s->n_bias = BASE_COUNT(bias);
        s->banned = banned;
        s->n_banned = BASE_COUNT(banned);
    }
    if (i % 5 == 0) {
        q.end = ends;
        q.n_end = BASE_COUNT(ends);
    }
    return q;
}

static void run_crowd(record *r, model *m, const engine_options *o)
{
    static int32_t prompts[REQUESTS][256];
    int n_vocab = (int)model_get_card(m)->n_vocab;
    engine *g;
    err e = {0};
    bool busy;
    memset(r, 0, sizeof *r);
    must(engine_create(&g, m, o, note, r, &e), &e);
    for (int i = 0; i < REQUESTS; i++) {
        int n = 1 + (int)(hash_u64((uint64_t)i, 9) % 200);
        fill_prompt(prompts[i], n, n_vocab, (uint64_t)i + 100, i % 3 == 2 ? 0 : 5 + i);
        if (i % 4 == 0 && n > 130)
            fill_prompt(prompts[i], 130, n_vocab, 5000, 9);
        engine_request q = make_request(i, prompts[i], n);
        must(engine_submit(g, &q, &e), &e);
        must(engine_step(g, &busy, &e), &e);
        if (i == 12) { /* readers that are slow for a while */
            engine_hold(g, 10, -1, true);
            engine_hold(g, 11, -1, true);
        }
    }
    engine_hold(g, 10, -1, false);
    engine_hold(g, 11, -1, false);
    finish(g, r);
    engine_destroy(g);
}

static void compare(const char *what, const record *with, const record *without)
{
    for (int i = 0; i < REQUESTS; i++)
        for (int c = 0; c < CHOICES; c++) {
            const answer *a = &with->of[i][c], *b = &without->of[i][c];
            for (int k = 0; k < BASE_MIN(a->n, b->n); k++)
                if (memcmp(&a->tokens[k], &b->tokens[k], sizeof a->tokens[k]))
                    fail_msg("%s: request %d, choice %d, token %d is %d (%a), expected %d (%a)",
                             what, i, c, k, a->tokens[k].id, (double)a->tokens[k].logprob,
                             b->tokens[k].id, (double)b->tokens[k].logprob);
            if (a->n != b->n || a->done != b->done || a->reason != b->reason)
                fail_msg("%s: request %d, choice %d: %d tokens and reason %d, expected %d and %d",
                         what, i, c, a->n, (int)a->reason, b->n, (int)b->reason);
        }
}

static void check_counts(const char *what, const record *r)
{
    uint64_t drafted = 0, accepted = 0;
    for (int i = 0; i < REQUESTS; i++)
        for (int c = 0; c < CHOICES; c++) {
            const answer *a = &r->of[i][c];
            assert_true(a->n_accepted <= a->n_drafted && a->n_accepted <= a->n);
            drafted += (uint64_t)a->n_drafted;
            accepted += (uint64_t)a->n_accepted;
        }
    if (drafted != r->stats.drafted_tokens || accepted != r->stats.accepted_tokens)
        fail_msg("%s: the answers say %d of %d, the engine %d of %d", what, (int)accepted,
                 (int)drafted, (int)r->stats.accepted_tokens, (int)r->stats.drafted_tokens);
}

static record with, without;

static void crowd_of(const subject *c, const limits *l, const char *device)
{
    char what[128];
    model *m = load(c, l, device);
    engine_options o = {.cache_slots = 4};
    run_crowd(&without, m, &o);
    assert_int_equal(without.stats.drafted_tokens, 0);
    for (int always = 0; always < 2; always++) {
        o.draft = ENGINE_DRAFT_LOOKUP;
        o.draft_always = always;
        run_crowd(&with, m, &o);
        snprintf(what, sizeof what, "%s, lookup, %s", c->name, always ? "always" : "measured");
        compare(what, &with, &without);
        check_counts(what, &with);
        if (always && (with.stats.drafted_tokens == 0 || with.stats.accepted_tokens == 0))
            fail_msg("%s: %d of %d guesses stood", what, (int)with.stats.accepted_tokens,
                     (int)with.stats.drafted_tokens);
    }
    model_destroy(m);
}

static void lookup_over_states(void **state)
{
    (void)state;
    limits roomy = {8192, 8, 24}, narrow = {640, 6, 3};
    for (size_t i = 0; i < BASE_COUNT(subjects); i++) {
        crowd_of(&subjects[i], &roomy, NULL);
        crowd_of(&subjects[i], &narrow, NULL);
    }
    crowd_of(&subjects[0], &roomy, "cpu_copy");
}

/* Draft models: the model itself, one of the same vocabulary that is never right, and kinds of state of their own. */
static void models_over_states(void **state)
{
    (void)state;
    static const subject stranger = {
        .name = "stranger", .shape = {"llama", 1, 32, 2, 1, 16, 64, 131, 0, "Q8_0", true, 77}};
    const struct {
        const subject *target, *draft;
    } pairs[] = {{&subjects[0], &subjects[0]}, {&subjects[0], &stranger},
                 {&subjects[1], &subjects[0]}, {&subjects[0], &subjects[2]},
                 {&subjects[2], &subjects[2]}, {&subjects[4], &subjects[4]},
                 {&subjects[1], &subjects[1]}};
    const limits all[] = {{8192, 8, 24}, {640, 6, 6}};
    for (size_t i = 0; i < BASE_COUNT(pairs); i++)
        for (size_t k = 0; k < BASE_COUNT(all); k++) {
            char what[128];
            model *m = load(pairs[i].target, &all[k], NULL),
                  *d = load(pairs[i].draft, &all[k], NULL);
            engine_options o = {.cache_slots = 4};
            run_crowd(&without, m, &o);
            o.draft = ENGINE_DRAFT_MODEL;
            o.draft_model = d;
            for (int always = 0; always < 2; always++) {
                o.draft_always = always;
                run_crowd(&with, m, &o);
                snprintf(what, sizeof what, "%s by %s, %s", pairs[i].target->name,
                         pairs[i].draft->name, always ? "always" : "measured");
                compare(what, &with, &without);
                check_counts(what, &with);
                if (always)
                    assert_true(with.stats.drafted_tokens > 0);
                bool same = pairs[i].target == pairs[i].draft;
                if (always && k == 0 && same &&
                    with.stats.accepted_tokens * 10 < with.stats.drafted_tokens * 6)
                    fail_msg("%s: %d of %d guesses stood", what, (int)with.stats.accepted_tokens,
                             (int)with.stats.drafted_tokens);
            }
            model_destroy(m);
            model_destroy(d);
        }
}

/* ---- it does something --------------------------------------------------------------------------------------------- */

/* A greedy answer to a repeating prompt falls into a cycle: most guesses stand and steps become fewer. */
static void repeating_text_takes_fewer_steps(void **state)
{
    (void)state;
    limits l = {4096, 4, 24};
    model *m = load(&subjects[0], &l, NULL);
    int32_t prompt[64];
    fill_prompt(prompt, 64, 131, 3, 4);
    engine_request q = {.id = 0,
                        .prompt = prompt,
                        .n_prompt = 64,
                        .max_tokens = 150,
                        .top_logprobs = -1,
                        .sample = SAMPLE_DEFAULTS};
    q.sample.temperature = 0;
    record *runs[] = {&without, &with};
    for (int i = 0; i < 2; i++) {
        engine *g;
        err e = {0};
        engine_options o = {.draft = i ? ENGINE_DRAFT_LOOKUP : ENGINE_DRAFT_NONE,
                            .draft_always = true};
        memset(runs[i], 0, sizeof *runs[i]);
        must(engine_create(&g, m, &o, note, runs[i], &e), &e);
        must(engine_submit(g, &q, &e), &e);
        finish(g, runs[i]);
        engine_destroy(g);
    }
    compare("repeating text", &with, &without);
    assert_int_equal(with.of[0][0].n, 150);
    assert_true(with.stats.accepted_tokens >= 75);
    assert_int_equal(with.stats.generated_tokens, 150);
    assert_int_equal(with.stats.steps + with.stats.accepted_tokens, without.stats.steps);
    model_destroy(m);
}

static void lookup_finds_the_longest_match(void **state)
{
    (void)state;
    lookup l;
    err e = {0};
    int32_t ids[8];
    int length;
    const int32_t text[] = {1, 2, 3, 4, 5, 9, 2, 3, 7, 7, 1, 2, 3};
    must(lookup_init(&l, 64, &e), &e);
    assert_int_equal(lookup_find(&l, text, 1, 4, ids, &length), 0);
    assert_int_equal(lookup_find(&l, text, 5, 4, ids, &length), 0);
    assert_int_equal(lookup_find(&l, text, 8, 3, ids, &length), 3); /* 2 3 → 4 5 9 */
    assert_int_equal(length, 2);
    assert_int_equal(ids[0], 4);
    assert_int_equal(ids[2], 9);
    assert_int_equal(lookup_find(&l, text, 13, 4, ids, &length), 4); /* 1 2 3 beats the newer 2 3 */
    assert_int_equal(length, 3);
    assert_int_equal(ids[0], 4);
    lookup_fini(&l);
    const int32_t cycle[] = {6, 8, 6, 8, 6};
    must(lookup_init(&l, 64, &e), &e);
    assert_int_equal(lookup_find(&l, cycle, 5, 7, ids, &length), 7); /* beyond its own end */
    for (int i = 0; i < 7; i++)
        assert_int_equal(ids[i], i % 2 ? 6 : 8);
    lookup_fini(&l);
}

/* A text where no guess ever stands, and where a row more costs a lot: guessing stops by itself. */
static void bad_guesses_end(void **state)
{
    (void)state;
    draft *d;
    draft_sequence *s;
    err e = {0};
    must(draft_create(&d, &(engine_options){.draft = ENGINE_DRAFT_LOOKUP}, NULL, &e), &e);
    must(draft_sequence_create(&s, d, 4096, &e), &e);
    static int32_t tokens[4096];
    int n = 300, checked_first = 0, checked_last = 0;
    for (int i = 0; i < n; i++)
        tokens[i] = i % 10;
    for (int step = 0; step < 400; step++) {
        draft_call c = {.s = s, .tokens = tokens, .n_tokens = n, .room = 8};
        draft_propose(d, &c, 1, 1, 24);
        *(step < 40 ? &checked_first : &checked_last) += c.n;
        draft_measure(d, 1 + c.n, (uint64_t)(100 + 90 * c.n));
        tokens[n++] = 1000 + step; /* what no guess was */
        draft_learn(d, s, tokens, n, 1);
        for (int k = 0; k < 4; k++) /* the sequence goes on into places where it was before */
            tokens[n++] = k;
    }
    if (checked_last > checked_first)
        fail_msg("%d guesses in the first 40 steps, %d in the 360 after", checked_first,
                 checked_last);
    assert_true(checked_last < 36);
    draft_sequence_destroy(s);
    draft_destroy(d);
}

/* The same chances are worth more rows alone than beside 20 others. */
static void crowds_guess_less(void **state)
{
    (void)state;
    enum { CROWD = 20, N = 200 };
    draft *d;
    err e = {0};
    static int32_t tokens[N];
    for (int i = 0; i < N; i++)
        tokens[i] =
            i % 3 == 2 ? i : i % 3; /* pairs that were here before, guesses that are wrong */
    draft_sequence *s[CROWD];
    draft_call calls[CROWD];
    must(draft_create(&d, &(engine_options){.draft = ENGINE_DRAFT_LOOKUP}, NULL, &e), &e);
    for (int rows = 1; rows <= 64; rows++)
        draft_measure(d, rows, (uint64_t)(1000 + 100 * rows));
    for (int i = 0; i < CROWD; i++) {
        must(draft_sequence_create(&s[i], d, N, &e), &e);
        calls[i] = (draft_call){.s = s[i], .tokens = tokens, .n_tokens = N, .room = 10};
    }
    draft_propose(d, calls, 1, 1, 24);
    int alone = calls[0].n;
    draft_propose(d, calls, CROWD, CROWD, 24);
    assert_true(alone > 0);
    int together = 0;
    for (int i = 0; i < CROWD; i++)
        together += calls[i].n;
    if (together >= alone * CROWD / 2)
        fail_msg("%d guesses alone, %d beside %d", alone, together, CROWD);
    for (int i = 0; i < CROWD; i++)
        draft_sequence_destroy(s[i]);
    draft_destroy(d);
}

/* ---- refusals ------------------------------------------------------------------------------------------------------ */

static void other_vocabularies_are_refused(void **state)
{
    (void)state;
    static const subject wide = {.name = "wide",
                                 .shape = {"llama", 1, 32, 2, 1, 16, 64, 200, 0, "Q8_0", true, 7}};
    static const subject other = {.name = "h16", .path = TEST_DATA "/models/h16-4-q6_k.gguf"};
    limits l = {2048, 4, 8};
    const subject *pairs[][2] = {{&subjects[0], &wide}, {&subjects[4], &other}};
    for (size_t i = 0; i < BASE_COUNT(pairs); i++) {
        model *m = load(pairs[i][0], &l, NULL), *d = load(pairs[i][1], &l, NULL);
        engine *g;
        err e = {0};
        engine_options o = {.draft = ENGINE_DRAFT_MODEL, .draft_model = d};
        assert_int_equal(engine_create(&g, m, &o, note, &with, &e), STATUS_INVALID);
        assert_non_null(strstr(e.text, "vocabulary"));
        assert_non_null(strstr(e.text, model_get_card(d)->name));
        assert_non_null(strstr(e.text, model_get_card(m)->name));
        model_destroy(m);
        model_destroy(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lookup_finds_the_longest_match),
        cmocka_unit_test(bad_guesses_end),
        cmocka_unit_test(crowds_guess_less),
        cmocka_unit_test(repeating_text_takes_fewer_steps),
        cmocka_unit_test(lookup_over_states),
        cmocka_unit_test(models_over_states),
        cmocka_unit_test(other_vocabularies_are_refused),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
