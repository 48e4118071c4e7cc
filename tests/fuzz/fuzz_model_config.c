/*
 * A folder from Hugging Face with a tiny model of zeros, one of its JSON files hostile: the first byte says which ('g' generation_config.json, 'k'
 * tokenizer_config.json; config.json beside the weights of a Llama 'l', Qwen2 'q', Qwen3 'w', Gemma 3 'm', Phi-3 'p'), the rest is that file. What can be read becomes a card and a tokenizer, what fits is loaded and
 * runs one step.
 */
#include "folder.h"

#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"config.json", "generation_config.json",
                                    "tokenizer_config.json", "tokenizer.json", "model.safetensors"};
static const char *const usual[] = {
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"vocab_size\": 32, "
    "\"hidden_size\": 32, \"intermediate_size\": 32, \"num_hidden_layers\": 1, "
    "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 16, "
    "\"max_position_embeddings\": 128, \"rms_norm_eps\": 1e-05, \"tie_word_embeddings\": true}",
    "{\"eos_token_id\": [1, 2]}", "{\"bos_token\": \"<s>\", \"chat_template\": \"{{ messages }}\"}",
    ("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"<s>\": 0, \"a\": 1, \"b\": 2}, \"merges\": "
     "[]}}")};

/* The weights of the family; nothing to do when they are there already. */
static void write_weights(char family)
{
    static const struct {
        const char *families, *name;
        int rows, columns; /* columns 0: a vector */
    } tensors[] = {{"lqwmp", "model.embed_tokens.weight", 32, 32},
                   {"lqwmp", "model.norm.weight", 32, 0},
                   {"lqwmp", "model.layers.0.input_layernorm.weight", 32, 0},
                   {"lqwmp", "model.layers.0.post_attention_layernorm.weight", 32, 0},
                   {"lqwm", "model.layers.0.self_attn.q_proj.weight", 32, 32},
                   {"lqwm", "model.layers.0.self_attn.k_proj.weight", 16, 32},
                   {"lqwm", "model.layers.0.self_attn.v_proj.weight", 16, 32},
                   {"q", "model.layers.0.self_attn.q_proj.bias", 32, 0},
                   {"q", "model.layers.0.self_attn.k_proj.bias", 16, 0},
                   {"q", "model.layers.0.self_attn.v_proj.bias", 16, 0},
                   {"wm", "model.layers.0.self_attn.q_norm.weight", 16, 0},
                   {"wm", "model.layers.0.self_attn.k_norm.weight", 16, 0},
                   {"p", "model.layers.0.self_attn.qkv_proj.weight", 64, 32},
                   {"lqwmp", "model.layers.0.self_attn.o_proj.weight", 32, 32},
                   {"m", "model.layers.0.pre_feedforward_layernorm.weight", 32, 0},
                   {"m", "model.layers.0.post_feedforward_layernorm.weight", 32, 0},
                   {"lqwm", "model.layers.0.mlp.gate_proj.weight", 32, 32},
                   {"lqwm", "model.layers.0.mlp.up_proj.weight", 32, 32},
                   {"p", "model.layers.0.mlp.gate_up_proj.weight", 64, 32},
                   {"lqwmp", "model.layers.0.mlp.down_proj.weight", 32, 32}};
    static char written;
    static const char zeros[4096];
    sb head = {0}, file = {0};
    size_t at = 0;
    if (family == written)
        return;
    written = family;
    for (size_t i = 0; i < BASE_COUNT(tensors); i++) {
        size_t n = (size_t)tensors[i].rows * (size_t)BASE_MAX(tensors[i].columns, 1) * 4;
        if (!strchr(tensors[i].families, family))
            continue;
        sb_printf(&head, "%s\"%s\": {\"dtype\": \"F32\", \"shape\": [%d", at ? ", " : "{",
                  tensors[i].name, tensors[i].rows);
        if (tensors[i].columns)
            sb_printf(&head, ", %d", tensors[i].columns);
        sb_printf(&head, "], \"data_offsets\": [%zu, %zu]}", at, at + n);
        at += n;
    }
    sb_putc(&head, '}');
    for (int i = 0; i < 8; i++)
        sb_putc(&file, (char)((uint64_t)head.length >> (8 * i)));
    sb_add(&file, head.data, head.length);
    for (; at >= sizeof zeros; at -= sizeof zeros)
        sb_add(&file, zeros, sizeof zeros);
    sb_add(&file, zeros, at);
    folder_write(names[4], file.data, file.length);
    sb_fini(&head);
    sb_fini(&file);
}

static void prepare(void)
{
    if (!folder_make())
        return;
    model_admit_test_families(true);
    log_set_level(LOG_ERROR);
    for (size_t i = 0; i < BASE_COUNT(usual); i++)
        folder_write(names[i], usual[i], strlen(usual[i]));
}

static void step(model *m)
{
    int64_t V = model_get_card(m)->n_vocab;
    float *logits = malloc((size_t)V * sizeof *logits);
    int32_t id = (int32_t)(V - 1), page = 0, row = 0;
    model_run r = {.n_tokens = 1};
    for (int i = 0; i < model_n_classes(m); i++) {
        r.pages[i] = &page;
        r.n_pages[i] = 1;
    }
    model_batch b = {1, &id, 1, &r, 1, &row};
    if (logits)
        (void)model_step(m, &b, logits, NULL);
    free(logits);
}

static void use(const file_model *f)
{
    err e = {0};
    model_card *card = NULL;
    model *m = NULL;
    text_tokenizer *t = NULL;
    model_options o = {
        .n_threads = 1, .context = 64, .n_sequences = 1, .max_tokens = 1, .memory_limit = 1 << 22};
    if (model_card_read(&card, f, &e) == STATUS_OK) {
        if (model_tokenizer_create(&t, card, &e) == STATUS_OK)
            text_tokenizer_destroy(t);
        model_card_destroy(card);
    } else if (!e.text[0]) {
        abort();
    }
    if (model_load(&m, f, &o, NULL, &e) == STATUS_OK) {
        step(m);
        model_destroy(m);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    err e = {0};
    file_model *f = NULL;
    if (!size || !data[0] || !strchr("gklqwmp", data[0]))
        return -1;
    size_t which = data[0] == 'g' ? 1 : data[0] == 'k' ? 2 : 0;
    prepare();
    write_weights(which ? 'l' : (char)data[0]);
    folder_write(names[which], data + 1, size - 1);
    if (file_open(&f, folder, &e) == STATUS_OK)
        use(f);
    else if (!e.text[0])
        abort();
    file_close(f);
    folder_write(names[which], usual[which], strlen(usual[which]));
    return 0;
}
