/* The table of weight types: sizes and names. Numbers are positions, so that a lookup is one bounds check. */
#include "file/file.h"

#include <string.h>

typedef struct type_row {
    const char *name; /* NULL: this number is not a type */
    uint32_t elements, bytes;
} type_row;

static const type_row rows[FILE_TYPE_LIMIT] = {
#define FILE_TYPE(name, number, elements, bytes) [number] = {#name, elements, bytes},
#include "file/types.def"
#undef FILE_TYPE
};

/* Block sizes by the structures that they come from, so that a slip of the table does not compile. */
#define TYPE_CHECK(name, elements, bytes)                                                          \
    _Static_assert(CHECK_ELEMENTS_##name == (elements) && CHECK_BYTES_##name == (bytes), #name)
enum {
#define FILE_TYPE(name, number, elements, bytes)                                                   \
    CHECK_ELEMENTS_##name = (elements), CHECK_BYTES_##name = (bytes),
#include "file/types.def"
#undef FILE_TYPE
};
TYPE_CHECK(Q4_0, 32, 2 + 16);                 /* f16 d; nibbles */
TYPE_CHECK(Q4_1, 32, 2 + 2 + 16);             /* d, m */
TYPE_CHECK(Q5_0, 32, 2 + 4 + 16);             /* d; fifth bits; nibbles */
TYPE_CHECK(Q5_1, 32, 2 + 2 + 4 + 16);         /* d, m */
TYPE_CHECK(Q8_0, 32, 2 + 32);                 /* d; int8 */
TYPE_CHECK(Q2_K, 256, 16 + 64 + 2 + 2);       /* 16 scales; 2-bit; d, dmin */
TYPE_CHECK(Q3_K, 256, 32 + 64 + 12 + 2);      /* third bits; 2-bit; 6-bit scales; d */
TYPE_CHECK(Q4_K, 256, 2 + 2 + 12 + 128);      /* d, dmin; 6-bit scales and mins; nibbles */
TYPE_CHECK(Q5_K, 256, 2 + 2 + 12 + 32 + 128); /* the same and fifth bits */
TYPE_CHECK(Q6_K, 256, 128 + 64 + 16 + 2);     /* low nibbles; high 2 bits; int8 scales; d */
TYPE_CHECK(IQ4_NL, 32, 2 + 16);               /* d; indices into a table of 16 */
TYPE_CHECK(IQ4_XS, 256, 2 + 2 + 4 + 128);     /* d; high and low scale bits; indices */
TYPE_CHECK(MXFP4, 32, 1 + 16);                /* e8m0 scale; fp4 e2m1 */

static const type_row *row_of(file_type t)
{
    static const type_row none = {NULL, 0, 0};
    return (unsigned)t < FILE_TYPE_LIMIT ? &rows[t] : &none;
}

const char *file_type_name(file_type t)
{
    const char *name = row_of(t)->name;
    return name ? name : "?";
}

bool file_type_find(const char *name, file_type *out)
{
    for (int i = 0; i < FILE_TYPE_LIMIT; i++) {
        if (rows[i].name && strcmp(rows[i].name, name) == 0) {
            *out = (file_type)i;
            return true;
        }
    }
    return false;
}

uint32_t file_type_block_elements(file_type t)
{
    return row_of(t)->elements;
}

uint32_t file_type_block_bytes(file_type t)
{
    return row_of(t)->bytes;
}

bool file_type_row_bytes(file_type t, uint64_t n, uint64_t *out)
{
    const type_row *row = row_of(t);
    uint64_t bytes;
    if (!row->name || n % row->elements != 0 || !checked_mul(n / row->elements, row->bytes, &bytes))
        return false;
    *out = bytes;
    return true;
}
