/*
 * What is asked of the rows of a step, where they lie on several ranks (ranks.h): for every sequence that gets a token its sampler's want, for
 * every choice that branches off one, for guesses one a row as if those before it stood, for prompts that are scored the token that follows.
 * Answers are what choose_token would have found itself. Rows come as a whole only when a question cannot be put: there is no room for it, or a form cannot
 * say what it allows.
 */
#include "engine/inside.h"

#include "engine/ranks.h"

/* q's want of a row, behind n_ahead more tokens. False: the row comes as a whole. */
static bool ask(flight *f, sequence *q, int row, int choice, const uint64_t *allowed,
                const int32_t *ahead, int n_ahead)
{
    const sample_call call = {.position = q->n_tokens + n_ahead,
                              .allowed = allowed,
                              .top_logprobs = q->of->r.top_logprobs};
    sample_want want;
    sample_describe(&want, q->sampler, &call, ahead, n_ahead);
    want.choice = choice;
    int number = engine_group_ask(f->group, row, &want);
    if (number < 0 || f->answer[row] < 0)
        f->answer[row] = number;
    return number >= 0;
}

/* The row behind q's last token; all choices begin there when they have not yet. */
static void ask_next(flight *f, sequence *q, int row)
{
    bool forks = q->choice == 0 && q->n_tokens == q->n_prompt;
    int end = forks ? q->of->r.n_choices : q->choice + 1;
    const uint64_t *allowed = NULL;
    if (q->guide && sample_guide_mask(q->guide, &allowed, NULL) != STATUS_OK) {
        engine_group_ask_whole(f->group, row);
        return;
    }
    for (int choice = q->choice; choice < end; choice++)
        if (!ask(f, q, row, choice, allowed, NULL, 0))
            return;
}

/* Whether the guess can be what the row before it gives, with an answer that goes on: then q's form goes on with it. */
static bool guide_on(sequence *q, const uint64_t *allowed, int32_t guess)
{
    const request *r = q->of;
    for (int i = 0; i < r->r.n_end; i++)
        if (r->end[i] == guess)
            return false;
    return allowed[guess / 64] >> guess % 64 & 1 &&
           sample_guide_accept(q->guide, guess, NULL) == STATUS_OK &&
           !sample_guide_is_over(q->guide);
}

/* Rows of guesses, as far as they may be looked at. */
static void ask_guessed(flight *f, sequence *q)
{
    const int32_t *guesses = q->tokens + q->n_tokens;
    const uint64_t *allowed;
    sample_mark mark = {0};
    if (q->guide)
        mark = sample_guide_mark(q->guide);
    for (int i = 0; i <= q->n_draft; i++) {
        int row = q->output + i;
        allowed = NULL;
        if (q->guide && sample_guide_mask(q->guide, &allowed, NULL) != STATUS_OK)
            engine_group_ask_whole(f->group, row);
        else
            (void)ask(f, q, row, q->choice, allowed, guesses, i);
        if (q->guide && i < q->n_draft && (!allowed || !guide_on(q, allowed, guesses[i])))
            break;
    }
    if (q->guide)
        sample_guide_back(q->guide, mark);
}

/* A prompt's n rows, of which the first is that of position `first`. */
static void ask_scores(flight *f, sequence *q, int64_t first, int n)
{
    const request *r = q->of;
    for (int i = 0; i < n; i++) {
        int64_t at = first + i + 1;
        if (at >= q->n_prompt || at <= r->n_scored)
            continue;
        const sample_want want = {.scores = true,
                                  .token = r->prompt[at],
                                  .temperature = 1,
                                  .top_logprobs = r->r.top_logprobs};
        f->answer[q->output + i] = engine_group_ask(f->group, q->output + i, &want);
    }
}

void engine_ask(engine *g, flight *f)
{
    f->group = engine_group_of(g->at[g->now].m);
    for (int i = 0; i < f->n_outputs; i++)
        f->answer[i] = -1;
    if (!f->group)
        return;
    engine_group_ask_begin(f->group);
    for (int i = 0; i < f->n_runs; i++) {
        sequence *q = f->run_of[i];
        int n = f->runs[i].n_tokens;
        if (q->side != g->now || q->output < 0)
            continue;
        int64_t length = engine_state_length(q->state);
        if (engine_is_guessed(g, q, n)) {
            ask_guessed(f, q);
            continue;
        }
        if (q->scored)
            ask_scores(f, q, length, n);
        if (length + n == q->n_tokens && !q->of->r.prompt_only)
            ask_next(f, q, q->output + (q->scored ? n - 1 : 0));
    }
}

bool engine_answer(const flight *f, int row, int choice, sample_result *out, status *s, err *e)
{
    if (!f->group || f->answer[row] < 0)
        return false;
    *s = engine_group_answer(f->group, f->answer[row] + choice, out, e);
    return true;
}
