"""Mean loss per trained token of each category on fresh training documents: catloss.py WORK [DOCUMENTS]"""
import collections
import os
import sys

import blas  # noqa: F401  before torch
import torch
import torch.nn.functional as F

import bpe
import corpus
from common import Gen
from model import Minnow

work, n = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 400
torch.set_num_threads(1)
tok = bpe.Tokenizer.load(os.path.join(work, "bpe.json"))
c = torch.load(os.path.join(work, "checkpoint.pt"))
model = Minnow(c["config"])
model.load_state_dict(c["model"])
g, total, count = Gen("catloss"), collections.Counter(), collections.Counter()
with torch.no_grad():
    for _ in range(n):
        kind = g.r.choices(list(corpus.MIX), list(corpus.MIX.values()))[0]
        it = corpus.toolcalls.make(g, others=corpus.plain) if kind == "tools" else corpus.SKILLS[kind](g)
        ids, mask = corpus.encode(tok, it["messages"], it.get("tools"))
        x, m = torch.tensor(ids)[None], torch.tensor(mask)
        T = len(ids)
        h = model.hidden(x, torch.zeros(1, T, T).masked_fill_(~torch.ones(T, T, dtype=torch.bool).tril(), -1e9))
        loss = F.cross_entropy(h[0, :-1] @ model.embed.t(), x[0, 1:], reduction="none")[m[1:]]
        total[it["category"]] += float(loss.sum())
        count[it["category"]] += len(loss)
for k in sorted(total, key=total.get, reverse=True):
    print("%-28s %.3f a token, %5.1f %% of the loss, %5.1f %% of the tokens" % (
        k, total[k] / count[k], 100 * total[k] / sum(total.values()), 100 * count[k] / sum(count.values())))
