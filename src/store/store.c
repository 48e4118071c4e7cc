/*
 * Names and sources. Each origin is a row of a table with a function that lists what it has; finding is listing and comparing, so
 * that what is listed can be found and the other way round. Paths are tried first.
 */
#include "store/store.h"
#include "os/os.h"
#include "store/origins.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const store_origin *const origins[] = {&store_origin_builtin, &store_origin_shoal};

/* ---- listing ------------------------------------------------------------------------------------------------------- */

typedef struct collected {
    store_model *models;
    size_t n, capacity;
    arena memory;
} collected;

static status collect(void *context, const store_model *m)
{
    collected *c = context;
    for (size_t i = 0; i < c->n; i++)
        if (!strcasecmp(c->models[i].name, m->name))
            return STATUS_OK;
    if (c->n == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 16;
        store_model *grown = base_realloc(c->models, capacity * sizeof *grown);
        if (!grown)
            return STATUS_NO_MEMORY;
        c->models = grown;
        c->capacity = capacity;
    }
    store_model copy = *m;
    copy.name = arena_strndup(&c->memory, m->name, strlen(m->name));
    copy.source = arena_strndup(&c->memory, m->source, strlen(m->source));
    if (!copy.name || !copy.source)
        return STATUS_NO_MEMORY;
    c->models[c->n++] = copy;
    return STATUS_OK;
}

static int by_name(const void *a, const void *b)
{
    const store_model *x = a, *y = b;
    bool builtin_x = !strcmp(x->origin, "builtin"), builtin_y = !strcmp(y->origin, "builtin");
    if (builtin_x != builtin_y)
        return builtin_y - builtin_x;
    return strcasecmp(x->name, y->name);
}

static void release(collected *c)
{
    base_free(c->models);
    arena_fini(&c->memory);
}

static status collect_all(collected *c, err *e)
{
    *c = (collected){0};
    arena_init(&c->memory, 0);
    for (size_t i = 0; i < BASE_COUNT(origins); i++) {
        status s = origins[i]->list(collect, c, e);
        if (s == STATUS_OK)
            continue;
        release(c);
        return s == STATUS_NO_MEMORY ? err_set(e, s, "store: no memory for the list of models") : s;
    }
    if (c->n)
        qsort(c->models, c->n, sizeof *c->models, by_name);
    return STATUS_OK;
}

status store_list(status (*visit)(void *context, const store_model *m), void *context, err *e)
{
    collected c;
    status s = collect_all(&c, e);
    if (s != STATUS_OK)
        return s;
    for (size_t i = 0; i < c.n && s == STATUS_OK; i++)
        s = visit(context, &c.models[i]);
    release(&c);
    return s;
}

/* ---- finding ------------------------------------------------------------------------------------------------------- */

static bool names_match(const char *known, const char *wanted)
{
    size_t n = strlen(known);
    if (!strcasecmp(known, wanted))
        return true;
    if (n > 7 && !strcasecmp(known + n - 7, ":latest"))
        return strlen(wanted) == n - 7 && !strncasecmp(known, wanted, n - 7);
    return !strncasecmp(known, wanted, n) && !strcasecmp(wanted + n, ":latest");
}

static status not_found(const collected *c, const char *name, err *e)
{
    sb known;
    sb_init(&known);
    for (size_t i = 0; i < c->n && known.length < 300; i++)
        sb_printf(&known, "%s%s", i ? ", " : "", c->models[i].name);
    status s = err_set(e, STATUS_NOT_FOUND, "there is no model '%.100s'; there is: %s", name,
                       known.data ? known.data : "none");
    sb_fini(&known);
    return s;
}

static bool is_path(const char *name)
{
    return name[0] == '/' || !strncmp(name, "./", 2) || !strncmp(name, "../", 3) ||
           !strncmp(name, "~/", 2);
}

/* A path as a person types it → absolute. */
static status find_path(char *source, const char *name, err *e)
{
    char path[STORE_PATH], full[PATH_MAX];
    const char *home = getenv("HOME");
    int n = !strncmp(name, "~/", 2) && home ? snprintf(path, sizeof path, "%s%s", home, name + 1)
                                            : snprintf(path, sizeof path, "%s", name);
    if (n < 0 || (size_t)n >= sizeof path)
        return err_set(e, STATUS_TOO_LONG, "store: the path '%.60s…' is longer than %d bytes", name,
                       STORE_PATH - 1);
    if (!realpath(path, full) || strlen(full) >= STORE_PATH)
        return err_set(e, STATUS_NOT_FOUND, "there is no file or folder '%.200s'", name);
    memcpy(source, full, strlen(full) + 1);
    return STATUS_OK;
}

status store_find(char *source, const char **origin, const char *name, err *e)
{
    const char *from = "path";
    status s = STATUS_OK;
    if (is_path(name)) {
        s = find_path(source, name, e);
    } else {
        collected c;
        s = collect_all(&c, e);
        if (s != STATUS_OK)
            return s;
        const store_model *found = NULL;
        for (size_t i = 0; i < c.n && !found; i++)
            if (names_match(c.models[i].name, name))
                found = &c.models[i];
        if (found) {
            snprintf(source, STORE_PATH, "%s", found->source);
            from = found->origin;
        } else if (os_is_file(name) || os_is_dir(name)) {
            s = find_path(source, name, e);
        } else {
            s = not_found(&c, name, e);
        }
        release(&c);
    }
    if (s == STATUS_OK && origin)
        *origin = from;
    return s;
}

void store_folders(void (*visit)(void *context, const char *what, const char *path, bool exists),
                   void *context)
{
    for (size_t i = 0; i < BASE_COUNT(origins); i++)
        if (origins[i]->folders)
            origins[i]->folders(visit, context);
}
