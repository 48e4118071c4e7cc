/*
 * sample: logits → token, and stop strings in streamed text.
 *
 * Sampling is Gumbel-max (DESIGN section 7 d): token = argmax of logit/temperature + noise(seed, choice, position, token id) over the
 * tokens that the filters leave. The noise is a pure function, so a token depends on its own logits and nothing else: not on the batch, on
 * other sequences, on how often a step was repeated or on speculation. Temperature 0 is the greatest logit, the lowest id among equals.
 *
 * Order: logit bias and banned tokens; repetition penalty (tokens of the prompt and generated ones, within the window, once each:
 * positive logits are divided, others multiplied, as CTRL and llama.cpp do); presence and frequency penalties (generated tokens only, as
 * OpenAI defines them); allowed mask; temperature; top-k; top-p of what top-k left, renormalised (the shortest prefix, by falling logit then
 * rising id, whose mass reaches p); min-p (probability ≥ min_p × the greatest). Filters never remove the best token.
 *
 * Log-probabilities are of the raw distribution: natural log of the softmax of the logits as they came, before all of the above.
 *
 * Cost at 128k tokens: a few passes over the logits, never a sort; no allocation. Threads: an object belongs to one thread at a time.
 * Not here: which logits (src/engine), tokens that end a text, how slices of a row tell each other (src/engine), how chats write tool calls (src/chat).
 */
#ifndef SHOAL_SAMPLE_H
#define SHOAL_SAMPLE_H

#include "base/base.h"
#include "kernel/kernel.h"
#include "text/text.h"

enum { SAMPLE_TOP_MAX = 20 };

typedef struct sample_bias {
    int32_t token;
    float bias; /* added to its logit */
} sample_bias;

typedef struct sample_options {
    uint64_t seed;
    float temperature;        /* 0 (or under 1e-6) = greedy; ≤ 100 */
    int top_k;                /* 0 = off */
    float top_p;              /* 1 = off; 0 leaves one token */
    float min_p;              /* 0 = off; 0..1 */
    float repetition_penalty; /* 1 = off; > 0 */
    float presence_penalty;   /* 0 = off; −10..10 */
    float frequency_penalty;
    int penalty_window; /* tokens that the repetition penalty looks back; 0 = all */
    int n_bias;
    const sample_bias *bias; /* a token twice: the sum */
    int n_banned;
    const int32_t *banned; /* never sampled: reserved ids, the end tokens when they are ignored */
} sample_options;

/* What a zeroed struct is not: temperature 1, everything else off. */
#define SAMPLE_DEFAULTS                                                                            \
    (sample_options)                                                                               \
    {                                                                                              \
        .temperature = 1, .top_p = 1, .repetition_penalty = 1                                      \
    }

/* INVALID with the name of the option and its range; vocabulary ≤ 0: ids are not checked. */
status sample_options_check(const sample_options *o, int vocabulary, err *e);

/* ---- sampling ------------------------------------------------------------------------------------------------------ */

/* Working memory for one vocabulary, shared by all samplers of a thread. Owned by the caller. */
typedef struct sample_scratch sample_scratch;
status sample_scratch_create(sample_scratch **out, int vocabulary, err *e);
void sample_scratch_destroy(sample_scratch *w);

/* The sampler of one choice: its options and the tokens it has seen. Options are copied, the table is borrowed (static). Takes
 * 12 bytes × vocabulary when a penalty is on, else little. */
typedef struct sample sample;
status sample_create(sample **out, const kernel_table *k, int vocabulary, const sample_options *o,
                     int choice, err *e);
void sample_destroy(sample *s);

/* History. Ids outside the vocabulary are ignored. accept also when a stream is resumed: its tokens so far count as generated. */
void sample_prompt(sample *s, const int32_t *ids, int64_t n);
void sample_accept(sample *s, int32_t token);

typedef struct sample_top {
    int32_t token;
    float logprob;
} sample_top;

typedef struct sample_result {
    int32_t token;
    float logprob; /* of token; only with top_logprobs ≥ 0 */
    int n_top;
    sample_top top[SAMPLE_TOP_MAX]; /* falling, lower id first among equals */
} sample_result;

typedef struct sample_call {
    const float *logits; /* [V], all finite */
    int64_t
        position; /* of the new token in its sequence: prompt tokens + tokens generated so far */
    const uint64_t *allowed; /* [⌈V/64⌉] bits, 1 = may be sampled; NULL = all. From a grammar. */
    int top_logprobs;        /* −1 = no logprobs; else 0..SAMPLE_TOP_MAX alternatives */
} sample_call;

/* Chooses a token; does not count it (sample_accept does). CORRUPT: a logit is NaN or infinite (says which); INVALID: nothing is allowed. */
status sample_next(sample *s, sample_scratch *w, const sample_call *c, sample_result *out, err *e);

/* The log-probability of a given token, as sample_next tells it of the chosen one; w's vocabulary is that of logits. */
status sample_score(sample_scratch *w, const kernel_table *k, const float *logits, int32_t token,
                    int top_logprobs, sample_result *out, err *e);

/* ---- a vocabulary in slices ---------------------------------------------------------------------------------------- */

/*
 * Where a row of logits lies in slices on several ranks, it is sampled there. Every slice is looked at by itself and says a part of a few words;
 * the parts of all together give the token and the log-probabilities of the whole row, to the bit, or what is asked next. sample_next
 * is the same thing with one slice. Rounds, in this order, those that a want needs:
 *
 *   MAXIMA  the greatest logit of all: log-probabilities, min-p and top-p refer to it
 *   MASS    top-p: how many tokens down to some values, and their probability; asked again for lower ones until p is reached
 *   PICK    the candidates: a slice's best token, the winner of its noise, its k best, or all of a nucleus; sums for log-probabilities
 *
 * Only PICK is not of interest to all slices: who puts it together alone knows the result. Where the candidates would be more than
 * SAMPLE_CUT_CANDIDATES of a slice the row is to be brought together instead (WHOLE).
 * Parts are 32-bit words as they lie in memory. They come from other machines: sample_cut_hear checks all of them.
 */
enum { SAMPLE_CUT_SLICES = 64, SAMPLE_CUT_CANDIDATES = 1024 };

enum { SAMPLE_BANNED = 1, SAMPLE_REPEATED = 2 /* in the window of the repetition penalty */ };

typedef struct sample_edit {
    int32_t token;
    uint32_t how;
    float bias;
    int32_t generated; /* times */
} sample_edit;

/* All that has to be known about a sampler to look at one row. */
typedef struct sample_want {
    uint64_t seed;
    int64_t position;
    int choice, top_logprobs; /* as in sample_call */
    float temperature;
    int top_k;
    float top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    bool scores; /* nothing is chosen: what is told of `token`, as by sample_score */
    int32_t token;
    int n_edits;
    const sample_edit
        *edits;              /* the last one of a token counts; tokens of other slices do no harm */
    const uint64_t *allowed; /* from the word of the slice's first token on; NULL = all */
} sample_want;

/* What sample_next would do, after n_ahead more tokens had been accepted. Valid until s is used again; allowed is borrowed from c. */
void sample_describe(sample_want *out, sample *s, const sample_call *c, const int32_t *ahead,
                     int n_ahead);

typedef enum sample_cut_round {
    SAMPLE_CUT_MAXIMA,
    SAMPLE_CUT_MASS,
    SAMPLE_CUT_PICK,
    SAMPLE_CUT_OVER,
    SAMPLE_CUT_WHOLE
} sample_cut_round;

/* How far a row has come. Flat, the caller's memory; the same for all slices until PICK. */
typedef struct sample_cut {
    const sample_want *want; /* borrowed */
    const int32_t *borders; /* [n_slices + 1] ids, rising, multiples of 16 but the last; borrowed */
    int n_slices;
    sample_cut_round round;
    bool seen; /* MAXIMA are over */
    int asked; /* MASS: how often */
    float max, raw_max, floor;
    double target;
    int32_t counts[SAMPLE_CUT_SLICES]; /* of candidates, once they are known */
    int fault;
    int32_t fault_token;
    sample_result result;
} sample_cut;

void sample_cut_begin(sample_cut *c, const sample_want *w, const int32_t *borders, int n_slices);
/* Length of slice i's part in this round. */
size_t sample_cut_words(const sample_cut *c, int i);
/* Slice i's part: logits [its width]. w's vocabulary is at least that. */
void sample_cut_look(const sample_cut *c, sample_scratch *w, const kernel_table *k,
                     const float *logits, int i, uint32_t *words);
/* The parts of all slices, [n_slices]: c goes on to its next round. In PICK w's vocabulary is the whole one. CORRUPT: a part cannot be; c is not
 * to be used any more. */
status sample_cut_hear(sample_cut *c, sample_scratch *w, const uint32_t *const *words, err *e);
/* Of a row that is here as a whole, [the last border] logits: all rounds at once. c's want knows all edits and the mask of the whole row. */
void sample_cut_whole(sample_cut *c, sample_scratch *w, const kernel_table *k, const float *logits);
/* Of one that is OVER, as sample_next. */
status sample_cut_result(const sample_cut *c, sample_result *out, err *e);
/* The result (or that there is none), as words, for who did not hear the parts; [sample_cut_result_words]. */
size_t sample_cut_result_words(const sample_want *w);
void sample_cut_put(const sample_cut *c, uint32_t *words);
status sample_cut_get(sample_cut *c, const uint32_t *words, err *e);

/* The noise itself: standard Gumbel, within −3.2..22.9. */
double sample_noise(uint64_t seed, int choice, int64_t position, int32_t token);

/* ---- grammars ------------------------------------------------------------------------------------------------------ */

/*
 * A text held to a form: masks of the tokens that may come next, a function of the text so far. The form is a spec in JSON:
 *   {"text": "…"}              these bytes
 *   {"schema": {…}}            JSON that fits a JSON schema (see schema.c for what is known of it)
 *   {"blank": true}            little white space, or none
 *   {"sequence": [spec, …]}, {"choice": [spec, …]}
 *   {"repeat": spec, "between": "…", "most": n}    1 to n times
 *   {"until": "marker"}        any text up to and with the marker
 *   {"free": "marker", "then": spec, "not_first": "bytes"}   any text that may end anywhere; behind each marker comes spec
 * Whatever a grammar lets through as {"schema"} parses and fits. Grammars come from clients: everything has a limit (see grammar.c).
 *
 * Threads: a grammar, its guides and masks belong to one thread; sample_tokens is immutable.
 */
typedef struct sample_tokens sample_tokens; /* a vocabulary in sorted order */
/* t is borrowed until destroy. Special tokens are not text. */
status sample_tokens_create(sample_tokens **out, const text_tokenizer *t, int vocabulary, err *e);
void sample_tokens_destroy(sample_tokens *s);

/* INVALID says where in the schema and which keyword. */
status sample_grammar_check(str spec, err *e);

typedef struct sample_grammar sample_grammar;
/* ends: may come where the text may end. shown: special tokens that count as their text (markers of tool calls). */
status sample_grammar_create(sample_grammar **out, str spec, const sample_tokens *t,
                             const int32_t *ends, int n_ends, const int32_t *shown, int n_shown,
                             err *e);
void sample_grammar_destroy(sample_grammar *g);

typedef struct sample_guide sample_guide; /* one text on its way through a grammar; borrows it */
status sample_guide_create(sample_guide **out, sample_grammar *g, err *e);
void sample_guide_destroy(sample_guide *d);
/* For sample_call.allowed; valid until the next call about this grammar. TOO_LARGE: too many ways are open at once. */
status sample_guide_mask(sample_guide *d, const uint64_t **out, err *e);
status sample_guide_accept(sample_guide *d, int32_t token,
                           err *e); /* one that the mask allowed, no end */
/* Going back to where it was: to look some tokens ahead. */
typedef struct sample_mark {
    unsigned generation;
    int32_t at;
    size_t length;
} sample_mark;
sample_mark sample_guide_mark(const sample_guide *d);
void sample_guide_back(sample_guide *d, sample_mark to);
bool sample_guide_may_end(sample_guide *d);
bool sample_guide_is_over(sample_guide *d); /* nothing more may come */

/* ---- stop strings -------------------------------------------------------------------------------------------------- */

/* Finds the first of several strings in a text that comes in pieces. Bytes are passed on as soon as they cannot belong to a stop string:
 * what is held back is the longest end of the text that begins one. The match that ends first counts, of those the longest. */
typedef struct sample_stop sample_stop;

enum { SAMPLE_STOP_BYTES = 1 << 20 }; /* of all strings together */

/* Strings are copied; INVALID for an empty one. n may be 0: everything passes. */
status sample_stop_create(sample_stop **out, const str *strings, int n, err *e);
void sample_stop_destroy(sample_stop *s);
/* Appends to text what may be shown. Returns the index of the string that was found (bytes before it were appended, the rest is dropped,
 * further calls pass nothing and return the same), or −1. Never allocates but in `text`. */
int sample_stop_feed(sample_stop *s, const char *bytes, size_t n, sb *text);
/* The text has ended otherwise: appends what was held back. */
void sample_stop_flush(sample_stop *s, sb *text);
size_t sample_stop_held(const sample_stop *s); /* bytes held back now */

#endif
