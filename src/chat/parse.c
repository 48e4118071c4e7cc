/*
 * The streaming parser: two stages over a message, the table of syntaxes, and the tools that syntax files share.
 * Not here: any syntax itself.
 */
#include "chat/parse.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

struct chat_parser {
    chat_format format;
    chat_parser_options options;
    chat_event_sink sink;
    void *context;
    chat_stage reasoning, tools;
    int n_calls;
    bool finished;
};

static const chat_syntax *const syntaxes[] = {&chat_syntax_think, &chat_syntax_hermes,
                                              &chat_syntax_llama3};
static const char *const nothing_shown[] = {NULL};

/* ---- choosing ------------------------------------------------------------------------------------------------------- */

chat_format chat_syntax_detect(str source)
{
    chat_format f = {NULL, NULL};
    for (size_t i = 0; i < BASE_COUNT(syntaxes); i++) {
        const chat_syntax **place = syntaxes[i]->is_tools ? &f.tools : &f.reasoning;
        if (!*place && syntaxes[i]->detect(source))
            *place = syntaxes[i];
    }
    return f;
}

bool chat_syntax_find(const chat_syntax **out, const char *name)
{
    *out = NULL;
    for (size_t i = 0; i < BASE_COUNT(syntaxes); i++)
        if (strcmp(syntaxes[i]->name, name) == 0)
            *out = syntaxes[i];
    return *out || strcmp(name, "plain") == 0;
}

const char *chat_syntax_name(const chat_syntax *s)
{
    return s ? s->name : "plain";
}

const chat_call_form *chat_syntax_call_form(const chat_syntax *s)
{
    return s ? s->form : NULL;
}

bool chat_syntax_reasoning_tags(const chat_syntax *s, const char **open, const char **close)
{
    if (!s || !s->open)
        return false;
    *open = s->open;
    *close = s->close;
    return true;
}

const char *const *chat_syntax_shown(const chat_syntax *s)
{
    return s ? s->shown : nothing_shown;
}

bool chat_prompt_opens_reasoning(chat_format f, const char *prompt, size_t n)
{
    return f.reasoning && f.reasoning->prompt_open(prompt, n);
}

/* ---- stages --------------------------------------------------------------------------------------------------------- */

str chat_stage_text(const chat_stage *s)
{
    return (str){s->held.data ? s->held.data + s->from : "", s->held.length - s->from};
}

void chat_stage_take(chat_stage *s, size_t n)
{
    s->from += n;
    s->scanned = 0;
    s->nesting = 0;
    s->in_string = s->escaped = false;
    if (s->from == s->held.length) {
        sb_clear(&s->held);
        s->from = 0;
    }
}

static status add(chat_stage *s, const char *bytes, size_t n, err *e)
{
    if (s->from > 4096 &&
        s->from > s->held.length / 2) { /* amortised: each byte moves at most once */
        memmove(s->held.data, s->held.data + s->from, s->held.length - s->from);
        s->held.length -= s->from;
        s->from = 0;
    }
    if (!sb_reserve(&s->held, n))
        return err_set(e, STATUS_NO_MEMORY, "chat: no memory for %zu bytes of a message", n);
    sb_add(&s->held, bytes, n);
    return STATUS_OK;
}

static status send(chat_parser *p, const chat_event *event, err *e)
{
    status s = p->sink(p->context, event);
    return s == STATUS_OK
               ? s
               : err_set(e, s, "chat: the receiver of a message stopped it: %s", status_text(s));
}

status chat_emit_text(chat_parser *p, const char *bytes, size_t n, err *e)
{
    chat_event event = {.kind = CHAT_TEXT, .text = {bytes, n}};
    return n ? send(p, &event, e) : STATUS_OK;
}

status chat_emit_reasoning(chat_parser *p, const char *bytes, size_t n, err *e)
{
    chat_event event = {.kind = CHAT_REASONING, .text = {bytes, n}};
    return n ? send(p, &event, e) : STATUS_OK;
}

status chat_pass_on(chat_parser *p, const char *bytes, size_t n, err *e)
{
    if (!p->format.tools || !p->options.tools)
        return chat_emit_text(p, bytes, n, e);
    status s = n ? add(&p->tools, bytes, n, e) : STATUS_OK;
    return s == STATUS_OK ? p->format.tools->run(p, &p->tools, false, e) : s;
}

status chat_emit_call(chat_parser *p, str name, str arguments, err *e)
{
    char id[48];
    uint64_t index = (uint64_t)p->n_calls, high = hash_u64(index, p->options.seed);
    snprintf(id, sizeof id, "call_%016llx%08x", (unsigned long long)high,
             (unsigned)hash_u64(index, high));
    chat_event event = {
        .kind = CHAT_TOOL_BEGIN, .index = p->n_calls++, .name = name, .id = str_from(id)};
    status s = send(p, &event, e);
    event.kind = CHAT_TOOL_ARGUMENTS;
    event.text = arguments;
    if (s == STATUS_OK)
        s = send(p, &event, e);
    event.kind = CHAT_TOOL_END;
    event.text = (str){NULL, 0};
    return s == STATUS_OK ? send(p, &event, e) : s;
}

/* ---- the parser ----------------------------------------------------------------------------------------------------- */

status chat_parser_create(chat_parser **out, chat_format f, const chat_parser_options *o,
                          chat_event_sink sink, void *context, err *e)
{
    chat_parser *p = base_zalloc(1, sizeof *p);
    if (!p)
        return err_set(e, STATUS_NO_MEMORY, "chat: no memory for a parser");
    p->format = f;
    p->options = o ? *o : (chat_parser_options){0};
    p->sink = sink;
    p->context = context;
    sb_init(&p->reasoning.held);
    sb_init(&p->tools.held);
    if (f.reasoning && p->options.reasoning_open)
        p->reasoning.state = f.reasoning->open_state;
    *out = p;
    return STATUS_OK;
}

status chat_parser_feed(chat_parser *p, const char *bytes, size_t n, err *e)
{
    if (p->finished)
        return err_set(e, STATUS_CLOSED, "chat: text behind the end of a message");
    if (n == 0)
        return STATUS_OK;
    if (!p->format.reasoning)
        return chat_pass_on(p, bytes, n, e);
    status s = add(&p->reasoning, bytes, n, e);
    return s == STATUS_OK ? p->format.reasoning->run(p, &p->reasoning, false, e) : s;
}

status chat_parser_finish(chat_parser *p, err *e)
{
    status s = STATUS_OK;
    if (p->finished)
        return s;
    p->finished = true;
    if (p->format.reasoning)
        s = p->format.reasoning->run(p, &p->reasoning, true, e);
    if (s == STATUS_OK && p->format.tools && p->options.tools)
        s = p->format.tools->run(p, &p->tools, true, e);
    return s;
}

int chat_parser_tool_calls(const chat_parser *p)
{
    return p->n_calls;
}

void chat_parser_destroy(chat_parser *p)
{
    if (!p)
        return;
    sb_fini(&p->reasoning.held);
    sb_fini(&p->tools.held);
    base_free(p);
}

/* ---- text helpers --------------------------------------------------------------------------------------------------- */

bool chat_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

size_t chat_blanks(str text, size_t from)
{
    size_t n = from;
    while (n < text.length && chat_blank(text.data[n]))
        n++;
    return n - from;
}

size_t chat_trailing_blanks(str text)
{
    size_t n = 0;
    while (n < text.length && chat_blank(text.data[text.length - 1 - n]))
        n++;
    return n;
}

size_t chat_find(str text, const char *marker)
{
    const char *hit = text.length ? memmem(text.data, text.length, marker, strlen(marker)) : NULL;
    return hit ? (size_t)(hit - text.data) : text.length;
}

size_t chat_partial(str text, const char *marker)
{
    size_t n = BASE_MIN(strlen(marker) - 1, text.length);
    while (n && memcmp(text.data + text.length - n, marker, n) != 0)
        n--;
    return n;
}

size_t chat_object_end(chat_stage *s, size_t start)
{
    str text = chat_stage_text(s);
    for (size_t i = BASE_MAX(s->scanned, start); i < text.length; i++) {
        char c = text.data[i];
        if (s->in_string) {
            s->in_string = s->escaped || c != '"';
            s->escaped = !s->escaped && c == '\\';
        } else if (c == '"') {
            s->in_string = true;
        } else if (c == '{' || c == '[') {
            s->nesting++;
        } else if ((c == '}' || c == ']') && --s->nesting == 0) {
            s->scanned = i; /* asking again finds it again */
            s->nesting = 1;
            return i + 1;
        }
    }
    s->scanned = text.length;
    return 0;
}

/* ---- one call as JSON ------------------------------------------------------------------------------------------------- */

/* The end of the value at `at` in valid JSON. */
static size_t value_end(str json, size_t at)
{
    int nesting = 0;
    bool in_string = false;
    for (; at < json.length; at++) {
        char c = json.data[at];
        if (in_string) {
            if (c == '\\')
                at++;
            else if (c == '"')
                in_string = false;
            if (!in_string && nesting == 0)
                return at + 1;
        } else if (c == '"')
            in_string = true;
        else if (c == '{' || c == '[')
            nesting++;
        else if (c == '}' || c == ']') {
            if (nesting == 0)
                return at;
            if (--nesting == 0)
                return at + 1;
        } else if (nesting == 0 && (c == ',' || chat_blank(c)))
            return at;
    }
    return json.length;
}

/* The text of a member of a valid JSON object; keys are compared as written. The last one counts. */
static bool member_text(str json, const char *name, str *out)
{
    bool found = false;
    size_t at = 1, n = strlen(name);
    for (;;) {
        at += chat_blanks(json, at);
        if (at >= json.length || json.data[at] == '}')
            return found;
        size_t key = at, key_end = value_end(json, at);
        at = key_end + chat_blanks(json, key_end) + 1; /* ':' */
        at += chat_blanks(json, at);
        size_t end = value_end(json, at);
        if (key_end - key == n + 2 && memcmp(json.data + key + 1, name, n) == 0) {
            *out = (str){json.data + at, end - at};
            found = true;
        }
        at = end + chat_blanks(json, end);
        if (at < json.length && json.data[at] == ',')
            at++;
    }
}

static json_t *load(const char *text, size_t n)
{
    /* numbers are not looked at, and as reals no integer is too big */
    json_t *v = json_loadb(text, n, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
    if (v && !json_is_object(v)) {
        json_decref(v);
        v = NULL;
    }
    return v;
}

static bool read_arguments(chat_call *out, const json_t *root, str object, bool may_lack)
{
    static const char *const names[] = {"arguments", "parameters"};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        const json_t *v = json_object_get(root, names[i]);
        if (json_is_object(v))
            return member_text(object, names[i], &out->arguments);
        if (json_is_string(v)) { /* an object inside a string */
            json_t *inner = load(json_string_value(v), json_string_length(v));
            if (!inner)
                return false;
            json_decref(inner);
            out->owned = base_strndup(json_string_value(v), json_string_length(v));
            out->arguments = (str){out->owned, json_string_length(v)};
            return out->owned != NULL;
        }
        if (v && !json_is_null(v))
            return false;
    }
    out->arguments = str_from("{}");
    return may_lack;
}

bool chat_call_read(chat_call *out, str object, bool may_lack_arguments)
{
    *out = (chat_call){0};
    json_t *root = load(object.data, object.length);
    const json_t *name = root ? json_object_get(root, "name") : NULL;
    bool ok = json_is_string(name) && json_string_length(name) > 0 &&
              !memchr(json_string_value(name), 0, json_string_length(name));
    if (ok)
        ok = read_arguments(out, root, object, may_lack_arguments);
    if (ok) {
        out->name = base_strdup(json_string_value(name));
        ok = out->name != NULL;
    }
    json_decref(root);
    if (!ok)
        chat_call_fini(out);
    return ok;
}

void chat_call_fini(chat_call *c)
{
    base_free(c->name);
    base_free(c->owned);
    *c = (chat_call){0};
}
