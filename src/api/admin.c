/*
 * For whoever looks after a node, and for tools: a word at /, /health, /v1/status, cancelling by id, and tokenizing in the shape of
 * llama.cpp's server ({content, add_special, parse_special, with_pieces} → {tokens}, {tokens} → {content}). /metrics is in metrics.c.
 */
#include "api/api_internal.h"
#include "os/os.h"
#include "text/text.h"

#include <stdio.h>
#include <string.h>

static void get_root(const api_request *q)
{
    http_reply_text(q->r, 200,
                    "shoal " SHOAL_VERSION " is running. OpenAI's API is at /v1, e.g. GET "
                    "/v1/models; GET /v1/status tells how it is.\n");
}

static void get_health(const api_request *q)
{
    static const char ok[] = "{\"status\":\"ok\"}";
    http_reply(q->r, 200, "application/json", ok, sizeof ok - 1);
}

/* ---- status -------------------------------------------------------------------------------------------------------- */

static void put_count(sb *out, const char *name, uint64_t value)
{
    sb_printf(out, ",\"%s\":%llu", name, (unsigned long long)value);
}

static void put_card(sb *out, const model_card *card)
{
    sb_putc(out, ',');
    api_put_member(out, "family", str_from(card->family));
    sb_putc(out, ',');
    api_put_member(out, "weights", str_from(card->weights));
    put_count(out, "layers", (uint64_t)card->n_layers);
    put_count(out, "vocabulary", (uint64_t)card->n_vocab);
    put_count(out, "trained_context", (uint64_t)card->trained_context);
}

static void put_instance(sb *out, const node_instance_info *i)
{
    const engine_stats *k = &i->stats;
    sb_putc(out, '{');
    api_put_member(out, "name", str_from(i->name));
    sb_putc(out, ',');
    api_put_member(out, "source", str_from(i->path));
    sb_printf(out, ",\"state\":\"%s\",\"loaded\":", node_state_name(i->state));
    api_put_number(out, i->loaded_share);
    if (i->card)
        put_card(out, i->card);
    sb_putc(out, ',');
    api_put_member(out, "isa", str_from(i->isa));
    sb_putc(out, ',');
    api_put_member(out, "numerics", str_from(i->numerics));
    put_count(out, "context", (uint64_t)i->context);
    sb_printf(out, ",\"kv\":\"%s\"", model_kv_name(i->kv));
    put_count(out, "pid", (uint64_t)i->pid);
    put_count(out, "restarts", (uint64_t)i->restarts);
    put_count(out, "requests", (uint64_t)i->in_flight);
    put_count(out, "waiting", (uint64_t)k->waiting);
    put_count(out, "live_sequences", (uint64_t)k->live);
    put_count(out, "decoding", (uint64_t)k->decoding);
    put_count(out, "steps", k->steps);
    put_count(out, "preemptions", k->preemptions);
    put_count(out, "prompt_tokens", k->prompt_tokens);
    put_count(out, "cached_tokens", k->cached_tokens);
    put_count(out, "generated_tokens", k->generated_tokens);
    put_count(out, "drafted_tokens", k->drafted_tokens);
    put_count(out, "accepted_tokens", k->accepted_tokens);
    sb_puts(out, ",\"generated_tokens_per_step_second\":");
    api_put_number(out, k->step_us ? (double)k->generated_tokens * 1e6 / (double)k->step_us : 0);
    put_count(out, "state_tokens", k->state_tokens);
    put_count(out, "state_used_tokens", k->state_used_tokens);
    put_count(out, "cached_prefix_tokens", k->cached_prefix_tokens);
    put_count(out, "weight_bytes", i->weight_bytes);
    put_count(out, "state_bytes", i->state_bytes);
    put_count(out, "scratch_bytes", i->scratch_bytes);
    put_count(out, "resident_bytes", i->resident_bytes);
    put_count(out, "load_us", i->load_us);
    put_count(out, "idle_us", i->idle_us);
    if (i->unload_in_us != UINT64_MAX)
        put_count(out, "unload_in_us", i->unload_in_us);
    else
        sb_puts(out, ",\"unload_in_us\":null");
    if (i->why.code != STATUS_OK && i->state != NODE_READY) {
        sb_putc(out, ',');
        api_put_member(out, "error", str_from(i->why.text));
    }
    sb_putc(out, '}');
}

static void get_status(const api_request *q)
{
    const serve_counters *k = serve_get_counters(q->of->s);
    char host[256];
    os_memory_info memory = {0};
    sb out;
    sb_init(&out);
    sb_puts(&out, "{\"node\":{\"version\":\"" SHOAL_VERSION "\",");
    api_put_member(&out, "host", str_from(os_host_name(host)));
    put_count(&out, "uptime_us", os_now_us() - q->of->began_us);
    put_count(&out, "resident_bytes", os_resident_bytes());
    if (os_memory(&memory, NULL) == STATUS_OK) {
        put_count(&out, "memory_bytes", memory.total_bytes);
        put_count(&out, "memory_available_bytes", memory.available_bytes);
    }
    sb_printf(&out, "},\"requests\":{\"live\":%d", k->live);
    put_count(&out, "total", k->requests);
    put_count(&out, "failed", k->failed);
    put_count(&out, "cancelled", k->cancelled);
    put_count(&out, "prompt_tokens", k->prompt_tokens);
    put_count(&out, "cached_tokens", k->cached_tokens);
    put_count(&out, "generated_tokens", k->generated_tokens);
    put_count(&out, "drafted_tokens", k->drafted_tokens);
    put_count(&out, "accepted_tokens", k->accepted_tokens);
    sb_puts(&out, "},\"models\":[");
    for (int i = 0; i < node_n_instances(q->of->n); i++) {
        node_instance_info info;
        node_instance_describe(q->of->n, i, &info);
        if (i)
            sb_putc(&out, ',');
        put_instance(&out, &info);
    }
    sb_puts(&out, "]}");
    api_reply_json(q->r, 200, &out);
    sb_fini(&out);
}

/* ---- cancelling ---------------------------------------------------------------------------------------------------- */

static void delete_request(const api_request *q)
{
    api_fault f;
    if (!api_exchange_cancel(q->of, q->rest) && !api_embed_cancel(q->of, q->rest)) {
        api_fault_set(&f, STATUS_NOT_FOUND, "", "there is no live request '%.100s'", q->rest);
        f.code = "request_not_found";
        api_reply_fault(q->r, &api_admin, &f);
        return;
    }
    sb out;
    sb_init(&out);
    sb_putc(&out, '{');
    api_put_member(&out, "id", str_from(q->rest));
    sb_puts(&out, ",\"object\":\"request\",\"deleted\":true}");
    api_reply_json(q->r, 200, &out);
    sb_fini(&out);
}

/* ---- tokenizing ---------------------------------------------------------------------------------------------------- */

static void on_ask_gone(void *context, http_request *r)
{
    api_ask *ask = context;
    (void)r;
    ask->r = NULL;
}

static api_ask *new_ask(const api_request *q)
{
    api_ask *ask = base_zalloc(1, sizeof *ask);
    if (!ask)
        return NULL;
    *ask = (api_ask){.of = q->of, .r = q->r, .next = q->of->asks};
    q->of->asks = ask;
    http_on_gone(q->r, on_ask_gone, ask);
    return ask;
}

static void free_ask(api_ask *ask)
{
    api_ask **at = &ask->of->asks;
    while (*at != ask)
        at = &(*at)->next;
    *at = ask->next;
    base_free(ask);
}

static void put_piece(sb *out, str piece)
{
    bool text = true;
    for (size_t i = 0; i < piece.length && text;) {
        int n = text_utf8_length(piece.data + i, piece.length - i);
        text = n > 0;
        i += (size_t)n;
    }
    if (text) {
        api_put_member(out, "piece", piece);
        return;
    }
    sb_puts(out, "\"piece\":[");
    for (size_t i = 0; i < piece.length; i++)
        sb_printf(out, "%s%d", i ? "," : "", (unsigned char)piece.data[i]);
    sb_putc(out, ']');
}

static void put_tokens(sb *out, const serve_tokens *t, bool pieces)
{
    sb_puts(out, "{\"tokens\":[");
    for (size_t i = 0; i < t->n; i++) {
        if (i)
            sb_putc(out, ',');
        if (!pieces) {
            sb_printf(out, "%d", (int)t->ids[i]);
            continue;
        }
        sb_printf(out, "{\"id\":%d,", (int)t->ids[i]);
        put_piece(out, text_token_bytes(t->tokenizer, t->ids[i]));
        sb_putc(out, '}');
    }
    sb_puts(out, "]}");
}

static void answer_ask(api_ask *ask, const serve_tokens *t, bool decoded)
{
    sb out;
    sb_init(&out);
    if (ask->r && t->error) {
        api_fault f;
        api_fault_from(&f, t->error);
        api_reply_fault(ask->r, &api_admin, &f);
    } else if (ask->r) {
        if (decoded) {
            sb_putc(&out, '{');
            api_put_member(&out, "content", t->text);
            sb_putc(&out, '}');
        } else {
            put_tokens(&out, t, ask->pieces);
        }
        api_reply_json(ask->r, 200, &out);
    }
    sb_fini(&out);
    free_ask(ask);
}

static void on_tokens(void *context, const serve_tokens *t)
{
    answer_ask(context, t, false);
}

static void on_text(void *context, const serve_tokens *t)
{
    answer_ask(context, t, true);
}

static void refuse_ask(api_ask *ask, const err *e)
{
    const serve_tokens t = {.error = e};
    answer_ask(ask, &t, false);
}

static void post_tokenize(const api_request *q)
{
    api_fault f;
    json_t *body = NULL;
    const char *name = NULL;
    bool add = false, parse = true, pieces = false;
    bool good = api_read_body(&body, q, &f) && api_get_string(&name, body, "", "model", &f) &&
                api_get_bool(&add, body, "", "add_special", &f) &&
                api_get_bool(&parse, body, "", "parse_special", &f) &&
                api_get_bool(&pieces, body, "", "with_pieces", &f);
    const json_t *content = json_object_get(body, "content");
    if (good && !json_is_string(content))
        good = api_wrong_type(&f, "content", "a string", content);
    api_ask *ask = good ? new_ask(q) : NULL;
    if (good && !ask)
        api_fault_set(&f, STATUS_NO_MEMORY, "", "no memory for a request");
    if (ask) {
        err e;
        ask->pieces = pieces;
        if (serve_tokenize(q->of->s, name, api_json_str(content), add, parse, on_tokens, ask, &e) !=
            STATUS_OK)
            refuse_ask(ask, &e);
    } else {
        api_reply_fault(q->r, &api_admin, &f);
    }
    json_decref(body);
}

static bool read_tokens(const int32_t **ids, int *n, const json_t *body, arena *memory,
                        api_fault *f)
{
    json_t *array = NULL;
    if (!api_get_container(&array, JSON_ARRAY, body, "", "tokens", f))
        return false;
    if (!array)
        return api_wrong_type(f, "tokens", "an array of token ids", NULL);
    return api_read_ids(ids, n, array, "tokens", memory, f);
}

static void post_detokenize(const api_request *q)
{
    api_fault f;
    json_t *body = NULL;
    const char *name = NULL;
    const int32_t *ids = NULL;
    int n = 0;
    arena memory;
    arena_init(&memory, 0);
    bool good = api_read_body(&body, q, &f) && api_get_string(&name, body, "", "model", &f) &&
                read_tokens(&ids, &n, body, &memory, &f);
    api_ask *ask = good ? new_ask(q) : NULL;
    if (good && !ask)
        api_fault_set(&f, STATUS_NO_MEMORY, "", "no memory for a request");
    if (ask) {
        err e;
        if (serve_detokenize(q->of->s, name, ids, (size_t)n, on_text, ask, &e) != STATUS_OK)
            refuse_ask(ask, &e);
    } else {
        api_reply_fault(q->r, &api_admin, &f);
    }
    arena_fini(&memory);
    json_decref(body);
}

static const api_route routes[] = {
    {"GET", "/", get_root, true},
    {"GET", "/health", get_health, true},
    {"GET", "/metrics", api_get_metrics, false},
    {"GET", "/v1/status", get_status, false},
    {"DELETE", "/v1/requests/*", delete_request, false},
    {"POST", "/tokenize", post_tokenize, false},
    {"POST", "/detokenize", post_detokenize, false},
};

const api_dialect api_admin = {"admin", routes, BASE_COUNT(routes), api_openai_error};
