/*
 * Bodies of clients through the whole API, over a socket pair: the first byte chooses the endpoint, the rest is the body. There is no
 * model to be had, so a request that is well-formed ends with "no model"; every answer must be one, with a JSON error of the right shape,
 * and nothing may be left open.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/api.h"
#include "os/os.h"
#include "turns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 16 * 1024 };

static const char *const paths[] = {"/v1/chat/completions", "/v1/completions", "/tokenize",
                                    "/detokenize"};

static http_loop *loop;
static node *n;
static serve *s;
static api *a;
static http_server *server;

static void check(bool fine)
{
    if (!fine)
        abort();
}

static void begin(void)
{
    node_options no = {.program = "/nowhere/shoal"};
    serve_options so = {0};
    api_options ao = {0};
    log_set_level(LOG_ERROR);
    check(http_loop_create(&loop, NULL) == STATUS_OK);
    check(node_create(&n, loop, &no, NULL) == STATUS_OK);
    check(serve_create(&s, loop, n, &so, NULL) == STATUS_OK);
    check(api_create(&a, loop, s, n, &ao, NULL) == STATUS_OK);
    check(http_server_create(&server, loop, NULL, api_handle, a, NULL) == STATUS_OK);
}

/* An answer must be an error that says what is wrong. */
static void check_answer(char *answer)
{
    char *body = strstr(answer, "\r\n\r\n");
    check(!strncmp(answer, "HTTP/1.1 4", 10) || !strncmp(answer, "HTTP/1.1 5", 10));
    check(body != NULL);
    json_t *v = json_loads(body + 4, 0, NULL);
    json_t *error = json_object_get(v, "error");
    check(json_is_string(json_object_get(error, "message")));
    check(json_is_string(json_object_get(error, "type")));
    check(json_object_get(error, "param") && json_object_get(error, "code"));
    json_decref(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];
    static char answer[64 * 1024];
    if (!loop)
        begin();
    if (size < 1 || size > INPUT_MAX)
        return 0;
    sb request;
    sb_init(&request);
    sb_printf(&request,
              "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: "
              "%zu\r\n\r\n",
              paths[data[0] % BASE_COUNT(paths)], size - 1);
    sb_add(&request, data + 1, size - 1);
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    check(http_server_adopt(server, pair[1], NULL) == STATUS_OK);
    check(write(pair[0], request.data, request.length) == (ssize_t)request.length);
    turns_run(loop);
    ssize_t length = recv(pair[0], answer, sizeof answer - 1, MSG_DONTWAIT);
    if (length > 0) {
        answer[length] = '\0';
        check_answer(answer);
    } else {
        check(node_n_instances(n) > 0); /* "minnow": it is being read */
    }
    close(pair[0]);
    turns_run(loop);
    check(http_server_requests(server) == 0);
    sb_fini(&request);
    return 0;
}
