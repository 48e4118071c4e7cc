/*
 * A vocabulary as plain arrays, as a GGUF file would give it, with nonsense in every one of them; whatever loads must encode the rest of the
 * input, and every way of decoding must give the tokens' bytes.
 *
 * Four bytes choose the model, the pre-tokeniser, the habits and the special tokens. Then come parts, each ended by 0xFE: tokens, one a line,
 * the first letter of each its type and score; merges, one a line; the character map; the text.
 */
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_TOKENS = 512, MOST_MERGES = 256 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static str next_part(str *rest, char stop)
{
    const char *end = rest->length ? memchr(rest->data, stop, rest->length) : NULL;
    str part = {rest->data, end ? (size_t)(end - rest->data) : rest->length};
    size_t used = part.length + (end != NULL);
    *rest = (str){rest->data + used, rest->length - used};
    return part;
}

static void encode_and_back(const text_tokenizer *t, str text, int flags)
{
    text_decoder d;
    text_ids ids = {0};
    sb all = {0}, parts = {0}, tokens = {0};
    err e;
    if (text_encode(t, NULL, text.data, text.length, flags & 3, &ids, &e) == STATUS_OK) {
        text_decoder_init(&d, t, 0);
        for (size_t i = 0; i < ids.n; i++) {
            str bytes = text_token_bytes(t, ids.ids[i]);
            if (ids.ids[i] < 0 || ids.ids[i] >= text_token_count(t))
                abort();
            sb_add(&tokens, bytes.data, bytes.length);
            text_decoder_feed(&d, ids.ids[i], &parts, &e);
        }
        text_decoder_flush(&d, &parts, &e);
        text_decode(t, ids.ids, ids.n, 0, &all, &e);
        if (all.length != tokens.length || parts.length != tokens.length ||
            (all.length && memcmp(all.data, tokens.data, all.length) != 0) ||
            (all.length && memcmp(parts.data, tokens.data, all.length) != 0))
            abort();
    }
    sb_fini(&all);
    sb_fini(&parts);
    sb_fini(&tokens);
    text_ids_fini(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const models[] = {"gpt2", "llama", "bert", "t5", "gemma4", "none"};
    static const char *const pres[] = {"",
                                       "gpt-2",
                                       "llama-bpe",
                                       "qwen2",
                                       "qwen35",
                                       "gpt-4o",
                                       "kimi-k2",
                                       "tekken",
                                       "falcon",
                                       "starcoder",
                                       "deepseek-llm",
                                       "deepseek-coder",
                                       "deepseek-v3",
                                       "bloom",
                                       "viking",
                                       "youtu",
                                       "superbpe",
                                       "chameleon",
                                       "exaone-moe",
                                       "tiny_aya",
                                       "gemma4",
                                       "laguna",
                                       "glm4",
                                       "minicpm5",
                                       "bailingmoe",
                                       "minimax-m2",
                                       "seed-coder",
                                       "default"};
    static str tokens[MOST_TOKENS], merges[MOST_MERGES];
    static float scores[MOST_TOKENS];
    static int32_t types[MOST_TOKENS];
    text_vocab v;
    text_tokenizer *t = NULL;
    err e;
    if (size < 4)
        return 0;
    log_set_level(LOG_ERROR);
    text_vocab_init(&v);
    v.model = str_from(models[data[0] % BASE_COUNT(models)]);
    v.pre = str_from(pres[data[1] % BASE_COUNT(pres)]);
    int habits = data[2];
    v.add_bos = (habits & 3) - 1;
    v.add_space_prefix = (habits >> 2 & 3) - 1;
    v.ignore_merges = (habits >> 4 & 3) - 1;
    v.lowercase = v.strip_accents = v.remove_extra_whitespaces = (habits >> 6 & 3) - 1;
    v.bos = data[3] & 7;
    v.unk = (data[3] >> 3 & 7) - 1;
    v.eos = data[3] >> 6;
    str rest = {(const char *)data + 4, size - 4}, part = next_part(&rest, '\xFE');
    while (part.length && v.n_tokens < MOST_TOKENS) {
        str line = next_part(&part, '\n');
        uint8_t kind = line.length ? (uint8_t)line.data[0] : 0;
        types[v.n_tokens] = kind & 7;
        scores[v.n_tokens] = -(float)(kind >> 3) / 4;
        tokens[v.n_tokens++] =
            (str){line.data + (line.length > 0), line.length - (line.length > 0)};
    }
    part = next_part(&rest, '\xFE');
    while (part.length && v.n_merges < MOST_MERGES)
        merges[v.n_merges++] = next_part(&part, '\n');
    v.precompiled_charsmap = next_part(&rest, '\xFE');
    v.tokens = tokens;
    v.scores = scores;
    v.types = types;
    v.merges = merges;
    if (text_tokenizer_create(&t, &v, &e) == STATUS_OK)
        for (int flags = 0; flags < 4; flags++)
            encode_and_back(t, rest, flags);
    text_tokenizer_destroy(t);
    return 0;
}
