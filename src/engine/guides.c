/*
 * Grammars by what they were made of: the spec, the tokens that end, the special tokens that are text. Up to KEPT of them stay when
 * nobody uses them, least recently used first to go; states and masks that they have found stay with them.
 */
#include "engine/guides.h"

#include <string.h>

enum { KEPT = 8 };

typedef struct kept {
    sample_grammar *grammar;
    char *spec;
    uint64_t tokens_hash; /* of end and shown tokens */
    int uses;
    struct kept *next; /* most recently used first */
} kept;

struct engine_guides {
    text_tokenizer *tokenizer;
    sample_tokens *tokens;
    kept *list;
};

status guides_create(engine_guides **out, err *e)
{
    engine_guides *s = base_zalloc(1, sizeof *s);
    if (!s)
        return err_set(e, STATUS_NO_MEMORY, "engine: no memory");
    *out = s;
    return STATUS_OK;
}

static void drop(kept **at)
{
    kept *k = *at;
    *at = k->next;
    sample_grammar_destroy(k->grammar);
    base_free(k->spec);
    base_free(k);
}

void guides_destroy(engine_guides *s)
{
    if (!s)
        return;
    while (s->list)
        drop(&s->list);
    sample_tokens_destroy(s->tokens);
    text_tokenizer_destroy(s->tokenizer);
    base_free(s);
}

/* The vocabulary, once. */
static status prepare(engine_guides *s, const model_card *c, err *e)
{
    status result = STATUS_OK;
    if (!s->tokenizer)
        result = model_tokenizer_create(&s->tokenizer, c, e);
    if (result == STATUS_OK && !s->tokens)
        result = sample_tokens_create(&s->tokens, s->tokenizer, (int)c->n_vocab, e);
    return result == STATUS_NOT_FOUND
               ? err_set(e, STATUS_UNSUPPORTED,
                         "the model has no vocabulary: its answers cannot be held to a form")
               : result;
}

/* Keeps what is in use and the KEPT newest of the others. */
static void trim(engine_guides *s)
{
    int unused = 0;
    for (kept **at = &s->list; *at;) {
        if ((*at)->uses == 0 && ++unused > KEPT)
            drop(at);
        else
            at = &(*at)->next;
    }
}

static kept *find(engine_guides *s, const engine_request *r, uint64_t tokens_hash)
{
    for (kept **at = &s->list; *at; at = &(*at)->next) {
        kept *k = *at;
        if (k->tokens_hash != tokens_hash || strcmp(k->spec, r->grammar) != 0)
            continue;
        *at = k->next;
        k->next = s->list;
        return s->list = k;
    }
    return NULL;
}

static status make(engine_guides *s, const engine_request *r, uint64_t tokens_hash, kept **out,
                   err *e)
{
    kept *k = base_zalloc(1, sizeof *k);
    if (k)
        k->spec = base_strdup(r->grammar);
    status result = k && k->spec ? STATUS_OK : err_set(e, STATUS_NO_MEMORY, "engine: no memory");
    if (result == STATUS_OK)
        result = sample_grammar_create(&k->grammar, str_from(r->grammar), s->tokens, r->end,
                                       r->n_end, r->shown, r->n_shown, e);
    if (result != STATUS_OK) {
        if (k)
            base_free(k->spec);
        base_free(k);
        return result;
    }
    k->tokens_hash = tokens_hash;
    k->next = s->list;
    *out = s->list = k;
    return STATUS_OK;
}

status guides_acquire(engine_guides *s, const model_card *c, const engine_request *r,
                      sample_grammar **out, err *e)
{
    uint64_t hash = hash_bytes(r->end, sizeof *r->end * (size_t)r->n_end, 1);
    hash = hash_bytes(r->shown, sizeof *r->shown * (size_t)r->n_shown, hash);
    status result = prepare(s, c, e);
    if (result != STATUS_OK)
        return result;
    kept *k = find(s, r, hash);
    if (!k)
        result = make(s, r, hash, &k, e);
    if (result != STATUS_OK)
        return result;
    k->uses++;
    *out = k->grammar;
    trim(s);
    return STATUS_OK;
}

void guides_release(engine_guides *s, sample_grammar *g)
{
    for (kept *k = s->list; k; k = k->next)
        if (k->grammar == g)
            k->uses--;
    trim(s);
}
