/*
 * Qwen 2 and 2.5: Llama's layer with biases on q, k and v; rotary halves in both formats.
 * Source: the Qwen2 technical report and config.json of the published models. A window (use_sliding_window) covers the layers from
 * max_window_layers on; no published model switches it on.
 */
#include "model/family.h"

static const weight_row rows[] = {
    WEIGHTS_GLOBAL, WEIGHTS_ATTENTION, WEIGHTS_QKV_BIAS(0), WEIGHTS_FFN_NORM, WEIGHTS_FFN,
};

static status configure(model_config *c, const model_source *s, err *e)
{
    bool use = false, found;
    status st = source_bool(s, NULL, "use_sliding_window", &use, &found, e);
    if (st != STATUS_OK || !use)
        return st;
    int64_t first = 0;
    st = config_read_window(c, s, e);
    if (st == STATUS_OK)
        st = source_i64(s, NULL, "max_window_layers", &first, &found, e);
    for (int64_t l = BASE_MAX(first, 0); l < c->L; l++)
        c->windowed[l] = true;
    return st;
}

const model_family model_family_qwen2 = {
    .name = "qwen2",
    .architectures = {"qwen2", "Qwen2ForCausalLM"},
    .weights = rows,
    .n_weights = BASE_COUNT(rows),
    .configure = configure,
    .build = model_build_decoder,
};
