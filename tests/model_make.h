/*
 * For tests: makes small random models in memory as GGUF, of any shape and weight type, so that awkward shapes need no files. Same seed,
 * same bytes. Weights are raw random blocks with scales that keep activations near one.
 */
#ifndef SHOAL_TESTS_MODEL_MAKE_H
#define SHOAL_TESTS_MODEL_MAKE_H

#include "base/base.h"
#include "kernel/matrix.h"
#include "kernel/scalar.h"

#include <stdio.h>
#include <string.h>

typedef struct make_shape {
    const char *architecture;
    int L, D, H, G, dh, F, V;
    int window;       /* 0: key left out */
    const char *type; /* "F32", "Q8_0", … of matrices */
    bool tied;
    uint64_t seed;
} make_shape;

typedef struct make_tensor {
    char name[64];
    int64_t rows, columns; /* rows 0: a vector */
    int type;
    uint64_t offset;
} make_tensor;

typedef struct make_file {
    sb head, data;
    make_tensor tensors[512];
    int n_tensors, n_keys;
    uint64_t random;
} make_file;

static inline uint32_t make_random(make_file *f)
{
    f->random = f->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(f->random >> 33);
}

/* Uniform in [−1, 1). */
static inline float make_uniform(make_file *f)
{
    return (float)((int32_t)(make_random(f) & 0xffffff) - 0x800000) * (1.0f / 8388608.0f);
}

static inline void make_u32(sb *b, uint32_t x)
{
    sb_add(b, &x, 4);
}
static inline void make_u64(sb *b, uint64_t x)
{
    sb_add(b, &x, 8);
}
static inline void make_name(sb *b, const char *s)
{
    make_u64(b, strlen(s));
    sb_puts(b, s);
}

static inline void make_key_u32(make_file *f, sb *keys, const char *architecture, const char *name,
                                uint32_t value)
{
    char full[128];
    snprintf(full, sizeof(full), "%s.%s", architecture, name);
    make_name(keys, full);
    make_u32(keys, 4);
    make_u32(keys, value);
    f->n_keys++;
}

/* One file block of the type with random contents and scales about `scale` wide. */
static inline void make_block(make_file *f, const kernel_type *t, float scale)
{
    unsigned char block[512];
    for (int i = 0; i < t->block_bytes; i++)
        block[i] = (unsigned char)make_random(f);
    if (!strcmp(t->name, "F32")) {
        float x = make_uniform(f) * scale;
        memcpy(block, &x, 4);
    } else if (!strcmp(t->name, "F16")) {
        uint16_t h = half_from_float(make_uniform(f) * scale);
        memcpy(block, &h, 2);
    } else if (!strcmp(t->name, "BF16")) {
        uint16_t h = bf16_from_float(make_uniform(f) * scale);
        memcpy(block, &h, 2);
    } else if (!strcmp(t->name, "Q8_0")) {
        uint16_t d = half_from_float(scale * (1.0f / 127.0f));
        memcpy(block, &d, 2);
    } else if (!strcmp(t->name, "Q4_0")) {
        uint16_t d = half_from_float(scale * (1.0f / 8.0f));
        memcpy(block, &d, 2);
    } else if (!strcmp(t->name, "Q4_K") || !strcmp(t->name, "Q5_K")) {
        uint16_t d = half_from_float(scale * (1.0f / 512.0f)),
                 m = half_from_float(scale * (1.0f / 64.0f));
        memcpy(block, &d, 2);
        memcpy(block + 2, &m, 2);
    } else if (!strcmp(t->name, "Q6_K")) {
        uint16_t d = half_from_float(scale * (1.0f / 2048.0f));
        memcpy(block + t->block_bytes - 2, &d, 2);
    }
    sb_add(&f->data, block, (size_t)t->block_bytes);
}

static inline const kernel_type *make_type(const char *name)
{
    for (int i = 0; i < KERNEL_TYPES; i++)
        if (kernel_type_at(i) != NULL && kernel_type_at(i)->name != NULL &&
            !strcmp(kernel_type_at(i)->name, name))
            return kernel_type_at(i);
    return NULL;
}

static inline void make_add(make_file *f, const char *name, const kernel_type *t, int64_t rows,
                            int64_t columns, float scale)
{
    make_tensor *x = &f->tensors[f->n_tensors++];
    snprintf(x->name, sizeof(x->name), "%s", name);
    x->rows = rows;
    x->columns = columns;
    x->type = t->number;
    while (f->data.length % 32 != 0)
        sb_putc(&f->data, 0);
    x->offset = f->data.length;
    for (int64_t i = 0; i < (rows == 0 ? 1 : rows) * columns / t->block_elements; i++)
        make_block(f, t, scale);
}

/* Norm weights about one, decays in (0, 1). */
static inline void make_vector(make_file *f, const char *name, int64_t n, float centre,
                               float spread)
{
    make_add(f, name, make_type("F32"), 0, 0, 0.0f);
    f->tensors[f->n_tensors - 1].columns = n;
    for (int64_t i = 0; i < n; i++) {
        float x = spread > 0.0f ? centre + make_uniform(f) * spread : centre;
        sb_add(&f->data, &x, 4);
    }
}

/* Starts a tensor whose blocks are added by make_more. */
static inline void make_more(make_file *f, const kernel_type *t, int64_t rows, int64_t columns)
{
    for (int64_t i = 0; i < rows * columns / t->block_elements; i++)
        make_block(f, t, 1.7f * kernel_rsqrtf((float)columns));
    f->tensors[f->n_tensors - 1].rows += rows;
}

/* Matrices in one order of random numbers for all architectures; phi3 fuses q, k, v and gate, up. */
static inline void make_layer(make_file *f, const make_shape *s, const kernel_type *t, int layer)
{
    const struct {
        const char *name, *fused;
        int64_t rows, columns;
    } matrices[] = {
        {"attn_q", "attn_qkv", s->H * s->dh, s->D},
        {"attn_k", NULL, s->G * s->dh, s->D},
        {"attn_v", NULL, s->G * s->dh, s->D},
        {"ffn_gate", "ffn_up", s->F, s->D},
        {"ffn_up", NULL, s->F, s->D},
        {"ffn_down", "ffn_down", s->D, s->F},
        {"attn_output", "attn_output", s->D, s->H * s->dh},
    };
    bool fused = !strcmp(s->architecture, "phi3"), biased = !strcmp(s->architecture, "qwen2");
    char name[64];
    for (size_t i = 0; i < BASE_COUNT(matrices); i++) {
        const char *own = fused ? matrices[i].fused : matrices[i].name;
        if (own != NULL) {
            snprintf(name, sizeof(name), "blk.%d.%s.weight", layer, own);
            make_add(f, name, t, 0, 0, 0.0f);
            f->tensors[f->n_tensors - 1].columns = matrices[i].columns;
        }
        make_more(f, t, matrices[i].rows, matrices[i].columns);
    }
    for (int i = 0; biased && i < 3; i++) {
        snprintf(name, sizeof(name), "blk.%d.%s.bias", layer, matrices[i].name);
        make_vector(f, name, matrices[i].rows, 0.0f, 0.0f);
    }
    static const char *const norms[] = {"attn_norm", "ffn_norm"};
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof(name), "blk.%d.%s.weight", layer, norms[i]);
        make_vector(f, name, s->D, 1.0f, 0.2f);
    }
    static const char *const gemma_norms[] = {"post_attention_norm", "post_ffw_norm", "attn_q_norm",
                                              "attn_k_norm"};
    for (int i = 0; !strcmp(s->architecture, "gemma3") && i < 4; i++) {
        snprintf(name, sizeof(name), "blk.%d.%s.weight", layer, gemma_norms[i]);
        make_vector(f, name, i < 2 ? s->D : s->dh, 1.0f, 0.2f);
    }
    if (!strcmp(s->architecture, "shoal-decay") && layer % 2 == 0) {
        snprintf(name, sizeof(name), "blk.%d.decay.weight", layer);
        make_vector(f, name, s->D, 0.6f, 0.3f);
    }
}

/* The whole file in heap memory (base_free). */
static inline char *make_model(const make_shape *s, size_t *out_bytes)
{
    make_file *f = base_zalloc(1, sizeof(*f));
    f->random = s->seed * 2 + 1;
    const kernel_type *t = make_type(s->type);
    sb keys;
    sb_init(&keys);
    make_name(&keys, "general.architecture");
    make_u32(&keys, 8);
    make_name(&keys, s->architecture);
    f->n_keys = 1;
    make_key_u32(f, &keys, s->architecture, "block_count", (uint32_t)s->L);
    make_key_u32(f, &keys, s->architecture, "embedding_length", (uint32_t)s->D);
    make_key_u32(f, &keys, s->architecture, "attention.head_count", (uint32_t)s->H);
    make_key_u32(f, &keys, s->architecture, "attention.head_count_kv", (uint32_t)s->G);
    make_key_u32(f, &keys, s->architecture, "attention.key_length", (uint32_t)s->dh);
    make_key_u32(f, &keys, s->architecture, "feed_forward_length", (uint32_t)s->F);
    make_key_u32(f, &keys, s->architecture, "context_length", 4096);
    if (s->window > 0)
        make_key_u32(f, &keys, s->architecture, "attention.sliding_window", (uint32_t)s->window);
    make_add(f, "token_embd.weight", t, s->V, s->D, 1.0f);
    make_vector(f, "output_norm.weight", s->D, 1.0f, 0.2f);
    if (!s->tied)
        make_add(f, "output.weight", t, s->V, s->D, 3.0f * kernel_rsqrtf((float)s->D));
    for (int l = 0; l < s->L; l++)
        make_layer(f, s, t, l);
    sb_puts(&f->head, "GGUF");
    make_u32(&f->head, 3);
    make_u64(&f->head, (uint64_t)f->n_tensors);
    make_u64(&f->head, (uint64_t)f->n_keys);
    sb_add(&f->head, keys.data, keys.length);
    for (int i = 0; i < f->n_tensors; i++) {
        const make_tensor *x = &f->tensors[i];
        make_name(&f->head, x->name);
        make_u32(&f->head, x->rows == 0 ? 1 : 2);
        make_u64(&f->head, (uint64_t)x->columns);
        if (x->rows != 0)
            make_u64(&f->head, (uint64_t)x->rows);
        make_u32(&f->head, (uint32_t)x->type);
        make_u64(&f->head, x->offset);
    }
    while (f->head.length % 32 != 0)
        sb_putc(&f->head, 0);
    sb_add(&f->head, f->data.data, f->data.length);
    while (f->head.length % 32 != 0)
        sb_putc(&f->head, 0);
    *out_bytes = f->head.length;
    char *out = sb_take(&f->head);
    sb_fini(&f->data);
    sb_fini(&keys);
    base_free(f);
    return out;
}

#endif
