/*
 * See client.h. An answer is one blocking call; a thread beside it waits for a signal and cancels the call, because libcurl does not
 * return for one. A cancelled http_client stays cancelled, so it is made anew.
 */
#include "cli/client.h"
#include "cli/look.h"
#include "http/http.h"
#include "os/os.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    FOLDER = 4096,
    NODE_FILE = 4096,
    HEALTH_US = 3000000,
    EVENT_LIMIT = 8 << 20,
    STALL_US = 120 * 1000000
};

struct client {
    client_node node;
    private_node *own;
    char key[600]; /* "Authorization: Bearer …", empty = none */
    http_client *http;
    int signals;
};

/* ---- the node of this machine -------------------------------------------------------------------------------------- */

bool client_is_node(const char *url)
{
    char full[400];
    http_client *http;
    http_response r;
    bool good = false;
    int n = snprintf(full, sizeof full, "%s/health", url);
    if (n < 0 || (size_t)n >= sizeof full || http_client_create(&http, NULL) != STATUS_OK)
        return false;
    http_call call = {.url = full, .timeout_us = HEALTH_US, .limit_bytes = NODE_FILE};
    if (http_client_fetch(http, &r, &call, NULL) == STATUS_OK) {
        json_t *body = json_loadb(r.body.data, r.body.length, 0, NULL);
        good = r.code == 200 && json_is_string(json_object_get(body, "status"));
        json_decref(body);
        http_response_fini(&r);
    }
    http_client_destroy(http);
    return good;
}

bool client_find_node(client_node *out)
{
    char path[FOLDER + 16], *text;
    size_t n;
    if (os_user_dir(path, FOLDER, "state", NULL) != STATUS_OK)
        return false;
    memcpy(path + strlen(path), "/node.json", sizeof "/node.json");
    if (!os_is_file(path) || os_read_file(&text, &n, path, NODE_FILE, NULL) != STATUS_OK)
        return false;
    json_t *file = json_loadb(text, n, 0, NULL);
    const char *url = json_string_value(json_object_get(file, "url"));
    bool good = url && strlen(url) < sizeof out->url && !strncmp(url, "http://", 7);
    if (good) {
        snprintf(out->url, sizeof out->url, "%s", url);
        out->pid = json_integer_value(json_object_get(file, "pid"));
    }
    json_decref(file);
    base_free(text);
    return good && client_is_node(out->url);
}

/* ---- opening ------------------------------------------------------------------------------------------------------- */

/* The first of --api-key, which `serve` takes as a list. */
static void set_key(client *cl, const char *keys)
{
    if (keys && *keys)
        snprintf(cl->key, sizeof cl->key, "Authorization: Bearer %.*s", (int)strcspn(keys, ","),
                 keys);
}

static bool is_flag(const cli *c, cli_option o)
{
    return cli_given(c, o) && !strncmp(c->values[o].source, "--", 2);
}

static status open_client(client **out, const cli *c, bool running, bool alone, err *e)
{
    client *cl = base_zalloc(1, sizeof *cl);
    if (!cl)
        return err_set(e, STATUS_NO_MEMORY, "no memory for a client");
    cl->signals = -1;
    set_key(cl, cli_text(c, OPT_api_key));
    status s = http_client_create(&cl->http, e);
    bool up = s == STATUS_OK && !alone && client_find_node(&cl->node);
    if (s == STATUS_OK && running && !up)
        s = err_set(e, STATUS_NOT_FOUND,
                    "no node is running on this machine; `shoal serve` starts one");
    if (s == STATUS_OK && !running)
        s = os_signal_fd(&cl->signals, e);
    if (s == STATUS_OK && !up) {
        s = private_start(&cl->own, c, e);
        if (s == STATUS_OK) {
            snprintf(cl->node.url, sizeof cl->node.url, "%s", private_url(cl->own));
            set_key(cl, private_key(cl->own));
        }
    }
    if (s == STATUS_OK)
        *out = cl;
    else
        client_close(cl);
    return s;
}

status client_open(client **out, const cli *c, err *e)
{
    static const cli_option of_engines[] = {OPT_isa,  OPT_threads, OPT_kv,     OPT_draft,
                                            OPT_mode, OPT_ranks,   OPT_shares, OPT_link};
    bool alone = false;
    for (size_t i = 0; i < BASE_COUNT(of_engines); i++)
        alone = alone || is_flag(c, of_engines[i]);
    return open_client(out, c, false, alone, e);
}

status client_open_running(client **out, const cli *c, err *e)
{
    return open_client(out, c, true, false, e);
}

void client_close(client *cl)
{
    if (!cl)
        return;
    http_client_destroy(cl->http);
    private_stop(cl->own);
    base_free(cl);
}

bool client_is_private(const client *cl)
{
    return cl->own != NULL;
}

int client_signals(const client *cl)
{
    return cl->signals;
}

status client_model(const client *cl, char out[STORE_PATH], const char *typed, err *e)
{
    const char *origin = "";
    char source[STORE_PATH];
    status s = store_find(source, &origin, typed, e);
    if (s != STATUS_OK && (cl->own || strchr("/.~", typed[0])))
        return s;
    if (s == STATUS_OK && !strcmp(origin, "path")) {
        memcpy(out, source, strlen(source) + 1);
        return STATUS_OK;
    }
    if (strlen(typed) >= STORE_PATH)
        return err_set(e, STATUS_TOO_LONG, "the model's name is too long");
    memcpy(out, typed, strlen(typed) + 1); /* a node that is up says itself what it has */
    return STATUS_OK;
}

/* ---- calls --------------------------------------------------------------------------------------------------------- */

/* {"error": {"message": …}} → e. */
static status error_of(const json_t *body, int code, err *e)
{
    const json_t *error = json_object_get(body, "error");
    const char *message = json_string_value(json_object_get(error, "message"));
    const char *kind = json_string_value(json_object_get(error, "code"));
    status s = STATUS_INTERNAL;
    for (int i = 1; i < STATUS_COUNT && s == STATUS_INTERNAL; i++)
        if (status_http((status)i) == code)
            s = (status)i;
    if (kind && !strcmp(kind, "context_length_exceeded"))
        s = STATUS_TOO_LONG;
    if (!message)
        return err_set(e, s, "the node answered %d without saying why", code);
    sb clean = {0};
    look_clean(&clean, message, strlen(message));
    err_set(e, s, "%s%s", clean.data ? clean.data : "",
            code == 401 ? " (give it with --api-key, SHOAL_API_KEY or `api-key = …` in shoal.conf)"
                        : "");
    sb_fini(&clean);
    return s;
}

static status error_answer(const http_response *r, err *e)
{
    json_t *body = json_loadb(r->body.data, r->body.length, JSON_ALLOW_NUL, NULL);
    status s = error_of(body, r->code, e);
    json_decref(body);
    return s;
}

status client_get(client *cl, json_t **out, const char *path, err *e)
{
    char url[512];
    const char *headers[] = {cl->key};
    http_response r;
    json_error_t error;
    snprintf(url, sizeof url, "%s%s", cl->node.url, path);
    http_call call = {
        .url = url, .headers = headers, .n_headers = cl->key[0] ? 1 : 0, .timeout_us = 10000000};
    status s = http_client_fetch(cl->http, &r, &call, e);
    if (s != STATUS_OK)
        return s;
    if (r.code != 200) {
        s = error_answer(&r, e);
    } else {
        *out = json_loadb(r.body.data, r.body.length, JSON_ALLOW_NUL, &error);
        if (!*out)
            s = err_set(e, STATUS_CORRUPT, "%s: no JSON: line %d: %s", url, error.line, error.text);
    }
    http_response_fini(&r);
    return s;
}

/* ---- a streamed answer --------------------------------------------------------------------------------------------- */

typedef struct stream {
    const client_events *events;
    client_answer *answer;
    http_sse_reader reader;
    uint64_t began_us;
    bool done; /* [DONE] came */
} stream;

typedef struct watcher {
    http_client *http;
    int signals, stop[2];
    atomic_int got;
    os_thread *thread;
} watcher;

static void watch_signals(void *context)
{
    watcher *w = context;
    struct pollfd fds[] = {{.fd = w->signals, .events = POLLIN},
                           {.fd = w->stop[0], .events = POLLIN}};
    while (poll(fds, 2, -1) < 0)
        ;
    char number;
    if (fds[0].revents && read(w->signals, &number, 1) == 1) {
        atomic_store(&w->got, number);
        http_client_cancel(w->http);
    }
}

static status start_watching(watcher *w, const client *cl, err *e)
{
    *w = (watcher){.http = cl->http, .signals = cl->signals};
    atomic_init(&w->got, 0);
    if (pipe(w->stop) != 0)
        return err_set(e, STATUS_IO, "no pipe for the thread that waits for signals");
    status s = os_thread_create(&w->thread, watch_signals, w, "signals", e);
    if (s != STATUS_OK) {
        os_close(w->stop[0]);
        os_close(w->stop[1]);
    }
    return s;
}

/* The signal that came, 0 = none. */
static int stop_watching(watcher *w)
{
    os_close(w->stop[1]); /* the other end becomes readable */
    os_thread_join(w->thread);
    os_close(w->stop[0]);
    return atomic_load(&w->got);
}

static status give_text(stream *s, const json_t *piece, bool reasoning, err *e)
{
    size_t n = json_string_length(piece);
    if (n == 0)
        return STATUS_OK;
    if (!s->answer->first_us)
        s->answer->first_us = os_now_us() - s->began_us;
    return s->events->text(s->events->context, (str){json_string_value(piece), n}, reasoning, e);
}

static void take_usage(client_answer *a, const json_t *usage)
{
    const json_t *details = json_object_get(usage, "prompt_tokens_details");
    if (!json_is_object(usage))
        return;
    a->n_prompt = (int)json_integer_value(json_object_get(usage, "prompt_tokens"));
    a->n_generated = (int)json_integer_value(json_object_get(usage, "completion_tokens"));
    a->n_cached = (int)json_integer_value(json_object_get(details, "cached_tokens"));
}

static status on_event(void *context, const char *event, str data, err *e)
{
    stream *s = context;
    json_error_t error;
    (void)event;
    if (str_is(data, "[DONE]")) {
        s->done = true;
        return STATUS_OK;
    }
    json_t *chunk = json_loadb(data.data, data.length, JSON_ALLOW_NUL, &error);
    if (!chunk)
        return err_set(e, STATUS_CORRUPT, "the node sent an event that is no JSON: %s", error.text);
    status result = STATUS_OK;
    const json_t *choice = json_array_get(json_object_get(chunk, "choices"), 0);
    const json_t *delta = json_object_get(choice, "delta");
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    if (json_object_get(chunk, "error"))
        result = error_of(chunk, 500, e);
    if (result == STATUS_OK)
        result = give_text(s, json_object_get(delta, "reasoning_content"), true, e);
    if (result == STATUS_OK)
        result = give_text(s, json_object_get(delta, "content"), false, e);
    if (finish)
        snprintf(s->answer->finish, sizeof s->answer->finish, "%s", finish);
    take_usage(s->answer, json_object_get(chunk, "usage"));
    json_decref(chunk);
    return result;
}

static status on_bytes(void *context, const char *bytes, size_t n, err *e)
{
    static const char loading[] = ": loading ";
    stream *s = context;
    /* A comment of its own piece; one that is torn is only a percentage not shown. */
    if (n > sizeof loading && !memcmp(bytes, loading, sizeof loading - 1) && s->events->loading) {
        char text[8];
        size_t digits = BASE_MIN(n - (sizeof loading - 1), sizeof text - 1);
        uint64_t percent;
        memcpy(text, bytes + sizeof loading - 1, digits);
        text[digits] = '\0';
        text[strspn(text, "0123456789")] = '\0';
        if (base_parse_u64(text, &percent))
            s->events->loading(s->events->context, (int)BASE_MIN(percent, (uint64_t)100));
    }
    return http_sse_feed(&s->reader, bytes, n, on_event, s, e);
}

static status send_chat(client *cl, stream *s, const char *body, err *e)
{
    char url[400];
    const char *headers[] = {"Content-Type: application/json", cl->key};
    http_response r;
    snprintf(url, sizeof url, "%s/v1/chat/completions", cl->node.url);
    http_call call = {.url = url,
                      .headers = headers,
                      .n_headers = cl->key[0] ? 2 : 1,
                      .body = body,
                      .body_bytes = strlen(body),
                      .on_bytes = on_bytes,
                      .context = s,
                      .stall_us = STALL_US};
    status result = http_client_fetch(cl->http, &r, &call, e);
    if (result != STATUS_OK)
        return result;
    if (r.code != 200)
        result = error_answer(&r, e);
    else if (!s->done)
        result = err_set(e, STATUS_CLOSED, "the answer broke off");
    http_response_fini(&r);
    return result;
}

status client_chat(client *cl, client_answer *out, const json_t *request,
                   const client_events *events, err *e)
{
    watcher w;
    stream s = {.events = events, .answer = out, .began_us = os_now_us()};
    *out = (client_answer){.finish = ""};
    char *body = json_dumps(request, JSON_COMPACT);
    if (!body)
        return err_set(e, STATUS_NO_MEMORY, "no memory for the request");
    status result = start_watching(&w, cl, e);
    if (result == STATUS_OK) {
        http_sse_reader_init(&s.reader, EVENT_LIMIT);
        result = send_chat(cl, &s, body, e);
        out->whole_us = os_now_us() - s.began_us;
        out->signal = stop_watching(&w);
        http_sse_reader_fini(&s.reader);
    }
    free(body); /* jansson's */
    if (out->signal) {
        http_client_destroy(cl->http);
        cl->http = NULL;
        result = http_client_create(&cl->http, e);
    }
    return result;
}

/* ---- requests ------------------------------------------------------------------------------------------------------ */

static void set_number(json_t *to, const char *key, const cli *c, cli_option o)
{
    if (cli_given(c, o))
        json_object_set_new(to, key, json_real(cli_number(c, o)));
}

static status set_count(json_t *to, const char *key, const cli *c, cli_option o, uint64_t most,
                        err *e)
{
    uint64_t n = cli_whole(c, o);
    if (!cli_given(c, o) || (o == OPT_max_tokens && n == 0))
        return STATUS_OK;
    if (n > most)
        return err_set(e, STATUS_INVALID, "%s: expected at most %llu, got %llu",
                       c->values[o].source, (unsigned long long)most, (unsigned long long)n);
    json_object_set_new(to, key, json_integer((json_int_t)n));
    return STATUS_OK;
}

static status set_think(json_t *to, const cli *c, err *e)
{
    const char *think = cli_text(c, OPT_think);
    if (!think || !*think)
        return STATUS_OK;
    bool on = !strcmp(think, "on");
    if (!on && strcmp(think, "off"))
        return err_set(e, STATUS_INVALID, "%s: expected on or off, got '%s'",
                       c->values[OPT_think].source, think);
    json_object_set_new(to, "chat_template_kwargs", json_pack("{s:b}", "enable_thinking", on));
    return STATUS_OK;
}

status client_request(json_t **out, const cli *c, const char *model, json_t *messages, err *e)
{
    json_t *q = json_pack("{s:O, s:b, s:{s:b}}", "messages", messages, "stream", 1,
                          "stream_options", "include_usage", 1);
    if (!q)
        return err_set(e, STATUS_NO_MEMORY, "no memory for the request");
    if (model && *model)
        json_object_set_new(q, "model", look_json_text(model));
    if (cli_text(c, OPT_stop) && *cli_text(c, OPT_stop))
        json_object_set_new(q, "stop", look_json_text(cli_text(c, OPT_stop)));
    set_number(q, "temperature", c, OPT_temperature);
    set_number(q, "top_p", c, OPT_top_p);
    set_number(q, "min_p", c, OPT_min_p);
    status s = set_count(q, "top_k", c, OPT_top_k, INT32_MAX, e);
    if (s == STATUS_OK)
        s = set_count(q, "seed", c, OPT_seed, INT64_MAX, e);
    if (s == STATUS_OK)
        s = set_count(q, "max_tokens", c, OPT_max_tokens, INT32_MAX, e);
    if (s == STATUS_OK)
        s = set_think(q, c, e);
    if (s == STATUS_OK)
        *out = q;
    else
        json_decref(q);
    return s;
}
