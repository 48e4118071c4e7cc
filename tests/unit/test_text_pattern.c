/*
 * Splitting patterns: our matcher against PCRE2 on the same regex, for every preset and many odd
 * patterns, over random text; and the facts of the Unicode table that PCRE2 10.42 (Unicode 14) has
 * otherwise.
 */
#include "text/inside.h"
#include "text/unicode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static uint64_t seed = 0x9E3779B97F4A7C15u;

static uint32_t next_random(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 33) % below;
}

/* A character that splitters care about: much ASCII, all categories, letters new in Unicode 15,
 * invalid bytes. */
static void add_random(sb *out)
{
    static const char *const pieces[] = {"'s",
                                         "'LL",
                                         "'re",
                                         " ",
                                         "  ",
                                         "\n",
                                         "\r\n",
                                         "\t",
                                         "12",
                                         "3",
                                         "a",
                                         "B",
                                         "word",
                                         "Word",
                                         "ABC",
                                         "...",
                                         "/",
                                         "-",
                                         "\xE4\xB8\xAD\xE6\x96\x87",
                                         "\xE3\x81\xAE",
                                         "\xC3\xA9",
                                         "\xC9\x81",
                                         "e\xCC\x81",
                                         "\xC7\x85",
                                         "\xCA\xB0",
                                         "\xC2\xB2",
                                         "\xE2\x85\xA7",
                                         "\xD9\xA3",
                                         "\xC2\xA0",
                                         "\xE3\x80\x80",
                                         "\xC2\x85",
                                         "\xE2\x80\xA8",
                                         "\xE1\xA0\x8E",
                                         "\xE2\x80\x8B",
                                         "\xF0\x9F\x99\x82",
                                         "\xF0\xB1\x8D\x90",
                                         "\xF0\x9F\xAB\xA8",
                                         "\xE0\xB3\xB3",
                                         "\xF0\x9E\x93\xA8",
                                         "\xEE\x80\x80",
                                         "\xC5\xBF",
                                         "\xE2\x84\xAA",
                                         "\xE3\x80\x87",
                                         "\xEA\xB5\xAD",
                                         "\xC2\xAD",
                                         "$",
                                         "+",
                                         "`",
                                         "<",
                                         "|",
                                         "\xEF\xBC\x81",
                                         "\xE2\x80\x9C",
                                         "\xCD\xB8"};
    char c[4];
    uint32_t kind = next_random(10);
    if (kind < 7) {
        sb_puts(out, pieces[next_random((uint32_t)BASE_COUNT(pieces))]);
    } else if (kind < 8) {
        sb_putc(out, (char)next_random(128));
    } else {
        uint32_t x = next_random(kind == 8 ? 0x3000 : 0x30000);
        if (x >= 0xD800 && x < 0xE000)
            x = 'x';
        if ((text_property(x) & PROPERTY_CATEGORY) == CAT_CN)
            x = 0x378; /* PCRE2 may be shown another unassigned one, which matters in ranges */
        sb_add(out, c, (size_t)text_utf8_put(c, x));
    }
}

static int compare(const char *regex, text_scratch *s, const char *text, size_t n)
{
    text_pattern *own = NULL, *pcre = NULL;
    text_matcher a, b;
    err e;
    int bad = 0;
    if (text_pattern_compile(&own, regex, strlen(regex), &e) != STATUS_OK ||
        text_pattern_compile_pcre(&pcre, regex, strlen(regex), &e) != STATUS_OK)
        fail_msg("%s: %s", regex, e.text);
    s->budget = UINT64_MAX;
    assert_int_equal(text_matcher_init(&a, own, s, text, n, &e), STATUS_OK);
    assert_int_equal(text_matcher_init(&b, pcre, s, text, n, &e), STATUS_OK);
    for (;;) {
        size_t begin[2] = {0}, end[2] = {0};
        bool x = text_matcher_next(&a, &begin[0], &end[0]),
             y = text_matcher_next(&b, &begin[1], &end[1]);
        if (x != y || begin[0] != begin[1] || end[0] != end[1]) {
            size_t from = BASE_MIN(begin[0], begin[1]), to = BASE_MAX(end[0], end[1]);
            fprintf(stderr, "%.70s: own %d %zu-%zu, PCRE2 %d %zu-%zu:", regex, x, begin[0], end[0],
                    y, begin[1], end[1]);
            for (size_t i = from; i < to + 6 && i < n; i++)
                fprintf(stderr, " %02X", (unsigned char)text[i]);
            fprintf(stderr, "\n");
            bad = 1;
            break;
        }
        if (!x)
            break;
    }
    text_matcher_fini(&a);
    text_matcher_fini(&b);
    text_pattern_free(own);
    text_pattern_free(pcre);
    return bad;
}

static void test_presets_like_pcre2(void **state)
{
    text_scratch *s = NULL;
    err e;
    int bad = 0, own = 0, all = 0;
    (void)state;
    assert_int_equal(text_scratch_create(&s, &e), STATUS_OK);
    for (size_t i = 0; text_preset_at(i); i++) {
        const text_preset *p = text_preset_at(i);
        for (size_t k = 0; k < BASE_COUNT(p->regexes) && p->regexes[k]; k++) {
            text_pattern *pattern = NULL;
            assert_int_equal(
                text_pattern_compile(&pattern, p->regexes[k], strlen(p->regexes[k]), &e),
                STATUS_OK);
            own += text_pattern_is_own(pattern);
            all++;
            if (!text_pattern_is_own(pattern))
                printf("PCRE2 runs %.40s of %.30s\n", p->regexes[k], p->names);
            text_pattern_free(pattern);
            sb text = {0};
            while (text.length < 30000)
                add_random(&text);
            bad += compare(p->regexes[k], s, text.data, text.length);
            sb_fini(&text);
        }
    }
    printf("%d of %d splitters of presets are our own\n", own, all);
    assert_int_equal(bad, 0);
    assert_true(own >= all - 4);
    text_scratch_destroy(s);
}

static void test_odd_patterns(void **state)
{
    static const char *const regexes[] = {"a",
                                          "[ab]+c?",
                                          "\\s?\\p{L}{2,3}",
                                          "[^\\s]{2,}",
                                          "\\d+",
                                          "\\D",
                                          "\\w+|[^\\w\\s]+",
                                          "[\\w']+",
                                          "\\p{Lu}\\p{Ll}*",
                                          "\\P{L}+",
                                          "\\p{^L}",
                                          "\\pL+",
                                          "[\\p{L}&&[^\\p{Han}]]+",
                                          "[^\\p{Han}\\s]+",
                                          "(?i:abc|word)s?",
                                          "(?:ab|cd)?[a-z]",
                                          "[a-z]+(?![0-9])",
                                          "[a-z]+(?= )",
                                          "\\s+$",
                                          "[-a]+",
                                          "[a-]+",
                                          "[]a]+",
                                          "[^]a]+",
                                          "[\\]\\[]+",
                                          "\\x{4e2d}+",
                                          "[\\x{4e00}-\\x{9fff}]+",
                                          "\\x41",
                                          "'(?i:[sdmt]|ll|ve|re)|\\w+",
                                          "[^a-z]++[a-z]",
                                          "[A-Z]?+[a-z]+",
                                          "\\.|,|!",
                                          "\\p{N}{1}",
                                          "[\\t\\n\\r]+",
                                          "\\/\\/",
                                          "[\\s\\S]",
                                          "[\\S\\n]+"};
    text_scratch *s = NULL;
    err e;
    int bad = 0;
    (void)state;
    assert_int_equal(text_scratch_create(&s, &e), STATUS_OK);
    for (size_t i = 0; i < BASE_COUNT(regexes); i++) {
        text_pattern *p = NULL;
        assert_int_equal(text_pattern_compile(&p, regexes[i], strlen(regexes[i]), &e), STATUS_OK);
        if (!text_pattern_is_own(p))
            fail_msg("%s is left to PCRE2", regexes[i]);
        text_pattern_free(p);
        for (int round = 0; round < 20; round++) {
            sb text = {0};
            while (text.length < 300)
                add_random(&text);
            bad += compare(regexes[i], s, text.data, text.length);
            sb_fini(&text);
        }
    }
    assert_int_equal(bad, 0);
    text_scratch_destroy(s);
}

static void test_left_to_pcre2(void **state)
{
    static const char *const regexes[] = {
        "a*",         "(a+)+b", "x??",    "^a",           ".",      "(?=(\\d{3})+(?!\\d))",
        "\\bword\\b", "a|",     "(a)\\1", "[[:alpha:]]+", "a(?#c)b"};
    static const char *const wrong[] = {"[",        "(", "a{2,1}", "[z-a]", "\\", "\\p{Nonsense}",
                                        "(?<=a*)b", "*", "a\\C"};
    err e;
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(regexes); i++) {
        text_pattern *p = NULL;
        if (text_pattern_compile(&p, regexes[i], strlen(regexes[i]), &e) != STATUS_OK)
            fail_msg("%s: %s", regexes[i], e.text);
        assert_false(text_pattern_is_own(p));
        text_pattern_free(p);
    }
    for (size_t i = 0; i < BASE_COUNT(wrong); i++) {
        text_pattern *p = NULL;
        if (text_pattern_compile(&p, wrong[i], strlen(wrong[i]), &e) != STATUS_UNSUPPORTED)
            fail_msg("%s was taken", wrong[i]);
        assert_null(p);
    }
}

/* A pattern that backtracks without end must end all the same. */
static void test_hostile_patterns(void **state)
{
    static const char *const regexes[] = {"(a+)+b", "[a]+[a]+[a]+[a]+[a]+[a]+b", "(a|aa)+$x",
                                          "(?:a?){40}a{40}b"};
    char text[20000];
    text_scratch *s = NULL;
    err e;
    (void)state;
    memset(text, 'a', sizeof text);
    assert_int_equal(text_scratch_create(&s, &e), STATUS_OK);
    for (size_t i = 0; i < BASE_COUNT(regexes); i++) {
        text_pattern *p = NULL;
        text_matcher m;
        size_t begin, end;
        assert_int_equal(text_pattern_compile(&p, regexes[i], strlen(regexes[i]), &e), STATUS_OK);
        s->budget = 5000000;
        assert_int_equal(text_matcher_init(&m, p, s, text, sizeof text, &e), STATUS_OK);
        assert_false(text_matcher_next(&m, &begin, &end));
        if (text_pattern_is_own(p))
            assert_int_equal(s->budget, 0);
        text_matcher_fini(&m);
        text_pattern_free(p);
    }
    text_scratch_destroy(s);
}

static void test_unicode(void **state)
{
    (void)state;
    assert_string_equal(text_unicode_version, "15.0.0");
    assert_int_equal(text_property('A') & PROPERTY_CATEGORY, CAT_LU);
    assert_int_equal(text_property(0x31350) & PROPERTY_CATEGORY,
                     CAT_LO); /* CJK extension H, Unicode 15 */
    assert_true(text_property(0x31350) & PROPERTY_HAN);
    assert_int_equal(text_property(0x1FAE8) & PROPERTY_CATEGORY, CAT_SO);
    assert_int_equal(text_property(0x378) & PROPERTY_CATEGORY, CAT_CN);
    assert_int_equal(text_property(0x110000), CAT_CN);
    assert_int_equal(text_property(0x800000FFu), CAT_CN);
    assert_true(text_is_space(0x85) && text_is_space(0xA0) && text_is_space(0x3000) &&
                text_is_space('\v'));
    assert_false(text_is_space(0x180E) || text_is_space(0x200B) || text_is_space('x'));
    assert_true(text_property(0x3007) & PROPERTY_HAN);
    assert_true(text_is_punctuation('$') && text_is_punctuation(0x3002));
    assert_false(text_is_punctuation(0x20AC) || text_is_punctuation('a'));
    for (int b = 0; b < 256; b++) /* the byte map is one to one */
        assert_int_equal(text_char_to_byte(text_byte_to_char((unsigned char)b)), b);
    assert_int_equal(text_char_to_byte(0x144), -1);
    assert_int_equal(text_char_to_byte(' '), -1);
}

static void test_utf8(void **state)
{
    static const char *const invalid[] = {
        "\x80",         "\xC0\x80",         "\xC1\xBF",         "\xE0\x9F\xBF",
        "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
        "\xC3",         "\xE4\xB8",         "\xF0\x9F\x99",     "\xFF"};
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        char bytes[4];
        int length;
        if (c >= 0xD800 && c < 0xE000)
            continue;
        int n = text_utf8_put(bytes, c);
        if (text_utf8_length(bytes, (size_t)n) != n ||
            text_utf8_next(bytes, (size_t)n, &length) != c || length != n ||
            text_utf8_back(bytes, 0, (size_t)n) != 0)
            fail_msg("U+%04X", c);
        for (int k = 1; k < n; k++)
            if (text_utf8_length(bytes, (size_t)k) != 0)
                fail_msg("U+%04X cut after %d", c, k);
    }
    for (size_t i = 0; i < BASE_COUNT(invalid); i++) {
        int length;
        assert_int_equal(text_utf8_length(invalid[i], strlen(invalid[i])), 0);
        assert_true(text_utf8_next(invalid[i], strlen(invalid[i]), &length) & 0x80000000u);
        assert_int_equal(length, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_presets_like_pcre2),
                                       cmocka_unit_test(test_odd_patterns),
                                       cmocka_unit_test(test_left_to_pcre2),
                                       cmocka_unit_test(test_hostile_patterns),
                                       cmocka_unit_test(test_unicode),
                                       cmocka_unit_test(test_utf8)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
