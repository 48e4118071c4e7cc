"""Makes the tiny random models of tests/data/models/ and their expected values.

    python3 tools/reference/make_models.py [OUTPUT_FOLDER] [NAME ...]

Each model is a Llama of an awkward shape: query heads per key/value head that are no power of two, widths that are no multiple of
a vector, tied or not, one rope variant each. The weights are random (fixed seeds), so a model says nothing; it computes a lot.
NAME.json holds what float64 arithmetic over the exactly dequantised weights gives (reference_llama.py):
    prompts[].ids            token ids, taken as they are
    prompts[].top            per position, the best TOP [id, natural-log probability]
    prompts[].last_logits    all logits of the last position ("last_top" instead, [id, logit] of the 64 best, for large vocabularies)
    prompts[].greedy         32 greedy tokens (end tokens do not stop it), greedy_margin: how far each was ahead of the second
"""
import json
import os
import sys

import numpy as np

import gguf_read
import hf_write
import reference_llama
import tiny_tokenizer
from gguf_write import GGUF

TOP = 5
# heads/kv, head size, width, feed-forward, layers, vocabulary (0 tokens: no tokenizer), weight type, tied, rope
MODELS = {
    "tiny-q8_0": dict(h=40, g=8, dh=16, d=64, f=96, layers=2, v=331, type="Q8_0", tied=False, rope="none", seed=1, context=2048),
    "h28-4-f32": dict(h=28, g=4, dh=16, d=32, f=72, layers=2, v=331, type="F32", tied=True, rope="llama3", seed=2),
    "h24-8-q4_0": dict(h=24, g=8, dh=16, d=96, f=160, layers=2, v=331, type="Q4_0", tied=False, rope="linear", seed=3),
    "f2880-q4_0": dict(h=14, g=2, dh=32, d=64, f=2880, layers=1, v=331, type="Q4_0", tied=False, rope="yarn", seed=4),
    "v32003-q4_0": dict(h=4, g=2, dh=16, d=32, f=64, layers=1, v=32003, type="Q4_0", tied=True, rope="none", seed=5, tokenizer=False),
    "h14-2-q4_k": dict(h=14, g=2, dh=16, d=256, f=256, layers=1, v=331, type="Q4_K", tied=True, rope="none", seed=26),
    "h16-4-q6_k": dict(h=16, g=4, dh=16, d=256, f=256, layers=1, v=277, type="Q6_K", tied=True, rope="linear", seed=7),
    "h14-2-bf16": dict(h=14, g=2, dh=16, d=64, f=96, layers=2, v=331, type="BF16", tied=False, rope="yarn", seed=8),
    "h24-8-f16": dict(h=24, g=8, dh=16, d=64, f=104, layers=1, v=331, type="F16", tied=True, rope="llama3", seed=226),
}
HF_TWINS = ("h24-8-f16",)  # also written as a folder NAME-hf of safetensors: the same weights, the same expected values


def fit(kind, columns):
    """K types need rows of a multiple of 256; a tensor that does not fit is Q8_0, as in published files."""
    return "Q8_0" if kind.endswith("_K") and columns % 256 else kind


def add_rope(w, m):
    w.f32("llama.rope.freq_base", 10000.0 if m["rope"] in ("none", "linear") else 500.0)
    w.u32("llama.rope.dimension_count", m["dh"])
    if m["rope"] == "linear":
        w.text("llama.rope.scaling.type", "linear")
        w.f32("llama.rope.scaling.factor", 2.5)
    elif m["rope"] == "yarn":  # betas that make the ramp cross several of the few pairs of a small head
        w.text("llama.rope.scaling.type", "yarn")
        w.f32("llama.rope.scaling.factor", 4.0)
        w.u32("llama.rope.scaling.original_context_length", 64)
        w.f32("llama.rope.scaling.yarn_beta_fast", 4.0)
        w.f32("llama.rope.scaling.yarn_beta_slow", 0.5)
    elif m["rope"] == "llama3":  # divisors as Llama 3.1 makes them: factor 8, bands 1 and 4 of an original context of 64
        f = 500.0 ** (-2.0 * np.arange(m["dh"] // 2) / m["dh"])
        smooth = np.clip((64 * f / (2 * np.pi) - 1) / (4 - 1), 0, 1)
        w.tensor("rope_freqs.weight", f / (f * smooth + f / 8 * (1 - smooth)), "F32")


def build(name, m):
    rng = np.random.default_rng(m["seed"])
    w, kind = GGUF(), m["type"]
    w.text("general.architecture", "llama")
    w.text("general.name", f"shoal {name} (random weights)")
    w.u32("general.quantization_version", 2)
    w.u32("llama.block_count", m["layers"])
    w.u32("llama.context_length", m.get("context", 512))
    w.u32("llama.embedding_length", m["d"])
    w.u32("llama.feed_forward_length", m["f"])
    w.u32("llama.attention.head_count", m["h"])
    w.u32("llama.attention.head_count_kv", m["g"])
    w.u32("llama.attention.key_length", m["dh"])
    w.u32("llama.attention.value_length", m["dh"])
    w.f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    w.u32("llama.vocab_size", m["v"])
    if m.get("tokenizer", True):
        tiny_tokenizer.add_to(w, m["v"])
    else:
        w.text("tokenizer.ggml.model", "none")
    add_rope(w, m)

    def matrix(tensor, rows, columns, scale=1.0):
        w.tensor(tensor, rng.standard_normal((rows, columns)) * scale / np.sqrt(columns), fit(kind, columns))

    def norm(tensor):
        w.tensor(tensor, 1 + 0.2 * rng.standard_normal(m["d"]), "F32")

    matrix("token_embd.weight", m["v"], m["d"], 3.0 if m["tied"] else np.sqrt(m["d"]))
    for i in range(m["layers"]):
        p = f"blk.{i}."
        norm(p + "attn_norm.weight")
        matrix(p + "attn_q.weight", m["h"] * m["dh"], m["d"], 1.5)
        matrix(p + "attn_k.weight", m["g"] * m["dh"], m["d"], 1.5)
        matrix(p + "attn_v.weight", m["g"] * m["dh"], m["d"])
        matrix(p + "attn_output.weight", m["d"], m["h"] * m["dh"], 2.0)
        norm(p + "ffn_norm.weight")
        matrix(p + "ffn_gate.weight", m["f"], m["d"], 1.5)
        matrix(p + "ffn_up.weight", m["f"], m["d"], 1.5)
        matrix(p + "ffn_down.weight", m["d"], m["f"], 2.0)
    norm("output_norm.weight")
    if not m["tied"]:
        matrix("output.weight", m["v"], m["d"], 3.0)
    return w


def rounded(x):
    return [round(float(v), 6) for v in x]


def expected(path, m):
    """What the file on disk gives, read back so that nothing but the file counts."""
    model = reference_llama.Llama(*gguf_read.read(path))
    rng = np.random.default_rng(1000 + m["seed"])
    prompts = []
    for length in (70, 9):
        ids = [int(i) for i in rng.integers(0, m["v"], length)]
        logits = model.logits(ids)
        logprobs = reference_llama.log_softmax(logits)
        best = np.argsort(-logits, axis=1, kind="stable")
        prompt = {"ids": ids, "top": [[[int(i), round(float(logprobs[t, i]), 6)] for i in best[t, :TOP]] for t in range(length)]}
        if m["v"] < 4096:
            prompt["last_logits"] = rounded(logits[-1])
        else:
            prompt["last_top"] = [[int(i), round(float(logits[-1, i]), 6)] for i in best[-1, :64]]
        prompt["greedy"], margins = model.greedy(ids, 32)
        prompt["greedy_margin"] = rounded(margins)
        prompts.append(prompt)
    return {"vocabulary": m["v"], "context": m.get("context", 512), "prompts": prompts}


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..", "tests", "data", "models")
    os.makedirs(folder, exist_ok=True)
    for name in sys.argv[2:] or MODELS:
        path = os.path.join(folder, name + ".gguf")
        build(name, MODELS[name]).write(path)
        if name in HF_TWINS:
            hf_write.write(os.path.join(folder, name + "-hf"), *gguf_read.read(path), MODELS[name])
        values = expected(path, MODELS[name])
        with open(os.path.join(folder, name + ".json"), "w") as f:
            json.dump(values, f, separators=(",", ":"))
            f.write("\n")
        spread = np.std([v for v in values["prompts"][0].get("last_logits", [x[1] for x in values["prompts"][0].get("last_top", [])])])
        margins = [x for p in values["prompts"] for x in p["greedy_margin"]]
        different = [len(set(p["greedy"])) for p in values["prompts"]]
        print(f"{name}: {os.path.getsize(path)} bytes, logits spread {spread:.2f}, smallest greedy margin {min(margins):.4f}, "
              f"different greedy tokens {different} of 32")


if __name__ == "__main__":
    main()
