/*
 * serve as a whole: creation, the once-a-second word to those who wait for a model, counters, and tokenizing for the API.
 */
#include "serve/serve_internal.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

enum { TICK_US = 1000000 };

const double serve_bucket_limits_s[SERVE_BUCKETS] = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, INFINITY};

void counters_add(serve_histogram *h, uint64_t us)
{
    double s = (double)us / 1e6;
    int i = 0;
    while (s > serve_bucket_limits_s[i])
        i++;
    h->counts[i]++;
    h->n++;
    h->sum_s += s;
}

const serve_counters *serve_get_counters(const serve *s)
{
    return &s->counters;
}

/* Calls only leave the list, and only from its middle by their own doing, while their sink runs. */
static void on_tick(void *context)
{
    serve *s = context;
    serve_call *waiting[256];
    size_t n = 0;
    for (serve_call *c = s->calls; c && n < BASE_COUNT(waiting); c = c->next)
        if (c->phase == PHASE_WAITING && !call_is_over(c)) {
            call_enter(c);
            waiting[n++] = c;
        }
    for (size_t i = 0; i < n; i++) {
        serve_event event = {.kind = SERVE_LOADING, .share = waiting[i]->share};
        if (!call_is_over(waiting[i]))
            call_emit(waiting[i], &event);
    }
    for (size_t i = 0; i < n; i++)
        call_leave(waiting[i]);
}

status serve_create(serve **out, http_loop *loop, node *n, const serve_options *o, err *e)
{
    serve *s = base_zalloc(1, sizeof *s);
    if (!s)
        return err_set(e, STATUS_NO_MEMORY, "serve: no memory");
    s->loop = loop;
    s->n = n;
    s->o = *o;
    status result = text_scratch_create(&s->scratch, e);
    if (result == STATUS_OK)
        result = worker_create(&s->worker, loop, e);
    if (result == STATUS_OK)
        result = http_timer_create(&s->tick, loop, on_tick, s, e);
    if (result != STATUS_OK) {
        serve_destroy(s);
        return result;
    }
    http_timer_repeat(s->tick, TICK_US);
    *out = s;
    return STATUS_OK;
}

/* ---- tokenizing ---------------------------------------------------------------------------------------------------- */

typedef struct tokens_job {
    serve *of;
    node_lease *lease;
    bool decode;
    bool working; /* on the worker's thread */
    bool over;    /* its listener was told, or serve ends */
    int flags;
    serve_work work;
    status result; /* of the work */
    err why;
    char *text;
    size_t n_text;
    text_ids ids;
    sb decoded;
    void (*done)(void *context, const serve_tokens *t);
    void *context;
    struct tokens_job *next;
} tokens_job;

static void free_job(tokens_job *j)
{
    tokens_job **at = &j->of->jobs;
    while (*at && *at != j)
        at = &(*at)->next;
    if (*at)
        *at = j->next;
    if (j->lease)
        node_release(j->lease);
    base_free(j->text);
    sb_fini(&j->decoded);
    text_ids_fini(&j->ids);
    base_free(j);
}

static tokens_job *job_of(serve_work *w)
{
    return (tokens_job *)(void *)((char *)w - offsetof(tokens_job, work));
}

static void run_job(serve_work *w, text_scratch *scratch)
{
    tokens_job *j = job_of(w);
    const text_tokenizer *t = node_instance_tokenizer(node_lease_instance(j->lease));
    j->result = j->decode ? text_decode(t, j->ids.ids, j->ids.n, 0, &j->decoded, &j->why)
                          : text_encode(t, scratch, j->text, j->n_text, j->flags, &j->ids, &j->why);
}

static void end_job(serve_work *w)
{
    tokens_job *j = job_of(w);
    bool good = j->result == STATUS_OK;
    serve_tokens result = {.error = good ? NULL : &j->why,
                           .tokenizer =
                               good ? node_instance_tokenizer(node_lease_instance(j->lease)) : NULL,
                           .ids = j->ids.ids,
                           .n = j->ids.n,
                           .text = {j->decoded.data ? j->decoded.data : "", j->decoded.length}};
    if (!j->over)
        j->done(j->context, &result);
    free_job(j);
}

static void job_ready(void *context)
{
    tokens_job *j = context;
    j->work = (serve_work){.run = run_job, .done = end_job};
    j->working = j->n_text > SERVE_LONG_BYTES || j->ids.n > SERVE_LONG_BYTES;
    if (j->working) {
        worker_add(j->of->worker, &j->work);
        return;
    }
    run_job(&j->work, j->of->scratch);
    end_job(&j->work);
}

static void job_failed(void *context, const err *why)
{
    tokens_job *j = context;
    serve_tokens result = {.error = why};
    if (!j->over)
        j->done(j->context, &result);
    j->over = true;
    if (!j->working) /* else end_job */
        free_job(j);
}

static void job_event(void *context, const engine_event *event)
{
    (void)context;
    (void)event;
}

static status start_job(tokens_job *j, const char *name, err *e)
{
    node_listener listener = {
        .ready = job_ready, .failed = job_failed, .event = job_event, .context = j};
    status s = node_acquire(&j->lease, j->of->n, name, &listener, e);
    if (s != STATUS_OK) {
        free_job(j);
        return s;
    }
    j->next = j->of->jobs;
    j->of->jobs = j;
    return STATUS_OK;
}

static status new_job(tokens_job **out, serve *s,
                      void (*done)(void *context, const serve_tokens *t), void *context, err *e)
{
    tokens_job *j = base_zalloc(1, sizeof *j);
    if (!j)
        return err_set(e, STATUS_NO_MEMORY, "serve: no memory");
    j->of = s;
    j->done = done;
    j->context = context;
    *out = j;
    return STATUS_OK;
}

status serve_tokenize(serve *s, const char *name, str text, bool add_special, bool parse_special,
                      void (*done)(void *context, const serve_tokens *t), void *context, err *e)
{
    tokens_job *j = NULL;
    status result = new_job(&j, s, done, context, e);
    if (result != STATUS_OK)
        return result;
    j->flags = (add_special ? TEXT_ADD_SPECIAL : 0) | (parse_special ? TEXT_PARSE_SPECIAL : 0);
    j->text = base_strndup(text.data, text.length);
    j->n_text = text.length;
    if (!j->text) {
        free_job(j);
        return err_set(e, STATUS_NO_MEMORY, "serve: no memory for %zu bytes of text", text.length);
    }
    return start_job(j, name, e);
}

status serve_detokenize(serve *s, const char *name, const int32_t *ids, size_t n,
                        void (*done)(void *context, const serve_tokens *t), void *context, err *e)
{
    tokens_job *j = NULL;
    status result = new_job(&j, s, done, context, e);
    if (result != STATUS_OK)
        return result;
    j->decode = true;
    for (size_t i = 0; i < n && result == STATUS_OK; i++)
        result = text_ids_add(&j->ids, ids[i], e);
    if (result != STATUS_OK) {
        free_job(j);
        return result;
    }
    return start_job(j, name, e);
}

void serve_destroy(serve *s)
{
    if (!s)
        return;
    for (serve_call *c = s->calls, *next; c; c = next) {
        next = c->next;
        serve_cancel(c);
    }
    for (tokens_job *j = s->jobs; j; j = j->next)
        j->over = true;
    for (serve_embedding *j = s->embeddings, *next; j; j = next) {
        next = serve_embed_next(j);
        serve_embed_cancel(j);
    }
    worker_destroy(s->worker); /* calls and jobs that it holds are freed now */
    while (s->jobs)
        free_job(s->jobs);
    http_timer_destroy(s->tick);
    text_scratch_destroy(s->scratch);
    base_free(s);
}
