/*
 * The decoder that Llama and its kin share, as ops. What a layer has is read off the weight table: a bias, a head norm or a post norm is
 * there when its weight is.
 *
 * Residuals are added by the norm that follows them, so a layer is seven dispatches: q/k/v, keys, attention, o, norm, gate and up, down,
 * and the norm that begins the next layer.
 */
#include "model/family.h"

typedef struct stream {
    bool last; /* behind the last keys: only rows of wanted outputs matter from here on */
    int x;     /* the residual stream, F32 [T, D] */
    int add;   /* what the next norm adds to it, or −1 */
    device_ref bias, add_norm;
    int rotary[MODEL_MAX_ROTARIES];
} stream;

static device_ref place(const model_builder *b, int64_t layer, weight_id id)
{
    const model_weight *w = weights_get(b->weights, layer, id);
    return w->row == NULL ? DEVICE_NOWHERE : w->device.at;
}

static const device_weight *matrix(const model_builder *b, int64_t layer, weight_id id)
{
    return &weights_get(b->weights, layer, id)->device;
}

static device_weight table(const model_builder *b, weight_id id)
{
    const model_weight *w = weights_get(b->weights, 0, id);
    return w->row == NULL ? (device_weight){0} : w->device;
}

static void begin(model_builder *b, stream *s)
{
    const model_config *c = b->config;
    s->x = graph_value(b->g, DEVICE_F32, c->D, false);
    s->add = -1;
    device_op op = {.kind = DEVICE_OP_BEGIN, .layer = -1};
    b->received = b->share->first ? -1 : s->x;
    op.u.begin.x = b->share->first ? s->x : -1;
    op.u.begin.received = b->received;
    if (b->share->first)
        op.u.begin.embedding = *matrix(b, 0, W_EMBEDDING);
    op.u.begin.positions = table(b, W_POSITIONS);
    op.u.begin.types = table(b, W_TYPES);
    bool shared = weights_embedding_is_cut(b->weights, b->share);
    op.u.begin.shared = shared;
    op.u.begin.partial = shared ? graph_value(b->g, DEVICE_F64, c->D, false) : -1;
    op.u.begin.first_row = shared ? b->share->vocab_begin : 0;
    op.u.begin.scale = (float)c->embedding_scale;
    for (int i = 0; i < MODEL_MAX_ROTARIES; i++) {
        s->rotary[i] =
            i < c->n_ropes ? graph_value(b->g, DEVICE_ROTARY, c->rope[i].width, false) : -1;
        op.u.begin.rotary[i] = s->rotary[i];
        op.u.begin.frequencies[i] = b->frequencies[i];
        op.u.begin.rotary_scale[i] = b->rotary_factor[i];
    }
    graph_add(b->g, &op);
    if (!shared)
        return;
    device_op sum = {.kind = DEVICE_OP_SUM, .layer = -1};
    sum.u.sum.value = s->add = op.u.begin.partial;
    s->bias = s->add_norm = DEVICE_NOWHERE;
    graph_add(b->g, &sum);
}

/* Adds what is pending to x and norms it: into a value of that format. */
static int norm_to(model_builder *b, stream *s, int64_t layer, weight_id id, device_format format)
{
    int out = graph_value(b->g, format, b->config->D, s->last);
    device_op op = {.kind = DEVICE_OP_NORM, .layer = (int)layer};
    op.u.norm.x = s->x;
    op.u.norm.add = s->add;
    op.u.norm.bias = s->add < 0 ? DEVICE_NOWHERE : s->bias;
    op.u.norm.add_norm = s->add < 0 ? DEVICE_NOWHERE : s->add_norm;
    op.u.norm.norm = place(b, layer, id);
    op.u.norm.layer = op.u.norm.replace = b->config->both_ways;
    op.u.norm.norm_bias =
        b->config->both_ways ? place(b, layer, (weight_id)(id + 1)) : DEVICE_NOWHERE;
    op.u.norm.eps = (float)b->config->eps;
    op.u.norm.out = out;
    graph_add(b->g, &op);
    s->add = -1;
    return out;
}

static int norm(model_builder *b, stream *s, int64_t layer, weight_id id)
{
    return norm_to(b, s, layer, id, DEVICE_INPUT);
}

/* The partial sum of a rank that has no columns of the matrix. */
static int nothing(model_builder *b, const stream *s, int64_t layer)
{
    device_op op = {.kind = DEVICE_OP_ZERO, .layer = (int)layer};
    op.u.zero.value = graph_value(b->g, DEVICE_F64, b->config->D, s->last);
    graph_add(b->g, &op);
    return op.u.zero.value;
}

/* A product whose columns ranks may cut (columns: of the whole matrix); leaves the sum as pending. */
static void row_cut(model_builder *b, stream *s, int64_t layer, weight_id id, weight_id bias,
                    weight_id post_norm, int input, int64_t columns, int64_t head)
{
    const model_weight *w = weights_get(b->weights, layer, id);
    bool shared = b->share->tensor_ranks > 1;
    device_op op = {.kind = DEVICE_OP_PRODUCT, .layer = (int)layer};
    op.u.product.input = input;
    op.u.product.n_parts = 1;
    op.u.product.weight[0] = w->device;
    op.u.product.bias[0] = DEVICE_NOWHERE;
    op.u.product.leaf = kernel_leaf(columns, head);
    if (w->row == NULL) {
        s->add = nothing(b, s, layer);
    } else {
        s->add = op.u.product.out[0] =
            graph_value(b->g, shared ? DEVICE_F64 : DEVICE_F32, w->device.rows, s->last);
        graph_add(b->g, &op);
    }
    if (shared) {
        device_op sum = {.kind = DEVICE_OP_SUM, .layer = (int)layer};
        sum.u.sum.value = s->add;
        graph_add(b->g, &sum);
    }
    s->bias = bias == W_IDS ? DEVICE_NOWHERE : place(b, layer, bias);
    s->add_norm = post_norm == W_IDS ? DEVICE_NOWHERE : place(b, layer, post_norm);
}

/* input: the normed stream. post_norm: of what comes out, W_IDS = none. */
static void attention(model_builder *b, stream *s, int64_t layer, int input, weight_id post_norm)
{
    const model_config *c = b->config;
    int rope = c->windowed[layer] && c->n_ropes > 1 ? 1 : 0;
    const model_pool *pool = &b->pools[b->class_of[layer]];
    device_cache cache = {
        .at = pool->at,
        .page_bytes = pool->info.page_bytes,
        .layer_offset = pool->layer_bytes * (uint64_t)b->index_in[layer],
        .state_class = b->class_of[layer],
    };
    const model_share *share = b->share;
    int64_t n_heads = share->head_end - share->head_begin, n_kv = share->kv_end - share->kv_begin;
    if (n_heads == 0) {
        for (int i = 0; i < 3; i++)
            graph_need(b->g, input, matrix(b, layer, W_Q + i)->type);
        s->last = layer == c->L - 1;
        row_cut(b, s, layer, W_O, W_O_BIAS, post_norm, -1, c->H * c->dh, c->dh);
        return;
    }

    device_op qkv = {.kind = DEVICE_OP_PRODUCT, .layer = (int)layer};
    qkv.u.product.input = input;
    qkv.u.product.n_parts = 3;
    for (int i = 0; i < 3; i++) {
        qkv.u.product.weight[i] = *matrix(b, layer, W_Q + i);
        qkv.u.product.bias[i] = place(b, layer, W_Q_BIAS + i);
        qkv.u.product.out[i] = graph_value(b->g, DEVICE_F32, qkv.u.product.weight[i].rows, false);
    }
    graph_add(b->g, &qkv);

    device_op keys = {.kind = DEVICE_OP_KEYS, .layer = (int)layer};
    keys.u.keys.q = qkv.u.product.out[0];
    keys.u.keys.k = qkv.u.product.out[1];
    keys.u.keys.v = qkv.u.product.out[2];
    keys.u.keys.q_norm = place(b, layer, W_Q_NORM);
    keys.u.keys.k_norm = place(b, layer, W_K_NORM);
    keys.u.keys.eps = (float)c->eps;
    keys.u.keys.rotary = s->rotary[rope];
    keys.u.keys.neighbours = c->neighbours;
    keys.u.keys.n_heads = n_heads;
    keys.u.keys.n_kv_heads = n_kv;
    keys.u.keys.head_dim = c->dh;
    keys.u.keys.cache = cache;
    graph_add(b->g, &keys);

    device_op op = {.kind = DEVICE_OP_ATTENTION, .layer = (int)layer};
    op.u.attention.q = qkv.u.product.out[0];
    s->last = layer == c->L - 1;
    op.u.attention.out = graph_value(b->g, DEVICE_INPUT, n_heads * c->dh, s->last);
    op.u.attention.n_heads = n_heads;
    op.u.attention.n_kv_heads = n_kv;
    op.u.attention.group = c->H / c->G;
    op.u.attention.group_skip = share->head_begin - share->kv_begin * (c->H / c->G);
    op.u.attention.head_dim = c->dh;
    op.u.attention.scale = (float)c->attention_scale;
    op.u.attention.window = c->windowed[layer] ? c->window : 0;
    op.u.attention.both_ways = c->both_ways;
    op.u.attention.sinks = DEVICE_NOWHERE;
    op.u.attention.cache = cache;
    graph_add(b->g, &op);
    row_cut(b, s, layer, W_O, W_O_BIAS, post_norm, op.u.attention.out, c->H * c->dh, c->dh);
}

static void feed_forward(model_builder *b, stream *s, int64_t layer, int input, weight_id post_norm)
{
    const model_config *c = b->config;
    device_op op = {.kind = DEVICE_OP_GATED, .layer = (int)layer};
    op.u.gated.input = input;
    int64_t width = b->share->ffn_end - b->share->ffn_begin;
    if (width == 0) {
        graph_need(b->g, input, matrix(b, layer, W_GATE)->type);
        graph_need(b->g, input, matrix(b, layer, W_UP)->type);
        row_cut(b, s, layer, W_DOWN, W_DOWN_BIAS, post_norm, -1, c->F, 0);
        return;
    }
    op.u.gated.gate = *matrix(b, layer, W_GATE);
    op.u.gated.up = *matrix(b, layer, W_UP);
    op.u.gated.function = c->gate;
    op.u.gated.out = graph_value(b->g, DEVICE_INPUT, width, s->last);
    /* What reads it decides its form, and is added after it: see graph_add. */
    graph_add(b->g, &op);
    row_cut(b, s, layer, W_DOWN, W_DOWN_BIAS, post_norm, op.u.gated.out, c->F, 0);
}

/* The tests' layer of constant-size state: adds a decaying sum of the residual stream to it. */
static void decay(model_builder *b, stream *s, int64_t layer)
{
    norm(b, s, layer, W_ATTENTION_NORM); /* for its residual add */
    const model_pool *pool = &b->pools[b->decay_class];
    device_op op = {.kind = DEVICE_OP_DECAY, .layer = (int)layer};
    op.u.decay.x = s->x;
    op.u.decay.out = graph_value(b->g, DEVICE_F32, b->config->D, false);
    op.u.decay.decay = place(b, layer, W_DECAY);
    op.u.decay.state = pool->at;
    op.u.decay.slot_bytes = pool->info.page_bytes;
    op.u.decay.offset = pool->layer_bytes * (uint64_t)b->decay_index[layer];
    op.u.decay.state_class = b->decay_class;
    graph_add(b->g, &op);
    s->add = op.u.decay.out;
    s->bias = s->add_norm = DEVICE_NOWHERE;
}

/* The stage ends with its residual stream complete: what is pending is added by a norm whose result nobody reads. */
static void hand_over(model_builder *b, stream *s)
{
    norm(b, s, b->share->layer_end - 1, W_ATTENTION_NORM);
    b->sent = s->x;
}

static void head(model_builder *b, stream *s)
{
    if (b->config->pooling != MODEL_POOLING_NONE) {
        b->logits = norm_to(b, s, 0, W_OUTPUT_NORM, DEVICE_F32);
        return;
    }
    const model_weight *output = weights_get(b->weights, 0, W_OUTPUT);
    const model_share *share = b->share;
    if (share->vocab_begin == share->vocab_end) {
        bool tied = output->tensor == NULL;
        graph_need(b->g, norm(b, s, 0, W_OUTPUT_NORM),
                   matrix(b, 0, tied ? W_EMBEDDING : W_OUTPUT)->type);
        return;
    }
    device_op op = {.kind = DEVICE_OP_PRODUCT, .layer = -1};
    op.u.product.input = norm(b, s, 0, W_OUTPUT_NORM);
    op.u.product.n_parts = 1;
    op.u.product.weight[0] = output->row != NULL ? output->device : *matrix(b, 0, W_EMBEDDING);
    int64_t rows = share->vocab_end - share->vocab_begin;
    device_weight *w = &op.u.product.weight[0];
    if (w->rows != rows) { /* a tied matrix that is held whole: our strips of it */
        w->at.offset += b->device->ops->row_offset(b->device, w, share->vocab_begin);
        w->rows = rows;
    }
    op.u.product.bias[0] = DEVICE_NOWHERE;
    op.u.product.out[0] = graph_value(b->g, DEVICE_F32, rows, true);
    graph_add(b->g, &op);
    b->logits = op.u.product.out[0];
}

status model_build_decoder(model_builder *b, err *e)
{
    (void)e; /* the graph keeps the first error */
    stream s = {0};
    begin(b, &s);
    b->logits = b->sent = -1;
    for (int64_t layer = b->share->layer_begin; layer < b->share->layer_end; layer++) {
        if (b->config->decay[layer])
            decay(b, &s, layer);
        attention(b, &s, layer, norm(b, &s, layer, W_ATTENTION_NORM), W_ATTENTION_POST_NORM);
        feed_forward(b, &s, layer, norm(b, &s, layer, W_FFN_NORM), W_FFN_POST_NORM);
    }
    if (b->share->last)
        head(b, &s);
    else
        hand_over(b, &s);
    return STATUS_OK;
}

/* ---- encoders ------------------------------------------------------------------------------------------------------ */

/* down(gelu(up·x + b)). */
static void plain_feed_forward(model_builder *b, stream *s, int64_t layer, int input)
{
    const model_config *c = b->config;
    int64_t width = b->share->ffn_end - b->share->ffn_begin;
    if (width == 0) {
        graph_need(b->g, input, matrix(b, layer, W_UP)->type);
        row_cut(b, s, layer, W_DOWN, W_DOWN_BIAS, W_IDS, -1, c->F, 0);
        return;
    }
    device_op up = {.kind = DEVICE_OP_PRODUCT, .layer = (int)layer};
    up.u.product.input = input;
    up.u.product.n_parts = 1;
    up.u.product.weight[0] = *matrix(b, layer, W_UP);
    up.u.product.bias[0] = place(b, layer, W_UP_BIAS);
    up.u.product.out[0] = graph_value(b->g, DEVICE_F32, width, s->last);
    graph_add(b->g, &up);
    device_op gelu = {.kind = DEVICE_OP_GELU, .layer = (int)layer};
    gelu.u.gelu.x = up.u.product.out[0];
    gelu.u.gelu.out = graph_value(b->g, DEVICE_INPUT, width, s->last);
    graph_add(b->g, &gelu);
    row_cut(b, s, layer, W_DOWN, W_DOWN_BIAS, W_IDS, gelu.u.gelu.out, c->F, 0);
}

status model_build_encoder(model_builder *b, err *e)
{
    const model_share *share = b->share;
    if (!share->first || !share->last)
        return err_set(e, STATUS_UNSUPPORTED, "encoders are not cut into stages of layers");
    stream s = {0};
    begin(b, &s);
    b->sent = -1;
    int x = norm(b, &s, 0, W_EMBEDDING_NORM);
    for (int64_t layer = 0; layer < b->config->L; layer++) {
        attention(b, &s, layer, x, W_IDS);
        x = norm(b, &s, layer, W_ATTENTION_POST_NORM);
        if (weights_get(b->weights, layer, W_UP_BIAS)->row != NULL)
            plain_feed_forward(b, &s, layer, x);
        else
            feed_forward(b, &s, layer, x, W_IDS);
        x = norm_to(b, &s, layer, W_FFN_POST_NORM, s.last ? DEVICE_F32 : DEVICE_INPUT);
    }
    b->logits = x;
    return STATUS_OK;
}
