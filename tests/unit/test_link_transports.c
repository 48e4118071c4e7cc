/*
 * Groups over real TLS and shared memory: between threads and between processes, with wrong keys, kills, stops and resets.
 * Waits are generous; nothing about time is asserted but that everything ends.
 */
#include "link_rig.h"

#include "link/record.h"

#include <fcntl.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WIDTH      4096
#define BULK_BYTES (3u << 20)

/* ---- between threads ------------------------------------------------------------------------------------------- */

typedef struct player {
    const rig *r;
    int rank;
    link_rates rates[RIG_RANKS * RIG_RANKS];
    link_cost cost;
    char failure[ERR_TEXT]; /* "" when all was right */
} player;

static void blame(player *p, const char *what, const err *e)
{
    if (!p->failure[0])
        snprintf(p->failure, sizeof p->failure, "rank %d %s: %.300s", p->rank, what,
                 e ? e->text : "wrong bytes");
}

static void play_sums(player *p, link_group *g)
{
    err e;
    double *values = calloc(WIDTH, sizeof *values);
    for (unsigned round = 0; round < 30 && !p->failure[0]; round++) {
        size_t n = round % 7 == 6 ? 0 : WIDTH >> (round % 5);
        link_op *op;
        rig_fill(values, n, p->rank, round);
        if (link_sum_start(&op, g, values, n, round % 2 ? LINK_WIRE_INT48 : LINK_WIRE_F64,
                           (link_sum_way)(round % 4), &e) != STATUS_OK ||
            link_op_wait(op, &e) != STATUS_OK)
            blame(p, "sum", &e);
        else if (!rig_is_sum(values, n, p->r->n, round))
            blame(p, "sum", NULL);
    }
    free(values);
}

/* Far more than any buffer in between holds, everyone to everyone at once, on the last lane. */
static void play_bulk(player *p, link_group *g)
{
    int n = p->r->n;
    link_op *ops[2 * RIG_RANKS];
    unsigned char *in[RIG_RANKS] = {NULL}, *out = malloc(BULK_BYTES);
    int n_ops = 0;
    err e;
    for (size_t i = 0; i < BULK_BYTES; i++)
        out[i] = (unsigned char)(i * 7 + i / 251 + (size_t)p->rank);
    for (int peer = 0; peer < n; peer++) {
        if (peer == p->rank)
            continue;
        in[peer] = malloc(BULK_BYTES);
        if (link_send_start(&ops[n_ops], g, peer, p->r->lanes - 1, out, BULK_BYTES, &e) ==
            STATUS_OK)
            n_ops++;
        if (link_recv_start(&ops[n_ops], g, peer, p->r->lanes - 1, in[peer], BULK_BYTES, &e) ==
            STATUS_OK)
            n_ops++;
    }
    if (n_ops != 2 * (n - 1))
        blame(p, "bulk", &e);
    for (int i = 0; i < n_ops; i++)
        if (link_op_wait(ops[i], &e) != STATUS_OK)
            blame(p, "bulk", &e);
    for (int peer = 0; peer < n && !p->failure[0]; peer++)
        for (size_t i = 0; i < BULK_BYTES && peer != p->rank; i++)
            if (in[peer][i] != (unsigned char)(i * 7 + i / 251 + (size_t)peer)) {
                blame(p, "bulk", NULL);
                break;
            }
    for (int peer = 0; peer < n; peer++)
        free(in[peer]);
    free(out);
}

static void play(void *context)
{
    player *p = context;
    link_group *g;
    err e;
    link_group_config c = rig_config(p->rank, p->r->n, p->r->lanes);
    if (rig_group(&g, p->r, &c, &e) != STATUS_OK) {
        blame(p, "group", &e);
        return;
    }
    if (link_group_wait(g, &e) != STATUS_OK)
        blame(p, "handshake", &e);
    play_sums(p, g);
    size_t bytes[RIG_RANKS];
    unsigned char all[64] = {0};
    for (int r = 0; r < p->r->n; r++)
        bytes[r] = (size_t)r;
    memset(all + p->rank * (p->rank - 1) / 2, p->rank, (size_t)p->rank);
    if (link_gather(g, all, bytes, &e) != STATUS_OK)
        blame(p, "gather", &e);
    for (int r = 1, at = 0; r < p->r->n; at += r, r++)
        if (all[at] != r || all[at + r - 1] != r)
            blame(p, "gather", NULL);
    if (link_measure(g, p->rates, &e) != STATUS_OK)
        blame(p, "measuring", &e);
    p->cost = link_group_cost(g);
    double root = p->rank == 0 ? 42 : 0;
    if (link_broadcast(g, 0, &root, sizeof root, &e) != STATUS_OK)
        blame(p, "broadcast", &e);
    if (memcmp(&root, &(double){42}, sizeof root) != 0)
        blame(p, "broadcast", NULL);
    play_bulk(p, g);
    link_group_destroy(g);
}

static void play_all(const rig *r)
{
    player players[RIG_RANKS];
    os_thread *threads[RIG_RANKS];
    for (int i = 0; i < r->n; i++) {
        players[i] = (player){.r = r, .rank = i};
        RIG_OK(os_thread_create(&threads[i], play, &players[i], "rank", e));
    }
    for (int i = 0; i < r->n; i++)
        os_thread_join(threads[i]);
    for (int i = 0; i < r->n; i++)
        assert_string_equal(players[i].failure, "");
    for (int a = 0; a < r->n * r->n; a++) {
        const link_rates *rates = &players[0].rates[a];
        if (a / r->n == a % r->n)
            continue;
        assert_true(rates->small_us > 0 && rates->middle_us > 0 && rates->bytes_per_s > 0);
        assert_true(players[0].cost.latency_us >= link_cost_of(rates).latency_us);
    }
    for (int i = 1; i < r->n; i++) {
        assert_memory_equal(players[i].rates, players[0].rates,
                            (size_t)(r->n * r->n) * sizeof(link_rates));
        assert_memory_equal(&players[i].cost, &players[0].cost, sizeof(link_cost));
    }
}

static void test_tls_threads(void **state)
{
    (void)state;
    rig r;
    for (int n = 2; n <= 4; n++) {
        rig_init(&r, n, n % 2 + 1, RIG_TLS, false);
        play_all(&r);
    }
}

static void test_shm_threads(void **state)
{
    (void)state;
    rig r;
    for (int n = 2; n <= 4; n++) {
        rig_init(&r, n, n % 2 + 1, RIG_SHM, false);
        play_all(&r);
    }
}

static void test_mixed_threads(void **state)
{
    (void)state;
    rig r;
    rig_init(&r, 4, 2, RIG_TLS, true);
    play_all(&r);
}

/* A build without UCX refuses; one that has it does all that the others do, over shared memory. */
static void test_ucx(void **state)
{
    (void)state;
    int pair[2];
    link_conn *c;
    err why;
    RIG_OK(os_socket_pair(pair, e));
    assert_int_equal(link_ucx_open(&c, pair[0], false, &why), STATUS_DENIED);
    assert_non_null(strstr(why.text, "trusted"));
    status s = link_ucx_open(&c, pair[1], true, &why);
    if (s == STATUS_UNSUPPORTED)
        skip();
    assert_int_equal(s, STATUS_OK);
    assert_string_equal(link_conn_name(c), "ucx");
    assert_int_equal(link_conn_caps(c), 0);
    link_conn_close(c);
    rig r;
    for (int n = 2; n <= 3; n++) {
        rig_init(&r, n, 1, RIG_UCX, false);
        play_all(&r);
    }
}

/* ---- in this thread alone -------------------------------------------------------------------------------------- */

/* Both ends driven by turns until both know. */
static void meet(link_conn *a, link_conn *b, err *ea, err *eb, status *s0, status *s1, bool *ready)
{
    link_conn *conns[2][2] = {{NULL, a}, {b, NULL}};
    link_group *g[2];
    for (int r = 0; r < 2; r++) {
        link_group_config c = rig_config(r, 2, 1);
        RIG_OK(link_group_create(&g[r], &c, conns[r], e));
    }
    uint64_t until = os_now_us() + 60000000;
    *s0 = *s1 = STATUS_OK;
    do {
        (void)link_group_progress(g[0]);
        (void)link_group_progress(g[1]);
        *s0 = link_group_status(g[0], ea);
        *s1 = link_group_status(g[1], eb);
        *ready = link_group_ready(g[0]) && link_group_ready(g[1]);
    } while (!*ready && (*s0 == STATUS_OK || *s1 == STATUS_OK) && os_now_us() < until);
    link_group_destroy(g[0]);
    link_group_destroy(g[1]);
}

static void try_keys(const unsigned char *key, const char *identity, bool good)
{
    rig r;
    err ea, eb;
    status s0, s1;
    bool ready;
    link_conn *a, *b;
    rig_init(&r, 2, 1, RIG_TLS, false);
    RIG_OK(link_tls_open(&a, r.fd[0][1][0], false, rig_key, "link 0-1 of 3.2", e));
    RIG_OK(link_tls_open(&b, r.fd[1][0][0], true, key, identity, e));
    assert_int_equal(link_conn_caps(a), LINK_ENCRYPTED);
    meet(a, b, &ea, &eb, &s0, &s1, &ready);
    assert_int_equal(ready, good);
    if (good)
        return;
    assert_int_equal(s1,
                     STATUS_DENIED); /* the server knows; the client hears an alert or the end */
    assert_true(s0 == STATUS_DENIED || s0 == STATUS_CLOSED);
    assert_non_null(strstr(eb.text, "keys differ"));
}

static void test_keys(void **state)
{
    (void)state;
    unsigned char other[32];
    memcpy(other, rig_key, sizeof other);
    try_keys(rig_key, "link 0-1 of 3.2", true);
    other[31] ^= 1;
    try_keys(other, "link 0-1 of 3.2", false);
    try_keys(rig_key, "link 0-1 of 3.1", false); /* an old epoch */
}

/* Something that does not speak TLS, and one that hangs up. */
static void test_strangers(void **state)
{
    (void)state;
    for (int what = 0; what < 2; what++) {
        rig r;
        link_conn *conns[2] = {NULL, NULL};
        link_group *g;
        link_group_config c = rig_config(0, 2, 1);
        err why;
        size_t sent;
        rig_init(&r, 2, 1, RIG_TLS, false);
        RIG_OK(link_tls_open(&conns[1], r.fd[0][1][0], true, rig_key, "x", e));
        RIG_OK(link_group_create(&g, &c, conns, e));
        if (what == 0)
            RIG_OK(os_try_send(r.fd[1][0][0], "GET / HTTP/1.1\r\n\r\n", 18, &sent, e));
        else
            os_close(r.fd[1][0][0]);
        assert_int_equal(link_group_wait(g, &why), what ? STATUS_CLOSED : STATUS_DENIED);
        link_group_destroy(g);
        if (what == 0)
            os_close(r.fd[1][0][0]);
    }
}

/* ---- against OpenSSL's own records ----------------------------------------------------------------------------- */

static int give_session(SSL *ssl, SSL_SESSION **out)
{
    static const unsigned char cipher[2] = {0x13, 0x01};
    *out = SSL_SESSION_new();
    return *out && SSL_SESSION_set1_master_key(*out, rig_key, sizeof rig_key) &&
           SSL_SESSION_set_cipher(*out, SSL_CIPHER_find(ssl, cipher)) &&
           SSL_SESSION_set_protocol_version(*out, TLS1_3_VERSION);
}

static int use_session(SSL *ssl, const EVP_MD *digest, const unsigned char **id, size_t *n,
                       SSL_SESSION **out)
{
    (void)digest;
    *id = (const unsigned char *)"peer";
    *n = 4;
    return give_session(ssl, out);
}

static int find_session(SSL *ssl, const unsigned char *id, size_t n, SSL_SESSION **out)
{
    (void)id;
    (void)n;
    return give_session(ssl, out);
}

static SSL *openssl_peer(SSL_CTX **context, int fd, bool server)
{
    SSL_CTX *c = *context = SSL_CTX_new(TLS_method());
    assert_non_null(c);
    assert_int_equal(SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION), 1);
    assert_int_equal(SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256"), 1);
    SSL_CTX_set_num_tickets(c, 0);
    SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE);
    SSL_CTX_set_psk_use_session_callback(c, use_session);
    SSL_CTX_set_psk_find_session_callback(c, find_session);
    SSL *ssl = SSL_new(c);
    SSL_set_fd(ssl, fd);
    (server ? SSL_set_accept_state : SSL_set_connect_state)(ssl);
    return ssl;
}

enum { TALK_BYTES = 300000 };

/* Both send TALK_BYTES and check what they get; both renew their keys on the way, and ours also because it is asked to. */
static void talk_to_openssl(bool we_serve, uint64_t update_after)
{
    static unsigned char ours[TALK_BYTES], theirs[TALK_BYTES], got[TALK_BYTES], heard[TALK_BYTES];
    rig r;
    SSL_CTX *context;
    link_conn *c;
    size_t sent = 0, taken = 0, n_got = 0, n_heard = 0;
    int renewals = 0;
    rig_init(&r, 2, 1, RIG_TLS, false);
    RIG_OK(link_tls_open(&c, r.fd[0][1][0], we_serve, rig_key, "peer", e));
    link_tls_update_after(c, update_after);
    SSL *ssl = openssl_peer(&context, r.fd[1][0][0], !we_serve);
    for (size_t i = 0; i < TALK_BYTES; i++) {
        ours[i] = (unsigned char)(i * 7 + i / 257);
        theirs[i] = (unsigned char)(i * 11 + i / 253);
    }
    uint64_t until = os_now_us() + 120000000;
    while ((n_got < TALK_BYTES || n_heard < TALK_BYTES) && os_now_us() < until) {
        bool moved = false;
        uint64_t again = UINT64_MAX;
        size_t n = 0;
        RIG_OK(c->ops->pump(c->self, &again, &moved, e));
        link_part parts[2] = {{ours + sent, BASE_MIN((size_t)24, TALK_BYTES - sent)}, {NULL, 0}};
        parts[1].bytes = ours + sent + parts[0].n;
        parts[1].n = BASE_MIN(TALK_BYTES - sent - parts[0].n, (size_t)70000);
        if (sent < TALK_BYTES)
            RIG_OK(c->ops->put(c->self, parts, &n, e));
        sent += n;
        RIG_OK(
            c->ops->take(c->self, got + n_got, BASE_MIN(TALK_BYTES - n_got, (size_t)50001), &n, e));
        n_got += n;
        int done = SSL_write(ssl, theirs + taken,
                             (int)BASE_MIN(TALK_BYTES - taken, (size_t)1 + taken % 20000));
        taken += done > 0 ? (size_t)done : 0;
        if (done > 0 && taken > 100000 && renewals < 2) {
            assert_int_equal(SSL_key_update(ssl, renewals ? SSL_KEY_UPDATE_NOT_REQUESTED
                                                          : SSL_KEY_UPDATE_REQUESTED),
                             1);
            renewals++;
        }
        done = SSL_read(ssl, heard + n_heard, (int)BASE_MIN(TALK_BYTES - n_heard, (size_t)30000));
        n_heard += done > 0 ? (size_t)done : 0;
    }
    assert_int_equal(n_got, TALK_BYTES);
    assert_int_equal(n_heard, TALK_BYTES);
    assert_memory_equal(got, theirs, TALK_BYTES);
    assert_memory_equal(heard, ours, TALK_BYTES);
    assert_int_equal(renewals, 2);
    err why;
    size_t n;
    status s = STATUS_OK;
    assert_true(SSL_shutdown(ssl) >= 0);
    while (s == STATUS_OK && os_now_us() < until)
        s = c->ops->take(c->self, got, 1, &n, &why);
    assert_int_equal(s, STATUS_CLOSED);
    SSL_free(ssl);
    SSL_CTX_free(context);
    os_close(r.fd[1][0][0]);
    link_conn_close(c);
}

static void test_openssl_peer(void **state)
{
    (void)state;
    talk_to_openssl(false, UINT64_MAX);
    talk_to_openssl(true, UINT64_MAX);
    talk_to_openssl(false, 3);
    talk_to_openssl(true, 1);
}

/* A record with any one bit wrong is refused, and so is one out of its order. */
static void test_changed_records(void **state)
{
    (void)state;
    enum { DATA = 40, RECORD = DATA + LINK_RECORD_HEAD + LINK_RECORD_TAIL };
    unsigned char secret[LINK_RECORD_SECRET] = {9}, data[DATA] = {3}, record[RECORD], to[DATA];
    link_part part = {data, DATA};
    link_record_keys seal, unseal;
    int type;
    size_t length;
    err why;
    for (int bit = 0; bit < 8 * RECORD; bit += 3) {
        RIG_OK(link_record_init(&seal, secret, true, e));
        RIG_OK(link_record_init(&unseal, secret, false, e));
        RIG_OK(link_record_seal(&seal, record, &part, 1, LINK_RECORD_DATA, e));
        record[bit / 8] ^= (unsigned char)(1u << bit % 8);
        if (link_record_length(&length, record, RECORD, &why) == STATUS_OK && length == RECORD)
            assert_int_equal(link_record_unseal(&unseal, to, &type, record, RECORD, &why),
                             STATUS_CORRUPT);
        link_record_fini(&seal);
        link_record_fini(&unseal);
    }
    RIG_OK(link_record_init(&seal, secret, true, e));
    RIG_OK(link_record_init(&unseal, secret, false, e));
    for (int i = 0; i < 2; i++)
        RIG_OK(link_record_seal(&seal, record, &part, 1, LINK_RECORD_DATA, e));
    assert_int_equal(link_record_unseal(&unseal, to, &type, record, RECORD, &why), STATUS_CORRUPT);
    RIG_OK(link_record_next_keys(&seal, e));
    RIG_OK(link_record_next_keys(&unseal, e));
    RIG_OK(link_record_seal(&seal, record, &part, 1, LINK_RECORD_DATA, e));
    RIG_OK(link_record_unseal(&unseal, to, &type, record, RECORD, e));
    assert_int_equal(type, LINK_RECORD_DATA);
    assert_memory_equal(to, data, DATA);
    link_record_fini(&seal);
    link_record_fini(&unseal);
}

/* Shared memory that is no ring, and positions that a peer made up. */
static void test_hostile_memory(void **state)
{
    (void)state;
    link_shm_end ends[2];
    link_conn *conns[2] = {NULL, NULL};
    link_group *g;
    void *memory;
    uint64_t bytes;
    err why;
    int pair[2], odd;
    RIG_OK(os_socket_pair(pair, e));
    RIG_OK(os_shared_create(&odd, 12288 + 1, e));
    assert_int_equal(link_shm_open(&conns[1], (link_shm_end){pair[0], odd}, 0, &why),
                     STATUS_CORRUPT);
    os_close(pair[1]);
    for (int way = 0; way < 2; way++) {
        RIG_OK(link_shm_create(ends, 4096, e));
        RIG_OK(os_shared_map(&memory, &bytes, ends[1].memory_fd, e));
        RIG_OK(link_shm_open(&conns[1], ends[0], 0, e));
        /* the head that the peer writes, or the tail */
        _Atomic uint64_t *position =
            (_Atomic uint64_t *)(void *)((char *)memory + (way ? 128 : 64));
        atomic_store(position, UINT64_C(1) << 40);
        link_group_config c = rig_config(0, 2, 1);
        RIG_OK(link_group_create(&g, &c, conns, e));
        assert_int_equal(link_group_wait(g, &why), STATUS_CORRUPT);
        link_group_destroy(g);
        os_shared_unmap(memory, bytes);
        os_close(ends[1].memory_fd);
        os_close(ends[1].socket_fd);
    }
}

static void test_shaped(void **state)
{
    (void)state;
    rig r;
    err ea, eb;
    status s0, s1;
    bool ready;
    link_conn *a, *b;
    rig_init(&r, 2, 1, RIG_SHM, false);
    RIG_OK(link_shm_open(&a, (link_shm_end){r.fd[0][1][0], r.memory[0][1][0]}, 0, e));
    RIG_OK(link_shm_open(&b, (link_shm_end){r.fd[1][0][0], r.memory[1][0][0]}, 1, e));
    RIG_OK(link_shape_open(&a, a, 20000, 1e6, NULL, e));
    RIG_OK(link_shape_open(&b, b, 0, 0, NULL, e));
    uint64_t start = os_now_us();
    meet(a, b, &ea, &eb, &s0, &s1, &ready);
    assert_true(ready);
    assert_true(os_now_us() - start >= 20000); /* a floor, not a bar */
}

/* ---- between processes ----------------------------------------------------------------------------------------- */

enum { EXIT_FAILED_AS_IT_SHOULD = 10, EXIT_WRONG = 11, EXIT_NO_GROUP = 12 };

/* One op of the kind that this round has: sums by each way, the others, and more bytes than any buffer holds. */
static status work_once(link_group *g, const rig *r, int rank, unsigned round, bool *right, err *e)
{
    static double values[WIDTH];
    static unsigned char bytes[RIG_RANKS][100000];
    size_t each[RIG_RANKS];
    link_op *op;
    status s = STATUS_OK;
    for (int i = 0; i < RIG_RANKS; i++)
        each[i] = sizeof bytes[i];
    if (round % 6 < 3) {
        rig_fill(values, WIDTH / 4, rank, round);
        s = link_sum_start(&op, g, values, WIDTH / 4, round % 2 ? LINK_WIRE_INT48 : LINK_WIRE_F64,
                           (link_sum_way)(1 + round % 3), e);
        s = s == STATUS_OK ? link_op_wait(op, e) : s;
        *right = s != STATUS_OK || rig_is_sum(values, WIDTH / 4, r->n, round);
    } else if (round % 6 == 3) {
        s = link_gather(g, bytes, each, e);
    } else if (round % 6 == 4) {
        s = link_broadcast(g, (int)(round % (unsigned)r->n), bytes[0], sizeof bytes[0], e);
    } else if (rank < 2) {
        s = rank == 0 ? link_send(g, 1, 0, bytes, sizeof bytes, e)
                      : link_recv(g, 0, 0, bytes, sizeof bytes, e);
    }
    return s;
}

/* Works until it fails. report: a byte after some rounds. */
static int work(const rig *r, int rank, uint64_t deadline_us, int report, err *e)
{
    link_group *g;
    link_group_config c = rig_config(rank, r->n, r->lanes);
    c.deadline_us = deadline_us;
    if (rig_group(&g, r, &c, e) != STATUS_OK)
        return EXIT_NO_GROUP;
    bool right = true;
    for (unsigned round = 0; right; round++) {
        if (work_once(g, r, rank, round, &right, e) != STATUS_OK)
            break;
        if (round == 20 && report >= 0)
            (void)os_send_all(report, "r", 1, NULL);
    }
    link_group_destroy(g);
    return right ? EXIT_FAILED_AS_IT_SHOULD : EXIT_WRONG;
}

enum end { END_KILL, END_STOP, END_RESET };

/* Rank 2's own way to go: its sockets send a reset. */
static void reset_and_exit(const rig *r)
{
    struct linger now = {1, 0};
    for (int peer = 0; peer < 2; peer++)
        (void)setsockopt(r->fd[2][peer][0], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    _exit(0);
}

static const rig *signal_rig;

static void on_signal(int number)
{
    (void)number;
    reset_and_exit(signal_rig);
}

/* Ranks 1 and 2 are processes; rank 2 ends in the middle of its work. Rank 0 is us. */
static void lose_rank(enum rig_kind kind, bool mixed, enum end end, uint64_t deadline_us)
{
    rig r;
    pid_t children[3];
    int report[2];
    char c;
    err why;
    rig_init(&r, 3, 1, kind, mixed);
    RIG_OK(os_socket_pair(report, e));
    for (int rank = 1; rank < 3; rank++) {
        children[rank] = fork();
        assert_true(children[rank] >= 0);
        if (children[rank] > 0)
            continue;
        err e;
        signal_rig = &r;
        signal(SIGUSR1, on_signal);
        alarm(300);
        rig_close_others(&r, rank);
        _exit(work(&r, rank, deadline_us, rank == 2 ? report[1] : -1, &e));
    }
    rig_close_others(&r, 0);
    pid_t killer = fork(); /* waits for rank 2's word; we are at work ourselves */
    if (killer == 0) {
        for (int peer = 1; peer < 3; peer++) {
            os_close(r.fd[0][peer][0]);
            os_close(r.memory[0][peer][0]);
        }
        if (os_recv_all(report[0], &c, 1, 60000000, NULL) != STATUS_OK)
            _exit(1);
        kill(children[2], end == END_KILL ? SIGKILL : end == END_STOP ? SIGSTOP : SIGUSR1);
        _exit(0);
    }
    assert_int_equal(work(&r, 0, deadline_us, -1, &why), EXIT_FAILED_AS_IT_SHOULD);
    assert_true(why.code == STATUS_CLOSED || why.code == STATUS_TIMEOUT);
    int code;
    assert_int_equal(waitpid(killer, &code, 0), killer);
    assert_int_equal(code, 0);
    assert_int_equal(waitpid(children[1], &code, 0), children[1]);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), EXIT_FAILED_AS_IT_SHOULD);
    kill(children[2], SIGKILL);
    assert_int_equal(waitpid(children[2], &code, 0), children[2]);
    os_close(report[0]);
    os_close(report[1]);
}

static void test_kill(void **state)
{
    (void)state;
    lose_rank(RIG_TLS, false, END_KILL, 120000000);
    lose_rank(RIG_SHM, false, END_KILL, 120000000);
    lose_rank(RIG_TLS, true, END_KILL, 120000000);
}

static void test_stop(void **state)
{
    (void)state;
    lose_rank(RIG_TLS, false, END_STOP, 5000000);
    lose_rank(RIG_SHM, false, END_STOP, 5000000);
}

static void test_reset(void **state)
{
    (void)state;
    lose_rank(RIG_TLS, false, END_RESET, 120000000);
    lose_rank(RIG_SHM, false, END_RESET, 120000000);
}

static bool has_ucx(void)
{
    int pair[2];
    link_conn *c;
    RIG_OK(os_socket_pair(pair, e));
    os_close(pair[1]);
    if (link_ucx_open(&c, pair[0], true, NULL) != STATUS_OK)
        return false;
    link_conn_close(c);
    return true;
}

/* Before any thread, and before this process has a UCX of its own. */
static void test_ucx_faults(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0)
        _exit(has_ucx() ? 0 : 1);
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    if (!WIFEXITED(code) || WEXITSTATUS(code) != 0)
        skip();
    lose_rank(RIG_UCX, false, END_KILL, 120000000);
    lose_rank(RIG_UCX, false, END_STOP, 5000000);
}

static int count_descriptors(void)
{
    int n = 0;
    for (int fd = 0; fd < 512; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void test_no_descriptor_left(void **state)
{
    (void)state;
    assert_int_equal(count_descriptors(), *(int *)*state);
}

int main(void)
{
    int before = count_descriptors();
    void *sockets = &before;
    const struct CMUnitTest tests[] = {
        /* processes first: a fork after threads is not what some sanitizers like */
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_ucx_faults),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_openssl_peer),
        cmocka_unit_test(test_changed_records),
        cmocka_unit_test(test_hostile_memory),
        cmocka_unit_test(test_shaped),
        cmocka_unit_test(test_tls_threads),
        cmocka_unit_test(test_shm_threads),
        cmocka_unit_test(test_mixed_threads),
        cmocka_unit_test(test_ucx),
        cmocka_unit_test_prestate(test_no_descriptor_left, sockets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
