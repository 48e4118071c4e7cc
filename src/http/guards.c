/*
 * guards: may a page or program with these Host and Origin headers talk to us? A web page of a stranger that a browser on this
 * machine shows can reach loopback servers; a name of the stranger's that resolves to 127.0.0.1 (DNS rebinding) shows in Host,
 * a page of another site in Origin. So Host must be a name that can only mean this machine, and Origin one that was allowed.
 *
 * Not here: API keys (src/api), the CORS headers of answers (answer.c).
 */
#include "http/http_internal.h"

#include <arpa/inet.h>
#include <string.h>

static status copy_list(char ***out, size_t *out_n, bool *any, const char *const *list, size_t n,
                        err *e)
{
    *out = base_zalloc(n ? n : 1, sizeof **out);
    if (!*out)
        return err_set(e, STATUS_NO_MEMORY, "http: no memory for the lists of allowed hosts");
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], "*") == 0) {
            *any = true;
            continue;
        }
        char *copy = base_strdup(list[i]);
        if (!copy)
            return err_set(e, STATUS_NO_MEMORY, "http: no memory for the lists of allowed hosts");
        (*out)[(*out_n)++] = copy;
    }
    return STATUS_OK;
}

status http_allow_init(http_allow *a, const http_options *o, err *e)
{
    *a = (http_allow){0};
    status s = copy_list(&a->hosts, &a->n_hosts, &a->any_host, o->hosts, o->n_hosts, e);
    if (s == STATUS_OK)
        s = copy_list(&a->origins, &a->n_origins, &a->any_origin, o->origins, o->n_origins, e);
    if (s != STATUS_OK)
        http_allow_fini(a);
    return s;
}

void http_allow_fini(http_allow *a)
{
    for (size_t i = 0; i < a->n_hosts; i++)
        base_free(a->hosts[i]);
    for (size_t i = 0; i < a->n_origins; i++)
        base_free(a->origins[i]);
    base_free(a->hosts);
    base_free(a->origins);
    *a = (http_allow){0};
}

static bool is_loopback_name(const char *name)
{
    size_t n = strlen(name);
    return strcmp(name, "localhost") == 0 || strcmp(name, "127.0.0.1") == 0 ||
           strcmp(name, "::1") == 0 || (n > 10 && strcmp(name + n - 10, ".localhost") == 0);
}

static bool is_ip_literal(const char *name)
{
    unsigned char address[16];
    return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

static bool host_allowed(const http_allow *a, const char *text, bool local)
{
    char name[256];
    int port;
    if (a->any_host)
        return true;
    if (!http_split_host(text, name, sizeof name, &port))
        return false;
    if (is_loopback_name(name) || (!local && is_ip_literal(name)))
        return true;
    for (size_t i = 0; i < a->n_hosts; i++)
        if (http_same_name(a->hosts[i], name))
            return true;
    return false;
}

static bool origin_allowed(const http_allow *a, const char *origin, const char *host)
{
    if (a->any_origin)
        return true;
    for (size_t i = 0; i < a->n_origins; i++)
        if (http_same_name(a->origins[i], origin))
            return true;
    const char *rest = strncmp(origin, "http://", 7) == 0    ? origin + 7
                       : strncmp(origin, "https://", 8) == 0 ? origin + 8
                                                             : NULL;
    if (!rest)
        return false;
    char name[256], own[256];
    int port, own_port;
    if (!http_split_host(rest, name, sizeof name, &port))
        return false;
    if (is_loopback_name(name))
        return true;
    /* The server's own pages: Host has been checked before. */
    return host && http_split_host(host, own, sizeof own, &own_port) && strcmp(name, own) == 0 &&
           port == own_port;
}

bool http_guard(const http_allow *a, const http_head *h, bool local, http_refusal *why)
{
    const char *hosts[2] = {h->host, h->authority};
    for (int i = 0; i < 2; i++) {
        if (hosts[i] && !host_allowed(a, hosts[i], local)) {
            http_refuse(
                why, 403,
                "host \"%.80s\" is not allowed here; start the server with it in its list of hosts",
                hosts[i]);
            return false;
        }
    }
    if (h->origin && !origin_allowed(a, h->origin, h->host)) {
        http_refuse(
            why, 403,
            "origin \"%.80s\" is not allowed here; start the server with it in its list of origins",
            h->origin);
        return false;
    }
    return true;
}
