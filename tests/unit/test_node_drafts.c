/*
 * What rides on steps, over ranks: guesses of a lookup and of a draft model, answers held to a schema, and both at once, with log-probabilities, the
 * most likely tokens beside them, forks and prefixes found again. Every event is the uncut model's without guesses, bit by bit; and
 * guesses were made and stood, masks were met, prefixes were found, else nothing would be proved.
 */
#include "team_rig.h"

enum { REQUESTS = 12, CHOICES = 2, TOKENS = 72, PREFIX = 130, SEQUENCES = 4 };

/* ---- what came out ------------------------------------------------------------------------------------------------- */

typedef struct answer {
    int n, done;
    engine_reason reason;
    struct answer_token {
        int32_t id;
        float logprob;
        int n_top;
        struct engine_top top[ENGINE_TOP_LOGPROBS];
    } tokens[TOKENS];
} answer;

/* What must be equal, and what says that something happened. */
typedef struct record {
    answer of[REQUESTS][CHOICES];
} record;

typedef struct listener {
    record r;
    int n_cached, n_drafted, n_accepted, n_held_accepted;
} listener;

static bool is_held(uint64_t id)
{
    return id % 3 == 2;
}

static void note(void *context, const engine_event *event)
{
    listener *l = context;
    assert_true(event->id < REQUESTS && event->choice < CHOICES);
    answer *a = &l->r.of[event->id][event->choice];
    if (event->kind == ENGINE_STARTED)
        l->n_cached += event->n_cached;
    if (event->kind == ENGINE_TOKEN) {
        assert_true(a->n < TOKENS);
        struct answer_token *t = &a->tokens[a->n++];
        t->id = event->token;
        t->logprob = event->logprob;
        t->n_top = event->n_top;
        memcpy(t->top, event->top, sizeof *t->top * (size_t)event->n_top);
    }
    if (event->kind == ENGINE_DONE) {
        if (event->reason == ENGINE_ERROR)
            fail_msg("request %d failed: %s", (int)event->id, event->text);
        a->done++;
        a->reason = event->reason;
        l->n_drafted += event->n_drafted;
        l->n_accepted += event->n_accepted;
        l->n_held_accepted += is_held(event->id) ? event->n_accepted : 0;
    }
}

/* ---- models -------------------------------------------------------------------------------------------------------- */

static engine_team *load(engine_cut cut)
{
    engine_team_options o = team_options(TINY, cut);
    o.model.n_sequences = SEQUENCES;
    o.model.max_tokens = 64;
    o.model.max_outputs = SEQUENCES + ENGINE_DRAFT_ROWS;
    return team_load(&o);
}

/* The same weights, held whole by the leader: mostly right. */
static model *load_draft(void)
{
    file_model *f;
    model *m;
    err e = {0};
    const model_options o = {.n_threads = 1,
                             .context = 512,
                             .state_tokens = 2048,
                             .n_sequences = SEQUENCES,
                             .max_tokens = 64,
                             .max_outputs = SEQUENCES};
    must(file_open(&f, TINY, &e), &e);
    must(model_load(&m, f, &o, NULL, &e), &e);
    file_close(f);
    return m;
}

/* ---- requests ------------------------------------------------------------------------------------------------------ */

static const char *const forms[] = {
    "{\"schema\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":"
    "9},\"old\":{\"type\":\"boolean\"},\"of\":{\"type\":\"array\",\"items\":{\"enum\":[\"north\","
    "\"south\"]},\"minItems\":2,\"maxItems\":4}},\"required\":[\"name\",\"old\",\"of\"],"
    "\"additionalProperties\":false}}",
    "{\"schema\":{\"enum\":[\"shoal of fish\",\"shoal of sand\"]}}",
    "{\"schema\":{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":99}"
    ",\"minItems\":3,\"maxItems\":6}}",
    "{\"schema\":{\"type\":\"object\",\"properties\":{\"a\":{\"const\":\"abababababab\"}},"
    "\"required\":[\"a\"],\"additionalProperties\":false}}",
};

/* Half begin with the same prefix; a third repeat themselves, a third are held to a form. */
static void ask(engine *g, uint64_t id)
{
    int32_t prompt[PREFIX + 40];
    int n = (id % 2 ? PREFIX : 0) + 20 + (int)id;
    err e = {0};
    for (int i = 0; i < n; i++) {
        bool shared = id % 2 && i < PREFIX;
        uint64_t at = (uint64_t)(shared ? i : id % 3 ? i : i % 6);
        prompt[i] = (int32_t)(hash_u64(at, shared ? 1 : 50 + id) % 300);
    }
    engine_request q = {.id = id,
                        .prompt = prompt,
                        .n_prompt = n,
                        .n_choices = id % 4 == 3 ? CHOICES : 1,
                        .max_tokens = TOKENS - 2,
                        .top_logprobs = (int)(id % 5),
                        .sample = SAMPLE_DEFAULTS,
                        .grammar = is_held(id) ? forms[id / 3] : NULL};
    q.sample.seed = 7 * id;
    q.sample.temperature = id % 2 ? 0.8f : 0;
    q.sample.top_k = id == 4 ? 12 : 0;
    q.sample.top_p = id == 7 ? 0.8f : q.sample.top_p;
    q.sample.repetition_penalty = id == 6 ? 1.2f : q.sample.repetition_penalty;
    must(engine_submit(g, &q, &e), &e);
}

static void converse(listener *l, engine_team *t, engine_draft draft, model *draft_model)
{
    engine *g;
    err e = {0};
    const engine_options o = {.max_sequences = SEQUENCES,
                              .chunk = 32,
                              .draft = draft,
                              .draft_model = draft_model,
                              .draft_always = true};
    memset(l, 0, sizeof *l);
    must(engine_create(&g, engine_team_model(t), &o, note, l, &e), &e);
    bool busy = true;
    for (uint64_t id = 0; id < REQUESTS; id++) {
        ask(g, id);
        must(engine_step(g, &busy, &e), &e);
    }
    for (int i = 0; busy; i++) {
        must(engine_step(g, &busy, &e), &e);
        assert_true(i < 5000);
    }
    for (int id = 0; id < REQUESTS; id++)
        for (int c = 0; c < (id % 4 == 3 ? CHOICES : 1); c++)
            assert_int_equal(l->r.of[id][c].done, 1);
    engine_destroy(g);
}

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

static void compare(const record *whole, const record *cut, const char *what)
{
    for (int id = 0; id < REQUESTS; id++)
        for (int c = 0; c < CHOICES; c++) {
            const answer *a = &whole->of[id][c], *b = &cut->of[id][c];
            if (a->n != b->n || a->reason != b->reason)
                fail_msg("%s: answer %d.%d has %d tokens and ends with %d, expected %d and %d",
                         what, id, c, b->n, (int)b->reason, a->n, (int)a->reason);
            for (int k = 0; k < a->n; k++)
                if (memcmp(&a->tokens[k], &b->tokens[k], sizeof a->tokens[k]))
                    fail_msg("%s: token %d of answer %d.%d is %d (%.9g), expected %d (%.9g)", what,
                             k, id, c, b->tokens[k].id, (double)b->tokens[k].logprob,
                             a->tokens[k].id, (double)a->tokens[k].logprob);
        }
}

/* Every answer that was held to a form is one, as far as it was written. */
static void check_forms(const record *r)
{
    text_tokenizer *t;
    model_card *card;
    sb text;
    err e = {0};
    must(model_card_open(&card, TINY, &e), &e);
    must(model_tokenizer_create(&t, card, &e), &e);
    int ended = 0;
    for (uint64_t id = 0; id < REQUESTS; id++) {
        const answer *a = &r->of[id][0];
        if (!is_held(id))
            continue;
        sb_init(&text);
        for (int k = 0; k < a->n; k++) {
            str bytes = text_token_bytes(t, a->tokens[k].id);
            sb_add(&text, bytes.data, bytes.length);
        }
        sb_putc(&text, 0);
        const char *begins[] = {"{", "\"shoal of ", "[", "{\"a\""};
        const char *at = text.data + strspn(text.data, " \n\t");
        if (id != 11 && strncmp(at, begins[id / 3], strlen(begins[id / 3])))
            fail_msg("answer %d is '%s'", (int)id, text.data);
        ended += a->reason == ENGINE_STOPPED;
        sb_fini(&text);
    }
    assert_true(ended >= 2);
    text_tokenizer_destroy(t);
    model_card_destroy(card);
}

static void drafts_and_forms(void **state)
{
    (void)state;
    static listener whole, cut;
    static const struct {
        const char *name;
        engine_cut cut;
    } cuts[] = {
        {"whole", {.n_stages = 1, .n_tensor = 1}},
        {"tp2 over shm", {.n_stages = 1, .n_tensor = 2}},
        {"tp2 over tls", {.n_stages = 1, .n_tensor = 2, .link = ENGINE_LINK_TLS}},
        {"tp3 5:2:1 over loop",
         {.n_stages = 1,
          .n_tensor = 3,
          .link = ENGINE_LINK_LOOP,
          .n_shares = 3,
          .shares = {5, 2, 1}}},
        {"pp2 over tls", {.n_stages = 2, .n_tensor = 1, .link = ENGINE_LINK_TLS}},
        {"2 x 2 over shm", {.n_stages = 2, .n_tensor = 2}},
        {"2 x 2 over loop", {.n_stages = 2, .n_tensor = 2, .link = ENGINE_LINK_LOOP}},
    };
    static const char *const names[] = {"no guesses", "lookup", "a draft model"};
    model *draft_model = load_draft();
    for (size_t i = 0; i < BASE_COUNT(cuts); i++) {
        engine_team *t = load(cuts[i].cut);
        for (int d = ENGINE_DRAFT_NONE; d <= ENGINE_DRAFT_MODEL; d++) {
            char what[128];
            listener *l = i == 0 && d == ENGINE_DRAFT_NONE ? &whole : &cut;
            converse(l, t, (engine_draft)d, d == ENGINE_DRAFT_MODEL ? draft_model : NULL);
            snprintf(what, sizeof what, "%s, %s", cuts[i].name, names[d]);
            compare(&whole.r, &l->r, what);
            printf("%-34s %4d guesses, %4d stood (%3d in forms), %d cached\n", what, l->n_drafted,
                   l->n_accepted, l->n_held_accepted, l->n_cached);
            assert_true(l->n_cached >= PREFIX / 64 * 64);
            assert_true(d == ENGINE_DRAFT_NONE ? l->n_drafted == 0
                                               : l->n_accepted > 10 && l->n_held_accepted > 0);
        }
        engine_team_destroy(t);
    }
    check_forms(&whole.r);
    model_destroy(draft_model);
}

int main(int argc, char **argv)
{
    if (rig_is_rank(argc, argv))
        return rig_rank();
    unsetenv("TEST_RANK");
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_and_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
