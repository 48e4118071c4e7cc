/*
 * Numbers from and to text: whole strings only, every range checked, no locale. Sizes count in powers of 1024, durations in
 * microseconds.
 */
#include "base/base.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool base_parse_u64(const char *s, uint64_t *out)
{
    uint64_t value = 0;
    if (!s || !*s)
        return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9')
            return false;
        if (!checked_mul(value, 10, &value) || !checked_add(value, (uint64_t)(*s - '0'), &value))
            return false;
    }
    *out = value;
    return true;
}

bool base_parse_i64(const char *s, int64_t *out)
{
    if (!s)
        return false;
    bool negative = *s == '-';
    uint64_t magnitude;
    if (!base_parse_u64(s + negative, &magnitude) || magnitude > (uint64_t)INT64_MAX + negative)
        return false;
    *out = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return true;
}

/* Digits, one optional point, an optional exponent: what strtod may see, and nothing of what it does more (hex, inf, spaces). */
static bool is_decimal(const char *s)
{
    size_t digits = 0;
    s += *s == '-' || *s == '+';
    for (; *s >= '0' && *s <= '9'; s++)
        digits++;
    if (*s == '.')
        for (s++; *s >= '0' && *s <= '9'; s++)
            digits++;
    if (!digits)
        return false;
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '-' || *s == '+';
        if (*s < '0' || *s > '9')
            return false;
        while (*s >= '0' && *s <= '9')
            s++;
    }
    return *s == '\0';
}

bool base_parse_double(const char *s, double *out)
{
    if (!s || !is_decimal(s))
        return false;
    double value = strtod(s, NULL);
    if (!isfinite(value))
        return false;
    *out = value;
    return true;
}

/* Splits "1.5G" into the number and what follows. */
static bool number_and_unit(const char *s, double *value, const char **unit)
{
    char digits[32];
    size_t n = s ? strspn(s, "0123456789.") : 0;
    if (!n || n >= sizeof digits)
        return false;
    memcpy(digits, s, n);
    digits[n] = '\0';
    *unit = s + n;
    return base_parse_double(digits, value);
}

static bool scale(double value, double factor, uint64_t *out)
{
    double scaled = value * factor;
    if (scaled >= 18446744073709549568.0)
        return false;
    *out = (uint64_t)scaled;
    return true;
}

bool base_parse_size(const char *s, uint64_t *out)
{
    static const char units[] = "kmgtp";
    double value, factor = 1;
    const char *unit;
    if (!number_and_unit(s, &value, &unit))
        return false;
    if (!*unit) {
        if (base_parse_u64(s, out))
            return true;
        return false;
    }
    char lower = (char)(*unit | 0x20);
    const char *at = strchr(units, lower);
    if (!at)
        return false;
    for (const char *u = units; u <= at; u++)
        factor *= 1024;
    unit++;
    if (!strcmp(unit, "") || !strcmp(unit, "B") || !strcmp(unit, "b") || !strcmp(unit, "iB"))
        return scale(value, factor, out);
    return false;
}

bool base_parse_duration(const char *s, uint64_t *out_us)
{
    static const struct {
        const char *name;
        double us;
    } units[] = {{"", 1e6},   {"s", 1e6},    {"ms", 1e3},   {"us", 1},
                 {"m", 60e6}, {"min", 60e6}, {"h", 3600e6}, {"d", 86400e6}};
    double value;
    const char *unit;
    if (s && !strcmp(s, "never")) {
        *out_us = UINT64_MAX;
        return true;
    }
    if (!number_and_unit(s, &value, &unit))
        return false;
    for (size_t i = 0; i < BASE_COUNT(units); i++)
        if (!strcmp(unit, units[i].name))
            return scale(value, units[i].us, out_us);
    return false;
}

const char *base_format_bytes(char out[32], uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < BASE_COUNT(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(out, 32, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}
