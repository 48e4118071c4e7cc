/*
 * The node: its list of instances, leases on them, and what can be told about them. Names become sources through the store; two names
 * of the same source share an instance.
 */
#include "node/node.h"
#include "node/node_internal.h"
#include "store/store.h"

#include <stdio.h>
#include <string.h>

enum { TICK_US = 100000, MODELS_US = 1000000, DEFAULT_KEEP_ALIVE_S = 30 * 60 };

static const char *const state_names[] = {"reading",     "starting", "loading", "ready",
                                          "backing off", "stopping", "failed"};

const char *node_state_name(node_state s)
{
    return (unsigned)s < BASE_COUNT(state_names) ? state_names[s] : "unknown";
}

/* ---- creation ------------------------------------------------------------------------------------------------------ */

static void on_tick(void *context)
{
    node *n = context;
    uint64_t now = os_now_us();
    n->depth++;
    for (node_instance *i = n->instances, *next; i; i = next) {
        next = i->next;
        instance_tick(i, now);
    }
    n->depth--;
}

static void on_flush(void *context)
{
    node *n = context;
    n->depth++;
    for (node_instance *i = n->instances, *next; i; i = next) {
        next = i->next;
        instance_wake_leases(i);
    }
    n->depth--;
}

static bool copy_string(char **out, const char *s)
{
    *out = s ? base_strdup(s) : NULL;
    return *out || !s;
}

status node_create(node **out, http_loop *loop, const node_options *o, err *e)
{
    node *n = base_zalloc(1, sizeof *n);
    if (!n)
        return err_set(e, STATUS_NO_MEMORY, "node: no memory");
    n->loop = loop;
    n->o = *o;
    n->next_id = 1;
    if (n->o.keep_alive_us == 0)
        n->o.keep_alive_us = DEFAULT_KEEP_ALIVE_S * (uint64_t)1000000;
    status s = STATUS_OK;
    if (!copy_string(&n->program, o->program) || !copy_string(&n->isa, o->isa) ||
        !copy_string(&n->device, o->device) || !copy_string(&n->default_model, o->default_model) ||
        !copy_string(&n->draft_source, o->draft_source))
        s = err_set(e, STATUS_NO_MEMORY, "node: no memory");
    if (s == STATUS_OK)
        s = http_timer_create(&n->tick, loop, on_tick, n, e);
    if (s == STATUS_OK)
        s = http_timer_create(&n->flush, loop, on_flush, n, e);
    if (s != STATUS_OK) {
        node_destroy(n);
        return s;
    }
    http_timer_repeat(n->tick, TICK_US);
    *out = n;
    return STATUS_OK;
}

void node_destroy(node *n)
{
    if (!n)
        return;
    while (n->instances) {
        while (n->instances->leases)
            node_release(n->instances->leases);
        instance_destroy(n->instances);
    }
    http_timer_destroy(n->tick);
    http_timer_destroy(n->flush);
    store_index_destroy(n->models);
    base_free(n->program);
    base_free(n->isa);
    base_free(n->device);
    base_free(n->draft_source);
    base_free(n->default_model);
    base_free(n);
}

/* ---- leases -------------------------------------------------------------------------------------------------------- */

static node_instance *find_instance(node *n, const char *source)
{
    for (node_instance *i = n->instances; i; i = i->next)
        if (!strcmp(i->source, source))
            return i;
    return NULL;
}

static node_instance *find_named(node *n, const char *name)
{
    for (node_instance *i = n->instances; i; i = i->next)
        if (!strcmp(i->name, name))
            return i;
    return NULL;
}

static status default_name(const char **out, const node *n, err *e)
{
    if (n->default_model) {
        *out = n->default_model;
        return STATUS_OK;
    }
    if (n->instances && !n->instances->next) {
        *out = n->instances->name;
        return STATUS_OK;
    }
    return err_set(e, STATUS_INVALID, "the request names no model, and %s",
                   n->instances ? "several are loaded" : "none is loaded");
}

/* The folders are looked into at most once a second, whatever clients ask for. */
static status look_at_models(node *n, err *e)
{
    uint64_t now = os_now_us();
    if (n->models && now - n->models_at_us < MODELS_US)
        return STATUS_OK;
    store_index *fresh;
    status s = store_index_create(&fresh, e);
    if (s != STATUS_OK)
        return s;
    store_index_destroy(n->models);
    n->models = fresh;
    n->models_at_us = now;
    return STATUS_OK;
}

static status find_source(node *n, char *source, const char **origin, const char *name, err *e)
{
    status s = look_at_models(n, e);
    return s == STATUS_OK ? store_index_find(n->models, source, origin, name, e) : s;
}

/* An instance that failed is tried anew by the next who asks. */
static status find_or_start(node_instance **out, node *n, const char *name, err *e)
{
    char source[STORE_PATH];
    bool by_path;
    node_instance *i = find_named(n, name); /* spares the folders a look at every request */
    if (!i) {
        const char *origin;
        status s = find_source(n, source, &origin, name, e);
        if (s != STATUS_OK)
            return s;
        by_path = !strcmp(origin, "path");
        i = find_instance(n, source);
    } else {
        snprintf(source, sizeof source, "%s", i->source);
        by_path = i->by_path;
    }
    if (i && i->state == NODE_FAILED && !i->leases) {
        /* Under a callback instance_tick does it later; the new one stands before it in the list. */
        if (n->depth == 0)
            instance_destroy(i);
        i = NULL;
    }
    if (i) {
        *out = i;
        return STATUS_OK;
    }
    return instance_create(out, n, name, source, by_path, e);
}

status node_acquire(node_lease **out, node *n, const char *name, const node_listener *listener,
                    err *e)
{
    node_instance *i;
    status s = STATUS_OK;
    if (!name || !*name)
        s = default_name(&name, n, e);
    if (s == STATUS_OK)
        s = find_or_start(&i, n, name, e);
    if (s != STATUS_OK)
        return s;
    node_lease *l = base_zalloc(1, sizeof *l);
    if (!l)
        return err_set(e, STATUS_NO_MEMORY, "node: no memory for a lease");
    l->instance = i;
    l->listener = *listener;
    node_lease **at = &i->leases; /* first come, first told */
    while (*at)
        at = &(*at)->next;
    *at = l;
    if (i->state == NODE_READY || i->state == NODE_FAILED)
        http_timer_once(n->flush, 0);
    *out = l;
    return STATUS_OK;
}

void node_release(node_lease *lease)
{
    node_instance *i = lease->instance;
    for (node_flight *f = i->flights; f; f = f->next) {
        if (f->lease != lease)
            continue;
        f->lease = NULL;
        if (i->has_child)
            wire_put_cancel(&i->outgoing, f->id, -1);
    }
    rank_send(i);
    node_lease **at = &i->leases;
    while (*at != lease)
        at = &(*at)->next;
    *at = lease->next;
    i->last_used_us = os_now_us();
    base_free(lease);
}

status node_submit(node_lease *lease, const engine_request *r, uint64_t *out_id, err *e)
{
    node_instance *i = lease->instance;
    REQUIRE(lease->told_ready);
    if (i->state != NODE_READY || lease->told_failed)
        return err_set(e, STATUS_LOADING, "%s is not ready: %s", i->name,
                       node_state_name(i->state));
    int n_choices = r->n_choices ? r->n_choices : 1;
    if (n_choices < 1 || n_choices > ENGINE_CHOICES)
        return err_set(e, STATUS_INVALID, "%d choices: expected 1 to %d", n_choices,
                       ENGINE_CHOICES);
    if (r->n_prompt >=
        i->ready.context + r->embed) /* not even sent: a message has its limit, too */
        return err_set(
            e, STATUS_TOO_LONG,
            "the prompt has %d tokens, %lld too many: the context of %lld needs room for one more",
            r->n_prompt, (long long)(r->n_prompt - i->ready.context + 1),
            (long long)i->ready.context);
    node_flight *f = base_zalloc(1, sizeof *f);
    if (!f)
        return err_set(e, STATUS_NO_MEMORY, "node: no memory for a request");
    engine_request request = *r;
    request.id = i->of->next_id++;
    wire_put_submit(&i->outgoing, &request);
    if (i->outgoing.failed) {
        base_free(f);
        rank_died(i, "there was no memory for a message to it");
        return err_set(e, STATUS_NO_MEMORY, "node: no memory for a request");
    }
    *f = (node_flight){.id = request.id,
                       .lease = lease,
                       .choices_left = n_choices,
                       .n_choices = n_choices,
                       .next = i->flights};
    i->flights = f;
    i->n_flights++;
    i->last_used_us = os_now_us();
    *out_id = request.id;
    rank_send(i);
    return STATUS_OK;
}

void node_cancel(node_lease *lease, uint64_t id, int choice)
{
    node_instance *i = lease->instance;
    if (!i->has_child || !rank_flight(i, id))
        return;
    wire_put_cancel(&i->outgoing, id, choice);
    rank_send(i);
}

void node_hold(node_lease *lease, uint64_t id, int choice, bool on)
{
    node_instance *i = lease->instance;
    if (!i->has_child || !rank_flight(i, id))
        return;
    wire_put_hold(&i->outgoing, id, choice, on);
    rank_send(i);
}

const node_instance *node_lease_instance(const node_lease *lease)
{
    return lease->instance;
}

/* ---- what is known ------------------------------------------------------------------------------------------------- */

const char *node_instance_name(const node_instance *i)
{
    return i->name;
}

const model_card *node_instance_card(const node_instance *i)
{
    return i->card;
}

const text_tokenizer *node_instance_tokenizer(const node_instance *i)
{
    return i->tokenizer;
}

chat_format node_instance_format(const node_instance *i)
{
    return i->format;
}

int64_t node_instance_context(const node_instance *i)
{
    return i->ready.context;
}

const char *node_instance_numerics(const node_instance *i)
{
    return i->numerics;
}

static chat_template *parse_chatml(void)
{
    chat_template *t = NULL;
    str source = chat_template_chatml();
    status s = chat_template_parse(&t, source.data, source.length, NULL);
    REQUIRE(s == STATUS_OK);
    return t;
}

const chat_template *node_instance_template(const node_instance *instance, bool tools)
{
    node_instance *i =
        (node_instance *)instance; /* the parsed template is kept, nothing else changes */
    if (i->templates[tools])
        return i->templates[tools];
    chat_named_template named[MODEL_TEMPLATES];
    const model_card *card = i->card;
    for (int k = 0; k < card->n_templates; k++)
        named[k] = (chat_named_template){str_from(card->templates[k].name),
                                         str_from(card->templates[k].source)};
    str source;
    bool fallback = false;
    err e;
    chat_template *t = NULL;
    status s =
        chat_template_select(&source, &fallback, named, (size_t)card->n_templates, NULL, tools, &e);
    if (s == STATUS_OK)
        s = chat_template_parse(&t, source.data, source.length, &e);
    if (s != STATUS_OK) {
        log_warn("node", "%s: its chat template cannot be used, ChatML is: %s", i->name, e.text);
        t = parse_chatml();
    } else if (fallback) {
        log_info("node", "%s has no chat template: ChatML is used", i->name);
    }
    i->templates[tools] = t;
    return t;
}

int node_n_instances(const node *n)
{
    int count = 0;
    for (const node_instance *i = n->instances; i; i = i->next)
        count++;
    return count;
}

void node_instance_describe(const node *n, int index, node_instance_info *out)
{
    const node_instance *i = n->instances;
    while (index-- > 0)
        i = i->next;
    uint64_t now = os_now_us(), keep = n->o.keep_alive_us, idle = now - i->last_used_us;
    bool is_idle = instance_is_idle(i);
    *out =
        (node_instance_info){.name = i->name,
                             .path = i->source,
                             .isa = i->isa,
                             .numerics = i->numerics,
                             .kv = n->o.kv,
                             .state = i->state,
                             .card = i->card,
                             .loaded_share = i->loaded_share,
                             .context = i->ready.context,
                             .loaded_unix_us = i->loaded_unix_us,
                             .idle_us = is_idle ? idle : 0,
                             .unload_in_us = UINT64_MAX,
                             .weight_bytes = i->ready.weight_bytes + i->crew_need.weight_bytes,
                             .state_bytes = i->ready.state_bytes + i->crew_need.state_bytes,
                             .scratch_bytes = i->ready.scratch_bytes + i->crew_need.scratch_bytes,
                             .n_ranks = engine_cut_ranks(&n->o.cut),
                             .resident_bytes = i->resident_bytes,
                             .load_us = i->ready.load_us,
                             .in_flight = i->n_flights,
                             .restarts = i->restarts,
                             .pid = i->has_child ? i->child.pid : 0,
                             .stats = i->stats,
                             .why = i->why};
    if (is_idle && keep != UINT64_MAX)
        out->unload_in_us = keep > idle ? keep - idle : 0;
}

int node_instance_rank_pid(const node *n, int index, int rank)
{
    const node_instance *i = n->instances;
    while (index-- > 0)
        i = i->next;
    if (rank == 0)
        return i->has_child ? i->child.pid : 0;
    return i->crew && rank <= engine_crew_size(i->crew) ? engine_crew_pid(i->crew, rank - 1) : 0;
}

typedef struct listing {
    void (*visit)(void *context, const node_model_info *m);
    void *context;
} listing;

static status visit_model(void *context, const store_model *m)
{
    listing *l = context;
    node_model_info info = {m->name, m->source, m->origin, m->bytes, m->modified_unix};
    l->visit(l->context, &info);
    return STATUS_OK;
}

status node_list_models(node *n, void (*visit)(void *context, const node_model_info *m),
                        void *context, err *e)
{
    listing l = {visit, context};
    for (const node_instance *i = n->instances; i;
         i = i->next) { /* loaded by a path that no folder of ours holds */
        if (!i->by_path || i->state == NODE_FAILED)
            continue;
        node_model_info info = {i->name, i->source, "path", i->card ? i->card->weight_bytes : 0, 0};
        visit(context, &info);
    }
    status s = look_at_models(n, e);
    return s == STATUS_OK ? store_index_list(n->models, visit_model, &l) : s;
}

status node_unload(node *n, const char *name, err *e)
{
    char source[STORE_PATH];
    node_instance *i = find_named(n, name);
    if (!i) {
        status s = find_source(n, source, NULL, name, e);
        if (s != STATUS_OK)
            return s;
        i = find_instance(n, source);
    }
    if (!i)
        return err_set(e, STATUS_NOT_FOUND, "%s is not loaded", name);
    if (!instance_is_idle(i))
        return err_set(e, STATUS_CONFLICT, "%s is in use (%d requests) or not ready", name,
                       i->n_flights);
    i->unload_asked = true;
    return STATUS_OK;
}
