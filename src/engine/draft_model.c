/*
 * Guesses by a draft model: a small model with the same vocabulary runs ahead of the sequence, all sequences side by side, one token a step,
 * each drawn with the sequence's own sampler and noise at its own position: where both models agree on the distribution they draw the same
 * token, also at high temperatures. Penalties do not see the guesses themselves; that costs acceptance, not truth.
 *
 * Its state follows the sequence by catching up: what is pending is read first, in pieces, and the guesses that did not come are cut off.
 * With constant-size state the cut goes back to a snapshot taken before the first guess.
 * Not here: how many guesses (draft.c).
 */
#include "engine/draft.h"
#include "os/os.h"

#include <string.h>

enum { ORDINARY = 4 }; /* tokens of a sequence in a step whose time is like that of one */

struct draft_model {
    model *m; /* borrowed */
    engine_pool *pool;
    sample_scratch *scratch;
    int n_vocab, n_target, max_tokens, max_runs;
    int64_t context;
    int32_t *ids;     /* [max_tokens] */
    model_run *runs;  /* [max_runs] */
    int32_t *outputs; /* [max_runs] */
    int *call_of;     /* [max_runs]; by output: whose it is */
    int *ran;         /* [max_runs] tokens of the run */
    float *logits;    /* [max_runs, V] */
    float *row;       /* [V of the target] where the widths differ */
};

/* ---- the same vocabulary ------------------------------------------------------------------------------------------- */

static status differ(const model_card *small, const model_card *target, int32_t id, str a, str b,
                     err *e)
{
    return err_set(e, STATUS_INVALID,
                   "the draft model %s has another vocabulary than %s: token %d is '%.*s' there "
                   "and '%.*s' here",
                   small->name, target->name, (int)id, (int)BASE_MIN(a.length, (size_t)40), a.data,
                   (int)BASE_MIN(b.length, (size_t)40), b.data);
}

static status compare_tokens(const text_tokenizer *a, const text_tokenizer *b,
                             const model_card *small, const model_card *target, err *e)
{
    int32_t n = BASE_MIN(text_token_count(a), text_token_count(b));
    for (int32_t id = 0; id < n; id++) {
        str x = text_token_piece(a, id), y = text_token_piece(b, id);
        if (x.length != y.length || (x.length && memcmp(x.data, y.data, x.length)))
            return differ(small, target, id, x, y, e);
    }
    return STATUS_OK;
}

/* Embeddings may be padded: the widths differ by less than `pad` where all tokens are the same. */
status engine_draft_check(const model_card *small, const model_card *target, err *e)
{
    enum { PAD = 1024 };
    text_tokenizer *a = NULL, *b = NULL;
    status of_a = model_tokenizer_create(&a, small, NULL);
    status of_b = model_tokenizer_create(&b, target, NULL), s = STATUS_OK;
    int64_t more = small->n_vocab - target->n_vocab;
    int64_t most = of_a == STATUS_OK && of_b == STATUS_OK ? PAD : 0;
    if (small->pooling != MODEL_POOLING_NONE)
        s = err_set(e, STATUS_INVALID, "the draft model %s embeds texts and writes none",
                    small->name);
    else if (more > most || more < -most)
        s = err_set(e, STATUS_INVALID,
                    "the draft model %s has another vocabulary than %s: %lld tokens, expected %lld",
                    small->name, target->name, (long long)small->n_vocab,
                    (long long)target->n_vocab);
    else if (of_a == STATUS_OK && of_b == STATUS_OK)
        s = compare_tokens(a, b, small, target, e);
    text_tokenizer_destroy(a);
    text_tokenizer_destroy(b);
    return s;
}

/* ---- creation ------------------------------------------------------------------------------------------------------ */

void draft_model_destroy(draft_model *d)
{
    if (!d)
        return;
    engine_pool_destroy(d->pool);
    sample_scratch_destroy(d->scratch);
    base_free(d->ids);
    base_free(d->runs);
    base_free(d->outputs);
    base_free(d->call_of);
    base_free(d->ran);
    base_free(d->logits);
    base_free(d->row);
    base_free(d);
}

static bool allocate(draft_model *d)
{
    size_t runs = (size_t)d->max_runs;
    d->ids = base_alloc(sizeof *d->ids * (size_t)d->max_tokens);
    d->runs = base_alloc(sizeof *d->runs * runs);
    d->outputs = base_alloc(sizeof *d->outputs * runs);
    d->call_of = base_alloc(sizeof *d->call_of * runs);
    d->ran = base_alloc(sizeof *d->ran * runs);
    d->logits = base_alloc(sizeof *d->logits * runs * (size_t)d->n_vocab);
    d->row = base_alloc(sizeof *d->row * (size_t)d->n_target);
    return d->ids && d->runs && d->outputs && d->call_of && d->ran && d->logits && d->row;
}

status draft_model_create(draft_model **out, model *m, const model *target, err *e)
{
    const model_options *o = model_get_options(m);
    REQUIRE(m != target);
    status s = engine_draft_check(model_get_card(m), model_get_card(target), e);
    if (s != STATUS_OK)
        return s;
    draft_model *d = base_zalloc(1, sizeof *d);
    if (!d)
        return err_set(e, STATUS_NO_MEMORY, "engine: no memory for a draft model");
    d->m = m;
    d->n_vocab = (int)model_get_card(m)->n_vocab;
    d->n_target = (int)model_get_card(target)->n_vocab;
    d->max_tokens = o->max_tokens;
    d->max_runs = BASE_MIN(BASE_MIN(o->max_outputs, o->n_sequences), o->max_tokens);
    d->context = o->context;
    if (!allocate(d))
        s = err_set(e, STATUS_NO_MEMORY, "engine: no memory for a draft model");
    if (s == STATUS_OK)
        s = sample_scratch_create(&d->scratch, d->n_target, e);
    if (s == STATUS_OK)
        s = engine_pool_create(&d->pool, m, model_get_card(m)->hash, 0, e);
    if (s != STATUS_OK) {
        draft_model_destroy(d);
        return s;
    }
    *out = d;
    return STATUS_OK;
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

static void forget(draft_call *c)
{
    draft_sequence_forget(c->s);
    c->n = 0;
}

/* Takes the call's next `n` tokens (of its past, or its newest guess) into the batch. */
static bool add_run(draft_model *d, model_batch *b, draft_call *calls, int i, const int32_t *ids,
                    int n, bool output)
{
    engine_state *state = *draft_sequence_state(calls[i].s);
    if (engine_state_extend(state, n, NULL) != STATUS_OK)
        return false;
    for (int k = 0; k < n; k++) /* padding that only the target has stands for nothing */
        d->ids[b->n_tokens + k] = ids[k] < d->n_vocab ? ids[k] : 0;
    engine_state_run(state, n, &d->runs[b->n_runs]);
    d->call_of[b->n_runs] = i;
    d->ran[b->n_runs++] = n;
    b->n_tokens += n;
    if (output)
        d->outputs[b->n_outputs++] = b->n_tokens - 1;
    return true;
}

/* What a call still has to read comes into the first step, as much as there is room for. */
static void add_past(draft_model *d, model_batch *b, draft_call *calls, int i)
{
    draft_call *c = &calls[i];
    engine_state **state = draft_sequence_state(c->s);
    if (!*state) {
        if (engine_state_create(state, d->pool, NULL) != STATUS_OK) {
            c->n = 0;
            return;
        }
        engine_state_reuse(*state, c->tokens, c->n_tokens);
    }
    draft_model_cut(*state, c->n_tokens - 1); /* a step that did not come about */
    int64_t length = engine_state_length(*state), pending = c->n_tokens - length;
    int64_t n =
        BASE_MIN(BASE_MIN(pending, d->max_tokens - b->n_tokens), engine_state_run_limit(*state));
    if (n < 1 || b->n_runs == d->max_runs || c->n_tokens + c->n > d->context) {
        c->n = 0;
        return;
    }
    if (!add_run(d, b, calls, i, c->tokens + length, (int)n, n == pending))
        forget(c);
    else if (n < pending)
        c->n = 0; /* more in the next step */
}

static const float *row_of(const draft_model *d, int output)
{
    const float *row = d->logits + (size_t)output * (size_t)d->n_vocab;
    if (d->n_vocab == d->n_target)
        return row;
    int n = BASE_MIN(d->n_vocab, d->n_target);
    memcpy(d->row, row, sizeof *row * (size_t)n);
    for (int i = n; i < d->n_target; i++)
        d->row[i] = -1e30f;
    return d->row;
}

/* Runs the batch, whose tokens belong to the sequences' past (keep) or are guesses, and draws guess number `level`. */
static status run_level(draft_model *d, const model_batch *b, draft_call *calls, int level, err *e)
{
    status s = model_step(d->m, b, d->logits, e);
    const int32_t *ids = b->ids;
    int output = 0, row = -1;
    for (int r = 0; r < b->n_runs && s == STATUS_OK; r++) {
        draft_call *c = &calls[d->call_of[r]];
        engine_state *state = *draft_sequence_state(c->s);
        s = engine_state_commit(state, ids, d->ran[r], level == 0, e);
        ids += d->ran[r];
        row += d->ran[r];
        if (s != STATUS_OK || output == b->n_outputs || d->outputs[output] != row)
            continue;
        sample_result chosen;
        sample_call call = {
            .logits = row_of(d, output++), .position = c->n_tokens + level, .top_logprobs = -1};
        s = sample_next(c->sampler, d->scratch, &call, &chosen, e);
        if (s == STATUS_OK)
            c->ids[level] = chosen.token;
        if (s == STATUS_OK && level == 0 && engine_state_snapshot(state, NULL) != STATUS_OK)
            c->n = 1; /* constant-size state could not come back from more */
    }
    return s;
}

status draft_model_run(draft_model *d, draft_call *calls, int n_calls, float *level_us, err *e)
{
    uint64_t spent = 0;
    int n_levels = 0;
    *level_us = 0;
    for (int level = 0; level < DRAFT_MOST; level++) {
        model_batch b = {.ids = d->ids, .runs = d->runs, .outputs = d->outputs};
        for (int i = 0; i < n_calls; i++) {
            if (calls[i].n <= level)
                continue;
            if (level == 0)
                add_past(d, &b, calls, i);
            else if (!add_run(d, &b, calls, i, &calls[i].ids[level - 1], 1, true))
                calls[i].n = level;
        }
        if (b.n_runs == 0)
            break;
        uint64_t begin = os_now_us();
        status s = run_level(d, &b, calls, level, e);
        if (s != STATUS_OK)
            return s;
        if (b.n_tokens <= b.n_runs * ORDINARY) {
            spent += os_now_us() - begin;
            n_levels++;
        }
    }
    if (n_levels > 0)
        *level_us = (float)spent / (float)n_levels;
    return STATUS_OK;
}

void draft_model_cut(engine_state *s, int64_t length)
{
    int64_t now;
    if (length < engine_state_length(s))
        engine_state_truncate(s, length, &now, NULL);
}
