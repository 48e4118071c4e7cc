/*
 * Cuts: from a number of ranks and their shares to what each holds. Every border is the nearest possible one to the share's sum, so ranks
 * with small shares may hold nothing of a kind. Pure; all ranks compute the same. Not here: which shares are good ones (src/plan).
 */
#include "engine/ranks.h"

#include <math.h>
#include <string.h>

static const char *const link_names[] = {"shm", "tls", "loop"};
_Static_assert(BASE_COUNT(link_names) == ENGINE_LINKS, "every link has a name");

const char *engine_link_name(engine_link l)
{
    return (unsigned)l < ENGINE_LINKS ? link_names[l] : "unknown";
}

bool engine_link_find(engine_link *out, const char *name)
{
    for (int i = 0; i < ENGINE_LINKS; i++) {
        if (strcmp(link_names[i], name))
            continue;
        *out = (engine_link)i;
        return true;
    }
    return false;
}

bool engine_link_shape_fits(const engine_cut *c)
{
    return c->link_latency_us >= 0 && c->link_latency_us <= 1e7f &&
           (c->link_gbit == 0 || (c->link_gbit >= 1e-3f && c->link_gbit <= 1e6f));
}

bool engine_cut_paces_fit(const engine_cut *c)
{
    bool fits = true;
    for (int i = 0; i < c->n_paces; i++)
        fits &= c->paces[i] > 0 && c->paces[i] <= 1;
    return fits;
}

float engine_cut_pace(const engine_cut *c, int rank)
{
    return rank < c->n_paces ? c->paces[rank] : 0;
}

static int stages(const engine_cut *c)
{
    return c->n_stages > 0 ? c->n_stages : 1;
}

static int tensor(const engine_cut *c)
{
    return c->n_tensor > 0 ? c->n_tensor : 1;
}

/* Of cuts that come in messages too: what is too much stays too much. */
int engine_cut_ranks(const engine_cut *c)
{
    const int most = ENGINE_MOST_RANKS + 1;
    return BASE_MIN(stages(c), most) * BASE_MIN(tensor(c), most);
}

static double share(const engine_cut *c, int rank)
{
    return c->n_shares ? (double)c->shares[rank] : 1.0;
}

/* What ranks [begin, end) have together. */
static double sum_of(const engine_cut *c, int begin, int end)
{
    double sum = 0;
    for (int i = begin; i < end; i++)
        sum += share(c, i);
    return sum;
}

static status check_shares(const engine_cut *c, err *e)
{
    int n = engine_cut_ranks(c), t = tensor(c);
    if (stages(c) > ENGINE_MOST_RANKS || t > ENGINE_MOST_RANKS || n > ENGINE_MOST_RANKS)
        return err_set(e, STATUS_INVALID, "a cut into %d x %d ranks: there are %d at most",
                       stages(c), t, ENGINE_MOST_RANKS);
    if (c->n_shares && c->n_shares != n)
        return err_set(e, STATUS_INVALID, "a cut into %d ranks with %d shares", n, c->n_shares);
    if ((c->n_paces && c->n_paces != n) || !engine_cut_paces_fit(c))
        return err_set(e, STATUS_INVALID,
                       "a cut into %d ranks with %d paces, expected shares up to 1", n, c->n_paces);
    for (int i = 0; i < c->n_shares; i++)
        if (!(c->shares[i] >= 0 && c->shares[i] < 1e9f))
            return err_set(e, STATUS_INVALID, "share %d of a cut is %g", i, (double)c->shares[i]);
    for (int s = 0; s < stages(c); s++)
        if (sum_of(c, s * t, (s + 1) * t) <= 0)
            return err_set(e, STATUS_INVALID, "the shares of stage %d are all 0", s);
    return STATUS_OK;
}

/* Of n elements in units, where `part` of `whole` ends: a multiple of unit, or n. */
static int64_t border(double part, double whole, int64_t n, int64_t unit)
{
    int64_t units = (n + unit - 1) / unit;
    int64_t at = (int64_t)floor(part / whole * (double)units + 0.5);
    return BASE_MIN(at * unit, n);
}

/* Layers of stage s begin here: the nearest border that leaves a layer to every stage, those before first. */
static int64_t first_layer(const engine_cut *c, int s, int64_t L)
{
    int S = stages(c), n = engine_cut_ranks(c);
    int64_t at = 0;
    for (int k = 1; k <= s; k++) {
        int64_t nearest = border(sum_of(c, 0, k * tensor(c)), sum_of(c, 0, n), L, 1);
        at = BASE_MIN(BASE_MAX(nearest, at + 1), L - (S - k));
    }
    return at;
}

status engine_cut_shards(model_shard *out, const engine_cut *c, const model_cut_units *u, err *e)
{
    int S = stages(c), t = tensor(c);
    status s = check_shares(c, e);
    if (s == STATUS_OK && u->n_layers < S)
        s = err_set(e, STATUS_INVALID, "%d stages, but the model has %lld layers", S,
                    (long long)u->n_layers);
    if (s != STATUS_OK)
        return s;
    for (int rank = 0; rank < S * t; rank++) {
        int first = rank / t * t;
        double whole = sum_of(c, first, first + t), begin = sum_of(c, first, rank),
               end = sum_of(c, first, rank + 1);
        out[rank] = (model_shard){
            .cut = S * t > 1,
            .tensor_ranks = t,
            .layer_begin = first_layer(c, rank / t, u->n_layers),
            .layer_end = rank / t + 1 < S ? first_layer(c, rank / t + 1, u->n_layers) : u->n_layers,
            .head_begin = border(begin, whole, u->n_heads, u->heads),
            .head_end = border(end, whole, u->n_heads, u->heads),
            .ffn_begin = border(begin, whole, u->n_ffn, u->ffn),
            .ffn_end = border(end, whole, u->n_ffn, u->ffn),
            .vocab_begin = border(begin, whole, u->n_vocab, 16),
            .vocab_end = border(end, whole, u->n_vocab, 16),
        };
    }
    return STATUS_OK;
}
