/*
 * Schemas from outside: the first two bytes are a seed, the rest a JSON schema. What compiles is walked at random over a vocabulary of single
 * bytes; what was written must be JSON when it may end, a mask must leave a way, and a token that it leaves must be taken.
 */
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "sample/sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FIRST = 3, TOKENS = FIRST + 256, STEPS = 60 };

static const sample_tokens *bytes_as_tokens(void)
{
    static sample_tokens *tokens;
    static char names[TOKENS][8];
    static str list[TOKENS];
    static int32_t types[TOKENS];
    static float scores[TOKENS];
    if (tokens)
        return tokens;
    text_vocab v;
    text_tokenizer *t;
    err e;
    for (int i = 0; i < TOKENS; i++) {
        static const char *const special[FIRST] = {"<unk>", "<s>", "</s>"};
        if (i < FIRST)
            snprintf(names[i], sizeof names[i], "%s", special[i]);
        else
            snprintf(names[i], sizeof names[i], "<0x%02X>", i - FIRST);
        list[i] = str_from(names[i]);
        types[i] = i == 0 ? TEXT_UNKNOWN : i < FIRST ? TEXT_CONTROL : TEXT_BYTE;
    }
    text_vocab_init(&v);
    v.model = str_from("llama");
    v.n_tokens = TOKENS;
    v.tokens = list;
    v.types = types;
    v.scores = scores;
    v.bos = 1;
    v.eos = 2;
    v.unk = 0;
    if (text_tokenizer_create(&t, &v, &e) != STATUS_OK ||
        sample_tokens_create(&tokens, t, TOKENS, &e) != STATUS_OK)
        abort();
    return tokens;
}

static void must_be_json(const char *text, size_t n)
{
    json_t *v = json_loadb(text, n, JSON_DECODE_ANY, NULL);
    if (!v)
        abort();
    json_decref(v);
}

static void walk(sample_grammar *g, uint64_t seed)
{
    sample_guide *d;
    char text[STEPS];
    size_t n = 0;
    err e;
    if (sample_guide_create(&d, g, &e) != STATUS_OK)
        return;
    while (n < STEPS) {
        const uint64_t *mask;
        if (sample_guide_mask(d, &mask, &e) != STATUS_OK) {
            if (e.code != STATUS_TOO_LARGE)
                abort();
            break;
        }
        bool ends = mask[0] >> 2 & 1;
        if (ends != sample_guide_may_end(d))
            abort();
        if (ends)
            must_be_json(text, n);
        int32_t token = -1;
        uint64_t r = hash_u64(n, seed);
        for (uint64_t i = 0; i < 256 && token < 0; i++) {
            int32_t id = FIRST + (int32_t)((r + i) % 256);
            if (mask[id / 64] >> id % 64 & 1)
                token = id;
        }
        if (token < 0) {
            if (!sample_guide_is_over(d))
                abort();
            break;
        }
        if (sample_guide_accept(d, token, &e) != STATUS_OK) {
            if (e.code != STATUS_TOO_LARGE)
                abort();
            break;
        }
        text[n++] = (char)(token - FIRST);
    }
    sample_guide_destroy(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int32_t end[] = {2};
    sample_grammar *g;
    err e;
    if (size < 2)
        return 0;
    sb spec;
    sb_init(&spec);
    sb_puts(&spec, "{\"schema\":");
    sb_add(&spec, (const char *)data + 2, size - 2);
    sb_putc(&spec, '}');
    if (sample_grammar_create(&g, (str){spec.data, spec.length}, bytes_as_tokens(), end, 1, NULL, 0,
                              &e) == STATUS_OK) {
        /* more than a schema may stand in the spec when the input closes it */
        json_t *whole = json_loadb(spec.data, spec.length, 0, NULL);
        if (json_object_size(whole) == 1)
            walk(g, (uint64_t)data[0] << 8 | data[1]);
        json_decref(whole);
        sample_grammar_destroy(g);
    }
    sb_fini(&spec);
    return 0;
}
