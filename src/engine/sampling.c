/*
 * Sampling where the rows lie: what the leader asks of a step goes out with its announcement, the ranks of the last stage look at their slices and tell
 * each other parts (src/sample/cut.c), and the first of them, the root, knows the answers. In a pipeline it sends them to the leader, else it is
 * the leader. So a token costs tens of bytes instead of a row of logits.
 *
 *   1  rounds before PICK: everybody hears everybody's parts, as many asks at once as there is room for
 *   2  PICK: parts go to the root only
 *   3  rows of which the candidates are too many for parts: their slices go to the root, which samples them as whole rows
 *
 * Every rank derives all lengths from the asks and from parts that all have heard, so there is no word about them. A rank gets the edits and the
 * mask of its own slice only, but the root of a pipeline those of the whole row, for 3. Numbers of others are checked: those of the leader here,
 * parts and answers in src/sample. Nothing is allocated but when the group is joined.
 */
#include "engine/group.h"
#include "os/os.h"

#include <string.h>

enum {
    PART_WORDS = 8192, /* of one rank in one message; the largest part is half of it */
    LEAST_EDITS = 4096,
    MASK = 1,
    SCORES = 2
};
_Static_assert(3 * SAMPLE_CUT_CANDIDATES + 100 < PART_WORDS, "every part fits");
_Static_assert((int)ENGINE_MOST_RANKS <= (int)SAMPLE_CUT_SLICES, "every rank may have a slice");

/* ---- room ---------------------------------------------------------------------------------------------------------- */

static int last_stage(const engine_group *g)
{
    return g->n_ranks - g->n_tensor;
}

static bool is_last(const engine_group *g)
{
    return g->place.rank >= last_stage(g);
}

static int most_outputs(const engine_group *g)
{
    return model_get_options(g->m)->max_outputs;
}

/* Words of 64 bits that hold the mask of tokens begin to end. */
static int mask_words(int64_t begin, int64_t end)
{
    return end > begin ? (int)((end + 63) / 64 - begin / 64) : 0;
}

/* Which tokens' edits and masks rank i of the last stage is told. */
static void told(const engine_group *g, int i, int32_t *begin, int32_t *end)
{
    bool whole = i == 0 && g->place.cut.n_stages > 1;
    *begin = whole ? 0 : g->sampling.borders[i];
    *end = whole ? g->sampling.borders[g->n_tensor] : g->sampling.borders[i + 1];
}

static bool make_asks(engine_group *g, group_asks *a)
{
    const group_sampling *s = &g->sampling;
    size_t most = (size_t)s->most;
    const sample_want longest = {.top_logprobs = SAMPLE_TOP_MAX};
    a->all = true;
    a->row = base_alloc(most * sizeof *a->row);
    a->want = base_alloc(most * sizeof *a->want);
    a->mask = base_alloc(most * sizeof *a->mask);
    a->cut = base_alloc(most * sizeof *a->cut);
    a->whole = base_alloc((size_t)most_outputs(g) * sizeof *a->whole);
    a->edits = base_alloc((size_t)s->most_edits * sizeof *a->edits);
    a->bits = base_alloc((size_t)s->most_bits * sizeof *a->bits);
    a->results = base_alloc(most * sample_cut_result_words(&longest) * sizeof *a->results);
    return a->row && a->want && a->mask && a->cut && a->whole && a->edits && a->bits && a->results;
}

status group_sampling_make_room(engine_group *g, err *e)
{
    group_sampling *s = &g->sampling;
    size_t n = (size_t)g->n_tensor, V = (size_t)g->n_vocab;
    if (model_get_card(g->m)->pooling != MODEL_POOLING_NONE)
        return STATUS_OK;
    s->most = 2 * most_outputs(g);
    s->most_edits = BASE_MAX((int)LEAST_EDITS, (int)(g->n_vocab / 2));
    s->most_bits = most_outputs(g) * mask_words(0, g->n_vocab);
    s->most_list = 2 + (size_t)s->most + 2 * (size_t)s->most_bits + 4 * (size_t)s->most_edits;
    s->borders = base_alloc((n + 1) * sizeof *s->borders);
    bool good = s->borders != NULL;
    for (int i = 0; i <= g->n_tensor && good; i++)
        s->borders[i] = i < g->n_tensor ? (int32_t)g->shards[last_stage(g) + i].vocab_begin
                                        : (int32_t)g->n_vocab;
    int flights = g->place.rank == 0 ? model_most_flights(g->m) : 1;
    for (int i = 0; i < flights && good; i++)
        good = make_asks(g, &g->flights[i].asks);
    s->list = base_alloc((s->most_list + 1) * sizeof(uint32_t));
    s->turn = base_alloc((size_t)s->most * sizeof *s->turn);
    s->parts = base_alloc(n * PART_WORDS * sizeof *s->parts);
    s->row = base_alloc(V * sizeof *s->row);
    if (!good || !s->list || !s->turn || !s->parts || !s->row)
        return err_set(e, STATUS_NO_MEMORY, "no memory for sampling on %d ranks", g->n_ranks);
    status result = kernel_select(&s->kernels, os_cpu_features(), model_isa(g->m), e);
    return result == STATUS_OK ? sample_scratch_create(&s->scratch, (int)g->n_vocab, e) : result;
}

void group_sampling_free(engine_group *g)
{
    group_sampling *s = &g->sampling;
    for (int i = 0; i < MODEL_MOST_FLIGHTS; i++) {
        group_asks *a = &g->flights[i].asks;
        base_free(a->row);
        base_free(a->want);
        base_free(a->mask);
        base_free(a->cut);
        base_free(a->whole);
        base_free(a->edits);
        base_free(a->bits);
        base_free(a->results);
    }
    base_free(s->borders);
    base_free(s->list);
    base_free(s->turn);
    base_free(s->parts);
    base_free(s->row);
    sample_scratch_destroy(s->scratch);
}

/* ---- the leader asks ----------------------------------------------------------------------------------------------- */

engine_group *engine_group_of(const model *m)
{
    const model_exchange *x = &model_get_options(m)->exchange;
    return x->gather && x->announce ? x->context : NULL;
}

group_asks *group_asks_at_hand(engine_group *g)
{
    int at = g->place.rank == 0 ? (g->first_flight + g->n_flights) % model_most_flights(g->m) : 0;
    return &g->flights[at].asks;
}

void engine_group_ask_begin(engine_group *g)
{
    group_asks *a = group_asks_at_hand(g);
    a->all = false;
    a->n = a->n_whole = a->n_edits = a->n_bits = 0;
}

void engine_group_ask_whole(engine_group *g, int row)
{
    group_asks *a = group_asks_at_hand(g);
    int at = a->n_whole;
    while (at > 0 && a->whole[at - 1] > row)
        at--;
    if (at > 0 && a->whole[at - 1] == row)
        return;
    REQUIRE(a->n_whole < most_outputs(g));
    memmove(&a->whole[at + 1], &a->whole[at], sizeof *a->whole * (size_t)(a->n_whole - at));
    a->whole[at] = row;
    a->n_whole++;
}

/* What the want points to becomes ours. */
static bool keep(const engine_group *g, group_asks *a, const sample_want *w)
{
    const group_sampling *s = &g->sampling;
    int n_bits = w->allowed ? mask_words(0, g->n_vocab) : 0;
    if (a->n == s->most || w->n_edits > s->most_edits - a->n_edits ||
        n_bits > s->most_bits - a->n_bits)
        return false;
    sample_want *own = &a->want[a->n];
    *own = *w;
    own->edits = a->edits + a->n_edits;
    if (w->n_edits)
        memcpy(a->edits + a->n_edits, w->edits, sizeof *w->edits * (size_t)w->n_edits);
    if (w->allowed)
        memcpy(a->bits + a->n_bits, w->allowed, sizeof *w->allowed * (size_t)n_bits);
    a->mask[a->n] = w->allowed ? a->bits + a->n_bits : NULL;
    a->n_edits += w->n_edits;
    a->n_bits += n_bits;
    return true;
}

int engine_group_ask(engine_group *g, int row, const sample_want *w)
{
    group_asks *a = group_asks_at_hand(g);
    REQUIRE(!a->all);
    if (!keep(g, a, w)) {
        engine_group_ask_whole(g, row);
        return -1;
    }
    a->row[a->n] = row;
    return a->n++;
}

status engine_group_answer(const engine_group *g, int number, sample_result *out, err *e)
{
    REQUIRE(g->back && number >= 0 && number < g->back->asks.n);
    return sample_cut_result(&g->back->asks.cut[number], out, e);
}

/* ---- what is asked, as words --------------------------------------------------------------------------------------- */

static int32_t word_of(float x)
{
    return (int32_t)float_to_bits(x);
}

static float float_of(int32_t word)
{
    return float_from_bits((uint32_t)word);
}

static void put_ask(int32_t *w, int row, const sample_want *o)
{
    w[0] = row;
    w[1] = o->choice;
    memcpy(w + 2, &o->seed, sizeof o->seed);
    memcpy(w + 4, &o->position, sizeof o->position);
    w[6] = word_of(o->temperature);
    w[7] = o->top_k;
    w[8] = word_of(o->top_p);
    w[9] = word_of(o->min_p);
    w[10] = word_of(o->repetition_penalty);
    w[11] = word_of(o->presence_penalty);
    w[12] = word_of(o->frequency_penalty);
    w[13] = o->top_logprobs;
    w[14] = (o->allowed ? MASK : 0) | (o->scores ? SCORES : 0);
    w[15] = o->token;
}

static status take_ask(const engine_group *g, const int32_t *w, int n_outputs, sample_want *o,
                       err *e)
{
    *o = (sample_want){.choice = w[1],
                       .temperature = float_of(w[6]),
                       .top_k = w[7],
                       .top_p = float_of(w[8]),
                       .min_p = float_of(w[9]),
                       .repetition_penalty = float_of(w[10]),
                       .presence_penalty = float_of(w[11]),
                       .frequency_penalty = float_of(w[12]),
                       .top_logprobs = w[13],
                       .scores = w[14] & SCORES,
                       .token = w[15]};
    memcpy(&o->seed, w + 2, sizeof o->seed);
    memcpy(&o->position, w + 4, sizeof o->position);
    const sample_options options = {.temperature = o->temperature,
                                    .top_k = o->top_k,
                                    .top_p = o->top_p,
                                    .min_p = o->min_p,
                                    .repetition_penalty = o->repetition_penalty,
                                    .presence_penalty = o->presence_penalty,
                                    .frequency_penalty = o->frequency_penalty};
    if (w[0] < 0 || w[0] >= n_outputs || o->choice < 0 || o->top_logprobs < -1 ||
        o->top_logprobs > SAMPLE_TOP_MAX || w[14] < 0 || w[14] > (MASK | SCORES) || o->token < 0 ||
        o->token >= g->n_vocab)
        return err_set(e, STATUS_CORRUPT, "an announcement asks for %d of row %d of %d", o->token,
                       w[0], n_outputs);
    return o->scores ? STATUS_OK : sample_options_check(&options, (int)g->n_vocab, e);
}

size_t group_asks_words(const engine_group *g)
{
    return (size_t)most_outputs(g) * (1 + 2 * GROUP_ASK) + (size_t)g->n_tensor;
}

static bool is_told(const sample_edit *x, int32_t begin, int32_t end)
{
    return x->token >= begin && x->token < end;
}

/* Words of rank i's list: counts of edits, an even number of them; masks; edits. 0: there is nothing to be said. */
static size_t list_words(const engine_group *g, const group_asks *a, int i)
{
    int32_t begin, end;
    size_t n_bits = 0, n_edits = 0;
    told(g, i, &begin, &end);
    for (int k = 0; k < a->n; k++) {
        n_bits += a->mask[k] ? (size_t)mask_words(begin, end) : 0;
        for (int j = 0; j < a->want[k].n_edits; j++)
            n_edits += is_told(&a->want[k].edits[j], begin, end);
    }
    if (n_bits + n_edits == 0)
        return 0;
    return ((size_t)a->n + 1) / 2 * 2 + 2 * n_bits + 4 * n_edits;
}

static void put_list(engine_group *g, const group_asks *a, int i)
{
    int32_t begin, end;
    uint32_t *counts = (uint32_t *)g->sampling.list;
    uint64_t *bits = g->sampling.list + (a->n + 1) / 2;
    told(g, i, &begin, &end);
    counts[a->n] = 0; /* there is room for one more */
    for (int k = 0; k < a->n; k++) {
        size_t n = a->mask[k] ? (size_t)mask_words(begin, end) : 0;
        if (n)
            memcpy(bits, a->mask[k] + begin / 64, n * sizeof *bits);
        bits += n;
    }
    uint32_t *at = (uint32_t *)bits;
    for (int k = 0; k < a->n; k++) {
        counts[k] = 0;
        for (int j = 0; j < a->want[k].n_edits; j++) {
            const sample_edit *x = &a->want[k].edits[j];
            if (!is_told(x, begin, end))
                continue;
            memcpy(at, x, sizeof *x);
            at += sizeof *x / sizeof *at;
            counts[k]++;
        }
    }
}
_Static_assert(sizeof(sample_edit) == 16, "edits travel as they lie in memory");

/* The own slice's view of the masks, and the rounds begin. begin: of the tokens that the masks are of. */
static void begin_rounds(engine_group *g, group_asks *a, int32_t begin)
{
    int32_t own = g->sampling.borders[g->index];
    for (int k = 0; k < a->n; k++) {
        a->want[k].allowed = a->mask[k] ? a->mask[k] + (own / 64 - begin / 64) : NULL;
        sample_cut_begin(&a->cut[k], &a->want[k], g->sampling.borders, g->n_tensor);
    }
}

size_t group_asks_put(engine_group *g, size_t n)
{
    group_asks *a = group_asks_at_hand(g);
    if (a->all)
        a->n = 0;
    g->words[6] = a->all ? -1 : a->n_whole;
    g->words[7] = a->n;
    for (int i = 0; i < a->n_whole && !a->all; i++)
        g->words[n++] = a->whole[i];
    for (int k = 0; k < a->n; k++, n += GROUP_ASK)
        put_ask(g->words + n, a->row[k], &a->want[k]);
    for (int i = 0; i < g->n_tensor && a->n > 0; i++)
        g->words[n++] = last_stage(g) + i == 0 ? 0 : (int32_t)list_words(g, a, i);
    begin_rounds(g, a, 0);
    return n;
}

status group_asks_send(engine_group *g, err *e)
{
    group_asks *a = group_asks_at_hand(g);
    status s = STATUS_OK;
    for (int i = 0; i < g->n_tensor && a->n > 0 && s == STATUS_OK; i++) {
        int rank = last_stage(g) + i;
        size_t n = rank == 0 ? 0 : list_words(g, a, i);
        if (n == 0)
            continue;
        put_list(g, a, i);
        s = link_send(g->all, rank, 0, g->sampling.list, n * sizeof(uint32_t), e);
    }
    return group_noted(g, s);
}

/* ---- a follower hears it ------------------------------------------------------------------------------------------- */

static bool is_sane(const sample_edit *x)
{
    return x->token >= 0 && x->generated >= 0 && x->bias >= -1e13f && x->bias <= 1e13f;
}

/* The message of n words in g->sampling.list, into a's edits and bits. */
static status take_list(engine_group *g, group_asks *a, size_t n, err *e)
{
    int32_t begin, end;
    told(g, g->index, &begin, &end);
    const uint32_t *counts = (const uint32_t *)g->sampling.list;
    size_t n_counts = ((size_t)a->n + 1) / 2 * 2, each = (size_t)mask_words(begin, end);
    size_t n_bits = 0, n_edits = 0;
    bool good = true;
    for (int k = 0; k < a->n && good; k++) {
        n_bits += a->mask[k] ? each : 0;
        good = n >= n_counts && counts[k] <= (uint32_t)g->sampling.most_edits;
        n_edits += good ? counts[k] : 0;
    }
    good = good && n == n_counts + 2 * n_bits + 4 * n_edits &&
           n_bits <= (size_t)g->sampling.most_bits && n_edits <= (size_t)g->sampling.most_edits;
    if (!good)
        return err_set(e, STATUS_CORRUPT, "a list of %zu words does not hold what it says", n);
    memcpy(a->bits, counts + n_counts, n_bits * sizeof *a->bits);
    memcpy(a->edits, counts + n_counts + 2 * n_bits, n_edits * sizeof *a->edits);
    for (size_t j = 0; j < n_edits; j++)
        if (!is_sane(&a->edits[j]))
            return err_set(e, STATUS_CORRUPT, "an edit of token %d", (int)a->edits[j].token);
    const uint64_t *bits = a->bits;
    const sample_edit *edits = a->edits;
    for (int k = 0; k < a->n; k++) {
        a->want[k].edits = edits;
        a->want[k].n_edits = (int)counts[k];
        edits += counts[k];
        a->mask[k] = a->mask[k] ? bits : NULL;
        bits += a->mask[k] ? each : 0;
    }
    return STATUS_OK;
}

static status take_rows(const engine_group *g, group_asks *a, const int32_t *rows, int n_outputs,
                        err *e)
{
    (void)g;
    for (int i = 0; i < a->n_whole; i++) {
        if (rows[i] < 0 || rows[i] >= n_outputs || (i > 0 && rows[i] <= rows[i - 1]))
            return err_set(e, STATUS_CORRUPT, "an announcement wants row %d of %d", (int)rows[i],
                           n_outputs);
        a->whole[i] = rows[i];
    }
    return STATUS_OK;
}

status group_asks_hear(engine_group *g, group_cursor *c, int n_outputs, err *e)
{
    group_asks *a = group_asks_at_hand(g);
    int n_whole = g->words[6], n = g->words[7];
    a->all = n_whole == -1;
    a->n = 0;
    a->n_whole = 0;
    if (n_outputs < 0 || n_outputs > most_outputs(g) || n_whole < -1 || n_whole > n_outputs ||
        n < 0 || n > g->sampling.most || (a->all && n > 0)) {
        c->bad = true;
        return STATUS_OK;
    }
    a->n_whole = BASE_MAX(n_whole, 0);
    const int32_t *rows = group_take(c, a->n_whole);
    const int32_t *asks = group_take(c, (int64_t)n * GROUP_ASK);
    const int32_t *lists = group_take(c, n > 0 ? g->n_tensor : 0);
    if (c->bad)
        return STATUS_OK;
    status s = take_rows(g, a, rows, n_outputs, e);
    for (int k = 0; k < n && s == STATUS_OK; k++, asks += GROUP_ASK) {
        s = take_ask(g, asks, n_outputs, &a->want[k], e);
        a->row[k] = asks[0];
        a->mask[k] = asks[14] & MASK ? a->bits : NULL; /* a place for now */
    }
    if (s != STATUS_OK)
        return s;
    a->n = n;
    if (n == 0 || !is_last(g))
        return STATUS_OK;
    size_t words = (size_t)lists[g->index];
    if (lists[g->index] < 0 || words > g->sampling.most_list)
        return err_set(e, STATUS_CORRUPT, "a list of %d words, expected up to %zu",
                       (int)lists[g->index], g->sampling.most_list);
    if (words > 0)
        s = group_noted(g, link_recv(g->all, 0, 0, g->sampling.list, words * sizeof(uint32_t), e));
    if (s == STATUS_OK && words > 0)
        s = take_list(g, a, words, e);
    for (int k = 0; k < n && words == 0; k++)
        if (a->mask[k])
            return err_set(e, STATUS_CORRUPT, "an announcement has a mask and no list");
    int32_t begin, end;
    told(g, g->index, &begin, &end);
    if (s == STATUS_OK)
        begin_rounds(g, a, begin);
    return s;
}

/* ---- rounds -------------------------------------------------------------------------------------------------------- */

static const float *row_of(const engine_group *g, const group_asks *a, int k, const float *rows)
{
    int64_t width = g->sampling.borders[g->index + 1] - g->sampling.borders[g->index];
    return rows ? rows + a->row[k] * width : NULL;
}

/* Asks in PICK, or before it, whose parts fit into a message of every rank. */
static int take_turn(engine_group *g, const group_asks *a, bool pick)
{
    size_t words[ENGINE_MOST_RANKS] = {0};
    int n = 0;
    for (int k = 0; k < a->n; k++) {
        const sample_cut *c = &a->cut[k];
        bool fits = pick ? c->round == SAMPLE_CUT_PICK : c->round < SAMPLE_CUT_PICK;
        if (!fits)
            continue;
        for (int i = 0; i < g->n_tensor; i++) {
            words[i] += sample_cut_words(c, i);
            fits = fits && words[i] <= PART_WORDS;
        }
        if (!fits)
            break;
        g->sampling.turn[n++] = k;
    }
    return n;
}

/* What all ranks say about the asks whose turn it is; those of rank i lie behind those of i − 1. */
static void place_parts(engine_group *g, const group_asks *a, int n, uint32_t **at, size_t *bytes)
{
    uint32_t *next = g->sampling.parts;
    for (int i = 0; i < g->n_tensor; i++) {
        size_t words = 0;
        for (int t = 0; t < n; t++)
            words += sample_cut_words(&a->cut[g->sampling.turn[t]], i);
        at[i] = next;
        bytes[i] = words * sizeof *next;
        next += words;
    }
}

static void look(engine_group *g, group_asks *a, int n, const float *rows, uint32_t *to)
{
    group_sampling *s = &g->sampling;
    for (int t = 0; t < n; t++) {
        int k = s->turn[t];
        sample_cut_look(&a->cut[k], s->scratch, s->kernels, row_of(g, a, k, rows), g->index, to);
        to += sample_cut_words(&a->cut[k], g->index);
    }
}

static status hear(engine_group *g, group_asks *a, int n, uint32_t **at, err *e)
{
    status s = STATUS_OK;
    for (int t = 0; t < n && s == STATUS_OK; t++) {
        sample_cut *c = &a->cut[g->sampling.turn[t]];
        const uint32_t *parts[ENGINE_MOST_RANKS];
        for (int i = 0; i < g->n_tensor; i++) {
            parts[i] = at[i];
            at[i] += sample_cut_words(c, i);
        }
        s = sample_cut_hear(c, g->sampling.scratch, parts, e);
    }
    return s;
}

static status round_of_all(engine_group *g, group_asks *a, int n, const float *rows, err *e)
{
    uint32_t *at[ENGINE_MOST_RANKS];
    size_t bytes[ENGINE_MOST_RANKS];
    place_parts(g, a, n, at, bytes);
    look(g, a, n, rows, at[g->index]);
    status s = link_gather(g->in_stage, g->sampling.parts, bytes, e);
    return s == STATUS_OK ? hear(g, a, n, at, e) : s;
}

static status round_of_root(engine_group *g, group_asks *a, int n, const float *rows, err *e)
{
    uint32_t *at[ENGINE_MOST_RANKS];
    size_t bytes[ENGINE_MOST_RANKS];
    link_op *op = NULL;
    status s = STATUS_OK;
    place_parts(g, a, n, at, bytes);
    if (g->index == 0) {
        void *to[ENGINE_MOST_RANKS];
        memcpy(to, at, sizeof *to * (size_t)g->n_tensor);
        bytes[0] = 0;
        s = link_collect_start(&op, g->in_stage, to, bytes, e);
        if (s != STATUS_OK)
            return s;
        look(g, a, n, rows, at[0]);
        s = link_op_wait(op, e);
        return s == STATUS_OK ? hear(g, a, n, at, e) : s;
    }
    look(g, a, n, rows, at[g->index]);
    if (bytes[g->index])
        s = link_send(g->in_stage, 0, 0, at[g->index], bytes[g->index], e);
    for (int t = 0; t < n; t++)
        a->cut[g->sampling.turn[t]].round = SAMPLE_CUT_OVER; /* for us */
    return s;
}

/* One row as a whole to the root, which samples it. */
static status bring_together(engine_group *g, group_asks *a, int k, const float *rows, err *e)
{
    group_sampling *s = &g->sampling;
    const float *own = row_of(g, a, k, rows);
    size_t bytes[ENGINE_MOST_RANKS];
    void *to[ENGINE_MOST_RANKS];
    for (int i = 0; i < g->n_tensor; i++) {
        to[i] = s->row + s->borders[i];
        bytes[i] = (size_t)(s->borders[i + 1] - s->borders[i]) * sizeof *own;
    }
    if (g->index > 0)
        return bytes[g->index] ? link_send(g->in_stage, 0, 0, own, bytes[g->index], e) : STATUS_OK;
    if (bytes[0])
        memcpy(to[0], own, bytes[0]);
    bytes[0] = 0;
    link_op *op;
    status result = link_collect_start(&op, g->in_stage, to, bytes, e);
    if (result == STATUS_OK)
        result = link_op_wait(op, e);
    if (result != STATUS_OK)
        return result;
    a->want[k].allowed = a->mask[k];
    sample_cut_whole(&a->cut[k], s->scratch, s->kernels, s->row);
    return STATUS_OK;
}

static status sample_rows(engine_group *g, group_asks *a, const float *rows, err *e)
{
    group_sampling *own = &g->sampling;
    status s = STATUS_OK;
    int n;
    if (g->n_tensor == 1) {
        for (int k = 0; k < a->n; k++)
            sample_cut_whole(&a->cut[k], own->scratch, own->kernels, row_of(g, a, k, rows));
        return s;
    }
    while (s == STATUS_OK && (n = take_turn(g, a, false)) > 0)
        s = round_of_all(g, a, n, rows, e);
    while (s == STATUS_OK && (n = take_turn(g, a, true)) > 0)
        s = round_of_root(g, a, n, rows, e);
    for (int k = 0; k < a->n && s == STATUS_OK; k++)
        if (a->cut[k].round == SAMPLE_CUT_WHOLE)
            s = bring_together(g, a, k, rows, e);
    return s;
}

status group_sample(engine_group *g, group_asks *a, const float *rows, err *e)
{
    status s = sample_rows(g, a, rows, e);
    if (s == STATUS_OK && g->index == 0 && last_stage(g) > 0)
        group_results_put(a);
    return group_noted(g, s);
}

/* ---- results to a leader elsewhere --------------------------------------------------------------------------------- */

size_t group_results_words(const group_asks *a)
{
    size_t n = 0;
    for (int k = 0; k < a->n; k++)
        n += sample_cut_result_words(&a->want[k]);
    return n;
}

void group_results_put(group_asks *a)
{
    uint32_t *at = a->results;
    for (int k = 0; k < a->n; k++) {
        sample_cut_put(&a->cut[k], at);
        at += sample_cut_result_words(&a->want[k]);
    }
}

status group_results_take(group_asks *a, err *e)
{
    const uint32_t *at = a->results;
    status s = STATUS_OK;
    for (int k = 0; k < a->n && s == STATUS_OK; k++) {
        s = sample_cut_get(&a->cut[k], at, e);
        at += sample_cut_result_words(&a->want[k]);
    }
    return s;
}
