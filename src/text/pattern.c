/*
 * Our own matcher for splitting patterns: an ordered list of alternatives, each a sequence of
 * quantified character classes, simple groups `(?i:'s|'ll)`, and one-character lookaheads. All
 * known pre-tokenisers are of this form. Semantics are those of a backtracking regex: leftmost,
 * first alternative that matches, greedy, possessive where written.
 *
 * A class is a table over the 128 ASCII characters and a set of property bytes (unicode_table.c),
 * plus explicit ranges; so every machine splits alike whatever Unicode its regex library knows.
 * What does not fit (nested quantifiers, back references, lazy quantifiers, anchors, …) is left to
 * PCRE2: regex.c.
 *
 * Hostile patterns may backtrack quadratically: a call has a budget of steps (scratch->budget);
 * when it is spent nothing matches any more and the rest of the text is one piece. Known patterns
 * are linear.
 */
#include "text/inside.h"
#include "text/unicode.h"

#include <string.h>

#define MAX_ALTERNATIVES 16
#define MAX_ITEMS        32
#define MAX_CLASSES      96
#define MAX_GROUP        24
#define UNBOUNDED        UINT32_MAX
#define NO_MATCH         SIZE_MAX

typedef struct char_class {
    uint8_t byte[256];    /* 0 no, 1 yes, 2 the first byte of something longer: look closer */
    uint64_t property[2]; /* bit per property byte, for characters beyond ASCII */
    uint32_t *ranges;     /* [2 n_ranges] inclusive, sorted; owned */
    uint32_t n_ranges;
    bool negated; /* of property and ranges; byte[] is already right */
} char_class;

typedef enum item_kind { ITEM_CLASS, ITEM_GROUP, ITEM_AHEAD, ITEM_NOT_AHEAD } item_kind;

typedef struct item {
    item_kind kind;
    bool possessive;
    uint16_t class;            /* CLASS, AHEAD, NOT_AHEAD */
    uint16_t group, group_end; /* GROUP: range of group_words */
    uint32_t min, max;
} item;

/* One alternative of a group: a few single characters. */
typedef struct group_word {
    uint16_t class[8];
    uint16_t length;
} group_word;

typedef struct sequence {
    item items[MAX_ITEMS];
    int n;
} sequence;

struct text_pattern {
    struct text_regex *regex; /* PCRE2 instead of all below */
    char_class *classes[MAX_CLASSES];
    int n_classes;
    sequence *alternatives[MAX_ALTERNATIVES];
    int n_alternatives;
    group_word words[MAX_GROUP * 4];
    int n_words;
    uint16_t by_byte[256]; /* alternatives that can begin with this byte */
};

/* ---- classes --------------------------------------------------------------------------------------------------- */

/* While it is being read: ASCII as bits, the rest as properties and ranges. */
typedef struct class_set {
    bool ascii[128];
    uint64_t property[2];
    uint32_t ranges[2 * 256];
    uint32_t n_ranges;
    bool negated; /* only of what lies beyond ASCII, and only when there are ranges */
} class_set;

static void set_range(class_set *s, uint32_t lo, uint32_t hi)
{
    for (uint32_t c = lo; c <= hi && c < 128; c++)
        s->ascii[c] = true;
    if (hi >= 128) {
        s->ranges[2 * s->n_ranges] = BASE_MAX(lo, 128u);
        s->ranges[2 * s->n_ranges + 1] = hi;
        s->n_ranges++;
    }
}

static void set_categories(class_set *s, uint32_t mask, bool space, bool han)
{
    for (unsigned b = 0; b < 128; b++)
        if ((mask >> (b & PROPERTY_CATEGORY) & 1) || (space && (b & PROPERTY_SPACE)) ||
            (han && (b & PROPERTY_HAN)))
            s->property[b >> 6] |= (uint64_t)1 << (b & 63);
    for (uint32_t c = 0; c < 128; c++) {
        unsigned b = text_property(c);
        if ((mask >> (b & PROPERTY_CATEGORY) & 1) || (space && (b & PROPERTY_SPACE)))
            s->ascii[c] = true;
    }
}

static void set_invert(class_set *s)
{
    for (int c = 0; c < 128; c++)
        s->ascii[c] = !s->ascii[c];
    if (s->n_ranges) {
        s->negated = !s->negated;
    } else {
        s->property[0] = ~s->property[0];
        s->property[1] = ~s->property[1];
    }
}

/* a |= b; false when b is a negated set with ranges, or there are too many. */
static bool set_union(class_set *a, const class_set *b)
{
    if (b->negated || a->n_ranges + b->n_ranges > 255)
        return false;
    for (int c = 0; c < 128; c++)
        a->ascii[c] |= b->ascii[c];
    a->property[0] |= b->property[0];
    a->property[1] |= b->property[1];
    memcpy(a->ranges + 2 * a->n_ranges, b->ranges, b->n_ranges * 2 * sizeof *b->ranges);
    a->n_ranges += b->n_ranges;
    return true;
}

static bool set_intersect(class_set *a, const class_set *b)
{
    if (a->n_ranges || b->n_ranges)
        return false;
    for (int c = 0; c < 128; c++)
        a->ascii[c] &= b->ascii[c];
    a->property[0] &= b->property[0];
    a->property[1] &= b->property[1];
    return true;
}

static bool class_has(const char_class *k, uint32_t c)
{
    unsigned b = text_property(c);
    bool in = k->property[b >> 6] >> (b & 63) & 1;
    if (!in && k->n_ranges) {
        size_t lo = 0, hi = k->n_ranges;
        while (lo < hi) {
            size_t mid = (lo + hi) / 2;
            if (c > k->ranges[2 * mid + 1])
                lo = mid + 1;
            else
                hi = mid;
        }
        in = lo < k->n_ranges && c >= k->ranges[2 * lo];
    }
    return in != k->negated;
}

/* ---- reading a pattern ------------------------------------------------------------------------------------------ */

typedef struct reader {
    const char *p, *end;
    text_pattern *out;
    bool ignore_case;
    bool no_memory;
} reader;

static int sort_range(uint32_t *r, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++)
        for (uint32_t j = i; j > 0 && r[2 * j - 2] > r[2 * j]; j--) {
            uint32_t a = r[2 * j], b = r[2 * j + 1];
            r[2 * j] = r[2 * j - 2];
            r[2 * j + 1] = r[2 * j - 1];
            r[2 * j - 2] = a;
            r[2 * j - 1] = b;
        }
    /* Overlapping ones become one, so that the binary search is right. */
    uint32_t k = 0;
    for (uint32_t i = 1; i < n; i++) {
        if (r[2 * i] <= r[2 * k + 1]) {
            r[2 * k + 1] = BASE_MAX(r[2 * k + 1], r[2 * i + 1]);
        } else {
            k++;
            r[2 * k] = r[2 * i];
            r[2 * k + 1] = r[2 * i + 1];
        }
    }
    return n ? (int)k + 1 : 0;
}

/* Returns the class's number, or -1. */
static int add_class(reader *r, class_set *s)
{
    text_pattern *p = r->out;
    if (p->n_classes == MAX_CLASSES)
        return -1;
    char_class *k = base_zalloc(1, sizeof *k);
    if (!k) {
        r->no_memory = true;
        return -1;
    }
    p->classes[p->n_classes] = k;
    for (int c = 0; c < 128; c++)
        k->byte[c] = s->ascii[c];
    k->property[0] = s->property[0];
    k->property[1] = s->property[1];
    k->negated = s->negated;
    k->n_ranges = (uint32_t)sort_range(s->ranges, s->n_ranges);
    bool beyond = k->property[0] || k->property[1] || k->n_ranges || k->negated;
    memset(k->byte + 128, beyond ? 2 : 0, 128);
    if (k->n_ranges) {
        k->ranges = base_alloc(k->n_ranges * 2 * sizeof *k->ranges);
        if (!k->ranges) {
            r->no_memory = true;
            return -1;
        }
        memcpy(k->ranges, s->ranges, k->n_ranges * 2 * sizeof *k->ranges);
    }
    for (int i = 0; i < p->n_classes; i++) { /* the same class is kept once */
        char_class *o = p->classes[i];
        if (!memcmp(o->byte, k->byte, 256) && !memcmp(o->property, k->property, 16) &&
            o->negated == k->negated && o->n_ranges == k->n_ranges &&
            (!k->n_ranges || !memcmp(o->ranges, k->ranges, k->n_ranges * 2 * sizeof *k->ranges))) {
            base_free(k->ranges);
            base_free(k);
            p->classes[p->n_classes] = NULL;
            return i;
        }
    }
    return p->n_classes++;
}

static const struct {
    const char *name;
    uint32_t mask;
} category_names[] = {
    {"L", 31u << CAT_LU},  {"Letter", 31u << CAT_LU}, {"Lu", 1u << CAT_LU},
    {"Ll", 1u << CAT_LL},  {"Lt", 1u << CAT_LT},      {"Lm", 1u << CAT_LM},
    {"Lo", 1u << CAT_LO},  {"M", 7u << CAT_MN},       {"Mn", 1u << CAT_MN},
    {"Mc", 1u << CAT_MC},  {"Me", 1u << CAT_ME},      {"N", 7u << CAT_ND},
    {"Nd", 1u << CAT_ND},  {"Nl", 1u << CAT_NL},      {"No", 1u << CAT_NO},
    {"P", 127u << CAT_PC}, {"Punct", 127u << CAT_PC}, {"Pc", 1u << CAT_PC},
    {"Pd", 1u << CAT_PD},  {"Ps", 1u << CAT_PS},      {"Pe", 1u << CAT_PE},
    {"Pi", 1u << CAT_PI},  {"Pf", 1u << CAT_PF},      {"Po", 1u << CAT_PO},
    {"S", 15u << CAT_SM},  {"Sm", 1u << CAT_SM},      {"Sc", 1u << CAT_SC},
    {"Sk", 1u << CAT_SK},  {"So", 1u << CAT_SO},      {"Z", 7u << CAT_ZS},
    {"Zs", 1u << CAT_ZS},  {"Zl", 1u << CAT_ZL},      {"Zp", 1u << CAT_ZP},
    {"Cc", 1u << CAT_CC},  {"Cf", 1u << CAT_CF},      {"Co", 1u << CAT_CO},
    {"C", 31u << CAT_CC},
};

/* \p{Name}, \P{Name} or \pL; r->p stands behind the p. */
static bool read_property(reader *r, bool invert, class_set *s)
{
    const char *name = r->p;
    size_t n = 1;
    if (r->p == r->end)
        return false;
    if (*r->p == '{') {
        name++;
        const char *close = memchr(name, '}', (size_t)(r->end - name));
        if (!close)
            return false;
        n = (size_t)(close - name);
        r->p = close + 1;
    } else {
        r->p++;
    }
    if (n && *name == '^') {
        invert = !invert;
        name++;
        n--;
    }
    str wanted = {name, n};
    if (str_is(wanted, "Han")) {
        set_categories(s, 0, false, true);
    } else {
        size_t i = 0;
        while (i < BASE_COUNT(category_names) && !str_is(wanted, category_names[i].name))
            i++;
        if (i == BASE_COUNT(category_names))
            return false;
        set_categories(s, category_names[i].mask, false, false);
    }
    if (invert)
        set_invert(s);
    return true;
}

static void set_word(class_set *s)
{
    set_categories(s, (1u << (CAT_NL + 1)) - 1, false, false);
    set_categories(s, 1u << CAT_PC, false, false);
    static const uint32_t more[][2] = {{0x200C, 0x200D},
                                       {0x24B6, 0x24E9},
                                       {0x1F130, 0x1F149},
                                       {0x1F150, 0x1F169},
                                       {0x1F170, 0x1F189}};
    for (size_t i = 0; i < BASE_COUNT(more); i++)
        set_range(s, more[i][0], more[i][1]);
}

static bool read_hex(reader *r, int fixed, uint32_t *c)
{
    int digits = 0;
    bool brace = r->p < r->end && *r->p == '{';
    *c = 0;
    if (brace)
        r->p++;
    for (; r->p < r->end && digits < (brace ? 6 : fixed); r->p++, digits++) {
        int x = *r->p;
        int v = x >= '0' && x <= '9'                 ? x - '0'
                : (x | 32) >= 'a' && (x | 32) <= 'f' ? (x | 32) - 'a' + 10
                                                     : -1;
        if (v < 0)
            break;
        *c = *c * 16 + (uint32_t)v;
    }
    if (brace && (r->p == r->end || *r->p++ != '}'))
        return false;
    return digits && (brace || digits == fixed) && *c < 0x110000;
}

/* Behind a backslash: either a set (*single = UINT32_MAX) or one character. */
static bool read_escape(reader *r, class_set *s, uint32_t *single)
{
    if (r->p == r->end)
        return false;
    int x = (unsigned char)*r->p++;
    *single = UINT32_MAX;
    switch (x) {
    case 's':
    case 'S':
        set_categories(s, 0, true, false);
        if (x == 'S')
            set_invert(s);
        return true;
    case 'd':
    case 'D':
        set_categories(s, 1u << CAT_ND, false, false);
        if (x == 'D')
            set_invert(s);
        return true;
    case 'w':
        set_word(s);
        return true;
    case 'p':
    case 'P':
        return read_property(r, x == 'P', s);
    case 'n':
        *single = '\n';
        return true;
    case 'r':
        *single = '\r';
        return true;
    case 't':
        *single = '\t';
        return true;
    case 'f':
        *single = '\f';
        return true;
    case 'v':
        *single = '\v';
        return true;
    case 'x':
        return read_hex(r, 2, single);
    case 'u':
        return read_hex(r, 4, single);
    default:
        *single = (uint32_t)x;
        return x < 128 && text_is_punctuation((uint32_t)x);
    }
}

static void set_single(const reader *r, class_set *s, uint32_t c)
{
    set_range(s, c, c);
    if (r->ignore_case && c < 128 && ((c | 32) >= 'a' && (c | 32) <= 'z')) {
        set_range(s, c ^ 32, c ^ 32);
        if ((c | 32) == 's')
            set_range(s, 0x17F, 0x17F); /* long s */
        if ((c | 32) == 'k')
            set_range(s, 0x212A, 0x212A); /* Kelvin sign */
    }
}

static bool read_character(reader *r, uint32_t *c)
{
    int length;
    *c = text_utf8_next(r->p, (size_t)(r->end - r->p), &length);
    r->p += length;
    return *c < 0x110000 && (*c < 128 || !r->ignore_case);
}

static bool read_class(reader *r, class_set *s, int depth);

/* &&[ … ] as the last thing in a class; r->p stands behind the &&. */
static bool read_intersection(reader *r, class_set *s, int depth)
{
    class_set right = {0};
    if (r->p == r->end || *r->p++ != '[')
        return false;
    if (!read_class(r, &right, depth + 1) || !set_intersect(s, &right))
        return false;
    return r->p < r->end && *r->p == ']';
}

/* One end of a range, or a single character or set (then *c is UINT32_MAX and s has it). */
static bool read_class_end(reader *r, class_set *s, uint32_t *c)
{
    if (*r->p == '\\') {
        r->p++;
        return read_escape(r, s, c);
    }
    return read_character(r, c);
}

/* A member of a class: a set, a character or a range. */
static bool read_class_member(reader *r, class_set *s)
{
    class_set part = {0};
    uint32_t lo, hi;
    if (s->n_ranges >= 250 || !read_class_end(r, &part, &lo))
        return false;
    if (lo == UINT32_MAX)
        return set_union(s, &part);
    if (r->end - r->p < 2 || r->p[0] != '-' || r->p[1] == ']') {
        set_single(r, s, lo);
        return true;
    }
    r->p++;
    if (*r->p == '[' || !read_class_end(r, &part, &hi) || hi == UINT32_MAX)
        return false;
    if (hi < lo || r->ignore_case)
        return false;
    set_range(s, lo, hi);
    return true;
}

/* [ … ]; r->p stands behind the bracket. */
static bool read_class(reader *r, class_set *s, int depth)
{
    bool invert = false, first = true;
    if (depth > 3)
        return false;
    if (r->p < r->end && *r->p == '^') {
        invert = true;
        r->p++;
    }
    for (;; first = false) {
        size_t left = (size_t)(r->end - r->p);
        if (!left)
            return false;
        if (*r->p == ']' && !first)
            break;
        if (left > 2 && r->p[0] == '&' && r->p[1] == '&') {
            r->p += 2;
            if (!read_intersection(r, s, depth))
                return false;
        } else if (*r->p == '[') {
            class_set part = {0};
            if (left > 1 && r->p[1] == ':')
                return false;
            r->p++;
            if (!read_class(r, &part, depth + 1) || !set_union(s, &part))
                return false;
        } else if (!read_class_member(r, s)) {
            return false;
        }
    }
    r->p++;
    if (invert)
        set_invert(s);
    return true;
}

/* One character or class; false when something else stands there. */
static bool read_atom(reader *r, int *class)
{
    class_set s = {0};
    uint32_t c;
    if (r->p == r->end)
        return false;
    if (*r->p == '[') {
        r->p++;
        if (!read_class(r, &s, 0))
            return false;
    } else if (*r->p == '\\') {
        r->p++;
        if (!read_escape(r, &s, &c))
            return false;
        if (c != UINT32_MAX)
            set_single(r, &s, c);
    } else if (memchr(".^$()*+?{}|", *r->p, 11)) {
        return false;
    } else if (!read_character(r, &c)) {
        return false;
    } else {
        set_single(r, &s, c);
    }
    *class = add_class(r, &s);
    return *class >= 0;
}

static bool read_number(reader *r, uint32_t *v)
{
    bool any = false;
    for (*v = 0; r->p < r->end && *r->p >= '0' && *r->p <= '9' && *v < 100000; r->p++, any = true)
        *v = *v * 10 + (uint32_t)(*r->p - '0');
    return any;
}

static bool read_quantifier(reader *r, item *i)
{
    i->min = i->max = 1;
    if (r->p == r->end)
        return true;
    switch (*r->p) {
    case '?':
        i->min = 0;
        break;
    case '*':
        i->min = 0;
        i->max = UNBOUNDED;
        break;
    case '+':
        i->max = UNBOUNDED;
        break;
    case '{':
        r->p++;
        if (!read_number(r, &i->min) || r->p == r->end)
            return false;
        i->max = i->min;
        if (*r->p == ',') {
            r->p++;
            i->max = UNBOUNDED;
            if (r->p < r->end && *r->p != '}' && !read_number(r, &i->max))
                return false;
        }
        if (r->p == r->end || *r->p != '}' || i->max < i->min || i->max == 0)
            return false;
        break;
    default:
        return true;
    }
    r->p++;
    if (r->p < r->end && *r->p == '?')
        return false; /* lazy */
    if (r->p < r->end && *r->p == '+') {
        i->possessive = true;
        r->p++;
    }
    return true;
}

/* (a|b), (?:a|b), (?i:a|b): alternatives of single characters; nothing refers back. r->p stands at
 * the first one. */
static bool read_group(reader *r, item *i)
{
    text_pattern *p = r->out;
    i->kind = ITEM_GROUP;
    i->group = (uint16_t)p->n_words;
    for (;;) {
        if (p->n_words == (int)BASE_COUNT(p->words) || p->n_words - i->group == MAX_GROUP)
            return false;
        group_word *w = &p->words[p->n_words++];
        memset(w, 0, sizeof *w);
        while (r->p < r->end && *r->p != '|' && *r->p != ')') {
            int class;
            if (w->length == BASE_COUNT(w->class) || !read_atom(r, &class))
                return false;
            w->class[w->length++] = (uint16_t) class;
        }
        if (r->p == r->end || !w->length)
            return false;
        if (*r->p++ == ')')
            break;
    }
    i->group_end = (uint16_t)p->n_words;
    r->ignore_case = false;
    if (!read_quantifier(r, i))
        return false;
    return i->max == 1 && !i->possessive;
}

static bool read_item(reader *r, item *i)
{
    int class;
    memset(i, 0, sizeof *i);
    size_t left = (size_t)(r->end - r->p);
    if (*r->p == '$') { /* no character but a newline follows: the end of a line, as in Ruby */
        class_set other = {0};
        set_range(&other, '\n', '\n');
        set_invert(&other);
        class = add_class(r, &other);
        if (class < 0)
            return false;
        *i = (item){.kind = ITEM_NOT_AHEAD, .class = (uint16_t) class, .min = 1, .max = 1};
        r->p++;
        return r->p == r->end || !memchr("?*+{", *r->p, 4);
    }
    if (*r->p != '(') {
        if (!read_atom(r, &class) || !read_quantifier(r, i))
            return false;
        i->class = (uint16_t) class;
        return true;
    }
    if (left > 3 && !memcmp(r->p, "(?:", 3)) {
        r->p += 3;
        return read_group(r, i);
    }
    if (left > 2 && r->p[1] != '?') {
        r->p += 1;
        return read_group(r, i);
    }
    if (left > 4 && !memcmp(r->p, "(?i:", 4)) {
        r->p += 4;
        r->ignore_case = true;
        return read_group(r, i);
    }
    if (left > 3 && (!memcmp(r->p, "(?!", 3) || !memcmp(r->p, "(?=", 3))) {
        i->kind = r->p[2] == '!' ? ITEM_NOT_AHEAD : ITEM_AHEAD;
        i->min = i->max = 1;
        r->p += 3;
        if (!read_atom(r, &class) || r->p == r->end || *r->p++ != ')')
            return false;
        i->class = (uint16_t) class;
        return r->p == r->end || !memchr("?*+{", *r->p, 4);
    }
    return false;
}

static bool read_pattern(reader *r)
{
    text_pattern *p = r->out;
    for (;;) {
        if (p->n_alternatives == MAX_ALTERNATIVES)
            return false;
        sequence *q = base_zalloc(1, sizeof *q);
        if (!q) {
            r->no_memory = true;
            return false;
        }
        p->alternatives[p->n_alternatives++] = q;
        bool matches_something = false;
        while (r->p < r->end && *r->p != '|') {
            if (q->n == MAX_ITEMS || !read_item(r, &q->items[q->n]))
                return false;
            item *i = &q->items[q->n++];
            if (i->kind <= ITEM_GROUP && i->min)
                matches_something = true;
        }
        if (!matches_something)
            return false; /* may be empty: PCRE2's */
        if (r->p == r->end)
            return true;
        r->p++;
    }
}

/* Which alternatives can begin with which byte. */
static void find_first_bytes(text_pattern *p)
{
    for (int a = 0; a < p->n_alternatives; a++) {
        const sequence *q = p->alternatives[a];
        for (int k = 0; k < q->n; k++) {
            const item *i = &q->items[k];
            if (i->kind == ITEM_CLASS) {
                for (int b = 0; b < 256; b++)
                    if (p->classes[i->class]->byte[b])
                        p->by_byte[b] |= (uint16_t)(1u << a);
            } else if (i->kind == ITEM_GROUP) {
                for (int w = i->group; w < i->group_end; w++)
                    for (int b = 0; b < 256; b++)
                        if (p->classes[p->words[w].class[0]]->byte[b])
                            p->by_byte[b] |= (uint16_t)(1u << a);
            }
            if (i->kind <= ITEM_GROUP && i->min)
                break;
        }
    }
}

status text_pattern_compile(text_pattern **out, const char *regex, size_t n, err *e)
{
    text_pattern *p = base_zalloc(1, sizeof *p);
    if (!p)
        return err_set(e, STATUS_NO_MEMORY, "text: no memory for a splitting pattern");
    reader r = {regex, regex + n, p, false, false};
    if (n && read_pattern(&r)) {
        find_first_bytes(p);
        *out = p;
        return STATUS_OK;
    }
    text_pattern_free(p);
    if (r.no_memory)
        return err_set(e, STATUS_NO_MEMORY, "text: no memory for a splitting pattern");
    return text_pattern_compile_pcre(out, regex, n, e);
}

status text_pattern_compile_pcre(text_pattern **out, const char *regex, size_t n, err *e)
{
    text_pattern *p = base_zalloc(1, sizeof *p);
    if (!p)
        return err_set(e, STATUS_NO_MEMORY, "text: no memory for a splitting pattern");
    status s = text_regex_compile(&p->regex, regex, n, e);
    if (s != STATUS_OK) {
        text_pattern_free(p);
        return s;
    }
    *out = p;
    return STATUS_OK;
}

void text_pattern_free(text_pattern *p)
{
    if (!p)
        return;
    text_regex_free(p->regex);
    for (int i = 0; i < MAX_CLASSES; i++)
        if (p->classes[i]) {
            base_free(p->classes[i]->ranges);
            base_free(p->classes[i]);
        }
    for (int i = 0; i < p->n_alternatives; i++)
        base_free(p->alternatives[i]);
    base_free(p);
}

bool text_pattern_is_own(const text_pattern *p)
{
    return !p->regex;
}

/* ---- matching --------------------------------------------------------------------------------------------------- */

typedef struct run {
    const text_pattern *p;
    const char *text;
    size_t end;
    uint64_t *budget;
} run;

/* Is there one of the class at `at`? *length: its bytes. */
static inline bool one(const run *r, const char_class *k, size_t at, int *length)
{
    if (at >= r->end)
        return false;
    uint8_t b = k->byte[(unsigned char)r->text[at]];
    *length = 1;
    if (b < 2)
        return b;
    return class_has(k, text_utf8_next(r->text + at, r->end - at, length));
}

/* As many as there are, up to max: their end, and how many in *count. */
static size_t scan(const run *r, const char_class *k, size_t at, uint32_t max, uint32_t *count)
{
    uint32_t n = 0;
    size_t from = at;
    while (n < max && at < r->end) {
        uint8_t b = k->byte[(unsigned char)r->text[at]];
        int length = 1;
        if (!b)
            break;
        if (b == 2 && !class_has(k, text_utf8_next(r->text + at, r->end - at, &length)))
            break;
        at += (size_t)length;
        n++;
    }
    size_t cost = at - from + 1;
    *r->budget = *r->budget > cost ? *r->budget - cost : 0;
    *count = n;
    return at;
}

static size_t match_word(const run *r, const group_word *w, size_t at)
{
    for (int i = 0; i < w->length; i++) {
        int length;
        if (!one(r, r->p->classes[w->class[i]], at, &length))
            return NO_MATCH;
        at += (size_t)length;
    }
    return at;
}

/* Items i… of q from `at`: the end, or NO_MATCH. Recursion is as deep as the sequence is long. */
static size_t match_from(const run *r, const sequence *q, int i, size_t at)
{
    for (; i < q->n; i++) {
        const item *it = &q->items[i];
        const char_class *k = r->p->classes[it->class];
        uint32_t count;
        int length;
        size_t to, whole;
        if (!*r->budget)
            return NO_MATCH;
        switch (it->kind) {
        case ITEM_AHEAD:
        case ITEM_NOT_AHEAD:
            if (one(r, k, at, &length) != (it->kind == ITEM_AHEAD))
                return NO_MATCH;
            break;
        case ITEM_GROUP:
            for (int w = it->group; w < it->group_end; w++) {
                to = match_word(r, &r->p->words[w], at);
                if (to != NO_MATCH && (whole = match_from(r, q, i + 1, to)) != NO_MATCH)
                    return whole;
            }
            if (it->min)
                return NO_MATCH;
            break;
        case ITEM_CLASS:
            to = scan(r, k, at, it->max, &count);
            if (count < it->min)
                return NO_MATCH;
            if (i + 1 == q->n || it->possessive || it->min == it->max) {
                at = to;
                break;
            }
            while ((whole = match_from(r, q, i + 1, to)) == NO_MATCH) {
                if (count-- == it->min || !*r->budget)
                    return NO_MATCH;
                to = text_utf8_back(r->text, at, to);
            }
            return whole;
        }
    }
    return at;
}

static bool own_next(text_matcher *m, size_t *begin, size_t *end)
{
    const text_pattern *p = m->pattern;
    run r = {p, m->text, m->n, &m->scratch->budget};
    size_t at = m->at;
    uint64_t before = m->scratch->budget;
    bool found = false;
    while (at < m->n && !found) {
        unsigned candidates = p->by_byte[(unsigned char)m->text[at]];
        for (; candidates; candidates &= candidates - 1) {
            size_t to = match_from(&r, p->alternatives[__builtin_ctz(candidates)], 0, at);
            if (to != NO_MATCH) {
                *begin = at;
                *end = m->at = to;
                found = true;
                break;
            }
        }
        if (!found) {
            int length;
            text_utf8_next(m->text + at, m->n - at, &length);
            at += (size_t)length;
            if (!m->scratch->budget)
                at = m->n;
        }
    }
    m->scratch->work += before - m->scratch->budget;
    if (!found)
        m->at = m->n;
    return found;
}

status text_matcher_init(text_matcher *m, const text_pattern *p, text_scratch *s, const char *text,
                         size_t n, err *e)
{
    memset(m, 0, sizeof *m);
    m->pattern = p;
    m->scratch = s;
    m->text = text;
    m->n = n;
    return p->regex ? text_regex_subject(text, n, &m->copy, &m->text, e) : STATUS_OK;
}

void text_matcher_fini(text_matcher *m)
{
    sb_fini(&m->copy);
}

bool text_matcher_next(text_matcher *m, size_t *begin, size_t *end)
{
    if (m->at > m->n)
        return false;
    if (!m->pattern->regex)
        return own_next(m, begin, end);
    if (!text_regex_find(m->pattern->regex, m->scratch, m->text, m->n, m->at, begin, end)) {
        m->at = m->n + 1;
        return false;
    }
    m->scratch->work += *end - m->at + 1;
    m->at = *end;
    if (*begin == *end) { /* on by a character: the same empty match would come for ever */
        int length = 1;
        if (*end < m->n)
            text_utf8_next(m->text + *end, m->n - *end, &length);
        m->at += (size_t)length;
    }
    return true;
}
