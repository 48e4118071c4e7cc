#!/usr/bin/env python3
"""A real `shoal serve` (variable SHOAL) spoken to in raw HTTP: many streams at once, clients that vanish, a rank that is killed, bad
requests, ports and folders that are taken, models that come and go. Lines `ok NAME` or `not ok NAME: why`; no time is asserted, waiting is
bounded so that a hang fails. Python 3 standard library only."""
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODELS = os.path.join(ROOT, "tests/data/models")
TINY = os.path.join(MODELS, "tiny-q8_0.gguf")
WAIT_S = 300
failed = []


class Node:
    """`shoal serve` with folders of its own, unless it is given those of another."""

    def __init__(self, *arguments, home=None, port=0):
        self.own_home = home is None
        self.home = home or tempfile.mkdtemp(prefix="shoal-e2e-")
        environment = {"PATH": os.environ["PATH"], "HOME": self.home}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "SHOAL_ISA"):
            if name in os.environ:
                environment[name] = os.environ[name]
        self.process = subprocess.Popen([os.environ["SHOAL"], "serve", "--port", str(port), *arguments], env=environment,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        start_new_session=True)
        self.said, self.port, self.arrived = "", None, threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.arrived:
                self.said += line.decode("utf-8", "replace")
                found = re.search(r"ready at http://\S+:(\d+)", self.said)
                if found:
                    self.port = int(found[1])
                self.arrived.notify_all()
        with self.arrived:
            self.port = self.port or -1
            self.arrived.notify_all()

    def ready(self):
        with self.arrived:
            self.arrived.wait_for(lambda: self.port, WAIT_S)
        assert self.port and self.port > 0, f"serve is not ready: {self.said}"
        return self

    def wait(self):
        """Its exit code; for nodes that are to refuse or to end."""
        code = self.process.wait(WAIT_S)
        self.reader.join(WAIT_S)
        return code

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.wait()
        finally:
            self.process.kill()
            if self.own_home:
                shutil.rmtree(self.home, ignore_errors=True)
        assert code == 0, f"serve ended with {code}: {self.said[-3000:]}"

    def request(self, method, path, body=None, headers=None, host="127.0.0.1"):
        """(status, headers, text)"""
        connection = http.client.HTTPConnection(host, self.port, timeout=WAIT_S)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode("utf-8")
        finally:
            connection.close()

    def post(self, path, body):
        code, _, text = self.request("POST", path, body)
        return code, json.loads(text)

    def status(self):
        return json.loads(self.request("GET", "/v1/status")[2])

    def stream(self, body, path="/v1/completions"):
        """An open connection whose answer has begun, and the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        connection.request("POST", path, json.dumps(body))
        return connection, connection.getresponse()

    def idle(self):
        state = self.status()
        return state["requests"]["live"] == 0 and all(m["live_sequences"] == 0 and m["waiting"] == 0 for m in state["models"])


@contextlib.contextmanager
def running(*arguments, **options):
    node = Node(*arguments, **options).ready()
    try:
        yield node
    finally:
        node.stop()


def until(what, condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)


def events(answer):
    """The data of every event of a stream, "[DONE]" as it is."""
    for line in answer:
        line = line.decode("utf-8").rstrip("\n")
        if line.startswith("data: "):
            yield line[6:] if line == "data: [DONE]" else json.loads(line[6:])


def endless(**more):
    return {"prompt": "x", "max_tokens": 1800, "ignore_eos": True, "stream": True, **more}


# ---- tests over one node --------------------------------------------------------------------------------------------


def concurrent_streams(node):
    """32 at once, one with the longest prompt that fits; each says what it says alone."""
    longest = [65 + i % 26 for i in range(2048 - 24)]
    bodies = [{"prompt": f"number {i}", "max_tokens": 24, "seed": i, "ignore_eos": True} for i in range(31)]
    bodies.append({"prompt": longest, "max_tokens": 24, "seed": 99, "ignore_eos": True})
    alone = [node.post("/v1/completions", body)[1]["choices"][0]["text"] for body in bodies]
    together, errors = [None] * len(bodies), []

    def one(i):
        try:
            _, answer = node.stream({**bodies[i], "stream": True})
            assert answer.status == 200, answer.status
            got = list(events(answer))
            assert got[-1] == "[DONE]", got[-1]
            together[i] = "".join(event["choices"][0]["text"] for event in got[:-1])
        except Exception as error:  # pylint: disable=broad-except
            errors.append(f"{i}: {error!r}")

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not errors, errors[0]
    different = [i for i in range(len(bodies)) if together[i] != alone[i]]
    assert not different, f"request {different[0]}: {together[different[0]]!r} together, {alone[different[0]]!r} alone"
    until("idle", node.idle)


def vanished_client(node):
    """Streams and whole answers whose clients close; also one that only half-closes is gone."""
    before = node.status()["requests"]["cancelled"]
    connection, answer = node.stream(endless())
    next(events(answer))
    answer.close()
    connection.close()
    raw = socket.create_connection(("127.0.0.1", node.port), timeout=WAIT_S)
    body = json.dumps({**endless(), "stream": False}).encode()
    raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    until("two requests", lambda: node.status()["requests"]["cancelled"] > before and node.status()["requests"]["live"] == 1)
    raw.close()
    until("idle", node.idle)
    assert node.status()["requests"]["cancelled"] == before + 2


def bad_requests(node):
    """Wrong JSON and types over the wire; more of them in tests/unit/test_api.c."""
    message = {"role": "user", "content": "x"}
    tries = [
        (b"{", None), (b"\xff\xfe", None), (b"[1]", None), (b"", None), (b'{"messages":"' + b"[" * 100000, None), (b"[" * 100000, None),
        ({"messages": [message, {"role": "user", "content": 5}]}, "messages[1].content"),
        ({"messages": [message], "stop": [1]}, "stop[0]"),
        ({"messages": [message], "temperature": {}}, "temperature"),
        ({"messages": [message], "n": 1000}, "n"),
    ]
    for body, param in tries:
        code, _, text = node.request("POST", "/v1/chat/completions", body)
        error = json.loads(text)["error"]
        assert code == 400, f"{str(body)[:60]}: {code}"
        assert error["type"] == "invalid_request_error" and error["param"] == param, f"{str(body)[:60]}: {error}"
    code, _, text = node.request("POST", "/v1/chat/completions", b"x" * (33 << 20))
    assert code == 413, code
    assert "error" in json.loads(text)


def long_prompt(node):
    """10 MB of text: refused, with how many tokens it is too long."""
    code, answer = node.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 2000000}], "stream": True})
    assert code == 400 and answer["error"]["code"] == "context_length_exceeded", answer
    found = re.search(r"has (\d+) tokens, (\d+) too many", answer["error"]["message"])
    assert found and 0 < int(found[2]) < int(found[1]), answer
    code, answer = node.post("/v1/completions", {"prompt": "short", "max_tokens": 2})
    assert code == 200, answer


def unknown_model(node):
    code, answer = node.post("/v1/chat/completions", {"model": "gpt-9", "messages": [{"role": "user", "content": "x"}]})
    assert code == 404 and answer["error"]["code"] == "model_not_found", answer
    assert "gpt-9" in answer["error"]["message"] and "minnow" in answer["error"]["message"], answer


def other_dialects(node):
    """What this version does not speak is told by what it does."""
    for path in ("/v1/messages", "/api/chat", "/v1/responses"):
        code, answer = node.post(path, {"model": "minnow", "messages": [{"role": "user", "content": "x"}]})
        assert code == 404 and answer["error"]["code"] == "unknown_url" and "POST /v1/chat/completions" in answer["error"]["message"], answer


def foreign_host(node):
    assert node.request("GET", "/v1/models", headers={"Host": "evil.example"})[0] == 403
    assert node.request("GET", "/v1/models", headers={"Origin": "https://evil.example"})[0] == 403
    code, headers, _ = node.request("GET", "/v1/models", headers={"Origin": "http://localhost:3000"})
    assert code == 200 and headers["Access-Control-Allow-Origin"], headers


def killed_rank(node):
    """The stream ends with an error event, the next request is answered by a new rank."""
    _, answer = node.stream(endless())
    stream = events(answer)
    next(stream)
    os.kill(node.status()["models"][0]["pid"], signal.SIGKILL)
    got = list(stream)
    assert "error" in got[-1], got[-1]
    assert re.search(r"ended \(signal 9", got[-1]["error"]["message"]), got[-1]
    code, after = node.post("/v1/completions", {"prompt": "again", "max_tokens": 3, "ignore_eos": True})
    assert code == 200 and after["usage"]["completion_tokens"] == 3, after
    assert node.status()["models"][0]["restarts"] >= 1
    # not streamed: a status that says so
    result = []
    thread = threading.Thread(target=lambda: result.append(node.post("/v1/completions", {**endless(n=32), "stream": False})))
    thread.start()
    until("it runs", lambda: any(m["requests"] for m in node.status()["models"]))
    os.kill(node.status()["models"][0]["pid"], signal.SIGKILL)
    thread.join(WAIT_S)
    assert result and result[0][0] == 502 and "signal 9" in result[0][1]["error"]["message"], result
    # the second death in a row: a stream hears that the model is being loaded, then is answered
    connection, answer = node.stream({**endless(), "max_tokens": 3})
    lines = answer.read().decode("utf-8").split("\n")
    connection.close()
    assert lines[-3] == "data: [DONE]", lines
    comments = [line for line in lines if line.startswith(": loading ")]
    restarts = node.status()["models"][0]["restarts"]
    while not comments:  # the longer the pause, the surer the comment
        assert restarts < 5, restarts
        os.kill(node.status()["models"][0]["pid"], signal.SIGKILL)
        until("it is seen", lambda: node.status()["models"][0]["restarts"] > restarts)
        restarts += 1
        connection, answer = node.stream({**endless(), "max_tokens": 3})
        comments = [line for line in answer.read().decode("utf-8").split("\n") if line.startswith(": loading ")]
        connection.close()


def two_models(node):
    """A second model is loaded on demand, beside the first, and named in the answer."""
    other = os.path.join(MODELS, "h24-8-q4_0.gguf")
    code, answer = node.post("/v1/completions", {"model": other, "prompt": "x", "max_tokens": 2})
    assert code == 200 and answer["model"] == other, answer
    assert len(node.status()["models"]) == 2, node.status()
    code, answer = node.post("/v1/completions", {"prompt": "x", "max_tokens": 2})
    assert code == 200 and answer["model"] == TINY, answer


# ---- tests with nodes of their own -----------------------------------------------------------------------------------


def taken_port():
    with running() as node:
        other = Node(port=node.port)
        code = other.wait()
        shutil.rmtree(other.home)
        assert code == 1 and f"127.0.0.1:{node.port}" in other.said and "in use" in other.said, other.said


def taken_folder():
    with running() as node:
        with open(os.path.join(node.home, ".local/state/shoal/node.json"), encoding="utf-8") as file:
            known = json.load(file)
        assert known == {"pid": node.process.pid, "url": f"http://localhost:{node.port}"}, known
        other = Node(home=node.home)
        assert other.wait() == 1 and f"pid {node.process.pid}" in other.said, other.said
        assert "data folder" in other.said, other.said
        assert node.request("GET", "/health")[0] == 200
        state = os.path.join(node.home, ".local/state/shoal/node.json")
        node.process.send_signal(signal.SIGINT)
        assert node.wait() == 0
        assert not os.path.exists(state), "node.json is still there"


def idle_model_leaves():
    with running(TINY, "--keep-alive", "1s") as node:
        code, answer = node.post("/v1/completions", {"prompt": "x", "max_tokens": 2})
        assert code == 200, answer
        pid = node.status()["models"][0]["pid"]
        until("the model is unloaded", lambda: node.status()["models"] == [])
        until("its process is gone", lambda: not os.path.exists(f"/proc/{pid}") or sys.platform != "linux")
        code, answer = node.post("/v1/completions", {"prompt": "x", "max_tokens": 2})
        assert code == 200, answer


def full_queue():
    """More requests than may wait: 429 with Retry-After, the others are answered."""
    with running(TINY, "--max-queue", "1") as node:
        node.post("/v1/completions", {"prompt": "x", "max_tokens": 1})
        held = [node.stream(endless(n=32))]
        until("the engine is full", lambda: node.status()["models"][0]["live_sequences"] == 32)
        threads, codes = [], []

        def one():
            code, headers, text = node.request("POST", "/v1/completions", {"prompt": "y", "max_tokens": 1})
            codes.append((code, headers["Retry-After"], json.loads(text)))

        for _ in range(4):
            threads.append(threading.Thread(target=one))
            threads[-1].start()
        until("three are refused", lambda: len(codes) >= 3)
        for connection, answer in held:
            answer.close()
            connection.close()
        for thread in threads:
            thread.join(WAIT_S)
        assert sorted(code for code, _, _ in codes) == [200, 429, 429, 429], codes
        for code, retry, answer in codes:
            if code == 429:
                assert int(retry) >= 1 and answer["error"]["code"] == "queue_full", (retry, answer)


def end_with_live_requests():
    """Ctrl-C, which all processes of the group get, lets a request finish; a second signal does not wait."""
    with running(TINY) as node:
        connection, answer = node.stream({**endless(), "max_tokens": 100})
        next(events(answer))
        os.killpg(node.process.pid, signal.SIGINT)
        got = list(events(answer))
        assert got[-1] == "[DONE]", got[-1]
        connection.close()
        assert node.wait() == 0, node.said
    with running(TINY) as node:
        connection, answer = node.stream(endless(n=8))
        next(events(answer))
        node.process.send_signal(signal.SIGTERM)
        until("it ends", lambda: "ending" in node.said)
        node.process.send_signal(signal.SIGTERM)
        assert node.wait() == 0, node.said
        connection.close()


def refusals():
    """Options that cannot be: exit code and text."""
    tries = [
        (["--listen", "0.0.0.0"], "--api-key"), (["--kv", "f64"], "f16"), (["--max-queue", "0"], "--max-queue"),
        (["/nowhere/model.gguf"], "/nowhere/model.gguf"), (["no-such-model"], "minnow"), (["--threads", "x"], "--threads"),
    ]
    for arguments, said in tries:
        node = Node(*arguments)
        code = node.wait()
        shutil.rmtree(node.home)
        assert code in (1, 2) and said in node.said, f"{arguments}: {code} {node.said}"


def answers(node):
    """Of some requests, greedy and sampled: what they say, and how many guesses were checked and stood."""
    said, accepted, rejected = [], 0, 0
    for i in range(4):
        body = {"prompt": "one two three one two three " * (i + 1), "max_tokens": 120, "ignore_eos": True, "seed": i, "n": 1 + i % 2,
                "temperature": 0.8 if i % 2 else 0, "logprobs": 2}
        answer = node.post("/v1/completions", body)[1]
        said.append([(c["text"], c["logprobs"]["token_logprobs"]) for c in answer["choices"]])
        details = answer["usage"]["completion_tokens_details"]
        accepted += details["accepted_prediction_tokens"]
        rejected += details["rejected_prediction_tokens"]
    return said, accepted, rejected


def drafts():
    """--draft changes no answer, is counted everywhere, and a draft model of another vocabulary is refused."""
    with running(TINY) as node:
        plain, accepted, rejected = answers(node)
        assert (accepted, rejected) == (0, 0), (accepted, rejected)
    for guesser in ("ngram", TINY):
        with running(TINY, "--draft", guesser) as node:
            said, accepted, rejected = answers(node)
            assert said == plain, f"--draft {guesser}: the answers differ"
            requests = node.status()["requests"]
            assert requests["accepted_tokens"] == accepted and requests["drafted_tokens"] == accepted + rejected, requests
            assert f"shoal_accepted_tokens_total {accepted}\n" in node.request("GET", "/metrics")[2]
            assert guesser == "ngram" or accepted > rejected, f"{accepted} of {accepted + rejected} guesses of the model itself stood"
    node = Node(TINY, "--draft", os.path.join(MODELS, "h16-4-q6_k.gguf"))
    code = node.wait()
    shutil.rmtree(node.home)
    assert code == 1 and "vocabulary" in node.said, f"{code} {node.said}"


def forms_of_cut_models():
    """response_format over ranks and with drafts: the answers of the uncut model, which are of the form; prefixes are found again."""
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "sure": {"type": "boolean"}},
              "required": ["city", "sure"], "additionalProperties": False}
    question = "one two three " * 20 + "What is the capital of France?"
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}

    def ask(node):
        said = []
        for i in range(3):
            answer = node.post("/v1/chat/completions", {"messages": [{"role": "user", "content": question}], "seed": i,
                                                        "temperature": i / 2, "max_tokens": 80, "logprobs": True, "response_format": form})[1]
            choice = answer["choices"][0]
            said.append((choice["message"]["content"], choice["finish_reason"], choice["logprobs"]))
            value = json.loads(choice["message"]["content"])
            assert sorted(value) == ["city", "sure"] and isinstance(value["sure"], bool) and len(value["city"]) <= 20, value
        return said

    whole = None
    for cut in ([], ["--ranks", "2"], ["--ranks", "2", "--mode", "pipeline", "--link", "tls"]):
        for draft in ([], ["--draft", "ngram"], ["--draft", "minnow"]):
            with running("minnow", *cut, *draft) as node:
                said = ask(node)
                whole = whole or said
                assert said == whole, f"{cut} {draft}: {said}, expected {whole}"
                requests = node.status()["requests"]
                assert requests["cached_tokens"] > 0, requests
                assert requests["drafted_tokens"] > 0 if "minnow" in draft else bool(draft) or requests["drafted_tokens"] == 0, (draft, requests)


def small_keys_and_values():
    """--kv q8_0 takes little more than half the state of f16, and says so."""
    sizes = {}
    for kv in ("f16", "q8_0"):
        with running(TINY, "--kv", kv) as node:
            node.post("/v1/completions", {"prompt": "x", "max_tokens": 8})
            model = node.status()["models"][0]
            assert model["kv"] == kv, model
            sizes[kv] = model["state_bytes"]
    assert 0.5 < sizes["q8_0"] / sizes["f16"] < 0.6, sizes


def own_address():
    """An address of this machine that is not loopback; None when it has no network."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect(("192.0.2.1", 9))  # sends nothing, asks only for the way there
            return s.getsockname()[0]
    except OSError:
        return None


def paths_from_elsewhere():
    """Other machines may name models, and paths only of what is loaded."""
    host = own_address()
    if not host or host.startswith("127."):
        print("skip serve: paths from elsewhere: this machine has no address but loopback", flush=True)
        return
    folder = tempfile.mkdtemp(prefix="shoal-path-")
    other = os.path.join(folder, "other.gguf")
    shutil.copyfile(TINY, other)
    with contextlib.ExitStack() as ending, running(TINY, "--listen", "0.0.0.0", "--api-key", "secret") as node:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        keys = {"Authorization": "Bearer secret"}

        def ask(model, at):
            code, _, text = node.request("POST", "/v1/completions", {"model": model, "prompt": "a", "max_tokens": 1}, keys, at)
            return code, text

        assert ask(TINY, host)[0] == 200, "what the node was started with"
        assert ask("minnow", host)[0] == 200
        code, text = ask(other, host)
        assert code == 404 and "from this machine itself" in text, text
        assert ask("/etc/passwd", host) == ask("/no/such/file", host), "says nothing of what is there"
        assert ask(other, "127.0.0.1")[0] == 200


def run(name, function, *arguments):
    try:
        function(*arguments)
        print(f"ok serve: {name}", flush=True)
    except Exception as error:  # pylint: disable=broad-except
        failed.append(name)
        why = " ".join(f"{type(error).__name__} {error}".split())
        print(f"not ok serve: {name}: {why[:2000]}", flush=True)


def main():
    shared = [concurrent_streams, vanished_client, bad_requests, long_prompt, unknown_model, other_dialects, foreign_host, killed_rank, two_models]
    own = [taken_port, taken_folder, idle_model_leaves, full_queue, end_with_live_requests, paths_from_elsewhere, refusals, drafts, forms_of_cut_models,
           small_keys_and_values]
    wanted = sys.argv[1:]

    def over_one_node():
        with running(TINY) as node:
            for function in shared:
                if not wanted or function.__name__ in wanted:
                    run(function.__name__, function, node)

    if not wanted or any(function.__name__ in wanted for function in shared):
        run("a node that begins and ends", over_one_node)
    for function in own:
        if not wanted or function.__name__ in wanted:
            run(function.__name__, function)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
