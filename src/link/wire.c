/*
 * Values on the wire: doubles that are multiples of 2^-24, in one of these forms (little-endian):
 *   f64    as they are
 *   int48  48-bit two's complement counts of 2^-24
 *   blocks 64 values (the last block of a frame may have fewer) behind a byte: 4, and they are int32 counts of 2^-24; or 8, and they are f64,
 *          where one is no such count. So the length of a frame depends on its values
 *   bf16   rounded to even to 8 significant bits: the upper half of a float
 *   q8     units of 32: a scale (bf16) and 32 int8 counts of it
 * What comes out is a multiple of 2^-24 again, also of the lossy forms: rounding a multiple to fewer bits, or to a multiple of a scale that
 * is one, leaves one. So adding is exact in any order whatever the form, and only the range has to be watched.
 *
 * The loops over f64 and int48 are in loops.h, compiled here and for AVX2. Not here: choosing a form (ops.c).
 */
#define LANES 2
#include "link/loops.h"

#include <stdatomic.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "f64 goes to the wire as it is");

#define Q8_BLOCK 32

static const link_loops baseline = {LOOPS_ROWS};

/* The loops for this CPU; finding them twice does no harm. */
static const link_loops *loops(void)
{
    static _Atomic(const link_loops *) chosen;
    const link_loops *l = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (l)
        return l;
    l = &baseline;
#if defined(__x86_64__)
    if (os_cpu_features() & OS_CPU_AVX2)
        l = &link_loops_avx2;
#endif
    atomic_store_explicit(&chosen, l, memory_order_relaxed);
    return l;
}

const link_loops *link_loops_baseline(void)
{
    return &baseline;
}

link_unit link_wire_unit(link_wire wire)
{
    static const link_unit units[] = {[LINK_WIRE_F64] = {8, 1},
                                      [LINK_WIRE_INT48] = {6, 1},
                                      [LINK_WIRE_BLOCKS] = {1, 0},
                                      [LINK_WIRE_BF16] = {2, 1},
                                      [LINK_WIRE_Q8] = {2 + Q8_BLOCK, Q8_BLOCK}};
    REQUIRE((size_t)wire < BASE_COUNT(units));
    return units[wire];
}

size_t link_wire_bytes(link_wire wire, size_t n)
{
    link_unit u = link_wire_unit(wire);
    if (wire == LINK_WIRE_BLOCKS)
        return 8 * n + (n + LINK_BLOCK - 1) / LINK_BLOCK;
    return (n + u.values - 1) / u.values * u.bytes;
}

double link_wire_limit(link_wire wire)
{
    return wire == LINK_WIRE_INT48 ? LIMIT_48 : LIMIT;
}

bool link_in_range(const double *values, size_t n, link_wire wire)
{
    return loops()->in_range(values, n, link_wire_limit(wire));
}

size_t link_pack_blocks(unsigned char *out, const double *values, size_t n)
{
    return loops()->pack_blocks(out, values, n);
}

size_t link_block_bytes(unsigned char form, size_t m)
{
    return form == 4 || form == 8 ? 1 + form * m : 0;
}

bool link_take_block(double *values, const unsigned char *in, unsigned char form, size_t m,
                     bool add)
{
    if (form == 4)
        return loops()->take_32(values, in, m, add);
    return (add ? link_add : link_unpack)(values, in, m, LINK_WIRE_F64);
}

/* ---- the lossy forms ------------------------------------------------------------------------------------------- */

static double get_bf16(const unsigned char *in)
{
    return (double)bf16_to_float(base_load_u16(in));
}

static void put_bf16(unsigned char *out, double v)
{
    base_store_u16(out, bf16_from_float((float)v));
}

/* The least multiple of 2^-24 with eight significant bits that is not below top / 127. */
static double q8_scale(double top)
{
    uint64_t units = (uint64_t)ceil(top * UNIT / 127), up = 0;
    while (units >> up > 255)
        up++;
    units = (units + (UINT64_C(1) << up) - 1) >> up;
    return (double)(units << up) * (1.0 / UNIT);
}

static void pack_block(unsigned char out[2 + Q8_BLOCK], const double *values, size_t n)
{
    double top = 0;
    for (size_t i = 0; i < n; i++)
        top = fabs(values[i]) > top ? fabs(values[i]) : top;
    double scale = q8_scale(top), inverse = scale > 0 ? 1 / scale : 0;
    put_bf16(out, scale);
    for (size_t i = 0; i < Q8_BLOCK; i++)
        out[2 + i] = (unsigned char)(int8_t)(i < n ? rint(values[i] * inverse) : 0);
}

bool link_pack(unsigned char *out, const double *values, size_t n, link_wire wire)
{
    REQUIRE(wire != LINK_WIRE_BLOCKS);
    if (wire == LINK_WIRE_INT48)
        return loops()->pack_48(out, values, n);
    if (!link_in_range(values, n, wire))
        return false;
    if (wire == LINK_WIRE_F64 && n > 0)
        memcpy(out, values, 8 * n);
    if (wire == LINK_WIRE_BF16)
        for (size_t i = 0; i < n; i++)
            put_bf16(out + 2 * i, values[i]);
    if (wire == LINK_WIRE_Q8)
        for (size_t i = 0; i < n; i += Q8_BLOCK)
            pack_block(out + i / Q8_BLOCK * (2 + Q8_BLOCK), values + i,
                       BASE_MIN(n - i, (size_t)Q8_BLOCK));
    return true;
}

static bool take_lossy(double *values, const unsigned char *in, size_t n, link_wire wire, bool add)
{
    bool good = true;
    double scale = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *block = in + i / Q8_BLOCK * (2 + Q8_BLOCK);
        if (wire == LINK_WIRE_Q8 && i % Q8_BLOCK == 0)
            scale = get_bf16(block);
        double v =
            wire == LINK_WIRE_Q8 ? scale * (int8_t)block[2 + i % Q8_BLOCK] : get_bf16(in + 2 * i);
        good &= fabs(v) < LIMIT;
        values[i] = add ? values[i] + v : v;
        good &= fabs(values[i]) < LIMIT;
    }
    return good;
}

bool link_unpack(double *values, const unsigned char *in, size_t n, link_wire wire)
{
    if (wire == LINK_WIRE_INT48)
        return loops()->take_48(values, in, n, false);
    if (wire != LINK_WIRE_F64)
        return take_lossy(values, in, n, wire, false);
    if (n > 0)
        memcpy(values, in, 8 * n);
    return link_in_range(values, n, wire);
}

bool link_add(double *values, const unsigned char *in, size_t n, link_wire wire)
{
    if (wire == LINK_WIRE_F64)
        return loops()->add_f64(values, in, n);
    if (wire == LINK_WIRE_INT48)
        return loops()->take_48(values, in, n, true);
    return take_lossy(values, in, n, wire, true);
}
