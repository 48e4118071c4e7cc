/*
 * base: what every module stands on. Status codes and errors, arenas, string building, logging, checked arithmetic,
 * half floats, little-endian numbers, hashes. libc only, no threads of its own, no I/O but the log's one write(2) per line.
 *
 * Threads: everything is safe to use from any thread on different objects; log_* and fail points on the same ones too.
 * Not here: anything that asks the operating system (src/os), JSON (jansson), Unicode (src/text).
 */
#ifndef SHOAL_BASE_H
#define SHOAL_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define BASE_PRINTF(index, first) __attribute__((format(printf, index, first)))
#define BASE_NORETURN             __attribute__((noreturn))
#else
#define BASE_PRINTF(index, first)
#define BASE_NORETURN
#endif

#define BASE_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define BASE_MIN(a, b)    ((a) < (b) ? (a) : (b))
#define BASE_MAX(a, b)    ((a) > (b) ? (a) : (b))

/* ---- status and err ------------------------------------------------------------------------------------------- */

typedef enum status {
#define STATUS(name, text, http) STATUS_##name,
#include "base/status.def"
#undef STATUS
    STATUS_COUNT
} status;

#define ERR_TEXT 512

/* What went wrong, for a person: who, what, where, expected and got, in one line. Caller's memory; may be NULL everywhere. */
typedef struct err {
    status code;
    char text[ERR_TEXT];
} err;

const char *status_name(status s); /* "NOT_FOUND" */
const char *status_text(status s); /* "not found" */
int status_http(status s);         /* 404 */

/* Fills e (when not NULL) and returns code, so that `return err_set(e, STATUS_CORRUPT, ...)` reads well. Cuts long texts. */
status err_set(err *e, status code, const char *format, ...) BASE_PRINTF(3, 4);
/* Puts "context: " before what e says; code stays. Returns e's code (INTERNAL when e is NULL). */
status err_wrap(err *e, const char *format, ...) BASE_PRINTF(2, 3);
/* The same as err_set with ": " and the text of errno `number` behind. ENOENT → NOT_FOUND, EACCES → DENIED, ENOMEM → NO_MEMORY, … */
status err_errno(err *e, int number, const char *format, ...) BASE_PRINTF(3, 4);
void err_clear(err *e);

/* Misuse of an API by our own code (never bytes from outside): logs file and line and ends the process. */
#define REQUIRE(condition)                                                                         \
    ((condition) ? (void)0 : base_require_failed(#condition, __FILE__, __LINE__))
BASE_NORETURN void base_require_failed(const char *condition, const char *file, int line);

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* malloc family that can be made to fail: base_fail_after(n) makes the n-th allocation from now (1 = the next) return NULL, once;
 * 0 switches it off. Every heap allocation of shoal goes through these (or an arena). */
void *base_alloc(size_t bytes); /* NULL when there is none; bytes 0 gives a valid pointer */
void *base_zalloc(size_t count, size_t size); /* zeroed, overflow checked */
void *base_realloc(void *p, size_t bytes);
char *base_strdup(const char *s);
char *base_strndup(const char *s, size_t length); /* exactly length bytes and a NUL */
void base_free(void *p);
void base_fail_after(uint64_t n);
uint64_t base_allocations(void); /* how many so far, for tests that walk all of them */

/* An arena: many allocations, one free. Caller's memory for the struct; init never fails. */
typedef struct arena_block arena_block;
typedef struct arena {
    arena_block *head;
    size_t used, limit; /* bytes handed out; 0 = no limit */
} arena;

void arena_init(arena *a, size_t limit_bytes);
void arena_fini(arena *a);
void arena_reset(arena *a); /* keeps the newest block for reuse */
void *
arena_alloc(arena *a,
            size_t bytes); /* 16-byte aligned, not zeroed; NULL at the limit or without memory */
void *arena_zalloc(arena *a, size_t count, size_t size);
char *arena_strndup(arena *a, const char *s, size_t length);

/* ---- strings --------------------------------------------------------------------------------------------------- */

/* Bytes that someone else owns; need not end in NUL. */
typedef struct str {
    const char *data;
    size_t length;
} str;

str str_from(const char *s); /* of a C string; NULL gives the empty one */
bool str_equal(str a, str b);
bool str_is(str a, const char *b);
bool str_starts(str a, const char *prefix);
/* Letters to insert, delete or replace to make b of a (Levenshtein), case aside: for "did you mean". Strings over 64 bytes: 64. */
int base_distance(const char *a, const char *b);

/* A growing byte string. On a failed allocation it turns `failed` and stays so: check once at the end. */
typedef struct sb {
    char *data; /* owned; NUL after length, NULL while empty */
    size_t length, capacity;
    bool failed;
} sb;

void sb_init(sb *b);
void sb_fini(sb *b);
void sb_clear(sb *b); /* keeps the memory */
bool sb_reserve(sb *b, size_t more);
void sb_add(sb *b, const void *bytes, size_t n);
void sb_puts(sb *b, const char *s);
void sb_putc(sb *b, char c);
void sb_printf(sb *b, const char *format, ...) BASE_PRINTF(2, 3);
void sb_vprintf(sb *b, const char *format, va_list args);
/* As the inside of a JSON string, without the quotes. Invalid UTF-8 becomes U+FFFD. */
void sb_json(sb *b, const char *bytes, size_t n);
char *sb_take(
    sb *b); /* the heap string (base_free it), b is empty again; NULL when failed; "" when empty */

/* Whole-string number parsing: no spaces, no rest, range checked. */
bool base_parse_u64(const char *s, uint64_t *out);
bool base_parse_i64(const char *s, int64_t *out);
bool base_parse_double(const char *s, double *out); /* finite only, '.' whatever the locale */
/* "64k", "1.5G", "300M", "2048": powers of 1024. */
bool base_parse_size(const char *s, uint64_t *out);
/* "30s", "5m", "2h", "1d", "250ms" or plain seconds → microseconds; negative numbers are refused, "never" gives UINT64_MAX. */
bool base_parse_duration(const char *s, uint64_t *out_us);
const char *base_format_bytes(char out[32], uint64_t bytes); /* "1.5 GiB" */

/* ---- checked arithmetic ---------------------------------------------------------------------------------------- */

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}
static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
/* Rounds up to a multiple of align (a power of two). */
static inline bool checked_align(uint64_t a, uint64_t align, uint64_t *out)
{
    uint64_t sum;
    if (__builtin_add_overflow(a, align - 1, &sum))
        return false;
    *out = sum & ~(align - 1);
    return true;
}

/* ---- floats as bits, and half ones (exact on every machine, round to nearest even) --------------------------- */

float half_to_float(uint16_t h);
uint16_t half_from_float(float f); /* overflow → inf, NaN stays a NaN */
static inline uint32_t float_to_bits(float f)
{
    union {
        float f;
        uint32_t u;
    } x = {f};
    return x.u;
}
static inline float float_from_bits(uint32_t u)
{
    union {
        uint32_t u;
        float f;
    } x = {u};
    return x.f;
}
static inline float bf16_to_float(uint16_t b)
{
    return float_from_bits((uint32_t)b << 16);
}
static inline uint16_t bf16_from_float(float f)
{
    uint32_t u = float_to_bits(f);
    if ((u & 0x7FFFFFFF) > 0x7F800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

/* ---- numbers in files and on the wire: little-endian, at any address -------------------------------------------- */

static inline uint16_t base_load_u16(const void *from)
{
    const unsigned char *p = from;
    return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t base_load_u32(const void *from)
{
    const unsigned char *p = from;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t base_load_u64(const void *from)
{
    const unsigned char *p = from;
    return (uint64_t)base_load_u32(p) | (uint64_t)base_load_u32(p + 4) << 32;
}
static inline void base_store_u16(void *to, uint16_t x)
{
    unsigned char *p = to;
    p[0] = (unsigned char)x;
    p[1] = (unsigned char)(x >> 8);
}
static inline void base_store_u32(void *to, uint32_t x)
{
    unsigned char *p = to;
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(x >> 8 * i);
}
static inline void base_store_u64(void *to, uint64_t x)
{
    unsigned char *p = to;
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)(x >> 8 * i);
}

/* ---- hashes ---------------------------------------------------------------------------------------------------- */

/* 64-bit hash of bytes: our own multiply-xor mix, stable across machines and versions of contract 1; not cryptographic. */
uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed);
uint64_t hash_u64(uint64_t x, uint64_t seed);

/* SHA-256 (FIPS 180-4), for names of files and models; small inputs: bulk hashing of downloads belongs to src/store (OpenSSL). */
typedef struct sha256 {
    uint32_t state[8];
    uint64_t total;
    unsigned char block[64];
} sha256;
void sha256_init(sha256 *h);
void sha256_add(sha256 *h, const void *bytes, size_t n);
void sha256_end(sha256 *h, unsigned char out[32]);
void base_hex(char *out, const unsigned char *bytes, size_t n); /* out: 2n + 1 bytes */

/* ---- logging --------------------------------------------------------------------------------------------------- */

/* One line a call on stderr: `12:03:44.120 info  node: model loaded name=minnow ms=41`. error = someone must act, warn = degraded,
 * info = state changed, debug = per request. Never prompts or keys. */
typedef enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG } log_level;

void log_set_level(log_level level);
bool log_level_parse(const char *s, log_level *out);
bool log_enabled(log_level level);
void log_line(log_level level, const char *module, const char *format, ...) BASE_PRINTF(3, 4);

#define log_error(module, ...) log_line(LOG_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...)  log_line(LOG_WARN, module, __VA_ARGS__)
#define log_info(module, ...)  log_line(LOG_INFO, module, __VA_ARGS__)
#define log_debug(module, ...)                                                                     \
    (log_enabled(LOG_DEBUG) ? log_line(LOG_DEBUG, module, __VA_ARGS__) : (void)0)

#endif
