"""GGUF version 3: a small writer and reader, and Q8_0, with NumPy. Only what minnow needs."""
import struct

import numpy as np

U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
T_F32, T_Q8_0 = 0, 8
ALIGN = 32


def quantise(w):
    """[rows, cols] f32 -> bytes of Q8_0: per 32 values a half scale amax/127 and 32 int8 (half away from zero)."""
    x = w.astype(np.float32).reshape(-1, 32)
    d = np.abs(x).max(1) / np.float32(127)
    inv = np.where(d > 0, np.float32(1) / np.where(d > 0, d, 1), 0).astype(np.float32)
    y = x * inv[:, None]
    q = (np.sign(y) * np.floor(np.abs(y) + 0.5)).astype(np.int8)
    out = np.empty((len(x), 34), np.uint8)
    out[:, :2] = d.astype(np.float16).view(np.uint8).reshape(-1, 2)
    out[:, 2:] = q.view(np.uint8)
    return out.tobytes()


def dequantise(raw, shape):
    b = np.frombuffer(raw, np.uint8).reshape(-1, 34)
    d = b[:, :2].copy().view(np.float16).astype(np.float32)
    return (d * b[:, 2:].view(np.int8).astype(np.float32)).reshape(shape)


def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def scalar(kind, v):
    return text(v) if kind == STRING else struct.pack({U32: "<I", F32: "<f", BOOL: "<?", I32: "<i"}[kind], v)


def write(path, meta, tensors):
    """meta: [(key, kind, value)], kind (ARRAY, element) for arrays; tensors: [(name, array, type)]."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta))
    for key, kind, v in meta:
        head += text(key)
        if isinstance(kind, tuple):
            head += struct.pack("<IIQ", ARRAY, kind[1], len(v)) + b"".join(scalar(kind[1], x) for x in v)
        else:
            head += struct.pack("<I", kind) + scalar(kind, v)
    blobs, at = [], 0
    for name, a, t in tensors:
        blob = quantise(a) if t == T_Q8_0 else a.astype("<f4").tobytes()
        head += text(name) + struct.pack("<I", a.ndim) + b"".join(struct.pack("<Q", n) for n in reversed(a.shape))
        head += struct.pack("<IQ", t, at)
        blobs.append(blob + bytes(-len(blob) % ALIGN))
        at += len(blobs[-1])
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % ALIGN) + b"".join(blobs))


def read(path):
    """(meta dict, {name: f32 array})."""
    with open(path, "rb") as f:
        b = f.read()
    at = 4

    def take(fmt):
        nonlocal at
        v = struct.unpack_from("<" + fmt, b, at)
        at += struct.calcsize("<" + fmt)
        return v if len(v) > 1 else v[0]

    def value(kind):
        nonlocal at
        if kind == STRING:
            n = take("Q")
            at += n
            return b[at - n:at].decode()
        if kind == ARRAY:
            k, n = take("IQ")
            return [value(k) for _ in range(n)]
        return take({U32: "I", F32: "f", BOOL: "?", I32: "i"}[kind])

    _, n_tensors, n_meta = take("IQQ")
    meta = {}
    for _ in range(n_meta):
        k = value(STRING)
        meta[k] = value(take("I"))
    infos = []
    for _ in range(n_tensors):
        name = value(STRING)
        shape = [take("Q") for _ in range(take("I"))][::-1]
        infos.append((name, shape) + tuple(take("IQ")))
    base, out = at + -at % ALIGN, {}
    for name, shape, t, off in infos:
        n = int(np.prod(shape))
        if t == T_Q8_0:
            out[name] = dequantise(b[base + off:base + off + n // 32 * 34], shape)
        else:
            out[name] = np.frombuffer(b, "<f4", n, base + off).reshape(shape)
    return meta, out
