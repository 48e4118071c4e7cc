#!/usr/bin/env python3
"""shoal beside other engines, on the same file of random weights, by turns.

    bench/peers/peers.py [--reps 5] [--types Q4_0,…] [--threads 1,2] [--peers llama.cpp,…] [--what alone,busy]

  llama.cpp       npm's node-llama-cpp with the library it ships for this machine; NLC_DIR names a folder where it is installed, else it is
                  installed here (npm install --ignore-scripts). Nothing is compiled: without a shipped library the peer is left out.
  llama-bench     LLAMA_BENCH names the program, of ik_llama.cpp or llama.cpp; LLAMA_BENCH_ARGS more of its options (ik: "-rtr 1").
  dllama          DLLAMA names distributed-llama's program; its model is written anew, of the same shape.

Ratios are medians over turns, in each of which every engine runs once; `busy` has one ordinary busy loop beside two threads. Results:
bench/results/peers.csv. Needed: 1.9 of llama.cpp in decode and 3 in prompt, Q4_0.
"""
import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "..", "..", "tools")]
from measuring import Table, Turns, median, shoal_bench  # noqa: E402
from random_model import dllama_files, model_file  # noqa: E402

PROMPT, GEN = 512, 48
NEEDED = {("llama.cpp", "Q4_0", "decode"): 1.9, ("llama.cpp", "Q4_0", "prompt"): 3.0}


class Absent(Exception):
    """A peer that this machine does not have."""


def shoal(kind, threads):
    r = shoal_bench(model_file("llama-1b", kind), threads, "--prompt", PROMPT, "--gen", GEN, "--reps", 1)
    return r["prompt_tokens_per_s"], r["decode_tokens_per_s"]


# ---- llama.cpp of npm ---------------------------------------------------------------------------------------------------------------


def npm_folder():
    folder = os.environ.get("NLC_DIR") or HERE
    if not os.path.isdir(os.path.join(folder, "node_modules", "node-llama-cpp")):
        if not shutil.which("npm"):
            raise Absent("npm is not installed")
        done = subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise Absent(f"npm install failed: {done.stderr.strip()[-200:]}")
    return folder


def llama_cpp(kind, threads):
    command = ["node", os.path.join(HERE, "llama_cpp.mjs"), model_file("llama-1b", kind), str(threads), str(PROMPT), str(GEN), npm_folder()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Absent(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "node failed")
    r = json.loads(done.stdout.splitlines()[-1])
    return r["prompt_tokens_per_s"], r["decode_tokens_per_s"]


# ---- programs that the caller has -----------------------------------------------------------------------------------------------------


def llama_bench(kind, threads):
    program = os.environ.get("LLAMA_BENCH")
    if not program:
        raise Absent("LLAMA_BENCH is not set")
    command = [program, "-m", model_file("llama-1b", kind), "-p", str(PROMPT), "-n", str(GEN), "-t", str(threads), "-r", "1", "-o", "json"]
    done = subprocess.run(command + shlex.split(os.environ.get("LLAMA_BENCH_ARGS", "")), capture_output=True, text=True)
    if done.returncode or "[" not in done.stdout:
        raise Absent(f"{program} failed: {done.stderr.strip()[-200:]}")
    rates = {"prompt": 0.0, "decode": 0.0}
    for test in json.loads(done.stdout[done.stdout.index("[") :]):
        rates["prompt" if test["n_prompt"] else "decode"] = test["avg_ts"]
    return rates["prompt"], rates["decode"]


def dllama(kind, threads):
    program = os.environ.get("DLLAMA")
    if not program:
        raise Absent("DLLAMA is not set")
    if kind != "Q4_0":
        raise Absent("distributed-llama has no such type")
    model, tokenizer = dllama_files("llama-1b")
    command = [program, "inference", "--model", model, "--tokenizer", tokenizer, "--buffer-float-type", "q80", "--prompt", "ab" * (PROMPT // 2)]
    command += ["--steps", str(PROMPT + GEN), "--nthreads", str(threads), "--max-seq-len", "1024", "--temperature", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    rates, part = {}, None
    for line in map(str.strip, done.stdout.splitlines()):
        if line in ("Evaluation", "Prediction"):
            part = line
        elif line.startswith("tokens/s") and part:
            rates[part] = float(line.split(":")[1].split("(")[0])
    if done.returncode or len(rates) < 2:
        raise Absent(f"{program} failed: {done.stderr.strip()[-200:]}")
    return rates["Evaluation"], rates["Prediction"]


PEERS = {"llama.cpp": llama_cpp, "llama-bench": llama_bench, "dllama": dllama}


# ---- turns ------------------------------------------------------------------------------------------------------------------------------


def with_busy_loop(run):
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        return run()
    finally:
        busy.kill()
        busy.wait()


def compare(table, peers, kind, threads, what, reps):
    def once():
        engines = {"shoal": shoal} | peers
        if what == "alone":
            return {name: run(kind, threads) for name, run in engines.items()}
        return {name: with_busy_loop(lambda run=run: run(kind, threads)) for name, run in engines.items()}

    turns = Turns(reps)
    results = turns.take(once)
    for name in peers:
        for i, part in enumerate(("prompt", "decode")):
            ours, theirs = median([r["shoal"][i] for r in results]), median([r[name][i] for r in results])
            ratio = median([r["shoal"][i] / r[name][i] for r in results])
            needed = NEEDED.get((name, kind, part)) if what == "alone" else None
            verdict = "" if needed is None else "holds" if ratio >= needed else "MISSED"
            print(f"{name:<12} {kind:<7} {threads} threads {what:<6} {part:<7} shoal {ours:8.2f}  {theirs:8.2f} tok/s  {ratio:6.2f}× {'≥ %g' % needed if needed else '':<6} {verdict} {turns.note()}", flush=True)
            table.put(name, kind, threads, what, part, ours, theirs, ratio, needed or "", turns.disturbed)
    table.save()


def main():
    p = argparse.ArgumentParser(description="shoal beside other engines")
    p.add_argument("--reps", type=int, default=5)
    p.add_argument("--types", default="Q4_0,Q8_0,Q4_K_M,F16")
    p.add_argument("--threads", default="1,2")
    p.add_argument("--peers", default=",".join(PEERS))
    p.add_argument("--what", default="alone,busy")
    o = p.parse_args()
    table = Table("peers", ("peer", "type", "threads", "what", "part", "shoal_tok_s", "peer_tok_s", "ratio", "needed", "disturbed"), 5)
    for kind in o.types.split(","):
        peers = {}
        for name in o.peers.split(","):
            try:
                PEERS[name](kind, 1)
                peers[name] = PEERS[name]
            except Absent as why:
                print(f"{name}, {kind}: left out: {why}", flush=True)
        for what in o.what.split(",") if peers else ():
            for threads in map(int, o.threads.split(",")):
                if what == "alone" or (threads == 2 and kind == "Q4_0"):
                    compare(table, peers, kind, threads, what, o.reps)


if __name__ == "__main__":
    main()
