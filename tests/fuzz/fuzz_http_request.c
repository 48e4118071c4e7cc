/*
 * Bytes of a client through the real server over a socket pair, once in one piece and once cut in two at a place that the first
 * byte chooses. Both times the handler must see the same requests: how bytes arrive must not change what they mean. Every
 * answer must begin like one, and nothing may be left open.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/http.h"
#include "os/os.h"
#include "turns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 32 * 1024 };

static http_loop *loop;
static http_server *server;
static sb seen; /* what the handler saw */
static int n_held;

static void check(bool fine)
{
    if (!fine)
        abort();
}

static void on_gone(void *context, http_request *r)
{
    (void)context, (void)r;
    n_held--;
}

static void handle(void *context, http_request *r)
{
    (void)context;
    str body = http_request_body(r);
    char *value = NULL;
    const char *name, *header;
    const char *path = http_request_path(r);
    check(path[0] == '/' || strcmp(path, "*") == 0);
    sb_printf(&seen, "%s %s?%s\n", http_request_method(r), path, http_request_query(r));
    for (size_t i = 0; i < http_request_n_headers(r); i++) {
        http_request_header_at(r, i, &name, &header);
        sb_printf(&seen, "%s=%s\n", name, header);
        check(strpbrk(header, "\r\n") == NULL && name[0] != 0);
    }
    sb_add(&seen, body.data, body.length);
    if (http_request_query_value(r, "q", &value))
        sb_puts(&seen, value);
    base_free(value);
    if (strcmp(path, "/hold") == 0) {
        n_held++;
        http_on_gone(r, on_gone, NULL);
    } else if (strcmp(path, "/sse") == 0) {
        http_sse_begin(r);
        http_sse_send(r, NULL, body.data, body.length);
        http_stream_end(r);
    } else {
        http_reply(r, 200, "text/plain", body.data, body.length);
    }
}

static void feed(int fd, const uint8_t *data, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t k = write(fd, data + at, n - at);
        if (k <= 0)
            break; /* the server has closed */
        at += (size_t)k;
    }
    turns_run(loop);
}

static void converse(const uint8_t *data, size_t size, size_t cut)
{
    int pair[2];
    char start[9] = "";
    sb_clear(&seen);
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    check(http_server_adopt(server, pair[1], NULL) == STATUS_OK);
    if (cut > 0)
        feed(pair[0], data, cut);
    feed(pair[0], data + cut, size - cut);
    shutdown(pair[0], SHUT_WR);
    turns_run(loop);
    ssize_t n = recv(pair[0], start, 8, MSG_DONTWAIT);
    check(n <= 0 || memcmp(start, "HTTP/1.1", BASE_MIN((size_t)n, 8)) == 0);
    close(pair[0]);
    turns_run(loop);
    check(http_server_connections(server) == 0 && http_server_requests(server) == 0 && n_held == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!loop) {
        log_set_level(LOG_ERROR);
        http_options options = {.header_bytes = 2048, .body_bytes = 4096};
        check(http_loop_create(&loop, NULL) == STATUS_OK);
        check(http_server_create(&server, loop, &options, handle, NULL, NULL) == STATUS_OK);
        sb_init(&seen);
    }
    if (size < 2 || size > INPUT_MAX)
        return 0;
    size_t cut = data[0];
    data++;
    size--;
    converse(data, size, 0);
    size_t n = seen.length;
    char *whole = sb_take(&seen);
    converse(data, size, BASE_MIN(cut, size));
    check(whole && n == seen.length && (n == 0 || memcmp(whole, seen.data, n) == 0));
    base_free(whole);
    return 0;
}
