"""Asks a GGUF of minnow the held-out items in torch, greedily, with the quantised weights.

  /usr/bin/python3 evaluate.py MODEL.gguf [--n 1000] [--seed 1] [--items FILE] [--json FILE] [-v] [--float-activations]
  /usr/bin/python3 evaluate.py MODEL.gguf --ask "What is 12 + 30?" [--think]

Activations that enter a product are rounded to int8 in blocks of 32, as shoal does. The checks are those of
tests/e2e/minnow_items.py. Status 1 when a bar is missed.
"""
import argparse
import json
import os
import sys
import time

import blas  # noqa: F401  before torch
import torch

import bpe
import corpus
import gguf
from export import NAMES
from model import Minnow
from template import render

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/e2e"))
import minnow_items  # noqa: E402


def load(path):
    meta, w = gguf.read(path)
    m = {k[6:]: v for k, v in meta.items() if k.startswith("llama.")}
    c = {"vocab": m["vocab_size"], "width": m["embedding_length"], "layers": m["block_count"], "heads": m["attention.head_count"],
         "kv_heads": m["attention.head_count_kv"], "head_width": m["rope.dimension_count"], "ffn": m["feed_forward_length"],
         "context": m["context_length"], "rope_base": m["rope.freq_base"], "eps": m["attention.layer_norm_rms_epsilon"]}
    model = Minnow(c)
    state = {"embed": w["token_embd.weight"], "norm": w["output_norm.weight"]}
    for i in range(c["layers"]):
        for mine, theirs in NAMES.items():
            state["blocks.%d.%s" % (i, mine)] = w["blk.%d.%s.weight" % (i, theirs)]
    model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()})
    tok = bpe.Tokenizer([x.split(" ") for x in meta["tokenizer.ggml.merges"]])
    assert tok.tokens == meta["tokenizer.ggml.tokens"]
    return model.eval(), tok


def int8(x):
    b = x.reshape(-1, 32)
    d = b.abs().amax(1, keepdim=True) / 127
    return ((b / d.clamp_min(1e-30)).round() * d).view(x.shape)


@torch.no_grad()
def generate(model, tok, prompts, act, limit=160):
    """Greedy answers (token ids) for a batch of prompts, padded on the left."""
    B, T = len(prompts), max(map(len, prompts))
    ids, real = torch.zeros(B, T, dtype=torch.long), torch.zeros(B, T, dtype=torch.bool)
    for i, p in enumerate(prompts):
        ids[i, T - len(p):], real[i, T - len(p):] = torch.tensor(p), True
    pos = (real.long().cumsum(1) - 1).clamp_min(0)
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    mask = torch.zeros(B, T, T).masked_fill_(~(causal & real[:, None, :]), -1e9)
    caches = [[] for _ in model.blocks]
    h = model.hidden(ids, mask, pos, caches, act)[:, -1:]
    out, rows, pos = [[] for _ in prompts], list(range(B)), pos[:, -1:]
    for _ in range(limit):
        nxt = ((act(h) if act else h)[:, -1] @ model.embed.t()).argmax(-1)
        going = [n for n, t in enumerate(nxt.tolist()) if t != tok.eos]
        if not going:
            break
        if len(going) < len(rows):           # a finished row leaves the batch
            keep = torch.tensor(going)
            nxt, real, pos, rows = nxt[keep], real[keep], pos[keep], [rows[n] for n in going]
            for c in caches:
                c[:] = [x[keep] for x in c]
        for n, t in zip(rows, nxt.tolist()):
            out[n].append(t)
        real = torch.cat((real, torch.ones(len(rows), 1, dtype=torch.bool)), 1)
        pos = pos + 1
        mask = torch.zeros(len(rows), 1, real.shape[1]).masked_fill_(~real[:, None, :], -1e9)
        h = model.hidden(nxt[:, None], mask, pos, caches, act)
    return out


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("--n", type=int, default=1000)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--items")
    ap.add_argument("--json", metavar="FILE", help="write the figures there as JSON")
    ap.add_argument("--ask")
    ap.add_argument("--think", action="store_true")
    ap.add_argument("--float-activations", action="store_true")
    ap.add_argument("--slack", type=float, default=0)
    ap.add_argument("-v", action="store_true")
    a = ap.parse_args()
    torch.set_num_threads(1)
    model, tok = load(a.model)
    act = None if a.float_activations else int8
    if a.ask:
        text = render([{"role": "user", "content": a.ask}], enable_thinking=a.think)
        print(tok.decode(generate(model, tok, [tok.encode(text)], act)[0]))
        return 0
    if a.items:
        with open(a.items, encoding="utf-8") as f:
            items = [json.loads(line) for line in f]
    else:
        items = corpus.heldout(a.n, a.seed)
    prompts = [tok.encode(render(i["messages"], i.get("tools"), bool(i.get("enable_thinking")))) for i in items]
    order, answers, start = sorted(range(len(items)), key=lambda i: len(prompts[i])), {}, time.time()
    for k in range(0, len(order), 64):
        part = order[k:k + 64]
        for i, ids in zip(part, generate(model, tok, [prompts[i] for i in part], act)):
            answers[i] = tok.decode(ids)
    score = minnow_items.Score()
    for i, it in enumerate(items):
        score.add(it, {"role": "assistant", "content": answers[i]})
    if a.v:
        for it, m in score.failures:
            print("WRONG %s%s: %r\n   wanted %s\n   got %r" % (it["category"], " (thinking)" if it.get("enable_thinking") else "",
                                                         it["messages"][-1]["content"], json.dumps(it["check"]), m["content"]))
    good = score.report(a.slack)
    if a.json:
        score.save(a.json)
    print("%d items in %.0f s" % (len(items), time.time() - start))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
