/*
 * The way of a text: cut out added tokens, normalise the rest, cut out those that match normalised
 * text, pre-tokenise, encode each piece through the cache. And the scratch: the cache pre-token →
 * ids (bounded; dropped whole when full) and work memory.
 */
#include "text/inside.h"
#include "text/unicode.h"

#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MAX_TEXT ((size_t)1 << 30)

static status no_memory(err *e)
{
    return err_set(e, STATUS_NO_MEMORY, "text: no memory for encoding");
}

/* ---- ids -------------------------------------------------------------------------------------------------------- */

static bool ids_reserve(text_ids *ids, size_t more)
{
    if (ids->capacity - ids->n >= more)
        return true;
    size_t capacity = BASE_MAX(ids->n + more, 2 * ids->capacity);
    capacity = BASE_MAX(capacity, (size_t)64);
    int32_t *p = base_realloc(ids->ids, capacity * sizeof *p);
    if (!p)
        return false;
    ids->ids = p;
    ids->capacity = capacity;
    return true;
}

void text_ids_fini(text_ids *ids)
{
    base_free(ids->ids);
    *ids = (text_ids){0};
}

status text_ids_add(text_ids *ids, int32_t id, err *e)
{
    if (ids->n == ids->capacity && !ids_reserve(ids, 1))
        return no_memory(e);
    ids->ids[ids->n++] = id;
    return STATUS_OK;
}

static status ids_append(text_ids *ids, const int32_t *more, size_t n, err *e)
{
    if (!ids_reserve(ids, n))
        return no_memory(e);
    if (n)
        memcpy(ids->ids + ids->n, more, n * sizeof *more);
    ids->n += n;
    return STATUS_OK;
}

/* ---- scratch ---------------------------------------------------------------------------------------------------- */

static bool scratch_add_cache(text_scratch *s)
{
    s->slots = base_zalloc(CACHE_SLOTS, sizeof *s->slots);
    s->keys = base_alloc(CACHE_KEY_BYTES);
    return s->slots && s->keys;
}

status text_scratch_create(text_scratch **out, err *e)
{
    text_scratch *s = base_zalloc(1, sizeof *s);
    if (!s || !scratch_add_cache(s)) {
        text_scratch_destroy(s);
        return no_memory(e);
    }
    *out = s;
    return STATUS_OK;
}

void text_scratch_destroy(text_scratch *s)
{
    if (!s)
        return;
    void *owned[] = {s->slots, s->keys, s->cached.ids, s->symbols,
                     s->heap,  s->best, s->best_at,    s->best_id};
    for (size_t i = 0; i < BASE_COUNT(owned); i++)
        base_free(owned[i]);
    sb *strings[] = {&s->normal[0], &s->normal[1], &s->mapped, &s->word};
    for (size_t i = 0; i < BASE_COUNT(strings); i++)
        sb_fini(strings[i]);
    for (size_t i = 0; i < TEXT_MAX_STEPS; i++)
        sb_fini(&s->level[i]);
    pcre2_match_data_free(s->match_data);
    base_free(s);
}

uint64_t text_scratch_work(const text_scratch *s)
{
    return s->work;
}

static void cache_drop(text_scratch *s)
{
    if (s->slots)
        memset(s->slots, 0, CACHE_SLOTS * sizeof *s->slots);
    s->n_cached = 0;
    s->keys_used = 0;
    s->cached.n = 0;
}

static void cache_put(text_scratch *s, uint64_t hash, const char *p, size_t n, const int32_t *ids,
                      size_t n_ids)
{
    err ignored;
    if (s->n_cached >= CACHE_FILL || s->keys_used + n > CACHE_KEY_BYTES)
        cache_drop(s);
    cache_slot slot = {hash, s->keys_used, (uint32_t)n, (uint32_t)s->cached.n, (uint32_t)n_ids};
    if (ids_append(&s->cached, ids, n_ids, &ignored) != STATUS_OK)
        return;
    memcpy(s->keys + s->keys_used, p, n);
    s->keys_used += (uint32_t)n;
    size_t at = hash & (CACHE_SLOTS - 1);
    while (s->slots[at].hash)
        at = (at + 1) & (CACHE_SLOTS - 1);
    s->slots[at] = slot;
    s->n_cached++;
}

/* ---- one piece -------------------------------------------------------------------------------------------------- */

static status encode_with_model(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                                text_ids *out, err *e)
{
    switch (t->kind) {
    case MODEL_BPE:
        return text_bpe_encode(t, s, p, n, out, e);
    case MODEL_UNIGRAM:
        return text_unigram_encode(t, s, p, n, out, e);
    case MODEL_WORDPIECE:
        return text_wordpiece_encode(t, s, p, n, out, e);
    case MODEL_WORDLEVEL:
        return text_wordlevel_encode(t, s, p, n, out, e);
    }
    return STATUS_OK;
}

status text_encode_piece(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                         text_ids *out, err *e)
{
    s->work++;
    if (n == 0)
        return STATUS_OK;
    if (n > CACHE_MAX_KEY || !s->slots)
        return encode_with_model(t, s, p, n, out, e);
    uint64_t hash = hash_bytes(p, n, 1) | 1;
    size_t at = hash & (CACHE_SLOTS - 1);
    for (; s->slots[at].hash; at = (at + 1) & (CACHE_SLOTS - 1)) {
        const cache_slot *c = &s->slots[at];
        if (c->hash == hash && c->key_length == n && !memcmp(s->keys + c->key, p, n))
            return ids_append(out, s->cached.ids + c->ids, c->n_ids, e);
    }
    size_t before = out->n;
    status st = encode_with_model(t, s, p, n, out, e);
    if (st == STATUS_OK)
        cache_put(s, hash, p, n, out->ids + before, out->n - before);
    return st;
}

/* ---- added tokens ----------------------------------------------------------------------------------------------- */

typedef struct encoding {
    const text_tokenizer *t;
    text_scratch *s;
    int flags;
    text_ids *out;
} encoding;

typedef status (*segment_function)(encoding *c, const char *p, size_t n, bool at_start, err *e);

static bool word_before(const char *text, size_t at)
{
    if (!at)
        return false;
    int length;
    size_t from = text_utf8_back(text, 0, at);
    return text_is_word(text_utf8_next(text + from, at - from, &length));
}

static bool word_behind(const char *text, size_t n, size_t at)
{
    int length;
    return at < n && text_is_word(text_utf8_next(text + at, n - at, &length));
}

static size_t spaces_before(const char *text, size_t from, size_t at)
{
    while (at > from) {
        int length;
        size_t back = text_utf8_back(text, from, at);
        if (!text_is_space(text_utf8_next(text + back, at - back, &length)))
            break;
        at = back;
    }
    return at;
}

static size_t spaces_behind(const char *text, size_t n, size_t at)
{
    while (at < n) {
        int length;
        if (!text_is_space(text_utf8_next(text + at, n - at, &length)))
            break;
        at += (size_t)length;
    }
    return at;
}

/* Cuts the added tokens of a set out of p and gives what is between them to `rest`. */
static status cut_added(encoding *c, const added_set *set, const char *p, size_t n, bool at_start,
                        segment_function rest, err *e)
{
    size_t from = 0, at = 0;
    status st = STATUS_OK;
    if (!set->n)
        return rest(c, p, n, at_start, e);
    while (at < n) {
        unsigned b = (unsigned char)p[at];
        if (set->begin[b] == set->begin[b + 1]) {
            at++;
            continue;
        }
        const added_token *a =
            text_added_match(set, p + at, n - at, (c->flags & TEXT_PARSE_SPECIAL) != 0);
        c->s->work++;
        if (!a) {
            at++;
            continue;
        }
        size_t begin = at, end = at + a->length;
        at = end;
        if (a->single_word && (word_before(p, begin) || word_behind(p, n, end)))
            continue;
        if (a->lstrip)
            begin = spaces_before(p, from, begin);
        if (a->rstrip)
            end = spaces_behind(p, n, end);
        if (begin > from)
            st = rest(c, p + from, begin - from, at_start && !from, e);
        if (st == STATUS_OK)
            st = text_ids_add(c->out, a->id, e);
        if (st != STATUS_OK)
            return st;
        from = at = BASE_MAX(end, from);
    }
    return from < n ? rest(c, p + from, n - from, at_start && !from, e) : STATUS_OK;
}

static status encode_normalised(encoding *c, const char *p, size_t n, bool at_start, err *e)
{
    return n ? text_pretokenise(c->t, c->s, p, n, at_start, c->out, e) : STATUS_OK;
}

static status encode_segment(encoding *c, const char *p, size_t n, bool at_start, err *e)
{
    str normal;
    status st = text_normalise(c->t, c->s, p, n, &normal, e);
    if (st != STATUS_OK)
        return st;
    return cut_added(c, &c->t->added_normalised, normal.data, normal.length, at_start,
                     encode_normalised, e);
}

static status encode_all(encoding *c, const char *bytes, size_t n, err *e)
{
    const text_tokenizer *t = c->t;
    status st = STATUS_OK;
    if (c->flags & TEXT_ADD_SPECIAL)
        st = ids_append(c->out, t->prefix, t->n_prefix, e);
    if (st == STATUS_OK && n)
        st = cut_added(c, &t->added, bytes, n, true, encode_segment, e);
    if (st == STATUS_OK && (c->flags & TEXT_ADD_SPECIAL))
        st = ids_append(c->out, t->suffix, t->n_suffix, e);
    return st;
}

status text_encode(const text_tokenizer *t, text_scratch *s, const char *bytes, size_t n, int flags,
                   text_ids *out, err *e)
{
    if (n > MAX_TEXT)
        return err_set(e, STATUS_TOO_LONG, "text: %zu bytes of text, at most %zu are taken", n,
                       MAX_TEXT);
    text_scratch *own = NULL;
    if (!s) {
        s = own = base_zalloc(1, sizeof *own);
        /* A cache pays only when pieces come again. */
        if (!own || (n > 16384 && !scratch_add_cache(own))) {
            text_scratch_destroy(own);
            return no_memory(e);
        }
    }
    if (s->serial != t->serial) {
        if (s->n_cached)
            cache_drop(s);
        s->serial = t->serial;
    }
    size_t before = out->n;
    s->budget = 1000000 + 2000 * (uint64_t)n;
    encoding c = {t, s, flags, out};
    status st = encode_all(&c, bytes, n, e);
    if (st != STATUS_OK)
        out->n = before;
    text_scratch_destroy(own);
    return st;
}
