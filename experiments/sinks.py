"""Chapter 6: a head with nothing to do looks at the first token, and a window takes that away.

Rows of `lib.data.backcopy_rows`: the next word depends on the last one alone, but after a trigger
the word before it comes back. One layer of one head, which is needed at triggers only. For every
kind of model and seed: how much it attends to token 0 at triggers and elsewhere, how long the value
is that it finds there, and the loss with all tokens to see, with the last 8, and with the first and
the last 7. A row of 64 is no longer than in training: a learned position is never a new one.

    python -m experiments.sinks
"""

import time

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from experiments import write_table
from lib.attention import attention_weights
from lib.cache import SlidingWindowCache
from lib.config import ModelConfig
from lib.data import backcopy_rows, bigram_table
from lib.training import train
from lib.transformer import Transformer

N_WORDS, N_TRIGGERS, SEQ_LEN, STEPS, WINDOW = 24, 4, 64, 600, 8
TABLE = bigram_table(N_WORDS)
KINDS = {  # name: position, whether a row begins with the mark, how weights start
    "learned": ("learned", True, 0.02),
    "learned, no mark": ("learned", False, 0.02),
    "learned, larger start": ("learned", True, None),
    "RoPE": ("rope", True, 0.02),
    "RoPE, no mark": ("rope", False, 0.02),
}


def build(position="learned", std=0.02):
    """One layer, 32 wide, one head, a GELU feed-forward of 128; matrices start as N(0, std²).

    0.02 is GPT-2's choice. `std=None` leaves the start as `Transformer` makes it, which is larger.
    """
    model = Transformer(
        ModelConfig(
            vocab_size=N_WORDS + 1, n_layers=1, d_model=32, n_heads=1, d_ff=128,
            position=position, activation="gelu", gated=False, max_seq_len=SEQ_LEN,
        )
    )  # fmt: skip
    for p in model.parameters():
        if p.ndim == 2 and std is not None:
            nn.init.normal_(p, std=std)
    return model


def rows(n_rows, generator=None, mark=True):
    """Rows as a model gets them -> ids, copied, both (n_rows, T); without the mark T is 1 less."""
    ids, copied = backcopy_rows(n_rows, TABLE, SEQ_LEN, N_TRIGGERS, generator)
    return (ids, copied) if mark else (ids[:, 1:], copied[:, 1:])


def held_out(mark=True, n_rows=512):
    """Rows that no training saw -> ids, copied, both (n_rows, T)."""
    return rows(n_rows, torch.Generator().manual_seed(10**6), mark)


def loss_on(model, ids, cache=None):
    """Mean cross-entropy in nats of all tokens after the first: ids (B, T)."""
    logits = model(ids[:, :-1], caches=None if cache is None else [cache])
    return cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def true_loss(ids, copied):
    """What one loses who knows the table and the rule: no model does better, but by luck."""
    loss = -TABLE[ids[:, :-1] % N_WORDS, ids[:, 1:]].log()  # % N_WORDS: the mark has no row ...
    first = ids[:, :-1] == N_WORDS
    loss[first] = torch.tensor(N_WORDS - N_TRIGGERS).log()  # ... after it all but triggers may come
    return loss.masked_fill(copied[:, 1:], 0.0).mean().item()


def fit(model, seed=0, steps=STEPS, mark=True, on_step=None):
    """Train on fresh rows -> the losses, one a step."""
    g = torch.Generator().manual_seed(seed)

    def loss():
        return loss_on(model, rows(32, g, mark)[0])

    return train(model, loss, steps, lr=1e-2, betas=(0.9, 0.98), on_step=on_step)


@torch.no_grad()
def look(model, ids):
    """The weights of the head, (B, T, T), and the lengths of the values it reads, (B, T)."""
    seen = []

    def keep(layer, args, kwargs):
        q, k, v, bias = layer.qkv(*args, **kwargs)
        seen.extend((attention_weights(q, k, bias)[:, 0], v[:, 0].norm(dim=-1)))

    hook = model.blocks[0].attention.register_forward_pre_hook(keep, with_kwargs=True)
    model(ids)
    hook.remove()
    return seen


def sink(model, ids, copied):
    """Mean weight on token 0 where nothing is to be copied and where something is, and |v₀|/|v|.

    Counted are queries whose window has lost token 0; the other values' lengths are a mean.
    """
    weights, lengths = look(model, ids[:, :-1])  # (B, T, T), (B, T)
    at_first, trigger = weights[:, WINDOW:, 0], copied[:, 1 + WINDOW :]  # a trigger comes before
    length = (lengths[:, 0] / lengths[:, 1:].mean(1)).mean()
    return at_first[~trigger].mean().item(), at_first[trigger].mean().item(), length.item()


@torch.no_grad()
def losses(model, ids):
    """Loss with everything to see, with the last 8 tokens, with the first and the last 7."""
    caches = None, SlidingWindowCache(WINDOW), SlidingWindowCache(WINDOW - 1, sinks=1)
    return [loss_on(model, ids, cache).item() for cache in caches]


def run(kind, seed, steps=STEPS):
    """Train one model -> its row of the table."""
    position, mark, std = KINDS[kind]
    torch.manual_seed(seed)
    model = build(position, std)
    fit(model, seed, steps, mark)
    ids, copied = held_out(mark)
    names = ("full", "window", "first and window")
    row = {"kind": kind, "seed": seed, "floor": round(true_loss(ids, copied), 4)}
    row |= {name: round(loss, 4) for name, loss in zip(names, losses(model, ids))}
    names = ("on token 0", "on token 0 at triggers", "length of value 0")
    return row | {name: round(x, 4) for name, x in zip(names, sink(model, ids, copied))}


if __name__ == "__main__":
    torch.set_num_threads(1)
    started = time.time()
    write_table("sinks", [run(kind, seed) for kind in KINDS for seed in range(5)], started)
