/*
 * kernel: everything that touches weights and activations with a CPU. Raw pointers, row ranges, no threads, no allocation, no I/O.
 *
 * One const table per instruction set (kernel_table), chosen once at start by kernel_select; every table gives the same bits
 * (DESIGN section 7, class exact/1), the portable one being the reference. Functions that are not in the table are scalar or
 * bound by memory and the same everywhere.
 *
 * Shapes: T tokens, K columns (inputs) and R rows (outputs) of a matrix, dh head width. Rows of f32 are contiguous unless a
 * stride is named; strides are in elements, sizes that end in _bytes in bytes. Pointers need the alignment of their element
 * only; tiles and pages are fastest when they begin on a multiple of 64 bytes. Buffers that are read as rows of 32-column
 * blocks must be readable up to a multiple of 32 columns. Nothing here fails on its data: sizes are the caller's to check
 * (kernel_type says what a type needs), NaN gives rubbish but no undefined behaviour. Any thread may call anything.
 *
 * Not here: dispatch to threads, memory plans, devices (src/graph); files (src/file); sums over ranks (src/link).
 */
#ifndef KERNEL_KERNEL_H
#define KERNEL_KERNEL_H

#include "base/base.h"

enum {
    KERNEL_TILE_ROWS = 16, /* output rows of a strip */
    KERNEL_UNIT =
        32, /* columns of a unit; every cut and every activation block falls on its multiples */
    KERNEL_RANGE = 64,    /* keys of an attention range = tokens of a page */
    KERNEL_HEAD_MAX = 576 /* widest head */
};

/* CPU features, the values of OS_CPU_* in os.h (this floor may not include it). */
enum {
    KERNEL_CPU_AVX2 = 1 << 0,
    KERNEL_CPU_AVX512 = 1 << 1,
    KERNEL_CPU_AVX512_VNNI = 1 << 2,
    KERNEL_CPU_AVX_VNNI = 1 << 3,
    KERNEL_CPU_NEON = 1 << 4,
    KERNEL_CPU_DOTPROD = 1 << 5,
    KERNEL_CPU_I8MM = 1 << 6
};

/* ---- types of weights ------------------------------------------------------------------------------------------ */

typedef struct kernel_type {
    const char *name;   /* "Q4_K" */
    int number;         /* in GGUF files */
    int block_elements; /* of a file block; the columns of a matrix are a multiple of it */
    int block_bytes;
    bool
        quantised; /* products take int8 activation blocks (kernel_act); float types take f32 rows */
    /* Device layout: a run is the units of a strip that share one file superblock, in column order: header, then its units. */
    int run_units;    /* 1, or 8 for the K types */
    int header_bytes; /* per run and 16 rows; 0 where run_units is 1 */
    int unit_bytes;   /* per unit and 16 rows */
    int index;        /* 0..KERNEL_TYPES-1 */
} kernel_type;

enum { KERNEL_TYPES = 16 };

const kernel_type *kernel_type_find(int number); /* NULL: not one of ours */
const kernel_type *kernel_type_at(int index);    /* 0..KERNEL_TYPES-1; tables are indexed alike */

/* One row in file format → f32, exactly. n: elements, a multiple of block_elements. */
void kernel_dequantise(const kernel_type *type, float *dst, const void *src, int64_t n);
uint64_t kernel_row_bytes(const kernel_type *type, int64_t n); /* of n elements in file format */

/* ---- matrices in tiles ----------------------------------------------------------------------------------------- */

/*
 * A shard of a [R_full, K_full] matrix on this device: rows [0, rows) of its own and the columns [column_begin, column_end) of
 * the whole one (multiples of 32; for float types column_end may be K_full of any value, the rest of the last unit is zeros).
 * Storage: ceil(rows / 16) strips of kernel_strip_bytes each, one after another. A strip holds 16 rows (missing ones are
 * zeros): its runs from left to right. Superblocks are counted from column 0 of the whole matrix: a cut inside one makes a
 * shorter run that carries its own copy of the header. Within a unit, byte or nibble groups of 4 columns are interleaved so
 * that 64 bytes hold 4 columns of all 16 rows; floats are [32 columns][16 rows]. Sizes per row are those of the file.
 */
typedef struct kernel_matrix {
    const kernel_type *type;
    const void *tiles; /* borrowed */
    int64_t rows;
    int64_t column_begin, column_end;
    uint64_t strip_bytes; /* kernel_strip_bytes(type, column_begin, column_end) */
} kernel_matrix;

uint64_t kernel_strip_bytes(const kernel_type *type, int64_t column_begin, int64_t column_end);
uint64_t kernel_matrix_bytes(const kernel_type *type, int64_t rows, int64_t column_begin,
                             int64_t column_end);
static inline int64_t kernel_strips(int64_t rows)
{
    return (rows + KERNEL_TILE_ROWS - 1) / KERNEL_TILE_ROWS;
}

/* Packs one strip. rows: where the first of its n_rows (1..16) file rows begins (its column 0), row_bytes apart in the file.
 * Only the file blocks that hold the columns asked for are read. The write is one forward sweep: let it be the first touch. */
void kernel_pack(const kernel_type *type, void *strip, const void *rows, uint64_t row_bytes,
                 int n_rows, int64_t column_begin, int64_t column_end);

/* The same for some rows and columns of a strip that is there: rows go to lanes [lane, lane + n_rows), columns [begin, end) (multiples of 32, or the
 * matrix's end) of the strip's, which begin at strip_begin. The other lanes and columns stay as they are. */
void kernel_pack_part(const kernel_type *type, void *strip, int64_t strip_begin, int lane,
                      const void *rows, uint64_t row_bytes, int n_rows, int64_t begin, int64_t end);

/* Lanes and columns from strip to strip of one matrix, cut differently or not: what kernel_pack_part would put there, without the file. */
void kernel_move_part(const kernel_type *type, void *to, int64_t to_begin, int to_lane,
                      const void *from, int64_t from_begin, int from_lane, int n_rows,
                      int64_t begin, int64_t end);

/* One row of the shard (embeddings): dst [column_end - column_begin] f32, the exact dequantised values. */
void kernel_gather_row(float *dst, const kernel_matrix *m, int64_t row);

/* ---- activations ----------------------------------------------------------------------------------------------- */

/* A row of K f32 → K/32 blocks. scale = amax·fl(1/127); q = roundEven(x · (127·recip(amax))), in −127..127; amax < 2^-60 gives
 * zeros and scale 0. sum[h] = Σ q over columns 16h..16h+15. */
typedef struct kernel_act {
    float scale;
    int16_t sum[2];
    int8_t q[KERNEL_UNIT];
} kernel_act;
_Static_assert(sizeof(kernel_act) == 40, "activation block");

static inline uint64_t kernel_act_bytes(int64_t columns) /* of one token's row */
{
    return (uint64_t)((columns + KERNEL_UNIT - 1) / KERNEL_UNIT) * sizeof(kernel_act);
}

/* ---- products -------------------------------------------------------------------------------------------------- */

/* What a product writes. SUMS are for matrices whose columns a plan may cut (contract b), also on one device. */
typedef enum kernel_output {
    KERNEL_F32,  /* float dst[T][stride]: the whole row in order (a) */
    KERNEL_SUMS, /* double dst[T][stride]: exact partial sums of this shard's leaves; add shards in any order, then kernel_finish */
    KERNEL_SUMS_F32 /* float dst[T][stride]: KERNEL_SUMS followed by kernel_finish, for a matrix that is not cut */
} kernel_output;

/*
 * y[t][r] = Σ_k w[r][k] x[t][k] for T tokens and a range of strips. Order of operations for one element, whatever T is:
 *  quantised, per 32-column block ascending: i = Σ w·x exact in int32 (types with two scales per block: i = Σ_h s_h·i_h, exact),
 *      acc = fma((float)i, dw·dx, acc) with dw·dx rounded once; types with a minimum then acc = fma(m, (float)j·dx, acc), where
 *      value = dw·q + m·(…), j = Σ x over the block (Q2_K: Σ_h of the half's integer minimum times its Σ x), (float)j·dx rounded once;
 *  float: acc[k mod 4] = fma(w, x, acc[k mod 4]) ascending, then (acc0 + acc1) + (acc2 + acc3);
 *  exact (--exact): as float, with the dequantised weights of any type and f32 activations.
 * KERNEL_SUMS: each leaf (leaf columns, counted from column 0 of the whole matrix; column_begin and column_end are multiples
 * of it, or the matrix's own end) begins with acc = 0, its f32 v becomes ((double)v + M) − M, M = 1.5·2^28, and is added in double.
 */
typedef struct kernel_product {
    const kernel_matrix *w;
    kernel_output output;
    bool exact;       /* x is f32 whatever the type */
    int leaf;         /* columns, from kernel_leaf; read for SUMS only */
    int64_t n_tokens; /* T ≥ 1 */
    /* kernel_act[T][] when the type is quantised and not exact, else float[T][]; of the shard's columns only */
    const void *x;
    uint64_t x_bytes; /* from token to token */
    /* element [t][r] at t·dst_stride + r, r = row of the shard; rows beyond w->rows are not written */
    void *dst;
    int64_t dst_stride;
} kernel_product;

/* Leaf of contract (b) for a matrix of `columns` in all: the largest power of two ≤ 256 that divides columns (and head_width
 * when it is not 0: attention output) and leaves at least 16 leaves, but not under 32. */
int kernel_leaf(int64_t columns, int64_t head_width);

/* double sums → f32 (rounded once, −0 as +0). false: some |sum| ≥ 2^29 or not a number; dst is written all the same. */
bool kernel_finish(float *dst, const double *sums, int64_t n);

/* ---- attention ------------------------------------------------------------------------------------------------- */

typedef enum kernel_kv { KERNEL_KV_F16, KERNEL_KV_Q8_0 } kernel_kv; /* type of keys and values */

/*
 * A page holds KERNEL_RANGE tokens of one layer. F16: for each local K/V head, K as [4 groups of 16 keys][key_width][16] and then V as
 * [64][value_width]; values beyond ±65504 are clamped. Q8_0: the same with int8, and behind them f16 scales: K's as [4][blocks][16], V's as
 * [64][blocks], a block being 32 elements of one token and head (the last one may be shorter). scale = amax·fl(1/127) rounded to f16, q =
 * roundEven(x·(127·recip(amax))), zeros for amax < 2^-60: a function of the token's own vector. Unwritten slots are never read as values.
 */
uint64_t kernel_page_bytes(kernel_kv kv, int64_t n_kv_heads, int64_t key_width,
                           int64_t value_width);

/* Where a Q8_0 page keeps the parts of one head. */
typedef struct kernel_kv_head {
    int8_t *keys, *values;
    uint16_t *key_scales, *value_scales;
    int key_blocks, value_blocks;
} kernel_kv_head;
static inline kernel_kv_head kernel_kv_head_q8(void *page, int head, int key_width, int value_width)
{
    kernel_kv_head at = {.key_blocks = (key_width + KERNEL_UNIT - 1) / KERNEL_UNIT,
                         .value_blocks = (value_width + KERNEL_UNIT - 1) / KERNEL_UNIT};
    int64_t bytes = (int64_t)KERNEL_RANGE * (key_width + value_width),
            scales = (int64_t)KERNEL_RANGE * (at.key_blocks + at.value_blocks) * 2;
    at.keys = (int8_t *)page + head * (bytes + scales);
    at.values = at.keys + (int64_t)KERNEL_RANGE * key_width;
    at.key_scales = (uint16_t *)(void *)(at.keys + bytes);
    at.value_scales = at.key_scales + (int64_t)KERNEL_RANGE * at.key_blocks;
    return at;
}

/*
 * Attention of the query heads that share one K/V head, for n_tokens tokens of one sequence at consecutive positions. Per query
 * and range of 64 absolute positions in ascending order: s = (Σ_d q·k, one fma per d ascending)·scale, m = max, p = exp(s − m), l by
 * the 16-lane tree, o = Σ p·v (one fma per key ascending); ranges merge as l = fma(l_r, b, l·a), o = fma(o_r, b, o·a) with a = exp(m −
 * m'), b = exp(m_r − m'); at the end o·recip(l). A key is visible when 0 ≤ position_q − position_k < window; ranges without a visible
 * key are not touched (their page may be NULL). The keys of the tokens themselves are stored before.
 */
typedef struct kernel_attention {
    float *dst;     /* [T] rows dst_stride apart: the heads of this group, value_width each */
    const float *q; /* [T] rows q_stride apart: the heads of this group, key_width each */
    int64_t dst_stride, q_stride;
    int64_t n_tokens, position; /* of the first token */
    int n_heads;                /* of the group */
    int n_kv_heads, kv_head;    /* how many a page holds, and which of them */
    int key_width, value_width; /* multiples of 8 */
    int64_t window;             /* INT64_MAX: none */
    float scale;
    const float *sinks;       /* [n_heads] or NULL: a logit in the softmax that has no value */
    const void *const *pages; /* pages[p]: positions 64p … 64p + 63 */
    int64_t
        end; /* 0: a query sees what is before it and itself; else all see the positions up to end − 1 */
} kernel_attention;

/* ---- the table ------------------------------------------------------------------------------------------------- */

/* Product of a type over strips [strip_begin, strip_end). false: a KERNEL_SUMS_F32 sum out of range. */
typedef bool kernel_product_fn(const kernel_product *p, int64_t strip_begin, int64_t strip_end);

typedef enum kernel_rope_pairs { KERNEL_ROPE_NEIGHBOURS, KERNEL_ROPE_HALVES } kernel_rope_pairs;

typedef struct kernel_table {
    /* "portable"; "avx2", "avxvnni", "avx512", "avx512vnni"; "neon", "dotprod", "i8mm" */
    const char *name;
    unsigned features; /* KERNEL_CPU_* that it needs, all of them */

    kernel_product_fn *product[KERNEL_TYPES]; /* by type->index; call kernel_multiply */
    kernel_product_fn *product_exact[KERNEL_TYPES];

    void (*quantise)(kernel_act *dst, const float *x,
                     int64_t columns); /* columns: multiple of 32 */
    /* dst[i] = (x[i]·r)·w[i], r = rsqrt(mean of squares + epsilon); squares: lane i of 16 takes x[i + 16j] by fma ascending, lanes
     * added i + (i+8), +4, +2, +1; mean = sum · recip(n). dst may be x. The second form equals norm, then quantise. w NULL: ones. */
    void (*rms_norm)(float *dst, const float *x, const float *w, int64_t n, float epsilon);
    void (*rms_norm_quantise)(kernel_act *dst, const float *x, const float *w, int64_t n,
                              float epsilon);
    /* dst[i] = fma((x[i] − mean)·r, w[i], b[i]), r = rsqrt(mean of (x − mean)² + epsilon); both sums by the 16-lane tree. dst may be x. */
    void (*layer_norm)(float *dst, const float *x, const float *w, const float *b, int64_t n,
                       float epsilon);
    /* dst = x·Φ(x), Φ of the normal distribution (erf within 2e-7, Abramowitz and Stegun 7.1.26); under 2^-100: +0. dst may be x. */
    void (*gelu)(float *dst, const float *x, int64_t n);
    /* dst = a + b; scale: dst = a · s. dst may be a. */
    void (*add)(float *dst, const float *a, const float *b, int64_t n);
    void (*scale)(float *dst, const float *a, float s, int64_t n);
    void (*multiply_add)(float *dst, const float *a, float s, int64_t n); /* dst = fma(a, s, dst) */
    /* dst = silu(gate)·up, gelu_tanh(gate)·up; results under 2^-100 become +0. dst may be gate. silu(x) = x·sigmoid(x). */
    void (*silu_multiply)(float *dst, const float *gate, const float *up, int64_t n);
    void (*gelu_multiply)(float *dst, const float *gate, const float *up, int64_t n);
    void (*silu_multiply_quantise)(kernel_act *dst, const float *gate, const float *up, int64_t n);
    /* In place on n_heads heads of head_width; the first `rotary` of each turn by cos, sin [rotary/2] of one position:
     * a' = fma(a, cos, −(b·sin)), b' = fma(a, sin, b·cos). Pairs (2i, 2i+1) or (i, i + rotary/2). */
    void (*rope)(float *x, int64_t n_heads, int head_width, int rotary, const float *cosines,
                 const float *sines, kernel_rope_pairs pairs);
    /* One token's K [n_kv_heads][key_width] and V [n_kv_heads][value_width] into slot 0..63 of a page. */
    void (*kv_store)(void *page, int slot, const float *k, const float *v, int n_kv_heads,
                     int key_width, int value_width);
    void (*attention)(const kernel_attention *a);
    /* The same on Q8_0 pages: k and v are the dequantised values q·scale, which f32 holds exactly. */
    void (*kv_store_q8)(void *page, int slot, const float *k, const float *v, int n_kv_heads,
                        int key_width, int value_width);
    void (*attention_q8)(const kernel_attention *a);

    void (*softmax)(float *dst, const float *x,
                    int64_t n);              /* whole row; sum by the 16-lane tree; dst may be x */
    float (*max)(const float *x, int64_t n); /* n ≥ 1 */
    int64_t (*argmax)(const float *x, int64_t n); /* the lowest index of the greatest value */
    /* Σ exp(x − max): leaves of 16 (the tree) as in contract (b), so that shards of the vocabulary (16-row units) add exactly. */
    double (*exp_sum)(const float *x, int64_t n, float max);
    /* Nearly that sum, and in *above what x ≥ threshold have in it, each within 2^-13 of its value (and n·2^-86): by a short exp, for bounds and
     * never for results. x ≤ max. */
    double (*exp_near)(const float *x, int64_t n, float max, float threshold, double *above);
    bool (*finish)(float *dst, const double *sums, int64_t n); /* kernel_finish */
} kernel_table;

/* The best table for these features, or the forced one by name. Forced but unknown or not runnable here: NOT_FOUND / UNSUPPORTED,
 * and the text names what there is. forced NULL or "": the best. The table is static. */
status kernel_select(const kernel_table **out, unsigned features, const char *forced, err *e);
/* 0 = portable; NULL after the last one built for this architecture */
const kernel_table *kernel_table_at(int i);
static inline bool kernel_runs(const kernel_table *k, unsigned features)
{
    return (k->features & features) == k->features;
}

/* Known-answer tests of class exact/1 over every function of the table; some milliseconds. INTERNAL names the first that differs. */
status kernel_self_test(const kernel_table *k, err *e);
#define KERNEL_NUMERICS "exact/1"

static inline bool kernel_multiply(const kernel_table *k, const kernel_product *p,
                                   int64_t strip_begin, int64_t strip_end)
{
    int i = p->w->type->index;
    return (p->exact ? k->product_exact : k->product)[i](p, strip_begin, strip_end);
}

/* ---- scalar functions: the same sequences as inside the kernels -------------------------------------------------- */

float kernel_expf(float x);   /* 0 below −60, clamped at 88; ≤ 2 ulp */
float kernel_logf(float x);   /* x > 0 and normal; ≤ 2 ulp */
float kernel_recipf(float x); /* |x| in [2^-100, 2^100]; ≤ 1 ulp */
float kernel_rsqrtf(float x); /* x in [2^-100, 2^100]; ≤ 2 ulp */
float kernel_sigmoidf(float x);

/* Double, of + − × and fma only; for tables made once. */
double kernel_exp64(double x);
double kernel_log64(double x);
double kernel_pow64(double x, double y); /* x > 0 */
double kernel_recip64(double x);
void kernel_sincos64(double x, double *sine, double *cosine); /* |x| ≤ 2^30 */

/* Rotary table of one position: cosines[i] = (float)(cos(position·frequencies[i])·scale), sines alike; half = rotary/2. */
void kernel_rope_table(float *cosines, float *sines, const double *frequencies, int half,
                       int64_t position, double scale);

#endif
