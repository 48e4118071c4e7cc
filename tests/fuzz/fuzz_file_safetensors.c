/*
 * safetensors. The first byte says what the rest is: a whole file in a region of memory ('m'), the config.json ('c') or the index ('i')
 * of a folder with one tiny shard.
 */
#include "folder.h"

#include "file/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A folder with one shard (or more, once an input has named them: they do not exist). */
static void prepare(void)
{
    static const char json[] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";
    char shard[8 + sizeof json];
    if (!folder_make())
        return;
    memset(shard, 0, sizeof shard);
    shard[0] = sizeof json - 1;
    memcpy(shard + 8, json, sizeof json - 1);
    folder_write("a.safetensors", shard, sizeof shard);
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
        folder_write(name, data + 1, size - 1);
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
