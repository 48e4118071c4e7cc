/*
 * Costs of an assembly made exact (head of assemble.c), as few as may be. First what cannot be part of anything better than the best that is
 * known is struck out, by a bound that needs no table. Then in turns: the tables; the structure of their least entry made exact, and tried
 * when it is; what the tables strike out; the most hopeful of what is left and not exact. It ends when all that matter are exact. Where
 * nothing is known that fits, structures that are likely to are looked for before, by the same tables over risks instead of times.
 *
 * Not here: bounds and tables (assemble_tables.c), the order of stages but for a few tries (assemble.c).
 */
#include "plan/assemble.h"

#include <string.h>

enum { ANY_TURNS = 4000, ANY_REFUSED = 100, FIND_MORE = 100, EARLY_TURNS = 3 };

static int by_least(const void *a, const void *b)
{
    const assemble_choice *p = a, *q = b;
    if (p->least != q->least)
        return p->least < q->least ? -1 : 1;
    return p->set != q->set         ? p->set - q->set
           : p->layers != q->layers ? p->layers - q->layers
                                    : p->ends - q->ends;
}

/* What layers take at least where nothing but the stages' own times is known. */
typedef struct paces {
    int item[SEARCH_ITEMS];       /* the quickest first */
    double us[SEARCH_ITEMS];      /* a block, in any stage with this item */
    double more[ENDS];            /* what the stage that begins, that ends takes besides */
    double rest[PLAN_LAYERS + 1]; /* of so many blocks outside of one set */
} paces;

static double with_hop(const assembly *a, int set, int layers, int ends)
{
    return a->cost[ends][assemble_row(a, set) + (size_t)layers] +
           (ends & FIRST ? 0 : a->hop_in[set]);
}

/* The least time of a block on a set, whatever else its stage does. */
static double least_block(const assembly *a, int set)
{
    double least = INFINITY;
    for (int ends = 0; ends < ENDS; ends++)
        for (int l = 1; l <= a->most[ends][set]; l++)
            least = plan_less(least, with_hop(a, set, l, ends) / l);
    return least;
}

static void set_paces(assembly *a, paces *p)
{
    double item_us[SEARCH_ITEMS];
    for (int i = 0; i < a->n; i++)
        item_us[i] = INFINITY;
    for (int ends = 0; ends < ENDS; ends++)
        p->more[ends] = ends == FIRST || ends == LAST ? INFINITY : 0;
    for (int set = 1; set < 1 << a->n; set++) {
        double us = a->quick[set] ? least_block(a, set) : INFINITY;
        for (int i = 0; i < a->n && us < NEVER; i++)
            if (set >> i & 1)
                item_us[i] = plan_less(item_us[i], us);
        for (int ends = FIRST; ends <= LAST && a->quick[set]; ends++)
            for (int l = assemble_least_layers(a, ends); l <= a->most[ends][set]; l++) {
                double all = with_hop(a, set, l, ends), blocks = l ? l * us : 0;
                if (all < NEVER)
                    p->more[ends] = plan_less(p->more[ends], plan_more(0, all - blocks));
            }
        a->x->work += 3 + (a->quick[set] ? 4.0 * a->width : 0);
    }
    p->more[FIRST | LAST] = p->more[FIRST] + p->more[LAST];
    for (int i = 0, at; i < a->n; i++) {
        for (at = i; at > 0 && item_us[i] < p->us[at - 1]; at--) {
            p->us[at] = p->us[at - 1];
            p->item[at] = p->item[at - 1];
        }
        p->us[at] = item_us[i];
        p->item[at] = i;
    }
}

/* p->rest: blocks on what is not in `set`, each item as many as it has room for. */
static void set_rest(assembly *a, paces *p, int set)
{
    double done = 0, us = 0, room = 0; /* blocks, their time; of the item that is being filled */
    int at = -1;
    p->rest[0] = 0;
    for (int m = 1; m <= a->n_layers; m++) {
        while (done < m && at < a->n && us < NEVER) {
            if (room > 0) {
                double more = plan_less(room, m - done);
                done = more < m - done ? done + more : m;
                us += more * p->us[at];
                room -= more;
            } else if (++at < a->n && !(set >> p->item[at] & 1)) {
                room = a->holds[1 << p->item[at]] * (1 + 1e-9) + 1e-6;
            }
        }
        p->rest[m] = done < m ? INFINITY : us * (1 - 1e-9);
    }
    a->x->work += 3.0 * (a->n + a->n_layers);
}

/* A score that nothing with this stage is below: by the tables, or by paces. */
static double least_with(const assembly *a, const paces *p, int set, int layers, int ends)
{
    double cost = a->cost[ends][assemble_row(a, set) + (size_t)layers];
    size_t left = assemble_row(a, ((1 << a->n) - 1) ^ set) + (size_t)(a->n_layers - layers);
    double rest = p ? p->rest[a->n_layers - layers] + p->more[(FIRST | LAST) ^ ends]
                    : a->rest[(FIRST | LAST) ^ ends][left];
    double us = cost + (ends & FIRST ? 0 : a->hop_in[set]) + rest;
    double slow = plan_more(cost, us / a->depth_most);
    if (a->counts && ends != (FIRST | LAST) && !p)
        slow = plan_more(slow, a->slowest[left]);
    int nodes = a->group[set]->n + (ends != (FIRST | LAST));
    return search_goal(a->x, nodes, 0, us, slow) * (1 - 1e-9);
}

/* The `most` most hopeful of n choices come first, in any order. */
static void select_choices(assembly *a, int n, int most)
{
    assemble_choice *c = a->choices;
    int low = 0, high = n - 1;
    while (low < high) {
        assemble_choice middle = c[low + (high - low) / 2];
        int i = low, k = high;
        while (i <= k) {
            while (by_least(&c[i], &middle) < 0)
                i++;
            while (by_least(&c[k], &middle) > 0)
                k--;
            if (i <= k) {
                assemble_choice swap = c[i];
                c[i++] = c[k];
                c[k--] = swap;
            }
        }
        if (most - 1 <= k)
            high = k;
        else if (most - 1 >= i)
            low = i;
        else
            return;
    }
    a->x->work += 10.0 * n;
}

/* Strikes out what cannot be part of a better structure, and finds what is left and not exact. */
static int find_choices(assembly *a, paces *p)
{
    int n = 0;
    for (int set = 1; set < 1 << a->n; set++) {
        bool open = false;
        if (p && a->quick[set])
            set_rest(a, p, set);
        for (int ends = 0; ends < ENDS && a->quick[set]; ends++) {
            int most = -1;
            for (int l = assemble_least_layers(a, ends); l <= a->most[ends][set]; l++) {
                size_t at = assemble_row(a, set) + (size_t)l;
                if (isinf(a->cost[ends][at]))
                    continue;
                double least = least_with(a, p, set, l, ends);
                if (!(least < assemble_best(a))) {
                    a->cost[ends][at] = INFINITY;
                    continue;
                }
                most = l;
                if (!a->known[ends][at])
                    a->choices[n++] = (assemble_choice){least, set, l, ends};
            }
            a->most[ends][set] = most;
            open |= most >= 0;
            a->x->work += 3 + 8.0 * (most + 1);
        }
        if (!open)
            a->quick[set] = NULL;
    }
    return n;
}

/* Strikes out what cannot matter before there are tables, which take the more time the more is left. */
void assemble_strike_early(assembly *a)
{
    paces p;
    for (int turn = 0; turn < EARLY_TURNS && isfinite(assemble_best(a)) && !assemble_spent(a);
         turn++) {
        set_paces(a, &p);
        find_choices(a, &p);
    }
}

/* The stages of the least entry of the table, by their ends; how many, 0 when there is none. */
static int find_least(const assembly *a, assemble_choice *stages)
{
    int n = 0, set = (1 << a->n) - 1, whole = FIRST | LAST, layers = a->n_layers;
    while (set && (whole || layers > 0)) {
        double us = a->rest[whole][assemble_row(a, set) + (size_t)layers];
        int low = 0, was = n;
        if (isinf(us))
            return 0;
        while (!(set >> low & 1))
            low++;
        if (us == a->rest[whole][assemble_row(a, set & (set - 1)) + (size_t)layers]) {
            set &= set - 1;
            continue;
        }
        for (int i = 0; i < a->n_active[low] && n == was; i++) {
            int g = a->active[((size_t)low << a->n) + (size_t)i];
            for (int ends = 0; ends < ENDS && n == was && !(g & ~set); ends++)
                for (int l = assemble_least_layers(a, ends);
                     l <= BASE_MIN(layers, a->most[ends][g]) && !(ends & ~whole); l++) {
                    double cost = (ends & FIRST ? 0 : a->hop_in[g]) +
                                  a->cost[ends][assemble_row(a, g) + (size_t)l];
                    if (a->rest[whole ^ ends][assemble_row(a, set ^ g) + (size_t)(layers - l)] +
                            cost ==
                        us) {
                        stages[n++] = (assemble_choice){us, g, l, ends};
                        break;
                    }
                }
        }
        if (n == was)
            return 0;
        set ^= stages[was].set;
        whole ^= stages[was].ends;
        layers -= stages[was].layers;
    }
    a->x->work += 200.0 * n;
    return n;
}

static void make_exact(assembly *a, const assemble_choice *c)
{
    size_t at = assemble_row(a, c->set) + (size_t)c->layers;
    if (a->known[c->ends][at])
        return;
    double us = search_cell(a->x, a->group[c->set], assemble_layers_with(a, c->layers, c->ends),
                            c->ends, false);
    a->known[c->ends][at] = true;
    a->cost[c->ends][at] = plan_more(a->cost[c->ends][at], us * (1 - 1e-12));
}

/* Some orders of these stages, with what begins and what ends them in its place. */
static void try_orders(assembly *a, assemble_choice *stages, int n, int at, int *tries)
{
    for (int i = at; i < n && (*tries > 0) && !assemble_spent(a); i++) {
        assemble_choice c = stages[i];
        stages[i] = stages[at];
        stages[at] = c;
        a->path[at] = a->group[c.set];
        if ((c.ends & FIRST) == (at == 0 ? FIRST : 0) &&
            (c.ends & LAST) == (at == n - 1 ? LAST : 0)) {
            if (at < n - 1) {
                try_orders(a, stages, n, at + 1, tries);
            } else {
                search_score(a->x, a->path, n, assemble_best(a) * a->slack);
                --*tries;
            }
        }
        stages[at] = stages[i];
        stages[i] = c;
    }
}

/* Makes exact what the least entry of the table uses, and tries it when all of it is; whether something became exact. */
static bool sharpen_least(assembly *a)
{
    assemble_choice stages[SEARCH_ITEMS];
    int n = find_least(a, stages), tries = 30;
    bool exact = true;
    for (int i = 0; i < n; i++) {
        exact = exact &&
                a->known[stages[i].ends][assemble_row(a, stages[i].set) + (size_t)stages[i].layers];
        make_exact(a, &stages[i]);
    }
    if (exact && n)
        try_orders(a, stages, n, 0, &tries);
    search_set_load(a->x, a->depth_most); /* other depths have other loads */
    return !exact;
}

/* The most layers of a stage that fit, exactly, with all ends. */
static void find_most(assembly *a, int set)
{
    if (a->found_most[set])
        return;
    a->found_most[set] = true;
    for (int ends = 0; ends < ENDS; ends++) {
        int l = a->most[ends][set];
        for (; l >= assemble_least_layers(a, ends) && !assemble_spent(a); l--) {
            assemble_choice c = {0, set, l, ends};
            make_exact(a, &c);
            if (isfinite(a->cost[ends][assemble_row(a, set) + (size_t)l]))
                break;
        }
        if (!assemble_spent(a) && l >= 0)
            a->group[set]->misfit[ends] = l + 1;
        a->most[ends][set] = l < assemble_least_layers(a, ends) ? -1 : l;
    }
}

/* The same of some more stages, those of few items first. */
static void find_more(assembly *a)
{
    for (int size = 1, left = FIND_MORE; size <= a->n && left > 0; size++)
        for (int set = 1; set < 1 << a->n && left > 0 && !assemble_spent(a); set++)
            if (a->quick[set] && !a->found_most[set] && __builtin_popcount((unsigned)set) == size) {
                find_most(a, set);
                left--;
            }
    a->x->work += 2.0 * (1 << a->n);
}

/* How likely it is that so many layers do not fit, as something to be added up: 0 where it is known that they do. */
static void set_risks(assembly *a, double *const risk[ENDS])
{
    for (int set = 1; set < 1 << a->n; set++)
        for (int ends = 0; ends < ENDS && a->quick[set]; ends++)
            for (int l = assemble_least_layers(a, ends); l <= a->most[ends][set]; l++) {
                size_t at = assemble_row(a, set) + (size_t)l;
                double full = (l + 1.0) / (a->most[ends][set] + 1), known = a->known[ends][at];
                risk[ends][at] =
                    isinf(a->cost[ends][at]) ? INFINITY
                    : known > 0              ? a->refused[set]
                                : 0.01 + a->refused[set] + full * full * full * a->group[set]->n;
            }
    a->x->work += 4.0 * (1 << a->n) * a->width;
}

/* Any structure that fits, where none is known: what is likely to, made exact, until all of one does. False when it is sure that none does. */
static bool find_any(assembly *a)
{
    double *cost[ENDS], *hop_in = a->hop_in;
    bool counts = a->counts;
    int refused = 0;
    assemble_choice stages[SEARCH_ITEMS];
    memcpy(cost, a->cost, sizeof cost);
    for (int turn = 0;
         turn < ANY_TURNS && refused < ANY_REFUSED && !assemble_spent(a) && isinf(assemble_best(a));
         turn++) {
        set_risks(a, a->risk);
        memcpy(a->cost, a->risk, sizeof cost);
        a->hop_in = a->no_hop;
        a->counts = false;
        assemble_set_tables(a);
        bool none =
            !assemble_spent(a) && isinf(a->rest[FIRST | LAST][assemble_row(a, 1 << a->n) - 1]);
        int n = assemble_spent(a) || none ? 0 : find_least(a, stages), tries = 120;
        memcpy(a->cost, cost, sizeof cost);
        a->hop_in = hop_in;
        a->counts = counts;
        if (none)
            return false;
        bool exact = n > 0;
        for (int i = 0; i < n; i++) {
            exact =
                exact &&
                a->known[stages[i].ends][assemble_row(a, stages[i].set) + (size_t)stages[i].layers];
            find_most(a, stages[i].set);
        }
        if (!exact)
            find_more(a);
        if (exact)
            try_orders(a, stages, n, 0, &tries);
        refused += exact;
        for (int i = 0; exact && i < n; i++)
            a->refused[stages[i].set] += 0.1; /* no order has links */
        search_set_load(a->x, a->depth_most);
    }
    return true;
}

/* Exact costs, the most hopeful first, until all that matter are. */
void assemble_sharpen(assembly *a)
{
    if (isinf(assemble_best(a)) && !find_any(a))
        return;
    assemble_strike_early(a);
    for (int turn = 0; turn < 1000 && !assemble_spent(a); turn++) {
        assemble_set_tables(a);
        if (assemble_spent(a) || isinf(a->rest[FIRST | LAST][assemble_row(a, 1 << a->n) - 1]))
            return;
        if (sharpen_least(a) && isinf(assemble_best(a)))
            continue;
        int n = find_choices(a, NULL), batch = BASE_MIN(n, BASE_MIN(32 + n / 8, 600));
        select_choices(a, n, batch);
        for (int i = 0; i < batch && !assemble_spent(a); i++) {
            const assemble_choice *c = &a->choices[i];
            if (!a->shared[c->set])
                assemble_share_out(a, c->set);
            else
                make_exact(a, c);
        }
        if (!n)
            return;
    }
}
