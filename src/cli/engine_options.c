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
