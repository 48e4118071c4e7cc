/*
 * The output parsers: each case is fed whole, byte by byte, and cut at every pair of places, and must give the same events. Nothing may
 * be lost, which the malformed cases show.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "chat/chat.h"

/* Events as one line: T[text] R[reasoning] C0:name(arguments); neighbouring pieces of one kind are joined. */
typedef struct record {
    sb line, piece;
    char open; /* kind of the piece, 0: none */
    int calls;
    char ids[8][64];
    bool in_call;
} record;

static void close_piece(record *r)
{
    if (r->open)
        sb_printf(&r->line, "%c[%s]", r->open, r->piece.data ? r->piece.data : "");
    r->open = 0;
    sb_clear(&r->piece);
}

static status take(void *context, const chat_event *e)
{
    record *r = context;
    if (e->kind == CHAT_TEXT || e->kind == CHAT_REASONING) {
        char kind = e->kind == CHAT_TEXT ? 'T' : 'R';
        assert_true(e->text.length > 0);
        assert_false(r->in_call);
        if (r->open != kind)
            close_piece(r);
        r->open = kind;
        sb_add(&r->piece, e->text.data, e->text.length);
        return STATUS_OK;
    }
    close_piece(r);
    if (e->kind == CHAT_TOOL_BEGIN) {
        assert_int_equal(e->index, r->calls);
        assert_true(e->id.length > 8 && e->id.length < 64);
        if (r->calls < 8) {
            memcpy(r->ids[r->calls], e->id.data, e->id.length);
            r->ids[r->calls][e->id.length] = 0;
        }
        r->calls++;
        r->in_call = true;
        sb_printf(&r->line, "C%d:%.*s(", e->index, (int)e->name.length, e->name.data);
    } else if (e->kind == CHAT_TOOL_ARGUMENTS) {
        assert_true(r->in_call);
        sb_add(&r->line, e->text.data, e->text.length);
    } else {
        assert_true(r->in_call);
        r->in_call = false;
        sb_putc(&r->line, ')');
    }
    return STATUS_OK;
}

static void record_init(record *r)
{
    memset(r, 0, sizeof *r);
    sb_init(&r->line);
    sb_init(&r->piece);
}

static void record_fini(record *r)
{
    sb_fini(&r->line);
    sb_fini(&r->piece);
}

typedef struct example {
    const char *reasoning, *tools; /* names of syntaxes */
    bool open;                     /* the prompt opened reasoning */
    const char *text, *events;
} example;

static chat_format format_of(const example *x)
{
    chat_format f;
    assert_true(chat_syntax_find(&f.reasoning, x->reasoning));
    assert_true(chat_syntax_find(&f.tools, x->tools));
    return f;
}

/* Feeds the pieces [0, a) [a, b) [b, n). step: pieces of that many bytes instead. */
static void feed(record *r, const example *x, size_t a, size_t b, size_t step)
{
    err e;
    chat_parser *p;
    chat_parser_options o = {.reasoning_open = x->open, .tools = true, .seed = 7};
    size_t n = strlen(x->text);
    assert_int_equal(chat_parser_create(&p, format_of(x), &o, take, r, &e), STATUS_OK);
    if (step) {
        for (size_t i = 0; i < n; i += step)
            assert_int_equal(chat_parser_feed(p, x->text + i, BASE_MIN(step, n - i), &e),
                             STATUS_OK);
    } else {
        assert_int_equal(chat_parser_feed(p, x->text, a, &e), STATUS_OK);
        assert_int_equal(chat_parser_feed(p, x->text + a, b - a, &e), STATUS_OK);
        assert_int_equal(chat_parser_feed(p, x->text + b, n - b, &e), STATUS_OK);
    }
    assert_int_equal(chat_parser_finish(p, &e), STATUS_OK);
    assert_int_equal(chat_parser_feed(p, "x", 1, &e), STATUS_CLOSED);
    assert_int_equal(chat_parser_tool_calls(p), r->calls);
    chat_parser_destroy(p);
    close_piece(r);
}

static void check(const example *x, size_t a, size_t b, size_t step)
{
    record r;
    record_init(&r);
    feed(&r, x, a, b, step);
    assert_string_equal(r.line.data ? r.line.data : "", x->events);
    record_fini(&r);
}

#define CALL_A "<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1}}\n</tool_call>"
#define CALL_B                                                                                     \
    "<tool_call>{\"arguments\":{\"s\":\"</tool_call> }\\\"\"},\"name\":\"b\"}</tool_call>"

static const example examples[] = {
    /* plain */
    {"plain", "plain", false, "", ""},
    {"plain", "plain", false, "<think>x</think> <tool_call>", "T[<think>x</think> <tool_call>]"},
    /* reasoning */
    {"think", "plain", false, "hello", "T[hello]"},
    {"think", "plain", false, "  hello ", "T[  hello ]"},
    {"think", "plain", false, "<thinking>", "T[<thinking>]"},
    {"think", "plain", false, " <thi", "T[ <thi]"},
    {"think", "plain", false, "<think>\nhm, a < b\n</think>\n\nyes\n", "R[hm, a < b]T[yes\n]"},
    {"think", "plain", false, "\n<think>a</think>b", "R[a]T[b]"},
    {"think", "plain", false, "<think>\n\n</think>\n\nb", "T[b]"},
    {"think", "plain", false, "<think>never closed </thin", "R[never closed </thin]"},
    {"think", "plain", false, "say <think> loud </think>", "T[say <think> loud </think>]"},
    {"think", "plain", false, "<think>a</think>b<think>c</think>", "R[a]T[b<think>c</think>]"},
    {"think", "plain", true, "first\n</think>\nthen", "R[first]T[then]"},
    {"think", "plain", true, "\n\n inner  \n more </think>", "R[inner  \n more]"},
    {"think", "plain", true, "", ""},
    {"think", "plain", true, "  \n", ""},
    /* hermes */
    {"plain", "hermes", false, "no calls < here <tool", "T[no calls < here <tool]"},
    {"plain", "hermes", false, CALL_A, "C0:a({\"x\": 1})"},
    {"plain", "hermes", false, "Let me see.\n" CALL_A "\n" CALL_B "\n",
     "T[Let me see.]C0:a({\"x\": 1})C1:b({\"s\":\"</tool_call> }\\\"\"})"},
    {"plain", "hermes", false, CALL_A " and\nmore", "C0:a({\"x\": 1})T[and\nmore]"},
    {"plain", "hermes", false, "<tool_call>{\"name\": \"n\"}</tool_call>", "C0:n({})"},
    {"plain", "hermes", false,
     "<tool_call>{\"name\": \"n\", \"arguments\": \"{\\\"y\\\": [2]}\"}</tool_call>",
     "C0:n({\"y\": [2]})"},
    {"plain", "hermes", false,
     "<tool_call>{\"name\": \"n\", \"arguments\": {\"big\": 123456789012345678901}}</tool_call>",
     "C0:n({\"big\": 123456789012345678901})"},
    {"plain", "hermes", false, "<tool_call>{\"name\": \"n\", \"arguments\": {}}", "C0:n({})"},
    {"plain", "hermes", false, "<tool_call>{\"name\": \"n\", \"arguments\": {}}\n</tool",
     "C0:n({})"},
    {"plain", "hermes", false, "<tool_call>{\"name\": \"n\", \"arguments\": {",
     "T[<tool_call>{\"name\": \"n\", \"arguments\": {]"},
    {"plain", "hermes", false, "a \n<tool_call>nonsense</tool_call> b",
     "T[a \n<tool_call>nonsense</tool_call> b]"},
    {"plain", "hermes", false, "<tool_call>{bad json}</tool_call>" CALL_A,
     "T[<tool_call>{bad json}</tool_call>]C0:a({\"x\": 1})"},
    {"plain", "hermes", false, "<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>",
     "T[<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>]"},
    {"plain", "hermes", false, "<tool_call>{\"name\": \"n\", \"arguments\": [1]}</tool_call>",
     "T[<tool_call>{\"name\": \"n\", \"arguments\": [1]}</tool_call>]"},
    {"plain", "hermes", false, "<tool_call>{\"name\": \"n\"} trailing</tool_call>",
     "T[<tool_call>{\"name\": \"n\"} trailing</tool_call>]"},
    {"plain", "hermes", false, "<tool_call><tool_call>{\"name\": \"n\"}</tool_call>",
     "T[<tool_call>]C0:n({})"},
    {"plain", "hermes", false, "<tool_call>", "T[<tool_call>]"},
    {"plain", "hermes", false,
     "<tool_call>{\"name\": \"\xc3\xa9\", \"arguments\": {\"k\": \"\xe6\x97\xa5\"}}</tool_call>",
     "C0:\xc3\xa9({\"k\": \"\xe6\x97\xa5\"})"},
    /* both */
    {"think", "hermes", false, "<think>\nuse a\n</think>\n\n" CALL_A, "R[use a]C0:a({\"x\": 1})"},
    {"think", "hermes", true, "about <tool_call> tags</think>ok\n" CALL_A,
     "R[about <tool_call> tags]T[ok]C0:a({\"x\": 1})"},
    /* llama */
    {"plain", "llama3", false, "Plain answer.", "T[Plain answer.]"},
    {"plain", "llama3", false, "{\"name\": \"f\", \"parameters\": {\"q\": \"}\"}}",
     "C0:f({\"q\": \"}\"})"},
    {"plain", "llama3", false, "\n<|python_tag|>{\"name\": \"f\", \"parameters\": {}}\n",
     "C0:f({})"},
    {"plain", "llama3", false,
     "<|python_tag|>{\"name\":\"f\",\"parameters\":{}}; {\"name\":\"g\",\"parameters\":{\"a\":1}}",
     "C0:f({})C1:g({\"a\":1})"},
    {"plain", "llama3", false, "{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}} done",
     "C0:f({})T[done]"},
    {"plain", "llama3", false, "{\"name\": \"f\", \"parameters\": {}};x", "C0:f({})T[;x]"},
    {"plain", "llama3", false, "{\"name\": \"Ann\", \"age\": 3}",
     "T[{\"name\": \"Ann\", \"age\": 3}]"},
    {"plain", "llama3", false, "{\"answer\": 42}\n", "T[{\"answer\": 42}\n]"},
    {"plain", "llama3", false, "{\"name\": \"f\", \"param", "T[{\"name\": \"f\", \"param]"},
    {"plain", "llama3", false, " {not json", "T[ {not json]"},
    {"plain", "llama3", false, "<|python_tag|>search.call(query=\"x\")",
     "T[<|python_tag|>search.call(query=\"x\")]"},
    {"plain", "llama3", false, "<|python_tag|>{oops}", "T[<|python_tag|>{oops}]"},
    {"plain", "llama3", false, "<|pyth", "T[<|pyth]"},
    {"plain", "llama3", false, "<|python_tag|>", "T[<|python_tag|>]"},
    {"plain", "llama3", false, "I will look.\n<|python_tag|>{\"name\": \"f\", \"arguments\": {}}",
     "T[I will look.]C0:f({})"},
    {"plain", "llama3", false, "Use { and } in C.", "T[Use { and } in C.]"},
};

static void test_every_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(examples); i++) {
        const example *x = &examples[i];
        size_t n = strlen(x->text);
        for (size_t a = 0; a <= n; a++)
            for (size_t b = a; b <= n; b++)
                check(x, a, b, 0);
        for (size_t step = 1; step <= 7; step++)
            check(x, 0, 0, step);
    }
}

static void test_tools_off(void **state)
{
    (void)state;
    record r;
    err e;
    chat_parser *p;
    example x = {"think", "hermes", false, "<think>r</think>" CALL_A, NULL};
    chat_parser_options o = {.tools = false};
    record_init(&r);
    assert_int_equal(chat_parser_create(&p, format_of(&x), &o, take, &r, &e), STATUS_OK);
    assert_int_equal(chat_parser_feed(p, x.text, strlen(x.text), &e), STATUS_OK);
    assert_int_equal(chat_parser_finish(p, &e), STATUS_OK);
    close_piece(&r);
    assert_string_equal(r.line.data, "R[r]T[" CALL_A "]");
    assert_int_equal(chat_parser_tool_calls(p), 0);
    chat_parser_destroy(p);
    record_fini(&r);
}

/* Ids: equal for equal seeds, different within a message and between seeds. */
static void test_ids(void **state)
{
    (void)state;
    record a, b;
    example x = {"plain", "hermes", false, CALL_A CALL_B, NULL};
    record_init(&a);
    record_init(&b);
    feed(&a, &x, 0, 3, 0);
    feed(&b, &x, 5, 9, 0);
    assert_string_equal(a.ids[0], b.ids[0]);
    assert_string_equal(a.ids[1], b.ids[1]);
    assert_string_not_equal(a.ids[0], a.ids[1]);
    record_fini(&a);
    record_fini(&b);
}

static status refuse(void *context, const chat_event *e)
{
    (void)e;
    ++*(int *)context;
    return STATUS_CANCELLED;
}

static void test_sink_stops(void **state)
{
    (void)state;
    err e;
    chat_parser *p;
    int asked = 0;
    example x = {"plain", "hermes", false, CALL_A, NULL};
    chat_parser_options o = {.tools = true};
    assert_int_equal(chat_parser_create(&p, format_of(&x), &o, refuse, &asked, &e), STATUS_OK);
    assert_int_equal(chat_parser_feed(p, x.text, strlen(x.text), &e), STATUS_CANCELLED);
    assert_int_equal(asked, 1);
    chat_parser_destroy(p);
}

static chat_format detect(const char *source)
{
    return chat_syntax_detect(str_from(source));
}

static void test_detect(void **state)
{
    (void)state;
    chat_format f = detect("{{ messages }}");
    assert_null(f.reasoning);
    assert_null(f.tools);
    f = chat_syntax_detect(chat_template_chatml());
    assert_null(f.reasoning);
    assert_string_equal(chat_syntax_name(f.tools), "hermes");
    f = detect("x <think>\n</think> {\"name\": <tool_call> y");
    assert_string_equal(chat_syntax_name(f.reasoning), "think");
    assert_string_equal(chat_syntax_name(f.tools), "hermes");
    assert_null(detect("<tool_call>f<arg_key>k</arg_key>").tools);
    assert_null(detect("<tool_call><function=f>").tools);
    assert_string_equal(chat_syntax_name(detect("<|start_header_id|> \"parameters\"").tools),
                        "llama3");
    assert_null(detect("<|start_header_id|>").tools);
    assert_string_equal(chat_syntax_name(NULL), "plain");
    assert_null(chat_syntax_shown(NULL)[0]);
    assert_string_equal(chat_syntax_shown(f.tools)[0], "<tool_call>");
    const chat_syntax *s;
    assert_false(chat_syntax_find(&s, "nothing"));
}

static void test_prompt_opens(void **state)
{
    (void)state;
    chat_format f = detect("<think>");
    assert_true(chat_prompt_opens_reasoning(f, "a<think>\n", 9));
    assert_true(chat_prompt_opens_reasoning(f, "<think>", 7));
    assert_false(chat_prompt_opens_reasoning(f, "<think>\n\n</think>\n\n", 19));
    assert_false(chat_prompt_opens_reasoning(f, "think>", 6));
    assert_false(chat_prompt_opens_reasoning((chat_format){NULL, NULL}, "<think>", 7));
}

/* A megabyte that looks like a call, byte by byte: linear, or this test never ends. */
static void test_long_call(void **state)
{
    (void)state;
    record r;
    sb text;
    sb_init(&text);
    record_init(&r);
    sb_puts(&text, "<tool_call>{\"name\": \"w\", \"arguments\": {\"s\": \"");
    for (int i = 0; i < 1 << 20; i++)
        sb_putc(&text, i % 7 ? '{' : 'x');
    sb_puts(&text, "\"}}</tool_call>");
    example x = {"think", "hermes", false, text.data, NULL};
    feed(&r, &x, 0, 0, 1);
    assert_int_equal(r.calls, 1);
    record_fini(&r);
    sb_fini(&text);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    example x = {"think", "hermes", false, "<think>r</think>t " CALL_A " u",
                 "R[r]T[t]C0:a({\"x\": 1})T[u]"};
    for (uint64_t n = 1;; n++) {
        record r;
        err e;
        chat_parser *p = NULL;
        chat_parser_options o = {.tools = true};
        record_init(&r);
        sb_reserve(&r.line, 4096);
        sb_reserve(&r.piece, 4096);
        base_fail_after(n);
        status s = chat_parser_create(&p, format_of(&x), &o, take, &r, &e);
        if (s == STATUS_OK)
            s = chat_parser_feed(p, x.text, strlen(x.text), &e);
        if (s == STATUS_OK)
            s = chat_parser_finish(p, &e);
        base_fail_after(0);
        chat_parser_destroy(p);
        close_piece(&r);
        bool right = s == STATUS_OK && strcmp(r.line.data, x.events) == 0;
        record_fini(&r);
        if (right)
            return;
        assert_true(n < 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_split), cmocka_unit_test(test_tools_off),
        cmocka_unit_test(test_ids),         cmocka_unit_test(test_sink_stops),
        cmocka_unit_test(test_detect),      cmocka_unit_test(test_prompt_opens),
        cmocka_unit_test(test_long_call),   cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
