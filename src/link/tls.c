/*
 * tls: TLS 1.3 with an external pre-shared key over a TCP socket that never blocks. OpenSSL reads and writes two buffers of ours through a
 * BIO of our own, so a whole vector becomes records in one buffer and goes out by one send(2). The key exchange is psk_dhe_ke (forward
 * secrecy), the cipher AES-128-GCM with SHA-256, no tickets, no certificates: without the right key no handshake ends.
 * Not here: where keys come from (src/cluster), connecting (os_tcp_*), waiting (group.c).
 */
#include "link/inside.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

#define RECORD_BYTES 16384        /* of plain text in one record, RFC 8446 section 5.1 */
#define PUT_BYTES    (256u << 10) /* of plain text taken at once */
#define OUT_BYTES    (PUT_BYTES + PUT_BYTES / 64 + (64u << 10))
#define IN_BYTES     (256u << 10)
#define KEY_BYTES    32
#define IDENTITY     128

typedef struct buffer {
    unsigned char *bytes;
    size_t begin, end, size;
} buffer;

typedef struct tls {
    SSL_CTX *context;
    SSL *ssl;
    BIO_METHOD *method;
    int fd;
    bool server, ready, ended; /* ended: the peer's last byte is in the buffer */
    buffer out, in;
    unsigned char key[KEY_BYTES];
    char identity[IDENTITY];
    unsigned char staged[RECORD_BYTES];
} tls;

/* ---- the BIO: two buffers -------------------------------------------------------------------------------------- */

static int bio_write(BIO *b, const char *bytes, int n)
{
    tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    if (n < 0 || (size_t)n > t->out.size - t->out.end)
        return -1; /* put leaves room for all that it writes */
    memcpy(t->out.bytes + t->out.end, bytes, (size_t)n);
    t->out.end += (size_t)n;
    return n;
}

static int bio_read(BIO *b, char *bytes, int n)
{
    tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    size_t ready = t->in.end - t->in.begin;
    if (ready == 0 || n <= 0) {
        BIO_set_retry_read(b);
        return -1;
    }
    size_t take = BASE_MIN(ready, (size_t)n);
    memcpy(bytes, t->in.bytes + t->in.begin, take);
    t->in.begin += take;
    return (int)take;
}

static long bio_control(BIO *b, int command, long number, void *p)
{
    (void)b;
    (void)number;
    (void)p;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

/* ---- the key --------------------------------------------------------------------------------------------------- */

static SSL_SESSION *make_session(SSL *ssl, const tls *t)
{
    static const unsigned char aes_128_gcm_sha256[2] = {0x13, 0x01};
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256);
    SSL_SESSION *session = cipher ? SSL_SESSION_new() : NULL;
    if (session && (SSL_SESSION_set1_master_key(session, t->key, KEY_BYTES) != 1 ||
                    SSL_SESSION_set_cipher(session, cipher) != 1 ||
                    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) != 1)) {
        SSL_SESSION_free(session);
        session = NULL;
    }
    return session;
}

static int use_session(SSL *ssl, const EVP_MD *digest, const unsigned char **id, size_t *n,
                       SSL_SESSION **out)
{
    (void)digest; /* it is SHA-256 or OpenSSL refuses the session */
    tls *t = SSL_get_app_data(ssl);
    *out = make_session(ssl, t);
    *id = (const unsigned char *)t->identity;
    *n = strlen(t->identity);
    return *out != NULL;
}

static int find_session(SSL *ssl, const unsigned char *id, size_t n, SSL_SESSION **out)
{
    tls *t = SSL_get_app_data(ssl);
    *out = NULL;
    if (n != strlen(t->identity) || CRYPTO_memcmp(id, t->identity, n) != 0)
        return 1; /* no session: without a certificate the handshake ends there */
    *out = make_session(ssl, t);
    return *out != NULL;
}

/* ---- moving bytes ---------------------------------------------------------------------------------------------- */

static status flush(tls *t, bool *moved, err *e)
{
    while (t->out.begin < t->out.end) {
        size_t sent;
        status s =
            os_try_send(t->fd, t->out.bytes + t->out.begin, t->out.end - t->out.begin, &sent, e);
        if (s != STATUS_OK)
            return s;
        if (sent == 0)
            return STATUS_OK;
        t->out.begin += sent;
        *moved = true;
    }
    t->out.begin = t->out.end = 0;
    return STATUS_OK;
}

/* Reads what the socket has into the empty place of the buffer. */
static status fill(tls *t, bool *moved, err *e)
{
    if (t->in.begin == t->in.end)
        t->in.begin = t->in.end = 0;
    else if (t->in.size - t->in.end < t->in.size / 4) {
        memmove(t->in.bytes, t->in.bytes + t->in.begin, t->in.end - t->in.begin);
        t->in.end -= t->in.begin;
        t->in.begin = 0;
    }
    if (t->ended || t->in.end == t->in.size)
        return STATUS_OK;
    size_t got;
    status s = os_try_recv(t->fd, t->in.bytes + t->in.end, t->in.size - t->in.end, &got, e);
    if (s == STATUS_CLOSED) {
        t->ended = true;
        return STATUS_OK;
    }
    t->in.end += got;
    *moved |= got > 0;
    return s;
}

static status refuse(status code, const char *what, err *e)
{
    unsigned long number = ERR_peek_error();
    const char *reason = number ? ERR_reason_error_string(number) : NULL;
    err_set(e, code, "%s: %s", what, reason ? reason : "no reason given");
    ERR_clear_error();
    return code;
}

static status shake_hands(tls *t, bool *moved, err *e)
{
    for (;;) {
        bool came = false;
        status s = fill(t, &came, e);
        if (s != STATUS_OK)
            return s;
        ERR_clear_error();
        int done = SSL_do_handshake(t->ssl);
        int why = done == 1 ? SSL_ERROR_NONE : SSL_get_error(t->ssl, done);
        status refused = STATUS_OK;
        if (done == 1 && SSL_session_reused(t->ssl) != 1)
            refused = err_set(e, STATUS_DENIED, "TLS came up without the key");
        else if (why != SSL_ERROR_NONE && why != SSL_ERROR_WANT_READ)
            refused = refuse(STATUS_DENIED, "TLS handshake, the keys differ", e);
        s = flush(t, moved, refused == STATUS_OK ? e : NULL); /* an alert tells the peer */
        if (refused != STATUS_OK)
            return refused;
        if (s != STATUS_OK)
            return s;
        *moved |= came;
        t->ready = done == 1;
        if (t->ready)
            return STATUS_OK;
        if (t->ended)
            return err_set(e, STATUS_CLOSED, "the other side went away in the TLS handshake");
        if (!came)
            return STATUS_OK;
    }
}

static status tls_pump(void *self, uint64_t *again_us, bool *moved, err *e)
{
    (void)again_us;
    tls *t = self;
    status s = flush(t, moved, e);
    if (s == STATUS_OK && !t->ready)
        s = shake_hands(t, moved, e);
    return s;
}

static status encrypt(tls *t, const unsigned char *bytes, size_t n, err *e)
{
    size_t done = 0;
    ERR_clear_error();
    if (n == 0)
        return STATUS_OK;
    if (SSL_write_ex(t->ssl, bytes, n, &done) != 1 || done != n)
        return refuse(STATUS_IO, "TLS write", e);
    return STATUS_OK;
}

/* A short beginning of the frame is copied together into one record; the rest is encrypted from where it lies. */
static status tls_put(void *self, const link_part parts[2], size_t *taken, err *e)
{
    tls *t = self;
    bool moved = false;
    *taken = 0;
    status s = flush(t, &moved, e);
    if (s != STATUS_OK || !t->ready || t->out.end > 0)
        return s;
    const unsigned char *second = parts[1].bytes;
    size_t left = parts[1].n, from = 0;
    if (parts[0].n > 0) {
        size_t head = BASE_MIN(parts[0].n, sizeof t->staged);
        memcpy(t->staged, parts[0].bytes, head);
        from = head == parts[0].n ? BASE_MIN(left, sizeof t->staged - head) : 0;
        if (from)
            memcpy(t->staged + head, second, from);
        s = encrypt(t, t->staged, head + from, e);
        *taken = head + from;
        if (head < parts[0].n)
            left = from; /* the rest another time */
    }
    if (s == STATUS_OK && left > from) {
        size_t n = BASE_MIN(left - from, (size_t)PUT_BYTES);
        s = encrypt(t, second + from, n, e);
        *taken += n;
    }
    return s == STATUS_OK ? flush(t, &moved, e) : s;
}

static status tls_take(void *self, void *to, size_t n, size_t *got, err *e)
{
    tls *t = self;
    unsigned char *at = to;
    *got = 0;
    while (t->ready && *got < n) {
        size_t part = 0;
        bool came = false;
        ERR_clear_error();
        if (SSL_read_ex(t->ssl, at + *got, n - *got, &part) == 1) {
            *got += part;
            continue;
        }
        int why = SSL_get_error(t->ssl, 0);
        if (why != SSL_ERROR_WANT_READ)
            return *got ? STATUS_OK
                   : why == SSL_ERROR_ZERO_RETURN
                       ? err_set(e, STATUS_CLOSED, "the other side is gone")
                       : refuse(STATUS_CORRUPT, "TLS read", e);
        status s = fill(t, &came, e);
        if (s != STATUS_OK)
            return s;
        if (came)
            continue;
        if (t->ended && *got == 0)
            return err_set(e, STATUS_CLOSED, "the other side is gone");
        break;
    }
    return STATUS_OK;
}

static bool tls_arm(void *self, os_interest *out)
{
    tls *t = self;
    *out = (os_interest){.fd = t->fd,
                         .read = (out->read || !t->ready) && !t->ended,
                         .write = t->out.end > t->out.begin};
    return true;
}

static void tls_disarm(void *self)
{
    (void)self;
}

static bool tls_idle(void *self)
{
    tls *t = self;
    return t->out.begin == t->out.end;
}

static void tls_close(void *self)
{
    tls *t = self;
    SSL_free(t->ssl); /* with its BIO */
    SSL_CTX_free(t->context);
    BIO_meth_free(t->method);
    os_close(t->fd);
    base_free(t->out.bytes);
    base_free(t->in.bytes);
    OPENSSL_cleanse(t->key, sizeof t->key);
    base_free(t);
    ERR_clear_error();
}

static const link_backend backend = {
    .name = "tls",
    .caps = LINK_ENCRYPTED,
    .put = tls_put,
    .take = tls_take,
    .pump = tls_pump,
    .arm = tls_arm,
    .disarm = tls_disarm,
    .idle = tls_idle,
    .close = tls_close,
};

/* ---- opening --------------------------------------------------------------------------------------------------- */

static bool set_up_context(tls *t)
{
    SSL_CTX *c = t->context = SSL_CTX_new(t->server ? TLS_server_method() : TLS_client_method());
    if (!c || SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256") != 1)
        return false;
    SSL_CTX_set_num_tickets(c, 0);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    /* a server that would come with a certificate instead of the key is not believed */
    SSL_CTX_set_verify(c, t->server ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    if (t->server)
        SSL_CTX_set_psk_find_session_callback(c, find_session);
    else
        SSL_CTX_set_psk_use_session_callback(c, use_session);
    return true;
}

static bool set_up_bio(tls *t)
{
    t->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | 99, "link");
    if (!t->method || !BIO_meth_set_write(t->method, bio_write) ||
        !BIO_meth_set_read(t->method, bio_read) || !BIO_meth_set_ctrl(t->method, bio_control))
        return false;
    BIO *bio = BIO_new(t->method);
    if (!bio)
        return false;
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    return true;
}

status link_tls_open(link_conn **out, int fd, bool server, const unsigned char key[32],
                     const char *identity, err *e)
{
    REQUIRE(strlen(identity) < IDENTITY);
    tls *t = base_zalloc(1, sizeof *t);
    if (!t) {
        os_close(fd);
        return err_set(e, STATUS_NO_MEMORY, "a TLS connection");
    }
    t->fd = fd;
    t->server = server;
    memcpy(t->key, key, KEY_BYTES);
    memcpy(t->identity, identity, strlen(identity));
    t->out = (buffer){.bytes = base_alloc(OUT_BYTES), .size = OUT_BYTES};
    t->in = (buffer){.bytes = base_alloc(IN_BYTES), .size = IN_BYTES};
    bool good = t->out.bytes && t->in.bytes && set_up_context(t) &&
                (t->ssl = SSL_new(t->context)) != NULL && set_up_bio(t);
    status s =
        good ? os_set_nonblocking(fd, true, e) : refuse(STATUS_NO_MEMORY, "a TLS connection", e);
    if (s != STATUS_OK) {
        tls_close(t);
        return s;
    }
    SSL_set_app_data(t->ssl, t);
    if (server)
        SSL_set_accept_state(t->ssl);
    else
        SSL_set_connect_state(t->ssl);
    return link_conn_create(out, &backend, t, e);
}
