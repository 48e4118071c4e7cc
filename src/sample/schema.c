/*
 * From a spec (sample.h) and the JSON schemas in it to a program. Every subschema is a rule of its own, made once however often it is
 * referred to, so schemas may be recursive; a queue takes the place of recursion, so depth costs nothing here.
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

enum {
    T_NULL = 1,
    T_BOOL = 2,
    T_OBJECT = 4,
    T_ARRAY = 8,
    T_STRING = 16,
    T_INTEGER = 32,
    T_NUMBER = 64 | T_INTEGER,
    T_ALL = 127
};
enum { SCHEMAS_MAX = 20000, BUCKETS = 1024, COUNT_MAX = 20000, SPEC_DEPTH = 16, REF_HOPS = 32 };

/* A subschema and its rule. */
typedef struct known {
    const json_t *schema, *root;
    const char *path;
    int rule, chain;
} known;

struct compiler {
    grammar_program p;
    arena memory;
    known *schemas;
    int n, done, capacity;
    int bucket[BUCKETS];
    int json[RULE_COUNT]; /* rules, −1: not asked for */
    bool json_made[RULE_COUNT];
    err *e;
    status failed;
};

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
    size_t b = (size_t)(hash_u64((uint64_t)(uintptr_t)schema, 3) % BUCKETS);
    for (int i = c->bucket[b]; i >= 0; i = c->schemas[i].chain)
        if (c->schemas[i].schema == schema)
            return c->schemas[i].rule;
    if (c->n == SCHEMAS_MAX) {
        c->p.failed = c->p.too_large = true;
        return 0;
    }
    if (c->n == c->capacity) {
        int larger = c->capacity ? 2 * c->capacity : 64;
        known *grown = base_realloc(c->schemas, sizeof *grown * (size_t)larger);
        if (!grown) {
            c->p.failed = true;
            return 0;
        }
        c->schemas = grown;
        c->capacity = larger;
    }
    int rule = grammar_rule(&c->p);
    c->schemas[c->n] = (known){schema, root, path, rule, c->bucket[b]};
    c->bucket[b] = c->n++;
    return rule;
}

static void call_schema(compiler *c, const json_t *schema, const known *from, const char *more)
{
    grammar_emit(&c->p, GRAMMAR_CALL, rule_of(c, schema, from->root, join(c, from->path, more)), 0);
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

static bool check_words(compiler *c, const known *k)
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
static bool is_alone(compiler *c, const known *k, const char *word, const char *beside)
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

static bool read_count(compiler *c, const known *k, const char *word, int64_t *out)
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

/* ---- references ---------------------------------------------------------------------------------------------------- */

static int hex_of(char b)
{
    return b >= '0' && b <= '9'   ? b - '0'
           : b >= 'a' && b <= 'f' ? b - 'a' + 10
           : b >= 'A' && b <= 'F' ? b - 'A' + 10
                                  : -1;
}

/* One part of a JSON pointer, unescaped (~1, ~0, %xx). */
static bool unescape(char *out, size_t capacity, const char *p, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++, k++) {
        if (k + 1 >= capacity)
            return false;
        out[k] = p[i];
        if (p[i] == '~' && i + 1 < n && (p[i + 1] == '0' || p[i + 1] == '1'))
            out[k] = p[++i] == '0' ? '~' : '/';
        else if (p[i] == '%' && i + 2 < n && hex_of(p[i + 1]) >= 0 && hex_of(p[i + 2]) >= 0) {
            out[k] = (char)(hex_of(p[i + 1]) * 16 + hex_of(p[i + 2]));
            i += 2;
        }
    }
    out[k] = '\0';
    return true;
}

/* "#/$defs/a" in root; NULL: not there. */
static const json_t *resolve(const json_t *root, const char *ref)
{
    const json_t *at = root;
    if (*ref++ != '#')
        return NULL;
    while (at && *ref == '/') {
        char part[256];
        size_t n = strcspn(++ref, "/");
        if (!unescape(part, sizeof part, ref, n))
            return NULL;
        uint64_t index;
        at = json_is_array(at) ? (base_parse_u64(part, &index) ? json_array_get(at, index) : NULL)
                               : json_object_get(at, part);
        ref += n;
    }
    return *ref ? NULL : at;
}

/* The schema itself, or what it refers to. */
static const json_t *behind(const json_t *schema, const json_t *root)
{
    for (int i = 0; i < REF_HOPS; i++) {
        const char *ref = json_string_value(json_object_get(schema, "$ref"));
        if (!ref)
            return schema;
        schema = resolve(root, ref);
    }
    return NULL;
}

/* ---- types --------------------------------------------------------------------------------------------------------- */

static int type_named(const char *name)
{
    static const struct {
        const char *name;
        int type;
    } types[] = {{"null", T_NULL},    {"boolean", T_BOOL},  {"object", T_OBJECT},
                 {"array", T_ARRAY},  {"string", T_STRING}, {"integer", T_INTEGER},
                 {"number", T_NUMBER}};
    for (size_t i = 0; i < BASE_COUNT(types); i++)
        if (!strcmp(name, types[i].name))
            return types[i].type;
    return 0;
}

static int type_of_value(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return T_OBJECT;
    case JSON_ARRAY:
        return T_ARRAY;
    case JSON_STRING:
        return T_STRING;
    case JSON_INTEGER:
        return T_INTEGER;
    case JSON_REAL:
        return T_NUMBER & ~T_INTEGER;
    case JSON_TRUE:
    case JSON_FALSE:
        return T_BOOL;
    case JSON_NULL:
        return T_NULL;
    }
    return 0;
}

/* The types that "type" names; T_ALL when there is no such word, 0 when it is wrong. */
static int types_named(const json_t *schema)
{
    const json_t *v = json_object_get(schema, "type"), *one;
    int types = 0;
    size_t i;
    if (!v)
        return T_ALL;
    if (json_is_string(v))
        return type_named(json_string_value(v));
    json_array_foreach(v, i, one)
    {
        int t = json_is_string(one) ? type_named(json_string_value(one)) : 0;
        if (!t)
            return 0;
        types |= t;
    }
    return types;
}

/* Without "type": what the other words are about. */
static int types_meant(const json_t *schema)
{
    static const struct {
        const char *word;
        int type;
    } words[] = {{"properties", T_OBJECT},
                 {"required", T_OBJECT},
                 {"additionalProperties", T_OBJECT},
                 {"items", T_ARRAY},
                 {"minItems", T_ARRAY},
                 {"maxItems", T_ARRAY},
                 {"minLength", T_STRING},
                 {"pattern", T_STRING},
                 {"maxLength", T_STRING},
                 {"minimum", T_NUMBER},
                 {"maximum", T_NUMBER},
                 {"exclusiveMinimum", T_NUMBER},
                 {"exclusiveMaximum", T_NUMBER}};
    int types = 0;
    if (json_object_get(schema, "type"))
        return types_named(schema);
    for (size_t i = 0; i < BASE_COUNT(words); i++)
        if (json_object_get(schema, words[i].word))
            types |= words[i].type;
    return types ? types : T_ALL;
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

static bool emit_enum(compiler *c, const known *k, const json_t *values)
{
    int types = types_named(k->schema), split = -1, fitting = 0, left;
    const json_t *v;
    size_t i;
    if (!json_is_array(values) || json_array_size(values) == 0)
        return schema_refuse(c, k->path, "enum: expected an array of values");
    json_array_foreach(values, i, v) fitting += (type_of_value(v) & types) != 0;
    if (!fitting)
        return schema_refuse(c, k->path, "enum: no value is of the type that 'type' names");
    left = fitting;
    json_array_foreach(values, i, v)
    {
        if (!(type_of_value(v) & types))
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

static bool emit_string(compiler *c, const known *k)
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

static void emit_item(compiler *c, const known *k, const json_t *items)
{
    if (items)
        call_schema(c, items, k, "items");
    else
        json_call(c, RULE_ANY);
}

static void emit_next_item(compiler *c, const known *k, const json_t *items)
{
    grammar_text(&c->p, ",", 1);
    json_call(c, RULE_WS);
    emit_item(c, k, items);
}

static bool emit_array(compiler *c, const known *k)
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
static member *list_members(compiler *c, const known *k, int *n_out)
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

static void emit_member(compiler *c, const known *k, const member *m)
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
static void emit_other(compiler *c, const known *k, int name_rule, const json_t *schema)
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
static void emit_tail(compiler *c, const known *k, bool some, int name_rule, const json_t *schema)
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
static bool emit_object(compiler *c, const known *k)
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

/* What types the values of a schema can have. */
static int types_of(const json_t *schema, const json_t *root)
{
    const json_t *s = behind(schema, root), *values = json_object_get(s, "enum"), *v;
    size_t i;
    int types = 0;
    if (json_object_get(s, "const"))
        return type_of_value(json_object_get(s, "const"));
    if (json_is_array(values)) {
        json_array_foreach(values, i, v) types |= type_of_value(v);
        return types;
    }
    return json_object_get(s, "anyOf") || json_object_get(s, "oneOf") || json_object_get(s, "allOf")
               ? T_ALL
               : types_meant(s);
}

/* Whether a value can be one of the constants of a schema. */
static bool may_be(const json_t *schema, const json_t *value)
{
    const json_t *one = json_object_get(schema, "const"), *values = json_object_get(schema, "enum");
    const json_t *v;
    size_t i;
    if (one)
        return json_equal(one, value);
    if (!json_is_array(values))
        return true;
    json_array_foreach(values, i, v)
    {
        if (json_equal(v, value))
            return true;
    }
    return false;
}

static bool disjoint_constants(const json_t *a, const json_t *b)
{
    const json_t *one = json_object_get(a, "const"), *values = json_object_get(a, "enum"), *v;
    size_t i;
    if (one)
        return !may_be(b, one);
    if (!json_is_array(values))
        return false;
    json_array_foreach(values, i, v)
    {
        if (may_be(b, v))
            return false;
    }
    return true;
}

static bool requires(const json_t *schema, const char *name)
{
    const json_t *v;
    size_t i;
    json_array_foreach(json_object_get(schema, "required"), i, v)
    {
        if (json_is_string(v) && !strcmp(json_string_value(v), name))
            return true;
    }
    return false;
}

/* No value fits both: other types, other constants, or a member that both require with other constants. */
static bool disjoint(const json_t *a, const json_t *b, const json_t *root)
{
    const json_t *x = behind(a, root), *y = behind(b, root), *v, *other;
    const char *name;
    if (!(types_of(a, root) & types_of(b, root)) || disjoint_constants(x, y))
        return true;
    json_object_foreach(json_object_get(x, "properties"), name, v)
    {
        other = json_object_get(json_object_get(y, "properties"), name);
        if (other && requires(x, name) && requires(y, name) &&
            disjoint_constants(behind(v, root), behind(other, root)))
            return true;
    }
    return false;
}

static bool emit_alternatives(compiler *c, const known *k, const char *word)
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
            if (!disjoint(json_array_get(list, i), json_array_get(list, other), k->root))
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

static bool emit_ref(compiler *c, const known *k)
{
    const json_t *v = json_object_get(k->schema, "$ref");
    const json_t *to = json_is_string(v) ? resolve(k->root, json_string_value(v)) : NULL;
    if (!to)
        return schema_refuse(c, k->path, "$ref: '%.100s' is not in this schema",
                             json_is_string(v) ? json_string_value(v) : "?");
    if (!is_alone(c, k, "$ref", NULL))
        return false;
    grammar_emit(&c->p, GRAMMAR_CALL, rule_of(c, to, k->root, json_string_value(v)), 0);
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

static bool emit_type(compiler *c, const known *k, int type)
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

static bool emit_types(compiler *c, const known *k)
{
    static const int each[] = {T_NULL, T_BOOL, T_OBJECT, T_ARRAY, T_STRING, T_INTEGER, T_NUMBER};
    int types = types_meant(k->schema), split = -1;
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

static bool emit_schema(compiler *c, const known *k)
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
        if (!(type_of_value(v) & types_named(s)))
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

/* ---- specs --------------------------------------------------------------------------------------------------------- */

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
        grammar_emit(p, GRAMMAR_CALL, rule_of(c, v, v, ""), 0);
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

/* Bodies of the rules that were called: of schemas, and of JSON. Writing one may call for more. */
static void emit_rules(compiler *c)
{
    bool more = true;
    while (more && c->failed == STATUS_OK && !c->p.failed) {
        more = false;
        for (; c->done < c->n && c->failed == STATUS_OK && !c->p.failed; c->done++) {
            known k = c->schemas[c->done]; /* the list may move */
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

static status compile(compiler *c, const json_t *spec)
{
    for (int i = 0; i < BUCKETS; i++)
        c->bucket[i] = -1;
    for (int i = 0; i < RULE_COUNT; i++)
        c->json[i] = -1;
    int begin = grammar_rule(&c->p);
    grammar_place(&c->p, begin);
    if (emit_spec(c, spec, 0))
        grammar_emit(&c->p, GRAMMAR_ACCEPT, 0, 0);
    emit_rules(c);
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
