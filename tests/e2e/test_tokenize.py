#!/usr/bin/env python3
"""`shoal tokenize` as a person calls it: the three ways of encoding, the way back, wrong calls. SHOAL names the binary.

The model is a GGUF file of our own without weights, written here from tests/data/text/llama3.json; the ids expected are those that the Rust
library `tokenizers` gave. With SHOAL_FIXTURES a few vectors of each real vocabulary go through the binary too (all of them are
checked by test_text_fixtures). Standard library only."""
import json
import os
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHOAL = os.environ.get("SHOAL", os.path.join(ROOT, "build/shoal"))
failed = 0


def say(name, why=None):
    global failed
    if why is None:
        print(f"ok {name}")
    else:
        failed += 1
        print(f"not ok {name}: {why}")


def shoal(*arguments, stdin=b""):
    return subprocess.run([SHOAL, "tokenize", *arguments], input=stdin, capture_output=True, timeout=120, check=False)


def text(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def array(kind, values):
    packed = b"".join(text(v) if kind == 8 else struct.pack("<i", v) for v in values)
    return struct.pack("<IIQ", 9, kind, len(values)) + packed


def write_gguf(path, source, pre, templates=None):
    model, added = source["model"], source["added_tokens"]
    names = {i: t for t, i in model["vocab"].items()}
    types = {i: 1 for i in names}
    for a in added:
        names[a["id"]], types[a["id"]] = a["content"], 3 if a["special"] else 4
    bos = next(a["id"] for a in added if a["content"] == "<|begin|>")
    keys = {
        "general.architecture": struct.pack("<I", 8) + text("llama"),
        "tokenizer.ggml.model": struct.pack("<I", 8) + text("gpt2"),
        "tokenizer.ggml.pre": struct.pack("<I", 8) + text(pre),
        "tokenizer.ggml.tokens": array(8, [names[i] for i in range(len(names))]),
        "tokenizer.ggml.token_type": array(5, [types[i] for i in range(len(names))]),
        "tokenizer.ggml.merges": array(8, model["merges"]),
        "tokenizer.ggml.bos_token_id": struct.pack("<II", 4, bos),
        "tokenizer.ggml.add_bos_token": struct.pack("<IB", 7, 1),
        **{key: struct.pack("<I", 8) + text(value) for key, value in (templates or {}).items()},
    }
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)))
        for key, value in keys.items():
            f.write(text(key) + value)
    return bos


def own_vocabulary(folder):
    data = os.path.join(ROOT, "tests/data/text")
    source = json.load(open(os.path.join(data, "llama3.json"), encoding="utf-8"))
    texts = json.load(open(os.path.join(data, "texts.json"), encoding="utf-8"))
    wanted = [json.loads(line) for line in open(os.path.join(data, "llama3.expected.jsonl"), encoding="utf-8")]
    path = os.path.join(folder, "own.gguf")
    bos = write_gguf(path, source, "llama-bpe")
    why = None
    for t, want in list(zip(texts, wanted))[::3]:
        if "<mask>" in t:
            continue  # its lstrip flag has no place in a GGUF file
        got = shoal(path, "--special", stdin=t.encode())
        if got.returncode or json.loads(got.stdout) != want["ids"]:
            why = f"{t!r}: {got.stdout!r} {got.stderr!r}, want {want['ids']}"
            break
        back = shoal(path, "--decode", stdin=got.stdout)
        if back.stdout != t.encode():
            why = f"{t!r} came back as {back.stdout!r}"
            break
    say("tokenize.special_and_back", why)
    got = json.loads(shoal(path, stdin=b"a<|end|>").stdout)
    special = json.loads(shoal(path, "--special", stdin=b"a<|end|>").stdout)
    raw = json.loads(shoal(path, "--raw", stdin=b"a<|end|>").stdout)
    say("tokenize.default_adds_bos", None if got == [bos] + special and len(special) == 2 else f"{got} {special}")
    say("tokenize.raw_parses_nothing", None if special[1] not in raw and len(raw) > 2 else f"{raw}")
    noise = bytes(range(256)) + b"\xff\xfe\r\n\0"
    ids = shoal(path, "--raw", stdin=noise).stdout
    back = shoal(path, "--decode", stdin=ids).stdout
    say("tokenize.any_bytes_come_back", None if back == noise else f"{back!r}")
    say("tokenize.empty", None if shoal(path, "--raw").stdout == b"[]\n" else "not []")
    for name, result, code in [
        ("both_ways_refused", shoal(path, "--special", "--raw"), 2),
        ("decode_takes_no_mode", shoal(path, "--decode", "--raw", stdin=b"[]"), 2),
        ("no_such_model", shoal(os.path.join(folder, "missing.gguf")), 1),
        ("decode_no_json", shoal(path, "--decode", stdin=b"[1, "), 1),
        ("decode_no_array", shoal(path, "--decode", stdin=b"{}"), 1),
        ("decode_wrong_id", shoal(path, "--decode", stdin=b"[1, 99999999]"), 1),
    ]:
        right = result.returncode == code and result.stderr.startswith(b"shoal tokenize:") and not result.stdout
        say(f"tokenize.{name}", None if right else f"exit {result.returncode}, {result.stderr!r}")


def phi3(folder):
    """The architecture says that control tokens take the white space behind them."""
    space, path = "\u2581", os.path.join(folder, "phi3.gguf")
    tokens = [("<unk>", 2, 0), ("<s>", 3, 0), ("</s>", 3, 0), ("<|endoftext|>", 3, 0), ("<|user|>", 3, 0), (space, 1, -1), ("a", 1, -2), (space + "a", 1, -3),
              ("<0x0A>", 6, 0)]
    for architecture, want in (("phi3", [1, 4, 7, 3, 5, 8, 6]), ("llama", [1, 4, 5, 8, 6, 3, 5, 8, 6])):
        keys = {
            "general.architecture": struct.pack("<I", 8) + text(architecture), "tokenizer.ggml.model": struct.pack("<I", 8) + text("llama"),
            "tokenizer.ggml.tokens": array(8, [t for t, _, _ in tokens]), "tokenizer.ggml.token_type": array(5, [k for _, k, _ in tokens]),
            "tokenizer.ggml.scores": struct.pack("<IIQ", 9, 6, len(tokens)) + b"".join(struct.pack("<f", s) for _, _, s in tokens),
        }
        with open(path, "wb") as f:
            f.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(text(k) + v for k, v in keys.items()))
        done = shoal(path, stdin=b"<|user|>\na<|endoftext|>\na")
        right = done.returncode == 0 and json.loads(done.stdout) == want
        say(f"tokenize.white_space_behind_control_tokens_{architecture}", None if right else f"{done.stdout!r} {done.stderr!r}, want {want}")


def templates(folder):
    """Which template a file's names give, with and without tools, and that the built-in one is said to be used."""
    source = json.load(open(os.path.join(ROOT, "tests/data/text/llama3.json"), encoding="utf-8"))
    path, key = os.path.join(folder, "templates.gguf"), "tokenizer.chat_template"
    plain, tools = {"messages": [{"role": "user", "content": "hi"}]}, {"tools": [{"type": "function", "function": {"name": "f"}}]}

    def rendered(templates, variables):
        write_gguf(path, source, "llama-bpe", templates)
        done = subprocess.run([SHOAL, "render", path], input=json.dumps(variables).encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    both = {key: "plain {{ bos_token }}", f"{key}.tool_use": "with {{ tools[0].function.name }}", f"{key}.rag": "rag"}
    for name, given, variables, want in [
        ("default", both, plain, "plain <|begin|>"), ("tool_use", both, {**plain, **tools}, "with f"),
        ("no_tool_use", {key: "one {{ tools | length }}"}, {**plain, **tools}, "one 1"), ("only_one", {f"{key}.rag": "rag"}, plain, "rag"),
    ]:
        code, out, err = rendered(given, variables)
        say(f"render.{name}", None if (code, out, err) == (0, want, "") else f"{code} {out!r} {err!r}")
    code, out, err = rendered({}, plain)
    right = code == 0 and "<|im_start|>user\nhi<|im_end|>" in out and "no chat template: using the built-in ChatML" in err
    say("render.fallback_is_said", None if right else f"{code} {out!r} {err!r}")


def fixtures(folder):
    where = os.environ.get("SHOAL_FIXTURES")
    if not where:
        print("skip tokenize.fixtures: SHOAL_FIXTURES is not set")
        return
    where = os.path.join(where, "tokenizers")
    for vectors, vocabulary, pre in [("llama-bpe", "llama-bpe", None), ("qwen2", "qwen2", None), ("gpt-2", "gpt-2", None),
                                     ("llama-spm", "llama-spm", None), ("deepseek-llm", "deepseek-llm", None),
                                     ("pre-kimi-k2", "llama-bpe", "kimi-k2"), ("pre-gpt-4o", "llama-bpe", "gpt-4o")]:
        path = os.path.join(where, f"ggml-vocab-{vocabulary}.gguf")
        if pre:
            copy = os.path.join(folder, "copy.gguf")
            subprocess.run([sys.executable, os.path.join(where, "set_pre.py"), path, copy, pre], check=True)
            path = copy
        why = None
        lines = [json.loads(line) for line in open(os.path.join(where, f"{vectors}.extra.jsonl"), encoding="utf-8")]
        for line in lines[3::24] + lines[-2:]:
            mode = [] if line.get("add_special") else ["--special"] if line.get("parse_special") else ["--raw"]
            got = shoal(path, *mode, stdin=line["text"].encode())
            if got.returncode or json.loads(got.stdout) != line["ids"]:
                why = f"{line} gave {got.stdout!r} {got.stderr!r}"
                break
        say(f"tokenize.fixture_{vectors}", why)


def main():
    with tempfile.TemporaryDirectory() as folder:
        own_vocabulary(folder)
        phi3(folder)
        templates(folder)
        fixtures(folder)
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
