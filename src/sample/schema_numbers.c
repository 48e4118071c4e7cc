/*
 * Numbers of a schema: bounds, and the digits that stay within them. Whole numbers exactly, as ranges of up to 15 digits; others as whole
 * numbers and, between two whole numbers that are both within, a fraction of up to 13 digits: less than the schema allows, never more.
 */
#include "sample/schema.h"

#include <math.h>

#define INT_LIMIT 1000000000000000LL

typedef struct bounds {
    double low, high;       /* infinite: none */
    bool low_out, high_out; /* the bound itself is not allowed */
} bounds;

static bool read_bounds(compiler *c, const json_t *schema, const char *path, bounds *b)
{
    static const char *const words[] = {"minimum", "exclusiveMinimum", "maximum",
                                        "exclusiveMaximum"};
    *b = (bounds){-INFINITY, INFINITY, false, false};
    for (int i = 0; i < 4; i++) {
        const json_t *v = json_object_get(schema, words[i]);
        if (!v)
            continue;
        if (!json_is_number(v))
            return schema_refuse(c, path, "%s: expected a number", words[i]);
        double d = json_number_value(v);
        bool out = i % 2;
        if (i < 2 && (d > b->low || (d == b->low && out))) {
            b->low = d;
            b->low_out = out;
        } else if (i >= 2 && (d < b->high || (d == b->high && out))) {
            b->high = d;
            b->high_out = out;
        }
    }
    return b->low <= b->high || schema_refuse(c, path, "the minimum is above the maximum");
}

static bool has_bounds(const bounds *b)
{
    return isfinite(b->low) || isfinite(b->high);
}

static int64_t whole_within(double d)
{
    return (int64_t)fmin(fmax(d, -(double)INT_LIMIT), (double)INT_LIMIT);
}

/* The whole numbers within, as far as they have 15 digits; false: there are none. */
static bool whole_range(const bounds *b, int64_t *low, int64_t *high)
{
    *low = whole_within(ceil(b->low) + (b->low_out && ceil(b->low) == b->low));
    *high = whole_within(floor(b->high) - (b->high_out && floor(b->high) == b->high));
    return *low <= *high && b->low < (double)INT_LIMIT && b->high > -(double)INT_LIMIT;
}

bool schema_integer(compiler *c, const json_t *schema, const char *path)
{
    bounds b;
    int64_t low, high;
    if (!read_bounds(c, schema, path, &b))
        return false;
    if (!has_bounds(&b))
        json_call(c, RULE_INT);
    else if (whole_range(&b, &low, &high))
        json_int_range(compiler_program(c), low, high);
    else
        return schema_refuse(c, path, "no whole number of up to 15 digits is within the bounds");
    schema_end(c);
    return true;
}

/* .ddd, not ending in 0: greater than the whole number before it and less than the next. */
static void emit_fraction(compiler *c)
{
    grammar_program *p = compiler_program(c);
    int first;
    grammar_text(p, ".", 1);
    first = grammar_here(p);
    for (int i = 0; i < 12; i++) {
        grammar_emit(p, GRAMMAR_SPLIT, grammar_here(p) + 1, 0);
        grammar_any_of(p, "09");
    }
    for (int i = 0; i < 12; i++)
        grammar_patch(p, first + 2 * i, -1, grammar_here(p));
    grammar_any_of(p, "19");
    schema_end(c);
}

/* Whole numbers within the bounds; i.ddd and -i.ddd where both whole numbers beside it are not beyond them. */
static bool emit_bounded_number(compiler *c, const char *path, const bounds *b)
{
    int64_t low, high, most = INT_LIMIT - 1;
    bool whole = whole_range(b, &low, &high);
    int64_t from = BASE_MAX(whole_within(ceil(b->low)), 0),
            to = BASE_MIN(whole_within(floor(b->high)) - 1, most);
    int64_t minus_from = BASE_MAX(whole_within(ceil(-b->high)), 0),
            minus_to = BASE_MIN(whole_within(floor(-b->low)) - 1, most);
    bool plus = from <= to, minus = minus_from <= minus_to;
    int n = whole + plus + minus, split = -1;
    if (n == 0)
        return schema_refuse(c, path, "bounds of a number must have a whole number between them");
    if (whole) {
        alternative_begin(compiler_program(c), &split, --n == 0);
        json_int_range(compiler_program(c), low, high);
        schema_end(c);
    }
    if (plus) {
        alternative_begin(compiler_program(c), &split, --n == 0);
        json_int_range(compiler_program(c), from, to);
        emit_fraction(c);
    }
    if (minus) {
        alternative_begin(compiler_program(c), &split, --n == 0);
        grammar_text(compiler_program(c), "-", 1);
        json_int_range(compiler_program(c), minus_from, minus_to);
        emit_fraction(c);
    }
    return true;
}

bool schema_number(compiler *c, const json_t *schema, const char *path)
{
    bounds b;
    if (!read_bounds(c, schema, path, &b))
        return false;
    if (has_bounds(&b))
        return emit_bounded_number(c, path, &b);
    json_call(c, RULE_NUM);
    schema_end(c);
    return true;
}
