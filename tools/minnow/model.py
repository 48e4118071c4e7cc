"""The model in torch: Llama's architecture (RMSNorm, RoPE over neighbouring pairs, GQA, SwiGLU, tied embedding).

Rotation pairs are (2i, 2i+1), which is what GGUF's `llama` architecture means, so q and k are exported as they are.
Documents are packed in rows: attention stays inside a document (equal `doc` numbers).
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

CONFIG = {"vocab": 2048, "width": 256, "layers": 4, "heads": 8, "kv_heads": 4, "head_width": 32, "ffn": 512, "context": 1024,
          "rope_base": 10000.0, "eps": 1e-6}


class RmsNorm(torch.autograd.Function):
    """One pass forward and a short backward: plain autograd keeps four more copies."""

    @staticmethod
    def forward(ctx, x, w, eps):
        r = torch.rsqrt(torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps))
        ctx.save_for_backward(x, w, r)
        return (x * r).mul_(w)

    @staticmethod
    def backward(ctx, g):
        x, w, r = ctx.saved_tensors
        n = x * r
        gw = (g * n).flatten(0, -2).sum(0)       # products and sums: einsum makes a matrix product of each row
        h = g * w
        dot = (h * n).sum(-1, keepdim=True)
        return h.addcmul_(n, dot, value=-1.0 / x.shape[-1]).mul_(r), gw, None


def rope_table(n, cfg):
    """[n, dh/2] complex: exp(i * position * frequency)."""
    half = cfg["head_width"] // 2
    f = cfg["rope_base"] ** (-torch.arange(half, dtype=torch.float64) * 2 / cfg["head_width"])
    a = torch.arange(n, dtype=torch.float64)[:, None] * f
    return torch.complex(a.cos(), a.sin()).to(torch.complex64)


def rotate(x, turn):
    """x [B, T, heads, dh]; turn [T, dh/2] or [B, T, dh/2]: neighbouring pairs are complex numbers."""
    if turn.dim() == 2:
        turn = turn[None]
    z = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(z * turn[:, :, None]).flatten(-2)


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up for x = [gate | up] on the last axis."""

    @staticmethod
    def forward(ctx, x):
        g, u = x.chunk(2, -1)
        s = torch.sigmoid(g)
        ctx.save_for_backward(x, s)
        return (g * s).mul_(u)

    @staticmethod
    def backward(ctx, d):
        x, s = ctx.saved_tensors
        g, u = x.chunk(2, -1)
        out = torch.empty_like(x)
        dg, du = out.chunk(2, -1)
        gs = g * s
        torch.mul(d, gs, out=du)
        torch.sub(1, s, out=dg)
        dg.mul_(gs).add_(s).mul_(u).mul_(d)      # silu' = s + g s (1 - s)
        return out


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, q, kv = c["width"], c["heads"] * c["head_width"], c["kv_heads"] * c["head_width"]
        self.c = c
        self.n1, self.n2 = nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d))

        def w(rows, cols):
            return nn.Parameter(torch.randn(rows, cols) / math.sqrt(cols) * 0.7)
        self.wq, self.wk, self.wv, self.wo = w(q, d), w(kv, d), w(kv, d), w(d, q)
        self.gate, self.up, self.down = w(c["ffn"], d), w(c["ffn"], d), w(d, c["ffn"])
        self.wo.data *= 0.3
        self.down.data *= 0.3

    def forward(self, x, turn, mask, cache=None, act=None, where=None):
        """where: [n] flat positions; only their outputs are computed, and the result is [n, D] (for the last block)."""
        act = act or (lambda t: t)
        c = self.c
        B, T, _ = x.shape
        G, dh, rep = c["kv_heads"], c["head_width"], c["heads"] // c["kv_heads"]
        h = act(RmsNorm.apply(x, self.n1, c["eps"]))
        qkv = F.linear(h, torch.cat((self.wq, self.wk, self.wv))).view(B, T, G * (rep + 2), dh)
        qk, v = qkv.split((G * (rep + 1), G), 2)
        q, k = rotate(qk, turn).split((G * rep, G), 2)
        if cache is not None:
            if cache:
                k, v = torch.cat((cache[0], k), 1), torch.cat((cache[1], v), 1)
            cache[:] = [k, v]
        S = k.shape[1]
        # query head h reads key head h / rep: [B*G, rep*T, dh] against [B*G, dh, S]
        q = q.view(B, T, G, rep, dh).permute(0, 2, 3, 1, 4).reshape(B * G, rep * T, dh)
        k = k.permute(0, 2, 3, 1).reshape(B * G, dh, S)
        v = v.permute(0, 2, 1, 3).reshape(B * G, S, dh)
        s = torch.bmm(q * (1 / math.sqrt(dh)), k).view(B, G, rep, T, S)
        s = s.add_(mask[:, None, None])
        o = torch.bmm(torch.softmax(s, -1).view(B * G, rep * T, S), v)
        o = o.view(B, G, rep, T, dh).permute(0, 3, 1, 2, 4).reshape(B, T, G * rep * dh)
        if where is not None:
            o, x = o.reshape(B * T, -1).index_select(0, where), x.reshape(B * T, -1).index_select(0, where)
        x = x + F.linear(act(o), self.wo)
        h = act(RmsNorm.apply(x, self.n2, c["eps"]))
        return x + F.linear(act(SwiGlu.apply(F.linear(h, torch.cat((self.gate, self.up))))), self.down)


class Minnow(nn.Module):
    def __init__(self, c=None):
        super().__init__()
        self.c = c = dict(CONFIG, **(c or {}))
        self.embed = nn.Parameter(torch.randn(c["vocab"], c["width"]) * 0.05)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = nn.Parameter(torch.ones(c["width"]))
        self.turn = rope_table(c["context"], c)

    def hidden(self, ids, mask, pos=None, caches=None, act=None, where=None):
        """ids [B, T] -> [B, T, D], or [n, D] at the flat positions `where`; mask [B, T, S] is added to the scores."""
        T = ids.shape[1]
        turn = self.turn[:T] if pos is None else self.turn[pos]
        x = F.embedding(ids, self.embed)
        for i, b in enumerate(self.blocks):
            x = b(x, turn, mask, None if caches is None else caches[i], act, where if i == len(self.blocks) - 1 else None)
        return RmsNorm.apply(x, self.norm, self.c["eps"])

    def loss(self, ids, doc, train):
        """Summed cross-entropy (and count) over positions whose NEXT token is trained; doc [B, T] numbers the documents."""
        T = ids.shape[1]
        causal = torch.ones(T, T, dtype=torch.bool).tril()
        mask = torch.zeros(ids.shape[0], T, T).masked_fill_(~((doc[:, :, None] == doc[:, None, :]) & causal), -1e9)
        last = torch.zeros_like(train[:, :1])
        where = torch.cat((train[:, 1:] & (doc[:, 1:] == doc[:, :-1]), last), 1).flatten().nonzero().squeeze(1)
        logits = F.linear(self.hidden(ids, mask, where=where), self.embed)
        return F.cross_entropy(logits, ids.flatten()[where + 1], reduction="sum"), len(where)
