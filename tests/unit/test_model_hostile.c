/* Files that lie, machines that are full, batches that are wrong: every one ends with an error that says what, and nothing is held. */
#include "model_make.h"
#include "model_run.h"
#include "os/os.h"

static const make_shape small = {"llama", 2, 64, 4, 2, 16, 96, 131, 0, "Q8_0", false, 1};

/* Opens changed bytes as a model; the status of the first that fails. */
static status try_load(const char *bytes, size_t n, const model_options *o, err *e)
{
    file_model *f;
    model *m;
    model_card *card;
    status s = file_open_memory(&f, bytes, n, "made", e);
    if (s != STATUS_OK)
        return s;
    s = model_card_read(&card, f, e);
    if (s == STATUS_OK)
        model_card_destroy(card);
    err again = {0};
    status loaded = model_load(&m, f, o, NULL, s == STATUS_OK ? e : &again);
    if (loaded == STATUS_OK)
        model_destroy(m);
    if (s != STATUS_OK)
        assert_int_equal(loaded, s);
    file_close(f);
    return loaded;
}

static void expect(const char *bytes, size_t n, status code, const char *part)
{
    err e = {0};
    model_options o = {.n_threads = 1, .context = 128};
    status s = try_load(bytes, n, &o, &e);
    if (s != code || strstr(e.text, part) == NULL)
        fail_msg("expected %s with \"%s\", got %s: %s", status_name(code), part, status_name(s),
                 e.text);
}

/* The place behind a key's name and type, where its u32 lies. */
static char *value_of(char *bytes, size_t n, const char *key)
{
    size_t k = strlen(key);
    for (size_t i = 0; i + k + 8 < n; i++)
        if (memcmp(bytes + i, key, k) == 0)
            return bytes + i + k + 4;
    fail_msg("no key %s", key);
    return NULL;
}

static void keys_that_lie(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint32_t value;
        status code;
        const char *part;
    } lies[] = {
        {"llama.attention.head_count", 0, STATUS_CORRUPT, "head_count"},
        {"llama.attention.head_count_kv", 3, STATUS_CORRUPT, "4 attention heads cannot share 3"},
        {"llama.attention.head_count_kv", 0, STATUS_CORRUPT, "head_count_kv is 0"},
        {"llama.attention.head_count_kv", 4, STATUS_CORRUPT, "attn_k.weight is 32 x 64"},
        {"llama.block_count", 0, STATUS_CORRUPT, "block_count is 0"},
        {"llama.block_count", 0xffffffffu, STATUS_CORRUPT, "block_count"},
        {"llama.block_count", 1024, STATUS_CORRUPT, "1024 layers"},
        {"llama.block_count", 3, STATUS_CORRUPT, "blk.2.attn_norm.weight is missing"},
        {"llama.block_count", 1, STATUS_OK, ""},
        {"llama.embedding_length", 128, STATUS_CORRUPT, "expected"},
        {"llama.embedding_length", 0x7fffffff, STATUS_CORRUPT, "embedding_length"},
        {"llama.attention.key_length", 12, STATUS_UNSUPPORTED, "multiple of 8"},
        {"llama.attention.key_length", 0, STATUS_CORRUPT, "key_length"},
        {"llama.attention.key_length", 8, STATUS_CORRUPT, "attn_q.weight"},
        {"llama.feed_forward_length", 64, STATUS_CORRUPT, "ffn_gate.weight is 96 x 64"},
    };
    for (size_t i = 0; i < BASE_COUNT(lies); i++) {
        size_t n;
        char *bytes = make_model(&small, &n);
        memcpy(value_of(bytes, n, lies[i].key), &lies[i].value, 4);
        if (lies[i].code == STATUS_OK) {
            err e = {0};
            model_options o = {.n_threads = 1, .context = 128};
            must(try_load(bytes, n, &o, &e), &e);
        } else {
            expect(bytes, n, lies[i].code, lies[i].part);
        }
        base_free(bytes);
    }
}

static void rename_all(char *bytes, size_t n, const char *from, const char *to)
{
    size_t k = strlen(from);
    assert_int_equal(k, strlen(to));
    for (size_t i = 0; i + k <= n; i++)
        if (memcmp(bytes + i, from, k) == 0)
            memcpy(bytes + i, to, k);
}

static void names_that_lie(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        status code;
        const char *part;
    } lies[] = {
        {"llama", "lhama", STATUS_UNSUPPORTED, "known are llama"},
        {"blk.1.attn_q.weight", "blk.1.attn_x.weight", STATUS_CORRUPT,
         "blk.1.attn_q.weight is missing"},
        {"token_embd.weight", "token_embx.weight", STATUS_CORRUPT, "embedding is missing"},
        {"output_norm.weight", "output_morn.weight", STATUS_CORRUPT,
         "output_norm.weight is missing"},
        {"llama.embedding_length", "llama.embedding_lentgh", STATUS_CORRUPT,
         "embedding_length is missing"},
    };
    for (size_t i = 0; i < BASE_COUNT(lies); i++) {
        size_t n;
        char *bytes = make_model(&small, &n);
        rename_all(bytes, n, lies[i].from, lies[i].to);
        expect(bytes, n, lies[i].code, lies[i].part);
        base_free(bytes);
    }
    make_shape decay = small;
    decay.architecture = "shoal-decay";
    size_t n;
    char *bytes = make_model(&decay, &n);
    expect(bytes, n, STATUS_UNSUPPORTED, "shoal-decay"); /* reserved for tests */
    model_admit_test_families(true);
    rename_all(bytes, n, "blk.0.decay.weight", "blk.0.beads.weight");
    expect(bytes, n, STATUS_CORRUPT, "blk.0.decay.weight is missing");
    rename_all(bytes, n, "blk.0.beads.weight", "blk.0.decay.weight");
    rename_all(bytes, n, "blk.0.attn_norm.weight", "blk.1.attn_norn.weight");
    expect(bytes, n, STATUS_CORRUPT, "attn_norm.weight is missing");
    model_admit_test_families(false);
    base_free(bytes);
}

/* A tensor of a layer that the family does not read. */
static void tensor_without_use(void **state)
{
    (void)state;
    size_t n;
    char *bytes = make_model(&small, &n);
    uint32_t one = 1;
    memcpy(value_of(bytes, n, "llama.block_count"), &one, 4);
    rename_all(bytes, n, "blk.1.ffn_norm.weight", "blk.0.sub_norm.weight");
    expect(bytes, n, STATUS_UNSUPPORTED, "no use for the tensor blk.0.sub_norm.weight");
    base_free(bytes);
}

static void does_not_fit(void **state)
{
    (void)state;
    size_t n;
    char *bytes = make_model(&small, &n);
    err e = {0};
    model_options o = {.n_threads = 1, .context = 4096, .memory_limit = 1 << 20};
    assert_int_equal(try_load(bytes, n, &o, &e), STATUS_NO_MEMORY);
    assert_non_null(strstr(e.text, "needs "));
    assert_non_null(strstr(e.text, "free are 1.0 MiB"));
    file_model *f;
    model_need need;
    must(file_open_memory(&f, bytes, n, "made", &e), &e);
    must(model_needs(&need, f, &o, &e), &e);
    assert_true(need.weight_bytes > 60000 && need.state_bytes >= 4096 * 2 * 2 * 2 * 16 * 2 &&
                need.scratch_bytes > 0);
    uint64_t all = need.weight_bytes + need.state_bytes + need.scratch_bytes;
    o.memory_limit = all;
    must(try_load(bytes, n, &o, &e), &e);
    o.memory_limit = all - 1;
    assert_int_equal(try_load(bytes, n, &o, &e), STATUS_NO_MEMORY);
    static const char *const bad[] = {"gpu", "CPU", ""};
    for (size_t i = 0; i < BASE_COUNT(bad); i++) {
        model_options wrong = {.device = bad[i]};
        assert_int_equal(try_load(bytes, n, &wrong, &e), STATUS_INVALID);
    }
    model_options wrong = {.isa = "z80"};
    assert_int_not_equal(try_load(bytes, n, &wrong, &e), STATUS_OK);
    wrong = (model_options){
        .shard = {.cut = true, .tensor_ranks = 2, .layer_end = 1, .head_end = 1000}};
    assert_int_equal(try_load(bytes, n, &wrong, &e), STATUS_INVALID);
    file_close(f);
    base_free(bytes);
}

static bool stop_half_way(void *context, uint64_t done, uint64_t total)
{
    uint64_t *last = context;
    assert_true(done > *last && done <= total);
    *last = done;
    return done < total / 2;
}

static void cancelled(void **state)
{
    (void)state;
    size_t n;
    char *bytes = make_model(&small, &n);
    file_model *f;
    model *m;
    err e = {0};
    must(file_open_memory(&f, bytes, n, "made", &e), &e);
    uint64_t last = 0;
    model_progress p = {stop_half_way, &last};
    model_options o = {.n_threads = 1, .context = 128};
    assert_int_equal(model_load(&m, f, &o, &p, &e), STATUS_CANCELLED);
    assert_true(last > 0);
    file_close(f);
    base_free(bytes);
}

static void failing_allocations(void **state)
{
    (void)state;
    size_t n;
    char *bytes = make_model(&small, &n);
    static const char *const devices[] = {"cpu", "cpu_copy"};
    for (int d = 0; d < 2; d++) {
        model_options o = {.n_threads = 2, .context = 128, .device = devices[d]};
        int failed = 0;
        for (uint64_t i = 1; i < 10000; i++) {
            file_model *f;
            model *m = NULL;
            err e = {0};
            must(file_open_memory(&f, bytes, n, "made", &e), &e);
            uint64_t before = base_allocations();
            base_fail_after(i);
            status s = model_load(&m, f, &o, NULL, &e);
            base_fail_after(0);
            file_close(f);
            if (s == STATUS_OK) {
                bool all = base_allocations() - before < i;
                model_destroy(m);
                if (all)
                    break;
                continue; /* a failure that could be borne */
            }
            assert_int_equal(s, STATUS_NO_MEMORY);
            assert_null(m);
            failed++;
        }
        assert_true(failed > 20);
    }
    base_free(bytes);
}

/* ---- wrong batches ------------------------------------------------------------------------------------------------- */

typedef struct batch_case {
    const char *part;
    int n_tokens, run_tokens, n_runs, n_outputs, n_pages;
    int64_t position;
    int32_t id, page, output;
    status code;
} batch_case;

static void wrong_batches(void **state)
{
    (void)state;
    model_options o = {
        .n_threads = 1, .context = 128, .max_tokens = 8, .max_outputs = 4, .n_sequences = 2};
    model *m = run_load_made(&small, &o);
    err e = {0};
    int pages_in_pool = model_class(m, 0)->n_pages;
    const batch_case cases[] = {
        {"", 2, 2, 1, 1, 1, 0, 5, 0, 1, STATUS_OK},
        {"tokens", 0, 0, 1, 0, 1, 0, 5, 0, 0, STATUS_INVALID},
        {"9 tokens", 9, 9, 1, 1, 1, 0, 5, 0, 0, STATUS_INVALID},
        {"the runs have 2 tokens, the batch 3", 3, 2, 1, 1, 1, 0, 5, 0, 0, STATUS_INVALID},
        {"runs", 2, 2, 3, 1, 1, 0, 5, 0, 0, STATUS_INVALID},
        {"outputs", 2, 2, 1, 5, 1, 0, 5, 0, 0, STATUS_INVALID},
        {"output 0 is row 2", 2, 2, 1, 1, 1, 0, 5, 0, 2, STATUS_INVALID},
        {"output 0 is row -1", 2, 2, 1, 1, 1, 0, 5, 0, -1, STATUS_INVALID},
        {"id 131", 2, 2, 1, 1, 1, 0, 131, 0, 0, STATUS_INVALID},
        {"id -1", 2, 2, 1, 1, 1, 0, -1, 0, 0, STATUS_INVALID},
        {"is page -1", 2, 2, 1, 1, 1, 0, 5, -1, 0, STATUS_INVALID},
        {"expected 0 to", 2, 2, 1, 1, 1, 0, 5, pages_in_pool, 0, STATUS_INVALID},
        {"1 pages", 2, 2, 1, 1, 1, 63, 5, 0, 0, STATUS_INVALID},
        {"position -1", 2, 2, 1, 1, 1, -1, 5, 0, 0, STATUS_INVALID},
        {"the context is 128", 2, 2, 1, 1, 2, 127, 5, 0, 0, STATUS_TOO_LONG},
        {"the context is 128", 2, 2, 1, 1, 2, INT64_MAX, 5, 0, 0, STATUS_TOO_LONG},
    };
    float *logits = malloc(131 * sizeof(float));
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        const batch_case *c = &cases[i];
        int32_t ids[16], pages[4] = {c->page, 1, 2, 3}, outputs[8];
        for (int k = 0; k < 16; k++)
            ids[k] = c->id;
        for (int k = 0; k < 8; k++)
            outputs[k] = c->output + k;
        model_run runs[3];
        for (int k = 0; k < 3; k++)
            runs[k] = (model_run){.n_tokens = c->run_tokens,
                                  .position = c->position,
                                  .pages = {pages},
                                  .n_pages = {c->n_pages}};
        model_batch b = {c->n_tokens, ids, c->n_runs, runs, c->n_outputs, outputs};
        err_clear(&e);
        status s = model_step(m, &b, logits, &e);
        if (s != c->code || strstr(e.text, c->part) == NULL)
            fail_msg("case %zu: %s: %s", i, status_name(s), e.text);
    }
    static const model_copy bad[] = {{-1, 0}, {0, 1 << 20}};
    assert_int_equal(model_copy_state(m, 0, bad, 1, &e), STATUS_INVALID);
    assert_int_equal(model_copy_state(m, 0, bad + 1, 1, &e), STATUS_INVALID);
    assert_int_equal(model_copy_state(m, 1, bad, 0, &e), STATUS_INVALID);
    free(logits);
    model_destroy(m);
}

/* Weights so large that sums leave their range: said, not hidden, and the model works on. */
static void sums_out_of_range(void **state)
{
    (void)state;
    make_shape s = small;
    s.type = "F32";
    size_t n;
    char *bytes = make_model(&s, &n);
    file_model *f;
    model *m;
    err e = {0};
    must(file_open_memory(&f, bytes, n, "made", &e), &e);
    const file_tensor *t = file_find_tensor(f, "blk.1.ffn_down.weight");
    float *down = (float *)(bytes + ((const char *)t->data - bytes));
    for (uint64_t i = 0; i < t->bytes / sizeof(float); i++)
        down[i] = 1e18f;
    model_options o = {.n_threads = 2, .context = 128};
    must(model_load(&m, f, &o, NULL, &e), &e);
    int32_t id = 3, page = 0, row = 0;
    model_run r = {.n_tokens = 1, .pages = {&page}, .n_pages = {1}};
    model_batch b = {1, &id, 1, &r, 1, &row};
    float logits[131];
    assert_int_equal(model_step(m, &b, logits, &e), STATUS_INTERNAL);
    assert_non_null(strstr(e.text, "exact sum"));
    file_close(f);
    model_destroy(m);
    base_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_that_lie),      cmocka_unit_test(names_that_lie),
        cmocka_unit_test(tensor_without_use), cmocka_unit_test(does_not_fit),
        cmocka_unit_test(cancelled),          cmocka_unit_test(failing_allocations),
        cmocka_unit_test(wrong_batches),      cmocka_unit_test(sums_out_of_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
