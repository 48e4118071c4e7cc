/*
 * The API up to the point where a model is needed: routing, keys, what is refused and how it says so. The shape of answers is in
 * test_api_answers.c.
 */
#include "api_rig.h"

static api_rig it;

/* ---- requests that are refused ------------------------------------------------------------------------------------- */

typedef struct refused {
    const char *body;
    const char *param; /* NULL = none */
    const char *said;  /* part of the message */
} refused;

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"

static const refused chats[] = {
    {"", NULL, "empty"},
    {"{", NULL, "line 1 column 1"},
    {"[]", NULL, "expected a JSON object, got an array"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud83d!\"}]}", NULL, "half of a character"},
    {"{}", "messages", "expected an array, and it is missing"},
    {"{\"messages\":null}", "messages", "missing"},
    {"{\"messages\":{}}", "messages", "expected an array, got an object"},
    {"{\"messages\":[]}", "messages", "at least one"},
    {"{\"messages\":[7]}", "messages[0]", "expected an object, got a number"},
    {"{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role", "missing"},
    {"{\"messages\":[{\"role\":1,\"content\":\"x\"}]}", "messages[0].role", "got a number"},
    {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content", "missing"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "messages[0].content", "null"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"user\",\"content\":true}]}",
     "messages[1].content", "got true"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[\"x\"]}]}", "messages[0].content[0]",
     "expected an object, got a string"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
     "messages[0].content[0].text", "missing"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}",
     "messages[0].content[0].type", "only text"},
    {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\"}]}]}",
     "messages[0].tool_calls[0].function", "missing"},
    {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{}}]}]}",
     "messages[0].tool_calls[0].function.name", "missing"},
    {"{" USER ",\"model\":5}", "model", "expected a string, got a number"},
    {"{" USER ",\"model\":\"a\\u0000b\"}", "model", "NUL"},
    {"{" USER ",\"temperature\":\"hot\"}", "temperature", "expected a number, got a string"},
    {"{" USER ",\"temperature\":1e99}", "temperature", "too large"},
    {"{" USER ",\"temperature\":-1}", NULL, "temperature"},
    {"{" USER ",\"top_p\":2}", NULL, "top_p"},
    {"{" USER ",\"n\":0}", "n", "expected 1 to 32, got 0"},
    {"{" USER ",\"n\":33}", "n", "got 33"},
    {"{" USER ",\"n\":1.5}", "n", "whole number"},
    {"{" USER ",\"max_tokens\":0}", "max_tokens", "at least 1"},
    {"{" USER ",\"max_tokens\":\"9\"}", "max_tokens", "got a string"},
    {"{" USER ",\"max_tokens\":3,\"max_completion_tokens\":0}", "max_completion_tokens",
     "at least 1"},
    {"{" USER ",\"seed\":\"1\"}", "seed", "got a string"},
    {"{" USER ",\"seed\":99999999999999999999}", NULL, "no JSON"},
    {"{" USER ",\"stop\":7}", "stop", "got a number"},
    {"{" USER ",\"stop\":[\"a\",7]}", "stop[1]", "got a number"},
    {"{" USER ",\"stop\":\"\"}", "stop", "empty"},
    {"{" USER ",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\","
     "\"12\",\"13\",\"14\",\"15\",\"16\",\"17\"]}",
     "stop", "at most 16 strings, got 17"},
    {"{" USER ",\"logit_bias\":[]}", "logit_bias", "got an array"},
    {"{" USER ",\"logit_bias\":{\"the\":1}}", "logit_bias.the", "token id"},
    {"{" USER ",\"logit_bias\":{\"5\":101}}", "logit_bias.5", "-100 to 100, got 101"},
    {"{" USER ",\"stream\":1}", "stream", "expected true or false, got a number"},
    {"{" USER ",\"stream_options\":{}}", "stream_options", "stream: true"},
    {"{" USER ",\"stream\":true,\"stream_options\":{\"include_usage\":1}}",
     "stream_options.include_usage", "got a number"},
    {"{" USER ",\"logprobs\":5}", "logprobs", "got a number"},
    {"{" USER ",\"top_logprobs\":5}", "top_logprobs", "logprobs: true"},
    {"{" USER ",\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs", "0 to 20, got 21"},
    {"{" USER ",\"tools\":{}}", "tools", "got an object"},
    {"{" USER ",\"tools\":[{\"type\":\"web_search\"}]}", "tools[0].type", "only functions"},
    {"{" USER ",\"tools\":[{\"type\":\"function\"}]}", "tools[0].function", "missing"},
    {"{" USER ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":1}}]}",
     "tools[0].function.name", "got a number"},
    {"{" USER ",\"tool_choice\":\"required\"}", "tool_choice", "needs tools"},
    {"{" USER ",\"tool_choice\":{\"type\":\"function\"}}", "tool_choice.function", "missing"},
    {"{" USER ",\"tool_choice\":\"maybe\"}", "tool_choice", "maybe"},
    {"{" USER ",\"response_format\":{\"type\":\"yaml\"}}", "response_format.type", "yaml"},
    {"{" USER ",\"functions\":[]}", "functions", "tools"},
    {"{" USER ",\"chat_template_kwargs\":{\"messages\":[]}}", "chat_template_kwargs.messages",
     "cannot be replaced"},
    {"{" USER ",\"chat_template_kwargs\":{\"bos_token\":\"\"}}", "chat_template_kwargs.bos_token",
     "cannot be replaced"},
    {"{" USER ",\"user\":{}}", "user", "got an object"},
    {"{" USER ",\"metadata\":\"x\"}", "metadata", "got a string"},
};

static const refused texts[] = {
    {"{}", "prompt", "missing"},
    {"{\"prompt\":5}", "prompt", "got a number"},
    {"{\"prompt\":[]}", "prompt", "at least one prompt"},
    {"{\"prompt\":[[]]}", "prompt[0]", "at least one token id"},
    {"{\"prompt\":[\"a\",{}]}", "prompt[1]", "got an object"},
    {"{\"prompt\":[1,\"a\"]}", "prompt[1]", "token id"},
    {"{\"prompt\":[[1,-2]]}", "prompt[0][1]", "-2 is no token id"},
    {"{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix", "filling in the middle"},
    {"{\"prompt\":\"a\",\"logprobs\":true}", "logprobs", "got true"},
    {"{\"prompt\":\"a\",\"logprobs\":21}", "logprobs", "got 21"},
    {"{\"prompt\":\"a\",\"logprobs\":1,\"max_tokens\":0}", "max_tokens", "echo"},
    {"{\"prompt\":\"a\",\"n\":2,\"best_of\":1}", "best_of", "at least n"},
    {"{\"prompt\":\"a\",\"stream\":true,\"best_of\":2}", "best_of", "stream"},
    {"{\"prompt\":\"a\",\"max_tokens\":0}", "max_tokens", "echo"},
    {"{\"prompt\":\"a\",\"max_tokens\":-2}", "max_tokens", "-2"},
};

static void expect_refused(const char *path, const refused *t)
{
    reply r;
    ask(&r, &it, "POST", path, t->body);
    if (r.code != 400 || !r.json)
        fail_msg("%s %s: expected 400, got %d %s", path, t->body, r.code, r.body.data);
    const char *message = text_at(r.json, "error.message");
    const char *param = json_string_value(at(r.json, "error.param"));
    if (!strstr(message, t->said) || (t->param ? !param || strcmp(param, t->param) : param != NULL))
        fail_msg("%s %s: expected '%s' about %s, got %s", path, t->body, t->said, t->param,
                 r.body.data);
    assert_string_equal(text_at(r.json, "error.type"), "invalid_request_error");
    assert_non_null(at(r.json, "error.code"));
    reply_fini(&r);
}

static void bad_chats(void **state)
{
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(chats); i++)
        expect_refused("/v1/chat/completions", &chats[i]);
}

static void bad_completions(void **state)
{
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(texts); i++)
        expect_refused("/v1/completions", &texts[i]);
}

static void bad_tokens(void **state)
{
    static const refused encode[] = {
        {"{}", "content", "missing"},
        {"{\"content\":5}", "content", "got a number"},
        {"{\"content\":\"x\",\"with_pieces\":5}", "with_pieces", "got a number"},
    };
    static const refused decode[] = {
        {"{}", "tokens", "missing"},
        {"{\"tokens\":[\"x\"]}", "tokens[0]", "token id"},
        {"{\"tokens\":[1,-1]}", "tokens[1]", "-1"},
    };
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(encode); i++)
        expect_refused("/tokenize", &encode[i]);
    for (size_t i = 0; i < BASE_COUNT(decode); i++)
        expect_refused("/detokenize", &decode[i]);
}

/* ---- routing ------------------------------------------------------------------------------------------------------- */

static void unknown_model(void **state)
{
    static const char *const paths[] = {"/v1/chat/completions", "/v1/completions", "/tokenize",
                                        "/detokenize"};
    static const char body[] =
        "{\"model\":\"gpt-9\"," USER ",\"prompt\":\"x\",\"content\":\"x\",\"tokens\":[1]}";
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(paths); i++) {
        reply r;
        ask(&r, &it, "POST", paths[i], body);
        assert_int_equal(r.code, 404);
        assert_string_equal(text_at(r.json, "error.code"), "model_not_found");
        assert_non_null(strstr(text_at(r.json, "error.message"), "gpt-9"));
        assert_non_null(strstr(text_at(r.json, "error.message"), "minnow"));
        reply_fini(&r);
    }
}

static void paths_and_methods(void **state)
{
    static const struct {
        const char *method, *path;
        int code;
        const char *header;
    } tries[] = {
        {"GET", "/", 200, "x-request-id: req-"},
        {"HEAD", "/", 200, "Content-Type: text/plain"},
        {"GET", "/health", 200, "application/json"},
        {"GET", "/v1/models", 200, "application/json"},
        {"GET", "/v1/models/minnow", 200, "application/json"},
        {"GET", "/v1/models/nobody/nothing", 404, "x-request-id"},
        {"GET", "/v1/models/", 404, "x-request-id"},
        {"GET", "/v1/nothing", 404, "x-request-id"},
        {"GET", "/v1/chat/completions", 405, "Allow: POST"},
        {"POST", "/v1/models", 405, "Allow: GET"},
        {"GET", "/v1/requests/req-1", 405, "Allow: DELETE"},
        {"DELETE", "/v1/requests/req-1", 404, "application/json"},
        {"GET", "/v1/status", 200, "application/json"},
        {"GET", "/metrics", 200, "version=0.0.4"},
    };
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(tries); i++) {
        reply r;
        ask(&r, &it, tries[i].method, tries[i].path, NULL);
        if (r.code != tries[i].code || !strstr(r.head, tries[i].header))
            fail_msg("%s %s: expected %d with '%s', got %s%s", tries[i].method, tries[i].path,
                     tries[i].code, tries[i].header, r.head, r.body.data);
        if (r.code >= 400)
            assert_string_equal(text_at(r.json, "error.type"), "invalid_request_error");
        if (!strcmp(tries[i].method, "HEAD"))
            assert_int_equal(r.body.length, 0);
        reply_fini(&r);
    }
}

static void models(void **state)
{
    (void)state;
    reply r;
    ask(&r, &it, "GET", "/v1/models", NULL);
    assert_string_equal(text_at(r.json, "object"), "list");
    assert_string_equal(text_at(r.json, "data.0.id"), "minnow");
    assert_string_equal(text_at(r.json, "data.0.object"), "model");
    assert_string_equal(text_at(r.json, "data.0.owned_by"), "builtin");
    reply_fini(&r);
    ask(&r, &it, "GET", "/v1/models/minnow", NULL);
    assert_string_equal(text_at(r.json, "id"), "minnow");
    reply_fini(&r);
}

/* ---- keys ---------------------------------------------------------------------------------------------------------- */

static void keys(void **state)
{
    static const char *const known[] = {"sk-one", "sk-other"};
    static const struct {
        const char *path, *headers;
        int code;
        const char *error;
    } tries[] = {
        {"/", "", 200, NULL},
        {"/health", "", 200, NULL},
        {"/v1/models", "", 401, "missing_api_key"},
        {"/metrics", "", 401, "missing_api_key"},
        {"/v1/nothing", "", 401, "missing_api_key"},
        {"/v1/models", "Authorization: Bearer sk-one\r\n", 200, NULL},
        {"/v1/models", "Authorization: bearer  sk-other\r\n", 200, NULL},
        {"/v1/models", "x-api-key: sk-other\r\n", 200, NULL},
        {"/v1/models", "Authorization: Bearer sk-on\r\n", 401, "invalid_api_key"},
        {"/v1/models", "Authorization: Bearer sk-onesk-one\r\n", 401, "invalid_api_key"},
        {"/v1/models", "Authorization: Bearer \r\n", 401, "invalid_api_key"},
        {"/v1/models", "Authorization: Basic sk-one\r\n", 401, "missing_api_key"},
        {"/v1/models", "x-api-key: sk-ONE\r\n", 401, "invalid_api_key"},
    };
    (void)state;
    api_rig own;
    api_options o = {.keys = known, .n_keys = BASE_COUNT(known)};
    api_rig_start(&own, (node_options){0}, &o);
    for (size_t i = 0; i < BASE_COUNT(tries); i++) {
        reply r;
        ask_with(&r, &own, "GET", tries[i].path, tries[i].headers, NULL);
        if (r.code != tries[i].code)
            fail_msg("%s with '%s': expected %d, got %d", tries[i].path, tries[i].headers,
                     tries[i].code, r.code);
        if (tries[i].error) {
            assert_string_equal(text_at(r.json, "error.code"), tries[i].error);
            assert_non_null(strstr(r.head, "WWW-Authenticate: Bearer"));
        }
        reply_fini(&r);
    }
    api_rig_stop(&own);
}

/* No model named, no default, none loaded. */
static void no_default(void **state)
{
    (void)state;
    reply r;
    ask(&r, &it, "POST", "/v1/chat/completions", "{" USER "}");
    assert_int_equal(r.code, 400);
    assert_non_null(strstr(text_at(r.json, "error.message"), "names no model"));
    reply_fini(&r);
}

/* A model whose file is broken: the request ends with what is wrong with it. */
static void broken_model(void **state)
{
    (void)state;
    reply r;
    ask(&r, &it, "POST", "/v1/chat/completions",
        "{\"model\":\"" TEST_DATA "/models/README.md\"," USER "}");
    assert_true(r.code >= 400);
    assert_non_null(strstr(text_at(r.json, "error.message"), "README.md"));
    reply_fini(&r);
}

static int set_up(void **state)
{
    (void)state;
    api_options o = {0};
    api_rig_start(&it, (node_options){0}, &o);
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
        cmocka_unit_test(no_default),
        cmocka_unit_test(bad_chats),
        cmocka_unit_test(bad_completions),
        cmocka_unit_test(bad_tokens),
        cmocka_unit_test(unknown_model),
        cmocka_unit_test(models),
        cmocka_unit_test(paths_and_methods),
        cmocka_unit_test(broken_model),
        cmocka_unit_test(keys),
    };
    return cmocka_run_group_tests_name("api", tests, set_up, tear_down);
}
