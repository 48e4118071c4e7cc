/*
 * What the CPU can do and how many of it we may use. x86: cpuid and xgetbv (the operating system must save the
 * registers too). ARM: the kernel's hardware capabilities. Not here: topology (hwloc may tell), frequencies.
 */
#include "os/cgroup.h"
#include "os/os.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#ifdef __linux__
#include <sched.h>
#include <sys/auxv.h>
#endif
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

static pthread_once_t once = PTHREAD_ONCE_INIT;
static unsigned features;
static char cpu_name[128];

/* ---- features -------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)

static unsigned find_features(void)
{
    unsigned a, b, c, d, found = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    bool fma_f16c = (c & bit_FMA) && (c & bit_F16C) && (c & bit_AVX);
    unsigned saved_low, saved_high;
    __asm__ volatile("xgetbv" : "=a"(saved_low), "=d"(saved_high) : "c"(0));
    bool saves_avx = (saved_low & 0x06) == 0x06, saves_avx512 = (saved_low & 0xe6) == 0xe6;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    unsigned subleaves = a;
    if (!saves_avx || !fma_f16c || !(b & bit_AVX2))
        return 0;
    found |= OS_CPU_AVX2;
    unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    if (saves_avx512 && (b & avx512) == avx512) {
        found |= OS_CPU_AVX512;
        if (c & (1u << 11))
            found |= OS_CPU_AVX512_VNNI;
    }
    if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 4)))
        found |= OS_CPU_AVX_VNNI;
    return found;
}

static void find_name(char *out, size_t out_bytes)
{
    unsigned words[12];
    char text[sizeof words + 1];
    for (unsigned i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002 + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2],
                         &words[4 * i + 3])) {
            snprintf(out, out_bytes, "x86-64 processor");
            return;
        }
    memcpy(text, words, sizeof words);
    text[sizeof words] = 0;
    const char *at = text;
    while (*at == ' ')
        at++;
    snprintf(out, out_bytes, "%s", at);
}

#elif defined(__aarch64__) && defined(__linux__)

#define HWCAP_DOTPROD   (1ul << 20) /* asimddp */
#define HWCAP2_I8MM_BIT (1ul << 13)

static unsigned find_features(void)
{
    unsigned found = OS_CPU_NEON;
    if (getauxval(AT_HWCAP) & HWCAP_DOTPROD)
        found |= OS_CPU_DOTPROD;
    if (getauxval(AT_HWCAP2) & HWCAP2_I8MM_BIT)
        found |= OS_CPU_I8MM;
    return found;
}

/* Boards say who they are in the device tree, servers in /proc/cpuinfo. */
static void find_name(char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "aarch64 processor");
    char *text = NULL;
    if (os_read_file(&text, NULL, "/proc/device-tree/model", 4096, NULL) == STATUS_OK && text[0])
        snprintf(out, out_bytes, "%s", text);
    base_free(text);
    text = NULL;
    if (os_read_file(&text, NULL, "/proc/cpuinfo", 4 << 20, NULL) == STATUS_OK) {
        char *line = strstr(text, "model name");
        char *value = line ? strchr(line, ':') : NULL;
        if (value) {
            value += 1 + (value[1] == ' ');
            value[strcspn(value, "\n")] = 0;
            snprintf(out, out_bytes, "%s", value);
        }
    }
    base_free(text);
}

#elif defined(__APPLE__)

static bool sysctl_on(const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}

static unsigned find_features(void)
{
    unsigned found = OS_CPU_NEON;
    if (sysctl_on("hw.optional.arm.FEAT_DotProd"))
        found |= OS_CPU_DOTPROD;
    if (sysctl_on("hw.optional.arm.FEAT_I8MM"))
        found |= OS_CPU_I8MM;
    return found;
}

static void find_name(char *out, size_t out_bytes)
{
    size_t size = out_bytes;
    if (sysctlbyname("machdep.cpu.brand_string", out, &size, NULL, 0) != 0)
        snprintf(out, out_bytes, "Apple processor");
}

#else

static unsigned find_features(void)
{
    return 0;
}

static void find_name(char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "unknown processor");
}

#endif

static void look(void)
{
    features = find_features();
    find_name(cpu_name, sizeof cpu_name);
    size_t end = strlen(cpu_name);
    while (end > 0 && cpu_name[end - 1] == ' ')
        cpu_name[--end] = 0;
}

unsigned os_cpu_features(void)
{
    pthread_once(&once, look);
    return features;
}

const char *os_cpu_name(void)
{
    pthread_once(&once, look);
    return cpu_name;
}

/* ---- how many, how large ---------------------------------------------------------------------------------------- */

#ifdef __linux__

/* CPUs in our affinity mask; it may be larger than a cpu_set_t on big machines. 0: unknown. */
static int affinity_count(void)
{
    for (int n = 1024; n <= 1 << 18; n *= 4) {
        cpu_set_t *set = CPU_ALLOC(n);
        if (!set)
            return 0;
        size_t size = CPU_ALLOC_SIZE(n);
        CPU_ZERO_S(size, set);
        int count = sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (count > 0)
            return count;
    }
    return 0;
}

int os_cpu_count(void)
{
    int count = affinity_count();
    if (count <= 0)
        count = (int)sysconf(_SC_NPROCESSORS_ONLN);
    int quota = cgroup_cpus("/sys/fs/cgroup", "/proc/self/cgroup");
    if (quota > 0)
        count = BASE_MIN(count, quota);
    return BASE_MAX(count, 1);
}

uint64_t os_cpu_last_level_cache(void)
{
    uint64_t best_level = 0, best_bytes = 0;
    for (int i = 0; i < 8; i++) {
        char path[128];
        char *text = NULL;
        uint64_t level = 0, bytes = 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
        if (os_read_file(&text, NULL, path, 64, NULL) != STATUS_OK)
            break;
        text[strcspn(text, "\n")] = 0;
        bool ok = base_parse_u64(text, &level);
        base_free(text);
        text = NULL;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        if (!ok || os_read_file(&text, NULL, path, 64, NULL) != STATUS_OK)
            continue;
        text[strcspn(text, "\n")] = 0;
        if (base_parse_size(text, &bytes) && level >= best_level) { /* "32768K" */
            best_level = level;
            best_bytes = bytes;
        }
        base_free(text);
    }
    return best_bytes;
}

#else

static uint64_t sysctl_number(const char *name)
{
    uint64_t value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 ? value : 0;
}

int os_cpu_count(void)
{
    /* The fast cores: a fork-join step with an efficiency core in it is as slow as that core. */
    uint64_t count = sysctl_number("hw.perflevel0.logicalcpu");
    if (count == 0)
        count = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
    return (int)BASE_MAX(count, 1u);
}

uint64_t os_cpu_last_level_cache(void)
{
    uint64_t bytes = sysctl_number("hw.l3cachesize");
    if (bytes == 0)
        bytes = sysctl_number("hw.perflevel0.l2cachesize");
    return bytes;
}

#endif
