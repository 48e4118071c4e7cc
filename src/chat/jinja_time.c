/*
 * Broken-down times and strftime in the C locale. The time zone is unknown here: %Z and %z print nothing, as Python does for a
 * naive datetime. Calendar: proleptic Gregorian (Howard Hinnant's days-from-civil arithmetic).
 */
#include <stdio.h>
#include <string.h>

#include "chat/jinja.h"

static int64_t days_from_civil(int64_t y, int64_t m, int64_t d)
{
    y -= m <= 2;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

chat_time chat_time_from_unix(int64_t seconds, int32_t offset_seconds)
{
    const int64_t limit = INT64_C(200000000000); /* years stay below 10,000 */
    seconds = BASE_MAX(-limit / 8, BASE_MIN(seconds, limit)) + offset_seconds;
    int64_t days = seconds / 86400, rest = seconds % 86400;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month = (5 * day_of_year + 2) / 153;
    chat_time t = {.day = (int)(day_of_year - (153 * month + 2) / 5 + 1),
                   .month = (int)(month < 10 ? month + 3 : month - 9),
                   .hour = (int)(rest / 3600),
                   .minute = (int)(rest / 60 % 60),
                   .second = (int)(rest % 60)};
    t.year = (int)(year_of_era + era * 400 + (t.month <= 2));
    return t;
}

static bool read_field(const char **p, int digits, int low, int high, int *out)
{
    int v = 0;
    for (int i = 0; i < digits; i++, ++*p) {
        if (**p < '0' || **p > '9')
            return false;
        v = v * 10 + (**p - '0');
    }
    *out = v;
    return v >= low && v <= high;
}

bool chat_time_parse(const char *text, chat_time *out)
{
    chat_time t = {0};
    const char *p = text;
    if (!read_field(&p, 4, 1, 9999, &t.year) || *p++ != '-' ||
        !read_field(&p, 2, 1, 12, &t.month) || *p++ != '-' || !read_field(&p, 2, 1, 31, &t.day))
        return false;
    if (*p) {
        if (*p != 'T' && *p != ' ')
            return false;
        p++;
        if (!read_field(&p, 2, 0, 23, &t.hour) || *p++ != ':' ||
            !read_field(&p, 2, 0, 59, &t.minute))
            return false;
        if (*p == ':') {
            p++;
            if (!read_field(&p, 2, 0, 60, &t.second))
                return false;
        }
        if (*p == '.')
            while (*++p >= '0' && *p <= '9')
                ;
        if (*p && strcmp(p, "Z") != 0)
            return false;
    }
    *out = t;
    return true;
}

static const char *const months[] = {"January",   "February", "March",    "April",
                                     "May",       "June",     "July",     "August",
                                     "September", "October",  "November", "December"};
static const char *const weekdays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                       "Thursday", "Friday", "Saturday"};

typedef struct moment {
    chat_time t;
    int weekday, year_day; /* Sunday = 0; 1 January = 0 */
} moment;

/* ISO 8601 week and its year. */
static int iso_week(const moment *m, int *year)
{
    int monday_based = (m->weekday + 6) % 7;
    int week = (m->year_day - monday_based + 10) / 7;
    *year = m->t.year;
    if (week < 1) {
        moment last = *m;
        --*year;
        int64_t new_year = days_from_civil(m->t.year, 1, 1), before = days_from_civil(*year, 1, 1);
        last.t.year = *year;
        last.year_day = m->year_day + (int)(new_year - before);
        int ignored;
        return iso_week(&last, &ignored);
    }
    if (week == 53) {
        int64_t next = days_from_civil(m->t.year + 1, 1, 1);
        int next_weekday = (int)((next + 3) % 7); /* Monday = 0 */
        int64_t today = days_from_civil(m->t.year, 1, 1) + m->year_day;
        if (next_weekday <= 3 && today >= next - next_weekday) {
            ++*year;
            return 1;
        }
    }
    return week;
}

static const char *composite(char c)
{
    switch (c) {
    case 'F':
        return "%Y-%m-%d";
    case 'T':
    case 'X':
        return "%H:%M:%S";
    case 'D':
    case 'x':
        return "%m/%d/%y";
    case 'R':
        return "%H:%M";
    case 'r':
        return "%I:%M:%S %p";
    case 'c':
        return "%a %b %e %H:%M:%S %Y";
    case 'h':
        return "%b";
    default:
        return NULL;
    }
}

typedef struct number_field {
    int value, width;
    char pad;
} number_field;

static bool numeric(const moment *m, char c, number_field *out)
{
    const chat_time *t = &m->t;
    int iso_year, hour12 = t->hour % 12 ? t->hour % 12 : 12;
    int week = iso_week(m, &iso_year);
    const struct {
        char c;
        number_field field;
    } rows[] = {
        {'Y', {t->year, 1, '0'}},
        {'C', {t->year / 100, 2, '0'}},
        {'y', {t->year % 100, 2, '0'}},
        {'m', {t->month, 2, '0'}},
        {'d', {t->day, 2, '0'}},
        {'e', {t->day, 2, ' '}},
        {'H', {t->hour, 2, '0'}},
        {'k', {t->hour, 2, ' '}},
        {'I', {hour12, 2, '0'}},
        {'l', {hour12, 2, ' '}},
        {'M', {t->minute, 2, '0'}},
        {'S', {t->second, 2, '0'}},
        {'f', {0, 6, '0'}},
        {'j', {m->year_day + 1, 3, '0'}},
        {'u', {m->weekday ? m->weekday : 7, 1, '0'}},
        {'w', {m->weekday, 1, '0'}},
        {'U', {(m->year_day + 7 - m->weekday) / 7, 2, '0'}},
        {'W', {(m->year_day + 7 - (m->weekday + 6) % 7) / 7, 2, '0'}},
        {'V', {week, 2, '0'}},
        {'G', {iso_year, 1, '0'}},
        {'g', {iso_year % 100, 2, '0'}},
    };
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        if (rows[i].c == c) {
            *out = rows[i].field;
            return true;
        }
    }
    return false;
}

static void append(chat_runtime *rt, const moment *m, str format, int level);

static void conversion(chat_runtime *rt, const moment *m, char flag, char c, int level)
{
    sb *out = &rt->capture->text;
    number_field n;
    const char *parts = composite(c);
    if (parts && level < 2)
        append(rt, m, str_from(parts), level + 1);
    else if (numeric(m, c, &n)) {
        char pad = flag == '_' ? ' ' : flag == '0' ? '0' : n.pad;
        if (flag == '-')
            sb_printf(out, "%d", n.value);
        else
            sb_printf(out, pad == '0' ? "%0*d" : "%*d", n.width, n.value);
    } else if (c == 'B')
        sb_puts(out, months[m->t.month - 1]);
    else if (c == 'b')
        sb_printf(out, "%.3s", months[m->t.month - 1]);
    else if (c == 'A')
        sb_puts(out, weekdays[m->weekday]);
    else if (c == 'a')
        sb_printf(out, "%.3s", weekdays[m->weekday]);
    else if (c == 'p' || c == 'P')
        sb_puts(out, m->t.hour < 12 ? (c == 'p' ? "AM" : "am") : (c == 'p' ? "PM" : "pm"));
    else if (c == 'n' || c == 't')
        sb_putc(out, c == 'n' ? '\n' : '\t');
    else if (c == '%')
        sb_putc(out, '%');
    else if (c != 'Z' && c != 'z') {
        sb_putc(out, '%');
        if (flag)
            sb_putc(out, flag);
        sb_putc(out, c);
    }
}

static void append(chat_runtime *rt, const moment *m, str format, int level)
{
    for (size_t i = 0; i < format.length; i++) {
        char c = format.data[i];
        if (c != '%' || i + 1 == format.length) {
            sb_putc(&rt->capture->text, c);
            continue;
        }
        char flag = 0;
        c = format.data[++i];
        if ((c == '-' || c == '_' || c == '0') && i + 1 < format.length) {
            flag = c;
            c = format.data[++i];
        }
        conversion(rt, m, flag, c, level);
    }
    chat_capture_check(rt);
}

chat_value chat_strftime(chat_runtime *rt, str format, const chat_time *t)
{
    int64_t today = days_from_civil(t->year, t->month, t->day);
    moment m = {.t = *t,
                .weekday = (int)(((today + 4) % 7 + 7) % 7),
                .year_day = (int)(today - days_from_civil(t->year, 1, 1))};
    chat_capture c;
    chat_capture_begin(rt, &c);
    append(rt, &m, format, 0);
    return chat_capture_end(rt, &c);
}
