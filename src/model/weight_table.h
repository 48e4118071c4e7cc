/*
 * Weight tables: which tensors a family has, their names in both formats, their shape in letters of DESIGN section 1, how ranks cut them. Inside of src/model.
 *
 * A family's table is rows of WEIGHT and WEIGHT_PART, most of them from the groups below that families share. Nothing else knows a tensor's name.
 */
#ifndef SHOAL_MODEL_WEIGHT_TABLE_H
#define SHOAL_MODEL_WEIGHT_TABLE_H

/* Weights by what they do. One matrix or vector each; per layer from W_LAYER on. */
typedef enum weight_id {
    W_EMBEDDING,
    W_OUTPUT_NORM,
    W_OUTPUT,
    W_ROPE_DIVISORS,
    W_POSITIONS,
    W_TYPES,
    W_EMBEDDING_NORM,
    W_EMBEDDING_NORM_BIAS,
    W_LAYER,
    W_ATTENTION_NORM = W_LAYER,
    W_Q,
    W_K,
    W_V,
    W_Q_BIAS,
    W_K_BIAS,
    W_V_BIAS,
    W_Q_NORM,
    W_K_NORM,
    W_O,
    W_O_BIAS,
    W_ATTENTION_POST_NORM,
    W_ATTENTION_POST_NORM_BIAS,
    W_FFN_NORM,
    W_GATE,
    W_UP,
    W_UP_BIAS,
    W_DOWN,
    W_DOWN_BIAS,
    W_FFN_POST_NORM,
    W_FFN_POST_NORM_BIAS,
    W_DECAY,
    W_IDS
} weight_id;

typedef enum weight_dim {
    DIM_NONE,
    DIM_1,
    DIM_D,
    DIM_HEADS,    /* H dh */
    DIM_KV_HEADS, /* G dh */
    DIM_HEAD,     /* dh */
    DIM_F,
    DIM_V,
    DIM_HALF_ROTARY, /* width of rope[0] / 2 */
    DIM_POSITIONS,   /* the context */
    DIM_TYPES,       /* n_types */
    DIM_QKV,         /* (H + 2G) dh */
    DIM_2F
} weight_dim;

/* How ranks share a tensor. */
typedef enum weight_cut {
    CUT_NONE,           /* every rank holds all of it */
    CUT_ROWS_HEADS,     /* rows by query head */
    CUT_ROWS_KV_HEADS,  /* rows by the K/V heads of the rank's query heads */
    CUT_COLUMNS_HEADS,  /* columns by query head; a sum follows */
    CUT_ROWS_FFN,       /* rows by units of 32 of F */
    CUT_COLUMNS_FFN,    /* columns likewise; a sum follows */
    CUT_ROWS_VOCABULARY /* rows by 16 */
} weight_cut;

enum {
    WEIGHT_OPTIONAL = 1, /* the model may do without */
    WEIGHT_VECTOR = 2,   /* f32 in the device, whatever the file has */
    WEIGHT_PLUS_ONE = 4  /* safetensors hold w − 1 */
};

typedef struct weight_row {
    weight_id id;
    const char *gguf, *hf; /* %d = layer; NULL: not in that format */
    weight_dim rows, columns;
    weight_cut cut;
    unsigned flags;
    /* A part of a fused tensor: its first row is skip[0] + skip[1], the tensor has `whole` rows. */
    weight_dim whole, skip[2];
} weight_row;

#define WEIGHT(id, gguf, hf, rows, columns, cut, flags)                                            \
    {                                                                                              \
        id, gguf, hf, rows, columns, cut, flags, DIM_NONE,                                         \
        {                                                                                          \
            DIM_NONE, DIM_NONE                                                                     \
        }                                                                                          \
    }
#define WEIGHT_PART(id, gguf, hf, rows, columns, cut, flags, whole, skip_a, skip_b)                \
    {                                                                                              \
        id, gguf, hf, rows, columns, cut, flags, whole,                                            \
        {                                                                                          \
            skip_a, skip_b                                                                         \
        }                                                                                          \
    }

/* Rows that many families share, for their tables. */
#define WEIGHTS_GLOBAL                                                                             \
    WEIGHT(W_EMBEDDING, "token_embd.weight", "model.embed_tokens.weight", DIM_V, DIM_D,            \
           CUT_ROWS_VOCABULARY, 0),                                                                \
        WEIGHT(W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_1, DIM_D, CUT_NONE,   \
               WEIGHT_VECTOR),                                                                     \
        WEIGHT(W_OUTPUT, "output.weight", "lm_head.weight", DIM_V, DIM_D, CUT_ROWS_VOCABULARY,     \
               WEIGHT_OPTIONAL),                                                                   \
        WEIGHT(W_ROPE_DIVISORS, "rope_freqs.weight", NULL, DIM_1, DIM_HALF_ROTARY, CUT_NONE,       \
               WEIGHT_VECTOR | WEIGHT_OPTIONAL)
#define WEIGHTS_QKVO                                                                               \
    WEIGHT(W_Q, "blk.%d.attn_q.weight", "model.layers.%d.self_attn.q_proj.weight", DIM_HEADS,      \
           DIM_D, CUT_ROWS_HEADS, 0),                                                              \
        WEIGHT(W_K, "blk.%d.attn_k.weight", "model.layers.%d.self_attn.k_proj.weight",             \
               DIM_KV_HEADS, DIM_D, CUT_ROWS_KV_HEADS, 0),                                         \
        WEIGHT(W_V, "blk.%d.attn_v.weight", "model.layers.%d.self_attn.v_proj.weight",             \
               DIM_KV_HEADS, DIM_D, CUT_ROWS_KV_HEADS, 0),                                         \
        WEIGHT(W_O, "blk.%d.attn_output.weight", "model.layers.%d.self_attn.o_proj.weight", DIM_D, \
               DIM_HEADS, CUT_COLUMNS_HEADS, 0)
#define WEIGHTS_ATTENTION                                                                          \
    WEIGHT(W_ATTENTION_NORM, "blk.%d.attn_norm.weight", "model.layers.%d.input_layernorm.weight",  \
           DIM_1, DIM_D, CUT_NONE, WEIGHT_VECTOR),                                                 \
        WEIGHTS_QKVO
#define WEIGHTS_QKV_BIAS(flags)                                                                    \
    WEIGHT(W_Q_BIAS, "blk.%d.attn_q.bias", "model.layers.%d.self_attn.q_proj.bias", DIM_1,         \
           DIM_HEADS, CUT_ROWS_HEADS, WEIGHT_VECTOR | (flags)),                                    \
        WEIGHT(W_K_BIAS, "blk.%d.attn_k.bias", "model.layers.%d.self_attn.k_proj.bias", DIM_1,     \
               DIM_KV_HEADS, CUT_ROWS_KV_HEADS, WEIGHT_VECTOR | (flags)),                          \
        WEIGHT(W_V_BIAS, "blk.%d.attn_v.bias", "model.layers.%d.self_attn.v_proj.bias", DIM_1,     \
               DIM_KV_HEADS, CUT_ROWS_KV_HEADS, WEIGHT_VECTOR | (flags))
#define WEIGHTS_HEAD_NORMS(flags)                                                                  \
    WEIGHT(W_Q_NORM, "blk.%d.attn_q_norm.weight", "model.layers.%d.self_attn.q_norm.weight",       \
           DIM_1, DIM_HEAD, CUT_NONE, WEIGHT_VECTOR | (flags)),                                    \
        WEIGHT(W_K_NORM, "blk.%d.attn_k_norm.weight", "model.layers.%d.self_attn.k_norm.weight",   \
               DIM_1, DIM_HEAD, CUT_NONE, WEIGHT_VECTOR | (flags))
#define WEIGHTS_FFN_NORM                                                                           \
    WEIGHT(W_FFN_NORM, "blk.%d.ffn_norm.weight",                                                   \
           "model.layers.%d.post_attention_layernorm.weight", DIM_1, DIM_D, CUT_NONE,              \
           WEIGHT_VECTOR)
#define WEIGHTS_FFN                                                                                \
    WEIGHT(W_GATE, "blk.%d.ffn_gate.weight", "model.layers.%d.mlp.gate_proj.weight", DIM_F, DIM_D, \
           CUT_ROWS_FFN, 0),                                                                       \
        WEIGHT(W_UP, "blk.%d.ffn_up.weight", "model.layers.%d.mlp.up_proj.weight", DIM_F, DIM_D,   \
               CUT_ROWS_FFN, 0),                                                                   \
        WEIGHT(W_DOWN, "blk.%d.ffn_down.weight", "model.layers.%d.mlp.down_proj.weight", DIM_D,    \
               DIM_F, CUT_COLUMNS_FFN, 0)

#endif
