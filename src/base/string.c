/*
 * Strings: borrowed views (str) and a growing builder (sb). The builder turns `failed` on the first failed allocation and ignores
 * everything after it, so that writers check once. No locale, no wide characters.
 */
#include "base/base.h"

#include <stdio.h>
#include <string.h>

str str_from(const char *s)
{
    return s ? (str){s, strlen(s)} : (str){"", 0};
}

bool str_equal(str a, str b)
{
    return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

bool str_is(str a, const char *b)
{
    return str_equal(a, str_from(b));
}

bool str_starts(str a, const char *prefix)
{
    size_t n = strlen(prefix);
    return a.length >= n && memcmp(a.data, prefix, n) == 0;
}

static int lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

int base_distance(const char *a, const char *b)
{
    enum { LONGEST = 64 };
    int row[LONGEST + 1];
    size_t na = strlen(a), nb = strlen(b);
    if (na > LONGEST || nb > LONGEST)
        return LONGEST;
    for (size_t j = 0; j <= nb; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int replace = diagonal + (lower(a[i - 1]) != lower(b[j - 1]));
            diagonal = row[j];
            row[j] = BASE_MIN(BASE_MIN(row[j], row[j - 1]) + 1, replace);
        }
    }
    return row[nb];
}

void sb_init(sb *b)
{
    *b = (sb){0};
}

void sb_fini(sb *b)
{
    base_free(b->data);
    *b = (sb){0};
}

void sb_clear(sb *b)
{
    b->length = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = '\0';
}

bool sb_reserve(sb *b, size_t more)
{
    if (b->failed)
        return false;
    if (more < b->capacity - b->length)
        return true;
    size_t capacity = b->capacity ? b->capacity : 64, needed;
    if (__builtin_add_overflow(b->length, more, &needed) || needed >= SIZE_MAX / 2) {
        b->failed = true;
        return false;
    }
    while (capacity <= needed)
        capacity *= 2;
    char *data = base_realloc(b->data, capacity);
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->capacity = capacity;
    return true;
}

void sb_add(sb *b, const void *bytes, size_t n)
{
    if (!sb_reserve(b, n))
        return;
    if (n)
        memcpy(b->data + b->length, bytes, n);
    b->length += n;
    b->data[b->length] = '\0';
}

void sb_puts(sb *b, const char *s)
{
    sb_add(b, s, strlen(s));
}

void sb_putc(sb *b, char c)
{
    sb_add(b, &c, 1);
}

void sb_vprintf(sb *b, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n < 0) {
        b->failed = true;
    } else if (sb_reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->length, (size_t)n + 1, format, again);
        b->length += (size_t)n;
    }
    va_end(again);
}

void sb_printf(sb *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    sb_vprintf(b, format, args);
    va_end(args);
}

/* Length of the valid UTF-8 character at s, 0 when there is none (RFC 3629: no surrogates, nothing overlong). */
static size_t utf8_length(const unsigned char *s, size_t n)
{
    unsigned char c = s[0];
    if (c < 0x80)
        return 1;
    size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
    if (c < 0xC2 || c > 0xF4 || n < length)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    bool overlong = (c == 0xE0 && s[1] < 0xA0) || (c == 0xF0 && s[1] < 0x90);
    bool beyond = (c == 0xED && s[1] > 0x9F) || (c == 0xF4 && s[1] > 0x8F);
    return overlong || beyond ? 0 : length;
}

static void json_escape_ascii(sb *b, unsigned char c)
{
    switch (c) {
    case '"':
        sb_puts(b, "\\\"");
        break;
    case '\\':
        sb_puts(b, "\\\\");
        break;
    case '\n':
        sb_puts(b, "\\n");
        break;
    case '\r':
        sb_puts(b, "\\r");
        break;
    case '\t':
        sb_puts(b, "\\t");
        break;
    default:
        sb_printf(b, "\\u%04x", c);
    }
}

void sb_json(sb *b, const char *bytes, size_t n)
{
    const unsigned char *s = (const unsigned char *)bytes;
    size_t plain = 0; /* start of the run that needs no escaping */
    for (size_t i = 0; i < n;) {
        size_t length = utf8_length(s + i, n - i);
        if (length &&
            !(length == 1 && (s[i] < 0x20 || s[i] == '"' || s[i] == '\\' || s[i] == 0x7F))) {
            i += length;
            continue;
        }
        sb_add(b, s + plain, i - plain);
        if (length)
            json_escape_ascii(b, s[i]);
        else
            sb_puts(b, "\xEF\xBF\xBD");
        plain = ++i;
    }
    sb_add(b, s + plain, n - plain);
}

char *sb_take(sb *b)
{
    char *data = NULL;
    if (!b->failed && sb_reserve(b, 0)) {
        data = b->data;
        data[b->length] = '\0';
        b->data = NULL;
    }
    sb_fini(b);
    return data;
}
