/*
 * kernel/matrix: the types of weights, and matrices in tiles: how 16 rows of one are packed for the products, moved, cut and read back.
 *
 * Sizes and layouts are the same for every instruction set; packing reads the format of the file and nothing else. Not here: what is
 * multiplied with a matrix (multiply.h). The rules of the whole module: kernel.h.
 */
#ifndef KERNEL_MATRIX_H
#define KERNEL_MATRIX_H

#include "base/base.h"

enum {
    KERNEL_TILE_ROWS = 16, /* output rows of a strip */
    KERNEL_UNIT =
        32 /* columns of a unit; every cut and every activation block falls on its multiples */
};

/* ---- types of weights ------------------------------------------------------------------------------------------ */

typedef struct kernel_type {
    const char *name;   /* "Q4_K" */
    int number;         /* in GGUF files */
    int block_elements; /* of a file block; the columns of a matrix are a multiple of it */
    int block_bytes;
    bool
        quantised; /* products take int8 activation blocks (kernel_act); float types take f32 rows */
    /* Device layout: a run is the units of a strip that share one file superblock, in column order: header, then its units. */
    int run_units;    /* 1, or 8 for the K types */
    int header_bytes; /* per run and 16 rows; 0 where run_units is 1 */
    int unit_bytes;   /* per unit and 16 rows */
    int index;        /* 0..KERNEL_TYPES-1 */
} kernel_type;

enum { KERNEL_TYPES = 16 };

const kernel_type *kernel_type_find(int number); /* NULL: not one of ours */
const kernel_type *kernel_type_at(int index);    /* 0..KERNEL_TYPES-1; tables are indexed alike */

/* One row in file format → f32, exactly. n: elements, a multiple of block_elements. */
void kernel_dequantise(const kernel_type *type, float *dst, const void *src, int64_t n);
uint64_t kernel_row_bytes(const kernel_type *type, int64_t n); /* of n elements in file format */

/* ---- matrices in tiles ----------------------------------------------------------------------------------------- */

/*
 * A shard of a [R_full, K_full] matrix on this device: rows [0, rows) of its own and the columns [column_begin, column_end) of
 * the whole one (multiples of 32; for float types column_end may be K_full of any value, the rest of the last unit is zeros).
 * Storage: ceil(rows / 16) strips of kernel_strip_bytes each, one after another. A strip holds 16 rows (missing ones are
 * zeros): its runs from left to right. Superblocks are counted from column 0 of the whole matrix: a cut inside one makes a
 * shorter run that carries its own copy of the header. Within a unit, byte or nibble groups of 4 columns are interleaved so
 * that 64 bytes hold 4 columns of all 16 rows; floats are [32 columns][16 rows]. Sizes per row are those of the file.
 */
typedef struct kernel_matrix {
    const kernel_type *type;
    const void *tiles; /* borrowed */
    int64_t rows;
    int64_t column_begin, column_end;
    uint64_t strip_bytes; /* kernel_strip_bytes(type, column_begin, column_end) */
} kernel_matrix;

uint64_t kernel_strip_bytes(const kernel_type *type, int64_t column_begin, int64_t column_end);
uint64_t kernel_matrix_bytes(const kernel_type *type, int64_t rows, int64_t column_begin,
                             int64_t column_end);
static inline int64_t kernel_strips(int64_t rows)
{
    return (rows + KERNEL_TILE_ROWS - 1) / KERNEL_TILE_ROWS;
}

/* Packs one strip. rows: where the first of its n_rows (1..16) file rows begins (its column 0), row_bytes apart in the file.
 * Only the file blocks that hold the columns asked for are read. The write is one forward sweep: let it be the first touch. */
void kernel_pack(const kernel_type *type, void *strip, const void *rows, uint64_t row_bytes,
                 int n_rows, int64_t column_begin, int64_t column_end);

/* The same for some rows and columns of a strip that is there: rows go to lanes [lane, lane + n_rows), columns [begin, end) (multiples of 32, or the
 * matrix's end) of the strip's, which begin at strip_begin. The other lanes and columns stay as they are. */
void kernel_pack_part(const kernel_type *type, void *strip, int64_t strip_begin, int lane,
                      const void *rows, uint64_t row_bytes, int n_rows, int64_t begin, int64_t end);

/* Lanes and columns from strip to strip of one matrix, cut differently or not: what kernel_pack_part would put there, without the file. */
void kernel_move_part(const kernel_type *type, void *to, int64_t to_begin, int to_lane,
                      const void *from, int64_t from_begin, int from_lane, int n_rows,
                      int64_t begin, int64_t end);

/* One row of the shard (embeddings): dst [column_end - column_begin] f32, the exact dequantised values. */
void kernel_gather_row(float *dst, const kernel_matrix *m, int64_t row);

#endif
