/*
 * Clusters that nobody here owns: from a JSON file, or from a short text. Every name is looked up in the planner's tables, every number has
 * a range, and a file that says two things about one link or node is refused. Unknown keys are refused too: a typing error must not
 * change a plan in silence.
 */
#include "cli/plans.h"
#include "cli/profile.h"
#include "os/os.h"

#include <string.h>

#define MEMORY_LEAST (1 << 20) /* bytes: "64" is a forgotten G */

typedef struct reader {
    plans_cluster *to;
    const char *path;
    bool said[PLAN_NODES][PLAN_NODES]; /* by "links" */
    char hosts[PLAN_NODES][PLAN_NAME];
    int n_hosts;
    err *e;
} reader;

static status check_keys(const reader *r, const char *where, json_t *o, const char *known)
{
    const char *key;
    json_t *value;
    char word[PLAN_NAME + 2];
    json_object_foreach(o, key, value)
    {
        snprintf(word, sizeof word, " %.60s ", key);
        if (!strstr(known, word))
            return err_set(r->e, STATUS_INVALID, "%s: %s has an unknown key '%.60s'; known are%.*s",
                           r->path, where, key, (int)strlen(known) - 1, known);
    }
    return STATUS_OK;
}

static status get_text(const reader *r, const char *where, json_t *o, const char *key,
                       const char **out)
{
    json_t *v = json_object_get(o, key);
    if (!v)
        return STATUS_OK;
    if (!json_is_string(v) || !*json_string_value(v) ||
        strlen(json_string_value(v)) >= PLAN_NAME - 8)
        return err_set(r->e, STATUS_INVALID, "%s: '%s' of %s must be a text of 1 to %d bytes",
                       r->path, key, where, PLAN_NAME - 9);
    *out = json_string_value(v);
    return STATUS_OK;
}

static status get_number(const reader *r, const char *where, json_t *o, const char *key, double low,
                         double high, double *out)
{
    json_t *v = json_object_get(o, key);
    if (!v)
        return STATUS_OK;
    double x = json_number_value(v);
    if (!json_is_number(v) || !(x >= low && x <= high))
        return err_set(r->e, STATUS_INVALID, "%s: '%s' of %s must be a number from %g to %g",
                       r->path, key, where, low, high);
    *out = x;
    return STATUS_OK;
}

static status get_count(const reader *r, const char *where, json_t *o, int *out)
{
    json_t *v = json_object_get(o, "count");
    if (!v)
        return STATUS_OK;
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v) || n < 1 || n > PLAN_NODES)
        return err_set(r->e, STATUS_INVALID,
                       "%s: 'count' of %s must be a whole number from 1 to %d", r->path, where,
                       PLAN_NODES);
    *out = (int)n;
    return STATUS_OK;
}

/* ---- nodes ---------------------------------------------------------------------------------------------------------- */

/* this: the machine that plans, measured later. */
static status add_nodes(reader *r, const plan_node *like, bool this_one, const char *name,
                        int count)
{
    plan_cluster *c = &r->to->cluster;
    if (c->n_nodes + count > PLAN_NODES)
        return err_set(r->e, STATUS_INVALID, "%s: more than %d nodes", r->path, PLAN_NODES);
    for (int i = 0; i < count; i++) {
        plan_node *node = &r->to->nodes[c->n_nodes];
        *node = *like;
        r->to->is_this[c->n_nodes] = this_one;
        if (count > 1)
            snprintf(node->name, sizeof node->name, "%.50s-%d", name, i + 1);
        else
            snprintf(node->name, sizeof node->name, "%.60s", name);
        for (int k = 0; k < c->n_nodes; k++)
            if (!strcmp(r->to->nodes[k].name, node->name))
                return err_set(r->e, STATUS_INVALID,
                               "%s: two nodes have the name '%s'; give them different ones",
                               r->path, node->name);
        c->n_nodes++;
    }
    return STATUS_OK;
}

/* The host's number, the same for all nodes that name it; each node has one host at most, so there are never more than nodes. */
static int host_of(reader *r, const char *host)
{
    for (int i = 0; i < r->n_hosts; i++)
        if (!strcmp(r->hosts[i], host))
            return i;
    snprintf(r->hosts[r->n_hosts], PLAN_NAME, "%s", host);
    return r->n_hosts++;
}

/* What the devices of a host read together is said once, or each time the same; those that do not say it are told. */
static status settle_hosts(reader *r)
{
    plan_cluster *c = &r->to->cluster;
    plan_node *nodes = r->to->nodes;
    for (int i = 0; i < c->n_nodes; i++)
        for (int k = 0; k < c->n_nodes; k++) {
            plan_node *a = &nodes[i], *b = &nodes[k];
            if (b->host >= 0 && a->host != b->host && !strcmp(a->name, r->hosts[b->host]))
                return err_set(r->e, STATUS_INVALID,
                               "%s: '%s' is a node, and the host of node '%s', which it is not on; "
                               "give one of them another name",
                               r->path, a->name, b->name);
            if (a->host < 0 || a->host != b->host || a->host_bandwidth == b->host_bandwidth ||
                a->host_bandwidth == 0)
                continue;
            if (b->host_bandwidth > 0)
                return err_set(r->e, STATUS_INVALID,
                               "%s: the nodes '%s' and '%s' contradict each other about what their "
                               "host '%s' reads: %g and %g GB/s",
                               r->path, a->name, b->name, r->hosts[a->host],
                               a->host_bandwidth / 1e9, b->host_bandwidth / 1e9);
            b->host_bandwidth = a->host_bandwidth;
        }
    return STATUS_OK;
}

static status node_numbers(reader *r, const char *where, json_t *o, plan_node *node, bool known)
{
    double bandwidth = node->bandwidth / 1e9, tflops = node->rate / 0.5e12, shared = 0;
    double reserve = node->reserve_bytes / 1e9;
    status s = get_number(r, where, o, "bandwidth_gb_s", 0.1, 1e5, &bandwidth);
    if (s == STATUS_OK)
        s = get_number(r, where, o, "tflops", 1e-4, 1e5, &tflops);
    if (s == STATUS_OK)
        s = get_number(r, where, o, "watts", 0, 1e5, &node->watts);
    if (s == STATUS_OK)
        s = get_number(r, where, o, "price", 0, 1e8, &node->price);
    if (s == STATUS_OK)
        s = get_number(r, where, o, "reserve_gb", 0, 1e5, &reserve);
    if (s == STATUS_OK)
        s = get_number(r, where, o, "host_bandwidth_gb_s", 0.1, 1e5, &shared);
    if (s != STATUS_OK)
        return s;
    if (!known && (bandwidth <= 0 || tflops <= 0 || node->memory_bytes <= 0))
        return err_set(
            r->e, STATUS_INVALID,
            "%s: %s has no 'device', so it needs 'memory', 'bandwidth_gb_s' and 'tflops'", r->path,
            where);
    node->bandwidth = bandwidth * 1e9;
    node->rate = tflops * 0.5e12;
    node->reserve_bytes = reserve * 1e9;
    node->host_bandwidth = shared * 1e9;
    return STATUS_OK;
}

static status read_node(reader *r, int index, json_t *o)
{
    char where[32];
    const char *device = NULL, *name = NULL, *memory = NULL, *host = NULL;
    const plan_device *known = NULL;
    uint64_t bytes = 0;
    int count = 1;
    snprintf(where, sizeof where, "node %d", index + 1);
    if (!json_is_object(o))
        return err_set(r->e, STATUS_INVALID, "%s: %s must be an object", r->path, where);
    status s =
        check_keys(r, where, o,
                   " device name count memory bandwidth_gb_s tflops watts price reserve_gb host "
                   "host_bandwidth_gb_s measured ");
    if (s == STATUS_OK)
        s = get_text(r, where, o, "device", &device);
    if (s == STATUS_OK)
        s = get_text(r, where, o, "name", &name);
    if (s == STATUS_OK)
        s = get_text(r, where, o, "memory", &memory);
    if (s == STATUS_OK)
        s = get_text(r, where, o, "host", &host);
    bool this_one = device && !strcmp(device, "this");
    if (s == STATUS_OK && device && !this_one &&
        plan_device_find(&known, device, r->e) != STATUS_OK)
        s = err_wrap(r->e, "%s: %s", r->path, where);
    if (s == STATUS_OK && this_one)
        s = check_keys(r, where, o, " device name memory host ");
    if (s != STATUS_OK)
        return s;
    if (memory && (!base_parse_size(memory, &bytes) || bytes < MEMORY_LEAST))
        return err_set(r->e, STATUS_INVALID,
                       "%s: 'memory' of %s must be a size such as 64G, 1M or more, got '%s'",
                       r->path, where, memory);
    static const plan_device unknown = {.name = "", .memory_gb = 0};
    plan_node node;
    plan_node_of(&node, "", known ? known : &unknown, (double)bytes);
    json_t *measured = json_object_get(o, "measured");
    if (measured && !json_is_boolean(measured))
        return err_set(r->e, STATUS_INVALID, "%s: 'measured' of %s must be true or false", r->path,
                       where);
    node.measured = this_one || json_is_true(measured);
    if ((s = node_numbers(r, where, o, &node, known || this_one)) != STATUS_OK ||
        (s = get_count(r, where, o, &count)) != STATUS_OK)
        return s;
    if (node.host_bandwidth > 0 && !host)
        return err_set(r->e, STATUS_INVALID,
                       "%s: 'host_bandwidth_gb_s' of %s is said of a host, but it has no 'host'",
                       r->path, where);
    if (r->to->cluster.n_nodes >= PLAN_NODES)
        return err_set(r->e, STATUS_INVALID, "%s: more than %d nodes", r->path, PLAN_NODES);
    node.host = host ? host_of(r, host) : -1;
    return add_nodes(r, &node, this_one, name ? name : device ? device : where, count);
}

/* ---- links ---------------------------------------------------------------------------------------------------------- */

static status read_link(const reader *r, const char *where, json_t *o, plan_link *out)
{
    const char *name = NULL;
    const plan_link_kind *kind;
    double latency = out->latency_us, gbit = out->bandwidth * 8 / 1e9;
    if (json_is_string(o)) {
        if (plan_link_find(&kind, json_string_value(o), r->e) != STATUS_OK)
            return err_wrap(r->e, "%s: %s", r->path, where);
        *out = plan_link_of(kind);
        return STATUS_OK;
    }
    if (!json_is_object(o))
        return err_set(r->e, STATUS_INVALID, "%s: %s must be a link's name or an object", r->path,
                       where);
    status s = check_keys(r, where, o, " between link latency_us gbit_s ");
    if (s == STATUS_OK)
        s = get_text(r, where, o, "link", &name);
    if (s == STATUS_OK && name && plan_link_find(&kind, name, r->e) != STATUS_OK)
        s = err_wrap(r->e, "%s: %s", r->path, where);
    if (s != STATUS_OK)
        return s;
    if (name) {
        *out = plan_link_of(kind);
        latency = kind->latency_us;
        gbit = kind->gbit_s;
    }
    s = get_number(r, where, o, "latency_us", 0, 1e7, &latency);
    if (s == STATUS_OK)
        s = get_number(r, where, o, "gbit_s", 0, 1e5, &gbit);
    *out = (plan_link){latency, gbit * 1e9 / 8};
    return s;
}

/* A node's own name, or the name that a group of `count` was given, or its host's. */
static bool named(const reader *r, const plan_node *node, const char *name)
{
    size_t n = strlen(name);
    if (!strcmp(node->name, name) || (node->host >= 0 && !strcmp(r->hosts[node->host], name)))
        return true;
    return !strncmp(node->name, name, n) && node->name[n] == '-' &&
           strspn(node->name + n + 1, "0123456789") == strlen(node->name + n + 1);
}

static status set_link(reader *r, const char *where, int i, int k, plan_link l)
{
    size_t n = (size_t)r->to->cluster.n_nodes;
    plan_link *a = &r->to->links[(size_t)i * n + (size_t)k];
    if (r->said[i][k] && (a->latency_us != l.latency_us || a->bandwidth != l.bandwidth))
        return err_set(
            r->e, STATUS_INVALID,
            "%s: %s contradicts an earlier one about %s and %s (%g us, %g Gbit/s there; %g us, "
            "%g Gbit/s here)",
            r->path, where, r->to->nodes[i].name, r->to->nodes[k].name, a->latency_us,
            a->bandwidth * 8 / 1e9, l.latency_us, l.bandwidth * 8 / 1e9);
    *a = r->to->links[(size_t)k * n + (size_t)i] = l;
    r->said[i][k] = r->said[k][i] = true;
    return STATUS_OK;
}

static status read_between(reader *r, int index, json_t *o)
{
    char where[32];
    json_t *between = json_object_get(o, "between");
    const char *a = json_string_value(json_array_get(between, 0));
    const char *b = json_string_value(json_array_get(between, 1));
    plan_link l = r->to->common;
    bool any_a = false, any_b = false, any_pair = false;
    snprintf(where, sizeof where, "link %d", index + 1);
    if (!json_is_object(o) || json_array_size(between) != 2 || !a || !b)
        return err_set(r->e, STATUS_INVALID, "%s: %s needs \"between\": [two names of nodes]",
                       r->path, where);
    status s = read_link(r, where, o, &l);
    int n = r->to->cluster.n_nodes;
    for (int i = 0; i < n && s == STATUS_OK; i++) {
        any_a |= named(r, &r->to->nodes[i], a);
        any_b |= named(r, &r->to->nodes[i], b);
        for (int k = 0; k < n && s == STATUS_OK; k++)
            if (i != k && named(r, &r->to->nodes[i], a) && named(r, &r->to->nodes[k], b)) {
                s = set_link(r, where, i, k, l);
                any_pair = true;
            }
    }
    if (s == STATUS_OK && (!any_a || !any_b))
        return err_set(r->e, STATUS_INVALID, "%s: %s names '%s', which is no node of the file",
                       r->path, where, any_a ? b : a);
    if (s == STATUS_OK && !any_pair)
        return err_set(r->e, STATUS_INVALID, "%s: %s joins '%s' with itself", r->path, where, a);
    return s;
}

static void fill_links(plans_cluster *c, plan_link host)
{
    int n = c->cluster.n_nodes;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++) {
            bool same = c->nodes[i].host >= 0 && c->nodes[i].host == c->nodes[k].host;
            c->links[i * n + k] = same ? host : c->common;
        }
    c->cluster.nodes = c->nodes;
    c->cluster.links = c->links;
}

static status read_cluster(reader *r, json_t *root)
{
    const plan_link_kind *kind;
    json_t *nodes = json_object_get(root, "nodes"), *links = json_object_get(root, "links"), *item;
    size_t i;
    status s = check_keys(r, "the file", root, " link host_link nodes links ");
    if (s != STATUS_OK)
        return s;
    if (!json_array_size(nodes))
        return err_set(r->e, STATUS_INVALID, "%s: expected \"nodes\": [at least one]", r->path);
    if (links && !json_is_array(links))
        return err_set(r->e, STATUS_INVALID, "%s: 'links' must be an array", r->path);
    json_array_foreach(nodes, i, item) if ((s = read_node(r, (int)i, item)) != STATUS_OK) return s;
    if ((s = settle_hosts(r)) != STATUS_OK)
        return s;
    s = plan_link_find(&kind, "1gbe", r->e);
    r->to->common = s == STATUS_OK ? plan_link_of(kind) : (plan_link){0, 0};
    if (json_object_get(root, "link") && s == STATUS_OK)
        s = read_link(r, "'link'", json_object_get(root, "link"), &r->to->common);
    plan_link host = {10, 25e9};
    if (json_object_get(root, "host_link") && s == STATUS_OK)
        s = read_link(r, "'host_link'", json_object_get(root, "host_link"), &host);
    fill_links(r->to, host);
    json_array_foreach(links, i, item) if (s == STATUS_OK) s = read_between(r, (int)i, item);
    return s;
}

static status read_file(reader *r)
{
    json_error_t at;
    if (os_is_dir(r->path))
        return err_set(r->e, STATUS_INVALID, "--cluster: %s is a folder, expected a JSON file",
                       r->path);
    json_t *root = json_load_file(r->path, JSON_REJECT_DUPLICATES, &at);
    if (!root)
        return at.line > 0
                   ? err_set(r->e, STATUS_CORRUPT, "%s: line %d: %s", r->path, at.line, at.text)
                   : err_set(r->e, STATUS_NOT_FOUND, "--cluster: %s", at.text);
    status s = json_is_object(root) ? read_cluster(r, root)
                                    : err_set(r->e, STATUS_INVALID,
                                              "%s: expected an object with \"nodes\"", r->path);
    json_decref(root);
    return s;
}

/* ---- the short text ------------------------------------------------------------------------------------------------- */

/* "8xm4-pro/64G" */
static status read_short(reader *r, char *part)
{
    const plan_device *device;
    plan_node node;
    uint64_t count = 1, bytes = 0;
    char *memory = strchr(part, '/'), *times = part + strspn(part, "0123456789");
    if (memory)
        *memory++ = '\0';
    if (times > part && (*times == 'x' || *times == '*')) {
        *times = '\0';
        if (!base_parse_u64(part, &count) || count < 1 || count > PLAN_NODES)
            return err_set(r->e, STATUS_INVALID, "--cluster: '%s' is no number from 1 to %d", part,
                           PLAN_NODES);
        part = times + 1;
    }
    if (!*part)
        return err_set(r->e, STATUS_INVALID,
                       "--cluster: expected COUNTxDEVICE/MEMORY with commas between, such as "
                       "2xm4-pro/64G, or a file that ends in .json; a device's name is missing");
    if (memory && (!base_parse_size(memory, &bytes) || bytes < MEMORY_LEAST))
        return err_set(r->e, STATUS_INVALID,
                       "--cluster: '%s' is no size of a memory such as 64G, 1M or more", memory);
    if (!strcmp(part, "this")) {
        node = (plan_node){.host = -1, .measured = true, .memory_bytes = (double)bytes};
        return count == 1 ? add_nodes(r, &node, true, "this", 1)
                          : err_set(r->e, STATUS_INVALID, "--cluster: 'this' is one machine");
    }
    if (plan_device_find(&device, part, r->e) != STATUS_OK)
        return err_wrap(r->e, "--cluster");
    plan_node_of(&node, "", device, (double)bytes);
    return add_nodes(r, &node, false, device->name, (int)count);
}

static status read_text(reader *r, const char *text)
{
    char copy[512];
    const plan_link_kind *kind;
    if (strlen(text) >= sizeof copy)
        return err_set(r->e, STATUS_INVALID, "--cluster: longer than %zu bytes", sizeof copy - 1);
    snprintf(copy, sizeof copy, "%s", text);
    char *link = strchr(copy, '@');
    if (link)
        *link++ = '\0';
    if (link && strpbrk(link, ",/"))
        return err_set(
            r->e, STATUS_INVALID,
            "--cluster: '%s' behind @: expected one link, of all machines, at the end; a "
            "file can say more (docs/planner.md)",
            link);
    if (plan_link_find(&kind, link ? link : "1gbe", r->e) != STATUS_OK)
        return err_wrap(r->e, "--cluster");
    r->to->common = plan_link_of(kind);
    for (char *part = copy, *next; part; part = next) {
        next = strchr(part, ',');
        if (next)
            *next++ = '\0';
        status s = read_short(r, part);
        if (s != STATUS_OK)
            return s;
    }
    fill_links(r->to, r->to->common);
    return STATUS_OK;
}

status plans_cluster_read(plans_cluster **out, const char *text, err *e)
{
    plans_cluster *c = base_zalloc(1, sizeof *c);
    reader *r = base_zalloc(1, sizeof *r);
    status s;
    size_t n = strlen(text);
    if (!c || !r) {
        s = err_set(e, STATUS_NO_MEMORY, "no memory for a cluster");
    } else {
        *r = (reader){.to = c, .path = text, .e = e};
        bool file = (n > 5 && !strcmp(text + n - 5, ".json")) || text[0] == '/' || text[0] == '.';
        s = file ? read_file(r) : read_text(r, text);
    }
    base_free(r);
    if (s != STATUS_OK) {
        base_free(c);
        return s;
    }
    *out = c;
    return STATUS_OK;
}

status plans_measure(plans_cluster *c, double bits, err *e)
{
    profile p;
    bool known = false;
    for (int i = 0; i < c->cluster.n_nodes; i++) {
        plan_node *node = &c->nodes[i], measured;
        if (!c->is_this[i])
            continue;
        if (known)
            return err_set(e, STATUS_INVALID, "two nodes are 'this'; a machine can be one only");
        status s = profile_get(&p, NULL, false, e);
        if (s == STATUS_OK)
            s = profile_node(&measured, &p, node->name, bits, e);
        if (s != STATUS_OK)
            return s;
        known = true;
        measured.host = node->host;
        if (node->memory_bytes > 0) { /* as told: a plan for when nothing else runs */
            measured.memory_bytes = node->memory_bytes;
            measured.reserve_bytes = 0.04 * node->memory_bytes;
        }
        *node = measured;
    }
    return STATUS_OK;
}
