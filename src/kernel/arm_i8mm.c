/*
 * NEON with the dot product of unsigned and signed bytes that comes with I8MM.
 * The rest: arm_128.h.
 */
#include <arm_neon.h>

typedef int32x4_t vi;

static inline __attribute__((always_inline)) vi dot4(vi acc, vi u, vi x)
{
    return vusdotq_s32(acc, vreinterpretq_u8_s32(u), vreinterpretq_s8_s32(x));
}

#define dot4_wide dot4

#include "kernel/arm_128.h"

const kernel_table kernel_i8mm = {
    .name = "i8mm",
    .features = KERNEL_CPU_NEON | KERNEL_CPU_DOTPROD | KERNEL_CPU_I8MM,
    PRODUCT_ROWS,
    V_TABLE_ROWS,
};
