/*
 * The fork-join pool that runs kernels.
 *
 * A run over [0, n) is cut into chunks; every thread owns a contiguous lane of them and takes from its front with one
 * compare-and-swap, then helps the others' lanes. A lane is one word, (epoch << 32 | chunks not yet taken): the caller
 * publishes a run by writing all lanes with a new epoch, so a worker that comes late, or was stopped between reading
 * and swapping, either finds nothing left or fails its swap. The parameters of a run are valid exactly while its lane
 * words have chunks left, which is why they may be read before the swap and are discarded when it fails.
 *
 * The caller takes part and therefore never waits for a worker that has not started: it waits for the chunks that were
 * taken (`pending`). Both sides spin for SPIN_US, then sleep in the kernel; sleeping matters as much as spinning, since
 * on a shared machine it is what lets the scheduler run the thread that holds the last chunk.
 *
 * Deliberately not: work stealing between tasks, nested runs, priorities, pinning.
 */
#include "os/os.h"
#include "os/park.h"

#include <stdatomic.h>
#include <stdio.h>

#define CACHE_LINE     128 /* two lines: neighbours are fetched in pairs */
#define SPIN_US        40
#define SPINS_PER_LOOK 16 /* pauses between two looks at the clock */

typedef struct lane {
    _Alignas(CACHE_LINE) _Atomic uint64_t word; /* epoch << 32 | chunks left */
    _Atomic int64_t end;                        /* chunk index behind the lane's last one */
} lane;

typedef struct worker {
    os_pool *pool;
    os_thread *thread;
    int index;
} worker;

struct os_pool {
    /* the run; written by the caller before the lanes are published */
    _Alignas(CACHE_LINE) _Atomic(os_pool_task) task;
    _Atomic(void *) context;
    _Atomic int64_t n, chunk;
    /* the bell: the epoch, on which workers sleep */
    _Alignas(CACHE_LINE) os_park bell;
    _Atomic int sleepers;
    _Atomic bool stop;
    /* the end: chunks taken or not that are not finished; `done` is 1 while the caller sleeps for it */
    _Alignas(CACHE_LINE) _Atomic int64_t pending;
    os_park done;
    /* caller only */
    _Alignas(CACHE_LINE) uint32_t epoch;
    _Atomic bool running;
    int n_threads;
    worker *workers; /* [n_threads], 0 is the caller and has no thread */
    lane *lanes;     /* [n_threads] */
    void *memory;    /* what was allocated for this struct and the lanes */
};

static inline void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::
                         : "memory"); /* `yield` is a no-op on most cores; this waits about 10 ns */
#endif
}

/* Takes one chunk of lane l. False: nothing left in it. The epoch is in the word, so a stale swap fails. */
static bool take(os_pool *p, lane *l, os_pool_task *task, void **context, int64_t *begin,
                 int64_t *end)
{
    uint64_t word = atomic_load_explicit(&l->word, memory_order_acquire);
    while ((uint32_t)word != 0) {
        *task = atomic_load_explicit(&p->task, memory_order_relaxed);
        *context = atomic_load_explicit(&p->context, memory_order_relaxed);
        int64_t n = atomic_load_explicit(&p->n, memory_order_relaxed);
        int64_t chunk = atomic_load_explicit(&p->chunk, memory_order_relaxed);
        int64_t index = atomic_load_explicit(&l->end, memory_order_relaxed) - (uint32_t)word;
        if (atomic_compare_exchange_weak_explicit(&l->word, &word, word - 1, memory_order_acq_rel,
                                                  memory_order_acquire)) {
            *begin = index * chunk;
            *end = BASE_MIN(*begin + chunk, n);
            return true;
        }
    }
    return false;
}

/* Runs chunks until no lane has any: the own lane first, then the others' in a ring. */
static void take_part(os_pool *p, int self)
{
    int64_t finished = 0;
    for (int i = 0; i < p->n_threads; i++) {
        int at = self + i < p->n_threads ? self + i : self + i - p->n_threads;
        os_pool_task task;
        void *context;
        int64_t begin, end;
        while (take(p, &p->lanes[at], &task, &context, &begin, &end)) {
            task(context, begin, end, self);
            finished++;
        }
    }
    if (finished == 0)
        return;
    /* Release: what the tasks wrote is seen by the caller. A worker that finishes last rings for a sleeping caller. */
    if (atomic_fetch_sub_explicit(&p->pending, finished, memory_order_seq_cst) == finished &&
        self != 0 && atomic_load_explicit(&p->done.word, memory_order_seq_cst) != 0) {
        atomic_store_explicit(&p->done.word, 0, memory_order_seq_cst);
        park_wake(&p->done, 1);
    }
}

/* Spins until *word is no longer `old` or SPIN_US have passed; false: it still is. */
static bool spin_while_u32(_Atomic uint32_t *word, uint32_t old)
{
    uint64_t until = 0;
    for (;;) {
        for (int i = 0; i < SPINS_PER_LOOK; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != old)
                return true;
            pause_cpu();
        }
        uint64_t now = os_now_us();
        if (until == 0)
            until = now + SPIN_US;
        else if (now >= until)
            return false;
    }
}

static bool spin_for_end(os_pool *p)
{
    uint64_t until = 0;
    for (;;) {
        for (int i = 0; i < SPINS_PER_LOOK; i++) {
            if (atomic_load_explicit(&p->pending, memory_order_acquire) == 0)
                return true;
            pause_cpu();
        }
        uint64_t now = os_now_us();
        if (until == 0)
            until = now + SPIN_US;
        else if (now >= until)
            return false;
    }
}

static void wait_for_end(os_pool *p)
{
    if (spin_for_end(p))
        return;
    for (;;) {
        atomic_store_explicit(&p->done.word, 1, memory_order_seq_cst);
        if (atomic_load_explicit(&p->pending, memory_order_seq_cst) == 0)
            break;
        park_wait(&p->done, 1);
    }
    atomic_store_explicit(&p->done.word, 0, memory_order_relaxed);
}

static void work(void *context)
{
    worker *self = context;
    os_pool *p = self->pool;
    uint32_t seen = 0;
    for (;;) {
        if (!spin_while_u32(&p->bell.word, seen)) {
            /* Either the caller's bell comes before our look at it, or it sees that we sleep. */
            atomic_fetch_add_explicit(&p->sleepers, 1, memory_order_seq_cst);
            while (atomic_load_explicit(&p->bell.word, memory_order_seq_cst) == seen)
                park_wait(&p->bell, seen);
            atomic_fetch_sub_explicit(&p->sleepers, 1, memory_order_relaxed);
        }
        seen = atomic_load_explicit(&p->bell.word, memory_order_acquire);
        if (atomic_load_explicit(&p->stop, memory_order_relaxed))
            return;
        take_part(p, self->index);
    }
}

/* Rings; n_wanted = how many workers could be of use. */
static void ring(os_pool *p, int64_t n_wanted)
{
    atomic_store_explicit(&p->bell.word, p->epoch, memory_order_seq_cst);
    int sleepers = atomic_load_explicit(&p->sleepers, memory_order_seq_cst);
    if (sleepers > 0)
        park_wake(&p->bell, (int)BASE_MIN(n_wanted, (int64_t)sleepers));
}

/* One published run; n_chunks per lane fits 32 bits. */
static void run_published(os_pool *p, os_pool_task task, void *context, int64_t n, int64_t chunk,
                          int64_t n_chunks)
{
    atomic_store_explicit(&p->task, task, memory_order_relaxed);
    atomic_store_explicit(&p->context, context, memory_order_relaxed);
    atomic_store_explicit(&p->n, n, memory_order_relaxed);
    atomic_store_explicit(&p->chunk, chunk, memory_order_relaxed);
    atomic_store_explicit(&p->pending, n_chunks, memory_order_relaxed);
    p->epoch++;
    int64_t share = n_chunks / p->n_threads, rest = n_chunks % p->n_threads, end = 0;
    for (int i = 0; i < p->n_threads; i++) {
        int64_t count = share + (i < rest);
        end += count;
        atomic_store_explicit(&p->lanes[i].end, end, memory_order_relaxed);
        atomic_store_explicit(&p->lanes[i].word, (uint64_t)p->epoch << 32 | (uint64_t)count,
                              memory_order_release);
    }
    ring(p, n_chunks - 1);
    take_part(p, 0);
    wait_for_end(p);
}

void os_pool_run(os_pool *p, os_pool_task task, void *context, int64_t n, int64_t chunk)
{
    REQUIRE(chunk > 0);
    if (n <= 0)
        return;
    REQUIRE(!atomic_exchange_explicit(&p->running, true, memory_order_acquire));
    if (p->n_threads == 1) {
        for (int64_t begin = 0; begin < n; begin += chunk)
            task(context, begin, BASE_MIN(begin + chunk, n), 0);
    } else if (n <= chunk) {
        task(context, 0, n, 0);
    } else {
        int64_t n_chunks = (n - 1) / chunk + 1;
        REQUIRE(n_chunks / p->n_threads < UINT32_MAX);
        run_published(p, task, context, n, chunk, n_chunks);
    }
    atomic_store_explicit(&p->running, false, memory_order_release);
}

int os_pool_threads(const os_pool *p)
{
    return p->n_threads;
}

static void end_workers(os_pool *p)
{
    atomic_store_explicit(&p->stop, true, memory_order_relaxed);
    p->epoch++;
    ring(p, p->n_threads);
    for (int i = 1; i < p->n_threads; i++)
        if (p->workers[i].thread)
            os_thread_join(p->workers[i].thread);
}

void os_pool_destroy(os_pool *p)
{
    if (!p)
        return;
    REQUIRE(!atomic_load_explicit(&p->running, memory_order_acquire));
    end_workers(p);
    park_fini(&p->bell);
    park_fini(&p->done);
    base_free(p->workers);
    base_free(p->memory);
}

status os_pool_create(os_pool **out, int n_threads, err *e)
{
    if (n_threads < 1 || n_threads > 1024)
        return err_set(e, STATUS_INVALID, "pool of %d threads: must be 1 to 1024", n_threads);
    size_t bytes = sizeof(os_pool) + (size_t)n_threads * sizeof(lane) + CACHE_LINE;
    void *memory = base_zalloc(1, bytes);
    worker *workers = base_zalloc((size_t)n_threads, sizeof(worker));
    if (!memory || !workers) {
        base_free(memory);
        base_free(workers);
        return err_set(e, STATUS_NO_MEMORY, "no memory for a pool of %d threads", n_threads);
    }
    os_pool *p = (os_pool *)(((uintptr_t)memory + CACHE_LINE - 1) & ~(uintptr_t)(CACHE_LINE - 1));
    p->memory = memory;
    p->lanes = (lane *)(p + 1);
    p->workers = workers;
    p->n_threads = n_threads;
    park_init(&p->bell);
    park_init(&p->done);
    for (int i = 1; i < n_threads; i++) {
        char name[32];
        snprintf(name, sizeof name, "pool %d", i);
        workers[i] = (worker){.pool = p, .index = i};
        status s = os_thread_create(&workers[i].thread, work, &workers[i], name, e);
        if (s != STATUS_OK) {
            os_pool_destroy(p);
            return s;
        }
    }
    *out = p;
    return STATUS_OK;
}
