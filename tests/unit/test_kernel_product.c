/*
 * kernel, products: every table equals the portable one bit for bit on odd shapes, T tokens equal T single ones, exact sums do not depend on
 * the cut, and the portable numbers are near a plain double sum.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel/internal.h"
#include "os/os.h"

#include <stdlib.h>

_Static_assert(KERNEL_CPU_AVX2 == (int)OS_CPU_AVX2 && KERNEL_CPU_AVX512 == (int)OS_CPU_AVX512 &&
                   KERNEL_CPU_AVX512_VNNI == (int)OS_CPU_AVX512_VNNI &&
                   KERNEL_CPU_AVX_VNNI == (int)OS_CPU_AVX_VNNI &&
                   KERNEL_CPU_NEON == (int)OS_CPU_NEON &&
                   KERNEL_CPU_DOTPROD == (int)OS_CPU_DOTPROD && KERNEL_CPU_I8MM == (int)OS_CPU_I8MM,
               "feature bits of kernel.h and os.h");

/* One matrix, its activations and room for results. */
typedef struct bench {
    kernel_matrix m;
    unsigned char *file, *tiles;
    float *x;
    kernel_act *act;
    int64_t columns, whole;
} bench;

static void *must(void *p)
{
    assert_non_null(p);
    return p;
}

static void make(bench *b, const kernel_type *type, int rows, int64_t whole, int64_t begin,
                 int64_t end, int tokens, uint64_t seed)
{
    int64_t columns = (end - begin + 31) / 32 * 32;
    uint64_t row_bytes = kernel_row_bytes(type, whole),
             strip = kernel_strip_bytes(type, begin, end);
    b->columns = columns;
    b->whole = whole;
    b->file = must(malloc((size_t)rows * row_bytes));
    b->tiles = must(malloc((size_t)((uint64_t)kernel_strips(rows) * strip)));
    b->x = must(calloc((size_t)(tokens * columns), sizeof(float)));
    b->act = must(malloc((size_t)tokens * kernel_act_bytes(columns)));
    kernel_example_blocks(type, b->file, rows * whole / type->block_elements, seed);
    for (int64_t s = 0; s < kernel_strips(rows); s++)
        kernel_pack(type, b->tiles + (uint64_t)s * strip, b->file + (uint64_t)s * 16 * row_bytes,
                    row_bytes, (int)BASE_MIN(16, rows - s * 16), begin, end);
    b->m = (kernel_matrix){type, b->tiles, rows, begin, end, strip};
    kernel_example_floats(b->x, tokens * columns, seed + 1);
    for (int t = 0; t < tokens; t++) {
        for (int64_t c = end - begin; c < columns; c++)
            b->x[t * columns + c] = 0;
        kernel_table_at(0)->quantise(b->act + t * columns / 32, b->x + t * columns, columns);
    }
}

static void drop(bench *b)
{
    free(b->file);
    free(b->tiles);
    free(b->x);
    free(b->act);
}

static kernel_product product_of(const bench *b, kernel_output output, bool exact, int leaf,
                                 int tokens, void *dst, int64_t stride)
{
    bool floats = exact || !b->m.type->quantised;
    return (kernel_product){&b->m,
                            output,
                            exact,
                            leaf,
                            tokens,
                            floats ? (const void *)b->x : (const void *)b->act,
                            floats ? (uint64_t)b->columns * sizeof(float)
                                   : kernel_act_bytes(b->columns),
                            dst,
                            stride};
}

/* Runs one product of every kind on a table and compares it with portable; guards around the results stay whole. */
static void compare(const bench *b, const kernel_table *k, int tokens, int leaf)
{
    int64_t stride = b->m.rows + 3, n = tokens * stride;
    for (int exact = 0; exact < 2; exact++)
        for (int output = KERNEL_F32; output <= KERNEL_SUMS_F32; output++) {
            size_t size = output == KERNEL_SUMS ? sizeof(double) : sizeof(float),
                   bytes = (size_t)n * size;
            unsigned char *expected = must(malloc(bytes)), *got = must(malloc(bytes));
            memset(expected, 0x7E, bytes);
            memset(got, 0x7E, bytes);
            kernel_product p =
                product_of(b, (kernel_output)output, exact, leaf, tokens, expected, stride);
            assert_true(kernel_multiply(kernel_table_at(0), &p, 0, kernel_strips(b->m.rows)));
            p.dst = got;
            int64_t half = kernel_strips(b->m.rows) / 2;
            assert_true(kernel_multiply(k, &p, 0, half));
            assert_true(kernel_multiply(k, &p, half, kernel_strips(b->m.rows)));
            if (memcmp(expected, got, bytes) != 0)
                fail_msg("%s differs from portable: %s, %lld rows, columns %lld..%lld, %d tokens, "
                         "exact %d, output %d, leaf %d",
                         k->name, b->m.type->name, (long long)b->m.rows,
                         (long long)b->m.column_begin, (long long)b->m.column_end, tokens, exact,
                         output, leaf);
            free(expected);
            free(got);
        }
}

static void each_table(void (*check)(const bench *b, const kernel_table *k, int tokens, int leaf),
                       const bench *b, int tokens, int leaf)
{
    for (int i = 1; kernel_table_at(i); i++)
        if (kernel_runs(kernel_table_at(i), os_cpu_features()))
            check(b, kernel_table_at(i), tokens, leaf);
}

static void test_tables_agree(void **state)
{
    (void)state;
    for (int i = 1; kernel_table_at(i); i++)
        if (!kernel_runs(kernel_table_at(i), os_cpu_features()))
            print_message("skipped: this machine cannot run %s\n", kernel_table_at(i)->name);
    static const struct {
        int rows, begin, end, tokens, leaf;
    } shapes[] = {{1, 0, 32, 1, 32},      {16, 0, 256, 2, 64},    {17, 32, 96, 3, 32},
                  {40, 0, 768, 1, 256},   {33, 224, 544, 17, 32}, {48, 256, 768, 8, 128},
                  {7, 64, 768, 5, 64},    {31, 0, 512, 13, 256},  {16, 32, 64, 7, 32},
                  {5, 480, 768, 65, 32},  {130, 0, 512, 1, 64},   {100, 96, 352, 1, 32},
                  {64, 512, 768, 70, 256}};
    for (int type = 0; type < KERNEL_TYPES; type++)
        for (size_t s = 0; s < BASE_COUNT(shapes); s++) {
            bench b;
            make(&b, kernel_type_at(type), shapes[s].rows, 768, shapes[s].begin, shapes[s].end,
                 shapes[s].tokens, 77 + s);
            each_table(compare, &b, shapes[s].tokens, shapes[s].leaf);
            drop(&b);
        }
}

/* Float matrices may be any number of columns wide. */
static void test_ragged_floats(void **state)
{
    (void)state;
    static const int widths[] = {1, 3, 31, 33, 46, 255, 301};
    for (int type = 0; type < KERNEL_TYPES; type++)
        for (size_t w = 0; w < BASE_COUNT(widths) && !kernel_type_at(type)->quantised; w++)
            for (int tokens = 1; tokens <= 9; tokens += 4) {
                bench b;
                make(&b, kernel_type_at(type), 19, widths[w], 0, widths[w], tokens, w);
                each_table(compare, &b, tokens, 32);
                drop(&b);
            }
}

enum { MOST_EXTREME = 19 };

/* The greatest numbers there are: no sum of 16 bits may saturate. The bytes of tiles are filled whole, scales included. */
static void check_extreme(const kernel_type *t, int fill, int sign, int tokens)
{
    bench b;
    float expected[MOST_EXTREME * 16], got[MOST_EXTREME * 16];
    make(&b, t, 16, 512, 0, 512, tokens, 5);
    memset(b.tiles, fill, (size_t)b.m.strip_bytes);
    for (int i = 0; i < tokens * 16; i++) {
        for (int j = 0; j < 32; j++)
            b.act[i].q[j] = (int8_t)(sign == 0 ? 127 : sign == 1 ? -127 : j & 1 ? -127 : 127);
        b.act[i].sum[0] = b.act[i].sum[1] = (int16_t)(sign == 0 ? 2032 : sign == 1 ? -2032 : 0);
        b.act[i].scale = 1;
    }
    kernel_product p = product_of(&b, KERNEL_F32, false, 32, tokens, expected, 16);
    kernel_multiply(kernel_table_at(0), &p, 0, 1);
    p.dst = got;
    for (int k = 1; kernel_table_at(k); k++) {
        if (!kernel_runs(kernel_table_at(k), os_cpu_features()))
            continue;
        kernel_multiply(kernel_table_at(k), &p, 0, 1);
        for (int i = 0; i < tokens * 16; i++)
            if (memcmp(&got[i], &expected[i], sizeof got[i]) != 0)
                fail_msg("%s, %s, fill %02x, sign %d, %d tokens: expected %a, got %a",
                         kernel_table_at(k)->name, t->name, (unsigned)fill, sign, tokens,
                         (double)expected[i], (double)got[i]);
    }
    drop(&b);
}

static void test_extremes(void **state)
{
    (void)state;
    static const int tokens[] = {1, 3, MOST_EXTREME}; /* one, few, and many, in wholes and rests */
    static const int fills[] = {0x00, 0x3F, 0x40, 0x70, 0x7B,
                                0x80, 0xBF, 0xC0, 0xF0, 0xFB}; /* as f16 all finite */
    for (int type = 0; type < KERNEL_TYPES; type++)
        for (size_t f = 0; f < BASE_COUNT(fills) && kernel_type_at(type)->quantised; f++)
            for (int sign = 0; sign < 3; sign++)
                for (size_t n = 0; n < BASE_COUNT(tokens); n++)
                    check_extreme(kernel_type_at(type), fills[f], sign, tokens[n]);
}

static void test_tokens_are_independent(void **state)
{
    (void)state;
    for (int k = 0; kernel_table_at(k); k++) {
        if (!kernel_runs(kernel_table_at(k), os_cpu_features()))
            continue;
        for (int type = 0; type < KERNEL_TYPES; type++) {
            enum { ROWS = 35, T = 11 };
            bench b;
            float all[T * ROWS], one[ROWS];
            make(&b, kernel_type_at(type), ROWS, 512, 0, 512, T, 3);
            kernel_product p = product_of(&b, KERNEL_F32, false, 0, T, all, ROWS);
            kernel_multiply(kernel_table_at(k), &p, 0, 3);
            for (int t = 0; t < T; t++) {
                p.n_tokens = 1;
                p.dst = one;
                p.x = kernel_type_at(type)->quantised ? (const void *)(b.act + t * 16)
                                                      : (const void *)(b.x + t * 512);
                kernel_multiply(kernel_table_at(k), &p, 0, 3);
                assert_memory_equal(one, all + t * ROWS, sizeof one);
            }
            drop(&b);
        }
    }
}

/* Shards of any cut add up to the whole, bit for bit, in any order. */
static void test_sums_of_shards(void **state)
{
    (void)state;
    static const int cuts[] = {0, 64, 448, 512, 768};
    for (int type = 0; type < KERNEL_TYPES; type++)
        for (int exact = 0; exact < 2; exact++) {
            enum { ROWS = 21, T = 2 };
            bench whole, shard;
            const kernel_type *t = kernel_type_at(type);
            double sums[T * ROWS] = {0}, part[T * ROWS];
            float expected[T * ROWS], got[T * ROWS];
            make(&whole, t, ROWS, 768, 0, 768, T, 8);
            kernel_product p = product_of(&whole, KERNEL_SUMS_F32, exact, 64, T, expected, ROWS);
            assert_true(kernel_multiply(kernel_table_at(0), &p, 0, 2));
            for (size_t c = BASE_COUNT(cuts) - 1; c > 0; c--) {
                make(&shard, t, ROWS, 768, cuts[c - 1], cuts[c], T, 8);
                for (int token = 0; token < T; token++) {
                    int64_t n = cuts[c] - cuts[c - 1];
                    memcpy(shard.x + token * n, whole.x + token * 768 + cuts[c - 1],
                           (size_t)n * sizeof(float));
                    memcpy(shard.act + token * n / 32, whole.act + (token * 768 + cuts[c - 1]) / 32,
                           (size_t)n / 32 * sizeof(kernel_act));
                }
                kernel_product q = product_of(&shard, KERNEL_SUMS, exact, 64, T, part, ROWS);
                assert_true(kernel_multiply(kernel_table_at(0), &q, 0, 2));
                for (int i = 0; i < T * ROWS; i++)
                    sums[i] += part[i];
                drop(&shard);
            }
            assert_true(kernel_finish(got, sums, T * ROWS));
            assert_memory_equal(got, expected, sizeof got);
            drop(&whole);
        }
}

static double absolute(double x)
{
    return x < 0 ? -x : x;
}

/* Against a plain double sum over the dequantised weights. */
static void test_near_the_truth(void **state)
{
    (void)state;
    for (int type = 0; type < KERNEL_TYPES; type++) {
        enum { ROWS = 9, K = 512 };
        bench b;
        float exact[ROWS], serving[ROWS], row[K];
        const kernel_type *t = kernel_type_at(type);
        make(&b, t, ROWS, K, 0, K, 1, 12);
        kernel_product p = product_of(&b, KERNEL_F32, true, 0, 1, exact, ROWS);
        kernel_multiply(kernel_table_at(0), &p, 0, 1);
        p = product_of(&b, KERNEL_F32, false, 0, 1, serving, ROWS);
        kernel_multiply(kernel_table_at(0), &p, 0, 1);
        for (int r = 0; r < ROWS; r++) {
            double sum = 0, size = 0, largest = 0;
            kernel_dequantise(t, row, b.file + (uint64_t)r * kernel_row_bytes(t, K), K);
            for (int i = 0; i < K; i++) {
                sum += (double)row[i] * (double)b.x[i];
                size += absolute((double)row[i] * (double)b.x[i]);
                largest = absolute((double)row[i]) > largest ? absolute((double)row[i]) : largest;
            }
            assert_true(absolute((double)exact[r] - sum) <= 1e-6 * size);
            /* int8 activations: half a step of at most 8/127 for each of K columns at the very worst */
            assert_true(absolute((double)serving[r] - sum) <= largest * K * 4.1 / 127 * 0.25);
        }
        drop(&b);
    }
}

static void test_out_of_range(void **state)
{
    (void)state;
    const double bad[] = {0x1p29, -0x1p29, 1e300, -__builtin_inf(), __builtin_nan("")};
    for (size_t i = 0; i < BASE_COUNT(bad); i++) {
        double sums[3] = {1, bad[i], 2};
        float y[3];
        assert_false(kernel_finish(y, sums, 3));
        assert_true(y[0] == 1 && y[2] == 2);
    }
    for (int k = 0; kernel_table_at(k); k++) {
        if (!kernel_runs(kernel_table_at(k), os_cpu_features()))
            continue;
        bench b;
        float y[16];
        make(&b, kernel_type_find(0), 16, 32, 0, 32, 1, 1);
        for (int i = 0; i < 32; i++)
            b.x[i] = 0x1p40f;
        kernel_product p = product_of(&b, KERNEL_SUMS_F32, false, 32, 1, y, 16);
        assert_false(kernel_multiply(kernel_table_at(k), &p, 0, 1));
        drop(&b);
    }
}

static void test_select(void **state)
{
    (void)state;
    const kernel_table *k;
    err e;
    assert_int_equal(kernel_select(&k, 0, NULL, &e), STATUS_OK);
    assert_string_equal(k->name, "portable");
    assert_int_equal(kernel_select(&k, os_cpu_features(), "", &e), STATUS_OK);
    assert_int_equal(kernel_select(&k, 0, "no-such", &e), STATUS_NOT_FOUND);
    assert_non_null(strstr(e.text, "portable"));
    for (int i = 0; kernel_table_at(i); i++) {
        assert_int_equal(
            kernel_select(&k, kernel_table_at(i)->features, kernel_table_at(i)->name, &e),
            STATUS_OK);
        assert_ptr_equal(k, kernel_table_at(i));
        if (k->features)
            assert_int_equal(kernel_select(&k, 0, kernel_table_at(i)->name, &e),
                             STATUS_UNSUPPORTED);
    }
}

static bool broken_product(const kernel_product *p, int64_t begin, int64_t end)
{
    bool good = kernel_product_portable(p, begin, end);
    if (p->output == KERNEL_F32)
        ((float *)p->dst)[0] *= 1.0000001f;
    return good;
}

static void test_known_answers(void **state)
{
    (void)state;
    for (int i = 0; kernel_table_at(i); i++) {
        err wrong;
        if (kernel_runs(kernel_table_at(i), os_cpu_features()) &&
            kernel_self_test(kernel_table_at(i), &wrong) != STATUS_OK)
            fail_msg("%s", wrong.text);
    }
    /* a table with one wrong function is found out, by name */
    kernel_table broken = *kernel_table_at(0);
    err e;
    broken.product[TYPE_Q4_0] = broken_product;
    assert_int_equal(kernel_self_test(&broken, &e), STATUS_INTERNAL);
    assert_non_null(strstr(e.text, "'Q4_0'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_agree),   cmocka_unit_test(test_ragged_floats),
        cmocka_unit_test(test_extremes),       cmocka_unit_test(test_tokens_are_independent),
        cmocka_unit_test(test_sums_of_shards), cmocka_unit_test(test_near_the_truth),
        cmocka_unit_test(test_out_of_range),   cmocka_unit_test(test_select),
        cmocka_unit_test(test_known_answers),
    };
    return cmocka_run_group_tests_name("kernel products", tests, NULL, NULL);
}
