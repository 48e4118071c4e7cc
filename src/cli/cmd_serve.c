/*
 * shoal serve [MODEL]: the daemon of a node. Wires loop, node, serve, api and HTTP server together, holds the lock on the data folder,
 * tells `shoal run`, `list` and `ps` where it listens (node.json in the state folder), and ends cleanly on SIGINT and SIGTERM: live
 * requests get five seconds, a second signal ends them at once.
 */
#include "api/api.h"
#include "cli/cli.h"
#include "cli/engine_options.h"
#include "http/http.h"
#include "node/node.h"
#include "os/os.h"
#include "serve/serve.h"
#include "store/store.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FOLDER = 4096, WORDS = 64, GRACE_US = 5 * 1000000, GRACE_TICK_US = 50000 };

/* A list "a,b,c" as an option holds it. */
typedef struct words {
    char *text; /* owned */
    const char *word[WORDS];
    size_t n;
} words;

typedef struct daemon {
    const cli *c;
    bool open, loopback;
    char listen[300], url[320], node_file[FOLDER + 16];
    words keys, origins;
    char host[256], host_local[264];
    os_lock lock;
    bool has_lock;
    http_loop *loop;
    node *n;
    serve *s;
    api *a;
    http_server *server;
    node_lease *preload; /* of the model named at start, while it is being loaded */
    int signal_fd;
    http_watch *signals;
    http_timer *ending;
    uint64_t end_at_us; /* 0: not ending */
} daemon_state;

/* ---- options ------------------------------------------------------------------------------------------------------- */

static status split(words *out, const char *text, const char *option, err *e)
{
    *out = (words){0};
    if (!text || !*text)
        return STATUS_OK;
    out->text = base_strdup(text);
    if (!out->text)
        return err_set(e, STATUS_NO_MEMORY, "no memory for %s", option);
    for (char *at = out->text; at;) {
        char *comma = strchr(at, ',');
        if (comma)
            *comma = '\0';
        if (!*at)
            return err_set(e, STATUS_INVALID, "%s: there is an empty one in the list", option);
        if (out->n == WORDS)
            return err_set(e, STATUS_INVALID, "%s: more than %d", option, WORDS);
        out->word[out->n++] = at;
        at = comma ? comma + 1 : NULL;
    }
    return STATUS_OK;
}

static bool is_loopback(const char *address)
{
    return !strcmp(address, "localhost") || !strcmp(address, "::1") || !strcmp(address, "[::1]") ||
           !strncmp(address, "127.", 4);
}

static status read_address(daemon_state *d, err *e)
{
    const char *address = cli_text(d->c, OPT_listen);
    uint64_t port = cli_whole(d->c, OPT_port);
    if (port > 65535)
        return err_set(e, STATUS_INVALID, "--port %llu: expected 0 to 65535",
                       (unsigned long long)port);
    bool bare_v6 = strchr(address, ':') && address[0] != '[';
    int n =
        snprintf(d->listen, sizeof d->listen, bare_v6 ? "[%s]:%d" : "%s:%d", address, (int)port);
    if (n < 0 || (size_t)n >= sizeof d->listen)
        return err_set(e, STATUS_INVALID, "--listen: the address is too long");
    d->loopback = is_loopback(address);
    d->open = cli_flag(d->c, OPT_open);
    status s = split(&d->keys, cli_text(d->c, OPT_api_key), "--api-key", e);
    if (s == STATUS_OK)
        s = split(&d->origins, cli_text(d->c, OPT_origin), "--origin", e);
    if (s != STATUS_OK)
        return s;
    if (!d->loopback && !d->keys.n && !d->open)
        return err_set(e, STATUS_INVALID,
                       "--listen %s lets other machines in: give them an --api-key, or say --open "
                       "when everyone may use this node",
                       address);
    return STATUS_OK;
}

static status node_options_read(node_options *o, char draft_source[STORE_PATH], const cli *c,
                                err *e)
{
    uint64_t context = cli_whole(c, OPT_ctx), waiting = cli_whole(c, OPT_max_queue);
    if (context > 1 << 30)
        return err_set(e, STATUS_INVALID, "--ctx %llu: expected at most %d",
                       (unsigned long long)context, 1 << 30);
    if (waiting < 1 || waiting > 1000000)
        return err_set(e, STATUS_INVALID, "--max-queue %llu: expected 1 to 1000000",
                       (unsigned long long)waiting);
    o->context = (int64_t)context;
    o->memory_limit = cli_whole(c, OPT_memory);
    o->keep_alive_us = BASE_MAX(cli_whole(c, OPT_keep_alive), (uint64_t)1);
    o->max_waiting = (int)waiting;
    o->default_model = c->n_arguments ? c->arguments[0] : "minnow";
    return cli_read_engine(o, draft_source, c, o->default_model, e);
}

/* ---- the data folder ----------------------------------------------------------------------------------------------- */

static status take_lock(daemon_state *d, err *e)
{
    char folder[FOLDER], path[FOLDER + 16], holder[400];
    if (os_user_dir(folder, sizeof folder, "data", e) != STATUS_OK ||
        os_make_dirs(folder, 0700, e) != STATUS_OK) {
        log_warn("serve", "going on without a data folder: %s", e->text);
        return STATUS_OK;
    }
    snprintf(path, sizeof path, "%s/node.lock", folder);
    snprintf(holder, sizeof holder, "pid %d, asked to listen on %s\n", (int)getpid(), d->listen);
    status s = os_lock_acquire(&d->lock, path, holder, e);
    d->has_lock = s == STATUS_OK;
    if (s == STATUS_BUSY)
        return err_wrap(e, "another node already uses the data folder %s", folder);
    if (s != STATUS_OK)
        log_warn("serve", "going on without a lock on the data folder: %s", e->text);
    return STATUS_OK;
}

static void write_node_file(daemon_state *d)
{
    char folder[FOLDER];
    err e;
    sb text;
    sb_init(&text);
    sb_printf(&text, "{\"pid\": %d, \"url\": \"", (int)getpid());
    sb_json(&text, d->url, strlen(d->url));
    sb_puts(&text, "\"}\n");
    status s = os_user_dir(folder, sizeof folder, "state", &e);
    if (s == STATUS_OK)
        s = os_make_dirs(folder, 0700, &e);
    if (s == STATUS_OK) {
        snprintf(d->node_file, sizeof d->node_file, "%s/node.json", folder);
        s = os_write_file(d->node_file, text.data, text.length, 0600, &e);
    }
    if (s != STATUS_OK) {
        d->node_file[0] = '\0';
        log_warn("serve", "`shoal run`, `list` and `ps` will not find this node: %s", e.text);
    }
    sb_fini(&text);
}

/* ---- the model named at start -------------------------------------------------------------------------------------- */

static void on_preloaded(void *context)
{
    daemon_state *d = context;
    node_release(d->preload);
    d->preload = NULL;
}

static void on_preload_failed(void *context, const err *why)
{
    (void)why; /* the node has logged it */
    on_preloaded(context);
}

static void on_preload_event(void *context, const engine_event *event)
{
    (void)context;
    (void)event;
}

static status preload(daemon_state *d, err *e)
{
    node_listener listener = {.ready = on_preloaded,
                              .failed = on_preload_failed,
                              .event = on_preload_event,
                              .context = d};
    return d->c->n_arguments ? node_acquire(&d->preload, d->n, d->c->arguments[0], &listener, e)
                             : STATUS_OK;
}

/* ---- the end ------------------------------------------------------------------------------------------------------- */

static void on_ending(void *context)
{
    daemon_state *d = context;
    if (http_server_requests(d->server) == 0 || os_now_us() >= d->end_at_us)
        http_loop_stop(d->loop);
}

static void on_signal(void *context, unsigned what)
{
    daemon_state *d = context;
    char bytes[16];
    (void)what;
    ssize_t n = read(d->signal_fd, bytes, sizeof bytes);
    if (n <= 0)
        return;
    if (d->end_at_us || n > 1) {
        http_loop_stop(d->loop);
        return;
    }
    size_t live = http_server_requests(d->server);
    d->end_at_us = os_now_us() + GRACE_US;
    log_info("serve", "ending%s",
             live ? ": live requests get five seconds, another signal ends "
                    "them at once"
                  : "");
    http_server_close_listeners(d->server);
    http_timer_repeat(d->ending, GRACE_TICK_US);
    on_ending(d);
}

static void close_all(daemon_state *d)
{
    http_server_destroy(d->server);
    if (d->preload)
        node_release(d->preload);
    serve_destroy(d->s);
    api_destroy(d->a);
    node_destroy(d->n);
    http_watch_destroy(d->signals);
    http_timer_destroy(d->ending);
    if (d->loop)
        http_loop_destroy(d->loop);
    if (d->node_file[0])
        unlink(d->node_file);
    if (d->has_lock)
        os_lock_release(&d->lock);
    base_free(d->keys.text);
    base_free(d->origins.text);
}

/* ---- the beginning ------------------------------------------------------------------------------------------------- */

static status create_server(daemon_state *d, err *e)
{
    os_host_name(d->host);
    snprintf(d->host_local, sizeof d->host_local, "%s.local", d->host);
    const char *hosts[] = {d->host, d->host_local};
    http_options o = {.hosts = hosts,
                      .n_hosts = d->loopback ? 0 : BASE_COUNT(hosts),
                      .origins = d->origins.word,
                      .n_origins = d->origins.n};
    int port;
    status s = http_server_create(&d->server, d->loop, &o, api_handle, d->a, e);
    if (s == STATUS_OK)
        s = http_server_listen(d->server, d->listen, &port, e);
    if (s != STATUS_OK)
        return s;
    int n = (int)(strrchr(d->listen, ':') - d->listen);
    bool local = !strncmp(d->listen, "0.0.0.0:", 8) || !strncmp(d->listen, "[::]:", 5) ||
                 !strncmp(d->listen, "127.0.0.1:", 10);
    if (local)
        snprintf(d->url, sizeof d->url, "http://localhost:%d", port);
    else
        snprintf(d->url, sizeof d->url, "http://%.*s:%d", n, d->listen, port);
    return STATUS_OK;
}

static status open_all(daemon_state *d, err *e)
{
    char program[FOLDER], draft_source[STORE_PATH];
    node_options no = {.program = program};
    serve_options so = {0};
    api_options ao = {.keys = d->keys.word, .n_keys = d->keys.n};
    status s = node_options_read(&no, draft_source, d->c, e);
    if (s == STATUS_OK)
        s = take_lock(d, e);
    if (s == STATUS_OK)
        s = os_self_path(program, sizeof program, e);
    if (s == STATUS_OK)
        s = os_signal_fd(&d->signal_fd, e);
    if (s == STATUS_OK)
        s = http_loop_create(&d->loop, e);
    if (s == STATUS_OK)
        s = http_watch_create(&d->signals, d->loop, d->signal_fd, HTTP_READABLE, on_signal, d, e);
    if (s == STATUS_OK)
        s = http_timer_create(&d->ending, d->loop, on_ending, d, e);
    if (s == STATUS_OK)
        s = node_create(&d->n, d->loop, &no, e);
    if (s == STATUS_OK)
        s = serve_create(&d->s, d->loop, d->n, &so, e);
    if (s == STATUS_OK)
        s = api_create(&d->a, d->loop, d->s, d->n, &ao, e);
    if (s == STATUS_OK)
        s = create_server(d, e);
    return s == STATUS_OK ? preload(d, e) : s;
}

static void greet(const daemon_state *d)
{
    printf("shoal is ready at %s (OpenAI API: %s/v1)%s\n", d->url, d->url,
           d->loopback || d->keys.n ? "" : ", open to everyone who can reach this machine");
    fflush(stdout);
}

/* The node answers to names and whole paths; what is typed here may be a file of the folder we are in. Unknown names are told later. */
static void name_in_full(cli *c)
{
    char source[STORE_PATH];
    const char *origin = "";
    err e;
    if (c->n_arguments == 0 || store_find(source, &origin, c->arguments[0], &e) != STATUS_OK ||
        strcmp(origin, "path") != 0)
        return;
    char *full = arena_strndup(&c->memory, source, strlen(source));
    if (full)
        c->arguments[0] = full;
}

int cli_cmd_serve(cli *c)
{
    daemon_state d = {.c = c, .signal_fd = -1};
    err e;
    uint64_t descriptors;
    name_in_full(c);
    status s = read_address(&d, &e);
    if (s == STATUS_OK)
        s = open_all(&d, &e);
    if (s == STATUS_OK) {
        if (!os_raise_descriptor_limit(&descriptors))
            log_warn("serve", "the limit of open files could not be raised");
        write_node_file(&d);
        greet(&d);
        http_loop_run(d.loop);
    }
    close_all(&d);
    return s == STATUS_OK ? 0 : cli_fail_err(c, &e);
}
