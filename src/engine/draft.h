/*
 * Inside of speculation: who guesses the next tokens of a sequence, and how many guesses a step should check. See engine.h.
 *
 * A guess is checked by running it behind the sequence's last token: it stands when it equals the token that the model's own sampler
 * chooses there, so guesses change when tokens come and never which. Rejected guesses leave nothing behind but time.
 *
 *   draft_propose  before a step: guesses for every sequence that decodes
 *   draft_learn    after it: which tokens came, guessed or not; acceptance is known from that
 *   draft_measure  after it: how long a step of so many rows took
 *
 * How many: the guesses that make (expected tokens) ÷ (expected time) of the step greatest, from acceptance by length of match and from
 * measured times by number of rows. Sequences share the rows: beside many others a guess has to be better to be checked.
 *
 * Threads: the engine's. Only draft_sequence_create and the first use of a draft model by a sequence allocate.
 * Not here: checking (engine.c).
 */
#ifndef SHOAL_ENGINE_DRAFT_H
#define SHOAL_ENGINE_DRAFT_H

#include "engine/engine.h"

enum {
    DRAFT_MOST = 15,  /* guesses of a sequence in a step */
    DRAFT_LENGTHS = 6 /* classes of length of a match, for acceptance */
};

typedef struct draft draft;                   /* of an engine */
typedef struct draft_sequence draft_sequence; /* of a sequence of it */

/* *out = NULL without an error when o->draft says none. INVALID, naming both, when a draft model has another vocabulary. */
status draft_create(draft **out, const engine_options *o, const model *target, err *e);
void draft_destroy(draft *d);

/* capacity: tokens of the sequence at most. */
status draft_sequence_create(draft_sequence **out, draft *d, int capacity, err *e);
void draft_sequence_destroy(draft_sequence *s); /* NULL is fine */
/* The sequence gave up its state: the draft model's goes too. */
void draft_sequence_forget(draft_sequence *s);

typedef struct draft_call {
    draft_sequence *s;
    const int32_t *tokens; /* [n_tokens] so far: the last one is computed in this step */
    int n_tokens;
    sample *sampler; /* of the sequence: a draft model draws with the same noise */
    int room;        /* guesses that may be checked at most; 0 = none */
    int n;           /* out: guesses to check */
    int32_t ids[DRAFT_MOST];
} draft_call;

/* n_rows: tokens of the step beside guesses; spare: guesses that it may hold altogether. */
void draft_propose(draft *d, draft_call *calls, int n_calls, int n_rows, int spare);
/* tokens[n_tokens]: all of the sequence, the last n_new of them came in this step. */
void draft_learn(draft *d, draft_sequence *s, const int32_t *tokens, int n_tokens, int n_new);
void draft_measure(draft *d, int n_rows, uint64_t us);

/* ---- lookup (draft_lookup.c) --------------------------------------------------------------------------------------- */

/* Every place of two neighbouring tokens in one sequence's past, newest first. */
typedef struct lookup {
    int32_t *head;     /* [mask + 1] position + 1 of the newest pair with this hash; 0 = none */
    int32_t *previous; /* [capacity] position + 1 of the one before */
    uint32_t mask;
    int n; /* positions entered */
} lookup;

status lookup_init(lookup *l, int capacity, err *e);
void lookup_fini(lookup *l);
/* What followed the last time when the newest tokens stood there before: up to `most` ids. *length: tokens that agree. Returns how many. */
int lookup_find(lookup *l, const int32_t *tokens, int n_tokens, int most, int32_t *ids,
                int *length);

/* ---- a draft model (draft_model.c) --------------------------------------------------------------------------------- */

typedef struct draft_model draft_model;

status draft_model_create(draft_model **out, model *m, const model *target, err *e);
void draft_model_destroy(draft_model *d);
/* Generates calls[i].n guesses for every call that wants some; n becomes less when the past must be read first, or there is no room.
 * *level_us: time of one of its steps, 0 when there was no ordinary one. */
status draft_model_run(draft_model *d, draft_call *calls, int n_calls, float *level_us, err *e);
/* What was computed behind the first `length` positions was not so. */
void draft_model_cut(engine_state *s, int64_t length);
engine_state **draft_sequence_state(draft_sequence *s);

#endif
