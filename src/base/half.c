/*
 * IEEE half in integer arithmetic (bfloat16: base.h): the same bits on every machine, whatever its rounding mode or instruction set.
 * Kernels have their own vector forms, equal to these.
 */
#include "base/base.h"

typedef union {
    float f;
    uint32_t u;
} bits;

float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = (h >> 10) & 0x1F, mantissa = h & 0x3FF;
    bits x;
    if (exponent == 31) {
        x.u = sign | 0x7F800000 | mantissa << 13;
    } else if (exponent) {
        x.u = sign | (exponent + 112) << 23 | mantissa << 13;
    } else { /* subnormal: mantissa × 2^-24, exact in float */
        x.f = (float)mantissa * 0x1p-24f;
        x.u |= sign;
    }
    return x.f;
}

uint16_t half_from_float(float f)
{
    bits x = {.f = f};
    uint16_t sign = (uint16_t)(x.u >> 16 & 0x8000);
    uint32_t magnitude = x.u & 0x7FFFFFFF;
    if (magnitude > 0x7F800000)
        return sign | 0x7E00;
    if (magnitude >= 0x477FF000) /* 65520 and more round to infinity */
        return sign | 0x7C00;
    if (magnitude < 0x38800000) { /* below 2^-14: a subnormal half counts 2^-24 */
        if (magnitude < 0x33000000)
            return sign;
        uint32_t exponent = magnitude >> 23, mantissa = (magnitude & 0x7FFFFF) | 0x800000;
        uint32_t shift = 126 - exponent, half = 1u << (shift - 1),
                 rest = mantissa & ((1u << shift) - 1);
        uint32_t value = mantissa >> shift;
        value += rest > half || (rest == half && (value & 1));
        return sign | (uint16_t)value;
    }
    uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1);
    return sign | (uint16_t)((rounded - 0x38000000) >> 13);
}
