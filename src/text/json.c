/*
 * A tokenizer from a Hugging Face tokenizer.json (and tokenizer_config.json for the names of
 * special tokens): the model, added tokens, and the generic steps, so that an unknown model works
 * from its own file. A step that is not known is an error that names it: wrong tokens would be
 * worse. The decoder section is not run as steps: what matters of it (byte map, U+2581, byte
 * fallback, the first space, WordPiece) is read into facts, and each token's bytes follow from
 * them (vocab.c).
 *
 * Everything in the file is hostile: types are checked, ids bounded, jansson limits the depth.
 */
#include "text/inside.h"
#include "text/unicode.h"

#include <string.h>

#include <jansson.h>

static const char space_mark[] = "\xE2\x96\x81"; /* U+2581 */

typedef struct loader {
    text_tokenizer *t;
    json_t *root, *config;
    bool byte_level_seen;
} loader;

static status no_memory(err *e)
{
    return err_set(e, STATUS_NO_MEMORY, "text: no memory for the vocabulary");
}

/* ---- small readers ---------------------------------------------------------------------------------------------- */

static str as_str(const json_t *j)
{
    if (!json_is_string(j))
        return (str){"", 0};
    return (str){json_string_value(j), json_string_length(j)};
}

static str member_str(const json_t *j, const char *key)
{
    return as_str(json_object_get(j, key));
}

static bool member_bool(const json_t *j, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(j, key);
    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

static bool kind_is(const json_t *j, const char *type)
{
    return str_is(member_str(j, "type"), type);
}

static status copy_str(char **out, str s, err *e)
{
    *out = base_strndup(s.data, s.length);
    return *out ? STATUS_OK : no_memory(e);
}

static status unsupported(err *e, const char *what, const json_t *j)
{
    str type = member_str(j, "type");
    return err_set(e, STATUS_UNSUPPORTED, "text: tokenizer.json: %s \"%.*s\" is not known", what,
                   (int)BASE_MIN(type.length, (size_t)60), type.data);
}

static status malformed(err *e, const char *what)
{
    return err_set(e, STATUS_CORRUPT, "text: tokenizer.json: %s", what);
}

/* ---- patterns --------------------------------------------------------------------------------------------------- */

static void quote(str s, sb *out)
{
    for (size_t i = 0; i < s.length; i++) {
        unsigned char c = (unsigned char)s.data[i];
        if (c < 128 && text_is_punctuation(c))
            sb_putc(out, '\\');
        if (c == 0)
            sb_puts(out, "\\x00");
        else
            sb_putc(out, (char)c);
    }
}

/* {"String": …} or {"Regex": …}, or a plain string. */
static status read_pattern(text_pattern **out, const json_t *j, err *e)
{
    str regex = member_str(j, "Regex"),
        literal = json_is_string(j) ? as_str(j) : member_str(j, "String");
    if (regex.length)
        return text_pattern_compile(out, regex.data, regex.length, e);
    if (!literal.length)
        return malformed(e, "a pattern is neither a String nor a Regex");
    sb quoted = {0};
    quote(literal, &quoted);
    status s =
        quoted.failed ? no_memory(e) : text_pattern_compile(out, quoted.data, quoted.length, e);
    sb_fini(&quoted);
    return s;
}

/* ---- normalisers ------------------------------------------------------------------------------------------------ */

static const signed char base64_values[128] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,
    ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
    ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
    ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63, ['/'] = 64};

static bool base64(str s, sb *out)
{
    uint32_t bits = 0;
    int n = 0;
    for (size_t i = 0; i < s.length && s.data[i] != '='; i++) {
        unsigned char c = (unsigned char)s.data[i];
        if (c >= 128 || !base64_values[c])
            return false;
        bits = bits << 6 | (uint32_t)(base64_values[c] - 1);
        n += 6;
        if (n >= 8) {
            n -= 8;
            sb_putc(out, (char)(bits >> n & 0xFF));
        }
    }
    return true;
}

static status read_charsmap(normal_step *n, const json_t *j, err *e)
{
    sb blob = {0};
    if (!base64(member_str(j, "precompiled_charsmap"), &blob)) {
        sb_fini(&blob);
        return malformed(e, "precompiled_charsmap is not base64");
    }
    n->content_length = blob.length;
    n->content = sb_take(&blob);
    return n->content ? text_charsmap_check(n->content, n->content_length, e) : no_memory(e);
}

static status fill_normaliser(normal_step *n, const json_t *j, err *e)
{
    status s = STATUS_OK;
    str text;
    switch (n->kind) {
    case NORMAL_STRIP:
        n->left = member_bool(j, "strip_left", true);
        n->right = member_bool(j, "strip_right", true);
        break;
    case NORMAL_REPLACE:
        s = read_pattern(&n->pattern, json_object_get(j, "pattern"), e);
        if (s != STATUS_OK)
            return s;
        text = member_str(j, "content");
        n->content_length = text.length;
        s = copy_str(&n->content, text, e);
        break;
    case NORMAL_PREPEND:
        text = member_str(j, "prepend");
        n->content_length = text.length;
        s = copy_str(&n->content, text, e);
        break;
    case NORMAL_BERT:
        n->clean = member_bool(j, "clean_text", true);
        n->chinese = member_bool(j, "handle_chinese_chars", true);
        n->lowercase = member_bool(j, "lowercase", true);
        n->strip_accents = member_bool(j, "strip_accents", n->lowercase);
        break;
    case NORMAL_CHARSMAP:
        s = read_charsmap(n, j, e);
        break;
    default:
        break;
    }
    return s;
}

static status read_normaliser(loader *l, const json_t *j, int depth, err *e)
{
    static const struct {
        const char *type;
        normal_kind kind;
    } kinds[] = {{"NFC", NORMAL_NFC},
                 {"NFD", NORMAL_NFD},
                 {"NFKC", NORMAL_NFKC},
                 {"NFKD", NORMAL_NFKD},
                 {"Lowercase", NORMAL_LOWERCASE},
                 {"StripAccents", NORMAL_STRIP_ACCENTS},
                 {"Strip", NORMAL_STRIP},
                 {"Replace", NORMAL_REPLACE},
                 {"Prepend", NORMAL_PREPEND},
                 {"BertNormalizer", NORMAL_BERT},
                 {"Precompiled", NORMAL_CHARSMAP},
                 {"Nmt", NORMAL_NMT}};
    if (!j || json_is_null(j))
        return STATUS_OK;
    if (kind_is(j, "Sequence")) {
        size_t i;
        json_t *one;
        if (depth > 4)
            return malformed(e, "normalizer sequences are nested too deep");
        json_array_foreach(json_object_get(j, "normalizers"), i, one)
        {
            status s = read_normaliser(l, one, depth + 1, e);
            if (s != STATUS_OK)
                return s;
        }
        return STATUS_OK;
    }
    for (size_t i = 0; i < BASE_COUNT(kinds); i++) {
        if (!kind_is(j, kinds[i].type))
            continue;
        if (kinds[i].kind == NORMAL_CHARSMAP && !member_str(j, "precompiled_charsmap").length)
            return STATUS_OK;
        normal_step *n = text_add_normal(l->t, kinds[i].kind, e);
        return n ? fill_normaliser(n, j, e) : STATUS_UNSUPPORTED;
    }
    return unsupported(e, "normalizer", j);
}

/* ---- pre-tokenisers --------------------------------------------------------------------------------------------- */

static bool read_behavior(str s, split_behavior *out)
{
    static const struct {
        const char *name;
        split_behavior behavior;
    } names[] = {{"Isolated", SPLIT_ISOLATED},
                 {"Removed", SPLIT_REMOVED},
                 {"MergedWithPrevious", SPLIT_WITH_PREVIOUS},
                 {"MergedWithNext", SPLIT_WITH_NEXT},
                 {"Contiguous", SPLIT_CONTIGUOUS}};
    for (size_t i = 0; i < BASE_COUNT(names); i++)
        if (str_is(s, names[i].name)) {
            *out = names[i].behavior;
            return true;
        }
    return false;
}

static status add_regex(loader *l, const char *regex, split_behavior behavior, bool invert, err *e)
{
    return text_add_split(l->t, regex, strlen(regex), behavior, invert, e);
}

static status read_split(loader *l, const json_t *j, err *e)
{
    split_step *s = text_add_step(l->t, STEP_SPLIT, e);
    if (!s)
        return STATUS_UNSUPPORTED;
    if (!read_behavior(member_str(j, "behavior"), &s->behavior))
        return malformed(e, "a Split has an unknown behavior");
    s->invert = member_bool(j, "invert", false);
    return read_pattern(&s->pattern, json_object_get(j, "pattern"), e);
}

static status read_byte_level(loader *l, const json_t *j, err *e)
{
    l->byte_level_seen = true;
    if (member_bool(j, "add_prefix_space", true) && !text_add_step(l->t, STEP_PREFIX_SPACE, e))
        return STATUS_UNSUPPORTED;
    return member_bool(j, "use_regex", true)
               ? add_regex(l, text_gpt2_regex, SPLIT_ISOLATED, false, e)
               : STATUS_OK;
}

static prepend_scheme read_scheme(const json_t *j)
{
    str scheme = member_str(j, "prepend_scheme");
    if (str_is(scheme, "never"))
        return PREPEND_NEVER;
    if (str_is(scheme, "first"))
        return PREPEND_FIRST;
    if (!scheme.length && !member_bool(j, "add_prefix_space", true))
        return PREPEND_NEVER;
    return PREPEND_ALWAYS;
}

static status read_metaspace(loader *l, const json_t *j, err *e)
{
    split_step *s = text_add_step(l->t, STEP_METASPACE, e);
    if (!s)
        return STATUS_UNSUPPORTED;
    str mark = member_str(j, "replacement");
    if (!mark.length)
        mark = str_from(space_mark);
    s->scheme = read_scheme(j);
    status st = copy_str(&s->replacement, mark, e);
    if (st == STATUS_OK && member_bool(j, "split", true)) {
        sb quoted = {0};
        quote(mark, &quoted);
        st = quoted.failed ? no_memory(e)
                           : text_pattern_compile(&s->pattern, quoted.data, quoted.length, e);
        sb_fini(&quoted);
    }
    return st;
}

static status read_simple(loader *l, const json_t *j, err *e)
{
    static const char punctuation[] = "[!-/:-@\\[-`{-~\\p{P}]";
    split_behavior behavior = SPLIT_ISOLATED;
    if (kind_is(j, "Digits"))
        return add_regex(l, member_bool(j, "individual_digits", false) ? "\\p{N}" : "\\p{N}+",
                         SPLIT_ISOLATED, false, e);
    if (kind_is(j, "Punctuation")) {
        str name = member_str(j, "behavior");
        if (name.length && !read_behavior(name, &behavior))
            return malformed(e, "a Punctuation has an unknown behavior");
        return add_regex(l, punctuation, behavior, false, e);
    }
    if (kind_is(j, "Whitespace"))
        return add_regex(l, "\\w+|[^\\w\\s]+", SPLIT_REMOVED, true, e);
    if (kind_is(j, "WhitespaceSplit"))
        return add_regex(l, "\\s", SPLIT_REMOVED, false, e);
    if (kind_is(j, "BertPreTokenizer")) {
        status s = add_regex(l, "\\s", SPLIT_REMOVED, false, e);
        return s == STATUS_OK ? add_regex(l, punctuation, SPLIT_ISOLATED, false, e) : s;
    }
    if (kind_is(j, "CharDelimiterSplit")) {
        split_step *s = text_add_step(l->t, STEP_SPLIT, e);
        if (!s)
            return STATUS_UNSUPPORTED;
        s->behavior = SPLIT_REMOVED;
        return read_pattern(&s->pattern, json_object_get(j, "delimiter"), e);
    }
    return unsupported(e, "pre_tokenizer", j);
}

static status read_pre_tokeniser(loader *l, const json_t *j, int depth, err *e)
{
    if (!j || json_is_null(j))
        return STATUS_OK;
    if (kind_is(j, "Sequence")) {
        size_t i;
        json_t *one;
        if (depth > 4)
            return malformed(e, "pre_tokenizer sequences are nested too deep");
        json_array_foreach(json_object_get(j, "pretokenizers"), i, one)
        {
            status s = read_pre_tokeniser(l, one, depth + 1, e);
            if (s != STATUS_OK)
                return s;
        }
        return STATUS_OK;
    }
    if (l->byte_level_seen && !l->t->input_mapped) {
        /* Something follows ByteLevel: it sees the mapped characters. */
        if (!text_add_step(l->t, STEP_BYTE_MAP, e))
            return STATUS_UNSUPPORTED;
        l->t->input_mapped = true;
    }
    if (kind_is(j, "ByteLevel"))
        return l->byte_level_seen ? unsupported(e, "second pre_tokenizer", j)
                                  : read_byte_level(l, j, e);
    if (kind_is(j, "Split"))
        return read_split(l, j, e);
    if (kind_is(j, "Metaspace"))
        return read_metaspace(l, j, e);
    return read_simple(l, j, e);
}

/* ---- decoder: facts --------------------------------------------------------------------------------------------- */

static void read_decoder(loader *l, const json_t *j, int depth)
{
    text_tokenizer *t = l->t;
    size_t i;
    json_t *one;
    if (kind_is(j, "Sequence") && depth < 4) {
        json_array_foreach(json_object_get(j, "decoders"), i, one) read_decoder(l, one, depth + 1);
    } else if (kind_is(j, "ByteLevel")) {
        t->byte_level = true;
    } else if (kind_is(j, "Metaspace")) {
        t->unescape_space = true;
        t->strip_first |= read_scheme(j) != PREPEND_NEVER;
    } else if (kind_is(j, "Replace")) {
        const json_t *pattern = json_object_get(j, "pattern");
        if (str_is(member_str(pattern, "String"), space_mark) &&
            str_is(member_str(j, "content"), " "))
            t->unescape_space = true;
    } else if (kind_is(j, "Strip")) {
        t->strip_first |= str_is(member_str(j, "content"), " ") &&
                          json_integer_value(json_object_get(j, "start")) > 0;
    } else if (kind_is(j, "WordPiece")) {
        t->word_spaces = true;
    }
}

/* ---- vocabulary ------------------------------------------------------------------------------------------------- */

typedef struct tables {
    str *tokens;
    int32_t *types;
    float *scores;
    bool *in_model;
    size_t n;
} tables;

static void tables_fini(tables *v)
{
    base_free(v->tokens);
    base_free(v->types);
    base_free(v->scores);
    base_free(v->in_model);
}

/* One more than the largest id anywhere; 0 with e set when ids are senseless. */
static size_t count_ids(const json_t *vocab, const json_t *added, err *e)
{
    size_t count = (json_is_array(vocab) ? json_array_size(vocab) : json_object_size(vocab)) +
                   json_array_size(added),
           i;
    json_int_t highest = json_is_array(vocab) ? (json_int_t)json_array_size(vocab) - 1 : -1;
    json_t *one;
    const char *key;
    if (json_is_object(vocab))
        json_object_foreach((json_t *)vocab, key, one)
        {
            if (!json_is_integer(one) || json_integer_value(one) < 0) {
                err_set(e, STATUS_CORRUPT,
                        "text: tokenizer.json: the id of \"%.60s\" is not a number from 0", key);
                return 0;
            }
            highest = BASE_MAX(highest, json_integer_value(one));
        }
    json_array_foreach(added, i, one)
    {
        json_int_t id = json_integer_value(json_object_get(one, "id"));
        if (!json_is_integer(json_object_get(one, "id")) || id < 0 ||
            !json_is_string(json_object_get(one, "content"))) {
            err_set(e, STATUS_CORRUPT, "text: tokenizer.json: added token %zu has no id or content",
                    i);
            return 0;
        }
        highest = BASE_MAX(highest, id);
    }
    if (highest < 0 || (uint64_t)highest > 8 * (uint64_t)count + 65536 || highest >= 1 << 24) {
        err_set(e, STATUS_CORRUPT, "text: tokenizer.json: %zu tokens with ids up to %lld", count,
                (long long)highest);
        return 0;
    }
    return (size_t)highest + 1;
}

static status fill_tokens(tables *v, const json_t *vocab, err *e)
{
    json_t *one;
    size_t i;
    const char *key;
    if (json_is_object(vocab)) {
        size_t length;
        json_object_keylen_foreach((json_t *)vocab, key, length, one)
        {
            json_int_t id = json_integer_value(one);
            if (v->in_model[id])
                return err_set(e, STATUS_CORRUPT,
                               "text: tokenizer.json: two tokens have the id %lld", (long long)id);
            v->tokens[id] = (str){key, length};
            v->in_model[id] = true;
        }
        return STATUS_OK;
    }
    json_array_foreach(vocab, i, one)
    {
        const json_t *score = json_array_get(one, 1);
        if (!json_is_string(json_array_get(one, 0)) || !json_is_number(score))
            return err_set(e, STATUS_CORRUPT,
                           "text: tokenizer.json: token %zu is not [text, score]", i);
        v->tokens[i] = as_str(json_array_get(one, 0));
        v->scores[i] = (float)json_number_value(score);
        v->in_model[i] = true;
    }
    return STATUS_OK;
}

static status read_tables(tables *v, const json_t *vocab, const json_t *added, bool byte_fallback,
                          err *e)
{
    json_t *one;
    size_t i;
    if (!json_is_object(vocab) && !json_is_array(vocab))
        return malformed(e, "model.vocab is neither an object nor an array");
    v->n = count_ids(vocab, added, e);
    if (!v->n)
        return STATUS_CORRUPT;
    v->tokens = base_zalloc(v->n, sizeof *v->tokens);
    v->types = base_zalloc(v->n, sizeof *v->types);
    v->scores = json_is_array(vocab) ? base_zalloc(v->n, sizeof *v->scores) : NULL;
    v->in_model = base_zalloc(v->n, sizeof *v->in_model);
    if (!v->tokens || !v->types || !v->in_model || (json_is_array(vocab) && !v->scores))
        return no_memory(e);
    status s = fill_tokens(v, vocab, e);
    if (s != STATUS_OK)
        return s;
    for (i = 0; i < v->n; i++) {
        v->types[i] = v->in_model[i] ? TEXT_NORMAL : TEXT_UNUSED;
        if (byte_fallback && v->tokens[i].length == 6 && !memcmp(v->tokens[i].data, "<0x", 3))
            v->types[i] = TEXT_BYTE;
    }
    json_array_foreach(added, i, one)
    {
        size_t id = (size_t)json_integer_value(json_object_get(one, "id"));
        v->tokens[id] = member_str(one, "content");
        v->types[id] = member_bool(one, "special", false) ? TEXT_CONTROL : TEXT_USER_DEFINED;
    }
    return STATUS_OK;
}

static str part(const json_t *j, size_t i)
{
    return as_str(json_array_get(j, i));
}

static status read_merges(text_tokenizer *t, const json_t *merges, err *e)
{
    size_t n = json_array_size(merges), i;
    bool paired = json_is_array(json_array_get(merges, 0));
    json_t *one;
    str *list = base_zalloc(n + 1, 2 * sizeof *list);
    if (!list)
        return no_memory(e);
    status s = STATUS_OK;
    json_array_foreach(merges, i, one)
    {
        if (paired
                ? !json_is_string(json_array_get(one, 0)) || !json_is_string(json_array_get(one, 1))
                : !json_is_string(one)) {
            s = err_set(e, STATUS_CORRUPT, "text: tokenizer.json: merge %zu is not like the first",
                        i);
            break;
        }
        if (paired) {
            list[2 * i] = part(one, 0);
            list[2 * i + 1] = part(one, 1);
        } else {
            list[i] = as_str(one);
        }
    }
    if (s == STATUS_OK)
        s = paired ? text_vocab_merge_pairs(t, n, list, e) : text_vocab_merges(t, n, list, e);
    base_free(list);
    return s;
}

static status optional_str(char **out, const json_t *j, const char *key, err *e)
{
    str s = member_str(j, key);
    return s.length ? copy_str(out, s, e) : STATUS_OK;
}

static bool has_special(text_tokenizer *t, text_special which, str piece)
{
    int32_t id = piece.length ? text_find_bytes(t, piece.data, piece.length) : -1;
    if (id >= 0 && t->special[which] < 0)
        t->special[which] = id;
    return id >= 0;
}

static status read_bpe(loader *l, const json_t *model, err *e)
{
    text_tokenizer *t = l->t;
    t->kind = MODEL_BPE;
    t->ignore_merges = member_bool(model, "ignore_merges", false);
    t->fuse_unk = member_bool(model, "fuse_unk", false);
    status s = optional_str(&t->continuing, model, "continuing_subword_prefix", e);
    if (s == STATUS_OK)
        s = optional_str(&t->end_of_word, model, "end_of_word_suffix", e);
    return s == STATUS_OK ? read_merges(t, json_object_get(model, "merges"), e) : s;
}

static status read_unigram(loader *l, const json_t *model, err *e)
{
    text_tokenizer *t = l->t;
    const json_t *unk = json_object_get(model, "unk_id");
    t->kind = MODEL_UNIGRAM;
    t->fuse_unk = true;
    if (!t->scores)
        return malformed(e, "a Unigram vocabulary must be an array");
    if (json_is_integer(unk)) {
        json_int_t id = json_integer_value(unk);
        if (id < 0 || id >= t->n_tokens)
            return malformed(e, "unk_id is not in the vocabulary");
        t->special[TEXT_UNK] = (int32_t)id;
        if (t->types[id] == TEXT_NORMAL)
            t->types[id] = TEXT_UNKNOWN;
    }
    return text_vocab_sort(t, e);
}

static status read_wordpiece(loader *l, const json_t *model, err *e)
{
    text_tokenizer *t = l->t;
    const json_t *most = json_object_get(model, "max_input_chars_per_word");
    t->kind = MODEL_WORDPIECE;
    t->max_word = json_is_integer(most) && json_integer_value(most) > 0
                      ? (size_t)BASE_MIN(json_integer_value(most), 1000)
                      : 100;
    t->word_spaces = true;
    return optional_str(&t->continuing, model, "continuing_subword_prefix", e);
}

/* Old files leave the type out. */
static const char *model_type(const json_t *model)
{
    str type = member_str(model, "type");
    if (type.length)
        return type.data;
    if (json_object_get(model, "merges"))
        return "BPE";
    if (json_is_array(json_object_get(model, "vocab")))
        return "Unigram";
    return json_object_get(model, "max_input_chars_per_word") ? "WordPiece" : "WordLevel";
}

static status read_model(loader *l, err *e)
{
    text_tokenizer *t = l->t;
    const json_t *model = json_object_get(l->root, "model"),
                 *added = json_object_get(l->root, "added_tokens");
    tables v = {0};
    t->byte_fallback = member_bool(model, "byte_fallback", false);
    status s = read_tables(&v, json_object_get(model, "vocab"), added, t->byte_fallback, e);
    if (s == STATUS_OK)
        s = text_vocab_set(t, v.n, v.tokens, v.types, v.scores, e);
    for (size_t i = 0; s == STATUS_OK && i < v.n; i++)
        if (v.in_model[i] && v.types[i] != TEXT_CONTROL && v.types[i] != TEXT_BYTE)
            t->token_flags[i] |= TOKEN_IN_MODEL;
    tables_fini(&v);
    if (s != STATUS_OK)
        return s;
    has_special(t, TEXT_UNK, member_str(model, "unk_token"));
    const char *type = model_type(model);
    if (!strcmp(type, "BPE"))
        return read_bpe(l, model, e);
    if (!strcmp(type, "Unigram"))
        return read_unigram(l, model, e);
    if (!strcmp(type, "WordPiece"))
        return read_wordpiece(l, model, e);
    if (strcmp(type, "WordLevel") != 0)
        return unsupported(e, "model", model);
    t->kind = MODEL_WORDLEVEL;
    return STATUS_OK;
}

/* ---- added and special tokens ----------------------------------------------------------------------------------- */

static status normalise_added(text_tokenizer *t, added_token *a, err *e)
{
    str normal;
    text_scratch *s = NULL;
    status st = text_scratch_create(&s, e);
    if (st != STATUS_OK)
        return st;
    s->budget = 1000000;
    st = text_normalise(t, s, a->text, a->length, &normal, e);
    if (st == STATUS_OK) {
        a->text = arena_strndup(&t->memory, normal.data, normal.length);
        a->length = (uint32_t)normal.length;
        if (!a->text)
            st = no_memory(e);
    }
    text_scratch_destroy(s);
    return st;
}

static status read_added(loader *l, err *e)
{
    const json_t *added = json_object_get(l->root, "added_tokens");
    size_t n = json_array_size(added), i, n_plain = 0, n_normal = 0;
    json_t *one;
    added_token *plain = base_zalloc(n + 1, sizeof *plain),
                *normal = base_zalloc(n + 1, sizeof *normal);
    status s = plain && normal ? STATUS_OK : no_memory(e);
    json_array_foreach(added, i, one)
    {
        if (s != STATUS_OK)
            break;
        str content = member_str(one, "content");
        added_token a = {.text = content.data,
                         .length = (uint32_t)content.length,
                         .id = (int32_t)json_integer_value(json_object_get(one, "id")),
                         .special = member_bool(one, "special", false),
                         .lstrip = member_bool(one, "lstrip", false),
                         .rstrip = member_bool(one, "rstrip", false),
                         .single_word = member_bool(one, "single_word", false)};
        if (!member_bool(one, "normalized", !a.special)) {
            plain[n_plain++] = a;
        } else {
            normal[n_normal] = a;
            if (l->t->n_normal)
                s = normalise_added(l->t, &normal[n_normal], e);
            n_normal++;
        }
    }
    if (s == STATUS_OK)
        s = text_added_make(l->t, &l->t->added, plain, n_plain, e);
    if (s == STATUS_OK)
        s = text_added_make(l->t, &l->t->added_normalised, normal, n_normal, e);
    base_free(plain);
    base_free(normal);
    return s;
}

/* "bos_token": "<s>" or {"content": "<s>"}. */
static str config_token(const json_t *config, const char *key)
{
    const json_t *j = json_object_get(config, key);
    return json_is_object(j) ? member_str(j, "content") : as_str(j);
}

static void read_specials(loader *l)
{
    static const struct {
        const char *key;
        text_special which;
    } keys[] = {{"bos_token", TEXT_BOS},   {"cls_token", TEXT_BOS}, {"eos_token", TEXT_EOS},
                {"sep_token", TEXT_SEP},   {"unk_token", TEXT_UNK}, {"pad_token", TEXT_PAD},
                {"mask_token", TEXT_MASK}, {"eot_token", TEXT_EOT}};
    for (size_t i = 0; i < BASE_COUNT(keys); i++)
        has_special(l->t, keys[i].which, config_token(l->config, keys[i].key));
}

/* ---- the post-processor: what stands before and behind the text -------------------------------------------------- */

typedef struct affixes {
    int32_t ids[2][16]; /* before, behind */
    size_t n[2];
    bool found;
} affixes;

static status put_affix(affixes *a, int side, const json_t *id, err *e)
{
    if (!json_is_integer(id) || a->n[side] == BASE_COUNT(a->ids[0]))
        return malformed(e, "post_processor names too many special tokens, or one without id");
    json_int_t v = json_integer_value(id);
    a->ids[side][a->n[side]++] = v < 0 || v > INT32_MAX ? -1 : (int32_t)v;
    return STATUS_OK;
}

static status read_template(affixes *a, const json_t *j, err *e)
{
    size_t i, k;
    json_t *one, *id;
    int side = 0;
    a->found = true;
    a->n[0] = a->n[1] = 0;
    json_array_foreach(json_object_get(j, "single"), i, one)
    {
        const json_t *special = json_object_get(one, "SpecialToken");
        if (!special) {
            side = 1;
            continue;
        }
        const json_t *named =
            json_object_get(json_object_get(j, "special_tokens"), member_str(special, "id").data);
        if (!json_is_array(json_object_get(named, "ids")))
            return malformed(e, "post_processor names a special token that it does not list");
        json_array_foreach(json_object_get(named, "ids"), k, id)
        {
            status s = put_affix(a, side, id, e);
            if (s != STATUS_OK)
                return s;
        }
    }
    return STATUS_OK;
}

static status read_post_processor(affixes *a, const json_t *j, int depth, err *e)
{
    size_t i;
    json_t *one;
    status s = STATUS_OK;
    if (!j || json_is_null(j) || kind_is(j, "ByteLevel"))
        return STATUS_OK;
    if (kind_is(j, "Sequence") && depth < 4) {
        json_array_foreach(json_object_get(j, "processors"), i, one)
        {
            s = read_post_processor(a, one, depth + 1, e);
            if (s != STATUS_OK)
                return s;
        }
        return s;
    }
    if (kind_is(j, "TemplateProcessing"))
        return read_template(a, j, e);
    if (kind_is(j, "BertProcessing") || kind_is(j, "RobertaProcessing")) {
        a->found = true;
        s = put_affix(a, 0, json_array_get(json_object_get(j, "cls"), 1), e);
        return s == STATUS_OK ? put_affix(a, 1, json_array_get(json_object_get(j, "sep"), 1), e)
                              : s;
    }
    return unsupported(e, "post_processor", j);
}

static status read_affixes(loader *l, err *e)
{
    affixes a = {0};
    const text_tokenizer *t = l->t;
    status s = read_post_processor(&a, json_object_get(l->root, "post_processor"), 0, e);
    if (s != STATUS_OK)
        return s;
    if (!a.found) {
        if (member_bool(l->config, "add_bos_token", false) && t->special[TEXT_BOS] >= 0)
            a.ids[0][a.n[0]++] = t->special[TEXT_BOS];
        if (member_bool(l->config, "add_eos_token", false) && t->special[TEXT_EOS] >= 0)
            a.ids[1][a.n[1]++] = t->special[TEXT_EOS];
    }
    /* A file may leave the names to its template: the only token in front is BOS. */
    if (a.n[0] == 1 && t->special[TEXT_BOS] < 0 && a.ids[0][0] < t->n_tokens)
        l->t->special[TEXT_BOS] = a.ids[0][0];
    return text_vocab_affix(l->t, a.ids[0], a.n[0], a.ids[1], a.n[1], e);
}

/* ---- all of it -------------------------------------------------------------------------------------------------- */

static status load(loader *l, err *e)
{
    text_tokenizer *t = l->t;
    status s = read_normaliser(l, json_object_get(l->root, "normalizer"), 0, e);
    if (s == STATUS_OK)
        s = read_pre_tokeniser(l, json_object_get(l->root, "pre_tokenizer"), 0, e);
    if (s == STATUS_OK)
        s = read_model(l, e);
    if (s != STATUS_OK)
        return s;
    read_decoder(l, json_object_get(l->root, "decoder"), 0);
    t->byte_level |= l->byte_level_seen;
    if (t->kind == MODEL_WORDPIECE || t->kind == MODEL_WORDLEVEL)
        t->byte_level = false;
    read_specials(l);
    s = text_vocab_finish(t, e);
    if (s == STATUS_OK)
        s = read_added(l, e);
    return s == STATUS_OK ? read_affixes(l, e) : s;
}

static json_t *parse(str bytes, const char *name, err *e)
{
    json_error_t error;
    json_t *j = json_loadb(bytes.data, bytes.length, JSON_ALLOW_NUL, &error);
    if (!j) {
        err_set(e, STATUS_CORRUPT, "text: %s: %s at line %d, column %d", name, error.text,
                error.line, error.column);
    } else if (!json_is_object(j)) {
        err_set(e, STATUS_CORRUPT, "text: %s: expected an object", name);
        json_decref(j);
        j = NULL;
    }
    return j;
}

status text_tokenizer_from_json(text_tokenizer **out, str json, str config, err *e)
{
    loader l = {0};
    status s = STATUS_CORRUPT;
    l.root = parse(json, "tokenizer.json", e);
    l.config = config.length ? parse(config, "tokenizer_config.json", e) : json_object();
    if (!l.root || !l.config)
        goto done;
    l.t = text_tokenizer_new(e);
    s = l.t ? load(&l, e) : STATUS_NO_MEMORY;
    if (s == STATUS_OK) {
        *out = l.t;
        l.t = NULL;
    }
done:
    text_tokenizer_destroy(l.t);
    json_decref(l.root);
    json_decref(l.config);
    return s;
}
