/*
 * loop: one libevent base, a pipe that wakes it, timers and watches on it.
 *
 * Posted tasks go into an array under a mutex; the first post after the loop took the array writes one byte into the pipe,
 * so a burst of posts is one wake-up. Two arrays change places, which keeps the steady state free of allocation. The base
 * itself is only ever touched by the loop's thread and carries no locks.
 *
 * Not here: sockets of the server (server.c), signals (os_signal_fd and a watch).
 */
#include "http/http_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/event_struct.h>

typedef struct posted {
    http_task task;
    void *context;
} posted;

struct http_loop {
    struct event_base *base;
    struct event wake_event;
    int wake_read, wake_write;
    os_mutex *lock;  /* guards queue, n, capacity, signalled, stopping */
    posted *queue;   /* what waits */
    posted *running; /* the loop's own array: what it took */
    size_t n, capacity, running_capacity;
    size_t n_running; /* of running, while their tasks run; else 0 */
    bool signalled, stopping;
};

struct http_timer {
    struct event event;
    http_loop *loop;
    http_task task;
    void *context;
};

struct http_watch {
    struct event event;
    http_loop *loop;
    int fd;
    void (*ready)(void *context, unsigned what);
    void *context;
};

struct timeval http_timeval(uint64_t us)
{
    uint64_t seconds = us / 1000000;
    if (seconds > INT32_MAX)
        seconds = INT32_MAX;
    return (struct timeval){(time_t)seconds, (suseconds_t)(us % 1000000)};
}

struct event_base *http_loop_base(http_loop *l)
{
    return l->base;
}

static void on_wake(evutil_socket_t fd, short what, void *context)
{
    (void)what;
    http_loop *l = context;
    char bytes[64];
    while (read(fd, bytes, sizeof bytes) > 0)
        ;
    os_mutex_lock(l->lock);
    posted *taken = l->queue;
    size_t n = l->n, capacity = l->capacity;
    l->queue = l->running;
    l->capacity = l->running_capacity;
    l->n = 0;
    l->running = taken;
    l->running_capacity = capacity;
    l->signalled = false;
    bool stopping = l->stopping;
    os_mutex_unlock(l->lock);
    l->n_running = n;
    for (size_t i = 0; i < n; i++)
        if (taken[i].task)
            taken[i].task(taken[i].context);
    l->n_running = 0;
    if (stopping)
        event_base_loopbreak(l->base);
}

/* With the lock held. A full pipe is as good as a byte in it. */
static void wake(http_loop *l)
{
    if (l->signalled)
        return;
    l->signalled = true;
    char byte = 1;
    ssize_t n;
    do {
        n = write(l->wake_write, &byte, 1);
    } while (n < 0 && errno == EINTR);
}

static status open_pipe(http_loop *l, err *e)
{
    int fds[2];
    if (pipe(fds) != 0)
        return err_errno(e, errno, "http: the loop's pipe");
    l->wake_read = fds[0];
    l->wake_write = fds[1];
    for (int i = 0; i < 2; i++) {
        fcntl(fds[i], F_SETFD, FD_CLOEXEC);
        status s = os_set_nonblocking(fds[i], true, e);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static status make_base(http_loop *l, err *e)
{
    struct event_config *config = event_config_new();
    if (config) {
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
        event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
        /* Look for new events after so many callbacks, so that events which activate each other starve nobody. */
        event_config_set_max_dispatch_interval(config, NULL, 64, 0);
        l->base = event_base_new_with_config(config);
        event_config_free(config);
    }
    if (!l->base)
        return err_set(e, STATUS_NO_MEMORY, "http: cannot make an event loop");
    event_assign(&l->wake_event, l->base, l->wake_read, EV_READ | EV_PERSIST, on_wake, l);
    if (event_add(&l->wake_event, NULL) != 0)
        return err_set(e, STATUS_NO_MEMORY, "http: cannot watch the loop's pipe");
    return STATUS_OK;
}

status http_loop_create(http_loop **out, err *e)
{
    http_loop *l = base_zalloc(1, sizeof *l);
    if (!l)
        return err_set(e, STATUS_NO_MEMORY, "http: no memory for an event loop");
    l->wake_read = l->wake_write = -1;
    status s = os_mutex_create(&l->lock, e);
    if (s == STATUS_OK)
        s = open_pipe(l, e);
    if (s == STATUS_OK)
        s = make_base(l, e);
    if (s != STATUS_OK) {
        http_loop_destroy(l);
        return s;
    }
    signal(
        SIGPIPE,
        SIG_IGN); /* a client that closes while we write is an error code, not the end of the process */
    *out = l;
    return STATUS_OK;
}

void http_loop_destroy(http_loop *l)
{
    if (!l)
        return;
    if (l->base) {
        if (event_initialized(&l->wake_event))
            event_del(&l->wake_event);
        event_base_free(l->base);
    }
    if (l->wake_read >= 0)
        os_close(l->wake_read);
    if (l->wake_write >= 0)
        os_close(l->wake_write);
    if (l->lock)
        os_mutex_destroy(l->lock);
    base_free(l->queue);
    base_free(l->running);
    base_free(l);
}

void http_loop_run(http_loop *l)
{
    event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY);
    os_mutex_lock(l->lock);
    l->stopping = false;
    os_mutex_unlock(l->lock);
}

void http_loop_stop(http_loop *l)
{
    os_mutex_lock(l->lock);
    l->stopping = true;
    wake(l);
    os_mutex_unlock(l->lock);
}

status http_loop_post(http_loop *l, http_task task, void *context)
{
    status s = STATUS_OK;
    os_mutex_lock(l->lock);
    if (l->n == l->capacity) {
        size_t capacity = l->capacity ? l->capacity * 2 : 64;
        posted *bigger = base_realloc(l->queue, capacity * sizeof *bigger);
        if (bigger) {
            l->queue = bigger;
            l->capacity = capacity;
        } else {
            s = STATUS_NO_MEMORY;
        }
    }
    if (s == STATUS_OK) {
        l->queue[l->n++] = (posted){task, context};
        wake(l);
    }
    os_mutex_unlock(l->lock);
    return s;
}

static void forget(posted *list, size_t n, const void *context)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].context == context)
            list[i].task = NULL;
}

void http_loop_forget(http_loop *l, void *context)
{
    os_mutex_lock(l->lock);
    forget(l->queue, l->n, context);
    os_mutex_unlock(l->lock);
    forget(l->running, l->n_running, context);
}

/* ---- timers ---- */

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    http_timer *t = context;
    t->task(t->context); /* may free t */
}

status http_timer_create(http_timer **out, http_loop *l, http_task task, void *context, err *e)
{
    http_timer *t = base_zalloc(1, sizeof *t);
    if (!t)
        return err_set(e, STATUS_NO_MEMORY, "http: no memory for a timer");
    t->loop = l;
    t->task = task;
    t->context = context;
    event_assign(&t->event, l->base, -1, 0, on_timer, t);
    *out = t;
    return STATUS_OK;
}

static void start_timer(http_timer *t, uint64_t us, short flags)
{
    struct timeval wait = http_timeval(us);
    event_del(&t->event);
    event_assign(&t->event, t->loop->base, -1, flags, on_timer, t);
    if (event_add(&t->event, &wait) != 0)
        log_error("http", "cannot start a timer: out of memory");
}

void http_timer_once(http_timer *t, uint64_t after_us)
{
    start_timer(t, after_us, 0);
}

void http_timer_repeat(http_timer *t, uint64_t every_us)
{
    start_timer(t, BASE_MAX(every_us, 1), EV_PERSIST);
}

void http_timer_stop(http_timer *t)
{
    event_del(&t->event);
}

void http_timer_destroy(http_timer *t)
{
    if (!t)
        return;
    event_del(&t->event);
    base_free(t);
}

/* ---- watches ---- */

static void on_ready(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    http_watch *w = context;
    unsigned bits = (what & EV_READ ? HTTP_READABLE : 0u) | (what & EV_WRITE ? HTTP_WRITABLE : 0u);
    w->ready(w->context, bits); /* may free w */
}

status http_watch_set(http_watch *w, unsigned what, err *e)
{
    short flags = EV_PERSIST;
    if (what & HTTP_READABLE)
        flags |= EV_READ;
    if (what & HTTP_WRITABLE)
        flags |= EV_WRITE;
    event_del(&w->event);
    event_assign(&w->event, w->loop->base, w->fd, flags, on_ready, w);
    if (what && event_add(&w->event, NULL) != 0)
        return err_set(e, STATUS_IO, "http: cannot watch descriptor %d", w->fd);
    return STATUS_OK;
}

status http_watch_create(http_watch **out, http_loop *l, int fd, unsigned what,
                         void (*ready)(void *context, unsigned what), void *context, err *e)
{
    http_watch *w = base_zalloc(1, sizeof *w);
    if (!w)
        return err_set(e, STATUS_NO_MEMORY, "http: no memory for a watch");
    *w = (http_watch){.loop = l, .fd = fd, .ready = ready, .context = context};
    event_assign(&w->event, l->base, fd, EV_READ | EV_PERSIST, on_ready, w);
    status s = http_watch_set(w, what, e);
    if (s != STATUS_OK) {
        base_free(w);
        return s;
    }
    *out = w;
    return STATUS_OK;
}

void http_watch_destroy(http_watch *w)
{
    if (!w)
        return;
    event_del(&w->event);
    base_free(w);
}
