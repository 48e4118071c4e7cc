/*
 * From a source to a model_config: the keys that all families share, then the family's own, then what must hold between them. Also the
 * finding of families and the frequencies of rotary positions.
 *
 * Every number is from outside: sizes are bounded here so that products of them fit int64 everywhere behind this file.
 */
#include "kernel/scalar.h"
#include "model/family.h"

#include <math.h>
#include <string.h>

#define TRY(call)                                                                                  \
    do {                                                                                           \
        status try_status = (call);                                                                \
        if (try_status != STATUS_OK)                                                               \
            return try_status;                                                                     \
    } while (0)

static const model_family *const families[] = {
#define FAMILY(name) &model_family_##name,
#include "model/families.def"
#undef FAMILY
};

static bool tests_admitted;

void model_admit_test_families(bool on)
{
    tests_admitted = on;
}

static bool speaks(const model_family *f, const char *name)
{
    if (f->test_only && !tests_admitted)
        return false;
    for (size_t k = 0; k < BASE_COUNT(f->architectures) && f->architectures[k] != NULL; k++)
        if (strcmp(f->architectures[k], name) == 0)
            return true;
    return false;
}

status model_find_family(const model_family **out, const model_source *s, err *e)
{
    const char *name = source_architecture(s);
    for (size_t i = 0; i < BASE_COUNT(families); i++)
        if (speaks(families[i], name)) {
            *out = families[i];
            return STATUS_OK;
        }
    sb known;
    sb_init(&known);
    for (size_t i = 0; i < BASE_COUNT(families); i++)
        for (size_t k = 0; !families[i]->test_only && families[i]->architectures[k] != NULL; k++)
            sb_printf(&known, "%s%s", known.length > 0 ? ", " : "", families[i]->architectures[k]);
    status st =
        err_set(e, STATUS_UNSUPPORTED, "%s: the architecture \"%.60s\" is not known; known are %s",
                source_file(s)->path, name, known.data == NULL ? "none" : known.data);
    sb_fini(&known);
    return st;
}

/* ---- common keys --------------------------------------------------------------------------------------------------- */

typedef struct size_key {
    const char *gguf, *hf;
    size_t at; /* in model_config */
    int64_t low, high;
    bool required;
} size_key;

static const size_key sizes[] = {
    {"block_count", "num_hidden_layers", offsetof(model_config, L), 1, MODEL_MAX_LAYERS, true},
    {"embedding_length", "hidden_size", offsetof(model_config, D), 1, 1 << 20, true},
    {"attention.head_count", "num_attention_heads", offsetof(model_config, H), 1, 1 << 16, true},
    {"attention.head_count_kv", "num_key_value_heads", offsetof(model_config, G), 1, 1 << 16,
     false},
    {"attention.key_length", "head_dim", offsetof(model_config, dh), 1, KERNEL_HEAD_MAX, false},
    {"feed_forward_length", "intermediate_size", offsetof(model_config, F), 1, 1 << 24, true},
    {"context_length", "max_position_embeddings", offsetof(model_config, context), 1, 1 << 30,
     false},
};

static status read_sizes(model_config *c, const model_source *s, err *e)
{
    for (size_t i = 0; i < BASE_COUNT(sizes); i++) {
        const size_key *k = &sizes[i];
        int64_t value;
        bool found = true;
        TRY(source_i64(s, k->gguf, k->hf, &value, k->required ? NULL : &found, e));
        if (!found)
            continue;
        if (value < k->low || value > k->high)
            return err_set(e, STATUS_CORRUPT, "%s: %s is %lld, expected %lld to %lld",
                           source_file(s)->path, source_is_gguf(s) ? k->gguf : k->hf,
                           (long long)value, (long long)k->low, (long long)k->high);
        memcpy((char *)c + k->at, &value, sizeof(value));
    }
    return STATUS_OK;
}

static status read_rope(model_config *c, const model_source *s, err *e)
{
    rope_spec *r = &c->rope[0];
    bool found;
    c->n_ropes = 1;
    r->base = 10000.0;
    r->factor = 1.0;
    r->width = c->dh;
    TRY(source_f64(s, "rope.freq_base", "rope_theta", &r->base, &found, e));
    TRY(source_i64(s, "rope.dimension_count", NULL, &r->width, &found, e));
    char kind[32] = "none";
    TRY(source_text(s, "rope.scaling.type", "rope_scaling.type", kind, sizeof(kind), &found, e));
    TRY(source_text(s, NULL, "rope_scaling.rope_type", kind, sizeof(kind), &found, e));
    if (strcmp(kind, "linear") == 0)
        r->kind = ROPE_LINEAR;
    else if (strcmp(kind, "llama3") == 0)
        r->kind = ROPE_LLAMA3;
    else if (strcmp(kind, "yarn") == 0)
        r->kind = ROPE_YARN;
    else if (strcmp(kind, "none") != 0 && strcmp(kind, "default") != 0)
        return err_set(e, STATUS_UNSUPPORTED,
                       "%s: rope scaling \"%s\" is not known (none, linear, llama3, yarn are)",
                       source_file(s)->path, kind);
    TRY(source_f64(s, "rope.scaling.factor", "rope_scaling.factor", &r->factor, &found, e));
    r->original_context = (double)c->context;
    TRY(source_f64(s, "rope.scaling.original_context_length",
                   "rope_scaling.original_max_position_embeddings", &r->original_context, &found,
                   e));
    r->low_factor = 1.0;
    r->high_factor = 4.0;
    TRY(source_f64(s, NULL, "rope_scaling.low_freq_factor", &r->low_factor, &found, e));
    TRY(source_f64(s, NULL, "rope_scaling.high_freq_factor", &r->high_factor, &found, e));
    r->beta_fast = 32.0;
    r->beta_slow = 1.0;
    TRY(source_f64(s, "rope.scaling.yarn_beta_fast", "rope_scaling.beta_fast", &r->beta_fast,
                   &found, e));
    TRY(source_f64(s, "rope.scaling.yarn_beta_slow", "rope_scaling.beta_slow", &r->beta_slow,
                   &found, e));
    TRY(source_f64(s, "rope.scaling.attn_factor", "rope_scaling.attention_factor",
                   &r->attention_factor, &found, e));
    bool truncate = true;
    TRY(source_bool(s, NULL, "rope_scaling.truncate", &truncate, &found, e));
    r->keep_bounds = !truncate;
    return STATUS_OK;
}

status config_read_window(model_config *c, const model_source *s, err *e)
{
    int64_t window = 0;
    bool found;
    TRY(source_i64(s, "attention.sliding_window", "sliding_window", &window, &found, e));
    if (window < 0 || window > 1 << 30)
        return err_set(e, STATUS_CORRUPT, "%s: a window of %lld", source_file(s)->path,
                       (long long)window);
    c->window = (int)window;
    return STATUS_OK;
}

status config_read_layer_types(model_config *c, const model_source *s, int64_t period, err *e)
{
    if (period < 1)
        return err_set(e, STATUS_CORRUPT, "%s: a pattern of %lld layers", source_file(s)->path,
                       (long long)period);
    for (int64_t l = 0; l < c->L && c->window > 0; l++) {
        str type;
        bool named = source_element_text(s, "layer_types", l, &type);
        c->windowed[l] =
            named ? str_is(type, "sliding_attention") : period == 1 || (l + 1) % period != 0;
    }
    return STATUS_OK;
}

/* ---- what must hold ------------------------------------------------------------------------------------------------ */

static status check_rope(const model_config *c, const rope_spec *r, const char *path, err *e)
{
    if (r->width < 2 || r->width % 2 != 0 || r->width > c->dh)
        return err_set(e, STATUS_CORRUPT, "%s: %lld rotary dims in a head of %lld", path,
                       (long long)r->width, (long long)c->dh);
    if (!(r->base > 1.0 && r->base <= 1e12))
        return err_set(e, STATUS_CORRUPT, "%s: the rotary base is %g, expected more than 1", path,
                       r->base);
    if (!(r->factor > 0.0 && r->factor <= 1e6))
        return err_set(e, STATUS_CORRUPT, "%s: the rope scaling factor is %g", path, r->factor);
    bool bounded = r->kind == ROPE_LLAMA3 || r->kind == ROPE_YARN;
    if (bounded && !(r->original_context >= 1.0 && r->original_context <= 1e9))
        return err_set(e, STATUS_CORRUPT, "%s: rope scaling without its original context", path);
    if (r->kind == ROPE_LLAMA3 && !(r->low_factor > 0.0 && r->high_factor > r->low_factor))
        return err_set(e, STATUS_CORRUPT, "%s: llama3 rope factors are %g and %g", path,
                       r->low_factor, r->high_factor);
    if (r->kind == ROPE_YARN && !(r->beta_fast > 0.0 && r->beta_slow > 0.0))
        return err_set(e, STATUS_CORRUPT, "%s: yarn betas are %g and %g", path, r->beta_fast,
                       r->beta_slow);
    return STATUS_OK;
}

static status check(const model_config *c, const char *path, err *e)
{
    if (c->H % c->G != 0)
        return err_set(e, STATUS_CORRUPT,
                       "%s: %lld attention heads cannot share %lld key/value heads", path,
                       (long long)c->H, (long long)c->G);
    if (c->dh % 8 != 0)
        return err_set(e, STATUS_UNSUPPORTED, "%s: heads of %lld, expected a multiple of 8", path,
                       (long long)c->dh);
    if (!(c->eps > 0.0 && c->eps < 1.0))
        return err_set(e, STATUS_CORRUPT, "%s: the norms' epsilon is %g", path, c->eps);
    for (int i = 0; i < c->n_ropes; i++)
        TRY(check_rope(c, &c->rope[i], path, e));
    return STATUS_OK;
}

/* The tensor of the family's W_EMBEDDING. */
static const file_tensor *find_embedding(const model_family *family, const model_source *s)
{
    for (int i = 0; i < family->n_weights; i++) {
        const weight_row *row = &family->weights[i];
        const char *name = source_is_gguf(s) ? row->gguf : row->hf;
        if (row->id != W_EMBEDDING || name == NULL)
            continue;
        const file_tensor *t = file_find_tensor(source_file(s), name);
        if (t == NULL && strncmp(name, "model.", 6) == 0)
            t = file_find_tensor(source_file(s), name + 6);
        return t;
    }
    return NULL;
}

/* GGUF numbers the kinds, sentence-transformers has a flag each in 1_Pooling/config.json. An encoder without a word: the mean, as
 * sentence-transformers takes it. */
static status read_pooling(model_config *c, const model_source *s, err *e)
{
    enum { RANK = 4 };
    int64_t kind = 0;
    bool found;
    TRY(source_i64(s, "pooling_type", NULL, &kind, &found, e));
    if (kind == RANK)
        return err_set(e, STATUS_UNSUPPORTED, "%s: models that rank texts are not known yet",
                       source_file(s)->path);
    if (kind < 0 || kind > MODEL_POOLING_LAST)
        return err_set(e, STATUS_CORRUPT, "%s: pooling_type is %lld, expected 0 to %d",
                       source_file(s)->path, (long long)kind, RANK);
    c->pooling = (model_pooling)kind;
    if (!source_is_gguf(s))
        TRY(source_pooling(s, &c->pooling, e));
    if (c->both_ways && c->pooling == MODEL_POOLING_NONE)
        c->pooling = MODEL_POOLING_MEAN;
    return STATUS_OK;
}

const char *model_pooling_name(model_pooling p)
{
    static const char *const names[] = {"none", "mean", "cls", "last"};
    return names[p];
}

status model_read_config(model_config *c, const model_family *family, const model_source *s, err *e)
{
    const char *path = source_file(s)->path;
    memset(c, 0, sizeof(*c));
    c->embedding_scale = 1.0;
    TRY(read_sizes(c, s, e));
    if (c->G == 0)
        c->G = c->H;
    if (c->dh == 0) {
        if (c->D % c->H != 0)
            return err_set(
                e, STATUS_CORRUPT,
                "%s: width %lld is no multiple of %lld heads, and no head width is given", path,
                (long long)c->D, (long long)c->H);
        c->dh = c->D / c->H;
    }
    bool found;
    c->eps = 1e-5;
    TRY(source_f64(s, "attention.layer_norm_epsilon", "layer_norm_eps", &c->eps, &found, e));
    TRY(source_f64(s, "attention.layer_norm_rms_epsilon", "rms_norm_eps", &c->eps, &found, e));
    const file_tensor *embedding = find_embedding(family, s);
    if (embedding == NULL)
        return err_set(e, STATUS_CORRUPT, "%s: the embedding is missing", path);
    if (embedding->n_dims != 2 || embedding->dims[1] > 1 << 24)
        return err_set(e, STATUS_CORRUPT, "%s: the embedding has %llu rows", path,
                       (unsigned long long)embedding->dims[1]);
    c->V = (int64_t)embedding->dims[1];
    TRY(read_rope(c, s, e));
    c->both_ways = family->encoder;
    TRY(read_pooling(c, s, e));
    if (family->configure != NULL)
        TRY(family->configure(c, s, e));
    return check(c, path, e);
}

/* ---- rotary frequencies -------------------------------------------------------------------------------------------- */

/* The dim whose angle turns `rotations` times over the original context. */
static double yarn_bound(const rope_spec *r, double rotations)
{
    const double two_pi = 6.283185307179586;
    return (double)r->width *
           kernel_log64(r->original_context * kernel_recip64(rotations * two_pi)) *
           kernel_recip64(2.0 * kernel_log64(r->base));
}

static void yarn(const rope_spec *r, double *f, int64_t half)
{
    double low = yarn_bound(r, r->beta_fast), high = yarn_bound(r, r->beta_slow);
    if (!r->keep_bounds) {
        low = floor(low);
        high = ceil(high);
    }
    low = BASE_MAX(low, 0.0);
    high = BASE_MIN(high, (double)(r->width - 1));
    double span = kernel_recip64(BASE_MAX(high - low, 0.001)), inverse = kernel_recip64(r->factor);
    for (int64_t i = 0; i < half; i++) {
        double ramp = ((double)i - low) * span;
        ramp = BASE_MIN(BASE_MAX(ramp, 0.0), 1.0);
        f[i] = f[i] * inverse * ramp + f[i] * (1.0 - ramp);
    }
}

static void llama3(const rope_spec *r, double *f, int64_t half)
{
    const double two_pi = 6.283185307179586;
    double inverse = kernel_recip64(r->factor),
           span = kernel_recip64(r->high_factor - r->low_factor);
    for (int64_t i = 0; i < half; i++) {
        double turns = r->original_context * f[i] * kernel_recip64(two_pi);
        double smooth = (turns - r->low_factor) * span;
        smooth = BASE_MIN(BASE_MAX(smooth, 0.0), 1.0);
        f[i] = (1.0 - smooth) * f[i] * inverse + smooth * f[i];
    }
}

void model_rope_frequencies(const rope_spec *r, const float *divisors, double *out,
                            double *out_factor)
{
    int64_t half = r->width / 2;
    double step = kernel_recip64((double)half);
    for (int64_t i = 0; i < half; i++) {
        out[i] = kernel_pow64(r->base, -(double)i * step);
        if (divisors != NULL)
            out[i] *= kernel_recip64((double)divisors[i]);
        if (r->kind == ROPE_LINEAR)
            out[i] *= kernel_recip64(r->factor);
    }
    *out_factor = 1.0;
    if (r->kind == ROPE_LLAMA3 && divisors == NULL)
        llama3(r, out, half);
    if (r->kind == ROPE_YARN) {
        yarn(r, out, half);
        double grown = r->factor > 1.0 ? 0.1 * kernel_log64(r->factor) + 1.0 : 1.0;
        *out_factor = r->attention_factor > 0.0 ? r->attention_factor : grown;
    }
}
