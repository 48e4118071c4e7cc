/*
 * line: one line of what a person types, with editing, history and Ctrl-C on a terminal (libedit), plainly otherwise.
 * The history is a file of its own (mode 0600), written after every entry. One reader a process; the main thread only.
 */
#ifndef SHOAL_CLI_LINE_H
#define SHOAL_CLI_LINE_H

#include "base/base.h"

typedef enum line_result {
    LINE_GOT,
    LINE_END,         /* Ctrl-D, end of the file */
    LINE_INTERRUPTED, /* Ctrl-C: what was typed is dropped */
    LINE_TERMINATED   /* SIGTERM */
} line_result;

typedef struct line_reader line_reader;

/* history_path NULL: none. signals: a descriptor of os_signal_fd. */
status line_open(line_reader **out, const char *history_path, int signals, err *e);
void line_close(line_reader *r); /* NULL is fine */
bool line_on_terminal(const line_reader *r);

/* Without its line break. TOO_LARGE and NO_MEMORY come as LINE_END with a message on stderr. */
line_result line_read(line_reader *r, sb *out, const char *prompt);
void line_remember(line_reader *r, const char *text);

#endif
