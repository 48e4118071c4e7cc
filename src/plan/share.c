/*
 * Who holds which units of a stage: the shares that make its slowest ranks fastest, under the memory of each.
 *
 * Without memory the kinds of units do not touch each other: each has its own least greatest time, found exactly (least_time). Memory couples
 * them, and giving out indivisible units of several sizes over several stores is a packing problem. So memory is split first: a *budget* is
 * a number of bytes for each kind on each rank. Budgets come from rules that look at memory and at the model, never at speeds, and whose
 * every number grows, or stays, when a rank's memory grows. Under a budget kinds are independent again, and the answer is
 *
 *     min over rules and over sliced or whole experts of Σ kinds layers · least_time(kind, budget)
 *
 * Hence the properties that the planner promises (plan.h). *Faster:* for one rule no least time grows when a bandwidth, a rate or a link
 * improves, since any units that were given out before may still be, and each costs no more; a minimum of such values does not grow
 * either. *More memory:* every budget grows, so nothing that was allowed is forbidden. The shares as if memory were endless are used only if a
 * rule allows them: were they used whenever they happen to fit, a faster device, whose share no longer fits, could end up slower.
 * In clusters of few nodes attention, whose units are few and large, is given out in every way of so many parts (attention_atom: by counts
 * alone), and rules share what memory that leaves. Where there are so few units of all kinds that every way can be tried, it is.
 */
#include "plan/inside.h"

#include <math.h>
#include <string.h>

enum { FEW_NODES = 6 }; /* of a cluster: as many as the search tries everything of */

/* Ways to give out units that are tried one by one, in clusters of few nodes and of many. */
#define ALL_WAYS_FEW  6e4
#define ALL_WAYS_MANY 2e3

struct plan_scratch {
    bool few; /* nodes in the cluster: attention is given out in every way */
    double *bandwidth, *rate, *room, *pace; /* [n] */
    double *budget;                         /* [PLAN_KINDS, n] bytes */
    int *units, *best;                      /* [PLAN_KINDS, n] */
};

plan_scratch *plan_scratch_create(arena *memory, int n)
{
    size_t k = (size_t)n;
    plan_scratch *x = arena_zalloc(memory, 1, sizeof *x);
    if (!x)
        return NULL;
    x->few = n <= FEW_NODES;
    x->bandwidth = arena_zalloc(memory, k, sizeof(double));
    x->rate = arena_zalloc(memory, k, sizeof(double));
    x->room = arena_zalloc(memory, k, sizeof(double));
    x->pace = arena_zalloc(memory, PLAN_KINDS * k, sizeof(double));
    x->budget = arena_zalloc(memory, PLAN_KINDS * k, sizeof(double));
    x->units = arena_zalloc(memory, PLAN_KINDS * k, sizeof(int));
    x->best = arena_zalloc(memory, PLAN_KINDS * k, sizeof(int));
    bool all = x->bandwidth && x->rate && x->room && x->pace && x->budget && x->units && x->best;
    return all ? x : NULL;
}

typedef struct sharing {
    const plan_shape *s;
    const int *nodes;
    int n;
    plan_terms terms[PLAN_KINDS];
    plan_scratch *w;
    bool bounded; /* budgets count */
} sharing;

static void sharing_of(sharing *x, const plan_shape *s, const int *nodes, int n, plan_scratch *w)
{
    *x = (sharing){.s = s, .nodes = nodes, .n = n, .w = w};
    for (int i = 0; i < n; i++) {
        w->bandwidth[i] = plan_node_bandwidth(s, nodes, n, i);
        w->rate[i] = plan_node_rate(s, nodes[i]);
    }
}

/* ---- the least greatest time ---------------------------------------------------------------------------------------- */

static double rank_us(const sharing *x, plan_kind kind, int i, int first, int end)
{
    const double *shares = x->s->r->shares; /* pinned: time is what makes units follow them */
    if (shares)
        return (end - first) / shares[x->nodes[i]];
    return plan_units_us(&x->terms[kind], first, end, x->w->bandwidth[i], x->w->rate[i]);
}

typedef struct limit {
    double us;
    bool below; /* less than us, not equal */
} limit;

static bool may_hold(const sharing *x, plan_kind kind, int i, int first, int end, limit most)
{
    const plan_terms *t = &x->terms[kind];
    if (end <= first)
        return true;
    if (x->bounded) {
        double bytes = t->memory_once + (end - first) * t->memory_unit +
                       plan_kv_heads(t->group, first, end) * t->memory_kv;
        if (bytes > x->w->budget[kind * x->n + i])
            return false;
    }
    double us = rank_us(x, kind, i, first, end);
    return most.below ? us < most.us : us <= most.us;
}

/* How many units a rank takes within the limit, if they were divisible: of attention with so many K/V heads, or as many as units need. */
static double guess_units(const sharing *x, plan_kind kind, int i, double us, double kv)
{
    const plan_terms *t = &x->terms[kind];
    double each = kv < 0 && t->group ? 1.0 / t->group : 0, all = kv < 0 ? 0 : kv;
    double time = us - t->more_us, bytes = t->bytes_unit + each * t->bytes_kv;
    double macs = t->macs_unit + each * t->macs_kv;
    double units =
        plan_less((time * x->w->bandwidth[i] - t->bytes_once - all * t->bytes_kv) / (bytes + 1e-30),
                  (time * x->w->rate[i] - t->macs_once - all * t->macs_kv) / (macs + 1e-30));
    if (x->bounded)
        units =
            plan_less(units, (x->w->budget[kind * x->n + i] - t->memory_once - all * t->memory_kv) /
                                 (t->memory_unit + each * t->memory_kv + 1e-30));
    return units;
}

static int guess_end(const sharing *x, plan_kind kind, int i, int first, double us)
{
    const plan_terms *t = &x->terms[kind];
    double units = guess_units(x, kind, i, us, -1);
    int end = units < 1 ? first : units >= t->total - first ? t->total : first + (int)units;
    for (int turn = 0; turn < 3 && t->group > 1 && end > first; turn++) {
        /* the K/V heads that this end touches are read whole */
        int begins = (end - 1) / t->group * t->group;
        units = guess_units(x, kind, i, us, plan_kv_heads(t->group, first, end));
        int most = first + (int)plan_less(plan_more(units, 0), t->total - first);
        end = BASE_MIN(most, BASE_MIN(begins + t->group, t->total));
        if (end > begins)
            break;
        end = BASE_MAX(begins, first);
    }
    return end;
}

/* The end of the units that rank i takes when it begins at `first`. More units are never quicker nor smaller, so this is exact whatever the
 * guess is. */
static int reach(const sharing *x, plan_kind kind, int i, int first, limit most)
{
    const plan_terms *t = &x->terms[kind];
    int low = first, high = t->total + 1; /* low may be held, high may not */
    if (t->all == 0 && !x->s->r->shares) {
        int guess = guess_end(x, kind, i, first, most.us);
        for (int step = 0; step < 4 && low + 1 < high; step++) {
            if (may_hold(x, kind, i, first, guess, most)) {
                low = guess++;
                if (low == t->total)
                    return low;
            } else {
                high = guess--;
                guess = guess < low ? low : guess;
            }
        }
    }
    while (low + 1 < high) {
        int middle = low + (high - low) / 2;
        if (may_hold(x, kind, i, first, middle, most))
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Every rank in turn takes as much as the limit allows: where that does not give out all units, nothing does, since a rank that begins later
 * never ends earlier. Returns the greatest time, infinite when units are left. */
static double pour(const sharing *x, plan_kind kind, int *units, limit most)
{
    int at = 0, total = x->terms[kind].total;
    double us = 0;
    for (int i = 0; i < x->n; i++) {
        int end = at < total ? reach(x, kind, i, at, most) : at;
        units[i] = end - at;
        us = plan_more(us, rank_us(x, kind, i, at, end));
        at = end;
    }
    bool within = most.below ? us < most.us : us <= most.us; /* not so when idling takes longer */
    return at == total && within ? us : INFINITY;
}

/* As pour, of units that are all alike; what is too much at that level is taken back from those who would be last. */
static void level_out(const sharing *x, plan_kind kind, int *units, double us)
{
    int64_t sum = 0, total = x->terms[kind].total;
    for (int i = 0; i < x->n; i++)
        sum += units[i] = reach(x, kind, i, 0, (limit){us, false});
    while (sum > total) {
        int latest = -1;
        double most = -1;
        for (int i = 0; i < x->n; i++) {
            double t = units[i] ? rank_us(x, kind, i, 0, units[i]) : -1;
            if (t >= most && units[i]) {
                most = t;
                latest = i;
            }
        }
        units[latest]--;
        sum--;
    }
}

/* A time below which the ranks cannot take all units: as if they were divisible. */
static double flow_us(const sharing *x, plan_kind kind)
{
    const plan_terms *t = &x->terms[kind];
    double flow = 0, kv = t->group ? 1.0 / t->group : 0;
    double bytes = t->bytes_unit + kv * t->bytes_kv, macs = t->macs_unit + kv * t->macs_kv;
    if (t->all > 0 || x->s->r->shares)
        return 0;
    for (int i = 0; i < x->n; i++)
        flow += 1 / fmax(bytes / x->w->bandwidth[i], macs / x->w->rate[i]);
    return t->total / flow * (1 - 1e-9);
}

/* Units that are all alike and cost a line: what fits below a time that is too short, then one unit after the other to the rank that has it
 * soonest, which gives the least greatest time. */
static double deal_out(const sharing *x, plan_kind kind, int *units, double hopeless)
{
    const plan_terms *t = &x->terms[kind];
    double low = flow_us(x, kind), us = 0;
    int64_t left = t->total;
    for (int round = 0; round < 64; round++) {
        double flow = 0;
        int open = 0;
        left = t->total;
        for (int i = 0; i < x->n; i++) {
            units[i] = reach(x, kind, i, 0, (limit){low, true});
            left -= units[i];
            if (may_hold(x, kind, i, 0, units[i] + 1, (limit){INFINITY, false})) {
                flow +=
                    1 / plan_more(t->bytes_unit / x->w->bandwidth[i], t->macs_unit / x->w->rate[i]);
                open++;
            }
        }
        double more = open ? (double)(left - open) / flow : 0;
        if (left <= 2 * x->n || !open || more <= low * 1e-6)
            break;
        low += more * (1 - 1e-9);
        if (low >= hopeless)
            return INFINITY;
    }
    if (left < 0)
        return INFINITY;
    for (; left > 0; left--) {
        int soonest = -1;
        double least = INFINITY;
        for (int i = 0; i < x->n; i++) {
            limit sooner = {least, true};
            if (may_hold(x, kind, i, 0, units[i] + 1, sooner)) {
                least = rank_us(x, kind, i, 0, units[i] + 1);
                soonest = i;
            }
        }
        if (soonest < 0 || least >= hopeless)
            return INFINITY;
        units[soonest]++;
    }
    for (int i = 0; i < x->n; i++)
        us = plan_more(us, rank_us(x, kind, i, 0, units[i]));
    return us < hopeless ? us : INFINITY;
}

/* The least greatest time of a kind, exactly; infinite when the budgets do not hold all units, or when it is not below `hopeless`. */
static double least_time(const sharing *x, plan_kind kind, int *units, double hopeless)
{
    const plan_terms *t = &x->terms[kind];
    if (kind != PLAN_ATTENTION && t->all == 0 && !x->s->r->shares)
        return deal_out(x, kind, units, hopeless);
    double high = pour(x, kind, units, (limit){hopeless, true});
    if (isinf(high))
        return INFINITY;
    double low = flow_us(x, kind), width = low / t->total * x->n;
    while (low > 0 && low + width < high) { /* near the line where no budget binds */
        double us = pour(x, kind, units, (limit){low + width, false});
        if (isfinite(us)) {
            high = us;
            break;
        }
        low += width;
        width *= 4;
    }
    for (int step = 0; step < 40 && high - low > high * (0.5 / t->total); step++) {
        double us = pour(x, kind, units, (limit){low + (high - low) / 2, false});
        if (isfinite(us))
            high = us;
        else
            low = low + (high - low) / 2;
    }
    for (double us; isfinite(us = pour(x, kind, units, (limit){high, true}));)
        high = us; /* the next smaller time that can be had, until there is none */
    if (kind == PLAN_ATTENTION)
        pour(x, kind, units, (limit){high, false});
    else
        level_out(x, kind, units, high);
    return high;
}

/* ---- memory endless ------------------------------------------------------------------------------------------------- */

void plan_free_of(plan_free *out, const plan_shape *s, const int *nodes, int n, plan_load l,
                  plan_link worst, plan_scratch *w)
{
    sharing x;
    sharing_of(&x, s, nodes, n, w);
    plan_span all = {s->m->n_dense_layers, s->m->n_layers - s->m->n_dense_layers, true, true};
    out->fixed = plan_fixed_of(s, l, worst, n);
    for (int whole = 0; whole < 2; whole++) {
        plan_stage_terms(x.terms, s, all, l, whole, n);
        for (int k = 0; k < PLAN_KINDS; k++) {
            if (whole && k != PLAN_EXPERTS) {
                out->us[1][k] = out->us[0][k];
                memcpy(out->units + (PLAN_KINDS + k) * n, out->units + k * n,
                       (size_t)n * sizeof(int));
            } else {
                int *units = out->units + (whole * PLAN_KINDS + k) * n;
                out->us[whole][k] =
                    x.terms[k].total ? least_time(&x, (plan_kind)k, units, INFINITY) : 0;
            }
        }
    }
    out->whole = out->us[1][PLAN_EXPERTS] < out->us[0][PLAN_EXPERTS];
}

double plan_free_units_us(const plan_free *f, plan_span p)
{
    const double *us = f->us[f->whole];
    return (p.n_dense + p.n_expert) * us[PLAN_ATTENTION] + p.n_dense * us[PLAN_FEED] +
           p.n_expert * us[PLAN_EXPERTS] + p.last * us[PLAN_VOCABULARY];
}

plan_cost plan_free_cost(const plan_free *f, plan_span p)
{
    plan_terms t[PLAN_KINDS] = {{.times = p.n_dense + p.n_expert},
                                {.times = p.n_dense},
                                {.times = p.n_expert},
                                {.times = p.last}};
    return plan_cost_of(t, f->us[f->whole], &f->fixed, p);
}

/* ---- a bound -------------------------------------------------------------------------------------------------------- */

/* Bytes of the kinds [kind, end) that a step reads, into *need; into pace[i] the most bytes a µs that rank i may hold of any of them. */
static void paces(const sharing *x, int kind, int end, double *need, double *pace)
{
    *need = 0;
    for (int i = 0; i < x->n; i++)
        pace[i] = 0;
    for (int k = kind; k < end; k++) {
        const plan_terms *t = &x->terms[k];
        double kv = t->group ? 1.0 / t->group : 0;
        double bytes = t->total * (t->memory_unit + kv * t->memory_kv);
        double read = t->bytes_unit + kv * t->bytes_kv, macs = t->macs_unit + kv * t->macs_kv;
        if (t->all > 0) { /* whole experts: without bad luck */
            read += t->all / t->total * t->expert_bytes;
            macs += t->picks / t->total * t->expert_macs;
        }
        if (!t->total || t->times <= 0 || bytes <= 0)
            continue;
        *need += bytes;
        for (int i = 0; i < x->n; i++) {
            double us = plan_more(read / x->w->bandwidth[i], macs / x->w->rate[i]);
            pace[i] = plan_more(pace[i], bytes / (us * t->total * t->times + 1e-30));
        }
    }
}

/* The time within which ranks can take `need` bytes, none more than its room nor faster than its pace. */
static double flow_in(int n, double need, const double *room, const double *pace)
{
    double us = 0;
    for (int turn = 0; turn <= n; turn++) { /* ranks fill up one after the other */
        double flow = 0, left = need;
        for (int i = 0; i < n; i++)
            if (room[i] < us * pace[i])
                left -= room[i];
            else
                flow += pace[i];
        if (left <= 0)
            break;
        if (flow <= 0)
            return INFINITY;
        double next = left / flow;
        if (next <= us)
            break;
        us = next;
    }
    return us * (1 - 1e-9);
}

double plan_least_us(const plan_shape *s, const int *nodes, int n, plan_span p, plan_load l,
                     plan_scratch *w)
{
    sharing x;
    double need;
    if (n == 1 || s->r->shares)
        return 0;
    sharing_of(&x, s, nodes, n, w);
    plan_stage_terms(x.terms, s, p, l, false, n);
    paces(&x, 0, PLAN_KINDS, &need, w->pace);
    for (int i = 0; i < n; i++)
        w->room[i] = plan_more(plan_node_room(s, nodes[i]), 0);
    return flow_in(n, need, w->room, w->pace);
}

/* ---- rules of memory ------------------------------------------------------------------------------------------------ */

/* Bytes of all units of a kind on one rank: attention with what comes once. */
static double kind_bytes(const sharing *x, plan_kind kind)
{
    const plan_terms *t = &x->terms[kind];
    double kv = t->group ? t->total / t->group : 0;
    return t->total ? t->memory_once + t->total * t->memory_unit + kv * t->memory_kv : 0;
}

typedef struct sizes {
    double once;             /* of attention */
    double kind[PLAN_KINDS]; /* the rest of attention, and the others */
    double all;
} sizes;

static sizes sizes_of(const sharing *x)
{
    const plan_terms *a = &x->terms[PLAN_ATTENTION];
    sizes z = {.once = a->memory_once};
    for (int k = 0; k < PLAN_KINDS; k++)
        z.kind[k] = kind_bytes(x, (plan_kind)k);
    z.kind[PLAN_ATTENTION] -= z.once;
    if (a->group > 1) /* heads that begin inside a group touch one more */
        z.once += a->memory_kv;
    for (int k = 0; k < PLAN_KINDS; k++)
        z.all += z.kind[k];
    return z;
}

static void set_budget(const sharing *x, int i, const double bytes[PLAN_KINDS])
{
    for (int k = 0; k < PLAN_KINDS; k++)
        x->w->budget[k * x->n + i] = bytes[k];
}

/* All kinds by the same fraction, attention by `tilt` times it. */
static void budget_evenly(const sharing *x, const sizes *z, int i, double tilt)
{
    double room = x->w->room[i] - z->once, bytes[PLAN_KINDS] = {0}, one = z->kind[PLAN_ATTENTION];
    if (room >= z->all)
        for (int k = 0; k < PLAN_KINDS; k++)
            bytes[k] = z->kind[k] + z->once;
    else if (room > 0) {
        double mine = plan_less(one, tilt * room * one / z->all);
        double rest = plan_more(0, room - mine), others = plan_more(z->all - one, 1);
        for (int k = 1; k < PLAN_KINDS; k++)
            bytes[k] = rest * z->kind[k] / others;
        bytes[PLAN_ATTENTION] = plan_less(mine, room) + z->once;
    }
    set_budget(x, i, bytes);
}

/* Kinds one after the other, each as much of it as there is room: attention, then what is read whole, then experts; or backwards. */
static void budget_in_turn(const sharing *x, const sizes *z, int i, bool backwards)
{
    double room = x->w->room[i], bytes[PLAN_KINDS] = {0};
    static const plan_kind order[] = {PLAN_ATTENTION, PLAN_FEED, PLAN_VOCABULARY, PLAN_EXPERTS};
    for (int turn = 0; turn < PLAN_KINDS; turn++) {
        plan_kind kind = order[backwards ? PLAN_KINDS - 1 - turn : turn];
        double all = z->kind[kind] + (kind == PLAN_ATTENTION ? z->once : 0);
        bytes[kind] = plan_less(room, all);
        room -= bytes[kind];
    }
    set_budget(x, i, bytes);
}

/* With attention given out, what is left of a rank's room for the others: by the same fraction, or one after the other in three orders. */
static void budget_rest(const sharing *x, const sizes *z, int i, int way)
{
    static const plan_kind orders[3][3] = {{PLAN_FEED, PLAN_VOCABULARY, PLAN_EXPERTS},
                                           {PLAN_EXPERTS, PLAN_VOCABULARY, PLAN_FEED},
                                           {PLAN_VOCABULARY, PLAN_FEED, PLAN_EXPERTS}};
    double room = x->w->room[i], all = z->all - z->kind[PLAN_ATTENTION];
    for (int turn = 0; turn < 3; turn++) {
        plan_kind kind = orders[way ? way - 1 : 0][turn];
        double bytes = way ? plan_less(room, z->kind[kind])
                           : z->kind[kind] * plan_less(1, room / plan_more(all, 1));
        x->w->budget[kind * x->n + i] = bytes;
        room -= way ? bytes : 0;
    }
}

enum { EVEN_RULES = 3, TURN_RULES = 2 };

static void set_rule(const sharing *x, const sizes *z, int rule)
{
    static const double tilts[EVEN_RULES] = {1, 1.4, 0.6};
    for (int i = 0; i < x->n; i++) {
        if (rule < EVEN_RULES)
            budget_evenly(x, z, i, tilts[rule]);
        else
            budget_in_turn(x, z, i, rule > EVEN_RULES);
    }
}

/* Rooms of the ranks; false when one does not even hold what every rank does. */
static bool set_rooms(const sharing *x, plan_span p)
{
    double fixed = plan_rank_fixed_bytes(x->s, p) + 64; /* rounding */
    for (int i = 0; i < x->n; i++) {
        x->w->room[i] = plan_node_room(x->s, x->nodes[i]) * (1 - 1e-12) - fixed;
        if (x->w->room[i] < 0)
            return false;
    }
    return true;
}

/* ---- so few units that all can be tried ------------------------------------------------------------------------------ */

static double n_ways(int units, int n)
{
    double ways = 1;
    for (int i = 1; i < n; i++)
        ways = ways * (units + i) / i;
    return ways;
}

typedef struct attempt {
    sharing *x;
    double best; /* Σ times · us so far */
    double *room;
    bool found;
} attempt;

static void try_all(attempt *t, int kind, int rank, int at, double done, double us)
{
    sharing *x = t->x;
    while (kind < PLAN_KINDS && !x->terms[kind].total)
        kind++;
    if (kind == PLAN_KINDS) {
        t->best = done;
        t->found = true;
        memcpy(x->w->best, x->w->units, PLAN_KINDS * (size_t)x->n * sizeof(int));
        return;
    }
    const plan_terms *e = &x->terms[kind];
    bool last = rank == x->n - 1;
    for (int end = last ? e->total : at; end <= e->total; end++) {
        double bytes = end == at ? 0
                                 : e->memory_once + (end - at) * e->memory_unit +
                                       plan_kv_heads(e->group, at, end) * e->memory_kv;
        double slowest = fmax(us, rank_us(x, (plan_kind)kind, rank, at, end));
        if (bytes > t->room[rank] || done + e->times * slowest >= t->best)
            break; /* more is larger and slower */
        x->w->units[kind * x->n + rank] = end - at;
        t->room[rank] -= bytes;
        if (last)
            try_all(t, kind + 1, 0, 0, done + e->times * slowest, 0);
        else
            try_all(t, kind, rank + 1, end, done, slowest);
        t->room[rank] += bytes;
    }
    x->w->units[kind * x->n + rank] = 0;
}

static bool few_ways(const sharing *x)
{
    double ways = 1;
    for (int k = 0; k < PLAN_KINDS; k++)
        ways *= x->terms[k].total ? n_ways(x->terms[k].total, x->n) : 1;
    return ways <= (x->w->few ? ALL_WAYS_FEW : ALL_WAYS_MANY);
}

/* ---- a stage -------------------------------------------------------------------------------------------------------- */

static void units_alone(const plan_shape *s, plan_shares *h, plan_span p)
{
    h->whole = false;
    h->units[PLAN_ATTENTION] = s->n_units[PLAN_ATTENTION];
    h->units[PLAN_FEED] = p.n_dense ? s->n_units[PLAN_FEED] : 0;
    h->units[PLAN_EXPERTS] = p.n_expert ? s->n_units[PLAN_EXPERTS] : 0;
    h->units[PLAN_VOCABULARY] = p.first || p.last ? s->n_units[PLAN_VOCABULARY] : 0;
}

static double weighed(const sharing *x, const double us[PLAN_KINDS])
{
    double sum = 0;
    for (int k = 0; k < PLAN_KINDS; k++)
        sum += x->terms[k].total && x->terms[k].times > 0 ? x->terms[k].times * us[k] : 0;
    return sum;
}

/* Units that a rule allows, into x->w->units; their Σ times · us, infinite when it is not below `best`. */
static double share_by_rule(sharing *x, const double free[PLAN_KINDS], double best)
{
    double sum = weighed(x, free);
    memset(x->w->units, 0, PLAN_KINDS * (size_t)x->n * sizeof(int));
    for (int k = PLAN_KINDS - 1; k >= 0; k--) { /* attention, the dearest, last */
        const plan_terms *t = &x->terms[k];
        if (!t->total)
            continue;
        bool counts = t->times > 0 && !x->s->r->shares;
        double most = counts ? (best - sum) / t->times + free[k] : INFINITY;
        double us = least_time(x, (plan_kind)k, x->w->units + k * x->n, most);
        if (isinf(us))
            return INFINITY;
        sum += counts ? t->times * (us - free[k]) : 0;
    }
    return sum;
}

/* Whether the even rule allows these units of endless memory. */
static bool rule_allows(sharing *x, const int *units)
{
    for (int k = 0; k < PLAN_KINDS; k++)
        for (int i = 0, at = 0; x->terms[k].total && i < x->n; i++) {
            int end = at + units[k * x->n + i];
            if (!may_hold(x, (plan_kind)k, i, k == PLAN_ATTENTION ? at : 0,
                          k == PLAN_ATTENTION ? end : end - at, (limit){INFINITY, false}))
                return false;
            at = end;
        }
    return true;
}

static void keep_units(plan_shares *h, const sharing *x, const int *units, bool whole)
{
    h->whole = whole;
    for (int k = 0; k < PLAN_KINDS; k++)
        for (int i = 0; i < x->n; i++)
            h->units[k * x->n + i] = x->terms[k].total ? units[k * x->n + i] : 0;
}

/* ---- attention in every way, the others by rules ----------------------------------------------------------------------- */

typedef struct parting {
    sharing *x;
    plan_shares *h;
    const sizes *z;
    const double *free; /* of every kind */
    bool whole;
    int atom; /* heads that stay together */
    int ways; /* of sharing what is left; each rank its own where there are few ranks */
    double best, need[PLAN_KINDS]; /* need: bytes of each kind; 0: of all but attention */
} parting;

/* How attention falls into parts: heads, K/V groups or several of those, so few that all ways to give them out are some hundreds. */
static int attention_atom(const plan_terms *t, int n)
{
    static const int most[] = {0, 0, 64, 24, 12, 9, 8};
    int group = t->group > 1 ? t->group : 1, atom = 1;
    if (t->total > most[n])
        atom = group;
    while ((t->total + atom - 1) / atom > most[n])
        atom += group;
    return atom;
}

/* Whether each of the other kinds alone would find place in the rooms that are left. */
static bool rest_fits(const sharing *x)
{
    for (int k = 1; k < PLAN_KINDS; k++) {
        double units = 0, each = x->terms[k].memory_unit;
        if (!x->terms[k].total || each <= 0)
            continue;
        for (int i = 0; i < x->n; i++)
            units += floor(x->w->room[i] / each);
        if (units < x->terms[k].total)
            return false;
    }
    return true;
}

/* No shares of the other kinds take less in the rooms that are left: each kind as if it were alone there. */
static double rest_us(const parting *t)
{
    const sharing *x = t->x;
    double sum = 0;
    for (int k = 1; k < PLAN_KINDS; k++)
        if (x->terms[k].total && x->terms[k].times > 0)
            sum += plan_more(x->terms[k].times * t->free[k],
                             flow_in(x->n, t->need[k], x->w->room, x->w->pace + k * x->n));
    return sum * (1 - 1e-12);
}

/* Attention is in x->w->units, and the rooms are what it leaves. `done`: its times · us. */
static void share_rest(parting *t, double done)
{
    sharing *x = t->x;
    if (!rest_fits(x) || done + flow_in(x->n, t->need[0], x->w->room, x->w->pace) >= t->best ||
        done + rest_us(t) >= t->best)
        return;
    for (int way = 0; way < t->ways; way++) {
        double sum = weighed(x, t->free) - x->terms[0].times * t->free[0] + done;
        int each = way - 1; /* a base-three number: the order of each rank */
        for (int i = 0; i < x->n; i++, each /= 3)
            budget_rest(x, t->z, i, way == 0 ? 0 : t->ways <= 4 ? way : each % 3 + 1);
        for (int k = PLAN_KINDS - 1; k >= 1 && sum < t->best; k--) {
            const plan_terms *e = &x->terms[k];
            if (!e->total)
                continue;
            double most = e->times > 0 ? (t->best - sum) / e->times + t->free[k] : INFINITY;
            double us = least_time(x, (plan_kind)k, x->w->units + k * x->n, most);
            sum = isinf(us) ? INFINITY : sum + e->times * (us - t->free[k]);
        }
        if (sum < t->best) {
            t->best = sum;
            keep_units(t->h, x, x->w->units, t->whole);
        }
    }
}

static void part_attention(parting *t, int rank, int at, double us)
{
    sharing *x = t->x;
    const plan_terms *e = &x->terms[PLAN_ATTENTION];
    double others = weighed(x, t->free) - e->times * t->free[0];
    bool last = rank == x->n - 1;
    for (int end = last ? e->total : at; end <= e->total; end = BASE_MIN(end + t->atom, e->total)) {
        double slowest = plan_more(us, rank_us(x, PLAN_ATTENTION, rank, at, end));
        double bytes = end == at ? 0
                                 : e->memory_once + (end - at) * e->memory_unit +
                                       plan_kv_heads(e->group, at, end) * e->memory_kv;
        if (bytes > x->w->room[rank] || e->times * slowest + others >= t->best)
            return; /* more is larger and slower */
        x->w->units[rank] = end - at;
        x->w->room[rank] -= bytes;
        if (last)
            share_rest(t, e->times * slowest);
        else
            part_attention(t, rank + 1, end, slowest);
        x->w->room[rank] += bytes;
        if (end == e->total)
            return;
    }
}

/* Sliced or whole experts under every rule; better than `best` or nothing. */
static double share_under_rules(sharing *x, plan_shares *h, plan_span p, const plan_free *f,
                                bool whole, double best)
{
    sizes z = sizes_of(x);
    double least = weighed(x, f->us[whole]);
    for (int rule = 0; rule < EVEN_RULES + TURN_RULES && least < best * (1 - 1e-12); rule++) {
        set_rule(x, &z, rule);
        double sum = share_by_rule(x, f->us[whole], best);
        if (sum < best) {
            best = sum;
            keep_units(h, x, x->w->units, whole);
            if (x->s->r->shares)
                return best;
        }
    }
    if (x->s->r->shares)
        return best;
    if (x->w->few) {
        int kinds = (p.n_dense > 0) + (p.n_expert > 0) + (p.first || p.last);
        int ways = kinds < 2 ? 1 : x->n == 2 ? 10 : x->n == 3 ? 28 : 4;
        parting t = {x,    h,    &z, f->us[whole], whole, attention_atom(x->terms, x->n),
                     ways, best, {0}};
        paces(x, 1, PLAN_KINDS, &t.need[0], x->w->pace);
        for (int k = 1; k < PLAN_KINDS; k++)
            paces(x, k, k + 1, &t.need[k], x->w->pace + k * x->n);
        memset(x->w->units, 0, PLAN_KINDS * (size_t)x->n * sizeof(int));
        part_attention(&t, 0, 0, 0);
        best = t.best;
    }
    if (few_ways(x)) {
        attempt t = {x, best, x->w->room, false};
        memset(x->w->units, 0, PLAN_KINDS * (size_t)x->n * sizeof(int));
        try_all(&t, 0, 0, 0, 0, 0);
        if (t.found) {
            best = t.best;
            keep_units(h, x, x->w->best, whole);
        }
    }
    return best;
}

plan_cost plan_stage_share(const plan_shape *s, plan_shares *h, plan_span p, plan_load l,
                           plan_link worst, const plan_free *f, plan_scratch *w)
{
    static const plan_cost none = {INFINITY, 0};
    sharing x;
    sizes z;
    if (h->n == 1) {
        units_alone(s, h, p);
        return plan_stage_fits(s, h, p) ? plan_stage_cost(s, h, p, l, worst) : none;
    }
    sharing_of(&x, s, h->nodes, h->n, w);
    if (!set_rooms(&x, p))
        return none;
    x.bounded = true;
    plan_stage_terms(x.terms, s, p, l, f->whole, h->n);
    z = sizes_of(&x);
    set_rule(&x, &z, 0);
    const int *free = f->units + f->whole * PLAN_KINDS * h->n;
    if (rule_allows(&x, free)) { /* nothing can be better */
        keep_units(h, &x, free, p.n_expert > 0 && f->whole);
        return s->r->shares ? plan_stage_cost(s, h, p, l, worst) : plan_free_cost(f, p);
    }
    double best = INFINITY;
    for (int turn = 0; turn <= (p.n_expert > 0); turn++) {
        bool whole = p.n_expert > 0 && (turn ? !f->whole : f->whole);
        plan_stage_terms(x.terms, s, p, l, whole, h->n);
        best = share_under_rules(&x, h, p, f, whole, best);
    }
    return isfinite(best) ? plan_stage_cost(s, h, p, l, worst) : none;
}
