/*
 * From rows in file format to strips of 16 interleaved rows, and single rows back. Generic over the row forms of types.c: every field of
 * a row form (2 or 4 bytes) is spread so that the fields of the 16 rows lie side by side. One forward sweep of writes, since the first
 * touch of fresh memory is what loading costs. Not here: reading files, threads.
 */
#include "kernel/internal.h"

static int64_t run_count(const kernel_type *t, int64_t column_begin, int64_t column_end)
{
    int64_t run = (int64_t)t->run_units * KERNEL_UNIT;
    return (column_end + run - 1) / run - column_begin / run;
}

uint64_t kernel_strip_bytes(const kernel_type *t, int64_t column_begin, int64_t column_end)
{
    if (column_end <= column_begin)
        return 0;
    int64_t units = (column_end - column_begin + KERNEL_UNIT - 1) / KERNEL_UNIT;
    int64_t headers =
        t->header_bytes ? run_count(t, column_begin, column_end) * t->header_bytes : 0;
    return (uint64_t)(units * t->unit_bytes + headers);
}

uint64_t kernel_matrix_bytes(const kernel_type *t, int64_t rows, int64_t column_begin,
                             int64_t column_end)
{
    return (uint64_t)kernel_strips(rows) * kernel_strip_bytes(t, column_begin, column_end);
}

/* [16][row_bytes] → fields side by side; returns where the next byte goes. */
static unsigned char *interleave(unsigned char *dst, const unsigned char *rows, size_t row_bytes,
                                 const kernel_fields *fields)
{
    size_t offset = 0;
    for (int list = 0; list < 3 && fields[list].count; list++) {
        size_t bytes = fields[list].bytes;
        for (int f = 0; f < fields[list].count; f++, offset += bytes) {
            const unsigned char *from = rows + offset;
            if (bytes == 4) {
                for (int r = 0; r < KERNEL_TILE_ROWS; r++)
                    memcpy(dst + 4 * r, from + (size_t)r * row_bytes, 4);
            } else if (bytes == 2) {
                for (int r = 0; r < KERNEL_TILE_ROWS; r++)
                    memcpy(dst + 2 * r, from + (size_t)r * row_bytes, 2);
            } else {
                for (int r = 0; r < KERNEL_TILE_ROWS; r++)
                    dst[r] = from[(size_t)r * row_bytes];
            }
            dst += bytes * KERNEL_TILE_ROWS;
        }
    }
    return dst;
}

void kernel_row_of(unsigned char *dst, const unsigned char *tile, const kernel_fields *fields,
                   int r)
{
    for (int list = 0; list < 3 && fields[list].count; list++) {
        size_t bytes = fields[list].bytes;
        for (int f = 0; f < fields[list].count; f++) {
            memcpy(dst, tile + (size_t)r * bytes, bytes);
            dst += bytes;
            tile += bytes * KERNEL_TILE_ROWS;
        }
    }
}

/* Float types: a unit is [32][16] elements; columns from `columns` on and rows from n_rows on are zeros. */
static void pack_float_unit(const kernel_type *t, unsigned char *dst, const unsigned char *rows,
                            uint64_t row_bytes, int n_rows, int64_t columns)
{
    unsigned char form[KERNEL_TILE_ROWS][ROW_UNIT_MAX];
    size_t bytes = (size_t)BASE_MIN(columns, KERNEL_UNIT) * (size_t)t->block_bytes;
    memset(form, 0, sizeof form);
    for (int r = 0; r < n_rows; r++)
        memcpy(form[r], rows + (uint64_t)r * row_bytes, bytes);
    interleave(dst, form[0], ROW_UNIT_MAX, kernel_layout_of(t)->unit_fields);
}

static void pack_floats(const kernel_type *t, unsigned char *dst, const unsigned char *rows,
                        uint64_t row_bytes, int n_rows, int64_t column_begin, int64_t column_end)
{
    for (int64_t c = column_begin; c < column_end; c += KERNEL_UNIT, dst += t->unit_bytes)
        pack_float_unit(t, dst, rows + c * t->block_bytes, row_bytes, n_rows, column_end - c);
}

void kernel_pack(const kernel_type *t, void *strip, const void *rows, uint64_t row_bytes,
                 int n_rows, int64_t column_begin, int64_t column_end)
{
    const kernel_layout *l = kernel_layout_of(t);
    unsigned char *dst = strip;
    unsigned char headers[KERNEL_TILE_ROWS][ROW_HEADER_MAX], form[KERNEL_TILE_ROWS][ROW_UNIT_MAX];
    if (!t->quantised) {
        pack_floats(t, dst, rows, row_bytes, n_rows, column_begin, column_end);
        return;
    }
    memset(headers, 0, sizeof headers);
    memset(form, 0, sizeof form); /* a scale of zero makes the missing rows zeros */
    int64_t unit = column_begin / KERNEL_UNIT;
    for (int64_t end = column_end / KERNEL_UNIT; unit < end;) {
        int first = (int)(unit % t->run_units), n = (int)BASE_MIN(t->run_units - first, end - unit);
        const unsigned char *block =
            (const unsigned char *)rows + unit / t->run_units * t->block_bytes;
        if (l->header) {
            for (int r = 0; r < n_rows; r++)
                l->header(headers[r], block + (uint64_t)r * row_bytes);
            dst = interleave(dst, headers[0], ROW_HEADER_MAX, l->header_fields);
        }
        for (int u = first; u < first + n; u++) {
            for (int r = 0; r < n_rows; r++)
                l->split(form[r], block + (uint64_t)r * row_bytes, u);
            dst = interleave(dst, form[0], ROW_UNIT_MAX, l->unit_fields);
        }
        unit += n;
    }
}

/* ---- parts of strips ----------------------------------------------------------------------------------------------- */

/* Where unit `unit` (of the whole matrix) lies in a strip whose columns begin at strip_begin; *header: of its run. */
static size_t unit_at(const kernel_type *t, int64_t strip_begin, int64_t unit, size_t *header)
{
    int64_t first = strip_begin / KERNEL_UNIT, run = unit / t->run_units,
            runs = run - first / t->run_units; /* before ours, each with a header */
    int64_t run_first = BASE_MAX(run * t->run_units, first);
    *header = (size_t)((run_first - first) * t->unit_bytes + runs * t->header_bytes);
    return *header + (size_t)t->header_bytes + (size_t)((unit - run_first) * t->unit_bytes);
}

/* Lanes of a tile, or of a header, whose fields are interleaved over the rows. */
static void move_lanes(unsigned char *to, int to_lane, const unsigned char *from, int from_lane,
                       int n_rows, const kernel_fields *fields, size_t tile_bytes)
{
    if (n_rows == KERNEL_TILE_ROWS) {
        memcpy(to, from, tile_bytes);
        return;
    }
    for (int list = 0; list < 3 && fields[list].count; list++) {
        size_t bytes = fields[list].bytes, step = bytes * KERNEL_TILE_ROWS;
        for (int f = 0; f < fields[list].count; f++, to += step, from += step)
            memcpy(to + (size_t)to_lane * bytes, from + (size_t)from_lane * bytes,
                   bytes * (size_t)n_rows);
    }
}

void kernel_move_part(const kernel_type *t, void *to, int64_t to_begin, int to_lane,
                      const void *from, int64_t from_begin, int from_lane, int n_rows,
                      int64_t begin, int64_t end)
{
    const kernel_layout *l = kernel_layout_of(t);
    int64_t n_units = (end + KERNEL_UNIT - 1) / KERNEL_UNIT;
    for (int64_t u = begin / KERNEL_UNIT; u < n_units; u++) {
        size_t to_header, from_header, to_at = unit_at(t, to_begin, u, &to_header),
                                       from_at = unit_at(t, from_begin, u, &from_header);
        if (t->header_bytes && (u == begin / KERNEL_UNIT || u % t->run_units == 0))
            move_lanes((unsigned char *)to + to_header, to_lane,
                       (const unsigned char *)from + from_header, from_lane, n_rows,
                       l->header_fields, (size_t)t->header_bytes);
        move_lanes((unsigned char *)to + to_at, to_lane, (const unsigned char *)from + from_at,
                   from_lane, n_rows, l->unit_fields, (size_t)t->unit_bytes);
    }
}

void kernel_pack_part(const kernel_type *t, void *strip, int64_t strip_begin, int lane,
                      const void *rows, uint64_t row_bytes, int n_rows, int64_t begin, int64_t end)
{
    enum { PIECE = RUN_COLUMNS_MAX };
    unsigned char piece[KERNEL_TILE_ROWS * (ROW_HEADER_MAX + PIECE / KERNEL_UNIT * ROW_UNIT_MAX)];
    for (int64_t c = begin; c < end;) {
        int64_t stop = BASE_MIN((c / PIECE + 1) * PIECE, end);
        kernel_pack(t, piece, rows, row_bytes, n_rows, c, stop);
        kernel_move_part(t, strip, strip_begin, lane, piece, c, 0, n_rows, c, stop);
        c = stop;
    }
}

static void gather_unit(float values[KERNEL_UNIT], const kernel_type *t, const kernel_walk *w,
                        int r)
{
    const kernel_layout *l = kernel_layout_of(t);
    unsigned char header[ROW_HEADER_MAX], row[ROW_UNIT_MAX];
    kernel_view v;
    kernel_row_of(header, w->header, l->header_fields, r);
    kernel_row_of(row, w->unit, l->unit_fields, r);
    if (l->decode) {
        l->decode(&v, header, row, w->unit_in_run);
        kernel_view_floats(values, &v);
        return;
    }
    for (int i = 0; i < KERNEL_UNIT; i++)
        values[i] = kernel_row_float(t, row, i);
}

void kernel_gather_row(float *dst, const kernel_matrix *m, int64_t row)
{
    const unsigned char *strip =
        (const unsigned char *)m->tiles + (uint64_t)(row / KERNEL_TILE_ROWS) * m->strip_bytes;
    kernel_walk w;
    walk_start(&w, m->type, strip, m->column_begin);
    for (int64_t c = m->column_begin; c < m->column_end; c += KERNEL_UNIT) {
        float values[KERNEL_UNIT];
        int64_t n = BASE_MIN(KERNEL_UNIT, m->column_end - c);
        gather_unit(values, m->type, &w, (int)(row % KERNEL_TILE_ROWS));
        memcpy(dst, values, (size_t)n * sizeof(float));
        dst += n;
        walk_next(&w, m->type);
    }
}
