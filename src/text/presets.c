/*
 * The splitters that GGUF files name in `tokenizer.ggml.pre`, as the regexes of the models' own
 * tokenizers. Where llama.cpp's splitting differs from the original regex, the original stands
 * here. Names and groups as llama.cpp writes them into files.
 */
#include "text/inside.h"

#include <string.h>

#define CONTRACTIONS              "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES                    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SYMBOLS                   " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define GPT2                      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3                    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" SYMBOLS "|" SPACES
#define QWEN2                     CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" SYMBOLS "|" SPACES
#define UPPER                     "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER                     "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define UPPER_NO_HAN              "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define LOWER_NO_HAN              "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define LEAD                      "[^\\r\\n\\p{L}\\p{N}]?"
/* Words that may change from upper to lower case once, as in CamelCase, with what follows an
 * apostrophe. */
#define CASED(upper, lower, tail) LEAD upper "*" lower "+" tail "|" LEAD upper "+" lower "*" tail
#define GPT4O                                                                                      \
    CASED(UPPER, LOWER, CONTRACTIONS "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES
#define ASCII_PUNCTUATION "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]"
#define DEEPSEEK3                                                                                  \
    ASCII_PUNCTUATION                                                                              \
    "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES
#define KANJI_KANA "[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+"
#define CJK_HANGUL "[\xE4\xB8\x80-\xE9\xBE\xA5\xE0\xA0\x80-\xE4\xB8\x80\xEA\xB0\x80-\xED\x9F\xBF]+"
/* Cased letters of the Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee and a few more
 * scripts, as DeepSeek LLM lists them. */
#define CASED_LETTERS                                                                              \
    "A-Za-z\\u00B5\\u00C0-\\u00D6\\u00D8-\\u00F6\\u00F8-\\u01BA\\u01BC-\\u01BF\\u01C4-"            \
    "\\u0293\\u0295-\\u02AF\\u0370-\\u0373"                                                        \
    "\\u0376\\u0377\\u037B-\\u037D\\u037F\\u0386\\u0388-\\u038A\\u038C\\u038E-\\u03A1\\u03A3-"     \
    "\\u03F5\\u03F7-\\u0481"                                                                       \
    "\\u048A-\\u052F\\u0531-\\u0556\\u10A0-\\u10C5\\u13A0-\\u13F5\\u13F8-\\u13FD\\u1C90-"          \
    "\\u1CBA\\u1CBD-\\u1CBF"                                                                       \
    "\\u1D00-\\u1D2B\\u1D6B-\\u1D77\\u1D79-\\u1D9A\\u1E00-\\u1F15\\u1F18-\\u1F1D\\u1F20-"          \
    "\\u1F45\\u1F48-\\u1F4D"                                                                       \
    "\\u1F50-\\u1F57\\u1F59\\u1F5B\\u1F5D\\u1F5F-\\u1F7D\\u1F80-\\u1FB4\\u1FB6-"                   \
    "\\u1FBC\\u1FBE\\u1FC2-\\u1FC4"                                                                \
    "\\u1FC6-\\u1FCC\\u1FD0-\\u1FD3\\u1FD6-\\u1FDB\\u1FE0-\\u1FEC\\u1FF2-\\u1FF4\\u1FF6-"          \
    "\\u1FFC\\u2102\\u2107"                                                                        \
    "\\u210A-\\u2113\\u2115\\u2119-\\u211D\\u2124\\u2126\\u2128\\u212A-\\u212D\\u212F-"            \
    "\\u2134\\u2139\\u213C-\\u213F"                                                                \
    "\\u2145-\\u2149\\u214E\\u2183\\u2184\\u2C00-\\u2C7B\\u2C7E-\\u2CE4\\u2CEB-"                   \
    "\\u2CEE\\u2CF2\\u2CF3\\uA640-\\uA66D"                                                         \
    "\\uA680-\\uA69B\\uA722-\\uA76F\\uA771-\\uA787\\uA78B-\\uA78E\\uAB70-\\uABBF\\uFB00-"          \
    "\\uFB06\\uFB13-\\uFB17"                                                                       \
    "\\uFF21-\\uFF3A\\uFF41-\\uFF5A\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{"      \
    "104FB}\\x{10C80}-\\x{10CB2}"                                                                  \
    "\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
#define WIDE_PUNCTUATION "!-/:-~\\uFF01-\\uFF0F\\uFF1A-\\uFF5E\\u2018-\\u201F\\u3000-\\u3002"
#define BLOOM            " ?[^(\\s|.,!?\\u2026\\u3002\\uFF0C\\u3001\\u0964\\u06D4\\u060C)]+"

const char text_gpt2_regex[] = GPT2;

static const text_preset presets[] = {
    {.names = "default",
     .regexes = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names = "gpt-2 gpt2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum "
              "modern-bert exaone4 mpt olmo jais trillion "
              "granite-docling",
     .regexes = {GPT2}},
    {.names = "jina-v1-en jina-v2-code roberta-bpe", .regexes = {GPT2}, .add_sep = true},
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     .regexes = {LLAMA3},
     .ignore_merges = true,
     .add_bos = true},
    {.names = "dbrx smaug-bpe glm4 chatglm-bpe", .regexes = {LLAMA3}},
    {.names = "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open megrez grok-2",
     .regexes = {QWEN2}},
    {.names = "qwen35",
     .regexes = {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| "
                              "?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES}},
    {.names = "minicpm5",
     .regexes = {"\\p{N}{1,3}",
                 CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}+|" SYMBOLS "|" SPACES},
     .ignore_merges = true},
    {.names = "seed-coder",
     .regexes = {CONTRACTIONS
                 "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES}},
    {.names = "bailingmoe bailingmoe2 llada-moe",
     .regexes = {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| "
                 "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|"
                 "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {.names = "gpt-4o llama4 kanana2 talkie minimax-m2", .regexes = {GPT4O}},
    {.names = "granite-embed-multi-97m", .regexes = {GPT4O}, .ignore_merges = true},
    {.names = "tekken",
     .regexes = {CASED(UPPER, LOWER, "") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES},
     .ignore_merges = true,
     .add_bos = true},
    {.names = "tiny_aya cohere2moe", .regexes = {"\\d{1,3}(?=(?:\\d{3})*\\b)", GPT4O}},
    {.names = "kimi-k2",
     .regexes = {"[\\p{Han}]+|" CASED(UPPER_NO_HAN, LOWER_NO_HAN,
                                      CONTRACTIONS "?") "|\\p{N}{1,3}|" SYMBOLS "|" SPACES}},
    {.names = "deepseek-llm",
     .regexes = {"[\\r\\n]", "\\s?[" CASED_LETTERS "]+", "\\s?[" WIDE_PUNCTUATION "]+", "\\s+$",
                 CJK_HANGUL, "\\p{N}+"}},
    {.names = "deepseek-coder",
     .regexes = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK_HANGUL, "\\p{N}"}},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm",
     .regexes = {"\\p{N}{1,3}", KANJI_KANA, DEEPSEEK3}},
    {.names = "youtu",
     .regexes =
         {"[\\uAC00-\\uD7A3\\u3131-\\u318E]+|["
          "\\uFF01\\u2026\\u201C\\u201D\\u2018\\u2019\\u2014\\uFF1A\\uFF1B\\uFF0C\\u3001-\\u303F"
          "\\uFE30-\\uFE4F]+|[\\u3105-\\u312F]+|" KANJI_KANA,
          CASED(UPPER, LOWER, CONTRACTIONS "?") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES},
     .ignore_merges = true},
    /* Digits are cut out of the bytes' alphabet, in which some bytes of other characters are digits as
     * well; llama.cpp leaves that step out, which tokens trained with it do not show. */
    {.names = "falcon",
     .regexes = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"},
     .mapped_from = 2},
    {.names = "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
     .regexes = {"\\p{N}", GPT2}},
    {.names = "poro-chat bloom gpt3-finnish", .regexes = {BLOOM}},
    {.names = "viking", .regexes = {BLOOM, "\\p{N}"}},
    {.names = "exaone-moe",
     .regexes = {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: "
                              "\\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|"
                              "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {.names = "superbpe", .regexes = {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"}},
    {.names = "laguna", .regexes = {"[^\\n]+|[\\n]+", QWEN2}},
    {.names = "chameleon",
     .regexes = {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )",
                 "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]", GPT2},
     .add_bos = true},
    {.names = "gemma4 granite-embed-multi-311m sarvam-moe",
     .regexes = {"[^\\n]+|[\\n]+"},
     .raw = true},
};

static bool has_name(const char *names, str name)
{
    while (*names) {
        size_t n = strcspn(names, " ");
        if (n == name.length && !memcmp(names, name.data, n))
            return true;
        names += n;
        names += strspn(names, " ");
    }
    return false;
}

const text_preset *text_preset_find(str name)
{
    for (size_t i = 0; name.length && i < BASE_COUNT(presets); i++)
        if (has_name(presets[i].names, name))
            return &presets[i];
    return NULL;
}

const text_preset *text_preset_at(size_t index)
{
    return index < BASE_COUNT(presets) ? &presets[index] : NULL;
}
