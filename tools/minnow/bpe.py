"""Byte-level BPE with the `qwen2` pre-tokeniser: trainer and encoder.

Every digit is a piece of its own (the pre-tokeniser splits them), so numbers are spelled. Vocabulary order: the 256
bytes in GPT-2's printable alphabet, the merges, then the special tokens. The regular expression is qwen2's with
`\\p{L}` and `\\p{N}` written for Python's `re`; it is exact for the letters and digits that the corpus holds.
"""
import collections
import heapq
import json
import re

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>",
           "<tool_response>", "</tool_response>"]
CONTROL = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
L, N = r"[^\W\d_]", r"\d"
PRE = re.compile(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|(?:[^\r\n\w]|_)?" + L + r"+|" + N +
                 r"| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPLIT = re.compile("(" + "|".join(re.escape(s) for s in SPECIAL) + ")")


def byte_alphabet():
    """GPT-2's bijection of bytes to printable characters."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    out, n = {}, 0
    for b in range(256):
        if b in keep:
            out[b] = chr(b)
        else:
            out[b] = chr(256 + n)
            n += 1
    return out


BYTES = byte_alphabet()
UNBYTES = {c: b for b, c in BYTES.items()}


def pieces(text):
    for part in SPLIT.split(text):
        if part in SPECIAL:
            yield part, True
        elif part:
            for m in PRE.finditer(part):
                yield m.group(), False


def train(texts, vocab_size, joined=120, often=300):
    """The list of merges: first inside words and punctuation, then at most `joined` of a space with a whole word.

    A word that is copied (a value, a tool's name) stands behind a space in a question, behind a quote in JSON and behind
    "_" in a name; it must be the same tokens in all three, or copying it cannot be learnt. So no merge joins a letter
    with what precedes its word, except for a space and a word seen `often` that hardly ever stands without one ("the",
    "capital") and that as a token hardly ever begins a word that is copied.
    """
    words, bare, spaced = collections.Counter(), collections.Counter(), collections.Counter()
    for t in texts:
        for p, special in pieces(t):
            if special:
                continue
            letters = p[1:] if len(p) > 1 and p[1:].isalpha() and not p[0].isalpha() else p
            words[letters] += 1
            if letters.isalpha():
                (spaced if p[0] == " " else bare)[letters] += 1
    merges = frequent_pairs(words, vocab_size - 256 - len(SPECIAL) - joined)
    tok = Tokenizer(merges)
    spaced_only = {w for w, n in spaced.items() if n >= often and bare[w] * 50 < n}
    begins = collections.Counter()      # how often a token begins a word that may be copied
    for w, n in words.items():
        ids = tok.bpe(w)
        if w not in spaced_only and len(ids) > 1:
            begins[ids[0]] += n
    whole = []
    for w, n in spaced.most_common():
        ids = tok.bpe(w)
        if w in spaced_only and len(ids) == 1 and begins[ids[0]] * 200 < n:
            whole.append((BYTES[32], w))
    return merges + whole[:joined]


def frequent_pairs(words, n_merges):
    """Plain BPE over counted words: the most frequent pair first, ties broken by the pair's own text."""
    seqs = [[BYTES[b] for b in w.encode()] for w in words]
    counts = list(words.values())
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for i, s in enumerate(seqs):
        for p in zip(s, s[1:]):
            pairs[p] += counts[i]
            where[p].add(i)
    heap = [(-c, p) for p, c in pairs.items()]
    heapq.heapify(heap)
    merges = []
    while len(merges) < n_merges and heap:
        c, p = heapq.heappop(heap)
        if pairs[p] != -c:
            if pairs[p] > 0:
                heapq.heappush(heap, (-pairs[p], p))
            continue
        merges.append(p)
        touched = set()
        for i in list(where[p]):
            s = seqs[i]
            for q in zip(s, s[1:]):
                pairs[q] -= counts[i]
                touched.add(q)
            out, k = [], 0
            while k < len(s):
                if k + 1 < len(s) and (s[k], s[k + 1]) == p:
                    out.append(s[k] + s[k + 1])
                    k += 2
                else:
                    out.append(s[k])
                    k += 1
            seqs[i] = out
            for q in zip(out, out[1:]):
                pairs[q] += counts[i]
                where[q].add(i)
                touched.add(q)
        for q in touched:
            if pairs[q] > 0:
                heapq.heappush(heap, (-pairs[q], q))
        pairs[p] = 0
    return merges


class Tokenizer:
    def __init__(self, merges):
        self.merges = [tuple(m) for m in merges]
        self.tokens = [BYTES[b] for b in range(256)] + [a + b for a, b in self.merges] + SPECIAL
        self.ids = {t: i for i, t in enumerate(self.tokens)}
        assert len(self.ids) == len(self.tokens)
        self.rank = {m: i for i, m in enumerate(self.merges)}
        self.cache = {}
        self.eos = self.ids["<|im_end|>"]

    def bpe(self, piece):
        s = [BYTES[b] for b in piece.encode()]
        while len(s) > 1:
            best = min(zip(s, s[1:]), key=lambda p: self.rank.get(p, 1 << 30))
            if best not in self.rank:
                break
            out, k = [], 0
            while k < len(s):
                if k + 1 < len(s) and (s[k], s[k + 1]) == best:
                    out.append(s[k] + s[k + 1])
                    k += 2
                else:
                    out.append(s[k])
                    k += 1
            s = out
        return [self.ids[t] for t in s]

    def encode(self, text):
        out = []
        for p, special in pieces(text):
            if special:
                out.append(self.ids[p])
                continue
            ids = self.cache.get(p)
            if ids is None:
                ids = self.cache[p] = self.bpe(p)
            out.extend(ids)
        return out

    def decode(self, ids):
        out = b""
        for i in ids:
            t = self.tokens[i]
            out += t.encode() if t in SPECIAL else bytes(UNBYTES[c] for c in t)
        return out.decode("utf-8", "replace")

    def save(self, path):
        with open(path, "w") as f:
            json.dump({"merges": [list(m) for m in self.merges]}, f)

    @staticmethod
    def load(path):
        with open(path) as f:
            return Tokenizer(json.load(f)["merges"])
