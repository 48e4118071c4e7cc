/*
 * Ids → bytes. The bytes of each token were worked out when the tokenizer was made (vocab.c); what
 * is left is to hold back the beginning of a UTF-8 character until its rest has come, to hide
 * special tokens, and to drop the space that encoding had added.
 */
#include "text/inside.h"

#include <string.h>

void text_decoder_init(text_decoder *d, const text_tokenizer *t, int flags)
{
    memset(d, 0, sizeof *d);
    d->t = t;
    d->flags = flags;
    d->at_start = (flags & TEXT_AT_START) && (t->strip_first || t->word_spaces);
}

/* Can more bytes make a valid character of these 1 to 3? */
static bool may_become_character(const unsigned char *h, int n)
{
    if (h[0] < 0xC2 || h[0] > 0xF4)
        return false;
    int whole = h[0] < 0xE0 ? 2 : h[0] < 0xF0 ? 3 : 4;
    if (n >= whole)
        return false;
    if (n >= 2) {
        unsigned char lo = h[0] == 0xE0 ? 0xA0 : h[0] == 0xF0 ? 0x90 : 0x80;
        unsigned char hi = h[0] == 0xED ? 0x9F : h[0] == 0xF4 ? 0x8F : 0xBF;
        if (h[1] < lo || h[1] > hi)
            return false;
    }
    return n < 3 || (h[2] & 0xC0) == 0x80;
}

static void release(text_decoder *d, sb *out, int n)
{
    sb_add(out, d->held, (size_t)n);
    d->n_held -= n;
    memmove(d->held, d->held + n, (size_t)d->n_held);
}

static void take_byte(text_decoder *d, unsigned char byte, sb *out)
{
    d->held[d->n_held++] = byte;
    while (d->n_held) {
        int k = text_utf8_length((const char *)d->held, (size_t)d->n_held);
        if (!k && may_become_character(d->held, d->n_held))
            return;
        release(d, out, k ? k : 1);
    }
}

status text_decoder_feed(text_decoder *d, int32_t id, sb *out, err *e)
{
    if ((d->flags & TEXT_HIDE_SPECIAL) && text_token_is_special(d->t, id))
        return STATUS_OK;
    str bytes = text_token_bytes(d->t, id);
    size_t i = 0, was = out->length;
    if (d->at_start && bytes.length) {
        if (!text_token_is_special(d->t, id)) {
            i = bytes.data[0] == ' ';
            d->at_start = false;
        }
    }
    if (!sb_reserve(out, bytes.length + 4))
        return err_set(e, STATUS_NO_MEMORY, "text: no memory for decoding");
    for (; i < bytes.length; i++)
        take_byte(d, (unsigned char)bytes.data[i], out);
    if (!out->failed)
        return STATUS_OK;
    out->length = was;
    return err_set(e, STATUS_NO_MEMORY, "text: no memory for decoding");
}

status text_decoder_flush(text_decoder *d, sb *out, err *e)
{
    sb_add(out, d->held, (size_t)d->n_held);
    if (out->failed)
        return err_set(e, STATUS_NO_MEMORY, "text: no memory for decoding");
    d->n_held = 0;
    return STATUS_OK;
}

status text_decode(const text_tokenizer *t, const int32_t *ids, size_t n, int flags, sb *out,
                   err *e)
{
    text_decoder d;
    text_decoder_init(&d, t, flags);
    for (size_t i = 0; i < n; i++) {
        status s = text_decoder_feed(&d, ids[i], out, e);
        if (s != STATUS_OK)
            return s;
    }
    return text_decoder_flush(&d, out, e);
}
