/*
 * Tool calls as Llama 3.x writes them: a message that is JSON, {"name": "f", "parameters": {…}}, with or without <|python_tag|> in
 * front, several of them separated by ';' or blanks. Without the tag only at the very start of a message, and only while the object's
 * first key is one that a call has: a JSON answer is an answer.
 * Not here: the built-in tools' call syntax (`brave_search.call(query="…")`), which stays text.
 *
 *   START ──'{'──▶ CALL ──well-formed──▶ GAP ──'{' or tag──▶ CALL
 *     │              └── malformed ──▶ TEXT ◀── anything else
 *     └─ anything else ─▶ TEXT ──tag──▶ CALL
 */
#include "chat/parse.h"

#include <string.h>

enum { START, CALL, GAP, TEXT };

static const char tag[] = "<|python_tag|>";
enum { TAG = sizeof tag - 1 };
static const char *const shown[] = {tag, NULL};

static bool detect(str source)
{
    return chat_find(source, "<|start_header_id|>") < source.length &&
           (chat_find(source, tag) < source.length ||
            chat_find(source, "\"parameters\"") < source.length);
}

/* Could the object at `at` be a call, as far as its first key is written? */
static bool may_be_call(str text, size_t at)
{
    static const char *const keys[] = {"name", "parameters", "arguments", "type", "function", "id"};
    at += 1 + chat_blanks(text, at + 1);
    if (at >= text.length)
        return true;
    if (text.data[at] != '"')
        return false;
    str rest = {text.data + at + 1, text.length - at - 1};
    for (size_t i = 0; i < BASE_COUNT(keys); i++) {
        size_t n = strlen(keys[i]), same = BASE_MIN(rest.length, n);
        if (memcmp(rest.data, keys[i], same) == 0 && (rest.length <= n || rest.data[n] == '"'))
            return true;
    }
    return false;
}

/* In front of a call: blanks, a ';' after an earlier call, the tag. *at = where the object must begin. */
static bool prefix(str text, bool after_call, size_t *at, bool *tagged, bool *open)
{
    size_t i = chat_blanks(text, 0);
    if (after_call && i < text.length && text.data[i] == ';') {
        i++;
        i += chat_blanks(text, i);
    }
    size_t same = BASE_MIN(text.length - i, (size_t)TAG);
    *tagged = same && memcmp(text.data + i, tag, same) == 0;
    *open = i == text.length || (*tagged && same < TAG);
    if (*tagged && same == TAG) {
        i += TAG;
        i += chat_blanks(text, i);
        *open = i == text.length;
    }
    *at = i;
    return *open || text.data[i] == '{';
}

/* START, GAP and CALL: the waiting text begins in front of what may be a call. */
static status run_call(chat_parser *p, chat_stage *s, bool end, bool *more, err *e)
{
    str text = chat_stage_text(s);
    size_t at = 0, object_end = 0;
    bool tagged = false, open = false, after_call = s->state == GAP;
    bool good = prefix(text, after_call, &at, &tagged, &open);
    *more = false;
    if (good && !open) {
        good = tagged || may_be_call(text, at);
        object_end = good ? chat_object_end(s, at) : 0;
        open = object_end == 0;
    }
    if (good && open && !end)
        return STATUS_OK;
    *more = true;
    chat_call call;
    if (object_end && chat_call_read(&call, (str){text.data + at, object_end - at}, false)) {
        status st = chat_emit_call(p, str_from(call.name), call.arguments, e);
        chat_call_fini(&call);
        chat_stage_take(s, object_end);
        s->state = GAP;
        return st;
    }
    /* text: behind a call the blanks go; a tag must not be found again */
    size_t skip = after_call ? chat_blanks(text, 0) : 0, sure = tagged && at >= TAG ? at : skip;
    sure = BASE_MIN(sure, text.length);
    status st = chat_emit_text(p, text.data + skip, sure - skip, e);
    chat_stage_take(s, sure);
    s->state = TEXT;
    return st;
}

static status run_text(chat_parser *p, chat_stage *s, bool end, bool *more, err *e)
{
    str text = chat_stage_text(s);
    size_t at = chat_find(text, tag);
    bool found = at < text.length;
    size_t sure = found ? at : text.length - (end ? 0 : chat_partial(text, tag));
    if (found || !end)
        sure -= chat_trailing_blanks((str){text.data, sure});
    status st = chat_emit_text(p, text.data, sure, e);
    chat_stage_take(s, sure);
    if (found)
        s->state = CALL;
    *more = found;
    return st;
}

static status run(chat_parser *p, chat_stage *s, bool end, err *e)
{
    status st = STATUS_OK;
    for (bool more = true; more && st == STATUS_OK;) {
        if (end && s->state == GAP &&
            chat_blanks(chat_stage_text(s), 0) == chat_stage_text(s).length)
            break;
        st = s->state == TEXT ? run_text(p, s, end, &more, e) : run_call(p, s, end, &more, e);
    }
    return st;
}

static const chat_call_form form = {.marker = tag,
                                    .before = "{\"name\": \"",
                                    .behind_name = "\", \"parameters\": ",
                                    .after = "}",
                                    .between = ";",
                                    .bare = true};

const chat_syntax chat_syntax_llama3 = {.name = "llama3",
                                        .is_tools = true,
                                        .shown = shown,
                                        .detect = detect,
                                        .run = run,
                                        .form = &form};
