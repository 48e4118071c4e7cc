/*
 * A private node: what cmd_serve.c wires together, without lock, node.json and signals, on a thread of this process. Its ranks are
 * children of this process and end when it does, however it does: their control sockets close.
 */
#include "api/api.h"
#include "cli/client.h"
#include "cli/engine_options.h"
#include "http/http.h"
#include "node/node.h"
#include "os/os.h"
#include "serve/serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct private_node {
    char program[4096], url[64], key[33];
    http_loop *loop;
    node *n;
    serve *s;
    api *a;
    http_server *server;
    os_thread *thread;
};

static void run_loop(void *context)
{
    http_loop_run(context);
}

static status make_key(private_node *p, err *e)
{
    unsigned char bytes[16];
    status s = os_random(bytes, sizeof bytes, e);
    if (s == STATUS_OK)
        base_hex(p->key, bytes, sizeof bytes);
    return s;
}

static status read_options(node_options *o, char draft_source[STORE_PATH], const cli *c, err *e)
{
    const char *level = cli_text(c, OPT_log);
    o->keep_alive_us = UINT64_MAX;
    o->default_model = "minnow";
    setenv("SHOAL_LOG", level ? level : "warn", 1); /* for its ranks */
    return cli_read_engine(o, draft_source, c, c->n_arguments ? c->arguments[0] : o->default_model,
                           e);
}

static status open_all(private_node *p, const cli *c, err *e)
{
    node_options no = {.program = p->program};
    serve_options so = {0};
    const char *key = p->key;
    api_options ao = {.keys = &key, .n_keys = 1};
    char draft_source[STORE_PATH];
    int port = 0;
    status s = read_options(&no, draft_source, c, e);
    if (s == STATUS_OK)
        s = make_key(p, e);
    if (s == STATUS_OK)
        s = os_self_path(p->program, sizeof p->program, e);
    if (s == STATUS_OK)
        s = http_loop_create(&p->loop, e);
    if (s == STATUS_OK)
        s = node_create(&p->n, p->loop, &no, e);
    if (s == STATUS_OK)
        s = serve_create(&p->s, p->loop, p->n, &so, e);
    if (s == STATUS_OK)
        s = api_create(&p->a, p->loop, p->s, p->n, &ao, e);
    if (s == STATUS_OK)
        s = http_server_create(&p->server, p->loop, NULL, api_handle, p->a, e);
    if (s == STATUS_OK)
        s = http_server_listen(p->server, "127.0.0.1:0", &port, e);
    snprintf(p->url, sizeof p->url, "http://127.0.0.1:%d", port);
    return s == STATUS_OK ? os_thread_create(&p->thread, run_loop, p->loop, "node", e) : s;
}

status private_start(private_node **out, const cli *c, err *e)
{
    private_node *p = base_zalloc(1, sizeof *p);
    if (!p)
        return err_set(e, STATUS_NO_MEMORY, "no memory for a node");
    status s = open_all(p, c, e);
    if (s == STATUS_OK)
        *out = p;
    else
        private_stop(p);
    return s;
}

void private_stop(private_node *p)
{
    if (!p)
        return;
    if (p->thread) {
        http_loop_stop(p->loop);
        os_thread_join(p->thread);
    }
    if (p->server)
        http_server_destroy(p->server);
    if (p->s)
        serve_destroy(p->s);
    if (p->a)
        api_destroy(p->a);
    if (p->n)
        node_destroy(p->n);
    if (p->loop)
        http_loop_destroy(p->loop);
    base_free(p);
}

const char *private_url(const private_node *p)
{
    return p->url;
}

const char *private_key(const private_node *p)
{
    return p->key;
}
