/* shoal ps: the models that the node of this machine has loaded, as GET /v1/status tells; --json prints that answer as it is. */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/look.h"

#include <string.h>

static uint64_t whole(const json_t *m, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(m, key));
    return n > 0 ? (uint64_t)n : 0;
}

static const char *text_of(const json_t *m, const char *key)
{
    const char *text = json_string_value(json_object_get(m, key));
    return text ? text : "";
}

/* "ready", "loading 40%", "failed: why". */
static void state_text(char out[160], const json_t *m)
{
    const char *state = text_of(m, "state"), *why = text_of(m, "error");
    if (!strcmp(state, "loading"))
        snprintf(out, 160, "loading %d%%",
                 (int)(json_number_value(json_object_get(m, "loaded")) * 100));
    else
        snprintf(out, 160, "%s%s%.120s", state, *why ? ": " : "", why);
}

static void requests_text(char out[64], const json_t *m)
{
    uint64_t n = whole(m, "requests"), waiting = whole(m, "waiting");
    if (waiting)
        snprintf(out, 64, "%llu, %llu wait", (unsigned long long)n, (unsigned long long)waiting);
    else
        snprintf(out, 64, "%llu", (unsigned long long)n);
}

static void add_model(look_table *t, const json_t *m)
{
    char state[160], context[32], memory[32], requests[64], used[48], idle[32], unload[32];
    const json_t *unload_in = json_object_get(m, "unload_in_us");
    bool busy = whole(m, "requests") > 0;
    uint64_t pool = whole(m, "state_tokens");
    state_text(state, m);
    snprintf(context, sizeof context, "%llu", (unsigned long long)whole(m, "context"));
    base_format_bytes(memory, whole(m, "weight_bytes") + whole(m, "state_bytes") +
                                  whole(m, "scratch_bytes"));
    requests_text(requests, m);
    snprintf(used, sizeof used, "%llu%%",
             pool ? (unsigned long long)(whole(m, "state_used_tokens") * 100 / pool) : 0ull);
    look_table_row(t, (const char *[]){
                          text_of(m, "name"), state, context, text_of(m, "kv"), memory, used,
                          requests, busy ? "" : look_span(idle, whole(m, "idle_us")),
                          busy                         ? ""
                          : json_is_integer(unload_in) ? look_span(unload, whole(m, "unload_in_us"))
                                                       : "never"});
}

static void print_models(const json_t *status_json)
{
    look_table t = {.heads = {"NAME", "STATE", "CONTEXT", "KV", "MEMORY", "USED", "REQUESTS",
                              "IDLE", "UNLOAD IN"},
                    .right = {false, false, true, false, true, true, true, true, true},
                    .n_columns = 9};
    const json_t *m;
    size_t i;
    json_array_foreach(json_object_get(status_json, "models"), i, m) add_model(&t, m);
    if (t.n_rows == 0)
        puts("no model is loaded; the first request for one loads it");
    look_table_print(&t, stdout);
    look_table_fini(&t);
}

int cli_cmd_ps(cli *c)
{
    client *cl;
    json_t *answer = NULL;
    err e;
    status s = client_open_running(&cl, c, &e);
    if (s == STATUS_OK) {
        s = client_get(cl, &answer, "/v1/status", &e);
        client_close(cl);
    }
    if (s != STATUS_OK)
        return cli_fail_err(c, &e);
    if (cli_flag(c, OPT_json))
        return look_json(c, answer);
    print_models(answer);
    json_decref(answer);
    return 0;
}
