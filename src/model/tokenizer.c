/*
 * A model's tokenizer out of its card. Besides the vocabulary's own, the ids that generation_config.json calls eos end a generation.
 */
#include "model/model.h"

#include <jansson.h>

static status add_end(text_tokenizer *t, const json_t *id, err *e)
{
    json_int_t value = json_integer_value(id);
    if (!json_is_integer(id) || value < 0 || value >= text_token_count(t))
        return STATUS_OK; /* not ours to judge: such an id can never be sampled */
    return text_add_end(t, (int32_t)value, e);
}

static status add_ends_of_config(text_tokenizer *t, str config, err *e)
{
    if (config.length == 0)
        return STATUS_OK;
    json_t *root = json_loadb(config.data, config.length, 0, NULL);
    const json_t *eos = json_object_get(root, "eos_token_id");
    status s = STATUS_OK;
    if (json_is_array(eos)) {
        for (size_t i = 0; i < json_array_size(eos) && s == STATUS_OK; i++)
            s = add_end(t, json_array_get(eos, i), e);
    } else {
        s = add_end(t, eos, e);
    }
    json_decref(root);
    return s;
}

status model_tokenizer_create(text_tokenizer **out, const model_card *c, err *e)
{
    text_tokenizer *t = NULL;
    status s;
    if (c->vocab)
        s = text_tokenizer_create(&t, c->vocab, e);
    else if (c->tokenizer_json.length)
        s = text_tokenizer_from_json(&t, c->tokenizer_json, c->tokenizer_config_json, e);
    else
        s = err_set(e, STATUS_NOT_FOUND, "model: %s has no vocabulary", c->name);
    if (s == STATUS_OK)
        s = add_ends_of_config(t, c->generation_config_json, e);
    if (s != STATUS_OK) {
        text_tokenizer_destroy(t);
        return s;
    }
    *out = t;
    return STATUS_OK;
}
