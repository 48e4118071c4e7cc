/*
 * Characters as Python's str methods see them (Unicode 14): classes, case, white space, and UTF-8 steps over text that is
 * known to be valid. Internal to chat. Not here: normalisation and splitting for tokenizers (src/text).
 */
#ifndef SHOAL_CHAT_JINJA_UNICODE_H
#define SHOAL_CHAT_JINJA_UNICODE_H

#include "base/base.h"

enum {
    CHAT_ALPHA = 1,
    CHAT_DECIMAL = 2,
    CHAT_DIGIT = 4,
    CHAT_NUMERIC = 8,
    CHAT_PRINTABLE = 16,
    CHAT_UPPER = 32,
    CHAT_LOWER = 64,
    CHAT_TITLE = 128
};

/* The table file's layout. */
typedef struct chat_case_range {
    uint32_t first, last;
    int32_t delta, step;
} chat_case_range;
typedef struct chat_case_special {
    uint32_t point;
    uint32_t to[3]; /* zeros behind */
} chat_case_special;
extern const uint32_t chat_unicode_classes[]; /* ascending: first point << 8 | flags */
extern const size_t chat_unicode_n_classes;
extern const chat_case_range chat_unicode_upper[], chat_unicode_lower[], chat_unicode_title[];
extern const size_t chat_unicode_n_upper, chat_unicode_n_lower, chat_unicode_n_title;
extern const chat_case_special chat_unicode_upper_special[], chat_unicode_lower_special[],
    chat_unicode_title_special[];
extern const size_t chat_unicode_n_upper_special, chat_unicode_n_lower_special,
    chat_unicode_n_title_special;

unsigned chat_char_class(uint32_t point);
bool chat_char_space(uint32_t point); /* str.isspace */
typedef enum chat_case { CHAT_CASE_UPPER, CHAT_CASE_LOWER, CHAT_CASE_TITLE } chat_case;
int chat_char_case(uint32_t point, chat_case c, uint32_t out[3]); /* how many points: 1..3 */

/* One character of valid UTF-8 at *p (< end); moves *p behind it. */
uint32_t chat_utf8_next(const char **p, const char *end);
/* The one before p (> begin); moves *p onto it. */
uint32_t chat_utf8_previous(const char **p, const char *begin);
size_t chat_utf8_put(char out[4], uint32_t point);
size_t chat_utf8_length(const char *p, size_t n); /* in characters */
/* Offset of the first invalid byte, n when all is valid UTF-8 (no surrogates, no overlong forms). */
size_t chat_utf8_check(const char *p, size_t n);

#endif
