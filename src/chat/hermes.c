/*
 * Tool calls as Hermes, Qwen2.5, Qwen3 and our own models write them:
 *     <tool_call>
 *     {"name": "f", "arguments": {"x": 1}}
 *     </tool_call>
 * any number of them, before, behind and between text. The closing tag may be missing at the very end of a message.
 *
 *   TEXT ──tag──▶ CALL ──well-formed──▶ GAP ──not blank──▶ TEXT
 *                  └── malformed: the tag is text, what follows is read anew ──▶ TEXT
 */
#include "chat/parse.h"

#include <string.h>

enum { TEXT, CALL, GAP };

static const char open_tag[] = "<tool_call>", close_tag[] = "</tool_call>";
static const char *const shown[] = {open_tag, close_tag, NULL};

static bool detect(str source)
{
    /* GLM and Qwen3-Coder put other things between the same tags */
    return chat_find(source, open_tag) < source.length &&
           chat_find(source, "<arg_key>") == source.length &&
           chat_find(source, "<function=") == source.length;
}

/* Text up to a tag; blanks in front of it stay waiting, they belong to the call. */
static status run_text(chat_parser *p, chat_stage *s, bool end, bool *more, err *e)
{
    str text = chat_stage_text(s);
    size_t at = chat_find(text, open_tag);
    bool found = at < text.length;
    size_t sure = found ? at : text.length - (end ? 0 : chat_partial(text, open_tag));
    if (found || !end)
        sure -= chat_trailing_blanks((str){text.data, sure});
    status st = chat_emit_text(p, text.data, sure, e);
    chat_stage_take(s, sure);
    if (found)
        s->state = CALL;
    *more = found;
    return st;
}

typedef enum verdict { WAIT, GOOD, BAD } verdict;

/* Behind the object: blanks and the closing tag. *used = bytes of the whole call. */
static verdict after_object(str text, size_t at, bool end, size_t *used)
{
    at += chat_blanks(text, at);
    size_t left = text.length - at, tag = sizeof close_tag - 1, same = BASE_MIN(left, tag);
    if (memcmp(text.data + at, close_tag, same) != 0)
        return BAD;
    *used = at + same;
    return same == tag || end ? GOOD : WAIT;
}

static verdict look(chat_stage *s, bool end, size_t *object, size_t *object_end, size_t *used)
{
    str text = chat_stage_text(s);
    size_t at = chat_blanks(text, 0) + sizeof open_tag - 1;
    at += chat_blanks(text, at);
    if (at == text.length)
        return end ? BAD : WAIT;
    if (text.data[at] != '{')
        return BAD;
    *object = at;
    *object_end = chat_object_end(s, at);
    if (*object_end == 0)
        return end ? BAD : WAIT;
    return after_object(text, *object_end, end, used);
}

static status run_call(chat_parser *p, chat_stage *s, bool end, bool *more, err *e)
{
    size_t object = 0, object_end = 0, used = 0;
    str text = chat_stage_text(s);
    verdict v = look(s, end, &object, &object_end, &used);
    *more = v != WAIT;
    if (v == WAIT)
        return STATUS_OK;
    chat_call call;
    if (v == GOOD && chat_call_read(&call, (str){text.data + object, object_end - object}, true)) {
        status st = chat_emit_call(p, str_from(call.name), call.arguments, e);
        chat_call_fini(&call);
        chat_stage_take(s, used);
        s->state = GAP;
        return st;
    }
    size_t tag = chat_blanks(text, 0) + sizeof open_tag - 1;
    status st = chat_emit_text(p, text.data, tag, e);
    chat_stage_take(s, tag);
    s->state = TEXT;
    return st;
}

static status run(chat_parser *p, chat_stage *s, bool end, err *e)
{
    status st = STATUS_OK;
    for (bool more = true; more && st == STATUS_OK;) {
        if (s->state == GAP) {
            str text = chat_stage_text(s);
            size_t blanks = chat_blanks(text, 0);
            more = blanks < text.length;
            chat_stage_take(s, blanks);
            s->state = more ? TEXT : GAP;
        } else
            st = s->state == TEXT ? run_text(p, s, end, &more, e) : run_call(p, s, end, &more, e);
    }
    return st;
}

static const chat_call_form form = {.marker = open_tag,
                                    .before = "\n{\"name\": \"",
                                    .behind_name = "\", \"arguments\": ",
                                    .after = "}\n</tool_call>",
                                    .between = "\n"};

const chat_syntax chat_syntax_hermes = {.name = "hermes",
                                        .is_tools = true,
                                        .shown = shown,
                                        .detect = detect,
                                        .run = run,
                                        .form = &form};
