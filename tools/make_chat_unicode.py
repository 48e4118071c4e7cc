#!/usr/bin/env python3
"""Writes src/chat/jinja_unicode_table.c: what Python's str methods know about characters, as compact ranges.
usage: tools/make_chat_unicode.py > src/chat/jinja_unicode_table.c   (Python 3.11: Unicode 14)"""
import unicodedata

LIMIT = 0x110000
CLASSES = [
    (1, str.isalpha), (2, str.isdecimal), (4, str.isdigit), (8, str.isnumeric), (16, str.isprintable),
    (32, str.isupper), (64, str.islower), (128, lambda s: unicodedata.category(s) == "Lt"),
]


def flags(point):
    s = chr(point)
    return sum(bit for bit, test in CLASSES if test(s))


def class_runs():
    runs, previous = [], None
    for point in range(LIMIT):
        f = flags(point)
        if f != previous:
            runs.append(point << 8 | f)
            previous = f
    return runs


def case_runs(change):
    """[first, last, delta, step]: points first, first + step, … last become point + delta."""
    runs, special = [], []
    for point in range(LIMIT):
        s = change(chr(point))
        if s == chr(point):
            continue
        if len(s) > 1:
            special.append((point, s))
            continue
        delta = ord(s) - point
        last = runs[-1] if runs else None
        if last and last[2] == delta and (
            (last[3] in (0, 1) and point == last[1] + 1) or (last[3] in (0, 2) and point == last[1] + 2)
        ):
            last[3] = point - last[1]
            last[1] = point
        else:
            runs.append([point, point, delta, 0])
    return [r[:3] + [r[3] or 1] for r in runs], special


def emit(declaration, items, per_line):
    print(f"\n{declaration} = {{")
    for i in range(0, len(items), per_line):
        print("    " + " ".join(f"{x}," for x in items[i : i + per_line]))
    print("};")


def main():
    print("/* Made by tools/make_chat_unicode.py from Unicode " + unicodedata.unidata_version + ". Do not edit. */")
    print('#include "chat/jinja_unicode.h"')
    runs = class_runs()
    emit("const uint32_t chat_unicode_classes[]", [hex(x) for x in runs], 9)
    print("const size_t chat_unicode_n_classes = BASE_COUNT(chat_unicode_classes);")
    for name, change in (("upper", str.upper), ("lower", str.lower), ("title", str.title)):
        ranges, special = case_runs(change)
        emit(f"const chat_case_range chat_unicode_{name}[]", ["{%#x, %#x, %d, %d}" % tuple(r) for r in ranges], 3)
        print(f"const size_t chat_unicode_n_{name} = BASE_COUNT(chat_unicode_{name});")
        rows = ["{%#x, {%s}}" % (p, ", ".join(hex(ord(c)) for c in s)) for p, s in special]
        emit(f"const chat_case_special chat_unicode_{name}_special[]", rows, 2)
        print(f"const size_t chat_unicode_n_{name}_special = BASE_COUNT(chat_unicode_{name}_special);")


if __name__ == "__main__":
    main()
