/*
 * cgroup: the limits of Linux control groups, versions 2 and 1, on memory and CPU time. Private to src/os; the roots
 * are arguments so that tests can lay out their own tree. A process is bound by its own group and all above it.
 */
#ifndef SHOAL_OS_CGROUP_H
#define SHOAL_OS_CGROUP_H

#include "base/base.h"

/* root: "/sys/fs/cgroup", self: "/proc/self/cgroup". False: no limit found (outputs untouched). limit: the smallest;
 * free_bytes: the smallest of limit − (usage − inactive file cache) over the groups that have a limit. */
bool cgroup_memory(const char *root, const char *self, uint64_t *limit, uint64_t *free_bytes);
/* CPUs' worth of time, rounded up, at least 1; 0: no limit. */
int cgroup_cpus(const char *root, const char *self);

#endif
