/*
 * BERT and nomic-bert: encoders whose rows are pooled into one vector. Every token sees the whole text; layer norms come behind the
 * residual adds. BERT has learned positions and token types, biases and erf-GELU; nomic-bert turns queries and keys instead of adding
 * positions, has q, k and v in one tensor, no biases, and a SiLU gate.
 *
 * Only texts of one segment: token type 0. Not here: heads of masked language models, classifiers, rerankers.
 * Source: Devlin et al. 2018 (BERT), Nussbaum et al. 2024 (nomic-embed); names of tensors and keys as llama.cpp writes them to GGUF, and
 * those of Hugging Face's BertModel.
 */
#include "model/family.h"

#include <string.h>

#define VECTOR(id, gguf, hf) WEIGHT(id, gguf, hf, DIM_1, DIM_D, CUT_NONE, WEIGHT_VECTOR)

static const weight_row bert_rows[] = {
    WEIGHT(W_EMBEDDING, "token_embd.weight", "embeddings.word_embeddings.weight", DIM_V, DIM_D,
           CUT_ROWS_VOCABULARY, 0),
    WEIGHT(W_POSITIONS, "position_embd.weight", "embeddings.position_embeddings.weight",
           DIM_POSITIONS, DIM_D, CUT_NONE, 0),
    WEIGHT(W_TYPES, "token_types.weight", "embeddings.token_type_embeddings.weight", DIM_TYPES,
           DIM_D, CUT_NONE, WEIGHT_OPTIONAL),
    VECTOR(W_EMBEDDING_NORM, "token_embd_norm.weight", "embeddings.LayerNorm.weight"),
    VECTOR(W_EMBEDDING_NORM_BIAS, "token_embd_norm.bias", "embeddings.LayerNorm.bias"),
    WEIGHT(W_Q, "blk.%d.attn_q.weight", "encoder.layer.%d.attention.self.query.weight", DIM_HEADS,
           DIM_D, CUT_ROWS_HEADS, 0),
    WEIGHT(W_K, "blk.%d.attn_k.weight", "encoder.layer.%d.attention.self.key.weight", DIM_KV_HEADS,
           DIM_D, CUT_ROWS_KV_HEADS, 0),
    WEIGHT(W_V, "blk.%d.attn_v.weight", "encoder.layer.%d.attention.self.value.weight",
           DIM_KV_HEADS, DIM_D, CUT_ROWS_KV_HEADS, 0),
    WEIGHT(W_Q_BIAS, "blk.%d.attn_q.bias", "encoder.layer.%d.attention.self.query.bias", DIM_1,
           DIM_HEADS, CUT_ROWS_HEADS, WEIGHT_VECTOR),
    WEIGHT(W_K_BIAS, "blk.%d.attn_k.bias", "encoder.layer.%d.attention.self.key.bias", DIM_1,
           DIM_KV_HEADS, CUT_ROWS_KV_HEADS, WEIGHT_VECTOR),
    WEIGHT(W_V_BIAS, "blk.%d.attn_v.bias", "encoder.layer.%d.attention.self.value.bias", DIM_1,
           DIM_KV_HEADS, CUT_ROWS_KV_HEADS, WEIGHT_VECTOR),
    WEIGHT(W_O, "blk.%d.attn_output.weight", "encoder.layer.%d.attention.output.dense.weight",
           DIM_D, DIM_HEADS, CUT_COLUMNS_HEADS, 0),
    VECTOR(W_O_BIAS, "blk.%d.attn_output.bias", "encoder.layer.%d.attention.output.dense.bias"),
    VECTOR(W_ATTENTION_POST_NORM, "blk.%d.attn_output_norm.weight",
           "encoder.layer.%d.attention.output.LayerNorm.weight"),
    VECTOR(W_ATTENTION_POST_NORM_BIAS, "blk.%d.attn_output_norm.bias",
           "encoder.layer.%d.attention.output.LayerNorm.bias"),
    WEIGHT(W_UP, "blk.%d.ffn_up.weight", "encoder.layer.%d.intermediate.dense.weight", DIM_F, DIM_D,
           CUT_ROWS_FFN, 0),
    WEIGHT(W_UP_BIAS, "blk.%d.ffn_up.bias", "encoder.layer.%d.intermediate.dense.bias", DIM_1,
           DIM_F, CUT_ROWS_FFN, WEIGHT_VECTOR),
    WEIGHT(W_DOWN, "blk.%d.ffn_down.weight", "encoder.layer.%d.output.dense.weight", DIM_D, DIM_F,
           CUT_COLUMNS_FFN, 0),
    VECTOR(W_DOWN_BIAS, "blk.%d.ffn_down.bias", "encoder.layer.%d.output.dense.bias"),
    VECTOR(W_FFN_POST_NORM, "blk.%d.layer_output_norm.weight",
           "encoder.layer.%d.output.LayerNorm.weight"),
    VECTOR(W_FFN_POST_NORM_BIAS, "blk.%d.layer_output_norm.bias",
           "encoder.layer.%d.output.LayerNorm.bias"),
};

static const weight_row nomic_rows[] = {
    WEIGHT(W_EMBEDDING, "token_embd.weight", NULL, DIM_V, DIM_D, CUT_ROWS_VOCABULARY, 0),
    WEIGHT(W_TYPES, "token_types.weight", NULL, DIM_TYPES, DIM_D, CUT_NONE, WEIGHT_OPTIONAL),
    VECTOR(W_EMBEDDING_NORM, "token_embd_norm.weight", NULL),
    VECTOR(W_EMBEDDING_NORM_BIAS, "token_embd_norm.bias", NULL),
    WEIGHT_PART(W_Q, "blk.%d.attn_qkv.weight", NULL, DIM_HEADS, DIM_D, CUT_ROWS_HEADS, 0, DIM_QKV,
                DIM_NONE, DIM_NONE),
    WEIGHT_PART(W_K, "blk.%d.attn_qkv.weight", NULL, DIM_KV_HEADS, DIM_D, CUT_ROWS_KV_HEADS, 0,
                DIM_QKV, DIM_HEADS, DIM_NONE),
    WEIGHT_PART(W_V, "blk.%d.attn_qkv.weight", NULL, DIM_KV_HEADS, DIM_D, CUT_ROWS_KV_HEADS, 0,
                DIM_QKV, DIM_HEADS, DIM_KV_HEADS),
    WEIGHT(W_O, "blk.%d.attn_output.weight", NULL, DIM_D, DIM_HEADS, CUT_COLUMNS_HEADS, 0),
    VECTOR(W_ATTENTION_POST_NORM, "blk.%d.attn_output_norm.weight", NULL),
    VECTOR(W_ATTENTION_POST_NORM_BIAS, "blk.%d.attn_output_norm.bias", NULL),
    WEIGHT(W_GATE, "blk.%d.ffn_gate.weight", NULL, DIM_F, DIM_D, CUT_ROWS_FFN, 0),
    WEIGHT(W_UP, "blk.%d.ffn_up.weight", NULL, DIM_F, DIM_D, CUT_ROWS_FFN, 0),
    WEIGHT(W_DOWN, "blk.%d.ffn_down.weight", NULL, DIM_D, DIM_F, CUT_COLUMNS_FFN, 0),
    VECTOR(W_FFN_POST_NORM, "blk.%d.layer_output_norm.weight", NULL),
    VECTOR(W_FFN_POST_NORM_BIAS, "blk.%d.layer_output_norm.bias", NULL),
};

static status configure_encoder(model_config *c, const model_source *s, err *e)
{
    const file_tensor *types = file_find_tensor(
        source_file(s),
        source_is_gguf(s) ? "token_types.weight" : "embeddings.token_type_embeddings.weight");
    c->n_types =
        types != NULL && types->n_dims == 2 ? (int64_t)BASE_MIN(types->dims[1], 1u << 16) : 1;
    if (c->context < 1 || c->context > 1 << 16)
        return err_set(e, STATUS_CORRUPT, "%s: a context of %lld, expected 1 to %d",
                       source_file(s)->path, (long long)c->context, 1 << 16);
    bool causal = false, found;
    status st = source_bool(s, "attention.causal", "is_decoder", &causal, &found, e);
    if (st == STATUS_OK && causal)
        st = err_set(e, STATUS_UNSUPPORTED, "%s: a BERT that looks backwards only is not known",
                     source_file(s)->path);
    return st;
}

static status configure_bert(model_config *c, const model_source *s, err *e)
{
    char act[32] = "gelu", positions[32] = "absolute";
    bool found;
    c->n_ropes = 0;
    status st = source_text(s, NULL, "hidden_act", act, sizeof act, &found, e);
    if (st == STATUS_OK)
        st =
            source_text(s, NULL, "position_embedding_type", positions, sizeof positions, &found, e);
    if (st == STATUS_OK && (strcmp(act, "gelu") != 0 || strcmp(positions, "absolute") != 0))
        st = err_set(e, STATUS_UNSUPPORTED,
                     "%s: a BERT with %s and %s positions, expected gelu and absolute",
                     source_file(s)->path, act, positions);
    return st == STATUS_OK ? configure_encoder(c, s, e) : st;
}

static status configure_nomic(model_config *c, const model_source *s, err *e)
{
    c->gate = DEVICE_GATE_SILU;
    return configure_encoder(c, s, e);
}

const model_family model_family_bert = {
    .name = "bert",
    .architectures = {"bert", "BertModel"},
    .weights = bert_rows,
    .n_weights = BASE_COUNT(bert_rows),
    .encoder = true,
    .configure = configure_bert,
    .build = model_build_encoder,
};

const model_family model_family_nomic_bert = {
    .name = "nomic-bert",
    .architectures = {"nomic-bert"},
    .weights = nomic_rows,
    .n_weights = BASE_COUNT(nomic_rows),
    .encoder = true,
    .configure = configure_nomic,
    .build = model_build_encoder,
};
