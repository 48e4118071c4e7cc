/*
 * Inside link: a group's state, between group.c (moves frames) and ops.c (says which frames make an op).
 */
#ifndef SHOAL_LINK_GROUP_H
#define SHOAL_LINK_GROUP_H

#include "link/inside.h"

#include <stdatomic.h>

#define LINK_CONTROL_BYTES 256 /* payload of HELLO and ABORT */
#define LINK_STAGE_BYTES   8192
_Static_assert((int)LINK_HELLO_BYTES <= LINK_CONTROL_BYTES, "HELLO is a control frame");

/* What becomes of the payload of a frame that comes. */
enum link_fate {
    LINK_FATE_BYTES, /* goes to its place as it is */
    LINK_FATE_ADD,   /* values, added to those at its place */
    LINK_FATE_STORE  /* values, instead of those at its place */
};

/* One DATA frame that will go or come. Owned by its op; queued on its connection from the start of the op. */
typedef struct link_item {
    struct link_item *next;
    link_op *op;
    unsigned char *bytes; /* of what goes, and of what comes as bytes */
    double *values;       /* of what comes as values: [n_values] */
    uint32_t n, n_values; /* n: of what comes in blocks the most, until its header is there */
    uint32_t done;        /* of what comes as values: so many have */
    uint32_t gone;        /* of what goes: bytes that the connection has taken */
    uint8_t phase, fate;
    bool goes;
    bool guarded; /* of what comes: changes values that items of the same phase are still sending */
} link_item;

typedef struct link_queue {
    link_item *head, **tail;
} link_queue;

/* One connection to one peer. */
typedef struct link_way {
    link_conn *conn; /* NULL: ourselves, or closed */
    link_queue out, in;
    /* the frame that is going: a control frame when control_left > 0, else the head of `out` when header_made */
    unsigned char control[LINK_HEADER_BYTES + LINK_CONTROL_BYTES];
    size_t control_bytes, control_sent;
    unsigned char header[LINK_HEADER_BYTES];
    bool header_made;
    size_t sent; /* of header and payload */
    uint32_t out_sequence;
    /* the frame that comes */
    unsigned char in_header[LINK_HEADER_BYTES];
    unsigned char in_control[LINK_CONTROL_BYTES];
    link_header coming;
    bool header_read;
    size_t got; /* of the header, then of the payload */
    unsigned char
        *stage; /* owned, [LINK_STAGE_BYTES] on lane 0: values that came in pieces of units */
    size_t staged;
    uint32_t in_sequence;
    bool welcomed, said_goodbye, blocked;
} link_way;

enum link_op_kind {
#define OP(name, number) LINK_OP_##name = number,
#include "link/ops.def"
#undef OP
};

struct link_op {
    link_group *group;
    bool used, done;
    status result;
    int phase, n_phases;
    int left[4 * LINK_MAX_RANKS];   /* [phase]: frames that are still to go or to come */
    uint64_t deadline_us, until_us; /* from its start; when that is over */
    uint8_t kind, code;             /* code: kind and, for sums, the way; on the wire */
    link_sum_way way;
    link_wire wire;
    double *values; /* of a sum: [n] */
    size_t n;
    size_t begin[LINK_MAX_RANKS + 1]; /* of a sum's parts */
    unsigned char *
        scratch; /* owned, kept for later ops: what goes, in the form of the wire, if that is not f64 */
    size_t scratch_bytes;
    link_item *items; /* owned, [4 (N − 1)] */
    int n_items;
};

struct link_group {
    link_group_config config;
    uint64_t epoch;
    link_way *ways; /* [n_ranks, n_lanes] */
    link_op ops[LINK_MAX_OPS];
    uint64_t hello_until_us, sent_bytes;
    /* of the thread that drives it; real time: whether it has its core to itself */
    uint64_t preemptions, delay_us, looked_us, shared_until_us;
    int n_welcomed, n_peers; /* connections */
    bool ready;
    status failed;
    err why;
    _Atomic int abort_asked; /* 0 no, 1 being written, 2 yes */
    status abort_status;
    char abort_text[LINK_CONTROL_BYTES - 8];
};

/* Ends everything: tells the peers, closes, all ops get the error. The first failure stays. */
void link_group_fail(link_group *g, status s, const char *text);
/* A free op with its deadline set, or BUSY, or the failure of the group. */
status link_op_begin(link_op **out, link_group *g, int kind, int n_phases, err *e);
/* Queues a frame of op's phase; n 0 is nothing. */
void link_op_send(link_op *op, int phase, int peer, int lane, const void *bytes, size_t n);
void link_op_recv(link_op *op, int phase, int peer, int lane, void *bytes, size_t n);
/* A frame of n values of the op's wire, added to or stored in values; on lane 0. */
void link_op_recv_values(link_op *op, int phase, int peer, double *values, size_t n,
                         enum link_fate fate, bool guarded);
/* All frames are queued: phases that have none end at once. */
void link_op_commit(link_op *op);
/* The work behind a phase (ops.c). False: a value is out of range. */
bool link_op_after(link_op *op, int phase);
/* A value of op is out of range. */
void link_op_fail_range(link_op *op);
/* Values that come for the first item of the way's queue (values.c): how many bytes of its payload may be taken now, and taking them. CORRUPT:
 * the payload does not hold the item's values. */
size_t link_values_wanted(const link_way *w);
status link_values_pull(link_way *w, bool *moved, err *e);

#endif
