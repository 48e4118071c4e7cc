#!/usr/bin/env python3
"""The commands people type, with the real binary: run, chat (piped and on a pty), list, ps, show, doctor, paths, wrong calls.

SHOAL names the binary. Everything happens in a temporary HOME. Prints `ok NAME` or `not ok NAME: why`, then `N passed, N failed`.
"""
import contextlib
import errno
import fcntl
import http.server
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

SHOAL = os.environ.get("SHOAL", "build/shoal")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TINY = os.path.join(ROOT, "tests/data/models/tiny-q8_0.gguf")
WAIT = float(os.environ.get("SHOAL_TEST_WAIT", "180"))  # bounds hangs, measures nothing
HOME = tempfile.mkdtemp(prefix="shoal-cli-")
ENV = {k: v for k, v in os.environ.items()
       if not k.startswith(("SHOAL_", "XDG_", "HF_", "OLLAMA_", "HUGGINGFACE_")) and k not in ("NO_COLOR", "SHOAL")}
ENV.update(HOME=HOME, TERM="xterm-256color", LC_ALL="C.UTF-8")
# In sanitized builds: libedit keeps the name and help of a function that is added to it (two short strings) for ever.
with open(os.path.join(HOME, "suppressions"), "w") as suppressions:
    suppressions.write("leak:wcsdup\n")
ENV["LSAN_OPTIONS"] = f"suppressions={HOME}/suppressions:print_suppressions=0"
TESTS = []


def test(f):
    TESTS.append(f)
    return f


def shoal(*args, text=None, code=0, env=None, data=None):
    """Runs a command; stdin is text, bytes, or nothing. Returns (stdout, stderr)."""
    stdin = data if data is not None else (text or "").encode()
    done = subprocess.run([SHOAL, *args], input=stdin, capture_output=True, timeout=WAIT, env={**ENV, **(env or {})})
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    assert code is None or done.returncode == code, f"exit {done.returncode}, not {code}: {out[-300:]!r} {err[-600:]!r}"
    return out, err


def must(condition, *what):
    assert condition, " ".join(repr(w)[-900:] for w in what)


class Terminal:
    """A command on a pseudo terminal of 80 columns."""

    def __init__(self, *args, env=None, columns=80):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(SHOAL, [SHOAL, *args], {**ENV, **(env or {})})
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.seen = ""
        self.at = 0

    def read_some(self, deadline):
        left = deadline - time.monotonic()
        must(left > 0, "nothing more came", self.seen)
        if not select.select([self.fd], [], [], min(left, 1))[0]:
            return True
        try:
            piece = os.read(self.fd, 65536)
        except OSError as e:
            if e.errno != errno.EIO:
                raise
            piece = b""
        self.seen += piece.decode(errors="replace")
        return bool(piece)

    def expect(self, pattern):
        """Waits for a pattern behind what was expected before."""
        deadline = time.monotonic() + WAIT
        while not (found := re.search(pattern, self.seen[self.at:], re.S)):
            must(self.read_some(deadline), "ended before", pattern, self.seen)
        self.at += found.end()
        return found.group()

    def send(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        """Reads to the end; returns the exit code (negative: a signal)."""
        deadline = time.monotonic() + WAIT
        while self.read_some(deadline):
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def children(pid):
    out = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(p) for p in out.split()]


def gone(pid):
    """Not running any more (a zombie that nobody reaps here counts as gone)."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition, *what):
    deadline = time.monotonic() + WAIT
    while not condition():
        must(time.monotonic() < deadline, "it did not happen", *what)
        time.sleep(0.05)


SHORT = ("--max-tokens", "12", "--seed", "1")


# ---- run


@test
def run_answers_a_prompt():
    out, err = shoal("run", "minnow", "Hello", *SHORT)
    must(len(out) > 1 and out.endswith("\n"), out)
    must(err == "", err)
    must(shoal("run", "minnow", "Hello", *SHORT)[0] == out, "the same seed gave another answer")


@test
def run_takes_the_prompt_from_a_pipe():
    must(shoal("run", "minnow", text="Hello", *SHORT) == shoal("run", "minnow", "Hello", *SHORT))


@test
def run_joins_prompt_and_pipe():
    both = shoal("run", "minnow", "Say", text="Hello", *SHORT)
    must(both == shoal("run", "minnow", text="Say\n\nHello", *SHORT), both)


@test
def run_takes_a_path_and_a_system_message():
    out, _ = shoal("run", TINY, "Hello", *SHORT)
    must(out.endswith("\n"), out)
    other, _ = shoal("run", TINY, "Hello", "--system", "You are a fish.", *SHORT)
    must(other != out, out, other)


@test
def run_stops_before_a_text():
    out, _ = shoal("run", "minnow", "Hello", "--max-tokens", "40", "--seed", "1")
    word = out.strip()[3:6]
    cut, _ = shoal("run", "minnow", "Hello", "--max-tokens", "40", "--seed", "1", "--stop", word)
    must(word not in cut and out.startswith(cut.rstrip("\n")), out, word, cut)


@test
def run_refuses_wrong_values():
    _, err = shoal("run", "minnow", "x", "--temperature", "warm", code=2)
    must("--temperature" in err and "a number" in err and "warm" in err, err)
    _, err = shoal("run", "minnow", "x", "--think", "maybe", code=1)
    must("--think" in err and "maybe" in err, err)
    _, err = shoal("run", "minnow", "x", "--temperature", "-3", code=1)
    must("temperature" in err, err)
    _, err = shoal("run", "minnow", text="", code=2)
    must("empty" in err, err)
    _, err = shoal("run", "minnow", data=b"\xff\xfe\x00", code=2)
    must("UTF-8" in err, err)
    _, err = shoal("run", code=2)
    must("MODEL" in err, err)


@test
def run_says_what_models_there_are():
    _, err = shoal("run", "minow", "x", code=1)
    must("minow" in err and "did you mean minnow?" in err, err)
    _, err = shoal("run", "./none.gguf", "x", code=1)
    must("none.gguf" in err, err)
    bad = os.path.join(HOME, "bad.gguf")
    with open(bad, "w") as f:
        f.write("not a model")
    _, err = shoal("run", bad, "x", code=1)
    must("bad.gguf" in err, err)


@test
def run_on_a_terminal_tells_the_cost():
    t = Terminal("run", "minnow", "Hello", *SHORT)
    t.expect(r"\d+ tokens.*prompt of \d+ tokens")
    must(t.end() == 0, t.seen)


@test
def run_ends_when_nobody_reads():
    reader, writer = os.pipe()
    p = subprocess.Popen([SHOAL, "run", "minnow", "Hello", "--max-tokens", "400"], stdin=subprocess.DEVNULL, stdout=writer,
                         stderr=subprocess.PIPE, env=ENV)
    os.close(writer)
    os.close(reader)
    _, err = p.communicate(timeout=WAIT)
    must(p.returncode == 1 and b"nobody reads" in err, p.returncode, err)


@test
def killed_command_leaves_no_process():
    # a chat that waits for its next turn, with its private node's rank beside it
    p = subprocess.Popen([SHOAL, "chat", TINY, *SHORT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV)
    p.stdin.write(b"Hello\n")
    p.stdin.flush()
    p.stdout.readline()
    ranks = children(p.pid)
    must(len(ranks) == 1, ranks)
    p.kill()
    p.wait()
    p.stdout.close()
    wait_until(lambda: all(gone(r) for r in ranks), "the rank lives on", ranks)


# ---- chat


@test
def chat_by_pipe():
    out, err = shoal("chat", "minnow", *SHORT, text="Hello\n\n/stats\nAnd then?\n")
    must(len(out.splitlines()) >= 2, out)
    must("so far: 1 answer," in err and "\x1b" not in out + err, out, err)
    first, _ = shoal("chat", "minnow", *SHORT, text="Hello")
    must(out.startswith(first) and len(out) > len(first), out, first)


@test
def chat_regenerates_and_clears():
    once, _ = shoal("chat", "minnow", *SHORT, text="Hello\n")
    out, err = shoal("chat", "minnow", *SHORT, text="/regenerate\nHello\n/regenerate\n/clear\nHello\n/exit\nHello\n")
    must(out == 3 * once, out, once)
    must("nothing to answer" in err and "begins anew" in err, err)


@test
def chat_joins_lines():
    block, _ = shoal("chat", "minnow", *SHORT, text='"""\none\ntwo\n"""\n')
    slash, _ = shoal("chat", "minnow", *SHORT, text="one\\\ntwo\n")
    plain, _ = shoal("run", "minnow", *SHORT, text="one\ntwo")
    must(block == slash == plain, block, slash, plain)


@test
def chat_knows_system_messages():
    given, _ = shoal("chat", "minnow", *SHORT, "--system", "A fish.", text="Hello\n")
    said, err = shoal("chat", "minnow", *SHORT, text="/system\n/system A fish.\n/system\nHello\n")
    must(given == said, given, said)
    must("no system message" in err and "A fish." in err, err)


@test
def chat_names_unknown_commands():
    _, err = shoal("chat", "minnow", text="/claer\n", code=1)
    must("/claer" in err and "did you mean /clear" in err, err)
    _, err = shoal("chat", "nobody-has-this", text="x\n", code=1)
    must("nobody-has-this" in err, err)


@test
def chat_says_when_it_is_too_long():
    _, err = shoal("chat", "minnow", text="word " * 20000 + "\n", code=1)
    must("tokens" in err and "/clear" in err, err)


@test
def chat_on_a_terminal():
    t = Terminal("chat", "minnow", *SHORT)
    t.expect("Ctrl-D ends")
    t.expect("> ")
    t.send("/help\r")
    t.expect("/regenerate")
    t.expect("> ")
    t.send("Hello\r")
    t.expect(r"tokens.*prompt of \d+ tokens")
    t.expect("> ")
    ranks = children(t.pid)
    t.send("half a line\x03")
    t.expect("> ")
    t.send("Again\r")
    t.expect(r"tokens.*prompt of \d+ tokens")
    t.expect("> ")
    must(len(ranks) == 1 and children(t.pid) == ranks, "Ctrl-C reached the rank", ranks, children(t.pid))
    t.send("/stats\r")
    t.expect("so far: 2 answers")
    t.expect("> ")
    t.send("\x04")
    must(t.end() == 0, t.seen)
    history = os.path.join(HOME, ".local/state/shoal/chat-history")
    must(os.stat(history).st_mode & 0o777 == 0o600, oct(os.stat(history).st_mode))
    with open(history) as f:
        kept = f.read()
    must("Hello" in kept and "half" not in kept, kept)


@test
def chat_remembers_lines():
    t = Terminal("chat", "minnow", *SHORT)
    t.expect("> ")
    t.send("/system from the history\r")
    t.expect("next turn")
    t.expect("> ")
    t.send("\x04")
    must(t.end() == 0, t.seen)
    t = Terminal("chat", "minnow", *SHORT)
    t.expect("> ")
    t.send("\x1b[A")
    t.expect("from the history")
    t.send("\r")
    t.expect("next turn")
    t.send("/exit\r")
    must(t.end() == 0, t.seen)


@test
def chat_without_colour():
    t = Terminal("chat", "minnow", *SHORT, env={"NO_COLOR": "1"})
    t.expect("> ")
    t.send("Hello\r")
    t.expect(r"prompt of \d+ tokens")
    t.send("/exit\r")
    must(t.end() == 0, t.seen)
    must(not re.search(r"\x1b\[[0-9;]*m", t.seen), t.seen)


@test
def terminated_chat_ends():
    t = Terminal("chat", "minnow", *SHORT)
    t.expect("> ")
    os.kill(t.pid, signal.SIGTERM)
    must(t.end() == 143, t.seen)


# ---- list, show, paths, doctor


@test
def list_shows_all_places():
    own = os.path.join(HOME, ".local/share/shoal/models")
    hub = os.path.join(HOME, ".cache/huggingface/hub/models--org--Thing-GGUF/snapshots/0123")
    os.makedirs(own)
    os.makedirs(hub)
    shutil.copy(TINY, own + "/mine.gguf")
    shutil.copy(TINY, hub + "/thing-Q8_0.gguf")
    out, _ = shoal("list")
    lines = out.splitlines()
    must(lines[0].split() == ["NAME", "ORIGIN", "SIZE", "MODIFIED"] and "minnow" in lines[1], out)
    must(any(l.startswith("mine ") and " shoal " in l for l in lines), out)
    must(any(l.startswith("org/Thing-GGUF:Q8_0 ") and " huggingface " in l for l in lines), out)
    models = {m["name"]: m for m in json.loads(shoal("list", "--json")[0])}
    must(models["mine"]["bytes"] == os.path.getsize(TINY) and models["mine"]["source"] == own + "/mine.gguf", models)
    out, _ = shoal("run", "org/thing-gguf", "Hello", *SHORT)
    must(len(out) > 1, out)


@test
def list_fits_the_terminal():
    own = os.path.join(HOME, ".local/share/shoal/models")
    os.makedirs(own, exist_ok=True)
    with open(f"{own}/{'long-' * 20}.gguf", "w"):
        pass
    t = Terminal("list", columns=50)
    must(t.end() == 0, t.seen)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", l) for l in t.seen.splitlines()]
    must(any("…" in l for l in lines) and max(map(len, lines)) <= 50, lines)
    must("…" not in shoal("list")[0])


@test
def show_tells_the_card():
    out, _ = shoal("show", TINY)
    must("family" in out and "llama" in out and "Q8_0" in out and "tokenizer" in out, out)
    card = json.loads(shoal("show", TINY, "--json")[0])
    must(card["family"] == "llama" and card["layers"] == 2 and card["vocabulary"] == 331, card)
    must(card["weight_bytes"] > 0 and card["state_bytes_per_token"] > 0 and card["source"] == TINY, card)
    _, err = shoal("show", "mynnow", code=1)
    must("did you mean minnow" in err, err)
    _, err = shoal("show", "minnow", "mine", code=2)
    must("mine" in err and "too much" in err, err)


@test
def paths_are_told():
    out, _ = shoal("paths")
    must(HOME + "/.config/shoal/shoal.conf" in out and "not there" in out, out)
    told = json.loads(shoal("paths", "--json")[0])
    must(told["data"] == HOME + "/.local/share/shoal" and len(told["models"]) >= 4, told)
    other = json.loads(shoal("paths", "--json", env={"XDG_DATA_HOME": "/elsewhere"})[0])
    must(other["data"] == "/elsewhere/shoal", other)


@test
def doctor_explains_the_machine():
    out, _ = shoal("doctor")
    for word in ("cores", "portable", "self-test passed", "in use", "GB/s", "descriptors", "52415", "memory"):
        must(word in out, word, out)
    told = json.loads(shoal("doctor", "--json")[0])
    must(told["cores"] >= 1 and told["read_bytes_per_s"] > 0 and told["numerics"] == "exact/1", told)
    must(sum(k["in_use"] for k in told["kernels"]) == 1 and all(k["passed"] for k in told["kernels"] if k["runs"]), told)


# ---- with a node


class Node:
    def __init__(self, *args):
        self.p = subprocess.Popen([SHOAL, "serve", "--port", "0", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV)
        line = self.p.stdout.readline().decode()
        found = re.search(r"http://\S+?:(\d+)", line)
        must(found, line, "" if found else self.p.stderr.read())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.p.send_signal(signal.SIGTERM)
        self.p.communicate(timeout=WAIT)


@test
def ps_without_a_node():
    _, err = shoal("ps", code=1)
    must("no node is running" in err and "shoal serve" in err, err)


@test
def commands_use_the_running_node():
    private, _ = shoal("run", "minnow", "Hello", *SHORT)
    with Node() as node:
        out, _ = shoal("ps")
        must("no model is loaded" in out, out)
        out, _ = shoal("run", "minnow", "Hello", *SHORT)
        must(out == private, out, private)
        out, _ = shoal("ps")
        must("NAME" in out and re.search(r"minnow +ready", out), out)
        told = json.loads(shoal("ps", "--json")[0])
        must(len(told["models"]) == 1 and told["models"][0]["requests"] == 0, told)
        must(len(children(node.p.pid)) == 1, children(node.p.pid))
        _, err = shoal("chat", *SHORT, text="Hello\n/stats\n")
        must("the running node" in err, err)
        os.chdir(os.path.dirname(TINY))
        out, _ = shoal("run", "./tiny-q8_0.gguf", "Hello", *SHORT)
        os.chdir("/")
        must(len(out) > 1, out)
        _, err = shoal("run", "nothing-of-that-name", "x", code=1)
        must("nothing-of-that-name" in err, err)
        must("running at" in shoal("doctor")[0])
        for words, why in ((["--draft", "no-such-draft"], "no-such-draft"), (["--kv", "q4_0"], "q4_0"), (["--shares", "1,1"], "2 shares")):
            _, err = shoal("run", "minnow", "Hello", *SHORT, *words, code=1)  # a node that is up has settled these
            must(why in err, words, err)
    _, err = shoal("ps", code=1)
    must("no node" in err, err)


@test
def keys_are_wanted_and_given():
    with Node("--api-key", "first,second"):
        _, err = shoal("ps", code=1)
        must("--api-key" in err, err)
        shoal("ps", "--api-key", "second")
        out, _ = shoal("run", "minnow", "Hello", *SHORT, env={"SHOAL_API_KEY": "first,second"})
        must(len(out) > 1, out)


@test
def stale_node_file_is_no_node():
    state = os.path.join(HOME, ".local/state/shoal")
    os.makedirs(state, exist_ok=True)
    for text in ('{"pid": 1, "url": "http://localhost:1"}', '{"pid": 1, "url": "file:///etc/passwd"}', "nonsense", "", "[]"):
        with open(state + "/node.json", "w") as f:
            f.write(text)
        _, err = shoal("ps", code=1)
        must("no node is running" in err, text, err)
    out, _ = shoal("run", "minnow", "Hello", *SHORT)
    must(len(out) > 1, out)
    os.remove(state + "/node.json")


# ---- with a node that does as it is told


class Played(http.server.BaseHTTPRequestHandler):
    """A node that answers a turn by its text: the cases that a model does not produce on demand."""

    protocol_version = "HTTP/1.1"
    asked, left = [], []

    def log_message(self, *_):
        pass

    def reply(self, code, body):
        raw = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self):
        self.reply(200, {"status": "ok"})

    def raw(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, value):
        self.raw(b"data: " + json.dumps(value).encode() + b"\n\n")

    def piece(self, finish=None, **delta):
        self.event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        turn = body["messages"][-1]["content"]
        Played.asked.append(body)
        if turn == "refuse":
            self.reply(429, {"error": {"message": "the queue is \x1b[31mfull", "code": "busy"}})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self.play(turn)
        except (BrokenPipeError, ConnectionResetError):
            Played.left.append(turn)
            self.close_connection = True

    def play(self, turn):
        if turn == "load":
            self.raw(b": loading 42%\n\n")
        while turn == "silence":
            self.raw(b": ping\n\n")
            time.sleep(0.05)
        if turn == "think":
            self.piece(reasoning_content="let me ")
            self.piece(reasoning_content="see")
        while turn == "endless":
            self.piece(content="word ")
            time.sleep(0.05)
        if turn == "fail":
            self.piece(content="so far")
            self.event({"error": {"message": "the rank died", "code": "x"}})
            self.raw(b"data: [DONE]\n\n")
        if turn == "break":
            self.piece(content="so far")
            self.close_connection = True
            return
        if turn == "rubbish":
            self.raw(b"data: {nonsense\n\n")
        texts = {"markdown": ["# Ti", "tle\nsome **str", "ong** and `co", "de`, 2*3\n``", "`py\nx = 1\n``", "`\nend"],
                 "escape": ["a\x1b[2Jb\u009b31mc\x07d"]}
        for text in texts.get(turn, ["fine"]):
            self.piece(content=text)
        self.piece(finish="stop")
        self.event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5,
                                             "prompt_tokens_details": {"cached_tokens": 3}}})
        self.raw(b"data: [DONE]\n\n")
        self.raw(b"")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # clients that leave


class PlayedNode:
    def __enter__(self):
        Played.asked, Played.left = [], []
        self.server = Server(("127.0.0.1", 0), Played)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.file = os.path.join(HOME, ".local/state/shoal/node.json")
        os.makedirs(os.path.dirname(self.file), exist_ok=True)
        with open(self.file, "w") as f:
            json.dump({"pid": 1, "url": f"http://127.0.0.1:{self.server.server_port}"}, f)
        return self

    def __exit__(self, *_):
        os.remove(self.file)
        self.server.shutdown()
        self.server.server_close()


@test
def interrupted_chat_goes_on():
    with PlayedNode():
        t = Terminal("chat")
        for turn in ("endless", "silence", "endless"):
            t.expect("> ")
            t.send(turn + "\r")
            wait_until(lambda: Played.asked and Played.asked[-1]["messages"][-1]["content"] == turn, turn)
            if turn == "endless":
                t.expect("word word")
            n = len(Played.left)
            t.send("\x03")
            t.expect("stopped")
            wait_until(lambda: len(Played.left) > n, "the node was not told")
        t.expect("> ")
        t.send("again\r")
        t.expect("fine.*prompt of 7 tokens, 3 of them known")
        t.expect("> ")
        t.send("\x04")
        must(t.end() == 0, t.seen)
        told = [m["content"] for m in Played.asked[-1]["messages"]]
        # what was shown is remembered, the turn that got no answer is not
        must(told[0] == "endless" and told[1].startswith("word word") and told[2] == "endless" and told[-1] == "again", told)
        must("silence" not in told, told)


@test
def pasted_lines_are_one_turn():
    with PlayedNode():
        t = Terminal("chat", env={"LC_ALL": "C"})
        t.expect("> ")
        t.send("é: \x1b[200~one\r  two\rthree\x1b[201~!\r")
        t.expect("fine")
        t.expect("> ")
        t.send("\x1b[200~half\x03")
        t.expect("> ")
        t.send("/exit\r")
        must(t.end() == 0, t.seen)
        must([m["content"] for m in Played.asked[-1]["messages"]] == ["é: one\n  two\nthree!"], Played.asked[-1])


@test
def doctor_names_who_has_the_port():
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", 52415))
        except OSError:
            return  # somebody else really has it
        s.listen()
        out, _ = shoal("doctor")
        must(f"pid {os.getpid()}" in out and "--port" in out, out)
        must(str(os.getpid()) in json.loads(shoal("doctor", "--json")[0])["port"]["state"])


@test
def interrupted_pipes_end():
    with PlayedNode():
        for command in (["run", "minnow", "endless"], ["chat"]):
            p = subprocess.Popen([SHOAL, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV)
            p.stdin.write(b"" if command[0] == "run" else b"endless\n")
            p.stdin.close() if command[0] == "run" else p.stdin.flush()
            must(p.stdout.read(9) == b"word word")
            p.send_signal(signal.SIGINT)
            p.wait(WAIT)
            p.stdout.close()
            p.stdin.close()
            must(p.returncode == 130, command, p.returncode)


@test
def reasoning_is_dimmed_or_hidden():
    with PlayedNode():
        must(shoal("run", "minnow", "think") == ("fine\n", ""))
        must(shoal("run", "minnow", "think", "--think", "on") == ("fine\n", "let me see"))
        must(Played.asked[-1]["chat_template_kwargs"] == {"enable_thinking": True}, Played.asked[-1])
        must(shoal("run", "minnow", "think", "--think", "off") == ("fine\n", ""))
        t = Terminal("run", "minnow", "think")
        must(t.end() == 0 and "\x1b[2mlet me see\x1b[0m\r\n\r\nfine\r\n" in t.seen, t.seen)
        t = Terminal("run", "minnow", "think", "--think", "off")
        must(t.end() == 0 and "let me" not in t.seen, t.seen)


@test
def markdown_is_coloured_on_a_terminal_only():
    plain = "# Title\nsome **strong** and `code`, 2*3\n```py\nx = 1\n```\nend\n"
    with PlayedNode():
        must(shoal("run", "minnow", "markdown") == (plain, ""))
        t = Terminal("run", "minnow", "markdown")
        must(t.end() == 0, t.seen)
        shown = t.seen.replace("\r\n", "\n")
        must(re.sub(r"\x1b\[[0-9;]*m", "", shown).startswith(plain), shown)
        for coloured in ("\x1b[1m# Title\x1b[0m\n", "\x1b[1m**strong**\x1b[0m", "\x1b[36m`code`\x1b[0m", "\x1b[36m\nx = 1",
                         "```\x1b[0m\nend"):
            must(coloured in shown, coloured, shown)
        t = Terminal("run", "minnow", "markdown", env={"NO_COLOR": "1"})
        must(t.end() == 0 and "\x1b" not in t.seen, t.seen)


@test
def models_cannot_speak_to_the_terminal():
    with PlayedNode():
        t = Terminal("run", "minnow", "escape")
        must(t.end() == 0 and "a?[2Jb?31mc?d" in t.seen, t.seen)
        must(shoal("run", "minnow", "escape")[0] == "a\x1b[2Jb\u009b31mc\x07d\n")
        _, err = shoal("run", "minnow", "refuse", code=1)
        must("the queue is ?[31mfull" in err, err)


@test
def loading_is_shown():
    with PlayedNode():
        t = Terminal("run", "minnow", "load")
        must(t.end() == 0 and "loading minnow: 42%" in t.seen and "\r\x1b[Kfine" in t.seen, t.seen)
        must(shoal("run", "minnow", "load") == ("fine\n", ""))


@test
def failures_of_a_node_are_told():
    with PlayedNode():
        out, err = shoal("run", "minnow", "fail", code=1)
        must(out == "so far\n" and "the rank died" in err, out, err)
        out, err = shoal("run", "minnow", "break", code=1)
        must(out == "so far\n" and "broke" in err, out, err)
        _, err = shoal("run", "minnow", "rubbish", code=1)
        must("no JSON" in err, err)
        out, err = shoal("chat", text="fail\nfine\n", code=1)
        must(out == "so far\nfine\n" and "the rank died" in err, out, err)
        must([m["content"] for m in Played.asked[-1]["messages"]] == ["fine"], Played.asked[-1])


@test
def options_are_sent():
    with PlayedNode():
        shoal("run", "minnow", "x", "--temperature", "0.5", "--top-p", "0.9", "--top-k", "40", "--min-p", "0.05", "--seed", "7",
              "--max-tokens", "9", "--stop", "END", "--system", "Be brief.")
        q = Played.asked[-1]
        must([m["role"] for m in q["messages"]] == ["system", "user"] and q["model"] == "minnow" and q["stream"] is True, q)
        must((q["temperature"], q["top_p"], q["top_k"], q["min_p"], q["seed"], q["max_tokens"], q["stop"]) ==
             (0.5, 0.9, 40, 0.05, 7, 9, "END"), q)
        shoal("run", "minnow", "x", "--max-tokens", "0")
        must(set(Played.asked[-1]) == {"model", "messages", "stream", "stream_options"}, Played.asked[-1])
        shoal("chat", text="x\n")
        must("model" not in Played.asked[-1], Played.asked[-1])


# ---- several ranks


@test
def cut_models_say_the_same():
    ids = os.path.join(HOME, "ids.json")
    with open(ids, "w") as f:
        json.dump([(i * 37) % 250 for i in range(20)], f)
    args = ("logits", TINY, "--tokens", ids, "--full", "--greedy", "6", "--threads", "1")
    whole, _ = shoal(*args)
    for cut in (["2"], ["2", "--link", "tls"], ["3", "--shares", "5,2,1"], ["2", "--mode", "pipeline"],
                ["4", "--mode", "2x2", "--link", "loop"], ["2", "--link-latency-us", "300", "--link-gbit", "0.5"],
                ["4", "--mode", "2x2", "--link", "tls", "--link-latency-us", "200"]):
        must(shoal(*args, "--ranks", *cut)[0] == whole, cut)
    answer = shoal("run", "minnow", "What is 12 + 30?", "--max-tokens", "12", "--temperature", "0")[0]
    must(shoal("run", "minnow", "What is 12 + 30?", "--max-tokens", "12", "--temperature", "0", "--ranks", "2")[0] == answer)
    out, _ = shoal("bench", TINY, "--ranks", "2", "--threads", "1", "--prompt", "8", "--gen", "4", "--reps", "1", "--json")
    must(json.loads(out)["decode_tokens_per_s"] > 0, out)


@test
def drafts_of_cut_models_say_the_same():
    args = ("run", "minnow", "What is the capital of France?", "--max-tokens", "24", "--seed", "5")
    for temperature in ("0", "1"):
        whole = shoal(*args, "--temperature", temperature)[0]
        for draft in ("ngram", "minnow"):
            for cut in (["2"], ["3", "--shares", "5,2,1"], ["2", "--mode", "pipeline", "--link", "tls"]):
                said = shoal(*args, "--temperature", temperature, "--draft", draft, "--ranks", *cut)[0]
                must(said == whole, temperature, draft, cut, said, whole)


@test
def cuts_that_cannot_be_are_refused():
    ids = os.path.join(HOME, "ids.json")
    with open(ids, "w") as f:
        json.dump([1, 2, 3], f)
    for words, code, why in ((["--ranks", "3", "--mode", "pipeline"], 1, "3 stages"), (["--ranks", "0"], 1, "--ranks 0"),
                             (["--ranks", "3", "--mode", "2x2"], 1, "4 ranks"), (["--ranks", "2", "--shares", "1,x"], 1, "'x'"),
                             (["--ranks", "2", "--shares", "1"], 1, "1 shares"), (["--ranks", "2", "--link", "wire"], 1, "wire"),
                             (["--ranks", "65"], 1, "64"), (["--ranks", "2", "--link-gbit", "1e-9"], 1, "--link-gbit"),
                             (["--ranks", "2", "--link-latency-us", "-1"], 1, "--link-latency-us"),
                             (["--ranks", "2", "--shares", "1,1,1"], 1, "3 shares, but --ranks says 2"),
                             (["--shares", "5,2,1"], 1, "3 shares, but --ranks says 1"), (["--ranks", "2", "--shares", "0,0"], 1, "all 0"),
                             (["--ranks", "4", "--mode", "2x2", "--shares", "1,2,0,0"], 1, "stage 2 of 2"),
                             (["--mode", "pipeline"], 1, "--ranks N says how many"), (["--link", "tls"], 1, "--ranks N says how many")):
        _, err = shoal("logits", TINY, "--tokens", ids, *words, code=code)
        must(why in err, words, err)
    shoal("logits", TINY, "--tokens", ids, env={"SHOAL_LINK": "tls"})  # a habit of a machine, not a wish for this command


@test
def engines_that_cannot_be_are_refused_at_once():
    """Before a node says that it is ready, whatever command starts the engine."""
    ids = os.path.join(HOME, "ids.json")
    with open(ids, "w") as f:
        json.dump([1, 2, 3], f)
    for words, why in ((["--isa", "sse9"], "'sse9'"), (["--threads", "0"], "expected 1 to 1024")):
        for command in (["serve", "--port", "0"], ["run", "minnow", "hi"], ["logits", TINY, "--tokens", ids]):
            out, err = shoal(*command, *words, code=1)
            must(why in err and not out, command, words, out, err)
    _, err = shoal("doctor", "--isa", "sse9", code=1)
    must("'sse9'" in err and "portable" in err, err)
    told = json.loads(shoal("doctor", "--json", "--isa", "portable")[0])
    must([k["name"] for k in told["kernels"] if k["in_use"]] == ["portable"], told["kernels"])
    for words in (["--shares", "0,0"], ["--draft", "nothing-of-that-name"], ["--kv", "q4_0"]):
        out, err = shoal("serve", "--port", "0", "--ranks", "2", *words, code=1)
        must(words[0] in err and not out, words, out, err)


# ---- wrong calls


@test
def embedding_models_say_what_they_are_for():
    bert = os.path.join(ROOT, "tests/data/embed/bert-f32.gguf")
    tokens = os.path.join(HOME, "tokens.json")
    with open(tokens, "w") as f:
        f.write("[5, 6]")
    out, _ = shoal("show", bert)
    must(re.search(r"embeds +vectors of 64, pooling: cls", out), out)
    must(json.loads(shoal("show", "--json", bert)[0])["pooling"] == "cls")
    for command in (["run", bert, "hi"], ["logits", "--tokens", tokens, bert], ["bench", "--depth", "0", "--prompt", "16", bert]):
        _, err = shoal(*command, code=1)
        must("embedding model" in err, command, err)


@test
def wrong_calls_are_explained():
    _, err = shoal("lst", code=2)
    must("lst" in err and "did you mean list" in err, err)
    _, err = shoal("list", "--jsn", code=2)
    must("--jsn" in err and "did you mean --json" in err, err)
    _, err = shoal("list", "extra", code=2)
    must("extra" in err, err)
    _, err = shoal("show", code=2)
    must("MODEL" in err, err)
    out, _ = shoal("run", "--help")
    must("--temperature" in out and "PROMPT" in out, out)


class Skipped(Exception):
    pass


@test
def full_output_is_told():
    if not os.path.exists("/dev/full"):
        raise Skipped("/dev/full is not here")
    ids = os.path.join(HOME, "ids.json")
    with open(ids, "w") as f:
        f.write("[1, 2, 3]")
    said = b'{"messages": [{"role": "user", "content": "hi"}]}'
    for command in (["list"], ["list", "--json"], ["show", "minnow"], ["paths"], ["doctor"], ["--help"], ["--version"], ["run", "--help"],
                    ["completions", "bash"], ["completions", "man"], ["tokenize", "minnow"], ["render", "minnow"], ["plan"],
                    ["logits", "minnow", "--tokens", ids], ["run", "minnow", "Hello", *SHORT],
                    ["bench", "minnow", "--prompt", "8", "--gen", "4", "--reps", "1"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([SHOAL, *command], input=said, stdout=full, stderr=subprocess.PIPE, env=ENV, timeout=WAIT)
        must(done.returncode == 1 and b"cannot be written" in done.stderr, command, done.returncode, done.stderr)


FULL = """
set -e
mount -t tmpfs -o size=64k,mode=700 tmpfs "$HOME"
mkdir -p "$HOME/.local/state/shoal"
printf 'an old line\n' > "$HOME/.local/state/shoal/chat_history"
dd if=/dev/zero of="$HOME/filler" bs=1k 2> /dev/null || true
exec "$@"
"""


@contextlib.contextmanager
def on_a_full_disk(*command):
    """A command whose HOME is a file system of its own with not a byte left."""
    home = tempfile.mkdtemp(prefix="shoal-full-")
    p = subprocess.Popen(["unshare", "-rm", "sh", "-c", FULL, "full", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, env={**ENV, "HOME": home})
    try:
        yield p
    finally:
        p.kill()
        p.communicate()
        os.rmdir(home)


def done_on_a_full_disk(*command, text=""):
    with on_a_full_disk(*command) as p:
        out, err = p.communicate(text, timeout=WAIT)
        return p.returncode, out, err


@test
def full_disk_under_home():
    if not shutil.which("unshare") or done_on_a_full_disk("true")[0] != 0:
        raise Skipped("no file system can be mounted in a namespace of one's own")
    code, out, err = done_on_a_full_disk("sh", "-c", "echo more > $HOME/.local/state/shoal/more")
    must(code != 0, code, out, err)
    code, out, err = done_on_a_full_disk(SHOAL, "run", "minnow", "What is 12 + 30?", "--temperature", "0")
    must(code == 0 and "42" in out, code, out, err)
    code, out, err = done_on_a_full_disk(SHOAL, "chat", "minnow", *SHORT, text="Hello\n")
    must(code == 0 and len(out) > 3, code, out, err)
    code, out, err = done_on_a_full_disk(SHOAL, "doctor")
    must("only 0 B are free" in out, code, out, err)
    with on_a_full_disk(SHOAL, "serve", "minnow", "--port", "0") as p:
        said = p.stdout.readline()
        must("is ready at" in said, said)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=WAIT)
        must("No space" in err and p.returncode == 0, p.returncode, err)


def main():
    passed = failed = 0
    wanted = sys.argv[1:]
    for f in TESTS:
        if wanted and f.__name__ not in wanted:
            continue
        try:
            f()
            print(f"ok {f.__name__}", flush=True)
            passed += 1
        except Skipped as e:
            print(f"skip {f.__name__}: {e}", flush=True)
        except Exception as e:  # a hang or a crash of one command is one failure
            print(f"not ok {f.__name__}: {type(e).__name__} {e}"[:2500].replace("\n", " "), flush=True)
            failed += 1
    shutil.rmtree(HOME, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main())
