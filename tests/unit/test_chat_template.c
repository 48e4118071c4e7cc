/*
 * The template interpreter: our own twelve templates over our own conversations (tests/data/templates, made by
 * tools/make_chat_expected.py), the fixtures' templates when SHOAL_FIXTURES names them, errors, choice, traits, adaptation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"

static char *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s cannot be opened", path);
    sb text;
    sb_init(&text);
    char block[8192];
    for (size_t got; (got = fread(block, 1, sizeof block, f)) > 0;)
        sb_add(&text, block, got);
    fclose(f);
    *n = text.length;
    return sb_take(&text);
}

static json_t *read_json(const char *path)
{
    json_error_t error;
    json_t *v = json_load_file(path, 0, &error);
    if (!v)
        fail_msg("%s: line %d: %s", path, error.line, error.text);
    return v;
}

static chat_template *parse(const char *source)
{
    chat_template *t = NULL;
    err e;
    if (chat_template_parse(&t, source, strlen(source), &e) != STATUS_OK)
        fail_msg("%s: %s", source, e.text);
    return t;
}

static chat_template *parse_file(const char *path)
{
    size_t n;
    char *source = read_file(path, &n);
    chat_template *t = NULL;
    err e;
    if (chat_template_parse(&t, source, n, &e) != STATUS_OK)
        fail_msg("%s: %s", path, e.text);
    base_free(source);
    return t;
}

/* Renders and gives the text or, in front of a message, the name of the status. */
static char *render_with(const chat_template *t, const char *json, const chat_render_options *o)
{
    sb out;
    err e;
    sb_init(&out);
    status s = chat_render(t, json, strlen(json), o, &out, &e);
    if (s != STATUS_OK) {
        assert_int_equal(out.length, 0);
        sb_printf(&out, "%s: %s", status_name(s), e.text);
    }
    return sb_take(&out);
}

static void expect_with(const char *source, const char *json, const chat_render_options *o,
                        const char *want)
{
    chat_template *t = parse(source);
    char *got = render_with(t, json, o);
    assert_string_equal(got, want);
    base_free(got);
    chat_template_destroy(t);
}

static void expect(const char *source, const char *json, const char *want)
{
    expect_with(source, json, NULL, want);
}

static void expect_no_parse(const char *source, const char *message)
{
    chat_template *t = NULL;
    err e;
    assert_int_equal(chat_template_parse(&t, source, strlen(source), &e), STATUS_CORRUPT);
    assert_null(t);
    assert_string_equal(e.text, message);
}

/* ---- whole templates ------------------------------------------------------------------------------------------------ */

static void test_own_templates(void **state)
{
    (void)state;
    json_t *expected = read_json(TEST_DATA "/templates/expected.json"), *cases;
    json_t *conversations = read_json(TEST_DATA "/templates/conversations.json"), *c;
    const char *name;
    size_t at, n = 0;
    chat_render_options o = {0};
    o.bos_token = str_from(json_string_value(json_object_get(expected, "bos_token")));
    o.eos_token = str_from(json_string_value(json_object_get(expected, "eos_token")));
    assert_true(chat_time_parse(json_string_value(json_object_get(expected, "now")), &o.now));
    json_object_foreach(json_object_get(expected, "templates"), name, cases)
    {
        char path[512];
        snprintf(path, sizeof path, "%s/templates/%s.jinja", TEST_DATA, name);
        chat_template *t = parse_file(path);
        json_array_foreach(conversations, at, c)
        {
            const json_t *want =
                json_object_get(cases, json_string_value(json_object_get(c, "id")));
            const json_t *text = json_object_get(want, "expected"),
                         *refusal = json_object_get(want, "refusal");
            char *json = json_dumps(c, 0), *got = render_with(t, json, &o);
            if (text)
                assert_string_equal(got, json_string_value(text));
            else if (refusal) {
                assert_int_equal(strncmp(got, "INVALID: ", 9), 0);
                assert_string_equal(got + 9, json_string_value(refusal));
            } else
                assert_string_equal(got + 9, json_string_value(json_object_get(want, "failure")));
            base_free(got);
            free(json);
            n++;
        }
        chat_template_destroy(t);
    }
    assert_true(n >= 12 * 13);
    json_decref(expected);
    json_decref(conversations);
}

/* One case of the fixtures; true when it counts. */
static bool fixture_case(const chat_template *t, json_t *file, json_t *c, const char *where)
{
    const json_t *text = json_object_get(c, "expected"),
                 *refusal = json_object_get(c, "expected_error");
    const char *key;
    json_t *v;
    chat_render_options o = {0};
    if (!text && !refusal)
        return false;
    json_t *variables = json_object();
    assert_true(chat_time_parse(json_string_value(json_object_get(file, "now")), &o.now));
    json_object_set(variables, "bos_token", json_object_get(file, "bos_token"));
    json_object_set(variables, "eos_token", json_object_get(file, "eos_token"));
    json_object_set(variables, "messages", json_object_get(c, "messages"));
    json_object_set(variables, "add_generation_prompt",
                    json_object_get(c, "add_generation_prompt"));
    if (json_object_get(c, "tools"))
        json_object_set(variables, "tools", json_object_get(c, "tools"));
    json_object_foreach(json_object_get(c, "kwargs"), key, v) json_object_set(variables, key, v);
    char *json = json_dumps(variables, 0), *got = render_with(t, json, &o);
    const char *want = json_string_value(text ? text : refusal);
    if (strcmp(text ? got : got + 9, want) != 0 || (refusal && strncmp(got, "INVALID: ", 9) != 0))
        fail_msg("%s, %s:\n%s\nwanted:\n%s", where, json_string_value(json_object_get(c, "id")),
                 got, want);
    base_free(got);
    free(json);
    json_decref(variables);
    return true;
}

static void test_fixtures(void **state)
{
    (void)state;
    const char *root = getenv("SHOAL_FIXTURES");
    char path[1024];
    if (!root) {
        print_message("skipped: SHOAL_FIXTURES is not set\n");
        skip();
    }
    snprintf(path, sizeof path, "%s/templates/cases", root);
    DIR *d = opendir(path);
    assert_non_null(d);
    size_t n = 0, at;
    for (struct dirent *entry; (entry = readdir(d));) {
        if (!strstr(entry->d_name, ".json"))
            continue;
        snprintf(path, sizeof path, "%s/templates/cases/%s", root, entry->d_name);
        json_t *file = read_json(path), *c;
        snprintf(path, sizeof path, "%s/templates/jinja/%s", root,
                 json_string_value(json_object_get(file, "template")));
        chat_template *t = parse_file(path);
        json_array_foreach(json_object_get(file, "cases"), at, c) n +=
            fixture_case(t, file, c, entry->d_name);
        chat_template_destroy(t);
        json_decref(file);
    }
    closedir(d);
    print_message("%zu template cases of the fixtures\n", n);
    assert_true(n >= 100);
}

/* ---- errors --------------------------------------------------------------------------------------------------------- */

static void test_syntax_errors(void **state)
{
    (void)state;
    expect_no_parse("a\n {% if x %}",
                    "chat template: line 2 column 12: the template ends before 'endif'");
    expect_no_parse("{{ 1 +", "chat template: line 1 column 1: this expression has no }}");
    expect_no_parse("{% if", "chat template: line 1 column 1: this tag has no %}");
    expect_no_parse("x {# y", "chat template: line 1 column 3: this comment has no end");
    expect_no_parse("{% raw %} x", "chat template: line 1 column 1: this raw block has no end");
    expect_no_parse("{% frob %}", "chat template: line 1 column 4: unknown tag 'frob'");
    expect_no_parse("{{ a b }}", "chat template: line 1 column 6: expected }}, got 'b'");
    expect_no_parse("{{ }}", "chat template: line 1 column 4: expected an expression");
    expect_no_parse("{{ [1) }}",
                    "chat template: line 1 column 6: a closing bracket that closes nothing");
    expect_no_parse("{{ 'x }}", "chat template: line 1 column 4: this string has no end");
    expect_no_parse(
        "{{ 'x\\u12' }}",
        "chat template: line 1 column 4: an escape in this string that is cut, too large or \\N");
    expect_no_parse("{% break %}", "chat template: line 1 column 4: 'break' outside a loop");
    expect_no_parse("{% for f() in x %}{% endfor %}",
                    "chat template: line 1 column 9: expected in, got '('");
    expect_no_parse("{% set 3 = x %}", "chat template: line 1 column 8: cannot assign to this: a "
                                       "name or a tuple of names is expected");
    expect_no_parse("{% macro m(a=1, b) %}{% endmacro %}",
                    "chat template: line 1 column 17: a parameter without a default follows one "
                    "with a default");
    expect_no_parse("{{ 99999999999999999999 }}",
                    "chat template: line 1 column 4: this integer does not fit 64 bits");
    expect_no_parse("{{ a $ b }}",
                    "chat template: line 1 column 6: a character that no expression has");
    expect_no_parse("\xff", "chat template: not UTF-8 at byte 0 of 1");
    expect_no_parse("{% endif %}", "chat template: line 1 column 4: unknown tag 'endif'");
}

static void test_render_errors(void **state)
{
    (void)state;
    expect("{{ raise_exception('no: ' ~ 3) }}", "{}", "INVALID: no: 3");
    expect("a\n{{ x.y.z }}", "{\"x\": {}}",
           "CORRUPT: chat template: line 2 column 7: 'dict object' has no attribute 'y'");
    expect("{{ nope() }}", "{}", "CORRUPT: chat template: line 1 column 8: 'nope' is undefined");
    expect("{{ 1 + 'a' }}", "{}",
           "CORRUPT: chat template: line 1 column 6: unsupported operand type(s) for +: 'int' and "
           "'str'");
    expect("{{ x | frob }}", "{}",
           "CORRUPT: chat template: line 1 column 8: no filter named 'frob'");
    expect(
        "{{ [] | tojson(1, 2, 3, 4, 5) }}", "{}",
        "CORRUPT: chat template: line 1 column 9: tojson: at most 4 argument(s) expected, got 5");
    expect("{{ 'x' | replace('a') }}", "{}",
           "CORRUPT: chat template: line 1 column 10: replace: missing the argument 'new'");
    expect("{{ x | tojson }}", "{}",
           "CORRUPT: chat template: line 1 column 8: Object of type Undefined is not JSON "
           "serializable");
    expect("{{ strftime_now('%Y') }}", "{}",
           "CORRUPT: chat template: line 1 column 16: 'strftime_now' is undefined");
    expect("", "[]",
           "CORRUPT: chat template: template variables: an object is expected, got 'list'");
    expect("", "{\"a\": 01}",
           "CORRUPT: chat template: template variables: a malformed number at byte 8 of the JSON "
           "text");
    expect("", "{\"a\": \"\x01\"}",
           "CORRUPT: chat template: template variables: a control character in a string at byte 7 "
           "of the JSON text");
    expect("", "{} x",
           "CORRUPT: chat template: template variables: text behind the value at byte 3 of the "
           "JSON text");
}

/* What was there stays, also when the render fails late. */
static void test_output_is_appended(void **state)
{
    (void)state;
    sb out;
    err e;
    chat_template *t = parse("text {{ raise_exception('x') if bad }}");
    sb_init(&out);
    sb_puts(&out, "before ");
    assert_int_equal(chat_render(t, "{\"bad\": true}", 13, NULL, &out, &e), STATUS_INVALID);
    assert_string_equal(out.data, "before ");
    assert_int_equal(chat_render(t, "{}", 2, NULL, &out, NULL), STATUS_OK);
    assert_string_equal(out.data, "before text ");
    sb_fini(&out);
    chat_template_destroy(t);
}

/* ---- variables ------------------------------------------------------------------------------------------------------ */

static void test_variables(void **state)
{
    (void)state;
    expect("{{ messages }}{{ tools }}{{ documents }}{{ add_generation_prompt }}[{{ bos_token }}]",
           "{}", "[]NoneNoneFalse[]");
    expect("{{ x }} {{ x is integer }} {{ x | tojson }}", "{\"x\": 123456789012345678901234567890}",
           "123456789012345678901234567890 True 123456789012345678901234567890");
    expect("{{ d | tojson }}", "{\"d\": {\"z\": 1, \"a\": [1.0, 1e3, -0.5, true, null], \"z\": 2}}",
           "{\"z\": 2, \"a\": [1.0, 1000.0, -0.5, true, null]}");
    expect("{{ s }}", "{\"s\": \"\\ud83d\\ude00 \\ud83d \\u00e9\\n\\/\"}",
           "\xf0\x9f\x98\x80 \xef\xbf\xbd \xc3\xa9\n/");
    expect("{{ d.k50 }} {{ d | length }} {{ d.k7 }} {{ d.k8 is defined }}",
           "{\"d\": "
           "{\"k1\":1,\"k2\":2,\"k3\":3,\"k4\":4,\"k5\":5,\"k6\":6,\"k7\":7,\"k50\":50,\"k9\":9,"
           "\"k10\":10,\"k11\":11}}",
           "50 11 7 False");
    expect("{{ '%s' % (s | length) }}{{ s[1:3] }}", "{\"s\": \"\\u65e5\\u672c\\u8a9e\"}",
           "3\xe6\x9c\xac\xe8\xaa\x9e");
    chat_render_options o = {.bos_token = {"<b>", 3}, .eos_token = {"<e>", 3}};
    expect_with("{{ bos_token }}{{ eos_token }}", "{\"eos_token\": \"mine\"}", &o, "<b>mine");
}

static void test_time(void **state)
{
    (void)state;
    chat_time t = chat_time_from_unix(0, 0);
    assert_int_equal(t.year * 10000 + t.month * 100 + t.day, 19700101);
    t = chat_time_from_unix(951827696, 0);
    assert_int_equal(t.year * 10000 + t.month * 100 + t.day, 20000229);
    assert_int_equal(t.hour * 10000 + t.minute * 100 + t.second, 123456);
    t = chat_time_from_unix(-1, 3600);
    assert_int_equal(t.year * 10000 + t.month * 100 + t.day, 19700101);
    assert_int_equal(t.hour, 0);
    assert_true(chat_time_parse("2024-12-30 23:59", &t));
    assert_int_equal(t.minute, 59);
    assert_true(chat_time_parse("2024-12-30T01:02:03.456Z", &t));
    assert_false(chat_time_parse("2024-13-30", &t));
    assert_false(chat_time_parse("yesterday", &t));
    assert_false(chat_time_parse("2024-12-30T", &t));
    chat_render_options o = {.now = {2027, 1, 1, 0, 5, 9}};
    expect_with("{{ strftime_now('%a %d %b %Y %j %U %W %V %G %u %I:%M:%S%p %-d %e %F %T %%') }}",
                "{}", &o,
                "Fri 01 Jan 2027 001 00 00 53 2026 5 12:05:09AM 1  1 2027-01-01 00:05:09 %");
}

/* ---- choice, traits, adaptation --------------------------------------------------------------------------------------- */

static void test_select(void **state)
{
    (void)state;
    err e;
    str out;
    bool fallback;
    const chat_named_template both[] = {{str_from("default"), str_from("D")},
                                        {str_from("tool_use"), str_from("T")}};
    const chat_named_template odd[] = {{str_from("rag"), str_from("R")}};
    const chat_named_template two[] = {{str_from("rag"), str_from("R")},
                                       {str_from("x"), str_from("X")}};
    assert_int_equal(chat_template_select(&out, &fallback, both, 2, NULL, false, &e), STATUS_OK);
    assert_true(str_is(out, "D") && !fallback);
    assert_int_equal(chat_template_select(&out, &fallback, both, 2, "", true, &e), STATUS_OK);
    assert_true(str_is(out, "T"));
    assert_int_equal(chat_template_select(&out, &fallback, odd, 1, NULL, true, &e), STATUS_OK);
    assert_true(str_is(out, "R"));
    assert_int_equal(chat_template_select(&out, &fallback, two, 2, NULL, true, &e),
                     STATUS_NOT_FOUND);
    assert_int_equal(chat_template_select(&out, &fallback, both, 2, "rag", true, &e),
                     STATUS_NOT_FOUND);
    assert_string_equal(e.text,
                        "the model has no chat template named 'rag'; there is: default, tool_use");
    log_set_level(LOG_ERROR);
    assert_int_equal(chat_template_select(&out, &fallback, NULL, 0, NULL, true, &e), STATUS_OK);
    assert_true(fallback);
    assert_true(str_equal(out, chat_template_chatml()));
}

static void test_chatml(void **state)
{
    (void)state;
    str source = chat_template_chatml();
    chat_template *t;
    err e;
    assert_int_equal(chat_template_parse(&t, source.data, source.length, &e), STATUS_OK);
    const chat_traits *traits = chat_template_traits(t);
    assert_true(traits->system_role && traits->tools && traits->generation_prompt &&
                traits->argument_strings && traits->argument_objects);
    char *got = render_with(t,
                            "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": "
                            "\"assistant\", \"content\": null, "
                            "\"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": "
                            "{\"x\": 1}}}]}, {\"role\": \"tool\", "
                            "\"content\": \"r\"}], \"add_generation_prompt\": true}",
                            NULL);
    assert_string_equal(
        got, "<|im_start|>system\nYou are a helpful "
             "assistant.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
             "<|im_start|>assistant\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": "
             "1}}\n</tool_call>"
             "<|im_end|>\n<|im_start|>user\n<tool_response>\nr\n</tool_response><|im_end|>\n"
             "<|im_start|>assistant\n");
    base_free(got);
    chat_template_destroy(t);
}

#define CALLS "{% for m in messages %}{{ m.role }}:{{ m.content }}{% for c in m.tool_calls or [] %}"

static void test_adapt(void **state)
{
    (void)state;
    chat_render_options o = {.adapt = true};
    const char *text = "{\"messages\": [{\"role\": \"assistant\", \"content\": \"\", \"name\": "
                       "null, \"tool_calls\": [{\"function\": "
                       "{\"name\": \"f\", \"arguments\": \"{\\\"x\\\": [1]}\"}}]}]}";
    const char *object = "{\"messages\": [{\"role\": \"assistant\", \"content\": \"\", "
                         "\"tool_calls\": [{\"function\": {\"name\": \"f\", "
                         "\"arguments\": {\"x\": [1]}}}]}]}";
    /* wants objects */
    expect_with(CALLS "{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}", text, &o,
                "assistant:{\"x\": [1]}");
    expect_with(CALLS "{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}", text, NULL,
                "assistant:\"{\\\"x\\\": [1]}\"");
    /* wants text */
    expect_with(CALLS "{{ '' + c.function.arguments }}{% endfor %}{% endfor %}", object, &o,
                "assistant:{\"x\": [1]}");
    /* content in parts, the developer role, no system role */
    const char *parts = "{\"messages\": [{\"role\": \"developer\", \"content\": \"S\"}, {\"role\": "
                        "\"user\", \"content\": [{\"type\": \"text\", "
                        "\"text\": \"a\"}, {\"type\": \"text\", \"text\": \"b\"}]}]}";
    expect_with("{% for m in messages %}{{ m.role + m.content }};{% endfor %}", parts, &o,
                "systemS;usera\nb;");
    expect_with("{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('role') }}{% "
                "endif %}{{ m.content + '' }}{% endfor %}",
                parts, &o, "S\n\na\nb");
    expect_with("{% for m in messages %}{{ m.content + '' }}{% endfor %}",
                "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]}",
                &o,
                "UNSUPPORTED: chat template: this model's chat template takes text only: content "
                "part 0 is something else");
    /* nulls would count as defined */
    expect_with("{% for m in messages %}{{ m.name is defined }}{{ m.content is none }}{{ "
                "m.tool_calls is defined }}{% endfor %}",
                "{\"messages\": [{\"role\": \"user\", \"content\": null, \"name\": null, "
                "\"tool_calls\": []}]}",
                &o, "FalseTrueFalse");
}

/* ---- threads and memory ------------------------------------------------------------------------------------------------- */

static const char busy_source[] =
    "{% macro f(x, y=2) %}<{{ x ~ y }}>{{ kwargs }}{% endmacro %}{% set ns = namespace(l=[]) %}"
    "{% for m in messages %}{{ f(m.role, z=loop.index) }}{{ ns.l.append(m.content) or '' }}{% "
    "endfor %}"
    "{% filter upper %}{{ ns.l | sort | join(', ') }}{% endfilter %}{% set b %}q{{ '%05.1f' % 2.25 "
    "}}{% endset %}{{ b }}"
    "{{ messages | map(attribute='role') | unique | list | tojson(indent=1) }}{{ 'a b'.split() "
    "}}{{ {1: [none]} }}";
static const char busy_json[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"b\"}, "
                                "{\"role\": \"bot\", \"content\": \"a\\u00e9\"}], \"n\": 12}";
static const char busy_text[] = "<user2>{'z': 1}<bot2>{'z': 2}A\xc3\x89, Bq002.2[\n \"user\",\n "
                                "\"bot\"\n]['a', 'b']{1: [None]}";

static void *render_many(void *context)
{
    const chat_template *t = context;
    for (int i = 0; i < 200; i++) {
        sb out;
        sb_init(&out);
        if (chat_render(t, busy_json, strlen(busy_json), NULL, &out, NULL) != STATUS_OK ||
            strcmp(out.data, busy_text) != 0)
            return "wrong";
        sb_fini(&out);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    chat_template *t = parse(busy_source);
    pthread_t threads[3];
    void *result;
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, render_many, t), 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    chat_template_destroy(t);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    chat_template *t = NULL;
    err e;
    uint64_t n = 1;
    status s;
    do { /* parsing */
        base_fail_after(n++);
        s = chat_template_parse(&t, busy_source, strlen(busy_source), &e);
        base_fail_after(0);
        assert_true(s == STATUS_OK || s == STATUS_NO_MEMORY);
        if (s != STATUS_OK)
            assert_null(t);
        assert_true(n < 100000);
        if (s == STATUS_OK && n < 8) { /* the probes of the traits swallow failures */
            chat_template_destroy(t);
            t = NULL;
            s = STATUS_NO_MEMORY;
        }
    } while (s != STATUS_OK);
    n = 1;
    do { /* rendering */
        sb out;
        sb_init(&out);
        base_fail_after(n++);
        s = chat_render(t, busy_json, strlen(busy_json), NULL, &out, &e);
        base_fail_after(0);
        assert_true(s == STATUS_OK || s == STATUS_NO_MEMORY);
        if (s == STATUS_OK)
            assert_string_equal(out.data, busy_text);
        else
            assert_int_equal(out.length, 0);
        sb_fini(&out);
        assert_true(n < 100000);
    } while (s != STATUS_OK);
    assert_true(n > 10);
    chat_template_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_templates),
        cmocka_unit_test(test_fixtures),
        cmocka_unit_test(test_syntax_errors),
        cmocka_unit_test(test_render_errors),
        cmocka_unit_test(test_output_is_appended),
        cmocka_unit_test(test_variables),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_select),
        cmocka_unit_test(test_chatml),
        cmocka_unit_test(test_adapt),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
