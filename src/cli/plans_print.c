/*
 * Plans for people and for scripts: a table of ranks with what memory each needs, a diagram of stages and shares in text, the times by part,
 * other plans, reasons, money; the same as JSON; a picture as SVG. Names of nodes come from files: they are cleaned for terminals and escaped.
 */
#include "cli/look.h"
#include "cli/plans.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BAR = 24, LINE = 80 };

/* Words in lines of 80 columns; the later ones begin with `indent` spaces. text is clean. */
static void print_wrapped(const char *first, const char *text, int indent)
{
    sb word = {0};
    int at = printf("%s", first), gap = 0;
    for (const char *p = text; *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");
        sb_clear(&word);
        sb_add(&word, p, n);
        int width = look_width(word.data ? word.data : "");
        if (at > indent && at + gap + width > LINE) {
            printf("\n%*s", indent, "");
            at = indent;
        } else {
            at += printf("%*s", gap, "");
        }
        fwrite(p, 1, n, stdout);
        at += width;
        p += n;
        gap = 1;
    }
    putchar('\n');
    sb_fini(&word);
}

plans_money plans_money_of(const plans_answer *a, const plan_cut *p)
{
    plans_money m = {.priced = true, .even_tokens = INFINITY, .even_days = INFINITY};
    for (int i = 0; i < p->n_stages; i++)
        for (int k = 0; k < p->stages[i].n_ranks; k++) {
            const plan_node *node = &a->cluster->nodes[p->stages[i].ranks[k].node];
            m.price += node->price;
            m.watts += node->watts;
            m.priced = m.priced && node->price > 0 && node->watts > 0;
        }
    double kwh_per_million = m.watts / 1e3 * (1e6 / p->throughput) / 3600;
    m.energy_per_million = kwh_per_million * a->kwh_price;
    if (a->token_price > m.energy_per_million) {
        m.even_tokens = m.price / (a->token_price - m.energy_per_million) * 1e6;
        m.even_days = m.even_tokens / p->throughput / 86400;
    }
    return m;
}

const char *plans_figure(char out[32], double x)
{
    snprintf(out, 32, fabs(x) < 999.5 ? "%.3g" : "%.0f", x);
    return out;
}

const char *plans_span(char out[32], double us)
{
    char figure[32];
    double in = us < 999.5 ? 1 : us < 999500 ? 1e3 : 1e6;
    snprintf(out, 32, "%.24s %s", plans_figure(figure, us / in),
             us < 999.5    ? "us"
             : us < 999500 ? "ms"
                           : "s");
    return out;
}

/* The share of a rank in its stage, by the bytes that it reads; in per cent. */
static double share_of(const plan_stage *t, int rank)
{
    double all = 0;
    for (int i = 0; i < t->n_ranks; i++)
        all += t->ranks[i].weight_bytes;
    return all > 0 ? 100 * t->ranks[rank].weight_bytes / all : 0;
}

static const char *units_text(char out[40], const plan_stage *t, const plan_rank *r, plan_kind k)
{
    if (!t->units[k])
        snprintf(out, 40, "-");
    else if (r->units[k] == t->units[k])
        snprintf(out, 40, "all");
    else
        snprintf(out, 40, "%d/%d", r->units[k], t->units[k]);
    return out;
}

/* Kinds of units that no stage divides need no column. */
static bool shows_kind(const plan_cut *p, plan_kind k)
{
    for (int i = 0; i < p->n_stages; i++)
        for (int q = 0; q < p->stages[i].n_ranks; q++)
            if (p->stages[i].ranks[q].units[k] != p->stages[i].units[k])
                return true;
    return false;
}

static void print_rank(look_table *t, const plans_answer *a, const plan_cut *p, int stage, int k)
{
    const plan_stage *s = &p->stages[stage];
    const plan_rank *r = &s->ranks[k];
    char number[16] = "", layers[32] = "", u[PLAN_KINDS][40], weights[32], state[32], used[48];
    const char *cells[10] = {number, layers};
    sb name = {0};
    int n = 3;
    if (!k) {
        snprintf(number, sizeof number, "%d", stage + 1);
        snprintf(layers, sizeof layers, "%d-%d", s->first, s->last - 1);
    }
    look_clean(&name, a->cluster->nodes[r->node].name, strlen(a->cluster->nodes[r->node].name));
    cells[2] = name.data ? name.data : "";
    for (int q = 0; q < PLAN_KINDS; q++)
        if (shows_kind(p, (plan_kind)q))
            cells[n++] = units_text(u[q], s, r, (plan_kind)q);
    double all = r->weight_bytes + r->state_bytes + r->scratch_bytes + r->reserve_bytes;
    snprintf(weights, sizeof weights, "%.1f", r->weight_bytes / 1e9);
    snprintf(state, sizeof state, "%.2f", r->state_bytes / 1e9);
    snprintf(used, sizeof used, "%.1f of %.1f", all / 1e9, r->memory_bytes / 1e9);
    cells[n++] = weights;
    cells[n++] = state;
    cells[n++] = used;
    look_table_row(t, cells);
    sb_fini(&name);
}

static void print_ranks(const plans_answer *a, const plan_cut *p)
{
    static const char *const kinds[PLAN_KINDS] = {"heads", "feed", "experts", "vocab"};
    look_table t = {.heads = {"stage", "layers", "node"}, .n_columns = 3, .gives = 2};
    for (int k = 0; k < PLAN_KINDS; k++)
        if (shows_kind(p, (plan_kind)k))
            t.heads[t.n_columns++] = kinds[k];
    t.heads[t.n_columns++] = "weights";
    t.heads[t.n_columns++] = "state";
    t.heads[t.n_columns++] = "GB used";
    for (int i = 3; i < t.n_columns; i++)
        t.right[i] = true;
    for (int i = 0; i < p->n_stages; i++)
        for (int k = 0; k < p->stages[i].n_ranks; k++)
            print_rank(&t, a, p, i, k);
    look_table_print(&t, stdout);
    look_table_fini(&t);
}

/* One line a rank: a bar as long as its share of the stage's weights; arrows between stages with their time. */
static void print_diagram(const plans_answer *a, const plan_cut *p)
{
    for (int i = 0; i < p->n_stages; i++) {
        const plan_stage *s = &p->stages[i];
        for (int k = 0; k < s->n_ranks; k++) {
            double share = share_of(s, k);
            int full = (int)(share / 100 * BAR + 0.5);
            sb name = {0};
            look_clean(&name, a->cluster->nodes[s->ranks[k].node].name,
                       strlen(a->cluster->nodes[s->ranks[k].node].name));
            printf("  %s ", s->n_ranks == 1       ? "-"
                            : k == 0              ? "/"
                            : k == s->n_ranks - 1 ? "\\"
                                                  : "|");
            for (int c = 0; c < BAR; c++)
                putchar(c < full ? '#' : '.');
            printf(" %5.1f %%  %s\n", share, name.data ? name.data : "");
            sb_fini(&name);
        }
        if (i + 1 < p->n_stages)
            printf("        |  hop %.3g ms\n        v\n", s->hop_us / 1e3);
    }
}

static void print_times(const plans_answer *a, const plan_cut *p)
{
    char f[5][32];
    printf("one stream        %s tok/s: %s ms = %s compute + %s sums + %s hops\n",
           plans_figure(f[0], p->tokens_s), plans_figure(f[1], p->step_us / 1e3),
           plans_figure(f[2], p->compute_us / 1e3), plans_figure(f[3], p->sum_us / 1e3),
           plans_figure(f[4], p->hop_us / 1e3));
    if (a->request->concurrency > 1)
        printf("all streams       %s tok/s together, %s each of %d\n",
               plans_figure(f[0], p->throughput),
               plans_figure(f[1], p->throughput / a->request->concurrency),
               a->request->concurrency);
    printf("first token       %s after a prompt of %lld tokens\n", plans_span(f[0], p->ttft_us),
           (long long)a->request->prompt);
    for (int i = 0; i < p->n_stages; i++)
        if (p->stages[i].n_ranks > 1)
            printf("stage %-3d         sums: %s%s\n", i + 1, plan_sum_name(p->stages[i].sum),
                   !p->stages[i].units[PLAN_EXPERTS] ? ""
                   : p->stages[i].whole_experts      ? "; experts whole"
                                                     : "; experts sliced");
}

static void print_money(const plans_answer *a, const plan_cut *p)
{
    plans_money m = plans_money_of(a, p);
    if (a->kwh_price <= 0 && a->token_price <= 0)
        return;
    if (!m.priced) {
        printf("money             price or watts of a node are not known\n");
        return;
    }
    printf("money             $%.0f of machines, %.0f W; ", m.price, m.watts);
    if (a->kwh_price > 0)
        printf("electricity $%.3g a million tokens\n", m.energy_per_million);
    else
        printf("electricity not counted (--kwh)\n");
    printf("                  (`shoal plan` alone says which prices and watts are estimated)\n");
    if (a->token_price <= 0)
        return;
    if (isinf(m.even_tokens))
        printf("                  never breaks even against $%.3g a million tokens\n",
               a->token_price);
    else
        printf("                  breaks even against $%.3g a million tokens after\n"
               "                  %.*f million tokens, %.0f days of full use\n",
               a->token_price, m.even_tokens < 1e7 ? 2 : 0, m.even_tokens / 1e6, m.even_days);
}

/* "2 x (a + b) | c": stages with bars between. */
static void structure_text(sb *out, const plans_answer *a, const plan_cut *p)
{
    for (int i = 0; i < p->n_stages; i++) {
        sb_puts(out, i ? " | " : "");
        for (int k = 0; k < p->stages[i].n_ranks; k++) {
            const char *name = a->cluster->nodes[p->stages[i].ranks[k].node].name;
            sb_puts(out, k ? " + " : "");
            look_clean(out, name, strlen(name));
        }
    }
}

static void print_others(const plans_answer *a)
{
    if (a->result->n_plans > 1)
        printf("\nother plans (+ shares layers, | passes on)\n"
               "     tok/s  together  first token\n");
    for (int i = 1; i < a->result->n_plans; i++) {
        const plan_cut *p = &a->result->plans[i];
        sb text = {0};
        structure_text(&text, a, p);
        char figures[80], f[3][32];
        snprintf(figures, sizeof figures, "  %8.20s %9.20s  %11.20s  ",
                 plans_figure(f[0], p->tokens_s), plans_figure(f[1], p->throughput),
                 plans_span(f[2], p->ttft_us));
        print_wrapped(figures, text.data ? text.data : "", 36);
        sb_fini(&text);
    }
}

/* In thousands of millions, or in millions where that says more. */
static const char *amount(char out[32], double x, const char *giga, const char *mega)
{
    char figure[32];
    bool small = x < 1e8;
    snprintf(out, 32, "%.24s %.4s", plans_figure(figure, x / (small ? 1e6 : 1e9)),
             small ? mega : giga);
    return out;
}

void plans_print(const plans_answer *a)
{
    plan_size size;
    look l = look_of(1);
    plan_model_size(&size, a->model);
    char f[4][32];
    printf("%s%s%s: %s parameters, %s active\n"
           "%s of weights, %s read a token, %.1f kB of state a position\n",
           l.bold, a->model->name, l.off, amount(f[0], size.parameters, "B", "M"),
           amount(f[1], size.active, "B", "M"), amount(f[2], size.weight_bytes, "GB", "MB"),
           amount(f[3], size.bytes_per_token, "GB", "MB"), size.state_bytes_per_token / 1e3);
    printf("predicted for %s, goal %s, context %lld, %d at once\n", a->engine->name,
           plan_goal_name(a->request->goal), (long long)a->request->context,
           a->request->concurrency);
    if (a->result->n_plans) {
        const plan_cut *best = &a->result->plans[0];
        printf("\n");
        print_diagram(a, best);
        printf("\n");
        print_ranks(a, best);
        printf("\n");
        print_times(a, best);
        print_money(a, best);
        print_others(a);
    }
    printf("\n");
    for (int i = 0; i < a->result->n_reasons; i++) {
        sb text = {0};
        look_clean(&text, a->result->reasons[i], strlen(a->result->reasons[i]));
        print_wrapped("- ", text.data ? text.data : "", 2);
        sb_fini(&text);
    }
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------- */

/* Bytes and parameters are whole numbers, however many digits they have. */
static json_t *whole(double x)
{
    return json_integer((json_int_t)llround(x));
}

static json_t *rank_json(const plans_answer *a, const plan_rank *r)
{
    json_t *units = json_object();
    for (int k = 0; k < PLAN_KINDS; k++)
        json_object_set_new(units, plan_kind_name((plan_kind)k), json_integer(r->units[k]));
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "node",
                     look_json_text(a->cluster->nodes[r->node].name), "units", units,
                     "weight_bytes", whole(r->weight_bytes), "state_bytes", whole(r->state_bytes),
                     "scratch_bytes", whole(r->scratch_bytes), "reserve_bytes",
                     whole(r->reserve_bytes), "memory_bytes", whole(r->memory_bytes));
}

static json_t *stage_json(const plans_answer *a, const plan_stage *s)
{
    json_t *ranks = json_array(), *units = json_object();
    for (int k = 0; k < PLAN_KINDS; k++)
        json_object_set_new(units, plan_kind_name((plan_kind)k), json_integer(s->units[k]));
    for (int i = 0; i < s->n_ranks; i++)
        json_array_append_new(ranks, rank_json(a, &s->ranks[i]));
    return json_pack("{s:i, s:i, s:o, s:b, s:s, s:f, s:f, s:f, s:o}", "first_layer", s->first,
                     "last_layer", s->last - 1, "units", units, "whole_experts", s->whole_experts,
                     "sum", plan_sum_name(s->sum), "compute_us", s->compute_us, "sum_us", s->sum_us,
                     "hop_us", s->hop_us, "ranks", ranks);
}

static json_t *cut_json(const plans_answer *a, const plan_cut *p)
{
    json_t *stages = json_array();
    for (int i = 0; i < p->n_stages; i++)
        json_array_append_new(stages, stage_json(a, &p->stages[i]));
    json_t *o = json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "nodes", p->n_nodes,
                          "tokens_per_second", p->tokens_s, "throughput", p->throughput, "ttft_us",
                          p->ttft_us, "step_us", p->step_us, "compute_us", p->compute_us, "sum_us",
                          p->sum_us, "hop_us", p->hop_us, "stages", stages);
    plans_money m = plans_money_of(a, p);
    if (m.priced && (a->kwh_price > 0 || a->token_price > 0)) {
        json_object_set_new(o, "price", json_real(m.price));
        json_object_set_new(o, "watts", json_real(m.watts));
        if (a->kwh_price > 0)
            json_object_set_new(o, "energy_per_million_tokens", json_real(m.energy_per_million));
        if (isfinite(m.even_tokens))
            json_object_set_new(o, "break_even_tokens", json_real(m.even_tokens));
    }
    return o;
}

json_t *plans_json(const plans_answer *a)
{
    json_t *plans = json_array(), *reasons = json_array();
    plan_size size;
    plan_model_size(&size, a->model);
    for (int i = 0; i < a->result->n_plans; i++)
        json_array_append_new(plans, cut_json(a, &a->result->plans[i]));
    for (int i = 0; i < a->result->n_reasons; i++)
        json_array_append_new(reasons, look_json_text(a->result->reasons[i]));
    return json_pack("{s:o, s:s, s:s, s:I, s:I, s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "model",
                     look_json_text(a->model->name), "engine", a->engine->name, "goal",
                     plan_goal_name(a->request->goal), "context", (json_int_t)a->request->context,
                     "prompt", (json_int_t)a->request->prompt, "concurrency",
                     a->request->concurrency, "parameters", whole(size.parameters),
                     "active_parameters", whole(size.active), "weight_bytes",
                     whole(size.weight_bytes), "missing_bytes", whole(a->result->missing_bytes),
                     "plans", plans, "reasons", reasons);
}

/* ---- SVG ------------------------------------------------------------------------------------------------------------ */

static void xml(sb *out, const char *text)
{
    for (; *text; text++)
        if (*text == '<')
            sb_puts(out, "&lt;");
        else if (*text == '&')
            sb_puts(out, "&amp;");
        else
            sb_putc(out, (unsigned char)*text < 0x20 ? '?' : *text);
}

enum { STAGE_W = 190, RANK_H = 56, GAP = 70, TOP = 92, PAD = 8, NAME_BYTES = 24 };

/* At most so many bytes of a name, whole characters, with an ellipsis. */
static void xml_name(sb *out, const char *name, size_t most)
{
    char copy[PLAN_NAME];
    size_t n = strlen(name), keep = BASE_MIN(n, BASE_MIN(most, sizeof copy - 1));
    while (keep < n && keep && ((unsigned char)name[keep] & 0xc0) == 0x80)
        keep--;
    memcpy(copy, name, keep);
    copy[keep] = '\0';
    xml(out, copy);
    sb_puts(out, keep < n ? "\u2026" : "");
}

static void svg_rank(sb *out, const plans_answer *a, const plan_stage *s, int i, int x, int y)
{
    const plan_rank *r = &s->ranks[i];
    double used = r->weight_bytes + r->state_bytes + r->scratch_bytes + r->reserve_bytes;
    sb_printf(out,
              "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"4\" fill=\"#eef2f6\" "
              "stroke=\"#8899aa\"/>\n",
              x, y, STAGE_W, RANK_H - 6);
    for (int full = 0; full < 2; full++) /* the rank's memory, and what of it is used */
        sb_printf(out, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"4\" fill=\"%s\"/>\n",
                  x + PAD, y + RANK_H - 15,
                  (STAGE_W - 2 * PAD) * (full ? fmin(1, used / r->memory_bytes) : 1),
                  full ? "#2f6fb0" : "#ccd6e0");
    sb_printf(out, "<text x=\"%d\" y=\"%d\">", x + PAD, y + 16);
    xml_name(out, a->cluster->nodes[r->node].name, NAME_BYTES);
    sb_printf(out, "</text>\n<text x=\"%d\" y=\"%d\" fill=\"#556\">", x + PAD, y + 32);
    if (s->n_ranks > 1)
        sb_printf(out, "%.1f %% \u00b7 ", share_of(s, i));
    sb_printf(out, "%.1f of %.1f GB</text>\n", used / 1e9, r->memory_bytes / 1e9);
}

void plans_svg(sb *out, const plans_answer *a)
{
    const plan_cut *p = &a->result->plans[0];
    char figure[32];
    int most = 1;
    for (int i = 0; i < p->n_stages; i++)
        most = BASE_MAX(most, p->stages[i].n_ranks);
    int width = BASE_MAX(p->n_stages * (STAGE_W + GAP) - GAP + 40, 560);
    sb_printf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
        "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" "
        "fill=\"white\"/>\n<text x=\"20\" y=\"24\" font-size=\"15\">",
        width, TOP + most * RANK_H + 34);
    xml(out, a->model->name);
    sb_printf(out, "</text>\n<text x=\"20\" y=\"46\" fill=\"#556\">%s tok/s one stream",
              plans_figure(figure, p->tokens_s));
    if (a->request->concurrency > 1)
        sb_printf(out, ", %s together with %d", plans_figure(figure, p->throughput),
                  a->request->concurrency);
    sb_printf(out, ", first token %s after %lld tokens</text>\n", plans_span(figure, p->ttft_us),
              (long long)a->request->prompt);
    for (int i = 0; i < p->n_stages; i++) {
        const plan_stage *s = &p->stages[i];
        int x = 20 + i * (STAGE_W + GAP);
        sb_printf(out, "<text x=\"%d\" y=\"%d\">layers %d-%d, %.3g ms", x, TOP - 12, s->first,
                  s->last - 1, (s->compute_us + s->sum_us) / 1e3);
        if (s->n_ranks > 1)
            sb_printf(out, ", sums %.3g", s->sum_us / 1e3);
        sb_puts(out, "</text>\n");
        for (int k = 0; k < s->n_ranks; k++)
            svg_rank(out, a, s, k, x, TOP + k * RANK_H);
        if (i + 1 < p->n_stages)
            sb_printf(
                out,
                "<path d=\"M%d %d h%d m-6 -4 l6 4 l-6 4\" stroke=\"#334\" fill=\"none\"/>\n<text "
                "x=\"%d\" y=\"%d\" font-size=\"10\">%.3g ms</text>\n",
                x + STAGE_W + 8, TOP + 20, GAP - 16, x + STAGE_W + 12, TOP + 12, s->hop_us / 1e3);
    }
    sb_printf(out,
              "<text x=\"20\" y=\"%d\" font-size=\"10\" fill=\"#556\">times of one token; bars: "
              "memory used; %%: share of the stage's weights</text>\n</svg>\n",
              TOP + most * RANK_H + 18);
}

/* ---- what is known by name ------------------------------------------------------------------------------------------ */

void plans_print_known(void)
{
    look l = look_of(1);
    char first[120], text[400];
    printf("%smodels%s (MODEL, or MODEL:QUANT)\n", l.bold, l.off);
    for (int i = 0; i < plan_n_models(); i++) {
        plan_model m;
        plan_size size;
        if (plan_model_find(&m, plan_model_at(i)->name, NULL) != STATUS_OK)
            continue;
        plan_model_size(&size, &m);
        snprintf(first, sizeof first, "  %-17s %7.4g B, %5.3g B active, %-5s ", m.name,
                 size.parameters / 1e9, size.active / 1e9, plan_model_at(i)->quant);
        print_wrapped(first, plan_model_at(i)->source, 8);
    }
    printf("%squantisations%s\n", l.bold, l.off);
    text[0] = '\0';
    for (int i = 0; i < plan_n_quants(); i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? " " : "",
                 plan_quant_at(i));
    print_wrapped("  ", text, 2);
    printf("%sdevices%s\n", l.bold, l.off);
    for (int i = 0; i < plan_n_devices(); i++) {
        const plan_device *d = plan_device_at(i);
        printf("  %-14s %5g GB %6g GB/s %5g TFLOPS %4g W $%g\n", d->name, d->memory_gb,
               d->bandwidth_gb_s, d->tflops, d->watts, d->price);
        snprintf(text, sizeof text, "%s. %s", d->title, d->source);
        print_wrapped("      ", text, 6);
    }
    printf("%slinks%s\n", l.bold, l.off);
    for (int i = 0; i < plan_n_links(); i++) {
        const plan_link_kind *k = plan_link_at(i);
        printf("  %-18s %6g us  %6g Gbit/s\n", k->name, k->latency_us, k->gbit_s);
        snprintf(text, sizeof text, "%s. %s", k->title, k->source);
        print_wrapped("      ", text, 6);
    }
    printf("%sengines%s\n ", l.bold, l.off);
    for (int i = 0; i < plan_n_engines(); i++)
        printf(" %s", plan_engine_at(i)->name);
    printf("\n");
}

json_t *plans_known_json(void)
{
    json_t *models = json_array(), *devices = json_array(), *links = json_array();
    json_t *quants = json_array(), *engines = json_array();
    for (int i = 0; i < plan_n_quants(); i++)
        json_array_append_new(quants, json_string(plan_quant_at(i)));
    for (int i = 0; i < plan_n_engines(); i++)
        json_array_append_new(engines, json_string(plan_engine_at(i)->name));
    for (int i = 0; i < plan_n_models(); i++)
        json_array_append_new(models, json_pack("{s:s, s:s, s:s}", "name", plan_model_at(i)->name,
                                                "quant", plan_model_at(i)->quant, "source",
                                                plan_model_at(i)->source));
    for (int i = 0; i < plan_n_devices(); i++) {
        const plan_device *d = plan_device_at(i);
        json_array_append_new(devices,
                              json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:s}", "name", d->name,
                                        "title", d->title, "memory_gb", d->memory_gb,
                                        "bandwidth_gb_s", d->bandwidth_gb_s, "tflops", d->tflops,
                                        "watts", d->watts, "price", d->price, "source", d->source));
    }
    for (int i = 0; i < plan_n_links(); i++) {
        const plan_link_kind *k = plan_link_at(i);
        json_array_append_new(links, json_pack("{s:s, s:s, s:f, s:f, s:s}", "name", k->name,
                                               "title", k->title, "latency_us", k->latency_us,
                                               "gbit_s", k->gbit_s, "source", k->source));
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "models", models, "quantisations", quants,
                     "devices", devices, "links", links, "engines", engines);
}
