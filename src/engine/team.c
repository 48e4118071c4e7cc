/*
 * A team: a leader's model in this process, and its followers: processes (crew.c), or threads of this process over links of memory (loop).
 * Threads load one after another before any of them runs, so that a model that cannot be loaded is an error like any other.
 */
#include "engine/group.h"

#include "os/os.h"

#include <string.h>

enum { LOOP_BYTES = 1 << 20, END_US = 5 * 1000000, PATIENCE_US = 400000 };

/* A follower as a thread. */
typedef struct hand {
    engine_group *group;
    model *m;
    os_thread *thread;
    status result;
    err why;
} hand;

struct engine_team {
    model *m;
    engine_group *group; /* NULL: one rank */
    engine_crew *crew;
    int n_hands;
    hand *hands;
    link_loop *loops[2];
};

/* ---- threads ------------------------------------------------------------------------------------------------------- */

static void run_hand(void *context)
{
    hand *h = context;
    h->result = engine_group_join(h->group, h->m, &h->why);
    if (h->result == STATUS_OK)
        h->result = engine_group_follow(h->group, &h->why);
    if (h->result != STATUS_OK)
        log_debug("engine", "rank %d ended: %s", h->group->place.rank, h->why.text);
}

static status load_hand(hand *h, engine_place *p, const engine_team_options *o, err *e)
{
    file_model *file = NULL;
    model_options mo = o->model;
    status s = o->open(&file, o->source, e);
    if (s == STATUS_OK)
        s = engine_group_create(&h->group, p, file, &mo, e);
    if (s == STATUS_OK)
        s = model_load(&h->m, file, &mo, NULL, e);
    file_close(file);
    return s == STATUS_OK ? group_connect(h->group, h->m, e) : s;
}

static status start_hands(engine_team *t, engine_place *own, const engine_team_options *o, err *e)
{
    int n = engine_cut_ranks(&o->cut);
    group_place(own, o, 0);
    t->hands = base_zalloc((size_t)n, sizeof *t->hands);
    if (!t->hands)
        return err_set(e, STATUS_NO_MEMORY, "no memory for %d ranks", n);
    status s = STATUS_OK;
    for (int i = 0; i < 2 && s == STATUS_OK; i++) {
        s = link_loop_create(&t->loops[i], n, LOOP_BYTES, NULL, e);
        own->loops[i] = t->loops[i];
    }
    for (int i = 1; i < n && s == STATUS_OK; i++) {
        engine_place p = *own;
        p.rank = i;
        s = load_hand(&t->hands[t->n_hands++], &p, o, e);
    }
    return s;
}

static status run_hands(engine_team *t, err *e)
{
    status s = STATUS_OK;
    for (int i = 0; i < t->n_hands && s == STATUS_OK; i++)
        s = os_thread_create(&t->hands[i].thread, run_hand, &t->hands[i], "rank", e);
    return s;
}

/* After the leader's group has ended, one way or the other. Those that the end did not reach are told. */
static void end_hands(engine_team *t, bool orderly)
{
    for (int i = 0; i < t->n_hands; i++) {
        hand *h = &t->hands[i];
        if (h->thread && !orderly)
            link_group_abort(h->group->all, STATUS_CANCELLED, "the leader ended");
        if (h->thread)
            os_thread_join(h->thread);
    }
    for (int i = 0; i < t->n_hands; i++) {
        engine_group_destroy(t->hands[i].group);
        model_destroy(t->hands[i].m);
    }
    base_free(t->hands);
    for (int i = 0; i < 2; i++)
        link_loop_destroy(t->loops[i]);
}

/* ---- the team ------------------------------------------------------------------------------------------------------ */

static status load(engine_team *t, const engine_team_options *o, const model_progress *progress,
                   err *e)
{
    engine_place own = {0};
    file_model *file = NULL;
    model_options mo = o->model;
    bool cut = engine_cut_ranks(&o->cut) > 1;
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
    if (!t)
        return err_set(e, STATUS_NO_MEMORY, "no memory for ranks");
    err why = {0};
    status s = load(t, o, progress, &why);
    if (s == STATUS_OK) {
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
    engine_group_destroy(t->group);
    if (orderly && t->crew)
        wait_for_ends(t->crew);
    engine_crew_destroy(t->crew);
    end_hands(t, orderly);
    model_destroy(t->m);
    base_free(t);
}
