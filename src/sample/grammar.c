/*
 * Running a grammar. The automaton of a program is nondeterministic and has a stack; its sets of places are made into states of a
 * deterministic one as a text meets them, and kept:
 *
 *   place = (op, stack); stacks are shared: (place to return to, stack below), each once
 *   state = the places that want a byte, and whether the text may end; reached states are remembered by (state, byte)
 *   mask  = for a state, the tokens all of whose bytes have a way: one walk over the vocabulary in sorted order, where a token begins at the
 *           state that its common beginning with the one before has reached; kept by state
 *
 * Inside a string the state stays the same, so a mask is made once for it; a new state costs a walk (about 2 ms for 128k tokens).
 * Everything that is kept has a limit. Beyond it all but the state at hand is forgotten; other guides then go through their own texts again. A
 * state never leads nowhere for want of stack: a branch that could not be finished within the depth is not begun (heights).
 *
 * Deliberately not: a general regular-expression engine; grammars come from schema.c only.
 */
#include "sample/grammar.h"

#include <stdlib.h>
#include <string.h>

enum {
    PLACES_MAX = 2048, /* of one state, closures included */
    SEEN_SLOTS = 8192,
    WORK_MAX = 20000000, /* places looked at for one mask: about half a second */
    STATES_MAX = 4096,
    STACKS_MAX = 1 << 16,
    POOL_MAX = 1 << 18, /* places of all states */
    MASKS_BYTES = 4 << 20,
    DEAD = -1,
    UNKNOWN = -2,
    FULL = -3 /* of the limits above */
};

typedef struct place {
    int32_t op, stack; /* stack −1: empty */
} place;

typedef struct stack_node {
    int32_t op, below; /* return to op with the stack below */
    int32_t depth;
    int32_t chain; /* of the hash */
} stack_node;

typedef struct state {
    int first, n; /* places in the pool */
    bool accepts;
    int32_t chain;
    int32_t *next;  /* [256], NULL until asked */
    uint64_t *mask; /* [words], NULL until asked */
} state;

enum { BUCKETS = 4096 };

struct sample_grammar {
    grammar_program p;
    const sample_tokens *tokens; /* borrowed */
    int32_t *ends, *shown;
    int n_ends, n_shown;
    state *states;
    int n_states;
    place *pool;
    int n_pool;
    stack_node *stacks;
    int n_stacks;
    int32_t state_bucket[BUCKETS], stack_bucket[BUCKETS];
    unsigned generation; /* counts the times all was forgotten */
    size_t mask_bytes;
    int32_t begin;
    /* of a closure */
    place *found;
    int n_found;
    struct {
        place at;
        uint32_t round;
    } * seen; /* [SEEN_SLOTS] open hash of what was found in this round */
    uint32_t round;
    int64_t work_left;
    int32_t *behind; /* walk: state behind every byte of a token */
};

/* ---- the vocabulary ------------------------------------------------------------------------------------------------ */

typedef struct sorted_token {
    str bytes;
    int32_t id;
    int common; /* bytes shared with the one before */
} sorted_token;

struct sample_tokens {
    const text_tokenizer *t;
    int vocabulary, n, longest;
    sorted_token *sorted; /* [n] */
};

static int compare_tokens(const void *a, const void *b)
{
    const sorted_token *x = a, *y = b;
    int c = memcmp(x->bytes.data, y->bytes.data, BASE_MIN(x->bytes.length, y->bytes.length));
    if (c == 0)
        c = (x->bytes.length > y->bytes.length) - (x->bytes.length < y->bytes.length);
    return c ? c : (x->id > y->id) - (x->id < y->id);
}

status sample_tokens_create(sample_tokens **out, const text_tokenizer *t, int vocabulary, err *e)
{
    sample_tokens *s = base_zalloc(1, sizeof *s);
    if (s)
        s->sorted = base_zalloc((size_t)vocabulary, sizeof *s->sorted);
    if (!s || !s->sorted) {
        base_free(s);
        return err_set(e, STATUS_NO_MEMORY, "grammar: no memory for %d tokens", vocabulary);
    }
    s->t = t;
    s->vocabulary = vocabulary;
    for (int32_t id = 0; id < BASE_MIN(vocabulary, text_token_count(t)); id++) {
        str bytes = text_token_bytes(t, id);
        if (bytes.length == 0 || text_token_is_special(t, id))
            continue;
        s->sorted[s->n++] = (sorted_token){bytes, id, 0};
        s->longest = BASE_MAX(s->longest, (int)BASE_MIN(bytes.length, (size_t)INT32_MAX));
    }
    qsort(s->sorted, (size_t)s->n, sizeof *s->sorted, compare_tokens);
    for (int i = 1; i < s->n; i++) {
        str a = s->sorted[i - 1].bytes, b = s->sorted[i].bytes;
        size_t same = 0, most = BASE_MIN(a.length, b.length);
        while (same < most && a.data[same] == b.data[same])
            same++;
        s->sorted[i].common = (int)same;
    }
    *out = s;
    return STATUS_OK;
}

void sample_tokens_destroy(sample_tokens *s)
{
    if (!s)
        return;
    base_free(s->sorted);
    base_free(s);
}

/* ---- forgetting ---------------------------------------------------------------------------------------------------- */

static void forget(sample_grammar *g)
{
    for (int i = 0; i < g->n_states; i++) {
        base_free(g->states[i].next);
        base_free(g->states[i].mask);
    }
    g->n_states = g->n_pool = g->n_stacks = 0;
    g->mask_bytes = 0;
    memset(g->state_bucket, 0xFF, sizeof g->state_bucket);
    memset(g->stack_bucket, 0xFF, sizeof g->stack_bucket);
    g->generation++;
    g->begin = UNKNOWN;
}

/* ---- stacks and states --------------------------------------------------------------------------------------------- */

static int32_t push(sample_grammar *g, int32_t op, int32_t below)
{
    uint64_t h = hash_u64((uint64_t)(uint32_t)op << 32 | (uint32_t)below, 1) % BUCKETS;
    for (int32_t i = g->stack_bucket[h]; i >= 0; i = g->stacks[i].chain)
        if (g->stacks[i].op == op && g->stacks[i].below == below)
            return i;
    if (g->n_stacks == STACKS_MAX)
        return FULL;
    g->stacks[g->n_stacks] =
        (stack_node){op, below, below < 0 ? 1 : g->stacks[below].depth + 1, g->stack_bucket[h]};
    return g->stack_bucket[h] = g->n_stacks++;
}

static int depth_of(const sample_grammar *g, int32_t stack)
{
    return stack < 0 ? 0 : g->stacks[stack].depth;
}

static void begin_closure(sample_grammar *g)
{
    g->n_found = 0;
    if (++g->round == 0) { /* once in 2^32 */
        memset(g->seen, 0, SEEN_SLOTS * sizeof *g->seen);
        g->round = 1;
    }
}

/* Adds a place to the closure, once, unless it could not be finished. false: too many. */
static bool add(sample_grammar *g, int32_t op, int32_t stack)
{
    if (depth_of(g, stack) + g->p.heights[op] > GRAMMAR_DEPTH)
        return true;
    g->work_left--;
    size_t slot = hash_u64((uint64_t)(uint32_t)op << 32 | (uint32_t)stack, 2) % SEEN_SLOTS;
    for (; g->seen[slot].round == g->round; slot = (slot + 1) % SEEN_SLOTS)
        if (g->seen[slot].at.op == op && g->seen[slot].at.stack == stack)
            return true;
    if (g->n_found == PLACES_MAX || g->work_left < 0)
        return false;
    g->seen[slot].at = (place){op, stack};
    g->seen[slot].round = g->round;
    g->found[g->n_found++] = (place){op, stack};
    return true;
}

/* What place i of the closure leads to without a byte. */
static bool expand(sample_grammar *g, int i, bool *accepts)
{
    place at = g->found[i];
    const grammar_op *op = &g->p.ops[at.op];
    int32_t stack;
    switch ((grammar_kind)op->kind) {
    case GRAMMAR_BYTES:
        return true;
    case GRAMMAR_CALL:
        stack = push(g, at.op + 1, at.stack);
        return stack != FULL && add(g, g->p.rules[op->a], stack);
    case GRAMMAR_SPLIT:
        return add(g, (int32_t)op->a, at.stack) && add(g, (int32_t)op->b, at.stack);
    case GRAMMAR_JUMP:
        return add(g, (int32_t)op->a, at.stack);
    case GRAMMAR_RETURN:
        return add(g, g->stacks[at.stack].op, g->stacks[at.stack].below);
    case GRAMMAR_ACCEPT:
        *accepts = true;
        return true;
    }
    return true;
}

static int compare_places(const void *a, const void *b)
{
    const place *x = a, *y = b;
    if (x->op != y->op)
        return (x->op > y->op) - (x->op < y->op);
    return (x->stack > y->stack) - (x->stack < y->stack);
}

/* The state of the places in `found` that want a byte; DEAD when there are none, FULL beyond the limits. */
static int32_t intern(sample_grammar *g, bool accepts)
{
    int n = 0;
    for (int i = 0; i < g->n_found; i++)
        if (g->p.ops[g->found[i].op].kind == GRAMMAR_BYTES)
            g->found[n++] = g->found[i];
    if (n == 0 && !accepts)
        return DEAD;
    qsort(g->found, (size_t)n, sizeof *g->found, compare_places);
    uint64_t h = hash_bytes(g->found, sizeof *g->found * (size_t)n, accepts) % BUCKETS;
    for (int32_t i = g->state_bucket[h]; i >= 0; i = g->states[i].chain) {
        const state *s = &g->states[i];
        if (s->n == n && s->accepts == accepts &&
            memcmp(g->pool + s->first, g->found, sizeof *g->found * (size_t)n) == 0)
            return i;
    }
    if (g->n_states == STATES_MAX || g->n_pool + n > POOL_MAX)
        return FULL;
    memcpy(g->pool + g->n_pool, g->found, sizeof *g->found * (size_t)n);
    g->states[g->n_states] =
        (state){.first = g->n_pool, .n = n, .accepts = accepts, .chain = g->state_bucket[h]};
    g->n_pool += n;
    return g->state_bucket[h] = g->n_states++;
}

/* The same, after the closure of what was found. */
static int32_t settle(sample_grammar *g)
{
    bool accepts = false;
    for (int i = 0; i < g->n_found; i++)
        if (!expand(g, i, &accepts))
            return FULL;
    return intern(g, accepts);
}

static int32_t first_state(sample_grammar *g)
{
    if (g->begin < 0) {
        begin_closure(g);
        g->begin = add(g, g->p.rules[0], -1) ? settle(g) : FULL;
    }
    return g->begin;
}

/* Where a byte leads from a state. */
static int32_t step(sample_grammar *g, int32_t from, unsigned char byte)
{
    state *s = &g->states[from];
    if (s->next && s->next[byte] != UNKNOWN)
        return s->next[byte];
    if (!s->next) {
        s->next = base_alloc(256 * sizeof *s->next);
        for (int i = 0; s->next && i < 256; i++)
            s->next[i] = UNKNOWN;
    }
    begin_closure(g);
    for (int i = 0; i < s->n; i++) {
        place at = g->pool[s->first + i];
        const grammar_class *c = &g->p.classes[g->p.ops[at.op].a];
        if (c->bits[byte / 64] >> byte % 64 & 1 && !add(g, at.op + 1, at.stack))
            return FULL;
    }
    int32_t to = g->n_found ? settle(g) : DEAD;
    if (to != FULL && s->next)
        s->next[byte] = to;
    return to;
}

/* A stack of the old numbers, in the new ones. */
static int32_t push_again(sample_grammar *g, const stack_node *old, int32_t stack)
{
    if (stack < 0)
        return stack;
    int32_t below = push_again(g, old, old[stack].below); /* at most GRAMMAR_DEPTH frames */
    return below == FULL ? FULL : push(g, old[stack].op, below);
}

/* Forgets all but one state; its new number. */
static int32_t forget_but(sample_grammar *g, int32_t at)
{
    int n = g->states[at].n;
    bool good = true;
    place *places = base_alloc(sizeof *places * ((size_t)n + 1));
    stack_node *old = g->stacks, *fresh = base_alloc(sizeof *fresh * STACKS_MAX);
    bool accepts = g->states[at].accepts;
    if (!places || !fresh) {
        base_free(places);
        base_free(fresh);
        return FULL;
    }
    memcpy(places, g->pool + g->states[at].first, sizeof *places * (size_t)n);
    forget(g);
    g->stacks = fresh;
    begin_closure(g);
    for (int i = 0; i < n && good; i++) {
        int32_t stack = push_again(g, old, places[i].stack);
        good = stack != FULL && add(g, places[i].op, stack);
    }
    at = good ? intern(g, accepts) : FULL;
    base_free(places);
    base_free(old);
    return at;
}

/* step and walk, with what is kept when there is room, else with nothing else kept. */
static int32_t step_on(sample_grammar *g, int32_t at, unsigned char byte)
{
    int32_t to = step(g, at, byte);
    if (to != FULL)
        return to;
    at = forget_but(g, at);
    return at < 0 ? at : step(g, at, byte);
}

static int32_t walk_on(sample_grammar *g, int32_t at, str bytes)
{
    for (size_t i = 0; i < bytes.length && at >= 0; i++)
        at = step_on(g, at, (unsigned char)bytes.data[i]);
    return at;
}

/* ---- masks --------------------------------------------------------------------------------------------------------- */

static void allow(uint64_t *mask, int32_t id)
{
    mask[id / 64] |= (uint64_t)1 << id % 64;
}

static int32_t walk(sample_grammar *g, int32_t at, str bytes)
{
    for (size_t i = 0; i < bytes.length && at >= 0; i++)
        at = step(g, at, (unsigned char)bytes.data[i]);
    return at;
}

/* Sets the bits of all tokens that may come in this state. false: FULL. */
static bool fill_mask(sample_grammar *g, int32_t from, uint64_t *mask)
{
    const sample_tokens *t = g->tokens;
    int32_t *at = g->behind;
    int dead = INT32_MAX; /* bytes of the token before that had no way */
    at[0] = from;
    for (int i = 0; i < t->n; i++) {
        const sorted_token *one = &t->sorted[i];
        if (one->common >= dead)
            continue;
        dead = INT32_MAX;
        for (int k = one->common; k < (int)one->bytes.length; k++) {
            at[k + 1] = step(g, at[k], (unsigned char)one->bytes.data[k]);
            if (at[k + 1] == FULL)
                return false;
            if (at[k + 1] == DEAD) {
                dead = k + 1;
                break;
            }
        }
        if (dead == INT32_MAX)
            allow(mask, one->id);
    }
    for (int i = 0; i < g->n_shown; i++) {
        int32_t to = walk(g, from, text_token_piece(t->t, g->shown[i]));
        if (to == FULL)
            return false;
        if (to >= 0)
            allow(mask, g->shown[i]);
    }
    for (int i = 0; i < g->n_ends; i++) {
        mask[g->ends[i] / 64] &= ~((uint64_t)1 << g->ends[i] % 64);
        if (g->states[from].accepts)
            allow(mask, g->ends[i]);
    }
    return true;
}

/* ---- grammars ------------------------------------------------------------------------------------------------------ */

status sample_grammar_check(str spec, err *e)
{
    grammar_program p = {0};
    status s = grammar_compile(&p, spec, e);
    grammar_program_fini(&p);
    return s;
}

static bool copy_ids(int32_t **out, int *n_out, const int32_t *ids, int n, int vocabulary)
{
    *out = base_zalloc((size_t)n + 1, sizeof **out);
    for (int i = 0; *out && i < n; i++)
        if (ids[i] >= 0 && ids[i] < vocabulary)
            (*out)[(*n_out)++] = ids[i];
    return *out != NULL;
}

status sample_grammar_create(sample_grammar **out, str spec, const sample_tokens *t,
                             const int32_t *ends, int n_ends, const int32_t *shown, int n_shown,
                             err *e)
{
    sample_grammar *g = base_zalloc(1, sizeof *g);
    if (!g)
        return err_set(e, STATUS_NO_MEMORY, "grammar: no memory");
    status s = grammar_compile(&g->p, spec, e);
    if (s == STATUS_OK) {
        g->tokens = t;
        g->states = base_alloc(sizeof *g->states * STATES_MAX);
        g->pool = base_alloc(sizeof *g->pool * POOL_MAX);
        g->stacks = base_alloc(sizeof *g->stacks * STACKS_MAX);
        g->found = base_alloc(sizeof *g->found * PLACES_MAX);
        g->seen = base_zalloc(SEEN_SLOTS, sizeof *g->seen);
        g->behind = base_alloc(sizeof *g->behind * ((size_t)t->longest + 1));
        bool good = copy_ids(&g->ends, &g->n_ends, ends, n_ends, t->vocabulary) &&
                    copy_ids(&g->shown, &g->n_shown, shown, n_shown, t->vocabulary);
        if (!good || !g->states || !g->pool || !g->stacks || !g->found || !g->behind || !g->seen)
            s = err_set(e, STATUS_NO_MEMORY, "grammar: no memory for its states");
    }
    forget(g);
    g->work_left = WORK_MAX;
    if (s == STATUS_OK && first_state(g) < 0)
        s = err_set(e, STATUS_INVALID, "grammar: too many ways to begin a text");
    if (s != STATUS_OK) {
        sample_grammar_destroy(g);
        return s;
    }
    *out = g;
    return STATUS_OK;
}

void sample_grammar_destroy(sample_grammar *g)
{
    if (!g)
        return;
    forget(g);
    grammar_program_fini(&g->p);
    base_free(g->ends);
    base_free(g->shown);
    base_free(g->states);
    base_free(g->pool);
    base_free(g->stacks);
    base_free(g->found);
    base_free(g->behind);
    base_free(g->seen);
    base_free(g);
}

/* ---- guides -------------------------------------------------------------------------------------------------------- */

struct sample_guide {
    sample_grammar *g; /* borrowed */
    unsigned generation;
    int32_t at;
    sb text; /* all of it, for when states were forgotten */
};

status sample_guide_create(sample_guide **out, sample_grammar *g, err *e)
{
    sample_guide *d = base_zalloc(1, sizeof *d);
    if (!d)
        return err_set(e, STATUS_NO_MEMORY, "grammar: no memory");
    d->g = g;
    d->generation = g->generation;
    g->work_left = WORK_MAX;
    d->at = first_state(g);
    sb_init(&d->text);
    *out = d;
    return STATUS_OK;
}

void sample_guide_destroy(sample_guide *d)
{
    if (!d)
        return;
    sb_fini(&d->text);
    base_free(d);
}

/* The state behind the whole text, in today's numbers. */
static int32_t find_state(sample_guide *d)
{
    if (d->generation != d->g->generation) {
        d->at = first_state(d->g);
        if (d->at >= 0)
            d->at = walk_on(d->g, d->at, (str){d->text.data ? d->text.data : "", d->text.length});
        d->generation = d->g->generation;
    }
    return d->at;
}

static status too_many(err *e)
{
    return err_set(e, STATUS_TOO_LARGE, "grammar: the schema leaves too many ways open at once");
}

/* Its mask, made now. */
static status make_mask(sample_grammar *g, int32_t at, size_t bytes, err *e)
{
    uint64_t *mask = base_zalloc(bytes, 1);
    if (!mask)
        return err_set(e, STATUS_NO_MEMORY, "grammar: no memory for a mask");
    if (!fill_mask(g, at, mask)) {
        base_free(mask);
        return STATUS_TOO_LARGE;
    }
    g->states[at].mask = mask;
    g->mask_bytes += bytes;
    return STATUS_OK;
}

status sample_guide_mask(sample_guide *d, const uint64_t **out, err *e)
{
    sample_grammar *g = d->g;
    size_t bytes = (size_t)(g->tokens->vocabulary + 63) / 64 * sizeof(uint64_t);
    g->work_left = WORK_MAX;
    int32_t at = find_state(d);
    if (at == DEAD)
        return err_set(e, STATUS_INTERNAL, "grammar: the text has left it");
    for (int attempt = 0; attempt < 2 && at >= 0 && !g->states[at].mask; attempt++) {
        status s = STATUS_TOO_LARGE;
        if (attempt > 0 || g->mask_bytes == 0 || g->mask_bytes + bytes <= MASKS_BYTES)
            s = make_mask(g, at, bytes, e);
        if (s == STATUS_NO_MEMORY)
            return s;
        if (s != STATUS_OK)
            at = forget_but(g, at);
        d->at = at;
        d->generation = g->generation;
    }
    if (at < 0 || !g->states[at].mask)
        return too_many(e);
    *out = g->states[at].mask;
    return STATUS_OK;
}

status sample_guide_accept(sample_guide *d, int32_t token, err *e)
{
    const text_tokenizer *t = d->g->tokens->t;
    str bytes =
        text_token_is_special(t, token) ? text_token_piece(t, token) : text_token_bytes(t, token);
    d->g->work_left = WORK_MAX;
    int32_t at = find_state(d);
    sb_add(&d->text, bytes.data, bytes.length);
    if (d->text.failed)
        return err_set(e, STATUS_NO_MEMORY, "grammar: no memory for the text");
    d->at = walk_on(d->g, at, bytes);
    d->generation = d->g->generation;
    if (d->at == FULL)
        return too_many(e);
    if (d->at == DEAD)
        return err_set(e, STATUS_INTERNAL, "grammar: token %d has no place here", (int)token);
    return STATUS_OK;
}

sample_mark sample_guide_mark(const sample_guide *d)
{
    return (sample_mark){d->generation, d->at, d->text.length};
}

void sample_guide_back(sample_guide *d, sample_mark to)
{
    d->generation = to.generation;
    d->at = to.at;
    d->text.length = to.length;
    if (d->text.data)
        d->text.data[to.length] = '\0';
}

bool sample_guide_is_over(sample_guide *d)
{
    int32_t at = find_state(d);
    return at >= 0 && d->g->states[at].accepts && d->g->states[at].n == 0;
}

bool sample_guide_may_end(sample_guide *d)
{
    int32_t at = find_state(d);
    return at >= 0 && d->g->states[at].accepts;
}
