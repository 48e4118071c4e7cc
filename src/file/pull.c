/*
 * The pull parser: one function per thing that a caller may expect, each checks the grammar as it goes.
 * Source: RFC 8259; UTF-8 per RFC 3629. Deliberately not: a tree, writing, leniency (comments, NaN, trailing commas).
 */
#include "file/pull.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

status file_pull_fail(const pull *p, const char *what, const char *expected, err *e)
{
    char got[32];
    if (p->at >= p->bytes)
        snprintf(got, sizeof got, "the end");
    else if (p->data[p->at] > ' ' && p->data[p->at] < 127)
        snprintf(got, sizeof got, "'%c'", p->data[p->at]);
    else
        snprintf(got, sizeof got, "byte 0x%02x", (unsigned char)p->data[p->at]);
    return err_set(e, STATUS_CORRUPT, "%s: byte %" PRIu64 ": %s: expected %s, got %s", p->path,
                   p->base + p->at, what, expected, got);
}

char file_pull_peek(pull *p)
{
    for (; p->at < p->bytes; p->at++) {
        char c = p->data[p->at];
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r')
            return c;
    }
    return 0;
}

status file_pull_take(pull *p, char c, const char *what, err *e)
{
    char expected[4] = {'\'', c, '\'', 0};
    if (file_pull_peek(p) != c)
        return file_pull_fail(p, what, expected, e);
    p->at++;
    return STATUS_OK;
}

status file_pull_more(pull *p, char close, bool first, bool *more, err *e)
{
    char c = file_pull_peek(p);
    *more = c != close;
    if (c == close) {
        p->at++;
        return STATUS_OK;
    }
    if (first)
        return STATUS_OK; /* whatever it is, the caller reads it */
    if (c != ',')
        return file_pull_fail(p, close == '}' ? "object" : "array",
                              close == '}' ? "',' or '}'" : "',' or ']'", e);
    p->at++;
    if (file_pull_peek(p) == close)
        return file_pull_fail(p, close == '}' ? "object" : "array", "something after ','", e);
    return STATUS_OK;
}

/* ---- strings ---------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at s; 0 when it is none (also overlong forms, surrogates, beyond U+10FFFF). */
static size_t utf8_length(const unsigned char *s, uint64_t n)
{
    unsigned char c = s[0];
    size_t length = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (length == 0 || length > n)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    }
    if ((c == 0xE0 && s[1] < 0xA0) || (c == 0xED && s[1] > 0x9F) || (c == 0xF0 && s[1] < 0x90) ||
        (c == 0xF4 && s[1] > 0x8F))
        return 0;
    return length;
}

static bool four_hex(const char *s, uint64_t n, uint32_t *out)
{
    uint32_t value = 0;
    if (n < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9'                 ? c - '0'
                    : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                         : -1;
        if (digit < 0)
            return false;
        value = value << 4 | (uint32_t)digit;
    }
    *out = value;
    return true;
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((n == 2 ? 0xC0 : n == 3 ? 0xE0 : 0xF0) | c);
    return n;
}

/* What stands behind a backslash: moves p behind it, writes at most 4 bytes to out, says how many. */
static status take_escape(pull *p, const char *what, char out[4], size_t *n, err *e)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = p->at < p->bytes ? p->data[p->at] : 0;
    const char *simple = c ? strchr(from, c) : NULL;
    uint32_t unit, low;
    if (simple) {
        p->at++;
        out[0] = to[simple - from];
        *n = 1;
        return STATUS_OK;
    }
    if (c != 'u' || !four_hex(p->data + p->at + 1, p->bytes - p->at - 1, &unit))
        return file_pull_fail(p, what, "an escape", e);
    p->at += 5;
    if (unit >= 0xD800 && unit < 0xDC00) {
        if (p->bytes - p->at < 6 || p->data[p->at] != '\\' || p->data[p->at + 1] != 'u' ||
            !four_hex(p->data + p->at + 2, 4, &low) || low < 0xDC00 || low > 0xDFFF)
            return file_pull_fail(p, what, "the second half of a surrogate pair", e);
        p->at += 6;
        unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
    } else if (unit >= 0xDC00 && unit < 0xE000) {
        return file_pull_fail(p, what, "no lone surrogate before this", e);
    }
    *n = put_utf8(out, unit);
    return STATUS_OK;
}

/* Decodes the string whose first byte is at p->at, up to and with its quote; `length` bytes of source hold at least as many as the result. */
static status decode(pull *p, const char *what, uint64_t length, str *out, err *e)
{
    char *text = p->texts ? arena_alloc(p->texts, (size_t)length + 4) : NULL;
    char scratch[4];
    uint64_t start = p->at;
    size_t n = 0;
    if (!text && p->texts)
        return err_set(e, STATUS_NO_MEMORY, "%s: a string of %" PRIu64 " bytes", p->path, length);
    while (p->data[p->at] != '"') { /* the caller saw the quote */
        size_t more = 1;
        char *to = text ? text + n : scratch;
        if (p->data[p->at] != '\\') {
            *to = p->data[p->at++];
        } else {
            p->at++;
            status s = take_escape(p, what, to, &more, e);
            if (s)
                return s;
        }
        n += more;
    }
    *out = text ? (str){text, n} : (str){p->data + start, (size_t)length};
    p->at++;
    return STATUS_OK;
}

status file_pull_str(pull *p, const char *what, str *out, err *e)
{
    bool escapes = false;
    if (file_pull_peek(p) != '"')
        return file_pull_fail(p, what, "a string", e);
    uint64_t start = ++p->at;
    for (;;) {
        if (p->at >= p->bytes)
            return file_pull_fail(p, what, "'\"'", e);
        unsigned char c = (unsigned char)p->data[p->at];
        if (c == '"')
            break;
        if (c < 0x20)
            return file_pull_fail(p, what, "no control character", e);
        size_t n = utf8_length((const unsigned char *)p->data + p->at, p->bytes - p->at);
        if (n == 0)
            return file_pull_fail(p, what, "UTF-8", e);
        p->at += n;
        if (c == '\\') {
            escapes = true;
            if (p->at < p->bytes && (unsigned char)p->data[p->at] < 0x80)
                p->at++; /* may be a quote; checked when decoding */
        }
    }
    if (!escapes) {
        *out = (str){p->data + start, (size_t)(p->at - start)};
        p->at++;
        return STATUS_OK;
    }
    uint64_t length = p->at - start;
    p->at = start;
    return decode(p, what, length, out, e);
}

status file_pull_name(pull *p, const char *what, str *out, err *e)
{
    status s = file_pull_str(p, what, out, e);
    return s ? s : file_pull_take(p, ':', what, e);
}

/* ---- numbers and words ------------------------------------------------------------------------ */

static uint64_t digits(const pull *p, uint64_t at)
{
    uint64_t start = at;
    while (at < p->bytes && p->data[at] >= '0' && p->data[at] <= '9')
        at++;
    return at - start;
}

/* Copies the number at p (RFC grammar) into text and moves behind it. */
static status take_number(pull *p, const char *what, char text[64], bool *integer, err *e)
{
    file_pull_peek(p);
    uint64_t at = p->at, n;
    *integer = true;
    if (at < p->bytes && p->data[at] == '-')
        at++;
    n = digits(p, at);
    if (n == 0 || (n > 1 && p->data[at] == '0'))
        return file_pull_fail(p, what, "a number", e);
    at += n;
    if (at < p->bytes && p->data[at] == '.') {
        *integer = false;
        n = digits(p, ++at);
        if (n == 0)
            return file_pull_fail(p, what, "a number with digits after the point", e);
        at += n;
    }
    if (at < p->bytes && (p->data[at] | 32) == 'e') {
        *integer = false;
        at++;
        if (at < p->bytes && (p->data[at] == '-' || p->data[at] == '+'))
            at++;
        n = digits(p, at);
        if (n == 0)
            return file_pull_fail(p, what, "a number with digits in its exponent", e);
        at += n;
    }
    if (at - p->at > 63)
        return file_pull_fail(p, what, "a number of at most 63 characters", e);
    memcpy(text, p->data + p->at, (size_t)(at - p->at));
    text[at - p->at] = '\0';
    p->at = at;
    return STATUS_OK;
}

status file_pull_u64(pull *p, const char *what, uint64_t *out, err *e)
{
    char text[64];
    bool integer;
    file_pull_peek(p);
    uint64_t start = p->at;
    status s = take_number(p, what, text, &integer, e);
    if (s)
        return s;
    if (!integer || !base_parse_u64(text, out))
        return err_set(e, STATUS_CORRUPT,
                       "%s: byte %" PRIu64 ": %s: expected an integer from 0 to 2^64 - 1, got %s",
                       p->path, p->base + start, what, text);
    return STATUS_OK;
}

status file_pull_any_number(pull *p, pull_number *out, err *e)
{
    char text[64];
    bool integer;
    file_pull_peek(p);
    uint64_t start = p->at;
    status s = take_number(p, "number", text, &integer, e);
    if (s)
        return s;
    if (!base_parse_double(text, &out->f))
        return err_set(e, STATUS_CORRUPT,
                       "%s: byte %" PRIu64 ": number: expected one within a double's range, got %s",
                       p->path, p->base + start, text);
    out->kind = PULL_F64;
    if (integer && base_parse_i64(text, &out->i))
        out->kind = PULL_I64;
    else if (integer && base_parse_u64(text, &out->u))
        out->kind = PULL_U64;
    return STATUS_OK;
}

status file_pull_a_word(pull *p, pull_word *out, err *e)
{
    static const char *const words[] = {"true", "false", "null"};
    file_pull_peek(p);
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if (p->bytes - p->at >= n && memcmp(p->data + p->at, words[i], n) == 0) {
            p->at += n;
            *out = (pull_word)i;
            return STATUS_OK;
        }
    }
    return file_pull_fail(p, "value", "a JSON value", e);
}

/* ---- whole values ----------------------------------------------------------------------------- */

status file_pull_skip(pull *p, int depth, err *e)
{
    char c = file_pull_peek(p);
    char text[64];
    bool integer, more;
    str ignored;
    pull_word word;
    status s;
    if (c == '"')
        return file_pull_str(p, "string", &ignored, e);
    if (c == '-' || (c >= '0' && c <= '9'))
        return take_number(p, "number", text, &integer, e);
    if (c != '{' && c != '[')
        return file_pull_a_word(p, &word, e);
    if (depth >= PULL_DEPTH)
        return file_pull_fail(p, "value", "at most 32 levels of nesting", e);
    p->at++;
    for (bool first = true;; first = false) {
        if ((s = file_pull_more(p, c == '{' ? '}' : ']', first, &more, e)) || !more)
            return s;
        if (c == '{' && (s = file_pull_name(p, "name of a member", &ignored, e)))
            return s;
        if ((s = file_pull_skip(p, depth + 1, e)))
            return s;
    }
}

status file_pull_end(pull *p, err *e)
{
    if (file_pull_peek(p) == 0 && p->at >= p->bytes)
        return STATUS_OK;
    return file_pull_fail(p, "behind the value", "nothing more", e);
}
