/* See engine_options.h. */
#include "cli/engine_options.h"

#include "cli/ranks.h"
#include "kernel/kernel.h"
#include "os/os.h"

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

status cli_read_isa(const char **out, const cli *c, err *e)
{
    const char *text = cli_text(c, OPT_isa);
    const kernel_table *k;
    status s = kernel_select(&k, os_cpu_features(), text, e);
    if (s != STATUS_OK)
        return err_wrap(e, "--isa %s", text);
    *out = text && *text ? text : NULL;
    return STATUS_OK;
}

status cli_read_threads(int *out, const cli *c, err *e)
{
    const char *text = cli_text(c, OPT_threads);
    uint64_t n = 0;
    if (text && *text && (!base_parse_u64(text, &n) || n < 1 || n > 1024))
        return err_set(e, STATUS_INVALID, "--threads %s: expected 1 to 1024", text);
    *out = (int)n;
    return STATUS_OK;
}

status cli_read_engine(node_options *o, char draft_source[STORE_PATH], const cli *c,
                       const char *model_name, err *e)
{
    status s = cli_read_threads(&o->n_threads, c, e);
    if (s == STATUS_OK)
        s = cli_read_isa(&o->isa, c, e);
    if (s == STATUS_OK)
        s = cli_read_kv(&o->kv, c, e);
    if (s == STATUS_OK)
        s = cli_read_draft(&o->draft, draft_source, c, e);
    if (s == STATUS_OK)
        s = cli_check_draft(draft_source, model_name, e);
    if (s != STATUS_OK)
        return s;
    o->draft_source = draft_source[0] ? draft_source : NULL;
    return ranks_read(&o->cut, c, e);
}
