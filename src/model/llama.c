/*
 * Llama 2 and 3.x, and what shares their architecture word in GGUF ("llama": Mistral, many fine-tunes).
 *
 * GGUF holds q and k with rows permuted, so that rotary pairs are neighbours; safetensors hold halves. Llama 3.1's frequency scaling is
 * the tensor rope_freqs.weight in GGUF and rope_scaling in config.json.
 * Sources: the Llama model card and reference code; GGUF's key list.
 */
#include "model/family.h"

static const weight_row rows[] = {
    WEIGHTS_GLOBAL,
    WEIGHTS_ATTENTION,
    WEIGHTS_QKV_BIAS(WEIGHT_OPTIONAL),
    WEIGHT(W_O_BIAS, "blk.%d.attn_output.bias", "model.layers.%d.self_attn.o_proj.bias", DIM_1,
           DIM_D, CUT_NONE, WEIGHT_VECTOR | WEIGHT_OPTIONAL),
    WEIGHTS_FFN_NORM,
    WEIGHTS_FFN,
};

static status configure(model_config *c, const model_source *s, err *e)
{
    (void)e;
    c->neighbours = source_is_gguf(s);
    return STATUS_OK;
}

const model_family model_family_llama = {
    .name = "llama",
    .architectures = {"llama", "LlamaForCausalLM"},
    .weights = rows,
    .n_weights = BASE_COUNT(rows),
    .configure = configure,
    .build = model_build_decoder,
};
