/*
 * Pre-tokenising: each step cuts the pieces of the one before; a piece that has passed all steps
 * goes to the model at once, so nothing is stored. Steps that change text (Metaspace, the byte
 * map) write into a buffer of their own level.
 *
 * All of tokenizer.json's pre-tokenisers come down to four kinds: SPLIT with a pattern and a
 * behaviour (Split, Digits, Punctuation, Whitespace, BERT, ByteLevel's regex), a space in front,
 * Metaspace, and the byte map in the middle.
 */
#include "text/inside.h"

#include <string.h>

static const char space_mark[] = "\xE2\x96\x81"; /* U+2581 */

typedef struct cutter {
    const text_tokenizer *t;
    text_scratch *s;
    text_ids *out;
} cutter;

static status run_steps(cutter *c, size_t k, const char *p, size_t n, bool at_start, err *e);

/* Words of a SentencePiece vocabulary whose tokens never hold U+2581 behind another character:
 * cutting there changes nothing and lets the cache work. */
static status encode_words(cutter *c, const char *p, size_t n, err *e)
{
    size_t from = 0;
    bool in_word = false;
    for (size_t i = 0; i < n;) {
        bool mark = n - i >= 3 && !memcmp(p + i, space_mark, 3);
        if (mark && in_word) {
            status st = text_encode_piece(c->t, c->s, p + from, i - from, c->out, e);
            if (st != STATUS_OK)
                return st;
            from = i;
        }
        in_word = !mark;
        i += mark ? 3 : 1;
    }
    return text_encode_piece(c->t, c->s, p + from, n - from, c->out, e);
}

/* ---- split with a behaviour ------------------------------------------------------------------------------------- */

/* What is between and in matches comes one after the other, in order; `held` waits for what
 * follows. */
typedef struct splitting {
    cutter *c;
    size_t k; /* of the step */
    split_behavior behavior;
    const char *p;
    bool at_start;
    bool holding, held_match, previous_match;
    size_t held_begin, held_end;
} splitting;

static status emit(splitting *x, size_t begin, size_t end, err *e)
{
    if (begin == end)
        return STATUS_OK;
    return run_steps(x->c, x->k + 1, x->p + begin, end - begin, x->at_start && !begin, e);
}

static status flush(splitting *x, err *e)
{
    if (!x->holding)
        return STATUS_OK;
    x->holding = false;
    return emit(x, x->held_begin, x->held_end, e);
}

static status hold(splitting *x, size_t begin, size_t end, bool match, bool joins, err *e)
{
    if (x->holding && joins) {
        x->held_end = end;
        return STATUS_OK;
    }
    status st = flush(x, e);
    x->holding = true;
    x->held_match = match;
    x->held_begin = begin;
    x->held_end = end;
    return st;
}

static status take(splitting *x, size_t begin, size_t end, bool match, err *e)
{
    status st = STATUS_OK;
    bool after_match = x->previous_match;
    x->previous_match = match;
    switch (x->behavior) {
    case SPLIT_ISOLATED:
        return emit(x, begin, end, e);
    case SPLIT_REMOVED:
        return match ? STATUS_OK : emit(x, begin, end, e);
    case SPLIT_CONTIGUOUS:
        return hold(x, begin, end, match, match == x->held_match, e);
    case SPLIT_WITH_PREVIOUS:
        return hold(x, begin, end, match, match && !after_match, e);
    case SPLIT_WITH_NEXT: /* a match joins what follows it, unless that is a match too */
        if (match)
            return hold(x, begin, end, match, false, e);
        if (x->holding)
            begin = x->held_begin;
        x->holding = false;
        return emit(x, begin, end, e);
    }
    return st;
}

static status split(cutter *c, size_t k, const split_step *step, const char *p, size_t n,
                    bool at_start, err *e)
{
    text_matcher m;
    splitting x = {.c = c, .k = k, .behavior = step->behavior, .p = p, .at_start = at_start};
    if (step->kind == STEP_METASPACE)
        x.behavior = SPLIT_WITH_NEXT;
    status st = text_matcher_init(&m, step->pattern, c->s, p, n, e);
    size_t at = 0, begin, end;
    while (st == STATUS_OK && text_matcher_next(&m, &begin, &end)) {
        if (begin > at)
            st = take(&x, at, begin, step->invert, e);
        if (st == STATUS_OK && end > begin)
            st = take(&x, begin, end, !step->invert, e);
        at = end;
    }
    if (st == STATUS_OK && at < n)
        st = take(&x, at, n, step->invert, e);
    if (st == STATUS_OK)
        st = flush(&x, e);
    text_matcher_fini(&m);
    return st;
}

/* ---- the other kinds -------------------------------------------------------------------------------------------- */

static status put_space_in_front(cutter *c, size_t k, const char *p, size_t n, bool at_start,
                                 err *e)
{
    if (!n || p[0] == ' ')
        return run_steps(c, k + 1, p, n, at_start, e);
    sb *b = &c->s->level[k];
    sb_clear(b);
    sb_putc(b, ' ');
    sb_add(b, p, n);
    if (b->failed)
        return err_set(e, STATUS_NO_MEMORY, "text: no memory for encoding");
    return run_steps(c, k + 1, b->data, b->length, at_start, e);
}

static status metaspace(cutter *c, size_t k, const split_step *step, const char *p, size_t n,
                        bool at_start, err *e)
{
    sb *b = &c->s->level[k];
    size_t mark = strlen(step->replacement);
    sb_clear(b);
    bool prepend = step->scheme == PREPEND_ALWAYS || (step->scheme == PREPEND_FIRST && at_start);
    bool has_mark = n && (p[0] == ' ' || (n >= mark && !memcmp(p, step->replacement, mark)));
    if (prepend && !has_mark)
        sb_add(b, step->replacement, mark);
    for (size_t i = 0; i < n;) {
        const char *space = memchr(p + i, ' ', n - i);
        size_t plain = space ? (size_t)(space - p) - i : n - i;
        sb_add(b, p + i, plain);
        i += plain;
        if (space) {
            sb_add(b, step->replacement, mark);
            i++;
        }
    }
    if (b->failed)
        return err_set(e, STATUS_NO_MEMORY, "text: no memory for encoding");
    if (step->pattern)
        return split(c, k, step, b->data, b->length, at_start, e);
    return run_steps(c, k + 1, b->data, b->length, at_start, e);
}

static status run_steps(cutter *c, size_t k, const char *p, size_t n, bool at_start, err *e)
{
    if (!n)
        return STATUS_OK;
    if (k == c->t->n_steps)
        return c->t->cut_at_space ? encode_words(c, p, n, e)
                                  : text_encode_piece(c->t, c->s, p, n, c->out, e);
    const split_step *step = &c->t->steps[k];
    switch (step->kind) {
    case STEP_SPLIT:
        return split(c, k, step, p, n, at_start, e);
    case STEP_PREFIX_SPACE:
        return put_space_in_front(c, k, p, n, at_start, e);
    case STEP_METASPACE:
        return metaspace(c, k, step, p, n, at_start, e);
    case STEP_BYTE_MAP: {
        sb *b = &c->s->level[k];
        sb_clear(b);
        text_map_bytes(p, n, b);
        if (b->failed)
            return err_set(e, STATUS_NO_MEMORY, "text: no memory for encoding");
        return run_steps(c, k + 1, b->data, b->length, at_start, e);
    }
    }
    return STATUS_OK;
}

status text_pretokenise(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                        bool at_start, text_ids *out, err *e)
{
    cutter c = {t, s, out};
    return run_steps(&c, 0, p, n, at_start, e);
}
