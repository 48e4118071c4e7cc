/* tokenizer.json from hostile bytes; whatever loads must encode and decode without harm. */
#include "text/text.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "The word's 12 345 <s> \xC3\xA9 \xE4\xB8\xAD\xE6\x96\x87 norm "
                               "Norm\r\n\n  x\xCC\x81 \xF0\x9F\x99\x82\xFF\xE2\x96\x81 a-b.c,d;e "
                               "[MASK]<mask>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    text_tokenizer *t = NULL;
    text_ids ids = {0};
    sb out = {0};
    err e;
    log_set_level(LOG_ERROR);
    /* The rest behind a 0xFF is tokenizer_config.json. */
    const uint8_t *cut = size ? memchr(data, 0xFF, size) : NULL;
    str json = {(const char *)data, cut ? (size_t)(cut - data) : size};
    str config = cut ? (str){(const char *)cut + 1, size - json.length - 1} : (str){"", 0};
    if (text_tokenizer_from_json(&t, json, config, &e) == STATUS_OK) {
        if (text_encode(t, NULL, text, sizeof text - 1, TEXT_PARSE_SPECIAL | TEXT_ADD_SPECIAL, &ids,
                        &e) == STATUS_OK)
            text_decode(t, ids.ids, ids.n, TEXT_HIDE_SPECIAL | TEXT_AT_START, &out, &e);
        ids.n = 0;
        text_encode(t, NULL, (const char *)data, size < 512 ? size : 512, 0, &ids, &e);
        for (int32_t i = 0; i < text_token_count(t) && i < 1000; i++)
            text_decode(t, &i, 1, 0, &out, &e);
    }
    text_tokenizer_destroy(t);
    text_ids_fini(&ids);
    sb_fini(&out);
    return 0;
}
