/*
 * Whole messages over blocking or non-blocking stream descriptors, random bytes, the host's name, the terminal.
 * Not here: listening and connecting (src/http, src/link, src/cluster have their own ways), TLS, datagrams.
 */
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL                                                                               \
    0 /* macOS: SO_NOSIGPIPE on the socket, and SIGPIPE is ignored by os_signal_fd */
#endif

static bool is_gone(int number)
{
    return number == EPIPE || number == ECONNRESET || number == ESHUTDOWN || number == ENOTCONN;
}

/* Until fd is ready for `events` or `until` has passed (0: for ever). */
static status wait_ready(int fd, short events, uint64_t until, err *e)
{
    for (;;) {
        int timeout_ms = -1;
        if (until) {
            uint64_t now = os_now_us();
            if (now >= until)
                return err_set(e, STATUS_TIMEOUT, "nothing came in time");
            uint64_t ms = (until - now + 999) / 1000;
            timeout_ms = (int)BASE_MIN(ms, (uint64_t)60000);
        }
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, timeout_ms);
        if (n > 0)
            return p.revents & POLLNVAL ? err_errno(e, EBADF, "descriptor %d", fd) : STATUS_OK;
        if (n < 0 && errno != EINTR)
            return err_errno(e, errno, "poll");
    }
}

status os_send_all(int fd, const void *bytes, size_t n, err *e)
{
    const char *at = bytes;
    size_t left = n;
    bool is_socket = true;
    while (left > 0) {
        ssize_t done = is_socket ? send(fd, at, left, MSG_NOSIGNAL) : write(fd, at, left);
        if (done >= 0) {
            at += done;
            left -= (size_t)done;
        } else if (errno == ENOTSOCK && is_socket) {
            is_socket = false; /* a pipe or a terminal */
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            status s = wait_ready(fd, POLLOUT, 0, e);
            if (s != STATUS_OK)
                return s;
        } else if (is_gone(errno)) {
            return err_set(e, STATUS_CLOSED, "the other side is gone: %zu of %zu bytes sent",
                           n - left, n);
        } else if (errno != EINTR) {
            return err_errno(e, errno, "sending %zu bytes", n);
        }
    }
    return STATUS_OK;
}

status os_recv_all(int fd, void *bytes, size_t n, uint64_t timeout_us, err *e)
{
    char *at = bytes;
    size_t left = n;
    uint64_t until = timeout_us ? os_now_us() + BASE_MIN(timeout_us, UINT64_C(1) << 52) : 0;
    while (left > 0) {
        status s = wait_ready(fd, POLLIN, until, e);
        if (s == STATUS_TIMEOUT)
            return err_set(e, s, "%zu of %zu bytes came in %llu us", n - left, n,
                           (unsigned long long)timeout_us);
        if (s != STATUS_OK)
            return s;
        ssize_t got = read(fd, at, left);
        if (got > 0) {
            at += got;
            left -= (size_t)got;
        } else if (got == 0 || is_gone(errno)) {
            return err_set(e, STATUS_CLOSED, "the other side is gone: %zu of %zu bytes came",
                           n - left, n);
        } else if (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK) {
            return err_errno(e, errno, "receiving %zu bytes", n);
        }
    }
    return STATUS_OK;
}

status os_set_nonblocking(int fd, bool on, err *e)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0)
        return err_errno(e, errno, "descriptor %d", fd);
    return STATUS_OK;
}

void os_close(int fd)
{
    if (fd >= 0)
        close(fd); /* not repeated on EINTR: the descriptor is gone even then */
}

status os_random(void *bytes, size_t n, err *e)
{
    unsigned char *at = bytes;
    while (n > 0) {
        size_t part = BASE_MIN(
            n, (size_t)256); /* getentropy's limit; up to here getrandom never gives less */
#ifdef __linux__
        ssize_t got = getrandom(at, part, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(e, errno, "no random bytes");
        part = (size_t)got;
#else
        if (getentropy(at, part) != 0)
            return err_errno(e, errno, "no random bytes");
#endif
        at += part;
        n -= part;
    }
    return STATUS_OK;
}

const char *os_host_name(char out[256])
{
    if (gethostname(out, 255) != 0)
        memcpy(out, "localhost", sizeof "localhost");
    out[255] = 0;
    if (!out[0])
        memcpy(out, "localhost", sizeof "localhost");
    return out;
}

bool os_is_socket(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode);
}

bool os_is_terminal(int fd)
{
    return isatty(fd) == 1;
}

int os_terminal_columns(int fd)
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}
