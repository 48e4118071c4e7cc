/*
 * Reasoning between <think> and </think> (DeepSeek-R1, Qwen3, GLM, MiniMax, …), either opened by the model as the first thing it
 * writes or already open at the end of the prompt. A tag anywhere else is text: models quote it.
 *
 *   START ──<think>──▶ REASONING ──</think>──▶ GAP ──not blank──▶ TEXT
 *     └── anything else ──────────────────────────────────────────▲
 */
#include "chat/parse.h"

#include <string.h>

enum { START, REASONING_BEGIN, REASONING, GAP, TEXT };

static const char open_tag[] = "<think>", close_tag[] = "</think>";
static const char *const shown[] = {open_tag, close_tag, NULL};

static bool detect(str source)
{
    return chat_find(source, open_tag) < source.length ||
           chat_find(source, close_tag) < source.length;
}

static bool prompt_open(const char *prompt, size_t n)
{
    str text = {prompt, n};
    text.length -= chat_trailing_blanks(text);
    size_t tag = sizeof open_tag - 1;
    return text.length >= tag && memcmp(text.data + text.length - tag, open_tag, tag) == 0;
}

/* START: is it the tag? Decides as soon as a byte differs. */
static void run_start(chat_stage *s, bool end)
{
    str text = chat_stage_text(s);
    size_t blanks = chat_blanks(text, 0), tag = sizeof open_tag - 1;
    str rest = {text.data + blanks, text.length - blanks};
    size_t same = BASE_MIN(rest.length, tag);
    if (memcmp(rest.data, open_tag, same) != 0 || (end && same < tag))
        s->state = TEXT;
    else if (same == tag) {
        s->state = REASONING_BEGIN;
        chat_stage_take(s, blanks + tag);
    }
}

static void skip_blanks(chat_stage *s, int next)
{
    str text = chat_stage_text(s);
    size_t blanks = chat_blanks(text, 0);
    if (blanks < text.length)
        s->state = next;
    chat_stage_take(s, blanks);
}

static status run_reasoning(chat_parser *p, chat_stage *s, bool end, err *e)
{
    str text = chat_stage_text(s);
    size_t at = chat_find(text, close_tag);
    bool closed = at < text.length;
    size_t sure = closed ? at : end ? text.length : text.length - chat_partial(text, close_tag);
    size_t keep = closed || !end ? chat_trailing_blanks((str){text.data, sure}) : 0;
    status st = chat_emit_reasoning(p, text.data, sure - keep, e);
    chat_stage_take(s, closed ? at + sizeof close_tag - 1 : sure - keep);
    if (closed)
        s->state = GAP;
    return st;
}

static status run(chat_parser *p, chat_stage *s, bool end, err *e)
{
    status st = STATUS_OK;
    if (s->state == START)
        run_start(s, end);
    if (s->state == REASONING_BEGIN)
        skip_blanks(s, REASONING);
    if (s->state == REASONING)
        st = run_reasoning(p, s, end, e);
    if (s->state == GAP)
        skip_blanks(s, TEXT);
    if (s->state == TEXT && st == STATUS_OK) {
        str text = chat_stage_text(s);
        st = chat_pass_on(p, text.data, text.length, e);
        chat_stage_take(s, text.length);
    }
    return st;
}

const chat_syntax chat_syntax_think = {.name = "think",
                                       .shown = shown,
                                       .detect = detect,
                                       .run = run,
                                       .prompt_open = prompt_open,
                                       .open_state = REASONING_BEGIN,
                                       .open = open_tag,
                                       .close = close_tag};
