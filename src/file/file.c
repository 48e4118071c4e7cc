/*
 * The object behind a file_model: finding out what a path is, mapping parts, the sorted directory, the hash. Formats fill it in
 * (gguf.c, safetensors.c). Deliberately not: any byte of a format's layout.
 */
#include "file/inside.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- parts and tables ------------------------------------------------------------------------- */

status file_inside_parts(file_inside *in, uint32_t n, err *e)
{
    file_part *parts = base_zalloc(n, sizeof *parts);
    if (!parts)
        return err_set(e, STATUS_NO_MEMORY, "%s: %" PRIu32 " parts", in->pub.path, n);
    base_free(in->parts);
    in->pub.parts = in->parts = parts;
    in->pub.n_parts = n;
    return STATUS_OK;
}

status file_inside_map(file_inside *in, uint32_t part, const char *path, err *e)
{
    os_mapping map;
    char *copy = arena_strndup(&in->texts, path, strlen(path));
    if (!copy)
        return err_set(e, STATUS_NO_MEMORY, "%s: its path", path);
    status s = os_map_file(&map, path, e);
    if (s)
        return s;
    in->mapped = true;
    in->parts[part] = (file_part){copy, map.data, map.bytes};
    return STATUS_OK;
}

status file_inside_tensors(file_inside *in, uint32_t n, err *e)
{
    in->tensors = base_zalloc(n, sizeof *in->tensors);
    in->by_name = base_zalloc(n, sizeof *in->by_name);
    if (!in->tensors || !in->by_name)
        return err_set(e, STATUS_NO_MEMORY, "%s: directory of %" PRIu32 " tensors", in->pub.path,
                       n);
    in->pub.tensors = in->tensors;
    return STATUS_OK;
}

bool file_tensor_size(file_tensor *t, char why[128])
{
    uint64_t bytes, elements = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] == 0) {
            snprintf(why, 128, "dimension %" PRIu32 ": expected at least 1, got 0", i);
            return false;
        }
        if (!checked_mul(elements, t->dims[i], &elements) || elements > INT64_MAX) {
            snprintf(why, 128,
                     "expected at most 2^63 elements, got more (dimension %" PRIu32 " is %" PRIu64
                     ")",
                     i, t->dims[i]);
            return false;
        }
    }
    if (t->dims[0] % file_type_block_elements(t->type) != 0) {
        snprintf(why, 128, "%s: expected rows of a multiple of %" PRIu32 " elements, got %" PRIu64,
                 file_type_name(t->type), file_type_block_elements(t->type), t->dims[0]);
        return false;
    }
    if (!file_type_row_bytes(t->type, t->dims[0], &bytes) ||
        !checked_mul(bytes, elements / t->dims[0], &bytes)) {
        snprintf(why, 128, "expected a size under 2^64 bytes, got %" PRIu64 " elements of %s",
                 elements, file_type_name(t->type));
        return false;
    }
    t->bytes = bytes;
    return true;
}

/* ---- order ------------------------------------------------------------------------------------ */

void file_sort(uint32_t *order, uint32_t n,
               int (*compare)(const void *context, uint32_t a, uint32_t b), const void *context)
{
    for (uint32_t heap = n, start = n / 2; heap > 1;) {
        uint32_t root, value;
        if (start > 0) {
            root = --start; /* building the heap */
            value = order[root];
        } else {
            value = order[--heap]; /* taking its largest */
            order[heap] = order[0];
            root = 0;
        }
        for (uint32_t child; (child = 2 * root + 1) < heap; root = child) {
            if (child + 1 < heap && compare(context, order[child], order[child + 1]) < 0)
                child++;
            if (compare(context, value, order[child]) >= 0)
                break;
            order[root] = order[child];
        }
        order[root] = value;
    }
}

int file_compare_str(str a, str b)
{
    size_t shorter = BASE_MIN(a.length, b.length);
    int order = shorter ? memcmp(a.data, b.data, shorter) : 0;
    return order ? order : (a.length > b.length) - (a.length < b.length);
}

static int compare_names(const void *context, uint32_t a, uint32_t b)
{
    const file_tensor *tensors = context;
    return file_compare_str(tensors[a].name, tensors[b].name);
}

static int compare_places(const void *context, uint32_t a, uint32_t b)
{
    const file_tensor *x = (const file_tensor *)context + a, *y = (const file_tensor *)context + b;
    if (x->part != y->part)
        return x->part < y->part ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

status file_inside_finish(file_inside *in, err *e)
{
    const file_tensor *tensors = in->tensors;
    uint32_t n = in->pub.n_tensors, *order = in->by_name;
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++) {
        order[i] = i;
        total += tensors[i].bytes; /* each lies inside a file, none overlap: cannot wrap */
    }
    file_sort(order, n, compare_places, tensors);
    for (uint32_t i = 1; i < n; i++) {
        const file_tensor *a = &tensors[order[i - 1]], *b = &tensors[order[i]];
        if (a->part == b->part && a->offset + a->bytes > b->offset)
            return err_set(e, STATUS_CORRUPT,
                           "%s: tensor %.*s: expected a start at byte %" PRIu64 " or later, behind "
                           "%.*s, got %" PRIu64,
                           in->parts[b->part].path, (int)BASE_MIN(b->name.length, 100),
                           b->name.data, a->offset + a->bytes, (int)BASE_MIN(a->name.length, 100),
                           a->name.data, b->offset);
    }
    file_sort(order, n, compare_names, tensors);
    for (uint32_t i = 1; i < n; i++) {
        const file_tensor *a = &tensors[order[i - 1]], *b = &tensors[order[i]];
        if (str_equal(a->name, b->name))
            return err_set(e, STATUS_CORRUPT,
                           "%s: tensor %.*s: comes twice: at byte %" PRIu64 " of this file and "
                           "byte %" PRIu64 " of %s",
                           in->parts[b->part].path, (int)BASE_MIN(b->name.length, 100),
                           b->name.data, b->offset, a->offset, in->parts[a->part].path);
    }
    in->pub.tensor_bytes = total;
    return STATUS_OK;
}

static int compare_keys(const void *context, uint32_t a, uint32_t b)
{
    const file_key *keys = context;
    return file_compare_str(keys[a].name, keys[b].name);
}

status file_inside_check_keys(file_inside *in, err *e)
{
    uint32_t n = in->pub.n_keys, *order = base_zalloc(n, sizeof *order);
    status s = STATUS_OK;
    if (!order)
        return err_set(e, STATUS_NO_MEMORY, "%s: order of %" PRIu32 " keys", in->pub.path, n);
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    file_sort(order, n, compare_keys, in->keys);
    for (uint32_t i = 1; i < n && !s; i++) {
        str name = in->keys[order[i]].name;
        if (str_equal(name, in->keys[order[i - 1]].name))
            s = err_set(e, STATUS_CORRUPT, "%s: metadata key %.*s: comes twice", in->pub.path,
                        (int)BASE_MIN(name.length, 100), name.data);
    }
    base_free(order);
    return s;
}

/* ---- names ------------------------------------------------------------------------------------ */

static size_t take_digits(const char *s, uint32_t *out)
{
    size_t n = 0;
    for (*out = 0; n < 6 && s[n] >= '0' && s[n] <= '9'; n++)
        *out = *out * 10 + (uint32_t)(s[n] - '0');
    return n;
}

bool file_split_name(const char *path, const char *extension, size_t *digits_at, uint32_t *no,
                     uint32_t *count)
{
    const char *s = NULL;
    for (const char *next = path; (next = strstr(next, "-of-")); next++)
        s = next; /* the last one */
    if (!s || s - path < 6 || s[-6] != '-' || take_digits(s - 5, no) != 5)
        return false;
    size_t n = take_digits(s + 4, count);
    if (n < 5 || s[4 + n] != '.' || strcmp(s + 5 + n, extension) != 0)
        return false;
    *digits_at = (size_t)(s - 5 - path);
    return *no >= 1 && *no <= *count && *count <= FILE_MAX_PARTS;
}

char *file_part_path(file_inside *in, const char *path, size_t digits_at, uint32_t no)
{
    char *copy = arena_strndup(&in->texts, path, strlen(path));
    for (size_t i = 5; copy && i > 0; i--, no /= 10)
        copy[digits_at + i - 1] = (char)('0' + no % 10);
    return copy;
}

char *file_join(file_inside *in, const char *folder, str name)
{
    size_t room = strlen(folder) + name.length + 2;
    char *full = arena_alloc(&in->texts, room);
    if (full)
        snprintf(full, room, "%s/%.*s", folder, (int)name.length, name.data);
    return full;
}

/* ---- opening and closing ---------------------------------------------------------------------- */

static status create(file_inside **out, const char *name, err *e)
{
    file_inside *in = base_zalloc(1, sizeof *in);
    if (!in)
        return err_set(e, STATUS_NO_MEMORY, "%s: opening it", name);
    arena_init(&in->texts, 0);
    in->pub.folder = "";
    in->pub.path = arena_strndup(&in->texts, name, strlen(name));
    status s = in->pub.path ? file_inside_parts(in, 1, e)
                            : err_set(e, STATUS_NO_MEMORY, "%s: its path", name);
    if (s) {
        file_close(&in->pub);
        return s;
    }
    *out = in;
    return STATUS_OK;
}

void file_close(file_model *m)
{
    file_inside *in = (file_inside *)m;
    if (!in)
        return;
    for (uint32_t i = 0; in->mapped && i < in->pub.n_parts; i++) {
        os_mapping map = {in->parts[i].data, in->parts[i].bytes};
        if (map.data)
            os_unmap_file(&map);
    }
    for (int i = 0; i < FILE_BESIDE; i++) {
        if (in->beside[i].data)
            os_unmap_file(&in->beside[i]);
    }
    base_free(in->parts);
    base_free(in->tensors);
    base_free(in->by_name);
    base_free(in->keys);
    arena_fini(&in->texts);
    base_free(in);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* A file: what it is shows in its first bytes, whatever its name (Ollama's blobs have none). */
static status open_file(file_inside *in, const char *path, err *e)
{
    status s;
    if (ends_with(path, ".safetensors.index.json"))
        return file_safetensors_open_index(in, path, e);
    if ((s = file_inside_map(in, 0, path, e)))
        return s;
    if (file_gguf_is(in->parts[0].data, in->parts[0].bytes))
        return file_gguf_open(in, path, e);
    if (ends_with(path, ".safetensors") ||
        file_safetensors_is(in->parts[0].data, in->parts[0].bytes))
        return file_safetensors_open_file(in, path, e);
    char found[4 * 4 + 1] = "";
    for (uint64_t i = 0; i < 4 && i < in->parts[0].bytes; i++)
        snprintf(found + 3 * i, 4, "%02x ", in->parts[0].data[i]);
    return err_set(e, STATUS_CORRUPT,
                   "%s: byte 0: expected a GGUF or safetensors file, got %" PRIu64 " bytes that "
                   "begin with %s",
                   path, in->parts[0].bytes, found[0] ? found : "nothing");
}

/* What a folder without safetensors may hold: GGUF files. */
typedef struct gguf_search {
    char name[256]; /* the first .gguf that is not a later part */
    uint32_t n;
} gguf_search;

static status look_at_entry(void *context, const os_dir_entry *entry)
{
    gguf_search *found = context;
    size_t digits_at;
    uint32_t no, count;
    if (!entry->is_file || !ends_with(entry->name, ".gguf") ||
        strlen(entry->name) >= sizeof found->name)
        return STATUS_OK;
    if (file_split_name(entry->name, "gguf", &digits_at, &no, &count) && no != 1)
        return STATUS_OK;
    if (found->n++ == 0)
        snprintf(found->name, sizeof found->name, "%s", entry->name);
    return STATUS_OK;
}

static status open_folder(file_inside *in, const char *path, err *e)
{
    bool found;
    gguf_search search = {.n = 0};
    status s = file_safetensors_open_folder(in, path, &found, e);
    if (s || found)
        return s;
    if ((s = os_list_dir(path, look_at_entry, &search, e)))
        return s;
    if (search.n != 1)
        return err_set(e, search.n ? STATUS_INVALID : STATUS_NOT_FOUND,
                       search.n
                           ? "%s: expected one model in the folder, got %" PRIu32
                             " .gguf files: name one of them"
                           : "%s: expected a .gguf or *.safetensors in the folder, got %" PRIu32,
                       path, search.n);
    in->pub.folder = path;
    char *full = file_join(in, path, str_from(search.name));
    if (!full)
        return err_set(e, STATUS_NO_MEMORY, "%s: its path", path);
    return open_file(in, full, e);
}

status file_open(file_model **out, const char *path, err *e)
{
    file_inside *in;
    status s = create(&in, path, e);
    if (s)
        return s;
    char *clean = arena_strndup(&in->texts, path, strlen(path));
    for (size_t n = strlen(path); clean && n > 1 && clean[n - 1] == '/'; n--)
        clean[n - 1] = '\0';
    if (!clean)
        s = err_set(e, STATUS_NO_MEMORY, "%s: its path", path);
    else
        s = os_is_dir(clean) ? open_folder(in, clean, e) : open_file(in, clean, e);
    if (s) {
        file_close(&in->pub);
        return s;
    }
    *out = &in->pub;
    return STATUS_OK;
}

status file_open_memory(file_model **out, const void *bytes, uint64_t n, const char *name, err *e)
{
    file_inside *in;
    status s = create(&in, name, e);
    if (s)
        return s;
    in->parts[0] = (file_part){in->pub.path, bytes, n};
    s = file_gguf_is(bytes, n) ? file_gguf_open(in, NULL, e)
                               : file_safetensors_open_file(in, NULL, e);
    if (s) {
        file_close(&in->pub);
        return s;
    }
    *out = &in->pub;
    return STATUS_OK;
}

/* ---- the directory ---------------------------------------------------------------------------- */

const file_tensor *file_find_tensor_str(const file_model *m, str name)
{
    const file_inside *in = (const file_inside *)m;
    uint32_t low = 0, high = m->n_tensors;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = file_compare_str(m->tensors[in->by_name[middle]].name, name);
        if (order == 0)
            return &m->tensors[in->by_name[middle]];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const file_tensor *file_find_tensor(const file_model *m, const char *name)
{
    return file_find_tensor_str(m, str_from(name));
}

void file_forget(const file_model *m, const file_tensor *t, uint64_t offset, uint64_t bytes)
{
    const file_inside *in = (const file_inside *)m;
    if (!in->mapped || offset > t->bytes)
        return;
    os_mapping map = {in->parts[t->part].data, in->parts[t->part].bytes};
    os_mapping_forget(&map, t->offset + offset, BASE_MIN(bytes, t->bytes - offset));
}

static uint64_t hash_str(str s, uint64_t seed)
{
    return hash_bytes(s.data, s.length, seed);
}

uint64_t file_model_hash(const file_model *m)
{
    enum { SAMPLES = 256, SAMPLE_BYTES = 256 };
    const uint64_t page = os_page_bytes();
    const file_inside *in = (const file_inside *)m;
    uint64_t h = hash_u64(m->n_tensors, m->format);
    for (uint32_t i = 0; i < m->n_keys; i++) {
        const file_key *key = &m->keys[i];
        if (m->format != FILE_GGUF || str_starts(key->name, "split."))
            continue; /* the same model in one file and in parts is the same model */
        h = hash_u64(key->value.type, hash_str(key->name, h));
        h = hash_bytes(key->value.data, key->value.bytes, h);
    }
    h = hash_str(m->config_json, h);
    uint32_t stride = m->n_tensors / SAMPLES + 1;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const file_tensor *t = &m->tensors[in->by_name[i]];
        h = hash_u64((uint64_t)t->type, hash_str(t->name, h));
        for (uint32_t d = 0; d < t->n_dims; d++)
            h = hash_u64(t->dims[d], h);
        if (i % stride == 0) {
            uint64_t n = BASE_MIN(t->bytes, (uint64_t)SAMPLE_BYTES);
            uint64_t at = (t->bytes - n) / 2, before = BASE_MIN(at, page);
            h = hash_bytes(t->data + at, n, h);
            file_forget(m, t, at - before, before + n + page); /* one look may map 2 MB */
        }
    }
    return h;
}
