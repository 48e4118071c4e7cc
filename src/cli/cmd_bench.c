/*
 * shoal bench MODEL: how fast a model reads prompts and writes answers on this machine, by the model's step alone: no server, no queue, no
 * cached prefixes. For every number of threads the model is loaded anew; figures are medians over the repetitions.
 *
 *   prompt   tokens of one prompt ÷ time until its last position is computed
 *   decode   tokens of all sequences ÷ time, one token of each a step, sampled greedily, behind `depth` positions of context
 *   drafts   with --draft: the same sequences through the engine with and without guesses, by turns. --alphabet 4 makes any model's text
 *            repeat itself (only so many tokens may be chosen), --temperature 1 gives text that does not
 */
#include "cli/bench_draft.h"
#include "cli/cli.h"
#include "cli/engine_options.h"
#include "cli/ranks.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_THREAD_COUNTS = 16, MOST_REPS = 101, MOST_OPS = 64 };

typedef struct plan {
    int threads[MOST_THREAD_COUNTS], n_threads;
    int prompt, gen, depth, sequences, reps;
    bool ops, json;
    engine_cut cut;
    char program[4096];
    model_kv kv;
    engine_draft draft;
    char draft_source[STORE_PATH]; /* of a draft model */
    float temperature;
    int alphabet;
} plan;

typedef struct runner {
    const plan *p;
    engine_team *team;
    model *m; /* the team's */
    engine_pool *pool;
    engine_state **states; /* [sequences] */
    int32_t *ids;          /* [max(prompt, depth, sequences)] */
    int32_t *outputs;
    model_run *runs;
    float *logits; /* [sequences, V] */
    sample *sampler;
    sample_scratch *scratch;
    int n_vocab, max_tokens;
} runner;

/* ---- options ------------------------------------------------------------------------------------------------------- */

static status read_threads(plan *p, const char *text, err *e)
{
    char copy[128];
    if (!text || !*text) {
        p->threads[p->n_threads++] = os_cpu_count();
        return STATUS_OK;
    }
    if ((size_t)snprintf(copy, sizeof copy, "%s", text) >= sizeof copy)
        return err_set(e, STATUS_INVALID, "--threads: the list is too long");
    for (char *at = copy, *next; at; at = next) {
        next = strchr(at, ',');
        if (next)
            *next++ = '\0';
        uint64_t n;
        if (!base_parse_u64(at, &n) || n < 1 || n > 1024 || p->n_threads == MOST_THREAD_COUNTS)
            return err_set(e, STATUS_INVALID,
                           "--threads: expected at most %d numbers from 1 to 1024 with commas "
                           "between, got '%s'",
                           MOST_THREAD_COUNTS, text);
        p->threads[p->n_threads++] = (int)n;
    }
    return STATUS_OK;
}

static status read_count(int *out, const cli *c, cli_option o, uint64_t least, uint64_t most,
                         err *e)
{
    uint64_t n = cli_whole(c, o);
    if (n < least || n > most)
        return err_set(e, STATUS_INVALID, "--%s: expected %llu to %llu, got %llu",
                       cli_options[o].name, (unsigned long long)least, (unsigned long long)most,
                       (unsigned long long)n);
    *out = (int)n;
    return STATUS_OK;
}

static status read_temperature(float *out, const cli *c, err *e)
{
    const char *text = cli_text(c, OPT_temperature);
    double x = text && *text ? cli_number(c, OPT_temperature) : 0;
    if (!(x >= 0 && x <= 100))
        return err_set(e, STATUS_INVALID, "--temperature: expected 0 to 100, got %g", x);
    *out = (float)x;
    return STATUS_OK;
}

static status read_plan(plan *p, const cli *c, err *e)
{
    *p = (plan){.ops = cli_flag(c, OPT_ops), .json = cli_flag(c, OPT_json)};
    status s = read_threads(p, cli_text(c, OPT_threads), e);
    if (s == STATUS_OK)
        s = read_count(&p->prompt, c, OPT_prompt, 0, 1 << 20, e);
    if (s == STATUS_OK)
        s = read_count(&p->gen, c, OPT_gen, 0, 1 << 20, e);
    if (s == STATUS_OK)
        s = read_count(&p->depth, c, OPT_depth, 0, 1 << 20, e);
    if (s == STATUS_OK)
        s = read_count(&p->sequences, c, OPT_sequences, 1, 256, e);
    if (s == STATUS_OK)
        s = read_count(&p->reps, c, OPT_reps, 1, MOST_REPS, e);
    if (s == STATUS_OK)
        s = cli_read_kv(&p->kv, c, e);
    if (s == STATUS_OK)
        s = cli_read_draft(&p->draft, p->draft_source, c, e);
    if (s == STATUS_OK)
        s = read_count(&p->alphabet, c, OPT_alphabet, 0, BENCH_ALPHABET, e);
    if (s == STATUS_OK)
        s = read_temperature(&p->temperature, c, e);
    if (s == STATUS_OK && p->draft && p->gen == 0)
        s = err_set(e, STATUS_INVALID, "--draft needs tokens to decode: --gen is 0");
    if (s == STATUS_OK && p->prompt == 0 && p->gen == 0)
        s = err_set(e, STATUS_INVALID, "--prompt 0 and --gen 0: nothing is left to measure");
    if (s == STATUS_OK)
        s = ranks_read(&p->cut, c, e);
    return s == STATUS_OK ? os_self_path(p->program, sizeof p->program, e) : s;
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

static void close_runner(runner *r)
{
    for (int i = 0; r->states && i < r->p->sequences; i++)
        engine_state_drop(r->states[i]);
    engine_pool_destroy(r->pool);
    engine_team_destroy(r->team);
    sample_destroy(r->sampler);
    sample_scratch_destroy(r->scratch);
    base_free(r->states);
    base_free(r->ids);
    base_free(r->outputs);
    base_free(r->runs);
    base_free(r->logits);
}

static status open_runner(runner *r, const plan *p, const cli *c, const char *source, int threads,
                          err *e)
{
    int longest = BASE_MAX(p->prompt, p->depth + p->gen) + 1;
    *r = (runner){.p = p};
    engine_team_options t = {
        .cut = p->cut, .source = source, .program = p->program, .open = store_open};
    t.model = (model_options){.device = cli_text(c, OPT_device),
                              .isa = cli_text(c, OPT_isa),
                              .n_threads = threads,
                              .kv = p->kv,
                              .context = longest,
                              .state_tokens = (uint64_t)(longest + 64) * (uint64_t)p->sequences,
                              .n_sequences = p->sequences,
                              .max_tokens = BASE_MAX(512, p->sequences),
                              .max_outputs = p->sequences + (p->draft ? ENGINE_DRAFT_ROWS : 0),
                              .time_ops = p->ops};
    status s = engine_team_load(&r->team, &t, NULL, e);
    if (s != STATUS_OK)
        return s;
    r->m = engine_team_model(r->team);
    if (model_get_card(r->m)->pooling != MODEL_POOLING_NONE)
        return err_set(e, STATUS_UNSUPPORTED,
                       "%s is an embedding model: what is measured here is writing",
                       model_get_card(r->m)->name);
    r->n_vocab = (int)model_get_card(r->m)->n_vocab;
    r->max_tokens = model_get_options(r->m)->max_tokens;
    size_t n = (size_t)p->sequences,
           n_ids = (size_t)BASE_MAX(BASE_MAX(p->prompt, p->depth), p->sequences) + 1;
    r->states = base_zalloc(n, sizeof(engine_state *));
    r->ids = base_zalloc(n_ids, sizeof *r->ids);
    r->outputs = base_zalloc(n, sizeof *r->outputs);
    r->runs = base_zalloc(n, sizeof *r->runs);
    r->logits = base_alloc(n * (size_t)r->n_vocab * sizeof *r->logits);
    if (!r->states || !r->ids || !r->outputs || !r->runs || !r->logits)
        s = err_set(e, STATUS_NO_MEMORY, "bench: no memory for %d sequences", p->sequences);
    const kernel_table *k;
    sample_options greedy = SAMPLE_DEFAULTS;
    greedy.temperature = 0;
    if (s == STATUS_OK)
        s = engine_pool_create(&r->pool, r->m, 0, 0, e);
    if (s == STATUS_OK)
        s = kernel_select(&k, os_cpu_features(), model_isa(r->m), e);
    if (s == STATUS_OK)
        s = sample_scratch_create(&r->scratch, r->n_vocab, e);
    if (s == STATUS_OK)
        s = sample_create(&r->sampler, k, r->n_vocab, &greedy, 0, e);
    return s;
}

/* Of the rows of the next step a token each, where they lie. */
static void ask(runner *r, int n_rows)
{
    engine_group *others = engine_group_of(r->m);
    const sample_call call = {.top_logprobs = -1};
    sample_want want;
    if (!others)
        return;
    sample_describe(&want, r->sampler, &call, NULL, 0);
    engine_group_ask_begin(others);
    for (int i = 0; i < n_rows; i++)
        REQUIRE(engine_group_ask(others, i, &want) == i);
}

static status finish_pieces(runner *r, int most, int *n_flights, err *e)
{
    status s = STATUS_OK;
    for (; *n_flights > most; --*n_flights) {
        status of_one = model_step_finish(r->m, s == STATUS_OK ? e : NULL);
        s = s == STATUS_OK ? of_one : s;
    }
    return s;
}

/* n made-up ids into one sequence, in steps as large as is best; those of a pipeline follow each other through the stages. */
static status read_prompt(runner *r, int sequence, int n, err *e)
{
    engine_state *state = r->states[sequence];
    int n_flights = 0;
    status s = STATUS_OK;
    for (int i = 0; i < n; i++)
        r->ids[i] =
            (int32_t)(hash_u64((uint64_t)i, 17 + (uint64_t)sequence) % (uint64_t)r->n_vocab);
    for (int at = 0; at < n && s == STATUS_OK;) {
        int most = engine_prompt_piece(r->m, n - at, r->max_tokens);
        int piece = (int)BASE_MIN((int64_t)BASE_MIN(n - at, most), engine_state_run_limit(state));
        s = engine_state_extend(state, piece, e);
        if (s != STATUS_OK)
            break;
        engine_state_run(state, piece, r->runs);
        int32_t last = piece - 1;
        model_batch b = {piece, r->ids + at, 1, r->runs, at + piece == n, &last};
        ask(r, b.n_outputs);
        s = model_step_start(r->m, &b, r->logits, e);
        n_flights += s == STATUS_OK;
        if (s == STATUS_OK)
            s = engine_state_commit(state, r->ids + at, piece, false, e);
        if (s == STATUS_OK)
            s = finish_pieces(r, model_most_flights(r->m) - 1, &n_flights, e);
        at += piece;
    }
    status of_rest = finish_pieces(r, 0, &n_flights, s == STATUS_OK ? e : NULL);
    return s == STATUS_OK ? of_rest : s;
}

static status fresh_states(runner *r, err *e)
{
    for (int i = 0; i < r->p->sequences; i++) {
        engine_state_drop(r->states[i]);
        r->states[i] = NULL;
        status s = engine_state_create(&r->states[i], r->pool, e);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

/* Sequences of turn t of n: each stage of a pipeline has a part of them. */
static int turn_begin(const runner *r, int t, int n)
{
    return r->p->sequences * t / n;
}

/* One token of every sequence of a turn. */
static status start_turn(runner *r, int t, int n_turns, err *e)
{
    int first = turn_begin(r, t, n_turns), n = turn_begin(r, t + 1, n_turns) - first;
    for (int i = 0; i < n; i++) {
        status s = engine_state_extend(r->states[first + i], 1, e);
        if (s != STATUS_OK)
            return s;
        engine_state_run(r->states[first + i], 1, &r->runs[i]);
        r->outputs[i] = i;
    }
    model_batch b = {n, r->ids + first, n, r->runs, n, r->outputs};
    ask(r, n);
    return model_step_start(r->m, &b, r->logits + (size_t)first * (size_t)r->n_vocab, e);
}

static status finish_turn(runner *r, int t, int n_turns, err *e)
{
    engine_group *others = engine_group_of(r->m);
    status s = model_step_finish(r->m, e);
    for (int i = turn_begin(r, t, n_turns); i < turn_begin(r, t + 1, n_turns) && s == STATUS_OK;
         i++) {
        s = engine_state_commit(r->states[i], &r->ids[i], 1, false, e);
        sample_result chosen;
        sample_call call = {.logits = r->logits + (size_t)i * (size_t)r->n_vocab,
                            .top_logprobs = -1};
        if (s == STATUS_OK && others)
            s = engine_group_answer(others, i - turn_begin(r, t, n_turns), &chosen, e);
        else if (s == STATUS_OK)
            s = sample_next(r->sampler, r->scratch, &call, &chosen, e);
        if (s == STATUS_OK)
            r->ids[i] = chosen.token;
    }
    return s;
}

/* n tokens of every sequence. */
static status decode(runner *r, int n, err *e)
{
    int n_turns =
        BASE_MIN(BASE_MIN(model_n_stages(r->m), model_most_flights(r->m)), r->p->sequences);
    int started = 0, finished = 0;
    status s = STATUS_OK;
    while (s == STATUS_OK && finished < n * n_turns) {
        bool start = started < n * n_turns && started - finished < n_turns;
        s = start ? start_turn(r, started % n_turns, n_turns, e)
                  : finish_turn(r, finished % n_turns, n_turns, e);
        started += start;
        finished += !start;
    }
    return s;
}

static status time_prompt(runner *r, double *tokens_per_s, err *e)
{
    status s = fresh_states(r, e);
    uint64_t begin = os_now_us();
    if (s == STATUS_OK)
        s = read_prompt(r, 0, r->p->prompt, e);
    uint64_t us = os_now_us() - begin;
    *tokens_per_s = (double)r->p->prompt * 1e6 / (double)(us ? us : 1);
    return s;
}

static status time_decode(runner *r, double *tokens_per_s, err *e)
{
    status s = fresh_states(r, e);
    for (int i = 0; i < r->p->sequences && s == STATUS_OK; i++)
        s = read_prompt(r, i, BASE_MAX(r->p->depth, 1), e);
    for (int i = 0; i < r->p->sequences; i++)
        r->ids[i] = 1 % r->n_vocab;
    uint64_t begin = os_now_us();
    if (s == STATUS_OK)
        s = decode(r, r->p->gen, e);
    uint64_t us = os_now_us() - begin;
    *tokens_per_s = (double)r->p->gen * r->p->sequences * 1e6 / (double)(us ? us : 1);
    return s;
}

/* ---- reports ------------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void print_ops(const runner *r)
{
    model_op_time ops[MOST_OPS];
    uint64_t total = 0;
    int n = model_op_times(r->m, ops, MOST_OPS);
    for (int i = 0; i < n; i++)
        total += ops[i].us;
    for (int i = 0; i < n; i++)
        printf("  %-12s %9llu calls %10.1f ms %5.1f %%\n", ops[i].name,
               (unsigned long long)ops[i].calls, (double)ops[i].us / 1e3,
               total ? 100.0 * (double)ops[i].us / (double)total : 0);
}

static void print_result(const runner *r, int threads, double prompt, double decode, double load_s)
{
    const model_card *card = model_get_card(r->m);
    if (r->p->json) {
        printf("{\"threads\": %d, \"prompt_tokens_per_s\": %.3f, \"decode_tokens_per_s\": %.3f, "
               "\"weight_bytes_per_token\": %llu, "
               "\"kv_bytes_per_token\": %llu, \"load_s\": %.4f, \"peak_bytes\": %llu, \"isa\": "
               "\"%s\", \"numerics\": \"%s\"}\n",
               threads, prompt, decode, (unsigned long long)card->weight_bytes_per_token,
               (unsigned long long)model_kv_bytes_per_token(card, r->p->kv), load_s,
               (unsigned long long)os_peak_resident_bytes(), model_isa(r->m), model_numerics(r->m));
        return;
    }
    printf("%2d thread%s  prompt %9.1f tok/s  decode %9.2f tok/s  (%.2f GB/s of weights)  load "
           "%.2f s  %s\n",
           threads, threads == 1 ? " " : "s", prompt, decode,
           decode / r->p->sequences * (double)card->weight_bytes_per_token / 1e9, load_s,
           model_isa(r->m));
    if (r->p->ops)
        print_ops(r);
}

/* Medians of everything over the repetitions; counts are the same in all but for what time decides. */
typedef struct drafting {
    double plain, drafted, ratio, acceptance, tokens_per_step;
} drafting;

static status time_drafts(drafting *out, const runner *r, model *small, err *e)
{
    const plan *p = r->p;
    double of[5][MOST_REPS];
    bench_draft b = {.m = r->m,
                     .kind = p->draft,
                     .draft_model = small,
                     .n_sequences = p->sequences,
                     .depth = p->depth,
                     .gen = p->gen,
                     .temperature = p->temperature,
                     .alphabet = p->alphabet};
    for (int i = 0; i < p->reps; i++) {
        bench_draft_result x;
        status s = bench_draft_turn(&x, &b, i % 2 == 0, e);
        if (s != STATUS_OK)
            return s;
        of[0][i] = x.plain;
        of[1][i] = x.drafted;
        of[2][i] = x.plain > 0 ? x.drafted / x.plain : 0;
        of[3][i] = x.n_drafted ? (double)x.n_accepted / (double)x.n_drafted : 0;
        of[4][i] = (double)x.n_tokens / (double)x.n_steps;
    }
    *out = (drafting){median(of[0], p->reps), median(of[1], p->reps), median(of[2], p->reps),
                      median(of[3], p->reps), median(of[4], p->reps)};
    return STATUS_OK;
}

static void print_drafts(const plan *p, const drafting *d)
{
    if (p->json)
        printf("{\"plain_tokens_per_s\": %.3f, \"drafted_tokens_per_s\": %.3f, \"ratio\": %.3f, "
               "\"acceptance\": %.3f, \"tokens_per_step\": %.2f}\n",
               d->plain, d->drafted, d->ratio, d->acceptance, d->tokens_per_step);
    else
        printf("   drafts     plain %9.2f tok/s  drafted %8.2f tok/s  ratio %.3f  acceptance %.0f "
               "%%  %.2f tokens a step\n",
               d->plain, d->drafted, d->ratio, 100 * d->acceptance, d->tokens_per_step);
}

static status measure_drafts(const runner *r, err *e)
{
    const plan *p = r->p;
    file_model *f = NULL;
    model *small = NULL;
    drafting result;
    status s = STATUS_OK;
    if (p->draft == ENGINE_DRAFT_MODEL)
        s = store_open(&f, p->draft_source, e);
    if (s == STATUS_OK && f) {
        const model_options *m = model_get_options(r->m);
        model_options o = {.device = m->device,
                           .isa = m->isa,
                           .n_threads = m->n_threads,
                           .kv = m->kv,
                           .context = m->context,
                           .state_tokens = m->state_tokens,
                           .n_sequences = m->n_sequences,
                           .max_tokens = m->max_tokens,
                           .max_outputs = m->n_sequences};
        s = model_load(&small, f, &o, NULL, e);
    }
    file_close(f);
    if (s == STATUS_OK)
        s = time_drafts(&result, r, small, e);
    if (s == STATUS_OK)
        print_drafts(p, &result);
    model_destroy(small);
    return s;
}

static status measure(const plan *p, const cli *c, const char *source, int threads, err *e)
{
    runner r;
    double prompts[MOST_REPS] = {0}, decodes[MOST_REPS] = {0};
    uint64_t begin = os_now_us();
    status s = open_runner(&r, p, c, source, threads, e);
    double load_s = (double)(os_now_us() - begin) / 1e6;
    for (int i = 0; i < p->reps && s == STATUS_OK; i++) {
        if (p->prompt)
            s = time_prompt(&r, &prompts[i], e);
        if (s == STATUS_OK && p->gen)
            s = time_decode(&r, &decodes[i], e);
    }
    if (s == STATUS_OK)
        print_result(&r, threads, median(prompts, p->reps), median(decodes, p->reps), load_s);
    if (s == STATUS_OK && p->draft)
        s = measure_drafts(&r, e);
    fflush(stdout);
    if (s != STATUS_OK && r.team)
        engine_team_why(r.team, e);
    close_runner(&r);
    return s;
}

int cli_cmd_bench(cli *c)
{
    plan p;
    err e;
    char source[STORE_PATH];
    if (read_plan(&p, c, &e) != STATUS_OK)
        return cli_usage(c, "%s", e.text);
    status s = store_find(source, NULL, c->arguments[0], &e);
    for (int i = 0; i < p.n_threads && s == STATUS_OK; i++)
        s = measure(&p, c, source, p.threads[i], &e);
    return s == STATUS_OK ? 0 : cli_fail_err(c, &e);
}
