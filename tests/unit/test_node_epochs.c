/*
 * A model that changes its cut while it talks: prepare, switch and release, from every cut to every other one over threads, over processes
 * (shm, tls) for some, with all that sequences can be: decoding, being read, waiting, forked, guessed ahead, given up for want of pages.
 * Every token and every log-probability is that of the whole model left alone. Then what goes wrong: a rank that dies, a file that is gone,
 * no memory; the old epoch goes on where it can.
 */
#include "team_rig.h"

#include "engine/group.h"

enum { MOST = 40, REQUESTS = 6, TOKENS = 30, GUARD = 20000 };

/* ---- what is said -------------------------------------------------------------------------------------------------- */

typedef struct said {
    int n[MOST], done, failed;
    int32_t token[MOST][TOKENS];
    float logprob[MOST][TOKENS];
} said;

static void hear(void *context, const engine_event *event)
{
    said *a = context;
    int at = (int)event->id * 4 + event->choice;
    assert_true(at < MOST);
    if (event->kind == ENGINE_DONE) {
        a->done++;
        a->failed += event->reason == ENGINE_ERROR;
    } else if (event->kind == ENGINE_TOKEN) {
        a->token[at][a->n[at]] = event->token;
        a->logprob[at][a->n[at]++] = event->logprob;
    }
}

/* Request 2 has three choices, every other one is sampled; beginnings are shared. */
static void request(engine *g, uint64_t id)
{
    int32_t ids[300];
    int n = 70 + (int)id * 23;
    err e = {0};
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)(hash_u64((uint64_t)i, i < 64 ? 3 : id) % 200);
    engine_request r = {.id = id,
                        .prompt = ids,
                        .n_prompt = n,
                        .n_choices = id == 2 ? 3 : 1,
                        .max_tokens = TOKENS,
                        .sample = SAMPLE_DEFAULTS,
                        .top_logprobs = 2};
    r.sample.seed = 11 + id;
    r.sample.temperature = id % 2 ? 0 : 0.9f;
    r.sample.top_p = id == 4 ? 0.8f : r.sample.top_p;
    must(engine_submit(g, &r, &e), &e);
}

typedef struct talk {
    engine_team *t;
    engine *g;
    said a;
    int steps;
    bool busy, changing;
    status result; /* of the last change */
    err why;
} talk;

static uint64_t deadline_us; /* of the talks that begin; 0 = the usual one */

static void talk_start(talk *k, const char *source, engine_cut cut, uint64_t state_tokens,
                       engine_draft draft)
{
    engine_team_options o = team_options(source, cut);
    o.model.state_tokens = state_tokens;
    o.deadline_us = deadline_us;
    memset(k, 0, sizeof *k);
    team_talk(&k->t, &k->g, o, 6, draft, hear, &k->a);
    k->busy = true;
}

/* A step, and what a change has to do behind it. */
static void talk_step(talk *k)
{
    err e = {0};
    must(engine_step(k->g, &k->busy, &e), &e);
    assert_true(++k->steps < GUARD);
    if (!k->changing)
        return;
    bool finished;
    k->result = engine_team_work(k->t, k->g, &finished, &k->why);
    k->changing = k->result == STATUS_OK && !finished;
}

static void talk_change(talk *k, engine_cut cut, bool paused)
{
    k->result = engine_team_prepare(k->t, k->g, &cut, paused, &k->why);
    k->changing = k->result == STATUS_OK;
}

static void talk_until_changed(talk *k)
{
    while (k->changing)
        talk_step(k);
    if (k->result != STATUS_OK)
        fail_msg("a change failed: %s", k->why.text);
}

static void talk_end(talk *k)
{
    while (k->busy || k->changing)
        talk_step(k);
    engine_destroy(k->g);
    engine_team_destroy(k->t);
}

static void same(const said *a, const said *b, const char *what, int from, int to)
{
    if (a->done != b->done || b->failed)
        fail_msg("%s, %d to %d: %d done, %d failed, expected %d", what, from, to, b->done,
                 b->failed, a->done);
    for (int i = 0; i < MOST; i++)
        for (int k = 0; k < a->n[i]; k++)
            if (a->n[i] != b->n[i] || a->token[i][k] != b->token[i][k] ||
                memcmp(&a->logprob[i][k], &b->logprob[i][k], sizeof(float)))
                fail_msg("%s, %d to %d: token %d of %d is %d (%.9g), expected %d (%.9g)", what,
                         from, to, k, i, b->token[i][k], (double)b->logprob[i][k], a->token[i][k],
                         (double)a->logprob[i][k]);
}

/* Left alone, whole. */
static void undisturbed(said *out, const char *source, engine_draft draft)
{
    static talk k;
    talk_start(&k, source, (engine_cut){0}, 2048, draft);
    for (uint64_t id = 0; id < REQUESTS; id++)
        request(k.g, id);
    talk_end(&k);
    *out = k.a;
    assert_int_equal(out->done, REQUESTS + 2);
}

/* Requests come before, during and after; `at`: the step before which the change begins. */
static void through(const said *expected, const char *source, engine_cut from, engine_cut to,
                    int at, bool paused, uint64_t state_tokens, engine_draft draft, int number)
{
    static talk k;
    talk_start(&k, source, from, state_tokens, draft);
    for (uint64_t id = 0; id < 3; id++)
        request(k.g, id);
    while (k.steps < at)
        talk_step(&k);
    talk_change(&k, to, paused);
    request(k.g, 3);
    for (int i = 0; i < 3 && k.changing; i++)
        talk_step(&k);
    request(k.g, 4);
    talk_until_changed(&k);
    request(k.g, 5);
    k.busy = true; /* the others may have ended meanwhile */
    talk_end(&k);
    same(expected, &k.a, source + strlen(source) - 12, number / CUTS_TO_CHANGE,
         number % CUTS_TO_CHANGE);
}

/* ---- what goes well ------------------------------------------------------------------------------------------------ */

static void every_cut_to_every_other(void **state)
{
    (void)state;
    static said whole;
    undisturbed(&whole, TINY, ENGINE_DRAFT_NONE);
    int done = 0;
    for (int from = 0; from < CUTS_TO_CHANGE; from++)
        for (int to = 0; to < CUTS_TO_CHANGE; to++, done++)
            through(&whole, TINY, team_cut_over(from, ENGINE_LINK_LOOP),
                    team_cut_over(to, ENGINE_LINK_LOOP), 5 + done % 13, done % 4 == 3,
                    done % 3 ? 2048 : 640, ENGINE_DRAFT_NONE, done);
    printf("%d changes over threads, the same tokens and log-probabilities\n", done);
}

static void other_families_and_guesses(void **state)
{
    (void)state;
    static const char *const names[] = {"h28-4-f32", "h24-8-q4_0", "h14-2-q4_k"};
    static const int ways[][2] = {
        {CUT_TP2, CUT_TP3_UNEVEN}, {CUT_TP3_UNEVEN, CUT_TP4}, {CUT_WHOLE, CUT_TP3_OTHER}};
    static said whole;
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/models/%s.gguf", TEST_DATA, names[i]);
        undisturbed(&whole, path, ENGINE_DRAFT_NONE);
        for (int k = 0; k < 3; k++) {
            int from = ways[k][0], to = ways[k][1];
            through(&whole, path, team_cut_over(from, ENGINE_LINK_LOOP),
                    team_cut_over(to, ENGINE_LINK_LOOP), 9 + k, k == 2, 2048, ENGINE_DRAFT_LOOKUP,
                    from * CUTS_TO_CHANGE + to);
        }
    }
}

static void processes(void **state)
{
    (void)state;
    static const int ways[][2] = {{CUT_TP2, CUT_TP3_UNEVEN},
                                  {CUT_TP3_UNEVEN, CUT_PP2},
                                  {CUT_PP2, CUT_TP2},
                                  {CUT_WHOLE, CUT_GRID_UNEVEN},
                                  {CUT_GRID_UNEVEN, CUT_WHOLE}};
    static said whole;
    undisturbed(&whole, TINY, ENGINE_DRAFT_NONE);
    for (int l = 0; l < ENGINE_LINK_LOOP; l++)
        for (size_t i = 0; i < BASE_COUNT(ways); i++)
            through(&whole, TINY, team_cut_over(ways[i][0], (engine_link)l),
                    team_cut_over(ways[i][1], (engine_link)l), 8 + (int)i, i == 1 && l == 0, 2048,
                    ENGINE_DRAFT_NONE, ways[i][0] * CUTS_TO_CHANGE + ways[i][1]);
}

/* One conversation through many epochs, each begun as soon as the last one is over. */
static void many_epochs(void **state)
{
    (void)state;
    static said whole;
    static talk k;
    int n = 0;
    undisturbed(&whole, TINY, ENGINE_DRAFT_NONE);
    for (int l = 0; l < ENGINE_LINKS; l += 2) {
        talk_start(&k, TINY, team_cut_over(CUT_TP2, (engine_link)l), 2048, ENGINE_DRAFT_NONE);
        for (uint64_t id = 0; id < REQUESTS; id++)
            request(k.g, id);
        for (int i = 0; k.busy; i++) {
            for (int s = 0; s < 2; s++)
                talk_step(&k);
            talk_change(&k, team_cut_over((2 + i * 5) % CUTS_TO_CHANGE, (engine_link)l), false);
            talk_until_changed(&k);
            n++;
        }
        talk_end(&k);
        same(&whole, &k.a, "many epochs", 1, n);
    }
    printf("one conversation over threads and one over processes, %d epochs in all\n", n);
}

/* ---- what goes wrong ----------------------------------------------------------------------------------------------- */

/* Given up at any moment, the old epoch says what it would have said. */
static void given_up(void **state)
{
    (void)state;
    static said whole;
    static talk k;
    undisturbed(&whole, TINY, ENGINE_DRAFT_NONE);
    for (int l = 0; l < ENGINE_LINKS; l += 2) {
        for (int after = 0; after < 9; after += l ? 1 : 4) {
            talk_start(&k, TINY, team_cut_over(CUT_TP2, (engine_link)l), 2048, ENGINE_DRAFT_NONE);
            for (uint64_t id = 0; id < REQUESTS; id++)
                request(k.g, id);
            for (int i = 0; i < 6; i++)
                talk_step(&k);
            talk_change(&k, team_cut_over(CUT_TP3_UNEVEN, (engine_link)l), false);
            for (int i = 0; i < after && k.changing; i++)
                talk_step(&k);
            engine_team_cancel(k.t, k.g);
            k.changing = false;
            for (int i = 0; i < 3; i++)
                talk_step(&k);
            talk_change(&k, team_cut_over(CUT_TP3_UNEVEN, (engine_link)l),
                        false); /* and once more, to the end */
            talk_until_changed(&k);
            talk_end(&k);
            same(&whole, &k.a, "given up", l, after);
        }
    }
}

/* A rank that only the next epoch has dies while that is prepared, or while sequences move: the old one goes on. */
static void new_rank_dies(void **state)
{
    (void)state;
    static said whole;
    static talk k;
    undisturbed(&whole, TINY, ENGINE_DRAFT_NONE);
    for (int l = 0; l < ENGINE_LINK_LOOP; l++) {
        for (int when = 0; when < 3; when++) {
            talk_start(&k, TINY, team_cut_over(CUT_TP2, (engine_link)l), 2048, ENGINE_DRAFT_NONE);
            for (uint64_t id = 0; id < REQUESTS; id++)
                request(k.g, id);
            for (int i = 0; i < 6; i++)
                talk_step(&k);
            talk_change(&k, team_cut_over(CUT_TP3_UNEVEN, (engine_link)l), false);
            assert_true(k.changing);
            int pid = engine_team_pid(k.t, 1);
            assert_true(pid > 0);
            if (when)
                while (k.changing && !engine_is_switching(k.g))
                    talk_step(&k);
            if (when == 2 && k.changing)
                talk_step(&k);
            bool in_time = k.changing;
            kill(pid, SIGKILL);
            while (k.changing)
                talk_step(&k);
            if (in_time && k.result == STATUS_OK)
                fail_msg("nobody noticed that a rank died (%d)", when);
            talk_end(&k);
            same(&whole, &k.a, "a new rank dies", l, when);
        }
    }
}

/* A rank of the running epoch dies while another is prepared: an error that says so, soon, and nothing is left. */
static void old_rank_dies(void **state)
{
    (void)state;
    static talk k;
    for (int l = 0; l < ENGINE_LINK_LOOP; l++) {
        talk_start(&k, TINY, team_cut_over(CUT_TP3_UNEVEN, (engine_link)l), 2048,
                   ENGINE_DRAFT_NONE);
        for (uint64_t id = 0; id < REQUESTS; id++)
            request(k.g, id);
        for (int i = 0; i < 6; i++)
            talk_step(&k);
        talk_change(&k, team_cut_over(CUT_TP2, (engine_link)l), false);
        int pid = engine_team_pid(k.t, 1);
        kill(pid, SIGKILL);
        status s = STATUS_OK;
        err e = {0};
        bool finished;
        for (int i = 0; i < 500 && s == STATUS_OK; i++) {
            s = engine_step(k.g, &k.busy, &e);
            if (s == STATUS_OK && k.changing)
                s = engine_team_work(k.t, k.g, &finished, &e);
        }
        assert_int_not_equal(s, STATUS_OK);
        engine_team_why(k.t, &e);
        if (!strstr(e.text, "rank 2"))
            fail_msg("\"%s\" does not name rank 2", e.text);
        engine_destroy(k.g);
        engine_team_destroy(k.t);
        assert_int_equal(kill(pid, 0), -1);
    }
}

static void refused(void **state)
{
    (void)state;
    static said whole;
    static talk k;
    undisturbed(&whole, TINY, ENGINE_DRAFT_NONE);
    talk_start(&k, TINY, team_cut_over(CUT_TP2, ENGINE_LINK_LOOP), 2048, ENGINE_DRAFT_NONE);
    for (uint64_t id = 0; id < REQUESTS; id++)
        request(k.g, id);
    talk_step(&k);
    talk_change(&k, (engine_cut){.n_stages = 40, .n_tensor = 1, .link = ENGINE_LINK_LOOP}, false);
    assert_int_equal(k.result, STATUS_INVALID);
    talk_step(&k);
    talk_change(&k, team_cut_over(CUT_TP2, ENGINE_LINK_SHM), false);
    assert_int_equal(k.result, STATUS_INVALID);
    talk_step(&k);
    talk_change(&k, team_cut_over(CUT_TP3_UNEVEN, ENGINE_LINK_LOOP), false);
    err e = {0};
    assert_int_equal(engine_team_prepare(k.t, k.g, &team_cuts[CUT_TP2].cut, false, &e),
                     STATUS_BUSY);
    talk_until_changed(&k);
    talk_end(&k);
    same(&whole, &k.a, "refused", 1, 2);
}

/* A leader that beat in one epoch is missed in the next when it falls silent there, also before its first beat. */
static void missed_in_the_next(void **state)
{
    (void)state;
    for (int paused = 0; paused < 2; paused++) {
        static talk k;
        err e = {0};
        deadline_us = 1000000;
        talk_start(&k, TINY, team_cut_over(CUT_TP2, ENGINE_LINK_LOOP), 2048, ENGINE_DRAFT_NONE);
        deadline_us = 0;
        must(engine_group_beat(engine_group_of(engine_team_model(k.t)), &e), &e);
        talk_change(&k, team_cut_over(CUT_TP3_UNEVEN, ENGINE_LINK_LOOP), paused);
        talk_until_changed(&k);
        engine_group *group = engine_group_of(engine_team_model(k.t));
        os_sleep_us(2 * engine_group_beats(group).lost_us);
        status s = engine_group_beat(group, &e);
        assert_true(s == STATUS_TIMEOUT || s == STATUS_CLOSED);
        engine_destroy(k.g);
        engine_team_destroy(k.t);
    }
}

/* Epochs that are announced and given up faster than ranks hear of them; the one that stays is the one that all go to. */
static void given_up_at_once(void **state)
{
    (void)state;
    static said whole;
    static talk k;
    undisturbed(&whole, TINY, ENGINE_DRAFT_NONE);
    talk_start(&k, TINY, team_cut_over(CUT_TP3_UNEVEN, ENGINE_LINK_LOOP), 2048, ENGINE_DRAFT_NONE);
    for (uint64_t id = 0; id < REQUESTS; id++)
        request(k.g, id);
    for (int i = 0; i < 20; i++) {
        err e = {0};
        engine_cut next = team_cut_over(i % 2 ? CUT_TP3_UNEVEN : CUT_TP2, ENGINE_LINK_LOOP);
        must(engine_team_prepare(k.t, k.g, &next, false, &e), &e);
        engine_team_cancel(k.t, k.g);
        if (i % 7 == 0)
            talk_step(&k);
    }
    talk_change(&k, team_cut_over(CUT_TP2, ENGINE_LINK_LOOP), false);
    talk_until_changed(&k);
    talk_end(&k);
    same(&whole, &k.a, "given up at once", 2, 1);
}

static void places_as_messages(void **state)
{
    (void)state;
    engine_place p = {.cut = team_cut_over(CUT_TP3_UNEVEN, ENGINE_LINK_TLS),
                      .rank = 2,
                      .epoch = {3, 4, 5}},
                 back;
    wire_switched s = {STATUS_CLOSED, "gone", 9, 1, 2, 3, 4, 5}, again;
    wire_frame f;
    bool complete, paused;
    arena memory;
    err e = {0};
    sb out;
    sb_init(&out);
    arena_init(&memory, 0);
    wire_put_prepare(&out, &p, true);
    must(wire_next(&f, &complete, out.data, out.length, &e), &e);
    assert_true(complete && f.message == WIRE_PREPARE);
    must(wire_get_prepare(&back, &paused, &f, &e), &e);
    assert_true(paused);
    assert_memory_equal(&p, &back, sizeof p);
    for (size_t n = 0; n < f.bytes; n++) {
        wire_frame cut = {WIRE_PREPARE, f.payload, n};
        assert_int_not_equal(wire_get_prepare(&back, &paused, &cut, &e), STATUS_OK);
    }
    sb_clear(&out);
    wire_put_switched(&out, &s);
    must(wire_next(&f, &complete, out.data, out.length, &e), &e);
    must(wire_get_switched(&again, &f, &memory, &e), &e);
    assert_string_equal(again.text, "gone");
    assert_true(again.code == s.code && again.number == 9 && again.moved_bytes == 5);
    for (size_t n = 0; n < f.bytes; n++) {
        wire_frame cut = {WIRE_SWITCHED, f.payload, n};
        assert_int_not_equal(wire_get_switched(&again, &cut, &memory, &e), STATUS_OK);
    }
    arena_fini(&memory);
    sb_fini(&out);
}

int main(int argc, char **argv)
{
    if (rig_is_rank(argc, argv))
        return rig_rank();
    unsetenv("TEST_RANK");
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_as_messages),
        cmocka_unit_test(every_cut_to_every_other),
        cmocka_unit_test(other_families_and_guesses),
        cmocka_unit_test(processes),
        cmocka_unit_test(many_epochs),
        cmocka_unit_test(given_up),
        cmocka_unit_test(given_up_at_once),
        cmocka_unit_test(missed_in_the_next),
        cmocka_unit_test(new_rank_dies),
        cmocka_unit_test(old_rank_dies),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
