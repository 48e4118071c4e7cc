"""A small JSON object by request."""
import json
from common import item
from skills.lists import WORDS

KEYS = [("name", "s"), ("city", "s"), ("age", "n"), ("color", "s"), ("count", "n"), ("title", "s"), ("price", "n"), ("country", "s"),
        ("animal", "s"), ("year", "n"), ("size", "n"), ("id", "n"), ("word", "s"), ("user", "s"), ("place", "s"), ("score", "n")]
ASK = ["Give me a JSON object with {l}.", "Write a JSON object with {l}.", "Make JSON with {l}.", "Answer in JSON: {l}.",
       "Return JSON with {l}.", "I need a JSON object with {l}.", "As JSON: {l}.", "Create a JSON object with {l}."]
JOIN = ["{k} {v}", "{k} = {v}", "{k}: {v}"]


def make(g):
    r = g.r
    ks = r.sample(KEYS, r.choice((1, 2, 2, 3)))
    form, obj = r.choice(JOIN), {}
    for k, t in ks:
        if t == "n":
            obj[k] = g.value("number", range(1, r.choice((40, 100, 1000))))
        else:
            obj[k] = g.made_up() if r.random() < 0.6 else g.value("word", WORDS)
    parts = [form.format(k=k, v=v) for k, v in obj.items()]
    text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return item("JSON", g.ask("json", ASK, l=text), json.dumps(obj), {"kind": "json", "value": obj})
