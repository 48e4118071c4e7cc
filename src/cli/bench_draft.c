/* See bench_draft.h. */
#include "cli/bench_draft.h"
#include "os/os.h"

/* What one run of the engine gave. The texts are compared by a hash over (sequence, index, token). */
typedef struct turn {
    int n_sequences, n_begun, n_done;
    uint64_t began_us, ended_us, text, n_timed;
    bool failed;
    err why;
} turn;

static void take_event(void *context, const engine_event *event)
{
    turn *t = context;
    if (event->kind == ENGINE_DONE) {
        t->n_done++;
        if (event->reason == ENGINE_ERROR) {
            t->failed = true;
            err_set(&t->why, event->code, "%s", event->text);
        }
        return;
    }
    if (event->kind != ENGINE_TOKEN)
        return;
    uint64_t place = hash_u64((uint64_t)event->index, event->id);
    t->text ^= hash_u64((uint64_t)event->token, place); /* in any order */
    if (event->index == 0 && ++t->n_begun == t->n_sequences)
        t->began_us = os_now_us();
    else if (t->began_us)
        t->n_timed++;
    t->ended_us = os_now_us();
}

static status submit_all(engine *g, const bench_draft *p, err *e)
{
    int n = BASE_MAX(p->depth, 1);
    int64_t n_vocab = model_get_card(p->m)->n_vocab;
    int32_t *prompt = base_alloc(sizeof *prompt * (size_t)n);
    if (!prompt)
        return err_set(e, STATUS_NO_MEMORY, "bench: no memory for a prompt of %d tokens", n);
    sample_bias alphabet[BENCH_ALPHABET];
    for (int i = 0; i < p->alphabet; i++)
        alphabet[i] = (sample_bias){(int32_t)(hash_u64((uint64_t)i, 5) % (uint64_t)n_vocab), 1e5f};
    status s = STATUS_OK;
    for (int k = 0; k < p->n_sequences && s == STATUS_OK; k++) {
        for (int i = 0; i < n; i++)
            prompt[i] = (int32_t)(hash_u64((uint64_t)i, 17 + (uint64_t)k) % (uint64_t)n_vocab);
        engine_request r = {.id = (uint64_t)k,
                            .prompt = prompt,
                            .n_prompt = n,
                            .max_tokens = p->gen + 1,
                            .top_logprobs = -1,
                            .no_reuse = true,
                            .sample = SAMPLE_DEFAULTS};
        r.sample.temperature = p->temperature;
        r.sample.seed = (uint64_t)k;
        r.sample.bias = alphabet;
        r.sample.n_bias = p->alphabet;
        s = engine_submit(g, &r, e);
    }
    base_free(prompt);
    return s;
}

static status run_once(turn *t, engine_stats *stats, const bench_draft *p, engine_draft kind,
                       err *e)
{
    engine_options o = {.max_sequences = p->n_sequences,
                        .no_cache = true,
                        .draft = kind,
                        .draft_model = p->draft_model};
    engine *g;
    bool busy = true;
    *t = (turn){.n_sequences = p->n_sequences};
    status s = engine_create(&g, p->m, &o, take_event, t, e);
    if (s != STATUS_OK)
        return s;
    s = submit_all(g, p, e);
    while (s == STATUS_OK && busy)
        s = engine_step(g, &busy, e);
    if (s == STATUS_OK && t->failed) {
        s = t->why.code;
        *e = t->why;
    }
    engine_get_stats(g, stats);
    engine_destroy(g);
    return s;
}

static double rate(const turn *t)
{
    uint64_t us = t->ended_us - t->began_us;
    return t->began_us && us ? (double)t->n_timed * 1e6 / (double)us : 0;
}

status bench_draft_turn(bench_draft_result *out, const bench_draft *p, bool plain_first, err *e)
{
    turn turns[2]; /* without, with */
    engine_stats stats[2];
    for (int i = 0; i < 2; i++) {
        int k = plain_first ? i : 1 - i;
        status s = run_once(&turns[k], &stats[k], p, k ? p->kind : ENGINE_DRAFT_NONE, e);
        if (s != STATUS_OK)
            return s;
    }
    if (turns[0].text != turns[1].text)
        return err_set(e, STATUS_INTERNAL, "bench: the text with drafts is not the one without");
    *out = (bench_draft_result){.plain = rate(&turns[0]),
                                .drafted = rate(&turns[1]),
                                .n_drafted = stats[1].drafted_tokens,
                                .n_accepted = stats[1].accepted_tokens,
                                .n_steps = stats[1].steps,
                                .n_tokens = stats[1].generated_tokens};
    return STATUS_OK;
}
