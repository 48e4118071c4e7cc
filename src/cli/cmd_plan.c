/*
 * shoal plan MODEL --cluster ...: how the model would be cut over machines that need not exist, how fast it would be, and why. MODEL is a
 * name of the planner's table, with ":QUANT", or a model of this machine, whose card is read without its weights. Without MODEL: what is
 * known by name. --grow asks which single machine bought next would help most.
 */
#include "cli/cli.h"
#include "cli/look.h"
#include "cli/plans.h"
#include "model/model.h"
#include "store/store.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the model ------------------------------------------------------------------------------------------------------ */

static uint64_t key_u64(const file_model *f, const char *architecture, const char *key)
{
    char name[128];
    uint64_t value = 0;
    snprintf(name, sizeof name, "%.60s.%s", architecture, key);
    if (file_get_u64_or(f, name, 0, &value, NULL) != STATUS_OK || value > 1 << 24)
        return 0;
    return value;
}

/* The card's shape. Bits a weight are the file's bytes by the shape's parameters, so that the whole weighs what it weighs. Experts are
 * known from GGUF's keys; a safetensors folder's come with the families that have them. */
static status shape_of_card(plan_model *out, const model_card *card, const file_model *f, err *e)
{
    plan_model m = {.n_layers = (int)card->n_layers,
                    .d_model = (int)card->d_model,
                    .n_heads = (int)card->n_heads,
                    .n_kv_heads = (int)card->n_kv_heads,
                    .head_dim = (int)card->head_dim,
                    .d_ff = (int)card->d_ff,
                    .n_vocab = (int)card->n_vocab,
                    .tied = card->tied,
                    .n_dense_layers = (int)card->n_layers,
                    .bits = 16,
                    .expert_bits = 16,
                    .state_bits = 16};
    snprintf(m.name, sizeof m.name, "%.60s", card->name);
    m.n_experts = (int)key_u64(f, card->architecture, "expert_count");
    if (m.n_experts) {
        m.n_active = (int)key_u64(f, card->architecture, "expert_used_count");
        m.d_expert = (int)key_u64(f, card->architecture, "expert_feed_forward_length");
        m.n_shared = (int)key_u64(f, card->architecture, "expert_shared_count");
        m.n_dense_layers = (int)key_u64(f, card->architecture, "leading_dense_block_count");
        m.d_expert = m.d_expert ? m.d_expert : m.d_ff;
    }
    for (int i = 0; i < card->n_classes; i++)
        if (card->classes[i].kind == MODEL_STATE_WINDOWED) {
            m.window = card->classes[i].window;
            m.n_window_layers += card->classes[i].n_layers;
        }
    status s = plan_model_check(&m, e);
    if (s != STATUS_OK)
        return s;
    plan_size size;
    plan_model_size(&size, &m);
    m.bits = m.expert_bits = 8.0 * (double)card->weight_bytes / size.parameters;
    *out = m;
    return plan_model_check(out, e);
}

static status model_of_file(plan_model *out, const char *name, err *e)
{
    char source[STORE_PATH];
    const char *origin;
    file_model *f;
    model_card *card;
    status s = store_find(source, &origin, name, e);
    if (s == STATUS_OK)
        s = store_open(&f, source, e);
    if (s != STATUS_OK)
        return s;
    s = model_card_read(&card, f, e);
    if (s == STATUS_OK) {
        s = shape_of_card(out, card, f, e);
        model_card_destroy(card);
    }
    file_close(f);
    return s;
}

static status find_model(plan_model *out, const char *name, err *e)
{
    err other;
    status s = plan_model_find(out, name, e);
    if (s == STATUS_OK)
        return s;
    if (model_of_file(out, name, &other) == STATUS_OK)
        return STATUS_OK;
    if (strchr(name, '/') || strstr(name, ".gguf") || other.code != STATUS_NOT_FOUND)
        *e = other;
    return e->code;
}

/* ---- the question --------------------------------------------------------------------------------------------------- */

typedef struct question {
    plan_model model;
    plans_cluster *cluster;
    const plan_engine *engine;
    plan_request request;
    bool allowed[PLAN_NODES];
    double shares[PLAN_NODES];
} question;

static status choose(int *out, const char *what, const char *text, const char *const *names, int n,
                     err *e)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(text, names[i])) {
            *out = i;
            return STATUS_OK;
        }
    const char *near = cli_nearest(text, names, n);
    sb known = {0};
    for (int i = 0; i < n; i++)
        sb_printf(&known, "%s%s", i ? ", " : "", names[i]);
    status s = err_set(e, STATUS_INVALID, "%s must be one of %s, got '%.40s'%s%s", what,
                       known.data ? known.data : "", text, near ? "; did you mean " : "",
                       near ? near : "");
    sb_fini(&known);
    return s;
}

/* "a,b": names of nodes; NULL allows all. */
static status read_nodes(question *q, const char *text, err *e)
{
    char copy[1024];
    const char *names[PLAN_NODES];
    int n = q->cluster->cluster.n_nodes;
    if (!text)
        return STATUS_OK;
    if (strlen(text) >= sizeof copy)
        return err_set(e, STATUS_INVALID, "--nodes: longer than %zu bytes", sizeof copy - 1);
    snprintf(copy, sizeof copy, "%s", text);
    for (int i = 0; i < n; i++)
        names[i] = q->cluster->nodes[i].name;
    for (char *part = copy, *next; part; part = next) {
        int i;
        if ((next = strchr(part, ',')))
            *next++ = '\0';
        status s = choose(&i, "--nodes: a name", part, names, n, e);
        if (s != STATUS_OK)
            return s;
        q->allowed[i] = true;
    }
    q->request.allowed = q->allowed;
    return STATUS_OK;
}

/* "2,1": shares of the allowed nodes in the cluster's order. */
static status read_shares(question *q, const char *text, err *e)
{
    char copy[1024];
    int n = 0, want = 0;
    if (!text)
        return STATUS_OK;
    if (strlen(text) >= sizeof copy)
        return err_set(e, STATUS_INVALID, "--shares: longer than %zu bytes", sizeof copy - 1);
    snprintf(copy, sizeof copy, "%s", text);
    char *part = copy;
    for (int i = 0; i < q->cluster->cluster.n_nodes; i++) {
        q->shares[i] = 1;
        if (q->request.allowed && !q->allowed[i])
            continue;
        want++;
        if (!part)
            continue;
        char *next = strchr(part, ',');
        if (next)
            *next++ = '\0';
        if (!base_parse_double(part, &q->shares[i]) || q->shares[i] <= 0)
            return err_set(e, STATUS_INVALID, "--shares: '%.40s' is no share above 0", part);
        part = next;
        n++;
    }
    if (n != want || part)
        return err_set(e, STATUS_INVALID, "--shares: expected one for each of %d nodes, as 2,1,1",
                       want);
    if (q->request.mode == PLAN_PIPELINE)
        return err_set(e, STATUS_INVALID,
                       "--shares say how every layer is shared, --mode pipeline that none is");
    q->request.shares = q->shares;
    q->request.mode = PLAN_TENSOR;
    return STATUS_OK;
}

static status read_kv(question *q, const char *text, err *e)
{
    static const char *const names[] = {"f16", "f32", "q8_0", "q4_0"};
    static const double bits[] = {16, 32, 8.5, 4.5};
    int i;
    status s = choose(&i, "--kv", text, names, (int)BASE_COUNT(names), e);
    if (s == STATUS_OK)
        q->model.state_bits = bits[i];
    return s;
}

/* Numbers that contradict each other, or that no plan could have. A prompt that nobody gave is as long as the context allows. */
static status check_numbers(const cli *c, err *e)
{
    static const struct {
        cli_option option;
        uint64_t most;
    } counts[] = {{OPT_context, 1000000000}, {OPT_prompt, 1000000000}, {OPT_concurrency, 1000000}};
    uint64_t context = cli_whole(c, OPT_context), prompt = cli_whole(c, OPT_prompt);
    double kwh = cli_number(c, OPT_kwh), token = cli_number(c, OPT_token_price);
    for (size_t i = 0; i < BASE_COUNT(counts); i++) {
        uint64_t n = cli_whole(c, counts[i].option);
        if (n < 1 || n > counts[i].most)
            return err_set(e, STATUS_INVALID, "--%s %llu: expected 1 to %llu",
                           cli_options[counts[i].option].name, (unsigned long long)n,
                           (unsigned long long)counts[i].most);
    }
    if (cli_given(c, OPT_prompt) && prompt > context)
        return err_set(e, STATUS_INVALID,
                       "--prompt of %llu tokens is longer than --context of %llu",
                       (unsigned long long)prompt, (unsigned long long)context);
    if (kwh < 0 || token < 0)
        return err_set(e, STATUS_INVALID, "%s: a price is not below 0, got %g",
                       kwh < 0 ? "--kwh" : "--token-price", kwh < 0 ? kwh : token);
    return STATUS_OK;
}

static status read_question(question *q, const cli *c, err *e)
{
    static const char *const goals[] = {"speed", "ttft", "throughput", "fewest"};
    static const char *const modes[] = {"any", "tensor", "pipeline"};
    int goal = 0, mode = 0;
    uint64_t context = cli_whole(c, OPT_context);
    status s = check_numbers(c, e);
    if (s == STATUS_OK)
        s = find_model(&q->model, c->arguments[0], e);
    if (s == STATUS_OK)
        s = plans_cluster_read(&q->cluster, cli_text(c, OPT_cluster), e);
    if (s == STATUS_OK)
        s = plans_measure(q->cluster, q->model.n_experts ? q->model.expert_bits : q->model.bits, e);
    if (s == STATUS_OK)
        s = plan_engine_find(&q->engine, cli_text(c, OPT_engine), e);
    if (s == STATUS_OK)
        s = choose(&goal, "--goal", cli_text(c, OPT_goal), goals, (int)BASE_COUNT(goals), e);
    if (s == STATUS_OK)
        s = choose(&mode, "--mode", cli_text(c, OPT_mode), modes, (int)BASE_COUNT(modes), e);
    if (s == STATUS_OK)
        s = read_kv(q, cli_text(c, OPT_kv), e);
    if (s != STATUS_OK)
        return s;
    q->request.goal = (plan_goal)goal;
    q->request.mode = (plan_mode)mode;
    q->request.context = (int64_t)context;
    q->request.prompt = (int64_t)BASE_MIN(cli_whole(c, OPT_prompt), context);
    q->request.concurrency = (int)cli_whole(c, OPT_concurrency);
    s = read_nodes(q, cli_text(c, OPT_nodes), e);
    return s == STATUS_OK ? read_shares(q, cli_text(c, OPT_shares), e) : s;
}

/* ---- answers -------------------------------------------------------------------------------------------------------- */

static int write_svg(const cli *c, const plans_answer *a)
{
    const char *path = cli_text(c, OPT_svg);
    sb text = {0};
    if (!path)
        return 0;
    if (!a->result->n_plans)
        return cli_fail(c, "no plan to draw");
    plans_svg(&text, a);
    errno = ENOMEM;
    FILE *f = text.failed ? NULL : fopen(path, "w");
    bool good = f && fwrite(text.data, 1, text.length, f) == text.length;
    if (f)
        good = fclose(f) == 0 && good;
    sb_fini(&text);
    return good ? 0 : cli_fail(c, "--svg: %s cannot be written: %s", path, strerror(errno));
}

/* Errors of the planner begin with its name, which is the command's too. */
static int fail(const cli *c, const err *e)
{
    static const char own[] = "plan: ";
    bool twice = strncmp(e->text, own, sizeof own - 1) == 0;
    return cli_fail(c, "%s", e->text + (twice ? sizeof own - 1 : 0));
}

static int show(const cli *c, const question *q)
{
    plan_result result;
    err e;
    status s = plan_make(&result, &q->model, &q->cluster->cluster, q->engine, &q->request, &e);
    if (s != STATUS_OK && s != STATUS_TOO_LARGE)
        return fail(c, &e);
    plans_answer a = {&q->model,
                      &q->cluster->cluster,
                      q->engine,
                      &q->request,
                      &result,
                      cli_number(c, OPT_kwh),
                      cli_number(c, OPT_token_price)};
    int code;
    if (cli_flag(c, OPT_json)) {
        code = look_json(c, plans_json(&a));
    } else {
        plans_print(&a);
        code = 0;
    }
    if (!code && s == STATUS_OK)
        code = write_svg(c, &a);
    if (!code && s != STATUS_OK)
        code = fail(c, &e);
    plan_result_fini(&result);
    return code;
}

static json_t *growth_json(const plan_growth *g, int n)
{
    json_t *all = json_array();
    for (int i = 0; i < n; i++)
        if (isfinite(g[i].score))
            json_array_append_new(
                all, json_pack("{s:s, s:f, s:f, s:f, s:f, s:b}", "device", g[i].device,
                               "tokens_per_second", g[i].tokens_s, "throughput", g[i].throughput,
                               "ttft_us", g[i].ttft_us, "price", g[i].price, "used", g[i].used));
    return all;
}

static void print_growth(const plan_growth *g, int n, double now)
{
    char f[3][32];
    if (now > 0)
        printf("now %s tok/s; with one more machine, over the cluster's common link:\n",
               plans_figure(f[0], now));
    else
        printf(
            "the model does not fit now; with one more machine, over the cluster's common link:\n");
    for (int i = 0; i < n; i++)
        if (isfinite(g[i].score) && g[i].used)
            printf("  %-16s %8s tok/s  %8s together  first token %8s  $%g\n", g[i].device,
                   plans_figure(f[0], g[i].tokens_s), plans_figure(f[1], g[i].throughput),
                   plans_span(f[2], g[i].ttft_us), g[i].price);
    if (!n || !isfinite(g[0].score))
        printf("  no single machine of the table makes it fit\n");
    else if (!g[0].used)
        printf("  no single machine of the table helps: the best plan leaves it out\n");
}

static int grow(const cli *c, const question *q)
{
    plan_growth growth[128];
    plan_result now;
    int n = (int)BASE_COUNT(growth);
    err e;
    status s = plan_make(&now, &q->model, &q->cluster->cluster, q->engine, &q->request, &e);
    double tokens_s = s == STATUS_OK ? now.plans[0].tokens_s : 0;
    if (s != STATUS_OK && s != STATUS_TOO_LARGE)
        return fail(c, &e);
    plan_result_fini(&now);
    s = plan_grow(growth, &n, &q->model, &q->cluster->cluster, q->engine, &q->request,
                  q->cluster->common, &e);
    if (s != STATUS_OK)
        return fail(c, &e);
    if (cli_flag(c, OPT_json))
        return look_json(c, growth_json(growth, n));
    print_growth(growth, n, tokens_s);
    return 0;
}

int cli_cmd_plan(cli *c)
{
    err e;
    if (!c->n_arguments) {
        if (cli_flag(c, OPT_json))
            return look_json(c, plans_known_json());
        plans_print_known();
        return 0;
    }
    if (!cli_given(c, OPT_cluster))
        return cli_usage(
            c, "say on which machines: --cluster FILE.json, or --cluster 2xm4-pro/64G@thunderbolt5 "
               "(`shoal plan` without a model lists names)");
    question *q = base_zalloc(1, sizeof *q);
    if (!q)
        return cli_fail(c, "no memory");
    int code;
    if (read_question(q, c, &e) != STATUS_OK)
        code = fail(c, &e);
    else
        code = cli_flag(c, OPT_grow) ? grow(c, q) : show(c, q);
    base_free(q->cluster);
    base_free(q);
    return code;
}
