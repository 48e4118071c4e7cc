/* Streamed answers, vanishing and stalling clients, and the loop itself: posts, timers, watches. */
#include "http_harness.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: localhost\r\n\r\n"

static void count_gone(void *context, http_request *r)
{
    (void)r;
    rig *g = context;
    atomic_fetch_add(&g->gone, 1);
}

/* ---- many event streams at once ---- */

enum { CLIENTS = 200, EVENTS = 50 };

typedef struct crowd {
    rig g;
    http_request *all[CLIENTS];
    int n, sent;
    http_timer *ticks;
} crowd;

static void crowd_tick(void *context)
{
    crowd *c = context;
    char text[64];
    int n = snprintf(text, sizeof text, "{\"token\":%d}", c->sent);
    for (int i = 0; i < CLIENTS; i++) {
        if (c->sent < EVENTS)
            http_sse_send(c->all[i], NULL, text, (size_t)n);
        else
            http_stream_end(c->all[i]);
    }
    if (c->sent++ == EVENTS)
        http_timer_stop(c->ticks);
}

static void crowd_handle(void *context, http_request *r)
{
    crowd *c = (crowd *)context; /* the rig is its first member */
    http_on_gone(r, count_gone, &c->g);
    http_sse_begin(r);
    c->all[c->n++] = r;
    if (c->n == CLIENTS)
        http_timer_repeat(c->ticks, 1000);
}

static void test_200_streams(void **state)
{
    (void)state;
    static crowd c;
    memset(&c, 0, sizeof c);
    err e = {0};
    assert_int_equal(http_loop_create(&c.g.loop, &e), STATUS_OK);
    assert_int_equal(http_timer_create(&c.ticks, c.g.loop, crowd_tick, &c, &e), STATUS_OK);
    assert_int_equal(http_server_create(&c.g.server, c.g.loop, NULL, crowd_handle, &c, &e),
                     STATUS_OK);
    assert_int_equal(http_server_listen(c.g.server, "127.0.0.1:0", &c.g.port, &e), STATUS_OK);
    assert_int_equal(os_thread_create(&c.g.thread, rig_loop, c.g.loop, "loop", &e), STATUS_OK);
    static struct pollfd fds[CLIENTS];
    static sb got[CLIENTS];
    sb expected;
    sb_init(&expected);
    for (int i = 0; i < EVENTS; i++) {
        char text[64];
        int n = snprintf(text, sizeof text, "data: {\"token\":%d}\n\n", i);
        sb_printf(&expected, "%x\r\n%s\r\n", (unsigned)n, text);
    }
    sb_puts(&expected, "0\r\n\r\n");
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = (struct pollfd){.fd = dial(c.g.port), .events = POLLIN};
        sb_init(&got[i]);
        assert_true(puts_to(fds[i].fd, GET("/")));
    }
    for (int done = 0; done < CLIENTS;) {
        assert_true(poll(fds, CLIENTS, WAIT_MS) > 0);
        for (int i = 0; i < CLIENTS; i++) {
            if (fds[i].fd < 0 || !fds[i].revents)
                continue;
            assert_true(take(fds[i].fd, &got[i]) > 0);
            if (strstr(got[i].data, "0\r\n\r\n")) {
                const char *body = strstr(got[i].data, "\r\n\r\n");
                assert_non_null(strstr(got[i].data, "Content-Type: text/event-stream\r\n"));
                assert_non_null(strstr(got[i].data, "Cache-Control: no-cache\r\n"));
                assert_non_null(strstr(got[i].data, "X-Accel-Buffering: no\r\n"));
                assert_non_null(strstr(got[i].data, "Transfer-Encoding: chunked\r\n"));
                assert_string_equal(body + 4, expected.data);
                close(fds[i].fd);
                fds[i].fd = -1;
                sb_fini(&got[i]);
                done++;
            }
        }
    }
    sb_fini(&expected);
    http_loop_stop(c.g.loop);
    os_thread_join(c.g.thread);
    http_server_destroy(c.g.server);
    http_timer_destroy(c.ticks);
    http_loop_destroy(c.g.loop);
    assert_int_equal(atomic_load(&c.g.gone), 0);
}

/* ---- clients that do not read ---- */

enum { PIECE = 32 * 1024, HIGH = 64 * 1024, LOW = 16 * 1024, TOTAL_PIECES = 1280 /* 40 MiB */ };

typedef struct flood {
    rig g;
    int left;
    uint64_t most_pending;
    http_request *request;
} flood;

static void flood_on(void *context, http_request *r)
{
    static char piece[PIECE];
    flood *f = context;
    while (f->left > 0 && http_stream_pending(r) < HIGH) {
        memset(piece, 'a' + f->left % 26, sizeof piece);
        http_stream_send(r, piece, sizeof piece);
        f->left--;
        f->most_pending = BASE_MAX(f->most_pending, http_stream_pending(r));
    }
    if (f->left > 0)
        http_on_drained(r, LOW, flood_on, f);
    else
        http_stream_end(r);
}

static void flood_rudely(void *context)
{
    static const char piece[PIECE];
    flood *f = context;
    if (!f->request)
        return;
    http_stream_send(f->request, piece, sizeof piece);
    http_loop_post(f->g.loop, flood_rudely, f);
}

static void flood_gone(void *context, http_request *r)
{
    flood *f = context;
    f->request = NULL;
    count_gone(&f->g, r);
}

static void flood_handle(void *context, http_request *r)
{
    flood *f = (flood *)context;
    http_on_gone(r, flood_gone, f);
    http_stream_begin(r, 200, "application/octet-stream");
    f->left = TOTAL_PIECES;
    f->most_pending = 0;
    if (strcmp(http_request_path(r), "/rude") == 0) {
        f->request = r;
        flood_rudely(f);
    } else {
        flood_on(f, r);
    }
}

/* A slow reader gets everything while the server never holds more than the producer's limit. */
static void test_back_pressure(void **state)
{
    (void)state;
    static flood f;
    rig_start(&f.g, NULL, flood_handle);
    int fd = dial(f.g.port);
    assert_true(puts_to(fd, GET("/polite")));
    os_sleep_us(100000); /* not needed for the result: lets the socket fill first */
    static char bytes[1 << 16];
    size_t letters = 0;
    bool ended = false;
    while (!ended) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, WAIT_MS), 1);
        ssize_t n = recv(fd, bytes, sizeof bytes - 1, 0);
        assert_true(n > 0);
        bytes[n] = 0;
        ended = n >= 5 && memcmp(bytes + n - 5, "0\r\n\r\n", 5) == 0;
        letters += (size_t)n;
    }
    assert_true(letters > (size_t)TOTAL_PIECES * PIECE);
    close(fd);
    rig_stop(&f.g);
    assert_true(f.most_pending <= HIGH + PIECE + 4096);
    assert_int_equal(f.left, 0);
    assert_int_equal(atomic_load(&f.g.gone), 0);
}

static void test_stalled_reader(void **state)
{
    (void)state;
    static flood f;
    http_options o = {.stall_us = 200000};
    rig_start(&f.g, &o, flood_handle);
    int fd = dial(f.g.port);
    assert_true(puts_to(fd, GET("/polite")));
    await(&f.g.gone, 1); /* nothing is read: dropped */
    close(fd);
    rig_stop(&f.g);
    assert_true(f.left > 0);
    memset(&f, 0, sizeof f);
    o = (http_options){.pending_bytes = 1 << 20};
    rig_start(&f.g, &o, flood_handle);
    fd = dial(f.g.port);
    assert_true(puts_to(fd, GET("/rude")));
    await(&f.g.gone, 1); /* the producer pays no heed: dropped */
    close(fd);
    rig_stop(&f.g);
}

/* ---- clients that vanish ---- */

static void hold(void *context, http_request *r)
{
    rig *g = context;
    http_on_gone(r, count_gone, g);
    if (strcmp(http_request_path(r), "/sse") == 0)
        http_sse_begin(r);
    atomic_fetch_add(&g->handled, 1);
}

static void test_gone(void **state)
{
    (void)state;
    rig g;
    rig_start(&g, NULL, hold);
    int n = 0;
    for (int how = 0; how < 3; how++) {
        for (int path = 0; path < 2; path++) {
            int fd = dial(g.port);
            sb got;
            sb_init(&got);
            assert_true(puts_to(fd, path ? GET("/sse") : GET("/hold")));
            await(&g.handled, ++n);
            if (path)
                take_until(fd, &got, "\r\n\r\n");
            assert_int_equal(atomic_load(&g.gone), n - 1);
            if (how == 1)
                shutdown(fd, SHUT_WR);
            if (how == 2) {
                struct linger reset = {1, 0};
                setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            }
            if (how != 1)
                close(fd);
            await(&g.gone, n);
            if (how == 1)
                close(fd);
            sb_fini(&got);
        }
    }
    /* Those still held when the server ends are told too. */
    int fd = dial(g.port);
    assert_true(puts_to(fd, GET("/hold")));
    await(&g.handled, n + 1);
    rig_stop(&g);
    assert_int_equal(atomic_load(&g.gone), n + 1);
    close(fd);
}

/* A client that vanishes while more of its requests wait behind the one being answered. */
static void test_gone_with_pipeline(void **state)
{
    (void)state;
    rig g;
    rig_start(&g, NULL, hold);
    int fd = dial(g.port);
    for (int i = 0; i < 100; i++)
        assert_true(puts_to(fd, GET("/hold")));
    await(&g.handled, 1);
    close(fd);
    await(&g.gone, 1);
    rig_stop(&g);
    assert_int_equal(atomic_load(&g.handled), 1);
}

static void forget(void *context, http_request *r)
{
    (void)context;
    if (strcmp(http_request_path(r), "/stream") == 0)
        http_sse_begin(r);
}

static void test_handler_that_forgets(void **state)
{
    (void)state;
    rig g;
    rig_start(&g, NULL, forget);
    int fd = dial(g.port);
    sb got;
    sb_init(&got);
    assert_true(puts_to(fd, GET("/x")));
    take_until(fd, &got, "HTTP/1.1 500 ");
    close(fd);
    char *a = talk(g.port, GET("/stream"));
    expect_code("a forgotten stream is cut", a, 200);
    assert_null(strstr(a, "0\r\n\r\n"));
    base_free(a);
    sb_fini(&got);
    rig_stop(&g);
}

/* ---- forms of streams ---- */

static void forms(void *context, http_request *r)
{
    (void)context;
    const char *path = http_request_path(r);
    if (strcmp(path, "/ndjson") == 0) {
        http_stream_begin(r, 200, "application/x-ndjson");
        assert_true(http_stream_begun(r));
        http_stream_send(r, "{\"a\":1}\n", 8);
        http_stream_send(r, "", 0);
        http_stream_send(r, "{\"a\":2}\n", 8);
        http_stream_end(r);
    } else if (strcmp(path, "/abort") == 0) {
        http_sse_begin(r);
        http_sse_send(r, NULL, "x", 1);
        http_stream_abort(r);
    } else {
        http_add_header(r, "X-One", "1");
        http_sse_begin(r);
        http_sse_comment(r, "ping");
        http_sse_send(r, "message_start", "{}", 2);
        http_sse_send(r, NULL, "a\nb\r\nc\rd", 8);
        http_sse_send(r, NULL, "e\n", 2);
        http_sse_send(r, NULL, NULL, 0);
        http_stream_end(r);
    }
}

static void test_forms(void **state)
{
    (void)state;
    rig g;
    rig_start(&g, NULL, forms);
    char *a =
        talk(g.port, "GET /sse HTTP/1.0\r\nHost: localhost\r\n\r\n"); /* no chunks: until close */
    expect_code("1.0", a, 200);
    assert_null(strstr(a, "chunked"));
    assert_non_null(strstr(a, "X-One: 1\r\n"));
    assert_string_equal(strstr(a, "\r\n\r\n") + 4,
                        ": ping\n\nevent: message_start\ndata: {}\n\n"
                        "data: a\ndata: b\ndata: c\ndata: d\n\ndata: e\ndata: \n\ndata: \n\n");
    base_free(a);
    a = talk(g.port, "GET /ndjson HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    expect_code("ndjson", a, 200);
    assert_string_equal(strstr(a, "\r\n\r\n") + 4,
                        "8\r\n{\"a\":1}\n\r\n8\r\n{\"a\":2}\n\r\n0\r\n\r\n");
    base_free(a);
    a = talk(g.port, "HEAD /ndjson HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    expect_code("HEAD", a, 200);
    assert_string_equal(strstr(a, "\r\n\r\n"), "\r\n\r\n");
    base_free(a);
    a = talk(g.port, GET("/abort"));
    expect_code("abort", a, 200);
    assert_non_null(strstr(a, "data: x\n\n"));
    assert_null(strstr(a, "0\r\n\r\n"));
    base_free(a);
    /* A stream and then another request on the same connection. */
    int fd = dial(g.port);
    sb got;
    sb_init(&got);
    assert_true(puts_to(fd, GET("/ndjson") GET("/ndjson")));
    while (!got.data || count_of(got.data, "0\r\n\r\n") < 2)
        assert_true(take(fd, &got) > 0);
    sb_fini(&got);
    close(fd);
    rig_stop(&g);
}

/* ---- closing down ---- */

static void close_down(void *context)
{
    rig *g = context;
    http_server_close_listeners(g->server);
}

static http_request *held;

static void hold_one(void *context, http_request *r)
{
    rig *g = context;
    http_on_gone(r, count_gone, g);
    held = r;
    atomic_fetch_add(&g->handled, 1);
}

static void answer_held(void *context)
{
    rig *g = context;
    assert_int_equal(http_server_requests(g->server), 1);
    http_reply_text(held, 200, "done %d", 7);
    assert_int_equal(http_server_requests(g->server), 0);
}

static void test_close_listeners(void **state)
{
    (void)state;
    rig g;
    rig_start(&g, NULL, hold_one);
    int fd = dial(g.port), idle = dial(g.port);
    assert_true(puts_to(fd, GET("/")));
    await(&g.handled, 1);
    assert_int_equal(http_loop_post(g.loop, close_down, &g), STATUS_OK);
    sb none;
    sb_init(&none);
    assert_int_equal(take(idle, &none), 0); /* so is the listener by now */
    int late = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)g.port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_not_equal(connect(late, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(http_loop_post(g.loop, answer_held, &g), STATUS_OK);
    char *a = take_all(fd);
    expect_code("the last answer", a, 200);
    assert_non_null(strstr(a, "Connection: close\r\n"));
    assert_non_null(strstr(a, "\r\n\r\ndone 7"));
    base_free(a);
    close(late);
    close(fd);
    close(idle);
    rig_stop(&g);
}

static void test_adopt(void **state)
{
    (void)state;
    rig g;
    err e = {0};
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(http_loop_create(&g.loop, &e), STATUS_OK);
    assert_int_equal(http_server_create(&g.server, g.loop, NULL, forms, &g, &e), STATUS_OK);
    assert_int_equal(http_server_adopt(g.server, pair[1], &e), STATUS_OK);
    assert_int_equal(http_server_connections(g.server), 1);
    assert_int_equal(os_thread_create(&g.thread, rig_loop, g.loop, "loop", &e), STATUS_OK);
    sb got;
    sb_init(&got);
    assert_true(puts_to(pair[0], GET("/ndjson")));
    take_until(pair[0], &got, "0\r\n\r\n");
    sb_fini(&got);
    close(pair[0]);
    rig_stop(&g);
}

/* ---- the loop ---- */

enum { POSTERS = 4, POSTS = 20000 };

typedef struct poster {
    http_loop *loop;
    struct post {
        struct poster *from;
        int i;
    } posts[POSTS];
    int next; /* loop's thread only */
    bool in_order;
    atomic_int *done;
} poster;

static void run_post(void *context)
{
    struct post *p = context;
    if (p->i != p->from->next++)
        p->from->in_order = false;
    if (p->i == POSTS - 1)
        atomic_fetch_add(p->from->done, 1);
}

static void post_many(void *context)
{
    poster *p = context;
    for (int i = 0; i < POSTS; i++) {
        p->posts[i] = (struct post){p, i};
        while (http_loop_post(p->loop, run_post, &p->posts[i]) != STATUS_OK)
            ;
    }
}

static void test_posts(void **state)
{
    (void)state;
    err e = {0};
    http_loop *loop;
    os_thread *runner, *threads[POSTERS];
    static poster posters[POSTERS];
    atomic_int done;
    atomic_init(&done, 0);
    assert_int_equal(http_loop_create(&loop, &e), STATUS_OK);
    assert_int_equal(os_thread_create(&runner, rig_loop, loop, "loop", &e), STATUS_OK);
    for (int i = 0; i < POSTERS; i++) {
        posters[i].loop = loop;
        posters[i].next = 0;
        posters[i].in_order = true;
        posters[i].done = &done;
        assert_int_equal(os_thread_create(&threads[i], post_many, &posters[i], "post", &e),
                         STATUS_OK);
    }
    await(&done, POSTERS);
    for (int i = 0; i < POSTERS; i++)
        os_thread_join(threads[i]);
    http_loop_stop(loop);
    os_thread_join(runner);
    for (int i = 0; i < POSTERS; i++) {
        assert_true(posters[i].in_order);
        assert_int_equal(posters[i].next, POSTS);
    }
    http_loop_stop(loop); /* before run: returns at once */
    http_loop_run(loop);
    http_loop_destroy(loop);
}

typedef struct clockwork {
    http_loop *loop;
    http_timer *once, *repeat, *never;
    http_watch *watch;
    int fds[2];
    int n_once, n_repeat, n_read;
    bool ended;
} clockwork;

static void tick_once(void *context)
{
    clockwork *c = context;
    c->n_once++;
    http_timer_destroy(c->once);
}

static void tick_repeat(void *context)
{
    clockwork *c = context;
    c->n_repeat++;
    if (c->n_repeat == 1) {
        assert_int_equal(write(c->fds[1], "x", 1), 1);
    } else if (c->n_repeat == 3) {
        err e = {0};
        assert_int_equal(http_watch_set(c->watch, HTTP_READABLE, &e), STATUS_OK);
        close(c->fds[1]);
    } else if (c->n_repeat == 5) {
        http_timer_stop(c->never);
        http_timer_once(c->repeat, 1000);
    } else if (c->n_repeat == 6) {
        http_timer_destroy(c->repeat);
        http_loop_stop(c->loop);
    }
}

static void tick_never(void *context)
{
    (void)context;
    fail();
}

static void readable(void *context, unsigned what)
{
    clockwork *c = context;
    err e = {0};
    char bytes[8];
    assert_int_equal(what, HTTP_READABLE);
    c->n_read++;
    if (read(c->fds[0], bytes, sizeof bytes) == 0) {
        c->ended = true;
        http_watch_destroy(c->watch);
    } else {
        assert_int_equal(http_watch_set(c->watch, 0, &e), STATUS_OK);
    }
}

static void test_timers_and_watches(void **state)
{
    (void)state;
    err e = {0};
    clockwork c = {0};
    assert_int_equal(pipe(c.fds), 0);
    assert_int_equal(http_loop_create(&c.loop, &e), STATUS_OK);
    assert_int_equal(http_timer_create(&c.once, c.loop, tick_once, &c, &e), STATUS_OK);
    assert_int_equal(http_timer_create(&c.repeat, c.loop, tick_repeat, &c, &e), STATUS_OK);
    assert_int_equal(http_timer_create(&c.never, c.loop, tick_never, &c, &e), STATUS_OK);
    assert_int_equal(http_watch_create(&c.watch, c.loop, c.fds[0], HTTP_READABLE, readable, &c, &e),
                     STATUS_OK);
    http_timer_once(c.once, 1);
    http_timer_repeat(c.repeat, 20000);
    http_timer_once(c.never, UINT64_MAX);
    http_loop_run(c.loop);
    assert_int_equal(c.n_once, 1);
    assert_int_equal(c.n_repeat, 6);
    assert_int_equal(c.n_read, 2);
    assert_true(c.ended);
    http_timer_destroy(c.never);
    http_loop_destroy(c.loop);
    close(c.fds[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_200_streams),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_stalled_reader),
        cmocka_unit_test(test_gone),
        cmocka_unit_test(test_gone_with_pipeline),
        cmocka_unit_test(test_handler_that_forgets),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_close_listeners),
        cmocka_unit_test(test_adopt),
        cmocka_unit_test(test_posts),
        cmocka_unit_test(test_timers_and_watches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
