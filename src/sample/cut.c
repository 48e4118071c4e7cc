/*
 * One row of logits, whole or in slices: what is said of a slice in each round, and how the parts of all slices make the token and its
 * log-probabilities. See sample.h for the rounds.
 *
 * Everything is combined exactly: maxima and candidates have a total order, weights and counts are integers, and the sums of exp are those of
 * contract (b), multiples of 2^-24 over leaves of 16 tokens, of which a border never divides one. So the result does not depend on the borders,
 * and the whole row is the case of one slice: its parts are not even written down.
 * Not here: how parts travel (src/engine/sampling.c), what happens to a row before its tokens are chosen (sample.c).
 */
#include "kernel/scalar.h"
#include "sample/inside.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

enum {
    LEVELS = 4, /* values that MASS asks for at once */
    MAXIMA_WORDS = 4,
    MASS_WORDS = 2 + 3 * LEVELS,
    PICK_WORDS = 7,
    RESULT_WORDS = 7
};

#define LARGEST 1e30f    /* of scores that can be chosen among */
#define LEAST   -FLT_MAX /* below every logit: the maximum of none of them */

/* Distances below the maximum that MASS asks for, time after time; the last is everything. A whole row is not asked: see nucleus.c. */
static const float reaches[][LEVELS] = {
    {1, 2, 3, 4}, {5, 6, 7.5f, 9}, {11, 13.5f, 17, 20}, {26, 32, 45, INFINITY}};

enum { FAULT_BANNED = ROW_NOT_A_NUMBER + 1, FAULT_LARGE, FAULTS };

/* What is known of one slice in a round. */
typedef struct part {
    int fault;
    int32_t fault_token;
    float max, raw_max;
    double sum; /* MASS: of the scores; PICK: of the logits */
    uint64_t mass[LEVELS];
    int32_t counts[LEVELS];
    int n, n_top;
    candidate *of;                  /* [n], in the scratch */
    const uint32_t *raw;            /* as words: id, score, logit; NULL: of is the whole row's */
    sample_top top[SAMPLE_TOP_MAX]; /* of logits */
} part;

/* ---- what a want needs ----------------------------------------------------------------------------------------- */

static int n_tokens(const sample_cut *c)
{
    return c->borders[c->n_slices];
}

static int width(const sample_cut *c, int i)
{
    return c->borders[i + 1] - c->borders[i];
}

static bool is_greedy(const sample_want *w)
{
    return w->temperature < GREEDY_BELOW || w->top_k == 1 || w->top_p <= 0;
}

static bool is_by_k(const sample_cut *c)
{
    return !is_greedy(c->want) && c->want->top_k > 0 && c->want->top_k < n_tokens(c);
}

/* By top-p out of all tokens. */
static bool is_by_p(const sample_cut *c)
{
    return !c->want->scores && !is_greedy(c->want) && !is_by_k(c) && c->want->top_p < 1;
}

static float least(const sample_want *w, float max)
{
    return w->min_p > 0 ? max + (float)kernel_log64((double)w->min_p) : EXCLUDED;
}

/* With candidates of all slices; a whole row needs none. */
static bool is_listed(const sample_cut *c)
{
    return is_by_p(c) && c->n_slices > 1;
}

void sample_cut_begin(sample_cut *c, const sample_want *w, const int32_t *borders, int n_slices)
{
    REQUIRE(n_slices >= 1 && n_slices <= SAMPLE_CUT_SLICES);
    *c = (sample_cut){.want = w, .borders = borders, .n_slices = n_slices, .floor = EXCLUDED};
    bool by_min = !is_greedy(w) && !is_by_k(c) && w->min_p > 0;
    bool needs_max = w->top_logprobs >= 0 || is_by_p(c) || by_min;
    c->round = needs_max ? SAMPLE_CUT_MAXIMA : SAMPLE_CUT_PICK;
    if (n_slices > 1 && is_by_k(c) && w->top_k > SAMPLE_CUT_CANDIDATES)
        c->round = SAMPLE_CUT_WHOLE;
}

static int most_candidates(const sample_cut *c, int i)
{
    if (c->want->scores || is_greedy(c->want))
        return 1;
    if (is_by_k(c))
        return BASE_MIN(c->want->top_k, width(c, i));
    return is_listed(c) ? c->counts[i] : 1;
}

static int most_top(const sample_cut *c, int i)
{
    return BASE_MAX(BASE_MIN(c->want->top_logprobs, width(c, i)), 0);
}

size_t sample_cut_words(const sample_cut *c, int i)
{
    size_t each = c->want->top_logprobs >= 0 ? 3 : 2;
    if (width(c, i) == 0)
        return 0;
    switch (c->round) {
    case SAMPLE_CUT_MAXIMA:
        return MAXIMA_WORDS;
    case SAMPLE_CUT_MASS:
        return MASS_WORDS;
    case SAMPLE_CUT_PICK:
        return PICK_WORDS + each * (size_t)most_candidates(c, i) + 2 * (size_t)most_top(c, i);
    case SAMPLE_CUT_OVER:
    case SAMPLE_CUT_WHOLE:
        break;
    }
    return 0;
}

/* ---- looking at a slice ---------------------------------------------------------------------------------------- */

static float level(const sample_cut *c, int j)
{
    float at = c->max - reaches[c->asked][j];
    return at > c->floor ? at : c->floor;
}

static void look_at_mass(const sample_cut *c, sample_scratch *w, const kernel_table *k, part *p)
{
    const scored_row *row = &w->row;
    float levels[LEVELS];
    const int last = LEVELS - 1;
    if (c->asked == 0)
        p->sum = k->exp_sum(row->s, row->n, c->max);
    for (int j = 0; j <= last; j++)
        levels[j] = level(c, j);
    int n = select_at_least(w->candidates, row, row->s, levels[last], k);
    select_weigh(w->candidates, n, c->max);
    for (int i = 0; i < n; i++)
        for (int j = last; j >= 0 && w->candidates[i].s >= levels[j]; j--) {
            p->mass[j] += w->candidates[i].weight;
            p->counts[j]++;
        }
    w->n_listed = n;
}

static void look_for_top(const sample_cut *c, sample_scratch *w, const kernel_table *k,
                         const float *logits, part *p)
{
    if (!w->is_raw)
        row_make_raw(w, k, logits);
    const scored_row *raw = w->is_raw ? &w->row : &w->raw;
    p->sum = k->exp_sum(logits, raw->n, c->raw_max);
    int n = BASE_MIN(c->want->top_logprobs, raw->n);
    if (n <= 0)
        return;
    p->n_top = select_top_k(w->candidates, w->blocks, raw, logits, n, k);
    for (int i = 0; i < p->n_top; i++)
        p->top[i] = (sample_top){w->candidates[i].id, w->candidates[i].s};
    w->n_listed = -1;
}

static int keep_at_least(candidate *c, int n, float floor)
{
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (c[i].s >= floor)
            c[kept++] = c[i];
    return kept;
}

static int look_for_candidates(const sample_cut *c, sample_scratch *w, const kernel_table *k,
                               const float *logits)
{
    const sample_want *o = c->want;
    const scored_row *row = &w->row;
    if (o->scores) {
        int64_t at = (int64_t)o->token - row->first;
        if (at < 0 || at >= row->n)
            return 0;
        w->candidates[0] = (candidate){logits[at], o->token, 0};
        return 1;
    }
    if (row->max <= EXCLUDED_MAX || row->max < c->floor)
        return 0;
    if (is_by_k(c))
        return select_top_k(w->candidates, w->blocks, row, row->s, o->top_k, k);
    if (is_listed(c) && w->n_listed >= 0)
        return keep_at_least(w->candidates, w->n_listed, c->floor);
    if (is_listed(c))
        return select_at_least(w->candidates, row, row->s, c->floor, k);
    noise_key key = noise_key_of(o->seed, o->choice, o->position);
    int32_t id;
    if (is_greedy(o))
        id = select_first_best(row, row->s);
    else if (is_by_p(c))
        id = nucleus_choose(row, w->candidates, o->top_p, c->floor, key, k);
    else
        id = noise_choose_row(row, (token_place){c->floor, INT32_MAX}, key, k);
    w->candidates[0] = (candidate){row->s[id - row->first], id, 0};
    return 1;
}

static void look(const sample_cut *c, sample_scratch *w, const kernel_table *k, const float *logits,
                 int i, part *p)
{
    memset(p, 0, offsetof(part, top));
    if (!c->seen || w->owner != c || w->slice != i) { /* else it is there, from the round before */
        REQUIRE(width(c, i) <= w->vocabulary);
        row_make(w, k, c->want, logits, c->borders[i], width(c, i));
        w->owner = c;
        w->slice = i;
        w->n_listed = -1;
    }
    p->of = w->candidates;
    p->fault = w->fault;
    p->fault_token = w->fault_token;
    p->max = EXCLUDED;
    p->raw_max = LEAST;
    if (w->fault != ROW_FINE)
        return;
    p->max = BASE_MIN(BASE_MAX(w->row.max, EXCLUDED), FLT_MAX); /* finite, also on its way */
    if (p->max > LARGEST && !c->want->scores)
        return; /* nothing is to be chosen */
    if (c->round == SAMPLE_CUT_MAXIMA && c->want->top_logprobs >= 0) {
        if (!w->is_raw)
            row_make_raw(w, k, logits);
        p->raw_max = w->is_raw ? w->row.max : w->raw.max;
    } else if (c->round == SAMPLE_CUT_MASS) {
        look_at_mass(c, w, k, p);
    } else if (c->round == SAMPLE_CUT_PICK) {
        if (c->want->top_logprobs >= 0)
            look_for_top(c, w, k, logits, p);
        p->n = look_for_candidates(c, w, k, logits);
    }
}

/* ---- putting parts together ------------------------------------------------------------------------------------ */

static void fail(sample_cut *c, int fault, int32_t token)
{
    c->fault = fault;
    c->fault_token = token;
    c->round = SAMPLE_CUT_OVER;
}

/* The maximum, or why there is nothing to be chosen. */
static bool join_maxima(sample_cut *c, const part *parts)
{
    c->max = EXCLUDED;
    c->raw_max = LEAST;
    for (int i = 0; i < c->n_slices; i++) {
        if (parts[i].fault != ROW_FINE) {
            fail(c, parts[i].fault, parts[i].fault_token);
            return false;
        }
        c->max = BASE_MAX(c->max, parts[i].max);
        c->raw_max = BASE_MAX(c->raw_max, parts[i].raw_max);
    }
    if (c->want->scores || (c->max > EXCLUDED_MAX && c->max <= LARGEST))
        return true;
    fail(c, c->max > LARGEST ? FAULT_LARGE : FAULT_BANNED, 0);
    return false;
}

static void hear_maxima(sample_cut *c, const part *parts)
{
    c->seen = true;
    if (!join_maxima(c, parts))
        return;
    if (!is_greedy(c->want) && !is_by_k(c) && !c->want->scores)
        c->floor = least(c->want, c->max);
    c->round = is_listed(c) ? SAMPLE_CUT_MASS : SAMPLE_CUT_PICK;
}

/* Down to the first level that has the mass; when none has it, everything. */
static void hear_mass(sample_cut *c, const part *parts)
{
    double sum = 0;
    for (int i = 0; i < c->n_slices; i++)
        sum += parts[i].sum;
    if (c->asked == 0)
        c->target = (double)c->want->top_p * sum * WEIGHT_ONE;
    const int n = LEVELS;
    bool last = level(c, n - 1) == c->floor;
    for (int j = 0; j < n; j++) {
        uint64_t mass = 0;
        for (int i = 0; i < c->n_slices; i++)
            mass += parts[i].mass[j];
        if ((double)mass < c->target && !(last && j == n - 1))
            continue;
        c->floor = level(c, j);
        c->round = SAMPLE_CUT_PICK;
        for (int i = 0; i < c->n_slices; i++) {
            c->counts[i] = parts[i].counts[j];
            if (c->counts[i] > SAMPLE_CUT_CANDIDATES)
                c->round = SAMPLE_CUT_WHOLE;
        }
        return;
    }
    c->asked++;
}

static int keep_mass(candidate *c, int n, float p, float max)
{
    uint64_t mass = 0;
    select_weigh(c, n, max);
    for (int i = 0; i < n; i++)
        mass += c[i].weight;
    return select_mass(c, n, max, (double)p * (double)mass);
}

static int32_t first_best(const candidate *of, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (of[i].s > of[best].s || (of[i].s == of[best].s && of[i].id < of[best].id))
            best = i;
    return of[best].id;
}

/* Out of the candidates of all slices. */
static int32_t choose(const sample_cut *c, candidate *of, int n)
{
    const sample_want *o = c->want;
    if (o->scores || is_greedy(o))
        return first_best(of, n);
    if (is_by_k(c)) {
        if (n > o->top_k)
            select_first(of, n, o->top_k);
        n = BASE_MIN(n, o->top_k);
        if (o->top_p < 1)
            n = keep_mass(of, n, o->top_p, c->max);
        if (o->min_p > 0)
            n = keep_at_least(of, n, least(o, c->max));
    } else if (is_listed(c)) {
        select_weigh(of, n, c->max);
        n = select_mass(of, n, c->max, c->target);
    }
    return noise_choose(of, n, noise_key_of(o->seed, o->choice, o->position));
}

static void join_top(sample_cut *c, sample_scratch *w, const part *parts, double log_sum)
{
    int n = 0;
    for (int i = 0; i < c->n_slices; i++)
        for (int j = 0; j < parts[i].n_top; j++)
            w->candidates[n++] = (candidate){parts[i].top[j].logprob, parts[i].top[j].token, 0};
    select_sort(w->candidates, n);
    n = BASE_MIN(n, c->want->top_logprobs);
    for (int i = 0; i < n; i++) {
        double logprob = (double)w->candidates[i].s - (double)c->raw_max - log_sum;
        c->result.top[i] = (sample_top){w->candidates[i].id, (float)logprob};
    }
    c->result.n_top = n;
}

/* whole: the logits, where the only slice is the whole row. False: there are no candidates, or no sum. */
static bool hear_pick(sample_cut *c, sample_scratch *w, const part *parts, const float *whole)
{
    float raw = 0, raw_max = c->raw_max; /* of an earlier round */
    double sum = 0;
    int n = 0;
    if (!join_maxima(c, parts))
        return true;
    c->raw_max = raw_max;
    for (int i = 0; i < c->n_slices; i++) {
        n += parts[i].n;
        sum += parts[i].sum;
    }
    bool tells = c->want->top_logprobs >= 0;
    if (n == 0 || (tells && !(sum >= 0.5)))
        return false;
    c->result = (sample_result){.token = choose(c, w->candidates, n)};
    c->round = SAMPLE_CUT_OVER;
    if (!tells)
        return true;
    for (int i = 0; i < c->n_slices && !whole; i++)
        for (int j = 0; j < parts[i].n; j++)
            if (parts[i].raw[3 * j] == (uint32_t)c->result.token)
                memcpy(&raw, &parts[i].raw[3 * j + 2], sizeof raw);
    if (whole)
        raw = whole[c->result.token];
    double log_sum = kernel_log64(sum);
    c->result.logprob = (float)((double)raw - (double)c->raw_max - log_sum);
    join_top(c, w, parts, log_sum);
    return true;
}

void sample_cut_whole(sample_cut *c, sample_scratch *w, const kernel_table *k, const float *logits)
{
    const int32_t borders[] = {0, n_tokens(c)};
    sample_cut one;
    part p;
    sample_cut_begin(&one, c->want, borders, 1);
    w->owner = NULL;
    while (one.round < SAMPLE_CUT_OVER) {
        look(&one, w, k, logits, 0, &p);
        if (one.round == SAMPLE_CUT_MAXIMA)
            hear_maxima(&one, &p);
        else if (one.round == SAMPLE_CUT_MASS)
            hear_mass(&one, &p);
        else
            REQUIRE(hear_pick(&one, w, &p, logits));
    }
    w->owner = NULL;
    one.borders = c->borders;
    one.n_slices = c->n_slices;
    *c = one;
}

/* ---- parts as words -------------------------------------------------------------------------------------------- */

static void put_pick(const sample_cut *c, const part *p, const float *logits, int i,
                     uint32_t *words)
{
    bool tells = c->want->top_logprobs >= 0;
    memcpy(words,
           (const uint32_t[]){(uint32_t)p->fault, (uint32_t)p->fault_token, float_to_bits(p->max),
                              (uint32_t)p->n, (uint32_t)p->n_top},
           5 * sizeof *words);
    memcpy(words + 5, &p->sum, sizeof p->sum);
    words += PICK_WORDS;
    for (int j = 0; j < p->n; j++) {
        *words++ = (uint32_t)p->of[j].id;
        *words++ = float_to_bits(p->of[j].s);
        if (tells)
            *words++ = float_to_bits(logits[p->of[j].id - c->borders[i]]);
    }
    words += (size_t)(most_candidates(c, i) - p->n) * (tells ? 3 : 2);
    for (int j = 0; j < p->n_top; j++) {
        *words++ = (uint32_t)p->top[j].token;
        *words++ = float_to_bits(p->top[j].logprob);
    }
}

void sample_cut_look(const sample_cut *c, sample_scratch *w, const kernel_table *k,
                     const float *logits, int i, uint32_t *words)
{
    part p;
    size_t n = sample_cut_words(c, i);
    if (n == 0)
        return;
    look(c, w, k, logits, i, &p);
    memset(words, 0, n * sizeof *words);
    if (c->round == SAMPLE_CUT_MAXIMA) {
        words[0] = (uint32_t)p.fault;
        words[1] = (uint32_t)p.fault_token;
        words[2] = float_to_bits(p.max);
        words[3] = float_to_bits(p.raw_max);
    } else if (c->round == SAMPLE_CUT_MASS) {
        memcpy(words, &p.sum, sizeof p.sum);
        memcpy(words + 2, p.mass, sizeof p.mass);
        memcpy(words + 2 + 2 * LEVELS, p.counts, sizeof p.counts);
    } else {
        put_pick(c, &p, logits, i, words);
    }
}

static bool is_finite(float x)
{
    return x >= -3.4028235e38f && x <= 3.4028235e38f;
}

static bool is_number(uint32_t word)
{
    float x = float_from_bits(word);
    return x == x;
}

static bool is_in(const sample_cut *c, int i, uint32_t token)
{
    return token < (uint32_t)c->borders[i + 1] && token >= (uint32_t)c->borders[i];
}

static bool get_fault(const sample_cut *c, int i, const uint32_t *words, part *p)
{
    p->fault = (int)words[0];
    p->fault_token = (int32_t)words[1];
    p->max = float_from_bits(words[2]);
    return words[0] <= ROW_NOT_A_NUMBER && is_finite(p->max) &&
           (words[0] == ROW_FINE || is_in(c, i, words[1]));
}

static bool get_mass(const sample_cut *c, int i, const uint32_t *words, part *p)
{
    memcpy(&p->sum, words, sizeof p->sum);
    memcpy(p->mass, words + 2, sizeof p->mass);
    memcpy(p->counts, words + 2 + 2 * LEVELS, sizeof p->counts);
    bool good = p->sum >= 0 && p->sum <= width(c, i);
    for (int j = 0; j < LEVELS; j++)
        good = good && p->counts[j] >= 0 && p->counts[j] <= width(c, i) &&
               (double)p->mass[j] <= (double)p->counts[j] * WEIGHT_ONE;
    return good;
}

/* room: what is left of the scratch. */
static bool get_pick(const sample_cut *c, int i, const uint32_t *words, part *p, int room)
{
    size_t each = c->want->top_logprobs >= 0 ? 3 : 2, most = (size_t)most_candidates(c, i);
    if (!get_fault(c, i, words, p) || words[3] > most || words[4] > (uint32_t)most_top(c, i) ||
        words[3] > (uint32_t)room)
        return false;
    p->n = (int)words[3];
    p->n_top = (int)words[4];
    memcpy(&p->sum, words + 5, sizeof p->sum);
    bool good = p->sum >= 0 && p->sum <= width(c, i);
    words += PICK_WORDS;
    p->raw = words;
    for (int j = 0; j < p->n; j++) {
        const uint32_t *at = words + each * (size_t)j;
        p->of[j] = (candidate){float_from_bits(at[1]), (int32_t)at[0], 0};
        good = good && is_in(c, i, at[0]) && is_finite(p->of[j].s) && p->of[j].s <= p->max &&
               (each == 2 || is_finite(float_from_bits(at[2])));
    }
    words += each * most;
    for (int j = 0; j < p->n_top; j++) {
        p->top[j] = (sample_top){(int32_t)words[2 * j], float_from_bits(words[2 * j + 1])};
        good = good && is_in(c, i, words[2 * j]) && is_finite(p->top[j].logprob);
    }
    return good;
}

static bool get_part(const sample_cut *c, int i, const uint32_t *words, part *p, int room)
{
    p->max = EXCLUDED;
    p->raw_max = LEAST;
    if (width(c, i) == 0)
        return true;
    if (c->round == SAMPLE_CUT_MASS)
        return get_mass(c, i, words, p);
    if (c->round == SAMPLE_CUT_PICK)
        return get_pick(c, i, words, p, room);
    p->raw_max = float_from_bits(words[3]);
    return get_fault(c, i, words, p) && is_finite(p->raw_max);
}

status sample_cut_hear(sample_cut *c, sample_scratch *w, const uint32_t *const *words, err *e)
{
    part parts[SAMPLE_CUT_SLICES];
    int n = 0;
    bool good = true;
    for (int i = 0; i < c->n_slices && good; i++) {
        memset(&parts[i], 0, offsetof(part, top));
        parts[i].of = w->candidates + n;
        good = get_part(c, i, words[i], &parts[i], w->vocabulary - n);
        if (!good)
            return err_set(e, STATUS_CORRUPT, "what slice %d says of its tokens %d to %d cannot be",
                           i, (int)c->borders[i], (int)c->borders[i + 1] - 1);
        n += parts[i].n;
    }
    if (c->round == SAMPLE_CUT_MAXIMA)
        hear_maxima(c, parts);
    else if (c->round == SAMPLE_CUT_MASS)
        hear_mass(c, parts);
    else if (c->round == SAMPLE_CUT_PICK && !hear_pick(c, w, parts, NULL))
        return err_set(e, STATUS_CORRUPT, "%d slices have no candidates", c->n_slices);
    return STATUS_OK;
}

/* ---- results --------------------------------------------------------------------------------------------------- */

status sample_cut_result(const sample_cut *c, sample_result *out, err *e)
{
    switch (c->fault) {
    case ROW_INFINITE:
    case ROW_NOT_A_NUMBER:
        return err_set(e, STATUS_CORRUPT, "the logit of token %d is %s", (int)c->fault_token,
                       c->fault == ROW_INFINITE ? "infinite" : "not a number");
    case FAULT_BANNED:
        return err_set(e, STATUS_INVALID, "no token is allowed here");
    case FAULT_LARGE:
        return err_set(e, STATUS_CORRUPT, "logits up to %g are too large", (double)c->max);
    default:
        *out = c->result;
        return STATUS_OK;
    }
}

size_t sample_cut_result_words(const sample_want *w)
{
    return RESULT_WORDS + 2 * (size_t)BASE_MAX(w->top_logprobs, 0);
}

void sample_cut_put(const sample_cut *c, uint32_t *words)
{
    const sample_result *r = &c->result;
    memset(words, 0, sample_cut_result_words(c->want) * sizeof *words);
    memcpy(words,
           (const uint32_t[]){(uint32_t)c->round, (uint32_t)c->fault, (uint32_t)c->fault_token,
                              float_to_bits(c->max), (uint32_t)r->token, float_to_bits(r->logprob),
                              (uint32_t)r->n_top},
           RESULT_WORDS * sizeof *words);
    for (int i = 0; i < r->n_top; i++) {
        words[RESULT_WORDS + 2 * i] = (uint32_t)r->top[i].token;
        words[RESULT_WORDS + 2 * i + 1] = float_to_bits(r->top[i].logprob);
    }
}

status sample_cut_get(sample_cut *c, const uint32_t *words, err *e)
{
    uint32_t end = (uint32_t)n_tokens(c);
    bool good = words[0] == SAMPLE_CUT_OVER && words[1] < FAULTS && words[2] < end &&
                words[4] < end && is_number(words[5]) &&
                words[6] <= (uint32_t)BASE_MAX(c->want->top_logprobs, 0);
    sample_result r = {.token = (int32_t)words[4],
                       .logprob = float_from_bits(words[5]),
                       .n_top = good ? (int)words[6] : 0};
    for (int i = 0; i < r.n_top; i++) {
        uint32_t token = words[RESULT_WORDS + 2 * i];
        good = good && token < end && is_number(words[RESULT_WORDS + 2 * i + 1]);
        r.top[i] = (sample_top){(int32_t)token, float_from_bits(words[RESULT_WORDS + 2 * i + 1])};
    }
    if (!good)
        return err_set(e, STATUS_CORRUPT,
                       "a result of sampling cannot be: round %u, fault %u, token %u of %u, %u of "
                       "%d most likely",
                       words[0], words[1], words[4], end, words[6], c->want->top_logprobs);
    c->round = (sample_cut_round)words[0];
    c->fault = (int)words[1];
    c->fault_token = (int32_t)words[2];
    c->max = float_from_bits(words[3]);
    c->result = r;
    return STATUS_OK;
}
