/*
 * Clocks. Real ones by clock_gettime; os_virtual_clock is a number that a test moves. Protocol code takes an os_clock
 * (NULL: the real one), so that its timeouts can be tested without waiting.
 */
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static uint64_t read_us(clockid_t which)
{
    struct timespec t;
    int failure = clock_gettime(which, &t);
    REQUIRE(failure == 0);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t os_now_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

uint64_t os_unix_us(void)
{
    return read_us(CLOCK_REALTIME);
}

uint64_t os_thread_cpu_us(void)
{
    return read_us(CLOCK_THREAD_CPUTIME_ID);
}

void os_sleep_us(uint64_t us)
{
    struct timespec left = {.tv_sec = (time_t)(us / 1000000),
                            .tv_nsec = (long)(us % 1000000) * 1000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

void os_keep_pace(uint64_t began_us, double pace)
{
    REQUIRE(pace > 0 && pace <= 1);
    uint64_t until = began_us + (uint64_t)((double)(os_now_us() - began_us) / pace + 0.5);
    while (os_now_us() < until) /* what is paced is shorter than what a sleep is late by */
        continue;
}

uint64_t os_thread_preemptions(void)
{
    struct rusage used;
#ifdef RUSAGE_THREAD
    int whose = RUSAGE_THREAD;
#else
    int whose = RUSAGE_SELF;
#endif
    return getrusage(whose, &used) == 0 ? (uint64_t)used.ru_nivcsw : 0;
}

uint64_t os_thread_delay_us(void)
{
    char text[96];
    int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return UINT64_MAX;
    text[n] = 0;
    const char *second = strchr(text, ' '); /* "ran waited times", in nanoseconds */
    return second ? strtoull(second, NULL, 10) / 1000 : UINT64_MAX;
}

static uint64_t virtual_now(os_clock *c)
{
    return ((os_virtual_clock *)c)->us;
}

void os_virtual_clock_init(os_virtual_clock *c, uint64_t start_us)
{
    c->clock.now_us = virtual_now;
    c->us = start_us;
}

uint64_t os_clock_now(os_clock *c)
{
    return c ? c->now_us(c) : os_now_us();
}
