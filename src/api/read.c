/*
 * Reading JSON that clients send: the body, and typed members of objects, each error with the path of the member, what was expected and
 * what came. It knows no dialect and keeps nothing.
 */
#include "api/api_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *kind_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

bool api_wrong_type(api_fault *f, const char *param, const char *expected, const json_t *got)
{
    if (!got)
        return api_fault_set(f, STATUS_INVALID, param, "expected %s, and it is missing", expected);
    return api_fault_set(f, STATUS_INVALID, param, "expected %s, got %s", expected, kind_of(got));
}

str api_json_str(const json_t *string)
{
    return (str){json_string_value(string), json_string_length(string)};
}

static bool no_json(api_fault *f, const json_error_t *error)
{
    const char *hint =
        strstr(error->text, "nvalid Unicode") ? " (half of a character that was cut in two)" : "";
    return api_fault_set(f, STATUS_INVALID, "", "the body is no JSON: line %d column %d: %.200s%s",
                         error->line, error->column, error->text, hint);
}

/* A path opens any file of this machine: only its own people may name one, others just what is loaded already. */
static bool may_name(const api_request *q, const char *name)
{
    if (!name || !strchr("/.~", *name) || !*name || http_request_is_local(q->r))
        return true;
    for (int i = 0; i < node_n_instances(q->of->n); i++) {
        node_instance_info info;
        node_instance_describe(q->of->n, i, &info);
        if (!strcmp(info.name, name))
            return true;
    }
    return false;
}

bool api_read_body(json_t **out, const api_request *q, api_fault *f)
{
    str body = http_request_body(q->r);
    json_error_t error;
    if (body.length == 0)
        return api_fault_set(f, STATUS_INVALID, "", "the body is empty: expected a JSON object");
    json_t *v = json_loadb(body.data, body.length, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!v)
        return no_json(f, &error);
    if (!json_is_object(v)) {
        api_fault_set(f, STATUS_INVALID, "", "the body: expected a JSON object, got %s",
                      kind_of(v));
        json_decref(v);
        return false;
    }
    if (!may_name(q, json_string_value(json_object_get(v, "model")))) {
        json_decref(v);
        return api_fault_set(f, STATUS_NOT_FOUND, "model",
                             "a path can be named as the model only from this machine itself");
    }
    *out = v;
    return true;
}

/* The member, NULL when absent or null. */
static const json_t *member(const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);
    return json_is_null(v) ? NULL : v;
}

const char *api_path(char out[API_PATH], const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(out, API_PATH, format, args);
    va_end(args);
    return out;
}

/* path + name, cut at what a fault holds. */
static const char *join(char out[API_PATH], const char *path, const char *name)
{
    snprintf(out, API_PATH, "%s%s", path, name);
    return out;
}

bool api_get_bool(bool *out, const json_t *object, const char *path, const char *name, api_fault *f)
{
    char param[API_PATH];
    const json_t *v = member(object, name);
    if (!v)
        return true;
    if (!json_is_boolean(v))
        return api_wrong_type(f, join(param, path, name), "true or false", v);
    *out = json_is_true(v);
    return true;
}

/* Some clients write whole numbers as 5.0. */
bool api_get_whole(int64_t *out, int64_t least, int64_t most, const json_t *object,
                   const char *path, const char *name, api_fault *f)
{
    char param[API_PATH];
    const json_t *v = member(object, name);
    if (!v)
        return true;
    join(param, path, name);
    int64_t whole;
    if (json_is_integer(v)) {
        whole = json_integer_value(v);
    } else if (json_is_real(v)) {
        double d = json_real_value(v);
        if (d != floor(d) || fabs(d) > 9e15)
            return api_fault_set(f, STATUS_INVALID, param, "expected a whole number, got %g", d);
        whole = (int64_t)d;
    } else {
        return api_wrong_type(f, param, "a whole number", v);
    }
    if (whole < least || whole > most)
        return api_fault_set(f, STATUS_INVALID, param,
                             "expected %" PRId64 " to %" PRId64 ", got %" PRId64, least, most,
                             whole);
    *out = whole;
    return true;
}

bool api_get_number(float *out, const json_t *object, const char *path, const char *name,
                    api_fault *f)
{
    char param[API_PATH];
    const json_t *v = member(object, name);
    if (!v)
        return true;
    if (!json_is_number(v))
        return api_wrong_type(f, join(param, path, name), "a number", v);
    double d = json_number_value(v);
    if (!(fabs(d) <= 1e30))
        return api_fault_set(f, STATUS_INVALID, join(param, path, name), "%g is too large", d);
    *out = (float)d;
    return true;
}

bool api_get_string(const char **out, const json_t *object, const char *path, const char *name,
                    api_fault *f)
{
    char param[API_PATH];
    const json_t *v = member(object, name);
    if (!v)
        return true;
    if (!json_is_string(v))
        return api_wrong_type(f, join(param, path, name), "a string", v);
    if (strlen(json_string_value(v)) != json_string_length(v))
        return api_fault_set(f, STATUS_INVALID, join(param, path, name),
                             "there is a NUL character in it");
    *out = json_string_value(v);
    return true;
}

bool api_get_container(json_t **out, json_type kind, const json_t *object, const char *path,
                       const char *name, api_fault *f)
{
    char param[API_PATH];
    json_t *v = json_object_get(object, name);
    if (!v || json_is_null(v))
        return true;
    if (json_typeof(v) != kind)
        return api_wrong_type(f, join(param, path, name),
                              kind == JSON_OBJECT ? "an object" : "an array", v);
    *out = v;
    return true;
}

bool api_read_ids(const int32_t **out, int *n, const json_t *array, const char *param,
                  arena *memory, api_fault *f)
{
    size_t count = json_array_size(array), i;
    const json_t *v;
    char path[API_PATH];
    int32_t *ids = count < INT32_MAX ? arena_zalloc(memory, count + 1, sizeof *ids) : NULL;
    if (!ids)
        return api_fault_set(f, STATUS_NO_MEMORY, param, "no memory for %zu token ids", count);
    json_array_foreach(array, i, v)
    {
        api_path(path, "%s[%zu]", param, i);
        if (!json_is_integer(v))
            return api_wrong_type(f, path, "a token id", v);
        if (json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            return api_fault_set(f, STATUS_INVALID, path, "%lld is no token id",
                                 (long long)json_integer_value(v));
        ids[i] = (int32_t)json_integer_value(v);
    }
    *out = ids;
    *n = (int)count;
    return true;
}
