/*
 * Sampling: the noise's distribution, draws against the exact softmax (chi-square, fixed seeds), every filter against a slow sorting
 * reference, penalties against their definitions, log-probabilities, ties, hostile logits, equality of all instruction sets.
 */
#include "kernel/scalar.h"
#include "sample/sample.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const kernel_table *portable(void)
{
    return kernel_table_at(0);
}

/* Numbers for the tests: a plain linear congruential generator. */
static uint64_t random_state = 1;

static double uniform(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return ((double)(random_state >> 11) + 0.5) / 9007199254740992.0;
}

static float normal(void)
{
    return (float)(sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform()));
}

typedef struct rig {
    sample *s;
    sample_scratch *w;
} rig;

static rig make(int vocabulary, const sample_options *o, int choice)
{
    rig r;
    err e;
    if (sample_create(&r.s, portable(), vocabulary, o, choice, &e) != STATUS_OK)
        fail_msg("%s", e.text);
    assert_int_equal(sample_scratch_create(&r.w, vocabulary, NULL), STATUS_OK);
    return r;
}

static void drop(rig r)
{
    sample_destroy(r.s);
    sample_scratch_destroy(r.w);
}

static sample_result next(rig r, const float *logits, int64_t position, int top)
{
    sample_call c = {.logits = logits, .position = position, .top_logprobs = top};
    sample_result out;
    err e;
    if (sample_next(r.s, r.w, &c, &out, &e) != STATUS_OK)
        fail_msg("%s", e.text);
    return out;
}

/* ---- the noise ------------------------------------------------------------------------------------------------- */

static void noise_is_gumbel(void **state)
{
    (void)state;
    enum { N = 200000, CELLS = 50 };
    for (int way = 0; way < 4; way++) { /* along the token, the position, the seed, the choice */
        int cells[CELLS] = {0};
        double sum = 0, squares = 0;
        for (int i = 0; i < N; i++) {
            double g = sample_noise(way == 2 ? (uint64_t)i : 7, way == 3 ? i : 0, way == 1 ? i : 3,
                                    way == 0 ? i : 11);
            assert_true(g > -3.2 && g < 22.9);
            sum += g;
            squares += g * g;
            cells[(int)(exp(-exp(-g)) * CELLS)]++; /* its distribution function makes it uniform */
        }
        double mean = sum / N, chi = 0;
        assert_true(fabs(mean - 0.57721566) < 5 * 1.2825 / sqrt(N));
        assert_true(fabs(squares / N - mean * mean - 1.644934) < 0.05);
        for (int i = 0; i < CELLS; i++)
            chi += pow(cells[i] - (double)N / CELLS, 2) / ((double)N / CELLS);
        assert_true(chi < 110); /* 49 degrees of freedom: 1e-6 */
    }
    assert_true(sample_noise(1, 0, 5, 9) == sample_noise(1, 0, 5, 9));
    assert_true(sample_noise(0, 0, 5, 9) != sample_noise(1, 0, 5, 9));
    assert_true(sample_noise(1, 0, 5, 9) != sample_noise(1, 1, 5, 9));
    assert_true(sample_noise(1, 0, 5, 9) != sample_noise(1, 0, 6, 9));
    assert_true(sample_noise(1, 0, 5, 9) != sample_noise(1, 0, 5, 10));
    assert_true(sample_noise(1, 2, 5, 9) != sample_noise(2, 1, 5, 9));
}

/* A stream promised to be the same for ever: these numbers may change only with the contract's version. */
static void noise_is_frozen(void **state)
{
    (void)state;
    static const struct {
        uint64_t seed;
        int choice;
        int64_t position;
        int32_t token;
        double expected;
    } known[] = {
        {0, 0, 0, 0, -0x1.0a4aabb3ad0e3p-2},
        {1, 0, 0, 0, 0x1.18509dbde8567p+1},
        {12345, 3, 1000, 127999, 0x1.276306d4fa0e1p-3},
        {UINT64_MAX, 0, INT64_C(1) << 40, 5, 0x1.19d1e2ab665ep+1},
    };
    for (size_t i = 0; i < BASE_COUNT(known); i++) {
        double got =
            sample_noise(known[i].seed, known[i].choice, known[i].position, known[i].token);
        if (got != known[i].expected)
            fail_msg("noise %zu is %a", i, got);
    }
}

/* ---- distributions --------------------------------------------------------------------------------------------- */

static double chi_square(const int *counts, const double *expected, int n, int total)
{
    double chi = 0, rest = 0;
    int rest_count = 0;
    for (int i = 0; i < n; i++) {
        double want = expected[i] * total;
        if (want < 10) { /* thin cells together */
            rest += want;
            rest_count += counts[i];
            continue;
        }
        chi += (counts[i] - want) * (counts[i] - want) / want;
    }
    if (rest > 1)
        chi += (rest_count - rest) * (rest_count - rest) / rest;
    return chi;
}

static void softmax(double *p, const float *logits, int n, double temperature)
{
    double max = -1e300, sum = 0;
    for (int i = 0; i < n; i++)
        max = fmax(max, logits[i]);
    for (int i = 0; i < n; i++)
        sum += p[i] = exp((logits[i] - max) / temperature);
    for (int i = 0; i < n; i++)
        p[i] /= sum;
}

static void draws_follow_the_softmax(void **state)
{
    (void)state;
    enum { V = 60, N = 40000 };
    static const float temperatures[] = {0.5f, 1, 2.5f};
    float logits[V];
    double p[V];
    random_state = 1;
    for (int i = 0; i < V; i++)
        logits[i] = 2 * normal();
    for (size_t t = 0; t < BASE_COUNT(temperatures); t++)
        for (int way = 0; way < 2; way++) { /* along positions, along seeds */
            int counts[V] = {0};
            sample_options o = SAMPLE_DEFAULTS;
            o.temperature = temperatures[t];
            o.seed = 99;
            rig r = make(V, &o, 0);
            for (int i = 0; i < N; i++) {
                if (way == 1) {
                    sample_destroy(r.s);
                    o.seed = (uint64_t)i;
                    assert_int_equal(sample_create(&r.s, portable(), V, &o, 0, NULL), STATUS_OK);
                }
                counts[next(r, logits, way == 0 ? i : 17, -1).token]++;
            }
            drop(r);
            softmax(p, logits, V, temperatures[t]);
            assert_true(chi_square(counts, p, V, N) <
                        125); /* at most 59 degrees of freedom: 1e-6 */
        }
}

static void neighbours_are_independent(void **state)
{
    (void)state;
    enum { V = 8, N = 64000 };
    float logits[V] = {0};
    sample_options o = SAMPLE_DEFAULTS;
    rig a = make(V, &o, 0), b = make(V, &o, 1);
    double expected[V * V];
    int along[V * V] = {0}, across[V * V] = {0};
    for (int i = 0; i < V * V; i++)
        expected[i] = 1.0 / (V * V);
    int before = next(a, logits, -1, -1).token;
    for (int i = 0; i < N; i++) {
        int now = next(a, logits, i, -1).token;
        along[before * V + now]++;                        /* one position and the next */
        across[now * V + next(b, logits, i, -1).token]++; /* one choice and the other */
        before = now;
    }
    assert_true(chi_square(along, expected, V * V, N) < 132); /* 63 degrees of freedom: 1e-6 */
    assert_true(chi_square(across, expected, V * V, N) < 132);
    drop(a);
    drop(b);
}

/* ---- against a slow reference ---------------------------------------------------------------------------------- */

typedef struct ranked {
    double s;
    int id;
} ranked;

static int compare_ranked(const void *x, const void *y)
{
    const ranked *a = x, *b = y;
    if (a->s != b->s)
        return a->s > b->s ? -1 : 1;
    return a->id - b->id;
}

/* The kept tokens by the definitions, sorted. *fragile: a border is too near to a decision of rounding to be compared. */
static int reference_filter(ranked *r, int n, const sample_options *o, bool *fragile)
{
    *fragile = false;
    qsort(r, (size_t)n, sizeof *r, compare_ranked);
    double max = r[0].s;
    if (o->top_k > 0 && o->top_k < n)
        n = o->top_k;
    if (o->top_p < 1) {
        double total = 0, mass = 0;
        for (int i = 0; i < n; i++)
            total += exp(r[i].s - max);
        int kept = 0;
        while (kept < n) {
            mass += exp(r[kept++].s - max) / total;
            if (fabs(mass - o->top_p) < 1e-5)
                *fragile = true;
            if (mass >= o->top_p)
                break;
        }
        n = kept;
    }
    if (o->min_p > 0) {
        int kept = 0;
        while (kept < n && exp(r[kept].s - max) >= o->min_p) {
            if (r[kept].s < max && fabs(exp(r[kept].s - max) / o->min_p - 1) < 1e-5)
                *fragile = true;
            kept++;
        }
        n = kept;
    }
    return n;
}

static int reference_token(const ranked *r, int n, const sample_options *o, int64_t position)
{
    int best = -1;
    double best_score = 0;
    for (int i = 0; i < n; i++) {
        double score = r[i].s + sample_noise(o->seed, 0, position, r[i].id);
        if (best < 0 || score > best_score || (score == best_score && r[i].id < best)) {
            best = r[i].id;
            best_score = score;
        }
    }
    return best;
}

static void filters_equal_the_reference(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 127, 128, 129, 1000, 20000};
    static const int ks[] = {0, 1, 2, 5, 40, 300, 100000};
    static const float ps[] = {1, 0.999f, 0.9f, 0.5f, 0.01f, 0},
                       mins[] = {0, 0.001f, 0.05f, 0.5f, 1};
    static float logits[20000];
    static ranked r[20000];
    int compared = 0, fragile_ones = 0;
    random_state = 5;
    for (size_t size = 0; size < BASE_COUNT(sizes); size++)
        for (int round = 0; round < 60; round++) {
            int v = sizes[size];
            double spread = 0.1 + 5 * uniform();
            for (int i = 0; i < v; i++) {
                logits[i] = (float)spread * normal();
                if (round % 4 == 3) /* many equal values */
                    logits[i] = roundf(logits[i]);
            }
            sample_options o = SAMPLE_DEFAULTS;
            o.seed = (uint64_t)round;
            o.temperature = round % 3 ? (float)(0.2 + 2 * uniform()) : 1;
            o.top_k = ks[(int)(uniform() * BASE_COUNT(ks))];
            o.top_p = ps[(int)(uniform() * BASE_COUNT(ps))];
            o.min_p = mins[(int)(uniform() * BASE_COUNT(mins))];
            float inverse = 1 / o.temperature;
            for (int i = 0; i < v; i++)
                r[i] = (ranked){o.temperature == 1 ? logits[i] : logits[i] * inverse, i};
            bool fragile;
            int kept = reference_filter(r, v, &o, &fragile);
            if (fragile) {
                fragile_ones++;
                continue;
            }
            rig g = make(v, &o, 0);
            for (int64_t position = 0; position < 8; position++) {
                assert_int_equal(next(g, logits, position, -1).token,
                                 reference_token(r, kept, &o, position));
                compared++;
            }
            drop(g);
        }
    assert_true(compared > 2000);
    assert_true(fragile_ones < 100);
}

/* The definition to the last integer: the shortest prefix whose ⌊exp(s − max)·2^32⌋ add up to p of the exact sum. */
static int exact_prefix(const ranked *r, int n, const float *logits, float p)
{
    float max = portable()->max(logits, n);
    double target = (double)p * portable()->exp_sum(logits, n, max) * 4294967296.0;
    uint64_t mass = 0;
    for (int i = 0; i < n; i++) {
        mass += (uint64_t)((double)kernel_expf((float)r[i].s - max) * 4294967296.0);
        if ((double)mass >= target)
            return i + 1;
    }
    return n;
}

/* Long prefixes are not listed; the winner must be in them all the same, also where the border lies between equals. */
static void long_nuclei_are_exact(void **state)
{
    (void)state;
    enum { V = 9001 };
    static const float ps[] = {0.9999f, 0.95f, 0.5f, 0.05f, 1e-6f};
    static float logits[V];
    static ranked r[V];
    random_state = 12;
    for (int round = 0; round < 60; round++) {
        double spread = round % 3 == 0 ? 0.02 : 0.2 + 3 * uniform();
        for (int i = 0; i < V; i++) {
            logits[i] = round % 5 == 4 ? 0.25f : (float)spread * normal();
            if (round % 2)
                logits[i] = roundf(logits[i] * 8) / 8;
            r[i] = (ranked){(double)logits[i], i};
        }
        qsort(r, V, sizeof *r, compare_ranked);
        sample_options o = SAMPLE_DEFAULTS;
        o.seed = (uint64_t)round;
        o.top_p = ps[round / 3 % (int)BASE_COUNT(ps)];
        int kept = exact_prefix(r, V, logits, o.top_p);
        rig g = make(V, &o, 0);
        for (int64_t position = 0; position < 20; position++)
            assert_int_equal(next(g, logits, position, -1).token,
                             reference_token(r, kept, &o, position));
        drop(g);
    }
}

/* Every kept token that is likely enough is drawn, no other one is. */
static void nucleus_membership(void **state)
{
    (void)state;
    enum { V = 300, N = 20000 };
    float logits[V];
    ranked r[V];
    int counts[V] = {0};
    random_state = 9;
    for (int i = 0; i < V; i++)
        logits[i] = 1.5f * normal();
    sample_options o = SAMPLE_DEFAULTS;
    o.top_p = 0.8f;
    for (int i = 0; i < V; i++)
        r[i] = (ranked){logits[i], i};
    bool fragile;
    int kept = reference_filter(r, V, &o, &fragile);
    assert_false(fragile);
    assert_in_range(kept, 10, V - 10);
    rig g = make(V, &o, 0);
    for (int i = 0; i < N; i++)
        counts[next(g, logits, i, -1).token]++;
    drop(g);
    double p[V];
    float of_kept[V];
    int kept_counts[V], inside = 0;
    for (int i = 0; i < kept; i++) {
        of_kept[i] = (float)r[i].s;
        kept_counts[i] = counts[r[i].id];
        inside += kept_counts[i];
    }
    assert_int_equal(inside, N);
    softmax(p, of_kept, kept, 1);
    assert_true(chi_square(kept_counts, p, kept, N) < kept + 6 * sqrt(2.0 * kept));
}

/* ---- greedy, ties, hostile logits ------------------------------------------------------------------------------- */

static void greedy_takes_the_lowest_of_equals(void **state)
{
    (void)state;
    static float logits[1000];
    sample_options o = SAMPLE_DEFAULTS;
    o.temperature = 0;
    rig r = make(1000, &o, 0);
    for (int i = 0; i < 1000; i++)
        logits[i] = -1;
    assert_int_equal(next(r, logits, 0, -1).token, 0);
    logits[999] = 3;
    assert_int_equal(next(r, logits, 0, -1).token, 999);
    logits[500] = 3;
    assert_int_equal(next(r, logits, 0, -1).token, 500);
    logits[499] = nextafterf(3, 4);
    for (int64_t position = 0; position < 50; position++)
        assert_int_equal(next(r, logits, position, -1).token, 499);
    drop(r);
    o.temperature = 1e-9f; /* as good as none */
    o.top_k = 5;
    r = make(1000, &o, 0);
    assert_int_equal(next(r, logits, 0, -1).token, 499);
    drop(r);
}

static void top_k_of_equals_keeps_the_lowest_ids(void **state)
{
    (void)state;
    static float logits[700];
    sample_options o = SAMPLE_DEFAULTS;
    o.top_k = 3;
    rig r = make(700, &o, 0);
    int seen[700] = {0};
    for (int i = 0; i < 500; i++)
        seen[next(r, logits, i, -1).token]++;
    assert_int_equal(seen[0] + seen[1] + seen[2], 500);
    assert_true(seen[0] > 100 && seen[1] > 100 && seen[2] > 100);
    drop(r);
}

static void hostile_logits(void **state)
{
    (void)state;
    enum { V = 200 };
    float logits[V] = {0};
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const int places[] = {0, 63, 64, 150, V - 1};
    sample_options o = SAMPLE_DEFAULTS;
    o.temperature = 0.5f;
    o.top_p = 0.9f;
    rig r = make(V, &o, 0);
    sample_call c = {.logits = logits, .top_logprobs = 5};
    sample_result out = {.token = -7};
    err e;
    for (size_t i = 0; i < BASE_COUNT(bad); i++)
        for (size_t k = 0; k < BASE_COUNT(places); k++) {
            char name[32];
            logits[places[k]] = bad[i];
            assert_int_equal(sample_next(r.s, r.w, &c, &out, &e), STATUS_CORRUPT);
            snprintf(name, sizeof name, "token %d ", places[k]);
            assert_non_null(strstr(e.text, name));
            assert_int_equal(out.token, -7);
            logits[places[k]] = 0;
        }
    logits[3] = 3e38f; /* finite, but twice as much is not */
    assert_int_equal(sample_next(r.s, r.w, &c, &out, &e), STATUS_CORRUPT);
    logits[3] = 0;
    for (int i = 0; i < V; i++)
        logits[i] = i == 77 ? 1 : -3e38f;
    assert_int_equal(sample_next(r.s, r.w, &c, &out, &e), STATUS_OK);
    assert_int_equal(out.token, 77);
    assert_true(out.logprob == 0);
    drop(r);
}

/* ---- bias, bans, masks, penalties -------------------------------------------------------------------------------- */

static void bias_and_bans(void **state)
{
    (void)state;
    enum { V = 300 };
    float logits[V] = {0};
    logits[10] = 5;
    logits[11] = 4;
    sample_options o = SAMPLE_DEFAULTS;
    o.temperature = 0;
    static const int32_t banned[] = {10, 299, 10};
    sample_bias bias[] = {{12, 2.5f}, {11, -3}, {12, 2}};
    o.n_banned = 3;
    o.banned = banned;
    rig r = make(V, &o, 0);
    assert_int_equal(next(r, logits, 0, -1).token, 11);
    drop(r);
    o.n_bias = 3;
    o.bias = bias;
    r = make(V, &o, 0);
    bias[0].token = 13; /* options are copied */
    assert_int_equal(next(r, logits, 0, -1).token, 12);
    sample_result with = next(r, logits, 0, 3); /* log-probabilities see none of it */
    assert_int_equal(with.top[0].token, 10);
    assert_int_equal(with.top[1].token, 11);
    drop(r);
    o.temperature = 1;
    r = make(V, &o, 0);
    for (int i = 0; i < 3000; i++)
        assert_int_not_equal(next(r, logits, i, -1).token, 10);
    drop(r);

    static int32_t all[V];
    for (int i = 0; i < V; i++)
        all[i] = i;
    o.n_banned = V;
    o.banned = all;
    r = make(V, &o, 0);
    sample_call c = {.logits = logits, .top_logprobs = -1};
    sample_result out;
    err e;
    assert_int_equal(sample_next(r.s, r.w, &c, &out, &e), STATUS_INVALID);
    drop(r);
}

static void allowed_masks(void **state)
{
    (void)state;
    enum { V = 130 };
    float logits[V];
    uint64_t allowed[3] = {UINT64_MAX, 0, 0};
    for (int i = 0; i < V; i++)
        logits[i] = (float)i * 0.01f;
    sample_options o = SAMPLE_DEFAULTS;
    rig r = make(V, &o, 0);
    sample_call c = {.logits = logits, .allowed = allowed, .top_logprobs = -1};
    sample_result out;
    err e;
    for (c.position = 0; c.position < 1000; c.position++) {
        assert_int_equal(sample_next(r.s, r.w, &c, &out, &e), STATUS_OK);
        assert_in_range(out.token, 0, 63);
    }
    allowed[0] = 0;
    allowed[2] = 2; /* token 129 alone */
    assert_int_equal(sample_next(r.s, r.w, &c, &out, &e), STATUS_OK);
    assert_int_equal(out.token, 129);
    allowed[2] = ~UINT64_C(3); /* bits behind the vocabulary mean nothing */
    assert_int_equal(sample_next(r.s, r.w, &c, &out, &e), STATUS_INVALID);
    drop(r);
}

/* The penalised logits, seen through greedy choices: of two tokens with known logits the better one wins. */
static void expect_greedy(rig r, float *logits, int token, float value, int other)
{
    logits[other] = nextafterf(value, -1000);
    assert_int_equal(next(r, logits, 0, -1).token, token);
    logits[other] = nextafterf(value, 1000);
    assert_int_equal(next(r, logits, 0, -1).token, other);
}

static void penalties(void **state)
{
    (void)state;
    enum { V = 50 };
    float logits[V];
    for (int i = 0; i < V; i++)
        logits[i] = -100;
    logits[1] = 8;
    sample_options o = SAMPLE_DEFAULTS;
    o.temperature = 0;
    o.presence_penalty = 0.5f;
    o.frequency_penalty = 0.25f;
    rig r = make(V, &o, 0);
    const int32_t prompt[] = {1, 1, 1, -5, 1000};
    sample_prompt(r.s, prompt, 5); /* the prompt does not count for these two */
    expect_greedy(r, logits, 1, 8, 2);
    for (int times = 1; times <= 4; times++) {
        sample_accept(r.s, 1);
        expect_greedy(r, logits, 1, 8 - 0.5f - 0.25f * (float)times, 2);
    }
    sample_accept(r.s, -1);
    sample_accept(r.s, V);
    drop(r);

    o = SAMPLE_DEFAULTS;
    o.temperature = 0;
    o.repetition_penalty = 2;
    o.penalty_window = 3;
    r = make(V, &o, 0);
    logits[2] = -100;
    expect_greedy(r, logits, 1, 8, 2);
    sample_prompt(r.s, prompt, 2);
    expect_greedy(r, logits, 1, 4, 2); /* once, however often it was seen */
    logits[1] = -3;
    expect_greedy(r, logits, 1, -6, 2); /* negative ones are multiplied */
    logits[1] = 8;
    sample_accept(r.s, 7);
    sample_accept(r.s, 8);
    expect_greedy(r, logits, 1, 4, 2); /* 1 7 8: still there */
    sample_accept(r.s, 9);
    expect_greedy(r, logits, 1, 8, 2); /* 7 8 9 */
    for (int i = 0; i < 1000; i++)     /* in and out again */
        sample_accept(r.s, i % 5 + 10);
    expect_greedy(r, logits, 1, 8, 2);
    sample_accept(r.s, 1);
    expect_greedy(r, logits, 1, 4, 2);
    drop(r);

    o.penalty_window = 0; /* all */
    r = make(V, &o, 0);
    sample_accept(r.s, 1);
    for (int i = 0; i < 1000; i++)
        sample_accept(r.s, i % 5 + 10);
    expect_greedy(r, logits, 1, 4, 2);
    drop(r);
}

/* ---- log-probabilities ------------------------------------------------------------------------------------------ */

static void logprobs(void **state)
{
    (void)state;
    enum { V = 5000 };
    static float logits[V];
    static double p[V];
    static ranked r[V];
    random_state = 3;
    for (int i = 0; i < V; i++) {
        logits[i] = 3 * normal();
        r[i] = (ranked){logits[i], i};
    }
    logits[100] = logits[200] = (float)(r[100].s = r[200].s = 15); /* equal ones */
    qsort(r, V, sizeof *r, compare_ranked);
    softmax(p, logits, V, 1);
    sample_options o = SAMPLE_DEFAULTS;
    o.temperature = 2; /* and everything else: they must not matter */
    o.top_k = 3000;
    o.top_p = 0.95f;
    o.frequency_penalty = 1;
    rig g = make(V, &o, 0);
    for (int top = 0; top <= SAMPLE_TOP_MAX; top++) {
        sample_result out = next(g, logits, top, top);
        sample_accept(g.s, out.token);
        assert_true(fabs(out.logprob - log(p[out.token])) < 1e-4);
        assert_int_equal(out.n_top, top);
        for (int i = 0; i < top; i++) {
            assert_int_equal(out.top[i].token, r[i].id);
            assert_true(fabs(out.top[i].logprob - log(p[r[i].id])) < 1e-4);
        }
    }
    drop(g);
    o = SAMPLE_DEFAULTS;
    g = make(3, &o, 0); /* fewer tokens than asked for */
    sample_result out = next(g, logits, 0, 20);
    assert_int_equal(out.n_top, 3);
    drop(g);
}

/* ---- determinism ------------------------------------------------------------------------------------------------ */

static void same_on_every_instruction_set(void **state)
{
    (void)state;
    enum { V = 32000 };
    static float logits[V];
    unsigned features = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        features |= KERNEL_CPU_AVX2;
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        features |= KERNEL_CPU_AVX512;
    if ((features & KERNEL_CPU_AVX512) && __builtin_cpu_supports("avx512vnni"))
        features |= KERNEL_CPU_AVX512_VNNI;
#endif
    random_state = 11;
    for (int i = 0; i < V; i++)
        logits[i] = 4 * normal();
    sample_options o = SAMPLE_DEFAULTS;
    o.temperature = 0.7f;
    for (int filters = 0; filters < 3; filters++) {
        o.top_p = filters ? 0.95f : 1;
        o.top_k = filters == 2 ? 64 : 0;
        rig g = make(V, &o, 0);
        sample_result expected[40];
        for (int i = 0; i < 40; i++)
            expected[i] = next(g, logits, i, 20);
        drop(g);
        for (int t = 1; kernel_table_at(t); t++) {
            const kernel_table *k = kernel_table_at(t);
            if (!kernel_runs(k, features))
                continue;
            rig other = make(V, &o, 0);
            sample_destroy(other.s);
            assert_int_equal(sample_create(&other.s, k, V, &o, 0, NULL), STATUS_OK);
            for (int i = 39; i >= 0; i--) { /* and in another order */
                sample_result got = next(other, logits, i, 20);
                assert_int_equal(got.token, expected[i].token);
                assert_true(got.logprob == expected[i].logprob);
                for (int n = 0; n < 20; n++)
                    assert_true(got.top[n].logprob == expected[i].top[n].logprob);
            }
            drop(other);
        }
    }
}

static void options_are_checked(void **state)
{
    (void)state;
    err e;
    sample_options good = SAMPLE_DEFAULTS;
    assert_int_equal(sample_options_check(&good, 10, &e), STATUS_OK);
    sample_bias out_of_range = {10, 1}, not_finite = {1, INFINITY};
    int32_t negative = -1;
    sample_options bad[12];
    for (size_t i = 0; i < BASE_COUNT(bad); i++)
        bad[i] = good;
    bad[0].temperature = -0.1f;
    bad[1].temperature = NAN;
    bad[2].top_p = 1.1f;
    bad[3].min_p = -1;
    bad[4].repetition_penalty = 0;
    bad[5].presence_penalty = 11;
    bad[6].frequency_penalty = -INFINITY;
    bad[7].top_k = -1;
    bad[8].n_bias = 1;
    bad[8].bias = &out_of_range;
    bad[9].n_bias = 1;
    bad[9].bias = &not_finite;
    bad[10].n_banned = 1;
    bad[10].banned = &negative;
    bad[11].penalty_window = -2;
    for (size_t i = 0; i < BASE_COUNT(bad); i++) {
        sample *s = NULL;
        assert_int_equal(sample_options_check(&bad[i], 10, &e), STATUS_INVALID);
        assert_int_equal(sample_create(&s, portable(), 10, &bad[i], 0, &e), STATUS_INVALID);
        assert_null(s);
    }
    assert_int_equal(sample_options_check(&bad[8], 0, &e), STATUS_OK); /* unknown vocabulary */
    sample_options zero = {0};
    assert_int_equal(sample_options_check(&zero, 10, &e), STATUS_INVALID); /* SAMPLE_DEFAULTS */
}

static void without_memory(void **state)
{
    (void)state;
    sample_options o = SAMPLE_DEFAULTS;
    int32_t banned = 1;
    o.repetition_penalty = 1.1f;
    o.penalty_window = 64;
    o.n_banned = 1;
    o.banned = &banned;
    for (uint64_t n = 1;; n++) {
        sample *s = NULL;
        base_fail_after(n);
        status result = sample_create(&s, portable(), 100, &o, 0, NULL);
        base_fail_after(0);
        if (result == STATUS_OK) {
            assert_true(n > 4);
            uint64_t before = base_allocations();
            float logits[100] = {0};
            rig r = {s, NULL};
            assert_int_equal(sample_scratch_create(&r.w, 100, NULL), STATUS_OK);
            before = base_allocations();
            for (int i = 0; i < 200; i++)
                sample_accept(s, next(r, logits, i, 5).token);
            assert_int_equal(base_allocations(), before); /* none on the token path */
            drop(r);
            break;
        }
        assert_int_equal(result, STATUS_NO_MEMORY);
        assert_null(s);
    }
    for (uint64_t n = 1; n < 100; n++) {
        sample_scratch *w = NULL;
        base_fail_after(n);
        status result = sample_scratch_create(&w, 1000, NULL);
        base_fail_after(0);
        sample_scratch_destroy(w);
        if (result == STATUS_OK) {
            assert_true(n > 5);
            return;
        }
        assert_int_equal(result, STATUS_NO_MEMORY);
    }
    fail_msg("never succeeded");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noise_is_gumbel),
        cmocka_unit_test(noise_is_frozen),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(neighbours_are_independent),
        cmocka_unit_test(filters_equal_the_reference),
        cmocka_unit_test(long_nuclei_are_exact),
        cmocka_unit_test(nucleus_membership),
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(top_k_of_equals_keeps_the_lowest_ids),
        cmocka_unit_test(hostile_logits),
        cmocka_unit_test(bias_and_bans),
        cmocka_unit_test(allowed_masks),
        cmocka_unit_test(penalties),
        cmocka_unit_test(logprobs),
        cmocka_unit_test(same_on_every_instruction_set),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
