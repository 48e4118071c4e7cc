/*
 * The tokenizer keys of a GGUF file as a text_vocab, for tests and benches of src/text alone (the
 * module stands on base only, so it cannot use src/file). Reads files that are known to be good;
 * checks lengths, but is no model of how to read hostile files.
 */
#ifndef SHOAL_TESTS_TEXT_GGUF_H
#define SHOAL_TESTS_TEXT_GGUF_H

#include "text/text.h"

#include <stdio.h>
#include <string.h>

typedef struct gguf_vocab {
    text_vocab vocab;
    char *bytes; /* the file; the vocabulary points into it */
    size_t n, at;
    bool failed;
    str *tokens, *merges;
    float *scores;
    int32_t *types;
} gguf_vocab;

static inline char *gguf_read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *p = base_alloc((size_t)size + 1);
    *n = p ? fread(p, 1, (size_t)size, f) : 0;
    fclose(f);
    if (p)
        p[*n] = '\0';
    return p;
}

static inline uint64_t gguf_number(gguf_vocab *g, size_t bytes)
{
    uint64_t v = 0;
    if (g->failed || g->n - g->at < bytes) {
        g->failed = true;
        return 0;
    }
    memcpy(&v, g->bytes + g->at, bytes);
    g->at += bytes;
    return v;
}

static inline str gguf_string(gguf_vocab *g)
{
    uint64_t n = gguf_number(g, 8);
    if (g->failed || n > g->n - g->at) {
        g->failed = true;
        return (str){"", 0};
    }
    str s = {g->bytes + g->at, (size_t)n};
    g->at += (size_t)n;
    return s;
}

static inline size_t gguf_type_bytes(uint64_t type)
{
    static const unsigned char bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof bytes ? bytes[type] : 0;
}

static inline void gguf_array(gguf_vocab *g, str key)
{
    uint64_t type = gguf_number(g, 4), n = gguf_number(g, 8);
    if (type == 8) {
        str *list = base_zalloc((size_t)n + 1, sizeof *list);
        for (uint64_t i = 0; i < n && !g->failed; i++)
            list[i] = gguf_string(g);
        if (str_is(key, "tokenizer.ggml.tokens")) {
            g->vocab.tokens = g->tokens = list;
            g->vocab.n_tokens = (size_t)n;
        } else if (str_is(key, "tokenizer.ggml.merges")) {
            g->vocab.merges = g->merges = list;
            g->vocab.n_merges = (size_t)n;
        } else {
            base_free(list);
        }
        return;
    }
    size_t bytes = gguf_type_bytes(type) * (size_t)n;
    if (g->failed || g->n - g->at < bytes) {
        g->failed = true;
        return;
    }
    if (str_is(key, "tokenizer.ggml.scores")) {
        g->scores = base_alloc(bytes + 1);
        memcpy(g->scores, g->bytes + g->at, bytes);
        g->vocab.scores = g->scores;
    } else if (str_is(key, "tokenizer.ggml.token_type")) {
        g->types = base_alloc(bytes + 1);
        memcpy(g->types, g->bytes + g->at, bytes);
        g->vocab.types = g->types;
    }
    g->at += bytes;
}

static inline void gguf_value(gguf_vocab *g, str key)
{
    static const struct {
        const char *key;
        size_t offset;
    } ids[] = {{"tokenizer.ggml.bos_token_id", offsetof(text_vocab, bos)},
               {"tokenizer.ggml.eos_token_id", offsetof(text_vocab, eos)},
               {"tokenizer.ggml.eot_token_id", offsetof(text_vocab, eot)},
               {"tokenizer.ggml.unknown_token_id", offsetof(text_vocab, unk)},
               {"tokenizer.ggml.padding_token_id", offsetof(text_vocab, pad)},
               {"tokenizer.ggml.add_bos_token", offsetof(text_vocab, add_bos)},
               {"tokenizer.ggml.add_eos_token", offsetof(text_vocab, add_eos)},
               {"tokenizer.ggml.add_space_prefix", offsetof(text_vocab, add_space_prefix)}};
    uint64_t type = gguf_number(g, 4);
    if (type == 9) {
        gguf_array(g, key);
    } else if (type == 8) {
        str s = gguf_string(g);
        if (str_is(key, "tokenizer.ggml.model"))
            g->vocab.model = s;
        else if (str_is(key, "tokenizer.ggml.pre"))
            g->vocab.pre = s;
    } else {
        uint64_t v = gguf_number(g, gguf_type_bytes(type));
        for (size_t i = 0; i < BASE_COUNT(ids); i++)
            if (str_is(key, ids[i].key))
                memcpy((char *)&g->vocab + ids[i].offset, &(int32_t){(int32_t)v}, 4);
    }
}

static inline void gguf_vocab_free(gguf_vocab *g)
{
    base_free(g->tokens);
    base_free(g->merges);
    base_free(g->scores);
    base_free(g->types);
    base_free(g->bytes);
}

/* False when the file is missing or odd. */
static inline bool gguf_vocab_load(gguf_vocab *g, const char *path)
{
    memset(g, 0, sizeof *g);
    text_vocab_init(&g->vocab);
    g->bytes = gguf_read_file(path, &g->n);
    if (!g->bytes || g->n < 24 || memcmp(g->bytes, "GGUF", 4) != 0) {
        gguf_vocab_free(g);
        return false;
    }
    g->at = 16;
    uint64_t n = gguf_number(g, 8);
    for (uint64_t i = 0; i < n && !g->failed; i++) {
        str key = gguf_string(g);
        gguf_value(g, key);
    }
    if (g->failed)
        gguf_vocab_free(g);
    return !g->failed;
}

#endif
