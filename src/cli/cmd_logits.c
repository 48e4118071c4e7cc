/*
 * shoal logits MODEL --tokens FILE.json [--full | --top K] [--greedy N] [--exact]: what the model itself says, with nothing between. Ids
 * are taken as they are; JSON lines come out, one a position, then one with the greedy continuation.
 *
 * One sequence in a model of its own, not through the engine: this is the measuring stick that everything else is held against. With
 * --ranks this process leads and the others follow; the lines are the same, bit for bit.
 */
#include "cli/cli.h"
#include "cli/engine_options.h"
#include "cli/ranks.h"
#include "kernel/attention.h"
#include "model/model.h"
#include "os/os.h"
#include "store/store.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { STEP_TOKENS = 64 };

typedef struct session {
    const cli *c;
    engine_team *team;
    model *m;     /* the team's */
    int32_t *ids; /* owned: prompt, then greedy tokens */
    int64_t n_ids, n_prompt, capacity;
    int32_t *pages;
    int64_t position;
    float *logits;  /* [STEP_TOKENS, V] */
    int32_t *order; /* [K] best tokens */
    sb line;
} session;

static status read_tokens(session *s, const char *path, int64_t n_greedy, err *e)
{
    char *text;
    size_t length;
    status st = os_read_file(&text, &length, path, 256u << 20, e);
    if (st != STATUS_OK)
        return st;
    json_error_t error;
    json_t *array = json_loadb(text, length, 0, &error);
    base_free(text);
    if (array == NULL)
        return err_set(e, STATUS_CORRUPT, "%s: line %d: %s", path, error.line, error.text);
    st = STATUS_OK;
    s->n_prompt = json_is_array(array) ? (int64_t)json_array_size(array) : 0;
    s->capacity = s->n_prompt + n_greedy;
    s->ids = base_zalloc((size_t)s->capacity + 1, sizeof(*s->ids));
    if (s->n_prompt == 0)
        st = err_set(e, STATUS_CORRUPT, "%s: expected a JSON array of at least one token id", path);
    else if (s->ids == NULL)
        st = err_set(e, STATUS_NO_MEMORY, "%s: no memory for %lld ids", path,
                     (long long)s->capacity);
    for (int64_t i = 0; i < s->n_prompt && st == STATUS_OK; i++) {
        const json_t *v = json_array_get(array, (size_t)i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            st = err_set(e, STATUS_CORRUPT, "%s: element %lld is not a token id", path,
                         (long long)i);
        else
            s->ids[i] = (int32_t)json_integer_value(v);
    }
    s->n_ids = s->n_prompt;
    json_decref(array);
    return st;
}

static status open_model(session *s, const char *name, err *e)
{
    const cli *c = s->c;
    char program[4096], source[STORE_PATH];
    engine_team_options t = {.source = source, .program = program, .open = store_open};
    int threads = 0;
    const char *isa = NULL;
    status st = ranks_read(&t.cut, c, e);
    if (st == STATUS_OK)
        st = cli_read_threads(&threads, c, e);
    if (st == STATUS_OK)
        st = cli_read_isa(&isa, c, e);
    if (st == STATUS_OK)
        st = store_find(source, NULL, name, e);
    if (st == STATUS_OK)
        st = os_self_path(program, sizeof program, e);
    if (st != STATUS_OK)
        return st;
    uint64_t chunk = cli_whole(c, OPT_chunk);
    t.model = (model_options){
        .device = cli_text(c, OPT_device),
        .isa = isa,
        .n_threads = threads,
        .exact = cli_flag(c, OPT_exact),
        .context = s->capacity,
        .n_sequences = 1,
        .max_tokens = chunk > 0 && chunk < STEP_TOKENS ? (int)chunk : STEP_TOKENS,
        .max_outputs = STEP_TOKENS,
    };
    st = engine_team_load(&s->team, &t, NULL, e);
    if (st != STATUS_OK)
        return st;
    s->m = engine_team_model(s->team);
    int64_t V = model_get_card(s->m)->n_vocab;
    s->logits = base_zalloc((size_t)STEP_TOKENS * (size_t)V, sizeof(*s->logits));
    s->order = base_zalloc((size_t)V, sizeof(*s->order));
    int64_t n_pages = (s->capacity + KERNEL_RANGE - 1) / KERNEL_RANGE;
    s->pages = base_zalloc((size_t)n_pages, sizeof(*s->pages));
    if (s->logits == NULL || s->order == NULL || s->pages == NULL)
        return err_set(e, STATUS_NO_MEMORY, "no memory for %lld logits", (long long)V);
    for (int64_t i = 0; i < n_pages; i++)
        s->pages[i] = (int32_t)i;
    return STATUS_OK;
}

/* Runs n ids from s->position on; logits gets a row for each. */
static status step(session *s, int n, err *e)
{
    model_run run = {.n_tokens = n, .position = s->position};
    for (int i = 0; i < model_n_classes(s->m); i++) {
        const model_state_class *k = model_class(s->m, i);
        run.pages[i] = s->pages;
        run.n_pages[i] = k->page_tokens > 0 ? (int)((s->position + n - 1) / k->page_tokens + 1) : 0;
    }
    int32_t outputs[STEP_TOKENS];
    for (int i = 0; i < n; i++)
        outputs[i] = i;
    model_batch batch = {
        .n_tokens = n,
        .ids = s->ids + s->position,
        .n_runs = 1,
        .runs = &run,
        .n_outputs = n,
        .outputs = outputs,
    };
    status st = model_step(s->m, &batch, s->logits, e);
    s->position += n;
    if (st != STATUS_OK)
        engine_team_why(s->team, e);
    return st;
}

/* ---- output -------------------------------------------------------------------------------------------------------- */

/* Moves the k best of V tokens to the front of s->order, best first; equal ones by id. */
static void select_best(session *s, const float *row, int64_t V, int64_t k)
{
    int64_t n = 0;
    for (int64_t id = 0; id < V; id++) {
        if (n == k && row[id] <= row[s->order[n - 1]])
            continue;
        int64_t at = n < k ? n++ : n - 1;
        for (; at > 0 && row[id] > row[s->order[at - 1]]; at--)
            s->order[at] = s->order[at - 1];
        s->order[at] = (int32_t)id;
    }
}

static double log_sum(const float *row, int64_t V)
{
    double max = (double)row[0], sum = 0.0;
    for (int64_t i = 1; i < V; i++)
        max = fmax(max, (double)row[i]);
    for (int64_t i = 0; i < V; i++)
        sum += exp((double)row[i] - max);
    return max + log(sum);
}

static bool print_row(session *s, const float *row, int64_t position)
{
    int64_t V = model_get_card(s->m)->n_vocab, k = BASE_MIN((int64_t)cli_whole(s->c, OPT_top), V);
    bool full = cli_flag(s->c, OPT_full);
    sb_clear(&s->line);
    sb_printf(&s->line, "{\"position\": %lld, \"%s\": [", (long long)position,
              full ? "logits" : "top");
    if (full) {
        for (int64_t i = 0; i < V; i++)
            sb_printf(&s->line, "%s%.9g", i > 0 ? ", " : "", (double)row[i]);
    } else if (k > 0) {
        select_best(s, row, V, k);
        double sum = log_sum(row, V);
        for (int64_t i = 0; i < k; i++)
            sb_printf(&s->line, "%s[%d, %.6f]", i > 0 ? ", " : "", (int)s->order[i],
                      (double)row[s->order[i]] - sum);
    }
    sb_puts(&s->line, "]}\n");
    return !s->line.failed && fwrite(s->line.data, 1, s->line.length, stdout) == s->line.length;
}

static status prompt(session *s, err *e)
{
    int64_t V = model_get_card(s->m)->n_vocab;
    int chunk = model_get_options(s->m)->max_tokens;
    while (s->position < s->n_prompt) {
        int64_t first = s->position;
        int n = (int)BASE_MIN(s->n_prompt - first, chunk);
        status st = step(s, n, e);
        if (st != STATUS_OK)
            return st;
        for (int i = 0; i < n; i++)
            if (!print_row(s, s->logits + i * V, first + i))
                return err_set(e, STATUS_IO, "cannot write to standard output");
        if (s->position == s->n_prompt) /* the greedy part looks at row 0 */
            memmove(s->logits, s->logits + (n - 1) * V, (size_t)V * sizeof(float));
    }
    return STATUS_OK;
}

static status greedy(session *s, int64_t n, err *e)
{
    int64_t V = model_get_card(s->m)->n_vocab;
    for (int64_t i = 0; i < n; i++) {
        select_best(s, s->logits, V, 1);
        s->ids[s->n_ids++] = s->order[0];
        if (i + 1 == n)
            break;
        status st = step(s, 1, e);
        if (st != STATUS_OK)
            return st;
    }
    sb_clear(&s->line);
    sb_puts(&s->line, "{\"greedy\": [");
    for (int64_t i = s->n_prompt; i < s->n_ids; i++)
        sb_printf(&s->line, "%s%d", i > s->n_prompt ? ", " : "", (int)s->ids[i]);
    sb_puts(&s->line, "]}\n");
    if (s->line.failed || fwrite(s->line.data, 1, s->line.length, stdout) != s->line.length)
        return err_set(e, STATUS_IO, "cannot write to standard output");
    return STATUS_OK;
}

int cli_cmd_logits(cli *c)
{
    session s = {.c = c};
    err e = {0};
    const char *tokens = cli_text(c, OPT_tokens);
    if (tokens == NULL || tokens[0] == 0)
        return cli_usage(c, "--tokens FILE.json is missing");
    uint64_t n_greedy = cli_whole(c, OPT_greedy);
    if (n_greedy > 1 << 20)
        return cli_usage(c, "--greedy %llu is too many", (unsigned long long)n_greedy);
    if (cli_flag(c, OPT_full) && cli_given(c, OPT_top))
        return cli_usage(c, "--full and --top exclude each other");
    sb_init(&s.line);
    status st = read_tokens(&s, tokens, (int64_t)n_greedy, &e);
    if (st == STATUS_OK)
        st = open_model(&s, c->arguments[0], &e);
    if (st == STATUS_OK && model_get_card(s.m)->pooling != MODEL_POOLING_NONE)
        st = err_set(&e, STATUS_UNSUPPORTED, "%s is an embedding model and has no logits",
                     model_get_card(s.m)->name);
    if (st == STATUS_OK)
        st = prompt(&s, &e);
    if (st == STATUS_OK && n_greedy > 0)
        st = greedy(&s, (int64_t)n_greedy, &e);
    sb_fini(&s.line);
    engine_team_destroy(s.team);
    base_free(s.ids);
    base_free(s.pages);
    base_free(s.logits);
    base_free(s.order);
    return st == STATUS_OK ? 0 : cli_fail_err(c, &e);
}
