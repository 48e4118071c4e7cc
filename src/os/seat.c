/* Moving and watching threads by affinity masks and per-thread CPU clocks. See seat.h for why. */
#include "os/seat.h"

#ifdef __linux__

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

void cores_find(os_cores *c)
{
    CPU_ZERO(&c->set);
    /* Fails where there are more cores than a cpu_set_t holds: then nothing is moved. */
    c->n = sched_getaffinity(0, sizeof c->set, &c->set) == 0 ? CPU_COUNT(&c->set) : 0;
}

int cores_here(void)
{
    return sched_getcpu();
}

void seat_take(os_seat *s)
{
    clockid_t clock;
    if (pthread_getcpuclockid(pthread_self(), &clock) != 0)
        return;
    atomic_store_explicit(&s->clock, clock, memory_order_relaxed);
    atomic_store_explicit(&s->thread, (int)syscall(SYS_gettid), memory_order_release);
}

uint64_t seat_ran_us(os_seat *s)
{
    struct timespec t;
    if (atomic_load_explicit(&s->thread, memory_order_acquire) == 0 ||
        clock_gettime(atomic_load_explicit(&s->clock, memory_order_relaxed), &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static bool set_mask(os_seat *s, const cpu_set_t *set)
{
    int thread = atomic_load_explicit(&s->thread, memory_order_acquire);
    return thread != 0 && sched_setaffinity(thread, sizeof *set, set) == 0;
}

bool seat_move(os_seat *s, const os_cores *c, int core)
{
    cpu_set_t set;
    if (core < 0 || core >= CPU_SETSIZE || !CPU_ISSET((size_t)core, &c->set))
        return false;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    return set_mask(s, &set);
}

void seat_keep_off(os_seat *s, const os_cores *c, int core)
{
    cpu_set_t set = c->set;
    if (core >= 0 && core < CPU_SETSIZE)
        CPU_CLR((size_t)core, &set);
    set_mask(s, &set);
}

void seat_free(os_seat *s, const os_cores *c)
{
    set_mask(s, &c->set);
}

#else

void cores_find(os_cores *c)
{
    c->n = 0;
}

int cores_here(void)
{
    return -1;
}

void seat_take(os_seat *s)
{
    (void)s;
}

uint64_t seat_ran_us(os_seat *s)
{
    (void)s;
    return 0;
}

bool seat_move(os_seat *s, const os_cores *c, int core)
{
    (void)s;
    (void)c;
    (void)core;
    return false;
}

void seat_keep_off(os_seat *s, const os_cores *c, int core)
{
    (void)s;
    (void)c;
    (void)core;
}

void seat_free(os_seat *s, const os_cores *c)
{
    (void)s;
    (void)c;
}

#endif
