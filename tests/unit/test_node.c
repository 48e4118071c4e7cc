/*
 * The node with real rank processes: this program, started again with "rank". Loading, sharing, events, cancelling, every way in which a
 * rank can die or lie, memory, idle instances, the end.
 */
#include "node_rig.h"

enum { MOST = 64 }; /* tokens kept */

/* So long that no answer ends by itself while a test wants it to go on. */
static const node_options endless = {.context = 32768, .max_sequences = 2};

/* Whoever holds a lease and asks. */
typedef struct client {
    node_rig *rig;
    node_lease *lease;
    uint64_t id;
    int n_ready, n_failed, n_progress, n_started, n_done, n_tokens;
    int32_t tokens[MOST];
    engine_reason reason;
    status code;
    char text[ERR_TEXT];
    err why;
    int wanted; /* tokens that is_streaming waits for; 0 = 3 */
    int again;  /* failed: releases and asks again so many times */
    const char *name;
} client;

static void acquire(client *c, const char *name);

static void on_ready(void *context)
{
    client *c = context;
    assert_non_null(c->lease);
    c->n_ready++;
}

static void on_progress(void *context, double share)
{
    client *c = context;
    assert_non_null(c->lease);
    assert_true(share >= 0 && share <= 1);
    c->n_progress++;
}

static void on_failed(void *context, const err *why)
{
    client *c = context;
    assert_non_null(c->lease);
    c->n_failed++;
    c->why = *why;
    if (c->again > 0) {
        c->again--;
        node_release(c->lease);
        acquire(c, c->name);
    }
}

static void on_event(void *context, const engine_event *event)
{
    client *c = context;
    assert_non_null(c->lease); /* nothing comes after node_release */
    assert_int_equal(event->id, c->id);
    assert_int_equal(c->n_done, 0);
    if (event->kind == ENGINE_STARTED) {
        c->n_started++;
    } else if (event->kind == ENGINE_TOKEN) {
        assert_int_equal(event->index, c->n_tokens);
        if (c->n_tokens < MOST)
            c->tokens[c->n_tokens] = event->token;
        c->n_tokens++;
    } else {
        c->n_done++;
        c->reason = event->reason;
        c->code = event->code;
        memcpy(c->text, event->text, sizeof c->text);
    }
}

static void acquire(client *c, const char *name)
{
    err e = {0};
    c->name = name;
    node_listener l = {on_ready, on_progress, on_failed, on_event, c};
    must(node_acquire(&c->lease, c->rig->n, name, &l, &e), &e);
}

static void release(client *c)
{
    node_release(c->lease);
    c->lease = NULL;
}

static bool is_ready(void *context)
{
    const client *c = context;
    return c->n_ready > 0;
}

static bool has_failed(void *context)
{
    const client *c = context;
    return c->n_failed > 0;
}

static bool is_done(void *context)
{
    const client *c = context;
    return c->n_done > 0;
}

static bool is_streaming(void *context)
{
    const client *c = context;
    return c->n_tokens >= (c->wanted ? c->wanted : 3);
}

static bool nothing_is_loaded(void *context)
{
    const node_rig *g = context;
    return node_n_instances(g->n) == 0;
}

static bool nothing_in_flight(void *context)
{
    const node_rig *g = context;
    return rig_instance(g, TINY).in_flight == 0;
}

static void start(client *c, node_rig *g, const char *name)
{
    *c = (client){.rig = g};
    acquire(c, name);
    rig_wait(g, is_ready, c);
    assert_int_equal(c->n_failed, 0);
}

static status submit(client *c, int n_prompt, int max_tokens, err *e)
{
    int32_t *ids = base_alloc(sizeof *ids * (size_t)n_prompt);
    for (int i = 0; i < n_prompt; i++)
        ids[i] = 'a' + i % 20;
    engine_request r = {.prompt = ids,
                        .n_prompt = n_prompt,
                        .max_tokens = max_tokens,
                        .top_logprobs = -1,
                        .sample = SAMPLE_DEFAULTS};
    r.sample.temperature = 0;
    c->n_tokens = c->n_done = c->n_started = 0;
    status s = node_submit(c->lease, &r, &c->id, e);
    base_free(ids);
    return s;
}

static void ask(client *c, int n_prompt, int max_tokens)
{
    err e = {0};
    must(submit(c, n_prompt, max_tokens, &e), &e);
}

/* ---- loading and requests ------------------------------------------------------------------------------------------ */

static void on_demand_and_shared(void **state)
{
    (void)state;
    node_rig g;
    client a = {.rig = &g}, b = {.rig = &g};
    rig_start(&g, (node_options){0});
    assert_int_equal(node_n_instances(g.n), 0);
    acquire(&a, TINY);
    acquire(&b, TEST_DATA "/../data/models/tiny-q8_0.gguf"); /* the same file */
    assert_int_equal(node_n_instances(g.n), 1);
    assert_int_equal(a.n_ready, 0); /* never from inside a call */
    rig_wait(&g, is_ready, &b);
    assert_int_equal(a.n_ready, 1);
    assert_ptr_equal(node_lease_instance(a.lease), node_lease_instance(b.lease));
    node_instance_info info = rig_instance(&g, TINY);
    assert_int_equal(info.state, NODE_READY);
    assert_int_equal(info.context, 1024);
    assert_true(info.pid > 0 && info.weight_bytes > 0 && info.state_bytes > 0);
    ask(&a, 5, 8);
    ask(&b, 5, 12);
    assert_int_equal(rig_instance(&g, TINY).in_flight, 2);
    rig_wait(&g, is_done, &a);
    rig_wait(&g, is_done, &b);
    assert_int_equal(a.n_started, 1);
    assert_int_equal(a.n_tokens, 8);
    assert_int_equal(a.reason, ENGINE_LENGTH);
    assert_int_equal(b.n_tokens, 12);
    assert_memory_equal(a.tokens, b.tokens, sizeof *a.tokens * 8);
    release(&a);
    client late = {.rig = &g};
    acquire(&late, TINY); /* ready already: told by the loop all the same */
    assert_int_equal(late.n_ready, 0);
    rig_wait(&g, is_ready, &late);
    release(&late);
    release(&b);
    rig_stop(&g);
}

static void cancel_and_hold(void **state)
{
    (void)state;
    node_rig g;
    client a, b;
    rig_start(&g, endless);
    start(&a, &g, TINY);
    start(&b, &g, TINY);
    ask(&a, 5, 0);
    rig_wait(&g, is_streaming, &a);
    node_hold(a.lease, a.id, -1, true);
    ask(&b, 9, 4); /* behind the hold in the same socket: when it is done the hold has worked */
    rig_wait(&g, is_done, &b);
    int n = a.n_tokens;
    ask(&b, 9, 4);
    rig_wait(&g, is_done, &b);
    assert_int_equal(a.n_tokens, n);
    assert_int_equal(a.n_done, 0);
    node_hold(a.lease, a.id, -1, false);
    a.wanted = n + 3;
    rig_wait(&g, is_streaming, &a);
    node_cancel(a.lease, a.id, -1);
    node_cancel(a.lease, 12345, -1);
    rig_wait(&g, is_done, &a);
    assert_int_equal(a.reason, ENGINE_CANCELLED);
    release(&a);
    release(&b);
    rig_stop(&g);
}

static void release_cancels(void **state)
{
    (void)state;
    node_rig g;
    client a, b;
    rig_start(&g, endless);
    start(&a, &g, TINY);
    ask(&a, 5, 0);
    rig_wait(&g, is_streaming, &a);
    release(&a); /* on_event asserts that nothing comes any more */
    rig_wait(&g, nothing_in_flight, &g);
    start(&b, &g, TINY);
    ask(&b, 5, 3);
    rig_wait(&g, is_done, &b);
    release(&b);
    rig_stop(&g);
}

static void refusals(void **state)
{
    (void)state;
    node_rig g;
    client a;
    err e = {0};
    node_lease *lease = NULL;
    node_listener l = {on_ready, on_progress, on_failed, on_event, &a};
    rig_start(&g, (node_options){0});
    assert_int_equal(node_acquire(&lease, g.n, "there-is-none-such", &l, &e), STATUS_NOT_FOUND);
    assert_non_null(strstr(e.text, "there-is-none-such"));
    assert_int_equal(node_acquire(&lease, g.n, "/no/such/file.gguf", &l, &e), STATUS_NOT_FOUND);
    assert_int_equal(node_acquire(&lease, g.n, NULL, &l, &e), STATUS_INVALID);
    assert_int_equal(node_n_instances(g.n), 0);
    start(&a, &g, TINY);
    assert_int_equal(submit(&a, 1024, 1, &e), STATUS_TOO_LONG);
    assert_non_null(strstr(e.text, "1 too many"));
    assert_int_equal(submit(&a, 20000000, 1, &e), STATUS_TOO_LONG); /* over any message's limit */
    ask(&a, 1023, 0);
    rig_wait(&g, is_done, &a);
    assert_int_equal(a.n_tokens, 1);
    engine_request none = {.n_prompt = 0, .top_logprobs = -1, .sample = SAMPLE_DEFAULTS};
    a.n_done = a.n_tokens = 0;
    must(node_submit(a.lease, &none, &a.id, &e), &e); /* the engine's own refusal is an event */
    rig_wait(&g, is_done, &a);
    assert_int_equal(a.reason, ENGINE_ERROR);
    assert_int_equal(a.code, STATUS_INVALID);
    node_lease *unnamed;
    must(node_acquire(&unnamed, g.n, NULL, &l, &e), &e); /* the only one there is */
    node_release(unnamed);
    release(&a);
    rig_stop(&g);
}

/* ---- ranks that die or lie ----------------------------------------------------------------------------------------- */

static void killed_while_streaming(void **state)
{
    (void)state;
    node_rig g;
    client a, b = {.rig = &g};
    rig_start(&g, endless);
    start(&a, &g, TINY);
    ask(&a, 5, 6);
    rig_wait(&g, is_done, &a);
    int32_t first[6];
    memcpy(first, a.tokens, sizeof first);
    ask(&a, 5, 0);
    rig_wait(&g, is_streaming, &a);
    int pid = rig_signal(&g, TINY, SIGKILL);
    rig_wait(&g, has_failed, &a);
    assert_int_equal(a.n_done, 1);
    assert_int_equal(a.reason, ENGINE_ERROR);
    assert_int_equal(a.code, STATUS_CLOSED);
    assert_non_null(strstr(a.text, "signal 9"));
    assert_int_equal(a.n_failed, 1);
    node_instance_info info = rig_instance(&g, TINY);
    assert_int_equal(info.state, NODE_BACKING_OFF);
    assert_int_equal(info.restarts, 1);
    assert_int_equal(info.pid, 0);
    err e = {0};
    assert_int_equal(submit(&a, 5, 6, &e), STATUS_LOADING); /* that lease is done for */
    acquire(&b, TINY);
    rig_wait(&g, is_ready, &b);
    assert_int_not_equal(rig_instance(&g, TINY).pid, pid);
    ask(&b, 5, 6);
    rig_wait(&g, is_done, &b);
    assert_memory_equal(b.tokens, first, sizeof first);
    assert_int_equal(a.n_failed, 1);
    release(&a);
    release(&b);
    rig_stop(&g);
}

/* One of several ranks dies, or a follower falls silent, under a request: the request ends with a reason, all ranks go, and the next request finds new
 * ones that answer the same. */
static void lose_one_of(engine_cut cut, int rank, int number, const char *reason)
{
    node_rig g;
    client a = {0}, b = {.rig = &g};
    node_options o = endless;
    o.cut = cut;
    o.deadline_us = 1000000;
    rig_start(&g, o);
    start(&a, &g, TINY);
    ask(&a, 5, 6);
    rig_wait(&g, is_done, &a);
    int32_t first[6];
    memcpy(first, a.tokens, sizeof first);
    assert_int_equal(rig_instance(&g, TINY).n_ranks, engine_cut_ranks(&cut));
    ask(&a, 5, 0);
    rig_wait(&g, is_streaming, &a);
    int pids[ENGINE_MOST_RANKS];
    for (int r = 0; r < engine_cut_ranks(&cut); r++) {
        pids[r] = node_instance_rank_pid(g.n, 0, r);
        assert_true(pids[r] > 0);
    }
    kill(pids[rank], number);
    rig_wait(&g, has_failed, &a);
    assert_int_equal(a.n_done, 1);
    assert_int_equal(a.reason, ENGINE_ERROR);
    if (!strstr(a.text, reason) && !strstr(a.why.text, reason))
        fail_msg("neither \"%s\" nor \"%s\" says %s", a.text, a.why.text, reason);
    for (int r = 0; r < engine_cut_ranks(&cut); r++)
        assert_int_equal(kill(pids[r], 0), -1); /* reaped */
    acquire(&b, TINY);
    rig_wait(&g, is_ready, &b);
    ask(&b, 5, 6);
    rig_wait(&g, is_done, &b);
    assert_memory_equal(b.tokens, first, sizeof first);
    assert_int_equal(rig_instance(&g, TINY).restarts, 1);
    release(&a);
    release(&b);
    rig_stop(&g);
}

static void one_of_several_is_lost(void **state)
{
    (void)state;
    const engine_cut two = {.n_stages = 1, .n_tensor = 2, .link = ENGINE_LINK_SHM},
                     tls = {.n_stages = 1, .n_tensor = 2, .link = ENGINE_LINK_TLS},
                     four = {.n_stages = 2, .n_tensor = 2, .link = ENGINE_LINK_SHM};
    lose_one_of(two, 1, SIGKILL, "rank 1");
    lose_one_of(two, 0, SIGKILL, "ended");
    lose_one_of(tls, 1, SIGKILL, "rank 1");
    lose_one_of(four, 2, SIGKILL, "rank");
    lose_one_of(two, 1, SIGSTOP, "rank 1");
    lose_one_of(four, 3, SIGSTOP, "rank");
}

/* All pids of the ranks of TINY, which are `n`. */
static void rank_pids(const node_rig *g, int *pids, int n)
{
    assert_int_equal(rig_instance(g, TINY).n_ranks, n);
    for (int r = 0; r < n; r++) {
        pids[r] = node_instance_rank_pid(g->n, 0, r);
        assert_true(pids[r] > 0);
    }
}

/* Nobody asks for anything, and yet a rank that is stopped is missed: by the leader, or by its followers. */
static void stop_idle_one(engine_cut cut, int rank)
{
    node_rig g;
    client a = {0}, b = {.rig = &g};
    node_options o = endless;
    int pids[ENGINE_MOST_RANKS], n = engine_cut_ranks(&cut);
    o.cut = cut;
    o.deadline_us = 2000000;
    rig_start(&g, o);
    start(&a, &g, TINY);
    ask(&a, 5, 6);
    rig_wait(&g, is_done, &a);
    rank_pids(&g, pids, n);
    kill(pids[rank], SIGSTOP);
    rig_wait(&g, has_failed, &a);
    char name[16];
    snprintf(name, sizeof name, "rank %d", rank);
    if (!strstr(a.why.text, name))
        fail_msg("\"%s\" does not name %s", a.why.text, name);
    for (int r = 0; r < n; r++)
        assert_int_equal(kill(pids[r], 0), -1); /* reaped */
    acquire(&b, TINY);
    rig_wait(&g, is_ready, &b);
    ask(&b, 5, 6);
    rig_wait(&g, is_done, &b);
    assert_memory_equal(b.tokens, a.tokens, sizeof a.tokens);
    assert_int_equal(rig_instance(&g, TINY).restarts, 1);
    release(&a);
    release(&b);
    rig_stop(&g);
}

static bool has_ranks(void *context)
{
    const node_rig *g = context;
    return node_n_instances(g->n) > 0 && node_instance_rank_pid(g->n, 0, 1) > 0;
}

/* A rank that is stopped before it is loaded does not end, and those that wait for it say nothing: all are started anew. */
static void stopped_while_loading(void **state)
{
    (void)state;
    node_rig g;
    client a = {.rig = &g};
    int pids[2];
    rig_start(&g, (node_options){.keep_alive_us = UINT64_MAX,
                                 .cut = {.n_stages = 1, .n_tensor = 2},
                                 .silence_us = 2000000});
    acquire(&a, TINY);
    rig_wait(&g, has_ranks, &g);
    rank_pids(&g, pids, 2);
    kill(pids[1], SIGSTOP);
    rig_wait(&g, is_ready, &a);
    assert_int_equal(rig_instance(&g, TINY).restarts, 1);
    for (int r = 0; r < 2; r++)
        assert_int_equal(kill(pids[r], 0), -1); /* reaped */
    release(&a);
    rig_stop(&g);
}

static void idle_ones_are_missed(void **state)
{
    (void)state;
    for (int l = 0; l < ENGINE_LINK_LOOP; l++) {
        const engine_cut three = {.n_stages = 1, .n_tensor = 3, .link = (engine_link)l};
        stop_idle_one(three, 0);
        stop_idle_one(three, 2);
    }
    stop_idle_one((engine_cut){.n_stages = 2, .n_tensor = 2, .link = ENGINE_LINK_SHM}, 3);
}

/* A machine that slept, or a job that was stopped and continued: nobody was silent for the others. */
static void all_are_stopped_for_a_while(void **state)
{
    (void)state;
    enum { N = 4 };
    node_rig g;
    client a = {0}, b = {.rig = &g};
    node_options o = endless;
    int pids[N];
    o.cut = (engine_cut){.n_stages = 2, .n_tensor = 2, .link = ENGINE_LINK_SHM};
    o.deadline_us = 2000000;
    rig_start(&g, o);
    start(&a, &g, TINY);
    ask(&a, 5, 6);
    rig_wait(&g, is_done, &a);
    rank_pids(&g, pids, N);
    for (int r = 0; r < N; r++)
        kill(pids[r], SIGSTOP);
    os_sleep_us((uint64_t)2 * o.deadline_us);
    for (int r = N; r-- > 0;)
        kill(pids[r], SIGCONT);
    acquire(&b, TINY);
    rig_wait(&g, is_ready, &b);
    ask(&b, 5, 6);
    rig_wait(&g, is_done, &b);
    assert_memory_equal(b.tokens, a.tokens, sizeof a.tokens);
    os_sleep_us((uint64_t)2 * o.deadline_us); /* nor is somebody missed later */
    rig_turns(&g);
    assert_int_equal(a.n_failed, 0);
    assert_int_equal(rig_instance(&g, TINY).restarts, 0);
    assert_int_equal(rig_instance(&g, TINY).pid, pids[0]);
    release(&a);
    release(&b);
    rig_stop(&g);
}

/* The same tokens, however a model is cut; a model that cannot be cut so is refused for good. */
static void several_ranks(void **state)
{
    (void)state;
    int32_t whole[20];
    const engine_cut cuts[] = {{0},
                               {.n_stages = 1, .n_tensor = 2, .link = ENGINE_LINK_LOOP},
                               {.n_stages = 2, .n_tensor = 1, .link = ENGINE_LINK_SHM},
                               {.n_stages = 1, .n_tensor = 3, .link = ENGINE_LINK_TLS},
                               {.n_stages = 50, .n_tensor = 1, .link = ENGINE_LINK_SHM}};
    for (size_t i = 0; i < BASE_COUNT(cuts); i++) {
        node_rig g;
        client a = {.rig = &g};
        node_options o = endless;
        o.cut = cuts[i];
        rig_start(&g, o);
        if (cuts[i].n_stages == 50) {
            acquire(&a, TINY);
            rig_wait(&g, has_failed, &a);
            assert_int_equal(a.why.code, STATUS_INVALID);
            assert_non_null(strstr(a.why.text, "50 stages"));
            assert_int_equal(rig_instance(&g, TINY).state, NODE_FAILED);
        } else {
            start(&a, &g, TINY);
            ask(&a, 9, 20);
            rig_wait(&g, is_done, &a);
            assert_int_equal(a.n_tokens, 20);
            if (i == 0)
                memcpy(whole, a.tokens, sizeof whole);
            assert_memory_equal(a.tokens, whole, sizeof whole);
        }
        release(&a);
        rig_stop(&g);
    }
}

static bool was_restarted(void *context)
{
    const client *c = context;
    return rig_instance(c->rig, TINY).restarts >= 2;
}

static void ranks_that_lie(void **state)
{
    (void)state;
    const struct {
        const char *how, *says;
    } cases[] = {{"nonsense", "wire"},
                 {"ready", "ready while starting"},
                 {"short", "wire"},
                 {"version", "version"},
                 {"dies", "exit 3"}};
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        node_rig g;
        client a = {.rig = &g};
        setenv("TEST_RANK", cases[i].how, 1);
        rig_start(&g, (node_options){0});
        acquire(&a, TINY);
        rig_wait(&g, was_restarted, &a); /* it is tried again, with back-off */
        node_instance_info info = rig_instance(&g, TINY);
        if (!strstr(info.why.text, cases[i].says))
            fail_msg("%s: %s", cases[i].how, info.why.text);
        assert_int_equal(a.n_ready, 0);
        unsetenv("TEST_RANK");
        if (i == 0) { /* and comes up as soon as it can */
            rig_wait(&g, is_ready, &a);
            ask(&a, 5, 2);
            rig_wait(&g, is_done, &a);
        }
        release(&a);
        rig_stop(&g);
    }
}

static void loading_that_fails(void **state)
{
    (void)state;
    node_rig g;
    client a = {.rig = &g};
    setenv("TEST_RANK", "failed", 1);
    rig_start(&g, (node_options){0});
    acquire(&a, TINY);
    rig_wait(&g, has_failed, &a);
    assert_int_equal(a.why.code, STATUS_INTERNAL); /* it said OK */
    assert_non_null(strstr(a.why.text, "it went wrong"));
    unsetenv("TEST_RANK");
    release(&a);
    a = (client){.rig = &g};
    acquire(&a, TINY); /* tried anew by the next who asks */
    rig_wait(&g, is_ready, &a);
    release(&a);
    rig_stop(&g);
}

static void program_that_is_not_there(void **state)
{
    (void)state;
    node_rig g;
    client a = {.rig = &g};
    rig_start(&g, (node_options){.program = "/no/such/program"});
    acquire(&a, TINY);
    rig_wait(&g, has_failed, &a);
    assert_non_null(strstr(a.why.text, "/no/such/program"));
    release(&a);
    rig_stop(&g);
}

static void write_file(const char *path, const void *bytes, size_t n)
{
    err e = {0};
    must(os_write_file(path, bytes, n, 0600, &e), &e);
}

static void make_folder(char *folder, size_t n)
{
    snprintf(folder, n, "/tmp/shoal-test-node-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

/* A file that is no model: told, kept for a while, tried anew by the next; also by one who asks from inside the bad news. */
static void hostile_file(void **state)
{
    (void)state;
    node_rig g;
    client a = {.rig = &g};
    char folder[64], path[128];
    make_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/bad.gguf", folder);
    unsigned char bytes[64] = "GGUF\3";
    memset(bytes + 8, 0xEE, sizeof bytes - 8);
    write_file(path, bytes, sizeof bytes);
    rig_start(&g, (node_options){0});
    acquire(&a, path);
    rig_wait(&g, has_failed, &a);
    assert_non_null(strstr(a.why.text, "bad.gguf"));
    assert_int_equal(rig_instance(&g, path).state, NODE_FAILED);
    release(&a);
    assert_int_equal(rig_instance(&g, path).state, NODE_FAILED);
    a = (client){.rig = &g, .again = 3};
    acquire(&a, path);
    assert_int_equal(rig_instance(&g, path).state, NODE_READING);
    rig_wait(&g, has_failed, &a);
    while (a.again)
        rig_turns(&g);
    client b = {.rig = &g}; /* shares the failure or tries again: either way it hears of one */
    acquire(&b, path);
    rig_wait(&g, has_failed, &b);
    char *good;
    size_t n;
    err e = {0};
    must(os_read_file(&good, &n, TINY, 1 << 24, &e), &e);
    release(&a);
    release(&b);
    write_file(path, good, n); /* mended meanwhile */
    a = (client){.rig = &g};
    acquire(&a, path);
    rig_wait(&g, is_ready, &a);
    base_free(good);
    release(&a);
    rig_stop(&g);
    unlink(path);
    rmdir(folder);
}

static bool is_found(void *context)
{
    client *c = context;
    err e = {0};
    node_listener l = {on_ready, on_progress, on_failed, on_event, c};
    return node_acquire(&c->lease, c->rig->n, "late-comer", &l, &e) == STATUS_OK;
}

/* The folders are not looked into at every question, but a model that came meanwhile is found. */
static void late_comer(void **state)
{
    (void)state;
    node_rig g;
    client a = {.rig = &g};
    char folder[64], models[128], path[192], *bytes;
    size_t n;
    err e = {0};
    make_folder(folder, sizeof folder);
    snprintf(models, sizeof models, "%s/shoal/models", folder);
    snprintf(path, sizeof path, "%s/late-comer.gguf", models);
    const char *before = getenv("XDG_DATA_HOME");
    char *kept = before ? base_strdup(before) : NULL;
    setenv("XDG_DATA_HOME", folder, 1);
    must(os_make_dirs(models, 0700, &e), &e);
    rig_start(&g, (node_options){0});
    assert_false(is_found(&a));
    must(os_read_file(&bytes, &n, TINY, 1 << 24, &e), &e);
    write_file(path, bytes, n);
    base_free(bytes);
    rig_wait(&g, is_found, &a);
    rig_wait(&g, is_ready, &a);
    release(&a);
    rig_stop(&g);
    if (kept)
        setenv("XDG_DATA_HOME", kept, 1);
    else
        unsetenv("XDG_DATA_HOME");
    base_free(kept);
    unlink(path);
    rmdir(models);
    snprintf(models, sizeof models, "%s/shoal", folder);
    rmdir(models);
    rmdir(folder);
}

/* ---- memory and idleness ------------------------------------------------------------------------------------------- */

static void too_little_memory(void **state)
{
    (void)state;
    node_rig g;
    client a = {.rig = &g};
    rig_start(&g, (node_options){.memory_limit = 1000});
    acquire(&a, TINY);
    rig_wait(&g, has_failed, &a);
    assert_int_equal(a.why.code, STATUS_NO_MEMORY);
    assert_non_null(strstr(a.why.text, "needs"));
    assert_non_null(strstr(a.why.text, "free are 1000"));
    release(&a);
    rig_stop(&g);
}

static bool has_instance(const node_rig *g, const char *name)
{
    node_instance_info info;
    for (int i = 0; i < node_n_instances(g->n); i++) {
        node_instance_describe(g->n, i, &info);
        if (!strcmp(info.name, name))
            return true;
    }
    return false;
}

/* Room for two: the third takes the place of the one that was used least recently; a leased one stays. */
static void least_recently_used_leaves(void **state)
{
    (void)state;
    node_rig g;
    client c;
    char folder[64], path[3][128], *bytes;
    size_t n;
    err e = {0};
    make_folder(folder, sizeof folder);
    must(os_read_file(&bytes, &n, TINY, 1 << 24, &e), &e);
    for (int i = 0; i < 3; i++) {
        snprintf(path[i], sizeof path[i], "%s/%d.gguf", folder, i);
        write_file(path[i], bytes, n);
    }
    base_free(bytes);
    node_options o = {.context = 128, .max_sequences = 1};
    rig_start(&g, o);
    start(&c, &g, path[0]);
    node_instance_info info = rig_instance(&g, path[0]);
    uint64_t each = info.weight_bytes + info.state_bytes + info.scratch_bytes;
    release(&c);
    rig_stop(&g);

    o.memory_limit = 2 * each + each / 2;
    rig_start(&g, o);
    start(&c, &g, path[0]);
    release(&c);
    start(&c, &g, path[1]);
    release(&c);
    start(&c, &g, path[0]); /* used again */
    release(&c);
    start(&c, &g, path[2]);
    assert_true(has_instance(&g, path[0]));
    assert_false(has_instance(&g, path[1]));
    client d;
    start(&d, &g, path[0]);
    client f = {.rig = &g};
    acquire(&f, path[1]); /* both others are in use */
    rig_wait(&g, has_failed, &f);
    assert_int_equal(f.why.code, STATUS_NO_MEMORY);
    release(&c);
    release(&d);
    release(&f);
    rig_stop(&g);
    for (int i = 0; i < 3; i++)
        unlink(path[i]);
    rmdir(folder);
}

static bool other_is_gone(void *context)
{
    return !has_instance(context, OTHER);
}

static void idle_ones_leave(void **state)
{
    (void)state;
    node_rig g;
    client a, b;
    rig_start(&g, (node_options){.keep_alive_us = 1});
    start(&a, &g, TINY);
    start(&b, &g, OTHER);
    release(&b);
    rig_wait(&g, other_is_gone, &g);
    assert_int_equal(rig_instance(&g, TINY).state, NODE_READY); /* a leased one stays */
    ask(&a, 5, 2);
    rig_wait(&g, is_done, &a);
    release(&a);
    rig_wait(&g, nothing_is_loaded, &g);
    rig_stop(&g);
}

static bool is_stopping(void *context)
{
    const client *c = context;
    return rig_instance(c->rig, TINY).state == NODE_STOPPING;
}

static void asked_to_leave(void **state)
{
    (void)state;
    node_rig g;
    client a, b = {.rig = &g};
    err e = {0};
    rig_start(&g, (node_options){.keep_alive_us = UINT64_MAX});
    assert_int_equal(node_unload(g.n, TINY, &e), STATUS_NOT_FOUND);
    start(&a, &g, TINY);
    assert_int_equal(node_unload(g.n, TINY, &e), STATUS_CONFLICT);
    release(&a);
    rig_turns(&g);
    assert_int_equal(node_n_instances(g.n), 1);
    must(node_unload(g.n, TINY, &e), &e);
    rig_wait(&g, nothing_is_loaded, &g);
    start(&a, &g, TINY);
    release(&a);
    rig_signal(&g, TINY, SIGSTOP);
    must(node_unload(g.n, TINY, &e), &e);
    rig_wait(&g, is_stopping, &b);
    acquire(&b, TINY); /* while it leaves: it comes back */
    rig_signal(&g, TINY, SIGCONT);
    rig_wait(&g, is_ready, &b);
    assert_int_equal(rig_instance(&g, TINY).restarts, 0);
    release(&b);
    rig_stop(&g);
}

/* ---- the end ------------------------------------------------------------------------------------------------------- */

static void end_with_requests_in_flight(void **state)
{
    (void)state;
    node_rig g;
    client a;
    rig_start(&g, endless);
    start(&a, &g, TINY);
    ask(&a, 5, 0);
    rig_wait(&g, is_streaming, &a);
    int pid = rig_instance(&g, TINY).pid;
    rig_stop(&g);
    assert_int_equal(kill(pid, 0), -1); /* reaped */
}

/* The node ends while a thread reads for it; the loop goes on, and what that thread posted does not run. */
static void end_while_reading(void **state)
{
    (void)state;
    node_rig g;
    client a = {.rig = &g}, b = {.rig = &g};
    rig_start(&g, (node_options){0});
    acquire(&a, TINY);
    acquire(&b, OTHER);
    node_destroy(g.n);
    g.n = NULL;
    rig_turns(&g);
    rig_stop(&g);
}

int main(int argc, char **argv)
{
    if (rig_is_rank(argc, argv))
        return rig_rank();
    unsetenv("TEST_RANK");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_demand_and_shared),
        cmocka_unit_test(cancel_and_hold),
        cmocka_unit_test(release_cancels),
        cmocka_unit_test(refusals),
        cmocka_unit_test(killed_while_streaming),
        cmocka_unit_test(several_ranks),
        cmocka_unit_test(one_of_several_is_lost),
        cmocka_unit_test(idle_ones_are_missed),
        cmocka_unit_test(stopped_while_loading),
        cmocka_unit_test(all_are_stopped_for_a_while),
        cmocka_unit_test(ranks_that_lie),
        cmocka_unit_test(loading_that_fails),
        cmocka_unit_test(program_that_is_not_there),
        cmocka_unit_test(hostile_file),
        cmocka_unit_test(late_comer),
        cmocka_unit_test(too_little_memory),
        cmocka_unit_test(least_recently_used_leaves),
        cmocka_unit_test(idle_ones_leave),
        cmocka_unit_test(asked_to_leave),
        cmocka_unit_test(end_with_requests_in_flight),
        cmocka_unit_test(end_while_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
