/*
 * markdown: colours for Markdown that arrives in pieces: headings and **strong** bold, `code` and fenced blocks in the code colour. The text
 * itself stays as it is, marks included, so that what is copied from the terminal is what the model wrote. Control characters are replaced.
 * Not here: layout, tables, links, emphasis by single stars (they are multiplication signs as often as not).
 */
#ifndef SHOAL_CLI_MARKDOWN_H
#define SHOAL_CLI_MARKDOWN_H

#include "cli/look.h"

typedef struct markdown {
    look l;
    bool line_started; /* something other than spaces stands on the line */
    bool fence;        /* inside ``` */
    bool fence_line;   /* the rest of a line that opened or closes one */
    bool heading, strong;
    int code; /* ticks that opened it, 0 = none is open */
    char run; /* '`', '*' or '#' whose number is not known yet, 0 = none */
    int n_run;
} markdown;

void markdown_begin(markdown *m, const look *l);
void markdown_feed(markdown *m, sb *out, const char *text, size_t n);
void markdown_end(markdown *m, sb *out); /* what was held back, and all colours off */

#endif
