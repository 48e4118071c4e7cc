/*
 * shoal tokenize MODEL [--special | --raw] [--decode]: stdin, byte for byte, becomes one JSON
 * array of token ids, and back. By default as a prompt is encoded (special tokens parsed, BOS and
 * EOS as the model asks); --special parses and adds nothing; --raw does neither. Only the
 * vocabulary is read: files without weights do.
 */
#include "cli/cli.h"
#include "model/model.h"
#include "os/os.h"
#include "store/store.h"

#include <jansson.h>
#include <stdio.h>

#define MAX_INPUT (1u << 30)

static status open_tokenizer(text_tokenizer **out, const char *name, err *e)
{
    char source[STORE_PATH];
    file_model *f;
    model_card *card;
    status s = store_find(source, NULL, name, e);
    if (s == STATUS_OK)
        s = store_open(&f, source, e);
    if (s != STATUS_OK)
        return s;
    s = model_card_read_text(&card, f, e);
    if (s == STATUS_OK) {
        s = model_tokenizer_create(out, card, e);
        model_card_destroy(card);
    }
    file_close(f);
    return s;
}

static status print_ids(const text_tokenizer *t, const char *text, size_t n, int flags, err *e)
{
    text_ids ids = {0};
    sb line = {0};
    status s = text_encode(t, NULL, text, n, flags, &ids, e);
    sb_putc(&line, '[');
    for (size_t i = 0; s == STATUS_OK && i < ids.n; i++)
        sb_printf(&line, i ? ", %d" : "%d", (int)ids.ids[i]);
    sb_puts(&line, "]\n");
    if (s == STATUS_OK && line.failed)
        s = err_set(e, STATUS_NO_MEMORY, "no memory for %zu ids", ids.n);
    if (s == STATUS_OK)
        fwrite(line.data, 1, line.length, stdout);
    sb_fini(&line);
    text_ids_fini(&ids);
    return s;
}

static status print_text(const text_tokenizer *t, const char *json, size_t n, err *e)
{
    json_error_t error;
    text_decoder d;
    sb text = {0};
    json_t *array = json_loadb(json, n, 0, &error);
    if (!array)
        return err_set(e, STATUS_CORRUPT, "stdin: line %d, column %d: %s", error.line, error.column,
                       error.text);
    status s = json_is_array(array)
                   ? STATUS_OK
                   : err_set(e, STATUS_CORRUPT, "stdin: expected a JSON array of token ids");
    text_decoder_init(&d, t, TEXT_AT_START);
    for (size_t i = 0; s == STATUS_OK && i < json_array_size(array); i++) {
        const json_t *id = json_array_get(array, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= text_token_count(t))
            s = err_set(e, STATUS_CORRUPT, "stdin: element %zu is not a token id from 0 to %d", i,
                        (int)text_token_count(t) - 1);
        else
            s = text_decoder_feed(&d, (int32_t)json_integer_value(id), &text, e);
    }
    if (s == STATUS_OK)
        s = text_decoder_flush(&d, &text, e);
    if (s == STATUS_OK && text.length)
        fwrite(text.data, 1, text.length, stdout);
    sb_fini(&text);
    json_decref(array);
    return s;
}

int cli_cmd_tokenize(cli *c)
{
    text_tokenizer *t;
    char *input;
    size_t n;
    err e;
    if (cli_flag(c, OPT_special) && cli_flag(c, OPT_raw))
        return cli_usage(c, "--special and --raw exclude each other");
    if (cli_flag(c, OPT_decode) && (cli_flag(c, OPT_special) || cli_flag(c, OPT_raw)))
        return cli_usage(c, "--decode takes neither --special nor --raw");
    if (open_tokenizer(&t, c->arguments[0], &e) != STATUS_OK)
        return cli_fail_err(c, &e);
    status s = os_read_file(&input, &n, "-", MAX_INPUT, &e);
    if (s == STATUS_OK) {
        int flags = cli_flag(c, OPT_raw)
                        ? 0
                        : TEXT_PARSE_SPECIAL | (cli_flag(c, OPT_special) ? 0 : TEXT_ADD_SPECIAL);
        s = cli_flag(c, OPT_decode) ? print_text(t, input, n, &e)
                                    : print_ids(t, input, n, flags, &e);
        base_free(input);
    }
    text_tokenizer_destroy(t);
    return s == STATUS_OK ? 0 : cli_fail_err(c, &e);
}
