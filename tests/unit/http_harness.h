/*
 * What the tests of http share: a server on a thread of its own, and a client that sends bytes exactly as given. Waiting is
 * bounded generously (a hang fails); no time is asserted.
 */
#ifndef HTTP_HARNESS_H
#define HTTP_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/http.h"
#include "os/os.h"

enum { WAIT_MS = 60000 };

typedef struct rig {
    http_loop *loop;
    http_server *server;
    os_thread *thread;
    int port;
    atomic_int handled, gone;
} rig;

static inline void rig_loop(void *context)
{
    http_loop_run(context);
}

static inline void rig_start(rig *r, const http_options *options, http_handler handle)
{
    err e = {0};
    memset(r, 0, sizeof *r);
    assert_int_equal(http_loop_create(&r->loop, &e), STATUS_OK);
    assert_int_equal(http_server_create(&r->server, r->loop, options, handle, r, &e), STATUS_OK);
    assert_int_equal(http_server_listen(r->server, "127.0.0.1:0", &r->port, &e), STATUS_OK);
    assert_true(r->port > 0);
    assert_int_equal(os_thread_create(&r->thread, rig_loop, r->loop, "loop", &e), STATUS_OK);
}

static inline void rig_stop(rig *r)
{
    http_loop_stop(r->loop);
    os_thread_join(r->thread);
    http_server_destroy(r->server);
    http_loop_destroy(r->loop);
}

static inline void await(atomic_int *value, int at_least)
{
    for (int i = 0; i < WAIT_MS && atomic_load(value) < at_least; i++)
        os_sleep_us(1000);
    assert_true(atomic_load(value) >= at_least);
}

static inline int dial(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/* False when the server has closed. */
static inline bool put(int fd, const void *bytes, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t k = send(fd, (const char *)bytes + at, n - at,
                         0); /* SIGPIPE is ignored: http_loop_create */
        if (k <= 0)
            return false;
        at += (size_t)k;
    }
    return true;
}

static inline bool puts_to(int fd, const char *text)
{
    return put(fd, text, strlen(text));
}

/* Appends what arrives next; 0 at the end (also a reset), and fails the test when nothing comes. */
static inline size_t take(int fd, sb *into)
{
    char bytes[16384];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    if (n <= 0)
        return 0;
    sb_add(into, bytes, (size_t)n);
    return (size_t)n;
}

static inline void take_until(int fd, sb *into, const char *text)
{
    while (!into->data || !strstr(into->data, text))
        assert_true(take(fd, into) > 0);
}

/* Everything up to the server's closing. */
static inline char *take_all(int fd)
{
    sb all;
    sb_init(&all);
    while (take(fd, &all) > 0)
        ;
    return sb_take(&all);
}

/* One connection: sends bytes, reads until the server closes. Heap string. */
static inline char *talk_bytes(int port, const void *bytes, size_t n)
{
    int fd = dial(port);
    put(fd, bytes, n);
    char *answer = take_all(fd);
    close(fd);
    return answer;
}

static inline char *talk(int port, const char *text)
{
    return talk_bytes(port, text, strlen(text));
}

static inline int count_of(const char *text, const char *part)
{
    int n = 0;
    for (const char *p = strstr(text, part); p; p = strstr(p + strlen(part), part))
        n++;
    return n;
}

/* The answer begins with this code and there is no second one. */
static inline void expect_code(const char *what, const char *answer, int code)
{
    char start[32];
    snprintf(start, sizeof start, "HTTP/1.1 %d ", code);
    if (strncmp(answer, start, strlen(start)) != 0 || count_of(answer, "HTTP/1.1 ") != 1)
        fail_msg("%s: expected one answer %d, got: %.300s", what, code, answer);
}

#endif
