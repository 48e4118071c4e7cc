/*
 * config.json and generation_config.json as metadata keys: nested members become "outer.inner", values are packed the way GGUF packs
 * them, so that file_get_* reads both formats. How: one walk to count, one to fill; packed values live in the model's arena.
 * Deliberately not: tokenizer files (src/text reads those), meanings of keys, arrays of arrays or objects (left out).
 */
#include "file/inside.h"
#include "file/pull.h"

#include <inttypes.h>
#include <string.h>

enum {
    MAX_KEY = 255
}; /* bytes of a flattened name; longer ones are left out: no engine asks for them, and they would cost a product of lengths */

typedef struct flat {
    file_inside *in;
    uint32_t n, room;
    bool counting; /* counts at least as many keys as the second walk makes */
} flat;

static status no_memory(const pull *p, err *e)
{
    return err_set(e, STATUS_NO_MEMORY, "%s: its values", p->path);
}

static status add_key(flat *f, const pull *p, str name, file_value_type type, file_array value,
                      err *e)
{
    if (f->n == f->room) /* only when someone writes to the file between the walks */
        return file_pull_fail(p, "object", "no more members", e);
    f->in->keys[f->n++] = (file_key){name, type, value};
    return STATUS_OK;
}

/* ---- values ----------------------------------------------------------------------------------- */

/* What an array or a scalar is packed as. Integers that a double joins become doubles. */
typedef struct packing {
    file_value_type type;
    uint64_t n, bytes;
    bool mixed;
} packing;

static void join(packing *k, file_value_type type, uint64_t bytes)
{
    bool number = type == FILE_VALUE_I64 || type == FILE_VALUE_U64 || type == FILE_VALUE_F64;
    bool was_number =
        k->type == FILE_VALUE_I64 || k->type == FILE_VALUE_U64 || k->type == FILE_VALUE_F64;
    if (k->n == 0)
        k->type = type;
    else if (k->type != type && number && was_number)
        k->type = FILE_VALUE_F64;
    else if (k->type != type)
        k->mixed = true;
    k->n++;
    k->bytes += bytes;
}

static file_value_type number_type(const pull_number *x)
{
    return x->kind == PULL_I64   ? FILE_VALUE_I64
           : x->kind == PULL_U64 ? FILE_VALUE_U64
                                 : FILE_VALUE_F64;
}

/* Looks at the next value without keeping it. Objects, arrays and null make it mixed. */
static status measure(pull *p, packing *k, err *e)
{
    char c = file_pull_peek(p);
    pull_number number;
    pull_word word;
    str text;
    status s;
    if (c == '"') {
        if (!(s = file_pull_str(p, "string", &text, e)))
            join(k, FILE_VALUE_STR, 8 + (uint64_t)text.length); /* as spelled: at least as long */
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        if (!(s = file_pull_any_number(p, &number, e)))
            join(k, number_type(&number), 8);
    } else if (c == '{' || c == '[') {
        s = file_pull_skip(p, PULL_DEPTH / 2, e);
        k->mixed = true;
    } else if (!(s = file_pull_a_word(p, &word, e))) {
        join(k, FILE_VALUE_BOOL, 1);
        k->mixed = k->mixed || word == PULL_NULL;
    }
    return s;
}

/* Packs the next value, whose type was measured, at `to`; returns the bytes used in *used. */
static status pack(pull *p, file_value_type type, unsigned char *to, uint64_t *used, err *e)
{
    pull_number number;
    pull_word word;
    uint64_t bits;
    str text;
    status s;
    *used = 8;
    if (type == FILE_VALUE_STR) {
        if ((s = file_pull_str(p, "string", &text, e)))
            return s;
        base_store_u64(to, text.length);
        memcpy(to + 8, text.data, text.length);
        *used += text.length;
        return STATUS_OK;
    }
    if (type == FILE_VALUE_BOOL) {
        if ((s = file_pull_a_word(p, &word, e)))
            return s;
        *to = word == PULL_TRUE;
        *used = 1;
        return STATUS_OK;
    }
    if ((s = file_pull_any_number(p, &number, e)))
        return s;
    if (type == FILE_VALUE_F64)
        memcpy(&bits, &number.f, sizeof bits);
    else
        bits = number.kind == PULL_U64 ? number.u : (uint64_t)number.i;
    base_store_u64(to, bits);
    return STATUS_OK;
}

/* A scalar, or (array) the elements of one: measured by a walk ahead, then packed. Mixed ones and null give no key. */
static status take_value(flat *f, pull *p, str name, bool array, err *e)
{
    pull ahead = *p;
    packing k = {.type = FILE_VALUE_I64};
    bool more = true;
    status s = STATUS_OK;
    ahead.texts = NULL;
    for (bool first = true; !s; first = false) {
        if (array && ((s = file_pull_more(&ahead, ']', first, &more, e)) || !more))
            break;
        if ((s = measure(&ahead, &k, e)) || !array)
            break;
    }
    if (s)
        return s;
    bool wanted = !k.mixed && !f->counting && name.length > 0;
    f->n += f->counting;
    if (!wanted) {
        p->at = ahead.at;
        return STATUS_OK;
    }
    unsigned char *bytes = arena_alloc(&f->in->texts, (size_t)k.bytes + 8);
    uint64_t at = 0, used;
    if (!bytes)
        return no_memory(p, e);
    for (uint64_t i = 0; i < k.n; i++) {
        if (array && (s = file_pull_more(p, ']', i == 0, &more, e)))
            return s;
        if ((s = pack(p, k.type, bytes + at, &used, e)))
            return s;
        at += used;
    }
    p->at = ahead.at;
    return add_key(f, p, name, array ? FILE_VALUE_ARRAY : k.type,
                   (file_array){k.type, k.n, bytes, at}, e);
}

/* ---- objects ---------------------------------------------------------------------------------- */

/* prefix + name in the arena; the empty string when that is too long to keep. */
static status full_name(flat *f, const pull *p, str prefix, str name, str *out, err *e)
{
    *out = (str){"", 0};
    if (f->counting || prefix.length + name.length > MAX_KEY || memchr(name.data, 0, name.length))
        return STATUS_OK;
    char *text = arena_alloc(&f->in->texts, prefix.length + name.length + 1);
    if (!text)
        return no_memory(p, e);
    memcpy(text, prefix.data, prefix.length);
    memcpy(text + prefix.length, name.data, name.length);
    *out = (str){text, prefix.length + name.length};
    return STATUS_OK;
}

static status take_object(flat *f, pull *p, str prefix, int depth, err *e);

/* The value of a member called `full`, whatever it is. */
static status take_member(flat *f, pull *p, str full, int depth, err *e)
{
    status s;
    switch (file_pull_peek(p)) {
    case '{':
        if ((s = full_name(f, p, full, (str){".", 1}, &full, e)))
            return s;
        /* the name of an object that is too long to keep: so are its members' */
        return full.length > 1 || f->counting ? take_object(f, p, full, depth + 1, e)
                                              : file_pull_skip(p, depth + 1, e);
    case '[':
        p->at++;
        return take_value(f, p, full, true, e);
    default:
        return take_value(f, p, full, false, e);
    }
}

static status take_object(flat *f, pull *p, str prefix, int depth, err *e)
{
    bool more;
    str name, full;
    status s = file_pull_take(p, '{', "object", e);
    if (!s && depth >= PULL_DEPTH / 2)
        return file_pull_fail(p, "object", "at most 16 levels of nesting", e);
    for (bool first = true; !s; first = false) {
        if ((s = file_pull_more(p, '}', first, &more, e)) || !more)
            return s;
        if ((s = file_pull_name(p, "name of a member", &name, e)) ||
            (s = full_name(f, p, prefix, name, &full, e)))
            return s;
        s = take_member(f, p, full, depth, e);
    }
    return s;
}

/* One file. Its path is for errors. */
static status take_file(flat *f, str json, const char *file, str prefix, err *e)
{
    char *path = json.length ? file_join(f->in, f->in->pub.folder, str_from(file)) : NULL;
    if (json.length == 0)
        return STATUS_OK;
    if (!path)
        return err_set(e, STATUS_NO_MEMORY, "%s: path of %s", f->in->pub.folder, file);
    pull p = {json.data, json.length, 0, 0, path, f->counting ? NULL : &f->in->texts};
    status s = take_object(f, &p, prefix, 0, e);
    return s ? s : file_pull_end(&p, e);
}

static status take_files(flat *f, err *e)
{
    status s = take_file(f, f->in->pub.config_json, "config.json", (str){"", 0}, e);
    return s ? s
             : take_file(f, f->in->pub.generation_config_json, "generation_config.json",
                         str_from("generation."), e);
}

status file_config_read(file_inside *in, err *e)
{
    flat f = {.in = in, .counting = true};
    status s = take_files(&f, e);
    if (s)
        return s;
    if (f.n > FILE_MAX_KEYS)
        return err_set(e, STATUS_UNSUPPORTED,
                       "%s: config.json: expected at most %u values, got %" PRIu32, in->pub.folder,
                       FILE_MAX_KEYS, f.n);
    in->keys = base_zalloc(f.n, sizeof *in->keys);
    if (!in->keys)
        return err_set(e, STATUS_NO_MEMORY, "%s: config.json: %" PRIu32 " values", in->pub.folder,
                       f.n);
    f.room = f.n;
    f.n = 0;
    f.counting = false;
    if ((s = take_files(&f, e)))
        return s;
    in->pub.keys = in->keys;
    in->pub.n_keys = f.n;
    return file_inside_check_keys(in, e);
}
