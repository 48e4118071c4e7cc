/*
 * Every tokenizer vector of the outside fixtures (SHOAL_FIXTURES/tokenizers) against GGUF
 * vocabularies, and the tokenizer.json of the fixture models against their GGUF twins. Skipped,
 * saying so, when SHOAL_FIXTURES is unset.
 */
#include "text/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>

#include "text_gguf.h"

static const char *fixtures;
static text_scratch *scratch;

static char *path_of(const char *format, const char *a, const char *b)
{
    static char path[1024];
    char name[512];
    snprintf(name, sizeof name, format, a, b);
    snprintf(path, sizeof path, "%s/%s", fixtures, name);
    return path;
}

static void print_ids(const char *label, const int32_t *ids, size_t n)
{
    fprintf(stderr, "  %s:", label);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, " %d", (int)ids[i]);
    fprintf(stderr, "\n");
}

/* Encodes with and without the scratch and compares; returns the number of differences (0 or 1). */
static int check(const text_tokenizer *t, const char *name, str text, int flags,
                 const int32_t *want, size_t n)
{
    int bad = 0;
    for (int round = 0; round < 3; round++) { /* cold cache, warm cache, no cache */
        text_ids ids = {0};
        err e;
        if (text_encode(t, round < 2 ? scratch : NULL, text.data, text.length, flags, &ids, &e) !=
            STATUS_OK)
            fail_msg("%s", e.text);
        if (ids.n != n || (n && memcmp(ids.ids, want, n * sizeof *want) != 0)) {
            fprintf(stderr, "%s (round %d): \"%.*s\"\n", name, round, (int)text.length, text.data);
            print_ids("want", want, n);
            print_ids("got ", ids.ids, ids.n);
            bad = 1;
        }
        text_ids_fini(&ids);
    }
    return bad;
}

static void check_decode(const text_tokenizer *t, const char *name, str text, const int32_t *ids,
                         size_t n)
{
    sb out = {0};
    err e;
    assert_int_equal(text_decode(t, ids, n, TEXT_AT_START, &out, &e), STATUS_OK);
    if (out.length != text.length || memcmp(out.data ? out.data : "", text.data, text.length) != 0)
        fail_msg("%s: \"%.*s\" decodes to \"%s\"", name, (int)text.length, text.data,
                 out.data ? out.data : "");
    sb_fini(&out);
}

static size_t read_ids(const json_t *j, int32_t *out, size_t capacity)
{
    size_t n = json_array_size(j), i;
    json_t *one;
    assert_true(n <= capacity);
    json_array_foreach(j, i, one) out[i] = (int32_t)json_integer_value(one);
    return n;
}

static int run_jsonl(const text_tokenizer *t, const char *file, const char *key, size_t *total)
{
    size_t n = 0;
    char *all = gguf_read_file(path_of("tokenizers/%s%s", file, ""), &n);
    int bad = 0;
    assert_non_null(all);
    for (char *line = all; *line;) {
        char *end = strchr(line, '\n');
        size_t length = end ? (size_t)(end - line) : strlen(line);
        json_t *j = json_loadb(line, length, JSON_ALLOW_NUL, NULL);
        assert_non_null(j);
        static int32_t want[65536];
        size_t n_want = read_ids(json_object_get(j, key), want, BASE_COUNT(want));
        const json_t *text = json_object_get(j, "text");
        str s = {json_string_value(text), json_string_length(text)};
        int flags = (json_is_true(json_object_get(j, "parse_special")) ? TEXT_PARSE_SPECIAL : 0) |
                    (json_is_true(json_object_get(j, "add_special")) ? TEXT_ADD_SPECIAL : 0);
        bad += check(t, file, s, flags, want, n_want);
        if (!flags)
            check_decode(t, file, s, want, n_want);
        ++*total;
        json_decref(j);
        line += length + (end != NULL);
    }
    base_free(all);
    return bad;
}

static int run_inp(const text_tokenizer *t, const char *name, size_t *total)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    size_t n = 0, n_out = 0;
    char *all = gguf_read_file(path_of("tokenizers/ggml-vocab-%s.gguf%s", name, ".inp"), &n);
    char *outs = gguf_read_file(path_of("tokenizers/ggml-vocab-%s.gguf%s", name, ".out"), &n_out);
    int bad = 0;
    assert_non_null(all);
    assert_non_null(outs);
    char *line = outs;
    for (char *text = all; text;) {
        char *end = strstr(text, separator);
        size_t length = end ? (size_t)(end - text) : (size_t)(all + n - text);
        int32_t want[1024];
        size_t n_want = 0;
        char *stop = strchr(line, '\n');
        if (!stop)
            break;
        *stop = '\0';
        for (char *p = line; *p;) {
            want[n_want++] = (int32_t)strtol(p, &p, 10);
            p += strspn(p, " ");
        }
        line = stop + 1;
        bad += check(t, name, (str){text, length}, 0, want, n_want);
        ++*total;
        text = end ? end + strlen(separator) : NULL;
    }
    base_free(all);
    base_free(outs);
    return bad;
}

static text_tokenizer *load(const char *name, const char *pre)
{
    gguf_vocab g;
    text_tokenizer *t = NULL;
    err e;
    assert_true(gguf_vocab_load(&g, path_of("tokenizers/ggml-vocab-%s%s", name, ".gguf")));
    if (pre)
        g.vocab.pre = str_from(pre);
    if (text_tokenizer_create(&t, &g.vocab, &e) != STATUS_OK)
        fail_msg("%s: %s", name, e.text);
    gguf_vocab_free(&g);
    return t;
}

static void test_vectors(void **state)
{
    static const char *const names[] = {"llama-bpe", "qwen2", "deepseek-llm", "llama-spm", "gpt-2"};
    size_t total = 0;
    int bad = 0;
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        text_tokenizer *t = load(names[i], NULL);
        char file[64];
        bad += run_inp(t, names[i], &total);
        snprintf(file, sizeof file, "%s.extra.jsonl", names[i]);
        bad += run_jsonl(t, file, "ids", &total);
        text_tokenizer_destroy(t);
    }
    printf("%zu vectors of 5 vocabularies\n", total);
    assert_true(total > 500);
    assert_int_equal(bad, 0);
}

static void test_pre_vectors(void **state)
{
    static const char *const names[] = {"deepseek-v3", "kimi-k2",    "gpt-4o",
                                        "glm4",        "minimax-m2", "qwen2"};
    size_t total = 0;
    int bad = 0;
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        text_tokenizer *t = load("llama-bpe", names[i]);
        char file[64];
        snprintf(file, sizeof file, "pre-%s.extra.jsonl", names[i]);
        bad += run_jsonl(t, file, "ids", &total);
        if (!strcmp(names[i], "kimi-k2"))
            bad += run_jsonl(t, "pre-kimi-k2.divergent.jsonl", "ids_original_regex", &total);
        text_tokenizer_destroy(t);
    }
    printf("%zu vectors of 6 pre-tokenisers\n", total);
    assert_int_equal(bad, 0);
}

/* The two forms of the fixture models must encode alike: all texts of the vectors through both. */
static void test_json_twins(void **state)
{
    static const char *const twins[][2] = {
        {"llama", "llama-F32.gguf"},          {"qwen2", "qwen2-F32.gguf"},
        {"qwen3", "qwen3-F32.gguf"},          {"gemma3", "gemma3-F32.gguf"},
        {"kimi-k2", "kimi-k2-F32.gguf"},      {"deepseek-v3", "deepseek-v3-F32.gguf"},
        {"glm4moe", "glm4moe-F32.gguf"},      {"minimax-m2", "minimax-m2-F32.gguf"},
        {"gpt-oss", "gpt-oss-MXFP4-F32.gguf"}};
    size_t n = 0, total = 0;
    (void)state;
    char *texts = gguf_read_file(path_of("tokenizers/%s%s", "llama-bpe.extra.jsonl", ""), &n);
    assert_non_null(texts);
    for (size_t k = 0; k < BASE_COUNT(twins); k++) {
        gguf_vocab g;
        text_tokenizer *a = NULL, *b = NULL;
        err e;
        size_t n_json = 0, n_config = 0;
        assert_true(gguf_vocab_load(&g, path_of("models/%s/%s", twins[k][0], twins[k][1])));
        if (text_tokenizer_create(&a, &g.vocab, &e) != STATUS_OK)
            fail_msg("%s: %s", twins[k][1], e.text);
        char *json =
            gguf_read_file(path_of("models/%s/%s", twins[k][0], "tokenizer.json"), &n_json);
        char *config = gguf_read_file(path_of("models/%s/%s", twins[k][0], "tokenizer_config.json"),
                                      &n_config);
        assert_non_null(json);
        assert_non_null(config);
        if (text_tokenizer_from_json(&b, (str){json, n_json}, (str){config, n_config}, &e) !=
            STATUS_OK)
            fail_msg("%s: %s", twins[k][0], e.text);
        assert_int_equal(text_special_id(a, TEXT_BOS), text_special_id(b, TEXT_BOS));
        assert_int_equal(text_special_id(a, TEXT_EOS), text_special_id(b, TEXT_EOS));
        assert_int_equal(text_adds_bos(a), text_adds_bos(b));
        for (const char *line = texts; *line;) {
            const char *end = strchr(line, '\n');
            json_t *j = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL);
            const json_t *text = json_object_get(j, "text");
            str s = {json_string_value(text), json_string_length(text)};
            for (int flags = 0; flags < 4; flags++) {
                text_ids ids = {0};
                assert_int_equal(text_encode(a, NULL, s.data, s.length, flags, &ids, &e),
                                 STATUS_OK);
                assert_int_equal(check(b, twins[k][0], s, flags, ids.ids, ids.n), 0);
                text_ids_fini(&ids);
                total++;
            }
            json_decref(j);
            line = end + 1;
        }
        base_free(json);
        base_free(config);
        gguf_vocab_free(&g);
        text_tokenizer_destroy(a);
        text_tokenizer_destroy(b);
    }
    base_free(texts);
    printf("%zu encodings equal between GGUF and tokenizer.json\n", total);
}

/* Expected ids of whole prompts, from the fixture models. */
static void test_prompts(void **state)
{
    static const char *const names[][2] = {{"llama", "llama-F32"},
                                           {"qwen2", "qwen2-F32"},
                                           {"qwen3", "qwen3-F32"},
                                           {"gemma3", "gemma3-F32"}};
    size_t total = 0;
    int bad = 0;
    (void)state;
    for (size_t k = 0; k < BASE_COUNT(names); k++) {
        gguf_vocab g;
        text_tokenizer *t = NULL;
        err e;
        char file[128];
        snprintf(file, sizeof file, "%s.gguf", names[k][1]);
        assert_true(gguf_vocab_load(&g, path_of("models/%s/%s", names[k][0], file)));
        assert_int_equal(text_tokenizer_create(&t, &g.vocab, &e), STATUS_OK);
        json_t *j = json_load_file(path_of("models/expected/%s%s", names[k][1], ".json"), 0, NULL),
               *one;
        assert_non_null(j);
        size_t i;
        json_array_foreach(json_object_get(j, "prompts"), i, one)
        {
            static int32_t want[65536];
            const json_t *text = json_object_get(one, "text");
            if (!json_is_string(text))
                continue;
            size_t n = read_ids(json_object_get(one, "ids"), want, BASE_COUNT(want));
            bad += check(t, names[k][1], (str){json_string_value(text), json_string_length(text)},
                         TEXT_PARSE_SPECIAL | TEXT_ADD_SPECIAL, want, n);
            total++;
        }
        json_decref(j);
        gguf_vocab_free(&g);
        text_tokenizer_destroy(t);
    }
    printf("%zu prompts of fixture models\n", total);
    assert_int_equal(bad, 0);
}

/* Random bytes, valid and not, through the real vocabularies and back: with SHOAL_LONG 10^6 cases. */
static void test_bytes_come_back(void **state)
{
    static const char *const names[] = {"llama-bpe", "qwen2", "gpt-2", "llama-spm", "deepseek-llm"};
    size_t cases = (getenv("SHOAL_LONG") ? 1000000 : 50000) / BASE_COUNT(names), total = 0;
    uint64_t seed = 0x9E3779B97F4A7C15u;
    (void)state;
    for (size_t k = 0; k < BASE_COUNT(names); k++) {
        text_tokenizer *t = load(names[k], NULL);
        text_ids ids = {0};
        for (size_t i = 0; i < cases; i++) {
            char text[64];
            size_t n = 0, most = (seed = hash_u64(seed, 1)) % 48;
            while (n < most) {
                uint64_t x = seed = hash_u64(seed, 2);
                uint32_t c = (uint32_t)(x >> 8) % (x & 1 ? 0x3000 : 0x110000);
                if (x & 2 || (c >= 0xD800 && c < 0xE000))
                    c = (uint32_t)(x >> 40) & 0x7F;
                if (i % 2 && k < 4 && (x & 12) == 12) /* deepseek-llm lacks bytes of no character */
                    text[n++] = (char)(x >> 50);
                else if (k != 3 || c != 0x2581) /* a space to SentencePiece */
                    n += (size_t)text_utf8_put(text + n, c);
            }
            if (k == 3 && memmem(text, n, "\xE2\x96\x81", 3))
                continue;
            err e;
            ids.n = 0;
            assert_int_equal(text_encode(t, scratch, text, n, 0, &ids, &e), STATUS_OK);
            check_decode(t, names[k], (str){text, n}, ids.ids, ids.n);
            total++;
        }
        text_ids_fini(&ids);
        text_tokenizer_destroy(t);
    }
    printf("%zu random texts through %zu vocabularies\n", total, BASE_COUNT(names));
}

/* Hostile texts and the large vocabularies: counted operations grow like the text. */
static void test_work_grows_like_the_text(void **state)
{
    static const char *const names[] = {"llama-bpe", "qwen2", "gpt-2", "llama-spm", "deepseek-llm"};
    static const char *const units[] = {
        "a",   " ",   "A",     "\n",   "1",          "=",        "-",    "\t",          "Aa",
        "ab ", " \n", "<|im_", "\xFF", "<|eot_id|>", "\xCC\x81", "</s>", "\xE4\xB8\xAD"};
    (void)state;
    for (size_t k = 0; k < BASE_COUNT(names); k++) {
        text_tokenizer *t = load(names[k], NULL);
        for (size_t i = 0; i < BASE_COUNT(units); i++) {
            uint64_t work[2];
            for (size_t half = 0; half < 2; half++) {
                size_t n = half ? 50000 : 100000;
                sb text = {0};
                text_ids ids = {0};
                text_scratch *s = NULL;
                err e;
                while (text.length < n)
                    sb_puts(&text, units[i]);
                assert_int_equal(text_scratch_create(&s, &e), STATUS_OK);
                assert_int_equal(text_encode(t, s, text.data, n, TEXT_PARSE_SPECIAL, &ids, &e),
                                 STATUS_OK);
                work[half] = text_scratch_work(s);
                text_scratch_destroy(s);
                text_ids_fini(&ids);
                sb_fini(&text);
            }
            if ((double)work[0] > 2.5 * (double)work[1] + 1000 || work[0] > 100000 * 60)
                fail_msg("%s, \"%s\": %llu operations for 50,000 bytes, %llu for 100,000", names[k],
                         units[i], (unsigned long long)work[1], (unsigned long long)work[0]);
        }
        text_tokenizer_destroy(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),         cmocka_unit_test(test_pre_vectors),
        cmocka_unit_test(test_json_twins),      cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_bytes_come_back), cmocka_unit_test(test_work_grows_like_the_text)};
    err e;
    fixtures = getenv("SHOAL_FIXTURES");
    if (!fixtures) {
        printf("skipped: test_text_fixtures: SHOAL_FIXTURES is not set\n");
        return 77;
    }
    if (text_scratch_create(&scratch, &e) != STATUS_OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    text_scratch_destroy(scratch);
    return failed;
}
