/* What the sources of src/file share: the object behind a file_model, the bounds-checked cursor, sorting by index. Private to the module. */
#ifndef SHOAL_FILE_INSIDE_H
#define SHOAL_FILE_INSIDE_H

#include "file/file.h"
#include "os/os.h"

enum { FILE_BESIDE = 6 }; /* config.json and the other files that safetensors folders bring */

typedef struct file_inside {
    file_model pub; /* first, so that a file_model * is a file_inside * */
    arena texts;    /* paths, and the names that safetensors headers spell with escapes */
    file_part *parts;
    bool mapped; /* parts are mappings of ours, not the caller's region */
    file_tensor *tensors;
    uint32_t *by_name; /* [n_tensors] indices into tensors, ascending by name */
    file_key *keys;
    os_mapping beside[FILE_BESIDE];
} file_inside;

/* ---- opening (file.c) ---- */

status file_inside_parts(file_inside *in, uint32_t n, err *e);
status file_inside_map(file_inside *in, uint32_t part, const char *path,
                       err *e); /* path is copied */
/* Room for n tensors; n was proved against the bytes of the files before. */
status file_inside_tensors(file_inside *in, uint32_t n, err *e);
/* Builds by_name and tensor_bytes; refuses names that come twice and data that overlaps. */
status file_inside_finish(file_inside *in, err *e);
/* "…/NAME-00002-of-00003.EXTENSION": digits_at is where the five digits of `no` stand (some publishers write more digits behind "-of-"). */
bool file_split_name(const char *path, const char *extension, size_t *digits_at, uint32_t *no,
                     uint32_t *count);
/* path with its five digits replaced, in the arena; NULL without memory. */
char *file_part_path(file_inside *in, const char *path, size_t digits_at, uint32_t no);
/* folder/name in the arena; NULL without memory. */
char *file_join(file_inside *in, const char *folder, str name);
/* n elements → dims' product times the size of the type: fills t->bytes. The text of a failure says what is wrong with the shape. */
bool file_tensor_size(file_tensor *t, char why[128]);

/* ---- formats ---- */

bool file_gguf_is(const unsigned char *data, uint64_t bytes);
/* in->parts[0] is there: reads it, and with `path` the other parts of a split model too (path NULL: a region of memory). */
status file_gguf_open(file_inside *in, const char *path, err *e);

/* Looks like a header: a length that fits the file, then '{'. */
bool file_safetensors_is(const unsigned char *data, uint64_t bytes);
/* in->parts[0] is there; path NULL: a region of memory. With a path the other shards and the JSON files beside it are opened too. */
status file_safetensors_open_file(file_inside *in, const char *path, err *e);
status file_safetensors_open_index(file_inside *in, const char *path, err *e);
/* found says whether the folder holds safetensors; when not, nothing was done. */
status file_safetensors_open_folder(file_inside *in, const char *path, bool *found, err *e);

/* config.json and generation_config.json, flattened, become in->keys (see file.h). */
status file_config_read(file_inside *in, err *e);
/* Refuses keys that come twice. */
status file_inside_check_keys(file_inside *in, err *e);

/* ---- the cursor ---- */

/* Reads little-endian values from data[at..bytes); a value beyond the end is an error naming the byte offset. */
typedef struct file_cursor {
    const unsigned char *data;
    uint64_t bytes, at;
    const char *path;
} file_cursor;

/* ---- sorting ---- */

/* Heap sort of indices: no memory, n log n whatever the file holds. compare < 0: a before b. */
void file_sort(uint32_t *order, uint32_t n,
               int (*compare)(const void *context, uint32_t a, uint32_t b), const void *context);
int file_compare_str(str a, str b); /* by bytes, shorter first */

#endif
