/*
 * The card: what a file says about itself, copied so that the file may be closed. Vocabulary and templates are handed over as plain
 * arrays; what they mean is known to src/text and src/chat.
 */
#include "model/inside.h"

#include <jansson.h>
#include <string.h>

/* The card and its memory in one piece of heap. */
typedef struct owned_card {
    model_card card; /* first */
    arena memory;
    text_vocab vocab;
    bool failed; /* some allocation did */
} owned_card;

static const char *copy(owned_card *c, const char *data, size_t n)
{
    const char *p = arena_strndup(&c->memory, data == NULL ? "" : data, data == NULL ? 0 : n);
    if (p == NULL) {
        c->failed = true;
        return "";
    }
    return p;
}

static const char *copy_text(owned_card *c, const char *s)
{
    return copy(c, s, strlen(s));
}

static str copy_str(owned_card *c, str s)
{
    return (str){copy(c, s.data, s.length), s.length};
}

/* ---- names and numbers --------------------------------------------------------------------------------------------- */

/* The last part of a path, without ".gguf". */
static const char *name_from_path(owned_card *c, const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    if (end - begin > 5 && memcmp(path + end - 5, ".gguf", 5) == 0)
        end -= 5;
    return copy(c, path + begin, end - begin);
}

static const char *commonest_type(const file_model *f)
{
    uint64_t bytes[FILE_TYPE_LIMIT] = {0};
    int best = 0;
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        int t = (int)f->tensors[i].type;
        if (t < 0 || t >= FILE_TYPE_LIMIT)
            continue;
        bytes[t] += f->tensors[i].bytes;
        if (bytes[t] > bytes[best])
            best = t;
    }
    return file_type_name((file_type)best);
}

static void count_weight(model_card *c, const model_weight *w, bool read_whole)
{
    if (w->row == NULL)
        return;
    uint64_t bytes = (uint64_t)w->device.rows * kernel_row_bytes(w->device.type, w->device.columns);
    c->n_parameters += (uint64_t)w->device.rows * (uint64_t)w->device.columns;
    c->weight_bytes += bytes;
    c->weight_bytes_per_token += read_whole ? bytes : bytes / (uint64_t)w->device.rows;
}

static void fill_numbers(owned_card *o, const model_plan *p)
{
    static const char *const ropes[] = {"none", "linear", "llama3", "yarn"};
    model_card *c = &o->card;
    const model_config *k = &p->config;
    c->rope = p->weights.global[W_ROPE_DIVISORS].row != NULL ? "llama3" : ropes[k->rope[0].kind];
    c->n_layers = k->L;
    c->d_model = k->D;
    c->n_heads = k->H;
    c->n_kv_heads = k->G;
    c->head_dim = k->dh;
    c->d_ff = k->F;
    c->n_vocab = k->V;
    c->trained_context = k->context;
    c->tied = k->tied;
    c->pooling = k->pooling;
    c->both_ways = k->both_ways;
    for (int id = 0; id < W_LAYER; id++)
        count_weight(c, &p->weights.global[id], id != W_EMBEDDING || k->tied);
    for (int64_t l = 0; l < k->L; l++)
        for (int id = W_LAYER; id < W_IDS; id++)
            count_weight(c, weights_get(&p->weights, l, (weight_id)id), true);
    c->kv_bytes_per_token = (uint64_t)(2 * k->L * k->G * k->dh) * sizeof(uint16_t);
    c->n_classes = p->n_classes;
    for (int i = 0; i < p->n_classes; i++) {
        c->classes[i] = p->pools[i].info;
        uint64_t layers = (uint64_t)c->classes[i].n_layers;
        bool constant = c->classes[i].kind == MODEL_STATE_CONSTANT;
        c->classes[i].page_bytes =
            layers * (constant ? (uint64_t)k->D * sizeof(float)
                               : kernel_page_bytes(KERNEL_KV_F16, k->G, k->dh, k->dh));
    }
}

const char *model_kv_name(model_kv kv)
{
    static const char *const names[MODEL_KVS] = {"f16", "f32", "q8_0"};
    return (unsigned)kv < MODEL_KVS ? names[kv] : "?";
}

uint64_t model_kv_bytes_per_token(const model_card *c, model_kv kv)
{
    kernel_kv stored = kv == MODEL_KV_Q8_0 ? KERNEL_KV_Q8_0 : KERNEL_KV_F16;
    uint64_t page = kernel_page_bytes(stored, c->n_kv_heads, c->head_dim, c->head_dim);
    return (uint64_t)c->n_layers * page / KERNEL_RANGE * (kv == MODEL_KV_F32 ? 2 : 1);
}

/* ---- vocabulary ---------------------------------------------------------------------------------------------------- */

static const str *copy_strings(owned_card *c, const file_array *a, size_t *out_n)
{
    str *list = arena_alloc(&c->memory, (size_t)BASE_MAX(a->n, 1) * sizeof(*list));
    if (list == NULL) {
        c->failed = true;
        return NULL;
    }
    file_strings s = file_strings_of(a);
    size_t n = 0;
    while (n < a->n && file_strings_next(&s, &list[n])) {
        list[n] = copy_str(c, list[n]);
        n++;
    }
    *out_n = n;
    return list;
}

static status read_scores(owned_card *c, const file_model *f, err *e)
{
    file_array a;
    if (file_find_key(f, "tokenizer.ggml.scores") != NULL) {
        status s = file_get_array(f, "tokenizer.ggml.scores", &a, e);
        if (s != STATUS_OK)
            return s;
        float *scores = arena_alloc(&c->memory, (c->vocab.n_tokens + 1) * sizeof(*scores));
        double v;
        for (size_t i = 0; scores != NULL && i < c->vocab.n_tokens; i++)
            scores[i] = file_array_f64(&a, i < a.n ? i : 0, &v) && i < a.n ? (float)v : 0.0f;
        c->vocab.scores = scores;
        c->failed |= scores == NULL;
    }
    if (file_find_key(f, "tokenizer.ggml.token_type") != NULL) {
        status s = file_get_array(f, "tokenizer.ggml.token_type", &a, e);
        if (s != STATUS_OK)
            return s;
        int32_t *types = arena_alloc(&c->memory, (c->vocab.n_tokens + 1) * sizeof(*types));
        int64_t v;
        for (size_t i = 0; types != NULL && i < c->vocab.n_tokens; i++)
            types[i] =
                i < a.n && file_array_i64(&a, i, &v) && v >= 0 && v <= 6 ? (int32_t)v : TEXT_NORMAL;
        c->vocab.types = types;
        c->failed |= types == NULL;
    }
    return STATUS_OK;
}

static void read_ids(owned_card *c, const file_model *f)
{
    const struct {
        const char *key;
        int32_t *to;
    } ids[] = {
        {"tokenizer.ggml.cls_token_id", &c->vocab.bos},
        {"tokenizer.ggml.bos_token_id", &c->vocab.bos},
        {"tokenizer.ggml.eos_token_id", &c->vocab.eos},
        {"tokenizer.ggml.eot_token_id", &c->vocab.eot},
        {"tokenizer.ggml.eom_token_id", &c->vocab.eom},
        {"tokenizer.ggml.unknown_token_id", &c->vocab.unk},
        {"tokenizer.ggml.seperator_token_id", &c->vocab.sep},
        {"tokenizer.ggml.padding_token_id", &c->vocab.pad},
        {"tokenizer.ggml.mask_token_id", &c->vocab.mask},
    };
    for (size_t i = 0; i < BASE_COUNT(ids); i++) {
        uint64_t v;
        /* An id out of range means "none" in many converted files. */
        if (file_get_u64(f, ids[i].key, &v, NULL) == STATUS_OK && v < c->vocab.n_tokens)
            *ids[i].to = (int32_t)v;
    }
    const struct {
        const char *key;
        int *to;
    } flags[] = {
        {"tokenizer.ggml.add_bos_token", &c->vocab.add_bos},
        {"tokenizer.ggml.add_eos_token", &c->vocab.add_eos},
        {"tokenizer.ggml.add_sep_token", &c->vocab.add_sep},
        {"tokenizer.ggml.add_space_prefix", &c->vocab.add_space_prefix},
        {"tokenizer.ggml.remove_extra_whitespaces", &c->vocab.remove_extra_whitespaces},
        {"tokenizer.ggml.normalizer.lowercase", &c->vocab.lowercase},
        {"tokenizer.ggml.normalizer.strip_accents", &c->vocab.strip_accents},
    };
    for (size_t i = 0; i < BASE_COUNT(flags); i++) {
        bool v;
        if (file_get_bool(f, flags[i].key, &v, NULL) == STATUS_OK)
            *flags[i].to = v;
    }
}

static status read_vocabulary(owned_card *c, const file_model *f, err *e)
{
    file_array a;
    if (file_find_key(f, "tokenizer.ggml.tokens") == NULL)
        return STATUS_OK;
    status s = file_get_strings(f, "tokenizer.ggml.tokens", &a, e);
    if (s != STATUS_OK)
        return s;
    text_vocab_init(&c->vocab);
    c->vocab.tokens = copy_strings(c, &a, &c->vocab.n_tokens);
    if (file_find_key(f, "tokenizer.ggml.merges") != NULL) {
        s = file_get_strings(f, "tokenizer.ggml.merges", &a, e);
        if (s != STATUS_OK)
            return s;
        c->vocab.merges = copy_strings(c, &a, &c->vocab.n_merges);
    }
    if (file_get_str(f, "tokenizer.ggml.model", &c->vocab.model, NULL) == STATUS_OK)
        c->vocab.model = copy_str(c, c->vocab.model);
    if (file_get_str(f, "tokenizer.ggml.pre", &c->vocab.pre, NULL) == STATUS_OK)
        c->vocab.pre = copy_str(c, c->vocab.pre);
    const file_key *map = file_find_key(f, "tokenizer.ggml.precompiled_charsmap");
    if (map != NULL && (map->value.type == FILE_VALUE_U8 || map->value.type == FILE_VALUE_I8))
        c->vocab.precompiled_charsmap =
            copy_str(c, (str){(const char *)map->value.data, (size_t)map->value.bytes});
    /* Phi-3's own tokenizer.json says so; the later models of that architecture have byte-level vocabularies. */
    str architecture;
    c->vocab.strip_behind_control =
        file_get_str(f, "general.architecture", &architecture, NULL) == STATUS_OK &&
        str_is(architecture, "phi3") && str_is(c->vocab.model, "llama");
    read_ids(c, f);
    c->card.vocab = &c->vocab;
    return read_scores(c, f, e);
}

/* ---- templates ----------------------------------------------------------------------------------------------------- */

static void add_template(owned_card *c, const char *name, const char *source, size_t n)
{
    if (n == 0 || c->card.n_templates == MODEL_TEMPLATES)
        return;
    c->card.templates[c->card.n_templates++] =
        (model_template){copy_text(c, name), copy(c, source, n)};
}

static void read_gguf_templates(owned_card *c, const file_model *f)
{
    static const char prefix[] = "tokenizer.chat_template.";
    str text;
    if (file_get_str(f, "tokenizer.chat_template", &text, NULL) == STATUS_OK)
        add_template(c, "default", text.data, text.length);
    for (uint32_t i = 0; i < f->n_keys; i++) {
        const file_key *k = &f->keys[i];
        if (k->type != FILE_VALUE_STR || !str_starts(k->name, prefix))
            continue;
        size_t skip = sizeof(prefix) - 1;
        const char *name = copy(c, k->name.data + skip, k->name.length - skip);
        if (file_get_str(f, copy(c, k->name.data, k->name.length), &text, NULL) == STATUS_OK)
            add_template(c, name, text.data, text.length);
    }
}

static void read_hf_templates(owned_card *c, const file_model *f)
{
    if (f->chat_template.length > 0) {
        add_template(c, "default", f->chat_template.data, f->chat_template.length);
        return;
    }
    json_t *config =
        json_loadb(f->tokenizer_config_json.data, f->tokenizer_config_json.length, 0, NULL);
    const json_t *t = json_object_get(config, "chat_template");
    if (json_is_string(t))
        add_template(c, "default", json_string_value(t), json_string_length(t));
    for (size_t i = 0; json_is_array(t) && i < json_array_size(t); i++) {
        const json_t *one = json_array_get(t, i), *source = json_object_get(one, "template");
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name != NULL && json_is_string(source))
            add_template(c, name, json_string_value(source), json_string_length(source));
    }
    json_decref(config);
}

/* ---- the card ------------------------------------------------------------------------------------------------------ */

static status fill_text(owned_card *o, const file_model *f, err *e)
{
    model_card *c = &o->card;
    status s = STATUS_OK;
    if (f->format == FILE_GGUF) {
        s = read_vocabulary(o, f, e);
        read_gguf_templates(o, f);
    } else {
        c->tokenizer_json = copy_str(o, f->tokenizer_json);
        c->tokenizer_config_json = copy_str(o, f->tokenizer_config_json);
        c->generation_config_json = copy_str(o, f->generation_config_json);
        read_hf_templates(o, f);
    }
    if (s == STATUS_OK && o->failed)
        s = err_set(e, STATUS_NO_MEMORY, "%s: no memory for the card", f->path);
    return s;
}

static status fill(owned_card *o, const model_plan *p, const file_model *f, err *e)
{
    model_card *c = &o->card;
    c->path = copy_text(o, f->path);
    c->family = p->family->name;
    c->architecture = copy_text(o, source_architecture(p->source));
    c->weights = commonest_type(f);
    c->numerics = KERNEL_NUMERICS;
    c->hash = file_model_hash(f);
    char name[256] = "";
    bool found = false;
    if (source_text(p->source, "general.name", "_name_or_path", name, sizeof(name), &found, NULL) !=
            STATUS_OK ||
        !found || name[0] == 0)
        c->name = name_from_path(o, f->path);
    else
        c->name = copy_text(o, name);
    fill_numbers(o, p);
    return fill_text(o, f, e);
}

status model_card_read(model_card **out, const file_model *f, err *e)
{
    model_plan *p = base_zalloc(1, sizeof(*p));
    owned_card *o = base_zalloc(1, sizeof(*o));
    status s;
    if (p == NULL || o == NULL) {
        base_free(p);
        base_free(o);
        return err_set(e, STATUS_NO_MEMORY, "%s: no memory for the card", f->path);
    }
    arena_init(&o->memory, 0);
    s = model_plan_init(p, f, &(model_shard){0}, e);
    if (s == STATUS_OK) {
        s = fill(o, p, f, e);
        model_plan_fini(p);
    }
    base_free(p);
    if (s != STATUS_OK) {
        model_card_destroy(&o->card);
        return s;
    }
    *out = &o->card;
    return STATUS_OK;
}

status model_card_read_text(model_card **out, const file_model *f, err *e)
{
    owned_card *o = base_zalloc(1, sizeof(*o));
    if (o == NULL)
        return err_set(e, STATUS_NO_MEMORY, "%s: no memory for the card", f->path);
    arena_init(&o->memory, 0);
    o->card.path = copy_text(o, f->path);
    o->card.name = name_from_path(o, f->path);
    status s = fill_text(o, f, e);
    if (s != STATUS_OK) {
        model_card_destroy(&o->card);
        return s;
    }
    *out = &o->card;
    return STATUS_OK;
}

status model_card_open(model_card **out, const char *path, err *e)
{
    file_model *f;
    status s = file_open(&f, path, e);
    if (s != STATUS_OK)
        return s;
    s = model_card_read(out, f, e);
    file_close(f);
    return s;
}

void model_card_destroy(model_card *c)
{
    if (c == NULL)
        return;
    owned_card *o = (owned_card *)c;
    arena_fini(&o->memory);
    base_free(o);
}
