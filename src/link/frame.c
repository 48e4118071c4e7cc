/*
 * The form of frames and of the handshake, and the shell around a back end. The handshake is a row of fixed fields from handshake.def;
 * writing, checking and refusing are loops over that table. Not here: sending and receiving (group.c).
 */
#include "link/inside.h"

#include <string.h>

const char *link_conn_name(const link_conn *c)
{
    return c->ops->name;
}

unsigned link_conn_caps(const link_conn *c)
{
    return c->ops->caps;
}

void link_conn_close(link_conn *c)
{
    if (!c)
        return;
    c->ops->close(c->self);
    base_free(c);
}

status link_conn_create(link_conn **out, const link_backend *ops, void *self, err *e)
{
    link_conn *c = base_alloc(sizeof *c);
    if (!c) {
        ops->close(self);
        return err_set(e, STATUS_NO_MEMORY, "a connection over %s", ops->name);
    }
    c->ops = ops;
    c->self = self;
    *out = c;
    return STATUS_OK;
}

/* ---- headers --------------------------------------------------------------------------------------------------- */

uint64_t link_epoch_tag(link_epoch epoch)
{
    return (uint64_t)epoch.term << 32 | epoch.number;
}

enum {
#define FIELD(name, bytes, text) HEADER_##name, HEADER_LAST_##name = HEADER_##name + (bytes)-1,
#include "link/header.def"
#undef FIELD
    HEADER_END
};
_Static_assert((int)HEADER_END == (int)LINK_HEADER_BYTES, "the header is what header.def says");

void link_header_write(unsigned char out[LINK_HEADER_BYTES], const link_header *h)
{
    base_store_u16(out + HEADER_KIND, h->kind);
    out[HEADER_OP] = h->op;
    out[HEADER_PHASE] = h->phase;
    base_store_u32(out + HEADER_BYTES, h->bytes);
    base_store_u64(out + HEADER_EPOCH, h->epoch);
    base_store_u32(out + HEADER_SEQUENCE, h->sequence);
    base_store_u32(out + HEADER_MAGIC, LINK_MAGIC);
}

status link_header_read(link_header *out, const unsigned char in[LINK_HEADER_BYTES], err *e)
{
    link_header h = {.kind = base_load_u16(in + HEADER_KIND),
                     .op = in[HEADER_OP],
                     .phase = in[HEADER_PHASE],
                     .bytes = base_load_u32(in + HEADER_BYTES),
                     .sequence = base_load_u32(in + HEADER_SEQUENCE),
                     .epoch = base_load_u64(in + HEADER_EPOCH)};
    uint32_t magic = base_load_u32(in + HEADER_MAGIC);
    if (magic != LINK_MAGIC)
        return err_set(e, STATUS_CORRUPT, "not a frame: magic %08x, expected %08x", magic,
                       LINK_MAGIC);
    switch (h.kind) {
#define MESSAGE(name, number) case LINK_MESSAGE_##name:
#include "link/messages.def"
#undef MESSAGE
        *out = h;
        return STATUS_OK;
    default:
        return err_set(e, STATUS_CORRUPT, "unknown kind of frame %u", h.kind);
    }
}

/* ---- handshake ------------------------------------------------------------------------------------------------- */

enum { SAME, PEER };

typedef struct field {
    const char *text;
    size_t at, bytes;
    int check;
} field;

enum {
#define FIELD(name, bytes, check, text) AT_##name, LAST_##name = AT_##name + (bytes)-1,
#include "link/handshake.def"
#undef FIELD
};

static const field fields[] = {
#define FIELD(name, bytes, check, text) {text, AT_##name, bytes, check},
#include "link/handshake.def"
#undef FIELD
};

void link_hello_write(unsigned char out[LINK_HELLO_BYTES], const link_group_config *c, int rank,
                      int lane)
{
    memset(out, 0, LINK_HELLO_BYTES);
    base_store_u32(out + AT_PROTOCOL, c->protocol ? c->protocol : LINK_PROTOCOL);
    base_store_u32(out + AT_EPOCH, c->epoch.term);
    base_store_u32(out + AT_EPOCH + 4, c->epoch.number);
    base_store_u64(out + AT_EPOCH + 8, c->epoch.node);
    memcpy(out + AT_NUMERICS, c->numerics, sizeof c->numerics);
    memcpy(out + AT_MODEL, c->model, sizeof c->model);
    memcpy(out + AT_PLAN, c->plan, sizeof c->plan);
    base_store_u32(out + AT_RANKS, (uint32_t)c->n_ranks);
    base_store_u32(out + AT_RANK, (uint32_t)rank);
    base_store_u32(out + AT_LANES, (uint32_t)c->n_lanes);
    base_store_u32(out + AT_LANE, (uint32_t)lane);
    memcpy(out + AT_COST, &c->cost.latency_us, 8);
    memcpy(out + AT_COST + 8, &c->cost.us_per_byte, 8);
}

/* A field for a person: the epoch as term.number, other numbers in decimal, printable text, else hexadecimal. */
static void show(char out[80], const field *f, const unsigned char *bytes)
{
    size_t n = 0;
    while (n < f->bytes && bytes[n] >= ' ' && bytes[n] < 127)
        n++;
    sb b;
    sb_init(&b);
    if (f->at == AT_EPOCH)
        sb_printf(&b, "%u.%u of node %016llx", base_load_u32(bytes), base_load_u32(bytes + 4),
                  (unsigned long long)base_load_u64(bytes + 8));
    else if (f->bytes == 4)
        sb_printf(&b, "%u", base_load_u32(bytes));
    else if (n > 0 && n < f->bytes && bytes[n] == 0)
        sb_add(&b, bytes, n);
    else
        for (size_t i = 0; i < BASE_MIN(f->bytes, (size_t)16); i++)
            sb_printf(&b, "%02x", bytes[i]);
    size_t length = b.data ? BASE_MIN(b.length, (size_t)79) : 0;
    if (length)
        memcpy(out, b.data, length);
    out[length] = 0;
    sb_fini(&b);
}

static const char *epoch_order(const field *f, const unsigned char *theirs,
                               const unsigned char *ours)
{
    if (f->at != AT_EPOCH)
        return "";
    uint64_t a = (uint64_t)base_load_u32(theirs) << 32 | base_load_u32(theirs + 4);
    uint64_t b = (uint64_t)base_load_u32(ours) << 32 | base_load_u32(ours + 4);
    return a < b ? " (older)" : a > b ? " (newer)" : " (another node's)";
}

status link_hello_check(const unsigned char *theirs, size_t n,
                        const unsigned char expected[LINK_HELLO_BYTES], err *e)
{
    /* the version comes first: a later one may have other fields */
    for (size_t i = 0; i < BASE_COUNT(fields); i++) {
        const field *f = &fields[i];
        if (f->at + f->bytes > n)
            return err_set(e, STATUS_CORRUPT, "handshake of %zu bytes, expected %d", n,
                           LINK_HELLO_BYTES);
        if (memcmp(theirs + f->at, expected + f->at, f->bytes) == 0)
            continue;
        char got[80], want[80];
        show(got, f, theirs + f->at);
        show(want, f, expected + f->at);
        return err_set(e, STATUS_CONFLICT, "%s %s%s, expected %s%s", f->text, got,
                       epoch_order(f, theirs + f->at, expected + f->at), want,
                       f->check == PEER ? " at this end" : "");
    }
    if (n != LINK_HELLO_BYTES)
        return err_set(e, STATUS_CORRUPT, "handshake of %zu bytes, expected %d", n,
                       LINK_HELLO_BYTES);
    return STATUS_OK;
}
