/*
 * One thread for what would keep the loop standing still: rendering and encoding long prompts. First come, first served; what is done
 * comes back to the loop by a post. Short prompts never come here: they would wait behind the long ones.
 *
 * An item belongs to its owner, who keeps everything that it uses alive until its `done` has been called. Not here: cancelling (the
 * owner remembers that nobody wants the result any more).
 */
#include "serve/serve_internal.h"

struct serve_worker {
    http_loop *loop;
    os_thread *thread;
    os_mutex *lock; /* guards waiting, finished, quit */
    os_cond *arrived;
    serve_work *waiting, *finished; /* waiting: oldest first */
    bool quit;
    text_scratch *scratch; /* the thread's */
};

/* On the loop, or at the end: tells the owners. */
static void hand_over(void *context)
{
    serve_worker *w = context;
    os_mutex_lock(w->lock);
    serve_work *item = w->finished;
    w->finished = NULL;
    os_mutex_unlock(w->lock);
    while (item) {
        serve_work *next = item->next; /* the owner may be gone after done */
        item->done(item);
        item = next;
    }
}

static void append(serve_work **list, serve_work *item)
{
    item->next = NULL;
    while (*list)
        list = &(*list)->next;
    *list = item;
}

static void work(void *context)
{
    serve_worker *w = context;
    for (;;) {
        os_mutex_lock(w->lock);
        while (!w->waiting && !w->quit)
            os_cond_wait(w->arrived, w->lock);
        serve_work *item = w->quit ? NULL : w->waiting;
        if (item)
            w->waiting = item->next;
        os_mutex_unlock(w->lock);
        if (!item)
            return;
        item->run(item, w->scratch);
        os_mutex_lock(w->lock);
        append(&w->finished, item);
        os_mutex_unlock(w->lock);
        if (http_loop_post(w->loop, hand_over, w) != STATUS_OK)
            log_error("serve", "no memory to hand a prompt over: it waits for the next one");
    }
}

status worker_create(serve_worker **out, http_loop *loop, err *e)
{
    serve_worker *w = base_zalloc(1, sizeof *w);
    if (!w)
        return err_set(e, STATUS_NO_MEMORY, "serve: no memory for a worker");
    w->loop = loop;
    status s = text_scratch_create(&w->scratch, e);
    if (s == STATUS_OK)
        s = os_mutex_create(&w->lock, e);
    if (s == STATUS_OK)
        s = os_cond_create(&w->arrived, e);
    if (s == STATUS_OK)
        s = os_thread_create(&w->thread, work, w, "prompts", e);
    if (s != STATUS_OK) {
        worker_destroy(w);
        return s;
    }
    *out = w;
    return STATUS_OK;
}

void worker_add(serve_worker *w, serve_work *item)
{
    os_mutex_lock(w->lock);
    append(&w->waiting, item);
    os_cond_signal(w->arrived);
    os_mutex_unlock(w->lock);
}

void worker_destroy(serve_worker *w)
{
    if (!w)
        return;
    if (w->thread) {
        os_mutex_lock(w->lock);
        w->quit = true;
        os_cond_signal(w->arrived);
        os_mutex_unlock(w->lock);
        os_thread_join(w->thread);
        http_loop_forget(w->loop, w);
        hand_over(w);
        w->finished = w->waiting; /* never begun: their owners are told all the same */
        w->waiting = NULL;
        hand_over(w);
    }
    if (w->arrived)
        os_cond_destroy(w->arrived);
    if (w->lock)
        os_mutex_destroy(w->lock);
    text_scratch_destroy(w->scratch);
    base_free(w);
}
