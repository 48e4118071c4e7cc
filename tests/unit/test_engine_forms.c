/*
 * Grammars: whatever random walks through the masks write parses and fits its schema (by a validator of the tests' own); a mask allows a token
 * exactly when its bytes have a way; specs around schemas; what is refused and how it says so; schemas made to blow up end with an error.
 */
#include "model/model.h"
#include "sample/sample.h"
#include "schema_fits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <regex.h>
#include <stdio.h>

static text_tokenizer *tokenizer;
static sample_tokens *tokens;
static int vocabulary;
static const int32_t end_token[] = {330};

static int set_up(void **state)
{
    (void)state;
    model_card *card;
    err e;
    assert_int_equal(model_card_open(&card, TEST_DATA "/models/tiny-q8_0.gguf", &e), STATUS_OK);
    assert_int_equal(model_tokenizer_create(&tokenizer, card, &e), STATUS_OK);
    vocabulary = (int)card->n_vocab;
    assert_int_equal(sample_tokens_create(&tokens, tokenizer, vocabulary, &e), STATUS_OK);
    model_card_destroy(card);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sample_tokens_destroy(tokens);
    text_tokenizer_destroy(tokenizer);
    return 0;
}

static sample_grammar *make(const char *spec)
{
    sample_grammar *g;
    err e;
    if (sample_grammar_create(&g, str_from(spec), tokens, end_token, 1, NULL, 0, &e) != STATUS_OK)
        fail_msg("%s\n%s", spec, e.text);
    return g;
}

static bool allowed(const uint64_t *mask, int32_t id)
{
    return mask[id / 64] >> id % 64 & 1;
}

/* Random tokens among the allowed until the text is over, or could be and has grown long. false: it did not end in time. */
static bool random_text(sample_grammar *g, uint64_t seed, sb *out)
{
    sample_guide *d;
    err e = {0};
    bool ended = false;
    sb_clear(out);
    assert_int_equal(sample_guide_create(&d, g, &e), STATUS_OK);
    for (int step = 0; step < 3000 && !ended; step++) {
        const uint64_t *mask;
        int32_t list[512];
        int n = 0;
        if (sample_guide_mask(d, &mask, &e) != STATUS_OK)
            fail_msg("%s", e.text);
        for (int32_t id = 0; id < vocabulary; id++)
            if (allowed(mask, id))
                list[n++] = id;
        if (n == 0)
            fail_msg("nothing may follow '%.*s'", (int)out->length, out->data);
        assert_int_equal(allowed(mask, end_token[0]), sample_guide_may_end(d));
        uint64_t r = hash_u64((uint64_t)step, seed);
        int32_t token = list[r % (uint64_t)n];
        if (step > 60) /* long enough: what closes comes first */
            for (int i = 0; i < n; i++)
                if (strchr("\"}]", text_token_bytes(tokenizer, list[i]).data[0]) && r >> 40 & 1)
                    token = list[i];
        if (allowed(mask, end_token[0]) && (step > 60 || r >> 32 & 1))
            token = end_token[0];
        if (token == end_token[0]) {
            ended = true;
            break;
        }
        str bytes = text_token_bytes(tokenizer, token);
        sb_add(out, bytes.data, bytes.length);
        if (sample_guide_accept(d, token, &e) != STATUS_OK)
            fail_msg("%s", e.text);
        ended = sample_guide_is_over(d);
    }
    sample_guide_destroy(d);
    return ended;
}

static const char *const schemas[] = {
    "{\"type\":\"object\"}",
    "true",
    "{\"type\":[\"string\",\"null\"],\"maxLength\":7}",
    "{\"type\":\"string\",\"minLength\":3,\"maxLength\":3}",
    "{\"type\":\"integer\"}",
    "{\"type\":\"number\"}",
    "{\"type\":\"integer\",\"minimum\":-37,\"maximum\":1205}",
    "{\"type\":\"integer\",\"exclusiveMinimum\":17}",
    "{\"type\":\"integer\",\"maximum\":-99,\"minimum\":-1000}",
    "{\"type\":\"integer\",\"minimum\":5,\"maximum\":5}",
    "{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
    "{\"type\":\"number\",\"exclusiveMinimum\":0}",
    "{\"type\":\"number\",\"minimum\":-2.5,\"exclusiveMaximum\":3}",
    "{\"enum\":[\"a\",1,null,{\"x\":[1,2]},\"ab\",\"zw\\u00e4lf\\\"\"]}",
    "{\"const\":{\"deep\":[true,\"\\n\"]}}",
    "{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"minItems\":2,\"maxItems\":5}",
    "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1}",
    "{\"type\":\"array\",\"maxItems\":0}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"},\"b\":{\"type\":\"integer\"},"
    "\"c\":{\"type\":\"null\"}},"
    "\"required\":[\"b\"],\"additionalProperties\":false}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"boolean\"},\"b\":{\"type\":\"boolean\"}"
    "},\"additionalProperties\":false}",
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"nam\":{\"type\":"
    "\"null\"}},\"required\":[\"name\"],"
    "\"additionalProperties\":{\"type\":\"integer\"}}",
    "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"boolean\"}}",
    "{\"required\":[\"x\",\"y\"]}",
    "{\"anyOf\":[{\"type\":\"string\",\"maxLength\":4},{\"type\":\"array\",\"items\":{\"$ref\":\"#"
    "\"},\"maxItems\":3}]}",
    "{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"null\"},{\"type\":\"object\",\"properties\":{"
    "\"k\":{\"const\":\"p\"}},\"required\":[\"k\"]},"
    "{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"q\"},\"v\":{\"type\":\"integer\"}},"
    "\"required\":[\"k\",\"v\"]}]}",
    "{\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},"
    "\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/node\"},"
    "{\"type\":\"null\"}]}},\"required\":[\"v\",\"next\"],\"additionalProperties\":false}},\"$"
    "ref\":\"#/$defs/node\"}",
    "{\"type\":\"object\",\"title\":\"T\",\"description\":\"d\",\"properties\":{\"steps\":{"
    "\"type\":\"array\",\"items\":{\"type\":\"object\","
    "\"properties\":{\"explanation\":{\"type\":\"string\"},\"output\":{\"type\":\"string\"}},"
    "\"required\":[\"explanation\",\"output\"],"
    "\"additionalProperties\":false}},\"final_answer\":{\"type\":\"string\",\"enum\":[\"yes\","
    "\"no\"]}},\"required\":[\"steps\",\"final_answer\"],"
    "\"additionalProperties\":false}",
    "{\"allOf\":[{\"type\":\"string\",\"maxLength\":2}]}",
};

/* Patterns, and POSIX extended expressions that say the same of a whole string. */
static const char *const patterns[][2] = {
    {"^[A-Z]{2}-\\d{3}$", "^[A-Z]{2}-[0-9]{3}$"},
    {"a|bc|(d(e|f)?)+", "^(a|bc|(d(e|f)?)+)$"},
    {"(?:x{0,2}y?){1,3}z", "^(x{0,2}y?){1,3}z$"},
    {"[^a-z]+", "^[^a-z]+$"},
    {"\\w*\\s?\\.", "^[A-Za-z0-9_]*[ ]?[.]$"},
    {"(?<name>a{2,}?b)*", "^(a{2,}b)*$"},
    {"\\u0041\\x42.", "^AB.$"},
    {"[\\]\\\\-]{2}", "^([]]|-){2}$"},
    {"\"", "^\"$"},
    {"", "^$"},
    {"\xC3\xA4+", "^(\xC3\xA4)+$"},
};

static void test_patterns(void **state)
{
    (void)state;
    sb text;
    sb_init(&text);
    for (size_t i = 0; i < BASE_COUNT(patterns); i++) {
        json_t *pattern = json_pack("{s:{s:s}}", "schema", "pattern", patterns[i][0]);
        char *spec = json_dumps(pattern, 0);
        sample_grammar *g = make(spec);
        regex_t same;
        int n_ended = 0;
        assert_int_equal(regcomp(&same, patterns[i][1], REG_EXTENDED | REG_NOSUB), 0);
        for (uint64_t seed = 0; seed < 60; seed++) {
            if (!random_text(g, seed, &text))
                continue;
            n_ended++;
            json_t *v = json_loadb(text.data, text.length, JSON_DECODE_ANY, NULL);
            if (!json_is_string(v) || regexec(&same, json_string_value(v), 0, NULL, 0) != 0)
                fail_msg("%s wrote %.*s", patterns[i][0], (int)text.length, text.data);
            json_decref(v);
        }
        assert_true(n_ended > 40);
        regfree(&same);
        sample_grammar_destroy(g);
        free(spec);
        json_decref(pattern);
    }
    sb_fini(&text);
}

static void test_random_texts_fit(void **state)
{
    (void)state;
    sb text;
    sb_init(&text);
    int n_ended = 0, n_tried = 0;
    for (size_t i = 0; i < BASE_COUNT(schemas); i++) {
        char spec[2048];
        snprintf(spec, sizeof spec, "{\"schema\":%s}", schemas[i]);
        sample_grammar *g = make(spec);
        json_t *schema = json_loads(schemas[i], JSON_DECODE_ANY, NULL);
        assert_non_null(schema);
        for (uint64_t seed = 0; seed < 60; seed++) {
            n_tried++;
            if (!random_text(g, seed + 1000 * i, &text))
                continue;
            n_ended++;
            json_error_t error;
            json_t *v = json_loadb(text.data, text.length, JSON_DECODE_ANY, &error);
            if (!v)
                fail_msg("%s\nwrote %.*s\n%s", schemas[i], (int)text.length, text.data, error.text);
            if (!fits(v, schema, schema))
                fail_msg("%s\nwrote %.*s", schemas[i], (int)text.length, text.data);
            json_decref(v);
        }
        json_decref(schema);
        sample_grammar_destroy(g);
    }
    assert_true(n_ended * 10 >= n_tried * 9);
    sb_fini(&text);
}

/* Every value of a range comes up, none outside: all texts of a small grammar, by depth-first search over bytes' tokens. */
static void all_texts(sample_grammar *g, const char *so_far, bool *seen, int low, int high)
{
    sample_guide *d;
    const uint64_t *mask;
    err e;
    assert_int_equal(sample_guide_create(&d, g, &e), STATUS_OK);
    for (const char *b = so_far; *b; b++)
        assert_int_equal(sample_guide_accept(d, (unsigned char)*b, &e), STATUS_OK);
    if (sample_guide_may_end(d)) {
        long v = strtol(so_far, NULL, 10);
        assert_true(v >= low && v <= high);
        assert_false(seen[v - low]);
        seen[v - low] = true;
    }
    if (!sample_guide_is_over(d)) {
        bool next[256] = {false};
        assert_int_equal(sample_guide_mask(d, &mask, &e), STATUS_OK);
        for (int b = 0; b < 256; b++)
            next[b] = allowed(mask, b);
        for (int b = 0; b < 256; b++) {
            char longer[32];
            if (!next[b])
                continue;
            snprintf(longer, sizeof longer, "%s%c", so_far, b);
            all_texts(g, longer, seen, low, high);
        }
    }
    sample_guide_destroy(d);
}

static void test_ranges_are_exact(void **state)
{
    (void)state;
    static const int ranges[][2] = {{0, 0},    {0, 9},   {7, 7},     {3, 12},     {98, 102},
                                    {1, 1000}, {-5, 5},  {-20, -11}, {-1205, 37}, {199, 2001},
                                    {-1, 0},   {10, 99}, {123, 987}};
    for (size_t i = 0; i < BASE_COUNT(ranges); i++) {
        char spec[128];
        int low = ranges[i][0], high = ranges[i][1];
        bool *seen = calloc((size_t)(high - low + 1), 1);
        snprintf(spec, sizeof spec,
                 "{\"schema\":{\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d}}", low, high);
        sample_grammar *g = make(spec);
        all_texts(g, "", seen, low, high);
        for (int v = low; v <= high; v++)
            if (!seen[v - low])
                fail_msg("%d is missing in %d to %d", v, low, high);
        sample_grammar_destroy(g);
        free(seen);
    }
}

/* A mask against trying every token in a guide of its own. */
static void test_masks_are_exact(void **state)
{
    (void)state;
    sample_grammar *g = make(
        "{\"schema\":{\"type\":\"object\",\"properties\":{\"shoal\":{\"type\":\"string\"},\"n\":"
        "{\"type\":\"number\"}},\"required\":[\"shoal\"]}}");
    static const char *const texts[] = {"",
                                        "{",
                                        "{\"sh",
                                        "{\"shoal\":",
                                        "{\"shoal\": \"x\\u00",
                                        "{\"shoal\":\"\xE2\x82",
                                        "{\"shoal\":\"a\",\"n\":-1",
                                        "{\"shoal\":\"a\"}"};
    for (size_t i = 0; i < BASE_COUNT(texts); i++) {
        uint64_t mask[8] = {0};
        for (int32_t id = -1; id < vocabulary; id++) {
            sample_guide *d;
            const uint64_t *m;
            err e;
            assert_int_equal(sample_guide_create(&d, g, &e), STATUS_OK);
            for (const char *b = texts[i]; *b; b++)
                assert_int_equal(sample_guide_accept(d, (unsigned char)*b, &e), STATUS_OK);
            if (id < 0) {
                assert_int_equal(sample_guide_mask(d, &m, &e), STATUS_OK);
                memcpy(mask, m, (size_t)(vocabulary + 63) / 64 * 8);
            } else if (id < 328) {
                bool may = sample_guide_accept(d, id, &e) == STATUS_OK;
                if (may != allowed(mask, id))
                    fail_msg("token %d behind '%s': mask %d", (int)id, texts[i], !may);
            } else if (id != end_token[0]) {
                assert_false(allowed(mask, id));
            }
            sample_guide_destroy(d);
        }
    }
    sample_grammar_destroy(g);
}

static void takes(const char *spec, const char *text, bool whole)
{
    sample_grammar *g = make(spec);
    sample_guide *d;
    err e;
    bool good = true;
    assert_int_equal(sample_guide_create(&d, g, &e), STATUS_OK);
    for (const char *b = text; *b && good; b++)
        good = sample_guide_accept(d, (unsigned char)*b, &e) == STATUS_OK;
    if (good && !sample_guide_may_end(d))
        good = false;
    if (good != whole)
        fail_msg("%s %s '%s'", spec, whole ? "does not take" : "takes", text);
    sample_guide_destroy(d);
    sample_grammar_destroy(g);
}

static void test_specs(void **state)
{
    (void)state;
    static const char free_text[] =
        "{\"free\":\"<abab>\",\"then\":{\"text\":\"!\"},\"not_first\":\"{\"}";
    takes("{\"text\":\"ab\"}", "ab", true);
    takes("{\"text\":\"ab\"}", "a", false);
    takes("{\"sequence\":[]}", "", true);
    takes("{\"sequence\":[{\"until\":\"</t>\"},{\"blank\":true},{\"text\":\"x\"}]}", "a<</t></t>",
          false);
    takes("{\"sequence\":[{\"until\":\"</t>\"},{\"blank\":true},{\"text\":\"x\"}]}", "a<</t>\n\nx",
          true);
    takes("{\"until\":\"aab\"}", "aaaab", true);
    takes("{\"until\":\"abac\"}", "ababac", true);
    takes("{\"choice\":[{\"text\":\"a\"},{\"text\":\"ab\"}]}", "ab", true);
    takes("{\"repeat\":{\"text\":\"ab\"},\"between\":\", \",\"most\":3}", "ab, ab, ab", true);
    takes("{\"repeat\":{\"text\":\"ab\"},\"between\":\", \",\"most\":3}", "ab, ab, ab, ab", false);
    takes("{\"repeat\":{\"text\":\"ab\"},\"between\":\", \",\"most\":3}", "", false);
    takes(free_text, "", true);
    takes(free_text, "words <aba", true);
    takes(free_text, "words <abab>", false);
    takes(free_text, "words <abab>! more <<abab>!", true);
    takes(free_text, "{", false);
    takes(free_text, " {", false);
}

static void refused(const char *schema, const char *words)
{
    char spec[1024];
    err e = {0};
    snprintf(spec, sizeof spec, "{\"schema\":%s}", schema);
    assert_int_equal(sample_grammar_check(str_from(spec), &e), STATUS_INVALID);
    if (!strstr(e.text, words))
        fail_msg("%s: '%s' does not say '%s'", schema, e.text, words);
}

static void test_refusals(void **state)
{
    (void)state;
    refused("{\"type\":\"string\",\"pattern\":\"a(?=b)\"}", "looking ahead");
    refused("{\"type\":\"string\",\"pattern\":\"a\\\\b\"}", "an escape");
    refused("{\"type\":\"string\",\"pattern\":\"(a\"}", "a group without its end");
    refused("{\"type\":\"string\",\"pattern\":\"a)\"}", "without its beginning");
    refused("{\"type\":\"string\",\"pattern\":\"*\"}", "repeat of nothing");
    refused("{\"type\":\"string\",\"pattern\":\"a{3,2}\"}", "a count");
    refused("{\"type\":\"string\",\"pattern\":\"[z-a]\"}", "a range");
    refused("{\"type\":\"string\",\"pattern\":\"a^b\"}", "an anchor");
    refused("{\"type\":\"string\",\"pattern\":\"a\",\"maxLength\":2}", "beside 'pattern'");
    refused("{\"type\":\"string\",\"pattern\":\"(((a{999}){999}){999})\"}", "too large");
    refused("{\"type\":\"string\",\"pattern\":\"(((){9999}){9999}){9999}\"}", "repeats");
    refused("{\"type\":\"object\",\"properties\":{\"a\":{\"items\":{\"not\":{}}}}}",
            "properties.a.items: the keyword 'not'");
    refused("{\"type\":\"object\",\"patternProperties\":{}}", "'patternProperties'");
    refused("{\"allOf\":[{\"type\":\"string\"},{\"maxLength\":4}]}", "'allOf'");
    refused("{\"anyOf\":[{}],\"type\":\"string\"}", "'type' beside 'anyOf'");
    refused("{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "oneOf");
    refused("{\"type\":\"text\"}", "type");
    refused("{\"type\":7}", "type");
    refused("{\"enum\":[]}", "enum");
    refused("{\"type\":\"string\",\"enum\":[1]}", "enum");
    refused("{\"type\":\"string\",\"const\":1}", "const");
    refused("{\"$ref\":\"#/$defs/none\"}", "#/$defs/none");
    refused("{\"$ref\":\"http://x/y\"}", "http://x/y");
    refused("{\"$ref\":\"#\"}", "no value fits");
    refused("{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
            "no value fits");
    refused("{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}", "minItems");
    refused("{\"type\":\"string\",\"minLength\":-1}", "minLength");
    refused("{\"type\":\"string\",\"maxLength\":10000000}", "maxLength");
    refused("{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", "minimum");
    refused("{\"type\":\"integer\",\"minimum\":1.2,\"maximum\":1.8}", "whole number");
    refused("{\"type\":\"number\",\"minimum\":0.2,\"maximum\":0.8}", "whole number");
    refused("{\"type\":\"object\",\"required\":[\"z\"],\"additionalProperties\":false}", "'z'");
    refused("{\"type\":\"object\",\"properties\":[]}", "properties");
    refused("{\"anyOf\":7}", "anyOf");
    refused("false", "nothing fits");
    refused("[]", "expected a schema");
}

static void repeat(sb *out, const char *text, int n)
{
    for (int i = 0; i < n; i++)
        sb_puts(out, text);
}

/* Ends with a status, whatever it is; texts that come out are limited by the steps tried. */
static void survives(const char *spec)
{
    sample_grammar *g = NULL;
    err e = {0};
    if (sample_grammar_create(&g, str_from(spec), tokens, end_token, 1, NULL, 0, &e) != STATUS_OK) {
        assert_true(e.code == STATUS_INVALID || e.code == STATUS_TOO_LARGE);
        return;
    }
    sample_guide *d;
    assert_int_equal(sample_guide_create(&d, g, &e), STATUS_OK);
    for (int step = 0; step < 200; step++) {
        const uint64_t *mask;
        int32_t token = -1;
        status s = sample_guide_mask(d, &mask, &e);
        if (s != STATUS_OK) {
            assert_int_equal(s, STATUS_TOO_LARGE);
            break;
        }
        uint64_t r = hash_u64((uint64_t)step, 5);
        for (int i = 0; i < vocabulary && token < 0; i++) {
            int32_t id = (int32_t)((r + (uint64_t)i) % (uint64_t)vocabulary);
            if (id != end_token[0] && allowed(mask, id))
                token = id;
        }
        if (token < 0)
            break;
        if (sample_guide_accept(d, token, &e) != STATUS_OK) {
            assert_int_equal(e.code, STATUS_TOO_LARGE);
            break;
        }
    }
    sample_guide_destroy(d);
    sample_grammar_destroy(g);
}

static void test_hostile(void **state)
{
    (void)state;
    sb spec;
    sb_init(&spec);
    /* alternatives of alternatives: 8^6 ways to begin */
    sb_puts(&spec, "{\"schema\":{\"$defs\":{\"a0\":{\"type\":\"string\"}");
    for (int i = 1; i < 7; i++) {
        sb_printf(&spec, ",\"a%d\":{\"anyOf\":[", i);
        for (int k = 0; k < 8; k++)
            sb_printf(&spec,
                      "%s{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/a%d\"}},{\"$ref\":\"#/"
                      "$defs/a%d\"}",
                      k ? "," : "", i - 1, i - 1);
        sb_puts(&spec, "]}");
    }
    sb_puts(&spec, "},\"$ref\":\"#/$defs/a6\"}}");
    survives(spec.data);
    /* itself behind nothing, twice */
    survives("{\"schema\":{\"anyOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"},{\"type\":\"null\"},{"
             "\"type\":\"array\",\"items\":"
             "{\"$ref\":\"#\"}}]}}");
    /* many ways to repeat */
    survives("{\"schema\":{\"anyOf\":[{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}},{\"type\":"
             "\"array\",\"items\":{\"$ref\":\"#\"},"
             "\"minItems\":1},{\"type\":\"array\"},{\"type\":\"string\"}]}}");
    /* thousands of optional members */
    sb_clear(&spec);
    sb_puts(&spec,
            "{\"schema\":{\"type\":\"object\",\"additionalProperties\":true,\"properties\":{");
    for (int i = 0; i < 3000; i++)
        sb_printf(&spec, "%s\"k%d\":{\"type\":\"integer\"}", i ? "," : "", i);
    sb_puts(&spec, "}}}");
    survives(spec.data);
    /* lengths of thousands, inside each other */
    survives("{\"schema\":{\"type\":\"array\",\"maxItems\":20000,\"items\":{\"type\":\"array\","
             "\"maxItems\":20000,\"items\":"
             "{\"type\":\"string\",\"maxLength\":20000}}}}");
    survives("{\"schema\":{\"type\":\"string\",\"minLength\":15000,\"maxLength\":20000}}");
    /* deep */
    sb_clear(&spec);
    sb_puts(&spec, "{\"schema\":");
    repeat(&spec, "{\"type\":\"array\",\"minItems\":1,\"items\":", 1000);
    sb_puts(&spec, "true");
    repeat(&spec, "}", 1001);
    survives(spec.data);
    /* a long enumeration with a common beginning */
    sb_clear(&spec);
    sb_puts(&spec, "{\"schema\":{\"enum\":[");
    for (int i = 0; i < 3000; i++)
        sb_printf(&spec, "%s\"the same beginning %d\"", i ? "," : "", i);
    sb_puts(&spec, "]}}");
    survives(spec.data);
    survives("{\"schema\":{\"$ref\":\"#/a\",\"a\":{\"$ref\":\"#/b\"},\"b\":{\"$ref\":\"#/a\"}}}");
    static const char *const broken[] = {"",
                                         "{",
                                         "[]",
                                         "{\"schema\":",
                                         "7",
                                         "{\"repeat\":{}}",
                                         "{\"until\":\"\"}",
                                         "{\"free\":\"x\"}",
                                         "{\"choice\":[]}"};
    for (size_t i = 0; i < BASE_COUNT(broken); i++)
        assert_int_equal(sample_grammar_check(str_from(broken[i]), NULL), STATUS_INVALID);
    sb_fini(&spec);
}

/* More states than are kept: what was forgotten is found again by going through the text, with the same masks. */
static void test_forgetting(void **state)
{
    (void)state;
    static const char spec[] = "{\"schema\":{\"type\":\"string\",\"maxLength\":18000}}";
    sample_grammar *g = make(spec);
    sample_guide *a, *b;
    err e;
    assert_int_equal(sample_guide_create(&a, g, &e), STATUS_OK);
    assert_int_equal(sample_guide_create(&b, g, &e), STATUS_OK);
    assert_int_equal(sample_guide_accept(a, '"', &e), STATUS_OK);
    assert_int_equal(sample_guide_accept(b, '"', &e), STATUS_OK);
    for (int i = 0; i < 17000; i++)
        assert_int_equal(sample_guide_accept(a, 'x', &e), STATUS_OK);
    const uint64_t *mask;
    assert_int_equal(sample_guide_mask(b, &mask, &e), STATUS_OK);
    assert_true(allowed(mask, 'y') && allowed(mask, '"') && !allowed(mask, '\n'));
    assert_int_equal(sample_guide_mask(a, &mask, &e), STATUS_OK);
    assert_true(allowed(mask, 'y') && allowed(mask, '"') && !allowed(mask, '\n'));
    for (int i = 0; i < 1000; i++)
        assert_int_equal(sample_guide_accept(a, 'x', &e), STATUS_OK);
    assert_int_equal(sample_guide_mask(a, &mask, &e), STATUS_OK);
    assert_true(!allowed(mask, 'y') && allowed(mask, '"'));
    sample_guide_destroy(a);
    sample_guide_destroy(b);
    sample_grammar_destroy(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_texts_fit),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_ranges_are_exact),
        cmocka_unit_test(test_masks_are_exact),
        cmocka_unit_test(test_specs),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_forgetting),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
