/*
 * file: model files as they lie on disk or in memory. GGUF v2/v3 (one file, split parts, or a region of memory) and safetensors (one
 * file, shards with or without an index, a folder with its JSON files) behind one directory of tensors, plus GGUF's typed metadata.
 *
 * Nothing is copied: a tensor's data points into a read-only mapping (or into the caller's region), names and strings point into
 * the header, JSON files are handed out as bytes. A file_model is immutable after file_open: any number of threads may read it.
 *
 * Every byte is hostile. Opening checks all of it that this header promises: counts, lengths, types, alignment, that every tensor
 * lies inside its file and overlaps no other, that no name comes twice. An error names the file, the byte offset, what was
 * expected and what was found; nothing is held then. Memory taken is one entry per tensor and key that is really in the file (counts are
 * proved against the file's size first), and for safetensors the parsed header (at most FILE_MAX_JSON_HEADER bytes of JSON).
 *
 * Errors: CORRUPT (malformed), UNSUPPORTED (well formed, but a version or type we do not know), NOT_FOUND, TOO_LARGE, NO_MEMORY, and what os
 * reports. What was checked holds as long as nobody writes to the file: one truncated while it is open raises SIGBUS on access (os_sigbus_exit).
 *
 * Sources: ggml/docs/gguf.md (GGUF v3), github.com/huggingface/safetensors (format section of the README).
 * Not here: what tensors and keys mean (src/model), dequantising (src/kernel), tokenizers (src/text), finding models (src/store).
 */
#ifndef SHOAL_FILE_H
#define SHOAL_FILE_H

#include "base/base.h"

/* ---- weight types ---------------------------------------------------------------------------------------------- */

/* Numbers are GGUF's ggml_type; FILE_TYPE_F8_E4M3 and on exist only in safetensors. See types.def. */
typedef enum file_type {
#define FILE_TYPE(name, number, elements, bytes) FILE_TYPE_##name = number,
#include "file/types.def"
#undef FILE_TYPE
    FILE_TYPE_LIMIT = 72 /* all numbers are below; not all numbers are types */
} file_type;

const char *file_type_name(file_type t);               /* "Q4_K"; "?" when t is not a type */
bool file_type_find(const char *name, file_type *out); /* exact name */
uint32_t
file_type_block_elements(file_type t);       /* 256 for Q4_K, 1 for F32; 0 when t is not a type */
uint32_t file_type_block_bytes(file_type t); /* 144 for Q4_K */
/* Bytes of one row of n elements; false when n is no multiple of the block or the product overflows. */
bool file_type_row_bytes(file_type t, uint64_t n, uint64_t *out);

/* ---- opening --------------------------------------------------------------------------------------------------- */

#define FILE_MAX_DIMS        6
#define FILE_MAX_TENSORS     (1u << 20)
#define FILE_MAX_KEYS        (1u << 16)
#define FILE_MAX_PARTS       4096
#define FILE_MAX_JSON_HEADER (128u << 20) /* of one safetensors shard; also of the index */
#define FILE_MAX_CONFIG      (16u << 20)  /* config.json and the like */
#define FILE_MAX_TOKENIZER   (256u << 20) /* tokenizer.json */

typedef enum file_format { FILE_GGUF, FILE_SAFETENSORS } file_format;

/* dims in GGUF's order for both formats: dims[0] is the row length (fastest), so a weight matrix [rows, columns] has dims {columns, rows}.
 * Unused dims are 1. No dim is 0; a safetensors scalar has n_dims 1, dims {1}. */
typedef struct file_tensor {
    str name;
    file_type type;
    uint32_t n_dims; /* 1..FILE_MAX_DIMS; GGUF at most 4 */
    uint64_t dims[FILE_MAX_DIMS];
    const unsigned char *
        data; /* rows one after another without gaps; may be UNALIGNED (safetensors, regions): read it with memcpy */
    uint64_t bytes;  /* rows × row bytes */
    uint32_t part;   /* index into parts */
    uint64_t offset; /* of data in that part's file */
} file_tensor;

typedef struct file_part {
    const char *path; /* as opened; the region's name for memory */
    const unsigned char *data;
    uint64_t bytes;
} file_part;

/* GGUF's own numbers. */
typedef enum file_value_type {
    FILE_VALUE_U8,
    FILE_VALUE_I8,
    FILE_VALUE_U16,
    FILE_VALUE_I16,
    FILE_VALUE_U32,
    FILE_VALUE_I32,
    FILE_VALUE_F32,
    FILE_VALUE_BOOL,
    FILE_VALUE_STR,
    FILE_VALUE_ARRAY,
    FILE_VALUE_U64,
    FILE_VALUE_I64,
    FILE_VALUE_F64,
    FILE_VALUE_COUNT
} file_value_type;

/* n values of one type, packed little-endian and unaligned in the file (strings: u64 length + bytes each). Already bounds-checked.
 * A scalar value is an array of one. Arrays of arrays are refused on opening. */
typedef struct file_array {
    file_value_type type; /* of the elements */
    uint64_t n;
    const unsigned char *data;
    uint64_t bytes;
} file_array;

typedef struct file_key {
    str name;
    file_value_type type; /* FILE_VALUE_ARRAY for arrays */
    file_array value;
} file_key;

typedef struct file_model {
    file_format format;
    const char *path; /* as given to file_open; the name given to file_open_memory */
    uint32_t n_parts;
    const file_part *parts;
    uint32_t n_tensors;
    const file_tensor *
        tensors; /* GGUF: in file order, parts in order; safetensors: shard by shard in the order of their headers */
    uint32_t n_keys;
    const file_key *
        keys; /* GGUF metadata of the first part, in file order; safetensors: config.json, see below */
    uint64_t tensor_bytes; /* sum over tensors */

    /* Raw bytes of the files beside safetensors; length 0 when there is none. Not parsed, not NUL-terminated. */
    str config_json, generation_config_json, tokenizer_json, tokenizer_config_json, chat_template;
    str pooling_json; /* 1_Pooling/config.json of sentence-transformers */
    /* For safetensors and folders: where they lie (no slash at the end). "" for memory. */
    const char *folder;
} file_model;

/* path may be
 *   - a .gguf file, or any part of a split one (NAME-00002-of-00003.gguf: the other parts must lie beside it); found by its magic, not its name
 *   - a .safetensors file, any shard of several (NAME-00002-of-00003.safetensors), or a *.safetensors.index.json
 *   - a folder: the shards that model.safetensors.index.json names; else model.safetensors; else all *.safetensors; else its one .gguf
 * Beside safetensors the JSON files above are opened where they exist. */
status file_open(file_model **out, const char *path, err *e);
/* GGUF or one safetensors file in memory. The region is borrowed until file_close; name (copied) is used in errors. */
status file_open_memory(file_model **out, const void *bytes, uint64_t n, const char *name, err *e);
void file_close(file_model *m); /* NULL is fine */

/* NULL when there is no such tensor. Binary search. */
const file_tensor *file_find_tensor(const file_model *m, const char *name);
const file_tensor *file_find_tensor_str(const file_model *m, str name);
/* Bytes [offset, offset + bytes) of the tensor were read and will not be needed again: their pages may leave this process. */
void file_forget(const file_model *m, const file_tensor *t, uint64_t offset, uint64_t bytes);

/* Tells models apart and stays the same for the same content, wherever it lies and however GGUF parts are named: over all GGUF metadata (or
 * config.json), the directory (names, types, shapes, in order of name) and 256 bytes from the middle of up to 256 tensors spread evenly over it.
 * It is NOT a checksum: a change in unsampled weights goes unseen (src/store checks downloads). Costs a few ms warm; call it once. */
uint64_t file_model_hash(const file_model *m);

/* ---- GGUF metadata --------------------------------------------------------------------------------------------- */

/* Linear search over the keys; for load time only. Outputs are untouched on error. A missing key is NOT_FOUND, a wrong type CORRUPT; the text names
 * file, key, expected and found.
 * A safetensors model has keys too: its config.json, flattened. Members of objects are joined by dots ("hidden_size", "rope_scaling.factor"),
 * numbers are i64 or f64, arrays of one kind are arrays (empty: of i64), null is a missing key, mixed arrays and arrays of objects or arrays are left out;
 * generation_config.json comes the same way under "generation." ("generation.eos_token_id"). */
const file_key *file_find_key(const file_model *m, const char *name);
status file_get_u64(const file_model *m, const char *key, uint64_t *out,
                    err *e); /* any integer type, ≥ 0 */
status file_get_i64(const file_model *m, const char *key, int64_t *out,
                    err *e); /* any integer type, ≤ INT64_MAX */
status file_get_f64(const file_model *m, const char *key, double *out,
                    err *e); /* F32, F64 or an integer; finite */
status file_get_bool(const file_model *m, const char *key, bool *out, err *e);
status file_get_str(const file_model *m, const char *key, str *out,
                    err *e); /* bytes; UTF-8 is not checked */
status file_get_array(const file_model *m, const char *key, file_array *out,
                      err *e); /* of any type: look at out->type */
status file_get_strings(const file_model *m, const char *key, file_array *out,
                        err *e); /* array of strings */

/* The same, but a missing key gives the default and OK. */
status file_get_u64_or(const file_model *m, const char *key, uint64_t missing, uint64_t *out,
                       err *e);
status file_get_f64_or(const file_model *m, const char *key, double missing, double *out, err *e);
status file_get_bool_or(const file_model *m, const char *key, bool missing, bool *out, err *e);
status file_get_str_or(const file_model *m, const char *key, const char *missing, str *out, err *e);

/* Element i (< n) of an array of numbers; false when the type or the value does not fit (as above). BOOL elements read as u64/i64 0 or 1. */
bool file_array_u64(const file_array *a, uint64_t i, uint64_t *out);
bool file_array_i64(const file_array *a, uint64_t i, int64_t *out);
bool file_array_f64(const file_array *a, uint64_t i, double *out);

/* Walks an array of strings in order, without memory:
 *     file_strings s = file_strings_of(&array);
 *     while (file_strings_next(&s, &text)) ...                                                                        */
typedef struct file_strings {
    const unsigned char *at, *end;
    uint64_t left;
} file_strings;
file_strings file_strings_of(const file_array *a); /* empty when a is not an array of strings */
bool file_strings_next(file_strings *s, str *out);

const char *file_value_type_name(file_value_type t); /* "u32" */
/* A value for people: numbers, quoted strings cut at 60 bytes, of arrays the first max_items and "… (n)". */
void file_key_format(sb *out, const file_key *key, uint64_t max_items);

#endif
