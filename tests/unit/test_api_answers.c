/*
 * The shape of answers, over a real rank with a tiny random model: whole and streamed answers say the same, usage, log-probabilities,
 * choices, stop strings, cancelling, metrics.
 */
#include "api_rig.h"

static api_rig it;

#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]"

static void post(reply *r, const char *path, const char *body, int code)
{
    ask(r, &it, "POST", path, body);
    if (r->code != code || !r->json)
        fail_msg("%s %s: expected %d, got %d %s", path, body, code, r->code,
                 r->body.data ? r->body.data : "");
}

/* What all chunks of a stream say of one choice. */
typedef struct told {
    sb text;
    int n_role, n_finish, n_logprobs, n_usage;
    const char *reason;
} told;

static void gather(told *t, json_t *events, int choice)
{
    size_t i, k;
    json_t *event, *one;
    *t = (told){0};
    json_array_foreach(events, i, event)
    {
        if (json_is_object(at(event, "usage")))
            t->n_usage++;
        json_array_foreach(at(event, "choices"), k, one)
        {
            if (whole_at(one, "index") != choice)
                continue;
            const char *text = json_string_value(at(one, "delta.content"));
            if (!text)
                text = json_string_value(at(one, "text"));
            sb_puts(&t->text, text ? text : "");
            t->n_role += at(one, "delta.role") != NULL;
            t->n_logprobs += (int)json_array_size(at(one, "logprobs.content"));
            if (json_is_string(at(one, "finish_reason"))) {
                t->n_finish++;
                t->reason = text_at(one, "finish_reason");
            } else {
                assert_int_equal(t->n_finish, 0); /* nothing after the end */
            }
        }
    }
    sb_puts(&t->text, "");
}

static void chat_whole_and_streamed(void **state)
{
    (void)state;
    reply whole, stream;
    told t;
    post(&whole, "/v1/chat/completions", "{" HELLO ",\"max_tokens\":24,\"seed\":5,\"unknown\":{}}",
         200);
    assert_string_equal(text_at(whole.json, "object"), "chat.completion");
    assert_int_equal(strncmp(text_at(whole.json, "id"), "chatcmpl-", 9), 0);
    assert_int_equal(strncmp(text_at(whole.json, "system_fingerprint"), "exact/1-", 8), 0);
    assert_string_equal(text_at(whole.json, "choices.0.message.role"), "assistant");
    assert_true(json_is_null(at(whole.json, "choices.0.logprobs")));
    assert_int_equal(whole_at(whole.json, "usage.total_tokens"),
                     whole_at(whole.json, "usage.prompt_tokens") +
                         whole_at(whole.json, "usage.completion_tokens"));
    assert_true(whole_at(whole.json, "usage.prompt_tokens") > 5);
    assert_true(whole_at(whole.json, "usage.prompt_tokens_details.cached_tokens") >= 0);
    /* the id of the answer is that of the header */
    assert_non_null(strstr(whole.head, text_at(whole.json, "id") + 9));

    post(&stream, "/v1/chat/completions",
         "{" HELLO ",\"max_tokens\":24,\"seed\":5,\"stream\":true,"
         "\"stream_options\":{\"include_usage\":true}}",
         200);
    assert_true(stream.done);
    gather(&t, stream.json, 0);
    assert_string_equal(t.text.data, text_at(whole.json, "choices.0.message.content"));
    assert_string_equal(t.reason, text_at(whole.json, "choices.0.finish_reason"));
    assert_string_equal(text_at(stream.json, "0.object"), "chat.completion.chunk");
    assert_string_equal(text_at(stream.json, "0.choices.0.delta.role"), "assistant");
    assert_int_equal(t.n_role, 1);
    assert_int_equal(t.n_finish, 1);
    assert_int_equal(t.n_usage, 1);
    json_t *last = json_array_get(stream.json, json_array_size(stream.json) - 1);
    assert_int_equal(json_array_size(at(last, "choices")), 0);
    assert_int_equal(whole_at(last, "usage.completion_tokens"),
                     whole_at(whole.json, "usage.completion_tokens"));
    sb_fini(&t.text);
    reply_fini(&whole);
    reply_fini(&stream);
}

static void choices(void **state)
{
    (void)state;
    reply whole, stream;
    post(&whole, "/v1/chat/completions",
         "{" HELLO ",\"max_tokens\":8,\"seed\":7,\"n\":3,\"ignore_eos\":true}", 200);
    post(&stream, "/v1/chat/completions",
         "{" HELLO ",\"max_tokens\":8,\"seed\":7,\"n\":3,\"ignore_eos\":true,\"stream\":true}",
         200);
    assert_int_equal(json_array_size(at(whole.json, "choices")), 3);
    assert_int_equal(whole_at(whole.json, "usage.completion_tokens"), 24);
    for (int i = 0; i < 3; i++) {
        told t;
        json_t *one = json_array_get(at(whole.json, "choices"), (size_t)i);
        gather(&t, stream.json, i);
        assert_int_equal(whole_at(one, "index"), i);
        assert_string_equal(text_at(one, "finish_reason"), "length");
        assert_string_equal(t.text.data, text_at(one, "message.content"));
        assert_int_equal(t.n_usage, 0);
        sb_fini(&t.text);
    }
    assert_string_not_equal(text_at(whole.json, "choices.0.message.content"),
                            text_at(whole.json, "choices.1.message.content"));
    reply_fini(&whole);
    reply_fini(&stream);
}

static void chat_logprobs(void **state)
{
    (void)state;
    reply whole, stream;
    told t;
    static const char request[] = "{" HELLO ",\"max_tokens\":9,\"seed\":3,\"ignore_eos\":true,"
                                  "\"logprobs\":true,\"top_logprobs\":4,\"stream\":%s}";
    char body[512];
    snprintf(body, sizeof body, request, "false");
    post(&whole, "/v1/chat/completions", body, 200);
    snprintf(body, sizeof body, request, "true");
    post(&stream, "/v1/chat/completions", body, 200);
    json_t *content = at(whole.json, "choices.0.logprobs.content"), *one;
    assert_int_equal(json_array_size(content), 9);
    sb bytes;
    sb_init(&bytes);
    size_t i, k;
    json_array_foreach(content, i, one)
    {
        json_t *b;
        assert_true(json_number_value(at(one, "logprob")) <= 0);
        assert_int_equal(json_array_size(at(one, "top_logprobs")), 4);
        assert_true(json_number_value(at(one, "top_logprobs.0.logprob")) >=
                    json_number_value(at(one, "top_logprobs.1.logprob")));
        assert_true(json_number_value(at(one, "top_logprobs.0.logprob")) >=
                    json_number_value(at(one, "logprob")));
        text_at(one, "token");
        json_array_foreach(at(one, "bytes"), k, b) sb_putc(&bytes, (char)json_integer_value(b));
    }
    /* the tokens' bytes are the text */
    sb escaped, text;
    sb_init(&escaped);
    sb_init(&text);
    sb_puts(&escaped, "\"");
    sb_json(&escaped, bytes.data, bytes.length);
    sb_puts(&escaped, "\"");
    json_t *said = json_loadb(escaped.data, escaped.length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_string_equal(json_string_value(said), text_at(whole.json, "choices.0.message.content"));
    gather(&t, stream.json, 0);
    assert_int_equal(t.n_logprobs, 9);
    json_decref(said);
    sb_fini(&bytes);
    sb_fini(&escaped);
    sb_fini(&text);
    sb_fini(&t.text);
    reply_fini(&whole);
    reply_fini(&stream);
}

static void completion_shapes(void **state)
{
    (void)state;
    reply r;
    post(&r, "/v1/completions",
         "{\"prompt\":[\"One\",[79,110,101]],\"n\":2,\"max_tokens\":5,\"seed\":1,\"logprobs\":2,"
         "\"ignore_eos\":true}",
         200);
    assert_string_equal(text_at(r.json, "object"), "text_completion");
    assert_int_equal(strncmp(text_at(r.json, "id"), "cmpl-", 5), 0);
    assert_int_equal(json_array_size(at(r.json, "choices")), 4);
    for (size_t i = 0; i < 4; i++) {
        json_t *one = json_array_get(at(r.json, "choices"), i);
        assert_int_equal(whole_at(one, "index"), (int)i);
        assert_int_equal(json_array_size(at(one, "logprobs.tokens")), 5);
        assert_int_equal(json_array_size(at(one, "logprobs.token_logprobs")), 5);
        assert_int_equal(json_array_size(at(one, "logprobs.top_logprobs")), 5);
        assert_int_equal(json_array_size(at(one, "logprobs.text_offset")), 5);
        assert_int_equal(json_object_size(at(one, "logprobs.top_logprobs.0")), 2);
        assert_int_equal(whole_at(one, "logprobs.text_offset.0"), 0);
    }
    assert_int_equal(whole_at(r.json, "usage.completion_tokens"), 20);
    reply_fini(&r);

    post(&r, "/v1/completions",
         "{\"prompt\":[72,101],\"echo\":true,\"max_tokens\":3,\"seed\":1,\"stream\":true}", 200);
    told t;
    gather(&t, r.json, 0);
    assert_int_equal(strncmp(t.text.data, "He", 2), 0);
    assert_true(r.done);
    assert_int_equal(t.n_finish, 1);
    sb_fini(&t.text);
    reply_fini(&r);

    post(&r, "/v1/completions",
         "{\"prompt\":\"Hel\",\"best_of\":4,\"n\":2,\"max_tokens\":3,\"ignore_eos\":true}", 200);
    assert_int_equal(json_array_size(at(r.json, "choices")), 2);
    assert_int_equal(whole_at(r.json, "usage.completion_tokens"), 12);
    reply_fini(&r);

    post(&r, "/v1/completions", "{\"prompt\":\"Hello\",\"ignore_eos\":true}", 200);
    assert_int_equal(whole_at(r.json, "usage.completion_tokens"), 16); /* OpenAI's default */
    reply_fini(&r);
}

/* The text up to a stop string that is known to come, since the seed is the same. */
static void stop_strings(void **state)
{
    (void)state;
    reply r;
    char body[512];
    post(&r, "/v1/completions",
         "{\"prompt\":\"stop\",\"max_tokens\":20,\"temperature\":0,\"ignore_eos\":true,"
         "\"logit_bias\":{\"65\":100}}",
         200);
    assert_string_equal(text_at(r.json, "choices.0.text"), "AAAAAAAAAAAAAAAAAAAA");
    assert_string_equal(text_at(r.json, "choices.0.finish_reason"), "length");
    reply_fini(&r);
    snprintf(body, sizeof body,
             "{\"prompt\":\"stop\",\"max_tokens\":20,\"temperature\":0,\"ignore_eos\":true,"
             "\"logit_bias\":{\"65\":100},\"stop\":[\"zz\",\"AAA\"]}");
    post(&r, "/v1/completions", body, 200);
    assert_string_equal(text_at(r.json, "choices.0.text"), "");
    assert_string_equal(text_at(r.json, "choices.0.finish_reason"), "stop");
    assert_int_equal(whole_at(r.json, "usage.completion_tokens"), 3);
    reply_fini(&r);
}

static void too_long(void **state)
{
    (void)state;
    reply r;
    sb body;
    sb_init(&body);
    sb_puts(&body, "{\"stream\":true,\"prompt\":\"");
    for (int i = 0; i < 3000; i++)
        sb_puts(&body, "7 ");
    sb_puts(&body, "\"}");
    post(&r, "/v1/completions", body.data, 400); /* also when a stream was asked for */
    assert_string_equal(text_at(r.json, "error.code"), "context_length_exceeded");
    assert_non_null(strstr(text_at(r.json, "error.message"), "too many"));
    sb_fini(&body);
    reply_fini(&r);
}

static void tokens_there_and_back(void **state)
{
    (void)state;
    reply r, back;
    sb body;
    post(&r, "/tokenize", "{\"content\":\"Hello w\u00f6rld\"}", 200);
    assert_true(json_array_size(at(r.json, "tokens")) > 3);
    char *ids = json_dumps(at(r.json, "tokens"), 0);
    sb_init(&body);
    sb_printf(&body, "{\"tokens\":%s}", ids);
    post(&back, "/detokenize", body.data, 200);
    assert_string_equal(text_at(back.json, "content"), "Hello w\u00f6rld");
    free(ids);
    reply_fini(&r);
    reply_fini(&back);
    post(&r, "/tokenize", "{\"content\":\"w\u00f6\",\"with_pieces\":true}", 200);
    assert_string_equal(text_at(r.json, "tokens.0.piece"), "w");
    assert_int_equal(whole_at(r.json, "tokens.1.piece.0"), 0xc3);
    reply_fini(&r);
    sb_fini(&body);
}

/* ---- ends that the client or somebody else wants ------------------------------------------------------------------- */

/* Waits until /v1/status says so. */
static void await_live(int wanted)
{
    for (int i = 0; i < WAIT_MS / 10; i++) {
        reply r;
        ask(&r, &it, "GET", "/v1/status", NULL);
        int live = whole_at(r.json, "requests.live");
        int sequences = whole_at(r.json, "models.0.live_sequences");
        reply_fini(&r);
        if (live == wanted && (wanted || sequences == 0))
            return;
        os_sleep_us(10000);
    }
    fail_msg("never %d live requests", wanted);
}

static int begin_stream(const char *body, sb *got)
{
    sb request;
    sb_init(&request);
    sb_printf(&request,
              "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s",
              strlen(body), body);
    int fd = dial(it.port);
    put(fd, request.data, request.length);
    sb_fini(&request);
    sb_init(got);
    take_until(fd, got, "data: ");
    return fd;
}

#define ENDLESS "{\"prompt\":\"x\",\"max_tokens\":2000,\"ignore_eos\":true,\"stream\":true}"

static void vanished_client(void **state)
{
    (void)state;
    sb got;
    int fd = begin_stream(ENDLESS, &got);
    close(fd);
    await_live(0);
    sb_fini(&got);
}

static void cancelled_by_id(void **state)
{
    (void)state;
    sb got;
    char path[128];
    int fd = begin_stream(ENDLESS, &got);
    const char *id = strstr(got.data, "x-request-id: ");
    assert_non_null(id);
    id += strlen("x-request-id: ");
    snprintf(path, sizeof path, "/v1/requests/%.*s", (int)strcspn(id, "\r"), id);
    reply r;
    ask(&r, &it, "DELETE", path, NULL);
    assert_int_equal(r.code, 200);
    assert_true(json_is_true(at(r.json, "deleted")));
    reply_fini(&r);
    take_until(fd, &got, "request_cancelled");
    take_until(fd, &got, "\r\n0\r\n\r\n"); /* a stream that ends well-formed */
    close(fd);
    await_live(0);
    ask(&r, &it, "DELETE", path, NULL);
    assert_int_equal(r.code, 404);
    reply_fini(&r);
    sb_fini(&got);
}

/* A whole answer: its client knows no id of ours before it, but has given its own. */
static void cancelled_by_its_own_id(void **state)
{
    (void)state;
    static const char body[] = "{\"prompt\":\"x\",\"max_tokens\":2000,\"ignore_eos\":true}";
    sb request, got;
    sb_init(&request);
    sb_init(&got);
    sb_printf(
        &request,
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-Client-Request-Id: my own 7\r\n"
        "Content-Length: %zu\r\n\r\n%s",
        sizeof body - 1, body);
    int fd = dial(it.port);
    put(fd, request.data, request.length);
    await_live(1);
    reply r;
    ask(&r, &it, "DELETE", "/v1/requests/my%20own", NULL);
    assert_int_equal(r.code, 404);
    reply_fini(&r);
    ask(&r, &it, "DELETE", "/v1/requests/my%20own%207", NULL);
    assert_int_equal(r.code, 200);
    reply_fini(&r);
    take_until(fd, &got, "request_cancelled");
    assert_int_equal(strncmp(got.data, "HTTP/1.1 499", 12), 0);
    close(fd);
    await_live(0);
    sb_fini(&got);
    sb_fini(&request);
}

static int generated(void)
{
    reply r;
    ask(&r, &it, "GET", "/v1/status", NULL);
    int n = whole_at(r.json, "requests.generated_tokens");
    if (whole_at(r.json, "requests.live") == 0)
        fail_msg("the request is over, though nobody read what it said");
    reply_fini(&r);
    return n;
}

/* Until no more tokens have come for a second; how many there are then. */
static int await_standstill(void)
{
    int before = -1, n_same = 0, now;
    while (n_same < 100) {
        now = generated();
        n_same = now == before ? n_same + 1 : 0;
        before = now;
        os_sleep_us(10000);
    }
    return before;
}

/* A reader that takes nothing holds its sequences long before they end, others go on, and it gets more when it reads again. */
static void slow_reader(void **state)
{
    (void)state;
    enum { MORE = 1 << 20 };
    sb got;
    reply r;
    int fd = begin_stream("{\"prompt\":\"a\",\"n\":31,\"max_tokens\":2000,\"ignore_eos\":true,"
                          "\"stream\":true,\"logprobs\":20}",
                          &got);
    int held = await_standstill();
    post(&r, "/v1/completions", "{\"prompt\":\"y\",\"max_tokens\":5,\"ignore_eos\":true}", 200);
    assert_int_equal(whole_at(r.json, "usage.completion_tokens"), 5);
    reply_fini(&r);
    while (got.length < MORE || generated() <= held + 5)
        assert_true(take(fd, &got) > 0);
    close(fd);
    sb_fini(&got);
    await_live(0);
}

/* A stream that waits for its turn begins with comments, and is answered once the others are gone. */
static void queued_stream(void **state)
{
    (void)state;
    api_rig own, before = it;
    api_options o = {.ping_us = 20000};
    sb body, got, waited;
    sb_init(&body);
    sb_init(&waited);
    sb_puts(&body, "{\"max_tokens\":2000,\"ignore_eos\":true,\"stream\":true,\"prompt\":[\"0\"");
    for (int i = 1; i < 100; i++) /* one after the other: a long time */
        sb_printf(&body, ",\"%d\"", i);
    sb_puts(&body, "]}");
    api_rig_start(&own, (node_options){.default_model = TINY, .max_sequences = 1}, &o);
    it = own; /* begin_stream dials it */
    int fd = begin_stream(body.data, &got), waiting = dial(own.port);
    puts_to(waiting,
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 43\r\n\r\n"
            "{\"prompt\":\"x\",\"max_tokens\":2,\"stream\":true}");
    take_until(waiting, &waited, ": ping");
    assert_null(strstr(waited.data, "data:"));
    close(fd);
    take_until(waiting, &waited, "[DONE]");
    close(waiting);
    sb_fini(&body);
    sb_fini(&got);
    sb_fini(&waited);
    api_rig_stop(&own);
    it = before;
}

/* ---- metrics ------------------------------------------------------------------------------------------------------- */

static void metrics(void **state)
{
    static const char *const wanted[] = {
        "shoal_requests_total ",
        "shoal_generated_tokens_total ",
        "shoal_time_to_first_token_seconds_bucket{le=\"+Inf\"} ",
        "shoal_time_per_token_seconds_count ",
        "shoal_queue_requests{model=\"",
        "shoal_live_sequences{model=\"",
        "shoal_state_used_tokens{model=\"",
        "shoal_rank_resident_bytes{model=\"",
    };
    (void)state;
    reply r;
    ask(&r, &it, "GET", "/metrics", NULL);
    assert_int_equal(r.code, 200);
    for (size_t i = 0; i < BASE_COUNT(wanted); i++)
        if (!strstr(r.body.data, wanted[i]))
            fail_msg("no %s in the metrics", wanted[i]);
    /* every line is a comment or a name and a number, every metric has its HELP and TYPE, buckets never fall */
    double before = 0;
    int n_types = 0;
    for (char *line = r.body.data, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        if (!strncmp(line, "# TYPE ", 7))
            n_types++;
        if (*line == '#')
            continue;
        char *space = strrchr(line, ' '), *rest;
        assert_non_null(space);
        double value = strtod(space + 1, &rest);
        assert_int_equal(*rest, 0);
        if (strstr(line, "_bucket{le=")) {
            assert_true(strstr(line, "le=\"0.001\"") || value >= before);
            before = value;
        }
    }
    assert_true(n_types > 20);
    reply_fini(&r);
}

static int set_up(void **state)
{
    (void)state;
    api_options o = {0};
    api_rig_start(&it, (node_options){.default_model = TINY}, &o);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    api_rig_stop(&it);
    return 0;
}

int main(int argc, char **argv)
{
    if (api_rig_is_rank(argc, argv))
        return api_rig_rank();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_whole_and_streamed),
        cmocka_unit_test(choices),
        cmocka_unit_test(chat_logprobs),
        cmocka_unit_test(completion_shapes),
        cmocka_unit_test(stop_strings),
        cmocka_unit_test(too_long),
        cmocka_unit_test(tokens_there_and_back),
        cmocka_unit_test(vanished_client),
        cmocka_unit_test(cancelled_by_id),
        cmocka_unit_test(cancelled_by_its_own_id),
        cmocka_unit_test(slow_reader),
        cmocka_unit_test(queued_stream),
        cmocka_unit_test(metrics),
    };
    return cmocka_run_group_tests_name("api answers", tests, set_up, tear_down);
}
