/* cli: colours of Markdown that arrives in pieces, cleaned text, widths and amounts. */
#include "cli/look.h"
#include "cli/markdown.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <locale.h>
#include <string.h>

static const look colours = {true, true, "<b>", "<d>", "<c>", "<w>", "<o>"};

/* Fed in pieces of n bytes; every text is given once with all sizes of pieces, and all must look alike. */
static char *shown(const char *text, size_t n)
{
    sb out = {0};
    markdown m;
    markdown_begin(&m, &colours);
    for (size_t i = 0; i < strlen(text); i += n)
        markdown_feed(&m, &out, text + i, BASE_MIN(n, strlen(text) - i));
    markdown_end(&m, &out);
    return sb_take(&out);
}

static void assert_shown(const char *text, const char *expected)
{
    for (size_t n = 1; n <= strlen(text); n++) {
        char *got = shown(text, n);
        assert_string_equal(got, expected);
        base_free(got);
    }
}

static void marks_become_colours(void **state)
{
    (void)state;
    assert_shown("plain", "plain");
    assert_shown("a **b** c", "a <o><b>**b**<o> c");
    assert_shown("a `b` c", "a <o><c>`b`<o> c");
    assert_shown("``a`b``", "<o><c>``a`b``<o>");
    assert_shown("# T\nx", "<o><b># T<o>\nx");
    assert_shown("#T #1\n####### x", "#T #1\n####### x");
    assert_shown("x # y", "x # y");
    assert_shown("2*3*4", "2*3*4");
    assert_shown("* item\n* **x**", "* item\n* <o><b>**x**<o>");
    assert_shown("`a **b** c`", "<o><c>`a **b** c`<o>");
    assert_shown("**open\nnext", "<o><b>**open<o>\nnext");
    assert_shown("**open", "<o><b>**open<o>");
    assert_shown("*", "*");
    assert_shown("", "");
}

static void fences(void **state)
{
    (void)state;
    assert_shown("```c\nx = `1`; **y**\n# z\n```\nend",
                 "<o><d>```c<o><c>\nx = `1`; **y**\n# z\n<o><d>```<o>\nend");
    assert_shown("  ```\nx", "  <o><d>```<o><c>\nx<o>");
}

static void control_characters_are_replaced(void **state)
{
    sb out = {0};
    (void)state;
    static const char text[] = "a\033[2J\tb\nc\x7f\xc2\x9b\xc3\xa9\r\0!";
    look_clean(&out, text, sizeof text - 1);
    assert_int_equal(out.length, strlen("a?[2J\tb\nc??\xc3\xa9?"
                                        "?!"));
    assert_string_equal(out.data, "a?[2J\tb\nc??\xc3\xa9?"
                                  "?!");
    sb_fini(&out);
}

static void amounts(void **state)
{
    char out[32];
    (void)state;
    assert_string_equal(look_count(out, 999), "999");
    assert_string_equal(look_count(out, 1000), "1 k");
    assert_string_equal(look_count(out, 1235814400), "1.24 B");
    assert_string_equal(look_count(out, 999999), "1 M");
    assert_string_equal(look_span(out, UINT64_MAX), "never");
    assert_string_equal(look_span(out, 90 * 1000000ull), "90 s");
    assert_string_equal(look_span(out, 30 * 60 * 1000000ull), "30 min");
    assert_string_equal(look_ago(out, 1000, 1030), "just now");
    assert_string_equal(look_ago(out, 1000, 1000 + 3600), "1 hour ago");
    assert_string_equal(look_ago(out, 1000, 1000 + 3 * 86400), "3 days ago");
    assert_string_equal(look_ago(out, 1000, 500), "just now"); /* a clock that was set back */
    assert_string_equal(look_ago(out, 0, 500), "");
}

static void widths(void **state)
{
    (void)state;
    assert_int_equal(look_width("abc"), 3);
    assert_int_equal(look_width("\xff\xfe"), 2);
    assert_int_equal(look_width("a\xc3\xa9"), 2);
    if (setlocale(LC_CTYPE, "C.UTF-8")) {
        assert_int_equal(look_width("a\xc3\xa9"), 2);
        assert_int_equal(look_width("\xe6\xb1\x89"), 2); /* a wide character */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_become_colours),
        cmocka_unit_test(fences),
        cmocka_unit_test(control_characters_are_replaced),
        cmocka_unit_test(amounts),
        cmocka_unit_test(widths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
