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

/* n bytes, whole units, for the values behind what has come so far. */
static bool settle_units(link_way *w, const unsigned char *bytes, size_t n)
{
    const link_item *item = w->in.head;
    link_wire wire = item->op->wire;
    link_unit unit = link_wire_unit(wire);
    size_t at = w->got / unit.bytes * unit.values;
    size_t count = BASE_MIN(n / unit.bytes * unit.values, item->n_values - at);
    w->got += n;
    return (item->fate == LINK_FATE_ADD ? link_add : link_unpack)(item->values + at, bytes, count,
                                                                  wire);
}

/* By the stage: up to `most` bytes, whole units of them settled. */
static status by_stage(link_way *w, size_t most, bool *came, bool *good, err *e)
{
    size_t unit = link_wire_unit(w->in.head->op->wire).bytes, got;
    most = BASE_MIN(most, (size_t)LINK_STAGE_BYTES);
    status s = w->conn->ops->take(w->conn->self, w->stage + w->staged, most - w->staged, &got, e);
    if (s != STATUS_OK)
        return s;
    *came = got > 0;
    w->staged += got;
    size_t whole = w->staged - w->staged % unit;
    if (whole > 0) {
        *good = settle_units(w, w->stage, whole);
        w->staged -= whole;
        for (size_t i = 0; i < w->staged; i++) /* less than a unit */
            w->stage[i] = w->stage[whole + i];
    }
    return STATUS_OK;
}

status link_values_pull(link_way *w, bool *moved, err *e)
{
    const link_backend *ops = w->conn->ops;
    link_op *op = w->in.head->op;
    size_t unit = link_wire_unit(op->wire).bytes;
    for (;;) {
        bool good = true, came = false;
        size_t wanted = link_values_wanted(w), n = 0;
        const unsigned char *bytes = NULL;
        status s = STATUS_OK;
        if (wanted == 0)
            return STATUS_OK;
        if (ops->peek && w->staged == 0) {
            s = ops->peek(w->conn->self, &bytes, &n, e);
            if (s != STATUS_OK || n == 0)
                return s;
            n = BASE_MIN(n, wanted);
            n -= n % unit;
        }
        if (n > 0) {
            good = settle_units(w, bytes, n);
            ops->skip(w->conn->self, n);
            came = true;
        } else {
            /* where units are shown in pieces, one at a time */
            s = by_stage(w, ops->peek ? unit : wanted, &came, &good, e);
            if (s != STATUS_OK)
                return s;
        }
        *moved |= came;
        if (!good)
            link_op_fail_range(op);
        if (!good || !came)
            return STATUS_OK;
    }
}
