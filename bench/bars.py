#!/usr/bin/env python3
"""The bars of speed on one machine: each is measured as a ratio, printed with what it has to reach, and kept in bench/results/bars.csv.

    bench/bars.py [--quick] [--only decode,prompt,…] [--types Q4_0,…] [--reps 5]

--quick: Q4_0 alone, three turns. Models are random ones of the shape of Llama 3.2 1B, made by tools/random_model.py when they are missing
and kept in the user's cache folder (about 8 GB with all types). What counts:

  decode    bytes of weights a token × tokens/s ÷ read bandwidth of the same turn, context under 100, per type and threads
  prompt    2 × multiply-adds × tokens/s of 512 tokens ÷ int8 peak of the same turn (float types: f32 peak)
  context   (weights + K/V bytes) × tokens/s at 4,096 tokens ÷ bandwidth
  batch     tokens/s of 8 sequences at once ÷ of one
  shared    decode with two threads beside a busy loop ÷ alone
  one-core  two ranks on one core ÷ one rank on it
  load      seconds from a cold process to the first token; memory beyond the weights
  fixed     tokens/s of a model of a million parameters
  http      tokens/s of a streamed answer ÷ shoal bench
  sample    microseconds to choose among 128,256 logits

Peers are measured by bench/peers/. A bar that does not hold is said to, and the exit status stays 0: this measures, tests judge.
"""
import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
from measuring import BUILD, SHOAL, Probe, Table, Turns, between, children_of, median, shoal_bench, shoal_bench_end, shoal_bench_start  # noqa: E402
from random_model import SHAPES, model_file  # noqa: E402

FLOATS = ("F16", "BF16", "F32")
MIB = 1 << 20


class Run:
    def __init__(self, options):
        self.reps, self.types, self.options = options.reps, options.types, options
        self.table = Table("bars", ("bar", "what", "value", "needed", "holds", "rate", "limit", "note"), 2)
        self.probe_mib, self.probe = 0, None
        self.missed = 0

    def probe_for(self, model):
        """A footprint of at least the model's and three times the last cache."""
        need = max(1024, os.path.getsize(model) // MIB + 1)
        if need > self.probe_mib:
            self.close()
            self.probe, self.probe_mib = Probe(need), need
        return self.probe

    def close(self):
        if self.probe:
            self.probe.close()
        self.probe, self.probe_mib = None, 0

    def say(self, bar, what, value, needed, note="", at_most=False, rate="", limit=""):
        """rate, limit: what the ratio is made of, where it is of tokens/s and of the machine's GB/s or 10^9 operations/s."""
        holds = value <= needed if at_most else value >= needed
        self.missed += not holds
        sign, verdict = "≤" if at_most else "≥", "holds" if holds else "MISSED"
        print(f"{bar:<9} {what:<44} {value:9.3f}  {sign} {needed:<7g} {verdict:<7} {note}", flush=True)
        self.table.put(bar, what, float(value), f"{sign} {needed:g}", "yes" if holds else "no", rate, limit, note)
        self.table.save()


def spread(values):
    return f"{min(values):.3f}–{max(values):.3f}"


def multiply_adds(shape):
    """Of one prompt token in the layers' matrices: the output head is computed for the last one only, attention is not counted."""
    s = SHAPES[shape]
    return s["L"] * (2 * s["D"] ** 2 + 2 * s["D"] * s["D"] // s["H"] * s["G"] + 3 * s["D"] * s["F"])


# ---- bars 1 to 3: one model, alone ----------------------------------------------------------------------------------------------------


def decode(run):
    for kind in run.types:
        model = model_file("llama-1b", kind)
        probe = run.probe_for(model)
        for threads in (1, 2):
            turns = Turns(run.reps, (probe.process.pid,))
            gen = 32 if kind in FLOATS else 48
            results = turns.take(lambda: between(probe, threads, lambda: shoal_bench(model, threads, "--prompt", 0, "--gen", gen, "--reps", 1)))
            shares = [r["decode_tokens_per_s"] * r["weight_bytes_per_token"] / 1e9 / limit[0] for r, limit in results]
            rate, read = median([r["decode_tokens_per_s"] for r, _ in results]), median([limit[0] for _, limit in results])
            note = f"{rate:.1f} tok/s, {read:.1f} GB/s, {spread(shares)} {turns.note()}"
            run.say("decode", f"{kind}, {threads} threads, of the bandwidth", median(shares), 0.85, note.strip(), rate=rate, limit=read)


def prompt(run):
    for kind in run.types:
        model = model_file("llama-1b", kind)
        probe = run.probe_for(model_file("llama-1b", run.types[0]))
        needed = 0.6 if kind in FLOATS else 0.35 if kind == "Q4_K_M" else 0.45
        for threads in (1, 2):
            turns = Turns(run.reps, (probe.process.pid,))
            results = turns.take(lambda: between(probe, threads, lambda: shoal_bench(model, threads, "--prompt", 512, "--gen", 0, "--reps", 1)))
            rates = [r["prompt_tokens_per_s"] for r, _ in results]
            peaks = [limit[2 if kind in FLOATS else 1] for _, limit in results]
            shares = [2e-9 * multiply_adds("llama-1b") * rate / peak for rate, peak in zip(rates, peaks)]
            peak = "f32" if kind in FLOATS else "int8"
            note = f"{median(rates):.0f} tok/s, peak {median(peaks):.0f} GOP/s, {spread(shares)} {turns.note()}"
            run.say("prompt", f"{kind}, {threads} threads, of the {peak} peak", median(shares), needed, note.strip(), rate=median(rates), limit=median(peaks))


def context(run):
    model = model_file("llama-1b", "Q4_0")
    probe = run.probe_for(model)
    for threads in (1, 2):
        turns = Turns(run.reps, (probe.process.pid,))
        options = ("--prompt", 0, "--depth", 4096, "--gen", 16, "--reps", 1)
        results = turns.take(lambda: between(probe, threads, lambda: shoal_bench(model, threads, *options)))
        shares = []
        for r, limit in results:
            bytes_a_token = r["weight_bytes_per_token"] + r["kv_bytes_per_token"] * 4104
            shares.append(r["decode_tokens_per_s"] * bytes_a_token / 1e9 / limit[0])
        rate = median([r["decode_tokens_per_s"] for r, _ in results])
        run.say("context", f"4,096 tokens, {threads} threads, of the bandwidth", median(shares), 0.75, f"{rate:.1f} tok/s, {spread(shares)} {turns.note()}".strip())


def batch(run):
    model = model_file("llama-1b", "Q4_0")
    for threads in (1, 2):

        def once():
            one = shoal_bench(model, threads, "--prompt", 0, "--gen", 32, "--reps", 1)["decode_tokens_per_s"]
            return one, shoal_bench(model, threads, "--prompt", 0, "--gen", 24, "--reps", 1, "--sequences", 8)["decode_tokens_per_s"]

        turns = Turns(run.reps)
        results = turns.take(once)
        ratios = [many / one for one, many in results]
        rate = median([m for _, m in results])
        note = f"{rate:.0f} tok/s of {median([o for o, _ in results]):.1f}, {spread(ratios)} {turns.note()}"
        run.say("batch", f"8 sequences, {threads} threads, of one", median(ratios), 5.0, note.strip(), rate=rate)


# ---- bar 4: not alone -------------------------------------------------------------------------------------------------------------------


def shared(run):
    model = model_file("llama-1b", "Q4_0")

    def once():
        alone = shoal_bench(model, 2, "--prompt", 0, "--gen", 48, "--reps", 1)["decode_tokens_per_s"]
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        beside = shoal_bench(model, 2, "--prompt", 0, "--gen", 48, "--reps", 1)["decode_tokens_per_s"]
        busy.kill()
        busy.wait()
        return alone, beside

    turns = Turns(run.reps)
    ratios = [beside / alone for alone, beside in turns.take(once)]
    run.say("shared", "decode, 2 threads, beside a busy loop", median(ratios), 0.6, f"{spread(ratios)} {turns.note()}".strip())


def one_core(run):
    model = model_file("llama-1b", "Q4_0")
    options = ("--prompt", 0, "--gen", 32, "--reps", 3)
    cut = "--ranks" in subprocess.run([SHOAL, "help", "bench"], capture_output=True, text=True).stdout

    def once():
        one = shoal_bench(model, 1, *options, core=0)["decode_tokens_per_s"]
        if cut:
            return one, shoal_bench(model, 1, *options, "--ranks", 2, core=0)["decode_tokens_per_s"]
        pair = [shoal_bench_start(model, 1, *options, core=0) for _ in range(2)]
        return one, sum(shoal_bench_end(p)["decode_tokens_per_s"] for p in pair)

    turns = Turns(run.reps)
    ratios = [two / one for one, two in turns.take(once)]
    what = "a model in two ranks on one core, of one rank" if cut else "two models on one core, of one"
    run.say("one-core", what, median(ratios), 0.9, f"{spread(ratios)} {turns.note()}".strip())


# ---- bar 5: load --------------------------------------------------------------------------------------------------------------------------


def status_bytes(pid, field):
    try:
        with open(f"/proc/{pid}/status") as f:
            return int(re.search(rf"{field}:\s+(\d+)", f.read())[1]) * 1024
    except (OSError, TypeError):
        return 0


def load_once(model):
    """(seconds until the first byte of an answer, peak of the resident memory of each process, added)"""
    peaks, done = {}, threading.Event()
    home = tempfile.TemporaryDirectory(prefix="shoal-bench-")
    began = time.monotonic()
    environment = {"PATH": os.environ["PATH"], "HOME": home.name}
    p = subprocess.Popen([SHOAL, "run", model, "hello", "--max-tokens", "2", "--temperature", "0"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment)

    def watch():
        while not done.wait(0.02):
            for pid in [p.pid] + children_of(p.pid):
                peaks[pid] = max(peaks.get(pid, 0), status_bytes(pid, "VmHWM"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    first = os.read(p.stdout.fileno(), 1)
    seconds = time.monotonic() - began
    p.stdout.read()
    p.wait()
    done.set()
    watcher.join()
    home.cleanup()
    if p.returncode or not first:
        raise SystemExit(f"shoal run failed: {p.returncode}")
    return seconds, sum(peaks.values())


def load(run):
    model = model_file("llama-1b", "Q4_0")
    with open(model, "rb") as f:  # into the page cache
        while f.read(16 * MIB):
            pass
    weights = shoal_bench(model, 2, "--prompt", 0, "--gen", 1, "--reps", 1)["weight_bytes_per_token"]
    turns = Turns(run.reps)
    results = turns.take(lambda: load_once(model))
    seconds = [s for s, _ in results]
    run.say("load", "cold process to first token, 0.7 GB, seconds", median(seconds), 1.2, f"{spread(seconds)} {turns.note()}".strip(), at_most=True)
    beyond = [(peak - weights) / 1e6 for _, peak in results]
    run.say("load", "peak memory beyond the weights, MB", median(beyond), 150, "all processes, resident", at_most=True)


# ---- bar 6: what a token costs beside the weights -------------------------------------------------------------------------------------------


def fixed(run):
    model = model_file("tiny-1m", "Q8_0")
    for threads in (1, 2):
        turns = Turns(run.reps)
        rates = turns.take(lambda: shoal_bench(model, threads, "--prompt", 0, "--gen", 500, "--reps", 3)["decode_tokens_per_s"])
        run.say("fixed", f"1 M parameters, {threads} threads, tokens/s", median(rates), 8000, f"{min(rates):.0f}–{max(rates):.0f} {turns.note()}".strip())


class Server:
    def __init__(self, model):
        self.home = tempfile.TemporaryDirectory(prefix="shoal-bench-")
        environment = {"PATH": os.environ["PATH"], "HOME": self.home.name}
        self.process = subprocess.Popen([SHOAL, "serve", "--port", "0", model], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.process.stdout:
            found = re.search(r"ready at http://\S+:(\d+)", line)
            if found:
                self.port = int(found[1])
                break
        else:
            raise SystemExit("shoal serve is not ready")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        self.connection.request("GET", "/v1/models")
        self.model = json.loads(self.connection.getresponse().read())["data"][0]["id"]

    def tokens_per_s(self, n):
        """Of a streamed answer, from the first token to the last."""
        body = {"model": self.model, "messages": [{"role": "user", "content": "hello"}], "stream": True, "max_tokens": n, "temperature": 0}
        self.connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response, stamps = self.connection.getresponse(), []
        if response.status != 200:
            raise SystemExit(f"shoal serve answers {response.status}: {response.read()[:300]}")
        for line in response:
            if line.startswith(b"data: {") and b'"content":' in line:
                stamps.append(time.monotonic())
        response.read()
        return len(stamps), (stamps[-1] - stamps[0]) if len(stamps) > 1 else 0.0

    def close(self):
        self.connection.close()
        self.process.terminate()
        self.process.wait()
        self.home.cleanup()


def through_http(run):
    model, n = model_file("llama-1b", "Q4_0"), 64
    server = Server(model)
    server.tokens_per_s(8)

    def once():
        bare = shoal_bench(model, 2, "--prompt", 0, "--gen", n, "--reps", 1)["decode_tokens_per_s"]
        events, seconds = server.tokens_per_s(n)
        if events < n // 2:
            raise SystemExit(f"the answer has {events} events of {n}")
        return ((events - 1) / seconds) / bare

    turns = Turns(run.reps, [server.process.pid] + children_of(server.process.pid))
    ratios = turns.take(once)
    server.close()
    run.say("http", "streamed answer, 1B, of shoal bench", median(ratios), 0.98, f"{spread(ratios)} {turns.note()}".strip())


def sampling(run):
    said = subprocess.run([os.path.join(BUILD, "bench_sample")], capture_output=True, text=True, check=True).stdout
    kind = ""
    for line in said.splitlines():
        if line.endswith(" logits"):
            kind = line.split()[0]
        found = re.match(r"  (\S.*?)\s+median\s+(\d+) us", line)
        if found:
            run.say("sample", f"{kind}: {found[1]}, us", float(found[2]), 100, at_most=True)


BARS = {
    "decode": decode, "prompt": prompt, "context": context, "batch": batch, "shared": shared, "one-core": one_core,
    "load": load, "fixed": fixed, "http": through_http, "sample": sampling,
}  # fmt: skip


def main():
    p = argparse.ArgumentParser(description="bars of speed on one machine")
    p.add_argument("--quick", action="store_true", help="Q4_0 alone, three turns")
    p.add_argument("--only", default=",".join(BARS), help="bars, commas between")
    p.add_argument("--types", default="Q4_0,Q8_0,Q4_K_M,F16,BF16")
    p.add_argument("--reps", type=int, default=5)
    o = p.parse_args()
    if o.quick:
        o.types, o.reps = "Q4_0", 3
    o.types = o.types.split(",")
    run = Run(o)
    for name in o.only.split(","):
        if name not in BARS:
            sys.exit(f"bars.py: no bar '{name}'; there are {', '.join(BARS)}")
        BARS[name](run)
    run.close()
    print(f"{run.missed} bars missed" if run.missed else "all of these bars hold")


if __name__ == "__main__":
    main()
