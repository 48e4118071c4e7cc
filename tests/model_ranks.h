/*
 * For tests that cut models: ranks are threads that exchange through memory. Sums add in order of arrival, so an order that matters would
 * show; where ranks divide rows, what is another's is made NaN, so reading it would show too. A cut is run over a prompt, and its ranks'
 * logits are put together.
 */
#ifndef SHOAL_TESTS_MODEL_RANKS_H
#define SHOAL_TESTS_MODEL_RANKS_H

#include "model_run.h"
#include "os/os.h"

#include <math.h>

enum { PROMPT = 90, MOST_RANKS = 8, ROUNDS = 3 };

/* ---- ranks that talk through memory -------------------------------------------------------------------------------- */

/* The ranks of one stage. */
typedef struct meeting {
    os_mutex *lock;
    os_cond *moved;
    int n, arrived, left;
    bool broken;
    double *total;
    size_t capacity;
} meeting;

/* From a stage to the next, which may have other ranks: the first rank of one writes, every rank of the other reads. */
typedef struct pipe_end {
    os_mutex *lock;
    os_cond *moved;
    float *rows;
    int64_t n;
    int readers, unread, number; /* number: of the message */
} pipe_end;

typedef struct rank {
    model *m;
    model_options o;
    meeting *stage;
    pipe_end *from, *to; /* NULL = first, last stage */
    bool writes;
    int read;      /* messages */
    float *logits; /* [PROMPT, its share] */
    os_thread *thread;
} rank;

static inline status sum(void *context, double *values, int64_t n, err *e)
{
    meeting *s = ((rank *)context)->stage;
    (void)e;
    os_mutex_lock(s->lock);
    while (s->left > 0) /* the last round is still being read */
        os_cond_wait(s->moved, s->lock);
    if (s->arrived == 0)
        memset(s->total, 0, (size_t)n * sizeof(double));
    for (int64_t i = 0; i < n; i++)
        s->total[i] += values[i];
    if (++s->arrived == s->n) {
        s->left = s->n;
        os_cond_broadcast(s->moved);
    }
    while (s->left == 0)
        os_cond_wait(s->moved, s->lock);
    memcpy(values, s->total, (size_t)n * sizeof(double));
    if (--s->left == 0) {
        s->arrived = 0;
        os_cond_broadcast(s->moved);
    }
    os_mutex_unlock(s->lock);
    return STATUS_OK;
}

static inline status scatter(void *context, double *values, const size_t *parts, err *e)
{
    const rank *r = context;
    size_t n = 0, begin = 0;
    for (int i = 0; i < r->stage->n; i++) {
        begin += i < r->o.exchange.index ? parts[i] : 0;
        n += parts[i];
    }
    status s = sum(context, values, (int64_t)n, e);
    for (size_t i = 0; i < n; i++)
        if (i < begin || i >= begin + parts[r->o.exchange.index])
            values[i] = NAN;
    return s;
}

/* By way of a sum: of own bytes and zeros. */
static inline status share_rows(void *context, void *rows, const size_t *parts, err *e)
{
    const rank *r = context;
    unsigned char *bytes = rows;
    size_t n = 0, begin = 0;
    for (int i = 0; i < r->stage->n; i++) {
        begin += i < r->o.exchange.index ? parts[i] : 0;
        n += parts[i];
    }
    double *as_values = malloc(sizeof(double) * n);
    for (size_t i = 0; i < n; i++)
        as_values[i] = i >= begin && i < begin + parts[r->o.exchange.index] ? bytes[i] : 0.0;
    status s = sum(context, as_values, (int64_t)n, e);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)as_values[i];
    free(as_values);
    return s;
}

/* Some steps are, some are not; a single row has one owner. */
static inline bool divides(void *context, int64_t n_rows, int64_t width)
{
    (void)context;
    (void)width;
    return n_rows != 5;
}

static inline status hand_on(void *context, const float *rows, int64_t n, err *e)
{
    rank *r = context;
    (void)e;
    if (!r->writes)
        return STATUS_OK;
    os_mutex_lock(r->to->lock);
    while (r->to->unread > 0)
        os_cond_wait(r->to->moved, r->to->lock);
    memcpy(r->to->rows, rows, (size_t)n * sizeof(float));
    r->to->n = n;
    r->to->number++;
    r->to->unread = r->to->readers;
    os_cond_broadcast(r->to->moved);
    os_mutex_unlock(r->to->lock);
    return STATUS_OK;
}

/* Every reader takes each message once. */
static inline status take_over(void *context, float *rows, int64_t n, err *e)
{
    rank *r = context;
    (void)e;
    os_mutex_lock(r->from->lock);
    while (r->from->number == r->read)
        os_cond_wait(r->from->moved, r->from->lock);
    r->read++;
    memcpy(rows, r->from->rows, (size_t)BASE_MIN(n, r->from->n) * sizeof(float));
    r->from->unread--;
    os_cond_broadcast(r->from->moved);
    os_mutex_unlock(r->from->lock);
    return STATUS_OK;
}

/* ---- one model, whole or cut --------------------------------------------------------------------------------------- */

typedef struct cut {
    const char *name;
    int stages;
    int64_t layers[4]; /* where stages end */
    int ranks;         /* of every stage */
    /* where shares end, in units of model_cut_units (vocabulary: 16) out of what there is; 0 = evenly */
    int64_t heads[MOST_RANKS], ffn[MOST_RANKS], vocabulary[MOST_RANKS];
} cut;

/* What tests try; given borders are written + 1. */
enum { CUTS_TO_CHANGE = 8 }; /* the first, which are also changed into each other */
static const cut model_cuts[] = {
    {.name = "whole", .stages = 1, .ranks = 1},
    {.name = "tp2", .stages = 1, .ranks = 2},
    {.name = "tp3, 5:2:1",
     .stages = 1,
     .ranks = 3,
     .heads = {3, 4},
     .ffn = {2, 3},
     .vocabulary = {4, 6}},
    {.name = "tp3, 1:1:1", .stages = 1, .ranks = 3},
    {.name = "tp2, one without heads, the other without feed-forward",
     .stages = 1,
     .ranks = 2,
     .heads = {1},
     .ffn = {1000},
     .vocabulary = {1}},
    {.name = "pp2", .stages = 2, .layers = {1}, .ranks = 1},
    {.name = "pp3", .stages = 3, .layers = {1, 2}, .ranks = 1},
    {.name = "tp2 x pp2", .stages = 2, .layers = {2}, .ranks = 2},
    {.name = "tp4", .stages = 1, .ranks = 4},
    {.name = "tp8, more ranks than units", .stages = 1, .ranks = 8},
    {.name = "pp3 uneven", .stages = 3, .layers = {2, 3}, .ranks = 1},
};

/* Has the model a layer for the last stage? */
static inline bool cut_fits(const cut *c, const model_card *card)
{
    return c->stages == 1 || c->layers[c->stages - 2] < card->n_layers;
}

static inline void random_ids(int32_t *ids, int n, int64_t V)
{
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)(hash_u64((uint64_t)i, 4711) % (uint64_t)V);
}

static inline void run_prompt(void *context)
{
    rank *r = context;
    const int chunks[] = {1, 33, 5, PROMPT};
    int64_t width = model_n_logits(r->m);
    int32_t ids[PROMPT];
    float *rows = malloc(sizeof(float) * (size_t)(PROMPT * (width ? width : 1)));
    random_ids(ids, PROMPT, model_get_card(r->m)->n_vocab);
    run_pool pool = {0};
    run_sequence s;
    run_sequence_init(&s, &pool);
    int at = 0;
    for (size_t k = 0; at < PROMPT; k++) {
        int n = BASE_MIN(chunks[k % BASE_COUNT(chunks)], PROMPT - at);
        int32_t outputs[PROMPT];
        for (int i = 0; i < n; i++)
            outputs[i] = i;
        model_run run = run_of(r->m, &pool, &s, n);
        model_batch b = {n, ids + at, 1, &run, n, outputs};
        err e = {0};
        must(model_step(r->m, &b, rows, &e), &e);
        if (width)
            memcpy(r->logits + at * width, rows, sizeof(float) * (size_t)(n * width));
        s.position += n;
        at += n;
    }
    free(rows);
}

/* A model that is to be cut, its units, and what it says when it is whole. */
typedef struct subject {
    const char *name, *bytes;
    size_t n_bytes;
    model_options o; /* of the whole one, and the beginning of a rank's */
    file_model *f;
    model_card *card;
    model_cut_units units;
    uint64_t read_bytes; /* for the whole one */
    float *logits;       /* [PROMPT, V] */
} subject;

static inline void subject_open(subject *s, const char *name, const char *bytes, size_t n_bytes,
                                bool exact)
{
    *s = (subject){.name = name,
                   .bytes = bytes,
                   .n_bytes = n_bytes,
                   .o = {.n_threads = 1,
                         .exact = exact,
                         .context = 256,
                         .state_tokens = 1024,
                         .n_sequences = 4,
                         .max_tokens = PROMPT,
                         .max_outputs = PROMPT}};
    err e = {0};
    must(file_open_memory(&s->f, bytes, n_bytes, name, &e), &e);
    must(model_card_read(&s->card, s->f, &e), &e);
    must(model_get_cut_units(&s->units, s->f, &e), &e);
    rank whole = {.o = s->o, .m = run_load_bytes(bytes, n_bytes, &s->o)};
    s->read_bytes = model_read_bytes(whole.m);
    s->logits = whole.logits = malloc(sizeof(float) * (size_t)(PROMPT * s->card->n_vocab));
    run_prompt(&whole);
    model_destroy(whole.m);
}

/* The same, bit for bit; frees what was computed. */
static inline void subject_compare(const subject *s, float *logits, const char *from,
                                   const char *to, int way)
{
    int64_t V = s->card->n_vocab;
    for (int64_t k = 0; k < PROMPT * V; k++)
        if (memcmp(&logits[k], &s->logits[k], sizeof(float)))
            fail_msg("%s, %s to %s, way %d: row %d, logit %d is %.9g, expected %.9g", s->name, from,
                     to, way, (int)(k / V), (int)(k % V), (double)logits[k], (double)s->logits[k]);
    free(logits);
}

static inline void subject_close(subject *s)
{
    free(s->logits);
    model_card_destroy(s->card);
    file_close(s->f);
}

static inline int64_t border(const int64_t *given, int i, int n, int64_t units)
{
    if (i == 0)
        return 0;
    if (i == n)
        return units;
    return given[i - 1] ? BASE_MIN(given[i - 1] - 1, units)
                        : units * i / n; /* given + 1, so that 0 can be said */
}

static inline model_shard shard_of(const cut *c, int stage, int k, const model_card *card,
                                   const model_cut_units *u)
{
    int64_t H = (card->n_heads + u->heads - 1) / u->heads, F = (card->d_ff + u->ffn - 1) / u->ffn,
            V = (card->n_vocab + 15) / 16;
    int64_t b[6] = {
        border(c->heads, k, c->ranks, H),      border(c->heads, k + 1, c->ranks, H),
        border(c->ffn, k, c->ranks, F),        border(c->ffn, k + 1, c->ranks, F),
        border(c->vocabulary, k, c->ranks, V), border(c->vocabulary, k + 1, c->ranks, V)};
    return (model_shard){
        .cut = true,
        .tensor_ranks = c->ranks,
        .layer_begin = stage ? c->layers[stage - 1] : 0,
        .layer_end = stage + 1 < c->stages ? c->layers[stage] : card->n_layers,
        .head_begin = BASE_MIN(b[0] * u->heads, card->n_heads),
        .head_end = BASE_MIN(b[1] * u->heads, card->n_heads),
        .ffn_begin = BASE_MIN(b[2] * u->ffn, card->d_ff),
        .ffn_end = BASE_MIN(b[3] * u->ffn, card->d_ff),
        .vocab_begin = BASE_MIN(b[4] * 16, card->n_vocab),
        .vocab_end = BASE_MIN(b[5] * 16, card->n_vocab),
    };
}

static inline void make_lock(os_mutex **lock, os_cond **moved)
{
    err e = {0};
    must(os_mutex_create(lock, &e), &e);
    must(os_cond_create(moved, &e), &e);
}

/* How a rank gets its model. r->o is complete; number: stage · ranks + place. */
typedef model *rank_maker(void *context, const model_options *o, int number);

/* The logits of the whole prompt, put together from the last stage's ranks. make NULL: loaded. Ranks divide rows where base->exchange.divides is
 * set. */
static inline float *run_cut(const cut *c, const subject *of, const model_options *base,
                             rank_maker *make, void *context)
{
    const model_card *card = of->card;
    static rank ranks[4][MOST_RANKS];
    static meeting meetings[4];
    static pipe_end pipes[4];
    err e = {0};
    for (int s = 0; s < c->stages; s++) {
        make_lock(&meetings[s].lock, &meetings[s].moved);
        meetings[s].n = c->ranks;
        meetings[s].total = malloc(sizeof(double) * (size_t)(PROMPT * (card->d_model + 32) * 5));
        make_lock(&pipes[s].lock, &pipes[s].moved);
        pipes[s].rows = malloc(sizeof(float) * (size_t)(PROMPT * card->d_model));
        pipes[s].readers = c->ranks;
        for (int k = 0; k < c->ranks; k++) {
            rank *r = &ranks[s][k];
            *r = (rank){.stage = &meetings[s],
                        .from = s ? &pipes[s - 1] : NULL,
                        .to = &pipes[s],
                        .writes = k == 0,
                        .o = *base};
            r->o.shard = shard_of(c, s, k, card, &of->units);
            r->o.exchange = (model_exchange){.sum = sum,
                                             .divides = base->exchange.divides,
                                             .scatter = scatter,
                                             .share_rows = share_rows,
                                             .index = k,
                                             .receive = take_over,
                                             .send = hand_on,
                                             .context = r};
            r->m = make ? make(context, &r->o, s * c->ranks + k)
                        : run_load_bytes(of->bytes, of->n_bytes, &r->o);
            int64_t width = model_n_logits(r->m);
            assert_int_equal(
                width, s + 1 == c->stages ? r->o.shard.vocab_end - r->o.shard.vocab_begin : 0);
            r->logits = malloc(sizeof(float) * (size_t)(PROMPT * width + 1));
        }
    }
    for (int s = 0; s < c->stages; s++)
        for (int k = 0; k < c->ranks; k++)
            must(os_thread_create(&ranks[s][k].thread, run_prompt, &ranks[s][k], "rank", &e), &e);
    float *logits = malloc(sizeof(float) * (size_t)(PROMPT * card->n_vocab));
    for (int s = 0; s < c->stages; s++)
        for (int k = 0; k < c->ranks; k++)
            os_thread_join(ranks[s][k].thread);
    for (int s = 0; s < c->stages; s++) {
        for (int k = 0; k < c->ranks; k++) {
            rank *r = &ranks[s][k];
            int64_t width = model_n_logits(r->m);
            for (int i = 0; i < PROMPT && width; i++)
                memcpy(logits + i * card->n_vocab + r->o.shard.vocab_begin, r->logits + i * width,
                       sizeof(float) * (size_t)width);
            free(r->logits);
            model_destroy(r->m);
        }
        os_mutex_destroy(meetings[s].lock);
        os_cond_destroy(meetings[s].moved);
        os_mutex_destroy(pipes[s].lock);
        os_cond_destroy(pipes[s].moved);
        free(meetings[s].total);
        free(pipes[s].rows);
        memset(&meetings[s], 0, sizeof meetings[s]);
        memset(&pipes[s], 0, sizeof pipes[s]);
    }
    return logits;
}

#endif
