/*
 * GGUF v2 and v3. Layout, all little-endian:
 *
 *   "GGUF" u32 version u64 n_tensors u64 n_keys
 *   n_keys    × { str key, u32 type, value }         str = u64 length, bytes; array = u32 type, u64 n, values
 *   n_tensors × { str name, u32 n_dims, u64 dim × n_dims, u32 type, u64 offset }
 *   padding to general.alignment (32), then the data; offsets count from there
 *
 * How: a first walk proves every length and counts, nothing is allocated; the second one fills the entries. A split model is
 * several such files: metadata counts from the first, tensors from all, offsets are per file.
 * Deliberately not: big-endian files, version 1 (u32 lengths), arrays of arrays: refused by name. Nobody writes them any more.
 */
#include "file/inside.h"

#include <inttypes.h>
#include <string.h>

enum {
    MAX_NAME = 65535,
    MIN_KEY_BYTES = 8 + 1 + 4 + 1,
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8,
    MAX_ALIGNMENT = 1 << 20
};

/* What the first walk finds. */
typedef struct header {
    uint32_t n_keys, n_tensors;
    uint64_t keys_at, tensors_at; /* byte offsets of the two lists */
    uint64_t data_at; /* of the data; may lie beyond the end when there are no tensors */
    uint64_t alignment;
    uint64_t split_count, split_no, split_tensors; /* 0 when the key is missing */
} header;

bool file_gguf_is(const unsigned char *data, uint64_t bytes)
{
    return bytes >= 4 && memcmp(data, "GGUF", 4) == 0;
}

/* ---- the cursor ------------------------------------------------------------------------------- */

static status need(const file_cursor *c, uint64_t n, const char *what, err *e)
{
    if (n <= c->bytes - c->at)
        return STATUS_OK;
    return err_set(e, STATUS_CORRUPT,
                   "%s: byte %" PRIu64 ": %s: expected %" PRIu64 " more bytes, got %" PRIu64
                   " before the end of the file",
                   c->path, c->at, what, n, c->bytes - c->at);
}

static status take_u32(file_cursor *c, const char *what, uint32_t *out, err *e)
{
    status s = need(c, 4, what, e);
    if (s)
        return s;
    *out = base_load_u32(c->data + c->at);
    c->at += 4;
    return STATUS_OK;
}

static status take_u64(file_cursor *c, const char *what, uint64_t *out, err *e)
{
    status s = need(c, 8, what, e);
    if (s)
        return s;
    *out = base_load_u64(c->data + c->at);
    c->at += 8;
    return STATUS_OK;
}

static status take_str(file_cursor *c, const char *what, str *out, err *e)
{
    uint64_t length;
    status s = take_u64(c, what, &length, e);
    if (s)
        return s;
    if ((s = need(c, length, what, e)))
        return s;
    *out = (str){(const char *)c->data + c->at, (size_t)length};
    c->at += length;
    return STATUS_OK;
}

/* A name that one can look up: not empty, not absurd, no NUL. */
static status take_name(file_cursor *c, const char *what, str *out, err *e)
{
    uint64_t at = c->at;
    status s = take_str(c, what, out, e);
    if (s)
        return s;
    if (out->length == 0 || out->length > MAX_NAME)
        return err_set(e, STATUS_CORRUPT,
                       "%s: byte %" PRIu64 ": %s: expected 1 to %d bytes, got a length of %zu",
                       c->path, at, what, MAX_NAME, out->length);
    if (memchr(out->data, 0, out->length))
        return err_set(e, STATUS_CORRUPT, "%s: byte %" PRIu64 ": %s: has a NUL inside", c->path, at,
                       what);
    return STATUS_OK;
}

/* ---- metadata --------------------------------------------------------------------------------- */

/* Bytes of a scalar; 0 for strings, arrays and numbers that are no type. */
static uint32_t value_bytes(uint32_t type)
{
    static const unsigned char size[FILE_VALUE_COUNT] = {
        [FILE_VALUE_U8] = 1,  [FILE_VALUE_I8] = 1,  [FILE_VALUE_U16] = 2, [FILE_VALUE_I16] = 2,
        [FILE_VALUE_U32] = 4, [FILE_VALUE_I32] = 4, [FILE_VALUE_F32] = 4, [FILE_VALUE_BOOL] = 1,
        [FILE_VALUE_U64] = 8, [FILE_VALUE_I64] = 8, [FILE_VALUE_F64] = 8,
    };
    return type < FILE_VALUE_COUNT ? size[type] : 0;
}

/* n values of element type a->type at the cursor; walks strings one by one. */
static status take_values(file_cursor *c, file_array *a, err *e)
{
    uint64_t start = c->at, bytes;
    uint32_t size = value_bytes(a->type);
    status s;
    if (a->type == FILE_VALUE_STR) {
        if (a->n > (c->bytes - c->at) / 8)
            return err_set(e, STATUS_CORRUPT,
                           "%s: byte %" PRIu64 ": array of strings: expected at most %" PRIu64
                           " (what the file has room for), got a length of %" PRIu64,
                           c->path, c->at, (c->bytes - c->at) / 8, a->n);
        for (uint64_t i = 0; i < a->n; i++) {
            str ignored;
            if ((s = take_str(c, "string value", &ignored, e)))
                return s;
        }
    } else {
        if (!checked_mul(a->n, size, &bytes) || bytes > c->bytes - c->at)
            return err_set(e, STATUS_CORRUPT,
                           "%s: byte %" PRIu64 ": array of %s: expected at most %" PRIu64
                           " (what the file has room for), got a length of %" PRIu64,
                           c->path, c->at, file_value_type_name(a->type), (c->bytes - c->at) / size,
                           a->n);
        c->at += bytes;
    }
    a->data = c->data + start;
    a->bytes = c->at - start;
    return STATUS_OK;
}

static status take_key(file_cursor *c, file_key *out, err *e)
{
    uint32_t type, element;
    file_key key;
    status s = take_name(c, "metadata key", &key.name, e);
    if (s)
        return s;
    uint64_t type_at = c->at;
    if ((s = take_u32(c, "type of a metadata value", &type, e)))
        return s;
    element = type;
    key.value.n = 1;
    if (type == FILE_VALUE_ARRAY) {
        type_at = c->at;
        if ((s = take_u32(c, "element type of an array", &element, e)) ||
            (s = take_u64(c, "length of an array", &key.value.n, e)))
            return s;
        if (element == FILE_VALUE_ARRAY)
            return err_set(e, STATUS_UNSUPPORTED,
                           "%s: byte %" PRIu64 ": key %.*s: expected an array of numbers or "
                           "strings, got an array of arrays",
                           c->path, type_at, (int)BASE_MIN(key.name.length, 100), key.name.data);
    }
    if (element >= FILE_VALUE_COUNT)
        return err_set(e, STATUS_CORRUPT,
                       "%s: byte %" PRIu64
                       ": key %.*s: expected a value type 0 to %d, got %" PRIu32,
                       c->path, type_at, (int)BASE_MIN(key.name.length, 100), key.name.data,
                       FILE_VALUE_COUNT - 1, element);
    key.type = (file_value_type)type;
    key.value.type = (file_value_type)element;
    if ((s = take_values(c, &key.value, e))) {
        err_wrap(e, "key %.*s", (int)BASE_MIN(key.name.length, 100), key.name.data);
        return s;
    }
    *out = key;
    return STATUS_OK;
}

/* The few keys that the container itself needs. */
static status note_key(header *h, const file_cursor *c, const file_key *key, err *e)
{
    static const struct {
        const char *name;
        size_t field;
    } wanted[] = {
        {"general.alignment", offsetof(header, alignment)},
        {"split.count", offsetof(header, split_count)},
        {"split.no", offsetof(header, split_no)},
        {"split.tensors.count", offsetof(header, split_tensors)},
    };
    for (size_t i = 0; i < BASE_COUNT(wanted); i++) {
        if (!str_is(key->name, wanted[i].name))
            continue;
        uint64_t value;
        if (key->type == FILE_VALUE_ARRAY || key->type == FILE_VALUE_BOOL ||
            !file_array_u64(&key->value, 0, &value))
            return err_set(e, STATUS_CORRUPT, "%s: key %s: expected an integer >= 0, got %s",
                           c->path, wanted[i].name, file_value_type_name(key->type));
        memcpy((char *)h + wanted[i].field, &value, sizeof value);
    }
    return STATUS_OK;
}

/* ---- tensors ---------------------------------------------------------------------------------- */

/* One entry of the directory. data_at is known in the second walk only; `check_data` says that it is. */
static status take_tensor(file_cursor *c, const header *h, bool check_data, file_tensor *out,
                          err *e)
{
    file_tensor t = {0};
    uint32_t type;
    char why[128];
    uint64_t end, start = c->at;
    status s = take_name(c, "tensor name", &t.name, e);
    if (s)
        return s;
    int name_length = (int)BASE_MIN(t.name.length, 100);
    uint64_t at = c->at;
    if ((s = take_u32(c, "number of dimensions", &t.n_dims, e)))
        return s;
    if (t.n_dims < 1 || t.n_dims > 4)
        return err_set(e, STATUS_CORRUPT,
                       "%s: byte %" PRIu64
                       ": tensor %.*s: expected 1 to 4 dimensions, got %" PRIu32,
                       c->path, at, name_length, t.name.data, t.n_dims);
    for (uint32_t i = 0; i < FILE_MAX_DIMS; i++) {
        t.dims[i] = 1;
        if (i < t.n_dims && (s = take_u64(c, "dimension of a tensor", &t.dims[i], e)))
            return s;
    }
    at = c->at;
    if ((s = take_u32(c, "type of a tensor", &type, e)) ||
        (s = take_u64(c, "offset of a tensor", &t.offset, e)))
        return s;
    t.type = (file_type)type;
    if (type >= 64 || file_type_block_bytes(t.type) == 0)
        return err_set(e, STATUS_UNSUPPORTED,
                       "%s: byte %" PRIu64 ": tensor %.*s: type %" PRIu32 " is not known", c->path,
                       at, name_length, t.name.data, type);
    if (!file_tensor_size(&t, why))
        return err_set(e, STATUS_CORRUPT, "%s: byte %" PRIu64 ": tensor %.*s: %s", c->path, start,
                       name_length, t.name.data, why);
    if (check_data) {
        if (t.offset & (h->alignment - 1))
            return err_set(e, STATUS_CORRUPT,
                           "%s: byte %" PRIu64 ": tensor %.*s: expected an offset that is a "
                           "multiple of %" PRIu64 ", got %" PRIu64,
                           c->path, at + 4, name_length, t.name.data, h->alignment, t.offset);
        if (!checked_add(t.offset, h->data_at, &t.offset) ||
            !checked_add(t.offset, t.bytes, &end) || end > c->bytes)
            return err_set(e, STATUS_CORRUPT,
                           "%s: byte %" PRIu64 ": tensor %.*s: expected its %" PRIu64
                           " bytes inside the file of %" PRIu64
                           " bytes, got a start at byte %" PRIu64,
                           c->path, at + 4, name_length, t.name.data, t.bytes, c->bytes, t.offset);
        t.data = c->data + t.offset;
    }
    *out = t;
    return STATUS_OK;
}

/* ---- the two walks ---------------------------------------------------------------------------- */

static status read_count(file_cursor *c, const char *what, uint64_t smallest, uint64_t limit,
                         uint64_t *out, err *e)
{
    uint64_t at = c->at;
    status s = take_u64(c, what, out, e);
    if (s)
        return s;
    uint64_t room = (c->bytes - c->at) / smallest;
    if (*out > room)
        return err_set(e, STATUS_CORRUPT,
                       "%s: byte %" PRIu64 ": %s: expected at most %" PRIu64
                       " (what the file has room for), got %" PRIu64,
                       c->path, at, what, room, *out);
    if (*out > limit)
        return err_set(e, STATUS_UNSUPPORTED,
                       "%s: byte %" PRIu64 ": %s: expected at most %" PRIu64 ", got %" PRIu64,
                       c->path, at, what, limit, *out);
    return STATUS_OK;
}

static status read_start(file_cursor *c, header *h, err *e)
{
    uint32_t version;
    uint64_t n_tensors, n_keys;
    status s = need(c, 24, "GGUF header", e);
    if (s)
        return s;
    c->at = 4; /* the magic was looked at by file_gguf_is */
    if ((s = take_u32(c, "version", &version, e)))
        return s;
    if (version == 0x02000000 || version == 0x03000000)
        return err_set(e, STATUS_UNSUPPORTED,
                       "%s: byte 4: is a big-endian GGUF; expected a "
                       "little-endian one",
                       c->path);
    if (version != 2 && version != 3)
        return err_set(e, version ? STATUS_UNSUPPORTED : STATUS_CORRUPT,
                       "%s: byte 4: GGUF version: expected 2 or 3, got %" PRIu32, c->path, version);
    if ((s = read_count(c, "number of tensors", MIN_TENSOR_BYTES, FILE_MAX_TENSORS, &n_tensors,
                        e)) ||
        (s = read_count(c, "number of metadata keys", MIN_KEY_BYTES, FILE_MAX_KEYS, &n_keys, e)))
        return s;
    h->n_tensors = (uint32_t)n_tensors;
    h->n_keys = (uint32_t)n_keys;
    return STATUS_OK;
}

/* First walk: proves all lengths, finds where things are. */
static status scan(const file_part *part, header *out, err *e)
{
    file_cursor c = {part->data, part->bytes, 0, part->path};
    header h = {.alignment = 32};
    status s = read_start(&c, &h, e);
    if (s)
        return s;
    h.keys_at = c.at;
    for (uint32_t i = 0; i < h.n_keys; i++) {
        file_key key;
        if ((s = take_key(&c, &key, e)) || (s = note_key(&h, &c, &key, e)))
            return s;
    }
    if (h.alignment == 0 || (h.alignment & (h.alignment - 1)) || h.alignment > MAX_ALIGNMENT)
        return err_set(e, STATUS_CORRUPT,
                       "%s: key general.alignment: expected a power of two up to %d, got %" PRIu64,
                       c.path, MAX_ALIGNMENT, h.alignment);
    h.tensors_at = c.at;
    for (uint32_t i = 0; i < h.n_tensors; i++) {
        file_tensor t;
        if ((s = take_tensor(&c, &h, false, &t, e)))
            return s;
    }
    if (!checked_align(c.at, h.alignment, &h.data_at))
        return err_set(e, STATUS_CORRUPT, "%s: no room behind the header", c.path);
    *out = h;
    return STATUS_OK;
}

static status read_keys(file_inside *in, const header *h, err *e)
{
    file_cursor c = {in->parts[0].data, in->parts[0].bytes, h->keys_at, in->parts[0].path};
    in->keys = base_zalloc(h->n_keys, sizeof *in->keys);
    if (!in->keys)
        return err_set(e, STATUS_NO_MEMORY, "%s: %" PRIu32 " metadata keys", c.path, h->n_keys);
    for (uint32_t i = 0; i < h->n_keys; i++) {
        status s = take_key(&c, &in->keys[i], e);
        if (s)
            return s;
    }
    in->pub.keys = in->keys;
    in->pub.n_keys = h->n_keys;
    return file_inside_check_keys(in, e);
}

static status read_tensors(file_inside *in, uint32_t part, const header *h, err *e)
{
    const file_part *p = &in->parts[part];
    file_cursor c = {p->data, p->bytes, h->tensors_at, p->path};
    for (uint32_t i = 0; i < h->n_tensors; i++) {
        file_tensor *t = &in->tensors[in->pub.n_tensors];
        status s = take_tensor(&c, h, true, t, e);
        if (s)
            return s;
        t->part = part;
        in->pub.n_tensors++;
    }
    return STATUS_OK;
}

/* ---- split models ----------------------------------------------------------------------------- */

/* parts[0] holds the part that the path names and first its header: finds and maps all parts in order. headers: [count], made here. */
static status open_parts(file_inside *in, const char *path, const header *first, header **out,
                         err *e)
{
    size_t digits_at;
    uint32_t no, count;
    status s = STATUS_OK;
    if (!path)
        return err_set(e, STATUS_UNSUPPORTED,
                       "%s: is one of %" PRIu64 " parts; a split model opens from a path only",
                       in->parts[0].path, first->split_count);
    if (first->split_count > FILE_MAX_PARTS)
        return err_set(e, STATUS_CORRUPT, "%s: split.count: expected at most %d, got %" PRIu64,
                       path, FILE_MAX_PARTS, first->split_count);
    if (!file_split_name(path, "gguf", &digits_at, &no, &count) || count != first->split_count ||
        no != first->split_no + 1)
        return err_set(e, STATUS_CORRUPT,
                       "%s: expected a name that ends in -%05" PRIu64 "-of-%05" PRIu64
                       ".gguf, as its split.no and split.count say",
                       path, first->split_no + 1, first->split_count);
    file_part given = in->parts[0];
    in->parts[0] = (file_part){0};
    os_mapping whole = {given.data, given.bytes};
    os_unmap_file(&whole);
    if ((s = file_inside_parts(in, count, e)))
        return s;
    header *headers = base_zalloc(count, sizeof *headers);
    if (!headers)
        return err_set(e, STATUS_NO_MEMORY, "%s: %" PRIu32 " parts", path, count);
    for (uint32_t i = 0; i < count; i++) {
        const char *name = file_part_path(in, path, digits_at, i + 1);
        if (!name) {
            s = err_set(e, STATUS_NO_MEMORY, "%s: name of part %" PRIu32, path, i + 1);
            goto out;
        }
        if ((s = file_inside_map(in, i, name, e))) {
            err_wrap(e, "%s has %" PRIu32 " parts; part %" PRIu32, path, count, i + 1);
            goto out;
        }
        if (!file_gguf_is(in->parts[i].data, in->parts[i].bytes)) {
            s = err_set(e, STATUS_CORRUPT, "%s: byte 0: expected \"GGUF\"", name);
            goto out;
        }
        if ((s = scan(&in->parts[i], &headers[i], e)))
            goto out;
        if (headers[i].split_no != i || headers[i].split_count != count) {
            s = err_set(e, STATUS_CORRUPT,
                        "%s: expected split.no %" PRIu32 " and split.count %" PRIu32
                        ", got %" PRIu64 " and %" PRIu64,
                        name, i, count, headers[i].split_no, headers[i].split_count);
            goto out;
        }
    }
    *out = headers;
    return STATUS_OK;
out:
    base_free(headers);
    return s;
}

status file_gguf_open(file_inside *in, const char *path, err *e)
{
    header first, *headers = NULL;
    uint64_t n_tensors = 0;
    status s = scan(&in->parts[0], &first, e);
    if (s)
        return s;
    in->pub.format = FILE_GGUF;
    if (first.split_count > 1 && (s = open_parts(in, path, &first, &headers, e)))
        return s;
    const header *all = headers ? headers : &first;
    for (uint32_t i = 0; i < in->pub.n_parts; i++)
        n_tensors += all[i].n_tensors;
    if (n_tensors > FILE_MAX_TENSORS) {
        s = err_set(e, STATUS_UNSUPPORTED, "%s: expected at most %u tensors, got %" PRIu64,
                    in->pub.path, FILE_MAX_TENSORS, n_tensors);
        goto out;
    }
    if (headers && all[0].split_tensors && all[0].split_tensors != n_tensors) {
        s = err_set(e, STATUS_CORRUPT,
                    "%s: split.tensors.count: expected %" PRIu64 ", got %" PRIu64
                    " tensors in all parts",
                    in->parts[0].path, all[0].split_tensors, n_tensors);
        goto out;
    }
    if ((s = read_keys(in, &all[0], e)) || (s = file_inside_tensors(in, (uint32_t)n_tensors, e)))
        goto out;
    for (uint32_t i = 0; i < in->pub.n_parts; i++) {
        if ((s = read_tensors(in, i, &all[i], e)))
            goto out;
    }
    s = file_inside_finish(in, e);
out:
    base_free(headers);
    return s;
}
