/*
 * What the stages of an assembly cost at least, and the tables of it (head of assemble.c). A cost begins as a line in the number of layers
 * (quick.c), or as what is known of the group when that is more; where a stage is still hopeful, ranks that fill up while they read and the
 * best shares as if memory were endless raise it. From costs and least hops come, over all sets R of items and all numbers m of layers, the
 * least time, by what the stages of R begin and end, and the least slowest stage: of the stage that holds R's lowest item, and the rest; or
 * with that item unused. Rows are only as wide as memory lets them be.
 *
 * Not here: exact costs and what they strike out (assemble_exact.c), the order of stages (assemble.c).
 */
#include "plan/assemble.h"

#include <string.h>

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

/* Each stage beside it has a layer, the first one those that have no border before them. */
static int most_layers(const assembly *a, int ends)
{
    return a->n_layers - !(ends & LAST) - (!(ends & FIRST) && !a->before);
}

/* Layers before any border, where the ends have them. */
static int dense_with(const assembly *a, int ends)
{
    int dense = a->x->s->m->n_dense_layers;
    return ends & FIRST && dense < a->x->L ? dense : 0;
}

static double behind_border(const assembly *a, int blocks, int ends)
{
    return assemble_layers_with(a, blocks, ends) - dense_with(a, ends);
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
    double *cost = a->cost[ends] + assemble_row(a, set);
    bool *known = a->known[ends] + assemble_row(a, set);
    double more = more_with(q, ends);
    int most = -1, dense = dense_with(a, ends);
    int holds = search_holds(x, g, ends); /* behind the first border */
    holds = holds < 0 ? -1 : holds + dense - (ends & FIRST ? a->before : 0);
    holds = holds < 0 ? -1 : holds / a->block;
    if (g->misfit[ends])
        holds = BASE_MIN(holds, g->misfit[ends] - 1);
    for (int l = 0; l < a->width; l++) {
        bool possible =
            l <= BASE_MIN(holds, most_layers(a, ends)) &&
            l >= (ends == (FIRST | LAST) ? a->n_layers : assemble_least_layers(a, ends));
        cost[l] = INFINITY;
        known[l] = false;
        if (!possible)
            continue;
        cost[l] = behind_border(a, l, ends) * q->layer_us + more;
        double exact = search_cell(x, g, assemble_layers_with(a, l, ends), ends, g->n > 1);
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
        double *cost = a->cost[ends] + assemble_row(a, set), us = 0;
        double more = more_with(q, ends);
        for (int l = assemble_least_layers(a, ends); l <= a->most[ends][set]; l++) {
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
void assemble_share_out(assembly *a, int set)
{
    a->shared[set] = true;
    for (int ends = 0; ends < ENDS; ends++) {
        const double *hopes =
            a->most[ends][set] < 0 ? NULL : search_hopes(a->x, a->group[set], ends);
        double *cost = a->cost[ends] + assemble_row(a, set);
        for (int l = 0; hopes && l <= a->most[ends][set]; l++)
            if (l >= assemble_least_layers(a, ends))
                cost[l] = plan_more(cost[l], hopes[assemble_layers_with(a, l, ends)]);
    }
}

bool assemble_set_groups(assembly *a)
{
    searcher *x = a->x;
    for (int set = 1; set < 1 << a->n && !assemble_spent(a); set++) {
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
    return !assemble_spent(a);
}

/* What takes longer to find, of the stages that are not struck out. */
void assemble_refine_groups(assembly *a)
{
    searcher *x = a->x;
    double bytes = plan_hop_bytes(x->s, x->load);
    for (int set = 1; set < 1 << a->n && !assemble_spent(a); set++) {
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
            assemble_share_out(a, set);
    }
    x->work += 1 << a->n;
}

/* How many layers there are on every set. Needs the memory of a layer, which assemble_set_groups has found. */
void assemble_set_widths(assembly *a)
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

/* into[m] = min over j of from[m − j] + hop + cost[j], with what is there. */
void assemble_add_stage(assembly *a, double *into, assemble_part to, const double *from,
                        assemble_part of, double hop, const double *cost, int least, int most)
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
void assemble_add_slowest(assembly *a, double *into, assemble_part to, const double *from,
                          assemble_part of, double hop, const double *cost, int least, int most)
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
    size_t to = assemble_row(a, set), left = assemble_row(a, set ^ g), of = assemble_row(a, g);
    assemble_part mine = {a->low[set], a->high[set]}, others = {a->low[set ^ g], a->high[set ^ g]};
    for (int whole = 0; whole < ENDS; whole++)
        for (int ends = 0; ends < ENDS; ends++) {
            if ((ends & ~whole) || a->most[ends][g] < 0)
                continue;
            assemble_add_stage(a, a->rest[whole] + to, mine, a->rest[whole ^ ends] + left, others,
                               ends & FIRST ? 0 : a->hop_in[g], a->cost[ends] + of,
                               assemble_least_layers(a, ends), a->most[ends][g]);
        }
    if (!a->counts)
        return;
    int most = 0;
    for (int l = 0; l < a->width; l++)
        a->line[l] = INFINITY;
    for (int ends = 0; ends < ENDS; ends++)
        for (int l = assemble_least_layers(a, ends); l <= a->most[ends][g]; l++) {
            a->line[l] = plan_less(a->line[l], a->cost[ends][of + (size_t)l]);
            most = BASE_MAX(most, l);
        }
    assemble_add_slowest(a, a->slowest + to, mine, a->slowest + left, others, 0, a->line, 1, most);
}

void assemble_set_tables(assembly *a)
{
    set_active(a);
    for (int set = 0; set < 1 << a->n && !assemble_spent(a); set++) {
        int low = 0;
        size_t to = assemble_row(a, set), from = assemble_row(a, set & (set - 1));
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
