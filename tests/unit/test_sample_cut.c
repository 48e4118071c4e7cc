/*
 * Rows of logits in slices: with every option, forms, histories and ties, over random uneven borders with empty slices, the token and the
 * log-probabilities are those of the whole row, bit for bit; what is too much for parts is asked for whole; tokens ahead are as if they had been
 * accepted; and parts that nobody honest says are refused or do no harm.
 */
#include "os/os.h"
#include "sample/sample.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 20000, SLICES = 9, WORDS = 64 * 1024 };

static uint64_t random_state = 1;

static uint32_t pick(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % n);
}

static float normal(void)
{
    double u = ((double)pick(1 << 30) + 0.5) / (1 << 30), v = (double)pick(1 << 30) / (1 << 30);
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

static const kernel_table *kernels(uint32_t i)
{
    const kernel_table *best;
    assert_int_equal(kernel_select(&best, os_cpu_features(), NULL, NULL), STATUS_OK);
    return i % 2 ? best : kernel_table_at(0);
}

/* ---- one random row ------------------------------------------------------------------------------------------------ */

typedef struct row {
    int vocabulary, n_slices, n_bias, n_banned;
    int32_t borders[SLICES + 1];
    sample_options o;
    sample_bias bias[40];
    int32_t banned[40];
    sample_call call;
    float logits[MOST];
    uint64_t allowed[MOST / 64 + 1];
} row;

static void make_borders(row *r)
{
    int units = (r->vocabulary + 15) / 16;
    r->n_slices = 1 + (int)pick(SLICES);
    r->borders[0] = 0;
    for (int i = 1; i < r->n_slices; i++) { /* rising, with repetitions */
        int at = (int)pick((uint32_t)units + 1) * 16;
        int k = i;
        for (; k > 1 && r->borders[k - 1] > at; k--)
            r->borders[k] = r->borders[k - 1];
        r->borders[k] = BASE_MIN(at, r->vocabulary);
    }
    r->borders[r->n_slices] = r->vocabulary;
}

static void make_options(row *r)
{
    static const int ks[] = {0, 1, 2, 5, 40, 300, 1000};
    static const float ps[] = {0.999f, 0.95f, 0.9f, 0.5f, 0.01f, 0}, mins[] = {0.001f, 0.05f, 0.5f};
    sample_options *o = &r->o;
    *o = SAMPLE_DEFAULTS;
    o->seed = random_state;
    o->temperature = pick(5) ? 0.2f + 0.01f * (float)pick(200) : pick(2) ? 0 : 1;
    o->top_k = pick(2) ? ks[pick(BASE_COUNT(ks))] : 0;
    o->top_p = pick(2) ? ps[pick(BASE_COUNT(ps))] : 1;
    o->min_p = pick(3) ? 0 : mins[pick(BASE_COUNT(mins))];
    if (pick(3) == 0) {
        o->repetition_penalty = pick(2) ? 1.3f : 0.8f;
        o->penalty_window = pick(2) ? (int)pick(30) : 0;
    }
    if (pick(3) == 0) {
        o->presence_penalty = 0.5f;
        o->frequency_penalty = 0.25f;
    }
    o->n_bias = pick(3) ? 0 : (int)pick(40);
    o->n_banned = pick(3) ? 0 : (int)pick(40);
    for (int i = 0; i < o->n_bias; i++)
        r->bias[i] = (sample_bias){(int32_t)pick((uint32_t)r->vocabulary), 3 * normal()};
    for (int i = 0; i < o->n_banned; i++)
        r->banned[i] = (int32_t)pick((uint32_t)r->vocabulary);
    o->bias = r->bias;
    o->banned = r->banned;
}

static void make_row(row *r, uint32_t k)
{
    static const int sizes[] = {1, 15, 16, 17, 130, 1000, 4099, 20000};
    r->vocabulary = sizes[k % BASE_COUNT(sizes)];
    float spread = 0.05f + 0.05f * (float)pick(100);
    for (int i = 0; i < r->vocabulary; i++) {
        r->logits[i] = spread * normal();
        if (k % 5 == 0) /* many equal ones */
            r->logits[i] = roundf(r->logits[i]);
    }
    make_borders(r);
    make_options(r);
    int rare = 1 + (int)pick(50);
    for (size_t i = 0; i < BASE_COUNT(r->allowed); i++) {
        r->allowed[i] = 0;
        for (int bit = 0; bit < 64; bit++)
            r->allowed[i] |= (uint64_t)(pick((uint32_t)rare) == 0) << bit;
        if (pick(4) == 0)
            r->allowed[i] = pick(2) ? UINT64_MAX : 0;
    }
    r->call = (sample_call){.logits = r->logits,
                            .position = (int64_t)pick(1000),
                            .allowed = pick(3) ? NULL : r->allowed,
                            .top_logprobs = pick(2) ? -1 : (int)pick(SAMPLE_TOP_MAX + 1)};
}

/* ---- in slices ----------------------------------------------------------------------------------------------------- */

/* Edits and mask as a slice gets them: its own only. */
static void cut_want(sample_want *w, sample_edit *edits, uint64_t *allowed, const row *r, int i)
{
    int n = 0;
    for (int k = 0; k < w->n_edits; k++)
        if (w->edits[k].token >= r->borders[i] && w->edits[k].token < r->borders[i + 1])
            edits[n++] = w->edits[k];
    w->n_edits = n;
    w->edits = edits;
    if (!w->allowed)
        return;
    for (int k = r->borders[i] / 64; k <= r->borders[i + 1] / 64; k++)
        allowed[k - r->borders[i] / 64] = w->allowed[k];
    w->allowed = allowed;
}

/* Every slice with its own want, scratch and cut, which hears all rounds but the last; the last slice hears that too, or gets the whole row, and tells
 * another. */
static sample_cut_round in_slices(const row *r, const sample_want *want, sample_result *out,
                                  status *s, err *e)
{
    static sample_cut cuts[SLICES], told;
    static sample_want wants[SLICES];
    static sample_edit edits[SLICES][3 * MOST];
    static uint64_t allowed[SLICES][MOST / 64 + 1];
    static uint32_t words[WORDS], result[64];
    sample_scratch *w[SLICES];
    int n = r->n_slices;
    for (int i = 0; i < n; i++) {
        wants[i] = *want;
        cut_want(&wants[i], edits[i], allowed[i], r, i);
        sample_cut_begin(&cuts[i], &wants[i], r->borders, n);
        assert_int_equal(sample_scratch_create(&w[i], r->vocabulary, NULL), STATUS_OK);
    }
    sample_cut *last = &cuts[n - 1];
    while (last->round < SAMPLE_CUT_OVER) {
        sample_cut_round round = last->round;
        const uint32_t *parts[SLICES];
        size_t at = 0;
        for (int i = 0; i < n; i++) {
            assert_int_equal(cuts[i].round, round);
            parts[i] = words + at;
            assert_true(at + sample_cut_words(last, i) <= WORDS);
            sample_cut_look(&cuts[i], w[i], kernels((uint32_t)i), r->logits + r->borders[i], i,
                            words + at);
            at += sample_cut_words(last, i);
        }
        for (int i = round == SAMPLE_CUT_PICK ? n - 1 : 0; i < n; i++)
            assert_int_equal(sample_cut_hear(&cuts[i], w[i], parts, e), STATUS_OK);
    }
    sample_cut_round ended = last->round;
    if (ended == SAMPLE_CUT_WHOLE) {
        wants[n - 1] = *want;
        sample_cut_whole(last, w[n - 1], kernels(1), r->logits);
    }
    for (int i = 0; i < n; i++)
        sample_scratch_destroy(w[i]);
    assert_true(sample_cut_result_words(want) <= BASE_COUNT(result));
    sample_cut_put(last, result);
    sample_cut_begin(&told, want, r->borders, n);
    assert_int_equal(sample_cut_get(&told, result, e), STATUS_OK);
    *s = sample_cut_result(&told, out, e);
    return ended;
}

static void compare(const row *r, status a, const sample_result *x, const err *of_a, status b,
                    const sample_result *y, const err *of_b)
{
    assert_int_equal(a, b);
    if (a != STATUS_OK) {
        assert_string_equal(of_a->text, of_b->text);
        return;
    }
    bool same = x->token == y->token && x->n_top == y->n_top &&
                (r->call.top_logprobs < 0 || !memcmp(&x->logprob, &y->logprob, sizeof x->logprob));
    for (int i = 0; i < x->n_top && same; i++)
        same = x->top[i].token == y->top[i].token &&
               !memcmp(&x->top[i].logprob, &y->top[i].logprob, sizeof x->top[i].logprob);
    if (!same)
        fail_msg(
            "%d slices of %d: token %d (%a), expected %d (%a); temperature %g top_k %d top_p %g "
            "min_p %g",
            r->n_slices, r->vocabulary, y->token, (double)y->logprob, x->token, (double)x->logprob,
            (double)r->o.temperature, r->o.top_k, (double)r->o.top_p, (double)r->o.min_p);
}

static void slices_equal_the_whole(void **state)
{
    (void)state;
    static row r;
    int whole_ones = 0, refused = 0, by_p = 0;
    for (uint32_t k = 0; k < 6000; k++) {
        make_row(&r, k);
        if (k % 97 == 0)
            r.logits[pick((uint32_t)r.vocabulary)] = pick(2) ? NAN : INFINITY;
        sample *s;
        sample_scratch *w;
        sample_result a = {0}, b = {0};
        sample_want want;
        err of_a = {0}, of_b = {0};
        status result = STATUS_OK;
        assert_int_equal(sample_create(&s, kernels(k), r.vocabulary, &r.o, (int)pick(3), NULL),
                         STATUS_OK);
        assert_int_equal(sample_scratch_create(&w, r.vocabulary, NULL), STATUS_OK);
        for (int i = (int)pick(60); i > 0; i--) {
            int32_t id = (int32_t)pick((uint32_t)r.vocabulary);
            sample_prompt(s, &id, 1);
            if (pick(3) == 0)
                sample_accept(s, (int32_t)pick((uint32_t)r.vocabulary));
        }
        status expected = sample_next(s, w, &r.call, &a, &of_a);
        sample_describe(&want, s, &r.call, NULL, 0);
        whole_ones += in_slices(&r, &want, &b, &result, &of_b) == SAMPLE_CUT_WHOLE;
        compare(&r, expected, &a, &of_a, result, &b, &of_b);
        refused += expected != STATUS_OK;
        by_p += expected == STATUS_OK && r.o.top_p < 1 && r.o.top_p > 0 && r.o.top_k == 0;
        sample_destroy(s);
        sample_scratch_destroy(w);
    }
    printf("%d rows refused alike, %d brought together, %d by top-p\n", refused, whole_ones, by_p);
    assert_true(refused > 50 && whole_ones > 5 && whole_ones < 600 && by_p > 500);
}

static void scores_equal_the_whole(void **state)
{
    (void)state;
    static row r;
    for (uint32_t k = 0; k < 800; k++) {
        make_row(&r, k);
        sample_scratch *w;
        sample_result a = {0}, b = {0};
        err of_a = {0}, of_b = {0};
        status result = STATUS_OK;
        r.call.top_logprobs = (int)pick(SAMPLE_TOP_MAX + 1);
        sample_want want = {.scores = true,
                            .token = (int32_t)pick((uint32_t)r.vocabulary),
                            .temperature = 1,
                            .top_logprobs = r.call.top_logprobs};
        assert_int_equal(sample_scratch_create(&w, r.vocabulary, NULL), STATUS_OK);
        status expected =
            sample_score(w, kernels(k), r.logits, want.token, want.top_logprobs, &a, &of_a);
        assert_int_equal(in_slices(&r, &want, &b, &result, &of_b), SAMPLE_CUT_OVER);
        compare(&r, expected, &a, &of_a, result, &b, &of_b);
        sample_scratch_destroy(w);
    }
}

/* Logits that no sane model has, as far from zero as floats go: told or refused, in slices as in one. */
static void far_from_zero(void **state)
{
    (void)state;
    static const struct {
        float from, temperature;
        int top_logprobs;
        bool scores;
        status expected;
    } cases[] = {
        {-1e35f, 1, 3, true, STATUS_OK},
        {-3e38f, 1, 0, true, STATUS_OK},
        {-9e30f, 100, 3, false, STATUS_OK},
        {-1e35f, 1, 3, false, STATUS_INVALID}, /* as if all were excluded */
        {-3e38f, 2e-6f, -1, false, STATUS_INVALID},
        {1e30f, 100, 5, false, STATUS_OK},
        {1e31f, 1, -1, false, STATUS_CORRUPT},
        {3e38f, 2e-6f, -1, false, STATUS_CORRUPT},
        {3e38f, 2e-6f, 5, false, STATUS_CORRUPT},
    };
    static row r;
    for (size_t k = 0; k < BASE_COUNT(cases); k++)
        for (uint32_t round = 0; round < 8; round++) {
            sample *s;
            sample_scratch *w;
            sample_want want;
            sample_result a = {0}, b = {0};
            err of_a = {0}, of_b = {0};
            status whole, cut = STATUS_OK;
            make_row(&r, 4);
            for (int i = 0; i < r.vocabulary; i++)
                r.logits[i] = cases[k].from * (1 - 0.001f * (float)pick(100));
            r.o = SAMPLE_DEFAULTS;
            r.o.temperature = cases[k].temperature;
            r.o.top_p = round & 1 ? 0.9f : 1;
            r.o.top_k = round & 2 ? 10 : 0;
            r.call.allowed = NULL;
            r.call.top_logprobs = cases[k].top_logprobs;
            assert_int_equal(sample_create(&s, kernels(round), r.vocabulary, &r.o, 0, NULL),
                             STATUS_OK);
            assert_int_equal(sample_scratch_create(&w, r.vocabulary, NULL), STATUS_OK);
            sample_describe(&want, s, &r.call, NULL, 0);
            if (cases[k].scores) {
                want = (sample_want){.scores = true,
                                     .token = 7,
                                     .temperature = 1,
                                     .top_logprobs = r.call.top_logprobs};
                whole = sample_score(w, kernels(round), r.logits, 7, want.top_logprobs, &a, &of_a);
            } else {
                whole = sample_next(s, w, &r.call, &a, &of_a);
            }
            assert_int_equal(whole, cases[k].expected);
            (void)in_slices(&r, &want, &b, &cut, &of_b);
            compare(&r, whole, &a, &of_a, cut, &b, &of_b);
            assert_true(whole != STATUS_OK || r.call.top_logprobs < 0 ||
                        (a.logprob <= 0 && !isnan(a.logprob)));
            sample_destroy(s);
            sample_scratch_destroy(w);
        }
}

/* ---- tokens ahead -------------------------------------------------------------------------------------------------- */

static void ahead_is_as_accepted(void **state)
{
    (void)state;
    enum { V = 200 };
    float logits[V];
    for (uint32_t k = 0; k < 3000; k++) {
        sample_options o = SAMPLE_DEFAULTS;
        sample *s, *twin;
        sample_scratch *w;
        int32_t ahead[6];
        int n_ahead = (int)pick(7);
        o.seed = k;
        o.repetition_penalty = pick(3) ? 1.5f : 1;
        o.presence_penalty = 0.3f;
        o.frequency_penalty = 0.2f;
        o.penalty_window = pick(3) ? (int)pick(12) : 0;
        assert_int_equal(sample_create(&s, kernels(0), V, &o, 0, NULL), STATUS_OK);
        assert_int_equal(sample_create(&twin, kernels(0), V, &o, 0, NULL), STATUS_OK);
        assert_int_equal(sample_scratch_create(&w, V, NULL), STATUS_OK);
        for (int i = 0; i < V; i++)
            logits[i] = normal();
        for (int i = (int)pick(30); i > 0; i--) {
            int32_t id = (int32_t)pick(20);
            sample_accept(s, id);
            sample_accept(twin, id);
        }
        for (int i = 0; i < n_ahead; i++)
            ahead[i] = (int32_t)pick(20);
        const int32_t borders[] = {0, V};
        uint32_t words[64];
        const uint32_t *parts[] = {words};
        sample_result a, b;
        sample_call c = {.logits = logits, .position = k, .top_logprobs = -1};
        for (int round = 0; round < 2; round++) { /* before, and s is as it was afterwards */
            sample_want want;
            sample_cut cut;
            sample_describe(&want, s, &c, ahead, round ? 0 : n_ahead);
            sample_cut_begin(&cut, &want, borders, 1);
            sample_cut_look(&cut, w, kernels(1), logits, 0, words);
            assert_int_equal(sample_cut_hear(&cut, w, parts, NULL), STATUS_OK);
            assert_int_equal(sample_cut_result(&cut, &a, NULL), STATUS_OK);
            sample *other = round ? s : twin;
            for (int i = 0; i < n_ahead && round == 0; i++)
                sample_accept(twin, ahead[i]);
            assert_int_equal(sample_next(other, w, &c, &b, NULL), STATUS_OK);
            assert_int_equal(a.token, b.token);
        }
        sample_destroy(s);
        sample_destroy(twin);
        sample_scratch_destroy(w);
    }
}

/* ---- parts that cannot be ------------------------------------------------------------------------------------------ */

static void spoilt_parts(void **state)
{
    (void)state;
    static row r;
    static uint32_t words[WORDS];
    static const uint32_t values[] = {0,          1,          2,          0x7F800000, 0x7FC00000,
                                      0xFF800000, 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0x3F800000};
    int refused = 0, taken = 0;
    for (uint32_t k = 0; k < 20000; k++) {
        if (k % 20 == 0)
            make_row(&r, k / 20);
        sample *s;
        sample_scratch *w;
        sample_want want;
        sample_cut c;
        sample_result out;
        err e;
        status result = STATUS_OK;
        assert_int_equal(sample_create(&s, kernels(0), r.vocabulary, &r.o, 0, NULL), STATUS_OK);
        assert_int_equal(sample_scratch_create(&w, r.vocabulary, NULL), STATUS_OK);
        sample_describe(&want, s, &r.call, NULL, 0);
        sample_cut_begin(&c, &want, r.borders, r.n_slices);
        int rounds = 0;
        while (c.round < SAMPLE_CUT_OVER && result == STATUS_OK) {
            const uint32_t *parts[SLICES];
            size_t n = 0;
            for (int i = 0; i < c.n_slices; i++) {
                parts[i] = words + n;
                sample_cut_look(&c, w, kernels(0), r.logits + r.borders[i], i, words + n);
                n += sample_cut_words(&c, i);
            }
            for (int i = (int)pick(3); i > 0; i--)
                words[pick((uint32_t)n)] =
                    pick(2) ? values[pick(BASE_COUNT(values))] : pick(1 << 30);
            result = sample_cut_hear(&c, w, parts, &e);
            assert_true(++rounds < 8);
        }
        if (result == STATUS_OK && c.round == SAMPLE_CUT_OVER &&
            sample_cut_result(&c, &out, &e) == STATUS_OK) {
            assert_true(out.token >= 0 && out.token < r.vocabulary);
            taken++;
        }
        assert_true(result == STATUS_OK || result == STATUS_CORRUPT);
        refused += result != STATUS_OK;
        sample_destroy(s);
        sample_scratch_destroy(w);
    }
    printf("%d refused, %d taken\n", refused, taken);
    assert_true(refused > 3000 && taken > 3000);
}

static void spoilt_results(void **state)
{
    (void)state;
    const int32_t borders[] = {0, 64, 100};
    uint32_t words[64];
    sample_want want = {.temperature = 1, .top_p = 1, .top_logprobs = 5};
    int taken = 0;
    for (int k = 0; k < 5000; k++) {
        sample_cut c;
        sample_result out;
        sample_cut_begin(&c, &want, borders, 2);
        c.round = SAMPLE_CUT_OVER;
        c.result = (sample_result){.token = 7, .n_top = 3};
        sample_cut_put(&c, words);
        for (int i = (int)pick(3); i > 0; i--)
            words[pick((uint32_t)sample_cut_result_words(&want))] = pick(2) ? pick(200) : ~pick(3);
        if (sample_cut_get(&c, words, NULL) != STATUS_OK || c.round != SAMPLE_CUT_OVER ||
            sample_cut_result(&c, &out, NULL) != STATUS_OK)
            continue;
        taken++;
        assert_true(out.token >= 0 && out.token < 100 && out.n_top >= 0 && out.n_top <= 5);
        assert_false(isnan(out.logprob));
        for (int i = 0; i < out.n_top; i++)
            assert_true(out.top[i].token >= 0 && out.top[i].token < 100 &&
                        !isnan(out.top[i].logprob));
    }
    assert_true(taken > 500 && taken < 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_equal_the_whole), cmocka_unit_test(scores_equal_the_whole),
        cmocka_unit_test(ahead_is_as_accepted),   cmocka_unit_test(spoilt_parts),
        cmocka_unit_test(spoilt_results),         cmocka_unit_test(far_from_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
