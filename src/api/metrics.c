/* GET /metrics: counters, gauges and histograms in Prometheus' text format 0.0.4. */
#include "api/api_internal.h"
#include "os/os.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void put_head(sb *out, const char *name, const char *type, const char *help)
{
    sb_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_histogram(sb *out, const char *name, const char *help, const serve_histogram *h)
{
    uint64_t below = 0;
    put_head(out, name, "histogram", help);
    for (int i = 0; i < SERVE_BUCKETS; i++) {
        below += h->counts[i];
        if (isinf(serve_bucket_limits_s[i]))
            sb_printf(out, "%s_bucket{le=\"+Inf\"} ", name);
        else
            sb_printf(out, "%s_bucket{le=\"%g\"} ", name, serve_bucket_limits_s[i]);
        sb_printf(out, "%llu\n", (unsigned long long)below);
    }
    sb_printf(out, "%s_sum %.9g\n%s_count %llu\n", name, h->sum_s, name, (unsigned long long)h->n);
}

static void put_node(sb *out, const api *a)
{
    const serve_counters *k = serve_get_counters(a->s);
    const struct {
        const char *name, *type, *help;
        uint64_t value;
    } rows[] = {
        {"shoal_requests_total", "counter", "Requests begun.", k->requests},
        {"shoal_requests_failed_total", "counter", "Requests that ended with an error.", k->failed},
        {"shoal_requests_cancelled_total", "counter", "Requests cancelled, most by clients.",
         k->cancelled},
        {"shoal_requests_live", "gauge", "Requests being answered now.", (uint64_t)k->live},
        {"shoal_prompt_tokens_total", "counter", "Tokens of prompts.", k->prompt_tokens},
        {"shoal_cached_tokens_total", "counter", "Tokens of prompts found in cached state.",
         k->cached_tokens},
        {"shoal_generated_tokens_total", "counter", "Tokens generated.", k->generated_tokens},
        {"shoal_drafted_tokens_total", "counter", "Guessed tokens that were checked (--draft).",
         k->drafted_tokens},
        {"shoal_accepted_tokens_total", "counter", "Of those, the ones that stood.",
         k->accepted_tokens},
        {"shoal_process_resident_bytes", "gauge", "Memory of the node, without its ranks.",
         os_resident_bytes()},
    };
    put_head(out, "shoal_build_info", "gauge", "Version of this node.");
    sb_puts(out, "shoal_build_info{version=\"" SHOAL_VERSION "\"} 1\n");
    put_head(out, "shoal_uptime_seconds", "gauge", "Time since the start of this node.");
    sb_printf(out, "shoal_uptime_seconds %.3f\n", (double)(os_now_us() - a->began_us) / 1e6);
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        put_head(out, rows[i].name, rows[i].type, rows[i].help);
        sb_printf(out, "%s %llu\n", rows[i].name, (unsigned long long)rows[i].value);
    }
    put_histogram(out, "shoal_time_to_first_token_seconds",
                  "From the request to its first token, loading included.", &k->first_token);
    put_histogram(out, "shoal_time_per_token_seconds", "Between tokens of a request.",
                  &k->per_token);
    put_histogram(out, "shoal_request_seconds", "From the request to its end.", &k->whole);
}

/* ---- models -------------------------------------------------------------------------------------------------------- */

#define STAT(name, member)                                                                         \
    static uint64_t get_##name(const node_instance_info *i)                                        \
    {                                                                                              \
        return (uint64_t)i->member;                                                                \
    }
STAT(waiting, stats.waiting)
STAT(live, stats.live)
STAT(decoding, stats.decoding)
STAT(steps, stats.steps)
STAT(preemptions, stats.preemptions)
STAT(state_tokens, stats.state_tokens)
STAT(state_used, stats.state_used_tokens)
STAT(prefixes, stats.cached_prefix_tokens)
STAT(context, context)
STAT(restarts, restarts)
STAT(weights, weight_bytes)
STAT(state_bytes, state_bytes)
STAT(scratch, scratch_bytes)
STAT(resident, resident_bytes)
#undef STAT

static uint64_t get_ready(const node_instance_info *i)
{
    return i->state == NODE_READY;
}

static const struct {
    const char *name, *type, *help;
    uint64_t (*get)(const node_instance_info *i);
} model_rows[] = {
    {"shoal_model_ready", "gauge", "1 when the model answers, 0 while it is loaded or broken.",
     get_ready},
    {"shoal_model_context_tokens", "gauge", "Longest sequence.", get_context},
    {"shoal_model_restarts_total", "counter", "Times its process had to be started again.",
     get_restarts},
    {"shoal_queue_requests", "gauge", "Requests waiting for their turn.", get_waiting},
    {"shoal_live_sequences", "gauge", "Sequences in the batch or held.", get_live},
    {"shoal_decoding_sequences", "gauge", "Of those, the ones that generate.", get_decoding},
    {"shoal_steps_total", "counter", "Forward passes.", get_steps},
    {"shoal_preemptions_total", "counter", "Sequences that gave up their state for others.",
     get_preemptions},
    {"shoal_state_tokens", "gauge", "Positions that fit into the state of all sequences.",
     get_state_tokens},
    {"shoal_state_used_tokens", "gauge", "Of those, in use by live sequences and prefixes.",
     get_state_used},
    {"shoal_state_prefix_tokens", "gauge", "Of those, prefixes kept for later requests.",
     get_prefixes},
    {"shoal_weight_bytes", "gauge", "Memory for weights.", get_weights},
    {"shoal_state_bytes", "gauge", "Memory for sequence state.", get_state_bytes},
    {"shoal_scratch_bytes", "gauge", "Memory for the step.", get_scratch},
    {"shoal_rank_resident_bytes", "gauge", "Memory of the model's process.", get_resident},
};

/* The value of a label: \, " and newlines escaped. */
static void put_label(sb *out, const char *value)
{
    for (; *value; value++) {
        if (*value == '\n')
            sb_puts(out, "\\n");
        else if (*value == '"' || *value == '\\')
            sb_printf(out, "\\%c", *value);
        else
            sb_putc(out, *value);
    }
}

static void put_models(sb *out, const node *n)
{
    int n_instances = node_n_instances(n);
    for (size_t row = 0; row < BASE_COUNT(model_rows); row++) {
        if (n_instances)
            put_head(out, model_rows[row].name, model_rows[row].type, model_rows[row].help);
        for (int i = 0; i < n_instances; i++) {
            node_instance_info info;
            node_instance_describe(n, i, &info);
            sb_printf(out, "%s{model=\"", model_rows[row].name);
            put_label(out, info.name);
            sb_printf(out, "\"} %llu\n", (unsigned long long)model_rows[row].get(&info));
        }
    }
}

void api_get_metrics(const api_request *q)
{
    sb out;
    sb_init(&out);
    put_node(&out, q->of);
    put_models(&out, q->of->n);
    if (out.failed)
        http_reply_text(q->r, 500, "out of memory\n");
    else
        http_reply(q->r, 200, "text/plain; version=0.0.4; charset=utf-8", out.data, out.length);
    sb_fini(&out);
}
