/*
 * base: statuses and errors, heap fail points, arenas, string building, number parsing, half floats against a double
 * reference, hashes against published vectors, the log's one line.
 */
#include "base/base.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- status and err -------------------------------------------------------------------------------------------- */

static void status_table(void **state)
{
    (void)state;
    assert_string_equal(status_name(STATUS_OK), "OK");
    assert_string_equal(status_name(STATUS_NOT_FOUND), "NOT_FOUND");
    assert_int_equal(status_http(STATUS_NOT_FOUND), 404);
    assert_int_equal(status_http(STATUS_TOO_LARGE), 413);
    for (int s = 0; s < STATUS_COUNT; s++) {
        assert_true(strlen(status_name((status)s)) > 0);
        assert_true(strlen(status_text((status)s)) > 0);
        assert_in_range(status_http((status)s), 200, 599);
        for (int other = 0; other < s; other++)
            assert_string_not_equal(status_name((status)s), status_name((status)other));
    }
    assert_non_null(status_name((status)12345));
    assert_int_equal(status_http((status)-1), 500);
}

static void err_texts(void **state)
{
    (void)state;
    err e;
    assert_int_equal(err_set(&e, STATUS_CORRUPT, "layer %d: expected %s", 3, "q"), STATUS_CORRUPT);
    assert_int_equal(e.code, STATUS_CORRUPT);
    assert_string_equal(e.text, "layer 3: expected q");
    assert_int_equal(err_wrap(&e, "file %s", "x.gguf"), STATUS_CORRUPT);
    assert_string_equal(e.text, "file x.gguf: layer 3: expected q");
    assert_int_equal(err_set(&e, STATUS_BUSY, "again: %s", e.text), STATUS_BUSY);
    assert_string_equal(e.text, "again: file x.gguf: layer 3: expected q");
    assert_int_equal(err_errno(&e, ENOENT, "a/%s", "b"), STATUS_NOT_FOUND);
    assert_non_null(strstr(e.text, "a/b: "));
    assert_non_null(strstr(e.text, strerror(ENOENT)));
    assert_int_equal(err_errno(NULL, EACCES, "x"), STATUS_DENIED);
    assert_int_equal(err_errno(NULL, ENOMEM, "x"), STATUS_NO_MEMORY);
    assert_int_equal(err_errno(NULL, EIO, "x"), STATUS_IO);
    assert_int_equal(err_set(NULL, STATUS_IO, "x"), STATUS_IO);
    assert_int_equal(err_wrap(NULL, "x"), STATUS_INTERNAL);
    err_clear(&e);
    err_clear(NULL);
    assert_int_equal(e.code, STATUS_OK);
    assert_string_equal(e.text, "");
}

static void err_long_texts_are_cut_at_a_character(void **state)
{
    (void)state;
    char text[3 * ERR_TEXT];
    err e;
    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'x', shift);
        for (size_t i = shift; i + 3 < sizeof text; i += 3)
            memcpy(text + i, "\xE2\x82\xAC", 4); /* the euro sign */
        err_set(&e, STATUS_INVALID, "%s", text);
        size_t n = strlen(e.text);
        assert_true(n < ERR_TEXT && n > ERR_TEXT - 8);
        assert_int_equal((n - shift) % 3, 0);
        assert_memory_equal(e.text, text, n);
    }
}

static void require_ends_the_process(void **state)
{
    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        REQUIRE(1 + 1 == 3);
        _exit(0);
    }
    int w;
    assert_int_equal(waitpid(pid, &w, 0), pid);
    assert_true(WIFSIGNALED(w) || (WIFEXITED(w) && WEXITSTATUS(w) != 0));
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static void heap_and_fail_points(void **state)
{
    (void)state;
    void *p = base_alloc(0);
    assert_non_null(p);
    base_free(p);
    unsigned char *z = base_zalloc(3, 5);
    for (int i = 0; i < 15; i++)
        assert_int_equal(z[i], 0);
    base_free(z);
    assert_null(base_zalloc(SIZE_MAX / 2, 3));
    char *s = base_strndup("ab\0cd", 5);
    assert_memory_equal(s, "ab\0cd", 6);
    base_free(s);
    s = base_strdup("");
    assert_string_equal(s, "");
    base_free(s);

    base_fail_after(2);
    void *first = base_alloc(8), *second = base_alloc(8), *third = base_alloc(8);
    assert_non_null(first);
    assert_null(second);
    assert_non_null(third); /* once only */
    base_fail_after(1);
    assert_null(base_realloc(first, 100));
    base_fail_after(1);
    base_fail_after(0);
    void *fourth = base_alloc(8);
    assert_non_null(fourth);
    uint64_t before = base_allocations();
    base_free(base_alloc(1));
    assert_int_equal(base_allocations() - before, 1);
    base_free(first);
    base_free(third);
    base_free(fourth);
}

static void arenas(void **state)
{
    (void)state;
    arena a;
    arena_init(&a, 0);
    unsigned char *kept[300];
    for (size_t i = 0; i < BASE_COUNT(kept); i++) { /* all live at once, over several blocks */
        kept[i] = arena_alloc(&a, i + 1);
        assert_non_null(kept[i]);
        assert_int_equal((uintptr_t)kept[i] % 16, 0);
        memset(kept[i], (int)(i & 0xFF), i + 1);
    }
    for (size_t i = 0; i < BASE_COUNT(kept); i++)
        for (size_t k = 0; k <= i; k++)
            assert_int_equal(kept[i][k], i & 0xFF);
    unsigned char *large = arena_zalloc(&a, 3, 1 << 20);
    for (size_t i = 0; i < 3u << 20; i += 4093)
        assert_int_equal(large[i], 0);
    assert_string_equal(arena_strndup(&a, "hello world", 5), "hello");
    arena_reset(&a);
    assert_int_equal(a.used, 0);
    uint64_t before = base_allocations();
    assert_non_null(arena_alloc(&a, 100)); /* from the kept block */
    assert_int_equal(base_allocations(), before);
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 16));
    assert_null(arena_zalloc(&a, SIZE_MAX, 2));
    assert_null(arena_strndup(&a, "x", SIZE_MAX));
    arena_fini(&a);

    arena_init(&a, 64);
    assert_non_null(arena_alloc(&a, 33)); /* 48 after rounding */
    assert_null(arena_alloc(&a, 17));
    assert_non_null(arena_alloc(&a, 16));
    assert_null(arena_alloc(&a, 1));
    arena_fini(&a);
    base_fail_after(1);
    assert_null(arena_alloc(&a, 1));
    assert_non_null(arena_alloc(&a, 1));
    arena_fini(&a);
}

/* ---- strings --------------------------------------------------------------------------------------------------- */

static void views(void **state)
{
    (void)state;
    assert_int_equal(str_from(NULL).length, 0);
    assert_true(str_equal(str_from("ab"), (str){"abc", 2}));
    assert_false(str_equal(str_from("ab"), str_from("ac")));
    assert_true(str_equal((str){NULL, 0}, str_from("")));
    assert_true(str_is((str){"xyz", 3}, "xyz"));
    assert_false(str_is((str){"xyz", 3}, "xy"));
    assert_true(str_starts(str_from("prefix"), "pre"));
    assert_true(str_starts(str_from("prefix"), ""));
    assert_false(str_starts(str_from("pre"), "prefix"));
}

static void building(void **state)
{
    (void)state;
    sb b;
    sb_init(&b);
    char *empty = sb_take(&b);
    assert_string_equal(empty, "");
    base_free(empty);
    for (int i = 0; i < 1000; i++)
        sb_printf(&b, "%d,", i);
    sb_putc(&b, 'z');
    sb_puts(&b, "end");
    assert_int_equal(b.length, 10 * 2 + 90 * 3 + 900 * 4 + 4);
    assert_int_equal(strlen(b.data), b.length);
    assert_memory_equal(b.data + b.length - 8, "999,zend", 8);
    sb_clear(&b);
    assert_int_equal(b.length, 0);
    sb_add(&b, "a\0b", 3);
    assert_memory_equal(b.data, "a\0b", 4);
    char *taken = sb_take(&b);
    assert_memory_equal(taken, "a\0b", 4);
    assert_null(b.data);
    base_free(taken);
    sb_fini(&b);
}

static void building_without_memory(void **state)
{
    (void)state;
    sb b;
    sb_init(&b);
    sb_puts(&b, "kept");
    base_fail_after(1);
    for (int i = 0; i < 100; i++)
        sb_puts(&b, "more and more");
    assert_true(b.failed);
    assert_null(sb_take(&b));
    assert_false(b.failed);
    sb_puts(&b, "new");
    assert_string_equal(b.data, "new");
    assert_false(sb_reserve(&b, SIZE_MAX));
    assert_true(b.failed);
    sb_clear(&b);
    assert_false(b.failed);
    sb_fini(&b);
}

static void json_is(const char *in, size_t n, const char *expected)
{
    sb b;
    sb_init(&b);
    sb_json(&b, in, n);
    char *got = sb_take(&b);
    assert_string_equal(got, expected);
    base_free(got);
}

static void json_escapes(void **state)
{
    (void)state;
    json_is("", 0, "");
    json_is("plain \xC3\xA9 \xF0\x9F\x98\x80", 13, "plain \xC3\xA9 \xF0\x9F\x98\x80");
    json_is("\"\\/\n\r\t\x01\x1f\x7f", 9, "\\\"\\\\/\\n\\r\\t\\u0001\\u001f\\u007f");
    json_is("a\0b", 3, "a\\u0000b");
    json_is("\xFF", 1, "\xEF\xBF\xBD");
    json_is("a\xC3", 2, "a\xEF\xBF\xBD");                               /* cut */
    json_is("\xC0\x80", 2, "\xEF\xBF\xBD\xEF\xBF\xBD");                 /* overlong */
    json_is("\xED\xA0\x80", 3, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"); /* surrogate */
    json_is("\xF4\x90\x80\x80x", 5, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDx");
    json_is("\xE2\x82"
            "A",
            3,
            "\xEF\xBF\xBD\xEF\xBF\xBD"
            "A");
}

/* ---- numbers --------------------------------------------------------------------------------------------------- */

static void parsing_integers(void **state)
{
    (void)state;
    uint64_t u = 7;
    int64_t i = 7;
    static const char *const bad[] = {"",
                                      " 1",
                                      "1 ",
                                      "+1",
                                      "-1",
                                      "0x10",
                                      "1.0",
                                      "1e3",
                                      "18446744073709551616",
                                      "99999999999999999999999",
                                      "a"};
    for (size_t k = 0; k < BASE_COUNT(bad); k++) {
        assert_false(base_parse_u64(bad[k], &u));
        assert_int_equal(u, 7);
    }
    assert_false(base_parse_u64(NULL, &u));
    assert_true(base_parse_u64("18446744073709551615", &u));
    assert_true(u == UINT64_MAX);
    assert_true(base_parse_u64("007", &u));
    assert_int_equal(u, 7);
    assert_true(base_parse_i64("-9223372036854775808", &i));
    assert_true(i == INT64_MIN);
    assert_true(base_parse_i64("9223372036854775807", &i));
    assert_true(i == INT64_MAX);
    assert_false(base_parse_i64("9223372036854775808", &i));
    assert_false(base_parse_i64("-9223372036854775809", &i));
    assert_false(base_parse_i64("-", &i));
    assert_false(base_parse_i64("--1", &i));
}

static void parsing_doubles(void **state)
{
    (void)state;
    double d = 7;
    static const char *const bad[] = {"",   " 1",    "1 ", "nan",   "inf", "-inf", "0x1p3",
                                      "1e", "1e400", ".",  "1.2.3", "1,5", "e5",   "1e+"};
    for (size_t k = 0; k < BASE_COUNT(bad); k++) {
        assert_false(base_parse_double(bad[k], &d));
        assert_true(d == 7);
    }
    assert_true(base_parse_double("-0.25", &d) && d == -0.25);
    assert_true(base_parse_double(".5", &d) && d == 0.5);
    assert_true(base_parse_double("5.", &d) && d == 5);
    assert_true(base_parse_double("1e-3", &d) && d == 1e-3);
    assert_true(base_parse_double("0.1", &d) && d == 0.1);
}

static void sizes_and_durations(void **state)
{
    (void)state;
    uint64_t v = 7;
    char text[32];
    assert_true(base_parse_size("2048", &v) && v == 2048);
    assert_true(base_parse_size("64k", &v) && v == 65536);
    assert_true(base_parse_size("1.5G", &v) && v == UINT64_C(3) << 29);
    assert_true(base_parse_size("300M", &v) && v == UINT64_C(300) << 20);
    assert_true(base_parse_size("2GiB", &v) && v == UINT64_C(2) << 30);
    static const char *const bad[] = {"", "k", "-1", "1.5", "1x", "1kk", "1 k", "99999999P"};
    v = 7;
    for (size_t k = 0; k < BASE_COUNT(bad); k++)
        assert_false(base_parse_size(bad[k], &v));
    assert_int_equal(v, 7);
    assert_true(base_parse_duration("30", &v) && v == 30000000);
    assert_true(base_parse_duration("30s", &v) && v == 30000000);
    assert_true(base_parse_duration("250ms", &v) && v == 250000);
    assert_true(base_parse_duration("1.5m", &v) && v == 90000000);
    assert_true(base_parse_duration("2h", &v) && v == UINT64_C(7200000000));
    assert_true(base_parse_duration("1d", &v) && v == UINT64_C(86400000000));
    assert_true(base_parse_duration("never", &v) && v == UINT64_MAX);
    assert_false(base_parse_duration("-1s", &v));
    assert_false(base_parse_duration("1w", &v));
    assert_false(base_parse_duration("", &v));
    assert_string_equal(base_format_bytes(text, 0), "0 B");
    assert_string_equal(base_format_bytes(text, 1023), "1023 B");
    assert_string_equal(base_format_bytes(text, 1536), "1.5 KiB");
    assert_string_equal(base_format_bytes(text, UINT64_C(3) << 29), "1.5 GiB");
    assert_string_equal(base_format_bytes(text, UINT64_MAX), "16.0 EiB");
}

static void checked(void **state)
{
    (void)state;
    uint64_t v;
    assert_true(checked_add(1, 2, &v) && v == 3);
    assert_false(checked_add(UINT64_MAX, 1, &v));
    assert_true(checked_mul(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &v));
    assert_false(checked_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &v));
    assert_true(checked_align(0, 32, &v) && v == 0);
    assert_true(checked_align(33, 32, &v) && v == 64);
    assert_false(checked_align(UINT64_MAX - 3, 32, &v));
}

/* ---- half floats ----------------------------------------------------------------------------------------------- */

/* The value of a finite half by its definition. */
static double half_value(uint16_t h)
{
    int exponent = (h >> 10) & 31, mantissa = h & 1023;
    double magnitude = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h & 0x8000 ? -magnitude : magnitude;
}

static void halves(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x10000; h++) {
        float f = half_to_float((uint16_t)h);
        if ((h & 0x7C00) == 0x7C00) {
            if (h & 1023)
                assert_true(isnan(f) && isnan(half_to_float(half_from_float(f))));
            else
                assert_true(isinf(f) && half_from_float(f) == h);
            continue;
        }
        assert_true((double)f == half_value((uint16_t)h));
        assert_int_equal(half_from_float(f), h); /* also −0 */
    }
    /* Between neighbours: to the nearer one, halfway to the even one, infinity from 65520 on. */
    for (unsigned h = 0; h < 0x7C00; h++) {
        double low = half_value((uint16_t)h);
        double high = h == 0x7BFF ? 65536 : half_value((uint16_t)(h + 1));
        float middle = (float)((low + high) / 2); /* exact: 12 bits */
        assert_int_equal(half_from_float(nextafterf(middle, 0)), h);
        assert_int_equal(half_from_float(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(half_from_float(middle), h & 1 ? h + 1 : h);
        assert_int_equal(half_from_float(-middle), (h & 1 ? h + 1 : h) | 0x8000);
    }
    assert_int_equal(half_from_float(1e30f), 0x7C00);
    assert_int_equal(half_from_float(-1e30f), 0xFC00);
    assert_int_equal(half_from_float(1e-30f), 0);
}

static void brain_floats(void **state)
{
    (void)state;
    for (unsigned b = 0; b < 0x10000; b++) {
        float f = bf16_to_float((uint16_t)b);
        if (isnan(f))
            assert_true(isnan(bf16_to_float(bf16_from_float(f))));
        else
            assert_int_equal(bf16_from_float(f), b);
    }
    for (unsigned b = 0; b < 0x7F7F; b++) {
        union {
            uint32_t u;
            float f;
        } middle = {(b << 16) + 0x8000};
        assert_int_equal(bf16_from_float(middle.f), b & 1 ? b + 1 : b);
        middle.u--;
        assert_int_equal(bf16_from_float(middle.f), b);
        middle.u += 2;
        assert_int_equal(bf16_from_float(middle.f), b + 1);
    }
    assert_int_equal(bf16_from_float(3.4028234e38f), 0x7F80);
}

static void little_endian(void **state)
{
    (void)state;
    static const unsigned char bytes[9] = {0xFF, 0x81, 0x02, 0x83, 0x04, 0x85, 0x06, 0x87, 0x88};
    unsigned char out[9] = {0xFF};
    for (size_t at = 0; at < 2; at++) { /* also where nothing is aligned */
        assert_int_equal(base_load_u16(bytes + at), at ? 0x0281 : 0x81FF);
        assert_int_equal(base_load_u32(bytes + at), at ? 0x04830281u : 0x830281FFu);
        assert_true(base_load_u64(bytes + at) ==
                    (at ? UINT64_C(0x8887068504830281) : UINT64_C(0x87068504830281FF)));
    }
    base_store_u64(out + 1, UINT64_C(0x8887068504830281));
    assert_memory_equal(out, bytes, sizeof bytes);
    memset(out + 1, 0, 8);
    base_store_u32(out + 1, 0x04830281u);
    assert_memory_equal(out, bytes, 5);
    base_store_u16(out + 3, 0x8504);
    assert_memory_equal(out, ((unsigned char[]){0xFF, 0x81, 0x02, 0x04, 0x85, 0}), 6);
}

/* ---- hashes ---------------------------------------------------------------------------------------------------- */

static void sha_is(const char *part, size_t n, size_t repeat, size_t step, const char *expected)
{
    sha256 h;
    unsigned char digest[32];
    char hex[65];
    sha256_init(&h);
    for (size_t r = 0; r < repeat; r++)
        for (size_t at = 0; at < n; at += step)
            sha256_add(&h, part + at, BASE_MIN(step, n - at));
    sha256_end(&h, digest);
    base_hex(hex, digest, sizeof digest);
    assert_string_equal(hex, expected);
}

/* FIPS 180-4 examples (csrc.nist.gov/projects/cryptographic-standards-and-guidelines/example-values). */
static void sha256_vectors(void **state)
{
    (void)state;
    static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    sha_is("", 0, 1, 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha_is("abc", 3, 1, 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    for (size_t step = 1; step <= 56; step++)
        sha_is(two, 56, 1, step,
               "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    sha_is("aaaaaaaaaa", 10, 100000, 7,
           "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void mixing_hashes(void **state)
{
    (void)state;
    unsigned char bytes[40] = {0};
    uint64_t seen[41];
    for (size_t n = 0; n <= sizeof bytes; n++) { /* zeros of different lengths differ */
        seen[n] = hash_bytes(bytes, n, 1);
        for (size_t k = 0; k < n; k++)
            assert_true(seen[n] != seen[k]);
        assert_true(hash_bytes(bytes, n, 2) != seen[n]);
        assert_true(hash_bytes(bytes, n, 1) == seen[n]);
    }
    /* One flipped bit of the input changes about half of the output's bits. */
    uint64_t flips = 0, trials = 0;
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1u << (bit % 8));
        flips += (uint64_t)__builtin_popcountll(hash_bytes(bytes, sizeof bytes, 1) ^ seen[40]);
        bytes[bit / 8] ^= (unsigned char)(1u << (bit % 8));
        trials++;
    }
    assert_in_range(flips, trials * 28, trials * 36);
    flips = trials = 0;
    for (uint64_t x = 0; x < 100; x++)
        for (int bit = 0; bit < 64; bit++, trials++) {
            uint64_t a = hash_u64(x, 5), b = hash_u64(x ^ (UINT64_C(1) << bit), 5);
            flips += (uint64_t)__builtin_popcountll(a ^ b);
        }
    assert_in_range(flips, trials * 30, trials * 34);
    assert_true(hash_u64(0, 0) != hash_u64(0, 1));
}

/* ---- logging --------------------------------------------------------------------------------------------------- */

static size_t captured_log(char *out, size_t out_bytes, log_level level, const char *text)
{
    int pipe_fds[2], saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(pipe_fds), 0);
    dup2(pipe_fds[1], STDERR_FILENO);
    log_line(level, "test", "%s", text);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(pipe_fds[1]);
    ssize_t n = read(pipe_fds[0], out, out_bytes - 1);
    close(pipe_fds[0]);
    assert_true(n >= 0);
    out[n] = 0;
    return (size_t)n;
}

static void log_lines(void **state)
{
    (void)state;
    char line[4096], longer[3000];
    log_level level;
    assert_true(log_level_parse("debug", &level) && level == LOG_DEBUG);
    assert_false(log_level_parse("loud", &level));
    log_set_level(LOG_WARN);
    assert_true(log_enabled(LOG_ERROR));
    assert_false(log_enabled(LOG_INFO));
    assert_int_equal(captured_log(line, sizeof line, LOG_INFO, "quiet"), 0);
    size_t n = captured_log(line, sizeof line, LOG_WARN, "a name\nwith \x1b[31m lines");
    assert_true(n > 0 && line[n - 1] == '\n');
    assert_ptr_equal(strchr(line, '\n'), line + n - 1);
    assert_null(strchr(line, '\x1b'));
    assert_non_null(strstr(line, "warn  test: a name with  [31m lines"));
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = 0;
    n = captured_log(line, sizeof line, LOG_ERROR, longer);
    assert_true(n > 500 && n <= 1024 && line[n - 1] == '\n');
    log_set_level(LOG_INFO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_table),
        cmocka_unit_test(err_texts),
        cmocka_unit_test(err_long_texts_are_cut_at_a_character),
        cmocka_unit_test(require_ends_the_process),
        cmocka_unit_test(heap_and_fail_points),
        cmocka_unit_test(arenas),
        cmocka_unit_test(views),
        cmocka_unit_test(building),
        cmocka_unit_test(building_without_memory),
        cmocka_unit_test(json_escapes),
        cmocka_unit_test(parsing_integers),
        cmocka_unit_test(parsing_doubles),
        cmocka_unit_test(sizes_and_durations),
        cmocka_unit_test(checked),
        cmocka_unit_test(halves),
        cmocka_unit_test(brain_floats),
        cmocka_unit_test(little_endian),
        cmocka_unit_test(sha256_vectors),
        cmocka_unit_test(mixing_hashes),
        cmocka_unit_test(log_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
