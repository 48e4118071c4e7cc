/*
 * Pipelines with several steps under way at once, over threads (loop) and processes (shm, tls): many sequences, with all that sequences can be
 * (sampled in every way, forked, held to a form, scored, guessed ahead, given up for want of pages), get the tokens and log-probabilities of the whole
 * model; and so do those that are left when others are cancelled, held or given another epoch in mid-flight. Then ranks that die or stop while
 * several steps are under way: everything ends with a reason, nothing hangs.
 */
#include "team_rig.h"

#include "engine/group.h"

/* the built-in model: it has layers for three stages */
#define FOUR_LAYERS SHOAL_SOURCE "/models/minnow/minnow.gguf"

enum {
    REQUESTS = 12,
    CHOICES = 4,
    MOST = REQUESTS * CHOICES,
    TOKENS = 60,
    LONG = 300,
    GUARD = 50000
};

static const int pipelines[] = {CUT_PP2, CUT_PP3_UNEVEN, CUT_GRID_UNEVEN};

static engine_cut over(int i, engine_link link)
{
    return team_cut_over(pipelines[i], link);
}

/* ---- what is said -------------------------------------------------------------------------------------------------- */

typedef struct said {
    int n[MOST], n_prompt[MOST], done, failed, cancelled;
    int32_t token[MOST][TOKENS];
    float logprob[MOST][TOKENS], prompt[MOST][LONG];
    bool over[MOST];
    char why[ERR_TEXT];
} said;

static void hear(void *context, const engine_event *event)
{
    said *a = context;
    int at = (int)event->id * CHOICES + event->choice;
    assert_true(at < MOST && !a->over[at]);
    if (event->kind == ENGINE_DONE) {
        a->over[at] = true;
        a->done++;
        a->cancelled += event->reason == ENGINE_CANCELLED;
        if (event->reason == ENGINE_ERROR) {
            a->failed++;
            assert_int_not_equal(event->code, STATUS_OK);
            snprintf(a->why, sizeof a->why, "%s", event->text);
        }
    } else if (event->kind == ENGINE_TOKEN) {
        assert_int_equal(event->index, a->n[at]);
        a->token[at][a->n[at]] = event->token;
        a->logprob[at][a->n[at]++] = event->logprob;
    } else if (event->kind == ENGINE_PROMPT) {
        a->prompt[at][event->index] = event->logprob;
        a->n_prompt[at]++;
    }
}

/* b may have left off in requests of `cut_short`. */
static void same(const said *a, const said *b, unsigned cut_short, const char *what, int number)
{
    assert_int_equal(b->failed, 0);
    assert_int_equal(b->done, a->done);
    for (int i = 0; i < MOST; i++) {
        int n = cut_short >> i / CHOICES & 1 ? b->n[i] : a->n[i];
        if (b->n[i] != n || n > a->n[i] || (b->n_prompt[i] != a->n_prompt[i] && n == a->n[i]))
            fail_msg("%s (%d): %d tokens of %d, expected %d", what, number, b->n[i], i, a->n[i]);
        for (int k = 0; k < n; k++)
            if (a->token[i][k] != b->token[i][k] ||
                memcmp(&a->logprob[i][k], &b->logprob[i][k], sizeof(float)))
                fail_msg("%s (%d): token %d of %d is %d (%.9g), expected %d (%.9g)", what, number,
                         k, i, b->token[i][k], (double)b->logprob[i][k], a->token[i][k],
                         (double)a->logprob[i][k]);
        if (n == a->n[i])
            assert_memory_equal(a->prompt[i], b->prompt[i], sizeof a->prompt[i]);
    }
}

/* ---- what is asked ------------------------------------------------------------------------------------------------- */

static const sample_bias bias[] = {{7, 3.0f}, {9, -50.0f}};
static const int32_t banned[] = {3, 4, 5};
static const char form[] =
    "{\"schema\":{\"type\":\"array\",\"items\":{\"enum\":[\"red\",\"green\",\"blue\"]},"
    "\"minItems\":3,\"maxItems\":6}}";

/* Every request another way of sampling; beginnings are shared. */
static void request(engine *g, uint64_t id)
{
    int32_t ids[LONG];
    int n = id == 9 ? LONG - 1 : 60 + (int)id * 13;
    err e = {0};
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)(hash_u64((uint64_t)i, i < 64 ? 3 : id) % 200);
    engine_request r = {.id = id,
                        .prompt = ids,
                        .n_prompt = n,
                        .n_choices = id == 7 ? CHOICES : 1,
                        .max_tokens = TOKENS - (int)id % 5,
                        .sample = SAMPLE_DEFAULTS,
                        .top_logprobs = id % 2 ? 3 : 0,
                        .grammar = id == 8 ? form : NULL,
                        .score_prompt = id == 10,
                        .prompt_only = id == 11};
    sample_options *s = &r.sample;
    s->seed = 40 + id;
    s->temperature = id == 0 ? 0 : 0.5f + 0.1f * (float)id;
    s->top_k = id == 2 ? 20 : 0;
    s->top_p = id == 3 ? 0.7f : s->top_p;
    s->min_p = id == 4 ? 0.05f : 0;
    if (id == 5) {
        s->repetition_penalty = 1.3f;
        s->presence_penalty = 0.4f;
        s->frequency_penalty = 0.2f;
    }
    if (id == 6) {
        s->bias = bias;
        s->n_bias = 2;
        s->banned = banned;
        s->n_banned = 3;
    }
    must(engine_submit(g, &r, &e), &e);
}

typedef struct talk {
    engine_team *t;
    engine *g;
    said a;
    int steps;
    bool busy;
} talk;

static void talk_start(talk *k, engine_cut cut, uint64_t state_tokens, engine_draft draft)
{
    engine_team_options o = team_options(FOUR_LAYERS, cut);
    o.deadline_us = 2000000;
    o.model.state_tokens = state_tokens;
    memset(k, 0, sizeof *k);
    team_talk(&k->t, &k->g, o, 10, draft, hear, &k->a);
    k->busy = true;
}

static void talk_step(talk *k)
{
    err e = {0};
    must(engine_step(k->g, &k->busy, &e), &e);
    assert_true(++k->steps < GUARD);
}

static engine_stats stats(const talk *k)
{
    engine_stats s;
    engine_get_stats(k->g, &s);
    return s;
}

static void talk_close(talk *k)
{
    engine_destroy(k->g);
    engine_team_destroy(k->t);
}

static void talk_end(talk *k)
{
    while (k->busy)
        talk_step(k);
    assert_int_equal(stats(k).flights, 0);
    talk_close(k);
}

static void ask_all(talk *k)
{
    for (uint64_t id = 0; id < REQUESTS; id++)
        request(k->g, id);
}

/* Steps until at least n are under way. */
static void talk_until_flying(talk *k, int n)
{
    while (stats(k).flights < n) {
        talk_step(k);
        assert_true(k->busy);
    }
}

static void undisturbed(said *out, engine_draft draft)
{
    static talk k;
    talk_start(&k, (engine_cut){0}, 4096, draft);
    ask_all(&k);
    while (k.busy)
        talk_step(&k);
    assert_int_equal(stats(&k).most_flights, 1);
    talk_close(&k);
    *out = k.a;
    assert_int_equal(out->done, REQUESTS + CHOICES - 1);
    if (out->failed)
        fail_msg("%s", out->why);
}

/* ---- what goes well ------------------------------------------------------------------------------------------------ */

static uint64_t given_up; /* states, for want of pages */

static void as_if_whole(int i, engine_link link, uint64_t state_tokens, engine_draft draft,
                        const said *whole)
{
    static talk k;
    talk_start(&k, over(i, link), state_tokens, draft);
    ask_all(&k);
    while (k.busy)
        talk_step(&k);
    engine_stats s = stats(&k);
    if (s.most_flights < team_cuts[pipelines[i]].cut.n_stages)
        fail_msg("%s: at most %d steps were under way", team_cuts[pipelines[i]].name,
                 s.most_flights);
    assert_int_equal(s.flights, 0);
    given_up += s.preemptions;
    talk_close(&k);
    same(whole, &k.a, 0, team_cuts[pipelines[i]].name, (int)link);
    printf("%s over %s: %d under way at most, %llu given up\n", team_cuts[pipelines[i]].name,
           engine_link_name(link), s.most_flights, (unsigned long long)s.preemptions);
}

static void answers(void **state)
{
    (void)state;
    given_up = 0;
    static said whole;
    undisturbed(&whole, ENGINE_DRAFT_NONE);
    for (int i = 0; i < (int)BASE_COUNT(pipelines); i++)
        for (int l = 0; l < ENGINE_LINKS; l++)
            as_if_whole(i, (engine_link)l, l == ENGINE_LINK_SHM ? 192 : 4096, ENGINE_DRAFT_NONE,
                        &whole);
    for (int i = 0; i < (int)BASE_COUNT(pipelines); i++) {
        as_if_whole(i, ENGINE_LINK_LOOP, 64, ENGINE_DRAFT_NONE, &whole);
        as_if_whole(i, ENGINE_LINK_LOOP, 4096, ENGINE_DRAFT_LOOKUP, &whole);
        as_if_whole(i, ENGINE_LINK_LOOP, 192, ENGINE_DRAFT_LOOKUP, &whole);
    }
    assert_true(given_up > 20);
}

/* One long prompt, alone: its chunks follow each other. */
static void one_prompt(void **state)
{
    (void)state;
    static said whole;
    static talk k;
    for (int i = -1; i < (int)BASE_COUNT(pipelines); i++) {
        talk_start(&k, i < 0 ? (engine_cut){0} : over(i, ENGINE_LINK_LOOP), 4096,
                   ENGINE_DRAFT_NONE);
        request(k.g, 9);
        while (k.busy && k.a.n[9 * CHOICES] == 0)
            talk_step(&k);
        int most = stats(&k).most_flights;
        talk_end(&k);
        if (i < 0)
            whole = k.a;
        else
            same(&whole, &k.a, 0, team_cuts[pipelines[i]].name, i);
        assert_int_equal(most, i < 0 ? 1 : team_cuts[pipelines[i]].cut.n_stages + 1);
    }
}

/* ---- in mid-flight ------------------------------------------------------------------------------------------------- */

/* Requests are cancelled, before and after their first tokens, while their steps are under way: the others do not notice. */
static void cancelled(void **state)
{
    (void)state;
    static said whole;
    static talk k;
    undisturbed(&whole, ENGINE_DRAFT_NONE);
    for (int i = 0; i < (int)BASE_COUNT(pipelines); i++)
        for (int l = ENGINE_LINK_SHM; l <= ENGINE_LINK_LOOP; l += ENGINE_LINK_LOOP)
            for (int at = 0; at < 40; at += l == ENGINE_LINK_LOOP ? 4 : 17) {
                unsigned gone = 1u << at % REQUESTS | 1u << (at + 5) % REQUESTS | 1u << 1;
                talk_start(&k, over(i, (engine_link)l), at % 8 ? 4096 : 192, ENGINE_DRAFT_NONE);
                ask_all(&k);
                while (k.steps < at)
                    talk_step(&k);
                talk_until_flying(&k, 1);
                for (uint64_t id = 0; id < REQUESTS; id++)
                    if (gone >> id & 1)
                        engine_cancel(k.g, id, -1);
                talk_end(&k);
                same(&whole, &k.a, gone, team_cuts[pipelines[i]].name, at);
                assert_true(at > 8 || k.a.cancelled > 0);
            }
}

/* Readers that are slow now and then, whose state others may take. */
static void held(void **state)
{
    (void)state;
    static said whole;
    static talk k;
    undisturbed(&whole, ENGINE_DRAFT_NONE);
    for (int i = 0; i < (int)BASE_COUNT(pipelines); i++) {
        talk_start(&k, over(i, ENGINE_LINK_LOOP), 192, ENGINE_DRAFT_NONE);
        ask_all(&k);
        for (int at = 0; k.busy || at < 400; at++) {
            engine_hold(k.g, hash_u64((uint64_t)at, 1) % REQUESTS, -1, at < 300);
            if (at >= 300)
                for (uint64_t id = 0; id < REQUESTS; id++)
                    engine_hold(k.g, id, -1, false);
            talk_step(&k);
        }
        talk_end(&k);
        same(&whole, &k.a, 0, team_cuts[pipelines[i]].name, i);
    }
}

/* From a pipeline to another cut while several steps are under way, with and without room for both. */
static void other_epochs(void **state)
{
    (void)state;
    static said whole;
    static talk k;
    undisturbed(&whole, ENGINE_DRAFT_NONE);
    const engine_cut to[] = {{.n_stages = 1, .n_tensor = 2},
                             {.n_stages = 3, .n_tensor = 1},
                             {.n_stages = 2, .n_tensor = 2}};
    for (int i = 0; i < (int)BASE_COUNT(pipelines); i++)
        for (int j = 0; j < (int)BASE_COUNT(to); j++)
            for (int l = ENGINE_LINK_SHM; l <= ENGINE_LINK_LOOP; l += ENGINE_LINK_LOOP) {
                engine_cut next = to[j];
                next.link = (engine_link)l;
                talk_start(&k, over(i, (engine_link)l), 4096, ENGINE_DRAFT_NONE);
                ask_all(&k);
                for (int s = 0; s < 9 + 5 * j; s++)
                    talk_step(&k);
                int n = team_cuts[pipelines[i]].cut.n_stages - 1; /* one is back after every step */
                talk_until_flying(&k, n);
                err e = {0};
                bool finished = false;
                must(engine_team_prepare(k.t, k.g, &next, (i + j) % 2, &e), &e);
                while (!finished) {
                    talk_step(&k);
                    must(engine_team_work(k.t, k.g, &finished, &e), &e);
                    assert_true(!engine_is_switching(k.g) || stats(&k).flights == 0);
                }
                k.busy = true;
                talk_end(&k);
                same(&whole, &k.a, 0, team_cuts[pipelines[i]].name, j);
            }
}

/* Who makes no step for a long while lands those that are under way and goes on beating: nobody is missed, and all goes on as it was. */
static void paused(void **state)
{
    (void)state;
    static said whole;
    static talk k;
    undisturbed(&whole, ENGINE_DRAFT_NONE);
    talk_start(&k, over(0, ENGINE_LINK_LOOP), 4096, ENGINE_DRAFT_NONE);
    ask_all(&k);
    engine_group *group = engine_group_of(engine_team_model(k.t));
    engine_beats beats = engine_group_beats(group);
    err e = {0};
    must(engine_group_beat(group, &e), &e); /* from here on it is missed */
    talk_until_flying(&k, 1);
    must(engine_land(k.g, &e), &e);
    assert_int_equal(stats(&k).flights, 0);
    for (uint64_t until = os_now_us() + beats.lost_us * 3 / 2; os_now_us() < until;) {
        must(engine_group_beat(group, &e), &e);
        os_sleep_us(beats.every_us / 4);
    }
    talk_end(&k);
    same(&whole, &k.a, 0, "paused", 0);
}

/* The engine, then its ranks, are given up with steps under way. */
static void left_alone(void **state)
{
    (void)state;
    static talk k;
    for (int i = 0; i < (int)BASE_COUNT(pipelines); i++)
        for (int l = 0; l < ENGINE_LINKS; l++)
            for (int at = 0; at < 20; at += 7) {
                talk_start(&k, over(i, (engine_link)l), 4096, ENGINE_DRAFT_NONE);
                ask_all(&k);
                for (int s = 0; s < at; s++)
                    talk_step(&k);
                talk_until_flying(&k, 1);
                talk_close(&k);
            }
}

/* ---- what goes wrong ----------------------------------------------------------------------------------------------- */

/* A rank dies or stops while steps are under way: each request that was in them ends with the reason, the others when it is their turn. */
static void lose(int i, engine_link link, int rank, int number, int at)
{
    static talk k;
    talk_start(&k, over(i, link), 4096, ENGINE_DRAFT_NONE);
    ask_all(&k);
    while (k.steps < at)
        talk_step(&k);
    int n = team_cuts[pipelines[i]].cut.n_stages - 1;
    talk_until_flying(&k, n);
    int pid = engine_team_pid(k.t, rank - 1), before = k.a.done;
    assert_true(pid > 0);
    kill(pid, number);
    status s = STATUS_OK;
    err e = {0};
    for (int step = 0; step < GUARD && s == STATUS_OK && k.busy; step++)
        s = engine_step(k.g, &k.busy, &e);
    assert_int_not_equal(s, STATUS_OK);
    assert_int_equal(stats(&k).flights, 0);
    assert_true(k.a.failed > 0 && k.a.done - before >= k.a.failed && k.a.why[0]);
    engine_team_why(k.t, &e);
    char name[16];
    snprintf(name, sizeof name, "rank %d", rank);
    if (!strstr(e.text, "rank"))
        fail_msg("%s over %s: \"%s\" does not name %s", team_cuts[pipelines[i]].name,
                 engine_link_name(link), e.text, name);
    if (number == SIGKILL && !strstr(e.text, name))
        fail_msg("%s over %s: \"%s\" does not name %s", team_cuts[pipelines[i]].name,
                 engine_link_name(link), e.text, name);
    for (int step = 0; step < GUARD && k.busy; step++) /* nobody is left waiting */
        (void)engine_step(k.g, &k.busy, &e);
    assert_false(k.busy);
    assert_int_equal(k.a.done, REQUESTS + CHOICES - 1);
    talk_close(&k);
    assert_int_equal(kill(pid, 0), -1);
}

static void lost_ranks(void **state)
{
    (void)state;
    for (int l = 0; l < ENGINE_LINK_LOOP; l++)
        for (int i = 0; i < (int)BASE_COUNT(pipelines); i++)
            for (int rank = 1; rank < engine_cut_ranks(&team_cuts[pipelines[i]].cut); rank++) {
                lose(i, (engine_link)l, rank, SIGKILL, rank * 3);
                if (i < 2 && rank == i + 1)
                    lose(i, (engine_link)l, rank, SIGSTOP, 11);
            }
}

int main(int argc, char **argv)
{
    if (rig_is_rank(argc, argv))
        return rig_rank();
    unsetenv("TEST_RANK");
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers), cmocka_unit_test(one_prompt),   cmocka_unit_test(cancelled),
        cmocka_unit_test(held),    cmocka_unit_test(other_epochs), cmocka_unit_test(left_alone),
        cmocka_unit_test(paused),  cmocka_unit_test(lost_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
