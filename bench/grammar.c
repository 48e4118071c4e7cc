/*
 * Milliseconds of src/sample's grammars over a real vocabulary: compiling a schema, the mask of a state not met before, of one that was.
 * Usage: bench_grammar MODEL.gguf (a file of vocabulary only will do). Prints; asserts nothing.
 */
#include "model/model.h"
#include "os/os.h"
#include "sample/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char spec[] =
    "{\"schema\":{\"type\":\"object\",\"properties\":{\"steps\":{\"type\":\"array\",\"items\":{"
    "\"type\":"
    "\"object\",\"properties\":{\"explanation\":{\"type\":\"string\"},\"output\":{\"type\":"
    "\"string\"}},"
    "\"required\":[\"explanation\",\"output\"],\"additionalProperties\":false}},\"answer\":{"
    "\"type\":"
    "\"number\"},\"kind\":{\"enum\":[\"sum\",\"product\",\"difference\"]}},\"required\":[\"steps\","
    "\"answer\",\"kind\"],\"additionalProperties\":false}}";
static const char text[] = "{\"steps\": [{\"explanation\": \"Divide both sides by two, then take "
                           "away one.\", \"output\": \"x = 3\"}, "
                           "{\"explanation\": \"Check it.\", \"output\": \"2 * 3 + 1 = 7\"}], "
                           "\"answer\": 3.5, \"kind\": \"sum\"}";

static void die(const err *e)
{
    fprintf(stderr, "%s\n", e->text);
    exit(1);
}

/* Through the text token by token, a mask before each. */
static void walk(const char *name, sample_grammar *g, const text_ids *ids)
{
    sample_guide *d;
    err e;
    double worst = 0, whole = 0;
    if (sample_guide_create(&d, g, &e) != STATUS_OK)
        die(&e);
    for (size_t i = 0; i < ids->n; i++) {
        const uint64_t *mask;
        uint64_t begin = os_now_us();
        if (sample_guide_mask(d, &mask, &e) != STATUS_OK ||
            sample_guide_accept(d, ids->ids[i], &e) != STATUS_OK)
            die(&e);
        double us = (double)(os_now_us() - begin);
        whole += us;
        worst = us > worst ? us : worst;
    }
    printf("%-28s %7.1f us a token, at most %7.0f us, %zu tokens\n", name, whole / (double)ids->n,
           worst, ids->n);
    sample_guide_destroy(d);
}

int main(int argc, char **argv)
{
    file_model *f;
    model_card *card;
    text_tokenizer *t;
    sample_tokens *tokens;
    sample_grammar *g;
    text_ids ids = {0};
    err e;
    if (argc != 2) {
        fprintf(stderr, "usage: bench_grammar MODEL.gguf\n");
        return 2;
    }
    if (file_open(&f, argv[1], &e) != STATUS_OK ||
        model_card_read_text(&card, f, &e) != STATUS_OK ||
        model_tokenizer_create(&t, card, &e) != STATUS_OK)
        die(&e);
    int n = text_token_count(t);
    uint64_t begin = os_now_us();
    if (sample_tokens_create(&tokens, t, n, &e) != STATUS_OK)
        die(&e);
    printf("%-28s %7.1f ms, %d tokens\n", "sorting the vocabulary",
           (double)(os_now_us() - begin) / 1e3, n);
    begin = os_now_us();
    if (sample_grammar_create(&g, str_from(spec), tokens, NULL, 0, NULL, 0, &e) != STATUS_OK)
        die(&e);
    printf("%-28s %7.2f ms\n", "compiling a schema", (double)(os_now_us() - begin) / 1e3);
    if (text_encode(t, NULL, text, strlen(text), 0, &ids, &e) != STATUS_OK)
        die(&e);
    walk("masks, states not met before", g, &ids);
    walk("masks, states met before", g, &ids);
    sample_grammar_destroy(g);
    sample_tokens_destroy(tokens);
    text_ids_fini(&ids);
    text_tokenizer_destroy(t);
    model_card_destroy(card);
    file_close(f);
    return 0;
}
