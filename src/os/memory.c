/*
 * Big memory and what is known about memory. Slabs are anonymous mappings, 2 MiB aligned and advised for huge pages.
 * How much there is: of the machine, then of every cgroup above us that has a limit (containers, systemd slices).
 * Not here: the heap (base), memory of other devices, locking pages.
 */
#include "os/cgroup.h"
#include "os/os.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef __APPLE__
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif

#define HUGE_BYTES (UINT64_C(2) << 20)

uint64_t os_page_bytes(void)
{
    long bytes = sysconf(_SC_PAGESIZE);
    return bytes > 0 ? (uint64_t)bytes : 4096;
}

/* ---- slabs ----------------------------------------------------------------------------------------------------- */

/* What is mapped for a slab of `bytes`; 0 when that does not fit an address space. */
static uint64_t slab_mapped_bytes(uint64_t bytes)
{
    uint64_t mapped;
    uint64_t align = bytes >= HUGE_BYTES ? HUGE_BYTES : os_page_bytes();
    if (!checked_align(bytes, align, &mapped) || mapped > SIZE_MAX / 2)
        return 0;
    return mapped;
}

status os_slab_create(void **out, uint64_t bytes, err *e)
{
    uint64_t mapped = slab_mapped_bytes(bytes);
    if (mapped == 0)
        return err_set(e, bytes == 0 ? STATUS_INVALID : STATUS_NO_MEMORY,
                       "slab of %llu bytes is not possible", (unsigned long long)bytes);
    uint64_t extra = bytes >= HUGE_BYTES ? HUGE_BYTES : 0;
    void *map = mmap(NULL, mapped + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (map == MAP_FAILED)
        return err_errno(e, errno, "slab of %llu bytes", (unsigned long long)bytes);
    unsigned char *at = map;
    if (extra) { /* keep the aligned part, give the ends back */
        size_t head = (size_t)(-(uintptr_t)map & (HUGE_BYTES - 1));
        if (head)
            munmap(at, head);
        at += head;
        if (extra - head)
            munmap(at + mapped, extra - head);
#ifdef MADV_HUGEPAGE
        /* whole ones only, so that nothing is resident that nobody asked for; a kernel without huge pages says no, and that is fine */
        madvise(at, bytes & ~(HUGE_BYTES - 1), MADV_HUGEPAGE);
#endif
    }
    *out = at;
    return STATUS_OK;
}

void os_slab_destroy(void *p, uint64_t bytes)
{
    if (!p)
        return;
    int failure = munmap(p, slab_mapped_bytes(bytes));
    REQUIRE(failure == 0);
}

void os_slab_forget(void *part, uint64_t bytes)
{
    uintptr_t page = (uintptr_t)os_page_bytes();
    uintptr_t begin = ((uintptr_t)part + page - 1) & ~(page - 1),
              end = ((uintptr_t)part + (uintptr_t)bytes) & ~(page - 1);
#ifdef __APPLE__
    int advice = MADV_FREE;
#else
    int advice = MADV_DONTNEED;
#endif
    if (end > begin) /* advice: when it is not taken, memory stays until the slab goes */
        madvise((unsigned char *)part + (begin - (uintptr_t)part), end - begin, advice);
}

/* ---- how much there is ----------------------------------------------------------------------------------------- */

#ifdef __linux__

/* The number behind "name:" in a /proc file of "name:   number kB" lines, in bytes. */
static bool proc_kilobytes(const char *text, const char *name, uint64_t *out)
{
    size_t length = strlen(name);
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        if (*line == '\n')
            line++;
        if (strncmp(line, name, length) != 0 || line[length] != ':')
            continue;
        const char *digit = line + length + 1;
        while (*digit == ' ' || *digit == '\t')
            digit++;
        uint64_t value = 0;
        if (*digit < '0' || *digit > '9')
            return false;
        while (*digit >= '0' && *digit <= '9' && value < UINT64_MAX / 20480)
            value = value * 10 + (uint64_t)(*digit++ - '0');
        *out = value * 1024;
        return true;
    }
    return false;
}

static bool proc_file_kilobytes(const char *path, const char *name, uint64_t *out)
{
    char *text = NULL;
    if (os_read_file(&text, NULL, path, 1 << 20, NULL) != STATUS_OK)
        return false;
    bool found = proc_kilobytes(text, name, out);
    base_free(text);
    return found;
}

status os_memory(os_memory_info *out, err *e)
{
    os_memory_info info;
    char *text = NULL;
    status s = os_read_file(&text, NULL, "/proc/meminfo", 1 << 20, e);
    if (s != STATUS_OK)
        return s;
    bool found = proc_kilobytes(text, "MemTotal", &info.total_bytes) &&
                 proc_kilobytes(text, "MemAvailable", &info.available_bytes);
    base_free(text);
    if (!found)
        return err_set(e, STATUS_UNSUPPORTED, "/proc/meminfo has no MemTotal or MemAvailable");
    uint64_t limit, free_bytes;
    if (cgroup_memory("/sys/fs/cgroup", "/proc/self/cgroup", &limit, &free_bytes)) {
        info.total_bytes = BASE_MIN(info.total_bytes, limit);
        info.available_bytes = BASE_MIN(info.available_bytes, free_bytes);
    }
    *out = info;
    return STATUS_OK;
}

uint64_t os_resident_bytes(void)
{
    uint64_t bytes = 0;
    proc_file_kilobytes("/proc/self/status", "VmRSS", &bytes);
    return bytes;
}

uint64_t os_peak_resident_bytes(void)
{
    uint64_t bytes = 0; /* not ru_maxrss: that one survives exec and would show the parent's */
    proc_file_kilobytes("/proc/self/status", "VmHWM", &bytes);
    return bytes;
}

#else

status os_memory(os_memory_info *out, err *e)
{
    uint64_t total = 0;
    size_t size = sizeof total;
    if (sysctlbyname("hw.memsize", &total, &size, NULL, 0) != 0)
        return err_errno(e, errno, "sysctl hw.memsize");
    vm_statistics64_data_t vm;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    if (host_statistics64(mach_host_self(), HOST_VM_INFO64, (host_info64_t)&vm, &count) !=
        KERN_SUCCESS)
        return err_set(e, STATUS_UNSUPPORTED, "host_statistics64 failed");
    out->total_bytes = total;
    out->available_bytes =
        ((uint64_t)vm.free_count + vm.inactive_count + vm.purgeable_count) * os_page_bytes();
    return STATUS_OK;
}

uint64_t os_resident_bytes(void)
{
    struct mach_task_basic_info info;
    mach_msg_type_number_t count = MACH_TASK_BASIC_INFO_COUNT;
    if (task_info(mach_task_self(), MACH_TASK_BASIC_INFO, (task_info_t)&info, &count) !=
        KERN_SUCCESS)
        return 0;
    return info.resident_size;
}

uint64_t os_peak_resident_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss : 0;
}

#endif
