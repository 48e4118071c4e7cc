/*
 * Ollama's store with one manifest of any bytes, under a name that the first byte chooses: listing and finding must name nothing outside the store and
 * nothing that is not there.
 */
#include "folder.h"

#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const char *const places[] = {
    "manifests/registry.ollama.ai/library/tiny", "manifests/registry.ollama.ai/user/tiny",
    "manifests/other.example/user/tiny", "manifests/registry.ollama.ai/library/odd name"};
static void make_folders(const char *below)
{
    char path[256];
    folder_path(path, below);
    for (char *p = path + strlen(folder) + 1; *p; p++)
        if (*p == '/') {
            *p = '\0';
            mkdir(path, 0700);
            *p = '/';
        }
    mkdir(path, 0700);
}

static void prepare(void)
{
    if (!folder_make())
        return;
    for (size_t i = 0; i < BASE_COUNT(places); i++)
        make_folders(places[i]);
    make_folders("blobs");
    folder_write("blobs/sha256-" DIGEST, "GGUF\3\0\0\0", 8);
    setenv("OLLAMA_MODELS", folder, 1);
    setenv("HF_HUB_CACHE", "/nonexistent", 1);
    setenv("HOME", "/nonexistent", 1);
    log_set_level(LOG_ERROR);
}

static status visit(void *context, const store_model *m)
{
    char blob[256];
    if (strcmp(m->origin, "ollama") != 0)
        return STATUS_OK;
    folder_path(blob, "blobs/sha256-" DIGEST);
    if (strcmp(m->source, blob) != 0 || !m->name[0])
        abort();
    ++*(int *)context;
    return STATUS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char manifest[128], path[256];
    int n = 0;
    err e = {0};
    if (!size)
        return -1;
    prepare();
    snprintf(manifest, sizeof manifest, "%s/latest", places[data[0] % BASE_COUNT(places)]);
    folder_write(manifest, data + 1, size - 1);
    if (store_list(visit, &n, &e) != STATUS_OK || n > 1)
        abort();
    folder_path(path, manifest);
    unlink(path);
    return 0;
}
