/*
 * What the tests of models over ranks share: the cuts they try, and teams of ranks that are this same test program.
 */
#ifndef TEAM_RIG_H
#define TEAM_RIG_H

#include "node_rig.h"

typedef struct team_cut {
    const char *name;
    engine_cut cut;
} team_cut;

enum {
    CUT_WHOLE,
    CUT_TP2,
    CUT_TP3_UNEVEN,
    CUT_TP3_OTHER,
    CUT_PP2,
    CUT_TP4,
    CUT_GRID_UNEVEN,
    CUTS_TO_CHANGE, /* those before are also changed into each other */
    CUT_TP8 = CUTS_TO_CHANGE,
    CUT_TP2_NOTHING,
    CUT_TP2_PACED,
    CUT_PP3_UNEVEN,
    CUT_GRID
};

static const team_cut team_cuts[] = {
    [CUT_WHOLE] = {"whole", {.n_stages = 1, .n_tensor = 1}},
    [CUT_TP2] = {"tp2", {.n_stages = 1, .n_tensor = 2}},
    [CUT_TP3_UNEVEN] = {"tp3, 5:2:1",
                        {.n_stages = 1, .n_tensor = 3, .n_shares = 3, .shares = {5, 2, 1}}},
    [CUT_TP3_OTHER] = {"tp3, 1:1:2",
                       {.n_stages = 1, .n_tensor = 3, .n_shares = 3, .shares = {1, 1, 2}}},
    [CUT_PP2] = {"pp2", {.n_stages = 2, .n_tensor = 1}},
    [CUT_TP4] = {"tp4", {.n_stages = 1, .n_tensor = 4}},
    [CUT_GRID_UNEVEN] = {"pp2 x tp2, uneven",
                         {.n_stages = 2, .n_tensor = 2, .n_shares = 4, .shares = {2, 1, 1, 3}}},
    [CUT_TP8] = {"tp8, more ranks than units", {.n_stages = 1, .n_tensor = 8}},
    [CUT_TP2_NOTHING] = {"tp2, one with nothing",
                         {.n_stages = 1, .n_tensor = 2, .n_shares = 2, .shares = {0, 1}}},
    [CUT_TP2_PACED] = {"tp2, one half as quick",
                       {.n_stages = 1, .n_tensor = 2, .n_paces = 2, .paces = {1, 0.5f}}},
    [CUT_PP3_UNEVEN] = {"pp3 uneven",
                        {.n_stages = 3, .n_tensor = 1, .n_shares = 3, .shares = {2, 1, 1}}},
    [CUT_GRID] = {"pp2 x tp2", {.n_stages = 2, .n_tensor = 2}},
};

static inline engine_cut team_cut_over(int number, engine_link link)
{
    engine_cut c = team_cuts[number].cut;
    c.link = link;
    return c;
}

/* What a team of this program is loaded by; who wants more says it. */
static inline engine_team_options team_options(const char *source, engine_cut cut)
{
    return (engine_team_options){.cut = cut,
                                 .source = source,
                                 .epoch = {1, 7, 0},
                                 .program = rig_program(),
                                 .open = store_open,
                                 .model = {.n_threads = 1, .context = 512, .state_tokens = 2048}};
}

static inline engine_team *team_load(const engine_team_options *o)
{
    engine_team *t;
    err e = {0};
    must(engine_team_load(&t, o, NULL, &e), &e);
    return t;
}

/* A team and its engine: chunks are short, so that prompts take several steps. */
static inline void team_talk(engine_team **t, engine **g, engine_team_options o, int n_sequences,
                             engine_draft draft, engine_sink sink, void *context)
{
    engine_options eo = {.max_sequences = n_sequences,
                         .chunk = 24,
                         .cache_slots = 4,
                         .draft = draft,
                         .draft_always = true};
    err e = {0};
    o.model.n_sequences = n_sequences;
    o.model.max_tokens = 64;
    o.model.max_outputs = n_sequences + (draft ? ENGINE_DRAFT_ROWS : 0);
    *t = team_load(&o);
    must(engine_create(g, engine_team_model(*t), &eo, sink, context, &e), &e);
}

#endif
