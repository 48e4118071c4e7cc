/*
 * shoal bench MODEL [--threads 1,2] [--prompt 512] [--gen 64] [--depth 0] [--sequences 1] [--reps 3] [--ops] [--json]: how fast this
 * machine computes a model, without server, engine or sampling.
 *
 * For every thread count the model is loaded anew; every repetition evaluates a prompt of the first sequence behind `depth` positions, then
 * decodes `gen` steps of all sequences. Medians are shown. Token ids are pseudo-random: no model's speed depends on them here.
 */
#include "cli/cli.h"
#include "kernel/kernel.h"
#include "model/model.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_THREADS = 16, MOST_REPS = 100, MOST_OPS = 32 };

typedef struct plan {
    int threads[MOST_THREADS], n_threads;
    int prompt, gen, depth, sequences, reps;
    bool ops, json;
} plan;

typedef struct bench {
    const cli *c;
    const plan *p;
    model *m;
    int32_t *pages; /* [sequences][n_pages], one numbering for all classes */
    int n_pages;
    int32_t *ids;
    model_run *runs;
    int32_t *outputs;
    float *logits;
    uint64_t load_us;
    double prompt_rate[MOST_REPS], decode_rate[MOST_REPS];
} bench;

/* ---- options ------------------------------------------------------------------------------------------------------- */

static bool read_threads(plan *p, const char *list)
{
    p->n_threads = 0;
    if (list == NULL || *list == 0) {
        p->threads[p->n_threads++] = os_cpu_count();
        return true;
    }
    while (*list != 0) {
        size_t n = strcspn(list, ",");
        char word[16];
        uint64_t value;
        if (n == 0 || n >= sizeof(word) || p->n_threads == MOST_THREADS)
            return false;
        memcpy(word, list, n);
        word[n] = 0;
        if (!base_parse_u64(word, &value) || value < 1 || value > 1024)
            return false;
        p->threads[p->n_threads++] = (int)value;
        list += n + (list[n] == ',');
    }
    return p->n_threads > 0;
}

static int count(const cli *c, cli_option o, uint64_t most)
{
    return (int)BASE_MIN(cli_whole(c, o), most);
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

static status load(bench *b, const char *path, int threads, err *e)
{
    const plan *p = b->p;
    int64_t context = p->depth + BASE_MAX(p->prompt, p->gen) + 1;
    b->n_pages = (int)((context + KERNEL_RANGE - 1) / KERNEL_RANGE);
    model_options o = {
        .device = cli_text(b->c, OPT_device),
        .isa = cli_text(b->c, OPT_isa),
        .n_threads = threads,
        .context = context,
        .n_sequences = p->sequences,
        .max_outputs = p->sequences,
        .max_tokens = BASE_MAX(256, p->sequences),
        .time_ops = p->ops,
    };
    for (int i = 0; i < MODEL_STATE_CLASSES; i++)
        o.n_pages[i] = p->sequences * b->n_pages;
    file_model *f;
    uint64_t begin = os_now_us();
    status s = file_open(&f, path, e);
    if (s != STATUS_OK)
        return s;
    s = model_load(&b->m, f, &o, NULL, e);
    file_close(f);
    b->load_us = os_now_us() - begin;
    if (s != STATUS_OK)
        return s;
    int64_t V = model_get_card(b->m)->n_vocab;
    b->pages = base_zalloc((size_t)(p->sequences * b->n_pages), sizeof(*b->pages));
    b->ids = base_zalloc((size_t)o.max_tokens, sizeof(*b->ids));
    b->runs = base_zalloc((size_t)p->sequences, sizeof(*b->runs));
    b->outputs = base_zalloc((size_t)p->sequences, sizeof(*b->outputs));
    b->logits = base_zalloc((size_t)(p->sequences * V), sizeof(*b->logits));
    if (!b->pages || !b->ids || !b->runs || !b->outputs || !b->logits)
        return err_set(e, STATUS_NO_MEMORY, "no memory for the benchmark");
    for (int i = 0; i < p->sequences * b->n_pages; i++)
        b->pages[i] = i;
    return STATUS_OK;
}

static void unload(bench *b)
{
    model_destroy(b->m);
    base_free(b->pages);
    base_free(b->ids);
    base_free(b->runs);
    base_free(b->outputs);
    base_free(b->logits);
    b->m = NULL;
    b->pages = b->ids = b->outputs = NULL;
    b->runs = NULL;
    b->logits = NULL;
}

/* One step: n tokens of each of the sequences [first, first + n_sequences) at a position, the last row's logits of each. */
static status step(bench *b, int first, int n_sequences, int64_t position, int n, err *e)
{
    int64_t V = model_get_card(b->m)->n_vocab;
    for (int s = 0; s < n_sequences; s++) {
        model_run *r = &b->runs[s];
        *r = (model_run){.n_tokens = n, .position = position};
        for (int c = 0; c < model_n_classes(b->m); c++) {
            r->pages[c] = b->pages + (first + s) * b->n_pages;
            r->n_pages[c] = b->n_pages;
            r->slot[c] = first + s;
        }
        for (int i = 0; i < n; i++)
            b->ids[s * n + i] =
                (int32_t)(hash_u64((uint64_t)(position + i), (uint64_t)(first + s)) % (uint64_t)V);
        b->outputs[s] = s * n + n - 1;
    }
    model_batch batch = {
        .n_tokens = n_sequences * n,
        .ids = b->ids,
        .n_runs = n_sequences,
        .runs = b->runs,
        .n_outputs = n_sequences,
        .outputs = b->outputs,
    };
    return model_step(b->m, &batch, b->logits, e);
}

/* n tokens of one sequence from a position on, in the largest chunks. */
static status feed(bench *b, int sequence, int64_t position, int n, err *e)
{
    int chunk = model_get_options(b->m)->max_tokens;
    status s = STATUS_OK;
    for (int at = 0; at < n && s == STATUS_OK; at += chunk)
        s = step(b, sequence, 1, position + at, BASE_MIN(chunk, n - at), e);
    return s;
}

static status repeat(bench *b, int rep, err *e)
{
    const plan *p = b->p;
    uint64_t begin = os_now_us();
    status s = feed(b, 0, p->depth, p->prompt, e);
    uint64_t us = BASE_MAX(os_now_us() - begin, 1);
    b->prompt_rate[rep] = p->prompt * 1e6 / (double)us;
    begin = os_now_us();
    for (int i = 0; i < p->gen && s == STATUS_OK; i++)
        s = step(b, 0, p->sequences, p->depth + i, 1, e);
    us = BASE_MAX(os_now_us() - begin, 1);
    b->decode_rate[rep] = (double)p->gen * p->sequences * 1e6 / (double)us;
    return s;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof(*x), by_value);
    return n % 2 == 1 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

/* ---- output -------------------------------------------------------------------------------------------------------- */

static void print_ops(bench *b)
{
    model_op_time ops[MOST_OPS];
    int n = model_op_times(b->m, ops, MOST_OPS);
    uint64_t total = 0;
    for (int i = 0; i < n; i++)
        total += ops[i].us;
    for (int i = 0; i < n; i++)
        printf("    %-10s %10.1f ms %5.1f %%  %8llu calls  %8.1f us each\n", ops[i].name,
               (double)ops[i].us / 1e3, 100.0 * (double)ops[i].us / (double)BASE_MAX(total, 1),
               (unsigned long long)ops[i].calls, (double)ops[i].us / (double)ops[i].calls);
}

static void print(bench *b, int threads)
{
    const plan *p = b->p;
    const model_card *k = model_get_card(b->m);
    double prompt = median(b->prompt_rate, p->reps), decode = median(b->decode_rate, p->reps);
    if (p->json) {
        printf("{\"threads\": %d, \"prompt_tokens_per_s\": %.3f, \"decode_tokens_per_s\": %.3f, "
               "\"weight_bytes_per_token\": %llu, \"kv_bytes_per_token\": %llu, \"load_s\": %.3f, "
               "\"peak_bytes\": %llu, \"isa\": \"%s\", \"numerics\": \"%s\"}\n",
               threads, prompt, decode, (unsigned long long)k->weight_bytes_per_token,
               (unsigned long long)k->kv_bytes_per_token, (double)b->load_us / 1e6,
               (unsigned long long)os_peak_resident_bytes(), model_isa(b->m), model_numerics(b->m));
        return;
    }
    char peak[32];
    printf("%2d threads  prompt %8.1f tok/s  decode %7.2f tok/s (%.1f GB/s of weights)  load %.2f "
           "s  peak %s  %s\n",
           threads, prompt, decode, decode / p->sequences * (double)k->weight_bytes_per_token / 1e9,
           (double)b->load_us / 1e6, base_format_bytes(peak, os_peak_resident_bytes()),
           model_isa(b->m));
    if (p->ops)
        print_ops(b);
}

static status measure(bench *b, const char *path, int threads, err *e)
{
    const plan *p = b->p;
    status s = load(b, path, threads, e);
    for (int i = 0; i < p->sequences && s == STATUS_OK; i++)
        s = feed(b, i, 0, p->depth, e);
    if (s == STATUS_OK) /* warm: first use of pages and buffers is not what is asked */
        s = feed(b, 0, p->depth, BASE_MIN(p->prompt, 8), e);
    if (s == STATUS_OK)
        model_op_times_reset(b->m);
    for (int i = 0; i < p->reps && s == STATUS_OK; i++)
        s = repeat(b, i, e);
    if (s == STATUS_OK)
        print(b, threads);
    unload(b);
    return s;
}

int cli_cmd_bench(cli *c)
{
    plan p = {
        .prompt = count(c, OPT_prompt, 1 << 20),
        .gen = count(c, OPT_gen, 1 << 20),
        .depth = count(c, OPT_depth, 1 << 24),
        .sequences = count(c, OPT_sequences, 1024),
        .reps = count(c, OPT_reps, MOST_REPS),
        .ops = cli_flag(c, OPT_ops),
        .json = cli_flag(c, OPT_json),
    };
    if (!read_threads(&p, cli_text(c, OPT_threads)))
        return cli_usage(c, "--threads %s: expected numbers with commas", cli_text(c, OPT_threads));
    if (p.sequences < 1 || p.reps < 1)
        return cli_usage(c, "--sequences and --reps are at least 1");
    bench b = {.c = c, .p = &p};
    for (int i = 0; i < p.n_threads; i++) {
        err e = {0};
        if (measure(&b, c->arguments[0], p.threads[i], &e) != STATUS_OK)
            return cli_fail_err(c, &e);
        fflush(stdout);
    }
    return 0;
}
