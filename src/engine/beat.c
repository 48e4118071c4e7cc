/*
 * Signs of life between steps. A leader without work says BEAT now and then; every follower answers with a word, and expects from then on that something is
 * said at least that often. So whoever is stopped is noticed by somebody: a follower by the leader, who misses its answer, the leader by its
 * followers. A leader that never beats (one that measures or prints between steps) is waited for as long as it lives.
 *
 * Deliberately not: beats inside a step, where every op has its deadline anyhow; threads of the group's own.
 */
#include "engine/group.h"
#include "os/os.h"

enum { EVERY_US = 1000000, LOST_US = 10000000, BEATS_TO_MISS = 5 };

engine_beats engine_group_beats(const engine_group *g)
{
    uint64_t lost = g->place.deadline_us ? g->place.deadline_us : LOST_US;
    return (engine_beats){BASE_MIN(lost / BEATS_TO_MISS, (uint64_t)EVERY_US),
                          lost * GROUP_SLOWNESS};
}

/* Half as patient as the followers, who hear nothing meanwhile: so it is the stopped one that is named. */
static status hear_answers(engine_group *g, uint64_t lost_us, err *e)
{
    for (int r = 1; r < g->n_ranks; r++) {
        link_op *op;
        int32_t word;
        status s = link_recv_start(&op, g->all, r, 0, &word, sizeof word, e);
        if (s != STATUS_OK)
            return s;
        link_op_allow(op, lost_us / 2);
        s = link_op_wait(op, e);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

status engine_group_beat(engine_group *g, err *e)
{
    engine_beats beats = engine_group_beats(g);
    if (g->failed)
        return group_why(g, e);
    if (g->n_flights > 0 || os_now_us() - g->said_us < beats.every_us)
        return STATUS_OK;
    int32_t patience_ms = (int32_t)BASE_MIN(BASE_MAX(beats.lost_us / 1000, 1), INT32_MAX);
    status s = group_announce(g, GROUP_BEAT, &patience_ms, 1, e);
    if (s == STATUS_OK)
        s = hear_answers(g, beats.lost_us, e);
    g->failed |= s != STATUS_OK;
    return s;
}

status group_answer_beat(engine_group *g, err *e)
{
    int32_t patience_ms = g->words[GROUP_HEAD];
    const int32_t word = 0;
    if (g->words[0] != GROUP_HEAD + 1 || patience_ms <= 0)
        return err_set(e, STATUS_CORRUPT, "a beat of %d words, the next in %d ms", (int)g->words[0],
                       (int)patience_ms);
    g->patience_us = (uint64_t)patience_ms * 1000;
    return link_send(g->all, 0, 0, &word, sizeof word, e);
}
