/*
 * kernel, types and tiles: dequantisers against numbers made by an independent program (tests/data/quants) and, when SHOAL_FIXTURES names a
 * folder, against outside ones; packing and its inverse for every type, cut and row count.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel/internal.h"

#include <stdio.h>
#include <stdlib.h>

static void *read_file(const char *folder, const char *name, const char *suffix, size_t *bytes)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.%s", folder, name, suffix);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long n = ftell(f);
    assert_true(n > 0);
    rewind(f);
    void *data = malloc((size_t)n);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)n, f), (size_t)n);
    fclose(f);
    *bytes = (size_t)n;
    return data;
}

/* Equal to one unit in the last place. */
static bool close_enough(float a, float b)
{
    int64_t x = (int32_t)float_to_bits(a), y = (int32_t)float_to_bits(b);
    return a == b || (x - y <= 1 && y - x <= 1);
}

static void check_type(const kernel_type *type, const char *folder)
{
    size_t bytes, float_bytes;
    void *blocks = read_file(folder, type->name, "bin", &bytes);
    if (!blocks)
        fail_msg("%s/%s.bin is missing", folder, type->name);
    float *expected = read_file(folder, type->name, "f32", &float_bytes);
    assert_non_null(expected);
    int64_t n = (int64_t)(float_bytes / sizeof(float));
    assert_int_equal(kernel_row_bytes(type, n), bytes);
    float *got = malloc(float_bytes);
    assert_non_null(got);
    kernel_dequantise(type, got, blocks, n);
    for (int64_t i = 0; i < n; i++)
        if (!close_enough(got[i], expected[i]))
            fail_msg("%s[%lld]: expected %.9g, got %.9g", type->name, (long long)i,
                     (double)expected[i], (double)got[i]);
    free(blocks);
    free(expected);
    free(got);
}

static void test_own_numbers(void **state)
{
    (void)state;
    for (int i = 0; i < KERNEL_TYPES; i++)
        check_type(kernel_type_at(i), TEST_DATA "/quants");
}

static void test_fixtures(void **state)
{
    (void)state;
    char folder[1024];
    const char *root = getenv("SHOAL_FIXTURES");
    if (!root) {
        print_message("skipped: SHOAL_FIXTURES is not set (outside quants)\n");
        skip();
        return;
    }
    snprintf(folder, sizeof folder, "%s/quants", root);
    for (int i = 0; i < KERNEL_TYPES; i++)
        if (kernel_type_at(i)->index != TYPE_F32)
            check_type(kernel_type_at(i), folder);
}

static void test_table(void **state)
{
    (void)state;
    for (int i = 0; i < KERNEL_TYPES; i++) {
        const kernel_type *t = kernel_type_at(i);
        assert_int_equal(t->index, i);
        assert_ptr_equal(kernel_type_find(t->number), t);
        assert_int_equal(t->run_units * KERNEL_UNIT % t->block_elements, 0);
        /* tiles have the bytes of the file */
        assert_int_equal(t->header_bytes + t->run_units * t->unit_bytes,
                         KERNEL_TILE_ROWS * t->run_units * KERNEL_UNIT / t->block_elements *
                             t->block_bytes);
        assert_true(t->unit_bytes <= KERNEL_TILE_ROWS * ROW_UNIT_MAX &&
                    t->header_bytes <= KERNEL_TILE_ROWS * ROW_HEADER_MAX);
    }
    assert_null(kernel_type_find(4));
    assert_null(kernel_type_find(-1));
}

/* Rows packed with a cut come back as the dequantised rows, and the strip is exactly as long as promised. */
static void check_cut(const kernel_type *type, const unsigned char *file, int64_t whole,
                      int64_t begin, int64_t end, int rows)
{
    uint64_t strip = kernel_strip_bytes(type, begin, end);
    int64_t strips = kernel_strips(rows);
    unsigned char *tiles = malloc((size_t)strips * strip + 1);
    float *row = malloc((size_t)whole * sizeof(float)),
          *got = malloc((size_t)whole * sizeof(float));
    assert_true(tiles && row && got);
    uint64_t row_bytes = kernel_row_bytes(type, whole);
    memset(tiles, 0xA5, (size_t)strips * strip + 1);
    for (int64_t s = 0; s < strips; s++) {
        int n = (int)BASE_MIN(KERNEL_TILE_ROWS, rows - s * KERNEL_TILE_ROWS);
        kernel_pack(type, tiles + (uint64_t)s * strip,
                    file + (uint64_t)s * KERNEL_TILE_ROWS * row_bytes, row_bytes, n, begin, end);
    }
    assert_int_equal(tiles[(size_t)strips * strip], 0xA5);
    const kernel_matrix m = {type, tiles, rows, begin, end, strip};
    for (int r = 0; r < rows; r++) {
        kernel_dequantise(type, row, file + (uint64_t)r * row_bytes, whole);
        kernel_gather_row(got, &m, r);
        assert_memory_equal(got, row + begin, (size_t)(end - begin) * sizeof(float));
    }
    for (int64_t r = rows; r < strips * KERNEL_TILE_ROWS; r++) { /* padding rows are zeros */
        kernel_gather_row(got, &m, r);
        for (int64_t c = 0; c < end - begin; c++)
            assert_true(got[c] == 0);
    }
    free(tiles);
    free(row);
    free(got);
}

static void test_packing(void **state)
{
    (void)state;
    enum { WHOLE = 768, ROWS = 37 };
    unsigned char *file = malloc(ROWS * WHOLE * 4);
    assert_non_null(file);
    for (int i = 0; i < KERNEL_TYPES; i++) {
        const kernel_type *t = kernel_type_at(i);
        kernel_example_blocks(t, file, ROWS * WHOLE / t->block_elements, (uint64_t)i);
        const int64_t cuts[][2] = {{0, 768},   {0, 32},   {32, 64},   {224, 288},
                                   {256, 512}, {96, 736}, {736, 768}, {64, 64}};
        for (size_t c = 0; c < BASE_COUNT(cuts); c++)
            check_cut(t, file, WHOLE, cuts[c][0], cuts[c][1], ROWS);
        for (int rows = 1; rows <= 17; rows += 5)
            check_cut(t, file, WHOLE, 0, WHOLE, rows);
        if (!t->quantised)
            check_cut(t, file, 747, 32, 747, 19);
    }
    free(file);
}

static void test_leaf(void **state)
{
    (void)state;
    assert_int_equal(kernel_leaf(2048, 0), 128);
    assert_int_equal(kernel_leaf(8192, 0), 256);
    assert_int_equal(kernel_leaf(4096, 0), 256);
    assert_int_equal(kernel_leaf(4096, 64), 64);
    assert_int_equal(kernel_leaf(2880, 0), 64);
    assert_int_equal(kernel_leaf(96, 0), 32);
    assert_int_equal(kernel_leaf(8192, 80), 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_numbers), cmocka_unit_test(test_fixtures),
        cmocka_unit_test(test_table),       cmocka_unit_test(test_packing),
        cmocka_unit_test(test_leaf),
    };
    return cmocka_run_group_tests_name("kernel types", tests, NULL, NULL);
}
