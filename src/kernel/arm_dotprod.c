/*
 * NEON with the dot product instruction for signed bytes. Unsigned bytes beyond 127 are taken less 128, which is put back by the sum of the
 * activations.
 * The rest: arm_128.h.
 */
#include <arm_neon.h>

typedef int32x4_t vi;

static inline __attribute__((always_inline)) vi dot4(vi acc, vi u, vi x)
{
    return vdotq_s32(acc, vreinterpretq_s8_s32(u), vreinterpretq_s8_s32(x));
}

static inline __attribute__((always_inline)) vi dot4_wide(vi acc, vi u, vi x)
{
    vi ones = vreinterpretq_s32_s8(vdupq_n_s8(1)), top = vreinterpretq_s32_u8(vdupq_n_u8(128));
    vi sum = dot4(vdupq_n_s32(0), ones, x);
    return dot4(vaddq_s32(acc, vshlq_n_s32(sum, 7)), veorq_s32(u, top), x);
}

#include "kernel/arm_128.h"

const kernel_table kernel_dotprod = {
    .name = "dotprod",
    .features = KERNEL_CPU_NEON | KERNEL_CPU_DOTPROD,
    PRODUCT_ROWS,
    V_TABLE_ROWS,
};
