/*
 * For fuzz targets of the server: some turns of its loop, in which all that is ready happens. Nothing waits for a clock.
 */
#ifndef TESTS_FUZZ_TURNS_H
#define TESTS_FUZZ_TURNS_H

#include "http/http.h"

enum { TURNS = 6 };

typedef struct turns {
    http_loop *loop;
    int left;
} turns;

static void turns_next(void *context)
{
    turns *t = context;
    if (--t->left > 0)
        http_loop_post(t->loop, turns_next, t);
    else
        http_loop_stop(t->loop);
}

static void turns_run(http_loop *loop)
{
    turns t = {loop, TURNS};
    http_loop_post(loop, turns_next, &t);
    http_loop_run(loop);
}

#endif
