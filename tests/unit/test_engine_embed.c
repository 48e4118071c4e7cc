/*
 * Embedding models against the float64 reference (tools/reference/reference_embed.py), through the engine: the exact class within 2e-3, the
 * serving class by its direction; and a vector is the same bits whatever company, step size, device or thread count it met.
 */
#include "engine/engine.h"
#include "model_run.h"

#include <jansson.h>
#include <math.h>

enum { TEXTS = 16, WIDTH = 256 };

typedef struct outcome {
    int n, done[TEXTS];
    float vectors[TEXTS][WIDTH];
    engine_reason reason[TEXTS];
    status code[TEXTS];
} outcome;

static void note(void *context, const engine_event *event)
{
    outcome *o = context;
    assert_true(event->id < TEXTS);
    if (event->kind == ENGINE_VECTOR) {
        assert_int_equal(o->done[event->id], 0);
        o->n = event->n_vector;
        assert_true(o->n <= WIDTH);
        memcpy(o->vectors[event->id], event->vector, sizeof(float) * (size_t)o->n);
    } else if (event->kind == ENGINE_DONE) {
        o->done[event->id]++;
        o->reason[event->id] = event->reason;
        o->code[event->id] = event->code;
    } else {
        assert_int_equal(event->kind, ENGINE_STARTED);
    }
}

typedef struct text {
    int32_t ids[512];
    int n;
    double want[WIDTH];
} text;

static int read_texts(text *out, const char *name, const char *kind, int at)
{
    char path[512];
    snprintf(path, sizeof path, "%s/embed/%s.json", TEST_DATA, name);
    json_t *j = json_load_file(path, 0, NULL), *one, *v;
    size_t i, k;
    assert_non_null(j);
    json_array_foreach(json_object_get(j, kind), i, one)
    {
        text *t = &out[at++];
        const json_t *ids = json_object_get(one, "ids"), *vector = json_object_get(one, "vector");
        t->n = (int)json_array_size(ids);
        assert_true(t->n <= 512 && json_array_size(vector) <= WIDTH);
        json_array_foreach(ids, k, v) t->ids[k] = (int32_t)json_integer_value(v);
        json_array_foreach(vector, k, v) t->want[k] = json_number_value(v);
    }
    json_decref(j);
    return at;
}

static model *load(const char *name, const model_options *o)
{
    char path[512];
    snprintf(path, sizeof path, "%s/embed/%s", TEST_DATA, name);
    return run_load(path, o);
}

/* All texts at once; every one ends well. */
static void embed(outcome *o, const char *name, const model_options *mo, const text *texts, int n)
{
    model *m = load(name, mo);
    engine *g;
    err e = {0};
    bool busy = true;
    engine_options eo = {0};
    *o = (outcome){0};
    must(engine_create(&g, m, &eo, note, o, &e), &e);
    for (int i = 0; i < n; i++) {
        engine_request r = {.id = (uint64_t)i,
                            .prompt = texts[i].ids,
                            .n_prompt = texts[i].n,
                            .sample = SAMPLE_DEFAULTS,
                            .top_logprobs = -1,
                            .embed = true};
        must(engine_submit(g, &r, &e), &e);
    }
    for (int guard = 0; busy; guard++) {
        assert_true(guard < 1000);
        must(engine_step(g, &busy, &e), &e);
    }
    engine_stats s;
    engine_get_stats(g, &s);
    assert_int_equal(s.live, 0);
    assert_int_equal(s.state_used_tokens, 0);
    for (int i = 0; i < n; i++) {
        assert_int_equal(o->done[i], 1);
        assert_int_equal(o->reason[i], ENGINE_STOPPED);
    }
    engine_destroy(g);
    model_destroy(m);
}

static const struct {
    const char *file, *expected;
    model_pooling pooling;
    bool both_ways;
} models[] = {
    {"bert-f32.gguf", "bert-f32", MODEL_POOLING_CLS, true},
    {"bert-f32-hf", "bert-f32", MODEL_POOLING_CLS, true},
    {"bert-q8_0.gguf", "bert-q8_0", MODEL_POOLING_MEAN, true},
    {"nomic-f16.gguf", "nomic-f16", MODEL_POOLING_MEAN, true},
    {"qwen3-last-q8_0.gguf", "qwen3-last-q8_0", MODEL_POOLING_LAST, false},
};

static void test_reference(void **state)
{
    (void)state;
    static text texts[TEXTS];
    static outcome o;
    for (size_t k = 0; k < BASE_COUNT(models); k++) {
        int n = read_texts(texts, models[k].expected, "texts", 0);
        n = read_texts(texts, models[k].expected, "long", n);
        for (int exact = 1; exact >= 0; exact--) {
            double worst = 0, least = 1;
            embed(&o, models[k].file, &(model_options){.n_threads = 1, .exact = exact != 0}, texts,
                  n);
            for (int i = 0; i < n; i++) {
                double cosine = 0, length = 0;
                for (int d = 0; d < o.n; d++) {
                    double v = (double)o.vectors[i][d];
                    worst = fmax(worst, fabs(v - texts[i].want[d]));
                    cosine += v * texts[i].want[d];
                    length += v * v;
                }
                assert_true(fabs(length - 1) < 1e-5);
                least = fmin(least, cosine);
            }
            printf("%-22s %-7s max |d| %.1e, least cosine %.6f\n", models[k].file,
                   exact ? "exact" : "serving", worst, least);
            assert_true(exact ? worst <= 2e-3 : least >= 0.999);
        }
    }
}

/* Alone, in company, in small steps, on both devices, with threads: the same bits. */
static void test_bits(void **state)
{
    (void)state;
    static text texts[TEXTS];
    static outcome whole, other;
    const model_options variants[] = {
        {.n_threads = 3},
        {.n_threads = 1, .max_tokens = 7},
        {.n_threads = 1, .device = "cpu_copy"},
        {.n_threads = 1, .isa = "portable"},
        {.n_threads = 1, .n_sequences = 2, .state_tokens = 320},
    };
    for (size_t k = 0; k < BASE_COUNT(models); k++) {
        int n = read_texts(texts, models[k].expected, "long", 0);
        embed(&whole, models[k].file, &(model_options){.n_threads = 1}, texts, n);
        for (size_t v = 0; v < BASE_COUNT(variants); v++) {
            embed(&other, models[k].file, &variants[v], texts, n);
            for (int i = 0; i < n; i++)
                assert_memory_equal(other.vectors[i], whole.vectors[i],
                                    sizeof(float) * (size_t)whole.n);
        }
        for (int i = 0; i < n; i++) {
            embed(&other, models[k].file, &(model_options){.n_threads = 1}, &texts[i], 1);
            assert_memory_equal(other.vectors[0], whole.vectors[i],
                                sizeof(float) * (size_t)whole.n);
        }
    }
}

static void test_cards(void **state)
{
    (void)state;
    for (size_t k = 0; k < BASE_COUNT(models); k++) {
        model *m = load(models[k].file, &(model_options){.n_threads = 1});
        assert_int_equal(model_get_card(m)->pooling, models[k].pooling);
        assert_int_equal(model_get_card(m)->both_ways, models[k].both_ways);
        assert_int_equal(model_n_logits(m), 0);
        assert_int_equal(model_row_width(m), model_get_card(m)->d_model);
        model_destroy(m);
    }
}

static void refuse(engine *g, const engine_request *r, status code, const char *word)
{
    err e = {0};
    assert_int_equal(engine_submit(g, r, &e), code);
    if (strstr(e.text, word) == NULL)
        fail_msg("'%s' does not say '%s'", e.text, word);
}

static void test_refusals(void **state)
{
    (void)state;
    static outcome o;
    int32_t ids[200] = {0};
    engine *g;
    err e = {0};
    engine_options eo = {0};
    engine_request r = {
        .prompt = ids, .n_prompt = 5, .sample = SAMPLE_DEFAULTS, .top_logprobs = -1};
    model *m = load("bert-f32.gguf", &(model_options){.n_threads = 1});
    must(engine_create(&g, m, &eo, note, &o, &e), &e);
    refuse(g, &r, STATUS_INVALID, "writes none");
    r.embed = true;
    r.n_choices = 2;
    refuse(g, &r, STATUS_INVALID, "choices");
    r.n_choices = 1;
    r.n_prompt = 97;
    refuse(g, &r, STATUS_TOO_LONG, "97");
    r.n_prompt = 96; /* whole context: nothing comes behind it */
    must(engine_submit(g, &r, &e), &e);
    engine_cancel(g, 0, -1);
    bool busy;
    must(engine_step(g, &busy, &e), &e);
    assert_int_equal(o.done[0], 1);
    assert_int_equal(o.reason[0], ENGINE_CANCELLED);
    engine_destroy(g);
    model_destroy(m);
    m = run_load(TEST_DATA "/models/tiny-q8_0.gguf",
                 &(model_options){.n_threads = 1, .context = 128});
    must(engine_create(&g, m, &eo, note, &o, &e), &e);
    refuse(g, &r, STATUS_INVALID, "no embeddings");
    engine_destroy(g);
    model_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_cards),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
