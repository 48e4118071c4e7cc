/*
 * Byte-pair encoding of one piece. Two kinds of priority over the same machinery: a table of
 * merges (GPT-2, Llama 3, Qwen, and what tokenizer.json says), or the score of the joined token
 * (SentencePiece vocabularies in GGUF). Equal priority: the left pair first.
 *
 * Symbols form a linked list. Short pieces look for the best pair by walking the list; long ones
 * keep a heap of (rank, position) with lazy deletion: O(n log n), so 100,000 equal letters are no
 * attack.
 */
#include "text/inside.h"

#include <string.h>

#define SHORT_PIECE 24u
#define NO_RANK     UINT32_MAX
#define NONE        UINT32_MAX

static status no_memory(err *e)
{
    return err_set(e, STATUS_NO_MEMORY, "text: no memory for encoding");
}

/* ---- priorities ------------------------------------------------------------------------------------------------- */

static void rate(const text_tokenizer *t, text_scratch *s, const char *p, uint32_t i)
{
    bpe_symbol *a = &s->symbols[i];
    a->rank = NO_RANK;
    if (a->next == NONE)
        return;
    const bpe_symbol *b = &s->symbols[a->next];
    s->work++;
    if (t->by_score) {
        int32_t id = text_model_find(t, p + a->begin, (size_t)a->length + b->length);
        if (id >= 0) {
            a->rank = t->ranks[id];
            a->joined = id;
        }
        return;
    }
    if (a->id < 0 || b->id < 0 || !t->merges)
        return;
    uint64_t key = (uint64_t)(uint32_t)a->id << 32 | (uint32_t)b->id;
    size_t at = (size_t)(key * 0x9E3779B97F4A7C15u >> 20) & t->merge_mask;
    while (t->merges[at].key != key) {
        if (t->merges[at].key == UINT64_MAX)
            return;
        at = (at + 1) & t->merge_mask;
    }
    a->rank = t->merges[at].rank;
    a->joined = t->merges[at].id;
}

/* Joins symbol i with its right neighbour. */
static void join(text_scratch *s, uint32_t i)
{
    bpe_symbol *a = &s->symbols[i], *b = &s->symbols[a->next];
    a->id = a->joined;
    a->length += b->length;
    a->next = b->next;
    b->rank = NO_RANK;
    if (b->next != NONE)
        s->symbols[b->next].previous = i;
}

/* ---- short pieces ----------------------------------------------------------------------------------------------- */

static void merge_by_walking(const text_tokenizer *t, text_scratch *s, const char *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        rate(t, s, p, i);
    for (;;) {
        uint32_t best = NO_RANK, at = 0;
        for (uint32_t i = 0; i != NONE; i = s->symbols[i].next) {
            s->work++;
            if (s->symbols[i].rank < best) {
                best = s->symbols[i].rank;
                at = i;
            }
        }
        if (best == NO_RANK)
            return;
        join(s, at);
        rate(t, s, p, at);
        if (s->symbols[at].previous != NONE)
            rate(t, s, p, s->symbols[at].previous);
    }
}

/* ---- long pieces ------------------------------------------------------------------------------------------------ */

static bool heap_push(text_scratch *s, uint64_t x)
{
    if (s->n_heap == s->heap_capacity) {
        size_t capacity = s->heap_capacity ? 2 * s->heap_capacity : 1024;
        uint64_t *heap = base_realloc(s->heap, capacity * sizeof *heap);
        if (!heap)
            return false;
        s->heap = heap;
        s->heap_capacity = capacity;
    }
    size_t i = s->n_heap++;
    for (; i && s->heap[(i - 1) / 2] > x; i = (i - 1) / 2) {
        s->heap[i] = s->heap[(i - 1) / 2];
        s->work++;
    }
    s->heap[i] = x;
    return true;
}

static uint64_t heap_pop(text_scratch *s)
{
    uint64_t top = s->heap[0], last = s->heap[--s->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->n_heap)
            break;
        if (child + 1 < s->n_heap && s->heap[child + 1] < s->heap[child])
            child++;
        if (s->heap[child] >= last)
            break;
        s->heap[i] = s->heap[child];
        i = child;
        s->work++;
    }
    s->heap[i] = last;
    return top;
}

static bool rate_and_push(const text_tokenizer *t, text_scratch *s, const char *p, uint32_t i)
{
    rate(t, s, p, i);
    return s->symbols[i].rank == NO_RANK || heap_push(s, (uint64_t)s->symbols[i].rank << 32 | i);
}

static bool merge_by_heap(const text_tokenizer *t, text_scratch *s, const char *p, uint32_t n)
{
    s->n_heap = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!rate_and_push(t, s, p, i))
            return false;
    while (s->n_heap) {
        uint64_t top = heap_pop(s);
        uint32_t i = (uint32_t)top;
        /* Out of date: the symbol has gone or its pair has changed. */
        if (s->symbols[i].rank != (uint32_t)(top >> 32))
            continue;
        join(s, i);
        if (!rate_and_push(t, s, p, i))
            return false;
        if (s->symbols[i].previous != NONE && !rate_and_push(t, s, p, s->symbols[i].previous))
            return false;
    }
    return true;
}

/* ---- the symbols to begin with ---------------------------------------------------------------------------------- */

static void put_symbol(text_scratch *s, uint32_t *n, int32_t id, size_t begin, size_t length)
{
    s->symbols[*n] = (bpe_symbol){.id = id,
                                  .begin = (uint32_t)begin,
                                  .length = (uint32_t)length,
                                  .previous = *n ? *n - 1 : NONE,
                                  .next = *n + 1,
                                  .rank = NO_RANK,
                                  .joined = -1};
    ++*n;
}

static int32_t find_character(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                              bool first, bool last)
{
    bool prefix = t->continuing && !first, suffix = t->end_of_word && last;
    if (!prefix && !suffix)
        return text_model_find(t, p, n);
    sb_clear(&s->word);
    if (prefix)
        sb_puts(&s->word, t->continuing);
    sb_add(&s->word, p, n);
    if (suffix)
        sb_puts(&s->word, t->end_of_word);
    s->failed |= s->word.failed;
    return s->word.failed ? -1 : text_model_find(t, s->word.data, s->word.length);
}

static bool has_all_bytes(const text_tokenizer *t, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (t->byte_id[(unsigned char)p[i]] < 0)
            return false;
    return true;
}

static uint32_t begin_symbols(const text_tokenizer *t, text_scratch *s, const char *p, size_t n)
{
    uint32_t count = 0;
    if (t->byte_level && !t->input_mapped) {
        for (size_t i = 0; i < n; i++)
            put_symbol(s, &count, t->byte_id[(unsigned char)p[i]], i, 1);
    } else {
        for (size_t i = 0; i < n;) {
            int length;
            text_utf8_next(p + i, n - i, &length);
            size_t l = (size_t)length;
            int32_t id = find_character(t, s, p + i, l, i == 0, i + l == n);
            if (id < 0 && !t->by_score && t->byte_fallback && has_all_bytes(t, p + i, l)) {
                for (size_t k = 0; k < l; k++)
                    put_symbol(s, &count, t->byte_id[(unsigned char)p[i + k]], i + k, 1);
            } else {
                put_symbol(s, &count, id, i, l);
            }
            i += l;
        }
    }
    s->symbols[count - 1].next = NONE;
    return count;
}

static status reserve_symbols(text_scratch *s, size_t n, err *e)
{
    if (n <= s->symbols_capacity)
        return STATUS_OK;
    size_t capacity = BASE_MAX(n, 2 * s->symbols_capacity);
    capacity = BASE_MAX(capacity, (size_t)256);
    base_free(s->symbols);
    s->symbols_capacity = 0;
    s->symbols = base_alloc(capacity * sizeof *s->symbols);
    if (!s->symbols)
        return no_memory(e);
    s->symbols_capacity = capacity;
    return STATUS_OK;
}

static status take_ids(const text_tokenizer *t, text_scratch *s, const char *p, text_ids *out,
                       err *e)
{
    uint32_t unknown_from = NONE, unknown_to = 0;
    status st = STATUS_OK;
    for (uint32_t i = 0; i != NONE && st == STATUS_OK; i = s->symbols[i].next) {
        const bpe_symbol *a = &s->symbols[i];
        if (a->id < 0) {
            if (unknown_from != NONE && !t->fuse_unk) {
                st = text_encode_unknown(t, p + unknown_from, unknown_to - unknown_from, out, e);
                unknown_from = NONE;
            }
            if (unknown_from == NONE)
                unknown_from = a->begin;
            unknown_to = a->begin + a->length;
            continue;
        }
        if (unknown_from != NONE && st == STATUS_OK) {
            st = text_encode_unknown(t, p + unknown_from, unknown_to - unknown_from, out, e);
            unknown_from = NONE;
        }
        if (st == STATUS_OK)
            st = text_ids_add(out, a->id, e);
    }
    if (unknown_from != NONE && st == STATUS_OK)
        st = text_encode_unknown(t, p + unknown_from, unknown_to - unknown_from, out, e);
    return st;
}

/* The piece as one token, -1 when it is none. */
static int32_t find_whole(const text_tokenizer *t, text_scratch *s, const char *p, size_t n)
{
    if (!t->byte_level || t->input_mapped)
        return text_model_find(t, p, n);
    sb_clear(&s->word);
    text_map_bytes(p, n, &s->word);
    s->failed |= s->word.failed;
    return s->word.failed ? -1 : text_model_find(t, s->word.data, s->word.length);
}

status text_bpe_encode(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                       text_ids *out, err *e)
{
    if (!n)
        return STATUS_OK;
    s->failed = false;
    if (t->ignore_merges && n < 4096) {
        int32_t id = find_whole(t, s, p, n);
        if (id >= 0)
            return text_ids_add(out, id, e);
    }
    status st = reserve_symbols(s, n, e);
    if (st != STATUS_OK)
        return st;
    uint32_t count = begin_symbols(t, s, p, n);
    s->work += count;
    if (s->failed)
        return no_memory(e);
    if (count <= SHORT_PIECE)
        merge_by_walking(t, s, p, count);
    else if (!merge_by_heap(t, s, p, count))
        return no_memory(e);
    return take_ids(t, s, p, out, e);
}
