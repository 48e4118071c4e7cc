/*
 * client: one call at a time over a libcurl multi handle, which keeps connections and can be woken from another thread.
 *
 * Not here: retries, ranges and hashes of downloads (src/store), anything on the event loop: calls block.
 */
#include "http/http_internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

struct http_client {
    CURLM *multi;
    CURL *easy;
    atomic_bool cancelled;
};

/* One call while it runs. */
typedef struct running {
    const http_call *call;
    http_client *client;
    http_response *response;
    uint64_t limit;
    status result; /* of on_bytes or of the limit */
    err *e;
} running;

status http_client_create(http_client **out, err *e)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return err_set(e, STATUS_INTERNAL, "http: cannot start libcurl");
    http_client *c = base_zalloc(1, sizeof *c);
    if (c) {
        atomic_init(&c->cancelled, false);
        c->multi = curl_multi_init();
        c->easy = curl_easy_init();
    }
    if (!c || !c->multi || !c->easy) {
        http_client_destroy(c);
        return err_set(e, STATUS_NO_MEMORY, "http: no memory for a client");
    }
    *out = c;
    return STATUS_OK;
}

void http_client_destroy(http_client *c)
{
    if (!c)
        return;
    if (c->easy)
        curl_easy_cleanup(c->easy);
    if (c->multi)
        curl_multi_cleanup(c->multi);
    base_free(c);
}

void http_client_cancel(http_client *c)
{
    atomic_store(&c->cancelled, true);
    curl_multi_wakeup(c->multi);
}

static size_t on_body(char *bytes, size_t size, size_t count, void *context)
{
    running *r = context;
    size_t n = size * count;
    long code = 0;
    curl_easy_getinfo(r->client->easy, CURLINFO_RESPONSE_CODE, &code);
    if (atomic_load(&r->client->cancelled))
        return 0;
    if (r->call->on_bytes && code >= 200 && code < 300) {
        r->result = r->call->on_bytes(r->call->context, bytes, n, r->e);
        return r->result == STATUS_OK ? n : 0;
    }
    sb *body = &r->response->body;
    if (n > r->limit - body->length) {
        r->result = err_set(r->e, STATUS_TOO_LARGE, "the answer of %s is larger than %llu bytes",
                            r->call->url, (unsigned long long)r->limit);
        return 0;
    }
    sb_add(body, bytes, n);
    if (body->failed) {
        r->result = err_set(r->e, STATUS_NO_MEMORY, "no memory for the answer of %s", r->call->url);
        return 0;
    }
    return n;
}

static size_t on_header(char *bytes, size_t size, size_t count, void *context)
{
    running *r = context;
    size_t n = size * count;
    sb *headers = &r->response->headers;
    if (n >= 5 && memcmp(bytes, "HTTP/", 5) ==
                      0) { /* of a redirect or of 100 Continue before: only the last counts */
        sb_clear(headers);
        sb_clear(&r->response->body);
        return n;
    }
    if (headers->length + n > 256 * 1024) {
        r->result = err_set(r->e, STATUS_TOO_LARGE, "the headers of %s are larger than 256 KiB",
                            r->call->url);
        return 0;
    }
    sb_add(headers, bytes, n);
    return n;
}

/* http://name, https://[v6] … of this machine: a proxy for the outside must not see it. */
static bool is_loopback_url(const char *url)
{
    char authority[256], name[256];
    int port;
    const char *p = strstr(url, "://");
    if (!p)
        return false;
    p += 3;
    size_t n = strcspn(p, "/?#");
    if (n >= sizeof authority)
        return false;
    memcpy(authority, p, n);
    authority[n] = 0;
    return http_split_host(authority, name, sizeof name, &port) &&
           (strcmp(name, "localhost") == 0 || strncmp(name, "127.", 4) == 0 ||
            strcmp(name, "::1") == 0);
}

static void set_body(CURL *easy, const http_call *call)
{
    const char *method = call->method ? call->method : call->body ? "POST" : "GET";
    if (call->head_only) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
        return;
    }
    if (call->body) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_bytes);
    } else {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    }
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
}

static long milliseconds(uint64_t us)
{
    uint64_t ms = us / 1000;
    return ms == 0 ? 1 : ms > INT32_MAX ? INT32_MAX : (long)ms;
}

static void set_options(http_client *c, running *r, char *error_text)
{
    const http_call *call = r->call;
    CURL *easy = c->easy;
    curl_easy_reset(easy);
    curl_easy_setopt(easy, CURLOPT_URL, call->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error_text);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, r);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "shoal/" SHOAL_VERSION);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 256L * 1024);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     milliseconds(call->connect_us ? call->connect_us : 10000000));
    if (call->timeout_us)
        curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, milliseconds(call->timeout_us));
    if (call->stall_us) {
        curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME,
                         milliseconds(call->stall_us + 999999) / 1000);
    }
    if (call->follow_redirects) {
        curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
        curl_easy_setopt(easy, CURLOPT_MAXREDIRS, 5L);
    }
    if (is_loopback_url(call->url))
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
    set_body(easy, call);
}

static status set_headers(CURL *easy, const http_call *call, struct curl_slist **list, err *e)
{
    for (size_t i = 0; i <= call->n_headers; i++) {
        /* libcurl would wait a second for 100 Continue before larger bodies */
        const char *line = i < call->n_headers ? call->headers[i] : "Expect:";
        if (strpbrk(line, "\r\n"))
            return err_set(e, STATUS_INVALID, "a header of the call to %s has a line break",
                           call->url);
        struct curl_slist *longer = curl_slist_append(*list, line);
        if (!longer)
            return err_set(e, STATUS_NO_MEMORY, "no memory for the call to %s", call->url);
        *list = longer;
    }
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, *list);
    return STATUS_OK;
}

static status transfer_failed(const running *r, CURLcode code, const char *error_text)
{
    const char *url = r->call->url, *why = error_text[0] ? error_text : curl_easy_strerror(code);
    long number = 0;
    switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return err_set(r->e, STATUS_INVALID, "\"%s\" is not an http or https address", url);
    case CURLE_COULDNT_CONNECT:
        curl_easy_getinfo(r->client->easy, CURLINFO_OS_ERRNO, &number);
        if (number)
            return err_set(r->e, STATUS_CLOSED, "cannot connect to %s: %s", url,
                           strerror((int)number));
        return err_set(r->e, STATUS_CLOSED, "cannot connect to %s: %s", url, why);
    case CURLE_OPERATION_TIMEDOUT:
        return err_set(r->e, STATUS_TIMEOUT, "%s did not answer in time: %s", url, why);
    case CURLE_PEER_FAILED_VERIFICATION:
        return err_set(r->e, STATUS_DENIED, "the certificate of %s cannot be trusted: %s", url,
                       why);
    case CURLE_OUT_OF_MEMORY:
        return err_set(r->e, STATUS_NO_MEMORY, "no memory for the call to %s", url);
    case CURLE_TOO_MANY_REDIRECTS:
        return err_set(r->e, STATUS_INVALID, "%s: more than 5 redirects", url);
    default:
        return err_set(r->e, STATUS_CLOSED, "the connection to %s broke: %s", url, why);
    }
}

/* Drives the transfer to its end. */
static status drive(http_client *c, running *r, const char *error_text)
{
    for (;;) {
        int live = 0, queued = 0;
        if (atomic_load(&c->cancelled))
            return err_set(r->e, STATUS_CANCELLED, "the call to %s was cancelled", r->call->url);
        CURLMcode code = curl_multi_perform(c->multi, &live);
        CURLMsg *message = code == CURLM_OK ? curl_multi_info_read(c->multi, &queued) : NULL;
        if (message && message->msg == CURLMSG_DONE) {
            if (atomic_load(&c->cancelled))
                continue;
            if (r->result != STATUS_OK)
                return r->result;
            CURLcode done = message->data.result;
            return done == CURLE_OK ? STATUS_OK : transfer_failed(r, done, error_text);
        }
        if (code == CURLM_OK)
            code = curl_multi_poll(c->multi, NULL, 0, 1000, NULL);
        if (code != CURLM_OK)
            return err_set(r->e, STATUS_INTERNAL, "the call to %s failed: %s", r->call->url,
                           curl_multi_strerror(code));
    }
}

status http_client_fetch(http_client *c, http_response *out, const http_call *call, err *e)
{
    char error_text[CURL_ERROR_SIZE] = "";
    http_response response = {0};
    struct curl_slist *headers = NULL;
    running r = {.call = call, .client = c, .response = &response, .e = e};
    r.limit = call->limit_bytes ? call->limit_bytes : 32 << 20;
    sb_init(&response.body);
    sb_init(&response.headers);
    set_options(c, &r, error_text);
    status result = set_headers(c->easy, call, &headers, e);
    if (result == STATUS_OK) {
        curl_multi_add_handle(c->multi, c->easy);
        result = drive(c, &r, error_text);
        curl_multi_remove_handle(c->multi, c->easy);
    }
    if (result == STATUS_OK) {
        long code = 0;
        curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &code);
        response.code = (int)code;
        sb_puts(&response.body, ""); /* "" is a string too */
        if (response.body.failed || response.headers.failed)
            result = err_set(e, STATUS_NO_MEMORY, "no memory for the answer of %s", call->url);
    }
    curl_easy_reset(c->easy); /* the handle must not point at this call any more */
    curl_slist_free_all(headers);
    if (result == STATUS_OK)
        *out = response;
    else
        http_response_fini(&response);
    return result;
}

void http_response_fini(http_response *r)
{
    sb_fini(&r->body);
    sb_fini(&r->headers);
}

bool http_response_header(const http_response *r, const char *name, char *out, size_t out_bytes)
{
    size_t n = strlen(name);
    const char *p = r->headers.data, *end = p ? p + r->headers.length : NULL;
    while (p && p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const char *line_end = newline ? newline : end;
        if ((size_t)(line_end - p) > n && p[n] == ':' && strncasecmp(p, name, n) == 0) {
            p += n + 1;
            while (p < line_end && (*p == ' ' || *p == '\t'))
                p++;
            while (line_end > p && (line_end[-1] == '\r' || line_end[-1] == ' '))
                line_end--;
            if ((size_t)(line_end - p) >= out_bytes)
                return false;
            memcpy(out, p, (size_t)(line_end - p));
            out[line_end - p] = 0;
            return true;
        }
        p = newline ? newline + 1 : end;
    }
    return false;
}
