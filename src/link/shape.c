/*
 * shape: gives another connection the latency and bandwidth of a worse one. What is put goes on at once, in chunks that say when they may be
 * taken; the other side holds them back until then. So a frame is under way while its sender computes or sleeps, as on a wire. Both sides
 * must be shaped and have the same clock. Not a model of loss, or of queues in between.
 *
 *   chunk   magic u32, n u32, due_us u64, 0 u64, then n bytes: to a back end that looks at frames it looks like one
 */
#include "link/inside.h"

#include <string.h>

#define RING_BYTES  (1u << 20) /* that came and may not be taken yet; more waits in the connection */
#define MARKS       1024
#define CHUNK_BYTES (16u << 10) /* at most: a long frame arrives bit by bit */
#define MAGIC       0x65706873u /* "shpe" */

typedef struct mark {
    uint64_t end, due_us; /* bytes before `end` may be taken at due_us */
} mark;

typedef struct shape {
    link_conn *inner;
    os_clock *clock;
    uint64_t latency_us;
    double us_per_byte;
    /* what goes */
    double free_us;    /* when the wire is free again */
    size_t chunk_left; /* of the chunk that was begun */
    /* what comes */
    uint64_t head, tail; /* bytes that came and were taken so far */
    unsigned first_mark, n_marks;
    mark marks[MARKS];
    unsigned char header[LINK_HEADER_BYTES];
    size_t header_got, chunk_missing;
    status ended;
    err why;
    unsigned char ring[RING_BYTES];
} shape;

/* ---- sending ------------------------------------------------------------------------------------------------------- */

/* A new chunk: its header with the first part, and the second; a first part that is longer than a header goes alone. */
static status begin_chunk(shape *s, const link_part parts[2], size_t *taken, err *e)
{
    unsigned char first[2 * LINK_HEADER_BYTES] = {0};
    bool both = parts[0].n <= LINK_HEADER_BYTES;
    size_t copied = both ? parts[0].n : 0, got;
    size_t n = BASE_MIN(parts[0].n + (both ? parts[1].n : 0), (size_t)CHUNK_BYTES);
    double start = BASE_MAX(s->free_us, (double)os_clock_now(s->clock));
    double end = start + (double)n * s->us_per_byte;
    base_store_u32(first, MAGIC);
    base_store_u32(first + 4, (uint32_t)n);
    base_store_u64(first + 8, (uint64_t)end + s->latency_us);
    if (copied > 0)
        memcpy(first + LINK_HEADER_BYTES, parts[0].bytes, copied);
    link_part now[2] = {{first, LINK_HEADER_BYTES + copied},
                        {parts[both ? 1 : 0].bytes, n - copied}};
    status r = s->inner->ops->put(s->inner->self, now, &got, e);
    if (r != STATUS_OK || got == 0)
        return r;
    if (got <
        LINK_HEADER_BYTES) /* back ends take a header whole, or nothing, or are cut inside it */
        return err_set(e, STATUS_CLOSED, "the other side is gone");
    *taken = got - LINK_HEADER_BYTES;
    s->chunk_left = n - *taken;
    s->free_us = end;
    return STATUS_OK;
}

static status shape_put(void *self, const link_part parts[2], size_t *taken, err *e)
{
    shape *s = self;
    *taken = 0;
    if (s->chunk_left == 0)
        return begin_chunk(s, parts, taken, e);
    link_part now[2] = {parts[0], parts[1]};
    now[0].n = BASE_MIN(now[0].n, s->chunk_left);
    now[1].n = BASE_MIN(now[1].n, s->chunk_left - now[0].n);
    status r = s->inner->ops->put(s->inner->self, now, taken, e);
    if (r == STATUS_OK)
        s->chunk_left -= *taken;
    return r;
}

/* ---- receiving ----------------------------------------------------------------------------------------------------- */

/* The header of the next chunk. *some: it is complete. */
static status take_header(shape *s, bool *some, err *e)
{
    size_t got;
    *some = false;
    status r = s->inner->ops->take(s->inner->self, s->header + s->header_got,
                                   LINK_HEADER_BYTES - s->header_got, &got, e);
    if (r != STATUS_OK)
        return r;
    s->header_got += got;
    if (s->header_got < LINK_HEADER_BYTES)
        return STATUS_OK;
    s->header_got = 0;
    s->chunk_missing = base_load_u32(s->header + 4);
    if (base_load_u32(s->header) != MAGIC || s->chunk_missing == 0 ||
        s->chunk_missing > CHUNK_BYTES)
        return err_set(e, STATUS_CORRUPT,
                       "a chunk of %zu bytes on a shaped connection, expected "
                       "1 to %u; is the other side shaped too?",
                       s->chunk_missing, CHUNK_BYTES);
    s->marks[(s->first_mark + s->n_marks++) % MARKS] =
        (mark){s->head + s->chunk_missing, base_load_u64(s->header + 8)};
    *some = true;
    return STATUS_OK;
}

static status take_body(shape *s, bool *some, err *e)
{
    size_t at = (size_t)(s->head % RING_BYTES), got;
    size_t room = BASE_MIN(RING_BYTES - (size_t)(s->head - s->tail), RING_BYTES - at);
    *some = false;
    if (room == 0)
        return STATUS_OK;
    status r = s->inner->ops->take(s->inner->self, s->ring + at, BASE_MIN(room, s->chunk_missing),
                                   &got, e);
    if (r != STATUS_OK)
        return r;
    s->head += got;
    s->chunk_missing -= got;
    *some = got > 0;
    return STATUS_OK;
}

/* All that has come. An end is kept until what came before it has been taken. */
static void fetch(shape *s)
{
    bool some = s->ended == STATUS_OK;
    while (some) {
        if (s->chunk_missing == 0 && s->n_marks == MARKS)
            return;
        s->ended = s->chunk_missing ? take_body(s, &some, &s->why) : take_header(s, &some, &s->why);
        some &= s->ended == STATUS_OK;
    }
}

/* Bytes that may be taken now; *again_us: lowered to when there will be more. */
static size_t due(shape *s, uint64_t *again_us)
{
    uint64_t now = os_clock_now(s->clock), end = s->tail;
    while (s->n_marks > 0 && s->marks[s->first_mark].end <= s->tail) {
        s->first_mark = (s->first_mark + 1) % MARKS;
        s->n_marks--;
    }
    for (unsigned i = 0; i < s->n_marks; i++) {
        const mark *m = &s->marks[(s->first_mark + i) % MARKS];
        if (m->due_us > now) {
            *again_us = BASE_MIN(*again_us, m->due_us);
            break;
        }
        end = BASE_MIN(m->end, s->head);
    }
    return (size_t)(end - s->tail);
}

static status shape_take(void *self, void *to, size_t n, size_t *got, err *e)
{
    shape *s = self;
    uint64_t again = UINT64_MAX;
    *got = 0;
    fetch(s);
    size_t ready = due(s, &again);
    ready = BASE_MIN(ready, n);
    if (ready == 0 && s->ended != STATUS_OK && s->head == s->tail) {
        if (e)
            *e = s->why;
        return s->ended;
    }
    while (*got < ready) {
        size_t at = (size_t)(s->tail % RING_BYTES);
        size_t run = BASE_MIN(ready - *got, RING_BYTES - at);
        memcpy((unsigned char *)to + *got, s->ring + at, run);
        s->tail += run;
        *got += run;
    }
    return STATUS_OK;
}

static status shape_pump(void *self, uint64_t *again_us, bool *moved, err *e)
{
    shape *s = self;
    status r = s->inner->ops->pump(s->inner->self, again_us, moved, e);
    fetch(s);
    (void)due(s, again_us);
    return r;
}

static bool shape_arm(void *self, os_interest *out)
{
    shape *s = self;
    out->read &= s->ended == STATUS_OK;
    return s->inner->ops->arm(s->inner->self, out);
}

static void shape_disarm(void *self)
{
    shape *s = self;
    s->inner->ops->disarm(s->inner->self);
}

static bool shape_idle(void *self)
{
    shape *s = self;
    return s->inner->ops->idle(s->inner->self);
}

static void shape_close(void *self)
{
    shape *s = self;
    link_conn_close(s->inner);
    base_free(s);
}

static const link_backend backend = {
    .name = "shape",
    .put = shape_put,
    .take = shape_take,
    .pump = shape_pump,
    .arm = shape_arm,
    .disarm = shape_disarm,
    .idle = shape_idle,
    .close = shape_close,
};

status link_shape_open(link_conn **out, link_conn *inner, uint64_t latency_us, double bytes_per_s,
                       os_clock *clock, err *e)
{
    shape *s = base_zalloc(1, sizeof *s);
    if (!s) {
        link_conn_close(inner);
        return err_set(e, STATUS_NO_MEMORY, "a shaped connection");
    }
    s->inner = inner;
    s->clock = clock;
    s->latency_us = latency_us;
    s->us_per_byte = bytes_per_s > 0 ? 1e6 / bytes_per_s : 0;
    return link_conn_create(out, &backend, s, e);
}
