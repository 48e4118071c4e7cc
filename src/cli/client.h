/*
 * client: how run, chat, ps and doctor talk to a node: the one of this machine when it is up (node.json in the state folder and an answer
 * at /health), else a private one inside this process (private.c) that ends with it. Everything goes over HTTP, as for any other client.
 *
 * SIGINT and SIGTERM are caught from client_open on: they stop the answer at hand, and client_signals gives the descriptor they arrive on
 * otherwise. Threads: the main thread only.
 */
#ifndef SHOAL_CLI_CLIENT_H
#define SHOAL_CLI_CLIENT_H

#include "cli/cli.h"
#include "store/store.h"

#include <jansson.h>

typedef struct client_node {
    char url[320]; /* "http://localhost:52415" */
    int64_t pid;
} client_node;

/* The running node of this user on this machine; false: none answers. */
bool client_find_node(client_node *out);
/* Does a node of shoal answer there? */
bool client_is_node(const char *url);

typedef struct client client;
/* A node that is up, else a private one; private right away when a flag says how models shall be computed (--isa,
 * --threads, --kv, --draft, --ranks and what belongs to it), which a node that is up has settled. */
status client_open(client **out, const cli *c, err *e);
/* Only one that is up; NOT_FOUND says how to start one. */
status client_open_running(client **out, const cli *c, err *e);
void client_close(client *cl); /* NULL is fine */
bool client_is_private(const client *cl);
int client_signals(const client *cl);

/* What to send for a model as it was typed: paths become absolute, names stay. NOT_FOUND at once where the node could not know better. */
status client_model(const client *cl, char out[STORE_PATH], const char *typed, err *e);

/* GET of a JSON object; the caller frees it. */
status client_get(client *cl, json_t **out, const char *path, err *e);

typedef struct client_events {
    /* A piece of the answer; another status than OK stops it and is returned by client_chat. */
    status (*text)(void *context, str text, bool reasoning, err *e);
    void (*loading)(void *context, int percent);
    void *context;
} client_events;

typedef struct client_answer {
    char finish[24]; /* "stop", "length"; "" when it did not come to an end */
    int n_prompt, n_cached, n_generated;
    uint64_t first_us, whole_us; /* from sending to the first piece, to the end */
    int signal; /* SIGINT or SIGTERM stopped it, and what came before is good; else 0 */
} client_answer;

/* POST of a streamed chat. An answer stopped by a signal is OK. */
status client_chat(client *cl, client_answer *out, const json_t *request,
                   const client_events *events, err *e);

/* A request for client_chat from the options of run and chat; messages is borrowed. INVALID: an option has a wrong value. */
status client_request(json_t **out, const cli *c, const char *model, json_t *messages, err *e);

/* ---- private.c ----------------------------------------------------------------------------------------------------- */

typedef struct private_node private_node;
/* A whole node in this process on a free port of the loopback, with a key of its own; its loop has a thread. */
status private_start(private_node **out, const cli *c, err *e);
void private_stop(private_node *p); /* ends its ranks; NULL is fine */
const char *private_url(const private_node *p);
const char *private_key(const private_node *p);

#endif
