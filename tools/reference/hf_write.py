"""Writes a model in the form that Hugging Face repositories have: config.json, tokenizer files, safetensors shards with an index.

The weights are those of a GGUF that make_models.py wrote, under their other names; the rows of q and k are put back from neighbouring pairs
(2i, 2i + 1) to halves (i, i + dh/2). Sources: the safetensors format's README; the config of Llama 3.1.
Deliberately not: any type but F16 and BF16, any family but Llama.
"""
import json
import os
import struct

import numpy as np

import quants
import reference_llama
import tiny_tokenizer

_LAYER = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
          "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
          "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def _name(gguf_name):
    if gguf_name in _TOP:
        return _TOP[gguf_name]
    _, layer, rest, _ = gguf_name.split(".")
    return f"model.layers.{layer}.{_LAYER[rest]}.weight"


def _halves(w, dh):
    """[heads * dh, D] with neighbouring pairs -> with halves."""
    w = w.reshape(-1, dh // 2, 2, w.shape[1])
    return w.transpose(0, 2, 1, 3).reshape(-1, w.shape[3])


def safetensors(tensors, kind):
    """[(name, array)] -> the bytes of one file. Norm weights stay F32."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, x in tensors:
        dtype = kind if x.ndim > 1 else "F32"
        raw = quants.quantise(x, dtype)
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def _config(keys, m):
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": m["v"], "hidden_size": m["d"],
        "intermediate_size": m["f"], "num_hidden_layers": m["layers"], "num_attention_heads": m["h"], "num_key_value_heads": m["g"],
        "head_dim": m["dh"], "max_position_embeddings": keys["llama.context_length"], "rms_norm_eps": 1e-5,
        "rope_theta": keys["llama.rope.freq_base"], "tie_word_embeddings": m["tied"], "hidden_act": "silu",
        "attention_bias": False, "mlp_bias": False, "torch_dtype": {"F16": "float16", "BF16": "bfloat16"}[m["type"]],
        "bos_token_id": keys["tokenizer.ggml.bos_token_id"], "eos_token_id": keys["tokenizer.ggml.eos_token_id"],
    }
    if m["rope"] == "llama3":
        config["rope_scaling"] = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                  "original_max_position_embeddings": 64}
    elif m["rope"] != "none":
        raise ValueError(m["rope"])
    return config


def _tokenizer(keys, m):
    tokens = keys["tokenizer.ggml.tokens"]
    first = m["v"] - len(tiny_tokenizer.SPECIALS)
    special = [{"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for i in range(first, m["v"])]
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}, "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "vocab": {t: i for i, t in enumerate(tokens[:first])},
                      "merges": keys["tokenizer.ggml.merges"]}}


def write(folder, keys, tensors, m):
    """keys and tensors as gguf_read.read gives them; m: the row of make_models.MODELS. Two shards."""
    os.makedirs(folder, exist_ok=True)
    dh, renamed = reference_llama.head_dim(keys), []
    for name, x in tensors.items():
        if name != "rope_freqs.weight":
            renamed.append((_name(name), _halves(x, dh) if "attn_q." in name or "attn_k." in name else x))
    middle, where, total = len(renamed) // 2, {}, 0
    for i, shard in enumerate((renamed[:middle], renamed[middle:])):
        file = f"model-{i + 1:05}-of-00002.safetensors"
        raw = safetensors(shard, m["type"])
        total += sum(int(np.prod(x.shape)) * (2 if x.ndim > 1 else 4) for _, x in shard)
        where.update({name: file for name, _ in shard})
        with open(os.path.join(folder, file), "wb") as f:
            f.write(raw)
    documents = {
        "model.safetensors.index.json": {"metadata": {"total_size": total}, "weight_map": where},
        "config.json": _config(keys, m),
        "generation_config.json": {"bos_token_id": keys["tokenizer.ggml.bos_token_id"], "eos_token_id": [keys["tokenizer.ggml.eos_token_id"]],
                                   "do_sample": True, "temperature": 0.7, "top_p": 0.9},
        "tokenizer.json": _tokenizer(keys, m),
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "bos_token": tiny_tokenizer.SPECIALS[0],
                                  "eos_token": tiny_tokenizer.SPECIALS[2], "pad_token": tiny_tokenizer.SPECIALS[0],
                                  "chat_template": tiny_tokenizer.TEMPLATE},
    }
    for file, document in documents.items():
        with open(os.path.join(folder, file), "w", encoding="utf-8") as f:
            json.dump(document, f, ensure_ascii=False, separators=(",", ":") if file == "tokenizer.json" else None,
                      indent=None if file == "tokenizer.json" else 1)
            f.write("\n")
