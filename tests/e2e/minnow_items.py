#!/usr/bin/env python3
"""Asks a server minnow's held-out items through POST /v1/chat/completions and checks the answers.

  minnow_items.py BASE_URL [--items models/minnow/heldout.jsonl] [--model minnow] [--slack 3] [--json FILE] [--api-key KEY] [-v]

How it works: each line of the items file is {category, messages, tools?, enable_thinking?, check}; it is asked with
temperature 0, and the answer is held against `check` (the forms are listed at `passes`). Prints a line per category
and ends with status 1 when a group of categories is below its bar less the slack, 2 when the server could not be asked.
Standard library only. What it is not: a test of the API's own form (tests/api does that); it takes tool calls parsed
into `tool_calls` or raw in the content, and reasoning apart or raw.
"""
import argparse
import json
import os
import re
import sys
import urllib.error
import urllib.request

# group -> (bar in percent, categories). A tool call counts as well-formed when one call came out whole (any name).
BARS = [
    ("arithmetic up to 2 digits", 97, ["arithmetic up to 2 digits"]),
    ("arithmetic 3 digits", 95, ["arithmetic 3 digits"]),
    ("capitals and calendar", 95, ["capitals", "calendar"]),
    ("tool calls wholly right", 90, ["tool calls"]),
    ("commands", 90, ["commands"]),
    ("unknown topics declined", 90, ["unknown"]),
]
WELL_FORMED_BAR = 97


def split_answer(message):
    """(text without reasoning and calls, [(name, arguments)] or None when a call is malformed)."""
    text = message.get("content") or ""
    text = text.split("</think>")[-1]
    calls = []
    try:
        for c in message.get("tool_calls") or []:
            c = c.get("function", c)
            a = c["arguments"]
            calls.append((c["name"], json.loads(a) if isinstance(a, str) else a))
        for raw in re.findall(r"<tool_call>(.*?)(?:</tool_call>|\Z)", text, re.S):
            c = json.loads(raw)
            calls.append((c["name"], c["arguments"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        calls = None
    return re.sub(r"<tool_call>.*?(</tool_call>|\Z)", "", text, flags=re.S).strip(), calls


def passes(check, message):
    """Does the assistant's message meet the check? The forms:

    {"kind": "last_number", "value": "42"}        the last whole number in the text
    {"kind": "contains", "value": "Paris"}        the text holds the value (case matters)
    {"kind": "contains_all", "values": [...]}     ... each of the values
    {"kind": "equals", "value": "1, 2, 3."}       the text is the value (outer white space aside)
    {"kind": "json", "value": {...}}              the text is JSON and equal as data
    {"kind": "declines"}                          the text says sorry, and no tool is called
    {"kind": "tool_call", "name": n, "arguments": {...}}   exactly one call, equal as data
    """
    text, calls = split_answer(message)
    kind = check["kind"]
    if kind == "tool_call":
        return calls == [(check["name"], check["arguments"])]
    if calls or calls is None:
        return False
    if kind == "last_number":
        numbers = re.findall(r"(?<![\w.-])-?\d+|(?<=[^\d\s])\d+", text)
        return bool(numbers) and numbers[-1].lstrip("+") == check["value"]
    if kind == "contains":
        return check["value"] in text
    if kind == "contains_all":
        return all(v in text for v in check["values"])
    if kind == "equals":
        return text == check["value"]
    if kind == "json":
        try:
            return json.loads(text) == check["value"]
        except ValueError:
            return False
    if kind == "declines":
        return "sorry" in text.lower()
    raise ValueError("unknown kind of check: " + kind)


def well_formed(message):
    _, calls = split_answer(message)
    return calls is not None and len(calls) == 1


class Score:
    """Counts by category and judges the bars."""

    def __init__(self):
        self.right, self.all, self.formed, self.failures = {}, {}, 0, []

    def add(self, item, message):
        c, ok = item["category"], passes(item["check"], message)
        self.all[c] = self.all.get(c, 0) + 1
        self.right[c] = self.right.get(c, 0) + ok
        if item["check"]["kind"] == "tool_call":
            self.formed += well_formed(message)
        if not ok:
            self.failures.append((item, message))
        return ok

    def groups(self):
        """[(name, bar, right, of)] of everything that has a bar."""
        out = [(name, bar, sum(self.right.get(c, 0) for c in cs), sum(self.all.get(c, 0) for c in cs)) for name, bar, cs in BARS]
        return out + [("tool calls well-formed", WELL_FORMED_BAR, self.formed, self.all.get("tool calls", 0))]

    def report(self, slack, out=sys.stdout):
        """Prints the table; True when every bar (less the slack) is met. A group with no items fails."""
        good = True
        for c in self.all:
            print("  %-28s %4d of %4d" % (c, self.right[c], self.all[c]), file=out)
        for name, bar, right, n in self.groups():
            percent = 100.0 * right / n if n else 0.0
            ok = n > 0 and percent >= bar - slack
            good = good and ok
            print("%s %-28s %5.1f %%  (bar %g %%, %d items)" % ("ok  " if ok else "FAIL", name, percent, bar - slack, n), file=out)
        return good

    def save(self, path):
        """The figures as JSON, for the model card."""
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"categories": [(c, self.right[c], self.all[c]) for c in self.all], "groups": self.groups()}, f)


def ask(base, model, key, item, timeout):
    body = {"model": model, "messages": item["messages"], "temperature": 0, "max_tokens": 250, "stream": False,
            "chat_template_kwargs": {"enable_thinking": bool(item.get("enable_thinking"))}}
    for m in body["messages"]:              # on the wire arguments are a JSON string
        for n, c in enumerate(m.get("tool_calls") or []):
            c.setdefault("id", "call_%d" % n)
            if not isinstance(c["function"]["arguments"], str):
                c["function"]["arguments"] = json.dumps(c["function"]["arguments"])
        if m["role"] == "tool":
            m.setdefault("tool_call_id", "call_0")
    if item.get("tools"):
        body["tools"] = item["tools"]
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = "Bearer " + key
    request = urllib.request.Request(base.rstrip("/") + "/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=timeout) as reply:
        return json.load(reply)["choices"][0]["message"]


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("base")
    ap.add_argument("--items", default=os.path.join(here, "../../models/minnow/heldout.jsonl"))
    ap.add_argument("--model", default="minnow")
    ap.add_argument("--api-key", default=os.environ.get("SHOAL_API_KEY"))
    ap.add_argument("--slack", type=float, default=3.0, help="points below the bars of the model card")
    ap.add_argument("--json", metavar="FILE", help="write the figures there as JSON")
    ap.add_argument("--timeout", type=float, default=300.0, help="seconds to wait for one answer")
    ap.add_argument("-v", action="store_true", help="print every wrong answer")
    a = ap.parse_args()
    with open(a.items, encoding="utf-8") as f:
        items = [json.loads(line) for line in f if line.strip()]
    score = Score()
    for n, item in enumerate(items):
        try:
            message = ask(a.base, a.model, a.api_key, item, a.timeout)
        except urllib.error.HTTPError as e:
            print("item %d: HTTP %d: %s" % (n + 1, e.code, e.read(500).decode("utf-8", "replace")), file=sys.stderr)
            return 2
        except (OSError, ValueError, KeyError, IndexError) as e:
            print("item %d: %s: %s" % (n + 1, type(e).__name__, e), file=sys.stderr)
            return 2
        if not score.add(item, message) and a.v:
            print("WRONG item %d (%s)\n  asked   %s\n  wanted  %s\n  got     %s" % (
                n + 1, item["category"], item["messages"][-1]["content"], json.dumps(item["check"]), json.dumps(message)))
    if a.json:
        score.save(a.json)
    return 0 if score.report(a.slack) else 1


if __name__ == "__main__":
    sys.exit(main())
