/* ranks: --ranks, --mode, --shares and --link as a cut. */
#ifndef SHOAL_CLI_RANKS_H
#define SHOAL_CLI_RANKS_H

#include "cli/cli.h"
#include "engine/ranks.h"

/* INVALID: a value is wrong, or does not fit another. One rank: a cut into one. */
status ranks_read(engine_cut *out, const cli *c, err *e);

#endif
