/*
 * loop: connections inside one process. A net holds one ring of bytes per direction, pair and lane, under one lock. It reads the headers
 * of frames as they pass, so that a fault can be ordered for the n-th of them; with a virtual clock everything that happens is a function
 * of the order of calls. Not fast, and nothing can be polled: waiting is looking again.
 */
#include "link/inside.h"

#include <string.h>

typedef struct ring {
    unsigned char *bytes;
    uint64_t head, tail;            /* put and taken so far */
    uint64_t held_from, held_until; /* what is behind held_from comes at held_until */
    uint64_t frame_left;            /* of the frame under way */
    uint64_t frames;
    uint64_t end; /* the connection is cut when head gets there */
    bool dropping, cut, writer_gone, reader_gone;
    bool opened; /* its writing end */
} ring;

struct link_loop {
    os_mutex *mutex;
    os_clock *clock;
    int n_ranks;
    size_t capacity;
    link_fault fault;
    ring *rings; /* [from, to, lane] */
    uint64_t sent[LINK_MAX_RANKS];
};

typedef struct loop_end {
    link_loop *net;
    ring *out, *in;
    int rank, peer;
} loop_end;

static ring *ring_of(link_loop *l, int from, int to, int lane)
{
    return &l->rings[((size_t)from * (size_t)l->n_ranks + (size_t)to) * LINK_MAX_LANES +
                     (size_t)lane];
}

status link_loop_create(link_loop **out, int n_ranks, size_t capacity, os_clock *clock, err *e)
{
    REQUIRE(n_ranks > 0 && n_ranks <= LINK_MAX_RANKS && capacity >= LINK_HEADER_BYTES);
    link_loop *l = base_zalloc(1, sizeof *l);
    if (!l)
        return err_set(e, STATUS_NO_MEMORY, "a loop of %d ranks", n_ranks);
    l->n_ranks = n_ranks;
    l->capacity = capacity;
    l->clock = clock;
    l->rings = base_zalloc((size_t)n_ranks * (size_t)n_ranks * LINK_MAX_LANES, sizeof(ring));
    status s = l->rings ? os_mutex_create(&l->mutex, e)
                        : err_set(e, STATUS_NO_MEMORY, "a loop of %d ranks", n_ranks);
    if (s != STATUS_OK) {
        base_free(l->rings);
        base_free(l);
        return s;
    }
    *out = l;
    return STATUS_OK;
}

void link_loop_destroy(link_loop *l)
{
    if (!l)
        return;
    size_t n = (size_t)l->n_ranks * (size_t)l->n_ranks * LINK_MAX_LANES;
    for (size_t i = 0; i < n; i++)
        base_free(l->rings[i].bytes);
    os_mutex_destroy(l->mutex);
    base_free(l->rings);
    base_free(l);
}

void link_loop_fault(link_loop *l, link_fault fault)
{
    os_mutex_lock(l->mutex);
    l->fault = fault;
    os_mutex_unlock(l->mutex);
}

static void cut_rank(link_loop *l, int rank)
{
    for (int other = 0; other < l->n_ranks; other++)
        for (int lane = 0; lane < LINK_MAX_LANES; lane++) {
            ring_of(l, rank, other, lane)->cut = true;
            ring_of(l, other, rank, lane)->cut = true;
        }
}

/* The ordered fault strikes as this frame of `total` bytes begins. */
static void strike(loop_end *end, uint64_t total)
{
    link_loop *l = end->net;
    ring *out = end->out;
    uint64_t now = os_clock_now(l->clock);
    switch (l->fault.kind) {
    case LINK_FAULT_LOSS:
        out->dropping = true;
        break;
    case LINK_FAULT_DELAY:
        out->held_from = out->head;
        out->held_until = now + l->fault.delay_us;
        break;
    case LINK_FAULT_STALL:
        out->held_from = out->head;
        out->held_until = UINT64_MAX;
        break;
    case LINK_FAULT_RESET:
        out->cut = end->in->cut = true;
        break;
    case LINK_FAULT_CUT:
        out->end = out->head + total / 2;
        break;
    case LINK_FAULT_DEATH:
        cut_rank(l, end->rank);
        break;
    case LINK_FAULT_FLIP: /* in store_frame */
    case LINK_FAULT_NONE:
    case LINK_FAULT_COUNT:
        break;
    }
}

static bool is_struck(const loop_end *end, uint64_t frame, uint64_t frame_of_rank)
{
    const link_fault *f = &end->net->fault;
    if (f->kind == LINK_FAULT_NONE || f->from != end->rank)
        return false;
    return f->to < 0 ? f->frame == frame_of_rank : f->to == end->peer && f->frame == frame;
}

static void copy_in(link_loop *l, ring *r, const unsigned char *bytes, size_t n)
{
    while (n > 0) {
        size_t at = (size_t)(r->head % l->capacity), run = BASE_MIN(n, l->capacity - at);
        memcpy(r->bytes + at, bytes, run);
        r->head += run;
        bytes += run;
        n -= run;
    }
}

/* Looks at the header of a frame that begins; returns whether a bit of it is to be flipped. */
static bool begin_frame(loop_end *end, const link_part parts[2])
{
    unsigned char header[LINK_HEADER_BYTES];
    size_t first = BASE_MIN(parts[0].n, sizeof header);
    memcpy(header, parts[0].bytes, first);
    if (first < sizeof header)
        memcpy(header + first, parts[1].bytes, sizeof header - first);
    ring *out = end->out;
    out->frame_left = LINK_HEADER_BYTES + (uint64_t)base_load_u32(header + 4);
    bool struck = is_struck(end, out->frames, end->net->sent[end->rank]);
    out->frames++;
    end->net->sent[end->rank]++;
    if (struck)
        strike(end, out->frame_left);
    return struck && end->net->fault.kind == LINK_FAULT_FLIP;
}

static status put_locked(loop_end *end, const link_part parts[2], size_t *taken, err *e)
{
    link_loop *l = end->net;
    ring *out = end->out;
    if (!out->bytes)
        return err_set(e, STATUS_INTERNAL, "a ring that was not opened");
    size_t space = l->capacity - (size_t)(out->head - out->tail);
    bool begins = out->frame_left == 0, flip = false;
    if (begins && space < LINK_HEADER_BYTES && !out->cut)
        return STATUS_OK;
    if (begins && !out->cut && !out->reader_gone)
        flip = begin_frame(end, parts);
    if (out->cut || out->reader_gone)
        return err_set(e, STATUS_CLOSED, "the other side is gone");
    uint64_t place = out->head;
    for (int p = 0; p < 2; p++) {
        size_t n = parts[p].n;
        if (!out->dropping) {
            n = BASE_MIN(n, l->capacity - (size_t)(out->head - out->tail));
            if (out->end)
                n = BASE_MIN(n, (size_t)(out->end - out->head));
            copy_in(l, out, parts[p].bytes, n);
        }
        *taken += n;
        if (n < parts[p].n)
            break;
    }
    if (flip) /* another byte of the header in every frame */
        out->bytes[(place + (out->frames - 1) * 5 % LINK_HEADER_BYTES) % l->capacity] ^= 1;
    out->frame_left -= BASE_MIN(out->frame_left, (uint64_t)*taken);
    if (out->frame_left == 0)
        out->dropping = false;
    if (out->end && out->head == out->end) {
        out->writer_gone = end->in->cut = true;
        out->reader_gone = true;
    }
    return STATUS_OK;
}

static status loop_put(void *self, const link_part parts[2], size_t *taken, err *e)
{
    loop_end *end = self;
    *taken = 0;
    os_mutex_lock(end->net->mutex);
    status s = put_locked(end, parts, taken, e);
    os_mutex_unlock(end->net->mutex);
    return s;
}

static status loop_take(void *self, void *to, size_t n, size_t *got, err *e)
{
    loop_end *end = self;
    link_loop *l = end->net;
    ring *in = end->in;
    unsigned char *at = to;
    status s = STATUS_OK;
    *got = 0;
    os_mutex_lock(l->mutex);
    uint64_t last = in->head;
    if (in->held_until && os_clock_now(l->clock) < in->held_until)
        last = in->held_from;
    if (in->cut || (in->writer_gone && in->tail == in->head))
        s = err_set(e, STATUS_CLOSED, "the other side is gone");
    while (s == STATUS_OK && *got < n && in->tail < last) {
        size_t place = (size_t)(in->tail % l->capacity);
        size_t run = BASE_MIN(n - *got, l->capacity - place);
        run = BASE_MIN(run, (size_t)(last - in->tail));
        memcpy(at + *got, in->bytes + place, run);
        in->tail += run;
        *got += run;
    }
    os_mutex_unlock(l->mutex);
    return s;
}

static status loop_pump(void *self, uint64_t *again_us, bool *moved, err *e)
{
    (void)moved;
    (void)e;
    loop_end *end = self;
    os_mutex_lock(end->net->mutex);
    if (end->in->held_until > os_clock_now(end->net->clock))
        *again_us = BASE_MIN(*again_us, end->in->held_until);
    os_mutex_unlock(end->net->mutex);
    return STATUS_OK;
}

static bool loop_arm(void *self, os_interest *out)
{
    (void)self;
    out->fd = -1;
    return true;
}

static void loop_disarm(void *self)
{
    (void)self;
}

static bool loop_idle(void *self)
{
    (void)self;
    return true;
}

static void loop_close(void *self)
{
    loop_end *end = self;
    os_mutex_lock(end->net->mutex);
    end->out->writer_gone = true;
    end->in->reader_gone = true;
    os_mutex_unlock(end->net->mutex);
    base_free(end);
}

static const link_backend backend = {
    .name = "loop",
    .caps = LINK_SAME_HOST,
    .put = loop_put,
    .take = loop_take,
    .pump = loop_pump,
    .arm = loop_arm,
    .disarm = loop_disarm,
    .idle = loop_idle,
    .close = loop_close,
};

status link_loop_open(link_conn **out, link_loop *l, int rank, int peer, int lane, err *e)
{
    REQUIRE(rank >= 0 && rank < l->n_ranks && peer >= 0 && peer < l->n_ranks && rank != peer);
    REQUIRE(lane >= 0 && lane < LINK_MAX_LANES);
    loop_end *end = base_zalloc(1, sizeof *end);
    unsigned char *first = base_alloc(l->capacity), *second = base_alloc(l->capacity);
    if (!end || !first || !second) {
        base_free(end);
        base_free(first);
        base_free(second);
        return err_set(e, STATUS_NO_MEMORY, "a loop of %zu bytes", l->capacity);
    }
    *end = (loop_end){l, ring_of(l, rank, peer, lane), ring_of(l, peer, rank, lane), rank, peer};
    os_mutex_lock(l->mutex);
    REQUIRE(!end->out->opened);
    end->out->opened = true;
    if (!end->out->bytes) {
        end->out->bytes = first;
        first = NULL;
    }
    if (!end->in->bytes) {
        end->in->bytes = second;
        second = NULL;
    }
    os_mutex_unlock(l->mutex);
    base_free(first);
    base_free(second);
    return link_conn_create(out, &backend, end, e);
}
