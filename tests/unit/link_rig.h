/*
 * What the tests of link share: the mesh of descriptors between N ranks over tls or shm, configurations, values to sum and their sums.
 */
#ifndef LINK_RIG_H
#define LINK_RIG_H

#include "link/link.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RIG_RANKS 6
#define RIG_UNIT  (1.0 / 16777216)

enum rig_kind { RIG_TLS, RIG_SHM, RIG_UCX };

typedef struct rig {
    int n, lanes;
    enum rig_kind kind[RIG_RANKS][RIG_RANKS];
    int fd[RIG_RANKS][RIG_RANKS][2], memory[RIG_RANKS][RIG_RANKS][2]; /* [rank, peer, lane] */
} rig;

static const unsigned char rig_key[32] = {1, 2, 3, 4, 5, 6, 7, 8};

#define RIG_OK(call)                                                                               \
    do {                                                                                           \
        err rig_e;                                                                                 \
        err_clear(&rig_e);                                                                         \
        err *e = &rig_e;                                                                           \
        if ((call) != STATUS_OK) {                                                                 \
            fprintf(stderr, "%s\n", rig_e.text);                                                   \
            fail();                                                                                \
        }                                                                                          \
    } while (0)

static inline void rig_join(rig *r, int a, int b, int lane, enum rig_kind kind)
{
    r->kind[a][b] = r->kind[b][a] = kind;
    if (kind == RIG_SHM) {
        link_shm_end ends[2];
        RIG_OK(link_shm_create(ends, 65536, e));
        r->fd[a][b][lane] = ends[0].socket_fd;
        r->memory[a][b][lane] = ends[0].memory_fd;
        r->fd[b][a][lane] = ends[1].socket_fd;
        r->memory[b][a][lane] = ends[1].memory_fd;
        return;
    }
    int listener;
    uint16_t port = 0;
    RIG_OK(os_tcp_listen(&listener, "127.0.0.1", &port, e));
    RIG_OK(os_tcp_connect(&r->fd[a][b][lane], "127.0.0.1", port, 60000000, e));
    RIG_OK(os_tcp_accept(&r->fd[b][a][lane], listener, 60000000, e));
    os_close(listener);
    r->memory[a][b][lane] = r->memory[b][a][lane] = -1;
}

/* mixed: neighbours over shm, others over tls. */
static inline void rig_init(rig *r, int n, int lanes, enum rig_kind kind, bool mixed)
{
    memset(r, 0, sizeof *r);
    r->n = n;
    r->lanes = lanes;
    for (int a = 0; a < n; a++)
        for (int b = a + 1; b < n; b++)
            for (int lane = 0; lane < lanes; lane++)
                rig_join(r, a, b, lane, mixed ? (b == a + 1 ? RIG_SHM : RIG_TLS) : kind);
}

/* Closes the descriptors of all ranks but one (−1: of all), as other processes have them. */
static inline void rig_close_others(const rig *r, int rank)
{
    for (int a = 0; a < r->n; a++)
        for (int b = 0; b < r->n; b++)
            for (int lane = 0; lane < r->lanes && a != b && a != rank; lane++) {
                os_close(r->fd[a][b][lane]);
                os_close(r->memory[a][b][lane]);
            }
}

static inline link_group_config rig_config(int rank, int n, int lanes)
{
    link_group_config c = {.rank = rank,
                           .n_ranks = n,
                           .n_lanes = lanes,
                           .epoch = {3, 2, 77},
                           .cost = {10, 0.001},
                           .deadline_us = 60000000, /* a hang fails; nothing is measured */
                           .spin_us = 50};
    memcpy(c.numerics, "exact/1", 8);
    memset(c.model, 0x11, sizeof c.model);
    memset(c.plan, 0x22, sizeof c.plan);
    return c;
}

static inline status rig_group(link_group **out, const rig *r, const link_group_config *c, err *e)
{
    link_conn *conns[RIG_RANKS * 2] = {NULL};
    status s = STATUS_OK;
    for (int peer = 0; peer < r->n; peer++)
        for (int lane = 0; lane < r->lanes && peer != c->rank && s == STATUS_OK; lane++) {
            link_conn **conn = &conns[peer * r->lanes + lane];
            int fd = r->fd[c->rank][peer][lane];
            if (r->kind[c->rank][peer] == RIG_SHM)
                s = link_shm_open(conn, (link_shm_end){fd, r->memory[c->rank][peer][lane]},
                                  c->rank > peer, e);
            else if (r->kind[c->rank][peer] == RIG_UCX)
                s = link_ucx_open(conn, fd, true, e);
            else
                s = link_tls_open(conn, fd, c->rank > peer, rig_key, "test/3.2", e);
        }
    return s == STATUS_OK ? link_group_create(out, c, conns, e) : s;
}

/* Multiples of 2^-24 of very different sizes, |v| < 2^20. */
static inline double rig_value(int rank, size_t i, unsigned round)
{
    uint64_t h = hash_u64(i * 64 + (uint64_t)rank, round);
    int64_t units = (int64_t)(h >> 20) - (INT64_C(1) << 43);
    return (double)(units >> (h % 40)) * RIG_UNIT;
}

static inline double rig_sum(int n_ranks, size_t i, unsigned round)
{
    int64_t sum = 0;
    for (int r = 0; r < n_ranks; r++)
        sum += (int64_t)(rig_value(r, i, round) / RIG_UNIT);
    return (double)sum * RIG_UNIT;
}

static inline void rig_fill(double *values, size_t n, int rank, unsigned round)
{
    for (size_t i = 0; i < n; i++)
        values[i] = rig_value(rank, i, round);
}

static inline bool rig_is_sum(const double *values, size_t n, int n_ranks, unsigned round)
{
    for (size_t i = 0; i < n; i++) {
        double want = rig_sum(n_ranks, i, round);
        if (!(values[i] >= want && values[i] <= want))
            return false;
    }
    return true;
}

#endif
