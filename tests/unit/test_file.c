/* GGUF as it should be: types, metadata of every kind, tensors, paths, split parts, regions of memory, the hash. */
#include "unit/file_builder.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static file_model *open_bytes(const sb *b)
{
    err e = {0};
    file_model *m = NULL;
    status s = file_open_memory(&m, b->data, b->length, "region", &e);
    if (s != STATUS_OK)
        fail_msg("%s", e.text);
    return m;
}

static void test_types(void **state)
{
    (void)state;
    file_type t;
    uint64_t bytes;
    assert_string_equal(file_type_name(FILE_TYPE_Q4_K), "Q4_K");
    assert_string_equal(file_type_name((file_type)4), "?");
    assert_string_equal(file_type_name((file_type)-1), "?");
    assert_true(file_type_find("MXFP4", &t));
    assert_int_equal(t, 39);
    assert_false(file_type_find("Q4_9", &t));
    assert_int_equal(file_type_block_elements(FILE_TYPE_IQ4_XS), 256);
    assert_int_equal(file_type_block_bytes(FILE_TYPE_IQ4_XS), 136);
    assert_int_equal(file_type_block_bytes(FILE_TYPE_LIMIT), 0);
    assert_true(file_type_row_bytes(FILE_TYPE_Q6_K, 512, &bytes));
    assert_int_equal(bytes, 420);
    assert_false(file_type_row_bytes(FILE_TYPE_Q6_K, 500, &bytes));
    assert_false(file_type_row_bytes(FILE_TYPE_F64, UINT64_MAX, &bytes));
    assert_false(file_type_row_bytes((file_type)5, 32, &bytes));
}

static void test_tensors(void **state)
{
    (void)state;
    sb b;
    sb_init(&b);
    build_tiny_gguf(&b);
    file_model *m = open_bytes(&b);
    assert_int_equal(m->format, FILE_GGUF);
    assert_int_equal(m->n_tensors, 3);
    assert_int_equal(m->n_parts, 1);
    assert_int_equal(m->tensor_bytes, 68 + 48 + 10);
    assert_true(str_is(m->tensors[0].name, "b.weight"));
    const file_tensor *t = file_find_tensor(m, "a.weight");
    assert_ptr_equal(t, &m->tensors[1]);
    assert_int_equal(t->type, FILE_TYPE_F32);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 4);
    assert_int_equal(t->dims[1], 3);
    assert_int_equal(t->dims[2], 1);
    assert_int_equal(t->bytes, 48);
    assert_ptr_equal(t->data, b.data + t->offset); /* not copied */
    assert_int_equal(t->data[0], 1 + 96);
    t = file_find_tensor(m, "c.norm");
    assert_int_equal(t->n_dims, 1);
    assert_int_equal(t->bytes, 10);
    assert_ptr_equal(t->data + t->bytes, b.data + b.length);
    assert_null(file_find_tensor(m, "c"));
    assert_null(file_find_tensor(m, "c.norm2"));
    assert_null(file_find_tensor(m, ""));
    file_forget(m, t, 0, t->bytes); /* of a region: nothing happens */
    file_close(m);
    sb_fini(&b);
}

static void expect_text(const err *e, const char *part)
{
    if (!strstr(e->text, part))
        fail_msg("expected \"%s\" in: %s", part, e->text);
}

static void test_metadata(void **state)
{
    (void)state;
    sb b;
    sb_init(&b);
    build_tiny_gguf(&b);
    file_model *m = open_bytes(&b);
    err e = {0};
    uint64_t u = 77;
    int64_t i;
    double f;
    bool flag = false;
    str text;
    file_array a;
    assert_int_equal(file_get_u64(m, "llama.block_count", &u, &e), STATUS_OK);
    assert_int_equal(u, 2);
    assert_int_equal(file_get_i64(m, "llama.block_count", &i, &e), STATUS_OK);
    assert_int_equal(i, 2);
    assert_int_equal(file_get_f64(m, "eps", &f, &e), STATUS_OK);
    assert_true(f == 0.5);
    assert_int_equal(file_get_f64(m, "llama.block_count", &f, &e), STATUS_OK);
    assert_true(f == 2);
    assert_int_equal(file_get_bool(m, "flag", &flag, &e), STATUS_OK);
    assert_true(flag);
    assert_int_equal(file_get_str(m, "general.architecture", &text, &e), STATUS_OK);
    assert_true(str_is(text, "llama"));
    assert_int_equal(file_get_strings(m, "tokens", &a, &e), STATUS_OK);
    assert_int_equal(a.n, 3);
    file_strings walk = file_strings_of(&a);
    static const char *const tokens[] = {"a", "", "ccc"};
    for (int k = 0; k < 3; k++) {
        assert_true(file_strings_next(&walk, &text));
        assert_true(str_is(text, tokens[k]));
    }
    assert_false(file_strings_next(&walk, &text));
    assert_int_equal(file_get_array(m, "types", &a, &e), STATUS_OK);
    assert_true(file_array_i64(&a, 1, &i));
    assert_int_equal(i, -2);
    assert_true(file_array_f64(&a, 1, &f));
    assert_true(f == -2);
    u = 77;
    assert_false(file_array_u64(&a, 1, &u));
    assert_true(file_array_u64(&a, 2, &u));
    assert_int_equal(u, 3);
    walk = file_strings_of(&a);
    assert_false(file_strings_next(&walk, &text));
    assert_int_equal(file_get_array(m, "none", &a, &e), STATUS_OK);
    assert_int_equal(a.n, 0);

    /* missing, wrong, and untouched outputs */
    u = 77;
    assert_int_equal(file_get_u64(m, "llama.x", &u, &e), STATUS_NOT_FOUND);
    expect_text(&e, "region: key llama.x: is missing");
    assert_int_equal(file_get_u64(m, "eps", &u, &e), STATUS_CORRUPT);
    expect_text(&e, "key eps: expected an integer >= 0, got f32 0.5");
    assert_int_equal(file_get_u64(m, "types", &u, &e), STATUS_CORRUPT);
    expect_text(&e, "got array of i32 [1, -2, 3]");
    assert_int_equal(file_get_u64(m, "flag", &u, &e), STATUS_CORRUPT);
    assert_int_equal(u, 77);
    assert_int_equal(file_get_str(m, "tokens", &text, &e), STATUS_CORRUPT);
    assert_int_equal(file_get_strings(m, "types", &a, &e), STATUS_CORRUPT);
    expect_text(&e, "expected an array of strings");
    assert_int_equal(file_get_array(m, "eps", &a, &e), STATUS_CORRUPT);
    assert_int_equal(file_get_bool(m, "eps", &flag, &e), STATUS_CORRUPT);
    assert_int_equal(file_get_f64(m, "general.architecture", &f, &e), STATUS_CORRUPT);
    expect_text(&e, "got str \"llama\"");

    /* defaults */
    assert_int_equal(file_get_u64_or(m, "llama.x", 9, &u, &e), STATUS_OK);
    assert_int_equal(u, 9);
    assert_int_equal(file_get_u64_or(m, "eps", 9, &u, &e), STATUS_CORRUPT);
    assert_int_equal(file_get_f64_or(m, "x", 1.5, &f, &e), STATUS_OK);
    assert_true(f == 1.5);
    assert_int_equal(file_get_bool_or(m, "x", true, &flag, &e), STATUS_OK);
    assert_int_equal(file_get_str_or(m, "x", "y", &text, &e), STATUS_OK);
    assert_true(str_is(text, "y"));
    file_close(m);
    sb_fini(&b);
}

/* Every scalar type at its extremes. */
static void test_numbers(void **state)
{
    (void)state;
    sb b;
    sb_init(&b);
    put_start(&b, 2, 0, 9);
    put_key(&b, "u8", FILE_VALUE_U8);
    sb_putc(&b, (char)255);
    put_key(&b, "i8", FILE_VALUE_I8);
    sb_putc(&b, (char)-128);
    put_key(&b, "u16", FILE_VALUE_U16);
    sb_add(&b, "\xFF\xFF", 2);
    put_key(&b, "i16", FILE_VALUE_I16);
    sb_add(&b, "\x00\x80", 2);
    put_key(&b, "i32", FILE_VALUE_I32);
    put_u32(&b, 0x80000000u);
    put_key(&b, "u64", FILE_VALUE_U64);
    put_u64(&b, UINT64_MAX);
    put_key(&b, "i64", FILE_VALUE_I64);
    put_u64(&b, (uint64_t)INT64_MIN);
    put_key(&b, "f64", FILE_VALUE_F64);
    put_u64(&b, 0x7FF0000000000000u); /* infinite */
    put_key(&b, "bool", FILE_VALUE_BOOL);
    sb_putc(&b, 2);
    file_model *m = open_bytes(&b);
    static const struct {
        const char *key, *text;
        bool u64, i64, f64;
    } rows[] = {
        {"u8", "255", true, true, true},
        {"i8", "-128", false, true, true},
        {"u16", "65535", true, true, true},
        {"i16", "-32768", false, true, true},
        {"i32", "-2147483648", false, true, true},
        {"u64", "18446744073709551615", true, false, true},
        {"i64", "-9223372036854775808", false, true, true},
        {"f64", "(not finite)", false, false, false},
        {"bool", "true", false, false, false},
    };
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        uint64_t u;
        int64_t s;
        double f;
        bool flag;
        sb text;
        sb_init(&text);
        file_key_format(&text, file_find_key(m, rows[i].key), 3);
        assert_string_equal(text.data, rows[i].text);
        sb_fini(&text);
        assert_int_equal(file_get_u64(m, rows[i].key, &u, NULL) == STATUS_OK, rows[i].u64);
        assert_int_equal(file_get_i64(m, rows[i].key, &s, NULL) == STATUS_OK, rows[i].i64);
        assert_int_equal(file_get_f64(m, rows[i].key, &f, NULL) == STATUS_OK, rows[i].f64);
        assert_int_equal(file_get_bool(m, rows[i].key, &flag, NULL),
                         STATUS_CORRUPT); /* 2 is no bool */
    }
    file_close(m);
    sb_fini(&b);
}

static void test_format(void **state)
{
    (void)state;
    sb b, text;
    sb_init(&b);
    sb_init(&text);
    build_tiny_gguf(&b);
    file_model *m = open_bytes(&b);
    file_key_format(&text, file_find_key(m, "tokens"), 2);
    assert_string_equal(text.data, "[\"a\", \"\", … (3)]");
    sb_clear(&text);
    file_key_format(&text, file_find_key(m, "none"), 2);
    assert_string_equal(text.data, "[]");
    sb_clear(&text);
    file_key_format(&text, file_find_key(m, "flag"), 2);
    assert_string_equal(text.data, "true");
    assert_string_equal(file_value_type_name(FILE_VALUE_F64), "f64");
    assert_string_equal(file_value_type_name(FILE_VALUE_COUNT), "?");
    sb_fini(&text);
    file_close(m);
    sb_fini(&b);
}

static void test_path_and_folder(void **state)
{
    (void)state;
    char folder[64];
    sb b;
    err e = {0};
    file_model *m, *region;
    sb_init(&b);
    build_tiny_gguf(&b);
    for (int i = 0; i < 4096; i++)
        sb_putc(&b, 0); /* bytes behind the last tensor are nobody's */
    make_folder(folder);
    write_file(folder, "sha256-without-extension", b.data, b.length);
    assert_int_equal(open_in(&m, folder, "sha256-without-extension", &e), STATUS_OK);
    region = open_bytes(&b);
    assert_int_equal(m->parts[0].bytes, b.length);
    assert_memory_equal(file_find_tensor(m, "b.weight")->data,
                        file_find_tensor(region, "b.weight")->data, 68);
    assert_int_equal(file_model_hash(m), file_model_hash(region));
    file_forget(m, file_find_tensor(m, "b.weight"), 0, 68);
    assert_int_equal(file_find_tensor(m, "b.weight")->data[67],
                     68); /* still there when asked again */
    file_close(m);
    file_close(region);

    assert_int_equal(open_in(&m, folder, "", &e), STATUS_NOT_FOUND);
    write_file(folder, "one.gguf", b.data, b.length);
    assert_int_equal(open_in(&m, folder, "", &e), STATUS_OK);
    assert_int_equal(m->n_tensors, 3);
    assert_string_equal(m->folder, folder);
    file_close(m);
    write_file(folder, "two.gguf", b.data, b.length);
    assert_int_equal(open_in(&m, folder, "", &e), STATUS_INVALID);
    expect_text(&e, "got 2 .gguf files");
    assert_int_equal(open_in(&m, folder, "three.gguf", &e), STATUS_NOT_FOUND);
    write_file(folder, "not.gguf", "hello", 5);
    assert_int_equal(open_in(&m, folder, "not.gguf", &e), STATUS_CORRUPT);
    expect_text(&e, "68 65 6c 6c");
    write_file(folder, "empty.gguf", "", 0);
    assert_int_equal(open_in(&m, folder, "empty.gguf", &e), STATUS_CORRUPT);
    remove_folder(folder);
    sb_fini(&b);
}

/* Part `no` of 3 with one tensor each; tensors in all: says `total`. */
static void build_part(sb *b, int no, uint32_t split_no, uint32_t count, uint32_t total)
{
    static const char *const names[] = {"b.weight", "a.weight", "c.norm"};
    sb_clear(b);
    put_start(b, 3, 1, no == 0 ? 5 : 2);
    if (no == 0) {
        put_key_text(b, "general.architecture", "llama");
        put_key_u32(b, "llama.block_count", 2);
        put_key_u32(b, "split.tensors.count", total);
    }
    put_key_u32(b, "split.no", split_no);
    put_key_u32(b, "split.count", count);
    put_tensor(b, names[no], FILE_TYPE_F32, 4, (uint64_t)no + 1, 0);
    put_padding(b, 32);
    put_data(b, 16 * ((size_t)no + 1), (unsigned)no);
}

static void write_parts(const char *folder, sb *b)
{
    for (int i = 0; i < 3; i++) {
        char name[64];
        build_part(b, i, (uint32_t)i, 3, 3);
        snprintf(name, sizeof name, "m-%05d-of-00003.gguf", i + 1);
        write_file(folder, name, b->data, b->length);
    }
}

static void test_split(void **state)
{
    (void)state;
    char folder[64];
    sb b;
    err e = {0};
    file_model *m;
    uint64_t hash = 0, u;
    sb_init(&b);
    make_folder(folder);
    write_parts(folder, &b);
    for (int i = 0; i < 4; i++) { /* any part, or the folder */
        char name[64];
        snprintf(name, sizeof name, "m-%05d-of-00003.gguf", i + 1);
        if (open_in(&m, folder, i < 3 ? name : "", &e) != STATUS_OK)
            fail_msg("%s", e.text);
        assert_int_equal(m->n_parts, 3);
        assert_int_equal(m->n_tensors, 3);
        assert_int_equal(file_get_u64(m, "llama.block_count", &u, &e), STATUS_OK);
        const file_tensor *t = file_find_tensor(m, "c.norm");
        assert_int_equal(t->part, 2);
        assert_int_equal(t->bytes, 48);
        assert_int_equal(t->data[0], 2);
        assert_ptr_equal(t->data, m->parts[2].data + t->offset);
        if (i)
            assert_int_equal(file_model_hash(m), hash);
        hash = file_model_hash(m);
        file_close(m);
    }
    /* the same model in one file */
    sb_clear(&b);
    put_start(&b, 3, 3, 2);
    put_key_text(&b, "general.architecture", "llama");
    put_key_u32(&b, "llama.block_count", 2);
    put_tensor(&b, "b.weight", FILE_TYPE_F32, 4, 1, 0);
    put_tensor(&b, "a.weight", FILE_TYPE_F32, 4, 2, 32);
    put_tensor(&b, "c.norm", FILE_TYPE_F32, 4, 3, 64);
    put_padding(&b, 32);
    put_data(&b, 32, 0);
    put_data(&b, 32, 1);
    put_data(&b, 48, 2);
    m = open_bytes(&b);
    assert_int_equal(file_model_hash(m), hash);
    file_close(m);
    remove_folder(folder);
    sb_fini(&b);
}

static void test_split_wrong(void **state)
{
    (void)state;
    char folder[64];
    sb b;
    err e = {0};
    file_model *m;
    sb_init(&b);
    make_folder(folder);
    write_parts(folder, &b);
    build_part(&b, 0, 0, 3, 4); /* promises a tensor more */
    write_file(folder, "m-00001-of-00003.gguf", b.data, b.length);
    assert_int_equal(open_in(&m, folder, "m-00002-of-00003.gguf", &e), STATUS_CORRUPT);
    expect_text(&e, "split.tensors.count: expected 4, got 3");
    build_part(&b, 0, 0, 3, 3);
    write_file(folder, "m-00001-of-00003.gguf", b.data, b.length);
    write_file(folder, "renamed.gguf", b.data, b.length);
    assert_int_equal(open_in(&m, folder, "renamed.gguf", &e), STATUS_CORRUPT);
    expect_text(&e, "-00001-of-00003.gguf");
    build_part(&b, 1, 2, 3, 3);
    write_file(folder, "m-00002-of-00003.gguf", b.data, b.length);
    assert_int_equal(open_in(&m, folder, "m-00001-of-00003.gguf", &e), STATUS_CORRUPT);
    expect_text(&e, "expected split.no 1");
    write_file(folder, "m-00002-of-00003.gguf", "GGUX", 4);
    assert_int_equal(open_in(&m, folder, "m-00001-of-00003.gguf", &e), STATUS_CORRUPT);
    write_file(folder, "m-00002-of-00003.gguf", "GGUF\3\0\0\0", 8);
    assert_int_equal(open_in(&m, folder, "m-00001-of-00003.gguf", &e), STATUS_CORRUPT);
    expect_text(&e, "m-00002-of-00003.gguf: byte 0");
    build_part(&b, 1, 1, 3, 3);
    write_file(folder, "m-00002-of-00003.gguf", b.data, b.length);
    assert_int_equal(open_in(&m, folder, "m-00001-of-00003.gguf", &e), STATUS_OK);
    file_close(m);
    char path[256];
    snprintf(path, sizeof path, "%s/m-00003-of-00003.gguf", folder);
    unlink(path);
    assert_int_equal(open_in(&m, folder, "m-00001-of-00003.gguf", &e), STATUS_NOT_FOUND);
    expect_text(&e, "part 3");
    build_part(&b, 0, 0, 3, 3);
    assert_int_equal(file_open_memory(&m, b.data, b.length, "region", &e), STATUS_UNSUPPORTED);
    build_part(&b, 0, 0, 1u << 30, 3);
    write_file(folder, "h-00001-of-00003.gguf", b.data, b.length);
    assert_int_equal(open_in(&m, folder, "h-00001-of-00003.gguf", &e), STATUS_CORRUPT);
    remove_folder(folder);
    sb_fini(&b);
}

static uint64_t hash_of(const sb *b)
{
    file_model *m = open_bytes(b);
    uint64_t hash = file_model_hash(m);
    file_close(m);
    return hash;
}

static void test_hash(void **state)
{
    (void)state;
    sb b;
    sb_init(&b);
    build_tiny_gguf(&b);
    uint64_t hash = hash_of(&b);
    const size_t places[] = {b.length - 1, find_text(&b, "llama") /* a value */,
                             find_text(&b, "norm") /* a tensor's name */};
    for (size_t i = 0; i < BASE_COUNT(places); i++) {
        b.data[places[i]] ^= 1;
        assert_int_not_equal(hash_of(&b), hash);
        b.data[places[i]] ^= 1;
    }
    assert_int_equal(hash_of(&b), hash);
    sb_fini(&b);
}

/* The models that the whole project is tested with. */
static status open_model(void *context, const os_dir_entry *entry)
{
    int *n = context;
    size_t length = strlen(entry->name);
    err e = {0};
    file_model *m;
    uint64_t layers;
    if (length < 5 || strcmp(entry->name + length - 5, ".gguf") != 0)
        return STATUS_OK;
    if (open_in(&m, TEST_DATA "/models", entry->name, &e) != STATUS_OK)
        fail_msg("%s", e.text);
    assert_int_equal(file_get_u64(m, "llama.block_count", &layers, &e), STATUS_OK);
    assert_non_null(file_find_tensor(m, "token_embd.weight"));
    assert_int_equal((uintptr_t)file_find_tensor(m, "token_embd.weight")->data % 32, 0);
    touch_everything(m);
    file_close(m);
    (*n)++;
    return STATUS_OK;
}

static void test_own_models(void **state)
{
    (void)state;
    int n = 0;
    err e = {0};
    assert_int_equal(os_list_dir(TEST_DATA "/models", open_model, &n, &e), STATUS_OK);
    assert_true(n >= 9);

    /* one of them in both forms: the same weights but for the order of rows in q and k */
    file_model *gguf = NULL, *folder = NULL;
    assert_int_equal(open_in(&gguf, TEST_DATA "/models", "h24-8-f16.gguf", &e), STATUS_OK);
    assert_int_equal(open_in(&folder, TEST_DATA "/models", "h24-8-f16-hf", &e), STATUS_OK);
    const file_tensor *a = file_find_tensor(gguf, "blk.0.ffn_down.weight");
    const file_tensor *b = file_find_tensor(folder, "model.layers.0.mlp.down_proj.weight");
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(a->bytes, b->bytes);
    assert_memory_equal(a->data, b->data, a->bytes);
    assert_memory_equal(a->dims, b->dims, sizeof a->dims);
    file_close(gguf);
    file_close(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),    cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_metadata), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_format),   cmocka_unit_test(test_path_and_folder),
        cmocka_unit_test(test_split),    cmocka_unit_test(test_split_wrong),
        cmocka_unit_test(test_hash),     cmocka_unit_test(test_own_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
