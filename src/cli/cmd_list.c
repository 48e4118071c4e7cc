/* shoal list: the models of this machine that could be named in a request, wherever they lie. Nothing is opened. */
#include "cli/cli.h"
#include "cli/look.h"
#include "os/os.h"
#include "store/store.h"

typedef struct listing {
    look_table table;
    json_t *json; /* NULL: the table is wanted */
    int64_t now;
} listing;

static status visit(void *context, const store_model *m)
{
    listing *l = context;
    if (l->json) {
        json_array_append_new(l->json,
                              json_pack("{s:o, s:s, s:o, s:I, s:I}", "name",
                                        look_json_text(m->name), "origin", m->origin, "source",
                                        look_json_text(m->source), "bytes", (json_int_t)m->bytes,
                                        "modified_unix", (json_int_t)m->modified_unix));
        return STATUS_OK;
    }
    char size[32], ago[32];
    look_table_row(&l->table,
                   (const char *[]){m->name, m->origin, base_format_bytes(size, m->bytes),
                                    look_ago(ago, m->modified_unix, l->now)});
    return STATUS_OK;
}

int cli_cmd_list(cli *c)
{
    listing l = {.table = {.heads = {"NAME", "ORIGIN", "SIZE", "MODIFIED"},
                           .right = {false, false, true, false},
                           .n_columns = 4},
                 .now = (int64_t)(os_unix_us() / 1000000)};
    err e;
    if (cli_flag(c, OPT_json))
        l.json = json_array();
    status s = store_list(visit, &l, &e);
    int code = 0;
    if (s != STATUS_OK)
        code = cli_fail_err(c, &e);
    else if (l.json)
        code = look_json(c, json_incref(l.json));
    else if (l.table.failed)
        code = cli_fail(c, "no memory for the table");
    else
        look_table_print(&l.table, stdout);
    json_decref(l.json);
    look_table_fini(&l.table);
    return code;
}
