/*
 * For tests that run models: one sequence with pages of its own, fed in chunks of any size, beside strangers or alone.
 */
#ifndef SHOAL_TESTS_MODEL_RUN_H
#define SHOAL_TESTS_MODEL_RUN_H

#include "model/model.h"
#include "model_make.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUN_PAGES = 64 };

static inline void must(status s, const err *e)
{
    if (s != STATUS_OK)
        fail_msg("%s: %s", status_name(s), e->text);
}

/* A sequence: its position and page tables. Pages are handed out by counters that every sequence of a test shares. */
typedef struct run_sequence {
    int64_t position;
    int32_t pages[MODEL_STATE_CLASSES][RUN_PAGES];
    int n_pages[MODEL_STATE_CLASSES];
    int32_t slot;
} run_sequence;

typedef struct run_pool {
    int32_t next[MODEL_STATE_CLASSES];
    int32_t next_slot;
    int32_t stride; /* ids are scattered over the pool by it: coprime to the number of pages */
} run_pool;

static inline void run_sequence_init(run_sequence *s, run_pool *p)
{
    memset(s, 0, sizeof(*s));
    s->slot = p->next_slot++;
}

static inline model_run run_of(model *m, run_pool *pool, run_sequence *s, int n_tokens)
{
    model_run r = {.n_tokens = n_tokens, .position = s->position};
    for (int c = 0; c < model_n_classes(m); c++) {
        const model_state_class *k = model_class(m, c);
        r.slot[c] = s->slot;
        if (k->page_tokens == 0)
            continue;
        int need = (int)((s->position + n_tokens - 1) / k->page_tokens + 1);
        while (s->n_pages[c] < need) {
            int32_t page = pool->next[c]++;
            assert_true(page < k->n_pages && s->n_pages[c] < RUN_PAGES);
            if (pool->stride > 0)
                page = (int32_t)((int64_t)page * pool->stride % k->n_pages);
            s->pages[c][s->n_pages[c]++] = page;
        }
        r.pages[c] = s->pages[c];
        r.n_pages[c] = s->n_pages[c];
    }
    return r;
}

/* Feeds n ids in steps of `chunk` and writes the logits of all of them: [n, V]. */
static inline void run_feed(model *m, run_pool *pool, run_sequence *s, const int32_t *ids, int n,
                            int chunk, float *logits)
{
    int64_t V = model_get_card(m)->n_vocab;
    const model_options *o = model_get_options(m);
    chunk = BASE_MIN(BASE_MIN(chunk, o->max_tokens), o->max_outputs);
    for (int at = 0; at < n; at += chunk) {
        int k = BASE_MIN(chunk, n - at);
        model_run r = run_of(m, pool, s, k);
        int32_t outputs[4096];
        for (int i = 0; i < k; i++)
            outputs[i] = i;
        model_batch b = {.n_tokens = k,
                         .ids = ids + at,
                         .n_runs = 1,
                         .runs = &r,
                         .n_outputs = k,
                         .outputs = outputs};
        err e = {0};
        must(model_step(m, &b, logits + at * V, &e), &e);
        s->position += k;
    }
}

static inline model *run_load_bytes(const char *bytes, size_t n, const model_options *o)
{
    file_model *f;
    model *m;
    err e = {0};
    must(file_open_memory(&f, bytes, n, "made", &e), &e);
    must(model_load(&m, f, o, NULL, &e), &e);
    file_close(f);
    return m;
}

static inline model *run_load_made(const make_shape *shape, const model_options *o)
{
    size_t n;
    char *bytes = make_model(shape, &n);
    model *m = run_load_bytes(bytes, n, o);
    base_free(bytes);
    return m;
}

static inline model *run_load(const char *path, const model_options *o)
{
    file_model *f;
    model *m;
    err e = {0};
    must(file_open(&f, path, &e), &e);
    must(model_load(&m, f, o, NULL, &e), &e);
    file_close(f);
    return m;
}

#endif
