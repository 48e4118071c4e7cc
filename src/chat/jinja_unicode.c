/* Look-ups in the tables of jinja_unicode_table.c, and UTF-8. Binary search; ASCII takes a short cut. */
#include "chat/jinja_unicode.h"

#include <string.h>

unsigned chat_char_class(uint32_t point)
{
    size_t low = 0, high = chat_unicode_n_classes;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (chat_unicode_classes[middle] >> 8 <= point)
            low = middle;
        else
            high = middle;
    }
    return chat_unicode_classes[low] & 0xff;
}

bool chat_char_space(uint32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static int case_special(const chat_case_special *rows, size_t n, uint32_t point, uint32_t out[3])
{
    for (size_t i = 0; i < n; i++) {
        if (rows[i].point != point)
            continue;
        memcpy(out, rows[i].to, sizeof rows[i].to);
        return rows[i].to[2] ? 3 : 2;
    }
    return 0;
}

int chat_char_case(uint32_t point, chat_case c, uint32_t out[3])
{
    out[0] = point;
    if (point < 0x80) {
        if (c == CHAT_CASE_LOWER && point >= 'A' && point <= 'Z')
            out[0] = point + 32;
        else if (c != CHAT_CASE_LOWER && point >= 'a' && point <= 'z')
            out[0] = point - 32;
        return 1;
    }
    const chat_case_range *rows = c == CHAT_CASE_UPPER   ? chat_unicode_upper
                                  : c == CHAT_CASE_LOWER ? chat_unicode_lower
                                                         : chat_unicode_title;
    size_t n = c == CHAT_CASE_UPPER   ? chat_unicode_n_upper
               : c == CHAT_CASE_LOWER ? chat_unicode_n_lower
                                      : chat_unicode_n_title;
    const chat_case_special *special = c == CHAT_CASE_UPPER   ? chat_unicode_upper_special
                                       : c == CHAT_CASE_LOWER ? chat_unicode_lower_special
                                                              : chat_unicode_title_special;
    size_t n_special = c == CHAT_CASE_UPPER   ? chat_unicode_n_upper_special
                       : c == CHAT_CASE_LOWER ? chat_unicode_n_lower_special
                                              : chat_unicode_n_title_special;
    int count = case_special(special, n_special, point, out);
    if (count)
        return count;
    size_t low = 0, high = n;
    while (
        low <
        high) { /* ranges do not overlap, but two interleaved ones may share a span: look at both */
        size_t middle = low + (high - low) / 2;
        if (rows[middle].last < point)
            low = middle + 1;
        else
            high = middle;
    }
    for (size_t i = low; i < n && i < low + 3; i++) {
        if (point >= rows[i].first && point <= rows[i].last &&
            (point - rows[i].first) % (uint32_t)rows[i].step == 0) {
            out[0] = (uint32_t)((int32_t)point + rows[i].delta);
            return 1;
        }
    }
    return 1;
}

uint32_t chat_utf8_next(const char **p, const char *end)
{
    const unsigned char *s = (const unsigned char *)*p;
    size_t left = (size_t)(end - *p);
    if (s[0] < 0x80 || left < 2) {
        *p += 1;
        return s[0];
    }
    if (s[0] < 0xe0 || left < 3) {
        *p += 2;
        return (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
    }
    if (s[0] < 0xf0 || left < 4) {
        *p += 3;
        return (s[0] & 0xfu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
    }
    *p += 4;
    return (s[0] & 7u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
}

uint32_t chat_utf8_previous(const char **p, const char *begin)
{
    const char *end = *p, *q = end - 1;
    while (q > begin && ((unsigned char)*q & 0xc0) == 0x80)
        q--;
    *p = q;
    return chat_utf8_next(&q, end);
}

size_t chat_utf8_put(char out[4], uint32_t c)
{
    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        c = 0xfffd;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

size_t chat_utf8_length(const char *p, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)p[i] & 0xc0) != 0x80;
    return count;
}

size_t chat_utf8_check(const char *p, size_t n)
{
    const unsigned char *s = (const unsigned char *)p;
    for (size_t i = 0; i < n;) {
        unsigned char c = s[i];
        size_t more = c < 0x80 ? 0 : c < 0xc2 ? 4 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : c < 0xf5 ? 3 : 4;
        if (more == 4 || more >= n - i)
            return i;
        for (size_t k = 1; k <= more; k++)
            if ((s[i + k] & 0xc0) != 0x80)
                return i;
        if ((c == 0xe0 && s[i + 1] < 0xa0) || (c == 0xed && s[i + 1] > 0x9f) ||
            (c == 0xf0 && s[i + 1] < 0x90) || (c == 0xf4 && s[i + 1] > 0x8f))
            return i;
        i += more + 1;
    }
    return n;
}
