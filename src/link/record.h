/*
 * Inside link: the record layer of TLS 1.3 (RFC 8446 sections 5 and 7) for TLS_AES_128_GCM_SHA256, one direction of one connection. OpenSSL
 * makes the handshake; from the first record of data on the records are ours, because OpenSSL's own way copies every byte three
 * times more. What is on the wire is plain TLS 1.3: a test talks to OpenSSL on the other side.
 * Not here: the handshake, sockets (tls.c). Not thread-safe: one thread has both directions.
 */
#ifndef SHOAL_LINK_RECORD_H
#define SHOAL_LINK_RECORD_H

#include "link/inside.h"

enum {
    LINK_RECORD_HEAD = 5,      /* type 23, version 3.3, length */
    LINK_RECORD_TAIL = 17,     /* the inner type and the tag */
    LINK_RECORD_PLAIN = 16384, /* at most, of data in one record */
    LINK_RECORD_SECRET = 32,
    LINK_RECORD_ALERT = 21, /* inner types */
    LINK_RECORD_HANDSHAKE = 22,
    LINK_RECORD_DATA = 23
};

typedef struct link_record_keys {
    void *cipher; /* EVP_CIPHER_CTX, owned */
    unsigned char secret[LINK_RECORD_SECRET], iv[12];
    uint64_t sequence; /* records under this key */
    bool seals;
} link_record_keys;

/* secret: a traffic secret of section 7.1. */
status link_record_init(link_record_keys *k, const unsigned char secret[LINK_RECORD_SECRET],
                        bool seals, err *e);
void link_record_fini(link_record_keys *k);
/* The next generation of keys (section 7.2), sequence 0. */
status link_record_next_keys(link_record_keys *k, err *e);
/* The parts, together at most LINK_RECORD_PLAIN bytes, into out: LINK_RECORD_HEAD + LINK_RECORD_TAIL bytes more. */
status link_record_seal(link_record_keys *k, unsigned char *out, const link_part *parts,
                        size_t n_parts, int type, err *e);
/* How many bytes the record that begins here has: 0 when fewer than its header are there. */
status link_record_length(size_t *out, const unsigned char *bytes, size_t n, err *e);
/* A whole record of n bytes. to: [n − LINK_RECORD_HEAD − LINK_RECORD_TAIL], may be its own payload (record + LINK_RECORD_HEAD). On failure
 * what is in `to` is garbage. */
status link_record_unseal(link_record_keys *k, unsigned char *to, int *type,
                          const unsigned char *record, size_t n, err *e);

#endif
