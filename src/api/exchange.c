/*
 * An exchange: one HTTP request and the serve calls that answer it, with everything that no dialect should care about. The stream begins
 * with the first thing there is to say (loading, the prompt being read, ten seconds of silence), so that what is refused before gets
 * its right status. A reader that does not keep up pauses its calls; one that is gone cancels them.
 *
 *   run → calls live → finish (every call done)                  → freed
 *                    → fail (one failed, or cancelled by someone) → freed
 *                    → gone (the client)                          → freed
 */
#include "api/api_internal.h"
#include "os/os.h"

#include <stdio.h>
#include <string.h>

enum { PENDING_HIGH = 64 << 10, PENDING_LOW = 16 << 10 };

/* One serve call of an exchange. */
typedef struct api_leg {
    api_exchange *of;
    serve_call *call; /* NULL: over */
    int index;
} api_leg;

/* ---- beginning and end --------------------------------------------------------------------------------------------- */

static void cancel_calls(api_exchange *x)
{
    for (int i = 0; i < x->n_calls; i++) {
        serve_call *call = x->legs[i].call;
        x->legs[i].call = NULL;
        if (call)
            serve_cancel(call);
    }
}

static void free_exchange(api_exchange *x)
{
    cancel_calls(x);
    api_exchange **at = &x->of->exchanges;
    while (*at && *at != x)
        at = &(*at)->next;
    if (*at)
        *at = x->next;
    if (x->state)
        x->voice->free_state(x->state);
    base_free(x->model);
    base_free(x->legs);
    base_free(x);
}

void api_exchange_fail(api_exchange *x, const api_fault *f)
{
    cancel_calls(x);
    if (http_stream_begun(x->r)) {
        x->voice->fail_stream(x, f);
        http_stream_end(x->r);
    } else {
        api_reply_fault(x->r, x->voice->dialect, f);
    }
    free_exchange(x);
}

bool api_exchange_cancel(api *a, const char *wanted)
{
    api_fault f;
    api_exchange *x = a->exchanges;
    while (x && !api_request_is(x->r, strrchr(x->id, '-') + 1, wanted))
        x = x->next;
    if (!x)
        return false;
    api_fault_cancelled(&f);
    api_exchange_fail(x, &f);
    return true;
}

static void on_gone(void *context, http_request *r)
{
    (void)r;
    free_exchange(context);
}

/* ---- streams ------------------------------------------------------------------------------------------------------- */

static void begin_stream(api_exchange *x)
{
    if (x->stream && !http_stream_begun(x->r))
        http_sse_begin(x->r);
}

static void pause_calls(api_exchange *x, bool on)
{
    x->paused = on;
    for (int i = 0; i < x->n_calls; i++)
        if (x->legs[i].call)
            serve_pause(x->legs[i].call, on);
}

static void on_drained(void *context, http_request *r)
{
    (void)r;
    pause_calls(context, false);
}

static void watch_reader(api_exchange *x)
{
    x->last_us = os_now_us();
    if (x->paused || http_stream_pending(x->r) <= PENDING_HIGH)
        return;
    pause_calls(x, true);
    http_on_drained(x->r, PENDING_LOW, on_drained, x);
}

void api_exchange_send(api_exchange *x, const sb *data)
{
    begin_stream(x);
    if (data->failed) {
        x->broken = true;
        return;
    }
    http_sse_send(x->r, NULL, data->data, data->length);
    watch_reader(x);
}

void api_exchange_ping(api_exchange *x)
{
    if (!x->stream || x->paused || os_now_us() - x->last_us < x->of->ping_us)
        return;
    begin_stream(x);
    http_sse_comment(x->r, "ping");
    watch_reader(x);
}

static void tell_loading(api_exchange *x, const api_leg *leg, double share)
{
    char text[48];
    for (int i = 0; i < leg->index; i++) /* once for all calls */
        if (x->legs[i].call)
            return;
    if (!x->stream)
        return;
    begin_stream(x);
    snprintf(text, sizeof text, "loading %d%%", (int)(share * 100));
    http_sse_comment(x->r, text);
    watch_reader(x);
}

/* ---- events -------------------------------------------------------------------------------------------------------- */

static void take_done(api_exchange *x, api_leg *leg, const serve_event *event)
{
    leg->call = NULL;
    x->n_prompt += event->n_prompt;
    x->n_cached += event->n_cached;
    x->n_generated += event->n_generated;
    x->n_drafted += event->n_drafted;
    x->n_accepted += event->n_accepted;
    if (--x->n_open > 0)
        return;
    x->voice->finish(x);
    free_exchange(x);
}

static void take_failed(api_exchange *x, api_leg *leg, const serve_event *event)
{
    api_fault f;
    leg->call = NULL;
    api_fault_from(&f, event->error);
    if (event->error->code == STATUS_NOT_FOUND && x->model) /* a file of it, not its name */
        f.code = NULL;
    f.retry_after_s = event->retry_after_s;
    api_exchange_fail(x, &f);
}

static void on_event(void *context, const serve_event *event)
{
    api_leg *leg = context;
    api_exchange *x = leg->of;
    switch (event->kind) {
    case SERVE_LOADING:
        tell_loading(x, leg, event->share);
        return;
    case SERVE_DONE:
        take_done(x, leg, event);
        return;
    case SERVE_FAILED:
        take_failed(x, leg, event);
        return;
    default:
        break;
    }
    if (!*x->fingerprint)
        serve_call_fingerprint(leg->call, x->fingerprint);
    begin_stream(x);
    x->voice->event(x, leg->index, event);
    if (x->broken) {
        api_fault f;
        api_fault_set(&f, STATUS_NO_MEMORY, "", "no memory for an answer");
        api_exchange_fail(x, &f);
    }
}

/* ---- start --------------------------------------------------------------------------------------------------------- */

static bool start_calls(api_exchange *x, const serve_request *requests, api_fault *f)
{
    for (int i = 0; i < x->n_calls; i++) {
        err e;
        x->legs[i] = (api_leg){.of = x, .index = i};
        status s =
            serve_start(&x->legs[i].call, x->of->s, x->id, &requests[i], on_event, &x->legs[i], &e);
        if (s == STATUS_OK)
            continue;
        x->legs[i].call = NULL;
        api_fault_from(f, &e);
        if (s == STATUS_NOT_FOUND)
            snprintf(f->param, sizeof f->param, "model");
        if (s == STATUS_BUSY || s == STATUS_LOADING)
            f->retry_after_s = 1;
        return false;
    }
    x->model = base_strdup(serve_call_model(x->legs[0].call));
    if (!x->model)
        return api_fault_set(f, STATUS_NO_MEMORY, "", "no memory for a request");
    return true;
}

void api_exchange_run(const api_request *q, const api_voice *voice, void *state, const char *prefix,
                      bool stream, const serve_request *requests, int n)
{
    api_fault f;
    api_exchange *x = base_zalloc(1, sizeof *x);
    if (x)
        x->legs = base_zalloc((size_t)n, sizeof *x->legs);
    if (!x || !x->legs) {
        base_free(x);
        voice->free_state(state);
        api_fault_set(&f, STATUS_NO_MEMORY, "", "no memory for a request");
        api_reply_fault(q->r, voice->dialect, &f);
        return;
    }
    x->of = q->of;
    x->r = q->r;
    x->voice = voice;
    x->state = state;
    x->stream = stream;
    x->created = (int64_t)(os_unix_us() / 1000000);
    x->last_us = os_now_us();
    x->n_calls = x->n_open = n;
    snprintf(x->id, sizeof x->id, "%s-%s", prefix, q->id);
    x->next = q->of->exchanges;
    q->of->exchanges = x;
    http_on_gone(q->r, on_gone, x);
    if (!start_calls(x, requests, &f))
        api_exchange_fail(x, &f);
}
