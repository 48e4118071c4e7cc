/*
 * Reads control groups: /proc/self/cgroup names our group in each hierarchy, the files of that folder and of every
 * folder above it hold the limits. Inside a container the named path often does not exist below the mount; then the
 * walk upwards still reaches the mount's root, which is the container's own group. Sources: kernel documentation
 * cgroup-v2.rst (memory.max, memory.high, cpu.max) and cgroup-v1/memory.rst, scheduler/sched-bwc.rst.
 */
#include "os/cgroup.h"
#include "os/os.h"

#include <stdio.h>
#include <string.h>

#define V1_NO_LIMIT (UINT64_C(1) << 62) /* version 1 says "none" by a number near 2^63 */

/* Copies our path in the hierarchy of `controller` ("" = version 2) out of a /proc/self/cgroup text. */
static bool group_path(const char *text, const char *controller, char *out, size_t out_bytes)
{
    for (const char *line = text; *line;) {
        size_t length = strcspn(line, "\n");
        const char *names = memchr(line, ':', length);
        const char *path =
            names ? memchr(names + 1, ':', length - (size_t)(names + 1 - line)) : NULL;
        if (path) {
            names++;
            size_t names_length = (size_t)(path - names);
            size_t path_length = length - (size_t)(path + 1 - line);
            bool match = false;
            if (!*controller)
                match = names_length == 0 && line[0] == '0' && line[1] == ':';
            for (size_t at = 0; *controller && at < names_length;) {
                size_t n = 0;
                while (at + n < names_length && names[at + n] != ',')
                    n++;
                match = match || str_is((str){names + at, n}, controller);
                at += n + 1;
            }
            if (match && path_length < out_bytes) {
                memcpy(out, path + 1, path_length);
                out[path_length] = 0;
                return true;
            }
        }
        line += length + (line[length] == '\n');
    }
    return false;
}

/* The first line of a small file; false when it cannot be read. */
static bool read_line(const char *folder, const char *name, char *out, size_t out_bytes)
{
    char path[1400];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    char *text = NULL;
    if (n < 0 || (size_t)n >= sizeof path ||
        os_read_file(&text, NULL, path, 1 << 16, NULL) != STATUS_OK)
        return false;
    size_t length = strcspn(text, "\n");
    bool fits = length < out_bytes;
    if (fits) {
        memcpy(out, text, length);
        out[length] = 0;
    }
    base_free(text);
    return fits;
}

static bool read_number(const char *folder, const char *name, uint64_t *out)
{
    char line[64];
    return read_line(folder, name, line, sizeof line) && base_parse_u64(line, out);
}

/* `key value` of memory.stat; 0 when missing. */
static uint64_t read_stat(const char *folder, const char *key)
{
    char path[1400];
    int n = snprintf(path, sizeof path, "%s/memory.stat", folder);
    char *text = NULL;
    if (n < 0 || (size_t)n >= sizeof path ||
        os_read_file(&text, NULL, path, 1 << 20, NULL) != STATUS_OK)
        return 0;
    uint64_t value = 0;
    size_t key_length = strlen(key);
    for (const char *line = text; *line;) {
        size_t length = strcspn(line, "\n");
        if (length > key_length + 1 && line[key_length] == ' ' &&
            memcmp(line, key, key_length) == 0) {
            char digits[32];
            size_t digits_length = length - key_length - 1;
            if (digits_length < sizeof digits) {
                memcpy(digits, line + key_length + 1, digits_length);
                digits[digits_length] = 0;
                if (!base_parse_u64(digits, &value))
                    value = 0;
            }
            break;
        }
        line += length + (line[length] == '\n');
    }
    base_free(text);
    return value;
}

/* ---- walking from our group up to the mount's root -------------------------------------------------------------- */

typedef struct limits {
    uint64_t memory, memory_free; /* UINT64_MAX: none */
    int cpus;                     /* 0: none */
} limits;

static void add_memory(limits *l, const char *folder, uint64_t limit, const char *usage_file,
                       const char *cache_key)
{
    uint64_t usage = 0;
    read_number(folder, usage_file, &usage);
    uint64_t cache = read_stat(folder, cache_key);
    usage = usage > cache ? usage - cache : 0;
    uint64_t rest = limit > usage ? limit - usage : 0;
    l->memory = BASE_MIN(l->memory, limit);
    l->memory_free = BASE_MIN(l->memory_free, rest);
}

static void add_cpus(limits *l, uint64_t quota, uint64_t period)
{
    if (quota == 0 || period == 0 || quota / period > 4096)
        return;
    int cpus = (int)((quota - 1) / period + 1);
    if (l->cpus == 0 || cpus < l->cpus)
        l->cpus = cpus;
}

static void look_v2(limits *l, const char *folder)
{
    uint64_t limit;
    if (read_number(folder, "memory.max", &limit)) /* "max" is no number */
        add_memory(l, folder, limit, "memory.current", "inactive_file");
    if (read_number(folder, "memory.high", &limit))
        add_memory(l, folder, limit, "memory.current", "inactive_file");
    char line[64];
    if (!read_line(folder, "cpu.max", line, sizeof line))
        return;
    char *space = strchr(line, ' ');
    uint64_t quota, period;
    if (!space)
        return;
    *space = 0;
    if (base_parse_u64(line, &quota) && base_parse_u64(space + 1, &period))
        add_cpus(l, quota, period);
}

static void look_v1_memory(limits *l, const char *folder)
{
    uint64_t limit;
    if (read_number(folder, "memory.limit_in_bytes", &limit) && limit < V1_NO_LIMIT)
        add_memory(l, folder, limit, "memory.usage_in_bytes", "total_inactive_file");
}

static void look_v1_cpu(limits *l, const char *folder)
{
    uint64_t quota, period; /* a quota of −1 is no number: none */
    if (read_number(folder, "cpu.cfs_quota_us", &quota) &&
        read_number(folder, "cpu.cfs_period_us", &period))
        add_cpus(l, quota, period);
}

static void walk(limits *l, const char *mount, const char *path,
                 void (*look)(limits *l, const char *folder))
{
    char folder[1280];
    int n = snprintf(folder, sizeof folder, "%s%s", mount, path);
    size_t mount_length = strlen(mount);
    if (n < 0 || (size_t)n >= sizeof folder)
        return;
    for (;;) {
        look(l, folder);
        char *slash = strrchr(folder, '/');
        if (!slash || (size_t)(slash - folder) < mount_length)
            return;
        *slash = 0;
    }
}

static limits find_limits(const char *root, const char *self)
{
    limits l = {.memory = UINT64_MAX, .memory_free = UINT64_MAX};
    char *text = NULL;
    if (os_read_file(&text, NULL, self, 1 << 16, NULL) != STATUS_OK)
        return l;
    char path[1024], mount[256];
    static const struct {
        const char *controller, *below;
        void (*look)(limits *l, const char *folder);
    } hierarchies[] = {
        {"", "", look_v2},
        {"", "/unified", look_v2}, /* where version 1 and 2 are mounted side by side */
        {"memory", "/memory", look_v1_memory},
        {"cpu", "/cpu", look_v1_cpu},
        {"cpu", "/cpu,cpuacct", look_v1_cpu},
    };
    for (size_t i = 0; i < BASE_COUNT(hierarchies); i++) {
        int n = snprintf(mount, sizeof mount, "%s%s", root, hierarchies[i].below);
        if (n > 0 && (size_t)n < sizeof mount &&
            group_path(text, hierarchies[i].controller, path, sizeof path))
            walk(&l, mount, path, hierarchies[i].look);
    }
    base_free(text);
    return l;
}

bool cgroup_memory(const char *root, const char *self, uint64_t *limit, uint64_t *free_bytes)
{
    limits l = find_limits(root, self);
    if (l.memory == UINT64_MAX)
        return false;
    *limit = l.memory;
    *free_bytes = l.memory_free;
    return true;
}

int cgroup_cpus(const char *root, const char *self)
{
    return find_limits(root, self).cpus;
}
