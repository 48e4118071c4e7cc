/*
 * Splitting patterns: compiled regexes and one pass of them over a text. Inside of src/text.
 *
 * Threads: a compiled pattern is immutable; a matcher and its scratch belong to one thread.
 */
#ifndef SHOAL_TEXT_PATTERN_H
#define SHOAL_TEXT_PATTERN_H

#include "text/text.h"

/* One regex. Sequences of quantified classes and simple groups run on our own matcher (pattern.c)
 * and table; everything else is PCRE2's (regex.c). Immutable. */
typedef struct text_pattern text_pattern;
struct text_regex; /* a compiled PCRE2 pattern */

status text_pattern_compile(text_pattern **out, const char *regex, size_t n, err *e);
status text_pattern_compile_pcre(text_pattern **out, const char *regex, size_t n,
                                 err *e); /* tests compare the two */
void text_pattern_free(text_pattern *p);
bool text_pattern_is_own(const text_pattern *p);

/* One pass over a piece of text. */
typedef struct text_matcher {
    const text_pattern *pattern;
    text_scratch *scratch;
    const char *text; /* the piece; for PCRE2 a copy that it accepts, of the same length */
    size_t n, at;
    sb copy; /* of PCRE2's subject */
} text_matcher;

status text_matcher_init(text_matcher *m, const text_pattern *p, text_scratch *s, const char *text,
                         size_t n, err *e);
void text_matcher_fini(text_matcher *m);
/* The next match [*begin, *end) at or after m->at; false at the end. Empty matches are reported
 * once each. */
bool text_matcher_next(text_matcher *m, size_t *begin, size_t *end);

status text_regex_compile(struct text_regex **out, const char *regex, size_t n, err *e);
void text_regex_free(struct text_regex *r);
status text_regex_subject(const char *text, size_t n, sb *copy, const char **out, err *e);
bool text_regex_find(const struct text_regex *r, text_scratch *s, const char *text, size_t n,
                     size_t at, size_t *begin, size_t *end);

#endif
