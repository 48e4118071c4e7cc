/*
 * kernel/scalar: exp, log, 1/x and their like for one number, by the same sequences as inside the kernels (DESIGN section 7 c, e): the
 * same bits on every machine, without libm.
 */
#ifndef KERNEL_SCALAR_H
#define KERNEL_SCALAR_H

#include "base/base.h"

float kernel_expf(float x);   /* 0 below −60, clamped at 88; ≤ 2 ulp */
float kernel_logf(float x);   /* x > 0 and normal; ≤ 2 ulp */
float kernel_recipf(float x); /* |x| in [2^-100, 2^100]; ≤ 1 ulp */
float kernel_rsqrtf(float x); /* x in [2^-100, 2^100]; ≤ 2 ulp */
float kernel_sigmoidf(float x);

/* Double, of + − × and fma only; for tables made once. */
double kernel_exp64(double x);
double kernel_log64(double x);
double kernel_pow64(double x, double y); /* x > 0 */
double kernel_recip64(double x);
void kernel_sincos64(double x, double *sine, double *cosine); /* |x| ≤ 2^30 */

/* Rotary table of one position: cosines[i] = (float)(cos(position·frequencies[i])·scale), sines alike; half = rotary/2. */
void kernel_rope_table(float *cosines, float *sines, const double *frequencies, int half,
                       int64_t position, double scale);

#endif
