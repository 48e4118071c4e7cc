/*
 * Where configuration comes from: one set of accessors over GGUF metadata (under the architecture's prefix) and config.json.
 *
 * Both name the same things, so a caller gives both names and gets one number. Text models inside multi-modal configs keep their keys
 * under "text_config": that object is looked into as well.
 */
#include "model/family.h"

#include <jansson.h>
#include <string.h>

struct model_source {
    const file_model *file;
    json_t *config; /* NULL for GGUF */
    char architecture[128];
};

bool source_is_gguf(const model_source *s)
{
    return s->file->format == FILE_GGUF;
}
const char *source_architecture(const model_source *s)
{
    return s->architecture;
}
const file_model *source_file(const model_source *s)
{
    return s->file;
}

static bool copy_text(char *out, size_t out_bytes, const char *data, size_t length)
{
    if (length >= out_bytes || memchr(data, 0, length) != NULL)
        return false;
    memcpy(out, data, length);
    out[length] = 0;
    return true;
}

static status open_gguf(model_source *s, err *e)
{
    str name;
    status st = file_get_str(s->file, "general.architecture", &name, e);
    if (st != STATUS_OK)
        return st;
    if (name.length == 0 || !copy_text(s->architecture, sizeof(s->architecture), name.data, name.length))
        return err_set(e, STATUS_CORRUPT, "%s: general.architecture is not a name", s->file->path);
    return STATUS_OK;
}

static status open_json(model_source *s, err *e)
{
    str text = s->file->config_json;
    if (text.length == 0)
        return err_set(e, STATUS_NOT_FOUND, "%s: no config.json beside the safetensors", s->file->path);
    json_error_t error;
    s->config = json_loadb(text.data, text.length, 0, &error);
    if (s->config == NULL)
        return err_set(e, STATUS_CORRUPT, "%s: config.json, line %d: %s", s->file->path, error.line, error.text);
    if (!json_is_object(s->config))
        return err_set(e, STATUS_CORRUPT, "%s: config.json is not an object", s->file->path);
    const char *name = json_string_value(json_array_get(json_object_get(s->config, "architectures"), 0));
    if (name == NULL)
        name = json_string_value(json_object_get(s->config, "model_type"));
    if (name == NULL || !copy_text(s->architecture, sizeof(s->architecture), name, strlen(name)))
        return err_set(e, STATUS_CORRUPT, "%s: config.json names no architecture", s->file->path);
    return STATUS_OK;
}

status model_source_create(model_source **out, const file_model *f, err *e)
{
    model_source *s = base_zalloc(1, sizeof(*s));
    if (s == NULL)
        return err_set(e, STATUS_NO_MEMORY, "%s: no memory for the configuration", f->path);
    s->file = f;
    status st = f->format == FILE_GGUF ? open_gguf(s, e) : open_json(s, e);
    if (st != STATUS_OK) {
        model_source_destroy(s);
        return st;
    }
    *out = s;
    return STATUS_OK;
}

void model_source_destroy(model_source *s)
{
    if (s == NULL)
        return;
    json_decref(s->config);
    base_free(s);
}

/* ---- finding ------------------------------------------------------------------------------------------------------- */

/* "a/b" from an object. JSON null counts as missing. */
static const json_t *descend(const json_t *object, const char *path)
{
    while (object != NULL) {
        const char *slash = strchr(path, '/');
        size_t n = slash == NULL ? strlen(path) : (size_t)(slash - path);
        char name[128];
        if (!copy_text(name, sizeof(name), path, n))
            return NULL;
        object = json_object_get(object, name);
        if (slash == NULL)
            break;
        path = slash + 1;
    }
    return json_is_null(object) ? NULL : object;
}

static const json_t *find_json(const model_source *s, const char *path)
{
    if (path == NULL)
        return NULL;
    const json_t *v = descend(s->config, path);
    return v != NULL ? v : descend(json_object_get(s->config, "text_config"), path);
}

/* The GGUF key: under the architecture's prefix, unless it names its own ("general.", "tokenizer."). */
static const file_key *find_key(const model_source *s, const char *name, char full[256])
{
    if (name == NULL)
        return NULL;
    bool own = strncmp(name, "general.", 8) == 0 || strncmp(name, "tokenizer.", 10) == 0;
    sb b;
    sb_init(&b);
    sb_printf(&b, "%s%s%s", own ? "" : s->architecture, own ? "" : ".", name);
    bool fits = !b.failed && copy_text(full, 256, b.data, b.length);
    sb_fini(&b);
    return fits ? file_find_key(s->file, full) : NULL;
}

static status missing(const model_source *s, const char *gguf, const char *hf, bool *found, err *e)
{
    if (found != NULL) {
        *found = false;
        return STATUS_OK;
    }
    if (source_is_gguf(s))
        return err_set(e, STATUS_CORRUPT, "%s: the key %s.%s is missing", s->file->path, s->architecture,
                       gguf == NULL ? "?" : gguf);
    return err_set(e, STATUS_CORRUPT, "%s: config.json has no \"%s\"", s->file->path, hf == NULL ? "?" : hf);
}

static status wrong(const model_source *s, const char *gguf, const char *hf, const char *expected, err *e)
{
    return err_set(e, STATUS_CORRUPT, "%s: %s is not %s", s->file->path, source_is_gguf(s) ? gguf : hf, expected);
}

static status have(bool *found)
{
    if (found != NULL)
        *found = true;
    return STATUS_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

status source_element_i64(const model_source *s, const char *gguf, const char *hf, int64_t i, int64_t *out, bool *found,
                          err *e)
{
    if (!source_is_gguf(s)) {
        const json_t *v = find_json(s, hf);
        if (json_is_array(v))
            v = json_array_get(v, (size_t)i);
        if (v == NULL)
            return missing(s, gguf, hf, found, e);
        if (!json_is_integer(v) && !(json_is_real(v) && json_real_value(v) == (double)(int64_t)json_real_value(v)))
            return wrong(s, gguf, hf, "a whole number", e);
        *out = json_is_integer(v) ? (int64_t)json_integer_value(v) : (int64_t)json_real_value(v);
        return have(found);
    }
    char full[256];
    const file_key *k = find_key(s, gguf, full);
    if (k == NULL)
        return missing(s, gguf, hf, found, e);
    uint64_t at = k->type == FILE_VALUE_ARRAY ? (uint64_t)i : 0;
    int64_t v;
    if (at >= k->value.n || !file_array_i64(&k->value, at, &v))
        return wrong(s, full, hf, "a whole number (or has too few of them)", e);
    *out = v;
    return have(found);
}

status source_i64(const model_source *s, const char *gguf, const char *hf, int64_t *out, bool *found, err *e)
{
    return source_element_i64(s, gguf, hf, 0, out, found, e);
}

status source_f64(const model_source *s, const char *gguf, const char *hf, double *out, bool *found, err *e)
{
    if (!source_is_gguf(s)) {
        const json_t *v = find_json(s, hf);
        if (v == NULL)
            return missing(s, gguf, hf, found, e);
        if (!json_is_number(v))
            return wrong(s, gguf, hf, "a number", e);
        *out = json_number_value(v);
        return have(found);
    }
    char full[256];
    const file_key *k = find_key(s, gguf, full);
    if (k == NULL)
        return missing(s, gguf, hf, found, e);
    double v;
    if (k->value.n == 0 || !file_array_f64(&k->value, 0, &v))
        return wrong(s, full, hf, "a number", e);
    *out = v;
    return have(found);
}

status source_bool(const model_source *s, const char *gguf, const char *hf, bool *out, bool *found, err *e)
{
    if (!source_is_gguf(s)) {
        const json_t *v = find_json(s, hf);
        if (v == NULL)
            return missing(s, gguf, hf, found, e);
        if (!json_is_boolean(v))
            return wrong(s, gguf, hf, "true or false", e);
        *out = json_is_true(v);
        return have(found);
    }
    char full[256];
    const file_key *k = find_key(s, gguf, full);
    if (k == NULL)
        return missing(s, gguf, hf, found, e);
    uint64_t v;
    if (k->value.n == 0 || !file_array_u64(&k->value, 0, &v))
        return wrong(s, full, hf, "true or false", e);
    *out = v != 0;
    return have(found);
}

status source_text(const model_source *s, const char *gguf, const char *hf, char *out, size_t out_bytes, bool *found,
                   err *e)
{
    if (!source_is_gguf(s)) {
        const json_t *v = find_json(s, hf);
        if (v == NULL)
            return missing(s, gguf, hf, found, e);
        const char *text = json_string_value(v);
        if (text == NULL || !copy_text(out, out_bytes, text, json_string_length(v)))
            return wrong(s, gguf, hf, "a short text", e);
        return have(found);
    }
    char full[256];
    if (find_key(s, gguf, full) == NULL)
        return missing(s, gguf, hf, found, e);
    str text;
    status st = file_get_str(s->file, full, &text, e);
    if (st != STATUS_OK)
        return st;
    if (!copy_text(out, out_bytes, text.data, text.length))
        return wrong(s, full, hf, "a short text", e);
    return have(found);
}
