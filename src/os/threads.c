/*
 * Threads, mutexes and condition variables over pthreads, and `park`, the wait on a word that the pool uses.
 * Threads made here block the signals that a process may be sent, so that handlers run in threads that expect them;
 * faults of the thread itself (SIGBUS and its kin) stay open. Not here: thread-local storage, cancellation, priorities.
 */
#include "os/os.h"
#include "os/park.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#ifdef __linux__
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_BYTES (4u << 20) /* instrumented frames are several times as large */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define STACK_BYTES (4u << 20)
#endif
#endif
#ifndef STACK_BYTES
#define STACK_BYTES (1u << 20)
#endif

/* ---- park ------------------------------------------------------------------------------------------------------ */

#ifdef __linux__

void park_init(os_park *p)
{
    atomic_init(&p->word, 0);
}

void park_fini(os_park *p)
{
    (void)p;
}

void park_wait(os_park *p, uint32_t expected, uint64_t timeout_us)
{
    struct timespec span = {.tv_sec = (time_t)(timeout_us / 1000000),
                            .tv_nsec = (long)(timeout_us % 1000000) * 1000};
    syscall(SYS_futex, &p->word, FUTEX_WAIT_PRIVATE, expected, timeout_us ? &span : NULL, NULL, 0);
}

void park_wake(os_park *p, int n_threads)
{
    syscall(SYS_futex, &p->word, FUTEX_WAKE_PRIVATE, n_threads < 1 ? 1 : n_threads, NULL, NULL, 0);
}

#else

void park_init(os_park *p)
{
    atomic_init(&p->word, 0);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->cond, NULL);
}

void park_fini(os_park *p)
{
    pthread_cond_destroy(&p->cond);
    pthread_mutex_destroy(&p->mutex);
}

void park_wait(os_park *p, uint32_t expected, uint64_t timeout_us)
{
    struct timespec span = {.tv_sec = (time_t)(timeout_us / 1000000),
                            .tv_nsec = (long)(timeout_us % 1000000) * 1000};
    pthread_mutex_lock(&p->mutex);
    if (atomic_load_explicit(&p->word, memory_order_seq_cst) == expected) {
        if (timeout_us)
            pthread_cond_timedwait_relative_np(&p->cond, &p->mutex, &span);
        else
            pthread_cond_wait(&p->cond, &p->mutex);
    }
    pthread_mutex_unlock(&p->mutex);
}

void park_wake(os_park *p, int n_threads)
{
    pthread_mutex_lock(
        &p->mutex); /* a waiter is either before its look at the word or in the wait */
    if (n_threads <= 1)
        pthread_cond_signal(&p->cond);
    else
        pthread_cond_broadcast(&p->cond);
    pthread_mutex_unlock(&p->mutex);
}

#endif

/* ---- threads --------------------------------------------------------------------------------------------------- */

struct os_thread {
    pthread_t handle;
    void (*run)(void *context);
    void *context;
    char name[16]; /* Linux keeps 15 characters */
};

static void *thread_main(void *argument)
{
    os_thread *t = argument;
#ifdef __APPLE__
    pthread_setname_np(t->name);
#else
    pthread_setname_np(pthread_self(), t->name);
#endif
    t->run(t->context);
    return NULL;
}

/* The mask of a thread of ours: everything blocked but what the thread itself can raise. */
static void faults_only(sigset_t *set)
{
    static const int faults[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigfillset(set);
    for (size_t i = 0; i < BASE_COUNT(faults); i++)
        sigdelset(set, faults[i]);
}

status os_thread_create(os_thread **out, void (*run)(void *context), void *context,
                        const char *name, err *e)
{
    os_thread *t = base_zalloc(1, sizeof *t);
    if (!t)
        return err_set(e, STATUS_NO_MEMORY, "thread %s: no memory", name);
    t->run = run;
    t->context = context;
    size_t length = strlen(name);
    memcpy(t->name, name, BASE_MIN(length, sizeof t->name - 1));
    pthread_attr_t attributes;
    int failure = pthread_attr_init(&attributes);
    if (failure != 0) {
        base_free(t);
        return err_errno(e, failure, "thread %s", name);
    }
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigset_t mask, before;
    faults_only(&mask);
    pthread_sigmask(SIG_SETMASK, &mask, &before); /* the new thread inherits it */
    failure = pthread_create(&t->handle, &attributes, thread_main, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (failure != 0) {
        base_free(t);
        return err_errno(e, failure, "thread %s cannot be made", name);
    }
    *out = t;
    return STATUS_OK;
}

void os_thread_join(os_thread *t)
{
    if (!t)
        return;
    int failure = pthread_join(t->handle, NULL);
    REQUIRE(failure == 0);
    base_free(t);
}

/* ---- mutexes and condition variables --------------------------------------------------------------------------- */

struct os_mutex {
    pthread_mutex_t handle;
};

struct os_cond {
    pthread_cond_t handle;
};

status os_mutex_create(os_mutex **out, err *e)
{
    os_mutex *m = base_zalloc(1, sizeof *m);
    if (!m)
        return err_set(e, STATUS_NO_MEMORY, "mutex: no memory");
    int failure = pthread_mutex_init(&m->handle, NULL);
    if (failure != 0) {
        base_free(m);
        return err_errno(e, failure, "mutex");
    }
    *out = m;
    return STATUS_OK;
}

void os_mutex_destroy(os_mutex *m)
{
    if (!m)
        return;
    int failure = pthread_mutex_destroy(&m->handle);
    REQUIRE(failure == 0);
    base_free(m);
}

void os_mutex_lock(os_mutex *m)
{
    int failure = pthread_mutex_lock(&m->handle);
    REQUIRE(failure == 0);
}

void os_mutex_unlock(os_mutex *m)
{
    int failure = pthread_mutex_unlock(&m->handle);
    REQUIRE(failure == 0);
}

status os_cond_create(os_cond **out, err *e)
{
    os_cond *c = base_zalloc(1, sizeof *c);
    if (!c)
        return err_set(e, STATUS_NO_MEMORY, "condition variable: no memory");
    pthread_condattr_t attributes;
    int failure = pthread_condattr_init(&attributes);
    if (failure == 0) {
#ifndef __APPLE__
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
        failure = pthread_cond_init(&c->handle, &attributes);
        pthread_condattr_destroy(&attributes);
    }
    if (failure != 0) {
        base_free(c);
        return err_errno(e, failure, "condition variable");
    }
    *out = c;
    return STATUS_OK;
}

void os_cond_destroy(os_cond *c)
{
    if (!c)
        return;
    pthread_cond_destroy(&c->handle);
    base_free(c);
}

void os_cond_signal(os_cond *c)
{
    pthread_cond_signal(&c->handle);
}

void os_cond_broadcast(os_cond *c)
{
    pthread_cond_broadcast(&c->handle);
}

void os_cond_wait(os_cond *c, os_mutex *m)
{
    int failure = pthread_cond_wait(&c->handle, &m->handle);
    REQUIRE(failure == 0);
}

bool os_cond_wait_us(os_cond *c, os_mutex *m, uint64_t timeout_us)
{
    timeout_us =
        BASE_MIN(timeout_us, UINT64_C(1) << 52); /* 142 years: sums below cannot overflow */
#ifdef __APPLE__
    struct timespec span = {.tv_sec = (time_t)(timeout_us / 1000000),
                            .tv_nsec = (long)(timeout_us % 1000000) * 1000};
    int failure = pthread_cond_timedwait_relative_np(&c->handle, &m->handle, &span);
#else
    uint64_t until = os_now_us() + timeout_us;
    struct timespec when = {.tv_sec = (time_t)(until / 1000000),
                            .tv_nsec = (long)(until % 1000000) * 1000};
    int failure = pthread_cond_timedwait(&c->handle, &m->handle, &when);
#endif
    REQUIRE(failure == 0 || failure == ETIMEDOUT);
    return failure == 0;
}
