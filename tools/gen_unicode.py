#!/usr/bin/env python3
"""Writes src/text/unicode_table.c from the Unicode Character Database (Debian: apt-get install unicode-data).

    tools/gen_unicode.py [/usr/share/unicode] > src/text/unicode_table.c

Two stages: stage1[c >> 7] names a block, stage2[block][c & 127] is one byte a code point:
bits 0-4 general category (order of CATEGORIES, which src/text/unicode.h repeats), bit 5 White_Space, bit 6 script Han.
The second table lists code points that are younger than Unicode 14, the tables of PCRE2 10.42, each with an older stand-in of
the same category and the same UTF-8 length: src/text/regex.c shows PCRE2 the stand-ins.
Not here: case folding and normalisation, which utf8proc does.
"""
import os
import re
import sys

CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po "
              "Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn").split()
PCRE2_UNICODE = 14.0
BLOCK = 128


def ranges(path):
    for line in open(path, encoding="utf-8"):
        m = re.match(r"([0-9A-F]+)(?:\.\.([0-9A-F]+))?\s*;\s*(\S+)", line)
        if m:
            yield int(m[1], 16), int(m[2] or m[1], 16), m[3]


def utf8_length(c):
    return 1 if c < 0x80 else 2 if c < 0x800 else 3 if c < 0x10000 else 4


def load(folder):
    props = bytearray([CATEGORIES.index("Cn")]) * 0x110000
    first = None
    for line in open(os.path.join(folder, "UnicodeData.txt"), encoding="utf-8"):
        fields = line.split(";")
        c, name, category = int(fields[0], 16), fields[1], CATEGORIES.index(fields[2])
        if name.endswith(", First>"):
            first = c
            continue
        for x in range(c if first is None else first, c + 1):
            props[x] = category
        first = None
    for lo, hi, name in ranges(os.path.join(folder, "PropList.txt")):
        if name == "White_Space":
            for c in range(lo, hi + 1):
                props[c] |= 32
    for lo, hi, name in ranges(os.path.join(folder, "Scripts.txt")):
        if name == "Han":
            for c in range(lo, hi + 1):
                props[c] |= 64
    return props


def younger(folder, props):
    """[lo, hi, stand-in]: runs of code points younger than PCRE2's tables with equal property."""
    young = bytearray(0x110000)
    for lo, hi, age in ranges(os.path.join(folder, "DerivedAge.txt")):
        if float(age) > PCRE2_UNICODE:
            young[lo:hi + 1] = b"\1" * (hi + 1 - lo)
    stand_in = {}
    for c in range(0x80, 0x110000):
        if not young[c]:
            stand_in.setdefault((utf8_length(c), props[c]), c)
    rows = []
    for c in range(0x110000):
        if not young[c]:
            continue
        if rows and rows[-1][1] == c - 1 and props[c] == props[c - 1]:
            rows[-1][1] = c
        else:
            rows.append([c, c, stand_in[utf8_length(c), props[c]]])
    return rows


def number_lines(values, width=20):
    for i in range(0, len(values), width):
        print("    " + ", ".join(str(v) for v in values[i:i + width]) + ",")


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else "/usr/share/unicode"
    version = re.search(r"Version (\d+\.\d+\.\d+)", open(os.path.join(folder, "ReadMe.txt"), encoding="utf-8").read())[1]
    props = load(folder)
    blocks, stage1 = {}, []
    for at in range(0, 0x110000, BLOCK):
        stage1.append(blocks.setdefault(bytes(props[at:at + BLOCK]), len(blocks)))
    assert len(blocks) <= 256
    rows = younger(folder, props)
    print(f"/* Made by tools/gen_unicode.py from Unicode {version}; do not edit. {len(blocks)} blocks. */")
    print('#include "text/unicode.h"\n')
    print("// clang-format off")
    print(f'const char text_unicode_version[] = "{version}";\n')
    print(f"const uint8_t text_unicode_stage1[{len(stage1)}] = {{")
    number_lines(stage1)
    print("};\n")
    print(f"const uint8_t text_unicode_stage2[][{BLOCK}] = {{")
    for block in blocks:
        print("  {")
        number_lines(list(block), 32)
        print("  },")
    print("};\n")
    print(f"const size_t text_n_younger = {len(rows)};")
    print(f"const struct text_younger text_younger[{len(rows)}] = {{")
    for lo, hi, c in rows:
        print(f"    {{0x{lo:05X}, 0x{hi:05X}, 0x{c:05X}}},")
    print("};")


if __name__ == "__main__":
    main()
