/*
 * The fork-join pool: every item exactly once, however small, large, frequent or uneven the runs are; workers that never
 * get a core; worker numbers that are unique at any moment; what tasks wrote is seen by the caller.
 */
#include "os/os.h"

#include <setjmp.h>
#include <stdatomic.h>
#include <string.h>

#include <cmocka.h>

#ifdef __linux__
#include <sched.h>
#endif

#define ITEMS 5000

typedef struct tally {
    int plain
        [ITEMS]; /* not atomic: a race would be seen by the thread sanitizer, a lost item by the check */
    int64_t longest;
    atomic_int inside[64]; /* by worker */
    atomic_int overlaps;
    int n_threads;
} tally;

static void count(void *context, int64_t begin, int64_t end, int worker)
{
    tally *t = context;
    if (worker < 0 || worker >= t->n_threads || atomic_fetch_add(&t->inside[worker], 1) != 0)
        atomic_fetch_add(&t->overlaps, 1);
    for (int64_t i = begin; i < end; i++)
        t->plain[i]++;
    atomic_fetch_sub(&t->inside[worker], 1);
}

static void every_item_once(void **state)
{
    (void)state;
    static tally t;
    static const int threads[] = {1, 2, 3, 7, 16};
    static const int64_t sizes[] = {0, 1, 2, 3, 5, 64, 65, 1000, ITEMS};
    static const int64_t chunks[] = {1, 2, 7, 64, ITEMS, INT64_MAX / 2};
    for (size_t a = 0; a < BASE_COUNT(threads); a++) {
        os_pool *p;
        assert_int_equal(os_pool_create(&p, threads[a], NULL), STATUS_OK);
        assert_int_equal(os_pool_threads(p), threads[a]);
        memset(&t, 0, sizeof t);
        t.n_threads = threads[a];
        int runs = 0, expected[ITEMS] = {0};
        for (size_t b = 0; b < BASE_COUNT(sizes); b++)
            for (size_t c = 0; c < BASE_COUNT(chunks); c++, runs++) {
                os_pool_run(p, count, &t, sizes[b], chunks[c]);
                os_pool_run_shrinking(p, count, &t, sizes[b], BASE_MIN(chunks[c], 64),
                                      1 + runs % 9);
                for (int64_t i = 0; i < sizes[b]; i++)
                    expected[i] += 2;
            }
        assert_memory_equal(t.plain, expected, sizeof expected);
        assert_int_equal(atomic_load(&t.overlaps), 0);
        os_pool_destroy(p);
    }
}

typedef struct pieces {
    int64_t chunk;
    atomic_int wrong;
} pieces;

static void check_piece(void *context, int64_t begin, int64_t end, int worker)
{
    pieces *p = context;
    (void)worker;
    if (end <= begin || end - begin > p->chunk || begin % p->chunk != 0)
        atomic_fetch_add(&p->wrong, 1);
}

/* Kernels rely on it: pieces begin on multiples of the chunk. */
static void pieces_are_aligned_chunks(void **state)
{
    (void)state;
    os_pool *p;
    assert_int_equal(os_pool_create(&p, 3, NULL), STATUS_OK);
    for (int64_t chunk = 1; chunk < 20; chunk++)
        for (int64_t n = 1; n < 50; n++) {
            pieces q = {.chunk = chunk};
            os_pool_run(p, check_piece, &q, n, chunk);
            assert_int_equal(atomic_load(&q.wrong), 0);
        }
    os_pool_destroy(p);
}

typedef struct shrinking {
    int64_t chunk, most;
    atomic_int wrong, smallest;
} shrinking;

static void note_piece(void *context, int64_t begin, int64_t end, int worker)
{
    shrinking *s = context;
    (void)worker;
    if (end <= begin || end - begin > s->chunk * s->most || begin % s->chunk != 0)
        atomic_fetch_add(&s->wrong, 1);
    if (end - begin <= s->chunk)
        atomic_fetch_add(&s->smallest, 1);
}

/* Never more than asked for, on multiples of the chunk, and every thread's share ends with a piece of one chunk. */
static void pieces_shrink(void **state)
{
    (void)state;
    os_pool *p;
    assert_int_equal(os_pool_create(&p, 3, NULL), STATUS_OK);
    for (int64_t chunk = 1; chunk < 5; chunk++)
        for (int64_t most = 1; most < 9; most++)
            for (int64_t n = 4 * chunk; n < 200; n += 13) {
                shrinking s = {.chunk = chunk, .most = most};
                os_pool_run_shrinking(p, note_piece, &s, n, chunk, most);
                assert_int_equal(atomic_load(&s.wrong), 0);
                assert_true(atomic_load(&s.smallest) >= 3);
            }
    os_pool_destroy(p);
}

typedef struct tiny {
    int64_t values[8];
    int64_t stamp;
} tiny;

static void stamp_items(void *context, int64_t begin, int64_t end, int worker)
{
    tiny *t = context;
    (void)worker;
    for (int64_t i = begin; i < end; i++)
        t->values[i] += t->stamp; /* written by one thread in this run, by another in the next */
}

/* Consecutive runs of different contexts and sizes as fast as they go: a late worker of run k must not touch run k + 1. */
static void many_tiny_runs(void **state)
{
    (void)state;
    static const int threads[] = {2, 4};
    for (size_t a = 0; a < BASE_COUNT(threads); a++) {
        os_pool *p;
        assert_int_equal(os_pool_create(&p, threads[a], NULL), STATUS_OK);
        tiny contexts[3] = {{{0}, 0}};
        int64_t sums[3][8] = {{0}};
        for (int64_t run = 1; run <= 60000; run++) {
            tiny *t = &contexts[run % 3];
            int64_t n = 1 + run % 8;
            t->stamp = run;
            os_pool_run(p, stamp_items, t, n, 1 + run % 2);
            for (int64_t i = 0; i < n; i++)
                sums[run % 3][i] += run;
            if (run % 5000 == 0)
                os_sleep_us(2000); /* workers fall asleep here */
        }
        for (int k = 0; k < 3; k++)
            assert_memory_equal(contexts[k].values, sums[k], sizeof sums[k]);
        os_pool_destroy(p);
    }
}

/* The context is on the stack of a function that has returned when a late worker looks. */
static int64_t run_on_the_stack(os_pool *p, int64_t n)
{
    tiny t = {{0}, 1};
    os_pool_run(p, stamp_items, &t, n, 1);
    int64_t sum = 0;
    for (int i = 0; i < 8; i++)
        sum += t.values[i];
    memset(&t, 0xA5, sizeof t);
    return sum;
}

static void contexts_die_with_the_run(void **state)
{
    (void)state;
    os_pool *p;
    assert_int_equal(os_pool_create(&p, 4, NULL), STATUS_OK);
    for (int64_t run = 0; run < 20000; run++)
        assert_int_equal(run_on_the_stack(p, 2 + run % 7), 2 + run % 7);
    os_pool_destroy(p);
}

static void wait_for_worker(void *context, int64_t begin, int64_t end, int worker)
{
    atomic_int *seen = context;
    (void)begin;
    (void)end;
    if (worker == 0) { /* the caller stays in its chunk until a worker has come, a minute at most */
        for (int i = 0; i < 60000 && atomic_load(&seen[1]) == 0; i++)
            os_sleep_us(1000);
    }
    atomic_fetch_add(&seen[worker != 0], 1);
}

static void workers_do_take_part(void **state)
{
    (void)state;
    os_pool *p;
    assert_int_equal(os_pool_create(&p, 2, NULL), STATUS_OK);
    for (int round = 0; round < 20; round++) {
        atomic_int seen[2] = {0};
        if (round % 2)
            os_sleep_us(3000); /* from sleep as well as from spinning */
        os_pool_run(p, wait_for_worker, seen, 8, 1);
        assert_true(atomic_load(&seen[1]) > 0);
        assert_int_equal(atomic_load(&seen[0]) + atomic_load(&seen[1]), 8);
    }
    os_pool_destroy(p);
}

static atomic_bool stop_hogs;

static void hog(void *context)
{
    (void)context;
    while (!atomic_load_explicit(&stop_hogs, memory_order_relaxed))
        continue;
}

/* More busy threads than cores, and far more workers than cores: most workers start late or never, nothing is lost. */
static void starved_workers(void **state)
{
    (void)state;
    os_thread *hogs[8];
    int n_hogs = BASE_MIN(os_cpu_count() + 1, 8);
    atomic_store(&stop_hogs, false);
    for (int i = 0; i < n_hogs; i++)
        assert_int_equal(os_thread_create(&hogs[i], hog, NULL, "hog", NULL), STATUS_OK);
    os_pool *p;
    assert_int_equal(os_pool_create(&p, 24, NULL), STATUS_OK);
    tiny t = {{0}, 1};
    for (int run = 0; run < 1000; run++)
        os_pool_run(p, stamp_items, &t, 8, 1);
    for (int i = 0; i < 8; i++)
        assert_int_equal(t.values[i], 1000);
    os_pool_destroy(p);
    atomic_store(&stop_hogs, true);
    for (int i = 0; i < n_hogs; i++)
        os_thread_join(hogs[i]);
}

#ifdef __linux__
static void long_chunk(void *context, int64_t begin, int64_t end, int worker)
{
    volatile int sink = 0;
    (void)context;
    (void)worker;
    for (int64_t i = begin; i < end; i++)
        for (int k = 0; k < 20000; k++)
            sink = k;
    (void)sink;
}

/* The pool may move threads that are preempted; after a run the caller may use the cores that it could before. */
static void the_caller_keeps_its_cores(void **state)
{
    (void)state;
    os_thread *hogs[4];
    int n_hogs = BASE_MIN(os_cpu_count(), 4);
    atomic_store(&stop_hogs, false);
    for (int i = 0; i < n_hogs; i++)
        assert_int_equal(os_thread_create(&hogs[i], hog, NULL, "hog", NULL), STATUS_OK);
    os_pool *p;
    assert_int_equal(os_pool_create(&p, BASE_MAX(os_cpu_count(), 2), NULL), STATUS_OK);
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (int run = 0; run < 400; run++) {
        os_pool_run(p, long_chunk, NULL, 16, 1);
        assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
        assert_true(CPU_EQUAL(&before, &after));
    }
    os_pool_destroy(p);
    atomic_store(&stop_hogs, true);
    for (int i = 0; i < n_hogs; i++)
        os_thread_join(hogs[i]);
}
#endif

static void pools_without_work(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) { /* destroyed while workers start, spin or sleep */
        os_pool *p;
        assert_int_equal(os_pool_create(&p, 1 + i % 5, NULL), STATUS_OK);
        if (i % 3 == 0)
            os_sleep_us(500);
        os_pool_destroy(p);
    }
    os_pool_destroy(NULL);
    os_pool *p = (os_pool *)&p;
    os_pool *untouched = p;
    err e;
    assert_int_equal(os_pool_create(&p, 0, &e), STATUS_INVALID);
    assert_int_equal(os_pool_create(&p, 100000, &e), STATUS_INVALID);
    assert_non_null(strstr(e.text, "100000"));
    assert_ptr_equal(p, untouched);
}

static void pool_without_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 100; n++) {
        os_pool *p = NULL;
        err e;
        base_fail_after(n);
        status s = os_pool_create(&p, 4, &e);
        base_fail_after(0);
        if (s == STATUS_OK) {
            assert_true(n > 2);
            os_pool_destroy(p);
            return;
        }
        assert_int_equal(s, STATUS_NO_MEMORY);
        assert_null(p);
    }
    fail_msg("os_pool_create never succeeded");
}

static void two_pools_at_once(void **state)
{
    (void)state;
    os_pool *a, *b;
    assert_int_equal(os_pool_create(&a, 2, NULL), STATUS_OK);
    assert_int_equal(os_pool_create(&b, 3, NULL), STATUS_OK);
    tiny x = {{0}, 1}, y = {{0}, 2};
    for (int run = 0; run < 5000; run++) {
        os_pool_run(a, stamp_items, &x, 8, 1);
        os_pool_run(b, stamp_items, &y, 8, 1);
    }
    for (int i = 0; i < 8; i++) {
        assert_int_equal(x.values[i], 5000);
        assert_int_equal(y.values[i], 10000);
    }
    os_pool_destroy(a);
    os_pool_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_once),
        cmocka_unit_test(pieces_are_aligned_chunks),
        cmocka_unit_test(pieces_shrink),
        cmocka_unit_test(many_tiny_runs),
        cmocka_unit_test(contexts_die_with_the_run),
        cmocka_unit_test(workers_do_take_part),
        cmocka_unit_test(starved_workers),
        cmocka_unit_test(pools_without_work),
        cmocka_unit_test(pool_without_memory),
        cmocka_unit_test(two_pools_at_once),
#ifdef __linux__
        cmocka_unit_test(the_caller_keeps_its_cores),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
