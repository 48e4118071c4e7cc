/*
 * Splitting patterns that our own matcher does not take (pattern.c), by PCRE2.
 *
 * Patterns of tokenizer.json are written for Oniguruma or Rust's regex. Differences are
 * translated: `[a&&[b]]`, scripts as script (not script extensions), \w, `^` and `$` at lines.
 * PCRE2's Unicode tables differ from ours (10.42: Unicode 14; other machines: newer), so it is
 * shown a copy of the text with stand-ins of equal length: for characters younger than its tables
 * an older one of the same category; where the tables are newer, for what ours calls unassigned a
 * noncharacter; for U+180E another format character (PCRE2 counts it as space), for bytes that are
 * no UTF-8 U+0001.
 *
 * A pattern may be hostile: match and heap limits; when one is hit nothing matches any more, the
 * rest of the text is one piece.
 */
#include "text/inside.h"
#include "text/unicode.h"

#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

struct text_regex {
    pcre2_code *code;
    pcre2_match_context *limits;
};

/* ---- translation ------------------------------------------------------------------------------------------------ */

static const char word_set[] =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{200C}\\x{200D}\\x{24B6}-\\x{24E9}"
    "\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}";

static bool is_category(const char *name, size_t n)
{
    if (n == 1)
        return strchr("LMNPSZC", *name) != NULL;
    if (n != 2)
        return false;
    static const char all[] = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So "
                              "Zs Zl Zp Cc Cf Cs Co Cn L&";
    for (const char *p = all; *p; p += p[2] ? 3 : 2)
        if (p[0] == name[0] && p[1] == name[1])
            return true;
    return false;
}

static bool is_hex(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!((p[i] >= '0' && p[i] <= '9') || ((p[i] | 32) >= 'a' && (p[i] | 32) <= 'f')))
            return false;
    return true;
}

/* An escape at p (behind the backslash); returns how many bytes were used. */
static size_t translate_escape(const char *p, size_t n, bool in_class, sb *out)
{
    if (n >= 1 && (*p == 'w' || *p == 'W') && (!in_class || *p == 'w')) {
        if (!in_class)
            sb_puts(out, *p == 'w' ? "[" : "[^");
        sb_puts(out, word_set);
        if (!in_class)
            sb_putc(out, ']');
        return 1;
    }
    if (n >= 5 && *p == 'u' && is_hex(p + 1, 4)) {
        sb_printf(out, "\\x{%.4s}", p + 1);
        return 5;
    }
    sb_putc(out, '\\');
    if (n >= 3 && (*p == 'p' || *p == 'P') && p[1] == '{') {
        const char *name = p + 2, *close = memchr(name, '}', n - 2);
        if (close) {
            bool inverted = *name == '^';
            size_t length = (size_t)(close - name) - inverted;
            bool script =
                !is_category(name + inverted, length) && length > 2 && !memchr(name, ':', length);
            sb_printf(out, "%c{%s%s%.*s}", *p, inverted ? "^" : "", script ? "sc:" : "",
                      (int)length, name + inverted);
            return (size_t)(close - p) + 1;
        }
    }
    if (n)
        sb_putc(out, *p);
    return n ? 1 : 0;
}

/* The end of the class that begins at p[0] == '[': the index behind its bracket, 0 when it has
 * none. *split: where its own && stands, 0 when nowhere. */
static size_t class_end(const char *p, size_t n, size_t *split)
{
    int depth = 0;
    *split = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\\') {
            i++;
        } else if (p[i] == '[') {
            if (depth == 0 ||
                *split) /* nested only behind &&; elsewhere PCRE2 takes it literally */
                depth++;
        } else if (p[i] == ']' && i > 1) {
            if (--depth == 0)
                return i + 1;
        } else if (p[i] == '&' && i + 1 < n && p[i + 1] == '&' && depth == 1 && !*split) {
            *split = i;
        }
    }
    return 0;
}

static void translate_class(const char *p, size_t n, sb *out)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\\' && i + 1 < n)
            i += translate_escape(p + i + 1, n - i - 1, true, out);
        else
            sb_putc(out, p[i]);
    }
}

static void translate(const char *p, size_t n, sb *out)
{
    for (size_t i = 0; i < n;) {
        size_t split, end;
        if (p[i] == '\\') {
            i += 1 + translate_escape(p + i + 1, n - i - 1, false, out);
        } else if (p[i] == '[' && (end = class_end(p + i, n - i, &split)) != 0) {
            const char *k = p + i;
            if (split && k[split + 2] == '[' && k[end - 2] == ']') {
                sb_puts(out, "(?:(?=");
                translate_class(k + split + 2, end - 1 - (split + 2), out);
                sb_putc(out, ')');
                translate_class(k, split, out);
                sb_puts(out, "])");
            } else {
                translate_class(k, end, out);
            }
            i += end;
        } else {
            sb_putc(out, p[i++]);
        }
    }
}

/* ---- compiling and matching ------------------------------------------------------------------------------------- */

status text_regex_compile(struct text_regex **out, const char *regex, size_t n, err *e)
{
    if (n > 16384)
        return err_set(e, STATUS_TOO_LARGE,
                       "text: splitting pattern of %zu bytes, at most 16384 are taken", n);
    sb source = {0};
    sb_reserve(&source, n + 1);
    translate(regex, n, &source);
    struct text_regex *r = base_zalloc(1, sizeof *r);
    if (!r || source.failed) {
        sb_fini(&source);
        base_free(r);
        return err_set(e, STATUS_NO_MEMORY, "text: no memory for a splitting pattern");
    }
    int code;
    PCRE2_SIZE where;
    r->code = pcre2_compile((PCRE2_SPTR)(source.data ? source.data : ""), source.length,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                            &code, &where, NULL);
    sb_fini(&source);
    if (!r->code) {
        PCRE2_UCHAR message[120];
        pcre2_get_error_message(code, message, sizeof message);
        text_regex_free(r);
        return err_set(e, STATUS_UNSUPPORTED,
                       "text: splitting pattern not understood: %s at byte %zu of %.*s",
                       (const char *)message, (size_t)where, (int)BASE_MIN(n, (size_t)200), regex);
    }
    r->limits = pcre2_match_context_create(NULL);
    if (!r->limits) {
        text_regex_free(r);
        return err_set(e, STATUS_NO_MEMORY, "text: no memory for a splitting pattern");
    }
    pcre2_set_match_limit(r->limits, 1000000);
    pcre2_set_heap_limit(r->limits, 20000); /* KiB */
    /* May fail where memory cannot be both written and executed; then pcre2_match interprets. */
    (void)pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE);
    *out = r;
    return STATUS_OK;
}

void text_regex_free(struct text_regex *r)
{
    if (!r)
        return;
    pcre2_match_context_free(r->limits);
    pcre2_code_free(r->code);
    base_free(r);
}

/* The Unicode version of the PCRE2 that runs, as 14 for "14.0.0". */
static int pcre2_unicode(void)
{
    char version[64] = "";
    if (pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, NULL) < (int)sizeof version)
        pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);
    return version[0] >= '0' && version[1] >= '0' ? (version[0] - '0') * 10 + (version[1] - '0')
                                                  : 0;
}

static uint32_t stand_in(uint32_t c, int length, int known)
{
    if (c == 0x180E)
        return 0x200B;
    if (known > 15 && (text_property(c) & PROPERTY_CATEGORY) == CAT_CN)
        return length == 2 ? 0x378 : length == 3 ? 0xFDD0 : 0x1FFFE;
    if (known >= 15)
        return c;
    size_t lo = 0, hi = text_n_younger;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (c > text_younger[mid].hi)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < text_n_younger && c >= text_younger[lo].lo ? text_younger[lo].stand_in : c;
}

status text_regex_subject(const char *text, size_t n, sb *copy, const char **out, err *e)
{
    *out = text;
    if (text_is_ascii(text, n))
        return STATUS_OK;
    sb_clear(copy);
    if (!sb_reserve(copy, n + 1))
        return err_set(e, STATUS_NO_MEMORY, "text: no memory for %zu bytes of text", n);
    int known = pcre2_unicode();
    for (size_t i = 0; i < n;) {
        int length;
        uint32_t c = text_utf8_next(text + i, n - i, &length);
        char bytes[4];
        if (c >= 0x80000000u) {
            sb_putc(copy, 1);
        } else if (length > 1) {
            text_utf8_put(bytes, stand_in(c, length, known));
            sb_add(copy, bytes, (size_t)length);
        } else {
            sb_putc(copy, (char)c);
        }
        i += (size_t)length;
    }
    *out = copy->data;
    return copy->failed ? err_set(e, STATUS_NO_MEMORY, "text: no memory for %zu bytes of text", n)
                        : STATUS_OK;
}

bool text_regex_find(const struct text_regex *r, text_scratch *s, const char *text, size_t n,
                     size_t at, size_t *begin, size_t *end)
{
    if (!s->match_data)
        s->match_data = pcre2_match_data_create(1, NULL);
    if (!s->match_data || !s->budget)
        return false;
    int found =
        pcre2_match(r->code, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK, s->match_data, r->limits);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
        found = pcre2_match(r->code, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                            s->match_data, r->limits);
    if (found < 0) {
        if (found != PCRE2_ERROR_NOMATCH)
            s->budget = 0;
        return false;
    }
    const PCRE2_SIZE *at_match = pcre2_get_ovector_pointer(s->match_data);
    *begin = at_match[0];
    *end = at_match[1];
    /* \K could turn the two round. */
    return *begin >= at && *end >= *begin;
}
