/*
 * kernel, row functions: every table equals the portable one on odd lengths; fused forms equal their parts; attention does not depend on how
 * its tokens are grouped and is near plain double arithmetic.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel/internal.h"
#include "os/os.h"

#include <math.h>
#include <stdlib.h>

enum { N_MAX = 700 };

static const kernel_table *portable(void)
{
    return kernel_table_at(0);
}

static void each_table(void (*check)(const kernel_table *k))
{
    for (int i = 0; kernel_table_at(i); i++)
        if (kernel_runs(kernel_table_at(i), os_cpu_features()))
            check(kernel_table_at(i));
}

static void numbers(float *x, int n, uint64_t seed)
{
    kernel_example_floats(x, n, seed);
    for (int i = 0; i < n; i++) /* some of every size that activations have */
        x[i] *= (float[]){1, 1e-3f, 30, 1}[hash_u64((uint64_t)i, seed) >> 20 & 3];
}

static void check_rows(const kernel_table *k)
{
    static const int sizes[] = {1,  2,  7,  8,  15,  16,  17,  24,  31,
                                33, 63, 64, 65, 100, 127, 200, 640, 653};
    float a[N_MAX], b[N_MAX], want[N_MAX], got[N_MAX];
    for (size_t s = 0; s < BASE_COUNT(sizes); s++) {
        int n = sizes[s];
        size_t bytes = (size_t)(n + 8) * sizeof(float);
        numbers(a, N_MAX, s);
        numbers(b, N_MAX, s + 100);
#define SAME(call)                                                                                 \
    do {                                                                                           \
        const kernel_table *t = portable();                                                        \
        float *y = want;                                                                           \
        memset(want, 0x5A, sizeof want);                                                           \
        memset(got, 0x5A, sizeof got);                                                             \
        call;                                                                                      \
        t = k;                                                                                     \
        y = got;                                                                                   \
        call;                                                                                      \
        if (memcmp(want, got, bytes) != 0)                                                         \
            fail_msg("%s differs from portable in " #call ", n %d", k->name, n);                   \
    } while (0)
        SAME(t->add(y, a, b, n));
        SAME(t->scale(y, a, 0.37f, n));
        SAME((memcpy(y, b, (size_t)n * sizeof(float)), t->multiply_add(y, a, -1.3f, n)));
        SAME(t->silu_multiply(y, a, b, n));
        SAME(t->gelu_multiply(y, a, b, n));
        SAME(t->rms_norm(y, a, b, n, 1e-5f));
        SAME(t->rms_norm(y, a, NULL, n, 1e-6f));
        SAME(t->layer_norm(y, a, b, a, n, 1e-12f));
        SAME(t->gelu(y, a, n));
        SAME(t->softmax(y, a, n));
        assert_true(k->max(a, n) == portable()->max(a, n));
        assert_int_equal(k->argmax(a, n), portable()->argmax(a, n));
        double sum = k->exp_sum(a, n, k->max(a, n)),
               expected = portable()->exp_sum(a, n, k->max(a, n));
        assert_memory_equal(&sum, &expected, sizeof sum);
    }
}

static void check_quantise(const kernel_table *k)
{
    for (int n = 32; n <= 640; n += 32) {
        float a[N_MAX], b[N_MAX], y[N_MAX];
        kernel_act want[20], got[20], fused[20];
        size_t bytes = (size_t)n / 32 * sizeof(kernel_act);
        numbers(a, n, (uint64_t)n);
        numbers(b, n, (uint64_t)n + 1);
        for (int i = 0; i < 32; i++)
            a[i] *= n % 64 ? 0x1p-70f : 1;
        portable()->quantise(want, a, n);
        k->quantise(got, a, n);
        assert_memory_equal(want, got, bytes);
        k->rms_norm(y, a, b, n, 1e-5f);
        k->quantise(got, y, n);
        k->rms_norm_quantise(fused, a, b, n, 1e-5f);
        assert_memory_equal(fused, got, bytes);
        k->silu_multiply(y, a, b, n);
        k->quantise(got, y, n);
        k->silu_multiply_quantise(fused, a, b, n);
        assert_memory_equal(fused, got, bytes);
    }
}

/* Layer norm and erf-GELU against libm in double. */
static void test_encoder_definition(void **state)
{
    (void)state;
    enum { N = 77 };
    float x[N], w[N], b[N], y[N];
    numbers(x, N, 3);
    numbers(w, N, 4);
    numbers(b, N, 5);
    portable()->layer_norm(y, x, w, b, N, 1e-5f);
    double mean = 0, squares = 0;
    for (int i = 0; i < N; i++)
        mean += (double)x[i] / N;
    for (int i = 0; i < N; i++)
        squares += ((double)x[i] - mean) * ((double)x[i] - mean) / N;
    for (int i = 0; i < N; i++) {
        double want = ((double)x[i] - mean) / sqrt(squares + 1e-5) * (double)w[i] + (double)b[i];
        assert_true(fabs((double)y[i] - want) <= 1e-5 * (1 + fabs(want)));
    }
    for (int i = -3000; i <= 3000; i++) {
        float in = (float)i * 0.01f, out;
        double want = 0.5 * (double)in * erfc(-(double)in / sqrt(2.0));
        portable()->gelu(&out, &in, 1);
        assert_true(fabs((double)out - want) <= 3e-7 * (1 + fabs((double)in)));
    }
}

/* Against the definition: scale, rounding half to even, sums, zeros for small blocks. */
static void test_quantise_definition(void **state)
{
    (void)state;
    float x[32] = {0};
    kernel_act act;
    x[3] = 127;
    x[4] = 2.5f;
    x[5] = -3.5f;
    x[20] = -127;
    portable()->quantise(&act, x, 32);
    assert_true(fabsf(act.scale - 1) < 1e-6f);
    assert_int_equal(act.q[3], 127);
    assert_int_equal(act.q[20], -127);
    assert_true((act.q[4] == 2 || act.q[4] == 3) && (act.q[5] == -4 || act.q[5] == -3));
    assert_int_equal(act.sum[0], act.q[3] + act.q[4] + act.q[5]);
    assert_int_equal(act.sum[1], -127);
    for (int i = 0; i < 32; i++)
        x[i] = 0x1p-61f;
    portable()->quantise(&act, x, 32);
    static const kernel_act zeros;
    assert_memory_equal(&act, &zeros, sizeof act);
    for (int e = -59; e < 100; e++) { /* the greatest is always ±127 */
        for (int i = 0; i < 32; i++)
            x[i] = ldexpf((float)(i + 1) / 32.0f * -1.37f, e);
        portable()->quantise(&act, x, 32);
        assert_int_equal(act.q[31], -127);
        assert_true(act.scale > 0);
    }
}

static void check_rope(const kernel_table *k)
{
    float c[64], s[64], x[3 * 96], want[3 * 96];
    for (int i = 0; i < 64; i++) {
        c[i] = cosf((float)i);
        s[i] = sinf((float)i);
    }
    for (int pairs = 0; pairs < 2; pairs++)
        for (int rotary = 2; rotary <= 96; rotary += 2) {
            numbers(x, 3 * 96, 5);
            memcpy(want, x, sizeof x);
            portable()->rope(want, 3, 96, rotary, c, s, (kernel_rope_pairs)pairs);
            k->rope(x, 3, 96, rotary, c, s, (kernel_rope_pairs)pairs);
            assert_memory_equal(x, want, sizeof x);
            int second = pairs == KERNEL_ROPE_HALVES ? rotary / 2 : 1;
            float y[3 * 96];
            numbers(y, 3 * 96, 5);
            assert_true(fabsf(x[0] - (y[0] * c[0] - y[second] * s[0])) < 1e-4f);
            assert_true(rotary == 96 || x[rotary] == y[rotary]);
        }
}

/* ---- attention --------------------------------------------------------------------------------------------------------- */

typedef struct cache {
    kernel_kv kv;
    int n_kv_heads, key_width, value_width, n_tokens, n_pages;
    unsigned char *memory;
    const void **pages;
    float *keys, *values; /* [n_tokens][n_kv_heads][width] */
} cache;

static void cache_make(cache *c, const kernel_table *k, kernel_kv kv, int heads, int key_width,
                       int value_width, int n_tokens)
{
    uint64_t page = kernel_page_bytes(kv, heads, key_width, value_width);
    *c = (cache){.kv = kv,
                 .n_kv_heads = heads,
                 .key_width = key_width,
                 .value_width = value_width,
                 .n_tokens = n_tokens,
                 .n_pages = (n_tokens + 63) / 64};
    c->memory = malloc((size_t)c->n_pages * page);
    c->pages = malloc((size_t)c->n_pages * sizeof(void *));
    c->keys = malloc((size_t)(n_tokens * heads * key_width) * sizeof(float));
    c->values = malloc((size_t)(n_tokens * heads * value_width) * sizeof(float));
    assert_true(c->memory && c->pages && c->keys && c->values);
    memset(c->memory, 0xFF, (size_t)c->n_pages * page); /* NaN everywhere */
    kernel_example_floats(c->keys, n_tokens * heads * key_width, 1);
    kernel_example_floats(c->values, n_tokens * heads * value_width, 2);
    for (int p = 0; p < c->n_pages; p++)
        c->pages[p] = c->memory + (uint64_t)p * page;
    for (int t = 0; t < n_tokens; t++)
        (kv ? k->kv_store_q8 : k->kv_store)(
            c->memory + (uint64_t)(t / 64) * page, t % 64, c->keys + t * heads * key_width,
            c->values + t * heads * value_width, heads, key_width, value_width);
}

static void cache_drop(cache *c)
{
    free(c->memory);
    free(c->pages);
    free(c->keys);
    free(c->values);
}

/* Element i of row[width] as the cache keeps it. */
static double kept(const cache *c, const float *row, int width, int i)
{
    if (c->kv == KERNEL_KV_F16)
        return (double)half_to_float(half_from_float(row[i]));
    float amax = 0;
    for (int d = i / 32 * 32; d < BASE_MIN(i / 32 * 32 + 32, width); d++)
        amax = fmaxf(amax, fabsf(row[d]));
    float scale = half_to_float(half_from_float(amax * (1.0f / 127.0f)));
    return (double)rintf(row[i] * (127.0f * kernel_recipf(amax))) * (double)scale;
}

/* Plain softmax in double for one query. */
static void plain_attention(double *dst, const cache *c, const float *q, int kv_head, int position,
                            int64_t window, float scale, const float *sink)
{
    double weights[300], max = sink ? (double)*sink : -1e300, sum = 0;
    int first = window > position ? 0 : (int)(position - window + 1);
    for (int t = first; t <= position; t++) {
        double s = 0;
        for (int d = 0; d < c->key_width; d++)
            s += (double)q[d] *
                 kept(c, c->keys + (t * c->n_kv_heads + kv_head) * c->key_width, c->key_width, d);
        weights[t] = s * (double)scale;
        max = weights[t] > max ? weights[t] : max;
    }
    for (int d = 0; d < c->value_width; d++)
        dst[d] = 0;
    sum = sink ? exp((double)*sink - max) : 0;
    for (int t = first; t <= position; t++) {
        double p = exp(weights[t] - max);
        sum += p;
        for (int d = 0; d < c->value_width; d++)
            dst[d] += p * kept(c, c->values + (t * c->n_kv_heads + kv_head) * c->value_width,
                               c->value_width, d);
    }
    for (int d = 0; d < c->value_width; d++)
        dst[d] /= sum;
}

static void attend(const kernel_table *k, kernel_kv kv, const kernel_attention *a)
{
    (kv ? k->attention_q8 : k->attention)(a);
}

static void check_attention_shape(const kernel_table *k, kernel_kv kv, int key_width,
                                  int value_width, int n_heads, int64_t window, bool with_sinks)
{
    enum { T = 11, TOTAL = 200, G = 2 };
    static const float sinks[8] = {0.5f, -1, 2, 0, 1, -2, 0.25f, 3};
    cache c, reference;
    cache_make(&c, k, kv, G, key_width, value_width, TOTAL);
    cache_make(&reference, portable(), kv, G, key_width, value_width, TOTAL);
    assert_memory_equal(c.memory, reference.memory,
                        (size_t)c.n_pages * kernel_page_bytes(kv, G, key_width, value_width));
    int q_row = n_heads * key_width, y_row = n_heads * value_width;
    float *q = malloc((size_t)(T * q_row) * sizeof(float)),
          *y = malloc((size_t)(T * y_row + 4) * sizeof(float));
    float *one = malloc((size_t)(T * y_row + 4) * sizeof(float));
    assert_true(q && y && one);
    kernel_example_floats(q, T * q_row, 4);
    kernel_attention a = {
        y,       q, y_row,     q_row,       T,      TOTAL - T, n_heads,
        G,       1, key_width, value_width, window, 0.2f,      with_sinks ? sinks : NULL,
        c.pages, 0};
    const void *saved = c.pages[0];
    if (window < 64)
        c.pages[0] = NULL; /* not touched */
    attend(k, kv, &a);
    a.dst = one;
    attend(portable(), kv, &a);
    if (memcmp(one, y, (size_t)(T * y_row) * sizeof(float)) != 0)
        fail_msg(
            "%s differs from portable: attention of kv %d, widths %d %d, %d heads, window %lld",
            k->name, (int)kv, key_width, value_width, n_heads, (long long)window);
    for (int t = 0; t < T; t++) { /* token by token and head by head: the same bits */
        for (int h = 0; h < n_heads; h++) {
            kernel_attention single = a;
            single.n_tokens = single.n_heads = 1;
            single.position = TOTAL - T + t;
            single.q = q + t * q_row + h * key_width;
            single.dst = one;
            single.sinks = with_sinks ? sinks + h : NULL;
            attend(k, kv, &single);
            assert_memory_equal(one, y + t * y_row + h * value_width,
                                (size_t)value_width * sizeof(float));
            double expected[256];
            plain_attention(expected, &c, single.q, 1, TOTAL - T + t, window, 0.2f, single.sinks);
            for (int d = 0; d < value_width; d++)
                assert_true(fabs((double)one[d] - expected[d]) < 2e-5);
        }
    }
    c.pages[0] = saved;
    if (window >= TOTAL) { /* all of them as the last one: an encoder's */
        kernel_attention both = a;
        both.end = TOTAL;
        both.dst = y;
        attend(k, kv, &both);
        for (int t = 0; t < T; t++) {
            kernel_attention single = a;
            single.n_tokens = 1;
            single.position = TOTAL - 1;
            single.q = q + t * q_row;
            single.dst = one;
            attend(k, kv, &single);
            assert_memory_equal(one, y + t * y_row, (size_t)y_row * sizeof(float));
        }
    }
    free(q);
    free(y);
    free(one);
    cache_drop(&c);
    cache_drop(&reference);
}

static void check_attention_kv(const kernel_table *k, kernel_kv kv)
{
    static const int widths[][2] = {{64, 64},  {16, 16},  {8, 8},   {24, 40},
                                    {128, 96}, {96, 128}, {72, 200}};
    for (size_t w = 0; w < BASE_COUNT(widths); w++)
        for (int heads = 1; heads <= 7; heads += 2)
            check_attention_shape(k, kv, widths[w][0], widths[w][1], heads, w % 2 ? 37 : INT64_MAX,
                                  w % 3 == 1);
    check_attention_shape(k, kv, 64, 64, 4, 1, false);
    check_attention_shape(k, kv, 64, 64, 4, 64, true);
    check_attention_shape(k, kv, 64, 64, 8, 130, false);
}

static void check_attention(const kernel_table *k)
{
    check_attention_kv(k, KERNEL_KV_F16);
    check_attention_kv(k, KERNEL_KV_Q8_0);
}

/* What q8 keeps of a block of 32 is within amax·(1/254 + 2^-11) of it: half a step, and the rounding of the scale. It takes little more than
 * half the bytes of f16. Blocks of nothing but tiny numbers are zeros; numbers beyond what a scale can hold are clamped. */
static void check_store_q8(const kernel_table *k)
{
    enum { WIDTH = 72, G = 2 };
    float x[G * WIDTH];
    uint64_t bytes = kernel_page_bytes(KERNEL_KV_Q8_0, G, WIDTH, WIDTH);
    void *page = calloc(1, bytes);
    assert_non_null(page);
    assert_true(kernel_page_bytes(KERNEL_KV_Q8_0, 8, 64, 64) * 32 ==
                kernel_page_bytes(KERNEL_KV_F16, 8, 64, 64) * 17);
    for (int round = 0; round < 40; round++) {
        kernel_example_floats(x, G * WIDTH, (uint64_t)round);
        for (int i = 0; i < G * WIDTH; i++)
            x[i] *= ldexpf(1, round % 20 - 6);
        k->kv_store_q8(page, round, x, x, G, WIDTH, WIDTH);
        for (int g = 0; g < G; g++) {
            const kernel_kv_head at = kernel_kv_head_q8(page, g, WIDTH, WIDTH);
            for (int i = 0; i < WIDTH; i++) {
                float amax = 0;
                for (int d = i / 32 * 32; d < BASE_MIN(i / 32 * 32 + 32, WIDTH); d++)
                    amax = fmaxf(amax, fabsf(x[g * WIDTH + d]));
                float key =
                    (float)at.keys[(round / 16 * WIDTH + i) * 16 + round % 16] *
                    half_to_float(at.key_scales[(round / 16 * 3 + i / 32) * 16 + round % 16]);
                float value = (float)at.values[round * WIDTH + i] *
                              half_to_float(at.value_scales[round * 3 + i / 32]);
                assert_true(key == value);
                assert_true(fabsf(key - x[g * WIDTH + i]) <=
                            amax * (1.0f / 254 + 0x1p-11f) + 1e-6f);
            }
        }
    }
    for (int i = 0; i < WIDTH; i++)
        x[i] = i < 32 ? 1e-19f : i == 40 ? -1e9f : 0;
    k->kv_store_q8(page, 5, x, x, 1, WIDTH, WIDTH);
    const kernel_kv_head at = kernel_kv_head_q8(page, 0, WIDTH, WIDTH);
    assert_int_equal(at.values[5 * WIDTH], 0);
    assert_int_equal(at.value_scales[5 * 3], 0);
    assert_int_equal(at.values[5 * WIDTH + 40], -127);
    assert_true(half_to_float(at.value_scales[5 * 3 + 1]) == 65504.0f);
    free(page);
}

static void check_store_clamps(const kernel_table *k)
{
    uint16_t page[64 * (8 + 8)];
    float x[8] = {1e9f, -1e9f, 65504, -65520, 1e-9f, 6e-8f, 1, -0.1f};
    k->kv_store(page, 5, x, x, 1, 8, 8);
    static const float expected[8] = {65504, -65504,        65504, -65504,
                                      0,     5.9604645e-8f, 1,     -0.099975586f};
    for (int d = 0; d < 8; d++) {
        assert_true(half_to_float(page[d * 16 + 5]) == expected[d]);
        assert_true(half_to_float(page[64 * 8 + 5 * 8 + d]) == expected[d]);
    }
}

static void check_argmax(const kernel_table *k)
{
    float x[300];
    for (int i = 0; i < 300; i++)
        x[i] = -1000 - (float)(i % 7);
    assert_int_equal(k->argmax(x, 300), 0);
    x[70] = x[288] = 5;
    assert_int_equal(k->argmax(x, 300), 70);
    x[299] = 6;
    assert_int_equal(k->argmax(x, 300), 299);
    assert_int_equal(k->argmax(x, 1), 0);
    for (int i = 0; i < 300; i++)
        x[i] = -3e38f;
    assert_int_equal(k->argmax(x, 300), 0);
}

static void check_softmax(const kernel_table *k)
{
    float x[53], y[53];
    double sum = 0, expected = 0;
    numbers(x, 53, 3);
    k->softmax(y, x, 53);
    for (int i = 0; i < 53; i++)
        expected += exp((double)x[i] - (double)k->max(x, 53));
    for (int i = 0; i < 53; i++) {
        sum += (double)y[i];
        assert_true(fabs((double)y[i] - exp((double)x[i] - (double)k->max(x, 53)) / expected) <
                    1e-6);
    }
    assert_true(fabs(sum - 1) < 1e-6);
    assert_true(fabs(k->exp_sum(x, 53, k->max(x, 53)) - expected) < 1e-5);
}

/* The sums of the short exp are within the promised error, and the same everywhere; those of exp_sum also of long rows. */
static void check_near(const kernel_table *k)
{
    enum { MOST = 2 * 4096 + 700 };
    static const int sizes[] = {1, 15, 16, 31, 255, 256, 257, 700, 4096, 4100, MOST};
    static float x[MOST];
    numbers(x, MOST, 4);
    for (size_t s = 0; s < BASE_COUNT(sizes); s++)
        for (int step = -1; step < 6; step++) {
            int n = sizes[s];
            float max = k->max(x, n), threshold = max - 5.0f * (float)step;
            double above = 7, portable_above, all = 0, high = 0;
            double sum = k->exp_near(x, n, max, threshold, &above);
            for (int i = 0; i < n; i++) {
                double e = exp((double)(x[i] - max));
                all += e;
                high += x[i] >= threshold ? e : 0;
            }
            assert_true(fabs(sum - all) <= all * 0x1p-13 + n * 0x1p-86);
            assert_true(fabs(above - high) <= high * 0x1p-13 + n * 0x1p-86);
            assert_true(sum == portable()->exp_near(x, n, max, threshold, &portable_above));
            assert_true(above == portable_above);
            assert_true(k->exp_sum(x, n, max) == portable()->exp_sum(x, n, max));
        }
}

#define TEST_OF(name)                                                                              \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        each_table(check_##name);                                                                  \
    }
TEST_OF(rows)
TEST_OF(quantise)
TEST_OF(near)
TEST_OF(rope)
TEST_OF(attention)
TEST_OF(store_clamps)
TEST_OF(store_q8)
TEST_OF(argmax)
TEST_OF(softmax)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_quantise),
        cmocka_unit_test(test_near),
        cmocka_unit_test(test_quantise_definition),
        cmocka_unit_test(test_encoder_definition),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_store_clamps),
        cmocka_unit_test(test_store_q8),
        cmocka_unit_test(test_argmax),
        cmocka_unit_test(test_softmax),
    };
    return cmocka_run_group_tests_name("kernel rows", tests, NULL, NULL);
}
