/* Any bytes as a model: the card, what loading would take, and, where that is little, loading and one step. */
#include "model/model.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void step(model *m)
{
    enum { PAGES = 2 };
    int64_t V = model_get_card(m)->n_vocab;
    float *logits = malloc((size_t)V * sizeof(*logits));
    int32_t id = (int32_t)(V - 1), page = 0, row = 0;
    model_run r = {.n_tokens = 1};
    for (int i = 0; i < model_n_classes(m); i++) {
        r.pages[i] = &page;
        r.n_pages[i] = 1;
    }
    model_batch b = {1, &id, 1, &r, 1, &row};
    if (logits != NULL)
        (void)model_step(m, &b, logits, NULL);
    free(logits);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    err e = {0};
    file_model *f;
    model_admit_test_families(true);
    if (file_open_memory(&f, data, size, "fuzz", &e) != STATUS_OK)
        return 0;
    model_card *card;
    if (model_card_read(&card, f, &e) == STATUS_OK)
        model_card_destroy(card);
    model_options o = {
        .n_threads = 1, .context = 64, .n_sequences = 1, .max_tokens = 1, .memory_limit = 1 << 22};
    model *m;
    if (model_load(&m, f, &o, NULL, &e) == STATUS_OK) {
        step(m);
        model_destroy(m);
    }
    file_close(f);
    return 0;
}
