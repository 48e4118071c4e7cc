"""Shared by all skills: items, wordings, and the one rule of what is held out.

An item is a dict {category, messages, tools?, enable_thinking?, check?}; `messages` ends with the assistant's
answer. A wording is a core sentence inside a frame ("Hi! {q}"). `held(kind, text)` decides by SHA-256 whether a
wording, an operand pair or a value belongs to the held-out side; training code asks for the other side only.
"""
import hashlib
import random

FRAMES = [
    "{Q}", "{Q}", "{Q}", "{nopunct}", "{lower}", "Hi! {Q}", "Hello, {q}", "Please tell me: {q}", "{Q} Please.",
    "Quick question: {q}", "{Q} Thanks!", "I need to know: {q}", "Hey minnow, {q}", "Can you help? {Q}",
    "So, {q}", "Now: {q}", "One more thing: {q}", "minnow, {q}", "Hey! {Q}", "Next question. {Q}",
]

SYSTEMS = [
    "You are a helpful assistant.", "You are minnow.", "Be brief.", "You are a helpful AI assistant.",
    "Answer the question.", "You are a friendly assistant. Keep answers short.", "You are an assistant in a terminal.",
    "Be polite and short.", "You are minnow, a small model inside shoal.",
]

SYLLABLES_A = ("ba be bi bo da de do fa fi ga go ha he jo ka ke ki ko la le li lo ma me mi mo na ne no pa pe po ra re ri "
               "ro sa se si so ta te ti to va ve vi wa we za zo bra cre dro fle gra kri pla ska sto tri").split()
SYLLABLES_B = "n r l s t k m x rd lt nk sh v nd".split()


def held(kind, text, one_in=5):
    h = hashlib.sha256((kind + "|" + text).encode()).digest()
    return int.from_bytes(h[:4], "big") % one_in == 0


def lower_first(s):
    first = s.split(" ")[0].rstrip("?.,!'")
    return s if first in ("I", "JSON", "I'm") or first.isupper() or first in PROPER else s[0].lower() + s[1:]


PROPER = set()


def frame(f, q):
    return f.format(Q=q, q=lower_first(q), nopunct=q.rstrip("?.!"), lower=lower_first(q).rstrip("."))


class Gen:
    """A random source plus the side: `heldout` False makes training items, True makes held-out ones."""

    def __init__(self, seed, heldout=False):
        self.r = random.Random(seed)
        self.heldout = heldout

    def ok(self, kind, text, one_in=5):
        return held(kind, text, one_in) == self.heldout

    def wording(self, kind, cores, frames=FRAMES):
        """Picks a (core, frame) of this side; returns (core, frame)."""
        while True:
            c, f = self.r.choice(cores), self.r.choice(frames)
            if self.ok("wording " + kind, (c if isinstance(c, str) else c[0]) + "|" + f):
                return c, f

    def ask(self, kind, cores, **values):
        """A question from a core of this side with its values filled in."""
        c, f = self.wording(kind, cores)
        return frame(f, c.format(**values))

    def made_up(self, kind="value"):
        """A made-up word of this side."""
        r = self.r
        while True:
            w = "".join(r.choice(SYLLABLES_A) for _ in range(r.choice((1, 1, 2)))) + r.choice(SYLLABLES_B)
            if r.random() < 0.15:
                w += r.choice(SYLLABLES_A)
            if self.ok(kind, w):
                return w.capitalize() if r.random() < 0.6 else w

    def value(self, kind, words):
        """One of `words` of this side (argument values held out by hash)."""
        while True:
            w = self.r.choice(words)
            if self.ok(kind, str(w)):
                return w


def item(category, question, answer, check=None, thought=None):
    a = {"role": "assistant", "content": answer}
    it = {"category": category, "messages": [{"role": "user", "content": question}, a], "check": check}
    if thought is not None:
        a["reasoning_content"] = thought
        it["enable_thinking"] = True
    return it
