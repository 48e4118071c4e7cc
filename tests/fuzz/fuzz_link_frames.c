/*
 * Bytes from a peer: whatever comes over a connection, a group with ops pending ends them or goes on waiting, and writes nowhere else.
 * The first byte chooses what is pending; the rest is what the peer sends.
 */
#include "link/inside.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Offers the bytes in pieces until they are taken or the group has failed. */
static void feed(link_conn *peer, link_group *g, const uint8_t *data, size_t n)
{
    for (size_t at = 0; at < n && link_group_status(g, NULL) == STATUS_OK;) {
        link_part parts[2] = {{data + at, n - at}, {NULL, 0}};
        size_t taken = 0;
        bool moved = false;
        uint64_t again = UINT64_MAX;
        if (n - at < LINK_HEADER_BYTES ||
            peer->ops->put(peer->self, parts, &taken, NULL) != STATUS_OK)
            return;
        (void)peer->ops->pump(peer->self, &again, &moved, NULL);
        moved = link_group_progress(g);
        if (taken == 0 && !moved)
            return;
        at += taken;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    link_loop *loop;
    link_conn *conns[2] = {NULL, NULL}, *peer;
    link_group *g;
    link_op *op;
    double values[40] = {0};
    const size_t bytes[2] = {24, 16};
    link_group_config c = {
        .rank = 0, .n_ranks = 2, .n_lanes = 1, .deadline_us = 60000000, .numerics = "f+q8"};
    if (n == 0 || link_loop_create(&loop, 2, 1 << 16, NULL, NULL) != STATUS_OK)
        return 0;
    if (link_loop_open(&conns[1], loop, 0, 1, 0, NULL) == STATUS_OK &&
        link_loop_open(&peer, loop, 1, 0, 0, NULL) == STATUS_OK &&
        link_group_create(&g, &c, conns, NULL) == STATUS_OK) {
        if (data[0] >= 128)
            (void)link_sum_start(&op, g, values, 37,
                                 data[0] & 16  ? LINK_WIRE_BLOCKS
                                 : data[0] & 8 ? LINK_WIRE_Q8
                                               : LINK_WIRE_F64,
                                 (link_sum_way)(1 + data[0] % 3), NULL);
        else if (data[0] % 3 == 0)
            (void)link_sum_start(&op, g, values, 5, LINK_WIRE_F64, LINK_SUM_TWO_SHOT, NULL);
        else if (data[0] % 3 == 1)
            (void)link_sum_start(&op, g, values, 5, LINK_WIRE_INT48, LINK_SUM_AUTO, NULL);
        else
            (void)link_gather_start(&op, g, values, bytes, NULL);
        if (data[0] & 4) { /* a good handshake first */
            unsigned char frame[LINK_HEADER_BYTES + LINK_HELLO_BYTES];
            link_header h = {.kind = LINK_MESSAGE_HELLO, .bytes = LINK_HELLO_BYTES};
            link_header_write(frame, &h);
            link_hello_write(frame + LINK_HEADER_BYTES, &c, 1, 0);
            feed(peer, g, frame, sizeof frame);
        }
        feed(peer, g, data + 1, n - 1);
        link_conn_close(peer);
        (void)link_group_progress(g);
        link_group_destroy(g);
    }
    link_loop_destroy(loop);
    return 0;
}
