/*
 * Phi-3, Phi-3.5 and Phi-4: Llama's layer with q, k and v in one tensor and gate and up in another; a window in some models; rotation of a
 * leading part of the head in Phi-4-mini. Models whose rope is stretched by two lists of factors (longrope) are refused for now.
 * Source: "Phi-3 Technical Report" (2024) and config.json of the published models.
 */
#include "model/family.h"

#include <string.h>

#define PART(...) WEIGHT_PART(__VA_ARGS__) /* lets the pairs of names below become two arguments */
#define QKV       "blk.%d.attn_qkv.weight", "model.layers.%d.self_attn.qkv_proj.weight"
#define GATE_UP   "blk.%d.ffn_up.weight", "model.layers.%d.mlp.gate_up_proj.weight"

static const weight_row rows[] = {
    WEIGHTS_GLOBAL,
    WEIGHT(W_ATTENTION_NORM, "blk.%d.attn_norm.weight", "model.layers.%d.input_layernorm.weight",
           DIM_1, DIM_D, CUT_NONE, WEIGHT_VECTOR),
    PART(W_Q, QKV, DIM_HEADS, DIM_D, CUT_ROWS_HEADS, 0, DIM_QKV, DIM_NONE, DIM_NONE),
    PART(W_K, QKV, DIM_KV_HEADS, DIM_D, CUT_ROWS_KV_HEADS, 0, DIM_QKV, DIM_HEADS, DIM_NONE),
    PART(W_V, QKV, DIM_KV_HEADS, DIM_D, CUT_ROWS_KV_HEADS, 0, DIM_QKV, DIM_HEADS, DIM_KV_HEADS),
    WEIGHT(W_O, "blk.%d.attn_output.weight", "model.layers.%d.self_attn.o_proj.weight", DIM_D,
           DIM_HEADS, CUT_COLUMNS_HEADS, 0),
    WEIGHTS_FFN_NORM,
    PART(W_GATE, GATE_UP, DIM_F, DIM_D, CUT_ROWS_FFN, 0, DIM_2F, DIM_NONE, DIM_NONE),
    PART(W_UP, GATE_UP, DIM_F, DIM_D, CUT_ROWS_FFN, 0, DIM_2F, DIM_F, DIM_NONE),
    WEIGHT(W_DOWN, "blk.%d.ffn_down.weight", "model.layers.%d.mlp.down_proj.weight", DIM_D, DIM_F,
           CUT_COLUMNS_FFN, 0),
};

static status configure(model_config *c, const model_source *s, err *e)
{
    const char *path = source_file(s)->path;
    if (file_find_tensor(source_file(s), "rope_factors_long.weight") != NULL)
        return err_set(e, STATUS_UNSUPPORTED,
                       "%s: rope stretched by lists of factors (longrope) is not known yet", path);
    double part = 1.0;
    bool found;
    status st = source_f64(s, NULL, "partial_rotary_factor", &part, &found, e);
    if (st != STATUS_OK)
        return st;
    if (!(part > 0.0 && part <= 1.0))
        return err_set(e, STATUS_CORRUPT, "%s: partial_rotary_factor is %g", path, part);
    if (found)
        c->rope[0].width = (int64_t)((double)c->dh * part);
    st = config_read_window(c, s, e);
    if (st == STATUS_OK)
        st = config_read_layer_types(c, s, 1, e);
    return st;
}

const model_family model_family_phi3 = {
    .name = "phi3",
    .architectures = {"phi3", "Phi3ForCausalLM"},
    .weights = rows,
    .n_weights = BASE_COUNT(rows),
    .configure = configure,
    .build = model_build_decoder,
};
