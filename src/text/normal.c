/*
 * Normalisers: what a tokenizer does to text before it is cut. Unicode forms and case come from
 * utf8proc, run over the valid stretches only (invalid bytes pass through) and not at all where
 * nothing can change. SentencePiece's precompiled character map is a double array (Darts) with a
 * block of replacements; every index into it is checked, it comes from a file.
 */
#include "text/inside.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

/* ---- Unicode forms ---------------------------------------------------------------------------------------------- */

/* Nothing below U+0300 takes part in composition, but for what NFD and the K forms take apart. */
static bool form_changes_nothing(normal_kind kind, const char *p, size_t n)
{
    if (kind != NORMAL_NFC)
        return text_is_ascii(p, n);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)p[i] >= 0xCC)
            return false;
    return true;
}

static status add_form(normal_kind kind, const char *p, size_t n, sb *out, err *e)
{
    static const utf8proc_option_t options[] = {
        [NORMAL_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [NORMAL_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [NORMAL_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [NORMAL_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT};
    if (form_changes_nothing(kind, p, n)) {
        sb_add(out, p, n);
        return STATUS_OK;
    }
    utf8proc_uint8_t *made = NULL;
    utf8proc_ssize_t length =
        utf8proc_map((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)n, &made, options[kind]);
    if (length < 0)
        return err_set(e, STATUS_NO_MEMORY, "text: normalising %zu bytes: %s", n,
                       utf8proc_errmsg(length));
    sb_add(out, made, (size_t)length);
    free(made);
    return STATUS_OK;
}

static status normal_form(normal_kind kind, const char *p, size_t n, sb *out, err *e)
{
    size_t from = 0;
    status st = STATUS_OK;
    for (size_t i = 0; i < n && st == STATUS_OK;) {
        int length = text_utf8_length(p + i, n - i);
        if (length) {
            i += (size_t)length;
            continue;
        }
        if (i > from)
            st = add_form(kind, p + from, i - from, out, e);
        sb_putc(out, p[i]);
        from = ++i;
    }
    if (st == STATUS_OK && from < n)
        st = add_form(kind, p + from, n - from, out, e);
    return st;
}

/* ---- character by character ------------------------------------------------------------------------------------- */

static void add_character(sb *out, uint32_t c)
{
    char bytes[4];
    sb_add(out, bytes, (size_t)text_utf8_put(bytes, c));
}

static void add_lower(sb *out, uint32_t c)
{
    if (c == 0x130) { /* the one letter whose small form is two characters */
        add_character(out, 'i');
        add_character(out, 0x307);
    } else {
        add_character(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
    }
}

static bool is_mark(uint32_t c, bool spacing_too)
{
    unsigned category = text_property(c) & PROPERTY_CATEGORY;
    return category == CAT_MN || (spacing_too && (category == CAT_MC || category == CAT_ME));
}

static bool is_chinese(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/* BERT's cleaning and its spaces round Chinese characters. */
static void bert_clean(const normal_step *step, uint32_t c, sb *out)
{
    if (step->clean) {
        bool white = c == '\t' || c == '\n' || c == '\r';
        if (c == 0 || c == 0xFFFD || (!white && (text_property(c) & PROPERTY_CATEGORY) >= CAT_CC))
            return;
        white |= text_is_space(c);
        if (white)
            c = ' ';
    }
    bool chinese = step->chinese && is_chinese(c);
    if (chinese)
        sb_putc(out, ' ');
    add_character(out, c);
    if (chinese)
        sb_putc(out, ' ');
}

/* The whitespace and control rules of SentencePiece's nmt_* maps. */
static void nmt(uint32_t c, sb *out)
{
    bool gone = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
                c == 0x8F || c == 0x9F;
    bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                 (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                 c == 0xFEFF || c == 0xFFFD;
    if (!gone)
        add_character(out, space ? ' ' : c);
}

static void each_character(const normal_step *step, normal_kind kind, const char *p, size_t n,
                           sb *out)
{
    for (size_t i = 0; i < n;) {
        int length;
        uint32_t c = text_utf8_next(p + i, n - i, &length);
        if (c >= 0x80000000u) {
            if (kind != NORMAL_BERT || !step->clean)
                sb_putc(out, p[i]);
        } else if (kind == NORMAL_LOWERCASE) {
            add_lower(out, c);
        } else if (kind == NORMAL_STRIP_ACCENTS) {
            if (!is_mark(c, step->kind == NORMAL_STRIP_ACCENTS))
                sb_add(out, p + i, (size_t)length);
        } else if (kind == NORMAL_NMT) {
            nmt(c, out);
        } else {
            bert_clean(step, c, out);
        }
        i += (size_t)length;
    }
}

static status bert(const normal_step *step, const char *p, size_t n, sb *out, err *e)
{
    sb a = {0}, b = {0};
    status st = STATUS_OK;
    each_character(step, NORMAL_BERT, p, n, &a);
    if (step->strip_accents) {
        st = normal_form(NORMAL_NFD, a.data ? a.data : "", a.length, &b, e);
        out->failed |= a.failed;
        sb_clear(&a);
        if (st == STATUS_OK)
            each_character(step, NORMAL_STRIP_ACCENTS, b.data ? b.data : "", b.length, &a);
    }
    if (st == STATUS_OK && step->lowercase)
        each_character(step, NORMAL_LOWERCASE, a.data ? a.data : "", a.length, out);
    else if (st == STATUS_OK)
        sb_add(out, a.data, a.length);
    if (a.failed || b.failed)
        out->failed = true;
    sb_fini(&a);
    sb_fini(&b);
    return st;
}

/* ---- whole strings ---------------------------------------------------------------------------------------------- */

static void strip(const normal_step *step, const char *p, size_t n, sb *out)
{
    int length;
    size_t from = 0;
    while (step->left && from < n && text_is_space(text_utf8_next(p + from, n - from, &length)))
        from += (size_t)length;
    while (step->right && n > from) {
        size_t back = text_utf8_back(p, from, n);
        if (!text_is_space(text_utf8_next(p + back, n - back, &length)))
            break;
        n = back;
    }
    sb_add(out, p + from, n - from);
}

/* SentencePiece's remove_extra_whitespaces: runs of spaces become one, none at the ends. */
static void squeeze(const char *p, size_t n, sb *out)
{
    bool space = false, any = false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == ' ') {
            space = any;
            continue;
        }
        if (space)
            sb_putc(out, ' ');
        sb_putc(out, p[i]);
        space = false;
        any = true;
    }
}

static status replace(const normal_step *step, text_scratch *s, const char *p, size_t n, sb *out,
                      err *e)
{
    text_matcher m;
    size_t at = 0, begin, end;
    status st = text_matcher_init(&m, step->pattern, s, p, n, e);
    while (st == STATUS_OK && text_matcher_next(&m, &begin, &end)) {
        sb_add(out, p + at, begin - at);
        if (end > begin)
            sb_add(out, step->content, step->content_length);
        at = end;
    }
    if (st == STATUS_OK)
        sb_add(out, p + at, n - at);
    text_matcher_fini(&m);
    return st;
}

/* ---- the precompiled character map ------------------------------------------------------------------------------ */

status text_charsmap_check(const char *blob, size_t n, err *e)
{
    uint32_t trie = n >= 4 ? base_load_u32(blob) : 0;
    if (n < 8 || trie % 4 || trie > n - 4 || trie < 4)
        return err_set(e, STATUS_CORRUPT,
                       "text: character map of %zu bytes with an index of %u bytes", n, trie);
    if (n - 4 - trie == 0 || blob[n - 1] != '\0')
        return err_set(e, STATUS_CORRUPT,
                       "text: the replacements of the character map do not end in 0");
    return STATUS_OK;
}

/* The longest prefix of p in the map: its length and where its replacement stands; 0 when there is
 * none. A unit of the double array: bits 0-7 and 31 label, 8 has a leaf, 9 scale of the offset,
 * 10-30 offset; a leaf: the value in bits 0-30. */
static size_t map_longest(const char *blob, const char *p, size_t n, uint32_t *value)
{
    size_t units = base_load_u32(blob) / 4, node = 0, longest = 0;
    uint32_t unit = base_load_u32(blob + 4);
    node ^= (size_t)(unit >> 10) << ((unit & 0x200) >> 6);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        node ^= c;
        if (!c || node >= units)
            break;
        unit = base_load_u32(blob + 4 + 4 * node);
        if ((unit & 0x800000FFu) != c)
            break;
        node ^= (size_t)(unit >> 10) << ((unit & 0x200) >> 6);
        if (unit >> 8 & 1) {
            if (node >= units)
                break;
            *value = base_load_u32(blob + 4 + 4 * node) & 0x7FFFFFFFu;
            longest = i + 1;
        }
    }
    return longest;
}

static void charsmap(const normal_step *step, const char *p, size_t n, sb *out)
{
    const char *strings = step->content + 4 + base_load_u32(step->content);
    size_t n_strings = step->content_length - (size_t)(strings - step->content);
    for (size_t i = 0; i < n;) {
        uint32_t value = 0;
        size_t length = map_longest(step->content, p + i, n - i, &value);
        if (length && value < n_strings) {
            sb_puts(out, strings + value); /* ends before the block does: checked */
        } else {
            int plain;
            text_utf8_next(p + i, n - i, &plain);
            length = (size_t)plain;
            sb_add(out, p + i, length);
        }
        i += length;
    }
}

/* ---- all of them ------------------------------------------------------------------------------------------------ */

status text_normalise_step(const normal_step *step, text_scratch *s, const char *p, size_t n,
                           sb *out, err *e)
{
    status st = STATUS_OK;
    switch (step->kind) {
    case NORMAL_NFC:
    case NORMAL_NFD:
    case NORMAL_NFKC:
    case NORMAL_NFKD:
        st = normal_form(step->kind, p, n, out, e);
        break;
    case NORMAL_LOWERCASE:
    case NORMAL_STRIP_ACCENTS:
    case NORMAL_NMT:
        each_character(step, step->kind, p, n, out);
        break;
    case NORMAL_BERT:
        st = bert(step, p, n, out, e);
        break;
    case NORMAL_STRIP:
        strip(step, p, n, out);
        break;
    case NORMAL_REPLACE:
        st = replace(step, s, p, n, out, e);
        break;
    case NORMAL_PREPEND:
        if (n)
            sb_add(out, step->content, step->content_length);
        sb_add(out, p, n);
        break;
    case NORMAL_SQUEEZE:
        squeeze(p, n, out);
        break;
    case NORMAL_CHARSMAP:
        charsmap(step, p, n, out);
        break;
    }
    if (st == STATUS_OK && out->failed)
        st = err_set(e, STATUS_NO_MEMORY, "text: no memory for normalising %zu bytes", n);
    return st;
}

status text_normalise(const text_tokenizer *t, text_scratch *s, const char *p, size_t n, str *out,
                      err *e)
{
    *out = (str){p, n};
    for (size_t i = 0; i < t->n_normal; i++) {
        const normal_step *step = &t->normal[i];
        if (step->kind <= NORMAL_NFKD && form_changes_nothing(step->kind, out->data, out->length))
            continue;
        sb *b = out->data == s->normal[0].data ? &s->normal[1] : &s->normal[0];
        s->work += out->length;
        sb_clear(b);
        status st = text_normalise_step(step, s, out->data, out->length, b, e);
        if (st != STATUS_OK)
            return st;
        *out = (str){b->data ? b->data : "", b->length};
    }
    return STATUS_OK;
}
