/*
 * From JSON schemas to the rules of a program. Every subschema is a rule of its own, made once however often it is referred to, so
 * schemas may be recursive; a queue takes the place of recursion, so depth costs nothing here.
 *
 * What a schema allows and the rules write is the same or less: members come in the order of `properties`, further ones last and
 * with plain names; a `number` with bounds has no exponent. It is never more: what comes out validates. Keywords that would
 * restrict and are not known are refused by name; words that only describe are skipped.
 *
 * Source: JSON Schema 2020-12 (validation vocabulary), as far as OpenAI's structured outputs use it, and older drafts' `definitions`.
 */
#include "sample/schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCHEMAS_MAX = 20000, COUNT_MAX = 20000 };

grammar_program *compiler_program(compiler *c)
{
    return &c->p;
}

bool schema_refuse(compiler *c, const char *path, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (c->failed == STATUS_OK)
        c->failed = err_set(c->e, STATUS_INVALID, "%.200s%s%s", path, *path ? ": " : "", text);
    return false;
}

static const char *join(compiler *c, const char *path, const char *more)
{
    size_t n = strlen(path), k = strlen(more);
    char *out = arena_alloc(&c->memory, n + k + 2);
    if (!out) {
        c->p.failed = true;
        return "";
    }
    snprintf(out, n + k + 2, "%s%s%s", path, n ? "." : "", more);
    return out;
}

void json_call(compiler *c, json_rule rule)
{
    if (c->json[rule] < 0)
        c->json[rule] = grammar_rule(&c->p);
    grammar_emit(&c->p, GRAMMAR_CALL, c->json[rule], 0);
}

/* The rule of a subschema; its body is written later. */
static int rule_of(compiler *c, const json_t *schema, const json_t *root, const char *path)
{
    size_t b = (size_t)(hash_u64((uint64_t)(uintptr_t)schema, 3) % SCHEMA_BUCKETS);
    for (int i = c->bucket[b]; i >= 0; i = c->schemas[i].chain)
        if (c->schemas[i].schema == schema)
            return c->schemas[i].rule;
    if (c->n == SCHEMAS_MAX) {
        c->p.failed = c->p.too_large = true;
        return 0;
    }
    if (c->n == c->capacity) {
        int larger = c->capacity ? 2 * c->capacity : 64;
        schema_known *grown = base_realloc(c->schemas, sizeof *grown * (size_t)larger);
        if (!grown) {
            c->p.failed = true;
            return 0;
        }
        c->schemas = grown;
        c->capacity = larger;
    }
    int rule = grammar_rule(&c->p);
    c->schemas[c->n] = (schema_known){schema, root, path, rule, c->bucket[b]};
    c->bucket[b] = c->n++;
    return rule;
}

void schema_call(compiler *c, const json_t *schema, const json_t *root, const char *path)
{
    grammar_emit(&c->p, GRAMMAR_CALL, rule_of(c, schema, root, path), 0);
}

static void call_schema(compiler *c, const json_t *schema, const schema_known *from,
                        const char *more)
{
    schema_call(c, schema, from->root, join(c, from->path, more));
}

void schema_end(compiler *c)
{
    grammar_emit(&c->p, GRAMMAR_RETURN, 0, 0);
}

/* ---- keywords ------------------------------------------------------------------------------------------------------ */

/* Words that restrict and that we do not know how to hold to. */
static const char *const unknown[] = {
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "prefixItems",
    "additionalItems",
    "unevaluatedItems",
    "unevaluatedProperties",
    "multipleOf",
    "$dynamicRef",
    "$recursiveRef",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
};

/* Words that say what values there may be; of those only one kind may stand in a schema beside what describes. */
static const char *const shaping[] = {
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "pattern",
    "enum",
    "const",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "anyOf",
    "oneOf",
    "allOf",
    "$ref",
};

static bool is_one_of(const char *word, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(word, list[i]))
            return true;
    return false;
}

static bool check_words(compiler *c, const schema_known *k)
{
    const char *word;
    const json_t *v;
    json_object_foreach((json_t *)k->schema, word, v)
    {
        bool harmless =
            (!strcmp(word, "uniqueItems") && json_is_false(v)) ||
            (!strcmp(word, "multipleOf") && json_is_integer(v) && json_integer_value(v) == 1);
        if (is_one_of(word, unknown, BASE_COUNT(unknown)) && !harmless)
            return schema_refuse(c, k->path, "the keyword '%s' is not supported", word);
    }
    return true;
}

/* Whether nothing but `word` (and what may stand beside it, NULL = nothing) shapes the schema. */
static bool is_alone(compiler *c, const schema_known *k, const char *word, const char *beside)
{
    const char *other;
    const json_t *v;
    json_object_foreach((json_t *)k->schema, other, v)
    {
        if (is_one_of(other, shaping, BASE_COUNT(shaping)) && strcmp(other, word) &&
            (!beside || strcmp(other, beside)))
            return schema_refuse(c, k->path, "'%s' beside '%s' is not supported", other, word);
    }
    return true;
}

static bool read_count(compiler *c, const schema_known *k, const char *word, int64_t *out)
{
    const json_t *v = json_object_get(k->schema, word);
    if (!v)
        return true;
    double d = json_is_number(v) ? json_number_value(v) : -1;
    if (d < 0 || d != floor(d))
        return schema_refuse(c, k->path, "%s: expected a whole number", word);
    if (d > COUNT_MAX)
        return schema_refuse(c, k->path, "%s: expected at most %d", word, COUNT_MAX);
    *out = (int64_t)d;
    return true;
}

/* ---- enumerations -------------------------------------------------------------------------------------------------- */

/* A value, compact. */
static bool emit_value(compiler *c, const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text) {
        c->p.failed = true;
        return false;
    }
    grammar_text(&c->p, text, strlen(text));
    free(text);
    return true;
}

static bool emit_enum(compiler *c, const schema_known *k, const json_t *values)
{
    int types = schema_types_named(k->schema), split = -1, fitting = 0, left;
    const json_t *v;
    size_t i;
    if (!json_is_array(values) || json_array_size(values) == 0)
        return schema_refuse(c, k->path, "enum: expected an array of values");
    json_array_foreach(values, i, v) fitting += (schema_type_of(v) & types) != 0;
    if (!fitting)
        return schema_refuse(c, k->path, "enum: no value is of the type that 'type' names");
    left = fitting;
    json_array_foreach(values, i, v)
    {
        if (!(schema_type_of(v) & types))
            continue;
        alternative_begin(&c->p, &split, --left == 0);
        emit_value(c, v);
        schema_end(c);
    }
    return true;
}

/* ---- strings and arrays -------------------------------------------------------------------------------------------- */

/* Formats that are held to; of others nothing is promised, as the specification has it. Days go to 28: every month has them. */
static const char *pattern_of_format(const char *format)
{
#define DATE  "(19|20)\\d\\d-(0[1-9]|1[0-2])-(0[1-9]|1\\d|2[0-8])"
#define TIME  "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-](0\\d|1[0-3]):[0-5]\\d)"
#define OCTET "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define LABEL "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
    static const struct {
        const char *name, *pattern;
    } formats[] = {
        {"date", DATE},
        {"time", TIME},
        {"date-time", DATE "T" TIME},
        {"email", "[a-z0-9_-]{1,20}(\\.[a-z0-9_-]{1,20}){0,2}@" LABEL "(\\." LABEL "){1,3}"},
        {"hostname", LABEL "(\\." LABEL "){0,4}"},
        {"ipv4", OCTET "\\." OCTET "\\." OCTET "\\." OCTET},
        {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"},
    };
    for (size_t i = 0; i < BASE_COUNT(formats); i++)
        if (!strcmp(formats[i].name, format))
            return formats[i].pattern;
    return NULL;
}

static bool emit_string(compiler *c, const schema_known *k)
{
    const json_t *pattern = json_object_get(k->schema, "pattern"),
                 *format = json_object_get(k->schema, "format");
    bool counted =
        json_object_get(k->schema, "minLength") || json_object_get(k->schema, "maxLength");
    const char *regex = NULL;
    int64_t min = 0, max = -1;
    if (pattern && !json_is_string(pattern))
        return schema_refuse(c, k->path, "pattern: expected a string");
    if (pattern && counted)
        return schema_refuse(c, k->path,
                             "minLength or maxLength beside 'pattern' is not supported");
    if (pattern)
        regex = json_string_value(pattern);
    else if (json_is_string(format) && !counted)
        regex = pattern_of_format(json_string_value(format));
    if (regex) {
        const char *wrong = json_pattern(c, regex);
        schema_end(c);
        return !wrong ||
               schema_refuse(c, k->path, "pattern: %s in '%.100s' is not supported", wrong, regex);
    }
    if (!read_count(c, k, "minLength", &min) || !read_count(c, k, "maxLength", &max))
        return false;
    if (max >= 0 && min > max)
        return schema_refuse(c, k->path, "minLength is above maxLength");
    json_string_of(c, min, max);
    schema_end(c);
    return true;
}

static void emit_item(compiler *c, const schema_known *k, const json_t *items)
{
    if (items)
        call_schema(c, items, k, "items");
    else
        json_call(c, RULE_ANY);
}

static void emit_next_item(compiler *c, const schema_known *k, const json_t *items)
{
    grammar_text(&c->p, ",", 1);
    json_call(c, RULE_WS);
    emit_item(c, k, items);
}

static bool emit_array(compiler *c, const schema_known *k)
{
    grammar_program *p = &c->p;
    const json_t *items = json_object_get(k->schema, "items");
    int64_t min = 0, max = -1;
    int empty = -1;
    if (!read_count(c, k, "minItems", &min) || !read_count(c, k, "maxItems", &max))
        return false;
    if (max >= 0 && min > max)
        return schema_refuse(c, k->path, "minItems is above maxItems");
    if (json_is_false(items) && min == 0)
        max = 0;
    grammar_text(p, "[", 1);
    json_call(c, RULE_WS);
    if (max != 0) {
        if (min == 0)
            empty = grammar_emit(p, GRAMMAR_SPLIT, grammar_here(p) + 1, 0);
        emit_item(c, k, items);
        for (int64_t i = 1; i < min && !p->failed; i++)
            emit_next_item(c, k, items);
        int first = grammar_here(p);
        int64_t more = max < 0 ? 1 : max - BASE_MAX(min, 1);
        for (int64_t i = 0; i < more && !p->failed; i++) {
            grammar_emit(p, GRAMMAR_SPLIT, grammar_here(p) + 1, 0);
            emit_next_item(c, k, items);
        }
        if (max < 0)
            grammar_emit(p, GRAMMAR_JUMP, first, 0);
        for (int64_t i = 0; i < more && !p->failed; i++)
            grammar_patch(p, first + 4 * (int)i, -1, grammar_here(p));
        json_call(c, RULE_WS);
    }
    if (empty >= 0)
        grammar_patch(p, empty, -1, grammar_here(p));
    grammar_text(p, "]", 1);
    schema_end(c);
    return true;
}

/* ---- objects ------------------------------------------------------------------------------------------------------- */

typedef struct member {
    const char *name;
    const json_t *schema; /* NULL: anything */
    bool required;
    int to_some; /* the jump from the way on which it is the first to be written, −1 */
} member;

/* Members in the order of properties, then names that are only required. n_out: how many. */
static member *list_members(compiler *c, const schema_known *k, int *n_out)
{
    json_t *properties = json_object_get(k->schema, "properties"), *v;
    const json_t *required = json_object_get(k->schema, "required"), *name;
    const char *word;
    size_t i;
    int n = 0;
    if ((properties && !json_is_object(properties)) || (required && !json_is_array(required))) {
        schema_refuse(c, k->path, "properties: expected an object; required: an array of names");
        return NULL;
    }
    member *m = arena_zalloc(
        &c->memory, json_object_size(properties) + json_array_size(required) + 1, sizeof *m);
    if (!m) {
        c->p.failed = true;
        return NULL;
    }
    json_object_foreach(properties, word, v) m[n++] = (member){word, v, false, -1};
    json_array_foreach(required, i, name)
    {
        int at = 0;
        if (!json_is_string(name)) {
            schema_refuse(c, k->path, "required: expected an array of names");
            return NULL;
        }
        while (at < n && strcmp(m[at].name, json_string_value(name)))
            at++;
        if (at == n) {
            const json_t *more = json_object_get(k->schema, "additionalProperties");
            if (json_is_false(more)) {
                schema_refuse(c, k->path, "required: '%.80s' is none of the properties",
                              json_string_value(name));
                return NULL;
            }
            m[n++] =
                (member){json_string_value(name), json_is_object(more) ? more : NULL, false, -1};
        }
        m[at].required = true;
    }
    *n_out = n;
    return m;
}

static void emit_member(compiler *c, const schema_known *k, const member *m)
{
    json_t *name = json_string(m->name);
    if (!name || !emit_value(c, name))
        c->p.failed = true;
    json_decref(name);
    json_colon(&c->p);
    if (m->schema)
        call_schema(c, m->schema, k, join(c, "properties", m->name));
    else
        json_call(c, RULE_ANY);
}

/* "name": value with a name that is none of the members'. */
static void emit_other(compiler *c, const schema_known *k, int name_rule, const json_t *schema)
{
    grammar_text(&c->p, "\"", 1);
    grammar_emit(&c->p, GRAMMAR_CALL, name_rule, 0);
    json_colon(&c->p);
    if (json_is_object(schema))
        call_schema(c, schema, k, "additionalProperties");
    else
        json_call(c, RULE_ANY);
}

static void emit_close(compiler *c)
{
    grammar_text(&c->p, "}", 1);
    schema_end(c);
}

/* Behind the members: more of other names where they may be, and the end. some: something was written before. */
static void emit_tail(compiler *c, const schema_known *k, bool some, int name_rule,
                      const json_t *schema)
{
    grammar_program *p = &c->p;
    if (name_rule < 0) {
        if (some)
            json_call(c, RULE_WS);
        emit_close(c);
        return;
    }
    int loop = -1;
    if (!some) {
        int none = grammar_emit(p, GRAMMAR_SPLIT, grammar_here(p) + 1, 0);
        emit_other(c, k, name_rule, schema);
        int over = grammar_emit(p, GRAMMAR_JUMP, 0, 0);
        grammar_patch(p, none, -1, grammar_here(p));
        emit_close(c);
        grammar_patch(p, over, grammar_here(p), -1);
    }
    loop = grammar_emit(p, GRAMMAR_SPLIT, grammar_here(p) + 1, 0);
    grammar_text(p, ",", 1);
    json_call(c, RULE_WS);
    emit_other(c, k, name_rule, schema);
    grammar_emit(p, GRAMMAR_JUMP, loop, 0);
    grammar_patch(p, loop, -1, grammar_here(p));
    json_call(c, RULE_WS);
    emit_close(c);
}

/* Two ways side by side: nothing written yet, and something written (a comma comes first). From the one to the other by a member. */
static bool emit_object(compiler *c, const schema_known *k)
{
    grammar_program *p = &c->p;
    const json_t *more = json_object_get(k->schema, "additionalProperties");
    int n = 0, name_rule = -1, last_first = -1, i;
    member *m = list_members(c, k, &n);
    if (!m)
        return false;
    bool open = json_is_object(more) || json_is_true(more) || (!more && n == 0);
    if (n == 0 && open && !json_is_object(more)) {
        json_call(c, RULE_ANY_OBJECT);
        schema_end(c);
        return true;
    }
    if (open) {
        const char **names = arena_alloc(&c->memory, sizeof *names * (size_t)(n + 1));
        for (i = 0; names && i < n; i++)
            names[i] = m[i].name;
        if (!names)
            c->p.failed = true;
        else
            name_rule = json_other_name(c, names, n);
    }
    grammar_text(p, "{", 1);
    json_call(c, RULE_WS);
    for (i = 0; i < n && last_first < 0; i++) {
        int skip = m[i].required ? -1 : grammar_emit(p, GRAMMAR_SPLIT, grammar_here(p) + 1, 0);
        emit_member(c, k, &m[i]);
        m[i].to_some = grammar_emit(p, GRAMMAR_JUMP, 0, 0);
        if (skip >= 0)
            grammar_patch(p, skip, -1, grammar_here(p));
        else
            last_first = i; /* nobody comes behind it with nothing written */
    }
    if (last_first < 0)
        emit_tail(c, k, false, name_rule, more);
    for (i = 0; i < n; i++) {
        if (i > 0) { /* member i after others */
            int skip = m[i].required ? -1 : grammar_emit(p, GRAMMAR_SPLIT, grammar_here(p) + 1, 0);
            grammar_text(p, ",", 1);
            json_call(c, RULE_WS);
            emit_member(c, k, &m[i]);
            if (skip >= 0)
                grammar_patch(p, skip, -1, grammar_here(p));
        }
        if (m[i].to_some >= 0)
            grammar_patch(p, m[i].to_some, grammar_here(p), -1);
    }
    if (n > 0)
        emit_tail(c, k, true, name_rule, more);
    return true;
}

/* ---- alternatives -------------------------------------------------------------------------------------------------- */

static bool emit_alternatives(compiler *c, const schema_known *k, const char *word)
{
    const json_t *list = json_object_get(k->schema, word), *v;
    size_t i, n = json_array_size(list);
    int split = -1;
    if (n == 0)
        return schema_refuse(c, k->path, "%s: expected an array of schemas", word);
    if (!is_alone(c, k, word, NULL))
        return false;
    if (!strcmp(word, "allOf") && n > 1)
        return schema_refuse(c, k->path,
                             "the keyword 'allOf' with more than one schema is not supported");
    for (i = 0; !strcmp(word, "oneOf") && i < BASE_MIN(n, 64); i++)
        for (size_t other = 0; other < i; other++)
            if (!schema_disjoint(json_array_get(list, i), json_array_get(list, other), k->root))
                return schema_refuse(
                    c, k->path,
                    "oneOf: a value could fit alternatives %zu and %zu: anyOf is supported", other,
                    i);
    json_array_foreach(list, i, v)
    {
        char part[48];
        snprintf(part, sizeof part, "%s[%zu]", word, i);
        alternative_begin(&c->p, &split, i + 1 == n);
        call_schema(c, v, k, part);
        schema_end(c);
    }
    return true;
}

static bool emit_ref(compiler *c, const schema_known *k)
{
    const json_t *v = json_object_get(k->schema, "$ref");
    const json_t *to = json_is_string(v) ? schema_resolve(k->root, json_string_value(v)) : NULL;
    if (!to)
        return schema_refuse(c, k->path, "$ref: '%.100s' is not in this schema",
                             json_is_string(v) ? json_string_value(v) : "?");
    if (!is_alone(c, k, "$ref", NULL))
        return false;
    schema_call(c, to, k->root, json_string_value(v));
    schema_end(c);
    return true;
}

/* ---- a schema ------------------------------------------------------------------------------------------------------ */

static bool emit_words(compiler *c, const char *a, const char *b)
{
    int split = -1;
    alternative_begin(&c->p, &split, !b);
    grammar_text(&c->p, a, strlen(a));
    schema_end(c);
    if (b) {
        alternative_begin(&c->p, &split, true);
        grammar_text(&c->p, b, strlen(b));
        schema_end(c);
    }
    return true;
}

static bool emit_type(compiler *c, const schema_known *k, int type)
{
    switch (type) {
    case T_NULL:
        return emit_words(c, "null", NULL);
    case T_BOOL:
        return emit_words(c, "true", "false");
    case T_OBJECT:
        return emit_object(c, k);
    case T_ARRAY:
        return emit_array(c, k);
    case T_STRING:
        return emit_string(c, k);
    case T_INTEGER:
        return schema_integer(c, k->schema, k->path);
    default:
        return schema_number(c, k->schema, k->path);
    }
}

static bool emit_types(compiler *c, const schema_known *k)
{
    static const int each[] = {T_NULL, T_BOOL, T_OBJECT, T_ARRAY, T_STRING, T_INTEGER, T_NUMBER};
    int types = schema_types_meant(k->schema), split = -1;
    if (!types)
        return schema_refuse(c, k->path, "type: expected names of JSON types");
    if (types == T_ALL) {
        json_call(c, RULE_ANY);
        schema_end(c);
        return true;
    }
    if ((types & T_NUMBER) == T_NUMBER)
        types &= ~T_INTEGER; /* numbers are both */
    for (size_t i = 0; i < BASE_COUNT(each) && types; i++) {
        int own = each[i] == T_NUMBER ? T_NUMBER & ~T_INTEGER : each[i];
        if (!(types & own))
            continue;
        types &= ~own;
        alternative_begin(&c->p, &split, types == 0);
        if (!emit_type(c, k, each[i]))
            return false;
    }
    return true;
}

static bool emit_schema(compiler *c, const schema_known *k)
{
    static const char *const lists[] = {"anyOf", "oneOf", "allOf"};
    const json_t *s = k->schema, *v;
    if (json_is_true(s)) {
        json_call(c, RULE_ANY);
        schema_end(c);
        return true;
    }
    if (!json_is_object(s))
        return schema_refuse(c, k->path, "expected a schema, got %s",
                             json_is_false(s) ? "false, which nothing fits" : "something else");
    if (!check_words(c, k))
        return false;
    if (json_object_get(s, "$ref"))
        return emit_ref(c, k);
    if ((v = json_object_get(s, "const"))) {
        if (!is_alone(c, k, "const", "type"))
            return false;
        if (!(schema_type_of(v) & schema_types_named(s)))
            return schema_refuse(c, k->path, "const: it is not of the type that 'type' names");
        emit_value(c, v);
        schema_end(c);
        return true;
    }
    if ((v = json_object_get(s, "enum")))
        return is_alone(c, k, "enum", "type") && emit_enum(c, k, v);
    for (size_t i = 0; i < BASE_COUNT(lists); i++)
        if (json_object_get(s, lists[i]))
            return emit_alternatives(c, k, lists[i]);
    return emit_types(c, k);
}

void schema_emit_rules(compiler *c)
{
    bool more = true;
    while (more && c->failed == STATUS_OK && !c->p.failed) {
        more = false;
        for (; c->done < c->n && c->failed == STATUS_OK && !c->p.failed; c->done++) {
            schema_known k = c->schemas[c->done]; /* the list may move */
            grammar_place(&c->p, k.rule);
            emit_schema(c, &k);
        }
        for (int i = 0; i < RULE_COUNT && c->failed == STATUS_OK; i++) {
            if (c->json[i] < 0 || c->json_made[i])
                continue;
            c->json_made[i] = more = true;
            grammar_place(&c->p, c->json[i]);
            json_emit(c, (json_rule)i);
        }
    }
}
