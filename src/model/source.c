/*
 * Where configuration comes from: one set of accessors over GGUF metadata (under the architecture's prefix) and config.json, which src/file
 * flattens into keys of the same kind.
 *
 * Both name the same things, so a caller gives both names and gets one number. Text models inside multi-modal configs keep their keys
 * under "text_config": they are looked for there as well.
 */
#include "model/family.h"

#include <jansson.h>
#include <string.h>

struct model_source {
    const file_model *file;
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

static bool copy_text(char *out, size_t out_bytes, str text)
{
    if (text.length >= out_bytes || memchr(text.data, 0, text.length) != NULL)
        return false;
    memcpy(out, text.data, text.length);
    out[text.length] = 0;
    return true;
}

/* The first string of a value (a scalar counts as an array of one). */
static bool first_string(const file_key *k, str *out)
{
    if (k == NULL)
        return false;
    file_strings strings = file_strings_of(&k->value);
    return file_strings_next(&strings, out);
}

static status name_architecture(model_source *s, err *e)
{
    const file_model *f = s->file;
    str name;
    if (f->format != FILE_GGUF && f->config_json.length == 0)
        return err_set(e, STATUS_NOT_FOUND, "%s: no config.json beside the safetensors", f->path);
    bool found = f->format == FILE_GGUF
                     ? first_string(file_find_key(f, "general.architecture"), &name)
                     : first_string(file_find_key(f, "architectures"), &name) ||
                           first_string(file_find_key(f, "model_type"), &name);
    if (!found || name.length == 0 || !copy_text(s->architecture, sizeof(s->architecture), name))
        return err_set(e, STATUS_CORRUPT, "%s: no architecture is named", f->path);
    return STATUS_OK;
}

status model_source_create(model_source **out, const file_model *f, err *e)
{
    model_source *s = base_zalloc(1, sizeof(*s));
    if (s == NULL)
        return err_set(e, STATUS_NO_MEMORY, "%s: no memory for the configuration", f->path);
    s->file = f;
    status st = name_architecture(s, e);
    if (st != STATUS_OK) {
        model_source_destroy(s);
        return st;
    }
    *out = s;
    return STATUS_OK;
}

void model_source_destroy(model_source *s)
{
    base_free(s);
}

/* ---- finding ------------------------------------------------------------------------------------------------------- */

static const file_key *find_joined(const model_source *s, const char *a, const char *b)
{
    char full[256];
    size_t n = strlen(a), k = strlen(b);
    if (n + k >= sizeof(full))
        return NULL;
    memcpy(full, a, n);
    memcpy(full + n, b, k + 1);
    return file_find_key(s->file, full);
}

/* The key in this source's format: in GGUF under the architecture's prefix, unless it names its own ("general.x"). */
static const file_key *find(const model_source *s, const char *gguf, const char *hf)
{
    if (!source_is_gguf(s)) {
        const file_key *k = hf == NULL ? NULL : file_find_key(s->file, hf);
        return k != NULL || hf == NULL ? k : find_joined(s, "text_config.", hf);
    }
    if (gguf == NULL)
        return NULL;
    if (strncmp(gguf, "general.", 8) == 0)
        return file_find_key(s->file, gguf);
    char prefix[sizeof(s->architecture) + 2];
    size_t n = strlen(s->architecture);
    memcpy(prefix, s->architecture, n);
    memcpy(prefix + n, ".", 2);
    return find_joined(s, prefix, gguf);
}

static status missing(const model_source *s, const char *gguf, const char *hf, bool *found, err *e)
{
    if (found != NULL) {
        *found = false;
        return STATUS_OK;
    }
    if (source_is_gguf(s))
        return err_set(e, STATUS_CORRUPT, "%s: the key %s.%s is missing", s->file->path,
                       s->architecture, gguf == NULL ? "?" : gguf);
    return err_set(e, STATUS_CORRUPT, "%s: config.json has no \"%s\"", s->file->path,
                   hf == NULL ? "?" : hf);
}

static status wrong(const model_source *s, const file_key *k, const char *expected, err *e)
{
    return err_set(e, STATUS_CORRUPT, "%s: %.*s is of type %s, expected %s", s->file->path,
                   (int)k->name.length, k->name.data, file_value_type_name(k->type), expected);
}

static status have(bool *found)
{
    if (found != NULL)
        *found = true;
    return STATUS_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

status source_element_i64(const model_source *s, const char *gguf, const char *hf, int64_t i,
                          int64_t *out, bool *found, err *e)
{
    const file_key *k = find(s, gguf, hf);
    if (k == NULL)
        return missing(s, gguf, hf, found, e);
    uint64_t at = k->type == FILE_VALUE_ARRAY ? (uint64_t)i : 0;
    if (at >= k->value.n)
        return err_set(e, STATUS_CORRUPT, "%s: %.*s has %llu elements, expected more than %lld",
                       s->file->path, (int)k->name.length, k->name.data,
                       (unsigned long long)k->value.n, (long long)i);
    double real;
    if (file_array_i64(&k->value, at, out))
        return have(found);
    if (k->value.type != FILE_VALUE_F64 || !file_array_f64(&k->value, at, &real) || real < -9e15 ||
        real > 9e15 || real != (double)(int64_t)real)
        return wrong(s, k, "a whole number", e);
    *out = (int64_t)real; /* 8.0 in JSON */
    return have(found);
}

status source_i64(const model_source *s, const char *gguf, const char *hf, int64_t *out,
                  bool *found, err *e)
{
    return source_element_i64(s, gguf, hf, 0, out, found, e);
}

status source_f64(const model_source *s, const char *gguf, const char *hf, double *out, bool *found,
                  err *e)
{
    const file_key *k = find(s, gguf, hf);
    if (k == NULL)
        return missing(s, gguf, hf, found, e);
    if (k->value.n == 0 || !file_array_f64(&k->value, 0, out))
        return wrong(s, k, "a number", e);
    return have(found);
}

status source_bool(const model_source *s, const char *gguf, const char *hf, bool *out, bool *found,
                   err *e)
{
    const file_key *k = find(s, gguf, hf);
    if (k == NULL)
        return missing(s, gguf, hf, found, e);
    uint64_t v;
    if (k->value.n == 0 || !file_array_u64(&k->value, 0, &v))
        return wrong(s, k, "true or false", e);
    *out = v != 0;
    return have(found);
}

status source_text(const model_source *s, const char *gguf, const char *hf, char *out,
                   size_t out_bytes, bool *found, err *e)
{
    const file_key *k = find(s, gguf, hf);
    if (k == NULL)
        return missing(s, gguf, hf, found, e);
    str text;
    if (!first_string(k, &text) || !copy_text(out, out_bytes, text))
        return wrong(s, k, "a short text", e);
    return have(found);
}

bool source_element_text(const model_source *s, const char *hf, int64_t i, str *out)
{
    const file_key *k = source_is_gguf(s) ? NULL : find(s, NULL, hf);
    if (k == NULL)
        return false;
    file_strings strings = file_strings_of(&k->value);
    for (int64_t at = 0; at <= i; at++)
        if (!file_strings_next(&strings, out))
            return false;
    return true;
}

status source_pooling(const model_source *s, model_pooling *out, err *e)
{
    static const struct {
        const char *name;
        model_pooling pooling;
    } kinds[] = {{"pooling_mode_cls_token", MODEL_POOLING_CLS},
                 {"pooling_mode_mean_tokens", MODEL_POOLING_MEAN},
                 {"pooling_mode_lasttoken", MODEL_POOLING_LAST}};
    str text = s->file->pooling_json;
    if (text.length == 0)
        return STATUS_OK;
    json_t *j = json_loadb(text.data, text.length, 0, NULL);
    model_pooling found = MODEL_POOLING_NONE;
    int n = 0;
    const char *name;
    const json_t *v;
    json_object_foreach((json_t *)j, name, v)
    {
        if (strncmp(name, "pooling_mode_", 13) != 0 || !json_is_true(v))
            continue;
        n++;
        for (size_t i = 0; i < BASE_COUNT(kinds); i++)
            if (strcmp(name, kinds[i].name) == 0)
                found = kinds[i].pooling;
    }
    json_decref(j);
    if (n != 1 || found == MODEL_POOLING_NONE)
        return err_set(e, STATUS_UNSUPPORTED,
                       "%s: 1_Pooling/config.json: expected one of cls, mean and last token",
                       s->file->path);
    *out = found;
    return STATUS_OK;
}
