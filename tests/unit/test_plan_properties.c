/*
 * Properties of plans over random clusters of one to six nodes, which hold always: never over memory; all layers and units are given out; more
 * memory does not make a plan impossible, nor a prediction worse; a faster link or device does not make one worse; the order of nodes
 * changes nothing. Each cluster is planned twice: as it is, and with one of those changes in turn.
 * PLAN_CLUSTERS says how many clusters: 10,000 unless told, 100,000 in make test-long. PLAN_SHOW prints every prediction that got worse.
 * Larger clusters, of 7 to 16 nodes (PLAN_LARGER: 200 unless told, 10,000 in make test-long), where the search may run out of its counted
 * work: never over memory, and the order of nodes changes nothing; how often a change for the better made a prediction worse there is
 * counted, printed and bounded, up to 11 nodes (nearly all of which are searched exactly, as those of 12) and above.
 */
#include "plan_random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void random_model(random_case *c)
{
    plan_model *m = &c->model;
    bool experts = random_below(c, 2), latent = random_below(c, 4) == 0;
    int group = 1 << random_below(c, 3);
    *m = (plan_model){.n_layers = 1 + random_below(c, 12), .d_model = 256 << random_below(c, 4)};
    snprintf(m->name, sizeof m->name, "random");
    m->n_kv_heads = 1 + random_below(c, 6);
    m->n_heads = m->n_kv_heads * group;
    m->head_dim = 64;
    m->d_ff = 32 * (1 + random_below(c, 200));
    m->n_vocab = 1000 + random_below(c, 50000);
    m->tied = random_below(c, 2);
    m->n_dense_layers = m->n_layers;
    if (experts) {
        m->n_experts = 4 << random_below(c, 5);
        m->n_active = 1 + random_below(c, 4);
        m->d_expert = 32 * (1 + random_below(c, 20));
        m->n_shared = random_below(c, 2);
        m->n_dense_layers = random_below(c, 2) ? 0 : BASE_MIN(1, m->n_layers - 1);
    }
    if (latent) {
        m->kv_rank = 128;
        m->q_rank = random_below(c, 2) ? 96 : 0;
        m->rope_dim = 32;
        m->v_dim = 64;
    }
    m->bits = m->expert_bits = random_below(c, 2) ? 4.5 : 16;
    m->state_bits = 16;
}

/* n nodes, or one to six of them when 0. */
static void make_case(random_case *c, uint64_t seed, int n)
{
    static const int sizes[] = {1, 2, 2, 3, 3, 3, 4, 4, 5, 6};
    static const plan_goal goals[] = {PLAN_SPEED, PLAN_SPEED, PLAN_TTFT, PLAN_THROUGHPUT};
    const plan_engine *engine;
    memset(c, 0, sizeof *c);
    c->state = seed;
    assert_int_equal(plan_engine_find(&engine, "shoal", NULL), STATUS_OK);
    c->engine = *engine;
    random_model(c);
    c->request = (plan_request){.goal = goals[random_below(c, 4)],
                                .context = 256 << random_below(c, 6),
                                .prompt = 1 + random_below(c, 256),
                                .concurrency = 1 + random_below(c, 8)};
    random_nodes(c, n > 0 ? n : sizes[random_below(c, (int)BASE_COUNT(sizes))]);
}

/* INFINITY when nothing fits. */
static double best_score(const random_case *c)
{
    plan_result r;
    err e;
    status s = plan_make(&r, &c->model, &c->cluster, &c->engine, &c->request, &e);
    if (s != STATUS_OK && s != STATUS_TOO_LARGE)
        fail_msg("%s", e.text);
    double score = s == STATUS_OK ? r.plans[0].score : INFINITY;
    plan_result_fini(&r);
    return score;
}

static void check_stage(const random_case *c, const plan_stage *t)
{
    int sum[PLAN_KINDS] = {0};
    for (int i = 0; i < t->n_ranks; i++) {
        const plan_rank *k = &t->ranks[i];
        double used = k->weight_bytes + k->state_bytes + k->scratch_bytes + k->reserve_bytes;
        assert_true(used <= c->nodes[k->node].memory_bytes);
        assert_true(k->weight_bytes >= 0 && k->state_bytes >= 0);
        for (int u = 0; u < PLAN_KINDS; u++) {
            assert_true(k->units[u] >= 0);
            sum[u] += k->units[u];
        }
    }
    for (int u = 0; u < PLAN_KINDS; u++)
        assert_int_equal(sum[u], t->units[u]);
}

static void check_plans(const random_case *c, const plan_result *r)
{
    for (int i = 0; i < r->n_plans; i++) {
        const plan_cut *p = &r->plans[i];
        bool used[RANDOM_NODES] = {false};
        int layer = 0;
        for (int s = 0; s < p->n_stages; s++) {
            assert_int_equal(p->stages[s].first, layer);
            layer = p->stages[s].last;
            check_stage(c, &p->stages[s]);
            for (int k = 0; k < p->stages[s].n_ranks; k++) {
                assert_false(used[p->stages[s].ranks[k].node]);
                used[p->stages[s].ranks[k].node] = true;
            }
        }
        assert_int_equal(layer, c->model.n_layers);
        assert_true(isfinite(p->tokens_s) && p->tokens_s > 0 && p->ttft_us > 0 &&
                    p->throughput > 0);
        assert_true(i == 0 || p->score >= r->plans[i - 1].score * (1 - 1e-9));
    }
}

typedef struct counts {
    int n, planned, memory, device, link, order, worse, lost;
    double worst;
} counts;

static void check_better(counts *k, int *which, uint64_t seed, double before, double after)
{
    if (isinf(before))
        return;
    ++*which;
    if (after <= before * (1 + 1e-9))
        return;
    k->worse++;
    k->lost += isinf(after);
    if (isfinite(after))
        k->worst = fmax(k->worst, after / before - 1);
    if (getenv("PLAN_SHOW"))
        printf("seed %llu: %g -> %g\n", (unsigned long long)seed, before, after);
}

static void check_memory(random_case *c, counts *k, uint64_t seed, double score)
{
    int a = random_below(c, c->cluster.n_nodes);
    c->nodes[a].memory_bytes *= random_scale(c, 1.01, 3);
    check_better(k, &k->memory, seed, score, best_score(c));
}

static void check_device(random_case *c, counts *k, uint64_t seed, double score)
{
    plan_node *node = &c->nodes[random_below(c, c->cluster.n_nodes)];
    int what = random_below(c, 3);
    if (what != 1)
        node->bandwidth *= random_scale(c, 1.01, 4);
    if (what != 0)
        node->rate *= random_scale(c, 1.01, 4);
    check_better(k, &k->device, seed, score, best_score(c));
}

static void check_link(random_case *c, counts *k, uint64_t seed, double score)
{
    int n = c->cluster.n_nodes, a = random_below(c, n), b = random_below(c, n);
    plan_link *ab = &c->links[a * n + b];
    if (a == b || ab->bandwidth <= 0)
        return;
    *ab = (plan_link){ab->latency_us * random_scale(c, 0.1, 0.99),
                      ab->bandwidth * random_scale(c, 1, 4)};
    c->links[b * n + a] = *ab;
    check_better(k, &k->link, seed, score, best_score(c));
}

static void check_order(random_case *c, const plan_result *r)
{
    random_case p = *c;
    plan_result again;
    int n = c->cluster.n_nodes, shift = random_below(c, n);
    for (int i = 0; i < n; i++)
        p.nodes[i] = c->nodes[(i + shift) % n];
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            p.links[i * n + j] = c->links[(i + shift) % n * n + (j + shift) % n];
    p.cluster = (plan_cluster){n, p.nodes, p.links};
    status s = plan_make(&again, &p.model, &p.cluster, &p.engine, &p.request, NULL);
    assert_int_equal(s, r->n_plans ? STATUS_OK : STATUS_TOO_LARGE);
    assert_int_equal(again.n_plans, r->n_plans);
    for (int i = 0; i < r->n_plans; i++) {
        const plan_cut *a = &r->plans[i], *b = &again.plans[i];
        assert_true(a->score == b->score);
        assert_int_equal(a->n_stages, b->n_stages);
        for (int t = 0; t < a->n_stages; t++) {
            assert_int_equal(a->stages[t].last, b->stages[t].last);
            assert_int_equal(a->stages[t].n_ranks, b->stages[t].n_ranks);
            for (int k = 0; k < a->stages[t].n_ranks; k++) {
                const plan_rank *x = &a->stages[t].ranks[k], *y = &b->stages[t].ranks[k];
                assert_string_equal(c->nodes[x->node].name, p.nodes[y->node].name);
                assert_memory_equal(x->units, y->units, sizeof x->units);
            }
        }
    }
    plan_result_fini(&again);
}

/* Plans the case and checks what every plan must be; then, in turn, one change of the cluster. */
static void check_one(counts *k, uint64_t seed, int nodes, int turn)
{
    random_case c;
    plan_result r;
    err e;
    make_case(&c, seed, nodes);
    status s = plan_make(&r, &c.model, &c.cluster, &c.engine, &c.request, &e);
    if (s != STATUS_OK && s != STATUS_TOO_LARGE)
        fail_msg("%s", e.text);
    double score = s == STATUS_OK ? r.plans[0].score : INFINITY;
    k->n++;
    k->planned += s == STATUS_OK;
    assert_true(s == STATUS_OK || (r.missing_bytes > 0 && r.n_reasons > c.cluster.n_nodes));
    check_plans(&c, &r);
    if (turn == 0) {
        k->order++;
        check_order(&c, &r);
    }
    plan_result_fini(&r);
    if (turn == 1)
        check_memory(&c, k, seed, score);
    else if (turn == 2)
        check_device(&c, k, seed, score);
    else if (turn == 3)
        check_link(&c, k, seed, score);
}

static uint64_t number_of(const char *name, uint64_t n)
{
    const char *text = getenv(name);
    if (text && !base_parse_u64(text, &n))
        fail_msg("%s is '%s', expected a number", name, text);
    return n;
}

static void test_properties(void **state)
{
    uint64_t n = number_of("PLAN_CLUSTERS", 10000);
    counts k = {0};
    (void)state;
    for (uint64_t i = 0; i < n; i++)
        check_one(&k, hash_u64(i, 2026), 0, (int)(i % 4));
    printf("%d random clusters of 1 to 6 nodes, %d with a plan; changed in %d more memory, %d a "
           "faster device, %d a faster link, %d the order of nodes: %d predictions worse (by %.3f "
           "%% at most)\n",
           k.n, k.planned, k.memory, k.device, k.link, k.order, k.worse, 100 * k.worst);
    assert_true(k.planned > k.n / 3);
    assert_int_equal(k.worse, 0);
}

static void print_larger(const counts *k, const char *nodes)
{
    printf(
        "%d random clusters of %s nodes, %d with a plan: of %d changes for the better, %d lost the "
        "plan and %d made the prediction worse (by %.3f %% at most); of %d other orders of nodes "
        "none changed anything\n",
        k->n, nodes, k->planned, k->memory + k->device + k->link, k->lost, k->worse - k->lost,
        100 * k->worst, k->order);
}

/* The i-th of the larger clusters: 7 to 16 nodes, one of four changes. */
static void check_larger(counts *few, counts *many, uint64_t i)
{
    int nodes = 7 + (int)(i % 10);
    check_one(nodes <= 11 ? few : many, hash_u64(i, 77), nodes, (int)(i / 10 % 4));
}

/* Of the first 1,500: where a change for the better once made the prediction worse by 11.6, 3.5, 2.3 and 5.1 %. */
static void test_once_worse(void **state)
{
    static const uint64_t cases[] = {114, 318, 457, 587};
    counts k = {0};
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(cases); i++)
        check_larger(&k, &k, cases[i]);
    assert_int_equal(k.memory + k.device + k.link, (int)BASE_COUNT(cases));
    assert_int_equal(k.worse, 0);
}

static void test_larger(void **state)
{
    uint64_t n = number_of("PLAN_LARGER", 200);
    counts few = {0}, many = {0};
    (void)state;
    for (uint64_t i = 0; i < n; i++)
        check_larger(&few, &many, i);
    print_larger(&few, "7 to 11");
    print_larger(&many, "12 to 16");
    int changes = few.memory + few.device + few.link + many.memory + many.device + many.link;
    assert_true(few.planned > few.n / 5 && many.planned > many.n / 5);
    assert_true(few.worse <= 1 + changes / 200); /* nearly exact */
    assert_true(many.worse <= 1 + changes / 10); /* a heuristic, but not any heuristic */
    assert_true(few.lost + many.lost <= 1 + changes / 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_properties),
                                       cmocka_unit_test(test_once_worse),
                                       cmocka_unit_test(test_larger)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
