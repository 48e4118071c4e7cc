/*
 * Builds model files in memory for the tests of src/file and its fuzz targets' seeds: GGUF with any metadata, safetensors from JSON
 * text. Deliberately able to build nonsense: every count, type and offset is what the test says.
 */
#ifndef SHOAL_TESTS_FILE_BUILDER_H
#define SHOAL_TESTS_FILE_BUILDER_H

#include "file/file.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline void put_u32(sb *b, uint32_t x)
{
    unsigned char bytes[4] = {(unsigned char)x, (unsigned char)(x >> 8), (unsigned char)(x >> 16),
                              (unsigned char)(x >> 24)};
    sb_add(b, bytes, 4);
}

static inline void put_u64(sb *b, uint64_t x)
{
    put_u32(b, (uint32_t)x);
    put_u32(b, (uint32_t)(x >> 32));
}

static inline void put_text(sb *b, const char *s)
{
    put_u64(b, strlen(s));
    sb_puts(b, s);
}

static inline void put_start(sb *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    sb_puts(b, "GGUF");
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_keys);
}

static inline void put_key(sb *b, const char *name, file_value_type type)
{
    put_text(b, name);
    put_u32(b, type);
}

static inline void put_key_u32(sb *b, const char *name, uint32_t value)
{
    put_key(b, name, FILE_VALUE_U32);
    put_u32(b, value);
}

static inline void put_key_text(sb *b, const char *name, const char *value)
{
    put_key(b, name, FILE_VALUE_STR);
    put_text(b, value);
}

static inline void put_array(sb *b, const char *name, file_value_type type, uint64_t n)
{
    put_key(b, name, FILE_VALUE_ARRAY);
    put_u32(b, type);
    put_u64(b, n);
}

/* rows 0: one dimension */
static inline void put_tensor(sb *b, const char *name, uint32_t type, uint64_t columns,
                              uint64_t rows, uint64_t offset)
{
    put_text(b, name);
    put_u32(b, rows ? 2 : 1);
    put_u64(b, columns);
    if (rows)
        put_u64(b, rows);
    put_u32(b, type);
    put_u64(b, offset);
}

static inline void put_padding(sb *b, size_t alignment)
{
    while (b->length % alignment)
        sb_putc(b, 0);
}

/* n bytes that count from `start`. */
static inline void put_data(sb *b, size_t n, unsigned start)
{
    for (size_t i = 0; i < n; i++)
        sb_putc(b, (char)(start + i));
}

/* The tiny valid GGUF that malformed ones are made from: every kind of metadata, three tensors. */
static inline void build_tiny_gguf(sb *b)
{
    put_start(b, 3, 3, 8);
    put_key_text(b, "general.architecture", "llama");
    put_key_u32(b, "general.alignment", 32);
    put_key_u32(b, "llama.block_count", 2);
    put_key(b, "eps", FILE_VALUE_F32);
    put_u32(b, 0x3F000000); /* 0.5 */
    put_key(b, "flag", FILE_VALUE_BOOL);
    sb_putc(b, 1);
    put_array(b, "tokens", FILE_VALUE_STR, 3);
    put_text(b, "a");
    put_text(b, "");
    put_text(b, "ccc");
    put_array(b, "types", FILE_VALUE_I32, 3);
    put_u32(b, 1);
    put_u32(b, (uint32_t)-2);
    put_u32(b, 3);
    put_array(b, "none", FILE_VALUE_U8, 0);
    put_tensor(b, "b.weight", FILE_TYPE_Q8_0, 32, 2, 0); /* 68 bytes */
    put_tensor(b, "a.weight", FILE_TYPE_F32, 4, 3, 96);  /* 48 */
    put_tensor(b, "c.norm", FILE_TYPE_F16, 5, 0, 160);   /* 10 */
    put_padding(b, 32);
    put_data(b, 170, 1);
}

/* u64 length, the text, data. */
static inline void build_safetensors(sb *b, const char *json, size_t data_bytes)
{
    put_text(b, json);
    put_data(b, data_bytes, 1);
}

#define TINY_SAFETENSORS                                                                           \
    "{\"__metadata__\":{\"format\":\"pt\"},"                                                       \
    "\"w\":{\"dtype\":\"BF16\",\"shape\":[3,2],\"data_offsets\":[0,12]},"                          \
    "\"n\\u00e9\":{\"shape\":[4],\"dtype\":\"F32\",\"data_offsets\":[12,28],\"x\":[{}]},"          \
    "\"s\":{\"dtype\":\"F8_E4M3\",\"shape\":[],\"data_offsets\":[28,29]}}   "

/* Where the text first stands in b. */
static inline size_t find_text(const sb *b, const char *text)
{
    size_t n = strlen(text), at = 0;
    while (at + n <= b->length && memcmp(b->data + at, text, n) != 0)
        at++;
    REQUIRE(at + n <= b->length);
    return at;
}

/* Reads everything that a model promises to be readable; the sum keeps it from being optimised away. */
static inline uint64_t touch_everything(const file_model *m)
{
    uint64_t sum = file_model_hash(m);
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const file_tensor *t = &m->tensors[i];
        for (uint64_t k = 0; k < t->bytes; k++)
            sum += t->data[k];
        sum += file_find_tensor_str(m, t->name) == t;
    }
    for (uint32_t i = 0; i < m->n_keys; i++) {
        sb text;
        sb_init(&text);
        file_key_format(&text, &m->keys[i], UINT64_MAX);
        sum += text.length;
        sb_fini(&text);
    }
    return sum;
}

/* A folder of this test's own; remove_folder deletes it with the files in it (no folders inside). */
static inline const char *make_folder(char out[64])
{
    snprintf(out, 64, "/tmp/shoal-test-file-XXXXXX");
    REQUIRE(mkdtemp(out) != NULL);
    return out;
}

static inline status remove_entry(void *context, const os_dir_entry *entry)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (const char *)context, entry->name);
    unlink(path);
    return STATUS_OK;
}

static inline void remove_folder(char *folder)
{
    os_list_dir(folder, remove_entry, folder, NULL);
    rmdir(folder);
}

static inline void write_file(const char *folder, const char *name, const void *bytes, size_t n)
{
    char path[512];
    err e;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    status s = os_write_file(path, bytes, n, 0600, &e);
    REQUIRE(s == STATUS_OK);
}

static inline status open_in(file_model **out, const char *folder, const char *name, err *e)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return file_open(out, path, e);
}

/* Opens an exact-size heap copy, so that a read behind the end is seen by the address sanitizer. */
static inline status open_copy(const void *bytes, size_t n, err *e)
{
    file_model *m = NULL;
    void *copy = malloc(n ? n : 1);
    REQUIRE(copy != NULL);
    memcpy(copy, bytes, n);
    status s = file_open_memory(&m, copy, n, "copy", e);
    if (s == STATUS_OK)
        touch_everything(m);
    else
        REQUIRE(m == NULL);
    file_close(m);
    free(copy);
    return s;
}

#endif
