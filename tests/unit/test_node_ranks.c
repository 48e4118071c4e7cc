/*
 * One model over several ranks, through the real links: the logits are those of the whole model, bit for bit, over threads (loop) for every
 * model and cut, over processes (shm, tls) for some of each; the engine on top gives the same answers; what does not fit together is refused
 * by name; announcements that make no sense end the group and nothing else; a dead or silent rank is noticed, named and replaced.
 */
#include "team_rig.h"

#include "engine/group.h"
#include "kernel/kernel.h"
#include "model_make.h"

#include <limits.h>

enum { PROMPT = 70, MOST = 64 };

/* In this order: over processes go the first. */
static const int cuts[] = {CUT_TP2, CUT_TP3_UNEVEN,  CUT_TP4,        CUT_TP8,      CUT_TP2_NOTHING,
                           CUT_PP2, CUT_GRID_UNEVEN, CUT_PP3_UNEVEN, CUT_TP2_PACED};

static engine_team_options options(const char *source, engine_cut cut)
{
    engine_team_options o = team_options(source, cut);
    o.model.n_sequences = 4;
    o.model.max_tokens = o.model.max_outputs = PROMPT;
    return o;
}

/* ---- logits -------------------------------------------------------------------------------------------------------- */

static status feed(model *m, int n, int64_t position, const int32_t *ids, float *logits, err *e)
{
    int32_t pages[8], outputs[PROMPT];
    for (int i = 0; i < 8; i++)
        pages[i] = 7 - i;
    for (int i = 0; i < n; i++)
        outputs[i] = i;
    model_run run = {.n_tokens = n, .position = position};
    for (int c = 0; c < model_n_classes(m); c++) {
        run.pages[c] = pages;
        run.n_pages[c] = 8;
    }
    model_batch b = {n, ids, 1, &run, n, outputs};
    return model_step(m, &b, logits, e);
}

/* Rows of logits of a prompt, fed in pieces: [PROMPT, V]. */
static float *prompt_logits(model *m)
{
    const int pieces[] = {1, 33, 5, PROMPT};
    int64_t V = model_get_card(m)->n_vocab;
    float *rows = malloc(sizeof *rows * (size_t)(PROMPT * V));
    int32_t ids[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        ids[i] = (int32_t)(hash_u64((uint64_t)i, 4711) % (uint64_t)V);
    for (int at = 0, k = 0; at < PROMPT; k++) {
        int n = BASE_MIN(pieces[k], PROMPT - at);
        err e = {0};
        must(feed(m, n, at, ids + at, rows + at * V, &e), &e);
        at += n;
    }
    return rows;
}

static void compare(const float *whole, const engine_team_options *o, const char *name)
{
    engine_team *t = team_load(o);
    float *rows = prompt_logits(engine_team_model(t));
    int64_t V = model_get_card(engine_team_model(t))->n_vocab;
    for (int64_t k = 0; k < PROMPT * V; k++)
        if (memcmp(&rows[k], &whole[k], sizeof *rows))
            fail_msg("%s, %s over %s: row %d, logit %d is %.9g, expected %.9g", o->source, name,
                     engine_link_name(o->cut.link), (int)(k / V), (int)(k % V), (double)rows[k],
                     (double)whole[k]);
    free(rows);
    engine_team_destroy(t);
}

/* Every cut over loop; over processes the first `n_processes` cuts and the hybrid. */
static void all_cuts(const char *source, bool exact, int n_processes)
{
    engine_team_options o = options(source, (engine_cut){0});
    o.model.exact = exact;
    engine_team *whole = team_load(&o);
    float *rows = prompt_logits(engine_team_model(whole));
    int64_t n_layers = model_get_card(engine_team_model(whole))->n_layers;
    engine_team_destroy(whole);
    int done = 0;
    for (size_t i = 0; i < BASE_COUNT(cuts); i++) {
        const team_cut *c = &team_cuts[cuts[i]];
        if (c->cut.n_stages > n_layers)
            continue;
        for (int l = 0; l < ENGINE_LINKS; l++) {
            bool processes = l != ENGINE_LINK_LOOP;
            if (processes && n_processes < (int)i + 1 &&
                !(n_processes && cuts[i] == CUT_GRID_UNEVEN))
                continue;
            o.cut = c->cut;
            o.cut.link = (engine_link)l;
            compare(rows, &o, c->name);
            done++;
        }
    }
    free(rows);
    printf("%-20s%s %d cuts and links, the same bits\n",
           source + strlen(source) - BASE_MIN(strlen(source), (size_t)20), exact ? " exact" : "",
           done);
}

static void our_models(void **state)
{
    (void)state;
    static const char *const names[] = {"tiny-q8_0",  "h28-4-f32",  "h24-8-q4_0",
                                        "f2880-q4_0", "h14-2-q4_k", "h16-4-q6_k",
                                        "h14-2-bf16", "h24-8-f16",  "v32003-q4_0"};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/models/%s.gguf", TEST_DATA, names[i]);
        all_cuts(path, false, i < 3 ? 2 : 0);
        if (i < 3)
            all_cuts(path, true, 1);
    }
}

static void outside_models(void **state)
{
    (void)state;
    static const char *const names[] = {"llama/llama-Q4_0", "qwen2/qwen2-Q8_0", "qwen3/qwen3-Q4_0",
                                        "gemma3/gemma3-Q8_0"};
    const char *fixtures = getenv("SHOAL_FIXTURES");
    if (!fixtures) {
        printf("skipped: SHOAL_FIXTURES names no folder\n");
        return;
    }
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/models/%s.gguf", fixtures, names[i]);
        all_cuts(path, false, 2);
        all_cuts(path, true, 1);
    }
}

/* ---- the engine ---------------------------------------------------------------------------------------------------- */

typedef struct answers {
    int n[MOST], done;
    int32_t token[MOST][MOST];
    float logprob[MOST][MOST];
    int32_t second[MOST][MOST];
    int n_scored[MOST];
    float of_prompt[MOST][PROMPT * 4];
    int n_cached[MOST]; /* the last: not the same for all */
} answers;

/* By request and choice: 4 choices at most. */
static void note(void *context, const engine_event *event)
{
    answers *a = context;
    int at = (int)event->id * 4 + event->choice;
    assert_true(at < MOST);
    if (event->kind == ENGINE_STARTED)
        a->n_cached[at] = event->n_cached;
    if (event->kind == ENGINE_DONE) {
        assert_int_not_equal(event->reason, ENGINE_ERROR);
        a->done++;
    }
    if (event->kind == ENGINE_PROMPT) {
        a->n_scored[at]++;
        a->of_prompt[at][event->index] = event->logprob;
    }
    if (event->kind == ENGINE_TOKEN) {
        if (event->n_top > 1)
            a->second[at][a->n[at]] = event->top[1].token;
        a->token[at][a->n[at]] = event->token;
        a->logprob[at][a->n[at]++] = event->logprob;
    }
}

static void ask(engine *g, uint64_t id, int n_prompt, int n_choices, const sample_options *s)
{
    int32_t prompt[200];
    err e = {0};
    for (int i = 0; i < n_prompt; i++) /* all begin alike: pages are shared */
        prompt[i] = (int32_t)(hash_u64((uint64_t)i, i < 130 ? 1 : id) % 200);
    engine_request r = {.id = id,
                        .prompt = prompt,
                        .n_prompt = n_prompt,
                        .n_choices = n_choices,
                        .max_tokens = 24,
                        .sample = *s,
                        .score_prompt = id == 11,
                        .top_logprobs = id % 2 ? 3 : -1};
    must(engine_submit(g, &r, &e), &e);
}

/* All options of sampling, forks, reuse, and too little state for all at once. */
static void converse(answers *a, const char *source, engine_cut cut, uint64_t state_tokens)
{
    engine_team_options o = options(source, cut);
    o.model.state_tokens = state_tokens;
    engine_team *t = team_load(&o);
    engine *g;
    err e = {0};
    engine_options eo = {.max_sequences = 4, .chunk = 32, .cache_slots = 4};
    const sample_bias bias[] = {{7, 3.0f}, {9, -50.0f}};
    const int32_t banned[] = {3, 4, 5};
    memset(a, 0, sizeof *a);
    must(engine_create(&g, engine_team_model(t), &eo, note, a, &e), &e);
    for (uint64_t id = 0; id < 12; id++) {
        sample_options s = SAMPLE_DEFAULTS;
        s.seed = 40 + id;
        s.temperature = id == 0 ? 0 : 0.5f + 0.2f * (float)id;
        s.top_k = id == 2 ? 20 : 0;
        s.top_p = id == 3 ? 0.7f : s.top_p;
        s.min_p = id == 4 ? 0.05f : 0;
        if (id == 9) { /* flat: more candidates than go as parts */
            s.temperature = 6;
            s.top_p = 0.97f;
        }
        s.top_k = id == 10 ? 1500 : s.top_k;
        s.top_p = id == 10 ? 0.9f : s.top_p;
        if (id == 5) {
            s.repetition_penalty = 1.3f;
            s.presence_penalty = 0.4f;
            s.frequency_penalty = 0.2f;
        }
        if (id == 6) {
            s.bias = bias;
            s.n_bias = 2;
            s.banned = banned;
            s.n_banned = 3;
        }
        ask(g, id, id == 8 ? 140 : 100 + (int)id * 8, id == 7 ? 4 : 1, &s);
    }
    bool busy = true;
    for (int i = 0; busy; i++) {
        must(engine_step(g, &busy, &e), &e);
        assert_true(i < 5000);
    }
    assert_int_equal(a->done, 15);
    assert_int_equal(a->n_scored[44], 187);
    engine_destroy(g);
    engine_team_destroy(t);
}

static int n_reused(const answers *a)
{
    int n = 0;
    for (int i = 0; i < MOST; i++)
        n += a->n_cached[i] > 0;
    return n;
}

/* With so many tokens that not all of a slice go as parts. */
static void make_wide(const char *path)
{
    const make_shape shape = {"llama", 3, 64, 4, 2, 16, 96, 4099, 0, "Q8_0", true, 11};
    size_t n;
    char *bytes = make_model(&shape, &n);
    FILE *f = fopen(path, "wb");
    assert_true(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
    base_free(bytes);
}

static void engine_answers(void **state)
{
    (void)state;
    static answers whole, cut;
    static const struct {
        int cut;
        engine_link link;
    } others[] = {
        {CUT_TP2, ENGINE_LINK_SHM},         {CUT_GRID, ENGINE_LINK_LOOP},
        {CUT_TP3_UNEVEN, ENGINE_LINK_LOOP}, {CUT_TP2_NOTHING, ENGINE_LINK_LOOP},
        {CUT_PP2, ENGINE_LINK_TLS},
    };
    char wide[4200];
    const char *sources[] = {TINY, wide};
    snprintf(wide, sizeof wide, "%s-%d.gguf", rig_program(), (int)getpid());
    make_wide(wide);
    for (int k = 0; k < 4; k++) {
        const char *source = sources[k / 2];
        uint64_t tokens = k % 2 ? 512 : 2048;
        converse(&whole, source, (engine_cut){0}, tokens);
        for (size_t i = 0; i < (k % 2 ? 2 : BASE_COUNT(others)); i++) {
            engine_cut other = team_cut_over(others[i].cut, others[i].link);
            converse(&cut, source, other, tokens);
            /* a pipeline reads prompts in pieces of its own, and so may find less of a prefix that is still being read */
            assert_memory_equal(&whole, &cut,
                                other.n_stages > 1 ? offsetof(answers, n_cached) : sizeof whole);
            assert_true(n_reused(&whole) > 0 && n_reused(&cut) > 0);
        }
    }
    unlink(wide);
}

/* ---- cuts ---------------------------------------------------------------------------------------------------------- */

static void borders(void **state)
{
    (void)state;
    for (uint64_t k = 0; k < 3000; k++) {
        uint64_t h = hash_u64(k, 99);
        model_cut_units u = {.n_layers = 1 + (int64_t)(h % 40),
                             .n_heads = 1 + (int64_t)(h >> 8 & 63),
                             .n_ffn = 32 * (1 + (int64_t)(h >> 16 & 255)),
                             .n_vocab = 100 + (int64_t)(h >> 24 & 1023),
                             .heads = 1 + (int64_t)(h >> 34 & 3),
                             .ffn = 32 << (h >> 36 & 3)};
        engine_cut c = {.n_stages = 1 + (int)(h >> 40 & 3), .n_tensor = 1 + (int)(h >> 42 & 7)};
        int n = engine_cut_ranks(&c);
        if (h >> 50 & 1) {
            c.n_shares = n;
            for (int i = 0; i < n; i++)
                c.shares[i] = (float)(1 + (hash_u64((uint64_t)i, h) & 7));
        }
        model_shard s[ENGINE_MOST_RANKS];
        err e = {0};
        status got = engine_cut_shards(s, &c, &u, &e);
        assert_int_equal(got, c.n_stages > u.n_layers ? STATUS_INVALID : STATUS_OK);
        for (int r = 0; r < n && got == STATUS_OK; r++) {
            bool first = r % c.n_tensor == 0, last = r % c.n_tensor == c.n_tensor - 1;
            assert_true(s[r].layer_begin < s[r].layer_end);
            assert_int_equal(s[r].layer_begin, r < c.n_tensor ? 0 : s[r - c.n_tensor].layer_end);
            assert_int_equal(s[r].head_begin, first ? 0 : s[r - 1].head_end);
            assert_int_equal(s[r].ffn_begin, first ? 0 : s[r - 1].ffn_end);
            assert_int_equal(s[r].vocab_begin, first ? 0 : s[r - 1].vocab_end);
            assert_true(!last || (s[r].head_end == u.n_heads && s[r].ffn_end == u.n_ffn &&
                                  s[r].vocab_end == u.n_vocab));
            assert_true(s[r].head_end % u.heads == 0 || s[r].head_end == u.n_heads);
            assert_true(s[r].ffn_end % u.ffn == 0 || s[r].ffn_end == u.n_ffn);
            assert_true(r < n - c.n_tensor || s[r].layer_end == u.n_layers);
        }
    }
}

static void refused_cuts(void **state)
{
    (void)state;
    const engine_cut bad[] = {
        {.n_stages = 9, .n_tensor = 1},
        {.n_stages = 1, .n_tensor = 65},
        {.n_stages = 1, .n_tensor = 2, .n_shares = 3, .shares = {1, 1, 1}},
        {.n_stages = 1, .n_tensor = 2, .n_shares = 2, .shares = {0, 0}},
        {.n_stages = 1, .n_tensor = 2, .n_shares = 2, .shares = {-1, 2}},
        {.n_stages = 1, .n_tensor = 2, .n_paces = 1, .paces = {1}},
        {.n_stages = 1, .n_tensor = 2, .n_paces = 2, .paces = {1, 0}},
        {.n_stages = 1, .n_tensor = 2, .n_paces = 2, .paces = {1, 1.5f}},
    };
    for (size_t i = 0; i < BASE_COUNT(bad); i++) {
        model_shard s[ENGINE_MOST_RANKS];
        model_cut_units u = {4, 8, 512, 300, 1, 32};
        err e = {0};
        assert_int_equal(engine_cut_shards(s, &bad[i], &u, &e), STATUS_INVALID);
    }
    static const int many[][2] = {{65536, 65536}, {INT_MAX, INT_MAX}, {1, INT_MAX}, {33, 2}};
    for (size_t i = 0; i < BASE_COUNT(many); i++) {
        engine_cut c = {.n_stages = many[i][0], .n_tensor = many[i][1], .link = ENGINE_LINK_LOOP};
        engine_team_options o = options(TINY, c);
        engine_team *t = NULL;
        err e = {0};
        assert_true(engine_cut_ranks(&c) > ENGINE_MOST_RANKS);
        assert_int_equal(engine_team_load(&t, &o, NULL, &e), STATUS_INVALID);
        assert_non_null(strstr(e.text, "64"));
    }
}

/* ---- who does not belong together ---------------------------------------------------------------------------------- */

/* One rank as a thread, loaded as it is told. */
typedef struct lone {
    engine_place place;
    engine_group *group;
    model *m;
    os_thread *thread;
    status result;
    err why;
} lone;

static void join_it(void *context)
{
    lone *l = context;
    l->result = engine_group_join(l->group, l->m, &l->why);
}

static void prepare(lone *l, const char *source, int rank, engine_cut cut, int64_t context,
                    link_loop *loop, bool exact)
{
    file_model *f;
    err e = {0};
    engine_team_options o = options(source, cut);
    o.model.context = context;
    o.model.exact = exact;
    *l = (lone){.place = {.cut = cut, .rank = rank, .loops = {loop, loop}}};
    l->place.cut.link = ENGINE_LINK_LOOP;
    must(store_open(&f, source, &e), &e);
    must(engine_group_create(&l->group, &l->place, f, &o.model, &e), &e);
    must(model_load(&l->m, f, &o.model, NULL, &e), &e);
    file_close(f);
}

static void handshakes(void **state)
{
    (void)state;
    const engine_cut two = {.n_stages = 1, .n_tensor = 2},
                     uneven = {.n_stages = 1, .n_tensor = 2, .n_shares = 2, .shares = {1, 3}};
    const struct {
        const char *source;
        engine_cut cut;
        int64_t context;
        bool exact;
        const char *what;
    } others[] = {{OTHER, two, 512, false, "model"},
                  {TINY, uneven, 512, false, "plan"},
                  {TINY, two, 256, false, "plan"},
                  {TINY, two, 512, true, "numerics"}};
    for (size_t i = 0; i < BASE_COUNT(others); i++) {
        link_loop *loop;
        lone a, b;
        err e = {0};
        must(link_loop_create(&loop, 2, 1 << 16, NULL, &e), &e);
        prepare(&a, TINY, 0, two, 512, loop, false);
        prepare(&b, others[i].source, 1, others[i].cut, others[i].context, loop, others[i].exact);
        must(os_thread_create(&a.thread, join_it, &a, "a", &e), &e);
        join_it(&b);
        os_thread_join(a.thread);
        assert_int_equal(a.result, STATUS_CONFLICT);
        assert_int_equal(b.result, STATUS_CONFLICT);
        if (!strstr(a.why.text, others[i].what) && !strstr(b.why.text, others[i].what))
            fail_msg("neither \"%s\" nor \"%s\" names the %s", a.why.text, b.why.text,
                     others[i].what);
        engine_group_destroy(a.group);
        engine_group_destroy(b.group);
        model_destroy(a.m);
        model_destroy(b.m);
        link_loop_destroy(loop);
    }
}

/* ---- a leader that says nonsense ----------------------------------------------------------------------------------- */

static void follow_it(void *context)
{
    lone *l = context;
    join_it(l);
    if (l->result == STATUS_OK)
        l->result = engine_group_follow(&l->group, &l->m, NULL, &l->why);
}

/* A leader, joined and silent, and its follower. */
typedef struct couple {
    link_loop *loop;
    lone a, b;
} couple;

static void couple_start(couple *c, const char *source, engine_cut cut)
{
    err e = {0};
    must(link_loop_create(&c->loop, 2, 1 << 20, NULL, &e), &e);
    prepare(&c->a, source, 0, cut, 512, c->loop, false);
    prepare(&c->b, source, 1, cut, 512, c->loop, false);
    must(os_thread_create(&c->b.thread, follow_it, &c->b, "b", &e), &e);
    join_it(&c->a);
    must(c->a.result, &c->a.why);
}

/* Looks after the group until it fails or `most` looks are over, then ends it. */
static void couple_part(couple *c, int most)
{
    link_group *all = c->a.group->all;
    for (int i = 0; i < most && link_group_status(all, NULL) == STATUS_OK; i++) {
        os_sleep_us(100);
        (void)link_group_progress(all);
    }
    link_group_abort(all, STATUS_CANCELLED, "enough");
    (void)link_group_progress(all);
    os_thread_join(c->b.thread);
}

static void couple_end(couple *c)
{
    engine_group_destroy(c->a.group);
    engine_group_destroy(c->b.group);
    model_destroy(c->a.m);
    model_destroy(c->b.m);
    link_loop_destroy(c->loop);
}

/* A good announcement of one token with `n` words, changed in some places. */
static void spoil(int32_t *words, uint64_t k)
{
    const int32_t good[] = {14, GROUP_STEP, 0, 1, 1, 0, -1, 0, 5, 1, 0, 0, 1, 3, 0};
    memset(words, 0, GROUP_FIRST * sizeof *words);
    memcpy(words, good, sizeof good);
    if (k == 0)
        return;
    static const int32_t values[] = {-1, 0, 1, 2, 70, 71, 255, 256, 100000, INT32_MAX, INT32_MIN};
    int n = 1 + (int)(hash_u64(k, 5) % 2);
    for (int i = 0; i < n; i++) {
        uint64_t h = hash_u64(k, 100 + (uint64_t)i);
        words[h % 15] = values[(h >> 16) % BASE_COUNT(values)];
    }
}

static void nonsense(void **state)
{
    (void)state;
    const engine_cut pipeline = team_cuts[CUT_PP2].cut;
    int refused = 0, taken = 0;
    for (uint64_t k = 0; k < 120; k++) {
        couple c;
        int32_t words[GROUP_FIRST];
        float stream[PROMPT * 1024] = {0};
        err e = {0};
        couple_start(&c, TINY, pipeline);
        spoil(words, k);
        int64_t D = model_get_card(c.a.m)->d_model;
        assert_true(D <= 1024);
        must(link_broadcast(c.a.group->all, 0, words, sizeof words, &e), &e);
        if (k == 0) /* it would wait for the stream of one token */
            must(link_send(c.a.group->all, 1, 0, stream, (size_t)D * sizeof *stream, &e), &e);
        link_op *op;
        bool asked = link_recv_start(&op, c.a.group->all, 1, 0, stream, 4, &e) == STATUS_OK;
        couple_part(&c, asked && k > 0 ? 3000 : 0);
        assert_true(k == 0 || c.b.result != STATUS_OK || words[1] == GROUP_END);
        refused += c.b.result == STATUS_CORRUPT || c.b.result == STATUS_INVALID ||
                   c.b.result == STATUS_TOO_LONG;
        taken += c.b.result == STATUS_CANCELLED;
        couple_end(&c);
    }
    printf("%d refused, %d waited for more\n", refused, taken);
    assert_true(refused > 60);
}

/* The last stage is asked for a token of one row, with an edit and a mask, in words that are changed in some places. */
static void nonsense_asks(void **state)
{
    (void)state;
    enum { LIST = 2 + 2 + 4 };
    const engine_cut pipeline = team_cuts[CUT_PP2].cut;
    static const int32_t values[] = {-1,  0,      1,         2,         3,         16,
                                     255, 100000, INT32_MAX, INT32_MIN, 0x7f800000};
    int refused = 0, answered = 0;
    for (uint64_t k = 0; k < 150; k++) {
        couple c;
        err e = {0};
        couple_start(&c, TINY, pipeline);
        size_t n_mask = (size_t)(model_get_card(c.a.m)->n_vocab + 63) / 64;
        uint32_t *list = calloc(LIST + 2 * n_mask, sizeof *list);
        list[0] = 1;
        memset(list + 2, 0xff, n_mask * sizeof(uint64_t));
        list[2 + 2 * n_mask] = 7;
        int32_t words[GROUP_FIRST] = {32, GROUP_STEP, 0, 1, 1, 1, 0, 1, 5, 0, 1, 0, 0, 1, 3};
        sample_options o = SAMPLE_DEFAULTS;
        memcpy(words + 15 + 6, &o.temperature, sizeof(float));
        memcpy(words + 15 + 8, &o.top_p, sizeof(float));
        memcpy(words + 15 + 10, &o.repetition_penalty, sizeof(float));
        words[15 + 13] = 2;
        words[15 + 14] = 1;
        words[31] = (int32_t)(2 + 2 * n_mask + 4);
        int n_bad = k == 0 ? 0 : 1 + (int)(hash_u64(k, 5) % 2);
        for (int i = 0; i < n_bad; i++) {
            uint64_t h = hash_u64(k, 100 + (uint64_t)i);
            int32_t value = values[(h >> 16) % BASE_COUNT(values)];
            if (h >> 40 & 3)
                words[6 + h % 26] = value;
            else
                memcpy(&list[(h >> 42 & 1) ? h % 2 : 2 + 2 * n_mask + h % 4], &value, sizeof value);
        }
        size_t D = (size_t)model_get_card(c.a.m)->d_model, n_list = 2 + 2 * n_mask + 4;
        float *stream = calloc(D, sizeof *stream);
        uint32_t results[7 + 4];
        link_op *op = NULL;
        must(link_broadcast(c.a.group->all, 0, words, sizeof words, &e), &e);
        if (words[31] == (int32_t)n_list)
            (void)link_send(c.a.group->all, 1, 0, list, n_list * sizeof *list, NULL);
        (void)link_send(c.a.group->all, 1, 0, stream, D * sizeof *stream, NULL);
        status s = link_recv_start(&op, c.a.group->all, 1, 0, results, sizeof results, &e);
        if (s == STATUS_OK && k == 0) {
            must(link_op_wait(op, &e), &e);
            assert_int_equal(results[0], SAMPLE_CUT_OVER);
            answered++;
        }
        couple_part(&c, k > 0 ? 300 : 0);
        assert_true(c.b.result != STATUS_OK);
        refused += c.b.result == STATUS_CORRUPT || c.b.result == STATUS_INVALID;
        couple_end(&c);
        free(list);
        free(stream);
    }
    printf("%d refused, %d answered\n", refused, answered);
    assert_true(refused > 50 && answered == 1);
}

/* What a follower of two sends in `n` steps of a token each, whose row comes whole or as a token. */
static uint64_t bytes_of(int n, bool whole)
{
    couple c;
    err e = {0};
    sample *s;
    sample_result out;
    sample_options o = SAMPLE_DEFAULTS;
    couple_start(&c, TEST_DATA "/models/v32003-q4_0.gguf", team_cuts[CUT_TP2].cut);
    int64_t V = model_get_card(c.a.m)->n_vocab;
    float *row = malloc(sizeof *row * (size_t)V);
    must(sample_create(&s, kernel_table_at(0), (int)V, &o, 0, &e), &e);
    assert_ptr_equal(engine_group_of(c.a.m), c.a.group);
    assert_null(engine_group_of(c.b.m));
    for (int i = 0; i < n; i++) {
        int32_t id = 5 + i;
        sample_want want;
        sample_call call = {.position = i, .top_logprobs = -1};
        sample_describe(&want, s, &call, NULL, 0);
        engine_group_ask_begin(c.a.group);
        if (whole)
            engine_group_ask_whole(c.a.group, 0);
        else
            assert_int_equal(engine_group_ask(c.a.group, 0, &want), 0);
        must(feed(c.a.m, 1, i, &id, row, &e), &e);
        if (!whole)
            must(engine_group_answer(c.a.group, 0, &out, &e), &e);
    }
    engine_group_destroy(c.a.group); /* says END */
    os_thread_join(c.b.thread);
    must(c.b.result, &c.b.why);
    uint64_t bytes = link_group_sent_bytes(c.b.group->all);
    c.a.group = NULL;
    couple_end(&c);
    sample_destroy(s);
    free(row);
    return bytes;
}

/* A token is a part of one candidate: 9 words and a frame's header, whatever the vocabulary. */
static void bytes_of_tokens(void **state)
{
    (void)state;
    enum { STEPS = 10, SLICE = 32003 - 1001 * 16, PART = 4 * 9 };
    uint64_t whole = bytes_of(STEPS, true), told = bytes_of(STEPS, false);
    printf("%d tokens: %llu bytes less\n", STEPS, (unsigned long long)(whole - told));
    assert_int_equal(whole - told, STEPS * (4 * SLICE - PART));
}

/* A group that failed by no fault of its links is a group that failed: nothing more is said. */
static void failed_for_good(void **state)
{
    (void)state;
    const engine_cut two = {.n_stages = 1, .n_tensor = 2};
    link_loop *loop;
    lone a, b;
    err e = {0};
    int32_t id = 5;
    must(link_loop_create(&loop, 2, 1 << 20, NULL, &e), &e);
    prepare(&a, TINY, 0, two, 512, loop, false);
    prepare(&b, TINY, 1, two, 512, loop, false);
    must(os_thread_create(&b.thread, follow_it, &b, "b", &e), &e);
    join_it(&a);
    must(a.result, &a.why);
    float *row = malloc(sizeof *row * (size_t)model_get_card(a.m)->n_vocab);
    must(feed(a.m, 1, 0, &id, row, &e), &e);
    must(engine_group_beat(a.group, &e), &e);
    (void)group_noted(a.group, STATUS_CORRUPT);
    uint64_t before = link_group_sent_bytes(a.group->all);
    e = (err){0};
    assert_int_equal(engine_group_beat(a.group, &e), STATUS_CANCELLED);
    assert_non_null(strstr(e.text, "rank 0 of 2"));
    assert_int_equal(feed(a.m, 1, 1, &id, row, &e), STATUS_CANCELLED);
    assert_int_equal(link_group_sent_bytes(a.group->all), before);
    engine_group_destroy(a.group);
    os_thread_join(b.thread);
    assert_int_not_equal(b.result, STATUS_OK);
    engine_group_destroy(b.group);
    model_destroy(a.m);
    model_destroy(b.m);
    link_loop_destroy(loop);
    free(row);
}

/* ---- messages ------------------------------------------------------------------------------------------------------ */

static void places_as_messages(void **state)
{
    (void)state;
    engine_place p = {.cut = {.n_stages = 2,
                              .n_tensor = 3,
                              .link = ENGINE_LINK_TLS,
                              .n_shares = 6,
                              .shares = {1, 2, 3, 4, 5, 6},
                              .n_paces = 6,
                              .paces = {1, 0.5f, 1, 0.25f, 1, 1}},
                      .rank = 4,
                      .epoch = {5, 6, 7},
                      .deadline_us = 8,
                      .n_handles = 7},
                 back = {0};
    memset(p.secret, 0xa5, sizeof p.secret);
    sb out;
    wire_frame f;
    bool complete;
    err e = {0};
    sb_init(&out);
    wire_put_join(&out, &p);
    must(wire_next(&f, &complete, out.data, out.length, &e), &e);
    assert_true(complete && f.message == WIRE_JOIN);
    must(wire_get_join(&back, &f, &e), &e);
    assert_memory_equal(&p, &back, sizeof p);
    for (size_t n = 0; n < f.bytes; n++) {
        wire_frame cut = {WIRE_JOIN, f.payload, n};
        assert_int_not_equal(wire_get_join(&back, &cut, &e), STATUS_OK);
    }
    sb_fini(&out);
}

/* ---- a rank that is lost ------------------------------------------------------------------------------------------- */

static void lose(engine_link link, int number, const char *reason)
{
    engine_team_options o = options(TINY, (engine_cut){.n_stages = 1, .n_tensor = 3, .link = link});
    o.deadline_us = 1000000;
    engine_team *t = team_load(&o);
    int32_t id = 5;
    int64_t V = model_get_card(engine_team_model(t))->n_vocab;
    float *row = malloc(sizeof *row * (size_t)V);
    err e = {0};
    must(feed(engine_team_model(t), 1, 0, &id, row, &e), &e);
    int pid = engine_team_pid(t, 1);
    assert_true(pid > 0);
    kill(pid, number);
    status s = STATUS_OK;
    for (int i = 1; i < 400 && s == STATUS_OK; i++)
        s = feed(engine_team_model(t), 1, i, &id, row, &e);
    assert_int_not_equal(s, STATUS_OK);
    engine_team_why(t, &e);
    if (!strstr(e.text, reason))
        fail_msg("\"%s\" does not say %s", e.text, reason);
    /* and nothing more can be done with it */
    assert_int_not_equal(feed(engine_team_model(t), 1, 0, &id, row, &e), STATUS_OK);
    engine_team_destroy(t);
    assert_int_equal(kill(pid, 0), -1);
    free(row);
}

static void lost_ranks(void **state)
{
    (void)state;
    for (int l = 0; l < ENGINE_LINK_LOOP; l++) {
        lose((engine_link)l, SIGKILL, "rank 2 ended (signal 9");
        lose((engine_link)l, SIGSTOP, "rank 2");
    }
}

static void loading_fails(void **state)
{
    (void)state;
    for (int l = 0; l < ENGINE_LINKS; l++) {
        engine_team *t;
        engine_team_options o =
            options(TINY, (engine_cut){.n_stages = 1, .n_tensor = 2, .link = (engine_link)l});
        err e = {0};
        o.model.memory_limit = 1000;
        assert_int_equal(engine_team_load(&t, &o, NULL, &e), STATUS_NO_MEMORY);
        o.model.memory_limit = 0;
        o.source = "/no/such/model.gguf";
        assert_int_equal(engine_team_load(&t, &o, NULL, &e), STATUS_NOT_FOUND);
        if (l == ENGINE_LINK_LOOP)
            continue;
        o.source = TINY;
        o.program = "/no/such/program";
        assert_int_not_equal(engine_team_load(&t, &o, NULL, &e), STATUS_OK);
    }
}

int main(int argc, char **argv)
{
    if (rig_is_rank(argc, argv))
        return rig_rank();
    unsetenv("TEST_RANK");
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(borders),
        cmocka_unit_test(refused_cuts),
        cmocka_unit_test(places_as_messages),
        cmocka_unit_test(our_models),
        cmocka_unit_test(outside_models),
        cmocka_unit_test(engine_answers),
        cmocka_unit_test(handshakes),
        cmocka_unit_test(nonsense),
        cmocka_unit_test(nonsense_asks),
        cmocka_unit_test(bytes_of_tokens),
        cmocka_unit_test(failed_for_good),
        cmocka_unit_test(lost_ranks),
        cmocka_unit_test(loading_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
