/*
 * AArch64 NEON: the lanes of vector.h (four registers) and the operations of products.h on registers of 16 bytes, a strip's 16 rows in four.
 * arm_neon.c, arm_dotprod.c and arm_i8mm.c define dot4 and dot4_wide and include this file.
 */
#include <arm_neon.h>

#include "kernel/internal.h"

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL KERNEL_UNROLL

/* ---- lanes ---------------------------------------------------------------------------------------------------------- */

typedef struct lanes {
    float32x4_t v[4];
} lanes;

#define AS_INT   vreinterpretq_u32_f32
#define AS_FLOAT vreinterpretq_f32_u32
#define LANES_EACH(expression)                                                                     \
    lanes y;                                                                                       \
    UNROLL for (int i = 0; i < 4; i++) y.v[i] = (expression);                                      \
    return y

ALWAYS lanes lanes_set(float x)
{
    LANES_EACH(vdupq_n_f32(x));
}
ALWAYS lanes lanes_load(const float *p)
{
    LANES_EACH(vld1q_f32(p + 4 * i));
}
ALWAYS void lanes_store(float *p, lanes a)
{
    UNROLL for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.v[i]);
}
ALWAYS lanes lanes_load_n(const float *p, int n, float fill)
{
    float part[16];
    for (int i = 0; i < 16; i++)
        part[i] = i < n ? p[i] : fill;
    return lanes_load(part);
}
ALWAYS void lanes_store_n(float *p, lanes a, int n)
{
    float part[16];
    lanes_store(part, a);
    memcpy(p, part, (size_t)n * sizeof(float));
}
ALWAYS lanes lanes_add(lanes a, lanes b)
{
    LANES_EACH(vaddq_f32(a.v[i], b.v[i]));
}
ALWAYS lanes lanes_sub(lanes a, lanes b)
{
    LANES_EACH(vsubq_f32(a.v[i], b.v[i]));
}
ALWAYS lanes lanes_mul(lanes a, lanes b)
{
    LANES_EACH(vmulq_f32(a.v[i], b.v[i]));
}
ALWAYS lanes lanes_fma(lanes a, lanes b, lanes c)
{
    LANES_EACH(vfmaq_f32(c.v[i], a.v[i], b.v[i]));
}
ALWAYS lanes lanes_max(lanes a, lanes b)
{
    LANES_EACH(vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]));
}
ALWAYS lanes lanes_min(lanes a, lanes b)
{
    LANES_EACH(vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]));
}
ALWAYS lanes lanes_less(lanes a, lanes b, lanes x, lanes z)
{
    LANES_EACH(vbslq_f32(vcltq_f32(a.v[i], b.v[i]), x.v[i], z.v[i]));
}
ALWAYS lanes lanes_abs(lanes a)
{
    LANES_EACH(vabsq_f32(a.v[i]));
}
ALWAYS lanes lanes_negate(lanes a)
{
    LANES_EACH(vnegq_f32(a.v[i]));
}
ALWAYS lanes lanes_bits_add(lanes a, lanes b)
{
    LANES_EACH(AS_FLOAT(vaddq_u32(AS_INT(a.v[i]), AS_INT(b.v[i]))));
}
ALWAYS lanes lanes_bits_sub(lanes a, lanes b)
{
    LANES_EACH(AS_FLOAT(vsubq_u32(AS_INT(a.v[i]), AS_INT(b.v[i]))));
}
ALWAYS lanes lanes_shift_left(lanes a, int n)
{
    LANES_EACH(AS_FLOAT(vshlq_u32(AS_INT(a.v[i]), vdupq_n_s32(n))));
}
ALWAYS float lanes_fold(lanes a)
{
    float32x4_t s = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
    float32x2_t t = vadd_f32(vget_low_f32(s), vget_high_f32(s));
    return vget_lane_f32(t, 0) + vget_lane_f32(t, 1);
}
ALWAYS float lanes_fold_max(lanes a)
{
    float part[16];
    lanes_store(part, a);
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++)
            part[i] = part[i] > part[i + width] ? part[i] : part[i + width];
    return part[0];
}
ALWAYS lanes lanes_load_half(const uint16_t *p)
{
    LANES_EACH(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))));
}
ALWAYS void lanes_store_half(uint16_t *p, lanes a)
{
    UNROLL for (int i = 0; i < 4; i++)
        vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
}
ALWAYS lanes lanes_load_bytes(const int8_t *p)
{
    int8x16_t q = vld1q_s8(p);
    int16x8_t low = vmovl_s8(vget_low_s8(q)), high = vmovl_s8(vget_high_s8(q));
    const int32x4_t w[4] = {vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)),
                            vmovl_s16(vget_low_s16(high)), vmovl_s16(vget_high_s16(high))};
    LANES_EACH(vcvtq_f32_s32(w[i]));
}
ALWAYS int lanes_store_bytes(int8_t *p, lanes a)
{
    int32x4_t q[4];
    UNROLL for (int i = 0; i < 4; i++) q[i] = vcvtnq_s32_f32(a.v[i]);
    int16x8_t low = vcombine_s16(vqmovn_s32(q[0]), vqmovn_s32(q[1])),
              high = vcombine_s16(vqmovn_s32(q[2]), vqmovn_s32(q[3]));
    vst1q_s8(p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
    return vaddvq_s32(vaddq_s32(vaddq_s32(q[0], q[1]), vaddq_s32(q[2], q[3])));
}

/* ---- the operations of products.h ------------------------------------------------------------------------------------- */

enum {
    GROUP_ROWS = 4,
    VEC_STREAMS = 2,
    FEW_TOKENS = 4,
    MAT_GROUPS = 2,
    MAT_WIDE = 8,
    FLOAT_GROUP = 6
};

typedef float32x4_t vf;

ALWAYS vf vf_as(vi a)
{
    return vreinterpretq_f32_s32(a);
}
ALWAYS vi vi_set32(int32_t x)
{
    return vdupq_n_s32(x);
}
ALWAYS vi vi_set8(char x)
{
    return vreinterpretq_s32_s8(vdupq_n_s8((int8_t)x));
}
ALWAYS vi vi_zero(void)
{
    return vdupq_n_s32(0);
}
ALWAYS vi vi_and(vi a, vi b)
{
    return vandq_s32(a, b);
}
ALWAYS vi vi_or(vi a, vi b)
{
    return vorrq_s32(a, b);
}
ALWAYS vi vi_add32(vi a, vi b)
{
    return vaddq_s32(a, b);
}
ALWAYS vi vi_sub32(vi a, vi b)
{
    return vsubq_s32(a, b);
}
ALWAYS vi vi_shlv32(vi a, vi n)
{
    return vshlq_s32(a, n);
}
ALWAYS vi vi_shl32(vi a, int n)
{
    return vshlq_s32(a, vdupq_n_s32(n));
}
ALWAYS vi vi_sar32(vi a, int n)
{
    return vshlq_s32(a, vdupq_n_s32(-n));
}
ALWAYS vi vi_shr32(vi a, int n)
{
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-n)));
}
#define vi_shr32_by vi_shr32
ALWAYS vi vi_shr16(vi a, int n)
{
    return vreinterpretq_s32_u16(vshlq_u16(vreinterpretq_u16_s32(a), vdupq_n_s16((int16_t)-n)));
}
/* a0·b0 + a1·b1 of the 16-bit halves of every lane */
ALWAYS vi vi_madd16(vi a, vi b)
{
    int16x8_t x = vreinterpretq_s16_s32(a), y = vreinterpretq_s16_s32(b);
    return vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
}
ALWAYS vi vi_table(const uint8_t table[16])
{
    return vreinterpretq_s32_u8(vld1q_u8(table));
}
ALWAYS vi vi_shuffle8(vi table, vi index)
{
    return vreinterpretq_s32_u8(
        vqtbl1q_u8(vreinterpretq_u8_s32(table), vreinterpretq_u8_s32(index)));
}
ALWAYS vi vi_load(const unsigned char *p)
{
    return vreinterpretq_s32_u8(vld1q_u8(p));
}
ALWAYS vi vi_from_u16(const unsigned char *p)
{
    return vreinterpretq_s32_u32(vmovl_u16(vreinterpret_u16_u8(vld1_u8(p))));
}
ALWAYS vi vi_from_u8(const unsigned char *p)
{
    const int32_t four[4] = {p[0], p[1], p[2], p[3]};
    return vld1q_s32(four);
}
/* a < b ? x : y on integers */
ALWAYS vi vi_less(vi a, vi b, vi x, vi y)
{
    return vbslq_s32(vcltq_s32(a, b), x, y);
}
ALWAYS vf vf_zero(void)
{
    return vdupq_n_f32(0);
}
ALWAYS vf vf_set(float x)
{
    return vdupq_n_f32(x);
}
ALWAYS vf vf_add(vf a, vf b)
{
    return vaddq_f32(a, b);
}
ALWAYS vf vf_mul(vf a, vf b)
{
    return vmulq_f32(a, b);
}
ALWAYS vf vf_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}
ALWAYS vf vf_negate(vf a)
{
    return vnegq_f32(a);
}
ALWAYS vf vf_from_int(vi a)
{
    return vcvtq_f32_s32(a);
}
ALWAYS vf vf_load(const unsigned char *p)
{
    return vreinterpretq_f32_u8(vld1q_u8(p));
}
ALWAYS vf vf_load_half(const unsigned char *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}
ALWAYS void vf_store_n(float *p, vf a, int n)
{
    float part[4];
    vst1q_f32(part, a);
    memcpy(p, part, (size_t)n * sizeof(float));
}

typedef struct wide_sums {
    float64x2_t low, high;
} wide_sums;

ALWAYS void sums_clear(wide_sums *sums)
{
    sums->low = sums->high = vdupq_n_f64(0);
}
ALWAYS void sums_add_leaf(wide_sums *sums, vf v)
{
    float64x2_t m = vdupq_n_f64(LEAF_ROUND);
    sums->low = vaddq_f64(sums->low, vsubq_f64(vaddq_f64(vcvt_f64_f32(vget_low_f32(v)), m), m));
    sums->high = vaddq_f64(sums->high, vsubq_f64(vaddq_f64(vcvt_high_f64_f32(v), m), m));
}
/* The same for two leaves: (a + M) + (b − M) is exact, and M's own parity is even both ways. */
ALWAYS void sums_add_pair(wide_sums *sums, const vf *a, const vf *b)
{
    float64x2_t m = vdupq_n_f64(LEAF_ROUND);
    float64x2_t low = vaddq_f64(vcvt_f64_f32(vget_low_f32(*a)), m),
                high = vaddq_f64(vcvt_high_f64_f32(*a), m);
    low = vaddq_f64(low, vsubq_f64(vcvt_f64_f32(vget_low_f32(*b)), m));
    high = vaddq_f64(high, vsubq_f64(vcvt_high_f64_f32(*b), m));
    sums->low = vaddq_f64(sums->low, low);
    sums->high = vaddq_f64(sums->high, high);
}
ALWAYS void sums_store(double *p, const wide_sums *sums)
{
    vst1q_f64(p, sums->low);
    vst1q_f64(p + 2, sums->high);
}

#include "kernel/products.h"
#include "kernel/vector.h"
