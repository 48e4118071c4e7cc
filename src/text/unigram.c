/*
 * Unigram (SentencePiece): the segmentation with the best sum of scores, by Viterbi over the
 * places of a piece. Tokens that begin at a place are found in the sorted vocabulary by narrowing
 * a range byte by byte. Where no token covers the character at a place, an unknown one with the
 * worst score − 10 does. Time is proportional to length × the longest token. And the two models
 * that need no search: WordPiece (greedy, longest first) and WordLevel.
 */
#include "text/inside.h"
#include "text/unicode.h"

#include <float.h>
#include <string.h>

static status no_memory(err *e)
{
    return err_set(e, STATUS_NO_MEMORY, "text: no memory for encoding");
}

status text_encode_unknown(const text_tokenizer *t, const char *p, size_t n, text_ids *out, err *e)
{
    bool bytes = t->byte_level || t->byte_fallback;
    size_t covered = 0;
    for (size_t i = 0; bytes && i < n; i++)
        covered += t->byte_id[(unsigned char)p[i]] >= 0;
    if (bytes && covered == n) {
        for (size_t i = 0; i < n; i++) {
            status s = text_ids_add(out, t->byte_id[(unsigned char)p[i]], e);
            if (s != STATUS_OK)
                return s;
        }
        return STATUS_OK;
    }
    return t->special[TEXT_UNK] >= 0 ? text_ids_add(out, t->special[TEXT_UNK], e) : STATUS_OK;
}

static bool reserve_places(text_scratch *s, size_t n)
{
    if (n <= s->best_capacity)
        return true;
    base_free(s->best);
    base_free(s->best_at);
    base_free(s->best_id);
    s->best_capacity = 0;
    s->best = base_alloc(n * sizeof *s->best);
    s->best_at = base_alloc(n * sizeof *s->best_at);
    s->best_id = base_alloc(n * sizeof *s->best_id);
    if (!s->best || !s->best_at || !s->best_id)
        return false;
    s->best_capacity = n;
    return true;
}

static void offer(text_scratch *s, size_t from, size_t to, double score, int32_t id)
{
    if (score > s->best[to]) {
        s->best[to] = score;
        s->best_at[to] = (uint32_t)from;
        s->best_id[to] = id;
    }
}

/* Offers every token that begins at `at`; returns whether one covers exactly the first character. */
static bool offer_tokens(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                         size_t at, size_t character)
{
    unsigned first = (unsigned char)p[at];
    size_t lo = t->sorted_begin[first], hi = t->sorted_begin[first + 1];
    bool single = false;
    for (size_t depth = 1; lo < hi; depth++) {
        s->work++;
        uint32_t id = t->sorted[lo];
        if (t->piece_at[id + 1] - t->piece_at[id] == depth) {
            double score = t->types[id] == TEXT_USER_DEFINED ? 0.0 : (double)t->scores[id];
            offer(s, at, at + depth, s->best[at] + score, (int32_t)id);
            single |= depth == character;
            lo++;
        }
        if (at + depth == n || lo == hi)
            break;
        unsigned char c = (unsigned char)p[at + depth];
        size_t a = lo, b = hi;
        while (a < b) {
            size_t mid = (a + b) / 2;
            if ((unsigned char)t->pieces[t->piece_at[t->sorted[mid]] + depth] < c)
                a = mid + 1;
            else
                b = mid;
        }
        lo = a;
        b = hi;
        while (a < b) {
            size_t mid = (a + b) / 2;
            if ((unsigned char)t->pieces[t->piece_at[t->sorted[mid]] + depth] <= c)
                a = mid + 1;
            else
                b = mid;
        }
        hi = a;
    }
    return single;
}

status text_unigram_encode(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                           text_ids *out, err *e)
{
    if (!n)
        return STATUS_OK;
    if (!reserve_places(s, n + 1))
        return no_memory(e);
    for (size_t i = 0; i <= n; i++)
        s->best[i] = -DBL_MAX;
    s->best[0] = 0;
    for (size_t at = 0; at < n;) {
        int length;
        text_utf8_next(p + at, n - at, &length);
        if (!offer_tokens(t, s, p, n, at, (size_t)length))
            offer(s, at, at + (size_t)length, s->best[at] + t->unk_score, -1);
        at += (size_t)length;
    }
    /* Turn the chain of places round: best_at[place] becomes the next one. */
    s->best_at[0] = 0;
    for (size_t at = n, previous = s->best_at[n]; at;) {
        size_t before = s->best_at[previous];
        s->best_at[previous] = (uint32_t)at;
        at = previous;
        previous = before;
    }
    status st = STATUS_OK;
    size_t unknown = SIZE_MAX;
    for (size_t at = 0; at < n && st == STATUS_OK;) {
        size_t to = s->best_at[at];
        int32_t id = s->best_id[to];
        if (id < 0) {
            if (unknown == SIZE_MAX)
                unknown = at;
        } else {
            if (unknown != SIZE_MAX)
                st = text_encode_unknown(t, p + unknown, at - unknown, out, e);
            unknown = SIZE_MAX;
            if (st == STATUS_OK)
                st = text_ids_add(out, id, e);
        }
        at = to;
    }
    if (unknown != SIZE_MAX && st == STATUS_OK)
        st = text_encode_unknown(t, p + unknown, n - unknown, out, e);
    return st;
}

/* ---- WordPiece and WordLevel ------------------------------------------------------------------------------------ */

static size_t count_characters(const char *p, size_t n)
{
    size_t count = 0;
    while (n) {
        int length;
        text_utf8_next(p, n, &length);
        p += length;
        n -= (size_t)length;
        count++;
    }
    return count;
}

status text_wordpiece_encode(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                             text_ids *out, err *e)
{
    size_t before = out->n;
    const char *start = t->word_start ? t->word_start : "",
               *rest = t->continuing ? t->continuing : "";
    bool known = count_characters(p, n) <= t->max_word;
    for (size_t at = 0; known && at < n;) {
        const char *prefix = at ? rest : start;
        int32_t id = -1;
        size_t to = n;
        for (; to > at; to = text_utf8_back(p, at, to)) {
            s->work++;
            sb_clear(&s->word);
            sb_puts(&s->word, prefix);
            sb_add(&s->word, p + at, to - at);
            if (s->word.failed)
                return no_memory(e);
            id = text_model_find(t, s->word.data, s->word.length);
            if (id >= 0)
                break;
        }
        if (id < 0) {
            known = false;
            break;
        }
        status st = text_ids_add(out, id, e);
        if (st != STATUS_OK)
            return st;
        at = to;
    }
    if (known)
        return STATUS_OK;
    out->n = before;
    return t->special[TEXT_UNK] >= 0 ? text_ids_add(out, t->special[TEXT_UNK], e) : STATUS_OK;
}

status text_wordlevel_encode(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                             text_ids *out, err *e)
{
    s->work++;
    int32_t id = text_model_find(t, p, n);
    return id >= 0 ? text_ids_add(out, id, e) : text_encode_unknown(t, p, n, out, e);
}
