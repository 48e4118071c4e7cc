/*
 * Embeddings: many texts → a vector each. Texts are encoded once the model is there (on the worker's thread when they are long) and
 * handed to the rank a window at a time; when the rank's queue is full while some of ours are still on their way, the rest waits for
 * those. Vectors come in any order and are put where they belong.
 *
 *   WAITING (for the model) → ENCODING → RUNNING → over: done is called once, from the loop, then it is freed
 *
 * Not here: which numbers a vector has (src/engine), shortening and base64 (src/api).
 */
#include "serve/serve_internal.h"

#include <stddef.h>
#include <string.h>

enum { WINDOW = 64 };

struct serve_embedding {
    serve *of;
    char *id;
    arena memory; /* the texts */
    serve_text *texts;
    int n;
    node_lease *lease;
    serve_work work;
    bool working, over; /* on the worker's thread; nobody is to be told any more */
    text_ids ids;       /* of all texts, one behind another */
    size_t *begin;      /* [n + 1] */
    status encoded;
    err why;
    int failed_at; /* the text that was refused, −1 */
    int n_submitted, n_flying, n_done;
    struct {
        uint64_t id;
        int index; /* −1: free */
        bool has_vector;
        bool refused; /* the queue was full: to be submitted again */
    } flying[WINDOW];
    float *values; /* [n, width] */
    int width;
    uint64_t began_us;
    void (*done)(void *context, const serve_vectors *v);
    void *context;
    serve_embedding *next;
};

static void free_embedding(serve_embedding *j)
{
    serve_embedding **at = &j->of->embeddings;
    while (*at && *at != j)
        at = &(*at)->next;
    if (*at) {
        *at = j->next;
        j->of->counters.live--;
    }
    if (j->lease)
        node_release(j->lease);
    arena_fini(&j->memory);
    text_ids_fini(&j->ids);
    base_free(j->begin);
    base_free(j->values);
    base_free(j->id);
    base_free(j);
}

static void end(serve_embedding *j, const err *why)
{
    serve_counters *k = &j->of->counters;
    serve_vectors v = {.error = why, .failed_at = j->failed_at};
    if (why) {
        k->failed += !j->over;
        if (why->code == STATUS_BUSY || why->code == STATUS_LOADING)
            v.retry_after_s = 1;
    } else {
        v = (serve_vectors){.failed_at = -1,
                            .n = j->n,
                            .width = j->width,
                            .values = j->values,
                            .n_tokens = j->ids.n,
                            .model = node_instance_name(node_lease_instance(j->lease))};
        counters_add(&k->whole, os_now_us() - j->began_us);
    }
    if (!j->over)
        j->done(j->context, &v);
    j->over = true;
    if (!j->working) /* else encoded_there */
        free_embedding(j);
}

/* ---- encoding ------------------------------------------------------------------------------------------------------ */

/* On any thread that has the scratch. */
static void encode(serve_work *w, text_scratch *scratch)
{
    serve_embedding *j = (serve_embedding *)(void *)((char *)w - offsetof(serve_embedding, work));
    const text_tokenizer *t = node_instance_tokenizer(node_lease_instance(j->lease));
    j->encoded = STATUS_OK;
    for (int i = 0; i < j->n && j->encoded == STATUS_OK; i++) {
        const serve_text *one = &j->texts[i];
        j->begin[i] = j->ids.n;
        if (!one->ids)
            j->encoded = text_encode(t, scratch, one->text.data, one->text.length,
                                     TEXT_PARSE_SPECIAL | TEXT_ADD_SPECIAL, &j->ids, &j->why);
        for (int k = 0; one->ids && k < one->n_ids && j->encoded == STATUS_OK; k++)
            j->encoded = text_ids_add(&j->ids, one->ids[k], &j->why);
    }
    j->begin[j->n] = j->ids.n;
}

/* ---- submitting ---------------------------------------------------------------------------------------------------- */

/* Text i in this slot. */
static status submit_one(serve_embedding *j, int slot, int i, err *e)
{
    size_t n = j->begin[i + 1] - j->begin[i];
    int64_t most = node_instance_context(node_lease_instance(j->lease));
    status s;
    engine_request request = {.prompt = j->ids.ids + j->begin[i],
                              .n_prompt = (int)n,
                              .sample = SAMPLE_DEFAULTS,
                              .top_logprobs = -1,
                              .embed = true};
    if (n == 0)
        s = err_set(e, STATUS_INVALID, "the text is empty");
    else if (n > (size_t)most)
        s = err_set(e, STATUS_TOO_LONG, "the text has %zu tokens, the model takes %lld at most", n,
                    (long long)most);
    else
        s = node_submit(j->lease, &request, &j->flying[slot].id, e);
    if (s != STATUS_OK) {
        j->failed_at = i;
        return s;
    }
    j->flying[slot].index = i;
    j->flying[slot].has_vector = j->flying[slot].refused = false;
    j->n_flying++;
    return STATUS_OK;
}

static status fill_window(serve_embedding *j, err *e)
{
    status s = STATUS_OK;
    for (int slot = 0; slot < WINDOW && s == STATUS_OK; slot++)
        if (j->flying[slot].refused)
            s = submit_one(j, slot, j->flying[slot].index, e);
        else if (j->flying[slot].index < 0 && j->n_submitted < j->n)
            s = submit_one(j, slot, j->n_submitted++, e);
    return s;
}

static void begin(serve_embedding *j)
{
    err e = j->why;
    status s = j->encoded;
    j->of->counters.prompt_tokens += j->ids.n;
    if (s == STATUS_OK)
        s = fill_window(j, &e);
    if (s != STATUS_OK)
        end(j, &e);
}

static void encoded_there(serve_work *w)
{
    serve_embedding *j = (serve_embedding *)(void *)((char *)w - offsetof(serve_embedding, work));
    j->working = false;
    if (j->over)
        free_embedding(j);
    else
        begin(j);
}

/* ---- what comes from below ----------------------------------------------------------------------------------------- */

static void on_ready(void *context)
{
    serve_embedding *j = context;
    const node_instance *instance = node_lease_instance(j->lease);
    size_t bytes = 0;
    err e;
    if (node_instance_card(instance)->pooling == MODEL_POOLING_NONE) {
        err_set(&e, STATUS_INVALID,
                "%s writes text and has no embeddings: the file names no pooling",
                node_instance_name(instance));
        end(j, &e);
        return;
    }
    for (int i = 0; i < j->n; i++)
        bytes += j->texts[i].text.length;
    j->work = (serve_work){.run = encode, .done = encoded_there};
    j->working = bytes > SERVE_LONG_BYTES;
    if (j->working) {
        worker_add(j->of->worker, &j->work);
        return;
    }
    encode(&j->work, j->of->scratch);
    begin(j);
}

static void on_failed(void *context, const err *why)
{
    end(context, why);
}

static status take_vector(serve_embedding *j, int slot, const engine_event *event, err *e)
{
    if (!j->values) {
        j->width = event->n_vector;
        j->values = base_zalloc((size_t)j->n * (size_t)j->width, sizeof *j->values);
        if (!j->values)
            return err_set(e, STATUS_NO_MEMORY, "serve: no memory for %d vectors", j->n);
    }
    if (event->n_vector != j->width || j->width <= 0)
        return err_set(e, STATUS_INTERNAL, "serve: a vector of %d numbers, expected %d",
                       event->n_vector, j->width);
    memcpy(j->values + (size_t)j->flying[slot].index * (size_t)j->width, event->vector,
           (size_t)j->width * sizeof(float));
    j->flying[slot].has_vector = true;
    return STATUS_OK;
}

static status take_done(serve_embedding *j, int slot, const engine_event *event, err *e)
{
    int index = j->flying[slot].index;
    bool has_vector = j->flying[slot].has_vector;
    j->n_flying--;
    if (event->reason == ENGINE_ERROR && event->code == STATUS_BUSY && j->n_flying > 0) {
        j->flying[slot].refused =
            true; /* others fill the queue: again when one of ours has ended */
        return STATUS_OK;
    }
    j->flying[slot].index = -1;
    if (event->reason == ENGINE_ERROR || !has_vector) {
        j->failed_at = index;
        return event->reason == ENGINE_ERROR
                   ? err_set(e, event->code, "%s", event->text)
                   : err_set(e, STATUS_CANCELLED, "the request was cancelled");
    }
    j->n_done++;
    return fill_window(j, e);
}

static void on_event(void *context, const engine_event *event)
{
    serve_embedding *j = context;
    err e;
    status s = STATUS_OK;
    int slot = 0;
    while (slot < WINDOW && (j->flying[slot].index < 0 || j->flying[slot].refused ||
                             j->flying[slot].id != event->id))
        slot++;
    if (slot == WINDOW || j->over)
        return;
    if (event->kind == ENGINE_VECTOR)
        s = take_vector(j, slot, event, &e);
    else if (event->kind == ENGINE_DONE)
        s = take_done(j, slot, event, &e);
    if (s != STATUS_OK)
        end(j, &e);
    else if (j->n_done == j->n)
        end(j, NULL);
}

/* ---- start and end ------------------------------------------------------------------------------------------------- */

static bool copy_texts(serve_embedding *j, const serve_text *texts, int n)
{
    j->texts = arena_zalloc(&j->memory, (size_t)n, sizeof *j->texts);
    j->begin = base_zalloc((size_t)n + 1, sizeof *j->begin);
    for (int i = 0; j->texts && j->begin && i < n; i++) {
        serve_text *to = &j->texts[i];
        *to = texts[i];
        if (texts[i].ids) {
            int32_t *ids = arena_alloc(&j->memory, sizeof *ids * (size_t)texts[i].n_ids + 1);
            if (!ids)
                return false;
            memcpy(ids, texts[i].ids, sizeof *ids * (size_t)texts[i].n_ids);
            to->ids = ids;
        } else if (!(to->text.data =
                         arena_strndup(&j->memory, texts[i].text.data, texts[i].text.length))) {
            return false;
        }
    }
    return j->texts && j->begin;
}

status serve_embed(serve_embedding **out, serve *s, const char *id, const char *name,
                   const serve_text *texts, int n,
                   void (*done)(void *context, const serve_vectors *v), void *context, err *e)
{
    REQUIRE(n > 0);
    serve_embedding *j = base_zalloc(1, sizeof *j);
    if (!j)
        return err_set(e, STATUS_NO_MEMORY, "serve: no memory for %d texts", n);
    arena_init(&j->memory, 0);
    j->of = s;
    j->n = n;
    j->done = done;
    j->context = context;
    j->failed_at = -1;
    j->began_us = os_now_us();
    for (int i = 0; i < WINDOW; i++)
        j->flying[i].index = -1;
    j->id = base_strdup(id);
    j->next = s->embeddings;
    s->embeddings = j;
    s->counters.live++;
    s->counters.requests++;
    status result = STATUS_OK;
    if (!j->id || !copy_texts(j, texts, n))
        result = err_set(e, STATUS_NO_MEMORY, "serve: no memory for %d texts", n);
    if (result == STATUS_OK) {
        node_listener listener = {
            .ready = on_ready, .failed = on_failed, .event = on_event, .context = j};
        result = node_acquire(&j->lease, s->n, name, &listener, e);
    }
    if (result != STATUS_OK) {
        s->counters.failed++;
        free_embedding(j);
        return result;
    }
    *out = j;
    return STATUS_OK;
}

serve_embedding *serve_embed_next(const serve_embedding *j)
{
    return j->next;
}

void serve_embed_cancel(serve_embedding *j)
{
    if (!j->over)
        j->of->counters.cancelled++;
    j->over = true;
    if (!j->working)
        free_embedding(j);
}
