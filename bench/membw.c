/*
 * What this machine allows: how fast memory can be read, and how many dot products and multiply-adds it can do. The bars of
 * decode and prompt are shares of these.
 *
 *   bench_membw [--mib 1024] [--reps 5] [--threads N] [--all] [--serve] [--onlooker]
 *
 * --serve, for drivers that take turns with what they measure: after "ready", every line "N" on stdin is answered by one line, "read int8
 * f32 onlooker" at N threads, of now; the three readers that were best the first time are tried.
 *
 * --onlooker: the clock is held by a thread that does not read, as many probes have it. Where every core reads, that thread is let run some
 * milliseconds late, and starts its clock late: the figure comes out too high, by more the smaller the footprint. It is there to be
 * compared with such probes like for like; by default the clock is that of a reader.
 *
 * Reading: the best of 1, 2, 4 and 8 streams × {plain, prefetch, prefetch past the caches} × {small, huge} pages, each thread with a share
 * of its own, median of the repetitions by the wall clock; --all prints every one. The footprint must be several times the last
 * cache. Peaks: 16 independent chains in registers. Not here: latency, writes, what kernels reach of it (bench/kernel.c).
 */
#include "base/base.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define TARGET(isa) __attribute__((target(isa)))
#endif

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { REPS_MAX = 101, THREADS_MAX = 64, AHEAD = 4096 };

typedef uint64_t line __attribute__((vector_size(64), aligned(64)));

static volatile uint64_t sink;

/* Sums n bytes as S streams of whole lines. */
#define READER_BODY(S, PREFETCH)                                                                   \
    {                                                                                              \
        const unsigned char *s[S];                                                                 \
        line sum[2 * (S)];                                                                         \
        size_t share = n / (S) / 256 * 256;                                                        \
        memset(sum, 0, sizeof sum);                                                                \
        for (int i = 0; i < (S); i++)                                                              \
            s[i] = p + (size_t)i * share;                                                          \
        for (size_t at = 0; at < share; at += 128)                                                 \
            UNROLL for (int i = 0; i < (S); i++)                                                   \
            {                                                                                      \
                PREFETCH(s[i] + at + AHEAD);                                                       \
                PREFETCH(s[i] + at + AHEAD + 64);                                                  \
                sum[2 * i] += *(const line *)(const void *)(s[i] + at);                            \
                sum[2 * i + 1] += *(const line *)(const void *)(s[i] + at + 64);                   \
            }                                                                                      \
        for (int i = 0; i < 2 * (S); i++)                                                          \
            sink += sum[i][0] + sum[i][7];                                                         \
    }
#define NOTHING(address) (void)(address)
#define NEAR(address)    __builtin_prefetch(address, 0, 3)
#define PAST(address)    __builtin_prefetch(address, 0, 0)

#define READERS(suffix, target)                                                                    \
    target static void plain_1##suffix(const unsigned char *p, size_t n) READER_BODY(1, NOTHING)   \
        target static void plain_2##suffix(const unsigned char *p, size_t n) READER_BODY(          \
            2, NOTHING) target static void plain_4##suffix(const unsigned char *p, size_t n)       \
            READER_BODY(4, NOTHING) target static void plain_8##suffix(                            \
                const unsigned char *p, size_t n) READER_BODY(8, NOTHING)                          \
                target static void near_1##suffix(const unsigned char *p, size_t n) READER_BODY(   \
                    1, NEAR) target static void near_2##suffix(const unsigned char *p, size_t n)   \
                    READER_BODY(2, NEAR) target static void near_4##suffix(                        \
                        const unsigned char *p, size_t n) READER_BODY(4, NEAR)                     \
                        target static void near_8##suffix(const unsigned char *p, size_t n)        \
                            READER_BODY(8, NEAR) target static void past_1##suffix(                \
                                const unsigned char *p, size_t n) READER_BODY(1, PAST)             \
                                target static void past_4##suffix(const unsigned char *p,          \
                                                                  size_t n)                        \
                                    READER_BODY(4, PAST) static const reader readers##suffix[] = { \
                                        {"plain", 1, plain_1##suffix},                             \
                                        {"plain", 2, plain_2##suffix},                             \
                                        {"plain", 4, plain_4##suffix},                             \
                                        {"plain", 8, plain_8##suffix},                             \
                                        {"prefetch", 1, near_1##suffix},                           \
                                        {"prefetch", 2, near_2##suffix},                           \
                                        {"prefetch", 4, near_4##suffix},                           \
                                        {"prefetch", 8, near_8##suffix},                           \
                                        {"past caches", 1, past_1##suffix},                        \
                                        {"past caches", 4, past_4##suffix}};

typedef struct reader {
    const char *name;
    int streams;
    void (*read)(const unsigned char *p, size_t n);
} reader;

READERS(_base, )
#if defined(__x86_64__)
READERS(_avx2, TARGET("avx2"))
READERS(_avx512, TARGET("avx512f"))
#endif

/* ---- peaks: 16 chains ----------------------------------------------------------------------------------------------------- */

enum { CHAINS = 16, TURNS = 4000000 };

typedef struct peak {
    const char *name;
    unsigned features;
    double operations; /* of one turn; a multiply-add is two */
    void (*run)(void);
} peak;

#if defined(__x86_64__)
#define CHAIN(instruction, sources, register)                                                      \
    instruction " %%" sources "31, %%" sources "30, %%" sources register "\n\t"
#define CHAINS_OF(i, s)                                                                            \
    CHAIN(i, s, "0")                                                                               \
    CHAIN(i, s, "1")                                                                               \
    CHAIN(i, s, "2")                                                                               \
    CHAIN(i, s, "3")                                                                               \
    CHAIN(i, s, "4")                                                                               \
    CHAIN(i, s, "5")                                                                               \
    CHAIN(i, s, "6")                                                                               \
    CHAIN(i, s, "7")                                                                               \
    CHAIN(i, s, "8")                                                                               \
    CHAIN(i, s, "9")                                                                               \
    CHAIN(i, s, "10")                                                                              \
    CHAIN(i, s, "11")                                                                              \
    CHAIN(i, s, "12")                                                                              \
    CHAIN(i, s, "13")                                                                              \
    CHAIN(i, s, "14")                                                                              \
    CHAIN(i, s, "15")

TARGET("avx512f,avx512vnni") static void peak_int8(void)
{
    __asm__ volatile(
        "vzeroall\n\tvpxorq %%zmm30, %%zmm30, %%zmm30\n\tvpxorq %%zmm31, %%zmm31, %%zmm31" ::
            : "memory");
    for (int i = 0; i < TURNS; i++)
        __asm__ volatile(CHAINS_OF("vpdpbusd", "zmm")::: "memory");
}

TARGET("avx512f") static void peak_f32(void)
{
    __asm__ volatile(
        "vzeroall\n\tvpxorq %%zmm30, %%zmm30, %%zmm30\n\tvpxorq %%zmm31, %%zmm31, %%zmm31" ::
            : "memory");
    for (int i = 0; i < TURNS; i++)
        __asm__ volatile(CHAINS_OF("vfmadd231ps", "zmm")::: "memory");
}

TARGET("avx2,fma") static void peak_f32_avx2(void)
{
    __m256 acc[CHAINS - 4], a = _mm256_set1_ps((float)sink * 0), b = a;
    for (int i = 0; i < CHAINS - 4; i++)
        acc[i] = a;
    for (int i = 0; i < TURNS; i++)
        UNROLL for (int j = 0; j < CHAINS - 4; j++) acc[j] = _mm256_fmadd_ps(a, b, acc[j]);
    for (int i = 0; i < CHAINS - 4; i++)
        sink += (uint64_t)_mm256_cvtss_f32(acc[i]);
}

static const peak peaks[] = {
    {"int8 vpdpbusd, 64 bytes", OS_CPU_AVX512_VNNI, 2.0 * 64 * CHAINS, peak_int8},
    {"f32 multiply-add, 64 bytes", OS_CPU_AVX512, 2.0 * 16 * CHAINS, peak_f32},
    {"f32 multiply-add, 32 bytes", OS_CPU_AVX2, 2.0 * 8 * (CHAINS - 4), peak_f32_avx2},
};
#endif

/* ---- measuring ------------------------------------------------------------------------------------------------------------ */

typedef struct job {
    const reader *r;
    const peak *k;
    const unsigned char *memory;
    size_t share;
} job;

static void work(void *context, int64_t begin, int64_t end, int worker)
{
    const job *j = context;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        if (j->r)
            j->r->read(j->memory + (size_t)i * j->share, j->share);
        else
            j->k->run();
    }
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Median of amount / time, in 10^9 a second; one piece of work a thread. */
static double measure(os_pool *pool, job *j, double amount, int reps)
{
    double rates[REPS_MAX];
    for (int i = 0; i < reps; i++) {
        uint64_t start = os_now_us();
        os_pool_run(pool, work, j, os_pool_threads(pool), 1);
        rates[i] = amount / (double)(os_now_us() - start) / 1e3;
    }
    qsort(rates, (size_t)reps, sizeof *rates, compare_doubles);
    return rates[reps / 2];
}

/* ---- the onlooker's clock --------------------------------------------------------------------------------------------------- */

/* All meet here before any goes on. */
typedef struct meeting {
    os_mutex *lock;
    os_cond *all_here;
    int n, here;
    unsigned round;
} meeting;

static void meet(meeting *m)
{
    os_mutex_lock(m->lock);
    unsigned round = m->round;
    if (++m->here == m->n) {
        m->here = 0;
        m->round++;
        os_cond_broadcast(m->all_here);
    }
    while (round == m->round)
        os_cond_wait(m->all_here, m->lock);
    os_mutex_unlock(m->lock);
}

static void meeting_fini(meeting *m)
{
    os_cond_destroy(m->all_here);
    os_mutex_destroy(m->lock);
}

static status meeting_init(meeting *m, int n, err *e)
{
    *m = (meeting){.n = n};
    status s = os_mutex_create(&m->lock, e);
    if (s == STATUS_OK && (s = os_cond_create(&m->all_here, e)) != STATUS_OK)
        os_mutex_destroy(m->lock);
    return s;
}

typedef struct looked_at {
    job *j;
    meeting *start, *stop;
    int64_t share; /* which of the shares */
    int reps;
} looked_at;

static void reading_thread(void *context)
{
    looked_at *l = context;
    for (int i = 0; i < l->reps; i++) {
        meet(l->start);
        work(l->j, l->share, l->share + 1, 0);
        meet(l->stop);
    }
}

/* As measure, with one thread more that holds the clock; 0 where threads do not come. */
static double measure_looked_at(int threads, job *j, double amount, int reps)
{
    double rates[REPS_MAX] = {0};
    looked_at readers[THREADS_MAX];
    os_thread *running[THREADS_MAX];
    meeting start, stop;
    err e;
    int n = 0;
    if (meeting_init(&start, threads + 1, &e) != STATUS_OK)
        return 0;
    if (meeting_init(&stop, threads + 1, &e) != STATUS_OK) {
        meeting_fini(&start);
        return 0;
    }
    for (; n < threads; n++) {
        readers[n] = (looked_at){j, &start, &stop, n, reps};
        if (os_thread_create(&running[n], reading_thread, &readers[n], "reader", &e) != STATUS_OK) {
            fprintf(stderr, "bench_membw: %s\n", e.text);
            exit(1); /* those that run wait for the others */
        }
    }
    for (int i = 0; i < reps; i++) {
        meet(&start);
        uint64_t began = os_now_us();
        meet(&stop);
        rates[i] = amount / (double)(os_now_us() - began) / 1e3;
    }
    while (n > 0)
        os_thread_join(running[--n]);
    meeting_fini(&start);
    meeting_fini(&stop);
    qsort(rates, (size_t)reps, sizeof *rates, compare_doubles);
    return rates[reps / 2];
}

/* ---- ways of reading -------------------------------------------------------------------------------------------------------- */

typedef struct memory {
    const char *pages;
    unsigned char *p;
} memory;

/* A way of reading and what it reached. */
typedef struct way {
    const reader *r;
    const memory *m;
    double rate;
} way;

typedef struct bench {
    memory memories[2];
    const reader *readers;
    size_t bytes;
    int reps;
    bool all, onlooker;
} bench;

enum { READERS_MOST = BASE_COUNT(readers_base), WAYS = 2 * READERS_MOST, KEPT = 3 };

static double measure_way(const bench *b, os_pool *pool, const way *w, bool onlooker)
{
    int threads = os_pool_threads(pool);
    job j = {w->r, NULL, w->m->p, b->bytes / (size_t)threads / 4096 * 4096};
    size_t streams = (size_t)w->r->streams, whole = j.share / streams / 256 * 256 * streams;
    double amount = (double)whole * threads;
    return onlooker ? measure_looked_at(threads, &j, amount, b->reps)
                    : measure(pool, &j, amount, b->reps);
}

static int better_way(const void *a, const void *b)
{
    double x = ((const way *)a)->rate, y = ((const way *)b)->rate;
    return x > y ? -1 : x < y;
}

/* All ways, best first. */
static void try_ways(const bench *b, os_pool *pool, way ways[WAYS])
{
    for (int i = 0; i < WAYS; i++) {
        way *w = &ways[i];
        *w = (way){&b->readers[i / 2], &b->memories[i % 2], 0};
        w->rate = measure_way(b, pool, w, b->onlooker);
        if (b->all)
            printf("%d threads, %s pages, %-11s %d streams: %6.2f GB/s\n", os_pool_threads(pool),
                   w->m->pages, w->r->name, w->r->streams, w->rate);
    }
    qsort(ways, WAYS, sizeof *ways, better_way);
}

#if defined(__x86_64__)
static double measure_peak(os_pool *pool, const peak *k, int reps)
{
    job j = {NULL, k, NULL, 0};
    return measure(pool, &j, k->operations * TURNS * os_pool_threads(pool), reps);
}
#endif

/* 10^9 operations a second of the best instruction for bytes or floats; 0: not known here. */
static double best_peak(os_pool *pool, bool int8, int reps)
{
    (void)pool, (void)int8, (void)reps;
#if defined(__x86_64__)
    for (size_t i = 0; i < BASE_COUNT(peaks); i++)
        if (os_cpu_features() & peaks[i].features && !strncmp(peaks[i].name, "int8", 4) == int8)
            return measure_peak(pool, &peaks[i], reps);
#endif
    return 0;
}

static void bench_threads(const bench *b, os_pool *pool)
{
    way ways[WAYS];
    int threads = os_pool_threads(pool);
    try_ways(b, pool, ways);
    printf("read bandwidth, %d threads: %.2f GB/s (%s, %d streams, %s pages%s)\n", threads,
           ways[0].rate, ways[0].r->name, ways[0].r->streams, ways[0].m->pages,
           b->onlooker ? ", an onlooker's clock" : "");
#if defined(__x86_64__)
    for (size_t i = 0; i < BASE_COUNT(peaks); i++)
        if (os_cpu_features() & peaks[i].features)
            printf("%s, %d threads: %.1f GOP/s\n", peaks[i].name, threads,
                   measure_peak(pool, &peaks[i], b->reps));
#endif
    fflush(stdout);
}

static int answer_lines(const bench *b)
{
    static way ways[THREADS_MAX + 1][WAYS];
    char text[32];
    printf("ready\n");
    fflush(stdout);
    while (fgets(text, sizeof text, stdin)) {
        uint64_t threads;
        os_pool *pool;
        err e;
        text[strcspn(text, "\n")] = '\0';
        if (!base_parse_u64(text, &threads) || threads < 1 || threads > THREADS_MAX)
            return 2;
        if (os_pool_create(&pool, (int)threads, &e) != STATUS_OK) {
            fprintf(stderr, "bench_membw: %s\n", e.text);
            return 1;
        }
        if (!ways[threads][0].r)
            try_ways(b, pool, ways[threads]);
        double best = 0, seen = 0;
        for (int i = 0; i < KEPT; i++)
            best = BASE_MAX(best, measure_way(b, pool, &ways[threads][i], false));
        printf("%.3f %.2f %.2f ", best, best_peak(pool, true, b->reps),
               best_peak(pool, false, b->reps));
        for (int i = 0; i < KEPT; i++)
            seen = BASE_MAX(seen, measure_way(b, pool, &ways[threads][i], true));
        printf("%.3f\n", seen);
        fflush(stdout);
        os_pool_destroy(pool);
    }
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t mib = 1024, reps = 5, threads = (uint64_t)os_cpu_count();
    bool all = false, serve = false, onlooker = false;
    err e;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--all"))
            all = true;
        else if (!strcmp(argv[i], "--serve"))
            serve = true;
        else if (!strcmp(argv[i], "--onlooker"))
            onlooker = true;
        else if ((!strcmp(argv[i], "--mib") && base_parse_u64(value, &mib)) ||
                 (!strcmp(argv[i], "--reps") && base_parse_u64(value, &reps)) ||
                 (!strcmp(argv[i], "--threads") && base_parse_u64(value, &threads)))
            i++;
        else {
            fprintf(stderr, "bench_membw: what is '%s %s'?\n", argv[i], value);
            return 2;
        }
    }
    size_t bytes = (size_t)BASE_MAX(mib, 1) << 20;
    void *huge, *small = aligned_alloc(4096, bytes + 2 * AHEAD);
    if (os_slab_create(&huge, bytes + 2 * AHEAD, &e) != STATUS_OK || !small) {
        fprintf(stderr, "bench_membw: %s\n", small ? e.text : "out of memory");
        return 1;
    }
    memset(huge, 1, bytes);
    memset(small, 1, bytes);
    bench b = {.memories = {{"small", small}, {"huge", huge}},
               .readers = readers_base,
               .bytes = bytes,
               .reps = (int)BASE_MIN(BASE_MAX(reps, 1), REPS_MAX),
               .all = all,
               .onlooker = onlooker};
#if defined(__x86_64__)
    b.readers = os_cpu_features() & OS_CPU_AVX512 ? readers_avx512
                : os_cpu_features() & OS_CPU_AVX2 ? readers_avx2
                                                  : readers_base;
#endif
    int rc = 0;
    if (serve) {
        rc = answer_lines(&b);
    } else {
        printf("%s, last cache %llu MiB, footprint %llu MiB\n", os_cpu_name(),
               (unsigned long long)os_cpu_last_level_cache() >> 20, (unsigned long long)mib);
        for (int t = 1; t <= (int)BASE_MIN(threads, THREADS_MAX); t *= 2) {
            os_pool *pool;
            if (os_pool_create(&pool, t, &e) != STATUS_OK)
                break;
            bench_threads(&b, pool);
            os_pool_destroy(pool);
        }
    }
    os_slab_destroy(huge, bytes + 2 * AHEAD);
    free(small);
    return rc;
}
