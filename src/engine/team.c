/*
 * A team: a leader's model in this process, and its followers: processes (crew.c), or threads of this process over links of memory (loop).
 * Threads load one after another before any of them runs, so that a model that cannot be loaded is an error like any other. In a change of
 * epochs those that are new load so too, while the old ones load on their own threads as the leader tells them to.
 */
#include "engine/group.h"

#include "os/os.h"

#include <string.h>

enum { LOOP_BYTES = 1 << 20, END_US = 5 * 1000000, PATIENCE_US = 400000 };

/* A follower as a thread: rank number + 1. */
typedef struct hand {
    const engine_team *of;
    engine_group *first; /* of its first epoch: what the leader's thread may look at */
    engine_group *group; /* the thread's while it runs: of its last epoch when it has ended */
    model *m;
    engine_place place;
    engine_place
        next; /* the team's lock guards it: an epoch that came to nothing may still be on its way to us */
    bool moved; /* an epoch after its first has begun */
    os_thread *thread;
    status result;
    err why;
} hand;

/* Links of memory; connections of an epoch that has ended may still be closing, so they stay until the end. */
typedef struct net {
    struct net *before;
    link_loop *loops[2];
} net;

struct engine_team {
    engine_team_options o; /* source is owned */
    char *source;
    model *m;
    engine_group *group; /* NULL: one rank */
    engine_crew *crew;
    int n_hands;
    hand *hands[ENGINE_MOST_RANKS];
    os_mutex *lock; /* hands' next places */
    net *nets;
    /* a change */
    engine_change *change;
    engine_team_options next;
    int hands_before;
};

/* ---- threads ------------------------------------------------------------------------------------------------------- */

static status take_place(void *context, link_epoch epoch, engine_place *place, model_options *o,
                         file_model **file, err *e)
{
    hand *h = context;
    os_mutex_lock(h->of->lock);
    engine_place next = h->next;
    os_mutex_unlock(h->of->lock);
    if (next.epoch.number != epoch.number)
        return err_set(e, STATUS_CONFLICT, "epoch %u, this rank knows of %u", epoch.number,
                       next.epoch.number);
    status s = h->of->o.open(file, h->of->source, e);
    if (s != STATUS_OK) {
        group_refuse(&next);
        return s;
    }
    *place = next;
    *o = h->of->o.model;
    return STATUS_OK;
}

static void run_hand(void *context)
{
    hand *h = context;
    const engine_taker taker = {take_place, h};
    h->result = engine_group_join(h->group, h->m, &h->why);
    if (h->result == STATUS_OK)
        h->result = engine_group_follow(&h->group, &h->m, &taker, &h->why);
    if (h->result != STATUS_OK)
        log_debug("engine", "rank %d ended: %s", h->place.rank, h->why.text);
}

static status load_hand(hand *h, const engine_team_options *o, err *e)
{
    file_model *file = NULL;
    model_options mo = o->model;
    engine_place p = h->place;
    status s = o->open(&file, o->source, e);
    if (s == STATUS_OK)
        s = engine_group_create(&h->group, &p, file, &mo, e);
    if (s == STATUS_OK)
        s = model_load(&h->m, file, &mo, NULL, e);
    file_close(file);
    return s == STATUS_OK ? group_connect(h->group, h->m, e) : s;
}

/* Places in a new net: the leader's own, those of the hands that are there already, and new hands for the rest, loaded. */
static status start_hands(engine_team *t, engine_place *own, const engine_team_options *o, err *e)
{
    int n = engine_cut_ranks(&o->cut);
    if (n > ENGINE_MOST_RANKS)
        return err_set(e, STATUS_INVALID, "a cut into %d x %d ranks: there are %d at most",
                       o->cut.n_stages, o->cut.n_tensor, ENGINE_MOST_RANKS);
    net *links = base_zalloc(1, sizeof *links);
    if (!links)
        return err_set(e, STATUS_NO_MEMORY, "no memory for %d ranks", n);
    links->before = t->nets;
    t->nets = links;
    group_place(own, o, 0);
    status s = STATUS_OK;
    for (int i = 0; i < 2 && s == STATUS_OK; i++) {
        s = link_loop_create(&links->loops[i], n, LOOP_BYTES, NULL, e);
        own->loops[i] = links->loops[i];
    }
    for (int i = 0; i + 1 < n && s == STATUS_OK; i++) {
        bool there = i < t->n_hands;
        hand *h = there ? t->hands[i] : base_zalloc(1, sizeof *h);
        if (!h)
            return err_set(e, STATUS_NO_MEMORY, "no memory for %d ranks", n);
        engine_place place = *own;
        place.rank = i + 1;
        if (there) {
            os_mutex_lock(t->lock);
            h->next = place;
            os_mutex_unlock(t->lock);
            continue;
        }
        h->place = place;
        h->of = t;
        t->hands[t->n_hands++] = h;
        s = load_hand(h, o, e);
    }
    return s;
}

/* Those that do not run yet. */
static status run_hands(engine_team *t, err *e)
{
    status s = STATUS_OK;
    for (int i = 0; i < t->n_hands && s == STATUS_OK; i++)
        if (!t->hands[i]->thread) {
            t->hands[i]->first = t->hands[i]->group;
            s = os_thread_create(&t->hands[i]->thread, run_hand, t->hands[i], "rank", e);
        }
    return s;
}

/* Hands from number `first` on end, after the leader's group has, one way or the other. Those that its end did not reach are told; who has gone
 * into another epoch had a leader that stood. */
static void end_hands(engine_team *t, int first, bool orderly)
{
    for (int i = first; i < t->n_hands; i++) {
        hand *h = t->hands[i];
        if (h->thread && !orderly && !h->moved)
            link_group_abort(h->first->all, STATUS_CANCELLED, "the leader ended");
    }
    for (int i = first; i < t->n_hands; i++)
        if (t->hands[i]->thread)
            os_thread_join(t->hands[i]->thread);
    for (int i = first; i < t->n_hands; i++) {
        engine_group_destroy(t->hands[i]->group);
        model_destroy(t->hands[i]->m);
        base_free(t->hands[i]);
    }
    t->n_hands = BASE_MIN(t->n_hands, first);
}

/* ---- the team ------------------------------------------------------------------------------------------------------ */

static status load(engine_team *t, const engine_team_options *o, const model_progress *progress,
                   err *e)
{
    engine_place own = {0};
    file_model *file = NULL;
    model_options mo = o->model;
    bool cut = engine_cut_ranks(&o->cut) > 1;
    mo.pace = engine_cut_pace(&o->cut, 0);
    status s = o->open(&file, o->source, e);
    if (s == STATUS_OK && cut) {
        s = o->cut.link == ENGINE_LINK_LOOP ? start_hands(t, &own, o, e)
                                            : engine_crew_start(&t->crew, &own, o, e);
        if (s == STATUS_OK)
            s = engine_group_create(&t->group, &own, file, &mo, e);
    }
    if (s == STATUS_OK)
        s = model_load(&t->m, file, &mo, progress, e);
    file_close(file);
    if (s == STATUS_OK && cut)
        s = run_hands(t, e);
    if (s == STATUS_OK && cut)
        s = engine_group_join(t->group, t->m, e);
    return s;
}

status engine_team_load(engine_team **out, const engine_team_options *o,
                        const model_progress *progress, err *e)
{
    engine_team *t = base_zalloc(1, sizeof *t);
    if (!t || !(t->source = base_strdup(o->source))) {
        base_free(t);
        return err_set(e, STATUS_NO_MEMORY, "no memory for ranks");
    }
    t->o = *o;
    t->o.source = t->source;
    err why = {0};
    status s = os_mutex_create(&t->lock, &why);
    if (s == STATUS_OK)
        s = load(t, o, progress, &why);
    if (s == STATUS_OK) {
        t->o.model.device = model_get_options(t->m)->device; /* for as long as we live */
        t->o.model.isa = model_get_options(t->m)->isa;
        *out = t;
        return s;
    }
    engine_team_why(t, &why);
    if (e)
        *e = why;
    engine_team_destroy(t);
    return why.code;
}

model *engine_team_model(const engine_team *t)
{
    return t->m;
}

int engine_team_pid(const engine_team *t, int follower)
{
    return t->crew && follower < engine_crew_size(t->crew) ? engine_crew_pid(t->crew, follower) : 0;
}

void engine_team_why(engine_team *t, err *e)
{
    bool of_group = e->code == STATUS_CLOSED || e->code == STATUS_TIMEOUT ||
                    e->code == STATUS_CANCELLED || e->code == STATUS_CORRUPT;
    if (t->crew && of_group)
        engine_crew_why(t->crew, PATIENCE_US, e);
}

/* ---- a change ------------------------------------------------------------------------------------------------------ */

/* The ranks of the old epoch that the new one has not, or the other way round, end. */
static void settle(engine_team *t, bool changed)
{
    int n = changed ? engine_cut_ranks(&t->next.cut) - 1 : t->hands_before;
    if (t->crew)
        engine_crew_settle(t->crew, changed);
    for (int i = 0; changed && i < BASE_MIN(n, t->n_hands); i++)
        t->hands[i]->moved |= i < t->hands_before;
    end_hands(t, n, changed);
    t->change = NULL;
}

status engine_team_prepare(engine_team *t, engine *g, const engine_cut *cut, bool paused, err *e)
{
    engine_place own = {0};
    file_model *file = NULL;
    int n = engine_cut_ranks(cut);
    bool threads = cut->link == ENGINE_LINK_LOOP;
    if (t->change)
        return err_set(e, STATUS_BUSY, "the ranks are changing already");
    if (n > 1 && (threads ? t->crew != NULL : t->n_hands > 0))
        return err_set(e, STATUS_INVALID, "ranks that are threads cannot become processes");
    t->next = t->o;
    t->next.cut = *cut;
    t->next.epoch.number++;
    t->o.epoch.number++; /* never twice, also when it comes to nothing */
    t->hands_before = t->n_hands;
    status s = STATUS_OK;
    if (n > 1 && threads)
        s = start_hands(t, &own, &t->next, e);
    else if (n > 1 || t->crew)
        s = engine_crew_prepare(&t->crew, &own, &t->next, e);
    if (s == STATUS_OK)
        s = t->o.open(&file, t->source, e);
    if (s == STATUS_OK && paused)
        engine_leave(g);
    if (s == STATUS_OK)
        s = engine_change_begin(&t->change, t->group, t->m, n > 1 ? &own : NULL, file, &t->o.model,
                                paused, e);
    else
        engine_place_close(&own);
    if (s == STATUS_OK)
        s = run_hands(t, e);
    if (s != STATUS_OK) {
        engine_change_cancel(t->change, NULL);
        settle(t, false);
    }
    return s;
}

status engine_team_work(engine_team *t, engine *g, bool *over, err *e)
{
    status s = engine_change_work(t->change, g, over, e);
    if (s != STATUS_OK) {
        engine_team_cancel(t, g);
        return s;
    }
    if (!*over)
        return s;
    engine_change_commit(t->change, &t->group, &t->m);
    t->o.cut = t->next.cut;
    settle(t, true);
    return s;
}

void engine_team_cancel(engine_team *t, engine *g)
{
    if (!t->change)
        return;
    engine_change_cancel(t->change, g);
    settle(t, false);
}

/* Followers that were told to end get a moment for it. */
static void wait_for_ends(engine_crew *c)
{
    uint64_t until = os_now_us() + END_US;
    for (int i = 0; i < engine_crew_size(c); i++)
        while (engine_crew_hear(c, i, NULL) == STATUS_OK && os_now_us() < until)
            os_sleep_us(1000);
}

void engine_team_destroy(engine_team *t)
{
    if (!t)
        return;
    bool orderly = t->group && t->group->all && link_group_ready(t->group->all) &&
                   !engine_group_failed(t->group);
    engine_team_cancel(t, NULL);
    engine_group_destroy(t->group);
    if (orderly && t->crew)
        wait_for_ends(t->crew);
    engine_crew_destroy(t->crew);
    end_hands(t, 0, orderly);
    for (net *n = t->nets, *before; n; n = before) {
        before = n->before;
        link_loop_destroy(n->loops[0]);
        link_loop_destroy(n->loops[1]);
        base_free(n);
    }
    model_destroy(t->m);
    os_mutex_destroy(t->lock);
    base_free(t->source);
    base_free(t);
}
