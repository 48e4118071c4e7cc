/* The model inside the binary (builtin.S), and file_open for sources. */
#include "store/origins.h"

#include <string.h>

static const char builtin_source[] = "builtin:minnow";

extern const unsigned char store_builtin_begin[], store_builtin_end[];

static uint64_t builtin_bytes(void)
{
    return (uint64_t)(store_builtin_end - store_builtin_begin);
}

static status list(store_visit visit, void *context)
{
    store_model m = {"minnow", builtin_source, "builtin", builtin_bytes(), 0};
    return visit(context, &m);
}

const store_origin store_origin_builtin = {"builtin", list, NULL};

status store_open(file_model **out, const char *source, err *e)
{
    if (!strcmp(source, builtin_source))
        return file_open_memory(out, store_builtin_begin, builtin_bytes(), "minnow", e);
    return file_open(out, source, e);
}
