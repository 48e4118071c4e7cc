/*
 * link: the data plane. Ranks of one model exchange frames over connections; N ranks with an epoch form a group; the group sums
 * exactly, gathers, broadcasts and passes messages between two.
 *
 *   link_conn   an ordered, reliable, authenticated or trusted way between two ranks, made by a back end:
 *               tls   TCP and TLS 1.3 with an external pre-shared key (RFC 8446); everywhere
 *               shm   two rings in shared memory and a socket that is doorbell and sign of life; ranks of one host
 *               ucx   RDMA, where UCX was found at build time; plaintext, for trusted links
 *               loop  inside one process, with faults on order and any clock; tests, and ranks that are threads
 *               shape a decorator: adds latency and caps bandwidth of any of them; tests and benchmarks
 *   link_group  one connection per peer and lane (lane 0: small and urgent, further ones: bulk), an epoch, a deadline for every op.
 *
 * How it works. Both sides issue their ops in the same order (per pair of ranks), so both can derive every frame that will pass: its op,
 * phase, length and number. Starting an op posts all its receives at once; payloads go straight to their place; there is no rendezvous.
 * A frame that is not exactly the expected one, of another epoch, or a connection that ends without GOODBYE is a failure, and any failure
 * ends the whole group: every pending and later op returns an error, the peers are told why (ABORT) and the connections are closed.
 *
 * Exact sums (DESIGN section 7, contract (b)). Values are doubles that are multiples of 2^-24 with |sum| < 2^29, so addition is exact in
 * any order and all algorithms give the same bits on every rank. LINK_WIRE_INT48 sends 6 bytes a value and needs |v| < 2^23. Every input,
 * every partial sum and the result must stay in range; a value out of range, not a number, or (int48) not a multiple of 2^-24 is an error
 * of the whole group. Rounding to f32 is the caller's.
 *
 * Threads: one thread owns a group and drives it; nothing runs in the background. Only link_group_abort may come from another thread.
 * The two ends of a loop or shm connection may belong to different threads.
 * Waiting: spin for spin_us, then poll(2). Every op ends at its deadline at the latest; time in which this process was stopped (it, or
 * its machine) does not count. No allocation after a group's first ops of a size.
 * Errors: CLOSED (peer gone), TIMEOUT, CONFLICT (handshake field or epoch), DENIED (key), CORRUPT (frame), TOO_LARGE (range), CANCELLED.
 * Not here: who is where, keys (src/cluster), heartbeats, which tensors are summed (src/graph).
 */
#ifndef SHOAL_LINK_H
#define SHOAL_LINK_H

#include "os/os.h"

#define LINK_PROTOCOL  2u
#define LINK_MAX_RANKS 64
#define LINK_MAX_LANES 8
#define LINK_MAX_OPS   32                  /* started and not yet waited for, per group */
#define LINK_MAX_BYTES (UINT64_C(1) << 30) /* of one frame */

#define LINK_NUMERICS_BYTES 32

/* ---- connections ----------------------------------------------------------------------------------------------- */

enum { LINK_ENCRYPTED = 1, LINK_SAME_HOST = 2 };

typedef struct link_conn link_conn;

const char *link_conn_name(const link_conn *c); /* "tls" */
unsigned link_conn_caps(const link_conn *c);
void link_conn_close(
    link_conn *
        c); /* at once, nothing is flushed; NULL is fine. A group closes the connections it was given. */

/* tls. fd: a connected stream socket (os_tcp_connect, os_tcp_accept), owned from here on, also on error. Returns at once; the handshake
 * happens while the group is driven. key: 32 bytes, one per link and epoch; identity: a name of the link that both sides know. */
status link_tls_open(link_conn **out, int fd, bool server, const unsigned char key[32],
                     const char *identity, err *e);

/* ucx: RDMA, or shared memory of the same host; UNSUPPORTED in a build without UCX. Plaintext: a link that is not trusted is DENIED. fd: a
 * connected stream socket, owned from here on, also on error; it carries addresses and is the sign of life. */
status link_ucx_open(link_conn **out, int fd, bool trusted, err *e);

/* shm. create makes the two descriptors of each side (a stream socket and the memory), to be passed to its process (os_send_descriptors)
 * or used here; open maps and owns them, also on error. ring_bytes: a power of two ≥ 4096, per direction. */
typedef struct link_shm_end {
    int socket_fd, memory_fd;
} link_shm_end;
status link_shm_create(link_shm_end ends[2], size_t ring_bytes, err *e);
status link_shm_open(link_conn **out, link_shm_end end, int side, err *e);

/* loop. A net joins n ranks; its clock decides delays. Connections of one net may be used from several threads; a virtual clock only from
 * one. The net must outlive its connections. capacity: bytes in flight per direction (small ones exercise partial writes). */
typedef struct link_loop link_loop;
typedef enum link_fault_kind {
    LINK_FAULT_NONE,
    LINK_FAULT_LOSS,  /* that frame disappears */
    LINK_FAULT_DELAY, /* it and what follows come delay_us later */
    LINK_FAULT_STALL, /* it and what follows never come, the connection stays open */
    LINK_FAULT_RESET, /* the connection is cut for both sides, what was under way is lost */
    LINK_FAULT_CUT,   /* half of the frame comes, then the connection is cut */
    LINK_FAULT_FLIP,  /* one bit of its header is wrong */
    LINK_FAULT_DEATH, /* all connections of rank `from` are cut */
    LINK_FAULT_COUNT
} link_fault_kind;
typedef struct link_fault {
    link_fault_kind kind;
    int from, to; /* to -1: whichever peer gets the frame */
    uint64_t
        frame; /* the n-th frame (0 = HELLO) that `from` sends to `to`; with to −1 the n-th that it sends at all */
    uint64_t delay_us;
} link_fault;
status link_loop_create(link_loop **out, int n_ranks, size_t capacity, os_clock *clock, err *e);
void link_loop_destroy(link_loop *l);
void link_loop_fault(link_loop *l,
                     link_fault fault); /* before the first connection is used; one per net */
status link_loop_open(link_conn **out, link_loop *l, int rank, int peer, int lane, err *e);

/* shape. Owns inner, also on error. What this side sends comes out of the other latency_us later, and no faster than bytes_per_s (0: no
 * cap), whatever this side does meanwhile. Both sides are shaped, in one machine or over one virtual clock. */
status link_shape_open(link_conn **out, link_conn *inner, uint64_t latency_us, double bytes_per_s,
                       os_clock *clock, err *e);

/* ---- groups ---------------------------------------------------------------------------------------------------- */

typedef struct link_epoch {
    uint32_t term, number; /* compared in this order */
    uint64_t node;         /* who opened the term */
} link_epoch;

/* A message of n bytes takes latency_us + n · us_per_byte; measured by the caller, the same numbers on every rank (handshake). */
typedef struct link_cost {
    double latency_us, us_per_byte;
} link_cost;

typedef struct link_group_config {
    int rank, n_ranks, n_lanes;
    link_epoch epoch;
    char numerics[LINK_NUMERICS_BYTES]; /* NUL padded, "exact/1" */
    unsigned char model[32], plan[32];
    link_cost cost;
    uint64_t deadline_us; /* of every op, from its start; 0: 60 s */
    uint64_t hello_us;    /* of the handshake; 0: deadline_us */
    uint64_t spin_us;     /* before poll */
    os_clock *clock;      /* NULL: the real one */
    uint32_t protocol;    /* 0: LINK_PROTOCOL */
} link_group_config;

typedef struct link_group link_group;
typedef struct link_op link_op;

/* conns: [n_ranks · n_lanes], [peer · n_lanes + lane], NULL for the own rank; owned by the group from here on, also on error. Returns at
 * once; link_group_wait waits for every peer's handshake (ops may be started before). */
status link_group_create(link_group **out, const link_group_config *config, link_conn **conns,
                         err *e);
status link_group_wait(link_group *g, err *e);
bool link_group_ready(const link_group *g);
/* Tells the peers (ABORT), ends all ops with `why`. From any thread; takes effect when the owner next drives the group, or within 50 ms. */
void link_group_abort(link_group *g, status why, const char *text);
/* Says GOODBYE where the group is whole, then closes. Ops still pending are cancelled (and the group aborted). */
void link_group_destroy(link_group *g);
/* Moves what can be moved; never blocks. Returns whether anything moved. */
bool link_group_progress(link_group *g);
status link_group_status(const link_group *g, err *e); /* OK, or why it failed */
uint64_t link_group_sent_bytes(const link_group *g);   /* payloads and headers, before encryption */

/* What a connection does: one way from rank to rank, and a stream. */
typedef struct link_rates {
    double small_us, middle_us; /* 64 B, 16 KiB */
    double bytes_per_s;
} link_rates;
/* Measures every pair of ranks over lane 0 by real time; all ranks call it between the same two ops. all: [n_ranks², from · n_ranks + to], the
 * same on every rank, or NULL. From then on the group's cost is that of its worst pair. Takes some 50 ms for each other rank. */
status link_measure(link_group *g, link_rates *all, err *e);
link_cost link_cost_of(const link_rates *rates);
link_cost link_group_cost(const link_group *g);

/* ---- ops -------------------------------------------------------------------------------------------------------- */

/* link_X_start begins an op; memory given to it is borrowed until link_op_wait has returned, which also frees the op. link_X does both. */
bool link_op_done(const link_op *op);
/* This op may wait as long as the peers live: for the next step of a leader that has none to make now. Or so long from now. */
void link_op_patient(link_op *op);
void link_op_allow(link_op *op, uint64_t us);
/* And not any longer: its deadline counts from now. */
void link_op_due(link_op *op);
status link_op_wait(link_op *op, err *e);

/* What a value is on the wire: 8 bytes, 6, 4 or 8 as a block of 64 needs, 2, or 34 for 32 of them. The first three are exact and give the same
 * bits; f64 and blocks take any doubles, where their sums are exact. The last two round what
 * goes (and what stays here, so that all ranks have the same sums); which sums depends on the way, and so on N and the cost: only for groups
 * whose numerics class says so (link_numerics), else CONFLICT. */
typedef enum link_wire {
    LINK_WIRE_F64,
    LINK_WIRE_INT48,
    LINK_WIRE_BLOCKS, /* not round a ring: two shots instead */
    LINK_WIRE_BF16,
    LINK_WIRE_Q8,
    LINK_WIRE_AUTO /* f64 or blocks: what is there sooner by the group's cost */
} link_wire;
/* The class of a model whose kernels are of class `kernels` ("exact/1") and whose sums may travel so: "exact/1", "exact/1+bf16",
 * "exact/1+q8". For link_group_config.numerics, so that ranks of different classes refuse each other. */
status link_numerics(char out[LINK_NUMERICS_BYTES], const char *kernels, link_wire wire, err *e);
typedef enum link_sum_way {
    LINK_SUM_AUTO,
    LINK_SUM_ONE_SHOT, /* everyone sends everything to everyone: 1 step, (N − 1) n bytes */
    LINK_SUM_TWO_SHOT, /* each owns a part: 2 steps, 2 (N − 1) n / N bytes */
    LINK_SUM_RING,     /* 2 (N − 1) steps of n / N bytes, one neighbour at a time */
    LINK_SUM_SCATTER   /* what link_scatter does; not for link_sum_start */
} link_sum_way;
/* What AUTO chooses for n values. Pure. */
link_sum_way link_sum_choose(int n_ranks, size_t n, link_wire wire, link_cost cost);
link_wire link_wire_choose(int n_ranks, size_t n, link_cost cost);

/* In place: values [n] become the sums over all ranks. n may be 0. */
status link_sum_start(link_op **out, link_group *g, double *values, size_t n, link_wire wire,
                      link_sum_way way, err *e);
status link_sum(link_group *g, double *values, size_t n, link_wire wire, err *e);
/* A sum of which every rank wants a part: parts[r] values of rank r, one rank's behind another's, may be 0. The own part becomes the sums, the
 * others are as they were. With a gather of what each rank makes of its part it is cheaper than a sum by which all make everything:
 * link_scatter_pays says when, for n values and gathered_bytes of all ranks together; pure, without the work that is saved. */
bool link_scatter_pays(int n_ranks, size_t n, size_t gathered_bytes, link_cost cost);
status link_scatter_start(link_op **out, link_group *g, double *values, const size_t *parts,
                          link_wire wire, err *e);
status link_scatter(link_group *g, double *values, const size_t *parts, link_wire wire, err *e);
/* all: the parts of every rank one after the other, bytes[r] each (may be 0); the own part is in place. bytes is read at once only. */
status link_gather_start(link_op **out, link_group *g, void *all, const size_t *bytes, err *e);
status link_gather(link_group *g, void *all, const size_t *bytes, err *e);
status link_broadcast_start(link_op **out, link_group *g, int root, void *bytes, size_t n, err *e);
status link_broadcast(link_group *g, int root, void *bytes, size_t n, err *e);
status link_send_start(link_op **out, link_group *g, int peer, int lane, const void *bytes,
                       size_t n, err *e);
status link_recv_start(link_op **out, link_group *g, int peer, int lane, void *bytes, size_t n,
                       err *e);
/* A message from every other rank r with bytes[r] > 0, to to[r]: [n_ranks] both, lane 0. They send it with link_send. */
status link_collect_start(link_op **out, link_group *g, void *const *to, const size_t *bytes,
                          err *e);
status link_send(link_group *g, int peer, int lane, const void *bytes, size_t n, err *e);
status link_recv(link_group *g, int peer, int lane, void *bytes, size_t n, err *e);

#endif
