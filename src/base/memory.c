/*
 * Heap and arenas. The heap functions can be told to fail at the n-th call, so that tests can walk every allocation of an
 * operation; they are otherwise the C library's. Big weight memory is not here (os_slab_create).
 */
#include "base/base.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_uint_fast64_t allocations;
static atomic_uint_fast64_t fail_at; /* the value of `allocations` that fails; 0 = none */

static bool refused(void)
{
    uint64_t n = atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed) + 1;
    return n == atomic_load_explicit(&fail_at, memory_order_relaxed);
}

void base_fail_after(uint64_t n)
{
    uint64_t now = atomic_load_explicit(&allocations, memory_order_relaxed);
    atomic_store_explicit(&fail_at, n ? now + n : 0, memory_order_relaxed);
}

uint64_t base_allocations(void)
{
    return atomic_load_explicit(&allocations, memory_order_relaxed);
}

void *base_alloc(size_t bytes)
{
    return refused() ? NULL : malloc(bytes ? bytes : 1);
}

void *base_zalloc(size_t count, size_t size)
{
    size_t
        bytes; /* checked here as well: the address sanitizer's calloc ends the process instead */
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    return refused() ? NULL : calloc(count ? count : 1, size ? size : 1);
}

void *base_realloc(void *p, size_t bytes)
{
    return refused() ? NULL : realloc(p, bytes ? bytes : 1);
}

char *base_strndup(const char *s, size_t length)
{
    if (length == SIZE_MAX)
        return NULL;
    char *copy = base_alloc(length + 1);
    if (!copy)
        return NULL;
    if (length)
        memcpy(copy, s, length);
    copy[length] = '\0';
    return copy;
}

char *base_strdup(const char *s)
{
    return base_strndup(s, strlen(s));
}

void base_free(void *p)
{
    free(p);
}

/* ---- arenas ---------------------------------------------------------------------------------------------------- */

enum { ARENA_FIRST_BLOCK = 4096, ARENA_LARGEST_BLOCK = 1 << 20 };

struct arena_block {
    arena_block *next; /* older */
    size_t capacity, used;
    _Alignas(16) unsigned char bytes[];
};

void arena_init(arena *a, size_t limit_bytes)
{
    *a = (arena){.limit = limit_bytes};
}

void arena_fini(arena *a)
{
    for (arena_block *b = a->head; b;) {
        arena_block *next = b->next;
        base_free(b);
        b = next;
    }
    *a = (arena){.limit = a->limit};
}

void arena_reset(arena *a)
{
    arena_block *newest = a->head;
    if (!newest)
        return;
    a->head = newest->next;
    newest->next = NULL;
    arena_fini(a);
    newest->used = 0;
    a->head = newest;
}

static arena_block *arena_grow(arena *a, size_t bytes)
{
    size_t capacity = a->head ? a->head->capacity * 2 : ARENA_FIRST_BLOCK;
    capacity = BASE_MIN(capacity, (size_t)ARENA_LARGEST_BLOCK);
    capacity = BASE_MAX(capacity, bytes);
    if (capacity > SIZE_MAX - sizeof(arena_block))
        return NULL;
    arena_block *b = base_alloc(sizeof *b + capacity);
    if (!b)
        return NULL;
    b->next = a->head;
    b->capacity = capacity;
    b->used = 0;
    a->head = b;
    return b;
}

void *arena_alloc(arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX - 16)
        return NULL;
    size_t rounded = (bytes + 15) & ~(size_t)15;
    if (a->limit && (rounded > a->limit || a->used > a->limit - rounded))
        return NULL;
    arena_block *b = a->head;
    if (!b || b->capacity - b->used < rounded)
        b = arena_grow(a, rounded);
    if (!b)
        return NULL;
    void *p = b->bytes + b->used;
    b->used += rounded;
    a->used += rounded;
    return p;
}

void *arena_zalloc(arena *a, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    void *p = arena_alloc(a, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

char *arena_strndup(arena *a, const char *s, size_t length)
{
    if (length == SIZE_MAX)
        return NULL;
    char *copy = arena_alloc(a, length + 1);
    if (!copy)
        return NULL;
    if (length)
        memcpy(copy, s, length);
    copy[length] = '\0';
    return copy;
}
