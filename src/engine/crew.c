/*
 * The crew: the ranks beside the first, as child processes. Each gets its control socket, over it its place with the descriptors of its
 * links (made here, in pairs, and closed here once they are handed over: so a death is seen by the peers as an end of a socket), and the
 * load that all have. What they say is taken without blocking; the caller polls their sockets. Not here: starting anew (src/node).
 */
#include "engine/group.h"
#include "engine/wire.h"
#include "os/os.h"

#include <stdio.h>
#include <string.h>

enum {
    RING_BYTES = 1 << 20,
    CONNECT_US = 10 * 1000000,
    PIECE = 4096,
    REAP_US = 200000,
    LEAVE_US = 2000000
};

typedef struct member {
    os_child child;
    bool started, ready, failed;
    sb incoming;
    model_need need;
    err why; /* failed: what it said */
} member;

struct engine_crew {
    int n;         /* followers: rank i + 1 */
    bool changing; /* an epoch is being prepared: how many the old one and the new one have */
    int n_old, n_new;
    member of[ENGINE_MOST_RANKS];
};

/* ---- links --------------------------------------------------------------------------------------------------------- */

static void push(engine_place *p, int fd)
{
    REQUIRE(p->n_handles < ENGINE_MOST_HANDLES);
    p->handles[p->n_handles++] = fd;
}

static status connect_tcp(int out[2], int listener, uint16_t port, err *e)
{
    status s = os_tcp_connect(&out[1], "127.0.0.1", port, CONNECT_US, e);
    if (s != STATUS_OK)
        return s;
    s = os_tcp_accept(&out[0], listener, CONNECT_US, e);
    if (s != STATUS_OK)
        os_close(out[1]);
    return s;
}

/* One way between two ranks, the lower one first. */
static status connect_two(engine_place *low, engine_place *high, int listener, uint16_t port,
                          err *e)
{
    if (low->cut.link == ENGINE_LINK_SHM) {
        link_shm_end ends[2];
        status s = link_shm_create(ends, RING_BYTES, e);
        if (s != STATUS_OK)
            return s;
        push(low, ends[0].socket_fd);
        push(low, ends[0].memory_fd);
        push(high, ends[1].socket_fd);
        push(high, ends[1].memory_fd);
        return STATUS_OK;
    }
    int fds[2];
    status s = connect_tcp(fds, listener, port, e);
    if (s != STATUS_OK)
        return s;
    push(low, fds[0]);
    push(high, fds[1]);
    return STATUS_OK;
}

/* All ways among places [n], in the order of group.c: for every place peers ascending, first all, then those of the stage. Pairs in
 * this order are appended to both sides in ascending order of the other. */
static status connect_all(engine_place *places, int n, err *e)
{
    const engine_cut *c = &places[0].cut;
    int listener = -1;
    uint16_t port = 0;
    status s = STATUS_OK;
    if (c->link == ENGINE_LINK_TLS)
        s = os_tcp_listen(&listener, "127.0.0.1", &port, e);
    for (int high = 1; high < n && s == STATUS_OK; high++)
        for (int low = 0; low < high && s == STATUS_OK; low++)
            s = connect_two(&places[low], &places[high], listener, port, e);
    bool stages_too = c->n_stages > 1 && c->n_tensor > 1;
    for (int high = 1; high < n && s == STATUS_OK && stages_too; high++)
        for (int low = high / c->n_tensor * c->n_tensor; low < high && s == STATUS_OK; low++)
            s = connect_two(&places[low], &places[high], listener, port, e);
    if (listener >= 0)
        os_close(listener);
    return s;
}

/* ---- places -------------------------------------------------------------------------------------------------------- */

static status place_send(int fd, const engine_place *p, bool next, err *e)
{
    sb frame;
    sb_init(&frame);
    if (next)
        wire_put_prepare(&frame, p, false);
    else
        wire_put_join(&frame, p);
    status s = frame.failed ? err_set(e, STATUS_NO_MEMORY, "no memory for a message")
                            : os_send_all(fd, frame.data, frame.length, e);
    sb_fini(&frame);
    for (int at = 0; at < p->n_handles && s == STATUS_OK; at += GROUP_DESCRIPTORS)
        s = os_send_descriptors(fd, p->handles + at,
                                BASE_MIN(p->n_handles - at, (int)GROUP_DESCRIPTORS), e);
    return s;
}

status engine_place_send(int fd, const engine_place *p, err *e)
{
    return place_send(fd, p, false, e);
}

static status fill_places(engine_place *places, const engine_team_options *o, err *e)
{
    unsigned char secret[sizeof places->secret];
    status s = os_random(secret, sizeof secret, e);
    for (int i = 0; i < engine_cut_ranks(&o->cut) && s == STATUS_OK; i++) {
        group_place(&places[i], o, i);
        memcpy(places[i].secret, secret, sizeof secret);
    }
    return s;
}

/* ---- the processes ------------------------------------------------------------------------------------------------- */

static status send_load(int fd, const engine_team_options *o, err *e)
{
    wire_load load = {.source = o->source, .model = o->model};
    sb frame;
    sb_init(&frame);
    wire_put_load(&frame, &load);
    status s = frame.failed ? err_set(e, STATUS_NO_MEMORY, "no memory for a message")
                            : os_send_all(fd, frame.data, frame.length, e);
    sb_fini(&frame);
    return s;
}

static status start_member(member *m, const engine_place *p, const engine_team_options *o, err *e)
{
    const char *argv[] = {o->program, "rank", NULL};
    sb_init(&m->incoming);
    status s = os_child_start(&m->child, argv, e);
    if (s != STATUS_OK)
        return s;
    m->started = true;
    s = engine_place_send(m->child.fd, p, e);
    if (s == STATUS_OK)
        s = send_load(m->child.fd, o, e);
    return s == STATUS_OK ? os_set_nonblocking(m->child.fd, true, e) : s;
}

/* Up to follower n; they are ours to end as soon as they are counted. */
static status start_members(engine_crew *c, const engine_place *places, int n,
                            const engine_team_options *o, err *e)
{
    status s = STATUS_OK;
    while (c->n < n && s == STATUS_OK) {
        c->n++;
        s = start_member(&c->of[c->n - 1], &places[c->n], o, e);
    }
    return s;
}

static void end_members(engine_crew *c, int n)
{
    while (c->n > n) {
        member *m = &c->of[--c->n];
        if (m->started) {
            os_child_kill(&m->child);
            os_child_close(&m->child);
        }
        sb_fini(&m->incoming);
        *m = (member){0};
    }
}

status engine_crew_start(engine_crew **out, engine_place *own, const engine_team_options *o, err *e)
{
    int n = engine_cut_ranks(&o->cut);
    REQUIRE(n >= 1 && n <= ENGINE_MOST_RANKS && o->cut.link != ENGINE_LINK_LOOP);
    engine_crew *c = base_zalloc(1, sizeof *c);
    engine_place *places = base_zalloc((size_t)n, sizeof *places);
    status s = c && places ? fill_places(places, o, e)
                           : err_set(e, STATUS_NO_MEMORY, "no memory for %d ranks", n);
    if (s == STATUS_OK)
        s = connect_all(places, n, e);
    if (s == STATUS_OK)
        s = start_members(c, places, n - 1, o, e);
    for (int i = s == STATUS_OK ? 1 : 0; places && i < n; i++)
        engine_place_close(&places[i]);
    if (s == STATUS_OK) {
        *own = places[0];
        *out = c;
    } else {
        engine_crew_destroy(c);
    }
    base_free(places);
    return s;
}

void engine_crew_destroy(engine_crew *c)
{
    if (!c)
        return;
    end_members(c, 0);
    base_free(c);
}

/* A place in the next epoch: the socket may be full of nothing, as all a follower gets there are such frames. */
static status send_next(member *m, const engine_place *p, err *e)
{
    status s = os_set_nonblocking(m->child.fd, false, e);
    if (s == STATUS_OK)
        s = place_send(m->child.fd, p, true, e);
    if (s == STATUS_OK)
        s = os_set_nonblocking(m->child.fd, true, e);
    return s;
}

status engine_crew_prepare(engine_crew **crew, engine_place *own, const engine_team_options *o,
                           err *e)
{
    int n = engine_cut_ranks(&o->cut);
    REQUIRE(n >= 1 && n <= ENGINE_MOST_RANKS && (n == 1 || o->cut.link != ENGINE_LINK_LOOP));
    engine_crew *c = *crew ? *crew : base_zalloc(1, sizeof *c);
    engine_place *places = base_zalloc((size_t)n, sizeof *places);
    *crew = c;
    status s = c && places ? fill_places(places, o, e)
                           : err_set(e, STATUS_NO_MEMORY, "no memory for %d ranks", n);
    if (c) {
        c->changing = true;
        c->n_old = c->n;
        c->n_new = n - 1;
    }
    if (s == STATUS_OK)
        s = connect_all(places, n, e);
    for (int i = 0; s == STATUS_OK && i < BASE_MIN(c->n_old, n - 1); i++)
        s = send_next(&c->of[i], &places[i + 1], e);
    if (s == STATUS_OK)
        s = start_members(c, places, n - 1, o, e);
    for (int i = s == STATUS_OK ? 1 : 0; places && i < n; i++)
        engine_place_close(&places[i]);
    if (s == STATUS_OK)
        *own = places[0];
    base_free(places);
    return s;
}

void engine_crew_settle(engine_crew *c, bool changed)
{
    if (!c->changing)
        return;
    int n = changed ? c->n_new : c->n_old;
    uint64_t until = os_now_us() + LEAVE_US;
    for (int i = n; changed && i < c->n; i++) /* they were told to end: a moment for it */
        while (os_now_us() < until && !os_child_ended(&c->of[i].child, (char[64]){0}))
            os_sleep_us(1000);
    end_members(c, n);
    c->changing = false;
}

int engine_crew_size(const engine_crew *c)
{
    return c->n;
}

int engine_crew_fd(const engine_crew *c, int i)
{
    return c->of[i].child.fd;
}

int engine_crew_pid(const engine_crew *c, int i)
{
    return c->of[i].child.pid;
}

int engine_crew_ready(const engine_crew *c, model_need *together)
{
    int n = 0;
    *together = (model_need){0};
    for (int i = 0; i < c->n; i++) {
        const member *m = &c->of[i];
        n += m->ready;
        together->weight_bytes += m->need.weight_bytes;
        together->state_bytes += m->need.state_bytes;
        together->scratch_bytes += m->need.scratch_bytes;
    }
    return n;
}

/* ---- what they say ------------------------------------------------------------------------------------------------- */

static status take_ready(member *m, const wire_frame *f, err *e)
{
    arena memory;
    wire_ready ready;
    arena_init(&memory, 0);
    status s = wire_get_ready(&ready, f, &memory, e);
    if (s == STATUS_OK) {
        m->ready = true;
        m->need = (model_need){.weight_bytes = ready.weight_bytes,
                               .state_bytes = ready.state_bytes,
                               .scratch_bytes = ready.scratch_bytes};
    }
    arena_fini(&memory);
    return s;
}

/* It says why it cannot go on: that is kept, and is the error. */
static status take_failed(member *m, int rank, const wire_frame *f, err *e)
{
    arena memory;
    wire_failed failed;
    arena_init(&memory, 0);
    status s = wire_get_failed(&failed, f, &memory, e);
    if (s == STATUS_OK) {
        m->failed = true;
        s = err_set(&m->why, failed.code, "rank %d: %s", rank, failed.text);
        if (e)
            *e = m->why;
    }
    arena_fini(&memory);
    return s;
}

static status take_frame(member *m, int rank, const wire_frame *f, err *e)
{
    uint32_t version;
    status s;
    switch (f->message) {
    case WIRE_HELLO:
        s = wire_get_hello(&version, f, e);
        if (s == STATUS_OK && version != WIRE_VERSION)
            s = err_set(e, STATUS_CONFLICT, "rank %d speaks version %u, expected %d", rank, version,
                        WIRE_VERSION);
        return s;
    case WIRE_READY:
        return take_ready(m, f, e);
    case WIRE_FAILED:
        return take_failed(m, rank, f, e);
    case WIRE_PROGRESS:
    case WIRE_STATS:
        return STATUS_OK;
    default:
        return err_set(e, STATUS_INVALID, "rank %d says message %d", rank, (int)f->message);
    }
}

static status take_frames(member *m, int rank, err *e)
{
    size_t at = 0;
    status s = STATUS_OK;
    while (s == STATUS_OK) {
        wire_frame frame;
        bool complete;
        s = wire_next(&frame, &complete, m->incoming.data + at, m->incoming.length - at, e);
        if (s != STATUS_OK || !complete)
            break;
        at += WIRE_HEADER + frame.bytes;
        s = take_frame(m, rank, &frame, e);
    }
    if (at > 0) {
        memmove(m->incoming.data, m->incoming.data + at, m->incoming.length - at);
        m->incoming.length -= at;
    }
    return s;
}

/* A dying process closes its socket a moment before its exit can be asked for. */
static status ended(member *m, int rank, err *e)
{
    char how[64] = "its socket closed";
    for (uint64_t waited = 0; !os_child_ended(&m->child, how) && waited < REAP_US; waited += 1000)
        os_sleep_us(1000);
    return err_set(e, STATUS_CLOSED, "rank %d ended (%s)", rank, how);
}

status engine_crew_hear(engine_crew *c, int i, err *e)
{
    member *m = &c->of[i];
    if (m->failed) {
        if (e)
            *e = m->why;
        return m->why.code;
    }
    for (;;) {
        size_t got;
        if (!sb_reserve(&m->incoming, PIECE))
            return err_set(e, STATUS_NO_MEMORY, "rank %d: no memory for its messages", i + 1);
        status s =
            os_try_recv(m->child.fd, m->incoming.data + m->incoming.length, PIECE, &got, NULL);
        if (s != STATUS_OK && c->changing && i >= c->n_new)
            return STATUS_OK; /* left out, and gone */
        if (s != STATUS_OK)
            return ended(m, i + 1, e);
        if (got == 0)
            return STATUS_OK;
        m->incoming.length += got;
        s = take_frames(m, i + 1, e);
        if (s != STATUS_OK)
            return s;
    }
}

/* How much a reason explains: a death explains what the others say, and they hear of each other's ends. */
static int weight_of(const member *m, status s)
{
    if (!m->failed)
        return 3;
    return s == STATUS_CLOSED || s == STATUS_TIMEOUT || s == STATUS_CANCELLED ? 1 : 2;
}

void engine_crew_why(engine_crew *c, uint64_t patience_us, err *e)
{
    int best = 0;
    for (uint64_t until = os_now_us() + patience_us; best < 3;) {
        for (int i = 0; i < c->n; i++) {
            err why = {0};
            status s = engine_crew_hear(c, i, &why);
            if (s == STATUS_OK || weight_of(&c->of[i], s) <= best)
                continue;
            best = weight_of(&c->of[i], s);
            *e = why;
        }
        if (os_now_us() >= until)
            return;
        os_sleep_us(2000);
    }
}
