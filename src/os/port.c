/*
 * Who listens on a TCP port, for messages. Linux: the listening sockets of /proc/net/tcp and tcp6, then the descriptors of all processes that may
 * be looked into (those of other users only by root). Elsewhere nothing is known.
 */
#include "os/os.h"

#include <stdio.h>
#include <string.h>

#ifdef __linux__

#include <unistd.h>

enum { INODES = 16, TABLE_LIMIT = 16 << 20 };

typedef struct search {
    unsigned long inodes[INODES];
    int n_inodes;
    char folder[64]; /* /proc/<pid>/fd */
    const char *pid;
    char *out;
    size_t out_bytes;
} search;

/* Rows: "sl: address:port remote state queues timer retries uid timeout inode", numbers in hex but the inode. */
static void find_inodes(search *s, const char *table, int port)
{
    char *text;
    size_t n;
    if (os_read_file(&text, &n, table, TABLE_LIMIT, NULL) != STATUS_OK)
        return;
    for (char *line = text, *next; line && s->n_inodes < INODES; line = next) {
        unsigned local, state;
        unsigned long inode;
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        if (sscanf(line, " %*[^:]: %*[^:]:%x %*s %x %*s %*s %*s %*s %*s %lu", &local, &state,
                   &inode) == 3 &&
            local == (unsigned)port && state == 0x0a)
            s->inodes[s->n_inodes++] = inode;
    }
    base_free(text);
}

static status visit_descriptor(void *context, const os_dir_entry *entry)
{
    search *s = context;
    char path[96], link[64];
    unsigned long inode;
    if (snprintf(path, sizeof path, "%s/%.16s", s->folder, entry->name) >= (int)sizeof path)
        return STATUS_OK;
    ssize_t n = readlink(path, link, sizeof link - 1);
    if (n <= 0)
        return STATUS_OK;
    link[n] = '\0';
    if (sscanf(link, "socket:[%lu]", &inode) != 1)
        return STATUS_OK;
    for (int i = 0; i < s->n_inodes; i++)
        if (s->inodes[i] == inode)
            return STATUS_CANCELLED; /* found */
    return STATUS_OK;
}

static status visit_process(void *context, const os_dir_entry *entry)
{
    search *s = context;
    uint64_t pid;
    char path[64], *name;
    size_t n;
    if (!base_parse_u64(entry->name, &pid))
        return STATUS_OK;
    snprintf(s->folder, sizeof s->folder, "/proc/%llu/fd", (unsigned long long)pid);
    if (os_list_dir(s->folder, visit_descriptor, s, NULL) != STATUS_CANCELLED)
        return STATUS_OK;
    snprintf(path, sizeof path, "/proc/%llu/comm", (unsigned long long)pid);
    if (os_read_file(&name, &n, path, 4096, NULL) != STATUS_OK)
        name = NULL;
    if (name)
        name[strcspn(name, "\n")] = '\0';
    snprintf(s->out, s->out_bytes, "%s, pid %llu", name && *name ? name : "a process",
             (unsigned long long)pid);
    base_free(name);
    return STATUS_CANCELLED;
}

bool os_port_holder(char *out, size_t out_bytes, int port)
{
    search s = {.out = out, .out_bytes = out_bytes};
    find_inodes(&s, "/proc/net/tcp", port);
    find_inodes(&s, "/proc/net/tcp6", port);
    return s.n_inodes && os_list_dir("/proc", visit_process, &s, NULL) == STATUS_CANCELLED;
}

#else

bool os_port_holder(char *out, size_t out_bytes, int port)
{
    (void)out;
    (void)out_bytes;
    (void)port;
    return false;
}

#endif
