/*
 * answer: an answer as it arrives, on stdout. On a terminal: Markdown in colour, reasoning dimmed before it, "loading 40%" while the model comes
 * into memory, and after it what it cost. On a pipe or file: the bytes of the answer and nothing else; reasoning is left out, or goes
 * to stderr when --think on asks for it. An answer always ends with a line break.
 */
#ifndef SHOAL_CLI_ANSWER_H
#define SHOAL_CLI_ANSWER_H

#include "cli/client.h"
#include "cli/look.h"
#include "cli/markdown.h"

typedef struct answer {
    look out, notes; /* of stdout and stderr */
    const char *model;
    bool show_reasoning, reasoning_to_stderr;
    bool in_reasoning, told_loading, any;
    char last; /* byte written to stdout */
    markdown m;
    sb text, piece; /* the answer without reasoning, to be remembered */
    client_answer cost;
} answer;

void answer_init(answer *a, const cli *c, const char *model);
void answer_fini(answer *a);
/* Sends the request and prints; a->text and a->cost are those of this answer afterwards. Not OK: what was printed is ended with a line break. */
status answer_run(answer *a, client *cl, const json_t *request, err *e);
/* "42 tokens, 35.1 a second, first after 0.21 s; prompt of 17 tokens, 12 of them known" */
void answer_cost_text(sb *out, const client_answer *cost);
/* The same, dimmed, on stderr when that is a terminal. */
void answer_print_cost(const answer *a);

#endif
