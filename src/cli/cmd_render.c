/*
 * shoal render MODEL | --template FILE: stdin is the JSON object of template variables {messages, tools?, add_generation_prompt?,
 * bos_token?, eos_token?, now?, …}; stdout is exactly the rendered text, nothing more. `now` is the clock of strftime_now:
 * "2025-07-15T09:30:00" or seconds since 1970. What the template does not take is not adapted: this is the measuring stick.
 */
#include "chat/chat.h"
#include "cli/cli.h"
#include "model/model.h"
#include "os/os.h"
#include "store/store.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { MAX_TEMPLATE = 16 << 20, MAX_VARIABLES = 256 << 20 };

typedef struct source { /* a template and what a model adds to it */
    char *text;         /* owned */
    size_t n;
    char *bos, *eos; /* owned; NULL: unknown */
} source;

static void source_fini(source *s)
{
    base_free(s->text);
    base_free(s->bos);
    base_free(s->eos);
}

/* `now` out of the variables, and whether they have tools. Malformed JSON is left to chat_render, which says where. */
static status look_at_variables(const char *json, size_t n, chat_time *now, bool *has_tools, err *e)
{
    status s = STATUS_OK;
    json_t *root = json_loadb(json, n, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
    const json_t *v = json_object_get(root, "now");
    *now = chat_time_from_unix((int64_t)(os_unix_us() / 1000000), 0);
    *has_tools = json_array_size(json_object_get(root, "tools")) > 0;
    if (json_is_number(v))
        *now = chat_time_from_unix((int64_t)json_number_value(v), 0);
    else if (v && !json_is_null(v) &&
             (!json_is_string(v) || !chat_time_parse(json_string_value(v), now)))
        s = err_set(e, STATUS_INVALID,
                    "stdin: now: expected \"2025-07-15T09:30:00\" or seconds since 1970");
    json_decref(root);
    return s;
}

static char *special_text(const text_tokenizer *t, text_special which)
{
    int32_t id = text_special_id(t, which);
    str piece = id < 0 ? (str){"", 0} : text_token_piece(t, id);
    return base_strndup(piece.data ? piece.data : "", piece.length);
}

static status select_template(source *out, const model_card *card, bool has_tools, err *e)
{
    chat_named_template named[MODEL_TEMPLATES];
    str text;
    bool fallback;
    for (int i = 0; i < card->n_templates; i++)
        named[i] = (chat_named_template){str_from(card->templates[i].name),
                                         str_from(card->templates[i].source)};
    status s = chat_template_select(&text, &fallback, named, (size_t)card->n_templates, NULL,
                                    has_tools, e);
    if (s != STATUS_OK)
        return s;
    out->text = base_strndup(text.data, text.length);
    out->n = text.length;
    return out->text ? s : err_set(e, STATUS_NO_MEMORY, "no memory for the chat template");
}

static status read_model(source *out, const char *name, bool has_tools, err *e)
{
    char path[STORE_PATH];
    file_model *f;
    model_card *card;
    text_tokenizer *t;
    status s = store_find(path, NULL, name, e);
    if (s == STATUS_OK)
        s = store_open(&f, path, e);
    if (s != STATUS_OK)
        return s;
    s = model_card_read_text(&card, f, e);
    if (s == STATUS_OK) {
        s = select_template(out, card, has_tools, e);
        if (s == STATUS_OK &&
            model_tokenizer_create(&t, card, NULL) == STATUS_OK) { /* without one: no bos, no eos */
            out->bos = special_text(t, TEXT_BOS);
            out->eos = special_text(t, TEXT_EOS);
            text_tokenizer_destroy(t);
        }
        model_card_destroy(card);
    }
    file_close(f);
    return s;
}

static status render(const source *from, const char *json, size_t n, chat_time now, sb *out, err *e)
{
    chat_template *t;
    chat_render_options o = {
        .now = now, .bos_token = str_from(from->bos), .eos_token = str_from(from->eos)};
    status s = chat_template_parse(&t, from->text, from->n, e);
    if (s != STATUS_OK)
        return s;
    s = chat_render(t, json, n, &o, out, e);
    chat_template_destroy(t);
    return s;
}

int cli_cmd_render(cli *c)
{
    const char *file = cli_text(c, OPT_template);
    source from = {0};
    bool has_tools = false, by_file = file && *file;
    chat_time now;
    char *json;
    size_t n;
    err e;
    if (by_file == (c->n_arguments == 1))
        return cli_usage(c, "a MODEL or --template FILE is expected, one of them");
    if (os_read_file(&json, &n, "-", MAX_VARIABLES, &e) != STATUS_OK)
        return cli_fail_err(c, &e);
    status s = look_at_variables(json, n, &now, &has_tools, &e);
    if (s == STATUS_OK)
        s = by_file ? os_read_file(&from.text, &from.n, file, MAX_TEMPLATE, &e)
                    : read_model(&from, c->arguments[0], has_tools, &e);
    sb out;
    sb_init(&out);
    if (s == STATUS_OK)
        s = render(&from, json, n, now, &out, &e);
    if (s == STATUS_OK && out.length)
        fwrite(out.data, 1, out.length, stdout);
    sb_fini(&out);
    source_fini(&from);
    base_free(json);
    return s == STATUS_OK ? 0 : cli_fail_err(c, &e);
}
