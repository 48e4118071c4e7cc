/*
 * The `pattern` of a string in a schema → the inside of a JSON string. What is written matches as a whole, so it holds a match, which is all
 * that JSON Schema wants: anchors at the two ends change nothing. Characters that JSON must escape are written only where nothing else
 * fits; classes and the dot stand for printable ASCII.
 *
 * One pass, by descent; an atom that is repeated is read again for each time, and an atom's end is found by reading it without writing.
 * Steps are counted, so that nested repeats of nothing end.
 *
 * Known: literals, classes, groups, |, * + ? {m,n} (lazy or not), \d \w \s and their opposites, \t \n \r \f \v \xHH \uHHHH (ASCII).
 * Source: ECMA-262, as JSON Schema wants it. Not here: looking ahead or behind, back references, \b, \p: refused.
 */
#include "sample/schema.h"

#include <string.h>

enum { STEPS_MAX = 300000, NEST_MAX = 40, ENDS_MAX = 256, TIMES_MAX = 20000 };

typedef struct pattern {
    grammar_program *p;
    const char *s;
    size_t n, at;
    bool dry; /* reads only */
    int nest, steps;
    const char *wrong; /* the first thing that is not known */
} pattern;

typedef struct ascii_set {
    bool has[128];
} ascii_set;

static void alternation(pattern *r);

static bool fail(pattern *r, const char *what)
{
    if (!r->wrong)
        r->wrong = what;
    r->at = r->n;
    return false;
}

static bool is_at(const pattern *r, char b)
{
    return r->at < r->n && r->s[r->at] == b;
}

static int emit(pattern *r, grammar_kind kind, int a)
{
    return r->dry ? 0 : grammar_emit(r->p, kind, a, 0);
}

/* A way past what follows: to be patched. */
static int split(pattern *r)
{
    return emit(r, GRAMMAR_SPLIT, grammar_here(r->p) + 1);
}

static void patch_here(pattern *r, int op, bool jump)
{
    if (!r->dry)
        grammar_patch(r->p, op, jump ? grammar_here(r->p) : -1, jump ? -1 : grammar_here(r->p));
}

/* ---- characters ---------------------------------------------------------------------------------------------------- */

/* One byte of the string's content, as JSON writes it. */
static void literal(pattern *r, unsigned char b)
{
    static const char named[] = "\"\"\\\\\nn\tt\rr\ff\bb";
    if (r->dry)
        return;
    for (size_t i = 0; named[i]; i += 2) {
        if ((unsigned char)named[i] != b)
            continue;
        const char escaped[2] = {'\\', named[i + 1]};
        grammar_text(r->p, escaped, 2);
        return;
    }
    const char raw = (char)b;
    if (b < 0x20)
        fail(r, "a control character");
    else
        grammar_text(r->p, &raw, 1);
}

/* What can be written as it is; else the first that can be escaped. */
static void one_of(pattern *r, const ascii_set *set)
{
    grammar_class c = {{0}};
    bool any = false;
    for (int b = 0x20; b < 0x7F; b++) {
        if (!set->has[b] || b == '"' || b == '\\')
            continue;
        c.bits[b / 64] |= (uint64_t)1 << b % 64;
        any = true;
    }
    if (any) {
        if (!r->dry)
            grammar_one(r->p, &c);
        return;
    }
    for (int b = 0; b < 128; b++)
        if (set->has[b]) {
            literal(r, (unsigned char)b);
            return;
        }
    fail(r, "a class without ASCII characters");
}

static void add_range(ascii_set *set, int from, int to)
{
    for (int b = from; b <= to && b < 128; b++)
        set->has[b] = true;
}

/* \d and its like. false: it is none. */
static bool add_kind(ascii_set *set, char kind)
{
    ascii_set one = {{false}};
    char lower = (char)(kind | 0x20);
    if (lower == 'd') {
        add_range(&one, '0', '9');
    } else if (lower == 'w') {
        add_range(&one, '0', '9');
        add_range(&one, 'a', 'z');
        add_range(&one, 'A', 'Z');
        add_range(&one, '_', '_');
    } else if (lower == 's') {
        add_range(&one, '\t', '\r');
        add_range(&one, ' ', ' ');
    } else {
        return false;
    }
    for (int b = 0; b < 128; b++)
        set->has[b] |= one.has[b] == (kind == lower);
    return true;
}

static int hex_value(char b)
{
    return b >= '0' && b <= '9'   ? b - '0'
           : b >= 'a' && b <= 'f' ? b - 'a' + 10
           : b >= 'A' && b <= 'F' ? b - 'A' + 10
                                  : -1;
}

/* Behind a backslash: a single character, −1 when it is not known. */
static int escaped(pattern *r)
{
    char b = r->s[r->at++];
    int digits = b == 'x' ? 2 : b == 'u' ? 4 : 0, value = 0;
    for (int i = 0; i < digits; i++) {
        int h = r->at < r->n ? hex_value(r->s[r->at]) : -1;
        if (h < 0)
            return -1;
        value = value * 16 + h;
        r->at++;
    }
    if (digits)
        return value > 0 && value < 128 ? value : -1;
    switch (b) {
    case 't':
        return '\t';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 'f':
        return '\f';
    default:
        return (b >= '0' && b <= '9') || (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') ||
                       (unsigned char)b >= 128
                   ? -1
                   : b;
    }
}

/* One end of a range in a class; −1: not ASCII, skipped; −2: a kind, added; −3: wrong. */
static int class_member(pattern *r, ascii_set *set)
{
    unsigned char b = (unsigned char)r->s[r->at];
    if (b >= 128) {
        r->at++;
        return -1;
    }
    if (b != '\\') {
        r->at++;
        return b;
    }
    r->at++;
    if (r->at >= r->n)
        return -3;
    if (add_kind(set, r->s[r->at])) {
        r->at++;
        return -2;
    }
    if (r->s[r->at] == 'b') {
        r->at++;
        return '\b';
    }
    int value = escaped(r);
    return value < 0 ? -3 : value;
}

static void class_of(pattern *r)
{
    ascii_set set = {{false}};
    bool not = false;
    r->at++;
    if (is_at(r, '^')) {
        not = true;
        r->at++;
    }
    while (r->at < r->n && r->s[r->at] != ']') {
        int from = class_member(r, &set), to = from;
        if (from == -3) {
            fail(r, "an escape in a class");
            return;
        }
        if (is_at(r, '-') && r->at + 1 < r->n && r->s[r->at + 1] != ']') {
            r->at++;
            to = class_member(r, &set);
            if (from < 0 || to < from) {
                fail(r, "a range of a class");
                return;
            }
        }
        if (from >= 0)
            add_range(&set, from, to);
    }
    if (!is_at(r, ']')) {
        fail(r, "a class without its end");
        return;
    }
    r->at++;
    for (int b = 0; not &&b < 128; b++)
        set.has[b] = !set.has[b];
    one_of(r, &set);
}

/* ---- structure ----------------------------------------------------------------------------------------------------- */

static void group(pattern *r)
{
    r->at++;
    if (is_at(r, '?')) {
        r->at++;
        if (is_at(r, ':')) {
            r->at++;
        } else if (is_at(r, '<') && r->at + 1 < r->n && r->s[r->at + 1] != '=' &&
                   r->s[r->at + 1] != '!') {
            while (r->at < r->n && r->s[r->at] != '>')
                r->at++;
            r->at += r->at < r->n;
        } else {
            fail(r, "looking ahead or behind");
            return;
        }
    }
    if (++r->nest > NEST_MAX) {
        fail(r, "groups nested so deep");
        return;
    }
    alternation(r);
    r->nest--;
    if (!is_at(r, ')'))
        fail(r, "a group without its end");
    else
        r->at++;
}

static void atom(pattern *r)
{
    ascii_set set = {{false}};
    unsigned char b = (unsigned char)r->s[r->at];
    if (++r->steps > STEPS_MAX) {
        r->p->failed = r->p->too_large = true;
        fail(r, "so many repeats");
        return;
    }
    switch (b) {
    case '(':
        group(r);
        return;
    case '[':
        class_of(r);
        return;
    case '.':
        r->at++;
        add_range(&set, 0, 127);
        one_of(r, &set);
        return;
    case '\\':
        r->at++;
        if (r->at < r->n && add_kind(&set, r->s[r->at])) {
            r->at++;
            one_of(r, &set);
            return;
        }
        int value = r->at < r->n ? escaped(r) : -1;
        if (value < 0)
            fail(r, "an escape");
        else
            literal(r, (unsigned char)value);
        return;
    case '^':
    case '$':
        if (b == '^' ? r->at > 0 : r->at + 1 < r->n)
            fail(r, "an anchor in the midst");
        else
            r->at++;
        return;
    case '*':
    case '+':
    case '?':
    case '{':
        fail(r, "a repeat of nothing");
        return;
    default:
        r->at++;
        literal(r, b);
        for (; b >= 0xC0 && r->at < r->n && ((unsigned char)r->s[r->at] & 0xC0) == 0x80; r->at++)
            literal(r, (unsigned char)r->s[r->at]); /* the rest of one character */
    }
}

static int number(pattern *r)
{
    int value = 0;
    while (r->at < r->n && r->s[r->at] >= '0' && r->s[r->at] <= '9' && value <= TIMES_MAX)
        value = value * 10 + (r->s[r->at++] - '0');
    return value;
}

/* * + ? {m} {m,} {m,n} and a ? behind; most −1: any number. */
static void repeat_of(pattern *r, int *least, int *most)
{
    *least = *most = 1;
    if (r->at >= r->n)
        return;
    switch (r->s[r->at]) {
    case '*':
        *least = 0;
        *most = -1;
        break;
    case '+':
        *most = -1;
        break;
    case '?':
        *least = 0;
        break;
    case '{':
        r->at++;
        *least = *most = number(r);
        if (is_at(r, ',')) {
            r->at++;
            *most = is_at(r, '}') ? -1 : number(r);
        }
        if (!is_at(r, '}') || *least > TIMES_MAX || *most > TIMES_MAX ||
            (*most >= 0 && *most < *least)) {
            fail(r, "a count of repeats");
            return;
        }
        break;
    default:
        return;
    }
    r->at++;
    if (is_at(r, '?'))
        r->at++;
}

static void quantified(pattern *r)
{
    size_t begin = r->at;
    bool was_dry = r->dry;
    int least, most;
    r->dry = true;
    atom(r);
    repeat_of(r, &least, &most);
    r->dry = was_dry;
    size_t behind = r->at;
    for (int i = 0; !r->dry && i < least && !r->wrong && !r->p->failed; i++) {
        r->at = begin;
        atom(r);
    }
    int last = -1;
    for (int i = least; !r->dry && (most < 0 ? i == least : i < most) && !r->wrong && !r->p->failed;
         i++) {
        int way = split(
            r); /* past all that may still come; until that is known it names the one before */
        if (r->p->failed)
            break;
        r->p->ops[way].b = (uint32_t)last;
        last = way;
        r->at = begin;
        atom(r);
        if (most < 0)
            emit(r, GRAMMAR_JUMP, way);
    }
    while (last >= 0 && !r->p->failed) {
        int before = (int)r->p->ops[last].b;
        grammar_patch(r->p, last, -1, grammar_here(r->p));
        last = before;
    }
    if (!r->wrong)
        r->at = behind;
}

static void sequence(pattern *r)
{
    while (r->at < r->n && r->s[r->at] != '|' && r->s[r->at] != ')')
        quantified(r);
}

static void alternation(pattern *r)
{
    int ends[ENDS_MAX], n_ends = 0;
    for (bool more = true; more && !r->wrong;) {
        size_t begin = r->at;
        bool was_dry = r->dry;
        r->dry = true;
        sequence(r);
        more = is_at(r, '|');
        r->dry = was_dry;
        if (!r->dry && !r->wrong) {
            r->at = begin;
            int other = more ? split(r) : -1;
            sequence(r);
            if (more) {
                if (n_ends == ENDS_MAX) {
                    fail(r, "so many alternatives");
                    return;
                }
                ends[n_ends++] = emit(r, GRAMMAR_JUMP, 0);
                patch_here(r, other, false);
            }
        }
        r->at += more && !r->wrong;
    }
    for (int i = 0; i < n_ends; i++)
        patch_here(r, ends[i], true);
}

const char *json_pattern(compiler *c, const char *text)
{
    pattern r = {.p = compiler_program(c), .s = text, .n = strlen(text)};
    grammar_text(r.p, "\"", 1);
    alternation(&r);
    if (!r.wrong && r.at < r.n)
        fail(&r, "an end of a group without its beginning");
    grammar_text(r.p, "\"", 1);
    return r.wrong;
}
