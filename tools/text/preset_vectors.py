#!/usr/bin/env python3
"""Writes tests/data/text/presets.json: how the splitters that GGUF files name cut the texts of texts.json.

    tools/text/preset_vectors.py tests/data/text        (needs the package `regex`)

The expressions below are those of the models' own tokenizer.json files, as facts, written down apart from src/text/presets.c; what cuts with them is
Python's `regex` (set operations, possessive quantifiers), not our matcher and not PCRE2. Each piece is written in the byte-level alphabet, so that a
vocabulary of these pieces shows every cut. Deliberately not: merges and ids (expected.mjs asks another library for those).
"""
import json
import sys

import regex

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
WORDS = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACE
LLAMA3, QWEN2 = WORDS % r"\p{N}{1,3}", WORDS % r"\p{N}"
QWEN35 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + SPACE


def cased(numbers, symbols, tail="(?:" + CONTRACTION + ")?", but=""):
    upper, lower = rf"[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}{but}]", rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}{but}]"
    lead = r"[^\r\n\p{L}\p{N}]?"
    return f"{lead}{upper}*{lower}+{tail}|{lead}{upper}+{lower}*{tail}|{numbers}| ?[^\\s\\p{{L}}\\p{{N}}]+{symbols}|" + SPACE


O200K = cased(r"\p{N}{1,3}", r"[\r\n/]*")
KIMI = r"[\p{Han}]+|" + cased(r"\p{N}{1,3}", r"[\r\n]*", but=r"&&[^\p{Han}]")
TEKKEN = cased(r"\p{N}", r"[\r\n/]*", tail="")
ASCII = r"""!-/:-@\[-`{-~"""
DEEPSEEK3 = (r"[" + ASCII + r"][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + SPACE)
PUNCTUATION = r"[\p{P}" + ASCII + "]+"
MAP = None  # from here on the text is in the byte-level alphabet

PRESETS = {
    "default": [r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
    "gpt-2": [GPT2],
    "mpt": [GPT2],
    "llama-bpe": [LLAMA3],
    "glm4": [LLAMA3],
    "qwen2": [QWEN2],
    "qwen35": [QWEN35],
    "gpt-4o": [O200K],
    "minimax-m2": [O200K],
    "kimi-k2": [KIMI],
    "tekken": [TEKKEN],
    "deepseek-v3": [r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
    # the model lists the cased letters one range after the other; among these texts they are those with a case
    "deepseek-llm": [r"[\r\n]", r"\s?[\p{Lu}\p{Ll}\p{Lt}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}+"],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"],
    "falcon": [PUNCTUATION, GPT2, MAP, r"\p{N}+", r"[0-9][0-9][0-9]"],
    "starcoder": [r"\p{N}", GPT2],
    "refact": [r"\p{N}", GPT2],
    "command-r": [r"\p{N}", GPT2],
}


def byte_alphabet():
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


ALPHABET = byte_alphabet()


def mapped(text):
    return "".join(ALPHABET[b] for b in text.encode())


def cut(pieces, expression):
    """Every match and everything between matches is a piece of its own."""
    pattern, out = regex.compile(expression, regex.V1), []
    for piece in pieces:
        at = 0
        for match in pattern.finditer(piece):
            out += [part for part in (piece[at:match.start()], match.group()) if part]
            at = match.end()
        out += [piece[at:]] if at < len(piece) else []
    return out


def split(steps, text):
    pieces, is_mapped = [text] if text else [], False
    for step in steps:
        if step is MAP:
            pieces, is_mapped = [mapped(p) for p in pieces], True
        else:
            pieces = cut(pieces, step)
    return pieces if is_mapped else [mapped(p) for p in pieces]


def main():
    folder = sys.argv[1]
    with open(folder + "/texts.json", encoding="utf8") as f:
        texts = json.load(f)
    with open(folder + "/presets.json", "w", encoding="utf8") as f:
        f.write("{\n")
        for i, (name, steps) in enumerate(PRESETS.items()):
            rows = [split(steps, text) for text in texts]
            for text, row in zip(texts, rows):
                assert "".join(row) == mapped(text), (name, text)
            f.write(f' "{name}": {json.dumps(rows, ensure_ascii=False, separators=(",", ":"))}{"," if i + 1 < len(PRESETS) else ""}\n')
        f.write("}\n")


main()
