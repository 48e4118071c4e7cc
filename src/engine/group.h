/* Inside of a group, between group.c (life, links), step.c (what ranks tell each other about a step) and sampling.c (about its rows). See ranks.h. */
#ifndef SHOAL_ENGINE_GROUP_H
#define SHOAL_ENGINE_GROUP_H

#include "engine/ranks.h"

/* What takes so long in the quick takes so much longer under sanitizers. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GROUP_SLOWNESS 10
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define GROUP_SLOWNESS 10
#endif
#endif
#ifndef GROUP_SLOWNESS
#define GROUP_SLOWNESS 1
#endif

/*
 * An announcement is an array of 32-bit words, little-endian:
 *
 *   n_words kind n_copies n_tokens n_runs n_outputs n_whole n_asks
 *   copies  [n_copies] of (class, from, to)
 *   ids     [n_tokens], outputs [n_outputs]
 *   runs    [n_runs] of (n_tokens, position, slot [classes], n_pages [classes], then the pages of all classes)
 *   whole   [n_whole] rows that go to the leader as they are, rising; n_whole −1: all, and there are no asks
 *   asks    [n_asks] of GROUP_ASK words: row choice seed(2) position(2) temperature top_k top_p min_p repetition presence frequency
 *           top_logprobs bits token; bits: 1 a mask, 2 scores
 *   lists   where there are asks, for every rank of the last stage: words of the message with its edits and masks behind this; 0 = none
 *
 * Copies are made before the step. It goes out as a frame of FIRST words and, when it is longer, one with the rest.
 */
enum {
    GROUP_FIRST = 256,
    GROUP_HEAD = 8,
    GROUP_ASK = 16,
    GROUP_COPIES = 1024,   /* kept until the next announcement */
    GROUP_DESCRIPTORS = 16 /* of a place, in one message behind JOIN */
};
typedef enum group_kind {
    GROUP_STEP = 1,
    GROUP_END = 2,
    GROUP_TURN = 3,    /* whoever is in the next epoch too hears one announcement of that */
    GROUP_PREPARE = 4, /* term number node(2) paused n_ranks: of the next epoch */
    GROUP_SLICE = 5,   /* load a piece of it */
    GROUP_CANCEL = 6,  /* it is given up */
    GROUP_BEAT = 7 /* milliseconds: within which another announcement comes; answered with a word */
} group_kind;

typedef struct group_copy {
    int32_t state_class, from, to;
} group_copy;

/* What is wanted of the rows of one step (sampling.c). */
typedef struct group_asks {
    bool all;              /* all rows as they are, nothing else */
    int n, n_whole;        /* ≤ most, ≤ max_outputs */
    int32_t *row;          /* [most] */
    sample_want *want;     /* [most] as the own slice sees them */
    const uint64_t **mask; /* [most] of the first slice that its `bits` have; NULL: none */
    sample_cut *cut;       /* [most] */
    int32_t *whole;        /* [max_outputs] */
    int n_edits, n_bits;   /* ≤ most_edits, most_bits */
    sample_edit *edits;
    uint64_t *bits;
    uint32_t *results; /* [most, most words of a result]; in a pipeline */
} group_asks;

/* A step whose rows have not come back to the leader. */
typedef struct group_flight {
    link_op *op, *results_op; /* NULL: nothing comes */
    float *logits;
    float *rows;  /* [max_outputs, V] slices as they come; NULL: the last stage is one rank */
    int32_t done; /* of a step without rows: a word from the last stage */
    group_asks asks;
} group_flight;

/* What a rank of the last stage, or a leader, samples with. */
typedef struct group_sampling {
    int most; /* asks of a step */
    int most_edits, most_bits;
    int32_t *borders; /* [n_tensor + 1] of the vocabulary */
    const kernel_table *kernels;
    sample_scratch *scratch;
    int *turn;        /* [most] asks of a round */
    uint32_t *parts;  /* [n_tensor, PART_WORDS] */
    uint64_t *list;   /* [most_list] a message of edits and masks */
    size_t most_list; /* in words of 32 bits */
    float *row;       /* [V] the root's */
} group_sampling;

struct engine_group {
    engine_place place;
    int n_ranks, n_tensor, stage, index; /* index: of this rank in its stage */
    model_shard shards[ENGINE_MOST_RANKS];
    link_group *all,
        *in_stage; /* the same one when there is one stage; in_stage NULL when it is of one rank */
    model *m;      /* borrowed */
    bool failed;
    uint64_t deadline_us; /* of a step */
    uint64_t said_us;     /* a leader's: its last announcement */
    uint64_t
        patience_us;     /* a follower's: for the next one; 0 = for ever, as no BEAT has come yet */
    engine_group *older; /* a leader's, while it lives: of the epoch before; borrowed */
    int n_classes;
    int64_t n_vocab;
    int32_t *words; /* [capacity] the announcement at hand */
    size_t capacity;
    model_run *runs;                 /* [n_sequences], a follower's */
    group_copy copies[GROUP_COPIES]; /* a leader's, not announced yet */
    int n_copies;
    group_flight flights
        [MODEL_MOST_FLIGHTS]; /* a leader's: a ring of model_most_flights; others use the first */
    int first_flight, n_flights;
    const group_flight *back; /* the one that came back last */
    group_sampling sampling;
};

typedef struct group_cursor {
    const int32_t *at, *end;
    bool bad;
} group_cursor;
const int32_t *group_take(group_cursor *c, int64_t n);
status group_noted(engine_group *g, status s);   /* a group that failed stays so */
status group_why(const engine_group *g, err *e); /* of one that failed: never OK */

/* The place of a rank, without its links and its secret. */
void group_place(engine_place *out, const engine_team_options *o, int rank);
/* Opens the links of a rank whose model is loaded; the first half of engine_group_join, which does not wait. */
status group_connect(engine_group *g, model *m, err *e);
/* Fills the callbacks of a model's exchange. */
void group_exchange(engine_group *g, model_exchange *x);
/* Memory for steps of g->m. */
status group_make_room(engine_group *g, err *e);
status group_announce_end(engine_group *g, err *e);
/* The leader says kind and words[n] (behind the head). Copies that wait go with the next step. */
status group_announce(engine_group *g, group_kind kind, const int32_t *words, size_t n, err *e);
/* A follower: the next announcement, into g->words; and the step that it says. */
status group_hear(engine_group *g, err *e);
status group_do_step(engine_group *g, err *e);
/* A follower has heard a BEAT. */
status group_answer_beat(engine_group *g, err *e);
/* Ends the group for everyone, as far as it has not ended by itself; returns s. */
status group_broken(engine_group *g, status s, const char *why);
/* Peers that wait for a place's links learn that nobody will come. Takes the place. */
void group_refuse(engine_place *place);

/* ---- sampling.c ---- */
/* The asks of the step at hand: a leader's next one; a follower's only one. */
group_asks *group_asks_at_hand(engine_group *g);
status group_sampling_make_room(engine_group *g, err *e);
void group_sampling_free(engine_group *g);
size_t group_asks_words(const engine_group *g); /* of an announcement, at most */
/* The leader: into g->words from n on (→ the end), and after that was said the messages with lists. */
size_t group_asks_put(engine_group *g, size_t n);
status group_asks_send(engine_group *g, err *e);
/* A follower: out of the announcement at c, and the message. */
status group_asks_hear(engine_group *g, group_cursor *c, int n_outputs, err *e);
/* The last stage: samples. rows: [n, own slice]. */
status group_sample(engine_group *g, group_asks *a, const float *rows, err *e);
/* In a pipeline: words of the results; the last stage's first rank writes them, the leader takes them. */
size_t group_results_words(const group_asks *a);
void group_results_put(group_asks *a);
status group_results_take(group_asks *a, err *e);

#endif
