/*
 * The contract at the level of models: the same bits whatever the chunking, the company in a batch, the threads, the ISA, the device, the
 * pages; windows that free their pages; state of constant size that is forked, cut back and replayed.
 */
#include "kernel/kernel.h"
#include "model_make.h"
#include "model_run.h"
#include "os/os.h"

enum { PROMPT = 150 };

/* One way to run a prompt. Zeroes: cpu, best ISA, one thread, chunks of 64, no strangers, pages in order. */
typedef struct way {
    const char *name, *device, *isa;
    int threads, chunk, strangers, stride;
    bool exact;
} way;

typedef struct source {
    const char *name;
    const char *path; /* a file, or NULL: made from shape */
    make_shape shape;
} source;

static model *load(const source *s, const way *w)
{
    model_options o = {
        .device = w->device,
        .isa = w->isa,
        .n_threads = w->threads > 0 ? w->threads : 1,
        .exact = w->exact,
        .context = 512,
        .state_tokens = 8192,
        .n_sequences = 12,
        .max_tokens = 160,
        .max_outputs = 160,
    };
    return s->path ? run_load(s->path, &o) : run_load_made(&s->shape, &o);
}

static void random_ids(int32_t *ids, int n, int64_t V, uint64_t seed)
{
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)(hash_u64((uint64_t)i, seed) % (uint64_t)V);
}

/* The prompt in chunks, each step beside a chunk or a decode token of every stranger. */
static void feed_with_strangers(model *m, run_pool *pool, run_sequence *s, const int32_t *ids,
                                int n, const way *w, float *logits)
{
    enum { MOST = 8 };
    int64_t V = model_get_card(m)->n_vocab;
    run_sequence others[MOST];
    for (int i = 0; i < w->strangers; i++)
        run_sequence_init(&others[i], pool);
    for (int at = 0, round = 0; at < n; round++) {
        int k = BASE_MIN(w->chunk, n - at), rows = 0, n_runs = 0;
        model_run runs[MOST + 1];
        int32_t batch_ids[512], outputs[512];
        for (int i = 0; i <= w->strangers; i++) {
            bool ours = i == w->strangers / 2;
            run_sequence *q = ours ? s : &others[i < w->strangers / 2 ? i : i - 1];
            int tokens = ours ? k : 1 + (i + round) % 5;
            if (q->position + tokens > 500)
                continue;
            runs[n_runs++] = run_of(m, pool, q, tokens);
            if (ours)
                memcpy(batch_ids + rows, ids + at, (size_t)k * sizeof(*ids));
            else
                random_ids(batch_ids + rows, tokens, V, (uint64_t)(i * 1000 + round));
            for (int j = 0; ours && j < k; j++)
                outputs[j] = rows + j;
            rows += tokens;
            q->position += tokens;
        }
        model_batch b = {rows, batch_ids, n_runs, runs, k, outputs};
        err e = {0};
        must(model_step(m, &b, logits + at * V, &e), &e);
        at += k;
    }
}

static float *run_way(const source *s, const way *w, size_t *out_n)
{
    model *m = load(s, w);
    int64_t V = model_get_card(m)->n_vocab;
    int32_t ids[PROMPT];
    random_ids(ids, PROMPT, V, 77);
    float *logits = malloc((size_t)PROMPT * (size_t)V * sizeof(*logits));
    run_pool pool = {.stride = w->stride};
    run_sequence q;
    run_sequence_init(&q, &pool);
    way full = *w;
    full.chunk = w->chunk > 0 ? w->chunk : 64;
    feed_with_strangers(m, &pool, &q, ids, PROMPT, &full, logits);
    model_destroy(m);
    *out_n = (size_t)PROMPT * (size_t)V;
    return logits;
}

static void compare(const source *s, const way *w, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof(*a)) != 0)
            fail_msg("%s, %s: row %zu: %.9g, expected %.9g", s->name, w->name, i / (n / PROMPT),
                     (double)b[i], (double)a[i]);
}

static void all_ways(const source *s)
{
    way ways[32] = {
        {.name = "portable", .isa = "portable"},
        {.name = "chunk 1", .chunk = 1},
        {.name = "chunk 7", .chunk = 7},
        {.name = "all at once", .chunk = PROMPT},
        {.name = "3 strangers", .chunk = 23, .strangers = 3},
        {.name = "7 strangers", .chunk = 5, .strangers = 7},
        {.name = "2 threads", .threads = 2, .chunk = 33},
        {.name = "3 threads", .threads = 3, .chunk = 64},
        {.name = "scattered pages", .stride = 7},
        {.name = "cpu_copy", .device = "cpu_copy"},
        {.name = "cpu_copy, 2 threads, strangers",
         .device = "cpu_copy",
         .threads = 2,
         .chunk = 9,
         .strangers = 2},
    };
    int n_ways = 11;
    for (int i = 1; kernel_table_at(i) != NULL; i++)
        if (kernel_runs(kernel_table_at(i), os_cpu_features()))
            ways[n_ways++] = (way){
                .name = kernel_table_at(i)->name, .isa = kernel_table_at(i)->name, .chunk = 40};
    size_t n;
    float *expected = run_way(s, &ways[0], &n);
    for (int i = 1; i < n_ways; i++) {
        float *got = run_way(s, &ways[i], &n);
        compare(s, &ways[i], expected, got, n);
        free(got);
    }
    free(expected);
    printf("%-24s %d ways, the same %zu logits\n", s->name, n_ways, n);
}

static void data_models(void **state)
{
    (void)state;
    static const source sources[] = {
        {.name = "tiny-q8_0", .path = TEST_DATA "/models/tiny-q8_0.gguf"},
        {.name = "h28-4-f32", .path = TEST_DATA "/models/h28-4-f32.gguf"},
        {.name = "h24-8-q4_0", .path = TEST_DATA "/models/h24-8-q4_0.gguf"},
        {.name = "f2880-q4_0", .path = TEST_DATA "/models/f2880-q4_0.gguf"},
        {.name = "h14-2-q4_k", .path = TEST_DATA "/models/h14-2-q4_k.gguf"},
        {.name = "h16-4-q6_k", .path = TEST_DATA "/models/h16-4-q6_k.gguf"},
        {.name = "h14-2-bf16", .path = TEST_DATA "/models/h14-2-bf16.gguf"},
        {.name = "h24-8-f16", .path = TEST_DATA "/models/h24-8-f16.gguf"},
    };
    for (size_t i = 0; i < BASE_COUNT(sources); i++)
        all_ways(&sources[i]);
}

static void made_models(void **state)
{
    (void)state;
    static const source sources[] = {
        {.name = "40/8 Q4_0", .shape = {"llama", 2, 64, 40, 8, 16, 96, 331, 0, "Q4_0", false, 1}},
        {.name = "28/4 F32", .shape = {"llama", 2, 96, 28, 4, 16, 72, 203, 0, "F32", true, 2}},
        {.name = "windows and decay, Q8_0",
         .shape = {"shoal-decay", 4, 64, 4, 2, 16, 96, 131, 20, "Q8_0", false, 3}},
        {.name = "windows and decay, F32",
         .shape = {"shoal-decay", 3, 48, 6, 3, 8, 40, 97, 70, "F32", true, 4}},
    };
    model_admit_test_families(true);
    for (size_t i = 0; i < BASE_COUNT(sources); i++)
        all_ways(&sources[i]);
    model_admit_test_families(false);
}

/* Phi-3 is the same computation as Qwen2 without biases, from fused tensors. */
static void fused_tensors(void **state)
{
    (void)state;
    static const source sources[] = {
        {.name = "split", .shape = {"qwen2", 2, 64, 6, 2, 16, 96, 101, 0, "Q8_0", false, 11}},
        {.name = "fused", .shape = {"phi3", 2, 64, 6, 2, 16, 96, 101, 0, "Q8_0", false, 11}},
    };
    way w = {.name = "fused"};
    size_t n;
    float *split = run_way(&sources[0], &w, &n), *fused = run_way(&sources[1], &w, &n);
    compare(&sources[1], &w, split, fused, n);
    free(split);
    free(fused);
}

/* ---- exact is one answer too --------------------------------------------------------------------------------------- */

static void exact_class(void **state)
{
    (void)state;
    static const source s = {.name = "tiny-q8_0", .path = TEST_DATA "/models/tiny-q8_0.gguf"};
    way a = {.name = "exact", .exact = true},
        b = {.name = "exact, chunk 7", .exact = true, .chunk = 7, .threads = 2};
    size_t n;
    float *x = run_way(&s, &a, &n), *y = run_way(&s, &b, &n);
    compare(&s, &b, x, y, n);
    free(x);
    free(y);
}

/* ---- state: windows, forks, cuts ----------------------------------------------------------------------------------- */

static const source hybrid = {
    .name = "hybrid", .shape = {"shoal-decay", 4, 64, 4, 2, 16, 96, 131, 20, "Q8_0", false, 5}};

static int class_of_kind(const model *m, model_state_kind kind)
{
    for (int i = 0; i < model_n_classes(m); i++)
        if (model_class(m, i)->kind == kind)
            return i;
    fail_msg("no such class");
    return -1;
}

/* Pages behind the window are freed and filled by somebody else: nothing changes. */
static void window_frees_pages(void **state)
{
    (void)state;
    model_admit_test_families(true);
    way w = {.name = "freed"};
    model *m = load(&hybrid, &w);
    int64_t V = model_get_card(m)->n_vocab;
    int32_t ids[2 * PROMPT];
    random_ids(ids, 2 * PROMPT, V, 5);
    float *expected = malloc(2 * PROMPT * (size_t)V * sizeof(float)),
          *got = malloc((size_t)V * sizeof(float));
    run_pool pool = {0};
    run_sequence a, b, other;
    run_sequence_init(&a, &pool);
    run_sequence_init(&b, &pool);
    run_sequence_init(&other, &pool);
    run_feed(m, &pool, &a, ids, 2 * PROMPT, 64, expected);
    int c = class_of_kind(m, MODEL_STATE_WINDOWED);
    assert_int_equal(model_class(m, c)->window, 20);
    int freed = 0;
    for (int i = 0; i < 2 * PROMPT; i++) {
        int64_t first = b.position - model_class(m, c)->window + 1;
        for (int p = 0; p < b.n_pages[c]; p++) {
            if (b.pages[c][p] < 0 || (int64_t)(p + 1) * 64 > first)
                continue;
            /* The freed page now belongs to the stranger, who writes over it. */
            memset(&other, 0, sizeof(other));
            other.slot = 7;
            other.pages[c][0] = b.pages[c][p];
            other.n_pages[c] = 1;
            b.pages[c][p] = -1;
            freed++;
            float *junk = malloc(30 * (size_t)V * sizeof(float));
            run_feed(m, &pool, &other, ids + 40, 30, 30, junk);
            free(junk);
        }
        run_feed(m, &pool, &b, ids + i, 1, 1, got);
        assert_memory_equal(got, expected + i * V, (size_t)V * sizeof(float));
    }
    assert_int_equal(freed, 4);
    free(expected);
    free(got);
    model_destroy(m);
    model_admit_test_families(false);
}

/* A fork copies the partial pages and the slot; both branches go on as if alone. */
static void fork_and_cut_back(void **state)
{
    (void)state;
    model_admit_test_families(true);
    way w = {.name = "fork"};
    model *m = load(&hybrid, &w);
    int64_t V = model_get_card(m)->n_vocab;
    size_t row = (size_t)V * sizeof(float);
    int32_t ids[PROMPT], branch[PROMPT];
    random_ids(ids, PROMPT, V, 6);
    memcpy(branch, ids, sizeof(ids));
    random_ids(branch + 90, PROMPT - 90, V, 99);
    float *straight = malloc(PROMPT * row), *other = malloc(PROMPT * row),
          *got = malloc(PROMPT * row);
    run_pool pool = {0};
    run_sequence a, b, c, d;
    run_sequence_init(&a, &pool);
    run_sequence_init(&b, &pool);
    run_feed(m, &pool, &a, ids, PROMPT, 64, straight);
    run_feed(m, &pool, &b, branch, PROMPT, 64, other);

    /* c runs 90 tokens and is forked to d there: position 90 is inside the second page. */
    run_sequence_init(&c, &pool);
    run_feed(m, &pool, &c, ids, 90, 64, got);
    d = c;
    d.slot = pool.next_slot++;
    err e = {0};
    for (int k = 0; k < model_n_classes(m); k++) {
        model_copy copy = {c.slot, d.slot};
        if (model_class(m, k)->page_tokens > 0) {
            copy.from = c.pages[k][1];
            copy.to = d.pages[k][1] = pool.next[k]++;
        }
        must(model_copy_state(m, k, &copy, 1, &e), &e);
    }
    run_feed(m, &pool, &c, ids + 90, PROMPT - 90, 7, got);
    assert_memory_equal(got, straight + 90 * V, (PROMPT - 90) * row);
    run_feed(m, &pool, &d, branch + 90, PROMPT - 90, 64, got);
    assert_memory_equal(got, other + 90 * V, (PROMPT - 90) * row);

    /* Cut back to 100: the slot comes from a snapshot at 64 and positions 64 to 99 are replayed. */
    run_sequence_init(&c, &pool);
    int slots = class_of_kind(m, MODEL_STATE_CONSTANT);
    run_feed(m, &pool, &c, ids, 64, 64, got);
    model_copy snapshot = {c.slot, pool.next_slot++};
    must(model_copy_state(m, slots, &snapshot, 1, &e), &e);
    run_feed(m, &pool, &c, ids + 64, 70, 64, got);
    model_copy restore = {snapshot.to, c.slot};
    must(model_copy_state(m, slots, &restore, 1, &e), &e);
    c.position = 64;
    run_feed(m, &pool, &c, branch + 64, PROMPT - 64, 10, got);
    assert_memory_equal(got, other + 64 * V, (PROMPT - 64) * row);

    /* Position 0 starts afresh whatever the slot holds. */
    c.position = 0;
    run_feed(m, &pool, &c, ids, PROMPT, 64, got);
    assert_memory_equal(got, straight, PROMPT * row);
    free(straight);
    free(other);
    free(got);
    model_destroy(m);
    model_admit_test_families(false);
}

/* Only some rows are wanted, or none: what is given stays the same. */
static void some_outputs(void **state)
{
    (void)state;
    static const source s = {.name = "tiny-q8_0", .path = TEST_DATA "/models/tiny-q8_0.gguf"};
    way w = {.name = "outputs"};
    model *m = load(&s, &w);
    int64_t V = model_get_card(m)->n_vocab;
    int32_t ids[60];
    random_ids(ids, 60, V, 8);
    float *all = malloc(60 * (size_t)V * sizeof(float)),
          *some = malloc(3 * (size_t)V * sizeof(float));
    run_pool pool = {0};
    run_sequence a, b;
    run_sequence_init(&a, &pool);
    run_sequence_init(&b, &pool);
    run_feed(m, &pool, &a, ids, 60, 60, all);
    model_run r = run_of(m, &pool, &b, 40);
    model_batch batch = {.n_tokens = 40, .ids = ids, .n_runs = 1, .runs = &r};
    err e = {0};
    must(model_step(m, &batch, NULL, &e), &e);
    b.position = 40;
    r = run_of(m, &pool, &b, 20);
    static const int32_t rows[] = {0, 7, 19};
    batch = (model_batch){20, ids + 40, 1, &r, 3, rows};
    uint64_t before = base_allocations();
    must(model_step(m, &batch, some, &e), &e);
    assert_int_equal(base_allocations(), before); /* the token path takes no memory */
    for (int i = 0; i < 3; i++)
        assert_memory_equal(some + i * V, all + (40 + rows[i]) * V, (size_t)V * sizeof(float));
    free(all);
    free(some);
    model_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_models),        cmocka_unit_test(made_models),
        cmocka_unit_test(fused_tensors),      cmocka_unit_test(exact_class),
        cmocka_unit_test(window_frees_pages), cmocka_unit_test(fork_and_cut_back),
        cmocka_unit_test(some_outputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
