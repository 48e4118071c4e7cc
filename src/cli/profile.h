/*
 * profile: how fast this machine is to the planner, measured with the kernels that models run on: bytes of weights a second for one token and
 * multiply-adds a second for a prompt, by type of weights; two halves of its cores at once (what two ranks of one machine share); the time
 * of one dispatch. Kept in the cache folder by processor, cores, kernels and version of the binary, so that it is measured once.
 * Takes about three seconds and a quarter of the free memory at most. Not here: links (they are measured between nodes), models.
 */
#ifndef SHOAL_CLI_PROFILE_H
#define SHOAL_CLI_PROFILE_H

#include "plan/plan.h"

#include <jansson.h>

enum { PROFILE_TYPES = 8 };

typedef struct profile_type {
    char name[16];    /* "Q4_K" */
    double bits;      /* a weight, scales included */
    double bandwidth; /* bytes/s of weights, one token, all cores */
    double rate;      /* multiply-adds/s, many tokens, all cores */
} profile_type;

typedef struct profile {
    char cpu[96], version[32], isa[24];
    int threads;
    double half_bandwidth; /* bytes/s of the first type by half of the cores; 0 with one core */
    double
        paced_bandwidth[2]; /* of each half, of a profile_measure, on average; 0 = not measured */
    double both_bandwidth;  /* by both halves at once, together */
    double op_us;           /* a dispatch to all cores that does nothing */
    int n_types;
    profile_type types[PROFILE_TYPES];
} profile;

/* The kept one, or a new one when there is none for this machine and binary, or when `again`; isa NULL or "": the best. Not being able to keep
 * it is no error. */
status profile_get(profile *out, const char *isa, bool again, err *e);
/* Measured now, and not kept: the two halves at once work these shares of their time, as if they were slower machines. */
status profile_measure(profile *out, const char *isa, const double paces[2], err *e);
json_t *profile_json(const profile *p);
/* This machine as a node: measured speeds for weights of about so many bits, the memory that is free now. */
status profile_node(plan_node *out, const profile *p, const char *name, double bits, err *e);

#endif
