/*
 * store: the local model library. Names people use → where the weights are; opening them.
 *
 * A *source* is what a rank is told to open: an absolute path, or "builtin:minnow" for the model inside the binary. A *name* is what a
 * person or client says: a path, "minnow", a file or folder in shoal's data folder (models/), a repository in the Hugging Face hub
 * cache ("org/name" for safetensors, "org/name:Q4_K_M" for one of its GGUF files), a model of Ollama's store ("llama3.2:1b"), a model in LM
 * Studio's folder (named like those of the hub).
 *
 * Places: SHOAL's data folder/models; HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub; OLLAMA_MODELS or ~/.ollama/models; ~/.lmstudio/models
 * and ~/.cache/lm-studio/models. One that cannot be read is as good as absent (`--log debug` says why).
 *
 * Threads: any; nothing is cached between calls (store_index is for those who ask often). Names and files are not trusted: symbolic links are followed only to regular files and folders,
 * digests and references stay inside their store, and names with control characters are left out.
 * Not here: downloads (they come later), what is inside a file (src/file), loading (src/model).
 */
#ifndef SHOAL_STORE_H
#define SHOAL_STORE_H

#include "base/base.h"
#include "file/file.h"

enum { STORE_PATH = 4096 };

typedef struct store_model {
    const char *name, *source,
        *origin; /* origin: "builtin", "shoal", "huggingface", "ollama", "lmstudio" */
    uint64_t bytes;
    int64_t modified_unix; /* 0 for builtin */
} store_model;

/* Every model there is, builtin first, then by name; a name that comes twice is given once, in the order of origins above. Folders that do
 * not exist are not an error. visit may stop with its own status. Strings live during the call. */
status store_list(status (*visit)(void *context, const store_model *m), void *context, err *e);

/* Source of a name, into source[STORE_PATH]; *origin (may be NULL) as above or "path". Names compare without regard to case; ":latest" may be
 * left out, and everything behind the colon when only one model begins so (else CONFLICT names them); the whole name of a GGUF file may stand
 * behind the colon. What is no model's name may be a file's in the folder one is in. NOT_FOUND names the nearest, else what there is. */
status store_find(char *source, const char **origin, const char *name, err *e);

/* What there was at one time: looking into hundreds of folders takes a tenth of a second, too long for every question of a client. */
typedef struct store_index store_index;
status store_index_create(store_index **out, err *e);
void store_index_destroy(store_index *x); /* NULL is fine */
status store_index_list(const store_index *x, status (*visit)(void *context, const store_model *m),
                        void *context);
status
store_index_find(const store_index *x, char *source, const char **origin, const char *name,
                 err *e); /* as store_find; paths, which begin with / . or ~, are looked at now */

/* file_open for sources. */
status store_open(file_model **out, const char *source, err *e);

/* The folders that are looked into, for `shoal paths` and `doctor`: visit(what, path, exists). */
void store_folders(void (*visit)(void *context, const char *what, const char *path, bool exists),
                   void *context);

#endif
