/*
 * Inside link: the loops over values that every sum runs, written once for vectors of LANES doubles in the compiler's own vector types.
 * wire.c includes this file with two lanes, which every platform's baseline has; x86_avx2.c with four. Same results, bit for bit: all
 * additions are exact. At the end it defines LOOPS_ROWS, the functions for a table.
 *
 * Magnitudes are compared as integers, which order doubles as they are and put NaN and infinity last; comparisons of doubles do not stay
 * in vectors with every compiler. Not here: the lossy forms, which are not for speed of ours but of the wire (wire.c).
 */
#include "link/inside.h"

#include <math.h>
#include <string.h>

#define UNIT       16777216.0  /* 2^24 */
#define LIMIT      536870912.0 /* 2^29: below it multiples of 2^-24 are exact */
#define LIMIT_48   8388608.0   /* 2^23 */
#define AHEAD      1024        /* bytes of what comes that are fetched before they are needed */
#define LINE       8           /* values in a line of the cache */
#define BLOCK      LINK_BLOCK  /* values that pass through an array of integers on the stack */
#define VALUE_SIZE 8

_Static_assert(LINE % LANES == 0, "a line is whole vectors");

typedef double lanes __attribute__((vector_size(VALUE_SIZE * LANES)));
typedef int64_t bits __attribute__((vector_size(VALUE_SIZE * LANES)));

static inline __attribute__((always_inline)) lanes load(const void *from)
{
    lanes v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline __attribute__((always_inline)) bits magnitude(lanes x)
{
    bits b;
    memcpy(&b, &x, sizeof b);
    return b & INT64_MAX;
}

static inline int64_t bits_of(double d)
{
    int64_t b;
    memcpy(&b, &d, sizeof b);
    return b;
}

/* Every lane is negative. */
static inline bool all_negative(const bits *b)
{
    int64_t each[LANES], all = -1;
    memcpy(each, b, sizeof each);
    for (int i = 0; i < LANES; i++)
        all &= each[i];
    return all < 0;
}

static inline bool all_zero(const bits *b)
{
    int64_t each[LANES], any = 0;
    memcpy(each, b, sizeof each);
    for (int i = 0; i < LANES; i++)
        any |= each[i];
    return any == 0;
}

static bool loop_in_range(const double *values, size_t n, double limit)
{
    const int64_t limit_bits = bits_of(limit);
    size_t i = 0;
    bool good = true;
    bits below = (bits){0} - 1;
    for (; i + LANES <= n; i += LANES)
        below &= magnitude(load(values + i)) - limit_bits;
    for (; i < n; i++)
        good &= fabs(values[i]) < limit;
    return good && all_negative(&below);
}

/* The range of own values, addends and sums is looked at. */
static bool loop_add_f64(double *restrict values, const unsigned char *restrict in, size_t n)
{
    const int64_t limit_bits = bits_of(LIMIT);
    size_t i = 0;
    bits below = (bits){0} - 1;
    bool good = true;
    for (; i + LINE <= n; i += LINE) {
        __builtin_prefetch(in + VALUE_SIZE * i + AHEAD);
        for (size_t k = i; k < i + LINE; k += LANES) {
            lanes own = load(values + k), come = load(in + VALUE_SIZE * k), sum = own + come;
            below &= (magnitude(own) - limit_bits) & (magnitude(come) - limit_bits) &
                     (magnitude(sum) - limit_bits);
            memcpy(values + k, &sum, sizeof sum);
        }
    }
    for (; i < n; i++) {
        double come;
        memcpy(&come, in + VALUE_SIZE * i, sizeof come);
        good &= fabs(values[i]) < LIMIT && fabs(come) < LIMIT;
        values[i] += come;
        good &= fabs(values[i]) < LIMIT;
    }
    return good && all_negative(&below);
}

/* ---- int48 ----------------------------------------------------------------------------------------------------- */

/* Adding 1.5 · 2^52 leaves the nearest integer in the low bits of the double; the difference tells whether it was one. */
#define ROUNDER 6755399441055744.0
#define LOW_48  UINT64_C(0xffffffffffff)

/* Values to counts of 2^-24 in the low 48 bits. False: out of range, or no multiple. */
static inline bool count_units(uint64_t out[BLOCK], const double values[BLOCK])
{
    const int64_t limit_bits = bits_of(LIMIT_48);
    bits below = (bits){0} - 1, odd = (bits){0};
    for (size_t i = 0; i < BLOCK; i += LANES) {
        lanes v = load(values + i), scaled = v * UNIT, shifted = scaled + ROUNDER;
        below &= magnitude(v) - limit_bits;
        odd |= magnitude((shifted - ROUNDER) - scaled);
        memcpy(out + i, &shifted, sizeof shifted);
    }
    return all_negative(&below) && all_zero(&odd);
}

/* 2^47 more makes a count unsigned; the mantissa of 2^52 holds it; both constants go off again, exactly. */
static inline bool take_units(double values[BLOCK], const uint64_t in[BLOCK], bool add)
{
    const int64_t limit_bits = bits_of(LIMIT_48);
    bits below = (bits){0} - 1;
    for (size_t i = 0; i < BLOCK; i += LANES) {
        lanes v, own = load(values + i);
        bits b;
        memcpy(&b, in + i, sizeof b);
        b = ((b & (int64_t)LOW_48) ^ INT64_C(0x800000000000)) | INT64_C(0x4330000000000000);
        memcpy(&v, &b, sizeof v);
        v = (v - (4503599627370496.0 + 140737488355328.0)) * (1.0 / UNIT);
        below &= magnitude(v) - limit_bits;
        if (add) {
            v += own;
            below &= (magnitude(own) - limit_bits) & (magnitude(v) - limit_bits);
        }
        memcpy(values + i, &v, sizeof v);
    }
    return all_negative(&below);
}

/* Four counts are three words, each moved by itself: a copy of all three by way of the stack would wait for the store. */
static inline void put_word(unsigned char *out, uint64_t w)
{
    memcpy(out, &w, sizeof w);
}

static inline uint64_t get_word(const unsigned char *in)
{
    uint64_t w;
    memcpy(&w, in, sizeof w);
    return w;
}

static inline void join_block(unsigned char out[6 * BLOCK], const uint64_t u[BLOCK])
{
    for (size_t i = 0; i < BLOCK; i += 4, out += 24) {
        put_word(out, (u[i] & LOW_48) | u[i + 1] << 48);
        put_word(out + 8, (u[i + 1] & LOW_48) >> 16 | u[i + 2] << 32);
        put_word(out + 16, (u[i + 2] & LOW_48) >> 32 | u[i + 3] << 16);
    }
}

static inline void part_block(uint64_t u[BLOCK], const unsigned char in[6 * BLOCK])
{
    for (size_t i = 0; i < BLOCK; i += 4, in += 24) {
        uint64_t a = get_word(in), b = get_word(in + 8), c = get_word(in + 16);
        u[i] = a;
        u[i + 1] = a >> 48 | b << 16;
        u[i + 2] = b >> 32 | c << 32;
        u[i + 3] = c >> 16;
    }
}

static bool loop_pack_48(unsigned char *restrict out, const double *restrict values, size_t n)
{
    uint64_t u[BLOCK];
    size_t i = 0;
    bool good = true;
    for (; i + BLOCK <= n; i += BLOCK) {
        good &= count_units(u, values + i);
        join_block(out + 6 * i, u);
    }
    if (i < n) {
        double last[BLOCK] = {0};
        unsigned char bytes[6 * BLOCK];
        memcpy(last, values + i, (n - i) * sizeof last[0]);
        good &= count_units(u, last);
        join_block(bytes, u);
        memcpy(out + 6 * i, bytes, 6 * (n - i));
    }
    return good;
}

static bool loop_take_48(double *restrict values, const unsigned char *restrict in, size_t n,
                         bool add)
{
    uint64_t u[BLOCK];
    size_t i = 0;
    bool good = true;
    for (; i + BLOCK <= n; i += BLOCK) {
        part_block(u, in + 6 * i);
        good &= add ? take_units(values + i, u, true) : take_units(values + i, u, false);
    }
    if (i < n) {
        double last[BLOCK] = {0};
        unsigned char bytes[6 * BLOCK] = {0};
        memcpy(last, values + i, (n - i) * sizeof last[0]);
        memcpy(bytes, in + 6 * i, 6 * (n - i));
        part_block(u, bytes);
        good &= take_units(last, u, add);
        memcpy(values + i, last, (n - i) * sizeof last[0]);
    }
    return good;
}

/* ---- blocks ---------------------------------------------------------------------------------------------------- */

#define LIMIT_32 128.0 /* below it counts of 2^-24 fit int32 */

typedef int32_t counts __attribute__((vector_size(4 * LANES)));

/* The counts of a block. False: some value is no such multiple, or too large; what is in out then is nothing. */
static inline bool count_block(unsigned char out[4 * BLOCK], const double values[BLOCK])
{
    const int64_t limit_bits = bits_of(LIMIT_32);
    bits below = (bits){0} - 1, odd = (bits){0};
    for (size_t i = 0; i < BLOCK; i += LANES) {
        lanes v = load(values + i), scaled = v * UNIT, shifted = scaled + ROUNDER;
        bits b;
        below &= magnitude(v) - limit_bits;
        odd |= magnitude((shifted - ROUNDER) - scaled);
        memcpy(&b, &shifted, sizeof b);
        counts c = __builtin_convertvector(b, counts); /* the low halves */
        memcpy(out + 4 * i, &c, sizeof c);
    }
    return all_negative(&below) && all_zero(&odd);
}

static size_t loop_pack_blocks(unsigned char *restrict out, const double *restrict values, size_t n)
{
    unsigned char *at = out;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t m = BASE_MIN(n - i, (size_t)BLOCK);
        double last[BLOCK] = {0};
        unsigned char bytes[4 * BLOCK];
        bool whole = m == BLOCK, fits;
        if (!whole)
            memcpy(last, values + i, m * sizeof last[0]);
        fits = whole ? count_block(at + 1, values + i) : count_block(bytes, last);
        if (!fits)
            memcpy(at + 1, values + i, m * sizeof last[0]);
        else if (!whole)
            memcpy(at + 1, bytes, 4 * m);
        *at = fits ? 4 : 8;
        at += 1 + *at * m;
    }
    return (size_t)(at - out);
}

static bool loop_take_32(double *restrict values, const unsigned char *restrict in, size_t n,
                         bool add)
{
    const int64_t limit_bits = bits_of(LIMIT);
    bits below = (bits){0} - 1;
    bool good = true;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        counts c;
        memcpy(&c, in + 4 * i, sizeof c);
        lanes v = __builtin_convertvector(c, lanes) * (1.0 / UNIT);
        if (add) {
            lanes own = load(values + i);
            v += own;
            below &= (magnitude(own) - limit_bits) & (magnitude(v) - limit_bits);
        }
        memcpy(values + i, &v, sizeof v);
    }
    for (; i < n; i++) {
        int32_t c;
        memcpy(&c, in + 4 * i, sizeof c);
        good &= !add || fabs(values[i]) < LIMIT;
        values[i] = (add ? values[i] : 0) + (double)c * (1.0 / UNIT);
        good &= fabs(values[i]) < LIMIT;
    }
    return good && all_negative(&below);
}

#define LOOPS_ROWS                                                                                 \
    .in_range = loop_in_range, .add_f64 = loop_add_f64, .pack_48 = loop_pack_48,                   \
    .take_48 = loop_take_48, .pack_blocks = loop_pack_blocks, .take_32 = loop_take_32
