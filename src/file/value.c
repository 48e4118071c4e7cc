/*
 * Metadata lookups: from the packed, unaligned values of a file to C types, with errors that name the key. Values were bounds-checked
 * when the file was opened, so nothing here looks at lengths again. Deliberately not: defaults or meanings of any key.
 */
#include "file/inside.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

const char *file_value_type_name(file_value_type t)
{
    static const char *const names[FILE_VALUE_COUNT] = {
        "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "array", "u64", "i64", "f64"};
    return (unsigned)t < FILE_VALUE_COUNT ? names[t] : "?";
}

/* ---- one element ------------------------------------------------------------------------------ */

/* An integer as sign and 64 bits, so that u64 and i64 both fit. False when the type is no integer. */
static bool load_integer(const file_array *a, uint64_t i, bool *negative, uint64_t *bits)
{
    const unsigned char *p = a->data;
    int64_t value;
    *negative = false;
    switch (a->type) {
    case FILE_VALUE_U8:
    case FILE_VALUE_BOOL:
        *bits = p[i];
        if (a->type == FILE_VALUE_BOOL)
            *bits = *bits != 0;
        return true;
    case FILE_VALUE_U16:
        *bits = base_load_u16(p + 2 * i);
        return true;
    case FILE_VALUE_U32:
        *bits = base_load_u32(p + 4 * i);
        return true;
    case FILE_VALUE_U64:
        *bits = base_load_u64(p + 8 * i);
        return true;
    case FILE_VALUE_I8:
        value = (int8_t)p[i];
        break;
    case FILE_VALUE_I16:
        value = (int16_t)base_load_u16(p + 2 * i);
        break;
    case FILE_VALUE_I32:
        value = (int32_t)base_load_u32(p + 4 * i);
        break;
    case FILE_VALUE_I64:
        value = (int64_t)base_load_u64(p + 8 * i);
        break;
    default:
        return false;
    }
    *negative = value < 0;
    *bits = (uint64_t)value;
    return true;
}

bool file_array_u64(const file_array *a, uint64_t i, uint64_t *out)
{
    bool negative;
    uint64_t bits;
    if (!load_integer(a, i, &negative, &bits) || negative)
        return false;
    *out = bits;
    return true;
}

bool file_array_i64(const file_array *a, uint64_t i, int64_t *out)
{
    bool negative;
    uint64_t bits;
    if (!load_integer(a, i, &negative, &bits) || (!negative && bits > INT64_MAX))
        return false;
    *out = (int64_t)bits;
    return true;
}

bool file_array_f64(const file_array *a, uint64_t i, double *out)
{
    double value;
    bool negative;
    uint64_t bits;
    if (a->type == FILE_VALUE_F32) {
        uint32_t word = base_load_u32(a->data + 4 * i);
        float f;
        memcpy(&f, &word, sizeof f);
        value = (double)f;
    } else if (a->type == FILE_VALUE_F64) {
        uint64_t word = base_load_u64(a->data + 8 * i);
        memcpy(&value, &word, sizeof value);
    } else if (a->type != FILE_VALUE_BOOL && load_integer(a, i, &negative, &bits)) {
        value = negative ? (double)(int64_t)bits : (double)bits;
    } else {
        return false;
    }
    if (!isfinite(value))
        return false;
    *out = value;
    return true;
}

file_strings file_strings_of(const file_array *a)
{
    if (a->type != FILE_VALUE_STR)
        return (file_strings){NULL, NULL, 0};
    return (file_strings){a->data, a->data + a->bytes, a->n};
}

bool file_strings_next(file_strings *s, str *out)
{
    /* Lengths were checked on opening; looked at again because a mapping shows what others write into the file. */
    if (s->left == 0 || s->end - s->at < 8)
        return false;
    uint64_t length = base_load_u64(s->at);
    if (length > (uint64_t)(s->end - s->at) - 8)
        return false;
    *out = (str){(const char *)s->at + 8, (size_t)length};
    s->at += 8 + length;
    s->left--;
    return true;
}

/* ---- one key ---------------------------------------------------------------------------------- */

const file_key *file_find_key(const file_model *m, const char *name)
{
    for (uint32_t i = 0; i < m->n_keys; i++) {
        if (str_is(m->keys[i].name, name))
            return &m->keys[i];
    }
    return NULL;
}

static const char *type_text(const file_key *key, char text[32])
{
    sb b;
    if (key->type != FILE_VALUE_ARRAY)
        return file_value_type_name(key->type);
    sb_init(&b);
    sb_printf(&b, "array of %s", file_value_type_name(key->value.type));
    size_t n = BASE_MIN(b.length, (size_t)31);
    if (b.data)
        memcpy(text, b.data, n);
    text[b.data ? n : 0] = '\0';
    sb_fini(&b);
    return text;
}

static status wrong(const file_model *m, const file_key *key, const char *expected, err *e)
{
    char text[32];
    sb value;
    sb_init(&value);
    file_key_format(&value, key, 4);
    status s = err_set(e, STATUS_CORRUPT, "%s: key %.*s: expected %s, got %s %s", m->path,
                       (int)BASE_MIN(key->name.length, 100), key->name.data, expected,
                       type_text(key, text), value.data ? value.data : "");
    sb_fini(&value);
    return s;
}

static const file_key *require_key(const file_model *m, const char *name, err *e)
{
    const file_key *key = file_find_key(m, name);
    if (!key)
        err_set(e, STATUS_NOT_FOUND, "%s: key %s: is missing%s", m->path, name,
                m->format == FILE_GGUF ? "" : " in its config.json");
    return key;
}

status file_get_u64(const file_model *m, const char *name, uint64_t *out, err *e)
{
    const file_key *key = require_key(m, name, e);
    if (!key)
        return STATUS_NOT_FOUND;
    if (key->type == FILE_VALUE_ARRAY || key->type == FILE_VALUE_BOOL ||
        !file_array_u64(&key->value, 0, out))
        return wrong(m, key, "an integer >= 0", e);
    return STATUS_OK;
}

status file_get_i64(const file_model *m, const char *name, int64_t *out, err *e)
{
    const file_key *key = require_key(m, name, e);
    if (!key)
        return STATUS_NOT_FOUND;
    if (key->type == FILE_VALUE_ARRAY || key->type == FILE_VALUE_BOOL ||
        !file_array_i64(&key->value, 0, out))
        return wrong(m, key, "an integer up to 2^63 - 1", e);
    return STATUS_OK;
}

status file_get_f64(const file_model *m, const char *name, double *out, err *e)
{
    const file_key *key = require_key(m, name, e);
    if (!key)
        return STATUS_NOT_FOUND;
    if (key->type == FILE_VALUE_ARRAY || !file_array_f64(&key->value, 0, out))
        return wrong(m, key, "a finite number", e);
    return STATUS_OK;
}

status file_get_bool(const file_model *m, const char *name, bool *out, err *e)
{
    const file_key *key = require_key(m, name, e);
    if (!key)
        return STATUS_NOT_FOUND;
    if (key->type != FILE_VALUE_BOOL || key->value.data[0] > 1)
        return wrong(m, key, "a bool", e);
    *out = key->value.data[0] == 1;
    return STATUS_OK;
}

status file_get_str(const file_model *m, const char *name, str *out, err *e)
{
    const file_key *key = require_key(m, name, e);
    if (!key)
        return STATUS_NOT_FOUND;
    if (key->type != FILE_VALUE_STR)
        return wrong(m, key, "a string", e);
    file_strings walk = file_strings_of(&key->value);
    return file_strings_next(&walk, out) ? STATUS_OK : wrong(m, key, "a string", e);
}

status file_get_array(const file_model *m, const char *name, file_array *out, err *e)
{
    const file_key *key = require_key(m, name, e);
    if (!key)
        return STATUS_NOT_FOUND;
    if (key->type != FILE_VALUE_ARRAY)
        return wrong(m, key, "an array", e);
    *out = key->value;
    return STATUS_OK;
}

status file_get_strings(const file_model *m, const char *name, file_array *out, err *e)
{
    const file_key *key = require_key(m, name, e);
    if (!key)
        return STATUS_NOT_FOUND;
    if (key->type != FILE_VALUE_ARRAY || key->value.type != FILE_VALUE_STR)
        return wrong(m, key, "an array of strings", e);
    *out = key->value;
    return STATUS_OK;
}

/* ---- with a default --------------------------------------------------------------------------- */

status file_get_u64_or(const file_model *m, const char *key, uint64_t missing, uint64_t *out,
                       err *e)
{
    if (file_find_key(m, key))
        return file_get_u64(m, key, out, e);
    *out = missing;
    return STATUS_OK;
}

status file_get_f64_or(const file_model *m, const char *key, double missing, double *out, err *e)
{
    if (file_find_key(m, key))
        return file_get_f64(m, key, out, e);
    *out = missing;
    return STATUS_OK;
}

status file_get_bool_or(const file_model *m, const char *key, bool missing, bool *out, err *e)
{
    if (file_find_key(m, key))
        return file_get_bool(m, key, out, e);
    *out = missing;
    return STATUS_OK;
}

status file_get_str_or(const file_model *m, const char *key, const char *missing, str *out, err *e)
{
    if (file_find_key(m, key))
        return file_get_str(m, key, out, e);
    *out = str_from(missing);
    return STATUS_OK;
}

/* ---- for people ------------------------------------------------------------------------------- */

static void format_str(sb *out, str s)
{
    size_t n = BASE_MIN(s.length, (size_t)60);
    while (n > 0 && n < s.length && ((unsigned char)s.data[n] & 0xC0) == 0x80)
        n--; /* not in the middle of a character */
    sb_putc(out, '"');
    sb_json(out, s.data, n);
    sb_puts(out, n < s.length ? "…\"" : "\"");
}

static void format_number(sb *out, const file_array *a, uint64_t i)
{
    double real;
    bool negative;
    uint64_t bits;
    if (a->type == FILE_VALUE_BOOL)
        sb_puts(out, a->data[i] ? "true" : "false");
    else if (load_integer(a, i, &negative, &bits))
        negative ? sb_printf(out, "%" PRId64, (int64_t)bits) : sb_printf(out, "%" PRIu64, bits);
    else if (file_array_f64(a, i, &real))
        sb_printf(out, "%.9g", real);
    else
        sb_puts(out, "(not finite)");
}

void file_key_format(sb *out, const file_key *key, uint64_t max_items)
{
    const file_array *a = &key->value;
    bool array = key->type == FILE_VALUE_ARRAY;
    uint64_t n = array ? BASE_MIN(a->n, max_items) : 1;
    file_strings walk = file_strings_of(a);
    if (array)
        sb_putc(out, '[');
    for (uint64_t i = 0; i < n; i++) {
        str s;
        if (i)
            sb_puts(out, ", ");
        if (a->type != FILE_VALUE_STR)
            format_number(out, a, i);
        else if (file_strings_next(&walk, &s))
            format_str(out, s);
    }
    if (array && n < a->n)
        sb_printf(out, "%s… (%" PRIu64 ")", n ? ", " : "", a->n);
    if (array)
        sb_putc(out, ']');
}
