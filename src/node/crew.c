/*
 * The ranks beside the leading one of an instance: started with it, watched for what they say when they fail and for their ends, killed
 * with it. Between start and end nothing is asked of them here: the leading rank leads them.
 */
#include "node/node_internal.h"

bool crew_is_wanted(const node_instance *i)
{
    return engine_cut_ranks(&i->of->o.cut) > 1;
}

/* One of them has something to say, or has ended. */
static void on_follower(void *context, unsigned what)
{
    node_follower *f = context;
    node_instance *i = f->of;
    node *n = i->of;
    err why = {0};
    (void)what;
    n->depth++;
    status s = engine_crew_hear(i->crew, f->number, &why);
    if (s == STATUS_OK) {
        i->heard_us = os_now_us();
        (void)engine_crew_ready(i->crew, &i->crew_need);
    } else if (i->state == NODE_STOPPING) { /* as it was told to */
        http_watch_destroy(f->watch);
        f->watch = NULL;
    } else {
        engine_crew_why(i->crew, 0, &why);
        bool loading = i->state == NODE_STARTING || i->state == NODE_LOADING;
        if (loading && why.code != STATUS_CLOSED && why.code != STATUS_TIMEOUT)
            rank_refused(i, &why);
        else
            rank_died(i, why.text);
    }
    n->depth--;
}

engine_team_options crew_options(const node_instance *i)
{
    return (engine_team_options){.cut = i->of->o.cut,
                                 .source = i->source,
                                 .model = rank_model_options(i),
                                 .epoch = {1, i->incarnation, 0},
                                 .deadline_us = i->of->o.deadline_us,
                                 .program = i->of->program};
}

static status watch_all(node_instance *i, err *e)
{
    int n = engine_crew_size(i->crew);
    i->followers = base_zalloc((size_t)n, sizeof *i->followers);
    if (!i->followers)
        return err_set(e, STATUS_NO_MEMORY, "node: no memory for %d ranks", n);
    status s = STATUS_OK;
    for (int k = 0; k < n && s == STATUS_OK; k++) {
        node_follower *f = &i->followers[k];
        *f = (node_follower){.of = i, .number = k};
        s = http_watch_create(&f->watch, i->of->loop, engine_crew_fd(i->crew, k), HTTP_READABLE,
                              on_follower, f, e);
    }
    return s;
}

status crew_start(node_instance *i, err *e)
{
    engine_team_options o = crew_options(i);
    engine_place own = {.cut = o.cut, .epoch = o.epoch, .deadline_us = o.deadline_us};
    status s = STATUS_OK;
    if (o.cut.link != ENGINE_LINK_LOOP)
        s = engine_crew_start(&i->crew, &own, &o, e);
    if (s == STATUS_OK) /* before anything else is said to it: its socket has room */
        s = engine_place_send(i->child.fd, &own, e);
    engine_place_close(&own);
    return s == STATUS_OK && i->crew ? watch_all(i, e) : s;
}

void crew_end(node_instance *i)
{
    for (int k = 0; i->followers && k < engine_crew_size(i->crew); k++)
        http_watch_destroy(i->followers[k].watch);
    base_free(i->followers);
    i->followers = NULL;
    engine_crew_destroy(i->crew);
    i->crew = NULL;
    i->crew_need = (model_need){0};
}
