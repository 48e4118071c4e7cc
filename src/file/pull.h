/*
 * A pull parser for the JSON that model folders bring: safetensors headers, the shard index, config.json. The caller says what it expects
 * next; every error names file, byte offset, expected and got. No tree, no recursion without a limit, memory only for strings
 * that are spelled with escapes. UTF-8 and RFC 8259's grammar are checked. Private to the module.
 *
 * Why not jansson: a header is a flat list of 10^5 entries that are read once, and hostile ones must not cost forty times their size.
 */
#ifndef SHOAL_FILE_PULL_H
#define SHOAL_FILE_PULL_H

#include "base/base.h"

enum { PULL_DEPTH = 32 }; /* of anything inside anything */

typedef struct pull {
    const char *data;
    uint64_t bytes, at;
    uint64_t base; /* where data begins in its file: for errors */
    const char *path;
    arena *
        texts; /* for strings with escapes; NULL: they are checked and come back as spelled (for counting) */
} pull;

/* The next character that is no space, not taken; 0 at the end (and for a NUL, which no grammar rule wants). */
char file_pull_peek(pull *p);
/* Takes c or fails. what: "a tensor's entry". */
status file_pull_take(pull *p, char c, const char *what, err *e);
/* Walks the members or elements of '{' or '[': before each one call file_pull_more with first = true, then false; *more says whether one follows, the
 * closing bracket is taken when none does. */
status file_pull_more(pull *p, char close, bool first, bool *more, err *e);
/* A string; borrowed from the data when it has no escapes, else in the arena. */
status file_pull_str(pull *p, const char *what, str *out, err *e);
/* "name": of an object's member. */
status file_pull_name(pull *p, const char *what, str *out, err *e);
/* An integer in 0..UINT64_MAX. */
status file_pull_u64(pull *p, const char *what, uint64_t *out, err *e);

/* Any number. Integers that fit are exact, whatever else is a double. */
typedef struct pull_number {
    enum { PULL_I64, PULL_U64, PULL_F64 } kind; /* U64 only when it does not fit into I64 */
    int64_t i;
    uint64_t u;
    double f; /* always set */
} pull_number;
status file_pull_any_number(pull *p, pull_number *out, err *e);
/* true, false or null. */
typedef enum pull_word { PULL_TRUE, PULL_FALSE, PULL_NULL } pull_word;
status file_pull_a_word(pull *p, pull_word *out, err *e);
/* Any value, unread but checked. depth: how deep it lies. */
status file_pull_skip(pull *p, int depth, err *e);
/* Nothing but spaces is left. */
status file_pull_end(pull *p, err *e);
/* CORRUPT at the current place. */
status file_pull_fail(const pull *p, const char *what, const char *expected, err *e);

#endif
