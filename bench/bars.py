#!/usr/bin/env python3
"""The bars of speed on one machine: each is measured as a ratio, printed with what it has to reach, and kept in bench/results/bars.csv.

    bench/bars.py [--quick] [--only decode,prompt,…] [--types Q4_0,…] [--reps 5] [--resume] [--seconds N] [--patience N] [--summary]

--resume goes on where a run of the same programs was cut off (every turn is kept in a checkpoint beside the build: see turns.py); --seconds ends it
before N seconds are over; --patience N puts every turn off while others use the machine, N seconds at most; --summary measures nothing and prints what
there is. --quick: Q4_0 alone, three turns. Models are random ones of the shape of Llama 3.2 1B, made by tools/random_model.py when they are missing and
kept in the user's cache folder (about 8 GB with all types). What counts:

  decode    bytes of weights a token × tokens/s ÷ read bandwidth of the same turn, context under 100, per type and threads
  prompt    2 × multiply-adds × tokens/s of 512 tokens ÷ int8 peak of the same turn (float types: f32 peak)
  context   (weights + K/V bytes) × tokens/s at 4,096 tokens ÷ bandwidth
  batch     tokens/s of 8 sequences at once ÷ of one
  shared    decode with two threads, or two ranks, beside a busy loop ÷ alone
  pair      two ranks, one held to half its pace: decode with shares that the planner makes of both profiles ÷ with equal ones
  one-core  two ranks on one core ÷ one rank on it
  load      seconds from a cold process to the first token; memory beyond the weights
  fixed     tokens/s of a model of a million parameters
  http      tokens/s of a streamed answer ÷ shoal bench
  drafts    tokens/s with guesses ÷ without, on text that repeats itself and on text that does not
  sample    microseconds to choose among 128,256 logits
  membw … text                   of parts: parts.py
  peers                          beside other engines: peers/peers.py

A bar that does not hold is said to, and the exit status stays 0: this measures, tests judge.
"""
import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "tools"), os.path.join(HERE, "peers")]
import parts  # noqa: E402
import peers  # noqa: E402
from measuring import BUILD, ROOT, SHOAL, Probe, Table, Unable, between, calm, children_of, median, output_of, program, shoal_bench, spread  # noqa: E402
from random_model import FILE_TYPES, SHAPES, model_file  # noqa: E402
from turns import Checkpoint, Driver, Row, Unit, build_hash, commit_name, of_threads, summary  # noqa: E402

FLOATS = ("F16", "BF16", "F32")
MIB = 1 << 20
COLUMNS = ("bar", "what", "value", "needed", "holds", "rate", "limit", "note", "commit")


class Machine:
    """Options, and the probe of the machine's limits, which several units use one after the other."""

    def __init__(self, options):
        self.options, self.probe, self.probe_mib = options, None, 0

    def probe_for(self, model):
        """A footprint of at least the model's and three times the last cache."""
        need = max(1024, os.path.getsize(model) // MIB + 1)
        if need > self.probe_mib:
            self.close()
            self.probe, self.probe_mib = Probe(need), need
        return self.probe

    def pids(self):
        return [self.probe.process.pid] if self.probe else []

    def close(self):
        if self.probe:
            self.probe.close()
        self.probe, self.probe_mib = None, 0


def column(results, name):
    return [r[name] for r in results]


def multiply_adds(shape):
    """Of one prompt token in the layers' matrices: the output head is computed for the last one only, attention is not counted."""
    s = SHAPES[shape]
    return s["L"] * (2 * s["D"] ** 2 + 2 * s["D"] * s["D"] // s["H"] * s["G"] + 3 * s["D"] * s["F"])


# ---- bars 1 to 3: one model, alone ----------------------------------------------------------------------------------------------------


def decode_share(results, needed, what):
    """A row of results {"rate", "bytes", "read", "onlooker"}: the share of the bandwidth."""
    shares = [r["rate"] * r["bytes"] / 1e9 / r["read"] for r in results]
    seen = median([r["rate"] * r["bytes"] / 1e9 / r["onlooker"] for r in results])
    rate, read = median(column(results, "rate")), median(column(results, "read"))
    note = f"{rate:.1f} tok/s, {read:.1f} GB/s, {spread(shares)}; {seen:.2f} by an onlooker's clock"
    return Row(what, median(shares), needed, note=note, rate=rate, limit=read)


def decode(machine, kind, threads):
    gen = 32 if kind in FLOATS else 48

    def once(_):
        model = model_file("llama-1b", kind)
        r, limit = between(machine.probe_for(model), threads, lambda: shoal_bench(model, threads, "--prompt", 0, "--gen", gen, "--reps", 1))
        return {"rate": r["decode_tokens_per_s"], "bytes": r["weight_bytes_per_token"], **limit}

    return Unit("decode", f"{kind}, {of_threads(threads)}", once, lambda results: [decode_share(results, 0.85, f"{kind}, {of_threads(threads)}, of the bandwidth")])


def prompt(machine, kind, threads):
    needed = 0.6 if kind in FLOATS else 0.35 if kind == "Q4_K_M" else 0.45
    peak = "f32" if kind in FLOATS else "int8"

    def once(_):
        model = model_file("llama-1b", kind)
        probe = machine.probe_for(model_file("llama-1b", "Q4_0"))
        r, limit = between(probe, threads, lambda: shoal_bench(model, threads, "--prompt", 512, "--gen", 0, "--reps", 1))
        return {"rate": r["prompt_tokens_per_s"], "peak": limit[peak]}

    def rows(results):
        shares = [2e-9 * multiply_adds("llama-1b") * r["rate"] / r["peak"] for r in results]
        rate, limit = median(column(results, "rate")), median(column(results, "peak"))
        note = f"{rate:.0f} tok/s, peak {limit:.0f} GOP/s, {spread(shares)}"
        return [Row(f"{kind}, {of_threads(threads)}, of the {peak} peak", median(shares), needed, note=note, rate=rate, limit=limit)]

    return Unit("prompt", f"{kind}, {of_threads(threads)}", once, rows)


def context(machine, threads):
    def once(_):
        model = model_file("llama-1b", "Q4_0")
        options = ("--prompt", 0, "--depth", 4096, "--gen", 16, "--reps", 1)
        r, limit = between(machine.probe_for(model), threads, lambda: shoal_bench(model, threads, *options))
        return {"rate": r["decode_tokens_per_s"], "bytes": r["weight_bytes_per_token"] + r["kv_bytes_per_token"] * 4104, **limit}

    name = f"4,096 tokens, {of_threads(threads)}"
    return Unit("context", name, once, lambda results: [decode_share(results, 0.75, f"{name}, of the bandwidth")], guess_s=45 / threads)


def batch(machine, threads):
    def once(_):
        model = model_file("llama-1b", "Q4_0")
        one = shoal_bench(model, threads, "--prompt", 0, "--gen", 32, "--reps", 1)["decode_tokens_per_s"]
        return {"one": one, "many": shoal_bench(model, threads, "--prompt", 0, "--gen", 24, "--reps", 1, "--sequences", 8)["decode_tokens_per_s"]}

    def rows(results):
        ratios = [r["many"] / r["one"] for r in results]
        rate = median(column(results, "many"))
        note = f"{rate:.0f} tok/s of {median(column(results, 'one')):.1f}, {spread(ratios)}"
        return [Row(f"8 sequences, {of_threads(threads)}, of one", median(ratios), 5.0, note=note, rate=rate)]

    return Unit("batch", f"{of_threads(threads)}", once, rows)


# ---- bar 4: not alone -------------------------------------------------------------------------------------------------------------------


def shared(name, needed, threads, *options):
    def once(_):
        model, all_options = model_file("llama-1b", "Q4_0"), ("--prompt", 0, "--gen", 48, "--reps", 1, *options)
        alone = shoal_bench(model, threads, *all_options)["decode_tokens_per_s"]
        with peers.BusyLoop():
            return {"alone": alone, "beside": shoal_bench(model, threads, *all_options)["decode_tokens_per_s"]}

    def rows(results):
        ratios = [r["beside"] / r["alone"] for r in results]
        beside, alone = median(column(results, "beside")), median(column(results, "alone"))
        note = f"{beside:.1f} tok/s of {alone:.1f}, {spread(ratios)}"
        return [Row(f"decode, {name}, beside a busy loop", median(ratios), needed, note=note, rate=beside, limit=alone)]

    return Unit("shared", name, once, rows)


def planned_shares(model):
    """What the planner gives two machines that are as quick as the halves of our cores, both at work, one of them for half of its time: measured now."""
    command = [SHOAL, "doctor", "--profile", "--pace", "1,0.5", "--json"]  # 1 when something else is wrong here
    p = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)["profile"]
    if "paced_halves_bytes_per_s" not in p:
        raise Unable("one core has no halves")
    rate = next(t for t in p["types"] if t["type"] == "Q4_0")["multiply_adds_per_s"] / 2
    nodes = [
        {"name": name, "memory": "8G", "measured": True, "reserve_gb": 0, "bandwidth_gb_s": bandwidth / 1e9, "tflops": rate * pace / 0.5e12}
        for name, bandwidth, pace in zip(("whole", "halved"), p["paced_halves_bytes_per_s"], (1, 0.5))
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump({"nodes": nodes, "link": {"latency_us": 5, "gbit_s": 40}}, f)
        f.flush()
        plan = json.loads(output_of([SHOAL, "plan", model, "--cluster", f.name, "--mode", "tensor", "--context", "1k", "--prompt", "64", "--json"]))
    ranks = {r["node"]: r["units"]["feed-forward"] for r in plan["plans"][0]["stages"][0]["ranks"]}
    return ranks["whole"], ranks["halved"]


def pair():
    def once(_):
        model, options = model_file("llama-1b", "Q4_0"), ("--prompt", 0, "--gen", 48, "--reps", 1, "--ranks", 2, "--pace", "1,0.5")
        shares = planned_shares(model)
        equal = shoal_bench(model, 1, *options)["decode_tokens_per_s"]
        planned = shoal_bench(model, 1, *options, "--shares", "%d,%d" % shares)["decode_tokens_per_s"]
        return {"equal": equal, "planned": planned, "share": shares[0] / sum(shares)}

    def rows(results):
        ratios = [r["planned"] / r["equal"] for r in results]
        planned, equal = median(column(results, "planned")), median(column(results, "equal"))
        note = f"{planned:.1f} tok/s of {equal:.1f}, {spread(ratios)}; the quick one has {median(column(results, 'share')):.3f}"
        return [Row("two ranks, one at half its pace, shares from profiles, of equal ones", median(ratios), 1.4, note=note, rate=planned, limit=equal)]

    return Unit("pair", "2:1", once, rows)


def one_core(machine):
    def once(_):
        model, options = model_file("llama-1b", "Q4_0"), ("--prompt", 0, "--gen", 32, "--reps", 3)
        one = shoal_bench(model, 1, *options, core=0)["decode_tokens_per_s"]
        return one, shoal_bench(model, 1, *options, "--ranks", 2, core=0)["decode_tokens_per_s"]

    def rows(results):
        ratios = [two / one for one, two in results]
        note = f"{median([two for _, two in results]):.1f} tok/s of {median([one for one, _ in results]):.1f}, {spread(ratios)}"
        return [Row("a model in two ranks on one core, of one rank", median(ratios), 0.9, note=note)]

    return Unit("one-core", "two ranks", once, rows)


# ---- bar 5: load --------------------------------------------------------------------------------------------------------------------------


def status_bytes(pid, field):
    try:
        with open(f"/proc/{pid}/status") as f:
            return int(re.search(rf"{field}:\s+(\d+)", f.read())[1]) * 1024
    except (OSError, TypeError):
        return 0


def own_home(home):
    return {"PATH": os.environ["PATH"], "HOME": home.name}


def load_once(model):
    """(seconds until the first byte of an answer, peak of the resident memory of each process, added)"""
    peaks, done = {}, threading.Event()
    home = tempfile.TemporaryDirectory(prefix="shoal-bench-")
    began = time.monotonic()
    command = [SHOAL, "run", model, "hello", "--max-tokens", "2", "--temperature", "0"]
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=own_home(home))

    def watch():
        while not done.wait(0.02):
            for pid in [p.pid] + children_of(p.pid):
                peaks[pid] = max(peaks.get(pid, 0), status_bytes(pid, "VmHWM"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        first = os.read(p.stdout.fileno(), 1)
        seconds = time.monotonic() - began
        p.stdout.read()
        p.wait()
    finally:
        p.kill()  # it has ended, unless we are being ended
        p.wait()
        done.set()
        watcher.join()
        home.cleanup()
    if p.returncode or not first:
        raise Unable(f"shoal run ended with {p.returncode}")
    return seconds, sum(peaks.values())


def load(machine):
    def once(_):
        model = model_file("llama-1b", "Q4_0")
        with open(model, "rb") as f:  # into the page cache
            while f.read(16 * MIB):
                pass
        weights = shoal_bench(model, 2, "--prompt", 0, "--gen", 1, "--reps", 1)["weight_bytes_per_token"]
        seconds, peak = load_once(model)
        return {"seconds": seconds, "beyond": (peak - weights) / 1e6}

    def rows(results):
        seconds, beyond = column(results, "seconds"), column(results, "beyond")
        return [
            Row("cold process to first token, 0.7 GB, seconds", median(seconds), 1.2, at_most=True, note=spread(seconds)),
            Row("peak memory beyond the weights, MB", median(beyond), 150, at_most=True, note=f"all processes, resident, {min(beyond):.0f}–{max(beyond):.0f}"),
        ]

    return Unit("load", "0.7 GB", once, rows)


# ---- bar 6: what a token costs beside the weights -------------------------------------------------------------------------------------------


def fixed(machine, threads):
    def once(_):
        return shoal_bench(model_file("tiny-1m", "Q8_0"), threads, "--prompt", 0, "--gen", 500, "--reps", 3)["decode_tokens_per_s"]

    def rows(results):
        return [Row(f"1 M parameters, {of_threads(threads)}, tokens/s", median(results), 8000, note=f"{min(results):.0f}–{max(results):.0f}")]

    return Unit("fixed", f"{of_threads(threads)}", once, rows, guess_s=3)


class Server:
    def __init__(self, model):
        self.home = tempfile.TemporaryDirectory(prefix="shoal-bench-")
        command = [SHOAL, "serve", "--port", "0", model]
        self.process = subprocess.Popen(command, env=own_home(self.home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.connection = None
        try:
            self.begin()
        except BaseException:  # nobody else will
            self.close()
            raise

    def begin(self):
        said = ""
        for line in self.process.stdout:
            said = line
            found = re.search(r"ready at http://\S+:(\d+)", line)
            if found:
                self.port = int(found[1])
                break
        else:
            raise Unable(f"shoal serve is not ready: {said.strip()}")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        self.connection.request("GET", "/v1/models")
        self.model = json.loads(self.connection.getresponse().read())["data"][0]["id"]
        self.tokens_per_s(8)  # loads the model
        self.pids = [self.process.pid] + children_of(self.process.pid)

    def tokens_per_s(self, n):
        """(events, seconds) of a streamed answer, from the first token to the last."""
        body = {"model": self.model, "messages": [{"role": "user", "content": "hello"}], "stream": True, "max_tokens": n, "temperature": 0}
        self.connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response, stamps = self.connection.getresponse(), []
        if response.status != 200:
            raise Unable(f"shoal serve answers {response.status}: {response.read()[:300]}")
        for line in response:
            if line.startswith(b"data: {") and b'"content":' in line:
                stamps.append(time.monotonic())
        response.read()
        return len(stamps), (stamps[-1] - stamps[0]) if len(stamps) > 1 else 0.0

    def close(self):
        if self.connection:
            self.connection.close()
        self.process.terminate()
        self.process.wait()
        self.home.cleanup()


def through_http(machine):
    n = 64

    def once(server):
        bare = shoal_bench(model_file("llama-1b", "Q4_0"), 2, "--prompt", 0, "--gen", n, "--reps", 1)["decode_tokens_per_s"]
        events, seconds = server.tokens_per_s(n)
        if events < n // 2:
            raise Unable(f"the answer has {events} events of {n}")
        return {"bare": bare, "http": (events - 1) / seconds}

    def rows(results):
        ratios = [r["http"] / r["bare"] for r in results]
        note = f"{median(column(results, 'http')):.1f} tok/s of {median(column(results, 'bare')):.1f}, {spread(ratios)}"
        return [Row("streamed answer, 1B, of shoal bench", median(ratios), 0.98, note=note)]

    return Unit("http", "1B", once, rows, company=lambda: Server(model_file("llama-1b", "Q4_0")))


# ---- bar 7: guesses, and choosing -------------------------------------------------------------------------------------------------------------

# what, needed, draft (None: a small model of random weights), options. Random weights say what never repeats at temperature 1, and over and over the
# same where only 4 tokens may be chosen. The small model guesses right where the noise alone, which both have in common, decides
DRAFTS = [
    ("by lookup, text that repeats itself", 2.0, "ngram", ("--alphabet", 4)),
    ("by lookup, text that does not", 0.98, "ngram", ("--temperature", 1)),
    ("by a small random model, text that does not", 0.98, None, ("--temperature", 1)),
]


def drafts(machine, name, needed, draft, options):
    def once(_):
        guesser = draft or model_file("tiny-draft", "Q8_0")
        r = shoal_bench(model_file("llama-1b", "Q4_0"), 2, "--prompt", 0, "--gen", 128, "--reps", 1, "--draft", guesser, *options)
        return {k: r[k] for k in ("plain_tokens_per_s", "drafted_tokens_per_s", "ratio", "acceptance", "tokens_per_step")}

    def rows(results):
        ratios = column(results, "ratio")
        note = f"{median(column(results, 'drafted_tokens_per_s')):.1f} tok/s of {median(column(results, 'plain_tokens_per_s')):.1f}, {spread(ratios)}, "
        note += f"{100 * median(column(results, 'acceptance')):.0f} % accepted, {median(column(results, 'tokens_per_step')):.1f} tokens a step"
        return [Row(name, median(ratios), needed, note=note)]

    return Unit("drafts", name, once, rows)


def sampling(machine):
    def once(_):
        said, kind, found = output_of([program("bench_sample")]), "", {}
        for line in said.splitlines():
            if line.endswith(" logits"):
                kind = line.split()[0]
            row = re.match(r"  (\S.*?)\s+median\s+(\d+) us", line)
            if row:
                found[f"{kind}: {row[1]}"] = float(row[2])
        if not found:
            raise Unable("bench_sample says no medians")
        return found

    def rows(results):
        return [Row(f"{name}, us", median(column(results, name)), 100, at_most=True, note=f"{min(column(results, name)):.0f}–{max(column(results, name)):.0f}") for name in results[0]]

    return Unit("sample", "128,256 logits", once, rows, reps=3)


# ---- all of them --------------------------------------------------------------------------------------------------------------------------------


def units_of(machine):
    o = machine.options
    units = [f(machine, kind, threads) for f in (decode, prompt) for kind in o.types for threads in (1, 2)]
    units += [f(machine, threads) for f in (context, batch) for threads in (1, 2)]
    units += [shared("2 threads", 0.6, 2), shared("two ranks", 0.5, 1, "--ranks", 2)]
    units += [shared("two ranks over tls", 0.5, 1, "--ranks", 2, "--link", "tls"), pair(), one_core(machine), load(machine)]
    units += [fixed(machine, threads) for threads in (1, 2)] + [through_http(machine)]
    units += [drafts(machine, *of) for of in DRAFTS] + [sampling(machine)]
    units += parts.units() + peers.units(o.types)
    for unit in units:
        unit.reps = min(unit.reps, o.reps)
    return units


def bars_table():
    return Table("bars", COLUMNS, 2)


def open_checkpoint():
    if not os.path.exists(SHOAL):
        sys.exit(f"bars.py: there is no {SHOAL}: `make bench` builds what is measured, so does `tools/build release --bench`")
    return Checkpoint(os.path.join(BUILD, "bench-turns.json"), build_hash(BUILD), commit_name())


def write_docs(units, driver, path):
    """The rows as a Markdown table, between the two marks of docs/results.md."""
    begin, end = "<!-- bars -->\n", "<!-- end of bars -->"
    with open(path) as f:
        text = f.read()
    rows = ["| bar | what | reached | needed | holds | of which |\n|---|---|---|---|---|---|\n"]
    for unit in units:
        for r in driver.rows(unit):
            value = f"{r.value:,.0f}" if abs(r.value) >= 1000 else f"{r.value:.3g}"
            rows.append(f"| {unit.bar} | {r.what} | {value} | {r.needs()} | {({True: 'yes', False: '**no**', None: ''})[r.holds()]} | {r.note} |\n")
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    if not tail:
        sys.exit(f"bars.py: {path} has no marks for the table")
    with open(path, "w") as f:
        f.write(head + begin + "".join(rows) + end + tail)


def main():
    p = argparse.ArgumentParser(description="bars of speed on one machine")
    p.add_argument("--quick", action="store_true", help="Q4_0 alone, three turns")
    p.add_argument("--only", help="these bars alone, commas between; any other name lists them")
    p.add_argument("--types", default="Q4_0,Q8_0,Q4_K_M,F16,BF16", help="of weights, for decode, prompt and peers (all five unless told)")
    p.add_argument("--reps", type=int, default=5, help="turns of each measurement (5 unless told, 3 of some)")
    p.add_argument("--resume", action="store_true", help="keep what an earlier run of these programs measured")
    p.add_argument("--seconds", type=float, help="begin nothing that would not end before")
    p.add_argument("--patience", type=float, help="wait so long for others to be quiet before each turn, then end")
    p.add_argument("--summary", action="store_true", help="measure nothing, print what there is")
    p.add_argument("--docs", action="store_true", help="with --summary: write it into docs/results.md")
    o = p.parse_args()
    if o.quick:
        o.types, o.reps = "Q4_0", 3
    o.types = o.types.split(",")
    for kind in o.types:
        if kind not in FILE_TYPES:
            sys.exit(f"bars.py: no type '{kind}'; there are {', '.join(FILE_TYPES)}")
    if o.reps < 1:
        sys.exit(f"bars.py: --reps {o.reps}: expected 1 or more")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended
    machine = Machine(o)
    units = units_of(machine)
    bars = list(dict.fromkeys(u.bar for u in units))
    wanted = o.only.split(",") if o.only else bars
    for name in wanted:
        if name not in bars:
            sys.exit(f"bars.py: no bar '{name}'; there are {', '.join(bars)}")
    units = [u for u in units if u.bar in wanted]
    checkpoint = open_checkpoint()
    if o.resume and checkpoint.stale:
        print("the turns that were kept are of other programs: all begins anew")
    patient = None if o.patience is None else lambda pids: calm(pids, o.patience)
    driver = Driver(checkpoint, o.seconds, machine.pids, bars_table(), calm=patient)
    if not o.summary:
        try:
            driver.run(units, o.resume)
            if o.types == p.get_default("types").split(","):
                driver.clean_table(units)
        finally:
            machine.close()
    print("\n== summary")
    print("\n".join(summary(driver, units)))
    if o.docs:
        write_docs(units, driver, os.path.join(ROOT, "docs", "results.md"))


if __name__ == "__main__":
    main()
