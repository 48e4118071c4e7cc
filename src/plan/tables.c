/*
 * What is known by name: devices, links, models, engines and quantisations of the .def files, and finding them. A name that is not there
 * gets the nearest ones in its error. Pure tables: nothing is measured or read here.
 */
#include "plan/plan.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const plan_device devices[] = {
#define DEVICE(name, title, memory, bandwidth, tflops, watts, price, source)                       \
    {name, title, memory, bandwidth, tflops, watts, price, source},
#include "plan/devices.def"
#undef DEVICE
};

static const plan_link_kind links[] = {
#define LINK(name, title, latency, gbit, source) {name, title, latency, gbit, source},
#include "plan/links.def"
#undef LINK
};

static const plan_engine engines[] = {
#define ENGINE(name, efficiency, op, hop, rate, expert, wire, between, announce, logit, slow,      \
               embedding, star)                                                                    \
    {name,    efficiency, op,    hop,  rate,      expert, wire,                                    \
     between, announce,   logit, slow, embedding, star},
#include "plan/engines.def"
#undef ENGINE
};

typedef struct quant {
    const char *name;
    double bits, expert_bits;
} quant;

static const quant quants[] = {
#define QUANT(name, bits, expert_bits) {name, bits, expert_bits},
#include "plan/quants.def"
#undef QUANT
};

typedef struct config {
    int L, dense, D, H, G, dh, F, V, tied, E, K, width, shared, q_rank, kv_rank, rope, v, window,
        windowed;
} config;

static const plan_model_row models[] = {
#define MODEL(name, quant, L, dense, D, H, G, dh, F, V, tied, E, K, width, shared, q, kv, rope, v, \
              window, windowed, source)                                                            \
    {name, quant, source},
#include "plan/models.def"
#undef MODEL
};

static const config configs[] = {
#define MODEL(name, quant, L, dense, D, H, G, dh, F, V, tied, E, K, width, shared, q, kv, rope, v, \
              window, windowed, source)                                                            \
    {L, dense, D, H, G, dh, F, V, tied, E, K, width, shared, q, kv, rope, v, window, windowed},
#include "plan/models.def"
#undef MODEL
};

int plan_n_devices(void)
{
    return (int)BASE_COUNT(devices);
}

int plan_n_links(void)
{
    return (int)BASE_COUNT(links);
}

int plan_n_models(void)
{
    return (int)BASE_COUNT(models);
}

int plan_n_engines(void)
{
    return (int)BASE_COUNT(engines);
}

int plan_n_quants(void)
{
    return (int)BASE_COUNT(quants);
}

const plan_device *plan_device_at(int i)
{
    return &devices[i];
}

const plan_link_kind *plan_link_at(int i)
{
    return &links[i];
}

const plan_model_row *plan_model_at(int i)
{
    return &models[i];
}

const plan_engine *plan_engine_at(int i)
{
    return &engines[i];
}

const char *plan_quant_at(int i)
{
    return quants[i].name;
}

static const char *device_name(int i)
{
    return devices[i].name;
}

static const char *link_name(int i)
{
    return links[i].name;
}

static const char *model_name(int i)
{
    return models[i].name;
}

static const char *engine_name(int i)
{
    return engines[i].name;
}

/* Letters of a name that a typed one has in common with it count more than its length: "m3ultra" is near "m3-ultra", "llama" near every
 * name that begins so. */
static int remoteness(const char *typed, const char *name)
{
    size_t n = strlen(typed);
    return n >= 2 && !strncasecmp(typed, name, n) ? 0 : base_distance(typed, name);
}

static status unknown(err *e, const char *what, const char *typed, const char *(*name)(int), int n)
{
    int best[3] = {-1, -1, -1}, far = (int)strlen(typed) / 2 + 1;
    for (int i = 0; i < n; i++) {
        int d = remoteness(typed, name(i)), at = 3;
        if (d > far)
            continue;
        while (at > 0 && (best[at - 1] < 0 || d < remoteness(typed, name(best[at - 1]))))
            at--;
        for (int k = 2; k > at; k--)
            best[k] = best[k - 1];
        if (at < 3)
            best[at] = i;
    }
    char near[3 * PLAN_NAME + 32] = "";
    size_t used = 0;
    for (int k = 0; k < 3 && best[k] >= 0; k++)
        used += (size_t)snprintf(near + used, sizeof near - used, "%s%s",
                                 k ? ", " : "; near it: ", name(best[k]));
    return err_set(e, STATUS_NOT_FOUND, "no %s is known by the name '%.60s'%s", what, typed,
                   used ? near : "; `shoal plan` without a model lists the known ones");
}

static int find(const char *typed, const char *(*name)(int), int n)
{
    for (int i = 0; i < n; i++)
        if (!strcasecmp(typed, name(i)))
            return i;
    return -1;
}

status plan_device_find(const plan_device **out, const char *name, err *e)
{
    int i = find(name, device_name, plan_n_devices());
    if (i < 0)
        return unknown(e, "device", name, device_name, plan_n_devices());
    *out = &devices[i];
    return STATUS_OK;
}

status plan_link_find(const plan_link_kind **out, const char *name, err *e)
{
    int i = find(name, link_name, plan_n_links());
    if (i < 0)
        return unknown(e, "link", name, link_name, plan_n_links());
    *out = &links[i];
    return STATUS_OK;
}

status plan_engine_find(const plan_engine **out, const char *name, err *e)
{
    int i = find(name, engine_name, plan_n_engines());
    if (i < 0)
        return unknown(e, "engine", name, engine_name, plan_n_engines());
    *out = &engines[i];
    return STATUS_OK;
}

status plan_model_quantise(plan_model *m, const char *name, err *e)
{
    int i = find(name, plan_quant_at, plan_n_quants());
    if (i < 0)
        return unknown(e, "quantisation", name, plan_quant_at, plan_n_quants());
    m->bits = quants[i].bits;
    m->expert_bits = quants[i].expert_bits;
    return STATUS_OK;
}

status plan_model_find(plan_model *out, const char *name, err *e)
{
    char base[PLAN_NAME];
    const char *colon = strchr(name, ':');
    size_t n = colon ? (size_t)(colon - name) : strlen(name);
    if (n >= sizeof base)
        return err_set(e, STATUS_NOT_FOUND, "no model is known by a name of %zu letters", n);
    memcpy(base, name, n);
    base[n] = '\0';
    int i = find(base, model_name, plan_n_models());
    if (i < 0)
        return unknown(e, "model", base, model_name, plan_n_models());
    const config *k = &configs[i];
    plan_model m = {
        .n_layers = k->L,
        .n_dense_layers = k->E ? k->dense : k->L,
        .d_model = k->D,
        .n_heads = k->H,
        .n_kv_heads = k->G,
        .head_dim = k->dh,
        .d_ff = k->F,
        .n_vocab = k->V,
        .tied = k->tied,
        .n_experts = k->E,
        .n_active = k->K,
        .d_expert = k->width,
        .n_shared = k->shared,
        .q_rank = k->q_rank,
        .kv_rank = k->kv_rank,
        .rope_dim = k->rope,
        .v_dim = k->v,
        .window = k->window,
        .n_window_layers = k->windowed,
        .state_bits = 16,
    };
    status s = plan_model_quantise(&m, colon ? colon + 1 : models[i].quant, e);
    if (s != STATUS_OK)
        return s;
    snprintf(m.name, sizeof m.name, "%s", models[i].name);
    *out = m;
    return STATUS_OK;
}

void plan_node_of(plan_node *out, const char *name, const plan_device *d, double memory_bytes)
{
    plan_node node = {.host = -1, .watts = d->watts, .price = d->price};
    snprintf(node.name, sizeof node.name, "%s", name);
    bool card = !strncmp(d->name, "rtx-", 4);
    node.memory_bytes = memory_bytes > 0 ? memory_bytes : d->memory_gb * 1073741824.0;
    node.reserve_bytes = card ? 1e9 : 2147483648.0 + 0.04 * node.memory_bytes;
    node.bandwidth = d->bandwidth_gb_s * 1e9;
    node.rate = d->tflops * 0.5e12;
    *out = node;
}

plan_link plan_link_of(const plan_link_kind *k)
{
    return (plan_link){k->latency_us, k->gbit_s * 1e9 / 8};
}

plan_link plan_link_measured(const plan_engine *g, double latency_us, double us_per_byte)
{
    double own = latency_us - g->hop_us;
    return (plan_link){own > 0 ? own : 0, us_per_byte > 1e-6 ? 1e6 / us_per_byte : 1e12};
}
