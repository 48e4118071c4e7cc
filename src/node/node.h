/*
 * node: what this machine runs. Makes reality match what is asked for: starts a rank process for a model, loads it, hands requests
 * over, takes events back, restarts a rank that died (with back-off), unloads what is idle or least recently used when memory is short.
 *
 * An instance is a model that is loaded, or being loaded, by this node. Whoever needs one holds a lease; a leased instance stays. The node
 * also keeps what the API side needs of a model: its card, tokenizer and chat templates, read from the file's metadata on a worker
 * thread, never from the weights.
 *
 *   none → READING (card, tokenizer) → STARTING (process) → LOADING (weights) → READY ⇄ (rank dies) BACKING_OFF → STARTING
 * Every model may be cut over several ranks of this machine: one of them leads and is what a rank alone is, the others (its crew) are
 * watched for their ends only. One that ends ends them all.
 *
 *   READY → STOPPING → none     any → FAILED (kept for a while, so that the reason can be told) → none
 *
 * Threads: everything on the loop's thread; callbacks come from there, never from inside a call. Nothing blocks it.
 * Not here: HTTP, dialects, templates' rendering (src/serve); several nodes (src/cluster).
 */
#ifndef SHOAL_NODE_H
#define SHOAL_NODE_H

#include "base/base.h"
#include "chat/chat.h"
#include "engine/engine.h"
#include "engine/ranks.h"
#include "http/http.h"
#include "model/model.h"
#include "text/text.h"

typedef struct node_options {
    const char *program; /* path of the shoal binary, for `rank` */
    const char *isa;     /* NULL = best */
    const char *device;  /* NULL = cpu */
    int n_threads;       /* 0 = all */
    int64_t context;     /* positions a sequence; 0 = the model's, bounded by memory */
    model_kv kv;
    engine_draft draft; /* speculation, of every model that is loaded */
    const char *
        draft_source; /* of a draft model, as store_find gives it; models of other vocabularies go without. NULL = none */
    uint64_t memory_limit;  /* bytes for all ranks; 0 = what is available when a model is loaded */
    uint64_t keep_alive_us; /* idle instances are unloaded after; 0 = 30 min; UINT64_MAX = never */
    int max_sequences, max_waiting; /* as engine_options */
    engine_cut cut;       /* of every model; zeroes = whole. n_threads is of each rank then */
    uint64_t deadline_us; /* of a group's ops, as in engine_place; 0 = by the model */
    uint64_t
        silence_us; /* ranks that load and all say nothing for so long are started anew; 0 = 5 min */
    const char
        *default_model; /* for requests that name none; NULL = the only one loaded, else an error */
} node_options;

/* What a model gets by default when so much memory is free; draft: the model that guesses for it, which keeps as long a state beside it, or NULL; asked: a
 * context, or 0. bounded: the model could do longer ones. */
typedef struct node_room {
    int64_t context;
    uint64_t state_tokens;
    bool bounded;
} node_room;
node_room node_find_room(const model_card *card, const model_card *draft, model_kv kv,
                         int64_t asked, int n_sequences, uint64_t free_bytes);

typedef struct node node;
typedef struct node_instance node_instance;
typedef struct node_lease node_lease;

status node_create(node **out, http_loop *loop, const node_options *o, err *e);
void node_destroy(
    node *n); /* ends all ranks and waits for them; not inside a callback of this node */

typedef enum node_state {
    NODE_READING,
    NODE_STARTING,
    NODE_LOADING,
    NODE_READY,
    NODE_BACKING_OFF,
    NODE_STOPPING,
    NODE_FAILED
} node_state;
const char *node_state_name(node_state s); /* "loading" */

/* ---- leases -------------------------------------------------------------------------------------------------------- */

typedef struct node_listener {
    void (*ready)(void *context); /* once; tokenizer, card and submit may be used from now on */
    void (*progress)(void *context, double share); /* loading, 0–1; may never come */
    /* Instead of ready, or later when the rank died: every request in flight on the lease has already ended with an ENGINE_DONE event
     * of reason ENGINE_ERROR. The lease is still to be released. */
    void (*failed)(void *context, const err *why);
    void (*event)(void *context,
                  const engine_event *event); /* of requests submitted by this lease */
    void *context;
} node_listener;

/* Finds the model by name, starts loading it when it is not loaded, and leases it. NOT_FOUND names what there is. name NULL or "" = the
 * default. The first callback comes from the loop, also when it is ready already. */
status node_acquire(node_lease **out, node *n, const char *name, const node_listener *listener,
                    err *e);
/* Cancels what the lease still has in flight. No callback comes after it. */
void node_release(node_lease *lease);

/* Only between ready and failed. r->id is set by the node; *out_id tells it. A prompt that is too long is refused at once; the engine's
 * own refusals (busy, …) come as an ENGINE_DONE event with ENGINE_ERROR and the status. */
status node_submit(node_lease *lease, const engine_request *r, uint64_t *out_id, err *e);
void node_cancel(node_lease *lease, uint64_t id, int choice);        /* choice −1 = all */
void node_hold(node_lease *lease, uint64_t id, int choice, bool on); /* see engine_hold */

const node_instance *node_lease_instance(const node_lease *lease);

/* ---- what is known of an instance ---------------------------------------------------------------------------------- */

/* Valid from ready on, for as long as the lease is held. */
const char *node_instance_name(const node_instance *i);
const model_card *node_instance_card(const node_instance *i);
const text_tokenizer *node_instance_tokenizer(const node_instance *i);
/* tools: has_tools of chat_template_select. Parsed once, kept. Never NULL: the built-in ChatML when the model has none. */
const chat_template *node_instance_template(const node_instance *i, bool tools);
chat_format node_instance_format(const node_instance *i);
int64_t node_instance_context(const node_instance *i);
const char *node_instance_numerics(const node_instance *i);

typedef struct node_instance_info {
    const char *name, *path, *isa, *numerics;
    node_state state;
    const model_card *card; /* NULL while READING */
    double loaded_share;
    int64_t context;
    model_kv kv;
    uint64_t loaded_unix_us, idle_us, unload_in_us;             /* UINT64_MAX = not */
    uint64_t weight_bytes, state_bytes, scratch_bytes, load_us; /* of all ranks together */
    uint64_t resident_bytes;                                    /* of the leading one */
    int n_ranks;
    int in_flight; /* requests */
    int restarts;
    int pid; /* of the leading rank, 0 when there is none */
    engine_stats stats;
    err why; /* FAILED, BACKING_OFF */
} node_instance_info;

int node_n_instances(const node *n);
void node_instance_describe(
    const node *n, int i,
    node_instance_info *out); /* borrowed strings, for this turn of the loop */

/* Of rank `rank` of instance i; 0: there is none, or it is a thread of the leading one. */
int node_instance_rank_pid(const node *n, int i, int rank);

/* Every model that could be named in a request: visit(name, path, bytes, loaded). Rereads folders at most once a second. */
typedef struct node_model_info {
    const char *name, *source,
        *origin; /* origin: "builtin", "shoal", "huggingface", "ollama", "lmstudio", "path" */
    uint64_t bytes;
    int64_t modified_unix;
} node_model_info;
status node_list_models(node *n, void (*visit)(void *context, const node_model_info *m),
                        void *context, err *e);

/* Asks an idle instance to leave now. CONFLICT when it is in use. */
status node_unload(node *n, const char *name, err *e);

#endif
