/*
 * Messages as OpenAI clients send them → messages as one template understands them, led by what the template was seen to do
 * (chat_traits). Only the forms change, never what is said: arguments as text or object, content as parts or one string, the names of
 * roles, a system message folded into the first user message where the template knows none. Null members other than content go,
 * because templates ask `is defined`.
 */
#include <string.h>

#include "chat/jinja.h"

static chat_value *member(const chat_dict *d, const char *name)
{
    return chat_dict_get_str(d, str_from(name));
}

static bool member_is(const chat_dict *d, const char *name, const char *text)
{
    chat_value *v = member(d, name);
    return v && v->kind == CHAT_V_STRING && str_is(chat_str(*v), text);
}

static void drop_nulls(chat_runtime *rt, chat_dict *message)
{
    for (size_t i = message->n; i-- > 0;) {
        chat_entry e = message->entries[i];
        bool empty_calls = str_is(chat_str(e.key), "tool_calls") && !chat_truth(e.value);
        if (empty_calls || (e.value.kind == CHAT_V_NONE && !str_is(chat_str(e.key), "content")))
            chat_dict_remove(rt, message, e.key, &e.value);
    }
}

static void adapt_arguments(chat_runtime *rt, chat_value call)
{
    const chat_traits *traits = &rt->t->traits;
    if (call.kind != CHAT_V_DICT)
        return;
    chat_value *function = member(call.as.dict, "function");
    chat_dict *d = function && function->kind == CHAT_V_DICT ? function->as.dict : call.as.dict;
    chat_value *arguments = member(d, "arguments"), object = chat_none();
    if (!arguments)
        return;
    if (arguments->kind == CHAT_V_STRING && traits->argument_objects && !traits->argument_strings) {
        str text = chat_str(*arguments);
        if (text.length == 0)
            *arguments = chat_dict_value(rt);
        else if (chat_json_try(rt, text.data, text.length, &object) && object.kind == CHAT_V_DICT)
            *arguments = object;
    } else if (arguments->kind == CHAT_V_DICT && traits->argument_strings &&
               !traits->argument_objects) {
        chat_json_options o = {.item_separator = str_from(", "), .key_separator = str_from(": ")};
        chat_capture c;
        chat_capture_begin(rt, &c);
        chat_json_dump(rt, &c.text, *arguments, &o);
        *arguments = chat_capture_end(rt, &c);
    }
}

/* Text parts → one string, a line each. Anything else cannot be said to this template. */
static void join_parts(chat_runtime *rt, chat_value *content)
{
    chat_capture c;
    chat_list parts = *content->as.list;
    chat_capture_begin(rt, &c);
    for (size_t i = 0; i < parts.n; i++) {
        chat_value part = parts.items[i];
        chat_value *text = part.kind == CHAT_V_DICT ? member(part.as.dict, "text") : NULL;
        if (part.kind != CHAT_V_STRING && (!text || text->kind != CHAT_V_STRING))
            chat_fail_status(
                rt, STATUS_UNSUPPORTED,
                "this model's chat template takes text only: content part %zu is something else",
                i);
        chat_write(rt, "\n", i > 0);
        chat_print(rt, &c.text, text ? *text : part);
    }
    *content = chat_capture_end(rt, &c);
}

static void adapt_message(chat_runtime *rt, chat_dict *message, bool knows_developer)
{
    drop_nulls(rt, message);
    if (!knows_developer && member_is(message, "role", "developer"))
        *member(message, "role") = chat_string_literal("system");
    chat_value *content = member(message, "content");
    if (content && content->kind == CHAT_V_LIST && !rt->t->traits.content_parts)
        join_parts(rt, content);
    chat_value *calls = member(message, "tool_calls");
    for (size_t i = 0; calls && calls->kind == CHAT_V_LIST && i < calls->as.list->n; i++)
        adapt_arguments(rt, calls->as.list->items[i]);
}

/* [system, user, …] → [user with the system text in front, …] */
static void fold_system(chat_runtime *rt, chat_list *messages)
{
    if (messages->n < 2 || messages->items[0].kind != CHAT_V_DICT ||
        messages->items[1].kind != CHAT_V_DICT)
        return;
    chat_dict *system = messages->items[0].as.dict, *user = messages->items[1].as.dict;
    chat_value *first = member(system, "content"), *second = member(user, "content");
    if (!member_is(system, "role", "system") || !member_is(user, "role", "user") || !first ||
        !second || first->kind != CHAT_V_STRING || second->kind != CHAT_V_STRING)
        return;
    chat_value head = chat_binary(rt, CHAT_OP_ADD, *first, chat_string_literal("\n\n"));
    *second = chat_binary(rt, CHAT_OP_ADD, head, *second);
    messages->items++;
    messages->n--;
    messages->capacity--;
}

void chat_adapt(chat_runtime *rt, chat_dict *variables)
{
    chat_value *messages = member(variables, "messages");
    str source = rt->t->source;
    bool knows_developer = source.length && memmem(source.data, source.length, "developer", 9);
    if (!messages || messages->kind != CHAT_V_LIST)
        return;
    for (size_t i = 0; i < messages->as.list->n; i++)
        if (messages->as.list->items[i].kind == CHAT_V_DICT)
            adapt_message(rt, messages->as.list->items[i].as.dict, knows_developer);
    if (!rt->t->traits.system_role)
        fold_system(rt, messages->as.list);
}
