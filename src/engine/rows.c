/*
 * Pooling. Sums are in double, in the order of positions, so that a vector does not depend on how its text was cut into steps. These are
 * a few thousand operations a text, done where steps are made: division and root are those of IEEE 754, the same on every machine.
 */
#include "engine/rows.h"

#include <math.h>

void rows_add(double *sum, const float *rows, int n, int64_t width)
{
    for (int r = 0; r < n; r++)
        for (int64_t i = 0; i < width; i++)
            sum[i] += (double)rows[r * width + i];
}

void rows_normalise(float *out, const double *sum, int64_t width)
{
    double squares = 0;
    for (int64_t i = 0; i < width; i++)
        squares += sum[i] * sum[i];
    double factor = squares > 0 ? 1 / sqrt(squares) : 0;
    for (int64_t i = 0; i < width; i++)
        out[i] = (float)(sum[i] * factor);
}
