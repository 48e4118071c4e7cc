/* The server against raw bytes: framing, pipelining, limits, deadlines, Host and Origin, listening. */
#include "http_harness.h"

static void echo(void *context, http_request *r)
{
    rig *g = context;
    sb text;
    sb_init(&text);
    str body = http_request_body(r);
    sb_printf(&text, "%s %s ?%s [%zu]", http_request_method(r), http_request_path(r),
              http_request_query(r), body.length);
    sb_add(&text, body.data, BASE_MIN(body.length, 64));
    const char *extra = http_request_header(r, "x-EXTRA");
    if (extra)
        sb_printf(&text, " extra=%s", extra);
    atomic_fetch_add(&g->handled, 1);
    http_add_header(r, "X-Clean", "a\r\nInjected: b");
    http_reply(r, 200, "text/plain", text.data, text.length);
    sb_fini(&text);
}

static void test_simple(void **state)
{
    (void)state;
    rig g;
    rig_start(&g, NULL, echo);
    char *a = talk(g.port, "GET /a%20b/c?x=1&y=%2f HTTP/1.1\r\nHost: localhost\r\nX-Extra:  v "
                           "\t\r\nConnection: close\r\n\r\n");
    expect_code("GET", a, 200);
    assert_non_null(strstr(a, "\r\n\r\nGET /a b/c ?x=1&y=%2f [0] extra=v"));
    assert_non_null(strstr(a, "X-Clean: a  Injected: b\r\n"));
    assert_non_null(strstr(a, "Connection: close\r\n"));
    assert_non_null(strstr(a, "Date: "));
    base_free(a);
    a = talk(g.port, "HEAD /h HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    expect_code("HEAD", a, 200);
    assert_non_null(strstr(a, "Content-Length: 13\r\n"));
    assert_string_equal(strstr(a, "\r\n\r\n"), "\r\n\r\n");
    base_free(a);
    a = talk(g.port, "GET /old HTTP/1.0\r\n\r\n");
    expect_code("HTTP/1.0", a, 200);
    base_free(a);
    static const char *const methods[] = {"POST", "DELETE", "OPTIONS", "PATCH", "PUT"};
    for (size_t i = 0; i < BASE_COUNT(methods); i++) {
        char text[200];
        snprintf(
            text, sizeof text,
            "%s /m HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
            methods[i]);
        a = talk(g.port, text);
        expect_code(methods[i], a, 200);
        assert_non_null(strstr(a, " /m ? [2]hi"));
        base_free(a);
    }
    rig_stop(&g);
}

static void test_keep_alive_and_pipelining(void **state)
{
    (void)state;
    rig g;
    rig_start(&g, NULL, echo);
    int fd = dial(g.port);
    sb got;
    sb_init(&got);
    for (int i = 0; i < 5; i++) {
        assert_true(
            puts_to(fd, "\r\nPOST /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"));
        take_until(fd, &got, "[3]abc");
        sb_clear(&got);
    }
    /* 2,000 requests in one go, cut into odd pieces: one answer each, in order. */
    sb many;
    sb_init(&many);
    for (int i = 0; i < 2000; i++)
        sb_printf(&many,
                  "POST /p%d HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "
                  "chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: r\r\n\r\n",
                  i);
    sb_puts(&many, "GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    size_t sent = 0;
    bool open = true;
    for (size_t piece = 1; open;) { /* the answers are read meanwhile, or both sides would wait */
        struct pollfd p = {.fd = fd,
                           .events = (short)(POLLIN | (sent < many.length ? POLLOUT : 0))};
        assert_int_equal(poll(&p, 1, WAIT_MS), 1);
        if (p.revents & (POLLIN | POLLHUP))
            open = take(fd, &got) > 0;
        else if (p.revents & POLLOUT) {
            size_t n = BASE_MIN(piece, many.length - sent);
            assert_true(put(fd, many.data + sent, n));
            sent += n;
            piece = piece * 7 % 4099 + 1;
        }
    }
    assert_int_equal(count_of(got.data, "HTTP/1.1 200 OK"), 2001);
    const char *at = got.data;
    for (int i = 0; i < 2000; i++) {
        char text[40];
        snprintf(text, sizeof text, "POST /p%d ? [3]abc", i);
        at = strstr(at, text);
        assert_non_null(at);
    }
    assert_non_null(strstr(at, "GET /last"));
    assert_int_equal(atomic_load(&g.handled), 2006);
    sb_fini(&many);
    sb_fini(&got);
    close(fd);
    rig_stop(&g);
}

static void test_byte_by_byte(void **state)
{
    (void)state;
    rig g;
    rig_start(&g, NULL, echo);
    static const char text[] =
        "POST /slow?q HTTP/1.1\r\nHost: 127.0.0.1:1\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5;ext=\"v\"\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
        "GET /end HTTP/1.1\r\nHost: [::1]:52415\r\nConnection: close\r\n\r\n";
    int fd = dial(g.port);
    for (size_t i = 0; i + 1 < sizeof text; i++)
        assert_true(put(fd, text + i, 1));
    char *a = take_all(fd);
    assert_non_null(strstr(a, "POST /slow ?q [15]hello0123456789"));
    assert_non_null(strstr(a, "GET /end"));
    base_free(a);
    close(fd);
    rig_stop(&g);
}

/* Everything that could be framed in two ways, and everything that is no HTTP: the code, one answer, closed, never handled. The
 * smuggled request behind must not be answered. */
static void test_framing_attacks(void **state)
{
    (void)state;
#define H       "Host: localhost\r\n"
#define POST    "POST / HTTP/1.1\r\n" H
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
    static const struct {
        const char *what;
        int code;
        const char *text;
    } attacks[] = {
        {"two lengths", 400, POST "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"},
        {"the same length twice", 400, POST "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab"},
        {"length list", 400, POST "Content-Length: 2, 2\r\n\r\nab"},
        {"space before colon", 400, POST "Content-Length : 2\r\n\r\nab"},
        {"signed length", 400, POST "Content-Length: +2\r\n\r\nab"},
        {"negative length", 400, POST "Content-Length: -2\r\n\r\nab"},
        {"hex length", 400, POST "Content-Length: 0x2\r\n\r\nab"},
        {"empty length", 400, POST "Content-Length:\r\n\r\nab"},
        {"huge length", 400, POST "Content-Length: 99999999999999999999999\r\n\r\nab"},
        {"length beside coding", 400,
         POST "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
        {"xchunked", 501, POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
        {"gzip, chunked", 501, POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
        {"chunked, identity", 501, POST "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"},
        {"identity", 501, POST "Transfer-Encoding: identity\r\n\r\n"},
        {"vertical tab coding", 400, POST "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n"},
        {"two codings", 400,
         POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
        {"coding in 1.0", 400,
         "POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
        {"obs-fold", 400, "GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n"},
        {"fold of the first header", 400, "GET / HTTP/1.1\r\n Host: localhost\r\n\r\n"},
        {"no Host", 400, "GET / HTTP/1.1\r\n\r\n"},
        {"two Hosts", 400, "GET / HTTP/1.1\r\n" H "Host: localhost\r\n\r\n"},
        {"empty Host", 400, "GET / HTTP/1.1\r\nHost:\r\n\r\n"},
        {"bad Host", 400, "GET / HTTP/1.1\r\nHost: local host\r\n\r\n"},
        {"bad port in Host", 400, "GET / HTTP/1.1\r\nHost: localhost:99999\r\n\r\n"},
        {"Host with user", 400, "GET / HTTP/1.1\r\nHost: evil@localhost\r\n\r\n"},
        {"bare LF", 400, "GET / HTTP/1.1\nHost: localhost\n\n"},
        {"bare LF in headers", 400, "GET / HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n"},
        {"bare CR in a value", 400, "GET / HTTP/1.1\r\n" H "X: a\rb\r\n\r\n"},
        {"no colon", 400, "GET / HTTP/1.1\r\n" H "nonsense\r\n\r\n"},
        {"no name", 400, "GET / HTTP/1.1\r\n" H ": x\r\n\r\n"},
        {"name not a token", 400, "GET / HTTP/1.1\r\n" H "a(b): x\r\n\r\n"},
        {"two spaces", 400, "GET  / HTTP/1.1\r\n" H "\r\n"},
        {"no version", 400, "GET /\r\n" H "\r\n"},
        {"version HTTP/11", 400, "GET / HTTP/11\r\n" H "\r\n"},
        {"version 2.0", 505, "GET / HTTP/2.0\r\n" H "\r\n"},
        {"h2 preface", 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
        {"TLS hello", 400, "\x16\x03\x01\x02\n\r\n\r\n"},
        {"unknown method", 501, "BREW / HTTP/1.1\r\n" H "\r\n"},
        {"CONNECT", 501, "CONNECT localhost:1 HTTP/1.1\r\n" H "\r\n"},
        {"lower-case method", 501, "get / HTTP/1.1\r\n" H "\r\n"},
        {"relative target", 400, "GET a HTTP/1.1\r\n" H "\r\n"},
        {"star for GET", 400, "GET * HTTP/1.1\r\n" H "\r\n"},
        {"fragment", 400, "GET /#x HTTP/1.1\r\n" H "\r\n"},
        {"bad escape", 400, "GET /%zz HTTP/1.1\r\n" H "\r\n"},
        {"cut escape", 400, "GET /%4 HTTP/1.1\r\n" H "\r\n"},
        {"NUL escape", 400, "GET /%00 HTTP/1.1\r\n" H "\r\n"},
        {"raw UTF-8 target", 400, "GET /\xc3\xa4 HTTP/1.1\r\n" H "\r\n"},
        {"Expect", 417, POST "Expect: 200-ok\r\nContent-Length: 2\r\n\r\nab"},
        {"chunk 0x5", 400, CHUNKED "0x5\r\nhello\r\n0\r\n\r\n"},
        {"chunk +5", 400, CHUNKED "+5\r\nhello\r\n0\r\n\r\n"},
        {"chunk -5", 400, CHUNKED "-5\r\nhello\r\n0\r\n\r\n"},
        {"chunk with space", 400, CHUNKED "5 \r\nhello\r\n0\r\n\r\n"},
        {"chunk without size", 400, CHUNKED "\r\nhello\r\n0\r\n\r\n"},
        {"chunk LF", 400, CHUNKED "5\nhello\n0\n\n"},
        {"chunk overflow", 400, CHUNKED "fffffffffffffffff\r\nhello"},
        {"chunk too long", 413, CHUNKED "fffffffff\r\nhello"},
        {"chunk data longer than its size", 400, CHUNKED "2\r\nhello\r\n0\r\n\r\n"},
        {"chunk LF in extension", 400, CHUNKED "5;a\nb\r\nhello\r\n0\r\n\r\n"},
        {"trailer fold", 400, CHUNKED "0\r\n x\r\n\r\n"},
        {"100 GB", 413, POST "Content-Length: 107374182400\r\n\r\nab"},
    };
    rig g;
    rig_start(&g, NULL, echo);
    for (size_t i = 0; i < BASE_COUNT(attacks); i++) {
        sb text;
        sb_init(&text);
        sb_printf(&text, "%sGET /smuggled HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                  attacks[i].text);
        char *a = talk_bytes(g.port, text.data, text.length);
        expect_code(attacks[i].what, a, attacks[i].code);
        assert_non_null(strstr(a, "Connection: close\r\n"));
        assert_non_null(strstr(a, "{\"error\":{\"message\":\""));
        base_free(a);
        sb_fini(&text);
    }
    static const char nul[] = "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n";
    char *a = talk_bytes(g.port, nul, sizeof nul - 1);
    expect_code("NUL in a value", a, 400);
    base_free(a);
    assert_int_equal(atomic_load(&g.handled), 0);
    rig_stop(&g);
}

static void test_limits(void **state)
{
    (void)state;
    rig g;
    http_options o = {.header_bytes = 4096, .body_bytes = 100000};
    rig_start(&g, &o, echo);
    sb text;
    sb_init(&text);
    sb_puts(&text, "GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
    for (int i = 0; i < 100 * 1024; i++)
        sb_putc(&text, 'a');
    sb_puts(&text, "\r\n\r\n");
    char *a = talk_bytes(g.port, text.data, text.length);
    expect_code("100 KB header", a, 431);
    base_free(a);
    sb_clear(&text);
    sb_puts(&text, "GET / HTTP/1.1\r\nHost: localhost\r\n");
    for (int i = 0; i < 200; i++)
        sb_puts(&text, "a: b\r\n");
    sb_puts(&text, "\r\n");
    a = talk_bytes(g.port, text.data, text.length);
    expect_code("200 headers", a, 431);
    base_free(a);
    a = talk(g.port, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100001\r\n\r\n");
    expect_code("body by length", a, 413);
    base_free(a);
    for (int n = 100000; n <= 100001;
         n++) { /* exactly the limit passes, one more does not; by chunks of 1,000 */
        sb_clear(&text);
        sb_puts(&text, "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: "
                       "close\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (int left = n; left > 0;) {
            int take_n = BASE_MIN(left, 1000);
            sb_printf(&text, "%x\r\n%0*d\r\n", (unsigned)take_n, take_n, 7);
            left -= take_n;
        }
        sb_puts(&text, "0\r\n\r\n");
        a = talk_bytes(g.port, text.data, text.length);
        expect_code("body by chunks", a, n == 100000 ? 200 : 413);
        base_free(a);
    }
    sb_clear(&text);
    sb_puts(&text, "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;");
    for (int i = 0; i < 10000; i++)
        sb_putc(&text, 'e');
    a = talk_bytes(g.port, text.data, text.length);
    expect_code("endless chunk extension", a, 431);
    base_free(a);
    sb_clear(&text);
    sb_puts(&text, "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n");
    for (int i = 0; i < 10000; i++)
        sb_puts(&text, "t: v\r\n");
    a = talk_bytes(g.port, text.data, text.length);
    expect_code("endless trailer", a, 431);
    base_free(a);
    assert_int_equal(atomic_load(&g.handled), 1);
    sb_fini(&text);
    rig_stop(&g);
}

static void test_large_body(void **state)
{
    (void)state;
    rig g;
    rig_start(&g, NULL, echo);
    size_t n = 20 << 20;
    sb text;
    sb_init(&text);
    sb_printf(
        &text,
        "POST /big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
        n);
    assert_true(sb_reserve(&text, n));
    memset(text.data + text.length, 'x', n);
    char *a = talk_bytes(g.port, text.data, text.length + n);
    expect_code("20 MiB", a, 200);
    assert_non_null(strstr(a, "[20971520]xxx"));
    base_free(a);
    sb_fini(&text);
    rig_stop(&g);
}

/* Each deadline is absolute: a client that keeps sending a little is cut off all the same. */
static void test_trickle(void **state)
{
    (void)state;
    rig g;
    http_options o = {.header_us = 300000, .body_us = 300000, .idle_us = 300000};
    rig_start(&g, &o, echo);
    static const char *const starts[] = {
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n",
    };
    for (size_t i = 0; i < BASE_COUNT(starts); i++) {
        int fd = dial(g.port);
        assert_true(puts_to(fd, starts[i]));
        bool answered = false;
        for (int k = 0; k < 6000 && !answered; k++) { /* a byte every 10 ms for at most a minute */
            struct pollfd p = {.fd = fd, .events = POLLIN};
            answered = !put(fd, "a", 1) || poll(&p, 1, 10) == 1;
        }
        assert_true(answered);
        char *a = take_all(fd);
        expect_code("trickle", a, 408);
        base_free(a);
        close(fd);
    }
    /* Silent connections, fresh or kept alive, end too. */
    char *a = talk(g.port, "");
    assert_string_equal(a, "");
    base_free(a);
    a = talk(g.port, "GET /once HTTP/1.1\r\nHost: localhost\r\n\r\n");
    expect_code("idle", a, 200);
    base_free(a);
    rig_stop(&g);
}

static void test_expect_continue(void **state)
{
    (void)state;
    rig g;
    rig_start(&g, NULL, echo);
    int fd = dial(g.port);
    sb got;
    sb_init(&got);
    assert_true(puts_to(fd, "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: "
                            "100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"));
    take_until(fd, &got, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_true(puts_to(fd, "ok"));
    take_until(fd, &got, "[2]ok");
    sb_fini(&got);
    close(fd);
    rig_stop(&g);
}

static void test_host_and_origin(void **state)
{
    (void)state;
    static const struct {
        const char *host, *origin;
        int code;
    } cases[] = {
        {"localhost", NULL, 200},
        {"LOCALHOST:52415", NULL, 200},
        {"localhost.:1", NULL, 200},
        {"x.localhost", NULL, 200},
        {"127.0.0.1:9", NULL, 200},
        {"[::1]", NULL, 200},
        {"my.name:77", NULL, 200},
        {"evil.example", NULL, 403},
        {"evillocalhost", NULL, 403},
        {"localhost.evil.example", NULL, 403},
        {"192.168.1.2", NULL, 403}, /* came in over loopback, so it cannot have been meant */
        {"localhost", "http://localhost:3000", 200},
        {"localhost", "https://127.0.0.1", 200},
        {"localhost", "http://[::1]:5173", 200},
        {"localhost", "https://chat.example", 200},
        {"my.name:77", "http://my.name:77", 200},
        {"my.name:77", "http://my.name:78", 403},
        {"localhost", "https://chat.example:444", 403},
        {"localhost", "https://evil.example", 403},
        {"localhost", "http://localhost.evil.example", 403},
        {"localhost", "http://evil.example/localhost", 403},
        {"localhost", "http://localhost@evil.example", 403},
        {"localhost", "null", 403},
        {"localhost", "file://", 403},
        {"localhost", "", 403},
    };
    rig g;
    const char *hosts[] = {"my.name"}, *origins[] = {"https://chat.example"};
    http_options o = {.hosts = hosts, .n_hosts = 1, .origins = origins, .n_origins = 1};
    rig_start(&g, &o, echo);
    int allowed = 0;
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        char text[400];
        snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: %s\r\n%s%s%sConnection: close\r\n\r\n",
                 cases[i].host, cases[i].origin ? "Origin: " : "",
                 cases[i].origin ? cases[i].origin : "", cases[i].origin ? "\r\n" : "");
        char *a = talk(g.port, text);
        expect_code(text, a, cases[i].code);
        if (cases[i].origin && cases[i].code == 200) {
            char header[200];
            snprintf(header, sizeof header, "Access-Control-Allow-Origin: %s\r\n", cases[i].origin);
            assert_non_null(strstr(a, header));
            assert_non_null(strstr(a, "Vary: Origin\r\n"));
        } else {
            assert_null(strstr(a, "Access-Control-Allow-Origin"));
        }
        allowed += cases[i].code == 200;
        base_free(a);
    }
    /* The target's own authority counts as well. */
    char *a = talk(g.port, "GET http://evil.example/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    expect_code("absolute target", a, 403);
    base_free(a);
    a = talk(
        g.port,
        "GET http://localhost:52415/x?y HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    expect_code("absolute target of our own", a, 200);
    assert_non_null(strstr(a, "GET /x ?y"));
    base_free(a);
    assert_int_equal(atomic_load(&g.handled), allowed + 1);
    rig_stop(&g);
    const char *any[] = {"*"};
    o = (http_options){.hosts = any, .n_hosts = 1, .origins = any, .n_origins = 1};
    rig_start(&g, &o, echo);
    a = talk(g.port,
             "GET / HTTP/1.1\r\nHost: whatever\r\nOrigin: null\r\nConnection: close\r\n\r\n");
    expect_code("any", a, 200);
    base_free(a);
    rig_stop(&g);
}

static void test_preflight(void **state)
{
    (void)state;
    rig g;
    rig_start(&g, NULL, echo);
    char *a = talk(g.port, "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: "
                           "http://localhost:3000\r\n"
                           "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: "
                           "authorization,content-type\r\n"
                           "Connection: close\r\n\r\n");
    expect_code("preflight", a, 204);
    assert_non_null(strstr(a, "Access-Control-Allow-Origin: http://localhost:3000\r\n"));
    assert_non_null(strstr(a, "Access-Control-Allow-Headers: authorization,content-type\r\n"));
    assert_non_null(strstr(
        a, "Access-Control-Allow-Methods: GET, HEAD, POST, DELETE, OPTIONS, PATCH, PUT\r\n"));
    assert_null(strstr(a, "Content-Length"));
    base_free(a);
    a = talk(g.port, "OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: "
                     "http://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n");
    expect_code("preflight of a stranger", a, 403);
    base_free(a);
    assert_int_equal(atomic_load(&g.handled), 0);
    rig_stop(&g);
}

static void test_listen(void **state)
{
    (void)state;
    rig g;
    err e = {0};
    rig_start(&g, NULL, echo);
    http_server *second;
    http_loop *loop;
    char address[64];
    int port = 0;
    assert_int_equal(http_loop_create(&loop, &e), STATUS_OK);
    assert_int_equal(http_server_create(&second, loop, NULL, echo, &g, &e), STATUS_OK);
    snprintf(address, sizeof address, "127.0.0.1:%d", g.port);
    assert_int_equal(http_server_listen(second, address, NULL, &e), STATUS_CONFLICT);
    assert_non_null(strstr(e.text, address));
    assert_non_null(strstr(e.text, "in use"));
    static const char *const bad[] = {
        "127.0.0.1", "127.0.0.1:", "nowhere.example:80", "127.0.0.1:70000", "", ":80", "1.2.3:80"};
    for (size_t i = 0; i < BASE_COUNT(bad); i++)
        assert_int_equal(http_server_listen(second, bad[i], NULL, &e), STATUS_INVALID);
    assert_int_equal(http_server_listen(second, "localhost:0", &port, &e), STATUS_OK);
    assert_true(port > 0 && port != g.port);
    status s = http_server_listen(second, "[::1]:0", &port, &e);
    if (s != STATUS_OK)
        print_message("skipped: no IPv6 loopback here (%s)\n", e.text);
    http_server_destroy(second);
    http_loop_destroy(loop);
    rig_stop(&g);
}

static void count_gone(void *context, http_request *r)
{
    (void)r;
    rig *g = context;
    atomic_fetch_add(&g->gone, 1);
}

static void hold_or_echo(void *context, http_request *r)
{
    rig *g = context;
    if (strcmp(http_request_path(r), "/hold") == 0) {
        http_on_gone(r, count_gone, g);
        atomic_fetch_add(&g->handled, 1);
    } else {
        echo(context, r);
    }
}

static void test_connection_limit(void **state)
{
    (void)state;
    rig g;
    http_options o = {.connections = 4};
    rig_start(&g, &o, hold_or_echo);
    int fds[4];
    for (int i = 0; i < 4; i++) {
        fds[i] = dial(g.port);
        assert_true(puts_to(fds[i], "GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        await(&g.handled, i + 1);
    }
    char *a = talk(g.port, "");
    expect_code("a fifth", a, 503);
    base_free(a);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    await(&g.gone, 4);
    /* Idle ones make room, the one that has waited longest first. */
    sb got;
    sb_init(&got);
    for (int i = 0; i < 4; i++) {
        fds[i] = dial(g.port);
        assert_true(puts_to(fds[i], "GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        sb_clear(&got);
        take_until(fds[i], &got, "GET /first");
    }
    a = talk(g.port, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    expect_code("room for a fifth", a, 200);
    base_free(a);
    sb_clear(&got);
    assert_int_equal(take(fds[0], &got), 0);
    assert_true(puts_to(fds[3], "GET /again HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    take_until(fds[3], &got, "GET /again");
    sb_fini(&got);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    rig_stop(&g);
}

/* Whatever allocation fails, the server neither crashes nor hangs nor leaks, and works again afterwards. */
static void test_allocation_failures(void **state)
{
    (void)state;
    rig g;
    http_options o = {.header_us = 2000000, .body_us = 2000000, .idle_us = 2000000};
    rig_start(&g, &o, echo);
    static const char text[] =
        "POST /x?y HTTP/1.1\r\nHost: localhost\r\nX-Extra: y\r\nTransfer-Encoding: chunked\r\n"
        "Connection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for (uint64_t n = 1; n <= 40; n++) {
        int fd = dial(g.port);
        base_fail_after(n);
        put(fd, text, sizeof text - 1);
        char bytes[4096];
        struct pollfd p = {.fd = fd, .events = POLLIN};
        do {
            assert_int_equal(poll(&p, 1, WAIT_MS), 1);
        } while (recv(fd, bytes, sizeof bytes, 0) > 0);
        base_fail_after(0);
        close(fd);
    }
    char *a = talk(g.port, text);
    expect_code("afterwards", a, 200);
    base_free(a);
    rig_stop(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simple),
        cmocka_unit_test(test_keep_alive_and_pipelining),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_framing_attacks),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_large_body),
        cmocka_unit_test(test_trickle),
        cmocka_unit_test(test_expect_continue),
        cmocka_unit_test(test_host_and_origin),
        cmocka_unit_test(test_preflight),
        cmocka_unit_test(test_listen),
        cmocka_unit_test(test_connection_limit),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
