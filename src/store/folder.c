/* shoal's own folder of models: every .gguf file (split ones by their first part) and every folder with weights in <data>/models. */
#include "store/origins.h"

#include <string.h>

static bool models_folder(char out[STORE_PATH])
{
    char data[STORE_PATH];
    return os_user_dir(data, sizeof data, "data", NULL) == STATUS_OK &&
           store_join(out, data, "models");
}

typedef struct walk {
    store_visit visit;
    void *context;
    const char *folder;
} walk;

typedef struct only {
    char path[STORE_PATH];
    int n;
} only;

static status find_gguf(void *context, const os_dir_entry *entry)
{
    only *o = context;
    char name[STORE_NAME];
    o->n += entry->is_file && store_gguf_name(name, entry->name);
    return STATUS_OK;
}

/* A folder stands for itself when file_open could open it: safetensors, or the only GGUF in it. */
static bool folder_size(store_model *m, const char *path)
{
    only o = {.n = 0};
    if (store_safetensors_size(&m->bytes, &m->modified_unix, path))
        return true;
    store_walk(path, find_gguf, &o);
    m->bytes = 0;
    return o.n == 1;
}

static status visit_entry(void *context, const os_dir_entry *entry)
{
    walk *w = context;
    char path[STORE_PATH], name[STORE_NAME];
    store_model m = {.name = name, .source = path, .origin = "shoal"};
    if (entry->name[0] == '.' || !store_join(path, w->folder, entry->name))
        return STATUS_OK;
    if (entry->is_dir && strlen(entry->name) < sizeof name) {
        memcpy(name, entry->name, strlen(entry->name) + 1);
        return folder_size(&m, path) ? w->visit(w->context, &m) : STATUS_OK;
    }
    if (!entry->is_file || !store_gguf_name(name, entry->name) ||
        !store_gguf_size(&m.bytes, &m.modified_unix, path))
        return STATUS_OK;
    return w->visit(w->context, &m);
}

static status list(store_visit visit, void *context)
{
    char folder[STORE_PATH];
    walk w = {visit, context, folder};
    return models_folder(folder) ? store_walk(folder, visit_entry, &w) : STATUS_OK;
}

static void folders(store_folder_visit visit, void *context)
{
    char folder[STORE_PATH];
    if (models_folder(folder))
        visit(context, "models of shoal", folder, os_is_dir(folder));
}

const store_origin store_origin_shoal = {"shoal", list, folders};
