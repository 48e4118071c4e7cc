/* The options of a cut and of the links between its ranks: see ranks.h. */
#include "cli/ranks.h"

#include <stdio.h>
#include <string.h>

/* "2x3": two stages of three ranks. false: it is no such thing. */
static bool read_grid(engine_cut *out, const char *mode)
{
    const char *x = strchr(mode, 'x');
    char stages[16];
    uint64_t s, t;
    if (!x || x == mode || (size_t)(x - mode) >= sizeof stages)
        return false;
    memcpy(stages, mode, (size_t)(x - mode));
    stages[x - mode] = '\0';
    if (!base_parse_u64(stages, &s) || !base_parse_u64(x + 1, &t) || s < 1 || t < 1 ||
        s > ENGINE_MOST_RANKS || t > ENGINE_MOST_RANKS)
        return false;
    out->n_stages = (int)s;
    out->n_tensor = (int)t;
    return true;
}

static status read_mode(engine_cut *out, int n, const char *mode, err *e)
{
    if (!mode || !strcmp(mode, "any") || !strcmp(mode, "tensor")) {
        out->n_stages = 1;
        out->n_tensor = n;
        return STATUS_OK;
    }
    if (!strcmp(mode, "pipeline")) {
        out->n_stages = n;
        out->n_tensor = 1;
        return STATUS_OK;
    }
    if (!read_grid(out, mode))
        return err_set(e, STATUS_INVALID,
                       "--mode %s: expected tensor, pipeline or stages x ranks, as 2x2", mode);
    if (engine_cut_ranks(out) != n)
        return err_set(e, STATUS_INVALID, "--mode %s is of %d ranks, --ranks says %d", mode,
                       engine_cut_ranks(out), n);
    return STATUS_OK;
}

/* One number of every rank, into out[n]. Whether they make sense, the cut knows. */
static status read_list(float *out, int *n_out, int n, const char *option, const char *text, err *e)
{
    char copy[1024];
    if (!text || !*text)
        return STATUS_OK;
    if ((size_t)snprintf(copy, sizeof copy, "%s", text) >= sizeof copy)
        return err_set(e, STATUS_INVALID, "--%s: the list is too long", option);
    for (char *at = copy, *next; at; at = next) {
        double number;
        next = strchr(at, ',');
        if (next)
            *next++ = '\0';
        if (!base_parse_double(at, &number) || number < 0 || number >= 1e9)
            return err_set(e, STATUS_INVALID, "--%s %s: '%s' is no %s", option, text, at,
                           strcmp(option, "shares") ? option : "share");
        if (*n_out < n)
            out[*n_out] = (float)number;
        ++*n_out;
    }
    if (*n_out != n)
        return err_set(e, STATUS_INVALID, "--%s %s: %d %s, but --ranks says %d", option, text,
                       *n_out, strcmp(option, "shares") ? "paces" : "shares", n);
    return STATUS_OK;
}

/* Ranks of a stage may have nothing to do, but not all of them. */
static status check_shares(const engine_cut *c, const char *text, err *e)
{
    for (int s = 0; s < c->n_stages && c->n_shares; s++) {
        const float *of = c->shares + s * c->n_tensor;
        int k = 0;
        while (k < c->n_tensor && of[k] <= 0)
            k++;
        if (k == c->n_tensor)
            return err_set(e, STATUS_INVALID,
                           "--shares %s: those of stage %d of %d are all 0, expected one above 0",
                           text, s + 1, c->n_stages);
    }
    return STATUS_OK;
}

/* A flag about several ranks where nothing says that there are several would do nothing. */
static status check_alone(const cli *c, err *e)
{
    static const cli_option of_several[] = {OPT_mode, OPT_link, OPT_link_latency_us, OPT_link_gbit};
    for (size_t i = 0; i < BASE_COUNT(of_several) && !cli_given(c, OPT_ranks); i++) {
        const cli_value *v = &c->values[of_several[i]];
        if (v->given && !strncmp(v->source, "--", 2))
            return err_set(e, STATUS_INVALID, "%s %s: there is one rank; --ranks N says how many",
                           v->source, v->text);
    }
    return STATUS_OK;
}

status ranks_read(engine_cut *out, const cli *c, err *e)
{
    uint64_t n = cli_whole(c, OPT_ranks);
    const char *link = cli_text(c, OPT_link);
    *out = (engine_cut){0};
    if (n < 1 || n > ENGINE_MOST_RANKS)
        return err_set(e, STATUS_INVALID, "--ranks %llu: expected 1 to %d", (unsigned long long)n,
                       ENGINE_MOST_RANKS);
    if (link && !engine_link_find(&out->link, link))
        return err_set(e, STATUS_INVALID, "--link %s: expected shm, tls or loop", link);
    double latency = cli_number(c, OPT_link_latency_us), gbit = cli_number(c, OPT_link_gbit);
    out->link_latency_us = (float)latency;
    out->link_gbit = (float)gbit;
    if (!engine_link_shape_fits(out))
        return err_set(e, STATUS_INVALID,
                       "--link-latency-us %g --link-gbit %g: expected up to 10000000, and 0 or "
                       "0.001 to 1000000",
                       latency, gbit);
    status s = read_mode(out, (int)n, cli_text(c, OPT_mode), e);
    if (s == STATUS_OK)
        s = read_list(out->shares, &out->n_shares, (int)n, "shares", cli_text(c, OPT_shares), e);
    if (s == STATUS_OK)
        s = read_list(out->paces, &out->n_paces, (int)n, "pace", cli_text(c, OPT_pace), e);
    if (s == STATUS_OK && !engine_cut_paces_fit(out))
        s = err_set(e, STATUS_INVALID, "--pace %s: expected shares above 0 and up to 1",
                    cli_text(c, OPT_pace));
    if (s == STATUS_OK)
        s = check_shares(out, cli_text(c, OPT_shares), e);
    return s == STATUS_OK ? check_alone(c, e) : s;
}
