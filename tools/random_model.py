"""GGUF models of real shapes with random weights, for measuring speed and memory: what they say is noise, but every byte that is read and
every product is that of the real model.

    python3 tools/random_model.py llama-1b Q4_0 [FILE]     # FILE: by default where model_file() keeps it
    model_file("llama-1b", "Q4_0") -> path                         # made once, kept in the user's cache folder

Types: Q4_0, Q8_0, F16, BF16: every matrix. Q4_K_M: Q4_K with Q6_K in the output and in half of the v and down matrices, as files of that
name have. Blocks are random bytes under scales that keep activations and logits finite; one pool of blocks a type is made once and
written from random places on. Needs Python alone. Deliberately not: quantising (tools/reference).
"""
import os
import random
import struct
import sys

SHAPES = {
    "llama-1b": dict(D=2048, F=8192, L=16, H=32, G=8, V=128256, theta=500000.0),
    "tiny-1m": dict(D=128, F=384, L=4, H=4, G=2, V=2048, theta=10000.0),
    "tiny-draft": dict(D=256, F=768, L=2, H=4, G=2, V=128256, theta=500000.0),
}
# name -> (number in GGUF, elements of a block, bytes of a block)
TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "BF16": (30, 1, 2), "Q4_0": (2, 32, 18), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144), "Q6_K": (14, 256, 210)}
FILE_TYPES = {"F16": 1, "BF16": 32, "Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15}
# deviation of the integers of a block under a scale of one
SPREAD = {"Q4_0": 4.65, "Q8_0": 73.9, "Q4_K": 257.0, "Q6_K": 342.0}
POOL_BYTES = 8 << 20
ALIGNMENT = 32
VERSION = 1  # a change of what is written makes new files


# ---- blocks ------------------------------------------------------------------------------------------------------------------------


class Pool:
    """Random blocks of one type and one deviation of their values, about 8 MB."""

    def __init__(self, kind, deviation, rng):
        self.kind, self.rng = kind, rng
        _, self.elements, self.block = TYPES[kind]
        self.n = POOL_BYTES // self.block
        if kind in ("F32", "F16", "BF16"):
            values = [rng.gauss(0, deviation) for _ in range(1 << 16)]
            if kind == "BF16":
                raw = b"".join(struct.pack("<f", v)[2:] for v in values)
            else:
                raw = struct.pack("<%d%s" % (len(values), "f" if kind == "F32" else "e"), *values)
            self.n = len(values)
        else:
            raw = self.quantised(deviation / SPREAD[kind])
        self.data = memoryview(bytes(raw))

    def quantised(self, scale):
        raw = bytearray(self.rng.randbytes(self.n * self.block))
        for at in range(0, len(raw), self.block):
            s = self.rng.uniform(0.5, 1.5) * scale * (1 if self.kind == "Q4_K" else self.rng.choice((-1, 1)))
            if self.kind == "Q6_K":
                for i in range(at + 192, at + 208):  # int8 scales, kept within 32
                    raw[i] = ((raw[i] - 128) >> 2) & 255
                struct.pack_into("<e", raw, at + 208, s)
            elif self.kind == "Q4_K":
                struct.pack_into("<ee", raw, at, s, 7.5 * s)
            else:
                struct.pack_into("<e", raw, at, s)
        return raw

    def write(self, f, n_elements):
        left = n_elements // self.elements
        while left > 0:
            at = self.rng.randrange(self.n)
            n = min(self.n - at, left)
            f.write(self.data[at * self.block : (at + n) * self.block])
            left -= n


# ---- metadata ----------------------------------------------------------------------------------------------------------------------


def text(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name, kind, value):
    code, form = {"u32": (4, "<I"), "f32": (6, "<f"), "bool": (7, "<?"), "str": (8, None)}[kind]
    return text(name) + struct.pack("<I", code) + (text(value) if form is None else struct.pack(form, value))


def array(name, kind, values):
    code, form = {"i32": (5, "<i"), "str": (8, None)}[kind]
    return text(name) + struct.pack("<IIQ", 9, code, len(values)) + b"".join(text(v) if form is None else struct.pack(form, v) for v in values)


def byte_characters():
    """The character that stands for each byte in byte-level vocabularies."""
    shown = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    spare = iter(range(256, 512))
    return [chr(b) if b in shown else chr(next(spare)) for b in range(256)]


def vocabulary(size):
    """Bytes, pairs of letters with their merges, filler, and two control tokens at the end."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [(a, b) for a in "\u0120" + letters for b in letters]
    tokens = byte_characters() + [a + b for a, b in pairs]
    tokens += ["<filler %d>" % i for i in range(len(tokens), size - 2)] + ["<begin>", "<end>"]
    return [
        key("tokenizer.ggml.model", "str", "gpt2"),
        key("tokenizer.ggml.pre", "str", "llama-bpe"),
        array("tokenizer.ggml.tokens", "str", tokens),
        array("tokenizer.ggml.token_type", "i32", [1] * (size - 2) + [3, 3]),
        array("tokenizer.ggml.merges", "str", [a + " " + b for a, b in pairs]),
        key("tokenizer.ggml.bos_token_id", "u32", size - 2),
        key("tokenizer.ggml.eos_token_id", "u32", size - 1),
        key("tokenizer.ggml.add_bos_token", "bool", False),
        key("tokenizer.chat_template", "str", "{% for m in messages %}{{ m.content }} {% endfor %}"),
    ]


def metadata(shape, quant):
    s = SHAPES[shape]
    keys = [key("general.architecture", "str", "llama"), key("general.name", "str", f"random {shape} {quant}"), key("general.file_type", "u32", FILE_TYPES[quant])]
    numbers = {"block_count": s["L"], "context_length": 131072, "embedding_length": s["D"], "feed_forward_length": s["F"], "vocab_size": s["V"]}
    numbers |= {"attention.head_count": s["H"], "attention.head_count_kv": s["G"], "rope.dimension_count": s["D"] // s["H"]}
    keys += [key("llama." + name, "u32", value) for name, value in numbers.items()]
    keys += [key("llama.attention.layer_norm_rms_epsilon", "f32", 1e-5), key("llama.rope.freq_base", "f32", s["theta"])]
    return keys + vocabulary(s["V"])


# ---- the file ----------------------------------------------------------------------------------------------------------------------


def tensors(shape, quant):
    """(name, columns, rows or 0, type, deviation)"""
    s = SHAPES[shape]
    width = s["D"] // s["H"] * s["G"]
    base, rich = ("Q4_K", "Q6_K") if quant == "Q4_K_M" else (quant, quant)
    out = [("token_embd.weight", s["D"], s["V"], rich, 0.02), ("output_norm.weight", s["D"], 0, "F32", 1.0)]
    for i in range(s["L"]):
        eighth = s["L"] // 8
        more = rich if i < eighth or i >= s["L"] - eighth or (i - eighth) % 3 == 2 else base
        rows = [("attn_q", s["D"], s["D"], base), ("attn_k", s["D"], width, base), ("attn_v", s["D"], width, more), ("attn_output", s["D"], s["D"], base)]
        rows += [("ffn_gate", s["D"], s["F"], base), ("ffn_up", s["D"], s["F"], base), ("ffn_down", s["F"], s["D"], more)]
        out += [(f"blk.{i}.{name}.weight", k, r, kind, k**-0.5) for name, k, r, kind in rows]
        out += [(f"blk.{i}.{name}.weight", s["D"], 0, "F32", 1.0) for name in ("attn_norm", "ffn_norm")]
    return out


def write_model(path, shape, quant, seed=1):
    rng, pools = random.Random(seed), {}
    keys, rows = metadata(shape, quant), tensors(shape, quant)
    head = [b"GGUF", struct.pack("<IQQ", 3, len(rows), len(keys))] + keys
    offset = 0
    for name, columns, n_rows, kind, _ in rows:
        dims = (columns, n_rows) if n_rows else (columns,)
        head.append(text(name) + struct.pack("<I%dQIQ" % len(dims), len(dims), *dims, TYPES[kind][0], offset))
        number, elements, block = TYPES[kind]
        offset += -(-(columns * max(n_rows, 1) // elements * block) // ALIGNMENT) * ALIGNMENT
    raw = b"".join(head)
    with open(path, "wb") as f:
        f.write(raw + bytes(-len(raw) % ALIGNMENT))
        for _, columns, n_rows, kind, deviation in rows:
            if n_rows == 0:
                f.write(struct.pack("<%df" % columns, *(rng.uniform(0.9, 1.1) for _ in range(columns))))
            else:
                if (kind, deviation) not in pools:
                    pools[kind, deviation] = Pool(kind, deviation, rng)
                pools[kind, deviation].write(f, columns * n_rows)
            f.write(bytes(-f.tell() % ALIGNMENT))


# ---- distributed-llama -----------------------------------------------------------------------------------------------------------------

DLLAMA_KEYS = {"version": 0, "arch": 1, "dim": 2, "ffn": 3, "layers": 4, "heads": 5, "kv": 6, "experts": 7, "used": 8, "vocab": 9, "seq": 10, "act": 11, "theta": 12, "weights": 13, "head": 19, "eps": 20}
DLLAMA_LLAMA, DLLAMA_Q40 = 0xABCD00, 2


def write_dllama(path, shape, seed=1):
    """The same shape in q40 in distributed-llama's own format: header of numbered integers, f32 embedding, then the layers' matrices."""
    s, rng = SHAPES[shape], random.Random(seed)
    width = s["D"] // s["H"] * s["G"]
    values = {"version": 0, "arch": DLLAMA_LLAMA, "act": 1, "dim": s["D"], "ffn": s["F"], "layers": s["L"], "heads": s["H"], "kv": s["G"], "weights": DLLAMA_Q40}
    values |= {"seq": 8192, "vocab": s["V"], "experts": 0, "used": 0, "theta": int(s["theta"]), "head": s["D"] // s["H"], "eps": 5}
    head = b"".join(struct.pack("<ii", DLLAMA_KEYS[k], v) for k, v in values.items())
    pool = {k: Pool("Q4_0", k**-0.5, rng) for k in (s["D"], s["F"])}
    ones = struct.pack("<f", 1.0) * s["D"]
    with open(path, "wb") as f:
        f.write(struct.pack("<ii", 0xA00ABCD, 8 + len(head)) + head)
        Pool("F32", 0.02, rng).write(f, s["V"] * s["D"])
        for _ in range(s["L"]):
            for k, rows in ((s["D"], s["D"]), (s["D"], width), (s["D"], width), (s["D"], s["D"]), (s["D"], s["F"]), (s["F"], s["D"]), (s["D"], s["F"])):
                pool[k].write(f, k * rows)
            f.write(ones + ones)
        f.write(ones)
        Pool("Q4_0", 0.02, rng).write(f, s["V"] * s["D"])


def write_dllama_tokenizer(path, size):
    """A token a byte, no merges."""
    tokens = [bytes([b]) for b in range(256)] + [b"<filler %d>" % i for i in range(256, size - 2)] + [b"<begin>", b"<end>"]
    head = b"".join(struct.pack("<ii", k, v) for k, v in ((3, size - 2), (0, 1), (1, size), (2, max(map(len, tokens))), (9, 1), (10, 0)))
    with open(path, "wb") as f:
        f.write(struct.pack("<ii", 0x567124, 8 + len(head)) + head + struct.pack("<i", size - 1))
        f.write(b"".join(struct.pack("<fI", 0.0, len(t)) + t for t in tokens))


def dllama_files(shape):
    os.makedirs(cache_folder(), exist_ok=True)
    model, tokenizer = (os.path.join(cache_folder(), f"{shape}-{VERSION}.{end}") for end in ("m", "t"))
    if not os.path.exists(model):
        write_dllama_tokenizer(tokenizer, SHAPES[shape]["V"])
        write_dllama(model + ".part", shape)
        os.replace(model + ".part", model)
    return model, tokenizer


# ---- kept files ------------------------------------------------------------------------------------------------------------------------


def cache_folder():
    return os.environ.get("SHOAL_BENCH_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "shoal-bench")


def model_file(shape, quant):
    os.makedirs(cache_folder(), exist_ok=True)
    path = os.path.join(cache_folder(), f"{shape}-{quant}-{VERSION}.gguf")
    if not os.path.exists(path):
        print(f"making {path}", file=sys.stderr)
        write_model(path + ".part", shape, quant)
        os.replace(path + ".part", path)
    return path


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in SHAPES or sys.argv[2] not in FILE_TYPES:
        sys.exit(f"usage: random_model.py {'|'.join(SHAPES)} {'|'.join(FILE_TYPES)} [FILE]")
    if len(sys.argv) == 4:
        write_model(sys.argv[3], sys.argv[1], sys.argv[2])
    else:
        print(model_file(sys.argv[1], sys.argv[2]))
