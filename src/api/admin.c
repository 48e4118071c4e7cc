/*
 * For whoever looks after a node, and for tools: /health, /metrics, /v1/status, cancelling by id, tokenizing in the shape of llama.cpp's
 * server, and a word at /.
 */
#include "api/api_internal.h"
#include "os/os.h"

#include <stdio.h>
#include <string.h>

static void get_root(const api_request *q)
{
    http_reply_text(q->r, 200,
                    "shoal " SHOAL_VERSION " is running. OpenAI's API is at /v1, e.g. GET "
                    "/v1/models; GET /v1/status tells how it is.\n");
}

static void get_health(const api_request *q)
{
    static const char ok[] = "{\"status\":\"ok\"}";
    http_reply(q->r, 200, "application/json", ok, sizeof ok - 1);
}

static const api_route routes[] = {
    {"GET", "/", get_root, true},
    {"GET", "/health", get_health, true},
};

const api_dialect api_admin = {"admin", routes, BASE_COUNT(routes), api_openai_error};
