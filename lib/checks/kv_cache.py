"""Chapter 6: appending, a decoding step, masks of chunks, generation, bytes and work, two bugs.

Buffers hold junk behind what counts, models refuse to read more than there is to read, and some
cases let all axes agree, where a wrong axis raises no error.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from lib import reference
from lib.checks.attention import mistakes, seen
from lib.checks.framework import exercise

# 1


@exercise(
    title="What does the next token need?",
    difficulty="easy",
    minutes=2,
    options={
        "a": "*mat* does not exist yet: it has no vector, so no query. It will be the *result*.",
        "b": "Queries of old tokens gave the outputs at their own positions, long since done. Only "
        "the output at the last position is needed, so only its query.",
        "c": "Right. The vector of the last known token asks, all keys and values so far answer, "
        "and the head turns what comes out into scores for the token after it.",
        "d": "It would see itself alone. The query asks the keys and values of *all* tokens so "
        "far, its own among them.",
        "e": "Scores are products of a query and keys. Those of the old queries with the new key "
        "are hidden by the causal mask: nobody needs them.",
    },
    hints=(
        "Which row of the logits says what comes after *the*?",
        "Row t of the output is an average of values with the weights of query t.",
    ),
)
def needed_for_the_next():
    """What *The cat sat on the* needs of attention for the next token: a letter from a to e."""
    return "c"


# 2


def rows_to_append():
    """Keys of H heads: S held and T new ones; nothing held yet; all axes alike."""
    rng = np.random.default_rng(0)
    sizes = [(1, 2, 1, 3), (2, 3, 1, 4), (2, 2, 2, 2), (3, 0, 4, 2), (4, 3, 5, 2), (3, 3, 3, 3)]
    return [
        (rng.normal(size=(H, S, D)).round(1), rng.normal(size=(H, T, D)).round(1))
        for H, S, T, D in sizes
    ]


@exercise(
    title="Append",
    difficulty="easy",
    minutes=4,
    cases=rows_to_append,
    axes="H S D",
    hints=(
        "Only one axis grows: that of the tokens. Heads and widths stay as many as they were.",
        "The tokens lie along the axis in the middle, axis 1 of (H, S, D), or -2 from the end.",
        "np.concatenate((held, new), axis=1), or torch.cat((held, new), dim=1).",
    ),
)
def append(held, new):
    """Keys held (H, S, D) and new ones (H, T, D) -> all of them, oldest first, (H, S + T, D)."""
    return np.concatenate((held, new), axis=1)


@append.right
def append_in_torch(held, new):
    return torch.cat([held, new], dim=-2)


@append.right
def append_into_a_buffer(held, new):
    (H, S, D), T = held.shape, new.shape[1]
    buffer = np.empty((H, S + T, D))
    buffer[:, :S], buffer[:, S:] = held, new
    return buffer


@append.right
def append_head_by_head(held, new):
    return np.stack([np.vstack((h, n)) for h, n in zip(held, new)])


@append.right
def append_row_by_row(held, new):
    out = held
    for t in range(new.shape[1]):
        out = torch.cat((out, new[:, t : t + 1]), 1)
    return out


def newest_overwritten(held, new):
    out = held.copy()
    out[:, -1:] = new[:, -1:]
    return out


mistakes(
    append,
    ("over_the_heads", lambda held, new: np.concatenate((held, new)),
     "Joined along axis 0: that makes more *heads*. What grows is the number of tokens, axis 1 of "
     "(H, S, D)."),
    ("over_the_width", lambda held, new: np.concatenate((held, new), axis=-1),
     "Joined along the last axis: that makes each key *wider*. What grows is the number of tokens, "
     "axis -2."),
    ("new_first", lambda held, new: np.concatenate((new, held), axis=1),
     "The new tokens come before the old ones. Row s belongs to position s: old first."),
    ("new_alone", lambda held, new: np.array(new),
     "Only the new tokens are left: what was held is gone, and the next query will not see it."),
    ("held_alone", lambda held, new: np.array(held),
     "The new tokens were not added."),
    ("last_overwritten", newest_overwritten,
     "The newest row was written over the last one held, so the length stays as it was. Every "
     "token gets a row of its own."),
    ("oldest_dropped", lambda held, new: np.concatenate((held, new), 1)[:, new.shape[1] :],
     "As many old tokens were dropped as new ones came: that is a window. Here all stay."),
    ("first_new_one_alone", lambda held, new: np.concatenate((held, new[:, :1]), 1),
     "Only the first of the T new tokens was added. A prompt brings many at once: add all T."),
    ("last_new_one_alone", lambda held, new: np.concatenate((held, new[:, -1:]), 1),
     "Only the last of the T new tokens was added. A prompt brings many at once: add all T."),
    ("summed", lambda held, new: held + new,
     "The new keys were *added up* with the old ones. Append them: each token keeps its own row."),
    ("flattened", lambda held, new: np.concatenate((held, new), axis=None),
     "All axes are gone: `axis=None` (or np.append without an axis) makes one long row."),
    ("stacked", lambda held, new: np.stack((held, new)),
     "`stack` makes a new axis. `concatenate` (torch: `cat`) lengthens one that is there."),
    ("new_ones_backwards", lambda held, new: np.concatenate((held, new[:, ::-1]), 1),
     "The new tokens stand in reverse. They come in the order of the text, oldest first."),
    ("heads_run_together", lambda held, new: np.concatenate(
        (held.reshape(-1, held.shape[2]), new.reshape(-1, new.shape[2]))).reshape(
        len(held), -1, held.shape[2]),
     "The numbers are all there, but rows of different heads were run together before they were "
     "cut up again. Join along axis 1, without reshaping."),
    ("a_pair", lambda held, new: [held, new],
     "Old and new came back as two arrays. Attention wants one: join them along axis 1."),
)  # fmt: skip


# 3


def steps():
    """x, a table of positions, three maps, and what is held of P tokens; P = 0 too."""
    rng = np.random.default_rng(2)
    sizes = [(1, 2, 2, 2), (3, 4, 2, 3), (3, 3, 3, 3), (0, 4, 3, 2), (5, 3, 2, 4), (7, 2, 4, 3)]
    cases = []
    for P, C, D, Dv in sizes:
        table = rng.normal(size=(9, C))
        maps = [rng.normal(0, 0.6, size=(C, d)) for d in (D, D, Dv)]
        before = rng.normal(size=(P, C)) + table[:P]
        cases.append((rng.normal(size=C), table, *maps, before @ maps[1], before @ maps[2]))
    return cases


def one_step(x, table, wq, wk, wv, k_held, v_held, *, at=None, scale=None, q_at=None, see=None):
    """The solution to exercise 3 with its parts to be exchanged, for mistakes."""
    P = len(k_held)
    h = x + (table[P] if at is None else at(table, P))
    k, v = np.concatenate((k_held, (h @ wk)[None])), np.concatenate((v_held, (h @ wv)[None]))
    q = (h if q_at is None else x + q_at(table, P)) @ wq
    scores = k @ q / (np.sqrt(len(q)) if scale is None else scale)
    if see is not None:
        scores = np.where(see(P), scores, -np.inf)
    return reference.softmax(scores) @ v, k, v


@exercise(
    title="A decoding step",
    difficulty="medium",
    minutes=8,
    cases=steps,
    axes={"y": "Dv", "k": "S D", "v": "S Dv"},
    hints=(
        "P = len(k_held) tokens came before, so this one stands at position P: x + table[P].",
        "Its key and its value become the last rows; then the query meets all P + 1 keys, its own "
        "included. No mask is needed: nothing lies ahead.",
        "weights = softmax(k @ q / √D), y = weights @ v, and return y, k, v.",
    ),
)
def decode_step(x, table, wq, wk, wv, k_held, v_held):
    """x (C,), table (N, C), wq, wk (C, D), wv (C, Dv), held (P, D), (P, Dv) -> y (Dv,), k, v."""
    x = x + table[len(k_held)]  # positions count on: this token is number P
    k = np.concatenate((k_held, (x @ wk)[None]))  # (P, D) -> (P + 1, D)
    v = np.concatenate((v_held, (x @ wv)[None]))
    scores = k @ (x @ wq) / np.sqrt(k.shape[1])  # (P + 1, D) @ (D,) -> (P + 1,)
    weights = np.exp(scores - scores.max())
    return weights / weights.sum() @ v, k, v


@decode_step.right
def step_in_torch(x, table, wq, wk, wv, k_held, v_held):
    h = x + table[k_held.shape[0]]
    k, v = torch.vstack((k_held, h @ wk)), torch.vstack((v_held, h @ wv))
    y = F.scaled_dot_product_attention((h @ wq)[None, None], k[None], v[None])
    return y[0, 0], k, v


@decode_step.right
def step_by_einsum(x, table, wq, wk, wv, k_held, v_held):
    h = x + table[len(v_held)]
    q, k, v = (np.einsum("c,cd->d", h, w) for w in (wq, wk, wv))
    k, v = np.vstack([k_held, k]), np.vstack([v_held, v])
    e = np.exp(np.einsum("sd,d->s", k, q) * len(q) ** -0.5)
    return [np.einsum("s,sd->d", e, v) / e.sum(), k, v]


@decode_step.right
def step_with_a_matrix_of_one_row(x, table, wq, wk, wv, k_held, v_held):
    P = len(k_held)
    row = (x + table[P])[None]
    k, v = torch.cat((k_held, row @ wk)), torch.cat((v_held, row @ wv))
    seen_ = torch.arange(P + 1) <= torch.arange(P, P + 1)[:, None]
    scores = (row @ wq @ k.T / wq.shape[1] ** 0.5).masked_fill(~seen_, -1e9)
    return (scores.softmax(-1) @ v)[0], k, v


def late_append(x, table, wq, wk, wv, k_held, v_held):
    """Attends first and appends afterwards: the token does not see itself."""
    _, k, v = decode_step.solve(x, table, wq, wk, wv, k_held, v_held)
    y = one_step(x, table, wq, wk, wv, k_held, v_held, see=lambda P: np.arange(P + 1) < P)[0]
    return (y if len(k_held) else v[0] * np.nan), k, v


def whole_output(x, table, wq, wk, wv, k_held, v_held, join):
    y, k, v = decode_step.solve(x, table, wq, wk, wv, k_held, v_held)
    return join(y, k, v)


def overwritten_last(x, table, wq, wk, wv, k_held, v_held):
    """Writes over the last row held in place of adding one."""
    return one_step(x, table, wq, wk, wv, k_held[:-1], v_held[:-1], at=lambda t, P: t[
        len(k_held)])  # fmt: skip


def itself_unseen(x, table, wq, wk, wv, k_held, v_held):
    """Attends to what is held, and appends afterwards; with nothing held, its own value."""
    unseen = (lambda P: np.arange(P + 1) < P) if len(k_held) else None
    return one_step(x, table, wq, wk, wv, k_held, v_held, see=unseen)


mistakes(
    decode_step,
    ("itself_unseen", itself_unseen,
     "The new token does not see itself. Append its key and value first, then attend to all P + 1 "
     "rows."),
    ("position_zero", lambda *a: one_step(*a, at=lambda t, P: t[0]),
     "The new token got position 0, as if a text began here. P tokens are held: it stands at "
     "position P = len(k_held)."),
    ("no_position", lambda *a: one_step(*a, at=lambda t, P: 0),
     "The position is missing: the token's vector is x + table[P] before the three maps."),
    ("one_early", lambda *a: one_step(*a, at=lambda t, P: t[max(P - 1, 0)]),
     "The new token got position P - 1, that of the last one held. Positions start at 0, so the "
     "token after P others stands at P."),
    ("one_late", lambda *a: one_step(*a, at=lambda t, P: t[P + 1]),
     "The new token got position P + 1. Positions start at 0: after P others it stands at P."),
    ("last_of_the_table", lambda *a: one_step(*a, at=lambda t, P: t[-1]),
     "The new token got the table's last position. It stands at P = len(k_held)."),
    ("summed_table", lambda *a: one_step(*a, at=lambda t, P: t[: P + 1].sum(0)),
     "All positions up to P were added. The token stands at one place: table[P]."),
    ("query_without_position", lambda *a: one_step(*a, q_at=lambda t, P: 0),
     "The query was made of x without its position, the key and value with it. One vector, "
     "x + table[P], feeds all three maps."),
    ("query_at_zero", lambda *a: one_step(*a, q_at=lambda t, P: t[0]),
     "The query got position 0, key and value position P. One vector feeds all three maps."),
    ("appended_too_late", late_append,
     "The query met the old keys only: the token does not see itself. Append first, then attend."),
    ("own_alone", lambda *a: one_step(*a, see=lambda P: np.arange(P + 1) == P),
     "The token sees itself alone: nothing that is held was read."),
    ("first_alone", lambda *a: one_step(*a, see=lambda P: np.arange(P + 1) == 0),
     "The query sees the first key only. That is a causal mask aligned at the top left, what "
     "`is_causal=True` does with one query. Here nothing lies ahead: no mask at all."),
    ("no_scale", lambda *a: one_step(*a, scale=1.0),
     "The scores are not divided by √D."),
    ("scaled_by_d", lambda *a: one_step(*a, scale=a[2].shape[1]),
     "The scores are divided by D. It is √D."),
    ("scaled_by_the_model", lambda *a: one_step(*a, scale=np.sqrt(a[2].shape[0])),
     "The scores are divided by √C, the width of x. Divide by √D, the width of a key."),
    ("scaled_by_length", lambda *a: one_step(*a, scale=np.sqrt(len(a[5]) + 1)),
     "The scores are divided by the root of the number of keys. It is the *width* of a key, D."),
    ("no_softmax", lambda *a: (
        (k := decode_step.solve(*a)[1]) @ ((a[0] + a[1][len(a[5])]) @ a[2])
        / np.sqrt(k.shape[1]) @ decode_step.solve(*a)[2], *decode_step.solve(*a)[1:]),
     "There is no softmax: the scores themselves weight the values."),
    ("output_alone", lambda *a: decode_step.solve(*a)[0],
     "Only the output came back. Whoever calls needs keys and values for the next step: return "
     "y, k, v."),
    ("cache_first", lambda *a: whole_output(*a, join=lambda y, k, v: (k, v, y)),
     "The order is y, k, v: the output first."),
    ("a_matrix", lambda *a: whole_output(*a, join=lambda y, k, v: (y[None], k, v)),
     "y has a leading axis of 1. One token goes in and one vector comes out: (Dv,)."),
    ("new_rows_alone", lambda *a: whole_output(*a, join=lambda y, k, v: (y, k[-1:], v[-1:])),
     "Only the new rows of k and v came back: what was held is lost for the next step. Return all "
     "P + 1."),
    ("old_rows_alone", lambda *a: whole_output(*a, join=lambda y, k, v: (y, k[:-1], v[:-1])),
     "k and v came back as they were: the new token's rows are missing, and the next step will not "
     "see it."),
    ("new_row_first", lambda *a: whole_output(*a, join=lambda y, k, v: (
        y, np.roll(k, 1, 0), np.roll(v, 1, 0))),
     "The new rows stand first. y does not mind, but whoever counts positions does: row s belongs "
     "to position s."),
    ("last_overwritten", overwritten_last,
     "The new rows were written over the last ones held. Every token gets a row of its own."),
    ("keys_and_values_swapped", lambda x, t, wq, wk, wv, kh, vh: decode_step.solve(
        x, t, wq, wv, wk, vh, kh),
     "Keys and values changed places."),
    ("values_of_keys", lambda x, t, wq, wk, wv, kh, vh: one_step(
        x, t, wq, wk, wk, kh, kh),
     "What is averaged, and kept as v, are the keys. Values come from wv."),
    ("query_kept_as_key", lambda x, t, wq, wk, wv, kh, vh: one_step(x, t, wq, wq, wv, kh, vh),
     "The query was kept as a key: x @ wq in place of x @ wk."),
    ("keys_without_position", lambda x, t, wq, wk, wv, kh, vh: (
        reference.softmax((k := np.vstack((kh, x @ wk))) @ ((x + t[len(kh)]) @ wq)
                          / np.sqrt(wq.shape[1])) @ (v := np.vstack((vh, x @ wv))), k, v),
     "Key and value were made of x without its position, the query with it. One vector, "
     "x + table[P], feeds all three maps."),
    ("value_without_position", lambda x, t, wq, wk, wv, kh, vh: (
        reference.softmax((k := np.vstack((kh, (x + t[len(kh)]) @ wk))) @ ((x + t[len(kh)]) @ wq)
                          / np.sqrt(wq.shape[1])) @ (v := np.vstack((vh, x @ wv))), k, v),
     "The value was made of x without its position. With positions that are *added*, one vector, "
     "x + table[P], feeds all three maps (RoPE would leave values alone)."),
    ("position_multiplied", lambda *a: decode_step.solve(a[0] * a[1][len(a[5])], a[1] * 0, *a[2:]),
     "The position multiplies x. It is added: x + table[P]."),
    ("scaled_after_the_softmax", lambda *a: (
        reference.softmax((k := decode_step.solve(*a)[1]) @ ((a[0] + a[1][len(a[5])]) @ a[2]))
        / np.sqrt(k.shape[1]) @ decode_step.solve(*a)[2], *decode_step.solve(*a)[1:]),
     "The division by √D came after the softmax: then the weights no longer sum to 1. Scale the "
     "scores."),
    ("plain_mean", lambda *a: (
        decode_step.solve(*a)[2].mean(0), *decode_step.solve(*a)[1:]),
     "All values have the same weight: the query plays no part."),
)  # fmt: skip


# 4


def half_full():
    """T queries at the end of `length` tokens; behind them zeros, or junk of an older text."""
    rng = np.random.default_rng(8)
    sizes = [(1, 2, 4, 2, 2), (1, 3, 5, 4, 2), (2, 4, 6, 3, 2), (3, 3, 3, 3, 3), (4, 5, 9, 2, 3),
             (1, 1, 8, 3, 4), (2, 6, 7, 4, 3)]  # fmt: skip
    cases = []
    for i, (T, length, room, D, Dv) in enumerate(sizes):
        k, v = rng.normal(size=(room, D)), rng.normal(size=(room, Dv))
        if i % 2:  # as `zeros` leaves it; otherwise as `empty` does
            k[length:], v[length:] = 0.0, 0.0
        cases.append((rng.normal(size=(T, D)), k, v, length))
    return cases


def looked_at(q, k, v, *, k_tri=None, hidden=-np.inf, scale=None, keep=None):
    """Attention of the T last of S rows under np.tri(T, S, k_tri), for mistakes."""
    T, S = len(q), len(k)
    mask = np.tri(T, S, k=S - T if k_tri is None else k_tri, dtype=bool)
    mask = mask if keep is None else mask & keep
    scores = q @ k.T / (np.sqrt(q.shape[1]) if scale is None else scale)
    return reference.softmax(np.where(mask, scores, hidden)) @ v


@exercise(
    title="A buffer that is not full",
    difficulty="medium",
    minutes=8,
    cases=half_full,
    axes="T Dv",
    hints=(
        "A key of zeros has the score 0, and exp(0) = 1 is a weight. Empty slots must not be there "
        "at all: k[:length], v[:length].",
        "The T queries are the last of these `length` tokens: query t stands at length - T + t.",
        "mask = np.arange(length) <= np.arange(length - T, length)[:, None]; then softmax, then v.",
    ),
)
def preallocated(q, k_buffer, v_buffer, length):
    """q (T, D), buffers (N, D) and (N, Dv) of which `length` rows count -> (T, Dv), causal."""
    k, v = k_buffer[:length], v_buffer[:length]  # what counts; the rest is empty or old
    T, D = q.shape
    seen = np.arange(length) <= np.arange(length - T, length)[:, None]  # (T, S)
    scores = np.where(seen, q @ k.T / np.sqrt(D), -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ v


@preallocated.right
def buffer_in_torch(q, k_buffer, v_buffer, length):
    k, v = k_buffer.narrow(0, 0, length), v_buffer.narrow(0, 0, length)
    mask = torch.ones(len(q), length, dtype=torch.bool).tril(length - len(q))
    return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask)[0]


@preallocated.right
def buffer_masked_whole(q, k_buffer, v_buffer, length):
    T, N = len(q), len(k_buffer)
    at = length - T + np.arange(T)[:, None]
    scores = q @ k_buffer.T / q.shape[1] ** 0.5 + np.where(np.arange(N) <= at, 0, -1e9)
    e = np.exp(scores - scores.max(1, keepdims=True))
    return (e @ v_buffer) / e.sum(1, keepdims=True)


@preallocated.right
def buffer_query_by_query(q, k_buffer, v_buffer, length):
    out = []
    for t, row in enumerate(q):
        stop = length - len(q) + t + 1
        w = torch.softmax(k_buffer[:stop] @ row / row.numel() ** 0.5, dim=0)
        out.append(w @ v_buffer[:stop])
    return torch.stack(out)


def zeroed_slots(q, k, v, length):
    """Empties the unused rows, and lets them take part all the same; causal among the others."""
    T, S = len(q), len(k)
    used = np.arange(S)[:, None] < length
    seen = (np.arange(S) <= np.arange(length - T, length)[:, None]) | ~used.T
    scores = np.where(seen, q @ np.where(used, k, 0.0).T / np.sqrt(q.shape[1]), -np.inf)
    return reference.softmax(scores) @ np.where(used, v, 0.0)


mistakes(
    preallocated,
    ("zeroed_slots", zeroed_slots,
     "The rows behind `length` were set to zero, and still get weight: exp(0) = 1. Cut them off: "
     "[:length]."),
    ("empty_slots", lambda q, k, v, n: looked_at(q, k, v, k_tri=len(k)),
     "Empty slots were read. A key of zeros has the score 0, whose weight is exp(0) = 1; old junk "
     "is worse. Cut both buffers: [:length]. (And the queries see what comes after them.)"),
    ("end_of_the_buffer", lambda q, k, v, n: looked_at(q, k, v),
     "The queries were placed at the end of the *buffer*, and read empty slots. They are the last "
     "T of `length` tokens."),
    ("not_causal", lambda q, k, v, n: looked_at(q, k[:n], v[:n], k_tri=n),
     "The empty slots are hidden, but the queries see tokens that come after them. Query t stands "
     "at length - T + t."),
    ("top_left", lambda q, k, v, n: looked_at(q, k[:n], v[:n], k_tri=0),
     "The mask is aligned at the top left: the first query sees the first key only. The queries "
     "are the *last* T of `length` tokens."),
    ("one_short", lambda q, k, v, n: looked_at(q, k[: n - 1], v[: n - 1], k_tri=n - len(q))
     if n > 1 else v[:1] * np.nan,
     "The newest row is missing: `length` counts it. [:length], not [:length - 1]."),
    ("one_long", lambda q, k, v, n: looked_at(
        q, k[: n + 1], v[: n + 1], k_tri=n - len(q) + 1),
     "One row too many: the slot after the newest token is empty. [:length]."),
    ("queries_moved_up", lambda q, k, v, n: looked_at(q, k[:n], v[:n], k_tri=n - len(q) - 1)
     if n > len(q) else looked_at(q, k[:n], v[:n], k_tri=n - len(q) - 1) * np.nan,
     "A query does not see its own key. Own and earlier: `<=`."),
    ("queries_ahead", lambda q, k, v, n: looked_at(q, k[:n], v[:n], k_tri=n - len(q) + 1),
     "Each query sees one key of its future. Query t stands at length - T + t."),
    ("hidden_by_zero", lambda q, k, v, n: looked_at(
        q, k, v, k_tri=n - len(q), hidden=0.0),
     "Hidden scores were set to 0. exp(0) = 1 is still a weight: cut them off, or set them to "
     "-inf before the softmax."),
    ("zeroed_after", lambda q, k, v, n: np.where(
        np.tri(len(q), len(k), k=n - len(q), dtype=bool),
        reference.softmax(q @ k.T / np.sqrt(q.shape[1])), 0) @ v,
     "Weights were set to 0 *after* the softmax over the whole buffer, so a row no longer sums "
     "to 1: the empty slots took their share. Cut first."),
    ("zeros_taken_for_empty", lambda q, k, v, n: looked_at(
        q, k, v, k_tri=n - len(q), keep=(k != 0).any(1)) if (k[n:] == 0).all()
     else looked_at(q, k, v),
     "Empty slots were told by their zeros. A buffer that was used before holds old rows: only "
     "`length` says what counts."),
    ("no_scale", lambda q, k, v, n: looked_at(q, k[:n], v[:n], scale=1.0),
     "The scores are not divided by √D."),
    ("scaled_by_d", lambda q, k, v, n: looked_at(q, k[:n], v[:n], scale=q.shape[1]),
     "The scores are divided by D. It is √D."),
    ("last_rows", lambda q, k, v, n: looked_at(q, k[-n:], v[-n:]),
     "The last `length` rows were taken. A buffer fills from the front: the *first* `length`."),
    ("values_not_cut", lambda q, k, v, n: looked_at(q, k[:n], v[-n:]),
     "Keys and values were cut differently: both are [:length]."),
    ("last_query_alone", lambda q, k, v, n: looked_at(q[-1:], k[:n], v[:n]),
     "Only the last query was answered. All T rows of q want one: (T, Dv)."),
    ("new_rows_alone", lambda q, k, v, n: looked_at(q, k[n - len(q) : n], v[n - len(q) : n]),
     "The queries saw the T new tokens only. Everything up to `length` is there to be read."),
    ("softmax_over_queries", lambda q, k, v, n: reference.softmax(np.where(
        np.tri(len(q), n, k=n - len(q), dtype=bool), q @ k[:n].T / np.sqrt(q.shape[1]), -1e9).T).T
     @ v[:n],
     "The softmax runs over the queries. Each query's own weights sum to 1: along the keys, the "
     "last axis."),
    ("scaled_by_the_room", lambda q, k, v, n: looked_at(q, k[:n], v[:n], scale=np.sqrt(len(k))),
     "The scores are divided by the root of the buffer's length. It is √D, the width of a key."),
    ("averaged_keys", lambda q, k, v, n: looked_at(q, k[:n], k[:n]),
     "Keys were averaged in place of values."),
    ("room_as_length", lambda q, k, v, n: looked_at(q, k[:n], v[:n], k_tri=len(k) - len(q)),
     "The queries were placed by the length of the *buffer*, so some see what comes after them. "
     "Query t stands at length - T + t."),
    ("diagonal_at_length", lambda q, k, v, n: looked_at(q, k, v, k_tri=n),
     "The diagonal is `length`, so queries see their future and empty slots. Query t sees rows up "
     "to length - T + t: k = length - T."),
    ("masked_by_times_zero", lambda q, k, v, n: looked_at(q, k[:n], v[:n], hidden=0.0),
     "What lies ahead has the score 0, from a product with the mask, say. exp(0) = 1 is a weight: "
     "-inf."),
)  # fmt: skip


# 5


def padded_batches():
    """Which tokens are real, (B, S), and how many are new; padding left, none, and elsewhere."""
    rows = [
        ([[1, 1, 1]], 1),
        ([[1, 1, 1]], 3),
        ([[0, 1, 1, 1], [1, 1, 1, 1]], 2),
        ([[0, 0, 1], [0, 1, 1], [1, 1, 1]], 3),
        ([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]], 1),
        ([[0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]], 4),
        ([[1, 1, 1, 1]], 2),
        ([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]], 4),
        ([[1, 1, 0, 1]], 3),
        ([[1, 1, 1, 0]], 2),
    ]
    return [(np.array(real, dtype=bool), T) for real, T in rows]


@exercise(
    title="The mask of a chunk",
    difficulty="medium",
    minutes=6,
    cases=padded_batches,
    axes="B T S",
    canonical=seen,
    hints=(
        "Two rules, and both must hold: the key is not ahead of the query, and it is real.",
        "The T queries are the *last* of the S positions: query t stands at S - T + t.",
        "causal = np.arange(S) <= np.arange(S - T, S)[:, None] is (T, S); real[:, None, :] is "
        "(B, 1, S). Join them with &.",
    ),
)
def chunk_mask(real, T):
    """real (B, S) booleans, the last T of S tokens are new -> (B, T, S), True where seen."""
    S = real.shape[1]
    causal = np.arange(S) <= np.arange(S - T, S)[:, None]  # (T, S)
    return causal & np.asarray(real)[:, None, :]  # (T, S) & (B, 1, S) -> (B, T, S)


@chunk_mask.right
def chunk_mask_by_tril(real, T):
    B, S = real.shape
    return real[:, None].expand(B, T, S) & torch.ones(T, S, dtype=torch.bool).tril(S - T)


@chunk_mask.right
def chunk_mask_as_a_bias(real, T):
    S = real.shape[1]
    ahead = torch.full((T, S), float("-inf")).triu(1 + S - T)
    hidden = torch.zeros(real.shape).masked_fill(~real, float("-inf"))
    return ahead + hidden[:, None]


@chunk_mask.right
def chunk_mask_in_large_negatives(real, T):
    B, S = real.shape
    return [[[0 if real[b, s] and s <= S - T + t else -1e9 for s in range(S)] for t in range(T)]
            for b in range(B)]  # fmt: skip


@chunk_mask.right
def chunk_mask_of_the_whole_square(real, T):
    square = np.tri(real.shape[1], dtype=bool)
    return (square & real[:, None, :])[:, real.shape[1] - T :]


def chunk(real, T, *, k=None, rows=None, keys=None):
    """The solution to exercise 5 with its parts to be exchanged, for mistakes."""
    S = real.shape[1]
    causal = np.tri(T if rows is None else rows, S, k=S - T if k is None else k, dtype=bool)
    return causal & (real if keys is None else keys)[:, None, :]


mistakes(
    chunk_mask,
    ("top_left", lambda real, T: chunk(real, T, k=0),
     "Aligned at the top left, as `is_causal=True` does it: the first new query sees the first key "
     "only. The queries are the *last* T of S positions: query t sees S - T more."),
    ("square", lambda real, T: chunk(real, T, rows=real.shape[1], k=0),
     "Square: (S, S) has a row for every token, and only the last T of them are new queries. Keep "
     "the last T rows."),
    ("square_of_queries", lambda real, T: chunk(real[:, -T:], T, k=0),
     "Square: (T, T) has no room for the S - T keys that are held already. All of those are behind "
     "the queries: the mask is (B, T, S)."),
    ("no_padding", lambda real, T: chunk(real, T, keys=np.ones_like(real)),
     "Padding may be seen. A key must be real, too: & real[:, None, :]."),
    ("no_causal", lambda real, T: chunk(real, T, k=real.shape[1]),
     "New tokens see later new tokens: right for the last query only. Key s is seen by query t if "
     "s <= S - T + t."),
    ("own_hidden", lambda real, T: chunk(real, T, k=real.shape[1] - T - 1),
     "A query does not see its own key. Own and earlier: `<=`, not `<`."),
    ("one_ahead", lambda real, T: chunk(real, T, k=real.shape[1] - T + 1),
     "Each query sees one key of its future. Query t stands at S - T + t, and that is the last it "
     "sees."),
    ("wrong_sign", lambda real, T: chunk(real, T, k=T - real.shape[1]),
     "The offset has the wrong sign: T - S takes keys away. Each query has S - T *more* behind "
     "it."),
    ("queries_hidden", lambda real, T: chunk(real, T, keys=np.ones_like(real))
     & real[:, -T:, None],
     "Rows of padding *queries* are hidden in place of columns of padding keys. What nobody may "
     "read is a key: real[:, None, :]."),
    ("padding_queries_hidden_too", lambda real, T: chunk(real, T) & real[:, -T:, None],
     "Rows of padding *queries* are hidden, too. The rule asks about keys only: nobody reads those "
     "rows, and a row with nothing to see is NaN in a plain softmax."),
    ("counted_as_left_padding", lambda real, T: chunk(
        real, T, keys=np.arange(real.shape[1]) >= real.shape[1] - real.sum(1)[:, None]),
     "Padding was counted, and taken to stand on the left. `real` says where it is: use it as it "
     "stands."),
    ("right_padding", lambda real, T: chunk(real, T, keys=real[:, ::-1]),
     "`real` was turned round: padding stands at the other end. Use it as it is."),
    ("either", lambda real, T: np.tri(T, real.shape[1], k=real.shape[1] - T, dtype=bool)
     | real[:, None, :],
     "The two rules are joined by *or*. Both must hold: `&`."),
    ("inverted", lambda real, T: ~chunk_mask.solve(real, T),
     "Inverted: True stands where a key is hidden. Here True means *may be seen*."),
    ("real_inverted", lambda real, T: chunk(real, T, keys=~real),
     "`real` is taken upside down: True means that a token is real, and may be seen."),
    ("one_of_the_batch", lambda real, T: chunk(real[:1], T)[0],
     "The batch axis is missing: each text has its own padding, (B, T, S)."),
    ("common_padding", lambda real, T: np.broadcast_to(
        chunk(real.all(0)[None], T), (len(real), T, real.shape[1])),
     "One mask serves the whole batch: a place that is padding in one text is hidden in all."),
    ("first_text_for_all", lambda real, T: np.broadcast_to(
        chunk(real[:1], T), (len(real), T, real.shape[1])),
     "The first text's padding is used for all. Each has its own: real[:, None, :]."),
    ("transposed", lambda real, T: chunk_mask.solve(real, T).swapaxes(1, 2),
     "Transposed: (B, S, T) has keys on the rows. Queries belong there: (B, T, S)."),
    ("with_heads", lambda real, T: chunk_mask.solve(real, T)[:, None],
     "There is an axis for the heads, (B, 1, T, S). A model needs it; here it is (B, T, S)."),
    ("counted_from_the_first_real", lambda real, T: np.stack([
        (s := np.arange(len(r))) <= (s[-T:] - np.argmax(r))[:, None] for r in real])
     & real[:, None, :],
     "The queries' positions are counted from the first real token, the keys' from the start of "
     "the row. Use one count for both."),
    ("offset_is_the_chunk", lambda real, T: chunk(real, T, k=T),
     "The diagonal is T. It is S - T, the number of tokens held before."),
)  # fmt: skip


# 6


class ReadTooMuch(Exception):
    """Raised by a model that is asked to read more tokens than the text has."""


class ReadAnew(Exception):
    """Raised by a model that has read before, and gets many tokens with an empty cache."""


@dataclass
class Model:
    """A stand-in for a language model: `model(ids, cache)` reads ids, writes them to the cache.

    What comes next depends on all tokens read and on their places. Copies start afresh.
    """

    seed: int
    vocab: int = 11
    room: int = 99  # how many tokens it reads in all
    read: int = field(default=0, compare=False)

    def __call__(self, ids, cache):
        new = [int(i) for i in np.atleast_1d(np.asarray(ids)).reshape(-1)]
        if not new:
            raise ValueError("the model was given no token to read")
        if self.read and not cache and len(new) > 1:
            raise ReadAnew("the model was given an empty cache once more, and much to read again")
        self.read += len(new)
        if self.read > self.room:
            raise ReadTooMuch(f"the model has read {self.read} tokens, and {self.room} are enough")
        cache.extend(new)
        state = self.seed
        for place, i in enumerate(cache):
            state = (state * 6364136223846793005 + (i + 1) * (2 * place + 3)) % 2**61
        return np.random.default_rng(state).normal(size=self.vocab)

    def __deepcopy__(self, memo):
        return Model(self.seed, self.vocab, self.room)

    def __repr__(self):
        return f"a model of {self.vocab} tokens"


def prompts():
    given = [([3], 1), ([3, 1], 2), ([5, 2, 8], 4), ([7, 7], 0), ([0, 4, 9, 4, 1], 6), ([1, 1], 5),
             ([10], 9)]  # fmt: skip
    return [(Model(seed, room=len(ids) + max(n, 1)), ids, n) for seed, (ids, n) in enumerate(given)]


@exercise(
    title="Generate with a cache",
    difficulty="medium",
    minutes=8,
    cases=prompts,
    hints=(
        "Begin with an empty cache, `[]`. First the model reads the prompt, all of it at once.",
        "After that it has read everything but the newest token: give it that one alone.",
        "Keep two lists: `ids`, the text so far, and `unread`, what the model has not seen: first "
        "the prompt, then [new].",
    ),
)
def generate(model, prompt, n):
    """model(ids, cache) -> logits (V,) for what follows; prompt (list), n new -> all ids (list)."""
    ids, unread, cache = list(prompt), list(prompt), []
    for _ in range(n):
        new = int(np.argmax(model(unread, cache)))
        ids.append(new)
        unread = [new]
    return ids


@generate.right
def generate_by_position(model, prompt, n):
    ids, cache = list(prompt), []
    while len(ids) < len(prompt) + n:
        ids.append(model(ids[len(cache) :], cache).argmax().item())
    return ids


@generate.right
def generate_with_the_prompt_read_one_by_one(model, prompt, n):
    cache, logits = [], None
    for i in prompt:
        logits = model([i], cache)
    out = [*prompt]
    while n > 0:
        out, n = [*out, torch.as_tensor(logits).argmax()], n - 1
        logits = model(out[-1:], cache)
    return torch.tensor(out)


@generate.right
def generate_in_tensors(model, prompt, n):
    ids = torch.tensor(prompt)
    unread, cache = ids, []
    for _ in range(n):
        unread = torch.tensor(model(unread, cache)).topk(1).indices
        ids = torch.cat((ids, unread))
    return ids


def generation(first=None, then=None, anew=False, choose=np.argmax, give=None, count=None):
    """The solution to exercise 6 with its parts to be exchanged, for mistakes."""

    def answer(model, prompt, n):
        ids, cache = list(prompt), []
        unread = ids if first is None else first(ids)
        for _ in range(n if count is None else count(n)):
            new = int(choose(model(unread, [] if anew else cache)))
            ids.append(new)
            unread = [new] if then is None else then(ids, len(prompt))
        return ids if give is None else give(ids, len(prompt))

    return answer


mistakes(
    generate,
    ("all_into_a_full_cache", generation(then=lambda ids, P: list(ids)),
     "Each step hands over the whole text, and the cache still holds it: everything stands there "
     "twice. After the prompt, give the newest token alone."),
    ("no_cache", generation(then=lambda ids, P: list(ids), anew=True),
     "The tokens are right, the work is not: each step reads the whole text into a new cache. Make "
     "one cache, before the loop, and give the model what it has not read."),
    ("cache_forgotten", generation(anew=True),
     "Each step begins with an empty cache and gives the newest token alone: the model has "
     "forgotten the text. Make one cache, before the loop."),
    ("prompt_again_and_again", generation(then=lambda ids, P: ids[:P]),
     "Each step reads the prompt again. After the first step only the newest token is unread."),
    ("generated_again", generation(then=lambda ids, P: ids[P:]),
     "Each step reads *all* new tokens, and all but the newest are in the cache already."),
    ("last_of_the_prompt_alone", generation(first=lambda ids: ids[-1:]),
     "The first step reads the last token of the prompt alone: keys and values of the others are "
     "missing. Read the whole prompt once."),
    ("last_of_the_prompt_twice", lambda model, prompt, n: (
        generation(first=lambda ids: [*ids, ids[-1]])(model, prompt, n)),
     "The prompt's last token stands in the cache twice, once with the prompt and once more for "
     "the first step. The logits after the prompt are the first step's. (If you filled the cache "
     "by hand: let the model read the prompt.)"),
    ("without_the_last_of_the_prompt", generation(
        first=lambda ids: ids[:-1] or ids, then=lambda ids, P: ids[-1:]),
     "The prompt was read without its last token. What comes next is asked by the last token: it "
     "must have been read."),
    ("last_dropped", generation(give=lambda ids, P: ids[:-1] if len(ids) > P else ids),
     "The last token is missing: never chosen, never added, or cut off at the end. n new ones are "
     "wanted, the one that follows the prompt included."),
    ("one_too_many", generation(count=lambda n: n + 1),
     "There is one token too many: n are wanted, the one that follows the prompt included."),
    ("new_alone", generation(give=lambda ids, P: ids[P:]),
     "Only the new tokens came back. The prompt belongs to the text: return both."),
    ("prompt_alone", lambda model, prompt, n: list(prompt),
     "This is the prompt, without anything new."),
    ("n_in_all", lambda model, prompt, n: generation()(model, prompt, max(n - len(prompt), 0)),
     "n was taken as the length of the whole text. It is the number of *new* tokens."),
    ("unlikeliest", generation(choose=np.argmin),
     "The *least* likely token was chosen: argmax, not argmin."),
    ("last_logit", generation(choose=lambda logits: len(logits) - 1),
     "The last place of the logits was taken. They are scores, one for each token of the "
     "vocabulary: take the place of the largest."),
    ("one_before", generation(then=lambda ids, P: ids[-2:-1]),
     "Each step reads the token *before* the newest. That one is in the cache; the newest is not."),
    ("last_two", generation(then=lambda ids, P: ids[-2:]),
     "Each step reads the last two tokens, and the first of them is in the cache already."),
    ("appended_by_hand", lambda model, prompt, n: _with_own_appends(model, prompt, n),
     "New tokens were put into the cache by hand *and* read. The model appends what it reads: give "
     "it the newest token, and leave the cache alone."),
    ("one_answer_for_all", lambda model, prompt, n: list(prompt) + [
        int(np.argmax(model(prompt, [])))] * n,
     "The model was asked once, and its answer came n times. Each new token must be read before "
     "the next is asked for."),
    ("prompt_twice", lambda model, prompt, n: _prompt_twice(model, prompt, n),
     "The prompt was read twice into one cache: first token by token, then whole, or the other way "
     "round. Once is enough."),
    ("drawn", generation(choose=lambda z: np.random.default_rng(0).choice(
        len(z), p=reference.softmax(z))),
     "The token was drawn. Here the likeliest is taken: np.argmax."),
)  # fmt: skip


def _with_own_appends(model, prompt, n):
    ids, unread, cache = list(prompt), list(prompt), []
    for _ in range(n):
        unread = [int(np.argmax(model(unread, cache)))]
        ids, cache = ids + unread, cache + unread
    return ids


def _prompt_twice(model, prompt, n):
    cache, ids = [], list(prompt)
    for i in [*ids[:-1], *ids]:
        logits = model([i], cache)
    for _ in range(n):
        ids.append(int(np.argmax(logits)))
        logits = model(ids[-1:], cache)
    return ids


# 7


def texts_to_write():
    return [(1, 1), (1, 2), (2, 3), (3, 2), (5, 1), (4, 4), (1, 10), (10, 5), (100, 50), (7, 0)]


@exercise(
    title="How much work?",
    difficulty="medium",
    minutes=7,
    cases=texts_to_write,
    hints=(
        "Without a cache, step i reads P + i tokens, i = 0 .. n - 1. How many entries has that "
        "square?",
        "With one, the first step makes the P × P square, and each later one a single row: P + 1 "
        "entries, P + 2, ...",
        "Let a loop add it up. Its closed form has a cube without a cache, and a square with one.",
    ),
)
def total_work(P, n):
    """Prompt of P tokens, n new ones -> score entries (without cache, with cache), one head."""
    without = sum((P + i) ** 2 for i in range(n))
    with_cache = sum(P * P if i == 0 else P + i for i in range(n))
    return without, with_cache


@total_work.right
def total_work_in_closed_form(P, n):
    def squares(m):
        return m * (m + 1) * (2 * m + 1) // 6

    rows = (n - 1) * P + n * (n - 1) // 2
    return [squares(P + n - 1) - squares(P - 1), P * P + rows] if n else [0, 0]


@total_work.right
def total_work_in_arrays(P, n):
    lengths = np.arange(P, P + n)
    return (lengths**2).sum(), (lengths * np.where(lengths == P, P, 1)).sum()


@total_work.right
def total_work_in_torch(P, n):
    lengths = torch.arange(P, P + n)
    return (lengths * lengths).sum().item(), (lengths.sum() + (P * P - P) * (n > 0)).item()


def halves(f):
    """A mistake that gets the second number right, or (g) the first."""
    return lambda P, n: (f(P, n), total_work.solve(P, n)[1])


def other_half(f):
    return lambda P, n: (total_work.solve(P, n)[0], f(P, n))


mistakes(
    total_work,
    ("read_for_nothing", lambda P, n: total_work.solve(P, n) if n else (P * P, P * P),
     "For n = 0 there is no step, so nothing is read: (0, 0)."),
    ("prompt_of_one", lambda P, n: total_work.solve(1, P + n - 1) if n else (0, 0),
     "The prompt is read token by token, as if it were written. It is read at once: the first step "
     "makes its whole square."),
    ("without_is_quadratic", halves(lambda P, n: sum(P + i for i in range(n))),
     "The first number counts one row a step. Without a cache each step makes all rows anew: "
     "(P + i)² entries. That is what makes it cubic."),
    ("without_is_one_square", halves(lambda P, n: (P + n) ** 2),
     "The first number is one square, of the finished text. Without a cache there is a square for "
     "*every* step, (P + i)² for i = 0 .. n - 1."),
    ("without_is_n_squares", halves(lambda P, n: n * (P + n) ** 2),
     "The first number takes the longest text for every step. Step i reads P + i tokens."),
    ("without_the_prompt_square", halves(lambda P, n: sum(i * i for i in range(1, n + 1))),
     "The first number leaves the prompt out. Step i reads the prompt too: P + i tokens."),
    ("one_more_step", halves(lambda P, n: sum((P + i) ** 2 for i in range(n + 1))),
     "The first number has one step too many. n new tokens take n steps: the last one is chosen, "
     "and never read."),
    ("starts_one_late", halves(lambda P, n: sum((P + i) ** 2 for i in range(1, n + 1))),
     "In the first number the steps read P + 1 .. P + n tokens. The first reads the prompt alone, "
     "P, and the last new token is never read."),
    ("causal_halves", halves(lambda P, n: sum((P + i) * (P + i + 1) // 2 for i in range(n))),
     "The first number counts the visible half only. Count whole rows here: the matrix product "
     "computes hidden entries as well."),
    ("prefill_triangle", other_half(
        lambda P, n: sum(P * (P + 1) // 2 if i == 0 else P + i for i in range(n))),
     "With a cache, the prompt's square is counted by its visible half. Count whole squares here, "
     "P · P."),
    ("both_triangles", lambda P, n: (
        sum((P + i) * (P + i + 1) // 2 for i in range(n)),
        sum(P * (P + 1) // 2 if i == 0 else P + i for i in range(n))),
     "Only visible entries are counted. Count whole squares and rows here: the matrix product "
     "computes hidden entries as well."),
    ("no_prefill", other_half(lambda P, n: sum(P + i for i in range(n))),
     "With a cache, the first step reads the whole prompt: P queries, P keys, P · P entries. Only "
     "later steps have a single query."),
    ("linear", other_half(lambda P, n: P * P * (n > 0) + max(n - 1, 0)),
     "With a cache, each later step is counted as one entry. The new query still meets *every* key "
     "held: P + i of them."),
    ("with_is_one_square", other_half(lambda P, n: (P + n) ** 2),
     "The second number is the whole square. With a cache nobody computes the rows of the new "
     "tokens against keys that come after them: a step has P + i entries."),
    ("prefill_forgotten", other_half(lambda P, n: sum(P + i for i in range(1, n))),
     "With a cache the prompt must be read as well, once: P · P entries."),
    ("row_without_itself", other_half(
        lambda P, n: sum(P * P if i == 0 else P + i - 1 for i in range(n))),
     "In the second number a query does not meet its own key. Step i has P + i keys, the newest "
     "token's included."),
    ("one_more_row", other_half(lambda P, n: P * P + sum(P + i for i in range(1, n + 1))),
     "The second number has one row too many: the last new token is chosen, and never read. (With "
     "n = 0 nothing is read at all.)"),
    ("prompt_every_step", other_half(lambda P, n: sum(P * P + i for i in range(n))),
     "In the second number every step pays for the prompt's square. That is paid once."),
    ("one_more_step_in_both", lambda P, n: (
        sum((P + i) ** 2 for i in range(n + 1)),
        P * P + sum(P + i for i in range(1, n + 1))),
     "Both have one step too many. n new tokens take n steps: the last one is chosen, and never "
     "read."),
    ("swapped", lambda P, n: total_work.solve(P, n)[::-1],
     "The two changed places: first without a cache, then with one."),
    ("per_step", lambda P, n: ((P + n - 1) ** 2 if n else 0, P + n - 1 if n else 0),
     "These are the entries of the *last* step. Add up all n steps."),
    ("twice", lambda P, n: tuple(2 * w for w in total_work.solve(P, n)),
     "Twice as many: score entries are counted here, not FLOPs, and only those of q · k."),
    ("orders_of_growth", lambda P, n: (n**3, n**2),
     "n³ and n² say how it grows. Give the exact numbers: add up the steps."),
    ("leading_terms", lambda P, n: ((P + n) ** 3 // 3, (P + n) ** 2 // 2),
     "These are the leading terms of the sums, for long texts from nothing. Give the exact "
     "numbers, with the prompt read at once."),
    ("prompt_counted_again", other_half(
        lambda P, n: P * P * (n > 0) + sum(P + i for i in range(n))),
     "In the second number the first step is counted twice, as a square and as a row. Its last row "
     "belongs to the square."),
    ("prompt_read_for_nothing", other_half(
        lambda P, n: P * P + sum(P + i for i in range(1, n))),
     "With n = 0 nothing is asked, so nothing needs to be read: (0, 0)."),
    ("only_new_keys", other_half(lambda P, n: sum(P * P if i == 0 else i for i in range(n))),
     "In the second number a step's query meets the *new* keys only. It meets the prompt's, too: "
     "P + i."),
    ("lengths_off_by_one_in_both", lambda P, n: (
        sum((P + i) * (P + i - 1) // 2 for i in range(n)),
        sum(P * (P - 1) // 2 if i == 0 else P + i - 1 for i in range(n))),
     "A query's own key is left out, and hidden entries, too. Count whole squares and rows."),
)  # fmt: skip


# 8


def shapes_of_models():
    return [
        (1, 2, 1, 3, 5, 1, 4), (2, 4, 2, 3, 5, 1, 2), (3, 3, 3, 3, 3, 3, 3), (2, 6, 3, 4, 7, 5, 2),
        (12, 12, 12, 64, 1024, 1, 2), (32, 32, 8, 128, 8192, 1, 2), (32, 71, 1, 64, 2048, 3, 4),
        (28, 16, 16, 256, 1, 1, 1), (5, 8, 4, 7, 0, 2, 2)]  # fmt: skip


@exercise(
    title="Bytes of a cache",
    difficulty="easy",
    minutes=4,
    cases=shapes_of_models,
    hints=(
        "For each token, each layer keeps a key and a value for every *key head*.",
        "One of them is head_dim numbers. Queries are not kept.",
        "2 · layers · key heads · head_dim, times tokens, texts, and bytes for each number.",
    ),
)
def cache_bytes(n_layers, n_heads, n_kv_heads, head_dim, seq_len, batch, bytes_per_number):
    """Sizes of a model and of its texts, whole numbers -> bytes of keys and values."""
    per_token = 2 * n_layers * n_kv_heads * head_dim  # numbers: keys and values
    return per_token * seq_len * batch * bytes_per_number


@cache_bytes.right
def bytes_of_arrays(n_layers, n_heads, n_kv_heads, head_dim, seq_len, batch, bytes_per_number):
    k = np.broadcast_to(np.int8(0), (batch, n_kv_heads, seq_len, head_dim))
    return sum(2 * k.size * bytes_per_number for _ in range(n_layers))


@cache_bytes.right
def bytes_by_product(n_layers, n_heads, n_kv_heads, head_dim, seq_len, batch, bytes_per_number):
    sizes = (2, n_layers, n_kv_heads, head_dim, seq_len, batch, bytes_per_number)
    return int(torch.tensor(sizes).prod())


mistakes(
    cache_bytes,
    ("no_factor_two", lambda L, H, K, D, S, B, b: L * K * D * S * B * b,
     "The factor 2 is missing: keys *and* values."),
    ("query_heads", lambda L, H, K, D, S, B, b: 2 * L * H * D * S * B * b,
     "n_heads counts the *query* heads. Queries are not kept: take n_kv_heads."),
    ("query_heads_without_two", lambda L, H, K, D, S, B, b: L * H * D * S * B * b,
     "n_heads counts the *query* heads, which are not kept, and the factor 2 for keys *and* values "
     "is missing."),
    ("queries_too", lambda L, H, K, D, S, B, b: (2 * K + H) * L * D * S * B * b,
     "Queries are counted, too. A query is used once, by its own token: nobody reads it again."),
    ("three", lambda L, H, K, D, S, B, b: 3 * L * K * D * S * B * b,
     "The factor is 3. Keys and values are kept, queries are not: 2."),
    ("no_layers", lambda L, H, K, D, S, B, b: 2 * K * D * S * B * b,
     "This is one layer. Each layer keeps its own."),
    ("no_batch", lambda L, H, K, D, S, B, b: 2 * L * K * D * S * b,
     "This is one text. Each text of the batch has its own cache."),
    ("numbers", lambda L, H, K, D, S, B, b: 2 * L * K * D * S * B,
     "These are numbers, not bytes: times bytes_per_number."),
    ("bits", lambda L, H, K, D, S, B, b: 16 * L * K * D * S * B * b,
     "These are bits: 8 times the bytes."),
    ("per_token", lambda L, H, K, D, S, B, b: 2 * L * K * D * B * b,
     "This is one token of each text: times seq_len."),
    ("squared", lambda L, H, K, D, S, B, b: 2 * L * K * D * S * S * B * b,
     "seq_len comes in squared. Scores are quadratic; what is *kept* is a row a token."),
    ("both_heads", lambda L, H, K, D, S, B, b: 2 * L * H * K * D * S * B * b,
     "Both numbers of heads come in. Only key heads keep anything: n_kv_heads."),
    ("groups", lambda L, H, K, D, S, B, b: 2 * L * (H // K) * D * S * B * b,
     "n_heads // n_kv_heads is the number of queries that *share* a key head. Kept are n_kv_heads "
     "of them."),
    ("in_gigabytes", lambda L, H, K, D, S, B, b: 2 * L * K * D * S * B * b / 1e9,
     "These are gigabytes. Give bytes, a whole number."),
    ("in_gibibytes", lambda L, H, K, D, S, B, b: 2 * L * K * D * S * B * b / 2**30,
     "These are gibibytes. Give bytes, a whole number."),
    ("sum_of_keys_and_queries", lambda L, H, K, D, S, B, b: L * (H + K) * D * S * B * b,
     "Keys are counted for n_kv_heads, values for n_heads. A key head has both: 2 · n_kv_heads."),
    ("always_two_bytes", lambda L, H, K, D, S, B, b: 4 * L * K * D * S * B,
     "Two bytes a number were assumed. Take bytes_per_number."),
    ("no_heads", lambda L, H, K, D, S, B, b: 2 * L * D * S * B * b,
     "This is one key head. There are n_kv_heads of them."),
    ("one_token_more", lambda L, H, K, D, S, B, b: 2 * L * K * D * (S + 1) * B * b,
     "One token too many. Kept are the seq_len tokens that have been read."),
    ("one_token_less", lambda L, H, K, D, S, B, b: 2 * L * K * D * (S - 1) * B * b,
     "One token is missing. Kept are all seq_len tokens."),
    ("squared_width", lambda L, H, K, D, S, B, b: 2 * L * K * D * D * S * B * b,
     "head_dim comes in squared: that is the size of a *map*. A key is a row of head_dim numbers."),
)  # fmt: skip


# 9


def windows():
    """What is held after `seen` tokens, T new keys, and a window with sinks; all widths differ."""
    rng = np.random.default_rng(9)
    sizes = [(0, 1, 3, 0, 2), (4, 1, 3, 0, 2), (7, 1, 4, 2, 3), (2, 1, 4, 2, 2), (9, 3, 4, 1, 3),
             (3, 2, 5, 3, 2), (0, 9, 3, 2, 3), (6, 5, 3, 1, 2), (12, 1, 1, 1, 2),
             (5, 1, 2, 2, 4), (5, 4, 2, 0, 3), (3, 3, 3, 3, 3)]  # fmt: skip
    cases = []
    for past, T, window, sinks, D in sizes:
        text = rng.normal(size=(past + T, D)).round(1)
        held = [p for p in range(past) if p < sinks or p >= past - window]
        cases.append((np.array(held, dtype=int), text[held], text[past:], window, sinks))
    return cases


def windowed(positions, keys, new, window, sinks, *, start=None, keep=None, number=None):
    """The solution to exercise 9 with its parts to be exchanged, for mistakes."""
    begin = (positions[-1] + 1 if len(positions) else 0) if start is None else start(positions)
    at = np.concatenate((positions, np.arange(begin, begin + len(new)))).astype(int)
    rows, n = np.concatenate((keys, new)), begin + len(new)
    stays = (at < sinks) | (at >= n - window) if keep is None else keep(at, n, window, sinks)
    at, rows = at[stays], rows[stays]
    return (at if number is None else number(at)), rows


@exercise(
    title="A window with sinks",
    difficulty="hard",
    minutes=12,
    cases=windows,
    axes={"positions": "S", "keys": "S D"},
    hints=(
        "The new tokens go on counting: the first one's position is positions[-1] + 1, or 0 if "
        "nothing is held yet.",
        "With n tokens seen so far, position p stays if p < sinks or p >= n - window: one rule, "
        "for short texts, too.",
        "Join old and new positions and keys, make one mask of that rule, and apply it to both.",
    ),
)
def sliding_window(positions, keys, new, window, sinks):
    """positions (R,), keys (R, D), T new keys (T, D) -> what is held then: positions, keys."""
    start = int(positions[-1]) + 1 if len(positions) else 0
    n = start + len(new)  # tokens seen so far
    at = np.concatenate((positions, np.arange(start, n)))
    rows = np.concatenate((keys, new))
    stays = (at < sinks) | (at >= n - window)
    return at[stays], rows[stays]


@sliding_window.right
def window_in_torch(positions, keys, new, window, sinks):
    start = positions[-1].item() + 1 if len(positions) else 0
    at = torch.cat((positions, torch.arange(start, start + len(new))))
    stay = torch.logical_or(at < sinks, at + window > at[-1])
    return at[stay], torch.cat((keys, new))[stay]


@sliding_window.right
def window_token_by_token(positions, keys, new, window, sinks):
    at, rows = [int(p) for p in positions], [list(k) for k in keys]
    for row in new:
        at.append(at[-1] + 1 if at else 0)
        rows.append(list(row))
        if len(at) > sinks + window:
            del at[sinks], rows[sinks]
    return at, rows


@sliding_window.right
def window_by_slices(positions, keys, new, window, sinks):
    start = positions[-1] + 1 if len(positions) else 0
    at = np.r_[positions, np.arange(start, start + len(new))].astype(int)
    rows = np.vstack([keys, new])
    if len(at) <= sinks + window:
        return at, rows
    return (np.r_[at[:sinks], at[len(at) - window :]],
            np.vstack([rows[:sinks], rows[len(rows) - window :]]))  # fmt: skip


@sliding_window.property("Each position should have its key, and each key its position.")
def as_many_of_both(out, positions, keys, new, window, sinks):
    return len(out[0]) == len(out[1])


@sliding_window.property("The newest token should be held: its own query asks for it.")
def newest_is_held(out, positions, keys, new, window, sinks):
    return (np.asarray(out[1]) == np.asarray(new)[-1]).all(-1).any()


mistakes(
    sliding_window,
    ("newest_evicted", lambda *a: windowed(
        *a, keep=lambda at, n, w, s: np.arange(len(at)) < w + s),
     "The oldest stayed and the newest went. A window keeps the *last* tokens (and the first few "
     "as sinks)."),
    ("renumbered", lambda *a: windowed(*a, number=lambda at: np.arange(len(at))),
     "The positions were numbered anew. These keys were turned by their true positions when they "
     "were stored: keep those. (StreamingLLM numbers anew, and turns the keys afterwards.)"),
    ("no_sinks", lambda *a: windowed(*a, keep=lambda at, n, w, s: at >= n - w),
     "The sinks are gone: the first `sinks` tokens of the text stay for ever."),
    ("sinks_in_the_window", lambda *a: windowed(
        *a, keep=lambda at, n, w, s: (at < s) | (at >= n - w + min(s, w - 1))),
     "The sinks were taken out of the window. Here they come in addition: `sinks` and `window` "
     "tokens."),
    ("sinks_and_window_swapped", lambda p, k, new, w, s: windowed(p, k, new, s, w),
     "Sinks and window changed places: the first `sinks`, the last `window`."),
    ("window_before_the_newest", lambda *a: windowed(
        *a, keep=lambda at, n, w, s: (at < s) | (at >= n - w - 1)),
     "One too many: the window counts the newest token, too."),
    ("one_too_few", lambda *a: windowed(
        *a, keep=lambda at, n, w, s: (at < s) | (at > n - w)),
     "One too few: position n - window is the oldest that stays."),
    ("one_sink_more", lambda *a: windowed(
        *a, keep=lambda at, n, w, s: (at <= s) | (at >= n - w)),
     "One sink too many: positions 0 .. sinks - 1 are `sinks` tokens."),
    ("one_sink_always", lambda *a: windowed(
        *a, keep=lambda at, n, w, s: (at < 1) | (at >= n - w)),
     "One sink is kept, however many were asked for."),
    ("positions_by_rows", lambda *a: windowed(*a, start=len),
     "The new positions go on from the number of rows *held*. Once something has been dropped that "
     "is too small: go on from the last position, positions[-1] + 1."),
    ("positions_restart", lambda *a: windowed(*a, start=lambda p: 0),
     "The new tokens start at position 0 again. They go on from positions[-1] + 1."),
    ("positions_repeat", lambda *a: windowed(
        *a, start=lambda p: p[-1] if len(p) else 0),
     "The first new token got the position of the last one held: + 1."),
    ("nothing_dropped", lambda *a: windowed(*a, keep=lambda at, n, w, s: at >= 0),
     "Nothing was dropped, so the cache grows without end. Add the new rows first, then keep what "
     "the rule says."),
    ("one_dropped", lambda *a: windowed(
        *a, keep=lambda at, n, w, s: (at < s) | (
            np.arange(len(at)) != s) | (len(at) <= s + w)),
     "At most one row was dropped. A chunk may bring several: keep what the rule says, whatever "
     "their number."),
    ("sinks_twice", lambda p, k, new, w, s: (
        lambda at, rows: (np.r_[at[:s], at[-w:]], np.vstack([rows[:s], rows[-w:]])))(
        *windowed(p, k, new, w, s, keep=lambda at, n, w_, s_: at >= 0)),
     "In a short text the first and the last tokens overlap, and some came twice. Use the rule on "
     "positions, p < sinks or p >= n - window, or test the length."),
    ("sinks_of_what_is_held", lambda *a: windowed(
        *a, keep=lambda at, n, w, s: (np.arange(len(at)) < s) & (at < n - w) & (at >= 1)
        | (at >= n - w)),
     "The sinks are the first rows of what is held without position 0. They are the first of the "
     "*text*: positions 0 .. sinks - 1."),
    ("keys_alone", lambda *a: sliding_window.solve(*a)[1],
     "Only the keys came back. Return positions and keys."),
    ("swapped", lambda *a: sliding_window.solve(*a)[::-1],
     "The two changed places: positions first, then keys."),
    ("newest_first", lambda *a: tuple(x[::-1] for x in sliding_window.solve(*a)),
     "The newest stands first. Oldest first."),
    ("new_alone", lambda p, k, new, w, s: windowed(
        p[:0], k[:0], new, w, s, start=lambda _: p[-1] + 1 if len(p) else 0),
     "Only the new tokens are held. The window reaches back before them, and the sinks to the "
     "start."),
    ("as_a_ring", lambda *a: _as_a_ring(*a),
     "The newest row took the place of the oldest, as in a ring. That is how a fast one does it, "
     "but here the order is asked for: oldest first."),
    ("slices_and_rows_counted", lambda p, k, new, w, s: (
        lambda at, rows: (at, rows) if len(at) <= s + w else (
            np.r_[at[:s], at[-w:]], np.vstack((rows[:s], rows[-w:]))))(
        *windowed(p, k, new, w, s, start=len, keep=lambda at, n, w_, s_: at >= -1)),
     "The right rows are held, and the new positions go on from the number of rows *held*. Once "
     "something was dropped that is too small: positions[-1] + 1."),
    ("oldest_go_first", lambda *a: windowed(
        *a, keep=lambda at, n, w, s: np.arange(len(at)) >= len(at) - w - s),
     "The last sinks + window tokens are held: the sinks went with the oldest. The first `sinks` "
     "of the text stay for ever."),
    ("rows_as_tokens_seen", lambda *a: windowed(
        *a, keep=lambda at, n, w, s: (at < s) | (at >= len(at) - w)),
     "The number of rows held was taken for the number of tokens seen: after a while nothing is "
     "dropped any more. n = positions[-1] + 1 + T."),
    ("one_of_the_new", lambda p, k, new, w, s: sliding_window.solve(p, k, new[-1:], w, s),
     "Only the last of the new tokens was added. A chunk may bring several."),
    ("counted_from_one", lambda *a: (sliding_window.solve(*a)[0] + 1, sliding_window.solve(*a)[1]),
     "Positions start at 0."),
    ("sinks_within", lambda *a: windowed(
        *a, keep=lambda at, n, w, s: (at < s) & (at >= n - w)),
     "Only tokens that are sinks *and* in the window stay. One of the two is enough: `or`."),
)  # fmt: skip


def _as_a_ring(positions, keys, new, window, sinks):
    at, rows = [int(p) for p in positions], [list(k) for k in keys]
    for row in new:
        n = max(at, default=-1) + 1
        if len(at) < sinks + window:
            at.append(n)
            rows.append(list(row))
        else:
            oldest = at.index(min(at[sinks:]))
            at[oldest], rows[oldest] = n, list(row)
    return at, rows


# 10


@exercise(
    title="Which bug is it?",
    difficulty="medium",
    minutes=4,
    options={
        "a": "That harms every step after the prompt: the first new query would see the first key "
        "only. The first six tokens came out right.",
        "b": "Then the very first step after the prompt would be wrong: its token would stand "
        "where *The* does. Six steps were exact, up to rounding.",
        "c": "That is wrong from the first token on, cache or not, and both runs would agree.",
        "d": "Yes. Before step 7 the buffer was full. The new row is written over the last one, "
        "without a word: a key is lost, and with each later token another. It also explains why "
        "shorter texts never showed it.",
        "e": "Rounding is 1e-6 here, and a greedy choice changes only where two logits are as near "
        "as that. A jump by five orders of magnitude, which stays, is a bug.",
    },
    hints=(
        "What differs between step 6 and step 7? Not the mask, not the scale, not the rotation.",
        "Look at the size of the error: it is rounding, and then, at once, it is not.",
    ),
)
def which_bug():
    """What makes a cached text part from the plain one at token 7: a letter from a to e."""
    return "d"


# 11


@dataclass(frozen=True)
class Maker:
    """Makes caches of one kind, with a fault or without: `make()` gives an empty one."""

    fault: str
    at: int = 0

    def __call__(self):
        return Suspect(self.fault, self.at)

    def __repr__(self):
        return "make_cache"


class Suspect:
    """A cache of rows (D,): `append(row)` gives all rows so far, (S, D), if it is sound."""

    def __init__(self, fault, at):
        self.fault, self.at, self.rows = fault, at, []
        self.buffer = None

    def append(self, row):
        out = self._append(row)
        return torch.from_numpy(out.copy()) if isinstance(row, torch.Tensor) else out

    def _append(self, row):
        row, n, at = np.array(row, dtype=float), len(self.rows) + 1, self.at
        self.rows.append(row)
        rows, hit = np.array(self.rows), bool(at) and n >= at
        if self.fault == "views":  # one buffer, written in place: what was returned changes too
            return self._in_one_buffer(row, n)
        if hit and self.fault == "clamped":
            rows = np.concatenate((rows[: at - 2], rows[-1:]))
        if hit and self.fault == "window":
            rows = rows[-(at - 1) :]
        if hit and self.fault == "swapped":
            rows[[0, 1]] = rows[[1, 0]]
        if hit and self.fault == "first lost":
            rows[0] = 0.0
        if hit and self.fault == "middle":
            rows[at // 2] *= 1.001
        if n == at and self.fault == "once":
            rows[-1] = rows[-2]
        if hit and self.fault == "newest twice":
            rows = np.concatenate((rows, rows[-1:]))
        if hit and self.fault == "one feature":
            rows[1, -1] *= 1.5
        if hit and self.fault == "swapped within":
            rows[[1, 2]] = rows[[2, 1]]
        if hit and self.fault == "cancels":
            rows[0, :2] += 1, -1
        if hit and self.fault == "cancels within":
            rows[1:3, :2] += [[1, -1], [-1, 1]]
        if hit and self.fault == "a little":
            rows[1, 1] += 5e-5
        if self.fault == "rounded":
            rows = rows + 1e-9
        return rows

    def _in_one_buffer(self, row, n):
        if self.buffer is None:
            self.buffer = np.zeros((64, len(row)))
        self.buffer[n - 1] = row
        if self.at and n == self.at:
            self.buffer[0] = -1.0
        return self.buffer[:n]


def suspects():
    rng = np.random.default_rng(11)
    kinds = [("sound", 0, 3), ("clamped", 3, 4), ("first lost", 2, 3), ("clamped", 7, 9),
             ("window", 5, 8), ("swapped", 4, 6), ("middle", 6, 7), ("once", 4, 7),
             ("newest twice", 3, 5), ("one feature", 5, 6), ("rounded", 0, 6), ("views", 0, 7),
             ("views", 7, 9), ("cancels", 4, 5), ("first lost", 7, 7), ("sound", 0, 1),
             ("swapped within", 4, 6), ("cancels within", 4, 5), ("a little", 4, 5)]  # fmt: skip
    return [
        (Maker(fault, at), rng.normal(size=(T, 2 + i % 3)))
        for i, (fault, at, T) in enumerate(kinds)
    ]


def hunted(make_cache, rows, *, look=None, tol=1e-6, signed=False):
    """The first t at which look(returned, wanted) differ, for mistakes."""
    cache = make_cache()
    for t, row in enumerate(rows):
        out = np.asarray(cache.append(row))
        want = rows[: t + 1]
        a, b = (out, want) if look is None else (look(out), look(want))
        if np.shape(a) != np.shape(b):
            return t + 1
        off = (a - b) if signed else np.abs(a - b)
        if not off.max(initial=0) <= tol:
            return t + 1
    return 0


@exercise(
    title="Bug hunt: diverges at token 7",
    difficulty="hard",
    minutes=10,
    cases=suspects,
    hints=(
        "Feed the rows one after another. After row t the cache should give back exactly "
        "rows[:t + 1].",
        "Compare at once, and the *whole* of it: shape and all numbers. A cache may spoil an old "
        "row while the newest is right.",
        "Count tokens from 1, and return 0 if nothing ever differs. Rounding is forgiven by "
        "np.abs(a - b).max() < 1e-6.",
    ),
)
def diverges_at(make_cache, rows):
    """make_cache() gives an empty cache; rows (T, D) -> the first bad token, from 1, or 0."""
    cache, rows = make_cache(), np.asarray(rows)
    for t in range(len(rows)):
        held = np.asarray(cache.append(rows[t]))
        if held.shape != rows[: t + 1].shape or not np.abs(held - rows[: t + 1]).max() < 1e-6:
            return t + 1
    return 0


@diverges_at.right
def hunt_in_torch(make_cache, rows):
    cache = make_cache()
    for t in range(1, len(rows) + 1):
        held = cache.append(rows[t - 1])
        same_shape = held.shape == rows[:t].shape
        if not same_shape or (held - rows[:t]).abs().max() > 1e-5:
            return t
    return 0


@diverges_at.right
def hunt_with_a_list(make_cache, rows):
    cache, sofar = make_cache(), []
    for row in rows:
        sofar.append(row)
        held = [list(r) for r in cache.append(row)]
        if len(held) != len(sofar) or not all(map(np.allclose, held, sofar)):
            return len(sofar)
    return 0


@diverges_at.right
def hunt_with_fresh_caches(make_cache, rows):
    for t in range(1, len(rows) + 1):
        cache = make_cache()
        held = [np.array(cache.append(row)) for row in rows[:t]][-1]
        if held.shape != rows[:t].shape or not np.allclose(held, rows[:t]):
            return t
    return 0


def compared_at_the_end(make_cache, rows):
    cache = make_cache()
    outs = [np.asarray(cache.append(row)) for row in rows]
    for t, out in enumerate(outs, 1):
        if out.shape != rows[:t].shape or not np.allclose(out, rows[:t]):
            return t
    return 0


def hunt_by_the_last_output(make_cache, rows):
    cache = make_cache()
    out = [np.asarray(cache.append(row)) for row in rows][-1]
    for t in range(len(rows)):
        if t >= len(out) or not np.allclose(out[t], rows[t]):
            return t + 1
    return 0


def last_that_is_bad(make_cache, rows):
    cache, found = make_cache(), 0
    for t, row in enumerate(rows, 1):
        out = np.asarray(cache.append(row))
        if out.shape != rows[:t].shape or not np.allclose(out, rows[:t]):
            found = t
    return found


mistakes(
    diverges_at,
    ("newest_row", lambda m, r: hunted(m, r, look=lambda x: x[-1]),
     "Only the newest row was compared. A cache may spoil an *old* row while the newest is right: "
     "compare all of rows[:t + 1]."),
    ("oldest_row", lambda m, r: hunted(m, r, look=lambda x: x[0]),
     "Only the first row was compared. Compare all of rows[:t + 1]."),
    ("oldest_and_newest", lambda m, r: hunted(m, r, look=lambda x: np.array(
        [np.full_like(x[0], len(x)), x[0], x[-1], x.sum() * np.ones_like(x[0])])),
     "Length, first row, last row and sum were compared. What lies between may change and leave "
     "them as they are: compare all of rows[:t + 1]."),
    ("first_feature", lambda m, r: hunted(m, r, look=lambda x: x[:, 0]),
     "Only the first number of each row was compared."),
    ("lengths", lambda m, r: hunted(m, r, look=lambda x: np.array(len(x))),
     "Only lengths were compared. A row may be there and hold something else: compare numbers, "
     "too."),
    ("sums", lambda m, r: hunted(m, r, look=lambda x: np.array(x.sum())),
     "Sums were compared. Two changes may cancel, or two rows change places: compare number by "
     "number."),
    ("column_sums", lambda m, r: hunted(m, r, look=lambda x: x.sum(0)),
     "Sums over the rows were compared, or sorted rows. Two rows may change places: compare row by "
     "row."),
    ("counted_from_zero", lambda m, r: (d := diverges_at.solve(m, r)) and d - 1,
     "Tokens are counted from 1 here: row t is token t + 1."),
    ("one_late", lambda m, r: (d := diverges_at.solve(m, r)) and d + 1,
     "One too late: after row t, the cache has taken t + 1 tokens."),
    ("at_the_end", compared_at_the_end,
     "The outputs were kept and compared at the end. Some caches hand out *views* of one buffer, "
     "which later rows change: compare at once, or copy."),
    ("last_output", hunt_by_the_last_output,
     "Only what came back last was looked at: this says which row is bad in the end, not *when* it "
     "went wrong. Compare after every append."),
    ("last_bad", last_that_is_bad,
     "This is the *last* token at which they differ. Return at the first."),
    ("exact", lambda m, r: hunted(m, r, tol=0.0),
     "Compared exactly. Rounding may move the last digits: np.allclose."),
    ("a_little_loose", lambda m, r: hunted(m, r, tol=1e-4),
     "The tolerance is so wide, for itself or in proportion (rtol), that a fault of 0.00005 "
     "passes. Rounding is below 1e-6 here."),
    ("too_loose", lambda m, r: hunted(m, r, tol=0.05),
     "The tolerance is so wide that an error of 0.1 % passes. Rounding is far below 1e-6 here."),
    ("far_too_loose", lambda m, r: hunted(m, r, tol=0.5),
     "The tolerance is so wide that half a unit passes. Rounding is far below 1e-6 here."),
    ("never", lambda m, r: 0,
     "This says 0 of every cache. Some go wrong: append row by row and compare."),
    ("always_seven", lambda m, r: 7,
     "Not every cache goes wrong at token 7. Measure."),
    ("minus_one", lambda m, r: diverges_at.solve(m, r) or -1,
     "For a sound cache this gives -1. Here it is 0."),
    ("the_length", lambda m, r: diverges_at.solve(m, r) or len(r),
     "For a sound cache this gives the number of rows. Here it is 0."),
    ("yes_or_no", lambda m, r: int(diverges_at.solve(m, r) > 0),
     "This says whether, not when: 1 for every faulty cache. Return the token's number."),
    ("a_cache_for_each", lambda m, r: next(
        (t + 1 for t in range(len(r)) if not np.array_equal(
            np.asarray(m().append(r[t])), r[: t + 1])), 0),
     "Each row went into a new cache. Make one, before the loop."),
    ("outputs_before", lambda m, r: hunted(m, r, look=lambda x: x[:-1]),
     "The newest row was left out of the comparison."),
    ("common_rows", lambda m, r: _common_rows(m, r),
     "Only the rows that both have were compared: one too many, or too few, goes unnoticed. "
     "Compare shapes, too."),
    ("signed", lambda m, r: hunted(m, r, look=lambda x: x, signed=True),
     "Differences were compared with their sign, so one below 0 goes unnoticed: abs."),
    ("row_sums", lambda m, r: hunted(m, r, look=lambda x: x.sum(1)),
     "Sums of each row were compared. Two changes may cancel: compare number by number."),
    ("first_row_skipped", lambda m, r: _first_row_skipped(m, r),
     "The loop starts at row 1: row 0 never went into the cache."),
    ("turned_round", lambda m, r: next((t for t, row in enumerate(r, 1) if m and t == (
        1 if diverges_at.solve(m, r) != 1 else 2)), 0),
     "The first token at which they *agree* came back. Look for the first at which they differ."),
    ("against_the_output_before", lambda m, r: _against_before(m, r),
     "Each output was compared with the one before: that the newest row itself is right was never "
     "looked at. Compare with rows[:t + 1]."),
)  # fmt: skip


def _first_row_skipped(make_cache, rows):
    cache = make_cache()
    for t in range(1, len(rows)):
        out = np.asarray(cache.append(rows[t]))
        if out.shape != rows[: t + 1].shape or not np.allclose(out, rows[: t + 1]):
            return t + 1
    return 0


def _against_before(make_cache, rows):
    cache, before = make_cache(), None
    for t, row in enumerate(rows, 1):
        out = np.array(cache.append(row))
        if before is not None and (len(out) != t or not np.allclose(out[:-1], before)):
            return t
        before = out
    return 0


def _common_rows(make_cache, rows):
    cache = make_cache()
    for t, row in enumerate(rows, 1):
        out = np.asarray(cache.append(row))
        both = min(len(out), t)
        if not np.allclose(out[:both], rows[:both], atol=1e-6):
            return t
    return 0
