/* shoal show MODEL: the card of a model, read from its metadata and the shapes of its tensors; the weights are not touched. */
#include "cli/cli.h"
#include "cli/look.h"
#include "model/model.h"
#include "os/os.h"
#include "store/store.h"

#include <string.h>

static const char *const kinds[] = {
    [MODEL_STATE_PAGED] = "all positions",
    [MODEL_STATE_WINDOWED] = "window",
    [MODEL_STATE_LATENT] = "latent",
    [MODEL_STATE_CONSTANT] = "constant",
};

typedef struct shown {
    const model_card *card;
    const char *name, *origin, *source;
    file_format format;
    uint32_t n_parts;
} shown;

static void tokenizer_text(char out[64], const model_card *card)
{
    if (card->vocab)
        snprintf(out, 64, "%.*s%s%.*s", (int)BASE_MIN(card->vocab->model.length, (size_t)20),
                 card->vocab->model.data ? card->vocab->model.data : "",
                 card->vocab->pre.length ? ", " : "",
                 (int)BASE_MIN(card->vocab->pre.length, (size_t)30),
                 card->vocab->pre.data ? card->vocab->pre.data : "");
    else
        snprintf(out, 64, "%s", card->tokenizer_json.length ? "tokenizer.json" : "none");
}

static void templates_text(sb *out, const model_card *card)
{
    for (int i = 0; i < card->n_templates; i++)
        sb_printf(out, "%s%s", i ? ", " : "", card->templates[i].name);
    if (!card->n_templates)
        sb_puts(out, "none (the built-in ChatML is used)");
}

/* ---- for people ---------------------------------------------------------------------------------------------------- */

static void line(const look *l, const char *what, const char *format, ...) BASE_PRINTF(3, 4);

static void line(const look *l, const char *what, const char *format, ...)
{
    sb text = {0}, clean = {0};
    va_list args;
    va_start(args, format);
    sb_vprintf(&text, format, args);
    va_end(args);
    look_clean(&clean, text.data ? text.data : "", text.length);
    printf("%s%-14s%s  %s\n", l->dim, what, l->off, clean.data ? clean.data : "");
    sb_fini(&text);
    sb_fini(&clean);
}

static void print_state(const look *l, const model_card *card)
{
    char bytes[32];
    for (int i = 0; i < card->n_classes; i++) {
        const model_state_class *k = &card->classes[i];
        const char *what = i ? "" : "state";
        if (k->kind == MODEL_STATE_CONSTANT)
            line(l, what, "%d layers, %s, %s a sequence", k->n_layers, kinds[k->kind],
                 base_format_bytes(bytes, k->page_bytes));
        else if (k->kind == MODEL_STATE_WINDOWED)
            line(l, what, "%d layers, %s of %d positions, %s a token", k->n_layers, kinds[k->kind],
                 k->window, base_format_bytes(bytes, k->page_bytes / (uint64_t)k->page_tokens));
        else
            line(l, what, "%d layers, %s, %s a token", k->n_layers, kinds[k->kind],
                 base_format_bytes(bytes, k->page_bytes / (uint64_t)k->page_tokens));
    }
}

static void print_card(const shown *s)
{
    const model_card *card = s->card;
    look l = look_of(1);
    char a[32], b[32], tokenizer[64];
    sb templates = {0};
    os_memory_info memory;
    tokenizer_text(tokenizer, card);
    templates_text(&templates, card);
    line(&l, "name", "%s", s->name);
    if (strcmp(s->name, card->name))
        line(&l, "title", "%s", card->name);
    line(&l, "origin", "%s", s->origin);
    line(&l, "source", "%s%s", s->source, s->format == FILE_GGUF ? "" : " (safetensors)");
    if (s->n_parts > 1)
        line(&l, "parts", "%u", s->n_parts);
    line(&l, "family", "%s (%s)", card->family, card->architecture);
    line(&l, "parameters", "%s", look_count(a, card->n_parameters));
    line(&l, "weights", "%s, %s, of which %s are read for each token", card->weights,
         base_format_bytes(a, card->weight_bytes),
         base_format_bytes(b, card->weight_bytes_per_token));
    if (card->trained_context)
        line(&l, "context", "%lld tokens%s%s", (long long)card->trained_context,
             strcmp(card->rope, "none") ? ", rope " : "",
             strcmp(card->rope, "none") ? card->rope : "");
    else
        line(&l, "context", "not said by the file");
    line(&l, "shape",
         "%lld layers, width %lld, %lld heads on %lld of width %lld, feed-forward %lld",
         (long long)card->n_layers, (long long)card->d_model, (long long)card->n_heads,
         (long long)card->n_kv_heads, (long long)card->head_dim, (long long)card->d_ff);
    line(&l, "vocabulary", "%lld tokens%s", (long long)card->n_vocab,
         card->tied ? ", output tied to the embedding" : "");
    if (card->pooling != MODEL_POOLING_NONE)
        line(&l, "embeds", "vectors of %lld, pooling: %s", (long long)card->d_model,
             model_pooling_name(card->pooling));
    line(&l, "tokenizer", "%s", tokenizer);
    line(&l, "template", "%s", templates.data ? templates.data : "");
    print_state(&l, card);
    line(&l, "numerics", "%s", card->numerics);
    line(&l, "hash", "%016llx", (unsigned long long)card->hash);
    if (os_memory(&memory, NULL) == STATUS_OK)
        line(&l, "memory", "%s of weights, %s available here%s",
             base_format_bytes(a, card->weight_bytes), base_format_bytes(b, memory.available_bytes),
             card->weight_bytes > memory.available_bytes ? ": it does not fit" : "");
    sb_fini(&templates);
}

/* ---- for scripts --------------------------------------------------------------------------------------------------- */

static void set_text(json_t *to, const char *key, const char *text)
{
    json_object_set_new(to, key, look_json_text(text));
}

static void set_whole(json_t *to, const char *key, uint64_t n)
{
    json_object_set_new(to, key, json_integer((json_int_t)n));
}

static json_t *card_json(const shown *s)
{
    const model_card *card = s->card;
    char text[64];
    json_t *o = json_object(), *templates = json_array(), *state = json_array();
    set_text(o, "name", s->name);
    set_text(o, "origin", s->origin);
    set_text(o, "source", s->source);
    set_text(o, "format", s->format == FILE_GGUF ? "gguf" : "safetensors");
    set_text(o, "title", card->name);
    set_text(o, "family", card->family);
    set_text(o, "architecture", card->architecture);
    set_whole(o, "parameters", card->n_parameters);
    set_text(o, "weights", card->weights);
    set_whole(o, "weight_bytes", card->weight_bytes);
    set_whole(o, "weight_bytes_per_token", card->weight_bytes_per_token);
    set_whole(o, "state_bytes_per_token", card->kv_bytes_per_token);
    set_whole(o, "context", (uint64_t)card->trained_context);
    set_text(o, "rope", card->rope);
    set_whole(o, "layers", (uint64_t)card->n_layers);
    set_whole(o, "width", (uint64_t)card->d_model);
    set_whole(o, "heads", (uint64_t)card->n_heads);
    set_whole(o, "kv_heads", (uint64_t)card->n_kv_heads);
    set_whole(o, "head_width", (uint64_t)card->head_dim);
    set_whole(o, "feed_forward", (uint64_t)card->d_ff);
    set_whole(o, "vocabulary", (uint64_t)card->n_vocab);
    json_object_set_new(o, "tied", json_boolean(card->tied));
    set_text(o, "pooling", model_pooling_name(card->pooling));
    tokenizer_text(text, card);
    set_text(o, "tokenizer", text);
    for (int i = 0; i < card->n_templates; i++)
        json_array_append_new(templates, look_json_text(card->templates[i].name));
    json_object_set_new(o, "templates", templates);
    for (int i = 0; i < card->n_classes; i++) {
        const model_state_class *k = &card->classes[i];
        json_array_append_new(state, json_pack("{s:s, s:i, s:i, s:i, s:I}", "kind", kinds[k->kind],
                                               "layers", k->n_layers, "page_tokens", k->page_tokens,
                                               "window", k->window, "page_bytes",
                                               (json_int_t)k->page_bytes));
    }
    json_object_set_new(o, "state", state);
    set_text(o, "numerics", card->numerics);
    snprintf(text, sizeof text, "%016llx", (unsigned long long)card->hash);
    set_text(o, "hash", text);
    return o;
}

int cli_cmd_show(cli *c)
{
    char source[STORE_PATH];
    shown s = {.name = c->arguments[0], .source = source};
    file_model *f;
    model_card *card;
    err e;
    if (store_find(source, &s.origin, s.name, &e) != STATUS_OK ||
        store_open(&f, source, &e) != STATUS_OK)
        return cli_fail_err(c, &e);
    status got = model_card_read(&card, f, &e);
    s.format = f->format;
    s.n_parts = f->n_parts;
    file_close(f);
    if (got != STATUS_OK)
        return cli_fail_err(c, &e);
    s.card = card;
    int code;
    if (cli_flag(c, OPT_json)) {
        code = look_json(c, card_json(&s));
    } else {
        print_card(&s);
        code = 0;
    }
    model_card_destroy(card);
    return code;
}
