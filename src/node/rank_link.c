/*
 * A rank process seen from its node: start, messages both ways without ever blocking the loop, requests in flight, death.
 *
 * The socket is not blocking. What cannot be sent now waits in `outgoing`; what arrives gathers in `incoming` until a frame is whole. A
 * rank that sends nonsense is killed like one that died.
 */
#include "node/node_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_PIECE = 64 << 10, DEFAULT_SEQUENCES = 32, REAP_US = 200000 };

/* ---- requests in flight -------------------------------------------------------------------------------------------- */

node_flight *rank_flight(node_instance *i, uint64_t id)
{
    for (node_flight *f = i->flights; f; f = f->next)
        if (f->id == id)
            return f;
    return NULL;
}

static void remove_flight(node_instance *i, node_flight *f)
{
    node_flight **at = &i->flights;
    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    i->n_flights--;
    i->last_used_us = os_now_us();
    base_free(f);
}

/* Hands an event to whoever asked. The listener may release its lease, submit or cancel meanwhile. */
static void deliver(node_instance *i, const engine_event *event)
{
    node_flight *f = rank_flight(i, event->id);
    if (!f || event->choice >= f->n_choices)
        return;
    node_lease *lease = f->lease;
    if (event->kind == ENGINE_DONE) {
        if (f->choices_done & 1u << event->choice)
            return;
        f->choices_done |= 1u << event->choice;
        if (--f->choices_left == 0)
            remove_flight(i, f);
    }
    if (lease)
        lease->listener.event(lease->listener.context, event);
}

void rank_fail_flights(node_instance *i, const err *why)
{
    while (i->flights) {
        node_flight *f = i->flights;
        engine_event event = {
            .kind = ENGINE_DONE, .id = f->id, .reason = ENGINE_ERROR, .code = why->code};
        memcpy(event.text, why->text, sizeof event.text);
        while (f->choices_done & 1u << event.choice)
            event.choice++;
        deliver(i, &event); /* the last one removes f */
    }
}

/* ---- sending ------------------------------------------------------------------------------------------------------- */

static void want_write(node_instance *i, bool on)
{
    if (i->watching_write == on)
        return;
    err e;
    if (http_watch_set(i->watch, on ? HTTP_READABLE | HTTP_WRITABLE : HTTP_READABLE, &e) ==
        STATUS_OK)
        i->watching_write = on;
}

void rank_send(node_instance *i)
{
    while (i->has_child && i->sent < i->outgoing.length) {
        ssize_t n = send(i->child.fd, i->outgoing.data + i->sent, i->outgoing.length - i->sent,
                         MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break; /* full, or dead: the watch will tell */
        i->sent += (size_t)n;
    }
    if (i->sent == i->outgoing.length) {
        sb_clear(&i->outgoing);
        i->sent = 0;
    }
    if (i->has_child)
        want_write(i, i->outgoing.length > 0);
}

/* ---- receiving ----------------------------------------------------------------------------------------------------- */

/* What the limit leaves beside the other ranks, at least a byte: 0 would mean that there is no limit. */
static uint64_t memory_left(const node_instance *i)
{
    uint64_t limit = i->of->o.memory_limit, used = 0;
    for (const node_instance *other = i->of->instances; other && limit; other = other->next) {
        if (other == i || !other->has_child)
            continue;
        if (other->state == NODE_READY || other->state == NODE_STOPPING)
            used += other->ready.weight_bytes + other->ready.state_bytes +
                    other->ready.scratch_bytes + other->crew_need.weight_bytes +
                    other->crew_need.state_bytes + other->crew_need.scratch_bytes;
        else if (other->state == NODE_LOADING)
            used += other->card->weight_bytes + /* what is known of it by now */
                    (other->draft_card ? other->draft_card->weight_bytes : 0);
    }
    return limit == 0 || limit > used ? limit - used : 1;
}

static void find_room(node_instance *i, int n_sequences)
{
    const node_options *o = &i->of->o;
    uint64_t free_bytes = memory_left(i);
    os_memory_info memory;
    if (os_memory(&memory, NULL) == STATUS_OK)
        free_bytes =
            o->memory_limit ? BASE_MIN(free_bytes, memory.available_bytes) : memory.available_bytes;
    i->room = node_find_room(i->card, i->draft_card, o->kv, o->context, n_sequences, free_bytes);
    if (i->room.bounded)
        log_info("node", "%s: a context of %lld, as far as memory goes; the model could do %lld",
                 i->name, (long long)i->room.context, (long long)i->card->trained_context);
}

static int sequences(const node_instance *i)
{
    return i->of->o.max_sequences ? i->of->o.max_sequences : DEFAULT_SEQUENCES;
}

model_options rank_model_options(const node_instance *i)
{
    const node_options *o = &i->of->o;
    int n = sequences(i);
    return (model_options){.device = i->of->device,
                           .isa = i->of->isa,
                           .n_threads = o->n_threads,
                           .kv = o->kv,
                           .context = i->room.context,
                           .state_tokens = i->room.state_tokens,
                           .n_sequences = n,
                           .max_outputs = n + (o->draft ? ENGINE_DRAFT_ROWS : 0),
                           .memory_limit = memory_left(i)};
}

static void send_load(node_instance *i)
{
    const node_options *o = &i->of->o;
    int n = sequences(i);
    wire_load load = {.source = i->source,
                      .model = rank_model_options(i),
                      .engine = {.max_sequences = n,
                                 .max_waiting = o->max_waiting,
                                 .cache_slots = n,
                                 .draft = o->draft},
                      .draft_source = i->of->draft_source};
    wire_put_load(&i->outgoing, &load);
    i->state = NODE_LOADING;
    i->loaded_share = 0;
    rank_send(i);
}

static status take_hello(node_instance *i, const wire_frame *f, err *e)
{
    uint32_t version;
    status s = wire_get_hello(&version, f, e);
    if (s == STATUS_OK && version != WIRE_VERSION)
        s = err_set(e, STATUS_INVALID, "the rank speaks version %u, this node %d", version,
                    WIRE_VERSION);
    if (s == STATUS_OK && i->state == NODE_STARTING)
        send_load(i);
    return s;
}

static status take_progress(node_instance *i, const wire_frame *f, err *e)
{
    uint64_t done, total;
    status s = wire_get_progress(&done, &total, f, e);
    if (s != STATUS_OK || total == 0)
        return s;
    i->loaded_share = (double)BASE_MIN(done, total) / (double)total;
    for (node_lease *l = i->leases, *next; l; l = next) {
        next = l->next;
        if (l->listener.progress)
            l->listener.progress(l->listener.context, i->loaded_share);
    }
    return STATUS_OK;
}

static status take_ready(node_instance *i, const wire_frame *f, err *e)
{
    arena memory;
    arena_init(&memory, 0);
    status s = i->state == NODE_LOADING ? wire_get_ready(&i->ready, f, &memory, e)
                                        : err_set(e, STATUS_INVALID, "it says ready while %s",
                                                  node_state_name(i->state));
    if (s == STATUS_OK) {
        snprintf(i->isa, sizeof i->isa, "%s", i->ready.isa);
        snprintf(i->numerics, sizeof i->numerics, "%s", i->ready.numerics);
        i->ready.isa = i->isa;
        i->ready.numerics = i->numerics;
        i->state = NODE_READY;
        i->loaded_share = 1;
        i->loaded_unix_us = os_unix_us();
        i->last_used_us = os_now_us();
        log_info("node",
                 "%s is ready: context %lld, weights %.1f MB, state %.1f MB (%s), %s, %.2f s",
                 i->name, (long long)i->ready.context, (double)i->ready.weight_bytes / 1e6,
                 (double)i->ready.state_bytes / 1e6, model_kv_name(i->of->o.kv), i->isa,
                 (double)i->ready.load_us / 1e6);
        instance_wake_leases(i);
    }
    arena_fini(&memory);
    return s;
}

/* Loading failed: when it was memory and something idle is loaded, that goes and this is tried again. */
static bool make_memory(node_instance *i, status code)
{
    node_instance *victim = NULL;
    if (code != STATUS_NO_MEMORY)
        return false;
    for (node_instance *other = i->of->instances; other; other = other->next)
        if (other != i && instance_is_idle(other) &&
            (!victim || other->last_used_us < victim->last_used_us))
            victim = other;
    if (!victim)
        return false;
    log_info("node", "%s leaves to make room for %s", victim->name, i->name);
    instance_destroy(victim);
    return true;
}

void rank_refused(node_instance *i, const err *reason)
{
    err why = *reason, start;
    rank_kill(i);
    if (!make_memory(i, why.code))
        instance_failed(i, &why);
    else if (rank_start(i, &start) != STATUS_OK)
        instance_failed(i, &start);
}

static status take_failed(node_instance *i, const wire_frame *f, err *e)
{
    arena memory;
    arena_init(&memory, 0);
    wire_failed failed;
    status s = wire_get_failed(&failed, f, &memory, e);
    if (s == STATUS_OK) {
        err why;
        err_set(&why, failed.code, "%s", failed.text);
        if (i->crew) /* a follower may know better */
            engine_crew_why(i->crew, 0, &why);
        if (i->crew && (why.code == STATUS_CLOSED || why.code == STATUS_TIMEOUT))
            rank_died(i, why.text);
        else
            rank_refused(i, &why);
    }
    arena_fini(&memory);
    return s;
}

static status take_frame(node_instance *i, const wire_frame *f, err *e)
{
    engine_event event;
    status s;
    i->heard_us = os_now_us();
    switch (f->message) {
    case WIRE_HELLO:
        return take_hello(i, f, e);
    case WIRE_PROGRESS:
        return take_progress(i, f, e);
    case WIRE_READY:
        return take_ready(i, f, e);
    case WIRE_FAILED:
        return take_failed(i, f, e);
    case WIRE_EVENT:
        s = wire_get_event(&event, f, e);
        if (s == STATUS_OK)
            deliver(i, &event);
        return s;
    case WIRE_STATS:
        return wire_get_stats(&i->stats, &i->resident_bytes, f, e);
    default:
        return err_set(e, STATUS_INVALID, "message %d is not for a node", (int)f->message);
    }
}

/* Every whole frame of incoming. The child may be killed on the way. */
static status take_frames(node_instance *i, err *e)
{
    size_t at = 0;
    unsigned incarnation = i->incarnation;
    status s = STATUS_OK;
    while (s == STATUS_OK && i->has_child && i->incarnation == incarnation) {
        wire_frame frame;
        bool complete;
        s = wire_next(&frame, &complete, i->incoming.data + at, i->incoming.length - at, e);
        if (s != STATUS_OK || !complete)
            break;
        at += WIRE_HEADER + frame.bytes;
        s = take_frame(i, &frame, e);
    }
    if (i->has_child && i->incarnation == incarnation && at > 0) {
        memmove(i->incoming.data, i->incoming.data + at, i->incoming.length - at);
        i->incoming.length -= at;
    }
    return s;
}

/* How it ended. A dying process closes its socket a moment before its exit can be asked for, so this may take a little patience. */
static void end_of_child(node_instance *i, char how[64])
{
    for (uint64_t waited = 0; !os_child_ended(&i->child, how); waited += 1000) {
        if (waited >= REAP_US) {
            snprintf(how, 64, "its socket closed");
            return;
        }
        os_sleep_us(1000);
    }
}

static void receive(node_instance *i)
{
    if (!sb_reserve(&i->incoming, READ_PIECE)) {
        rank_died(i, "there was no memory for its messages");
        return;
    }
    ssize_t n = recv(i->child.fd, i->incoming.data + i->incoming.length, READ_PIECE, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n <= 0) {
        char how[64];
        end_of_child(i, how);
        rank_died(i, how);
        return;
    }
    i->incoming.length += (size_t)n;
    err e;
    if (take_frames(i, &e) != STATUS_OK)
        rank_died(i, e.text);
}

static void on_socket(void *context, unsigned what)
{
    node_instance *i = context;
    node *n = i->of;
    n->depth++;
    if (what & HTTP_WRITABLE)
        rank_send(i);
    if ((what & HTTP_READABLE) && i->has_child)
        receive(i);
    n->depth--;
}

/* ---- the process --------------------------------------------------------------------------------------------------- */

status rank_start(node_instance *i, err *e)
{
    const char *argv[] = {i->of->program, "rank", NULL};
    REQUIRE(!i->has_child);
    sb_clear(&i->incoming);
    sb_clear(&i->outgoing);
    i->sent = 0;
    status s = os_child_start(&i->child, argv, e);
    if (s != STATUS_OK)
        return s;
    i->has_child = true;
    i->incarnation++;
    i->watching_write = false;
    s = os_set_nonblocking(i->child.fd, true, e);
    if (s == STATUS_OK)
        s = http_watch_create(&i->watch, i->of->loop, i->child.fd, HTTP_READABLE, on_socket, i, e);
    if (s != STATUS_OK) {
        rank_kill(i);
        return s;
    }
    find_room(i, sequences(i));
    s = crew_is_wanted(i) ? crew_start(i, e) : STATUS_OK;
    if (s != STATUS_OK) {
        rank_kill(i);
        return s;
    }
    i->state = NODE_STARTING;
    i->started_us = i->heard_us = os_now_us();
    return STATUS_OK;
}

void rank_stop(node_instance *i)
{
    if (!i->has_child)
        return;
    wire_put_quit(&i->outgoing);
    i->state = NODE_STOPPING;
    i->asked_to_stop_us = os_now_us();
    rank_send(i);
}

void rank_kill(node_instance *i)
{
    if (!i->has_child)
        return;
    http_watch_destroy(i->watch);
    i->watch = NULL;
    crew_end(i);
    os_child_kill(&i->child);
    os_child_close(&i->child);
    i->has_child = false;
    i->resident_bytes = 0;
}
