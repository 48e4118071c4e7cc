/*
 * Groups over loop with a virtual clock: everything runs in this one thread and is a function of the order of calls. Sums by every way,
 * the other ops, ranges, the handshake, and every op under every fault at every frame.
 */
#include "link_rig.h"

#include "link/inside.h"

#include <math.h>

#define DEADLINE_US 1000000
#define STEP_US     1000
#define MAX_N       2100

typedef struct net {
    int n;
    os_virtual_clock clock;
    link_loop *loop;
    link_group *groups[RIG_RANKS];
} net;

static link_wire net_form; /* what its class allows beside the exact forms */

static void net_open(net *t, int n, size_t capacity, link_fault fault)
{
    memset(t, 0, sizeof *t);
    t->n = n;
    os_virtual_clock_init(&t->clock, 1000);
    RIG_OK(link_loop_create(&t->loop, n, capacity, &t->clock.clock, e));
    link_loop_fault(t->loop, fault);
    for (int r = 0; r < n; r++) {
        link_conn *conns[RIG_RANKS] = {NULL};
        for (int p = 0; p < n; p++)
            if (p != r)
                RIG_OK(link_loop_open(&conns[p], t->loop, r, p, 0, e));
        link_group_config c = rig_config(r, n, 1);
        c.clock = &t->clock.clock;
        c.deadline_us = DEADLINE_US;
        RIG_OK(link_numerics(c.numerics, "exact/1", net_form, e));
        RIG_OK(link_group_create(&t->groups[r], &c, conns, e));
    }
}

static void net_close(net *t)
{
    for (int r = 0; r < t->n; r++)
        link_group_destroy(t->groups[r]);
    link_loop_destroy(t->loop);
}

/* Until all given ops are done; NULL ones count as done. Nothing may take longer than its deadline. */
static void drive(net *t, link_op **ops)
{
    uint64_t until = t->clock.us + 2 * DEADLINE_US + 10 * STEP_US;
    for (;;) {
        bool moved = false, done = true;
        for (int r = 0; r < t->n; r++)
            moved |= link_group_progress(t->groups[r]);
        for (int r = 0; r < t->n; r++)
            done &= !ops[r] || link_op_done(ops[r]);
        if (done)
            return;
        if (!moved)
            t->clock.us += STEP_US;
        assert_true(t->clock.us < until);
    }
}

/* ---- ops by number --------------------------------------------------------------------------------------------- */

enum {
    OP_ONE, /* three ways for each form of values */
    OP_TWO,
    OP_RING,
    OP_ONE48,
    OP_TWO48,
    OP_RING48,
    OP_ONE_BF16,
    OP_RING_Q8 = OP_ONE_BF16 + 5,
    OP_SCATTER,
    OP_SCATTER48,
    OP_SCATTER_BLOCKS,
    OP_ONE_BLOCKS,
    OP_TWO_BLOCKS,
    OP_RING_BLOCKS, /* goes by two shots */
    OP_GATHER,
    OP_BROADCAST,
    OP_PASS,
    OP_COLLECT,
    N_OPS
};

typedef struct memory {
    double values[MAX_N];
    unsigned char bytes[MAX_N];
} memory;

static memory memories[RIG_RANKS];

static const size_t gather_bytes[RIG_RANKS] = {70, 0, 1, 200, 33, 5};

/* Values of a scatter: uneven parts, an empty one among three and more. */
static void scatter_parts(size_t *parts, size_t n, int n_ranks)
{
    size_t left = n;
    for (int r = 0; r < n_ranks; r++) {
        parts[r] = r + 1 == n_ranks ? left : r == 1 ? 0 : (left + 2) / 3;
        left -= parts[r];
    }
}

static unsigned char byte_of(int rank, size_t i)
{
    return (unsigned char)hash_u64(i, (uint64_t)rank);
}

static size_t offset_of(int rank)
{
    size_t at = 0;
    for (int r = 0; r < rank; r++)
        at += gather_bytes[r];
    return at;
}

/* Rank 0 sends to rank 1; the others take part by doing nothing. */
static status start_pass(link_op **out, link_group *g, int rank, memory *m, err *e)
{
    for (size_t i = 0; i < 300; i++)
        m->bytes[i] = rank == 0 ? byte_of(9, i) : 0;
    if (rank > 1)
        return STATUS_OK;
    return rank == 0 ? link_send_start(out, g, 1, 0, m->bytes, 300, e)
                     : link_recv_start(out, g, 0, 0, m->bytes, 300, e);
}

/* Rank 1 gets what the others send it, side by side. */
static status start_collect(link_op **out, link_group *g, int rank, memory *m, err *e)
{
    for (size_t i = 0; i < gather_bytes[rank]; i++)
        m->bytes[offset_of(rank) + i] = byte_of(rank, i);
    if (rank != 1)
        return gather_bytes[rank] == 0 ? STATUS_OK
                                       : link_send_start(out, g, 1, 0, m->bytes + offset_of(rank),
                                                         gather_bytes[rank], e);
    void *to[RIG_RANKS];
    for (int r = 0; r < RIG_RANKS; r++)
        to[r] = m->bytes + offset_of(r);
    return link_collect_start(out, g, to, gather_bytes, e);
}

static link_wire form_of(int op)
{
    static const link_wire forms[] = {LINK_WIRE_F64, LINK_WIRE_INT48, LINK_WIRE_BF16, LINK_WIRE_Q8};
    return forms[op / 3];
}

/* Two blocks of three of counts that fit int32, the others not; of the last values of n one half. */
static double value_of(int op, int rank, size_t i, unsigned round)
{
    double v = rig_value(rank, i, round);
    bool small = i / LINK_BLOCK % 3 != round % 3;
    return op < OP_SCATTER_BLOCKS || !small
               ? v
               : (double)(int32_t)(int64_t)(v / RIG_UNIT) / 8 * 8 * RIG_UNIT;
}

static double sum_of(int op, int n_ranks, size_t i, unsigned round)
{
    int64_t sum = 0;
    for (int r = 0; r < n_ranks; r++)
        sum += (int64_t)(value_of(op, r, i, round) / RIG_UNIT);
    return (double)sum * RIG_UNIT;
}

static status start_blocks(link_op **out, link_group *g, int op, double *values, size_t n,
                           const size_t *parts, err *e)
{
    if (op == OP_SCATTER_BLOCKS)
        return link_scatter_start(out, g, values, parts, LINK_WIRE_BLOCKS, e);
    return link_sum_start(out, g, values, n, LINK_WIRE_BLOCKS,
                          (link_sum_way)(LINK_SUM_ONE_SHOT + op - OP_ONE_BLOCKS), e);
}

static status start(link_op **out, net *t, int rank, int op, size_t n, unsigned round, err *e)
{
    memory *m = &memories[rank];
    link_group *g = t->groups[rank];
    *out = NULL;
    if (op <= OP_RING_Q8) {
        rig_fill(m->values, n, rank, round);
        return link_sum_start(out, g, m->values, n, form_of(op),
                              (link_sum_way)(LINK_SUM_ONE_SHOT + op % 3), e);
    }
    if (op >= OP_SCATTER && op <= OP_RING_BLOCKS) {
        size_t parts[RIG_RANKS];
        scatter_parts(parts, n, t->n);
        for (size_t i = 0; i < n; i++)
            m->values[i] = value_of(op, rank, i, round);
        if (op >= OP_SCATTER_BLOCKS)
            return start_blocks(out, g, op, m->values, n, parts, e);
        return link_scatter_start(out, g, m->values, parts,
                                  op == OP_SCATTER ? LINK_WIRE_F64 : LINK_WIRE_INT48, e);
    }
    if (op == OP_PASS)
        return start_pass(out, g, rank, m, e);
    memset(m->bytes, 0xee, sizeof m->bytes);
    if (op == OP_COLLECT)
        return start_collect(out, g, rank, m, e);
    if (op == OP_GATHER) {
        for (size_t i = 0; i < gather_bytes[rank]; i++)
            m->bytes[offset_of(rank) + i] = byte_of(rank, i);
        return link_gather_start(out, g, m->bytes, gather_bytes, e);
    }
    for (size_t i = 0; i < 300 && rank == t->n - 1; i++)
        m->bytes[i] = byte_of(7, i);
    return link_broadcast_start(out, g, t->n - 1, m->bytes, 300, e);
}

/* Near the exact sums: every value is rounded once or twice on each rank. */
static void check_lossy(const net *t, const double *values, link_wire form, size_t n,
                        unsigned round)
{
    double top = 0;
    for (size_t i = 0; i < n; i++)
        for (int r = 0; r < t->n; r++)
            top = fmax(top, fabs(rig_value(r, i, round)));
    for (size_t i = 0; i < n; i++) {
        double all = form == LINK_WIRE_Q8 ? top * t->n : 0, error;
        for (int r = 0; r < t->n && form == LINK_WIRE_BF16; r++)
            all += fabs(rig_value(r, i, round));
        error = fabs(values[i] - rig_sum(t->n, i, round));
        assert_true(error <= (t->n + 1) * all / 240); /* a rounding: 1 / 256, or 1 / 252 */
    }
}

static void check(const net *t, int rank, int op, size_t n, unsigned round)
{
    const memory *m = &memories[rank];
    if (op > OP_RING48 && op <= OP_RING_Q8) {
        check_lossy(t, m->values, form_of(op), n, round);
        return;
    }
    if (op <= OP_RING48) {
        assert_true(rig_is_sum(m->values, n, t->n, round));
        return;
    }
    if (op >= OP_SCATTER && op <= OP_RING_BLOCKS) {
        size_t parts[RIG_RANKS], at = 0;
        scatter_parts(parts, n, t->n);
        for (int r = 0; r < t->n; at += parts[r++])
            for (size_t i = at; i < at + parts[r]; i++) {
                double want = r == rank || op > OP_SCATTER_BLOCKS ? sum_of(op, t->n, i, round)
                                                                  : value_of(op, rank, i, round);
                assert_memory_equal(&m->values[i], &want, sizeof want);
            }
        return;
    }
    if (op == OP_COLLECT && rank != 1)
        return;
    if (op == OP_GATHER || op == OP_COLLECT) {
        for (int r = 0; r < t->n; r++)
            for (size_t i = 0; i < gather_bytes[r]; i++)
                assert_int_equal(m->bytes[offset_of(r) + i], byte_of(r, i));
        return;
    }
    if (op == OP_PASS && rank > 1)
        return;
    for (size_t i = 0; i < 300; i++)
        assert_int_equal(m->bytes[i], byte_of(op == OP_PASS ? 9 : 7, i));
}

/* One op on all ranks; returns how many failed. Those that did not are checked. failed [n]. */
static int run(net *t, int op, size_t n, unsigned round, bool *failed)
{
    link_op *ops[RIG_RANKS] = {NULL};
    int n_failed = 0;
    status s[RIG_RANKS];
    err e;
    for (int r = 0; r < t->n; r++)
        s[r] = start(&ops[r], t, r, op, n, round, &e);
    drive(t, ops);
    for (int r = 0; r < t->n; r++) {
        err_clear(&e);
        if (ops[r])
            s[r] = link_op_wait(ops[r], &e);
        if (s[r] != STATUS_OK && ops[r])
            assert_true(e.text[0] != 0);
        if (s[r] == STATUS_OK)
            check(t, r, op, n, round);
        if (failed)
            failed[r] |= s[r] != STATUS_OK;
        n_failed += s[r] != STATUS_OK;
    }
    return n_failed;
}

/* ---- no faults ------------------------------------------------------------------------------------------------- */

static void test_sums(void **state)
{
    (void)state;
    static const size_t widths[] = {0, 1, 2, 3, 5, 17, 256, 1000, 2099};
    for (int n = 1; n <= RIG_RANKS; n++)
        for (int small = 0; small < 2; small++) {
            net t;
            net_open(&t, n, small ? 200 : 1 << 20, (link_fault){0});
            for (size_t w = 0; w < BASE_COUNT(widths); w++) {
                for (int op = 0; op <= OP_RING48; op++)
                    assert_int_equal(run(&t, op, widths[w], (unsigned)(w + 7), NULL), 0);
                for (int op = OP_SCATTER; op <= OP_RING_BLOCKS; op++)
                    assert_int_equal(run(&t, op, widths[w], (unsigned)(w + 9), NULL), 0);
            }
            for (int r = 0; r < n; r++)
                assert_true(link_group_ready(t.groups[r]));
            net_close(&t);
        }
}

/* Lossy forms: the same on every rank, near the sum, refused in a class that does not name them, and not in the way of exact sums. */
static void test_lossy(void **state)
{
    (void)state;
    static const size_t widths[] = {0, 1, 31, 32, 33, 100, 2099};
    for (int n = 2; n <= RIG_RANKS; n++)
        for (int op = OP_ONE_BF16; op <= OP_RING_Q8; op++) {
            net t;
            net_form = form_of(op);
            net_open(&t, n, n % 2 ? 200 : 1 << 20, (link_fault){0});
            for (size_t w = 0; w < BASE_COUNT(widths); w++) {
                assert_int_equal(run(&t, op, widths[w], (unsigned)(w + 7), NULL), 0);
                for (int r = 1; r < n; r++)
                    assert_memory_equal(memories[r].values, memories[0].values, 8 * widths[w]);
            }
            assert_int_equal(run(&t, OP_TWO, 100, 3, NULL), 0);
            link_op *none;
            err why;
            link_wire other = net_form == LINK_WIRE_Q8 ? LINK_WIRE_BF16 : LINK_WIRE_Q8;
            assert_int_equal(link_sum_start(&none, t.groups[0], memories[0].values, 4, other,
                                            LINK_SUM_AUTO, &why),
                             STATUS_CONFLICT);
            assert_non_null(strstr(why.text, "numerics class"));
            assert_int_equal(run(&t, OP_ONE, 10, 4, NULL), 0);
            net_close(&t);
        }
    net_form = LINK_WIRE_F64;
    char name[LINK_NUMERICS_BYTES];
    RIG_OK(link_numerics(name, "exact/1", LINK_WIRE_Q8, e));
    assert_string_equal(name, "exact/1+q8");
    assert_int_equal(link_numerics(name, "a class of thirty letters here.", LINK_WIRE_BF16, NULL),
                     STATUS_TOO_LONG);
}

static void test_auto(void **state)
{
    (void)state;
    net t;
    net_open(&t, 3, 1 << 16, (link_fault){0});
    link_op *ops[RIG_RANKS] = {NULL};
    for (int r = 0; r < 3; r++) {
        rig_fill(memories[r].values, 500, r, 2);
        RIG_OK(link_sum_start(&ops[r], t.groups[r], memories[r].values, 500, LINK_WIRE_AUTO,
                              LINK_SUM_AUTO, e));
    }
    drive(&t, ops);
    for (int r = 0; r < 3; r++) {
        RIG_OK(link_op_wait(ops[r], e));
        assert_true(rig_is_sum(memories[r].values, 500, 3, 2));
    }
    net_close(&t);
    link_cost slow = {30, 0.008}, fast = {1, 0.0001};
    assert_int_equal(link_wire_choose(2, 4096, slow), LINK_WIRE_BLOCKS);
    assert_int_equal(link_wire_choose(4, 4096, slow), LINK_WIRE_BLOCKS);
    assert_int_equal(link_wire_choose(2, 4096, fast), LINK_WIRE_F64);
    assert_int_equal(link_wire_choose(1, 4096, slow), LINK_WIRE_F64);
    assert_int_equal(link_wire_choose(2, 0, slow), LINK_WIRE_F64);
}

static void test_others(void **state)
{
    (void)state;
    for (int n = 2; n <= RIG_RANKS; n++) {
        net t;
        net_open(&t, n, n % 2 ? 100 : 1 << 20, (link_fault){0});
        for (int op = OP_GATHER; op < N_OPS; op++)
            assert_int_equal(run(&t, op, 0, 1, NULL), 0);
        net_close(&t);
    }
}

/* Ops of different kinds started together end right, whatever the order of their ends. */
static void test_together(void **state)
{
    (void)state;
    net t;
    net_open(&t, 4, 300, (link_fault){0});
    static double sums[4][6][500];
    static unsigned char passed[4][4][1000];
    link_op *ops[4][16];
    int n_ops[4] = {0};
    for (int r = 0; r < 4; r++) {
        for (unsigned k = 0; k < 6; k++) {
            rig_fill(sums[r][k], 500, r, k);
            RIG_OK(link_sum_start(&ops[r][n_ops[r]++], t.groups[r], sums[r][k], 500,
                                  k % 2 ? LINK_WIRE_INT48 : LINK_WIRE_F64,
                                  (link_sum_way)(1 + k % 3), e));
        }
        for (int p = 0; p < 4; p++) {
            if (p == r)
                continue;
            memset(passed[r][r], r + 1, 1000);
            RIG_OK(link_recv_start(&ops[r][n_ops[r]++], t.groups[r], p, 0, passed[r][p], 1000, e));
            RIG_OK(link_send_start(&ops[r][n_ops[r]++], t.groups[r], p, 0, passed[r][r], 1000, e));
        }
    }
    for (int k = 0; k < n_ops[0]; k++) {
        link_op *row[4] = {ops[0][k], ops[1][k], ops[2][k], ops[3][k]};
        drive(&t, row);
    }
    for (int r = 0; r < 4; r++)
        for (int k = 0; k < n_ops[r]; k++)
            RIG_OK(link_op_wait(ops[r][k], e));
    for (int r = 0; r < 4; r++) {
        for (unsigned k = 0; k < 6; k++)
            assert_true(rig_is_sum(sums[r][k], 500, 4, k));
        for (int p = 0; p < 4; p++)
            assert_int_equal(passed[r][p][999], p + 1);
    }
    net_close(&t);
}

static void test_choice(void **state)
{
    (void)state;
    link_cost gigabit = {30, 0.008}, local = {1, 0.0001};
    assert_int_equal(link_sum_choose(2, 1 << 20, LINK_WIRE_F64, gigabit), LINK_SUM_ONE_SHOT);
    assert_int_equal(link_sum_choose(4, 64, LINK_WIRE_F64, gigabit), LINK_SUM_ONE_SHOT);
    assert_int_equal(link_sum_choose(4, 4096, LINK_WIRE_F64, gigabit), LINK_SUM_TWO_SHOT);
    assert_int_equal(link_sum_choose(4, 1 << 20, LINK_WIRE_F64, gigabit), LINK_SUM_RING);
    assert_int_equal(link_sum_choose(3, 4096, LINK_WIRE_F64, local), LINK_SUM_TWO_SHOT);
    assert_int_equal(link_sum_choose(3, 1024, LINK_WIRE_INT48, (link_cost){1, 0.00001}),
                     LINK_SUM_ONE_SHOT);
    assert_true(link_scatter_pays(2, 1 << 19, 1 << 20, gigabit));
    assert_true(link_scatter_pays(4, 1 << 19, 1 << 21, local));
    assert_false(link_scatter_pays(2, 2048, 8192, (link_cost){30, 0.001}));
    assert_false(link_scatter_pays(1, 1 << 19, 0, gigabit));
}

/* Two receives, posted together: the patient one outlasts the other and any time after it; its deadline counts from when it is due. */
static void test_patience(void **state)
{
    (void)state;
    for (int comes = 0; comes < 2; comes++) {
        net t;
        link_op *ops[2], *sent[2] = {NULL};
        unsigned char got[2][8] = {{0}}, bytes[2][8] = {{1}, {2}};
        err why;
        net_open(&t, 2, 1 << 16, (link_fault){0});
        for (int i = 0; i < 2; i++)
            RIG_OK(link_recv_start(&ops[i], t.groups[0], 1, 0, got[i], 8, e));
        link_op_patient(ops[1]);
        RIG_OK(link_send_start(&sent[0], t.groups[1], 0, 0, bytes[0], 8, e));
        drive(&t, (link_op *[]){ops[0], sent[0]});
        RIG_OK(link_op_wait(ops[0], e));
        RIG_OK(link_op_wait(sent[0], e));
        t.clock.us += 10 * DEADLINE_US;
        (void)link_group_progress(t.groups[0]);
        assert_false(link_op_done(ops[1]));
        link_op_due(ops[1]);
        t.clock.us += DEADLINE_US - 1;
        (void)link_group_progress(t.groups[0]);
        assert_false(link_op_done(ops[1]));
        if (comes)
            RIG_OK(link_send_start(&sent[1], t.groups[1], 0, 0, bytes[1], 8, e));
        else
            t.clock.us += 2;
        drive(&t, (link_op *[]){ops[1], sent[1]});
        assert_int_equal(link_op_wait(ops[1], &why), comes ? STATUS_OK : STATUS_TIMEOUT);
        assert_int_equal(got[1][0], comes ? 2 : 0);
        if (comes)
            RIG_OK(link_op_wait(sent[1], e));
        net_close(&t);
    }
}

/* ---- ranges ---------------------------------------------------------------------------------------------------- */

/* Rank 1 gives v; all ranks must fail, rank 1 and those that it could tell by TOO_LARGE. */
static void refuse_value(double v0, double v1, int op)
{
    net t;
    net_open(&t, 3, 1 << 16, (link_fault){0});
    link_op *ops[RIG_RANKS] = {NULL};
    int n_failed = 0;
    assert_int_equal(run(&t, OP_ONE, 4, 1, NULL), 0);
    for (int r = 0; r < 3; r++) {
        double *values = memories[r].values;
        err e;
        memset(values, 0, 8 * sizeof *values);
        values[5] = r == 0 ? v0 : r == 1 ? v1 : 0;
        if (link_sum_start(&ops[r], t.groups[r], values, 8,
                           op >= OP_ONE48 ? LINK_WIRE_INT48 : LINK_WIRE_F64,
                           (link_sum_way)(LINK_SUM_ONE_SHOT + op % 3), &e) != STATUS_OK) {
            assert_int_equal(e.code, STATUS_TOO_LARGE);
            ops[r] = NULL;
            n_failed++;
        }
    }
    drive(&t, ops);
    for (int r = 0; r < 3; r++) {
        err e;
        if (ops[r] && link_op_wait(ops[r], &e) != STATUS_OK) {
            assert_int_equal(e.code, STATUS_TOO_LARGE);
            n_failed++;
        }
    }
    assert_true(n_failed > 0);
    bool failed[RIG_RANKS] = {false};
    assert_int_equal(run(&t, OP_TWO, 4, 2, failed), 3); /* and so does everything after it */
    net_close(&t);
}

static void test_range(void **state)
{
    (void)state;
    for (int op = OP_ONE; op <= OP_RING48; op++) {
        bool is48 = op >= OP_ONE48;
        double limit = is48 ? 8388608.0 : 536870912.0;
        refuse_value(0, limit, op);
        refuse_value(-limit, 0, op);
        refuse_value(limit / 2, limit / 2, op); /* only the sum is too large */
        refuse_value(0, (double)NAN, op);
        refuse_value((double)INFINITY, 0, op);
        if (is48)
            refuse_value(0, RIG_UNIT / 2, op); /* no multiple */
    }
}

static void test_pack(void **state)
{
    (void)state;
    double in[5] = {8388608.0 - RIG_UNIT, -8388608.0 + RIG_UNIT, -RIG_UNIT, 0, 1.5}, out[5];
    unsigned char wire[30];
    for (size_t n = 0; n <= 5; n++) {
        memset(wire, 0xaa, sizeof wire);
        memset(out, 0, sizeof out);
        assert_true(link_pack(wire, in, n, LINK_WIRE_INT48));
        for (size_t i = 6 * n; i < sizeof wire; i++)
            assert_int_equal(wire[i], 0xaa);
        assert_true(link_unpack(out, wire, n, LINK_WIRE_INT48));
        assert_memory_equal(in, out, n * sizeof *in);
    }
    static const unsigned char minus_one[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    assert_memory_equal(wire + 12, minus_one, 6);
}

/* What blocks hold comes out as it went in, and a block is as short as its values allow. */
static void test_blocks(void **state)
{
    (void)state;
    static const double odd[] = {128 - RIG_UNIT, -128 + RIG_UNIT, RIG_UNIT, 0, 128, -128, 1e8,
                                 RIG_UNIT / 2,   1.0 / 3};
    double in[130], out[130];
    unsigned char wire[8 * 130 + 3];
    for (size_t n = 1; n <= 130; n++)
        for (size_t k = 0; k < BASE_COUNT(odd); k++) {
            size_t at = n - 1, blocks = (n + LINK_BLOCK - 1) / LINK_BLOCK,
                   last = at / LINK_BLOCK * LINK_BLOCK;
            memset(in, 0, sizeof in);
            in[at] = odd[k];
            size_t bytes = link_pack_blocks(wire, in, n), from = 0;
            assert_int_equal(bytes, blocks + 4 * n + (k >= 4 ? 4 * (n - last) : 0));
            for (size_t i = 0; i < n; i += LINK_BLOCK) {
                size_t m = BASE_MIN(n - i, (size_t)LINK_BLOCK);
                assert_int_equal(wire[from], i == last && k >= 4 ? 8 : 4);
                assert_true(link_take_block(out + i, wire + from + 1, wire[from], m, false));
                from += link_block_bytes(wire[from], m);
            }
            assert_int_equal(from, bytes);
            assert_memory_equal(in, out, n * sizeof *in);
        }
}

/* The loops for other instruction sets give the same bits and verdicts as the baseline. */
static void compare_loops(const link_loops *a, const link_loops *b, size_t n, unsigned seed)
{
    static double values[2][300], in[300];
    static unsigned char wire[2][300 * 8 + 5];
    rig_fill(values[0], n, 1, seed);
    rig_fill(in, n, 2, seed);
    if (n > 0 && seed % 4) {
        static const double odd[] = {536870912.0, 8388608.0,         RIG_UNIT / 2, -0.0,
                                     (double)NAN, (double)-INFINITY, -8388608.0,   536870911.0};
        (seed % 8 > 4 ? in : values[0])[seed % n] = odd[seed / 8 % BASE_COUNT(odd)];
    }
    memcpy(values[1], values[0], sizeof values[0]);
    assert_int_equal(a->in_range(in, n, 8388608.0), b->in_range(in, n, 8388608.0));
    bool packed = a->pack_48(wire[0], in, n);
    assert_int_equal(packed, b->pack_48(wire[1], in, n));
    if (packed)
        assert_memory_equal(wire[0], wire[1], 6 * n);
    assert_int_equal(a->add_f64(values[0], (unsigned char *)in, n),
                     b->add_f64(values[1], (unsigned char *)in, n));
    assert_memory_equal(values[0], values[1], 8 * n);
    size_t bytes = a->pack_blocks(wire[0], in, n);
    assert_int_equal(bytes, b->pack_blocks(wire[1], in, n));
    assert_memory_equal(wire[0], wire[1], bytes);
    for (int add = 0; add < 2; add++) {
        assert_int_equal(a->take_32(values[0], wire[0], n, add),
                         b->take_32(values[1], wire[0], n, add));
        assert_memory_equal(values[0], values[1], 8 * n);
    }
    packed = packed && a->pack_48(wire[0], in, n);
    for (int add = 0; add < 2 && packed; add++) {
        assert_int_equal(a->take_48(values[0], wire[0], n, add),
                         b->take_48(values[1], wire[0], n, add));
        assert_memory_equal(values[0], values[1], 8 * n);
    }
}

static void test_loops(void **state)
{
    (void)state;
    const link_loops *other = link_loops_baseline();
#if defined(__x86_64__)
    if (os_cpu_features() & OS_CPU_AVX2)
        other = &link_loops_avx2;
#endif
    for (size_t n = 0; n <= 300; n += n < 20 ? 1 : 35)
        for (unsigned seed = 0; seed < 64; seed++)
            compare_loops(link_loops_baseline(), other, n, seed);
}

/* ---- handshake ------------------------------------------------------------------------------------------------- */

static void refuse_hello(void (*change)(link_group_config *c), const char *name)
{
    net t = {.n = 2};
    os_virtual_clock_init(&t.clock, 0);
    RIG_OK(link_loop_create(&t.loop, 2, 4096, &t.clock.clock, e));
    for (int r = 0; r < 2; r++) {
        link_conn *conns[2] = {NULL, NULL};
        RIG_OK(link_loop_open(&conns[!r], t.loop, r, !r, 0, e));
        link_group_config c = rig_config(r, 2, 1);
        c.clock = &t.clock.clock;
        if (r == 1)
            change(&c);
        RIG_OK(link_group_create(&t.groups[r], &c, conns, e));
    }
    for (int i = 0; i < 10; i++)
        for (int r = 0; r < 2; r++)
            (void)link_group_progress(t.groups[r]);
    for (int r = 0; r < 2; r++) {
        err e;
        assert_int_equal(link_group_status(t.groups[r], &e), STATUS_CONFLICT);
        assert_false(link_group_ready(t.groups[r]));
        if (!strstr(e.text, name))
            fail_msg("%s is not in: %s", name, e.text);
    }
    net_close(&t);
}

static void change_version(link_group_config *c)
{
    c->protocol = LINK_PROTOCOL + 1;
}

static void change_epoch(link_group_config *c)
{
    c->epoch.number = 1;
}

static void change_term(link_group_config *c)
{
    c->epoch.term = 9;
}

static void change_node(link_group_config *c)
{
    c->epoch.node++;
}

static void change_numerics(link_group_config *c)
{
    memcpy(c->numerics, "bf16/1", 7);
}

static void change_model(link_group_config *c)
{
    c->model[31] ^= 1;
}

static void change_plan(link_group_config *c)
{
    c->plan[0] ^= 1;
}

static void change_cost(link_group_config *c)
{
    c->cost.us_per_byte *= 2;
}

static void test_handshake(void **state)
{
    (void)state;
    refuse_hello(change_version, "protocol version");
    refuse_hello(change_epoch, "epoch");
    refuse_hello(change_term, "epoch");
    refuse_hello(change_node, "epoch");
    refuse_hello(change_numerics, "numerics");
    refuse_hello(change_model, "model hash");
    refuse_hello(change_plan, "plan hash");
    refuse_hello(change_cost, "link cost");
}

/* ---- a hostile peer -------------------------------------------------------------------------------------------- */

static void put(link_conn *c, link_header h, const void *payload, size_t n)
{
    unsigned char header[LINK_HEADER_BYTES];
    size_t taken;
    link_header_write(header, &h);
    link_part parts[2] = {{header, sizeof header}, {payload, n}};
    RIG_OK(c->ops->put(c->self, parts, &taken, e));
    assert_int_equal(taken, sizeof header + n);
}

/* A good handshake from rank 1, then the frame h; what rank 0's receive of 8 bytes says. */
static void refuse_frame(link_header h, size_t n, status code, const char *text)
{
    link_loop *loop;
    link_conn *conns[2] = {NULL, NULL}, *peer;
    link_group *g;
    link_op *op;
    unsigned char hello[LINK_HELLO_BYTES], payload[512] = {0}, to[8];
    err e2;
    RIG_OK(link_loop_create(&loop, 2, 4096, NULL, e));
    RIG_OK(link_loop_open(&conns[1], loop, 0, 1, 0, e));
    RIG_OK(link_loop_open(&peer, loop, 1, 0, 0, e));
    link_group_config c = rig_config(0, 2, 1);
    RIG_OK(link_group_create(&g, &c, conns, e));
    RIG_OK(link_recv_start(&op, g, 1, 0, to, sizeof to, e));
    link_hello_write(hello, &c, 1, 0);
    put(peer,
        (link_header){
            .kind = LINK_MESSAGE_HELLO, .bytes = sizeof hello, .epoch = link_epoch_tag(c.epoch)},
        hello, sizeof hello);
    put(peer, h, payload, n);
    assert_int_equal(link_op_wait(op, &e2), code);
    if (code != STATUS_OK && !strstr(e2.text, text))
        fail_msg("%s is not in: %s", text, e2.text);
    link_conn_close(peer);
    link_group_destroy(g);
    link_loop_destroy(loop);
}

/* A frame of blocks that does not hold what it should is refused, whatever its length says. */
static void refuse_blocks(const unsigned char *payload, size_t n, status code, const char *text)
{
    link_loop *loop;
    link_conn *conns[2] = {NULL}, *peer;
    link_group *g;
    link_op *op;
    double values[70] = {0};
    err why;
    link_group_config c = rig_config(0, 2, 1);
    unsigned char hello[LINK_HELLO_BYTES];
    RIG_OK(link_loop_create(&loop, 2, 1 << 16, NULL, e));
    RIG_OK(link_loop_open(&conns[1], loop, 0, 1, 0, e));
    RIG_OK(link_loop_open(&peer, loop, 1, 0, 0, e));
    RIG_OK(link_group_create(&g, &c, conns, e));
    RIG_OK(link_sum_start(&op, g, values, 70, LINK_WIRE_BLOCKS, LINK_SUM_ONE_SHOT, e));
    link_hello_write(hello, &c, 1, 0);
    uint64_t epoch = link_epoch_tag(c.epoch);
    put(peer, (link_header){.kind = LINK_MESSAGE_HELLO, .bytes = LINK_HELLO_BYTES, .epoch = epoch},
        hello, sizeof hello);
    put(peer,
        (link_header){.kind = LINK_MESSAGE_DATA,
                      .op = 8 | /* SUM_BLOCKS */ LINK_SUM_ONE_SHOT << 4,
                      .bytes = (uint32_t)n,
                      .sequence = 1,
                      .epoch = epoch},
        payload, n);
    for (int i = 0; i < 4; i++)
        (void)link_group_progress(g);
    assert_int_equal(link_group_status(g, &why), code);
    if (code != STATUS_OK)
        assert_non_null(strstr(why.text, text));
    assert_int_equal(link_op_wait(op, NULL), code);
    link_conn_close(peer);
    link_group_destroy(g);
    link_loop_destroy(loop);
}

static void test_hostile_blocks(void **state)
{
    (void)state;
    enum { SHORT = 1 + 4 * 64, ALL = SHORT + 1 + 4 * 6, MOST = 2 + 8 * 70 };
    static unsigned char frame[MOST + 1];
    frame[0] = frame[SHORT] = 4;
    refuse_blocks(frame, ALL, STATUS_OK, "");
    refuse_blocks(frame, ALL - 1, STATUS_CORRUPT, "inside a block");
    refuse_blocks(frame, SHORT, STATUS_CORRUPT, "behind value 64 of 70");
    refuse_blocks(frame, SHORT - 1, STATUS_CORRUPT, "inside a block");
    refuse_blocks(frame, 1, STATUS_CORRUPT, "inside a block");
    refuse_blocks(frame, ALL + 1, STATUS_CORRUPT, "not a block");
    refuse_blocks(frame, MOST + 1, STATUS_CORRUPT, "expected op");
    frame[SHORT] = 5;
    refuse_blocks(frame, ALL, STATUS_CORRUPT, "not a block");
    frame[0] = 8;
    frame[1 + 8 * 64] = 8;
    refuse_blocks(frame, MOST, STATUS_OK, "");
    refuse_blocks(frame, MOST - 1, STATUS_CORRUPT, "inside a block");
    frame[8] = 0x7f; /* 2^1009: out of range */
    refuse_blocks(frame, MOST, STATUS_TOO_LARGE, "out of range");
}

static void test_hostile(void **state)
{
    (void)state;
    uint64_t epoch = UINT64_C(3) << 32 | 2;
    link_header good = {LINK_MESSAGE_DATA, 5 /* a message */, 0, 8, 1, epoch}, h;
    refuse_frame(good, 8, STATUS_OK, "");
    h = good, h.epoch--;
    refuse_frame(h, 8, STATUS_CONFLICT, "older");
    h = good, h.epoch++;
    refuse_frame(h, 8, STATUS_CONFLICT, "newer");
    h = good, h.sequence = 2;
    refuse_frame(h, 8, STATUS_CORRUPT, "frame 2");
    h = good, h.bytes = 9;
    refuse_frame(h, 9, STATUS_CORRUPT, "of 9 bytes");
    h = good, h.bytes = UINT32_MAX;
    refuse_frame(h, 9, STATUS_CORRUPT, "4294967295");
    h = good, h.bytes = 0;
    refuse_frame(h, 0, STATUS_CORRUPT, "0 bytes");
    h = good, h.op = 1;
    refuse_frame(h, 8, STATUS_CORRUPT, "op 01");
    h = good, h.phase = 1;
    refuse_frame(h, 8, STATUS_CORRUPT, "phase 1");
    h = good, h.kind = 99;
    refuse_frame(h, 8, STATUS_CORRUPT, "unknown kind");
    h = good, h.kind = LINK_MESSAGE_HELLO;
    refuse_frame(h, 8, STATUS_CORRUPT, "second handshake");
    h = good, h.kind = LINK_MESSAGE_ABORT, h.bytes = 257;
    refuse_frame(h, 257, STATUS_CORRUPT, "257 bytes");
    h = good, h.kind = LINK_MESSAGE_ABORT;
    refuse_frame(h, 8, STATUS_CANCELLED, "ended the group: ????");
    h = good, h.kind = LINK_MESSAGE_ABORT, h.bytes = 3;
    refuse_frame(h, 3, STATUS_CANCELLED, "ended the group");
}

/* ---- faults ---------------------------------------------------------------------------------------------------- */

/* The op, and two sums behind it; then, where anything failed, one more in which nobody may succeed. Returns whether anything failed. */
static bool run_under(int op, link_fault fault, int n)
{
    net t;
    net_form = op <= OP_RING_Q8 ? form_of(op) : LINK_WIRE_F64;
    net_open(&t, n, fault.frame % 2 ? 1 << 16 : 333, fault);
    bool failed[RIG_RANKS] = {false};
    int n_failed = run(&t, op, 50, 3, failed);
    n_failed += run(&t, OP_TWO, 20, 4, failed);
    n_failed += run(&t, OP_RING, 9, 5, failed);
    if (n_failed > 0)
        assert_int_equal(run(&t, OP_TWO, 30, 6, failed), n);
    net_close(&t);
    net_form = LINK_WIRE_F64;
    return n_failed > 0;
}

static void test_faults(void **state)
{
    (void)state;
    static const int pairs[][2] = {{0, 1}, {1, 2}, {2, 0}, {1, -1}};
    int struck = 0;
    for (int kind = LINK_FAULT_NONE + 1; kind < LINK_FAULT_COUNT; kind++)
        for (int op = 0; op < N_OPS; op++)
            for (size_t p = 0; p < BASE_COUNT(pairs); p++) {
                link_fault fault = {(link_fault_kind)kind, pairs[p][0], pairs[p][1], 0, 0};
                uint64_t frame = 0;
                if (kind == LINK_FAULT_DELAY) {
                    for (; frame < 4; frame++) {
                        fault.frame = frame;
                        fault.delay_us = DEADLINE_US / 2;
                        assert_false(run_under(op, fault, 3));
                        fault.delay_us = 3 * DEADLINE_US;
                        struck += run_under(op, fault, 3);
                    }
                    continue;
                }
                for (; frame < 100; frame++) {
                    fault.frame = frame;
                    if (!run_under(op, fault, 3))
                        break;
                }
                /* HELLO, and at least a frame of one of the sums */
                assert_in_range(frame, 2, 99);
                struck += (int)frame;
            }
    print_message("%d faults struck\n", struck);
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static void test_allocations(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth < 300; nth++) {
        link_loop *loop = NULL;
        link_conn *conns[2] = {NULL, NULL}, *shaped;
        link_group *g = NULL;
        link_op *op;
        err e;
        base_fail_after(nth);
        status s = link_loop_create(&loop, 2, 4096, NULL, &e);
        if (s == STATUS_OK)
            s = link_loop_open(&conns[1], loop, 0, 1, 0, &e);
        if (s == STATUS_OK) {
            s = link_shape_open(&shaped, conns[1], 5, 0, NULL, &e);
            conns[1] = shaped;
        }
        if (s == STATUS_OK) {
            link_group_config c = rig_config(0, 2, 1);
            s = link_group_create(&g, &c, conns, &e);
        }
        if (s == STATUS_OK)
            s = link_sum_start(&op, g, memories[0].values, 0, LINK_WIRE_INT48, LINK_SUM_AUTO, &e);
        if (s == STATUS_OK)
            s = link_op_wait(op, &e);
        base_fail_after(0);
        link_group_destroy(g);
        link_loop_destroy(loop);
        if (s == STATUS_OK)
            return;
        assert_int_equal(s, STATUS_NO_MEMORY);
    }
    fail();
}

static void test_cancel(void **state)
{
    (void)state;
    net t;
    net_open(&t, 3, 4096, (link_fault){0});
    assert_int_equal(run(&t, OP_ONE, 5, 1, NULL), 0);
    link_op *op;
    char c;
    RIG_OK(link_recv_start(&op, t.groups[0], 1, 0, &c, 1, e));
    link_group_abort(t.groups[0], STATUS_CANCELLED, "a newer epoch");
    err e;
    assert_int_equal(link_op_wait(op, &e), STATUS_CANCELLED);
    assert_int_equal(run(&t, OP_ONE, 5, 2, NULL), 3);
    assert_int_equal(link_group_status(t.groups[2], &e), STATUS_CANCELLED);
    assert_non_null(strstr(e.text, "a newer epoch"));
    assert_non_null(strstr(e.text, "rank 0"));
    net_close(&t);
}

/* A rank that has finished and says goodbye is no failure for those that still work with others. */
static void test_goodbye(void **state)
{
    (void)state;
    net t;
    net_open(&t, 3, 4096, (link_fault){0});
    assert_int_equal(run(&t, OP_ONE, 5, 1, NULL), 0);
    link_group_destroy(t.groups[2]);
    t.n = 2;
    assert_int_equal(run(&t, OP_PASS, 0, 1, NULL), 0);
    link_op *op;
    char c;
    err why;
    RIG_OK(link_recv_start(&op, t.groups[0], 2, 0, &c, 1, e)); /* but nothing more comes from it */
    assert_int_equal(link_op_wait(op, &why), STATUS_CLOSED);
    net_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lossy),          cmocka_unit_test(test_auto),
        cmocka_unit_test(test_loops),          cmocka_unit_test(test_sums),
        cmocka_unit_test(test_others),         cmocka_unit_test(test_together),
        cmocka_unit_test(test_choice),         cmocka_unit_test(test_range),
        cmocka_unit_test(test_pack),           cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_hostile_blocks), cmocka_unit_test(test_handshake),
        cmocka_unit_test(test_hostile),        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_patience),       cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_cancel),         cmocka_unit_test(test_goodbye),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
