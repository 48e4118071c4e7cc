/*
 * Gemma 3, text: five windowed layers for each full one, each kind with a rotary base of its own; norms before and after attention and
 * feed-forward and on the heads of q and k; tanh-GELU; embeddings scaled by sqrt(D) and tied to the output.
 *
 * Norm weights act as 1 + w: GGUF stores the sum, safetensors store w. Linear rope scaling is for full layers only. The 27B model scales
 * scores by the width per head, not by the head width; GGUF does not say so, hence its number of layers does.
 * Source: "Gemma 3 Technical Report" (2025) and config.json of the published models.
 */
#include "model/family.h"

#include <math.h>

static const weight_row rows[] = {
    WEIGHT(W_EMBEDDING, "token_embd.weight", "model.embed_tokens.weight", DIM_V, DIM_D,
           CUT_ROWS_VOCABULARY, 0),
    WEIGHT(W_OUTPUT_NORM, "output_norm.weight", "model.norm.weight", DIM_1, DIM_D, CUT_NONE,
           WEIGHT_VECTOR | WEIGHT_PLUS_ONE),
    WEIGHT(W_OUTPUT, "output.weight", "lm_head.weight", DIM_V, DIM_D, CUT_ROWS_VOCABULARY,
           WEIGHT_OPTIONAL),
    WEIGHT(W_ATTENTION_NORM, "blk.%d.attn_norm.weight", "model.layers.%d.input_layernorm.weight",
           DIM_1, DIM_D, CUT_NONE, WEIGHT_VECTOR | WEIGHT_PLUS_ONE),
    WEIGHTS_QKVO,
    WEIGHTS_HEAD_NORMS(WEIGHT_PLUS_ONE),
    WEIGHT(W_ATTENTION_POST_NORM, "blk.%d.post_attention_norm.weight",
           "model.layers.%d.post_attention_layernorm.weight", DIM_1, DIM_D, CUT_NONE,
           WEIGHT_VECTOR | WEIGHT_PLUS_ONE),
    WEIGHT(W_FFN_NORM, "blk.%d.ffn_norm.weight", "model.layers.%d.pre_feedforward_layernorm.weight",
           DIM_1, DIM_D, CUT_NONE, WEIGHT_VECTOR | WEIGHT_PLUS_ONE),
    WEIGHTS_FFN,
    WEIGHT(W_FFN_POST_NORM, "blk.%d.post_ffw_norm.weight",
           "model.layers.%d.post_feedforward_layernorm.weight", DIM_1, DIM_D, CUT_NONE,
           WEIGHT_VECTOR | WEIGHT_PLUS_ONE),
};

static status configure(model_config *c, const model_source *s, err *e)
{
    bool found;
    c->gate = DEVICE_GATE_GELU_TANH;
    c->embedding_scale = sqrt((double)c->D);
    c->n_ropes = 2;
    c->rope[1] =
        (rope_spec){.kind = ROPE_NONE, .width = c->rope[0].width, .base = 10000.0, .factor = 1.0};
    status st =
        source_f64(s, "rope.freq_base_swa", "rope_local_base_freq", &c->rope[1].base, &found, e);
    double scalar = c->L == 62 && source_is_gguf(s) ? (double)(c->D / c->H) : (double)c->dh;
    if (st == STATUS_OK)
        st = source_f64(s, NULL, "query_pre_attn_scalar", &scalar, &found, e);
    if (st == STATUS_OK && !(scalar > 0.0 && scalar < 1e6))
        st = err_set(e, STATUS_CORRUPT, "%s: query_pre_attn_scalar is %g", source_file(s)->path,
                     scalar);
    c->attention_scale = 1.0 / sqrt(scalar);
    double cap = 0.0;
    if (st == STATUS_OK)
        st = source_f64(s, "final_logit_softcapping", "final_logit_softcapping", &cap, &found, e);
    if (st == STATUS_OK && cap != 0.0)
        st = err_set(e, STATUS_UNSUPPORTED, "%s: capped logits are not known yet",
                     source_file(s)->path);
    if (st == STATUS_OK)
        st = config_read_window(c, s, e);
    int64_t pattern = 6;
    if (st == STATUS_OK)
        st = source_i64(s, "attention.sliding_window_pattern", "sliding_window_pattern", &pattern,
                        &found, e);
    if (st == STATUS_OK)
        st = config_read_layer_types(c, s, pattern, e);
    return st;
}

const model_family model_family_gemma3 = {
    .name = "gemma3",
    .architectures = {"gemma3", "Gemma3ForCausalLM"},
    .weights = rows,
    .n_weights = BASE_COUNT(rows),
    .configure = configure,
    .build = model_build_decoder,
};
