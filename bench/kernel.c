/*
 * How fast the kernels are against what the machine allows: read bandwidth for one token, the peak of the dot product instruction for many.
 *
 *   bench_kernel [--threads 1,2] [--types Q4_0,Q8_0,…] [--isa NAME] [--mib 800] [--reps 5] [--tokens 256] [--csv]
 *
 * Per type and shape: the products of one token over a matrix of many rows of 2,048 and of 8,192 columns (GB/s of weights, share of the bandwidth probed just
 * before), the same with exact sums, and T tokens over 2,048 rows (operations/s; a multiply-add is two). Then attention over 4,096 keys, and of
 * `--types experts` a layer of 128 experts of which every token takes 8, for 1 to 512 tokens at once (GB/s of the weights that are touched).
 * Medians; probes and products alternate. Not here: the probe of record (bench/membw.c), whole models (shoal bench).
 */
#include "kernel/experts.h"
#include "kernel/internal.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>

enum { COLUMNS_MAX = 8192, REPS_MAX = 101, CHUNK = 16 };

typedef struct bench {
    const kernel_table *k;
    os_pool *pool;
    unsigned char *slab;
    uint64_t bytes;
    int reps, tokens;
    int64_t columns;
    bool csv;
} bench;

/* Of one thread its own CPU time, so that neighbours disturb less; of several the wall's. */
static uint64_t bench_us(const bench *b)
{
    return b->pool && os_pool_threads(b->pool) > 1 ? os_now_us() : os_thread_cpu_us();
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, compare_doubles);
    return v[n / 2];
}

/* ---- reading as fast as plain C can: four streams of 64-bit sums ------------------------------------------------------ */

static volatile uint64_t sink;

static void probe_task(void *context, int64_t begin, int64_t end, int worker)
{
    const bench *b = context;
    int64_t share = (end - begin) / 4;
    const uint64_t *p[4];
    uint64_t sum[4][8] = {{0}};
    (void)worker;
    for (int s = 0; s < 4; s++)
        p[s] = (const uint64_t *)(const void *)(b->slab + (begin + s * share) * 4096);
    for (int64_t i = 0; i < share * 512; i += 8)
        for (int s = 0; s < 4; s++) {
            __builtin_prefetch(p[s] + i + 512);
            for (int j = 0; j < 8; j++)
                sum[s][j] += p[s][i + j];
        }
    for (int s = 0; s < 4; s++)
        for (int j = 0; j < 8; j++)
            sink += sum[s][j];
}

static double probe(const bench *b)
{
    int64_t pages = (int64_t)(b->bytes / 4096);
    uint64_t start = bench_us(b);
    os_pool_run(b->pool, probe_task, (void *)(uintptr_t)b, pages, 4096);
    return (double)pages * 4096 / (double)(bench_us(b) - start) / 1e3;
}

/* ---- products ---------------------------------------------------------------------------------------------------------- */

typedef struct run {
    const bench *b;
    kernel_product p;
    int64_t chunk;
} run;

static void product_task(void *context, int64_t begin, int64_t end, int worker)
{
    const run *r = context;
    (void)worker;
    kernel_multiply(r->b->k, &r->p, begin, end);
}

static double product_us(run *r)
{
    int64_t strips = kernel_strips(r->p.w->rows);
    uint64_t start = bench_us(r->b);
    os_pool_run(r->b->pool, product_task, r, strips, r->chunk);
    return (double)(bench_us(r->b) - start);
}

/* Fills the slab with strips that all hold the same 16 rows. */
static int64_t fill(const bench *b, const kernel_type *type)
{
    int64_t columns = b->columns;
    uint64_t strip = kernel_strip_bytes(type, 0, columns),
             row_bytes = kernel_row_bytes(type, columns);
    unsigned char *file = malloc(row_bytes * 16);
    int64_t n = (int64_t)(b->bytes / strip) / CHUNK * CHUNK;
    if (!file)
        return 0;
    kernel_example_blocks(type, file, 16 * columns / type->block_elements, 1);
    kernel_pack(type, b->slab, file, row_bytes, 16, 0, columns);
    for (int64_t s = 1; s < n; s++)
        memcpy(b->slab + (uint64_t)s * strip, b->slab, strip);
    free(file);
    return n;
}

static void bench_type(const bench *b, const kernel_type *type, int threads)
{
    int64_t columns = b->columns;
    static float x[512 * COLUMNS_MAX];
    static kernel_act act[512 * COLUMNS_MAX / 32];
    int64_t strips = fill(b, type), rows = strips * 16;
    float *y = malloc((size_t)BASE_MAX(rows * 16, 512 * columns) * sizeof(float));
    if (!y || !strips)
        return;
    kernel_example_floats(x, 512 * columns, 1);
    for (int t = 0; t < 512; t++)
        b->k->quantise(act + t * columns / 32, x + t * columns, columns);
    kernel_matrix m = {type, b->slab, rows, 0, columns, kernel_strip_bytes(type, 0, columns)};
    run r = {
        b,
        {.w = &m, .output = KERNEL_F32, .leaf = kernel_leaf(columns, 0), .n_tokens = 1, .dst = y},
        CHUNK};
    r.p.x = type->quantised ? (const void *)act : (const void *)x;
    r.p.x_bytes = type->quantised ? kernel_act_bytes(columns) : columns * sizeof(float);
    r.p.dst_stride = rows;
    double plain[REPS_MAX], sums[REPS_MAX], peak[REPS_MAX], mat[REPS_MAX], mat_sums[REPS_MAX];
    double bytes = (double)(m.strip_bytes * (uint64_t)strips);
    for (int i = 0; i < b->reps; i++) {
        peak[i] = probe(b);
        r.p.output = KERNEL_F32;
        plain[i] = bytes / product_us(&r) / 1e3;
        r.p.output = KERNEL_SUMS_F32;
        sums[i] = bytes / product_us(&r) / 1e3;
    }
    if (b->tokens > 16) /* few tokens are about memory, many about the processor */
        m.rows = 2048;
    r.p.n_tokens = b->tokens;
    r.p.dst_stride = m.rows;
    double operations = 2.0 * columns * (double)m.rows * b->tokens;
    for (int i = 0; i < b->reps; i++) {
        r.p.output = KERNEL_F32;
        mat[i] = operations / product_us(&r) / 1e3;
        r.p.output = KERNEL_SUMS_F32;
        mat_sums[i] = operations / product_us(&r) / 1e3;
    }
    double top = median(peak, b->reps), vec = median(plain, b->reps),
           vec_sums = median(sums, b->reps);
    printf(b->csv
               ? "%s,%s,%d,%d,%.2f,%.2f,%.2f,%.3f,%.3f,%.1f,%.1f\n"
               : "%-10s %-7s K %-5d %dT  probe %6.2f GB/s  vec %6.2f  sums %6.2f  (%.2f %.2f)  mat "
                 "%7.1f GOP/s  sums %7.1f\n",
           b->k->name, type->name, (int)columns, threads, top, vec, vec_sums, vec / top,
           vec_sums / top, median(mat, b->reps), median(mat_sums, b->reps));
    fflush(stdout);
    free(y);
}

/* ---- attention: one token, 8 K/V heads of 64, 4 query heads each, 4,096 keys; every layer its own pages -------------------- */

typedef struct attention_run {
    const bench *b;
    kernel_attention a[8];
    const void *pages[64];
} attention_run;

static void attention_task(void *context, int64_t begin, int64_t end, int worker)
{
    const attention_run *r = context;
    (void)worker;
    for (int64_t i = begin; i < end; i++)
        r->b->k->attention(&r->a[i]);
}

static void bench_attention(const bench *b, int threads, int n_tokens)
{
    static float q[64 * 2048], y[64 * 2048];
    static attention_run r;
    uint64_t page = kernel_page_bytes(KERNEL_KV_F16, 8, 64, 64);
    int layers = (int)(b->bytes / (page * 64));
    layers = BASE_MIN(layers, 1 + 64 / n_tokens);
    double times[REPS_MAX], peak[REPS_MAX];
    uint16_t half = half_from_float(0.25f);
    kernel_example_floats(q, 64 * 2048, 3);
    for (uint64_t i = 0; i < (uint64_t)layers * 64 * page; i += 2)
        memcpy(b->slab + i, &half, 2);
    r.b = b;
    for (int i = 0; i < b->reps; i++) {
        peak[i] = probe(b);
        uint64_t start = bench_us(b);
        for (int layer = 0; layer < layers; layer++) {
            for (int p = 0; p < 64; p++)
                r.pages[p] = b->slab + ((uint64_t)layer * 64 + (uint64_t)p) * page;
            for (int g = 0; g < 8; g++)
                r.a[g] = (kernel_attention){
                    y + 256 * g, q + 256 * g, 2048,      2048,   n_tokens, 4096 - n_tokens, 4, 8, g,
                    64,          64,          INT64_MAX, 0.125f, NULL,     r.pages,         0};
            os_pool_run(b->pool, attention_task, &r, 8, 1);
        }
        times[i] = (double)(bench_us(b) - start);
    }
    double us = median(times, b->reps), bytes = (double)layers * 64 * (double)page,
           top = median(peak, b->reps);
    double operations = 4.0 * 64 * 4096 * 32 * n_tokens * layers;
    printf(b->csv ? "%s,attention_%d,64,%d,%.2f,%.2f,,%.3f,,%.1f,\n"
                  : "%-10s attention of %d tokens %dT  probe %6.2f GB/s  K/V %6.2f GB/s (%.2f)  "
                    "%7.1f GFLOP/s\n",
           b->k->name, n_tokens, threads, top, bytes / us / 1e3, bytes / us / 1e3 / top,
           operations / us / 1e3);
    fflush(stdout);
}

/* ---- experts: a layer of the shape of Qwen3 30B A3B, Q4_0 ------------------------------------------------------------------ */

enum { EXPERTS = 128, CHOSEN = 8, WIDTH = 2048, EXPERT_WIDTH = 768, EXPERT_TOKENS = 512 };

typedef struct expert_run {
    const bench *b;
    kernel_matrix w[3][EXPERTS]; /* gate, up, down */
    kernel_pairs pairs;
    kernel_pairs_product p[3];
    float *gate, *up; /* [pairs][EXPERT_WIDTH] */
    kernel_act *x, *h;
    double *sums;
} expert_run;

static void first_task(void *context, int64_t begin, int64_t end, int worker)
{
    const expert_run *r = context;
    (void)worker;
    kernel_pairs_multiply(r->b->k, &r->p[0], begin, end);
    kernel_pairs_multiply(r->b->k, &r->p[1], begin, end);
}

static void middle_task(void *context, int64_t begin, int64_t end, int worker)
{
    const expert_run *r = context;
    (void)worker;
    for (int64_t i = begin; i < end; i++)
        r->b->k->silu_multiply_quantise(r->h + i * EXPERT_WIDTH / 32, r->gate + i * EXPERT_WIDTH,
                                        r->up + i * EXPERT_WIDTH, EXPERT_WIDTH);
    kernel_pairs_weigh(r->h, true, EXPERT_WIDTH, &r->pairs, begin, end);
}

static void last_task(void *context, int64_t begin, int64_t end, int worker)
{
    static _Thread_local double scratch[KERNEL_PAIRS_SCRATCH];
    const expert_run *r = context;
    (void)worker;
    kernel_pairs_add(r->b->k, &r->p[2], begin, end, scratch);
}

/* The layer for n_tokens tokens at once. */
static void expert_layer(expert_run *r, void *memory, const kernel_choice *choices,
                         const kernel_act *x, int64_t n_tokens)
{
    os_pool *pool = r->b->pool;
    kernel_group(&r->pairs, memory, choices, n_tokens, CHOSEN, 0, EXPERTS);
    kernel_pairs_gather(r->x, x, kernel_act_bytes(WIDTH), &r->pairs, 0, r->pairs.n_pairs);
    for (int i = 0; i < 3; i++)
        r->p[i] = (kernel_pairs_product){
            .pairs = &r->pairs,
            .w = r->w[i],
            .leaf = kernel_leaf(EXPERT_WIDTH, 0),
            .x = i < 2 ? r->x : r->h,
            .x_bytes = kernel_act_bytes(i < 2 ? WIDTH : EXPERT_WIDTH),
            .dst = i == 0   ? (void *)r->gate
                   : i == 1 ? (void *)r->up
                            : (void *)r->sums,
            .dst_stride = i < 2 ? EXPERT_WIDTH : WIDTH,
            .n_tokens = n_tokens,
        };
    os_pool_run(pool, first_task, r, kernel_pairs_strips(&r->p[0]), 8);
    os_pool_run(pool, middle_task, r, r->pairs.n_pairs, 4);
    os_pool_run(pool, last_task, r, WIDTH / 16, 8);
}

/* Microseconds for all tokens, `at_once` at a time. */
static double experts_us(expert_run *r, void *memory, const kernel_choice *choices,
                         const kernel_act *x, int n_tokens, int at_once)
{
    uint64_t start = bench_us(r->b);
    for (int t = 0; t < n_tokens; t += at_once)
        expert_layer(r, memory, choices + t * CHOSEN, x + t * WIDTH / 32,
                     BASE_MIN(at_once, n_tokens - t));
    return (double)(bench_us(r->b) - start);
}

/* Packs the same 16 rows into every strip of [rows, columns] matrices at p; the first byte behind them. */
static unsigned char *fill_experts(kernel_matrix *w, unsigned char *p, const kernel_type *type,
                                   int64_t rows, int64_t columns)
{
    uint64_t strip = kernel_strip_bytes(type, 0, columns),
             row_bytes = kernel_row_bytes(type, columns);
    unsigned char *file = malloc(row_bytes * 16);
    if (!file)
        return p;
    kernel_example_blocks(type, file, 16 * columns / type->block_elements, 1);
    for (int e = 0; e < EXPERTS; e++) {
        w[e] = (kernel_matrix){type, p, rows, 0, columns, strip};
        for (int64_t s = 0; s < kernel_strips(rows); s++, p += strip)
            kernel_pack(type, p, file, row_bytes, 16, 0, columns);
    }
    free(file);
    return p;
}

static void bench_experts(const bench *b, int threads)
{
    enum { PAIRS = EXPERT_TOKENS * CHOSEN };
    static expert_run r;
    static kernel_choice choices[PAIRS];
    static float x[EXPERT_TOKENS * WIDTH];
    static kernel_act act[EXPERT_TOKENS * WIDTH / 32], xs[PAIRS * WIDTH / 32],
        hs[PAIRS * EXPERT_WIDTH / 32];
    static float gate[PAIRS * EXPERT_WIDTH], up[PAIRS * EXPERT_WIDTH];
    static double sums[EXPERT_TOKENS * WIDTH];
    const kernel_type *type = kernel_type_at(TYPE_Q4_0);
    uint64_t expert = 3 * kernel_matrix_bytes(type, EXPERT_WIDTH, 0, WIDTH), seed = 1;
    void *memory = malloc((size_t)kernel_pairs_bytes(EXPERTS, PAIRS));
    if (!memory || b->bytes < EXPERTS * expert) {
        free(memory);
        return;
    }
    r = (expert_run){.b = b, .gate = gate, .up = up, .x = xs, .h = hs, .sums = sums};
    unsigned char *p = fill_experts(r.w[0], b->slab, type, EXPERT_WIDTH, WIDTH);
    p = fill_experts(r.w[1], p, type, EXPERT_WIDTH, WIDTH);
    fill_experts(r.w[2], p, type, WIDTH, EXPERT_WIDTH);
    kernel_example_floats(x, EXPERT_TOKENS * WIDTH, 1);
    b->k->quantise(act, x, EXPERT_TOKENS * WIDTH);
    for (int i = 0; i < PAIRS; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        choices[i] = (kernel_choice){(int32_t)((seed >> 33) % EXPERTS), 0.125f};
    }
    for (int n = 1; n <= EXPERT_TOKENS; n *= 8) {
        double at_once[REPS_MAX], singly[REPS_MAX], ratio[REPS_MAX], peak[REPS_MAX], used = 0;
        int tokens = BASE_MAX(n, 64); /* one token alone is too short to time */
        for (int i = 0; i < b->reps; i++) {
            peak[i] = probe(b);
            at_once[i] = experts_us(&r, memory, choices, act, tokens, n);
            used = r.pairs.n_used; /* by the last tokens; nearly as many by the others */
            singly[i] = experts_us(&r, memory, choices, act, tokens, 1);
            ratio[i] = singly[i] / at_once[i];
        }
        double us = median(at_once, b->reps), touched = used * (double)expert;
        double rate = touched * tokens / n / us / 1e3, top = median(peak, b->reps);
        double operations = 6.0 * WIDTH * EXPERT_WIDTH * CHOSEN * tokens;
        printf(b->csv
                   ? "%s,experts_%d,%d,%d,%.2f,%.2f,,%.3f,,%.1f,%.2f\n"
                   : "%-10s experts, %3d tokens K %d %dT  probe %6.2f GB/s  weights %6.2f (%.2f)  "
                     "%7.1f GOP/s, %.2f times as fast as one by one\n",
               b->k->name, n, WIDTH, threads, top, rate, rate / top, operations / us / 1e3,
               median(ratio, b->reps));
        fflush(stdout);
    }
    free(memory);
}

/* ---- rows: norm + quantise, gate ------------------------------------------------------------------------------------------- */

static void bench_rows(const bench *b)
{
    enum { N = 8192, REPEAT = 200 };
    static float x[N], w[N];
    static kernel_act act[N / 32];
    double us[3];
    kernel_example_floats(x, N, 1);
    kernel_example_floats(w, N, 2);
    for (int what = 0; what < 3; what++) {
        uint64_t start = bench_us(b);
        for (int i = 0; i < REPEAT; i++)
            if (what == 0)
                b->k->quantise(act, x, N);
            else if (what == 1)
                b->k->rms_norm_quantise(act, x, w, N, 1e-5f);
            else
                b->k->silu_multiply_quantise(act, x, w, N);
        us[what] = (double)(bench_us(b) - start) / REPEAT;
    }
    printf(b->csv ? "%s,rows_8192_us,8192,1,,%.2f,%.2f,,,%.2f,\n"
                  : "%-10s 8,192 numbers, us: quantise %.2f  norm + quantise %.2f  silu + quantise "
                    "%.2f\n",
           b->k->name, us[0], us[1], us[2]);
}

static bool listed(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, name, n) && (p[n] == ',' || !p[n]))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    const char *threads = "1,2", *types = "Q4_0,Q8_0,Q4_K,Q6_K,F16,BF16,F32", *isa = NULL;
    uint64_t mib = 800, reps = 5, tokens = 256;
    bench b = {0};
    err e;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--csv")) {
            b.csv = true;
            continue;
        }
        if (!strcmp(argv[i], "--threads"))
            threads = value;
        else if (!strcmp(argv[i], "--types"))
            types = value;
        else if (!strcmp(argv[i], "--isa"))
            isa = value;
        else if (!(!strcmp(argv[i], "--mib") ? base_parse_u64(value, &mib)
                   : !strcmp(argv[i], "--reps")
                       ? base_parse_u64(value, &reps)
                       : !strcmp(argv[i], "--tokens") && base_parse_u64(value, &tokens))) {
            fprintf(stderr, "bench_kernel: what is '%s %s'?\n", argv[i], value);
            return 2;
        }
        i++;
    }
    b.bytes = mib << 20;
    b.reps = (int)BASE_MIN(BASE_MAX(reps, 1), REPS_MAX);
    b.tokens = (int)BASE_MIN(BASE_MAX(tokens, 1), 512);
    void *slab;
    if (kernel_select(&b.k, os_cpu_features(), isa, &e) != STATUS_OK ||
        os_slab_create(&slab, b.bytes, &e) != STATUS_OK) {
        fprintf(stderr, "bench_kernel: %s\n", e.text);
        return 1;
    }
    b.slab = slab;
    memset(slab, 1, b.bytes);
    if (b.csv)
        printf("isa,type,columns,threads,probe_gb_s,vec_gb_s,vec_sums_gb_s,vec_share,vec_sums_"
               "share,mat_"
               "gop_s,mat_sums_gop_s\n");
    for (int n = 1; n <= 64; n++) {
        char number[8];
        snprintf(number, sizeof number, "%d", n);
        if (!listed(threads, number) || os_pool_create(&b.pool, n, &e) != STATUS_OK)
            continue;
        for (int i = 0; i < KERNEL_TYPES; i++)
            for (b.columns = 2048; b.columns <= COLUMNS_MAX; b.columns *= 4)
                if (listed(types, kernel_type_at(i)->name))
                    bench_type(&b, kernel_type_at(i), n);
        if (listed(types, "attention") || !strchr(types, '0'))
            bench_attention(&b, n, 1);
        if (listed(types, "attention"))
            bench_attention(&b, n, 64);
        if (listed(types, "experts"))
            bench_experts(&b, n);
        os_pool_destroy(b.pool);
        b.pool = NULL;
    }
    bench_rows(&b);
    os_slab_destroy(slab, b.bytes);
    return 0;
}
