/*
 * Better structures of many nodes by small changes of good ones. A *beam* is the ranked few of a plan_search; of each that has not been
 * changed yet every single change is tried: a node added, left out, exchanged, moved to another stage or made one of its own; stages
 * joined, left out, put elsewhere. When all of a beam are done, others begin from structures that are made of names and counts
 * alone, or from the best with some nodes elsewhere, and what they find joins the first. The work of all is counted, never timed, so that the same question has the same answer.
 *
 * A heuristic. It promises nothing but plans that fit; that many beams begin at places which do not depend on speeds or memory makes it
 * rare, not impossible, that a better cluster gets a worse plan (docs/planner.md has the counts).
 */
#include "plan/search.h"

#include <math.h>
#include <string.h>

enum { BEAMS = 600, DONE = 256 };

/* Counted in roughly nanoseconds: of the first beam, of everything. */
#define FIRST_WORK 12e6
#define ALL_WORK   16e6

typedef struct exchange {
    searcher *x;
    search_group **now; /* [m] the structure that is being changed */
    search_group **trial;
    int m;
    bool *used;
    double most; /* work, where to stop */
    uint64_t done[DONE];
    int n_done;
} exchange;

static bool spent(const exchange *w)
{
    return w->x->failed || w->x->work >= w->most;
}

static search_group *changed(searcher *x, const search_group *g, int without, int with)
{
    uint64_t bits[SEARCH_WORDS];
    memcpy(bits, g->bits, sizeof bits);
    if (without >= 0)
        bits[without / 64] &= ~(1ull << (without % 64));
    if (with >= 0)
        bits[with / 64] |= 1ull << (with % 64);
    return search_group_of_bits(x, bits);
}

static search_group *joined(searcher *x, const search_group *a, const search_group *b)
{
    uint64_t bits[SEARCH_WORDS];
    for (int i = 0; i < SEARCH_WORDS; i++)
        bits[i] = a->bits[i] | b->bits[i];
    return search_group_of_bits(x, bits);
}

/* ---- single changes ------------------------------------------------------------------------------------------------- */

/* trial = now; stages are then put into it and taken out of it. */
static int again(exchange *w)
{
    memcpy(w->trial, w->now, (size_t)w->m * sizeof *w->now);
    return w->m;
}

static int take_out(exchange *w, int n, int at)
{
    memmove(w->trial + at, w->trial + at + 1, (size_t)(n - at - 1) * sizeof *w->trial);
    return n - 1;
}

static int put_in(exchange *w, int n, int at, search_group *g)
{
    memmove(w->trial + at + 1, w->trial + at, (size_t)(n - at) * sizeof *w->trial);
    w->trial[at] = g;
    return n + 1;
}

static void attempt(exchange *w, int n)
{
    if (n > 0 && n <= w->x->max_depth && !spent(w))
        search_try(w->x, w->trial, n);
}

static void try_replaced(exchange *w, int at, search_group *g)
{
    int n = again(w);
    w->trial[at] = g;
    attempt(w, n);
}

/* Stage `at` elsewhere, left out, or joined with its neighbour. */
static void change_order(exchange *w, int at, bool tensor)
{
    for (int to = 0; to < w->m; to++) {
        if (to == at || to == at - 1) /* the stage before has tried that */
            continue;
        int n = take_out(w, again(w), at);
        attempt(w, put_in(w, n, to, w->now[at]));
    }
    attempt(w, take_out(w, again(w), at));
    if (at + 1 < w->m && tensor) {
        int n = take_out(w, again(w), at + 1);
        w->trial[at] = joined(w->x, w->now[at], w->now[at + 1]);
        attempt(w, n);
    }
}

/* A node of stage `at` leaves it: to nowhere, to a stage of its own beside it, to another stage, or for one of another stage. */
static void move_node(exchange *w, int at, int node, bool tensor)
{
    searcher *x = w->x;
    search_group *g = w->now[at], *rest = g->n > 1 ? changed(x, g, node, -1) : NULL;
    if (rest) {
        search_group *alone = search_group_of(x, &node, 1);
        try_replaced(w, at, rest);
        for (int side = 0; side < 2; side++) {
            int n = again(w);
            w->trial[at] = rest;
            attempt(w, put_in(w, n, at + side, alone));
        }
    }
    for (int to = 0; to < w->m && tensor; to++) {
        if (to == at || spent(w))
            continue;
        int n = again(w);
        w->trial[to] = changed(x, w->now[to], -1, node);
        w->trial[at] = rest;
        attempt(w, rest ? n : take_out(w, n, at));
        for (int i = 0; i < w->now[to]->n && to > at && (g->n > 1 || w->now[to]->n > 1); i++) {
            int other = w->now[to]->nodes[i];
            n = again(w);
            w->trial[at] = changed(x, g, node, other);
            w->trial[to] = changed(x, w->now[to], other, node);
            attempt(w, n);
        }
    }
}

static void add_unused(exchange *w, int at, bool tensor)
{
    searcher *x = w->x;
    search_group *g = w->now[at];
    for (int u = 0; u < x->n && !spent(w); u++) {
        if (w->used[u])
            continue;
        if (tensor)
            try_replaced(w, at, changed(x, g, -1, u));
        search_group *alone = search_group_of(x, &u, 1);
        attempt(w, put_in(w, again(w), at, alone));
        if (at == w->m - 1)
            attempt(w, put_in(w, again(w), w->m, alone));
        for (int i = 0; i < g->n && g->n <= 8; i++)
            try_replaced(w, at, changed(x, g, g->nodes[i], u));
    }
}

/* Every single change of a structure. */
static void change(exchange *w)
{
    searcher *x = w->x;
    bool tensor = x->s->r->mode != PLAN_PIPELINE;
    memset(w->used, 0, (size_t)x->n * sizeof(bool));
    for (int at = 0; at < w->m; at++)
        for (int i = 0; i < w->now[at]->n; i++)
            w->used[w->now[at]->nodes[i]] = true;
    for (int at = 0; at < w->m && !spent(w); at++) {
        change_order(w, at, tensor);
        add_unused(w, at, tensor);
        for (int i = 0; i < w->now[at]->n && x->n <= SEARCH_MOVES && !spent(w); i++)
            move_node(w, at, w->now[at]->nodes[i], tensor);
    }
}

/* ---- beams ---------------------------------------------------------------------------------------------------------- */

static void load_found(exchange *w, const plan_found *f)
{
    w->m = f->n_stages;
    for (int i = 0; i < w->m; i++)
        w->now[i] = search_group_of(w->x, f->nodes + f->start[i], f->start[i + 1] - f->start[i]);
}

/* From the best that has not been changed yet, until none of the kept ones is left. */
static void climb(exchange *w)
{
    searcher *x = w->x;
    while (!spent(w) && w->n_done < DONE) {
        int next = 0;
        for (; next < x->out->n_found; next++) {
            int k = 0;
            while (k < w->n_done && w->done[k] != x->keys[next])
                k++;
            if (k == w->n_done)
                break;
        }
        if (next == x->out->n_found)
            break;
        w->done[w->n_done++] = x->keys[next];
        load_found(w, &x->out->found[next]);
        if (!x->failed)
            change(w);
    }
}

/* A pipeline of all nodes in an order and in groups of sizes that only `turn` says; false when two of a group have no link. */
static bool make_start(exchange *w, int turn)
{
    searcher *x = w->x;
    uint64_t state = hash_u64((uint64_t)turn, 8);
    int order[PLAN_NODES], most = 1 + turn % 4, at = 0;
    for (int i = 0; i < x->n; i++) {
        int k = (int)((state = hash_u64(state, 8)) % (uint64_t)(i + 1));
        order[i] = order[k];
        order[k] = i;
    }
    for (w->m = 0; at < x->n && w->m < x->max_depth; w->m++) {
        int n = 1 + (int)((state = hash_u64(state, 8)) % (uint64_t)most);
        if (w->m == x->max_depth - 1 || x->s->r->mode == PLAN_TENSOR)
            n = x->n;
        if (x->s->r->mode == PLAN_PIPELINE)
            n = 1;
        n = BASE_MIN(n, x->n - at);
        w->now[w->m] = search_group_of(x, order + at, n);
        if (!w->now[w->m] || !w->now[w->m]->linked)
            return false;
        at += n;
    }
    return true;
}

/* Node `node` leaves its stage and goes to a stage of its own, to another, or nowhere. */
static void kick_node(exchange *w, int node, uint64_t random)
{
    searcher *x = w->x;
    for (int i = 0; i < w->m; i++) {
        if (!(w->now[i]->bits[node / 64] >> (node % 64) & 1))
            continue;
        if (w->now[i]->n > 1) {
            w->now[i] = changed(x, w->now[i], node, -1);
        } else {
            memmove(w->now + i, w->now + i + 1, (size_t)(w->m - i - 1) * sizeof *w->now);
            w->m--;
        }
        break;
    }
    int way = (int)(random % 4), to = (int)(random / 4 % (uint64_t)(w->m + 1));
    bool alone = x->s->r->mode == PLAN_PIPELINE || w->m == 0 || to == w->m || way == 1;
    if (way == 0 && w->m > 0)
        return;
    if (!alone || x->s->r->mode == PLAN_TENSOR) {
        to = BASE_MIN(to, BASE_MAX(w->m - 1, 0));
        w->now[to] = w->m ? changed(x, w->now[to], -1, node) : search_group_of(x, &node, 1);
        w->m = BASE_MAX(w->m, 1);
    } else if (w->m < x->max_depth) {
        memmove(w->now + to + 1, w->now + to, (size_t)(w->m - to) * sizeof *w->now);
        w->now[to] = search_group_of(x, &node, 1);
        w->m++;
    }
}

/* The best so far with some nodes elsewhere. */
static bool make_kick(exchange *w, int turn)
{
    searcher *x = w->x;
    uint64_t state = hash_u64((uint64_t)turn, 9);
    load_found(w, &x->out->found[0]);
    for (int k = 0; k < 2 + turn % 3 && !x->failed; k++) {
        int node = (int)((state = hash_u64(state, 9)) % (uint64_t)x->n);
        kick_node(w, node, state = hash_u64(state, 9));
    }
    for (int i = 0; i < w->m; i++)
        if (!w->now[i] || !w->now[i]->linked)
            return false;
    return true;
}

/* Another beam, from a start of its own; what it finds is offered to the first. */
static void begin_elsewhere(exchange *w, int turn)
{
    searcher *x = w->x;
    plan_search *first = x->out, own = *first;
    uint64_t keys[PLAN_RANKED];
    bool kicks = turn % 3 && x->out->n_found;
    if (!(kicks ? make_kick(w, turn) : make_start(w, turn)))
        return;
    memcpy(keys, x->keys, sizeof keys);
    own.n_found = 0;
    w->n_done = 0;
    x->out = &own;
    memcpy(w->trial, w->now, (size_t)w->m * sizeof *w->now);
    search_try(x, w->trial, w->m);
    climb(w);
    x->out = first;
    memcpy(x->keys, keys, sizeof keys);
    first->tried = own.tried;
    for (int i = 0; i < own.n_found; i++) {
        load_found(w, &own.found[i]);
        search_try(x, w->now, w->m);
    }
}

void search_exchange(searcher *x)
{
    exchange w = {.x = x,
                  .now = search_take(x, (size_t)x->max_depth + 1, sizeof(search_group *)),
                  .trial = search_take(x, (size_t)x->max_depth + 1, sizeof(search_group *)),
                  .used = search_take(x, (size_t)x->n, sizeof(bool)),
                  .most = x->work + FIRST_WORK};
    if (x->failed)
        return;
    climb(&w);
    w.most = BASE_MAX(w.most, x->work) + ALL_WORK;
    for (int turn = 0; turn < BEAMS && !spent(&w) && x->n <= SEARCH_MOVES; turn++)
        begin_elsewhere(&w, turn);
}
