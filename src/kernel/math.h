/* The scalar sequences of the contract as inline functions, for math.c and portable.c. See math.c. */
#ifndef KERNEL_MATH_H
#define KERNEL_MATH_H

#include "kernel/internal.h"

#define ROUND_MAGIC    12582912.0f /* 1.5·2^23: adding it rounds to an integer, half to even */
#define EXP_LOG2E      1.44269504f
#define EXP_LN2_HIGH   0.693359375f
#define EXP_LN2_LOW    -2.12194440e-4f
#define RECIP_ESTIMATE 0x7EF311C3u
#define RSQRT_ESTIMATE 0x5F375A86u

static inline float math_recip(float x)
{
    uint32_t sign = float_to_bits(x) & 0x80000000u;
    float a = float_from_bits(float_to_bits(x) ^ sign),
          y = float_from_bits(RECIP_ESTIMATE - float_to_bits(a));
    for (int i = 0; i < 4; i++)
        y = __builtin_fmaf(y, __builtin_fmaf(-a, y, 1.0f), y);
    return float_from_bits(float_to_bits(y) | sign);
}

static inline float math_rsqrt(float x)
{
    float y = float_from_bits(RSQRT_ESTIMATE - (float_to_bits(x) >> 1)), half = 0.5f * x;
    for (int i = 0; i < 4; i++)
        y = __builtin_fmaf(y, __builtin_fmaf(-(half * y), y, 0.5f), y);
    return y;
}

static inline float math_exp(float x)
{
    float c = x < 88.0f ? x : 88.0f;
    float z = __builtin_fmaf(c, EXP_LOG2E, ROUND_MAGIC), n = z - ROUND_MAGIC;
    float r = __builtin_fmaf(n, -EXP_LN2_HIGH, c);
    r = __builtin_fmaf(n, -(EXP_LN2_LOW), r);
    float p = __builtin_fmaf(r, 1.98412698e-4f, 1.38888889e-3f);
    p = __builtin_fmaf(p, r, 8.33333377e-3f);
    p = __builtin_fmaf(p, r, 4.16666679e-2f);
    p = __builtin_fmaf(p, r, 1.66666672e-1f);
    p = __builtin_fmaf(p, r, 0.5f);
    p = __builtin_fmaf(p * r, r, r) + 1.0f;
    uint32_t u = float_to_bits(p) + (float_to_bits(z) << 23);
    return x < -60.0f ? 0.0f : float_from_bits(u);
}

#endif
