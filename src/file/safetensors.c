/*
 * safetensors. Layout of one file:
 *
 *   u64 n (little-endian) | n bytes of JSON | data
 *   {"__metadata__": {str: str}, NAME: {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [begin, end]}, ...}
 *
 * Offsets count from the start of the data. A model is one such file, shards named -00001-of-00003, or what an index file names; the
 * JSON files beside it are mapped and handed out. How: the header is walked twice, first to count, then to fill.
 * Source: github.com/huggingface/safetensors, "Format". Deliberately not: holes between tensors are not refused (the original library
 * does), because they harm nobody; overlaps are.
 */
#include "file/inside.h"
#include "file/pull.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool file_safetensors_is(const unsigned char *data, uint64_t bytes)
{
    return bytes > 9 && base_load_u64(data) <= bytes - 8 && data[8] == '{';
}

/* ---- one header ------------------------------------------------------------------------------- */

/* The pull parser over the header of a part. texts as in pull.h. */
static status header_of(const file_part *part, arena *texts, pull *out, err *e)
{
    if (part->bytes < 8)
        return err_set(e, STATUS_CORRUPT,
                       "%s: byte 0: length of the header: expected 8 bytes, got %" PRIu64,
                       part->path, part->bytes);
    uint64_t n = base_load_u64(part->data);
    if (n > part->bytes - 8)
        return err_set(e, STATUS_CORRUPT,
                       "%s: byte 0: length of the header: expected at most %" PRIu64
                       " (what is left of the file), got %" PRIu64,
                       part->path, part->bytes - 8, n);
    if (n > FILE_MAX_JSON_HEADER)
        return err_set(e, STATUS_TOO_LARGE,
                       "%s: byte 0: length of the header: expected at most %u, got %" PRIu64,
                       part->path, FILE_MAX_JSON_HEADER, n);
    *out = (pull){(const char *)part->data + 8, n, 0, 8, part->path, texts};
    return STATUS_OK;
}

static bool is_metadata(str name)
{
    return str_is(name, "__metadata__");
}

/* First walk: checks the grammar, counts the tensors (one too many if someone spells __metadata__ with escapes). */
static status count_tensors(const file_part *part, uint32_t *out, err *e)
{
    pull p;
    str name;
    bool more;
    uint32_t n = 0;
    status s = header_of(part, NULL, &p, e);
    if (s || (s = file_pull_take(&p, '{', "header", e)))
        return s;
    for (bool first = true;; first = false) {
        if ((s = file_pull_more(&p, '}', first, &more, e)))
            return s;
        if (!more)
            break;
        if ((s = file_pull_name(&p, "name of a tensor", &name, e)) ||
            (s = file_pull_skip(&p, 1, e)))
            return s;
        n += !is_metadata(name);
    }
    if ((s = file_pull_end(&p, e)))
        return s;
    *out = n;
    return STATUS_OK;
}

static status take_dtype(pull *p, file_tensor *t, err *e)
{
    str dtype;
    char text[16] = "";
    file_pull_peek(p);
    uint64_t at = p->base + p->at;
    status s = file_pull_str(p, "dtype", &dtype, e);
    if (s)
        return s;
    if (dtype.length < sizeof text)
        memcpy(text, dtype.data, dtype.length);
    if (strlen(text) != dtype.length || !file_type_find(text, &t->type) ||
        file_type_block_elements(t->type) != 1)
        return err_set(e, STATUS_UNSUPPORTED,
                       "%s: byte %" PRIu64 ": tensor %.*s: dtype \"%.*s\" is not known", p->path,
                       at, (int)BASE_MIN(t->name.length, 100), t->name.data,
                       (int)BASE_MIN(dtype.length, 30), dtype.data);
    return STATUS_OK;
}

/* [rows, ..., columns] → dims {columns, ..., rows} */
static status take_shape(pull *p, file_tensor *t, err *e)
{
    uint64_t shape[FILE_MAX_DIMS];
    uint32_t n = 0;
    bool more;
    status s = file_pull_take(p, '[', "shape", e);
    if (s)
        return s;
    for (bool first = true;; first = false) {
        if ((s = file_pull_more(p, ']', first, &more, e)))
            return s;
        if (!more)
            break;
        if (n == FILE_MAX_DIMS)
            return err_set(e, STATUS_UNSUPPORTED,
                           "%s: byte %" PRIu64
                           ": tensor %.*s: expected at most %d dimensions, got more",
                           p->path, p->base + p->at, (int)BASE_MIN(t->name.length, 100),
                           t->name.data, FILE_MAX_DIMS);
        if ((s = file_pull_u64(p, "dimension", &shape[n++], e)))
            return s;
    }
    for (uint32_t i = 0; i < FILE_MAX_DIMS; i++)
        t->dims[i] = i < n ? shape[n - 1 - i] : 1;
    t->n_dims = n ? n : 1; /* a scalar is a row of one */
    return STATUS_OK;
}

static status take_offsets(pull *p, uint64_t out[2], err *e)
{
    status s;
    if ((s = file_pull_take(p, '[', "data_offsets", e)) ||
        (s = file_pull_u64(p, "begin of data_offsets", &out[0], e)) ||
        (s = file_pull_take(p, ',', "data_offsets", e)) ||
        (s = file_pull_u64(p, "end of data_offsets", &out[1], e)))
        return s;
    return file_pull_take(p, ']', "data_offsets", e);
}

/* {"dtype": ..., "shape": ..., "data_offsets": ...} in any order; other members are skipped. */
static status take_entry(pull *p, const file_part *part, file_tensor *t, err *e)
{
    static const char *const wanted[] = {"dtype", "shape", "data_offsets"};
    bool seen[3] = {false}, more;
    uint64_t offsets[2] = {0}, start = p->base + p->at, data_at = p->base + p->bytes;
    int name_length = (int)BASE_MIN(t->name.length, 100);
    char why[128];
    status s = file_pull_take(p, '{', "entry of a tensor", e);
    for (bool first = true; !s; first = false) {
        str member;
        size_t field = 0;
        if ((s = file_pull_more(p, '}', first, &more, e)) || !more)
            break;
        if ((s = file_pull_name(p, "member of a tensor's entry", &member, e)))
            break;
        while (field < 3 && !str_is(member, wanted[field]))
            field++;
        if (field < 3 && seen[field])
            return file_pull_fail(p, wanted[field], "it once", e);
        if (field < 3)
            seen[field] = true;
        s = field == 0   ? take_dtype(p, t, e)
            : field == 1 ? take_shape(p, t, e)
            : field == 2 ? take_offsets(p, offsets, e)
                         : file_pull_skip(p, 2, e);
    }
    if (s)
        return s;
    for (int i = 0; i < 3; i++) {
        if (!seen[i])
            return err_set(e, STATUS_CORRUPT, "%s: byte %" PRIu64 ": tensor %.*s: %s is missing",
                           p->path, start, name_length, t->name.data, wanted[i]);
    }
    if (!file_tensor_size(t, why))
        return err_set(e, STATUS_CORRUPT, "%s: byte %" PRIu64 ": tensor %.*s: %s", p->path, start,
                       name_length, t->name.data, why);
    if (offsets[0] > offsets[1] || offsets[1] > part->bytes - data_at)
        return err_set(e, STATUS_CORRUPT,
                       "%s: byte %" PRIu64
                       ": tensor %.*s: expected data_offsets within the %" PRIu64
                       " bytes of data, got [%" PRIu64 ", %" PRIu64 "]",
                       p->path, start, name_length, t->name.data, part->bytes - data_at, offsets[0],
                       offsets[1]);
    if (offsets[1] - offsets[0] != t->bytes)
        return err_set(e, STATUS_CORRUPT,
                       "%s: byte %" PRIu64 ": tensor %.*s: expected %" PRIu64
                       " bytes by its shape and dtype, got %" PRIu64 " by its data_offsets",
                       p->path, start, name_length, t->name.data, t->bytes,
                       offsets[1] - offsets[0]);
    t->offset = data_at + offsets[0];
    t->data = part->data + t->offset;
    return STATUS_OK;
}

/* Second walk: fills in->tensors from pub.n_tensors on, at most `room` of them. */
static status read_tensors(file_inside *in, uint32_t part, uint32_t room, err *e)
{
    pull p;
    bool more;
    status s = header_of(&in->parts[part], &in->texts, &p, e);
    if (s || (s = file_pull_take(&p, '{', "header", e)))
        return s;
    for (bool first = true;; first = false) {
        file_tensor t = {.part = part};
        if ((s = file_pull_more(&p, '}', first, &more, e)) || !more)
            return s;
        if ((s = file_pull_name(&p, "name of a tensor", &t.name, e)))
            return s;
        if (is_metadata(t.name)) {
            if ((s = file_pull_skip(&p, 1, e)))
                return s;
            continue;
        }
        if (t.name.length == 0 || memchr(t.name.data, 0, t.name.length))
            return file_pull_fail(&p, "name of a tensor", "a name without NUL that is not empty",
                                  e);
        if (room-- == 0) /* only when someone writes to the file between the walks */
            return file_pull_fail(&p, "header", "no more tensors", e);
        file_pull_peek(&p);
        if ((s = take_entry(&p, &in->parts[part], &t, e)))
            return s;
        in->tensors[in->pub.n_tensors++] = t;
    }
}

/* All parts are mapped: their directory. */
static status read_parts(file_inside *in, err *e)
{
    uint32_t *counts = base_zalloc(in->pub.n_parts, sizeof *counts);
    uint64_t total = 0;
    status s = counts ? STATUS_OK : err_set(e, STATUS_NO_MEMORY, "%s: its parts", in->pub.path);
    in->pub.format = FILE_SAFETENSORS;
    for (uint32_t i = 0; i < in->pub.n_parts && !s; i++) {
        s = count_tensors(&in->parts[i], &counts[i], e);
        total += s ? 0 : counts[i];
    }
    if (!s && total > FILE_MAX_TENSORS)
        s = err_set(e, STATUS_UNSUPPORTED, "%s: expected at most %u tensors, got %" PRIu64,
                    in->pub.path, FILE_MAX_TENSORS, total);
    if (!s)
        s = file_inside_tensors(in, (uint32_t)total, e);
    for (uint32_t i = 0; i < in->pub.n_parts && !s; i++)
        s = read_tensors(in, i, counts[i], e);
    base_free(counts);
    return s ? s : file_inside_finish(in, e);
}

/* ---- the folder ------------------------------------------------------------------------------- */

/* The folder of a path, in the arena. */
static status set_folder(file_inside *in, const char *path, err *e)
{
    const char *slash = strrchr(path, '/');
    const char *text = slash == path ? "/" : slash ? path : ".";
    size_t n = slash && slash != path ? (size_t)(slash - path) : 1;
    in->pub.folder = arena_strndup(&in->texts, text, n);
    if (in->pub.folder)
        return STATUS_OK;
    in->pub.folder = "";
    return err_set(e, STATUS_NO_MEMORY, "%s: its folder", path);
}

/* Maps the JSON files that are there. */
static status open_beside(file_inside *in, err *e)
{
    const struct {
        const char *name;
        uint64_t limit;
        str *out;
    } files[FILE_BESIDE] = {
        {"config.json", FILE_MAX_CONFIG, &in->pub.config_json},
        {"generation_config.json", FILE_MAX_CONFIG, &in->pub.generation_config_json},
        {"tokenizer.json", FILE_MAX_TOKENIZER, &in->pub.tokenizer_json},
        {"tokenizer_config.json", FILE_MAX_CONFIG, &in->pub.tokenizer_config_json},
        {"chat_template.jinja", FILE_MAX_CONFIG, &in->pub.chat_template},
        {"1_Pooling/config.json", FILE_MAX_CONFIG, &in->pub.pooling_json},
    };
    for (int i = 0; i < FILE_BESIDE; i++) {
        char *path = file_join(in, in->pub.folder, str_from(files[i].name));
        if (!path)
            return err_set(e, STATUS_NO_MEMORY, "%s: path of %s", in->pub.folder, files[i].name);
        if (!os_is_file(path))
            continue;
        status s = os_map_file(&in->beside[i], path, e);
        if (s)
            return s;
        if (in->beside[i].bytes > files[i].limit)
            return err_set(e, STATUS_TOO_LARGE,
                           "%s: expected at most %" PRIu64 " bytes, got %" PRIu64, path,
                           files[i].limit, in->beside[i].bytes);
        *files[i].out = (str){(const char *)in->beside[i].data, (size_t)in->beside[i].bytes};
    }
    return file_config_read(in, e);
}

status file_safetensors_open_file(file_inside *in, const char *path, err *e)
{
    size_t digits_at;
    uint32_t no, count;
    status s;
    if (!path)
        return read_parts(in, e);
    if ((s = set_folder(in, path, e)))
        return s;
    if (file_split_name(path, "safetensors", &digits_at, &no, &count) && count > 1) {
        os_mapping given = {in->parts[0].data, in->parts[0].bytes};
        in->parts[0] = (file_part){0};
        os_unmap_file(&given);
        if ((s = file_inside_parts(in, count, e)))
            return s;
        for (uint32_t i = 0; i < count; i++) {
            const char *name = file_part_path(in, path, digits_at, i + 1);
            s = name ? file_inside_map(in, i, name, e)
                     : err_set(e, STATUS_NO_MEMORY, "%s: name of part %" PRIu32, path, i + 1);
            if (s) {
                err_wrap(e, "%s has %" PRIu32 " shards; shard %" PRIu32, path, count, i + 1);
                return s;
            }
        }
    }
    s = read_parts(in, e);
    return s ? s : open_beside(in, e);
}

/* ---- the index -------------------------------------------------------------------------------- */

/* Names of shard files, ascending, each once. Names are borrowed from the index, the arena or a folder walk. */
typedef struct shard_set {
    str names[FILE_MAX_PARTS];
    uint32_t n;
    file_inside *in; /* for the folder walk: copies go to its arena */
    err *e;
} shard_set;

/* Where name is, or where it belongs. */
static bool shard_find(const shard_set *set, str name, uint32_t *out)
{
    uint32_t low = 0, high = set->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = file_compare_str(set->names[middle], name);
        if (order == 0) {
            *out = middle;
            return true;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *out = low;
    return false;
}

static bool str_ends(str s, const char *end)
{
    size_t n = strlen(end);
    return s.length >= n && memcmp(s.data + s.length - n, end, n) == 0;
}

static status shard_add(shard_set *set, const pull *p, str name, err *e)
{
    uint32_t at;
    if (shard_find(set, name, &at))
        return STATUS_OK;
    if (name.length > 255 || name.data[0] == '.' || memchr(name.data, '/', name.length) ||
        memchr(name.data, 0, name.length) || !str_ends(name, ".safetensors"))
        return file_pull_fail(p, "weight_map", "before this the plain name of a .safetensors file",
                              e);
    if (set->n == FILE_MAX_PARTS)
        return file_pull_fail(p, "weight_map", "at most 4096 different files", e);
    memmove(set->names + at + 1, set->names + at, (set->n - at) * sizeof set->names[0]);
    set->names[at] = name;
    set->n++;
    return STATUS_OK;
}

/* Moves p to the value of the top-level member weight_map. */
static status find_weight_map(pull *p, err *e)
{
    bool more;
    str name;
    status s = file_pull_take(p, '{', "index", e);
    for (bool first = true; !s; first = false) {
        if ((s = file_pull_more(p, '}', first, &more, e)))
            return s;
        if (!more)
            return err_set(e, STATUS_CORRUPT, "%s: weight_map is missing", p->path);
        if ((s = file_pull_name(p, "member of the index", &name, e)))
            return s;
        if (str_is(name, "weight_map"))
            return STATUS_OK;
        s = file_pull_skip(p, 1, e);
    }
    return s;
}

/* Every entry of weight_map, in order: `set` collects the files; or, once the parts are read, `in` is asked for each tensor. */
static status walk_weight_map(pull p, shard_set *set, const file_inside *in, err *e)
{
    bool more;
    str tensor, file;
    uint32_t part;
    status s = find_weight_map(&p, e);
    if (s || (s = file_pull_take(&p, '{', "weight_map", e)))
        return s;
    for (bool first = true;; first = false) {
        if ((s = file_pull_more(&p, '}', first, &more, e)) || !more)
            return s;
        if ((s = file_pull_name(&p, "name of a tensor", &tensor, e)) ||
            (s = file_pull_str(&p, "file of a tensor", &file, e)))
            return s;
        if (!in) {
            if (file.length == 0)
                return file_pull_fail(&p, "weight_map", "before this the name of a file", e);
            if ((s = shard_add(set, &p, file, e)))
                return s;
            continue;
        }
        const file_tensor *t = file_find_tensor_str(&in->pub, tensor);
        if (!t || !shard_find(set, file, &part) || t->part != part)
            return err_set(e, STATUS_CORRUPT,
                           "%s: byte %" PRIu64
                           ": expected tensor %.*s in %.*s, but it is not there",
                           p.path, p.base + p.at, (int)BASE_MIN(tensor.length, 100), tensor.data,
                           (int)BASE_MIN(file.length, 100), file.data);
    }
}

/* Maps and reads the files of the set. */
static status open_shards(file_inside *in, const shard_set *set, err *e)
{
    status s = file_inside_parts(in, set->n, e);
    for (uint32_t i = 0; i < set->n && !s; i++) {
        char *path = file_join(in, in->pub.folder, set->names[i]);
        s = path ? file_inside_map(in, i, path, e)
                 : err_set(e, STATUS_NO_MEMORY, "%s: path of a shard", in->pub.folder);
    }
    return s ? s : read_parts(in, e);
}

status file_safetensors_open_index(file_inside *in, const char *path, err *e)
{
    os_mapping map;
    status s = set_folder(in, path, e);
    if (s || (s = os_map_file(&map, path, e)))
        return s;
    shard_set *set = base_zalloc(1, sizeof *set);
    if (!set) {
        s = err_set(e, STATUS_NO_MEMORY, "%s: its shards", path);
        goto out;
    }
    if (map.bytes > FILE_MAX_JSON_HEADER) {
        s = err_set(e, STATUS_TOO_LARGE, "%s: expected at most %u bytes, got %" PRIu64, path,
                    FILE_MAX_JSON_HEADER, map.bytes);
        goto out;
    }
    pull p = {(const char *)map.data, map.bytes, 0, 0, path, &in->texts};
    if ((s = file_pull_skip(&(pull){p.data, p.bytes, 0, 0, path, NULL}, 0, e)) ||
        (s = walk_weight_map(p, set, NULL, e)))
        goto out;
    if (set->n == 0) {
        s = err_set(e, STATUS_CORRUPT, "%s: weight_map: expected at least one tensor, got none",
                    path);
        goto out;
    }
    if ((s = open_shards(in, set, e)) || (s = walk_weight_map(p, set, in, e)))
        goto out;
    s = open_beside(in, e);
out:
    os_unmap_file(&map);
    base_free(set);
    return s;
}

/* ---- folders without an index ----------------------------------------------------------------- */

static status visit_entry(void *context, const os_dir_entry *entry)
{
    shard_set *set = context;
    if (!entry->is_file || entry->name[0] == '.' ||
        !str_ends(str_from(entry->name), ".safetensors"))
        return STATUS_OK;
    if (set->n == FILE_MAX_PARTS)
        return err_set(set->e, STATUS_UNSUPPORTED, "%s: expected at most %d .safetensors files",
                       set->in->pub.path, FILE_MAX_PARTS);
    size_t n = strlen(entry->name);
    char *copy = arena_strndup(&set->in->texts, entry->name, n);
    if (!copy)
        return err_set(set->e, STATUS_NO_MEMORY, "%s: names of shards", set->in->pub.path);
    set->names[set->n++] = (str){copy, n}; /* the walk is in order of name */
    return STATUS_OK;
}

/* Opens all *.safetensors of the folder, when there are any. */
static status open_all(file_inside *in, const char *folder, bool *found, err *e)
{
    shard_set *set = base_zalloc(1, sizeof *set);
    if (!set)
        return err_set(e, STATUS_NO_MEMORY, "%s: its shards", folder);
    set->in = in;
    set->e = e;
    in->pub.folder = folder;
    status s = os_list_dir(folder, visit_entry, set, e);
    *found = set->n > 0;
    if (!s && set->n > 0)
        s = open_shards(in, set, e);
    if (!s && set->n > 0)
        s = open_beside(in, e);
    base_free(set);
    return s;
}

status file_safetensors_open_folder(file_inside *in, const char *path, bool *found, err *e)
{
    static const char *const names[] = {"model.safetensors.index.json", "model.safetensors"};
    *found = false;
    for (int i = 0; i < 2; i++) {
        char *full = file_join(in, path, str_from(names[i]));
        if (!full)
            return err_set(e, STATUS_NO_MEMORY, "%s: its path", path);
        if (!os_is_file(full))
            continue;
        *found = true;
        if (i == 0)
            return file_safetensors_open_index(in, full, e);
        status s = file_inside_map(in, 0, full, e);
        return s ? s : file_safetensors_open_file(in, full, e);
    }
    return open_all(in, path, found, e);
}
