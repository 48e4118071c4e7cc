/*
 * Ops as phases of frames. An op queues every frame of every phase when it starts; what has to be computed between phases (adding, packing)
 * is link_op_after; adding happens while values come (values.c). Because sums are exact, all ways of summing give the same bits. Not here: moving
 * frames (group.c).
 *
 * Sum over N ranks, part c of [0, n) = [n c / N, n (c + 1) / N):
 *   one shot  phase 0: all values to all; add what came.
 *   two shot  phase 0: part c to rank c; add to the own part. phase 1: the own part to all.
 *   ring      phases 0 … N−2: part r−s to the right, part r−s−1 from the left, add it. N−1 … 2N−3: the finished parts go round.
 *   scatter   phase 0 of two shot, of parts that the caller names.
 */
#include "link/group.h"

#include <string.h>

#define RING_FROM_BYTES (256u << 10)

/* ---- which way ------------------------------------------------------------------------------------------------- */

#define PACK_US     0.0007 /* of a value in blocks: packed here, unpacked there; bench_link */
#define BLOCK_VALUE 4.02   /* bytes of a value in blocks, nearly always */

/* Without what the ways have in common. */
static double sum_us(int n_ranks, double bytes, link_sum_way way, link_cost cost)
{
    double ranks = n_ranks;
    if (way == LINK_SUM_ONE_SHOT)
        return cost.latency_us + (ranks - 1) * bytes * cost.us_per_byte;
    double steps = way == LINK_SUM_TWO_SHOT ? 2 : 2 * (ranks - 1);
    return steps * cost.latency_us + 2 * (ranks - 1) / ranks * bytes * cost.us_per_byte;
}

link_sum_way link_sum_choose(int n_ranks, size_t n, link_wire wire, link_cost cost)
{
    if (n_ranks <= 2)
        return LINK_SUM_ONE_SHOT;
    bool blocks = wire == LINK_WIRE_BLOCKS;
    double bytes = blocks ? BLOCK_VALUE * (double)n : (double)link_wire_bytes(wire, n);
    double one_us = sum_us(n_ranks, bytes, LINK_SUM_ONE_SHOT, cost);
    double two_us = sum_us(n_ranks, bytes, LINK_SUM_TWO_SHOT, cost);
    double ring_us = sum_us(n_ranks, bytes, LINK_SUM_RING, cost);
    if (one_us <= two_us)
        return LINK_SUM_ONE_SHOT;
    /* a ring moves the same bytes in more steps, but from one neighbour at a time: for large sums, where steps no longer matter */
    return !blocks && bytes >= RING_FROM_BYTES && ring_us <= 1.05 * two_us ? LINK_SUM_RING
                                                                           : LINK_SUM_TWO_SHOT;
}

bool link_scatter_pays(int n_ranks, size_t n, size_t gathered_bytes, link_cost cost)
{
    double ranks = n_ranks, bytes = (double)link_wire_bytes(LINK_WIRE_F64, n);
    double whole_us =
        sum_us(n_ranks, bytes, link_sum_choose(n_ranks, n, LINK_WIRE_F64, cost), cost);
    double parts_us = 2 * cost.latency_us +
                      (ranks - 1) / ranks * (bytes + (double)gathered_bytes) * cost.us_per_byte;
    return n_ranks > 1 && parts_us < whole_us;
}

link_wire link_wire_choose(int n_ranks, size_t n, link_cost cost)
{
    double f64_us =
        sum_us(n_ranks, 8.0 * (double)n, link_sum_choose(n_ranks, n, LINK_WIRE_F64, cost), cost);
    double blocks_us = sum_us(n_ranks, BLOCK_VALUE * (double)n,
                              link_sum_choose(n_ranks, n, LINK_WIRE_BLOCKS, cost), cost);
    return n_ranks > 1 && blocks_us + (double)n * PACK_US < f64_us ? LINK_WIRE_BLOCKS
                                                                   : LINK_WIRE_F64;
}

/* ---- numerics -------------------------------------------------------------------------------------------------- */

static const char *const lossy_names[] = {[LINK_WIRE_BF16] = "+bf16", [LINK_WIRE_Q8] = "+q8"};

static const char *lossy_name(link_wire wire)
{
    return (size_t)wire < BASE_COUNT(lossy_names) ? lossy_names[wire] : NULL;
}

status link_numerics(char out[LINK_NUMERICS_BYTES], const char *kernels, link_wire wire, err *e)
{
    const char *suffix = lossy_name(wire) ? lossy_name(wire) : "";
    char name[LINK_NUMERICS_BYTES] = {0};
    if (strlen(kernels) + strlen(suffix) >= sizeof name)
        return err_set(e, STATUS_TOO_LONG, "numerics %.40s%s: %d letters at most", kernels, suffix,
                       LINK_NUMERICS_BYTES - 1);
    memcpy(name, kernels, strlen(kernels));
    memcpy(name + strlen(kernels), suffix, strlen(suffix));
    memcpy(out, name, sizeof name);
    return STATUS_OK;
}

/* Exact forms always; a lossy one only in a group of its class. */
static status check_class(const link_group *g, link_wire wire, err *e)
{
    const char *suffix = lossy_name(wire), *name = g->config.numerics;
    size_t length = strnlen(name, sizeof g->config.numerics);
    if (!suffix || (length >= strlen(suffix) &&
                    memcmp(name + length - strlen(suffix), suffix, strlen(suffix)) == 0))
        return STATUS_OK;
    return err_set(e, STATUS_CONFLICT,
                   "sums in %s on the wire belong to another numerics class than %.*s", suffix + 1,
                   (int)length, name);
}

/* ---- parts ----------------------------------------------------------------------------------------------------- */

/* As even as can be. */
static size_t part_begin(size_t n, int c, int n_ranks)
{
    return (size_t)((uint64_t)n / (uint64_t)n_ranks * (uint64_t)c +
                    (uint64_t)n % (uint64_t)n_ranks * (uint64_t)c / (uint64_t)n_ranks);
}

static int wrap(int c, int n_ranks)
{
    return ((c % n_ranks) + n_ranks) % n_ranks;
}

static bool is_packed(const link_op *op)
{
    return op->wire != LINK_WIRE_F64;
}

static double *part(const link_op *op, int c)
{
    return op->values + op->begin[c];
}

static size_t part_values(const link_op *op, int c)
{
    return op->begin[c + 1] - op->begin[c];
}

static size_t part_bytes(const link_op *op, int c)
{
    return link_wire_bytes(op->wire, part_values(op, c));
}

/* The bytes on the wire of part c: the values themselves, or their packed copy in scratch, where each part begins a unit. */
static unsigned char *wire_part(const link_op *op, int c)
{
    if (!is_packed(op))
        return (unsigned char *)part(op, c);
    size_t at = 0;
    for (int before = 0; before < c; before++)
        at += part_bytes(op, before);
    return op->scratch + at;
}

/* What was queued at its longest is as long as it turns out. */
static void pack_blocks(link_op *op, unsigned char *wire, const double *values, size_t n)
{
    uint32_t bytes = (uint32_t)link_pack_blocks(wire, values, n);
    for (int i = 0; i < op->n_items && n > 0; i++)
        if (op->items[i].goes && op->items[i].bytes == wire)
            op->items[i].n = bytes;
}

/* What goes of part c, and with a lossy form what stays here too: all ranks must have the same. */
static bool pack_part(link_op *op, int c)
{
    if (!is_packed(op))
        return true;
    unsigned char *wire = wire_part(op, c);
    if (op->wire == LINK_WIRE_BLOCKS) {
        pack_blocks(op, wire, part(op, c), part_values(op, c));
        return true;
    }
    if (!link_pack(wire, part(op, c), part_values(op, c), op->wire))
        return false;
    return op->wire == LINK_WIRE_INT48 ||
           link_unpack(part(op, c), wire, part_values(op, c), op->wire);
}

/* ---- what follows a phase -------------------------------------------------------------------------------------- */

bool link_op_after(link_op *op, int phase)
{
    int n_ranks = op->group->config.n_ranks, rank = op->group->config.rank;
    if (!op->values || op->n == 0 || n_ranks == 1)
        return true;
    if (op->way == LINK_SUM_TWO_SHOT && phase == 0)
        return pack_part(op, rank);
    if (op->way == LINK_SUM_RING && phase < n_ranks - 1)
        return pack_part(op, wrap(rank - phase - 1, n_ranks));
    if (op->way == LINK_SUM_RING && is_packed(op)) {
        int came = wrap(rank - (phase - n_ranks) - 1, n_ranks);
        return link_unpack(part(op, came), wire_part(op, came), part_values(op, came), op->wire);
    }
    return true;
}

/* ---- the frames of a sum --------------------------------------------------------------------------------------- */

static void queue_one_shot(link_op *op)
{
    const unsigned char *wire = is_packed(op) ? op->scratch : (unsigned char *)op->values;
    for (int peer = 0; peer < op->group->config.n_ranks; peer++) {
        if (peer == op->group->config.rank)
            continue;
        link_op_send(op, 0, peer, 0, wire, link_wire_bytes(op->wire, op->n));
        link_op_recv_values(op, 0, peer, op->values, op->n, LINK_FATE_ADD, !is_packed(op));
    }
}

/* Both phases, or the first alone. */
static void queue_two_shot(link_op *op)
{
    int own = op->group->config.rank;
    for (int peer = 0; peer < op->group->config.n_ranks; peer++) {
        if (peer == own)
            continue;
        link_op_send(op, 0, peer, 0, wire_part(op, peer), part_bytes(op, peer));
        link_op_recv_values(op, 0, peer, part(op, own), part_values(op, own), LINK_FATE_ADD, false);
        if (op->way == LINK_SUM_SCATTER)
            continue;
        link_op_send(op, 1, peer, 0, wire_part(op, own), part_bytes(op, own));
        link_op_recv_values(op, 1, peer, part(op, peer), part_values(op, peer), LINK_FATE_STORE,
                            false);
    }
}

static void queue_ring(link_op *op)
{
    int n_ranks = op->group->config.n_ranks, rank = op->group->config.rank;
    int right = wrap(rank + 1, n_ranks), left = wrap(rank - 1, n_ranks);
    for (int s = 0; s < 2 * (n_ranks - 1); s++) {
        bool adding = s < n_ranks - 1;
        int round = adding ? s : s - n_ranks; /* finished parts: r + 1 goes first, r comes first */
        int goes = wrap(rank - round, n_ranks), comes = wrap(goes - 1, n_ranks);
        link_op_send(op, s, right, 0, wire_part(op, goes), part_bytes(op, goes));
        if (!adding && is_packed(op)) /* goes on as it came */
            link_op_recv(op, s, left, 0, wire_part(op, comes), part_bytes(op, comes));
        else
            link_op_recv_values(op, s, left, part(op, comes), part_values(op, comes),
                                adding ? LINK_FATE_ADD : LINK_FATE_STORE, false);
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

static size_t scratch_needed(const link_op *op)
{
    int n_ranks = op->group->config.n_ranks;
    if (!is_packed(op) || n_ranks == 1)
        return 0;
    if (op->way == LINK_SUM_ONE_SHOT)
        return link_wire_bytes(op->wire, op->n);
    size_t bytes = 0;
    for (int c = 0; c < n_ranks; c++)
        bytes += part_bytes(op, c);
    return bytes;
}

/* Packs what goes first. What goes as f64 is looked at where it arrives, and what stays when something is added to it. */
static bool begin_values(link_op *op)
{
    int n_ranks = op->group->config.n_ranks, rank = op->group->config.rank;
    if (n_ranks == 1)
        return link_in_range(op->values, op->n, op->wire);
    if (!is_packed(op))
        return true;
    if (op->way == LINK_SUM_RING)
        return pack_part(op, rank);
    if (op->way == LINK_SUM_ONE_SHOT && op->wire == LINK_WIRE_BLOCKS) {
        pack_blocks(op, op->scratch, op->values, op->n);
        return true;
    }
    if (op->way == LINK_SUM_ONE_SHOT)
        return link_pack(op->scratch, op->values, op->n, op->wire) &&
               (op->wire == LINK_WIRE_INT48 ||
                link_unpack(op->values, op->scratch, op->n, op->wire));
    for (int c = 0; c < n_ranks; c++)
        if (c != rank && !pack_part(op, c))
            return false;
    return true;
}

static int n_phases_of(link_sum_way way, int n_ranks)
{
    switch (way) {
    case LINK_SUM_TWO_SHOT:
        return 2;
    case LINK_SUM_RING:
        return BASE_MAX(2 * (n_ranks - 1), 1);
    default:
        return 1;
    }
}

/* A sum of n values by `way`. parts: of a scatter, else NULL. */
static status start_sum(link_op **out, link_group *g, double *values, size_t n, link_wire wire,
                        link_sum_way way, const size_t *parts, err *e)
{
    static const uint8_t kinds[] = {[LINK_WIRE_F64] = LINK_OP_SUM_F64,
                                    [LINK_WIRE_INT48] = LINK_OP_SUM_INT48,
                                    [LINK_WIRE_BLOCKS] = LINK_OP_SUM_BLOCKS,
                                    [LINK_WIRE_BF16] = LINK_OP_SUM_BF16,
                                    [LINK_WIRE_Q8] = LINK_OP_SUM_Q8};
    int n_ranks = g->config.n_ranks;
    link_op *op;
    status s = check_class(g, wire, e);
    if (s == STATUS_OK)
        s = link_op_begin(&op, g, kinds[wire], n_phases_of(way, n_ranks), e);
    if (s != STATUS_OK)
        return s;
    op->way = way;
    op->wire = wire;
    op->values = values;
    op->n = n;
    op->code = (uint8_t)(op->kind | (unsigned)way << 4);
    op->begin[0] = 0;
    for (int c = 0; c < n_ranks; c++)
        op->begin[c + 1] = parts ? op->begin[c] + parts[c] : part_begin(n, c + 1, n_ranks);
    s = get_scratch(op, scratch_needed(op), e);
    if (s != STATUS_OK) {
        op->used = false;
        return s;
    }
    if (n > 0 && n_ranks > 1)
        (way == LINK_SUM_ONE_SHOT ? queue_one_shot
         : way == LINK_SUM_RING   ? queue_ring
                                  : queue_two_shot)(op);
    if (!begin_values(op)) {
        op->used = false;
        link_op_fail_range(op);
        return link_group_status(g, e);
    }
    *out = op;
    link_op_commit(op);
    return STATUS_OK;
}

status link_sum_start(link_op **out, link_group *g, double *values, size_t n, link_wire wire,
                      link_sum_way way, err *e)
{
    REQUIRE(n <= LINK_MAX_BYTES / 8 && way <= LINK_SUM_RING);
    if (wire == LINK_WIRE_AUTO)
        wire = link_wire_choose(g->config.n_ranks, n, g->config.cost);
    if (way == LINK_SUM_AUTO)
        way = link_sum_choose(g->config.n_ranks, n, wire, g->config.cost);
    if (wire == LINK_WIRE_BLOCKS && way == LINK_SUM_RING)
        way = LINK_SUM_TWO_SHOT;
    return start_sum(out, g, values, n, wire, way, NULL, e);
}

status link_scatter_start(link_op **out, link_group *g, double *values, const size_t *parts,
                          link_wire wire, err *e)
{
    size_t n = 0;
    for (int r = 0; r < g->config.n_ranks; r++) {
        REQUIRE(parts[r] <= LINK_MAX_BYTES / 8 - n);
        n += parts[r];
    }
    if (wire == LINK_WIRE_AUTO)
        wire = link_wire_choose(g->config.n_ranks, n, g->config.cost);
    return start_sum(out, g, values, n, wire, LINK_SUM_SCATTER, parts, e);
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

status link_collect_start(link_op **out, link_group *g, void *const *to, const size_t *bytes,
                          err *e)
{
    link_op *op;
    status s = link_op_begin(&op, g, LINK_OP_MESSAGE, 1, e);
    if (s != STATUS_OK)
        return s;
    for (int r = 0; r < g->config.n_ranks; r++) {
        REQUIRE(bytes[r] <= LINK_MAX_BYTES);
        if (r != g->config.rank)
            link_op_recv(op, 0, r, 0, to[r], bytes[r]);
    }
    *out = op;
    link_op_commit(op);
    return STATUS_OK;
}

status link_sum(link_group *g, double *values, size_t n, link_wire wire, err *e)
{
    link_op *op;
    status s = link_sum_start(&op, g, values, n, wire, LINK_SUM_AUTO, e);
    return s == STATUS_OK ? link_op_wait(op, e) : s;
}

status link_scatter(link_group *g, double *values, const size_t *parts, link_wire wire, err *e)
{
    link_op *op;
    status s = link_scatter_start(&op, g, values, parts, wire, e);
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
