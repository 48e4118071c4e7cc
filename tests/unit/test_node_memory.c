/*
 * The bars of memory of a model over ranks, on a made model of 300 MB: what a rank's tiles take in memory is what the planner says, and what
 * it asked of the file are its tiles and nothing else; no rank process is ever larger than its weights, state and scratch and 64 MB,
 * neither while it loads nor while it answers. The whole model, tp2, tp3 5:2:1, pp2.
 *
 * The model is written by a child; each cut is measured in a process of its own, so that none stands on another's leavings. Bytes read: what the
 * loader asks of the mapped file (model_read_bytes; test_model_epochs counts the same from shapes). A disk gives whole pages, which is more where
 * columns are cut. Linux, where /proc says what is resident; under sanitizers memory means nothing.
 */
#include "model_make.h"
#include "team_rig.h"

#include "engine/ranks.h"
#include "plan/plan.h"

#include <sys/wait.h>

enum { L = 7, D = 2048, H = 32, G = 8, DH = 64, F = 8192, V = 32000, CONTEXT = 512, PROMPT = 300 };
#define BEYOND       (64.0 * 1e6)
#define AT_LEAST     300e6
#define MOST_TO_READ 1.02

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static const int cuts[] = {CUT_WHOLE, CUT_TP2, CUT_TP3_UNEVEN, CUT_PP2};

static char path[4200];

/* ---- what the system says ------------------------------------------------------------------------------------------ */

/* A number of a file of /proc: what stands behind `name`. −1: it does not say. */
static double proc_number(int pid, const char *file, const char *name)
{
    char at[64], line[256];
    double value = -1;
    snprintf(at, sizeof at, "/proc/%d/%s", pid, file);
    FILE *f = fopen(at, "r");
    while (f && value < 0 && fgets(line, sizeof line, f))
        if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == ':')
            value = strtod(line + strlen(name) + 1, NULL);
    if (f)
        fclose(f);
    return value;
}

static double resident(int pid, const char *what)
{
    return 1024 * proc_number(pid, "status", what);
}

/* What is measured in a child: it prints and exits with 0, or says what is wrong. */
static void in_child(void (*measure)(const team_cut *c), const team_cut *c)
{
    fflush(stdout);
    int pid = fork(), how = 0;
    assert_true(pid >= 0);
    if (pid == 0) {
        measure(c);
        fflush(stdout);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_int_equal(how, 0);
}

#define HOLDS(what, value, low, high)                                                              \
    do {                                                                                           \
        double v = (value), a = (low), b = (high);                                                 \
        if (!(v >= a && v <= b)) {                                                                 \
            printf("%s, rank %d: %s is %.0f, expected %.0f to %.0f\n", c->name, rank, what, v, a,  \
                   b);                                                                             \
            fflush(stdout);                                                                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* ---- the model ------------------------------------------------------------------------------------------------------ */

static void write_model(const team_cut *c)
{
    (void)c;
    const make_shape shape = {.architecture = "llama",
                              .L = L,
                              .D = D,
                              .H = H,
                              .G = G,
                              .dh = DH,
                              .F = F,
                              .V = V,
                              .type = "Q4_0",
                              .seed = 7};
    size_t n;
    char *bytes = make_model(&shape, &n);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) || (double)n < AT_LEAST)
        _exit(1);
}

static int make_file_once(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "%s-%d.gguf", rig_program(), (int)getpid());
    in_child(write_model, NULL);
    return 0;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static model_options options(void)
{
    return (model_options){.n_threads = 1,
                           .context = CONTEXT,
                           .state_tokens = CONTEXT,
                           .n_sequences = 2,
                           .max_tokens = 256};
}

/* ---- what the planner says ------------------------------------------------------------------------------------------ */

static void planned(plan_rank *out, const engine_cut *cut, const model_shard *shards)
{
    enum { MOST = 4 };
    plan_model m = {.name = "made",
                    .n_layers = L,
                    .n_dense_layers = L,
                    .d_model = D,
                    .n_heads = H,
                    .n_kv_heads = G,
                    .head_dim = DH,
                    .d_ff = F,
                    .n_vocab = V,
                    .state_bits = 16};
    const plan_engine *g;
    plan_node nodes[MOST];
    plan_link links[MOST * MOST];
    plan_stage stages[MOST] = {{0}};
    int n = engine_cut_ranks(cut), n_tensor = cut->n_tensor;
    err e = {0};
    must(plan_model_quantise(&m, "q4_0", &e), &e);
    must(plan_engine_find(&g, "shoal", &e), &e);
    for (int i = 0; i < n; i++) {
        nodes[i] = (plan_node){.memory_bytes = 1e12, .bandwidth = 1e10, .rate = 1e11, .host = -1};
        snprintf(nodes[i].name, sizeof nodes[i].name, "node %d", i);
        const model_shard *s = &shards[i];
        out[i] =
            (plan_rank){.node = i,
                        .units = {[PLAN_ATTENTION] = (int)(s->head_end - s->head_begin),
                                  [PLAN_FEED] = (int)(s->ffn_end - s->ffn_begin) / 32,
                                  [PLAN_VOCABULARY] = (int)(s->vocab_end - s->vocab_begin) / 16}};
    }
    for (int i = 0; i < n * n; i++)
        links[i] = (plan_link){.latency_us = 5, .bandwidth = 1e10};
    for (int i = 0; i < cut->n_stages; i++)
        stages[i] = (plan_stage){.first = (int)shards[i * n_tensor].layer_begin,
                                 .last = (int)shards[i * n_tensor].layer_end,
                                 .n_ranks = n_tensor,
                                 .ranks = out + i * n_tensor};
    plan_cluster c = {.n_nodes = n, .nodes = nodes, .links = links};
    plan_request r = {.context = CONTEXT, .prompt = 1, .concurrency = 1};
    plan_cut p = {.n_stages = cut->n_stages, .n_nodes = n, .stages = stages};
    must(plan_predict(&p, &m, &c, g, &r, &e), &e);
}

/* ---- tiles and bytes ------------------------------------------------------------------------------------------------ */

static void shards_of(model_shard *out, const engine_cut *cut, const file_model *f)
{
    model_cut_units units;
    err e = {0};
    must(model_get_cut_units(&units, f, &e), &e);
    must(engine_cut_shards(out, cut, &units, &e), &e);
    for (int i = 0; i < engine_cut_ranks(cut); i++)
        out[i].cut = engine_cut_ranks(cut) > 1;
}

static status no_sum(void *context, double *values, int64_t n, err *e)
{
    (void)context, (void)values, (void)n, (void)e;
    return STATUS_OK;
}

static status no_rows(void *context, float *rows, int64_t n, err *e)
{
    (void)context, (void)rows, (void)n, (void)e;
    return STATUS_OK;
}

static status no_rows_on(void *context, const float *rows, int64_t n, err *e)
{
    (void)context, (void)rows, (void)n, (void)e;
    return STATUS_OK;
}

/* One rank after the other, loaded alone: nothing but its tiles becomes resident between begin and the last piece. */
static void load_shards(const team_cut *c)
{
    enum { MOST = 4 };
    model_shard shards[ENGINE_MOST_RANKS];
    plan_rank plan[MOST] = {{0}};
    file_model *f;
    err e = {0};
    must(file_open(&f, path, &e), &e);
    shards_of(shards, &c->cut, f);
    planned(plan, &c->cut, shards);
    for (int rank = 0; rank < engine_cut_ranks(&c->cut); rank++) {
        model_options o = options();
        o.shard = shards[rank];
        o.exchange = (model_exchange){.sum = no_sum, .receive = no_rows, .send = no_rows_on};
        model_loading *l;
        model *m;
        bool done = false;
        must(model_load_begin(&l, f, &o, NULL, false, &e), &e);
        double before = resident(getpid(), "RssAnon");
        while (!done)
            must(model_load_more(l, 8 << 20, &done, &e), &e);
        double tiles = resident(getpid(), "RssAnon") - before;
        must(model_load_end(&m, l, &e), &e);
        double said = (double)model_used(m)->weight_bytes, read = (double)model_read_bytes(m),
               of_plan = plan[rank].weight_bytes;
        printf("%-10s rank %d: tiles %.1f MB resident, %.3f of the plan's; asked of the file %.3f "
               "of them\n",
               c->name, rank, tiles / 1e6, tiles / of_plan, read / said);
        HOLDS("resident tiles", tiles, 0.99 * of_plan, 1.01 * of_plan);
        HOLDS("the model's own count of them", said, 0.99 * of_plan, 1.01 * of_plan);
        HOLDS("what was asked of the file", read, 0.98 * said, MOST_TO_READ * said);
        model_destroy(m);
    }
    file_close(f);
}

/* ---- processes ------------------------------------------------------------------------------------------------------ */

static void note(void *context, const engine_event *event)
{
    int *done = context;
    *done += event->kind == ENGINE_DONE ? (event->reason == ENGINE_LENGTH ? 1 : 1000) : 0;
}

static void answer(engine_team *t)
{
    engine *g;
    err e = {0};
    int32_t prompt[PROMPT];
    int done = 0;
    const engine_options eo = {.max_sequences = 2};
    must(engine_create(&g, engine_team_model(t), &eo, note, &done, &e), &e);
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = (int32_t)(hash_u64((uint64_t)i, 1) % V);
    engine_request r = {.id = 1,
                        .prompt = prompt,
                        .n_prompt = PROMPT,
                        .max_tokens = 8,
                        .sample = SAMPLE_DEFAULTS,
                        .top_logprobs = -1};
    must(engine_submit(g, &r, &e), &e);
    for (bool busy = true; busy;)
        must(engine_step(g, &busy, &e), &e);
    assert_int_equal(done, 1);
    engine_destroy(g);
}

/* The leader is this process, which is as new as the others. */
static void run_ranks(const team_cut *c)
{
    engine_team_options o = team_options(path, c->cut);
    o.model = options();
    engine_team *t;
    file_model *f;
    model_shard shards[ENGINE_MOST_RANKS];
    model_need need[ENGINE_MOST_RANKS];
    err e = {0};
    must(file_open(&f, path, &e), &e);
    shards_of(shards, &c->cut, f);
    for (int rank = 0; rank < engine_cut_ranks(&c->cut); rank++) {
        model_options mo = options();
        mo.shard = shards[rank];
        mo.exchange = (model_exchange){.sum = no_sum, .receive = no_rows, .send = no_rows_on};
        must(model_needs(&need[rank], f, &mo, &e), &e);
    }
    file_close(f);
    t = team_load(&o);
    answer(t);
    for (int rank = 0; rank < engine_cut_ranks(&c->cut); rank++) {
        int pid = rank ? engine_team_pid(t, rank - 1) : (int)getpid();
        double weights = (double)need[rank].weight_bytes,
               plan = weights + (double)need[rank].state_bytes + (double)need[rank].scratch_bytes,
               most = resident(pid, "VmHWM");
        printf("%-10s %s rank %d: at most %.1f MB resident, the plan is %.1f MB: %+.1f MB\n",
               c->name, engine_link_name(c->cut.link), rank, most / 1e6, plan / 1e6,
               (most - plan) / 1e6);
        HOLDS("the most that was resident", most, weights, plan + BEYOND);
    }
    engine_team_destroy(t);
}

/* ---- tests ----------------------------------------------------------------------------------------------------------- */

static bool cannot_be_measured(void)
{
    if (!SANITIZED && resident(getpid(), "RssAnon") > 0)
        return false;
    printf("what is resident means nothing under sanitizers, and only Linux says it\n");
    return true;
}

static void tiles_are_the_plan(void **state)
{
    (void)state;
    if (cannot_be_measured())
        skip();
    for (size_t i = 0; i < BASE_COUNT(cuts); i++)
        in_child(load_shards, &team_cuts[cuts[i]]);
}

static void ranks_are_no_larger(void **state)
{
    (void)state;
    if (cannot_be_measured())
        skip();
    for (size_t i = 0; i < BASE_COUNT(cuts); i++)
        in_child(run_ranks, &team_cuts[cuts[i]]);
    team_cut over_tls = team_cuts[CUT_TP3_UNEVEN];
    over_tls.cut.link = ENGINE_LINK_TLS;
    in_child(run_ranks, &over_tls);
}

int main(int argc, char **argv)
{
    if (rig_is_rank(argc, argv))
        return rig_rank();
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_are_the_plan),
        cmocka_unit_test(ranks_are_no_larger),
    };
    return cmocka_run_group_tests(tests, make_file_once, remove_file);
}
