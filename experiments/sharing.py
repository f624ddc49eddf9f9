"""Chapters 7 and 8: what sharing keys and values costs in recall, and how a model is converted.

Cards: `lib.data.card_rows`, and one layer with no positions. MHA, GQA, MQA and latent attention as
they come, at two head widths; with as many parameters, by a wider feed-forward; with as large a
cache, by fewer or narrower heads; and a few of them trained twice as long. The cache is the
numbers kept of one token. Latent attention has to have a rotary key: it gets the narrowest, of two
features, paid for by its rank. It is also trained without the norm on its latent.

Conversion: `lib.data.recall_rows`, and chapter 4's model with RoPE, two layers of four heads of 16.
Trained, turned into one of two key heads or one, and trained a little more; beside it a new model.

    python -m experiments.sharing
"""

import time
from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from experiments import positions, write_table
from lib.accounting import kv_cache_bytes
from lib.config import ModelConfig
from lib.data import card_rows, recall_rows
from lib.training import train
from lib.transformer import Transformer, share_heads

# ---- Recall on cards ----------------------------------------------------------------------------

CARDS = {"n_cards": 8, "n_attributes": 4, "n_values": 16}
SMALL = {"n_cards": 6, "n_attributes": 3, "n_values": 8}  # for a live run: head_dim 4, 500 steps
STEPS, LONG = 1200, 2400
ROTARY = 2  # the features of a latent model's rotary key
KEY_HEADS = {"MHA": 8, "GQA-4": 4, "GQA-2": 2, "MQA": 1}  # of eight query heads


class CardReader(nn.Module):
    """A model whose tokens are sums of embeddings: of a card's values, of a query's two ids."""

    def __init__(self, config):
        super().__init__()
        self.model = Transformer(config)

    def forward(self, cards, queries):
        """cards (B, N, A), queries (B, Q, 2) -> logits (B, Q, V)."""
        embed = self.model.embedding
        x = torch.cat((embed(cards).sum(2), embed(queries).sum(2)), 1)  # (B, N + Q, C)
        for block in self.model.blocks:
            x = block(x)
        return self.model.head(self.model.norm(x[:, cards.shape[1] :]))


def config(n_heads=8, n_kv_heads=None, head_dim=8, latent=None, d_ff=128, cards=CARDS):
    """One layer, 64 wide. `latent`: MLA that keeps so many numbers a token, its rotary key too."""
    sizes = {"position": "none"}
    if latent is not None:
        sizes = {
            "position": "rope", "kv_lora_rank": latent - ROTARY, "qk_nope_head_dim": head_dim,
            "qk_rope_head_dim": ROTARY, "v_head_dim": head_dim,
        }  # fmt: skip
    return ModelConfig(
        vocab_size=cards["n_attributes"] * (cards["n_values"] + 1), n_layers=1, d_model=64,
        n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim, d_ff=d_ff, activation="gelu",
        gated=False, **sizes,
    )  # fmt: skip


def build(latent_norm=True, **sizes):
    """A reader of cards: the other arguments are those of `config`.

    `latent_norm=False` takes the norm off MLA's latent: no other variant normalises its keys.
    """
    reader = CardReader(config(**sizes))
    if not latent_norm:
        for block in reader.model.blocks:
            block.attention.kv_norm = nn.Identity()
    return reader


def fit(model, seed=0, steps=STEPS, cards=CARDS, on_step=None):
    """Train on fresh rows -> the losses, one a step."""
    g = torch.Generator().manual_seed(seed)

    def loss():
        shown, queries, answers = card_rows(32, **cards, generator=g)
        return cross_entropy(model(shown, queries).flatten(0, 1), answers.flatten())

    return train(model, loss, steps, lr=5e-3, betas=(0.9, 0.98), on_step=on_step)


@torch.no_grad()
def accuracy(model, cards=CARDS, n_rows=512):
    """The share of queries answered right, on rows that no training saw."""
    g = torch.Generator().manual_seed(10**6)
    shown, queries, answers = card_rows(n_rows, **cards, generator=g)
    return (model(shown, queries).argmax(-1) == answers).float().mean().item()


def cache_per_token(config):
    """Numbers that the one layer keeps of one token."""
    return kv_cache_bytes(config, seq_len=1, bytes_per_number=1)


def count(model):
    """Parameters of a model."""
    return sum(p.numel() for p in model.parameters())


def widen(**sizes):
    """`sizes` with the d_ff that brings the parameters nearest to those of the plain MHA."""
    missing = count(build()) - count(build(**sizes))
    return sizes | {"d_ff": 128 + round(missing / (2 * 64))}


def variants():
    """All that is trained -> (comparison, kind, sizes, steps)."""
    shared = [(kind, {"n_kv_heads": n}) for kind, n in KEY_HEADS.items()]
    latent = [(f"MLA-{n}", {"latent": n}) for n in (16, 32, 64)]
    plain = [*shared, *latent[:2]]
    wide = [(kind, sizes | {"head_dim": 16}) for kind, sizes in [shared[0], *shared[2:], *latent]]
    equal_cache = [
        ("MHA", {"n_heads": 2, "head_dim": 4}),  # 16 numbers
        ("GQA-2", {"n_kv_heads": 2, "head_dim": 4}),
        ("MHA", {"n_heads": 4, "head_dim": 4}),  # 32
        ("MHA", {"n_heads": 2, "head_dim": 8}),
        ("MHA", {"n_heads": 4, "head_dim": 8}),  # 64
        ("MHA", {"n_heads": 2, "head_dim": 16}),
        ("MQA", {"n_kv_heads": 1, "head_dim": 32}),
    ]
    bare = [(kind, sizes | {"latent_norm": False}) for kind, sizes in (plain[4], *wide[3:5])]
    return [
        *(("as is", kind, sizes, STEPS) for kind, sizes in [*plain, *wide]),
        *(("equal parameters", kind, widen(**sizes), STEPS) for kind, sizes in plain[2:5]),
        *(("equal cache", kind, sizes, STEPS) for kind, sizes in equal_cache),
        *(("longer", kind, sizes, LONG) for kind, sizes in (plain[i] for i in (0, 3, 4))),
        *(("no norm", kind, sizes, STEPS) for kind, sizes in bare),
    ]


def run(kind, sizes, seed, steps=STEPS):
    """Train one model -> its row of the table."""
    torch.manual_seed(seed)
    model = build(**sizes)
    losses = fit(model, seed, steps)
    c = model.model.config
    return {
        "kind": kind, "seed": seed, "n_heads": c.n_heads, "head_dim": c.head_dim, "d_ff": c.d_ff,
        "steps": steps, "cache": cache_per_token(c), "parameters": count(model),
        "accuracy": round(accuracy(model), 4), "loss": round(sum(losses[-20:]) / 20, 3),
    }  # fmt: skip


# ---- Converting a trained model -----------------------------------------------------------------

TRAINED_STEPS, UPTRAINED = 700, (0, 20, 40, 80, 160)


def first_of(w):
    """Of each group only its first head stays: (K, r, D, C) -> (K, D, C)."""
    return w[:, 0]


def at_random(w):
    """New weights, as a model starts with them: (K, r, D, C) -> (K, D, C)."""
    return torch.randn_like(w[:, 0]) * w.shape[-1] ** -0.5


STARTS = {"mean": None, "first head": first_of, "random": at_random}  # pools for `share_heads`


def build_recall(n_kv_heads=4):
    """Chapter 4's model with RoPE: two layers, 64 wide, four heads of 16."""
    return Transformer(replace(positions.build("rope").config, n_kv_heads=n_kv_heads))


@torch.no_grad()
def score(model, n_rows=512):
    """Loss in nats and accuracy on known values of rows that no training saw -> two numbers."""
    ids, known = positions.held_out(positions.TRAINED, n_rows)
    right = model(ids)[:, :-1].argmax(-1) == ids[:, 1:]
    loss = positions.known_loss(model, ids, known).item()
    return {"loss": round(loss, 3), "accuracy": round(right[known[:, 1:]].float().mean().item(), 4)}


def uptrain(model, seed=0, marks=UPTRAINED):
    """Train on at a constant rate -> {steps: its score} for steps in `marks`, 0 among them."""
    scores, g = {0: score(model)}, torch.Generator().manual_seed(1000 + seed)

    def loss():
        rows = recall_rows(32, positions.TRAINED, positions.N_KEYS, positions.N_KEYS, generator=g)
        return positions.known_loss(model, *rows)

    def look(step, _):
        if step + 1 in marks:
            scores[step + 1] = score(model)

    train(model, loss, max(marks), 2e-3, warm_up=10, final=1.0, betas=(0.9, 0.98), on_step=look)
    return scores


def convert(seed, steps=TRAINED_STEPS, marks=UPTRAINED):
    """Train four key heads, make them two and one -> rows: where from, how long on, how good."""
    torch.manual_seed(seed)
    model = build_recall()
    positions.fit(model, seed, steps)
    rows = [{"kv_heads": 4, "start": "trained", "seed": seed, "steps": 0} | score(model)]
    for n_kv_heads in (2, 1):
        starts = {name: share_heads(model, n_kv_heads, pool) for name, pool in STARTS.items()}
        for name, start in (starts | {"new": build_recall(n_kv_heads)}).items():
            sizes = {"kv_heads": n_kv_heads, "start": name, "seed": seed}
            rows += [sizes | {"steps": n} | s for n, s in uptrain(start, seed, marks).items()]
        anew = build_recall(n_kv_heads)
        positions.fit(anew, seed, steps)  # as long as the model that was converted
        rows.append(
            {"kv_heads": n_kv_heads, "start": "new", "seed": seed, "steps": steps} | score(anew)
        )
    return rows


def write_conversion(seeds=5):
    started = time.time()
    rows = [row for seed in range(seeds) for row in convert(seed)]
    write_table("conversion", rows, started, script="sharing")


def write_recall(seeds=5):
    """A table after each seed of everything: what takes long may be cut short."""
    started, rows = time.time(), []
    for seed in range(seeds):
        for comparison, kind, sizes, steps in variants():
            rows.append({"comparison": comparison} | run(kind, sizes, seed, steps))
        write_table("recall", rows, started, script="sharing")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_conversion()
    write_recall()
