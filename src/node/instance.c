/*
 * One instance through its life; node.h draws the states.
 *
 *   instance_create  none → READING         reading's take_over  READING → STARTING, FAILED
 *   rank_link        STARTING → LOADING → READY
 *   rank_died        any of these → BACKING_OFF, FAILED after too many quick deaths; LOADING in silence too (instance_tick)
 *   instance_tick    BACKING_OFF → STARTING when its time has come; READY → STOPPING when idle for long; FAILED → none
 */
#include "node/node_internal.h"

#include <stdio.h>
#include <string.h>

enum {
    FAILED_KEPT_US =
        10 * 1000000,     /* how long the reason of a failure is kept when nobody asks again */
    BACK_OFF_US = 500000, /* doubles with every quick death */
    BACK_OFF_MAX_US = 30 * 1000000,
    QUICK_US = 60 * 1000000, /* a rank that lived longer starts with a clean record */
    QUICK_DEATHS = 5,
    START_US = 60 * 1000000, /* from exec to the first word, on the busiest of machines */
    SILENCE_US =
        300 *
        1000000, /* between words of ranks that load, from the slowest of disks; those that wait for others say none */
    STOP_US = 10 * 1000000
};

status instance_create(node_instance **out, node *n, const char *name, const char *source,
                       bool by_path, err *e)
{
    node_instance *i = base_zalloc(1, sizeof *i);
    if (i) {
        i->name = base_strdup(name);
        i->source = base_strdup(source);
    }
    if (!i || !i->name || !i->source) {
        if (i)
            base_free(i->name);
        base_free(i);
        return err_set(e, STATUS_NO_MEMORY, "node: no memory for an instance of %s", name);
    }
    i->of = n;
    i->by_path = by_path;
    i->state = NODE_READING;
    i->last_used_us = os_now_us();
    status s = reading_start(i, e);
    if (s != STATUS_OK) {
        base_free(i->name);
        base_free(i->source);
        base_free(i);
        return s;
    }
    i->next = n->instances;
    n->instances = i;
    log_info("node", "loading %s from %s", name, source);
    *out = i;
    return STATUS_OK;
}

void instance_destroy(node_instance *i)
{
    REQUIRE(!i->leases);
    node_instance **at = &i->of->instances;
    while (*at != i)
        at = &(*at)->next;
    *at = i->next;
    reading_abandon(i);
    rank_kill(i);
    while (i->flights) {
        node_flight *f = i->flights;
        i->flights = f->next;
        base_free(f);
    }
    model_card_destroy(i->card);
    model_card_destroy(i->draft_card);
    text_tokenizer_destroy(i->tokenizer);
    if (i->templates[1] != i->templates[0])
        chat_template_destroy(i->templates[1]);
    chat_template_destroy(i->templates[0]);
    sb_fini(&i->incoming);
    sb_fini(&i->outgoing);
    base_free(i->name);
    base_free(i->source);
    base_free(i);
}

bool instance_is_idle(const node_instance *i)
{
    return i->state == NODE_READY && !i->leases && !i->flights;
}

/* One lease that is due for a callback, or NULL. */
static node_lease *due_lease(const node_instance *i)
{
    for (node_lease *l = i->leases; l; l = l->next) {
        if (i->state == NODE_READY && !l->told_ready && !l->told_failed)
            return l;
        if (i->state == NODE_FAILED && !l->told_failed)
            return l;
    }
    return NULL;
}

void instance_wake_leases(node_instance *i)
{
    for (node_lease *l; (l = due_lease(i));) {
        if (i->state == NODE_READY) {
            l->told_ready = true;
            l->listener.ready(l->listener.context);
        } else {
            l->told_failed = true;
            err why = i->why;
            l->listener.failed(l->listener.context, &why);
        }
    }
}

void instance_failed(node_instance *i, const err *why)
{
    i->why = *why;
    i->state = NODE_FAILED;
    i->failed_at_us = os_now_us();
    log_error("node", "%s failed: %s", i->name, why->text);
    rank_fail_flights(i, why);
    instance_wake_leases(i);
}

/* Leases that had been told ready learn that it is over; the others wait for the restart. */
static void tell_death(node_instance *i, const err *why)
{
    for (;;) {
        node_lease *l = i->leases;
        while (l && !(l->told_ready && !l->told_failed))
            l = l->next;
        if (!l)
            return;
        l->told_failed = true;
        l->listener.failed(l->listener.context, why);
    }
}

void rank_died(node_instance *i, const char *how)
{
    bool wanted_to = i->state == NODE_STOPPING;
    uint64_t now = os_now_us();
    err why;
    err_set(&why, STATUS_CLOSED, "the process that ran %s ended (%s)", i->name, how);
    rank_kill(i);
    if (wanted_to && !i->leases && !i->flights) {
        log_info("node", "%s was unloaded", i->name);
        i->state = NODE_FAILED; /* instance_tick removes it */
        i->failed_at_us = 0;
        return;
    }
    if (wanted_to)
        log_info("node", "%s was unloaded, and is asked for again", i->name);
    else
        log_error("node", "%s", why.text);
    i->why = why;
    i->restarts += !wanted_to;
    i->quick_deaths = now - i->started_us > QUICK_US ? 1 : i->quick_deaths + 1;
    if (wanted_to)
        i->quick_deaths = 0;
    if (i->quick_deaths > QUICK_DEATHS) {
        instance_failed(i, &why);
        return;
    }
    uint64_t wait = (uint64_t)BACK_OFF_US << (i->quick_deaths > 0 ? i->quick_deaths - 1 : 0);
    i->retry_at_us = wanted_to ? now : now + BASE_MIN(wait, (uint64_t)BACK_OFF_MAX_US);
    i->state = NODE_BACKING_OFF;
    rank_fail_flights(i, &why);
    tell_death(i, &why);
}

/* One that is stopped, or waits for a disk that is gone, does not end: the others would wait for it. */
static void watch_silence(node_instance *i, uint64_t now_us)
{
    uint64_t most = i->of->o.silence_us ? i->of->o.silence_us : (uint64_t)SILENCE_US;
    if (now_us - i->heard_us <= most)
        return;
    char how[96];
    snprintf(how, sizeof how, "while it was loaded, nothing was heard of it for %.3g s",
             (double)most / 1e6);
    rank_died(i, how);
}

void instance_tick(node_instance *i, uint64_t now_us)
{
    err e;
    switch (i->state) {
    case NODE_BACKING_OFF:
        if (now_us < i->retry_at_us)
            return;
        log_info("node", "starting %s again", i->name);
        if (rank_start(i, &e) != STATUS_OK)
            instance_failed(i, &e);
        return;
    case NODE_READY: {
        uint64_t keep = i->of->o.keep_alive_us;
        bool expired = keep != UINT64_MAX && now_us - i->last_used_us > keep;
        if (instance_is_idle(i) && (expired || i->unload_asked)) {
            log_info("node", "%s is unloaded: %s", i->name, i->unload_asked ? "asked to" : "idle");
            rank_stop(i);
        }
        return;
    }
    case NODE_FAILED:
        if (!i->leases && now_us - i->failed_at_us > FAILED_KEPT_US)
            instance_destroy(i);
        return;
    case NODE_STARTING:
        if (now_us - i->started_us > START_US)
            rank_died(i, "it did not say a word");
        return;
    case NODE_STOPPING:
        if (now_us - i->asked_to_stop_us > STOP_US)
            rank_died(i, "it did not end when asked to");
        return;
    case NODE_LOADING:
        watch_silence(i, now_us);
        return;
    case NODE_READING:
        return;
    }
}
