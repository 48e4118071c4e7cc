/* Clusters from files and short texts: what they make, and how contradictions, unknown names and wrong numbers are refused. */
#include "cli/plans.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/shoal-test-plan-XXXXXX.json";

static plans_cluster *read_text(const char *text, err *e)
{
    plans_cluster *c = NULL;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    return plans_cluster_read(&c, path, e) == STATUS_OK ? c : NULL;
}

static void refuses(const char *text, const char *words)
{
    err e;
    plans_cluster *c = read_text(text, &e);
    if (c || !strstr(e.text, words))
        fail_msg("%s\nexpected \"%s\", got: %s", text, words, c ? "a cluster" : e.text);
}

static void test_file(void **state)
{
    err e;
    (void)state;
    plans_cluster *c = read_text(
        "{\"link\": \"10gbe\", \"nodes\": [{\"device\": \"m4-pro\", \"name\": \"mini\", \"count\": "
        "2, \"memory\": \"24G\"},"
        "{\"device\": \"rtx-3090\", \"name\": \"card\", \"count\": 2, \"host\": \"tower\"},"
        "{\"name\": \"old\", \"memory\": \"8G\", \"bandwidth_gb_s\": 20, \"tflops\": 0.5}],"
        "\"links\": [{\"between\": [\"mini\", \"tower\"], \"link\": \"1gbe\", \"latency_us\": 77},"
        "{\"between\": [\"old\", \"mini-2\"], \"gbit_s\": 0}]}",
        &e);
    if (!c)
        fail_msg("%s", e.text);
    assert_int_equal(c->cluster.n_nodes, 5);
    assert_string_equal(c->nodes[1].name, "mini-2");
    assert_string_equal(c->nodes[4].name, "old");
    assert_true(c->nodes[0].memory_bytes == 24.0 * 1073741824);
    assert_true(c->nodes[4].bandwidth == 20e9);
    assert_true(c->links[0 * 5 + 1].latency_us == 20); /* 10gbe */
    assert_true(c->links[0 * 5 + 2].latency_us == 77 &&
                c->links[2 * 5].latency_us == 77);                                    /* named */
    assert_true(c->links[2 * 5 + 3].latency_us == 10);                                /* one host */
    assert_true(c->links[4 * 5 + 1].bandwidth == 0 && c->links[4 * 5].bandwidth > 0); /* none */
    base_free(c);
}

static void test_refused(void **state)
{
    (void)state;
    refuses("{\"nodes\": [", "line 1");
    refuses("[]", "expected an object");
    refuses("{\"nodes\": []}", "at least one");
    refuses("{\"nodes\": [{\"device\": \"m4-pr\"}]}", "m4-pro");
    refuses("{\"nodes\": [{\"device\": \"m4\", \"memry\": \"8G\"}]}", "unknown key 'memry'");
    refuses("{\"nodes\": [{\"device\": \"m4\", \"memory\": \"lots\"}]}", "must be a size");
    refuses("{\"nodes\": [{\"device\": \"m4\", \"count\": 1000}]}", "'count' of node 1");
    refuses(
        "{\"nodes\": [{\"device\": \"m4\", \"count\": 200}, {\"device\": \"m3\", \"count\": 100}]}",
        "more than 256 nodes");
    refuses("{\"nodes\": [{\"name\": \"x\"}]}", "has no 'device'");
    refuses("{\"nodes\": [{\"device\": \"m4\"}, {\"device\": \"m4\"}]}",
            "two nodes have the name 'm4'");
    refuses("{\"nodes\": [{\"device\": \"m4\"}], \"link\": \"10gb\"}", "10gbe");
    refuses("{\"nodes\": [{\"device\": \"m4\"}], \"nodes\": []}", "duplicate");
    refuses("{\"nodes\": [{\"device\": \"m4\"}, {\"device\": \"m3\"}], \"links\": [{\"between\": "
            "[\"m4\", \"m5\"]}]}",
            "'m5', which is no node");
    refuses("{\"nodes\": [{\"device\": \"m4\"}, {\"device\": \"m3\"}], \"links\": [{\"between\": "
            "[\"m4\"]}]}",
            "two names of nodes");
    refuses("{\"nodes\": [{\"device\": \"m4\"}, {\"device\": \"m3\"}], \"links\": ["
            "{\"between\": [\"m4\", \"m3\"], \"link\": \"1gbe\"}, {\"between\": [\"m3\", \"m4\"], "
            "\"link\": \"10gbe\"}]}",
            "contradicts an earlier one about");
    refuses("{\"nodes\": [{\"device\": \"m4\"}], \"links\": [{\"between\": [\"m4\", \"m4\"]}]}",
            "joins 'm4' with itself");
    refuses("{\"nodes\": [{\"device\": \"m4\", \"count\": 2.5}]}", "whole number from 1 to 256");
    refuses("{\"nodes\": [{\"device\": \"m4\", \"host_bandwidth_gb_s\": 9}]}", "has no 'host'");
    refuses("{\"nodes\": [{\"device\": \"m4\", \"host\": \"h\", \"host_bandwidth_gb_s\": 9},"
            "{\"device\": \"m3\", \"host\": \"h\", \"host_bandwidth_gb_s\": 8}]}",
            "'m4' and 'm3' contradict each other about what their host 'h' reads: 9 and 8 GB/s");
    refuses("{\"nodes\": [{\"device\": \"m4\", \"name\": \"h\"}, {\"device\": \"m3\", \"host\": "
            "\"h\"}]}",
            "'h' is a node, and the host of node 'm3'");
}

/* One host said once is that of all its nodes; more nodes than there may be, each with a host of its own, are refused. */
static void test_hosts(void **state)
{
    err e;
    sb text = {0};
    (void)state;
    plans_cluster *c =
        read_text("{\"nodes\": [{\"device\": \"m4\", \"name\": \"h\", \"host\": \"h\"},"
                  "{\"device\": \"m3\", \"host\": \"h\", \"host_bandwidth_gb_s\": 50}],"
                  "\"links\": [{\"between\": [\"h\", \"h\"], \"link\": \"1gbe\"}]}",
                  &e);
    if (!c)
        fail_msg("%s", e.text);
    assert_true(c->nodes[0].host_bandwidth == 50e9 && c->nodes[1].host_bandwidth == 50e9);
    assert_true(c->links[1].latency_us == 40);
    base_free(c);
    sb_printf(&text, "{\"nodes\": [");
    for (int i = 0; i <= PLAN_NODES; i++)
        sb_printf(&text, "%s{\"device\": \"m4\", \"name\": \"n%d\", \"host\": \"h%d\"}",
                  i ? "," : "", i, i);
    sb_printf(&text, "]}");
    refuses(text.data, "more than 256 nodes");
    sb_fini(&text);
}

static void test_short(void **state)
{
    plans_cluster *c;
    err e;
    (void)state;
    assert_int_equal(plans_cluster_read(&c, "8xm4-pro/64G,rtx-4090@thunderbolt5", &e), STATUS_OK);
    assert_int_equal(c->cluster.n_nodes, 9);
    assert_string_equal(c->nodes[7].name, "m4-pro-8");
    assert_string_equal(c->nodes[8].name, "rtx-4090");
    assert_true(c->links[8].latency_us == 150);
    base_free(c);
    assert_int_equal(plans_cluster_read(&c, "0xm4", &e), STATUS_INVALID);
    assert_int_equal(plans_cluster_read(&c, "2xm4@5gbe", &e), STATUS_NOT_FOUND);
    assert_int_equal(plans_cluster_read(&c, "2xm4x", &e), STATUS_NOT_FOUND);
    assert_int_equal(plans_cluster_read(&c, "2xm4/much", &e), STATUS_INVALID);
    assert_int_equal(plans_cluster_read(&c, "", &e), STATUS_INVALID);
    assert_int_equal(plans_cluster_read(&c, "2xm4,", &e), STATUS_INVALID);
    assert_int_equal(plans_cluster_read(&c, "m4@10gbe,m4", &e), STATUS_INVALID);
    assert_non_null(strstr(e.text, "at the end"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_file), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_hosts), cmocka_unit_test(test_short)};
    int fd = mkstemps(path, 5);
    if (fd < 0)
        return 1;
    close(fd);
    int code = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return code;
}
