/*
 * The loops of loops.h with AVX2: four values at a time. Chosen in wire.c where the CPU has it.
 */
#define LANES 4
#include "link/loops.h"

const link_loops link_loops_avx2 = {LOOPS_ROWS};
