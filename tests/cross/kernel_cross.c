/*
 * Runs the known-answer tests of every kernel table that this machine can run, and prints their hashes: base, os and kernel only, no test
 * library, so that it runs under qemu-user for other architectures. The first table's hashes are the rows of src/kernel/known.def.
 */
#include "kernel/internal.h"
#include "os/os.h"

#include <stdio.h>

_Static_assert(KERNEL_CPU_AVX2 == (int)OS_CPU_AVX2 && KERNEL_CPU_I8MM == (int)OS_CPU_I8MM,
               "feature bits of kernel.h and os.h");

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
        if (kernel_self_test(k, &e) == STATUS_OK) {
            printf("%s: known answers of " KERNEL_NUMERICS " agree\n", k->name);
            continue;
        }
        printf("%s\n", e.text);
        failed = 1;
    }
    return failed;
}
