/*
 * The output parsers: the first byte picks the syntaxes, the second a seed for cutting the rest into pieces. The events must be the same as
 * for the whole text in one piece, and no longer than it, but for what JSON strings hold.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "chat/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static status record(void *context, const chat_event *e)
{
    sb *out = context;
    static const char kinds[] = {'T', 'R', 'C', 'A', 'E'};
    bool same = out->capacity && out->length &&
                (e->kind == CHAT_TEXT || e->kind == CHAT_REASONING) &&
                out->data[0] == kinds[e->kind];
    if (!same)
        sb_putc(out, '|');
    out->data[0] = kinds[e->kind]; /* the open kind; the text starts behind it */
    sb_add(out, e->text.data, e->text.length);
    sb_add(out, e->name.data, e->name.length);
    sb_add(out, e->id.data, e->id.length);
    return STATUS_OK;
}

static void run(sb *out, uint8_t choice, uint64_t cut, const char *text, size_t n)
{
    static const char *const tools[] = {"plain", "hermes", "llama3"};
    chat_format f;
    chat_parser *p;
    chat_parser_options o = {.reasoning_open = choice & 1, .tools = !(choice & 2), .seed = 1};
    err e;
    chat_syntax_find(&f.reasoning, choice & 4 ? "think" : "plain");
    chat_syntax_find(&f.tools, tools[(choice >> 3) % 3]);
    sb_putc(out, ' ');
    if (chat_parser_create(&p, f, &o, record, out, &e) != STATUS_OK)
        return;
    for (size_t at = 0; at < n;) {
        size_t step = cut ? 1 + (size_t)((cut = hash_u64(cut, 3)) % 7) : n;
        step = step < n - at ? step : n - at;
        chat_parser_feed(p, text + at, step, &e);
        at += step;
    }
    chat_parser_finish(p, &e);
    chat_parser_destroy(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    sb whole, pieces;
    sb_init(&whole);
    sb_init(&pieces);
    run(&whole, data[0], 0, (const char *)data + 2, size - 2);
    run(&pieces, data[0], (uint64_t)data[1] + 1, (const char *)data + 2, size - 2);
    if (whole.length != pieces.length || memcmp(whole.data, pieces.data, whole.length) != 0)
        __builtin_trap();
    sb_fini(&whole);
    sb_fini(&pieces);
    return 0;
}
