/*
 * Values that come: decoded and added to (or stored in) their place straight from the memory of the connection where it can show it
 * (peek), else by way of a small stage that stays in the cache. So a sum has no copy of what its peers sent.
 *
 * In a one-shot sum a rank adds to the very values that it is still sending. Value i is changed only when every peer's connection has
 * taken it (`guarded`). That cannot lock up: the connection that has taken least of all has a reader that is not held back by it.
 *
 * Not here: the forms of values (wire.c), which frames make a sum (ops.c).
 */
#include "link/group.h"

/* How much of the payload may change its place. */
static size_t allowed(const link_item *item)
{
    size_t least = item->n;
    const link_op *op = item->op;
    for (int i = 0; item->guarded && i < op->n_items; i++)
        if (op->items[i].goes && op->items[i].phase == item->phase)
            least = BASE_MIN(least, (size_t)op->items[i].gone);
    return least;
}

size_t link_values_wanted(const link_way *w)
{
    const link_item *item = w->in.head;
    size_t unit = link_wire_unit(item->op->wire).bytes, may = allowed(item);
    /* whole units only; all of the payload is */
    may -= may % unit;
    return may - BASE_MIN(may, w->got);
}

/* The values that come next, of a block or fewer. */
static size_t block_values(const link_item *item)
{
    return BASE_MIN(item->n_values - item->done, (uint32_t)LINK_BLOCK);
}

/* Whole blocks at the beginning of n bytes: *used of them. They may lie in memory that the peer can still write (shm): how long a block is, is read
 * once, so that what was checked is what is taken. */
static status settle_blocks(link_item *item, const unsigned char *bytes, size_t n, size_t *used,
                            bool *good, err *e)
{
    *used = 0;
    while (*used < n) {
        unsigned char form = *(const volatile unsigned char *)(bytes + *used);
        size_t m = block_values(item), length = link_block_bytes(form, m);
        if (m == 0 || length == 0)
            return err_set(e, STATUS_CORRUPT, "value %u of %u: not a block: %02x", item->done,
                           item->n_values, form);
        if (length > n - *used)
            break;
        *good &= link_take_block(item->values + item->done, bytes + *used + 1, form, m,
                                 item->fate == LINK_FATE_ADD);
        item->done += (uint32_t)m;
        *used += length;
    }
    return STATUS_OK;
}

/* The beginning of n bytes, as much as is whole, for the values behind what has come so far: *used bytes. */
static status settle_values(link_way *w, const unsigned char *bytes, size_t n, size_t *used,
                            bool *good, err *e)
{
    link_item *item = w->in.head;
    link_wire wire = item->op->wire;
    link_unit unit = link_wire_unit(wire);
    status s = STATUS_OK;
    if (wire == LINK_WIRE_BLOCKS) {
        s = settle_blocks(item, bytes, n, used, good, e);
    } else {
        *used = n - n % unit.bytes;
        size_t count =
            BASE_MIN(*used / unit.bytes * unit.values, (size_t)(item->n_values - item->done));
        *good &= (item->fate == LINK_FATE_ADD ? link_add : link_unpack)(item->values + item->done,
                                                                        bytes, count, wire);
        item->done += (uint32_t)count;
    }
    w->got += *used;
    if (s == STATUS_OK && w->got == w->coming.bytes && item->done < item->n_values)
        s = err_set(e, STATUS_CORRUPT, "a frame of %u bytes ends behind value %u of %u",
                    w->coming.bytes, item->done, item->n_values);
    return s;
}

/* How many bytes of what begins in the stage are still to come, to be whole. */
static size_t missing(const link_way *w)
{
    const link_item *item = w->in.head;
    size_t unit = link_wire_unit(item->op->wire).bytes;
    if (item->op->wire == LINK_WIRE_BLOCKS && w->staged > 0)
        unit = link_block_bytes(w->stage[0], block_values(item));
    return unit > w->staged ? unit - w->staged : 0;
}

/* By the stage: up to `most` bytes, what is whole of them settled. Nothing left to come for what has begun: it ends inside a block. */
static status by_stage(link_way *w, size_t most, bool *came, bool *good, err *e)
{
    size_t got, used;
    most = BASE_MIN(most, LINK_STAGE_BYTES - w->staged);
    if (most == 0)
        return err_set(e, STATUS_CORRUPT, "a frame of %u bytes ends inside a block",
                       w->coming.bytes);
    status s = w->conn->ops->take(w->conn->self, w->stage + w->staged, most, &got, e);
    *came = s == STATUS_OK && got > 0;
    if (!*came)
        return s;
    w->staged += got;
    s = settle_values(w, w->stage, w->staged, &used, good, e);
    w->staged -= used;
    for (size_t i = 0; i < w->staged; i++) /* less than a unit or block */
        w->stage[i] = w->stage[used + i];
    return s;
}

status link_values_pull(link_way *w, bool *moved, err *e)
{
    const link_backend *ops = w->conn->ops;
    link_op *op = w->in.head->op;
    for (;;) {
        bool good = true, came = false;
        size_t wanted = link_values_wanted(w), n = 0, used = 0;
        const unsigned char *bytes = NULL;
        status s = STATUS_OK;
        if (wanted == 0)
            return STATUS_OK;
        if (ops->peek && w->staged == 0) {
            s = ops->peek(w->conn->self, &bytes, &n, e);
            if (s != STATUS_OK || n == 0)
                return s;
            s = settle_values(w, bytes, BASE_MIN(n, wanted), &used, &good, e);
        }
        if (used > 0) {
            ops->skip(w->conn->self, used);
            came = true;
        } else if (s == STATUS_OK) {
            /* where units are shown in pieces, one at a time */
            size_t most = wanted - BASE_MIN(wanted, w->staged);
            s = by_stage(w, ops->peek ? BASE_MIN(missing(w), most) : most, &came, &good, e);
        }
        *moved |= came;
        if (s != STATUS_OK)
            return s;
        if (!good)
            link_op_fail_range(op);
        if (!good || !came)
            return STATUS_OK;
    }
}
