/*
 * What does not depend on the ISA: the choice of a table, the leaf of exact sums and their end, sizes of pages.
 */
#include "kernel/internal.h"

#include <stdio.h>

/* Portable first, best last. */
static const kernel_table *const tables[] = {
    &kernel_portable,
#if defined(__x86_64__)
    &kernel_avx2,
    &kernel_avxvnni,
    &kernel_avx512,
    &kernel_avx512vnni,
#elif defined(__aarch64__)
    &kernel_neon,
    &kernel_dotprod,
    &kernel_i8mm,
#endif
    NULL,
};

const kernel_table *kernel_table_at(int i)
{
    return tables[i];
}

static void table_names(char *out, size_t bytes, unsigned features)
{
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; tables[i]; i++)
        if (kernel_runs(tables[i], features) && used < bytes)
            used += (size_t)snprintf(out + used, bytes - used, "%s%s", used ? ", " : "",
                                     tables[i]->name);
}

status kernel_select(const kernel_table **out, unsigned features, const char *forced, err *e)
{
    char names[200];
    const kernel_table *best = tables[0];
    table_names(names, sizeof names, features);
    for (int i = 0; tables[i]; i++) {
        bool runs = kernel_runs(tables[i], features);
        if (forced && *forced && str_is(str_from(forced), tables[i]->name)) {
            if (!runs)
                return err_set(e, STATUS_UNSUPPORTED,
                               "kernel: this machine cannot run ISA '%s'; it can run %s", forced,
                               names);
            *out = tables[i];
            return STATUS_OK;
        }
        if (runs)
            best = tables[i];
    }
    if (forced && *forced)
        return err_set(e, STATUS_NOT_FOUND, "kernel: there is no ISA '%s'; this machine can run %s",
                       forced, names);
    *out = best;
    return STATUS_OK;
}

int kernel_leaf(int64_t columns, int64_t head_width)
{
    int leaf = 256;
    while (leaf > 32 &&
           (columns % leaf || columns / leaf < 16 || (head_width && head_width % leaf)))
        leaf /= 2;
    return leaf;
}

bool kernel_finish(float *dst, const double *sums, int64_t n)
{
    uint64_t worst = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t u;
        memcpy(&u, &sums[i], 8);
        u &= 0x7FFFFFFFFFFFFFFFu;
        worst = u > worst ? u : worst;
        dst[i] = (float)(sums[i] + 0.0); /* −0 + 0 = +0 */
    }
    return worst < 0x41C0000000000000u; /* 2^29; NaN and infinity are greater as integers */
}

uint64_t kernel_page_bytes(kernel_kv kv, int64_t n_kv_heads, int64_t key_width, int64_t value_width)
{
    int64_t blocks =
        (key_width + KERNEL_UNIT - 1) / KERNEL_UNIT + (value_width + KERNEL_UNIT - 1) / KERNEL_UNIT;
    int64_t token =
        kv == KERNEL_KV_Q8_0 ? key_width + value_width + 2 * blocks : 2 * (key_width + value_width);
    return (uint64_t)(n_kv_heads * KERNEL_RANGE * token);
}
