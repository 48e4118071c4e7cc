/*
 * POST /v1/embeddings: input (a string, strings, token ids, arrays of token ids) → a vector each, as numbers or as base64 of little-endian
 * f32. `dimensions` keeps the leading numbers and scales to length 1 again, as OpenAI does for models trained to be cut so.
 *
 * Source: OpenAI API reference, "Embeddings". Not here: how texts become vectors (src/serve, src/engine).
 */
#include "api/api_internal.h"

#include <math.h>
#include <string.h>

enum { TEXTS_MAX = 2048, TOKENS_MAX = 1 << 20 };

struct api_embed {
    api *of;
    http_request *r;
    serve_embedding *job;
    char id[API_ID];      /* as in api_request */
    bool base64, several; /* several: input was an array of texts: param names one */
    int dimensions;       /* 0 = all */
    api_embed *next;
};

/* ---- the request --------------------------------------------------------------------------------------------------- */

static bool read_text(serve_text *out, const json_t *v, const char *param, arena *memory,
                      api_fault *f)
{
    size_t n = json_array_size(v);
    if (json_is_array(v) && (n == 0 || n > TOKENS_MAX))
        return api_fault_set(f, STATUS_INVALID, param, "expected 1 to %d token ids, got %zu",
                             TOKENS_MAX, n);
    if (json_is_array(v))
        return api_read_ids(&out->ids, &out->n_ids, v, param, memory, f);
    if (!json_is_string(v))
        return api_wrong_type(f, param, "a string or an array of token ids", v);
    if (json_string_length(v) == 0)
        return api_fault_set(f, STATUS_INVALID, param, "an empty string has no embedding");
    out->text = api_json_str(v);
    return true;
}

static bool read_input(serve_text **out, int *n, bool *several, const json_t *body, arena *memory,
                       api_fault *f)
{
    const json_t *v = json_object_get(body, "input");
    if (!json_is_string(v) && !json_is_array(v))
        return api_wrong_type(f, "input", "a string, token ids, or an array of either", v);
    *several = json_is_array(v) && !json_is_number(json_array_get(v, 0));
    size_t count = *several ? json_array_size(v) : 1;
    if (count == 0 || count > TEXTS_MAX)
        return api_fault_set(f, STATUS_INVALID, "input", "expected 1 to %d texts, got %zu",
                             TEXTS_MAX, count);
    serve_text *texts = arena_zalloc(memory, count, sizeof *texts);
    if (!texts)
        return api_fault_set(f, STATUS_NO_MEMORY, "input", "no memory for %zu texts", count);
    for (size_t i = 0; i < count; i++) {
        char param[API_PATH] = "input";
        if (*several)
            api_path(param, "input[%zu]", i);
        if (!read_text(&texts[i], *several ? json_array_get(v, i) : v, param, memory, f))
            return false;
    }
    *out = texts;
    *n = (int)count;
    return true;
}

static bool read_options(api_embed *x, const char **name, const json_t *body, api_fault *f)
{
    const char *format = "float", *user = NULL;
    int64_t dimensions = 0;
    if (!api_get_string(name, body, "", "model", f) ||
        !api_get_string(&format, body, "", "encoding_format", f) ||
        !api_get_whole(&dimensions, 1, 1 << 20, body, "", "dimensions", f) ||
        !api_get_string(&user, body, "", "user", f))
        return false;
    x->base64 = !strcmp(format, "base64");
    x->dimensions = (int)dimensions;
    return x->base64 || !strcmp(format, "float") ||
           api_fault_set(f, STATUS_INVALID, "encoding_format",
                         "expected \"float\" or \"base64\", got \"%.40s\"", format);
}

/* ---- the answer ---------------------------------------------------------------------------------------------------- */

/* Little-endian f32 of n numbers, in base64. */
static void put_base64(sb *out, const float *v, int n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t group = 0;
    int held = 0;
    for (int i = 0; i < 4 * n; i++) {
        group = group << 8 | (float_to_bits(v[i / 4]) >> 8 * (i % 4) & 0xFF);
        if (++held < 3)
            continue;
        for (int k = 18; k >= 0; k -= 6)
            sb_putc(out, digits[group >> k & 63]);
        group = 0;
        held = 0;
    }
    if (held == 0)
        return;
    group <<= 8 * (3 - held);
    for (int k = 18; k >= 0; k -= 6)
        sb_putc(out, 18 - k <= 6 * held ? digits[group >> k & 63] : '=');
}

static void put_vector(sb *out, const api_embed *x, const float *v, float *shortened, int width)
{
    int n = x->dimensions ? x->dimensions : width;
    double squares = 0;
    for (int i = 0; i < n; i++)
        squares += (double)v[i] * (double)v[i];
    double factor = n < width && squares > 0 ? 1 / sqrt(squares) : 1;
    for (int i = 0; i < n; i++)
        shortened[i] = (float)((double)v[i] * factor);
    if (x->base64) {
        sb_putc(out, '"');
        put_base64(out, shortened, n);
        sb_putc(out, '"');
        return;
    }
    sb_putc(out, '[');
    for (int i = 0; i < n; i++) {
        if (i)
            sb_putc(out, ',');
        api_put_number(out, (double)shortened[i]);
    }
    sb_putc(out, ']');
}

static void put_answer(sb *out, const api_embed *x, const serve_vectors *v)
{
    float *shortened = base_alloc(sizeof *shortened * (size_t)v->width);
    out->failed |= !shortened;
    sb_puts(out, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < v->n && shortened; i++) {
        sb_printf(out, "%s{\"object\":\"embedding\",\"index\":%d,\"embedding\":", i ? "," : "", i);
        put_vector(out, x, v->values + (size_t)i * (size_t)v->width, shortened, v->width);
        sb_putc(out, '}');
    }
    sb_puts(out, "],");
    api_put_member(out, "model", str_from(v->model));
    sb_printf(out, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}",
              (unsigned long long)v->n_tokens, (unsigned long long)v->n_tokens);
    base_free(shortened);
}

api_embed *api_embed_next(const api_embed *x)
{
    return x->next;
}

static void free_embed(api_embed *x)
{
    api_embed **at = &x->of->embeds;
    while (*at != x)
        at = &(*at)->next;
    *at = x->next;
    base_free(x);
}

static void refuse(api_embed *x, const err *e, int failed_at, uint64_t retry_after_s)
{
    api_fault f;
    char param[API_PATH] = "";
    if (failed_at >= 0)
        api_path(param, x->several ? "input[%d]" : "input", failed_at);
    api_fault_set(&f, e->code, param, "%s", e->text);
    const api_fault plain = f;
    api_fault_from(&f, e);
    const char *code = f.code;
    f = plain;
    f.code = code;
    f.retry_after_s = retry_after_s;
    api_reply_fault(x->r, &api_openai_embeddings, &f);
}

static void on_vectors(void *context, const serve_vectors *v)
{
    api_embed *x = context;
    sb out;
    sb_init(&out);
    if (v->error) {
        refuse(x, v->error, v->failed_at, v->retry_after_s);
    } else if (x->dimensions > v->width) {
        api_fault f;
        api_fault_set(&f, STATUS_INVALID, "dimensions",
                      "the model has %d, expected 1 to %d, got %d", v->width, v->width,
                      x->dimensions);
        api_reply_fault(x->r, &api_openai_embeddings, &f);
    } else {
        put_answer(&out, x, v);
        api_reply_json(x->r, 200, &out);
    }
    sb_fini(&out);
    free_embed(x);
}

bool api_embed_cancel(api *a, const char *wanted)
{
    api_embed *x = a->embeds;
    api_fault f;
    while (x && !api_request_is(x->r, x->id, wanted))
        x = x->next;
    if (!x)
        return false;
    serve_embed_cancel(x->job);
    api_fault_cancelled(&f);
    api_reply_fault(x->r, &api_openai_embeddings, &f);
    free_embed(x);
    return true;
}

static void on_gone(void *context, http_request *r)
{
    api_embed *x = context;
    (void)r;
    serve_embed_cancel(x->job);
    free_embed(x);
}

static void post_embeddings(const api_request *q)
{
    api_fault f;
    err e;
    json_t *body = NULL;
    const char *name = NULL;
    serve_text *texts = NULL;
    int n = 0;
    arena memory;
    arena_init(&memory, 0);
    api_embed *x = base_zalloc(1, sizeof *x);
    bool good = x || api_fault_set(&f, STATUS_NO_MEMORY, "", "no memory for a request");
    good = good && api_read_body(&body, q, &f) && read_options(x, &name, body, &f) &&
           read_input(&texts, &n, &x->several, body, &memory, &f);
    if (!good) {
        api_reply_fault(q->r, &api_openai_embeddings, &f);
        base_free(x);
    } else {
        x->of = q->of;
        x->r = q->r;
        snprintf(x->id, sizeof x->id, "%s", q->id);
        x->next = q->of->embeds;
        q->of->embeds = x;
        if (serve_embed(&x->job, q->of->s, q->id, name, texts, n, on_vectors, x, &e) == STATUS_OK) {
            http_on_gone(q->r, on_gone, x);
        } else {
            api_fault_from(&f, &e);
            api_path(f.param, "%s", e.code == STATUS_NOT_FOUND ? "model" : "");
            api_reply_fault(q->r, &api_openai_embeddings, &f);
            free_embed(x);
        }
    }
    json_decref(body);
    arena_fini(&memory);
}

static const api_route routes[] = {
    {"POST", "/v1/embeddings", post_embeddings, false},
};

const api_dialect api_openai_embeddings = {"openai embeddings", routes, BASE_COUNT(routes),
                                           api_openai_error};
