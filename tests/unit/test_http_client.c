/* The client against our own server, the reader of event streams at every split, percent encoding. */
#include "http_harness.h"

typedef struct site {
    rig g;
    http_timer *timer;
    http_request *slow;
    int ticks;
} site;

static void tick(void *context)
{
    site *s = context;
    char text[32];
    if (!s->slow)
        return;
    int n = snprintf(text, sizeof text, "tick %d", s->ticks++);
    http_sse_send(s->slow, NULL, text, (size_t)n);
}

static void slow_gone(void *context, http_request *r)
{
    (void)r;
    site *s = context;
    s->slow = NULL;
    http_timer_stop(s->timer);
    atomic_fetch_add(&s->g.gone, 1);
}

static void serve_echo(http_request *r)
{
    sb text;
    sb_init(&text);
    str body = http_request_body(r);
    const char *token = http_request_header(r, "authorization");
    sb_printf(&text, "%s %s auth=%s expect=%s ", http_request_method(r), http_request_path(r),
              token ? token : "-", http_request_header(r, "expect") ? "yes" : "no");
    sb_add(&text, body.data, body.length);
    http_add_header(r, "X-Answer", " forty two ");
    http_reply(r, 200, "text/plain", text.data, text.length);
    sb_fini(&text);
}

static void site_handle(void *context, http_request *r)
{
    site *s = context;
    const char *path = http_request_path(r);
    atomic_fetch_add(&s->g.handled, 1);
    if (strcmp(path, "/sse") == 0) {
        http_sse_begin(r);
        for (int i = 0; i < 100; i++) {
            char text[64];
            int n = snprintf(text, sizeof text, "{\"n\":%d}", i);
            http_sse_send(r, i % 10 ? NULL : "ten", text, (size_t)n);
            http_sse_comment(r, "ping");
        }
        http_sse_send(r, NULL, "[DONE]", 6);
        http_stream_end(r);
    } else if (strcmp(path, "/abort") == 0) {
        http_sse_begin(r);
        http_sse_send(r, NULL, "x", 1);
        http_stream_abort(r);
    } else if (strcmp(path, "/silent") == 0 || strcmp(path, "/ticks") == 0) {
        s->slow = r;
        http_on_gone(r, slow_gone, s);
        if (path[1] == 't') {
            http_sse_begin(r);
            http_timer_repeat(s->timer, 1000);
        }
    } else if (strcmp(path, "/moved") == 0) {
        http_add_header(r, "Location", "/echo");
        http_reply_text(r, 302, "elsewhere");
    } else if (strcmp(path, "/loop") == 0) {
        http_add_header(r, "Location", "/loop");
        http_reply_text(r, 302, "elsewhere");
    } else if (strcmp(path, "/missing") == 0) {
        http_reply_text(r, 404, "no such thing");
    } else if (strcmp(path, "/nothing") == 0) {
        http_reply(r, 204, NULL, NULL, 0);
    } else {
        serve_echo(r);
    }
}

static site s;
static http_client *client;

static int start(void **state)
{
    (void)state;
    err e = {0};
    memset(&s, 0, sizeof s);
    assert_int_equal(http_loop_create(&s.g.loop, &e), STATUS_OK);
    assert_int_equal(http_timer_create(&s.timer, s.g.loop, tick, &s, &e), STATUS_OK);
    assert_int_equal(http_server_create(&s.g.server, s.g.loop, NULL, site_handle, &s, &e),
                     STATUS_OK);
    assert_int_equal(http_server_listen(s.g.server, "127.0.0.1:0", &s.g.port, &e), STATUS_OK);
    assert_int_equal(os_thread_create(&s.g.thread, rig_loop, s.g.loop, "loop", &e), STATUS_OK);
    assert_int_equal(http_client_create(&client, &e), STATUS_OK);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    http_client_destroy(client);
    http_loop_stop(s.g.loop);
    os_thread_join(s.g.thread);
    http_server_destroy(s.g.server);
    http_timer_destroy(s.timer);
    http_loop_destroy(s.g.loop);
    return 0;
}

static const char *url(const char *path)
{
    static char text[256];
    snprintf(text, sizeof text, "http://127.0.0.1:%d%s", s.g.port, path);
    return text;
}

static void test_calls(void **state)
{
    (void)state;
    err e = {0};
    http_response r;
    char value[64];
    assert_int_equal(http_client_fetch(client, &r, &(http_call){.url = url("/echo")}, &e),
                     STATUS_OK);
    assert_int_equal(r.code, 200);
    assert_string_equal(r.body.data, "GET /echo auth=- expect=no ");
    assert_true(http_response_header(&r, "x-answer", value, sizeof value));
    assert_string_equal(value, "forty two");
    assert_false(http_response_header(&r, "x-answer", value, 9));
    assert_false(http_response_header(&r, "x-none", value, sizeof value));
    http_response_fini(&r);
    sb big;
    sb_init(&big);
    for (int i = 0; i < 300000; i++)
        sb_puts(&big, "0123456789");
    const char *headers[] = {"Authorization: Bearer k", "Content-Type: application/json"};
    http_call post = {.url = url("/echo"),
                      .headers = headers,
                      .n_headers = 2,
                      .body = big.data,
                      .body_bytes = big.length};
    assert_int_equal(http_client_fetch(client, &r, &post, &e), STATUS_OK);
    const char *head = "POST /echo auth=Bearer k expect=no ";
    assert_memory_equal(r.body.data, head, strlen(head));
    assert_string_equal(r.body.data + strlen(head), big.data);
    http_response_fini(&r);
    sb_fini(&big);
    assert_int_equal(
        http_client_fetch(client, &r, &(http_call){.method = "DELETE", .url = url("/echo")}, &e),
        STATUS_OK);
    assert_string_equal(r.body.data, "DELETE /echo auth=- expect=no ");
    http_response_fini(&r);
    assert_int_equal(
        http_client_fetch(client, &r, &(http_call){.url = url("/echo"), .head_only = true}, &e),
        STATUS_OK);
    assert_string_equal(r.body.data, "");
    assert_true(http_response_header(&r, "Content-Length", value, sizeof value));
    http_response_fini(&r);
    assert_int_equal(http_client_fetch(client, &r, &(http_call){.url = url("/missing")}, &e),
                     STATUS_OK);
    assert_int_equal(r.code, 404);
    assert_string_equal(r.body.data, "no such thing");
    http_response_fini(&r);
    assert_int_equal(http_client_fetch(client, &r, &(http_call){.url = url("/nothing")}, &e),
                     STATUS_OK);
    assert_int_equal(r.code, 204);
    assert_string_equal(r.body.data, "");
    http_response_fini(&r);
    assert_int_equal(http_client_fetch(client, &r, &(http_call){.url = url("/moved")}, &e),
                     STATUS_OK);
    assert_int_equal(r.code, 302);
    http_response_fini(&r);
    assert_int_equal(http_client_fetch(client, &r,
                                       &(http_call){.url = url("/moved"), .follow_redirects = true},
                                       &e),
                     STATUS_OK);
    assert_int_equal(r.code, 200);
    assert_string_equal(r.body.data, "GET /echo auth=- expect=no ");
    assert_false(http_response_header(&r, "Location", value, sizeof value));
    http_response_fini(&r);
}

static void test_failures(void **state)
{
    (void)state;
    err e = {0};
    http_response r;
    http_call call = {.url = url("/loop"), .follow_redirects = true};
    assert_int_equal(http_client_fetch(client, &r, &call, &e), STATUS_INVALID);
    assert_int_equal(http_client_fetch(client, &r, &(http_call){.url = url("/abort")}, &e),
                     STATUS_CLOSED);
    call =
        (http_call){.url = url("/echo"), .body = "0123456789", .body_bytes = 10, .limit_bytes = 12};
    assert_int_equal(http_client_fetch(client, &r, &call, &e), STATUS_TOO_LARGE);
    assert_non_null(strstr(e.text, "12 bytes"));
    call = (http_call){.url = url("/silent"), .timeout_us = 200000};
    assert_int_equal(http_client_fetch(client, &r, &call, &e), STATUS_TIMEOUT);
    await(&s.g.gone, 1);
    static const char *const bad[] = {"file:///etc/passwd", "nonsense://x", "", "http://",
                                      "ftp://127.0.0.1/"};
    for (size_t i = 0; i < BASE_COUNT(bad); i++)
        assert_int_equal(http_client_fetch(client, &r, &(http_call){.url = bad[i]}, &e),
                         STATUS_INVALID);
    const char *headers[] = {"X: a\r\nY: b"};
    call = (http_call){.url = url("/echo"), .headers = headers, .n_headers = 1};
    assert_int_equal(http_client_fetch(client, &r, &call, &e), STATUS_INVALID);
    /* A port that nobody listens on: ours until this moment. */
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    char text[64];
    snprintf(text, sizeof text, "http://127.0.0.1:%d/", ntohs(a.sin_port));
    assert_int_equal(http_client_fetch(client, &r, &(http_call){.url = text}, &e), STATUS_CLOSED);
    assert_non_null(strstr(e.text, text));
    assert_non_null(strstr(e.text, "refused"));
    close(fd);
    /* And after all that the same client still works. */
    assert_int_equal(http_client_fetch(client, &r, &(http_call){.url = url("/echo")}, &e),
                     STATUS_OK);
    http_response_fini(&r);
}

/* ---- streaming ---- */

typedef struct listener {
    http_sse_reader reader;
    sb seen;
    int n, stop_after;
} listener;

static status on_event(void *context, const char *event, str data, err *e)
{
    listener *l = context;
    sb_printf(&l->seen, "<%s|%.*s>", event, (int)data.length, data.data);
    l->n++;
    if (l->stop_after && l->n == l->stop_after)
        return err_set(e, STATUS_CONFLICT, "enough");
    return STATUS_OK;
}

static status on_bytes(void *context, const char *bytes, size_t n, err *e)
{
    listener *l = context;
    return http_sse_feed(&l->reader, bytes, n, on_event, l, e);
}

static void listener_init(listener *l, int stop_after)
{
    memset(l, 0, sizeof *l);
    sb_init(&l->seen);
    http_sse_reader_init(&l->reader, 1 << 20);
    l->stop_after = stop_after;
}

static void listener_fini(listener *l)
{
    sb_fini(&l->seen);
    http_sse_reader_fini(&l->reader);
}

static void test_stream(void **state)
{
    (void)state;
    err e = {0};
    http_response r;
    listener l;
    listener_init(&l, 0);
    http_call call = {.url = url("/sse"), .on_bytes = on_bytes, .context = &l};
    assert_int_equal(http_client_fetch(client, &r, &call, &e), STATUS_OK);
    assert_string_equal(r.body.data, "");
    assert_int_equal(l.n, 101);
    const char *start = "<ten|{\"n\":0}><|{\"n\":1}>", *end = "<|{\"n\":99}><|[DONE]>";
    assert_memory_equal(l.seen.data, start, strlen(start));
    assert_string_equal(l.seen.data + l.seen.length - strlen(end), end);
    http_response_fini(&r);
    listener_fini(&l);
    /* The callback ends the call; the server sees the client go. */
    int gone = atomic_load(&s.g.gone);
    listener_init(&l, 3);
    call.url = url("/ticks");
    assert_int_equal(http_client_fetch(client, &r, &call, &e), STATUS_CONFLICT);
    assert_string_equal(e.text, "enough");
    assert_string_equal(l.seen.data, "<|tick 0><|tick 1><|tick 2>");
    await(&s.g.gone, gone + 1);
    listener_fini(&l);
    /* An error answer is kept, not streamed. */
    listener_init(&l, 0);
    call.url = url("/missing");
    assert_int_equal(http_client_fetch(client, &r, &call, &e), STATUS_OK);
    assert_string_equal(r.body.data, "no such thing");
    assert_int_equal(l.n, 0);
    http_response_fini(&r);
    listener_fini(&l);
}

static void cancel_when_silent(void *context)
{
    int handled = *(int *)context;
    await(&s.g.handled, handled + 1);
    http_client_cancel(client);
}

static void test_cancel(void **state)
{
    (void)state;
    err e = {0};
    http_response r;
    os_thread *other;
    int gone = atomic_load(&s.g.gone), handled = atomic_load(&s.g.handled);
    assert_int_equal(os_thread_create(&other, cancel_when_silent, &handled, "cancel", &e),
                     STATUS_OK);
    assert_int_equal(http_client_fetch(client, &r, &(http_call){.url = url("/silent")}, &e),
                     STATUS_CANCELLED);
    os_thread_join(other);
    await(&s.g.gone, gone + 1);
    assert_int_equal(http_client_fetch(client, &r, &(http_call){.url = url("/echo")}, &e),
                     STATUS_CANCELLED);
}

/* ---- the reader of event streams ---- */

static void test_sse_reader(void **state)
{
    (void)state;
    static const char text[] =
        "\xef\xbb\xbf: hello\n\ndata: one\n\ndata:two\r\ndata: lines\r\n\r\n"
        "event: named\rdata:  space\r\rid: 7\nretry: 10\ndata\ndata:\n\n"
        "event: without data\n\ndatas: no\ndata : no\n\ndata: a:b\nevent\n\ndata: incomplete\n";
    static const char expected[] = "<|one><|two\nlines><named| space><|\n><|a:b>";
    size_t n = sizeof text - 1;
    err e = {0};
    for (size_t a = 0; a <= n; a++) {
        for (size_t b = a; b <= n; b++) { /* three pieces, cut everywhere */
            listener l;
            listener_init(&l, 0);
            assert_int_equal(on_bytes(&l, text, a, &e), STATUS_OK);
            assert_int_equal(on_bytes(&l, text + a, b - a, &e), STATUS_OK);
            assert_int_equal(on_bytes(&l, text + b, n - b, &e), STATUS_OK);
            assert_string_equal(l.seen.data, expected);
            listener_fini(&l);
        }
    }
    listener l;
    listener_init(&l, 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(on_bytes(&l, text + i, 1, &e), STATUS_OK);
    assert_string_equal(l.seen.data, expected);
    listener_fini(&l);
    /* Neither one endless line nor an endless event is taken. */
    for (int lines = 0; lines < 2; lines++) {
        listener_init(&l, 0);
        l.reader.limit = 1000;
        status result = STATUS_OK;
        for (int i = 0; i < 1000 && result == STATUS_OK; i++)
            result = on_bytes(&l, lines ? "data: xxxx\n" : "data: xxxx ", 11, &e);
        assert_int_equal(result, STATUS_TOO_LARGE);
        assert_int_equal(l.n, 0);
        listener_fini(&l);
    }
}

static void test_percent(void **state)
{
    (void)state;
    sb out;
    sb_init(&out);
    http_percent_encode(&out, str_from("a/b c+\xc3\xa4~%"), "/");
    assert_string_equal(out.data, "a/b%20c%2B%C3%A4~%25");
    sb back;
    sb_init(&back);
    assert_true(http_percent_decode(&back, (str){out.data, out.length}, true));
    assert_string_equal(back.data, "a/b c+\xc3\xa4~%");
    static const char *const bad[] = {"%", "%4", "%4g", "%00", "a%", "%%41"};
    for (size_t i = 0; i < BASE_COUNT(bad); i++)
        assert_false(http_percent_decode(&back, str_from(bad[i]), false));
    sb_fini(&out);
    sb_fini(&back);
    assert_string_equal(http_reason(404), "Not Found");
    assert_string_equal(http_reason(299), "OK");
    assert_string_equal(http_reason(599), "Error");
}

/* ---- query values ---- */

static void answer_query(void *context, http_request *r)
{
    (void)context;
    char *value = NULL;
    if (http_request_query_value(r, "k y", &value))
        http_reply_text(r, 200, "<%s>", value);
    else
        http_reply_text(r, 404, "none");
    base_free(value);
}

static void test_query(void **state)
{
    (void)state;
    static const struct {
        const char *query, *expected; /* NULL: absent */
    } cases[] = {
        {"", NULL},
        {"?k+y=1", "<1>"},
        {"?x&k%20y=a+b%26&z", "<a b&>"},
        {"?k+y", "<>"},
        {"?k+y=", "<>"},
        {"?k+yy=1", NULL},
        {"?k+y=%zz", NULL},
        {"?&&k+y=2&k+y=3", "<2>"},
        {"?%zz=1&k+y", "<>"},
        {"?=1&k+y=a=b", "<a=b>"},
    };
    rig g;
    rig_start(&g, NULL, answer_query);
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        char text[200];
        snprintf(text, sizeof text,
                 "GET /%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                 cases[i].query);
        char *a = talk(g.port, text);
        expect_code(cases[i].query, a, cases[i].expected ? 200 : 404);
        if (cases[i].expected)
            assert_string_equal(strstr(a, "\r\n\r\n") + 4, cases[i].expected);
        base_free(a);
    }
    rig_stop(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_calls, start, stop),
        cmocka_unit_test_setup_teardown(test_failures, start, stop),
        cmocka_unit_test_setup_teardown(test_stream, start, stop),
        cmocka_unit_test_setup_teardown(test_cancel, start, stop),
        cmocka_unit_test(test_sse_reader),
        cmocka_unit_test(test_percent),
        cmocka_unit_test(test_query),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
