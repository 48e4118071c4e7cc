/*
 * Files: mappings, small reads and atomic writes, folders, locks, the XDG places. Every descriptor is close-on-exec.
 * Deliberately not: streams, watching, asynchronous reads; downloads write their own files.
 */
#include "os/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif

/* ---- mappings -------------------------------------------------------------------------------------------------- */

status os_map_file(os_mapping *out, const char *path, err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not block us here */
    if (fd < 0)
        return err_errno(e, errno, "%s cannot be opened", path);
    struct stat st;
    os_mapping m = {NULL, 0};
    status s = STATUS_OK;
    if (fstat(fd, &st) != 0) {
        s = err_errno(e, errno, "%s", path);
    } else if (!S_ISREG(st.st_mode)) {
        s = err_set(e, STATUS_INVALID, "%s is not a regular file", path);
    } else if ((uint64_t)st.st_size > SIZE_MAX / 2) {
        s = err_set(e, STATUS_TOO_LARGE, "%s is too large to map", path);
    } else if (st.st_size > 0) {
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
            s = err_errno(e, errno, "%s cannot be mapped", path);
        } else {
            m.data = map;
            m.bytes = (uint64_t)st.st_size;
        }
    }
    close(fd);
    if (s == STATUS_OK)
        *out = m;
    return s;
}

void os_unmap_file(os_mapping *m)
{
    if (m->data) {
        int failure = munmap((void *)(uintptr_t)m->data, (size_t)m->bytes);
        REQUIRE(failure == 0);
    }
    *m = (os_mapping){NULL, 0};
}

void os_mapping_forget(const os_mapping *m, uint64_t offset, uint64_t bytes)
{
    if (!m->data || offset >= m->bytes)
        return;
    uint64_t page = os_page_bytes();
    uint64_t end = bytes > m->bytes - offset ? m->bytes : offset + bytes;
    uint64_t first = (offset + page - 1) & ~(page - 1); /* whole pages inside the range only */
    uint64_t last = end == m->bytes ? end : end & ~(page - 1);
    if (first < last)
        madvise((void *)(uintptr_t)(m->data + first), (size_t)(last - first), MADV_DONTNEED);
}

/* ---- small files ----------------------------------------------------------------------------------------------- */

static status read_all(sb *b, int fd, const char *path, uint64_t limit, err *e)
{
    for (;;) {
        size_t step = 1 << 16;
        if (!sb_reserve(b, step))
            return err_set(e, STATUS_NO_MEMORY, "%s: no memory to read it", path);
        ssize_t got = read(fd, b->data + b->length, step);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(e, errno, "%s cannot be read", path);
        b->length += (size_t)got;
        if (b->length > limit)
            return err_set(e, STATUS_TOO_LARGE, "%s is larger than %llu bytes", path,
                           (unsigned long long)limit);
        if (got == 0)
            return STATUS_OK;
    }
}

status os_read_file(char **out, size_t *out_length, const char *path, uint64_t limit, err *e)
{
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "%s cannot be opened", path);
    sb b;
    sb_init(&b);
    status s = read_all(&b, fd, is_stdin ? "standard input" : path, limit, e);
    if (!is_stdin)
        close(fd);
    if (s == STATUS_OK) {
        size_t length = b.length;
        char *text = sb_take(&b);
        if (!text) {
            s = err_set(e, STATUS_NO_MEMORY, "%s: no memory to read it", path);
        } else {
            text[length] = 0;
            *out = text;
            if (out_length)
                *out_length = length;
        }
    }
    sb_fini(&b);
    return s;
}

static status write_all(int fd, const char *path, const void *bytes, size_t n, err *e)
{
    const char *at = bytes;
    while (n > 0) {
        ssize_t done = write(fd, at, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return err_errno(e, errno, "%s cannot be written", path);
        at += done;
        n -= (size_t)done;
    }
    return STATUS_OK;
}

/* To the medium, not only to the drive's cache (which is what fsync means on macOS). */
static int sync_file(int fd)
{
#ifdef __APPLE__
    if (fcntl(fd, F_FULLFSYNC) == 0)
        return 0;
#endif
    return fsync(fd);
}

/* The entry of a renamed file is safe only when its folder is written too. Best effort: some file systems refuse. */
static void sync_folder_of(const char *path)
{
    char folder[PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof folder)
        return;
    memcpy(folder, path, length + 1);
    char *slash = strrchr(folder, '/');
    if (!slash)
        memcpy(folder, ".", 2);
    else
        slash[slash == folder] = 0;
    int fd = open(folder, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

status os_write_file(const char *path, const void *bytes, size_t n, unsigned mode, err *e)
{
    static _Atomic unsigned counter;
    char temporary[PATH_MAX];
    int length = snprintf(temporary, sizeof temporary, "%s.%ld.%u.tmp", path, (long)getpid(),
                          atomic_fetch_add(&counter, 1));
    if (length < 0 || (size_t)length >= sizeof temporary)
        return err_set(e, STATUS_TOO_LONG, "%s: path too long", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(e, errno, "%s cannot be made", temporary);
    status s = write_all(fd, temporary, bytes, n, e);
    if (s == STATUS_OK && fchmod(fd, (mode_t)mode) != 0)
        s = err_errno(e, errno, "%s: mode %o", temporary, mode);
    if (s == STATUS_OK && sync_file(fd) != 0)
        s = err_errno(e, errno, "%s cannot be synced", temporary);
    if (close(fd) != 0 && s == STATUS_OK)
        s = err_errno(e, errno, "%s cannot be written", temporary);
    if (s == STATUS_OK && rename(temporary, path) != 0)
        s = err_errno(e, errno, "%s cannot be replaced", path);
    if (s != STATUS_OK) {
        unlink(temporary);
        return s;
    }
    sync_folder_of(path);
    return STATUS_OK;
}

/* ---- folders --------------------------------------------------------------------------------------------------- */

bool os_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool os_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

status os_file_size(uint64_t *out, const char *path, err *e)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return err_errno(e, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, STATUS_INVALID, "%s is not a regular file", path);
    *out = (uint64_t)st.st_size;
    return STATUS_OK;
}

status os_free_disk(uint64_t *out_bytes, const char *path, err *e)
{
    struct statvfs vfs;
    if (statvfs(path, &vfs) != 0)
        return err_errno(e, errno, "%s", path);
    uint64_t bytes;
    if (!checked_mul(vfs.f_bavail, vfs.f_frsize, &bytes))
        bytes = UINT64_MAX;
    *out_bytes = bytes;
    return STATUS_OK;
}

status os_make_dirs(const char *path, unsigned mode, err *e)
{
    char part[PATH_MAX];
    size_t length = strlen(path);
    if (length == 0)
        return err_set(e, STATUS_INVALID, "folder with an empty name");
    if (length >= sizeof part)
        return err_set(e, STATUS_TOO_LONG, "%.64s...: path too long", path);
    memcpy(part, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (part[i] != '/' && part[i] != 0)
            continue;
        part[i] = 0;
        if (mkdir(part, (mode_t)mode) != 0) {
            int number =
                errno; /* a read-only or foreign parent says EROFS or EACCES although it exists */
            if (!os_is_dir(part))
                return number == EEXIST
                           ? err_set(e, STATUS_CONFLICT, "%s exists and is not a folder", part)
                           : err_errno(e, number, "folder %s cannot be made", part);
        }
        if (i < length)
            part[i] = '/';
    }
    return STATUS_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Appends a copy of every name in the open folder to *names. */
static status read_names(DIR *folder, const char *path, char ***names, size_t *n, err *e)
{
    size_t capacity = 0;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(folder);
        if (!entry)
            return errno == 0 ? STATUS_OK : err_errno(e, errno, "%s cannot be read", path);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (*n == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            char **grown = base_realloc(*names, capacity * sizeof *grown);
            if (!grown)
                return err_set(e, STATUS_NO_MEMORY, "%s: no memory to list it", path);
            *names = grown;
        }
        char *copy = base_strdup(entry->d_name);
        if (!copy)
            return err_set(e, STATUS_NO_MEMORY, "%s: no memory to list it", path);
        (*names)[(*n)++] = copy;
    }
}

status os_list_dir(const char *path, status (*visit)(void *context, const os_dir_entry *entry),
                   void *context, err *e)
{
    DIR *folder = opendir(path);
    if (!folder)
        return err_errno(e, errno, "%s cannot be listed", path);
    char **names = NULL;
    size_t n = 0;
    status s = read_names(folder, path, &names, &n, e);
    if (s == STATUS_OK && n > 1)
        qsort(names, n, sizeof *names, compare_names);
    for (size_t i = 0; s == STATUS_OK && i < n; i++) {
        struct stat st;
        os_dir_entry entry = {.name = names[i]};
        if (fstatat(dirfd(folder), names[i], &st, 0) == 0) { /* else: gone, or a dangling link */
            entry.is_dir = S_ISDIR(st.st_mode);
            entry.is_file = S_ISREG(st.st_mode);
        }
        s = visit(context, &entry);
    }
    for (size_t i = 0; i < n; i++)
        base_free(names[i]);
    base_free(names);
    closedir(folder);
    return s;
}

/* ---- locks ----------------------------------------------------------------------------------------------------- */

/* BUSY, with the first line that the holder left in the file. */
static status lock_busy(int fd, const char *path, err *e)
{
    char text[160];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    text[strcspn(text, "\r\n")] = 0;
    return err_set(e, STATUS_BUSY, "%s is locked by %s", path, text[0] ? text : "another process");
}

status os_lock_acquire(os_lock *out, const char *path, const char *holder_text, err *e)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(e, errno, "lock %s cannot be opened", path);
    int failure;
    do
        failure = flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
    while (failure == EINTR);
    status s = STATUS_OK;
    if (failure == EWOULDBLOCK)
        s = lock_busy(fd, path, e);
    else if (failure != 0)
        s = err_errno(e, failure, "%s cannot be locked", path);
    else if (ftruncate(fd, 0) != 0)
        s = err_errno(e, errno, "lock %s cannot be written", path);
    else
        s = write_all(fd, path, holder_text, strlen(holder_text), e);
    if (s != STATUS_OK) {
        close(fd);
        return s;
    }
    out->fd = fd;
    return STATUS_OK;
}

void os_lock_release(os_lock *l)
{
    if (l->fd >= 0) {
        if (ftruncate(l->fd, 0) != 0)
            log_debug("os", "a released lock keeps its text");
        close(l->fd);
    }
    l->fd = -1;
}

/* ---- well-known places ----------------------------------------------------------------------------------------- */

status os_user_dir(char *out, size_t out_bytes, const char *kind, err *e)
{
    static const struct {
        const char *kind, *variable, *below_home;
    } places[] = {
        {"config", "XDG_CONFIG_HOME", "/.config"},
        {"data", "XDG_DATA_HOME", "/.local/share"},
        {"state", "XDG_STATE_HOME", "/.local/state"},
        {"cache", "XDG_CACHE_HOME", "/.cache"},
    };
    for (size_t i = 0; i < BASE_COUNT(places); i++) {
        if (strcmp(kind, places[i].kind) != 0)
            continue;
        const char *base = getenv(places[i].variable), *below = "";
        if (!base || base[0] != '/') { /* the specification: relative ones are to be ignored */
            base = getenv("HOME");
            below = places[i].below_home;
        }
        if (!base || base[0] != '/')
            return err_set(e, STATUS_NOT_FOUND,
                           "no folder for %s files: neither HOME nor %s is an absolute path", kind,
                           places[i].variable);
        int n = snprintf(out, out_bytes, "%s%s/shoal", base, below);
        if (n < 0 || (size_t)n >= out_bytes)
            return err_set(e, STATUS_TOO_LONG, "folder for %s files: path too long", kind);
        return STATUS_OK;
    }
    return err_set(e, STATUS_INVALID, "os_user_dir: no such kind: %s", kind);
}

status os_self_path(char *out, size_t out_bytes, err *e)
{
    char path[PATH_MAX];
#ifdef __APPLE__
    char raw[PATH_MAX];
    uint32_t size = sizeof raw;
    if (_NSGetExecutablePath(raw, &size) != 0 || !realpath(raw, path))
        return err_set(e, STATUS_NOT_FOUND, "the path of this program is unknown");
#else
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n < 0)
        return err_errno(e, errno, "/proc/self/exe");
    path[n] = 0;
    struct stat mine, named;
    if (stat("/proc/self/exe", &mine) != 0 || stat(path, &named) != 0 ||
        mine.st_ino != named.st_ino || mine.st_dev != named.st_dev)
        memcpy(path, "/proc/self/exe", sizeof "/proc/self/exe"); /* replaced on disk: still us */
#endif
    size_t length = strlen(path);
    if (length >= out_bytes)
        return err_set(e, STATUS_TOO_LONG, "the path of this program is too long");
    memcpy(out, path, length + 1);
    return STATUS_OK;
}
