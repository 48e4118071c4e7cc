/*
 * TCP sockets, waiting, descriptors through sockets, shared memory. Both ends are in this process.
 */
#include "os/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WAIT_US 60000000 /* a hang fails; nothing is measured */

static void tcp_pair(int *a, int *b)
{
    int listener;
    uint16_t port = 0;
    err e;
    assert_int_equal(os_tcp_listen(&listener, "127.0.0.1", &port, &e), STATUS_OK);
    assert_int_not_equal(port, 0);
    assert_int_equal(os_tcp_connect(a, "127.0.0.1", port, WAIT_US, &e), STATUS_OK);
    assert_int_equal(os_tcp_accept(b, listener, WAIT_US, &e), STATUS_OK);
    os_close(listener);
}

static void test_tcp(void **state)
{
    (void)state;
    int a, b;
    tcp_pair(&a, &b);
    size_t n;
    char c[4];
    assert_int_equal(os_try_recv(b, c, sizeof c, &n, NULL), STATUS_OK);
    assert_int_equal(n, 0);
    assert_int_equal(os_try_send(a, "abc", 3, &n, NULL), STATUS_OK);
    assert_int_equal(n, 3);
    os_interest i[2] = {{.fd = b, .read = true}, {.fd = a, .read = true}};
    assert_int_equal(os_wait_any(i, 2, WAIT_US, NULL), STATUS_OK);
    assert_true(i[0].ready);
    assert_false(i[1].ready);
    assert_int_equal(os_try_recv(b, c, sizeof c, &n, NULL), STATUS_OK);
    assert_int_equal(n, 3);
    assert_memory_equal(c, "abc", 3);
    i[0].write = true;
    assert_int_equal(os_wait_any(i, 2, 0, NULL), STATUS_OK);
    assert_true(i[0].ready);
    os_close(a);
    i[0].write = false;
    assert_int_equal(os_wait_any(i, 1, WAIT_US, NULL), STATUS_OK);
    err e;
    assert_int_equal(os_try_recv(b, c, sizeof c, &n, &e), STATUS_CLOSED);
    os_close(b);
}

static void test_nobody(void **state)
{
    (void)state;
    int listener, fd = -1;
    uint16_t port = 0;
    err e;
    assert_int_equal(os_tcp_listen(&listener, "127.0.0.1", &port, &e), STATUS_OK);
    assert_int_equal(os_tcp_accept(&fd, listener, 1000, &e), STATUS_TIMEOUT);
    uint16_t taken = port;
    int second;
    assert_int_not_equal(os_tcp_listen(&second, "127.0.0.1", &taken, &e), STATUS_OK);
    os_close(listener);
    assert_int_not_equal(os_tcp_connect(&fd, "127.0.0.1", port, WAIT_US, &e), STATUS_OK);
    assert_non_null(strstr(e.text, "127.0.0.1"));
    assert_int_equal(fd, -1);
}

static void test_full(void **state)
{
    (void)state;
    int p[2];
    assert_int_equal(os_socket_pair(p, NULL), STATUS_OK);
    static char block[65536];
    size_t n = 1, all = 0;
    while (n > 0) {
        assert_int_equal(os_try_send(p[0], block, sizeof block, &n, NULL), STATUS_OK);
        all += n;
        assert_true(all < 1u << 30);
    }
    os_close(p[1]);
    err e;
    assert_int_equal(os_try_send(p[0], block, 1, &n, &e), STATUS_CLOSED);
    os_close(p[0]);
}

static void test_shared(void **state)
{
    (void)state;
    int p[2], memory, got[2];
    void *a, *b;
    uint64_t bytes;
    err e;
    assert_int_equal(os_socket_pair(p, &e), STATUS_OK);
    assert_int_equal(os_shared_create(&memory, 8192, &e), STATUS_OK);
    int both[2] = {memory, p[1]};
    assert_int_equal(os_send_descriptors(p[0], both, 2, &e), STATUS_OK);
    assert_int_equal(os_recv_descriptors(p[1], got, 2, WAIT_US, &e), STATUS_OK);
    assert_int_equal(os_shared_map(&a, &bytes, memory, &e), STATUS_OK);
    assert_int_equal(bytes, 8192);
    assert_int_equal(os_shared_map(&b, &bytes, got[0], &e), STATUS_OK);
    memcpy((char *)a + 5000, "here", 4);
    assert_memory_equal((char *)b + 5000, "here", 4);
    assert_int_equal(((char *)b)[0], 0);
    /* another number than expected is refused, and nothing stays open */
    assert_int_equal(os_send_descriptors(p[0], both, 2, &e), STATUS_OK);
    assert_int_equal(os_recv_descriptors(p[1], got, 1, WAIT_US, &e), STATUS_CORRUPT);
    assert_int_equal(os_recv_descriptors(p[1], got, 1, 1000, &e), STATUS_TIMEOUT);
    os_close(p[0]);
    os_close(got[1]);
    assert_int_equal(os_recv_descriptors(p[1], got, 1, WAIT_US, &e), STATUS_CLOSED);
    os_shared_unmap(a, bytes);
    os_shared_unmap(b, bytes);
    os_close(memory);
    os_close(got[0]);
    os_close(p[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
