#!/usr/bin/env python3
"""Writes tests/data/quants: random blocks of every weight type and the numbers they stand for.

An implementation of its own, straight from the descriptions of the formats and in float64 with one rounding at the end; it
shares nothing with src/kernel. Usage: tools/reference/make_quants.py [FOLDER]
"""
import pathlib
import sys

import numpy as np

SEED = 20261124
IQ4 = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def half(b):
    return float(np.frombuffer(bytes(b), "<f2")[0])


def nibbles(b):
    return [x & 15 for x in b] + [x >> 4 for x in b]


def q4_0(b):
    return [half(b[:2]) * (q - 8) for q in nibbles(b[2:])]


def q4_1(b):
    return [half(b[:2]) * q + half(b[2:4]) for q in nibbles(b[4:])]


def with_fifth(b, high):
    bits = int.from_bytes(bytes(high), "little")
    return [q | (bits >> i & 1) << 4 for i, q in enumerate(nibbles(b))]


def q5_0(b):
    return [half(b[:2]) * (q - 16) for q in with_fifth(b[6:], b[2:6])]


def q5_1(b):
    return [half(b[:2]) * q + half(b[2:4]) for q in with_fifth(b[8:], b[4:8])]


def q8_0(b):
    return [half(b[:2]) * q for q in np.frombuffer(bytes(b[2:]), "i1").tolist()]


def iq4_nl(b):
    return [half(b[:2]) * IQ4[q] for q in nibbles(b[2:])]


def mxfp4(b):
    return [2.0 ** (b[0] - 127) * E2M1[q] for q in nibbles(b[1:])]


def two_bits(qs):
    """64 bytes: two halves of 128 columns, four layers of 32 columns in each."""
    return [qs[32 * (e // 128) + e % 32] >> 2 * (e % 128 // 32) & 3 for e in range(256)]


def q2_k(b):
    scales, q, d, dmin = b[:16], two_bits(b[16:80]), half(b[80:82]), half(b[82:84])
    return [d * (scales[e // 16] & 15) * q[e] - dmin * (scales[e // 16] >> 4) for e in range(256)]


def q3_k(b):
    mask, q, raw, d = b[:32], two_bits(b[32:96]), b[96:108], half(b[108:110])
    low = [x & 15 for x in raw[:8]] + [x >> 4 for x in raw[:8]]
    scale = [low[i] | (raw[8 + i % 4] >> 2 * (i // 4) & 3) << 4 for i in range(16)]
    return [d * (scale[e // 16] - 32) * (q[e] - (0 if mask[e % 32] >> e // 32 & 1 else 4)) for e in range(256)]


def k_scales(raw):
    scale = [raw[j] & 63 for j in range(4)] + [(raw[j + 4] & 15) | raw[j - 4] >> 6 << 4 for j in range(4, 8)]
    low = [raw[j + 4] & 63 for j in range(4)] + [raw[j + 4] >> 4 | raw[j] >> 6 << 4 for j in range(4, 8)]
    return scale, low


def four_bits(qs):
    return [qs[32 * (e // 64) + e % 32] >> (4 if e % 64 >= 32 else 0) & 15 for e in range(256)]


def q4_k(b):
    (scale, low), q = k_scales(b[4:16]), four_bits(b[16:])
    return [half(b[:2]) * scale[e // 32] * q[e] - half(b[2:4]) * low[e // 32] for e in range(256)]


def q5_k(b):
    (scale, low), q = k_scales(b[4:16]), four_bits(b[48:])
    q = [q[e] | (b[16 + e % 32] >> e // 32 & 1) << 4 for e in range(256)]
    return [half(b[:2]) * scale[e // 32] * q[e] - half(b[2:4]) * low[e // 32] for e in range(256)]


def q6_k(b):
    out, scale = [], np.frombuffer(bytes(b[192:208]), "i1").tolist()
    for e in range(256):
        side, layer, l = e // 128, e % 128 // 32, e % 32
        low = b[64 * side + 32 * (layer % 2) + l] >> 4 * (layer // 2) & 15
        q = low | (b[128 + 32 * side + l] >> 2 * layer & 3) << 4
        out.append(half(b[208:210]) * scale[e // 16] * (q - 32))
    return out


def iq4_xs(b):
    high, out = b[2] | b[3] << 8, []
    for i in range(8):
        scale = (b[4 + i // 2] >> 4 * (i % 2) & 15 | (high >> 2 * i & 3) << 4) - 32
        out += [half(b[:2]) * scale * IQ4[q] for q in nibbles(b[8 + 16 * i:24 + 16 * i])]
    return out


# name: bytes of a block, where its halves are, numbers of a block
TYPES = {
    "Q4_0": (18, [0], q4_0), "Q4_1": (20, [0, 2], q4_1), "Q5_0": (22, [0], q5_0), "Q5_1": (24, [0, 2], q5_1),
    "Q8_0": (34, [0], q8_0), "Q2_K": (84, [80, 82], q2_k), "Q3_K": (110, [108], q3_k), "Q4_K": (144, [0, 2], q4_k),
    "Q5_K": (176, [0, 2], q5_k), "Q6_K": (210, [208], q6_k), "IQ4_NL": (18, [0], iq4_nl), "IQ4_XS": (136, [0], iq4_xs),
    "MXFP4": (17, [], mxfp4),
}


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2] / "tests/data/quants")
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(SEED)
    for name, (size, halves, numbers) in TYPES.items():
        blocks = random.integers(0, 256, (3, size), dtype=np.uint8)
        for at in halves:
            value = np.float16(random.normal(0, 0.1, 3))
            value[0] = np.float16(3e-6)  # a subnormal half
            blocks[:, at:at + 2] = value.view(np.uint8).reshape(3, 2)
        if name == "MXFP4":
            blocks[:, 0] = [2, 120, 131]
        values = [v for block in blocks.tolist() for v in numbers(block)]
        (folder / f"{name}.bin").write_bytes(blocks.tobytes())
        (folder / f"{name}.f32").write_bytes(np.array(values, np.float64).astype("<f4").tobytes())
    plain = random.normal(0, 1, 96).astype("<f4")
    plain[:4] = [0, -1.5, 3e-6, 65504]
    (folder / "F32.bin").write_bytes(plain.tobytes())
    (folder / "F32.f32").write_bytes(plain.tobytes())
    f16 = plain.astype("<f2")
    (folder / "F16.bin").write_bytes(f16.tobytes())
    (folder / "F16.f32").write_bytes(f16.astype("<f4").tobytes())
    bf16 = (plain.view("<u4") >> 16).astype("<u2")
    (folder / "BF16.bin").write_bytes(bf16.tobytes())
    (folder / "BF16.f32").write_bytes((bf16.astype("<u4") << 16).view("<f4").tobytes())


if __name__ == "__main__":
    main()
