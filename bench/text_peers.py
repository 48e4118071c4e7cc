#!/usr/bin/env python3
"""Encoding and opening a vocabulary beside llama.cpp (node-llama-cpp), in turns, on the same bytes; medians and ratios.

    bench/text_peers.py [--turns 3] [--json] [--build build/release] [VOCAB.gguf ...]

Vocabularies: those given, else llama-bpe and qwen2 of SHOAL_FIXTURES/tokenizers; without either it says so and ends well. The peer is found in
NLC_DIR (a folder where `npm install node-llama-cpp` ran); without it only our own figures are printed. Texts: the mixed one of bench_text
and this repository's own sources and documents. Bars: 10 MB/s on one core, 0.3 s from a file of 128,000 tokens; said, never enforced.
"""
import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def last_json(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{command[0]}: status {done.returncode}: {done.stderr.strip()[-300:]}")
    return json.loads(lines[-1])


def make_texts(folder, bench):
    mixed, own = os.path.join(folder, "mixed"), os.path.join(folder, "repository")
    subprocess.run([bench, "--write", mixed], check=True)
    names = sorted(n for pattern in ("src/*/*.[ch]", "docs/**/*.md", "*.md", "tests/unit/*.c", "tools/**/*.py")
                   for n in glob.glob(os.path.join(ROOT, pattern), recursive=True))
    with open(own, "wb") as out:
        for name in names:
            with open(name, "rb") as f:
                out.write(f.read())
    return {"mixed": mixed, "repository": own}


def measure(bench, peer, vocabulary, text, turns):
    ours, theirs = [], []
    for _ in range(turns):
        ours.append(last_json([bench, "--seconds", "0.5", "--text", text, vocabulary]))
        if peer:
            theirs.append(last_json(["node", os.path.join(ROOT, "bench/peers/text.mjs"), vocabulary, text]))
    return ours, theirs


def median(rows, key):
    return statistics.median(row[key] for row in rows) if rows else None


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--json", action="store_true", help="a line of JSON for each row beside it")
    options.add_argument("--build", default=os.environ.get("SHOAL_BUILD") or os.path.join(ROOT, "build/release"))
    options.add_argument("vocabularies", nargs="*")
    options = options.parse_args()
    fixtures, bench = os.environ.get("SHOAL_FIXTURES"), os.path.join(options.build, "bench_text")
    chosen = options.vocabularies or [os.path.join(fixtures, "tokenizers", f"ggml-vocab-{name}.gguf")
                                      for name in ("llama-bpe", "qwen2") if fixtures]
    if not chosen:
        print("no vocabulary to measure: SHOAL_FIXTURES is not set and no file is given")
        return 0
    peer = os.path.isdir(os.path.join(os.environ.get("NLC_DIR", ""), "node_modules", "node-llama-cpp"))
    if not peer:
        print("no peer: NLC_DIR names no folder with node-llama-cpp")
    print(f"{'vocabulary':24} {'text':11} {'shoal MB/s':>10} {'llama.cpp':>10} {'ratio':>6} {'load ms':>8} {'llama.cpp':>10} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for vocabulary in chosen:
            for name, text in make_texts(folder, bench).items():
                ours, theirs = measure(bench, peer, vocabulary, text, options.turns)
                speed, load = median(ours, "file_mb_per_s"), median(ours, "load_ms")
                row = f"{os.path.basename(vocabulary):24} {name:11} {speed:10.1f} "
                if theirs:
                    speed_peer, load_peer = median(theirs, "mb_per_s"), median(theirs, "load_ms")
                    row += f"{speed_peer:10.1f} {speed / speed_peer:6.1f} {load:8.1f} {load_peer:10.1f} {load_peer / load:6.1f}"
                else:
                    row += f"{'-':>10} {'-':>6} {load:8.1f} {'-':>10} {'-':>6}"
                if options.json:
                    both = {"mb_per_s": speed, "load_ms": load} | ({"peer_mb_per_s": speed_peer, "peer_load_ms": load_peer} if theirs else {})
                    print(json.dumps({"vocabulary": os.path.splitext(os.path.basename(vocabulary))[0].removeprefix("ggml-vocab-"), "text": name} | both))
                same = {r["ids"] for r in ours + theirs}
                print(row + ("" if len(same) == 1 else f"  ids differ: {sorted(same)}"))
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
