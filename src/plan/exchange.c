/*
 * Better structures of many nodes out of good ones. *Descending* from a structure takes any single change that gains, until none does: a node
 * added, left out, exchanged, moved to another stage or made one of its own; stages joined, left out, put elsewhere. Then, in rounds, the
 * best structure that can be built of a few items is found (assemble.c): of the best's stages, some of them in their nodes, and of nodes it
 * leaves out; now and then of items that names alone choose. At last, up to EXACT_NODES, of all nodes. The work of everything is
 * counted, never timed, so that the same question has the same answer.
 *
 * With so few nodes it is nearly always sure that nothing is better; whether anything fits is looked for until that is sure. With more it is
 * a heuristic that promises nothing but plans that fit: rarely, a better cluster gets a worse plan (docs/planner.md has the counts).
 */
#include "plan/search.h"

#include <math.h>
#include <string.h>

enum { EXACT_NODES = 12, ROUNDS = 400, WITH_EACH = 32, ITEMS = 8, FAILS = 4 };

/* Counted in roughly nanoseconds: of descending from what was found, of everything. */
#define FIRST_WORK  8e6
#define ALL_WORK    30e6
#define SCARCE_WORK 150e6
#define EXACT_WORK  400e6
#define SURE_WORK   2e9
#define START_WORK  10e6
#define ROUND_WORK  5e6

typedef struct exchange {
    searcher *x;
    search_group **now; /* [m] the structure that is being changed */
    search_group **trial, **better, **home;
    int m, better_m, home_m; /* better_m: 0 = no change has gained */
    double score, better_score, home_score;
    int at; /* the stage whose changes come first */
    bool *used;
    int size, fails; /* items of a round; rounds in a row without gain */
    double most;     /* work, where to stop */
} exchange;

static bool spent(const exchange *w)
{
    return w->x->failed || w->x->work >= w->most;
}

/* No more changes of this structure: one has gained. */
static bool ends(const exchange *w)
{
    return w->better_m > 0 || spent(w);
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
    if (n < 1 || n > w->x->max_depth || ends(w))
        return;
    double score = search_score(w->x, w->trial, n, w->score * (1 - 1e-12));
    if (score < w->score) {
        memcpy(w->better, w->trial, (size_t)n * sizeof *w->trial);
        w->better_m = n;
        w->better_score = score;
    }
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
        if (to == at || ends(w))
            continue;
        int n = again(w);
        w->trial[to] = changed(x, w->now[to], -1, node);
        w->trial[at] = rest;
        attempt(w, rest ? n : take_out(w, n, at));
        for (int i = 0; i < w->now[to]->n && to > at && !ends(w); i++) {
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
    for (int u = 0; u < x->n && !ends(w); u++) {
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

/* Every single change of a structure, until one gains. */
static void change(exchange *w)
{
    searcher *x = w->x;
    bool tensor = x->s->r->mode != PLAN_PIPELINE;
    memset(w->used, 0, (size_t)x->n * sizeof(bool));
    for (int at = 0; at < w->m; at++)
        for (int i = 0; i < w->now[at]->n; i++)
            w->used[w->now[at]->nodes[i]] = true;
    for (int k = 0, first = w->at; k < w->m && !ends(w); k++) {
        int at = w->at = (first + k) % w->m;
        change_order(w, at, tensor);
        add_unused(w, at, tensor);
        for (int i = 0; i < w->now[at]->n && x->n <= SEARCH_MOVES && !ends(w); i++)
            move_node(w, at, w->now[at]->nodes[i], tensor);
    }
}

/* ---- descending ----------------------------------------------------------------------------------------------------- */

static void load_found(exchange *w, const plan_found *f)
{
    w->m = f->n_stages;
    w->score = f->score;
    for (int i = 0; i < w->m; i++)
        w->now[i] = search_group_of(w->x, f->nodes + f->start[i], f->start[i + 1] - f->start[i]);
}

/* From `now` to a structure that no single change betters; home, when it is the best of those so far. */
static void descend(exchange *w)
{
    w->at = 0;
    do {
        w->better_m = 0;
        change(w);
        if (w->better_m) {
            memcpy(w->now, w->better, (size_t)w->better_m * sizeof *w->now);
            w->m = w->better_m;
            w->score = w->better_score;
        }
    } while (w->better_m);
    if (w->score < w->home_score) {
        memcpy(w->home, w->now, (size_t)w->m * sizeof *w->now);
        w->home_m = w->m;
        w->home_score = w->score;
    }
}

static int below(uint64_t *state, int n)
{
    *state = hash_u64(*state, 11);
    return (int)(*state % (uint64_t)n);
}

static void shuffle(uint64_t *state, int *order, int n)
{
    for (int i = 0; i < n; i++) {
        int k = below(state, i + 1);
        order[i] = order[k];
        order[k] = i;
    }
}

/* Items: most of home's stages as they are (how many, into *alone), then the nodes of the others and some that it leaves out. */
static int items_of_home(exchange *w, int turn, search_group **items, int *alone)
{
    searcher *x = w->x;
    uint64_t state = hash_u64((uint64_t)turn, 12);
    search_group *apart[SEARCH_ITEMS];
    int order[PLAN_NODES], n = 0, free = 0, unused;
    memset(w->used, 0, (size_t)x->n * sizeof(bool));
    shuffle(&state, order, w->home_m);
    for (int i = 0; i < w->home_m; i++)
        for (int k = 0; k < w->home[i]->n; k++)
            w->used[w->home[i]->nodes[k]] = true;
    unused = 0;
    for (int i = 0; i < x->n; i++)
        unused += !w->used[i];
    unused = BASE_MIN(unused, w->size / 3 + below(&state, w->size / 2));
    for (int i = 0; i < w->home_m && n < SEARCH_ITEMS - 1; i++) {
        search_group *g = w->home[order[i]];
        bool taken = free + g->n <= w->size - unused || (free == 0 && g->n < w->size);
        for (int k = 0; k < g->n && taken && free < SEARCH_ITEMS; k++)
            apart[free++] = search_group_of(x, &g->nodes[k], 1);
        if (!taken)
            items[n++] = g;
    }
    *alone = n;
    for (int i = 0; i < free && n < SEARCH_ITEMS; i++)
        items[n++] = apart[i];
    shuffle(&state, order, x->n);
    for (int i = 0; i < x->n && n < SEARCH_ITEMS && free < w->size; i++)
        if (!w->used[order[i]]) {
            items[n++] = search_group_of(x, &order[i], 1);
            free++;
        }
    return n;
}

/* Items: some of home's stages in their nodes, the others as they are, and some of the nodes that it leaves out. */
static int items_joined(exchange *w, int turn, search_group **items)
{
    searcher *x = w->x;
    uint64_t state = hash_u64((uint64_t)turn, 12);
    int order[PLAN_NODES], n = 0, most = w->size, atoms = w->home_m;
    memset(w->used, 0, (size_t)x->n * sizeof(bool));
    shuffle(&state, order, w->home_m);
    for (int i = 0; i < w->home_m; i++) {
        search_group *g = w->home[order[i]];
        bool apart = n + atoms - 1 + g->n <= most;
        for (int k = 0; k < g->n; k++) {
            w->used[g->nodes[k]] = true;
            if (apart)
                items[n++] = search_group_of(x, &g->nodes[k], 1);
        }
        atoms--;
        if (!apart && n < most)
            items[n++] = g;
    }
    shuffle(&state, order, x->n);
    for (int i = 0; i < x->n && n < most; i++)
        if (!w->used[order[i]])
            items[n++] = search_group_of(x, &order[i], 1);
    return n;
}

/* Items: all nodes, several together where there are too many; names alone choose. */
static int items_of_names(exchange *w, int turn, search_group **items)
{
    searcher *x = w->x;
    uint64_t state = hash_u64((uint64_t)turn, 13);
    int order[PLAN_NODES], n = BASE_MIN(w->size, x->n);
    shuffle(&state, order, x->n);
    for (int i = 0; i < x->n; i++) {
        if (i < n) {
            items[i] = search_group_of(x, &order[i], 1);
            continue;
        }
        search_group *g = NULL;
        for (int tries = 0, at = below(&state, n); tries < n && (!g || !g->linked); tries++) {
            at = (at + 1) % n;
            g = changed(x, items[at], -1, order[i]);
            if (g && g->linked)
                items[at] = g;
        }
    }
    return n;
}

/* Items: the nodes with the most memory. */
static int items_of_memory(exchange *w, search_group **items)
{
    searcher *x = w->x;
    int order[PLAN_NODES], n = BASE_MIN(w->size, x->n);
    for (int i = 0; i < x->n; i++) {
        int at = i;
        for (; at > 0 && plan_node_room(x->s, i) > plan_node_room(x->s, order[at - 1]); at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    for (int i = 0; i < n; i++)
        items[i] = search_group_of(x, &order[i], 1);
    return n;
}

/* Home is what is best. */
static void go_home(exchange *w)
{
    if (!w->x->out->n_found || w->x->out->found[0].score >= w->home_score)
        return;
    load_found(w, &w->x->out->found[0]);
    if (!w->x->failed)
        descend(w);
}

static void begin_elsewhere(exchange *w, int turn)
{
    searcher *x = w->x;
    search_group *items[SEARCH_ITEMS];
    bool names = w->home_m == 0 || turn % 6 == 5;
    int alone = 0, n = turn == 0  ? items_of_memory(w, items)
                       : names    ? items_of_names(w, turn, items)
                       : turn % 2 ? items_joined(w, turn, items)
                                  : items_of_home(w, turn, items, &alone);
    for (int i = 0; i < n; i++)
        if (!items[i])
            return;
    double before = w->home_score, work = ROUND_WORK;
    for (int i = ITEMS; i < n - alone; i++)
        work *= 2;
    search_assemble(x, items, n, alone, BASE_MIN(w->most, x->work + work));
    go_home(w);
    w->fails = w->home_score < before ? 0 : w->fails + 1;
    if (w->fails >= FAILS && w->size < (isfinite(before) ? SEARCH_ITEMS - 1 : ITEMS + 2)) {
        w->fails = 0; /* look farther */
        w->size++;
    }
}

/* All nodes, and every structure of them; false when the work ran out. */
static bool assemble_all(searcher *x, double work)
{
    search_group *nodes[SEARCH_ITEMS];
    for (int i = 0; i < x->n; i++)
        nodes[i] = search_group_of(x, &i, 1);
    return x->failed || search_assemble(x, nodes, x->n, 0, x->work + work);
}

/* What the best plan becomes with a node that it leaves out: the best two of all places for it, exactly. For words only. */
static void try_with(exchange *w, int node)
{
    searcher *x = w->x;
    search_group *alone = search_group_of(x, &node, 1);
    int place[2] = {-1, -1}, n;
    double least[2] = {INFINITY, INFINITY};
    for (int turn = 0; turn < 2 * w->m + 3 && !x->failed;
         turn++) { /* the last two: the best two again */
        bool again_best = turn > 2 * w->m;
        int at = again_best ? place[turn - 2 * w->m - 1] : turn;
        if (at < 0)
            continue;
        n = again(w);
        if (at < w->m && x->s->r->mode != PLAN_PIPELINE)
            w->trial[at] = changed(x, w->now[at], -1, node);
        else if (at >= w->m && x->s->r->mode != PLAN_TENSOR && w->m < x->max_depth)
            n = put_in(w, n, at - w->m, alone);
        else
            continue;
        if (again_best) {
            search_score(x, w->trial, n, 1e300);
            continue;
        }
        search_set_load(x, n);
        double score = search_quick_score(x, w->trial, n);
        x->hope_with[node] = plan_less(x->hope_with[node], score);
        int worse = least[0] > least[1] ? 0 : 1;
        if (score < least[worse]) {
            least[worse] = score;
            place[worse] = at;
        }
    }
}

static void try_with_each(exchange *w)
{
    searcher *x = w->x;
    if (!x->out->n_found || x->any_will_do)
        return;
    load_found(w, &x->out->found[0]);
    for (int i = 0, n = 0; i < x->n && n < WITH_EACH; i++)
        if (isinf(x->out->best_with[i])) {
            n++;
            try_with(w, i);
        }
}

static bool enough(const exchange *w)
{
    return spent(w) || (w->x->any_will_do && w->x->out->n_found);
}

/* Where no beginning fits, memory is so scarce that single changes lead nowhere: those clusters get more rounds. */
static void search_far(exchange *w)
{
    searcher *x = w->x;
    bool exact = x->n <= EXACT_NODES;
    double share = x->L > 40 ? 0.2 : 1; /* long rows: what is counted takes longer */
    double work = exact ? START_WORK : x->any_will_do ? FIRST_WORK : ALL_WORK;
    if (!exact && !x->any_will_do && !x->out->n_found)
        work = SCARCE_WORK;
    w->most = x->work + share * work;
    w->size = ITEMS;
    for (int turn = 0; turn < ROUNDS && !enough(w); turn++) {
        begin_elsewhere(w, turn);
        if (exact && w->size > ITEMS)
            break;
    }
    if (exact && !(x->any_will_do && x->out->n_found) && !assemble_all(x, share * EXACT_WORK) &&
        !x->out->n_found && !x->any_will_do)
        assemble_all(x, SURE_WORK);
}

void search_exchange(searcher *x)
{
    size_t depth = (size_t)x->max_depth + 1;
    exchange w = {.x = x,
                  .now = search_take(x, depth, sizeof(search_group *)),
                  .trial = search_take(x, depth + 1, sizeof(search_group *)),
                  .better = search_take(x, depth, sizeof(search_group *)),
                  .home = search_take(x, depth, sizeof(search_group *)),
                  .home_score = INFINITY,
                  .used = search_take(x, (size_t)x->n, sizeof(bool)),
                  .most = x->work + (x->L > 40 ? 0.5 : 1) * FIRST_WORK};
    plan_found found[PLAN_RANKED];
    int n = x->out->n_found;
    memcpy(found, x->out->found, sizeof found);
    for (int i = 0; i < n && !spent(&w); i++) {
        load_found(&w, &found[i]);
        if (!x->failed)
            descend(&w);
    }
    if (x->n <= SEARCH_MOVES && !x->failed)
        search_far(&w);
    if (!x->failed)
        try_with_each(&w);
}
