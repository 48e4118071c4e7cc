/*
 * How fast text becomes ids: time from a closed file to a tokenizer (GGUF metadata or
 * tokenizer.json), and MB/s on one core for a mixed text (English, code, Chinese, Russian, Arabic,
 * Hindi, emoji) and for its parts. Every pass begins with an empty cache. Time is the thread's CPU
 * time, so that a busy machine does not count.
 *
 *     bench_text [--text FILE] [--seconds 1] [VOCAB.gguf | tokenizer.json …]
 *     bench_text --write FILE         writes the mixed text, for measuring others (text_peers.py)
 *
 * Prints one JSON line a vocabulary. The text is made here from words of our own with a Zipf-like
 * choice, so that figures of two machines are about the same bytes; it has few different words, so
 * --text measures a file instead (the sources and docs of this repository are a good one).
 */
#include "file/file.h"
#include "model/model.h"

#include "../tests/text_gguf.h"

#include <stdlib.h>
#include <time.h>

static const char *const english[] = {"the",
                                      "of",
                                      "and",
                                      "to",
                                      "in",
                                      "a",
                                      "is",
                                      "that",
                                      "for",
                                      "it",
                                      "was",
                                      "on",
                                      "with",
                                      "as",
                                      "machine",
                                      "language",
                                      "model",
                                      "memory",
                                      "bandwidth",
                                      "between",
                                      "tokens",
                                      "network",
                                      "because",
                                      "different",
                                      "computer",
                                      "answer",
                                      "question",
                                      "people",
                                      "history",
                                      "mountain",
                                      "river",
                                      "quickly",
                                      "understanding",
                                      "international",
                                      "responsibility",
                                      "weather",
                                      "beautiful",
                                      "government",
                                      "music",
                                      "window",
                                      "kitchen",
                                      "yesterday",
                                      "tomorrow",
                                      "they're",
                                      "don't",
                                      "it's",
                                      "we'll",
                                      "experiment",
                                      "measurement",
                                      "distributed",
                                      "algorithm",
                                      "photograph",
                                      "winter",
                                      "summer",
                                      "language's",
                                      "unbelievable",
                                      "microscope",
                                      "orchestra",
                                      "parliament",
                                      "hypothesis",
                                      "electricity",
                                      "neighbourhood",
                                      "philosophy",
                                      "archaeology",
                                      "Wednesday"};
static const char *const code[] = {"for (int i = 0; i < n; i++) {",
                                   "    return x * y + z;",
                                   "if (p == NULL)",
                                   "#include <stdio.h>",
                                   "static const char *name",
                                   "printf(\"%d\\n\", value);",
                                   "}",
                                   "/* a comment */",
                                   "self.weights = np.zeros((512, 1024))",
                                   "def forward(self, x):",
                                   "uint32_t hash = 0x9E3779B9u;",
                                   "while (node != end) node = node->next;",
                                   "struct point { double x, y; };",
                                   "std::vector<int> v;",
                                   "        result[key].append(item)",
                                   "const response = await fetch(url);",
                                   "SELECT id, name FROM users WHERE id = 42;"};
static const char *const chinese[] = {"我们", "可以", "因为", "机器", "学习", "语言", "模型",
                                      "计算", "世界", "今天", "天气", "非常", "好",   "，",
                                      "。",   "中国", "历史", "研究", "数据", "网络"};
static const char *const russian[] = {"машина", "язык",    "модель", "который",   "потому",
                                      "что",    "сегодня", "погода", "очень",     "хорошая",
                                      "и",      "в",       "на",     "компьютер", "исследование"};
static const char *const arabic[] = {"اللغة", "نموذج", "آلة", "اليوم", "الطقس", "جميل",
                                     "جدا",   "في",    "من",  "على",   "الذي",  "كتاب"};
static const char *const hindi[] = {"भाषा", "मशीन", "आज", "मौसम", "बहुत", "अच्छा",
                                    "है",    "और",   "में",  "के",    "लिए", "दुनिया"};
static const char *const emoji[] = {"🙂", "🚀", "👩‍💻", "❤️", "🇩🇪", "🎉", "😂😂"};

static uint64_t state = 88172645463325252u;

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Small numbers more often than large ones. */
static size_t choose(size_t n)
{
    size_t a = next_random() % n, b = next_random() % n;
    return BASE_MIN(a, b);
}

static void add_words(sb *out, const char *const *words, size_t n, const char *between)
{
    size_t count = 5 + next_random() % 20;
    for (size_t i = 0; i < count; i++) {
        sb_puts(out, words[choose(n)]);
        if (next_random() % 23 == 0)
            sb_printf(out, "%s%u", between, (unsigned)(next_random() % 100000));
        sb_puts(out, next_random() % 11 ? between : ", ");
    }
    sb_puts(out, next_random() % 3 ? ".\n" : "!\n\n");
}

static void make_text(sb *out, int kind, size_t bytes)
{
    while (out->length < bytes) {
        switch (kind >= 0 ? kind : (int)(next_random() % 10)) {
        default:
            add_words(out, english, BASE_COUNT(english), " ");
            break;
        case 1:
        case 2:
            add_words(out, code, BASE_COUNT(code), "\n");
            break;
        case 3:
            add_words(out, chinese, BASE_COUNT(chinese), "");
            break;
        case 4:
            add_words(out, russian, BASE_COUNT(russian), " ");
            break;
        case 5:
            add_words(out, arabic, BASE_COUNT(arabic), " ");
            break;
        case 6:
            add_words(out, hindi, BASE_COUNT(hindi), " ");
            break;
        case 7:
            add_words(out, emoji, BASE_COUNT(emoji), " ");
            break;
        }
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double median(double *x, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j > 0 && x[j - 1] > x[j]; j--) {
            double other = x[j];
            x[j] = x[j - 1];
            x[j - 1] = other;
        }
    return x[n / 2];
}

/* Median of passes over the text, each with a new scratch: the cache begins cold. */
static double measure(const text_tokenizer *t, const char *p, size_t n, double seconds,
                      size_t *n_ids)
{
    double times[64], begin = now();
    size_t passes = 0;
    while (passes < BASE_COUNT(times) && (passes < 3 || now() - begin < seconds)) {
        text_scratch *s;
        text_ids ids = {0};
        err e;
        if (text_scratch_create(&s, &e) != STATUS_OK)
            return 0;
        double from = now();
        if (text_encode(t, s, p, n, 0, &ids, &e) != STATUS_OK)
            return 0;
        times[passes++] = now() - from;
        *n_ids = ids.n;
        text_ids_fini(&ids);
        text_scratch_destroy(s);
    }
    return (double)n / median(times, passes) / 1e6;
}

static status load_gguf(text_tokenizer **out, const char *path, err *e)
{
    file_model *f = NULL;
    model_card *card = NULL;
    status s = file_open(&f, path, e);
    if (s == STATUS_OK)
        s = model_card_read_text(&card, f, e);
    if (s == STATUS_OK)
        s = model_tokenizer_create(out, card, e);
    model_card_destroy(card);
    file_close(f);
    return s;
}

static status load_json(text_tokenizer **out, const char *path, err *e)
{
    str json = {0};
    json.data = gguf_read_file(path, &json.length);
    if (!json.data)
        return err_set(e, STATUS_NOT_FOUND, "%s: cannot be read", path);
    status s = text_tokenizer_from_json(out, json, (str){0}, e);
    base_free((char *)json.data);
    return s;
}

/* *load: median seconds from the closed file to the tokenizer, of five. */
static text_tokenizer *load_tokenizer(const char *path, double *load)
{
    size_t n = strlen(path);
    bool json = n > 5 && !strcmp(path + n - 5, ".json");
    text_tokenizer *t = NULL;
    double times[5];
    err e = {0};
    for (size_t i = 0; i < BASE_COUNT(times); i++) {
        text_tokenizer_destroy(t);
        t = NULL;
        double from = now();
        if ((json ? load_json : load_gguf)(&t, path, &e) != STATUS_OK) {
            fprintf(stderr, "%s: %s\n", path, e.text);
            return NULL;
        }
        times[i] = now() - from;
    }
    *load = median(times, BASE_COUNT(times));
    return t;
}

static int bench(const char *path, str given, double seconds)
{
    double load = 0;
    text_tokenizer *t = load_tokenizer(path, &load);
    if (!t) {
        fprintf(stderr, "%s: cannot be used\n", path);
        return 1;
    }
    const char *name = strrchr(path, '/');
    size_t n_ids = 0;
    printf("{\"vocabulary\": \"%s\", \"tokens\": %d, \"load_ms\": %.1f", name ? name + 1 : path,
           (int)text_token_count(t), load * 1e3);
    if (given.length) {
        printf(", \"file_mb_per_s\": %.1f", measure(t, given.data, given.length, seconds, &n_ids));
        printf(", \"bytes_per_token\": %.2f, \"ids\": %zu", (double)given.length / (double)n_ids,
               n_ids);
    } else {
        static const char *const names[] = {"mixed", "english", "code", "chinese", "russian"};
        for (int kind = -1; kind <= 3; kind++) {
            sb text = {0};
            state = 88172645463325252u;
            make_text(&text, kind <= 0 ? kind : kind == 1 ? 1 : kind == 2 ? 3 : 4, (size_t)8 << 20);
            printf(", \"%s_mb_per_s\": %.1f", names[kind + 1],
                   measure(t, text.data, text.length, seconds, &n_ids));
            if (kind < 0)
                printf(", \"mixed_bytes_per_token\": %.2f", (double)text.length / (double)n_ids);
            sb_fini(&text);
        }
    }
    printf("}\n");
    text_tokenizer_destroy(t);
    return 0;
}

static int write_text(const char *path)
{
    sb text = {0};
    make_text(&text, -1, (size_t)2 << 20);
    FILE *f = fopen(path, "wb");
    bool good = f && fwrite(text.data, 1, text.length, f) == text.length;
    if (f)
        good &= fclose(f) == 0;
    sb_fini(&text);
    return !good;
}

int main(int argc, char **argv)
{
    static const char *const outside[] = {"llama-bpe", "qwen2", "deepseek-llm", "llama-spm",
                                          "gpt-2"};
    str given = {0};
    double seconds = 1;
    int failed = 0, vocabularies = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--text") && i + 1 < argc) {
            given.data = gguf_read_file(argv[++i], &given.length);
        } else if (!strcmp(argv[i], "--write") && i + 1 < argc) {
            return write_text(argv[i + 1]);
        } else if (!strcmp(argv[i], "--seconds") && i + 1 < argc) {
            if (!base_parse_double(argv[++i], &seconds))
                return 2;
        } else {
            vocabularies++;
            failed |= bench(argv[i], given, seconds);
        }
    }
    /* Alone, as `make bench` calls it: the outside vocabularies when there are some, else a small
     * one of our own. */
    const char *fixtures = getenv("SHOAL_FIXTURES");
    if (!vocabularies && !fixtures) {
        printf(
            "no vocabulary of a real model: SHOAL_FIXTURES is not set; a small one of our own:\n");
        failed = bench("tests/data/text/o200k.json", given, seconds);
    }
    for (size_t i = 0; !vocabularies && fixtures && i < BASE_COUNT(outside); i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/tokenizers/ggml-vocab-%s.gguf", fixtures, outside[i]);
        failed |= bench(path, given, seconds);
    }
    base_free((char *)given.data);
    return failed;
}
