/* What the files of OpenAI's dialect share: the shape of errors, usage, log-probabilities. */
#include "api/api_internal.h"

#include <math.h>
#include <string.h>

void api_put_member(sb *out, const char *name, str value)
{
    sb_printf(out, "\"%s\":\"", name);
    sb_json(out, value.data, value.length);
    sb_putc(out, '"');
}

/* JSON has no infinity: a token that cannot come gets OpenAI's -9999. */
void api_put_number(sb *out, double value)
{
    if (!isfinite(value))
        value = value > 0 ? 9999.0 : -9999.0;
    sb_printf(out, "%.9g", value);
}

static const char *error_type(int http)
{
    if (http == 429)
        return "rate_limit_error";
    return http >= 500 ? "server_error" : "invalid_request_error";
}

void api_openai_error(sb *out, const api_fault *f)
{
    sb_puts(out, "{\"error\":{");
    api_put_member(out, "message", str_from(f->e.text));
    sb_printf(out, ",\"type\":\"%s\",\"param\":", error_type(api_fault_http(f)));
    if (*f->param) {
        sb_putc(out, '"');
        sb_json(out, f->param, strlen(f->param));
        sb_putc(out, '"');
    } else {
        sb_puts(out, "null");
    }
    if (f->code)
        sb_printf(out, ",\"code\":\"%s\"}}", f->code);
    else
        sb_puts(out, ",\"code\":null}}");
}

void api_openai_fail_stream(api_exchange *x, const api_fault *f)
{
    sb out;
    sb_init(&out);
    api_openai_error(&out, f);
    api_exchange_send(x, &out);
    sb_fini(&out);
}

void api_openai_usage(sb *out, const api_exchange *x)
{
    sb_printf(out,
              "\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d,"
              "\"prompt_tokens_details\":{\"cached_tokens\":%d},"
              "\"completion_tokens_details\":{\"accepted_prediction_tokens\":%d,"
              "\"rejected_prediction_tokens\":%d}}",
              x->n_prompt, x->n_generated, x->n_prompt + x->n_generated, x->n_cached, x->n_accepted,
              x->n_drafted - x->n_accepted);
}

static void put_token(sb *out, const serve_top *t)
{
    sb_putc(out, '{');
    api_put_member(out, "token", t->text);
    sb_puts(out, ",\"logprob\":");
    api_put_number(out, (double)t->logprob);
    sb_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < t->text.length; i++)
        sb_printf(out, "%s%d", i ? "," : "", (unsigned char)t->text.data[i]);
    sb_putc(out, ']');
}

void api_openai_logprob(sb *out, const serve_event *event)
{
    put_token(out, &event->token);
    sb_puts(out, ",\"top_logprobs\":[");
    for (int i = 0; i < event->n_top; i++) {
        if (i)
            sb_putc(out, ',');
        put_token(out, &event->top[i]);
        sb_putc(out, '}');
    }
    sb_puts(out, "]}");
}
