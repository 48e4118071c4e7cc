/* shoal paths: where shoal reads and writes on this machine, and where it looks for models. Makes nothing. */
#include "cli/cli.h"
#include "cli/look.h"
#include "os/os.h"
#include "store/store.h"

#include <string.h>

enum { PATH = 4096 };

typedef struct listing {
    look_table table;
    json_t *json, *models;
} listing;

static void add(listing *l, const char *what, const char *path, bool exists)
{
    look_table_row(&l->table, (const char *[]){what, path, exists ? "" : "not there"});
}

static void add_own(listing *l, const char *key, const char *what, const char *kind,
                    const char *file)
{
    char path[PATH + 64];
    err e;
    if (os_user_dir(path, PATH, kind, &e) != STATUS_OK) {
        look_table_row(&l->table, (const char *[]){what, "", e.text});
        json_object_set_new(l->json, key, json_null());
        return;
    }
    if (*file)
        snprintf(path + strlen(path), 64, "/%s", file);
    add(l, what, path, os_is_dir(path) || os_is_file(path));
    json_object_set_new(l->json, key, look_json_text(path));
}

static void add_models(void *context, const char *what, const char *path, bool exists)
{
    listing *l = context;
    add(l, what, path, exists);
    json_array_append_new(l->models, json_pack("{s:s, s:o, s:b}", "what", what, "path",
                                               look_json_text(path), "exists", exists));
}

int cli_cmd_paths(cli *c)
{
    listing l = {.table = {.heads = {"WHAT", "PATH", ""}, .n_columns = 3, .gives = 1},
                 .json = json_object(),
                 .models = json_array()};
    add_own(&l, "config", "configuration", "config", "");
    add_own(&l, "config_file", "options", "config", "shoal.conf");
    add_own(&l, "data", "data", "data", "");
    add_own(&l, "state", "state", "state", "");
    add_own(&l, "node_file", "the running node", "state", "node.json");
    add_own(&l, "history", "history of shoal chat", "state", "chat-history");
    add_own(&l, "cache", "cache", "cache", "");
    store_folders(add_models, &l);
    json_object_set_new(l.json, "models", l.models);
    int code = 0;
    if (cli_flag(c, OPT_json)) {
        code = look_json(c, json_incref(l.json));
    } else {
        look_table_print(&l.table, stdout);
        code = 0;
    }
    json_decref(l.json);
    look_table_fini(&l.table);
    return code;
}
