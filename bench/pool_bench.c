/*
 * What a dispatch of the fork-join pool costs: runs of two tiny chunks per thread back to back, with a serial gap
 * between them, and beside a busy loop of our own. Usage: pool_bench [threads]. Prints; asserts nothing.
 */
#include "os/os.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

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

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(os_pool *p, const char *what, os_pool_task task, int64_t n, double gap_us,
                    int runs)
{
    static double us[RUNS];
    uint64_t total = 0;
    for (int i = 0; i < runs; i++) {
        if (gap_us > 0)
            spin_us(gap_us);
        uint64_t start = os_now_us();
        os_pool_run(p, task, NULL, n, 1);
        us[i] = (double)(os_now_us() - start);
        total += (uint64_t)us[i];
    }
    qsort(us, (size_t)runs, sizeof *us, compare);
    printf("%-44s mean %8.2f us  median %6.0f  p99 %6.0f  max %6.0f\n", what, (double)total / runs,
           us[runs / 2], us[runs - 1 - runs / 100], us[runs - 1]);
}

static void all(os_pool *p)
{
    uint64_t start = os_now_us();
    for (int i = 0; i < RUNS; i++)
        os_pool_run(p, nothing, NULL, 2 * os_pool_threads(p), 1);
    printf("%-44s mean %8.2f us\n", "back to back, empty chunks",
           (double)(os_now_us() - start) / RUNS);
    int n = 2 * os_pool_threads(p);
    measure(p, "5 us apart, empty chunks", nothing, n, 5, RUNS);
    measure(p, "1 ms apart, empty chunks (workers sleep)", nothing, n, 1000, 1000);
    measure(p, "5 us apart, 10 us x 32 chunks a thread", work, 32 * os_pool_threads(p), 5, 2000);
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
        fprintf(stderr, "usage: pool_bench [threads]\n");
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
    printf("%llu threads, %s\n-- quiet\n", (unsigned long long)threads, os_cpu_name());
    all(p);
    printf("-- beside one busy loop\n");
    if (os_thread_create(&t, busy, NULL, "busy", &e) != STATUS_OK) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    all(p);
    atomic_store(&stop, true);
    os_thread_join(t);
    os_pool_destroy(p);
    return 0;
}
