/*
 * For tests: does a JSON value fit a JSON schema? A plain validator of its own, by the words of the specification and nothing of src/sample,
 * for the keywords that schemas of tests use. Recursive and slow.
 */
#ifndef SHOAL_TESTS_SCHEMA_FITS_H
#define SHOAL_TESTS_SCHEMA_FITS_H

#include <jansson.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool fits(const json_t *value, const json_t *schema, const json_t *root);

static inline bool fits_type(const json_t *v, const char *type)
{
    if (!strcmp(type, "integer"))
        return json_is_integer(v) ||
               (json_is_real(v) && json_real_value(v) == floor(json_real_value(v)));
    return (!strcmp(type, "null") && json_is_null(v)) ||
           (!strcmp(type, "boolean") && json_is_boolean(v)) ||
           (!strcmp(type, "object") && json_is_object(v)) ||
           (!strcmp(type, "array") && json_is_array(v)) ||
           (!strcmp(type, "string") && json_is_string(v)) ||
           (!strcmp(type, "number") && json_is_number(v));
}

static inline size_t fits_characters(const json_t *s)
{
    size_t n = 0;
    for (size_t i = 0; i < json_string_length(s); i++)
        n += ((unsigned char)json_string_value(s)[i] & 0xC0) != 0x80;
    return n;
}

static inline bool fits_number(double v, const json_t *s)
{
    const json_t *min = json_object_get(s, "minimum"), *max = json_object_get(s, "maximum"),
                 *low = json_object_get(s, "exclusiveMinimum"),
                 *high = json_object_get(s, "exclusiveMaximum");
    return (!min || v >= json_number_value(min)) && (!max || v <= json_number_value(max)) &&
           (!low || v > json_number_value(low)) && (!high || v < json_number_value(high));
}

static inline bool fits_count(size_t n, const json_t *s, const char *least, const char *most)
{
    const json_t *min = json_object_get(s, least), *max = json_object_get(s, most);
    return (!min || (double)n >= json_number_value(min)) &&
           (!max || (double)n <= json_number_value(max));
}

static inline bool fits_object(const json_t *v, const json_t *s, const json_t *root)
{
    const json_t *properties = json_object_get(s, "properties"),
                 *more = json_object_get(s, "additionalProperties"), *one, *name;
    const char *key;
    size_t i;
    json_array_foreach(json_object_get(s, "required"), i, name)
    {
        if (!json_object_get(v, json_string_value(name)))
            return false;
    }
    json_object_foreach((json_t *)v, key, one)
    {
        const json_t *of = json_object_get(properties, key);
        if (of ? !fits(one, of, root) : more && !fits(one, more, root))
            return false;
    }
    return true;
}

static inline const json_t *fits_find(const json_t *root, const char *ref)
{
    char *path = strdup(ref), *at = path, *part;
    const json_t *v = root;
    strsep(&at, "/");
    while (v && (part = strsep(&at, "/")))
        v = json_object_get(v, part);
    free(path);
    return v;
}

static inline int fits_how_many(const json_t *v, const json_t *list, const json_t *root)
{
    const json_t *one;
    size_t i;
    int n = 0;
    json_array_foreach(list, i, one) n += fits(v, one, root);
    return n;
}

static bool fits(const json_t *v, const json_t *s, const json_t *root)
{
    const json_t *type = json_object_get(s, "type"), *one, *list;
    size_t i;
    if (json_is_boolean(s))
        return json_is_true(s);
    if (json_object_get(s, "$ref") &&
        !fits(v, fits_find(root, json_string_value(json_object_get(s, "$ref"))), root))
        return false;
    bool good = !type || (json_is_string(type) && fits_type(v, json_string_value(type)));
    json_array_foreach(type, i, one) good |= fits_type(v, json_string_value(one));
    if (!good)
        return false;
    if ((list = json_object_get(s, "enum"))) {
        good = false;
        json_array_foreach(list, i, one) good |= json_equal(v, one) != 0;
        if (!good)
            return false;
    }
    if (json_object_get(s, "const") && !json_equal(v, json_object_get(s, "const")))
        return false;
    if ((list = json_object_get(s, "anyOf")) && fits_how_many(v, list, root) < 1)
        return false;
    if ((list = json_object_get(s, "oneOf")) && fits_how_many(v, list, root) != 1)
        return false;
    if ((list = json_object_get(s, "allOf")) &&
        fits_how_many(v, list, root) != (int)json_array_size(list))
        return false;
    if (json_is_number(v))
        return fits_number(json_number_value(v), s);
    if (json_is_string(v))
        return fits_count(fits_characters(v), s, "minLength", "maxLength");
    if (json_is_object(v))
        return fits_object(v, s, root);
    if (!json_is_array(v))
        return true;
    const json_t *items = json_object_get(s, "items");
    json_array_foreach(v, i, one)
    {
        if (items && !fits(one, items, root))
            return false;
    }
    return fits_count(json_array_size(v), s, "minItems", "maxItems");
}

#endif
