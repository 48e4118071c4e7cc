/*
 * The sampler: options, history, and the order of things from a row of logits to a token. See sample.h for the definitions.
 *
 * The logits are copied once into the scratch row, where edits and penalties are applied to the few tokens they concern; excluded
 * tokens become a finite value so low that exp of it is 0. Filters then make a list of candidates (select.c), and the noise chooses
 * among them (noise.c); without filters the noise goes over the whole row.
 */
#include "sample/inside.h"

#include <stdlib.h>
#include <string.h>

#define GREEDY_BELOW 1e-6f
#define WINDOW_MAX   (1 << 20) /* a longer window is all there is */

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
    edit *edits;     /* [n_edits], one a token */
    history *seen;   /* [vocabulary], NULL without penalties */
    int32_t *listed; /* [vocabulary]: tokens that have something in `seen` */
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
    if (!make_edits(s, o) || !make_history(s, o)) {
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

static inline uint32_t exponent_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x7F800000u;
}

/* The sign bit comes up when one of the n is not finite. */
static inline uint32_t look_for_bad(const float *x, int n)
{
    uint32_t bad = 0;
    if (n == BLOCK) { /* a constant count: compilers make vectors of it */
        for (int i = 0; i < BLOCK; i++)
            bad |= exponent_of(x[i]) + 0x00800000u;
        return bad;
    }
    for (int i = 0; i < n; i++)
        bad |= exponent_of(x[i]) + 0x00800000u;
    return bad;
}

static status name_bad(const float *logits, err *e)
{
    int i = 0;
    while (exponent_of(logits[i]) != 0x7F800000u)
        i++;
    return err_set(e, STATUS_CORRUPT, "the logit of token %d is %s", i,
                   logits[i] == logits[i] ? "infinite" : "not a number");
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
static status fill_row(const kernel_table *k, scored_row *row, const float *logits, float inverse,
                       err *e)
{
    uint32_t bad = 0;
    for (int b = 0; b < row->n_blocks; b++) {
        int first = b * BLOCK, n = block_length(row, b);
        bad |= look_for_bad(logits + first, n);
        if (inverse == 1)
            memcpy(row->s + first, logits + first, (size_t)n * sizeof *logits);
        else
            k->scale(row->s + first, logits + first, inverse, n);
        max_of_block(k, row, row->s, b);
    }
    return bad >> 31 ? name_bad(logits, e) : STATUS_OK;
}

static float penalised(const sample *s, int32_t token, float v)
{
    if (!s->seen)
        return v;
    const sample_options *o = &s->o;
    const history *h = &s->seen[token];
    if (h->in_window > 0)
        v = v > 0 ? v / o->repetition_penalty : v * o->repetition_penalty;
    if (h->generated > 0)
        v -= o->presence_penalty + o->frequency_penalty * (float)h->generated;
    return v;
}

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

static void exclude_unallowed(float *row, int n, const uint64_t *allowed)
{
    for (int first = 0; first < n; first += 64) {
        uint64_t word = allowed[first / 64];
        int end = BASE_MIN(first + 64, n);
        if (word == UINT64_MAX)
            continue;
        for (int i = first; i < end; i++)
            row[i] = word >> (i - first) & 1 ? row[i] : EXCLUDED;
    }
}

/* Bias, bans, penalties and mask, on the few tokens they concern. */
static void edit_row(sample *s, scored_row *row, const sample_call *c, float inverse)
{
    tidy_list(s);
    for (int i = 0; i < s->n_listed; i++) {
        int32_t t = s->listed[i];
        row->s[t] = penalised(s, t, c->logits[t]) * inverse;
    }
    for (int i = 0; i < s->n_edits; i++) {
        const edit *x = &s->edits[i];
        row->s[x->token] =
            x->banned ? EXCLUDED : penalised(s, x->token, c->logits[x->token] + x->bias) * inverse;
    }
    if (c->allowed)
        exclude_unallowed(row->s, row->n, c->allowed);
    if (c->allowed || s->n_listed + s->n_edits > row->n_blocks) {
        for (int b = 0; b < row->n_blocks; b++)
            max_of_block(s->k, row, row->s, b);
        return;
    }
    for (int i = 0; i < s->n_listed; i++)
        max_of_block(s->k, row, row->s, s->listed[i] / BLOCK);
    for (int i = 0; i < s->n_edits; i++)
        max_of_block(s->k, row, row->s, s->edits[i].token / BLOCK);
}

/* logits → w->row: everything up to and with the temperature. */
static status make_row(sample *s, sample_scratch *w, const sample_call *c, err *e)
{
    float temperature = s->o.temperature;
    float inverse = temperature < GREEDY_BELOW ? 1 : 1 / temperature;
    status checked = fill_row(s->k, &w->row, c->logits, inverse, e);
    if (checked != STATUS_OK)
        return checked;
    edit_row(s, &w->row, c, inverse);
    w->row.max = s->k->max(w->row.block_max, w->row.n_blocks);
    if (w->row.max <= EXCLUDED_MAX)
        return err_set(e, STATUS_INVALID, "no token is allowed here");
    if (w->row.max > 1e30f)
        return err_set(e, STATUS_CORRUPT, "logits up to %g are too large", (double)w->row.max);
    w->is_raw = inverse == 1 && s->n_edits == 0 && s->n_listed == 0 && !c->allowed;
    return STATUS_OK;
}

/* ---- filters --------------------------------------------------------------------------------------------------- */

/* Candidates of the shortest prefix with mass p among all tokens; the search for them widens until the mass is there. floor: nothing
 * below is wanted. */
static int find_nucleus(sample *s, sample_scratch *w, float p, float floor)
{
    const scored_row *row = &w->row;
    double target = (double)p * s->k->exp_sum(row->s, row->n, row->max) * WEIGHT_ONE;
    for (float reach = 4;; reach *= 1.5f) {
        bool last = reach > 60 || row->max - reach <= floor; /* exp is 0 below −60 */
        int n = select_at_least(w->candidates, row, row->s, last ? floor : row->max - reach, s->k);
        select_weigh(w->candidates, n, row->max);
        uint64_t mass = 0;
        for (int i = 0; i < n; i++)
            mass += w->candidates[i].weight;
        if ((double)mass >= target)
            return select_mass(w->candidates, n, row->max, target);
        if (last)
            return n;
    }
}

static int keep_mass(candidate *c, int n, float p, float max)
{
    uint64_t mass = 0;
    select_weigh(c, n, max);
    for (int i = 0; i < n; i++)
        mass += c[i].weight;
    return select_mass(c, n, max, (double)p * (double)mass);
}

static int keep_at_least(candidate *c, int n, float floor)
{
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (c[i].s >= floor)
            c[kept++] = c[i];
    return kept;
}

static int32_t choose(sample *s, sample_scratch *w, int64_t position)
{
    const sample_options *o = &s->o;
    const scored_row *row = &w->row;
    if (o->temperature < GREEDY_BELOW || o->top_k == 1 || o->top_p <= 0)
        return select_first_best(row, row->s);
    noise_key key = noise_key_of(o->seed, s->choice, position);
    bool by_k = o->top_k > 0 && o->top_k < s->vocabulary, by_p = o->top_p<1, by_min = o->min_p> 0;
    float floor = by_min ? row->max + (float)kernel_log64((double)o->min_p) : EXCLUDED;
    int n = -1; /* no list of candidates: everything down to the floor */
    if (by_k) {
        n = select_top_k(w->candidates, w->blocks, row, row->s, o->top_k, s->k);
        if (by_p)
            n = keep_mass(w->candidates, n, o->top_p, row->max);
        if (by_min)
            n = keep_at_least(w->candidates, n, floor);
    } else if (by_p) {
        n = find_nucleus(s, w, o->top_p, floor);
    }
    return n < 0 ? noise_choose_row(row, floor, key, s->k) : noise_choose(w->candidates, n, key);
}

/* ---- log-probabilities ----------------------------------------------------------------------------------------- */

static void add_logprobs(const kernel_table *k, sample_scratch *w, const sample_call *c,
                         sample_result *r)
{
    scored_row *raw = w->is_raw ? &w->row : &w->raw;
    if (!w->is_raw) {
        for (int b = 0; b < raw->n_blocks; b++)
            max_of_block(k, raw, c->logits, b);
        raw->max = k->max(raw->block_max, raw->n_blocks);
    }
    double log_sum = kernel_log64(k->exp_sum(c->logits, raw->n, raw->max));
    r->logprob = (float)((double)c->logits[r->token] - (double)raw->max - log_sum);
    int n = BASE_MIN(c->top_logprobs, w->vocabulary);
    if (n == 0)
        return;
    n = select_top_k(w->candidates, w->blocks, raw, c->logits, n, k);
    select_sort(w->candidates, n);
    for (int i = 0; i < n; i++) {
        double logprob = (double)w->candidates[i].s - (double)raw->max - log_sum;
        r->top[i] = (sample_top){w->candidates[i].id, (float)logprob};
    }
    r->n_top = n;
}

status sample_next(sample *s, sample_scratch *w, const sample_call *c, sample_result *out, err *e)
{
    REQUIRE(w->vocabulary == s->vocabulary);
    REQUIRE(c->top_logprobs >= -1 && c->top_logprobs <= SAMPLE_TOP_MAX);
    status checked = make_row(s, w, c, e);
    if (checked != STATUS_OK)
        return checked;
    sample_result r;
    r.token = choose(s, w, c->position);
    r.logprob = 0;
    r.n_top = 0;
    if (c->top_logprobs >= 0)
        add_logprobs(s->k, w, c, &r);
    *out = r;
    return STATUS_OK;
}

status sample_score(sample_scratch *w, const kernel_table *k, const float *logits, int32_t token,
                    int top_logprobs, sample_result *out, err *e)
{
    REQUIRE(token >= 0 && token < w->vocabulary);
    REQUIRE(top_logprobs >= 0 && top_logprobs <= SAMPLE_TOP_MAX);
    sample_result r = {.token = token};
    sample_call c = {.logits = logits, .top_logprobs = top_logprobs};
    status checked = fill_row(k, &w->row, logits, 1, e);
    if (checked != STATUS_OK)
        return checked;
    w->is_raw = false;
    add_logprobs(k, w, &c, &r);
    *out = r;
    return STATUS_OK;
}
