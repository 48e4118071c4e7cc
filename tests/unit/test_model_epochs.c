/*
 * A change of plan: from every cut to every other one, and to and from the whole model. Every rank loads its new shard beside the old one. What it reads of
 * the file is exactly what it did not hold, counted here from nothing but the shapes; the logits are those of the whole model, bit
 * for bit, after one change and after several; and when the last epoch is gone nothing is left.
 */
#include "model_make.h"
#include "model_ranks.h"

#include "file/file.h"

static model_shard shard_at(const cut *c, int number, const model_card *card,
                            const model_cut_units *u)
{
    model_shard s = shard_of(c, number / c->ranks, number % c->ranks, card, u);
    s.cut = c->stages * c->ranks > 1;
    return s;
}

/* ---- what a rank has to read, from the shapes alone ------------------------------------------------------------------ */

typedef struct rectangle {
    int64_t rows[2], columns[2];
} rectangle;

static int64_t area(const rectangle *r)
{
    return BASE_MAX(r->rows[1] - r->rows[0], (int64_t)0) *
           BASE_MAX(r->columns[1] - r->columns[0], (int64_t)0);
}

static rectangle overlap(const rectangle *a, const rectangle *b)
{
    return (rectangle){
        {BASE_MAX(a->rows[0], b->rows[0]), BASE_MIN(a->rows[1], b->rows[1])},
        {BASE_MAX(a->columns[0], b->columns[0]), BASE_MIN(a->columns[1], b->columns[1])}};
}

/* Which part of the tensor a rank holds. */
static rectangle held(const model_shard *s, const file_tensor *t, const model_card *c)
{
    rectangle nothing = {{0, 0}, {0, 0}},
              r = {{0, t->n_dims > 1 ? (int64_t)t->dims[1] : 1}, {0, (int64_t)t->dims[0]}};
    int64_t dh = c->head_dim, group = c->n_heads / c->n_kv_heads;
    int layer;
    char rest[64] = "", name[128];
    snprintf(name, sizeof name, "%.*s", (int)t->name.length, t->name.data);
    bool first = !s->cut || s->layer_begin == 0, last = !s->cut || s->layer_end == c->n_layers,
         shared = s->cut && s->tensor_ranks > 1;
    if (!strcmp(name, "token_embd.weight")) {
        if (!first && !(last && c->tied))
            return nothing;
        if (shared || !first) {
            r.rows[0] = s->vocab_begin;
            r.rows[1] = s->vocab_end;
        }
        return r;
    }
    if (!strcmp(name, "output.weight") && s->cut) {
        r.rows[0] = s->vocab_begin;
        r.rows[1] = s->vocab_end;
    }
    if (strncmp(name, "output", 6) == 0)
        return last ? r : nothing;
    assert_int_equal(sscanf(name, "blk.%d.%63s", &layer, rest), 2);
    if (!s->cut)
        return r;
    if (layer < s->layer_begin || layer >= s->layer_end)
        return nothing;
    bool no_heads = s->head_begin == s->head_end;
    int64_t heads[2] = {s->head_begin * dh, s->head_end * dh},
            kv[2] = {s->head_begin / group * dh, no_heads ? s->head_begin / group * dh
                                                          : (s->head_end + group - 1) / group * dh},
            ffn[2] = {s->ffn_begin, s->ffn_end};
    const struct {
        const char *name;
        const int64_t *range;
        bool columns;
    } kinds[] = {{"attn_q.weight", heads, false}, {"attn_k.weight", kv, false},
                 {"attn_v.weight", kv, false},    {"attn_output.weight", heads, true},
                 {"attn_q.bias", heads, true},    {"attn_k.bias", kv, true},
                 {"attn_v.bias", kv, true},       {"ffn_gate.weight", ffn, false},
                 {"ffn_up.weight", ffn, false},   {"ffn_down.weight", ffn, true}};
    for (size_t i = 0; i < BASE_COUNT(kinds); i++)
        if (!strcmp(rest, kinds[i].name))
            memcpy(kinds[i].columns ? r.columns : r.rows, kinds[i].range, sizeof r.rows);
    return r;
}

/* Bytes of the file that `to` holds and `from` (NULL: nothing) does not. */
static uint64_t missing(const file_model *f, const model_card *c, const model_shard *to,
                        const model_shard *from)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < f->n_tensors; i++) {
        const file_tensor *t = &f->tensors[i];
        rectangle all = {{0, t->n_dims > 1 ? (int64_t)t->dims[1] : 1}, {0, (int64_t)t->dims[0]}},
                  now = held(to, t, c);
        int64_t n = area(&now);
        if (from) {
            rectangle before = held(from, t, c), both = overlap(&now, &before);
            n -= area(&both);
        }
        sum += (uint64_t)((double)t->bytes * (double)n / (double)area(&all) + 0.5);
    }
    return sum;
}

/* ---- a change -------------------------------------------------------------------------------------------------------- */

typedef struct change {
    const subject *subject;
    const cut *from[3]; /* one after another; NULL ends */
    uint64_t slice;
    bool paused,
        blocks; /* blocks: borders may divide blocks of the file, which are then read whole */
    uint64_t read, held; /* summed over ranks */
} change;

static model *beside(change *c, const model_options *o, model *old, const model_shard *before)
{
    const file_model *f = c->subject->f;
    const model_card *card = c->subject->card;
    model_loading *l;
    model *m;
    err e = {0};
    uint64_t expected = missing(f, card, &o->shard, before), to_read;
    must(model_load_begin(&l, f, o, old, c->paused, &e), &e);
    for (bool done = false; !done;)
        must(model_load_more(l, c->slice, &done, &e), &e);
    assert_true(model_load_bytes(l, &to_read) == to_read);
    must(model_load_end(&m, l, &e), &e);
    assert_true(model_read_bytes(m) == to_read && model_used(m)->read_bytes == to_read);
    if (c->blocks)
        assert_true(to_read >= expected && (expected == 0) == (to_read == 0));
    else
        assert_int_equal(to_read, expected);
    c->read += to_read;
    c->held += missing(f, card, &o->shard, NULL);
    return m;
}

/* Rank `number` of the last cut, after having had a place in each one before. */
static model *changed(void *context, const model_options *o, int number)
{
    change *c = context;
    model *old = NULL, *m;
    model_shard before;
    err e = {0};
    for (int i = 0; i < 3 && c->from[i]; i++) {
        if (number >= c->from[i]->stages * c->from[i]->ranks)
            continue;
        model_options one = *o;
        one.shard = shard_at(c->from[i], number, c->subject->card, &c->subject->units);
        if (old)
            m = beside(c, &one, old, &before);
        else
            must(model_load(&m, c->subject->f, &one, NULL, &e), &e);
        model_destroy(old);
        old = m;
        before = one.shard;
    }
    m = beside(c, o, old, old ? &before : NULL);
    model_destroy(old);
    return m;
}

/* From every cut to every other, and on every third way over a third one. */
static void all_changes(const char *name, const char *bytes, size_t n_bytes, bool blocks)
{
    subject s;
    subject_open(&s, name, bytes, n_bytes, false);
    assert_int_equal(s.read_bytes, s.card->weight_bytes);
    model_options o = s.o;
    int done = 0;
    uint64_t read = 0, all = 0;
    for (int from = 0; from < CUTS_TO_CHANGE; from++) {
        for (int to = 0; to < CUTS_TO_CHANGE; to++, done++) {
            if (!cut_fits(&model_cuts[from], s.card) || !cut_fits(&model_cuts[to], s.card))
                continue;
            change c = {.subject = &s,
                        .from = {&model_cuts[from]},
                        .slice = done % 2 ? 1000 : UINT64_MAX,
                        .paused = done % 4 > 1,
                        .blocks = blocks};
            const cut *third = &model_cuts[(from + 2 * to + 1) % CUTS_TO_CHANGE];
            if (done % 3 == 0 && cut_fits(third, s.card))
                c.from[1] = third;
            o.device = done % 5 == 4 ? "cpu_copy" : "cpu";
            o.exchange.divides = done % 2 ? divides : NULL;
            float *logits = run_cut(&model_cuts[to], &s, &o, changed, &c);
            subject_compare(&s, logits, model_cuts[from].name, model_cuts[to].name, done);
            read += c.read;
            all += c.held;
        }
    }
    printf("%-28s %d changes, the same bits; read %.1f %% of what ranks hold\n", name, done,
           100.0 * (double)read / (double)all);
    subject_close(&s);
}

static void made_models(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        make_shape shape;
        bool blocks;
    } models[] = {
        {"8/2 Q4_0", {"llama", 4, 64, 8, 2, 32, 512, 331, 0, "Q4_0", false, 1}, false},
        {"40/8 Q8_0, tied", {"llama", 4, 96, 40, 8, 16, 640, 203, 0, "Q8_0", true, 2}, false},
        {"24/8 dh 8 F32", {"llama", 3, 64, 24, 8, 8, 96, 97, 0, "F32", true, 3}, false},
        {"14/2 Q4_K", {"llama", 4, 256, 16, 2, 16, 512, 131, 0, "Q4_K", false, 4}, true},
        {"14/2 Q6_K", {"llama", 4, 256, 16, 2, 16, 512, 131, 0, "Q6_K", true, 5}, true},
        {"F 2880 BF16", {"llama", 3, 64, 24, 8, 32, 2880, 131, 0, "BF16", false, 6}, false},
    };
    for (size_t i = 0; i < BASE_COUNT(models); i++) {
        size_t n;
        char *bytes = make_model(&models[i].shape, &n);
        all_changes(models[i].name, bytes, n, models[i].blocks);
        base_free(bytes);
    }
}

/* ---- refusals, cancelling, memory ------------------------------------------------------------------------------------ */

static const make_shape small = {"llama", 4, 64, 8, 2, 32, 512, 331, 0, "Q4_0", false, 1};

static void feed_one(model *m, float *row)
{
    static const int32_t id = 7, output = 0;
    run_pool pool = {0};
    run_sequence s;
    err e = {0};
    run_sequence_init(&s, &pool);
    model_run run = run_of(m, &pool, &s, 1);
    model_batch b = {1, &id, 1, &run, 1, &output};
    must(model_step(m, &b, row, &e), &e);
}

/* The old epoch runs before, during and after a load that is given up; another model's file is no epoch of this one. */
static void given_up(void **state)
{
    (void)state;
    size_t n;
    char *bytes = make_model(&small, &n);
    model_options o = {.n_threads = 2, .context = 64};
    model *m = run_load_bytes(bytes, n, &o), *next;
    model_loading *l;
    file_model *f;
    err e = {0};
    bool done;
    float first[331], row[331];
    must(file_open_memory(&f, bytes, n, "made", &e), &e);
    feed_one(m, first);
    for (int stop = 0; stop < 40; stop += 7) {
        must(model_load_begin(&l, f, &o, m, false, &e), &e);
        for (int i = 0; i < stop; i++)
            must(model_load_more(l, 2000, &done, &e), &e);
        feed_one(m, row);
        assert_memory_equal(row, first, sizeof row);
        model_load_cancel(l);
        feed_one(m, row);
        assert_memory_equal(row, first, sizeof row);
    }
    /* the same plan: nothing is read or moved, and either may go first */
    must(model_load_begin(&l, f, &o, m, false, &e), &e);
    must(model_load_more(l, 1, &done, &e), &e);
    assert_true(done);
    must(model_load_end(&next, l, &e), &e);
    assert_int_equal(model_read_bytes(next) + model_moved_bytes(next), 0);
    feed_one(next, row);
    assert_memory_equal(row, first, sizeof row);
    model_destroy(m);
    feed_one(next, row);
    assert_memory_equal(row, first, sizeof row);
    make_shape other = small;
    other.seed = 2;
    size_t n_other;
    char *strange = make_model(&other, &n_other);
    file_model *g;
    must(file_open_memory(&g, strange, n_other, "strange", &e), &e);
    assert_int_equal(model_load_begin(&l, g, &o, next, false, &e), STATUS_INVALID);
    assert_non_null(strstr(e.text, "other epoch"));
    model_options exact = o;
    exact.exact = true;
    assert_int_equal(model_load_begin(&l, f, &exact, next, false, &e), STATUS_INVALID);
    model_destroy(next);
    file_close(g);
    file_close(f);
    base_free(strange);
    base_free(bytes);
}

/* What a change needs beside the running epoch, what it needs when that one pauses, and less than that. */
static void short_of_memory(void **state)
{
    (void)state;
    size_t n;
    char *bytes = make_model(&small, &n);
    model_options o = {.n_threads = 1, .context = 64};
    model *m = run_load_bytes(bytes, n, &o), *next;
    file_model *f;
    model_loading *l;
    err e = {0};
    bool done;
    float first[331], row[331];
    must(file_open_memory(&f, bytes, n, "made", &e), &e);
    feed_one(m, first);
    const model_need *u = model_used(m);
    uint64_t all = u->weight_bytes + u->state_bytes + u->scratch_bytes;
    o.memory_limit = all + all / 100; /* the same plan again: tiles are shared, state is not */
    assert_int_equal(model_load_begin(&l, f, &o, m, false, &e), STATUS_NO_MEMORY);
    assert_non_null(strstr(e.text, "beside another epoch"));
    feed_one(m, row);
    assert_memory_equal(row, first, sizeof row);
    must(model_load_begin(&l, f, &o, m, true, &e), &e);
    must(model_load_more(l, UINT64_MAX, &done, &e), &e);
    must(model_load_end(&next, l, &e), &e);
    model_destroy(m);
    feed_one(next, row);
    assert_memory_equal(row, first, sizeof row);
    o.memory_limit = all / 2;
    assert_int_equal(model_load_begin(&l, f, &o, next, true, &e), STATUS_NO_MEMORY);
    model_destroy(next);
    file_close(f);
    base_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(made_models), cmocka_unit_test(given_up),
                                       cmocka_unit_test(short_of_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
