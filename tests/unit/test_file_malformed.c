/*
 * GGUF as it should not be: one defect each with the status and the words of its error; every truncation; every bit flipped; random
 * damage; the n-th allocation failing; and, when SHOAL_FIXTURES is set, the files of its malformed/make_malformed.py.
 */
#include "unit/file_builder.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void expect(const char *name, const void *bytes, size_t n, status code, const char *part)
{
    err e = {0};
    status s = open_copy(bytes, n, &e);
    if (s != code || e.code != code || !strstr(e.text, part))
        fail_msg("%s: expected %s with \"%s\", got %s: %s", name, status_name(code), part,
                 status_name(s), e.text);
}

/* Where things are in the tiny file: behind the first copy of `after`, plus `skip` bytes, `value` goes in as 4 or 8 bytes. */
typedef struct defect {
    const char *name, *after;
    size_t skip;
    int width;
    uint64_t value;
    status code;
    const char *part;
} defect;

static const defect defects[] = {
    {"version 0", "GGUF", 0, 4, 0, STATUS_CORRUPT, "byte 4: GGUF version: expected 2 or 3, got 0"},
    {"version 1", "GGUF", 0, 4, 1, STATUS_UNSUPPORTED, "got 1"},
    {"big endian", "GGUF", 0, 4, 0x03000000, STATUS_UNSUPPORTED, "big-endian"},
    {"tensors", "GGUF", 4, 8, UINT64_MAX, STATUS_CORRUPT, "byte 8: number of tensors"},
    {"one tensor more", "GGUF", 4, 8, 4, STATUS_CORRUPT, "tensor name"},
    {"keys", "GGUF", 12, 8, UINT64_MAX, STATUS_CORRUPT, "byte 16: number of metadata keys"},
    {"one key more", "GGUF", 12, 8, 9, STATUS_CORRUPT, "tensor name: expected"},
    {"one key less", "GGUF", 12, 8, 7, STATUS_CORRUPT,
     "tensor none: expected 1 to 4 dimensions, got 9"},
    {"no key length", "GGUF", 20, 8, 0, STATUS_CORRUPT, "byte 24: metadata key"},
    {"key length", "GGUF", 20, 8, 1ull << 62, STATUS_CORRUPT, "4611686018427387904 more bytes"},
    {"key length wraps", "GGUF", 20, 8, UINT64_MAX - 7, STATUS_CORRUPT, "metadata key"},
    {"value type", "general.architecture", 0, 4, 13, STATUS_CORRUPT,
     "key general.architecture: expected a value type 0 to 12, got 13"},
    {"string length", "general.architecture", 4, 8, UINT64_MAX - 3, STATUS_CORRUPT, "string value"},
    {"array of arrays", "tokens", 4, 4, 9, STATUS_UNSUPPORTED, "array of arrays"},
    {"element type", "tokens", 4, 4, 99, STATUS_CORRUPT, "got 99"},
    {"array length", "tokens", 8, 8, 1ull << 61, STATUS_CORRUPT,
     "array of strings: expected at most"},
    {"string in an array", "tokens", 16, 8, 1ull << 40, STATUS_CORRUPT, "key tokens: copy"},
    {"number array length", "types", 8, 8, 1ull << 62, STATUS_CORRUPT, "array of i32"},
    {"alignment 0", "general.alignment", 4, 4, 0, STATUS_CORRUPT, "general.alignment: expected"},
    {"alignment 48", "general.alignment", 4, 4, 48, STATUS_CORRUPT, "power of two"},
    {"alignment 2^30", "general.alignment", 4, 4, 1u << 30, STATUS_CORRUPT, "power of two"},
    {"alignment as a float", "general.alignment", 0, 4, FILE_VALUE_F32, STATUS_CORRUPT, "got f32"},
    {"dimensions 0", "b.weight", 0, 4, 0, STATUS_CORRUPT, "expected 1 to 4 dimensions, got 0"},
    {"dimensions 7", "b.weight", 0, 4, 7, STATUS_CORRUPT, "expected 1 to 4 dimensions, got 7"},
    {"dimension 0", "b.weight", 4, 8, 0, STATUS_CORRUPT, "tensor b.weight: dimension 0"},
    {"row", "b.weight", 4, 8, 33, STATUS_CORRUPT, "rows of a multiple of 32 elements, got 33"},
    {"elements", "b.weight", 12, 8, 1ull << 59, STATUS_CORRUPT, "2^63 elements"},
    {"size", "a.weight", 12, 8, 1ull << 60, STATUS_CORRUPT, "under 2^64 bytes"},
    {"type", "b.weight", 20, 4, 4, STATUS_UNSUPPORTED, "type 4 is not known"},
    {"type of safetensors", "b.weight", 20, 4, 64, STATUS_UNSUPPORTED, "type 64 is not known"},
    {"type -1", "b.weight", 20, 4, UINT32_MAX, STATUS_UNSUPPORTED, "type 4294967295"},
    {"offset beyond", "b.weight", 24, 8, 1ull << 32, STATUS_CORRUPT, "inside the file"},
    {"offset wraps", "b.weight", 24, 8, UINT64_MAX - 31, STATUS_CORRUPT, "inside the file"},
    {"offset unaligned", "b.weight", 24, 8, 7, STATUS_CORRUPT, "multiple of 32, got 7"},
    {"overlap", "a.weight", 24, 8, 64, STATUS_CORRUPT, "tensor a.weight: expected a start at byte"},
    {"same place", "a.weight", 24, 8, 0, STATUS_CORRUPT, "tensor "},
};

static void test_defects(void **state)
{
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(defects); i++) {
        const defect *d = &defects[i];
        sb b;
        sb_init(&b);
        build_tiny_gguf(&b);
        size_t at = find_text(&b, d->after) + strlen(d->after) + d->skip;
        for (int k = 0; k < d->width; k++)
            b.data[at + (size_t)k] = (char)(d->value >> 8 * k);
        expect(d->name, b.data, b.length, d->code, d->part);
        sb_fini(&b);
    }
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *part;
    } rows[] = {
        {"a.weight", "b.weight", "tensor b.weight: comes twice"},
        {"types", "eps\0\0", "has a NUL inside"},
        {"none", "flag", "metadata key flag: comes twice"},
        {"c.norm", "c.n\0rm", "tensor name: has a NUL inside"},
    };
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        sb b;
        sb_init(&b);
        build_tiny_gguf(&b);
        memcpy(b.data + find_text(&b, rows[i].from), rows[i].to, strlen(rows[i].from));
        expect(rows[i].part, b.data, b.length, STATUS_CORRUPT, rows[i].part);
        sb_fini(&b);
    }
}

/* Counts are believed only as far as the file has bytes for them: no allocation is asked for before. */
static void test_no_large_allocation(void **state)
{
    (void)state;
    static const uint64_t counts[][2] = {{1ull << 20, 0}, {0, 1ull << 16}, {1ull << 60, 1}, {5, 5}};
    for (size_t i = 0; i < BASE_COUNT(counts); i++) {
        sb b;
        sb_init(&b);
        put_start(&b, 3, counts[i][0], counts[i][1]);
        put_data(&b, 40, 0);
        uint64_t before = base_allocations();
        err e = {0};
        assert_int_equal(open_copy(b.data, b.length, &e), STATUS_CORRUPT);
        assert_true(base_allocations() - before <= 3); /* the object, its name, its part */
        sb_fini(&b);
    }
}

static void test_truncated(void **state)
{
    (void)state;
    sb b;
    sb_init(&b);
    build_tiny_gguf(&b);
    for (size_t n = 0; n < b.length; n++) {
        err e = {0};
        if (open_copy(b.data, n, &e) == STATUS_OK)
            fail_msg("opened with %zu of %zu bytes", n, b.length);
        assert_true(strlen(e.text) > 10);
    }
    assert_int_equal(open_copy(b.data, b.length, NULL), STATUS_OK);
    sb_fini(&b);
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void test_bits(void **state)
{
    (void)state;
    sb b;
    sb_init(&b);
    build_tiny_gguf(&b);
    int opened = 0, refused = 0;
    for (size_t i = 0; i < b.length * 8; i++) { /* each bit */
        b.data[i / 8] ^= (char)(1 << i % 8);
        *(open_copy(b.data, b.length, NULL) == STATUS_OK ? &opened : &refused) += 1;
        b.data[i / 8] ^= (char)(1 << i % 8);
    }
    assert_true(opened > 0 && refused > 0);
    uint64_t random = 1;
    for (int i = 0; i < 20000; i++) { /* a few bytes at once */
        size_t at[4];
        char old[4];
        for (int k = 0; k < 4; k++) {
            at[k] = next_random(&random) % b.length;
            old[k] = b.data[at[k]];
            b.data[at[k]] = (char)next_random(&random);
        }
        open_copy(b.data, b.length, NULL);
        for (int k = 3; k >= 0; k--)
            b.data[at[k]] = old[k];
    }
    assert_int_equal(open_copy(b.data, b.length, NULL), STATUS_OK);
    sb_fini(&b);
}

static void test_allocations(void **state)
{
    (void)state;
    sb b;
    sb_init(&b);
    build_tiny_gguf(&b);
    uint64_t n = 1;
    for (;; n++) {
        err e = {0};
        file_model *m = NULL;
        base_fail_after(n);
        status s = file_open_memory(&m, b.data, b.length, "region", &e);
        base_fail_after(0);
        if (s == STATUS_OK) {
            file_close(m);
            break;
        }
        assert_int_equal(s, STATUS_NO_MEMORY);
        assert_null(m);
    }
    assert_true(n > 5);
    sb_fini(&b);
}

/* ---- the fixtures ------------------------------------------------------------------------------ */

/* Well-formed containers whose contents src/model refuses, and those that are valid. */
static bool is_well_formed(const char *name)
{
    static const char *const names[] = {
        "architecture-unknown.gguf", "block-count-huge.gguf",      "bos-out-of-range.gguf",
        "head-count-zero.gguf",      "hidden-size-disagrees.gguf", "kv-heads-do-not-divide.gguf",
        "tensor-missing.gguf",
    };
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        if (strcmp(name, names[i]) == 0)
            return true;
    }
    return strncmp(name, "ok-", 3) == 0;
}

typedef struct fixture_walk {
    const char *folder;
    int refused, opened;
} fixture_walk;

static status open_fixture(void *context, const os_dir_entry *entry)
{
    fixture_walk *walk = context;
    file_model *m = NULL;
    err e = {0};
    status s = open_in(&m, walk->folder, entry->name, &e);
    if (s == STATUS_OK)
        touch_everything(m);
    file_close(m);
    if ((s == STATUS_OK) != is_well_formed(entry->name))
        fail_msg("%s: %s %s", entry->name, status_name(s), e.text);
    if (s != STATUS_OK && !strstr(e.text, entry->name))
        fail_msg("%s: the error does not name the file: %s", entry->name, e.text);
    *(s == STATUS_OK ? &walk->opened : &walk->refused) += 1;
    return STATUS_OK;
}

static void test_fixtures(void **state)
{
    (void)state;
    const char *fixtures = getenv("SHOAL_FIXTURES");
    char folder[64], command[1024];
    if (!fixtures) {
        printf("skipped: malformed fixtures (SHOAL_FIXTURES is not set)\n");
        skip();
    }
    make_folder(folder);
    int n = snprintf(command, sizeof command,
                     "python3 '%s/malformed/make_malformed.py' '%s' > /dev/null", fixtures, folder);
    assert_in_range(n, 1, sizeof command - 1);
    if (system("python3 --version > /dev/null 2>&1") != 0) {
        printf("skipped: malformed fixtures (no python3)\n");
        remove_folder(folder);
        skip();
    }
    assert_int_equal(system(command), 0);
    fixture_walk walk = {.folder = folder};
    err e = {0};
    assert_int_equal(os_list_dir(folder, open_fixture, &walk, &e), STATUS_OK);
    printf("malformed fixtures: %d refused, %d well formed\n", walk.refused, walk.opened);
    assert_true(walk.refused >= 40 && walk.opened >= 7);
    remove_folder(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defects),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_no_large_allocation),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_fixtures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
