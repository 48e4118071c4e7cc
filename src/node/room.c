/*
 * How long sequences may be, and how many positions the pools of all together hold, by the memory that is free. A pure function of numbers:
 * the rank checks what it is told against what there is, and says what is missing.
 *
 *   context  asked for, or the model's own as far as half of the memory beside the weights goes; 32k (or all that the model can) when they fit
 *            at all
 *   pools    one context for every sequence, out of a quarter of the free memory; at least one context
 */
#include "node/node.h"

enum { LEAST_DEFAULT = 32768, LEAST = 512, STEP = 256, RESERVE_BYTES = 128 << 20 };

/* Adds state, for a position of one sequence and for what a sequence takes whatever its length. */
static void add_state_bytes(const model_card *card, model_kv kv, uint64_t *per_token,
                            uint64_t *fixed)
{
    enum { RUN_PAGES = 6 }; /* of a window: the step being computed, and what is kept behind */
    double share = (double)model_kv_bytes_per_token(card, kv) /
                   (double)BASE_MAX(model_kv_bytes_per_token(card, MODEL_KV_F16), (uint64_t)1);
    for (int i = 0; i < card->n_classes; i++) {
        const model_state_class *c = &card->classes[i];
        uint64_t page = (uint64_t)((double)c->page_bytes * share);
        if (c->kind == MODEL_STATE_CONSTANT)
            *fixed += 2 * c->page_bytes;
        else if (c->kind == MODEL_STATE_WINDOWED)
            *fixed += page * (uint64_t)(c->window / c->page_tokens + RUN_PAGES);
        else
            *per_token += page / (uint64_t)c->page_tokens;
    }
}

node_room node_find_room(const model_card *card, const model_card *draft, model_kv kv,
                         int64_t asked, int n_sequences, uint64_t free_bytes)
{
    uint64_t per_token = 0, fixed = 0;
    int64_t most = card->trained_context ? card->trained_context : LEAST_DEFAULT;
    node_room r = {.context = asked ? asked : most};
    add_state_bytes(card, kv, &per_token, &fixed);
    if (draft)
        add_state_bytes(draft, kv, &per_token, &fixed);
    fixed = fixed * (uint64_t)n_sequences + card->weight_bytes + (draft ? draft->weight_bytes : 0) +
            RESERVE_BYTES;
    uint64_t left = free_bytes > fixed ? free_bytes - fixed : 0;
    if (per_token == 0) {
        r.state_tokens = (uint64_t)r.context;
        return r;
    }
    int64_t whole = (int64_t)BASE_MIN(left / per_token, (uint64_t)1 << 30), half = whole / 2;
    int64_t bound = BASE_MAX(half, BASE_MIN(whole, (int64_t)LEAST_DEFAULT)) / STEP * STEP;
    if (!asked && bound < most) {
        r.context = BASE_MIN(BASE_MAX(bound, (int64_t)LEAST), most);
        r.bounded = r.context < most;
    }
    uint64_t wanted = (uint64_t)r.context * (uint64_t)n_sequences;
    r.state_tokens = BASE_MAX((uint64_t)r.context, BASE_MIN(wanted, free_bytes / 4 / per_token));
    return r;
}
