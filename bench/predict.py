#!/usr/bin/env python3
"""The planner's predictions against runs on this machine.

First everything is predicted from the profile (`shoal doctor --profile`) and a probe of the links (bench_link), and written to
build/predictions.json; then `shoal bench` runs the same cuts; then both are printed side by side. The bar is 15 %.

    bench/predict.py [MODEL]        MODEL or SHOAL_BENCH_MODEL: a GGUF file of some hundred megabytes, in one type of weights

A small model will not do: its time is that of ops, not of memory. Where the machine is busy the runs are those of the scheduler.
Not here: shaped links (added latency, caps), which `shoal bench` does not offer yet. Prints; asserts nothing.
"""
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(HERE, "..", "build", "release")
SHOAL = os.path.join(BUILD, "shoal")
PREDICTIONS = os.path.join(BUILD, "..", "predictions.json")
PROMPT, GEN, DEPTH = 128, 32, 64


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode not in (0, 1) or not done.stdout:
        sys.exit("predict: %s: %s" % (" ".join(command), done.stderr.strip()))
    return done.stdout


def probe_links():
    """One way latency in us and Gbit/s of shm and tls between two ranks, from the medians of sums of 8 and 4,096 values."""
    text = run(os.path.join(BUILD, "bench_link"), "0.3")

    def median(line):
        found = re.search(re.escape(line) + r".*median +([0-9.]+)", text)
        return float(found.group(1)) if found else None

    small, large = median("shm, 2 ranks, 8 values, f64"), median("shm, 2 ranks, 4096 values, f64")
    tls = median("tls, 2 ranks, 4096 values, f64")
    per_us = 8 * 4088 / max(large - small, 0.1)  # bytes a us
    own = 14  # us a message that the engine `shoal` adds itself (engines.def)
    return {
        "shm": {"latency_us": max(small - own, 0), "gbit_s": per_us * 8e-3},
        "tls": {"latency_us": max(tls - 32768 / per_us - own, 0), "gbit_s": per_us * 8e-3},
    }


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
    made = {}
    for name, ranks, mode, link in CUTS:
        path = os.path.join(BUILD, "..", "predict-cluster.json")
        with open(path, "w") as f:
            json.dump(cluster_of(profile, kind, ranks, dict(links.get(link, {}))), f)
        command = [SHOAL, "plan", model, "--cluster", path, "--context", "1k", "--prompt", str(DEPTH + GEN // 2), "--json"]
        if ranks > 1:
            command += ["--mode", mode] + (["--shares", ",".join(["1"] * ranks)] if mode == "tensor" else [])
        answer = json.loads(run(*command))
        plans = [p for p in answer["plans"] if sum(len(s["ranks"]) for s in p["stages"]) == ranks]
        made[name] = plans[0]["tokens_per_second"] if plans else None
    return made


def measure(model, ranks, mode, link, cores):
    command = [SHOAL, "bench", model, "--prompt", "0", "--gen", str(GEN), "--depth", str(DEPTH), "--reps", "3", "--json",
               "--threads", str(max(1, cores // ranks))]
    if ranks > 1:
        command += ["--ranks", str(ranks), "--mode", mode, "--link", link]
    return json.loads(run(*command).strip().splitlines()[-1])["decode_tokens_per_s"]


CUTS = [
    ("1 rank", 1, "tensor", ""),
    ("tensor over 2, shm", 2, "tensor", "shm"),
    ("tensor over 2, tls", 2, "tensor", "tls"),
    ("pipeline of 2, shm", 2, "pipeline", "shm"),
    ("pipeline of 2, tls", 2, "pipeline", "tls"),
]


def main():
    model = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SHOAL_BENCH_MODEL")
    if not model:
        print("predict: skipped; SHOAL_BENCH_MODEL names no model")
        return
    kind = json.loads(run(SHOAL, "show", model, "--json")).get("weights", "Q4_0")
    profile = json.loads(run(SHOAL, "doctor", "--profile", "--json"))["profile"]
    links = probe_links()
    predicted = predict(model, kind, profile, links)
    with open(PREDICTIONS, "w") as f:
        json.dump({"model": model, "weights": kind, "links": links, "profile": profile, "tokens_per_s": predicted}, f, indent=1)
    print("predictions are in %s; now the runs" % os.path.normpath(PREDICTIONS), flush=True)
    for name, ranks, mode, link in CUTS:
        if predicted[name] is None:
            print("%-20s no such plan" % name)
            continue
        got = measure(model, ranks, mode, link, profile["threads"])
        print("%-20s predicted %7.2f tok/s, measured %7.2f, off by %+.0f %%"
              % (name, predicted[name], got, 100 * (predicted[name] / got - 1)), flush=True)


if __name__ == "__main__":
    main()
