/*
 * The way of a token through one choice: bytes (never half a character) → stop strings → reasoning, text and tool calls → events. Each
 * stage holds back only what it must; the end of the choice flushes all of them in order.
 */
#include "serve/serve_internal.h"

#include <string.h>

/* ---- events of the parser ------------------------------------------------------------------------------------------ */

static const serve_event_kind kinds[] = {
    [CHAT_TEXT] = SERVE_TEXT,
    [CHAT_REASONING] = SERVE_REASONING,
    [CHAT_TOOL_BEGIN] = SERVE_TOOL_BEGIN,
    [CHAT_TOOL_ARGUMENTS] = SERVE_TOOL_ARGUMENTS,
    [CHAT_TOOL_END] = SERVE_TOOL_END,
};

static status on_parsed(void *context, const chat_event *parsed)
{
    serve_choice *h = context;
    if (call_is_over(h->of))
        return STATUS_CANCELLED;
    serve_event event = {.kind = kinds[parsed->kind],
                         .choice = h->index,
                         .text = parsed->text,
                         .tool_index = parsed->index,
                         .tool_id = parsed->id,
                         .tool_name = parsed->name};
    if (h->called_once) /* what comes behind the one call that was allowed */
        return STATUS_OK;
    h->called_once = parsed->kind == CHAT_TOOL_END && h->of->r.one_call;
    call_emit(h->of, &event);
    return call_is_over(h->of) ? STATUS_CANCELLED : STATUS_OK;
}

/* ---- beginning and end --------------------------------------------------------------------------------------------- */

void choice_fini(serve_choice *h)
{
    sample_stop_destroy(h->stop);
    chat_parser_destroy(h->parser);
    sb_fini(&h->bytes);
    sb_fini(&h->text);
    base_free(h->kept);
    *h = (serve_choice){0};
}

/* The pipeline from its start; a buffered choice goes through it twice. */
status choice_init(serve_choice *h, serve_call *c, int index, err *e)
{
    const node_instance *i = node_lease_instance(c->lease);
    bool chat = c->r.chat_variables.data != NULL;
    sample_stop_destroy(h->stop);
    chat_parser_destroy(h->parser);
    h->stop = NULL;
    h->parser = NULL;
    h->of = c;
    h->index = index;
    h->begun = true;
    h->stopped_by = -1;
    text_decoder_init(&h->decoder, node_instance_tokenizer(i),
                      TEXT_HIDE_SPECIAL | (chat ? TEXT_AT_START : 0));
    status s = STATUS_OK;
    if (c->r.n_stop)
        s = sample_stop_create(&h->stop, c->r.stop, c->r.n_stop, e);
    if (s == STATUS_OK && chat && !c->r.raw_text) {
        chat_parser_options o = {.reasoning_open = c->reasoning_open,
                                 .tools = c->r.has_tools,
                                 .seed = hash_bytes(c->id, strlen(c->id), (uint64_t)index)};
        s = chat_parser_create(&h->parser, node_instance_format(i), &o, on_parsed, h, e);
    }
    return s;
}

/* ---- tokens -------------------------------------------------------------------------------------------------------- */

static bool is_shown(const serve_call *c, int32_t token)
{
    for (int k = 0; k < c->n_shown; k++)
        if (c->shown[k] == token)
            return true;
    return false;
}

static status decode(serve_choice *h, int32_t token, err *e)
{
    const text_tokenizer *t = node_instance_tokenizer(node_lease_instance(h->of->lease));
    sb_clear(&h->bytes);
    if (!is_shown(h->of, token) || !text_token_is_special(t, token))
        return text_decoder_feed(&h->decoder, token, &h->bytes, e);
    status s = text_decoder_flush(&h->decoder, &h->bytes, e);
    str piece = text_token_piece(t, token);
    sb_add(&h->bytes, piece.data, piece.length);
    return s;
}

/* h->text goes to the parser, or out. */
static status pass_on(serve_choice *h, err *e)
{
    if (h->text.length == 0)
        return STATUS_OK;
    if (h->parser)
        return chat_parser_feed(h->parser, h->text.data, h->text.length, e);
    serve_event event = {
        .kind = SERVE_TEXT, .choice = h->index, .text = {h->text.data, h->text.length}};
    call_emit(h->of, &event);
    return STATUS_OK;
}

static void emit_logprobs(serve_choice *h, const serve_kept *k)
{
    const text_tokenizer *t = node_instance_tokenizer(node_lease_instance(h->of->lease));
    serve_top top[ENGINE_TOP_LOGPROBS];
    for (int i = 0; i < k->n_top; i++)
        top[i] =
            (serve_top){k->top[i].token, text_token_bytes(t, k->top[i].token), k->top[i].logprob};
    serve_event event = {.kind = SERVE_LOGPROBS,
                         .choice = h->index,
                         .token = {k->token, text_token_bytes(t, k->token), k->logprob},
                         .n_top = k->n_top,
                         .top = top};
    call_emit(h->of, &event);
}

status choice_feed(serve_choice *h, const serve_kept *k, bool muted, bool *stopped, err *e)
{
    *stopped = false;
    status s = decode(h, k->token, e);
    if (s != STATUS_OK)
        return s;
    if (!muted && h->of->r.top_logprobs >= 0) {
        emit_logprobs(h, k);
        if (call_is_over(h->of))
            return STATUS_OK;
    }
    sb_clear(&h->text);
    if (h->stop)
        h->stopped_by = sample_stop_feed(h->stop, h->bytes.data, h->bytes.length, &h->text);
    else
        sb_add(&h->text, h->bytes.data, h->bytes.length);
    if (h->stopped_by >= 0) {
        *stopped = true;
        if (h->of->r.include_stop)
            sb_add(&h->text, h->of->r.stop[h->stopped_by].data,
                   h->of->r.stop[h->stopped_by].length);
    }
    if (h->bytes.failed || h->text.failed)
        return err_set(e, STATUS_NO_MEMORY, "serve: no memory for text");
    s = muted ? STATUS_OK : pass_on(h, e);
    *stopped |= h->called_once;
    return s;
}

static serve_reason reason_of(const serve_choice *h)
{
    if (h->parser && chat_parser_tool_calls(h->parser) > 0 && h->reason != ENGINE_LENGTH)
        return SERVE_TOOL_CALLS;
    return h->reason == ENGINE_LENGTH && h->stopped_by < 0 ? SERVE_LENGTH : SERVE_STOP;
}

status choice_end(serve_choice *h, err *e)
{
    status s = STATUS_OK;
    if (h->stopped_by < 0) {
        sb_clear(&h->bytes);
        sb_clear(&h->text);
        s = text_decoder_flush(&h->decoder, &h->bytes, e);
        if (h->stop) {
            h->stopped_by = sample_stop_feed(h->stop, h->bytes.data, h->bytes.length, &h->text);
            if (h->stopped_by < 0)
                sample_stop_flush(h->stop, &h->text);
        } else {
            sb_add(&h->text, h->bytes.data, h->bytes.length);
        }
        if (s == STATUS_OK)
            s = pass_on(h, e);
    }
    if (s == STATUS_OK && h->parser && !call_is_over(h->of))
        s = chat_parser_finish(h->parser, e);
    if (s != STATUS_OK || call_is_over(h->of))
        return s;
    serve_event event = {.kind = SERVE_FINISH, .choice = h->index, .reason = reason_of(h)};
    if (h->stopped_by >= 0)
        event.stop = h->of->r.stop[h->stopped_by];
    call_emit(h->of, &event);
    return STATUS_OK;
}

status choice_keep(serve_choice *h, const engine_event *event, err *e)
{
    if (h->n_kept == h->kept_capacity) {
        int capacity = h->kept_capacity ? 2 * h->kept_capacity : 64;
        serve_kept *grown = base_realloc(h->kept, sizeof *grown * (size_t)capacity);
        if (!grown)
            return err_set(e, STATUS_NO_MEMORY, "serve: no memory for a choice");
        h->kept = grown;
        h->kept_capacity = capacity;
    }
    serve_kept *k = &h->kept[h->n_kept++];
    *k = (serve_kept){.token = event->token, .logprob = event->logprob, .n_top = event->n_top};
    memcpy(k->top, event->top, sizeof k->top);
    return STATUS_OK;
}
