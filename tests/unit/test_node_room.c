/* What context and how many positions of state a node gives by default for the memory that it finds. */
#include "node/node.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define GB ((uint64_t)1 << 30)

/* 32 KiB of state a position. */
static model_card card_of(int64_t trained_context, uint64_t weight_bytes)
{
    return (model_card){
        .n_layers = 16,
        .n_kv_heads = 8,
        .head_dim = 64,
        .trained_context = trained_context,
        .weight_bytes = weight_bytes,
        .n_classes = 1,
        .classes = {{.kind = MODEL_STATE_PAGED,
                     .page_tokens = 64,
                     .page_bytes = kernel_page_bytes(KERNEL_KV_F16, 8, 64, 64) * 16}}};
}

static void context_follows_memory(void **state)
{
    (void)state;
    model_card card = card_of(131072, GB);
    /* 4 GiB for all of 131072 */
    node_room r = node_find_room(&card, NULL, MODEL_KV_F16, 0, 8, 64 * GB);
    assert_int_equal(r.context, 131072);
    assert_false(r.bounded);
    assert_int_equal(r.state_tokens, 64 * GB / 4 / 32768);
    r = node_find_room(&card, NULL, MODEL_KV_F16, 0, 8, 5 * GB);
    assert_true(r.bounded && r.context > 32768 && r.context < 131072);
    assert_true((uint64_t)r.context * 32768 <= 2 * GB);
    node_room q8 = node_find_room(&card, NULL, MODEL_KV_Q8_0, 0, 8, 5 * GB);
    assert_true(q8.context > r.context * 18 / 10 && q8.context < r.context * 19 / 10);
    r = node_find_room(&card, NULL, MODEL_KV_F16, 0, 8,
                       GB + GB + GB / 2); /* 32k need all but a little */
    assert_int_equal(r.context, 32768);
    assert_true(r.bounded);
    r = node_find_room(&card, NULL, MODEL_KV_F16, 0, 8, GB + GB / 2);
    assert_true(r.bounded && r.context < 32768 && r.context >= 512);
    assert_true((uint64_t)r.context * 32768 <= GB / 2);
    r = node_find_room(&card, NULL, MODEL_KV_F16, 0, 8, 0);
    assert_int_equal(r.context, 512);
    r = node_find_room(&card, NULL, MODEL_KV_F16, 70000, 8,
                       2 * GB); /* asked for: the rank will say if not */
    assert_int_equal(r.context, 70000);
    card.trained_context = 4096;
    r = node_find_room(&card, NULL, MODEL_KV_F16, 0, 8, 64 * GB);
    assert_int_equal(r.context, 4096);
    assert_int_equal(r.state_tokens, 8 * 4096);
}

/* A draft model of the same state and half the weights: what is left beside both is shared by two states a position. */
static void a_draft_model_takes_its_part(void **state)
{
    (void)state;
    model_card card = card_of(1 << 20, 2 * GB), draft = card;
    draft.weight_bytes = GB;
    node_room alone = node_find_room(&card, NULL, MODEL_KV_F16, 0, 1, 11 * GB);
    node_room both = node_find_room(&card, &draft, MODEL_KV_F16, 0, 1, 11 * GB);
    assert_true(alone.bounded && both.bounded);
    assert_true((uint64_t)alone.context * 32768 <= 9 * GB / 2);
    assert_true((uint64_t)both.context * 2 * 32768 <= 8 * GB / 2);
    assert_true(both.context * 2 > alone.context * 8 / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(context_follows_memory),
                                       cmocka_unit_test(a_draft_model_takes_its_part)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
