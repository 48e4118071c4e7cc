#!/usr/bin/env python3
"""shoal beside other engines, on the same file of random weights, by turns: a part of bench/bars.py (`bars.py --only peers`).

  llama.cpp       npm's node-llama-cpp with the library it ships for this machine; NLC_DIR names a folder where it is installed, else it is
                  installed here (npm install --ignore-scripts). Nothing is compiled: without a shipped library the peer is left out.
  llama-bench     LLAMA_BENCH names the program, of ik_llama.cpp or llama.cpp; LLAMA_BENCH_ARGS more of its options (ik: "-rtr 1").
  dllama          DLLAMA names distributed-llama's program; its model is written anew, of the same shape.

Ratios are medians over turns, in each of which every engine runs once; `busy` has one ordinary busy loop beside two threads on the machine's two
cores. Results: bench/results/peers.csv, from which plot.py draws. Needed: 1.9 of llama.cpp in decode and 3 in prompt, Q4_0, alone. Beside a loop there
is no bar: shoal's own is the share it keeps (bars.py, shared).
"""
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "..", "..", "tools")]
from measuring import Table, Unable, median, shoal_bench, spread  # noqa: E402
from random_model import dllama_files, model_file  # noqa: E402
from turns import Row, Unit, of_threads  # noqa: E402

NEEDED = {("llama.cpp", "Q4_0", "decode"): 1.9, ("llama.cpp", "Q4_0", "prompt"): 3.0}
COLUMNS = ("peer", "type", "threads", "what", "part", "shoal_tok_s", "peer_tok_s", "ratio", "needed", "disturbed")
# type, threads, what
MEASURED = [("Q4_0", 2, "alone"), ("Q4_0", 1, "alone"), ("Q4_0", 2, "busy"), ("Q8_0", 2, "alone"), ("Q4_K_M", 2, "alone"), ("F16", 2, "alone")]


def lengths(peer, what):
    """(prompt, gen): distributed-llama does not get far beside a busy loop."""
    return (512, 48) if what == "alone" else (32, 12) if peer == "dllama" else (256, 48)


class BusyLoop:
    """An ordinary program that computes all the time, while the block runs."""

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, "-c", "while True: pass"])

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


# ---- the engines: (type, threads, prompt, gen) -> {"prompt": tokens/s, "decode": tokens/s} -----------------------------------------------------


def shoal(kind, threads, n_prompt, n_gen):
    r = shoal_bench(model_file("llama-1b", kind), threads, "--prompt", n_prompt, "--gen", n_gen, "--reps", 1)
    return {"prompt": r["prompt_tokens_per_s"], "decode": r["decode_tokens_per_s"]}


def npm_folder():
    named = os.environ.get("NLC_DIR")
    folder = named or HERE
    if named and not os.path.isdir(os.path.join(named, "node_modules", "node-llama-cpp")):
        raise Unable(f"NLC_DIR={named}: there is no node_modules/node-llama-cpp; unset it and it is installed in bench/peers")
    if not os.path.isdir(os.path.join(folder, "node_modules", "node-llama-cpp")):
        if not shutil.which("npm"):
            raise Unable("npm is not installed")
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unable(f"npm install failed: {done.stderr.strip()[-200:]}")
    return folder


def llama_cpp(kind, threads, n_prompt, n_gen):
    if not shutil.which("node"):
        raise Unable("node is not installed")
    command = ["node", os.path.join(HERE, "llama_cpp.mjs"), model_file("llama-1b", kind), str(threads), str(n_prompt), str(n_gen), npm_folder()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unable(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "node failed")
    r = json.loads(done.stdout.splitlines()[-1])
    return {"prompt": r["prompt_tokens_per_s"], "decode": r["decode_tokens_per_s"]}


def llama_bench(kind, threads, n_prompt, n_gen):
    program = os.environ.get("LLAMA_BENCH")
    if not program:
        raise Unable("LLAMA_BENCH is not set")
    command = [program, "-m", model_file("llama-1b", kind), "-p", str(n_prompt), "-n", str(n_gen), "-t", str(threads), "-r", "1", "-o", "json"]
    done = subprocess.run(command + shlex.split(os.environ.get("LLAMA_BENCH_ARGS", "")), capture_output=True, text=True, check=False)
    if done.returncode or "[" not in done.stdout:
        raise Unable(f"{program} failed: {done.stderr.strip()[-200:]}")
    tests = json.loads(done.stdout[done.stdout.index("[") :])
    return {"prompt" if test["n_prompt"] else "decode": test["avg_ts"] for test in tests}


def dllama(kind, threads, n_prompt, n_gen):
    program = os.environ.get("DLLAMA")
    if not program:
        raise Unable("DLLAMA is not set")
    if kind != "Q4_0":
        raise Unable("distributed-llama has no such type")
    return dllama_run(program, threads, n_prompt, n_gen, [])


def dllama_run(program, threads, n_prompt, n_gen, more):
    model, tokenizer = dllama_files("llama-1b")
    command = [program, "inference", "--model", model, "--tokenizer", tokenizer, "--buffer-float-type", "q80", "--prompt", "ab" * (n_prompt // 2)]
    command += ["--steps", str(n_prompt + n_gen), "--nthreads", str(threads), "--max-seq-len", "1024", "--temperature", "0", *more]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    rates, part = {}, None
    for line in map(str.strip, done.stdout.splitlines()):
        if line in ("Evaluation", "Prediction"):
            part = {"Evaluation": "prompt", "Prediction": "decode"}[line]
        elif line.startswith("tokens/s") and part:
            rates[part] = float(line.split(":")[1].split("(")[0])
    if done.returncode or len(rates) < 2:
        raise Unable(f"{program} failed: {(done.stderr or done.stdout).strip()[-200:]}")
    return rates


def two_dllamas(n_prompt, n_gen):
    """Two nodes of one thread on this machine, one of them a worker on a port that is free now."""
    program = os.environ["DLLAMA"]
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    worker = subprocess.Popen([program, "worker", "--host", "127.0.0.1", "--port", str(port), "--nthreads", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)  # it does not say when it listens in a way that holds over its versions
        return dllama_run(program, 1, n_prompt, n_gen, ["--workers", f"127.0.0.1:{port}"])
    finally:
        worker.kill()
        worker.wait()


PEERS = {"llama.cpp": llama_cpp, "llama-bench": llama_bench, "dllama": dllama}


# ---- turns ------------------------------------------------------------------------------------------------------------------------------


def rows_of(peer, kind, threads, what, results):
    """(part, our tokens/s, theirs, ratio, spread of the ratios)"""
    for part in ("decode", "prompt"):
        ours, theirs = ([r[name][part] for r in results] for name in ("shoal", "peer"))
        ratios = [a / b for a, b in zip(ours, theirs)]
        yield part, median(ours), median(theirs), median(ratios), spread(ratios)


def unit(peer, kind, threads, what):
    def once(_):
        of = (kind, threads, *lengths(peer, what))
        if what == "alone":
            return {"shoal": shoal(*of), "peer": PEERS[peer](*of)}
        PEERS[peer](kind, threads, 8, 1)  # so that it is known to be there before it is waited for
        with BusyLoop():
            return {"shoal": shoal(*of), "peer": PEERS[peer](*of)}

    def needed(part):
        return NEEDED.get((peer, kind, part)) if what == "alone" else None

    def rows(results):
        beside = " beside a busy loop" if what == "busy" else ""
        found = rows_of(peer, kind, threads, what, results)
        return [
            Row(f"{part}, {kind}, {of_threads(threads)}{beside}, of {peer}", ratio, needed(part), note=f"{ours:.1f} tok/s against {theirs:.1f}, {around}")
            for part, ours, theirs, ratio, around in found
        ]

    def keep(results, disturbed):
        table = Table("peers", COLUMNS, 5)
        for part, ours, theirs, ratio, _ in rows_of(peer, kind, threads, what, results):
            table.put(peer, kind, threads, what, part, ours, theirs, ratio, needed(part) or "", disturbed)
        table.save()

    return Unit("peers", f"{peer}, {kind}, {of_threads(threads)}, {what}", once, rows, keep=keep, reps=5 if kind == "Q4_0" and peer == "llama.cpp" else 3, guess_s=35 if what == "busy" else 25)


def two_nodes():
    """Decode of a model cut over two ranks beside distributed-llama's way of doing so, sockets and all."""

    def once(_):
        r = shoal_bench(model_file("llama-1b", "Q4_0"), 1, "--prompt", 0, "--gen", 48, "--reps", 1, "--ranks", 2, "--link", "tls")
        return {"shoal": r["decode_tokens_per_s"], "peer": two_dllamas(64, 48)["decode"]}

    def rows(results):
        ratios = [r["shoal"] / r["peer"] for r in results]
        note = f"{median([r['shoal'] for r in results]):.1f} tok/s against {median([r['peer'] for r in results]):.1f}, {spread(ratios)}"
        return [Row("decode, Q4_0, 2 × 1 thread over tls, of dllama's two nodes", median(ratios), 2.5, note=note)]

    return Unit("peers", "dllama, two nodes", once, rows)


def units(types):
    """Those whose program is named or, of llama.cpp, always tried."""
    named = {"llama.cpp": True, "llama-bench": os.environ.get("LLAMA_BENCH"), "dllama": os.environ.get("DLLAMA")}
    found = [unit(peer, *of) for peer in PEERS if named[peer] for of in MEASURED if of[0] in types and (peer != "dllama" or of[0] == "Q4_0")]
    return found + ([two_nodes()] if named["dllama"] else [])


if __name__ == "__main__":
    command = [sys.executable, os.path.join(HERE, "..", "bars.py"), "--only", "peers", *sys.argv[1:]]
    sys.exit(subprocess.run(command, check=False).returncode)
