/*
 * TCP sockets that never block, waiting for several descriptors, descriptors through sockets, memory shared by descriptor.
 * Not here: whole messages (socket.c), TLS and framing (src/link), HTTP (src/http), name services of our own.
 */
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* macOS: SO_NOSIGPIPE, set in tune */
#endif

#define MAX_WAITED      256
#define MAX_DESCRIPTORS 16
#define LOST_AFTER_S    3 /* keep-alive and unacknowledged data */

static bool is_gone(int number)
{
    return number == EPIPE || number == ECONNRESET || number == ESHUTDOWN || number == ENOTCONN ||
           number == ETIMEDOUT || number == EHOSTUNREACH || number == ENETDOWN;
}

static void set_option(int fd, int level, int name, int value)
{
    (void)setsockopt(fd, level, name, &value, sizeof value); /* a refusal costs speed only */
}

static status make_quiet(int fd, err *e)
{
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return err_errno(e, errno, "descriptor %d", fd);
#ifdef SO_NOSIGPIPE
    set_option(fd, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
    return os_set_nonblocking(fd, true, e);
}

static status tune(int fd, err *e)
{
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
#else
    set_option(fd, IPPROTO_TCP, TCP_KEEPALIVE, 1);
#endif
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, LOST_AFTER_S - 1);
#ifdef TCP_USER_TIMEOUT
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, LOST_AFTER_S * 1000);
#endif
    return make_quiet(fd, e);
}

static status resolve(struct addrinfo **out, const char *host, uint16_t port, bool passive, err *e)
{
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0)};
    int problem = getaddrinfo(host, service, &hints, out);
    if (problem != 0)
        return err_set(e, STATUS_NOT_FOUND, "%s: %s", host, gai_strerror(problem));
    return STATUS_OK;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n) != 0)
        return 0;
    if (a.ss_family == AF_INET6) {
        struct sockaddr_in6 six;
        memcpy(&six, &a, sizeof six);
        return ntohs(six.sin6_port);
    }
    struct sockaddr_in four;
    memcpy(&four, &a, sizeof four);
    return ntohs(four.sin_port);
}

status os_tcp_listen(int *out_fd, const char *host, uint16_t *port, err *e)
{
    struct addrinfo *found;
    status s = resolve(&found, host, *port, true, e);
    if (s != STATUS_OK)
        return s;
    int fd = socket(found->ai_family, SOCK_STREAM, 0);
    if (fd < 0) {
        s = err_errno(e, errno, "a socket");
        goto out;
    }
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 128) != 0)
        s = err_errno(e, errno, "listening on %s port %u", host, *port);
    else
        s = make_quiet(fd, e);
    if (s == STATUS_OK) {
        *port = port_of(fd);
        *out_fd = fd;
    } else {
        close(fd);
    }
out:
    freeaddrinfo(found);
    return s;
}

status os_wait_any(os_interest *interests, size_t n, uint64_t timeout_us, err *e)
{
    struct pollfd polled[MAX_WAITED];
    if (n > MAX_WAITED)
        return err_set(e, STATUS_TOO_LARGE, "waiting for %zu descriptors, at most %d", n,
                       MAX_WAITED);
    for (size_t i = 0; i < n; i++) {
        polled[i] = (struct pollfd){.fd = interests[i].fd};
        polled[i].events =
            (short)((interests[i].read ? POLLIN : 0) | (interests[i].write ? POLLOUT : 0));
        interests[i].ready = false;
    }
    uint64_t ms = timeout_us / 1000 + (timeout_us % 1000 != 0);
    int found = poll(polled, (nfds_t)n, (int)BASE_MIN(ms, UINT64_C(60000)));
    if (found < 0 && errno != EINTR)
        return err_errno(e, errno, "poll");
    for (size_t i = 0; found > 0 && i < n; i++)
        interests[i].ready = polled[i].revents != 0;
    return STATUS_OK;
}

/* One descriptor, waiting on through interruptions. */
static status wait_one(int fd, bool for_writing, uint64_t timeout_us, err *e)
{
    uint64_t until = timeout_us ? os_now_us() + BASE_MIN(timeout_us, UINT64_C(1) << 52) : 0;
    for (;;) {
        os_interest i = {.fd = fd, .read = !for_writing, .write = for_writing};
        uint64_t now = os_now_us();
        if (until && now >= until)
            return err_set(e, STATUS_TIMEOUT, "nothing within %llu us",
                           (unsigned long long)timeout_us);
        status s = os_wait_any(&i, 1, until ? until - now : 60000000, e);
        if (s != STATUS_OK || i.ready)
            return s;
    }
}

status os_tcp_accept(int *out_fd, int listen_fd, uint64_t timeout_us, err *e)
{
    for (;;) {
        status s = wait_one(listen_fd, false, timeout_us, e);
        if (s != STATUS_OK)
            return err_wrap(e, "accepting a connection");
        int fd = accept(listen_fd, NULL, NULL);
        if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
            continue; /* it gave up before we came */
        if (fd < 0)
            return err_errno(e, errno, "accepting a connection");
        s = tune(fd, e);
        if (s != STATUS_OK) {
            close(fd);
            return s;
        }
        *out_fd = fd;
        return STATUS_OK;
    }
}

static status connect_to(int *out_fd, const struct addrinfo *a, uint64_t timeout_us, err *e)
{
    int problem = 0;
    socklen_t n = sizeof problem;
    int fd = socket(a->ai_family, SOCK_STREAM, 0);
    if (fd < 0)
        return err_errno(e, errno, "a socket");
    status s = tune(fd, e);
    if (s == STATUS_OK && connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
        if (errno != EINPROGRESS && errno != EINTR)
            problem = errno;
        else if ((s = wait_one(fd, true, timeout_us, e)) == STATUS_OK)
            (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &n);
    }
    if (s == STATUS_OK && problem)
        s = err_errno(e, problem, "refused");
    if (s != STATUS_OK) {
        close(fd);
        return s;
    }
    *out_fd = fd;
    return STATUS_OK;
}

status os_tcp_connect(int *out_fd, const char *host, uint16_t port, uint64_t timeout_us, err *e)
{
    struct addrinfo *found;
    status s = resolve(&found, host, port, false, e);
    if (s != STATUS_OK)
        return s;
    for (struct addrinfo *a = found; a; a = a->ai_next) {
        s = connect_to(out_fd, a, timeout_us, e);
        if (s == STATUS_OK)
            break;
    }
    freeaddrinfo(found);
    return s == STATUS_OK ? s : err_wrap(e, "connecting to %s port %u", host, port);
}

status os_socket_pair(int out[2], err *e)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
        return err_errno(e, errno, "a pair of sockets");
    status s = make_quiet(fds[0], e);
    if (s == STATUS_OK)
        s = make_quiet(fds[1], e);
    if (s != STATUS_OK) {
        close(fds[0]);
        close(fds[1]);
        return s;
    }
    memcpy(out, fds, sizeof fds);
    return STATUS_OK;
}

status os_try_send(int fd, const void *bytes, size_t n, size_t *sent, err *e)
{
    *sent = 0;
    ssize_t done = send(fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (done >= 0)
        *sent = (size_t)done;
    else if (is_gone(errno))
        return err_set(e, STATUS_CLOSED, "the other side is gone");
    else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR && errno != ENOBUFS)
        return err_errno(e, errno, "sending %zu bytes", n);
    return STATUS_OK;
}

status os_try_recv(int fd, void *bytes, size_t n, size_t *got, err *e)
{
    *got = 0;
    ssize_t done = recv(fd, bytes, n, MSG_DONTWAIT);
    if (done > 0)
        *got = (size_t)done;
    else if (n > 0 && (done == 0 || is_gone(errno)))
        return err_set(e, STATUS_CLOSED, "the other side is gone");
    else if (done < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        return err_errno(e, errno, "receiving");
    return STATUS_OK;
}

/* ---- descriptors ----------------------------------------------------------------------------------------------- */

typedef union control {
    struct cmsghdr header; /* aligns */
    char bytes[CMSG_SPACE(sizeof(int) * MAX_DESCRIPTORS)];
} control;

status os_send_descriptors(int socket_fd, const int *fds, int n, err *e)
{
    REQUIRE(n > 0 && n <= MAX_DESCRIPTORS);
    char mark = 'd';
    struct iovec part = {&mark, 1};
    control c;
    memset(&c, 0, sizeof c);
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = c.bytes,
                       .msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n)};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n);
    memcpy(CMSG_DATA(h), fds, sizeof(int) * (size_t)n);
    for (;;) {
        if (sendmsg(socket_fd, &m, MSG_NOSIGNAL) == 1)
            return STATUS_OK;
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            status s = wait_one(socket_fd, true, 0, e);
            if (s != STATUS_OK)
                return s;
        } else if (is_gone(errno)) {
            return err_set(e, STATUS_CLOSED, "sending descriptors: the other side is gone");
        } else if (errno != EINTR) {
            return err_errno(e, errno, "sending descriptors");
        }
    }
}

/* Takes what came in m; anything but exactly n descriptors is closed again and refused. */
static status take_descriptors(int *fds, int n, struct msghdr *m, err *e)
{
    int found[MAX_DESCRIPTORS], n_found = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && n_found < MAX_DESCRIPTORS; i++)
            memcpy(&found[n_found++], CMSG_DATA(h) + i * sizeof(int), sizeof(int));
    }
    if (n_found != n || (m->msg_flags & MSG_CTRUNC)) {
        for (int i = 0; i < n_found; i++)
            close(found[i]);
        return err_set(e, STATUS_CORRUPT, "%d descriptors came, expected %d", n_found, n);
    }
    for (int i = 0; i < n; i++)
        (void)fcntl(found[i], F_SETFD, FD_CLOEXEC);
    memcpy(fds, found, sizeof(int) * (size_t)n);
    return STATUS_OK;
}

status os_recv_descriptors(int socket_fd, int *fds, int n, uint64_t timeout_us, err *e)
{
    REQUIRE(n > 0 && n <= MAX_DESCRIPTORS);
    for (;;) {
        status s = wait_one(socket_fd, false, timeout_us, e);
        if (s != STATUS_OK)
            return err_wrap(e, "receiving descriptors");
        char mark;
        struct iovec part = {&mark, 1};
        control c;
        struct msghdr m = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = c.bytes,
                           .msg_controllen = sizeof c.bytes};
        ssize_t got = recvmsg(socket_fd, &m, 0);
        if (got == 1)
            return take_descriptors(fds, n, &m, e);
        if (got == 0 || (got < 0 && is_gone(errno)))
            return err_set(e, STATUS_CLOSED, "receiving descriptors: the other side is gone");
        if (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK)
            return err_errno(e, errno, "receiving descriptors");
    }
}

/* ---- shared memory --------------------------------------------------------------------------------------------- */

static int make_shared(void)
{
#ifdef __linux__
    return memfd_create("shoal", MFD_CLOEXEC | MFD_ALLOW_SEALING);
#else
    unsigned long long number;
    char name[32];
    if (os_random(&number, sizeof number, NULL) != STATUS_OK)
        return -1;
    snprintf(name, sizeof name, "/shoal-%016llx", number);
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd >= 0)
        shm_unlink(name);
    return fd;
#endif
}

status os_shared_create(int *out_fd, uint64_t bytes, err *e)
{
    int fd = make_shared();
    if (fd < 0)
        return err_errno(e, errno, "shared memory");
    if (bytes > INT64_MAX || ftruncate(fd, (off_t)bytes) != 0) {
        status s = err_errno(e, bytes > INT64_MAX ? EFBIG : errno, "%llu bytes of shared memory",
                             (unsigned long long)bytes);
        close(fd);
        return s;
    }
#ifdef __linux__
    /* a peer that shrinks it would kill us by SIGBUS */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        status s = err_errno(e, errno, "sealing shared memory");
        close(fd);
        return s;
    }
#endif
    *out_fd = fd;
    return STATUS_OK;
}

status os_shared_map(void **out, uint64_t *out_bytes, int fd, err *e)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return err_errno(e, errno, "descriptor %d", fd);
    if (info.st_size <= 0)
        return err_set(e, STATUS_CORRUPT, "shared memory without size");
    void *p = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return err_errno(e, errno, "mapping %lld bytes", (long long)info.st_size);
    *out = p;
    *out_bytes = (uint64_t)info.st_size;
    return STATUS_OK;
}

void os_shared_unmap(void *p, uint64_t bytes)
{
    if (p)
        munmap(p, (size_t)bytes);
}
