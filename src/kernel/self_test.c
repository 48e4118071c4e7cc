/*
 * Known-answer tests: class exact/1 is whoever gives these bits. Inputs come from a counter through hash_u64, so that nothing is stored;
 * the outputs of each function of a table are hashed and compared with what the portable table gave when the contract was written
 * (known.def). A difference means another numerics class, not a small error.
 * Not here: accuracy (tests/unit/test_kernel_math.c), odd shapes (test_kernel_product.c), speed (bench/kernel_bench.c).
 */
#include "kernel/internal.h"

/* ---- inputs --------------------------------------------------------------------------------------------------------- */

/* Like weights or activations: sign, 24 bits of mantissa, magnitudes over some powers of two. */
void kernel_example_floats(float *dst, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t u = hash_u64((uint64_t)i, seed);
        int32_t mantissa = (int32_t)(u & 0xFFFFFF) - 0x800000;
        dst[i] = (float)mantissa * float_from_bits((uint32_t)(127 - 23 - (u >> 24 & 3)) << 23);
    }
}

/* Where a block keeps f16 numbers, −1 = none; types of floats and MXFP4 are treated apart. */
static const int16_t half_offsets[KERNEL_TYPES][2] = {
    [TYPE_F32] = {-1, -1},   [TYPE_F16] = {-1, -1},   [TYPE_BF16] = {-1, -1},
    [TYPE_Q8_0] = {0, -1},   [TYPE_Q4_0] = {0, -1},   [TYPE_Q4_K] = {0, 2},
    [TYPE_Q6_K] = {208, -1}, [TYPE_Q4_1] = {0, 2},    [TYPE_Q5_0] = {0, -1},
    [TYPE_Q5_1] = {0, 2},    [TYPE_Q2_K] = {80, 82},  [TYPE_Q3_K] = {108, -1},
    [TYPE_Q5_K] = {0, 2},    [TYPE_IQ4_NL] = {0, -1}, [TYPE_IQ4_XS] = {0, -1},
    [TYPE_MXFP4] = {-1, -1},
};

static void put_half(unsigned char *p, uint64_t u)
{
    uint16_t h = (uint16_t)((u & 0x83FF) | (6 + (u >> 16 & 3)) << 10);
    memcpy(p, &h, 2);
}

static void example_float(unsigned char *p, const kernel_type *type, uint64_t u)
{
    float f;
    kernel_example_floats(&f, 1, u);
    uint16_t h = type->index == TYPE_F16 ? half_from_float(f) : bf16_from_float(f);
    if (type->index == TYPE_F32)
        memcpy(p, &f, 4);
    else
        memcpy(p, &h, 2);
}

void kernel_example_blocks(const kernel_type *type, void *dst, int64_t n_blocks, uint64_t seed)
{
    unsigned char *p = dst;
    for (int64_t b = 0; b < n_blocks; b++, p += type->block_bytes) {
        uint64_t u = hash_u64((uint64_t)b, seed);
        if (!type->quantised) {
            example_float(p, type, u);
            continue;
        }
        for (int i = 0; i < type->block_bytes; i++)
            p[i] = (unsigned char)(hash_u64((uint64_t)i, u) >> 13);
        if (type->index == TYPE_MXFP4)
            p[0] = (unsigned char)(118 + u % 8);
        for (int h = 0; h < 2; h++)
            if (half_offsets[type->index][h] >= 0)
                put_half(p + half_offsets[type->index][h], hash_u64(u, (uint64_t)h));
    }
}

/* ---- the rows ------------------------------------------------------------------------------------------------------- */

enum { N = 608, ODD = 53 };

static uint64_t hash_floats(uint64_t h, const float *x, int64_t n)
{
    return hash_bytes(x, (size_t)n * sizeof(float), h);
}

static uint64_t test_quantise(const kernel_table *k)
{
    float x[N], up[N];
    kernel_act act[N / 32];
    kernel_example_floats(x, N, 1);
    kernel_example_floats(up, N, 2);
    for (int i = 0; i < 32; i++)
        x[64 + i] *= 0x1p-62f; /* amax below 2^-60 */
    x[96] = -x[97];
    uint64_t h = 0;
    k->quantise(act, x, N);
    h = hash_bytes(act, sizeof act, h);
    k->rms_norm_quantise(act, x, up, N, 1e-5f);
    h = hash_bytes(act, sizeof act, h);
    k->silu_multiply_quantise(act, x, up, N);
    return hash_bytes(act, sizeof act, h);
}

static uint64_t test_norm(const kernel_table *k)
{
    float x[N], w[N], y[N];
    kernel_example_floats(x, N, 3);
    kernel_example_floats(w, N, 4);
    k->rms_norm(y, x, w, N, 1e-6f);
    uint64_t h = hash_floats(0, y, N);
    k->rms_norm(y, x, NULL, ODD, 1e-5f);
    return hash_floats(h, y, ODD);
}

static uint64_t test_elements(const kernel_table *k)
{
    float a[ODD], b[ODD], y[ODD];
    uint64_t h = 0;
    kernel_example_floats(a, ODD, 5);
    kernel_example_floats(b, ODD, 6);
    for (int i = 0; i < 20; i++)
        a[i] *= (float)(8 * i); /* gates out to ±160 */
    k->add(y, a, b, ODD);
    h = hash_floats(h, y, ODD);
    k->scale(y, a, 0.3f, ODD);
    h = hash_floats(h, y, ODD);
    k->multiply_add(y, b, 1.7f, ODD);
    h = hash_floats(h, y, ODD);
    k->silu_multiply(y, a, b, ODD);
    h = hash_floats(h, y, ODD);
    k->gelu_multiply(y, a, b, ODD);
    return hash_floats(h, y, ODD);
}

static uint64_t test_rope(const kernel_table *k)
{
    float x[3 * 72], c[36], s[36];
    double frequencies[36];
    uint64_t h = 0;
    for (int i = 0; i < 36; i++)
        frequencies[i] = kernel_pow64(10000.0, -(double)i * (1.0 / 36));
    kernel_rope_table(c, s, frequencies, 36, 4097, 1.1);
    h = hash_floats(hash_floats(h, c, 36), s, 36);
    for (int pairs = 0; pairs < 2; pairs++) {
        kernel_example_floats(x, 3 * 72, 7);
        k->rope(x, 3, 72, 72, c, s, (kernel_rope_pairs)pairs);
        k->rope(x, 3, 72, 40, c, s, (kernel_rope_pairs)pairs);
        h = hash_floats(h, x, 3 * 72);
    }
    return h;
}

static uint64_t test_softmax(const kernel_table *k)
{
    float x[N], y[N];
    kernel_example_floats(x, N, 8);
    k->softmax(y, x, ODD);
    uint64_t h = hash_floats(0, y, ODD);
    float max = k->max(x, N - 3);
    double sum = k->exp_sum(x, N - 3, max);
    int64_t best = k->argmax(x, N - 3);
    h = hash_floats(h, &max, 1);
    h = hash_bytes(&sum, sizeof sum, h);
    return hash_bytes(&best, sizeof best, h);
}

static uint64_t test_near(const kernel_table *k)
{
    enum { MANY = 700 };
    float x[MANY];
    kernel_example_floats(x, MANY, 12);
    k->scale(x, x, 7, MANY);
    float max = k->max(x, MANY);
    double above;
    uint64_t h = 0;
    for (int i = 0; i < 4; i++) {
        double sum = k->exp_near(x, MANY - 3 * i, max, max - (float)(8 * i), &above);
        h = hash_bytes(&above, sizeof above, hash_bytes(&sum, sizeof sum, h));
    }
    return h;
}

static uint64_t test_finish(const kernel_table *k)
{
    double sums[20];
    float y[20];
    for (int i = 0; i < 20; i++)
        sums[i] =
            (double)((int64_t)(hash_u64((uint64_t)i, 9) >> 16) - ((int64_t)1 << 47)) * 0x1p-24;
    sums[3] = -0.0;
    bool good = k->finish(y, sums, 20);
    uint64_t h = hash_u64(good, hash_floats(0, y, 20));
    sums[19] = 0x1p29;
    return hash_u64(k->finish(y, sums, 20), h);
}

/* end: of kernel_attention */
static uint64_t attend(const kernel_table *k, bool q8, int64_t end)
{
    enum { G = 2, HEADS = 3, KEY = 40, VALUE = 24, PAST = 130, T = 5 };
    uint16_t pages[3][G * KERNEL_RANGE * (KEY + VALUE)];
    float row[G * KEY], q[T * HEADS * KEY], y[T * HEADS * VALUE];
    const void *table[3] = {pages[0], pages[1], pages[2]};
    uint64_t h = 0;
    memset(pages, 0xFF, sizeof pages); /* unwritten slots are NaN */
    for (int i = 0; i < PAST + T; i++) {
        float value[G * VALUE];
        kernel_example_floats(row, G * KEY, 100 + (uint64_t)i);
        kernel_example_floats(value, G * VALUE, 1000 + (uint64_t)i);
        (q8 ? k->kv_store_q8 : k->kv_store)(pages[i / KERNEL_RANGE], i % KERNEL_RANGE, row, value,
                                            G, KEY, VALUE);
    }
    kernel_example_floats(q, T * HEADS * KEY, 10);
    const float sinks[HEADS] = {0.5f, -1.0f, 3.0f};
    for (int round = 0; round < 3; round++) {
        const kernel_attention a = {y,
                                    q,
                                    HEADS * VALUE,
                                    HEADS * KEY,
                                    T,
                                    PAST,
                                    HEADS,
                                    G,
                                    round & 1,
                                    KEY,
                                    VALUE,
                                    round == 1 ? 66 : INT64_MAX,
                                    0.158f,
                                    round == 2 ? sinks : NULL,
                                    table,
                                    end};
        (q8 ? k->attention_q8 : k->attention)(&a);
        h = hash_floats(h, y, T * HEADS * VALUE);
    }
    return hash_bytes(pages[2], sizeof pages[2] / 32, h);
}

static uint64_t test_attention(const kernel_table *k)
{
    return attend(k, false, 0);
}

static uint64_t test_encoder(const kernel_table *k)
{
    float x[N], w[N], b[N], y[N];
    kernel_example_floats(x, N, 13);
    kernel_example_floats(w, N, 14);
    kernel_example_floats(b, N, 15);
    k->layer_norm(y, x, w, b, N, 1e-12f);
    uint64_t h = hash_floats(0, y, N);
    k->layer_norm(y, x, w, b, ODD, 1e-5f);
    h = hash_floats(h, y, ODD);
    for (int i = 0; i < 20; i++)
        x[i] *= (float)i;
    k->gelu(y, x, N - 3);
    h = hash_floats(h, y, N - 3);
    return hash_u64(attend(k, false, 135), h);
}

static uint64_t test_attention_q8(const kernel_table *k)
{
    return attend(k, true, 0);
}

static uint64_t test_scalars(const kernel_table *k)
{
    (void)k;
    float x[64], y[64 * 5];
    kernel_example_floats(x, 64, 11);
    for (int i = 0; i < 64; i++) {
        float a = __builtin_fabsf(x[i]) * (float)(1 << (i % 24)) + 0x1p-20f;
        y[5 * i] = kernel_expf(x[i] * (float)i);
        y[5 * i + 1] = kernel_logf(a);
        y[5 * i + 2] = kernel_recipf(a);
        y[5 * i + 3] = kernel_rsqrtf(a);
        y[5 * i + 4] = kernel_sigmoidf(x[i] * (float)i);
    }
    return hash_floats(0, y, 64 * 5);
}

/* ---- products -------------------------------------------------------------------------------------------------------- */

enum { PRODUCT_TOKENS = 11 };

static uint64_t hash_product(const kernel_table *k, kernel_product *p, uint64_t h)
{
    float y[PRODUCT_TOKENS * 40];
    double sums[PRODUCT_TOKENS * 40];
    int64_t n = p->n_tokens * 40;
    memset(y, 0, sizeof y);
    memset(sums, 0, sizeof sums);
    for (int output = KERNEL_F32; output <= KERNEL_SUMS_F32; output++) {
        p->output = (kernel_output)output;
        p->dst = output == KERNEL_SUMS ? (void *)sums : (void *)y;
        bool good = kernel_multiply(k, p, 0, kernel_strips(p->w->rows));
        h = hash_u64(good, h);
        h = output == KERNEL_SUMS ? hash_bytes(sums, (size_t)n * sizeof *sums, h)
                                  : hash_floats(h, y, (int)n);
    }
    return h;
}

/* [39, 768] cut to the columns 64..640, both classes; tokens as many as each of the ways of a table takes: one, few, many. */
static uint64_t test_product(const kernel_table *k, const kernel_type *type)
{
    enum { ROWS = 39, WHOLE = 768, BEGIN = 64, END = 640, WIDTH = END - BEGIN };
    static const int tokens[] = {1, 3, PRODUCT_TOKENS};
    unsigned char file[KERNEL_TILE_ROWS * WHOLE * 4],
        tiles[3 * KERNEL_TILE_ROWS * WIDTH * 4 + 3 * 3 * 320];
    float x[PRODUCT_TOKENS * WIDTH];
    kernel_act act[PRODUCT_TOKENS * WIDTH / 32];
    uint64_t row_bytes = kernel_row_bytes(type, WHOLE),
             strip = kernel_strip_bytes(type, BEGIN, END), h = 0;
    for (int s = 0; s < 3; s++) {
        int rows = BASE_MIN(KERNEL_TILE_ROWS, ROWS - s * KERNEL_TILE_ROWS);
        kernel_example_blocks(type, file, (int64_t)rows * WHOLE / type->block_elements,
                              20 + (uint64_t)s);
        kernel_pack(type, tiles + (uint64_t)s * strip, file, row_bytes, rows, BEGIN, END);
    }
    h = hash_bytes(tiles, 3 * strip, h);
    kernel_example_floats(x, PRODUCT_TOKENS * WIDTH, 12);
    for (int t = 0; t < PRODUCT_TOKENS; t++)
        k->quantise(act + t * WIDTH / 32, x + t * WIDTH, WIDTH);
    const kernel_matrix m = {type, tiles, ROWS, BEGIN, END, strip};
    for (int exact = 0; exact < 2; exact++)
        for (size_t i = 0; i < BASE_COUNT(tokens); i++) {
            bool floats = exact || !type->quantised;
            kernel_product p = {
                .w = &m, .exact = exact, .leaf = 64, .n_tokens = tokens[i], .dst_stride = 40};
            p.x = floats ? (const void *)x : (const void *)act;
            p.x_bytes = floats ? WIDTH * 4 : kernel_act_bytes(WIDTH);
            h = hash_product(k, &p, h);
        }
    return h;
}

/* ---- the list --------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint64_t (*run)(const kernel_table *k);
} rows[] = {{"quantise", test_quantise},
            {"norm", test_norm},
            {"elements", test_elements},
            {"rope", test_rope},
            {"softmax", test_softmax},
            {"finish", test_finish},
            {"attention", test_attention},
            {"scalars", test_scalars},
            {"encoder", test_encoder},
            {"attention_q8", test_attention_q8},
            {"near", test_near}};

/* KNOWN(name, hash), in the order rows, then types. */
static const struct {
    const char *name;
    uint64_t hash;
} known[] = {
#define KNOWN(name, hash) {name, hash},
#include "kernel/known.def"
#undef KNOWN
};

uint64_t kernel_known_answer(const kernel_table *k, int i, const char **name)
{
    int n_rows = (int)BASE_COUNT(rows);
    if (i < n_rows) {
        *name = rows[i].name;
        return rows[i].run(k);
    }
    if (i < n_rows + KERNEL_TYPES) {
        *name = kernel_type_at(i - n_rows)->name;
        return test_product(k, kernel_type_at(i - n_rows));
    }
    *name = NULL;
    return 0;
}

status kernel_self_test(const kernel_table *k, err *e)
{
    const char *name;
    for (int i = 0;; i++) {
        uint64_t hash = kernel_known_answer(k, i, &name);
        if (!name)
            return STATUS_OK;
        if (i >= (int)BASE_COUNT(known) || hash != known[i].hash)
            return err_set(
                e, STATUS_INTERNAL,
                "kernel: ISA %s fails the known-answer test '%s' of class " KERNEL_NUMERICS
                ": expected %016llx, got %016llx",
                k->name, name, i < (int)BASE_COUNT(known) ? (unsigned long long)known[i].hash : 0,
                (unsigned long long)hash);
    }
}
