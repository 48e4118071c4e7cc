/* Inside of the engine: grammars of requests, each compiled once and kept for those that come again (tools of an agent). */
#ifndef SHOAL_ENGINE_GUIDES_H
#define SHOAL_ENGINE_GUIDES_H

#include "engine/engine.h"

typedef struct engine_guides engine_guides;

/* Nothing is made until a grammar is asked for. */
status guides_create(engine_guides **out, err *e);
void guides_destroy(engine_guides *s); /* nobody may hold a grammar any more */
/* The grammar of a request that has one; to be given back. c: of the model, of whichever epoch. UNSUPPORTED: it has no vocabulary. */
status guides_acquire(engine_guides *s, const model_card *c, const engine_request *r,
                      sample_grammar **out, err *e);
void guides_release(engine_guides *s, sample_grammar *g);

#endif
