/*
 * From one epoch to the next, on both sides. The leader drives: it announces on the old group that an epoch is being prepared, then, between two
 * steps each, that everybody loads a slice of it; when its links stand, every announcement of the new group is preceded by a TURN on the old one, so that a
 * follower of both always knows which of them to listen to. The old group's END is the release.
 *
 * Whatever goes wrong with the next epoch ends the next epoch only, as long as nothing was given up for it (paused).
 * Deliberately not: where places come from (crew.c, team.c, rank.c), which sequences move when (switch.c).
 */
#include "engine/group.h"
#include "os/os.h"

#include <string.h>

enum { LOAD_BYTES = 8 << 20, IDLE_US = 500, PREPARE_WORDS = 6 };

/* ---- a follower ---------------------------------------------------------------------------------------------------- */

typedef struct follower {
    engine_group *g, *next;
    model *m, *next_m; /* next_m NULL: still being loaded */
    model_loading *loading;
    file_model *file;
    bool paused; /* m's weights are being given up */
    const engine_taker *taker;
} follower;

static void drop_next(follower *f)
{
    model_load_cancel(f->loading);
    file_close(f->file);
    if (f->next && !f->next->all) {
        engine_place place = f->next->place;
        f->next->place.n_handles = 0;
        group_refuse(&place);
    }
    engine_group_destroy(f->next);
    model_destroy(f->next_m);
    f->next = NULL;
    f->next_m = NULL;
    f->loading = NULL;
    f->file = NULL;
}

static status prepare(follower *f, err *e)
{
    const int32_t *w = f->g->words + GROUP_HEAD;
    if (f->g->words[0] != GROUP_HEAD + PREPARE_WORDS)
        return err_set(e, STATUS_CORRUPT, "an epoch announced in %d words", (int)f->g->words[0]);
    link_epoch epoch = {(uint32_t)w[0], (uint32_t)w[1],
                        (uint64_t)(uint32_t)w[2] | (uint64_t)(uint32_t)w[3] << 32};
    f->paused = w[4] != 0;
    if (f->g->place.rank >= w[5] || !f->taker)
        return STATUS_OK; /* not for us: the old group's end will be ours */
    engine_place place = {0};
    model_options o = {0};
    status s = f->taker->take(f->taker->context, epoch, &place, &o, &f->file, e);
    if (s == STATUS_OK)
        s = engine_group_create(&f->next, &place, f->file, &o, e);
    if (s == STATUS_OK)
        s = model_load_begin(&f->loading, f->file, &o, f->m, f->paused, e);
    return s;
}

static void drive(engine_group *g)
{
    (void)link_group_progress(g->all);
    if (g->in_stage && g->in_stage != g->all)
        (void)link_group_progress(g->in_stage);
}

/* A slice of the load; links when it is complete. */
static status load_slice(model_loading **l, model **m, file_model **file, engine_group *next,
                         err *e)
{
    bool done;
    status s = model_load_more(*l, LOAD_BYTES, &done, e);
    if (s != STATUS_OK || !done)
        return s;
    s = model_load_end(m, *l, e);
    *l = NULL;
    file_close(*file);
    *file = NULL;
    return s == STATUS_OK && next ? group_connect(next, *m, e) : s;
}

/* One announcement of the next epoch. */
static status take_turn(follower *f, err *e)
{
    f->next->patience_us = f->g->patience_us; /* whoever beats here beats there */
    status s = group_hear(f->next, e);
    if (s == STATUS_OK && f->next->words[1] == GROUP_STEP)
        return group_do_step(f->next, e);
    if (s == STATUS_OK && f->next->words[1] == GROUP_END)
        drop_next(f);
    return s;
}

static void adopt(follower *f)
{
    f->next->patience_us = f->g->patience_us;
    engine_group_destroy(f->g);
    model_destroy(f->m);
    f->g = f->next;
    f->m = f->next_m;
    f->next = NULL;
    f->next_m = NULL;
    f->paused = false;
}

/* What concerns the next epoch. Its failure is not ours, unless we gave something up for it. */
static status about_next(follower *f, int kind, err *e)
{
    status s = STATUS_OK;
    if (kind == GROUP_PREPARE) {
        drop_next(f);
        s = prepare(f, e);
    } else if (kind == GROUP_CANCEL) {
        drop_next(f);
    } else if (kind == GROUP_TURN && f->next_m) {
        s = take_turn(f, e);
    } else if (kind == GROUP_SLICE && f->next) {
        if (f->loading)
            s = load_slice(&f->loading, &f->next_m, &f->file, f->next, e);
        if (s == STATUS_OK && f->next->all)
            drive(f->next);
    }
    if (s == STATUS_OK)
        return s;
    log_warn("engine", "rank %d: the next epoch failed: %s", f->g->place.rank, e->text);
    if (f->next && f->next->all)
        group_broken(f->next, s, e->text);
    drop_next(f);
    return f->paused ? s : STATUS_OK;
}

static status follow_one(follower *f, bool *ended, err *e)
{
    status s = group_hear(f->g, e);
    if (s != STATUS_OK)
        return s;
    int kind = (int)f->g->words[1];
    switch (kind) {
    case GROUP_STEP:
        return f->paused ? err_set(e, STATUS_CORRUPT, "a step of an epoch that was given up")
                         : group_do_step(f->g, e);
    case GROUP_END:
        *ended = !f->next_m;
        if (f->next_m)
            adopt(f);
        return STATUS_OK;
    case GROUP_BEAT:
        return group_answer_beat(f->g, e);
    case GROUP_PREPARE:
    case GROUP_SLICE:
    case GROUP_TURN:
    case GROUP_CANCEL:
        return about_next(f, kind, e);
    default:
        return err_set(e, STATUS_CORRUPT, "an announcement of kind %d", kind);
    }
}

status engine_group_follow(engine_group **g, model **m, const engine_taker *taker, err *e)
{
    follower f = {.g = *g, .m = *m, .taker = taker};
    bool ended = false;
    err why = {0};
    status s = STATUS_OK;
    while (s == STATUS_OK && !ended)
        s = follow_one(&f, &ended, &why);
    drop_next(&f);
    *g = f.g;
    *m = f.m;
    if (s == STATUS_OK)
        return s;
    if (e)
        *e = why;
    return group_broken(f.g, s, why.text);
}

/* ---- the leader ---------------------------------------------------------------------------------------------------- */

struct engine_change {
    engine_group *old, *next;
    model *from, *m; /* m NULL: still being loaded */
    model_loading *loading;
    file_model *file;
    bool paused, ready;
};

static status announce_epoch(engine_group *old, const engine_group *next, bool paused, err *e)
{
    link_epoch epoch = next ? next->place.epoch : old->place.epoch;
    const int32_t words[PREPARE_WORDS] = {(int32_t)epoch.term,
                                          (int32_t)epoch.number,
                                          (int32_t)(uint32_t)epoch.node,
                                          (int32_t)(uint32_t)(epoch.node >> 32),
                                          paused,
                                          next ? next->n_ranks : 1};
    return group_announce(old, GROUP_PREPARE, words, PREPARE_WORDS, e);
}

/* Ends what was made of the next epoch, without a word to the old one. */
static void end_next(engine_change *c)
{
    model_load_cancel(c->loading);
    file_close(c->file);
    if (c->next) {
        c->next->older = NULL;
        if (c->next->all)
            group_broken(c->next, STATUS_CANCELLED, "the epoch was given up");
    }
    engine_group_destroy(c->next);
    model_destroy(c->m);
    base_free(c);
}

status engine_change_begin(engine_change **out, engine_group *old, model *m, engine_place *place,
                           file_model *file, const model_options *o, bool paused, err *e)
{
    model_options mo = *o;
    mo.shard = (model_shard){0};
    mo.exchange = (model_exchange){0};
    engine_change *c = base_zalloc(1, sizeof *c);
    if (!c) {
        if (place)
            engine_place_close(place);
        file_close(file);
        return err_set(e, STATUS_NO_MEMORY, "no memory for an epoch");
    }
    *c = (engine_change){.old = old, .from = m, .file = file, .paused = paused};
    status s = STATUS_OK;
    if (place)
        s = engine_group_create(&c->next, place, file, &mo, e);
    if (s == STATUS_OK)
        s = model_load_begin(&c->loading, file, &mo, m, paused, e);
    if (s == STATUS_OK && old)
        s = announce_epoch(old, c->next, paused, e);
    if (s == STATUS_OK)
        *out = c;
    else
        end_next(c);
    return s;
}

static bool links_stand(const engine_group *g)
{
    return !g ||
           (g->all && link_group_ready(g->all) && (!g->in_stage || link_group_ready(g->in_stage)));
}

static status load_and_link(engine_change *c, err *e)
{
    status s = c->old ? group_announce(c->old, GROUP_SLICE, NULL, 0, e) : STATUS_OK;
    if (s == STATUS_OK && c->loading)
        s = load_slice(&c->loading, &c->m, &c->file, c->next, e);
    if (s != STATUS_OK || !c->m || !c->next)
        return s;
    drive(c->next);
    s = link_group_status(c->next->all, e);
    if (s == STATUS_OK && c->next->in_stage)
        s = link_group_status(c->next->in_stage, e);
    return s;
}

status engine_change_work(engine_change *c, engine *g, bool *over, err *e)
{
    *over = false;
    if (c->ready) {
        *over = !engine_is_switching(g);
        return *over ? engine_switch_result(g, e) : STATUS_OK;
    }
    status s = load_and_link(c, e);
    if (s != STATUS_OK)
        return s;
    c->ready = c->m && links_stand(c->next);
    if (!c->ready) {
        if (!c->loading)
            os_sleep_us(IDLE_US); /* others still load */
        return STATUS_OK;
    }
    if (c->next)
        c->next->older = c->old;
    *over = c->paused;
    return c->paused ? engine_enter(g, c->m, e) : engine_switch(g, c->m, e);
}

void engine_change_commit(engine_change *c, engine_group **group, model **m)
{
    if (c->next)
        c->next->older = NULL;
    engine_group_destroy(c->old); /* says END to its followers */
    model_destroy(c->from);
    *group = c->next;
    *m = c->m;
    base_free(c);
}

void engine_change_cancel(engine_change *c, engine *g)
{
    if (!c)
        return;
    engine_group *old = c->old;
    if (g)
        engine_switch_cancel(g);
    end_next(c);
    if (old && !old->failed)
        (void)group_announce(old, GROUP_CANCEL, NULL, 0, NULL);
}
