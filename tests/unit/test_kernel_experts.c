/*
 * kernel, mixtures of experts: pairs are what the choices say, and a layer computed by experts equals, bit for bit and on every table, one that goes
 * token by token and expert by expert through the portable products, however the experts, their columns and the work are divided.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel/experts.h"
#include "kernel/internal.h"
#include "os/os.h"

#include <stdlib.h>

enum { D = 256, F = 256, E = 7, K = 3, TOKENS_MAX = 70, PAIRS_MAX = TOKENS_MAX * K };

static uint64_t state = 1;

static int below(int n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int)((state >> 33) % (uint64_t)n);
}

static void *must(void *p)
{
    assert_non_null(p);
    return p;
}

/* The matrices of one kind of all experts: rows × [begin, end) of `whole` columns. */
typedef struct matrices {
    kernel_matrix m[E];
    unsigned char *tiles;
} matrices;

static void make(matrices *a, const kernel_type *type, int rows, int64_t whole, int64_t begin,
                 int64_t end, uint64_t seed)
{
    uint64_t row_bytes = kernel_row_bytes(type, whole),
             strip = kernel_strip_bytes(type, begin, end);
    uint64_t matrix = (uint64_t)kernel_strips(rows) * strip;
    unsigned char *file = must(malloc((size_t)rows * row_bytes));
    a->tiles = must(malloc((size_t)(E * matrix)));
    for (int e = 0; e < E; e++) {
        unsigned char *tiles = a->tiles + (uint64_t)e * matrix;
        kernel_example_blocks(type, file, rows * whole / type->block_elements, seed + (uint64_t)e);
        for (int64_t s = 0; s < kernel_strips(rows); s++)
            kernel_pack(type, tiles + (uint64_t)s * strip, file + (uint64_t)s * 16 * row_bytes,
                        row_bytes, (int)BASE_MIN(16, rows - s * 16), begin, end);
        a->m[e] = (kernel_matrix){type, tiles, rows, begin, end, strip};
    }
    free(file);
}

/* A layer: y [T][D] = Σ weight · down(silu(gate x) · up x), with up twice in place of gate and up. */
typedef struct layer {
    const kernel_type *type;
    bool exact, floats;
    matrices up, down;
    int n_tokens;
    kernel_choice choices[PAIRS_MAX];
    float x[TOKENS_MAX * D];
    double expected[TOKENS_MAX * D], got[TOKENS_MAX * D];
} layer;

static void choose(layer *l, int n_tokens)
{
    l->n_tokens = n_tokens;
    for (int t = 0; t < n_tokens; t++)
        for (int k = 0; k < K; k++)
            l->choices[t * K + k] = (kernel_choice){
                .expert = below(3) ? below(E) : 2, /* one is popular */
                .weight = k == 1 && t % 5 == 0 ? 0 : (float)below(1000) / 1024,
            };
}

/* Rows of x as the products read them. */
static void *input_of(const layer *l, const kernel_table *k, const float *x, int64_t rows,
                      int64_t columns)
{
    size_t bytes = (size_t)(rows * columns) * sizeof(float);
    if (l->floats)
        return memcpy(must(malloc(bytes)), x, bytes);
    kernel_act *act = must(malloc((size_t)rows * kernel_act_bytes(columns)));
    k->quantise(act, x, rows * columns);
    return act;
}

static uint64_t row_bytes(const layer *l, int64_t columns)
{
    return l->floats ? (uint64_t)columns * sizeof(float) : kernel_act_bytes(columns);
}

/* One choice after the other, the last first, nothing grouped. */
static void plain(layer *l)
{
    const kernel_table *k = kernel_table_at(0);
    memset(l->expected, 0, sizeof l->expected);
    for (int i = l->n_tokens * K - 1; i >= 0; i--) {
        static float y[F];
        static double sums[D];
        int e = l->choices[i].expert;
        void *x = input_of(l, k, l->x + i / K * D, 1, D);
        kernel_product up = {.w = &l->up.m[e],
                             .output = KERNEL_F32,
                             .exact = l->exact,
                             .n_tokens = 1,
                             .x = x,
                             .x_bytes = row_bytes(l, D),
                             .dst = y,
                             .dst_stride = F};
        assert_true(kernel_multiply(k, &up, 0, F / 16));
        k->silu_multiply(y, y, y, F);
        void *h = input_of(l, k, y, 1, F);
        for (int j = 0; j < (l->floats ? F : F / 32); j++) {
            float *at = l->floats ? (float *)h + j : &((kernel_act *)h)[j].scale;
            *at *= l->choices[i].weight;
        }
        kernel_product down = {.w = &l->down.m[e],
                               .output = KERNEL_SUMS,
                               .exact = l->exact,
                               .leaf = kernel_leaf(F, 0),
                               .n_tokens = 1,
                               .x = h,
                               .x_bytes = row_bytes(l, F),
                               .dst = sums,
                               .dst_stride = D};
        assert_true(kernel_multiply(k, &down, 0, D / 16));
        for (int d = 0; d < D; d++)
            l->expected[i / K * D + d] += sums[d];
        free(x);
        free(h);
    }
}

/* Adds to got what a shard with experts [first, first + n) and the columns that `down` has says, its work done in pieces. */
static void add_shard(layer *l, const kernel_table *k, int first, int n, const matrices *down)
{
    int64_t from = down->m[0].column_begin, columns = down->m[0].column_end - from;
    kernel_pairs pairs;
    void *memory = must(malloc((size_t)kernel_pairs_bytes(n, l->n_tokens * K)));
    kernel_group(&pairs, memory, l->choices, l->n_tokens, K, first, n);
    void *all = input_of(l, k, l->x, l->n_tokens, D);
    void *x = must(malloc((size_t)BASE_MAX(pairs.n_pairs, 1) * row_bytes(l, D)));
    kernel_pairs_gather(x, all, row_bytes(l, D), &pairs, 0, pairs.n_pairs / 2);
    kernel_pairs_gather(x, all, row_bytes(l, D), &pairs, pairs.n_pairs / 2, pairs.n_pairs);
    float *y = must(calloc((size_t)BASE_MAX(pairs.n_pairs, 1) * F, sizeof *y));
    kernel_pairs_product up = {.pairs = &pairs,
                               .w = l->up.m + first,
                               .exact = l->exact,
                               .x = x,
                               .x_bytes = row_bytes(l, D),
                               .dst = y,
                               .dst_stride = F};
    int64_t strips = kernel_pairs_strips(&up);
    for (int64_t begin = 0; begin < strips; begin += 45) /* across the borders of experts */
        kernel_pairs_multiply(k, &up, begin, BASE_MIN(begin + 45, strips));
    k->silu_multiply(y, y, y, pairs.n_pairs * F);
    for (int64_t i = 0; i < pairs.n_pairs; i++) /* the shard's columns only */
        memmove(y + i * columns, y + i * F + from, (size_t)columns * sizeof *y);
    void *h = input_of(l, k, y, BASE_MAX(pairs.n_pairs, 1), columns);
    kernel_pairs_weigh(h, !l->floats, columns, &pairs, 0, pairs.n_pairs);
    static double scratch[KERNEL_PAIRS_SCRATCH];
    double *sums = must(malloc((size_t)l->n_tokens * (D + 3) * sizeof *sums));
    kernel_pairs_product add = {.pairs = &pairs,
                                .w = down->m + first,
                                .exact = l->exact,
                                .leaf = kernel_leaf(F, 0),
                                .x = h,
                                .x_bytes = row_bytes(l, columns),
                                .dst = sums,
                                .dst_stride = D + 3,
                                .n_tokens = l->n_tokens};
    memset(sums, 0x7E, (size_t)l->n_tokens * (D + 3) * sizeof *sums);
    for (int64_t begin = 0; begin < D / 16; begin += 5)
        kernel_pairs_add(k, &add, begin, BASE_MIN(begin + 5, D / 16), scratch);
    for (int t = 0; t < l->n_tokens; t++)
        for (int d = 0; d < D; d++)
            l->got[t * D + d] += sums[t * (D + 3) + d];
    free(memory);
    free(all);
    free(x);
    free(y);
    free(h);
    free(sums);
}

static void compare(const layer *l, const kernel_table *k, const char *how)
{
    for (int i = 0; i < l->n_tokens * D; i++)
        if (l->got[i] + 0.0 != l->expected[i] + 0.0)
            fail_msg("%s, %s, exact %d, %d tokens, %s: token %d, row %d: expected %a, got %a",
                     k->name, l->type->name, l->exact, l->n_tokens, how, i / D, i % D,
                     l->expected[i], l->got[i]);
}

static void check_layer(layer *l, const kernel_table *k)
{
    memset(l->got, 0, sizeof l->got);
    add_shard(l, k, 0, E, &l->down);
    compare(l, k, "whole");
    memset(l->got, 0, sizeof l->got);
    add_shard(l, k, 5, 2, &l->down);
    add_shard(l, k, 0, 0, &l->down);
    add_shard(l, k, 0, 5, &l->down);
    compare(l, k, "experts divided");
    memset(l->got, 0, sizeof l->got);
    static const int cuts[] = {0, 96, 128, F};
    for (int i = 2; i >= 0; i--) {
        matrices part;
        make(&part, l->type, D, F, cuts[i], cuts[i + 1], 900);
        add_shard(l, k, 0, E, &part);
        free(part.tiles);
    }
    compare(l, k, "columns divided");
}

static void test_layers(void **unused)
{
    (void)unused;
    layer *l = must(malloc(sizeof *l));
    kernel_example_floats(l->x, TOKENS_MAX * D, 4);
    for (int i = 0; i < KERNEL_TYPES; i++)
        for (int exact = 0; exact < 2; exact++) {
            static const int tokens[] = {1, 9, TOKENS_MAX};
            l->type = kernel_type_at(i);
            l->exact = exact;
            l->floats = exact || !l->type->quantised;
            make(&l->up, l->type, F, D, 0, D, 300);
            make(&l->down, l->type, D, F, 0, F, 900);
            bool is_long = !exact && (i == TYPE_Q4_0 || i == TYPE_Q4_K || i == TYPE_F16);
            for (size_t n = 0; n < BASE_COUNT(tokens) - !is_long; n++) {
                choose(l, tokens[n]);
                plain(l);
                for (int t = 0; kernel_table_at(t); t++)
                    if (kernel_runs(kernel_table_at(t), os_cpu_features()))
                        check_layer(l, kernel_table_at(t));
            }
            free(l->up.tiles);
            free(l->down.tiles);
        }
    free(l);
}

/* Pairs lie by expert, tokens ascend in each, nobody is lost or made up; ids that no expert of the shard has are left out. */
static void test_groups(void **unused)
{
    (void)unused;
    static const int32_t odd[] = {-1, INT32_MIN, INT32_MAX, 3, 10, 9};
    for (int round = 0; round < 300; round++) {
        kernel_choice c[40];
        int n_chosen = 1 + below(4), n_tokens = below(11);
        int first = below(5), n = below(6), seen = 0, used = 0;
        for (int i = 0; i < n_tokens * n_chosen; i++)
            c[i] = (kernel_choice){below(8) ? below(10) : odd[i % 6], (float)i};
        uint64_t bytes = kernel_pairs_bytes(n, n_tokens * n_chosen);
        kernel_pairs p;
        void *memory = must(malloc((size_t)bytes)); /* to the byte: sanitizers watch its end */
        kernel_group(&p, memory, c, n_tokens, n_chosen, first, n);
        assert_int_equal(p.begin[0], 0);
        for (int e = 0; e < n; e++) {
            assert_true(p.begin[e] <= p.begin[e + 1]);
            if (p.begin[e] < p.begin[e + 1])
                assert_int_equal(p.used[used++], e);
            for (int i = p.begin[e]; i < p.begin[e + 1]; i++) {
                const kernel_choice *from = &c[(int)p.weight[i]];
                assert_int_equal(from->expert, first + e);
                assert_int_equal((from - c) / n_chosen, p.token[i]);
                assert_true(i == p.begin[e] || p.weight[i] > p.weight[i - 1]);
            }
        }
        for (int i = 0; i < n_tokens * n_chosen; i++)
            seen += c[i].expert >= first && c[i].expert < first + n;
        assert_int_equal(p.n_pairs, seen);
        assert_int_equal(p.begin[n], seen);
        assert_int_equal(p.n_used, used);
        free(memory);
    }
}

/* A weight may be as small as it likes: what would be subnormal is nothing. */
static void test_small_weights(void **unused)
{
    (void)unused;
    kernel_choice c[] = {{0, 0x1p-60f}, {0, -0x1p-59f}, {0, 0x1p-149f}, {0, -1}};
    unsigned char memory[64];
    kernel_pairs p;
    float x[4 * 2] = {0x1p-41f, 1, 0x1p-41f, 1, 1, 0x1.8p100f, 0.5f, -3},
                expected[] = {0, 0x1p-60f, -0x1p-100f, -0x1p-59f, 0, 0x1.8p-49f, -0.5f, 3};
    assert_true(kernel_pairs_bytes(1, 4) <= sizeof memory);
    kernel_group(&p, memory, c, 4, 1, 0, 1);
    kernel_pairs_weigh(x, false, 2, &p, 0, 4);
    for (int i = 0; i < 8; i++)
        if (memcmp(&x[i], &expected[i], sizeof x[i]) != 0)
            fail_msg("%d: expected %a, got %a", i, (double)expected[i], (double)x[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_small_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
