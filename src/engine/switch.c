/*
 * Sequences from one epoch to the next: those that decode go on on the old side while a twin of their state is read in chunks on the new one, and move when
 * it has caught up; all others begin anew there. Or, where memory is short, all give up their state between two epochs (engine_leave, engine_enter).
 * Not here: where the next epoch's model comes from (epochs.c), what a step is (engine.c).
 */
#include "engine/inside.h"

#include <string.h>

/* Room for n positions of q's twin: cached prefixes give way, then the youngest other twin, which begins again. Where not even that helps, and
 * nobody is there to make room later, q moves like one that was preempted. */
static bool make_room_for_twin(engine *g, sequence *q, int64_t n)
{
    while (engine_state_extend(q->twin, n, NULL) != STATUS_OK) {
        sequence *victim = NULL;
        bool others = !is_alone(g, q);
        for (sequence *other = g->sequences; other; other = other->next) {
            others |= other != q && other->twin;
            if (other->twin && other->n_run == 0 && other->age > q->age)
                victim = other;
        }
        if (victim) {
            engine_state_drop(victim->twin);
            victim->twin = NULL;
            continue;
        }
        if (!others)
            engine_give_up_state(g, q);
        return false;
    }
    return true;
}

static bool begin_twin(engine *g, sequence *q)
{
    if (engine_state_create(&q->twin, g->at[1].pool, NULL) != STATUS_OK)
        return false;
    if (reuses(g, q))
        engine_state_reuse(q->twin, q->tokens, engine_state_length(q->state) + 1);
    return true;
}

void engine_plan_twins(engine *g, flight *f, int *budget)
{
    for (sequence *q = g->sequences; q && *budget > 0 && f->n_runs < g->o.max_sequences;
         q = q->next) {
        if (!q->state || q->side == 1 || (!q->twin && !begin_twin(g, q)))
            continue;
        int64_t length = engine_state_length(q->twin),
                n = BASE_MIN(engine_state_length(q->state) - length, (int64_t)*budget);
        n = BASE_MIN(n, engine_state_run_limit(q->twin));
        if (n <= 0 || !make_room_for_twin(g, q, n))
            continue;
        memcpy(f->ids + f->n_tokens, q->tokens + length, sizeof(int32_t) * (size_t)n);
        engine_state_run(q->twin, (int)n, &f->runs[f->n_runs]);
        f->run_of[f->n_runs++] = q;
        f->n_tokens += (int)n;
        q->n_run = (int)n;
        *budget -= (int)n;
    }
}

void engine_move_sequences(engine *g)
{
    bool left = false;
    for (sequence *q = g->sequences; q; q = q->next) {
        if (!q->state || q->side == 1)
            continue;
        if (q->twin && engine_state_length(q->twin) == engine_state_length(q->state)) {
            engine_state_drop(q->state);
            q->state = q->twin;
            q->twin = NULL;
            q->side = 1;
        }
        left |= q->side == 0;
    }
    if (left)
        return;
    engine_pool_destroy(g->at[0].pool);
    g->at[0] = g->at[1];
    g->at[1] = (side){0};
    for (sequence *q = g->sequences; q; q = q->next)
        q->side = 0;
}

static status check_epoch(const engine *g, const model *m, err *e)
{
    const model_options *a = model_get_options(g->at[0].m), *b = model_get_options(m);
    if (engine_pool_salt(g->at[0].m) != engine_pool_salt(m) || a->context != b->context ||
        a->max_tokens != b->max_tokens || a->max_outputs != b->max_outputs ||
        a->n_sequences != b->n_sequences || g->o.max_sequences > b->n_sequences)
        return err_set(e, STATUS_INVALID,
                       "engine: an epoch of another model, or loaded for other steps");
    return g->at[1].m ? err_set(e, STATUS_BUSY, "engine: it is changing epochs already")
                      : STATUS_OK;
}

status engine_switch(engine *g, model *next, err *e)
{
    status s = check_epoch(g, next, e);
    if (s == STATUS_OK)
        s = engine_land(g, e);
    if (s == STATUS_OK)
        s = engine_make_flights(g, next, e);
    if (s == STATUS_OK)
        s = engine_pool_create(&g->at[1].pool, next, engine_pool_salt(next), g->o.cache_slots, e);
    if (s != STATUS_OK)
        return s;
    g->at[1].m = next;
    g->switch_failed = STATUS_OK;
    for (sequence *q = g->sequences; q; q = q->next)
        if (q->state && pending(q) != 1) /* it is being read anyhow */
            engine_give_up_state(g, q);
    engine_move_sequences(g);
    return STATUS_OK;
}

bool engine_is_switching(const engine *g)
{
    return g->at[1].m != NULL;
}

status engine_switch_result(const engine *g, err *e)
{
    if (g->switch_failed != STATUS_OK && e)
        *e = g->switch_error;
    return g->switch_failed;
}

void engine_switch_cancel(engine *g)
{
    if (!g->at[1].m)
        return;
    for (sequence *q = g->sequences; q; q = q->next) {
        if (q->state && q->side == 1)
            engine_give_up_state(g, q);
        engine_state_drop(q->twin);
        q->twin = NULL;
        q->side = 0;
    }
    engine_pool_destroy(g->at[1].pool);
    g->at[1] = (side){0};
    g->now = 0;
}

void engine_leave(engine *g)
{
    REQUIRE(!g->at[1].m);
    (void)engine_land(g, NULL); /* what became of it, its sequences were told */
    for (sequence *q = g->sequences; q; q = q->next)
        if (q->state)
            engine_give_up_state(g, q);
    engine_pool_destroy(g->at[0].pool);
    g->at[0].pool = NULL;
}

status engine_enter(engine *g, model *next, err *e)
{
    REQUIRE(!g->at[0].pool);
    status s = engine_make_flights(g, next, e);
    if (s == STATUS_OK)
        s = engine_pool_create(&g->at[0].pool, next, engine_pool_salt(next), g->o.cache_slots, e);
    if (s == STATUS_OK)
        g->at[0].m = next;
    return s;
}
