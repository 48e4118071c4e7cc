#!/usr/bin/env python3
"""Writes small vocabularies of our own as tokenizer.json files, and the texts to try them on:

    tools/text/make_vocabularies.py tests/data/text

Standard library only; the same bytes at every run. tools/text/expected.mjs then asks the Rust library `tokenizers` for the ids.
Between them the files use every normaliser, pre-tokeniser, model and flag that src/text knows.
"""
import collections
import json
import os
import sys

CORPUS = """
The river runs past the old mill, and the miller's daughter counts the boats. She doesn't like the winter; it's too long.
We'll see them tomorrow, they've said, but I'm not sure they're coming. He'd rather read a book about machines and memory.
A machine that learns a language must first learn to cut it into pieces. The pieces are called tokens, the cutting is tokenizing.
In 1969 people walked on the moon; 12 people have done so, 24 have flown there, 384400 kilometres away.
for (int i = 0; i < n; i++) { sum += values[i] * weights[i]; } return sum / n; /* the mean */
def forward(self, x): return self.output(self.hidden(x)) # two layers
HTTPServer handles XMLHttpRequest; iPhone users call getElementById. ALL CAPS HERE.
Der Fluss fließt an der alten Mühle vorbei. Größe, Äpfel, Übung. L'été dernier, Élodie a mangé une crêpe à la châtaigne.
Мельница стоит у реки, и дочь мельника считает лодки. Зима была долгой.
河水流过古老的磨坊，磨坊主的女儿数着船。机器学习语言模型。今天天气很好。
川は古い水車小屋のそばを流れる。カタカナとひらがな。
النهر يجري بجانب الطاحونة القديمة. اللغة العربية جميلة.
नदी पुरानी चक्की के पास से बहती है। भाषा सुंदर है।
🙂🚀 emoji 👩‍💻 and flags 🇩🇪🇫🇷.
"""

TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", " \n ", "\t", "\r\n", "a", " a", "  a", "a ", "a  ", "Hello", " Hello world", "hello  world   again",
    "The river runs past the old mill.", "I'm you're they'll we've he'd it's DON'T I'M Y'all'd've", "don\u2019t 'S 'LL 'Tis",
    "12", "1234", "1234567890", " 12 345 6789", "3.14159e-10", "0x1F600", "a1b22c333d4444", "price: $1,234.56!", "12\u00b2\u00bd\u2167\u0663\u0664",
    "x\n\ny", "x \n y", "line one\r\nline two\r\n\r\n  indented\n", "\n   \n  x", "tabs\t\tand spaces  \t end\t", "trailing spaces   ",
    "for (int i = 0; i < n; i++) { sum += v[i]; }", "self.weights[\"key\"] -> None; // done /* ok */", "a/b//c\n/d", "!!!???...", "(((nested)))",
    "--- ,,, ..- -.- a-b-c, d.e.f", "...a---b...", "-a", "a-", "--a--b--", "snake_case camelCase PascalCase SCREAMING_CASE",
    "HTTPServerError XMLHttpRequest iPhone eBay McDonald ABCdefGHI", "\u01c5\u02b0\u0301 \u01c5a A\u02b0b",
    "Gr\u00f6\u00dfe \u00c4pfel \u00dcbung", "e\u0301 cafe\u0301 caf\u00e9 \u1e9b\u0323", "\ufb01ne \u2460 \uff21\uff22\uff23 \u210c \u33a5",
    "\u041c\u0435\u043b\u044c\u043d\u0438\u0446\u0430 \u0443 \u0440\u0435\u043a\u0438", "\u6cb3\u6c34\u6d41\u8fc7\u53e4\u8001\u7684\u78e8\u574a\uff0c\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002",
    "\u5ddd\u306f\u53e4\u3044\u30ab\u30bf\u30ab\u30ca\u3068\u3072\u3089\u304c\u306a", "abc\u4e2d\u6587def\u3042ABC\u3007", "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8",
    "\u0627\u0644\u0644\u063a\u0629 \u0627\u0644\u0639\u0631\u0628\u064a\u0629", "\u0928\u0926\u0940 \u092d\u093e\u0937\u093e \u0938\u0941\u0902\u0926\u0930", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22",
    "\U0001f642\U0001f680 \U0001f469\u200d\U0001f4bb \U0001f1e9\U0001f1ea", "a\u00a0b\u2003c\u3000d\u2028e\u0085f", "\u200b\u200d\ufeff zero width", "\u180e mongolian",
    "\u0301 lone mark", "x\u0301\u0302\u0303y", "\u0000nul\u0001\u007f\u009f", "\ufffd replacement", "\ue000 private \U000f0000",
    "<s>", "</s> text", "a<s>b", "<|begin|>Hi<|end|>", "x <|end|> y", "<|end|><|end|>", "<|en", "<tool>call</tool>", "a <tool> b", "<mask> in <mask>the<mask>middle <mask> .",
    "wordword word  word wordy sword WORD Word", "NORM norm Norm x", "\u2581 already \u2581\u2581 marked\u2581", "a\u2581b", "[CLS] [SEP] [MASK] [UNK]", "unaffable Unaffable \u00dcn\u00e4ff\u00e4ble",
    "a" * 40, "ab" * 60, " " * 33 + "x", "\n" * 9, "1" * 19, "\u4e2d" * 30, "aaaa bbbb", "the the the", "antidisestablishmentarianism" * 4,
    "The quick brown fox jumps over 13 lazy dogs; \u201cquotes\u201d \u2014 and\u2026 more! \u00bfQu\u00e9? \u00a1S\u00ed!",
]

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CASED = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}X]*[\p{Ll}\p{Lm}\p{Lo}\p{M}X]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}X]+[\p{Ll}\p{Lm}\p{Lo}\p{M}X]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = CASED.replace("X", "").replace(r"]+[\r\n]*", r"]+[\r\n/]*")
KIMI = r"[\p{Han}]+|" + CASED.replace("X", r"&&[^\p{Han}]")
DEEPSEEK = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
            r""" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")


def byte_map():
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [b for b in range(256) if b not in keep]
    table = {b: chr(b) for b in keep}
    table.update({b: chr(256 + i) for i, b in enumerate(rest)})
    return table


def train(words, n_merges):
    """Plain BPE over {tuple of symbols: count}; ties go to the smaller pair."""
    words = dict(words)
    merges = []
    while len(merges) < n_merges:
        pairs = collections.Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        joined = {}
        for word, count in words.items():
            out, i = [], 0
            while i < len(word):
                if i + 1 < len(word) and (word[i], word[i + 1]) == best:
                    out.append(word[i] + word[i + 1])
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            key = tuple(out)
            joined[key] = joined.get(key, 0) + count
        words = joined
    return merges


def spaced_words(text):
    """Words with the space in front, as byte-level splitters see them."""
    counts = collections.Counter()
    for line in text.split("\n"):
        for i, word in enumerate(line.split(" ")):
            counts[(" " if i else "") + word] += 1
    return counts


def added(first_id, *tokens):
    out = []
    for i, t in enumerate(tokens):
        base = {"id": first_id + i, "content": t[0], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                "special": True}
        base.update(t[1] if len(t) > 1 else {})
        out.append(base)
    return out


def template(before=(), behind=(), ids=None):
    single = [{"SpecialToken": {"id": t, "type_id": 0}} for t in before] + [{"Sequence": {"id": "A", "type_id": 0}}]
    single += [{"SpecialToken": {"id": t, "type_id": 0}} for t in behind]
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in list(before) + list(behind)}}


def split(regex, behavior="Isolated", invert=False, literal=False):
    return {"type": "Split", "pattern": {"String" if literal else "Regex": regex}, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def file_of(model, normalizer=None, pre=None, post=None, decoder=None, tokens=()):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(tokens), "normalizer": normalizer,
            "pre_tokenizer": pre, "post_processor": post, "decoder": decoder, "model": model}


def bpe_model(vocab, merges, **more):
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": merges}
    model.update(more)
    return model


def byte_level():
    table = byte_map()
    words = {tuple(table[b] for b in w.encode()): c for w, c in spaced_words(CORPUS).items() if w}
    merges = train(words, 330)
    tokens = [table[b] for b in range(256)] + [a + b for a, b in merges]
    vocab = {}
    for t in tokens:
        vocab.setdefault(t, len(vocab))
    return vocab, merges


def character_level(mark, extra):
    counts = collections.Counter()
    for line in CORPUS.split("\n"):
        for word in line.split(" "):
            if word:
                counts[mark + word] += 1
    merges = train({tuple(w): c for w, c in counts.items()}, 300)
    characters = sorted({c for w in counts for c in w} - set("磨坊नद"))
    vocab = {}
    for t in extra + characters + [a + b for a, b in merges]:
        vocab.setdefault(t, len(vocab))
    merges = [m for m in merges if m[0] in vocab and m[1] in vocab and m[0] + m[1] in vocab]
    return vocab, merges


def sentencepiece():
    return character_level("\u2581", ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)])


def byte_level_files():
    vocab, merges = byte_level()
    lines = [f"{a} {b}" for a, b in merges]
    n = len(vocab)
    specials = added(n + 1, ("<|begin|>",), ("<|end|>",), ("<tool>", {"special": False}), ("</tool>", {"special": False, "normalized": True}),
                     ("<mask>", {"lstrip": True}))
    ids = {t["content"]: t["id"] for t in specials}
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    # A token that merges do not reach: ignore_merges takes it whole, the others never see it.
    rare = dict(vocab)
    rare["Pascal"] = n
    vocab["Caps"] = n
    yield "llama3", file_of(bpe_model(rare, lines, ignore_merges=True), pre=sequence(split(LLAMA3), BYTES),
                            post={"type": "Sequence", "processors": [dict(BYTES, add_prefix_space=True),
                                                                     template(["<|begin|>"], (), ids)]},
                            decoder=decoder, tokens=specials)
    yield "qwen2", file_of(bpe_model(rare, lines), normalizer={"type": "NFC"}, pre=sequence(split(QWEN2), BYTES),
                           post=dict(BYTES), decoder=decoder, tokens=specials)
    yield "o200k", file_of(bpe_model(vocab, lines), pre=sequence(split(O200K), BYTES), decoder=decoder, tokens=specials)
    yield "kimi", file_of(bpe_model(vocab, [[a, b] for a, b in merges]), pre=sequence(split(KIMI), BYTES), decoder=decoder, tokens=specials)
    yield "deepseek", file_of(bpe_model(vocab, lines), decoder=decoder, tokens=specials,
                              normalizer={"type": "Sequence", "normalizers": []},
                              pre=sequence(split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(DEEPSEEK), BYTES))
    yield "gpt2", file_of(bpe_model(vocab, lines), pre=dict(BYTES, add_prefix_space=True, use_regex=True),
                          post={"type": "RobertaProcessing", "sep": ["<|end|>", ids["<|end|>"]], "cls": ["<|begin|>", ids["<|begin|>"]],
                                "trim_offsets": True, "add_prefix_space": True},
                          decoder=decoder, tokens=specials)
    yield "falcon", file_of(bpe_model(vocab, lines), decoder=decoder, tokens=specials,
                            pre=sequence({"type": "Punctuation", "behavior": "Contiguous"}, dict(BYTES, use_regex=True),
                                         {"type": "Digits", "individual_digits": False}, split("[0-9][0-9][0-9]")))
    yield "lazy", file_of(bpe_model(vocab, lines), decoder=decoder, tokens=specials,
                          pre=sequence(split(r"(?:\w+?(?=[A-Z_])|\w+|[^\w\s]+?|\s+?)"), BYTES))


def sentencepiece_files():
    vocab, merges = sentencepiece()
    lines = [f"{a} {b}" for a, b in merges]
    specials = added(0, ("<unk>",), ("<s>",), ("</s>",)) + added(len(vocab), ("<mask>", {"rstrip": True, "special": False}))
    ids = {t["content"]: t["id"] for t in specials}
    fallback = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    model = dict(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    yield "gemma", file_of(bpe_model(vocab, lines, **model), normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
                           pre=split(" ", "MergedWithPrevious", literal=True), post=template(["<s>"], (), ids),
                           decoder={"type": "Sequence", "decoders": fallback}, tokens=specials)
    prepend = [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]
    yield "llama2", file_of(bpe_model(vocab, lines, **model), normalizer={"type": "Sequence", "normalizers": prepend},
                            post=template(["<s>"], ["</s>"], ids), decoder={"type": "Sequence", "decoders": fallback + strip}, tokens=specials)
    yield "metaspace", file_of(bpe_model(vocab, lines, **model), post=template(["<s>"], (), ids), tokens=specials,
                               pre={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
                               decoder={"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {
                                   "type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True}]})
    no_bytes = {t: i for i, t in enumerate(t for t in vocab if not t.startswith("<0x"))}
    yield "unknown", file_of(bpe_model(no_bytes, lines, unk_token="<unk>"), tokens=added(0, ("<unk>",), ("<s>",), ("</s>",)),
                             normalizer={"type": "NFKD"},
                             pre={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": False})


def unigram_file():
    counts = collections.Counter()
    for line in CORPUS.split("\n"):
        for word in line.split(" "):
            word = "\u2581" + word
            for i in range(len(word)):
                for j in range(i + 1, min(len(word), i + 8) + 1):
                    counts[word[i:j]] += 1
    chosen = [p for p, c in sorted(counts.items(), key=lambda x: (-x[1] * len(x[0]), x[0])) if (len(p) > 1 and c > 2)][:400]
    characters = sorted({c for w in counts for c in w} - set("磨坊नद"))
    pieces = [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0]]
    for i, p in enumerate(characters + [p for p in chosen if p not in characters]):
        # Scores as 1/64ths, so that sums are exact and ties are real.
        pieces.append([p, -(64 * 4 + (i * 37) % 512 + (256 if len(p) == 1 else 0)) / 64])
    ids = {"<s>": 1, "</s>": 2}
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    meta = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    yield "unigram", file_of({"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
                             normalizer={"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}, spaces]},
                             pre=sequence({"type": "WhitespaceSplit"}, meta), post=template((), ["</s>"], ids), decoder=meta,
                             tokens=added(0, ("<unk>",), ("<s>",), ("</s>",)))


def bert_file():
    counts = collections.Counter()
    for word in CORPUS.lower().replace("\n", " ").split(" "):
        word = "".join(c for c in word if c.isalnum())
        for i in range(len(word)):
            for j in range(i + 1, min(len(word), i + 6) + 1):
                counts[("##" if i else "") + word[i:j]] += 1
    pieces = [p for p, c in sorted(counts.items(), key=lambda x: (-x[1], x[0])) if c > 1][:500]
    letters = sorted({("##" if m else "") + c for c in "abcdefghijklmnopqrstuvwxyz0123456789" for m in (0, 1)})
    vocab = {}
    for t in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + letters + pieces:
        vocab.setdefault(t, len(vocab))
    yield "bert", file_of({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 60,
                           "vocab": vocab},
                          normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                                      "lowercase": True},
                          pre={"type": "BertPreTokenizer"}, post=template(["[CLS]"], ["[SEP]"], {"[CLS]": 2, "[SEP]": 3}),
                          decoder={"type": "WordPiece", "prefix": "##", "cleanup": False},
                          tokens=added(0, ("[PAD]",), ("[UNK]",), ("[CLS]",), ("[SEP]",), ("[MASK]", {"lstrip": True})))


def step_files():
    letters = {c: i + 1 for i, c in enumerate("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -.,;:!?'()[]{}<>/_=+*")}
    letters["<unk>"] = 0
    n = len(letters)
    merges = ["t h", "th e", "a b", "e r", "- -", ". .", "r i", "o r", "w or"]
    for m in merges:
        letters.setdefault(m.replace(" ", ""), len(letters))
    model = bpe_model(letters, merges, unk_token="<unk>", fuse_unk=True)
    tokens = added(0, ("<unk>",)) + added(
        len(letters), ("word", {"special": False, "single_word": True}), ("norm", {"special": False, "normalized": True}),
        ("<mask>", {"lstrip": True, "rstrip": True}), ("<s>",), ("</s>",))
    yield "behaviors", file_of(model, pre=sequence(split(",", "Removed", literal=True), split(r"\-", "MergedWithNext"),
                                                   split(r"\.", "MergedWithPrevious"), split("[aeiou]", "Contiguous"),
                                                   split(r"[A-Z]+", "Isolated", invert=True),
                                                   {"type": "Digits", "individual_digits": True},
                                                   {"type": "CharDelimiterSplit", "delimiter": ";"}), tokens=tokens)
    lower = {"type": "Sequence", "normalizers": [{"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "NFD"},
                                                 {"type": "StripAccents"}, {"type": "Lowercase"}]}
    yield "flags", file_of(model, normalizer=lower, pre=sequence({"type": "Whitespace"}, {"type": "Punctuation", "behavior": "Isolated"}),
                           tokens=tokens)
    suffix = {c + "</w>": i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz0123456789.,!?'", start=n + 60)}
    clip = {c: i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz0123456789.,!?'")}
    clip = {"<unk>": 0, **{t: i + 1 for i, t in enumerate(list(clip) + list(suffix))}}
    joins = ["t h", "th e</w>", "e r</w>", "i n", "in g</w>", "r i"]
    for m in joins:
        clip.setdefault(m.replace(" ", ""), len(clip))
    yield "suffix", file_of(bpe_model(clip, joins, unk_token="<unk>", end_of_word_suffix="</w>"),
                            normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                                                                            {"type": "Lowercase"}]},
                            pre=split(r"'s|'t|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", "Removed", invert=True), tokens=added(0, ("<unk>",)))
    words = {w: i for i, w in enumerate(["<unk>", "the", "The", "river", "a", "word", "norm", ".", ",", "12", "world", "Hello"])}
    yield "wordlevel", file_of({"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}, normalizer={"type": "NFKC"},
                               pre={"type": "Whitespace"}, tokens=added(0, ("<unk>",)))


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "texts.json"), "w", encoding="ascii") as f:
        json.dump(TEXTS, f, indent=0)
        f.write("\n")
    for source in (byte_level_files, sentencepiece_files, unigram_file, bert_file, step_files):
        for name, content in source():
            with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as f:
                json.dump(content, f, ensure_ascii=False, separators=(",", ":"))
                f.write("\n")


if __name__ == "__main__":
    main()
