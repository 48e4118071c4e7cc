#!/usr/bin/env python3
"""Renders every template of tests/data/templates over its conversations with `shoal render` and writes expected.json there.
Look at the difference before committing it. With --check jinja2 the results are held against the jinja2 library as
transformers sets it up (Debian: python3-jinja2), which is how the committed ones were checked.
usage: tools/make_chat_expected.py build/shoal [--check jinja2]"""
import datetime
import json
import os
import subprocess
import sys

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data", "templates")
NOW = "2025-07-15T09:30:00"


def ours(shoal, path, variables):
    run = subprocess.run([shoal, "render", "--template", path], input=json.dumps(variables).encode(), capture_output=True)
    if run.returncode == 0:
        return {"expected": run.stdout.decode()}
    text = run.stderr.decode().removeprefix("shoal render: ").rstrip("\n")
    return {"failure": text} if text.startswith("chat template: ") else {"refusal": text}


def jinja2_environment():
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import SandboxedEnvironment

    class Refusal(Exception):
        pass

    class Generation(Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller):
            return caller()

    def refuse(message):
        raise Refusal(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    e = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation])
    e.filters["tojson"] = tojson
    e.globals["raise_exception"] = refuse
    e.globals["strftime_now"] = datetime.datetime.fromisoformat(NOW).strftime
    return e, Refusal


def theirs(environment, path, variables):
    e, refusal = environment
    with open(path, encoding="utf8", newline="") as f:
        source = f.read()
    try:
        v = {"tools": None, "documents": None, **json.loads(json.dumps(variables))}
        return {"expected": e.from_string(source).render(**v)}
    except refusal as x:
        return {"refusal": str(x)}
    except Exception as x:  # whatever Python says: ours must fail as well
        return {"failure": str(x)}


def main():
    shoal = sys.argv[1]
    environment = jinja2_environment() if sys.argv[2:] == ["--check", "jinja2"] else None
    with open(os.path.join(HERE, "conversations.json"), encoding="utf8") as f:
        conversations = json.load(f)
    results, different = {}, 0
    for name in sorted(n[:-6] for n in os.listdir(HERE) if n.endswith(".jinja")):
        path = os.path.join(HERE, name + ".jinja")
        results[name] = {}
        for c in conversations:
            variables = {"bos_token": "<s>", "eos_token": "</s>", **{k: v for k, v in c.items() if k != "id"}}
            got = results[name][c["id"]] = ours(shoal, path, {**variables, "now": NOW})
            if environment:
                want = theirs(environment, path, variables)
                if list(got) != list(want) or ("failure" not in got and got != want):
                    different += 1
                    print(f"{name} {c['id']}\n  ours   {got}\n  jinja2 {want}")
    with open(os.path.join(HERE, "expected.json"), "w", encoding="utf8") as f:
        json.dump({"now": NOW, "bos_token": "<s>", "eos_token": "</s>", "templates": results}, f, ensure_ascii=False, indent=1)
        f.write("\n")
    print(len(results), "templates,", len(conversations), "conversations,", different, "different from jinja2" if environment else "")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
