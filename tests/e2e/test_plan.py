#!/usr/bin/env python3
"""`shoal plan` as people use it: every option, clusters from files and short texts, what is refused and how, tables, JSON and SVG.

SHOAL names the binary. Everything happens in a temporary HOME. Prints `ok NAME` or `not ok NAME: why`, then `N passed, N failed`.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unicodedata
import xml.etree.ElementTree

SHOAL = os.environ.get("SHOAL", "build/shoal")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TINY = os.path.join(ROOT, "tests/data/models/tiny-q8_0.gguf")
WAIT = float(os.environ.get("SHOAL_TEST_WAIT", "180"))
HOME = tempfile.mkdtemp(prefix="shoal-plan-")
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("SHOAL_", "XDG_", "HF_", "OLLAMA_")) and k != "SHOAL"}
ENV.update(HOME=HOME, LC_ALL="C.UTF-8", NO_COLOR="1")
TESTS = []


def test(f):
    TESTS.append(f)
    return f


def plan(*args, code=0, command="plan"):
    done = subprocess.run([SHOAL, command, *args], capture_output=True, timeout=WAIT, env=ENV, stdin=subprocess.DEVNULL)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert code is None or done.returncode == code, f"{args}: exit {done.returncode}, not {code}: {out[-300:]!r} {err[-600:]!r}"
    return out, err


def answer(*args, code=0):
    return json.loads(plan(*args, "--json", code=code)[0])


def must(condition, *what):
    assert condition, " ".join(repr(w)[-900:] for w in what)


def cluster(value, name="cluster.json"):
    path = os.path.join(HOME, name)
    with open(path, "w") as f:
        f.write(value if isinstance(value, str) else json.dumps(value))
    return path


def refused(*args, code=1, says=()):
    out, err = plan(*args, code=code)
    for words in says:
        must(words in out + err, words, "is not in", out + err)


TWO = "2xm4-pro/64G@thunderbolt5-rdma"


@test
def names_are_listed():
    out, _ = plan()
    for name in ("llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b", "llama-3.3-70b", "qwen3-0.6b", "qwen3-32b", "qwen3-30b-a3b",
                 "qwen3-235b-a22b", "qwen3-coder-480b", "deepseek-v3", "deepseek-v3.1", "kimi-k2", "gpt-oss-20b", "gpt-oss-120b",
                 "glm-4.5", "glm-4.6", "minimax-m2", "m3-ultra", "m5", "dgx-spark", "strix-halo", "rtx-5090", "pi-5", "wifi6", "usb4",
                 "thunderbolt5-rdma", "25gbe", "q4_k_m", "distributed-llama"):
        must(name in out.split(), name)
    wide = [line for line in out.splitlines() if len(line) > 80]
    must(not wide, wide)
    known = json.loads(plan("--json")[0])
    must(all(d["source"] for d in known["devices"]) and all(l["source"] for l in known["links"]), known)


@test
def a_plan_is_a_table_of_eighty_columns():
    for args in (("llama-3.3-70b:4bit", "--cluster", TWO), ("deepseek-v3.1:4bit", "--cluster", "2xm3-ultra,4xm4-pro@thunderbolt5",
                 "--context", "32k", "--concurrency", "4", "--goal", "throughput", "--kwh", "0.3", "--token-price", "3")):
        out, _ = plan(*args)
        must("tok/s" in out and "weights" in out and "first token" in out, out)
        wide = [line for line in out.splitlines() if sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line) > 80]
        must(not wide, wide)


@test
def json_has_all_figures():
    a = answer("llama-3.3-70b:4bit", "--cluster", TWO, "--context", "16k", "--prompt", "1000", "--concurrency", "3", "--kwh", "0.3")
    must(a["context"] == 16384 and a["prompt"] == 1000 and a["concurrency"] == 3 and a["reasons"], a)
    for p in a["plans"]:
        must(p["tokens_per_second"] > 0 and abs(p["step_us"] - p["compute_us"] - p["sum_us"] - p["hop_us"]) < 1e-6 * p["step_us"], p)
        must(p["stages"][0]["first_layer"] == 0 and p["stages"][-1]["last_layer"] == 79, p)
        for s in p["stages"]:
            for kind, all_units in s["units"].items():
                must(sum(r["units"][kind] for r in s["ranks"]) == all_units, s)
            for r in s["ranks"]:
                must(r["weight_bytes"] + r["state_bytes"] + r["scratch_bytes"] + r["reserve_bytes"] <= r["memory_bytes"], r)
    must(a["plans"][0]["energy_per_million_tokens"] > 0, a["plans"][0])
    for number in (a["parameters"], a["weight_bytes"], *(r[k] for k in r if k.endswith("_bytes"))):
        must(isinstance(number, int), number)
    must(r["memory_bytes"] == 64 << 30, r)


@test
def goals_and_pins_change_the_plan():
    four = ("llama-3.3-70b:4bit", "--cluster", "4xm4-pro@thunderbolt5-rdma")
    fewest = answer(*four, "--goal", "fewest")["plans"][0]
    must(fewest["nodes"] == 1, fewest)
    speed = answer(*four, "--goal", "speed")["plans"][0]
    must(speed["nodes"] > 1 and speed["tokens_per_second"] > fewest["tokens_per_second"], speed)
    many = answer(*four, "--goal", "throughput", "--concurrency", "8")["plans"][0]
    must(many["throughput"] > speed["tokens_per_second"], many)
    first = answer(*four, "--goal", "ttft", "--prompt", "4000")["plans"][0]
    must(first["ttft_us"] > 0, first)
    pipe = answer(*four, "--mode", "pipeline", "--goal", "throughput", "--concurrency", "4")["plans"][0]
    must(all(len(s["ranks"]) == 1 for s in pipe["stages"]), pipe)
    tensor = answer(*four, "--mode", "tensor")["plans"][0]
    must(len(tensor["stages"]) == 1, tensor)
    some = answer(*four, "--nodes", "m4-pro-2,m4-pro-4")["plans"]
    must({r["node"] for p in some for s in p["stages"] for r in s["ranks"]} <= {"m4-pro-2", "m4-pro-4"}, some)
    shared = answer(*four, "--nodes", "m4-pro-1,m4-pro-2", "--shares", "3,1")["plans"][0]["stages"][0]
    must(shared["ranks"][0]["units"]["feed-forward"] == 3 * shared["units"]["feed-forward"] // 4, shared)
    q8, f16 = (answer(*four, "--kv", kv)["plans"][0]["stages"][0]["ranks"][0]["state_bytes"] for kv in ("q8_0", "f16"))
    must(q8 < f16, q8, f16)
    must(answer(*four, "--engine", "exo")["engine"] == "exo")


@test
def cluster_files():
    path = cluster({"link": "2.5gbe", "nodes": [{"device": "m3-ultra", "name": "studio <&>", "memory": "256G"},
                                                {"device": "rtx-3090", "name": "card", "count": 2, "host": "tower"},
                                                {"name": "old", "memory": "64G", "bandwidth_gb_s": 40, "tflops": 1}],
                    "links": [{"between": ["studio <&>", "tower"], "link": "10gbe", "latency_us": 25}]})
    a = answer("qwen3-235b-a22b:4bit", "--cluster", path)
    must(a["plans"][0]["stages"][0]["ranks"], a)
    svg = os.path.join(HOME, "plan.svg")
    plan("qwen3-235b-a22b:4bit", "--cluster", path, "--svg", svg)
    root = xml.etree.ElementTree.parse(svg).getroot()
    text = " ".join(t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}text"))
    must("tok/s" in text and "studio <&>" in text, text)
    width = float(root.get("width"))
    for r in root.iter("{http://www.w3.org/2000/svg}rect"):
        must(r.get("width").endswith("%") or float(r.get("x", 0)) + float(r.get("width")) <= width, r.attrib)
    refused("llama-3.2-1b", "--cluster", path, "--svg", os.path.join(HOME, "none/plan.svg"), says=["cannot be written: No such file"])


@test
def figures_are_for_people():
    for args in (("--cluster", "rtx-5090"), ("--cluster", "2xpi-5"), ("--cluster", "2xpi-5", "--grow")):
        out, _ = plan("minnow", *args)
        must("e+" not in out and "0.000" not in out and ("tok/s" in out), out)
    out, _ = plan("llama-3.1-8b", "--cluster", TWO, "--token-price", "1")
    must("electricity not counted" in out and "electricity $0" not in out, out)
    known = json.loads(plan("--json")[0])
    must("q4_k_m" in known["quantisations"] and "exo" in known["engines"], list(known))


@test
def contradictions_are_refused():
    two = [{"device": "m4", "name": "a"}, {"device": "m4", "name": "b"}]
    cases = [
        ({"nodes": two, "links": [{"between": ["a", "b"], "link": "10gbe"}, {"between": ["b", "a"], "link": "1gbe"}]}, "contradicts"),
        ({"nodes": two + [{"device": "m4", "name": "a"}]}, "two nodes have the name 'a'"),
        ({"nodes": two, "links": [{"between": ["a", "c"]}]}, "names 'c'"),
        ({"nodes": [{"device": "m4", "memroy": "8G"}]}, "unknown key 'memroy'"),
        ({"nodes": [{"device": "m4", "memory": "many"}]}, "must be a size"),
        ({"nodes": [{"name": "x", "memory": "8G"}]}, "bandwidth_gb_s"),
        ({"nodes": [{"device": "m4", "bandwidth_gb_s": -1}]}, "must be a number from"),
        ({"nodes": [{"device": "m4", "measured": 1}]}, "'measured'"),
        ({"nodes": [{"device": "this", "tflops": 3}]}, "unknown key 'tflops'"),
        ({"nodes": two, "links": [{"between": ["a", "a"], "link": "10gbe"}]}, "joins 'a' with itself"),
        ({"nodes": [{"device": "m4", "host": "h", "host_bandwidth_gb_s": x, "name": f"n{x}"} for x in (20, 30)]}, "contradict each other"),
        ({"nodes": [{"device": "m4", "count": 1.5}]}, "whole number"),
        ({"nodes": []}, "at least one"),
        ("{\"nodes\": [}", "line 1"),
        ("[]", "expected an object"),
    ]
    for value, words in cases:
        refused("llama-3.2-1b", "--cluster", cluster(value), says=[words])
    refused("llama-3.2-1b", "--cluster", os.path.join(HOME, "none.json"), says=["none.json"])


@test
def names_near():
    refused("llama-3.3-7b", "--cluster", TWO, says=["llama-3.3-70b"])
    refused("llama-3.3-70b:q4k", "--cluster", TWO, says=["q4"])
    refused("llama-3.3-70b", "--cluster", "2xm4pro", says=["m4-pro"])
    refused("llama-3.3-70b", "--cluster", "2xm4-pro@thunderbolt6", says=["thunderbolt5"])
    refused("llama-3.3-70b", "--cluster", TWO, "--engine", "exoo", says=["exo"])
    refused("llama-3.3-70b", "--cluster", TWO, "--goal", "sped", says=["did you mean speed"])
    refused("llama-3.3-70b", "--cluster", TWO, "--nodes", "m4-pro-3", says=["m4-pro-2"])
    refused("llama-3.3-70b", "--cluster", TWO, "--shares", "1,2,3", says=["one for each of 2"])
    refused("llama-3.3-70b", "--cluster", TWO, "--shares", "1,none", says=["no share above 0"])
    refused("llama-3.3-70b", "--cluster", "0xm4-pro", says=["no number from 1"])
    refused("llama-3.3-70b", "--cluster", "m4-pro/lots", says=["no size"])
    refused("llama-3.3-70b", "--cluster", "2xthis", says=["'this' is one machine"])
    refused("llama-3.3-70b", code=2, says=["--cluster"])
    refused("llama-3.3-70b", "--cluster", "2xm4-pro@10gbe,rtx-3090", says=["one link", "at the end"])
    refused("llama-3.3-70b", "--cluster", "m4-pro,", says=["a device's name is missing"])
    refused("llama-3.3-70b", "--cluster", HOME, says=["is a folder"])


@test
def numbers_out_of_range():
    for option, value, says in (("--concurrency", "99999999999", "--concurrency 99999999999: expected 1 to 1000000"), ("--context", "0", "--context 0"),
                                ("--prompt", "0", "--prompt 0")):
        refused("llama-3.2-1b", "--cluster", TWO, option, value, says=[says])


@test
def numbers_that_contradict_each_other():
    refused("llama-3.3-70b:4bit", "--cluster", TWO, "--shares", "1,2", "--mode", "pipeline", says=["--shares", "--mode pipeline"])
    refused("llama-3.3-70b:4bit", "--cluster", TWO, "--prompt", "5000", "--context", "4k", says=["--prompt of 5000", "--context of 4096"])
    must(answer("llama-3.3-70b:4bit", "--cluster", TWO, "--context", "256")["prompt"] == 256)  # 512 is only what is usual
    refused("llama-3.3-70b:4bit", "--cluster", TWO, "--kwh", "-1", says=["--kwh: a price is not below 0"])
    refused("llama-3.3-70b:4bit", "--cluster", TWO, "--token-price", "-0.1", says=["--token-price: a price is not below 0"])


@test
def what_fits_nowhere_says_the_nearest_miss():
    args = ("llama-3.1-405b:q8_0", "--cluster", "m4-pro,rtx-4090,pi-5@10gbe")
    refused(*args, says=["more are needed", "node m4-pro alone", "node rtx-4090 alone", "node pi-5 alone", "GB short"])
    a = answer(*args, code=1)
    must(not a["plans"] and a["missing_bytes"] > 3e11, a)
    refused("kimi-k2", "--cluster", "m1", says=["more are needed"])
    refused("llama-3.1-8b:4bit", "--cluster", "rtx-4090", "--context", "128k", "--concurrency", "2",
            says=["it fits only with q8_0 keys and values", "it fits with a context of"])
    refused("llama-3.1-405b:q8_0", "--cluster", "m4-pro", "--svg", os.path.join(HOME, "x.svg"), says=["more are needed"])


@test
def what_to_buy_next():
    out, _ = plan("llama-3.3-70b:8bit", "--cluster", "m4-pro@10gbe", "--grow")
    must("does not fit now" in out and "m3-ultra" in out and "$" in out, out)
    grown = json.loads(plan("llama-3.3-70b:4bit", "--cluster", "m4-pro@10gbe", "--grow", "--json")[0])
    must(grown and all(g["price"] > 0 and g["tokens_per_second"] > 0 for g in grown), grown)
    out, _ = plan("kimi-k2:f32", "--cluster", "pi-5", "--grow")
    must("no single machine" in out, out)


@test
def a_model_of_this_machine():
    a = answer(TINY, "--cluster", "2xpi-5")
    must(a["plans"] and a["weight_bytes"] > 0, a)


@test
def this_machine_is_measured():
    out, _ = plan("--profile", "--json", command="doctor", code=None)
    profile = json.loads(out)["profile"]
    must(profile["threads"] > 0 and {t["type"] for t in profile["types"]} >= {"Q4_0", "Q8_0", "Q4_K"}, profile)
    must(all(t["bytes_per_s"] > 0 and t["multiply_adds_per_s"] > 0 for t in profile["types"]), profile)
    kept = os.listdir(os.path.join(HOME, ".cache/shoal"))
    must(len(kept) == 1 and kept[0].startswith("profile-"), kept)
    path = os.path.join(HOME, ".cache/shoal", kept[0])
    with open(path) as f:
        data = json.load(f)
    for t in data["types"]:  # what is kept is what is used
        t["bytes_per_s"] = 1e9 * t["bits"]
        t["multiply_adds_per_s"] = 1e12
    data["dispatch_us"] = 1.0
    with open(path, "w") as f:
        json.dump(data, f)
    a = answer("qwen3-0.6b:q8_0", "--cluster", "this/64G", "--context", "512", "--prompt", "16")["plans"][0]
    must(50 < a["compute_us"] / 1e3 < 100, a["compute_us"])  # 0.63 GB at 8.5 GB/s, and ops
    faster = answer("llama-3.2-1b:q8_0", "--cluster", "this/64G,m4-max@10gbe")
    must({r["node"] for p in faster["plans"] for s in p["stages"] for r in s["ranks"]} >= {"this", "m4-max"}, faster)
    with open(path, "w") as f:
        f.write("{")  # a broken one is measured anew
    answer("qwen3-0.6b:q8_0", "--cluster", "this/64G", "--context", "512", "--prompt", "16")
    with open(path) as f:
        json.load(f)


def main():
    failed = 0
    for t in TESTS:
        try:
            t()
            print(f"ok {t.__name__}", flush=True)
        except Exception as e:  # noqa: BLE001
            failed += 1
            print(f"not ok {t.__name__}: {type(e).__name__}: {e}", flush=True)
    print(f"{len(TESTS) - failed} passed, {failed} failed")
    shutil.rmtree(HOME, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
