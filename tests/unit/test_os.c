/*
 * os without pool and processes: files and their failures, folders, locks, slabs, cgroup limits from made-up trees, CPU,
 * clocks, threads and condition variables, whole-message I/O.
 */
#include "os/cgroup.h"
#include "os/os.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[256]; /* of this run */

/* One of four buffers, so that a call may use several. */
static const char *in_folder(const char *name)
{
    static char paths[4][512];
    static int at;
    at = (at + 1) % 4;
    snprintf(paths[at], sizeof paths[at], "%s/%s", folder, name);
    return paths[at];
}

static void put(const char *path, const char *text)
{
    assert_int_equal(os_write_file(path, text, strlen(text), 0600, NULL), STATUS_OK);
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

static status collect_name(void *context, const os_dir_entry *entry)
{
    sb *names = context;
    sb_printf(names, "%s%s ", entry->name, entry->is_dir ? "/" : entry->is_file ? "" : "?");
    return strcmp(entry->name, "stop") == 0 ? STATUS_CANCELLED : STATUS_OK;
}

static char *names_in(const char *path, status expected)
{
    sb names;
    sb_init(&names);
    assert_int_equal(os_list_dir(path, collect_name, &names, NULL), expected);
    return sb_take(&names);
}

static void write_and_read(void **state)
{
    (void)state;
    const char *path = in_folder("a file");
    char *text = NULL;
    size_t length = 0;
    struct stat st;
    err e;
    assert_int_equal(os_write_file(path, "one\0two", 7, 0640, &e), STATUS_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(os_read_file(&text, &length, path, 7, &e), STATUS_OK);
    assert_int_equal(length, 7);
    assert_memory_equal(text, "one\0two", 8); /* and the NUL */
    base_free(text);
    text = NULL;
    assert_int_equal(os_read_file(&text, &length, path, 6, &e), STATUS_TOO_LARGE);
    assert_null(text);
    assert_int_equal(os_write_file(path, "", 0, 0600, &e), STATUS_OK);
    assert_int_equal(os_read_file(&text, &length, path, 0, &e), STATUS_OK);
    assert_string_equal(text, "");
    base_free(text);

    uint64_t bytes = 1;
    assert_int_equal(os_file_size(&bytes, path, &e), STATUS_OK);
    assert_int_equal(bytes, 0);
    assert_int_equal(os_file_size(&bytes, folder, &e), STATUS_INVALID);
    assert_int_equal(os_read_file(&text, NULL, in_folder("missing"), 10, &e), STATUS_NOT_FOUND);
    assert_non_null(strstr(e.text, "missing"));
    assert_int_not_equal(os_read_file(&text, NULL, folder, 10, &e), STATUS_OK);
    assert_true(os_is_file(path) && !os_is_dir(path));
    assert_true(os_is_dir(folder) && !os_is_file(folder));
    assert_int_equal(os_free_disk(&bytes, folder, &e), STATUS_OK);
    assert_true(bytes > 0);
    assert_int_equal(os_free_disk(&bytes, in_folder("missing"), &e), STATUS_NOT_FOUND);
    unlink(path);
}

typedef struct rewriting {
    const char *path;
    atomic_bool stop;
    atomic_int failures;
} rewriting;

static void rewrite(void *context)
{
    rewriting *r = context;
    char text[20000];
    for (int i = 0; i < 200; i++) {
        memset(text, 'a' + i % 26, sizeof text);
        if (os_write_file(r->path, text, (size_t)(1 + i * 100), 0600, NULL) != STATUS_OK)
            atomic_fetch_add(&r->failures, 1);
    }
    atomic_store(&r->stop, true);
}

/* A reader beside a writer sees one of the contents, whole. */
static void writes_are_atomic(void **state)
{
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s/atomic", folder);
    rewriting r = {.path = path};
    os_thread *t;
    put(path, "z");
    assert_int_equal(os_thread_create(&t, rewrite, &r, "rewrite", NULL), STATUS_OK);
    while (!atomic_load(&r.stop)) {
        char *text;
        size_t n;
        assert_int_equal(os_read_file(&text, &n, path, 1 << 20, NULL), STATUS_OK);
        assert_true(n == 1 || n % 100 == 1);
        for (size_t i = 1; i < n; i++)
            assert_int_equal(text[i], text[0]);
        base_free(text);
    }
    os_thread_join(t);
    assert_int_equal(atomic_load(&r.failures), 0);
    unlink(path);
    char *names = names_in(folder, STATUS_OK); /* no temporary file stays behind */
    assert_null(strstr(names, "atomic"));
    base_free(names);
}

static void failed_writes_leave_all_as_it_was(void **state)
{
    (void)state;
    err e;
    assert_int_equal(os_write_file(in_folder("missing/x"), "1", 1, 0600, &e), STATUS_NOT_FOUND);
    const char *path = in_folder("taken");
    assert_int_equal(os_make_dirs(path, 0700, &e), STATUS_OK);
    assert_int_not_equal(os_write_file(path, "1", 1, 0600, &e), STATUS_OK); /* a folder is there */
    assert_true(os_is_dir(path));
    char *names = names_in(folder, STATUS_OK);
    assert_null(strstr(names, ".tmp"));
    base_free(names);
    rmdir(path);
    char longer[6000];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = 0;
    assert_int_not_equal(os_write_file(longer, "1", 1, 0600, &e), STATUS_OK);
    assert_int_not_equal(os_make_dirs(longer, 0700, &e), STATUS_OK);
    for (uint64_t n = 1;; n++) { /* the n-th allocation of a read fails */
        char *text = NULL;
        base_fail_after(n);
        status s = os_read_file(&text, NULL, "/proc/self/status", 1 << 20, &e);
        base_fail_after(0);
        if (s == STATUS_OK) {
            base_free(text);
            assert_true(n > 1);
            break;
        }
        assert_int_equal(s, STATUS_NO_MEMORY);
        assert_null(text);
    }
}

static void mappings(void **state)
{
    (void)state;
    err e;
    os_mapping m = {(void *)1, 7};
    const char *path = in_folder("mapped");
    uint64_t page = os_page_bytes();
    size_t n = (size_t)(3 * page + 5);
    char *bytes = base_alloc(n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)(i * 7);
    assert_int_equal(os_map_file(&m, path, &e), STATUS_NOT_FOUND);
    assert_int_equal(m.bytes, 7); /* untouched */
    assert_int_equal(os_map_file(&m, folder, &e), STATUS_INVALID);
    assert_int_equal(os_map_file(&m, "/dev/null", &e), STATUS_INVALID);
    assert_int_equal(os_write_file(path, bytes, n, 0600, NULL), STATUS_OK);
    assert_int_equal(os_map_file(&m, path, &e), STATUS_OK);
    assert_int_equal(m.bytes, n);
    assert_memory_equal(m.data, bytes, n);
    os_mapping_forget(&m, 0, m.bytes); /* forgotten pages come back when read */
    os_mapping_forget(&m, page / 2, page);
    os_mapping_forget(&m, page, UINT64_MAX);
    os_mapping_forget(&m, m.bytes, 1);
    os_mapping_forget(&m, UINT64_MAX, 1);
    assert_memory_equal(m.data, bytes, n);
    os_unmap_file(&m);
    assert_null(m.data);
    os_unmap_file(&m);
    base_free(bytes);
    put(path, "");
    assert_int_equal(os_map_file(&m, path, &e), STATUS_OK);
    assert_null(m.data);
    assert_int_equal(m.bytes, 0);
    os_mapping_forget(&m, 0, 1);
    os_unmap_file(&m);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(os_map_file(&m, path, &e),
                     STATUS_INVALID); /* and does not wait for a writer */
    unlink(path);
}

static void folders(void **state)
{
    (void)state;
    err e;
    char path[512];
    snprintf(path, sizeof path, "%s/deep/er//folder/", folder);
    assert_int_equal(os_make_dirs(path, 0700, &e), STATUS_OK);
    assert_int_equal(os_make_dirs(path, 0700, &e), STATUS_OK); /* again */
    assert_true(os_is_dir(path));
    put(in_folder("deep/b"), "1");
    put(in_folder("deep/a"), "1");
    assert_int_equal(symlink("a", in_folder("deep/link")), 0);
    assert_int_equal(symlink("nowhere", in_folder("deep/dangling")), 0);
    char *names = names_in(in_folder("deep"), STATUS_OK);
    assert_string_equal(names, "a b dangling? er/ link ");
    base_free(names);
    put(in_folder("deep/stop"), "1");
    put(in_folder("deep/zz"), "1");
    names = names_in(in_folder("deep"), STATUS_CANCELLED);
    assert_null(strstr(names, "zz"));
    base_free(names);
    assert_int_equal(os_list_dir(in_folder("none"), collect_name, NULL, &e), STATUS_NOT_FOUND);
    assert_int_equal(os_make_dirs(in_folder("deep/a"), 0700, &e), STATUS_CONFLICT);
    assert_int_not_equal(os_make_dirs(in_folder("deep/a/below"), 0700, &e), STATUS_OK);
    assert_int_equal(os_make_dirs("", 0700, &e), STATUS_INVALID);
    for (uint64_t n = 1;; n++) {
        sb all;
        sb_init(&all);
        assert_true(sb_reserve(&all, 1000));
        base_fail_after(n);
        status s = os_list_dir(in_folder("deep"), collect_name, &all, &e);
        base_fail_after(0);
        sb_fini(&all);
        if (s == STATUS_CANCELLED)
            break;
        assert_int_equal(s, STATUS_NO_MEMORY);
    }
}

static void locks_name_their_holder(void **state)
{
    (void)state;
    err e;
    os_lock first, second;
    const char *path = in_folder("lock");
    assert_int_equal(os_lock_acquire(&first, path, "shoal serve, pid 4711\nmore", &e), STATUS_OK);
    assert_int_equal(os_lock_acquire(&second, path, "another", &e), STATUS_BUSY);
    assert_non_null(strstr(e.text, "shoal serve, pid 4711"));
    assert_null(strstr(e.text, "more"));
    os_lock_release(&first);
    os_lock_release(&first); /* twice is harmless */
    assert_int_equal(os_lock_acquire(&second, path, "", &e), STATUS_OK);
    assert_int_equal(os_lock_acquire(&first, path, "x", &e), STATUS_BUSY);
    assert_non_null(strstr(e.text, "another process"));
    os_lock_release(&second);
    assert_int_equal(os_lock_acquire(&first, in_folder("missing/lock"), "x", &e), STATUS_NOT_FOUND);
    unlink(path);
}

static void user_folders(void **state)
{
    (void)state;
    err e;
    char out[512];
    const char *home = getenv("HOME");
    char *kept = base_strdup(home ? home : "/");
    setenv("HOME", "/home/someone", 1);
    unsetenv("XDG_CONFIG_HOME");
    assert_int_equal(os_user_dir(out, sizeof out, "config", &e), STATUS_OK);
    assert_string_equal(out, "/home/someone/.config/shoal");
    setenv("XDG_CONFIG_HOME", "relative", 1); /* the specification says: ignore */
    assert_int_equal(os_user_dir(out, sizeof out, "config", &e), STATUS_OK);
    assert_string_equal(out, "/home/someone/.config/shoal");
    setenv("XDG_CONFIG_HOME", "/etc/conf", 1);
    assert_int_equal(os_user_dir(out, sizeof out, "config", &e), STATUS_OK);
    assert_string_equal(out, "/etc/conf/shoal");
    unsetenv("XDG_STATE_HOME");
    assert_int_equal(os_user_dir(out, sizeof out, "state", &e), STATUS_OK);
    assert_string_equal(out, "/home/someone/.local/state/shoal");
    assert_int_equal(os_user_dir(out, 8, "state", &e), STATUS_TOO_LONG);
    unsetenv("HOME");
    assert_int_equal(os_user_dir(out, sizeof out, "state", &e), STATUS_NOT_FOUND);
    assert_non_null(strstr(e.text, "HOME"));
    assert_int_equal(os_user_dir(out, sizeof out, "nonsense", &e), STATUS_INVALID);
    setenv("HOME", kept, 1);
    base_free(kept);
    assert_int_equal(os_self_path(out, sizeof out, &e), STATUS_OK);
    assert_true(os_is_file(out));
    assert_non_null(strstr(out, "test_os"));
    assert_int_equal(os_self_path(out, 3, &e), STATUS_TOO_LONG);
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static void slabs(void **state)
{
    (void)state;
    err e;
    static const uint64_t sizes[] = {1, 4096, (2u << 20) - 1, 2u << 20, (2u << 20) + 1, 33u << 20};
    for (size_t i = 0; i < BASE_COUNT(sizes); i++) {
        void *p = NULL;
        assert_int_equal(os_slab_create(&p, sizes[i], &e), STATUS_OK);
        unsigned char *bytes = p;
        assert_int_equal((uintptr_t)p % (sizes[i] >= 2u << 20 ? 2u << 20 : os_page_bytes()), 0);
        for (uint64_t k = 0; k < sizes[i]; k += 1000)
            assert_int_equal(bytes[k], 0);
        bytes[0] = bytes[sizes[i] - 1] = 1;
        os_slab_destroy(p, sizes[i]);
    }
    void *p = NULL;
    assert_int_equal(os_slab_create(&p, 0, &e), STATUS_INVALID);
    assert_int_equal(os_slab_create(&p, UINT64_MAX, &e), STATUS_NO_MEMORY);
    assert_int_equal(os_slab_create(&p, UINT64_C(1) << 60, &e), STATUS_NO_MEMORY);
    assert_null(p);
    os_slab_destroy(NULL, 4096);
}

static void memory_figures(void **state)
{
    (void)state;
    os_memory_info info = {0, 0};
    assert_int_equal(os_memory(&info, NULL), STATUS_OK);
    assert_true(info.total_bytes > 16u << 20);
    assert_true(info.available_bytes > 0 && info.available_bytes <= info.total_bytes);
    uint64_t page = os_page_bytes();
    assert_true(page >= 4096 && (page & (page - 1)) == 0);
    uint64_t before = os_resident_bytes(), bytes = 64u << 20;
    assert_true(before > 0);
    void *p;
    assert_int_equal(os_slab_create(&p, bytes, NULL), STATUS_OK);
    memset(p, 1, bytes);
    assert_true(os_resident_bytes() >= before + bytes - (8u << 20));
    os_slab_destroy(p, bytes);
    assert_true(os_resident_bytes() < before + bytes - (8u << 20));
    assert_true(os_peak_resident_bytes() >= before + bytes - (8u << 20));
}

/* ---- cgroups --------------------------------------------------------------------------------------------------- */

static void make_group(const char *path, const char *const (*files)[2], size_t n)
{
    char full[600];
    assert_int_equal(os_make_dirs(path, 0700, NULL), STATUS_OK);
    for (size_t i = 0; i < n; i++) {
        snprintf(full, sizeof full, "%s/%s", path, files[i][0]);
        put(full, files[i][1]);
    }
}

static void cgroup_version_2(void **state)
{
    (void)state;
    char root[512], self[512], path[560];
    snprintf(root, sizeof root, "%s/cg2", folder);
    snprintf(self, sizeof self, "%s/cg2.self", folder);
    put(self, "0::/user/shoal.service\n");
    static const char *const inner[][2] = {{"memory.max", "max\n"},
                                           {"memory.current", "5000000\n"},
                                           {"memory.stat", "anon 1\ninactive_file 1000000\n"},
                                           {"cpu.max", "max 100000\n"}};
    static const char *const outer[][2] = {
        {"memory.max", "9000000\n"},
        {"memory.current", "6000000\n"},
        {"memory.stat", "inactive_file_x 9\ninactive_file 500000\n"},
        {"cpu.max", "250000 100000\n"}};
    snprintf(path, sizeof path, "%s/user/shoal.service", root);
    make_group(path, inner, BASE_COUNT(inner));
    uint64_t limit = 1, rest = 2;
    assert_false(cgroup_memory(root, self, &limit, &rest));
    assert_int_equal(limit, 1);
    assert_int_equal(cgroup_cpus(root, self), 0);
    snprintf(path, sizeof path, "%s/user", root);
    make_group(path, outer, BASE_COUNT(outer));
    assert_true(cgroup_memory(root, self, &limit, &rest));
    assert_int_equal(limit, 9000000);
    assert_int_equal(rest, 9000000 - (6000000 - 500000));
    assert_int_equal(cgroup_cpus(root, self), 3); /* 2.5, rounded up */
    snprintf(path, sizeof path, "%s/user/shoal.service/memory.high", root);
    put(path, "3000000\n"); /* less than is used: nothing is free */
    snprintf(path, sizeof path, "%s/user/shoal.service/cpu.max", root);
    put(path, "50000 100000\n");
    assert_true(cgroup_memory(root, self, &limit, &rest));
    assert_int_equal(limit, 3000000);
    assert_int_equal(rest, 0);
    assert_int_equal(cgroup_cpus(root, self), 1);
    put(self, "0::/not/visible/in/this/container\n"); /* then the mount's root is ours */
    snprintf(path, sizeof path, "%s/memory.max", root);
    put(path, "7000000\n");
    assert_true(cgroup_memory(root, self, &limit, &rest));
    assert_int_equal(limit, 7000000);
}

static void cgroup_version_1(void **state)
{
    (void)state;
    char root[512], self[512], path[560];
    snprintf(root, sizeof root, "%s/cg1", folder);
    snprintf(self, sizeof self, "%s/cg1.self", folder);
    put(self, "9:name=systemd:/x\n4:memory:/box\n3:cpu,cpuacct:/box\n");
    static const char *const memory[][2] = {
        {"memory.limit_in_bytes", "8000000\n"},
        {"memory.usage_in_bytes", "3000000\n"},
        {"memory.stat", "cache 1\ntotal_inactive_file 1000000\n"}};
    static const char *const top[][2] = {{"memory.limit_in_bytes", "9223372036854771712\n"}};
    static const char *const cpu[][2] = {{"cpu.cfs_quota_us", "150000\n"},
                                         {"cpu.cfs_period_us", "100000\n"}};
    static const char *const cpu_top[][2] = {{"cpu.cfs_quota_us", "-1\n"},
                                             {"cpu.cfs_period_us", "100000\n"}};
    snprintf(path, sizeof path, "%s/memory", root);
    make_group(path, top, 1);
    snprintf(path, sizeof path, "%s/cpu,cpuacct", root);
    make_group(path, cpu_top, 2);
    uint64_t limit, rest;
    assert_false(cgroup_memory(root, self, &limit, &rest));
    assert_int_equal(cgroup_cpus(root, self), 0);
    snprintf(path, sizeof path, "%s/memory/box", root);
    make_group(path, memory, BASE_COUNT(memory));
    snprintf(path, sizeof path, "%s/cpu,cpuacct/box", root);
    make_group(path, cpu, BASE_COUNT(cpu));
    assert_true(cgroup_memory(root, self, &limit, &rest));
    assert_int_equal(limit, 8000000);
    assert_int_equal(rest, 6000000);
    assert_int_equal(cgroup_cpus(root, self), 2);
    assert_false(cgroup_memory(root, in_folder("no such file"), &limit, &rest));
    put(self, "garbage\n:\n4:memory\n\n");
    assert_false(cgroup_memory(root, self, &limit, &rest));
}

/* ---- CPU and clocks -------------------------------------------------------------------------------------------- */

static void cpu_figures(void **state)
{
    (void)state;
    assert_in_range(os_cpu_count(), 1, 1 << 16);
    assert_true(strlen(os_cpu_name()) > 0);
    assert_ptr_equal(os_cpu_name(), os_cpu_name());
    unsigned f = os_cpu_features();
#if defined(__x86_64__)
    assert_true(!(f & OS_CPU_AVX2) ==
                !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")));
    assert_true(!(f & OS_CPU_AVX512) ==
                !(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")));
    if (f & OS_CPU_AVX512_VNNI)
        assert_true(__builtin_cpu_supports("avx512vnni"));
    assert_false(f & (OS_CPU_NEON | OS_CPU_DOTPROD | OS_CPU_I8MM));
#elif defined(__aarch64__)
    assert_true(f & OS_CPU_NEON);
#endif
}

static void clocks(void **state)
{
    (void)state;
    os_virtual_clock v;
    os_virtual_clock_init(&v, 1000);
    assert_int_equal(os_clock_now(&v.clock), 1000);
    v.us += 5000000;
    assert_int_equal(os_clock_now(&v.clock), 5001000);
    uint64_t before = os_clock_now(NULL), unix_us = os_unix_us();
    os_sleep_us(2000);
    assert_true(os_now_us() - before >= 2000);
    assert_true(unix_us > UINT64_C(1600000000000000));
    uint64_t cpu = os_thread_cpu_us();
    while (os_thread_cpu_us() < cpu + 1000)
        continue;
    os_sleep_us(0);
    uint64_t delay = os_thread_delay_us(); /* grows, or is not known */
    assert_true(os_thread_delay_us() >= delay);
}

/* ---- threads --------------------------------------------------------------------------------------------------- */

typedef struct queue {
    os_mutex *mutex;
    os_cond *cond;
    int waiting, sum;
} queue;

static void consume(void *context)
{
    queue *q = context;
    os_mutex_lock(q->mutex);
    for (int taken = 0; taken < 1000;) {
        while (q->waiting == 0)
            os_cond_wait(q->cond, q->mutex);
        taken += q->waiting;
        q->sum += q->waiting;
        q->waiting = 0;
        os_cond_broadcast(q->cond);
    }
    os_mutex_unlock(q->mutex);
}

static void threads_and_conditions(void **state)
{
    (void)state;
    queue q = {NULL, NULL, 0, 0};
    os_thread *t;
    assert_int_equal(os_mutex_create(&q.mutex, NULL), STATUS_OK);
    assert_int_equal(os_cond_create(&q.cond, NULL), STATUS_OK);
    os_mutex_lock(q.mutex);
    uint64_t before = os_now_us();
    assert_false(os_cond_wait_us(q.cond, q.mutex, 3000)); /* nobody signals */
    assert_true(os_now_us() - before >= 3000);
    assert_false(os_cond_wait_us(q.cond, q.mutex, 0));
    os_mutex_unlock(q.mutex);
    assert_int_equal(os_thread_create(&t, consume, &q, "a name that is too long", NULL), STATUS_OK);
    for (int i = 0; i < 1000; i++) {
        os_mutex_lock(q.mutex);
        while (q.waiting > 3)
            os_cond_wait_us(q.cond, q.mutex, UINT64_MAX);
        q.waiting++;
        os_cond_signal(q.cond);
        os_mutex_unlock(q.mutex);
    }
    os_thread_join(t);
    assert_int_equal(q.sum, 1000);
    os_cond_destroy(q.cond);
    os_mutex_destroy(q.mutex);
    os_cond_destroy(NULL);
    os_mutex_destroy(NULL);
    os_thread_join(NULL);
    err e;
    base_fail_after(1);
    assert_int_equal(os_mutex_create(&q.mutex, &e), STATUS_NO_MEMORY);
    base_fail_after(1);
    assert_int_equal(os_cond_create(&q.cond, &e), STATUS_NO_MEMORY);
    base_fail_after(1);
    assert_int_equal(os_thread_create(&t, consume, &q, "x", &e), STATUS_NO_MEMORY);
}

/* ---- whole messages -------------------------------------------------------------------------------------------- */

typedef struct transfer {
    int fd;
    size_t n;
    status result;
} transfer;

static void receive_slowly(void *context)
{
    transfer *t = context;
    unsigned char bytes[999];
    for (size_t at = 0; at < t->n && t->result == STATUS_OK; at += sizeof bytes) {
        size_t part = BASE_MIN(sizeof bytes, t->n - at);
        t->result = os_recv_all(t->fd, bytes, part, 60000000, NULL);
        for (size_t i = 0; i < part && t->result == STATUS_OK; i++)
            if (bytes[i] != (unsigned char)((at + i) * 31))
                t->result = STATUS_CORRUPT;
    }
}

static void whole_messages(void **state)
{
    (void)state;
    for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        assert_int_equal(os_set_nonblocking(pair[0], nonblocking, NULL), STATUS_OK);
        assert_int_equal(os_set_nonblocking(pair[1], nonblocking, NULL), STATUS_OK);
        transfer t = {pair[1], 3000000, STATUS_OK}; /* far more than the socket holds */
        unsigned char *bytes = base_alloc(t.n);
        for (size_t i = 0; i < t.n; i++)
            bytes[i] = (unsigned char)(i * 31);
        os_thread *reader;
        assert_int_equal(os_thread_create(&reader, receive_slowly, &t, "reader", NULL), STATUS_OK);
        assert_int_equal(os_send_all(pair[0], bytes, t.n, NULL), STATUS_OK);
        os_thread_join(reader);
        assert_int_equal(t.result, STATUS_OK);

        err e;
        char small[16];
        assert_int_equal(os_recv_all(pair[1], small, 4, 3000, &e), STATUS_TIMEOUT);
        assert_int_equal(os_send_all(pair[0], "abc", 3, &e), STATUS_OK);
        assert_int_equal(os_recv_all(pair[1], small, 4, 3000, &e), STATUS_TIMEOUT);
        assert_non_null(strstr(e.text, "3 of 4"));
        assert_int_equal(os_send_all(pair[0], "de", 2, &e), STATUS_OK);
        os_close(pair[0]);
        assert_int_equal(os_recv_all(pair[1], small, 4, 0, &e), STATUS_CLOSED);
        assert_non_null(strstr(e.text, "2 of 4"));
        assert_int_equal(os_send_all(pair[1], bytes, t.n, &e), STATUS_CLOSED); /* and no SIGPIPE */
        os_close(pair[1]);
        os_close(-1);
        assert_int_not_equal(os_set_nonblocking(-1, true, &e), STATUS_OK);
        assert_int_not_equal(os_send_all(-1, "x", 1, &e), STATUS_OK);
        assert_int_not_equal(os_recv_all(-1, small, 1, 1000, &e), STATUS_OK);
        base_free(bytes);
    }
    int fds[2];
    char text[3];
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(os_send_all(fds[1], "xyz", 3, NULL), STATUS_OK); /* pipes as well */
    assert_int_equal(os_recv_all(fds[0], text, 3, 1000000, NULL), STATUS_OK);
    assert_memory_equal(text, "xyz", 3);
    assert_false(os_is_terminal(fds[0]));
    assert_int_equal(os_terminal_columns(fds[0]), 80);
    os_close(fds[0]);
    os_close(fds[1]);
}

static void odds_and_ends(void **state)
{
    (void)state;
    unsigned char a[1000] = {0}, b[1000] = {0};
    char name[256];
    assert_int_equal(os_random(a, sizeof a, NULL), STATUS_OK);
    assert_int_equal(os_random(b, sizeof b, NULL), STATUS_OK);
    assert_memory_not_equal(a, b, sizeof a);
    int zeros = 0;
    for (size_t i = 0; i < sizeof a; i++)
        zeros += a[i] == 0;
    assert_true(zeros < 100); /* all parts were filled */
    assert_int_equal(os_random(a, 0, NULL), STATUS_OK);
    assert_true(strlen(os_host_name(name)) > 0);
}

static int remove_all(const char *path);

static status remove_entry(void *context, const os_dir_entry *entry)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", (const char *)context, entry->name);
    if (entry->is_dir)
        return remove_all(path) == 0 ? STATUS_OK : STATUS_IO;
    return unlink(path) == 0 ? STATUS_OK : STATUS_IO;
}

static int remove_all(const char *path)
{
    os_list_dir(path, remove_entry, (void *)(uintptr_t)path, NULL);
    return rmdir(path);
}

static int set_up(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/shoal-test-os-XXXXXX", base ? base : "/tmp");
    return mkdtemp(folder) ? 0 : 1;
}

static int tear_down(void **state)
{
    (void)state;
    return remove_all(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write_and_read),
        cmocka_unit_test(writes_are_atomic),
        cmocka_unit_test(failed_writes_leave_all_as_it_was),
        cmocka_unit_test(mappings),
        cmocka_unit_test(folders),
        cmocka_unit_test(locks_name_their_holder),
        cmocka_unit_test(user_folders),
        cmocka_unit_test(slabs),
        cmocka_unit_test(memory_figures),
        cmocka_unit_test(cgroup_version_2),
        cmocka_unit_test(cgroup_version_1),
        cmocka_unit_test(cpu_figures),
        cmocka_unit_test(clocks),
        cmocka_unit_test(threads_and_conditions),
        cmocka_unit_test(whole_messages),
        cmocka_unit_test(odds_and_ends),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
