/* LM Studio's folders: <publisher>/<repository>/ with GGUF files or safetensors, under ~/.lmstudio/models (newer versions) and
 * ~/.cache/lm-studio/models (older ones). A folder that was moved in its settings is not looked for. */
#include "store/origins.h"

#include <stdio.h>
#include <string.h>

static const char *const places[] = {".lmstudio/models", ".cache/lm-studio/models"};

typedef struct walk {
    store_visit visit;
    void *context;
    const char *folder, *publisher; /* publisher NULL at the top */
} walk;

static status visit_entry(void *context, const os_dir_entry *entry)
{
    walk *w = context;
    char path[STORE_PATH], name[STORE_NAME];
    if (!entry->is_dir || entry->name[0] == '.' || !store_join(path, w->folder, entry->name))
        return STATUS_OK;
    if (!w->publisher) {
        walk below = {w->visit, w->context, path, entry->name};
        return store_walk(path, visit_entry, &below);
    }
    int n = snprintf(name, sizeof name, "%s/%s", w->publisher, entry->name);
    if (n < 0 || (size_t)n >= sizeof name)
        return STATUS_OK;
    return store_repository("lmstudio", name, path, w->visit, w->context);
}

static status list(store_visit visit, void *context)
{
    status s = STATUS_OK;
    for (size_t i = 0; i < BASE_COUNT(places) && s == STATUS_OK; i++) {
        char folder[STORE_PATH];
        walk w = {visit, context, folder, NULL};
        if (store_home(folder, places[i]))
            s = store_walk(folder, visit_entry, &w);
    }
    return s;
}

static void folders(store_folder_visit visit, void *context)
{
    for (size_t i = 0; i < BASE_COUNT(places); i++) {
        char folder[STORE_PATH];
        if (store_home(folder, places[i]))
            visit(context, "models of LM Studio", folder, os_is_dir(folder));
    }
}

const store_origin store_origin_lmstudio = {"lmstudio", list, folders};
