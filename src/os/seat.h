/*
 * seat: where a thread of the pool runs, and whether it runs at all. Linux only; elsewhere everything says "unknown" and does nothing.
 * Private to src/os.
 *
 * On a shared machine a thread that is preempted inside a chunk holds up the whole run for a scheduler's tick (4 ms) or two, while the
 * core of whoever waits for it is idle: kernels do not move a waiting thread that fast. So the pool moves it itself (pool.c).
 */
#ifndef SHOAL_OS_SEAT_H
#define SHOAL_OS_SEAT_H

#include "os/os.h"

#include <stdatomic.h>
#ifdef __linux__
#include <sched.h>
#include <time.h>
#endif

/* The cores that a thread may use. */
typedef struct os_cores {
    int n; /* 0: unknown, and seats never move */
#ifdef __linux__
    cpu_set_t set;
#endif
} os_cores;

typedef struct os_seat {
    _Atomic int thread; /* the kernel's number for it; 0: nobody sits here yet */
#ifdef __linux__
    _Atomic(clockid_t) clock; /* of its CPU time */
#endif
} os_seat;

void cores_find(os_cores *c); /* of the calling thread */
int cores_here(void);         /* the calling thread's core; −1 unknown */

void seat_take(os_seat *s); /* by its thread, once */
/* CPU time of the seat's thread so far. It stands still while the thread is preempted. */
uint64_t seat_ran_us(os_seat *s);
bool seat_move(os_seat *s, const os_cores *c,
               int core); /* to this core and no other, if it is one of these */
void seat_keep_off(os_seat *s, const os_cores *c, int core); /* any but this one */
void seat_free(os_seat *s, const os_cores *c);               /* any */

#endif
