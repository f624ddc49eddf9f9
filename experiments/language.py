"""Chapter 5: small language models on a language whose entropy is known exactly.

The language is `lib.data.Grammar`. A model's loss on held-out rows is compared with the true
probabilities on the same rows, so that the luck of the draw cancels. Three seeds of the chapter's
model and of one whose tied embedding starts too small; then depth, heads and width at (nearly)
equal parameters, with fewer steps.

    python -m experiments.language
"""

import time

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from experiments import write_table
from lib.config import ModelConfig
from lib.data import Grammar
from lib.training import train
from lib.transformer import Transformer

SEQ_LEN, STEPS, SWEEP_STEPS, EVERY = 64, 500, 250, 10
SWEEP = {  # d_ff makes up for what another size costs or saves
    "chapter's": {},
    "1 layer": {"n_layers": 1, "d_ff": 422},
    "4 layers": {"n_layers": 4, "d_ff": 41},
    "1 head": {"n_heads": 1},
    "16 heads": {"n_heads": 16},
    "32 wide": {"d_model": 32, "d_ff": 489},
    "96 wide": {"d_model": 96, "d_ff": 33},
}


def config(**changes):
    """Two layers, 64 wide, four heads, SwiGLU of 168, RoPE, pre-norm, an untied head."""
    sizes = {"n_layers": 2, "d_model": 64, "n_heads": 4, "d_ff": 168, "max_seq_len": SEQ_LEN}
    return ModelConfig(vocab_size=70, **(sizes | changes))


def build(kind="chapter's"):
    """A model of `SWEEP`, or "tied, small": one map is embedding and head, and starts at 0.02."""
    if kind != "tied, small":
        return Transformer(config(**SWEEP[kind]))
    model = Transformer(config(tied=True))
    nn.init.normal_(model.embedding.weight, std=0.02)
    return model


def loss_on(model, ids):
    """Mean cross-entropy in nats of every word after the first: ids (B, 1 + T)."""
    return cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def fit(model, grammar, seed=0, steps=STEPS, lr=6e-3, on_step=None):
    """Train on fresh rows -> the losses, one a step."""
    g = torch.Generator().manual_seed(seed)

    def loss():
        return loss_on(model, grammar.sample_rows(32, SEQ_LEN, generator=g))

    return train(model, loss, steps, lr, final=0.05, weight_decay=0.1, on_step=on_step)


@torch.no_grad()
def excess(model, grammar, n_rows=512):
    """Loss beyond that of the true probabilities, the words, and those: three (n_rows, T)."""
    ids = grammar.sample_rows(n_rows, SEQ_LEN, generator=torch.Generator().manual_seed(10**6))
    losses = cross_entropy(model(ids[:, :-1]).mT, ids[:, 1:], reduction="none")  # (B, T)
    true = grammar.log_probs(ids)
    return losses + true, ids[:, 1:], true


def run(kind, seed, steps, grammar):
    """Train one model -> its row of the table, and its losses in means of `EVERY` steps."""
    torch.manual_seed(seed)
    model = build(kind)
    losses = fit(model, grammar, seed, steps)
    beyond, words, true = excess(model, grammar)
    copied = torch.zeros_like(words, dtype=torch.bool)
    copied[:, 1:] = words[:, :-1] == grammar.encode("and")[0]  # the name that comes back
    row = {
        "kind": kind,
        "seed": seed,
        "steps": steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "percent over floor": round(100 * beyond.mean().item() / -true.mean().item(), 2),
        "at the copied name": round(beyond[copied].mean().item(), 3),
        "elsewhere": round(beyond[~copied].mean().item(), 4),
    }
    means = torch.tensor(losses[: steps // EVERY * EVERY]).view(-1, EVERY).mean(1).tolist()
    return row, means


def seeds(grammar):
    """Three seeds of the chapter's model and of the tied one, with their losses on the way."""
    started, table, curves = time.time(), [], []
    for kind in ("chapter's", "tied, small"):
        for seed in range(3):
            row, means = run(kind, seed, STEPS, grammar)
            table.append(row)
            curves += [
                {"kind": kind, "seed": seed, "step": EVERY * i + EVERY // 2, "loss": round(x, 4)}
                for i, x in enumerate(means)
            ]
    write_table("language", table, started)
    write_table("language_curves", curves, started, script="language")


def sweep(grammar):
    """Depth, heads and width at equal parameters, three seeds of each."""
    started = time.time()
    rows = [run(kind, seed, SWEEP_STEPS, grammar)[0] for kind in SWEEP for seed in range(3)]
    write_table("language_sweep", rows, started, script="language")


if __name__ == "__main__":
    torch.set_num_threads(1)
    seeds(Grammar())
    sweep(Grammar())
