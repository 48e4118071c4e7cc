/*
 * A group: moves frames over its connections. Every connection has a queue of frames to send and a queue of frames to receive, filled when
 * ops start; a frame of a later phase waits in its place until the phase before it is done, so the order on the wire is the order of starts
 * on both sides. One failure ends the group. Not here: which frames make a sum (ops.c), bytes of a transport (the back ends).
 */
#include "link/group.h"

#include <stdio.h>
#include <string.h>

#define DEFAULT_DEADLINE_US UINT64_C(60000000)
#define LONGEST_SLEEP_US    50000 /* an abort from another thread is seen after this */
#define SHORT_SLEEP_US      1000  /* poll counts in these: what is due sooner is awaited awake */
#define BLIND_SLEEP_US      50    /* between two looks at connections that cannot be polled */
#define FAREWELL_US         1000000
#define LOOKS_PER_CLOCK     32 /* empty looks between two looks at the clock, while spinning */
#define LOOKS_SHARED        96 /* the spinning, some microseconds, on a core that others want too */
#define SHARED_US           50000 /* so long a core counts as wanted */
#define SHARED_PART         16    /* when others had it for such a part of the time, and for */
#define SHARED_LEAST_US     500
#define ABSENT_US           1000000 /* longer between two looks: we were stopped, nobody was silent */

static uint64_t now_us(const link_group *g)
{
    return os_clock_now(g->config.clock);
}

static void queue_clear(link_queue *q)
{
    q->head = NULL;
    q->tail = &q->head;
}

static void queue_push(link_queue *q, link_item *item)
{
    item->next = NULL;
    *q->tail = item;
    q->tail = &item->next;
}

static void queue_pop(link_queue *q)
{
    q->head = q->head->next;
    if (!q->head)
        q->tail = &q->head;
}

static int n_ways(const link_group *g)
{
    return g->config.n_ranks * g->config.n_lanes;
}

/* ---- control frames -------------------------------------------------------------------------------------------- */

/* Replaces a control frame that has not begun: only the last matters. */
static void set_control(link_group *g, link_way *w, int kind, const void *payload, size_t n)
{
    link_header h = {.kind = (uint16_t)kind,
                     .bytes = (uint32_t)n,
                     .epoch = g->epoch,
                     .sequence = w->out_sequence};
    if (w->control_bytes == 0 || w->control_sent > 0)
        w->out_sequence++;
    else
        h.sequence--;
    link_header_write(w->control, &h);
    if (n)
        memcpy(w->control + LINK_HEADER_BYTES, payload, n);
    w->control_bytes = LINK_HEADER_BYTES + n;
    w->control_sent = 0;
}

static bool is_between_frames(const link_way *w)
{
    return !w->header_made && w->control_sent == 0;
}

static status push_control(link_group *g, link_way *w, bool *moved, err *e)
{
    link_part parts[2] = {{w->control + w->control_sent, w->control_bytes - w->control_sent},
                          {NULL, 0}};
    size_t taken;
    status s = w->conn->ops->put(w->conn->self, parts, &taken, e);
    w->control_sent += taken;
    g->sent_bytes += taken;
    *moved |= taken > 0;
    if (s == STATUS_OK && w->control_sent == w->control_bytes)
        w->control_bytes = w->control_sent = 0;
    return s;
}

/* Best effort: where a frame is half under way the end of the connection must do. */
static void tell_abort(link_group *g, link_way *w)
{
    unsigned char payload[LINK_CONTROL_BYTES];
    size_t n = BASE_MIN(strlen(g->why.text), sizeof payload - 4);
    uint64_t again = UINT64_MAX;
    bool moved = false;
    if (!is_between_frames(w))
        return;
    base_store_u32(payload, (uint32_t)g->failed);
    memcpy(payload + 4, g->why.text, n);
    set_control(g, w, LINK_MESSAGE_ABORT, payload, 4 + n);
    if (push_control(g, w, &moved, NULL) == STATUS_OK)
        (void)w->conn->ops->pump(w->conn->self, &again, &moved, NULL);
}

void link_group_fail(link_group *g, status s, const char *text)
{
    if (g->failed != STATUS_OK)
        return;
    g->failed = err_set(&g->why, s, "%s", text);
    for (int i = 0; i < n_ways(g); i++) {
        link_way *w = &g->ways[i];
        if (!w->conn)
            continue;
        tell_abort(g, w);
        link_conn_close(w->conn);
        w->conn = NULL;
        queue_clear(&w->in);
        queue_clear(&w->out);
    }
    for (int i = 0; i < LINK_MAX_OPS; i++)
        if (g->ops[i].used && !g->ops[i].done) {
            g->ops[i].done = true;
            g->ops[i].result = s;
        }
    log_debug("link", "group of epoch %u.%u failed: %s", g->config.epoch.term,
              g->config.epoch.number, g->why.text);
}

static void fail_way(link_group *g, const link_way *w, status s, const err *e)
{
    char text[ERR_TEXT + 32];
    int index = (int)(w - g->ways);
    snprintf(text, sizeof text, "rank %d over %s: %s", index / g->config.n_lanes,
             link_conn_name(w->conn), e->text);
    link_group_fail(g, s, text);
}

/* ---- ops' bookkeeping ------------------------------------------------------------------------------------------ */

void link_op_fail_range(link_op *op)
{
    link_group_fail(op->group, STATUS_TOO_LARGE,
                    op->wire == LINK_WIRE_INT48
                        ? "a value or sum is out of range: multiples of 2^-24 below 2^23 fit int48"
                        : "a value or sum is out of range: |v| < 2^29 is exact");
}

static void settle(link_op *op)
{
    while (!op->done && op->left[op->phase] == 0) {
        if (!link_op_after(op, op->phase)) {
            link_op_fail_range(op);
            return;
        }
        if (++op->phase == op->n_phases) {
            op->done = true;
            op->result = STATUS_OK;
        }
    }
}

static void item_done(link_item *item)
{
    link_op *op = item->op;
    op->left[item->phase]--;
    settle(op);
}

status link_op_begin(link_op **out, link_group *g, int kind, int n_phases, err *e)
{
    if (g->failed != STATUS_OK)
        return link_group_status(g, e);
    for (int i = 0; i < LINK_MAX_OPS; i++) {
        link_op *op = &g->ops[i];
        if (op->used)
            continue;
        op->used = true;
        op->done = false;
        op->kind = op->code = (uint8_t)kind;
        op->phase = 0;
        op->n_phases = n_phases;
        op->n_items = 0;
        op->values = NULL;
        memset(op->left, 0, sizeof op->left[0] * (size_t)n_phases);
        op->deadline_us = g->config.deadline_us;
        op->until_us = now_us(g) + op->deadline_us;
        *out = op;
        return STATUS_OK;
    }
    return err_set(e, STATUS_BUSY, "%d ops are pending", LINK_MAX_OPS);
}

static void add_item(link_op *op, link_queue *q, link_item new)
{
    if (new.n == 0)
        return;
    REQUIRE(op->n_items < 4 * (op->group->config.n_ranks - 1));
    link_item *item = &op->items[op->n_items++];
    *item = new;
    item->op = op;
    op->left[new.phase]++;
    queue_push(q, item);
}

static link_way *way_to(link_op *op, int peer, int lane)
{
    return &op->group->ways[peer * op->group->config.n_lanes + lane];
}

void link_op_send(link_op *op, int phase, int peer, int lane, const void *bytes, size_t n)
{
    add_item(op, &way_to(op, peer, lane)->out,
             (link_item){.bytes = (unsigned char *)(uintptr_t)bytes,
                         .n = (uint32_t)n,
                         .phase = (uint8_t)phase,
                         .goes = true});
}

void link_op_recv(link_op *op, int phase, int peer, int lane, void *bytes, size_t n)
{
    add_item(op, &way_to(op, peer, lane)->in,
             (link_item){.bytes = bytes, .n = (uint32_t)n, .phase = (uint8_t)phase});
}

void link_op_recv_values(link_op *op, int phase, int peer, double *values, size_t n,
                         enum link_fate fate, bool guarded)
{
    add_item(op, &way_to(op, peer, 0)->in,
             (link_item){.values = values,
                         .n = (uint32_t)link_wire_bytes(op->wire, n),
                         .n_values = (uint32_t)n,
                         .phase = (uint8_t)phase,
                         .fate = (uint8_t)fate,
                         .guarded = guarded});
}

void link_op_commit(link_op *op)
{
    settle(op);
    if (!op->done)
        (void)link_group_progress(op->group);
}

bool link_op_done(const link_op *op)
{
    return op->done;
}

void link_op_patient(link_op *op)
{
    op->until_us = UINT64_MAX - 1;
}

void link_op_allow(link_op *op, uint64_t us)
{
    op->deadline_us = us;
    op->until_us = now_us(op->group) + us;
}

void link_op_due(link_op *op)
{
    op->until_us = now_us(op->group) + op->group->config.deadline_us;
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

static status push_data(link_group *g, link_way *w, bool *moved, err *e)
{
    link_item *item = w->out.head;
    if (!w->header_made) {
        link_header h = {.kind = LINK_MESSAGE_DATA,
                         .op = item->op->code,
                         .phase = item->phase,
                         .bytes = item->n,
                         .epoch = g->epoch,
                         .sequence = w->out_sequence++};
        link_header_write(w->header, &h);
        w->header_made = true;
        w->sent = 0;
    }
    size_t head = BASE_MIN(w->sent, (size_t)LINK_HEADER_BYTES), body = w->sent - head;
    link_part parts[2] = {{w->header + head, LINK_HEADER_BYTES - head},
                          {item->bytes + body, item->n - body}};
    size_t taken;
    status s = w->conn->ops->put(w->conn->self, parts, &taken, e);
    if (s != STATUS_OK)
        return s;
    w->sent += taken;
    item->gone = (uint32_t)(w->sent - BASE_MIN(w->sent, (size_t)LINK_HEADER_BYTES));
    g->sent_bytes += taken;
    *moved |= taken > 0;
    if (w->sent == LINK_HEADER_BYTES + (size_t)item->n) {
        w->header_made = false;
        queue_pop(&w->out);
        item_done(item);
    }
    return STATUS_OK;
}

static status push(link_group *g, link_way *w, bool *moved, err *e)
{
    for (;;) {
        bool some = false;
        status s = STATUS_OK;
        const link_item *item = w->out.head;
        w->blocked = false;
        if (w->control_bytes && !w->header_made)
            s = push_control(g, w, &some, e);
        else if (item && (w->header_made || (w->welcomed && item->phase <= item->op->phase)))
            s = push_data(g, w, &some, e);
        else
            return STATUS_OK;
        w->blocked = !some;
        *moved |= some;
        if (s != STATUS_OK || !some || g->failed != STATUS_OK)
            return s;
    }
}

/* ---- receiving ------------------------------------------------------------------------------------------------- */

static status check_data(const link_way *w, err *e)
{
    const link_header *h = &w->coming;
    link_item *item = w->in.head;
    bool blocks = item->fate != LINK_FATE_BYTES && item->op->wire == LINK_WIRE_BLOCKS;
    if (blocks && h->bytes < item->n)
        item->n = h->bytes;
    if (h->op != item->op->code || h->phase != item->phase || h->bytes != item->n)
        return err_set(e, STATUS_CORRUPT,
                       "frame %u is op %02x phase %u of %u bytes, expected op %02x phase %u of %u",
                       h->sequence, h->op, h->phase, h->bytes, item->op->code, item->phase,
                       item->n);
    return STATUS_OK;
}

static status check_header(const link_group *g, link_way *w, err *e)
{
    status s = link_header_read(&w->coming, w->in_header, e);
    if (s != STATUS_OK)
        return s;
    const link_header *h = &w->coming;
    bool is_first = !w->welcomed;
    if (is_first && h->kind != LINK_MESSAGE_HELLO && h->kind != LINK_MESSAGE_ABORT)
        return err_set(e, STATUS_CORRUPT, "a frame of kind %u before the handshake", h->kind);
    if (!is_first && h->kind == LINK_MESSAGE_HELLO)
        return err_set(e, STATUS_CORRUPT, "a second handshake");
    /* another epoch's HELLO and ABORT are read, for they say more */
    if (!is_first && h->epoch != g->epoch)
        return err_set(e, STATUS_CONFLICT, "a frame of epoch %u.%u (%s), expected %u.%u",
                       (unsigned)(h->epoch >> 32), (unsigned)h->epoch,
                       h->epoch < g->epoch ? "older" : "newer", (unsigned)(g->epoch >> 32),
                       (unsigned)g->epoch);
    if (h->sequence != w->in_sequence)
        return err_set(e, STATUS_CORRUPT, "frame %u came where %u was expected", h->sequence,
                       w->in_sequence);
    if (w->said_goodbye)
        return err_set(e, STATUS_CORRUPT, "a frame after the end");
    if (h->kind == LINK_MESSAGE_DATA ? h->bytes == 0 : h->bytes > LINK_CONTROL_BYTES)
        return err_set(e, STATUS_CORRUPT, "a frame of kind %u with %u bytes", h->kind, h->bytes);
    w->in_sequence++;
    return STATUS_OK;
}

static status aborted_by_peer(const link_way *w, err *e)
{
    char text[LINK_CONTROL_BYTES];
    size_t n = w->coming.bytes < 4 ? 0 : w->coming.bytes - 4;
    uint32_t code = w->coming.bytes < 4 ? STATUS_COUNT : base_load_u32(w->in_control);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = w->in_control[4 + i];
        text[i] = (char)(c >= ' ' && c < 127 ? c : '?');
    }
    text[n] = 0;
    status s = code > STATUS_OK && code < STATUS_COUNT ? (status)code : STATUS_CANCELLED;
    return err_set(e, s, "it ended the group: %s", text);
}

static status handle_control(link_group *g, link_way *w, err *e)
{
    int index = (int)(w - g->ways);
    unsigned char expected[LINK_HELLO_BYTES];
    status s;
    switch (w->coming.kind) {
    case LINK_MESSAGE_HELLO:
        link_hello_write(expected, &g->config, index / g->config.n_lanes,
                         index % g->config.n_lanes);
        s = link_hello_check(w->in_control, w->coming.bytes, expected, e);
        if (s != STATUS_OK)
            return s;
        w->welcomed = true;
        g->ready = ++g->n_welcomed == g->n_peers;
        return STATUS_OK;
    case LINK_MESSAGE_GOODBYE:
        w->said_goodbye = true;
        return STATUS_OK;
    default:
        return aborted_by_peer(w, e);
    }
}

/* Where the next bytes belong; n 0: nothing is wanted now (data that no op has asked for yet waits in the connection). */
static void *place(link_way *w, size_t *n)
{
    if (!w->header_read) {
        *n = LINK_HEADER_BYTES - w->got;
        return w->in_header + w->got;
    }
    if (w->coming.kind != LINK_MESSAGE_DATA) {
        *n = w->coming.bytes - w->got;
        return w->in_control + w->got;
    }
    if (!w->in.head || w->in.head->fate != LINK_FATE_BYTES) {
        *n = w->in.head ? link_values_wanted(w) : 0;
        return NULL;
    }
    *n = w->coming.bytes - w->got;
    return w->in.head->bytes + w->got;
}

/* Something is complete: the header, a control frame or a frame of data. */
static status complete(link_group *g, link_way *w, err *e)
{
    status s = STATUS_OK;
    w->got = 0;
    if (!w->header_read) {
        s = check_header(g, w, e);
        w->header_read = s == STATUS_OK;
        if (s == STATUS_OK && w->coming.kind != LINK_MESSAGE_DATA && w->coming.bytes == 0)
            return complete(g, w, e);
        return s;
    }
    w->header_read = false;
    if (w->coming.kind != LINK_MESSAGE_DATA)
        return handle_control(g, w, e);
    link_item *item = w->in.head;
    queue_pop(&w->in);
    item_done(item);
    return s;
}

static status pull(link_group *g, link_way *w, bool *moved, err *e)
{
    for (;;) {
        size_t n, got;
        if (w->header_read && w->coming.kind == LINK_MESSAGE_DATA && w->in.head && w->got == 0) {
            status s = check_data(w, e);
            if (s != STATUS_OK)
                return s;
        }
        void *to = place(w, &n);
        if (n == 0)
            return STATUS_OK;
        status s;
        if (!to) {
            s = link_values_pull(w, moved, e);
            if (s != STATUS_OK || g->failed != STATUS_OK || w->got < w->coming.bytes)
                return s;
        } else {
            s = w->conn->ops->take(w->conn->self, to, n, &got, e);
            if (s == STATUS_CLOSED && w->said_goodbye && !w->in.head)
                return STATUS_OK; /* the end that was announced */
            if (s != STATUS_OK)
                return s;
            w->got += got;
            *moved |= got > 0;
            if (got < n)
                return STATUS_OK;
        }
        s = complete(g, w, e);
        if (s != STATUS_OK || g->failed != STATUS_OK)
            return s;
    }
}

/* ---- driving --------------------------------------------------------------------------------------------------- */

static void check_deadlines(link_group *g, uint64_t now)
{
    if (!g->ready && now > g->hello_until_us) {
        link_group_fail(g, STATUS_TIMEOUT, "the handshake did not end in time");
        return;
    }
    for (int i = 0; i < LINK_MAX_OPS; i++) {
        const link_op *op = &g->ops[i];
        if (!op->used || op->done || now <= op->until_us)
            continue;
        char text[160];
        int silent = -1;
        for (int w = 0; w < n_ways(g); w++)
            if (g->ways[w].in.head && silent < 0)
                silent = w / g->config.n_lanes;
        snprintf(text, sizeof text, "an op was not done in %.3g s; rank %d is waited for",
                 (double)op->deadline_us / 1e6, silent);
        link_group_fail(g, STATUS_TIMEOUT, text);
        return;
    }
}

static bool progress(link_group *g, uint64_t *again_us, bool look_at_clock)
{
    bool moved = false;
    if (atomic_load_explicit(&g->abort_asked, memory_order_acquire) == 2)
        link_group_fail(g, g->abort_status, g->abort_text);
    for (int i = 0; i < n_ways(g) && g->failed == STATUS_OK; i++) {
        link_way *w = &g->ways[i];
        if (!w->conn)
            continue;
        err e;
        err_clear(&e);
        status s = w->conn->ops->pump(w->conn->self, again_us, &moved, &e);
        if (s == STATUS_OK)
            s = push(g, w, &moved, &e);
        status of_sending = s;
        /* what came before the end says more than the end: an ABORT with its reason */
        if ((s == STATUS_OK || s == STATUS_CLOSED) && g->failed == STATUS_OK) {
            err of_pull;
            err_clear(&of_pull);
            s = pull(g, w, &moved, &of_pull);
            if (s != STATUS_OK)
                e = of_pull;
            else
                s = of_sending;
        }
        if (s == STATUS_CLOSED && w->said_goodbye && !w->in.head && !w->out.head)
            continue;
        if (s != STATUS_OK && g->failed == STATUS_OK)
            fail_way(g, w, s, &e);
    }
    if (g->failed == STATUS_OK && !moved && look_at_clock)
        check_deadlines(g, now_us(g));
    return moved;
}

bool link_group_progress(link_group *g)
{
    uint64_t again = UINT64_MAX;
    return progress(g, &again, true);
}

static void disarm(link_group *g, int n)
{
    for (int i = 0; i < n; i++)
        if (g->ways[i].conn)
            g->ways[i].conn->ops->disarm(g->ways[i].conn->self);
}

/* Until something may have happened. */
static void sleep_a_while(link_group *g, uint64_t again_us)
{
    os_interest interests[128];
    size_t n = 0;
    bool blind = false;
    int i;
    if (again_us != UINT64_MAX && again_us < now_us(g) + SHORT_SLEEP_US)
        return;
    for (i = 0; i < n_ways(g); i++) {
        link_way *w = &g->ways[i];
        size_t wanted;
        if (!w->conn)
            continue;
        (void)place(w, &wanted);
        os_interest want = {
            .fd = -1, .read = wanted > 0 && !(w->said_goodbye && !w->in.head), .write = w->blocked};
        if (!want.read && !want.write && w->welcomed)
            continue;
        if (!w->conn->ops->arm(w->conn->self, &want)) {
            disarm(g, i);
            return;
        }
        blind |= want.fd < 0 || n == BASE_COUNT(interests);
        if (want.fd >= 0 && (want.read || want.write) && n < BASE_COUNT(interests))
            interests[n++] = want;
    }
    uint64_t now = now_us(g), span = blind ? BLIND_SLEEP_US : LONGEST_SLEEP_US;
    uint64_t left = again_us > now ? again_us - now : 0;
    if (left < span) /* rather too early than too late: poll rounds up */
        span = left / SHORT_SLEEP_US * SHORT_SLEEP_US;
    if (n == 0)
        os_sleep_us(span);
    else if (os_wait_any(interests, n, span, NULL) != STATUS_OK)
        os_sleep_us(span);
    disarm(g, i);
}

static uint64_t nearest_deadline(const link_group *g)
{
    uint64_t until = g->ready ? UINT64_MAX : g->hello_until_us;
    for (int i = 0; i < LINK_MAX_OPS; i++)
        if (g->ops[i].used && !g->ops[i].done)
            until = BASE_MIN(until, g->ops[i].until_us + 1);
    return until;
}

/* Does something else want our core? Then the system takes it away from us now and then, for milliseconds, and perhaps our peer waits for it.
 * What takes it for microseconds, as the system's own threads do a hundred times a second, is no reason to stop spinning. */
static bool is_core_shared(link_group *g, uint64_t now)
{
    uint64_t preemptions = os_thread_preemptions();
    if (preemptions != g->preemptions) {
        uint64_t delay = os_thread_delay_us(), lost = delay - g->delay_us;
        bool unknown = delay == UINT64_MAX;
        if (unknown || (lost >= SHARED_LEAST_US && lost >= (now - g->looked_us) / SHARED_PART))
            g->shared_until_us = now + SHARED_US;
        g->preemptions = preemptions;
        g->delay_us = delay;
        g->looked_us = now;
    }
    return now < g->shared_until_us;
}

/* Deadlines move by the time in which we could not see anything. */
static void forgive_absence(link_group *g, uint64_t gap)
{
    if (gap < ABSENT_US || g->config.clock)
        return;
    for (int i = 0; i < LINK_MAX_OPS; i++)
        if (g->ops[i].used && !g->ops[i].done && g->ops[i].until_us < UINT64_MAX - 1 - gap)
            g->ops[i].until_us += gap;
}

/* Drives the group until *done or failure: spins, then sleeps; on a core that others want it sleeps after some microseconds, for who sleeps
 * is woken at once, and who spins is taken the core away when he needs it. The clock is looked at now and then only: a look at it costs as
 * much as one at a connection. */
static void drive(link_group *g, const bool *done)
{
    uint64_t idle_since = 0, looked_us = 0;
    unsigned looks = 0;
    while (!*done && g->failed == STATUS_OK) {
        uint64_t again = UINT64_MAX;
        bool timed = g->config.spin_us == 0 || looks % LOOKS_PER_CLOCK == LOOKS_PER_CLOCK - 1;
        if (timed && looked_us)
            forgive_absence(g, os_now_us() - looked_us);
        if (progress(g, &again, timed)) {
            idle_since = looks = 0;
            continue;
        }
        looks++;
        if (!timed || *done || g->failed != STATUS_OK)
            continue;
        uint64_t now = os_now_us();
        if (!idle_since)
            idle_since = now;
        looked_us = now;
        if (now - idle_since >= g->config.spin_us ||
            (looks >= LOOKS_SHARED && is_core_shared(g, now)))
            sleep_a_while(g, BASE_MIN(again, nearest_deadline(g)));
    }
}

status link_op_wait(link_op *op, err *e)
{
    link_group *g = op->group;
    REQUIRE(op->used);
    drive(g, &op->done);
    status s = op->result;
    op->used = false;
    if (s != STATUS_OK)
        (void)link_group_status(g, e);
    return s;
}

status link_group_wait(link_group *g, err *e)
{
    drive(g, &g->ready);
    return link_group_status(g, e);
}

bool link_group_ready(const link_group *g)
{
    return g->ready;
}

status link_group_status(const link_group *g, err *e)
{
    if (g->failed != STATUS_OK)
        return err_set(e, g->failed, "%s", g->why.text);
    return STATUS_OK;
}

uint64_t link_group_sent_bytes(const link_group *g)
{
    return g->sent_bytes;
}

void link_group_abort(link_group *g, status why, const char *text)
{
    int none = 0;
    if (!atomic_compare_exchange_strong(&g->abort_asked, &none, 1))
        return;
    g->abort_status = why == STATUS_OK ? STATUS_CANCELLED : why;
    snprintf(g->abort_text, sizeof g->abort_text, "%s", text);
    atomic_store_explicit(&g->abort_asked, 2, memory_order_release);
}

/* ---- beginning and end ----------------------------------------------------------------------------------------- */

static void free_group(link_group *g)
{
    for (int i = 0; i < LINK_MAX_OPS; i++) {
        base_free(g->ops[i].items);
        base_free(g->ops[i].scratch);
    }
    for (int i = 0; g->ways && i < n_ways(g); i++)
        base_free(g->ways[i].stage);
    base_free(g->ways);
    base_free(g);
}

static link_group *allocate(const link_group_config *c)
{
    link_group *g = base_zalloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->config = *c;
    bool good = (g->ways = base_zalloc((size_t)n_ways(g), sizeof *g->ways)) != NULL;
    for (int r = 0; r < c->n_ranks && good; r++)
        good =
            r == c->rank || (g->ways[r * c->n_lanes].stage = base_alloc(LINK_STAGE_BYTES)) != NULL;
    for (int i = 0; i < LINK_MAX_OPS && good; i++) {
        g->ops[i].group = g;
        good = (g->ops[i].items = base_zalloc(4 * (size_t)c->n_ranks, sizeof(link_item))) != NULL;
    }
    if (good)
        return g;
    free_group(g);
    return NULL;
}

status link_group_create(link_group **out, const link_group_config *config, link_conn **conns,
                         err *e)
{
    const link_group_config *c = config;
    REQUIRE(c->n_ranks > 0 && c->n_ranks <= LINK_MAX_RANKS && c->rank >= 0 &&
            c->rank < c->n_ranks && c->n_lanes > 0 && c->n_lanes <= LINK_MAX_LANES);
    int n = c->n_ranks * c->n_lanes;
    link_group *g = allocate(c);
    if (!g) {
        for (int i = 0; i < n; i++)
            link_conn_close(conns[i]);
        return err_set(e, STATUS_NO_MEMORY, "a group of %d ranks", c->n_ranks);
    }
    if (!g->config.deadline_us)
        g->config.deadline_us = DEFAULT_DEADLINE_US;
    g->epoch = link_epoch_tag(c->epoch);
    g->hello_until_us = now_us(g) + (c->hello_us ? c->hello_us : g->config.deadline_us);
    for (int i = 0; i < n; i++) {
        link_way *w = &g->ways[i];
        unsigned char hello[LINK_HELLO_BYTES];
        bool is_own = i / c->n_lanes == c->rank;
        REQUIRE(is_own == (conns[i] == NULL));
        queue_clear(&w->in);
        queue_clear(&w->out);
        if (is_own)
            continue;
        w->conn = conns[i];
        g->n_peers++;
        link_hello_write(hello, &g->config, c->rank, i % c->n_lanes);
        set_control(g, w, LINK_MESSAGE_HELLO, hello, sizeof hello);
    }
    g->ready = g->n_peers == 0;
    *out = g;
    return STATUS_OK;
}

/* Sends what is held inside the connections; a peer that does not take it is not waited for longer than a second. */
static void farewell(link_group *g)
{
    bool real = g->config.clock == NULL;
    uint64_t until = os_now_us() + FAREWELL_US;
    for (int i = 0; i < n_ways(g); i++) {
        link_way *w = &g->ways[i];
        if (!w->conn || !is_between_frames(w))
            continue;
        if (w->welcomed && !w->said_goodbye)
            set_control(g, w, LINK_MESSAGE_GOODBYE, NULL, 0);
        for (;;) {
            uint64_t again = UINT64_MAX;
            bool moved = false;
            if (w->conn->ops->pump(w->conn->self, &again, &moved, NULL) != STATUS_OK ||
                (w->control_bytes && push_control(g, w, &moved, NULL) != STATUS_OK))
                break;
            if ((!w->control_bytes && w->conn->ops->idle(w->conn->self)) || !real ||
                os_now_us() > until)
                break;
            if (!moved)
                os_sleep_us(BLIND_SLEEP_US);
        }
    }
}

void link_group_destroy(link_group *g)
{
    if (!g)
        return;
    bool pending = false;
    for (int i = 0; i < LINK_MAX_OPS; i++)
        pending |= g->ops[i].used && !g->ops[i].done;
    if (pending)
        link_group_fail(g, STATUS_CANCELLED, "the group was given up with ops pending");
    if (g->failed == STATUS_OK)
        farewell(g);
    for (int i = 0; i < n_ways(g); i++)
        link_conn_close(g->ways[i].conn);
    free_group(g);
}
