/* Inside of the engine: from the rows of an embedding model to one vector. */
#ifndef SHOAL_ENGINE_ROWS_H
#define SHOAL_ENGINE_ROWS_H

#include "engine/engine.h"

/* sum[width] += each of n rows, in order: the same double whatever the chunks of a text were. */
void rows_add(double *sum, const float *rows, int n, int64_t width);
/* out[width] = sum scaled to length 1; zeros stay zeros. The mean and the sum have the same direction. out may not be sum. */
void rows_normalise(float *out, const double *sum, int64_t width);

#endif
