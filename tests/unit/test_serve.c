/*
 * Calls from request to events, over a node with a real rank (this program, started again): chats and completions, stop strings across
 * tokens, several choices, best_of, echo, pausing, every way to cancel, a rank that dies, long prompts, tokenizing, counters.
 */
#include "node_rig.h"

#include "serve/serve.h"

enum { MOST_CHOICES = 4, MOST_LOGPROBS = 64 };

typedef struct rig {
    node_rig node;
    serve *s;
} rig;

/* What one call told. */
typedef struct heard {
    rig *of;
    serve_call *call;
    int counts[SERVE_FAILED + 1];
    sb text[MOST_CHOICES];
    int n_logprobs[MOST_CHOICES];
    double logprobs[MOST_CHOICES];
    serve_reason reason[MOST_CHOICES];
    char stop[MOST_CHOICES][64];
    int n_finished, n_prompt, n_cached, n_generated;
    int wanted; /* texts that has_text waits for; 0 = 1 */
    err why;
    int cancel_at; /* 1 + kind of the event whose sink cancels the call */
    bool over;     /* nothing may come any more */
} heard;

static void rig_open(rig *g, node_options o)
{
    err e = {0};
    rig_start(&g->node, o);
    must(serve_create(&g->s, g->node.loop, g->node.n, &(serve_options){0}, &e), &e);
}

static void rig_close(rig *g)
{
    serve_destroy(g->s);
    rig_stop(&g->node);
}

static void listen(void *context, const serve_event *event)
{
    heard *h = context;
    assert_false(h->over);
    assert_in_range(event->kind, 0, SERVE_FAILED);
    assert_in_range(event->choice, 0, MOST_CHOICES - 1);
    h->counts[event->kind]++;
    switch (event->kind) {
    case SERVE_TEXT:
        sb_add(&h->text[event->choice], event->text.data, event->text.length);
        break;
    case SERVE_LOGPROBS:
        h->n_logprobs[event->choice]++;
        h->logprobs[event->choice] += (double)event->token.logprob;
        assert_true(event->n_top == 0 ||
                    event->top[0].logprob >= event->top[event->n_top - 1].logprob);
        break;
    case SERVE_FINISH:
        h->n_finished++;
        h->reason[event->choice] = event->reason;
        snprintf(h->stop[event->choice], sizeof h->stop[0], "%.*s", (int)event->stop.length,
                 event->stop.data ? event->stop.data : "");
        break;
    case SERVE_STARTED:
        h->n_prompt = event->n_prompt;
        h->n_cached = event->n_cached;
        break;
    case SERVE_DONE:
        h->n_generated = event->n_generated;
        h->over = true;
        break;
    case SERVE_FAILED:
        h->why = *event->error;
        h->over = true;
        break;
    default:
        break;
    }
    if (h->cancel_at == 1 + (int)event->kind) {
        h->over = true;
        serve_cancel(h->call);
    }
}

static void forget(heard *h)
{
    for (int i = 0; i < MOST_CHOICES; i++)
        sb_fini(&h->text[i]);
}

static void start(heard *h, rig *g, const char *id, const serve_request *r)
{
    err e = {0};
    *h = (heard){.of = g, .cancel_at = h->cancel_at};
    must(serve_start(&h->call, g->s, id, r, listen, h, &e), &e);
}

static bool is_over(void *context)
{
    const heard *h = context;
    return h->over;
}

static bool has_text(void *context)
{
    const heard *h = context;
    return h->counts[SERVE_TEXT] >= (h->wanted ? h->wanted : 1);
}

static bool has_started(void *context)
{
    const heard *h = context;
    return h->counts[SERVE_STARTED] > 0;
}

static void finish(heard *h)
{
    rig_wait(&h->of->node, is_over, h);
    if (h->counts[SERVE_FAILED])
        fail_msg("%s", h->why.text);
    assert_int_equal(h->counts[SERVE_DONE], 1);
    assert_int_equal(h->counts[SERVE_STARTED], 1);
}

static serve_request completion(const char *prompt, int max_tokens)
{
    serve_request r = {.model = TINY,
                       .prompt = str_from(prompt),
                       .max_tokens = max_tokens,
                       .ignore_end = true,
                       .top_logprobs = -1,
                       .has_seed = true,
                       .sample = SAMPLE_DEFAULTS};
    r.sample.temperature = 0;
    r.sample.seed = 7;
    return r;
}

/* Runs to its end. */
static void run(heard *h, rig *g, const serve_request *r)
{
    h->cancel_at = 0;
    start(h, g, "cmpl-1", r);
    finish(h);
}

static const char *text_of(heard *h, int choice)
{
    return h->text[choice].data ? h->text[choice].data : "";
}

/* ---- answers ------------------------------------------------------------------------------------------------------- */

static void chats(void **state)
{
    (void)state;
    rig g;
    heard h;
    rig_open(&g, (node_options){0});
    serve_request r = completion("", 12);
    r.prompt = (str){0};
    r.chat_variables = str_from("{\"messages\":[{\"role\":\"user\",\"content\":\"What is it?\"}],"
                                "\"add_generation_prompt\":true}");
    r.top_logprobs = 2;
    run(&h, &g, &r);
    assert_int_equal(h.n_generated, 12);
    assert_int_equal(h.n_logprobs[0], 12);
    assert_int_equal(h.reason[0], SERVE_LENGTH);
    assert_true(h.n_prompt > 20);
    forget(&h);
    r.chat_variables = str_from("{\"messages\":[{\"role\":\"user\",\"content\":7}]}");
    h.cancel_at = 0;
    start(&h, &g, "chat-2", &r);
    rig_wait(&g.node, is_over, &h);
    assert_int_equal(h.n_finished, h.counts[SERVE_DONE]); /* rendered or refused, but it ends */
    forget(&h);
    r.chat_variables = str_from("[1]");
    start(&h, &g, "chat-3", &r);
    rig_wait(&g.node, is_over, &h);
    assert_int_equal(h.counts[SERVE_FAILED], 1);
    assert_int_equal(h.why.code, STATUS_INVALID);
    forget(&h);
    rig_close(&g);
}

/* Is text[at] the begin of a character? */
static bool is_border(const char *text, size_t at)
{
    return ((unsigned char)text[at] & 0xC0) != 0x80;
}

static void stop_strings(void **state)
{
    (void)state;
    rig g;
    heard h, cut;
    rig_open(&g, (node_options){0});
    serve_request r = completion("Once upon a time", 40);
    run(&h, &g, &r);
    assert_int_equal(h.n_generated, 40);
    const char *whole = text_of(&h, 0);
    size_t n = h.text[0].length, at = n / 2;
    assert_true(n > 20);
    while (!is_border(whole, at))
        at++;
    size_t end = at + 6; /* six bytes: over several tokens of a vocabulary that is mostly bytes */
    while (!is_border(whole, end))
        end++;
    str stops[2] = {str_from("this never comes out of it"), {whole + at, end - at}};
    char stop[32] = {0};
    memcpy(stop, whole + at, end - at);
    size_t first = (size_t)(strstr(whole, stop) - whole);
    r.stop = stops;
    r.n_stop = 2;
    run(&cut, &g, &r);
    assert_int_equal(cut.text[0].length, first);
    assert_memory_equal(text_of(&cut, 0), whole, first);
    assert_int_equal(cut.reason[0], SERVE_STOP);
    assert_string_equal(cut.stop[0], stop);
    assert_true(cut.n_generated < 40);
    forget(&cut);
    r.include_stop = true;
    run(&cut, &g, &r);
    assert_int_equal(cut.text[0].length, first + strlen(stop));
    assert_memory_equal(text_of(&cut, 0), whole, first + strlen(stop));
    forget(&cut);
    /* What a stop string holds back at the end comes out after all. */
    char never[40];
    snprintf(never, sizeof never, "%.6s, which does not follow", whole + n - 6);
    stops[0] = str_from(never);
    r.n_stop = 1;
    r.include_stop = false;
    run(&cut, &g, &r);
    assert_int_equal(cut.reason[0], SERVE_LENGTH);
    assert_int_equal(cut.text[0].length, n);
    forget(&cut);
    forget(&h);
    rig_close(&g);
}

static void several_choices(void **state)
{
    (void)state;
    rig g;
    heard all, best, shown;
    rig_open(&g, (node_options){0});
    serve_request r = completion("abcabcabc", 10);
    r.sample.temperature = 1;
    r.n_choices = 4;
    r.top_logprobs = 0;
    run(&all, &g, &r);
    assert_int_equal(all.n_finished, 4);
    assert_int_equal(all.n_generated, 40);
    int order[4] = {0, 1, 2, 3};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(all.n_logprobs[i], 10);
        for (int k = i; k > 0 && all.logprobs[order[k]] > all.logprobs[order[k - 1]]; k--) {
            int swap = order[k];
            order[k] = order[k - 1];
            order[k - 1] = swap;
        }
    }
    assert_string_not_equal(text_of(&all, 0), text_of(&all, 1)); /* each its own noise */
    r.n_choices = 2;
    r.best_of = 4;
    run(&best, &g, &r);
    assert_int_equal(best.n_finished, 2);
    assert_int_equal(best.n_generated, 40);
    for (int i = 0; i < 2; i++)
        assert_string_equal(text_of(&best, i), text_of(&all, order[i]));
    r.top_logprobs = -1;
    run(&shown, &g, &r);
    assert_int_equal(shown.counts[SERVE_LOGPROBS], 0);
    assert_string_equal(text_of(&shown, 1), text_of(&best, 1));
    forget(&all);
    forget(&best);
    forget(&shown);
    rig_close(&g);
}

static void echoes(void **state)
{
    (void)state;
    rig g;
    heard plain, h;
    rig_open(&g, (node_options){0});
    serve_request r = completion("Echo me", 5);
    run(&plain, &g, &r);
    r.echo = true;
    r.n_choices = 2;
    run(&h, &g, &r);
    for (int i = 0; i < 2; i++) {
        assert_memory_equal(text_of(&h, i), "Echo me", 7);
        assert_string_equal(text_of(&h, i) + 7, text_of(&plain, 0));
    }
    forget(&h);
    static const int32_t ids[] = {'E', 'c', 'h', 'o'};
    r.prompt = (str){0};
    r.prompt_ids = ids;
    r.n_prompt_ids = 4;
    r.n_choices = 1;
    run(&h, &g, &r);
    assert_int_equal(h.n_prompt, 4);
    assert_true(h.text[0].length > 0);
    forget(&h);
    forget(&plain);
    rig_close(&g);
}

static void refusals(void **state)
{
    (void)state;
    rig g;
    heard h = {0};
    serve_call *c;
    err e = {0};
    rig_open(&g, (node_options){.max_sequences = 2});
    serve_request r = completion("x", 5);
    r.model = "there-is-none-such";
    assert_int_equal(serve_start(&c, g.s, "1", &r, listen, &h, &e), STATUS_NOT_FOUND);
    r.model = TINY;
    r.n_choices = 33;
    assert_int_equal(serve_start(&c, g.s, "1", &r, listen, &h, &e), STATUS_INVALID);
    r.n_choices = 3;
    r.best_of = 2;
    assert_int_equal(serve_start(&c, g.s, "1", &r, listen, &h, &e), STATUS_INVALID);
    r.best_of = 0;
    r.sample.temperature = -3;
    assert_int_equal(serve_start(&c, g.s, "1", &r, listen, &h, &e), STATUS_INVALID);
    r.sample.temperature = 0;
    start(&h, &g, "2", &r); /* three choices, but this node takes two */
    rig_wait(&g.node, is_over, &h);
    assert_int_equal(h.counts[SERVE_FAILED], 1);
    assert_int_equal(h.why.code, STATUS_INVALID);
    r = completion("", 5); /* no token at all */
    start(&h, &g, "3", &r);
    rig_wait(&g.node, is_over, &h);
    assert_int_equal(h.why.code, STATUS_INVALID);
    const serve_counters *k = serve_get_counters(g.s);
    assert_int_equal(k->live, 0);
    assert_int_equal(k->failed, k->requests);
    rig_close(&g);
}

/* ---- pausing and ending -------------------------------------------------------------------------------------------- */

static const node_options endless = {.context = 32768, .max_sequences = 3};

static void pauses(void **state)
{
    (void)state;
    rig g;
    heard a = {0}, b;
    rig_open(&g, endless);
    serve_request r = completion("pause", 0), other = completion("other", 3);
    start(&a, &g, "a", &r);
    rig_wait(&g.node, has_text, &a);
    serve_pause(a.call, true);
    run(&b, &g, &other); /* submitted behind the pause */
    forget(&b);
    int n = a.counts[SERVE_TEXT];
    run(&b, &g, &other);
    forget(&b);
    assert_int_equal(a.counts[SERVE_TEXT], n);
    assert_false(a.over);
    serve_pause(a.call, false);
    a.wanted = n + 3;
    rig_wait(&g.node, has_text, &a);
    serve_cancel(a.call);
    forget(&a);
    rig_close(&g);
}

static void cancelled(void **state)
{
    (void)state;
    rig g;
    heard a = {0}, b = {0};
    rig_open(&g, endless);
    serve_request r = completion("cancel", 0);
    start(&a, &g, "by-itself", &r);
    rig_wait(&g.node, has_text, &a);
    serve_cancel(a.call);
    assert_int_equal(a.counts[SERVE_FAILED], 0); /* no event follows */
    forget(&a);
    static const serve_event_kind kinds[] = {SERVE_STARTED, SERVE_LOGPROBS, SERVE_TEXT,
                                             SERVE_FINISH, SERVE_DONE};
    for (size_t i = 0; i < BASE_COUNT(kinds); i++) {
        r = completion("in the sink", kinds[i] >= SERVE_FINISH ? 3 : 0);
        r.top_logprobs = 0;
        r.echo = i == 2; /* its first text comes before anything was submitted */
        a.cancel_at = 1 + (int)kinds[i];
        start(&a, &g, "in-the-sink", &r);
        rig_wait(&g.node, is_over, &a); /* listen asserts that nothing follows */
        rig_turns(&g.node);
        forget(&a);
    }
    a.cancel_at = 0;
    start(&a, &g, "at once", &r);
    serve_cancel(a.call);
    run(&b, &g, &r);
    forget(&b);
    assert_int_equal(serve_get_counters(g.s)->live, 0);
    rig_close(&g);
}

static bool is_loading(void *context)
{
    const heard *h = context;
    return h->counts[SERVE_LOADING] > 0 && rig_instance(&h->of->node, OTHER).pid > 0;
}

/* The rank dies under a stream; who comes next waits for the new one and hears that it is loading. */
static void rank_dies(void **state)
{
    (void)state;
    rig g;
    heard a = {0}, b = {0}, c = {0};
    rig_open(&g, endless);
    serve_request r = completion("die", 0), few = completion("die", 3);
    start(&a, &g, "a", &r);
    start(&b, &g, "b", &r);
    rig_wait(&g.node, has_text, &a);
    rig_wait(&g.node, has_text, &b);
    rig_signal(&g.node, TINY, SIGKILL);
    rig_wait(&g.node, is_over, &a);
    rig_wait(&g.node, is_over, &b);
    assert_int_equal(a.why.code, STATUS_CLOSED);
    assert_non_null(strstr(b.why.text, "signal 9"));
    start(&c, &g, "c", &few);
    finish(&c);
    forget(&a);
    forget(&b);
    forget(&c);
    a.cancel_at = 0;
    setenv("TEST_RANK", "silent", 1);
    rig_signal(&g.node, TINY, SIGKILL);
    serve_request waits = completion("loading", 3);
    waits.model = OTHER;
    start(&a, &g, "waits", &waits);
    rig_wait(&g.node, is_loading, &a);
    unsetenv("TEST_RANK");
    rig_signal(&g.node, OTHER, SIGKILL);
    finish(&a);
    forget(&a);
    rig_close(&g);
}

/* ---- long prompts -------------------------------------------------------------------------------------------------- */

static char *long_text(size_t n)
{
    char *text = base_alloc(n + 1);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        text[i] = (char)(i % 7 == 6 ? ' ' : 'a' + i * i % 26);
    text[n] = '\0';
    return text;
}

static void long_prompts(void **state)
{
    (void)state;
    rig g;
    heard h = {0}, other = {0}, short_one = {0};
    enum { BYTES = 3 << 20 };
    char *text = long_text(BYTES);
    rig_open(&g, (node_options){0});
    serve_request r = completion(text, 5), few = completion("short", 3);
    start(&h, &g, "long", &r);
    start(&other, &g, "given up", &r);
    start(&short_one, &g, "short", &few);
    finish(&short_one);
    forget(&short_one);
    serve_cancel(other.call); /* most likely while the worker has it or the one before */
    rig_wait(&g.node, is_over, &h);
    assert_int_equal(h.counts[SERVE_FAILED], 1);
    assert_int_equal(h.why.code, STATUS_TOO_LONG);
    assert_non_null(strstr(h.why.text, "too many"));
    forget(&h);
    /* One that fits goes the same way: the text is long, its tokens are few enough. */
    sb chat;
    sb_init(&chat);
    sb_puts(&chat, "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"unused\":\"");
    sb_add(&chat, text, 100000);
    sb_puts(&chat, "\"}");
    r = completion("", 5);
    r.prompt = (str){0};
    r.chat_variables = (str){chat.data, chat.length};
    run(&h, &g, &r);
    assert_int_equal(h.n_generated, 5);
    sb_fini(&chat);
    forget(&h);
    /* The end of it all finds some at the worker, some before it. */
    r = completion(text, 5);
    heard left[3] = {{0}};
    for (int i = 0; i < 3; i++)
        start(&left[i], &g, "left", &r);
    rig_turns(&g.node);
    for (int i = 0; i < 3; i++)
        left[i].over = true;
    rig_close(&g);
    base_free(text);
}

/* ---- tokenizing ---------------------------------------------------------------------------------------------------- */

typedef struct tokens {
    int n_calls;
    int32_t *ids;
    size_t n;
    sb text;
    err why;
    bool failed;
} tokens;

static void take(void *context, const serve_tokens *t)
{
    tokens *k = context;
    k->n_calls++;
    k->failed = t->error != NULL;
    if (t->error) {
        k->why = *t->error;
        return;
    }
    assert_non_null(t->tokenizer);
    k->ids = base_alloc(sizeof *k->ids * (t->n + 1));
    if (t->n)
        memcpy(k->ids, t->ids, sizeof *k->ids * t->n);
    k->n = t->n;
    sb_add(&k->text, t->text.data, t->text.length);
}

static bool was_called(void *context)
{
    const tokens *k = context;
    return k->n_calls > 0;
}

static void tokenizes(void **state)
{
    (void)state;
    rig g;
    err e = {0};
    rig_open(&g, (node_options){0});
    static const size_t lengths[] = {0, 11, 200000};
    for (size_t i = 0; i < BASE_COUNT(lengths); i++) {
        char *text = long_text(lengths[i]);
        tokens to = {0}, from = {0};
        must(serve_tokenize(g.s, TINY, str_from(text), false, false, take, &to, &e), &e);
        assert_int_equal(to.n_calls, 0);
        rig_wait(&g.node, was_called, &to);
        assert_false(to.failed);
        assert_true(to.n <= lengths[i] && (to.n > 0) == (lengths[i] > 0));
        must(serve_detokenize(g.s, TINY, to.ids, to.n, take, &from, &e), &e);
        rig_wait(&g.node, was_called, &from);
        assert_int_equal(from.text.length, lengths[i]);
        assert_memory_equal(from.text.data ? from.text.data : "", text, lengths[i]);
        base_free(to.ids);
        base_free(from.ids);
        sb_fini(&to.text);
        sb_fini(&from.text);
        base_free(text);
    }
    tokens bad = {0};
    assert_int_equal(serve_tokenize(g.s, "none-such", str_from("x"), false, false, take, &bad, &e),
                     STATUS_NOT_FOUND);
    must(serve_tokenize(g.s, TEST_DATA "/models/README.md", str_from("x"), false, false, take, &bad,
                        &e),
         &e);
    rig_wait(&g.node, was_called, &bad);
    assert_true(bad.failed);
    char *text = long_text(400000);
    tokens never = {0}; /* the end comes first */
    must(serve_tokenize(g.s, TINY, str_from(text), false, false, take, &never, &e), &e);
    must(serve_tokenize(g.s, TINY, str_from("x"), false, false, take, &never, &e), &e);
    rig_close(&g);
    assert_int_equal(never.n_calls, 0);
    base_free(text);
}

/* ---- counters ------------------------------------------------------------------------------------------------------ */

static void counts(void **state)
{
    (void)state;
    rig g;
    heard h;
    rig_open(&g, (node_options){0});
    char prompt[200];
    memset(prompt, 'q', sizeof prompt);
    prompt[199] = '\0';
    serve_request r = completion(prompt, 6);
    const serve_counters *k = serve_get_counters(g.s);
    run(&h, &g, &r);
    int n_prompt = h.n_prompt;
    forget(&h);
    run(&h, &g, &r);
    forget(&h);
    assert_true(h.n_cached >= 64 || n_prompt < 65); /* the same prompt: its pages are there */
    assert_int_equal(k->requests, 2);
    assert_int_equal(k->generated_tokens, 12);
    assert_int_equal(k->prompt_tokens, 2 * n_prompt);
    assert_int_equal(k->cached_tokens, h.n_cached);
    assert_int_equal(k->first_token.n, 2);
    assert_int_equal(k->per_token.n, 10);
    assert_int_equal(k->whole.n, 2);
    h.cancel_at = 1 + SERVE_STARTED;
    start(&h, &g, "c", &r);
    rig_wait(&g.node, has_started, &h);
    assert_int_equal(k->cancelled, 1);
    assert_int_equal(k->failed, 0);
    assert_int_equal(k->live, 0);
    forget(&h);
    rig_close(&g);
}

int main(int argc, char **argv)
{
    if (rig_is_rank(argc, argv))
        return rig_rank();
    unsetenv("TEST_RANK");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chats),           cmocka_unit_test(stop_strings),
        cmocka_unit_test(several_choices), cmocka_unit_test(echoes),
        cmocka_unit_test(refusals),        cmocka_unit_test(pauses),
        cmocka_unit_test(cancelled),       cmocka_unit_test(rank_dies),
        cmocka_unit_test(long_prompts),    cmocka_unit_test(tokenizes),
        cmocka_unit_test(counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
