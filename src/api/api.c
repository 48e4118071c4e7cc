/*
 * The api as a whole: keys, routing, faults. A path is looked up in the tables of all dialects; a path that exists with another method
 * only is a 405 that names the right ones.
 */
#include "api/api_internal.h"
#include "os/os.h"

#include <stdio.h>
#include <string.h>

enum { PING_US = 10 * 1000000 };

static const api_dialect *const dialects[] = {&api_openai_chat, &api_openai_completions,
                                              &api_openai_embeddings, &api_openai_models,
                                              &api_admin};

/* ---- faults -------------------------------------------------------------------------------------------------------- */

static void fill(api_fault *f, status code, const char *param, const char *format, va_list args)
{
    char text[ERR_TEXT];
    vsnprintf(text, sizeof text, format, args);
    *f = (api_fault){0};
    snprintf(f->param, sizeof f->param, "%s", param);
    if (*param)
        err_set(&f->e, code, "%s: %s", param, text);
    else
        err_set(&f->e, code, "%s", text);
}

bool api_fault_set(api_fault *f, status code, const char *param, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(f, code, param, format, args);
    va_end(args);
    return false;
}

bool api_fault_unsupported(api_fault *f, const char *param, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(f, STATUS_INVALID, param, format, args);
    va_end(args);
    f->code = "unsupported_parameter";
    return false;
}

bool api_fault_from(api_fault *f, const err *e)
{
    *f = (api_fault){.e = *e};
    switch (e->code) {
    case STATUS_NOT_FOUND:
        f->code = "model_not_found";
        break;
    case STATUS_TOO_LONG:
        f->code = "context_length_exceeded";
        break;
    case STATUS_BUSY:
        f->code = "queue_full";
        break;
    case STATUS_LOADING:
        f->code = "model_loading";
        break;
    case STATUS_CANCELLED:
        f->code = "request_cancelled";
        break;
    default:
        break;
    }
    return false;
}

void api_fault_cancelled(api_fault *f)
{
    api_fault_set(f, STATUS_CANCELLED, "", "the request was cancelled");
    f->code = "request_cancelled";
}

int api_fault_http(const api_fault *f)
{
    return f->http ? f->http : status_http(f->e.code);
}

/* ---- answers ------------------------------------------------------------------------------------------------------- */

void api_reply_json(http_request *r, int code, const sb *body)
{
    static const char no_memory[] =
        "{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\",\"param\":null,"
        "\"code\":null}}";
    if (body->failed)
        http_reply(r, 500, "application/json", no_memory, sizeof no_memory - 1);
    else
        http_reply(r, code, "application/json", body->data, body->length);
}

void api_reply_fault(http_request *r, const api_dialect *d, const api_fault *f)
{
    sb out;
    sb_init(&out);
    d->write_error(&out, f);
    if (f->retry_after_s) {
        char text[24];
        snprintf(text, sizeof text, "%llu", (unsigned long long)f->retry_after_s);
        http_add_header(r, "Retry-After", text);
    }
    api_reply_json(r, api_fault_http(f), &out);
    sb_fini(&out);
}

/* ---- keys ---------------------------------------------------------------------------------------------------------- */

/* Looks at every byte of what was given, whatever it is. */
static bool same_secret(const char *given, const char *key)
{
    size_t n = strlen(given), m = strlen(key);
    unsigned different = n != m;
    for (size_t i = 0; i < n; i++)
        different |= (unsigned)((unsigned char)given[i] ^ (unsigned char)key[m ? i % m : 0]);
    return !different;
}

static const char *given_key(const http_request *r)
{
    static const char bearer[] = "bearer ";
    const char *value = http_request_header(r, "authorization");
    for (size_t i = 0; value && bearer[i]; i++)
        if ((value[i] | 0x20) != (bearer[i] | 0x20))
            value = NULL;
    if (!value)
        return http_request_header(r, "x-api-key");
    value += sizeof bearer - 1;
    return value + strspn(value, " ");
}

static bool is_allowed(const api *a, const http_request *r)
{
    const char *given = given_key(r);
    bool good = a->n_keys == 0;
    for (size_t i = 0; given && i < a->n_keys; i++)
        good |= same_secret(given, a->keys[i]);
    return good;
}

static void refuse_key(http_request *r, const api_dialect *d)
{
    api_fault f;
    bool given = given_key(r) != NULL;
    api_fault_set(&f, STATUS_DENIED, "", "%s",
                  given ? "the API key is not one of this node's"
                        : "this node wants an API key: Authorization: Bearer KEY");
    f.code = given ? "invalid_api_key" : "missing_api_key";
    http_add_header(r, "WWW-Authenticate", "Bearer");
    api_reply_fault(r, d, &f);
}

/* ---- routing ------------------------------------------------------------------------------------------------------- */

/* What "*" stands for, "" for a path without one, NULL when it does not match. */
static const char *match(const char *pattern, const char *path)
{
    size_t n = strlen(pattern);
    if (n && pattern[n - 1] == '*')
        return !strncmp(pattern, path, n - 1) && path[n - 1] ? path + n - 1 : NULL;
    return strcmp(pattern, path) ? NULL : "";
}

static void reply_no_route(http_request *r, const sb *allowed)
{
    api_fault f;
    const char *path = http_request_path(r), *method = http_request_method(r);
    if (allowed->length) {
        api_fault_set(&f, STATUS_INVALID, "", "%.200s takes %s, not %.20s", path, allowed->data,
                      method);
        f.http = 405;
        f.code = "method_not_allowed";
        http_add_header(r, "Allow", allowed->data);
    } else {
        api_fault_set(&f, STATUS_NOT_FOUND, "",
                      "there is nothing at %.20s %.200s; this node speaks OpenAI's API, such as "
                      "POST /v1/chat/completions",
                      method, path);
        f.code = "unknown_url";
    }
    api_reply_fault(r, &api_openai_models, &f);
}

static void make_id(char out[API_ID])
{
    static uint64_t fallback;
    unsigned char bytes[12] = {0};
    if (os_random(bytes, sizeof bytes, NULL) != STATUS_OK) {
        uint64_t x = hash_u64(++fallback, os_now_us());
        memcpy(bytes, &x, sizeof x);
    }
    base_hex(out, bytes, sizeof bytes);
}

void api_handle(void *context, http_request *r)
{
    api_request q = {.of = context, .r = r};
    char header[API_ID + 8];
    const char *path = http_request_path(r), *method = http_request_method(r);
    const api_route *found = NULL;
    const api_dialect *dialect = NULL;
    sb allowed;
    sb_init(&allowed);
    for (size_t i = 0; i < BASE_COUNT(dialects) && !found; i++) {
        for (size_t k = 0; k < dialects[i]->n_routes && !found; k++) {
            const api_route *route = &dialects[i]->routes[k];
            const char *rest = match(route->path, path);
            if (!rest)
                continue;
            dialect = dialects[i];
            sb_printf(&allowed, "%s%s", allowed.length ? ", " : "", route->method);
            if (strcmp(route->method, method) &&
                (strcmp(method, "HEAD") || strcmp(route->method, "GET")))
                continue;
            found = route;
            q.rest = rest;
        }
    }
    make_id(q.id);
    snprintf(header, sizeof header, "req-%s", q.id);
    http_add_header(r, "x-request-id", header);
    if (!(found && found->open) && !is_allowed(q.of, r))
        refuse_key(r, dialect ? dialect : &api_openai_models);
    else if (found)
        found->handle(&q);
    else
        reply_no_route(r, &allowed);
    sb_fini(&allowed);
}

bool api_request_is(const http_request *r, const char *id, const char *wanted)
{
    const char *own = http_request_header(r, "x-client-request-id");
    const char *dash = strrchr(wanted, '-');
    return !strcmp(dash ? dash + 1 : wanted, id) || (own && !strcmp(own, wanted));
}

/* ---- creation ------------------------------------------------------------------------------------------------------ */

static void on_tick(void *context);

status api_create(api **out, http_loop *loop, serve *s, node *n, const api_options *o, err *e)
{
    api *a = base_zalloc(1, sizeof *a);
    if (!a)
        return err_set(e, STATUS_NO_MEMORY, "api: no memory");
    a->loop = loop;
    a->s = s;
    a->n = n;
    a->ping_us = o->ping_us ? o->ping_us : PING_US;
    a->began_us = os_now_us();
    a->keys = base_zalloc(o->n_keys + 1, sizeof *a->keys);
    bool good = a->keys != NULL;
    for (size_t i = 0; i < o->n_keys && good; i++) {
        a->keys[i] = base_strdup(o->keys[i]);
        a->n_keys += a->keys[i] != NULL;
        good = a->keys[i] != NULL;
    }
    status result = good ? STATUS_OK : err_set(e, STATUS_NO_MEMORY, "api: no memory");
    if (result == STATUS_OK)
        result = http_timer_create(&a->tick, loop, on_tick, a, e);
    if (result != STATUS_OK) {
        api_destroy(a);
        return result;
    }
    http_timer_repeat(a->tick, a->ping_us / 4 + 1);
    *out = a;
    return STATUS_OK;
}

void api_destroy(api *a)
{
    if (!a)
        return;
    REQUIRE(!a->exchanges);
    while (a->asks) {
        api_ask *ask = a->asks;
        a->asks = ask->next;
        base_free(ask);
    }
    while (a->embeds) {
        api_embed *x = a->embeds;
        a->embeds = api_embed_next(x);
        base_free(x);
    }
    http_timer_destroy(a->tick);
    for (size_t i = 0; i < a->n_keys; i++)
        base_free(a->keys[i]);
    base_free(a->keys);
    base_free(a);
}

/* Streams that have been silent for long. */
static void on_tick(void *context)
{
    api *a = context;
    for (api_exchange *x = a->exchanges; x; x = x->next)
        api_exchange_ping(x);
}
