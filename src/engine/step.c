/*
 * What ranks tell each other about a step: the leader's announcement, sums, streams between stages, rows of logits. A follower's loop around
 * them is in epochs.c. Everything is allocated when the group is joined. Numbers from the leader are checked as if it were a stranger.
 */
#include "engine/group.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "announcements and streams travel as they lie in memory: little-endian"
#endif

_Static_assert(2 * (int)MODEL_MOST_FLIGHTS + 4 <= LINK_MAX_OPS, "every flight has two ops");

status group_broken(engine_group *g, status s, const char *why)
{
    g->failed = true;
    if (g->all)
        link_group_abort(g->all, s, why);
    if (g->in_stage && g->in_stage != g->all)
        link_group_abort(g->in_stage, s, why);
    if (g->all)
        (void)link_group_progress(g->all);
    if (g->in_stage && g->in_stage != g->all)
        (void)link_group_progress(g->in_stage);
    return s;
}

status group_noted(engine_group *g, status s)
{
    g->failed |= s != STATUS_OK;
    return s;
}

status group_why(const engine_group *g, err *e)
{
    status s = g->all ? link_group_status(g->all, e) : STATUS_OK;
    if (s == STATUS_OK && g->in_stage)
        s = link_group_status(g->in_stage, e);
    if (s == STATUS_OK) /* it was no link: a step, or what a peer said */
        s = err_set(e, STATUS_CANCELLED, "the group of rank %d of %d has failed before",
                    g->place.rank, g->n_ranks);
    return s;
}

status group_make_room(engine_group *g, err *e)
{
    const model_options *o = model_get_options(g->m);
    size_t runs = (size_t)o->n_sequences, pages = (size_t)(o->context / 64 + 2);
    size_t each = 2 + (size_t)g->n_classes * (2 + pages);
    g->capacity = GROUP_HEAD + 3 * (size_t)GROUP_COPIES + (size_t)o->max_tokens +
                  (size_t)o->max_outputs + runs * each + group_asks_words(g);
    g->capacity = BASE_MAX(g->capacity, (size_t)GROUP_FIRST);
    g->words = base_zalloc(g->capacity, sizeof *g->words);
    g->runs = base_zalloc(runs, sizeof *g->runs);
    size_t rows = (size_t)o->max_outputs * (size_t)g->n_vocab;
    bool good = g->words && g->runs, slices = g->place.rank == 0 && g->n_tensor > 1;
    for (int i = 0; good && slices && i < model_most_flights(g->m); i++)
        good = (g->flights[i].rows = base_alloc(sizeof *g->flights[i].rows * rows)) != NULL;
    if (!good)
        return err_set(e, STATUS_NO_MEMORY, "no memory for the steps of %d ranks", g->n_ranks);
    return group_sampling_make_room(g, e);
}

/* ---- announcements: the leader ------------------------------------------------------------------------------------- */

static status say(engine_group *g, group_kind kind, size_t n, err *e)
{
    status s = g->failed ? group_why(g, e) : STATUS_OK;
    if (s == STATUS_OK && g->older)
        s = group_announce(g->older, GROUP_TURN, NULL, 0, e);
    if (s != STATUS_OK)
        return s;
    g->words[0] = (int32_t)n;
    g->words[1] = (int32_t)kind;
    g->said_us = os_now_us();
    s = link_broadcast(g->all, 0, g->words, GROUP_FIRST * sizeof *g->words, e);
    if (s == STATUS_OK && n > GROUP_FIRST)
        s = link_broadcast(g->all, 0, g->words + GROUP_FIRST, (n - GROUP_FIRST) * sizeof *g->words,
                           e);
    return group_noted(g, s);
}

/* Copies that wait, into the words. */
static size_t put_copies(engine_group *g)
{
    size_t n = GROUP_HEAD, bytes = sizeof *g->copies * (size_t)g->n_copies;
    memset(g->words, 0, GROUP_HEAD * sizeof *g->words);
    g->words[2] = g->n_copies;
    memcpy(g->words + n, g->copies, bytes);
    n += 3 * (size_t)g->n_copies;
    g->n_copies = 0;
    return n;
}

static size_t put_run(const engine_group *g, size_t n, const model_run *r)
{
    int32_t *w = g->words + n;
    *w++ = r->n_tokens;
    *w++ = (int32_t)r->position;
    for (int c = 0; c < g->n_classes; c++)
        *w++ = r->slot[c];
    int32_t *counts = w;
    w += g->n_classes;
    for (int c = 0; c < g->n_classes; c++) {
        int pages = 0;
        if (model_class(g->m, c)->page_tokens)
            pages = (int)((r->position + r->n_tokens - 1) / model_class(g->m, c)->page_tokens + 1);
        counts[c] = pages;
        memcpy(w, r->pages[c], sizeof *w * (size_t)pages);
        w += pages;
    }
    return (size_t)(w - g->words);
}

/* The batch has been checked: what it holds fits. */
static status announce(void *context, const model_batch *b, err *e)
{
    engine_group *g = context;
    if (g->failed)
        return group_why(g, e);
    size_t n = put_copies(g);
    g->words[3] = b->n_tokens;
    g->words[4] = b->n_runs;
    g->words[5] = b->n_outputs;
    memcpy(g->words + n, b->ids, sizeof *b->ids * (size_t)b->n_tokens);
    n += (size_t)b->n_tokens;
    memcpy(g->words + n, b->outputs, sizeof *b->outputs * (size_t)b->n_outputs);
    n += (size_t)b->n_outputs;
    for (int i = 0; i < b->n_runs; i++)
        n = put_run(g, n, &b->runs[i]);
    n = group_asks_put(g, n);
    REQUIRE(n <= g->capacity);
    status s = say(g, GROUP_STEP, n, e);
    return s == STATUS_OK ? group_asks_send(g, e) : s;
}

static status copied(void *context, int state_class, const model_copy *copies, int n, err *e)
{
    engine_group *g = context;
    for (int i = 0; i < n; i++) {
        if (g->n_copies == GROUP_COPIES) { /* a step of copies alone */
            status s = say(g, GROUP_STEP, put_copies(g), e);
            if (s != STATUS_OK)
                return s;
        }
        g->copies[g->n_copies++] = (group_copy){state_class, copies[i].from, copies[i].to};
    }
    return STATUS_OK;
}

status group_announce(engine_group *g, group_kind kind, const int32_t *words, size_t n, err *e)
{
    REQUIRE(GROUP_HEAD + n <= g->capacity);
    memset(g->words, 0, GROUP_HEAD * sizeof *g->words);
    if (n)
        memcpy(g->words + GROUP_HEAD, words, n * sizeof *words);
    return say(g, kind, GROUP_HEAD + n, e);
}

status group_announce_end(engine_group *g, err *e)
{
    return say(g, GROUP_END, put_copies(g), e);
}

/* ---- announcements: a follower ------------------------------------------------------------------------------------- */

/* Waits for the next one; the leader may have nothing to do for long, and says so if it has promised to (beat.c). */
status group_hear(engine_group *g, err *e)
{
    link_op *op;
    status s = link_broadcast_start(&op, g->all, 0, g->words, GROUP_FIRST * sizeof *g->words, e);
    if (s != STATUS_OK)
        return s;
    if (g->patience_us)
        link_op_allow(op, BASE_MAX(g->patience_us, g->deadline_us)); /* others may be in a step */
    else
        link_op_patient(op);
    s = link_op_wait(op, e);
    if (s != STATUS_OK)
        return s;
    if (g->words[0] < GROUP_HEAD || (size_t)g->words[0] > g->capacity)
        return err_set(e, STATUS_CORRUPT, "an announcement of %d words, expected %d to %zu",
                       (int)g->words[0], GROUP_HEAD, g->capacity);
    size_t n = (size_t)g->words[0];
    if (n > GROUP_FIRST)
        s = link_broadcast(g->all, 0, g->words + GROUP_FIRST, (n - GROUP_FIRST) * sizeof *g->words,
                           e);
    return s;
}

const int32_t *group_take(group_cursor *c, int64_t n)
{
    if (c->bad || n < 0 || n > c->end - c->at) {
        c->bad = true;
        return NULL;
    }
    const int32_t *p = c->at;
    c->at += n;
    return p;
}

static void take_run(const engine_group *g, group_cursor *c, model_run *r)
{
    const int32_t *head = group_take(c, 2), *slots = group_take(c, g->n_classes),
                  *counts = group_take(c, g->n_classes);
    if (c->bad)
        return;
    *r = (model_run){.n_tokens = head[0], .position = head[1]};
    for (int k = 0; k < g->n_classes; k++) {
        r->slot[k] = slots[k];
        r->n_pages[k] = counts[k];
        r->pages[k] = group_take(c, counts[k]);
    }
}

/* The batch that was announced, in g->words; its copies are made. Whether it makes sense for the model, model_step checks. */
static status take_step(engine_group *g, model_batch *b, err *e)
{
    group_cursor c = {g->words + GROUP_HEAD, g->words + g->words[0], false};
    int n_copies = g->words[2];
    const int32_t *copies = group_take(&c, 3 * (int64_t)n_copies);
    *b = (model_batch){
        .n_tokens = g->words[3], .n_runs = g->words[4], .n_outputs = g->words[5], .runs = g->runs};
    b->ids = group_take(&c, b->n_tokens);
    b->outputs = group_take(&c, b->n_outputs);
    c.bad |= b->n_runs < 0 || b->n_runs > model_get_options(g->m)->n_sequences;
    for (int i = 0; i < b->n_runs && !c.bad; i++)
        take_run(g, &c, &g->runs[i]);
    status s = STATUS_OK;
    if (!c.bad)
        s = group_asks_hear(g, &c, b->n_outputs, e);
    if (s == STATUS_OK && (c.bad || c.at != c.end))
        s = err_set(e, STATUS_CORRUPT, "an announcement of %d words does not hold what it says",
                    (int)g->words[0]);
    for (int i = 0; i < n_copies && s == STATUS_OK; i++) {
        model_copy copy = {copies[3 * i + 1], copies[3 * i + 2]};
        s = model_copy_state(g->m, copies[3 * i], &copy, 1, e);
    }
    return s;
}

status group_do_step(engine_group *g, err *e)
{
    model_batch b;
    status s = take_step(g, &b, e);
    return s == STATUS_OK && b.n_tokens > 0 ? model_step(g->m, &b, NULL, e) : s;
}

/* ---- inside a step ------------------------------------------------------------------------------------------------- */

/* In f64 or blocks, never int48: the sum that x begins as is of rows of the embedding, which are any floats and exact because one rank at most
 * has them. */
static status sum(void *context, double *values, int64_t n, err *e)
{
    engine_group *g = context;
    return group_noted(g, link_sum(g->in_stage, values, (size_t)n, LINK_WIRE_AUTO, e));
}

/* Whether a step of that many rows is faster when each rank norms its own: what is gathered is at most as wide as floats. */
static bool divides(void *context, int64_t n_rows, int64_t width)
{
    const engine_group *g = context;
    size_t n = (size_t)(n_rows * width);
    return link_scatter_pays(g->n_tensor, n, n * sizeof(float), link_group_cost(g->in_stage));
}

static status scatter(void *context, double *values, const size_t *parts, err *e)
{
    engine_group *g = context;
    return group_noted(g, link_scatter(g->in_stage, values, parts, LINK_WIRE_AUTO, e));
}

static status share_rows(void *context, void *rows, const size_t *parts, err *e)
{
    engine_group *g = context;
    return group_noted(g, link_gather(g->in_stage, rows, parts, e));
}

static status receive(void *context, float *rows, int64_t n, err *e)
{
    engine_group *g = context;
    return group_noted(
        g, link_recv(g->all, g->place.rank - g->n_tensor, 0, rows, (size_t)n * sizeof *rows, e));
}

static status send_rows(void *context, const float *rows, int64_t n, err *e)
{
    engine_group *g = context;
    return group_noted(
        g, link_send(g->all, g->place.rank + g->n_tensor, 0, rows, (size_t)n * sizeof *rows, e));
}

/* Slices of the last stage's ranks come side by side; of one row that is where they belong. A step of which nothing else comes ends with a word, so
 * that the leader is never further ahead than it knows. */
static status expect_rows(engine_group *g, group_flight *f, const float *own, err *e)
{
    void *to[ENGINE_MOST_RANKS] = {0};
    size_t bytes[ENGINE_MOST_RANKS] = {0}, n_bytes = 0;
    int first = g->n_ranks - g->n_tensor, n_rows = f->asks.n_whole;
    float *at = f->logits;
    if (n_rows > 1 && f->rows)
        at = f->rows;
    else if (n_rows == 1)
        at += f->asks.whole[0] * g->n_vocab;
    for (int r = first; r < g->n_ranks && n_rows > 0; r++) {
        int64_t n = n_rows * (g->shards[r].vocab_end - g->shards[r].vocab_begin);
        to[r] = at;
        bytes[r] = (size_t)n * sizeof *at;
        if (r == 0 && own)
            memcpy(at, own, bytes[r]);
        else
            n_bytes += bytes[r];
        at += n;
    }
    if (n_rows == 0 && f->asks.n == 0 && first > 0) {
        to[first] = &f->done;
        n_bytes = bytes[first] = sizeof f->done;
    }
    if (n_bytes == 0)
        return STATUS_OK;
    status s = link_collect_start(&f->op, g->all, to, bytes, e);
    if (s == STATUS_OK)
        link_op_patient(f->op); /* others may be before it: see collect */
    return s;
}

static status expect_results(engine_group *g, group_flight *f, err *e)
{
    int from = g->n_ranks - g->n_tensor;
    size_t bytes = group_results_words(&f->asks) * sizeof *f->asks.results;
    if (from == 0 || bytes == 0)
        return STATUS_OK;
    status s = link_recv_start(&f->results_op, g->all, from, 0, f->asks.results, bytes, e);
    if (s == STATUS_OK)
        link_op_patient(f->results_op);
    return s;
}

/* The rows that go as they are, to the front. */
static void close_up(const engine_group *g, const group_asks *a, float *rows)
{
    const model_shard *own = &g->shards[g->place.rank];
    int64_t width = own->vocab_end - own->vocab_begin;
    for (int i = 0; i < a->n_whole && rows; i++)
        if (a->whole[i] != i)
            memmove(rows + i * width, rows + a->whole[i] * width, sizeof *rows * (size_t)width);
}

/* What comes of a step: answers where they are asked for, then rows. */
static status gather(void *context, float *rows, int n_rows, float *logits, err *e)
{
    engine_group *g = context;
    const int32_t done = 1;
    int rank = g->place.rank, first = g->n_ranks - g->n_tensor;
    group_asks *a = group_asks_at_hand(g);
    status s = STATUS_OK;
    if (a->all)
        a->n_whole = n_rows;
    for (int i = 0; i < n_rows && a->all; i++)
        a->whole[i] = i;
    if (rank >= first && a->n > 0)
        s = group_sample(g, a, rows, e);
    if (rank >= first)
        close_up(g, a, rows);
    if (rank == 0) {
        group_flight *f = &g->flights[(g->first_flight + g->n_flights) % model_most_flights(g->m)];
        REQUIRE(&f->asks == a && g->n_flights < model_most_flights(g->m));
        f->op = f->results_op = NULL;
        f->logits = logits;
        if (s == STATUS_OK)
            s = expect_results(g, f, e);
        if (s == STATUS_OK)
            s = expect_rows(g, f, rows, e);
        g->n_flights += s == STATUS_OK;
        return group_noted(g, s);
    }
    size_t bytes = group_results_words(a) * sizeof *a->results;
    if (s == STATUS_OK && rank == first && bytes > 0)
        s = link_send(g->all, 0, 0, a->results, bytes, e);
    if (s == STATUS_OK && rank == first && bytes == 0 && a->n_whole == 0)
        s = link_send(g->all, 0, 0, &done, sizeof done, e);
    bytes = sizeof *rows *
            (size_t)(a->n_whole * (g->shards[rank].vocab_end - g->shards[rank].vocab_begin));
    if (s == STATUS_OK && rows && bytes > 0)
        s = link_send(g->all, 0, 0, rows, bytes, e);
    return group_noted(g, s);
}

/* Rows that lie slice behind slice, or row behind row, to where they belong. */
static void spread(const engine_group *g, const group_flight *f)
{
    const group_asks *a = &f->asks;
    const float *at = f->rows;
    size_t row = sizeof *f->logits * (size_t)g->n_vocab;
    for (int i = a->n_whole - 1; i >= 0 && !at; i--)
        if (a->n_whole > 1 && a->whole[i] != i)
            memmove(f->logits + a->whole[i] * g->n_vocab, f->logits + i * g->n_vocab, row);
    for (int r = g->n_ranks - g->n_tensor; r < g->n_ranks && at && a->n_whole > 1; r++) {
        int64_t width = g->shards[r].vocab_end - g->shards[r].vocab_begin;
        for (int i = 0; i < a->n_whole; i++, at += width)
            memcpy(f->logits + a->whole[i] * g->n_vocab + g->shards[r].vocab_begin, at,
                   sizeof *at * (size_t)width);
    }
}

static status wait_for(link_op *op, status s, err *e)
{
    if (!op)
        return s;
    link_op_due(op);
    status of_op = link_op_wait(op, s == STATUS_OK ? e : NULL);
    return s == STATUS_OK ? of_op : s;
}

/* What came of the oldest step. The deadline counts from here: what was before it is done. */
static status collect(void *context, err *e)
{
    engine_group *g = context;
    REQUIRE(g->n_flights > 0);
    group_flight *f = &g->flights[g->first_flight];
    g->first_flight = (g->first_flight + 1) % model_most_flights(g->m);
    g->n_flights--;
    g->back = f;
    status s = wait_for(f->results_op, STATUS_OK, e);
    s = wait_for(f->op, s, e);
    if (s == STATUS_OK && f->results_op)
        s = group_results_take(&f->asks, e);
    if (s == STATUS_OK)
        spread(g, f);
    f->asks.all = true; /* what is not asked comes as it is */
    return group_noted(g, s);
}

void group_exchange(engine_group *g, model_exchange *x)
{
    *x = (model_exchange){.sum = sum,
                          .divides = divides,
                          .scatter = scatter,
                          .share_rows = share_rows,
                          .index = g->index,
                          .receive = receive,
                          .send = send_rows,
                          .gather = gather,
                          .collect = g->place.rank == 0 ? collect : NULL,
                          .n_stages = g->place.cut.n_stages,
                          .announce = g->place.rank == 0 ? announce : NULL,
                          .copied = g->place.rank == 0 ? copied : NULL,
                          .context = g};
}
