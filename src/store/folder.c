/* shoal's own folder of models: every .gguf file (split ones by their first part) and every folder with weights in <data>/models. */
#include "os/os.h"
#include "store/origins.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static status models_folder(char *out, size_t bytes, err *e)
{
    status s = os_user_dir(out, bytes - 8, "data", e);
    if (s == STATUS_OK)
        memcpy(out + strlen(out), "/models", 8);
    return s;
}

typedef struct walk {
    store_visit visit;
    void *context;
    const char *folder;
} walk;

static bool ends_with(const char *s, size_t n, const char *end)
{
    size_t m = strlen(end);
    return n > m && !memcmp(s + n - m, end, m);
}

/* A name without ".gguf" and "-00001-of-00003"; false: not a model's first part. */
static bool bare_name(char out[256], const os_dir_entry *entry)
{
    size_t n = strlen(entry->name);
    if (n >= 256 || entry->name[0] == '.')
        return false;
    if (!entry->is_dir) {
        if (!ends_with(entry->name, n, ".gguf"))
            return false;
        n -= strlen(".gguf");
        unsigned part, parts;
        if (n > 15 && sscanf(entry->name + n - 15, "-%5u-of-%5u", &part, &parts) == 2) {
            if (part != 1)
                return false;
            n -= 15;
        }
    }
    memcpy(out, entry->name, n);
    out[n] = '\0';
    return n > 0;
}

static status visit_entry(void *context, const os_dir_entry *entry)
{
    walk *w = context;
    char path[STORE_PATH], name[256];
    struct stat info;
    if (!bare_name(name, entry))
        return STATUS_OK;
    int n = snprintf(path, sizeof path, "%s/%s", w->folder, entry->name);
    if (n < 0 || (size_t)n >= sizeof path || stat(path, &info) != 0)
        return STATUS_OK;
    store_model m = {name, path, "shoal", S_ISDIR(info.st_mode) ? 0 : (uint64_t)info.st_size,
                     (int64_t)info.st_mtime};
    return w->visit(w->context, &m);
}

static status list(store_visit visit, void *context, err *e)
{
    char folder[STORE_PATH];
    if (models_folder(folder, sizeof folder, NULL) != STATUS_OK || !os_is_dir(folder))
        return STATUS_OK;
    walk w = {visit, context, folder};
    return os_list_dir(folder, visit_entry, &w, e);
}

static void folders(void (*visit)(void *context, const char *what, const char *path, bool exists),
                    void *context)
{
    char folder[STORE_PATH];
    if (models_folder(folder, sizeof folder, NULL) == STATUS_OK)
        visit(context, "models of shoal", folder, os_is_dir(folder));
}

const store_origin store_origin_shoal = {"shoal", list, folders};
