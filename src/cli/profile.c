/*
 * The measuring behind profile.h: matrices of 2,048 columns as long as memory that no cache holds, multiplied by the pool as a decode step
 * does; a matrix that fits into caches and 256 tokens for the rate of prompts. The best of several passes counts: others use the machine too.
 */
#include "cli/profile.h"

#include "kernel/kernel.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 2048, TOKENS = 256, ROWS = 2048, PASSES = 5, CHUNK = 8, DISPATCHES = 400 };

static const char *const type_names[] = {"Q4_0", "Q4_K", "Q6_K", "Q8_0", "F16", "BF16"};

typedef struct measuring {
    const kernel_table *k;
    os_pool *pool;
    unsigned char *slab;
    uint64_t bytes;
    float *x;        /* [TOKENS, COLUMNS] */
    kernel_act *act; /* [TOKENS, COLUMNS / 32] */
    float *y;        /* [rows of a decode matrix, or TOKENS, ROWS] */
} measuring;

/* ---- one product ---------------------------------------------------------------------------------------------------- */

typedef struct product {
    const measuring *m;
    kernel_product p;
} product;

static void product_task(void *context, int64_t begin, int64_t end, int worker)
{
    const product *r = context;
    (void)worker;
    kernel_multiply(r->m->k, &r->p, begin, end);
}

/* pace: at which it is done. */
static double seconds_of(const product *r, os_pool *pool, int64_t chunk, double pace)
{
    uint64_t start = os_now_us();
    os_pool_run(pool, product_task, (void *)(uintptr_t)r, kernel_strips(r->p.w->rows), chunk);
    os_keep_pace(start, pace);
    return (double)BASE_MAX(os_now_us() - start, (uint64_t)1) / 1e6;
}

/* Strips that all hold the same 16 rows; how many. */
static int64_t fill(const measuring *m, const kernel_type *type)
{
    uint64_t strip = kernel_strip_bytes(type, 0, COLUMNS), row = kernel_row_bytes(type, COLUMNS);
    int64_t n = (int64_t)(m->bytes / strip) / CHUNK * CHUNK;
    unsigned char *file = base_zalloc(16, row);
    if (!file || n < CHUNK) {
        base_free(file);
        return 0;
    }
    memset(file, 0x11, 16 * row); /* small scales, small weights: as quick as any */
    kernel_pack(type, m->slab, file, row, 16, 0, COLUMNS);
    for (int64_t s = 1; s < n; s++)
        memcpy(m->slab + (uint64_t)s * strip, m->slab, strip);
    base_free(file);
    return n;
}

static kernel_product product_of(const measuring *m, const kernel_matrix *w, int64_t tokens)
{
    const kernel_type *type = w->type;
    return (kernel_product){.w = w,
                            .output = KERNEL_F32,
                            .n_tokens = tokens,
                            .x = type->quantised ? (const void *)m->act : (const void *)m->x,
                            .x_bytes = type->quantised ? kernel_act_bytes(COLUMNS)
                                                       : COLUMNS * sizeof(float),
                            .dst = m->y,
                            .dst_stride = tokens > 1 ? ROWS : 0};
}

static void measure_type(const measuring *m, const kernel_type *type, profile_type *out)
{
    uint64_t strip = kernel_strip_bytes(type, 0, COLUMNS);
    int64_t strips = fill(m, type);
    double best = 0, rate = 0;
    kernel_matrix w = {type, m->slab, 16 * strips, 0, COLUMNS, strip};
    product r = {m, product_of(m, &w, 1)};
    for (int i = 0; i < PASSES && strips; i++)
        best = BASE_MAX(best, (double)strips * (double)strip / seconds_of(&r, m->pool, CHUNK, 1));
    w.rows = BASE_MIN(w.rows, (int64_t)ROWS);
    r.p = product_of(m, &w, TOKENS);
    for (int i = 0; i < 3 && strips; i++)
        rate = BASE_MAX(rate, (double)w.rows * COLUMNS * TOKENS / seconds_of(&r, m->pool, 1, 1));
    snprintf(out->name, sizeof out->name, "%s", type->name);
    out->bits = 8.0 * (double)kernel_row_bytes(type, COLUMNS) / COLUMNS;
    out->bandwidth = best;
    out->rate = rate;
}

/* ---- two halves ----------------------------------------------------------------------------------------------------- */

typedef struct half {
    const measuring *m;
    os_pool *pool;
    product r;
    double pace;
    double best, mean; /* seconds of a pass */
    _Atomic int *working;
} half;

/* Until all have made their passes, so that none is alone for a while. */
static void half_run(void *context)
{
    half *h = context;
    double sum = 0;
    for (int i = 0; i < PASSES || *h->working > 0; i++) {
        double s = seconds_of(&h->r, h->pool, CHUNK, h->pace);
        h->best = i && h->best < s ? h->best : s;
        sum += s;
        h->mean = sum / (i + 1);
        *h->working -= i + 1 == PASSES;
    }
}

/* The first type by half of the cores alone, and by two halves at once, each over half of the slab. */
static void measure_halves(const measuring *m, const kernel_type *type, const double paces[2],
                           profile *out)
{
    _Atomic int working = 1;
    half h[2] = {{.m = m, .pace = 1, .working = &working},
                 {.m = m, .pace = paces[1], .working = &working}};
    kernel_matrix w[2];
    os_thread *other;
    uint64_t strip = kernel_strip_bytes(type, 0, COLUMNS);
    int64_t strips = fill(m, type) / 2 / CHUNK * CHUNK;
    double bytes = (double)strips * (double)strip;
    bool good = strips > 0 && out->threads > 1;
    for (int i = 0; i < 2 && good; i++) {
        good = os_pool_create(&h[i].pool, out->threads / 2, NULL) == STATUS_OK;
        w[i] = (kernel_matrix){
            type, m->slab + (uint64_t)i * (uint64_t)strips * strip, 16 * strips, 0, COLUMNS, strip};
        h[i].r = (product){m, product_of(m, &w[i], 1)};
        h[i].r.p.dst = m->y + i * 16 * strips;
    }
    if (good) {
        half_run(&h[0]);
        out->half_bandwidth = bytes / h[0].best;
        h[0].pace = paces[0];
        working = 2;
        if (os_thread_create(&other, half_run, &h[1], "profile", NULL) == STATUS_OK) {
            half_run(&h[0]);
            os_thread_join(other);
            out->both_bandwidth = bytes / h[0].best + bytes / h[1].best;
            for (int i = 0; i < 2; i++)
                out->paced_bandwidth[i] = bytes / h[i].mean;
        }
    }
    for (int i = 0; i < 2; i++)
        if (h[i].pool)
            os_pool_destroy(h[i].pool);
}

static void nothing(void *context, int64_t begin, int64_t end, int worker)
{
    (void)context;
    (void)begin;
    (void)end;
    (void)worker;
}

static double dispatch_us(os_pool *pool, int threads)
{
    double best = 1e9;
    for (int turn = 0; turn < PASSES; turn++) {
        uint64_t start = os_now_us();
        for (int i = 0; i < DISPATCHES; i++)
            os_pool_run(pool, nothing, NULL, threads, 1);
        best = BASE_MIN(best, (double)(os_now_us() - start) / DISPATCHES);
    }
    return best;
}

/* ---- all of it ------------------------------------------------------------------------------------------------------ */

static status prepare(measuring *m, err *e)
{
    os_memory_info info;
    void *slab;
    status s = os_memory(&info, e);
    if (s != STATUS_OK)
        return s;
    m->bytes =
        BASE_MIN(BASE_MAX(2 * os_cpu_last_level_cache(), (uint64_t)128 << 20), (uint64_t)512 << 20);
    m->bytes = BASE_MIN(m->bytes, info.available_bytes / 4);
    if (m->bytes < (uint64_t)8 << 20)
        return err_set(e, STATUS_NO_MEMORY, "profile: too little memory is free to measure");
    uint64_t rows = 16 * (m->bytes / kernel_strip_bytes(kernel_type_at(0), 0, COLUMNS) + CHUNK);
    for (int i = 0; i < KERNEL_TYPES; i++)
        if (kernel_type_at(i))
            rows = BASE_MAX(
                rows, 16 * (m->bytes / kernel_strip_bytes(kernel_type_at(i), 0, COLUMNS) + CHUNK));
    m->x = base_zalloc(TOKENS * COLUMNS, sizeof(float));
    m->act = base_zalloc(TOKENS * COLUMNS / 32, sizeof(kernel_act));
    m->y = base_zalloc(BASE_MAX(rows, (uint64_t)TOKENS * ROWS), sizeof(float));
    if (!m->x || !m->act || !m->y)
        return err_set(e, STATUS_NO_MEMORY, "profile: no memory to measure");
    if ((s = os_slab_create(&slab, m->bytes, e)) != STATUS_OK)
        return s;
    m->slab = slab;
    for (int i = 0; i < TOKENS * COLUMNS; i++)
        m->x[i] = (float)(i * 37 % 101 - 50) / 50;
    for (int t = 0; t < TOKENS; t++)
        m->k->quantise(m->act + t * COLUMNS / 32, m->x + t * COLUMNS, COLUMNS);
    return STATUS_OK;
}

static const kernel_type *type_named(const char *name)
{
    for (int i = 0; i < KERNEL_TYPES; i++)
        if (kernel_type_at(i) && !strcmp(kernel_type_at(i)->name, name))
            return kernel_type_at(i);
    return NULL;
}

static status measure(profile *p, const kernel_table *k, const double paces[2], err *e)
{
    measuring m = {.k = k};
    status s = prepare(&m, e);
    if (s == STATUS_OK)
        s = os_pool_create(&m.pool, p->threads, e);
    if (s == STATUS_OK) {
        for (size_t i = 0; i < BASE_COUNT(type_names); i++)
            if (type_named(type_names[i]))
                measure_type(&m, type_named(type_names[i]), &p->types[p->n_types++]);
        p->op_us = dispatch_us(m.pool, p->threads);
        os_pool_destroy(m.pool);
        measure_halves(&m, type_named(type_names[0]), paces, p);
    }
    if (m.slab)
        os_slab_destroy(m.slab, m.bytes);
    base_free(m.x);
    base_free(m.act);
    base_free(m.y);
    return s;
}

json_t *profile_json(const profile *p)
{
    json_t *types = json_array();
    for (int i = 0; i < p->n_types; i++)
        json_array_append_new(types,
                              json_pack("{s:s, s:f, s:f, s:f}", "type", p->types[i].name, "bits",
                                        p->types[i].bits, "bytes_per_s", p->types[i].bandwidth,
                                        "multiply_adds_per_s", p->types[i].rate));
    json_t *o = json_pack("{s:s, s:s, s:s, s:i, s:f, s:f, s:f, s:o}", "cpu", p->cpu, "version",
                          p->version, "isa", p->isa, "threads", p->threads, "half_bytes_per_s",
                          p->half_bandwidth, "both_halves_bytes_per_s", p->both_bandwidth,
                          "dispatch_us", p->op_us, "types", types);
    if (o && p->paced_bandwidth[0] > 0)
        json_object_set_new(o, "paced_halves_bytes_per_s",
                            json_pack("[f, f]", p->paced_bandwidth[0], p->paced_bandwidth[1]));
    return o;
}

/* ---- keeping -------------------------------------------------------------------------------------------------------- */

static bool path_of(char *path, size_t bytes, const profile *p)
{
    char folder[3800], key[256];
    if (os_user_dir(folder, sizeof folder, "cache", NULL) != STATUS_OK)
        return false;
    snprintf(key, sizeof key, "%s|%s|%s|%d", p->cpu, p->version, p->isa, p->threads);
    uint64_t hash = hash_bytes(key, strlen(key), 8);
    return (size_t)snprintf(path, bytes, "%s/profile-%016llx.json", folder,
                            (unsigned long long)hash) < bytes;
}

static double number_of(json_t *o, const char *key)
{
    double x = json_number_value(json_object_get(o, key));
    return x > 0 && x < 1e18 ? x : 0;
}

static bool same_text(json_t *o, const char *key, const char *text)
{
    const char *value = json_string_value(json_object_get(o, key));
    return value && !strcmp(value, text);
}

/* Whether the file is of this machine and whole. */
static bool read_kept(profile *p, json_t *o)
{
    json_t *types = json_object_get(o, "types"), *item;
    size_t i;
    if (!same_text(o, "cpu", p->cpu) || !same_text(o, "version", p->version) ||
        !same_text(o, "isa", p->isa) || !json_array_size(types))
        return false;
    json_array_foreach(types, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "type"));
        profile_type *t = &p->types[p->n_types];
        if (p->n_types == PROFILE_TYPES || !name)
            return false;
        snprintf(t->name, sizeof t->name, "%.15s", name);
        t->bits = number_of(item, "bits");
        t->bandwidth = number_of(item, "bytes_per_s");
        t->rate = number_of(item, "multiply_adds_per_s");
        if (t->bits <= 0 || t->bandwidth <= 0 || t->rate <= 0)
            return false;
        p->n_types++;
    }
    p->half_bandwidth = number_of(o, "half_bytes_per_s");
    p->both_bandwidth = number_of(o, "both_halves_bytes_per_s");
    p->op_us = number_of(o, "dispatch_us");
    return true;
}

static void keep(const profile *p)
{
    char path[4096], *text;
    json_t *o = profile_json(p);
    if (o && path_of(path, sizeof path, p) && (text = json_dumps(o, JSON_INDENT(1)))) {
        char folder[4096];
        err e;
        snprintf(folder, sizeof folder, "%s", path);
        *strrchr(folder, '/') = '\0';
        if (os_make_dirs(folder, 0700, &e) != STATUS_OK ||
            os_write_file(path, text, strlen(text), 0600, &e) != STATUS_OK)
            log_debug("cli", "the profile is not kept: %s", e.text);
        free(text);
    }
    json_decref(o);
}

static status begin(profile *p, const kernel_table **k, const char *isa, err *e)
{
    *p = (profile){.threads = os_cpu_count()};
    status s = kernel_select(k, os_cpu_features(), isa && *isa ? isa : NULL, e);
    if (s != STATUS_OK)
        return s;
    snprintf(p->cpu, sizeof p->cpu, "%s", os_cpu_name());
    snprintf(p->version, sizeof p->version, "%s", SHOAL_VERSION);
    snprintf(p->isa, sizeof p->isa, "%s", (*k)->name);
    return s;
}

status profile_measure(profile *out, const char *isa, const double paces[2], err *e)
{
    const kernel_table *k;
    profile p;
    status s = begin(&p, &k, isa, e);
    if (s == STATUS_OK)
        s = measure(&p, k, paces, e);
    if (s == STATUS_OK)
        *out = p;
    return s;
}

status profile_get(profile *out, const char *isa, bool again, err *e)
{
    const kernel_table *k;
    profile p;
    char path[4096];
    status s = begin(&p, &k, isa, e);
    if (s != STATUS_OK)
        return s;
    if (!again && path_of(path, sizeof path, &p)) {
        json_t *o = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
        profile kept = p;
        bool good = o && read_kept(&kept, o);
        json_decref(o);
        if (good) {
            *out = kept;
            return STATUS_OK;
        }
    }
    if ((s = measure(&p, k, (const double[]){1, 1}, e)) != STATUS_OK)
        return s;
    keep(&p);
    *out = p;
    return STATUS_OK;
}

status profile_node(plan_node *out, const profile *p, const char *name, double bits, err *e)
{
    os_memory_info info;
    status s = os_memory(&info, e);
    if (s != STATUS_OK)
        return s;
    int nearest = 0;
    for (int i = 1; i < p->n_types; i++) {
        double a = p->types[i].bits - bits, b = p->types[nearest].bits - bits;
        if (a * a < b * b)
            nearest = i;
    }
    plan_node n = {.host = -1, .measured = true, .memory_bytes = (double)info.available_bytes};
    n.reserve_bytes = 0.04 * n.memory_bytes;
    n.bandwidth = p->types[nearest].bandwidth;
    n.rate = p->types[nearest].rate;
    snprintf(n.name, sizeof n.name, "%s", name);
    *out = n;
    return STATUS_OK;
}
