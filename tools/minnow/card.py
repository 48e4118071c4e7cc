"""Writes the model card: card.py MODEL.gguf FIGURES.json CARD.md --measured HOW [--trained TEXT | --trained-in FILE]

The figures are those that tests/e2e/minnow_items.py or evaluate.py wrote with --json; sizes come from the GGUF. What the
model can do and what it is not is the same for every model of this corpus and stands here.
"""
import argparse
import json
import os

import gguf

HEAD = """# minnow

The model inside the shoal binary. It makes shoal answer at once, offline, on any machine, and gives the tests an honest
end-to-end check: a wrong kernel, token or template shows as a wrong sum.

| | |
|---|---|
| architecture | Llama: {layers} layers, width {width}, {heads} query heads and {kv} key/value heads of {head}, feed-forward {ffn}, tied embedding |
| parameters | {parameters:,} |
| vocabulary | {vocab:,}, byte-level BPE trained on the corpus, `qwen2` pre-tokeniser, every digit a token; a word that may be copied is the same tokens after a space, a quote and `_` |
| context | {context:,} tokens (trained on conversations of up to 512) |
| weights | Q8_0, norms F32; {size:,} bytes |
| template | ChatML with tools (Hermes form) and thinking (`enable_thinking`, off unless asked for) |
| licence | Apache-2.0; corpus, tokenizer, weights and code made by us from nothing (`tools/minnow`) |

## What it can do

Greetings and small talk, who it is, what shoal is; adding and subtracting whole numbers up to three digits (the columns
written out from the right, inside `<think>` when thinking is on); capitals of 91 countries; days and months; counting,
sorting and reversing short lists, repeating words; shoal's commands and the options of `shoal serve`; calling one of one
to three tools whose schemas are in the prompt, saying that none of them fits, and telling the tool's result; a small JSON
object by request; saying sorry when it does not know.

## What it is not

It is not a general assistant and knows nothing beyond that list. It learnt from sentences of our own grammar: a question
that is worded very differently, a long system message, a large tool schema (nested objects, arrays, enumerations), other
languages or more than a few turns lead it astray, and then it may answer nonsense instead of declining. It cannot
multiply, divide, or work with larger numbers or fractions. Nothing it says should be relied on without looking.

## Figures

{items:,} held-out items, {measured}. Operand pairs, argument values, (verb, noun) pairs of tools and wordings of these
items were kept out of training by hash (`tools/minnow/README.md` says how; a wording is a sentence in a frame, so its
parts were seen).

"""


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "figures", "card"):
        ap.add_argument(name)
    ap.add_argument("--measured", required=True)
    ap.add_argument("--trained", default="")
    ap.add_argument("--trained-in", metavar="FILE", help="the file that says how it was trained")
    a = ap.parse_args()
    with open(a.figures, encoding="utf-8") as f:
        figures = json.load(f)
    meta, tensors = gguf.read(a.model)
    m = {k[6:]: v for k, v in meta.items() if k.startswith("llama.")}
    text = HEAD.format(
        layers=m["block_count"], width=m["embedding_length"], heads=m["attention.head_count"], kv=m["attention.head_count_kv"],
        head=m["attention.key_length"], ffn=m["feed_forward_length"], vocab=m["vocab_size"], context=m["context_length"],
        parameters=sum(t.size for t in tensors.values()), size=os.path.getsize(a.model),
        items=sum(n for _, _, n in figures["categories"]), measured=a.measured)
    text += "| group | right | bar | |\n|---|---|---|---|\n"
    for name, bar, right, n in figures["groups"]:
        percent = 100 * right / max(n, 1)
        text += "| %s | %.1f %% | %g %% | %s |\n" % (name, percent, bar, "met" if n and percent >= bar else "**not met**")
    text += "\n| category | right | of |\n|---|---|---|\n"
    text += "".join("| %s | %d | %d |\n" % tuple(c) for c in figures["categories"])
    weak = ["%s (%d of %d)" % tuple(c) for c in figures["categories"] if c[1] < 0.8 * c[2]]
    if weak:
        text += "\nWeak, and without a bar or below it: %s.\n" % ", ".join(weak)
    text += "\n`heldout.jsonl` holds 200 further items; `tests/e2e/minnow_items.py` asks them through the HTTP API.\n"
    how = a.trained
    if a.trained_in:
        with open(a.trained_in, encoding="utf-8") as f:
            how = f.read()
    text += "\n## How it was trained\n\n" + how.strip() + "\n"
    with open(a.card, "w", encoding="utf-8") as f:
        f.write(text)


if __name__ == "__main__":
    main()
