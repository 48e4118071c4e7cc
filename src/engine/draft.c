/*
 * How many guesses a step checks. With n sequences a step of n rows gives n tokens; every guess adds a row, and a token when it and the
 * ones before it stand. Guesses are taken in the order of their chance over all sequences, and of all lengths of that list the one
 * with the most tokens per time is used.
 *
 *   chance  of one more guess standing, by how long the match before it is: a running mean, of this sequence, begun with what the engine
 *           has seen. Lookup guesses are compared with what came also when they were not checked, so learning costs nothing.
 *   time    of a step by its number of rows: a running mean that hiccups hardly move; all entries follow when the machine gets slower
 *           or contexts longer. What is not known is guessed cheap, so that it is tried once, and forgotten after a while.
 */
#include "engine/draft.h"

#include <string.h>

enum {
    COST_ROWS = 64,   /* steps with more rows: time is taken to be proportional */
    COST_KEPT = 1024, /* steps after which a time that was not met again is forgotten */
    PATIENCE =
        16, /* steps without guesses of a draft model before two are tried again; doubles … */
    PATIENCE_MAX = 512 /* … up to this */
};

#define ROW_GUESS      0.03f /* of a step that is not known: what one more row adds */
#define LEAST_GAIN     1.02f /* guesses that promise less are not worth it */
#define LEAST_CHANCE   0.02f
#define SEQUENCE_SHARE (1.0f / 12) /* of a new observation in a running mean */
#define ENGINE_SHARE   (1.0f / 64)

typedef struct costs {
    float us[COST_ROWS + 1]; /* 0 = not known */
    uint32_t met[COST_ROWS + 1];
    uint32_t steps;
    float us_per_row; /* of larger steps */
} costs;

typedef struct chances {
    float of[DRAFT_LENGTHS];
} chances;

struct draft {
    engine_draft kind;
    bool always, broken;
    draft_model *m; /* NULL: lookup */
    float level_us; /* of a step of the draft model */
    costs costs;
    chances chances;
};

struct draft_sequence {
    draft *of;
    lookup seen;
    engine_state *state; /* of the draft model */
    chances chances;
    int length;      /* of the match behind the guesses */
    int n_predicted; /* guesses that were made, checked or not */
    int32_t predicted[DRAFT_MOST];
    int skipped, patience;
};

/* ---- creation ------------------------------------------------------------------------------------------------------ */

status draft_create(draft **out, const engine_options *o, const model *target, err *e)
{
    *out = NULL;
    if (o->draft == ENGINE_DRAFT_NONE)
        return STATUS_OK;
    draft *d = base_zalloc(1, sizeof *d);
    if (!d)
        return err_set(e, STATUS_NO_MEMORY, "engine: no memory for drafts");
    d->kind = o->draft;
    d->always = o->draft_always;
    d->chances = (chances){{0.3f, 0.4f, 0.5f, 0.6f, 0.75f, 0.85f}};
    if (d->kind == ENGINE_DRAFT_MODEL) {
        d->chances.of[0] = 0.7f;
        status s = draft_model_create(&d->m, o->draft_model, target, e);
        if (s != STATUS_OK) {
            base_free(d);
            return s;
        }
    }
    *out = d;
    return STATUS_OK;
}

void draft_destroy(draft *d)
{
    if (!d)
        return;
    draft_model_destroy(d->m);
    base_free(d);
}

status draft_sequence_create(draft_sequence **out, draft *d, int capacity, err *e)
{
    draft_sequence *s = base_zalloc(1, sizeof *s);
    if (!s)
        return err_set(e, STATUS_NO_MEMORY, "engine: no memory for drafts of a sequence");
    s->of = d;
    s->chances = d->chances;
    s->patience = PATIENCE;
    status result = d->m ? STATUS_OK : lookup_init(&s->seen, capacity, e);
    if (result != STATUS_OK) {
        base_free(s);
        return result;
    }
    *out = s;
    return STATUS_OK;
}

void draft_sequence_destroy(draft_sequence *s)
{
    if (!s)
        return;
    engine_state_drop(s->state);
    lookup_fini(&s->seen);
    base_free(s);
}

void draft_sequence_forget(draft_sequence *s)
{
    if (!s)
        return;
    engine_state_drop(s->state);
    s->state = NULL;
}

engine_state **draft_sequence_state(draft_sequence *s)
{
    return &s->state;
}

/* ---- time ---------------------------------------------------------------------------------------------------------- */

void draft_measure(draft *d, int n_rows, uint64_t us)
{
    costs *c = &d->costs;
    float now = (float)us;
    c->steps++;
    if (n_rows > COST_ROWS) {
        float each = now / (float)n_rows;
        c->us_per_row =
            c->us_per_row == 0 ? each : c->us_per_row + (each - c->us_per_row) * SEQUENCE_SHARE;
        return;
    }
    float before = c->us[n_rows];
    c->met[n_rows] = c->steps;
    if (before == 0) {
        c->us[n_rows] = now;
        return;
    }
    now = BASE_MIN(BASE_MAX(now, before / 4), before * 4);
    float factor = 1 + (now / before - 1) * (now < before ? 0.25f : 0.0625f);
    for (int i = 1; i <= COST_ROWS; i++)
        c->us[i] *= factor;
}

/* Of a step of so many rows, in µs; 0 when nothing at all is known. */
static float cost_of(costs *c, int n_rows)
{
    if (n_rows > COST_ROWS && c->us_per_row > 0)
        return c->us_per_row * (float)n_rows;
    int n = BASE_MIN(n_rows, COST_ROWS), below = n, above = n;
    if (c->us[n] > 0 && c->steps - c->met[n] > COST_KEPT)
        c->us[n] = 0;
    while (below > 0 && c->us[below] == 0)
        below--;
    while (above <= COST_ROWS && c->us[above] == 0)
        above++;
    float us = 0;
    if (below > 0 && above <= COST_ROWS) {
        float share = above == below ? 0 : (float)(n - below) / (float)(above - below);
        us = c->us[below] + (c->us[above] - c->us[below]) * share;
    } else if (below > 0) {
        us = c->us[below] * (1 + ROW_GUESS * (float)(n - below));
    } else if (above <= COST_ROWS) {
        us = c->us[above] / (1 + ROW_GUESS * (float)(above - n));
    }
    return us * (float)n_rows / (float)n;
}

/* ---- chances ------------------------------------------------------------------------------------------------------- */

static int class_of(const draft *d, int length)
{
    static const int from[DRAFT_LENGTHS] = {0, 3, 4, 6, 10, 18};
    int c = DRAFT_LENGTHS - 1;
    while (c > 0 && (d->m || length < from[c]))
        c--;
    return c;
}

/* That guess i stands when the ones before it do. */
static float chance_of(const draft_sequence *s, int i)
{
    return s->chances.of[class_of(s->of, s->length + i)];
}

void draft_learn(draft *d, draft_sequence *s, const int32_t *tokens, int n_tokens, int n_new)
{
    int first = n_tokens - n_new, n_right = 0;
    for (int i = 0; i < s->n_predicted && i < n_new; i++) {
        bool right = s->predicted[i] == tokens[first + i];
        int c = class_of(d, s->length + i);
        s->chances.of[c] += ((float)right - s->chances.of[c]) * SEQUENCE_SHARE;
        d->chances.of[c] += ((float)right - d->chances.of[c]) * ENGINE_SHARE;
        if (!right)
            break;
        n_right++;
    }
    if (s->state) /* of the draft model: the last guess was never computed */
        draft_model_cut(s->state, first + BASE_MIN(n_right, n_new - 1));
    if (n_right > 0)
        s->patience = PATIENCE;
    s->n_predicted = 0;
}

/* ---- how many ------------------------------------------------------------------------------------------------------ */

typedef struct choice {
    float rate; /* tokens a µs */
    int n;
} choice;

/* Sets n of every call to what gives the most tokens per time. */
static void choose(draft *d, draft_call *calls, int n_calls, int n_rows, int spare)
{
    int order[COST_ROWS], n = 0;
    float next[COST_ROWS]; /* by call: that its next guess stands, and all before it */
    float tokens = (float)n_calls, levels = 0, plain = cost_of(&d->costs, n_rows);
    for (int i = 0; i < n_calls; i++)
        calls[i].n = 0;
    if (plain == 0) /* the first step */
        return;
    choice best = {tokens / plain * LEAST_GAIN, 0};
    n_calls = BASE_MIN(n_calls, (int)COST_ROWS);
    for (int i = 0; i < n_calls; i++)
        next[i] = calls[i].room > 0 ? chance_of(calls[i].s, 0) : 0;
    for (spare = BASE_MIN(spare, (int)COST_ROWS); n < spare;) {
        int likeliest = 0;
        for (int i = 1; i < n_calls; i++)
            if (next[i] > next[likeliest])
                likeliest = i;
        if (next[likeliest] < LEAST_CHANCE)
            break;
        draft_call *c = &calls[likeliest];
        order[n++] = likeliest;
        tokens += next[likeliest];
        c->n++;
        next[likeliest] *= c->n < c->room ? chance_of(c->s, c->n) : 0;
        levels = BASE_MAX(levels, (float)c->n);
        float rate = tokens / (cost_of(&d->costs, n_rows + n) + levels * d->level_us);
        if (rate > best.rate)
            best = (choice){rate, n};
    }
    while (n > best.n)
        calls[order[--n]].n--;
}

static void choose_all(draft_call *calls, int n_calls, int spare)
{
    for (int i = 0; i < n_calls; i++) {
        calls[i].n = BASE_MIN(calls[i].room, spare);
        spare -= calls[i].n;
    }
}

/* A draft model that was not asked for a while is tried with two guesses, or it would never be known that it is good again. */
static void try_again(draft_call *calls, int n_calls, int spare)
{
    for (int i = 0; i < n_calls; i++)
        spare -= calls[i].n;
    for (int i = 0; i < n_calls; i++) {
        draft_sequence *s = calls[i].s;
        if (calls[i].n > 0) {
            s->skipped = 0;
        } else if (calls[i].room >= 2 && spare >= 2 && ++s->skipped >= s->patience) {
            s->skipped = 0;
            s->patience = BASE_MIN(s->patience * 2, (int)PATIENCE_MAX);
            calls[i].n = 2;
            spare -= 2;
        }
    }
}

/* The draft model makes its guesses. When it fails there are none from now on: nobody else suffers. */
static void run_model(draft *d, draft_call *calls, int n_calls)
{
    float level_us = 0;
    err e;
    status s = d->broken ? STATUS_INTERNAL : draft_model_run(d->m, calls, n_calls, &level_us, &e);
    if (s != STATUS_OK && !d->broken) {
        log_warn("engine", "the draft model failed and is used no more: %s", e.text);
        d->broken = true;
    }
    if (level_us > 0)
        d->level_us =
            d->level_us == 0 ? level_us : d->level_us + (level_us - d->level_us) * SEQUENCE_SHARE;
    for (int i = 0; i < n_calls; i++) {
        draft_call *c = &calls[i];
        if (s != STATUS_OK)
            c->n = 0;
        c->s->n_predicted = c->n;
        memcpy(c->s->predicted, c->ids, sizeof c->ids[0] * (size_t)c->n);
    }
}

void draft_propose(draft *d, draft_call *calls, int n_calls, int n_rows, int spare)
{
    for (int i = 0; i < n_calls; i++) {
        draft_call *c = &calls[i];
        draft_sequence *s = c->s;
        c->room = BASE_MAX(BASE_MIN(c->room, (int)DRAFT_MOST), 0);
        s->n_predicted = s->length = 0;
        if (!d->m)
            c->room = s->n_predicted =
                lookup_find(&s->seen, c->tokens, c->n_tokens, c->room, s->predicted, &s->length);
    }
    spare = BASE_MAX(spare, 0);
    if (d->always)
        choose_all(calls, n_calls, spare);
    else
        choose(d, calls, n_calls, n_rows, spare);
    if (!d->m) {
        for (int i = 0; i < n_calls; i++)
            memcpy(calls[i].ids, calls[i].s->predicted, sizeof calls[i].ids);
        return;
    }
    if (!d->always)
        try_again(calls, n_calls, spare);
    run_model(d, calls, n_calls);
}
