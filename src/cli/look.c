/* See look.h. Widths come from wcwidth after main's setlocale; where the locale knows no UTF-8, a character counts as one column. */
#include "cli/look.h"
#include "cli/cli.h"
#include "os/os.h"

#include <stdlib.h>
#include <string.h>
#include <wchar.h>

look look_of(int fd)
{
    look l = {.bold = "", .dim = "", .code = "", .warn = "", .off = ""};
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    l.terminal = os_is_terminal(fd);
    l.colour = l.terminal && !(no && *no) && term && *term && strcmp(term, "dumb");
    if (l.colour) {
        l.bold = "\033[1m";
        l.dim = "\033[2m";
        l.code = "\033[36m";
        l.warn = "\033[33m";
        l.off = "\033[0m";
    }
    return l;
}

/* ---- text ---------------------------------------------------------------------------------------------------------- */

/* Bytes of the character at text (1 for a byte that begins none) and its columns. */
static size_t character(const char *text, int *columns)
{
    mbstate_t state = {0};
    wchar_t wide;
    size_t n = mbrtowc(&wide, text, strlen(text), &state);
    *columns = 1;
    if (n == 0 || n == (size_t)-1 || n == (size_t)-2) {
        n = 1;
        while ((text[n] & 0xc0) == 0x80) /* a locale without UTF-8 */
            n++;
        return n;
    }
    int w = wcwidth(wide);
    *columns = w < 0 ? 1 : w;
    return n;
}

int look_width(const char *text)
{
    int width = 0;
    while (*text) {
        int columns;
        text += character(text, &columns);
        width += columns;
    }
    return width;
}

void look_clean(sb *out, const char *text, size_t n)
{
    size_t begin = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        bool c1 = c == 0xc2 && i + 1 < n && (unsigned char)text[i + 1] >= 0x80 &&
                  (unsigned char)text[i + 1] < 0xa0;
        if (!c1 && ((c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t'))
            continue;
        sb_add(out, text + begin, i - begin);
        sb_putc(out, '?');
        i += c1;
        begin = i + 1;
    }
    if (begin < n)
        sb_add(out, text + begin, n - begin);
}

const char *look_ago(char out[32], int64_t unix_s, int64_t now_s)
{
    static const struct {
        int64_t seconds;
        const char *name;
    } units[] = {{31557600, "year"}, {2629800, "month"}, {604800, "week"},
                 {86400, "day"},     {3600, "hour"},     {60, "minute"}};
    int64_t passed = now_s - unix_s;
    out[0] = '\0';
    if (unix_s <= 0)
        return out;
    for (size_t i = 0; i < BASE_COUNT(units); i++) {
        if (passed < units[i].seconds)
            continue;
        long long n = (long long)(passed / units[i].seconds);
        snprintf(out, 32, "%lld %s%s ago", n, units[i].name, n == 1 ? "" : "s");
        return out;
    }
    snprintf(out, 32, "just now");
    return out;
}

const char *look_span(char out[32], uint64_t us)
{
    uint64_t s = us / 1000000;
    if (us == UINT64_MAX)
        snprintf(out, 32, "never");
    else if (s < 120)
        snprintf(out, 32, "%llu s", (unsigned long long)s);
    else if (s < 7200)
        snprintf(out, 32, "%llu min", (unsigned long long)s / 60);
    else if (s < 172800)
        snprintf(out, 32, "%llu h", (unsigned long long)s / 3600);
    else
        snprintf(out, 32, "%llu days", (unsigned long long)s / 86400);
    return out;
}

const char *look_count(char out[32], uint64_t n)
{
    static const char units[] = " kMBT";
    double value = (double)n;
    int unit = 0;
    while (value >= 999.5 && units[unit + 1]) {
        value /= 1000;
        unit++;
    }
    if (unit == 0)
        snprintf(out, 32, "%llu", (unsigned long long)n);
    else
        snprintf(out, 32, "%.3g %c", value, units[unit]);
    return out;
}

/* ---- tables -------------------------------------------------------------------------------------------------------- */

void look_table_row(look_table *t, const char *const *cells)
{
    size_t n = (size_t)t->n_columns;
    if (t->n_rows == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 16;
        char **grown = base_realloc(t->cells, capacity * n * sizeof *grown);
        if (!grown) {
            t->failed = true;
            return;
        }
        t->cells = grown;
        t->capacity = capacity;
    }
    char **row = t->cells + t->n_rows++ * n;
    for (size_t i = 0; i < n; i++) {
        sb clean = {0};
        look_clean(&clean, cells[i], strlen(cells[i]));
        row[i] = sb_take(&clean);
        t->failed |= !row[i];
    }
}

/* Prints text in `width` columns, cut with … when it is longer. */
static void print_cell(FILE *out, const char *text, int width, bool right, bool last)
{
    int has = look_width(text);
    if (has <= width) {
        int pad = width - has;
        fprintf(out, "%*s%s%*s", right ? pad : 0, "", text, right || last ? 0 : pad, "");
        return;
    }
    int used = 0;
    while (*text) {
        int columns;
        size_t n = character(text, &columns);
        if (used + columns > width - 1)
            break;
        fwrite(text, 1, n, out);
        used += columns;
        text += n;
    }
    fprintf(out, "…%*s", last ? 0 : width - 1 - used, "");
}

void look_table_print(look_table *t, FILE *out)
{
    int widths[LOOK_COLUMNS], total = 0, n = t->n_columns;
    look l = look_of(fileno(out));
    if (t->n_rows == 0)
        return;
    for (int i = 0; i < n; i++) {
        widths[i] = look_width(t->heads[i]);
        for (size_t r = 0; r < t->n_rows; r++)
            widths[i] = BASE_MAX(widths[i], look_width(t->cells[r * (size_t)n + (size_t)i]));
        total += widths[i] + (i ? 2 : 0);
    }
    int columns = os_terminal_columns(fileno(out));
    if (l.terminal && total > columns)
        widths[t->gives] = BASE_MAX(widths[t->gives] - (total - columns), 8);
    for (size_t r = 0; r <= t->n_rows; r++) {
        for (int i = 0; i < n; i++) {
            const char *cell = r ? t->cells[(r - 1) * (size_t)n + (size_t)i] : t->heads[i];
            fputs(i ? "  " : r ? "" : l.dim, out);
            print_cell(out, cell, widths[i], t->right[i], i + 1 == n);
        }
        fprintf(out, "%s\n", r ? "" : l.off);
    }
}

void look_table_fini(look_table *t)
{
    for (size_t i = 0; i < t->n_rows * (size_t)t->n_columns; i++)
        base_free(t->cells[i]);
    base_free(t->cells);
    t->cells = NULL;
    t->n_rows = t->capacity = 0;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

json_t *look_json_text(const char *text)
{
    json_t *value = json_string(text);
    if (value)
        return value;
    char *copy = base_strdup(text);
    for (char *p = copy; p && *p; p++)
        if (*p & 0x80)
            *p = '?';
    value = copy ? json_string(copy) : NULL;
    base_free(copy);
    return value;
}

int look_json(const struct cli *c, json_t *value)
{
    char *text = value ? json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(value);
    if (!text)
        return cli_fail(c, "no memory for the JSON");
    puts(text);
    free(text); /* jansson's */
    return 0;
}
