/*
 * A cut model is the uncut one, bit for bit: tensor cuts with even and uneven shares, more ranks than K/V heads, ranks that hold nothing of a
 * kind, stages, and both at once, each with all ranks doing all rows and with rows divided among them. Ranks are threads that exchange through memory; sums add in order of arrival, so an order that
 * matters would show.
 */
#include "model_make.h"
#include "model_ranks.h"

static void all_cuts(const char *name, const char *bytes, size_t n_bytes, bool exact)
{
    subject s;
    int done = 0;
    subject_open(&s, name, bytes, n_bytes, exact);
    model_options o = s.o;
    for (size_t i = 1; i < BASE_COUNT(model_cuts); i++) {
        const cut *c = &model_cuts[i];
        if (!cut_fits(c, s.card))
            continue;
        for (int way = 0; way < 4; way++) {
            o.device = way & 1 ? "cpu_copy" : "cpu";
            o.exchange.divides = way & 2 ? divides : NULL;
            subject_compare(&s, run_cut(c, &s, &o, NULL, NULL), "whole", c->name, way);
        }
        done++;
    }
    printf("%-28s %d cuts, the same bits (units: %d heads, %d columns)\n", name, done,
           (int)s.units.heads, (int)s.units.ffn);
    subject_close(&s);
}

static void made_models(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        make_shape shape;
    } models[] = {
        {"8/2 Q4_0", {"llama", 4, 64, 8, 2, 32, 512, 331, 0, "Q4_0", false, 1}},
        {"40/8 Q8_0, tied", {"llama", 4, 96, 40, 8, 16, 640, 203, 0, "Q8_0", true, 2}},
        {"28/4 F32", {"llama", 3, 64, 28, 4, 16, 96, 97, 0, "F32", true, 3}},
        {"14/2 Q4_K", {"llama", 4, 256, 16, 2, 16, 512, 131, 0, "Q4_K", false, 4}},
        {"14/2 Q6_K", {"llama", 4, 256, 16, 2, 16, 512, 131, 0, "Q6_K", true, 5}},
        {"F 2880 BF16", {"llama", 3, 64, 24, 8, 32, 2880, 131, 0, "BF16", false, 6}},
        {"windows and decay", {"shoal-decay", 4, 64, 8, 2, 32, 256, 131, 20, "Q8_0", false, 7}},
    };
    model_admit_test_families(true);
    for (size_t i = 0; i < BASE_COUNT(models); i++) {
        size_t n;
        char *bytes = make_model(&models[i].shape, &n);
        all_cuts(models[i].name, bytes, n, false);
        if (i < 2)
            all_cuts(models[i].name, bytes, n, true);
        base_free(bytes);
    }
    model_admit_test_families(false);
}

static void files(void **state)
{
    (void)state;
    static const char *const ours[] = {"tiny-q8_0",  "h28-4-f32",  "h24-8-q4_0", "f2880-q4_0",
                                       "h14-2-q4_k", "h16-4-q6_k", "h14-2-bf16", "h24-8-f16"};
    static const char *const outside[] = {"llama/llama-Q4_0", "llama-k/llama-k-Q4_K_M",
                                          "qwen2/qwen2-Q8_0", "qwen3/qwen3-Q4_0",
                                          "gemma3/gemma3-Q8_0"};
    const char *fixtures = getenv("SHOAL_FIXTURES");
    for (size_t i = 0; i < BASE_COUNT(ours) + BASE_COUNT(outside); i++) {
        bool own = i < BASE_COUNT(ours);
        char path[1024], *bytes;
        size_t n;
        err e = {0};
        if (!own && !fixtures) {
            printf("skipped: cuts of the outside models: SHOAL_FIXTURES names no folder\n");
            return;
        }
        snprintf(path, sizeof path, "%s/models/%s.gguf", own ? TEST_DATA : fixtures,
                 own ? ours[i] : outside[i - BASE_COUNT(ours)]);
        must(os_read_file(&bytes, &n, path, 64 << 20, &e), &e);
        all_cuts(path + strlen(path) - BASE_MIN(strlen(path), (size_t)24), bytes, n, false);
        base_free(bytes);
    }
}

static void refused(void **state)
{
    (void)state;
    static const make_shape shape = {"llama", 2, 64, 8, 2, 16, 512, 131, 0, "Q8_0", false, 1};
    static const model_shard bad[] = {
        {.cut = true,
         .tensor_ranks = 2,
         .layer_end = 2,
         .head_end = 3,
         .ffn_end = 512,
         .vocab_end = 131},
        {.cut = true,
         .tensor_ranks = 2,
         .layer_end = 2,
         .head_end = 4,
         .ffn_end = 40,
         .vocab_end = 131},
        {.cut = true,
         .tensor_ranks = 2,
         .layer_end = 2,
         .head_end = 4,
         .ffn_end = 512,
         .vocab_end = 17},
        {.cut = true,
         .tensor_ranks = 2,
         .layer_end = 3,
         .head_end = 8,
         .ffn_end = 512,
         .vocab_end = 131},
        {.cut = true,
         .tensor_ranks = 2,
         .layer_begin = 1,
         .layer_end = 1,
         .head_end = 8,
         .ffn_end = 512,
         .vocab_end = 131},
        {.cut = true,
         .tensor_ranks = 0,
         .layer_end = 2,
         .head_end = 8,
         .ffn_end = 512,
         .vocab_end = 131},
        {.cut = true,
         .tensor_ranks = 2,
         .layer_end = 2,
         .head_begin = 4,
         .head_end = 2,
         .ffn_end = 512,
         .vocab_end = 131},
    };
    size_t n;
    char *bytes = make_model(&shape, &n);
    for (size_t i = 0; i < BASE_COUNT(bad); i++) {
        file_model *f;
        model *m;
        err e = {0};
        model_options o = {.n_threads = 1, .shard = bad[i], .context = 64};
        must(file_open_memory(&f, bytes, n, "made", &e), &e);
        assert_int_equal(model_load(&m, f, &o, NULL, &e), STATUS_INVALID);
        file_close(f);
    }
    base_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(made_models), cmocka_unit_test(files),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
