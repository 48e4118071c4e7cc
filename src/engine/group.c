/*
 * The life of a group: a place is checked, its descriptors become connections, connections become link groups: one of all ranks (steps,
 * streams between stages, logits) and, where stages are more than one and of several ranks, one of the stage (sums). Who and what a peer
 * is, is compared in the links' handshake. Not here: what is said about a step (step.c), who starts ranks (crew.c).
 */
#include "engine/group.h"

#include "os/os.h"

#include <stdio.h>
#include <string.h>

enum {
    SPIN_US = 2000,           /* where every rank has its cores: waits inside a step are shorter */
    HELLO_US = 600 * 1000000, /* others may still be loading; whoever started us sees them die */
    LEAST_DEADLINE_US = 5 * 1000000,
    MOST_WIDTH = 1 << 15 /* of a residual stream, when time on a slow wire is reckoned */
};
#define SLOW_BYTES_PER_US                                                                          \
    1e5 /* weight bytes × tokens that a thread gets through: a tenth of what is usual */

/* ---- places -------------------------------------------------------------------------------------------------------- */

static bool has_two_groups(const engine_cut *c)
{
    return c->n_stages > 1 && c->n_tensor > 1;
}

static int handles_per_way(engine_link l)
{
    return l == ENGINE_LINK_SHM ? 2 : l == ENGINE_LINK_TLS ? 1 : 0;
}

int engine_place_handles(const engine_cut *c)
{
    int peers = engine_cut_ranks(c) - 1 + (has_two_groups(c) ? c->n_tensor - 1 : 0);
    return peers * handles_per_way(c->link);
}

void engine_place_close(engine_place *p)
{
    for (int i = 0; i < p->n_handles; i++)
        if (p->handles[i] >= 0)
            os_close(p->handles[i]);
    p->n_handles = 0;
}

static status check_place(const engine_place *p, err *e)
{
    int n = engine_cut_ranks(&p->cut);
    if ((unsigned)p->cut.link >= ENGINE_LINKS || p->cut.n_stages < 1 || p->cut.n_tensor < 1 ||
        p->cut.n_stages > ENGINE_MOST_RANKS || p->cut.n_tensor > ENGINE_MOST_RANKS ||
        n > ENGINE_MOST_RANKS || p->rank < 0 || p->rank >= n)
        return err_set(e, STATUS_INVALID, "a place as rank %d of %d x %d", p->rank, p->cut.n_stages,
                       p->cut.n_tensor);
    if (p->n_handles != engine_place_handles(&p->cut))
        return err_set(e, STATUS_INVALID, "a place with %d descriptors, expected %d", p->n_handles,
                       engine_place_handles(&p->cut));
    return STATUS_OK;
}

void group_place(engine_place *out, const engine_team_options *o, int rank)
{
    *out = (engine_place){
        .cut = o->cut, .rank = rank, .epoch = o->epoch, .deadline_us = o->deadline_us};
    out->cut.n_stages = BASE_MAX(out->cut.n_stages, 1);
    out->cut.n_tensor = BASE_MAX(out->cut.n_tensor, 1);
}

/* A limit is for all ranks together; what is merely free each looks at for itself while it loads. */
static status check_memory(const engine_group *g, const file_model *f, const model_options *o,
                           err *e)
{
    uint64_t sum = 0;
    if (o->memory_limit == 0 || g->place.rank != 0)
        return STATUS_OK;
    for (int r = 0; r < g->n_ranks; r++) {
        model_options one = *o;
        model_need need;
        one.shard = g->shards[r];
        status s = model_needs(&need, f, &one, e);
        if (s != STATUS_OK)
            return s;
        sum += need.weight_bytes + need.state_bytes + need.scratch_bytes;
    }
    char needed[32], limit[32];
    if (sum <= o->memory_limit)
        return STATUS_OK;
    return err_set(e, STATUS_NO_MEMORY, "%s: %d ranks need %s together, free are %s", f->path,
                   g->n_ranks, base_format_bytes(needed, sum),
                   base_format_bytes(limit, o->memory_limit));
}

status engine_group_create(engine_group **out, engine_place *place, const file_model *f,
                           model_options *o, err *e)
{
    model_cut_units units;
    engine_group *g = base_zalloc(1, sizeof *g);
    status s =
        g ? check_place(place, e) : err_set(e, STATUS_NO_MEMORY, "no memory for a group of ranks");
    if (s == STATUS_OK)
        s = model_get_cut_units(&units, f, e);
    if (s == STATUS_OK)
        s = engine_cut_shards(g->shards, &place->cut, &units, e);
    if (s != STATUS_OK) {
        engine_place_close(place);
        base_free(g);
        return s;
    }
    g->place = *place;
    place->n_handles = 0;
    g->n_ranks = engine_cut_ranks(&g->place.cut);
    g->n_tensor = g->place.cut.n_tensor;
    g->stage = g->place.rank / g->n_tensor;
    g->index = g->place.rank % g->n_tensor;
    o->shard = g->shards[g->place.rank];
    o->pace = engine_cut_pace(&g->place.cut, g->place.rank);
    if (o->n_threads <= 0)
        o->n_threads = BASE_MAX(os_cpu_count() / g->n_ranks, 1);
    group_exchange(g, &o->exchange);
    s = check_memory(g, f, o, e);
    if (s == STATUS_OK)
        *out = g;
    else
        engine_group_destroy(g);
    return s;
}

/* ---- links --------------------------------------------------------------------------------------------------------- */

/* What has to be the same for all: shards, and all that sizes pools and steps. */
static void plan_hash(unsigned char out[32], const engine_group *g)
{
    const model_options *o = model_get_options(g->m);
    sha256 h;
    sha256_init(&h);
    for (int i = 0; i < g->n_ranks; i++) {
        const model_shard *s = &g->shards[i];
        const int64_t borders[] = {s->tensor_ranks, s->layer_begin, s->layer_end,
                                   s->head_begin,   s->head_end,    s->ffn_begin,
                                   s->ffn_end,      s->vocab_begin, s->vocab_end};
        sha256_add(&h, borders, sizeof borders);
    }
    const int64_t sizes[] = {(int64_t)o->kv, o->context, o->n_sequences, o->max_tokens,
                             o->max_outputs};
    sha256_add(&h, sizes, sizeof sizes);
    sha256_add(&h, o->n_pages, sizeof o->n_pages);
    sha256_end(&h, out);
}

static double wire_us_per_byte(const engine_cut *c)
{
    return c->link_gbit > 0 ? 8e-3 / (double)c->link_gbit : 0;
}

static uint64_t deadline(const engine_group *g)
{
    const model_options *o = model_get_options(g->m);
    if (g->place.deadline_us)
        return g->place.deadline_us * GROUP_SLOWNESS;
    double us = (double)model_get_card(g->m)->weight_bytes * o->max_tokens /
                (SLOW_BYTES_PER_US * BASE_MAX(o->n_threads, 1));
    /* a slow wire: ten times what the largest rows take that travel in a step */
    double widest = 4.0 * (double)g->n_vocab * o->max_outputs + 8.0 * MOST_WIDTH * o->max_tokens;
    us += 10 * ((double)g->place.cut.link_latency_us + widest * wire_us_per_byte(&g->place.cut));
    return (uint64_t)(BASE_MAX(us, (double)LEAST_DEADLINE_US)) * GROUP_SLOWNESS;
}

static uint64_t spin(const engine_group *g)
{
    return g->n_ranks * model_get_options(g->m)->n_threads <= os_cpu_count() ? SPIN_US : 0;
}

/* The numbers are of this kind of link, not of this machine: they only choose how sums go, and must be the same everywhere. */
static link_cost cost_of(const engine_cut *c)
{
    link_cost cost =
        c->link == ENGINE_LINK_TLS ? (link_cost){30, 1.0 / 1500} : (link_cost){5, 1.0 / 6000};
    cost.latency_us += (double)c->link_latency_us;
    cost.us_per_byte = BASE_MAX(cost.us_per_byte, wire_us_per_byte(c));
    return cost;
}

static status open_plain(link_conn **out, engine_group *g, bool in_stage, int self, int peer,
                         const int **handle, err *e)
{
    const engine_place *p = &g->place;
    char identity[64];
    int low = BASE_MIN(self, peer), high = BASE_MAX(self, peer);
    switch (p->cut.link) {
    case ENGINE_LINK_SHM: {
        link_shm_end end = {(*handle)[0], (*handle)[1]};
        *handle += 2;
        return link_shm_open(out, end, self > peer, e);
    }
    case ENGINE_LINK_TLS:
        snprintf(identity, sizeof identity, "shoal %s%d %d-%d", in_stage ? "stage " : "all ",
                 in_stage ? g->stage : 0, low, high);
        return link_tls_open(out, *(*handle)++, self < peer, p->secret, identity, e);
    case ENGINE_LINK_LOOP:
        REQUIRE(p->loops[in_stage]);
        return link_loop_open(out, p->loops[in_stage], p->rank,
                              in_stage ? g->stage * g->n_tensor + peer : peer, 0, e);
    case ENGINE_LINKS:
        break;
    }
    return err_set(e, STATUS_INTERNAL, "an unknown kind of link");
}

static status open_one(link_conn **out, engine_group *g, bool in_stage, int self, int peer,
                       const int **handle, err *e)
{
    const engine_cut *c = &g->place.cut;
    status s = open_plain(out, g, in_stage, self, peer, handle, e);
    if (s != STATUS_OK || (c->link_latency_us == 0 && c->link_gbit == 0))
        return s;
    return link_shape_open(out, *out, (uint64_t)c->link_latency_us, (double)c->link_gbit * 1e9 / 8,
                           NULL, e);
}

/* A link group of n ranks, of which we are `self`. *handle: the descriptors that are left; those used are no longer ours. */
static status open_links(link_group **out, engine_group *g, bool in_stage, const int **handle,
                         err *e)
{
    int n = in_stage ? g->n_tensor : g->n_ranks, self = in_stage ? g->index : g->place.rank;
    link_conn *conns[ENGINE_MOST_RANKS] = {0};
    for (int peer = 0; peer < n; peer++) {
        status s =
            peer == self ? STATUS_OK : open_one(&conns[peer], g, in_stage, self, peer, handle, e);
        if (s == STATUS_OK)
            continue;
        while (peer-- > 0)
            link_conn_close(conns[peer]);
        return s;
    }
    link_group_config c = {.rank = self,
                           .n_ranks = n,
                           .n_lanes = 1,
                           .epoch = g->place.epoch,
                           .cost = cost_of(&g->place.cut),
                           .deadline_us = deadline(g),
                           .hello_us = HELLO_US,
                           .spin_us = spin(g)};
    snprintf(c.numerics, sizeof c.numerics, "%s", model_numerics(g->m));
    uint64_t hash = model_get_card(g->m)->hash;
    memcpy(c.model, &hash, sizeof hash);
    plan_hash(c.plan, g);
    return link_group_create(out, &c, conns, e);
}

status group_connect(engine_group *g, model *m, err *e)
{
    const int *handle = g->place.handles;
    g->m = m;
    g->n_classes = model_n_classes(m);
    g->n_vocab = model_get_card(m)->n_vocab;
    g->deadline_us = deadline(g);
    status s = group_make_room(g, e);
    if (s == STATUS_OK)
        s = open_links(&g->all, g, false, &handle, e);
    if (s == STATUS_OK && has_two_groups(&g->place.cut))
        s = open_links(&g->in_stage, g, true, &handle, e);
    else if (s == STATUS_OK && g->n_tensor > 1)
        g->in_stage = g->all;
    for (const int *h = g->place.handles; h < handle; h++) /* the connections own them now */
        g->place.handles[h - g->place.handles] = -1;
    return s;
}

status engine_group_join(engine_group *g, model *m, err *e)
{
    status s = g->all ? STATUS_OK : group_connect(g, m, e);
    if (s == STATUS_OK)
        s = link_group_wait(g->all, e);
    if (s == STATUS_OK && g->in_stage && g->in_stage != g->all)
        s = link_group_wait(g->in_stage, e);
    g->failed = s != STATUS_OK;
    return s;
}

void group_refuse(engine_place *place)
{
    int n = engine_cut_ranks(&place->cut);
    for (int peer = 0; place->cut.link == ENGINE_LINK_LOOP && peer < n; peer++) {
        link_conn *conn;
        if (peer != place->rank &&
            link_loop_open(&conn, place->loops[0], place->rank, peer, 0, NULL) == STATUS_OK)
            link_conn_close(conn);
    }
    engine_place_close(place);
}

bool engine_group_failed(const engine_group *g)
{
    return g->failed;
}

void engine_group_destroy(engine_group *g)
{
    if (!g)
        return;
    if (g->place.rank == 0 && g->all && link_group_ready(g->all) && !g->failed)
        (void)group_announce_end(g, NULL);
    if (g->in_stage != g->all)
        link_group_destroy(g->in_stage);
    link_group_destroy(g->all);
    engine_place_close(&g->place);
    base_free(g->words);
    base_free(g->runs);
    for (int i = 0; i < MODEL_MOST_FLIGHTS; i++)
        base_free(g->flights[i].rows);
    group_sampling_free(g);
    base_free(g);
}
