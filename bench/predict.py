#!/usr/bin/env python3
"""The planner's predictions against runs on this machine: one rank, tensor cuts and a pipeline over two, links as they are and made worse.

First everything is predicted from the profile (`shoal doctor --profile`) and a probe of each link (`bench_link probe`, which measures what
ranks would measure), and written to build/predictions.json; only then `shoal bench` runs the same cuts; then both are printed side by
side and kept in bench/results/predict.csv: medians of three turns through all cuts. The bar is 15 %. Some minutes; what others disturb is taken
up to three times.

    bench/predict.py [MODEL]        MODEL or SHOAL_BENCH_MODEL: a GGUF file of some hundred megabytes, in one type of weights

A small model will not do: its time is that of ops, not of memory. Where the machine is busy the runs are those of the scheduler: two ranks
wait for each other, and the one that is not let run costs both. Prints; asserts nothing.
"""
import csv
import json
import os
import subprocess
import sys
from statistics import median

from measuring import Unable, undisturbed

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("SHOAL_BUILD") or os.path.join(HERE, "..", "build", "release")
SHOAL = os.path.join(BUILD, "shoal")
PREDICTIONS = os.path.join(BUILD, "..", "predictions.json")
RESULTS = os.path.join(HERE, "results", "predict.csv")
GEN, DEPTH, REPS, TURNS = 32, 64, 3, 3
OWN_US = 14  # a message, which the engine `shoal` adds itself (src/plan/engines.def)

# what, ranks, mode, link, latency added in us, cap in Gbit/s (0: none)
CUTS = [
    ("1 rank", 1, "tensor", "", 0, 0),
    ("tensor over 2, shm", 2, "tensor", "shm", 0, 0),
    ("tensor over 2, tls", 2, "tensor", "tls", 0, 0),
    ("pipeline of 2, shm", 2, "pipeline", "shm", 0, 0),
    ("pipeline of 2, tls", 2, "pipeline", "tls", 0, 0),
    ("tensor over 2, shm + 50 us", 2, "tensor", "shm", 50, 0),
    ("tensor over 2, shm + 300 us", 2, "tensor", "shm", 300, 0),
    ("tensor over 2, shm + 1000 us", 2, "tensor", "shm", 1000, 0),
    ("tensor over 2, shm at 10 Gbit/s", 2, "tensor", "shm", 0, 10),
    ("tensor over 2, shm at 1 Gbit/s", 2, "tensor", "shm", 0, 1),
]


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode not in (0, 1) or not done.stdout:
        raise Unable("predict: %s: %s" % (" ".join(command), done.stderr.strip()))
    return done.stdout


def probe_link(link, latency, gbit):
    """What the link takes for a message, as a link of a cluster file: less the engine's own time, which predictions add."""
    command = [os.path.join(BUILD, "bench_link"), "probe", link, str(latency), str(gbit)]
    seen = [json.loads(run(*command)) for _ in range(3)]
    us, per_byte = (median(s[key] for s in seen) for key in ("latency_us", "us_per_byte"))
    return {"latency_us": max(us - OWN_US, 0), "gbit_s": min(8e-3 / max(per_byte, 1e-6), 1e5)}


def node(name, bandwidth, rate, shared):
    return {
        "name": name, "host": "here", "memory": "8G", "measured": True, "bandwidth_gb_s": bandwidth / 1e9,
        "tflops": rate / 0.5e12, "host_bandwidth_gb_s": shared / 1e9, "reserve_gb": 0,
    }


def cluster_of(profile, kind, ranks, link):
    types = {t["type"]: t for t in profile["types"]}
    t = types.get(kind, profile["types"][0])
    first = profile["types"][0]["bytes_per_s"]
    scale = t["bytes_per_s"] / first  # the halves are measured with the first type
    if ranks == 1:
        return {"nodes": [node("rank-1", t["bytes_per_s"], t["multiply_adds_per_s"], t["bytes_per_s"])]}
    half, both = profile["half_bytes_per_s"] * scale, profile["both_halves_bytes_per_s"] * scale
    nodes = [node("rank-%d" % (i + 1), half, t["multiply_adds_per_s"] / 2, both) for i in range(ranks)]
    return {"nodes": nodes, "host_link": link}


def predict(model, kind, profile, links):
    """Tokens/s of every cut; None where the planner finds no such plan."""
    made = {}
    path = os.path.join(BUILD, "..", "predict-cluster.json")
    for name, ranks, mode, *link in CUTS:
        with open(path, "w") as f:
            json.dump(cluster_of(profile, kind, ranks, links.get(name)), f)
        command = [SHOAL, "plan", model, "--cluster", path, "--context", "1k", "--prompt", str(DEPTH + GEN // 2), "--json"]
        if ranks > 1:
            command += ["--mode", mode] + (["--shares", ",".join(["1"] * ranks)] if mode == "tensor" else [])
        answer = json.loads(run(*command))
        plans = [p for p in answer["plans"] if sum(len(s["ranks"]) for s in p["stages"]) == ranks]
        made[name] = plans[0]["tokens_per_second"] if plans else None
    os.remove(path)
    return made


def measure(model, ranks, mode, link, latency, gbit, cores):
    command = [SHOAL, "bench", model, "--prompt", "0", "--gen", str(GEN), "--depth", str(DEPTH), "--reps", str(REPS), "--json",
               "--threads", str(max(1, cores // ranks))]
    if ranks > 1:
        command += ["--ranks", str(ranks), "--mode", mode, "--link", link]
    if latency or gbit:
        command += ["--link-latency-us", str(latency), "--link-gbit", str(gbit)]
    return json.loads(run(*command).strip().splitlines()[-1])["decode_tokens_per_s"]


def predict_and_measure(model):
    """Cut -> {"predicted", "measured", "off" (%)}, and how many cores others used at worst. Also kept in bench/results/predict.csv."""
    kind = json.loads(run(SHOAL, "show", model, "--json")).get("weights", "Q4_0")
    profile, worst = undisturbed(lambda: json.loads(run(SHOAL, "doctor", "--profile", "--json"))["profile"])
    links = {name: undisturbed(lambda link=link, more=more: probe_link(link, *more))[0] for name, _, _, link, *more in CUTS if link}
    predicted = predict(model, kind, profile, links)
    with open(PREDICTIONS, "w") as f:
        json.dump({"model": model, "weights": kind, "links": links, "profile": profile, "tokens_per_s": predicted}, f, indent=1)
    print("predictions are in %s; now the runs" % os.path.normpath(PREDICTIONS), flush=True)
    got = {name: [] for name, *_ in CUTS if predicted[name] is not None}
    for name, *cut in CUTS * TURNS:
        if name in got:
            rate, foreign = undisturbed(lambda cut=cut: measure(model, *cut, profile["threads"]))
            worst = max(worst, foreign)
            got[name].append(rate)
    found = {}
    for name, *_ in CUTS:
        if name not in got:
            print("%-32s no such plan" % name)
            continue
        rate = median(got[name])
        off = 100 * (predicted[name] / rate - 1)
        found[name] = {"predicted": predicted[name], "measured": rate, "off": off}
        print("%-32s predicted %7.2f tok/s, measured %7.2f, off by %+.1f %%" % (name, predicted[name], rate, off), flush=True)
    with open(RESULTS, "w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["cut", "predicted tok/s", "measured tok/s", "off by %"])
        out.writerows([name, "%.2f" % r["predicted"], "%.2f" % r["measured"], "%+.1f" % r["off"]] for name, r in found.items())
    return found, worst


def main():
    model = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SHOAL_BENCH_MODEL")
    if not model:
        print("predict: skipped; SHOAL_BENCH_MODEL names no model")
        return
    try:
        predict_and_measure(model)
    except Unable as why:
        sys.exit(str(why))


if __name__ == "__main__":
    main()
