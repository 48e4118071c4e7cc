/*
 * engine: many requests on one loaded model. Sequence state, prefix reuse, continuous batching, sampling; and the rank process that
 * carries an engine behind a control socket.
 *
 *   submit → waiting → (longest cached prefix) → prompt chunks → one token a step → done
 *
 * Every step mixes one token of each sequence that is decoding with chunks of prompts that are being read, so that a long prompt
 * never stalls the others. When state runs out, cached prefixes go first (least recently used), then the youngest sequence gives up its
 * pages and is read again later: by the numerics contract it continues with exactly the tokens it would have had.
 *
 * State is typed by class (model.h): paged, windowed (freed behind the window), latent, constant-size. engine_state_* is the one interface to
 * all of them. A full page is found again by a hash chain over (numerics, model, KV type, token ids); constant-size state is kept
 * in snapshots at page borders, and cutting a sequence back restores the newest one before the cut and replays the rest.
 *
 * Speculation: guesses of what comes next, by lookup in the sequence's own past or from a draft model, ride behind its newest token through
 * the step; one stands when it equals the token that the sampler chooses there, so the output is the same with and without, sampled or
 * greedy. How many are checked follows from their measured acceptance and the measured time of steps. What was not guessed right leaves
 * no trace: its positions are not committed; constant-size state goes back to a snapshot and reads the right ones again.
 *
 * Threads: an engine, its state and its model belong to one thread. engine_rank_run makes its own threads. Nothing on the path of a token
 * allocates but the growth of a sequence's own lists.
 * Not here: tokenizing, templates, stop strings (src/serve), processes and their restarts (src/node), several ranks (src/link).
 */
#ifndef SHOAL_ENGINE_H
#define SHOAL_ENGINE_H

#include "base/base.h"
#include "model/model.h"
#include "sample/sample.h"

/* ---- requests and events ------------------------------------------------------------------------------------------- */

enum { ENGINE_TOP_LOGPROBS = 20, ENGINE_CHOICES = 32 };

typedef struct engine_request {
    uint64_t id; /* the caller's, unique among live ones */
    const int32_t *prompt;
    int n_prompt;   /* ≥ 1 */
    int n_choices;  /* 0 = 1; they share the prompt's state */
    int max_tokens; /* a choice; 0 = as many as the context has room for */
    int n_end;      /* tokens that end a choice, itself not emitted */
    const int32_t *end;
    sample_options sample; /* seed, temperature, penalties, bias …; borrowed arrays are copied */
    int top_logprobs;      /* −1 = none; 0 = the chosen token's only; ≤ ENGINE_TOP_LOGPROBS */
    bool no_reuse;         /* neither read nor keep cached prefixes: benchmarks */
    const char *
        grammar; /* the form of the answer (sample.h); NULL = free. The model needs a vocabulary. */
    int n_shown;
    const int32_t *shown; /* special tokens that are text in it */
    bool
        score_prompt; /* with top_logprobs ≥ 0: the prompt's own log-probabilities, before the first token */
    bool prompt_only; /* nothing is generated; ends with ENGINE_LENGTH */
    bool
        embed; /* the vector of the prompt is wanted; of embedding models only that can be asked for */
} engine_request;

typedef enum engine_reason {
    ENGINE_STOPPED, /* an end token */
    ENGINE_LENGTH,  /* max_tokens, or the context is full */
    ENGINE_CANCELLED,
    ENGINE_ERROR /* status and text in the event */
} engine_reason;

typedef enum engine_event_kind {
    ENGINE_STARTED, /* the prompt is being read: n_prompt and n_cached are known; once a request */
    ENGINE_TOKEN,
    ENGINE_DONE,   /* of one choice */
    ENGINE_VECTOR, /* of an embedding request, before its DONE */
    ENGINE_PROMPT /* score_prompt: a token of the prompt, from index 1 on; once a request, as choice 0 */
} engine_event_kind;

typedef struct engine_event {
    engine_event_kind kind;
    uint64_t id;
    int choice;
    int index; /* TOKEN: of the token in its choice, from 0; DONE: tokens emitted */
    int32_t token;
    float logprob; /* TOKEN with top_logprobs ≥ 0; natural, of the raw distribution */
    int n_top;
    struct engine_top {
        int32_t token;
        float logprob;
    } top[ENGINE_TOP_LOGPROBS];
    engine_reason reason;      /* DONE */
    int n_prompt, n_cached;    /* STARTED, DONE */
    int n_drafted, n_accepted; /* DONE: guesses that were checked, and that stood */
    status code;               /* DONE with ENGINE_ERROR */
    char text[ERR_TEXT];
    int n_vector; /* VECTOR: pooled, of length 1; [n_vector] f32, little-endian, unaligned, for the time of the call */
    const void *vector;
} engine_event;

typedef void (*engine_sink)(void *context, const engine_event *event);

/* ---- the engine ---------------------------------------------------------------------------------------------------- */

typedef enum engine_draft {
    ENGINE_DRAFT_NONE,
    ENGINE_DRAFT_LOOKUP, /* n-grams of the sequence's prompt and output */
    ENGINE_DRAFT_MODEL
} engine_draft;

/* Rows of logits that a model should be loaded with beside one a sequence, so that there is room for guesses. */
enum { ENGINE_DRAFT_ROWS = 24 };

typedef struct engine_options {
    int max_sequences; /* live choices; 0 = 32, at most what the model was loaded for */
    int max_waiting;   /* requests not yet begun; more are BUSY; 0 = 256 */
    int chunk; /* prompt tokens a step while others decode; 0 = 128. Alone: the model's max_tokens */
    int cache_slots; /* snapshots of constant-size state kept; the rest of the pool is for live sequences */
    bool no_cache; /* keep no prefixes */
    engine_draft draft;
    model *
        draft_model; /* borrowed until destroy; loaded with a context and sequences like the model's own */
    bool draft_always; /* check every guess, whatever it costs: tests */
} engine_options;

typedef struct engine engine;

/* m is borrowed until destroy. INVALID: the draft model has another vocabulary (says where they differ). */
status engine_create(engine **out, model *m, const engine_options *o, engine_sink sink,
                     void *context, err *e);
void engine_destroy(engine *g);
/* Whether guesses of one may be tokens of the other, before anything is loaded. INVALID names both and says where they differ. */
status engine_draft_check(const model_card *draft_card, const model_card *target, err *e);

/* Copies the request. TOO_LONG: prompt and one token do not fit the context (says by how many); BUSY: the queue is full; INVALID: an
 * id outside the vocabulary, a bad option. */
status engine_submit(engine *g, const engine_request *r, err *e);
/* A choice whose reader is slow takes no part in steps while it is held; its state may be given up for others. */
void engine_hold(engine *g, uint64_t id, int choice, bool on);
/* All choices, or one (choice ≥ 0), end with ENGINE_CANCELLED before the next step. Unknown ids are ignored. */
void engine_cancel(engine *g, uint64_t id, int choice);
/* One step of the model; on a pipeline several are under way, and a call starts the next one, or waits for the oldest, or both. *busy = there is more to
 * do. An error ends the requests that were in the batch, and what else was under way with it, each with an event. */
status engine_step(engine *g, bool *busy, err *e);
/* All steps that are under way are finished and none begins: for who makes no step for a while. Not OK: as of engine_step. */
status engine_land(engine *g, err *e);

/* Epochs: the same model, cut differently. From here on a step is one of m and one of `next`: sequences that decode are read again there in
 * chunks, while their tokens go on here, and each moves when it has caught up; whoever has no state, or is still being read, begins there. Tokens are
 * the same as ever. When it is over m is no longer used. INVALID: other weights, numerics or limits of a step. */
status engine_switch(engine *g, model *next, err *e); /* next is borrowed from here on */
bool engine_is_switching(const engine *g);
/* OK, or why a step of the new epoch failed: then all are back in the old one. */
status engine_switch_result(const engine *g, err *e);
void engine_switch_cancel(engine *g); /* likewise; next is no longer used */
/* The same where memory has room for one epoch only: everybody gives up state, and m is no longer used; until enter no step is made. */
void engine_leave(engine *g);
status engine_enter(engine *g, model *next, err *e);

/* In which pieces a prompt of which n tokens are left is best read when there is nothing else to do: the stages of a pipeline wait for the first piece and
 * for the last one. most: of any step. */
int engine_prompt_piece(const model *m, int64_t n, int most);

typedef struct engine_stats {
    uint64_t steps, prompt_tokens, cached_tokens, generated_tokens, preemptions, step_us;
    uint64_t drafted_tokens, accepted_tokens; /* guesses that were checked, and that stood */
    int waiting, live, decoding;
    int flights,
        most_flights; /* steps that are under way, and were at most: in a pipeline more than one */
    uint64_t state_tokens, state_used_tokens, cached_prefix_tokens; /* of the paged class */
} engine_stats;
void engine_get_stats(const engine *g, engine_stats *out);

/* ---- sequence state (also for tests) ------------------------------------------------------------------------------- */

/* The pools of all classes and the cached prefixes. */
typedef struct engine_pool engine_pool;
typedef struct engine_state engine_state; /* of one sequence */

/* salt: what a page's content depends on besides token ids: (numerics, model hash, KV type). cache_slots: see engine_options. */
status engine_pool_create(engine_pool **out, model *m, uint64_t salt, int cache_slots, err *e);
void engine_pool_destroy(engine_pool *p);

status engine_state_create(engine_state **out, engine_pool *p, err *e); /* empty, length 0 */
void engine_state_drop(engine_state *s); /* gives everything back, frees s; NULL is fine */
int64_t engine_state_length(const engine_state *s); /* positions computed */

/* Starts an empty sequence from the longest cached prefix of ids[n], at most n − 1 positions. Returns its length. */
int64_t engine_state_reuse(engine_state *s, const int32_t *ids, int64_t n);
/* Makes room for n more positions that the next step will write; pages shared with others are copied first. NO_MEMORY: nothing happened.
 * Not all of them need to be committed: what is left over is used, or given back, by the next extend. */
status engine_state_extend(engine_state *s, int64_t n, err *e);
/* The step has computed ids[n] at the positions that extend made room for: full pages enter the cache (keep), pages behind a window are
 * freed, snapshots are taken at page borders. */
status engine_state_commit(engine_state *s, const int32_t *ids, int64_t n, bool keep, err *e);
/* How many positions may be computed in one go from here: up to the next border where a snapshot of constant-size state is due; else a lot. */
int64_t engine_state_run_limit(const engine_state *s);
/* A second sequence with the same past. */
status engine_state_fork(engine_state **out, engine_state *s, err *e);
/* Cuts back to at most `length` positions: to *length_now ≤ length, from where the caller replays (constant-size state has only snapshots;
 * a window's pages may be gone). */
status engine_state_truncate(engine_state *s, int64_t length, int64_t *length_now, err *e);
/* Remembers constant-size state as it is now, so that truncate can come back to exactly here; BUSY when there is no slot for it. Nothing
 * to do for the other kinds. The sequence keeps its newest snapshot only. */
status engine_state_snapshot(engine_state *s, err *e);
/* Constant-size state as it was at the snapshot, which must be of the current length: the step went further than what is committed. */
status engine_state_restore(engine_state *s, err *e);
bool engine_pool_has_constant(const engine_pool *p);
/* Fills the state's part of a run of n tokens at the current length. */
void engine_state_run(const engine_state *s, int n, model_run *run);
/* Bytes that a sequence of so many positions takes, over all classes. */
uint64_t engine_pool_bytes(const engine_pool *p, int64_t positions);
/* Would this many more positions find room for a sequence of this length, evicting only cached prefixes? */
bool engine_pool_has_room(const engine_pool *p, const engine_state *s, int64_t more);
void engine_pool_usage(const engine_pool *p, uint64_t *total_pages, uint64_t *free_pages,
                       uint64_t *cached_pages);
void engine_pool_forget_all(engine_pool *p); /* drops every cached prefix */

/* ---- the rank process ---------------------------------------------------------------------------------------------- */

/* Frames on the control socket and what they carry: messages.def, wire.h. */

typedef struct engine_rank_options {
    int fd; /* of the control socket */
    /* Opens the model that LOAD names; freed with file_close unless it is NULL after the call. */
    status (*open)(file_model **out, const char *source, err *e);
} engine_rank_options;

/* The whole life of `shoal rank`: waits for LOAD, loads, serves until QUIT or until the socket closes. Returns the exit code. */
int engine_rank_run(const engine_rank_options *o);

#endif
