/*
 * "shoal-decay": Llama with a decaying sum of the residual stream before every even layer. Nobody trains this: it is the smallest model
 * with constant-size state, so that forks, cuts and reuse of such state are tested before a real recurrent family exists. Refused
 * unless model_admit_test_families was called.
 */
#include "model/family.h"

static const weight_row rows[] = {
    WEIGHTS_GLOBAL,
    WEIGHTS_ATTENTION,
    WEIGHTS_FFN_NORM,
    WEIGHTS_FFN,
    WEIGHT(W_DECAY, "blk.%d.decay.weight", NULL, DIM_1, DIM_D, CUT_NONE, WEIGHT_VECTOR),
};

static status configure(model_config *c, const model_source *s, err *e)
{
    c->neighbours = true;
    for (int64_t l = 0; l < c->L; l++)
        c->decay[l] = l % 2 == 0;
    int64_t window = 0;
    bool found;
    status st = source_i64(s, "attention.sliding_window", NULL, &window, &found, e);
    if (st != STATUS_OK || !found)
        return st;
    if (window < 1 || window > 1 << 30)
        return err_set(e, STATUS_CORRUPT, "%s: a window of %lld", source_file(s)->path,
                       (long long)window);
    c->window = (int)window;
    for (int64_t l = 0; l < c->L; l++)
        c->windowed[l] = l % 2 == 1;
    return STATUS_OK;
}

const model_family model_family_decay = {
    .name = "decay",
    .architectures = {"shoal-decay"},
    .test_only = true,
    .weights = rows,
    .n_weights = BASE_COUNT(rows),
    .configure = configure,
    .build = model_build_decoder,
};
