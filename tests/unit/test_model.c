/* The families against the fixtures' float64 references: the exact class within 2e-3, the serving class within what their README allows. */
#include "model_run.h"

#include <jansson.h>
#include <math.h>

typedef struct yardstick {
    double mean_abs, mean_kl, top1;
} yardstick;

typedef struct measured {
    double max_abs, sum_abs, sum_kl;
    int64_t n_logits, n_positions, n_top1, n_top;
    double max_last;
} measured;

static json_t *load_json(const char *path)
{
    json_error_t error;
    json_t *j = json_load_file(path, 0, &error);
    if (j == NULL)
        fail_msg("%s: line %d: %s", path, error.line, error.text);
    return j;
}

static int read_ids(const json_t *array, int32_t *out, int capacity)
{
    int n = (int)json_array_size(array);
    assert_true(n <= capacity);
    for (int i = 0; i < n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(array, (size_t)i));
    return n;
}

/* log of the sum of exp of n logits. */
static double log_sum(const float *x, int64_t n)
{
    double max = x[0], sum = 0.0;
    for (int64_t i = 1; i < n; i++)
        max = fmax(max, x[i]);
    for (int64_t i = 0; i < n; i++)
        sum += exp(x[i] - max);
    return max + log(sum);
}

static void compare_prompt(measured *r, const json_t *prompt, const float *logits, int n, int64_t V)
{
    const json_t *last = json_object_get(prompt, "last_logits");
    for (int64_t i = 0; i < V; i++) {
        double d = fabs(json_number_value(json_array_get(last, (size_t)i)) -
                        (double)logits[(n - 1) * V + i]);
        assert_false(isnan(d));
        r->max_last = fmax(r->max_last, d);
        r->sum_abs += d;
        r->n_logits++;
    }
    for (int t = 0; t < n; t++) {
        const json_t *ids = json_array_get(json_object_get(prompt, "top_ids"), (size_t)t);
        const json_t *logprobs = json_array_get(json_object_get(prompt, "top_logprobs"), (size_t)t);
        const float *row = logits + t * V;
        double sum = log_sum(row, V);
        int64_t best = 0;
        for (int64_t i = 1; i < V; i++)
            best = row[i] > row[best] ? i : best;
        r->n_top1 += best == json_integer_value(json_array_get(ids, 0));
        r->n_positions++;
        for (size_t k = 0; k < json_array_size(ids); k++) {
            double p = json_number_value(json_array_get(logprobs, k));
            double q = row[json_integer_value(json_array_get(ids, k))] - sum;
            r->max_abs = fmax(r->max_abs, fabs(p - q));
            r->sum_kl += exp(p) * (p - q);
            r->n_top++;
        }
    }
}

/* The greedy continuation, compared up to the first step whose margin is small. */
static void compare_greedy(model *m, run_pool *pool, run_sequence *s, const json_t *prompt,
                           const float *last)
{
    int64_t V = model_get_card(m)->n_vocab;
    const json_t *greedy = json_object_get(prompt, "greedy"),
                 *margins = json_object_get(prompt, "greedy_margin");
    float *row = malloc((size_t)V * sizeof(*row));
    memcpy(row, last, (size_t)V * sizeof(*row));
    for (size_t i = 0; i < json_array_size(greedy); i++) {
        if (json_number_value(json_array_get(margins, i)) < 0.01)
            break;
        int32_t best = 0;
        for (int32_t k = 1; k < V; k++)
            best = row[k] > row[best] ? k : best;
        assert_int_equal(best, json_integer_value(json_array_get(greedy, i)));
        run_feed(m, pool, s, &best, 1, 1, row);
    }
    free(row);
}

static measured measure(const char *path, const json_t *expected, bool exact)
{
    model_options o = {
        .exact = exact, .context = 512, .state_tokens = 8192, .max_tokens = 64, .max_outputs = 64};
    model *m = run_load(path, &o);
    int64_t V = model_get_card(m)->n_vocab;
    run_pool pool = {0};
    measured r = {0};
    const json_t *prompts = json_object_get(expected, "prompts");
    for (size_t i = 0; i < json_array_size(prompts); i++) {
        const json_t *prompt = json_array_get(prompts, i);
        int32_t ids[1024];
        int n = read_ids(json_object_get(prompt, "ids"), ids, 1024);
        float *logits = malloc((size_t)n * (size_t)V * sizeof(*logits));
        run_sequence s;
        run_sequence_init(&s, &pool);
        run_feed(m, &pool, &s, ids, n, 64, logits);
        compare_prompt(&r, prompt, logits, n, V);
        if (exact)
            compare_greedy(m, &pool, &s, prompt, logits + (n - 1) * V);
        free(logits);
    }
    model_destroy(m);
    return r;
}

static void check_model(const char *root, const char *file, const char *expected_name)
{
    char path[1024], json_path[1024];
    snprintf(path, sizeof(path), "%s/models/%s", root, file);
    snprintf(json_path, sizeof(json_path), "%s/models/expected/%s.json", root, expected_name);
    json_t *expected = load_json(json_path);
    measured exact = measure(path, expected, true);
    printf("%-28s exact: max |d| %.2e (last rows), %.2e (top)\n", file, exact.max_last,
           exact.max_abs);
    assert_true(exact.max_last <= 2e-3);
    assert_true(exact.max_abs <= 2e-3);
    measured serving = measure(path, expected, false);
    double mean = serving.sum_abs / (double)serving.n_logits,
           kl = serving.sum_kl / (double)serving.n_positions;
    double top1 = (double)serving.n_top1 / (double)serving.n_positions;
    const json_t *y = json_object_get(expected, "llamacpp_vs_reference");
    double y_mean = json_number_value(json_object_get(y, "mean_abs_diff"));
    double y_kl = json_number_value(json_object_get(y, "mean_kl"));
    double y_top1 = json_number_value(json_object_get(y, "top1_agreement"));
    printf("%-28s serving: mean |d| %.4f (llama.cpp %.4f), KL %.5f (%.5f), top-1 %.3f (%.3f)\n",
           file, mean, y_mean, kl, y_kl, top1, y_top1);
    bool floats =
        strstr(file, "F32") != NULL || strstr(file, "F16") != NULL || strstr(file, ".gguf") == NULL;
    if (floats) { /* f32 activations: only keys and values are rounded, to f16 */
        assert_true(serving.max_last <= 0.05 && mean <= 5e-3);
    } else {
        assert_true(mean <= 1.5 * y_mean);
        assert_true(kl <= 2.0 * y_kl + 0.005);
        assert_true(top1 >= y_top1 - 0.06);
    }
    json_decref(expected);
}

static void fixtures(void **state)
{
    (void)state;
    const char *root = getenv("SHOAL_FIXTURES");
    if (root == NULL) {
        printf("skipped: model fixtures (SHOAL_FIXTURES is unset)\n");
        skip();
    }
    static const char *const files[][2] = {
        {"llama/llama-F32.gguf", "llama-F32"},
        {"llama/llama-F16.gguf", "llama-F16"},
        {"llama/llama-BF16.gguf", "llama-BF16"},
        {"llama/llama-Q8_0.gguf", "llama-Q8_0"},
        {"llama/llama-Q4_0.gguf", "llama-Q4_0"},
        {"llama-k/llama-k-Q4_K_M.gguf", "llama-k-Q4_K_M"},
        {"llama-k/llama-k-Q6_K.gguf", "llama-k-Q6_K"},
        {"llama-k/llama-k-Q5_K.gguf", "llama-k-Q5_K"},
        {"llama", "llama-hf"},
        {"qwen2/qwen2-F32.gguf", "qwen2-F32"},
        {"qwen2/qwen2-Q8_0.gguf", "qwen2-Q8_0"},
        {"qwen2", "qwen2-hf"},
        {"qwen3/qwen3-F32.gguf", "qwen3-F32"},
        {"qwen3/qwen3-Q8_0.gguf", "qwen3-Q8_0"},
        {"qwen3/qwen3-Q4_0.gguf", "qwen3-Q4_0"},
        {"qwen3", "qwen3-hf"},
        {"gemma3/gemma3-F32.gguf", "gemma3-F32"},
        {"gemma3/gemma3-Q8_0.gguf", "gemma3-Q8_0"},
        {"gemma3/gemma3-Q4_0.gguf", "gemma3-Q4_0"},
        {"gemma3", "gemma3-hf"},
    };
    for (size_t i = 0; i < BASE_COUNT(files); i++)
        check_model(root, files[i][0], files[i][1]);
}

/* Our own models: "top" holds pairs for every position. */
static void check_data_model(const char *name, const char *expected_name)
{
    char path[1024];
    snprintf(path, sizeof(path), "%s/models/%s.json", TEST_DATA, expected_name);
    json_t *expected = load_json(path);
    snprintf(path, sizeof(path), "%s/models/%s", TEST_DATA, name);
    model_options o = {
        .exact = true, .context = 512, .state_tokens = 4096, .max_tokens = 64, .max_outputs = 64};
    model *m = run_load(path, &o);
    int64_t V = model_get_card(m)->n_vocab;
    assert_int_equal(V, json_integer_value(json_object_get(expected, "vocabulary")));
    run_pool pool = {0};
    double worst = 0.0;
    const json_t *prompts = json_object_get(expected, "prompts");
    assert_true(json_array_size(prompts) > 0);
    for (size_t i = 0; i < json_array_size(prompts); i++) {
        const json_t *prompt = json_array_get(prompts, i);
        const json_t *tops = json_object_get(prompt, "top"),
                     *last = json_object_get(prompt, "last_logits");
        int32_t ids[1024];
        int n = read_ids(json_object_get(prompt, "ids"), ids, 1024);
        float *logits = malloc((size_t)n * (size_t)V * sizeof(*logits));
        run_sequence s;
        run_sequence_init(&s, &pool);
        run_feed(m, &pool, &s, ids, n, 17, logits);
        for (int t = 0; t < n; t++) {
            double sum = log_sum(logits + t * V, V);
            const json_t *top = json_array_get(tops, (size_t)t);
            for (size_t k = 0; k < json_array_size(top); k++) {
                int64_t id = json_integer_value(json_array_get(json_array_get(top, k), 0));
                double p = json_number_value(json_array_get(json_array_get(top, k), 1));
                worst = fmax(worst, fabs(p - ((double)logits[t * V + id] - sum)));
            }
        }
        for (size_t k = 0; k < json_array_size(last); k++)
            worst = fmax(worst, fabs(json_number_value(json_array_get(last, k)) -
                                     (double)logits[(n - 1) * V + (int64_t)k]));
        compare_greedy(m, &pool, &s, prompt, logits + (n - 1) * V);
        free(logits);
    }
    printf("%-28s exact: max |d| %.2e\n", name, worst);
    assert_true(worst <= 2e-3);
    model_destroy(m);
    json_decref(expected);
}

static void data_models(void **state)
{
    (void)state;
    static const char *const names[][2] = {
        {"tiny-q8_0.gguf", "tiny-q8_0"},     {"h28-4-f32.gguf", "h28-4-f32"},
        {"h24-8-q4_0.gguf", "h24-8-q4_0"},   {"f2880-q4_0.gguf", "f2880-q4_0"},
        {"v32003-q4_0.gguf", "v32003-q4_0"}, {"h14-2-q4_k.gguf", "h14-2-q4_k"},
        {"h16-4-q6_k.gguf", "h16-4-q6_k"},   {"h14-2-bf16.gguf", "h14-2-bf16"},
        {"h24-8-f16.gguf", "h24-8-f16"},     {"h24-8-f16-hf", "h24-8-f16"},
    };
    for (size_t i = 0; i < BASE_COUNT(names); i++)
        check_data_model(names[i][0], names[i][1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_models),
        cmocka_unit_test(fixtures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
