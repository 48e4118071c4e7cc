"""Reads a GGUF file into (metadata dict, {tensor name: float64 array [rows, columns]}), weights dequantised exactly.

Trusts its input: for our own files and fixtures only. Deliberately not: split files, arrays of arrays, types outside quants.py.
"""
import struct

import quants

_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


class _Cursor:
    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, fmt):
        values = struct.unpack_from(fmt, self.raw, self.at)
        self.at += struct.calcsize(fmt)
        return values[0] if len(values) == 1 else values

    def text(self):
        n = self.take("<Q")
        self.at += n
        return self.raw[self.at - n : self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            element, n = self.take("<I"), self.take("<Q")
            return [self.value(element) for _ in range(n)]
        return self.take(_FORMATS[kind])


def read(path):
    with open(path, "rb") as f:
        c = _Cursor(f.read())
    magic, version, n_tensors, n_keys = c.take("<4sIQQ")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"{path}: not a GGUF v2 or v3 file")
    keys, entries, tensors = {}, [], {}
    for _ in range(n_keys):
        name = c.text()
        keys[name] = c.value(c.take("<I"))
    for _ in range(n_tensors):
        name, n_dims = c.text(), c.take("<I")
        dims = [c.take("<Q") for _ in range(n_dims)]
        entries.append((name, dims, c.take("<I"), c.take("<Q")))
    alignment = keys.get("general.alignment", 32)
    start = -(-c.at // alignment) * alignment
    for name, dims, number, offset in entries:
        kind = quants.NAMES[number]
        _, elements, size = quants.TYPES[kind]
        count = 1
        for d in dims:
            count *= d
        raw = c.raw[start + offset : start + offset + count // elements * size]
        tensors[name] = quants.dequantise(raw, kind, tuple(reversed(dims)))
    return keys, tensors
