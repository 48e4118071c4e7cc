/* An event stream read in one piece and cut in two at a place that the first byte chooses: the events must be the same. */
#include <stdlib.h>
#include <string.h>

#include "http/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static status on_event(void *context, const char *event, str data, err *e)
{
    sb *seen = context;
    sb_printf(seen, "%zu %zu ", strlen(event), data.length);
    sb_puts(seen, event);
    sb_add(seen, data.data, data.length);
    if (data.length == 13)
        return err_set(e, STATUS_CONFLICT, "stop");
    return STATUS_OK;
}

static status read_all(sb *seen, const char *data, size_t size, size_t cut)
{
    http_sse_reader r;
    http_sse_reader_init(&r, 256);
    sb_init(seen);
    status s = http_sse_feed(&r, data, cut, on_event, seen, NULL);
    if (s == STATUS_OK)
        s = http_sse_feed(&r, data + cut, size - cut, on_event, seen, NULL);
    http_sse_reader_fini(&r);
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    sb whole, pieces;
    const char *text = (const char *)data + 1;
    status a = read_all(&whole, text, size - 1, 0);
    status b = read_all(&pieces, text, size - 1, BASE_MIN((size_t)data[0], size - 1));
    if (a != b || whole.length != pieces.length ||
        (whole.length && memcmp(whole.data, pieces.data, whole.length) != 0))
        abort();
    sb_fini(&whole);
    sb_fini(&pieces);
    return 0;
}
