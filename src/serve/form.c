/*
 * The form that an answer is held to, as a grammar's spec (src/sample): a JSON schema, tool calls as the model's syntax writes them, and in
 * front of either the reasoning that the model may begin with. Only the models' own ways of writing come from src/chat; what is JSON and
 * fits a schema is src/sample's affair.
 *
 *   schema            [reasoning] JSON                          with tools: [reasoning] calls, or JSON
 *   must_call         [reasoning] call, call …
 *   a strict tool     [reasoning] text; behind each marker of a call: a call
 */
#include "serve/serve_internal.h"

#include <string.h>

enum { CALLS_MAX = 16 };

/* {"text":"…"} of several pieces. */
static void put_text(sb *out, const char *a, const char *b)
{
    sb_puts(out, "{\"text\":\"");
    sb_json(out, a, strlen(a));
    sb_json(out, b, strlen(b));
    sb_puts(out, "\"}");
}

static void put_name(sb *out, str name)
{
    sb inside;
    sb_init(&inside);
    sb_json(&inside, name.data,
            name.length); /* in the call it is a JSON string, in the spec another around it */
    sb_puts(out, "{\"text\":\"");
    sb_json(out, inside.data ? inside.data : "", inside.length);
    sb_puts(out, "\"}");
    out->failed |= inside.failed;
    sb_fini(&inside);
}

static void put_schema(sb *out, str schema)
{
    sb_puts(out, "{\"schema\":");
    sb_add(out, schema.data, schema.length);
    sb_putc(out, '}');
}

status serve_check_schema(str schema, err *e)
{
    sb spec;
    sb_init(&spec);
    put_schema(&spec, schema);
    status s = spec.failed ? err_set(e, STATUS_NO_MEMORY, "serve: no memory for a schema")
                           : sample_grammar_check((str){spec.data, spec.length}, e);
    sb_fini(&spec);
    return s;
}

/* A tool without parameters takes an empty object; a schema that we cannot hold to, any object. */
static void put_arguments(sb *out, const serve_tool *t)
{
    if (!t->parameters.data)
        put_schema(out, str_from("{\"type\":\"object\",\"additionalProperties\":false}"));
    else if (t->strict || serve_check_schema(t->parameters, NULL) == STATUS_OK)
        put_schema(out, t->parameters);
    else
        put_schema(out, str_from("{\"type\":\"object\"}"));
}

/* One call of any of the tools. */
static void put_call(sb *out, const serve_call *c, const chat_call_form *f, bool marker)
{
    sb_puts(out, "{\"sequence\":[");
    put_text(out, marker ? f->marker : "", f->before);
    sb_puts(out, ",{\"choice\":[");
    for (int i = 0; i < c->r.n_tools; i++) {
        sb_puts(out, i ? ",{\"sequence\":[" : "{\"sequence\":[");
        put_name(out, c->r.tools[i].name);
        sb_putc(out, ',');
        put_text(out, f->behind_name, "");
        sb_putc(out, ',');
        put_arguments(out, &c->r.tools[i]);
        sb_puts(out, "]}");
    }
    sb_puts(out, "]},");
    put_text(out, f->after, "");
    sb_puts(out, "]}");
}

static void put_calls(sb *out, const serve_call *c, const chat_call_form *f)
{
    sb_puts(out, "{\"repeat\":");
    put_call(out, c, f, !f->bare);
    sb_puts(out, ",\"between\":\"");
    sb_json(out, f->between, strlen(f->between));
    sb_printf(out, "\",\"most\":%d}", c->r.one_call ? 1 : CALLS_MAX);
}

/* Text in which each marker begins a call; where a whole message may be one, what begins like an object is. */
static void put_free(sb *out, const serve_call *c, const chat_call_form *f)
{
    if (f->bare) {
        sb_puts(out, "{\"choice\":[");
        put_calls(out, c, f);
        sb_putc(out, ',');
    }
    sb_puts(out, "{\"free\":\"");
    sb_json(out, f->marker, strlen(f->marker));
    sb_puts(out, "\",\"then\":");
    put_call(out, c, f, false);
    sb_puts(out, f->bare ? ",\"not_first\":\"{\"}]}" : "}");
}

static bool ends_with(const sb *text, const char *end)
{
    size_t n = text->length, k = strlen(end);
    while (n && strchr(" \t\r\n", text->data[n - 1]))
        n--;
    return n >= k && !memcmp(text->data + n - k, end, k);
}

/* The reasoning in front, as far as the prompt has not ended it, and the comma behind. */
static void put_reasoning(sb *out, const serve_call *c, chat_format format)
{
    const char *open, *close;
    if (!chat_syntax_reasoning_tags(format.reasoning, &open, &close) ||
        ends_with(&c->prompt_text, close))
        return;
    if (!c->reasoning_open) {
        sb_puts(out, "{\"choice\":[{\"sequence\":[]},{\"sequence\":[");
        put_text(out, open, "");
        sb_putc(out, ',');
    }
    sb_puts(out, "{\"until\":\"");
    sb_json(out, close, strlen(close));
    sb_puts(out, c->reasoning_open ? "\"},{\"blank\":true}," : "\"},{\"blank\":true}]}]},");
}

status form_build(serve_call *c, err *e)
{
    chat_format format = node_instance_format(node_lease_instance(c->lease));
    const chat_call_form *f = chat_syntax_call_form(format.tools);
    sb *out = &c->form;
    bool schema = c->r.schema.data != NULL;
    if (c->r.must_call && !f)
        return err_set(
            e, STATUS_INVALID,
            "tool_choice: this model's chat template calls tools in no way that is known");
    if (!schema && (c->r.n_tools == 0 || !f))
        return STATUS_OK;
    sb_puts(out, "{\"sequence\":[");
    put_reasoning(out, c, format);
    if (c->r.must_call) {
        put_calls(out, c, f);
    } else if (schema && c->r.n_tools && f) {
        sb_puts(out, "{\"choice\":[");
        put_calls(out, c, f);
        sb_putc(out, ',');
        put_schema(out, c->r.schema);
        sb_puts(out, "]}");
    } else if (schema) {
        put_schema(out, c->r.schema);
    } else {
        put_free(out, c, f);
    }
    sb_puts(out, "]}");
    sb_putc(out, '\0');
    return out->failed ? err_set(e, STATUS_NO_MEMORY, "serve: no memory for a schema") : STATUS_OK;
}
