/* GGUF from a region of memory: whatever opens must be readable to its last byte and key. */
#include "file/file.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    err e = {0};
    file_model *m = NULL;
    if (file_open_memory(&m, data, size, "fuzz", &e) != STATUS_OK)
        return e.text[0] == '\0' || m ? abort(), 0 : 0;
    uint64_t sum = file_model_hash(m), total = 0;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const file_tensor *t = &m->tensors[i];
        total += t->bytes;
        for (uint64_t k = 0; k < t->bytes; k++)
            sum += t->data[k];
        if (file_find_tensor_str(m, t->name) != t || t->offset + t->bytes > size)
            abort();
    }
    if (total != m->tensor_bytes || total > size)
        abort();
    for (uint32_t i = 0; i < m->n_keys; i++) {
        sb text;
        double f;
        uint64_t u;
        sb_init(&text);
        file_key_format(&text, &m->keys[i], 1000);
        sb_fini(&text);
        if (m->keys[i].value.n > 0) {
            sum += file_array_u64(&m->keys[i].value, m->keys[i].value.n - 1, &u);
            sum += file_array_f64(&m->keys[i].value, m->keys[i].value.n - 1, &f);
        }
    }
    file_close(m);
    return sum == 42 ? -1 : 0;
}
