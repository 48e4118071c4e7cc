/*
 * The log: one line, one write(2), to stderr. No files, no rotation, no buffering: whoever runs shoal owns its stderr.
 */
#include "base/base.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static atomic_int current_level = LOG_INFO;

void log_set_level(log_level level)
{
    atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

bool log_level_parse(const char *s, log_level *out)
{
    for (size_t i = 0; i < BASE_COUNT(level_names); i++) {
        if (!strcmp(s, level_names[i])) {
            *out = (log_level)i;
            return true;
        }
    }
    return false;
}

bool log_enabled(log_level level)
{
    return (int)level <= atomic_load_explicit(&current_level, memory_order_relaxed);
}

void log_line(log_level level, const char *module, const char *format, ...)
{
    if (!log_enabled(level))
        return;
    char line[1024];
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    int n = snprintf(line, sizeof line, "%02d:%02d:%02d.%03ld %-5s %s: ", parts.tm_hour,
                     parts.tm_min, parts.tm_sec, now.tv_nsec / 1000000, level_names[level], module);
    va_list args;
    va_start(args, format);
    int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
    va_end(args);
    size_t length = BASE_MIN((size_t)n + (size_t)(m > 0 ? m : 0), sizeof line - 2);
    for (size_t i = (size_t)n; i < length;
         i++) /* one line stays one line, whatever a name contains */
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7F)
            line[i] = ' ';
    line[length++] = '\n';
    if (write(STDERR_FILENO, line, length) < 0)
        return; /* nobody is listening */
}
