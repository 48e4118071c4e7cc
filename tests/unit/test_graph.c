/*
 * The seam between programs and devices: what a builder refuses, where the plan puts values, that `cpu_copy` owns what it was given, that
 * a matrix cut by columns adds up to the uncut one bit for bit.
 */
#include "graph/graph.h"
#include "os/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { D = 96, F = 160, V = 50, TOKENS = 12 };

static const device_limits limits = {TOKENS, 2, TOKENS, 8};

static void must(status s, const err *e)
{
    if (s != STATUS_OK)
        fail_msg("%s: %s", status_name(s), e->text);
}

static const kernel_table *kernels(void)
{
    const kernel_table *k;
    err e = {0};
    must(kernel_select(&k, os_cpu_features(), NULL, &e), &e);
    return k;
}

static device *open_device(const device_ops *ops, int threads, bool exact)
{
    device *d;
    err e = {0};
    device_options o = {.n_threads = threads, .kernels = kernels(), .exact = exact};
    must(ops->open(&d, &o, &e), &e);
    return d;
}

static const kernel_type *f32(void)
{
    return kernel_type_find(0);
}

static const kernel_type *q8_0(void)
{
    return kernel_type_find(8);
}

static float noise(uint64_t i, uint64_t seed)
{
    return (float)(int32_t)(hash_u64(i, seed) & 0xffff) * (1.0f / 32768.0f) - 1.0f;
}

/* Fills a matrix of a device, f32 or q8_0, with the same noise whatever its columns: those of the whole of `whole` columns. */
static void upload(device *d, const device_weight *w, int64_t whole, uint64_t seed)
{
    uint64_t row_bytes = kernel_row_bytes(w->type, whole);
    unsigned char *rows = calloc((size_t)w->rows, row_bytes);
    for (int64_t r = 0; r < w->rows; r++) {
        if (w->type == f32())
            for (int64_t c = 0; c < whole; c++) {
                float x = noise((uint64_t)(r * whole + c), seed) * 0.2f;
                memcpy(rows + (uint64_t)r * row_bytes + (uint64_t)c * 4, &x, 4);
            }
        else
            for (uint64_t i = 0; i < row_bytes; i++) {
                uint16_t scale = half_from_float(0.002f);
                rows[(uint64_t)r * row_bytes + i] =
                    i % 34 < 2 ? (unsigned char)(scale >> 8 * (i % 34))
                               : (unsigned char)hash_u64((uint64_t)r * row_bytes + i, seed);
            }
    }
    err e = {0};
    must(d->ops->upload(d, w, rows, row_bytes, 0, w->rows, &e), &e);
    free(rows);
}

/* One small program: embed, norm, gated, down (whole or in two column shards whose sums are added), norm, head. */
typedef struct program {
    graph *g;
    device *d;
    device_weight embedding, gate, up, down[2], head;
    int logits;
    uint64_t scratch_bytes;
} program;

static uint64_t place(device *d, device_weight *w, uint64_t end)
{
    w->at = (device_ref){0, end};
    uint64_t bytes = d->ops->weight_bytes(d, w);
    assert_true(bytes > 0 && bytes % 64 == 0);
    return end + bytes;
}

static int product(graph *g, int input, const device_weight *w, int leaf, device_format format,
                   bool outputs)
{
    device_op op = {.kind = DEVICE_OP_PRODUCT, .layer = -1};
    op.u.product.input = input;
    op.u.product.n_parts = 1;
    op.u.product.weight[0] = *w;
    op.u.product.bias[0] = DEVICE_NOWHERE;
    op.u.product.leaf = leaf;
    op.u.product.out[0] = graph_value(g, format, w->rows, outputs);
    graph_add(g, &op);
    return op.u.product.out[0];
}

static int norm(graph *g, int x, int add, bool outputs)
{
    device_op op = {.kind = DEVICE_OP_NORM, .layer = -1};
    op.u.norm.x = x;
    op.u.norm.add = add;
    op.u.norm.bias = op.u.norm.add_norm = op.u.norm.norm = DEVICE_NOWHERE;
    op.u.norm.eps = 1e-5f;
    op.u.norm.out = graph_value(g, DEVICE_INPUT, D, outputs);
    graph_add(g, &op);
    return op.u.norm.out;
}

static void make_program(program *p, device *d, const kernel_type *type, device_format sums)
{
    err e = {0};
    p->d = d;
    p->embedding = (device_weight){.type = type, .rows = V, .columns = D};
    p->gate = p->up = (device_weight){.type = type, .rows = F, .columns = D};
    p->down[0] = (device_weight){.type = type, .rows = D, .columns = F};
    p->head = (device_weight){.type = type, .rows = V, .columns = D};
    uint64_t end = place(d, &p->embedding, 0);
    end = place(d, &p->gate, end);
    end = place(d, &p->up, end);
    end = place(d, &p->down[0], end);
    end = place(d, &p->head, end);
    int32_t buffer;
    must(d->ops->alloc(d, end, &buffer, &e), &e);
    assert_int_equal(buffer, 0);
    upload(d, &p->embedding, D, 1);
    upload(d, &p->gate, D, 2);
    upload(d, &p->up, D, 3);
    upload(d, &p->down[0], F, 4);
    upload(d, &p->head, D, 5);

    must(graph_create(&p->g, d, &limits, &e), &e);
    device_op op = {.kind = DEVICE_OP_BEGIN, .layer = -1};
    int x = graph_value(p->g, DEVICE_F32, D, false);
    op.u.begin.embedding = p->embedding;
    op.u.begin.scale = 1.0f;
    op.u.begin.x = x;
    for (int i = 0; i < DEVICE_ROTARIES; i++)
        op.u.begin.rotary[i] = -1;
    graph_add(p->g, &op);
    device_op gated = {.kind = DEVICE_OP_GATED, .layer = 0};
    gated.u.gated.input = norm(p->g, x, -1, false);
    gated.u.gated.gate = p->gate;
    gated.u.gated.up = p->up;
    gated.u.gated.out = graph_value(p->g, DEVICE_INPUT, F, false);
    graph_add(p->g, &gated);
    int add = product(p->g, gated.u.gated.out, &p->down[0], kernel_leaf(F, 0), sums, false);
    int last = norm(p->g, x, add, true);
    p->logits = product(p->g, last, &p->head, 0, DEVICE_F32, true);
    must(graph_plan(p->g, 1, &p->scratch_bytes, &e), &e);
    must(d->ops->alloc(d, p->scratch_bytes, &buffer, &e), &e);
    assert_int_equal(buffer, 1);
    must(graph_compile(p->g, &e), &e);
}

typedef struct batch {
    int32_t ids[TOKENS], run_of[TOKENS], outputs[TOKENS];
    int64_t positions[TOKENS];
    device_run run;
    device_step step;
} batch;

static void make_batch(batch *b)
{
    memset(b, 0, sizeof(*b));
    for (int i = 0; i < TOKENS; i++) {
        b->ids[i] = (i * 7) % V;
        b->positions[i] = i;
        b->outputs[i] = i;
    }
    b->run = (device_run){.n_tokens = TOKENS};
    b->step = (device_step){.n_tokens = TOKENS,
                            .n_runs = 1,
                            .n_outputs = TOKENS,
                            .ids = b->ids,
                            .positions = b->positions,
                            .run_of = b->run_of,
                            .runs = &b->run,
                            .outputs = b->outputs};
}

static void run(float *logits, const device_ops *ops, int threads, const kernel_type *type,
                device_format sums)
{
    program p;
    device *d = open_device(ops, threads, false);
    make_program(&p, d, type, sums);
    batch b;
    make_batch(&b);
    err e = {0};
    must(graph_run(p.g, &b.step, &e), &e);
    must(graph_read(p.g, p.logits, logits, TOKENS, &e), &e);
    graph_destroy(p.g);
    d->ops->close(d);
}

/* ---- tests --------------------------------------------------------------------------------------------------------- */

static void one_answer(void **state)
{
    (void)state;
    const kernel_type *const types[] = {f32(), q8_0()};
    for (int i = 0; i < 2; i++) {
        float a[TOKENS * V], b[TOKENS * V];
        run(a, &device_cpu, 1, types[i], DEVICE_F32);
        float largest = 0.0f;
        for (int k = 0; k < TOKENS * V; k++)
            largest = BASE_MAX(largest, a[k]);
        assert_true(largest > 0.01f);
        run(b, &device_cpu, 3, types[i], DEVICE_F32);
        assert_memory_equal(a, b, sizeof(a));
        run(b, &device_cpu, 2, types[i], DEVICE_F64); /* partial sums, finished by the norm */
        assert_memory_equal(a, b, sizeof(a));
        run(b, &device_cpu_copy, 2, types[i], DEVICE_F64);
        assert_memory_equal(a, b, sizeof(a));
    }
}

/* A step may change as soon as enqueue has returned. */
static void copy_owns_the_step(void **state)
{
    (void)state;
    float expected[TOKENS * V], got[TOKENS * V];
    run(expected, &device_cpu, 1, q8_0(), DEVICE_F32);
    program p;
    device *d = open_device(&device_cpu_copy, 1, false);
    make_program(&p, d, q8_0(), DEVICE_F32);
    batch b;
    err e = {0};
    for (int round = 0; round < 20; round++) {
        make_batch(&b);
        /* graph_run's own way, with hostile timing: the program's only segment, then everything is overwritten. */
        must(graph_enqueue(p.g, &b.step, &e), &e);
        memset(&b, 0x5a, sizeof(b));
        must(graph_read(p.g, p.logits, got, TOKENS, &e), &e);
        assert_memory_equal(got, expected, sizeof(got));
        must(d->ops->wait(d, &e), &e);
    }
    graph_destroy(p.g);
    d->ops->close(d);
}

static void places_do_not_meet(void **state)
{
    (void)state;
    program p;
    device *d = open_device(&device_cpu, 1, false);
    make_program(&p, d, q8_0(), DEVICE_F32);
    uint64_t sum = 0;
    int n = graph_n_values(p.g);
    for (int v = 0; v < n; v++) {
        const device_value *a = graph_get_value(p.g, v);
        uint64_t bytes = d->ops->value_bytes(d, a, TOKENS);
        sum += bytes;
        assert_int_equal(a->at.buffer, 1);
        assert_true(a->at.offset + bytes <= p.scratch_bytes);
    }
    assert_true(p.scratch_bytes < sum); /* something was shared */
    /* x (value 0) lives from the first op to the last norm: no value before the logits may touch it. */
    const device_value *x = graph_get_value(p.g, 0);
    for (int v = 1; v < n - 1; v++) {
        const device_value *a = graph_get_value(p.g, v);
        bool apart = a->at.offset >= x->at.offset + TOKENS * D * sizeof(float) ||
                     a->at.offset + d->ops->value_bytes(d, a, TOKENS) <= x->at.offset;
        assert_true(apart);
    }
    graph_destroy(p.g);
    d->ops->close(d);
}

/* y = W x over all columns, and over two shards of them whose sums are added as ranks would. */
static void column_shards_add_up(void **state)
{
    (void)state;
    const kernel_type *const types[] = {f32(), q8_0()};
    for (int i = 0; i < 2; i++) {
        double sums[3][TOKENS * D];
        const int64_t cut[3][2] = {{0, F}, {0, 64}, {64, F}};
        for (int part = 0; part < 3; part++) {
            device *d = open_device(&device_cpu, 2, false);
            err e = {0};
            int64_t columns = cut[part][1] - cut[part][0];
            device_weight embedding = {.type = f32(), .rows = V, .columns = columns};
            device_weight w = {
                .type = types[i], .rows = D, .columns = columns, .column_begin = cut[part][0]};
            uint64_t end = place(d, &w, place(d, &embedding, 0));
            int32_t buffer;
            must(d->ops->alloc(d, end, &buffer, &e), &e);
            /* The shard of x: columns of the same noise, normed by nothing (a norm would look at all of them). */
            float *rows = calloc(V, (size_t)columns * sizeof(float));
            for (int64_t r = 0; r < V; r++)
                for (int64_t c = 0; c < columns; c++)
                    rows[r * columns + c] = noise((uint64_t)(r * F + cut[part][0] + c), 9);
            must(d->ops->upload(d, &embedding, rows, (uint64_t)columns * sizeof(float), 0, V, &e),
                 &e);
            free(rows);
            upload(d, &w, F, 4);
            graph *g;
            must(graph_create(&g, d, &limits, &e), &e);
            device_op op = {.kind = DEVICE_OP_BEGIN, .layer = -1};
            op.u.begin.embedding = embedding;
            op.u.begin.scale = 1.0f;
            op.u.begin.x = graph_value(g, DEVICE_F32, columns, false);
            op.u.begin.rotary[0] = op.u.begin.rotary[1] = -1;
            graph_add(g, &op);
            device_op input = {.kind = DEVICE_OP_INPUT, .layer = -1};
            input.u.input.x = op.u.begin.x;
            input.u.input.out = graph_value(g, DEVICE_INPUT, columns, false);
            graph_add(g, &input);
            int y = product(g, input.u.input.out, &w, kernel_leaf(F, 0), DEVICE_F64, false);
            uint64_t bytes;
            must(graph_plan(g, 1, &bytes, &e), &e);
            must(d->ops->alloc(d, bytes, &buffer, &e), &e);
            must(graph_compile(g, &e), &e);
            batch b;
            make_batch(&b);
            must(graph_run(g, &b.step, &e), &e);
            must(d->ops->read(d, sums[part], graph_get_value(g, y)->at, sizeof(sums[part]), &e),
                 &e);
            graph_destroy(g);
            d->ops->close(d);
        }
        for (int k = 0; k < TOKENS * D; k++) {
            double both = sums[1][k] + sums[2][k];
            assert_memory_equal(&sums[0][k], &both, sizeof(both));
        }
    }
}

static void builders_refuse(void **state)
{
    (void)state;
    device *d = open_device(&device_cpu, 1, false);
    for (int wrong = 0; wrong < 4; wrong++) {
        graph *g;
        err e = {0};
        must(graph_create(&g, d, &limits, &e), &e);
        int x = graph_value(g, DEVICE_F32, wrong == 0 ? 0 : D, false);
        int input = graph_value(g, DEVICE_INPUT, D, false);
        device_op op = {.kind = DEVICE_OP_PRODUCT};
        op.u.product.n_parts = wrong == 1 ? DEVICE_PARTS + 1 : 1;
        op.u.product.input = wrong == 2 ? x : input;
        op.u.product.weight[0] = (device_weight){.type = f32(), .rows = F, .columns = D};
        op.u.product.out[0] = graph_value(g, DEVICE_F32, wrong == 3 ? F + 1 : F, false);
        graph_add(g, &op);
        uint64_t bytes;
        assert_int_equal(graph_plan(g, 0, &bytes, &e), STATUS_INTERNAL);
        assert_non_null(strstr(e.text, wrong == 0 ? "width" : "product"));
        graph_destroy(g);
    }
    d->ops->close(d);
}

static bool always(void *context, int64_t n_rows, int64_t width)
{
    (void)context;
    return n_rows > 0 && width > 0;
}

/* Dividing rows among ranks makes a new list of ops: without memory for it there is no plan, and not a plan of half the ops. */
static void divided_or_refused(void **state)
{
    (void)state;
    device *d = open_device(&device_cpu, 1, false);
    const graph_ranks ranks = {.n = 2, .divides = always};
    int refused = 0;
    for (uint64_t k = 1;; k++) {
        graph *g;
        err e = {0};
        must(graph_create(&g, d, &limits, &e), &e);
        graph_set_ranks(g, &ranks);
        int x = graph_value(g, DEVICE_F32, D, false), sum = graph_value(g, DEVICE_F64, D, false),
            out = graph_value(g, DEVICE_F32, D, false);
        enum { LAYERS = 30 };
        for (int i = 0; i < LAYERS; i++) {
            device_op zero = {.kind = DEVICE_OP_ZERO, .layer = i}, all = {.kind = DEVICE_OP_SUM},
                      norm = {.kind = DEVICE_OP_NORM};
            zero.u.zero.value = all.u.sum.value = norm.u.norm.add = sum;
            norm.u.norm.x = x;
            norm.u.norm.out = out;
            graph_add(g, &zero);
            graph_add(g, &all);
            graph_add(g, &norm);
        }
        uint64_t bytes, before = base_allocations();
        base_fail_after(k);
        status s = graph_plan(g, 0, &bytes, &e);
        base_fail_after(0);
        bool all_given = base_allocations() - before < k;
        assert_int_equal(s, all_given ? STATUS_OK : STATUS_NO_MEMORY);
        if (all_given)
            assert_int_equal(graph_n_ops(g), 4 * LAYERS + 1); /* a gather each, and of x */
        graph_destroy(g);
        if (all_given)
            break;
        refused++;
    }
    assert_true(refused >= 3); /* two lists and the plan */
    d->ops->close(d);
}

static void memory_is_guarded(void **state)
{
    (void)state;
    const device_ops *const all[] = {&device_cpu, &device_cpu_copy};
    for (int i = 0; i < 2; i++) {
        device *d = open_device(all[i], 1, false);
        err e = {0};
        int32_t a, b;
        must(d->ops->alloc(d, 1000, &a, &e), &e);
        must(d->ops->alloc(d, 10, &b, &e), &e);
        char text[16] = "fifteen letters", back[16];
        must(d->ops->read(d, back, (device_ref){a, 984}, 16, &e), &e);
        for (int k = 0; k < 16; k++)
            assert_int_equal(back[k], 0);
        must(d->ops->write(d, (device_ref){a, 984}, text, 16, &e), &e);
        must(d->ops->copy(d, (device_ref){a, 3}, (device_ref){a, 984}, 16, &e), &e);
        must(d->ops->read(d, back, (device_ref){a, 3}, 16, &e), &e);
        assert_string_equal(back, text);
        const device_ref outside[] = {{a, 985}, {b, 0}, {-1, 0}, {2, 0}, {a, UINT64_MAX - 3}};
        for (size_t k = 0; k < BASE_COUNT(outside); k++) {
            assert_int_equal(d->ops->read(d, back, outside[k], 16, &e), STATUS_INTERNAL);
            assert_int_equal(d->ops->write(d, outside[k], text, 16, &e), STATUS_INTERNAL);
            assert_int_equal(d->ops->copy(d, outside[k], (device_ref){a, 0}, 16, &e),
                             STATUS_INTERNAL);
        }
        d->ops->close(d);
    }
    assert_ptr_equal(device_find(NULL), &device_cpu);
    assert_ptr_equal(device_find("cpu_copy"), &device_cpu_copy);
    assert_null(device_find("abacus"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_answer),         cmocka_unit_test(copy_owns_the_step),
        cmocka_unit_test(places_do_not_meet), cmocka_unit_test(column_shards_add_up),
        cmocka_unit_test(builders_refuse),    cmocka_unit_test(memory_is_guarded),
        cmocka_unit_test(divided_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
