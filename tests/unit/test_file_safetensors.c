/*
 * safetensors: one file, shards, an index, a folder with its JSON files; config.json as metadata keys; malformed headers, every
 * truncation and bit, the n-th allocation failing.
 */
#include "unit/file_builder.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void expect_text(const err *e, const char *part)
{
    if (!strstr(e->text, part))
        fail_msg("expected \"%s\" in: %s", part, e->text);
}

static file_model *must_open(const char *folder, const char *name)
{
    file_model *m = NULL;
    err e = {0};
    if (open_in(&m, folder, name, &e) != STATUS_OK)
        fail_msg("%s", e.text);
    return m;
}

static void test_valid(void **state)
{
    (void)state;
    sb b;
    err e = {0};
    file_model *m = NULL;
    sb_init(&b);
    build_safetensors(&b, TINY_SAFETENSORS, 29);
    if (file_open_memory(&m, b.data, b.length, "region", &e) != STATUS_OK)
        fail_msg("%s", e.text);
    assert_int_equal(m->format, FILE_SAFETENSORS);
    assert_int_equal(m->n_tensors, 3);
    assert_int_equal(m->n_keys, 0);
    assert_int_equal(m->config_json.length, 0);
    const file_tensor *t = file_find_tensor(m, "w");
    assert_int_equal(t->type, FILE_TYPE_BF16);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 2); /* shape [3, 2]: three rows of two */
    assert_int_equal(t->dims[1], 3);
    assert_int_equal(t->bytes, 12);
    assert_ptr_equal(t->data, b.data + b.length - 29);
    t = file_find_tensor(m, "n\xC3\xA9"); /* spelled with an escape */
    assert_non_null(t);
    assert_int_equal(t->bytes, 16);
    assert_int_equal(t->data[0], 13);
    t = file_find_tensor(m, "s");
    assert_int_equal(t->n_dims, 1);
    assert_int_equal(t->dims[0], 1);
    assert_int_equal(t->type, FILE_TYPE_F8_E4M3);
    uint64_t u;
    assert_int_equal(file_get_u64(m, "hidden_size", &u, &e), STATUS_NOT_FOUND);
    file_close(m);
    sb_fini(&b);
}

#define ENTRY(dtype, shape, offsets)                                                               \
    "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void test_malformed(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        status code;
        const char *part;
    } rows[] = {
        {"", STATUS_CORRUPT, "byte 8: header: expected '{', got the end"},
        {"[]", STATUS_CORRUPT, "expected '{', got '['"},
        {"{", STATUS_CORRUPT, "a string"},
        {"{} x", STATUS_CORRUPT, "nothing more, got 'x'"},
        {"{\"a\":{}", STATUS_CORRUPT, "',' or '}', got the end"},
        {"{\"a\":{},}", STATUS_CORRUPT, "something after ','"},
        {"{\"a\":{}}", STATUS_CORRUPT, "tensor a: dtype is missing"},
        {"{\"a\":1}", STATUS_CORRUPT, "entry of a tensor: expected '{', got '1'"},
        {"{\"a\" {}}", STATUS_CORRUPT, "expected ':'"},
        {"{\"\":{}}", STATUS_CORRUPT, "not empty"},
        {"{\"\\u0000\":{}}", STATUS_CORRUPT, "without NUL"},
        {"{\"\xC0\x80\":{}}", STATUS_CORRUPT, "UTF-8"},
        {"{\"\xED\xA0\x80\":{}}", STATUS_CORRUPT, "UTF-8"},
        {"{\"\xF4\x90\x80\x80\":{}}", STATUS_CORRUPT, "UTF-8"},
        {"{\"a\n\":{}}", STATUS_CORRUPT, "control character"},
        {"{\"\\q\":{}}", STATUS_CORRUPT, "an escape"},
        {"{\"\\u12\":{}}", STATUS_CORRUPT, "an escape"},
        {"{\"\\ud800\":{}}", STATUS_CORRUPT, "surrogate"},
        {"{\"\\udc00\":{}}", STATUS_CORRUPT, "surrogate"},
        {"{\"\\ud800\\u0041\":{}}", STATUS_CORRUPT, "surrogate"},
        {"{\"a", STATUS_CORRUPT, "expected '\"', got the end"},
        {"{\"a\\", STATUS_CORRUPT, "expected '\"', got the end"},
        {"{\"a\":{\"x\":tru}}", STATUS_CORRUPT, "a JSON value"},
        {"{\"a\":{\"x\":01}}", STATUS_CORRUPT, "a number"},
        {"{\"a\":{\"x\":-}}", STATUS_CORRUPT, "a number"},
        {"{\"a\":{\"x\":1.}}", STATUS_CORRUPT, "after the point"},
        {"{\"a\":{\"x\":1e}}", STATUS_CORRUPT, "exponent"},
        {ENTRY("\"F9\"", "[2]", "[0,8]"), STATUS_UNSUPPORTED, "dtype \"F9\" is not known"},
        {ENTRY("\"Q4_0\"", "[32]", "[0,18]"), STATUS_UNSUPPORTED, "dtype \"Q4_0\""},
        {ENTRY("\"a dtype that is much too long\"", "[2]", "[0,8]"), STATUS_UNSUPPORTED,
         "too long"},
        {ENTRY("\"F3\\u0000\"", "[2]", "[0,8]"), STATUS_UNSUPPORTED, "not known"},
        {ENTRY("4", "[2]", "[0,8]"), STATUS_CORRUPT, "dtype: expected a string, got '4'"},
        {ENTRY("\"F32\"", "2", "[0,8]"), STATUS_CORRUPT, "shape: expected '['"},
        {ENTRY("\"F32\"", "[-2]", "[0,8]"), STATUS_CORRUPT, "got -2"},
        {ENTRY("\"F32\"", "[2.0]", "[0,8]"), STATUS_CORRUPT, "got 2.0"},
        {ENTRY("\"F32\"", "[18446744073709551616]", "[0,8]"), STATUS_CORRUPT, "2^64 - 1"},
        {ENTRY("\"F32\"", "[0]", "[0,0]"), STATUS_CORRUPT, "dimension 0"},
        {ENTRY("\"F32\"", "[1,1,1,1,1,1,1]", "[0,4]"), STATUS_UNSUPPORTED, "at most 6 dimensions"},
        {ENTRY("\"F32\"", "[1099511627776,1099511627776]", "[0,8]"), STATUS_CORRUPT, "2^63"},
        {ENTRY("\"F32\"", "[2]", "[0]"), STATUS_CORRUPT, "data_offsets: expected ','"},
        {ENTRY("\"F32\"", "[2]", "[0,8,9]"), STATUS_CORRUPT, "data_offsets: expected ']'"},
        {ENTRY("\"F32\"", "[2]", "[8,0]"), STATUS_CORRUPT, "got [8, 0]"},
        {ENTRY("\"F32\"", "[2]", "[0,12]"), STATUS_CORRUPT, "expected 8 bytes by its shape"},
        {ENTRY("\"F32\"", "[2]", "[12,20]"), STATUS_CORRUPT, "16 bytes of data, got [12, 20]"},
        {ENTRY("\"F32\"", "[2]", "[0,18446744073709551615]"), STATUS_CORRUPT, "16 bytes of data"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", STATUS_CORRUPT,
         "dtype: expected it once"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
         STATUS_CORRUPT, "tensor b: expected a start at byte"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
         "\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}",
         STATUS_CORRUPT, "tensor a: comes twice"},
    };
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        sb b;
        err e = {0};
        sb_init(&b);
        build_safetensors(&b, rows[i].json, 16);
        status s = open_copy(b.data, b.length, &e);
        if (s != rows[i].code || !strstr(e.text, rows[i].part))
            fail_msg("%s: expected %s with \"%s\", got %s: %s", rows[i].json,
                     status_name(rows[i].code), rows[i].part, status_name(s), e.text);
        sb_fini(&b);
    }
}

/* Every escape of RFC 8259, in a name. */
static void test_escapes(void **state)
{
    (void)state;
    sb b;
    file_model *m = NULL;
    sb_init(&b);
    build_safetensors(&b,
                      "{\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u20aC\\ud83d\\ude00x\":"
                      "{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                      1);
    assert_int_equal(file_open_memory(&m, b.data, b.length, "region", NULL), STATUS_OK);
    assert_non_null(file_find_tensor(m, "\"\\/\b\f\n\r\tA\xE2\x82\xAC\xF0\x9F\x98\x80x"));
    file_close(m);
    sb_fini(&b);
}

static void test_nesting(void **state)
{
    (void)state;
    sb b, json;
    err e = {0};
    sb_init(&b);
    sb_init(&json);
    sb_puts(&json, "{\"a\":");
    for (int i = 0; i < 200000; i++)
        sb_putc(&json, '[');
    build_safetensors(&b, json.data, 0);
    assert_int_equal(open_copy(b.data, b.length, &e), STATUS_CORRUPT);
    expect_text(&e, "32 levels");
    sb_fini(&json);
    sb_fini(&b);
}

static void test_lengths(void **state)
{
    (void)state;
    err e = {0};
    assert_int_equal(open_copy("", 0, &e), STATUS_CORRUPT);
    assert_int_equal(open_copy("\2\0\0\0\0\0\0", 7, &e), STATUS_CORRUPT);
    expect_text(&e, "expected 8 bytes, got 7");
    assert_int_equal(open_copy("\3\0\0\0\0\0\0\0{}", 10, &e), STATUS_CORRUPT);
    expect_text(&e, "expected at most 2");
    assert_int_equal(open_copy("\0\0\0\0\0\0\0\x40{}", 10, &e), STATUS_CORRUPT);
    assert_int_equal(open_copy("\2\0\0\0\0\0\0\0{}", 10, &e),
                     STATUS_OK); /* nothing in it is a model too */
}

static void test_truncated_and_bits(void **state)
{
    (void)state;
    sb b;
    sb_init(&b);
    build_safetensors(&b, TINY_SAFETENSORS, 29);
    for (size_t n = 0; n < b.length; n++)
        assert_int_not_equal(open_copy(b.data, n, NULL), STATUS_OK);
    int opened = 0, refused = 0;
    for (size_t i = 0; i < b.length * 8; i++) {
        b.data[i / 8] ^= (char)(1 << i % 8);
        *(open_copy(b.data, b.length, NULL) == STATUS_OK ? &opened : &refused) += 1;
        b.data[i / 8] ^= (char)(1 << i % 8);
    }
    assert_true(opened > 0 && refused > 0);
    assert_int_equal(open_copy(b.data, b.length, NULL), STATUS_OK);
    sb_fini(&b);
}

/* ---- folders ----------------------------------------------------------------------------------- */

static const char config[] =
    "{\"hidden_size\": 64, \"rms_norm_eps\": 1e-5, \"tie_word_embeddings\": false,\n"
    " \"model_type\": \"ll\\u0061ma\", \"sliding_window\": null, \"big\": 18446744073709551615, "
    "\"huge\": 1e300,\n"
    " \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"inner\": {\"x\": -1}},\n"
    " \"architectures\": [\"A\", \"B\\n\"], \"ids\": [1, 2], \"mixed\": [1, 2.5], \"bools\": "
    "[true, false],\n"
    " \"empty\": [], \"odd\": [1, \"x\"], \"deep\": [[1]], \"objects\": [{\"a\": 1}], \"nulls\": "
    "[null]}";

/* A folder of two shards with tensors w0 and w1, an index, and the JSON files. */
static void build_folder(char folder[64])
{
    static const char *const other[] = {"tokenizer.json", "tokenizer_config.json"};
    static const char index[] = "{\"metadata\": {\"total_size\": 8},\n \"weight_map\": {\n"
                                "  \"w0\": \"model-00001-of-00002.safetensors\",\n"
                                "  \"w1\": \"model-00002-of-00002.safetensors\"}}\n";
    make_folder(folder);
    for (int i = 0; i < 2; i++) {
        sb b;
        char name[64], json[128];
        sb_init(&b);
        snprintf(json, sizeof json,
                 "{\"w%d\":{\"dtype\":\"U8\",\"shape\":[2,2],\"data_offsets\":[0,4]}}", i);
        snprintf(name, sizeof name, "model-%05d-of-00002.safetensors", i + 1);
        build_safetensors(&b, json, 4);
        write_file(folder, name, b.data, b.length);
        write_file(folder, other[i], other[i], strlen(other[i]));
        sb_fini(&b);
    }
    write_file(folder, "model.safetensors.index.json", index, strlen(index));
    write_file(folder, "config.json", config, strlen(config));
    write_file(folder, "generation_config.json", "{\"eos_token_id\": [1, 2]}", 24);
    write_file(folder, "chat_template.jinja", "{{ x }}", 7);
}

static void test_folder(void **state)
{
    (void)state;
    char folder[64];
    build_folder(folder);
    static const char *const names[] = {"", "model-00001-of-00002.safetensors",
                                        "model-00002-of-00002.safetensors",
                                        "model.safetensors.index.json"};
    uint64_t hash = 0;
    for (int round = 0; round < 2; round++) { /* with an index, and without */
        for (size_t i = 0; i + (size_t)round < BASE_COUNT(names); i++) {
            file_model *m = must_open(folder, names[i]);
            assert_int_equal(m->format, FILE_SAFETENSORS);
            assert_int_equal(m->n_parts, 2);
            assert_int_equal(m->n_tensors, 2);
            const file_tensor *t = file_find_tensor(m, "w1");
            assert_int_equal(t->part, 1);
            assert_ptr_equal(t->data, m->parts[1].data + t->offset);
            assert_string_equal(m->folder, folder);
            assert_true(str_is(m->config_json, config));
            assert_true(str_is(m->tokenizer_json, "tokenizer.json"));
            assert_true(str_is(m->tokenizer_config_json, "tokenizer_config.json"));
            assert_true(str_is(m->chat_template, "{{ x }}"));
            if (hash)
                assert_int_equal(file_model_hash(m), hash);
            hash = file_model_hash(m);
            file_close(m);
        }
        char path[256];
        snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
        unlink(path);
    }
    char path[256];
    snprintf(path, sizeof path, "%s/model-00002-of-00002.safetensors", folder);
    unlink(path);
    file_model *m;
    err e = {0};
    assert_int_equal(open_in(&m, folder, "model-00001-of-00002.safetensors", &e), STATUS_NOT_FOUND);
    expect_text(&e, "shard 2");
    remove_folder(folder);
}

static void test_config_keys(void **state)
{
    (void)state;
    char folder[64];
    err e = {0};
    uint64_t u;
    int64_t i;
    double f;
    bool flag = true;
    str text;
    file_array a;
    build_folder(folder);
    file_model *m = must_open(folder, "");
    assert_int_equal(file_get_u64(m, "hidden_size", &u, &e), STATUS_OK);
    assert_int_equal(u, 64);
    assert_int_equal(file_get_f64(m, "rms_norm_eps", &f, &e), STATUS_OK);
    assert_true(f == 1e-5);
    assert_int_equal(file_get_bool(m, "tie_word_embeddings", &flag, &e), STATUS_OK);
    assert_false(flag);
    assert_int_equal(file_get_str(m, "model_type", &text, &e), STATUS_OK);
    assert_true(str_is(text, "llama"));
    assert_int_equal(file_get_u64_or(m, "sliding_window", 5, &u, &e),
                     STATUS_OK); /* null is missing */
    assert_int_equal(u, 5);
    assert_int_equal(file_get_u64(m, "big", &u, &e), STATUS_OK);
    assert_true(u == UINT64_MAX);
    assert_int_equal(file_get_f64(m, "huge", &f, &e), STATUS_OK);
    assert_int_equal(file_get_f64(m, "rope_scaling.factor", &f, &e), STATUS_OK);
    assert_true(f == 8);
    assert_int_equal(file_get_i64(m, "rope_scaling.inner.x", &i, &e), STATUS_OK);
    assert_int_equal(i, -1);
    assert_int_equal(file_get_strings(m, "architectures", &a, &e), STATUS_OK);
    file_strings walk = file_strings_of(&a);
    assert_true(file_strings_next(&walk, &text) && str_is(text, "A"));
    assert_true(file_strings_next(&walk, &text) && str_is(text, "B\n"));
    assert_false(file_strings_next(&walk, &text));
    assert_int_equal(file_get_array(m, "ids", &a, &e), STATUS_OK);
    assert_int_equal(a.n, 2);
    assert_int_equal(a.type, FILE_VALUE_I64);
    assert_int_equal(file_get_array(m, "mixed", &a, &e), STATUS_OK);
    assert_true(file_array_f64(&a, 0, &f) && f == 1 && file_array_f64(&a, 1, &f) && f == 2.5);
    assert_int_equal(file_get_array(m, "bools", &a, &e), STATUS_OK);
    assert_true(file_array_u64(&a, 0, &u) && u == 1 && file_array_u64(&a, 1, &u) && u == 0);
    assert_int_equal(file_get_array(m, "empty", &a, &e), STATUS_OK);
    assert_int_equal(a.n, 0);
    assert_int_equal(file_get_array(m, "generation.eos_token_id", &a, &e), STATUS_OK);
    assert_int_equal(a.n, 2);
    static const char *const left_out[] = {"odd", "deep", "objects", "nulls", "rope_scaling"};
    for (size_t k = 0; k < BASE_COUNT(left_out); k++)
        assert_null(file_find_key(m, left_out[k]));
    assert_int_equal(file_get_u64(m, "nothing", &u, &e), STATUS_NOT_FOUND);
    expect_text(&e, "config.json");
    touch_everything(m);
    file_close(m);
    remove_folder(folder);
}

static void test_wrong_json(void **state)
{
    (void)state;
    static const struct {
        const char *file, *text, *part;
    } rows[] = {
        {"config.json", "{\"a\": }", "config.json: byte 6"},
        {"config.json", "[]", "config.json: byte 0: object: expected '{'"},
        {"config.json", "{\"a\": 1, \"a\": 2}", "key a: comes twice"},
        {"config.json", "{\"a.b\": 1, \"a\": {\"b\": 2}}", "key a.b: comes twice"},
        {"config.json", "{\"a\": NaN}", "a JSON value"},
        {"config.json", "{\"a\": 1e999}", "double's range"},
        {"generation_config.json", "{} {}", "generation_config.json: byte 3"},
        {"model.safetensors.index.json", "{}", "weight_map is missing"},
        {"model.safetensors.index.json", "{\"weight_map\": {}}", "at least one tensor"},
        {"model.safetensors.index.json", "{\"weight_map\": {\"w0\": \"../x.safetensors\"}}",
         "plain name"},
        {"model.safetensors.index.json", "{\"weight_map\": {\"w0\": \"/etc/passwd\"}}",
         "plain name"},
        {"model.safetensors.index.json", "{\"weight_map\": {\"w0\": \"\"}}", "name of a file"},
        {"model.safetensors.index.json", "{\"weight_map\": {\"w0\": \"gone.safetensors\"}}",
         "gone.safetensors"},
        {"model.safetensors.index.json",
         "{\"weight_map\": {\"w1\": \"model-00001-of-00002.safetensors\"}}",
         "expected tensor w1 in"},
        {"model.safetensors.index.json",
         "{\"weight_map\": {\"w9\": \"model-00001-of-00002.safetensors\"}}",
         "expected tensor w9 in"},
    };
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        char folder[64];
        file_model *m;
        err e = {0};
        build_folder(folder);
        write_file(folder, rows[i].file, rows[i].text, strlen(rows[i].text));
        status s = open_in(&m, folder, "", &e);
        if (s == STATUS_OK || !strstr(e.text, rows[i].part))
            fail_msg("%s: expected \"%s\", got %s: %s", rows[i].text, rows[i].part, status_name(s),
                     e.text);
        remove_folder(folder);
    }
}

/* Names that are too long are left out; a product of long names and many members costs nothing. */
static void test_long_names(void **state)
{
    (void)state;
    char folder[64];
    sb json;
    build_folder(folder);
    sb_init(&json);
    sb_puts(&json, "{\"");
    for (int i = 0; i < 300; i++)
        sb_putc(&json, 'x');
    sb_puts(&json, "\": {\"a\": 1, \"b\": [2]}, \"\": {\"c\": 1}, \"d\": {\"\": 3, \"e\": 4}}");
    write_file(folder, "config.json", json.data, json.length);
    file_model *m = must_open(folder, "");
    uint64_t u;
    assert_int_equal(m->n_keys, 3); /* "d.", "d.e", "generation.eos_token_id" */
    assert_int_equal(file_get_u64(m, "d.e", &u, NULL), STATUS_OK);
    file_close(m);
    sb_fini(&json);
    remove_folder(folder);
}

/* Limits on config.json: levels, and the number of values. */
static void test_config_limits(void **state)
{
    (void)state;
    char folder[64];
    sb json;
    err e = {0};
    file_model *m;
    build_folder(folder);
    sb_init(&json);
    for (int i = 0; i < 17; i++)
        sb_puts(&json, "{\"a\":");
    write_file(folder, "config.json", json.data, json.length);
    assert_int_equal(open_in(&m, folder, "", &e), STATUS_CORRUPT);
    expect_text(&e, "16 levels");
    sb_clear(&json);
    for (int i = 0; i < 70000; i++)
        sb_printf(&json, "%c\"k%d\":1", i ? ',' : '{', i);
    sb_putc(&json, '}');
    write_file(folder, "config.json", json.data, json.length);
    assert_int_equal(open_in(&m, folder, "", &e), STATUS_UNSUPPORTED);
    expect_text(&e, "at most 65536 values, got 7000");
    sb_clear(&json);
    sb_puts(&json, "{\"a\": 0.");
    for (int i = 0; i < 70; i++)
        sb_putc(&json, '1');
    write_file(folder, "config.json", json.data, json.length);
    assert_int_equal(open_in(&m, folder, "", &e), STATUS_CORRUPT);
    expect_text(&e, "63 characters");
    sb_fini(&json);
    remove_folder(folder);
}

/* Shards alone: no index, no JSON, names that say nothing. */
static void test_bare_folder(void **state)
{
    (void)state;
    char folder[64];
    sb b;
    make_folder(folder);
    sb_init(&b);
    build_safetensors(&b, TINY_SAFETENSORS, 29);
    write_file(folder, "x.safetensors", b.data, b.length);
    write_file(folder, ".hidden.safetensors", "?", 1);
    file_model *m = must_open(folder, "");
    assert_int_equal(m->n_tensors, 3);
    assert_int_equal(m->n_keys, 0);
    assert_int_equal(m->tokenizer_json.length, 0);
    file_close(m);
    write_file(folder, "y.safetensors", b.data, b.length);
    err e = {0};
    assert_int_equal(open_in(&m, folder, "", &e), STATUS_CORRUPT);
    expect_text(&e, "comes twice");
    m = must_open(folder, "y.safetensors");
    file_close(m);
    remove_folder(folder);
    sb_fini(&b);
}

static void test_allocations(void **state)
{
    (void)state;
    char folder[64];
    build_folder(folder);
    uint64_t n = 1;
    for (;; n++) {
        err e = {0};
        file_model *m = NULL;
        base_fail_after(n);
        status s = file_open(&m, folder, &e);
        base_fail_after(0);
        if (s == STATUS_OK) {
            file_close(m);
            break;
        }
        assert_int_equal(s, STATUS_NO_MEMORY);
        assert_null(m);
    }
    assert_true(n > 8);
    remove_folder(folder);
}

/* The same weights as GGUF and as safetensors, from the fixtures. */
static void test_fixtures(void **state)
{
    (void)state;
    const char *fixtures = getenv("SHOAL_FIXTURES");
    if (!fixtures) {
        printf("skipped: safetensors fixtures (SHOAL_FIXTURES is not set)\n");
        skip();
    }
    char folder[1024];
    snprintf(folder, sizeof folder, "%s/models/llama", fixtures);
    file_model *a = must_open(folder, ""), *b = must_open(folder, "llama-BF16.gguf");
    const file_tensor *x = file_find_tensor(a, "model.layers.1.mlp.up_proj.weight");
    const file_tensor *y = file_find_tensor(b, "blk.1.ffn_up.weight");
    assert_non_null(x);
    assert_non_null(y);
    assert_int_equal(x->type, FILE_TYPE_BF16);
    assert_int_equal(x->bytes, y->bytes);
    assert_memory_equal(x->data, y->data, x->bytes);
    assert_memory_equal(x->dims, y->dims, sizeof x->dims);
    file_close(a);
    file_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),         cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_escapes),       cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_lengths),       cmocka_unit_test(test_truncated_and_bits),
        cmocka_unit_test(test_folder),        cmocka_unit_test(test_config_keys),
        cmocka_unit_test(test_wrong_json),    cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_config_limits), cmocka_unit_test(test_bare_folder),
        cmocka_unit_test(test_allocations),   cmocka_unit_test(test_fixtures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
