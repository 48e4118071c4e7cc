/*
 * shm: two rings of bytes in memory that both processes map, and a pair of sockets. The sockets carry no data: a byte on them wakes a side
 * that sleeps in poll, and their end is the death of the other process, however it dies. A side that is about to sleep says so in the
 * memory, looks once more, and then polls; the other side rings only when it sees that. The peer writes the positions in the memory: they
 * are checked each time they are read. Not encrypted, and trusted as far as that: a peer can send wrong values but not make us read or
 * write outside the ring.
 */
#include "link/inside.h"

#include <stdatomic.h>
#include <string.h>

#define CONTROL_BYTES 4096
#define LOOK_EVERY    256  /* empty looks between two looks at the socket */
#define SHOW_BYTES    8192 /* of a long frame the peer may begin to read while we still write */

typedef struct direction {
    _Alignas(64) _Atomic uint64_t head; /* written by the sender */
    _Alignas(64) _Atomic uint64_t tail; /* written by the receiver */
} direction;

typedef struct control {
    direction ways[2];                       /* [side that sends] */
    _Alignas(64) _Atomic uint32_t asleep[2]; /* [side] */
} control;
_Static_assert(sizeof(control) <= CONTROL_BYTES, "the rings begin behind it");

typedef struct shm {
    control *shared;
    uint64_t mapped_bytes;
    unsigned char *out_ring, *in_ring;
    _Atomic uint64_t *out_head, *out_tail, *in_head, *in_tail;
    uint64_t head, tail; /* ours: the head of the way out, the tail of the way in */
    size_t ring_bytes;
    int socket_fd, side;
    unsigned empty_looks;
    bool gone;
} shm;

status link_shm_create(link_shm_end ends[2], size_t ring_bytes, err *e)
{
    REQUIRE(ring_bytes >= 4096 && (ring_bytes & (ring_bytes - 1)) == 0);
    int sockets[2], memory, copy[2];
    status s = os_shared_create(&memory, CONTROL_BYTES + 2 * (uint64_t)ring_bytes, e);
    if (s != STATUS_OK)
        return s;
    s = os_socket_pair(sockets, e);
    if (s != STATUS_OK) {
        os_close(memory);
        return s;
    }
    /* a second descriptor of the same memory travels through the pair */
    s = os_send_descriptors(sockets[0], &memory, 1, e);
    if (s == STATUS_OK)
        s = os_recv_descriptors(sockets[1], copy, 1, 10000000, e);
    if (s != STATUS_OK) {
        os_close(memory);
        os_close(sockets[0]);
        os_close(sockets[1]);
        return s;
    }
    ends[0] = (link_shm_end){sockets[0], memory};
    ends[1] = (link_shm_end){sockets[1], copy[0]};
    return STATUS_OK;
}

static void ring_bell(shm *m)
{
    size_t sent;
    if (atomic_load(&m->shared->asleep[!m->side]) == 0)
        return;
    if (atomic_exchange(&m->shared->asleep[!m->side], 0) != 0)
        (void)os_try_send(m->socket_fd, "!", 1, &sent, NULL); /* its end is seen by take */
}

/* Whether the socket has ended; takes the bells. */
static void look_at_socket(shm *m)
{
    char bells[64];
    size_t got = sizeof bells;
    while (!m->gone && got == sizeof bells)
        m->gone = os_try_recv(m->socket_fd, bells, sizeof bells, &got, NULL) != STATUS_OK;
}

static void write_ring(shm *m, const unsigned char *bytes, size_t n)
{
    while (n > 0) {
        size_t at = (size_t)(m->head & (m->ring_bytes - 1));
        size_t run = BASE_MIN(BASE_MIN(n, (size_t)SHOW_BYTES), m->ring_bytes - at);
        memcpy(m->out_ring + at, bytes, run);
        m->head += run;
        bytes += run;
        n -= run;
        if (n > 0)
            atomic_store_explicit(m->out_head, m->head, memory_order_release);
    }
}

static status shm_put(void *self, const link_part parts[2], size_t *taken, err *e)
{
    shm *m = self;
    *taken = 0;
    uint64_t tail = atomic_load_explicit(m->out_tail, memory_order_acquire);
    uint64_t used = m->head - tail;
    if (used > m->ring_bytes)
        return err_set(e, STATUS_CORRUPT, "shared ring: %llu of %zu bytes used",
                       (unsigned long long)used, m->ring_bytes);
    size_t space = m->ring_bytes - (size_t)used;
    if (space < LINK_HEADER_BYTES) {
        if (++m->empty_looks % LOOK_EVERY == 0)
            look_at_socket(m);
        return m->gone ? err_set(e, STATUS_CLOSED, "the other side is gone") : STATUS_OK;
    }
    for (int p = 0; p < 2; p++) {
        size_t n = BASE_MIN(parts[p].n, space);
        write_ring(m, parts[p].bytes, n);
        space -= n;
        *taken += n;
        if (n < parts[p].n)
            break;
    }
    if (*taken) {
        atomic_store(m->out_head, m->head); /* ordered before the look at `asleep` */
        ring_bell(m);
    }
    return STATUS_OK;
}

/* Bytes that can be taken. */
static status waiting(shm *m, size_t *n, err *e)
{
    uint64_t ready = atomic_load(m->in_head) - m->tail; /* ordered behind our `asleep` */
    if (ready > m->ring_bytes)
        return err_set(e, STATUS_CORRUPT, "shared ring: %llu of %zu bytes filled",
                       (unsigned long long)ready, m->ring_bytes);
    *n = (size_t)ready;
    return STATUS_OK;
}

/* The same, or why nothing will come any more. */
static status waiting_or_gone(shm *m, size_t *n, err *e)
{
    *n = 0;
    status s = waiting(m, n, e);
    if (s != STATUS_OK || *n > 0)
        return s;
    if (++m->empty_looks % LOOK_EVERY == 0)
        look_at_socket(m);
    if (!m->gone)
        return STATUS_OK;
    s = waiting(m, n, e); /* it may have put something before it went */
    if (s == STATUS_OK && *n == 0)
        s = err_set(e, STATUS_CLOSED, "the other side is gone");
    return s;
}

static status shm_peek(void *self, const unsigned char **bytes, size_t *n, err *e)
{
    shm *m = self;
    size_t at = (size_t)(m->tail & (m->ring_bytes - 1));
    status s = waiting_or_gone(m, n, e);
    *bytes = m->in_ring + at;
    *n = BASE_MIN(*n, m->ring_bytes - at);
    return s;
}

static void shm_skip(void *self, size_t n)
{
    shm *m = self;
    m->tail += n;
    atomic_store(m->in_tail, m->tail); /* ordered before the look at `asleep` */
    ring_bell(m);
}

static status shm_take(void *self, void *to, size_t n, size_t *got, err *e)
{
    shm *m = self;
    size_t ready;
    *got = 0;
    status s = waiting_or_gone(m, &ready, e);
    if (s != STATUS_OK || ready == 0)
        return s;
    n = BASE_MIN(n, ready);
    size_t at = (size_t)(m->tail & (m->ring_bytes - 1)), run = BASE_MIN(n, m->ring_bytes - at);
    memcpy(to, m->in_ring + at, run);
    if (n > run)
        memcpy((unsigned char *)to + run, m->in_ring, n - run);
    *got = n;
    shm_skip(m, n);
    return STATUS_OK;
}

static status shm_pump(void *self, uint64_t *again_us, bool *moved, err *e)
{
    (void)self;
    (void)again_us;
    (void)moved;
    (void)e;
    return STATUS_OK;
}

static bool shm_arm(void *self, os_interest *out)
{
    shm *m = self;
    size_t ready = 0;
    bool wants_space = out->write;
    atomic_store(&m->shared->asleep[m->side], 1);
    bool again = out->read && (waiting(m, &ready, NULL) != STATUS_OK || ready > 0 || m->gone);
    uint64_t used = m->head - atomic_load(m->out_tail);
    again |= wants_space && (m->gone || used + LINK_HEADER_BYTES <= m->ring_bytes);
    *out = (os_interest){.fd = m->socket_fd, .read = true};
    if (again)
        atomic_store(&m->shared->asleep[m->side], 0);
    return !again;
}

static void shm_disarm(void *self)
{
    shm *m = self;
    atomic_store(&m->shared->asleep[m->side], 0);
    look_at_socket(m);
}

static bool shm_idle(void *self)
{
    (void)self;
    return true; /* what is in the ring can be taken after we are gone */
}

static void shm_close(void *self)
{
    shm *m = self;
    os_shared_unmap(m->shared, m->mapped_bytes);
    os_close(m->socket_fd);
    base_free(m);
}

static const link_backend backend = {
    .name = "shm",
    .caps = LINK_SAME_HOST,
    .put = shm_put,
    .take = shm_take,
    .peek = shm_peek,
    .skip = shm_skip,
    .pump = shm_pump,
    .arm = shm_arm,
    .disarm = shm_disarm,
    .idle = shm_idle,
    .close = shm_close,
};

static void set_up(shm *m, int side)
{
    unsigned char *rings = (unsigned char *)m->shared + CONTROL_BYTES;
    m->side = side;
    m->ring_bytes = (size_t)((m->mapped_bytes - CONTROL_BYTES) / 2);
    m->out_ring = rings + (side ? m->ring_bytes : 0);
    m->in_ring = rings + (side ? 0 : m->ring_bytes);
    m->out_head = &m->shared->ways[side].head;
    m->out_tail = &m->shared->ways[side].tail;
    m->in_head = &m->shared->ways[!side].head;
    m->in_tail = &m->shared->ways[!side].tail;
}

status link_shm_open(link_conn **out, link_shm_end end, int side, err *e)
{
    REQUIRE(side == 0 || side == 1);
    void *p = NULL;
    uint64_t bytes = 0;
    status s = os_set_nonblocking(end.socket_fd, true, e);
    if (s == STATUS_OK)
        s = os_shared_map(&p, &bytes, end.memory_fd, e);
    os_close(end.memory_fd);
    uint64_t ring_bytes = bytes < CONTROL_BYTES ? 0 : (bytes - CONTROL_BYTES) / 2;
    shm *m = NULL;
    if (s == STATUS_OK && (ring_bytes < 4096 || (ring_bytes & (ring_bytes - 1)) != 0 ||
                           bytes != CONTROL_BYTES + 2 * ring_bytes))
        s = err_set(e, STATUS_CORRUPT, "shared memory of %llu bytes holds no rings",
                    (unsigned long long)bytes);
    if (s == STATUS_OK && !(m = base_zalloc(1, sizeof *m)))
        s = err_set(e, STATUS_NO_MEMORY, "a connection in shared memory");
    if (s != STATUS_OK) {
        os_shared_unmap(p, bytes);
        os_close(end.socket_fd);
        return s;
    }
    m->shared = p;
    m->mapped_bytes = bytes;
    m->socket_fd = end.socket_fd;
    set_up(m, side);
    return link_conn_create(out, &backend, m, e);
}
