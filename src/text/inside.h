/*
 * What the files of src/text share: the vocabulary, steps, the scratch. Not for other modules: they see text.h only.
 *
 * The way of a text through a tokenizer (encode.c): added tokens are cut out (added.c) →
 * normalisers (normal.c) → added tokens that match normalised text → pre-tokeniser steps
 * (pretokenise.c, with patterns: pattern.c or regex.c) → the model on each piece (bpe.c,
 * unigram.c, wordpiece.c), through the cache.
 */
#ifndef SHOAL_TEXT_INSIDE_H
#define SHOAL_TEXT_INSIDE_H

#include "text/pattern.h"
#include "text/text.h"

/* ---- steps ----------------------------------------------------------------------------------------------------- */

typedef enum normal_kind {
    NORMAL_NFC,
    NORMAL_NFD,
    NORMAL_NFKC,
    NORMAL_NFKD,
    NORMAL_LOWERCASE,
    NORMAL_STRIP_ACCENTS,
    NORMAL_STRIP,
    NORMAL_REPLACE,
    NORMAL_PREPEND,
    NORMAL_BERT,
    NORMAL_CHARSMAP,
    NORMAL_SQUEEZE,
    NORMAL_NMT
} normal_kind;

typedef struct normal_step {
    normal_kind kind;
    text_pattern *pattern; /* REPLACE; owned */
    char *content;         /* REPLACE, PREPEND: what to put; CHARSMAP: the blob; owned */
    size_t content_length;
    bool left, right;                              /* STRIP */
    bool clean, chinese, strip_accents, lowercase; /* BERT */
} normal_step;

typedef enum split_behavior {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_WITH_PREVIOUS,
    SPLIT_WITH_NEXT,
    SPLIT_CONTIGUOUS
} split_behavior;
typedef enum step_kind { STEP_SPLIT, STEP_PREFIX_SPACE, STEP_METASPACE, STEP_BYTE_MAP } step_kind;
typedef enum prepend_scheme { PREPEND_NEVER, PREPEND_ALWAYS, PREPEND_FIRST } prepend_scheme;

typedef struct split_step {
    step_kind kind;
    text_pattern *pattern; /* SPLIT, and METASPACE that splits; owned */
    split_behavior behavior;
    bool invert;
    prepend_scheme scheme; /* METASPACE */
    char *replacement;     /* METASPACE; owned */
} split_step;

#define TEXT_MAX_STEPS 16

/* ---- the vocabulary -------------------------------------------------------------------------------------------- */

enum token_flags { TOKEN_IN_MODEL = 1, TOKEN_END = 2 };

typedef struct merge_slot {
    uint64_t key; /* left << 32 | right, UINT64_MAX empty */
    uint32_t rank;
    int32_t id;
} merge_slot;

/* Added tokens in order of their text, for the longest match at a place. */
typedef struct added_token {
    const char *text; /* owned by the tokenizer */
    uint32_t length;
    int32_t id;
    bool special, lstrip, rstrip, single_word;
} added_token;

typedef struct added_set {
    added_token *tokens; /* sorted */
    size_t n;
    uint32_t begin[257]; /* first token that begins with byte b */
} added_set;

typedef enum model_kind { MODEL_BPE, MODEL_UNIGRAM, MODEL_WORDPIECE, MODEL_WORDLEVEL } model_kind;

struct text_tokenizer {
    uint64_t serial; /* unique in this process: names the cache of a scratch */
    model_kind kind;
    bool byte_level;    /* pieces of the vocabulary are written in GPT-2's byte map */
    bool by_score;      /* BPE without merges: the score of the joined token is the priority */
    bool byte_fallback; /* characters that have no token become "<0x41>" tokens */
    bool fuse_unk, ignore_merges;
    bool input_mapped; /* a step has already mapped bytes */
    bool
        cut_at_space; /* no token has U+2581 after another character: words can be encoded one by one */
    bool strip_first;               /* decoding at the start drops one space */
    bool unescape_space;            /* U+2581 means space */
    bool word_spaces;               /* WordPiece: tokens are separated by spaces when decoding */
    char *end_of_word, *continuing; /* BPE affixes and WordPiece prefix; NULL when none */
    char *word_start;               /* WordPiece: prefix of the first piece of a word (GGUF) */
    size_t max_word;                /* WordPiece: longer words (in characters) are unk */

    int32_t n_tokens;
    char *pieces, *bytes;          /* all texts one behind the other */
    uint32_t *piece_at, *bytes_at; /* [n_tokens + 1] */
    uint8_t *types, *token_flags;  /* [n_tokens] */
    float *scores;                 /* [n_tokens] or NULL */
    uint32_t *ranks;               /* [n_tokens] by_score: 0 is the best score */
    uint32_t *map;                 /* piece → id + 1, open addressing */
    size_t map_mask;
    merge_slot *merges;
    size_t merge_mask, n_merges;
    uint32_t *sorted; /* Unigram: ids in order of their text */
    size_t n_sorted;
    uint32_t sorted_begin[257]; /* the first of them that begins with byte b */
    double unk_score;
    int32_t byte_id[256]; /* -1: none */
    int32_t special[TEXT_N_SPECIAL];
    int32_t *ends;
    size_t n_ends;
    int32_t *prefix, *suffix; /* what TEXT_ADD_SPECIAL adds */
    size_t n_prefix, n_suffix;

    normal_step normal[TEXT_MAX_STEPS];
    size_t n_normal;
    split_step steps[TEXT_MAX_STEPS];
    size_t n_steps;
    added_set added, added_normalised;
    arena memory; /* texts of added tokens, small things */
};

/* vocab.c: the parts of making a tokenizer. On error what is there is freed by
 * text_tokenizer_destroy. */
text_tokenizer *text_tokenizer_new(err *e);
status text_vocab_set(text_tokenizer *t, size_t n, const str *tokens, const int32_t *types,
                      const float *scores, err *e);
int32_t text_model_find(const text_tokenizer *t, const char *piece,
                        size_t n); /* only tokens of the model */
status text_vocab_merges(text_tokenizer *t, size_t n, const str *merges, err *e); /* "left right" */
/* The same with two strings a merge: [2 n]. */
status text_vocab_merge_pairs(text_tokenizer *t, size_t n, const str *pairs, err *e);
status text_vocab_ranks(text_tokenizer *t, err *e); /* by_score */
status text_vocab_sort(text_tokenizer *t, err *e);  /* Unigram */
status text_vocab_finish(text_tokenizer *t,
                         err *e); /* bytes of tokens, byte ids, ends, whether words can be cut */
status text_vocab_affix(text_tokenizer *t, const int32_t *prefix, size_t n_prefix,
                        const int32_t *suffix, size_t n_suffix, err *e);

status text_added_make(text_tokenizer *t, added_set *set, const added_token *tokens, size_t n,
                       err *e); /* copies */
/* The longest token of the set at p; NULL when none. Special ones only if `special`. */
const added_token *text_added_match(const added_set *set, const char *p, size_t n, bool special);

split_step *text_add_step(text_tokenizer *t, step_kind kind, err *e);
normal_step *text_add_normal(text_tokenizer *t, normal_kind kind, err *e);
/* A SPLIT step with this regex. */
status text_add_split(text_tokenizer *t, const char *regex, size_t n, split_behavior behavior,
                      bool invert, err *e);
/* The splitter steps that a GGUF file names (presets.c). */
typedef struct text_preset {
    const char *names;      /* separated by spaces */
    const char *regexes[6]; /* in order, NULL ends */
    size_t mapped_from;     /* regexes from this one on see the bytes' alphabet; 0: none does */
    bool ignore_merges, add_bos, add_sep,
        raw; /* raw: characters, not bytes, with U+2581 for spaces */
} text_preset;
const text_preset *text_preset_find(str name);   /* NULL when unknown */
const text_preset *text_preset_at(size_t index); /* NULL behind the last */
extern const char text_gpt2_regex[];

/* The byte map of GPT-2. */
uint32_t text_byte_to_char(unsigned char byte);
int text_char_to_byte(uint32_t c); /* -1: not in the map */
void text_map_bytes(const char *p, size_t n, sb *out);
bool text_unmap_bytes(const char *p, size_t n,
                      sb *out); /* false, and out as it was, when a character is not in the map */

/* ---- encoding -------------------------------------------------------------------------------------------------- */

typedef struct bpe_symbol {
    int32_t id; /* -1: none */
    uint32_t begin, length, previous, next;
    uint32_t rank;  /* of the pair with next, UINT32_MAX none */
    int32_t joined; /* what that pair becomes */
} bpe_symbol;

typedef struct cache_slot {
    uint64_t hash; /* 0: empty */
    uint32_t key, key_length, ids, n_ids;
} cache_slot;

#define CACHE_SLOTS     131072u
#define CACHE_FILL      65536u
#define CACHE_KEY_BYTES (4u << 20)
#define CACHE_MAX_KEY   96u

struct text_scratch {
    uint64_t serial; /* of the tokenizer the cache belongs to */
    uint64_t work;
    uint64_t budget; /* pattern steps left in this call */
    cache_slot *slots;
    char *keys; /* [CACHE_KEY_BYTES] */
    uint32_t keys_used, n_cached;
    text_ids cached;
    bpe_symbol *symbols;
    size_t symbols_capacity;
    uint64_t *heap;
    size_t n_heap, heap_capacity;
    double *best;      /* Viterbi, [n + 1] */
    uint32_t *best_at; /* [n + 1] */
    int32_t *best_id;
    size_t best_capacity;
    sb normal[2], mapped, word;
    sb level[TEXT_MAX_STEPS];
    void *match_data; /* PCRE2's */
    bool failed;      /* no memory for `word` */
};

/* The model on one piece (bpe.c, unigram.c, wordpiece.c). */
status text_bpe_encode(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                       text_ids *out, err *e);
status text_unigram_encode(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                           text_ids *out, err *e);
status text_wordpiece_encode(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                             text_ids *out, err *e);
status text_wordlevel_encode(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                             text_ids *out, err *e);
/* Bytes that no token covers: byte tokens where there are some, else unk (once per call), else
 * nothing. */
status text_encode_unknown(const text_tokenizer *t, const char *p, size_t n, text_ids *out, err *e);
/* One piece through the cache. */
status text_encode_piece(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                         text_ids *out, err *e);
/* Pre-tokenises one segment and encodes its pieces; at_start: it begins the whole text. */
status text_pretokenise(const text_tokenizer *t, text_scratch *s, const char *p, size_t n,
                        bool at_start, text_ids *out, err *e);
/* Runs all normalisers; *out points into p or into the scratch. */
status text_normalise(const text_tokenizer *t, text_scratch *s, const char *p, size_t n, str *out,
                      err *e);
/* One step, appended to out; used by text_normalise and for added tokens that match normalised
 * text. */
status text_normalise_step(const normal_step *step, text_scratch *s, const char *p, size_t n,
                           sb *out, err *e);
status text_charsmap_check(const char *blob, size_t n, err *e);

#endif
