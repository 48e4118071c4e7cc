/*
 * tls: TLS 1.3 with an external pre-shared key over a TCP socket that never blocks. OpenSSL makes the handshake through a BIO of our own,
 * which reads and writes two buffers; when it is done, OpenSSL hands out the traffic secrets (its key log callback) and the records of data
 * are made and opened here (record.c): sealed from where the caller's bytes lie straight into what send(2) takes, opened straight into
 * where they belong. The key exchange is psk_dhe_ke (forward secrecy), the cipher AES-128-GCM with SHA-256, no tickets, no certificates:
 * without the right key no handshake ends.
 *
 * Keys are renewed (KeyUpdate, RFC 8446 section 4.6.3) long before the limit of AES-GCM, and when the peer asks.
 * Not here: where keys come from (src/cluster), connecting (os_tcp_*), waiting (group.c).
 */
#include "link/record.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

#define PUT_BYTES    (256u << 10) /* of plain text taken at once */
#define PUT_RECORDS  (PUT_BYTES / LINK_RECORD_PLAIN + 2)
#define OUT_BYTES    (PUT_BYTES + PUT_RECORDS * (LINK_RECORD_HEAD + LINK_RECORD_TAIL))
#define IN_BYTES     (256u << 10)
#define KEY_BYTES    32
#define IDENTITY     128
#define UPDATE_AFTER (UINT64_C(1) << 23) /* records; section 5.5 allows 2^24.5 */

typedef struct buffer {
    unsigned char *bytes;
    size_t begin, end, size;
} buffer;

typedef struct tls {
    SSL_CTX *context;
    SSL *ssl; /* of the handshake */
    BIO_METHOD *method;
    int fd;
    bool server, ready, ended; /* ended: the peer's last byte is in the buffer */
    bool closed, owes_update;  /* closed: it said that nothing follows */
    buffer out, in;
    unsigned char *plain; /* of an opened record, inside `in`: n_plain bytes not yet taken */
    size_t n_plain;
    link_record_keys seal, unseal;
    unsigned char secrets[2][LINK_RECORD_SECRET]; /* [0 of the client, 1 of the server] */
    bool has_secret[2];
    uint64_t update_after;
    unsigned char key[KEY_BYTES];
    char identity[IDENTITY];
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

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool from_hex(unsigned char *out, const char *hex, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int high = digit(hex[2 * i]), low = high < 0 ? -1 : digit(hex[2 * i + 1]);
        if (low < 0)
            return false;
        out[i] = (unsigned char)(high << 4 | low);
    }
    return hex[2 * n] == 0;
}

/* Takes the traffic secrets from lines like "CLIENT_TRAFFIC_SECRET_0 <random> <secret>", all in hexadecimal. */
static void take_secret(const SSL *ssl, const char *line)
{
    static const char *const names[] = {"CLIENT_TRAFFIC_SECRET_0 ", "SERVER_TRAFFIC_SECRET_0 "};
    tls *t = SSL_get_app_data(ssl);
    for (int side = 0; side < 2; side++) {
        if (strncmp(line, names[side], strlen(names[side])) != 0)
            continue;
        t->has_secret[side] =
            from_hex(t->secrets[side], strrchr(line, ' ') + 1, LINK_RECORD_SECRET);
    }
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

/* The handshake is done: from here on the records are ours. */
static status take_over(tls *t, err *e)
{
    int own = t->server ? 1 : 0;
    if (SSL_session_reused(t->ssl) != 1)
        return err_set(e, STATUS_DENIED, "TLS came up without the key");
    if (!t->has_secret[0] || !t->has_secret[1] || SSL_has_pending(t->ssl))
        return err_set(e, STATUS_INTERNAL, "TLS came up without traffic secrets");
    status s = link_record_init(&t->seal, t->secrets[own], true, e);
    if (s == STATUS_OK)
        s = link_record_init(&t->unseal, t->secrets[!own], false, e);
    OPENSSL_cleanse(t->secrets, sizeof t->secrets);
    t->ready = s == STATUS_OK;
    return s;
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
        if (done == 1)
            refused = take_over(t, e);
        else if (why != SSL_ERROR_NONE && why != SSL_ERROR_WANT_READ)
            refused = refuse(STATUS_DENIED, "TLS handshake, the keys differ", e);
        s = flush(t, moved, refused == STATUS_OK ? e : NULL); /* an alert tells the peer */
        if (refused != STATUS_OK)
            return refused;
        if (s != STATUS_OK)
            return s;
        *moved |= came;
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

/* ---- records --------------------------------------------------------------------------------------------------- */

/* Tells the peer that the next records have the next keys. */
static status update_keys(tls *t, err *e)
{
    static const unsigned char message[5] = {24, 0, 0, 1, 0}; /* KeyUpdate, no answer wanted */
    link_part part = {message, sizeof message};
    status s =
        link_record_seal(&t->seal, t->out.bytes + t->out.end, &part, 1, LINK_RECORD_HANDSHAKE, e);
    if (s != STATUS_OK)
        return s;
    t->out.end += sizeof message + LINK_RECORD_HEAD + LINK_RECORD_TAIL;
    t->owes_update = false;
    return link_record_next_keys(&t->seal, e);
}

static status tls_put(void *self, const link_part parts[2], size_t *taken, err *e)
{
    tls *t = self;
    bool moved = false;
    *taken = 0;
    status s = flush(t, &moved, e);
    if (s != STATUS_OK || !t->ready || t->out.end > 0)
        return s;
    if (t->owes_update || t->seal.sequence >= t->update_after)
        s = update_keys(t, e);
    link_part left[2] = {parts[0], parts[1]};
    while (s == STATUS_OK && left[0].n + left[1].n > 0 && *taken < PUT_BYTES) {
        link_part now[2] = {left[0], left[1]};
        now[0].n = BASE_MIN(left[0].n, (size_t)LINK_RECORD_PLAIN);
        now[1].n = BASE_MIN(left[1].n, LINK_RECORD_PLAIN - now[0].n);
        s = link_record_seal(&t->seal, t->out.bytes + t->out.end, now, 2, LINK_RECORD_DATA, e);
        size_t n = now[0].n + now[1].n;
        t->out.end += n + LINK_RECORD_HEAD + LINK_RECORD_TAIL;
        *taken += n;
        for (int i = 0; i < 2; i++)
            if (now[i].n > 0)
                left[i] = (link_part){left[i].bytes + now[i].n, left[i].n - now[i].n};
    }
    return s == STATUS_OK ? flush(t, &moved, e) : s;
}

/* A record that is no data, of n bytes. */
static status other_record(tls *t, int type, const unsigned char *bytes, size_t n, err *e)
{
    if (type == LINK_RECORD_HANDSHAKE && n == 5 && memcmp(bytes, "\x18\0\0\1", 4) == 0 &&
        bytes[4] <= 1) {
        t->owes_update |= bytes[4] == 1;
        return link_record_next_keys(&t->unseal, e);
    }
    if (type == LINK_RECORD_ALERT && n == 2) {
        if (bytes[1] != 0)
            return err_set(e, STATUS_CLOSED, "the other side ended TLS by alert %u", bytes[1]);
        t->closed = true;
        return STATUS_OK;
    }
    return err_set(e, STATUS_CORRUPT, "TLS record of inner type %d with %zu bytes", type, n);
}

/* How long the next record is, once it is here whole; 0: not yet. CLOSED: and never will be. */
static status next_record(tls *t, size_t *n, err *e)
{
    for (;;) {
        bool came = false;
        size_t have = t->in.end - t->in.begin;
        *n = 0;
        if (t->closed)
            return err_set(e, STATUS_CLOSED, "the other side is gone");
        status s = link_record_length(n, t->in.bytes + t->in.begin, have, e);
        if (s != STATUS_OK || (*n > 0 && *n <= have))
            return s;
        *n = 0;
        s = fill(t, &came, e);
        if (s != STATUS_OK)
            return s;
        if (!came)
            return t->ended ? err_set(e, STATUS_CLOSED, "the other side is gone") : STATUS_OK;
    }
}

/* Opens the next record: into `to` when all of its data fits into the n bytes there (*direct: how many), else in place. *some: there was
 * one. */
static status open_record(tls *t, unsigned char *to, size_t n, size_t *direct, bool *some, err *e)
{
    size_t length;
    int type = 0;
    *direct = 0;
    status s = next_record(t, &length, e);
    *some = s == STATUS_OK && length > 0;
    if (!*some)
        return s;
    unsigned char *record = t->in.bytes + t->in.begin, *place = record + LINK_RECORD_HEAD;
    size_t plain = length - LINK_RECORD_HEAD - LINK_RECORD_TAIL;
    if (plain <= n && plain > 0)
        place = to;
    s = link_record_unseal(&t->unseal, place, &type, record, length, e);
    if (s != STATUS_OK)
        return s;
    t->in.begin += length; /* the bytes stay where they are until the next fill */
    if (type != LINK_RECORD_DATA)
        return other_record(t, type, place, plain, e);
    if (place == to) {
        *direct = plain;
    } else {
        t->plain = place;
        t->n_plain = plain;
    }
    return STATUS_OK;
}

static status tls_take(void *self, void *to, size_t n, size_t *got, err *e)
{
    tls *t = self;
    unsigned char *at = to;
    bool some = true;
    *got = 0;
    while (t->ready && *got < n && some) {
        size_t part = BASE_MIN(t->n_plain, n - *got);
        if (part > 0) {
            memcpy(at + *got, t->plain, part);
            t->plain += part;
            t->n_plain -= part;
        } else {
            status s = open_record(t, at + *got, n - *got, &part, &some, e);
            if (s != STATUS_OK)
                return *got && s == STATUS_CLOSED ? STATUS_OK : s;
        }
        *got += part;
    }
    return STATUS_OK;
}

static status tls_peek(void *self, const unsigned char **bytes, size_t *n, err *e)
{
    tls *t = self;
    size_t direct;
    bool some = true;
    status s = STATUS_OK;
    while (t->ready && t->n_plain == 0 && some && s == STATUS_OK)
        s = open_record(t, NULL, 0, &direct, &some, e);
    *bytes = t->plain;
    *n = t->n_plain;
    return s;
}

static void tls_skip(void *self, size_t n)
{
    tls *t = self;
    t->plain += n;
    t->n_plain -= n;
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
    link_record_fini(&t->seal);
    link_record_fini(&t->unseal);
    OPENSSL_cleanse(t, sizeof *t);
    base_free(t);
    ERR_clear_error();
}

static const link_backend backend = {
    .name = "tls",
    .caps = LINK_ENCRYPTED,
    .put = tls_put,
    .take = tls_take,
    .peek = tls_peek,
    .skip = tls_skip,
    .pump = tls_pump,
    .arm = tls_arm,
    .disarm = tls_disarm,
    .idle = tls_idle,
    .close = tls_close,
};

void link_tls_update_after(link_conn *c, uint64_t records)
{
    REQUIRE(c->ops == &backend);
    ((tls *)c->self)->update_after = records;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static bool set_up_context(tls *t)
{
    SSL_CTX *c = t->context = SSL_CTX_new(t->server ? TLS_server_method() : TLS_client_method());
    if (!c || SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256") != 1)
        return false;
    SSL_CTX_set_num_tickets(c, 0);
    SSL_CTX_set_keylog_callback(c, take_secret);
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
    t->update_after = UPDATE_AFTER;
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
