"""Bars of parts and of cut models, for bars.py: what programs of this folder print, beside what it has to be.

  membw     bench_membw ÷ another probe of the same machine in the same turn: MEMBW names its source, in C (one that takes GiB and repetitions and
            prints lines "read … threads N  median X")
  ranks     2 ranks of one thread ÷ 1 rank of two threads, over shm and tls, decode and prompt
  links     bench_link: sums of 16 KiB over shm, over tls as against a bare exchange, bulk over tls as against AES
  planner   bench_plan: CPU time of the slowest plan over 16 and over 200 nodes
  predict   bench/predict.py: how far predictions are off
  text      bench/text_peers.py: encoding and opening vocabularies, beside llama.cpp where NLC_DIR names it; SHOAL_FIXTURES has the vocabularies
"""
import json
import os
import re
import sys
import tempfile

import predict
from measuring import Unable, median, output_of, program, shoal_bench, spread
from random_model import model_file
from turns import Row, Unit, of_threads

HERE = os.path.dirname(os.path.abspath(__file__))


# ---- the probe ------------------------------------------------------------------------------------------------------------------------


def best_read(said, pattern):
    """Best rate by threads, of lines that `pattern` finds threads and GB/s in (its groups `threads` and `rate`)."""
    best = {}
    for found in re.finditer(pattern, said, re.M):
        threads = int(found["threads"])
        best[threads] = max(best.get(threads, 0.0), float(found["rate"]))
    return best


OURS = r"^read bandwidth, (?P<threads>\d+) threads: (?P<rate>[\d.]+) GB/s"
THEIRS = r"^read .*threads (?P<threads>\d+) +median +(?P<rate>[\d.]+)"


class OtherProbe:
    """The compiled other program."""

    pids = ()

    def __init__(self):
        source = os.environ.get("MEMBW")
        if not source:
            raise Unable("MEMBW names no source of another probe")
        self.folder = tempfile.TemporaryDirectory(prefix="shoal-bench-")
        self.path = os.path.join(self.folder.name, "membw")
        output_of([os.environ.get("CC", "cc"), "-O3", "-march=native", "-pthread", "-o", self.path, source])

    def close(self):
        self.folder.cleanup()


# Its arguments (GiB, repetitions) -> what, our options, needed. Its clock is an onlooker's and starts late (see bench_membw): that is lost in 4 GiB
# and shows in 1, where the bar is for the same clock, and our own is said beside it.
PROBES = {
    ("4", "3"): [("over 4 GiB", (), 0.97)],
    ("1", "5"): [("over 1 GiB, both by an onlooker's clock", ("--onlooker",), 0.97), ("over 1 GiB, ours by a reader's clock", (), None)],
}


def other_probe(arguments):
    def once(other):
        theirs = best_read(output_of([other.path, *arguments]), THEIRS)
        if not theirs:
            raise Unable("the other probe prints no line 'read … threads N  median X'")
        ours = {what: best_read(output_of([program("bench_membw"), *options]), OURS) for what, options, _ in PROBES[arguments]}
        return {what: {n: (rate, theirs[n]) for n, rate in found.items() if n in theirs} for what, found in ours.items()}

    def rows(results):
        out = []
        for what, _, needed in PROBES[arguments]:
            for n in results[0][what]:
                ours, theirs = ([r[what][n][i] for r in results] for i in (0, 1))
                ratios = [a / b for a, b in zip(ours, theirs)]
                note = f"{median(ours):.1f} GB/s of {median(theirs):.1f}, {spread(ratios)}"
                out.append(Row(f"{of_threads(int(n))}, of the other probe {what}", median(ratios), needed, note=note))
        return out

    return Unit("membw", f"beside another probe, {arguments[0]} GiB", once, rows, reps=3, company=OtherProbe, guess_s=35)


# ---- cut models ---------------------------------------------------------------------------------------------------------------------------

CUT = {("shm", "decode"): 0.97, ("tls", "decode"): 0.95, ("shm", "prompt"): 0.95, ("tls", "prompt"): 0.85}


def ranks():
    def once(_):
        model, options = model_file("llama-1b", "Q4_0"), ("--prompt", 256, "--gen", 32, "--reps", 3)
        found = {"alone": shoal_bench(model, 2, *options)}
        for link in ("shm", "tls"):
            found[link] = shoal_bench(model, 1, *options, "--ranks", 2, "--link", link)
        return {name: {part: r[f"{part}_tokens_per_s"] for part in ("decode", "prompt")} for name, r in found.items()}

    def rows(results):
        out = []
        for (link, part), needed in CUT.items():
            ratios = [r[link][part] / r["alone"][part] for r in results]
            note = f"{median([r[link][part] for r in results]):.1f} tok/s of {median([r['alone'][part] for r in results]):.1f}, {spread(ratios)}"
            out.append(Row(f"{part}, 2 × 1 thread over {link}, of 1 × 2", median(ratios), needed, note=note))
        return out

    return Unit("ranks", "2 × 1 thread", once, rows)


# ---- links ----------------------------------------------------------------------------------------------------------------------------------

# what the engine sends where links are quick, and where they are not; then a form that only a caller can ask for
FORMS = {"f64": r"f64 \(32 KiB each way\)", "blocks": r"blocks \(16 KiB each way\)", "int48": r"int48 \(24 KiB each way\)"}


def sums_over_shm(said):
    """Form -> (best tenth, median), us."""
    found = {}
    for form, words in FORMS.items():
        row = re.search(rf"^shm, 2 ranks, 4096 values, {words} +best tenth +([\d.]+) us, median +([\d.]+)", said, re.M)
        if row:
            found[form] = [float(row[1]), float(row[2])]
    return found


def sums_over_tls(said):
    row = re.search(r"^a sum over tls / the bare exchange, best tenths: ([\d.]+) int48, ([\d.]+) f64", said, re.M)
    return {"int48": float(row[1]), "f64": float(row[2])} if row else {}


def bulk(said):
    """Streams -> for each core used, the share of AES, and of AES and a bare socket one after the other."""
    rows = re.finditer(r"^bulk over tls, (\d+) streams?: .*? ([\d.]+) of AES .*? ([\d.]+) of AES and bare TCP", said, re.M)
    return {row[1]: [float(row[2]), float(row[3])] for row in rows}


def links():
    def once(_):
        said = {part: output_of([program("bench_link"), "0.4", part]) for part in ("shm", "tls", "bulk")}
        found = {"shm": sums_over_shm(said["shm"]), "tls": sums_over_tls(said["tls"]), "bulk": bulk(said["bulk"])}
        if not all(found.values()):
            raise Unable(f"bench_link does not print what is looked for: {found}")
        return found

    def rows(results):
        out = []
        for form in FORMS:
            best, middle = (median([r["shm"][form][i] for r in results]) for i in (0, 1))
            out.append(Row(f"16 KiB of f32 summed over shm as {form}, us", middle, 8, at_most=True, note=f"best tenth {best:.1f}"))
        for form in results[0]["tls"]:
            ratios = [r["tls"][form] for r in results]
            out.append(Row(f"the same over tls as {form}, of a bare exchange", median(ratios), 1.6, at_most=True, note=spread(ratios)))
        shares, bounds = ({n: median([r["bulk"][n][i] for r in results]) for n in results[0]["bulk"]} for i in (0, 1))
        best = max((n for n in shares if int(n) > 1), key=shares.get)
        note = ", ".join(f"{n}: {share:.2f}" for n, share in shares.items()) + f"; {bounds[best]:.2f} of AES and a bare socket one after the other"
        out.append(Row("bulk over several streams of tls, a core used, of AES", shares[best], 0.8, note=f"streams {note}"))
        return out

    return Unit("links", "sums and bulk", once, rows, guess_s=20)


# ---- the planner ------------------------------------------------------------------------------------------------------------------------------


def slowest_plans(said):
    """Nodes -> milliseconds of the slowest goal and model."""
    most = {}
    for row in re.finditer(r" +(\d+) nodes +\S+ +([\d.]+) ms", said):
        most[row[1]] = max(most.get(row[1], 0.0), float(row[2]))
    return most


def planner():
    def rows(results):
        out = []
        for nodes, needed in (("16", 50), ("200", 1000)):
            ms = [r[nodes] for r in results if nodes in r]
            if not ms:
                raise Unable(f"bench_plan says nothing of {nodes} nodes")
            out.append(Row(f"{nodes} nodes, slowest of its plans, ms", median(ms), needed, at_most=True, note=f"{min(ms):.1f}–{max(ms):.1f}"))
        return out

    return Unit("planner", "16 and 200 nodes", lambda _: slowest_plans(output_of([program("bench_plan")])), rows, reps=3, guess_s=5)


def predictions():
    def rows(results):
        out = []
        for name in results[0]:
            off = [r[name]["off"] for r in results if name in r]
            got, said = (median([r[name][k] for r in results if name in r]) for k in ("measured", "predicted"))
            out.append(Row(f"{name}, off by, %", median(list(map(abs, off))), 15, at_most=True, note=f"{said:.1f} tok/s predicted, {got:.1f} measured"))
        return out

    return Unit("predict", "cuts over this machine", lambda _: predict.predict_and_measure(model_file("llama-1b", "Q4_0")), rows, reps=1, watches=True, guess_s=240)


# ---- text ---------------------------------------------------------------------------------------------------------------------------------------


def text():
    def once(_):
        said = output_of([sys.executable, os.path.join(HERE, "text_peers.py"), "--turns", "1", "--json"])
        rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        if not rows:
            raise Unable(said.strip().splitlines()[-1] if said.strip() else "text_peers.py says nothing")
        return rows

    def rows(results):
        out = []
        for i, row in enumerate(results[0]):
            ours = [r[i] for r in results]
            speed, load = (median([r[k] for r in ours]) for k in ("mb_per_s", "load_ms"))
            beside = lambda key, ratio: f"llama.cpp {median([r[key] for r in ours]):.1f}, {median(list(map(ratio, ours))):.1f}×" if row.get(key) else ""  # noqa: E731
            out.append(Row(f"{row['vocabulary']}, {row['text']}: encode, MB/s", speed, 10, note=beside("peer_mb_per_s", lambda r: r["mb_per_s"] / r["peer_mb_per_s"])))
            if row["text"] == results[0][0]["text"]:
                note = beside("peer_load_ms", lambda r: r["peer_load_ms"] / r["load_ms"])
                out.append(Row(f"{row['vocabulary']}: open, ms", load, 300, at_most=True, note=note))
        return out

    return Unit("text", "vocabularies", once, rows, reps=3, guess_s=40)


def units():
    return [*map(other_probe, PROBES), ranks(), links(), planner(), predictions(), text()]
