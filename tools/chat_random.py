#!/usr/bin/env python3
"""Random expressions of the template language through `shoal render` and through jinja2 as transformers sets it up (Debian: python3-jinja2): the
texts must be equal, or both must fail.

    tools/chat_random.py build/release/shoal [--seed 1] [--count 1000]

Prints what differs; the last line counts. Out of it, because no template needs it: bytes (`encode`), the order that pprint gives to members, sorting by an
attribute that no item has, where a line without room for a word is broken. Statements are not made here: tests/data/templates has them.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

import make_chat_expected

VARIABLES = {
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a b"},
                 {"role": "assistant", "content": None, "tool_calls": [{"id": "i", "function": {"name": "f", "arguments": {"x": [1, 2.5, True]}}}]}],
    "n": -3, "u": "\u00e9\U0001F600", "big": 9007199254740993, "f": 1e-7, "t": "The quick  brown\tfox\n jumps <b>over</b> & 'it' \"", "em": "",
    "li": [3, 1, 2, 1], "mx": ["b", "A", "a", None], "d": {"b": 1, "A": [2], "c": {"x": "y"}}, "ed": {}, "el": [], "no": None, "tr": True,
    "us": [{"n": "bob", "a": 30, "x": {"y": 2}}, {"n": "Al", "a": 20, "x": {"y": 1}}, {"n": "cy", "a": 30}]}

NUMBERS = "0 1 -1 2 3 7 -7 10 255 1.5 -0.5 2.0 1e3 1e16 0.1 n f big 100 true".split()
TEXTS = ["u", "t", "em", "'abc'", "'Hello World'", "'a,b,,c'", "' x '", "'12'", "'-3.5'", "'ÄÖ ß'", "'x=y=z'", "'a\\nb\\r\\nc'", "'%s'", "'aXbX'",
         "'日本語'", "messages[0].role", "'0'", "'ǆ'", "'1e3'", "'<a href=\"x\">&amp;</a>'"]
LISTS = ["li", "mx", "el", "us", "messages", "[1,[2,3]]", "(1,2)", "['a','b','c']", "range(5)", "range(1,10,3)", "d.keys()|list", "'abc'", "d",
         "[1.5,none,'x',true]", "us|map(attribute='a')|list", "[u,t]"]
DICTS = ["d", "ed", "us[0]", "messages[1]", "{'k': 1, 'z': [none]}", "{1: 'a', 'b': 2.5}"]
OTHERS = ["no", "undef", "true", "false", "none", "d.zz", "li[9]", "messages[2].tool_calls"]
TEXT_FILTERS = ("upper lower title capitalize trim length string int float e escape striptags urlencode wordcount reverse list first last tojson default('q') "
                "replace('a','o') replace('','-') replace('l','L',1) center(9) center(10) indent indent(2) indent(2,true) indent('>>',true,true) truncate(5) "
                "truncate(9,true) truncate(8,false,'~') truncate(7,false,'..',0) truncate(12) int(7) int(0,16) float(2.5) trim('aH') unique|list sort "
                "sort|join join('-') format(1) safe forceescape batch(2)|list select|list min max tojson(indent=2) abs round sum items|list "
                "map('upper')|list").split()
TEXT_METHODS = ("upper() lower() title() capitalize() swapcase() casefold() strip() lstrip() rstrip() strip('ax') split() split(',') rsplit() split(none,1) "
                "rsplit(none,1) split('') splitlines() splitlines(true) partition('=') rpartition('=') startswith('a') endswith(('c','d')) "
                "startswith('H',0,3) find('b') rfind('b') index('a') rindex('a') count('a') count('') replace('a','b') replace('','.') "
                "replace('a','b',1) isdigit() isalpha() isalnum() isupper() islower() istitle() isspace() isnumeric() isdecimal() isidentifier() isascii() "
                "isprintable() center(11,'*') ljust(7,'.') rjust(7) zfill(6) expandtabs() expandtabs(4) removeprefix('a') removesuffix('c') "
                "join(['1','2']) format(1,2) find('b',2) find('',3) count('a',1,2) title().swapcase() isnope()").split()
LIST_FILTERS = ("length first last list reverse|list join(',') join sort sort(reverse=true) unique|list min max sum tojson tojson(indent=1) batch(2)|list "
                "batch(2,'x')|list slice(2)|list slice(3,'f')|list map('string')|list select('number')|list reject('none')|list select('odd')|list string "
                "count default(1) map(attribute='n')|list map(attribute='x.y',default='-')|list selectattr('a','gt',25)|list rejectattr('x')|list "
                "selectattr('x','defined')|map(attribute='n')|join groupby('a') sum(attribute='a') max(attribute='a') min('n') unique(attribute='a')|list "
                "sort(case_sensitive=true) map('length')|list map('upper')|join dictsort items|list join('|',attribute='n') first|first sum(start=5) "
                "select|list reject|list map('default','z')|list map('int')|list tojson|length last|string|upper").split()
DICT_FILTERS = ("length list dictsort dictsort(true) dictsort(false,'value') dictsort(reverse=true) items|list tojson tojson(indent=4) tojson(sort_keys=true) "
                "tojson(separators=(',',':')) string first join xmlattr urlencode default('x') attr('keys') map('string')|list sort unique|list min max "
                "reverse|list last").split()
DICT_METHODS = ("keys() values() items() get('b') get('zz') get('zz',5) keys()|list items()|list values()|list copy() items()|first keys()|sort b A c.x "
                "items()|length nope()").split()
NUMBER_FILTERS = ("abs round round(1) round(2,'floor') round(0,'ceil') round(-1) int float string tojson default(3) e length abs|string round|int list").split()
PERCENT = "%s %d %5.2f %-6s| %05d %x %r %e %g %+d %c %o %#x %i %.3s %% %E %G %X %10.3e %a".split()
BRACES = "{} {0}-{0} {:>8} {:<8}| {:^9} {:*^9} {:5.1f} {:,} {:x} {!r} {!a} {:03d} {:+} {:e} {:%} {:.2} {:b} {:#o} {:g} {:n} {:s} {:10}".split()
TESTS = ["defined", "undefined", "none", "boolean", "true", "false", "integer", "float", "number", "string", "mapping", "iterable", "sequence", "callable",
         "lower", "upper", "odd", "even", "divisibleby(3)", "divisibleby 2", "sameas(none)", "in([1,2])", "eq(1)", "ne 'a'", "gt 1", "lt 2", "ge 3", "le 0",
         "equalto 'a'", "escaped", "nosuch"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", ">=", "and", "or", "in", "not in", "**"]


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def one(self, words):
        return self.random.choice(words)

    def value(self, depth):
        if depth >= 2:
            return self.expression(depth - 1)
        return self.one(self.one((NUMBERS, TEXTS, LISTS, DICTS, OTHERS)))

    def index(self):
        return self.one(("0", "1", "2", "3", "-1", "5", "-2", "none"))

    def expression(self, depth=3):
        one = self.one
        kinds = [
            (16, lambda: f"({one(TEXTS)})|{one(TEXT_FILTERS)}"), (14, lambda: f"({one(TEXTS)}).{one(TEXT_METHODS)}"),
            (12, lambda: f"({one(LISTS)})|{one(LIST_FILTERS)}"), (6, lambda: f"({one(DICTS)})|{one(DICT_FILTERS)}"),
            (6, lambda: f"({one(DICTS)}).{one(DICT_METHODS)}"), (6, lambda: f"({one(NUMBERS)})|{one(NUMBER_FILTERS)}"),
            (4, lambda: f"'{one(PERCENT)}'|format({self.value(1)})"), (2, lambda: f"'{one(PERCENT)}' % {one(NUMBERS + TEXTS)}"),
            (4, lambda: f"'{one(BRACES)}'.format({self.value(1)})"), (6, lambda: f"({self.value(1)}) is {one(('', 'not '))}{one(TESTS)}"),
            (6, lambda: f"({one(TEXTS + LISTS)})[{one((self.index(), f'{self.index()}:{self.index()}', '::-1', '::2', '::-2'))}]"),
            (10, lambda: f"({self.value(depth - 1)}) {one(OPERATORS)} ({self.value(depth - 1)})"),
            (3, lambda: f"({self.value(1)} if {self.value(1)} else {self.value(1)})"), (2, lambda: f"not ({self.value(1)})"),
            (3, lambda: f"({self.value(1)})|{one(TEXT_FILTERS + LIST_FILTERS + NUMBER_FILTERS)}"),
        ]
        return self.random.choices([k for _, k in kinds], [w for w, _ in kinds])[0]()


def main():
    options = argparse.ArgumentParser()
    options.add_argument("shoal")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--count", type=int, default=1000)
    options = options.parse_args()
    environment, maker, text = make_chat_expected.jinja2_environment(), Maker(options.seed), json.dumps(VARIABLES)
    compared = different = 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.jinja")
        for _ in range(options.count):
            expression = maker.expression()
            with open(path, "w", encoding="utf8", newline="") as f:
                f.write("{{ " + expression + " }}")
            want = make_chat_expected.theirs(environment, path, {"add_generation_prompt": False, **json.loads(text)})
            if any(word in want.get("expected", "") for word in ("object at 0x", "<bound", "<built-in")):
                continue  # what Python calls its own things
            done = subprocess.run([options.shoal, "render", "--template", path], input=text.encode(), capture_output=True, check=False)
            got = {"expected": done.stdout.decode()} if done.returncode == 0 else {"failure": done.stderr.decode()}
            compared += 1
            if done.returncode not in (0, 1) or ("expected" in want) != ("expected" in got) or ("expected" in want and want != got):
                different += 1
                print(f"{expression}\n    jinja2 {str(want)[:200]}\n    ours   {str(got)[:200]}")
    print(f"{compared} compared, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
