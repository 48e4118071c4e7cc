#!/usr/bin/env python3
"""Model files that change, cannot be read or are not what they say, under a running `shoal serve` (variable SHOAL): a rank may end, with words that say
why; the node does not. Also a home that cannot be written. Lines `ok NAME`, `skip NAME: why` or `not ok NAME: why`. Python 3 standard library only."""
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import test_serve as serve  # pylint: disable=wrong-import-position

LAYERS, WIDTH, HIDDEN = 8, 1024, 4096
failed = []


class Skipped(Exception):
    """Why a test cannot run here."""


# ---- a large file of zeros that takes no room -------------------------------------------------------------------------------


def text(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def number(n):
    return struct.pack("<II", 4, n)


def array(kind, packed, n):
    return struct.pack("<IIQ", 9, kind, n) + packed


def byte_letters():
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return [chr(b) if b in keep else chr(next(rest)) for b in range(256)]


def sparse_model(path):
    """A llama of half a gigabyte of F32 zeros, all of it a hole."""
    tensors = [("token_embd.weight", (WIDTH, 256)), ("output_norm.weight", (WIDTH,))]
    for i in range(LAYERS):
        tensors += [(f"blk.{i}.attn_norm.weight", (WIDTH,)), (f"blk.{i}.ffn_norm.weight", (WIDTH,)),
                    (f"blk.{i}.ffn_gate.weight", (WIDTH, HIDDEN)), (f"blk.{i}.ffn_up.weight", (WIDTH, HIDDEN)),
                    (f"blk.{i}.ffn_down.weight", (HIDDEN, WIDTH))]
        tensors += [(f"blk.{i}.attn_{k}.weight", (WIDTH, WIDTH)) for k in ("q", "k", "v", "output")]
    letters = byte_letters()
    keys = {
        "general.architecture": struct.pack("<I", 8) + text("llama"),
        "llama.context_length": number(256), "llama.embedding_length": number(WIDTH), "llama.block_count": number(LAYERS),
        "llama.feed_forward_length": number(HIDDEN), "llama.attention.head_count": number(16),
        "llama.attention.layer_norm_rms_epsilon": struct.pack("<If", 6, 1e-5), "llama.rope.dimension_count": number(WIDTH // 16),
        "tokenizer.ggml.model": struct.pack("<I", 8) + text("gpt2"), "tokenizer.ggml.pre": struct.pack("<I", 8) + text("gpt-2"),
        "tokenizer.ggml.tokens": array(8, b"".join(map(text, letters)), 256),
        "tokenizer.ggml.token_type": array(5, struct.pack("<256i", *[1] * 256), 256),
        "tokenizer.ggml.merges": array(8, text("a b"), 1),
    }
    offset, directory = 0, b""
    for name, shape in tensors:
        size = 4
        for n in shape:
            size *= n
        directory += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", 0, offset)
        offset += (size + 31) // 32 * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(text(k) + v for k, v in keys.items()) + directory
    with open(path, "wb") as f:
        f.write(head)
        f.truncate((len(head) + 31) // 32 * 32 + offset)
    return len(head)


# ---- tests --------------------------------------------------------------------------------------------------------------------


def has_mapped(pid, path):
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
            return path in f.read()
    except OSError:
        return False


def children(pid):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as f:
                    if int(f.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found.append(int(name))
            except OSError:
                pass
    return found


def cut_short_while_loading(node, folder):
    """SIGBUS: the file loses its weights after the rank has mapped them and before it has read them all."""
    if not os.path.isdir("/proc/self"):
        raise Skipped("no /proc to see what a process has mapped")
    path = os.path.join(folder, "zeros.gguf")
    head, answers = sparse_model(path), []
    thread = threading.Thread(target=lambda: answers.append(node.post("/v1/completions", {"model": path, "prompt": "x", "max_tokens": 1})))
    thread.start()
    end = time.monotonic() + serve.WAIT_S
    while not answers and not any(has_mapped(pid, path) for pid in children(node.process.pid)):
        assert time.monotonic() < end, "no rank has mapped the file"
    os.truncate(path, head + 4096)
    thread.join(serve.WAIT_S)
    code, answer = answers[0]
    assert code >= 400, f"it was read before it was cut: {answer}"
    message = answer["error"]["message"]
    assert "cut short while it was being read" in message or "cut short while it was being read" in node.said, f"{message}\n{node.said[-800:]}"
    assert node.process.poll() is None
    answers_again(node)


def answers_again(node):
    code, answer = node.post("/v1/completions", {"model": serve.TINY, "prompt": "x", "max_tokens": 2})
    assert code == 200, answer


def not_what_it_says(node, folder):
    """Files that are no models, by path: named in a 4xx, and the node goes on."""
    with open(serve.TINY, "rb") as f:
        good = f.read()
    for name, data in (("empty.gguf", b""), ("magic.gguf", b"GGUX" + good[4:]), ("half.gguf", good[:len(good) // 2]), ("text.gguf", b"hello\n" * 9)):
        path = os.path.join(folder, name)
        with open(path, "wb") as f:
            f.write(data)
        code, answer = node.post("/v1/completions", {"model": path, "prompt": "x", "max_tokens": 1})
        assert 400 <= code < 600 and name in answer["error"]["message"], f"{name}: {code} {answer}"
        answers_again(node)


def not_readable(folder):
    """Root reads everything, so the node runs without that privilege."""
    path, wrapper = os.path.join(folder, "secret.gguf"), os.path.join(folder, "shoal")
    plain = os.environ["SHOAL"]
    shutil.copyfile(serve.TINY, path)
    os.chmod(path, 0)
    if os.access(path, os.R_OK):
        if not shutil.which("setpriv"):
            raise Skipped("permissions do not bind this user, and there is no setpriv")
        with open(wrapper, "w", encoding="utf-8") as f:
            f.write(f'#!/bin/sh\nexec setpriv --bounding-set=-all --inh-caps=-all "{os.path.abspath(plain)}" "$@"\n')
        os.chmod(wrapper, 0o700)
        os.environ["SHOAL"] = wrapper
    try:
        with serve.running(serve.TINY) as node:
            code, answer = node.post("/v1/completions", {"model": path, "prompt": "x", "max_tokens": 1})
            assert code >= 400 and "ermission" in answer["error"]["message"], f"{code} {answer}"
            answers_again(node)
    finally:
        os.environ["SHOAL"] = plain


READ_ONLY = """
mount -t tmpfs -o size=64k,mode=700 tmpfs "$HOME" && mount -o remount,ro "$HOME" || exit 77
exec "$@"
"""


def in_read_only_home(home, *command):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
    return subprocess.Popen(["unshare", "-rm", "sh", "-c", READ_ONLY, "ro", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, env={**environment, "HOME": home})


def read_only_home():
    """Commands work, and a node goes on without a data folder, saying which folder cannot be made and why."""
    home = tempfile.mkdtemp(prefix="shoal-ro-")
    try:
        for command in (["true"], [os.environ["SHOAL"], "run", serve.TINY, "--max-tokens", "2", "x"], [os.environ["SHOAL"], "list"]):
            with in_read_only_home(home, *command) as p:
                said = p.communicate(timeout=serve.WAIT_S)[0]
            if command == ["true"] and p.returncode:
                raise Skipped("no file system can be mounted in a namespace of one's own")
            assert p.returncode == 0, f"{command[1:]}: {p.returncode} {said}"
        with in_read_only_home(home, os.environ["SHOAL"], "serve", "--port", "0", serve.TINY) as p:
            said = ""
            while "is ready at" not in said:
                line = p.stdout.readline()
                assert line, said
                said += line
            p.send_signal(signal.SIGINT)
            said += p.communicate(timeout=serve.WAIT_S)[0]
        assert p.returncode == 0 and "Read-only" in said and home in said, f"{p.returncode} {said}"
    except FileNotFoundError as error:
        raise Skipped(f"{error.filename} is not here") from error
    finally:
        shutil.rmtree(home, ignore_errors=True)


def run(function, *arguments):
    name = function.__name__
    try:
        function(*arguments)
        print(f"ok bad files: {name}", flush=True)
    except Skipped as why:
        print(f"skip bad files: {name}: {why}", flush=True)
    except Exception as error:  # pylint: disable=broad-except
        failed.append(name)
        print(f"not ok bad files: {name}: {' '.join(f'{type(error).__name__} {error}'.split())[:2000]}", flush=True)


def main():
    with tempfile.TemporaryDirectory(prefix="shoal-bad-") as folder, serve.running(serve.TINY) as node:
        for function in (cut_short_while_loading, not_what_it_says):
            run(function, node, folder)
        run(not_readable, folder)
    run(read_only_home)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
