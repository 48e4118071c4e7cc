/*
 * The sampler: options, history, and the order of things from a row of logits to a token. See sample.h for the definitions.
 *
 * The logits are copied once into the scratch row, where edits and penalties are applied to the few tokens they concern; excluded
 * tokens become a finite value so low that exp of it is 0. Filters then make a list of candidates (select.c), and the noise chooses
 * among them (noise.c); without filters the noise goes over the whole row.
 */
#include "sample/inside.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_MAX (1 << 20) /* a longer window is all there is */

/* Bias and bans of one token, merged. */
typedef struct edit {
    int32_t token;
    bool banned;
    float bias;
} edit;

typedef struct history {
    uint32_t generated;      /* times generated */
    uint32_t in_window : 31; /* times in the repetition window */
    uint32_t listed : 1;     /* in `listed` */
} history;

struct sample {
    const kernel_table *k;
    int vocabulary, choice;
    sample_options o; /* its arrays are not used */
    int n_edits;
    edit *edits;            /* [n_edits], one a token */
    history *seen;          /* [vocabulary], NULL without penalties */
    int32_t *listed;        /* [vocabulary]: tokens that have something in `seen` */
    sample_edit *described; /* [n_edits, with penalties and vocabulary] */
    int n_listed;
    int32_t *window; /* ring, NULL when the window is everything */
    int window_size, window_at, window_n;
};

/* ---- options --------------------------------------------------------------------------------------------------- */

static status check_range(const char *name, float value, float low, float high, err *e)
{
    if (value >= low && value <= high) /* false for NaN */
        return STATUS_OK;
    return err_set(e, STATUS_INVALID, "%s must be %g to %g, not %g", name, (double)low,
                   (double)high, (double)value);
}

static status check_token(const char *what, int32_t token, int vocabulary, err *e)
{
    if (token >= 0 && (vocabulary <= 0 || token < vocabulary))
        return STATUS_OK;
    return err_set(e, STATUS_INVALID, "%s: no token has the id %d", what, (int)token);
}

status sample_options_check(const sample_options *o, int vocabulary, err *e)
{
    const struct {
        const char *name;
        float value, low, high;
    } ranges[] = {
        {"temperature", o->temperature, 0, 100},
        {"top_p", o->top_p, 0, 1},
        {"min_p", o->min_p, 0, 1},
        {"repetition_penalty", o->repetition_penalty, 0.01f, 100},
        {"presence_penalty", o->presence_penalty, -10, 10},
        {"frequency_penalty", o->frequency_penalty, -10, 10},
    };
    for (size_t i = 0; i < BASE_COUNT(ranges); i++) {
        status s = check_range(ranges[i].name, ranges[i].value, ranges[i].low, ranges[i].high, e);
        if (s != STATUS_OK)
            return s;
    }
    if (o->top_k < 0)
        return err_set(e, STATUS_INVALID, "top_k must not be negative, not %d", o->top_k);
    if (o->penalty_window < 0)
        return err_set(e, STATUS_INVALID, "the penalty window must not be negative, not %d",
                       o->penalty_window);
    if (o->n_bias < 0 || o->n_banned < 0 || o->n_bias > 1 << 20 || o->n_banned > 1 << 20)
        return err_set(e, STATUS_INVALID, "logit_bias: too many tokens");
    for (int i = 0; i < o->n_bias; i++) {
        status s = check_token("logit_bias", o->bias[i].token, vocabulary, e);
        if (s == STATUS_OK)
            s = check_range("logit_bias", o->bias[i].bias, -1e6f, 1e6f, e);
        if (s != STATUS_OK)
            return s;
    }
    for (int i = 0; i < o->n_banned; i++) {
        status s = check_token("banned token", o->banned[i], vocabulary, e);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static bool has_penalties(const sample_options *o)
{
    return o->repetition_penalty != 1 || o->presence_penalty != 0 || o->frequency_penalty != 0;
}

static int compare_edits(const void *a, const void *b)
{
    int32_t x = ((const edit *)a)->token, y = ((const edit *)b)->token;
    return (x > y) - (x < y);
}

static bool make_edits(sample *s, const sample_options *o)
{
    int n = o->n_bias + o->n_banned, kept = 0;
    if (n == 0)
        return true;
    s->edits = base_zalloc((size_t)n, sizeof *s->edits);
    if (!s->edits)
        return false;
    for (int i = 0; i < o->n_bias; i++)
        s->edits[i] = (edit){o->bias[i].token, false, o->bias[i].bias};
    for (int i = 0; i < o->n_banned; i++)
        s->edits[o->n_bias + i] = (edit){o->banned[i], true, 0};
    qsort(s->edits, (size_t)n, sizeof *s->edits, compare_edits);
    for (int i = 0; i < n; i++) {
        if (kept > 0 && s->edits[kept - 1].token == s->edits[i].token) {
            s->edits[kept - 1].bias += s->edits[i].bias;
            s->edits[kept - 1].banned |= s->edits[i].banned;
        } else {
            s->edits[kept++] = s->edits[i];
        }
    }
    s->n_edits = kept;
    return true;
}

static bool make_history(sample *s, const sample_options *o)
{
    if (!has_penalties(o))
        return true;
    s->seen = base_zalloc((size_t)s->vocabulary, sizeof *s->seen);
    s->listed = base_alloc((size_t)s->vocabulary * sizeof *s->listed);
    if (!s->seen || !s->listed)
        return false;
    if (o->penalty_window == 0 || o->penalty_window > WINDOW_MAX || o->repetition_penalty == 1)
        return true;
    s->window_size = o->penalty_window;
    s->window = base_alloc((size_t)s->window_size * sizeof *s->window);
    return s->window != NULL;
}

status sample_create(sample **out, const kernel_table *k, int vocabulary, const sample_options *o,
                     int choice, err *e)
{
    REQUIRE(vocabulary > 0);
    status checked = sample_options_check(o, vocabulary, e);
    if (checked != STATUS_OK)
        return checked;
    sample *s = base_zalloc(1, sizeof *s);
    if (!s)
        return err_set(e, STATUS_NO_MEMORY, "sampler: no memory");
    s->k = k;
    s->vocabulary = vocabulary;
    s->choice = choice;
    s->o = *o;
    s->o.bias = NULL;
    s->o.banned = NULL;
    bool good = make_edits(s, o) && make_history(s, o);
    size_t most = (size_t)s->n_edits + (s->seen ? (size_t)vocabulary : 0);
    if (good && most)
        good = (s->described = base_alloc(most * sizeof *s->described)) != NULL;
    if (!good) {
        sample_destroy(s);
        return err_set(e, STATUS_NO_MEMORY, "sampler: no memory");
    }
    *out = s;
    return STATUS_OK;
}

void sample_destroy(sample *s)
{
    if (!s)
        return;
    base_free(s->edits);
    base_free(s->seen);
    base_free(s->listed);
    base_free(s->described);
    base_free(s->window);
    base_free(s);
}

void sample_scratch_destroy(sample_scratch *w)
{
    if (!w)
        return;
    base_free(w->row.s);
    base_free(w->row.block_max);
    base_free(w->raw.block_max);
    base_free(w->candidates);
    base_free(w->blocks);
    base_free(w);
}

status sample_scratch_create(sample_scratch **out, int vocabulary, err *e)
{
    REQUIRE(vocabulary > 0);
    int n_blocks = (vocabulary - 1) / BLOCK + 1;
    sample_scratch *w = base_zalloc(1, sizeof *w);
    if (w) {
        w->vocabulary = vocabulary;
        w->row.n = w->raw.n = vocabulary;
        w->row.n_blocks = w->raw.n_blocks = n_blocks;
        w->row.s = base_zalloc((size_t)vocabulary, sizeof(float));
        w->row.block_max = base_zalloc((size_t)n_blocks, sizeof(float));
        w->raw.block_max = base_zalloc((size_t)n_blocks, sizeof(float));
        w->candidates = base_zalloc((size_t)vocabulary, sizeof(candidate));
        w->blocks = base_zalloc((size_t)n_blocks, sizeof(candidate));
    }
    if (!w || !w->row.s || !w->row.block_max || !w->raw.block_max || !w->candidates || !w->blocks) {
        sample_scratch_destroy(w);
        return err_set(e, STATUS_NO_MEMORY, "sampler: no memory for %d tokens", vocabulary);
    }
    *out = w;
    return STATUS_OK;
}

/* ---- history --------------------------------------------------------------------------------------------------- */

static void list(sample *s, int32_t token)
{
    if (s->seen[token].listed)
        return;
    s->seen[token].listed = 1;
    s->listed[s->n_listed++] = token;
}

static void enter_window(sample *s, int32_t token)
{
    if (s->o.repetition_penalty == 1)
        return;
    if (s->window) {
        if (s->window_n == s->window_size)
            s->seen[s->window[s->window_at]].in_window--;
        else
            s->window_n++;
        s->window[s->window_at] = token;
        s->window_at = s->window_at + 1 == s->window_size ? 0 : s->window_at + 1;
    }
    s->seen[token].in_window++;
    list(s, token);
}

void sample_prompt(sample *s, const int32_t *ids, int64_t n)
{
    if (!s->seen)
        return;
    for (int64_t i = 0; i < n; i++)
        if (ids[i] >= 0 && ids[i] < s->vocabulary)
            enter_window(s, ids[i]);
}

void sample_accept(sample *s, int32_t token)
{
    if (!s->seen || token < 0 || token >= s->vocabulary)
        return;
    s->seen[token].generated++;
    list(s, token);
    enter_window(s, token);
}

/* ---- the row --------------------------------------------------------------------------------------------------- */

static inline bool is_finite(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7F800000u) != 0x7F800000u;
}

static void name_bad(sample_scratch *w, const float *logits)
{
    int i = 0;
    while (is_finite(logits[i]))
        i++;
    w->fault = logits[i] == logits[i] ? ROW_INFINITE : ROW_NOT_A_NUMBER;
    w->fault_token = w->row.first + i;
}

static int block_length(const scored_row *row, int b)
{
    return BASE_MIN((int)BLOCK, row->n - b * BLOCK);
}

static void max_of_block(const kernel_table *k, scored_row *row, const float *s, int b)
{
    row->block_max[b] = k->max(s + b * BLOCK, block_length(row, b));
}

/* row = logits · inverse with its block maxima, in one pass over memory. */
static void fill_row(sample_scratch *w, const kernel_table *k, const float *logits, float inverse)
{
    const block_table *block = block_table_for(k);
    scored_row *row = &w->row;
    uint32_t bad = 0;
    int whole = row->n / BLOCK;
    for (int b = 0; b < whole; b++)
        row->block_max[b] = block->fill(row->s + b * BLOCK, logits + b * BLOCK, inverse, &bad);
    for (int i = whole * BLOCK; i < row->n; i++) {
        row->s[i] = logits[i] * inverse;
        bad |= is_finite(logits[i]) ? 0 : 0x80000000u;
    }
    if (whole < row->n_blocks)
        max_of_block(k, row, row->s, whole);
    w->fault = ROW_FINE;
    if (bad >> 31)
        name_bad(w, logits);
}

static float edited(const sample_want *o, const sample_edit *x, float v)
{
    v += x->bias;
    if (x->how & SAMPLE_REPEATED)
        v = v > 0 ? v / o->repetition_penalty : v * o->repetition_penalty;
    if (x->generated > 0)
        v -= o->presence_penalty + o->frequency_penalty * (float)x->generated;
    return v;
}

/* allowed: from the word of the row's first token on. */
static void exclude_unallowed(scored_row *row, const uint64_t *allowed)
{
    int skipped = row->first % 64;
    for (int first = -skipped; first < row->n; first += 64) {
        uint64_t word = allowed[(first + skipped) / 64];
        if (word == UINT64_MAX)
            continue;
        for (int i = BASE_MAX(first, 0); i < BASE_MIN(first + 64, row->n); i++)
            row->s[i] = word >> (i - first) & 1 ? row->s[i] : EXCLUDED;
    }
}

/* The maximum of the block of s[at] after that became `now`. */
static void keep_max(const kernel_table *k, scored_row *row, int64_t at, float now)
{
    int b = (int)(at / BLOCK);
    float before = row->s[at];
    row->s[at] = now;
    if (now >= row->block_max[b])
        row->block_max[b] = now;
    else if (before == row->block_max[b])
        max_of_block(k, row, row->s, b);
}

/* Bias, bans, penalties and mask, on the few tokens they concern. */
static void edit_row(scored_row *row, const kernel_table *k, const sample_want *o,
                     const float *logits, float inverse)
{
    for (int i = 0; i < o->n_edits; i++) {
        const sample_edit *x = &o->edits[i];
        int64_t at = (int64_t)x->token - row->first;
        if (at >= 0 && at < row->n)
            keep_max(k, row, at,
                     x->how & SAMPLE_BANNED ? EXCLUDED : edited(o, x, logits[at]) * inverse);
    }
    if (!o->allowed)
        return;
    exclude_unallowed(row, o->allowed);
    for (int b = 0; b < row->n_blocks; b++)
        max_of_block(k, row, row->s, b);
}

void row_make(sample_scratch *w, const kernel_table *k, const sample_want *want,
              const float *logits, int32_t first, int n)
{
    float inverse = want->temperature < GREEDY_BELOW ? 1 : 1 / want->temperature;
    scored_row *row = &w->row;
    row->first = first;
    row->n = n;
    row->n_blocks = (n + BLOCK - 1) / BLOCK;
    row->max = EXCLUDED;
    w->fault = ROW_FINE;
    w->is_raw = inverse == 1 && want->n_edits == 0 && !want->allowed;
    if (n == 0)
        return;
    fill_row(w, k, logits, inverse);
    edit_row(row, k, want, logits, inverse);
    row->max = k->max(row->block_max, row->n_blocks);
}

void row_make_raw(sample_scratch *w, const kernel_table *k, const float *logits)
{
    const scored_row *row = &w->row;
    scored_row *raw = &w->raw;
    raw->first = row->first;
    raw->n = row->n;
    raw->n_blocks = row->n_blocks;
    raw->max = -FLT_MAX;
    for (int b = 0; b < raw->n_blocks; b++)
        max_of_block(k, raw, logits, b);
    if (raw->n_blocks)
        raw->max = k->max(raw->block_max, raw->n_blocks);
}

/* ---- what a sampler wants -------------------------------------------------------------------------------------- */

/* Tokens that have left the window and were never generated need no more looking at. */
static void tidy_list(sample *s)
{
    for (int i = 0; i < s->n_listed;) {
        history *h = &s->seen[s->listed[i]];
        if (h->generated == 0 && h->in_window == 0) {
            h->listed = 0;
            s->listed[i] = s->listed[--s->n_listed];
        } else {
            i++;
        }
    }
}

/* Of the window with the tokens ahead behind it: what is at place i, the oldest first. */
static int32_t of_window(const sample *s, const int32_t *ahead, int i)
{
    int oldest = s->window_n == s->window_size ? s->window_at : 0;
    return i < s->window_n ? s->window[(oldest + i) % s->window_size] : ahead[i - s->window_n];
}

/* The history as it will be behind the tokens ahead (by 1), or as it was (by −1). */
static void go_ahead(sample *s, const int32_t *ahead, int n, int by)
{
    for (int i = 0; i < n; i++) {
        if (by > 0)
            list(s, ahead[i]);
        s->seen[ahead[i]].generated += (uint32_t)by;
        if (s->o.repetition_penalty == 1)
            continue;
        s->seen[ahead[i]].in_window += (unsigned)by;
        if (s->window && s->window_n + i >= s->window_size)
            s->seen[of_window(s, ahead, s->window_n + i - s->window_size)].in_window -=
                (unsigned)by;
    }
}

static sample_edit describe_token(const sample *s, int32_t token)
{
    sample_edit x = {.token = token};
    if (s->seen && s->seen[token].in_window > 0)
        x.how = SAMPLE_REPEATED;
    if (s->seen)
        x.generated = (int32_t)s->seen[token].generated;
    return x;
}

void sample_describe(sample_want *out, sample *s, const sample_call *c, const int32_t *ahead,
                     int n_ahead)
{
    const sample_options *o = &s->o;
    int n = 0;
    *out = (sample_want){.seed = o->seed,
                         .position = c->position,
                         .choice = s->choice,
                         .top_logprobs = c->top_logprobs,
                         .temperature = o->temperature,
                         .top_k = o->top_k,
                         .top_p = o->top_p,
                         .min_p = o->min_p,
                         .repetition_penalty = o->repetition_penalty,
                         .presence_penalty = o->presence_penalty,
                         .frequency_penalty = o->frequency_penalty,
                         .edits = s->described,
                         .allowed = c->allowed};
    if (s->seen) {
        tidy_list(s);
        go_ahead(s, ahead, n_ahead, 1);
    }
    for (int i = 0; i < s->n_listed; i++)
        s->described[n++] = describe_token(s, s->listed[i]);
    for (int i = 0; i < s->n_edits; i++) { /* these know all of their tokens: they come last */
        const edit *x = &s->edits[i];
        s->described[n] = describe_token(s, x->token);
        s->described[n].bias = x->bias;
        s->described[n++].how |= x->banned ? SAMPLE_BANNED : 0;
    }
    if (s->seen)
        go_ahead(s, ahead, n_ahead, -1);
    out->n_edits = n;
}

/* ---- whole rows ------------------------------------------------------------------------------------------------ */

static status of_whole_row(const sample_want *want, sample_scratch *w, const kernel_table *k,
                           const float *logits, sample_result *out, err *e)
{
    const int32_t borders[] = {0, w->vocabulary};
    sample_cut c;
    sample_cut_begin(&c, want, borders, 1);
    sample_cut_whole(&c, w, k, logits);
    return sample_cut_result(&c, out, e);
}

status sample_next(sample *s, sample_scratch *w, const sample_call *c, sample_result *out, err *e)
{
    REQUIRE(w->vocabulary == s->vocabulary);
    REQUIRE(c->top_logprobs >= -1 && c->top_logprobs <= SAMPLE_TOP_MAX);
    sample_want want;
    sample_describe(&want, s, c, NULL, 0);
    return of_whole_row(&want, w, s->k, c->logits, out, e);
}

status sample_score(sample_scratch *w, const kernel_table *k, const float *logits, int32_t token,
                    int top_logprobs, sample_result *out, err *e)
{
    REQUIRE(token >= 0 && token < w->vocabulary);
    REQUIRE(top_logprobs >= 0 && top_logprobs <= SAMPLE_TOP_MAX);
    const sample_want want = {
        .scores = true, .token = token, .temperature = 1, .top_logprobs = top_logprobs};
    return of_whole_row(&want, w, k, logits, out, e);
}
