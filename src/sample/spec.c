/*
 * From a spec (sample.h), which says what is around JSON schemas (plain text, choices, markers that end free text), to a program. Not here: what a schema
 * allows (schema.c) and how JSON is written (json.c).
 */
#include "sample/schema.h"

#include <string.h>

enum { SPEC_DEPTH = 16 };

static bool emit_spec(compiler *c, const json_t *spec, int depth);

/* Length of the longest beginning of marker that ends the text marker[0 … n) + b. */
static int marker_next(const char *marker, int n, char b)
{
    for (int k = n + 1; k > 0; k--)
        if (marker[k - 1] == b && !memcmp(marker, marker + n + 1 - k, (size_t)(k - 1)))
            return k;
    return 0;
}

/* Any text up to and with the marker; ends: the text may also stop before it. What follows is written behind. */
static bool emit_until(compiler *c, const char *marker, bool ends)
{
    grammar_program *p = &c->p;
    int n = (int)strlen(marker), at[64], to_next[64] = {0};
    if (n < 1 || n > 64)
        return schema_refuse(c, "", "a marker of %d bytes", n);
    /* Place i: i bytes of the marker are there. Each byte of the marker leads to its own place, all others to the first. */
    for (int i = 0; i < n; i++) {
        grammar_class other;
        at[i] = grammar_here(p);
        memset(&other, 0xFF, sizeof other);
        if (ends) {
            int go = grammar_emit(p, GRAMMAR_SPLIT, grammar_here(p) + 1, 0);
            grammar_emit(p, GRAMMAR_ACCEPT, 0, 0);
            grammar_patch(p, go, -1, grammar_here(p));
        }
        for (int k = 0; k < n; k++) {
            int to = marker_next(marker, i, marker[k]);
            unsigned char b = (unsigned char)marker[k];
            if (to == 0 || !(other.bits[b / 64] >> b % 64 & 1))
                continue;
            other.bits[b / 64] &= ~((uint64_t)1 << b % 64);
            int split = grammar_emit(p, GRAMMAR_SPLIT, grammar_here(p) + 1, 0);
            grammar_text(p, &marker[k], 1);
            int jump = grammar_emit(p, GRAMMAR_JUMP, to <= i ? at[to] : 0, 0);
            if (to > i)
                to_next[i] = jump;
            grammar_patch(p, split, -1, grammar_here(p));
        }
        grammar_one(p, &other);
        grammar_emit(p, GRAMMAR_JUMP, at[0], 0);
    }
    for (int i = 0; i < n; i++)
        grammar_patch(p, to_next[i], i + 1 < n ? at[i + 1] : grammar_here(p), -1);
    return !p->failed;
}

/* not_first: bytes that the text does not begin with, blanks skipped (so it begins with none). */
static bool emit_free(compiler *c, const json_t *spec, const char *marker, int depth)
{
    grammar_program *p = &c->p;
    const char *not_first = json_string_value(json_object_get(spec, "not_first"));
    if (not_first) {
        grammar_class others;
        memset(&others, 0xFF, sizeof others);
        for (const char *b = " \t\r\n"; *b; b++)
            others.bits[0] &= ~((uint64_t)1 << *b);
        for (; *not_first; not_first++)
            others.bits[(unsigned char)*not_first / 64] &= ~((uint64_t)1 << *not_first % 64);
        others.bits[(unsigned char)*marker / 64] &= ~((uint64_t)1 << *marker % 64);
        int first = grammar_emit(p, GRAMMAR_SPLIT, grammar_here(p) + 1, 0);
        grammar_emit(p, GRAMMAR_ACCEPT, 0, 0);
        grammar_patch(p, first, -1, grammar_here(p));
        grammar_one(p, &others);
    }
    int again = grammar_here(p);
    if (!emit_until(c, marker, true) || !emit_spec(c, json_object_get(spec, "then"), depth + 1))
        return false;
    grammar_emit(p, GRAMMAR_JUMP, again, 0);
    return !p->failed;
}

static bool emit_repeat(compiler *c, const json_t *spec, const json_t *what, int depth)
{
    grammar_program *p = &c->p;
    const char *between = json_string_value(json_object_get(spec, "between"));
    int64_t most = json_integer_value(json_object_get(spec, "most"));
    int ends[64], n_ends = 0;
    if (most < 1)
        return schema_refuse(c, "", "a repeat of %lld times", (long long)most);
    for (int64_t i = 0; i < BASE_MIN(most, 64); i++) {
        if (i > 0) {
            ends[n_ends++] = grammar_emit(p, GRAMMAR_SPLIT, grammar_here(p) + 1, 0);
            grammar_text(p, between ? between : "", between ? strlen(between) : 0);
        }
        if (!emit_spec(c, what, depth + 1))
            return false;
    }
    for (int i = 0; i < n_ends; i++)
        grammar_patch(p, ends[i], -1, grammar_here(p));
    return true;
}

static bool emit_choice(compiler *c, const json_t *list, int depth)
{
    grammar_program *p = &c->p;
    int *ends = arena_alloc(&c->memory, sizeof *ends * (json_array_size(list) + 1));
    const json_t *v;
    size_t i;
    int split = -1;
    if (!ends) {
        p->failed = true;
        return false;
    }
    json_array_foreach(list, i, v)
    {
        alternative_begin(p, &split, i + 1 == json_array_size(list));
        if (!emit_spec(c, v, depth + 1))
            return false;
        ends[i] = grammar_emit(p, GRAMMAR_JUMP, 0, 0);
    }
    for (i = 0; i < json_array_size(list); i++)
        grammar_patch(p, ends[i], grammar_here(p), -1);
    return true;
}

static bool emit_spec(compiler *c, const json_t *spec, int depth)
{
    grammar_program *p = &c->p;
    const json_t *v, *one;
    size_t i;
    if (depth > SPEC_DEPTH)
        return schema_refuse(c, "", "a spec of more than %d levels", SPEC_DEPTH);
    if (json_is_string(v = json_object_get(spec, "text"))) {
        grammar_text(p, json_string_value(v), json_string_length(v));
    } else if ((v = json_object_get(spec, "schema"))) {
        schema_call(c, v, v, "");
    } else if (json_is_array(v = json_object_get(spec, "sequence"))) {
        json_array_foreach(v, i, one)
        {
            if (!emit_spec(c, one, depth + 1))
                return false;
        }
    } else if (json_is_array(v = json_object_get(spec, "choice")) && json_array_size(v) > 0) {
        return emit_choice(c, v, depth);
    } else if (json_is_string(v = json_object_get(spec, "until"))) {
        return emit_until(c, json_string_value(v), false);
    } else if (json_is_string(v = json_object_get(spec, "free"))) {
        return emit_free(c, spec, json_string_value(v), depth);
    } else if (json_is_object(v = json_object_get(spec, "repeat"))) {
        return emit_repeat(c, spec, v, depth);
    } else if (json_is_true(json_object_get(spec, "blank"))) {
        json_call(c, RULE_WS);
        json_call(c, RULE_WS);
    } else {
        return schema_refuse(c, "",
                             "a spec that is none of text, schema, sequence, choice, until, free, "
                             "repeat, blank");
    }
    return !p->failed;
}

/* ---- all of it ----------------------------------------------------------------------------------------------------- */

static status compile(compiler *c, const json_t *spec)
{
    for (int i = 0; i < SCHEMA_BUCKETS; i++)
        c->bucket[i] = -1;
    for (int i = 0; i < RULE_COUNT; i++)
        c->json[i] = -1;
    int begin = grammar_rule(&c->p);
    grammar_place(&c->p, begin);
    if (emit_spec(c, spec, 0))
        grammar_emit(&c->p, GRAMMAR_ACCEPT, 0, 0);
    schema_emit_rules(c);
    if (c->failed != STATUS_OK)
        return c->failed;
    bool finite = !c->p.failed && grammar_finish(&c->p);
    if (c->p.too_large)
        return err_set(c->e, STATUS_INVALID, "the schema is too large: it needs more than %d steps",
                       GRAMMAR_OPS);
    if (c->p.failed)
        return err_set(c->e, STATUS_NO_MEMORY, "grammar: no memory for a schema");
    if (!finite)
        return err_set(c->e, STATUS_INVALID,
                       "no value fits the schema: it requires itself, or nests deeper than %d",
                       GRAMMAR_DEPTH);
    return STATUS_OK;
}

status grammar_compile(grammar_program *p, str spec, err *e)
{
    json_error_t error;
    err ignored;
    json_t *j = json_loadb(spec.data, spec.length, 0, &error);
    if (!j)
        return err_set(e, STATUS_INVALID, "grammar: the spec is no JSON: %.200s", error.text);
    compiler *c = base_zalloc(1, sizeof *c);
    if (!c) {
        json_decref(j);
        return err_set(e, STATUS_NO_MEMORY, "grammar: no memory for a schema");
    }
    arena_init(&c->memory, 0);
    c->e = e ? e : &ignored;
    status s = compile(c, j);
    if (s == STATUS_OK)
        *p = c->p;
    else
        grammar_program_fini(&c->p);
    base_free(c->schemas);
    arena_fini(&c->memory);
    base_free(c);
    json_decref(j);
    return s;
}
