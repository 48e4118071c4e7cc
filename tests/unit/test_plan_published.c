/*
 * The planner against runs that others published: per engine three constants (efficiency of bandwidth, time per op, time per message) are
 * fitted on named rows and must predict the held-out ones within 25 %. Devices come from data sheets. Cuts are those of the engines
 * (equal shares, equal layers), not ours. Prints the table of docs/planner.md.
 */
#include "plan/plan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef enum role { FIT, HELD } role;

typedef struct row {
    const char *engine, *model, *device, *link;
    int n;
    plan_mode mode;
    double tokens_s;
    role role;
} row;

/* Sources: peers.md's tables 3.1 and 3.5 of the design notes: charts of Geerling in exo's docs/benchmarks; blog.exolabs.net/day-2; the old
 * README of distributed-llama (commit aec85b9), its issue #255 and pull request #64 (versions 0.6.0 and after it). Milliseconds are written as 1000 / ms. */
static const row rows[] = {
    {"exo", "qwen3-235b-a22b:8bit", "m3-ultra", "thunderbolt5-rdma", 1, PLAN_TENSOR, 19.5, FIT},
    {"exo", "qwen3-235b-a22b:8bit", "m3-ultra", "thunderbolt5-rdma", 2, PLAN_TENSOR, 26.2, HELD},
    {"exo", "qwen3-235b-a22b:8bit", "m3-ultra", "thunderbolt5-rdma", 4, PLAN_TENSOR, 31.9, FIT},
    {"exo", "deepseek-v3.1:4bit", "m3-ultra", "thunderbolt5-rdma", 1, PLAN_TENSOR, 21.1, FIT},
    {"exo", "deepseek-v3.1:4bit", "m3-ultra", "thunderbolt5-rdma", 2, PLAN_TENSOR, 27.8, HELD},
    {"exo", "deepseek-v3.1:4bit", "m3-ultra", "thunderbolt5-rdma", 4, PLAN_TENSOR, 32.5, HELD},
    {"exo", "kimi-k2-thinking", "m3-ultra", "thunderbolt5-rdma", 2, PLAN_TENSOR, 21.6, HELD},
    {"exo", "kimi-k2-thinking", "m3-ultra", "thunderbolt5-rdma", 4, PLAN_TENSOR, 28.3, HELD},
    {"exo-2024", "llama-3.3-70b:4bit", "m4-pro", "thunderbolt5", 8, PLAN_PIPELINE, 3.89, FIT},
    {"exo-2024", "llama-3.1-405b:4bit", "m4-pro", "thunderbolt5", 8, PLAN_PIPELINE, 0.88, HELD},
    {"exo-2024", "deepseek-v3:4bit", "m4-pro", "thunderbolt5", 8, PLAN_PIPELINE, 5.37, HELD},
    {"distributed-llama", "llama-2-70b:q4_0", "c3d-30", "cloud-20g", 1, PLAN_TENSOR, 1e3 / 909.7,
     FIT},
    {"distributed-llama", "llama-2-70b:q4_0", "c3d-30", "cloud-20g", 2, PLAN_TENSOR, 1e3 / 501.4,
     HELD},
    {"distributed-llama", "llama-2-70b:q4_0", "c3d-30", "cloud-20g", 4, PLAN_TENSOR, 1e3 / 293.1,
     FIT},
    {"distributed-llama", "llama-2-13b:q4_0", "c3d-30", "cloud-20g", 1, PLAN_TENSOR, 1e3 / 184,
     HELD},
    {"distributed-llama", "llama-2-13b:q4_0", "c3d-30", "cloud-20g", 2, PLAN_TENSOR, 1e3 / 115,
     HELD},
    {"distributed-llama", "llama-2-13b:q4_0", "c3d-30", "cloud-20g", 4, PLAN_TENSOR, 1e3 / 87,
     HELD},
    {"distributed-llama", "llama-2-7b:q4_0", "c3d-30", "cloud-20g", 1, PLAN_TENSOR, 1e3 / 101.8,
     FIT},
    {"distributed-llama", "llama-2-7b:q4_0", "c3d-30", "cloud-20g", 2, PLAN_TENSOR, 1e3 / 69.7,
     HELD},
    {"distributed-llama", "llama-2-7b:q4_0", "c3d-30", "cloud-20g", 4, PLAN_TENSOR, 1e3 / 53.7,
     HELD},
    {"distributed-llama", "llama-2-7b:q4_0", "pi-5", "1gbe-pi", 1, PLAN_TENSOR, 2.26, HELD},
    {"distributed-llama", "llama-2-7b:q4_0", "pi-5", "1gbe-pi", 2, PLAN_TENSOR, 2.92, HELD},
    {"distributed-llama", "llama-2-7b:q4_0", "pi-5", "1gbe-pi", 4, PLAN_TENSOR, 4.56, HELD},
    {"distributed-llama", "llama-3.1-8b:q4_0", "pi-5", "1gbe-pi", 1, PLAN_TENSOR, 1.77, HELD},
    {"distributed-llama", "llama-3.1-8b:q4_0", "pi-5", "1gbe-pi", 2, PLAN_TENSOR, 2.25, HELD},
    {"distributed-llama", "llama-3.1-8b:q4_0", "pi-5", "1gbe-pi", 4, PLAN_TENSOR, 3.01, HELD},
    {"distributed-llama", "llama-3.1-8b:q4_0", "pi-5", "1gbe-pi", 2, PLAN_TENSOR, 1e3 / 327.17,
     HELD},
    {"distributed-llama", "llama-3.1-8b:q4_0", "pi-5", "1gbe-pi", 4, PLAN_TENSOR, 1e3 / 235.69,
     HELD},
    {"distributed-llama", "llama-3.1-8b:q4_0", "pi-5", "1gbe-pi", 4, PLAN_TENSOR, 1e3 / 245.08,
     HELD},
    {"distributed-llama-2025", "qwen3-30b-a3b:q4_0", "pi-5", "1gbe", 4, PLAN_TENSOR, 13.04, HELD},
};

/* One cut of n equal nodes as the engine makes it. */
typedef struct equal {
    plan_node nodes[8];
    plan_link links[64];
    plan_stage stages[8];
    plan_rank ranks[8];
    plan_cluster cluster;
    plan_cut cut;
} equal;

static const plan_request request = {.context = 1024, .prompt = 64, .concurrency = 1};

static void make_cluster(equal *q, const row *w)
{
    const plan_device *device;
    const plan_link_kind *link;
    assert_int_equal(plan_device_find(&device, w->device, NULL), STATUS_OK);
    assert_int_equal(plan_link_find(&link, w->link, NULL), STATUS_OK);
    for (int i = 0; i < w->n; i++) {
        char name[32];
        snprintf(name, sizeof name, "node-%d", i);
        plan_node_of(&q->nodes[i], name, device, 0);
    }
    for (int i = 0; i < w->n * w->n; i++)
        q->links[i] = plan_link_of(link);
    q->cluster = (plan_cluster){w->n, q->nodes, q->links};
}

static int part(int total, int n, int i)
{
    return total * (i + 1) / n - total * i / n;
}

static void make_cut(equal *q, const row *w, const plan_model *m)
{
    int units[] = {m->n_heads, (m->d_ff + 31) / 32, (m->d_expert + 31) / 32,
                   (m->n_vocab + 15) / 16};
    bool tensor = w->mode == PLAN_TENSOR;
    q->cut = (plan_cut){.n_stages = tensor ? 1 : w->n, .stages = q->stages};
    memset(q->ranks, 0, sizeof q->ranks);
    for (int i = 0; i < w->n; i++) {
        q->ranks[i].node = i;
        for (int k = 0; k < PLAN_KINDS; k++)
            q->ranks[i].units[k] = tensor ? part(units[k], w->n, i) : units[k];
        if (!strcmp(w->engine, "distributed-llama")) /* its root computes all logits */
            q->ranks[i].units[PLAN_VOCABULARY] = i ? 0 : units[PLAN_VOCABULARY];
    }
    for (int i = 0; i < q->cut.n_stages; i++)
        q->stages[i] = (plan_stage){.first = m->n_layers * i / q->cut.n_stages,
                                    .last = m->n_layers * (i + 1) / q->cut.n_stages,
                                    .n_ranks = tensor ? w->n : 1,
                                    .ranks = q->ranks + i};
}

static double predicted(const row *w, const plan_engine *g)
{
    equal q;
    plan_model m;
    err e;
    assert_int_equal(plan_model_find(&m, w->model, &e), STATUS_OK);
    make_cluster(&q, w);
    make_cut(&q, w, &m);
    if (plan_predict(&q.cut, &m, &q.cluster, g, &request, &e) != STATUS_OK)
        fail_msg("%s on %d x %s: %s", w->model, w->n, w->device, e.text);
    return q.cut.tokens_s;
}

static double residual(const row *w, const plan_engine *g)
{
    return predicted(w, g) / w->tokens_s - 1;
}

static double loss(const char *engine, const plan_engine *g)
{
    double sum = 0;
    for (size_t i = 0; i < BASE_COUNT(rows); i++)
        if (!strcmp(rows[i].engine, engine) && rows[i].role == FIT)
            sum += pow(residual(&rows[i], g), 2);
    return sum;
}

/* Descends by coordinates; exo-2024 takes bandwidth and ops from exo (the same MLX underneath) and has one row for its messages. */
static plan_engine fit(const char *engine)
{
    const plan_engine *start;
    assert_int_equal(plan_engine_find(&start, engine, NULL), STATUS_OK);
    plan_engine g = *start;
    bool hop_only = !strcmp(engine, "exo-2024");
    double best = loss(engine, &g);
    for (double step = 0.3; step > 0.002; step /= 2)
        for (int turn = 0; turn < 12; turn++)
            for (int k = hop_only ? 2 : 0; k < 3; k++)
                for (int sign = -1; sign <= 1; sign += 2) {
                    plan_engine trial = g;
                    double *field = k == 0   ? &trial.efficiency
                                    : k == 1 ? &trial.op_us
                                             : &trial.hop_us;
                    *field *= 1 + sign * step;
                    double l = trial.efficiency <= 0.95 ? loss(engine, &trial) : INFINITY;
                    if (l < best) {
                        best = l;
                        g = trial;
                    }
                }
    return g;
}

static void test_fitted(void **state)
{
    static const char *const engines[] = {"exo", "exo-2024", "distributed-llama"};
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(engines); i++) {
        const plan_engine *known;
        assert_int_equal(plan_engine_find(&known, engines[i], NULL), STATUS_OK);
        plan_engine g = fit(engines[i]);
        double ours = sqrt(loss(engines[i], known)), best = sqrt(loss(engines[i], &g));
        printf("%-18s fitted: efficiency %.3f, op %.1f us, message %.0f us, error %.3f; "
               "engines.def: %.3f, "
               "%.1f, %.0f, error %.3f\n",
               engines[i], g.efficiency, g.op_us, g.hop_us, best, known->efficiency, known->op_us,
               known->hop_us, ours);
        assert_true(ours < best + 0.05); /* the table's constants are the fit, rounded */
    }
}

static void test_rows(void **state)
{
    static const char *const roles[] = {"fitted", "held out"};
    int bad = 0;
    (void)state;
    printf("| engine | model | machines | published | predicted | residual | |\n");
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        const row *w = &rows[i];
        const plan_engine *g;
        assert_int_equal(plan_engine_find(&g, w->engine, NULL), STATUS_OK);
        double r = residual(w, g);
        printf("| %s | %s | %d x %s, %s | %.3g | %.3g | %+.0f %% | %s |\n", w->engine, w->model,
               w->n, w->device, w->link, w->tokens_s, predicted(w, g), 100 * r, roles[w->role]);
        bad += fabs(r) > 0.25;
    }
    assert_int_equal(bad, 0);
}

/* DeepSeek V3.1 in 8 bits on one M3 Ultra of 512 GB, as the chart's label says, cannot be. */
static void test_impossible_row(void **state)
{
    static const row w = {"exo", "deepseek-v3.1:8bit", "m3-ultra", "thunderbolt5-rdma",
                          1,     PLAN_TENSOR,          21.1,       HELD};
    equal q;
    plan_model m;
    plan_result result;
    const plan_engine *g;
    err e;
    (void)state;
    assert_int_equal(plan_model_find(&m, w.model, NULL), STATUS_OK);
    assert_int_equal(plan_engine_find(&g, w.engine, NULL), STATUS_OK);
    make_cluster(&q, &w);
    make_cut(&q, &w, &m);
    assert_int_equal(plan_predict(&q.cut, &m, &q.cluster, g, &request, &e), STATUS_INVALID);
    assert_non_null(strstr(e.text, "node-0 has 549.8 GB"));
    assert_int_equal(plan_make(&result, &m, &q.cluster, g, &request, &e), STATUS_TOO_LARGE);
    assert_true(result.missing_bytes > 150e9 && result.missing_bytes < 250e9);
    assert_int_equal(result.n_plans, 0);
    plan_result_fini(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_fitted),
        cmocka_unit_test(test_impossible_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
