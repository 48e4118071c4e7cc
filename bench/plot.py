#!/usr/bin/env python3
"""Draws bench/results/bars.csv and peers.csv: docs/roofline.svg and docs/shared.svg. Plain SVG, no library, the same bytes for the same tables."""
import csv
import math
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools"))
from random_model import SHAPES, TYPES, tensors  # noqa: E402

SHAPE = "llama-1b"
COLOURS = {"shoal": "#1b7f5c", "llama.cpp": "#c4622d", "llama-bench": "#7a4fb5", "dllama": "#3b6fb6"}
FONT = 'font-family="system-ui, sans-serif"'


def table(name):
    path = os.path.join(ROOT, "bench", "results", name + ".csv")
    if not os.path.exists(path):
        return []
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


class Drawing:
    def __init__(self, width, height):
        self.size, self.parts = (width, height), []

    def add(self, text):
        self.parts.append(text)

    def line(self, x1, y1, x2, y2, colour="#999", width=1, dash=""):
        self.add(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"' + (f' stroke-dasharray="{dash}"' if dash else "") + "/>")

    def text(self, x, y, words, size=12, anchor="start", colour="#222"):
        words = words.replace("&", "&amp;").replace("<", "&lt;")
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" {FONT}>{words}</text>')

    def dot(self, x, y, colour, title):
        self.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}" fill-opacity="0.85"><title>{title}</title></circle>')

    def box(self, x, y, width, height, colour, opacity=1.0):
        self.add(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}" fill-opacity="{opacity}"/>')

    def save(self, path):
        width, height = self.size
        with open(path, "w") as f:
            f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n')
            f.write(f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n' + "\n".join(self.parts) + "\n</svg>\n")


# ---- roofline --------------------------------------------------------------------------------------------------------------------------


def weights(kind, head):
    """(bytes, multiply-adds) of one token; the output head is in both only for decode."""
    n_bytes = n_products = 0
    for name, columns, rows, block, _ in tensors(SHAPE, kind):
        if rows and (head or name != "token_embd.weight"):
            n_bytes += columns * rows // TYPES[block][1] * TYPES[block][2]
            n_products += columns * rows
    return n_bytes, n_products


def points(bars, peers):
    """(engine, label, operations a byte, 10^9 operations/s), two threads"""
    out = []

    def put(engine, label, kind, tokens, rate, head):
        n_bytes, products = weights(kind, head)
        out.append((engine, label, 2 * products * tokens / n_bytes, 2e-9 * products * float(rate)))

    for row in bars:
        kind = row["what"].split(",")[0]
        if row["rate"] and "2 threads" in row["what"]:
            if row["bar"] == "decode":
                put("shoal", f"{kind} decode", kind, 1, row["rate"], True)
            elif row["bar"] == "prompt":
                put("shoal", f"{kind} prompt", kind, 512, row["rate"], False)
            elif row["bar"] == "batch":
                put("shoal", "Q4_0 × 8", "Q4_0", 8, row["rate"], True)
    for row in peers:
        if row["threads"] == "2" and row["what"] == "alone" and row["type"] in ("Q4_0", "Q8_0", "F16"):
            prompt = row["part"] == "prompt"
            put(row["peer"], f"{row['type']} {row['part']}", row["type"], 512 if prompt else 1, row["peer_tok_s"], not prompt)
    return out


def limits(bars):
    """GB/s, int8 and f32 10^9 operations/s, two threads: medians over the rows"""
    found = {"read": [], "int8": [], "f32": []}
    for row in bars:
        if row["limit"] and "2 threads" in row["what"]:
            name = "read" if row["bar"] == "decode" else "f32" if "f32" in row["what"] else "int8"
            found[name].append(float(row["limit"]))
    return {name: sorted(v)[len(v) // 2] for name, v in found.items() if v}


def roofline(path, bars, peers):
    roof, all_points = limits(bars), points(bars, peers)
    if "read" not in roof or "int8" not in roof:
        return
    d, left, right, top, bottom = Drawing(760, 440), 70, 740, 40, 380
    x0, x1, y0, y1 = 0.5, 4096.0, 10.0, 3000.0

    def at(x, y):
        return left + (right - left) * math.log(x / x0) / math.log(x1 / x0), bottom - (bottom - top) * math.log(y / y0) / math.log(y1 / y0)

    for power in range(0, 13, 2):
        x, _ = at(2.0**power, y0)
        d.line(x, top, x, bottom, "#eee")
        d.text(x, bottom + 16, str(2**power), 11, "middle", "#555")
    for y in (10, 30, 100, 300, 1000, 3000):
        _, yy = at(x0, y)
        d.line(left, yy, right, yy, "#eee")
        d.text(left - 6, yy + 4, str(y), 11, "end", "#555")
    for name, label in (("int8", "int8 peak"), ("f32", "f32 peak")):
        if name in roof:
            d.line(*at(roof[name] / roof["read"], roof[name]), *at(x1, roof[name]), "#444", 1.5, "" if name == "int8" else "5 4")
            x, y = at(x1, roof[name])
            d.text(x, y - 5, f"{label} {roof[name]:.0f}", 11, "end", "#444")
    d.line(*at(x0, max(y0, roof["read"] * x0)), *at(roof["int8"] / roof["read"], roof["int8"]), "#444", 1.5)
    x, y = at(1.3, roof["read"] * 1.3)
    d.text(x - 6, y - 10, f"memory {roof['read']:.0f} GB/s", 11, "end", "#444")
    for engine, label, x, y in all_points:
        px, py = at(x, y)
        d.dot(px, py, COLOURS[engine], f"{engine}, {label}: {y:.0f} GOP/s")
        if engine == "shoal":
            d.text(px + 8, py + 4, label, 10, "start", COLOURS[engine])
    for i, engine in enumerate(dict.fromkeys(p[0] for p in all_points)):
        d.dot(left + 14, top + 14 + 18 * i, COLOURS[engine], engine)
        d.text(left + 26, top + 18 + 18 * i, engine, 12)
    d.text(left, 22, "Llama-3.2-1B shape, two threads: what the machine allows and what is reached", 14)
    d.text((left + right) / 2, bottom + 36, "operations for each byte of weights", 12, "middle", "#555")
    d.text(left, top - 6, "10⁹ operations/s", 11, "start", "#555")
    d.save(path)


# ---- speed under load --------------------------------------------------------------------------------------------------------------------


def shared(path, peers):
    rates = {}
    for row in peers:
        if row["type"] == "Q4_0" and row["threads"] == "2" and row["part"] == "decode":
            rates.setdefault(row["peer"], {})[row["what"]] = float(row["peer_tok_s"])
            rates.setdefault("shoal", {})[row["what"]] = float(row["shoal_tok_s"])
    rates = {name: r for name, r in rates.items() if len(r) == 2}
    if "shoal" not in rates:
        return
    names = ["shoal"] + [n for n in rates if n != "shoal"]
    d, left, top = Drawing(760, 80 + 64 * len(names)), 110, 50
    scale = 480 / max(max(r.values()) for r in rates.values())
    d.text(20, 24, "Decode with two threads on two cores, tokens/s: alone, and beside one busy program", 14)
    for i, name in enumerate(names):
        y, r = top + 64 * i, rates[name]
        d.text(left - 10, y + 27, name, 13, "end")
        d.box(left, y, r["alone"] * scale, 18, COLOURS[name], 0.45)
        d.text(left + r["alone"] * scale + 6, y + 14, f"{r['alone']:.1f} alone", 12)
        d.box(left, y + 22, r["busy"] * scale, 18, COLOURS[name])
        d.text(left + r["busy"] * scale + 6, y + 36, f"{r['busy']:.1f} beside a busy loop ({r['busy'] / r['alone']:.2f})", 12)
    d.save(path)


if __name__ == "__main__":
    assert SHAPE in SHAPES
    roofline(os.path.join(ROOT, "docs", "roofline.svg"), table("bars"), table("peers"))
    shared(os.path.join(ROOT, "docs", "shared.svg"), table("peers"))
