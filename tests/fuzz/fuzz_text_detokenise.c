/*
 * Any ids into the incremental decoder of a byte-level and of a SentencePiece vocabulary: what
 * comes out is exactly the tokens' bytes, in pieces that never end within a character that could
 * still become whole; and any bytes through encode and back are the same bytes.
 */
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static text_tokenizer *byte_level, *sentencepiece;

static text_tokenizer *make(const char *model)
{
    static char names[256][8];
    static str tokens[600];
    static float scores[600];
    static int32_t types[600];
    static const str merges[] = {{"a b", 3}, {"ab c", 4}, {"\xC3\xB0 \xC5\x81", 5}};
    static const char *const more[] = {
        "ab", "abc",      "\xC3\xB0\xC5\x81",         "\xE2\x96\x81", "\342\226\201a", "a",
        "b",  "\xC3\xA9", "\xE2\x96\x81\xE2\x96\x81", "<x>"};
    bool sp = model[0] == 'l';
    text_vocab v;
    text_tokenizer *t = NULL;
    err e;
    text_vocab_init(&v);
    for (int b = 0; b < 256; b++) {
        static const char digits[] = "0123456789ABCDEF";
        if (sp) {
            memcpy(names[b], (char[]){'<', '0', 'x', digits[b >> 4], digits[b & 15], '>'}, 6);
            tokens[b] = (str){names[b], 6};
        } else {
            bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xFF && b != 0xAD);
            uint32_t c = itself      ? (uint32_t)b
                         : b <= 0x20 ? 0x100u + (uint32_t)b
                         : b == 0xAD ? 0x143u
                                     : 0x121u + (uint32_t)b - 0x7Fu;
            tokens[b] = (str){names[b], (size_t)text_utf8_put(names[b], c)};
        }
        types[b] = sp ? TEXT_BYTE : TEXT_NORMAL;
    }
    v.n_tokens = 256;
    for (size_t i = 0; i < BASE_COUNT(more); i++) {
        types[v.n_tokens] = more[i][0] == '<' ? TEXT_CONTROL : TEXT_NORMAL;
        scores[v.n_tokens] = -(float)i;
        tokens[v.n_tokens++] = str_from(more[i]);
    }
    v.model = str_from(model);
    v.pre = str_from("llama-bpe");
    v.tokens = tokens;
    v.types = types;
    v.scores = scores;
    v.merges = merges;
    v.n_merges = sp ? 0 : BASE_COUNT(merges);
    if (text_tokenizer_create(&t, &v, &e) != STATUS_OK)
        abort();
    return t;
}

/* Does p end in the beginning of a character? */
static bool ends_half(const char *p, size_t n)
{
    static const char *const rests[] = {"\x80",     "\x80\x80",     "\x80\x80\x80",
                                        "\xA0\x80", "\xA0\x80\x80", "\x8F\x80\x80",
                                        "\x9F\x80", "\x90\x80\x80"};
    for (size_t k = 1; k <= 3 && k <= n; k++)
        for (size_t i = 0; i < BASE_COUNT(rests); i++) {
            char whole[8];
            size_t m = strlen(rests[i]);
            memcpy(whole, p + n - k, k);
            memcpy(whole + k, rests[i], m);
            if (text_utf8_length(whole, k + m) == (int)(k + m))
                return true;
        }
    return false;
}

static void decode(const text_tokenizer *t, const uint8_t *data, size_t size)
{
    text_decoder d;
    sb out = {0}, all = {0};
    err e;
    text_decoder_init(&d, t, data[0] & 3);
    for (size_t i = 1; i + 1 < size; i += 2) {
        int32_t id = (int32_t)(data[i] | (data[i + 1] & 1) << 8) - (data[i + 1] == 0xFF);
        text_decoder_feed(&d, id, &out, &e);
        if (!d.n_held && out.length && ends_half(out.data, out.length))
            abort();
        if (!(data[0] & TEXT_HIDE_SPECIAL) || !text_token_is_special(t, id)) {
            str bytes = text_token_bytes(t, id);
            sb_add(&all, bytes.data, bytes.length);
        }
    }
    text_decoder_flush(&d, &out, &e);
    size_t dropped = all.length - out.length;
    if (dropped > ((data[0] & TEXT_AT_START) ? 1u : 0u))
        abort();
    if (!dropped && out.length && memcmp(out.data, all.data, out.length) != 0)
        abort();
    sb_fini(&out);
    sb_fini(&all);
}

static void there_and_back(const text_tokenizer *t, const uint8_t *data, size_t size)
{
    text_ids ids = {0};
    sb out = {0};
    err e;
    if (text_encode(t, NULL, (const char *)data, size, 0, &ids, &e) != STATUS_OK)
        abort();
    if (text_decode(t, ids.ids, ids.n, TEXT_AT_START, &out, &e) != STATUS_OK)
        abort();
    if (t == byte_level || !memmem(data, size, "\xE2\x96\x81", 3))
        if (out.length != size || (size && memcmp(out.data, data, size) != 0))
            abort();
    sb_fini(&out);
    text_ids_fini(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!byte_level) {
        byte_level = make("gpt2");
        sentencepiece = make("llama");
    }
    if (!size)
        return 0;
    const text_tokenizer *t = data[0] & 4 ? byte_level : sentencepiece;
    if (data[0] & 8)
        decode(t, data, size);
    else
        there_and_back(t, data + 1, size - 1);
    return 0;
}
