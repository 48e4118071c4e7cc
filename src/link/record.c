/*
 * Records: AES-128-GCM over the bytes of a record and its inner type, the header as associated data, the nonce the direction's iv and the
 * number of the record. One EVP context a direction lives as long as its key; a record sets the nonce only.
 * Padding (section 5.4) is never sent and not accepted: both ends are ours.
 */
#include "link/record.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#define TAG_BYTES 16
#define KEY_BYTES 16

static status broken(const char *what, err *e)
{
    ERR_clear_error();
    return err_set(e, STATUS_INTERNAL, "TLS records: %s", what);
}

/* HKDF-Expand-Label with an empty context and one block of output (section 7.1; RFC 5869). */
static bool expand(unsigned char *out, size_t n, const unsigned char secret[LINK_RECORD_SECRET],
                   const char *label)
{
    unsigned char info[64], block[LINK_RECORD_SECRET];
    unsigned length = 0;
    size_t label_bytes = strlen(label), at = 0;
    info[at++] = 0;
    info[at++] = (unsigned char)n;
    info[at++] = (unsigned char)(6 + label_bytes);
    memcpy(info + at, "tls13 ", 6);
    memcpy(info + at + 6, label, label_bytes);
    at += 6 + label_bytes;
    info[at++] = 0; /* of context */
    info[at++] = 1; /* the first block */
    bool good = HMAC(EVP_sha256(), secret, LINK_RECORD_SECRET, info, at, block, &length) &&
                length == sizeof block;
    if (good)
        memcpy(out, block, n);
    OPENSSL_cleanse(block, sizeof block);
    return good;
}

static status set_keys(link_record_keys *k, err *e)
{
    unsigned char key[KEY_BYTES];
    bool good = expand(key, sizeof key, k->secret, "key") &&
                expand(k->iv, sizeof k->iv, k->secret, "iv") &&
                EVP_CipherInit_ex(k->cipher, EVP_aes_128_gcm(), NULL, key, NULL, k->seals) == 1;
    OPENSSL_cleanse(key, sizeof key);
    k->sequence = 0;
    return good ? STATUS_OK : broken("the keys cannot be made", e);
}

status link_record_init(link_record_keys *k, const unsigned char secret[LINK_RECORD_SECRET],
                        bool seals, err *e)
{
    *k = (link_record_keys){.cipher = EVP_CIPHER_CTX_new(), .seals = seals};
    if (!k->cipher)
        return err_set(e, STATUS_NO_MEMORY, "a cipher");
    memcpy(k->secret, secret, LINK_RECORD_SECRET);
    return set_keys(k, e);
}

void link_record_fini(link_record_keys *k)
{
    EVP_CIPHER_CTX_free(k->cipher);
    OPENSSL_cleanse(k, sizeof *k);
}

status link_record_next_keys(link_record_keys *k, err *e)
{
    unsigned char next[LINK_RECORD_SECRET];
    if (!expand(next, sizeof next, k->secret, "traffic upd"))
        return broken("the next keys cannot be made", e);
    memcpy(k->secret, next, sizeof next);
    OPENSSL_cleanse(next, sizeof next);
    return set_keys(k, e);
}

/* Sets the nonce and gives the header to the tag. */
static bool begin(link_record_keys *k, const unsigned char header[LINK_RECORD_HEAD])
{
    unsigned char nonce[sizeof k->iv];
    int n;
    memcpy(nonce, k->iv, sizeof nonce);
    for (int i = 0; i < 8; i++)
        nonce[sizeof nonce - 1 - (size_t)i] ^= (unsigned char)(k->sequence >> (8 * i));
    k->sequence++;
    return EVP_CipherInit_ex(k->cipher, NULL, NULL, NULL, nonce, -1) == 1 &&
           EVP_CipherUpdate(k->cipher, NULL, &n, header, LINK_RECORD_HEAD) == 1;
}

status link_record_seal(link_record_keys *k, unsigned char *out, const link_part *parts,
                        size_t n_parts, int type, err *e)
{
    size_t bytes = 0;
    int n = 0;
    for (size_t i = 0; i < n_parts; i++)
        bytes += parts[i].n;
    REQUIRE(k->seals && bytes <= LINK_RECORD_PLAIN);
    size_t sealed = bytes + LINK_RECORD_TAIL;
    unsigned char inner = (unsigned char)type;
    out[0] = LINK_RECORD_DATA;
    out[1] = out[2] = 3;
    out[3] = (unsigned char)(sealed >> 8);
    out[4] = (unsigned char)sealed;
    bool good = begin(k, out);
    out += LINK_RECORD_HEAD;
    for (size_t i = 0; i < n_parts; i++) {
        if (parts[i].n > 0)
            good &= EVP_CipherUpdate(k->cipher, out, &n, parts[i].bytes, (int)parts[i].n) == 1;
        out += parts[i].n;
    }
    good &= EVP_CipherUpdate(k->cipher, out, &n, &inner, 1) == 1 &&
            EVP_CipherFinal_ex(k->cipher, out + 1, &n) == 1 &&
            EVP_CIPHER_CTX_ctrl(k->cipher, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, out + 1) == 1;
    return good ? STATUS_OK : broken("sealing failed", e);
}

status link_record_length(size_t *out, const unsigned char *bytes, size_t n, err *e)
{
    *out = 0;
    if (n < LINK_RECORD_HEAD)
        return STATUS_OK;
    size_t sealed = (size_t)bytes[3] << 8 | bytes[4];
    if (bytes[0] != LINK_RECORD_DATA || bytes[1] != 3 || bytes[2] != 3 ||
        sealed < LINK_RECORD_TAIL || sealed > LINK_RECORD_PLAIN + LINK_RECORD_TAIL)
        return err_set(e, STATUS_CORRUPT, "TLS record of type %u, version %u.%u, %zu bytes",
                       bytes[0], bytes[1], bytes[2], sealed);
    *out = LINK_RECORD_HEAD + sealed;
    return STATUS_OK;
}

status link_record_unseal(link_record_keys *k, unsigned char *to, int *type,
                          const unsigned char *record, size_t n, err *e)
{
    REQUIRE(!k->seals && n >= LINK_RECORD_HEAD + LINK_RECORD_TAIL);
    const unsigned char *from = record + LINK_RECORD_HEAD;
    size_t plain = n - LINK_RECORD_HEAD - LINK_RECORD_TAIL;
    unsigned char tag[TAG_BYTES], inner = 0;
    int done = 0;
    memcpy(tag, from + plain + 1, sizeof tag);
    bool good = begin(k, record) &&
                (plain == 0 || EVP_CipherUpdate(k->cipher, to, &done, from, (int)plain) == 1) &&
                EVP_CipherUpdate(k->cipher, &inner, &done, from + plain, 1) == 1 &&
                EVP_CIPHER_CTX_ctrl(k->cipher, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, tag) == 1;
    unsigned char rest[TAG_BYTES];
    if (!good)
        return broken("unsealing failed", e);
    if (EVP_CipherFinal_ex(k->cipher, rest, &done) != 1) {
        ERR_clear_error();
        return err_set(e, STATUS_CORRUPT, "a TLS record was changed on its way");
    }
    *type = inner;
    return STATUS_OK;
}
