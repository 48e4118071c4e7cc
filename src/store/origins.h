/*
 * Places where models may lie: one const table a place, one file each (see store.h), and what these files share (repository.c).
 * A place that is not there, cannot be read or holds rubbish has no models; only a lack of memory and the visitor's own wish stop a walk.
 */
#ifndef SHOAL_STORE_ORIGINS_H
#define SHOAL_STORE_ORIGINS_H

#include "os/os.h"
#include "store/store.h"

enum { STORE_NAME = 256 };

typedef status (*store_visit)(void *context, const store_model *m);
typedef void (*store_folder_visit)(void *context, const char *what, const char *path, bool exists);

typedef struct store_origin {
    const char *name;
    status (*list)(store_visit visit, void *context);
    /* May be NULL. */
    void (*folders)(store_folder_visit visit, void *context);
} store_origin;

extern const store_origin store_origin_builtin;     /* builtin.c: the model inside the binary */
extern const store_origin store_origin_shoal;       /* folder.c: shoal's own data folder */
extern const store_origin store_origin_huggingface; /* huggingface.c: the hub cache */
extern const store_origin store_origin_ollama;      /* ollama.c: manifests and blobs */
extern const store_origin store_origin_lmstudio;    /* lmstudio.c: publisher/repository folders */

/* ---- repository.c -------------------------------------------------------------------------------------------------- */

/* os_list_dir, but a folder that cannot be listed is empty (said at debug level). Returns what visit stopped with. */
status store_walk(const char *folder, status (*visit)(void *context, const os_dir_entry *entry),
                  void *context);
/* "a/b"; false: longer than STORE_PATH, out is undefined then. b may have slashes. */
bool store_join(char out[STORE_PATH], const char *a, const char *b);
/* $variable when it is set and not empty, else NULL. */
const char *store_env(const char *variable);
/* Under $HOME; false without one. */
bool store_home(char out[STORE_PATH], const char *below);

/* The model that a .gguf file begins: its name without ".gguf" and "-00001-of-00003". false: not .gguf, a later part, a projector
 * ("mmproj…"), hidden or too long. */
bool store_gguf_name(char out[STORE_NAME], const char *file);
/* Bytes (all parts of a split one) and time of the newest; false: it is no regular file or a part is missing. */
bool store_gguf_size(uint64_t *bytes, int64_t *modified_unix, const char *path);
/* config.json and at least one .safetensors file in the folder: their bytes and the newest time. */
bool store_safetensors_size(uint64_t *bytes, int64_t *modified_unix, const char *folder);

/* The models in a repository's folder and one level of folders below it: "repository:part" a GGUF file, "repository" for safetensors. The
 * part is what the file's name adds to the repository's ("Q4_K_M"), or the whole. */
status store_repository(const char *origin, const char *repository, const char *folder,
                        store_visit visit, void *context);

#endif
