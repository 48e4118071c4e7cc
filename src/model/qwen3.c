/*
 * Qwen 3, dense: an RMS norm on every head of q and k before rotation, a head width of its own, no biases.
 * Source: the Qwen3 technical report and config.json of the published models.
 */
#include "model/family.h"

static const weight_row rows[] = {
    WEIGHTS_GLOBAL, WEIGHTS_ATTENTION, WEIGHTS_HEAD_NORMS(0), WEIGHTS_FFN_NORM, WEIGHTS_FFN,
};

const model_family model_family_qwen3 = {
    .name = "qwen3",
    .architectures = {"qwen3", "Qwen3ForCausalLM"},
    .weights = rows,
    .n_weights = BASE_COUNT(rows),
    .build = model_build_decoder,
};
