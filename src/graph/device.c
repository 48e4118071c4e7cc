/* The table of devices and the names of ops. */
#include "graph/device.h"

#include <string.h>

static const device_ops *const all[] = {&device_cpu, &device_cpu_copy};

const device_ops *device_find(const char *name)
{
    if (name == NULL)
        return &device_cpu;
    for (size_t i = 0; i < BASE_COUNT(all); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

const char *device_op_name(device_op_kind kind)
{
    static const char *const names[DEVICE_OP_KINDS] = {
        [DEVICE_OP_BEGIN] = "embed",
        [DEVICE_OP_INPUT] = "input",
        [DEVICE_OP_NORM] = "norm",
        [DEVICE_OP_PRODUCT] = "product",
        [DEVICE_OP_GATED] = "gated",
        [DEVICE_OP_KEYS] = "keys",
        [DEVICE_OP_ATTENTION] = "attention",
        [DEVICE_OP_DECAY] = "decay",
        [DEVICE_OP_GELU] = "gelu",
        [DEVICE_OP_ZERO] = "zero",
        [DEVICE_OP_SUM] = "sum",
        [DEVICE_OP_GATHER] = "gather",
    };
    return kind >= 0 && kind < DEVICE_OP_KINDS ? names[kind] : "?";
}
