"""Embedding models in float64: BERT, nomic-bert and Qwen3 with pooling; the slow reference of src/model/bert.c and of pooled decoders.

    python3 reference_embed.py MODEL.gguf "1,2,3"      prints the pooled vector of length 1

One text, no cache, no batches. Weights: {GGUF name: float64 [out, in]}, dequantised exactly; activations stay float64.
Sources: Devlin et al. 2018 (BERT: layer norms behind the residual adds, erf-GELU, learned positions); Nussbaum et al. 2024 (nomic-embed:
rotary positions in halves, SiLU gate); Qwen3 technical report (norms on heads). Pooling as sentence-transformers does it.
Deliberately not: several segments (token types other than 0), any speed.
"""
import math
import sys

import numpy as np

import gguf_read

POOLINGS = {1: "mean", 2: "cls", 3: "last"}
erf = np.vectorize(math.erf)


def layer_norm(x, weight, bias, epsilon):
    d = x - x.mean(axis=-1, keepdims=True)
    return d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + epsilon) * weight + bias


def rms_norm(x, weight, epsilon):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * weight


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rotate_halves(x, base):
    """x [T, heads, dh]: pairs (i, i + dh/2)."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None] * base ** (-np.arange(half) / half)
    c, s = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * c - b * s, a * s + b * c], axis=-1)


class Embedder:
    def __init__(self, keys, tensors):
        self.w, self.arch = tensors, keys["general.architecture"]
        key = lambda name, default=None: keys.get(f"{self.arch}.{name}", default)
        self.layers, self.heads, self.d = key("block_count"), key("attention.head_count"), key("embedding_length")
        self.kv_heads = key("attention.head_count_kv", self.heads)
        self.dh = key("attention.key_length", self.d // self.heads)
        self.base = float(key("rope.freq_base", 10000.0))
        self.epsilon = float(np.float32(key("attention.layer_norm_epsilon", key("attention.layer_norm_rms_epsilon"))))
        self.pooling = POOLINGS[key("pooling_type")]

    def attend(self, q, k, v, causal):
        n, group = len(q), self.heads // self.kv_heads
        hidden = np.triu(np.full((n, n), -np.inf), 1) if causal else 0.0
        out = np.empty((n, self.heads, self.dh))
        for h in range(self.heads):
            out[:, h] = softmax(q[:, h] @ k[:, h // group].T / np.sqrt(self.dh) + hidden) @ v[:, h // group]
        return out.reshape(n, -1)

    def linear(self, x, name):
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def norm(self, x, name):
        return layer_norm(x, self.w[name + ".weight"], self.w[name + ".bias"], self.epsilon)

    def encoder_rows(self, ids):
        w, n = self.w, len(ids)
        x = w["token_embd.weight"][ids] + w["token_types.weight"][0]
        if self.arch == "bert":
            x = x + w["position_embd.weight"][:n]
        x = self.norm(x, "token_embd_norm")
        for layer in range(self.layers):
            p = f"blk.{layer}."
            if self.arch == "bert":
                q, k, v = (self.linear(x, p + "attn_" + c).reshape(n, -1, self.dh) for c in "qkv")
            else:
                q, k, v = (y.reshape(n, -1, self.dh) for y in np.split(self.linear(x, p + "attn_qkv"), 3, axis=1))
                q, k = rotate_halves(q, self.base), rotate_halves(k, self.base)
            x = self.norm(x + self.linear(self.attend(q, k, v, False), p + "attn_output"), p + "attn_output_norm")
            up = self.linear(x, p + "ffn_up")
            if self.arch == "bert":
                hidden = up * 0.5 * (1 + erf(up / np.sqrt(2)))
            else:
                gate = self.linear(x, p + "ffn_gate")
                hidden = gate / (1 + np.exp(-gate)) * up
            x = self.norm(x + self.linear(hidden, p + "ffn_down"), p + "layer_output_norm")
        return x

    def decoder_rows(self, ids):
        w, n, e = self.w, len(ids), self.epsilon
        x = w["token_embd.weight"][ids]
        for layer in range(self.layers):
            p = f"blk.{layer}."
            h = rms_norm(x, w[p + "attn_norm.weight"], e)
            q, k, v = (self.linear(h, p + "attn_" + c).reshape(n, -1, self.dh) for c in "qkv")
            q = rotate_halves(rms_norm(q, w[p + "attn_q_norm.weight"], e), self.base)
            k = rotate_halves(rms_norm(k, w[p + "attn_k_norm.weight"], e), self.base)
            x = x + self.linear(self.attend(q, k, v, True), p + "attn_output")
            h = rms_norm(x, w[p + "ffn_norm.weight"], e)
            gate = self.linear(h, p + "ffn_gate")
            x = x + self.linear(gate / (1 + np.exp(-gate)) * self.linear(h, p + "ffn_up"), p + "ffn_down")
        return rms_norm(x, w["output_norm.weight"], e)

    def vector(self, ids):
        rows = self.decoder_rows(ids) if self.arch == "qwen3" else self.encoder_rows(ids)
        v = {"mean": rows.mean(axis=0), "cls": rows[0], "last": rows[-1]}[self.pooling]
        return v / np.sqrt((v * v).sum())


if __name__ == "__main__":
    print(Embedder(*gguf_read.read(sys.argv[1])).vector([int(x) for x in sys.argv[2].split(",")]).tolist())
