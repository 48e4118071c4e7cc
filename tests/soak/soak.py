#!/usr/bin/env python3
"""Hours of mixed requests against one `shoal serve` (variable SHOAL, meant to be a build under AddressSanitizer): long, short, aborted and malformed
ones from several clients at once. Held afterwards: every answer equals its quiet twin, given alone before; memory is flat; no descriptor and no
thread is left over; nothing but 4xx came for nonsense; the node ends well and the sanitizers have nothing to say.

    SHOAL=build/asan/shoal SOAK_S=3600 tests/soak/soak.py

SOAK_S: seconds (3600); SOAK_CLIENTS: how many at once (6); SOAK_SEED: what they do. Lines `ok NAME` or `not ok NAME: why`, figures before them. No time is
asserted. Deliberately not: ranks that are killed (tests/e2e/test_serve.py) and several machines. Python 3 standard library only."""
import http.client
import json
import os
import random
import socket
import statistics
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
import test_serve as e2e  # pylint: disable=wrong-import-position

SECONDS = float(os.environ.get("SOAK_S", "3600"))
CLIENTS = int(os.environ.get("SOAK_CLIENTS", "6"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
SLACK_KB = 24 << 10  # what a process may gain between the second and the last quarter, beside 5 %
SANITIZER = "quarantine_size_mb=8:malloc_context_size=8:allow_user_segv_handler=0:handle_sigbus=0:detect_leaks=1"


# ---- what is asked ----------------------------------------------------------------------------------------------------


def pool():
    """(path, body) of every request that has a twin."""
    words = "the river runs past an old mill and nobody counts the boats in winter ".split()
    r = random.Random(7)
    sentence = lambda n: " ".join(r.choice(words) for _ in range(n))  # noqa: E731
    out = []
    for i in range(8):
        out.append(("/v1/completions", {"prompt": sentence(4), "max_tokens": 8 + i, "seed": i}))
    for i in range(4):
        out.append(("/v1/completions", {"prompt": sentence(150), "max_tokens": 40, "seed": i, "ignore_eos": True, "temperature": 0.7}))
    for i in range(3):
        out.append(("/v1/completions", {"prompt": "x", "max_tokens": 300, "seed": i, "ignore_eos": True}))
    out.append(("/v1/completions", {"prompt": [65 + i % 26 for i in range(1500)], "max_tokens": 16, "seed": 5, "ignore_eos": True}))
    out.append(("/v1/completions", {"prompt": sentence(20), "max_tokens": 20, "n": 3, "seed": 3, "logprobs": 2, "ignore_eos": True}))
    out.append(("/v1/completions", {"prompt": sentence(9), "max_tokens": 60, "stop": ["e", "\n"], "seed": 11, "ignore_eos": True}))
    out.append(("/v1/completions", {"prompt": sentence(9), "max_tokens": 9, "echo": True, "temperature": 0, "ignore_eos": True}))
    for i in range(4):
        messages = [{"role": "system", "content": sentence(6)}, {"role": "user", "content": sentence(5 + 30 * i)}]
        out.append(("/v1/chat/completions", {"messages": messages, "max_tokens": 24, "seed": i, "frequency_penalty": 0.2 * i}))
    tool = {"type": "function", "function": {"name": "count", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
    chat = {"model": "minnow", "messages": [{"role": "user", "content": "What is a river?"}], "max_tokens": 40, "seed": 1}
    out += [("/v1/chat/completions", chat), ("/v1/chat/completions", {**chat, "tools": [tool], "top_p": 0.9, "seed": 2})]
    return out


def of_choice(choice):
    """What must be equal of one choice of a whole answer."""
    message = choice.get("message")
    calls = [(c["function"]["name"], c["function"]["arguments"]) for c in (message or {}).get("tool_calls") or []]
    return [choice.get("text") if message is None else message.get("content") or "", calls, choice["finish_reason"], choice.get("logprobs")]


def whole(node, path, body):
    code, _, text = node.request("POST", path, body)
    answer = json.loads(text)
    assert code == 200, f"{code}: {text[:200]}"
    usage = answer["usage"]
    choices = [of_choice(c) for c in sorted(answer["choices"], key=lambda c: c["index"])]
    return {"choices": choices, "tokens": (usage["prompt_tokens"], usage["completion_tokens"])}


def streamed(node, path, body):
    """Texts of the choices of a stream, joined; only for bodies without logprobs and tools."""
    connection, answer = node.stream({**body, "stream": True}, path)
    try:
        assert answer.status == 200, f"{answer.status}: {answer.read()[:200]}"
        texts, done = {}, False
        for event in e2e.events(answer):
            if event == "[DONE]":
                done = True
                continue
            assert "error" not in event, event
            for choice in event["choices"]:
                piece = choice["text"] if "text" in choice else choice["delta"].get("content") or ""
                texts[choice["index"]] = texts.get(choice["index"], "") + piece
        assert done, "a stream without [DONE]"
        return [texts.get(i, "") for i in range(len(texts))]
    finally:
        connection.close()


# ---- clients ---------------------------------------------------------------------------------------------------------------


class Soak:
    def __init__(self, node, requests, twins):
        self.node, self.requests, self.twins = node, requests, twins
        self.end = time.monotonic() + SECONDS
        self.counts = {"whole": 0, "streamed": 0, "aborted": 0, "malformed": 0, "asked": 0, "stalled": 0}
        self.different, self.wrong, self.lock = [], [], threading.Lock()
        self.stalled_at = -1e9  # when we were last found to have been stopped or starved

    def count(self, kind):
        with self.lock:
            self.counts[kind] += 1

    def answer(self, r):
        i = r.randrange(len(self.requests))
        path, body = self.requests[i]
        twin = self.twins[i]
        if r.random() < 0.5 and not {"logprobs", "tools", "echo"} & set(body):
            got, want, kind = streamed(self.node, path, body), [c[0] for c in twin["choices"]], "streamed"
        else:
            got, want, kind = whole(self.node, path, body), twin, "whole"
        if got != want:
            with self.lock:
                self.different.append(f"{kind} {json.dumps(body)[:120]}: {str(got)[:200]} instead of {str(want)[:200]}")
        self.count(kind)

    def abort(self, r):
        """A client that leaves: while it asks, before the answer, or after some events."""
        path, body = r.choice(self.requests)
        payload = json.dumps({**body, "stream": r.random() < 0.7, "max_tokens": 400, "ignore_eos": True}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", self.node.port), timeout=e2e.WAIT_S) as s:
            data = head + payload
            s.sendall(data[:r.randrange(len(data))] if r.random() < 0.3 else data)
            for _ in range(r.choice((0, 0, 1, 5))):
                s.settimeout(2)
                try:
                    if not s.recv(512):
                        break
                except TimeoutError:
                    break
            if r.random() < 0.5:  # a reset instead of an orderly end
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.count("aborted")

    def malformed(self, r):
        """Nonsense: bytes of a good request changed, cut or repeated, or lines that are no HTTP. 4xx, a closed socket, or 200 when it still made sense."""
        path, body = r.choice(self.requests)
        payload = bytearray(json.dumps({**body, "max_tokens": 4}).encode())
        for _ in range(r.randrange(1, 6)):
            at = r.randrange(len(payload))
            payload[at:at + r.randrange(3)] = r.choice((b"", b"\xff", b"[[", b'"', b"1e999", b"null", b"{", b"\\u0000", bytes([r.randrange(256)])))
        if r.random() < 0.3:
            payload = payload[:r.randrange(len(payload) + 1)]
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\nConnection: close\r\n\r\n".encode()
        data = head + bytes(payload)
        if r.random() < 0.3:
            at = r.randrange(len(head))
            data = head[:at] + bytes(r.randrange(256) for _ in range(4)) + head[at + 2:] + bytes(payload)
        with socket.create_connection(("127.0.0.1", self.node.port), timeout=e2e.WAIT_S) as s:
            s.settimeout(5)  # a head that asks for more than comes waits for us: we leave
            try:
                s.sendall(data)
                first = s.recv(64)
            except (TimeoutError, ConnectionError):
                first = b""
        code = first[9:12]
        if first and (not first.startswith(b"HTTP/1.1 ") or code[:1] not in (b"2", b"4")):
            with self.lock:
                self.wrong.append(f"{bytes(data[:200])!r} is answered {first!r}")
        self.count("malformed")

    def ask(self, r):
        path = r.choice(("/v1/models", "/v1/status", "/metrics", "/health", "/nothing", "/v1/models/tiny", "/api/tags"))
        code, _, _ = self.node.request("GET", path)
        if code >= 500:
            with self.lock:
                self.wrong.append(f"GET {path}: {code}")
        if r.random() < 0.3:
            self.node.request("DELETE", f"/v1/requests/{r.randrange(1 << 30)}")
        self.count("asked")

    def client(self, number):
        r = random.Random(SEED * 1000 + number)
        while time.monotonic() < self.end:
            act, began = r.choices((self.answer, self.abort, self.malformed, self.ask), (60, 15, 15, 10))[0], time.monotonic()
            try:
                act(r)
            except (AssertionError, OSError, http.client.HTTPException, ValueError, KeyError) as error:
                time.sleep(2)  # until `heart` has seen a stall
                if isinstance(error, (OSError, http.client.HTTPException)) and self.stalled_at > began:
                    self.count("stalled")  # the server rightly gave up on a client that said nothing for so long
                    continue
                with self.lock:
                    self.wrong.append(f"{act.__name__}: {error!r}"[:400])

    def heart(self):
        """Notes when this process could not run: debuggers, other people's load and SIGSTOP do that."""
        last = time.monotonic()
        while time.monotonic() < self.end:
            time.sleep(0.5)
            now = time.monotonic()
            if now - last > 5:
                self.stalled_at = now
            last = now


# ---- what is watched --------------------------------------------------------------------------------------------------------


def processes(node):
    return {"node": node.process.pid, **{m["name"].rsplit("/", 1)[-1]: m["pid"] for m in node.status()["models"] if m.get("pid")}}


def look(pid):
    """(resident KB, descriptors, threads)"""
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        fields = dict(line.split(":", 1) for line in f)
    return int(fields["VmRSS"].split()[0]), len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"])


def watch(pids, soak, samples):
    while time.monotonic() < soak.end:
        for name, pid in pids.items():
            try:
                samples[name].append(look(pid))
            except OSError:
                soak.wrong.append(f"{name}, process {pid}, is gone")
                soak.end = 0
                return
        time.sleep(max(0.5, SECONDS / 400))


def flat(rows):
    """None, or how much it grew: the medians of the second and the last quarter."""
    quarter = len(rows) // 4
    early, late = (statistics.median(row[0] for row in part) for part in (rows[quarter:2 * quarter], rows[3 * quarter:]))
    return None if late <= early * 1.05 + SLACK_KB else f"{early} KB in the second quarter, {late} KB in the last"


def say(name, why):
    print(f"not ok {name}: {why}" if why else f"ok {name}")
    return 1 if why else 0


def run(node):
    requests = pool()
    node.post("/v1/chat/completions", {"model": "minnow", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1})
    twins = [whole(node, path, body) for path, body in requests]
    e2e.until("idle", node.idle)
    time.sleep(1)
    pids = processes(node)
    before = {name: look(pid) for name, pid in pids.items()}
    soak, samples = Soak(node, requests, twins), {name: [] for name in pids}
    threads = [threading.Thread(target=soak.client, args=(i,)) for i in range(CLIENTS)]
    threads += [threading.Thread(target=watch, args=(pids, soak, samples)), threading.Thread(target=soak.heart)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    e2e.until("idle", node.idle)
    after = {}

    def settled():
        after.update({name: look(pid) for name, pid in pids.items()})
        return all(after[name][1] <= before[name][1] and after[name][2] <= before[name][2] for name in pids)

    end = time.monotonic() + 60  # sockets of clients that left without a word close when their time is up
    while not settled() and time.monotonic() < end:
        time.sleep(0.5)
    print(f"soak: {SECONDS:.0f} s, {CLIENTS} clients, " + ", ".join(f"{n} {kind}" for kind, n in soak.counts.items()))
    for name, rows in samples.items():
        print(f"soak: {name}: resident {before[name][0]} KB before, {max(r[0] for r in rows)} at most, {after[name][0]} after; descriptors "
              f"{before[name][1]}, {max(r[1] for r in rows)}, {after[name][1]}; threads {before[name][2]}, {max(r[2] for r in rows)}, {after[name][2]}")
    failed = say("every answer equals its quiet twin", soak.different and f"{len(soak.different)} differ: {soak.different[0]}")
    failed += say("nonsense is refused and nothing else fails", soak.wrong and f"{len(soak.wrong)}: {soak.wrong[0]}")
    failed += say("memory is flat", "; ".join(f"{name}: {grown}" for name, rows in samples.items() if (grown := flat(rows))))
    failed += say("no descriptor and no thread is left over", "; ".join(
        f"{name}: {before[name][1:]} before, {after[name][1:]} after" for name in pids if any(a > b for a, b in zip(after[name][1:], before[name][1:]))))
    return failed


def main():
    if not os.path.isdir("/proc/self"):
        print("skip soak: what it watches is read from /proc")
        return 0
    os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", SANITIZER)
    node = e2e.Node(e2e.TINY, "--keep-alive", "never").ready()
    why, failed = "", 1
    try:
        failed = run(node)
    finally:
        try:
            node.stop()
        except AssertionError as error:
            why = str(error)[-2000:]
    found = [line for line in node.said.splitlines() if "Sanitizer" in line or "runtime error" in line]
    failed += say("the node ends well and the sanitizers are silent", why or (found and found[0]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
