"""Chapter 4: one small model with each position scheme, trained at one length, tested beyond.

The task is `lib.data.recall_rows`: keys and values, the dictionary redrawn for each row.
Scored are the values whose key has come before, in the last quarter of a row, where positions are
newest. A probe asks for a key that was last seen near the beginning. Then RoPE is
stretched by each extension, as trained and after 40 more steps at the new length.

    python -m experiments.positions
"""

import time

import torch
from torch.nn.functional import cross_entropy

from experiments import write_table
from lib.config import ModelConfig
from lib.data import recall_rows
from lib.positions import RelativeBias, Rope
from lib.training import train
from lib.transformer import Transformer

N_KEYS, TRAINED, LONGEST, HEADS, HEAD_DIM = 12, 32, 256, 4, 16
LENGTHS = (32, 64, 128, 256)
STEPS = {"none": 800, "learned": 800, "sinusoidal": 2400, "t5": 800, "alibi": 800, "rope": 800}
STRETCHED = 128  # four times the trained length
EXTENSIONS = {
    "as trained": None,
    "interpolation": {"kind": "linear", "factor": 4.0},
    "NTK-aware": {"kind": "ntk", "factor": 4.0},
    "YaRN": {"kind": "yarn", "factor": 4.0, "original_max_seq_len": TRAINED, "beta_fast": 4.0},
}


def build(scheme):
    """Two layers, 64 wide, four heads of 16, a GELU feed-forward of 128."""
    model = Transformer(
        ModelConfig(
            vocab_size=2 * N_KEYS, n_layers=2, d_model=HEADS * HEAD_DIM, n_heads=HEADS, d_ff=128,
            position=scheme, activation="gelu", gated=False, max_seq_len=LONGEST,
        )
    )  # fmt: skip
    if scheme == "t5":  # buckets so few that all of them are met at the trained length
        set_position(model, RelativeBias(HEADS, n_buckets=16, max_distance=16))
    return model


def set_position(model, position):
    """Give all layers another scheme, in place."""
    for block in model.blocks:
        block.attention.position = position


def known_loss(model, ids, known):
    """Mean cross-entropy in nats of the values that can be known: ids, known (B, T)."""
    return cross_entropy(model(ids)[:, :-1][known[:, 1:]], ids[:, 1:][known[:, 1:]])


def fit(model, seed=0, steps=800, length=TRAINED, lr=3e-3, on_step=None):
    """Train on fresh rows of one length -> the losses, one a step."""
    g = torch.Generator().manual_seed(seed)

    def loss():
        return known_loss(model, *recall_rows(32, length, N_KEYS, N_KEYS, generator=g))

    return train(model, loss, steps, lr=lr, betas=(0.9, 0.98), on_step=on_step)


def reuse_last_row(model):
    """A learned table has no rows beyond the trained ones: they get a copy of the last of those."""
    with torch.no_grad():
        model.position.table.weight[TRAINED:] = model.position.table.weight[TRAINED - 1]


def held_out(length, n_rows=256):
    """Rows that no training saw -> ids, known, both (n_rows, length)."""
    g = torch.Generator().manual_seed(10**6)
    return recall_rows(n_rows, length, N_KEYS, N_KEYS, generator=g)


def far_rows(length, n_rows=256, seen=4):
    """Rows whose last key came only once before, in pair number `seen` -> ids (n_rows, length)."""
    g = torch.Generator().manual_seed(10**6)
    dictionary = N_KEYS + torch.randint(N_KEYS, (n_rows, N_KEYS), generator=g)
    key = torch.randint(N_KEYS, (n_rows, 1), generator=g)
    others = key + 1 + torch.randint(N_KEYS - 1, (n_rows, length // 2), generator=g)
    keys = others % N_KEYS
    keys[:, [seen, -1]] = key
    return torch.stack((keys, dictionary.gather(1, keys)), 2).flatten(1)


@torch.no_grad()
def accuracy(model, length):
    """The share of known values in the last quarter of held-out rows that are predicted."""
    ids, known = held_out(length)
    right = model(ids)[:, :-1].argmax(-1) == ids[:, 1:]
    late = known[:, 1:] & (torch.arange(1, length) >= length * 3 // 4)
    return right[late].float().mean().item()


@torch.no_grad()
def far_accuracy(model, length):
    """The share of rows whose last value, seen near the beginning only, is predicted."""
    ids = far_rows(length)
    return (model(ids)[:, -2].argmax(-1) == ids[:, -1]).float().mean().item()


@torch.no_grad()
def loss_by_place(model, length=STRETCHED, width=16):
    """Mean loss in nats of known values by place in the row, one number for each `width` tokens."""
    ids, known = held_out(length)
    losses = cross_entropy(model(ids)[:, :-1].mT, ids[:, 1:], reduction="none")  # (B, T - 1)
    losses, known = losses.nan_to_num(), known[:, 1:]
    places = torch.arange(1, length) // width
    return [
        (losses * known)[:, places == p].sum().item() / known[:, places == p].sum().item()
        for p in range(length // width)
    ]


def run(scheme, seed, steps=None):
    """Train one model -> the model, and its row of the table."""
    torch.manual_seed(seed)
    model = build(scheme)
    fit(model, seed, steps or STEPS[scheme])
    if scheme == "learned":
        reuse_last_row(model)
    row = {"scheme": scheme, "seed": seed}
    row |= {f"at {n}": round(accuracy(model, n), 3) for n in LENGTHS}
    row |= {"far": round(far_accuracy(model, STRETCHED), 3)}
    row |= {f"loss {16 * p}": round(x, 3) for p, x in enumerate(loss_by_place(model))}
    return model, row


def stretch(model, seed, steps=40):
    """A model trained with RoPE -> rows: each extension at four times the length, then tuned."""
    trained = {name: p.clone() for name, p in model.state_dict().items()}
    rows = []
    for name, scaling in EXTENSIONS.items():
        model.load_state_dict(trained)
        set_position(model, Rope(HEAD_DIM, scaling=scaling))
        row = {"extension": name, "seed": seed}
        row |= {"at 128": round(accuracy(model, STRETCHED), 3)}
        row |= {"far": round(far_accuracy(model, STRETCHED), 3)}
        fit(model, 10**6 + seed, steps, STRETCHED, lr=1e-3)
        row |= {"tuned": round(accuracy(model, STRETCHED), 3)}
        rows.append(row | {"tuned far": round(far_accuracy(model, STRETCHED), 3)})
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    started, table, stretched = time.time(), [], []
    for seed in range(3):
        for scheme in STEPS:
            model, row = run(scheme, seed)
            table.append(row)
            if scheme == "rope":
                stretched += stretch(model, seed)
    write_table("positions", table, started)
    write_table("positions_stretched", stretched, started, script="positions")
