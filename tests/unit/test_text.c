/*
 * Our own vocabularies (tests/data/text, made by tools/text/make_vocabularies.py) against the ids that the Rust library `tokenizers` gives for
 * them (tools/text/expected.mjs), and decoding: whole, one id at a time, special tokens hidden and shown.
 */
#include "text/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>

#include "text_gguf.h"

static const char *const names[] = {"behaviors", "bert", "deepseek", "falcon", "flags", "gemma", "gpt2", "kimi", "lazy", "llama2",
                                    "llama3", "metaspace", "o200k", "qwen2", "suffix", "unigram", "unknown", "wordlevel"};

static str read_data(const char *name, const char *suffix)
{
    char path[512];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/text/%s%s", TEST_DATA, name, suffix);
    char *p = gguf_read_file(path, &n);
    if (!p)
        fail_msg("%s is missing", path);
    return (str){p, n};
}

static text_tokenizer *load(const char *name)
{
    str json = read_data(name, ".json");
    text_tokenizer *t = NULL;
    err e;
    if (text_tokenizer_from_json(&t, json, (str){0}, &e) != STATUS_OK)
        fail_msg("%s: %s", name, e.text);
    base_free((char *)json.data);
    return t;
}

static json_t *load_texts(void)
{
    str all = read_data("texts", ".json");
    json_t *j = json_loadb(all.data, all.length, JSON_ALLOW_NUL, NULL);
    assert_true(json_array_size(j) > 80);
    base_free((char *)all.data);
    return j;
}

static str text_at(const json_t *texts, size_t i)
{
    const json_t *t = json_array_get(texts, i);
    return (str){json_string_value(t), json_string_length(t)};
}

static int compare(const text_tokenizer *t, text_scratch *s, const char *name, size_t line, str text, int flags, const json_t *want)
{
    text_ids ids = {0};
    err e;
    if (text_encode(t, s, text.data, text.length, flags, &ids, &e) != STATUS_OK)
        fail_msg("%s: %s", name, e.text);
    bool equal = ids.n == json_array_size(want);
    for (size_t i = 0; equal && i < ids.n; i++)
        equal = ids.ids[i] == (int32_t)json_integer_value(json_array_get(want, i));
    if (!equal) {
        fprintf(stderr, "%s, text %zu \"%.*s\", flags %d\n  want", name, line, (int)text.length, text.data, flags);
        for (size_t i = 0; i < json_array_size(want); i++)
            fprintf(stderr, " %d", (int)json_integer_value(json_array_get(want, i)));
        fprintf(stderr, "\n  got ");
        for (size_t i = 0; i < ids.n; i++)
            fprintf(stderr, " %d", (int)ids.ids[i]);
        fprintf(stderr, "\n");
    }
    text_ids_fini(&ids);
    return !equal;
}

static void test_vectors(void **state)
{
    json_t *texts = load_texts();
    text_scratch *s = NULL;
    err e;
    int bad = 0;
    size_t total = 0;
    (void)state;
    assert_int_equal(text_scratch_create(&s, &e), STATUS_OK);
    for (size_t k = 0; k < BASE_COUNT(names); k++) {
        text_tokenizer *t = load(names[k]);
        str lines = read_data(names[k], ".expected.jsonl");
        const char *line = lines.data;
        for (size_t i = 0; i < json_array_size(texts); i++) {
            const char *end = strchr(line, '\n');
            assert_non_null(end);
            json_t *j = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL);
            assert_non_null(j);
            line = end + 1;
            const json_t *ids = json_object_get(j, "ids");
            bad += compare(t, s, names[k], i, text_at(texts, i), TEXT_PARSE_SPECIAL, ids);
            bad += compare(t, s, names[k], i, text_at(texts, i), TEXT_PARSE_SPECIAL, ids); /* from the cache */
            bad += compare(t, NULL, names[k], i, text_at(texts, i), TEXT_PARSE_SPECIAL | TEXT_ADD_SPECIAL, json_object_get(j, "special"));
            total += 2;
            json_decref(j);
        }
        base_free((char *)lines.data);
        text_tokenizer_destroy(t);
    }
    text_scratch_destroy(s);
    json_decref(texts);
    printf("%zu encodings\n", total);
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
