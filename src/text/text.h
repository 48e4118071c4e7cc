/*
 * text: bytes ↔ token ids, exactly as the model was trained.
 *
 * A text_tokenizer is made once, from the plain arrays of GGUF metadata (text_tokenizer_create) or
 * from the bytes of a Hugging Face tokenizer.json (text_tokenizer_from_json), and is immutable
 * afterwards: any number of threads may encode and decode with it at the same time. What a caller
 * may change while encoding lives in a text_scratch of its own.
 *
 * Encoding: added tokens are cut out first (leftmost, longest), the rest is normalised (where the
 * vocabulary asks for it), split into pre-tokens, and each pre-token goes through the model:
 * byte-level BPE, SentencePiece BPE with byte fallback, Unigram (Viterbi) or WordPiece. Splitting
 * uses the Unicode 15.0 table of this module on every machine.
 *
 *     text_tokenizer *t;                                        text_decoder d;
 *     status s = text_tokenizer_create(&t, &vocab, &e);         text_decoder_init(&d, t, TEXT_HIDE_SPECIAL);
 *     text_ids ids = {0};                                       text_decoder_feed(&d, id, &out, &e);
 *     s = text_encode(t, NULL, "Hi", 2, 0, &ids, &e);           text_decoder_flush(&d, &out, &e);
 *
 * Input is bytes, not C strings; NUL and invalid UTF-8 are allowed everywhere. Vocabularies with a
 * token for every byte (byte-level, or with byte fallback) lose nothing: decode(encode(x)) = x,
 * unless they ask for a normaliser; SentencePiece takes U+2581 for a space. A few (DeepSeek LLM)
 * have no tokens for the 13 bytes that valid UTF-8 never holds. What has no token becomes unk.
 *
 * Errors: CORRUPT for a vocabulary that contradicts itself, UNSUPPORTED for a step or model that
 * is not known (naming it), NO_MEMORY. Encoding fails only with NO_MEMORY, or TOO_LONG above 1 GiB
 * of text.
 *
 * Sources: GGUF keys `tokenizer.ggml.*` as in docs/gguf.md of ggml; huggingface/tokenizers (file
 * format, order of steps); google/sentencepiece (BPE and Unigram, the precompiled character map).
 * Not here: chat templates (src/chat), JSON of requests, reading files.
 */
#ifndef SHOAL_TEXT_H
#define SHOAL_TEXT_H

#include "base/base.h"

typedef struct text_tokenizer text_tokenizer;
typedef struct text_scratch text_scratch;

/* GGUF's numbering of `tokenizer.ggml.token_type`. */
typedef enum text_type {
    TEXT_NORMAL = 1,
    TEXT_UNKNOWN = 2,
    TEXT_CONTROL = 3,      /* matched only with TEXT_PARSE_SPECIAL, hidden by TEXT_HIDE_SPECIAL */
    TEXT_USER_DEFINED = 4, /* always matched in text, before the model */
    TEXT_UNUSED = 5,
    TEXT_BYTE = 6, /* "<0x41>" */
} text_type;

/* ---- making one ------------------------------------------------------------------------------------------------ */

/* The metadata of a GGUF file as plain arrays; text_vocab_init sets what a file may leave out.
 * Everything is borrowed for the call and copied. */
typedef struct text_vocab {
    str model;            /* tokenizer.ggml.model: "gpt2", "llama", "bert", "t5", "gemma4" */
    str pre;              /* tokenizer.ggml.pre; empty or unknown: default, with a warning */
    size_t n_tokens;      /* at most 2^24 */
    const str *tokens;    /* [n_tokens] as in the file */
    const float *scores;  /* [n_tokens] or NULL */
    const int32_t *types; /* [n_tokens] text_type, or NULL: all normal */
    size_t n_merges;      /* gpt2 only */
    const str *merges;    /* [n_merges] "left right" */
    int32_t bos, eos, eot, eom, unk, sep, pad, mask; /* -1: none */

    /* 0, 1, or -1: the file does not say, take the model's habit. */
    int add_bos, add_eos, add_sep;
    int add_space_prefix;
    int remove_extra_whitespaces; /* Unigram: squeeze runs of spaces */
    int ignore_merges;            /* -1: what `pre` implies */
    int lowercase, strip_accents; /* bert */
    /* Control tokens take the white space behind them, as Phi-3's do but for unk, bos and
     * "<|endoftext|>"; files have no key for it. */
    bool strip_behind_control;

    str precompiled_charsmap; /* tokenizer.ggml.precompiled_charsmap, may be empty */
} text_vocab;

void text_vocab_init(text_vocab *v);

status text_tokenizer_create(text_tokenizer **out, const text_vocab *v, err *e);

/* `json`: the bytes of tokenizer.json. `config`: those of tokenizer_config.json, or {0}: names
 * bos, eos and so on, and whether to add BOS when tokenizer.json has no template of its own. */
status text_tokenizer_from_json(text_tokenizer **out, str json, str config, err *e);

void text_tokenizer_destroy(text_tokenizer *t); /* NULL is fine */

/* One more token that ends a generation (eos_token_id of generation_config.json). Only before t is
 * shared. */
status text_add_end(text_tokenizer *t, int32_t id, err *e);

/* ---- encoding -------------------------------------------------------------------------------------------------- */

/* PARSE_SPECIAL: "<|im_start|>" in the text becomes its id; without it only user-defined tokens do.
 * ADD_SPECIAL: BOS and EOS (CLS and SEP) as the model asks. Rendered chat templates carry their own
 * BOS: encode them without it. */
enum text_encode_flags { TEXT_PARSE_SPECIAL = 1, TEXT_ADD_SPECIAL = 2 };

/* A growing list of ids. Zero-initialise; text_encode appends. */
typedef struct text_ids {
    int32_t *ids; /* owned */
    size_t n, capacity;
} text_ids;

void text_ids_fini(text_ids *ids);
status text_ids_add(text_ids *ids, int32_t id, err *e);

/* Work memory and a cache pre-token → ids (bounded, a few MB). One thread at a time; may serve
 * several tokenizers in turn (the cache is dropped at a change). Keeping one per worker makes
 * encoding about twice as fast. */
status text_scratch_create(text_scratch **out, err *e);
void text_scratch_destroy(text_scratch *s);
/* Elementary operations so far (characters looked at, pairs looked up, heap moves): tests assert
 * growth on it. */
uint64_t text_scratch_work(const text_scratch *s);

/* Appends the ids of n bytes to out. s may be NULL (a temporary one is made). On error out is as
 * before. */
status text_encode(const text_tokenizer *t, text_scratch *s, const char *bytes, size_t n, int flags,
                   text_ids *out, err *e);

/* ---- the vocabulary -------------------------------------------------------------------------------------------- */

int32_t text_token_count(const text_tokenizer *t);
/* What the token stands for: bytes after undoing byte map, "▁" or "<0x41>". An id that does not
 * exist gives no bytes. */
str text_token_bytes(const text_tokenizer *t, int32_t id);
/* The token as the file writes it ("Ġthe", "▁the", "<0x0A>"). */
str text_token_piece(const text_tokenizer *t, int32_t id);
/* The id of a piece as the file writes it, -1 when there is none. */
int32_t text_find(const text_tokenizer *t, const char *piece);
int32_t text_find_bytes(const text_tokenizer *t, const char *piece, size_t n);

/* Special: control, unknown or unused; hidden from readers. */
bool text_token_is_special(const text_tokenizer *t, int32_t id);
bool text_token_is_control(const text_tokenizer *t, int32_t id);
/* Ends a generation: eos, eot, eom, what text_add_end named, and the usual names ("<|im_end|>",
 * "<|eot_id|>", ...). */
bool text_token_is_end(const text_tokenizer *t, int32_t id);
/* All of them, ascending; borrowed. Returns how many. */
size_t text_end_tokens(const text_tokenizer *t, const int32_t **out);

typedef enum text_special {
    TEXT_BOS,
    TEXT_EOS,
    TEXT_EOT,
    TEXT_EOM,
    TEXT_UNK,
    TEXT_SEP,
    TEXT_PAD,
    TEXT_MASK,
    TEXT_N_SPECIAL
} text_special;
int32_t text_special_id(const text_tokenizer *t, text_special which); /* -1 when there is none */
bool text_adds_bos(const text_tokenizer *t); /* whether TEXT_ADD_SPECIAL puts BOS (CLS) in front */

/* For `shoal show`: "byte-level BPE", "SentencePiece BPE", "Unigram", "WordPiece". */
const char *text_model_name(const text_tokenizer *t);

/* ---- decoding -------------------------------------------------------------------------------------------------- */

/* HIDE_SPECIAL: special tokens give no bytes. AT_START: the ids start a text: drop the one space
 * that encoding added in front (SentencePiece). */
enum text_decode_flags { TEXT_HIDE_SPECIAL = 1, TEXT_AT_START = 2 };

/* One stream of ids → bytes. Caller's memory, no fini needed; borrows t. */
typedef struct text_decoder {
    const text_tokenizer *t;
    int flags;
    bool at_start;
    unsigned char held[4]; /* the beginning of a UTF-8 character */
    int n_held;
} text_decoder;

void text_decoder_init(text_decoder *d, const text_tokenizer *t, int flags);
/* Appends what is ready: never a part of a UTF-8 character whose rest may still come. Bytes that
 * can no longer become a character are passed on as they are: all that was appended plus
 * text_decoder_flush is exactly the tokens' bytes. An id that does not exist gives nothing.
 * NO_MEMORY only. */
status text_decoder_feed(text_decoder *d, int32_t id, sb *out, err *e);
status text_decoder_flush(text_decoder *d, sb *out, err *e);

/* All of it at once. */
status text_decode(const text_tokenizer *t, const int32_t *ids, size_t n, int flags, sb *out,
                   err *e);

/* ---- Unicode (shared with src/chat and src/sample) ------------------------------------------------------------- */

/* Length of the valid UTF-8 character at p (1-4), or 0: invalid or cut short by n. Overlong forms,
 * surrogates and > U+10FFFF are invalid. n > 0. */
int text_utf8_length(const char *p, size_t n);
/* The character at p and its length; an invalid byte gives its value | 0x80000000 and length 1. */
uint32_t text_utf8_next(const char *p, size_t n, int *length);
/* Writes 1-4 bytes; returns how many. */
int text_utf8_put(char out[4], uint32_t c);

#endif
