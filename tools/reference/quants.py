"""Weight types: quantise and dequantise, one pair of functions a type.

Dequantising is exact: float64 out, and every product of the formats fits into a float64. Quantising is ours and simple: nearest values to a
scale that is chosen per block, with a few rounds of least squares for the K types. Rows are the last axis; a row must be a multiple of the block.
Source of the layouts: ggml's block structures. Deliberately not: all types (only what our models and the llama fixtures use), speed.
"""
import numpy as np

# name -> (ggml_type, elements per block, bytes per block)
TYPES = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210), "BF16": (30, 1, 2),
}
NAMES = {number: name for name, (number, _, _) in TYPES.items()}


def _halves(x):
    """float -> float16 -> its two bytes, and the value that was kept. x: [...] -> uint8 [..., 2], float64 [...]"""
    h = np.asarray(x, dtype=np.float32).astype(np.float16)
    return h.view(np.uint8).reshape(h.shape + (2,)), h.astype(np.float64)


def _half(raw):
    """uint8 [..., 2] -> float64 [...]"""
    return np.ascontiguousarray(raw).view(np.float16)[..., 0].astype(np.float64)


def _ratio(a, b):
    """a / b, 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=np.asarray(b) != 0)


# ---- plain floats ----------------------------------------------------------------------------------------------------


def _f32(x):
    return x.astype("<f4").view(np.uint8)


def _f32_back(raw):
    return raw.view("<f4").astype(np.float64)


def _f16(x):
    return x.astype(np.float32).astype("<f2").view(np.uint8)


def _f16_back(raw):
    return raw.view("<f2").astype(np.float64)


def _bf16(x):
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").view(np.uint8)  # nearest even; no NaN here


def _bf16_back(raw):
    return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)


# ---- blocks of 32: x is [blocks, 32] ----------------------------------------------------------------------------------


def _q8_0(x):
    raw_d, d = _halves(np.abs(x).max(axis=1) / 127)
    q = np.clip(np.rint(_ratio(x, d[:, None])), -127, 127).astype(np.int8)
    return np.concatenate([raw_d, q.view(np.uint8)], axis=1)


def _q8_0_back(b):
    return _half(b[:, :2])[:, None] * b[:, 2:].view(np.int8)


def _q4_0(x):
    extreme = x[np.arange(len(x)), np.abs(x).argmax(axis=1)]  # keeps its sign: it becomes -8
    raw_d, d = _halves(extreme / -8)
    q = np.clip(np.rint(_ratio(x, d[:, None])) + 8, 0, 15).astype(np.uint8)
    return np.concatenate([raw_d, q[:, :16] | q[:, 16:] << 4], axis=1)


def _q4_0_back(b):
    q = np.concatenate([b[:, 2:] & 15, b[:, 2:] >> 4], axis=1).astype(np.float64) - 8
    return _half(b[:, :2])[:, None] * q


# ---- superblocks of 256: x is [blocks, 256] ----------------------------------------------------------------------------


def _pack_scales(scale, low):
    """Eight 6-bit scales and eight 6-bit minima -> 12 bytes: bits 0..3 of the last four share bytes, bits 4..5 sit above the first four."""
    s = np.zeros((len(scale), 12), np.uint8)
    s[:, 0:4] = scale[:, :4] | (scale[:, 4:] >> 4) << 6
    s[:, 4:8] = low[:, :4] | (low[:, 4:] >> 4) << 6
    s[:, 8:12] = (scale[:, 4:] & 15) | (low[:, 4:] & 15) << 4
    return s


def _unpack_scales(s):
    scale = np.concatenate([s[:, 0:4] & 63, (s[:, 8:12] & 15) | (s[:, 0:4] >> 6) << 4], axis=1)
    low = np.concatenate([s[:, 4:8] & 63, (s[:, 8:12] >> 4) | (s[:, 4:8] >> 6) << 4], axis=1)
    return scale.astype(np.float64), low.astype(np.float64)


def _scale_and_minimum(x, levels):
    """x [n, 8, 32] ~ scale * q - low with q in 0..levels, low >= 0: from the range, then least squares with q held."""
    low = np.maximum(0, -x.min(axis=2))
    scale = (x.max(axis=2) + low) / levels
    for _ in range(8):
        q = np.clip(np.rint(_ratio(x + low[..., None], scale[..., None])), 0, levels)
        n, sq, sqq, sx, sxq = 32, q.sum(2), (q * q).sum(2), x.sum(2), (x * q).sum(2)
        det = n * sqq - sq * sq
        new_scale = _ratio(n * sxq - sx * sq, det)
        new_low = _ratio(sxq * sq - sx * sqq, det)
        below = new_low < 0
        new_scale = np.where(below, _ratio(sxq, sqq), new_scale)
        new_low = np.where(below, 0, new_low)
        good = (det > 0) & (new_scale > 0)
        scale, low = np.where(good, new_scale, scale), np.where(good, new_low, low)
    return scale, low


def _q4_k(x):
    x = x.reshape(-1, 8, 32)
    scale, low = _scale_and_minimum(x, 15)
    raw_d, d = _halves(scale.max(axis=1) / 63)
    raw_m, m = _halves(low.max(axis=1) / 63)
    sq = np.clip(np.rint(_ratio(scale, d[:, None])), 0, 63).astype(np.uint8)
    mq = np.clip(np.rint(_ratio(low, m[:, None])), 0, 63).astype(np.uint8)
    q = np.rint(_ratio(x + (m[:, None] * mq)[..., None], (d[:, None] * sq)[..., None]))
    q = np.clip(q, 0, 15).astype(np.uint8)
    nibbles = (q[:, 0::2] | q[:, 1::2] << 4).reshape(-1, 128)  # two runs of 32 share 32 bytes
    return np.concatenate([raw_d, raw_m, _pack_scales(sq, mq), nibbles], axis=1)


def _q45_k_back(b, fifth):
    scale, low = _unpack_scales(b[:, 4:16])
    nibbles = b[:, -128:].reshape(-1, 4, 1, 32)
    q = np.concatenate([nibbles & 15, nibbles >> 4], axis=2).reshape(-1, 8, 32).astype(np.float64)
    if fifth:
        high = b[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
        q += 16 * high
    d, m = _half(b[:, 0:2])[:, None] * scale, _half(b[:, 2:4])[:, None] * low
    return (d[..., None] * q - m[..., None]).reshape(-1, 256)


def _q6_k(x):
    x = x.reshape(-1, 16, 16)
    flat = np.take_along_axis(x, np.abs(x).argmax(axis=2)[..., None], axis=2)[..., 0]
    scale = flat / -32
    for _ in range(4):
        q = np.clip(np.rint(_ratio(x, scale[..., None])), -32, 31)
        better = _ratio((x * q).sum(2), (q * q).sum(2))
        scale = np.where(better != 0, better, scale)
    widest = scale[np.arange(len(x)), np.abs(scale).argmax(axis=1)]
    raw_d, d = _halves(widest / -128)
    sq = np.clip(np.rint(_ratio(scale, d[:, None])), -128, 127).astype(np.int8)
    q = np.rint(_ratio(x, (d[:, None] * sq)[..., None]))
    q = (np.clip(q, -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)  # half, quarter, l
    ql = (q[:, :, 0:2] & 15 | (q[:, :, 2:4] & 15) << 4).reshape(-1, 128)
    qh = q[:, :, 0] >> 4 | q[:, :, 1] >> 4 << 2 | q[:, :, 2] >> 4 << 4 | q[:, :, 3] >> 4 << 6
    return np.concatenate([ql, qh.reshape(-1, 64), sq.view(np.uint8), raw_d], axis=1)


def _q6_k_back(b):
    ql, qh = b[:, :128].reshape(-1, 2, 2, 32), b[:, 128:192].reshape(-1, 2, 1, 32)
    q = np.concatenate([ql & 15, ql >> 4], axis=2) | (qh >> np.array([[0], [2], [4], [6]], np.uint8) & 3) << 4
    q = q.reshape(-1, 16, 16).astype(np.float64) - 32
    d = _half(b[:, 208:210])[:, None] * b[:, 192:208].view(np.int8)
    return (d[..., None] * q).reshape(-1, 256)


_PACK = {"F32": _f32, "F16": _f16, "BF16": _bf16, "Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_K": _q4_k, "Q6_K": _q6_k}
_UNPACK = {"F32": _f32_back, "F16": _f16_back, "BF16": _bf16_back, "Q8_0": _q8_0_back, "Q4_0": _q4_0_back,
           "Q4_K": lambda b: _q45_k_back(b, False), "Q5_K": lambda b: _q45_k_back(b, True), "Q6_K": _q6_k_back}


def quantise(x, name):
    """float [..., columns] -> bytes, row after row."""
    elements = TYPES[name][1]
    x = np.asarray(x, dtype=np.float64)
    if x.shape[-1] % elements:
        raise ValueError(f"{name}: rows of {x.shape[-1]} are no multiple of {elements}")
    return np.ascontiguousarray(_PACK[name](np.ascontiguousarray(x.reshape(-1, elements)))).tobytes()


def dequantise(raw, name, shape):
    """bytes -> float64 of the shape given, exactly."""
    _, elements, size = TYPES[name]
    blocks = np.frombuffer(raw, np.uint8).reshape(-1, size)
    return _UNPACK[name](blocks if elements > 1 else blocks.reshape(-1)).reshape(shape)
