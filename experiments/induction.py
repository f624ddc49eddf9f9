"""Chapter 3: an attention-only model learns to repeat; which head does what, and what if it goes?

Rows of `lib.data.repeated_rows`: a mark, then a list of different words again and again, the list's
length drawn anew for each row. For every kind of model and seed: the loss on what can be known, the
heads' scores, and the loss with each head removed.

    python -m experiments.induction
"""

import time

import torch
from torch.nn.functional import cross_entropy

from experiments import write_table
from lib.config import ModelConfig
from lib.data import repeated_rows
from lib.positions import Alibi
from lib.training import train
from lib.transformer import Transformer, attention_maps

N_WORDS, SEQ_LEN, STEPS = 32, 32, 300
KINDS = {  # name: layers, heads, position, periods seen in training, steps
    "2 layers, 1 head": (2, 1, "rope", (4, 16), STEPS),
    "2 layers, 2 heads": (2, 2, "rope", (4, 16), STEPS),
    "2 layers, 2 heads, ALiBi": (2, 2, "alibi", (4, 16), STEPS),
    "1 layer, 1 head": (1, 1, "rope", (4, 16), 10 * STEPS),
    "1 layer, 4 heads": (1, 4, "rope", (4, 16), 10 * STEPS),
    "1 layer, 1 head, period 16": (1, 1, "rope", (16, 16), STEPS),
    "2 layers, 1 head, period 16": (2, 1, "rope", (16, 16), STEPS),
}


def build(n_layers, n_heads, position="rope"):
    """An attention-only model, 64 wide. Under ALiBi head 0 prefers the near, head 1 nothing."""
    model = Transformer(
        ModelConfig(
            vocab_size=N_WORDS + 1, n_layers=n_layers, d_model=64, n_heads=n_heads,
            d_ff=None, position=position, max_seq_len=SEQ_LEN,
        )
    )  # fmt: skip
    if position == "alibi":
        for block in model.blocks:
            block.attention.position = Alibi(n_heads, slopes=[1.0] + [0.0] * (n_heads - 1))
    return model


def repeat_loss(model, ids, repeats):
    """Mean cross-entropy in nats of the tokens that can be known: ids, repeats (B, T)."""
    logits = model(ids)[:, :-1]  # the last position predicts what is not there
    return cross_entropy(logits[repeats[:, 1:]], ids[:, 1:][repeats[:, 1:]])


def fit(model, periods=(4, 16), seed=0, steps=STEPS, on_step=None):
    """Train on fresh rows, where only what can be known counts -> the losses, one a step."""
    g = torch.Generator().manual_seed(seed)

    def loss():
        return repeat_loss(model, *repeated_rows(32, SEQ_LEN, N_WORDS, periods, generator=g))

    return train(model, loss, steps, lr=1e-2, betas=(0.9, 0.98), on_step=on_step)


def held_out(n_rows=256, periods=(4, 16)):
    """Rows that no training saw -> ids, repeats, both (n_rows, T)."""
    g = torch.Generator().manual_seed(10**6)
    return repeated_rows(n_rows, SEQ_LEN, N_WORDS, periods, generator=g)


@torch.no_grad()
def head_scores(model, ids):
    """Mean weight on the previous token, and on the token after an earlier copy -> two (L, H).

    The first is taken over all positions after the mark, the second over tokens that have been seen
    before, and sums the weights on all their earlier successors.
    """
    maps = torch.stack(attention_maps(model, ids))  # (L, B, H, T, T)
    previous = maps.diagonal(-1, -2, -1)[..., 1:].mean((1, 3))  # weights of t for t - 1, t > 1
    after = torch.zeros(*ids.shape, ids.shape[1])
    after[:, :, 1:] = (ids[:, :, None] == ids[:, None, :-1]).float()  # key s follows a copy
    after = after.tril()
    seen = after.any(-1)  # (B, T)
    on_it = (maps * after[:, None]).sum(-1).movedim(2, 1)  # (L, B, H, T) -> (L, H, B, T)
    return previous, on_it[..., seen].mean(-1)


def remove_head(model, layer, head):
    """Take one head out for good: what it adds is y W_O, so its columns of wo's weight become 0."""
    attention = model.blocks[layer].attention
    columns = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
    with torch.no_grad():
        attention.wo.weight[:, columns] = 0.0


@torch.no_grad()
def loss_without(model, layer, heads, ids, repeats):
    """`repeat_loss` with some heads of a layer removed; the model is as before afterwards."""
    weight = model.blocks[layer].attention.wo.weight
    kept = weight.clone()
    for head in heads:
        remove_head(model, layer, head)
    loss = repeat_loss(model, ids, repeats).item()
    weight.copy_(kept)
    return loss


def run(kind, seed, steps=None):
    """Train one model -> one row for each of its heads."""
    n_layers, n_heads, position, periods, own_steps = KINDS[kind]
    torch.manual_seed(seed)
    model = build(n_layers, n_heads, position)
    fit(model, periods, seed, steps or own_steps)
    ids, repeats = held_out(periods=periods)
    other = held_out(periods=(12, 12))
    with torch.no_grad():
        loss, elsewhere = repeat_loss(model, ids, repeats).item(), repeat_loss(model, *other).item()
    previous, induction = head_scores(model, ids)
    return [
        {
            "kind": kind, "seed": seed, "layer": layer, "head": head, "loss": round(loss, 4),
            "loss at period 12": round(elsewhere, 4),
            "previous": round(previous[layer, head].item(), 4),
            "induction": round(induction[layer, head].item(), 4),
            "loss without": round(loss_without(model, layer, [head], ids, repeats), 4),
            "loss without layer": round(
                loss_without(model, layer, range(n_heads), ids, repeats), 4
            ),
        }
        for layer in range(n_layers)
        for head in range(n_heads)
    ]  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    started = time.time()
    write_table("induction", [row for k in KINDS for s in range(5) for row in run(k, s)], started)
