/*
 * Mistral and Ministral from safetensors: Llama's layer, rotary halves, and in some models a window on all layers or on those that
 * layer_types names. In GGUF these models call themselves "llama".
 * Source: "Mistral 7B" (2023) and config.json of the published models.
 */
#include "model/family.h"

static const weight_row rows[] = {WEIGHTS_GLOBAL, WEIGHTS_ATTENTION, WEIGHTS_FFN_NORM, WEIGHTS_FFN};

static status configure(model_config *c, const model_source *s, err *e)
{
    status st = config_read_window(c, s, e);
    if (st == STATUS_OK)
        st = config_read_layer_types(c, s, 1, e);
    return st;
}

const model_family model_family_mistral = {
    .name = "mistral",
    .architectures = {"MistralForCausalLM", "MinistralForCausalLM"},
    .weights = rows,
    .n_weights = BASE_COUNT(rows),
    .configure = configure,
    .build = model_build_decoder,
};
