/*
 * The public face of templates: parse, render, probe what a template does, choose among a model's templates, and the built-in one.
 * A render builds a runtime on the stack, loads the variables into its arena, runs the tree, and hands the text over only when
 * everything went well.
 */
#include <stdlib.h>
#include <string.h>

#include "chat/jinja.h"

enum { DEFAULT_STEPS = 20000000, DEFAULT_OUTPUT = 64 << 20, DEFAULT_MEMORY = 512 << 20 };

/* ---- rendering ------------------------------------------------------------------------------------------------------ */

static const chat_symbol *find_symbol(const chat_template *t, str name)
{
    const chat_symbol *s = t->buckets[hash_bytes(name.data, name.length, 0) % CHAT_N_BUCKETS];
    while (s && !str_equal(s->text, name))
        s = s->next;
    return s;
}

/* A name that the template never mentions needs no binding. */
static void bind(chat_runtime *rt, str name, chat_value v)
{
    const chat_symbol *symbol = find_symbol(rt->t, name);
    if (symbol)
        chat_scope_set(rt, rt->root, symbol, v);
}

static void bind_defaults(chat_runtime *rt, const chat_render_options *o)
{
    bind(rt, str_from("messages"), chat_list_value(rt, 0));
    bind(rt, str_from("tools"), chat_none());
    bind(rt, str_from("documents"), chat_none());
    bind(rt, str_from("add_generation_prompt"), chat_bool(false));
    bind(rt, str_from("bos_token"), chat_string_copy(rt, o->bos_token.data, o->bos_token.length));
    bind(rt, str_from("eos_token"), chat_string_copy(rt, o->eos_token.data, o->eos_token.length));
}

static void bind_variables(chat_runtime *rt, const char *json, size_t n, bool adapt)
{
    chat_value v = chat_json_load(rt, json, n);
    if (v.kind != CHAT_V_DICT)
        chat_fail(rt, "template variables: an object is expected, got '%s'", chat_type_name(v));
    if (adapt)
        chat_adapt(rt, v.as.dict);
    for (size_t i = 0; i < v.as.dict->n; i++)
        bind(rt, chat_str(v.as.dict->entries[i].key), v.as.dict->entries[i].value);
}

/* Everything that may leave by longjmp. rt and text are the caller's, so they stay intact. */
static status render_guarded(chat_runtime *rt, const char *json, size_t n,
                             const chat_render_options *o, chat_value *text)
{
    chat_capture c;
    if (setjmp(rt->escape))
        return rt->code;
    rt->root = chat_scope_create(rt, NULL);
    bind_defaults(rt, o);
    bind_variables(rt, json, n, o->adapt);
    rt->filter_input = chat_none();
    chat_capture_begin(rt, &c);
    chat_run_body(rt, rt->root, rt->t->root->items, rt->t->root->n);
    rt->at = NULL;
    *text = chat_capture_end(rt, &c);
    return STATUS_OK;
}

status chat_render(const chat_template *t, const char *variables, size_t n,
                   const chat_render_options *o, sb *out, err *e)
{
    static const chat_render_options defaults;
    chat_value text = chat_none();
    o = o ? o : &defaults;
    chat_runtime rt = {.t = t, .e = e, .now = o->now};
    if (rt.now.month < 1 || rt.now.month > 12)
        rt.now = (chat_time){0};
    rt.max_steps = o->max_steps ? o->max_steps : DEFAULT_STEPS;
    rt.max_output = o->max_output ? o->max_output : DEFAULT_OUTPUT;
    arena_init(&rt.memory, o->max_memory ? o->max_memory : DEFAULT_MEMORY);
    status s = render_guarded(&rt, variables, n, o, &text);
    if (s == STATUS_OK) {
        if (sb_reserve(out, text.length))
            sb_add(out, text.as.text, text.length);
        else
            s = err_set(e, STATUS_NO_MEMORY, "chat template: no memory for %u bytes of output",
                        text.length);
    }
    arena_fini(&rt.memory);
    return s;
}

/* ---- what a template does --------------------------------------------------------------------------------------------- */

/* Renders a probe; true when that worked and gives the text in out. */
static bool probe(const chat_template *t, const char *json, sb *out)
{
    chat_render_options o = {.now = {2025, 1, 1, 0, 0, 0},
                             .max_steps = 200000,
                             .max_output = 1 << 20,
                             .max_memory = 16 << 20};
    sb_clear(out);
    return chat_render(t, json, strlen(json), &o, out, NULL) == STATUS_OK && !out->failed;
}

static bool says(const sb *out, const char *text)
{
    return out->length && memmem(out->data, out->length, text, strlen(text));
}

#define PROBE_CALL(arguments)                                                                      \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":"    \
    "\"\",\"tool_calls\":[{"                                                                       \
    "\"id\":\"call00001\",\"type\":\"function\",\"function\":{\"name\":\"probe_tool\","            \
    "\"arguments\":" arguments "}}]},{\"role\":\"tool\",\"tool_call_id\":\"call00001\",\"name\":"  \
    "\"probe_tool\",\"content\":\"r\"}]}"

static void find_traits(chat_template *t)
{
    sb out, other;
    chat_traits *traits = &t->traits;
    sb_init(&out);
    sb_init(&other);
    traits->system_role = probe(t,
                                "{\"messages\":[{\"role\":\"system\",\"content\":\"probe_system\"},"
                                "{\"role\":\"user\",\"content\":\"q\"}]}",
                                &out) &&
                          says(&out, "probe_system");
    traits->tools =
        probe(
            t,
            "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"tools\":[{\"type\":"
            "\"function\","
            "\"function\":{\"name\":\"probe_tool\",\"description\":\"d\",\"parameters\":{\"type\":"
            "\"object\",\"properties\":{},\"required\":[]}}}]}",
            &out) &&
        says(&out, "probe_tool");
    traits->content_parts =
        probe(t,
              "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
              "\"text\":\"probe_part\"}]}]}",
              &out) &&
        says(&out, "probe_part") && !says(&out, "'probe_part'") && !says(&out, "\"probe_part\"");
    if (probe(
            t,
            "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"add_generation_prompt\":true}",
            &out) &&
        probe(t, "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}", &other))
        traits->generation_prompt = out.length != other.length;
    traits->argument_objects = probe(t, PROBE_CALL("{\"probe_name\":\"probe_value\"}"), &out) &&
                               says(&out, "probe_value") && !says(&out, "'probe_name'");
    traits->argument_strings =
        probe(t, PROBE_CALL("\"{\\\"probe_name\\\": \\\"probe_value\\\"}\""), &out) &&
        says(&out, "\"probe_name\"") && !says(&out, "\\\"probe_name");
    sb_fini(&out);
    sb_fini(&other);
}

const chat_traits *chat_template_traits(const chat_template *t)
{
    return &t->traits;
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

status chat_template_parse(chat_template **out, const char *source, size_t n, err *e)
{
    if (n > CHAT_MAX_SOURCE)
        return err_set(e, STATUS_TOO_LARGE,
                       "chat template: %zu bytes of source, at most %d are read", n,
                       CHAT_MAX_SOURCE);
    chat_template *t = base_zalloc(1, sizeof *t);
    if (!t)
        return err_set(e, STATUS_NO_MEMORY, "chat template: no memory");
    arena_init(&t->memory, (size_t)CHAT_MAX_SOURCE * 64);
    status s = STATUS_NO_MEMORY;
    char *copy = arena_strndup(&t->memory, n ? source : "", n);
    if (!copy) {
        err_set(e, s, "chat template: no memory for %zu bytes of source", n);
        goto out;
    }
    t->source = (str){copy, n};
    s = chat_jinja_parse(t, e);
    if (s != STATUS_OK)
        goto out;
    find_traits(t);
    *out = t;
    return STATUS_OK;
out:
    chat_template_destroy(t);
    return s;
}

void chat_template_destroy(chat_template *t)
{
    if (!t)
        return;
    arena_fini(&t->memory);
    base_free(t);
}

str chat_template_source(const chat_template *t)
{
    return t->source;
}

/* ---- choosing ----------------------------------------------------------------------------------------------------------- */

static const char chatml_source[] =
    "{%- set system = 'You are a helpful assistant.' %}\n"
    "{%- set turns = messages %}\n"
    "{%- if messages and messages[0].role == 'system' %}\n"
    "    {%- set system = messages[0].content %}\n"
    "    {%- set turns = messages[1:] %}\n"
    "{%- endif %}\n"
    "{{- '<|im_start|>system\\n' ~ system }}\n"
    "{%- if tools %}\n"
    "    {{- '\\n\\n# Tools\\n\\nYou may call functions to help with the request. Their signatures "
    "are within <tools>"
    "</tools>:\\n<tools>' }}\n"
    "    {%- for tool in tools %}{{ '\\n' ~ tool | tojson }}{% endfor %}\n"
    "    {{- '\\n</tools>\\n\\nFor each call return a JSON object with its name and arguments "
    "within <tool_call>"
    "</tool_call>:\\n<tool_call>\\n{\"name\": ..., \"arguments\": {...}}\\n</tool_call>' }}\n"
    "{%- endif %}\n"
    "{{- '<|im_end|>\\n' }}\n"
    "{%- for message in turns %}\n"
    "    {%- if message.role == 'tool' %}\n"
    "        {{- '<|im_start|>user' if loop.first or loop.previtem.role != 'tool' }}\n"
    "        {{- '\\n<tool_response>\\n' ~ message.content ~ '\\n</tool_response>' }}\n"
    "        {{- '<|im_end|>\\n' if loop.last or loop.nextitem.role != 'tool' }}\n"
    "    {%- else %}\n"
    "        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ (message.content or '') }}\n"
    "        {%- for call in message.tool_calls or [] %}\n"
    "            {%- set call = call.function or call %}\n"
    "            {{- '\\n' if message.content or not loop.first }}\n"
    "            {{- '<tool_call>\\n{\"name\": ' ~ call.name | tojson ~ ', \"arguments\": ' }}\n"
    "            {{- call.arguments if call.arguments is string else call.arguments | tojson }}\n"
    "            {{- '}\\n</tool_call>' }}\n"
    "        {%- endfor %}\n"
    "        {{- '<|im_end|>\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}\n";

str chat_template_chatml(void)
{
    return (str){chatml_source, sizeof chatml_source - 1};
}

static const chat_named_template *find_named(const chat_named_template *templates, size_t n,
                                             const char *name)
{
    bool is_default = strcmp(name, "default") == 0;
    for (size_t i = 0; i < n; i++)
        if (str_is(templates[i].name, name) || (is_default && templates[i].name.length == 0))
            return &templates[i];
    return NULL;
}

static status not_found(const chat_named_template *templates, size_t n, const char *wanted, err *e)
{
    sb names;
    sb_init(&names);
    for (size_t i = 0; i < n; i++) {
        str name = templates[i].name.length ? templates[i].name : str_from("default");
        sb_puts(&names, i ? ", " : "");
        sb_add(&names, name.data, name.length);
    }
    err_set(e, STATUS_NOT_FOUND, "the model has no chat template named '%s'; there is: %s", wanted,
            names.data ? names.data : "none");
    sb_fini(&names);
    return STATUS_NOT_FOUND;
}

status chat_template_select(str *out_source, bool *fallback, const chat_named_template *templates,
                            size_t n, const char *wanted, bool has_tools, err *e)
{
    const chat_named_template *found = NULL;
    if (wanted && *wanted) {
        found = find_named(templates, n, wanted);
        if (!found)
            return not_found(templates, n, wanted, e);
    } else if (n == 0) {
        log_warn("chat", "the model has no chat template: using the built-in ChatML one");
        *out_source = chat_template_chatml();
        *fallback = true;
        return STATUS_OK;
    } else {
        found = has_tools ? find_named(templates, n, "tool_use") : NULL;
        found = found ? found : find_named(templates, n, "default");
        if (!found && n == 1)
            found = &templates[0];
        if (!found)
            return not_found(templates, n, "default", e);
    }
    *out_source = found->source;
    *fallback = false;
    return STATUS_OK;
}
