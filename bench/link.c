/*
 * What links cost on this machine: sums of two ranks over shm and tls beside a bare exchange of the same wire bytes over TLS and over a
 * bare socket, sums of three ranks by each way, bulk over several TLS streams beside what AES does on one core.
 *
 *   bench_link [seconds per figure [shm|tls|prompt|three|forms|bulk]]
 *   bench_link probe shm|tls LATENCY_US GBIT_S     what two ranks measure of a link with so much latency added and such a cap (0: none)
 *
 * Ranks over shm are processes, others threads; ten runs are timed together. Prints; asserts nothing. Where the cores are busy the medians are the scheduler's; the
 * best tenth of the rounds (which the ratios are made of) still shows the links when both ranks happen to run.
 */
#include "link/link.h"

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_VALUES   4096                   /* 16 KiB of f32 */
#define N_PROMPT   (256 * 2048)           /* a prompt's rows of a model 2048 wide */
#define PART_BYTES (128 * 2048 / 32 * 40) /* what a rank makes of its rows: int8 blocks */
#define MAX_RANKS  3
#define BULK_BYTES (4u << 20)
#define MAX_RUNS   200000
#define WIRE_US    30 /* latency of the shaped links */

static const unsigned char key[32] = {7};
static double seconds = 1;

typedef struct player {
    int rank, n_ranks, n_values;
    link_wire wire;
    link_sum_way way;
    bool broadcasts; /* instead of summing: n_values bytes from rank 0, one back from each */
    bool scatters;   /* a scatter, and a gather of PART_BYTES of each of two ranks */
    link_conn *conns[MAX_RANKS];
    uint32_t *ns100; /* [n]: a tenth of a microsecond per run, rank 0 */
    int n;
    uint64_t spin_us;
} player;

static void check(status s, const err *e)
{
    if (s == STATUS_OK)
        return;
    fprintf(stderr, "bench_link: %s\n", e->text);
    exit(1);
}

static int by_size(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, 4);
    memcpy(&y, b, 4);
    return x < y ? -1 : x > y;
}

static double print_times(const char *what, uint32_t *t, int n)
{
    qsort(t, (size_t)n, sizeof *t, by_size);
    printf("%-52s best tenth %8.1f us, median %8.1f, p99 %8.1f  (%d)\n", what, t[n / 10] / 10.0,
           t[n / 2] / 10.0, t[n - 1 - n / 100] / 10.0, n);
    fflush(stdout);
    return t[n / 10] / 10.0;
}

/* Rounds of ten are timed together: the clock counts whole microseconds. Rank 0 says in each round whether another follows. */
static void play(void *context)
{
    player *p = context;
    link_group *g;
    err e;
    link_group_config c = {
        .rank = p->rank, .n_ranks = p->n_ranks, .n_lanes = 1, .spin_us = p->spin_us};
    check(link_numerics(c.numerics, "exact/1", p->wire, &e), &e);
    double *values = calloc((size_t)p->n_values + 1, sizeof *values);
    check(link_group_create(&g, &c, p->conns, &e), &e);
    check(link_group_wait(g, &e), &e);
    uint64_t until = os_now_us() + (uint64_t)(seconds * 1e6);
    unsigned char more = 1;
    while (more) {
        uint64_t start = os_now_us();
        for (int i = 0; i < 10 && p->broadcasts; i++) {
            check(link_broadcast(g, 0, values, (size_t)p->n_values, &e), &e);
            check(link_broadcast(g, 1, values, 1, &e), &e);
        }
        for (int i = 0; i < 10 && p->scatters; i++) {
            const size_t parts[] = {(size_t)p->n_values / 2, (size_t)p->n_values / 2};
            const size_t bytes[] = {PART_BYTES, PART_BYTES};
            check(link_scatter(g, values, parts, p->wire, &e), &e);
            check(link_gather(g, values, bytes, &e), &e);
        }
        for (int i = 0; i < 10 && !p->broadcasts && !p->scatters; i++) {
            link_op *op;
            check(link_sum_start(&op, g, values, (size_t)p->n_values, p->wire, p->way, &e), &e);
            check(link_op_wait(op, &e), &e);
        }
        uint64_t end = os_now_us();
        if (p->rank == 0 && p->n < MAX_RUNS)
            p->ns100[p->n++] = (uint32_t)(end - start);
        more = end < until;
        check(link_broadcast(g, 0, &more, 1, &e), &e);
    }
    link_group_destroy(g);
    free(values);
}

static void join_tcp(int out[2])
{
    int listener;
    uint16_t port = 0;
    err e;
    check(os_tcp_listen(&listener, "127.0.0.1", &port, &e), &e);
    check(os_tcp_connect(&out[0], "127.0.0.1", port, 5000000, &e), &e);
    check(os_tcp_accept(&out[1], listener, 5000000, &e), &e);
    os_close(listener);
}

static void join(link_conn **a, link_conn **b, bool tls)
{
    err e;
    if (tls) {
        int fd[2];
        join_tcp(fd);
        check(link_tls_open(a, fd[0], false, key, "bench", &e), &e);
        check(link_tls_open(b, fd[1], true, key, "bench", &e), &e);
        return;
    }
    link_shm_end ends[2];
    check(link_shm_create(ends, 1 << 20, &e), &e);
    check(link_shm_open(a, ends[0], 0, &e), &e);
    check(link_shm_open(b, ends[1], 1, &e), &e);
}

static void start_process(pid_t *child, player *p)
{
    fflush(stdout);
    *child = fork();
    if (*child == 0) {
        play(p);
        _exit(0);
    }
    if (*child < 0)
        exit(1);
}

/* model: what all ranks have in common. bytes_per_s: of the wire, 0 as fast as it is. */
static double play_all(const char *what, const player *model, bool tls, double bytes_per_s)
{
    int n_ranks = model->n_ranks;
    player players[MAX_RANKS];
    os_thread *threads[MAX_RANKS];
    pid_t children[MAX_RANKS];
    err e;
    for (int r = 0; r < n_ranks; r++)
        players[r] = *model;
    for (int a = 0; a < n_ranks; a++)
        for (int b = a + 1; b < n_ranks; b++) {
            link_conn **x = &players[a].conns[b], **y = &players[b].conns[a];
            join(x, y, tls);
            if (bytes_per_s > 0) {
                check(link_shape_open(x, *x, WIRE_US, bytes_per_s, NULL, &e), &e);
                check(link_shape_open(y, *y, WIRE_US, bytes_per_s, NULL, &e), &e);
            }
        }
    for (int r = 0; r < n_ranks; r++) {
        player *p = &players[r];
        p->rank = r;
        p->ns100 = r ? NULL : malloc(MAX_RUNS * sizeof(uint32_t));
        if (tls)
            check(os_thread_create(&threads[r], play, p, "rank", &e), &e);
        else if (r > 0)
            start_process(&children[r], p);
    }
    if (!tls)
        play(&players[0]);
    for (int r = 0; r < n_ranks; r++) {
        if (tls)
            os_thread_join(threads[r]);
        else if (r > 0)
            (void)waitpid(children[r], NULL, 0);
    }
    double us = print_times(what, players[0].ns100, players[0].n);
    free(players[0].ns100);
    return us;
}

static double sums(const char *what, int n_ranks, bool tls, int n_values, link_wire wire,
                   link_sum_way way, uint64_t spin_us)
{
    player p = {.n_ranks = n_ranks, .n_values = n_values, .wire = wire, .way = way};
    p.spin_us = spin_us;
    return play_all(what, &p, tls, 0);
}

/* ---- the bare exchange ------------------------------------------------------------------------------------------ */

/* Both sides send n bytes and receive n bytes, over a socket, with OpenSSL's own socket BIO or without TLS; nothing else. */
typedef struct bare {
    int fd, n_bytes, n;
    bool server, tls;
    uint32_t *ns100;
    SSL *ssl;
} bare;

static int give_session(SSL *ssl, SSL_SESSION **out)
{
    static const unsigned char cipher[2] = {0x13, 0x01};
    *out = SSL_SESSION_new();
    return SSL_SESSION_set1_master_key(*out, key, sizeof key) &&
           SSL_SESSION_set_cipher(*out, SSL_CIPHER_find(ssl, cipher)) &&
           SSL_SESSION_set_protocol_version(*out, TLS1_3_VERSION);
}

static int use_session(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *n,
                       SSL_SESSION **out)
{
    (void)md;
    *id = (const unsigned char *)"bench";
    *n = 5;
    return give_session(ssl, out);
}

static int find_session(SSL *ssl, const unsigned char *id, size_t n, SSL_SESSION **out)
{
    (void)id;
    (void)n;
    return give_session(ssl, out);
}

static void bare_move(bare *b, unsigned char *out, unsigned char *in)
{
    int sent = 0, got = 0;
    while (sent < b->n_bytes || got < b->n_bytes) {
        size_t n = 0;
        err e;
        if (b->tls) {
            int done;
            if (sent < b->n_bytes && (done = SSL_write(b->ssl, out + sent, b->n_bytes - sent)) > 0)
                sent += done;
            if (got < b->n_bytes && (done = SSL_read(b->ssl, in + got, b->n_bytes - got)) > 0)
                got += done;
            continue;
        }
        check(os_try_send(b->fd, out + sent, (size_t)(b->n_bytes - sent), &n, &e), &e);
        sent += (int)n;
        if (got < b->n_bytes) {
            check(os_try_recv(b->fd, in + got, (size_t)(b->n_bytes - got), &n, &e), &e);
            got += (int)n;
        }
    }
}

static void bare_connect(bare *b)
{
    SSL_CTX *c = SSL_CTX_new(b->server ? TLS_server_method() : TLS_client_method());
    SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_num_tickets(c, 0);
    SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE);
    SSL_CTX_set_psk_use_session_callback(c, use_session);
    SSL_CTX_set_psk_find_session_callback(c, find_session);
    b->ssl = SSL_new(c);
    SSL_CTX_free(c);
    SSL_set_fd(b->ssl, b->fd);
    while ((b->server ? SSL_accept(b->ssl) : SSL_connect(b->ssl)) != 1)
        continue;
}

static void bare_play(void *context)
{
    bare *b = context;
    unsigned char *out = calloc(1, (size_t)b->n_bytes), *in = calloc(1, (size_t)b->n_bytes);
    if (b->tls)
        bare_connect(b);
    uint64_t until = os_now_us() + (uint64_t)(seconds * 1e6);
    for (out[0] = in[0] = 1; out[0] && in[0];) {
        uint64_t start = os_now_us();
        for (int i = 0; i < 10; i++)
            bare_move(b, out, in);
        uint64_t end = os_now_us();
        if (!b->server && b->n < MAX_RUNS)
            b->ns100[b->n++] = (uint32_t)(end - start);
        /* the server ends one round after the client said so, in the bytes of the exchange itself */
        out[0] = b->server ? 1 : end < until;
        bare_move(b, out, in);
        if (!b->server)
            in[0] = 1;
    }
    SSL_free(b->ssl);
    free(out);
    free(in);
}

static double bare_exchange(const char *what, int n_bytes, bool tls)
{
    int fd[2];
    join_tcp(fd);
    bare sides[2];
    os_thread *threads[2];
    err e;
    memset(sides, 0, sizeof sides);
    for (int i = 0; i < 2; i++) {
        sides[i] = (bare){.fd = fd[i], .n_bytes = n_bytes, .server = i == 1, .tls = tls};
        sides[i].ns100 = i ? NULL : malloc(MAX_RUNS * sizeof(uint32_t));
        check(os_thread_create(&threads[i], bare_play, &sides[i], "bare", &e), &e);
    }
    for (int i = 0; i < 2; i++)
        os_thread_join(threads[i]);
    double us = print_times(what, sides[0].ns100, sides[0].n);
    free(sides[0].ns100);
    os_close(fd[0]);
    os_close(fd[1]);
    return us;
}

/* ---- bulk ------------------------------------------------------------------------------------------------------- */

typedef struct bulk {
    link_conn *conn;
    bool sends;
    uint64_t bytes, cpu_us;
} bulk;

static void bulk_play(void *context)
{
    bulk *b = context;
    link_group *g;
    err e;
    link_conn *conns[2] = {b->sends ? NULL : b->conn, b->sends ? b->conn : NULL};
    link_group_config c = {.rank = b->sends ? 0 : 1, .n_ranks = 2, .n_lanes = 1};
    unsigned char *block = calloc(1, BULK_BYTES);
    check(link_group_create(&g, &c, conns, &e), &e);
    check(link_group_wait(g, &e), &e);
    uint64_t until = os_now_us() + (uint64_t)(seconds * 1e6), cpu = os_thread_cpu_us();
    for (block[0] = 1; block[0];) {
        if (b->sends)
            block[0] = os_now_us() < until;
        check(b->sends ? link_send(g, 1, 0, block, BULK_BYTES, &e)
                       : link_recv(g, 0, 0, block, BULK_BYTES, &e),
              &e);
        b->bytes += BULK_BYTES;
    }
    b->cpu_us = os_thread_cpu_us() - cpu;
    link_group_destroy(g);
    free(block);
}

static double aes_rate(void)
{
    static unsigned char in[16384], out[16384 + 16];
    unsigned char iv[12] = {0}, tag[16];
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    uint64_t bytes = 0, cpu = os_thread_cpu_us(), until = os_now_us() + (uint64_t)(seconds * 5e5);
    int n;
    EVP_EncryptInit_ex(c, EVP_aes_128_gcm(), NULL, key, iv);
    while (os_now_us() < until) {
        EVP_EncryptInit_ex(c, NULL, NULL, NULL, iv);
        EVP_EncryptUpdate(c, out, &n, in, sizeof in);
        EVP_EncryptFinal_ex(c, out + n, &n);
        EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, 16, tag);
        bytes += sizeof in;
    }
    EVP_CIPHER_CTX_free(c);
    return (double)bytes / (double)(os_thread_cpu_us() - cpu) / 1e3;
}

/* The same bytes over the same kind of socket with neither TLS nor frames; waits in poll. */
typedef struct pour {
    int fd;
    bool sends;
    uint64_t bytes, cpu_us;
} pour;

static void pour_play(void *context)
{
    pour *p = context;
    unsigned char *block = calloc(1, BULK_BYTES);
    uint64_t until = os_now_us() + (uint64_t)(seconds * 1e6), cpu = os_thread_cpu_us();
    status s = STATUS_OK;
    while (s == STATUS_OK && (!p->sends || os_now_us() < until))
        for (size_t at = 0, n; at < BULK_BYTES && s == STATUS_OK; at += n) {
            size_t most = BASE_MIN(BULK_BYTES - at, (size_t)256 << 10);
            s = p->sends ? os_try_send(p->fd, block + at, most, &n, NULL)
                         : os_try_recv(p->fd, block + at, most, &n, NULL);
            os_interest want = {.fd = p->fd, .read = !p->sends, .write = p->sends};
            if (s == STATUS_OK && n == 0)
                s = os_wait_any(&want, 1, 1000000, NULL);
            p->bytes += s == STATUS_OK ? n : 0;
        }
    p->cpu_us = os_thread_cpu_us() - cpu;
    os_close(p->fd);
    free(block);
}

/* GB/s for each core used, both sides counted. */
static double bare_bulk(void)
{
    int fd[2];
    os_thread *threads[2];
    err e;
    join_tcp(fd);
    pour sides[2] = {{.fd = fd[0], .sends = true}, {.fd = fd[1]}};
    for (int i = 0; i < 2; i++)
        check(os_thread_create(&threads[i], pour_play, &sides[i], "pour", &e), &e);
    for (int i = 0; i < 2; i++)
        os_thread_join(threads[i]);
    double rate = 2 * (double)sides[1].bytes / (double)(sides[0].cpu_us + sides[1].cpu_us) / 1e3;
    printf("bulk over bare TCP: %.2f GB/s per core used\n", rate);
    return rate;
}

static void bulk_streams(int n_streams, double aes, double tcp)
{
    bulk b[8];
    os_thread *threads[8];
    err e;
    double bytes = 0, cpu = 0;
    memset(b, 0, sizeof b);
    for (int i = 0; i < n_streams; i++) {
        b[2 * i].sends = true;
        join(&b[2 * i].conn, &b[2 * i + 1].conn, true);
    }
    uint64_t start = os_now_us();
    for (int i = 0; i < 2 * n_streams; i++)
        check(os_thread_create(&threads[i], bulk_play, &b[i], "bulk", &e), &e);
    for (int i = 0; i < 2 * n_streams; i++)
        os_thread_join(threads[i]);
    double us = (double)(os_now_us() - start);
    for (int i = 0; i < 2 * n_streams; i++) {
        bytes += b[i].sends ? (double)b[i].bytes : 0;
        cpu += (double)b[i].cpu_us;
    }
    /* a byte is sealed on one side and opened on the other: two cores' worth of AES */
    double rate = 2 * bytes / cpu / 1e3;
    printf(
        "bulk over tls, %d stream%s: %.2f GB/s, %.2f GB/s per core used: %.2f of AES (%.2f), %.2f "
        "of AES and bare TCP one after the other\n",
        n_streams, n_streams > 1 ? "s" : "", bytes / us / 1e3, rate, rate / aes, aes,
        rate * (1 / aes + 1 / tcp));
    fflush(stdout);
}

static void shm_figures(uint64_t spin)
{
    sums("shm, 2 ranks, 4096 values, int48 (24 KiB each way)", 2, false, N_VALUES, LINK_WIRE_INT48,
         LINK_SUM_AUTO, spin);
    sums("shm, 2 ranks, 4096 values, f64 (32 KiB each way)", 2, false, N_VALUES, LINK_WIRE_F64,
         LINK_SUM_AUTO, spin);
    sums("shm, 2 ranks, 4096 values, blocks (16 KiB each way)", 2, false, N_VALUES,
         LINK_WIRE_BLOCKS, LINK_SUM_AUTO, spin);
    sums("shm, 2 ranks, 1024 values, f64", 2, false, N_VALUES / 4, LINK_WIRE_F64, LINK_SUM_AUTO,
         spin);
    sums("shm, 2 ranks, 8 values, f64", 2, false, 8, LINK_WIRE_F64, LINK_SUM_AUTO, spin);
    player tokens = {.n_ranks = 2, .n_values = 256, .broadcasts = true, .spin_us = spin};
    play_all("shm, 2 ranks, 256 B of tokens out and 1 B back", &tokens, false, 0);
    sums("shm, 2 ranks, 8 values, asleep in poll after 200 us", 2, false, 8, LINK_WIRE_F64,
         LINK_SUM_AUTO, 200);
    sums("the same, asleep at once", 2, false, 8, LINK_WIRE_F64, LINK_SUM_AUTO, 0);
}

/* The sum of a prompt's rows on every rank, and the sums of half of them on each with a gather of what it makes of them. */
static void prompts(uint64_t spin)
{
    static const link_wire wires[] = {LINK_WIRE_F64, LINK_WIRE_INT48, LINK_WIRE_BLOCKS};
    static const char *const names[] = {"f64", "int48", "blocks"};
    for (int tls = 0; tls < 2; tls++)
        for (size_t w = 0; w < BASE_COUNT(wires); w++)
            for (int scatters = 0; scatters < 2; scatters++) {
                char what[80];
                player p = {.n_ranks = 2, .n_values = N_PROMPT, .wire = wires[w], .spin_us = spin};
                p.scatters = scatters;
                snprintf(what, sizeof what, "%s, 2 ranks, 256 x 2048 values, %s, %s",
                         tls ? "tls" : "shm", names[w], scatters ? "scatter and gather" : "sum");
                play_all(what, &p, tls, 0);
            }
}

static void tls_figures(uint64_t spin)
{
    for (int round = 0; round < 2; round++) {
        bare_exchange("bare TCP, 24 KiB each way", 6 * N_VALUES, false);
        double bare48 = bare_exchange("bare TLS, 24 KiB each way", 6 * N_VALUES, true);
        double sum48 = sums("tls, 2 ranks, 4096 values, int48", 2, true, N_VALUES, LINK_WIRE_INT48,
                            LINK_SUM_AUTO, spin);
        double bare64 = bare_exchange("bare TLS, 32 KiB each way", 8 * N_VALUES, true);
        double sum64 = sums("tls, 2 ranks, 4096 values, f64", 2, true, N_VALUES, LINK_WIRE_F64,
                            LINK_SUM_AUTO, spin);
        sums("tls, 2 ranks, 4096 values, blocks", 2, true, N_VALUES, LINK_WIRE_BLOCKS,
             LINK_SUM_AUTO, spin);
        printf("a sum over tls / the bare exchange, best tenths: %.2f int48, %.2f f64\n",
               sum48 / bare48, sum64 / bare64);
    }
}

/* What the forms of values are for: 16 KiB of f32 over a shaped wire. AUTO must be the better of the exact ones. */
static void forms(void)
{
    static const char *const names[] = {"f64", "int48", "blocks", "bf16", "q8"};
    static const double gbits[] = {1, 2.5, 10};
    for (size_t w = 0; w < BASE_COUNT(gbits); w++) {
        link_cost cost = {WIRE_US, 8e-3 / gbits[w]};
        printf("AUTO at %g Gbit/s: %s\n", gbits[w], names[link_wire_choose(2, N_VALUES, cost)]);
        for (int wire = LINK_WIRE_F64; wire <= LINK_WIRE_Q8; wire++) {
            char what[80];
            player p = {.n_ranks = 2, .n_values = N_VALUES, .wire = (link_wire)wire};
            p.spin_us = 1000000;
            snprintf(what, sizeof what, "2 ranks, 4096 values, %s, %g Gbit/s and %d us",
                     names[wire], gbits[w], WIRE_US);
            play_all(what, &p, false, gbits[w] * 1.25e8);
        }
    }
}

static void three_ranks(void)
{
    static const char *const ways[] = {"", "one shot", "two shot", "ring"};
    for (int way = LINK_SUM_ONE_SHOT; way <= LINK_SUM_RING; way++) {
        char what[80];
        snprintf(what, sizeof what, "shm, 3 ranks, 4096 values, f64, %s", ways[way]);
        sums(what, 3, false, N_VALUES, LINK_WIRE_F64, (link_sum_way)way, 200);
    }
}

/* ---- probe -------------------------------------------------------------------------------------------------------- */

typedef struct prober {
    int rank;
    link_conn *conns[2];
} prober;

enum { PROBES = 5, PROBE_SPIN_US = 2000 /* as ranks have it */ };

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Medians of some measurements as ranks make them, in JSON. */
static void probe_play(void *context)
{
    prober *p = context;
    link_group *g;
    double small[PROBES], slope[PROBES];
    err e;
    link_group_config c = {.rank = p->rank, .n_ranks = 2, .n_lanes = 1, .spin_us = PROBE_SPIN_US};
    check(link_group_create(&g, &c, p->conns, &e), &e);
    check(link_group_wait(g, &e), &e);
    for (int i = 0; i < PROBES; i++) {
        link_rates rates[4];
        check(link_measure(g, rates, &e), &e);
        link_cost cost = link_cost_of(&rates[1]);
        small[i] = cost.latency_us;
        slope[i] = cost.us_per_byte;
    }
    link_group_destroy(g);
    qsort(small, PROBES, sizeof *small, by_double);
    qsort(slope, PROBES, sizeof *slope, by_double);
    if (p->rank == 0)
        printf("{\"latency_us\": %.3f, \"us_per_byte\": %.9f}\n", small[PROBES / 2],
               slope[PROBES / 2]);
}

static int probe(const char *kind, const char *latency_text, const char *gbit_text)
{
    uint64_t latency;
    double gbit;
    bool tls = strcmp(kind, "tls") == 0;
    pid_t child;
    err e;
    if (!base_parse_u64(latency_text, &latency) || !base_parse_double(gbit_text, &gbit))
        return 2;
    prober two[2] = {{.rank = 0}, {.rank = 1}};
    link_conn **x = &two[0].conns[1], **y = &two[1].conns[0];
    join(x, y, tls);
    if (latency || gbit > 0) {
        check(link_shape_open(x, *x, latency, gbit * 1.25e8, NULL, &e), &e);
        check(link_shape_open(y, *y, latency, gbit * 1.25e8, NULL, &e), &e);
    }
    child = fork();
    if (child < 0)
        return 1;
    probe_play(&two[child == 0]);
    if (child == 0)
        _exit(0);
    (void)waitpid(child, NULL, 0);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "probe") == 0)
        return probe(argv[2], argv[3], argv[4]);
    const char *only = argc > 2 ? argv[2] : "";
    if (argc > 1 && !base_parse_double(argv[1], &seconds))
        return 2;
    uint64_t spin = 1000000; /* as the bare exchange, which never sleeps */
    if (!*only || strcmp(only, "shm") == 0)
        shm_figures(spin);
    if (!*only || strcmp(only, "tls") == 0)
        tls_figures(spin);
    if (!*only || strcmp(only, "prompt") == 0)
        prompts(spin);
    if (!*only || strcmp(only, "three") == 0)
        three_ranks();
    if (!*only || strcmp(only, "forms") == 0)
        forms();
    if (*only && strcmp(only, "bulk") != 0)
        return 0;
    double aes = aes_rate();
    double tcp = bare_bulk();
    for (int n = 1; n <= 4; n *= 2)
        bulk_streams(n, aes, tcp);
    return 0;
}
