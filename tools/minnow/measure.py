"""Measures a model through shoal itself: measure.py SHOAL MODEL ITEMS.jsonl [FIGURES.json] [more options of minnow_items.py]

Starts a node with an empty home on a free port, asks it the items with tests/e2e/minnow_items.py, and stops it. MODEL is
a GGUF, or `minnow` for the one inside the binary. Standard library only.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request

ITEMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/e2e/minnow_items.py")


def main():
    shoal, model, items = sys.argv[1:4]
    model = model if model == "minnow" else os.path.abspath(model)
    more = ["--json", sys.argv[4]] + sys.argv[5:] if len(sys.argv) > 4 else []
    with tempfile.TemporaryDirectory() as home:
        env = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
        env["HOME"] = home
        node = subprocess.Popen([shoal, "serve", model, "--port", "0"], env=env, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
        try:
            for line in node.stdout:
                found = re.search(r"http://\S+?:\d+", line)
                if "ready" in line and found:
                    url = found[0].replace("localhost", "127.0.0.1")
                    break
            else:
                sys.exit("the node ended with %d before it was ready" % node.wait())
            with urllib.request.urlopen(url + "/v1/models") as reply:
                ids = [m["id"] for m in json.load(reply)["data"]]
            name = next(x for x in ids if x != "minnow" or model == "minnow")
            return subprocess.call([sys.executable, ITEMS, url, "--items", items, "--model", name] + more)
        finally:
            node.terminate()
            node.wait(timeout=60)


if __name__ == "__main__":
    sys.exit(main())
