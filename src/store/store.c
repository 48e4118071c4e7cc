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

static const store_origin *const origins[] = {&store_origin_builtin, &store_origin_shoal,
                                              &store_origin_huggingface, &store_origin_ollama,
                                              &store_origin_lmstudio};

/* ---- listing ------------------------------------------------------------------------------------------------------- */

typedef struct store_index {
    store_model *models;
    size_t n, capacity;
    arena memory;
} collected;

/* Names go to terminals and tables. */
static bool printable(const char *name)
{
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return true;
}

static status collect(void *context, const store_model *m)
{
    collected *c = context;
    if (!printable(m->name))
        return STATUS_OK;
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
        if (origins[i]->list(collect, c) == STATUS_OK)
            continue;
        release(c);
        return err_set(e, STATUS_NO_MEMORY, "store: no memory for the list of models");
    }
    if (c->n)
        qsort(c->models, c->n, sizeof *c->models, by_name);
    return STATUS_OK;
}

status store_index_create(store_index **out, err *e)
{
    collected *c = base_alloc(sizeof *c);
    if (!c)
        return err_set(e, STATUS_NO_MEMORY, "store: no memory for the list of models");
    status s = collect_all(c, e);
    if (s == STATUS_OK)
        *out = c;
    else
        base_free(c);
    return s;
}

void store_index_destroy(store_index *x)
{
    if (!x)
        return;
    release(x);
    base_free(x);
}

status store_index_list(const store_index *x, status (*visit)(void *context, const store_model *m),
                        void *context)
{
    status s = STATUS_OK;
    for (size_t i = 0; i < x->n && s == STATUS_OK; i++)
        s = visit(context, &x->models[i]);
    return s;
}

status store_list(status (*visit)(void *context, const store_model *m), void *context, err *e)
{
    collected c;
    status s = collect_all(&c, e);
    if (s != STATUS_OK)
        return s;
    s = store_index_list(&c, visit, context);
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

/* "org/name:<file>.gguf" or the same without its ending. */
static bool file_matches(const store_model *m, const char *wanted)
{
    const char *colon = strrchr(m->name, ':'), *base = strrchr(m->source, '/');
    char stem[STORE_NAME];
    if (!colon || !base || !store_gguf_name(stem, base + 1))
        return false;
    size_t n = (size_t)(colon - m->name) + 1;
    return !strncasecmp(m->name, wanted, n) &&
           (!strcasecmp(wanted + n, stem) || !strcasecmp(wanted + n, base + 1));
}

static bool begins(const store_model *m, const char *wanted)
{
    size_t n = strlen(wanted);
    return !strncasecmp(m->name, wanted, n) && m->name[n] == ':';
}

/* How far a name is from what was typed, its part behind the colon aside if that is nearer; less is nearer. */
static int farness(const char *name, const char *typed)
{
    char stem[STORE_NAME];
    if (strcasestr(name, typed))
        return 0;
    snprintf(stem, sizeof stem, "%.*s", (int)strcspn(name, ":"), name);
    return BASE_MIN(base_distance(name, typed), base_distance(stem, typed));
}

static status not_found(const collected *c, const char *name, err *e)
{
    const char *nearest = NULL;
    int best =
        (int)BASE_MIN(strlen(name) / 3 + 1, (size_t)32); /* base_distance gives up on long ones */
    for (size_t i = 0; i < c->n; i++) {
        int far = farness(c->models[i].name, name);
        if (far < best) {
            best = far;
            nearest = c->models[i].name;
        }
    }
    if (nearest && *name)
        return err_set(e, STATUS_NOT_FOUND, "there is no model '%.100s'; did you mean %.200s?",
                       name, nearest);
    sb known;
    sb_init(&known);
    for (size_t i = 0; i < c->n && known.length < 200; i++)
        sb_printf(&known, "%s%s", i ? ", " : "", c->models[i].name);
    status s = err_set(e, STATUS_NOT_FOUND, "there is no model '%.100s'; there is: %s", name,
                       known.data ? known.data : "none");
    sb_fini(&known);
    return s;
}

static status ambiguous(const collected *c, const char *name, err *e)
{
    sb which;
    sb_init(&which);
    for (size_t i = 0; i < c->n && which.length < 200; i++)
        if (begins(&c->models[i], name))
            sb_printf(&which, "%s%s", which.length ? ", " : "", c->models[i].name);
    status s = err_set(e, STATUS_CONFLICT, "'%.100s' is not enough, say which one: %s", name,
                       which.data ? which.data : "");
    sb_fini(&which);
    return s;
}

/* *out NULL and OK: none. */
static status choose(const store_model **out, const collected *c, const char *name, err *e)
{
    const store_model *by_file = NULL, *by_start = NULL;
    int n_starts = 0;
    *out = NULL;
    for (size_t i = 0; i < c->n; i++) {
        const store_model *m = &c->models[i];
        if (names_match(m->name, name)) {
            *out = m;
            return STATUS_OK;
        }
        if (!by_file && file_matches(m, name))
            by_file = m;
        if (begins(m, name)) {
            by_start = m;
            n_starts++;
        }
    }
    if (!by_file && n_starts > 1)
        return ambiguous(c, name, e);
    *out = by_file ? by_file : by_start;
    return STATUS_OK;
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

status store_index_find(const store_index *x, char *source, const char **origin, const char *name,
                        err *e)
{
    const char *from = "path";
    const store_model *found = NULL;
    status s = is_path(name) ? STATUS_OK : choose(&found, x, name, e);
    if (s != STATUS_OK)
        return s;
    if (found) {
        snprintf(source, STORE_PATH, "%s", found->source);
        from = found->origin;
    } else if (is_path(name)) {
        s = find_path(source, name, e);
    } else {
        s = not_found(x, name, e);
    }
    if (s == STATUS_OK && origin)
        *origin = from;
    return s;
}

status store_find(char *source, const char **origin, const char *name, err *e)
{
    collected c = {0};
    status s = is_path(name) ? STATUS_OK : collect_all(&c, e);
    if (s != STATUS_OK)
        return s;
    s = store_index_find(&c, source, origin, name, e);
    if (s == STATUS_NOT_FOUND && (os_is_file(name) || os_is_dir(name))) {
        s = find_path(source, name, e);
        if (s == STATUS_OK && origin)
            *origin = "path";
    }
    if (!is_path(name))
        release(&c);
    return s;
}

void store_folders(void (*visit)(void *context, const char *what, const char *path, bool exists),
                   void *context)
{
    for (size_t i = 0; i < BASE_COUNT(origins); i++)
        if (origins[i]->folders)
            origins[i]->folders(visit, context);
}
