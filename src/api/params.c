/*
 * The members that chats and completions share: sampling, limits, stop strings, streaming. Names are those of OpenAI; what llama.cpp and
 * vLLM call otherwise or have in addition is taken too. Ranges of sampling are checked by src/sample through serve_start.
 */
#include "api/api_internal.h"

#include <string.h>

void api_params_init(api_params *p)
{
    *p = (api_params){0};
    arena_init(&p->memory, 0);
    p->q.sample = SAMPLE_DEFAULTS;
    p->q.n_choices = 1;
    p->q.top_logprobs = -1;
}

void api_params_fini(api_params *p)
{
    arena_fini(&p->memory);
}

static bool read_stop(api_params *p, const json_t *body, api_fault *f)
{
    const json_t *v = json_object_get(body, "stop");
    if (!v || json_is_null(v))
        return true;
    if (!json_is_string(v) && !json_is_array(v))
        return api_wrong_type(f, "stop", "a string or an array of strings", v);
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n > API_STOPS)
        return api_fault_set(f, STATUS_INVALID, "stop", "expected at most %d strings, got %zu",
                             API_STOPS, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(v) ? json_array_get(v, i) : v;
        char param[API_PATH] = "stop";
        if (json_is_array(v))
            api_path(param, "stop[%zu]", i);
        if (!json_is_string(one))
            return api_wrong_type(f, param, "a string", one);
        if (json_string_length(one) == 0)
            return api_fault_set(f, STATUS_INVALID, param, "an empty string would stop everything");
        p->stop[i] = api_json_str(one);
    }
    p->q.stop = p->stop;
    p->q.n_stop = (int)n;
    return true;
}

static bool read_bias(api_params *p, const json_t *body, api_fault *f)
{
    json_t *object = NULL, *v;
    const char *key;
    if (!api_get_container(&object, JSON_OBJECT, body, "", "logit_bias", f))
        return false;
    size_t n = json_object_size(object);
    if (n == 0)
        return true;
    sample_bias *bias = arena_zalloc(&p->memory, n, sizeof *bias);
    if (!bias)
        return api_fault_set(f, STATUS_NO_MEMORY, "logit_bias", "no memory for %zu members", n);
    size_t i = 0;
    json_object_foreach(object, key, v)
    {
        uint64_t id;
        char param[API_PATH];
        api_path(param, "logit_bias.%.40s", key);
        if (!base_parse_u64(key, &id) || id > INT32_MAX)
            return api_fault_set(f, STATUS_INVALID, param, "expected a token id as the name");
        if (!json_is_number(v))
            return api_wrong_type(f, param, "a number", v);
        double d = json_number_value(v);
        if (!(d >= -100 && d <= 100))
            return api_fault_set(f, STATUS_INVALID, param, "expected -100 to 100, got %g", d);
        bias[i++] = (sample_bias){(int32_t)id, (float)d};
    }
    p->q.sample.bias = bias;
    p->q.sample.n_bias = (int)n;
    return true;
}

static bool read_sampling(api_params *p, const json_t *body, api_fault *f)
{
    sample_options *o = &p->q.sample;
    int64_t top_k = 0, seed = 0;
    if (!api_get_number(&o->temperature, body, "", "temperature", f) ||
        !api_get_number(&o->top_p, body, "", "top_p", f) ||
        !api_get_number(&o->min_p, body, "", "min_p", f) ||
        !api_get_number(&o->presence_penalty, body, "", "presence_penalty", f) ||
        !api_get_number(&o->frequency_penalty, body, "", "frequency_penalty", f) ||
        !api_get_number(&o->repetition_penalty, body, "", "repeat_penalty", f) ||
        !api_get_number(&o->repetition_penalty, body, "", "repetition_penalty", f) ||
        !api_get_whole(&top_k, -1, INT32_MAX, body, "", "top_k", f) ||
        !api_get_whole(&seed, INT64_MIN, INT64_MAX, body, "", "seed", f))
        return false;
    o->top_k = top_k > 0 ? (int)top_k : 0;
    o->seed = (uint64_t)seed;
    p->q.has_seed = json_is_number(json_object_get(body, "seed"));
    return read_bias(p, body, f);
}

static bool read_limits(api_params *p, const json_t *body, api_fault *f)
{
    int64_t n = 1, most = 0;
    const char *name = "max_tokens";
    if (!api_get_whole(&n, 1, ENGINE_CHOICES, body, "", "n", f) ||
        !api_get_whole(&most, -1, INT32_MAX, body, "", "max_tokens", f))
        return false;
    if (json_is_number(json_object_get(body, "max_completion_tokens"))) {
        most = 0;
        name = "max_completion_tokens";
    }
    if (!api_get_whole(&most, -1, INT32_MAX, body, "", "max_completion_tokens", f))
        return false;
    p->q.prompt_only = most == 0 && json_is_number(json_object_get(body, name));
    if (p->q.prompt_only && json_object_get(body, "messages"))
        return api_fault_set(f, STATUS_INVALID, name,
                             "expected at least 1 (or -1: no limit), got 0");
    p->q.n_choices = (int)n;
    p->q.max_tokens = most > 0 ? (int)most : 0;
    return true;
}

static bool read_stream(api_params *p, const json_t *body, api_fault *f)
{
    json_t *options = NULL;
    if (!api_get_bool(&p->stream, body, "", "stream", f) ||
        !api_get_container(&options, JSON_OBJECT, body, "", "stream_options", f))
        return false;
    if (options && !p->stream)
        return api_fault_set(f, STATUS_INVALID, "stream_options", "only allowed with stream: true");
    return api_get_bool(&p->include_usage, options, "stream_options.", "include_usage", f);
}

/* Members that only have to be of the right type: they are for the client's own bookkeeping. */
static bool read_notes(const json_t *body, api_fault *f)
{
    const char *user = NULL;
    json_t *metadata = NULL;
    return api_get_string(&user, body, "", "user", f) &&
           api_get_container(&metadata, JSON_OBJECT, body, "", "metadata", f);
}

bool api_read_params(api_params *p, const json_t *body, api_fault *f)
{
    return api_get_string(&p->q.model, body, "", "model", f) && read_sampling(p, body, f) &&
           read_limits(p, body, f) && read_stop(p, body, f) && read_stream(p, body, f) &&
           api_get_bool(&p->q.ignore_end, body, "", "ignore_eos", f) &&
           api_get_bool(&p->q.include_stop, body, "", "include_stop_str_in_output", f) &&
           read_notes(body, f);
}
