/*
 * ranks: one model over several ranks. A cut says how many there are and what each holds; every rank has a place in it, a shard of the
 * weights and links to the others; rank 0 leads.
 *
 *   cut    stages × tensor ranks, uneven shares; rank = stage · n_tensor + place in the stage
 *   place  who a rank is and how it reaches the others: descriptors of shared memory or of TCP sockets, or the loop of this process
 *   group  a rank's place made real: the model's exchange (model.h) over link groups. The leader announces every step in one broadcast
 *          (tokens, positions, pages, copies of state, what to sample); all ranks run their graphs; tokens or rows of logits come back to the leader
 *   crew   the ranks beside the first, as processes or as threads, started and watched by whoever owns the first
 *   team   crew, group and model of a leader in this very process, with one call
 *
 * Where there are several stages several steps may be under way, each on a stage of its own (model_step_start): the leader announces them one behind another
 * and every rank does them in that order.
 *
 * To its caller a leader's model is an ordinary model: model_step and model_copy_state make all ranks do the same, model_step gives whole
 * rows of logits, or answers to what was asked about them. Followers keep no sequences: pages and slots are numbered by the leader, and pools are equally long everywhere.
 *
 * Errors: whatever fails anywhere (a dead or silent peer, a bad frame, a step) ends the whole group; every rank returns an error by the
 * deadline of its op at the latest. A group that failed stays so: its ranks end and whoever started them starts them anew.
 * Threads: a group and its model belong to one thread; a crew to the thread that started it.
 * Not here: which node a rank lives on, when it is started again (src/node), how bytes travel (src/link), which weights are cut where
 * (src/model).
 */
#ifndef SHOAL_ENGINE_RANKS_H
#define SHOAL_ENGINE_RANKS_H

#include "engine/engine.h"
#include "link/link.h"
#include "model/model.h"

/* ---- cuts ---------------------------------------------------------------------------------------------------------- */

enum { ENGINE_MOST_RANKS = LINK_MAX_RANKS };

typedef enum engine_link {
    ENGINE_LINK_SHM,  /* processes of one machine */
    ENGINE_LINK_TLS,  /* processes anywhere */
    ENGINE_LINK_LOOP, /* threads of one process */
    ENGINE_LINKS
} engine_link;
const char *engine_link_name(engine_link l); /* "shm" */
bool engine_link_find(engine_link *out, const char *name);

typedef struct engine_cut {
    int n_stages, n_tensor; /* of every stage; zeroes = 1 */
    engine_link link;
    int n_shares; /* 0 = equal ones, else one of every rank: of a stage its sum counts */
    float shares[ENGINE_MOST_RANKS]; /* > 0 or 0, not all 0 in a stage */
    int n_paces; /* 0 = all as fast as they can, else of every rank the share of its time that it works, above 0 and up to 1 (model_options) */
    float paces[ENGINE_MOST_RANKS];
    float link_latency_us, link_gbit; /* links are made worse (link_shape_open); 0 = as they are */
} engine_cut;

/* Of a cut into too many, whatever it holds: more than ENGINE_MOST_RANKS. */
int engine_cut_ranks(const engine_cut *c);
/* Latency up to 10 s, no cap or one of at least 1 Mbit/s. */
bool engine_link_shape_fits(const engine_cut *c);
bool engine_cut_paces_fit(const engine_cut *c); /* each above 0 and up to 1 */
float engine_cut_pace(const engine_cut *c, int rank);
/* What every rank holds: borders are the nearest that may be. out: [engine_cut_ranks]. INVALID: more stages than layers, bad shares. */
status engine_cut_shards(model_shard *out, const engine_cut *c, const model_cut_units *u, err *e);

/* ---- places -------------------------------------------------------------------------------------------------------- */

enum { ENGINE_MOST_HANDLES = 4 * ENGINE_MOST_RANKS };

typedef struct engine_place {
    engine_cut cut;
    int rank;
    link_epoch epoch;
    unsigned char secret[32]; /* of the group: key of its TLS links */
    uint64_t deadline_us;     /* of an op; 0 = by the model's size */
    int n_handles; /* descriptors, owned: for every way to a peer one (tls) or two (shm) */
    int handles[ENGINE_MOST_HANDLES];
    link_loop *loops[2]; /* loop: of all ranks, of the stage; borrowed */
} engine_place;

int engine_place_handles(const engine_cut *c); /* how many a rank has */
void engine_place_close(engine_place *p);      /* the descriptors that are left */

/* ---- groups -------------------------------------------------------------------------------------------------------- */

typedef struct engine_group engine_group;

/* Before the model is loaded: checks the place, fills shard and exchange of o, and n_threads where it is 0. NO_MEMORY from the leader: all
 * ranks together are over o's limit. Takes the place's descriptors, also on error. */
status engine_group_create(engine_group **out, engine_place *place, const file_model *f,
                           model_options *o, err *e);
/* After it was loaded: shakes hands with all others. CONFLICT: the protocol, numerics, model or plan of a peer is another. m is borrowed
 * for as long as the group lives. */
status engine_group_join(engine_group *g, model *m, err *e);

/* Where a follower gets its place in the next epoch, when the leader announces one. */
typedef struct engine_taker {
    /* The place, the model's options (as for engine_group_create) and its file, which the follower closes. Waits as long as that is sensible. */
    status (*take)(void *context, link_epoch epoch, engine_place *place, model_options *o,
                   file_model **file, err *e);
    void *context;
} engine_taker;
/* A follower's life: does what the leader announces, also from one epoch into the next: *g and *m are those of the newest that it is in, owned by the
 * caller. OK: the leader ended it in order. taker NULL: it stays in its first epoch. */
status engine_group_follow(engine_group **g, model **m, const engine_taker *taker, err *e);
bool engine_group_failed(const engine_group *g);
/* For a leader that lives between steps (none under way: engine_land), whenever it has a moment: when nothing was said for `every`, tells the others that
 * it is there, and hears that they are. From the first time on they miss it: a rank that is stopped ends the group after `lost`, whoever it is. TIMEOUT,
 * CLOSED: one of them has gone. Time in which all were stopped counts for nobody. */
typedef struct engine_beats {
    uint64_t every_us, lost_us;
} engine_beats;
engine_beats engine_group_beats(const engine_group *g);
status engine_group_beat(engine_group *g, err *e);
/* The leader tells the others to end. NULL is fine. */
void engine_group_destroy(engine_group *g);

/*
 * Rows are sampled where they lie, slice by slice (sample.h), when that is asked for before a step of the leader's model starts; then only rows
 * that are asked for as a whole come to the leader. Without a question all do.
 */
engine_group *engine_group_of(const model *m); /* that m leads; NULL: there is no other rank */
void engine_group_ask_begin(
    engine_group *g); /* of the next step; what was asked before is forgotten */
/* Row `row` of the step's outputs, as w says: the number of the answer. −1: that is too much, and the row comes as a whole. */
int engine_group_ask(engine_group *g, int row, const sample_want *w);
void engine_group_ask_whole(engine_group *g, int row);
/* Of the step that model_step_finish gave last: as sample_next. */
status engine_group_answer(const engine_group *g, int number, sample_result *out, err *e);

/* ---- from one epoch to the next ------------------------------------------------------------------------------------- */

/*
 * The leader's side of a change of cut: prepare (all ranks load what they miss beside the running epoch, a slice between two steps; links are made),
 * switch (the engine moves its sequences), release (the old group ends, tiles that nobody uses go). Ranks keep their numbers; the leader is
 * rank 0 of both. Ranks that are new load by themselves, those that are left out end with the old group.
 */
typedef struct engine_change engine_change;

/* old: NULL when m is not cut. place: of rank 0, taken, also on error; NULL when the next epoch is not cut. file is taken too. o: as m was
 * loaded. paused: m's weights are given up on the way (model_load_begin): nothing but engine_change_* may use m then, and an error is the end.
 * On error nothing else has changed. */
status engine_change_begin(engine_change **out, engine_group *old, model *m, engine_place *place,
                           file_model *file, const model_options *o, bool paused, err *e);
/* Between two steps of g: goes on with it. *over: engine_change_commit comes next. Not OK: engine_change_cancel comes next; and where
 * engine_group_failed(old), or it was paused, the end of the ranks. */
status engine_change_work(engine_change *c, engine *g, bool *over, err *e);
/* The new group (NULL: not cut) and model are the caller's instead of the old ones, which end. Frees c. */
void engine_change_commit(engine_change *c, engine_group **group, model **m);
/* The old ones go on. Frees c. NULL is fine. g NULL: no engine has switched. */
void engine_change_cancel(engine_change *c, engine *g);

/* ---- the others ---------------------------------------------------------------------------------------------------- */

typedef struct engine_team_options {
    engine_cut cut;
    const char *source;
    model_options
        model; /* of every rank; shard and exchange are ours. n_threads 0: an equal part of the usable cores */
    link_epoch epoch;
    uint64_t deadline_us; /* as in a place */
    const char *program;  /* for processes: the shoal binary */
    status (*open)(file_model **out, const char *source, err *e);
} engine_team_options;

/* The followers, as processes: started, with their places and loads sent. */
typedef struct engine_crew engine_crew;
/* own: the place of rank 0, whose descriptors are the caller's from here on. */
status engine_crew_start(engine_crew **out, engine_place *own, const engine_team_options *o,
                         err *e);
void engine_crew_destroy(engine_crew *c); /* kills; NULL is fine */
int engine_crew_size(const engine_crew *c);
int engine_crew_fd(const engine_crew *c, int i); /* readable: engine_crew_hear */
int engine_crew_pid(const engine_crew *c, int i);
/* Takes what follower i has said; never blocks. Not OK: it failed or died, e says who, how and why. */
status engine_crew_hear(engine_crew *c, int i, err *e);
/* After something failed: the best reason that a follower gives within that time replaces e; else e stays. */
void engine_crew_why(engine_crew *c, uint64_t patience_us, err *e);
/* Of the followers that are ready: how many, and what they hold together. */
int engine_crew_ready(const engine_crew *c, model_need *together);
/* For the next epoch: a place to every follower that stays, and new ones started (*c NULL: all are). Those that are left out end with the old group,
 * and are not missed when they do. own: of rank 0, as above. Afterwards, or on error: settle. */
status engine_crew_prepare(engine_crew **c, engine_place *own, const engine_team_options *o,
                           err *e);
void engine_crew_settle(engine_crew *c, bool changed); /* ends those that are in one epoch only */
/* Sends a rank its place, before LOAD, through its control socket. */
status engine_place_send(int fd, const engine_place *p, err *e);

/* A leader here, and its followers; with a cut into one just a model. */
typedef struct engine_team engine_team;
status engine_team_load(engine_team **out, const engine_team_options *o,
                        const model_progress *progress, err *e);
model *engine_team_model(const engine_team *t);
/* A change to another cut, of the same kind of link: as engine_change_*, ranks started and ended as it takes. After prepare, work between any two
 * steps of g until *over; not OK: it has been given up, and the old epoch goes on (but where paused, or where it failed itself). engine_team_model is
 * another one afterwards. */
status engine_team_prepare(engine_team *t, engine *g, const engine_cut *cut, bool paused, err *e);
status engine_team_work(engine_team *t, engine *g, bool *over, err *e);
void engine_team_cancel(engine_team *t, engine *g); /* fine when there is none */
/* Why a step failed: replaces e where a follower says more. */
void engine_team_why(engine_team *t, err *e);
int engine_team_pid(const engine_team *t, int follower); /* 0: a thread, or none */
void engine_team_destroy(engine_team *t);                /* ends the followers; NULL is fine */

#endif
