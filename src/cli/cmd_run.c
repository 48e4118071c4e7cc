/*
 * shoal run MODEL [PROMPT]: one answer, streamed to stdout. The prompt is PROMPT, or what is piped in, or both with a blank line between. On a
 * terminal without PROMPT it is `shoal chat`. See answer.h for what goes where; Ctrl-C stops and gives 130.
 */
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "os/os.h"

#include <fcntl.h>
#include <string.h>

enum { INPUT_LIMIT = 24 << 20 }; /* the server takes bodies of 32 MiB */

/* The prompt, heap. */
static status read_prompt(sb *out, const cli *c, err *e)
{
    char *piped;
    size_t n;
    if (c->n_arguments > 1)
        sb_puts(out, c->arguments[1]);
    if (!os_is_terminal(0) && fcntl(0, F_GETFD) >= 0) {
        status s = os_read_file(&piped, &n, "-", INPUT_LIMIT, e);
        if (s != STATUS_OK)
            return s;
        if (n && out->length)
            sb_puts(out, "\n\n");
        sb_add(out, piped, n);
        base_free(piped);
    }
    if (out->failed)
        return err_set(e, STATUS_NO_MEMORY, "no memory for the prompt");
    if (out->length == 0)
        return err_set(e, STATUS_INVALID,
                       "the prompt is empty: say it behind the model, or pipe it in");
    return STATUS_OK;
}

static status messages_of(json_t **out, const cli *c, const sb *prompt, err *e)
{
    const char *system = cli_text(c, OPT_system);
    json_t *content = json_stringn(prompt->data, prompt->length);
    if (!content)
        return err_set(e, STATUS_INVALID, "the prompt is not UTF-8 text");
    json_t *messages = json_array();
    if (system && *system) {
        json_t *text = json_string(system);
        if (!text) {
            json_decref(content);
            json_decref(messages);
            return err_set(e, STATUS_INVALID, "--system is not UTF-8 text");
        }
        json_array_append_new(messages, json_pack("{s:s, s:o}", "role", "system", "content", text));
    }
    json_array_append_new(messages, json_pack("{s:s, s:o}", "role", "user", "content", content));
    *out = messages;
    return STATUS_OK;
}

static status ask(answer *a, client *cl, const cli *c, json_t *messages, err *e)
{
    char model[STORE_PATH];
    json_t *request;
    status s = client_model(cl, model, c->arguments[0], e);
    if (s == STATUS_OK)
        s = client_request(&request, c, model, messages, e);
    if (s != STATUS_OK)
        return s;
    s = answer_run(a, cl, request, e);
    json_decref(request);
    if (s == STATUS_OK)
        answer_print_cost(a);
    return s;
}

int cli_cmd_run(cli *c)
{
    sb prompt = {0};
    json_t *messages = NULL;
    client *cl;
    answer a;
    err e;
    if (c->n_arguments == 1 && os_is_terminal(0))
        return cli_cmd_chat(c);
    status s = read_prompt(&prompt, c, &e);
    if (s == STATUS_OK)
        s = messages_of(&messages, c, &prompt, &e);
    sb_fini(&prompt);
    if (s != STATUS_OK)
        return s == STATUS_INVALID ? cli_usage(c, "%s", e.text) : cli_fail_err(c, &e);
    answer_init(&a, c, c->arguments[0]);
    s = client_open(&cl, c, &e);
    if (s == STATUS_OK) {
        s = ask(&a, cl, c, messages, &e);
        client_close(cl);
    }
    json_decref(messages);
    int code = s != STATUS_OK ? cli_fail_err(c, &e) : a.cost.signal ? 128 + a.cost.signal : 0;
    answer_fini(&a);
    return code;
}
