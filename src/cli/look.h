/*
 * look: what commands print with. Tables that fit the terminal, amounts and times as people say them, whether there is colour.
 * Text of models and names of files never reach a terminal with control characters in them: see look_clean.
 */
#ifndef SHOAL_CLI_LOOK_H
#define SHOAL_CLI_LOOK_H

#include "base/base.h"

#include <jansson.h>
#include <stdio.h>

/* Escape sequences; empty strings where fd is no terminal, NO_COLOR is set (and not empty) or TERM is dumb. */
typedef struct look {
    bool terminal; /* of the descriptor, colour or not */
    bool colour;
    const char *bold, *dim, *code, *warn, *off;
} look;
look look_of(int fd);

/* A table: cells are copied; printed with two spaces between columns. On a terminal the column named `gives` is cut (…) when the lines are
 * too long; elsewhere nothing is cut. A table without rows prints nothing. */
enum { LOOK_COLUMNS = 10 };
typedef struct look_table {
    const char *heads[LOOK_COLUMNS];
    bool right[LOOK_COLUMNS];
    int n_columns, gives;
    char **cells; /* [n_rows, n_columns] owned */
    size_t n_rows, capacity;
    bool failed;
} look_table;
void look_table_row(look_table *t, const char *const *cells);
void look_table_print(look_table *t, FILE *out);
void look_table_fini(look_table *t);

/* "3 days ago", "just now"; unix 0: "". */
const char *look_ago(char out[32], int64_t unix_s, int64_t now_s);
/* "4 min", "2 h", "never" for UINT64_MAX. */
const char *look_span(char out[32], uint64_t us);
/* "1.24 B", "494 M", "120 k". */
const char *look_count(char out[32], uint64_t n);

/* Columns that UTF-8 text takes on a terminal. */
int look_width(const char *text);
/* Adds text with control characters other than newline and tab replaced by "?", so that it cannot move the cursor or change the terminal. */
void look_clean(sb *out, const char *text, size_t n);

/* A JSON string of bytes that may not be UTF-8 (names of files): others become '?'. */
json_t *look_json_text(const char *text);
/* Prints a JSON value and a newline to stdout and frees it (NULL: no memory). Returns the command's exit code. */
struct cli;
int look_json(const struct cli *c, json_t *value);

#endif
