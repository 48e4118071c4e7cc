/* Inside of node: instances, leases, requests. See node.h. */
#ifndef SHOAL_NODE_INTERNAL_H
#define SHOAL_NODE_INTERNAL_H

#include "engine/wire.h"
#include "node/node.h"
#include "os/os.h"

/* One request in flight at a rank. */
typedef struct node_flight {
    uint64_t id;
    node_lease *lease; /* NULL: released, its events are dropped */
    int choices_left;
    uint32_t choices_done; /* bit i: choice i has ended */
    int n_choices;
    struct node_flight *next;
} node_flight;

struct node_lease {
    node_instance *instance;
    node_listener listener;
    bool told_ready, told_failed;
    node_lease *next;
};

/* What the worker thread reads for an instance. Owned by the thread until it posts itself to the loop. */
typedef struct node_reading node_reading;

/* A rank beside the leading one. */
typedef struct node_follower {
    node_instance *of;
    int number; /* in the crew */
    http_watch *watch;
} node_follower;

struct node_instance {
    node *of;
    char *name, *source;
    node_state state;
    /* from the file's metadata */
    model_card *card;
    model_card
        *draft_card; /* of the model that guesses for it; NULL: none, or another vocabulary */
    text_tokenizer *tokenizer;
    chat_template
        *templates[2]; /* without and with tools; the same pointer when there is one for both */
    chat_format format;
    node_reading *reading;
    /* the rank */
    os_child child;
    bool has_child;
    unsigned incarnation; /* counts the processes: frames of an older one are not for the newer */
    http_watch *watch;
    sb incoming, outgoing;
    size_t sent; /* bytes of outgoing already gone */
    bool watching_write;
    wire_ready ready;
    engine_crew *crew; /* NULL: the rank is alone, or its followers are its threads */
    node_follower *followers;
    model_need crew_need; /* of those that are ready */
    node_room room;       /* that all its ranks were told */
    char isa[32], numerics[32];
    double loaded_share;
    uint64_t resident_bytes, loaded_unix_us, last_used_us, retry_at_us, failed_at_us;
    engine_stats stats;
    int restarts, quick_deaths; /* deaths in a row that came soon after the start */
    uint64_t started_us, asked_to_stop_us;
    uint64_t heard_us;          /* when one of its ranks last said something */
    bool unload_asked, by_path; /* by_path: named by a path, no folder of ours */
    err why;
    node_lease *leases;
    node_flight *flights;
    int n_flights;
    node_instance *next;
};

struct node {
    http_loop *loop;
    node_options o;
    char *program, *isa, *device, *default_model, *draft_source;
    node_instance *instances; /* newest first */
    http_timer *tick, *flush;
    uint64_t next_id;
    struct store_index *models; /* as it was at models_at_us; NULL = never looked */
    uint64_t models_at_us;
    int depth; /* our frames on the stack below listeners' callbacks: no instance is freed then but by its own frame */
};

/* instance.c */
status instance_create(node_instance **out, node *n, const char *name, const char *source,
                       bool by_path, err *e);
void instance_destroy(
    node_instance *i); /* out of the list, rank killed, memory freed; no leases may be left */
void instance_tick(node_instance *i, uint64_t now_us);
void instance_failed(node_instance *i,
                     const err *why);        /* tells leases and flights; stays as FAILED */
void instance_wake_leases(node_instance *i); /* ready and failed callbacks that are due */
bool instance_is_idle(const node_instance *i);

/* rank_link.c: the process and its socket */
status rank_start(node_instance *i, err *e);
void rank_stop(node_instance *i); /* asks it to quit */
void rank_kill(node_instance *i); /* ends it now and forgets it */
void rank_send(node_instance *i); /* what is in outgoing, as far as the socket takes it */
void rank_fail_flights(node_instance *i, const err *why);
node_flight *rank_flight(node_instance *i, uint64_t id);
void rank_died(node_instance *i, const char *how);
void rank_refused(node_instance *i, const err *why); /* it, or one of its crew, cannot load */
model_options rank_model_options(const node_instance *i);

/* crew.c: the ranks beside the leading one */
bool crew_is_wanted(const node_instance *i);
engine_team_options crew_options(const node_instance *i);
status crew_start(node_instance *i, err *e); /* and tells the leading rank its place */
void crew_end(node_instance *i);             /* kills them; fine when there are none */

/* reading.c */
status reading_start(node_instance *i, err *e);
void reading_abandon(node_instance *i); /* waits for the thread */

#endif
