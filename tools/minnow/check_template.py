"""Holds the Python renderer against python3-jinja2 on documents and held-out items: check_template.py [N]"""
import sys

import jinja2

import corpus
from common import Gen
from template import TEMPLATE, render, tojson

env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
env.filters["tojson"] = tojson
template = env.from_string(TEMPLATE)
g, n = Gen("check"), int(sys.argv[1]) if len(sys.argv) > 1 else 3000


def both(messages, tools, **kw):
    want = template.render(messages=messages, tools=tools, **kw)
    got = render(messages, tools, kw.get("enable_thinking", False), kw["add_generation_prompt"])
    if want != got:
        sys.exit("template and renderer differ:\n%r\n%r" % (want, got))


for _ in range(n):
    both(*corpus.document(g), add_generation_prompt=False)
for it in corpus.heldout(300, 5):
    for thinking in (False, True):
        both(it["messages"], it.get("tools"), enable_thinking=thinking, add_generation_prompt=True)
    both(it["messages"], it.get("tools"), add_generation_prompt=True)
print("template and renderer agree on %d documents" % n)
