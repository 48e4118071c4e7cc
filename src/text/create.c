/*
 * A tokenizer from the metadata of a GGUF file: `tokenizer.ggml.model` chooses the kind,
 * `tokenizer.ggml.pre` the splitter (presets.c); what the file leaves out follows the habit of
 * that kind (llama: BOS and a space in front; t5: EOS; bert: CLS and SEP).
 */
#include "text/inside.h"

#include <string.h>

static const char space_mark[] = "\xE2\x96\x81"; /* U+2581 */

void text_vocab_init(text_vocab *v)
{
    memset(v, 0, sizeof *v);
    v->bos = v->eos = v->eot = v->eom = v->unk = v->sep = v->pad = v->mask = -1;
    v->add_bos = v->add_eos = v->add_sep = v->add_space_prefix = -1;
    v->remove_extra_whitespaces = v->ignore_merges = v->lowercase = v->strip_accents = -1;
}

static bool chosen(int option, bool otherwise)
{
    return option < 0 ? otherwise : option != 0;
}

static void set_special(text_tokenizer *t, text_special which, int32_t id, const char *name)
{
    if (id >= t->n_tokens) {
        log_warn("text", "the %s token is %d, the vocabulary has %d: ignored", name, (int)id,
                 (int)t->n_tokens);
        id = -1;
    }
    t->special[which] = id < 0 ? -1 : id;
}

static void set_specials(text_tokenizer *t, const text_vocab *v)
{
    set_special(t, TEXT_BOS, v->bos, "bos");
    set_special(t, TEXT_EOS, v->eos, "eos");
    set_special(t, TEXT_EOT, v->eot, "eot");
    set_special(t, TEXT_EOM, v->eom, "eom");
    set_special(t, TEXT_UNK, v->unk, "unk");
    set_special(t, TEXT_SEP, v->sep, "sep");
    set_special(t, TEXT_PAD, v->pad, "pad");
    set_special(t, TEXT_MASK, v->mask, "mask");
}

/* Control tokens never come out of the model, only from TEXT_PARSE_SPECIAL; byte tokens only as a
 * fallback. */
static void mark_model_tokens(text_tokenizer *t)
{
    for (int32_t i = 0; i < t->n_tokens; i++)
        if (t->types[i] != TEXT_CONTROL && t->types[i] != TEXT_UNKNOWN && t->types[i] != TEXT_BYTE)
            t->token_flags[i] |= TOKEN_IN_MODEL;
}

static bool strips_behind(const text_tokenizer *t, const text_vocab *v, int32_t id, str piece)
{
    return v->strip_behind_control && t->types[id] == TEXT_CONTROL && id != t->special[TEXT_BOS] &&
           id != t->special[TEXT_UNK] && !str_is(piece, "<|endoftext|>");
}

static status add_found_tokens(text_tokenizer *t, const text_vocab *v, err *e)
{
    size_t n = 0;
    for (int32_t i = 0; i < t->n_tokens; i++)
        n += t->types[i] >= TEXT_UNKNOWN && t->types[i] <= TEXT_USER_DEFINED;
    added_token *list = base_zalloc(n + 1, sizeof *list);
    if (!list)
        return err_set(e, STATUS_NO_MEMORY, "text: no memory for the vocabulary");
    n = 0;
    for (int32_t i = 0; i < t->n_tokens; i++) {
        if (t->types[i] < TEXT_UNKNOWN || t->types[i] > TEXT_USER_DEFINED)
            continue;
        str piece = text_token_piece(t, i);
        list[n++] = (added_token){.text = piece.data,
                                  .length = (uint32_t)piece.length,
                                  .id = i,
                                  .special = t->types[i] != TEXT_USER_DEFINED,
                                  .rstrip = strips_behind(t, v, i, piece)};
    }
    status s = text_added_make(t, &t->added, list, n, e);
    base_free(list);
    return s;
}

static status add_replace_spaces(text_tokenizer *t, err *e)
{
    normal_step *n = text_add_normal(t, NORMAL_REPLACE, e);
    if (!n)
        return STATUS_UNSUPPORTED;
    n->content = base_strdup(space_mark);
    n->content_length = 3;
    if (!n->content)
        return err_set(e, STATUS_NO_MEMORY, "text: no memory for the vocabulary");
    return text_pattern_compile(&n->pattern, " ", 1, e);
}

static status add_space_in_front(text_tokenizer *t, err *e)
{
    normal_step *n = text_add_normal(t, NORMAL_PREPEND, e);
    if (!n)
        return STATUS_UNSUPPORTED;
    n->content = base_strdup(" ");
    n->content_length = 1;
    t->strip_first = true;
    return n->content ? STATUS_OK
                      : err_set(e, STATUS_NO_MEMORY, "text: no memory for the vocabulary");
}

/* ---- the kinds -------------------------------------------------------------------------------------------------- */

static status make_bpe(text_tokenizer *t, const text_vocab *v, const text_preset *preset, err *e)
{
    t->kind = MODEL_BPE;
    t->byte_level = !preset->raw;
    t->byte_fallback = t->unescape_space = preset->raw;
    t->fuse_unk = true;
    t->ignore_merges = chosen(v->ignore_merges, preset->ignore_merges);
    status s = preset->raw ? add_replace_spaces(t, e) : STATUS_OK;
    for (size_t i = 0; s == STATUS_OK && i < BASE_COUNT(preset->regexes) && preset->regexes[i];
         i++) {
        if (i && i == preset->mapped_from) {
            t->input_mapped = true;
            if (!text_add_step(t, STEP_BYTE_MAP, e))
                return STATUS_UNSUPPORTED;
        }
        s = text_add_split(t, preset->regexes[i], strlen(preset->regexes[i]), SPLIT_ISOLATED, false,
                           e);
    }
    if (s == STATUS_OK)
        s = text_vocab_merges(t, v->n_merges, v->merges, e);
    return s;
}

static status make_sentencepiece_bpe(text_tokenizer *t, const text_vocab *v, err *e)
{
    t->kind = MODEL_BPE;
    t->by_score = t->byte_fallback = t->fuse_unk = t->unescape_space = true;
    status s = text_vocab_ranks(t, e);
    if (s == STATUS_OK && chosen(v->add_space_prefix, true))
        s = add_space_in_front(t, e);
    return s == STATUS_OK ? add_replace_spaces(t, e) : s;
}

static status make_unigram(text_tokenizer *t, const text_vocab *v, err *e)
{
    t->kind = MODEL_UNIGRAM;
    t->fuse_unk = t->unescape_space = true;
    if (!t->scores)
        return err_set(e, STATUS_CORRUPT, "text: a Unigram vocabulary without scores");
    if (v->precompiled_charsmap.length) {
        normal_step *n = text_add_normal(t, NORMAL_CHARSMAP, e);
        status s =
            text_charsmap_check(v->precompiled_charsmap.data, v->precompiled_charsmap.length, e);
        if (!n || s != STATUS_OK)
            return n ? s : STATUS_UNSUPPORTED;
        n->content = base_strndup(v->precompiled_charsmap.data, v->precompiled_charsmap.length);
        n->content_length = v->precompiled_charsmap.length;
        if (!n->content)
            return err_set(e, STATUS_NO_MEMORY, "text: no memory for the vocabulary");
    }
    if (chosen(v->remove_extra_whitespaces, true) && !text_add_normal(t, NORMAL_SQUEEZE, e))
        return STATUS_UNSUPPORTED;
    status s = chosen(v->add_space_prefix, true) ? add_space_in_front(t, e) : STATUS_OK;
    if (s == STATUS_OK)
        s = add_replace_spaces(t, e);
    return s == STATUS_OK ? text_vocab_sort(t, e) : s;
}

static status make_wordpiece(text_tokenizer *t, const text_vocab *v, err *e)
{
    static const char space[] = "\\s", punctuation[] = "[!-/:-@\\[-`{-~\\p{P}]";
    t->kind = MODEL_WORDPIECE;
    t->word_spaces = true;
    t->max_word = 100;
    /* Files are written with "▁word" and "rest" instead of "word" and "##rest". */
    t->word_start = base_strdup(space_mark);
    if (!t->word_start)
        return err_set(e, STATUS_NO_MEMORY, "text: no memory for the vocabulary");
    normal_step *n = text_add_normal(t, NORMAL_BERT, e);
    if (!n)
        return STATUS_UNSUPPORTED;
    n->clean = n->chinese = true;
    n->lowercase = chosen(v->lowercase, true);
    n->strip_accents = chosen(v->strip_accents, n->lowercase);
    status s = text_add_split(t, space, strlen(space), SPLIT_REMOVED, false, e);
    return s == STATUS_OK
               ? text_add_split(t, punctuation, strlen(punctuation), SPLIT_ISOLATED, false, e)
               : s;
}

static status make_affixes(text_tokenizer *t, const text_vocab *v, bool bos, bool eos, bool sep,
                           err *e)
{
    int32_t suffix[2];
    size_t n = 0;
    bos = chosen(v->add_bos, bos) && t->special[TEXT_BOS] >= 0;
    if (chosen(v->add_sep, sep) && t->special[TEXT_SEP] >= 0)
        suffix[n++] = t->special[TEXT_SEP];
    if (chosen(v->add_eos, eos) && t->special[TEXT_EOS] >= 0)
        suffix[n++] = t->special[TEXT_EOS];
    return text_vocab_affix(t, &t->special[TEXT_BOS], bos, suffix, n, e);
}

static const text_preset *find_preset(const text_vocab *v)
{
    const text_preset *preset = text_preset_find(v->pre);
    if (!preset && str_is(v->model, "gemma4"))
        preset = text_preset_find(str_from("gemma4"));
    if (preset)
        return preset;
    if (v->pre.length)
        log_warn("text", "unknown pre-tokeniser \"%.*s\": splitting as default, ids may be wrong",
                 (int)BASE_MIN(v->pre.length, (size_t)60), v->pre.data);
    else
        log_warn("text", "the file names no pre-tokeniser: splitting as default, ids may be wrong");
    return text_preset_at(0);
}

/* Where llama files do not name them, 0, 1 and 2 are unk, bos and eos. */
static void default_llama_specials(text_tokenizer *t)
{
    static const struct {
        text_special which;
        int32_t id;
    } habits[] = {{TEXT_UNK, 0}, {TEXT_BOS, 1}, {TEXT_EOS, 2}};
    for (size_t i = 0; i < BASE_COUNT(habits); i++) {
        int32_t id = habits[i].id;
        if (t->special[habits[i].which] < 0 && id < t->n_tokens &&
            (t->types[id] == TEXT_CONTROL || t->types[id] == TEXT_UNKNOWN))
            t->special[habits[i].which] = id;
    }
}

static status make(text_tokenizer *t, const text_vocab *v, err *e)
{
    status s = text_vocab_set(t, v->n_tokens, v->tokens, v->types, v->scores, e);
    if (s != STATUS_OK)
        return s;
    mark_model_tokens(t);
    set_specials(t, v);
    bool bos = false, eos = false, sep = false;
    if (str_is(v->model, "gpt2") || str_is(v->model, "gemma4")) {
        const text_preset *preset = find_preset(v);
        bos = preset->add_bos || str_is(v->model, "gemma4");
        sep = preset->add_sep;
        s = make_bpe(t, v, preset, e);
    } else if (str_is(v->model, "llama")) {
        default_llama_specials(t);
        bos = true;
        s = make_sentencepiece_bpe(t, v, e);
    } else if (str_is(v->model, "t5")) {
        eos = true;
        s = make_unigram(t, v, e);
    } else if (str_is(v->model, "bert")) {
        bos = sep = true;
        s = make_wordpiece(t, v, e);
    } else {
        s = err_set(
            e, STATUS_UNSUPPORTED,
            "text: tokenizer model \"%.*s\" is not known (gpt2, llama, bert, t5, gemma4 are)",
            (int)BASE_MIN(v->model.length, (size_t)60), v->model.data ? v->model.data : "");
    }
    if (s == STATUS_OK)
        s = text_vocab_finish(t, e);
    if (s == STATUS_OK)
        s = add_found_tokens(t, v, e);
    return s == STATUS_OK ? make_affixes(t, v, bos, eos, sep, e) : s;
}

status text_tokenizer_create(text_tokenizer **out, const text_vocab *v, err *e)
{
    text_tokenizer *t = text_tokenizer_new(e);
    if (!t)
        return STATUS_NO_MEMORY;
    status s = make(t, v, e);
    if (s != STATUS_OK) {
        text_tokenizer_destroy(t);
        return s;
    }
    *out = t;
    return STATUS_OK;
}
