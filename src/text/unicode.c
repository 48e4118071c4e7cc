/*
 * UTF-8 and Unicode properties over the table that tools/gen_unicode.py made (unicode_table.c),
 * and GPT-2's byte map. Reading is total: a byte that is not part of valid UTF-8 is a unit of its
 * own, category Cn. Not here: normalisation and case (utf8proc, normal.c).
 */
#include "text/unicode.h"
#include "text/inside.h"

#include <string.h>

int text_utf8_length(const char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    if (u[0] < 0x80)
        return 1;
    if (u[0] < 0xC2 || u[0] > 0xF4 || n < 2 || (u[1] & 0xC0) != 0x80)
        return 0;
    if (u[0] < 0xE0)
        return 2;
    if ((u[0] == 0xE0 && u[1] < 0xA0) || (u[0] == 0xED && u[1] > 0x9F) ||
        (u[0] == 0xF0 && u[1] < 0x90) || (u[0] == 0xF4 && u[1] > 0x8F))
        return 0;
    if (n < 3 || (u[2] & 0xC0) != 0x80)
        return 0;
    if (u[0] < 0xF0)
        return 3;
    return n >= 4 && (u[3] & 0xC0) == 0x80 ? 4 : 0;
}

uint32_t text_utf8_next(const char *p, size_t n, int *length)
{
    const unsigned char *u = (const unsigned char *)p;
    int k = text_utf8_length(p, n);
    *length = k ? k : 1;
    switch (k) {
    case 1:
        return u[0];
    case 2:
        return (uint32_t)(u[0] & 0x1F) << 6 | (u[1] & 0x3F);
    case 3:
        return (uint32_t)(u[0] & 0x0F) << 12 | (uint32_t)(u[1] & 0x3F) << 6 | (u[2] & 0x3F);
    case 4:
        return (uint32_t)(u[0] & 0x07) << 18 | (uint32_t)(u[1] & 0x3F) << 12 |
               (uint32_t)(u[2] & 0x3F) << 6 | (u[3] & 0x3F);
    default:
        return u[0] | 0x80000000u;
    }
}

int text_utf8_put(char out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | (c >> 18 & 7));
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

size_t text_utf8_back(const char *text, size_t begin, size_t at)
{
    /* A lead byte is never inside another character, so a valid character that ends here is the
     * unit. */
    for (size_t k = 1; k <= 4 && at - begin >= k; k++) {
        if (((unsigned char)text[at - k] & 0xC0) == 0x80)
            continue;
        return text_utf8_length(text + at - k, k) == (int)k ? at - k : at - 1;
    }
    return at - 1;
}

bool text_is_ascii(const char *p, size_t n)
{
    while (n >= 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        if (x & 0x8080808080808080u)
            return false;
        p += 8;
        n -= 8;
    }
    for (; n; n--, p++)
        if ((unsigned char)*p >= 0x80)
            return false;
    return true;
}

bool text_is_punctuation(uint32_t c)
{
    if (c < 128)
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
               (c >= 123 && c <= 126);
    unsigned category = text_property(c) & PROPERTY_CATEGORY;
    return category >= CAT_PC && category <= CAT_PO;
}

/* Alphabetic, marks, decimal digits, connectors and joiners (UTS 18 annex C). Other_Alphabetic
 * beyond the categories is the enclosed letters. */
bool text_is_word(uint32_t c)
{
    unsigned category = text_property(c) & PROPERTY_CATEGORY;
    if (category <= CAT_NL || category == CAT_PC)
        return true;
    return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
           (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
           (c >= 0x1F170 && c <= 0x1F189);
}

/* ---- GPT-2's byte map: printable Latin-1 stands for itself, the 68 other bytes for U+0100 … in order ------------ */

static bool byte_is_itself(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

uint32_t text_byte_to_char(unsigned char byte)
{
    if (byte_is_itself(byte))
        return byte;
    /* Bytes that are not themselves, ascending: 0x00-0x20, 0x7F-0xA0, 0xAD. */
    if (byte <= 0x20)
        return 0x100u + byte;
    return byte == 0xAD ? 0x143u : 0x121u + (byte - 0x7Fu);
}

int text_char_to_byte(uint32_t c)
{
    if (c < 0x100)
        return byte_is_itself(c) ? (int)c : -1;
    if (c <= 0x120)
        return (int)(c - 0x100);
    if (c <= 0x142)
        return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

void text_map_bytes(const char *p, size_t n, sb *out)
{
    char c[4];
    for (size_t i = 0; i < n; i++)
        sb_add(out, c, (size_t)text_utf8_put(c, text_byte_to_char((unsigned char)p[i])));
}

bool text_unmap_bytes(const char *p, size_t n, sb *out)
{
    size_t was = out->length;
    while (n) {
        int length, byte = text_char_to_byte(text_utf8_next(p, n, &length));
        if (byte < 0) {
            out->length = was;
            return false;
        }
        sb_putc(out, (char)byte);
        p += length;
        n -= (size_t)length;
    }
    return true;
}
