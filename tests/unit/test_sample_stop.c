/*
 * Stop strings against a slow reference that sees the whole text: what is shown, what is held back, which string ended it; however the
 * text is cut into pieces.
 */
#include "sample/sample.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static sample_stop *make(const char *const *strings, int n)
{
    str list[8];
    sample_stop *s;
    for (int i = 0; i < n; i++)
        list[i] = str_from(strings[i]);
    assert_int_equal(sample_stop_create(&s, list, n, NULL), STATUS_OK);
    return s;
}

/* The first place where a string ends (the longest of them), by definition. */
static int reference_find(const char *text, size_t n, const char *const *strings, int n_strings,
                          size_t *end)
{
    for (size_t at = 1; at <= n; at++) {
        int found = -1;
        for (int i = 0; i < n_strings; i++) {
            size_t length = strlen(strings[i]);
            if (length <= at && memcmp(text + at - length, strings[i], length) == 0 &&
                (found < 0 || length > strlen(strings[found])))
                found = i;
        }
        if (found >= 0) {
            *end = at;
            return found;
        }
    }
    return -1;
}

static size_t reference_held(const char *text, size_t n, const char *const *strings, int n_strings)
{
    size_t held = 0;
    for (int i = 0; i < n_strings; i++)
        for (size_t k = 1; k < strlen(strings[i]) && k <= n; k++)
            if (k > held && memcmp(text + n - k, strings[i], k) == 0)
                held = k;
    return held;
}

/* Feeds text in pieces whose sizes come from `cuts`; compares after every piece. */
static void compare(const char *text, const char *const *strings, int n_strings, unsigned cuts)
{
    size_t n = strlen(text), end = 0, at = 0;
    int expected = reference_find(text, n, strings, n_strings, &end);
    sample_stop *s = make(strings, n_strings);
    sb shown;
    sb_init(&shown);
    int found = -1;
    while (at < n) {
        size_t piece = cuts ? 1 + (cuts >> (at % 13)) % 4 : n;
        piece = BASE_MIN(piece, n - at);
        found = sample_stop_feed(s, text + at, piece, &shown);
        at += piece;
        if (expected >= 0 && at >= end)
            break;
        assert_int_equal(found, -1);
        size_t held = reference_held(text, at, strings, n_strings);
        assert_int_equal(sample_stop_held(s), held);
        assert_int_equal(shown.length, at - held); /* no byte later than needed */
        assert_memory_equal(shown.data ? shown.data : "", text, shown.length);
    }
    assert_int_equal(found, expected);
    sample_stop_flush(s, &shown);
    size_t total = expected >= 0 ? end - strlen(strings[expected]) : n;
    assert_int_equal(shown.length, total);
    assert_memory_equal(shown.data ? shown.data : "", text, total);
    if (expected >= 0) { /* nothing more comes */
        assert_int_equal(sample_stop_feed(s, "abc", 3, &shown), expected);
        assert_int_equal(shown.length, total);
    }
    sb_fini(&shown);
    sample_stop_destroy(s);
}

static void known_texts(void **state)
{
    (void)state;
    static const char *const strings[] = {"</s>", "\n\nUser:", "aab", "END"};
    static const char *const texts[] = {
        "",         "plain", "a </s> b", "a </ s> <</s>", "aaaaab",          "x\n\n\nUser:",
        "x\n\nUse", "EN",    "ENDEND",   "EEND",          "caf\xC3\xA9 </s", "</s>"};
    for (size_t t = 0; t < BASE_COUNT(texts); t++)
        for (unsigned cuts = 0; cuts < 200; cuts++)
            compare(texts[t], strings, 4, cuts * 2654435761u >> 7);
}

static void random_texts(void **state)
{
    (void)state;
    uint64_t x = 42;
    for (int round = 0; round < 20000; round++) { /* two letters: borders everywhere */
        char text[40] = "", memory[4][8];
        const char *strings[4];
        int n = 1 + round % 4;
        for (int i = 0; i <= n; i++) {
            char *out = i < n ? memory[i] : text;
            x = x * 6364136223846793005u + 1442695040888963407u;
            size_t length = i < n ? 1 + (x >> 40) % 6 : (x >> 40) % 39;
            for (size_t k = 0; k < length; k++)
                out[k] = "ab"[(x >> k) % 2];
            out[length] = 0;
            if (i < n)
                strings[i] = out;
        }
        bool same = false; /* of two equal ones either may be named */
        for (int i = 0; i < n; i++)
            for (int k = 0; k < i; k++)
                same = same || strcmp(strings[i], strings[k]) == 0;
        if (!same)
            compare(text, strings, n, (unsigned)(x >> 20) | 1);
    }
}

static void none_and_bad_ones(void **state)
{
    (void)state;
    sample_stop *s = NULL;
    sb shown;
    err e;
    sb_init(&shown);
    assert_int_equal(sample_stop_create(&s, NULL, 0, &e), STATUS_OK);
    assert_int_equal(sample_stop_feed(s, "all of it", 9, &shown), -1);
    assert_int_equal(sample_stop_feed(s, NULL, 0, &shown), -1);
    assert_string_equal(shown.data, "all of it");
    sample_stop_destroy(s);
    sample_stop_destroy(NULL);
    s = NULL;
    str bad[] = {{"x", 1}, {"", 0}}, large[] = {{"x", 1}, {"x", SAMPLE_STOP_BYTES}};
    assert_int_equal(sample_stop_create(&s, bad, 2, &e), STATUS_INVALID);
    assert_int_equal(sample_stop_create(&s, large, 2, &e), STATUS_TOO_LONG);
    for (uint64_t n = 1;; n++) {
        base_fail_after(n);
        status result = sample_stop_create(&s, bad, 1, &e);
        base_fail_after(0);
        if (result == STATUS_OK)
            break;
        assert_int_equal(result, STATUS_NO_MEMORY);
        assert_null(s);
    }
    sb_clear(&shown);
    assert_int_equal(sample_stop_feed(s, "a\0bx", 4, &shown), 0); /* any bytes */
    assert_int_equal(shown.length, 3);
    sample_stop_destroy(s);
    sb_fini(&shown);
}

static void a_flushed_matcher_starts_anew(void **state)
{
    (void)state;
    static const char *const strings[] = {"ab"};
    sample_stop *s = make(strings, 1);
    sb shown;
    sb_init(&shown);
    assert_int_equal(sample_stop_feed(s, "xa", 2, &shown), -1);
    assert_string_equal(shown.data, "x");
    sample_stop_flush(s, &shown);
    assert_string_equal(shown.data, "xa");
    assert_int_equal(sample_stop_feed(s, "b", 1, &shown), -1);
    assert_string_equal(shown.data, "xab");
    sb_fini(&shown);
    sample_stop_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_texts),
        cmocka_unit_test(random_texts),
        cmocka_unit_test(none_and_bad_ones),
        cmocka_unit_test(a_flushed_matcher_starts_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
