/*
 * Guesses by lookup: text that repeats itself (code, quotations, tables, a document that is being edited) goes on as it did before. Pairs of
 * neighbouring tokens are chained by hash, newest first, as LZ77 coders do; of a few places the one with the longest common past wins.
 *
 * A match that runs into the present continues with its own guesses, so that a cycle is guessed beyond its one turn.
 * Not here: whether a guess is worth checking (draft.c).
 */
#include "engine/draft.h"

enum { LOOKS = 16, ENOUGH = 32, HEADS_MIN = 256, HEADS_MAX = 1 << 16 };

status lookup_init(lookup *l, int capacity, err *e)
{
    uint32_t heads = HEADS_MIN;
    while (heads < HEADS_MAX && heads < (uint32_t)capacity)
        heads *= 2;
    *l = (lookup){.mask = heads - 1};
    l->head = base_zalloc(heads, sizeof *l->head);
    l->previous = base_alloc(sizeof *l->previous * (size_t)capacity);
    if (!l->head || !l->previous) {
        lookup_fini(l);
        return err_set(e, STATUS_NO_MEMORY, "engine: no memory to look up %d tokens", capacity);
    }
    return STATUS_OK;
}

void lookup_fini(lookup *l)
{
    base_free(l->head);
    base_free(l->previous);
    *l = (lookup){0};
}

/* Of the pair that ends at `at` ≥ 1. */
static int32_t *head_of(const lookup *l, const int32_t *tokens, int at)
{
    uint64_t pair = (uint64_t)(uint32_t)tokens[at - 1] << 32 | (uint32_t)tokens[at];
    return &l->head[(uint32_t)(pair * 0x9E3779B97F4A7C15u >> 40) & l->mask];
}

/* Tokens before and at `a` and `b` > a that agree, counted up to ENOUGH. */
static int agreement(const int32_t *tokens, int a, int b)
{
    int n = 0;
    while (n < ENOUGH && n <= a && tokens[a - n] == tokens[b - n])
        n++;
    return n;
}

int lookup_find(lookup *l, const int32_t *tokens, int n_tokens, int most, int32_t *ids, int *length)
{
    int last = n_tokens - 1, best = -1;
    *length = 0;
    for (; l->n < n_tokens;
         l->n++) { /* the newest pair enters with the rest: it is skipped below */
        l->previous[l->n] = 0;
        if (l->n == 0)
            continue;
        int32_t *head = head_of(l, tokens, l->n);
        l->previous[l->n] = *head;
        *head = l->n + 1;
    }
    if (last < 2)
        return 0;
    int at = l->previous[last] - 1;
    for (int looks = 0; at > 0 && looks < LOOKS && *length < ENOUGH; looks++) {
        int n = agreement(tokens, at, last);
        if (n > *length) {
            *length = n;
            best = at;
        }
        at = l->previous[at] - 1;
    }
    if (*length < 2)
        return 0;
    for (int i = 0; i < most; i++) {
        int from = best + 1 + i;
        ids[i] = from <= last ? tokens[from] : ids[from - last - 1];
    }
    return most;
}
