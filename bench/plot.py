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
COLOURS = {"shoal": "#1b7f5c", "llama.cpp": "#c4622d", "llama-bench": "#7a4fb5", "distributed-llama": "#3b6fb6"}
NAMES = {"dllama": "distributed-llama"}  # of programs that are not called what their engine is
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
    """(engine, name, what for the tooltip, operations a byte, 10^9 operations/s), two threads"""
    out = []

    def put(engine, name, what, kind, tokens, rate, head):
        n_bytes, products = weights(kind, head)
        out.append((engine, name, what, 2 * products * tokens / n_bytes, 2e-9 * products * float(rate)))

    for row in bars:
        kind = row["what"].split(",")[0]
        if row["rate"] and "2 threads" in row["what"]:
            if row["bar"] in ("decode", "prompt"):
                share = f"{100 * float(row['value']):.0f} %"
                put("shoal", f"{kind} {share}", f"{row['bar']} {kind}", kind, 512 if row["bar"] == "prompt" else 1, row["rate"], row["bar"] == "decode")
            elif row["bar"] == "batch":
                put("shoal", "8 at once", "decode Q4_0, 8 sequences at once", "Q4_0", 8, row["rate"], True)
    for row in peers:
        if row["threads"] == "2" and row["what"] == "alone":
            prompt = row["part"] == "prompt"
            put(row["peer"], row["type"], f"{row['part']} {row['type']}", row["type"], 512 if prompt else 1, row["peer_tok_s"], not prompt)
    return out


def limits(bars):
    """GB/s, int8 and f32 10^9 operations/s, two threads: medians over the rows"""
    found = {"read": [], "int8": [], "f32": []}
    for row in bars:
        if row["limit"] and row["bar"] in ("decode", "context", "prompt") and "2 threads" in row["what"]:
            name = "f32" if "of the f32 peak" in row["what"] else "int8" if row["bar"] == "prompt" else "read"
            found[name].append(float(row["limit"]))
    return {name: sorted(v)[len(v) // 2] for name, v in found.items() if v}


def along(x1, y1, x2, y2):
    """Small boxes along a line."""
    n = int(max(abs(x2 - x1), abs(y2 - y1)) / 4) + 1
    for i in range(n + 1):
        x, y = x1 + (x2 - x1) * i / n, y1 + (y2 - y1) * i / n
        yield (x - 2, y - 2, x + 2, y + 2)


def joined(dots):
    """Dots that lie on one another have one label."""
    out = []
    for x, y, words, colour in dots:
        i = next((i for i, o in enumerate(out) if o[3] == colour and abs(o[0] - x) < 5 and abs(o[1] - y) < 5), None)
        if i is None:
            out.append((x, y, words, colour))
        else:
            out[i] = (*out[i][:2], f"{out[i][2]}, {words}", colour)
    return out


def put_labels(d, dots, bounds, taken):
    """dots: (x, y, words, colour). Each label beside its dot where nothing else is; one for which there is no place is left out (the dot tells it). taken:
    boxes of what else is there."""
    taken = taken + [(x - 6, y - 6, x + 6, y + 6) for x, y, _, _ in dots]
    for x, y, words, colour in dots:
        wide = 6.5 * len(words)
        places = [(x + side * 9 - (wide if side < 0 else 0), y + 4 + lift) for lift in (0, -9, 9, -15, 15, -24, 24, -36, 36) for side in (1, -1)]
        for left, base in places:
            box = (left, base - 10, left + wide, base + 3)
            inside = bounds[0] <= box[0] and box[2] <= bounds[2] and bounds[1] <= box[1] and box[3] <= bounds[3]
            if inside and not any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
                d.text(left, base, words, 11, "start", colour)
                taken.append(box)
                break


def roofline(path, bars, peers):
    roof, all_points = limits(bars), points(bars, peers)
    if "read" not in roof or "int8" not in roof:
        return
    d, left, right, top, bottom = Drawing(760, 460), 70, 740, 60, 400
    x0, x1, y0, y1 = 0.5, 4096.0, 5.0, 3000.0

    def at(x, y):
        return left + (right - left) * math.log(x / x0) / math.log(x1 / x0), bottom - (bottom - top) * math.log(y / y0) / math.log(y1 / y0)

    for power in range(0, 13, 2):
        x, _ = at(2.0**power, y0)
        d.line(x, top, x, bottom, "#eee")
        d.text(x, bottom + 16, str(2**power), 11, "middle", "#555")
    for y in (5, 10, 30, 100, 300, 1000, 3000):
        _, yy = at(x0, y)
        d.line(left, yy, right, yy, "#eee")
        d.text(left - 6, yy + 4, str(y), 11, "end", "#555")
    taken = []

    def limit(x_from, y_from, x_to, y_to, dash=""):
        ends = (*at(x_from, y_from), *at(x_to, y_to))
        d.line(*ends, "#444", 1.5, dash)
        taken.extend(along(*ends))

    for name, label in (("int8", "int8 peak"), ("f32", "f32 peak")):
        if name in roof:
            limit(roof[name] / roof["read"], roof[name], x1, roof[name], "" if name == "int8" else "5 4")
            x, y = at(110, roof[name])
            d.text(x, y - 5, f"{label} {roof[name]:.0f}", 11, "start", "#444")
            taken.append((x, y - 16, x + 90, y))
    limit(x0, max(y0, roof["read"] * x0), roof["int8"] / roof["read"], roof["int8"])
    x, y = at(9, roof["read"] * 9)
    d.text(x - 8, y - 8, f"memory {roof['read']:.0f} GB/s", 11, "end", "#444")
    taken.append((x - 110, y - 19, x - 8, y - 5))
    dots = []
    for engine, name, what, x, y in all_points:
        px, py = at(x, y)
        d.dot(px, py, COLOURS[engine], f"{engine}, {what}: {y:.0f}·10⁹ operations/s")
        dots.append((px, py, name, COLOURS[engine]))
    put_labels(d, joined(dots), (left, top, right + 12, bottom), taken)
    for i, engine in enumerate(dict.fromkeys(p[0] for p in all_points)):
        d.dot(left + 14, top + 14 + 18 * i, COLOURS[engine], engine)
        d.text(left + 26, top + 18 + 18 * i, engine, 12)
    d.text(20, 26, "Llama-3.2-1B shape, two threads: what the machine allows and what is reached", 14)
    d.text((left + right) / 2, bottom + 38, "operations for each byte of weights: answering on the left, a prompt of 512 tokens on the right", 12, "middle", "#555")
    d.text(left, top - 8, "10⁹ operations/s", 11, "start", "#555")
    d.save(path)


# ---- speed under load --------------------------------------------------------------------------------------------------------------------


FAIR = 0.75  # of two cores, when a third program wants one and all are served alike


def kept(bars, peers):
    """(what, name, colour, tokens/s alone, beside) of decode and prompt, Q4_0: shoal in turns with the peers, then its two ranks."""
    rates = {}
    for row in sorted(peers, key=lambda r: r["peer"] != "llama.cpp"):
        if row["type"] == "Q4_0" and row["threads"] == "2":
            of = rates.setdefault(row["part"], {})
            of.setdefault(row["peer"], {})[row["what"]] = float(row["peer_tok_s"])
            of.setdefault("shoal", {}).setdefault(row["what"], float(row["shoal_tok_s"]))  # in turns with llama.cpp if it is there
    out = []
    for part in ("decode", "prompt"):
        found = {name: r for name, r in rates.get(part, {}).items() if len(r) == 2}
        for name in sorted(found, key=lambda n: (n != "shoal", n)):
            out.append((part, name, COLOURS[name], found[name]["alone"], found[name]["busy"]))
            if part == "decode" and name == "shoal":
                out += [(part, "in two ranks", COLOURS[name], float(r["limit"]), float(r["rate"])) for r in bars if r["what"] == RANKS_BESIDE and r["rate"]]
    return out


RANKS_BESIDE = "decode, two ranks, beside a busy loop"


def shared(path, bars, peers):
    found = kept(bars, peers)
    if not found:
        return
    d = Drawing(760, 96 + 56 * len(found) + 34 * len({f[0] for f in found}))
    left, width, y, part = 120, 400, 54, None
    d.text(20, 26, "Two threads on two cores, tokens/s: alone, and beside one busy program", 14)
    for what, name, colour, alone, beside in found:
        if what != part:
            part, most = what, max(f[3] for f in found if f[0] == what)
            d.text(20, y + 14, {"decode": "Answering (decode)", "prompt": "Reading a prompt"}[what], 13, colour="#555")
            y += 34
        scale = width / most
        d.text(left - 10, y + 25, name, 13, "end")
        d.box(left, y, alone * scale, 18, colour, 0.4)
        d.text(left + alone * scale + 6, y + 13, f"{alone:.1f} alone", 12)
        d.box(left, y + 20, beside * scale, 18, colour)
        fair = left + alone * scale * FAIR
        d.line(fair, y + 18, fair, y + 40, "#222", 1.5, "3 2")
        d.text(max(left + beside * scale, fair) + 6, y + 33, f"{beside:.1f} beside a busy program: {100 * beside / alone:.0f} %", 12)
        y += 56
    d.line(left, y + 4, left, y + 16, "#222", 1.5, "3 2")
    d.text(left + 8, y + 14, f"a fair share of the two cores: {100 * FAIR:.0f} %", 12, colour="#555")
    d.save(path)


if __name__ == "__main__":
    assert SHAPE in SHAPES
    of_peers = [{**row, "peer": NAMES.get(row["peer"], row["peer"])} for row in table("peers")]
    roofline(os.path.join(ROOT, "docs", "roofline.svg"), table("bars"), of_peers)
    shared(os.path.join(ROOT, "docs", "shared.svg"), table("bars"), of_peers)
