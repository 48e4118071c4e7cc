/*
 * Tokenizers from plain arrays, each model against a slow reference written here: BPE by merges
 * and by score (join the best pair until none is left), Unigram (all segmentations), WordPiece by
 * hand. Then what must hold for every input: bytes in = bytes out for byte-level vocabularies,
 * work that grows like the text for hostile texts, errors for senseless files, no leak when memory
 * runs out.
 */
#include "text/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>

#include "text_gguf.h"

static uint64_t seed = 0x2545F4914F6CDD1Du;

static uint32_t next_random(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 33) % below;
}

static str read_data(const char *name)
{
    char path[512];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/text/%s.json", TEST_DATA, name);
    char *p = gguf_read_file(path, &n);
    if (!p)
        fail_msg("%s is missing", path);
    return (str){p, n};
}

static text_tokenizer *load(const char *name)
{
    str json = read_data(name);
    text_tokenizer *t = NULL;
    err e;
    if (text_tokenizer_from_json(&t, json, (str){0}, &e) != STATUS_OK)
        fail_msg("%s: %s", name, e.text);
    base_free((char *)json.data);
    return t;
}

static void encode(const text_tokenizer *t, text_scratch *s, const char *p, size_t n, int flags,
                   text_ids *out)
{
    err e;
    out->n = 0;
    if (text_encode(t, s, p, n, flags, out, &e) != STATUS_OK)
        fail_msg("%s", e.text);
}

static void expect(const text_tokenizer *t, const char *text, int flags, const char *pieces)
{
    text_ids ids = {0};
    sb got = {0};
    encode(t, NULL, text, strlen(text), flags, &ids);
    for (size_t i = 0; i < ids.n; i++) {
        str piece = text_token_piece(t, ids.ids[i]);
        sb_puts(&got, i ? "," : "");
        sb_add(&got, piece.data, piece.length);
    }
    assert_string_equal(got.data ? got.data : "", pieces);
    sb_fini(&got);
    text_ids_fini(&ids);
}

/* ---- arrays like those of a file --------------------------------------------------------------------------------- */

typedef struct arrays {
    text_vocab v;
    str tokens[1024];
    float scores[1024];
    int32_t types[1024];
    char bytes[256][8];
} arrays;

static void arrays_init(arrays *a, const char *model)
{
    memset(a, 0, sizeof *a);
    text_vocab_init(&a->v);
    a->v.model = str_from(model);
    a->v.tokens = a->tokens;
    a->v.types = a->types;
    a->v.scores = a->scores;
}

static void add(arrays *a, const char *piece, int32_t type, float score)
{
    a->tokens[a->v.n_tokens] = str_from(piece);
    a->types[a->v.n_tokens] = type;
    a->scores[a->v.n_tokens++] = score;
}

static text_tokenizer *make(const arrays *a)
{
    text_tokenizer *t = NULL;
    err e;
    if (text_tokenizer_create(&t, &a->v, &e) != STATUS_OK)
        fail_msg("%s", e.text);
    return t;
}

static void add_sentencepiece(arrays *a)
{
    static const struct {
        const char *piece;
        float score;
    } pieces[] = {{"ab", -1},
                  {"ba", -2},
                  {"\342\226\201a", -3},
                  {"aa", -3},
                  {"\342\226\201ab", -4},
                  {"aba", -5},
                  {"abab", -6},
                  {"bb", -7},
                  {"aab", -7},
                  {"\xE2\x96\x81\xE2\x96\x81", -8},
                  {"b\xC3\xA9", -9},
                  {"\303\251a", -9},
                  {"xy", -10},
                  {"\xE2\x96\x81", -20},
                  {"a", -21},
                  {"b", -22},
                  {"\xC3\xA9", -23},
                  {"c", -24}};
    add(a, "<unk>", TEXT_UNKNOWN, 0);
    add(a, "<s>", TEXT_CONTROL, 0);
    add(a, "</s>", TEXT_CONTROL, 0);
    for (int b = 0; b < 256; b++) {
        snprintf(a->bytes[b], sizeof a->bytes[b], "<0x%02X>", b);
        add(a, a->bytes[b], TEXT_BYTE, 0);
    }
    for (size_t i = 0; i < BASE_COUNT(pieces); i++)
        add(a, pieces[i].piece, TEXT_NORMAL, pieces[i].score);
    add(a, "<tool>", TEXT_USER_DEFINED, 0);
}

/* ---- SentencePiece BPE against the definition -------------------------------------------------------------------- */

/* Joins the neighbours whose joined text has the best score, leftmost first, until none has one. */
static void reference_by_score(const arrays *a, const text_tokenizer *t, const char *p, size_t n,
                               text_ids *out)
{
    size_t begin[512], count = 0;
    err e;
    for (size_t i = 0; i < n;) {
        int length = text_utf8_length(p + i, n - i);
        begin[count++] = i;
        i += length ? (size_t)length : 1;
    }
    begin[count] = n;
    for (;;) {
        size_t best = count;
        float score = 0;
        for (size_t i = 0; i + 1 < count; i++) {
            int32_t id = text_find_bytes(t, p + begin[i], begin[i + 2] - begin[i]);
            if (id >= 0 && a->types[id] == TEXT_NORMAL &&
                (best == count || a->scores[id] > score)) {
                best = i;
                score = a->scores[id];
            }
        }
        if (best == count)
            break;
        memmove(begin + best + 1, begin + best + 2, (count - best - 1) * sizeof *begin);
        count--;
    }
    for (size_t i = 0; i < count; i++) {
        int32_t id = text_find_bytes(t, p + begin[i], begin[i + 1] - begin[i]);
        if (id >= 0) {
            text_ids_add(out, id, &e);
            continue;
        }
        for (size_t k = begin[i]; k < begin[i + 1]; k++)
            text_ids_add(out, 3 + (unsigned char)p[k], &e);
    }
}

static void test_sentencepiece_bpe(void **state)
{
    static const char *const letters[] = {
        "a", "a", "b", "b", " ", "c", "\xC3\xA9", "x", "y", "\xE4\xB8\xAD", "\xFF"};
    static arrays a;
    text_scratch *s = NULL;
    err e;
    (void)state;
    arrays_init(&a, "llama");
    add_sentencepiece(&a);
    text_tokenizer *t = make(&a);
    assert_string_equal(text_model_name(t), "SentencePiece BPE");
    assert_int_equal(text_special_id(t, TEXT_BOS), 1); /* the habit of llama files */
    assert_int_equal(text_special_id(t, TEXT_EOS), 2);
    assert_int_equal(text_special_id(t, TEXT_UNK), 0);
    expect(t, "ab", 0, "\342\226\201ab");
    expect(t, "ab", TEXT_ADD_SPECIAL, "<s>,\342\226\201ab");
    expect(t, "", TEXT_ADD_SPECIAL, "<s>");
    expect(t, "c\n", 0, "\xE2\x96\x81,c,<0x0A>");
    expect(t, "</s>c", TEXT_PARSE_SPECIAL,
           "</s>,\xE2\x96\x81,c"); /* a space in front behind special tokens too */
    expect(t, "c<tool>c", 0, "\xE2\x96\x81,c,<tool>,\xE2\x96\x81,c");
    assert_int_equal(text_scratch_create(&s, &e), STATUS_OK);
    for (int round = 0; round < 3000; round++) {
        sb text = {0}, marked = {0};
        text_ids want = {0}, got = {0};
        for (uint32_t k = 1 + next_random(40); k; k--)
            sb_puts(&text, letters[next_random((uint32_t)BASE_COUNT(letters))]);
        sb_puts(&marked, "\xE2\x96\x81");
        for (size_t i = 0; i < text.length; i++)
            sb_add(&marked, text.data[i] == ' ' ? "\xE2\x96\x81" : text.data + i,
                   text.data[i] == ' ' ? 3 : 1);
        reference_by_score(&a, t, marked.data, marked.length, &want);
        encode(t, s, text.data, text.length, 0, &got);
        if (got.n != want.n || memcmp(got.ids, want.ids, want.n * sizeof *want.ids) != 0)
            fail_msg("\"%s\"", text.data);
        sb back = {0};
        assert_int_equal(text_decode(t, got.ids, got.n, TEXT_AT_START, &back, &e), STATUS_OK);
        assert_int_equal(back.length, text.length);
        assert_memory_equal(back.data, text.data, text.length);
        sb_fini(&back);
        sb_fini(&text);
        sb_fini(&marked);
        text_ids_fini(&want);
        text_ids_fini(&got);
    }
    text_scratch_destroy(s);
    text_tokenizer_destroy(t);
    a.v.add_space_prefix = 0;
    a.v.add_bos = 0;
    t = make(&a);
    expect(t, "ab", TEXT_ADD_SPECIAL, "ab");
    text_tokenizer_destroy(t);
}

/* Phi-3: a control token takes the white space behind it, bos and tokens of users do not. */
static void test_control_tokens_that_strip(void **state)
{
    static const char text[] = "<s> c</s>\n \tc</s> <tool> c";
    static arrays a;
    (void)state;
    arrays_init(&a, "llama");
    add_sentencepiece(&a);
    text_tokenizer *t = make(&a);
    expect(t, "c</s>\nc", TEXT_PARSE_SPECIAL, "\xE2\x96\x81,c,</s>,\xE2\x96\x81,<0x0A>,c");
    text_tokenizer_destroy(t);
    a.v.strip_behind_control = true;
    t = make(&a);
    expect(t, "c</s>\nc", TEXT_PARSE_SPECIAL, "\xE2\x96\x81,c,</s>,\xE2\x96\x81,c");
    expect(t, text, TEXT_PARSE_SPECIAL,
           "<s>,\xE2\x96\x81\xE2\x96\x81,c,</s>,\xE2\x96\x81,c,</s>,<tool>,"
           "\xE2\x96\x81\xE2\x96\x81,c");
    expect(t, "</s> c", 0, "\xE2\x96\x81,<0x3C>,<0x2F>,<0x73>,<0x3E>,\xE2\x96\x81,c");
    text_tokenizer_destroy(t);
}

/* ---- byte-level BPE ---------------------------------------------------------------------------------------------- */

/* The vocabulary of tests/data/text/NAME.json as a GGUF file would hold it. */
static text_tokenizer *as_gguf(const char *name, const char *pre, const json_t **keep_merges,
                               json_t **root)
{
    static arrays a;
    static str merges[1024];
    str json = read_data(name);
    const char *key;
    json_t *id, *one;
    size_t i;
    *root = json_loadb(json.data, json.length, JSON_ALLOW_NUL, NULL);
    base_free((char *)json.data);
    const json_t *model = json_object_get(*root, "model");
    arrays_init(&a, "gpt2");
    a.v.pre = str_from(pre);
    a.v.scores = NULL;
    json_object_foreach(json_object_get(model, "vocab"), key, id)
    {
        a.tokens[json_integer_value(id)] = str_from(key);
        a.types[json_integer_value(id)] = TEXT_NORMAL;
        a.v.n_tokens++;
    }
    json_array_foreach(json_object_get(*root, "added_tokens"), i, one)
    {
        json_int_t at = json_integer_value(json_object_get(one, "id"));
        a.tokens[at] = str_from(json_string_value(json_object_get(one, "content")));
        a.types[at] =
            json_is_true(json_object_get(one, "special")) ? TEXT_CONTROL : TEXT_USER_DEFINED;
        a.v.n_tokens++;
    }
    *keep_merges = json_object_get(model, "merges");
    json_array_foreach(*keep_merges, i, one) merges[i] = str_from(json_string_value(one));
    a.v.merges = merges;
    a.v.n_merges = json_array_size(*keep_merges);
    return make(&a);
}

static void test_same_from_both(void **state)
{
    static const char *const pairs[][2] = {
        {"llama3", "llama-bpe"}, {"o200k", "gpt-4o"}, {"deepseek", "deepseek-v3"}};
    str all = read_data("texts");
    json_t *texts = json_loadb(all.data, all.length, JSON_ALLOW_NUL, NULL);
    (void)state;
    base_free((char *)all.data);
    for (size_t k = 0; k < BASE_COUNT(pairs); k++) {
        const json_t *merges;
        json_t *root;
        text_tokenizer *a = as_gguf(pairs[k][0], pairs[k][1], &merges, &root),
                       *b = load(pairs[k][0]);
        text_ids x = {0}, y = {0};
        for (size_t i = 0; i < json_array_size(texts); i++) {
            const json_t *text = json_array_get(texts, i);
            if (strstr(json_string_value(text), "<mask>"))
                continue; /* lstrip, which a GGUF file cannot say */
            encode(a, NULL, json_string_value(text), json_string_length(text), TEXT_PARSE_SPECIAL,
                   &x);
            encode(b, NULL, json_string_value(text), json_string_length(text), TEXT_PARSE_SPECIAL,
                   &y);
            assert_int_equal(x.n, y.n);
            if (x.n)
                assert_memory_equal(x.ids, y.ids, x.n * sizeof *x.ids);
        }
        text_ids_fini(&x);
        text_ids_fini(&y);
        text_tokenizer_destroy(a);
        text_tokenizer_destroy(b);
        json_decref(root);
    }
    json_decref(texts);
}

/* Joins the pair of the earliest merge, leftmost first. p is one word with Ġ for its space. */
static void reference_by_merges(const json_t *merges, const text_tokenizer *t, const char *p,
                                text_ids *out)
{
    size_t begin[512], count = 0, i, at = 0;
    err e;
    for (size_t k = 0; k < strlen(p); k += p[k] == '\xC4' ? 2 : 1)
        begin[count++] = k;
    begin[count] = strlen(p);
    do {
        json_t *one;
        at = count;
        json_array_foreach(merges, i, one)
        {
            const char *left = json_string_value(one), *right = strchr(left, ' ') + 1;
            size_t n = (size_t)(right - 1 - left), m = strlen(right);
            for (at = 0; at + 1 < count; at++)
                if (begin[at + 1] - begin[at] == n && begin[at + 2] - begin[at + 1] == m &&
                    !memcmp(p + begin[at], left, n) && !memcmp(p + begin[at + 1], right, m))
                    break;
            if (at + 1 < count)
                break;
        }
        if (at + 1 < count) {
            memmove(begin + at + 1, begin + at + 2, (count - at - 1) * sizeof *begin);
            count--;
        }
    } while (i < json_array_size(merges)); /* one was joined */
    for (i = 0; i < count; i++)
        text_ids_add(out, text_find_bytes(t, p + begin[i], begin[i + 1] - begin[i]), &e);
}

static void test_merges(void **state)
{
    static const char letters[] = "aaeeiinnttthhrrsslldmochpnguwyb";
    const json_t *merges;
    json_t *root;
    text_tokenizer *t = as_gguf("o200k", "gpt-2", &merges, &root);
    (void)state;
    for (int round = 0; round < 250;
         round++) { /* short ones walk the list, long ones use the heap */
        char word[128] = " ";
        size_t n = 1 + next_random(round % 2 ? 12 : 110);
        for (size_t i = 1; i <= n; i++)
            word[i] = letters[next_random(sizeof letters - 1)];
        word[n + 1] = '\0';
        text_ids want = {0}, got = {0};
        char mapped[160];
        snprintf(mapped, sizeof mapped, "\xC4\xA0%s", word + 1);
        reference_by_merges(merges, t, mapped, &want);
        encode(t, NULL, word, strlen(word), 0, &got);
        if (got.n != want.n || memcmp(got.ids, want.ids, want.n * sizeof *want.ids) != 0)
            fail_msg("\"%s\"", word);
        text_ids_fini(&want);
        text_ids_fini(&got);
    }
    text_tokenizer_destroy(t);
    json_decref(root);
}

static void test_presets_by_name(void **state)
{
    static const char *const names[] = {"default", "gpt-2",        "llama-bpe",      "qwen2",
                                        "qwen35",  "deepseek-llm", "deepseek-coder", "deepseek-v3",
                                        "gpt-4o",  "kimi-k2",      "glm4",           "minimax-m2",
                                        "falcon",  "refact",       "starcoder",      "mpt",
                                        "tekken",  "command-r",    "no-such-one",    ""};
    static const char text[] =
        "It's 12345 Words, HTTPServer don't \xE4\xB8\xAD\xE6\x96\x87\xE3\x81\xAE "
        "x\xCC\x81y\r\n\r\n  end \xF0\x9F\x99\x82!? ";
    (void)state;
    for (size_t k = 0; k < BASE_COUNT(names); k++) {
        const json_t *merges;
        json_t *root;
        text_tokenizer *t = as_gguf("o200k", names[k], &merges, &root);
        text_ids ids = {0};
        sb out = {0};
        err e;
        encode(t, NULL, text, strlen(text), 0, &ids);
        assert_int_equal(text_decode(t, ids.ids, ids.n, 0, &out, &e), STATUS_OK);
        assert_string_equal(out.data, text);
        sb_fini(&out);
        text_ids_fini(&ids);
        text_tokenizer_destroy(t);
        json_decref(root);
    }
}

/* A vocabulary of the pieces that each splitter must cut (tests/data/text/presets.json, by another
 * regex engine): one id a piece, or it was cut elsewhere. */
typedef struct piece_list {
    str *pieces;
    size_t n;
} piece_list;

static int by_piece(const void *a, const void *b)
{
    const str *x = a, *y = b;
    int c = memcmp(x->data, y->data, BASE_MIN(x->length, y->length));
    return c ? c : (x->length > y->length) - (x->length < y->length);
}

static void collect_pieces(piece_list *out, const json_t *rows)
{
    json_t *row, *piece;
    size_t i, k, n = 0;
    json_array_foreach(rows, i, row) n += json_array_size(row);
    out->pieces = base_alloc(n * sizeof *out->pieces);
    out->n = 0;
    assert_non_null(out->pieces);
    json_array_foreach(rows, i, row) json_array_foreach(row, k, piece) out->pieces[out->n++] =
        (str){json_string_value(piece), json_string_length(piece)};
    qsort(out->pieces, out->n, sizeof *out->pieces, by_piece);
    for (i = k = 0; i < out->n; i++)
        if (!i || by_piece(&out->pieces[i], &out->pieces[i - 1]) != 0)
            out->pieces[k++] = out->pieces[i];
    out->n = k;
}

static text_tokenizer *make_of_pieces(const piece_list *list, const char *pre)
{
    text_vocab v;
    text_tokenizer *t = NULL;
    err e;
    text_vocab_init(&v);
    v.model = str_from("gpt2");
    v.pre = str_from(pre);
    v.tokens = list->pieces;
    v.n_tokens = list->n;
    v.ignore_merges = 1;
    v.add_bos = 0;
    if (text_tokenizer_create(&t, &v, &e) != STATUS_OK)
        fail_msg("%s: %s", pre, e.text);
    return t;
}

static void test_presets_cut(void **state)
{
    str texts_json = read_data("texts"), presets_json = read_data("presets");
    json_t *texts = json_loadb(texts_json.data, texts_json.length, JSON_ALLOW_NUL, NULL),
           *presets = json_loadb(presets_json.data, presets_json.length, 0, NULL), *rows;
    const char *pre;
    size_t n_presets = 0, n_pieces = 0;
    (void)state;
    json_object_foreach(presets, pre, rows)
    {
        piece_list list;
        collect_pieces(&list, rows);
        text_tokenizer *t = make_of_pieces(&list, pre);
        assert_int_equal(json_array_size(rows), json_array_size(texts));
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *text = json_array_get(texts, i), *row = json_array_get(rows, i);
            text_ids ids = {0};
            encode(t, NULL, json_string_value(text), json_string_length(text), 0, &ids);
            for (size_t k = 0; k < json_array_size(row) || k < ids.n; k++) {
                const char *want = json_string_value(json_array_get(row, k));
                str got = k < ids.n ? text_token_piece(t, ids.ids[k]) : (str){0};
                if (!want || !got.data || !str_is(got, want))
                    fail_msg("%s, text %zu \"%s\": piece %zu is \"%.*s\", want \"%s\"", pre, i,
                             json_string_value(text), k, (int)got.length, got.data ? got.data : "",
                             want ? want : "(none)");
                n_pieces++;
            }
            text_ids_fini(&ids);
        }
        n_presets++;
        text_tokenizer_destroy(t);
        base_free(list.pieces);
    }
    printf("%zu splitters, %zu pieces\n", n_presets, n_pieces);
    assert_true(n_presets >= 16);
    json_decref(texts);
    json_decref(presets);
    base_free((char *)texts_json.data);
    base_free((char *)presets_json.data);
}

/* Qwen's own tokenizer.json asks for NFC; GGUF cannot, and does not (docs/decisions). */
static void test_files_that_cannot_ask_for_nfc(void **state)
{
    static const char decomposed[] = "cafe\xCC\x81", composed[] = "caf\xC3\xA9";
    const json_t *merges;
    json_t *root;
    text_tokenizer *gguf = as_gguf("qwen2", "qwen2", &merges, &root), *json = load("qwen2");
    text_ids a = {0}, b = {0};
    sb out = {0};
    err e;
    (void)state;
    encode(json, NULL, decomposed, strlen(decomposed), 0, &a);
    encode(json, NULL, composed, strlen(composed), 0, &b);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.ids, b.ids, a.n * sizeof *a.ids);
    encode(gguf, NULL, decomposed, strlen(decomposed), 0, &b);
    assert_int_equal(text_decode(gguf, b.ids, b.n, 0, &out, &e), STATUS_OK);
    assert_string_equal(out.data, decomposed);
    encode(gguf, NULL, composed, strlen(composed), 0, &b);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.ids, b.ids, a.n * sizeof *a.ids);
    sb_fini(&out);
    text_ids_fini(&a);
    text_ids_fini(&b);
    text_tokenizer_destroy(gguf);
    text_tokenizer_destroy(json);
    json_decref(root);
}

/* ---- Unigram and WordPiece ---------------------------------------------------------------------------------------- */

static double best_segmentation(const arrays *a, const text_tokenizer *t, const char *p, size_t n)
{
    double best = -1e300;
    if (!n)
        return 0;
    for (size_t k = 1; k <= n; k++) {
        int32_t id = text_find_bytes(t, p, k);
        if (id >= 0 && a->types[id] == TEXT_NORMAL) {
            double score = a->scores[id] + best_segmentation(a, t, p + k, n - k);
            best = score > best ? score : best;
        }
    }
    return best;
}

static void test_unigram(void **state)
{
    static arrays a;
    (void)state;
    arrays_init(&a, "t5");
    a.v.eos = 1;
    a.v.unk = 2;
    add(&a, "<pad>", TEXT_CONTROL, 0);
    add(&a, "</s>", TEXT_CONTROL, 0);
    add(&a, "<unk>", TEXT_UNKNOWN, 0);
    static const char *const pieces[] = {
        "\xE2\x96\x81",   "a",   "b",  "c",   "ab", "bc", "abc", "ca", "cab", "\342\226\201a",
        "\342\226\201ab", "bab", "aa", "abab"};
    for (size_t i = 0; i < BASE_COUNT(pieces); i++)
        add(&a, pieces[i], TEXT_NORMAL, -(float)(64 + (i * 29) % 97) / 16);
    text_tokenizer *t = make(&a);
    assert_string_equal(text_model_name(t), "Unigram");
    for (int round = 0; round < 2000; round++) {
        char word[16], marked[32];
        size_t n = 1 + next_random(12);
        for (size_t i = 0; i < n; i++)
            word[i] = (char)('a' + next_random(3));
        word[n] = '\0';
        snprintf(marked, sizeof marked, "\xE2\x96\x81%s", word);
        text_ids ids = {0};
        double score = 0;
        encode(t, NULL, word, n, 0, &ids);
        sb joined = {0};
        for (size_t i = 0; i < ids.n; i++) {
            str piece = text_token_piece(t, ids.ids[i]);
            score += a.scores[ids.ids[i]];
            sb_add(&joined, piece.data, piece.length);
        }
        assert_string_equal(joined.data, marked);
        assert_true(score == best_segmentation(&a, t, marked,
                                               strlen(marked))); /* sixteenths: sums are exact */
        sb_fini(&joined);
        text_ids_fini(&ids);
    }
    expect(t, "a", TEXT_ADD_SPECIAL, "\342\226\201a,</s>");
    expect(t, "  a   a  ", 0, "\342\226\201a,\342\226\201a"); /* remove_extra_whitespaces */
    expect(t, "axyza", 0, "\342\226\201a,<unk>,a");           /* unknown ones in a row are one */
    text_tokenizer_destroy(t);
}

/* A double array by hand: "a" → "bc", "\xC3\xA9" (é) → "e". Units: offset << 10 | leaf << 8 |
 * label. */
static void test_character_map(void **state)
{
    static arrays a;
    unsigned char blob[4 + 4 * 1024 + 8] = {0};
    uint32_t units[1024] = {0};
    (void)state;
    units[0] = 1u << 10;                         /* root: children at 1 ^ byte */
    units[1 ^ 'a'] = 200u << 10 | 1u << 8 | 'a'; /* value at (1 ^ 'a') ^ 200 */
    units[(1 ^ 'a') ^ 200] = 0x80000000u | 0;
    units[1 ^ 0xC3] = 400u << 10 | 0xC3;
    size_t node = (1 ^ 0xC3) ^ 400;
    units[node ^ 0xA9] = 600u << 10 | 1u << 8 | 0xA9;
    units[(node ^ 0xA9) ^ 600] = 0x80000000u | 3;
    blob[0] = 0;
    blob[1] = 0x10; /* 4096 bytes of units */
    for (size_t i = 0; i < 1024; i++)
        for (int k = 0; k < 4; k++)
            blob[4 + 4 * i + (size_t)k] = (unsigned char)(units[i] >> (8 * k));
    memcpy(blob + 4 + 4096, "bc\0e\0", 5);
    arrays_init(&a, "t5");
    a.v.precompiled_charsmap = (str){(const char *)blob, 4 + 4096 + 5};
    a.v.unk = 0;
    add(&a, "<unk>", TEXT_UNKNOWN, 0);
    static const char *const pieces[] = {"\xE2\x96\x81", "a", "b", "c", "e", "\xC3\xA9", "x"};
    for (size_t i = 0; i < BASE_COUNT(pieces); i++)
        add(&a, pieces[i], TEXT_NORMAL, -1);
    text_tokenizer *t = make(&a);
    expect(t, "xa\xC3\xA9", 0, "\xE2\x96\x81,x,b,c,e");
    text_tokenizer_destroy(t);
    err e;
    for (size_t n = 0; n < sizeof blob;
         n += n < 16 ? 1 : 97) { /* cut short anywhere: refused or harmless */
        a.v.precompiled_charsmap.length = n;
        text_ids ids = {0};
        t = NULL;
        if (text_tokenizer_create(&t, &a.v, &e) == STATUS_OK)
            encode(t, NULL, "xa\xC3\xA9", 4, 0, &ids);
        text_ids_fini(&ids);
        text_tokenizer_destroy(t);
    }
    a.v.precompiled_charsmap.length = 4 + 4096 + 5;
    for (int round = 0; round < 300; round++) { /* nonsense in the units */
        blob[4 + next_random(4096)] = (unsigned char)next_random(256);
        text_ids ids = {0};
        t = make(&a);
        encode(t, NULL, "xa\xC3\xA9 the rest \xE4\xB8\xAD", 17, 0, &ids);
        text_ids_fini(&ids);
        text_tokenizer_destroy(t);
    }
}

static void test_wordpiece(void **state)
{
    static arrays a;
    static const char *const pieces[] = {"\xE2\x96\x81un",
                                         "aff",
                                         "able",
                                         "\xE2\x96\x81the",
                                         "\xE2\x96\x81,",
                                         "\342\226\201a",
                                         "\xE2\x96\x81\xE4\xB8\xAD",
                                         "s"};
    (void)state;
    arrays_init(&a, "bert");
    a.v.bos = 0;
    a.v.sep = 1;
    a.v.unk = 2;
    add(&a, "[CLS]", TEXT_CONTROL, 0);
    add(&a, "[SEP]", TEXT_CONTROL, 0);
    add(&a, "[UNK]", TEXT_UNKNOWN, 0);
    for (size_t i = 0; i < BASE_COUNT(pieces); i++)
        add(&a, pieces[i], TEXT_NORMAL, 0);
    text_tokenizer *t = make(&a);
    assert_string_equal(text_model_name(t), "WordPiece");
    expect(t, "Unaffable, THE as", TEXT_ADD_SPECIAL,
           "[CLS],\342\226\201un,aff,able,\342\226\201,,\342\226\201the,\342\226\201a,s,[SEP]");
    expect(t, "\xC3\xA0\xE4\xB8\xAD", 0,
           "\342\226\201a,\xE2\x96\x81\xE4\xB8\xAD"); /* accents off, Chinese alone */
    expect(t, "unx the", 0, "[UNK],\xE2\x96\x81the");
    text_tokenizer_destroy(t);
    a.v.lowercase = 0;
    t = make(&a);
    expect(t, "The the", 0, "[UNK],\xE2\x96\x81the");
    text_tokenizer_destroy(t);
}

/* ---- what must hold for every input ------------------------------------------------------------------------------- */

static size_t random_text(char *p, size_t most, bool valid)
{
    static const char *const common[] = {" ",        "\n",           "'s",
                                         "the ",     "12",           "A",
                                         "\xC3\xA9", "\xE4\xB8\xAD", "\xF0\x9F\x99\x82",
                                         "<|end|>",  "\xCC\x81"};
    size_t n = 0, want = next_random(40);
    while (n < want && n + 8 < most) {
        uint32_t kind = next_random(4);
        if (kind == 0) {
            const char *s = common[next_random((uint32_t)BASE_COUNT(common))];
            memcpy(p + n, s, strlen(s));
            n += strlen(s);
        } else if (kind == 1 || !valid) {
            p[n++] = (char)next_random(valid ? 128 : 256);
        } else {
            uint32_t c = next_random(kind == 2 ? 0x3000 : 0x110000);
            n += (size_t)text_utf8_put(p + n, c >= 0xD800 && c < 0xE000 ? 'x' : c);
        }
    }
    return n;
}

static void test_bytes_come_back(void **state)
{
    static const char *const byte_level[] = {"llama3", "o200k", "kimi", "deepseek",
                                             "falcon", "lazy",  "gemma"};
    int cases = (getenv("SHOAL_LONG") ? 1000000 : 70000) / (int)BASE_COUNT(byte_level) + 1;
    text_scratch *s = NULL;
    err e;
    (void)state;
    assert_int_equal(text_scratch_create(&s, &e), STATUS_OK);
    for (size_t k = 0; k < BASE_COUNT(byte_level); k++) {
        text_tokenizer *t = load(byte_level[k]);
        text_ids ids = {0};
        sb out = {0};
        for (int i = 0; i < cases; i++) {
            char text[128];
            size_t n = random_text(text, sizeof text, i % 2);
            encode(t, s, text, n, 0, &ids);
            sb_clear(&out);
            assert_int_equal(text_decode(t, ids.ids, ids.n, 0, &out, &e), STATUS_OK);
            if (!strcmp(byte_level[k], "gemma") && memmem(text, n, "\xE2\x96\x81", 3))
                continue; /* SentencePiece cannot tell U+2581 from a space */
            if (out.length != n || (n && memcmp(out.data, text, n) != 0)) {
                for (size_t b = 0; b < n; b++)
                    fprintf(stderr, " %02X", (unsigned char)text[b]);
                fail_msg("\n%s: %zu bytes became %zu", byte_level[k], n, out.length);
            }
        }
        sb_fini(&out);
        text_ids_fini(&ids);
        text_tokenizer_destroy(t);
    }
    text_scratch_destroy(s);
    printf("%d texts each for %zu vocabularies\n", cases, BASE_COUNT(byte_level));
}

static uint64_t work_for(const text_tokenizer *t, const char *unit, size_t n)
{
    sb text = {0};
    text_ids ids = {0};
    text_scratch *s = NULL;
    err e;
    while (text.length < n)
        sb_puts(&text, unit);
    assert_int_equal(text_scratch_create(&s, &e), STATUS_OK);
    encode(t, s, text.data, n, TEXT_PARSE_SPECIAL, &ids);
    uint64_t work = text_scratch_work(s);
    text_scratch_destroy(s);
    text_ids_fini(&ids);
    sb_fini(&text);
    return work;
}

static void test_work_grows_like_the_text(void **state)
{
    static const char *const names[] = {"llama3", "qwen2", "o200k", "kimi",   "deepseek",
                                        "falcon", "lazy",  "gemma", "llama2", "unigram",
                                        "bert",   "flags", "suffix"};
    static const char *const units[] = {"a",
                                        " ",
                                        "A",
                                        "\n",
                                        "1",
                                        "'",
                                        "-",
                                        "<|end|",
                                        "<|end|><mask> ",
                                        "\xCC\x81",
                                        "\xFF",
                                        "\xE4\xB8\xAD",
                                        "ab ",
                                        " \n",
                                        "Aa",
                                        "\xF0\x9F\x99\x82",
                                        "<mask",
                                        "   <mask>"};
    (void)state;
    for (size_t k = 0; k < BASE_COUNT(names); k++) {
        text_tokenizer *t = load(names[k]);
        for (size_t i = 0; i < BASE_COUNT(units); i++) {
            uint64_t one = work_for(t, units[i], 50000), two = work_for(t, units[i], 100000);
            /* n log n of the heap is 2.13 for a doubling; 40 operations a byte are far above what
             * any of them needs. */
            if ((double)two > 2.5 * (double)one + 1000 || two > 100000 * 60)
                fail_msg("%s, \"%s\": %llu operations for 50,000 bytes, %llu for 100,000", names[k],
                         units[i], (unsigned long long)one, (unsigned long long)two);
        }
        text_tokenizer_destroy(t);
    }
}

/* ---- senseless files, no memory ----------------------------------------------------------------------------------- */

static void test_malformed_json(void **state)
{
    static const struct {
        const char *json;
        status want;
    } cases[] = {
        {"", STATUS_CORRUPT},
        {"[]", STATUS_CORRUPT},
        {"{}", STATUS_CORRUPT},
        {"{\"model\": 3}", STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {}}}", STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}}}", STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1e3}}}", STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 999999999}}}", STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}}}", STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a\"]}}",
         STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [[\"a\", 3]]}}",
         STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [[\"a\", \"b\"], \"a "
         "b\"]}}",
         STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"Unigram\", \"vocab\": {\"a\": 0}}}", STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\"]]}}", STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"Unigram\", \"unk_id\": 5, \"vocab\": [[\"a\", 0.5]]}}",
         STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"Rwkv\", \"vocab\": {\"a\": 0}}}", STATUS_UNSUPPORTED},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"added_tokens\": [{\"id\": "
         "\"x\"}]}",
         STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"normalizer\": {\"type\": "
         "\"Magic\"}}",
         STATUS_UNSUPPORTED},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"normalizer\": {\"type\": "
         "\"Precompiled\", \"precompiled_charsmap\": \"AAAA\"}}",
         STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"normalizer\": {\"type\": "
         "\"Replace\", \"content\": \"\"}}",
         STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"pre_tokenizer\": {\"type\": "
         "\"Magic\"}}",
         STATUS_UNSUPPORTED},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"pre_tokenizer\": {\"type\": "
         "\"Split\", \"pattern\": {\"Regex\": \"(\"}, \"behavior\": \"Isolated\"}}",
         STATUS_UNSUPPORTED},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"pre_tokenizer\": {\"type\": "
         "\"Split\", \"pattern\": {\"Regex\": \"a\"}, \"behavior\": \"Odd\"}}",
         STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"post_processor\": {\"type\": "
         "\"BertProcessing\"}}",
         STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"post_processor\": {\"type\": "
         "\"BertProcessing\", \"cls\": [\"a\", 0], \"sep\": [\"b\", 7]}}",
         STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"post_processor\": {\"type\": "
         "\"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"x\"}}]}}",
         STATUS_CORRUPT},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"post_processor\": {\"type\": "
         "\"Magic\"}}",
         STATUS_UNSUPPORTED},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}}", STATUS_OK},
        {"{\"model\": {\"vocab\": {\"a\": 0}}}", STATUS_OK},
    };
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        text_tokenizer *t = NULL;
        err e = {0};
        status got = text_tokenizer_from_json(&t, str_from(cases[i].json), (str){0}, &e);
        if (got != cases[i].want)
            fail_msg("%s: %s (%s), want %s", cases[i].json, status_name(got), e.text,
                     status_name(cases[i].want));
        assert_int_equal(t != NULL, got == STATUS_OK);
        text_tokenizer_destroy(t);
    }
    text_tokenizer *t = NULL;
    err e;
    assert_int_equal(text_tokenizer_from_json(&t, str_from("{\"model\": {\"vocab\": {\"a\": 0}}}"),
                                              str_from("nonsense"), &e),
                     STATUS_CORRUPT);
    assert_non_null(strstr(e.text, "tokenizer_config.json"));
}

static void test_malformed_arrays(void **state)
{
    static arrays a;
    text_tokenizer *t = NULL;
    err e;
    (void)state;
    arrays_init(&a, "gpt2");
    assert_int_equal(text_tokenizer_create(&t, &a.v, &e), STATUS_CORRUPT); /* no tokens */
    add(&a, "a", 77, 0);
    assert_int_equal(text_tokenizer_create(&t, &a.v, &e), STATUS_CORRUPT); /* no such type */
    a.types[0] = TEXT_NORMAL;
    a.v.model = str_from("quantum");
    assert_int_equal(text_tokenizer_create(&t, &a.v, &e), STATUS_UNSUPPORTED);
    assert_non_null(strstr(e.text, "quantum"));
    a.v.model = str_from("llama");
    a.v.scores = NULL;
    assert_int_equal(text_tokenizer_create(&t, &a.v, &e), STATUS_CORRUPT); /* no scores */
    a.v.scores = a.scores;
    a.scores[0] = 0.0f / 1.0f;
    memcpy(&a.scores[0], &(uint32_t){0x7FC00000u}, 4);
    assert_int_equal(text_tokenizer_create(&t, &a.v, &e), STATUS_CORRUPT); /* not a number */
    str merge = str_from("ab");
    a.v.model = str_from("gpt2");
    a.scores[0] = 0;
    a.v.merges = &merge;
    a.v.n_merges = 1;
    assert_int_equal(text_tokenizer_create(&t, &a.v, &e), STATUS_CORRUPT); /* a merge of one part */
    assert_null(t);
    a.v.n_merges = 0;
    a.v.bos = 400; /* out of range: ignored, many files have such */
    assert_int_equal(text_tokenizer_create(&t, &a.v, &e), STATUS_OK);
    assert_int_equal(text_special_id(t, TEXT_BOS), -1);
    assert_int_equal(text_find(t, "a"), 0);
    assert_int_equal(text_find(t, "b"), -1);
    assert_int_equal(text_token_piece(t, 5).length, 0);
    assert_int_equal(text_token_bytes(t, -1).length, 0);
    text_tokenizer_destroy(t);
}

/* Every allocation fails in turn: NO_MEMORY, nothing leaks (the sanitizers look), outputs as they
 * were. */
static void test_no_memory(void **state)
{
    static const char *const names[] = {"flags", "bert",   "gpt2",     "unigram",
                                        "lazy",  "suffix", "metaspace"};
    static const char text[] = "The <mask> word's 12 caf\xC3\xA9 \xCC\x81 norm...";
    (void)state;
    for (size_t k = 0; k < BASE_COUNT(names); k++) {
        str json = read_data(names[k]);
        err e;
        uint64_t before = base_allocations();
        text_tokenizer *t = NULL;
        assert_int_equal(text_tokenizer_from_json(&t, json, (str){0}, &e), STATUS_OK);
        uint64_t n = base_allocations() - before;
        text_tokenizer_destroy(t);
        for (uint64_t i = 1; i <= n; i += 1 + n / 400) {
            t = NULL;
            base_fail_after(i);
            status s = text_tokenizer_from_json(&t, json, (str){0}, &e);
            base_fail_after(0);
            if (s != STATUS_NO_MEMORY || t)
                fail_msg("%s: allocation %llu of %llu failed: %s", names[k], (unsigned long long)i,
                         (unsigned long long)n, status_name(s));
        }
        assert_int_equal(text_tokenizer_from_json(&t, json, (str){0}, &e), STATUS_OK);
        for (uint64_t i = 1; i < 60; i++) {
            text_ids ids = {0};
            base_fail_after(i);
            status s = text_encode(t, NULL, text, strlen(text), TEXT_PARSE_SPECIAL, &ids, &e);
            base_fail_after(0);
            if (s == STATUS_OK)
                assert_true(ids.n > 0);
            else
                assert_true(s == STATUS_NO_MEMORY && ids.n == 0);
            text_ids_fini(&ids);
        }
        text_tokenizer_destroy(t);
        base_free((char *)json.data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sentencepiece_bpe),
                                       cmocka_unit_test(test_control_tokens_that_strip),
                                       cmocka_unit_test(test_same_from_both),
                                       cmocka_unit_test(test_merges),
                                       cmocka_unit_test(test_presets_by_name),
                                       cmocka_unit_test(test_presets_cut),
                                       cmocka_unit_test(test_files_that_cannot_ask_for_nfc),
                                       cmocka_unit_test(test_unigram),
                                       cmocka_unit_test(test_character_map),
                                       cmocka_unit_test(test_wordpiece),
                                       cmocka_unit_test(test_bytes_come_back),
                                       cmocka_unit_test(test_work_grows_like_the_text),
                                       cmocka_unit_test(test_malformed_json),
                                       cmocka_unit_test(test_malformed_arrays),
                                       cmocka_unit_test(test_no_memory)};
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
