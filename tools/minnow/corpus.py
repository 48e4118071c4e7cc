"""The corpus: a mixture of the skills, joined into conversations, and the held-out items.

  /usr/bin/python3 corpus.py sample 20        prints training documents
  /usr/bin/python3 corpus.py heldout N SEED   prints N held-out items, one JSON a line

Everything is a function of the seed. Training documents use only wordings, operands and values that the hash leaves
to training; held-out items only those it does not.
"""
import json
import sys

from common import SYSTEMS, Gen
from skills import calendar_, capitals, commands, jsonout, lists, smalltalk, sums, toolcalls, unknown
from template import render, segments

SKILLS = {"sums": sums.make, "capitals": capitals.make, "calendar": calendar_.make, "lists": lists.make, "smalltalk": smalltalk.make,
          "commands": commands.make, "json": jsonout.make, "unknown": unknown.make}
# Share of documents; a tool document is about three times as long as the others.
MIX = {"sums": 32, "capitals": 8, "calendar": 8, "lists": 22, "smalltalk": 5, "commands": 4, "json": 6, "unknown": 7, "tools": 80}
PLAIN = {k: v for k, v in MIX.items() if k != "tools"}

# Held-out items by category: how many of 1,000, and the maker.
HELDOUT = [
    ("arithmetic up to 2 digits", 150, lambda g: sums.make(g, digits=g.r.choice((1, 2, 2, 2)), below_zero=False)),
    ("arithmetic 3 digits", 150, lambda g: sums.make(g, digits=3, below_zero=False)),
    ("arithmetic below zero", 30, lambda g: sums.make(g, below_zero=True)),
    ("capitals", 75, capitals.make), ("calendar", 75, calendar_.make),
    ("tool calls", 150, lambda g: toolcalls.make(g, kind="call")), ("tool results", 50, lambda g: toolcalls.make(g, kind="result")),
    ("no tool fits", 30, lambda g: toolcalls.make(g, kind="none")),
    ("commands", 80, commands.make), ("unknown", 80, unknown.make),
    ("lists", 60, lists.make), ("small talk", 40, smalltalk.make), ("JSON", 30, jsonout.make),
]


def plain(g):
    return SKILLS[g.r.choices(list(PLAIN), list(PLAIN.values()))[0]](g)


def document(g):
    """One training conversation: an item, sometimes several joined, sometimes under a system message."""
    r = g.r
    kind = r.choices(list(MIX), list(MIX.values()))[0]
    it = toolcalls.make(g, others=plain) if kind == "tools" else SKILLS[kind](g)
    messages, tools = list(it["messages"]), it.get("tools")
    thinking = bool(it.get("enable_thinking"))
    while r.random() < 0.25 and len(messages) < 8:
        more = plain(g)
        if more.get("enable_thinking"):     # a conversation is with thinking throughout or without
            continue
        if thinking:
            break
        messages = more["messages"] + messages if r.random() < 0.5 else messages + more["messages"]
    if thinking or (not tools and kind != "sums" and r.random() < 0.12):
        for m in messages:
            if m["role"] == "assistant" and not m.get("reasoning_content"):
                m["reasoning_content"] = "This needs no working."
    if r.random() < 0.12:
        messages.insert(0, {"role": "system", "content": r.choice(SYSTEMS)})
    return messages, tools


def encode(tok, messages, tools):
    """(ids, trained) of a document."""
    ids, mask = [], []
    for text, trained in segments(messages, tools):
        e = tok.encode(text)
        ids += e
        mask += [trained] * len(e)
    return ids, mask


def heldout(n, seed):
    """n held-out items in the proportions of HELDOUT; the answer is taken off."""
    g = Gen(seed, heldout=True)
    out, seen = [], set()
    for name, share, maker in HELDOUT:
        want, tries = round(share * n / 1000), 0
        while want > 0:
            it = maker(g)
            tries += 1
            asked = json.dumps([it["messages"][:-1], it.get("tools")])
            if asked in seen and tries < 4000:
                continue
            seen.add(asked)
            want -= 1
            o = {"category": name, "messages": [{k: v for k, v in m.items() if k != "reasoning_content"} for m in it["messages"][:-1]]}
            for k in ("tools", "enable_thinking"):
                if it.get(k):
                    o[k] = it[k]
            o["check"] = it["check"]
            out.append(o)
    return out


def main():
    if sys.argv[1:2] == ["sample"]:
        g = Gen(7)
        for _ in range(int(sys.argv[2])):
            print(render(*document(g), add_generation_prompt=False))
    elif sys.argv[1:2] == ["heldout"]:
        for it in heldout(int(sys.argv[2]), int(sys.argv[3])):
            print(json.dumps(it))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
