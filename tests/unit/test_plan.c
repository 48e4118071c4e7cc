/*
 * The planner against the truth of small cases: every order of every grouping of up to five nodes, every border, every way to give out coarse
 * units, all tried one by one; the planner's choice is within 3 % of the best. Then the tables (parameters of known models against what
 * their publishers say), reasons, refusals, pins, the algorithm of sums, what to buy next, and errors.
 */
#include "plan_random.h"

#include "plan/inside.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the oracle ----------------------------------------------------------------------------------------------------- */

/* At most four units of a kind, two or three layers. */
static void coarse_case(random_case *c, uint64_t seed)
{
    const plan_engine *engine;
    memset(c, 0, sizeof *c);
    c->state = seed;
    assert_int_equal(plan_engine_find(&engine, "shoal", NULL), STATUS_OK);
    c->engine = *engine;
    int n = 1 + random_below(c, 5), units = n < 5 ? 4 : 3;
    plan_model *m = &c->model;
    *m = (plan_model){.n_layers = 1 + random_below(c, 3), .d_model = 1024 << random_below(c, 3)};
    m->n_heads = units;
    m->n_kv_heads = units == 4 ? 1 << random_below(c, 3) : units;
    m->head_dim = 1024;
    m->d_ff = 32 * units;
    m->n_vocab = 16 * (n < 5 ? 3 : 2);
    m->n_dense_layers = m->n_layers;
    if (random_below(c, 2)) {
        m->n_experts = units;
        m->n_active = 1 + random_below(c, 2);
        m->d_expert = 32 * (1 + random_below(c, units));
        m->n_dense_layers = 0;
        m->d_ff = 0;
    }
    m->bits = m->expert_bits = 64; /* few units, so large ones */
    m->state_bits = 16;
    snprintf(m->name, sizeof m->name, "coarse");
    c->request = (plan_request){.context = 512, .prompt = 256, .concurrency = 1};
    random_nodes(c, n);
}

typedef struct oracle {
    const random_case *c;
    plan_shape s;
    double stage[32][4][4]; /* nodes as bits, first, last: the least time */
    double best;
} oracle;

static void try_units(oracle *o, plan_shares *h, plan_span p, plan_link worst, int kind, int rank,
                      int left, double *best)
{
    if (kind == PLAN_KINDS) {
        if (!plan_stage_fits(&o->s, h, p))
            return;
        plan_cost cost = plan_stage_cost(&o->s, h, p, plan_load_decode(&o->c->request, 1), worst);
        *best = fmin(*best, cost.compute_us + cost.sum_us);
        return;
    }
    static const int vocabulary = PLAN_VOCABULARY;
    bool absent = (kind == PLAN_FEED && !p.n_dense) || (kind == PLAN_EXPERTS && !p.n_expert) ||
                  (kind == vocabulary && !p.first && !p.last);
    int next = kind + 1;
    int total = next == PLAN_KINDS                 ? 0
                : next == PLAN_EXPERTS && h->whole ? o->s.m->n_experts
                                                   : o->s.n_units[next];
    if (absent) {
        try_units(o, h, p, worst, next, 0, total, best);
        return;
    }
    if (rank == h->n - 1) {
        h->units[kind * h->n + rank] = left;
        try_units(o, h, p, worst, next, 0, total, best);
        h->units[kind * h->n + rank] = 0;
        return;
    }
    for (int u = 0; u <= left; u++) {
        h->units[kind * h->n + rank] = u;
        try_units(o, h, p, worst, kind, rank + 1, left - u, best);
    }
    h->units[kind * h->n + rank] = 0;
}

static int nodes_of_bits(int bits, int nodes[8])
{
    int n = 0;
    for (int i = 0; i < 8; i++)
        if (bits >> i & 1)
            nodes[n++] = i;
    return n;
}

static void solve_stage(oracle *o, int bits, int first, int last)
{
    int nodes[8], units[PLAN_KINDS * 8] = {0}, n = nodes_of_bits(bits, nodes);
    plan_link worst = plan_worst_link(&o->c->cluster, nodes, n);
    double best = INFINITY;
    plan_shares h = {n, nodes, units, false};
    plan_span p = plan_span_of(&o->c->model, first, last);
    for (int whole = 0; whole <= (p.n_expert > 0) && (n == 1 || worst.bandwidth > 0); whole++) {
        h.whole = whole;
        try_units(o, &h, p, worst, 0, 0, o->s.n_units[0], &best);
    }
    o->stage[bits][first][last] = best;
}

/* All ways to go on from `layer` after the stage of nodes `last`. */
static void go_on(oracle *o, int used, int first, int last, int layer, double sum)
{
    int from[8], to[8], all = (1 << o->c->cluster.n_nodes) - 1, n = o->c->cluster.n_nodes;
    plan_load one = plan_load_decode(&o->c->request, 1);
    double bytes = plan_hop_bytes(&o->s, one);
    (void)n;
    if (layer == o->c->model.n_layers) {
        int a = nodes_of_bits(last, from), b = nodes_of_bits(first, to);
        double back =
            first == last ? 0 : plan_hop_us(&o->s, from, a, to, b, plan_back_bytes(&o->s, one));
        o->best =
            fmin(o->best, (sum + back) * (1 + PLAN_TIES * __builtin_popcount((unsigned)used)));
        return;
    }
    for (int g = 1; g <= all; g++) {
        if (g & used)
            continue;
        double hop = 0;
        if (last) {
            int a = nodes_of_bits(last, from), b = nodes_of_bits(g, to);
            hop = plan_hop_us(&o->s, from, a, to, b, bytes);
        }
        for (int end = layer + 1; end <= o->c->model.n_layers; end++) {
            double t = sum + hop + o->stage[g][layer][end];
            if (isfinite(t))
                go_on(o, used | g, first ? first : g, g, end, t);
        }
    }
}

static double oracle_score(const random_case *c)
{
    oracle *o = calloc(1, sizeof *o);
    assert_non_null(o);
    o->c = c;
    o->best = INFINITY;
    plan_shape_of(&o->s, &c->model, &c->cluster, &c->engine, &c->request);
    for (int bits = 1; bits < 1 << c->cluster.n_nodes; bits++)
        for (int first = 0; first < c->model.n_layers; first++)
            for (int last = first + 1; last <= c->model.n_layers; last++)
                solve_stage(o, bits, first, last);
    go_on(o, 0, 0, 0, 0, 0);
    double best = o->best;
    free(o);
    return best;
}

static void test_oracle(void **state)
{
    int n = 0, fits = 0, exact = 0, missed = 0, over = 0;
    double worst = 0;
    const char *text = getenv("PLAN_ORACLE");
    uint64_t cases = 120;
    (void)state;
    if (text && !base_parse_u64(text, &cases))
        fail_msg("PLAN_ORACLE is '%s', expected a number", text);
    for (uint64_t i = 0; i < cases; i++) {
        random_case c;
        plan_result r;
        coarse_case(&c, hash_u64(i, 99));
        double best = oracle_score(&c);
        status s = plan_make(&r, &c.model, &c.cluster, &c.engine, &c.request, NULL);
        n++;
        if (s == STATUS_OK) {
            double ratio = r.plans[0].score / best - 1;
            fits++;
            exact += ratio < 1e-6;
            over += ratio > 0.03;
            worst = fmax(worst, ratio);
            if (ratio > 0.03)
                printf("case %d: %g, best %g, %d nodes, %d experts\n", (int)i, r.plans[0].score,
                       best, c.cluster.n_nodes, c.model.n_experts);
            assert_true(ratio > -1e-9); /* nothing beats everything */
        } else {
            missed += isfinite(best);
        }
        plan_result_fini(&r);
    }
    printf("%d coarse cases of up to 5 nodes: %d fit, %d best, %d worse by more than 3 %% (worst "
           "%.2f %%); "
           "%d that fit were not found\n",
           n, fits, exact, over, 100 * worst, missed);
    assert_true(fits > n / 3);
    assert_int_equal(over, 0);
    assert_int_equal(missed, 0);
}

/* ---- tables --------------------------------------------------------------------------------------------------------- */

static void test_known_models(void **state)
{
    /* Billions of parameters, all and active, as the publishers say them. */
    static const struct {
        const char *name;
        double all, active;
    } said[] = {
        {"llama-3.1-8b", 8.03, 0},    {"llama-3.1-70b", 70.6, 0},   {"llama-3.1-405b", 405.9, 0},
        {"llama-3.2-1b", 1.24, 0},    {"qwen3-8b", 8.19, 0},        {"qwen3-32b", 32.8, 0},
        {"qwen3-30b-a3b", 30.5, 3.3}, {"qwen3-235b-a22b", 235, 22}, {"qwen3-coder-480b", 480, 35},
        {"deepseek-v3", 671, 37},     {"kimi-k2", 1026, 32},        {"gpt-oss-20b", 20.9, 3.6},
        {"gpt-oss-120b", 116.8, 5.1}, {"glm-4.5", 355, 32},         {"glm-4.5-air", 106, 12},
        {"minimax-m2", 229, 10}};
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(said); i++) {
        plan_model m;
        plan_size z;
        assert_int_equal(plan_model_find(&m, said[i].name, NULL), STATUS_OK);
        plan_model_size(&z, &m);
        if (fabs(z.parameters / 1e9 / said[i].all - 1) > 0.03)
            fail_msg("%s: %.4g B parameters, said %.4g", said[i].name, z.parameters / 1e9,
                     said[i].all);
        if (said[i].active > 0 && fabs(z.active / 1e9 / said[i].active - 1) > 0.12)
            fail_msg("%s: %.4g B active, said %.4g", said[i].name, z.active / 1e9, said[i].active);
    }
    for (int i = 0; i < plan_n_models(); i++) {
        plan_model m;
        err e;
        if (plan_model_find(&m, plan_model_at(i)->name, &e) != STATUS_OK ||
            plan_model_check(&m, &e) != STATUS_OK)
            fail_msg("%s: %s", plan_model_at(i)->name, e.text);
    }
}

static void test_names(void **state)
{
    const plan_device *d;
    const plan_link_kind *l;
    plan_model m;
    err e;
    (void)state;
    assert_int_equal(plan_device_find(&d, "M3-Ultra", &e), STATUS_OK);
    assert_string_equal(d->name, "m3-ultra");
    assert_int_equal(plan_device_find(&d, "m3ultra", &e), STATUS_NOT_FOUND);
    assert_non_null(strstr(e.text, "m3-ultra"));
    assert_int_equal(plan_link_find(&l, "10gb", &e), STATUS_NOT_FOUND);
    assert_non_null(strstr(e.text, "10gbe"));
    assert_int_equal(plan_model_find(&m, "qwen3-30b", &e), STATUS_NOT_FOUND);
    assert_non_null(strstr(e.text, "qwen3-30b-a3b"));
    assert_int_equal(plan_model_find(&m, "qwen3-8b:q9", &e), STATUS_NOT_FOUND);
    assert_int_equal(plan_model_find(&m, "zzzzzzzzzzz", &e), STATUS_NOT_FOUND);
    assert_int_equal(plan_model_find(&m, "qwen3-8b:q8_0", &e), STATUS_OK);
    assert_true(m.bits == 8.5);
}

/* ---- one question at a time ----------------------------------------------------------------------------------------- */

typedef struct setting {
    plan_node nodes[8];
    plan_link links[64];
    plan_cluster cluster;
    plan_model model;
    const plan_engine *engine;
    plan_request request;
    plan_result result;
    err e;
} setting;

static void set_up(setting *t, const char *model, const char *const *devices, int n,
                   const char *link)
{
    const plan_link_kind *kind;
    memset(t, 0, sizeof *t);
    assert_int_equal(plan_model_find(&t->model, model, NULL), STATUS_OK);
    assert_int_equal(plan_engine_find(&t->engine, "shoal", NULL), STATUS_OK);
    assert_int_equal(plan_link_find(&kind, link, NULL), STATUS_OK);
    for (int i = 0; i < n; i++) {
        const plan_device *d;
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(plan_device_find(&d, devices[i], NULL), STATUS_OK);
        plan_node_of(&t->nodes[i], name, d, 0);
    }
    for (int i = 0; i < n * n; i++)
        t->links[i] = plan_link_of(kind);
    t->cluster = (plan_cluster){n, t->nodes, t->links};
    t->request = (plan_request){.context = 8192, .prompt = 512, .concurrency = 1};
}

static status make(setting *t)
{
    plan_result_fini(&t->result);
    return plan_make(&t->result, &t->model, &t->cluster, t->engine, &t->request, &t->e);
}

static bool says(const setting *t, const char *words)
{
    for (int i = 0; i < t->result.n_reasons; i++)
        if (strstr(t->result.reasons[i], words))
            return true;
    return false;
}

/* A node that would make things slower is refused and told why. */
static void test_left_out(void **state)
{
    static const char *const devices[] = {"m4-max", "pi-5"};
    setting t;
    (void)state;
    set_up(&t, "llama-3.1-8b:4bit", devices, 2, "wifi6");
    assert_int_equal(make(&t), STATUS_OK);
    assert_int_equal(t.result.plans[0].n_nodes, 1);
    assert_int_equal(t.result.plans[0].stages[0].ranks[0].node, 0);
    assert_true(says(&t, "node n1 is left out: the best plan with it reaches"));
    assert_true(says(&t, "its link takes 2 ms"));
    plan_result_fini(&t.result);
}

/* Unlike machines get uneven shares that follow their bandwidth. */
static void test_uneven(void **state)
{
    static const char *const devices[] = {"m4-max", "m4-pro"};
    setting t;
    (void)state;
    set_up(&t, "llama-3.3-70b:4bit", devices, 2, "thunderbolt5-rdma");
    t.request.mode = PLAN_TENSOR;
    assert_int_equal(make(&t), STATUS_OK);
    const plan_stage *s = &t.result.plans[0].stages[0];
    assert_int_equal(s->n_ranks, 2);
    double share = (double)s->ranks[0].units[PLAN_FEED] / s->units[PLAN_FEED];
    assert_true(share > 0.64 && share < 0.69); /* 546 : 273 */
    static const double pinned[] = {1, 3};
    t.request.shares = pinned;
    assert_int_equal(make(&t), STATUS_OK);
    s = &t.result.plans[0].stages[0];
    assert_int_equal(s->ranks[0].units[PLAN_FEED], s->units[PLAN_FEED] / 4);
    plan_result_fini(&t.result);
}

static void test_refused(void **state)
{
    static const char *const devices[] = {"rtx-4090", "m4"};
    setting t;
    (void)state;
    set_up(&t, "llama-3.1-70b:q8_0", devices, 2, "10gbe");
    assert_int_equal(make(&t), STATUS_TOO_LARGE);
    assert_int_equal(t.result.n_plans, 0);
    assert_true(t.result.missing_bytes > 20e9 && t.result.missing_bytes < 40e9);
    assert_true(says(&t, "more are needed"));
    assert_true(says(&t, "node n0 alone: 24.8 GB usable"));
    assert_true(says(&t, "node n1 alone"));
    plan_result_fini(&t.result);
    memset(&t.result, 0, sizeof t.result);
    set_up(&t, "llama-3.1-8b:4bit", devices, 1,
           "10gbe"); /* 4.5 GB of weights, and state: 131 kB a position */
    t.request.context = 131072;
    t.request.concurrency = 2;
    assert_int_equal(make(&t), STATUS_TOO_LARGE);
    assert_true(says(&t, "it fits only with q8_0 keys and values"));
    assert_true(says(&t, "it fits with a context of 65536"));
    plan_result_fini(&t.result);
}

static void test_modes_and_pins(void **state)
{
    static const char *const devices[] = {"m4-pro", "m4-pro", "m4-pro", "m4-pro"};
    static const bool allowed[] = {false, true, false, true};
    setting t;
    (void)state;
    set_up(&t, "llama-3.3-70b:4bit", devices, 4, "thunderbolt5-rdma");
    t.request.allowed = allowed;
    assert_int_equal(make(&t), STATUS_OK);
    for (int i = 0; i < t.result.n_plans; i++)
        for (int k = 0; k < t.result.plans[i].n_stages; k++)
            for (int j = 0; j < t.result.plans[i].stages[k].n_ranks; j++)
                assert_true(allowed[t.result.plans[i].stages[k].ranks[j].node]);
    t.request.allowed = NULL;
    t.request.mode = PLAN_PIPELINE;
    assert_int_equal(make(&t), STATUS_OK);
    for (int k = 0; k < t.result.plans[0].n_stages; k++)
        assert_int_equal(t.result.plans[0].stages[k].n_ranks, 1);
    t.request.mode = PLAN_ANY;
    t.request.goal = PLAN_FEWEST;
    assert_int_equal(make(&t), STATUS_OK);
    assert_int_equal(t.result.plans[0].n_nodes, 1);
    t.request.goal = PLAN_THROUGHPUT; /* many at once fill a pipeline */
    t.request.concurrency = 4;
    assert_int_equal(make(&t), STATUS_OK);
    assert_int_equal(t.result.plans[0].n_nodes, 4);
    assert_true(t.result.plans[0].throughput > 1.5 * t.result.plans[0].tokens_s);
    plan_result_fini(&t.result);
}

static void test_sums(void **state)
{
    const plan_engine *g;
    plan_sum chosen;
    (void)state;
    assert_int_equal(plan_engine_find(&g, "shoal", NULL), STATUS_OK);
    assert_true(plan_sum_us(&chosen, 1, 1e6, (plan_link){10, 1e9}, g) == 0);
    assert_int_equal(chosen, PLAN_SUM_NONE);
    plan_sum_us(&chosen, 3, 16384, (plan_link){100, 1e9}, g); /* latency rules: one step */
    assert_int_equal(chosen, PLAN_SUM_DIRECT);
    plan_sum_us(&chosen, 5, 64e6, (plan_link){20, 1e8}, g); /* bandwidth rules */
    assert_true(chosen == PLAN_SUM_TWO_SHOT || chosen == PLAN_SUM_RING);
    assert_true(plan_sum_us(NULL, 4, 1e4, (plan_link){100, 1e9}, g) >
                plan_sum_us(NULL, 2, 1e4, (plan_link){100, 1e9}, g));
    /* a measured link gives back what was measured */
    plan_link l = plan_link_measured(g, 50, 0.01);
    assert_true(fabs(plan_sum_us(NULL, 2, 5000, l, g) - 100) < 1e-6);
    assert_true(plan_link_measured(g, 5, 0).latency_us == 0);
    /* a star: there and back, and a message to and from each of the others */
    const plan_engine *star;
    assert_int_equal(plan_engine_find(&star, "distributed-llama", NULL), STATUS_OK);
    double two = plan_sum_us(NULL, 2, 1000, (plan_link){40, 1e8}, star);
    double four = plan_sum_us(NULL, 4, 1000, (plan_link){40, 1e8}, star);
    assert_true(fabs(two - (80 + 2 * (star->hop_us + 10))) < 1e-9);
    assert_true(fabs(four - (80 + 6 * (star->hop_us + 10))) < 1e-9);
}

/* A ranked plan predicted again from its structure has the same figures. */
static void test_predict_again(void **state)
{
    static const char *const devices[] = {"m4-max", "m4-pro", "ryzen-7950x"};
    setting t;
    (void)state;
    set_up(&t, "qwen3-30b-a3b:q8_0", devices, 3, "10gbe");
    assert_int_equal(make(&t), STATUS_OK);
    for (int i = 0; i < t.result.n_plans; i++) {
        plan_cut p = t.result.plans[i];
        assert_int_equal(plan_predict(&p, &t.model, &t.cluster, t.engine, &t.request, &t.e),
                         STATUS_OK);
        assert_true(fabs(p.step_us / t.result.plans[i].step_us - 1) < 1e-9);
    }
    plan_cut wrong = t.result.plans[0];
    wrong.stages[wrong.n_stages - 1].last--;
    assert_int_equal(plan_predict(&wrong, &t.model, &t.cluster, t.engine, &t.request, &t.e),
                     STATUS_INVALID);
    plan_result_fini(&t.result);
}

static void test_grow(void **state)
{
    static const char *const devices[] = {"m4-pro"};
    plan_growth growth[64];
    int n = 64;
    setting t;
    (void)state;
    set_up(&t, "llama-3.3-70b:8bit", devices, 1, "10gbe");
    assert_int_equal(make(&t), STATUS_TOO_LARGE);
    assert_int_equal(
        plan_grow(growth, &n, &t.model, &t.cluster, t.engine, &t.request, t.links[0], &t.e),
        STATUS_OK);
    assert_true(n > 20);
    assert_true(isfinite(growth[0].score) && growth[0].used);
    for (int i = 1; i < n; i++)
        assert_true(growth[i].score >= growth[i - 1].score);
    assert_true(isinf(growth[n - 1].score)); /* a small one does not make it fit */
    plan_result_fini(&t.result);
}

static void test_bad_questions(void **state)
{
    static const char *const devices[] = {"m4-pro", "m4-pro"};
    setting t;
    (void)state;
    set_up(&t, "llama-3.1-8b:4bit", devices, 2, "10gbe");
    t.links[1].latency_us = 5; /* one way only */
    assert_int_equal(make(&t), STATUS_INVALID);
    assert_non_null(strstr(t.e.text, "between n0 and n1"));
    t.links[1] = t.links[2];
    snprintf(t.nodes[1].name, sizeof t.nodes[1].name, "n0");
    assert_int_equal(make(&t), STATUS_INVALID);
    assert_non_null(strstr(t.e.text, "two nodes have the name 'n0'"));
    snprintf(t.nodes[1].name, sizeof t.nodes[1].name, "n1");
    t.nodes[1].bandwidth = NAN;
    assert_int_equal(make(&t), STATUS_INVALID);
    t.nodes[1].bandwidth = 1e9;
    t.request.prompt = 9000; /* longer than the context */
    assert_int_equal(make(&t), STATUS_INVALID);
    t.request.prompt = 10;
    t.model.n_kv_heads = 5;
    assert_int_equal(make(&t), STATUS_INVALID);
    plan_result_fini(&t.result);
}

/* The exact search, and that of many nodes. */
static void test_no_memory(void **state)
{
    static const char *const devices[] = {"m4-pro", "m4-max", "m4", "m4-pro",
                                          "m2",     "m4-max", "m1", "pi-5"};
    (void)state;
    for (int nodes = 3; nodes <= 8; nodes += 5) {
        setting t;
        set_up(&t, "llama-3.2-1b:4bit", devices, nodes, "10gbe");
        uint64_t before = base_allocations();
        assert_int_equal(make(&t), STATUS_OK);
        uint64_t n = base_allocations() - before;
        for (uint64_t i = 1; i <= n; i++) {
            base_fail_after(i);
            status s = make(&t);
            assert_true(s == STATUS_NO_MEMORY || s == STATUS_OK);
        }
        base_fail_after(0);
        assert_int_equal(make(&t), STATUS_OK);
        plan_result_fini(&t.result);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_models), cmocka_unit_test(test_names),
        cmocka_unit_test(test_left_out),     cmocka_unit_test(test_uneven),
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_modes_and_pins),
        cmocka_unit_test(test_sums),         cmocka_unit_test(test_predict_again),
        cmocka_unit_test(test_grow),         cmocka_unit_test(test_bad_questions),
        cmocka_unit_test(test_no_memory),    cmocka_unit_test(test_oracle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
