/* String operations that methods and filters share: case, stripping, replacing, padding, lines, character classes, escaping. */
#include <string.h>

#include "chat/jinja.h"

/* ---- case ----------------------------------------------------------------------------------------------------------- */

static void put_cased(sb *out, uint32_t c, chat_case how)
{
    uint32_t points[3];
    char bytes[4];
    int n = chat_char_case(c, how, points);
    for (int i = 0; i < n; i++)
        sb_add(out, bytes, chat_utf8_put(bytes, points[i]));
}

static bool is_cased(uint32_t c)
{
    return chat_char_class(c) & (CHAT_UPPER | CHAT_LOWER | CHAT_TITLE);
}

chat_value chat_text_case(chat_runtime *rt, str s, int how)
{
    chat_capture c;
    const char *p = s.data, *end = p + s.length;
    bool inside = false; /* behind the first character ('c') or a cased one ('t') */
    chat_capture_begin(rt, &c);
    while (p < end) {
        uint32_t point = chat_utf8_next(&p, end);
        if (how == 'u' || how == 'l')
            put_cased(&c.text, point, how == 'u' ? CHAT_CASE_UPPER : CHAT_CASE_LOWER);
        else if (how == 's')
            put_cased(&c.text, point,
                      chat_char_class(point) & CHAT_UPPER ? CHAT_CASE_LOWER : CHAT_CASE_UPPER);
        else {
            put_cased(&c.text, point, inside ? CHAT_CASE_LOWER : CHAT_CASE_TITLE);
            inside = how == 'c' || is_cased(point);
        }
    }
    return chat_capture_end(rt, &c);
}

/* ---- classes -------------------------------------------------------------------------------------------------------- */

/* islower, isupper, istitle: at least one cased character, and all cased ones so. */
static bool is_case(str s, int what)
{
    const char *p = s.data, *end = p + s.length;
    bool any = false, after_cased = false;
    while (p < end) {
        unsigned class = chat_char_class(chat_utf8_next(&p, end));
        bool upper = class & (CHAT_UPPER | CHAT_TITLE), lower = class & CHAT_LOWER;
        if (what == 'l' ? upper : what == 'u' ? (lower || (class & CHAT_TITLE)) : 0)
            return false;
        if (what == 't' && ((upper && after_cased) || (lower && !after_cased)))
            return false;
        after_cased = upper || lower;
        any |= after_cased;
    }
    return any;
}

bool chat_text_is(str s, int what)
{
    const char *p = s.data, *end = p + s.length;
    if (what == 'l' || what == 'u' || what == 't')
        return is_case(s, what);
    if (s.length == 0)
        return what == 'A' || what == 'p'; /* isascii, isprintable */
    for (bool first = true; p < end; first = false) {
        uint32_t c = chat_utf8_next(&p, end);
        unsigned class = chat_char_class(c);
        bool ok = what == 'A'   ? c < 0x80
                  : what == 's' ? chat_char_space(c)
                  : what == 'p' ? class & CHAT_PRINTABLE
                  : what == 'a' ? class & CHAT_ALPHA
                  : what == 'D' ? class & CHAT_DECIMAL
                  : what == 'd' ? class & CHAT_DIGIT
                  : what == 'n' ? class & CHAT_NUMERIC
                  : what == 'i' ? c == '_' || class & CHAT_ALPHA || (!first && class & CHAT_DECIMAL)
                                : class & (CHAT_ALPHA | CHAT_DECIMAL | CHAT_DIGIT | CHAT_NUMERIC);
        if (!ok)
            return false;
    }
    return true;
}

/* ---- stripping, replacing, padding ------------------------------------------------------------------------------------ */

static bool in_set(uint32_t c, chat_value chars)
{
    if (chars.kind != CHAT_V_STRING)
        return chat_char_space(c);
    const char *p = chars.as.text, *end = p + chars.length;
    while (p < end)
        if (chat_utf8_next(&p, end) == c)
            return true;
    return false;
}

chat_value chat_text_strip(chat_runtime *rt, chat_value s, chat_value chars, bool left, bool right)
{
    const char *p = s.as.text, *end = p + s.length;
    uint64_t set = chars.kind == CHAT_V_STRING ? chars.length : 1;
    if (chars.kind != CHAT_V_ABSENT && chars.kind != CHAT_V_NONE)
        chat_want_string(rt, chars, "strip");
    while (left && p < end) {
        const char *q = p;
        chat_spend(rt, set);
        if (!in_set(chat_utf8_next(&q, end), chars))
            break;
        p = q;
    }
    while (right && p < end) {
        const char *q = end;
        chat_spend(rt, set);
        if (!in_set(chat_utf8_previous(&q, p), chars))
            break;
        end = q;
    }
    return chat_string(rt, p, (size_t)(end - p));
}

chat_value chat_text_replace(chat_runtime *rt, str s, str from, str to, int64_t count)
{
    chat_capture c;
    const char *p = s.data, *end = p + s.length;
    chat_capture_begin(rt, &c);
    while (count != 0 && p <= end) {
        const char *hit =
            from.length ? (p < end ? memmem(p, (size_t)(end - p), from.data, from.length) : NULL)
                        : p;
        if (!hit)
            break;
        chat_write(rt, p, (size_t)(hit - p));
        chat_write(rt, to.data, to.length);
        count--;
        p = hit + from.length;
        if (from.length == 0) { /* between all characters and at both ends */
            if (p == end)
                return chat_capture_end(rt, &c);
            chat_utf8_next(&p, end);
            chat_write(rt, hit, (size_t)(p - hit));
        }
    }
    chat_write(rt, p, (size_t)(end - p));
    return chat_capture_end(rt, &c);
}

chat_value chat_text_center(chat_runtime *rt, chat_value s, int64_t width, str fill, int where)
{
    chat_capture c;
    int64_t length = (int64_t)chat_string_length(s), gap = width - length;
    if (gap <= 0)
        return s;
    int64_t left = where < 0 ? 0 : where > 0 ? gap : gap / 2 + (gap & width & 1);
    chat_capture_begin(rt, &c);
    for (int64_t i = 0; i < left; i++)
        chat_write(rt, fill.data, fill.length);
    chat_write(rt, s.as.text, s.length);
    for (int64_t i = left; i < gap; i++)
        chat_write(rt, fill.data, fill.length);
    return chat_capture_end(rt, &c);
}

chat_list chat_text_lines(chat_runtime *rt, str s, bool keep_ends)
{
    chat_list out = {0};
    const char *p = s.data, *end = p + s.length;
    while (p < end) {
        const char *from = p, *stop = p;
        uint32_t c = 0;
        while (p < end) {
            stop = p;
            c = chat_utf8_next(&p, end);
            bool line_end = (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 ||
                            c == 0x2028 || c == 0x2029;
            if (line_end)
                break;
            stop = p;
        }
        if (c == '\r' && p < end && *p == '\n')
            p++;
        chat_list_push(rt, &out, chat_string(rt, from, (size_t)((keep_ends ? p : stop) - from)));
        chat_spend(rt, (uint64_t)(p - from));
    }
    return out;
}

chat_value chat_escape(chat_runtime *rt, chat_value v)
{
    chat_capture c;
    chat_value s = chat_to_string(rt, v);
    if (s.flags & CHAT_FLAG_MARKUP)
        return s;
    chat_capture_begin(rt, &c);
    for (uint32_t i = 0; i < s.length; i++) {
        char b = s.as.text[i];
        const char *entity = b == '&'    ? "&amp;"
                             : b == '<'  ? "&lt;"
                             : b == '>'  ? "&gt;"
                             : b == '"'  ? "&#34;"
                             : b == '\'' ? "&#39;"
                                         : NULL;
        if (entity)
            sb_puts(&c.text, entity);
        else
            sb_putc(&c.text, b);
    }
    chat_value out = chat_capture_end(rt, &c);
    out.flags |= CHAT_FLAG_MARKUP;
    return out;
}

/* ---- sorting -------------------------------------------------------------------------------------------------------- */

/* Merge sort: stable, and comparisons may leave by longjmp at any time (qsort may not). */
void chat_sort(chat_runtime *rt, chat_list *items, const chat_value *keys, bool reverse)
{
    size_t n = items->n;
    if (n < 2)
        return;
    size_t *order = chat_alloc_array(rt, n, sizeof *order),
           *other = chat_alloc_array(rt, n, sizeof *other);
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t from = 0; from < n; from += 2 * width) {
            size_t middle = BASE_MIN(from + width, n), end = BASE_MIN(from + 2 * width, n);
            size_t a = from, b = middle;
            for (size_t k = from; k < end; k++) {
                bool take_b = false;
                if (a < middle && b < end) {
                    chat_value x = keys[order[a]], y = keys[order[b]];
                    /* reversed: equal ones keep their order, so only strictly greater ones overtake */
                    take_b = reverse ? chat_compare(rt, x, y, "<") == -1
                                     : chat_compare(rt, y, x, "<") == -1;
                } else
                    take_b = a >= middle;
                other[k] = take_b ? order[b++] : order[a++];
            }
        }
        size_t *swap = order;
        order = other;
        other = swap;
    }
    chat_value *sorted = chat_alloc_array(rt, n, sizeof *sorted);
    for (size_t i = 0; i < n; i++)
        sorted[i] = items->items[order[i]];
    items->items = sorted;
    items->capacity = n;
}
