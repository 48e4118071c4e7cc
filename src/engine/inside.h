/* What engine.c (who is there), batch.c and ask.c (steps) and switch.c (from one epoch to the next) share: an engine and its sequences. Private; one thread. */
#ifndef SHOAL_ENGINE_INSIDE_H
#define SHOAL_ENGINE_INSIDE_H

#include "engine/draft.h"
#include "engine/engine.h"
#include "engine/guides.h"

typedef struct request {
    engine_request r; /* arrays owned */
    int32_t *prompt, *end, *banned, *shown;
    char *grammar;
    sample_grammar *form; /* of r.grammar, from the beginning on */
    engine_guides *forms; /* whose it is */
    int n_scored;         /* tokens of the prompt whose log-probability was told */
    sample_bias *bias;
    int n_live; /* choices not done, begun or not */
    int n_cached;
    bool started, held;   /* held: before it began */
    struct request *next; /* in the queue of those not yet begun */
} request;

typedef struct sequence {
    request *of;
    int choice;
    uint64_t age; /* order of beginning; kept when it gives up its state */
    int32_t *tokens;
    int n_tokens, capacity, n_prompt;
    engine_state *state; /* NULL while waiting */
    int side;            /* where it is: engine.at */
    engine_state *twin;  /* beside a state on the old side: how far the new one has been read */
    sample *sampler;
    sample_guide *guide; /* NULL: free */
    bool held, cancelled;
    bool in_turn; /* it decodes in the step being made */
    struct flight *
        flying; /* the step whose rows it waits for: it is in no other until they are there; NULL: in none */
    int n_run, output;       /* in the step being made, or flying: tokens, row of logits or −1 */
    draft_sequence *guesses; /* NULL: none are made */
    int n_draft;             /* of n_run: guesses, behind the newest token in `tokens` */
    int n_drafted, n_accepted;
    bool scored; /* of this step's run every row is an output */
    double *sum; /* [width] rows added so far, of embedding requests that pool them all */
    struct sequence *next;
} sequence;

/* An epoch that sequences live in. */
typedef struct side {
    model *m;
    engine_pool *pool;
} side;

/* A step: being made, or under way. Runs without rows have been committed when it started; theirs who waits for rows are when they come. */
typedef struct flight {
    int n_tokens, n_runs, n_outputs;
    int32_t *ids;               /* [max_tokens] */
    model_run *runs;            /* [max_tokens]; what they point to is for the start only */
    sequence **run_of;          /* [max_tokens]; NULL: it is gone, or done with */
    float *logits;              /* [max_outputs, width] */
    struct engine_group *group; /* that samples the rows; NULL: they are here */
    int *answer; /* [max_outputs] number of the first answer about a row; −1: the row is here */
    uint64_t begun_us;
    status result; /* of what followed the start */
    err why;
} flight;

struct engine {
    side at[2]; /* [1]: while sequences move there, else empty */
    int now;    /* which one a step is being made for */
    status switch_failed;
    err switch_error;
    engine_options o;
    engine_sink sink;
    void *context;
    int64_t positions; /* context of a sequence */
    int n_vocab, max_tokens, max_outputs;
    int64_t width;         /* of a row: n_vocab; of embedding models D */
    model_pooling pooling; /* not NONE: every request wants a vector */
    bool both_ways;        /* texts are read in one step */
    float *vector;         /* [width] */
    double *one_row;       /* [width] */
    request *first_waiting, **last_waiting;
    int n_waiting;
    sequence *sequences; /* by age: live ones, and those that gave up their state */
    int n_sequences;     /* in the list, and choices that a begun request has yet to fork */
    uint64_t next_age;
    engine_stats stats;
    /* the step */
    flight flights[MODEL_MOST_FLIGHTS]; /* a ring of n_rooms */
    int n_rooms, first_flight, n_flights;
    uint64_t finished_us; /* when the last one was */
    int32_t *outputs;     /* [max_outputs] of the step being made */
    draft *draft;         /* NULL: no speculation */
    draft_call *calls;    /* [max_sequences] */
    const kernel_table *kernels;
    engine_guides *guides;
    sample_scratch *scratch;
    sample_result result;
};

/* Whether q has state on the side at hand. */
static inline bool is_here(const engine *g, const sequence *q)
{
    return q->state && q->side == g->now;
}

static inline bool is_alone(const engine *g, const sequence *q)
{
    for (const sequence *other = g->sequences; other; other = other->next)
        if (other != q && is_here(g, other))
            return false;
    return true;
}

/* Whether pages of q are worth something to others. Where every row counts, or sees what comes behind it, they are not. */
static inline bool reuses(const engine *g, const sequence *q)
{
    bool rows = g->both_ways || g->pooling == MODEL_POOLING_MEAN || g->pooling == MODEL_POOLING_CLS;
    return !g->o.no_cache && !q->of->r.no_reuse && !rows;
}

static inline int64_t pending(const sequence *q)
{
    return q->n_tokens - engine_state_length(q->state);
}

static inline int engine_emitted(const sequence *q)
{
    return q->n_tokens - q->n_prompt;
}

/* Whether rows of the prompt are still to be looked at for log-probabilities. */
static inline bool engine_scores(const sequence *q)
{
    return q->of->r.score_prompt && q->choice == 0 && q->of->n_scored < q->n_prompt - 1;
}

/* Whether q's run of n is its newest token and guesses behind it. */
static inline bool engine_is_guessed(const engine *g, const sequence *q, int n)
{
    return g->draft && n == 1 + q->n_draft && engine_emitted(q) > 0;
}

/* Of cached prefixes: what may not be mixed up. */
uint64_t engine_pool_salt(const model *m);
/* It will be read again. */
void engine_give_up_state(engine *g, sequence *q);

void engine_send_done(engine *g, const request *r, int choice, int n_emitted, engine_reason reason,
                      const err *why);
/* q's DONE; q is gone. */
void engine_finish(engine *g, sequence *q, int n_emitted, engine_reason reason, const err *why);
status engine_new_sequence(sequence **out, engine *g, request *r, int choice, const int32_t *tokens,
                           int n, err *e);
void engine_insert(engine *g, sequence *q); /* into the list, by age */

/* ---- batch.c ---- */
/* Room for as many steps under way as m may have. None are under way. */
status engine_make_flights(engine *g, const model *m, err *e);
void engine_free_flights(engine *g);
/* A step of the side at hand: starts it, or finishes the oldest, or both. */
status engine_step_side(engine *g, err *e);
/* q is going. */
void engine_forget(engine *g, const sequence *q);

/* ---- ask.c ---- */
/* Of f's rows, before the step starts. */
void engine_ask(engine *g, flight *f);
/* After it: the answer about a row, for the choice-th of those that were asked for. False: the row is in f->logits. */
bool engine_answer(const flight *f, int row, int choice, sample_result *out, status *s, err *e);

/* ---- switch.c ---- */
/* Sequences of the old side are read again on the new one, oldest first, out of the budget of a step. */
void engine_plan_twins(engine *g, flight *f, int *budget);
/* After a step: who has caught up is on the new side from here on; nobody left on the old one: it is done with. */
void engine_move_sequences(engine *g);

#endif
