/*
 * POST /v1/chat/completions. Messages are checked for their shape and handed on as JSON text: what they mean is the template's
 * affair. Answers: chat.completion, or chat.completion.chunk events (role first, then deltas, one with the reason of the end, usage when it
 * was asked for, [DONE]). Reasoning goes to `reasoning_content`, as DeepSeek, vLLM and llama.cpp have it.
 *
 * Source: OpenAI API reference, "Chat"; extensions of llama.cpp's server and vLLM. Not here: how an answer is held to a schema (src/serve,
 * src/sample); images and sound: refused by name.
 */
#include "api/api_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- the request --------------------------------------------------------------------------------------------------- */

static bool check_part(const json_t *part, const char *param, api_fault *f)
{
    char path[API_PATH];
    const char *type = NULL;
    if (!json_is_object(part))
        return api_wrong_type(f, param, "an object", part);
    api_path(path, "%s.", param);
    if (!api_get_string(&type, part, path, "type", f))
        return false;
    api_path(path, "%s.type", param);
    if (!type)
        return api_wrong_type(f, path, "a string", NULL);
    if (strcmp(type, "text") && strcmp(type, "refusal"))
        return api_fault_unsupported(f, path, "only text is understood, got %.40s", type);
    api_path(path, "%s.%s", param, type);
    const json_t *text = json_object_get(part, type);
    return json_is_string(text) || api_wrong_type(f, path, "a string", text);
}

static bool check_content(const json_t *message, const char *param, bool may_be_absent,
                          api_fault *f)
{
    char path[API_PATH];
    const json_t *content = json_object_get(message, "content"), *part;
    size_t i;
    api_path(path, "%s.content", param);
    if (json_is_string(content))
        return true;
    if (!content || json_is_null(content))
        return may_be_absent || api_wrong_type(f, path, "a string or an array of parts", content);
    if (!json_is_array(content))
        return api_wrong_type(f, path, "a string or an array of parts", content);
    json_array_foreach(content, i, part)
    {
        api_path(path, "%s.content[%zu]", param, i);
        if (!check_part(part, path, f))
            return false;
    }
    return true;
}

static bool check_tool_calls(const json_t *calls, const char *param, api_fault *f)
{
    char path[API_PATH];
    const json_t *call;
    size_t i;
    json_array_foreach(calls, i, call)
    {
        json_t *function = NULL;
        const char *name = NULL;
        api_path(path, "%s.tool_calls[%zu]", param, i);
        if (!json_is_object(call))
            return api_wrong_type(f, path, "an object", call);
        api_path(path, "%s.tool_calls[%zu].", param, i);
        if (!api_get_container(&function, JSON_OBJECT, call, path, "function", f))
            return false;
        api_path(path, "%s.tool_calls[%zu].function", param, i);
        if (!function)
            return api_wrong_type(f, path, "an object", NULL);
        api_path(path, "%s.tool_calls[%zu].function.", param, i);
        if (!api_get_string(&name, function, path, "name", f))
            return false;
        api_path(path, "%s.tool_calls[%zu].function.name", param, i);
        if (!name)
            return api_wrong_type(f, path, "a string", NULL);
    }
    return true;
}

static bool check_message(const json_t *message, const char *param, api_fault *f)
{
    char path[API_PATH];
    const char *role = NULL;
    json_t *calls = NULL;
    if (!json_is_object(message))
        return api_wrong_type(f, param, "an object", message);
    api_path(path, "%s.", param);
    if (!api_get_string(&role, message, path, "role", f) ||
        !api_get_container(&calls, JSON_ARRAY, message, path, "tool_calls", f))
        return false;
    api_path(path, "%s.role", param);
    if (!role)
        return api_wrong_type(f, path, "a string", NULL);
    return check_content(message, param, !strcmp(role, "assistant"), f) &&
           check_tool_calls(calls, param, f);
}

static bool read_messages(json_t *variables, const json_t *body, api_fault *f)
{
    json_t *messages = NULL, *message;
    size_t i;
    char param[API_PATH];
    if (!api_get_container(&messages, JSON_ARRAY, body, "", "messages", f))
        return false;
    if (!messages)
        return api_wrong_type(f, "messages", "an array", NULL);
    if (json_array_size(messages) == 0)
        return api_fault_set(f, STATUS_INVALID, "messages", "expected at least one message");
    json_array_foreach(messages, i, message)
    {
        api_path(param, "messages[%zu]", i);
        if (!check_message(message, param, f))
            return false;
    }
    json_object_set(variables, "messages", messages);
    return true;
}

static bool check_tool(const json_t *tool, size_t i, api_fault *f)
{
    char path[API_PATH];
    const char *type = NULL, *name = NULL;
    json_t *function = NULL, *parameters = NULL;
    api_path(path, "tools[%zu]", i);
    if (!json_is_object(tool))
        return api_wrong_type(f, path, "an object", tool);
    api_path(path, "tools[%zu].", i);
    if (!api_get_string(&type, tool, path, "type", f) ||
        !api_get_container(&function, JSON_OBJECT, tool, path, "function", f))
        return false;
    api_path(path, "tools[%zu].type", i);
    if (type && strcmp(type, "function"))
        return api_fault_unsupported(f, path, "only functions are understood, got %.40s", type);
    api_path(path, "tools[%zu].function", i);
    if (!function)
        return api_wrong_type(f, path, "an object", NULL);
    api_path(path, "tools[%zu].function.", i);
    if (!api_get_string(&name, function, path, "name", f) ||
        !api_get_container(&parameters, JSON_OBJECT, function, path, "parameters", f))
        return false;
    api_path(path, "tools[%zu].function.name", i);
    return name || api_wrong_type(f, path, "a string", NULL);
}

/* What tool_choice says. */
typedef struct tool_choice {
    bool wanted;           /* tools may be called */
    bool must;             /* and one has to be */
    const char *name;      /* that one; NULL = any */
    const json_t *allowed; /* an array of tools by name: the others do not count; NULL = all do */
} tool_choice;

/* {"mode": "auto" or "required", "tools": [{"type": "function", "function": {"name": …}}]} */
static bool read_allowed_choice(tool_choice *out, const json_t *v, api_fault *f)
{
    static const char path[] = "tool_choice.allowed_tools.";
    json_t *holder = NULL, *list = NULL;
    const char *mode = NULL;
    if (!api_get_container(&holder, JSON_OBJECT, v, "tool_choice.", "allowed_tools", f))
        return false;
    if (!holder)
        return api_wrong_type(f, "tool_choice.allowed_tools", "an object", NULL);
    if (!api_get_string(&mode, holder, path, "mode", f) ||
        !api_get_container(&list, JSON_ARRAY, holder, path, "tools", f))
        return false;
    if (!list)
        return api_wrong_type(f, "tool_choice.allowed_tools.tools", "an array", NULL);
    out->allowed = list;
    out->must = mode && !strcmp(mode, "required");
    return out->must || (mode && !strcmp(mode, "auto")) ||
           api_fault_set(f, STATUS_INVALID, "tool_choice.allowed_tools.mode",
                         "expected \"auto\" or \"required\", got \"%.40s\"", mode ? mode : "");
}

static const json_t *name_of(const json_t *tool)
{
    return json_object_get(json_object_get(tool, "function"), "name");
}

/* The tools that count, a new array: those of `tools` that the choice allows. NULL: one that it names is none of them, or no memory. */
static json_t *allowed_tools(const json_t *tools, const tool_choice *choice, api_fault *f)
{
    json_t *out = json_array(), *tool;
    const json_t *one;
    size_t i, k;
    json_array_foreach(choice->allowed, i, one)
    {
        const json_t *name = name_of(one);
        size_t before = json_array_size(out);
        json_array_foreach(tools, k, tool)
        {
            if (json_is_string(name) && json_equal(name, name_of(tool)))
                json_array_append(out, tool);
        }
        if (json_array_size(out) > before)
            continue;
        char path[API_PATH];
        api_path(path, "tool_choice.allowed_tools.tools[%zu].function.name", i);
        if (json_is_string(name))
            api_fault_set(f, STATUS_INVALID, path, "'%.80s' is none of the tools",
                          json_string_value(name));
        else
            api_wrong_type(f, path, "a string", name);
        json_decref(out);
        return NULL;
    }
    if (!out)
        api_fault_set(f, STATUS_NO_MEMORY, "tools", "no memory for tools");
    return out;
}

static bool read_named_choice(tool_choice *out, const json_t *v, api_fault *f)
{
    const char *type = NULL;
    json_t *function = NULL;
    if (!api_get_string(&type, v, "tool_choice.", "type", f))
        return false;
    if (type && !strcmp(type, "allowed_tools"))
        return read_allowed_choice(out, v, f);
    if (!type || strcmp(type, "function"))
        return api_fault_unsupported(f, "tool_choice.type",
                                     "expected \"function\" or \"allowed_tools\", got \"%.40s\"",
                                     type ? type : "");
    if (!api_get_container(&function, JSON_OBJECT, v, "tool_choice.", "function", f))
        return false;
    if (!function)
        return api_wrong_type(f, "tool_choice.function", "an object", NULL);
    if (!api_get_string(&out->name, function, "tool_choice.function.", "name", f))
        return false;
    out->must = true;
    return out->name || api_wrong_type(f, "tool_choice.function.name", "a string", NULL);
}

static bool read_tool_choice(tool_choice *out, const json_t *body, api_fault *f)
{
    const json_t *v = json_object_get(body, "tool_choice");
    *out = (tool_choice){.wanted = true};
    if (!v || json_is_null(v))
        return true;
    if (json_is_object(v))
        return read_named_choice(out, v, f);
    if (!json_is_string(v))
        return api_wrong_type(f, "tool_choice", "\"none\", \"auto\", \"required\" or an object", v);
    const char *choice = json_string_value(v);
    out->must = !strcmp(choice, "required");
    out->wanted = out->must || !strcmp(choice, "auto");
    return out->wanted || !strcmp(choice, "none") ||
           api_fault_set(f, STATUS_INVALID, "tool_choice",
                         "expected \"none\", \"auto\" or \"required\", got \"%.40s\"", choice);
}

/* JSON text of v in the arena; NULL data without memory. */
static str text_of(const json_t *v, arena *memory)
{
    char *text = json_dumps(v, JSON_COMPACT);
    str out = {0};
    if (text) {
        out.length = strlen(text);
        out.data = arena_strndup(memory, text, out.length);
    }
    free(text); /* jansson's */
    return out;
}

/* Tools whose calls are held to a form: those that have to be called, or all of them when one is strict. */
static bool read_forms(api_params *p, const json_t *tools, const tool_choice *choice, api_fault *f)
{
    size_t i, n = json_array_size(tools);
    const json_t *tool;
    bool any_strict = false;
    serve_tool *list = arena_zalloc(&p->memory, n + 1, sizeof *list);
    if (!list)
        return api_fault_set(f, STATUS_NO_MEMORY, "tools", "no memory for %zu tools", n);
    json_array_foreach(tools, i, tool)
    {
        char path[API_PATH];
        const json_t *function = json_object_get(tool, "function"),
                     *parameters = json_object_get(function, "parameters");
        serve_tool *t = &list[p->q.n_tools];
        err e;
        *t = (serve_tool){.name = api_json_str(json_object_get(function, "name"))};
        api_path(path, "tools[%zu].function.", i);
        if (!api_get_bool(&t->strict, function, path, "strict", f))
            return false;
        if (choice->name && !str_is(t->name, choice->name))
            continue;
        if (json_is_object(parameters)) {
            t->parameters = text_of(parameters, &p->memory);
            if (!t->parameters.data)
                return api_fault_set(f, STATUS_NO_MEMORY, "tools", "no memory for a schema");
            api_path(path, "tools[%zu].function.parameters", i);
            if (t->strict && serve_check_schema(t->parameters, &e) != STATUS_OK)
                return api_fault_set(f, e.code, path, "%s", e.text);
        }
        any_strict |= t->strict;
        p->q.n_tools++;
    }
    p->q.tools = list;
    p->q.must_call = choice->must;
    if (choice->must && p->q.n_tools == 0)
        return choice->name ? api_fault_set(f, STATUS_INVALID, "tool_choice.function.name",
                                            "'%.80s' is none of the tools", choice->name)
                            : api_fault_set(f, STATUS_INVALID, "tool_choice",
                                            "\"required\" needs tools, and there are none");
    if (!choice->must && !any_strict && !p->q.schema.data)
        p->q.n_tools = 0;
    return true;
}

static bool read_tools(api_params *p, json_t *variables, const json_t *body, api_fault *f)
{
    json_t *tools = NULL, *tool;
    size_t i;
    tool_choice choice;
    bool parallel = true;
    if (!api_get_container(&tools, JSON_ARRAY, body, "", "tools", f) ||
        !api_get_bool(&parallel, body, "", "parallel_tool_calls", f) ||
        !read_tool_choice(&choice, body, f))
        return false;
    json_array_foreach(tools, i, tool)
    {
        if (!check_tool(tool, i, f))
            return false;
    }
    json_t *own = choice.allowed ? allowed_tools(tools, &choice, f) : NULL;
    if (choice.allowed && !own)
        return false;
    if (own)
        tools = own;
    p->q.has_tools = choice.wanted && json_array_size(tools) > 0;
    p->q.one_call = !parallel;
    if (p->q.has_tools)
        json_object_set(variables, "tools", tools);
    bool good = !choice.wanted || read_forms(p, tools, &choice, f);
    json_decref(own); /* the variables hold it; names are those of the body */
    return good;
}

static bool read_schema(api_params *p, const json_t *format, api_fault *f)
{
    json_t *holder = NULL, *schema = NULL;
    const char *name = NULL;
    bool strict = false;
    err e;
    if (!api_get_container(&holder, JSON_OBJECT, format, "response_format.", "json_schema", f))
        return false;
    if (!holder)
        return api_wrong_type(f, "response_format.json_schema", "an object", NULL);
    if (!api_get_string(&name, holder, "response_format.json_schema.", "name", f) ||
        !api_get_bool(&strict, holder, "response_format.json_schema.", "strict", f) ||
        !api_get_container(&schema, JSON_OBJECT, holder, "response_format.json_schema.", "schema",
                           f))
        return false;
    if (!schema)
        return api_wrong_type(f, "response_format.json_schema.schema", "an object", NULL);
    p->q.schema = text_of(schema, &p->memory);
    if (!p->q.schema.data)
        return api_fault_set(f, STATUS_NO_MEMORY, "response_format", "no memory for a schema");
    return serve_check_schema(p->q.schema, &e) == STATUS_OK ||
           api_fault_set(f, e.code, "response_format.json_schema.schema", "%s", e.text);
}

static bool read_format(api_params *p, const json_t *body, api_fault *f)
{
    json_t *format = NULL;
    const char *type = NULL;
    if (!api_get_container(&format, JSON_OBJECT, body, "", "response_format", f) ||
        !api_get_string(&type, format, "response_format.", "type", f))
        return false;
    if (format && !type)
        return api_wrong_type(f, "response_format.type", "a string", NULL);
    if (!type || !strcmp(type, "text"))
        return true;
    if (!strcmp(type, "json_schema"))
        return read_schema(p, format, f);
    p->q.schema = str_from("{\"type\":\"object\"}");
    return !strcmp(type, "json_object") ||
           api_fault_unsupported(f, "response_format.type",
                                 "expected text, json_object or json_schema, got %.40s", type);
}

/* Members that would silently change the answer if they were ignored. */
static bool refuse_others(const json_t *body, api_fault *f)
{
    static const struct {
        const char *name, *why;
    } refused[] = {{"functions", "was replaced by tools"},
                   {"function_call", "was replaced by tool_choice"},
                   {"audio", "sound is not supported"}};
    for (size_t i = 0; i < BASE_COUNT(refused); i++) {
        const json_t *v = json_object_get(body, refused[i].name);
        if (v && !json_is_null(v))
            return api_fault_unsupported(f, refused[i].name, "%s", refused[i].why);
    }
    return true;
}

static bool read_template(json_t *variables, const json_t *body, api_fault *f)
{
    static const char *const ours[] = {"messages", "tools", "bos_token", "eos_token"};
    json_t *extra = NULL, *v;
    const char *key, *effort = NULL;
    bool prompt = true;
    if (!api_get_bool(&prompt, body, "", "add_generation_prompt", f) ||
        !api_get_string(&effort, body, "", "reasoning_effort", f) ||
        !api_get_container(&extra, JSON_OBJECT, body, "", "chat_template_kwargs", f))
        return false;
    json_object_set_new(variables, "add_generation_prompt", json_boolean(prompt));
    if (effort)
        json_object_set(variables, "reasoning_effort", json_object_get(body, "reasoning_effort"));
    json_object_foreach(extra, key, v)
    {
        char param[API_PATH];
        api_path(param, "chat_template_kwargs.%.80s", key);
        for (size_t i = 0; i < BASE_COUNT(ours); i++)
            if (!strcmp(key, ours[i]))
                return api_fault_set(f, STATUS_INVALID, param, "this variable cannot be replaced");
        json_object_set(variables, key, v);
    }
    return true;
}

static bool read_logprobs(serve_request *q, const json_t *body, api_fault *f)
{
    bool logprobs = false;
    int64_t top = 0;
    if (!api_get_bool(&logprobs, body, "", "logprobs", f) ||
        !api_get_whole(&top, 0, ENGINE_TOP_LOGPROBS, body, "", "top_logprobs", f))
        return false;
    if (top > 0 && !logprobs)
        return api_fault_set(f, STATUS_INVALID, "top_logprobs", "only allowed with logprobs: true");
    q->top_logprobs = logprobs ? (int)top : -1;
    return true;
}

/* variables: an empty object that is filled. */
static bool read_request(api_params *p, json_t *variables, const json_t *body, api_fault *f)
{
    return read_messages(variables, body, f) && api_read_params(p, body, f) &&
           read_logprobs(&p->q, body, f) && refuse_others(body, f) && read_format(p, body, f) &&
           read_tools(p, variables, body, f) && read_template(variables, body, f);
}

/* ---- the answer ---------------------------------------------------------------------------------------------------- */

typedef struct chat_choice {
    sb text, reasoning, tools; /* whole answers: text as it is, tools as JSON */
    sb logprobs;               /* JSON of tokens not yet shown */
    bool tool_open;
    serve_reason reason;
} chat_choice;

typedef struct chat_state {
    bool include_usage, logprobs;
    int n;
    chat_choice *choices;
    sb out; /* of the event at hand */
} chat_state;

static const char *const reasons[] = {
    [SERVE_STOP] = "stop", [SERVE_LENGTH] = "length", [SERVE_TOOL_CALLS] = "tool_calls"};

static void free_state(void *state)
{
    chat_state *s = state;
    for (int i = 0; s->choices && i < s->n; i++) {
        sb_fini(&s->choices[i].text);
        sb_fini(&s->choices[i].reasoning);
        sb_fini(&s->choices[i].tools);
        sb_fini(&s->choices[i].logprobs);
    }
    base_free(s->choices);
    sb_fini(&s->out);
    base_free(s);
}

static chat_state *new_state(const api_params *p)
{
    chat_state *s = base_zalloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->n = p->q.n_choices;
    s->include_usage = p->include_usage;
    s->logprobs = p->q.top_logprobs >= 0;
    s->choices = base_zalloc((size_t)s->n, sizeof *s->choices);
    if (s->choices)
        return s;
    free_state(s);
    return NULL;
}

static void put_head(sb *out, const api_exchange *x, const char *object)
{
    sb_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,", x->id, object,
              (long long)x->created);
    api_put_member(out, "model", str_from(x->model));
    sb_putc(out, ',');
    api_put_member(out, "system_fingerprint", str_from(x->fingerprint));
    sb_puts(out, ",\"choices\":[");
}

static void put_logprobs(sb *out, const chat_state *s, const sb *tokens)
{
    if (!s->logprobs || !tokens->length) {
        sb_puts(out, "\"logprobs\":null");
        return;
    }
    sb_puts(out, "\"logprobs\":{\"content\":[");
    sb_add(out, tokens->data, tokens->length);
    sb_puts(out, "],\"refusal\":null}");
}

static void begin_chunk(chat_state *s, const api_exchange *x, int choice)
{
    sb_clear(&s->out);
    put_head(&s->out, x, "chat.completion.chunk");
    sb_printf(&s->out, "{\"index\":%d,\"delta\":{", choice);
}

static void end_chunk(chat_state *s, api_exchange *x, int choice, const char *reason)
{
    sb *pending = &s->choices[choice].logprobs;
    sb_puts(&s->out, "},");
    put_logprobs(&s->out, s, pending);
    sb_clear(pending);
    if (reason)
        sb_printf(&s->out, ",\"finish_reason\":\"%s\"}]", reason);
    else
        sb_puts(&s->out, ",\"finish_reason\":null}]");
    sb_puts(&s->out, s->include_usage ? ",\"usage\":null}" : "}");
    api_exchange_send(x, &s->out);
}

static void stream_event(api_exchange *x, const serve_event *event)
{
    chat_state *s = x->state;
    int choice = event->choice;
    if (event->kind == SERVE_TOOL_END)
        return;
    if (event->kind == SERVE_STARTED) {
        for (int i = 0; i < s->n; i++) {
            begin_chunk(s, x, i);
            sb_puts(&s->out, "\"role\":\"assistant\",\"content\":\"\"");
            end_chunk(s, x, i, NULL);
        }
        return;
    }
    begin_chunk(s, x, choice);
    if (event->kind == SERVE_TEXT) {
        api_put_member(&s->out, "content", event->text);
    } else if (event->kind == SERVE_REASONING) {
        api_put_member(&s->out, "reasoning_content", event->text);
    } else if (event->kind == SERVE_TOOL_BEGIN) {
        sb_printf(&s->out, "\"tool_calls\":[{\"index\":%d,", event->tool_index);
        api_put_member(&s->out, "id", event->tool_id);
        sb_puts(&s->out, ",\"type\":\"function\",\"function\":{");
        api_put_member(&s->out, "name", event->tool_name);
        sb_puts(&s->out, ",\"arguments\":\"\"}}]");
    } else if (event->kind == SERVE_TOOL_ARGUMENTS) {
        sb_printf(&s->out, "\"tool_calls\":[{\"index\":%d,\"function\":{", event->tool_index);
        api_put_member(&s->out, "arguments", event->text);
        sb_puts(&s->out, "}}]");
    }
    end_chunk(s, x, choice, event->kind == SERVE_FINISH ? reasons[event->reason] : NULL);
}

static void keep_event(chat_choice *c, const serve_event *event)
{
    switch (event->kind) {
    case SERVE_TEXT:
        sb_add(&c->text, event->text.data, event->text.length);
        break;
    case SERVE_REASONING:
        sb_add(&c->reasoning, event->text.data, event->text.length);
        break;
    case SERVE_TOOL_BEGIN:
        sb_puts(&c->tools, c->tools.length ? ",{" : "{");
        api_put_member(&c->tools, "id", event->tool_id);
        sb_puts(&c->tools, ",\"type\":\"function\",\"function\":{");
        api_put_member(&c->tools, "name", event->tool_name);
        sb_puts(&c->tools, ",\"arguments\":\"");
        break;
    case SERVE_TOOL_ARGUMENTS:
        sb_json(&c->tools, event->text.data, event->text.length);
        break;
    case SERVE_TOOL_END:
        sb_puts(&c->tools, "\"}}");
        break;
    case SERVE_FINISH:
        c->reason = event->reason;
        break;
    default:
        break;
    }
}

static void on_event(api_exchange *x, int call, const serve_event *event)
{
    (void)call;
    chat_state *s = x->state;
    if (event->kind == SERVE_LOGPROBS) {
        sb *to = &s->choices[event->choice].logprobs;
        if (to->length)
            sb_putc(to, ',');
        api_openai_logprob(to, event);
        x->broken |= to->failed;
    } else if (x->stream) {
        stream_event(x, event);
    } else {
        keep_event(&s->choices[event->choice], event);
    }
}

static void put_choice(sb *out, const chat_state *s, int i)
{
    const chat_choice *c = &s->choices[i];
    out->failed |= c->text.failed || c->reasoning.failed || c->tools.failed || c->logprobs.failed;
    sb_printf(out, "{\"index\":%d,\"message\":{\"role\":\"assistant\",", i);
    if (c->tools.length && !c->text.length)
        sb_puts(out, "\"content\":null");
    else
        api_put_member(out, "content", (str){c->text.data, c->text.length});
    sb_puts(out, ",\"refusal\":null");
    if (c->reasoning.length) {
        sb_putc(out, ',');
        api_put_member(out, "reasoning_content", (str){c->reasoning.data, c->reasoning.length});
    }
    if (c->tools.length) {
        sb_puts(out, ",\"tool_calls\":[");
        sb_add(out, c->tools.data, c->tools.length);
        sb_putc(out, ']');
    }
    sb_puts(out, "},");
    put_logprobs(out, s, &c->logprobs);
    sb_printf(out, ",\"finish_reason\":\"%s\"}", reasons[c->reason]);
}

static void on_finish(api_exchange *x)
{
    chat_state *s = x->state;
    sb_clear(&s->out);
    if (x->stream) {
        if (s->include_usage) {
            put_head(&s->out, x, "chat.completion.chunk");
            sb_puts(&s->out, "],");
            api_openai_usage(&s->out, x);
            sb_putc(&s->out, '}');
            api_exchange_send(x, &s->out);
        }
        http_sse_send(x->r, NULL, "[DONE]", 6);
        http_stream_end(x->r);
        return;
    }
    put_head(&s->out, x, "chat.completion");
    for (int i = 0; i < s->n; i++) {
        if (i)
            sb_putc(&s->out, ',');
        put_choice(&s->out, s, i);
    }
    sb_puts(&s->out, "],");
    api_openai_usage(&s->out, x);
    sb_putc(&s->out, '}');
    api_reply_json(x->r, 200, &s->out);
}

static const api_voice voice = {&api_openai_chat, on_event, on_finish, api_openai_fail_stream,
                                free_state};

static void post_chat(const api_request *q)
{
    api_params p;
    api_fault f;
    json_t *body = NULL, *variables = json_object();
    char *text = NULL;
    chat_state *state = NULL;
    api_params_init(&p);
    bool good = api_read_body(&body, q, &f) && read_request(&p, variables, body, &f);
    if (good) {
        text = json_dumps(variables, JSON_COMPACT);
        state = text ? new_state(&p) : NULL;
        good = state || api_fault_set(&f, STATUS_NO_MEMORY, "", "no memory for a request");
    }
    if (good) {
        p.q.chat_variables = str_from(text);
        api_exchange_run(q, &voice, state, "chatcmpl", p.stream, &p.q, 1);
    } else {
        api_reply_fault(q->r, &api_openai_chat, &f);
    }
    free(text); /* jansson's */
    json_decref(variables);
    json_decref(body);
    api_params_fini(&p);
}

static const api_route routes[] = {
    {"POST", "/v1/chat/completions", post_chat, false},
};

const api_dialect api_openai_chat = {"openai chat", routes, BASE_COUNT(routes), api_openai_error};
