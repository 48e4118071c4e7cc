/*
 * What the model reads: a chat rendered by its template and encoded with special tokens parsed, or a completion's text as it is. A
 * template writes its own BOS; the built-in one does not, then the tokenizer adds it where the model asks.
 */
#include "serve/serve_internal.h"

#include <string.h>

static void put_token_text(sb *out, const char *name, const text_tokenizer *t, text_special which)
{
    int32_t id = text_special_id(t, which);
    str piece = id >= 0 ? text_token_piece(t, id) : (str){"", 0};
    sb_printf(out, "\"%s\":\"", name);
    sb_json(out, piece.data, piece.length);
    sb_puts(out, "\",");
}

/* {"a":1} → {"bos_token":"…","eos_token":"…","a":1}; the API has checked that it is an object. */
static status add_variables(sb *out, const serve_call *c, err *e)
{
    const text_tokenizer *t = node_instance_tokenizer(node_lease_instance(c->lease));
    str v = c->r.chat_variables;
    size_t at = 0;
    while (at < v.length && strchr(" \t\r\n", v.data[at]))
        at++;
    if (at == v.length || v.data[at] != '{')
        return err_set(e, STATUS_INVALID, "serve: template variables are no JSON object");
    sb_putc(out, '{');
    put_token_text(out, "bos_token", t, TEXT_BOS);
    put_token_text(out, "eos_token", t, TEXT_EOS);
    sb_add(out, v.data + at + 1, v.length - at - 1);
    return out->failed ? err_set(e, STATUS_NO_MEMORY, "serve: no memory for a prompt") : STATUS_OK;
}

static status render(serve_call *c, sb *out, err *e)
{
    const node_instance *i = node_lease_instance(c->lease);
    sb variables;
    sb_init(&variables);
    status s = add_variables(&variables, c, e);
    if (s == STATUS_OK) {
        chat_render_options o = {.now = chat_time_from_unix((int64_t)(os_unix_us() / 1000000), 0),
                                 .adapt = true};
        s = chat_render(node_instance_template(i, c->r.has_tools), variables.data, variables.length,
                        &o, out, e);
        if (s == STATUS_INVALID)
            err_wrap(e, "the chat template refuses these messages");
    }
    sb_fini(&variables);
    return s;
}

/* Special tokens that the output parser must see as text. */
static void find_shown(serve_call *c, chat_format format)
{
    const text_tokenizer *t = node_instance_tokenizer(node_lease_instance(c->lease));
    const chat_syntax *const syntaxes[] = {format.reasoning, format.tools};
    c->n_shown = 0;
    for (size_t k = 0; k < BASE_COUNT(syntaxes); k++) {
        if (!syntaxes[k])
            continue;
        for (const char *const *piece = chat_syntax_shown(syntaxes[k]); *piece; piece++) {
            int32_t id = text_find(t, *piece);
            if (id >= 0 && c->n_shown < SERVE_SHOWN_MAX)
                c->shown[c->n_shown++] = id;
        }
    }
}

bool prompt_is_long(const serve_call *c)
{
    return c->r.chat_variables.length > SERVE_LONG_BYTES || c->r.prompt.length > SERVE_LONG_BYTES;
}

status prompt_build(serve_call *c, text_scratch *scratch, text_ids *ids, err *e)
{
    const node_instance *i = node_lease_instance(c->lease);
    const text_tokenizer *t = node_instance_tokenizer(i);
    if (!c->r.chat_variables.data) {
        status s = STATUS_OK;
        for (int k = 0; k < c->r.n_prompt_ids && s == STATUS_OK; k++)
            s = text_ids_add(ids, c->r.prompt_ids[k], e);
        if (s == STATUS_OK && c->r.prompt.data)
            s = text_encode(t, scratch, c->r.prompt.data, c->r.prompt.length,
                            TEXT_PARSE_SPECIAL | TEXT_ADD_SPECIAL, ids, e);
        return s;
    }
    status s = render(c, &c->prompt_text, e);
    if (s != STATUS_OK)
        return s;
    chat_format format = node_instance_format(i);
    if (!c->r.raw_text)
        find_shown(c, format);
    c->reasoning_open =
        chat_prompt_opens_reasoning(format, c->prompt_text.data, c->prompt_text.length);
    s = form_build(c, e);
    if (s != STATUS_OK)
        return s;
    int flags = TEXT_PARSE_SPECIAL | (node_instance_card(i)->n_templates ? 0 : TEXT_ADD_SPECIAL);
    return text_encode(t, scratch, c->prompt_text.data, c->prompt_text.length, flags, ids, e);
}
