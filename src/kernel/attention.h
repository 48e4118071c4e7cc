/*
 * kernel/attention: pages of keys and values, and what attention over them is: its operands and its order of operations (DESIGN
 * section 7 c).
 *
 * It is computed, and pages are written, by the table's functions (kernel.h). Not here: which page belongs to which sequence (src/engine).
 */
#ifndef KERNEL_ATTENTION_H
#define KERNEL_ATTENTION_H

#include "base/base.h"

enum {
    KERNEL_RANGE = 64,    /* keys of an attention range = tokens of a page */
    KERNEL_HEAD_MAX = 576 /* widest head */
};

typedef enum kernel_kv { KERNEL_KV_F16, KERNEL_KV_Q8_0 } kernel_kv; /* type of keys and values */

/*
 * A page holds KERNEL_RANGE tokens of one layer. F16: for each local K/V head, K as [4 groups of 16 keys][key_width][16] and then V as
 * [64][value_width]; values beyond ±65504 are clamped. Q8_0: the same with int8, and behind them f16 scales: K's as [4][blocks][16], V's as
 * [64][blocks], a block being 32 elements of one token and head (the last one may be shorter). scale = amax·fl(1/127) rounded to f16, q =
 * roundEven(x·(127·recip(amax))), zeros for amax < 2^-60: a function of the token's own vector. Unwritten slots are never read as values.
 */
uint64_t kernel_page_bytes(kernel_kv kv, int64_t n_kv_heads, int64_t key_width,
                           int64_t value_width);

/*
 * Attention of the query heads that share one K/V head, for n_tokens tokens of one sequence at consecutive positions. Per query
 * and range of 64 absolute positions in ascending order: s = (Σ_d q·k, one fma per d ascending)·scale, m = max, p = exp(s − m), l by
 * the 16-lane tree, o = Σ p·v (one fma per key ascending); ranges merge as l = fma(l_r, b, l·a), o = fma(o_r, b, o·a) with a = exp(m −
 * m'), b = exp(m_r − m'); at the end o·recip(l). A key is visible when 0 ≤ position_q − position_k < window; ranges without a visible
 * key are not touched (their page may be NULL). The keys of the tokens themselves are stored before.
 */
typedef struct kernel_attention {
    float *dst;     /* [T] rows dst_stride apart: the heads of this group, value_width each */
    const float *q; /* [T] rows q_stride apart: the heads of this group, key_width each */
    int64_t dst_stride, q_stride;
    int64_t n_tokens, position; /* of the first token */
    int n_heads;                /* of the group */
    int n_kv_heads, kv_head;    /* how many a page holds, and which of them */
    int key_width, value_width; /* multiples of 8 */
    int64_t window;             /* INT64_MAX: none */
    float scale;
    const float *sinks;       /* [n_heads] or NULL: a logit in the softmax that has no value */
    const void *const *pages; /* pages[p]: positions 64p … 64p + 63 */
    int64_t
        end; /* 0: a query sees what is before it and itself; else all see the positions up to end − 1 */
} kernel_attention;

#endif
