/*
 * How JSON is written, as rules: what a model may put out is what every reader takes. Strings are valid UTF-8 without NUL and without
 * halves of surrogate pairs; integers have at most 15 digits, fractions 15, exponents 2, so that no reader overflows; white space is a space
 * or one indented new line, so that a model cannot fill the rest of its answer with blanks.
 *
 * Source: RFC 8259, RFC 3629. Not here: schemas (schema.c).
 */
#include "sample/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INDENT_MAX = 40, DIGITS = 15, NAME_DEPTH = 64 };

#define NAME_CLASS "azAZ09__--..$$  "

void alternative_begin(grammar_program *p, int *split, bool last)
{
    if (*split >= 0)
        grammar_patch(p, *split, -1, grammar_here(p));
    *split = last ? -1 : grammar_emit(p, GRAMMAR_SPLIT, grammar_here(p) + 1, 0);
}

static void end_rule(grammar_program *p)
{
    grammar_emit(p, GRAMMAR_RETURN, 0, 0);
}

/* What follows may be left out: → the op to patch with the place behind it. */
static int maybe(grammar_program *p)
{
    return grammar_emit(p, GRAMMAR_SPLIT, grammar_here(p) + 1, 0);
}

static void until_here(grammar_program *p, int split)
{
    grammar_patch(p, split, -1, grammar_here(p));
}

void json_colon(grammar_program *p)
{
    grammar_text(p, ":", 1);
    int split = maybe(p);
    grammar_text(p, " ", 1);
    until_here(p, split);
}

/* 0 to n more of a class; the way out of each is behind the last. */
static void up_to(grammar_program *p, int n, const char *ranges)
{
    int first = grammar_here(p);
    for (int i = 0; i < n; i++) {
        maybe(p);
        grammar_any_of(p, ranges);
    }
    for (int i = 0; i < n; i++)
        grammar_patch(p, first + 2 * i, -1, grammar_here(p));
}

static void emit_ws(grammar_program *p)
{
    int split = -1;
    alternative_begin(p, &split, false);
    end_rule(p);
    alternative_begin(p, &split, false);
    grammar_text(p, " ", 1);
    end_rule(p);
    alternative_begin(p, &split, true);
    grammar_text(p, "\n", 1);
    up_to(p, INDENT_MAX, "  \t\t");
    end_rule(p);
}

/* Bytes in a row: each string a class of ranges. */
static void emit_row(grammar_program *p, const char *const *row)
{
    for (; *row; row++)
        grammar_any_of(p, *row);
    end_rule(p);
}

static void emit_char(grammar_program *p)
{
    static const char *const rows[][6] = {
        {"\x20\x21\x23\x5B\x5D\x7F"}, /* no control, no quote, no backslash */
        {"\xC2\xDF", "\x80\xBF"},
        {"\xE0\xE0", "\xA0\xBF", "\x80\xBF"},
        {"\xE1\xEC\xEE\xEF", "\x80\xBF", "\x80\xBF"},
        {"\xED\xED", "\x80\x9F", "\x80\xBF"},
        {"\xF0\xF0", "\x90\xBF", "\x80\xBF", "\x80\xBF"},
        {"\xF1\xF3", "\x80\xBF", "\x80\xBF", "\x80\xBF"},
        {"\xF4\xF4", "\x80\x8F", "\x80\xBF", "\x80\xBF"},
        {"\\\\", "\"\"\\\\//bbffnnrrtt"},
        {"\\\\", "uu", "19AFacaceeff", "09AFaf", "09AFaf", "09AFaf"},
    };
    static const char *const more[][7] = {
        {"\\\\", "uu", "00", "19AFaf", "09AFaf", "09AFaf"},
        {"\\\\", "uu", "00", "00", "19AFaf", "09AFaf"},
        {"\\\\", "uu", "00", "00", "00", "19AFaf"},
        {"\\\\", "uu", "ddDD", "07", "09AFaf", "09AFaf"},
    };
    int split = -1;
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        const char *row[7] = {0};
        for (size_t k = 0; k < 6 && rows[i][k]; k++)
            row[k] = rows[i][k];
        if (i + 1 == BASE_COUNT(rows))
            row[2] = "19ACEFacef"; /* not 0: NUL; not d: surrogates */
        alternative_begin(p, &split, false);
        emit_row(p, row);
    }
    for (size_t i = 0; i < BASE_COUNT(more); i++) {
        alternative_begin(p, &split, i + 1 == BASE_COUNT(more));
        emit_row(p, more[i]);
    }
}

void json_string_of(compiler *c, int64_t min, int64_t max)
{
    grammar_program *p = compiler_program(c);
    grammar_text(p, "\"", 1);
    for (int64_t i = 0; i < min && !p->failed; i++)
        json_call(c, RULE_CHAR);
    if (max < 0) {
        int loop = maybe(p);
        json_call(c, RULE_CHAR);
        grammar_emit(p, GRAMMAR_JUMP, loop, 0);
        until_here(p, loop);
    } else {
        int first = grammar_here(p);
        for (int64_t i = min; i < max && !p->failed; i++) {
            maybe(p);
            json_call(c, RULE_CHAR);
        }
        for (int64_t i = min; i < max && !p->failed; i++)
            grammar_patch(p, first + 2 * (int)(i - min), -1, grammar_here(p));
    }
    grammar_text(p, "\"", 1);
}

/* -?(0|[1-9][0-9]*), as far as fraction and exponent in `number`. */
static void emit_number(grammar_program *p, bool number)
{
    int sign = maybe(p);
    grammar_text(p, "-", 1);
    until_here(p, sign);
    int zero = maybe(p);
    grammar_text(p, "0", 1);
    int over = grammar_emit(p, GRAMMAR_JUMP, 0, 0);
    until_here(p, zero);
    grammar_any_of(p, "19");
    up_to(p, DIGITS - 1, "09");
    grammar_patch(p, over, grammar_here(p), -1);
    if (number) {
        int fraction = maybe(p);
        grammar_text(p, ".", 1);
        grammar_any_of(p, "09");
        up_to(p, DIGITS - 1, "09");
        until_here(p, fraction);
        int exponent = maybe(p);
        grammar_any_of(p, "eeEE");
        int plus = maybe(p);
        grammar_any_of(p, "++--");
        until_here(p, plus);
        grammar_any_of(p, "09");
        up_to(p, 1, "09");
        until_here(p, exponent);
    }
    end_rule(p);
}

static void emit_any(compiler *c)
{
    static const char *const words[] = {"true", "false", "null"};
    static const json_rule rules[] = {RULE_STRING, RULE_NUM, RULE_ANY_OBJECT, RULE_ANY_ARRAY};
    grammar_program *p = compiler_program(c);
    int split = -1;
    for (size_t i = 0; i < BASE_COUNT(words); i++) {
        alternative_begin(p, &split, false);
        grammar_text(p, words[i], strlen(words[i]));
        end_rule(p);
    }
    for (size_t i = 0; i < BASE_COUNT(rules); i++) {
        alternative_begin(p, &split, i + 1 == BASE_COUNT(rules));
        json_call(c, rules[i]);
        end_rule(p);
    }
}

static void emit_any_items(compiler *c, bool object)
{
    grammar_program *p = compiler_program(c);
    grammar_text(p, object ? "{" : "[", 1);
    json_call(c, RULE_WS);
    int empty = maybe(p), item = grammar_here(p);
    if (object) {
        json_call(c, RULE_STRING);
        json_colon(p);
    }
    json_call(c, RULE_ANY);
    int more = maybe(p);
    grammar_text(p, ",", 1);
    json_call(c, RULE_WS);
    grammar_emit(p, GRAMMAR_JUMP, item, 0);
    until_here(p, more);
    json_call(c, RULE_WS);
    until_here(p, empty);
    grammar_text(p, object ? "}" : "]", 1);
    end_rule(p);
}

void json_emit(compiler *c, json_rule rule)
{
    grammar_program *p = compiler_program(c);
    switch (rule) {
    case RULE_WS:
        emit_ws(p);
        break;
    case RULE_CHAR:
        emit_char(p);
        break;
    case RULE_STRING:
        json_string_of(c, 0, -1);
        end_rule(p);
        break;
    case RULE_INT:
    case RULE_NUM:
        emit_number(p, rule == RULE_NUM);
        break;
    case RULE_ANY:
        emit_any(c);
        break;
    case RULE_ANY_OBJECT:
    case RULE_ANY_ARRAY:
        emit_any_items(c, rule == RULE_ANY_OBJECT);
        break;
    case RULE_COUNT:
        break;
    }
}

/* ---- ranges of integers -------------------------------------------------------------------------------------------- */

typedef struct digits {
    grammar_program *p;
    const char *low, *high; /* of the same length, low ≤ high */
    int n;
    int *ends, n_ends, ends_capacity; /* jumps to patch */
} digits;

static void range(char out[3], int a, int b)
{
    out[0] = (char)('0' + a);
    out[1] = (char)('0' + b);
    out[2] = '\0';
}

/* Digits from i on; at_low, at_high: all before were those of the bound. Every way ends with a jump. */
static void emit_digits(digits *d, int i, bool at_low, bool at_high)
{
    grammar_program *p = d->p;
    while (i < d->n && (at_low || at_high)) {
        int low = at_low ? d->low[i] - '0' : 0, high = at_high ? d->high[i] - '0' : 9;
        char one[3];
        if (low == high) {
            range(one, low, low);
            grammar_any_of(p, one);
            i++;
            continue;
        }
        int first = low + at_low, last = high - at_high, split;
        if (at_low) {
            split = maybe(p);
            range(one, low, low);
            grammar_any_of(p, one);
            emit_digits(d, i + 1, true, false);
            until_here(p, split);
        }
        if (first <= last) {
            split = at_high ? maybe(p) : -1;
            range(one, first, last);
            grammar_any_of(p, one);
            emit_digits(d, i + 1, false, false);
            if (split >= 0)
                until_here(p, split);
        }
        if (!at_high)
            return;
        range(one, high, high);
        grammar_any_of(p, one);
        at_low = false;
        i++;
    }
    for (; i < d->n; i++)
        grammar_any_of(p, "09");
    if (d->n_ends < d->ends_capacity)
        d->ends[d->n_ends++] = grammar_emit(p, GRAMMAR_JUMP, 0, 0);
}

/* Whole numbers low … high, 0 ≤ low ≤ high; falls through behind. */
static void emit_positive(grammar_program *p, int64_t low, int64_t high)
{
    int ends[1024];
    digits d = {.p = p, .ends = ends, .ends_capacity = (int)BASE_COUNT(ends)};
    char low_text[24], high_text[24];
    int high_digits = snprintf(high_text, sizeof high_text, "%lld", (long long)high);
    int low_digits = snprintf(low_text, sizeof low_text, "%lld", (long long)low);
    for (int n = low_digits; n <= high_digits; n++) {
        char from[24], to[24];
        snprintf(from, sizeof from, "%s", low_text);
        snprintf(to, sizeof to, "%s", high_text);
        if (n > low_digits)
            snprintf(from, sizeof from, "1%0*d", n - 1, 0);
        for (int i = 0; n < high_digits && i < n; i++)
            to[i] = '9';
        int split = n < high_digits ? maybe(p) : -1;
        d.low = from;
        d.high = to;
        d.n = n;
        emit_digits(&d, 0, true, true);
        if (split >= 0)
            until_here(p, split);
    }
    for (int i = 0; i < d.n_ends; i++)
        grammar_patch(p, d.ends[i], grammar_here(p), -1);
}

void json_int_range(grammar_program *p, int64_t low, int64_t high)
{
    int split = low < 0 && high >= 0 ? maybe(p) : -1, over = -1;
    if (low < 0) {
        grammar_text(p, "-", 1);
        emit_positive(p, high < 0 ? -high : 1, -low);
    }
    if (split >= 0) {
        over = grammar_emit(p, GRAMMAR_JUMP, 0, 0);
        until_here(p, split);
    }
    if (high >= 0)
        emit_positive(p, BASE_MAX(low, 0), high);
    if (over >= 0)
        grammar_patch(p, over, grammar_here(p), -1);
}

/* ---- names of members ---------------------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool in_name_class(char b)
{
    static const char ranges[] = NAME_CLASS;
    for (size_t i = 0; ranges[i]; i += 2)
        if (b >= ranges[i] && b <= ranges[i + 1])
            return true;
    return false;
}

/* names[0 … n) share their first `depth` bytes. any: the rule of what is no longer a beginning of one of them. */
static void emit_name(grammar_program *p, const char *const *names, int n, int depth, int any)
{
    grammar_class other = {{0}};
    bool is_name = false;
    for (int b = 0; b < 128; b++)
        if (in_name_class((char)b))
            other.bits[b / 64] |= (uint64_t)1 << b % 64;
    for (int i = 0; i < n;) {
        char b = names[i][depth];
        int k = i;
        while (k < n && names[k][depth] == b)
            k++;
        if (b == '\0') {
            is_name = true;
        } else if (in_name_class(b)) {
            other.bits[b / 64] &= ~((uint64_t)1 << b % 64);
            if (depth < NAME_DEPTH) {
                int split = maybe(p);
                grammar_text(p, &b, 1);
                emit_name(p, names + i, k - i, depth + 1, any);
                until_here(p, split);
            }
        }
        i = k;
    }
    if (!is_name && depth > 0) {
        int split = maybe(p);
        grammar_text(p, "\"", 1);
        end_rule(p);
        until_here(p, split);
    }
    grammar_one(p, &other);
    grammar_emit(p, GRAMMAR_CALL, any, 0);
    end_rule(p);
}

int json_other_name(compiler *c, const char *const *names, int n)
{
    grammar_program *p = compiler_program(c);
    const char **sorted = base_alloc(sizeof *sorted * (size_t)(n + 1));
    int rule = grammar_rule(p), any = grammar_rule(p);
    if (!sorted) {
        p->failed = true;
        return rule;
    }
    memcpy(sorted, names, sizeof *sorted * (size_t)n);
    qsort(sorted, (size_t)n, sizeof *sorted, compare_names);
    int over = grammar_emit(p, GRAMMAR_JUMP, 0, 0); /* the rules lie in the middle of another */
    grammar_place(p, rule);
    emit_name(p, sorted, n, 0, any);
    grammar_place(p, any);
    int loop = maybe(p);
    grammar_any_of(p, NAME_CLASS);
    grammar_emit(p, GRAMMAR_JUMP, loop, 0);
    until_here(p, loop);
    grammar_text(p, "\"", 1);
    end_rule(p);
    grammar_patch(p, over, grammar_here(p), -1);
    base_free(sorted);
    return rule;
}
