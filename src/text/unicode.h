/*
 * Properties of characters, over the table that tools/gen_unicode.py makes (unicode.c, unicode_table.c). Inside of src/text.
 */
#ifndef SHOAL_TEXT_UNICODE_H
#define SHOAL_TEXT_UNICODE_H

#include "text/text.h"

/* General categories in the order of tools/gen_unicode.py. */
enum text_category {
    CAT_LU,
    CAT_LL,
    CAT_LT,
    CAT_LM,
    CAT_LO,
    CAT_MN,
    CAT_MC,
    CAT_ME,
    CAT_ND,
    CAT_NL,
    CAT_NO,
    CAT_PC,
    CAT_PD,
    CAT_PS,
    CAT_PE,
    CAT_PI,
    CAT_PF,
    CAT_PO,
    CAT_SM,
    CAT_SC,
    CAT_SK,
    CAT_SO,
    CAT_ZS,
    CAT_ZL,
    CAT_ZP,
    CAT_CC,
    CAT_CF,
    CAT_CS,
    CAT_CO,
    CAT_CN
};
#define PROPERTY_CATEGORY 31u /* bits of a property byte */
#define PROPERTY_SPACE    32u
#define PROPERTY_HAN      64u

struct text_younger {
    uint32_t lo, hi, stand_in;
};
extern const char text_unicode_version[];
extern const uint8_t text_unicode_stage1[];
extern const uint8_t text_unicode_stage2[][128];
extern const size_t text_n_younger;
extern const struct text_younger text_younger[];

/* The property byte of a code point; invalid bytes and what lies above U+10FFFF are unassigned
 * (Cn). */
static inline uint8_t text_property(uint32_t c)
{
    return c < 0x110000 ? text_unicode_stage2[text_unicode_stage1[c >> 7]][c & 127] : CAT_CN;
}
static inline bool text_is_space(uint32_t c)
{
    return (text_property(c) & PROPERTY_SPACE) != 0;
}
bool text_is_punctuation(uint32_t c); /* ASCII punctuation or category P, as in BERT */
bool text_is_word(uint32_t c);        /* \w of Rust's regex */
bool text_is_ascii(const char *p, size_t n);
/* Where the character that ends at `at` begins, at > begin; an invalid byte counts as one. */
size_t text_utf8_back(const char *text, size_t begin, size_t at);

#endif
