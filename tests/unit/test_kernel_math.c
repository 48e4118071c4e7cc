/*
 * kernel, scalar functions: accuracy against libm in double, and that the lanes of every table use the same sequences.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel/internal.h"
#include "os/os.h"

#include <math.h>

/* Distance in units in the last place of the exact value rounded to float. */
static double ulps(float got, double exact)
{
    int e;
    frexp(exact, &e);
    return fabs((double)got - exact) / ldexp(1, e - 24);
}

static void within(const char *what, double x, float got, double exact, double bound)
{
    if (!(ulps(got, exact) <= bound))
        fail_msg("%s(%.9g): expected %.9g, got %.9g (%.2f ulp)", what, x, exact, (double)got,
                 ulps(got, exact));
}

static void test_exp(void **state)
{
    (void)state;
    for (double x = -60; x <= 88; x += 0.00371) {
        float a = (float)x;
        within("exp", x, kernel_expf(a), exp((double)a), 2);
    }
    assert_true(kernel_expf(0) == 1);
    assert_true(kernel_expf(-60.0001f) == 0 && kernel_expf(-1e30f) == 0 &&
                kernel_expf(-INFINITY) == 0);
    assert_true(kernel_expf(89) == kernel_expf(88) && kernel_expf(1e30f) == kernel_expf(88));
}

static void test_log(void **state)
{
    (void)state;
    for (int i = 0; i < 200000; i++) {
        float a = float_from_bits((uint32_t)(0x00800000 + (hash_u64((uint64_t)i, 1) % 0x7E800000)));
        within("log", (double)a, kernel_logf(a), log((double)a), 2);
    }
    for (int i = -50000; i < 50000; i++) { /* around 1 */
        float a = 1 + (float)i * 0x1p-20f;
        if (i)
            within("log", (double)a, kernel_logf(a), log((double)a), 2);
    }
    assert_true(kernel_logf(1) == 0);
}

static void test_recip_rsqrt(void **state)
{
    (void)state;
    for (int i = 0; i < 200000; i++) {
        uint64_t u = hash_u64((uint64_t)i, 2);
        float a = ldexpf(1 + (float)(u & 0xFFFFFF) * 0x1p-24f, (int)((u >> 24) % 200) - 100);
        within("recip", (double)a, kernel_recipf(a), 1 / (double)a, 1);
        within("recip", -(double)a, kernel_recipf(-a), -1 / (double)a, 1);
        within("rsqrt", (double)a, kernel_rsqrtf(a), 1 / sqrt((double)a), 2);
    }
    for (int i = -100; i <= 100; i++)
        assert_true(kernel_recipf(ldexpf(1, i)) == ldexpf(1, -i));
}

static void test_sigmoid(void **state)
{
    (void)state;
    for (double x = -59; x <= 200; x += 0.0113)
        within("sigmoid", x, kernel_sigmoidf((float)x), 1 / (1 + exp(-(double)(float)x)), 4);
    assert_true(kernel_sigmoidf(-61) == 0 && kernel_sigmoidf(0) == 0.5f);
}

static void near64(const char *what, double x, double got, double exact, double bound)
{
    if (!(fabs(got - exact) <= bound))
        fail_msg("%s(%.17g): expected %.17g, got %.17g", what, x, exact, got);
}

static void test_double(void **state)
{
    (void)state;
    for (double x = -30; x <= 30; x += 0.0173) {
        near64("exp64", x, kernel_exp64(x), exp(x), 4e-16 * exp(x));
        near64("log64", exp(x), kernel_log64(exp(x)), log(exp(x)), 1e-15 + 4e-16 * fabs(x));
        near64("recip64", exp(x), kernel_recip64(exp(x)), 1 / exp(x), 2.3e-16 / exp(x));
        near64("recip64", -exp(x), kernel_recip64(-exp(x)), -1 / exp(x), 2.3e-16 / exp(x));
    }
    for (int i = 0; i < 128; i++)
        near64("pow64", i, kernel_pow64(500000, -i / 64.0), pow(500000, -i / 64.0),
               2e-14 * pow(500000, -i / 64.0));
    for (int i = 0; i < 100000; i++) {
        double s, c, x = (double)(int64_t)hash_u64((uint64_t)i, 3) * (i % 3 ? 0x1p-43 : 0x1p-60);
        kernel_sincos64(x, &s, &c);
        near64("sin64", x, s, sin(x), 4e-16);
        near64("cos64", x, c, cos(x), 4e-16);
    }
}

static void test_rope_table(void **state)
{
    (void)state;
    const double frequencies[3] = {1, 0.01, 0.5};
    float c[3], s[3];
    kernel_rope_table(c, s, frequencies, 3, 131071, 1.25);
    for (int i = 0; i < 3; i++) {
        assert_true(fabs((double)c[i] - 1.25 * cos(131071 * frequencies[i])) < 1e-7);
        assert_true(fabs((double)s[i] - 1.25 * sin(131071 * frequencies[i])) < 1e-7);
    }
}

/* A row of one element is exp, divided by itself; so look at the gates, which are exp and recip put together. */
static void test_lanes_use_the_same(void **state)
{
    (void)state;
    for (int i = 0; kernel_table_at(i); i++) {
        const kernel_table *k = kernel_table_at(i);
        if (!kernel_runs(k, os_cpu_features()))
            continue;
        for (int j = 0; j < 2000; j++) {
            float x = ((float)j - 1000) * 0.07f, one = 1, y, expected = x * kernel_sigmoidf(x);
            k->silu_multiply(&y, &x, &one, 1);
            expected = fabsf(expected) < 0x1p-100f ? 0 : expected;
            assert_memory_equal(&y, &expected, sizeof y);
            double sum = k->exp_sum(&x, 1, 20),
                   e = ((double)kernel_expf(x - 20) + LEAF_ROUND) - LEAF_ROUND;
            assert_memory_equal(&sum, &e, sizeof sum);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_recip_rsqrt),
        cmocka_unit_test(test_sigmoid),
        cmocka_unit_test(test_double),
        cmocka_unit_test(test_rope_table),
        cmocka_unit_test(test_lanes_use_the_same),
    };
    return cmocka_run_group_tests_name("kernel math", tests, NULL, NULL);
}
