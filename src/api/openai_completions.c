/*
 * POST /v1/completions, the older endpoint: a prompt that is text, token ids, or an array of either; every prompt is a call of its own
 * and the choices of all of them are numbered through. Answers: text_completion, whole or as events, with the old shape of logprobs.
 *
 * Source: OpenAI API reference, "Completions". Not here: suffix (needs models trained for it), refused by name.
 */
#include "api/api_internal.h"
#include "text/text.h"

#include <math.h>
#include <string.h>

enum { DEFAULT_TOKENS = 16, CHOICES_MAX = 1024 };

/* ---- the request --------------------------------------------------------------------------------------------------- */

typedef struct prompts {
    serve_request *requests; /* [n], in the arena of the parameters */
    int n;
} prompts;

static bool read_one(serve_request *q, const json_t *v, const char *param, arena *memory,
                     api_fault *f)
{
    if (json_is_array(v) && json_array_size(v) > 0)
        return api_read_ids(&q->prompt_ids, &q->n_prompt_ids, v, param, memory, f);
    if (json_is_array(v))
        return api_fault_set(f, STATUS_INVALID, param, "expected at least one token id");
    if (!json_is_string(v))
        return api_wrong_type(f, param, "a string or an array of token ids", v);
    q->prompt = api_json_str(v);
    return true;
}

static bool read_prompts(prompts *out, const api_params *p, const json_t *body, arena *memory,
                         api_fault *f)
{
    const json_t *v = json_object_get(body, "prompt");
    bool several = json_is_array(v) && !json_is_integer(json_array_get(v, 0));
    size_t n = several ? json_array_size(v) : 1;
    if (!v || json_is_null(v) || (!json_is_array(v) && !json_is_string(v)))
        return api_wrong_type(f, "prompt", "a string, token ids, or an array of either", v);
    if (n == 0)
        return api_fault_set(f, STATUS_INVALID, "prompt", "expected at least one prompt");
    if (n > API_CALLS || n * (size_t)p->q.n_choices > CHOICES_MAX)
        return api_fault_set(f, STATUS_INVALID, "prompt",
                             "expected at most %d prompts and %d choices, got %zu and %zu",
                             API_CALLS, CHOICES_MAX, n, n * (size_t)p->q.n_choices);
    out->requests = arena_zalloc(memory, n, sizeof *out->requests);
    out->n = (int)n;
    if (!out->requests)
        return api_fault_set(f, STATUS_NO_MEMORY, "prompt", "no memory for %zu prompts", n);
    for (size_t i = 0; i < n; i++) {
        char param[API_PATH] = "prompt";
        if (several)
            api_path(param, "prompt[%zu]", i);
        out->requests[i] = p->q;
        if (!read_one(&out->requests[i], several ? json_array_get(v, i) : v, param, memory, f))
            return false;
    }
    return true;
}

static bool read_own(api_params *p, const json_t *body, api_fault *f)
{
    int64_t logprobs = -1, best_of = 0;
    const json_t *suffix = json_object_get(body, "suffix");
    if (!api_get_whole(&logprobs, 0, ENGINE_TOP_LOGPROBS, body, "", "logprobs", f) ||
        !api_get_whole(&best_of, 1, ENGINE_CHOICES, body, "", "best_of", f) ||
        !api_get_bool(&p->q.echo, body, "", "echo", f))
        return false;
    if (suffix && !json_is_null(suffix))
        return api_fault_unsupported(
            f, "suffix", "filling in the middle needs a model trained for it, and none is known");
    if (best_of && best_of < p->q.n_choices)
        return api_fault_set(f, STATUS_INVALID, "best_of", "expected at least n (%d), got %d",
                             p->q.n_choices, (int)best_of);
    if (p->stream && best_of > p->q.n_choices)
        return api_fault_set(f, STATUS_INVALID, "best_of",
                             "a stream cannot wait for the best: expected n (%d), got %d",
                             p->q.n_choices, (int)best_of);
    if (p->q.prompt_only && !p->q.echo)
        return api_fault_set(f, STATUS_INVALID, "max_tokens", "0 is only allowed with echo: true");
    p->q.best_of = (int)best_of;
    p->q.top_logprobs = (int)logprobs;
    if (!json_is_number(json_object_get(body, "max_tokens")) &&
        !json_is_number(json_object_get(body, "max_completion_tokens")))
        p->q.max_tokens = DEFAULT_TOKENS;
    return true;
}

/* ---- the answer ---------------------------------------------------------------------------------------------------- */

/* The four arrays of the old shape, without their brackets. */
typedef struct legacy_logprobs {
    sb tokens, values, top, offsets;
    uint64_t offset; /* characters of all tokens so far */
} legacy_logprobs;

typedef struct text_choice {
    sb text;
    legacy_logprobs logprobs;
    serve_reason reason;
} text_choice;

typedef struct text_state {
    bool include_usage, logprobs;
    int n, n_choices; /* choices of one call; of all */
    text_choice *choices;
    sb out;
} text_state;

static const char *const reasons[] = {
    [SERVE_STOP] = "stop", [SERVE_LENGTH] = "length", [SERVE_TOOL_CALLS] = "stop"};

static void free_state(void *state)
{
    text_state *s = state;
    for (int i = 0; s->choices && i < s->n_choices; i++) {
        legacy_logprobs *l = &s->choices[i].logprobs;
        sb_fini(&s->choices[i].text);
        sb_fini(&l->tokens);
        sb_fini(&l->values);
        sb_fini(&l->top);
        sb_fini(&l->offsets);
    }
    base_free(s->choices);
    sb_fini(&s->out);
    base_free(s);
}

static text_state *new_state(const api_params *p, int n_calls)
{
    text_state *s = base_zalloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->n = p->q.n_choices;
    s->n_choices = s->n * n_calls;
    s->include_usage = p->include_usage;
    s->logprobs = p->q.top_logprobs >= 0;
    s->choices = base_zalloc((size_t)s->n_choices, sizeof *s->choices);
    if (s->choices)
        return s;
    free_state(s);
    return NULL;
}

/* Whole characters, and no NUL, which many JSON readers refuse in the name of a member. */
static bool is_plain(str s)
{
    for (size_t i = 0; i < s.length;) {
        int n = text_utf8_length(s.data + i, s.length - i);
        if (n == 0 || s.data[i] == '\0')
            return false;
        i += (size_t)n;
    }
    return true;
}

/* A token's text as a JSON string; parts of characters as OpenAI writes them: "bytes:\xe2\x82". */
static void put_token(sb *out, str token)
{
    sb_putc(out, '"');
    if (is_plain(token)) {
        sb_json(out, token.data, token.length);
    } else {
        sb_puts(out, "bytes:");
        for (size_t i = 0; i < token.length; i++)
            sb_printf(out, "\\\\x%02x", (unsigned char)token.data[i]);
    }
    sb_putc(out, '"');
}

static void add_logprob(legacy_logprobs *l, const serve_event *event)
{
    sb *const lists[] = {&l->tokens, &l->values, &l->top, &l->offsets};
    for (size_t i = 0; l->tokens.length && i < BASE_COUNT(lists); i++)
        sb_putc(lists[i], ',');
    put_token(&l->tokens, event->token.text);
    bool none = isnan(event->token.logprob); /* the first token of a prompt */
    if (none)
        sb_puts(&l->values, "null");
    else
        api_put_number(&l->values, (double)event->token.logprob);
    sb_puts(&l->top, none ? "null" : "{");
    for (int i = 0; i < event->n_top; i++) {
        if (i)
            sb_putc(&l->top, ',');
        put_token(&l->top, event->top[i].text);
        sb_putc(&l->top, ':');
        api_put_number(&l->top, (double)event->top[i].logprob);
    }
    if (!none)
        sb_putc(&l->top, '}');
    sb_printf(&l->offsets, "%llu", (unsigned long long)l->offset);
    for (size_t i = 0; i < event->token.text.length; i++)
        l->offset += ((unsigned char)event->token.text.data[i] & 0xc0) != 0x80;
}

/* Writes what has come and forgets it. */
static void put_logprobs(sb *out, const text_state *s, legacy_logprobs *l)
{
    static const char *const names[] = {"{\"tokens\":[", ",\"token_logprobs\":[",
                                        ",\"top_logprobs\":[", ",\"text_offset\":["};
    sb *const lists[] = {&l->tokens, &l->values, &l->top, &l->offsets};
    sb_puts(out, "\"logprobs\":");
    if (!s->logprobs || !l->tokens.length) {
        sb_puts(out, "null");
        return;
    }
    for (size_t i = 0; i < BASE_COUNT(lists); i++) {
        sb_puts(out, names[i]);
        sb_add(out, lists[i]->data, lists[i]->length);
        sb_putc(out, ']');
        out->failed |= lists[i]->failed;
        sb_clear(lists[i]);
    }
    sb_putc(out, '}');
}

static void put_head(sb *out, const api_exchange *x)
{
    sb_printf(out, "{\"id\":\"%s\",\"object\":\"text_completion\",\"created\":%lld,", x->id,
              (long long)x->created);
    api_put_member(out, "model", str_from(x->model));
    sb_putc(out, ',');
    api_put_member(out, "system_fingerprint", str_from(x->fingerprint));
    sb_puts(out, ",\"choices\":[");
}

static void put_choice(sb *out, text_state *s, int i, str text, const char *reason)
{
    sb_printf(out, "{\"index\":%d,", i);
    api_put_member(out, "text", text);
    sb_putc(out, ',');
    put_logprobs(out, s, &s->choices[i].logprobs);
    if (reason)
        sb_printf(out, ",\"finish_reason\":\"%s\"}", reason);
    else
        sb_puts(out, ",\"finish_reason\":null}");
}

static void stream_event(api_exchange *x, int i, const serve_event *event)
{
    text_state *s = x->state;
    if (event->kind != SERVE_TEXT && event->kind != SERVE_FINISH)
        return;
    sb_clear(&s->out);
    put_head(&s->out, x);
    put_choice(&s->out, s, i, event->kind == SERVE_TEXT ? event->text : (str){"", 0},
               event->kind == SERVE_FINISH ? reasons[event->reason] : NULL);
    sb_puts(&s->out, s->include_usage ? "],\"usage\":null}" : "]}");
    api_exchange_send(x, &s->out);
}

static void on_event(api_exchange *x, int call, const serve_event *event)
{
    text_state *s = x->state;
    int i = call * s->n + event->choice;
    text_choice *c = &s->choices[i];
    if (event->kind == SERVE_LOGPROBS)
        add_logprob(&c->logprobs, event);
    else if (x->stream)
        stream_event(x, i, event);
    else if (event->kind == SERVE_TEXT)
        sb_add(&c->text, event->text.data, event->text.length);
    else if (event->kind == SERVE_FINISH)
        c->reason = event->reason;
}

static void on_finish(api_exchange *x)
{
    text_state *s = x->state;
    sb_clear(&s->out);
    put_head(&s->out, x);
    if (x->stream) {
        sb_puts(&s->out, "],");
        api_openai_usage(&s->out, x);
        sb_putc(&s->out, '}');
        if (s->include_usage)
            api_exchange_send(x, &s->out);
        http_sse_send(x->r, NULL, "[DONE]", 6);
        http_stream_end(x->r);
        return;
    }
    for (int i = 0; i < s->n_choices; i++) {
        text_choice *c = &s->choices[i];
        if (i)
            sb_putc(&s->out, ',');
        s->out.failed |= c->text.failed;
        put_choice(&s->out, s, i, (str){c->text.data, c->text.length}, reasons[c->reason]);
    }
    sb_puts(&s->out, "],");
    api_openai_usage(&s->out, x);
    sb_putc(&s->out, '}');
    api_reply_json(x->r, 200, &s->out);
}

static const api_voice voice = {&api_openai_completions, on_event, on_finish,
                                api_openai_fail_stream, free_state};

static void post_completion(const api_request *q)
{
    api_params p;
    api_fault f;
    json_t *body = NULL;
    prompts all = {0};
    text_state *state = NULL;
    api_params_init(&p);
    bool good = api_read_body(&body, q, &f) && api_read_params(&p, body, &f) &&
                read_own(&p, body, &f) && read_prompts(&all, &p, body, &p.memory, &f);
    if (good) {
        state = new_state(&p, all.n);
        good = state || api_fault_set(&f, STATUS_NO_MEMORY, "", "no memory for a request");
    }
    if (good)
        api_exchange_run(q, &voice, state, "cmpl", p.stream, all.requests, all.n);
    else
        api_reply_fault(q->r, &api_openai_completions, &f);
    json_decref(body);
    api_params_fini(&p);
}

static const api_route routes[] = {
    {"POST", "/v1/completions", post_completion, false},
};

const api_dialect api_openai_completions = {"openai completions", routes, BASE_COUNT(routes),
                                            api_openai_error};
