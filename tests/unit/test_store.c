/* store: names to sources, over folders made in a temporary home: shoal's own, the hub cache, Ollama's store, LM Studio's. */
#include "os/os.h"
#include "store/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char home[256];

/* ---- a home -------------------------------------------------------------------------------------------------------- */

static const char *below(const char *path)
{
    static char full[1024];
    snprintf(full, sizeof full, "%s/%s", home, path);
    return full;
}

static void put(const char *path, const char *text)
{
    char folder[1024];
    snprintf(folder, sizeof folder, "%s", below(path));
    *strrchr(folder, '/') = '\0';
    assert_int_equal(os_make_dirs(folder, 0700, NULL), STATUS_OK);
    assert_int_equal(os_write_file(below(path), text, strlen(text), 0600, NULL), STATUS_OK);
}

static int make_home(void **state)
{
    static const char *const cleared[] = {"XDG_DATA_HOME", "XDG_CACHE_HOME",
                                          "HF_HOME",       "HF_HUB_CACHE",
                                          "OLLAMA_MODELS", "HUGGINGFACE_HUB_CACHE"};
    (void)state;
    snprintf(home, sizeof home, "/tmp/shoal-test-store-XXXXXX");
    if (!mkdtemp(home))
        return -1;
    for (size_t i = 0; i < BASE_COUNT(cleared); i++)
        unsetenv(cleared[i]);
    return setenv("HOME", home, 1);
}

static int remove_home(void **state)
{
    char command[400];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", home);
    return system(command);
}

/* ---- looking ------------------------------------------------------------------------------------------------------- */

typedef struct listing {
    char text[8192]; /* "name origin bytes\n" */
    int n;
} listing;

static status add_line(void *context, const store_model *m)
{
    listing *l = context;
    size_t used = strlen(l->text);
    uint64_t bytes = strcmp(m->origin, "builtin") ? m->bytes : 0;
    snprintf(l->text + used, sizeof l->text - used, "%s %s %llu\n", m->name, m->origin,
             (unsigned long long)bytes);
    l->n++;
    return STATUS_OK;
}

static void assert_listed(const char *expected)
{
    listing l = {.n = 0};
    err e;
    assert_int_equal(store_list(add_line, &l, &e), STATUS_OK);
    assert_string_equal(l.text, expected);
}

static void assert_found(const char *name, const char *origin, const char *source)
{
    char got[STORE_PATH];
    const char *from;
    err e;
    if (store_find(got, &from, name, &e) != STATUS_OK)
        fail_msg("%s: %s", name, e.text);
    assert_string_equal(from, origin);
    assert_string_equal(got, *source == '/' || strchr(source, ':') ? source : below(source));
}

static void assert_not_found(const char *name, status code, const char *says)
{
    char got[STORE_PATH] = "untouched";
    err e;
    assert_int_equal(store_find(got, NULL, name, &e), code);
    if (!strstr(e.text, says))
        fail_msg("'%s' does not say '%s'", e.text, says);
    assert_string_equal(got, "untouched");
}

/* ---- tests --------------------------------------------------------------------------------------------------------- */

static void bare_home_has_the_builtin_model(void **state)
{
    (void)state;
    assert_listed("minnow builtin 0\n");
    assert_found("minnow", "builtin", "builtin:minnow");
    assert_found("Minnow:latest", "builtin", "builtin:minnow");
    assert_not_found("minow", STATUS_NOT_FOUND, "did you mean minnow?");
    assert_not_found("something-else", STATUS_NOT_FOUND, "there is: minnow");
    assert_not_found("", STATUS_NOT_FOUND, "there is: minnow");
    file_model *f;
    err e;
    assert_int_equal(store_open(&f, "builtin:minnow", &e), STATUS_OK);
    assert_true(f->n_tensors > 0);
    file_close(f);
    assert_int_equal(store_open(&f, "builtin:other", &e), STATUS_NOT_FOUND);
}

static void own_folder(void **state)
{
    (void)state;
    put(".local/share/shoal/models/plain.gguf", "1234");
    put(".local/share/shoal/models/split-00001-of-00002.gguf", "12");
    put(".local/share/shoal/models/split-00002-of-00002.gguf", "345");
    put(".local/share/shoal/models/torn-00001-of-00002.gguf",
        "12"); /* its second part is missing */
    put(".local/share/shoal/models/mmproj-x.gguf", "1");
    put(".local/share/shoal/models/notes.txt", "1");
    put(".local/share/shoal/models/.hidden.gguf", "1");
    put(".local/share/shoal/models/bad\033[31mname.gguf", "1");
    put(".local/share/shoal/models/tensors/config.json", "{}");
    put(".local/share/shoal/models/tensors/model.safetensors", "12345");
    put(".local/share/shoal/models/empty/config.json", "{}");
    assert_listed("minnow builtin 0\nplain shoal 4\nsplit shoal 5\ntensors shoal 5\n");
    assert_found("PLAIN", "shoal", ".local/share/shoal/models/plain.gguf");
    assert_found("split", "shoal", ".local/share/shoal/models/split-00001-of-00002.gguf");
    assert_not_found("torn", STATUS_NOT_FOUND, "there is");
    setenv("XDG_DATA_HOME", below("elsewhere"), 1);
    put("elsewhere/shoal/models/there.gguf", "1");
    assert_listed("minnow builtin 0\nthere shoal 1\n");
    unsetenv("XDG_DATA_HOME");
}

static void paths(void **state)
{
    char path[1024], outside[STORE_PATH];
    (void)state;
    put("a.gguf", "1");
    snprintf(path, sizeof path, "%s", below("a.gguf"));
    assert_found(path, "path", path);
    assert_found("~/a.gguf", "path", "a.gguf");
    assert_int_equal(chdir(home), 0);
    assert_found("./a.gguf", "path", "a.gguf");
    assert_found("a.gguf", "path", "a.gguf"); /* no model of that name: the file */
    assert_int_equal(chdir("/"), 0);
    assert_not_found("~/none.gguf", STATUS_NOT_FOUND, "none.gguf");
    memset(outside, 'x', sizeof outside);
    outside[0] = '/';
    outside[sizeof outside - 1] = '\0';
    assert_not_found(outside, STATUS_NOT_FOUND, "no file");
}

#define HUB ".cache/huggingface/hub/"
#define REV "0123456789abcdef0123456789abcdef01234567"

static void hub_cache(void **state)
{
    char target[1024];
    (void)state;
    put(HUB "models--org--Tiny-1B-GGUF/refs/main", REV "\n");
    put(HUB "models--org--Tiny-1B-GGUF/blobs/aa", "123456");
    put(HUB "models--org--Tiny-1B-GGUF/snapshots/" REV "/tiny-1b-Q8_0.gguf", "123");
    snprintf(target, sizeof target, "%s",
             below(HUB "models--org--Tiny-1B-GGUF/snapshots/" REV "/Tiny-1B-Q4_K_M.gguf"));
    assert_int_equal(symlink("../../blobs/aa", target), 0);
    snprintf(target, sizeof target, "%s",
             below(HUB "models--org--Tiny-1B-GGUF/snapshots/" REV "/dangling.gguf"));
    assert_int_equal(symlink("../../blobs/bb", target), 0);
    put(HUB "models--org--Tiny-1B-GGUF/snapshots/" REV "/BF16/Tiny-1B-BF16-00001-of-00002.gguf",
        "1");
    put(HUB "models--org--Tiny-1B-GGUF/snapshots/" REV "/BF16/Tiny-1B-BF16-00002-of-00002.gguf",
        "1");
    put(HUB "models--org--Tiny-1B-GGUF/snapshots/older/Tiny-1B-Q2_K.gguf", "1");
    put(HUB "models--org--Soft-2B/snapshots/abc/config.json", "{}"); /* no refs */
    put(HUB "models--org--Soft-2B/snapshots/abc/model-00001-of-00002.safetensors", "12");
    put(HUB "models--org--Soft-2B/snapshots/abc/model-00002-of-00002.safetensors", "12");
    put(HUB "models--gpt2/refs/main", "abc");
    put(HUB "models--gpt2/snapshots/abc/config.json", "{}");
    put(HUB "models--gpt2/snapshots/abc/model.safetensors", "1");
    put(HUB "datasets--org--things/refs/main", "abc");
    put(HUB "models--evil--ref/refs/main", "../../../..");
    put(HUB "models--evil--ref/snapshots/x/readme", "1");
    put(HUB "models--e vil--name/snapshots/x/a.gguf", "1");
    assert_listed("minnow builtin 0\ngpt2 huggingface 1\norg/Soft-2B huggingface 4\n"
                  "org/Tiny-1B-GGUF:BF16 huggingface 2\norg/Tiny-1B-GGUF:Q4_K_M huggingface 6\n"
                  "org/Tiny-1B-GGUF:Q8_0 huggingface 3\n");
    assert_found("org/tiny-1b-gguf:q8_0", "huggingface",
                 HUB "models--org--Tiny-1B-GGUF/snapshots/" REV "/tiny-1b-Q8_0.gguf");
    assert_found("org/Tiny-1B-GGUF:Tiny-1B-Q4_K_M", "huggingface",
                 HUB "models--org--Tiny-1B-GGUF/snapshots/" REV "/Tiny-1B-Q4_K_M.gguf");
    assert_found("org/Tiny-1B-GGUF:Tiny-1B-BF16-00001-of-00002.gguf", "huggingface",
                 HUB "models--org--Tiny-1B-GGUF/snapshots/" REV
                     "/BF16/Tiny-1B-BF16-00001-of-00002.gguf");
    assert_found("org/Soft-2B", "huggingface", HUB "models--org--Soft-2B/snapshots/abc");
    assert_not_found("org/Tiny-1B-GGUF", STATUS_CONFLICT, "Q4_K_M");
    assert_not_found("tiny-1b", STATUS_NOT_FOUND, "org/Tiny-1B-GGUF:BF16?");
    assert_not_found("org/Soft-2C", STATUS_NOT_FOUND, "org/Soft-2B?");
}

static void hub_cache_elsewhere(void **state)
{
    (void)state;
    put("hf/hub/models--a--b/snapshots/x/b-Q4_0.gguf", "1");
    put("cache/models--c--d/snapshots/x/d-Q4_0.gguf", "1");
    setenv("HF_HOME", below("hf"), 1);
    assert_listed("minnow builtin 0\na/b:Q4_0 huggingface 1\n");
    assert_found("a/b", "huggingface", "hf/hub/models--a--b/snapshots/x/b-Q4_0.gguf");
    setenv("HF_HUB_CACHE", below("cache"), 1);
    assert_listed("minnow builtin 0\nc/d:Q4_0 huggingface 1\n");
    unsetenv("HF_HOME");
    unsetenv("HF_HUB_CACHE");
}

#define HEX     "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define LIBRARY ".ollama/models/manifests/registry.ollama.ai/library/"

static void manifest(const char *path, const char *type, const char *digest)
{
    char text[1024];
    snprintf(
        text, sizeof text,
        "{\"schemaVersion\":2,\"layers\":[{\"mediaType\":\"application/vnd.ollama.image.template\","
        "\"digest\":\"sha256:" HEX
        "\",\"size\":3},{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":7}]}",
        type, digest);
    put(path, text);
}

static void ollama_store(void **state)
{
    static const char type[] = "application/vnd.ollama.image.model";
    (void)state;
    put(".ollama/models/blobs/sha256-" HEX, "1234567");
    put("secret", "1");
    manifest(LIBRARY "llama3.2/latest", type, "sha256:" HEX);
    manifest(LIBRARY "llama3.2/1b", type, "sha256:" HEX);
    manifest(".ollama/models/manifests/registry.ollama.ai/user/mine/q4", type, "sha256:" HEX);
    manifest(".ollama/models/manifests/hf.co/org/repo/Q4_0", type, "sha256:" HEX);
    manifest(LIBRARY "escape/1", type, "sha256:../../../../secret");
    manifest(LIBRARY "escape/2", type, "../../secret");
    manifest(LIBRARY "upper/1", type,
             "sha256:00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff");
    manifest(LIBRARY "missing/1", type,
             "sha256:ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
    manifest(LIBRARY "other/1", "application/vnd.ollama.image.license", "sha256:" HEX);
    put(LIBRARY "broken/1", "{\"layers\": [{");
    put(LIBRARY "broken/2", "[1, 2, 3]");
    put(LIBRARY "broken/3", "{\"layers\": {\"mediaType\": 7}}");
    put(LIBRARY "broken/4", "{\"layers\": [null, 1, \"x\", {\"mediaType\": 1, \"digest\": []}]}");
    put(LIBRARY "broken/5", "");
    put(LIBRARY "broken/deeper/6", "{}");
    put(LIBRARY "adapted/1",
        "{\"layers\":[{\"mediaType\":\"application/"
        "vnd.ollama.image.model\",\"digest\":\"sha256:" HEX
        "\"},{\"mediaType\":\"application/vnd.ollama.image.adapter\",\"digest\":\"sha256:" HEX
        "\"}]}");
    assert_listed("minnow builtin 0\nhf.co/org/repo:Q4_0 ollama 7\nllama3.2:1b ollama 7\n"
                  "llama3.2:latest ollama 7\nuser/mine:q4 ollama 7\n");
    assert_found("llama3.2", "ollama", ".ollama/models/blobs/sha256-" HEX);
    assert_found("llama3.2:1B", "ollama", ".ollama/models/blobs/sha256-" HEX);
    assert_found("user/mine", "ollama", ".ollama/models/blobs/sha256-" HEX);
    assert_not_found("lama3.2", STATUS_NOT_FOUND, "did you mean llama3.2:1b?");
    setenv("OLLAMA_MODELS", below("nowhere"), 1);
    assert_listed("minnow builtin 0\n");
    unsetenv("OLLAMA_MODELS");
}

static void lm_studio_folders(void **state)
{
    (void)state;
    put(".lmstudio/models/pub/Repo-GGUF/Repo-Q4_0.gguf", "12");
    put(".lmstudio/models/pub/Repo-GGUF/mmproj-Repo.gguf", "12");
    put(".lmstudio/models/pub/loose.gguf", "12"); /* not in a repository */
    put(".cache/lm-studio/models/old/thing/weights.gguf", "1");
    assert_listed(
        "minnow builtin 0\nold/thing:weights lmstudio 1\npub/Repo-GGUF:Q4_0 lmstudio 2\n");
    assert_found("pub/Repo-GGUF", "lmstudio", ".lmstudio/models/pub/Repo-GGUF/Repo-Q4_0.gguf");
}

/* The same name in two places: the earlier origin has it, once. */
static void one_name_once(void **state)
{
    (void)state;
    put(HUB "models--pub--repo/snapshots/x/repo-Q4_0.gguf", "123");
    put(".lmstudio/models/pub/repo/repo-Q4_0.gguf", "12");
    put(".local/share/shoal/models/minnow.gguf", "1");
    assert_listed("minnow builtin 0\npub/repo:Q4_0 huggingface 3\n");
}

static void unreadable_folders_are_empty(void **state)
{
    (void)state;
    put(HUB "models--a--b/snapshots/x/b-Q4_0.gguf", "1");
    put(".local/share/shoal/models", "a file where a folder belongs");
    put(".lmstudio/models/pub/Repo/Repo-Q4_0.gguf", "12");
    assert_int_equal(chmod(below(".lmstudio/models/pub"), 0), 0);
    listing l = {.n = 0};
    err e;
    assert_int_equal(store_list(add_line, &l, &e), STATUS_OK);
    assert_true(l.n >= 2); /* root reads everything */
    assert_non_null(strstr(l.text, "a/b:Q4_0"));
    assert_int_equal(chmod(below(".lmstudio/models/pub"), 0700), 0);
}

static status stop_at_second(void *context, const store_model *m)
{
    (void)m;
    return ++*(int *)context == 2 ? STATUS_CANCELLED : STATUS_OK;
}

static void visitor_may_stop(void **state)
{
    int n = 0;
    err e;
    (void)state;
    put(".local/share/shoal/models/a.gguf", "1");
    put(".local/share/shoal/models/b.gguf", "1");
    assert_int_equal(store_list(stop_at_second, &n, &e), STATUS_CANCELLED);
    assert_int_equal(n, 2);
}

static void no_memory(void **state)
{
    (void)state;
    put(".local/share/shoal/models/a.gguf", "1");
    put(LIBRARY "x/latest", "{\"layers\":[]}");
    int n = 0, failed = 0;
    for (uint64_t i = 1;; i++) {
        listing l = {.n = 0};
        err e;
        uint64_t before = base_allocations();
        base_fail_after(i);
        status s = store_list(add_line, &l, &e);
        base_fail_after(0);
        n++;
        if (s != STATUS_OK) {
            assert_int_equal(s, STATUS_NO_MEMORY);
            failed++;
        } else if (base_allocations() - before < i) {
            break; /* it never came to the i-th */
        }
    }
    assert_true(n > 2 && failed > 0);
}

static void count_folder(void *context, const char *what, const char *path, bool exists)
{
    int *n = context;
    assert_true(*what && *path == '/');
    n[0]++;
    n[1] += exists;
}

static void folders(void **state)
{
    int n[2] = {0, 0};
    (void)state;
    put(".ollama/models/blobs/x", "1");
    store_folders(count_folder, n);
    assert_true(n[0] >= 5 && n[1] >= 1);
    unsetenv("HOME");
    listing l = {.n = 0};
    err e;
    assert_int_equal(store_list(add_line, &l, &e), STATUS_OK);
    setenv("HOME", home, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, make_home, remove_home)
    const struct CMUnitTest tests[] = {
        T(bare_home_has_the_builtin_model),
        T(own_folder),
        T(paths),
        T(hub_cache),
        T(hub_cache_elsewhere),
        T(ollama_store),
        T(lm_studio_folders),
        T(one_name_once),
        T(unreadable_folders_are_empty),
        T(visitor_may_stop),
        T(no_memory),
        T(folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
