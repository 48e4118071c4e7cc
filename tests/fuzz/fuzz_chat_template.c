/*
 * A template and, behind a NUL, its variables: parse, render with a small budget, choose among templates, ask for its syntax. Anything but a
 * crash, a leak or a hang is fine. Without a NUL the variables are a fixed conversation. The clock follows the variables' bytes.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "chat/chat.h"

static const char conversation[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": "
    "\"a b\"}, {\"role\": \"assistant\", "
    "\"content\": null, \"tool_calls\": [{\"id\": \"i\", \"function\": {\"name\": \"f\", "
    "\"arguments\": {\"x\": [1, 2.5, true]}}}]}], "
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": "
    "{\"type\": \"object\"}}}], \"n\": -3, \"u\": "
    "\"\\u00e9\\ud83d\\ude00\"}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A time somewhere in the years 1 to 9999, or one that the variables spell out. */
static chat_time clock_of(const char *json, size_t n)
{
    char text[32];
    chat_time t;
    snprintf(text, sizeof text, "%.*s", (int)(n < 31 ? n : 31), json);
    if (chat_time_parse(text, &t))
        return t;
    uint64_t h = hash_bytes(json, n, 1);
    return chat_time_from_unix((int64_t)(h % 315000000000u) - 62000000000,
                               (int32_t)(h >> 40 & 0xFFFF) - 32768);
}

static void choose(const char *source, size_t n, const char *json, size_t n_json)
{
    static const char *const names[] = {"", "default", "tool_use", "rag"};
    str chosen;
    bool fallback;
    err e;
    chat_named_template all[2] = {
        {str_from(names[n % BASE_COUNT(names)]), {source, n}},
        {str_from(names[n_json % BASE_COUNT(names)]), {json, n_json}},
    };
    for (int i = 0; i < 6; i++)
        if (chat_template_select(&chosen, &fallback, all, (size_t)i / 2, i == 3 ? "rag" : NULL,
                                 i & 1, &e) == STATUS_OK)
            chat_syntax_name(chat_syntax_detect(chosen).tools);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *source = (const char *)data, *json = conversation;
    const char *nul = size ? memchr(source, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - source) : size, n_json = sizeof conversation - 1;
    if (nul) {
        json = nul + 1;
        n_json = size - n - 1;
    }
    chat_template *t;
    sb out;
    err e;
    sb_init(&out);
    chat_render_options o = {.now = clock_of(json, n_json),
                             .max_steps = 20000,
                             .max_output = 1 << 18,
                             .max_memory = 4 << 20};
    log_set_level(LOG_ERROR);
    choose(source, n, json, n_json);
    if (chat_template_parse(&t, source, n, &e) == STATUS_OK) {
        if (chat_render(t, json, n_json, &o, &out, &e) == STATUS_OK && out.length > o.max_output)
            __builtin_trap();
        o.adapt = true;
        chat_render(t, json, n_json, &o, &out, &e);
        chat_template_destroy(t);
    }
    sb_fini(&out);
    return 0;
}
