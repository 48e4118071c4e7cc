/*
 * Child processes, signals, limits of this process.
 *
 * A child is made by fork and exec with nothing but async-signal-safe calls between, so a parent with many threads may
 * use it: signals are blocked around the fork (no handler of ours runs in the child), the child puts its socket on
 * descriptor 3 and marks every higher one close-on-exec. Whether exec worked comes back through a pipe that exec closes.
 * Deliberately not: shells, pipes to stdout, process groups, parent-death signals (they fire when the *thread* that
 * forked ends; a child watches descriptor 3 instead).
 */
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/close_range.h>
#include <sys/syscall.h>
#endif

#define CHILD_FD    3
#define EXIT_SIGBUS 9

/* ---- children -------------------------------------------------------------------------------------------------- */

/* In the child: every descriptor from `first` on closes at exec. */
static void close_on_exec_from(int first)
{
#ifdef __linux__
    if (syscall(SYS_close_range, (unsigned)first, ~0u, CLOSE_RANGE_CLOEXEC) == 0)
        return;
#endif
    struct rlimit limit;
    rlim_t end = 65536;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        end = limit.rlim_cur;
    end = BASE_MIN(end, (rlim_t)1 << 20);
    for (int fd = first; (rlim_t)fd < end; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* In the child, before exec: all to their defaults, as a handler or an ignored signal would be inherited or run here. */
static void reset_signals(void)
{
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL); /* fails for SIGKILL and SIGSTOP: no matter */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Runs in the child and does not return. Only async-signal-safe calls. */
BASE_NORETURN static void become(const char *const *argv, int socket_fd, int report_fd)
{
    reset_signals();
    int failure = 0;
    /* Both descriptors above 3 first, so that neither is overwritten. */
    int report = fcntl(report_fd, F_DUPFD_CLOEXEC, CHILD_FD + 1);
    int end = fcntl(socket_fd, F_DUPFD_CLOEXEC, CHILD_FD + 1);
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (report < 0)
        _exit(127);
    if (end < 0 || null_fd < 0 || dup2(end, CHILD_FD) < 0 || dup2(null_fd, 0) < 0)
        failure = errno;
    /* A parent started without stdout or stderr: the child must not get the socket or a file there. */
    for (int fd = 1; failure == 0 && fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && dup2(null_fd, fd) < 0)
            failure = errno;
    if (failure == 0) {
        close_on_exec_from(CHILD_FD + 1);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        failure = errno;
    }
    ssize_t n;
    do
        n = write(report, &failure, sizeof failure);
    while (n < 0 && errno == EINTR);
    _exit(127);
}

static bool close_on_exec(int fd)
{
    return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

/* Two pairs that no other child of ours inherits for long (children close all they do not know). */
static status make_channels(int pair[2], int report[2], err *e)
{
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return err_errno(e, errno, "child process: socket pair");
    if (pipe(report) != 0) {
        int number = errno;
        close(pair[0]);
        close(pair[1]);
        return err_errno(e, number, "child process: pipe");
    }
    if (!close_on_exec(pair[0]) || !close_on_exec(pair[1]) || !close_on_exec(report[0]) ||
        !close_on_exec(report[1])) {
        int number = errno;
        for (int i = 0; i < 2; i++) {
            close(pair[i]);
            close(report[i]);
        }
        return err_errno(e, number, "child process: close on exec");
    }
    return STATUS_OK;
}

static pid_t wait_for(pid_t pid, int *wait_status, int options)
{
    pid_t got;
    do
        got = waitpid(pid, wait_status, options);
    while (got < 0 && errno == EINTR);
    return got;
}

status os_child_start(os_child *out, const char *const *argv, err *e)
{
    int pair[2], report[2];
    status s = make_channels(pair, report, e);
    if (s != STATUS_OK)
        return s;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0)
        become(argv, pair[1], report[1]);
    int number = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(pair[1]);
    close(report[1]);
    if (pid < 0) {
        close(pair[0]);
        close(report[0]);
        return err_errno(e, number, "%s: no new process", argv[0]);
    }
    int failure = 0;
    ssize_t n;
    do
        n = read(report[0], &failure, sizeof failure);
    while (n < 0 && errno == EINTR);
    close(report[0]);
    if (n != 0) { /* exec would have closed the pipe without a word */
        wait_for(pid, NULL, 0);
        close(pair[0]);
        return err_errno(e, n == sizeof failure ? failure : EIO, "%s cannot be started", argv[0]);
    }
#ifdef SO_NOSIGPIPE
    int on = 1;
    setsockopt(pair[0], SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
    *out = (os_child){.pid = (int)pid, .fd = pair[0]};
    return STATUS_OK;
}

static void describe_end(const os_child *c, char exit_text[64])
{
    int w = c->wait_status;
    if (WIFSIGNALED(w))
        snprintf(exit_text, 64, "signal %d (%s)", WTERMSIG(w), strsignal(WTERMSIG(w)));
    else
        snprintf(exit_text, 64, "exit %d", WIFEXITED(w) ? WEXITSTATUS(w) : -1);
}

bool os_child_ended(os_child *c, char exit_text[64])
{
    if (!c->ended) {
        pid_t got = wait_for((pid_t)c->pid, &c->wait_status, WNOHANG);
        if (got == 0)
            return false;
        if (got < 0) /* someone else reaped it: all that is known is that it is gone */
            c->wait_status = 0xff00;
        c->ended = true;
    }
    describe_end(c, exit_text);
    return true;
}

void os_child_kill(os_child *c)
{
    if (c->ended)
        return;
    kill((pid_t)c->pid, SIGKILL); /* not reaped yet, so the number is still this child's */
    if (wait_for((pid_t)c->pid, &c->wait_status, 0) < 0)
        c->wait_status = 0xff00;
    c->ended = true;
}

void os_child_close(os_child *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

void os_exit_now(int code)
{
    _exit(code);
}

/* ---- signals --------------------------------------------------------------------------------------------------- */

static char sigbus_message[256];
static size_t sigbus_length;

static void on_sigbus(int number)
{
    (void)number;
    ssize_t n = write(STDERR_FILENO, sigbus_message, sigbus_length);
    (void)n;
    _exit(EXIT_SIGBUS);
}

void os_sigbus_exit(const char *message)
{
    int n = snprintf(sigbus_message, sizeof sigbus_message, "%s\n", message);
    sigbus_length = n < 0 ? 0 : BASE_MIN((size_t)n, sizeof sigbus_message - 1);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_sigbus;
    sigemptyset(&action.sa_mask);
    int failure = sigaction(SIGBUS, &action, NULL);
    REQUIRE(failure == 0);
}

static int signal_pipe[2] = {-1, -1};

static void on_end_signal(int number)
{
    int before = errno;
    char byte = (char)number;
    ssize_t n =
        write(signal_pipe[1], &byte, 1); /* full: a byte is there already, which is enough */
    (void)n;
    errno = before;
}

status os_signal_fd(int *out_fd, err *e)
{
    if (signal_pipe[0] < 0) {
        int made[2];
        if (pipe(made) != 0)
            return err_errno(e, errno, "signal pipe");
        if (!close_on_exec(made[0]) || !close_on_exec(made[1]) ||
            os_set_nonblocking(made[0], true, NULL) != STATUS_OK ||
            os_set_nonblocking(made[1], true, NULL) != STATUS_OK) {
            close(made[0]);
            close(made[1]);
            return err_set(e, STATUS_INTERNAL, "signal pipe cannot be set up");
        }
        signal_pipe[1] = made[1];
        signal_pipe[0] = made[0];
    }
    struct sigaction action;
    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    action.sa_handler = on_end_signal;
    if (sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGTERM, &action, NULL) != 0)
        return err_errno(e, errno, "signal handlers");
    action.sa_handler = SIG_IGN;
    if (sigaction(SIGPIPE, &action, NULL) != 0)
        return err_errno(e, errno, "signal handlers");
    *out_fd = signal_pipe[0];
    return STATUS_OK;
}

void os_ignore_interrupts(void)
{
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
}

bool os_raise_descriptor_limit(uint64_t *out_limit)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return false;
    rlim_t want = limit.rlim_max;
#ifdef __APPLE__
    want = BASE_MIN(
        want, (rlim_t)10240); /* OPEN_MAX: setrlimit refuses more, even below the hard limit */
#endif
    if (want == RLIM_INFINITY || want > (rlim_t)1 << 20)
        want = (rlim_t)1 << 20;
    bool ok = true;
    if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < want) {
        limit.rlim_cur = want;
        ok = setrlimit(RLIMIT_NOFILE, &limit) == 0;
        if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
            return false;
    }
    *out_limit = limit.rlim_cur;
    return ok;
}
