/*
 * What the fork-join pool costs: a dispatch of empty chunks back to back, after a short serial gap, and to sleeping workers; then work
 * whose chunks take about 10 us, alone and beside a busy loop of this process, in turns of a second. A fair share beside one loop is
 * 0.75 of the quiet rate with two threads on two cores.
 *
 *   bench_pool [threads]
 *
 * Prints; asserts nothing.
 */
#include "os/os.h"

#include <stdatomic.h>
#include <stdio.h>

#define RUNS 20000

static void spin_us(double us)
{
    uint64_t until = os_now_us() + (uint64_t)us;
    while (os_now_us() < until)
        continue;
}

static void nothing(void *context, int64_t begin, int64_t end, int worker)
{
    (void)context;
    (void)begin;
    (void)end;
    (void)worker;
}

static uint64_t ten_us_loops = 1000;

/* A fixed amount of work, about 10 us of one core. */
static void work(void *context, int64_t begin, int64_t end, int worker)
{
    volatile uint64_t x = 0;
    (void)context;
    (void)worker;
    for (int64_t i = begin; i < end; i++)
        for (uint64_t k = 0; k < ten_us_loops; k++)
            x = x + k;
}

static void calibrate(void)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 50; i++) {
        uint64_t start = os_now_us();
        work(NULL, 0, 20, 0);
        uint64_t us = os_now_us() - start;
        best = us < best ? us : best;
    }
    if (best > 0)
        ten_us_loops = ten_us_loops * 200 / best;
}

static void print_mean(const char *what, uint64_t us, int runs)
{
    printf("%-46s %8.2f us\n", what, (double)us / runs);
}

static void dispatches(os_pool *p)
{
    int n = 2 * os_pool_threads(p);
    uint64_t total = 0, start = os_now_us();
    for (int i = 0; i < RUNS; i++)
        os_pool_run(p, nothing, NULL, n, 1);
    print_mean("a dispatch, back to back", os_now_us() - start, RUNS);
    for (int i = 0; i < RUNS; i++) {
        spin_us(5);
        start = os_now_us();
        os_pool_run(p, nothing, NULL, n, 1);
        total += os_now_us() - start;
    }
    print_mean("a dispatch, 5 us apart", total, RUNS);
    total = 0;
    for (int i = 0; i < RUNS / 20; i++) {
        spin_us(1000);
        start = os_now_us();
        os_pool_run(p, nothing, NULL, n, 1);
        total += os_now_us() - start;
    }
    print_mean("a dispatch to sleeping workers", total, RUNS / 20);
}

/* Runs of 32 chunks a thread, 5 us apart, for a second: microseconds a run. */
static double second_of_work(os_pool *p)
{
    uint64_t start = os_now_us(), now = start;
    int runs = 0;
    for (; now - start < 1000000; now = os_now_us(), runs++) {
        os_pool_run(p, work, NULL, 32 * os_pool_threads(p), 1);
        spin_us(5);
    }
    return (double)(now - start) / runs;
}

static atomic_bool stop;

static void busy(void *context)
{
    (void)context;
    while (!atomic_load_explicit(&stop, memory_order_relaxed))
        continue;
}

int main(int argc, char **argv)
{
    uint64_t threads = (uint64_t)os_cpu_count();
    if (argc > 1 && (!base_parse_u64(argv[1], &threads) || threads < 1 || threads > 1024)) {
        fprintf(stderr, "usage: bench_pool [threads]\n");
        return 2;
    }
    err e;
    os_pool *p;
    os_thread *t;
    if (os_pool_create(&p, (int)threads, &e) != STATUS_OK) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    calibrate();
    printf("%llu threads, %s\n", (unsigned long long)threads, os_cpu_name());
    dispatches(p);
    for (int i = 0; i < 5; i++) {
        double quiet = second_of_work(p);
        atomic_store(&stop, false);
        if (os_thread_create(&t, busy, NULL, "busy", &e) != STATUS_OK) {
            fprintf(stderr, "%s\n", e.text);
            return 1;
        }
        double shared = second_of_work(p);
        atomic_store(&stop, true);
        os_thread_join(t);
        printf("320 us of work a thread: quiet %5.0f us, beside a busy loop %5.0f us: %.2f of the "
               "quiet rate\n",
               quiet, shared, quiet / shared);
    }
    os_pool_destroy(p);
    return 0;
}
