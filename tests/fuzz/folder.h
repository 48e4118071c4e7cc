/*
 * A folder of its own for a fuzz target whose input is a file in a folder: made at the first call, in memory where /dev/shm is one, removed with all that
 * is in it when the process ends. For one thread; a failure ends the process, which the fuzzer reports.
 */
#ifndef TESTS_FUZZ_FOLDER_H
#define TESTS_FUZZ_FOLDER_H

#include "os/os.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static char folder[64];

static void folder_remove(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0)
        fprintf(stderr, "%s is left\n", folder);
}

/* True once, when the folder has just been made. */
static bool folder_make(void)
{
    if (folder[0])
        return false;
    snprintf(folder, sizeof folder, "%s/shoal-fuzz-XXXXXX",
             os_is_dir("/dev/shm") ? "/dev/shm" : "/tmp");
    if (!mkdtemp(folder))
        abort();
    atexit(folder_remove);
    return true;
}

static void folder_path(char out[256], const char *below)
{
    snprintf(out, 256, "%s/%s", folder, below);
}

static void folder_write(const char *below, const void *bytes, size_t n)
{
    char path[256];
    folder_path(path, below);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0)
        abort();
}

#endif
