/*
 * os: the only code of shoal that knows which operating system it runs on (Linux, macOS). Files and mappings, big memory,
 * threads and the fork-join pool, clocks (real and virtual), CPU features, child processes, sockets.
 *
 * Threads: every function is thread-safe on different objects. Paths are UTF-8 C strings. Times are microseconds.
 * Not here: HTTP, TLS, event loops (src/http, src/link), anything about models.
 */
#ifndef SHOAL_OS_H
#define SHOAL_OS_H

#include "base/base.h"

/* ---- files ----------------------------------------------------------------------------------------------------- */

/* A read-only mapping of a whole file. A file truncated under us raises SIGBUS on access: see os_sigbus_exit. */
typedef struct os_mapping {
    const unsigned char *data;
    uint64_t bytes;
} os_mapping;

status os_map_file(os_mapping *out, const char *path,
                   err *e); /* regular files only; an empty file gives data NULL, bytes 0 */
void os_unmap_file(os_mapping *m);
/* The range will not be needed again: the kernel may drop its pages from this process. */
void os_mapping_forget(const os_mapping *m, uint64_t offset, uint64_t bytes);

/* Whole small file into heap memory (base_free), NUL after the end; larger than limit: TOO_LARGE. path "-" reads stdin. */
status os_read_file(char **out, size_t *out_length, const char *path, uint64_t limit, err *e);
/* Temporary file beside it, fsync, rename: readers see the old or the new content. mode like 0600. */
status os_write_file(const char *path, const void *bytes, size_t n, unsigned mode, err *e);
status os_make_dirs(const char *path, unsigned mode, err *e); /* mkdir -p */
bool os_is_dir(const char *path);
bool os_is_file(const char *path);
status os_file_size(uint64_t *out, const char *path, err *e);
status os_free_disk(uint64_t *out_bytes, const char *path, err *e);

typedef struct os_dir_entry {
    const char *name; /* valid during the call */
    bool is_dir, is_file;
} os_dir_entry;
/* Calls visit for every entry but . and .., sorted by name; stops when it returns something other than OK and returns that. */
status os_list_dir(const char *path, status (*visit)(void *context, const os_dir_entry *entry),
                   void *context, err *e);

/* An advisory lock on a file (made when missing), held until release or process end. Held by someone else: BUSY, and the text that
 * holder wrote (its first line) is in e. */
typedef struct os_lock {
    int fd;
} os_lock;
status os_lock_acquire(os_lock *out, const char *path, const char *holder_text, err *e);
void os_lock_release(os_lock *l);

/* XDG folders with "/shoal" behind; buffer cut never: TOO_LONG. kind: "config", "data", "state", "cache". No HOME: error. */
status os_user_dir(char *out, size_t out_bytes, const char *kind, err *e);
status os_self_path(char *out, size_t out_bytes, err *e); /* of the running binary */

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* Anonymous zeroed memory, 2 MiB aligned and advised for huge pages when bytes ≥ 2 MiB. Not touched yet. */
status os_slab_create(void **out, uint64_t bytes, err *e);
void os_slab_destroy(void *p, uint64_t bytes);
/* A part of a slab that nobody needs any more: the whole pages in it go back to the system; what it holds is undefined from here on. */
void os_slab_forget(void *part, uint64_t bytes);
typedef struct os_memory_info {
    uint64_t total_bytes,
        available_bytes; /* of the machine, or of its cgroup when that is smaller */
} os_memory_info;
status os_memory(os_memory_info *out, err *e);
uint64_t os_resident_bytes(void);      /* anonymous + shared + mapped pages of this process now */
uint64_t os_peak_resident_bytes(void); /* their high-water mark */
uint64_t os_page_bytes(void);

/* ---- CPU ------------------------------------------------------------------------------------------------------- */

enum {
    OS_CPU_AVX2 = 1 << 0,   /* with FMA and F16C */
    OS_CPU_AVX512 = 1 << 1, /* F, BW, VL, DQ */
    OS_CPU_AVX512_VNNI = 1 << 2,
    OS_CPU_AVX_VNNI = 1 << 3,
    OS_CPU_NEON = 1 << 4,
    OS_CPU_DOTPROD = 1 << 5,
    OS_CPU_I8MM = 1 << 6
};
unsigned os_cpu_features(void);
int os_cpu_count(void);                 /* usable by this process: affinity and cgroup quota */
const char *os_cpu_name(void);          /* "Intel(R) Xeon(R) Processor" */
uint64_t os_cpu_last_level_cache(void); /* bytes, 0 unknown */

/* ---- clocks ---------------------------------------------------------------------------------------------------- */

uint64_t os_now_us(void);        /* monotonic */
uint64_t os_unix_us(void);       /* wall clock */
uint64_t os_thread_cpu_us(void); /* CPU time of the calling thread */
void os_sleep_us(uint64_t us);
/* Stays awake until what was done since began_us (os_now_us) was only `pace` of the time, above 0 and up to 1: as if the machine were slower. */
void os_keep_pace(uint64_t began_us, double pace);
/* How often this thread (macOS: this process) had to leave its core to another: when it grows, spinning is not for free. */
uint64_t os_thread_preemptions(void);
/* How long this thread was kept from running by others in all; UINT64_MAX where the system does not say. Costs some microseconds. */
uint64_t os_thread_delay_us(void);

/* A clock that a test can move. NULL where a clock is taken means the real one. */
typedef struct os_clock {
    uint64_t (*now_us)(struct os_clock *c);
} os_clock;
typedef struct os_virtual_clock {
    os_clock clock;
    uint64_t us;
} os_virtual_clock;
void os_virtual_clock_init(os_virtual_clock *c, uint64_t start_us);
uint64_t os_clock_now(os_clock *c);

/* ---- threads --------------------------------------------------------------------------------------------------- */

typedef struct os_thread os_thread;
status os_thread_create(os_thread **out, void (*run)(void *context), void *context,
                        const char *name, err *e); /* 1 MiB of stack */
void os_thread_join(os_thread *t);                 /* waits and frees */

typedef struct os_mutex os_mutex;
typedef struct os_cond os_cond;
status os_mutex_create(os_mutex **out, err *e);
void os_mutex_destroy(os_mutex *m);
void os_mutex_lock(os_mutex *m);
void os_mutex_unlock(os_mutex *m);
status os_cond_create(os_cond **out, err *e);
void os_cond_destroy(os_cond *c);
void os_cond_signal(os_cond *c);
void os_cond_broadcast(os_cond *c);
void os_cond_wait(os_cond *c, os_mutex *m);
bool os_cond_wait_us(os_cond *c, os_mutex *m, uint64_t timeout_us); /* false: the time passed */

/* The fork-join pool that runs kernels: n_threads − 1 workers and the caller. Workers spin some microseconds, then sleep. Each thread has
 * a contiguous share and then helps the others, chunk by chunk, so a worker that is being starved takes none. One caller at a time (any
 * thread). Where the system allows it, threads are moved between the cores that the creating thread may use, so that none is waited for
 * while it is preempted; the caller's own affinity is as before when os_pool_run returns. With n_threads 1 all runs inline. */
typedef struct os_pool os_pool;
typedef void (*os_pool_task)(void *context, int64_t begin, int64_t end, int worker);
status os_pool_create(os_pool **out, int n_threads, err *e);
void os_pool_destroy(os_pool *p);
int os_pool_threads(const os_pool *p);
/* Calls task over [0, n) in pieces of `chunk` (the last may be shorter; all begin at a multiple of it; a run that is one chunk, and a
 * pool of one thread, run inline); returns when all are done. worker is 0..threads−1, unique among those running; 0 is the caller. Not
 * from inside a task. A dispatch costs about a microsecond. */
void os_pool_run(os_pool *p, os_pool_task task, void *context, int64_t n, int64_t chunk);
/* The same in pieces that become smaller towards the end of a share, so that the threads end together: most × chunk, then halves of what
 * is left, down to one chunk. */
void os_pool_run_shrinking(os_pool *p, os_pool_task task, void *context, int64_t n, int64_t chunk,
                           int64_t most);

/* ---- processes ------------------------------------------------------------------------------------------------- */

typedef struct os_child {
    int pid;
    int fd;     /* our end of a SOCK_STREAM pair; the child finds its own in fd 3 */
    bool ended; /* and reaped */
    int wait_status;
} os_child;
/* argv[0] is the program's path, argv ends in NULL. stdin is /dev/null, stdout and stderr are ours, other descriptors are closed and
 * signals at their defaults in the child. A program that cannot be executed is an error here. */
status os_child_start(os_child *out, const char *const *argv, err *e);
/* Has it ended? Then exit_text gets "exit 3" or "signal 9 (Killed)", every time it is asked, also after os_child_kill. */
bool os_child_ended(os_child *c, char exit_text[64]);
void os_child_kill(os_child *c);  /* SIGKILL, and reaps */
void os_child_close(os_child *c); /* closes fd */
void os_exit_now(int code);       /* _exit: no handlers, for watch-dog threads */

/* After this a SIGBUS writes `message` to stderr and ends the process with code 9. For ranks. */
void os_sigbus_exit(const char *message);
/* SIGPIPE ignored; SIGINT and SIGTERM write one byte to the returned descriptor (readable end). */
status os_signal_fd(int *out_fd, err *e);
/* SIGINT and SIGTERM do nothing to this process: a terminal or a service manager sends them to a whole group, and a rank ends when its
 * node closes the socket, not before. */
void os_ignore_interrupts(void);
bool os_raise_descriptor_limit(uint64_t *out_limit);

/* ---- sockets and pipes ----------------------------------------------------------------------------------------- */

/* Blocking, whole-message I/O on a stream descriptor. A peer that is gone: CLOSED. timeout_us 0 = wait for ever. */
status os_send_all(int fd, const void *bytes, size_t n, err *e);
status os_recv_all(int fd, void *bytes, size_t n, uint64_t timeout_us, err *e);
status os_set_nonblocking(int fd, bool on, err *e);
void os_close(int fd);
status os_random(void *bytes, size_t n, err *e);
const char *os_host_name(char out[256]);
/* "nginx, pid 4711" for whoever listens on a TCP port of this machine; false: not known. For messages only. */
bool os_port_holder(char *out, size_t out_bytes, int port);
bool os_is_terminal(int fd);
bool os_is_socket(int fd);
int os_terminal_columns(int fd); /* 80 when unknown */

/* ---- TCP, descriptors, shared memory ---------------------------------------------------------------------------- */

/* Stream sockets that never block, without Nagle's delay, with keep-alives that notice a lost machine within seconds. port of listen in:
 * 0 = any; out: the one it got. host: a name or an address. */
status os_tcp_listen(int *out_fd, const char *host, uint16_t *port, err *e);
status os_tcp_accept(int *out_fd, int listen_fd, uint64_t timeout_us, err *e);
status os_tcp_connect(int *out_fd, const char *host, uint16_t port, uint64_t timeout_us, err *e);
status os_socket_pair(int out[2], err *e); /* of this host, not blocking */

/* What goes at once: 0 bytes means later. The other side is gone: CLOSED. */
status os_try_send(int fd, const void *bytes, size_t n, size_t *sent, err *e);
status os_try_recv(int fd, void *bytes, size_t n, size_t *got, err *e);

typedef struct os_interest {
    int fd;
    bool read, write; /* wanted */
    bool ready;       /* out: one of them, or the connection is gone */
} os_interest;
/* Until one is ready or the time has passed (which is no error). timeout_us 0: only looks. */
status os_wait_any(os_interest *interests, size_t n, uint64_t timeout_us, err *e);

/* Copies of descriptors travel through a socket of this host, with one byte; receiving waits, 0 = for ever. Received ones close on exec. */
status os_send_descriptors(int socket_fd, const int *fds, int n, err *e);
status os_recv_descriptors(int socket_fd, int *fds, int n, uint64_t timeout_us, err *e);

/* Memory without a name that processes share through its descriptor; zeroed; on Linux its size is sealed. */
status os_shared_create(int *out_fd, uint64_t bytes, err *e);
status os_shared_map(void **out, uint64_t *out_bytes, int fd, err *e);
void os_shared_unmap(void *p, uint64_t bytes);

#endif
