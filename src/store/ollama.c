/*
 * Ollama's store, read only:
 *
 *   manifests/<registry>/<namespace>/<name>/<tag>   JSON: layers, each with mediaType, digest and size
 *   blobs/sha256-<64 hex digits>                    the layer of mediaType application/vnd.ollama.image.model is the GGUF file
 *
 * Names as Ollama's: "llama3.2:1b" for registry.ollama.ai/library, "user/name:tag" for others of that registry, else with the registry in front.
 * Models with an adapter layer are left out (half of them would be run); Ollama's own template, system and parameter layers are not read: the
 * GGUF has its own. The place is OLLAMA_MODELS, else ~/.ollama/models and the Linux service's.
 */
#include "store/origins.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { MANIFEST_LIMIT = 1 << 20, LEVELS = 3 /* folders above a tag: registry, namespace, name */ };

static const char model_layer[] = "application/vnd.ollama.image.model";
static const char adapter_layer[] = "application/vnd.ollama.image.adapter";

/* ---- a manifest ---------------------------------------------------------------------------------------------------- */

/* "sha256:<64 hex>" → "sha256-<64 hex>". Anything else could lead out of the folder. */
static bool blob_name(char out[72], const char *digest)
{
    if (strlen(digest) != 71 || strncmp(digest, "sha256:", 7) ||
        strspn(digest + 7, "0123456789abcdef") != 64)
        return false;
    memcpy(out, digest, 72);
    out[6] = '-';
    return true;
}

/* The blob of the model layer; false: a manifest of something else, or no manifest. */
static bool manifest_blob(char out[72], const json_t *manifest)
{
    const json_t *layers = json_object_get(manifest, "layers"), *layer;
    size_t i;
    bool found = false;
    json_array_foreach(layers, i, layer)
    {
        const char *type = json_string_value(json_object_get(layer, "mediaType"));
        const char *digest = json_string_value(json_object_get(layer, "digest"));
        if (type && !strcmp(type, adapter_layer))
            return false;
        if (type && digest && !found && !strcmp(type, model_layer))
            found = blob_name(out, digest);
    }
    return found;
}

static bool read_manifest(char out[72], int64_t *modified_unix, const char *path)
{
    char *text;
    size_t n;
    uint64_t bytes;
    err e;
    json_error_t error;
    if (!store_gguf_size(&bytes, modified_unix, path)) /* only for the time */
        return false;
    if (os_read_file(&text, &n, path, MANIFEST_LIMIT, &e) != STATUS_OK) {
        log_debug("store", "%s", e.text);
        return false;
    }
    json_t *manifest = json_loadb(text, n, 0, &error);
    base_free(text);
    if (!manifest)
        log_debug("store", "%s line %d: %s", path, error.line, error.text);
    bool good = manifest && manifest_blob(out, manifest);
    json_decref(manifest);
    return good;
}

/* ---- the tree of manifests ----------------------------------------------------------------------------------------- */

typedef struct walk {
    store_visit visit;
    void *context;
    const char *store, *folder;
    const char *names[LEVELS];
    int depth;
} walk;

static bool model_name(char out[STORE_NAME], const walk *w, const char *tag)
{
    int n;
    if (strcmp(w->names[0], "registry.ollama.ai"))
        n = snprintf(out, STORE_NAME, "%s/%s/%s:%s", w->names[0], w->names[1], w->names[2], tag);
    else if (strcmp(w->names[1], "library"))
        n = snprintf(out, STORE_NAME, "%s/%s:%s", w->names[1], w->names[2], tag);
    else
        n = snprintf(out, STORE_NAME, "%s:%s", w->names[2], tag);
    return n > 0 && n < STORE_NAME;
}

static status visit_entry(void *context, const os_dir_entry *entry)
{
    walk *w = context;
    char path[STORE_PATH], name[STORE_NAME], blob[80] = "blobs/", source[STORE_PATH];
    store_model m = {.name = name, .source = source, .origin = "ollama"};
    int64_t of_blob;
    if (entry->name[0] == '.' || !store_join(path, w->folder, entry->name))
        return STATUS_OK;
    if (w->depth < LEVELS) {
        walk below = *w;
        below.folder = path;
        below.names[below.depth++] = entry->name;
        return entry->is_dir ? store_walk(path, visit_entry, &below) : STATUS_OK;
    }
    if (!entry->is_file || !model_name(name, w, entry->name) ||
        !read_manifest(blob + 6, &m.modified_unix, path) || !store_join(source, w->store, blob) ||
        !store_gguf_size(&m.bytes, &of_blob, source))
        return STATUS_OK;
    return w->visit(w->context, &m);
}

/* ---- the place ----------------------------------------------------------------------------------------------------- */

/* Folder i of those to look into; false: no more. */
static bool place(char out[STORE_PATH], int i)
{
    const char *told = store_env("OLLAMA_MODELS");
    if (told)
        return i == 0 && snprintf(out, STORE_PATH, "%s", told) < STORE_PATH;
    if (i == 0 && !store_home(out, ".ollama/models"))
        out[0] = '\0';
    if (i == 1)
        snprintf(out, STORE_PATH, "/usr/share/ollama/.ollama/models");
    return i < 2;
}

static status list(store_visit visit, void *context)
{
    char store[STORE_PATH], manifests[STORE_PATH];
    status s = STATUS_OK;
    for (int i = 0; s == STATUS_OK && place(store, i); i++) {
        walk w = {.visit = visit, .context = context, .store = store, .folder = manifests};
        if (store[0] && store_join(manifests, store, "manifests"))
            s = store_walk(manifests, visit_entry, &w);
    }
    return s;
}

static void folders(store_folder_visit visit, void *context)
{
    char store[STORE_PATH];
    for (int i = 0; place(store, i); i++)
        if (store[0] && (i == 0 || os_is_dir(store)))
            visit(context, "store of Ollama", store, os_is_dir(store));
}

const store_origin store_origin_ollama = {"ollama", list, folders};
