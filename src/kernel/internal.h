/*
 * What the files of src/kernel share: the row form of a type (how a file block becomes 32-column units and what they mean), the
 * walk over runs and units of a strip, the parts of a page, and the constants of the numerics contract. Not for other modules.
 */
#ifndef KERNEL_INTERNAL_H
#define KERNEL_INTERNAL_H

#include "kernel/kernel.h"
#include "kernel/scalar.h"

#include <string.h>

/* A loop of constant count whose arrays are to live in registers. */
#if defined(__clang__)
#define KERNEL_UNROLL _Pragma("unroll")
#else
#define KERNEL_UNROLL _Pragma("GCC unroll 16")
#endif

/* Types by index: the order of the rows in types.c. */
enum {
    TYPE_F32,
    TYPE_F16,
    TYPE_BF16,
    TYPE_Q8_0,
    TYPE_Q4_0,
    TYPE_Q4_K,
    TYPE_Q6_K,
    TYPE_Q4_1,
    TYPE_Q5_0,
    TYPE_Q5_1,
    TYPE_Q2_K,
    TYPE_Q3_K,
    TYPE_Q5_K,
    TYPE_IQ4_NL,
    TYPE_IQ4_XS,
    TYPE_MXFP4
};

enum {
    RUN_COLUMNS_MAX = 256,
    ROW_HEADER_MAX = 20, /* bytes of one row's header, greatest over types */
    ROW_UNIT_MAX = 128   /* bytes of one row's unit, greatest over types (F32) */
};

/* What 32 columns of one row of a quantised type are: value = fma(d·s[h], q, m·j[h]) with h = column / 16. d·s and m·j are exact in
 * f32 and so is their product with q to within the one rounding. */
typedef struct kernel_view {
    float d, m;
    int32_t s[2], j[2];
    int8_t q[KERNEL_UNIT];
} kernel_view;

/* A list of equal fields of a row that are interleaved over the 16 rows of a strip: field f of row r at f·bytes·16 + r·bytes. */
typedef struct kernel_fields {
    uint8_t bytes, count;
} kernel_fields;

typedef struct kernel_layout {
    kernel_fields header_fields[3], unit_fields[3];                 /* count 0 ends a list */
    void (*header)(unsigned char *dst, const unsigned char *block); /* NULL: none */
    void (*split)(unsigned char *dst, const unsigned char *block,
                  int unit); /* file block → the row form of a unit */
    void (*decode)(kernel_view *v, const unsigned char *header, const unsigned char *row,
                   int unit); /* NULL: floats */
} kernel_layout;

const kernel_layout *kernel_layout_of(const kernel_type *type);
void kernel_view_floats(float dst[KERNEL_UNIT], const kernel_view *v);

/* De-interleaves row r of a tile. */
void kernel_row_of(unsigned char *dst, const unsigned char *tile, const kernel_fields *fields,
                   int r);
/* The 32 columns of a unit as f32 [32][16]; header: where its run begins. */
void kernel_unit_floats(float dst[KERNEL_UNIT][KERNEL_TILE_ROWS], const kernel_type *type,
                        const unsigned char *header, const unsigned char *unit, int unit_in_run);
float kernel_row_float(const kernel_type *type, const unsigned char *row,
                       int i); /* float types: element i of a row form */

/* A walk over the units of a strip between two columns of the whole matrix. */
typedef struct kernel_walk {
    const unsigned char *header, *unit; /* of the current unit */
    int unit_in_run;                    /* counted in the file's superblock: selects the scales */
} kernel_walk;

static inline void walk_start(kernel_walk *w, const kernel_type *t, const void *strip,
                              int64_t column_begin)
{
    w->header = strip;
    w->unit = w->header + t->header_bytes;
    w->unit_in_run = (int)(column_begin / KERNEL_UNIT % t->run_units);
}

static inline void walk_next(kernel_walk *w, const kernel_type *t)
{
    w->unit += t->unit_bytes;
    if (++w->unit_in_run == t->run_units) {
        w->unit_in_run = 0;
        w->header = w->unit;
        w->unit += t->header_bytes;
    }
}

/* Where a Q8_0 page keeps the parts of one head. */
typedef struct kernel_kv_head {
    int8_t *keys, *values;
    uint16_t *key_scales, *value_scales;
    int key_blocks, value_blocks;
} kernel_kv_head;

static inline kernel_kv_head kernel_kv_head_q8(void *page, int head, int key_width, int value_width)
{
    kernel_kv_head at = {.key_blocks = (key_width + KERNEL_UNIT - 1) / KERNEL_UNIT,
                         .value_blocks = (value_width + KERNEL_UNIT - 1) / KERNEL_UNIT};
    int64_t bytes = (int64_t)KERNEL_RANGE * (key_width + value_width),
            scales = (int64_t)KERNEL_RANGE * (at.key_blocks + at.value_blocks) * 2;
    at.keys = (int8_t *)page + head * (bytes + scales);
    at.values = at.keys + (int64_t)KERNEL_RANGE * key_width;
    at.key_scales = (uint16_t *)(void *)(at.keys + bytes);
    at.value_scales = at.key_scales + (int64_t)KERNEL_RANGE * at.key_blocks;
    return at;
}

/* Rounds a leaf's value to a multiple of 2^-24 (contract b). */
#define LEAF_ROUND 402653184.0 /* 1.5·2^28 */
static inline double leaf_round(float v)
{
    return ((double)v + LEAF_ROUND) - LEAF_ROUND;
}

/* Any type, either class: what an ISA table falls back on. */
kernel_product_fn kernel_product_portable;
#define KERNEL_ALL_TYPES(f) f, f, f, f, f, f, f, f, f, f, f, f, f, f, f, f

/* Inputs of the known-answer tests, of the unit tests and of the benchmark; blocks hold finite, ordinary scales. */
void kernel_example_floats(float *dst, int64_t n, uint64_t seed);
void kernel_example_blocks(const kernel_type *type, void *dst, int64_t n_blocks, uint64_t seed);
/* Runs test i; *name NULL after the last. */
uint64_t kernel_known_answer(const kernel_table *k, int i, const char **name);

/* The tables, one per ISA file; NULL-terminated list in kernel.c. */
extern const kernel_table kernel_portable;
#if defined(__x86_64__)
extern const kernel_table kernel_avx2;
extern const kernel_table kernel_avxvnni;
extern const kernel_table kernel_avx512;
extern const kernel_table kernel_avx512vnni;
#elif defined(__aarch64__)
extern const kernel_table kernel_neon;
extern const kernel_table kernel_dotprod;
extern const kernel_table kernel_i8mm;
#endif

#endif
