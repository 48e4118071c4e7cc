/* safetensors: not read yet; every such file is refused by name. */
#include "file/inside.h"

#include <inttypes.h>

bool safetensors_is(const unsigned char *data, uint64_t bytes)
{
    return bytes > 9 && file_load_u64(data) <= bytes - 8 && data[8] == '{';
}

status safetensors_open_file(file_inside *in, const char *path, err *e)
{
    return err_set(e, STATUS_UNSUPPORTED, "%s: safetensors", path ? path : in->pub.path);
}

status safetensors_open_index(file_inside *in, const char *path, err *e)
{
    return safetensors_open_file(in, path, e);
}

status safetensors_open_folder(file_inside *in, const char *path, bool *found, err *e)
{
    (void)in, (void)path, (void)e;
    *found = false;
    return STATUS_OK;
}
