/*
 * The vocabulary of a tokenizer: texts of tokens in one block, a hash table text → id, merges in a
 * hash table (left, right) → (rank, joined), the raw bytes of every token, and small facts found
 * once. Built by create.c (GGUF) and json.c (tokenizer.json).
 */
#include "text/inside.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const char space_mark[] = "\xE2\x96\x81"; /* U+2581 */

static status no_memory(err *e)
{
    return err_set(e, STATUS_NO_MEMORY, "text: no memory for the vocabulary");
}

text_tokenizer *text_tokenizer_new(err *e)
{
    static atomic_uint_fast64_t serial = 1;
    text_tokenizer *t = base_zalloc(1, sizeof *t);
    if (!t) {
        no_memory(e);
        return NULL;
    }
    t->serial = atomic_fetch_add(&serial, 1);
    arena_init(&t->memory, 0);
    for (int i = 0; i < TEXT_N_SPECIAL; i++)
        t->special[i] = -1;
    for (int i = 0; i < 256; i++)
        t->byte_id[i] = -1;
    return t;
}

void text_tokenizer_destroy(text_tokenizer *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_normal; i++) {
        text_pattern_free(t->normal[i].pattern);
        base_free(t->normal[i].content);
    }
    for (size_t i = 0; i < t->n_steps; i++) {
        text_pattern_free(t->steps[i].pattern);
        base_free(t->steps[i].replacement);
    }
    void *owned[] = {t->pieces,
                     t->bytes,
                     t->piece_at,
                     t->bytes_at,
                     t->types,
                     t->token_flags,
                     t->scores,
                     t->ranks,
                     t->map,
                     t->merges,
                     t->sorted,
                     t->ends,
                     t->prefix,
                     t->suffix,
                     t->end_of_word,
                     t->continuing,
                     t->word_start,
                     t->added.tokens,
                     t->added_normalised.tokens};
    for (size_t i = 0; i < BASE_COUNT(owned); i++)
        base_free(owned[i]);
    arena_fini(&t->memory);
    base_free(t);
}

/* ---- texts and ids ---------------------------------------------------------------------------------------------- */

static size_t power_of_two_above(size_t n)
{
    size_t k = 16;
    while (k < n)
        k *= 2;
    return k;
}

static void map_insert(text_tokenizer *t, int32_t id)
{
    str piece = text_token_piece(t, id);
    size_t at = hash_bytes(piece.data, piece.length, 0) & t->map_mask;
    for (; t->map[at]; at = (at + 1) & t->map_mask) {
        str other = text_token_piece(t, (int32_t)t->map[at] - 1);
        if (str_equal(other, piece))
            break; /* the same text twice: the later one counts */
    }
    t->map[at] = (uint32_t)id + 1;
}

int32_t text_find_bytes(const text_tokenizer *t, const char *piece, size_t n)
{
    if (!t->map)
        return -1;
    size_t at = hash_bytes(piece, n, 0) & t->map_mask;
    for (; t->map[at]; at = (at + 1) & t->map_mask) {
        uint32_t id = t->map[at] - 1, from = t->piece_at[id];
        if (t->piece_at[id + 1] - from == n && !memcmp(t->pieces + from, piece, n))
            return (int32_t)id;
    }
    return -1;
}

int32_t text_find(const text_tokenizer *t, const char *piece)
{
    return text_find_bytes(t, piece, strlen(piece));
}

int32_t text_model_find(const text_tokenizer *t, const char *piece, size_t n)
{
    int32_t id = text_find_bytes(t, piece, n);
    return id >= 0 && (t->token_flags[id] & TOKEN_IN_MODEL) ? id : -1;
}

status text_vocab_set(text_tokenizer *t, size_t n, const str *tokens, const int32_t *types,
                      const float *scores, err *e)
{
    if (n == 0 || n > (1u << 24))
        return err_set(e, STATUS_CORRUPT, "text: vocabulary of %zu tokens, expected 1 to %u", n,
                       1u << 24);
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += tokens[i].length;
    if (total > UINT32_MAX)
        return err_set(e, STATUS_CORRUPT,
                       "text: the texts of the tokens have %llu bytes, expected less than 4 GiB",
                       (unsigned long long)total);
    size_t slots = power_of_two_above(2 * n);
    t->pieces = base_alloc((size_t)total);
    t->piece_at = base_alloc((n + 1) * sizeof *t->piece_at);
    t->types = base_alloc(n);
    t->token_flags = base_zalloc(n, 1);
    t->map = base_zalloc(slots, sizeof *t->map);
    if (scores)
        t->scores = base_alloc(n * sizeof *t->scores);
    if (!t->pieces || !t->piece_at || !t->types || !t->token_flags || !t->map ||
        (scores && !t->scores))
        return no_memory(e);
    t->map_mask = slots - 1;
    t->n_tokens = (int32_t)n;
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        t->piece_at[i] = at;
        if (tokens[i].length)
            memcpy(t->pieces + at, tokens[i].data, tokens[i].length);
        at += (uint32_t)tokens[i].length;
        t->piece_at[i + 1] = at;
        int32_t type = types ? types[i] : TEXT_NORMAL;
        if (type < 0 || type > TEXT_BYTE)
            return err_set(e, STATUS_CORRUPT, "text: token %zu has type %d, expected 0 to 6", i,
                           (int)type);
        t->types[i] = (uint8_t)(type ? type : TEXT_NORMAL);
        if (scores) {
            if (isnan(scores[i]))
                return err_set(e, STATUS_CORRUPT, "text: the score of token %zu is not a number",
                               i);
            /* Sums of them must stay finite whatever the length of a text. */
            t->scores[i] = BASE_MAX(-1e30f, BASE_MIN(1e30f, scores[i]));
        }
        map_insert(t, (int32_t)i);
    }
    return STATUS_OK;
}

/* ---- merges ----------------------------------------------------------------------------------------------------- */

static void merge_insert(text_tokenizer *t, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t at = (size_t)(key * 0x9E3779B97F4A7C15u >> 20) & t->merge_mask;
    while (t->merges[at].key != UINT64_MAX && t->merges[at].key != key)
        at = (at + 1) & t->merge_mask;
    if (t->merges[at].key == key)
        return; /* the first one is the one that happens */
    t->merges[at] = (merge_slot){key, rank, id};
    t->n_merges++;
}

static status merges_begin(text_tokenizer *t, size_t n, err *e)
{
    if (n > (1u << 26))
        return err_set(e, STATUS_CORRUPT, "text: %zu merges, at most %u are taken", n, 1u << 26);
    size_t slots = power_of_two_above(2 * n);
    t->merges = base_alloc(slots * sizeof *t->merges);
    if (!t->merges)
        return no_memory(e);
    memset(t->merges, 0xFF, slots * sizeof *t->merges);
    t->merge_mask = slots - 1;
    return STATUS_OK;
}

/* Merges whose parts or result are no tokens are passed over: they cannot happen. False without
 * memory. */
static bool merge_add(text_tokenizer *t, str left, str right, uint32_t rank, sb *joined)
{
    int32_t a = text_find_bytes(t, left.data, left.length);
    if (a < 0)
        return true;
    int32_t b = text_find_bytes(t, right.data, right.length);
    if (b < 0)
        return true;
    size_t skip = t->continuing ? strlen(t->continuing) : 0;
    if (skip > right.length || (skip && memcmp(right.data, t->continuing, skip) != 0))
        skip = 0;
    sb_clear(joined);
    sb_add(joined, left.data, left.length);
    sb_add(joined, right.data + skip, right.length - skip);
    if (joined->failed)
        return false;
    int32_t id = text_find_bytes(t, joined->data ? joined->data : "", joined->length);
    if (id >= 0)
        merge_insert(t, a, b, rank, id);
    return true;
}

status text_vocab_merges(text_tokenizer *t, size_t n, const str *merges, err *e)
{
    sb joined = {0};
    status s = merges_begin(t, n, e);
    for (size_t i = 0; s == STATUS_OK && i < n; i++) {
        str m = merges[i];
        const char *space = m.length > 1 ? memchr(m.data + 1, ' ', m.length - 1) : NULL;
        if (!space) {
            s = err_set(e, STATUS_CORRUPT, "text: merge %zu has no two parts: \"%.*s\"", i,
                        (int)BASE_MIN(m.length, (size_t)60), m.data);
            break;
        }
        str left = {m.data, (size_t)(space - m.data)};
        str right = {space + 1, m.length - left.length - 1};
        if (!merge_add(t, left, right, (uint32_t)i, &joined))
            s = no_memory(e);
    }
    sb_fini(&joined);
    return s;
}

status text_vocab_merge_pairs(text_tokenizer *t, size_t n, const str *pairs, err *e)
{
    sb joined = {0};
    status s = merges_begin(t, n, e);
    for (size_t i = 0; s == STATUS_OK && i < n; i++)
        if (!merge_add(t, pairs[2 * i], pairs[2 * i + 1], (uint32_t)i, &joined))
            s = no_memory(e);
    sb_fini(&joined);
    return s;
}

/* ---- orders ----------------------------------------------------------------------------------------------------- */

typedef struct scored {
    float score;
    uint32_t id;
} scored;

static int by_score(const void *a, const void *b)
{
    float x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return x > y ? -1 : x < y;
}

status text_vocab_ranks(text_tokenizer *t, err *e)
{
    if (!t->scores)
        return err_set(e, STATUS_CORRUPT, "text: a SentencePiece vocabulary without scores");
    size_t n = (size_t)t->n_tokens;
    scored *order = base_alloc(n * sizeof *order);
    t->ranks = base_alloc(n * sizeof *t->ranks);
    if (!order || !t->ranks) {
        base_free(order);
        return no_memory(e);
    }
    for (size_t i = 0; i < n; i++)
        order[i] = (scored){t->scores[i], (uint32_t)i};
    qsort(order, n, sizeof *order, by_score);
    uint32_t rank = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && order[i].score != order[i - 1].score)
            rank++;
        t->ranks[order[i].id] =
            rank; /* equal scores: equal rank, then the place in the text decides */
    }
    base_free(order);
    return STATUS_OK;
}

typedef struct named {
    str text;
    uint32_t id;
} named;

static int compare_texts(str a, str b)
{
    size_t n = BASE_MIN(a.length, b.length);
    int c = n ? memcmp(a.data, b.data, n) : 0;
    return c ? c : (a.length > b.length) - (a.length < b.length);
}

static int by_text(const void *a, const void *b)
{
    const named *x = a, *y = b;
    int c = compare_texts(x->text, y->text);
    return c ? c : (x->id > y->id) - (x->id < y->id);
}

status text_vocab_sort(text_tokenizer *t, err *e)
{
    size_t n = 0;
    named *order = base_alloc((size_t)t->n_tokens * sizeof *order);
    t->sorted = base_alloc((size_t)t->n_tokens * sizeof *t->sorted);
    if (!order || !t->sorted) {
        base_free(order);
        return no_memory(e);
    }
    double lowest = 0;
    bool any = false;
    for (int32_t i = 0; i < t->n_tokens; i++) {
        if (t->types[i] == TEXT_NORMAL && (!any || t->scores[i] < lowest)) {
            lowest = t->scores[i];
            any = true;
        }
        str piece = text_token_piece(t, i);
        if (piece.length && text_find_bytes(t, piece.data, piece.length) == i &&
            (t->types[i] == TEXT_NORMAL || t->types[i] == TEXT_USER_DEFINED ||
             t->types[i] == TEXT_UNUSED))
            order[n++] = (named){piece, (uint32_t)i};
    }
    qsort(order, n, sizeof *order, by_text);
    for (size_t i = 0; i < n; i++)
        t->sorted[i] = order[i].id;
    t->n_sorted = n;
    size_t at = 0;
    for (unsigned b = 0; b <= 256; b++) {
        while (at < n && (unsigned char)order[at].text.data[0] < b)
            at++;
        t->sorted_begin[b] = (uint32_t)at;
    }
    t->unk_score = lowest - 10.0;
    base_free(order);
    return STATUS_OK;
}

/* ---- added tokens ----------------------------------------------------------------------------------------------- */

static int by_added_text(const void *a, const void *b)
{
    const added_token *x = a, *y = b;
    int c = compare_texts((str){x->text, x->length}, (str){y->text, y->length});
    return c ? c : (x->id > y->id) - (x->id < y->id);
}

status text_added_make(text_tokenizer *t, added_set *set, const added_token *tokens, size_t n,
                       err *e)
{
    set->tokens = base_alloc((n + 1) * sizeof *set->tokens);
    if (!set->tokens)
        return no_memory(e);
    for (size_t i = 0; i < n; i++) {
        if (!tokens[i].length)
            continue;
        added_token *a = &set->tokens[set->n];
        *a = tokens[i];
        a->text = arena_strndup(&t->memory, tokens[i].text, tokens[i].length);
        if (!a->text)
            return no_memory(e);
        set->n++;
    }
    qsort(set->tokens, set->n, sizeof *set->tokens, by_added_text);
    size_t at = 0;
    for (unsigned b = 0; b <= 256; b++) {
        while (at < set->n && (unsigned char)set->tokens[at].text[0] < b)
            at++;
        set->begin[b] = (uint32_t)at;
    }
    return STATUS_OK;
}

const added_token *text_added_match(const added_set *set, const char *p, size_t n, bool special)
{
    unsigned first = (unsigned char)p[0];
    size_t lo = set->begin[first], hi = set->begin[first + 1];
    const added_token *best = NULL;
    /* lo … hi: those that agree with p in `depth` bytes. The ones of exactly that length stand
     * first. */
    for (size_t depth = 1; lo < hi; depth++) {
        for (; lo < hi && set->tokens[lo].length == depth; lo++)
            if (special || !set->tokens[lo].special)
                best = &set->tokens[lo];
        if (depth == n || lo == hi)
            break;
        unsigned char c = (unsigned char)p[depth];
        size_t a = lo, b = hi;
        while (a < b) { /* the first with a byte not under c */
            size_t mid = (a + b) / 2;
            if ((unsigned char)set->tokens[mid].text[depth] < c)
                a = mid + 1;
            else
                b = mid;
        }
        lo = a;
        b = hi;
        while (a < b) { /* the first with a byte above c */
            size_t mid = (a + b) / 2;
            if ((unsigned char)set->tokens[mid].text[depth] <= c)
                a = mid + 1;
            else
                b = mid;
        }
        hi = a;
    }
    return best;
}

/* ---- what follows from all of it -------------------------------------------------------------------------------- */

/* "<0x41>" → 0x41, else -1. */
static int byte_token(str piece)
{
    static const char digits[] = "0123456789ABCDEF";
    if (piece.length != 6 || memcmp(piece.data, "<0x", 3) != 0 || piece.data[5] != '>')
        return -1;
    const char *hi = memchr(digits, piece.data[3] & ~((piece.data[3] & 0x40) >> 1), 16);
    const char *lo = memchr(digits, piece.data[4] & ~((piece.data[4] & 0x40) >> 1), 16);
    return hi && lo ? (int)(hi - digits) * 16 + (int)(lo - digits) : -1;
}

static void token_to_bytes(const text_tokenizer *t, int32_t id, sb *out)
{
    str piece = text_token_piece(t, id);
    bool literal = t->types[id] == TEXT_CONTROL || t->types[id] == TEXT_UNKNOWN;
    if (literal) {
        sb_add(out, piece.data, piece.length);
        return;
    }
    if (t->byte_level) {
        if (t->types[id] == TEXT_USER_DEFINED || !text_unmap_bytes(piece.data, piece.length, out))
            sb_add(out, piece.data, piece.length);
        return;
    }
    int byte = t->types[id] == TEXT_BYTE || t->byte_fallback ? byte_token(piece) : -1;
    if (byte >= 0) {
        sb_putc(out, (char)byte);
        return;
    }
    if (t->word_spaces) {
        const char *prefix = t->continuing ? t->continuing : "";
        if (*prefix && str_starts(piece, prefix)) {
            sb_add(out, piece.data + strlen(prefix), piece.length - strlen(prefix));
            return;
        }
        size_t skip = t->word_start && str_starts(piece, t->word_start) ? strlen(t->word_start) : 0;
        if (skip || *prefix)
            sb_putc(out, ' ');
        sb_add(out, piece.data + skip, piece.length - skip);
        return;
    }
    size_t suffix = t->end_of_word ? strlen(t->end_of_word) : 0;
    bool ends_word = suffix && piece.length >= suffix &&
                     !memcmp(piece.data + piece.length - suffix, t->end_of_word, suffix);
    if (ends_word)
        piece.length -= suffix;
    for (size_t i = 0; i < piece.length;) {
        if (t->unescape_space && piece.length - i >= 3 && !memcmp(piece.data + i, space_mark, 3)) {
            sb_putc(out, ' ');
            i += 3;
        } else {
            sb_putc(out, piece.data[i++]);
        }
    }
    if (ends_word)
        sb_putc(out, ' ');
}

/* Does U+2581 follow another character anywhere in this token? */
static bool crosses_space(str piece)
{
    bool other = false;
    for (size_t i = 0; i < piece.length;) {
        if (piece.length - i >= 3 && !memcmp(piece.data + i, space_mark, 3)) {
            if (other)
                return true;
            i += 3;
        } else {
            other = true;
            i++;
        }
    }
    return false;
}

static const char *const end_names[] = {
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "<turn|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<\357\275\234end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
    "<eos>",
    "</s>",
    "[e~["};

static void mark_end(text_tokenizer *t, int32_t id)
{
    if (id >= 0 && id < t->n_tokens)
        t->token_flags[id] |= TOKEN_END;
}

static status list_ends(text_tokenizer *t, err *e)
{
    size_t n = 0;
    for (int32_t i = 0; i < t->n_tokens; i++)
        n += (t->token_flags[i] & TOKEN_END) != 0;
    int32_t *ends = base_alloc((n + 1) * sizeof *ends);
    if (!ends)
        return no_memory(e);
    base_free(t->ends);
    t->ends = ends;
    t->n_ends = 0;
    for (int32_t i = 0; i < t->n_tokens; i++)
        if (t->token_flags[i] & TOKEN_END)
            ends[t->n_ends++] = i;
    return STATUS_OK;
}

static status find_ends(text_tokenizer *t, err *e)
{
    mark_end(t, t->special[TEXT_EOS]);
    mark_end(t, t->special[TEXT_EOT]);
    mark_end(t, t->special[TEXT_EOM]);
    /* In gpt-oss's format <|end|> closes a message, not the answer. */
    bool harmony = text_find(t, "<|return|>") >= 0 && text_find(t, "<|call|>") >= 0;
    for (size_t i = 0; i < BASE_COUNT(end_names); i++) {
        int32_t id = text_find(t, end_names[i]);
        if (id < 0 || (t->types[id] != TEXT_CONTROL && t->types[id] != TEXT_USER_DEFINED))
            continue;
        if (harmony && !strcmp(end_names[i], "<|end|>") && id != t->special[TEXT_EOS])
            continue;
        mark_end(t, id);
    }
    return list_ends(t, e);
}

status text_add_end(text_tokenizer *t, int32_t id, err *e)
{
    if (id < 0 || id >= t->n_tokens)
        return err_set(e, STATUS_INVALID, "text: end token %d, the vocabulary has %d", (int)id,
                       (int)t->n_tokens);
    mark_end(t, id);
    return list_ends(t, e);
}

static void find_byte_ids(text_tokenizer *t)
{
    for (int b = 0; b < 256; b++) {
        char name[8];
        if (t->byte_level) {
            int n = text_utf8_put(name, text_byte_to_char((unsigned char)b));
            t->byte_id[b] = text_model_find(t, name, (size_t)n);
        } else if (t->byte_fallback) {
            static const char digits[] = "0123456789ABCDEF";
            const char wanted[6] = {'<', '0', 'x', digits[b >> 4], digits[b & 15], '>'};
            t->byte_id[b] = text_find_bytes(t, wanted, 6);
        }
    }
}

status text_vocab_finish(text_tokenizer *t, err *e)
{
    sb all = {0};
    t->bytes_at = base_alloc(((size_t)t->n_tokens + 1) * sizeof *t->bytes_at);
    if (!t->bytes_at)
        return no_memory(e);
    t->cut_at_space = t->kind == MODEL_BPE && !t->byte_level && t->unescape_space &&
                      !t->end_of_word && !t->continuing && text_model_find(t, space_mark, 3) >= 0;
    sb_reserve(&all, (size_t)t->piece_at[t->n_tokens] + (size_t)t->n_tokens + 1);
    for (int32_t i = 0; i < t->n_tokens; i++) {
        t->bytes_at[i] = (uint32_t)all.length;
        token_to_bytes(t, i, &all);
        if (t->cut_at_space && (t->token_flags[i] & TOKEN_IN_MODEL) &&
            crosses_space(text_token_piece(t, i)))
            t->cut_at_space = false;
    }
    t->bytes_at[t->n_tokens] = (uint32_t)all.length;
    if (all.failed || all.length > UINT32_MAX) {
        sb_fini(&all);
        return no_memory(e);
    }
    t->bytes = sb_take(&all);
    if (!t->bytes)
        return no_memory(e);
    find_byte_ids(t);
    return find_ends(t, e);
}

status text_vocab_affix(text_tokenizer *t, const int32_t *prefix, size_t n_prefix,
                        const int32_t *suffix, size_t n_suffix, err *e)
{
    t->prefix = base_alloc((n_prefix + 1) * sizeof *t->prefix);
    t->suffix = base_alloc((n_suffix + 1) * sizeof *t->suffix);
    if (!t->prefix || !t->suffix)
        return no_memory(e);
    for (size_t i = 0; i < n_prefix + n_suffix; i++) {
        int32_t id = i < n_prefix ? prefix[i] : suffix[i - n_prefix];
        if (id < 0 || id >= t->n_tokens)
            return err_set(e, STATUS_CORRUPT, "text: special token %d, the vocabulary has %d",
                           (int)id, (int)t->n_tokens);
        if (i < n_prefix)
            t->prefix[t->n_prefix++] = id;
        else
            t->suffix[t->n_suffix++] = id;
    }
    return STATUS_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

split_step *text_add_step(text_tokenizer *t, step_kind kind, err *e)
{
    if (t->n_steps == TEXT_MAX_STEPS) {
        err_set(e, STATUS_UNSUPPORTED, "text: more than %d pre-tokeniser steps", TEXT_MAX_STEPS);
        return NULL;
    }
    split_step *s = &t->steps[t->n_steps++];
    memset(s, 0, sizeof *s);
    s->kind = kind;
    return s;
}

normal_step *text_add_normal(text_tokenizer *t, normal_kind kind, err *e)
{
    if (t->n_normal == TEXT_MAX_STEPS) {
        err_set(e, STATUS_UNSUPPORTED, "text: more than %d normaliser steps", TEXT_MAX_STEPS);
        return NULL;
    }
    normal_step *s = &t->normal[t->n_normal++];
    memset(s, 0, sizeof *s);
    s->kind = kind;
    return s;
}

status text_add_split(text_tokenizer *t, const char *regex, size_t n, split_behavior behavior,
                      bool invert, err *e)
{
    split_step *s = text_add_step(t, STEP_SPLIT, e);
    if (!s)
        return STATUS_UNSUPPORTED;
    s->behavior = behavior;
    s->invert = invert;
    return text_pattern_compile(&s->pattern, regex, n, e);
}

/* ---- questions -------------------------------------------------------------------------------------------------- */

int32_t text_token_count(const text_tokenizer *t)
{
    return t->n_tokens;
}

str text_token_piece(const text_tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->n_tokens)
        return (str){"", 0};
    return (str){t->pieces + t->piece_at[id], t->piece_at[id + 1] - t->piece_at[id]};
}

str text_token_bytes(const text_tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->n_tokens)
        return (str){"", 0};
    return (str){t->bytes + t->bytes_at[id], t->bytes_at[id + 1] - t->bytes_at[id]};
}

bool text_token_is_control(const text_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_tokens && t->types[id] == TEXT_CONTROL;
}

bool text_token_is_special(const text_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_tokens &&
           (t->types[id] == TEXT_CONTROL || t->types[id] == TEXT_UNKNOWN ||
            t->types[id] == TEXT_UNUSED);
}

bool text_token_is_end(const text_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_tokens && (t->token_flags[id] & TOKEN_END);
}

size_t text_end_tokens(const text_tokenizer *t, const int32_t **out)
{
    *out = t->ends;
    return t->n_ends;
}

int32_t text_special_id(const text_tokenizer *t, text_special which)
{
    return (unsigned)which < TEXT_N_SPECIAL ? t->special[which] : -1;
}

bool text_adds_bos(const text_tokenizer *t)
{
    return t->n_prefix > 0;
}

const char *text_model_name(const text_tokenizer *t)
{
    switch (t->kind) {
    case MODEL_BPE:
        return t->byte_level ? "byte-level BPE" : "SentencePiece BPE";
    case MODEL_UNIGRAM:
        return "Unigram";
    case MODEL_WORDPIECE:
        return "WordPiece";
    default:
        return "WordLevel";
    }
}
