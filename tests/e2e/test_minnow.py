#!/usr/bin/env python3
"""The built-in model, end to end: a node with an empty HOME answers what minnow was never shown, through the HTTP API. A wrong kernel, token or
template shows here. The items and their bars are minnow_items.py's (three points below the card's); and `shoal run minnow` knows what
12 + 30 is. SHOAL names the binary. Standard library only."""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHOAL = os.environ.get("SHOAL", os.path.join(ROOT, "build/shoal"))
MODEL = os.path.join(ROOT, "models/minnow/minnow.gguf")
ITEMS = os.path.join(ROOT, "tests/e2e/minnow_items.py")
failed = 0


def say(name, why=None):
    global failed
    if why is None:
        print(f"ok {name}", flush=True)
    else:
        failed += 1
        print(f"not ok {name}: {why}", flush=True)


def wait_for_url(process):
    """The line that says the node is ready names its URL."""
    for line in process.stdout:
        found = re.search(r"http://\S+?:\d+", line)
        if "ready" in line and found:
            return found[0].replace("localhost", "127.0.0.1")  # a bare system may have no /etc/hosts
    return None


def ask_items(home):
    env = dict(os.environ, HOME=home)
    process = subprocess.Popen([SHOAL, "serve", "minnow", "--port", "0"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True)
    try:
        url = wait_for_url(process)
        if not url:
            say("a node with minnow starts", f"it ended with {process.wait()}")
            return
        say("a node with minnow starts")
        done = subprocess.run([sys.executable, ITEMS, url], capture_output=True, text=True, timeout=900, check=False)
        for line in done.stdout.splitlines():
            print(line)
        say("held-out items are answered above their bars", None if done.returncode == 0 else done.stdout[-600:] + done.stderr[-300:])
    finally:
        process.terminate()
        process.wait(timeout=60)


def run_prompt(home):
    env = dict(os.environ, HOME=home)
    done = subprocess.run([SHOAL, "run", "minnow", "What is 12 + 30?"], env=env, capture_output=True, text=True, timeout=300,
                          stdin=subprocess.DEVNULL, check=False)
    right = done.returncode == 0 and re.search(r"\b42\b", done.stdout)
    say('shoal run minnow "What is 12 + 30?" says 42', None if right else f"code {done.returncode}: {done.stdout!r} {done.stderr!r}")


def main():
    if not os.path.exists(MODEL):
        print("skip minnow: models/minnow/minnow.gguf is not there, the built-in model is a random one")
        return 0
    with tempfile.TemporaryDirectory() as home:
        for name in list(os.environ):
            if name.startswith("XDG_"):
                del os.environ[name]
        ask_items(home)
        run_prompt(home)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
