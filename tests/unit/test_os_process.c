/*
 * Child processes, SIGBUS, signals. The program starts itself with a role as its argument; the child's side is `play`.
 */
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_US 60000000 /* a hang fails; nothing is measured */

static char self[1024];

/* ---- the child's side ------------------------------------------------------------------------------------------ */

/* Echoes until "quit"; "fds" answers with the open descriptors, "signals" with what is blocked or ignored. */
static int play_echo(void)
{
    char line[8];
    while (os_recv_all(3, line, sizeof line, 0, NULL) == STATUS_OK) {
        if (memcmp(line, "quit....", 8) == 0)
            return 3;
        if (memcmp(line, "fds.....", 8) == 0) {
            unsigned open_fds = 0;
            for (int fd = 0; fd < 1024; fd++)
                if (fcntl(fd, F_GETFD) >= 0)
                    open_fds += fd < 4 ? 1u << fd : 1000;
            snprintf(line, sizeof line, "%u", open_fds % 100000);
        }
        if (memcmp(line, "signals.", 8) == 0) {
            sigset_t blocked;
            sigprocmask(SIG_SETMASK, NULL, &blocked);
            int odd = 0;
            for (int s = 1; s < 32; s++) {
                struct sigaction action;
                if (sigaction(s, NULL, &action) == 0)
                    odd += action.sa_handler == SIG_IGN || sigismember(&blocked, s) == 1;
            }
            snprintf(line, sizeof line, "%u", (unsigned)odd % 100);
        }
        if (os_send_all(3, line, sizeof line, NULL) != STATUS_OK)
            return 4;
    }
    return 5; /* the parent is gone */
}

static int play_sigbus(const char *path)
{
    os_mapping m;
    os_sigbus_exit("the file shrank");
    if (os_map_file(&m, path, NULL) != STATUS_OK || truncate(path, 0) != 0)
        return 1;
    return m.data[m.bytes - 1] ? 2 : 3;
}

static int play(int argc, char **argv)
{
    if (strcmp(argv[1], "echo") == 0)
        return play_echo();
    if (strcmp(argv[1], "exit-now") == 0)
        os_exit_now(42);
    if (strcmp(argv[1], "abort") == 0) {
        raise(SIGTERM);
        return 0;
    }
    if (strcmp(argv[1], "sigbus") == 0 && argc == 3)
        return play_sigbus(argv[2]);
    return 99;
}

/* ---- the parent's side ----------------------------------------------------------------------------------------- */

static void start(os_child *c, const char *role, const char *argument)
{
    const char *argv[] = {self, role, argument, NULL};
    err e;
    status s = os_child_start(c, argv, &e);
    if (s != STATUS_OK)
        fail_msg("%s", e.text);
}

static void wait_for_end(os_child *c, char exit_text[64])
{
    uint64_t until = os_now_us() + WAIT_US;
    while (!os_child_ended(c, exit_text)) {
        assert_true(os_now_us() < until);
        os_sleep_us(1000);
    }
}

static void ask(os_child *c, const char *question, char answer[8])
{
    assert_int_equal(os_send_all(c->fd, question, 8, NULL), STATUS_OK);
    assert_int_equal(os_recv_all(c->fd, answer, 8, WAIT_US, NULL), STATUS_OK);
}

static void talk_and_end(void **state)
{
    (void)state;
    os_child c;
    char answer[8], text[64];
    start(&c, "echo", NULL);
    assert_true(c.pid > 0 && c.fd >= 0);
    ask(&c, "12345678", answer);
    assert_memory_equal(answer, "12345678", 8);
    assert_false(os_child_ended(&c, text));
    assert_int_equal(os_send_all(c.fd, "quit....", 8, NULL), STATUS_OK);
    wait_for_end(&c, text);
    assert_string_equal(text, "exit 3");
    assert_true(os_child_ended(&c, text)); /* asked again */
    assert_string_equal(text, "exit 3");
    os_child_kill(&c); /* harmless */
    os_child_close(&c);
    os_child_close(&c);
    assert_int_equal(c.fd, -1);
}

static void ends_of_all_kinds(void **state)
{
    (void)state;
    os_child c;
    char text[64], answer[8];
    start(&c, "exit-now", NULL);
    wait_for_end(&c, text);
    assert_string_equal(text, "exit 42");
    assert_int_equal(os_recv_all(c.fd, answer, 1, WAIT_US, NULL), STATUS_CLOSED);
    os_child_close(&c);
    start(&c, "abort", NULL);
    wait_for_end(&c, text);
    assert_string_equal(text, "signal 15 (Terminated)");
    os_child_close(&c);
    start(&c, "echo", NULL);
    os_child_kill(&c);
    assert_true(os_child_ended(&c, text));
    assert_string_equal(text, "signal 9 (Killed)");
    assert_int_equal(os_recv_all(c.fd, answer, 1, WAIT_US, NULL), STATUS_CLOSED);
    os_child_close(&c);
    start(&c, "echo", NULL); /* its parent goes: the child sees the end of its socket */
    os_child_close(&c);
    wait_for_end(&c, text);
    assert_string_equal(text, "exit 5");
}

static void only_four_descriptors(void **state)
{
    (void)state;
    os_child c, other;
    char answer[8];
    int high = fcntl(0, F_DUPFD, 700), low = open("/dev/null", O_RDONLY); /* not close-on-exec */
    assert_true(high >= 700 && low >= 0);
    start(&other, "echo", NULL);
    start(&c, "echo", NULL);
    ask(&c, "fds.....", answer);
    assert_string_equal(answer, "15");
    close(high);
    close(low);
    /* The first child's socket is not in the second: its end is seen at once. */
    os_child_close(&other);
    char text[64];
    wait_for_end(&other, text);
    assert_string_equal(text, "exit 5");
    os_child_kill(&c);
    os_child_close(&c);
}

static void descriptor_three_is_free(void **state)
{
    (void)state;
    /* With 0 to 3 taken or free in the parent the pairs get other numbers; the child sees no difference. */
    int saved = fcntl(0, F_DUPFD_CLOEXEC, 50);
    close(0);
    os_child c;
    char answer[8];
    start(&c, "echo", NULL);
    ask(&c, "fds.....", answer);
    assert_string_equal(answer, "15");
    dup2(saved, 0);
    close(saved);
    os_child_kill(&c);
    os_child_close(&c);
}

static void signals_are_as_new(void **state)
{
    (void)state;
    sigset_t block, before;
    sigfillset(&block);
    sigdelset(&block, SIGCHLD);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_SETMASK, &block, &before);
    os_child c;
    char answer[8];
    start(&c, "echo", NULL);
    ask(&c, "signals.", answer);
    sigset_t after;
    sigprocmask(SIG_SETMASK, &before, &after);
    assert_int_equal(sigismember(&after, SIGTERM), 1); /* and the parent's mask came back */
    assert_int_equal(sigismember(&after, SIGCHLD), 0);
    assert_string_equal(answer, "0");
    os_child_kill(&c);
    os_child_close(&c);
}

static void what_cannot_be_started(void **state)
{
    (void)state;
    os_child c = {.pid = 7, .fd = 8};
    err e;
    const char *missing[] = {"/no/such/program", NULL}, *not_one[] = {"/etc/passwd", NULL};
    assert_int_equal(os_child_start(&c, missing, &e), STATUS_NOT_FOUND);
    assert_non_null(strstr(e.text, "/no/such/program"));
    assert_int_equal(os_child_start(&c, not_one, &e), STATUS_DENIED);
    assert_int_equal(c.pid, 7);
    assert_int_equal(c.fd, 8);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing is left behind */
    assert_int_equal(errno, ECHILD);
}

static atomic_bool stop_threads;

static void allocate(void *context)
{
    (void)context;
    while (!atomic_load(&stop_threads)) {
        void *p = base_alloc(100); /* a fork may fall into the allocator's lock */
        base_free(p);
    }
}

static void start_and_kill(void *context)
{
    atomic_int *good = context;
    for (int i = 0; i < 10; i++) {
        os_child c;
        char answer[8];
        start(&c, "echo", NULL);
        if (os_send_all(c.fd, "12345678", 8, NULL) == STATUS_OK &&
            os_recv_all(c.fd, answer, 8, WAIT_US, NULL) == STATUS_OK)
            atomic_fetch_add(good, 1);
        os_child_kill(&c);
        os_child_close(&c);
    }
}

static void from_many_threads(void **state)
{
    (void)state;
    os_thread *threads[6];
    atomic_int good = 0;
    atomic_store(&stop_threads, false);
    for (int i = 0; i < 6; i++)
        assert_int_equal(os_thread_create(&threads[i], i < 2 ? allocate : start_and_kill, &good,
                                          "starter", NULL),
                         STATUS_OK);
    for (int i = 5; i >= 0; i--) {
        if (i == 1)
            atomic_store(&stop_threads, true);
        os_thread_join(threads[i]);
    }
    assert_int_equal(atomic_load(&good), 40);
}

static void sigbus_says_why(void **state)
{
    (void)state;
    char path[] = "/tmp/shoal-test-sigbus-XXXXXX", text[64], output[256] = "";
    int fd = mkstemp(path), pipe_fds[2], saved = dup(STDERR_FILENO);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 100000), 0);
    close(fd);
    assert_int_equal(pipe(pipe_fds), 0);
    dup2(pipe_fds[1], STDERR_FILENO);
    os_child c;
    start(&c, "sigbus", path);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(pipe_fds[1]);
    wait_for_end(&c, text);
    ssize_t n = read(pipe_fds[0], output, sizeof output - 1);
    assert_string_equal(text, "exit 9");
    assert_true(n > 0);
    assert_non_null(strstr(output, "the file shrank\n"));
    close(pipe_fds[0]);
    os_child_close(&c);
    unlink(path);
}

static void end_signals_become_bytes(void **state)
{
    (void)state;
    int fd = -1, again = -1;
    char byte;
    assert_int_equal(os_signal_fd(&fd, NULL), STATUS_OK);
    assert_int_equal(os_signal_fd(&again, NULL), STATUS_OK);
    assert_int_equal(fd, again);
    raise(SIGTERM);
    assert_int_equal(os_recv_all(fd, &byte, 1, WAIT_US, NULL), STATUS_OK);
    assert_int_equal(byte, SIGTERM);
    raise(SIGINT);
    assert_int_equal(os_recv_all(fd, &byte, 1, WAIT_US, NULL), STATUS_OK);
    assert_int_equal(byte, SIGINT);
    for (int i = 0; i < 100000; i++) /* a full pipe neither blocks nor ends us */
        raise(SIGTERM);
    raise(SIGPIPE);
    uint64_t limit = 0;
    assert_true(os_raise_descriptor_limit(&limit));
    assert_true(limit >= 256);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return play(argc, argv);
    if (os_self_path(self, sizeof self, NULL) != STATUS_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(talk_and_end),
        cmocka_unit_test(ends_of_all_kinds),
        cmocka_unit_test(only_four_descriptors),
        cmocka_unit_test(descriptor_three_is_free),
        cmocka_unit_test(signals_are_as_new),
        cmocka_unit_test(what_cannot_be_started),
        cmocka_unit_test(from_many_threads),
        cmocka_unit_test(sigbus_says_why),
        cmocka_unit_test(end_signals_become_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
