/*
 * The hub cache of Hugging Face's tools, read only:
 *
 *   models--org--name/refs/main                     the commit that `main` meant when it was downloaded
 *   models--org--name/snapshots/<commit>/<files>    links into ../../blobs
 *
 * Without refs/main (a download by commit) the newest snapshot counts. The place is HF_HUB_CACHE, HF_HOME/hub, or
 * ~/.cache/huggingface/hub (XDG_CACHE_HOME is heeded).
 */
#include "store/origins.h"

#include <ctype.h>
#include <string.h>
#include <sys/stat.h>

enum { REF_LIMIT = 4096 };

static bool hub_folder(char out[STORE_PATH])
{
    const char *cache = store_env("HF_HUB_CACHE");
    if (!cache)
        cache = store_env("HUGGINGFACE_HUB_CACHE");
    if (cache) {
        size_t n = strlen(cache);
        if (n >= STORE_PATH)
            return false;
        memcpy(out, cache, n + 1);
        return true;
    }
    if (store_env("HF_HOME"))
        return store_join(out, store_env("HF_HOME"), "hub");
    if (store_env("XDG_CACHE_HOME"))
        return store_join(out, store_env("XDG_CACHE_HOME"), "huggingface/hub");
    return store_home(out, ".cache/huggingface/hub");
}

/* "models--org--name" → "org/name"; only the characters that the hub allows in names. */
static bool repository_name(char out[STORE_NAME], const char *folder)
{
    size_t n = 0;
    if (strncmp(folder, "models--", 8))
        return false;
    for (const char *p = folder + 8; *p; p++) {
        if (n + 1 >= STORE_NAME || (!isalnum((unsigned char)*p) && !strchr("-_.", *p)))
            return false;
        if (p[0] == '-' && p[1] == '-' && !memchr(out, '/', n) && n > 0) {
            out[n++] = '/';
            p++;
            continue;
        }
        out[n++] = *p;
    }
    out[n] = '\0';
    return n > 0 && out[0] != '.' && out[n - 1] != '/';
}

/* The name of a snapshot is one component, whatever refs/main says. */
static bool read_ref(char out[STORE_NAME], const char *repository)
{
    char path[STORE_PATH], *text;
    size_t n;
    if (!store_join(path, repository, "refs/main") ||
        os_read_file(&text, &n, path, REF_LIMIT, NULL) != STATUS_OK)
        return false;
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        n--;
    bool good = n > 0 && n < STORE_NAME;
    for (size_t i = 0; i < n && good; i++)
        good = isalnum((unsigned char)text[i]);
    if (good) {
        memcpy(out, text, n);
        out[n] = '\0';
    }
    base_free(text);
    return good;
}

typedef struct newest {
    const char *folder;
    char name[STORE_NAME];
    int64_t modified;
} newest;

static status visit_snapshot(void *context, const os_dir_entry *entry)
{
    newest *best = context;
    char path[STORE_PATH];
    struct stat info;
    size_t n = strlen(entry->name);
    if (!entry->is_dir || n >= sizeof best->name || !store_join(path, best->folder, entry->name) ||
        stat(path, &info) != 0)
        return STATUS_OK;
    if (!best->name[0] || (int64_t)info.st_mtime > best->modified) {
        memcpy(best->name, entry->name, n + 1);
        best->modified = (int64_t)info.st_mtime;
    }
    return STATUS_OK;
}

static bool snapshot(char out[STORE_PATH], const char *repository)
{
    char snapshots[STORE_PATH];
    newest best = {.folder = snapshots};
    if (!store_join(snapshots, repository, "snapshots"))
        return false;
    if (read_ref(best.name, repository) && store_join(out, snapshots, best.name) && os_is_dir(out))
        return true;
    best.name[0] = '\0';
    store_walk(snapshots, visit_snapshot, &best);
    return best.name[0] && store_join(out, snapshots, best.name);
}

typedef struct walk {
    store_visit visit;
    void *context;
    const char *folder;
} walk;

static status visit_entry(void *context, const os_dir_entry *entry)
{
    walk *w = context;
    char name[STORE_NAME], repository[STORE_PATH], files[STORE_PATH];
    if (!entry->is_dir || !repository_name(name, entry->name) ||
        !store_join(repository, w->folder, entry->name) || !snapshot(files, repository))
        return STATUS_OK;
    return store_repository("huggingface", name, files, w->visit, w->context);
}

static status list(store_visit visit, void *context)
{
    char folder[STORE_PATH];
    walk w = {visit, context, folder};
    return hub_folder(folder) ? store_walk(folder, visit_entry, &w) : STATUS_OK;
}

static void folders(store_folder_visit visit, void *context)
{
    char folder[STORE_PATH];
    if (hub_folder(folder))
        visit(context, "hub cache of Hugging Face", folder, os_is_dir(folder));
}

const store_origin store_origin_huggingface = {"huggingface", list, folders};
