/*
 * Keys and values as q8_0: the contract holds for them as for f16 (chunks, company, ISA and device change no bit, over pages and windows and
 * head widths that are no multiple of a block), they take little more than half the bytes, and logits stay near those of f16.
 */
#include "kernel/kernel.h"
#include "model_make.h"
#include "model_run.h"
#include "os/os.h"

#include <math.h>

enum { PROMPT = 150 };

static const make_shape shapes[] = {
    {"llama", 2, 64, 4, 2, 64, 96, 131, 0, "Q8_0", true, 11},
    {"llama", 2, 64, 4, 2, 40, 96, 131, 0, "Q8_0", true, 13}, /* blocks of 32 and 8 */
    {"gemma3", 7, 64, 4, 2, 16, 96, 131, 20, "Q8_0", true, 15},
};

typedef struct setup {
    const char *isa, *device;
    model_kv kv;
    int chunk, threads;
} setup;

static uint64_t page_bytes;

/* Logits of all positions: [PROMPT, V], heap. */
static float *logits_of(const make_shape *shape, const setup *u)
{
    model_options o = {.isa = u->isa,
                       .device = u->device,
                       .n_threads = u->threads,
                       .kv = u->kv,
                       .context = 256,
                       .max_tokens = PROMPT,
                       .max_outputs = PROMPT};
    model *m = run_load_made(shape, &o);
    page_bytes = model_class(m, 0)->page_bytes;
    int32_t ids[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        ids[i] = (int32_t)(hash_u64((uint64_t)i, 3) % (uint64_t)shape->V);
    float *logits = malloc(sizeof(float) * (size_t)(PROMPT * shape->V));
    assert_non_null(logits);
    run_pool pool = {0};
    run_sequence s;
    run_sequence_init(&s, &pool);
    run_feed(m, &pool, &s, ids, PROMPT, u->chunk, logits);
    model_destroy(m);
    return logits;
}

static void every_way_gives_the_same_bits(void **state)
{
    (void)state;
    const setup first = {.isa = "portable", .kv = MODEL_KV_Q8_0, .chunk = PROMPT, .threads = 1};
    const setup others[] = {
        {.isa = "portable", .kv = MODEL_KV_Q8_0, .chunk = 1, .threads = 1},
        {.isa = "portable", .kv = MODEL_KV_Q8_0, .chunk = 7, .threads = 2},
        {.kv = MODEL_KV_Q8_0, .chunk = 64, .threads = 3},
        {.kv = MODEL_KV_Q8_0, .chunk = 13, .threads = 1, .device = "cpu_copy"},
    };
    for (size_t i = 0; i < BASE_COUNT(shapes); i++) {
        size_t bytes = sizeof(float) * (size_t)(PROMPT * shapes[i].V);
        float *expected = logits_of(&shapes[i], &first);
        for (size_t k = 0; k < BASE_COUNT(others); k++) {
            float *got = logits_of(&shapes[i], &others[k]);
            if (memcmp(got, expected, bytes))
                fail_msg("shape %d: way %d differs", (int)i, (int)k);
            free(got);
        }
        for (int t = 0; kernel_table_at(t); t++) {
            setup u = {.isa = kernel_table_at(t)->name, .kv = MODEL_KV_Q8_0, .chunk = 50};
            u.threads = 1;
            if (!kernel_runs(kernel_table_at(t), os_cpu_features()))
                continue;
            float *got = logits_of(&shapes[i], &u);
            if (memcmp(got, expected, bytes))
                fail_msg("shape %d: ISA %s differs", (int)i, u.isa);
            free(got);
        }
        free(expected);
    }
}

/* Not the numbers of f16, but near: rms of the difference under 2 % of the rms of the logits, where a token more or less changes all of it. */
static void near_to_f16_in_half_the_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(shapes); i++) {
        setup u = {.chunk = PROMPT, .threads = 1};
        float *f16 = logits_of(&shapes[i], &u);
        uint64_t bytes_f16 = page_bytes;
        u.kv = MODEL_KV_Q8_0;
        float *q8 = logits_of(&shapes[i], &u);
        int blocks = (shapes[i].dh + 31) / 32;
        assert_true(page_bytes * (uint64_t)(2 * shapes[i].dh) ==
                    bytes_f16 * (uint64_t)(shapes[i].dh + 2 * blocks));
        double difference = 0, size = 0;
        for (int k = 0; k < PROMPT * shapes[i].V; k++) {
            double d = (double)q8[k] - (double)f16[k];
            difference += d * d;
            size += (double)f16[k] * (double)f16[k];
        }
        assert_true(difference > 0);
        if (difference > size * 0.02 * 0.02)
            fail_msg("shape %d: rms of the difference is %g of the logits'", (int)i,
                     sqrt(difference / size));
        free(f16);
        free(q8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_gives_the_same_bits),
        cmocka_unit_test(near_to_f16_in_half_the_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
