/*
 * shoal doctor: what this machine is to shoal (cores, instruction sets and whether their kernels compute what they must, memory and its
 * bandwidth, limits, the port, folders), and what is wrong with it and what to do. Exit code 1 when something is wrong that stops
 * shoal from working; things that only make it slower or smaller are told and give 0. Takes about a second and a half.
 */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/engine_options.h"
#include "cli/look.h"
#include "cli/profile.h"
#include "http/http.h"
#include "kernel/kernel.h"
#include "os/os.h"
#include "store/store.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PATH = 4096, PORT = 52415, FEW_DESCRIPTORS = 1024 };

#define GIB ((uint64_t)1 << 30)

typedef struct doctor {
    json_t *facts, *problems;
    look l;
    bool json, broken;
} doctor;

/* ---- telling ------------------------------------------------------------------------------------------------------- */

static void tell(doctor *d, const char *what, const char *format, ...) BASE_PRINTF(3, 4);

static void tell(doctor *d, const char *what, const char *format, ...)
{
    sb text = {0}, clean = {0};
    va_list args;
    if (d->json)
        return;
    va_start(args, format);
    sb_vprintf(&text, format, args);
    va_end(args);
    look_clean(&clean, text.data ? text.data : "", text.length);
    printf("%s%-14s%s  %s\n", d->l.dim, what, d->l.off, clean.data ? clean.data : "");
    sb_fini(&text);
    sb_fini(&clean);
}

/* grave: shoal does not work as it is. */
static void wrong(doctor *d, bool grave, const char *remedy, const char *format, ...)
    BASE_PRINTF(4, 5);

static void wrong(doctor *d, bool grave, const char *remedy, const char *format, ...)
{
    sb text = {0};
    va_list args;
    va_start(args, format);
    sb_vprintf(&text, format, args);
    va_end(args);
    json_array_append_new(d->problems, json_pack("{s:o, s:s, s:b}", "what",
                                                 look_json_text(text.data ? text.data : ""),
                                                 "remedy", remedy, "grave", grave));
    d->broken |= grave;
    sb_fini(&text);
}

static void fact(doctor *d, const char *key, json_t *value)
{
    json_object_set_new(d->facts, key, value);
}

static json_t *whole(uint64_t n)
{
    return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n);
}

/* ---- processor ----------------------------------------------------------------------------------------------------- */

/* isa: the one that --isa asks for, NULL = the best */
static void look_at_kernels(doctor *d, const char *isa)
{
    const kernel_table *best = NULL;
    unsigned features = os_cpu_features();
    json_t *list = json_array();
    err e;
    if (kernel_select(&best, features, isa, &e) != STATUS_OK)
        wrong(d, true, "report this", "no kernels: %s", e.text);
    for (int i = 0; kernel_table_at(i); i++) {
        const kernel_table *k = kernel_table_at(i);
        bool runs = kernel_runs(k, features);
        bool good = runs && kernel_self_test(k, &e) == STATUS_OK;
        const char *how = !runs       ? "not on this processor"
                          : !good     ? "WRONG RESULTS"
                          : k == best ? "self-test passed, in use"
                                      : "self-test passed";
        tell(d, i ? "" : "kernels", "%-12s %s", k->name, how);
        if (runs && !good)
            wrong(d, true,
                  "force another one with --isa (or isa = … in shoal.conf); the processor, its "
                  "memory or the compiler is at fault",
                  "the %s kernels compute wrong results: %s", k->name, e.text);
        json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:b}", "name", k->name, "runs", runs,
                                              "passed", good, "in_use", k == best));
    }
    fact(d, "kernels", list);
    tell(d, "numerics", "%s", KERNEL_NUMERICS);
    fact(d, "numerics", json_string(KERNEL_NUMERICS));
    if (best && best->features == 0 && !isa)
        wrong(d, false, "nothing to do but a newer processor",
              "only the portable kernels run here: several times slower than this machine's peers");
}

static void look_at_processor(doctor *d)
{
    char cache[32];
    int cores = os_cpu_count();
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t level = os_cpu_last_level_cache();
    tell(d, "processor", "%s", os_cpu_name());
    tell(d, "cores", "%d usable%s%s", cores, level ? ", last-level cache " : "",
         level ? base_format_bytes(cache, level) : "");
    fact(d, "processor", look_json_text(os_cpu_name()));
    fact(d, "cores", json_integer(cores));
    fact(d, "last_level_cache_bytes", whole(level));
    if (online > cores)
        wrong(d, false, "give this process all cores (taskset, cgroup CPU quota) if they are yours",
              "only %d of %ld cores may be used", cores, online);
}

/* ---- memory -------------------------------------------------------------------------------------------------------- */

typedef struct reading {
    uint64_t *words;
    uint64_t sums[1024]; /* by worker, so that nothing is optimised away */
} reading;

static void read_words(void *context, int64_t begin, int64_t end, int worker)
{
    reading *r = context;
    uint64_t a = 0, b = 0, c = 0, e = 0;
    for (int64_t i = begin; i < end; i += 4) {
        a += r->words[i];
        b += r->words[i + 1];
        c += r->words[i + 2];
        e += r->words[i + 3];
    }
    r->sums[worker % 1024] += a + b + c + e;
}

static void write_words(void *context, int64_t begin, int64_t end, int worker)
{
    reading *r = context;
    (void)worker;
    memset(r->words + begin, 1, (size_t)(end - begin) * sizeof *r->words);
}

/* Bytes read a second by all cores together from memory that no cache holds, in the best of several passes (others may be using the
 * machine); 0 = could not be measured. */
static double measure_bandwidth(uint64_t available)
{
    enum { PIECE = 64 << 10, MEASURE_US = 1000000 };
    uint64_t cache = os_cpu_last_level_cache(), fastest = UINT64_MAX, began = os_now_us();
    uint64_t bytes = BASE_MIN(BASE_MAX(2 * cache, 256u << 20), 768u << 20);
    static reading r;
    os_pool *pool;
    void *memory;
    bytes = BASE_MIN(bytes, available / 4) / PIECE * PIECE;
    if (bytes < 16u << 20 || os_slab_create(&memory, bytes, NULL) != STATUS_OK)
        return 0;
    if (os_pool_create(&pool, os_cpu_count(), NULL) != STATUS_OK) {
        os_slab_destroy(memory, bytes);
        return 0;
    }
    r.words = memory;
    os_pool_run(pool, write_words, &r, (int64_t)(bytes / 8), PIECE / 8);
    do {
        uint64_t pass = os_now_us();
        os_pool_run(pool, read_words, &r, (int64_t)(bytes / 8), PIECE / 8);
        fastest = BASE_MIN(fastest, os_now_us() - pass);
    } while (os_now_us() - began < MEASURE_US);
    os_pool_destroy(pool);
    os_slab_destroy(memory, bytes);
    return (double)bytes * 1e6 / (double)BASE_MAX(fastest, (uint64_t)1);
}

static void look_at_memory(doctor *d)
{
    os_memory_info m;
    char total[32], available[32];
    err e;
    if (os_memory(&m, &e) != STATUS_OK) {
        wrong(d, false, "report this", "how much memory there is cannot be told: %s", e.text);
        return;
    }
    tell(d, "memory", "%s, %s available", base_format_bytes(total, m.total_bytes),
         base_format_bytes(available, m.available_bytes));
    fact(d, "memory_bytes", whole(m.total_bytes));
    fact(d, "available_bytes", whole(m.available_bytes));
    if (m.available_bytes < GIB)
        wrong(d, false, "end other programs, or keep to models smaller than that",
              "only %s of memory are available", available);
    double rate = measure_bandwidth(m.available_bytes);
    fact(d, "read_bytes_per_s", json_real(rate));
    if (rate > 0)
        tell(d, "bandwidth",
             "%.1f GB/s read by all cores; a token of a model of 1 GB takes at least %.0f ms",
             rate / 1e9, 1e12 / rate);
    else
        wrong(d, false, "free some memory", "the memory's bandwidth could not be measured");
}

/* ---- limits, port, folders ----------------------------------------------------------------------------------------- */

static void look_at_limits(doctor *d)
{
    uint64_t descriptors = 0;
    struct rlimit lock;
    char text[32] = "unlimited";
    if (os_raise_descriptor_limit(&descriptors)) {
        fact(d, "descriptors", whole(descriptors));
        if (descriptors < FEW_DESCRIPTORS)
            wrong(d, false, "raise the hard limit of open files (ulimit -Hn, LimitNOFILE=)",
                  "only %llu files and connections may be open", (unsigned long long)descriptors);
    }
    if (getrlimit(RLIMIT_MEMLOCK, &lock) != 0)
        lock.rlim_cur = RLIM_INFINITY;
    if (lock.rlim_cur != RLIM_INFINITY)
        base_format_bytes(text, (uint64_t)lock.rlim_cur);
    fact(d, "memlock_bytes",
         lock.rlim_cur == RLIM_INFINITY ? json_null() : whole((uint64_t)lock.rlim_cur));
    tell(d, "limits", "%llu descriptors, %s of locked memory", (unsigned long long)descriptors,
         text);
}

/* Whether the usual port could be listened on; e says why not. */
static bool port_is_free(err *e)
{
    http_loop *loop;
    http_server *server = NULL;
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%d", PORT);
    if (http_loop_create(&loop, e) != STATUS_OK)
        return false;
    bool is_free = http_server_create(&server, loop, NULL, NULL, NULL, e) == STATUS_OK &&
                   http_server_listen(server, address, NULL, e) == STATUS_OK;
    if (server)
        http_server_destroy(server);
    http_loop_destroy(loop);
    return is_free;
}

static void look_at_port(doctor *d)
{
    client_node running;
    err e;
    bool up = client_find_node(&running), is_free = port_is_free(&e);
    if (up) {
        tell(d, "node", "running at %s, pid %lld", running.url, (long long)running.pid);
        fact(d, "node",
             json_pack("{s:o, s:I}", "url", look_json_text(running.url), "pid",
                       (json_int_t)running.pid));
    } else {
        tell(d, "node", "not running (`shoal serve` starts one)");
        fact(d, "node", json_null());
    }
    bool ours = !is_free && client_is_node("http://127.0.0.1:52415");
    char holder[128] = "another program";
    if (!is_free && !os_port_holder(holder, sizeof holder, PORT) && ours)
        snprintf(holder, sizeof holder, "a node of shoal");
    const char *who = is_free ? "free" : holder;
    tell(d, "port", "%d: %s", PORT, who);
    fact(d, "port", json_pack("{s:i, s:s}", "number", PORT, "state", who));
    if (!is_free && !ours)
        wrong(d, false,
              "end it (`ss -ltnp sport = :52415` or `lsof -i :52415` tells more), or use --port",
              "port %d is taken by %s: %s", PORT, holder, e.text);
    else if (ours && !up)
        wrong(d, false,
              "it may belong to another user or another HOME; that is fine if you meant it",
              "a node answers on port %d, but its node.json is not in this state folder", PORT);
}

static void look_at_folder(doctor *d, const char *kind)
{
    char path[PATH], parent[PATH];
    uint64_t space;
    err e;
    if (os_user_dir(path, sizeof path, kind, &e) != STATUS_OK) {
        wrong(d, false, "set HOME (or XDG_…_HOME)", "no %s folder: %s", kind, e.text);
        return;
    }
    snprintf(parent, sizeof parent, "%s", path);
    while (access(parent, F_OK) != 0 && strrchr(parent, '/') && strrchr(parent, '/') != parent)
        *strrchr(parent, '/') = '\0';
    if (access(parent, W_OK) != 0)
        wrong(d, false, "make it writable; without it nothing is remembered",
              "the %s folder %s cannot be written", kind, path);
    if (!strcmp(kind, "data") && os_free_disk(&space, parent, &e) == STATUS_OK) {
        char text[32];
        tell(d, "disk", "%s free for %s", base_format_bytes(text, space), path);
        fact(d, "disk_free_bytes", whole(space));
        if (space < GIB)
            wrong(d, false, "make room", "only %s are free for %s", text, path);
    }
}

typedef struct finding {
    doctor *d;
    json_t *folders;
    int n_folders, n_models;
} finding;

static void visit_folder(void *context, const char *what, const char *path, bool exists)
{
    finding *f = context;
    if (!exists)
        return;
    tell(f->d, f->n_folders++ ? "" : "model folders", "%s (%s)", path, what);
    json_array_append_new(f->folders, look_json_text(path));
}

static status count_model(void *context, const store_model *m)
{
    finding *f = context;
    (void)m;
    f->n_models++;
    return STATUS_OK;
}

static void look_at_models(doctor *d)
{
    finding f = {.d = d, .folders = json_array()};
    err e;
    store_folders(visit_folder, &f);
    if (store_list(count_model, &f, &e) != STATUS_OK)
        wrong(d, true, "report this", "models cannot be listed: %s", e.text);
    tell(d, "models", "%d found, see `shoal list`%s", f.n_models,
         f.n_folders ? "" : "; no folder of models is there yet, see `shoal paths`");
    fact(d, "model_folders", f.folders);
    fact(d, "models", json_integer(f.n_models));
}

/* ---- all of it ----------------------------------------------------------------------------------------------------- */

static void print_problems(const doctor *d)
{
    size_t i;
    json_t *p;
    if (!json_array_size(d->problems)) {
        puts("\nNothing is wrong.");
        return;
    }
    puts("");
    json_array_foreach(d->problems, i, p)
    {
        printf("%s%s:%s %s\n   → %s\n", d->l.warn,
               json_is_true(json_object_get(p, "grave")) ? "wrong" : "note", d->l.off,
               json_string_value(json_object_get(p, "what")),
               json_string_value(json_object_get(p, "remedy")));
    }
}

/* --profile: what `shoal plan` reckons with for the node `this`. paces: NULL, or of the two halves of the cores. */
static void measure_profile(doctor *d, const char *isa, const double *paces)
{
    profile p;
    err e;
    status s = paces ? profile_measure(&p, isa, paces, &e) : profile_get(&p, isa, true, &e);
    if (s != STATUS_OK) {
        wrong(d, false, "free some memory and try again", "no profile: %s", e.text);
        return;
    }
    for (int i = 0; i < p.n_types; i++)
        tell(d, i ? "" : "profile",
             "%-5s %6.2f GB/s of weights for one token, %6.1f GMAC/s of a prompt", p.types[i].name,
             p.types[i].bandwidth / 1e9, p.types[i].rate / 1e9);
    if (p.both_bandwidth > 0)
        tell(d, "", "half of the cores %.2f GB/s, both halves at once %.2f GB/s",
             p.half_bandwidth / 1e9, p.both_bandwidth / 1e9);
    if (paces)
        tell(d, "", "halves at once at paces of %g and %g: %.2f and %.2f GB/s; not kept", paces[0],
             paces[1], p.paced_bandwidth[0] / 1e9, p.paced_bandwidth[1] / 1e9);
    else
        tell(d, "", "a dispatch takes %.1f us; kept for `shoal plan --cluster this,…`", p.op_us);
    fact(d, "profile", profile_json(&p));
}

static bool read_paces(double paces[2], const char *text)
{
    char first[32];
    const char *comma = strchr(text, ',');
    if (!comma || (size_t)(comma - text) >= sizeof first)
        return false;
    memcpy(first, text, (size_t)(comma - text));
    first[comma - text] = '\0';
    return base_parse_double(first, &paces[0]) && base_parse_double(comma + 1, &paces[1]) &&
           paces[0] > 0 && paces[0] <= 1 && paces[1] > 0 && paces[1] <= 1;
}

int cli_cmd_doctor(cli *c)
{
    doctor d = {.facts = json_object(),
                .problems = json_array(),
                .l = look_of(1),
                .json = cli_flag(c, OPT_json)};
    char host[256];
    const char *text = cli_text(c, OPT_pace);
    double paces[2] = {1, 1};
    bool paced = text && *text;
    const char *isa;
    err e;
    if (paced && !read_paces(paces, text))
        return cli_usage(c, "--pace %s: expected two shares above 0 and up to 1, as 1,0.5", text);
    if (cli_read_isa(&isa, c, &e) != STATUS_OK)
        return cli_fail_err(c, &e);
    fact(&d, "version", json_string(SHOAL_VERSION));
    fact(&d, "host", look_json_text(os_host_name(host)));
    tell(&d, "shoal", "%s on %s", SHOAL_VERSION, host);
    look_at_processor(&d);
    look_at_kernels(&d, isa);
    look_at_memory(&d);
    if (cli_flag(c, OPT_profile))
        measure_profile(&d, isa, paced ? paces : NULL);
    look_at_limits(&d);
    look_at_port(&d);
    look_at_folder(&d, "data");
    look_at_folder(&d, "state");
    look_at_models(&d);
    int code;
    if (d.json) {
        json_object_set(d.facts, "problems", d.problems);
        code = look_json(c, json_incref(d.facts));
    } else {
        print_problems(&d);
        code = 0;
    }
    json_decref(d.facts);
    json_decref(d.problems);
    return code ? code : d.broken;
}
