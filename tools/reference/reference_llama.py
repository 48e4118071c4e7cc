"""The Llama family in float64: the slow reference that the engine is compared with. One token sequence, no cache, no tricks.

    python3 reference_llama.py MODEL.gguf "1,2,3"            prints the best tokens of the last position and 8 greedy tokens
    python3 reference_llama.py --check FIXTURES/models       compares with the expected values of the llama fixtures there

Weights: {GGUF name: float64 [out, in]}, dequantised exactly; activations stay float64.
GGUF stores q and k so that the rotated pairs are neighbours (2i, 2i + 1). Shapes: T tokens, D width, H query and G key/value heads of dh.
Sources: Touvron et al. 2023 (Llama); Su et al. 2021 (RoPE); Peng et al. 2023 (YaRN, section 3).
Deliberately not: any other family, any speed.
"""
import json
import os
import sys

import numpy as np

import gguf_read


def rope_tables(keys, tensors, n_positions):
    """cos and sin, [n_positions, dh/2] each."""
    dh = head_dim(keys)
    n_rot = keys.get("llama.rope.dimension_count", dh)
    base = float(keys.get("llama.rope.freq_base", 10000.0))
    kind = keys.get("llama.rope.scaling.type", "none")
    factor = float(keys.get("llama.rope.scaling.factor", 1.0))
    i = np.arange(n_rot // 2, dtype=np.float64)
    frequency = base ** (-2.0 * i / n_rot)
    magnitude = 1.0
    if "rope_freqs.weight" in tensors:  # llama3: the converter worked the scaling out
        frequency = frequency / tensors["rope_freqs.weight"]
    if kind == "linear":
        frequency = frequency / factor
    elif kind == "yarn":
        context = float(keys["llama.rope.scaling.original_context_length"])
        fast = float(keys.get("llama.rope.scaling.yarn_beta_fast", 32.0))
        slow = float(keys.get("llama.rope.scaling.yarn_beta_slow", 1.0))

        def pair_that_turns(times):  # the (real-valued) pair that makes so many turns within the original context
            return n_rot * np.log(context / (times * 2 * np.pi)) / (2 * np.log(base))

        low = max(0.0, np.floor(pair_that_turns(fast)))
        high = min(n_rot - 1.0, np.ceil(pair_that_turns(slow)))
        keep = 1.0 - np.clip((i - low) / max(0.001, high - low), 0.0, 1.0)  # 1: as trained, 0: interpolated
        frequency = frequency * keep + frequency / factor * (1.0 - keep)
        magnitude = 1.0 + 0.1 * np.log(factor)
    angle = np.arange(n_positions, dtype=np.float64)[:, None] * frequency
    return np.cos(angle) * magnitude, np.sin(angle) * magnitude


def head_dim(keys):
    return keys.get("llama.attention.key_length", keys["llama.embedding_length"] // keys["llama.attention.head_count"])


def rotate(x, cos, sin):
    """x [T, heads, dh]: pairs (2i, 2i + 1) of the first 2 * cos.shape[1] dimensions; the rest passes."""
    n = 2 * cos.shape[1]
    even, odd, c, s = x[..., 0:n:2], x[..., 1:n:2], cos[:, None, :], sin[:, None, :]
    out = x.copy()
    out[..., 0:n:2] = even * c - odd * s
    out[..., 1:n:2] = odd * c + even * s
    return out


def rms_norm(x, weight, epsilon):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * weight


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class Llama:
    def __init__(self, keys, tensors):
        self.keys, self.w = keys, tensors
        self.layers = keys["llama.block_count"]
        self.heads = keys["llama.attention.head_count"]
        self.kv_heads = keys.get("llama.attention.head_count_kv", self.heads)
        self.dh = head_dim(keys)
        self.epsilon = float(np.float32(keys["llama.attention.layer_norm_rms_epsilon"]))

    def attention(self, x, p, cos, sin):
        n = len(x)
        q = rotate((x @ self.w[p + "attn_q.weight"].T).reshape(n, self.heads, self.dh), cos, sin)
        k = rotate((x @ self.w[p + "attn_k.weight"].T).reshape(n, self.kv_heads, self.dh), cos, sin)
        v = (x @ self.w[p + "attn_v.weight"].T).reshape(n, self.kv_heads, self.dh)
        group = self.heads // self.kv_heads
        future = np.triu(np.full((n, n), -np.inf), 1)
        out = np.empty((n, self.heads, self.dh))
        for h in range(self.heads):
            scores = q[:, h] @ k[:, h // group].T / np.sqrt(self.dh) + future
            out[:, h] = softmax(scores) @ v[:, h // group]
        return out.reshape(n, -1) @ self.w[p + "attn_output.weight"].T

    def feed_forward(self, x, p):
        gate = x @ self.w[p + "ffn_gate.weight"].T
        return (gate / (1 + np.exp(-gate)) * (x @ self.w[p + "ffn_up.weight"].T)) @ self.w[p + "ffn_down.weight"].T

    def logits(self, ids):
        """[T, V] for token ids of one sequence that starts at position 0."""
        w = self.w
        cos, sin = rope_tables(self.keys, w, len(ids))
        x = w["token_embd.weight"][ids]
        for layer in range(self.layers):
            p = f"blk.{layer}."
            x = x + self.attention(rms_norm(x, w[p + "attn_norm.weight"], self.epsilon), p, cos, sin)
            x = x + self.feed_forward(rms_norm(x, w[p + "ffn_norm.weight"], self.epsilon), p)
        x = rms_norm(x, w["output_norm.weight"], self.epsilon)
        return x @ w.get("output.weight", w["token_embd.weight"]).T  # no output.weight: tied

    def greedy(self, ids, n):
        """n tokens, each the best one, and by how much its logit is ahead of the second."""
        ids, tokens, margins = list(ids), [], []
        for _ in range(n):
            last = self.logits(ids)[-1]
            first, second = np.argsort(-last, kind="stable")[:2]
            tokens.append(int(first))
            margins.append(float(last[first] - last[second]))
            ids.append(int(first))
        return tokens, margins


def log_softmax(x):
    m = x.max(axis=-1, keepdims=True)
    return x - m - np.log(np.exp(x - m).sum(axis=-1, keepdims=True))


def check(folder):
    """Our reference against the fixtures' expected values. Prints a line a file; returns the largest deviation."""
    worst = 0.0
    for name in ("llama-F32", "llama-F16", "llama-BF16", "llama-Q8_0", "llama-Q4_0", "llama-k-Q4_K_M", "llama-k-Q5_K", "llama-k-Q6_K"):
        model = Llama(*gguf_read.read(os.path.join(folder, name.rsplit("-", 1)[0].replace("-k-Q4_K", "-k"), name + ".gguf")))
        with open(os.path.join(folder, "expected", name + ".json")) as f:
            expected = json.load(f)
        deviation, same = 0.0, True
        for prompt in expected["prompts"]:
            got = model.logits(prompt["ids"])
            deviation = max(deviation, np.abs(got[-1] - prompt["last_logits"]).max())
            logprobs = np.take_along_axis(log_softmax(got), np.array(prompt["top_ids"]), axis=1)
            deviation = max(deviation, np.abs(logprobs - prompt["top_logprobs"]).max())
            same = same and model.greedy(prompt["ids"], 32)[0] == prompt["greedy"]
        print(f"{name}: {len(expected['prompts'])} prompts, max |deviation| {deviation:.2e}, greedy {'same' if same else 'DIFFERS'}")
        worst = max(worst, deviation if same else np.inf)
    return worst


def main():
    if sys.argv[1:2] == ["--check"]:
        sys.exit(0 if check(sys.argv[2]) < 1e-4 else 1)
    model = Llama(*gguf_read.read(sys.argv[1]))
    ids = [int(x) for x in sys.argv[2].split(",")]
    last = log_softmax(model.logits(ids)[-1])
    print("best:", [(int(i), round(float(last[i]), 4)) for i in np.argsort(-last)[:8]])
    print("greedy:", model.greedy(ids, 8)[0])


if __name__ == "__main__":
    main()
