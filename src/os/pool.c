/*
 * The fork-join pool that runs kernels.
 *
 * A run over [0, n) is cut into chunks; every thread owns a contiguous lane of them and takes one (or, shrinking, several) from its front
 * with one compare-and-swap, then helps the others' lanes. A lane is one word, (epoch << 32 | chunks not yet taken): the caller
 * publishes a run by writing all lanes with a new epoch, so a worker that comes late, or was stopped between reading
 * and swapping, either finds nothing left or fails its swap. The parameters of a run are valid exactly while its lane
 * words have chunks left, which is why they may be read before the swap and are discarded when it fails.
 *
 * The caller takes part and therefore never waits for a worker that has not started: it waits for the chunks that were
 * taken (`pending`). Both sides spin for SPIN_US, then sleep in the kernel.
 *
 * Shared machines: a thread that is preempted inside a chunk would hold up the run for milliseconds. Three rules, where the system
 * lets us (seat.h): workers keep off the caller's core; a caller that waits moves a worker that does not run onto its own core and
 * sleeps there for it; an idle worker that sees the caller not running changes cores with it. So a foreign busy thread ends up
 * beside a worker, which then takes no chunks while it is out, and nobody waits for it. The caller's own mask is restored before
 * os_pool_run returns.
 *
 * Deliberately not: work stealing between tasks, nested runs, priorities, fixed pinning.
 */
#include "os/os.h"
#include "os/park.h"
#include "os/seat.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define CACHE_LINE     128 /* two lines: neighbours are fetched in pairs */
#define SPIN_US        40
#define WATCH_US       20 /* a thread whose CPU time grows by less than a quarter of it is not running */
#define NAP_US         500 /* longest sleep while a chunk is out: then look again whether its thread runs */
#define SPINS_PER_LOOK 16 /* pauses between two looks at the clock */

typedef struct lane {
    _Alignas(CACHE_LINE) _Atomic uint64_t word; /* epoch << 32 | chunks left */
    _Atomic int64_t end;                        /* chunk index behind the lane's last one */
} lane;

typedef struct worker {
    _Alignas(CACHE_LINE) os_seat seat;
    _Atomic bool holds; /* chunks that are not finished */
    bool moved;         /* caller only: its mask is one core */
    int index;
    os_pool *pool;
    os_thread *thread;
} worker;

/* Of the caller's mask. MOVING and MOVED are set by a worker, HOME by the caller. */
enum { SEAT_HOME, SEAT_MOVING, SEAT_MOVED };

struct os_pool {
    /* the run; written by the caller before the lanes are published */
    _Alignas(CACHE_LINE) _Atomic(os_pool_task) task;
    _Atomic(void *) context;
    _Atomic int64_t n, chunk,
        most; /* most: chunks taken at once while half of a lane's rest is more */
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
    pthread_t caller;
    bool caller_known, any_moved;
    int caller_core; /* that the workers keep off; −1: none */
    int n_threads;
    bool seats; /* threads are moved */
    os_cores cores, caller_cores;
    _Atomic int caller_seat; /* SEAT_ */
    worker *workers;         /* [n_threads], 0 is the caller and has no thread */
    lane *lanes;             /* [n_threads] */
    void *memory;            /* what was allocated for this struct, the lanes and the workers */
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

/* Takes chunks of lane l; how many. 0: nothing left in it. The epoch is in the word, so a stale swap fails. */
static int64_t take(os_pool *p, lane *l, os_pool_task *task, void **context, int64_t *begin,
                    int64_t *end)
{
    uint64_t word = atomic_load_explicit(&l->word, memory_order_acquire);
    while ((uint32_t)word != 0) {
        *task = atomic_load_explicit(&p->task, memory_order_relaxed);
        *context = atomic_load_explicit(&p->context, memory_order_relaxed);
        int64_t n = atomic_load_explicit(&p->n, memory_order_relaxed);
        int64_t chunk = atomic_load_explicit(&p->chunk, memory_order_relaxed);
        int64_t most = atomic_load_explicit(&p->most, memory_order_relaxed);
        int64_t left = (uint32_t)word, count = BASE_MAX(BASE_MIN(most, left / 2), 1);
        int64_t index = atomic_load_explicit(&l->end, memory_order_relaxed) - left;
        if (atomic_compare_exchange_weak_explicit(&l->word, &word, word - (uint64_t)count,
                                                  memory_order_acq_rel, memory_order_acquire)) {
            *begin = index * chunk;
            *end = BASE_MIN(*begin + count * chunk, n);
            return count;
        }
    }
    return 0;
}

/* Runs chunks until no lane has any: the own lane first, then the others' in a ring. */
static void take_part(os_pool *p, int self)
{
    int64_t finished = 0;
    _Atomic bool *holds = &p->workers[self].holds;
    for (int i = 0; i < p->n_threads; i++) {
        int at = self + i < p->n_threads ? self + i : self + i - p->n_threads;
        os_pool_task task;
        void *context;
        int64_t begin, end, count;
        while ((count = take(p, &p->lanes[at], &task, &context, &begin, &end)) > 0) {
            if (finished == 0)
                atomic_store_explicit(holds, true, memory_order_relaxed);
            finished += count;
            task(context, begin, end, self);
        }
    }
    if (finished == 0)
        return;
    atomic_store_explicit(holds, false, memory_order_relaxed);
    /* Release: what the tasks wrote is seen by the caller. A worker that finishes last rings for a sleeping caller. */
    if (atomic_fetch_sub_explicit(&p->pending, finished, memory_order_seq_cst) == finished &&
        self != 0 && atomic_load_explicit(&p->done.word, memory_order_seq_cst) != 0) {
        atomic_store_explicit(&p->done.word, 0, memory_order_seq_cst);
        park_wake(&p->done, 1);
    }
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

static bool run_ended(os_pool *p, uint32_t unused)
{
    (void)unused;
    return atomic_load_explicit(&p->pending, memory_order_acquire) == 0;
}

static bool bell_rang(os_pool *p, uint32_t seen)
{
    return atomic_load_explicit(&p->bell.word, memory_order_acquire) != seen;
}

/* Spins until come(p, argument), for `us` at most; false: the time passed. */
static inline bool spin_until(os_pool *p, bool (*come)(os_pool *p, uint32_t argument),
                              uint32_t argument, uint64_t us)
{
    uint64_t until = 0;
    for (;;) {
        for (int i = 0; i < SPINS_PER_LOOK; i++) {
            if (come(p, argument))
                return true;
            pause_cpu();
        }
        uint64_t now = os_now_us();
        if (until == 0)
            until = now + us;
        else if (now >= until)
            return false;
    }
}

static bool holds_chunks(worker *w)
{
    return atomic_load_explicit(&w->holds, memory_order_relaxed);
}

/* Is a thread with chunks out not running? before: its seat_ran_us WATCH_US ago. */
static bool is_stuck(worker *w, uint64_t before)
{
    return holds_chunks(w) && before != 0 && seat_ran_us(&w->seat) - before < WATCH_US / 4;
}

/* The caller waits and has a core to give. True: the run ended meanwhile. */
static bool rescue_workers(os_pool *p)
{
    enum { WATCHED = 64 };
    uint64_t before[WATCHED] = {0};
    int n = BASE_MIN(p->n_threads, (int)WATCHED);
    for (int i = 1; i < n; i++)
        if (holds_chunks(&p->workers[i]))
            before[i] = seat_ran_us(&p->workers[i].seat);
    if (spin_until(p, run_ended, 0, WATCH_US))
        return true;
    int core = cores_here();
    for (int i = 1; i < n; i++)
        if (is_stuck(&p->workers[i], before[i]) && seat_move(&p->workers[i].seat, &p->cores, core))
            p->workers[i].moved = p->any_moved = true;
    return false;
}

static void wait_for_end(os_pool *p)
{
    while (!spin_until(p, run_ended, 0, SPIN_US)) {
        if (p->seats && rescue_workers(p))
            break;
        atomic_store_explicit(&p->done.word, 1, memory_order_seq_cst);
        if (atomic_load_explicit(&p->pending, memory_order_seq_cst) == 0)
            break;
        park_wait(&p->done, 1, p->seats ? NAP_US : 0);
    }
    atomic_store_explicit(&p->done.word, 0, memory_order_relaxed);
}

/* A worker without chunks, while others are out: if the caller holds them and is not running, it gets this core. */
static void rescue_caller(os_pool *p, worker *self, uint32_t seen)
{
    worker *caller = &p->workers[0];
    uint64_t before = holds_chunks(caller) ? seat_ran_us(&caller->seat) : 0;
    if (before == 0 || spin_until(p, bell_rang, seen, WATCH_US) || !is_stuck(caller, before))
        return;
    int home = SEAT_HOME;
    if (!atomic_compare_exchange_strong(&p->caller_seat, &home, SEAT_MOVING))
        return;
    /* Either we see that the run has ended, or the caller sees MOVING when it ends and waits for us. */
    int core = cores_here();
    if (atomic_load(&p->pending) > 0 && seat_move(&caller->seat, &p->caller_cores, core))
        seat_keep_off(&self->seat, &p->cores, core);
    atomic_store(&p->caller_seat, SEAT_MOVED);
}

/* The end of a run: the caller's mask is as it was. */
static void bring_caller_home(os_pool *p)
{
    if (atomic_load(&p->caller_seat) == SEAT_HOME)
        return;
    while (atomic_load(&p->caller_seat) == SEAT_MOVING)
        pause_cpu();
    seat_free(&p->workers[0].seat, &p->caller_cores);
    atomic_store(&p->caller_seat, SEAT_HOME);
}

/* Workers keep off the caller's core. One look at a register a run, and system calls only when it has changed. */
static void keep_off_caller(os_pool *p)
{
    pthread_t self = pthread_self();
    if (!p->caller_known || !pthread_equal(self, p->caller)) {
        seat_take(&p->workers[0].seat);
        cores_find(&p->caller_cores);
        p->caller = self;
        p->caller_known = true;
    }
    int core = cores_here();
    if (core == p->caller_core && !p->any_moved)
        return;
    for (int i = 1; i < p->n_threads; i++) {
        worker *w = &p->workers[i];
        if (core != p->caller_core || w->moved)
            seat_keep_off(&w->seat, &p->cores, core);
        w->moved = false;
    }
    p->any_moved = false;
    p->caller_core = core;
}

static void work(void *context)
{
    worker *self = context;
    os_pool *p = self->pool;
    uint32_t seen = 0;
    seat_take(&self->seat);
    for (;;) {
        if (!spin_until(p, bell_rang, seen, SPIN_US)) {
            /* Either the caller's bell comes before our look at it, or it sees that we sleep. */
            atomic_fetch_add_explicit(&p->sleepers, 1, memory_order_seq_cst);
            while (atomic_load_explicit(&p->bell.word, memory_order_seq_cst) == seen) {
                bool out = p->seats && !run_ended(p, 0);
                if (out)
                    rescue_caller(p, self, seen);
                park_wait(&p->bell, seen, out ? NAP_US : 0);
            }
            atomic_fetch_sub_explicit(&p->sleepers, 1, memory_order_relaxed);
        }
        seen = atomic_load_explicit(&p->bell.word, memory_order_acquire);
        if (atomic_load_explicit(&p->stop, memory_order_relaxed))
            return;
        take_part(p, self->index);
    }
}

/* ---- running --------------------------------------------------------------------------------------------------- */

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
                          int64_t most, int64_t n_chunks)
{
    atomic_store_explicit(&p->task, task, memory_order_relaxed);
    atomic_store_explicit(&p->context, context, memory_order_relaxed);
    atomic_store_explicit(&p->n, n, memory_order_relaxed);
    atomic_store_explicit(&p->chunk, chunk, memory_order_relaxed);
    atomic_store_explicit(&p->most, most, memory_order_relaxed);
    atomic_store_explicit(&p->pending, n_chunks, memory_order_relaxed);
    if (p->seats)
        keep_off_caller(p);
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
    bring_caller_home(p);
}

void os_pool_run_shrinking(os_pool *p, os_pool_task task, void *context, int64_t n, int64_t chunk,
                           int64_t most)
{
    REQUIRE(chunk > 0 && most > 0);
    if (n <= 0)
        return;
    REQUIRE(!atomic_exchange_explicit(&p->running, true, memory_order_acquire));
    if (p->n_threads == 1) {
        chunk *= most;
        for (int64_t begin = 0; begin < n; begin += chunk)
            task(context, begin, BASE_MIN(begin + chunk, n), 0);
    } else if (n <= chunk) {
        task(context, 0, n, 0);
    } else {
        int64_t n_chunks = (n - 1) / chunk + 1;
        REQUIRE(n_chunks / p->n_threads < UINT32_MAX);
        run_published(p, task, context, n, chunk, most, n_chunks);
    }
    atomic_store_explicit(&p->running, false, memory_order_release);
}

void os_pool_run(os_pool *p, os_pool_task task, void *context, int64_t n, int64_t chunk)
{
    os_pool_run_shrinking(p, task, context, n, chunk, 1);
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
    base_free(p->memory);
}

status os_pool_create(os_pool **out, int n_threads, err *e)
{
    if (n_threads < 1 || n_threads > 1024)
        return err_set(e, STATUS_INVALID, "pool of %d threads: must be 1 to 1024", n_threads);
    size_t bytes =
        sizeof(os_pool) + (size_t)n_threads * (sizeof(lane) + sizeof(worker)) + CACHE_LINE;
    void *memory = base_zalloc(1, bytes);
    if (!memory)
        return err_set(e, STATUS_NO_MEMORY, "no memory for a pool of %d threads", n_threads);
    os_pool *p = (os_pool *)(((uintptr_t)memory + CACHE_LINE - 1) & ~(uintptr_t)(CACHE_LINE - 1));
    p->memory = memory;
    p->lanes = (lane *)(p + 1);
    p->workers = (worker *)(p->lanes + n_threads);
    p->n_threads = n_threads;
    p->caller_core = -1;
    cores_find(&p->cores);
    p->seats =
        n_threads > 1 && n_threads <= p->cores.n; /* more threads than cores: nothing to win */
    park_init(&p->bell);
    park_init(&p->done);
    for (int i = 1; i < n_threads; i++) {
        char name[32];
        snprintf(name, sizeof name, "pool %d", i);
        worker *w = &p->workers[i];
        w->pool = p;
        w->index = i;
        status s = os_thread_create(&w->thread, work, w, name, e);
        if (s != STATUS_OK) {
            os_pool_destroy(p);
            return s;
        }
    }
    *out = p;
    return STATUS_OK;
}
