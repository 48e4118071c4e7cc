"""Writes minnow.gguf from a checkpoint: export.py WORK OUT.gguf

Matrices become Q8_0, norms stay F32; the embedding is tied, so there is no output.weight. The rotation pairs are
neighbours, as GGUF's `llama` architecture wants them: no permutation.
"""
import os
import sys

import blas  # noqa: F401  before torch
import torch

import bpe
import gguf
from gguf import ARRAY, BOOL, F32, I32, STRING, T_F32, T_Q8_0, U32
from template import TEMPLATE

NAMES = {"n1": "attn_norm", "n2": "ffn_norm", "wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output",
         "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}


def metadata(c, tok):
    kinds = [3 if t in bpe.CONTROL else 4 if t in bpe.SPECIAL else 1 for t in tok.tokens]
    return [
        ("general.architecture", STRING, "llama"), ("general.name", STRING, "minnow"), ("general.type", STRING, "model"),
        ("general.license", STRING, "Apache-2.0"), ("general.size_label", STRING, "3M"), ("general.file_type", U32, 7),
        ("general.quantization_version", U32, 2), ("general.alignment", U32, gguf.ALIGN),
        ("general.description", STRING, "The tiny chat model built into shoal; see models/minnow/card.md"),
        ("llama.block_count", U32, c["layers"]), ("llama.context_length", U32, c["context"]),
        ("llama.embedding_length", U32, c["width"]), ("llama.feed_forward_length", U32, c["ffn"]),
        ("llama.attention.head_count", U32, c["heads"]), ("llama.attention.head_count_kv", U32, c["kv_heads"]),
        ("llama.attention.key_length", U32, c["head_width"]), ("llama.attention.value_length", U32, c["head_width"]),
        ("llama.attention.layer_norm_rms_epsilon", F32, c["eps"]), ("llama.rope.freq_base", F32, c["rope_base"]),
        ("llama.rope.dimension_count", U32, c["head_width"]), ("llama.vocab_size", U32, c["vocab"]),
        ("tokenizer.ggml.model", STRING, "gpt2"), ("tokenizer.ggml.pre", STRING, "qwen2"),
        ("tokenizer.ggml.tokens", (ARRAY, STRING), tok.tokens), ("tokenizer.ggml.token_type", (ARRAY, I32), kinds),
        ("tokenizer.ggml.merges", (ARRAY, STRING), [a + " " + b for a, b in tok.merges]),
        ("tokenizer.ggml.eos_token_id", U32, tok.ids["<|im_end|>"]), ("tokenizer.ggml.padding_token_id", U32, tok.ids["<|endoftext|>"]),
        ("tokenizer.ggml.bos_token_id", U32, tok.ids["<|endoftext|>"]),
        ("tokenizer.ggml.add_bos_token", BOOL, False), ("tokenizer.ggml.add_eos_token", BOOL, False),
        ("tokenizer.chat_template", STRING, TEMPLATE),
    ]


def main():
    work, out = sys.argv[1:3]
    tok = bpe.Tokenizer.load(os.path.join(work, "bpe.json"))
    ckpt = torch.load(os.path.join(work, "checkpoint.pt"))
    c, w = ckpt["config"], {k: v.float().numpy() for k, v in ckpt["model"].items()}
    tensors = [("token_embd.weight", w["embed"], T_Q8_0)]
    for i in range(c["layers"]):
        for mine, theirs in NAMES.items():
            a = w["blocks.%d.%s" % (i, mine)]
            tensors.append(("blk.%d.%s.weight" % (i, theirs), a, T_F32 if a.ndim == 1 else T_Q8_0))
    tensors.append(("output_norm.weight", w["norm"], T_F32))
    gguf.write(out, metadata(c, tok), tensors)
    print(out, os.path.getsize(out), "bytes, step", ckpt["state"]["step"])


if __name__ == "__main__":
    main()
