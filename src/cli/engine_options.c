/* See engine_options.h. */
#include "cli/engine_options.h"

#include <string.h>

status cli_read_draft(engine_draft *out, char source[STORE_PATH], const cli *c, err *e)
{
    const char *text = cli_text(c, OPT_draft);
    source[0] = '\0';
    *out = ENGINE_DRAFT_NONE;
    if (!text || !*text || !strcmp(text, "none"))
        return STATUS_OK;
    *out = ENGINE_DRAFT_LOOKUP;
    if (!strcmp(text, "ngram"))
        return STATUS_OK;
    *out = ENGINE_DRAFT_MODEL;
    status s = store_find(source, NULL, text, e);
    return s == STATUS_OK ? s
                          : err_wrap(e, "--draft: neither 'ngram' nor a model that is found here");
}

static status read_card(model_card **out, const char *source, err *e)
{
    file_model *f;
    status s = store_open(&f, source, e);
    if (s != STATUS_OK)
        return s;
    s = model_card_read(out, f, e);
    file_close(f);
    return s;
}

status cli_check_draft(const char *source, const char *model_name, err *e)
{
    char model_source[STORE_PATH];
    model_card *small = NULL, *target = NULL;
    if (!*source)
        return STATUS_OK;
    status s = store_find(model_source, NULL, model_name, e);
    if (s == STATUS_OK)
        s = read_card(&small, source, e);
    if (s == STATUS_OK)
        s = read_card(&target, model_source, e);
    if (s == STATUS_OK)
        s = engine_draft_check(small, target, e);
    model_card_destroy(small);
    model_card_destroy(target);
    return s;
}

status cli_read_kv(model_kv *out, const cli *c, err *e)
{
    const char *text = cli_text(c, OPT_kv);
    if (!text || !strcmp(text, "f16"))
        *out = MODEL_KV_F16;
    else if (!strcmp(text, "q8_0"))
        *out = MODEL_KV_Q8_0;
    else
        return err_set(e, STATUS_INVALID, "--kv %s: expected f16 or q8_0", text);
    return STATUS_OK;
}
