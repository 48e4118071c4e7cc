/*
 * Keys and attention of the `cpu` device. Work is cut into (run, block of tokens, K/V head): a piece reads one K/V head's pages once for
 * all of its query heads and tokens, and, where the heads of a group fill whole blocks of 32 columns, quantises its own output.
 *
 * The exact class (reference/1) keeps f32 keys and values in pages of its own layout, with the plainest possible attention beside it: the
 * slow reference of the fast path.
 */
#include "graph/cpu.h"
#include "kernel/scalar.h"

#include <string.h>

enum { TOKEN_BLOCK = 16 };

uint64_t cpu_cache_bytes(const cpu_device *d, int64_t n_kv_heads, int64_t head_dim)
{
    if (head_dim <= 0 || head_dim % 8 != 0 || head_dim > KERNEL_HEAD_MAX || n_kv_heads < 0)
        return 0;
    if (d->exact)
        return (uint64_t)n_kv_heads * 2 * KERNEL_RANGE * (uint64_t)head_dim * sizeof(float);
    return kernel_page_bytes(d->kv, n_kv_heads, head_dim, head_dim);
}

static char *page_at(const cpu_device *d, const device_cache *c, int32_t page)
{
    return page < 0 ? NULL
                    : (char *)cpu_at(d, c->at) + (uint64_t)page * c->page_bytes + c->layer_offset;
}

/* ---- keys ---------------------------------------------------------------------------------------------------------- */

static void norm_heads(const cpu_task *t, float *x, device_ref norm, int64_t n_heads)
{
    int64_t dh = t->op->u.keys.head_dim;
    const float *w = cpu_at(t->d, norm);
    for (int64_t h = 0; w != NULL && h < n_heads; h++)
        t->d->kernels->rms_norm(x + h * dh, x + h * dh, w, dh, t->op->u.keys.eps);
}

static void rotate(const cpu_task *t, float *x, int64_t n_heads, int64_t row)
{
    int v = t->op->u.keys.rotary;
    if (v < 0)
        return;
    int rotary = (int)cpu_value(t, v)->width;
    const float *cosines = cpu_row(t, v, row);
    t->d->kernels->rope(x, n_heads, (int)t->op->u.keys.head_dim, rotary, cosines,
                        cosines + rotary / 2,
                        t->op->u.keys.neighbours ? KERNEL_ROPE_NEIGHBOURS : KERNEL_ROPE_HALVES);
}

static void keys_task(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const cpu_task *t = context;
    const device_cache *cache = &t->op->u.keys.cache;
    int64_t n_kv = t->op->u.keys.n_kv_heads, dh = t->op->u.keys.head_dim;
    for (int64_t row = begin; row < end; row++) {
        float *q = cpu_row(t, t->op->u.keys.q, row), *k = cpu_row(t, t->op->u.keys.k, row);
        const float *v = cpu_row(t, t->op->u.keys.v, row);
        norm_heads(t, q, t->op->u.keys.q_norm, t->op->u.keys.n_heads);
        norm_heads(t, k, t->op->u.keys.k_norm, n_kv);
        rotate(t, q, t->op->u.keys.n_heads, row);
        rotate(t, k, n_kv, row);
        const device_run *run = &t->step->runs[t->step->run_of[row]];
        int64_t position = t->step->positions[row];
        int32_t page = t->step->pages[run->pages[cache->state_class] + position / KERNEL_RANGE];
        char *to = page_at(t->d, cache, page);
        int slot = (int)(position % KERNEL_RANGE);
        if (t->d->exact)
            cpu_exact_store((float *)to, slot, k, v, n_kv, dh);
        else if (t->d->kv == KERNEL_KV_Q8_0)
            t->d->kernels->kv_store_q8(to, slot, k, v, (int)n_kv, (int)dh, (int)dh);
        else
            t->d->kernels->kv_store(to, slot, k, v, (int)n_kv, (int)dh, (int)dh);
    }
}

void cpu_run_keys(cpu_task *t)
{
    cpu_dispatch(t, keys_task, t->step->n_tokens, 4);
}

/* ---- attention ----------------------------------------------------------------------------------------------------- */

/* Whether the heads of one group fill whole blocks of 32 columns. */
static bool groups_are_blocks(const cpu_task *t)
{
    int64_t dh = t->op->u.attention.head_dim;
    return t->op->u.attention.group * dh % KERNEL_UNIT == 0 &&
           t->op->u.attention.group_skip * dh % KERNEL_UNIT == 0 &&
           t->op->u.attention.n_heads * dh % KERNEL_UNIT == 0;
}

/* n_tokens of a run from its token `first` on, one K/V head; to rows of the output from `to` on. */
static void attend(const cpu_task *t, const device_run *run, int32_t first, int32_t n_tokens,
                   int64_t to, int64_t kv_head)
{
    const device_value *out = cpu_value(t, t->op->u.attention.out);
    /* Of the K/V head's query heads those that this rank holds: the first and the last group may be partly others'. */
    int64_t dh = t->op->u.attention.head_dim, row = run->first + first;
    int64_t head = kv_head * t->op->u.attention.group - t->op->u.attention.group_skip;
    int64_t head_end = BASE_MIN(head + t->op->u.attention.group, t->op->u.attention.n_heads);
    head = BASE_MAX(head, 0);
    int64_t n_heads = head_end - head, column = head * dh;
    const float *sinks = cpu_at(t->d, t->op->u.attention.sinks);
    kernel_attention a = {
        .dst = cpu_input_f32(t, out, to) + column,
        .q = cpu_row(t, t->op->u.attention.q, row) + column,
        .dst_stride = cpu_padded(out->width),
        .q_stride = out->width,
        .n_tokens = n_tokens,
        .position = run->position + first,
        .n_heads = (int)n_heads,
        .n_kv_heads = (int)t->op->u.attention.n_kv_heads,
        .kv_head = (int)kv_head,
        .key_width = (int)dh,
        .value_width = (int)dh,
        .window = t->op->u.attention.window > 0 ? t->op->u.attention.window : INT64_MAX,
        .scale = t->op->u.attention.scale,
        .sinks = sinks == NULL ? NULL : sinks + head,
        .pages = t->p->pages + run->pages[t->op->u.attention.cache.state_class],
        .end = t->op->u.attention.both_ways ? run->position + run->n_tokens : 0,
    };
    if (t->d->exact)
        cpu_exact_attention(&a);
    else if (t->d->kv == KERNEL_KV_Q8_0)
        t->d->kernels->attention_q8(&a);
    else
        t->d->kernels->attention(&a);
    if (!(out->needs & DEVICE_NEEDS_Q8) || !groups_are_blocks(t))
        return;
    for (int32_t i = 0; i < n_tokens; i++)
        t->d->kernels->quantise(cpu_input_q8(t, out, to + i) + column / KERNEL_UNIT,
                                cpu_input_f32(t, out, to + i) + column, n_heads * dh);
}

/* Pieces are numbered (block of some run's tokens, K/V head). The run is found by counting: there are few. */
static void attention_task(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const cpu_task *t = context;
    int64_t heads = t->op->u.attention.n_kv_heads;
    int64_t first = 0; /* piece of the run's first block */
    for (int32_t r = 0; r < t->step->n_runs && first < end; r++) {
        const device_run *run = &t->step->runs[r];
        int64_t pieces = (run->n_tokens + TOKEN_BLOCK - 1) / TOKEN_BLOCK * heads;
        for (int64_t i = BASE_MAX(begin, first); i < BASE_MIN(end, first + pieces); i++) {
            int32_t token = (int32_t)((i - first) / heads) * TOKEN_BLOCK;
            attend(t, run, token, BASE_MIN(run->n_tokens - token, TOKEN_BLOCK), run->first + token,
                   (i - first) % heads);
        }
        first += pieces;
    }
}

/* The last layer looks at wanted rows only. Pieces are numbered (output, K/V head). */
static void outputs_task(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const cpu_task *t = context;
    int64_t heads = t->op->u.attention.n_kv_heads;
    for (int64_t i = begin; i < end; i++) {
        int32_t row = t->step->outputs[i / heads];
        const device_run *run = &t->step->runs[t->step->run_of[row]];
        attend(t, run, row - run->first, 1, i / heads, i % heads);
    }
}

static void finish_task(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const cpu_task *t = context;
    const device_value *out = cpu_value(t, t->op->u.attention.out);
    int64_t padded = cpu_padded(out->width);
    for (int64_t row = begin; row < end; row++) {
        float *x = cpu_input_f32(t, out, row);
        memset(x + out->width, 0, (size_t)(padded - out->width) * sizeof(float));
        if (out->needs & DEVICE_NEEDS_Q8)
            t->d->kernels->quantise(cpu_input_q8(t, out, row), x, padded);
    }
}

void cpu_run_attention(cpu_task *t)
{
    const device_cache *cache = &t->op->u.attention.cache;
    int64_t pieces = 0;
    for (int32_t r = 0; r < t->step->n_runs; r++)
        pieces += (t->step->runs[r].n_tokens + TOKEN_BLOCK - 1) / TOKEN_BLOCK *
                  t->op->u.attention.n_kv_heads;
    for (int32_t i = 0; i < t->step->n_pages; i++) /* other classes' entries are not used here */
        t->p->pages[i] = page_at(t->d, cache, t->step->pages[i]);
    const device_value *out = cpu_value(t, t->op->u.attention.out);
    if (out->outputs_only)
        cpu_dispatch(t, outputs_task, t->rows * t->op->u.attention.n_kv_heads, 1);
    else
        cpu_dispatch(t, attention_task, pieces, 1);
    if (!groups_are_blocks(t) || out->width % KERNEL_UNIT != 0)
        cpu_dispatch(t, finish_task, t->rows, 4);
}

/* ---- the exact class ----------------------------------------------------------------------------------------------- */

void cpu_exact_store(float *page, int slot, const float *k, const float *v, int64_t n_kv_heads,
                     int64_t head_dim)
{
    size_t bytes = (size_t)head_dim * sizeof(float);
    for (int64_t h = 0; h < n_kv_heads; h++) {
        float *keys = page + h * 2 * KERNEL_RANGE * head_dim,
              *values = keys + KERNEL_RANGE * head_dim;
        memcpy(keys + slot * head_dim, k + h * head_dim, bytes);
        memcpy(values + slot * head_dim, v + h * head_dim, bytes);
    }
}

typedef struct exact_state {
    float max, sum;
    float out[KERNEL_HEAD_MAX];
} exact_state;

/* Takes one key into the running softmax, by position: no ranges, no blocks. */
static void exact_key(exact_state *s, float score, const float *value, int64_t width)
{
    float max = BASE_MAX(s->max, score);
    float before = s->sum == 0.0f ? 0.0f : kernel_expf(s->max - max),
          now = kernel_expf(score - max);
    s->sum = s->sum * before + now;
    s->max = max;
    for (int64_t i = 0; i < width; i++)
        s->out[i] = s->out[i] * before + now * (value == NULL ? 0.0f : value[i]);
}

static void exact_query(const kernel_attention *a, int64_t token, int head)
{
    const float *q = a->q + token * a->q_stride + (int64_t)head * a->key_width;
    int64_t position = a->end > 0 ? a->end - 1 : a->position + token, dh = a->key_width;
    int64_t begin = a->window > position ? 0 : position - a->window + 1;
    exact_state s = {.max = a->sinks != NULL ? a->sinks[head] : -3e38f};
    if (a->sinks != NULL)
        exact_key(&s, a->sinks[head], NULL, dh);
    for (int64_t p = begin; p <= position; p++) {
        const float *page = a->pages[p / KERNEL_RANGE];
        const float *keys = page + (int64_t)a->kv_head * 2 * KERNEL_RANGE * dh;
        const float *key = keys + p % KERNEL_RANGE * dh, *value = key + KERNEL_RANGE * dh;
        double dot = 0.0;
        for (int64_t i = 0; i < dh; i++)
            dot += (double)q[i] * (double)key[i];
        exact_key(&s, (float)dot * a->scale, value, dh);
    }
    float *dst = a->dst + token * a->dst_stride + (int64_t)head * a->value_width;
    float r = kernel_recipf(s.sum);
    for (int64_t i = 0; i < dh; i++)
        dst[i] = s.out[i] * r;
}

void cpu_exact_attention(const kernel_attention *a)
{
    for (int64_t token = 0; token < a->n_tokens; token++)
        for (int head = 0; head < a->n_heads; head++)
            exact_query(a, token, head);
}
