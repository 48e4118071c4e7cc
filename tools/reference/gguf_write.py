"""Writes GGUF v3 files: metadata, tensors in any type of quants.py, one file or split into parts.

    w = GGUF()
    w.u32("llama.block_count", 2); w.text("general.architecture", "llama"); w.array("tokenizer.ggml.tokens", "str", tokens)
    w.tensor("blk.0.attn_q.weight", array, "Q8_0")          # array [rows, columns] -> dims (columns, rows)
    w.write("model.gguf")

Source: ggml/docs/gguf.md. Deliberately not: reading (gguf_read.py).
"""
import struct

import numpy as np

import quants

_CODES = {"u8": (0, "<B"), "i8": (1, "<b"), "u16": (2, "<H"), "i16": (3, "<h"), "u32": (4, "<I"), "i32": (5, "<i"), "f32": (6, "<f"),
          "bool": (7, "<?"), "str": (8, None), "u64": (10, "<Q"), "i64": (11, "<q"), "f64": (12, "<d")}
ALIGNMENT = 32


def _text(s):
    raw = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(kind, x):
    return _text(x) if kind == "str" else struct.pack(_CODES[kind][1], x)


def _padded(raw):
    return raw + bytes(-len(raw) % ALIGNMENT)


class GGUF:
    def __init__(self):
        self.keys = []  # encoded
        self.tensors = []  # (name, dims, type number, bytes)

    def key(self, name, kind, value):
        self.keys.append(_text(name) + struct.pack("<I", _CODES[kind][0]) + _value(kind, value))

    def array(self, name, kind, values):
        head = struct.pack("<IIQ", 9, _CODES[kind][0], len(values))
        self.keys.append(_text(name) + head + b"".join(_value(kind, v) for v in values))

    def u32(self, name, value):
        self.key(name, "u32", value)

    def f32(self, name, value):
        self.key(name, "f32", value)

    def text(self, name, value):
        self.key(name, "str", value)

    def flag(self, name, value):
        self.key(name, "bool", value)

    def tensor(self, name, x, kind):
        """Quantises x [rows, columns] (or [columns]) and returns what is really stored, as float64."""
        x = np.asarray(x)
        raw = quants.quantise(x, kind)
        self.tensors.append((name, tuple(reversed(x.shape)), quants.TYPES[kind][0], raw))
        return quants.dequantise(raw, kind, x.shape)

    def _encode(self, keys, tensors):
        out = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(keys))] + keys
        offset = 0
        for name, dims, number, raw in tensors:
            out.append(_text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims))
            out.append(struct.pack("<IQ", number, offset))
            offset += len(_padded(raw))
        return _padded(b"".join(out)) + b"".join(_padded(raw) for _, _, _, raw in tensors)

    def encode(self):
        return self._encode(self.keys, self.tensors)

    def write(self, path):
        with open(path, "wb") as f:
            f.write(self.encode())

    def write_split(self, prefix, parts):
        """prefix-00001-of-0000N.gguf ...; metadata only in the first one."""
        share = -(-len(self.tensors) // parts)
        for i in range(parts):
            split = GGUF()
            split.key("split.no", "u16", i)
            split.key("split.count", "u16", parts)
            split.key("split.tensors.count", "i32", len(self.tensors))
            keys = self.keys + split.keys if i == 0 else split.keys
            with open(f"{prefix}-{i + 1:05}-of-{parts:05}.gguf", "wb") as f:
                f.write(self._encode(keys, self.tensors[i * share : (i + 1) * share]))
