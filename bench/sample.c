/*
 * Microseconds a token of src/sample over a 128,256-token vocabulary, for several kinds of options and of logits. Usage:
 * bench_sample [table]. Prints; asserts nothing.
 */
#include "sample/sample.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>

enum { VOCABULARY = 128256, ROWS = 16, REPEATS = 40 };

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Logits like a model's: a broad bell, and for peaked rows a few tokens far above it. */
static void fill(float *logits, double spread, int peaks, uint64_t seed)
{
    for (int i = 0; i < VOCABULARY; i++) {
        double sum = -6;
        for (int k = 0; k < 12; k++)
            sum += (double)(hash_u64((uint64_t)(12 * i + k), seed) >> 40) / 16777216.0;
        logits[i] = (float)(sum * spread);
    }
    for (int i = 0; i < peaks; i++)
        logits[hash_u64((uint64_t)i, seed) % VOCABULARY] = (float)(5 * spread + 10.0 / (1 + i));
}

static void measure(const kernel_table *k, const char *name, const sample_options *o, int top,
                    float *const rows[ROWS])
{
    static double us[ROWS * REPEATS];
    sample *s;
    sample_scratch *w;
    sample_result r;
    err e;
    int n = 0;
    if (sample_create(&s, k, VOCABULARY, o, 0, &e) != STATUS_OK ||
        sample_scratch_create(&w, VOCABULARY, &e) != STATUS_OK) {
        fprintf(stderr, "%s\n", e.text);
        exit(1);
    }
    for (int repeat = 0; repeat < REPEATS; repeat++)
        for (int row = 0; row < ROWS; row++, n++) {
            sample_call c = {.logits = rows[row], .position = n, .top_logprobs = top};
            uint64_t start = os_now_us();
            if (sample_next(s, w, &c, &r, &e) != STATUS_OK)
                exit(1);
            us[n] = (double)(os_now_us() - start);
            sample_accept(s, r.token);
        }
    qsort(us, (size_t)n, sizeof *us, compare);
    printf("  %-34s median %5.0f us   fastest %5.0f us\n", name, us[n / 2], us[0]);
    sample_destroy(s);
    sample_scratch_destroy(w);
}

int main(int argc, char **argv)
{
    const kernel_table *k;
    err e;
    if (kernel_select(&k, os_cpu_features(), argc > 1 ? argv[1] : NULL, &e) != STATUS_OK) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    static const struct {
        const char *name;
        double spread;
        int peaks;
    } kinds[] = {{"peaked", 2.5, 20}, {"broad", 2.5, 0}, {"flat", 0.1, 0}};
    float *rows[ROWS];
    for (int row = 0; row < ROWS; row++)
        if (!(rows[row] = base_alloc(VOCABULARY * sizeof(float))))
            return 1;
    printf("%d tokens, %s, %s\n", VOCABULARY, k->name, os_cpu_name());
    for (size_t kind = 0; kind < BASE_COUNT(kinds); kind++) {
        for (int row = 0; row < ROWS; row++)
            fill(rows[row], kinds[kind].spread, kinds[kind].peaks, (uint64_t)row);
        printf("%s logits\n", kinds[kind].name);
        sample_options o = SAMPLE_DEFAULTS;
        o.temperature = 0;
        measure(k, "greedy", &o, -1, rows);
        measure(k, "greedy, 20 logprobs", &o, 20, rows);
        o.temperature = 1;
        measure(k, "temperature 1", &o, -1, rows);
        o.temperature = 0.7f;
        o.min_p = 0.05f;
        measure(k, "temperature 0.7, min-p 0.05", &o, -1, rows);
        o.min_p = 0;
        o.top_k = 40;
        measure(k, "temperature 0.7, top-k 40", &o, -1, rows);
        o.top_p = 0.95f;
        measure(k, "0.7, top-k 40, top-p 0.95", &o, -1, rows);
        o.top_k = 0;
        measure(k, "temperature 0.7, top-p 0.95", &o, -1, rows);
        o.repetition_penalty = 1.1f;
        measure(k, "the same, repetition penalty", &o, -1, rows);
    }
    for (int row = 0; row < ROWS; row++)
        base_free(rows[row]);
    return 0;
}
