/*
 * Templates that want to take the machine: endless recursion, exponential text, quadratic lists, nesting that overflows stacks, formats
 * of a gigabyte. Each must end with the budget's status, on a stack of 1 MiB (what os_thread_create gives).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "chat/chat.h"

/* A sanitizer's frames are several times as large. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_BYTES (8u << 20)
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define STACK_BYTES (8u << 20)
#endif
#endif
#ifndef STACK_BYTES
#define STACK_BYTES (1u << 20)
#endif

typedef struct job {
    const char *source, *json;
    size_t n, n_json;
    chat_render_options options;
    status parsed, rendered;
    err e;
    size_t length;
} job;

static void *run(void *context)
{
    job *j = context;
    chat_template *t;
    sb out;
    sb_init(&out);
    j->parsed = chat_template_parse(&t, j->source, j->n, &j->e);
    if (j->parsed == STATUS_OK) {
        j->rendered = chat_render(t, j->json, j->n_json, &j->options, &out, &j->e);
        j->length = out.length;
        chat_template_destroy(t);
    }
    sb_fini(&out);
    return NULL;
}

static void run_on_small_stack(job *j)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    assert_int_equal(pthread_attr_setstacksize(&attributes, STACK_BYTES), 0);
    assert_int_equal(pthread_create(&thread, &attributes, run, j), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
}

static job make(const char *source, size_t n)
{
    job j = {.source = source, .json = "{\"n\": 1}", .n = n, .n_json = 8};
    j.options =
        (chat_render_options){.max_steps = 2000000, .max_output = 4 << 20, .max_memory = 64 << 20};
    return j;
}

static void expect_budget(const char *source)
{
    job j = make(source, strlen(source));
    run_on_small_stack(&j);
    if (j.parsed != STATUS_OK || j.rendered != STATUS_TOO_LARGE)
        fail_msg("%.80s: parsed %s, rendered %s: %s", source, status_name(j.parsed),
                 status_name(j.rendered), j.e.text);
    assert_non_null(strstr(j.e.text, "chat template: "));
}

static void test_recursion(void **state)
{
    (void)state;
    expect_budget("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
    expect_budget("{% macro f(x) %}{% if true %}{% for i in [1] %}{% with a=1 %}{{ f([x]) }}{% "
                  "endwith %}{% endfor %}{% endif %}"
                  "{% endmacro %}{{ f(1) }}");
    expect_budget("{% macro a() %}{% call b() %}{{ a() }}{% endcall %}{% endmacro %}{% macro b() "
                  "%}{{ caller() }}{% endmacro %}{{ a() }}");
    expect_budget("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}");
    expect_budget("{% macro f(x=f()) %}{% endmacro %}{{ f() }}");
    expect_budget("{% macro f() %}{% filter upper %}{{ f() }}{% endfilter %}{% set x %}{{ f() }}{% "
                  "endset %}{% endmacro %}{{ f() }}");
    expect_budget(
        "{% macro f() %}{{ [f()] | map('string') | join(f()) ~ f() }}{% endmacro %}{{ f() }}");
}

static void test_blow_up(void **state)
{
    (void)state;
    expect_budget(
        "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n else 'x' }}{% endmacro %}{{ f(40) }}");
    expect_budget("{{ 'x' * 100000000 * 100000000 }}");
    expect_budget("{{ 'x' * 9223372036854775807 }}");
    expect_budget("{{ [1, 2] * 1000000000 }}");
    expect_budget("{% set ns = namespace(s='x') %}{% for i in range(100000) %}{% set ns.s = ns.s ~ "
                  "ns.s %}{% endfor %}");
    expect_budget("{% set ns = namespace(s=[1]) %}{% for i in range(100000) %}{% set ns.s = ns.s + "
                  "ns.s %}{% endfor %}");
    expect_budget(
        "{% set l = [1] %}{% for i in range(1000) %}{% if l.extend(l) %}{% endif %}{% endfor %}");
    expect_budget(
        "{% for a in range(100000) %}{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}");
    expect_budget("{% for a in range(100000) %}{{ 'x' * 1000 }}{% endfor %}");
    expect_budget("{{ range(1000000) | list }}");
    expect_budget("{{ '%999999999d' % 1 }}");
    expect_budget("{{ '%.999999999f' % 1.0 }}");
    expect_budget("{{ '{:999999999}'.format(1) }}");
    expect_budget("{{ 'x'.center(999999999) }}");
    expect_budget("{{ ('a' * 3000) | replace('', 'b' * 30000) }}");
    expect_budget("{{ ('a' * 100000) | indent(1000000) | indent(100000000) }}");
    expect_budget("{{ [[[[1]]]] | tojson(indent='x' * 3000000) }}");
    expect_budget("{{ 10 ** 1000 }}");
    expect_budget("{{ [1] | batch(1000000000, 'x') | list }}");
    expect_budget("{{ [1] | slice(1000000000, 'x') | list }}");
    expect_budget("{{ ('x\\n' * 400000) | wordwrap(1) | wordwrap(1, true, 'y' * 100) }}");
    expect_budget("{% set l = [0] %}{% for i in range(100000) %}{% if l.insert(0, i) %}{% endif "
                  "%}{{ l | length if 0 }}{% endfor %}"
                  "{% for i in l %}{% if l.pop(0) in l %}{% endif %}{% endfor %}");
}

static void test_cycles(void **state)
{
    (void)state;
    expect_budget("{% set l = [] %}{% if l.append(l) %}{% endif %}{{ l }}");
    expect_budget("{% set l = [] %}{% if l.append(l) %}{% endif %}{{ l | tojson }}");
    expect_budget("{% set a = [] %}{% set b = [] %}{% if a.append(b) or b.append(a) %}{% endif "
                  "%}{{ a == b }}");
    expect_budget("{% set a = {} %}{% set b = {} %}{% if a.update(x=b) or b.update(x=a) %}{% endif "
                  "%}{{ a == b }}{{ a }}");
    expect_budget("{% set a = [] %}{% set b = [] %}{% if a.append(b) or b.append(a) %}{% endif "
                  "%}{{ a < b }}");
}

/* prefix × n + middle + suffix × n: parsed or refused, rendered or over the budget, and nothing else. */
static void nested(const char *prefix, const char *middle, const char *suffix, int n,
                   bool must_parse)
{
    sb source;
    sb_init(&source);
    for (int i = 0; i < n; i++)
        sb_puts(&source, prefix);
    sb_puts(&source, middle);
    for (int i = 0; i < n; i++)
        sb_puts(&source, suffix);
    job j = make(source.data, source.length);
    run_on_small_stack(&j);
    if (must_parse)
        assert_int_equal(j.parsed, STATUS_OK);
    assert_true(j.parsed == STATUS_OK || j.parsed == STATUS_CORRUPT);
    if (j.parsed == STATUS_OK)
        assert_true(j.rendered == STATUS_OK || j.rendered == STATUS_TOO_LARGE ||
                    j.rendered == STATUS_CORRUPT);
    sb_fini(&source);
}

static void test_nesting(void **state)
{
    (void)state;
    static const struct {
        const char *prefix, *middle, *suffix;
    } rows[] = {
        {"{% if 1 %}", "x", "{% endif %}"},         {"{% for a in [1] %}", "x", "{% endfor %}"},
        {"{% macro m() %}", "x", "{% endmacro %}"}, {"{% filter upper %}", "x", "{% endfilter %}"},
        {"{% if 1 %}a{% elif 2 %}", "x", ""},
    };
    static const struct {
        const char *begin, *prefix, *middle, *suffix, *end;
    } inside[] = {
        {"{{ ", "(", "1", ")", " }}"},           {"{{ ", "[", "1", "]", " }}"},
        {"{{ ", "{1:", "1", "}", " }}"},         {"{{ ", "-", "1", "", " }}"},
        {"{{ ", "not ", "1", "", " }}"},         {"{{ ", "x(", "1", ")", " }}"},
        {"{{ 1", " + 1", "", "", " }}"},         {"{{ 1", " ~ 1", "", "", " }}"},
        {"{{ x", ".x", "", "", " }}"},           {"{{ x", "[0", "", "]", " }}"},
        {"{{ x", "|string", "", "", " }}"},      {"{{ x", " is string", "", "", " }}"},
        {"{{ 1", " if 1 else 1", "", "", " }}"}, {"{{ 1", " and 1", "", "", " }}"},
        {"{{ 1", " == 1", "", "", " }}"},        {"{{ 1", " ** 1", "", "", " }}"},
        {"{{ ", "'a'", "", "", " }}"},           {"{% set ", "(", "a", ")", " = 1 %}"},
    };
    for (size_t i = 0; i < BASE_COUNT(rows); i++)
        nested(rows[i].prefix, rows[i].middle, rows[i].suffix, 20000, false);
    for (size_t i = 0; i < BASE_COUNT(inside); i++) {
        for (int n = 10; n <= 20000; n *= 20) {
            sb source;
            sb_init(&source);
            sb_puts(&source, inside[i].begin);
            for (int k = 0; k < n; k++)
                sb_puts(&source, inside[i].prefix);
            sb_puts(&source, inside[i].middle);
            for (int k = 0; k < n; k++)
                sb_puts(&source, inside[i].suffix);
            sb_puts(&source, inside[i].end);
            nested("", source.data, "", 0, false);
            sb_fini(&source);
        }
    }
    nested("{% if 1 %}{% for a in [1] %}", "x", "{% endfor %}{% endif %}", 40, true);
}

static void test_deep_variables(void **state)
{
    (void)state;
    for (int n = 100; n <= 1000000; n *= 100) {
        sb json;
        sb_init(&json);
        sb_puts(&json, "{\"x\": ");
        for (int i = 0; i < n; i++)
            sb_putc(&json, '[');
        for (int i = 0; i < n; i++)
            sb_putc(&json, ']');
        sb_putc(&json, '}');
        const char *source = "{{ x }}{{ x | tojson }}{{ x == x }}";
        job j = make(source, strlen(source));
        j.json = json.data;
        j.n_json = json.length;
        run_on_small_stack(&j);
        assert_int_equal(j.parsed, STATUS_OK);
        assert_int_equal(j.rendered, n == 100 ? STATUS_OK : STATUS_CORRUPT);
        sb_fini(&json);
    }
}

/* 10 MB of message pass with the default budget. */
static void test_long_prompt(void **state)
{
    (void)state;
    sb json;
    sb_init(&json);
    sb_puts(&json, "{\"messages\": [{\"role\": \"user\", \"content\": \"");
    for (int i = 0; i < 1000000; i++)
        sb_puts(&json, "0123456789");
    sb_puts(&json, "\"}], \"add_generation_prompt\": true}");
    str source = chat_template_chatml();
    job j = {.source = source.data, .n = source.length, .json = json.data, .n_json = json.length};
    run_on_small_stack(&j);
    assert_int_equal(j.rendered, STATUS_OK);
    assert_true(j.length > 10000000);
    sb_fini(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recursion),      cmocka_unit_test(test_blow_up),
        cmocka_unit_test(test_cycles),         cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_deep_variables), cmocka_unit_test(test_long_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
