/*
 * How long planning takes: 1 to 200 nodes of mixed kinds in islands, for three models and every goal. The bars are 16 nodes in under 50 ms
 * and 200 nodes in under 1 s. Time is the thread's CPU time, so that a busy machine does not count.
 *
 *     bench_plan
 *
 * Prints; asserts nothing.
 */
#include "plan/plan.h"

#include <stdio.h>
#include <time.h>

static plan_node nodes[PLAN_NODES];
static plan_link links[PLAN_NODES * PLAN_NODES];

/* Islands of 8: two cards and two Macs in each, then desktops and small machines. */
static void make_cluster(plan_cluster *c, int n)
{
    static const char *const kinds[] = {"rtx-4090", "rtx-4090", "m4-max",      "m4-max",
                                        "m4-pro",   "n100",     "ryzen-7950x", "laptop-ddr5"};
    for (int i = 0; i < n; i++) {
        const plan_device *d;
        char name[16];
        snprintf(name, sizeof name, "node-%03d", i);
        if (plan_device_find(&d, kinds[i % 8], NULL) == STATUS_OK)
            plan_node_of(&nodes[i], name, d, 0);
    }
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++) {
            bool near = i / 8 == k / 8, wireless = i % 8 == 7 || k % 8 == 7;
            links[i * n + k] = wireless ? (plan_link){2000, 75e6}
                               : near   ? (plan_link){20, 1.175e9}
                                        : (plan_link){60, 0.1175e9};
        }
    *c = (plan_cluster){n, nodes, links};
}

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void run(const char *name, int n, plan_goal goal)
{
    plan_model m;
    plan_cluster c;
    plan_result r;
    const plan_engine *g;
    err e;
    plan_request q = {.goal = goal, .context = 8192, .prompt = 2048, .concurrency = 4};
    if (plan_model_find(&m, name, &e) != STATUS_OK ||
        plan_engine_find(&g, "shoal", &e) != STATUS_OK)
        return;
    make_cluster(&c, n);
    double start = cpu_ms();
    status s = plan_make(&r, &m, &c, g, &q, &e);
    double ms = cpu_ms() - start;
    if (s == STATUS_OK)
        printf("%-22s %4d nodes  %-10s  %8.2f ms  %6llu structures  best: %d nodes in %d stages, "
               "%.3g tok/s, %.3g together, first token %.3g s\n",
               name, n, plan_goal_name(goal), ms, (unsigned long long)r.tried, r.plans[0].n_nodes,
               r.plans[0].n_stages, r.plans[0].tokens_s, r.plans[0].throughput,
               r.plans[0].ttft_us / 1e6);
    else
        printf("%-22s %4d nodes  %-10s  %8.2f ms  %s\n", name, n, plan_goal_name(goal), ms,
               s == STATUS_TOO_LARGE ? "does not fit" : e.text);
    if (s == STATUS_OK || s == STATUS_TOO_LARGE)
        plan_result_fini(&r);
}

int main(void)
{
    static const char *const models[] = {"llama-3.1-8b:q4_k_m", "llama-3.1-405b:4bit",
                                         "deepseek-v3:4bit"};
    static const int sizes[] = {1, 2, 4, 5, 6, 8, 16, 32, 64, 200};
    for (size_t s = 0; s < BASE_COUNT(sizes); s++)
        for (size_t m = 0; m < BASE_COUNT(models); m++)
            for (int goal = PLAN_SPEED; goal <= PLAN_FEWEST; goal++)
                run(models[m], sizes[s], (plan_goal)goal);
    return 0;
}
