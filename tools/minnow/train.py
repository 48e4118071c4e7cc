"""Trains minnow. Answers-only loss, documents packed, Muon for the matrices and AdamW for the rest.

  /usr/bin/python3 train.py WORK [--steps N] [--minutes M] [--workers 2]

Each step sums the gradient of micro-batches of short rows and of long rows, so that short documents do not pay for
long attention. Workers are processes of one thread that take micro-batches from a queue: on a shared machine a worker
that loses its core holds the others up by one micro-batch at most, where a threaded product would stall at each
barrier. Weights and optimiser state lie in shared memory; each worker updates a share of them.
The learning rate follows the share of the plan that is done: warm-up, constant, linear decay in the
last part: the plan is a number of steps, or minutes of training, or whichever of the two is further on. Writes a
checkpoint every five minutes and resumes from it; the corpus is made on the fly, so a changed mixture takes effect at
the next start. With --time it times that many steps (fewer when --limit seconds are over) and saves nothing.
"""
import argparse
import json
import math
import os
import signal
import time

import blas  # noqa: F401  before torch
import torch
import torch.multiprocessing as mp

import bpe
import corpus
from common import Gen
from model import Minnow

SIZES = (128, 256, 512)               # row lengths; a document goes into the shortest row that suits it
FITS = {128: 96, 256: 256, 512: 512}  # the longest document of each
ROWS = {128: 8, 256: 4, 512: 2}       # rows of a micro-batch: small enough for the caches


def micro_batches(step):
    """The micro-batches of a step, longest first."""
    return [512, 512 if step % 2 == 0 else 256, 256, 256, 128]


class Packer:
    """Fills rows with whole documents; one longer than the longest row is left out."""

    def __init__(self, tok, seed):
        self.tok, self.g = tok, Gen(seed)
        self.open = {size: [] for size in SIZES}
        self.full = {size: [] for size in SIZES}

    def add(self):
        ids, mask = corpus.encode(self.tok, *corpus.document(self.g))
        size = next((x for x in SIZES if len(ids) <= FITS[x]), None)
        if size is None:
            return
        row = self.fitting(size, len(ids))
        n = row[1][-1] + 1 if row[1] else 1
        row[0].extend(ids)
        row[1].extend([n] * len(ids))
        row[2].extend(mask)

    def fitting(self, size, n):
        """A row with room for n tokens: what a long document has left, the first that fits among a few open ones, or a new one."""
        if size == SIZES[1]:
            for row in self.open[SIZES[2]]:
                if len(row[0]) >= size and len(row[0]) + n <= SIZES[2]:
                    return row
        rows = self.open[size]
        for row in rows:
            if len(row[0]) + n <= size:
                return row
        if len(rows) >= 16:
            rows.sort(key=lambda x: len(x[0]))
            self.full[size].append(rows.pop())
        rows.append(([], [], []))
        return rows[-1]

    def batch(self, size):
        want = ROWS[size]
        while len(self.full[size]) < want:
            self.add()
        rows, self.full[size] = self.full[size][:want], self.full[size][want:]
        ids, doc, train = (torch.zeros(want, size, dtype=torch.long) for _ in range(3))
        for i, r in enumerate(rows):
            n = len(r[0])
            ids[i, :n], doc[i, :n], train[i, :n] = torch.tensor(r[0]), torch.tensor(r[1]), torch.tensor(r[2]).long()
        return ids, doc, train.bool()


def orthogonal(g):
    """Newton-Schulz iteration towards the nearest half-orthogonal matrix (Muon, Jordan 2024)."""
    x = g / (g.norm() + 1e-7)
    t = x.shape[0] > x.shape[1]
    x = x.t() if t else x
    for _ in range(5):
        a = x @ x.t()
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.t() if t else x


class Optimiser:
    """Muon for matrices, AdamW for the embedding and the norms; worker `rank` of `workers` updates its own share."""

    def __init__(self, model):
        named = list(model.named_parameters())
        matrices = [p for n, p in named if p.dim() == 2 and n != "embed"]
        self.momentum = [torch.zeros_like(p).share_memory_() for p in matrices]
        self.matrices = list(zip(matrices, self.momentum))
        rest = [p for n, p in named if p.dim() != 2 or n == "embed"]
        self.rest = [(p, torch.zeros_like(p).share_memory_(), torch.zeros_like(p).share_memory_()) for p in rest]

    @torch.no_grad()
    def step(self, lr, t, rank, workers):
        for p, m in self.matrices[rank::workers]:
            m.mul_(0.95).add_(p.grad)
            u = orthogonal(p.grad + 0.95 * m)
            p.mul_(1 - 0.02 * 0.1 * lr).add_(u, alpha=-0.02 * lr * math.sqrt(max(1, p.shape[0] / p.shape[1])))
        if rank == workers - 1:
            for p, m, v in self.rest:
                m.mul_(0.9).add_(p.grad, alpha=0.1)
                v.mul_(0.98).addcmul_(p.grad, p.grad, value=0.02)
                c1, c2 = 1 - 0.9 ** t, 1 - 0.98 ** t
                p.addcdiv_(m, (v / c2).sqrt_().add_(1e-10), value=-2e-3 * lr / c1)

    def state(self):
        return [self.momentum, [x[1] for x in self.rest], [x[2] for x in self.rest]]

    def load(self, s):
        for mine, theirs in zip(self.state(), s):
            for a, b in zip(mine, theirs):
                a.copy_(b)


def schedule(done, step, decay):
    return min(1.0, (step + 1) / 50) * (1.0 if done < 1 - decay else max(0.02, (1 - done) / decay))


def save(path, model, opt, state):
    torch.save({"model": model.state_dict(), "config": model.c, "opt": opt.state(), "state": state}, path + ".new")
    os.replace(path + ".new", path)


class Shared:
    """What the workers share besides the weights: gradients, the queue of micro-batches, counts, a barrier."""

    def __init__(self, model, workers):
        self.barrier = mp.Barrier(workers)
        self.next = mp.Value("i", 0)
        self.stop = mp.Value("i", 0)
        self.rate = mp.Value("d", 0.0)
        self.grads = [[torch.zeros_like(p).share_memory_() for p in model.parameters()] for _ in range(workers)]
        self.sums = torch.zeros(workers, 5, dtype=torch.float64).share_memory_()     # loss, count of short; of long; CPU seconds


def work(rank, workers, model, opt, shared, packer, step):
    """One step's share: take micro-batches while there are any, then update this worker's share of the weights."""
    for p, g in zip(model.parameters(), shared.grads[rank]):
        p.grad = g.zero_()
    shared.sums[rank].zero_()
    began = time.process_time()
    todo = micro_batches(step)
    while True:
        with shared.next.get_lock():
            n = shared.next.value
            shared.next.value += 1
        if n >= len(todo):
            break
        loss, count = model.loss(*packer.batch(todo[n]))
        loss.backward()
        k = 0 if todo[n] == SIZES[0] else 2
        shared.sums[rank, k] += loss.item()
        shared.sums[rank, k + 1] += count
    shared.sums[rank, 4] = time.process_time() - began
    shared.barrier.wait()
    total = shared.sums.sum(0)
    with torch.no_grad():
        mine = {id(p) for p, _ in opt.matrices[rank::workers]}
        if rank == workers - 1:
            mine |= {id(x[0]) for x in opt.rest}
        for i, p in enumerate(model.parameters()):
            if id(p) in mine:
                p.grad = torch.stack([g[i] for g in shared.grads]).sum(0).div_(float(total[1] + total[3]))
    opt.step(shared.rate.value, step + 1, rank, workers)
    return total


def helper(rank, workers, model, opt, shared, packer, state):
    step = state["step"]
    while True:
        shared.barrier.wait()
        if shared.stop.value:
            return
        work(rank, workers, model, opt, shared, packer, step)
        step += 1
        shared.barrier.wait()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("work")
    ap.add_argument("--minutes", type=float, default=0)
    ap.add_argument("--steps", type=int, default=0)
    ap.add_argument("--workers", type=int, default=2)
    ap.add_argument("--decay", type=float, default=0.4)
    ap.add_argument("--time", type=int, default=0, help="time this many steps, save nothing")
    ap.add_argument("--limit", type=float, default=600, help="seconds after which the timing ends")
    ap.add_argument("--config", default="{}", help="JSON overriding model.CONFIG")
    a = ap.parse_args()
    if not (a.steps or a.minutes or a.time):
        ap.error("how long? --steps, --minutes or --time")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    tok = bpe.Tokenizer.load(os.path.join(a.work, "bpe.json"))
    ckpt = os.path.join(a.work, "checkpoint.pt")
    c = torch.load(ckpt) if os.path.exists(ckpt) and not a.time else None
    model = Minnow(c["config"] if c else json.loads(a.config))
    model.share_memory()
    opt, state = Optimiser(model), {"step": 0, "seconds": 0.0}
    if c:
        model.load_state_dict(c["model"])
        opt.load(c["opt"])
        state = c["state"]
    print("parameters", sum(p.numel() for p in model.parameters()), "from", state, flush=True)
    shared = Shared(model, a.workers)
    packers = [Packer(tok, "corpus %d %d" % (state["step"], r)) for r in range(a.workers)]
    helpers = [mp.Process(target=helper, args=(r, a.workers, model, opt, shared, packers[r], dict(state)), daemon=True)
               for r in range(1, a.workers)]
    for h in helpers:
        h.start()
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))     # save and stop
    before, start, saved, cpu = state["seconds"], time.time(), time.time(), 0.0
    seen = torch.zeros(5, dtype=torch.float64)
    while True:
        state["seconds"] = before + time.time() - start
        if a.time:
            done = max(state["step"] / a.time, (time.time() - start) / a.limit)
        else:
            done = max(state["step"] / a.steps if a.steps else 0, state["seconds"] / 60 / a.minutes if a.minutes else 0, len(asked))
        shared.stop.value = int(done >= 1)
        shared.next.value = 0
        shared.rate.value = schedule(done, state["step"], a.decay)
        shared.barrier.wait()
        if shared.stop.value:
            break
        seen += work(0, a.workers, model, opt, shared, packers[0], state["step"])
        shared.barrier.wait()
        state["step"] += 1
        if state["step"] % 50 == 0:
            cpu += float(seen[4]) / 60
            print("step %d  %.1f min (%.1f CPU)  loss short %.4f long %.4f  done %.3f" % (
                state["step"], (before + time.time() - start) / 60, cpu, seen[0] / seen[1], seen[2] / seen[3], done), flush=True)
            seen.zero_()
        if time.time() - saved > 300 and not a.time:
            save(ckpt, model, opt, state)
            saved = time.time()
    if a.time:
        print("seconds per step %.3f" % ((time.time() - start) / state["step"]))
    else:
        save(ckpt, model, opt, state)
        print("trained for %d steps of %d tokens in %.0f minutes" % (
            state["step"], sum(x * ROWS[x] for x in micro_batches(1)), state["seconds"] / 60), flush=True)


if __name__ == "__main__":
    main()
