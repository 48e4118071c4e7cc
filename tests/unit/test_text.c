/*
 * Our own vocabularies (tests/data/text, made by tools/text/make_vocabularies.py) against the ids
 * that the Rust library `tokenizers` gives for them (tools/text/expected.mjs), and decoding:
 * whole, one id at a time, special tokens hidden and shown.
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

static const char *const names[] = {"behaviors", "bert",      "deepseek", "falcon", "flags",
                                    "gemma",     "gpt2",      "kimi",     "lazy",   "llama2",
                                    "llama3",    "metaspace", "o200k",    "qwen2",  "suffix",
                                    "unigram",   "unknown",   "wordlevel"};

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

static int compare(const text_tokenizer *t, text_scratch *s, const char *name, size_t line,
                   str text, int flags, const json_t *want)
{
    text_ids ids = {0};
    err e;
    if (text_encode(t, s, text.data, text.length, flags, &ids, &e) != STATUS_OK)
        fail_msg("%s: %s", name, e.text);
    bool equal = ids.n == json_array_size(want);
    for (size_t i = 0; equal && i < ids.n; i++)
        equal = ids.ids[i] == (int32_t)json_integer_value(json_array_get(want, i));
    if (!equal) {
        fprintf(stderr, "%s, text %zu \"%.*s\", flags %d\n  want", name, line, (int)text.length,
                text.data, flags);
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
            bad += compare(t, s, names[k], i, text_at(texts, i), TEXT_PARSE_SPECIAL,
                           ids); /* from the cache */
            bad += compare(t, NULL, names[k], i, text_at(texts, i),
                           TEXT_PARSE_SPECIAL | TEXT_ADD_SPECIAL, json_object_get(j, "special"));
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

/* ---- decoding --------------------------------------------------------------------------------------------------- */

static bool is_whole_utf8(const char *p, size_t n)
{
    while (n) {
        int k = text_utf8_length(p, n);
        if (!k)
            return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

/* The library decodes special tokens away and replaces bytes that are no UTF-8; texts without
 * either must agree. */
static void test_decoding(void **state)
{
    static const char *const exact[] = {"llama3",    "o200k", "gemma", "llama2",
                                        "metaspace", "bert",  "kimi",  "deepseek"};
    json_t *texts = load_texts();
    size_t total = 0;
    (void)state;
    for (size_t k = 0; k < BASE_COUNT(exact); k++) {
        text_tokenizer *t = load(exact[k]);
        str lines = read_data(exact[k], ".expected.jsonl");
        const char *line = lines.data;
        for (size_t i = 0; i < json_array_size(texts); i++) {
            const char *end = strchr(line, '\n');
            json_t *j = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL), *id;
            const json_t *want = json_object_get(j, "decoded");
            sb parts = {0};
            text_decoder d;
            err e;
            size_t m;
            line = end + 1;
            text_decoder_init(&d, t, TEXT_HIDE_SPECIAL | TEXT_AT_START);
            json_array_foreach(json_object_get(j, "ids"), m, id)
            {
                size_t before = parts.length;
                assert_int_equal(text_decoder_feed(&d, (int32_t)json_integer_value(id), &parts, &e),
                                 STATUS_OK);
                /* Our texts are valid, so every part that comes out is. */
                assert_true(parts.length == before ||
                            is_whole_utf8(parts.data + before, parts.length - before));
            }
            assert_int_equal(text_decoder_flush(&d, &parts, &e), STATUS_OK);
            if (parts.length != json_string_length(want) ||
                (parts.length && memcmp(parts.data, json_string_value(want), parts.length) != 0))
                fail_msg("%s, text %zu: \"%s\", want \"%s\"", exact[k], i,
                         parts.data ? parts.data : "", json_string_value(want));
            total++;
            sb_fini(&parts);
            json_decref(j);
        }
        base_free((char *)lines.data);
        text_tokenizer_destroy(t);
    }
    json_decref(texts);
    printf("%zu decodings\n", total);
}

static void test_half_characters(void **state)
{
    text_tokenizer *t = load("llama3");
    text_decoder d;
    sb out = {0};
    err e;
    (void)state;
    /* The four bytes of U+1F642 as single tokens: nothing until the last one. */
    static const char *const pieces[] = {"\xC3\xB0", "\xC5\x81", "\xC4\xBB", "\xC4\xA4"};
    static const unsigned char bytes[] = {0xF0, 0x9F, 0x99, 0x82};
    text_decoder_init(&d, t, 0);
    for (int i = 0; i < 4; i++) {
        int32_t id = text_find(t, pieces[i]);
        assert_true(id >= 0);
        assert_int_equal(text_token_bytes(t, id).length, 1);
        assert_int_equal((unsigned char)text_token_bytes(t, id).data[0], bytes[i]);
        assert_int_equal(text_decoder_feed(&d, id, &out, &e), STATUS_OK);
        assert_int_equal(out.length, i == 3 ? 4 : 0);
    }
    /* A beginning that something else follows comes out as it is, at once. */
    sb_clear(&out);
    text_decoder_feed(&d, text_find(t, pieces[0]), &out, &e);
    text_decoder_feed(&d, text_find(t, pieces[1]), &out, &e);
    assert_int_equal(out.length, 0);
    text_decoder_feed(&d, text_find(t, "a"), &out, &e);
    assert_int_equal(out.length, 3);
    assert_memory_equal(out.data, "\360\237a", 3);
    /* … and at the end. */
    sb_clear(&out);
    text_decoder_feed(&d, text_find(t, pieces[0]), &out, &e);
    assert_int_equal(out.length, 0);
    text_decoder_flush(&d, &out, &e);
    assert_int_equal(out.length, 1);
    /* Ids that do not exist give nothing. */
    sb_clear(&out);
    assert_int_equal(text_decoder_feed(&d, -1, &out, &e), STATUS_OK);
    assert_int_equal(text_decoder_feed(&d, text_token_count(t), &out, &e), STATUS_OK);
    assert_int_equal(text_decoder_feed(&d, INT32_MAX, &out, &e), STATUS_OK);
    assert_int_equal(out.length, 0);
    sb_fini(&out);
    text_tokenizer_destroy(t);
}

/* ---- questions -------------------------------------------------------------------------------------------------- */

static void test_special_tokens(void **state)
{
    text_tokenizer *t = load("llama3");
    text_ids ids = {0};
    sb out = {0};
    err e;
    const int32_t *ends;
    (void)state;
    int32_t begin = text_find(t, "<|begin|>"), end = text_find(t, "<|end|>"),
            tool = text_find(t, "<tool>");
    assert_true(begin > 0 && end > 0 && tool > 0);
    assert_true(text_token_is_control(t, end) && text_token_is_special(t, end));
    assert_false(text_token_is_special(t, tool));
    assert_true(text_token_is_end(t, end));
    assert_false(text_token_is_end(t, begin));
    assert_int_equal(text_end_tokens(t, &ends), 1);
    assert_int_equal(ends[0], end);
    assert_int_equal(text_add_end(t, tool, &e), STATUS_OK);
    assert_int_equal(text_add_end(t, text_token_count(t), &e), STATUS_INVALID);
    assert_int_equal(text_end_tokens(t, &ends), 2);
    assert_true(text_token_is_end(t, tool));
    assert_int_equal(text_special_id(t, TEXT_BOS), begin);
    assert_true(text_adds_bos(t));
    assert_string_equal(text_model_name(t), "byte-level BPE");

    /* Without TEXT_PARSE_SPECIAL a user cannot write a control token, a user-defined one always
     * counts. */
    static const char text[] = "<|end|><tool>";
    assert_int_equal(text_encode(t, NULL, text, strlen(text), 0, &ids, &e), STATUS_OK);
    for (size_t i = 0; i < ids.n; i++)
        assert_false(text_token_is_special(t, ids.ids[i]));
    assert_int_equal(ids.ids[ids.n - 1], tool);
    assert_int_equal(text_decode(t, ids.ids, ids.n, TEXT_HIDE_SPECIAL, &out, &e), STATUS_OK);
    assert_string_equal(out.data, text);
    ids.n = 0;
    sb_clear(&out);
    assert_int_equal(
        text_encode(t, NULL, text, strlen(text), TEXT_PARSE_SPECIAL | TEXT_ADD_SPECIAL, &ids, &e),
        STATUS_OK);
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.ids[0], begin);
    assert_int_equal(ids.ids[1], end);
    assert_int_equal(ids.ids[2], tool);
    assert_int_equal(text_decode(t, ids.ids, ids.n, TEXT_HIDE_SPECIAL, &out, &e), STATUS_OK);
    assert_string_equal(out.data, "<tool>");
    sb_clear(&out);
    assert_int_equal(text_decode(t, ids.ids, ids.n, 0, &out, &e), STATUS_OK);
    assert_string_equal(out.data, "<|begin|><|end|><tool>");
    text_ids_fini(&ids);
    sb_fini(&out);
    text_tokenizer_destroy(t);
}

static void test_config(void **state)
{
    static const char config[] = "{\"bos_token\": {\"content\": \"<|begin|>\"}, \"eos_token\": "
                                 "\"</tool>\", \"pad_token\": null,"
                                 " \"add_bos_token\": true, \"add_eos_token\": true}";
    str json = read_data("qwen2", ".json");
    text_tokenizer *t = NULL;
    text_ids ids = {0};
    err e;
    (void)state;
    assert_int_equal(text_tokenizer_from_json(&t, json, str_from(config), &e), STATUS_OK);
    assert_int_equal(text_special_id(t, TEXT_BOS), text_find(t, "<|begin|>"));
    assert_int_equal(text_special_id(t, TEXT_EOS), text_find(t, "</tool>"));
    assert_int_equal(text_special_id(t, TEXT_PAD), -1);
    assert_int_equal(text_special_id(t, TEXT_N_SPECIAL), -1);
    assert_true(text_token_is_end(t, text_find(t, "</tool>")));
    assert_int_equal(text_encode(t, NULL, "a", 1, TEXT_ADD_SPECIAL, &ids, &e), STATUS_OK);
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.ids[0], text_special_id(t, TEXT_BOS));
    assert_int_equal(ids.ids[2], text_special_id(t, TEXT_EOS));
    text_ids_fini(&ids);
    text_tokenizer_destroy(t);
    base_free((char *)json.data);
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

typedef struct worker {
    const text_tokenizer *t;
    const json_t *texts;
    text_ids ids;
    int failures;
} worker;

static void *encode_everything(void *argument)
{
    worker *w = argument;
    text_scratch *s = NULL;
    err e;
    w->failures = text_scratch_create(&s, &e) != STATUS_OK;
    for (int round = 0; round < 5 && !w->failures; round++)
        for (size_t i = 0; i < json_array_size(w->texts); i++) {
            str text = text_at(w->texts, i);
            w->failures += text_encode(w->t, s, text.data, text.length, TEXT_PARSE_SPECIAL, &w->ids,
                                       &e) != STATUS_OK;
        }
    text_scratch_destroy(s);
    return NULL;
}

static void test_threads(void **state)
{
    static const char *const shared[] = {"kimi", "lazy", "unigram"};
    json_t *texts = load_texts();
    (void)state;
    for (size_t k = 0; k < BASE_COUNT(shared); k++) {
        text_tokenizer *t = load(shared[k]);
        worker workers[4] = {0};
        pthread_t threads[4];
        for (int i = 0; i < 4; i++) {
            workers[i].t = t;
            workers[i].texts = texts;
            assert_int_equal(pthread_create(&threads[i], NULL, encode_everything, &workers[i]), 0);
        }
        for (int i = 0; i < 4; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(workers[i].failures, 0);
            assert_int_equal(workers[i].ids.n, workers[0].ids.n);
            assert_memory_equal(workers[i].ids.ids, workers[0].ids.ids,
                                workers[0].ids.n * sizeof(int32_t));
        }
        for (int i = 0; i < 4; i++)
            text_ids_fini(&workers[i].ids);
        text_tokenizer_destroy(t);
    }
    json_decref(texts);
}

/* One scratch for several tokenizers in turn: the cache of one never answers for another. */
static void test_scratch_of_several(void **state)
{
    text_scratch *s = NULL;
    err e;
    (void)state;
    assert_int_equal(text_scratch_create(&s, &e), STATUS_OK);
    json_t *texts = load_texts();
    for (int round = 0; round < 2; round++)
        for (size_t k = 0; k < BASE_COUNT(names); k++) {
            text_tokenizer *t = load(names[k]); /* often at the address of the one before */
            text_ids a = {0}, b = {0};
            for (size_t i = 0; i < json_array_size(texts); i++) {
                str text = text_at(texts, i);
                assert_int_equal(text_encode(t, s, text.data, text.length, 0, &a, &e), STATUS_OK);
                assert_int_equal(text_encode(t, NULL, text.data, text.length, 0, &b, &e),
                                 STATUS_OK);
            }
            assert_int_equal(a.n, b.n);
            assert_memory_equal(a.ids, b.ids, a.n * sizeof(int32_t));
            text_ids_fini(&a);
            text_ids_fini(&b);
            text_tokenizer_destroy(t);
        }
    json_decref(texts);
    text_scratch_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors),
                                       cmocka_unit_test(test_decoding),
                                       cmocka_unit_test(test_half_characters),
                                       cmocka_unit_test(test_special_tokens),
                                       cmocka_unit_test(test_config),
                                       cmocka_unit_test(test_threads),
                                       cmocka_unit_test(test_scratch_of_several)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
