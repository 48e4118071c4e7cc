/*
 * safetensors. The first byte says what the rest is: a whole file in a region of memory ('m'), the config.json ('c') or the index ('i')
 * of a folder with one tiny shard.
 */
#include "file/file.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[64];

static void write_file(const char *name, const void *bytes, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0)
        abort();
}

static void remove_folder(void)
{
    static const char *const names[] = {"config.json", "model.safetensors.index.json",
                                        "a.safetensors"};
    char path[128];
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

/* A folder with one shard (or more, once an input has named them: they do not exist). */
static void prepare(void)
{
    static const char json[] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";
    char shard[8 + sizeof json];
    if (folder[0])
        return;
    snprintf(folder, sizeof folder, "%s/shoal-fuzz-XXXXXX",
             os_is_dir("/dev/shm") ? "/dev/shm" : "/tmp");
    if (!mkdtemp(folder))
        abort();
    atexit(remove_folder);
    memset(shard, 0, sizeof shard);
    shard[0] = sizeof json - 1;
    memcpy(shard + 8, json, sizeof json - 1);
    write_file("a.safetensors", shard, sizeof shard);
}

static void read_all(const file_model *m)
{
    uint64_t sum = file_model_hash(m);
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const file_tensor *t = &m->tensors[i];
        for (uint64_t k = 0; k < t->bytes; k++)
            sum += t->data[k];
        if (file_find_tensor_str(m, t->name) != t || t->offset + t->bytes > m->parts[t->part].bytes)
            abort();
    }
    for (uint32_t i = 0; i < m->n_keys; i++) {
        sb text;
        sb_init(&text);
        file_key_format(&text, &m->keys[i], 1000);
        sum += text.length;
        sb_fini(&text);
        if (m->keys[i].name.length == 0)
            abort();
    }
    if (sum == 42)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    err e = {0};
    file_model *m = NULL;
    status s;
    if (size == 0)
        return -1;
    if (data[0] == 'm') {
        s = file_open_memory(&m, data + 1, size - 1, "fuzz", &e);
    } else if (data[0] == 'c' || data[0] == 'i') {
        const char *name = data[0] == 'c' ? "config.json" : "model.safetensors.index.json";
        char path[128];
        prepare();
        write_file(name, data + 1, size - 1);
        s = file_open(&m, folder, &e);
        snprintf(path, sizeof path, "%s/%s", folder, name);
        unlink(path);
    } else {
        return -1;
    }
    if (s == STATUS_OK)
        read_all(m);
    else if (m || !e.text[0])
        abort();
    file_close(m);
    return 0;
}
