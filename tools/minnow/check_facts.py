"""Holds facts.py against the program's own tables (src/cli/commands.def, options.def): what is gone, what is new."""
import os
import re
import sys

from facts import COMMANDS, OPTIONS

cli = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../src/cli")
with open(os.path.join(cli, "commands.def")) as f:
    commands = {m[1] for m in re.finditer(r'^COMMAND\((\w+),.*?, MAIN,', f.read(), re.M)}
with open(os.path.join(cli, "options.def")) as f:
    options = {"--" + m[1]: m[3] for m in re.finditer(
        r'^OPTION\(\w+,\s*"([^"]+)",\s*[^,]+,\s*\w+,\s*"([^"]*)",\s*"([^"]*)",\s*"(?: all |[^"]* serve )[^"]*"', f.read(), re.M)}
gone = sorted(set(COMMANDS) - commands - {"plan"}) + sorted(set(OPTIONS) - set(options))     # plan comes later
for x in gone:
    print("minnow is taught, but the program lacks:", x)
for x in sorted(commands - set(COMMANDS)) + sorted(set(options) - set(OPTIONS)):
    print("minnow is not taught:", x)
for o, (_, default, _) in OPTIONS.items():
    print("default of %s: taught %s, program %r" % (o, default, options.get(o)))
sys.exit(1 if gone else 0)
