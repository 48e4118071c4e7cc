/*
 * Values on the wire: doubles that are multiples of 2^-24 as they are, or as 48-bit two's complement counts of 2^-24. Adding what came
 * checks the range of addends and sums, for only inside it is the sum exact. Little-endian both in memory and on the wire.
 */
#include "link/inside.h"

#include <math.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "f64 goes to the wire as it is");

#define UNIT 16777216.0 /* 2^24 */

size_t link_wire_bytes(link_wire wire)
{
    return wire == LINK_WIRE_INT48 ? 6 : 8;
}

double link_wire_limit(link_wire wire)
{
    return wire == LINK_WIRE_INT48 ? 8388608.0 /* 2^23 */ : 536870912.0 /* 2^29 */;
}

bool link_in_range(const double *values, size_t n, link_wire wire)
{
    double limit = link_wire_limit(wire);
    int bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= !(fabs(values[i]) < limit); /* also NaN */
    return !bad;
}

/* Adding 1.5 · 2^52 leaves the nearest integer in the low bits of the double; the difference tells whether it was one. */
#define ROUNDER 6755399441055744.0

static inline uint64_t to_units(double v, int *bad)
{
    double scaled = v * UNIT, shifted = scaled + ROUNDER;
    uint64_t bits;
    *bad |= !(fabs(scaled) < 140737488355328.0 /* 2^47 */) | (shifted - ROUNDER != scaled);
    memcpy(&bits, &shifted, sizeof bits);
    return bits;
}

static inline double from_units(uint64_t low48)
{
    /* 2^47 more makes it unsigned; the mantissa of 2^52 holds it; both constants go off again, exactly */
    uint64_t bits = ((low48 ^ UINT64_C(0x800000000000)) & UINT64_C(0xffffffffffff)) |
                    UINT64_C(0x4330000000000000);
    double d;
    memcpy(&d, &bits, sizeof d);
    return (d - (4503599627370496.0 + 140737488355328.0)) * (1.0 / UNIT);
}

static inline uint64_t load48(const unsigned char *in, bool is_last)
{
    uint64_t u = 0;
    if (is_last)
        memcpy(&u, in, 6);
    else
        memcpy(&u, in, 8); /* two bytes of the next value, masked off */
    return u;
}

bool link_pack48(unsigned char *out, const double *values, size_t n)
{
    int bad = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        uint64_t u = to_units(values[i], &bad);
        memcpy(out + 6 * i, &u, 8); /* the next value writes over the last two */
    }
    if (n > 0) {
        uint64_t u = to_units(values[n - 1], &bad);
        memcpy(out + 6 * (n - 1), &u, 6);
    }
    return !bad;
}

void link_unpack48(double *out, const unsigned char *in, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = from_units(load48(in + 6 * i, i + 1 == n));
}

bool link_add(double *values, const unsigned char *in, size_t n, link_wire wire)
{
    double limit = link_wire_limit(wire);
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        double v;
        if (wire == LINK_WIRE_INT48)
            v = from_units(load48(in + 6 * i, i + 1 == n));
        else
            memcpy(&v, in + 8 * i, sizeof v);
        values[i] += v;
        bad |= !(fabs(v) < limit) | !(fabs(values[i]) < limit);
    }
    return !bad;
}
