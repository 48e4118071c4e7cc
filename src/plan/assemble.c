/*
 * The best structure that can be built from a few *items*: nodes, or groups of nodes that stay together. Every stage is a union of items (some
 * items are stages as they are), every order counts. Branch and bound, exact unless its counted work runs out:
 *
 * - Order aside, and hops as short as any into a group, the least time of m layers on some of the items R is a table over all R and m: the
 *   stage that holds R's lowest item, and the rest; or that item stays unused. So is the least possible slowest stage.
 * - The times in these tables begin as bounds (quick.c). What cannot be part of anything better than the best that is known is struck out,
 *   first by a bound that needs no table: every item takes as many layers as it has room for, each in the least time of any stage that it
 *   may be in, the quickest items first. Of what is left the most hopeful times are made exact, and so on until all that matter are.
 * - Some items R hold no more layers than go into their memory, and no fewer than do not go into that of the others: rows of the tables are
 *   only as wide as that.
 * - Stages are then put one after the other, with true hops; what the table says of the items that are left bounds what may come of it.
 *
 * Layers are counted from the first that may have a border before it, in blocks where there are many: then borders fall between blocks, and
 * what is found is near the best instead of the best (search_score puts the borders where they should be).
 */
#include "plan/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NEVER 1e300

enum { BLOCKS = 20, ANY_TURNS = 4000, ANY_REFUSED = 100, FIND_MORE = 100, EARLY_TURNS = 3 };
enum { FIRST = 1, LAST = 2, ENDS = 4 }; /* what a stage, or some stages together, begin and end */

typedef struct child {
    double least; /* no score of what begins so is below */
    int set;
} child;

typedef struct choice {
    double least; /* no score with so many layers on this union is below */
    int set, layers, ends;
} choice;

struct assembly {
    searcher *x;
    int n, n_alone, width,
        n_layers;      /* items; the first so many are stages; blocks of layers, and one more */
    int block, before; /* layers of a block; that the first stage has besides */
    double slack;      /* 1, or less where blocks are coarse */
    int depth_least, depth_most;
    search_group *const *items; /* [n] */
    search_group **group;       /* [2^n] unions; NULL = no stage */
    search_quick **quick;       /* [2^n] */
    double *hop_in;             /* [2^n] the least hop into it */
    double *hops;               /* [2^n, nodes] from a union to each node */
    double *hop;                /* [n, 2^n] from the path's last stage to each union */
    double *cost[ENDS];         /* [2^n, width] of a stage, without the hop into it */
    bool *
        shared; /* [2^n] its costs are those of its best shares as if memory were endless, or more */
    bool *found_most;                      /* [2^n] what fits of it is known exactly */
    double *risk[ENDS], *refused, *no_hop; /* [2^n, width]; [2^n] of find_any */
    bool *known[ENDS];                     /* [2^n, width] that is exact */
    int *most[ENDS];                       /* [2^n] layers for which it may be finite */
    double *holds;          /* [2^n] blocks that go into the memory of a set, together */
    int *low, *high;        /* [2^n] so many layers at least and at most are on a set */
    double *rest[ENDS];     /* [2^n, width] the least time of so many layers on items of a set */
    double *slowest;        /* [2^n, width] the least slowest stage */
    double *line;           /* [width] */
    double *sum, *slow;     /* [n + 1, width] of the path: layers done, least time */
    int *active, *n_active; /* [n, 2^n] stages whose lowest item this is; [n] */
    child *children;        /* [n, 2^n] */
    choice *choices;        /* [ENDS 2^n width] */
    search_group **path;    /* [n] */
    bool counts;            /* the slowest stage */
    double work;            /* where to stop */
};
typedef struct assembly assembly;

static bool spent(const assembly *a)
{
    return a->x->failed || a->x->work >= a->work;
}

static double best(const assembly *a)
{
    return a->x->out->n_found ? a->x->out->found[0].score * (1 - 1e-12) / a->slack : INFINITY;
}

static size_t row_of(const assembly *a, int set)
{
    return (size_t)set * (size_t)a->width;
}

/* ---- what a stage costs at least ------------------------------------------------------------------------------------ */

static double least_hop_into(const assembly *a, const search_group *g)
{
    const plan_shape *s = a->x->s;
    double bytes = plan_hop_bytes(s, a->x->load), slowest = 0;
    for (int k = 0; k < g->n; k++) {
        double least = INFINITY;
        for (int i = 0; i < a->x->n; i++)
            if (!(g->bits[i / 64] >> (i % 64) & 1))
                least = plan_less(least, plan_hop_us(s, &i, 1, &g->nodes[k], 1, bytes));
        slowest = plan_more(slowest, least);
    }
    a->x->work += 4.0 * g->n * a->x->n;
    return slowest;
}

static int least_layers(const assembly *a, int ends)
{
    return ends == FIRST && a->before ? 0 : 1;
}

/* Each stage beside it has a layer, the first one those that have no border before them. */
static int most_layers(const assembly *a, int ends)
{
    return a->n_layers - !(ends & LAST) - (!(ends & FIRST) && !a->before);
}

static int layers_with(const assembly *a, int blocks, int ends)
{
    return blocks * a->block + (ends & FIRST ? a->before : 0);
}

/* Layers before any border, where the ends have them. */
static int dense_with(const assembly *a, int ends)
{
    int dense = a->x->s->m->n_dense_layers;
    return ends & FIRST && dense < a->x->L ? dense : 0;
}

static double behind_border(const assembly *a, int blocks, int ends)
{
    return layers_with(a, blocks, ends) - dense_with(a, ends);
}

static double more_with(const search_quick *q, int ends)
{
    return (ends & FIRST ? q->first_us : 0) + (ends & LAST ? q->last_us : 0) +
           (ends == (FIRST | LAST) ? q->all_us : 0);
}

/* cost: so many layers on a group, by a line in their number; infinite when they do not fit. */
static void set_costs(assembly *a, int set, int ends)
{
    searcher *x = a->x;
    search_group *g = a->group[set];
    const search_quick *q = a->quick[set];
    double *cost = a->cost[ends] + row_of(a, set);
    bool *known = a->known[ends] + row_of(a, set);
    double more = more_with(q, ends);
    int most = -1, dense = dense_with(a, ends);
    int holds = search_holds(x, g, ends); /* behind the first border */
    holds = holds < 0 ? -1 : holds + dense - (ends & FIRST ? a->before : 0);
    holds = holds < 0 ? -1 : holds / a->block;
    if (g->misfit[ends])
        holds = BASE_MIN(holds, g->misfit[ends] - 1);
    for (int l = 0; l < a->width; l++) {
        bool possible = l <= BASE_MIN(holds, most_layers(a, ends)) &&
                        l >= (ends == (FIRST | LAST) ? a->n_layers : least_layers(a, ends));
        cost[l] = INFINITY;
        known[l] = false;
        if (!possible)
            continue;
        cost[l] = behind_border(a, l, ends) * q->layer_us + more;
        double exact = search_cell(x, g, layers_with(a, l, ends), ends, g->n > 1);
        known[l] = !isnan(exact);
        if (exact > cost[l])
            cost[l] = exact * (1 - 1e-12);
        if (isfinite(cost[l]))
            most = l;
    }
    a->most[ends][set] = most;
    x->work += 20 + 12.0 * (most + 1) + 2.0 * a->width;
}

/* Costs of what is not struck out, by the better line and as of ranks that fill up while they read. */
static void sharpen_costs(assembly *a, int set)
{
    search_group *g = a->group[set];
    const search_quick *q = search_quick_of(a->x, g);
    search_flows f;
    if (g->n < 2 || !q)
        return;
    search_flows_of(a->x, g, &f);
    for (int ends = 0; ends < ENDS; ends++) {
        double *cost = a->cost[ends] + row_of(a, set), us = 0;
        double more = more_with(q, ends);
        for (int l = least_layers(a, ends); l <= a->most[ends][set]; l++) {
            double layers = behind_border(a, l, ends);
            if (isinf(cost[l]))
                continue;
            if (l)
                us = search_flow(&f, g->n, layers * f.bytes, us);
            cost[l] = plan_more(cost[l],
                                plan_more(layers * q->layer_us, us + layers * f.other_us) + more);
        }
        a->x->work += (a->most[ends][set] + 1) * 3.0 * g->n;
    }
}

/* Costs as of the best shares if memory were endless. */
static void share_out(assembly *a, int set)
{
    a->shared[set] = true;
    for (int ends = 0; ends < ENDS; ends++) {
        const double *hopes =
            a->most[ends][set] < 0 ? NULL : search_hopes(a->x, a->group[set], ends);
        double *cost = a->cost[ends] + row_of(a, set);
        for (int l = 0; hopes && l <= a->most[ends][set]; l++)
            if (l >= least_layers(a, ends))
                cost[l] = plan_more(cost[l], hopes[layers_with(a, l, ends)]);
    }
}

static bool set_groups(assembly *a)
{
    searcher *x = a->x;
    for (int set = 1; set < 1 << a->n && !spent(a); set++) {
        uint64_t bits[SEARCH_WORDS] = {0};
        if (set & ((1 << a->n_alone) - 1) && set & (set - 1))
            continue;
        for (int i = 0; i < a->n; i++)
            for (int w = 0; w < SEARCH_WORDS && set >> i & 1; w++)
                bits[w] |= a->items[i]->bits[w];
        search_group *g = search_group_of_bits(x, bits);
        x->work += 150;
        if (!g || !g->linked || !search_mode_allows(x, g, 0) ||
            !(a->quick[set] = search_rough_of(x, g)))
            continue;
        a->group[set] = g;
        a->hop_in[set] = 0;
        for (int ends = 0; ends < ENDS; ends++)
            set_costs(a, set, ends);
    }
    return !spent(a);
}

/* What takes longer to find, of the stages that are not struck out. */
static void refine_groups(assembly *a)
{
    searcher *x = a->x;
    double bytes = plan_hop_bytes(x->s, x->load);
    for (int set = 1; set < 1 << a->n && !spent(a); set++) {
        const search_group *g = a->group[set];
        double *hops = a->hops + (size_t)set * (size_t)x->n;
        if (!a->quick[set])
            continue;
        a->hop_in[set] = least_hop_into(a, g);
        for (int k = 0; k < x->n; k++)
            hops[k] = plan_hop_us(x->s, g->nodes, g->n, &k, 1, bytes);
        x->work += 3.0 * x->n * g->n;
        sharpen_costs(a, set);
        if (g->tables)
            share_out(a, set);
    }
    x->work += 1 << a->n;
}

/* How many layers there are on every set. Needs the memory of a layer, which set_groups has found. */
static void set_widths(assembly *a)
{
    int all = (1 << a->n) - 1;
    double block = a->block * a->x->needs[4].bytes;
    a->holds[0] = 0;
    for (int set = 1; set <= all; set++) {
        int low = 0;
        while (!(set >> low & 1))
            low++;
        a->holds[set] = a->holds[set & (set - 1)] + a->items[low]->room / block;
    }
    for (int set = 0; set <= all; set++) {
        double least = ceil(a->n_layers - a->holds[all ^ set] * (1 + 1e-9) - 1e-6);
        double most = floor(a->holds[set] * (1 + 1e-9) + 1e-6);
        a->low[set] = (int)plan_more(0, plan_less(least, a->n_layers + 1));
        a->high[set] = (int)plan_less(most, a->n_layers);
    }
    a->x->work += 6.0 * (all + 1);
}

/* ---- the tables ----------------------------------------------------------------------------------------------------- */

/* Entries of a row that matter. */
typedef struct part {
    int low, high;
} part;

/* into[m] = min over j of from[m − j] + hop + cost[j], with what is there. */
static void add_stage(assembly *a, double *into, part to, const double *from, part of, double hop,
                      const double *cost, int least, int most)
{
    for (int j = least; j <= most; j++) {
        double us = hop + cost[j];
        int low = BASE_MAX(to.low, j + of.low), high = BASE_MIN(to.high, j + of.high);
        if (us >= NEVER || low > high) /* struck out */
            continue;
        for (int m = low; m <= high; m++)
            into[m] = plan_less(into[m], from[m - j] + us);
        a->x->work += 2 + 0.5 * (high - low + 1);
    }
    a->x->work += 3;
}

/* The same of the slowest. */
static void add_slowest(assembly *a, double *into, part to, const double *from, part of, double hop,
                        const double *cost, int least, int most)
{
    for (int j = least; j <= most; j++) {
        double us = hop + cost[j];
        int low = BASE_MAX(to.low, j + of.low), high = BASE_MIN(to.high, j + of.high);
        if (us >= NEVER || low > high)
            continue;
        for (int m = low; m <= high; m++)
            into[m] = plan_less(into[m], plan_more(from[m - j], us));
        a->x->work += 2 + 0.8 * (high - low + 1);
    }
    a->x->work += 3;
}

/* The stages whose lowest item this is, in numbers that ascend. */
static void set_active(assembly *a)
{
    memset(a->n_active, 0, (size_t)a->n * sizeof(int));
    for (int set = 1; set < 1 << a->n; set++) {
        int low = 0;
        if (!a->quick[set])
            continue;
        while (!(set >> low & 1))
            low++;
        a->active[((size_t)low << a->n) + (size_t)a->n_active[low]++] = set;
    }
    a->x->work += 2.0 * (1 << a->n);
}

static void use_stage(assembly *a, int set, int g)
{
    size_t to = row_of(a, set), left = row_of(a, set ^ g), of = row_of(a, g);
    part mine = {a->low[set], a->high[set]}, others = {a->low[set ^ g], a->high[set ^ g]};
    for (int whole = 0; whole < ENDS; whole++)
        for (int ends = 0; ends < ENDS; ends++) {
            if ((ends & ~whole) || a->most[ends][g] < 0)
                continue;
            add_stage(a, a->rest[whole] + to, mine, a->rest[whole ^ ends] + left, others,
                      ends & FIRST ? 0 : a->hop_in[g], a->cost[ends] + of, least_layers(a, ends),
                      a->most[ends][g]);
        }
    if (!a->counts)
        return;
    int most = 0;
    for (int l = 0; l < a->width; l++)
        a->line[l] = INFINITY;
    for (int ends = 0; ends < ENDS; ends++)
        for (int l = least_layers(a, ends); l <= a->most[ends][g]; l++) {
            a->line[l] = plan_less(a->line[l], a->cost[ends][of + (size_t)l]);
            most = BASE_MAX(most, l);
        }
    add_slowest(a, a->slowest + to, mine, a->slowest + left, others, 0, a->line, 1, most);
}

static void set_tables(assembly *a)
{
    set_active(a);
    for (int set = 0; set < 1 << a->n && !spent(a); set++) {
        int low = 0;
        size_t to = row_of(a, set), from = row_of(a, set & (set - 1));
        for (size_t m = 0; m < (size_t)a->width; m++) {
            bool narrow = (int)m < a->low[set];
            for (int whole = 0; whole < ENDS; whole++)
                a->rest[whole][to + m] = narrow ? INFINITY
                                         : set  ? a->rest[whole][from + m]
                                                : (m || whole ? INFINITY : 0);
            a->slowest[to + m] = narrow ? INFINITY
                                 : set  ? a->slowest[from + m]
                                        : (m ? INFINITY : 0);
        }
        while (set && !(set >> low & 1))
            low++;
        a->x->work += 5.0 * a->width;
        if (a->low[set] > a->high[set])
            continue;
        const int *active = a->active + ((size_t)low << a->n);
        for (int i = 0; set && i < a->n_active[low] && active[i] <= set; i++)
            if (!(active[i] & ~set))
                use_stage(a, set, active[i]);
        a->x->work += 1.5 * (set ? a->n_active[low] : 0);
    }
}

/* ---- costs made exact ----------------------------------------------------------------------------------------------- */

static int by_least(const void *a, const void *b)
{
    const choice *p = a, *q = b;
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
    return a->cost[ends][row_of(a, set) + (size_t)layers] + (ends & FIRST ? 0 : a->hop_in[set]);
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
            for (int l = least_layers(a, ends); l <= a->most[ends][set]; l++) {
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
    double cost = a->cost[ends][row_of(a, set) + (size_t)layers];
    size_t left = row_of(a, ((1 << a->n) - 1) ^ set) + (size_t)(a->n_layers - layers);
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
    choice *c = a->choices;
    int low = 0, high = n - 1;
    while (low < high) {
        choice middle = c[low + (high - low) / 2];
        int i = low, k = high;
        while (i <= k) {
            while (by_least(&c[i], &middle) < 0)
                i++;
            while (by_least(&c[k], &middle) > 0)
                k--;
            if (i <= k) {
                choice swap = c[i];
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
            for (int l = least_layers(a, ends); l <= a->most[ends][set]; l++) {
                size_t at = row_of(a, set) + (size_t)l;
                if (isinf(a->cost[ends][at]))
                    continue;
                double least = least_with(a, p, set, l, ends);
                if (!(least < best(a))) {
                    a->cost[ends][at] = INFINITY;
                    continue;
                }
                most = l;
                if (!a->known[ends][at])
                    a->choices[n++] = (choice){least, set, l, ends};
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
static void strike_early(assembly *a)
{
    paces p;
    for (int turn = 0; turn < EARLY_TURNS && isfinite(best(a)) && !spent(a); turn++) {
        set_paces(a, &p);
        find_choices(a, &p);
    }
}

/* The stages of the least entry of the table, by their ends; how many, 0 when there is none. */
static int find_least(const assembly *a, choice *stages)
{
    int n = 0, set = (1 << a->n) - 1, whole = FIRST | LAST, layers = a->n_layers;
    while (set && (whole || layers > 0)) {
        double us = a->rest[whole][row_of(a, set) + (size_t)layers];
        int low = 0, was = n;
        if (isinf(us))
            return 0;
        while (!(set >> low & 1))
            low++;
        if (us == a->rest[whole][row_of(a, set & (set - 1)) + (size_t)layers]) {
            set &= set - 1;
            continue;
        }
        for (int i = 0; i < a->n_active[low] && n == was; i++) {
            int g = a->active[((size_t)low << a->n) + (size_t)i];
            for (int ends = 0; ends < ENDS && n == was && !(g & ~set); ends++)
                for (int l = least_layers(a, ends);
                     l <= BASE_MIN(layers, a->most[ends][g]) && !(ends & ~whole); l++) {
                    double cost =
                        (ends & FIRST ? 0 : a->hop_in[g]) + a->cost[ends][row_of(a, g) + (size_t)l];
                    if (a->rest[whole ^ ends][row_of(a, set ^ g) + (size_t)(layers - l)] + cost ==
                        us) {
                        stages[n++] = (choice){us, g, l, ends};
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

static void make_exact(assembly *a, const choice *c)
{
    size_t at = row_of(a, c->set) + (size_t)c->layers;
    if (a->known[c->ends][at])
        return;
    double us =
        search_cell(a->x, a->group[c->set], layers_with(a, c->layers, c->ends), c->ends, false);
    a->known[c->ends][at] = true;
    a->cost[c->ends][at] = plan_more(a->cost[c->ends][at], us * (1 - 1e-12));
}

/* Some orders of these stages, with what begins and what ends them in its place. */
static void try_orders(assembly *a, choice *stages, int n, int at, int *tries)
{
    for (int i = at; i < n && (*tries > 0) && !spent(a); i++) {
        choice c = stages[i];
        stages[i] = stages[at];
        stages[at] = c;
        a->path[at] = a->group[c.set];
        if ((c.ends & FIRST) == (at == 0 ? FIRST : 0) &&
            (c.ends & LAST) == (at == n - 1 ? LAST : 0)) {
            if (at < n - 1) {
                try_orders(a, stages, n, at + 1, tries);
            } else {
                search_score(a->x, a->path, n, best(a) * a->slack);
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
    choice stages[SEARCH_ITEMS];
    int n = find_least(a, stages), tries = 30;
    bool exact = true;
    for (int i = 0; i < n; i++) {
        exact =
            exact && a->known[stages[i].ends][row_of(a, stages[i].set) + (size_t)stages[i].layers];
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
        for (; l >= least_layers(a, ends) && !spent(a); l--) {
            choice c = {0, set, l, ends};
            make_exact(a, &c);
            if (isfinite(a->cost[ends][row_of(a, set) + (size_t)l]))
                break;
        }
        if (!spent(a) && l >= 0)
            a->group[set]->misfit[ends] = l + 1;
        a->most[ends][set] = l < least_layers(a, ends) ? -1 : l;
    }
}

/* The same of some more stages, those of few items first. */
static void find_more(assembly *a)
{
    for (int size = 1, left = FIND_MORE; size <= a->n && left > 0; size++)
        for (int set = 1; set < 1 << a->n && left > 0 && !spent(a); set++)
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
            for (int l = least_layers(a, ends); l <= a->most[ends][set]; l++) {
                size_t at = row_of(a, set) + (size_t)l;
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
    choice stages[SEARCH_ITEMS];
    memcpy(cost, a->cost, sizeof cost);
    for (int turn = 0; turn < ANY_TURNS && refused < ANY_REFUSED && !spent(a) && isinf(best(a));
         turn++) {
        set_risks(a, a->risk);
        memcpy(a->cost, a->risk, sizeof cost);
        a->hop_in = a->no_hop;
        a->counts = false;
        set_tables(a);
        bool none = !spent(a) && isinf(a->rest[FIRST | LAST][row_of(a, 1 << a->n) - 1]);
        int n = spent(a) || none ? 0 : find_least(a, stages), tries = 120;
        memcpy(a->cost, cost, sizeof cost);
        a->hop_in = hop_in;
        a->counts = counts;
        if (none)
            return false;
        bool exact = n > 0;
        for (int i = 0; i < n; i++) {
            exact = exact &&
                    a->known[stages[i].ends][row_of(a, stages[i].set) + (size_t)stages[i].layers];
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
static void sharpen(assembly *a)
{
    if (isinf(best(a)) && !find_any(a))
        return;
    strike_early(a);
    for (int turn = 0; turn < 1000 && !spent(a); turn++) {
        set_tables(a);
        if (spent(a) || isinf(a->rest[FIRST | LAST][row_of(a, 1 << a->n) - 1]))
            return;
        if (sharpen_least(a) && isinf(best(a)))
            continue;
        int n = find_choices(a, NULL), batch = BASE_MIN(n, BASE_MIN(32 + n / 8, 600));
        select_choices(a, n, batch);
        for (int i = 0; i < batch && !spent(a); i++) {
            const choice *c = &a->choices[i];
            if (!a->shared[c->set])
                share_out(a, c->set);
            else
                make_exact(a, c);
        }
        if (!n)
            return;
    }
}

/* ---- one stage after the other -------------------------------------------------------------------------------------- */

/* Rows d + 1: what comes of the path of d stages when this set is its next. */
static void set_rows(assembly *a, int d, int set, double hop)
{
    size_t width = (size_t)a->width;
    double *sum = a->sum + (size_t)(d + 1) * width, *slow = a->slow + (size_t)(d + 1) * width;
    const double *cost = a->cost[d ? 0 : FIRST] + row_of(a, set);
    int most = a->most[d ? 0 : FIRST][set];
    for (int m = 0; m < a->width; m++)
        sum[m] = slow[m] = d || m > most ? INFINITY : cost[m];
    if (!d)
        return;
    part all = {0, a->n_layers};
    add_stage(a, sum, all, sum - width, all, hop, cost, 1, most);
    if (a->counts)
        add_slowest(a, slow, all, slow - width, all, hop, cost, 1, most);
}

/* The score when the path of d stages ends with this set, hop back included. */
static double score_with_last(const assembly *a, int d, int set, int nodes, double hop)
{
    size_t width = (size_t)a->width;
    const double *sum = a->sum + (size_t)d * width, *slow = a->slow + (size_t)d * width;
    const search_group *g = a->group[set];
    double all = INFINITY, slowest = INFINITY, back = 0;
    int ends = d ? LAST : FIRST | LAST;
    if (d + 1 < a->depth_least || a->most[ends][set] < 0)
        return INFINITY;
    const double *cost = a->cost[ends] + row_of(a, set);
    if (!d)
        all = slowest = cost[a->n_layers];
    for (int l = 1; d && l <= a->most[ends][set]; l++) {
        all = plan_less(all, sum[a->n_layers - l] + hop + cost[l]);
        if (a->counts)
            slowest = plan_less(slowest, plan_more(slow[a->n_layers - l], hop + cost[l]));
    }
    if (isinf(all))
        return INFINITY;
    slowest = plan_more(a->counts ? slowest : 0, all / (d + 1));
    double score = search_goal(a->x, nodes + g->n, 0, all, slowest);
    if (score >= best(a) || !d)
        return score;
    back = plan_hop_us(a->x->s, g->nodes, g->n, a->path[0]->nodes, a->path[0]->n,
                       plan_back_bytes(a->x->s, a->x->load));
    return search_goal(a->x, nodes + g->n, back, all, slowest);
}

/* No score of what goes on after the path of d + 1 stages is below. */
static double score_to_go(const assembly *a, int d, int left, int nodes)
{
    size_t width = (size_t)a->width;
    const double *sum = a->sum + (size_t)(d + 1) * width, *slow = a->slow + (size_t)(d + 1) * width;
    const double *rest = a->rest[LAST] + row_of(a, left), *slowest = a->slowest + row_of(a, left);
    double least = INFINITY, pressed = INFINITY;
    if (d + 1 >= a->depth_most || !left)
        return INFINITY;
    for (int m = 0; m < a->n_layers; m++) {
        least = plan_less(least, sum[m] + rest[a->n_layers - m]);
        if (a->counts)
            pressed = plan_less(pressed, plan_more(slow[m], slowest[a->n_layers - m]));
    }
    a->x->work += 1.5 * a->n_layers;
    if (isinf(least))
        return INFINITY;
    double slow_us = a->counts ? plan_more(pressed, least / a->depth_most) : 0;
    return search_goal(a->x, nodes + 1, 0, least, slow_us);
}

static int more_hopeful(const void *a, const void *b)
{
    const child *p = a, *q = b;
    if (p->least != q->least)
        return p->least < q->least ? -1 : 1;
    return p->set < q->set ? -1 : p->set > q->set;
}

/* From the path's last stage, the union `last`, to every union of what is left. */
static void set_hops(assembly *a, int d, int last, int left)
{
    double *hop = a->hop + ((size_t)d << a->n);
    const double *from = a->hops + (size_t)last * (size_t)a->x->n;
    for (int i = 0; i < a->n; i++) {
        const search_group *g = a->items[i];
        hop[1 << i] = 0;
        for (int k = 0; k < g->n && left >> i & 1; k++)
            hop[1 << i] = plan_more(hop[1 << i], d ? from[g->nodes[k]] : 0);
    }
    for (int set = left & -left, low; set; set = (set - left) & left) {
        low = set & -set;
        if (set != low)
            hop[set] = plan_more(hop[low], hop[set ^ low]);
    }
}

static void extend(assembly *a, int d, int used, int last, int nodes)
{
    child *children = a->children + ((size_t)d << a->n);
    int left = ((1 << a->n) - 1) & ~used, n = 0;
    const double *hop = a->hop + ((size_t)d << a->n);
    set_hops(a, d, last, left);
    for (int i = 0; i < a->n; i++)
        for (int k = 0; k < a->n_active[i] && (left >> i & 1) && !spent(a); k++) {
            int set = a->active[((size_t)i << a->n) + (size_t)k];
            a->x->work += 2;
            if ((set & ~left) || isinf(hop[set]))
                continue;
            set_rows(a, d, set, hop[set]);
            double end = score_with_last(a, d, set, nodes, hop[set]);
            double go = score_to_go(a, d, left & ~set, nodes + a->group[set]->n);
            double least = plan_less(end, go) * (1 - 1e-9);
            if (least < best(a))
                children[n++] = (child){least, set};
        }
    qsort(children, (size_t)n, sizeof *children, more_hopeful);
    for (int i = 0; i < n && !spent(a) && children[i].least < best(a); i++) {
        int set = children[i].set;
        a->path[d] = a->group[set];
        if (score_with_last(a, d, set, nodes, hop[set]) * (1 - 1e-9) < best(a))
            search_score(a->x, a->path, d + 1, best(a) * a->slack);
        set_rows(a, d, set, hop[set]);
        if (score_to_go(a, d, left & ~set, nodes + a->group[set]->n) * (1 - 1e-9) < best(a))
            extend(a, d + 1, used | set, set, nodes + a->group[set]->n);
    }
}

/* ---- the whole ------------------------------------------------------------------------------------------------------ */

static assembly *make(searcher *x, int n)
{
    assembly *a = x->assembly[n];
    int dense = x->s->m->n_dense_layers;
    plan_goal goal = x->s->r->goal;
    size_t sets = (size_t)1 << n;
    if (a)
        return a;
    a = search_take(x, 1, sizeof *a);
    if (!a)
        return NULL;
    int behind =
        dense < x->L ? x->L - dense : x->L; /* layers with a border before them, or the first */
    *a = (assembly){.x = x, .n = n, .block = (behind + BLOCKS - 1) / BLOCKS};
    a->n_layers = behind / a->block;
    a->before = x->L - a->n_layers * a->block;
    a->slack = a->block > 1 ? 0.97 : 1;
    a->width = a->n_layers + 1;
    a->counts = goal == PLAN_TTFT ? x->s->r->prompt > PLAN_CHUNK : goal == PLAN_THROUGHPUT;
    size_t width = (size_t)a->width, depth = (size_t)n + 1;
    a->group = search_take(x, sets, sizeof *a->group);
    a->quick = search_take(x, sets, sizeof *a->quick);
    a->hop_in = search_take(x, sets, sizeof(double));
    a->hops = search_take(x, sets * (size_t)x->n, sizeof(double));
    a->hop = search_take(x, depth * sets, sizeof(double));
    for (int ends = 0; ends < ENDS; ends++) {
        a->cost[ends] = search_take(x, sets * width, sizeof(double));
        a->known[ends] = search_take(x, sets * width, sizeof(bool));
        a->most[ends] = search_take(x, sets, sizeof(int));
        a->rest[ends] = search_take(x, sets * width, sizeof(double));
        a->risk[ends] = search_take(x, sets * width, sizeof(double));
    }
    a->refused = search_take(x, sets, sizeof(double));
    a->no_hop = search_take(x, sets, sizeof(double));
    a->found_most = search_take(x, sets, sizeof(bool));
    a->shared = search_take(x, sets, sizeof(bool));
    a->slowest = search_take(x, sets * width, sizeof(double));
    a->holds = search_take(x, sets, sizeof(double));
    a->low = search_take(x, sets, sizeof(int));
    a->high = search_take(x, sets, sizeof(int));
    a->line = search_take(x, width, sizeof(double));
    a->sum = search_take(x, depth * width, sizeof(double));
    a->slow = search_take(x, depth * width, sizeof(double));
    a->active = search_take(x, depth * sets, sizeof(int));
    a->n_active = search_take(x, depth, sizeof(int));
    a->children = search_take(x, depth * sets, sizeof *a->children);
    a->choices = search_take(x, ENDS * sets * width, sizeof *a->choices);
    a->path = search_take(x, depth, sizeof *a->path);
    x->assembly[n] = x->failed ? NULL : a;
    return x->assembly[n];
}

/* Structures of [least, most] stages, whose load is the same. */
static void assemble_depths(assembly *a, int least, int most)
{
    size_t sets = (size_t)1 << a->n;
    search_set_load(a->x, most);
    a->depth_least = least;
    a->depth_most = most;
    memset(a->group, 0, sets * sizeof *a->group);
    memset(a->quick, 0, sets * sizeof *a->quick);
    memset(a->shared, 0, sets * sizeof *a->shared);
    memset(a->found_most, 0, sets * sizeof *a->found_most);
    memset(a->refused, 0, sets * sizeof *a->refused);
    if (spent(a) || !set_groups(a))
        return;
    set_widths(a);
    strike_early(a);
    refine_groups(a);
    if (!spent(a))
        sharpen(a);
    if (!spent(a) && isfinite(a->rest[FIRST | LAST][row_of(a, 1 << a->n) - 1]))
        extend(a, 0, 0, 0, 0);
}

/* Sequences of a step with so many stages. */
static int share_of(const searcher *x, int depth)
{
    int c = x->s->r->concurrency, parts = BASE_MIN(depth, c);
    return (c + parts - 1) / parts;
}

bool search_assemble(searcher *x, search_group *const *items, int n, int n_alone, double most)
{
    int depth = x->s->r->mode == PLAN_TENSOR ? 1 : BASE_MIN(n, x->max_depth);
    assembly *a = n < 1 ? NULL : make(x, n);
    bool all = true;
    if (!a)
        return false;
    a->items = items;
    a->n_alone = n_alone;
    a->work = most;
    if (x->s->r->goal != PLAN_THROUGHPUT) {
        assemble_depths(a, 1, depth);
        return !spent(a);
    }
    for (int last = depth, least; last > 0; last = least - 1) { /* deep ones first: most fit */
        for (least = last; least > 1 && share_of(x, least - 1) == share_of(x, last); least--)
            continue;
        a->work = x->work + (most - x->work) * (least > 1 ? 0.5 : 1);
        assemble_depths(a, least, last);
        all = all && !spent(a);
    }
    return all;
}
