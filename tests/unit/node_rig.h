/*
 * What the tests of node and serve share: a loop and a node in this process whose ranks are this same test program. The loop runs on the
 * test's own thread until something has come true; a hang fails after a generous while, no time is asserted.
 */
#ifndef NODE_RIG_H
#define NODE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/wire.h"
#include "http/http.h"
#include "node/node.h"
#include "os/os.h"
#include "store/store.h"

#define TINY  TEST_DATA "/models/tiny-q8_0.gguf"
#define OTHER TEST_DATA "/models/h14-2-bf16.gguf"

enum { RIG_GUARD_US = 180 * 1000000, RIG_LOOK_US = 2000 };

static inline void must(status s, const err *e)
{
    if (s != STATUS_OK)
        fail_msg("%s", e->text);
}

typedef struct node_rig {
    http_loop *loop;
    node *n;
    http_timer *look;
    bool (*met)(void *context);
    void *context;
    uint64_t until;
    bool good;
} node_rig;

static inline void rig_look(void *context)
{
    node_rig *g = context;
    g->good = g->met(g->context);
    if (g->good || os_now_us() > g->until)
        http_loop_stop(g->loop);
}

/* Runs the loop until met(context). */
static inline void rig_wait(node_rig *g, bool (*met)(void *context), void *context)
{
    g->met = met;
    g->context = context;
    g->until = os_now_us() + RIG_GUARD_US;
    g->good = false;
    http_timer_repeat(g->look, RIG_LOOK_US);
    http_loop_run(g->loop);
    http_timer_stop(g->look);
    if (!g->good)
        fail_msg("what was waited for did not come");
}

static inline bool rig_one_turn(void *context)
{
    return --*(int *)context < 0;
}

/* A few turns of the loop, for what must not happen. */
static inline void rig_turns(node_rig *g)
{
    int left = 20;
    rig_wait(g, rig_one_turn, &left);
}

/* This test program, which is also its ranks. */
static inline const char *rig_program(void)
{
    static char path[4096];
    err e = {0};
    must(os_self_path(path, sizeof path, &e), &e);
    return path;
}

static inline void rig_start(node_rig *g, node_options o)
{
    err e = {0};
    *g = (node_rig){0};
    log_set_level(LOG_ERROR);
    if (!o.program)
        o.program = rig_program();
    if (!o.context)
        o.context = 1024;
    if (!o.max_sequences)
        o.max_sequences = 8;
    o.n_threads = 1;
    must(http_loop_create(&g->loop, &e), &e);
    must(http_timer_create(&g->look, g->loop, rig_look, g, &e), &e);
    must(node_create(&g->n, g->loop, &o, &e), &e);
}

static inline void rig_stop(node_rig *g)
{
    node_destroy(g->n);
    http_timer_destroy(g->look);
    http_loop_destroy(g->loop);
}

static inline node_instance_info rig_instance(const node_rig *g, const char *name)
{
    node_instance_info info;
    for (int i = 0; i < node_n_instances(g->n); i++) {
        node_instance_describe(g->n, i, &info);
        if (!strcmp(info.name, name))
            return info;
    }
    fail_msg("there is no instance %s", name);
    return info;
}

/* Sends a signal to the rank of an instance, which must have one: kill(0) would go to us all. */
static inline int rig_signal(const node_rig *g, const char *name, int number)
{
    int pid = rig_instance(g, name).pid;
    assert_true(pid > 0);
    kill(pid, number);
    return pid;
}

/* ---- the rank that the node starts: this program, as it should be or as TEST_RANK says -------------------------------- */

static inline bool rig_is_rank(int argc, char **argv)
{
    return argc > 1 && !strcmp(argv[1], "rank");
}

/* Says something and waits for the node to close the socket. */
static inline int rig_bad_rank(const char *how)
{
    sb out;
    char byte;
    err e;
    sb_init(&out);
    if (!strcmp(how, "nonsense"))
        sb_puts(&out, "this is no frame of ours at all, and will never be one");
    if (!strcmp(how, "ready"))
        wire_put_ready(&out, &(wire_ready){.isa = "x", .numerics = "y"});
    if (!strcmp(how, "short")) {
        wire_put_hello(&out);
        out.data[0] = 2; /* a payload that is too short for its field */
    }
    if (!strcmp(how, "version")) {
        wire_put_hello(&out);
        out.data[WIRE_HEADER]++;
    }
    if (!strcmp(how, "failed")) {
        wire_put_hello(&out);
        wire_put_failed(&out, &(wire_failed){STATUS_OK, "it went wrong, it says"});
    }
    if (!strcmp(how, "dies"))
        return 3;
    if (os_send_all(3, out.data, out.length, &e) == STATUS_OK)
        while (os_recv_all(3, &byte, 1, 0, &e) == STATUS_OK)
            ;
    sb_fini(&out);
    return 0;
}

static inline int rig_rank(void)
{
    const char *how = getenv("TEST_RANK");
    if (how)
        return rig_bad_rank(how);
    engine_rank_options o = {.fd = 3, .open = store_open};
    log_set_level(LOG_ERROR);
    return engine_rank_run(&o);
}

#endif
