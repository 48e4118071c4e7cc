/*
 * Sequence state by itself: whatever was extended, forked, cut back, snapshotted, reused and evicted, the logits at the end of a text are
 * those of a sequence that simply read it.
 */
#include "engine/engine.h"
#include "engine/wire.h"
#include "model_make.h"
#include "model_run.h"
#include "os/os.h"

enum { VOCAB = 131, MOST = 500 };

static const make_shape shapes[] = {
    {"llama", 2, 64, 4, 2, 16, 96, VOCAB, 0, "Q8_0", true, 31},
    {"shoal-decay", 4, 64, 4, 2, 16, 96, VOCAB, 20, "Q8_0", false, 32},
    {"shoal-decay", 2, 64, 4, 2, 16, 96, VOCAB, 100, "F32", false, 33},
};

typedef struct bench {
    model *m;
    engine_pool *p;
    float *logits;
} bench;

static void open_bench(bench *b, const make_shape *shape, int n_pages, int cache_slots)
{
    err e = {0};
    model_options o = {
        .n_threads = 1, .context = MOST + 12, .n_sequences = 8, .max_tokens = 64, .max_outputs = 4};
    for (int c = 0; c < MODEL_STATE_CLASSES; c++)
        o.n_pages[c] = n_pages;
    model_admit_test_families(true);
    b->m = run_load_made(shape, &o);
    must(engine_pool_create(&b->p, b->m, 99, cache_slots, &e), &e);
    b->logits = malloc(sizeof(float) * VOCAB);
}

static void close_bench(bench *b)
{
    uint64_t total, unused, cached;
    engine_pool_usage(b->p, &total, &unused, &cached);
    assert_int_equal(total, unused + cached); /* nothing is held by sequences any more */
    engine_pool_forget_all(b->p);
    engine_pool_usage(b->p, &total, &unused, &cached);
    assert_int_equal(total, unused);
    engine_pool_destroy(b->p);
    model_destroy(b->m);
    free(b->logits);
}

/* Reads ids[from..to) in pieces; the logits of the last position are in b->logits then. */
static status feed(bench *b, engine_state *s, const int32_t *ids, int64_t from, int64_t to,
                   int piece)
{
    err e = {0};
    while (from < to) {
        int n = (int)BASE_MIN(BASE_MIN((int64_t)piece, to - from), engine_state_run_limit(s));
        status result = engine_state_extend(s, n, &e);
        if (result != STATUS_OK)
            return result;
        model_run run;
        engine_state_run(s, n, &run);
        assert_int_equal(run.position, from);
        int32_t row = n - 1;
        model_batch batch = {n, ids + from, 1, &run, 1, &row};
        must(model_step(b->m, &batch, b->logits, &e), &e);
        must(engine_state_commit(s, ids + from, n, true, &e), &e);
        from += n;
    }
    return STATUS_OK;
}

/* The same from a state of its own that shares nothing. */
static void assert_logits(bench *b, const make_shape *shape, const int32_t *ids, int64_t n)
{
    bench quiet;
    open_bench(&quiet, shape, 24, 0);
    engine_state *s;
    err e = {0};
    must(engine_state_create(&s, quiet.p, &e), &e);
    must(feed(&quiet, s, ids, 0, n, 64), &e);
    assert_memory_equal(b->logits, quiet.logits, sizeof(float) * VOCAB);
    engine_state_drop(s);
    close_bench(&quiet);
}

static void fill(int32_t *ids, int n, uint64_t seed)
{
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)(hash_u64((uint64_t)i, seed) % VOCAB);
}

static void forks_diverge(void **state)
{
    (void)state;
    for (size_t k = 0; k < BASE_COUNT(shapes); k++) {
        bench b;
        open_bench(&b, &shapes[k], 64, 4);
        int32_t x[MOST], y[MOST];
        err e = {0};
        engine_state *s, *t;
        fill(x, MOST, 1);
        memcpy(y, x, sizeof x);
        fill(y + 150, MOST - 150, 2);
        must(engine_state_create(&s, b.p, &e), &e);
        must(feed(&b, s, x, 0, 150, 17), &e);
        must(engine_state_fork(&t, s, &e), &e);
        for (int64_t at = 150; at < 290; at += 20) { /* in turns, so that shared pages would show */
            must(feed(&b, s, x, at, at + 20, 7), &e);
            must(feed(&b, t, y, at, at + 20, 20), &e);
        }
        assert_logits(&b, &shapes[k], y, 290);
        must(feed(&b, s, x, 290, 300, 3), &e);
        assert_logits(&b, &shapes[k], x, 300);
        engine_state_drop(s);
        must(feed(&b, t, y, 290, 333, 64), &e);
        assert_logits(&b, &shapes[k], y, 333);
        engine_state_drop(t);
        close_bench(&b);
    }
}

/* Cut back to every kind of place, replay what truncate asks for, go on with another text. */
static void truncate_and_replay(void **state)
{
    (void)state;
    static const int cuts[] = {0, 1, 63, 64, 65, 128, 150, 199, 256, 300, 319};
    for (size_t k = 0; k < BASE_COUNT(shapes); k++) {
        for (size_t i = 0; i < BASE_COUNT(cuts); i++) {
            bench b;
            open_bench(&b, &shapes[k], 64, 4);
            int32_t x[MOST];
            int64_t now;
            err e = {0};
            engine_state *s;
            fill(x, MOST, 3);
            must(engine_state_create(&s, b.p, &e), &e);
            must(feed(&b, s, x, 0, 320, 50), &e);
            must(engine_state_truncate(s, cuts[i], &now, &e), &e);
            assert_true(now <= cuts[i] && now == engine_state_length(s));
            if (k == 0)
                assert_int_equal(now, cuts[i]); /* paged state can be cut anywhere */
            fill(x + cuts[i], MOST - cuts[i], 4);
            must(feed(&b, s, x, now, cuts[i] + 40, 11), &e);
            assert_logits(&b, &shapes[k], x, cuts[i] + 40);
            engine_state_drop(s);
            close_bench(&b);
        }
    }
}

/* A snapshot off any page border: drafts after it are thrown away again and again. */
static void snapshot_and_back(void **state)
{
    (void)state;
    for (size_t k = 0; k < BASE_COUNT(shapes); k++) {
        bench b;
        open_bench(&b, &shapes[k], 64, 2);
        int32_t x[MOST], draft[MOST];
        int64_t now;
        err e = {0};
        engine_state *s;
        fill(x, MOST, 5);
        must(engine_state_create(&s, b.p, &e), &e);
        must(feed(&b, s, x, 0, 100, 64), &e);
        for (int64_t at = 100; at < 160; at += 10) {
            must(engine_state_snapshot(s, &e), &e);
            memcpy(draft, x, sizeof x);
            fill(draft + at, 8, (uint64_t)at);
            must(feed(&b, s, draft, at, at + 8, 8), &e);
            must(engine_state_truncate(s, at, &now, &e), &e);
            assert_int_equal(now, at); /* no replay */
            must(feed(&b, s, x, at, at + 10, 10), &e);
            assert_logits(&b, &shapes[k], x, at + 10);
        }
        assert_int_equal(engine_state_truncate(s, 161, &now, &e), STATUS_INVALID);
        engine_state_drop(s);
        close_bench(&b);
    }
}

/* Many texts through few pages: prefixes come and go, what is found is right, what does not fit says so and changes nothing. */
static void eviction(void **state)
{
    (void)state;
    for (size_t k = 0; k < BASE_COUNT(shapes); k++) {
        bench b;
        open_bench(&b, &shapes[k], 12, 3);
        int64_t reused = 0;
        err e = {0};
        for (int round = 0; round < 40; round++) {
            int32_t x[MOST];
            engine_state *s;
            int n = 100 + (int)(hash_u64((uint64_t)round, 6) % 300);
            fill(x, MOST, 7);
            fill(x + 64 * (round % 4), MOST - 64 * (round % 4), (uint64_t)(8 + round % 6));
            must(engine_state_create(&s, b.p, &e), &e);
            int64_t from = engine_state_reuse(s, x, n);
            assert_int_equal(from % 64, 0);
            assert_true(from < n);
            reused += from;
            must(feed(&b, s, x, from, n, 33), &e);
            if (round % 5 == 0)
                assert_logits(&b, &shapes[k], x, n);
            engine_state_drop(s);
        }
        assert_true(reused > 0);
        close_bench(&b);
    }
}

static void no_room(void **state)
{
    (void)state;
    bench b;
    open_bench(&b, &shapes[0], 4, 0);
    int32_t x[MOST];
    err e = {0};
    engine_state *s, *t;
    fill(x, MOST, 9);
    must(engine_state_create(&s, b.p, &e), &e);
    must(engine_state_create(&t, b.p, &e), &e);
    must(feed(&b, s, x, 0, 150, 64), &e);
    must(feed(&b, t, x, 0, 10, 64), &e);
    assert_true(engine_pool_has_room(b.p, s, 42));
    assert_false(engine_pool_has_room(b.p, s, 43));
    assert_int_equal(engine_state_extend(s, 43, &e), STATUS_NO_MEMORY);
    assert_int_equal(engine_state_extend(s, MOST, &e), STATUS_TOO_LONG);
    must(feed(&b, s, x, 150, 192, 64), &e);
    assert_logits(&b, &shapes[0], x, 192);
    engine_state_drop(t);
    must(feed(&b, s, x, 192, 200, 64), &e);
    engine_state_drop(s);
    assert_int_equal(engine_pool_bytes(b.p, 1), model_class(b.m, 0)->page_bytes);
    assert_int_equal(engine_pool_bytes(b.p, 65), 2 * model_class(b.m, 0)->page_bytes);
    close_bench(&b);
}

/* ---- messages ------------------------------------------------------------------------------------------------------ */

static wire_frame whole(const sb *b)
{
    wire_frame f;
    bool complete;
    err e = {0};
    must(wire_next(&f, &complete, b->data, b->length, &e), &e);
    assert_true(complete);
    assert_int_equal(f.bytes + WIRE_HEADER, b->length);
    return f;
}

static void messages_come_back(void **state)
{
    (void)state;
    sb b;
    arena memory;
    err e = {0};
    sb_init(&b);
    arena_init(&memory, 0);
    int32_t prompt[3] = {7, 0, 2000000}, end[1] = {5}, banned[2] = {1, 2};
    sample_bias bias[1] = {{3, -1.5f}};
    engine_request q = {.id = 1ull << 60,
                        .prompt = prompt,
                        .n_prompt = 3,
                        .n_choices = 2,
                        .max_tokens = 9,
                        .n_end = 1,
                        .end = end,
                        .top_logprobs = -1,
                        .no_reuse = true,
                        .sample = SAMPLE_DEFAULTS},
                   back;
    q.sample.seed = 0xfedcba9876543210u;
    q.sample.bias = bias;
    q.sample.n_bias = 1;
    q.sample.banned = banned;
    q.sample.n_banned = 2;
    wire_put_submit(&b, &q);
    wire_frame f = whole(&b);
    must(wire_get_submit(&back, &f, &memory, &e), &e);
    assert_true(back.id == q.id && back.n_prompt == 3 && back.prompt[2] == 2000000 &&
                back.end[0] == 5 && back.no_reuse);
    assert_true(back.sample.seed == q.sample.seed && back.sample.bias[0].bias == -1.5f &&
                back.sample.banned[1] == 2);
    for (size_t n = 0; n < f.bytes;
         n++) { /* a payload that ends early is refused, wherever it ends */
        wire_frame cut = {f.message, f.payload, n};
        assert_int_equal(wire_get_submit(&back, &cut, &memory, &e), STATUS_CORRUPT);
    }
    sb_clear(&b);
    engine_event event = {.kind = ENGINE_TOKEN,
                          .id = 4,
                          .choice = 3,
                          .index = 17,
                          .token = 99,
                          .logprob = -0.25f,
                          .n_top = 2,
                          .top = {{1, -1}, {2, -2}},
                          .text = "why"},
                 other;
    wire_put_event(&b, &event);
    f = whole(&b);
    must(wire_get_event(&other, &f, &e), &e);
    assert_true(other.choice == 3 && other.top[1].logprob == -2 && !strcmp(other.text, "why"));
    for (size_t n = 0; n < f.bytes; n++) {
        wire_frame cut = {f.message, f.payload, n};
        assert_int_equal(wire_get_event(&other, &cut, &e), STATUS_CORRUPT);
    }
    sb_clear(&b);
    wire_load load = {.source = "/a/b",
                      .model = {.isa = "avx2", .context = 77, .n_pages = {1, 2, 3, 4}},
                      .engine = {.chunk = 5}},
              got;
    wire_put_load(&b, &load);
    f = whole(&b);
    must(wire_get_load(&got, &f, &memory, &e), &e);
    assert_true(!strcmp(got.source, "/a/b") && !got.model.device &&
                !strcmp(got.model.isa, "avx2") && got.model.n_pages[3] == 4);
    arena_fini(&memory);
    sb_fini(&b);
}

/* Random payloads never crash; random headers are refused or ask for more. */
static void nonsense_is_refused(void **state)
{
    (void)state;
    err e;
    unsigned char bytes[400];
    bool complete;
    wire_frame f;
    for (int round = 0; round < 20000; round++) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] =
                (unsigned char)(hash_u64((uint64_t)round * 1000 + i, 1) % (round % 2 ? 256 : 3));
        arena memory;
        arena_init(&memory, 1 << 16);
        engine_request q;
        engine_event event;
        wire_load load;
        wire_frame nonsense = {WIRE_SUBMIT, bytes, (size_t)round % sizeof bytes};
        wire_get_submit(&q, &nonsense, &memory, &e);
        nonsense.message = WIRE_EVENT;
        if (wire_get_event(&event, &nonsense, &e) == STATUS_OK)
            assert_true(event.n_top <= ENGINE_TOP_LOGPROBS && event.choice < ENGINE_CHOICES);
        nonsense.message = WIRE_LOAD;
        wire_get_load(&load, &nonsense, &memory, &e);
        arena_fini(&memory);
        wire_next(&f, &complete, bytes, sizeof bytes, &e);
    }
    unsigned char huge[8] = {255, 255, 255, 255, 1, 0, 0, 0};
    assert_int_equal(wire_next(&f, &complete, huge, 8, &e), STATUS_CORRUPT);
    unsigned char unknown[8] = {0, 0, 0, 0, 200, 0, 0, 0};
    assert_int_equal(wire_next(&f, &complete, unknown, 8, &e), STATUS_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forks_diverge),
        cmocka_unit_test(truncate_and_replay),
        cmocka_unit_test(snapshot_and_back),
        cmocka_unit_test(eviction),
        cmocka_unit_test(no_room),
        cmocka_unit_test(messages_come_back),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
