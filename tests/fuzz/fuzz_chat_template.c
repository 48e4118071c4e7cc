/*
 * A template and, behind a NUL, its variables: parse and render with a small budget. Anything but a crash, a leak or a hang is fine.
 * Without a NUL the variables are a fixed conversation.
 */
#include <stddef.h>
#include <stdint.h>
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
    chat_render_options o = {.now = {2025, 7, 15, 9, 30, 0},
                             .max_steps = 20000,
                             .max_output = 1 << 18,
                             .max_memory = 4 << 20};
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
