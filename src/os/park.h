/*
 * park: sleep until a 32-bit word changes. Linux: the futex system call on the word itself. Elsewhere a mutex and a
 * condition variable beside it. Private to src/os; the word is changed by its users with atomics before park_wake.
 */
#ifndef SHOAL_OS_PARK_H
#define SHOAL_OS_PARK_H

#include "os/os.h"

#include <stdatomic.h>
#ifndef __linux__
#include <pthread.h>
#endif

typedef struct os_park {
    _Atomic uint32_t word;
#ifndef __linux__
    pthread_mutex_t mutex;
    pthread_cond_t cond;
#endif
} os_park;

void park_init(os_park *p);
void park_fini(os_park *p);
/* Returns when woken, after timeout_us (0: never), at once when word is not `expected`, or for no reason: callers look again. */
void park_wait(os_park *p, uint32_t expected, uint64_t timeout_us);
void park_wake(os_park *p, int n_threads);

#endif
