/*
 * Statuses, errors and REQUIRE. An err is a fixed buffer in the caller's memory, so filling one never fails and never allocates.
 */
#include "base/base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *text;
    int http;
} statuses[] = {
#define STATUS(name, text, http) {#name, text, http},
#include "base/status.def"
#undef STATUS
};

_Static_assert(BASE_COUNT(statuses) == STATUS_COUNT, "one row per status");

static bool status_known(status s)
{
    return (unsigned)s < STATUS_COUNT;
}

const char *status_name(status s)
{
    return status_known(s) ? statuses[s].name : "UNKNOWN";
}

const char *status_text(status s)
{
    return status_known(s) ? statuses[s].text : "unknown status";
}

int status_http(status s)
{
    return status_known(s) ? statuses[s].http : 500;
}

/* A cut text must not end inside a UTF-8 character, because it may travel in JSON. */
static void cut_at_character(char *text, size_t size)
{
    size_t n = strlen(text);
    if (n + 1 < size)
        return;
    while (n > 0 && ((unsigned char)text[n - 1] & 0xC0) == 0x80)
        n--;
    if (n > 0 && ((unsigned char)text[n - 1] & 0x80))
        n--;
    text[n] = '\0';
}

status err_set(err *e, status code, const char *format, ...)
{
    if (!e)
        return code;
    char text[ERR_TEXT]; /* apart: an argument may be e's own text */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    cut_at_character(text, sizeof text);
    memcpy(e->text, text, sizeof text);
    e->code = code;
    return code;
}

status err_wrap(err *e, const char *format, ...)
{
    if (!e)
        return STATUS_INTERNAL;
    char context[ERR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
    return err_set(e, e->code, "%s: %s", context, e->text);
}

static status status_of_errno(int number)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR:
        return STATUS_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return STATUS_DENIED;
    case ENOMEM:
        return STATUS_NO_MEMORY;
    case ETIMEDOUT:
        return STATUS_TIMEOUT;
    case EPIPE:
    case ECONNRESET:
        return STATUS_CLOSED;
    case EEXIST:
    case EADDRINUSE:
        return STATUS_CONFLICT;
    default:
        return STATUS_IO;
    }
}

status err_errno(err *e, int number, const char *format, ...)
{
    char context[ERR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
    return err_set(e, status_of_errno(number), "%s: %s", context, strerror(number));
}

void err_clear(err *e)
{
    if (e) {
        e->code = STATUS_OK;
        e->text[0] = '\0';
    }
}

void base_require_failed(const char *condition, const char *file, int line)
{
    log_line(LOG_ERROR, "base", "%s:%d: required: %s", file, line, condition);
    abort();
}
