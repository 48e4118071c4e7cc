/*
 * Runs the known-answer tests of every kernel table that this machine can run, and prints their hashes: base, os and kernel only, no test
 * library, so that it runs under qemu-user for other architectures. The first table's hashes are the rows of src/kernel/known.def. Then
 * products on odd shapes, each table against the first.
 */
#include "kernel/internal.h"
#include "os/os.h"

#include <stdio.h>

_Static_assert(KERNEL_CPU_AVX2 == (int)OS_CPU_AVX2 && KERNEL_CPU_I8MM == (int)OS_CPU_I8MM,
               "feature bits of kernel.h and os.h");

enum { WHOLE = 768, ROWS_MAX = 70, TOKENS_MAX = 70 };

/* Hash of one product on odd rows, columns and tokens. */
static uint64_t odd_product(const kernel_table *k, const kernel_type *type, int rows, int begin,
                            int end, int tokens, bool exact)
{
    static unsigned char file[ROWS_MAX * WHOLE * 4], tiles[80 * WHOLE * 4 + 5 * 3 * 320];
    static float x[TOKENS_MAX * WHOLE];
    static kernel_act act[TOKENS_MAX * WHOLE / 32];
    static double y[TOKENS_MAX * ROWS_MAX];
    uint64_t row_bytes = kernel_row_bytes(type, WHOLE),
             strip = kernel_strip_bytes(type, begin, end);
    int64_t columns = end - begin;
    kernel_example_blocks(type, file, (int64_t)rows * WHOLE / type->block_elements, (uint64_t)rows);
    kernel_example_floats(x, tokens * columns, (uint64_t)tokens);
    for (int64_t s = 0; s < kernel_strips(rows); s++)
        kernel_pack(type, tiles + (uint64_t)s * strip, file + (uint64_t)s * 16 * row_bytes,
                    row_bytes, (int)BASE_MIN(16, rows - 16 * s), begin, end);
    k->quantise(act, x, tokens * columns);
    bool floats = exact || !type->quantised;
    const kernel_matrix m = {type, tiles, rows, begin, end, strip};
    kernel_product p = {&m,
                        KERNEL_F32,
                        exact,
                        32,
                        tokens,
                        floats ? (const void *)x : (const void *)act,
                        floats ? (uint64_t)columns * 4 : kernel_act_bytes(columns),
                        y,
                        rows};
    memset(y, 0, sizeof y);
    kernel_multiply(k, &p, 0, kernel_strips(rows));
    uint64_t h = hash_bytes(y, sizeof y, 0);
    p.output = KERNEL_SUMS;
    kernel_multiply(k, &p, 0, kernel_strips(rows));
    return hash_bytes(y, sizeof y, h);
}

static int odd_shapes(const kernel_table *k)
{
    static const int shapes[][4] = {{1, 0, 32, 1},     {17, 32, 96, 2},   {40, 0, 768, 4},
                                    {33, 224, 544, 5}, {70, 256, 768, 1}, {31, 0, 512, 13},
                                    {5, 480, 768, 70}, {64, 96, 352, 8}};
    int failed = 0;
    for (int t = 0; t < KERNEL_TYPES; t++)
        for (int i = 0; i < (int)BASE_COUNT(shapes); i++)
            for (int exact = 0; exact < 2; exact++) {
                const int *s = shapes[i];
                const kernel_type *type = kernel_type_at(t);
                if (odd_product(k, type, s[0], s[1], s[2], s[3], exact) ==
                    odd_product(kernel_table_at(0), type, s[0], s[1], s[2], s[3], exact))
                    continue;
                printf(
                    "%s differs from portable: %s, %d rows, columns %d..%d, %d tokens, exact %d\n",
                    k->name, type->name, s[0], s[1], s[2], s[3], exact);
                failed = 1;
            }
    return failed;
}

int main(void)
{
    unsigned features = os_cpu_features();
    int failed = 0;
    for (int t = 0; kernel_table_at(t); t++) {
        const kernel_table *k = kernel_table_at(t);
        const char *name;
        err e;
        if (!kernel_runs(k, features)) {
            printf("%s: skipped, this machine cannot run it\n", k->name);
            continue;
        }
        for (int i = 0; t == 0; i++) {
            uint64_t hash = kernel_known_answer(k, i, &name);
            if (!name)
                break;
            printf("KNOWN(\"%s\", 0x%016llx)\n", name, (unsigned long long)hash);
        }
        if (kernel_self_test(k, &e) != STATUS_OK) {
            printf("%s\n", e.text);
            failed = 1;
            continue;
        }
        printf("%s: known answers of " KERNEL_NUMERICS " agree\n", k->name);
        failed |= odd_shapes(k);
    }
    return failed;
}
