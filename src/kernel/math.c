/*
 * Scalar functions of the numerics contract: fixed sequences of + − × and fma, no division, no libm, so that every IEEE machine gives the
 * same bits. vector.h holds the same sequences on 16 lanes; a test compares them.
 *
 *   recip, rsqrt: an integer estimate from the exponent, then fixed Newton steps by fma
 *   exp: x = n·ln2 + r by the adding of a magic number, degree 7 in r, exponent by integer add
 *   log: mantissa in [√½, √2), odd series of s = (m − 1)·recip(m + 1)
 *   sin, cos, exp, log in double: series long enough for double, three-part reduction; only for tables made once
 */
#include "kernel/math.h"

float kernel_recipf(float x)
{
    return math_recip(x);
}

float kernel_rsqrtf(float x)
{
    return math_rsqrt(x);
}

float kernel_expf(float x)
{
    return math_exp(x);
}

float kernel_sigmoidf(float x)
{
    float e = math_exp(-__builtin_fabsf(x));
    return (x < 0 ? e : 1.0f) * math_recip(1.0f + e);
}

float kernel_logf(float x)
{
    uint32_t u = float_to_bits(x);
    int32_t n =
        (int32_t)(u - 0x3F3504F3u) >> 23; /* 0x3F3504F3 = √½: mantissa ends up in [√½, √2) */
    float m = float_from_bits(u - ((uint32_t)n << 23)), f = m - 1.0f;
    float s = f * math_recip(2.0f + f), z = s * s;
    /* log(1 + f) = 2s + 2s·(z/3 + z²/5 + …) = f − s·(f − 2·(z/3 + …)) */
    float p = __builtin_fmaf(z, 0.15384615f, 0.18181818f);
    p = __builtin_fmaf(z, p, 0.22222222f);
    p = __builtin_fmaf(z, p, 0.28571430f);
    p = __builtin_fmaf(z, p, 0.4f);
    p = __builtin_fmaf(z, p, 0.66666669f);
    p = p * z;
    float low = __builtin_fmaf((float)n, -2.12194440e-4f, -(s * (f - p))); /* n·ln2 in two parts */
    return __builtin_fmaf((float)n, 0.693359375f, f + low);
}

/* ---- double ------------------------------------------------------------------------------------------------------ */

static uint64_t bits64(double d)
{
    uint64_t u;
    memcpy(&u, &d, 8);
    return u;
}

static double double_of(uint64_t u)
{
    double d;
    memcpy(&d, &u, 8);
    return d;
}

static double fma64(double a, double b, double c)
{
    return __builtin_fma(a, b, c);
}

#define ROUND64 6755399441055744.0 /* 1.5·2^52: adding it rounds to an integer */

double kernel_recip64(double x)
{
    uint64_t sign = bits64(x) & 0x8000000000000000u;
    double a = double_of(bits64(x) ^ sign);
    double y = double_of(0x7FDE9F73AABB2400u - bits64(a));
    for (int i = 0; i < 5; i++)
        y = fma64(y, fma64(-a, y, 1.0), y);
    return double_of(bits64(y) | sign);
}

double kernel_exp64(double x)
{
    static const double factorial_recip[] = {1.0 / 2,        1.0 / 6,         1.0 / 24,
                                             1.0 / 120,      1.0 / 720,       1.0 / 5040,
                                             1.0 / 40320,    1.0 / 362880,    1.0 / 3628800,
                                             1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
    if (x < -700.0)
        return 0;
    x = x > 700.0 ? 700.0 : x;
    double z = fma64(x, 1.4426950408889634, ROUND64), n = z - ROUND64;
    double r = fma64(n, -0.6931471803691238, x); /* ln2 in two parts */
    r = fma64(n, -1.9082149292705877e-10, r);
    double p = factorial_recip[11];
    for (int i = 10; i >= 0; i--)
        p = fma64(p, r, factorial_recip[i]);
    p = fma64(p * r, r, r) + 1.0;
    return double_of(bits64(p) + (bits64(z) << 52));
}

double kernel_log64(double x)
{
    uint64_t u = bits64(x);
    int64_t n = (int64_t)(u - 0x3FE6A09E667F3BCDu) >> 52;
    double m = double_of(u - ((uint64_t)n << 52)), f = m - 1.0;
    double s = f * kernel_recip64(2.0 + f), z = s * s, p = 0;
    static const double odd[] = {2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11,
                                 2.0 / 13, 2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21};
    for (int i = 9; i >= 0; i--)
        p = fma64(p, z, odd[i]);
    p = p * z;
    double low = fma64((double)n, 1.9082149292705877e-10, -(s * (f - p)));
    return fma64((double)n, 0.6931471803691238, f + low);
}

double kernel_pow64(double x, double y)
{
    return kernel_exp64(y * kernel_log64(x));
}

void kernel_sincos64(double x, double *sine, double *cosine)
{
    static const double sin_series[] = {
        -1.0 / 6,        1.0 / 120,        -1.0 / 5040,         1.0 / 362880,
        -1.0 / 39916800, 1.0 / 6227020800, -1.0 / 1307674368000};
    static const double cos_series[] = {
        -1.0 / 2,       1.0 / 24,        -1.0 / 720,         1.0 / 40320,
        -1.0 / 3628800, 1.0 / 479001600, -1.0 / 87178291200, 1.0 / 20922789888000};
    double z = fma64(x, 0.6366197723675814, ROUND64), n = z - ROUND64;
    double r = fma64(n, -1.5707963267341256, x); /* π/2 in three parts of 33 bits and the rest */
    r = fma64(n, -6.077100506303966e-11, r);
    r = fma64(n, -2.0222662487959506e-21, r);
    double square = r * r, s = sin_series[6], c = cos_series[7];
    for (int i = 5; i >= 0; i--)
        s = fma64(s, square, sin_series[i]);
    for (int i = 6; i >= 0; i--)
        c = fma64(c, square, cos_series[i]);
    s = fma64(s * square, r, r);
    c = fma64(c, square, 1.0);
    uint64_t quadrant = bits64(z) & 3;
    *sine = (quadrant & 1 ? c : s) * (quadrant & 2 ? -1.0 : 1.0);
    *cosine = (quadrant & 1 ? s : c) * ((quadrant + 1) & 2 ? -1.0 : 1.0);
}

void kernel_rope_table(float *cosines, float *sines, const double *frequencies, int half,
                       int64_t position, double scale)
{
    for (int i = 0; i < half; i++) {
        double s, c;
        kernel_sincos64((double)position * frequencies[i], &s, &c);
        cosines[i] = (float)(c * scale);
        sines[i] = (float)(s * scale);
    }
}
