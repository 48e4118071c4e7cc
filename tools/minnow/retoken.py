"""Carries a checkpoint over to another tokenizer: retoken.py OLD_WORK/checkpoint.pt OLD.json WORK -> WORK/checkpoint.pt for WORK/bpe.json

A token that both vocabularies have keeps its row; a new one gets the mean of the rows of its old pieces. The rest of
the network stays, the optimiser keeps the matrices' momentum, and the count of steps starts at 0. Some training must
follow: sentences now break up differently.
"""
import os
import sys

import blas  # noqa: F401  before torch
import torch

from bpe import Tokenizer, UNBYTES

old, new = Tokenizer.load(sys.argv[2]), Tokenizer.load(os.path.join(sys.argv[3], "bpe.json"))
c = torch.load(sys.argv[1])
e = c["model"]["embed"]
rows, kept = [], 0
for t in new.tokens:
    if t in old.ids:
        rows.append(e[old.ids[t]])
        kept += 1
    else:
        rows.append(e[old.bpe(bytes(UNBYTES[x] for x in t).decode("utf-8"))].mean(0))
c["model"]["embed"] = torch.stack(rows)
_, first, second = c["opt"]
for moments in (first, second):
    for m in moments:
        m.zero_()
c["state"] = {"step": 0, "seconds": 0.0}
torch.save(c, os.path.join(sys.argv[3], "checkpoint.pt"))
print("%d of %d tokens kept" % (kept, len(new.tokens)))
