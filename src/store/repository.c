/*
 * What the places have in common: walking folders that may not be there, names and sizes of GGUF files (split ones are one model), folders
 * of safetensors, and repositories that hold any of them. Nothing is opened: whether a file is a sound model is found on loading.
 */
#include "store/origins.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { PART_SUFFIX = 15 /* "-00001-of-00003" */, GGUF_SUFFIX = 5 };

/* ---- folders and paths --------------------------------------------------------------------------------------------- */

typedef struct walk {
    status (*visit)(void *context, const os_dir_entry *entry);
    void *context;
    status stopped;
} walk;

static status walk_entry(void *context, const os_dir_entry *entry)
{
    walk *w = context;
    w->stopped = w->visit(w->context, entry);
    return w->stopped;
}

status store_walk(const char *folder, status (*visit)(void *context, const os_dir_entry *entry),
                  void *context)
{
    walk w = {visit, context, STATUS_OK};
    err e;
    if (!os_is_dir(folder))
        return STATUS_OK;
    if (os_list_dir(folder, walk_entry, &w, &e) != STATUS_OK && w.stopped == STATUS_OK)
        log_debug("store", "%s", e.text);
    return w.stopped;
}

bool store_join(char out[STORE_PATH], const char *a, const char *b)
{
    int n = snprintf(out, STORE_PATH, "%s/%s", a, b);
    return n > 0 && n < STORE_PATH;
}

const char *store_env(const char *variable)
{
    const char *value = getenv(variable);
    return value && *value ? value : NULL;
}

bool store_home(char out[STORE_PATH], const char *below)
{
    const char *home = store_env("HOME");
    return home && store_join(out, home, below);
}

/* ---- GGUF ---------------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, size_t n, const char *end)
{
    size_t m = strlen(end);
    return n > m && !strncasecmp(s + n - m, end, m);
}

static bool five_digits(const char *s, unsigned *out)
{
    *out = 0;
    for (int i = 0; i < 5; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *out = 10 * *out + (unsigned)(s[i] - '0');
    }
    return true;
}

/* "…-00001-of-00003" of n bytes. */
static bool read_part(const char *s, size_t n, unsigned *part, unsigned *parts)
{
    if (n <= PART_SUFFIX)
        return false;
    s += n - PART_SUFFIX;
    return s[0] == '-' && five_digits(s + 1, part) && !memcmp(s + 6, "-of-", 4) &&
           five_digits(s + 10, parts);
}

bool store_gguf_name(char out[STORE_NAME], const char *file)
{
    unsigned part, parts;
    size_t n = strlen(file);
    if (n >= STORE_NAME || file[0] == '.' || !strncasecmp(file, "mmproj", 6) ||
        !ends_with(file, n, ".gguf"))
        return false;
    n -= GGUF_SUFFIX;
    if (read_part(file, n, &part, &parts)) {
        if (part != 1)
            return false;
        n -= PART_SUFFIX;
    }
    memcpy(out, file, n);
    out[n] = '\0';
    return true;
}

static bool add_file(uint64_t *bytes, int64_t *modified_unix, const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < 0)
        return false;
    *modified_unix = BASE_MAX(*modified_unix, (int64_t)info.st_mtime);
    return checked_add(*bytes, (uint64_t)info.st_size, bytes);
}

bool store_gguf_size(uint64_t *bytes, int64_t *modified_unix, const char *path)
{
    char other[STORE_PATH];
    unsigned part, parts;
    size_t n = strlen(path), stem = n - BASE_MIN(n, (size_t)GGUF_SUFFIX);
    *bytes = 0;
    *modified_unix = 0;
    if (!ends_with(path, n, ".gguf") || !read_part(path, stem, &part, &parts))
        return add_file(bytes, modified_unix, path);
    if (n >= sizeof other || parts == 0 || parts > FILE_MAX_PARTS)
        return false;
    memcpy(other, path, n + 1);
    for (unsigned i = 1; i <= parts; i++) {
        char number[16];
        snprintf(number, sizeof number, "%05u", i);
        memcpy(other + stem - PART_SUFFIX + 1, number, 5);
        if (!add_file(bytes, modified_unix, other))
            return false;
    }
    return true;
}

/* ---- safetensors --------------------------------------------------------------------------------------------------- */

typedef struct shards {
    const char *folder;
    uint64_t bytes;
    int64_t modified_unix;
    bool config, weights;
} shards;

static status visit_shard(void *context, const os_dir_entry *entry)
{
    shards *s = context;
    char path[STORE_PATH];
    if (!entry->is_file || !store_join(path, s->folder, entry->name))
        return STATUS_OK;
    s->config |= !strcmp(entry->name, "config.json");
    if (ends_with(entry->name, strlen(entry->name), ".safetensors"))
        s->weights |= add_file(&s->bytes, &s->modified_unix, path);
    return STATUS_OK;
}

bool store_safetensors_size(uint64_t *bytes, int64_t *modified_unix, const char *folder)
{
    shards s = {.folder = folder};
    store_walk(folder, visit_shard, &s);
    *bytes = s.bytes;
    *modified_unix = s.modified_unix;
    return s.config && s.weights;
}

/* ---- repositories -------------------------------------------------------------------------------------------------- */

typedef struct repository {
    const char *origin, *name, *folder;
    store_visit visit;
    void *context;
    int depth;
} repository;

/* What a file's name says beyond the repository's: "Llama-3-8B-GGUF" and "llama-3-8b-Q4_0" → "Q4_0". */
static const char *part_of(const char *repository_name, const char *file_name)
{
    const char *last = strrchr(repository_name, '/');
    last = last ? last + 1 : repository_name;
    size_t n = strlen(last);
    if (ends_with(last, n, "-gguf"))
        n -= 5;
    if (strncasecmp(last, file_name, n) || !file_name[n] || !strchr("-._", file_name[n]) ||
        !file_name[n + 1])
        return file_name;
    return file_name + n + 1;
}

static status visit_file(void *context, const os_dir_entry *entry)
{
    repository *r = context;
    char path[STORE_PATH], stem[STORE_NAME], name[2 * STORE_NAME];
    store_model m = {.origin = r->origin, .source = path, .name = name};
    if (entry->name[0] == '.' || !store_join(path, r->folder, entry->name))
        return STATUS_OK;
    if (entry->is_dir && r->depth == 0) {
        repository below = *r;
        below.folder = path;
        below.depth = 1;
        return store_walk(path, visit_file, &below);
    }
    if (!entry->is_file || !store_gguf_name(stem, entry->name) ||
        !store_gguf_size(&m.bytes, &m.modified_unix, path))
        return STATUS_OK;
    int n = snprintf(name, sizeof name, "%s:%s", r->name, part_of(r->name, stem));
    return n > 0 && (size_t)n < sizeof name ? r->visit(r->context, &m) : STATUS_OK;
}

status store_repository(const char *origin, const char *name, const char *folder, store_visit visit,
                        void *context)
{
    repository r = {origin, name, folder, visit, context, 0};
    store_model m = {.origin = origin, .source = folder, .name = name};
    if (store_safetensors_size(&m.bytes, &m.modified_unix, folder)) {
        status s = visit(context, &m);
        if (s != STATUS_OK)
            return s;
    }
    return store_walk(folder, visit_file, &r);
}
