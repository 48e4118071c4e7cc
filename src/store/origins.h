/* Places where models may lie: one const table a place, one file each. See store.h. */
#ifndef SHOAL_STORE_ORIGINS_H
#define SHOAL_STORE_ORIGINS_H

#include "store/store.h"

typedef status (*store_visit)(void *context, const store_model *m);

typedef struct store_origin {
    const char *name;
    /* A folder that is not there has no models. */
    status (*list)(store_visit visit, void *context, err *e);
    /* May be NULL. */
    void (*folders)(void (*visit)(void *context, const char *what, const char *path, bool exists),
                    void *context);
} store_origin;

extern const store_origin store_origin_builtin; /* builtin.c: the model inside the binary */
extern const store_origin store_origin_shoal;   /* folder.c: shoal's own data folder */

#endif
