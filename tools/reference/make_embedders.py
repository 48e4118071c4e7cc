"""Makes the tiny random embedding models of tests/data/embed/ and their expected vectors.

    python3 tools/reference/make_embedders.py [OUTPUT_FOLDER]

bert-q8_0, bert-f32 and nomic-f16 have a WordPiece vocabulary of ours (specials, letters, some words); qwen3-last-q8_0 has the byte-level one
of tiny_tokenizer.py and ends every text with its end token, as embedding models of that kind do. Weights are random (fixed seeds).
NAME.json: texts with the ids that the tokenizer must give and the vector that float64 arithmetic gives (reference_embed.py); `long` are
ids only. bert-f32-hf/ holds the weights of bert-f32 as sentence-transformers keeps them: one expected file for both.
"""
import json
import os
import struct
import sys

import numpy as np

import gguf_read
import reference_embed
import tiny_tokenizer
from gguf_write import GGUF

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "shoal", "is", "many", "small", "fish", "that", "move", "as", "one", "machine", "the", "quick", "brown", "fox"]
ENDS = ["s", "ed", "ing", "er", "machine"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"
MODELS = {
    "bert-f32": dict(arch="bert", h=4, dh=16, d=64, f=104, layers=2, type="F32", pooling=2, seed=1, context=96),
    "bert-q8_0": dict(arch="bert", h=6, dh=32, d=192, f=320, layers=2, type="Q8_0", pooling=1, seed=2, context=160),
    "nomic-f16": dict(arch="nomic-bert", h=3, dh=32, d=96, f=160, layers=2, type="F16", pooling=1, seed=3, context=200),
    "qwen3-last-q8_0": dict(arch="qwen3", h=4, g=2, dh=32, d=96, f=128, layers=2, type="Q8_0", pooling=3, seed=4, context=256),
}
TEXTS = ["A shoal is many small fish.", "the quick brown fox machines moved", "zebra!? unknown \u4e2d", "Shoals"]


def pieces():
    """Whole words and letters as GGUF writes them ("▁" in front of a word's beginning), then what continues a word."""
    first = WORDS + [c for c in LETTERS if c not in WORDS]
    rest = [e for e in ENDS if len(e) > 1] + list(LETTERS)
    return SPECIALS, first, rest


def word_ids(text, index):
    """Our own few lines of WordPiece, for these texts only: lower case, words and marks, longest piece first."""
    out, word = [], ""
    words = []
    for c in text.lower() + " ":
        if c.isalnum():
            word += c
            if ord(c) >= 0x4E00:  # such characters are words of their own
                words += [word[:-1], c] if word[:-1] else [c]
                word = ""
            continue
        words += [word] if word else []
        words += [c] if not c.isspace() else []
        word = ""
    for w in words:
        at, ids = 0, []
        while at < len(w):
            end = next((e for e in range(len(w), at, -1) if (at > 0, w[at:e]) in index), None)
            if end is None:
                ids = [SPECIALS.index("[UNK]")]
                break
            ids.append(index[(at > 0, w[at:end])])
            at = end
        out += ids
    return [SPECIALS.index("[CLS]"), *out, SPECIALS.index("[SEP]")]


def add_wordpiece(w):
    specials, first, rest = pieces()
    w.text("tokenizer.ggml.model", "bert")
    w.array("tokenizer.ggml.tokens", "str", specials + ["\u2581" + p for p in first] + rest)
    w.array("tokenizer.ggml.token_type", "i32", [3] * len(specials) + [1] * (len(first) + len(rest)))
    for name, token in (("unknown", "[UNK]"), ("cls", "[CLS]"), ("bos", "[CLS]"), ("seperator", "[SEP]"), ("eos", "[SEP]"),
                        ("padding", "[PAD]"), ("mask", "[MASK]")):
        w.u32(f"tokenizer.ggml.{name}_token_id", specials.index(token))
    return len(specials) + len(first) + len(rest)


def build(name, m):
    rng = np.random.default_rng(m["seed"])
    w, arch, kind, d = GGUF(), m["arch"], m["type"], m["d"]
    w.text("general.architecture", arch)
    w.text("general.name", f"shoal {name} (random weights)")
    for key, value in (("block_count", m["layers"]), ("context_length", m["context"]), ("embedding_length", d), ("feed_forward_length", m["f"]),
                       ("attention.head_count", m["h"]), ("attention.head_count_kv", m.get("g", m["h"])), ("pooling_type", m["pooling"])):
        w.u32(f"{arch}.{key}", value)
    w.f32(f"{arch}.attention.layer_norm_{'rms_' if arch == 'qwen3' else ''}epsilon", 1e-6 if arch == "qwen3" else 1e-12)
    if arch == "qwen3":
        w.u32("qwen3.attention.key_length", m["dh"])
        w.u32("qwen3.attention.value_length", m["dh"])
        tiny_tokenizer.add_to(w, 331)
        w.flag("tokenizer.ggml.add_eos_token", True)
        n_vocab = 331
    else:
        w.flag(f"{arch}.attention.causal", False)
        n_vocab = add_wordpiece(w)
    if arch != "bert":
        w.f32(f"{arch}.rope.freq_base", 1000.0)

    def matrix(tensor, rows, columns, scale=1.0):
        w.tensor(tensor, rng.standard_normal((rows, columns)) * scale / np.sqrt(columns), kind)

    def vector(tensor, n, middle, spread):
        w.tensor(tensor, middle + spread * rng.standard_normal(n), "F32")

    def norm(tensor):
        vector(tensor + ".weight", d, 1, 0.2)
        vector(tensor + ".bias", d, 0, 0.2)

    q, kv = m["h"] * m["dh"], m.get("g", m["h"]) * m["dh"]
    matrix("token_embd.weight", n_vocab, d, np.sqrt(d))
    if arch == "qwen3":
        vector("output_norm.weight", d, 1, 0.2)
    else:
        w.tensor("token_types.weight", 0.3 * rng.standard_normal((2, d)), "F32")
        if arch == "bert":
            w.tensor("position_embd.weight", 0.5 * rng.standard_normal((m["context"], d)), "F32")
        norm("token_embd_norm")
    for i in range(m["layers"]):
        p = f"blk.{i}."
        if arch == "nomic-bert":
            matrix(p + "attn_qkv.weight", 3 * q, d, 1.3)
        else:
            for c, rows in (("q", q), ("k", kv), ("v", kv)):
                matrix(p + f"attn_{c}.weight", rows, d, 1.3)
                if arch == "bert":
                    vector(p + f"attn_{c}.bias", rows, 0, 0.3)
        matrix(p + "attn_output.weight", d, q, 1.5)
        if arch == "qwen3":
            for t, n in (("attn_norm", d), ("ffn_norm", d), ("attn_q_norm", m["dh"]), ("attn_k_norm", m["dh"])):
                vector(p + t + ".weight", n, 1, 0.2)
        else:
            norm(p + "attn_output_norm")
            norm(p + "layer_output_norm")
        if arch != "bert":
            matrix(p + "ffn_gate.weight", m["f"], d, 1.5)
        matrix(p + "ffn_up.weight", m["f"], d, 1.5)
        matrix(p + "ffn_down.weight", d, m["f"], 1.5)
        if arch == "bert":
            vector(p + "attn_output.bias", d, 0, 0.3)
            vector(p + "ffn_up.bias", m["f"], 0, 0.3)
            vector(p + "ffn_down.bias", d, 0, 0.3)
    return w


def expected(path, m):
    keys, tensors = gguf_read.read(path)
    model = reference_embed.Embedder(keys, tensors)
    specials, first, rest = pieces()
    index = {(False, p): len(specials) + i for i, p in enumerate(first)}
    index.update({(True, p): len(specials) + len(first) + i for i, p in enumerate(rest)})
    rounded = lambda ids: [round(float(v), 7) for v in model.vector(ids)]
    texts = []
    for text in TEXTS if m["arch"] != "qwen3" else []:
        ids = word_ids(text, index)
        texts.append({"text": text, "ids": ids, "vector": rounded(ids)})
    rng = np.random.default_rng(50 + m["seed"])
    long = []
    for n in (1, 66, m["context"]):
        ids = [int(i) for i in rng.integers(0, len(tensors["token_embd.weight"]), n)]
        long.append({"ids": ids, "vector": rounded(ids)})
    return {"width": m["d"], "pooling": reference_embed.POOLINGS[m["pooling"]], "context": m["context"], "texts": texts, "long": long}


def write_hf(folder, path, m):
    """bert only: the names and files of sentence-transformers."""
    _, tensors = gguf_read.read(path)
    os.makedirs(os.path.join(folder, "1_Pooling"), exist_ok=True)
    names = {"token_embd": "embeddings.word_embeddings", "token_types": "embeddings.token_type_embeddings",
             "position_embd": "embeddings.position_embeddings", "token_embd_norm": "embeddings.LayerNorm",
             "attn_q": "attention.self.query", "attn_k": "attention.self.key", "attn_v": "attention.self.value",
             "attn_output": "attention.output.dense", "attn_output_norm": "attention.output.LayerNorm", "ffn_up": "intermediate.dense",
             "ffn_down": "output.dense", "layer_output_norm": "output.LayerNorm"}
    header, data, at = {}, [], 0
    for name, x in tensors.items():
        parts = name.split(".")
        stem = names[parts[-2]] + "." + parts[-1]
        full = f"encoder.layer.{parts[1]}.{stem}" if parts[0] == "blk" else stem
        raw = np.asarray(x, dtype="<f4").tobytes()
        header[full] = {"dtype": "F32", "shape": list(np.shape(x)), "data_offsets": [at, at + len(raw)]}
        data.append(raw)
        at += len(raw)
    head = json.dumps(header, separators=(",", ":")).encode()
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + b"".join(data))
    config = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": m["d"], "num_hidden_layers": m["layers"],
              "num_attention_heads": m["h"], "intermediate_size": m["f"], "max_position_embeddings": m["context"], "hidden_act": "gelu",
              "layer_norm_eps": 1e-12, "position_embedding_type": "absolute", "type_vocab_size": 2}
    specials, first, rest = pieces()
    vocab = {p: i for i, p in enumerate(specials + first + ["##" + p for p in rest])}
    added = [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, s in enumerate(specials)]
    special = lambda s: {"id": s, "ids": [specials.index(s)], "tokens": [s]}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                 "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
                 "pre_tokenizer": {"type": "BertPreTokenizer"},
                 "post_processor": {"type": "TemplateProcessing",
                                    "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                               {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                                    "pair": [], "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")}},
                 "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
                 "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab}}
    pooling = {"word_embedding_dimension": m["d"], "pooling_mode_cls_token": m["pooling"] == 2, "pooling_mode_mean_tokens": m["pooling"] == 1,
               "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}
    for name, value in (("config.json", config), ("tokenizer.json", tokenizer), ("1_Pooling/config.json", pooling)):
        with open(os.path.join(folder, name), "w") as f:
            json.dump(value, f, indent=1)
            f.write("\n")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..", "tests", "data", "embed")
    os.makedirs(folder, exist_ok=True)
    for name, m in MODELS.items():
        path = os.path.join(folder, name + ".gguf")
        build(name, m).write(path)
        values = expected(path, m)
        if name == "bert-f32":
            write_hf(os.path.join(folder, name + "-hf"), path, m)
        with open(os.path.join(folder, name + ".json"), "w") as f:
            json.dump(values, f, separators=(",", ":"))
            f.write("\n")
        vectors = [np.array(t["vector"]) for t in values["texts"] + values["long"]]
        print(f"{name}: {os.path.getsize(path)} bytes, cosines of neighbours {[round(float(a @ b), 2) for a, b in zip(vectors, vectors[1:])]}")


if __name__ == "__main__":
    main()
