/*
 * What can be said of a JSON schema without writing a rule: where its references lead, which types its values have, whether two have no value in common. Not
 * here: rules (schema.c).
 */
#include "sample/schema.h"

#include <string.h>

enum { REF_HOPS = 32 };

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

const json_t *schema_resolve(const json_t *root, const char *ref)
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
        schema = schema_resolve(root, ref);
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

int schema_type_of(const json_t *v)
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

int schema_types_named(const json_t *schema)
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

int schema_types_meant(const json_t *schema)
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
        return schema_types_named(schema);
    for (size_t i = 0; i < BASE_COUNT(words); i++)
        if (json_object_get(schema, words[i].word))
            types |= words[i].type;
    return types ? types : T_ALL;
}

/* ---- alternatives -------------------------------------------------------------------------------------------------- */

/* What types the values of a schema can have. */
static int types_of(const json_t *schema, const json_t *root)
{
    const json_t *s = behind(schema, root), *values = json_object_get(s, "enum"), *v;
    size_t i;
    int types = 0;
    if (json_object_get(s, "const"))
        return schema_type_of(json_object_get(s, "const"));
    if (json_is_array(values)) {
        json_array_foreach(values, i, v) types |= schema_type_of(v);
        return types;
    }
    return json_object_get(s, "anyOf") || json_object_get(s, "oneOf") || json_object_get(s, "allOf")
               ? T_ALL
               : schema_types_meant(s);
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

bool schema_disjoint(const json_t *a, const json_t *b, const json_t *root)
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
