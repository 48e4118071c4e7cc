/*
 * Stop strings in a stream: one Knuth-Morris-Pratt automaton a string. Its state is the length of the longest end of the text that begins
 * the string, so the greatest state is exactly what must be held back, and those bytes need no buffer: they are the beginning of that
 * string. Cost: strings × bytes, at most two steps each on average.
 */
#include "sample/inside.h"

#include <string.h>

typedef struct pattern {
    const char *bytes; /* in `text` */
    size_t length, state;
    uint32_t *back; /* back[i]: length of the longest proper border of the first i + 1 bytes */
} pattern;

struct sample_stop {
    int n, found; /* found: −1 while none is */
    int held_by;  /* whose beginning is held back */
    size_t held;
    pattern *patterns; /* [n] */
    char *text;
    uint32_t *back;
};

static void make_back(pattern *p)
{
    size_t border = 0;
    p->back[0] = 0;
    for (size_t i = 1; i < p->length; i++) {
        while (border > 0 && p->bytes[border] != p->bytes[i])
            border = p->back[border - 1];
        if (p->bytes[border] == p->bytes[i])
            border++;
        p->back[i] = (uint32_t)border;
    }
}

void sample_stop_destroy(sample_stop *s)
{
    if (!s)
        return;
    base_free(s->patterns);
    base_free(s->text);
    base_free(s->back);
    base_free(s);
}

status sample_stop_create(sample_stop **out, const str *strings, int n, err *e)
{
    size_t total = 0;
    for (int i = 0; i < n; i++) {
        if (strings[i].length == 0)
            return err_set(e, STATUS_INVALID, "stop string %d is empty", i);
        if (strings[i].length > SAMPLE_STOP_BYTES - total)
            return err_set(e, STATUS_TOO_LONG, "stop strings: more than %d bytes together",
                           SAMPLE_STOP_BYTES);
        total += strings[i].length;
    }
    sample_stop *s = base_zalloc(1, sizeof *s);
    if (s) {
        s->patterns = base_zalloc((size_t)BASE_MAX(n, 0), sizeof *s->patterns);
        s->text = base_alloc(total);
        s->back = base_zalloc(total, sizeof *s->back);
    }
    if (!s || !s->patterns || !s->text || !s->back) {
        sample_stop_destroy(s);
        return err_set(e, STATUS_NO_MEMORY, "stop strings: no memory");
    }
    s->n = BASE_MAX(n, 0);
    s->found = -1;
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        pattern *p = &s->patterns[i];
        memcpy(s->text + at, strings[i].data, strings[i].length);
        *p = (pattern){s->text + at, strings[i].length, 0, s->back + at};
        at += p->length;
        make_back(p);
    }
    *out = s;
    return STATUS_OK;
}

/* Advances all automata by one byte; returns the longest string that ends here, or −1, and what is to be held. */
static int step(sample_stop *s, char byte)
{
    int found = -1;
    s->held = 0;
    for (int i = 0; i < s->n; i++) {
        pattern *p = &s->patterns[i];
        while (p->state > 0 && p->bytes[p->state] != byte)
            p->state = p->back[p->state - 1];
        if (p->bytes[p->state] == byte)
            p->state++;
        if (p->state == p->length) {
            if (found < 0 || p->length > s->patterns[found].length)
                found = i;
            p->state = 0; /* nothing is read after a match */
        } else if (p->state > s->held) {
            s->held = p->state;
            s->held_by = i;
        }
    }
    return found;
}

/* Appends the first `keep` bytes of (what was held, then bytes). */
static void pass(sb *text, const char *held, size_t n_held, const char *bytes, size_t keep)
{
    sb_add(text, held, BASE_MIN(keep, n_held));
    if (keep > n_held)
        sb_add(text, bytes, keep - n_held);
}

int sample_stop_feed(sample_stop *s, const char *bytes, size_t n, sb *text)
{
    if (s->found >= 0)
        return s->found;
    const char *held = s->held ? s->patterns[s->held_by].bytes : "";
    size_t n_held = s->held;
    for (size_t i = 0; i < n; i++) {
        s->found = step(s, bytes[i]);
        if (s->found >= 0) {
            s->held = 0;
            pass(text, held, n_held, bytes, n_held + i + 1 - s->patterns[s->found].length);
            return s->found;
        }
    }
    pass(text, held, n_held, bytes, n_held + n - s->held);
    return -1;
}

void sample_stop_flush(sample_stop *s, sb *text)
{
    if (s->found < 0 && s->held)
        sb_add(text, s->patterns[s->held_by].bytes, s->held);
    s->held = 0;
    for (int i = 0; i < s->n; i++)
        s->patterns[i].state = 0;
}

size_t sample_stop_held(const sample_stop *s)
{
    return s->held;
}
