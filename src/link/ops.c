/*
 * Ops as phases of frames. An op queues every frame of every phase when it starts; what has to be computed between phases (adding, packing)
 * is link_op_after. Because sums are exact, the three ways of summing give the same bits. Not here: moving frames (group.c).
 *
 * Sum over N ranks, part c of [0, n) = [n c / N, n (c + 1) / N):
 *   one shot  phase 0: all values to all; add what came.
 *   two shot  phase 0: part c to rank c; add to the own part. phase 1: the own part to all.
 *   ring      phases 0 … N−2: part r−s to the right, part r−s−1 from the left, add it. N−1 … 2N−3: the finished parts go round.
 */
#include "link/group.h"

#include <math.h>
#include <string.h>

#define RING_FROM_BYTES (256u << 10)

/* ---- which way ------------------------------------------------------------------------------------------------- */

link_sum_way link_sum_choose(int n_ranks, size_t n, link_wire wire, link_cost cost)
{
    if (n_ranks <= 2)
        return LINK_SUM_ONE_SHOT;
    double ranks = n_ranks, bytes = (double)n * (double)link_wire_bytes(wire);
    double part_us = 2 * (ranks - 1) / ranks * bytes * cost.us_per_byte;
    double one_us = cost.latency_us + (ranks - 1) * bytes * cost.us_per_byte;
    double two_us = 2 * cost.latency_us + part_us;
    /* a ring moves the same bytes in more steps, but from one neighbour at a time: for large sums, where steps no longer matter */
    double more_us = (2 * (ranks - 1) - 2) * cost.latency_us;
    if (one_us <= two_us)
        return LINK_SUM_ONE_SHOT;
    return bytes >= RING_FROM_BYTES && more_us <= 0.05 * part_us ? LINK_SUM_RING
                                                                 : LINK_SUM_TWO_SHOT;
}

/* ---- parts ----------------------------------------------------------------------------------------------------- */

static size_t part_begin(size_t n, int c, int n_ranks)
{
    return (size_t)((uint64_t)n / (uint64_t)n_ranks * (uint64_t)c +
                    (uint64_t)n % (uint64_t)n_ranks * (uint64_t)c / (uint64_t)n_ranks);
}

static size_t part_length(size_t n, int c, int n_ranks)
{
    return part_begin(n, c + 1, n_ranks) - part_begin(n, c, n_ranks);
}

static int wrap(int c, int n_ranks)
{
    return ((c % n_ranks) + n_ranks) % n_ranks;
}

/* The bytes on the wire of part c: inside the values themselves, or inside the packed copy at the front of scratch. */
static unsigned char *wire_part(const link_op *op, int c)
{
    size_t at = part_begin(op->n, c, op->group->config.n_ranks) * link_wire_bytes(op->wire);
    return op->wire == LINK_WIRE_F64 ? (unsigned char *)op->values + at : op->scratch + at;
}

static size_t part_bytes(const link_op *op, int c)
{
    return part_length(op->n, c, op->group->config.n_ranks) * link_wire_bytes(op->wire);
}

static unsigned char *incoming(const link_op *op)
{
    return op->scratch + (op->wire == LINK_WIRE_INT48 ? op->n * 6 : 0);
}

static bool pack_part(link_op *op, int c)
{
    int n_ranks = op->group->config.n_ranks;
    if (op->wire == LINK_WIRE_F64)
        return true;
    return link_pack48(wire_part(op, c), op->values + part_begin(op->n, c, n_ranks),
                       part_length(op->n, c, n_ranks));
}

static bool add_part(link_op *op, int c, const unsigned char *in)
{
    int n_ranks = op->group->config.n_ranks;
    return link_add(op->values + part_begin(op->n, c, n_ranks), in, part_length(op->n, c, n_ranks),
                    op->wire);
}

/* Parts of others that came finished, from their place on the wire into the values, and whether they are what they may be. */
static bool take_finished(link_op *op)
{
    link_group *g = op->group;
    for (int c = 0; c < g->config.n_ranks && op->wire == LINK_WIRE_INT48; c++)
        if (op->way == LINK_SUM_RING ? c != wrap(g->config.rank + 1, g->config.n_ranks)
                                     : c != g->config.rank)
            link_unpack48(op->values + part_begin(op->n, c, g->config.n_ranks), wire_part(op, c),
                          part_length(op->n, c, g->config.n_ranks));
    return link_in_range(op->values, op->n, op->wire);
}

/* ---- what follows a phase -------------------------------------------------------------------------------------- */

static bool after_one_shot(link_op *op)
{
    const unsigned char *in = incoming(op);
    for (int peer = 0; peer < op->group->config.n_ranks; peer++) {
        if (peer == op->group->config.rank)
            continue;
        if (!link_add(op->values, in, op->n, op->wire))
            return false;
        in += op->n * link_wire_bytes(op->wire);
    }
    return true;
}

static bool after_two_shot(link_op *op, int phase)
{
    int own = op->group->config.rank;
    const unsigned char *in = incoming(op);
    if (phase == 1)
        return take_finished(op);
    for (int peer = 0; peer < op->group->config.n_ranks; peer++) {
        if (peer == own)
            continue;
        if (!add_part(op, own, in))
            return false;
        in += part_bytes(op, own);
    }
    return pack_part(op, own);
}

static bool after_ring(link_op *op, int phase)
{
    int n_ranks = op->group->config.n_ranks, rank = op->group->config.rank;
    if (phase >= n_ranks - 1)
        return phase < op->n_phases - 1 || take_finished(op);
    const unsigned char *in = incoming(op);
    for (int s = 0; s < phase; s++)
        in += part_bytes(op, wrap(rank - s - 1, n_ranks));
    int c = wrap(rank - phase - 1, n_ranks);
    return add_part(op, c, in) && pack_part(op, c);
}

bool link_op_after(link_op *op, int phase)
{
    if (op->kind != LINK_OP_SUM_F64 && op->kind != LINK_OP_SUM_INT48)
        return true;
    if (op->n == 0 || op->group->config.n_ranks == 1)
        return true;
    return op->way == LINK_SUM_ONE_SHOT   ? after_one_shot(op)
           : op->way == LINK_SUM_TWO_SHOT ? after_two_shot(op, phase)
                                          : after_ring(op, phase);
}

/* ---- the frames of a sum --------------------------------------------------------------------------------------- */

static void queue_one_shot(link_op *op)
{
    size_t bytes = op->n * link_wire_bytes(op->wire);
    unsigned char *in = incoming(op);
    for (int peer = 0; peer < op->group->config.n_ranks; peer++) {
        if (peer == op->group->config.rank)
            continue;
        link_op_send(op, 0, peer, 0, wire_part(op, 0), bytes);
        link_op_recv(op, 0, peer, 0, in, bytes);
        in += bytes;
    }
}

static void queue_two_shot(link_op *op)
{
    int own = op->group->config.rank;
    unsigned char *in = incoming(op);
    for (int peer = 0; peer < op->group->config.n_ranks; peer++) {
        if (peer == own)
            continue;
        link_op_send(op, 0, peer, 0, wire_part(op, peer), part_bytes(op, peer));
        link_op_recv(op, 0, peer, 0, in, part_bytes(op, own));
        link_op_send(op, 1, peer, 0, wire_part(op, own), part_bytes(op, own));
        link_op_recv(op, 1, peer, 0, wire_part(op, peer), part_bytes(op, peer));
        in += part_bytes(op, own);
    }
}

static void queue_ring(link_op *op)
{
    int n_ranks = op->group->config.n_ranks, rank = op->group->config.rank;
    int right = wrap(rank + 1, n_ranks), left = wrap(rank - 1, n_ranks);
    unsigned char *in = incoming(op);
    for (int s = 0; s < 2 * (n_ranks - 1); s++) {
        bool adding = s < n_ranks - 1;
        int round = adding ? s : s - n_ranks; /* finished parts: r + 1 goes first, r comes first */
        int goes = wrap(rank - round, n_ranks), comes = wrap(goes - 1, n_ranks);
        link_op_send(op, s, right, 0, wire_part(op, goes), part_bytes(op, goes));
        link_op_recv(op, s, left, 0, adding ? in : wire_part(op, comes), part_bytes(op, comes));
        in += adding ? part_bytes(op, comes) : 0;
    }
}

static status get_scratch(link_op *op, size_t bytes, err *e)
{
    if (bytes <= op->scratch_bytes)
        return STATUS_OK;
    unsigned char *p = base_realloc(op->scratch, bytes);
    if (!p)
        return err_set(e, STATUS_NO_MEMORY, "%zu bytes for a sum", bytes);
    op->scratch = p;
    op->scratch_bytes = bytes;
    return STATUS_OK;
}

static size_t scratch_needed(const link_op *op, const link_group *g)
{
    size_t packed = op->wire == LINK_WIRE_INT48 ? op->n * 6 : 0;
    size_t copies = op->way == LINK_SUM_ONE_SHOT ? (size_t)g->config.n_ranks - 1 : 1;
    size_t own = op->way == LINK_SUM_TWO_SHOT ? (size_t)g->config.n_ranks : 1; /* rounding up */
    return packed + (copies * op->n + own) * link_wire_bytes(op->wire);
}

status link_sum_start(link_op **out, link_group *g, double *values, size_t n, link_wire wire,
                      link_sum_way way, err *e)
{
    int n_ranks = g->config.n_ranks;
    REQUIRE(n <= LINK_MAX_BYTES / 8);
    if (way == LINK_SUM_AUTO)
        way = link_sum_choose(n_ranks, n, wire, g->config.cost);
    int n_phases = way == LINK_SUM_ONE_SHOT ? 1 : way == LINK_SUM_TWO_SHOT ? 2 : 2 * (n_ranks - 1);
    link_op *op;
    status s = link_op_begin(&op, g, wire == LINK_WIRE_F64 ? LINK_OP_SUM_F64 : LINK_OP_SUM_INT48,
                             BASE_MAX(n_phases, 1), e);
    if (s != STATUS_OK)
        return s;
    op->way = way;
    op->wire = wire;
    op->values = values;
    op->n = n;
    op->code = (uint8_t)(op->kind | (unsigned)way << 4);
    s = n_ranks > 1 ? get_scratch(op, scratch_needed(op, g), e) : STATUS_OK;
    if (s != STATUS_OK) {
        op->used = false;
        return s;
    }
    bool good = link_in_range(values, n, wire);
    if (good && wire == LINK_WIRE_INT48 && n_ranks > 1)
        good = link_pack48(op->scratch, values, n);
    if (!good) {
        op->used = false;
        link_group_fail(g, STATUS_TOO_LARGE,
                        wire == LINK_WIRE_INT48
                            ? "a value to be summed is no multiple of 2^-24 below 2^23"
                            : "a value to be summed is out of range: |v| < 2^29 is exact");
        return link_group_status(g, e);
    }
    if (n > 0 && n_ranks > 1)
        (way == LINK_SUM_ONE_SHOT   ? queue_one_shot
         : way == LINK_SUM_TWO_SHOT ? queue_two_shot
                                    : queue_ring)(op);
    *out = op;
    link_op_commit(op);
    return STATUS_OK;
}

/* ---- the others ------------------------------------------------------------------------------------------------ */

status link_gather_start(link_op **out, link_group *g, void *all, const size_t *bytes, err *e)
{
    link_op *op;
    status s = link_op_begin(&op, g, LINK_OP_GATHER, 1, e);
    if (s != STATUS_OK)
        return s;
    unsigned char *own = all, *at = all;
    int rank = g->config.rank;
    for (int r = 0; r < rank; r++)
        own += bytes[r];
    for (int r = 0; r < g->config.n_ranks; at += bytes[r], r++) {
        REQUIRE(bytes[r] <= LINK_MAX_BYTES);
        if (r == rank)
            continue;
        link_op_send(op, 0, r, 0, own, bytes[rank]);
        link_op_recv(op, 0, r, 0, at, bytes[r]);
    }
    *out = op;
    link_op_commit(op);
    return STATUS_OK;
}

status link_broadcast_start(link_op **out, link_group *g, int root, void *bytes, size_t n, err *e)
{
    REQUIRE(root >= 0 && root < g->config.n_ranks && n <= LINK_MAX_BYTES);
    link_op *op;
    status s = link_op_begin(&op, g, LINK_OP_BROADCAST, 1, e);
    if (s != STATUS_OK)
        return s;
    if (root != g->config.rank)
        link_op_recv(op, 0, root, 0, bytes, n);
    else
        for (int r = 0; r < g->config.n_ranks; r++)
            if (r != root)
                link_op_send(op, 0, r, 0, bytes, n);
    *out = op;
    link_op_commit(op);
    return STATUS_OK;
}

static status begin_message(link_op **out, link_group *g, int peer, int lane, size_t n, err *e)
{
    REQUIRE(peer >= 0 && peer < g->config.n_ranks && peer != g->config.rank);
    REQUIRE(lane >= 0 && lane < g->config.n_lanes && n <= LINK_MAX_BYTES);
    return link_op_begin(out, g, LINK_OP_MESSAGE, 1, e);
}

status link_send_start(link_op **out, link_group *g, int peer, int lane, const void *bytes,
                       size_t n, err *e)
{
    status s = begin_message(out, g, peer, lane, n, e);
    if (s != STATUS_OK)
        return s;
    link_op_send(*out, 0, peer, lane, bytes, n);
    link_op_commit(*out);
    return STATUS_OK;
}

status link_recv_start(link_op **out, link_group *g, int peer, int lane, void *bytes, size_t n,
                       err *e)
{
    status s = begin_message(out, g, peer, lane, n, e);
    if (s != STATUS_OK)
        return s;
    link_op_recv(*out, 0, peer, lane, bytes, n);
    link_op_commit(*out);
    return STATUS_OK;
}

status link_sum(link_group *g, double *values, size_t n, link_wire wire, err *e)
{
    link_op *op;
    status s = link_sum_start(&op, g, values, n, wire, LINK_SUM_AUTO, e);
    return s == STATUS_OK ? link_op_wait(op, e) : s;
}

status link_gather(link_group *g, void *all, const size_t *bytes, err *e)
{
    link_op *op;
    status s = link_gather_start(&op, g, all, bytes, e);
    return s == STATUS_OK ? link_op_wait(op, e) : s;
}

status link_broadcast(link_group *g, int root, void *bytes, size_t n, err *e)
{
    link_op *op;
    status s = link_broadcast_start(&op, g, root, bytes, n, e);
    return s == STATUS_OK ? link_op_wait(op, e) : s;
}

status link_send(link_group *g, int peer, int lane, const void *bytes, size_t n, err *e)
{
    link_op *op;
    status s = link_send_start(&op, g, peer, lane, bytes, n, e);
    return s == STATUS_OK ? link_op_wait(op, e) : s;
}

status link_recv(link_group *g, int peer, int lane, void *bytes, size_t n, err *e)
{
    link_op *op;
    status s = link_recv_start(&op, g, peer, lane, bytes, n, e);
    return s == STATUS_OK ? link_op_wait(op, e) : s;
}
