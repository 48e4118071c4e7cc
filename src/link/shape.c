/*
 * shape: gives another connection the latency and bandwidth of a worse one. What is put waits in a ring with the time at which it may go
 * on; pump hands over what is due. Shapes what this side sends only: shape both ends. Not a model of loss or of queues in between.
 */
#include "link/inside.h"

#include <string.h>

#define RING_BYTES (1u << 20)
#define MARKS      1024

typedef struct mark {
    uint64_t end, due_us; /* bytes before `end` may go at due_us */
} mark;

typedef struct shape {
    link_conn *inner;
    os_clock *clock;
    uint64_t latency_us;
    double us_per_byte;
    double free_us;      /* when the wire is free again */
    uint64_t head, tail; /* bytes put and handed over so far */
    unsigned first_mark, n_marks;
    mark marks[MARKS];
    unsigned char ring[RING_BYTES];
} shape;

static status shape_put(void *self, const link_part parts[2], size_t *taken, err *e)
{
    (void)e;
    shape *s = self;
    *taken = 0;
    if (s->n_marks == MARKS || RING_BYTES - (s->head - s->tail) < LINK_HEADER_BYTES)
        return STATUS_OK;
    for (int p = 0; p < 2; p++) {
        size_t n = BASE_MIN(parts[p].n, (size_t)(RING_BYTES - (s->head - s->tail)));
        for (size_t done = 0; done < n;) {
            size_t at = (size_t)(s->head % RING_BYTES);
            size_t run = BASE_MIN(n - done, RING_BYTES - at);
            memcpy(s->ring + at, parts[p].bytes + done, run);
            s->head += run;
            done += run;
        }
        *taken += n;
        if (n < parts[p].n)
            break;
    }
    if (*taken == 0)
        return STATUS_OK;
    double now = (double)os_clock_now(s->clock);
    s->free_us = BASE_MAX(s->free_us, now) + (double)*taken * s->us_per_byte;
    s->marks[(s->first_mark + s->n_marks++) % MARKS] =
        (mark){s->head, (uint64_t)s->free_us + s->latency_us};
    return STATUS_OK;
}

static status shape_pump(void *self, uint64_t *again_us, bool *moved, err *e)
{
    shape *s = self;
    uint64_t now = os_clock_now(s->clock);
    while (s->n_marks > 0) {
        mark *m = &s->marks[s->first_mark];
        if (m->due_us > now) {
            *again_us = BASE_MIN(*again_us, m->due_us);
            break;
        }
        size_t at = (size_t)(s->tail % RING_BYTES), taken;
        size_t n = BASE_MIN((size_t)(m->end - s->tail), RING_BYTES - at);
        link_part parts[2] = {{s->ring + at, n}, {s->ring, (size_t)(m->end - s->tail) - n}};
        status r = s->inner->ops->put(s->inner->self, parts, &taken, e);
        if (r != STATUS_OK)
            return r;
        if (taken == 0)
            break;
        *moved = true;
        s->tail += taken;
        if (s->tail == m->end) {
            s->first_mark = (s->first_mark + 1) % MARKS;
            s->n_marks--;
        }
    }
    return s->inner->ops->pump(s->inner->self, again_us, moved, e);
}

static status shape_take(void *self, void *to, size_t n, size_t *got, err *e)
{
    shape *s = self;
    return s->inner->ops->take(s->inner->self, to, n, got, e);
}

static bool shape_arm(void *self, os_interest *out)
{
    shape *s = self;
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
    return s->n_marks == 0 && s->inner->ops->idle(s->inner->self);
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
