/* Options of the engine that several commands take, as values; wrong ones are refused before anything is started. */
#ifndef SHOAL_CLI_ENGINE_OPTIONS_H
#define SHOAL_CLI_ENGINE_OPTIONS_H

#include "cli/cli.h"
#include "engine/engine.h"
#include "node/node.h"
#include "store/store.h"

/* --draft: "" or "none", "ngram", or the name of a model, whose source comes out ("" otherwise). NOT_FOUND: no such model. */
status cli_read_draft(engine_draft *out, char source[STORE_PATH], const cli *c, err *e);
/* A draft model that cannot guess for the model of that name is refused before anything is started. Does nothing for source "". */
status cli_check_draft(const char *source, const char *model_name, err *e);
/* --kv: f16 or q8_0. */
status cli_read_kv(model_kv *out, const cli *c, err *e);
/* --isa: one that this machine runs; NULL = the best. */
status cli_read_isa(const char **out, const cli *c, err *e);
/* --threads where it is one number; 0 = not given, all cores. */
status cli_read_threads(int *out, const cli *c, err *e);
/* All of these and the cut (ranks.h) of a node whose models are to be those that `c` names. draft_source backs o->draft_source. */
status cli_read_engine(node_options *o, char draft_source[STORE_PATH], const cli *c,
                       const char *model_name, err *e);

#endif
