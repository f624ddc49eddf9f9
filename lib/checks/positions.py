"""Chapter 4: waves, buckets, slopes and turns, with a cache, between two layouts, and stretched.

Frequencies and widths are such that a wrong exponent, a wrong pairing or a wrong direction shows in
every case but the first, which is small enough to be redone on paper.
"""

import numpy as np
import torch

from lib import reference
from lib.checks.attention import mistakes
from lib.checks.framework import exercise


def frequencies(dim, theta=10_000.0):
    """(dim/2,): theta^(-2i/dim)."""
    return theta ** -(np.arange(0, dim, 2) / dim)


def waves(T, d, theta=10_000.0, exponent=None, start=0):
    """The solution to exercise 1 with its parts to be exchanged, for mistakes."""
    exponent = np.arange(0, d, 2) / d if exponent is None else exponent
    angles = np.arange(start, start + T)[:, None] * theta**-exponent
    return np.stack((np.sin(angles), np.cos(angles)), axis=-1).reshape(T, d)


def turn(x, positions, freq=None, theta=10_000.0, sign=1.0):
    """x (..., T, D), interleaved pairs turned by position · frequency, for answers below."""
    freq = frequencies(x.shape[-1], theta) if freq is None else freq
    angles = sign * np.asarray(positions)[:, None] * freq  # (T, D/2)
    cos, sin = np.cos(angles), np.sin(angles)
    out = np.empty(x.shape)
    out[..., ::2] = x[..., ::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., ::2] * sin + x[..., 1::2] * cos
    return out


def turn_half_split(x, positions, freq=None):
    """x (..., T, D), pairs (i, i + D/2) turned."""
    half = x.shape[-1] // 2
    freq = frequencies(x.shape[-1]) if freq is None else freq
    angles = np.asarray(positions)[:, None] * freq
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate((a * cos - b * sin, a * sin + b * cos), axis=-1)


# 1


@exercise(
    title="Sinusoidal positions",
    difficulty="easy",
    minutes=6,
    cases=lambda: [(2, 2), (2, 4), (3, 6), (5, 4), (40, 8), (1, 4), (8, 8)],
    axes="T C",
    hints=(
        "d/2 frequencies: 10000 ** -(2i/d) for i = 0 .. d/2 - 1. np.arange(0, d, 2) gives the 2i.",
        "positions[:, None] * frequencies is (T, d/2): every position with every frequency.",
        "Sines go to the even columns, out[:, 0::2], cosines to the odd ones, out[:, 1::2].",
    ),
)
def sinusoidal(T, d_model):
    """T positions from 0 -> (T, d_model): sin and cos of p · 10000^(-2i/d), taking turns."""
    angles = np.arange(T)[:, None] * 10_000.0 ** -(np.arange(0, d_model, 2) / d_model)
    out = np.zeros((T, d_model))
    out[:, 0::2] = np.sin(angles)
    out[:, 1::2] = np.cos(angles)
    return out


@sinusoidal.right
def sinusoidal_as_in_the_annotated_transformer(T, d_model):
    p = torch.arange(T).double()[:, None]
    div = torch.exp(torch.arange(0, d_model, 2).double() * -(np.log(10000.0) / d_model))
    pe = torch.zeros(T, d_model, dtype=torch.float64)
    pe[:, 0::2], pe[:, 1::2] = torch.sin(p * div), torch.cos(p * div)
    return pe


@sinusoidal.right
def sinusoidal_by_loops(T, d_model):
    f = [np.sin, np.cos]
    return [[f[j % 2](p / 10000 ** (2 * (j // 2) / d_model)) for j in range(d_model)]
            for p in range(T)]  # fmt: skip


@sinusoidal.right
def sinusoidal_by_complex_numbers(T, d_model):
    z = np.exp(1j * np.arange(T)[:, None] * frequencies(d_model))
    return np.stack((z.imag, z.real), axis=-1).reshape(T, d_model)


mistakes(
    sinusoidal,
    ("full_exponent", lambda T, d: waves(T, d, exponent=np.arange(d // 2) / d),
     "The exponent is i/d for pair i. It is 2i/d: there are d/2 pairs, and the frequencies should "
     "fall from 1 to about 1/10000."),
    ("double_exponent", lambda T, d: waves(T, d, exponent=2 * np.arange(0, d, 2) / d),
     "The exponent is 4i/d: the 2 was counted twice. `np.arange(0, d, 2)` is 2i already."),
    ("each_column_its_own", lambda T, d: np.where(
        np.arange(d) % 2 == 0, np.sin(np.arange(T)[:, None] * 10_000.0 ** -(np.arange(d) / d)),
        np.cos(np.arange(T)[:, None] * 10_000.0 ** -(np.arange(d) / d))),
     "Every column has a frequency of its own. The sine and cosine of a *pair* share one, or the "
     "pair is no hand of a clock: use 2i for both columns 2i and 2i + 1."),
    ("in_blocks", lambda T, d: np.concatenate(
        (waves(T, d)[:, ::2], waves(T, d)[:, 1::2]), axis=1),
     "All sines first, all cosines after them: a layout that some code bases use. Here they take "
     "turns, as in the formula: columns 2i and 2i + 1."),
    ("cosine_first", lambda T, d: waves(T, d).reshape(T, -1, 2)[:, :, ::-1].reshape(T, d),
     "The cosine comes first. Even columns are sines."),
    ("from_one", lambda T, d: waves(T, d, start=1),
     "Positions start at 1. The first is 0, with sines 0 and cosines 1."),
    ("rising_frequencies", lambda T, d: waves(T, d, exponent=-np.arange(0, d, 2) / d),
     "The frequencies grow: the exponent has the wrong sign. Divide by 10000^(2i/d)."),
    ("smaller_base", lambda T, d: waves(T, d, theta=1000.0),
     "The base is 1000. It is 10000."),
    ("to_the_very_end", lambda T, d: waves(T, d, exponent=np.linspace(0, 1, d // 2)),
     "The frequencies run to exactly 1/10000 (as in tensor2tensor). In the formula the last is "
     "10000^(-(d-2)/d)."),
    ("degrees", lambda T, d: np.stack((
        np.sin(np.deg2rad(np.arange(T)[:, None] * frequencies(d))),
        np.cos(np.deg2rad(np.arange(T)[:, None] * frequencies(d)))), axis=-1).reshape(T, d),
     "The angles were taken as degrees. p · ω is in radians."),
    ("sines_alone", lambda T, d: np.repeat(waves(T, d)[:, ::2], 2, axis=1),
     "Both columns of a pair are sines. The odd ones are cosines."),
    ("turned_by_two_pi", lambda T, d: np.stack((
        np.sin(2 * np.pi * np.arange(T)[:, None] * frequencies(d)),
        np.cos(2 * np.pi * np.arange(T)[:, None] * frequencies(d))), axis=-1).reshape(T, d),
     "The angles are 2π times too large: the formula has no 2π, ω is in radians a token."),
    ("scaled_position", lambda T, d: waves(T, d) * 0 + np.stack((
        np.sin(np.arange(T)[:, None] / max(T, 1) * frequencies(d)),
        np.cos(np.arange(T)[:, None] / max(T, 1) * frequencies(d))), axis=-1).reshape(T, d),
     "Positions were divided by T. Position 3 has the same vector in every text."),
    ("transposed", lambda T, d: waves(T, d).T,
     "Transposed: rows are positions, (T, d_model)."),
)  # fmt: skip


# 2


def rotation(k, d, sign=1.0, freq=None):
    """The solution to exercise 2, for mistakes."""
    freq = frequencies(d) if freq is None else freq
    M = np.zeros((d, d))
    for i, w in enumerate(freq):
        c, s = np.cos(k * w), sign * np.sin(k * w)
        M[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, s], [-s, c]]
    return M


@exercise(
    title="A matrix that moves by k",
    difficulty="medium",
    minutes=8,
    cases=lambda: [(1, 2), (2, 2), (0, 4), (1, 4), (3, 6), (-2, 4), (25, 8), (700, 6)],
    axes="C C",
    hints=(
        "The text gives the 2 × 2 block: [[cos kω, sin kω], [-sin kω, cos kω]], for (sin, cos).",
        "Put the block of frequency i at rows and columns 2i and 2i + 1; zeros elsewhere.",
        "Try it: M @ pe[p] should be pe[p + k], for every p.",
    ),
)
def shift_matrix(k, d_model):
    """-> M (d_model, d_model) with M @ PE(p) = PE(p + k) for every p; sines in even places."""
    M = np.zeros((d_model, d_model))
    for i in range(0, d_model, 2):
        angle = k * 10_000.0 ** -(i / d_model)
        M[i, i] = M[i + 1, i + 1] = np.cos(angle)
        M[i, i + 1], M[i + 1, i] = np.sin(angle), -np.sin(angle)
    return M


@shift_matrix.right
def blocks_in_torch(k, d_model):
    angles = k * torch.tensor(frequencies(d_model))
    c, s = angles.cos(), angles.sin()
    blocks = torch.stack((torch.stack((c, s), -1), torch.stack((-s, c), -1)), -2)
    return torch.block_diag(*blocks)


@shift_matrix.right
def solved_from_the_vectors(k, d_model):
    pe = np.linalg.qr(np.random.default_rng(0).normal(size=(d_model, d_model)))[0]
    return np.round(turn(pe, np.full(d_model, -k)).T @ pe, 12)


@shift_matrix.right
def by_powers_of_one_step(k, d_model):
    one = rotation(np.sign(k), d_model)
    return np.linalg.matrix_power(one, abs(k))


mistakes(
    shift_matrix,
    ("the_other_way", lambda k, d: rotation(k, d, sign=-1.0),
     "This moves the other way, by -k: M @ PE(p) is PE(p - k). Change the sign of the sines, or "
     "transpose. (The usual rotation matrix turns (cos, sin); a pair here is (sin, cos).)"),
    ("one_frequency", lambda k, d: rotation(k, d, freq=np.ones(d // 2)),
     "Every block turns by k. Each has its own frequency, 10000^(-2i/d)."),
    ("full_exponent", lambda k, d: rotation(k, d, freq=10_000.0 ** -(np.arange(d // 2) / d)),
     "The frequencies are 10000^(-i/d). The exponent is 2i/d."),
    ("blocks_apart", lambda k, d: np.block([
        [np.diag(np.cos(k * frequencies(d))), np.diag(np.sin(k * frequencies(d)))],
        [-np.diag(np.sin(k * frequencies(d))), np.diag(np.cos(k * frequencies(d)))]]),
     "This matrix is for all sines first, all cosines after. Here they take turns: 2 × 2 blocks on "
     "the diagonal."),
    ("nothing_moves", lambda k, d: np.eye(d),
     "The identity moves nothing."),
    ("one_step", lambda k, d: rotation(1, d),
     "This moves by 1, whatever k is."),
    ("moved_rows", lambda k, d: np.roll(np.eye(d), k, axis=0),
     "This moves the *features* along. It is the position that moves: each pair turns."),
    ("sines_alone", lambda k, d: np.diag(np.repeat(np.cos(k * frequencies(d)), 2)),
     "Only the cosines are there. Turning mixes the two features of a pair: the sines stand beside "
     "the diagonal."),
    ("not_a_rotation", lambda k, d: np.abs(rotation(k, d)),
     "One of the two sines needs a minus. Without it lengths do not stay."),
    ("added", lambda k, d: rotation(k, d) + np.eye(d),
     "The identity was added. The matrix by itself gives PE(p + k)."),
)  # fmt: skip


@shift_matrix.property("M should keep lengths: M Mᵀ is the identity.")
def keeps_lengths(out, k, d_model):
    return np.allclose(out @ out.T, np.eye(d_model))


# 3


def distances():
    ranges = [np.arange(5), np.array([0, 15, 16, 17]), np.arange(40), np.array([63, 64, 127, 128]),
              np.array([500, 100_000]), np.array([90, 20, 33, 7]), np.arange(200)]  # fmt: skip
    return [(d,) for d in ranges]


def bucket(d, exact=16, total=32, top=128, base=np.log):
    d = np.asarray(d)
    with np.errstate(divide="ignore"):
        far = exact + np.floor(
            base(np.maximum(d, 1) / exact) / base(top / exact) * (total - exact) + 1e-9
        )
    return np.where(d < exact, d, np.minimum(far, total - 1)).astype(int)


@exercise(
    title="T5's buckets",
    difficulty="hard",
    minutes=10,
    cases=distances,
    tol=0,
    hints=(
        "np.where(distance < 16, distance, far), and far only has to be right from 16 on.",
        "far = 16 + floor(log(distance / 16) / log(128 / 16) * 16), at most 31.",
        "log(0) is -inf: use np.maximum(distance, 1) inside the log.",
    ),
)
def t5_bucket(distance):
    """distance (n,) back, 0 or more -> bucket numbers (n,): 32 buckets, the last from 113 on."""
    distance = np.asarray(distance)
    stretched = np.log(np.maximum(distance, 1) / 16) / np.log(128 / 16)
    far = np.minimum(16 + np.floor(stretched * 16 + 1e-9), 31)
    return np.where(distance < 16, distance, far).astype(int)


@t5_bucket.right
def bucket_in_torch(distance):
    far = 16 + (torch.log(distance.clamp(min=1).float() / 16) / np.log(8) * 16 + 1e-6).long()
    return torch.where(distance < 16, distance, far.clamp(max=31))


@t5_bucket.right
def bucket_by_borders(distance):
    borders = [16 * 8 ** (i / 16) for i in range(16)]
    return [d if d < 16 else 15 + sum(d >= b - 1e-9 for b in borders) for d in distance]


@t5_bucket.right
def bucket_as_floats(distance):
    return bucket(distance).astype(float)


mistakes(
    t5_bucket,
    ("not_capped", lambda d: np.where(d < 16, d, 16 + np.floor(
        np.log(np.maximum(d, 1) / 16) / np.log(8) * 16 + 1e-9)).astype(int),
     "Distances from 128 on get numbers beyond 31. They all share the last bucket."),
    ("one_each", lambda d: np.minimum(d, 31),
     "Every distance has its own bucket up to 31. Only the first 16 do; the other 16 widen like a "
     "logarithm up to 128."),
    ("all_logarithmic", lambda d: np.minimum(
        np.floor(np.log(np.maximum(d, 1)) / np.log(128) * 32), 31).astype(int),
     "All buckets grow like a logarithm. The first 16 distances have one each."),
    ("starts_at_the_next", lambda d: np.where(d <= 16, d, bucket(d) + 1).clip(max=31),
     "One off from 16 on: distance 16 is the first of bucket 16, and 17 is still in it."),
    ("rounded", lambda d: np.where(d < 16, d, np.minimum(np.round(
        16 + np.log(np.maximum(d, 1) / 16) / np.log(8) * 16), 31)).astype(int),
     "The logarithm was rounded to the nearest. A bucket begins at its border: floor."),
    ("linear", lambda d: np.where(d < 16, d, np.minimum(16 + (d - 16) // 7, 31)),
     "The far buckets are equally wide. They widen like a logarithm: 16 · log(d/16) / log(8)."),
    ("sign", lambda d: bucket(-np.asarray(d).clip(max=0)),
     "All distances fall into one bucket: the sign is turned round. A distance *back* is query "
     "minus key, 0 or more."),
    ("wrong_end", lambda d: bucket(d, top=256),
     "The logarithm runs to 256 here. It runs to 128: divide by log(128 / 16)."),
    ("base_of_128", lambda d: np.where(d < 16, d, np.minimum(16 + np.floor(
        np.log(np.maximum(d, 1) / 16) / np.log(128) * 16 + 1e-9), 31)).astype(int),
     "Divided by log(128). From 16 to 128 is a factor of 8: divide by log(128 / 16), so that 128 "
     "lands at the end."),
    ("both_directions", lambda d: bucket(d, exact=8, total=16),
     "These are 16 buckets, the half that a two-sided encoder has for each direction. A decoder "
     "looks back only and uses all 32."),
    ("distance_not_divided", lambda d: np.where(d < 16, d, np.minimum(16 + np.floor(
        np.log(np.maximum(d, 1)) / np.log(128) * 16), 31)).astype(int),
     "log(d) in place of log(d / 16): at distance 16 the logarithm should be 0."),
    ("too_far_in_16", lambda d: np.where(d < 16, d, np.where(d >= 128, 31, 16)),
     "All distances from 16 to 127 share one bucket. They have 16 between them."),
)  # fmt: skip


# 4


def alibi_cases():
    rng = np.random.default_rng(4)
    cases = []
    for H, T, D in [(2, 2, 2), (1, 3, 2), (4, 3, 2), (8, 5, 4), (2, 6, 3), (4, 4, 4)]:
        cases.append(tuple(rng.normal(size=(2, H, T, D))))
    return cases


def penalised(q, k, slopes=None, add=None, causal=True, scale=None):
    """The solution to exercise 4 with its parts to be exchanged, for mistakes."""
    H, T, D = q.shape
    slopes = 2.0 ** (-8 * np.arange(1, H + 1) / H) if slopes is None else slopes(H)
    back = np.arange(T)[:, None] - np.arange(T)
    bias = -slopes[:, None, None] * back if add is None else add(slopes, back)
    scores = q @ k.swapaxes(-1, -2) / (np.sqrt(D) if scale is None else scale) + bias
    return reference.softmax(np.where(back >= 0, scores, -np.inf) if causal else scores)


@exercise(
    title="Attention with ALiBi",
    difficulty="medium",
    minutes=10,
    cases=alibi_cases,
    axes="H T T",
    hints=(
        "The slopes, for H = 4: 2^-2, 2^-4, 2^-6, 2^-8. In general 2^(-8(h+1)/H).",
        "The penalty of query t for key s is slope · (t - s), subtracted from the scaled score "
        "*before* the softmax.",
        "Later keys are hidden with -inf, as in chapter 2.",
    ),
)
def alibi(q, k):
    """q, k (H, T, D) with H a power of 2 -> causal weights (H, T, T) with ALiBi's penalties."""
    H, T, D = q.shape
    slopes = 2.0 ** (-8 * np.arange(1, H + 1) / H)
    back = np.arange(T)[:, None] - np.arange(T)  # (T, T): how far back each key lies
    scores = np.asarray(q) @ np.asarray(k).swapaxes(-1, -2) / np.sqrt(D)
    scores = np.where(back >= 0, scores - slopes[:, None, None] * back, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@alibi.right
def alibi_in_torch(q, k):
    H, T, D = q.shape
    slopes = torch.tensor([2 ** (-8 / H * (h + 1)) for h in range(H)], dtype=q.dtype)
    where = torch.arange(T)
    bias = slopes[:, None, None] * (where[None, :] - where[:, None])
    scores = q @ k.mT / D**0.5 + bias
    return scores.masked_fill(where[None, :] > where[:, None], -1e9).softmax(-1)


@alibi.right
def alibi_from_the_first_key(q, k):  # as in BLOOM: a constant for each row drops out of softmax
    H, T, D = q.shape
    slopes = 2.0 ** (-8 * np.arange(1, H + 1) / H)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(D) + slopes[:, None, None] * np.arange(T)
    return reference.softmax(np.where(np.tri(T, dtype=bool), scores, -np.inf))


@alibi.right
def alibi_by_loops(q, k):
    H, T, D = q.shape
    out = np.zeros((H, T, T))
    for h in range(H):
        for t in range(T):
            s = [
                q[h, t] @ k[h, j] / D**0.5 - 2 ** (-8 * (h + 1) / H) * (t - j) for j in range(t + 1)
            ]
            out[h, t, : t + 1] = reference.softmax(np.array(s))
    return out


mistakes(
    alibi,
    ("harmonic_slopes", lambda q, k: penalised(q, k, lambda H: 1 / np.arange(1, H + 1)),
     "The slopes are 1, 1/2, 1/3 ... They fall by a constant *factor*: 2^(-8(h+1)/H)."),
    ("slopes_from_one", lambda q, k: penalised(q, k, lambda H: 2.0 ** (-8 * np.arange(H) / H)),
     "The first slope is 1: heads were counted from 0. The first is 2^(-8/H)."),
    ("halving_slopes", lambda q, k: penalised(q, k, lambda H: 2.0 ** -np.arange(1, H + 1)),
     "The slopes are 1/2, 1/4, 1/8 ... for any H: right for 8 heads only. In general "
     "2^(-8(h+1)/H)."),
    ("one_slope", lambda q, k: penalised(q, k, lambda H: np.full(H, 2.0 ** (-8 / H))),
     "All heads have the same slope. Each has its own."),
    ("slopes_reversed", lambda q, k: penalised(
        q, k, lambda H: 2.0 ** (-8 * np.arange(H, 0, -1) / H)),
     "The slopes come in reverse order: head 0 has the steepest."),
    ("rewarded", lambda q, k: penalised(q, k, add=lambda m, back: m[:, None, None] * back),
     "Far keys are rewarded, or late ones punished, which is the same. The farther back a key, the "
     "lower its score: subtract slope · (t - s)."),
    ("after_the_softmax", lambda q, k: penalised(q, k, add=lambda m, back: 0.0)
     - (2.0 ** (-8 * np.arange(1, len(q) + 1) / len(q)))[:, None, None]
     * np.maximum(np.arange(q.shape[1])[:, None] - np.arange(q.shape[1]), 0),
     "The penalty was taken from the weights, after the softmax: rows no longer sum to 1. It "
     "belongs to the scores."),
    ("multiplied", lambda q, k: reference.softmax(np.where(
        np.tri(q.shape[1], dtype=bool), q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[2])
        * (1 - (2.0 ** (-8 * np.arange(1, len(q) + 1) / len(q)))[:, None, None]
           * (np.arange(q.shape[1])[:, None] - np.arange(q.shape[1]))), -np.inf)),
     "The scores were multiplied. A penalty is subtracted, whatever the score is."),
    ("not_causal", lambda q, k: penalised(
        q, k, add=lambda m, back: -m[:, None, None] * np.abs(back), causal=False),
     "Later keys are visible, with a penalty for their distance. Here the layer is causal: hide "
     "them."),
    ("not_causal_signed", lambda q, k: penalised(q, k, causal=False),
     "Later keys are visible, and even rewarded, since t - s is negative. Hide them with -inf."),
    ("without_slopes", lambda q, k: penalised(q, k, add=lambda m, back: 0.0),
     "There is no penalty here: this is plain causal attention."),
    ("scaled_too", lambda q, k: penalised(
        q, k, add=lambda m, back: -m[:, None, None] * back / np.sqrt(q.shape[2])),
     "The penalty was divided by √D, too. It is added after the scaling."),
    ("not_scaled", lambda q, k: penalised(q, k, scale=1.0),
     "The scores are not divided by √D."),
    ("squared", lambda q, k: penalised(
        q, k, add=lambda m, back: -m[:, None, None] * back**2),
     "The penalty grows with the square of the distance. It is linear: slope · (t - s)."),
)  # fmt: skip


@alibi.property("Every row of weights should sum to 1.")
def alibi_rows_sum_to_one(out, q, k):
    return np.allclose(out.sum(axis=-1), 1)


# 5


def to_turn():
    rng = np.random.default_rng(5)
    cases = []
    for D, positions in [(2, [1]), (2, [0, 1]), (4, [0, 1]), (4, [2, 0, 7]), (6, [0, 1, 2, 3]),
                         (8, [100, 3, 50, 1]), (4, [4, 5, 6, 7])]:  # fmt: skip
        cases.append((rng.normal(size=(len(positions), D)), np.array(positions)))
    return cases


@exercise(
    title="RoPE",
    difficulty="medium",
    minutes=10,
    cases=to_turn,
    axes="T D",
    hints=(
        "angles = positions[:, None] * frequencies, (T, D/2): one for each row and pair.",
        "A pair (a, b) turned by φ is (a cos φ - b sin φ, a sin φ + b cos φ).",
        "a = x[:, 0::2] and b = x[:, 1::2]; the results go back to the same columns.",
    ),
)
def rope(x, positions):
    """x (T, D), positions (T,) -> (T, D): pairs (2i, 2i+1) turned by position · 10000^(-2i/D)."""
    D = x.shape[1]
    angles = np.asarray(positions)[:, None] * 10_000.0 ** -(np.arange(0, D, 2) / D)  # (T, D/2)
    a, b = np.asarray(x)[:, 0::2], np.asarray(x)[:, 1::2]
    out = np.empty(x.shape)
    out[:, 0::2] = a * np.cos(angles) - b * np.sin(angles)
    out[:, 1::2] = a * np.sin(angles) + b * np.cos(angles)
    return out


@rope.right
def rope_by_complex_numbers(x, positions):
    z = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    angles = positions[:, None] * torch.tensor(frequencies(x.shape[1]))
    return torch.view_as_real(z * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


@rope.right
def rope_by_matrices(x, positions):
    return np.stack([rotation(-p, x.shape[1]) @ row for row, p in zip(x, positions)])


@rope.right
def rope_with_repeated_cosines(x, positions):
    angles = np.repeat(positions[:, None] * frequencies(x.shape[1]), 2, axis=1)
    swapped = np.stack((-x[:, 1::2], x[:, ::2]), axis=-1).reshape(x.shape)
    return x * np.cos(angles) + swapped * np.sin(angles)


mistakes(
    rope,
    ("half_split", turn_half_split,
     "The pairs are (i, i + D/2), as in Hugging Face's Llama. Asked for are neighbours, "
     "(2i, 2i + 1)."),
    ("the_other_way", lambda x, p: turn(x, p, sign=-1.0),
     "Turned the other way: the signs of the two sines are swapped. (a cos φ - b sin φ, a sin φ + "
     "b cos φ).",),
    ("full_exponent", lambda x, p: turn(
        x, p, freq=10_000.0 ** -(np.arange(x.shape[1] // 2) / x.shape[1])),
     "The frequencies are 10000^(-i/D) for pair i. The exponent is 2i/D."),
    ("double_exponent", lambda x, p: turn(
        x, p, freq=10_000.0 ** -(2 * np.arange(0, x.shape[1], 2) / x.shape[1])),
     "The exponent is 4i/D: `np.arange(0, D, 2)` is 2i already."),
    ("by_row_number", lambda x, p: turn(x, np.arange(len(x))),
     "Rows were turned by their place in x. `positions` says where they stand; with a cache that "
     "is not the same."),
    ("from_one", lambda x, p: turn(x, p + 1),
     "Turned one step too far: position 0 stays as it is."),
    ("one_frequency", lambda x, p: turn(x, p, freq=np.ones(x.shape[1] // 2)),
     "All pairs turn at the same speed. Pair i has frequency 10000^(-2i/D)."),
    ("rising_frequencies", lambda x, p: turn(x, p, freq=1 / frequencies(x.shape[1])),
     "The frequencies grow: the exponent is negative."),
    ("waves_added", lambda x, p: x + np.stack((
        np.sin(p[:, None] * frequencies(x.shape[1])),
        np.cos(p[:, None] * frequencies(x.shape[1]))), axis=-1).reshape(x.shape),
     "A sinusoidal vector was added. RoPE adds nothing: it turns x."),
    ("overwritten", lambda x, p: _overwritten(x, p),
     "The second feature was computed from the first *after* it had been changed. Keep the old a "
     "and b until both are done."),
    ("cosine_alone", lambda x, p: x * np.cos(np.repeat(p[:, None] * frequencies(x.shape[1]), 2, 1)),
     "Only the cosines are there: a turn mixes the two features of a pair."),
    ("mixed_layouts", lambda x, p: x * np.cos(
        np.repeat(p[:, None] * frequencies(x.shape[1]), 2, axis=1))
     + np.concatenate((-x[:, x.shape[1] // 2 :], x[:, : x.shape[1] // 2]), axis=1) * np.sin(
        np.repeat(p[:, None] * frequencies(x.shape[1]), 2, axis=1)),
     "Two layouts are mixed: `rotate_half` pairs i with i + D/2, but the cosines are repeated for "
     "neighbours (repeat_interleave). Both must use the same pairs."),
    ("mixed_the_other_way", lambda x, p: x * np.cos(
        np.tile(p[:, None] * frequencies(x.shape[1]), 2))
     + np.stack((-x[:, 1::2], x[:, ::2]), axis=-1).reshape(x.shape) * np.sin(
        np.tile(p[:, None] * frequencies(x.shape[1]), 2)),
     "Two layouts are mixed: neighbours are swapped, but the cosines are laid out for pairs "
     "(i, i + D/2). Repeat each angle twice in a row."),
    ("joined_wrongly", lambda x, p: np.concatenate((
        turn(x, p)[:, ::2], turn(x, p)[:, 1::2]), axis=1),
     "The turned pairs are right, but they were put together as all first, then all second "
     "features. They go back to columns 2i and 2i + 1."),
    ("swapped_features",
     lambda x, p: turn(x, p).reshape(len(x), -1, 2)[:, :, ::-1].reshape(x.shape),
     "The two features of each pair have changed places."),
    ("degrees", lambda x, p: turn(x, np.deg2rad(p)),
     "The angles were taken as degrees."),
)  # fmt: skip


def _overwritten(x, p):
    out, angles = np.array(x), p[:, None] * frequencies(x.shape[1])
    out[:, ::2] = out[:, ::2] * np.cos(angles) - out[:, 1::2] * np.sin(angles)
    out[:, 1::2] = out[:, ::2] * np.sin(angles) + out[:, 1::2] * np.cos(angles)
    return out


@rope.property("Turning should keep every row's length.")
def rope_keeps_lengths(out, x, positions):
    return np.allclose((out**2).sum(axis=1), (x**2).sum(axis=1))


# 6


def weights():
    rng = np.random.default_rng(6)
    shapes = [
        (1, 4, 1),
        (1, 4, 2),
        (2, 4, 3),
        (1, 6, 2),
        (3, 8, 5),
        (2, 2, 4),
        (4, 6, 6),
        (2, 12, 3),
    ]
    return [(rng.normal(size=(H * D, C)).round(2), H) for H, D, C in shapes]


def reordered(w, H, order):
    """Rows of each head in another order."""
    D = len(w) // H
    return w.reshape(H, D, -1)[:, order(D)].reshape(w.shape)


def to_neighbours(D):
    return np.arange(D).reshape(2, D // 2).T.ravel()  # 0, D/2, 1, D/2 + 1, ...


def to_halves(D):
    return np.concatenate((np.arange(0, D, 2), np.arange(1, D, 2)))


@exercise(
    title="Weights from the other layout",
    difficulty="hard",
    minutes=12,
    cases=weights,
    axes="H·D C",
    hints=(
        "A pair was rows i and i + D/2 of a head; it has to become rows 2i and 2i + 1.",
        "For D = 4 the new order of a head's rows is 0, 2, 1, 3; for D = 6: 0, 3, 1, 4, 2, 5.",
        "w.reshape(H, 2, D // 2, C), then swap the two middle axes, then reshape back.",
    ),
)
def half_to_interleaved(w, n_heads):
    """w (H·D, C), a wq or wk made for pairs (i, i + D/2) -> rows for pairs (2i, 2i + 1)."""
    rows, C = w.shape
    heads = np.asarray(w).reshape(n_heads, 2, rows // n_heads // 2, C)
    return heads.transpose(0, 2, 1, 3).reshape(rows, C)


@half_to_interleaved.right
def half_to_interleaved_in_torch(w, n_heads):
    return w.unflatten(0, (n_heads, 2, -1)).transpose(1, 2).flatten(0, 2)


@half_to_interleaved.right
def by_an_index(w, n_heads):
    D = len(w) // n_heads
    order = [
        h * D + i + j * (D // 2) for h in range(n_heads) for i in range(D // 2) for j in (0, 1)
    ]
    return w[order]


@half_to_interleaved.right
def by_filling_in(w, n_heads):
    D, out = len(w) // n_heads, np.empty(w.shape)
    for h in range(n_heads):
        head = w[h * D : (h + 1) * D]
        out[h * D : (h + 1) * D : 2] = head[: D // 2]
        out[h * D + 1 : (h + 1) * D : 2] = head[D // 2 :]
    return out


mistakes(
    half_to_interleaved,
    ("the_other_way", lambda w, H: reordered(w, H, to_halves),
     "This is the way back, from neighbours to halves. The two agree for D = 4 only: for D = 6 the "
     "new order is 0, 3, 1, 4, 2, 5."),
    ("nothing_done", lambda w, H: w.copy(),
     "Nothing has moved."),
    ("across_heads", lambda w, H: reordered(w, 1, to_neighbours),
     "Rows were moved across heads: half of the *whole* matrix. Each head by itself, with D = "
     "rows // n_heads."),
    ("across_heads_back", lambda w, H: reordered(w, 1, to_halves),
     "Rows were moved across heads, and the other way round. Each head by itself: row i and row i "
     "+ D/2 become 2i and 2i + 1."),
    ("columns", lambda w, H: w[:, to_neighbours(w.shape[1] // 2 * 2)] if w.shape[1] % 2 == 0
     else w.copy(),
     "The columns were permuted, or nothing was. Columns are the model's features; a head's are "
     "rows."),
    ("heads_swapped", lambda w, H: w.reshape(H, -1, w.shape[1]).swapaxes(0, 1).reshape(w.shape),
     "Heads and rows were swapped. The heads stay where they are; within each, halves and pairs "
     "change places."),
    ("head_split_wrongly", lambda w, H: w.reshape(len(w) // H, H, -1)[to_neighbours(len(w) // H)]
     .reshape(w.shape),
     "The rows were split as (D, H). A head's rows lie together: (H, D)."),
    ("second_half_first", lambda w, H: w.reshape(H, 2, -1, w.shape[1])[:, ::-1]
     .swapaxes(1, 2).reshape(w.shape),
     "The second half comes first in each pair. (i, i + D/2) becomes (2i, 2i + 1), in this order."),
    ("halves_swapped", lambda w, H: w.reshape(H, 2, -1, w.shape[1])[:, ::-1].reshape(w.shape),
     "The halves have changed places, but they still are halves. They should interleave."),
    ("signs", lambda w, H: reordered(w, H, to_neighbours)
     * np.where(np.arange(len(w)) % 2, -1.0, 1.0)[:, None],
     "Signs were changed. Only the order of the rows changes."),
    ("neighbours_swapped", lambda w, H: w.reshape(-1, 2, w.shape[1])[:, ::-1].reshape(w.shape),
     "Neighbouring rows were swapped. A pair was i and i + D/2."),
    ("transposed", lambda w, H: w.T,
     "The matrix was transposed. Its shape stays, rows change places."),
    ("only_first_head", lambda w, H: np.concatenate((
        reordered(w[: len(w) // H], 1, to_neighbours), w[len(w) // H :])),
     "Only the first head was reordered."),
)  # fmt: skip


# 7


def chunks():
    rng = np.random.default_rng(7)
    cases = []
    for P, T, D, Dv in [
        (1, 1, 2, 1),
        (2, 1, 2, 3),
        (0, 3, 4, 2),
        (3, 2, 4, 3),
        (4, 3, 6, 5),
        (5, 2, 4, 4),
    ]:
        old = turn(rng.normal(size=(P, D)), np.arange(P)), rng.normal(size=(P, Dv))
        cases.append((*rng.normal(size=(2, T, D)), rng.normal(size=(T, Dv)), *old))
    return cases


def attended(q, k, v, top_left=False, causal=True, scale=None):
    T, S = len(q), len(k)
    mask = np.tri(T, S, k=0 if top_left else S - T, dtype=bool) if causal else np.ones((T, S), bool)
    scores = q @ k.T / (np.sqrt(q.shape[1]) if scale is None else scale)
    return reference.softmax(np.where(mask, scores, -np.inf)) @ v


def chunked(q_at=None, k_at=None, old=None, new_v=None, **more):
    """The solution to exercise 7 with its parts to be exchanged, for mistakes."""

    def answer(q, k, v, cache_k, cache_v):
        P, T = len(cache_k), len(q)
        at = np.arange(P, P + T)
        q_ = turn(q, at if q_at is None else q_at(P, T))
        k_ = turn(k, at if k_at is None else k_at(P, T))
        held = cache_k if old is None else old(cache_k)
        v_ = v if new_v is None else new_v(v, at)
        return attended(q_, np.concatenate((held, k_)), np.concatenate((cache_v, v_)), **more)

    return answer


@exercise(
    title="RoPE with a cache",
    difficulty="hard",
    minutes=12,
    cases=chunks,
    axes="T Dv",
    hints=(
        "P tokens are held, so the new ones stand at positions P, P + 1, ..., P + T - 1.",
        "Turn the new queries and keys by those; the held keys have been turned already, and "
        "values are never turned.",
        "Join old and new keys and values. Query t sees the first P + t + 1 of them.",
    ),
)
def rope_with_cache(q, k, v, cache_k, cache_v):
    """New q, k (T, D), v (T, Dv); held cache_k (P, D), turned, and cache_v (P, Dv) -> (T, Dv)."""
    P, (T, D) = len(cache_k), q.shape
    angles = np.arange(P, P + T)[:, None] * 10_000.0 ** -(np.arange(0, D, 2) / D)

    def turned(x):
        pairs = np.asarray(x).reshape(T, D // 2, 2)
        z = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)
        return np.stack((z.real, z.imag), axis=-1).reshape(T, D)

    keys = np.concatenate((cache_k, turned(k)))  # (S, D), S = P + T
    values = np.concatenate((cache_v, v))
    scores = turned(q) @ keys.T / np.sqrt(D)
    scores = np.where(np.tri(T, P + T, k=P, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ values


@rope_with_cache.right
def cache_in_torch(q, k, v, cache_k, cache_v):
    P, T, D = cache_k.shape[0], q.shape[0], q.shape[1]
    angles = torch.arange(P, P + T)[:, None] * torch.tensor(frequencies(D), dtype=q.dtype)
    unit = torch.polar(torch.ones_like(angles), angles)
    q, k = (torch.view_as_real(torch.view_as_complex(x.reshape(T, -1, 2)) * unit).flatten(1)
            for x in (q, k))  # fmt: skip
    keys, values = torch.cat((cache_k, k)), torch.cat((cache_v, v))
    mask = torch.ones(T, P + T, dtype=torch.bool).tril(P)
    return ((q @ keys.T / D**0.5).masked_fill(~mask, float("-inf")).softmax(-1)) @ values


@rope_with_cache.right
def token_by_token(q, k, v, cache_k, cache_v):
    out, keys, values = [], list(cache_k), list(cache_v)
    for row_q, row_k, row_v in zip(q, k, v):
        at = [len(keys)]
        keys.append(turn(row_k[None], at)[0])
        values.append(row_v)
        out.append(attended(turn(row_q[None], at), np.array(keys), np.array(values))[0])
    return np.array(out)


@rope_with_cache.right
def everything_turned_back_by_the_last_position(q, k, v, cache_k, cache_v):
    P, T = len(cache_k), len(q)  # only differences count, so all may turn by -(P + T)
    held = turn(cache_k, np.full(P, -(P + T)))
    return attended(turn(q, np.arange(-T, 0)), np.concatenate((held, turn(k, np.arange(-T, 0)))),
                    np.concatenate((cache_v, v)))  # fmt: skip


mistakes(
    rope_with_cache,
    ("positions_restart", chunked(lambda P, T: np.arange(T), lambda P, T: np.arange(T)),
     "The positions of the new tokens start at 0 again. P tokens came before: they stand at P, "
     "P + 1, ..."),
    ("queries_restart", chunked(q_at=lambda P, T: np.arange(T)),
     "The new queries are turned from position 0, the keys from P. Both are of the same tokens and "
     "stand at P, P + 1, ..."),
    ("keys_restart", chunked(k_at=lambda P, T: np.arange(T)),
     "The new keys are turned from position 0, the queries from P. Both are of the same tokens and "
     "stand at P, P + 1, ..."),
    ("turned_again", chunked(old=lambda k: turn(k, np.arange(len(k)))),
     "The held keys were turned a second time. They were turned when they were stored."),
    ("values_turned", chunked(new_v=lambda v, at: turn(v, at) if v.shape[1] % 2 == 0 else v * 1.1),
     "The values were turned. What is handed over does not depend on where it was found."),
    ("top_left", chunked(top_left=True),
     "The mask is aligned at the top left: the first new query sees one key. It sees all P held "
     "ones and itself: np.tri(T, P + T, k=P)."),
    ("not_causal", chunked(causal=False),
     "New tokens see later new tokens. Query t sees the first P + t + 1 keys."),
    ("nothing_turned", lambda q, k, v, ck, cv: attended(
        q, np.concatenate((ck, k)), np.concatenate((cv, v))),
     "The new queries and keys are not turned."),
    ("queries_not_turned", lambda q, k, v, ck, cv: attended(
        q, np.concatenate((ck, turn(k, np.arange(len(ck), len(ck) + len(k))))),
        np.concatenate((cv, v))),
     "The queries are not turned. Both sides of a score turn, or the difference of positions does "
     "not come out."),
    ("keys_not_turned", lambda q, k, v, ck, cv: attended(
        turn(q, np.arange(len(ck), len(ck) + len(q))), np.concatenate((ck, k)),
        np.concatenate((cv, v))),
     "The new keys are not turned, the held ones are."),
    ("cache_ignored", lambda q, k, v, ck, cv: attended(
        turn(q, np.arange(len(q))), turn(k, np.arange(len(q))), v),
     "The cache plays no part: only the new tokens are read."),
    ("new_before_old", lambda q, k, v, ck, cv: attended(
        turn(q, np.arange(len(ck), len(ck) + len(q))),
        np.concatenate((turn(k, np.arange(len(ck), len(ck) + len(q))), ck)),
        np.concatenate((v, cv))),
     "The new keys were put before the held ones, so the mask hides the wrong ones. Old first."),
    ("half_split", lambda q, k, v, ck, cv: attended(
        turn_half_split(q, np.arange(len(ck), len(ck) + len(q))),
        np.concatenate((ck, turn_half_split(k, np.arange(len(ck), len(ck) + len(q))))),
        np.concatenate((cv, v))),
     "Pairs (i, i + D/2) were turned, but the held keys are interleaved, (2i, 2i + 1)."),
    ("one_late", chunked(lambda P, T: np.arange(P + 1, P + T + 1),
                         lambda P, T: np.arange(P + 1, P + T + 1)),
     "The new tokens stand one too far: the first has position P, since positions start at 0."),
    ("without_scale", chunked(scale=1.0),
     "The scores are not divided by √D."),
    ("other_way", lambda q, k, v, ck, cv: attended(
        turn(q, np.arange(len(ck), len(ck) + len(q)), sign=-1.0),
        np.concatenate((ck, turn(k, np.arange(len(ck), len(ck) + len(q)), sign=-1.0))),
        np.concatenate((cv, v))),
     "Turned the other way than the held keys: the signs of the sines."),
)  # fmt: skip


# 8


def to_stretch():
    given = [([0, 1], 2, 2.0), ([0, 4, 8], 4, 4.0), (range(5), 6, 8.0), ([3, 100], 8, 1.0),
             ([32_767], 4, 8.0), (range(3), 4, 2.5)]  # fmt: skip
    return [(np.array(positions), dim, factor) for positions, dim, factor in given]


@exercise(
    title="Position interpolation",
    difficulty="easy",
    minutes=5,
    cases=to_stretch,
    axes="T D/2",
    hints=(
        "The plain angles are positions[:, None] * 10000 ** -(2i/dim).",
        "Stretched by a factor of 4, position 8 should look as position 2 did.",
        "Divide once: the frequencies by the factor, or the positions, not both.",
    ),
)
def interpolate(positions, dim, factor):
    """positions (T,) -> RoPE's angles (T, dim/2), interpolated for texts `factor` times as long."""
    frequencies = 10_000.0 ** -(np.arange(0, dim, 2) / dim) / factor
    return np.asarray(positions)[:, None] * frequencies


@interpolate.right
def positions_divided(positions, dim, factor):
    return (positions / factor)[:, None] * torch.tensor(frequencies(dim))


@interpolate.right
def angles_by_loops(positions, dim, factor):
    return [[p / factor * 10000 ** (-2 * i / dim) for i in range(dim // 2)] for p in positions]


@interpolate.right
def outer_product(positions, dim, factor):
    return np.outer(positions, frequencies(dim)) / factor


mistakes(
    interpolate,
    ("divided_twice", lambda p, dim, s: (p / s)[:, None] * frequencies(dim) / s,
     "Divided twice: positions and frequencies. One of them is enough."),
    ("multiplied", lambda p, dim, s: p[:, None] * frequencies(dim) * s,
     "The angles grew. A longer text has to fit into the old angles: divide by the factor."),
    ("base_changed", lambda p, dim, s: p[:, None] * frequencies(dim, 10_000.0 * s),
     "The base was multiplied by the factor: that is near the NTK-aware way, and it leaves the "
     "fastest pair as it is. Interpolation slows all pairs alike."),
    ("ntk", lambda p, dim, s:
     p[:, None] * frequencies(dim, 10_000.0 * s ** (dim / max(dim - 2, 1))),
     "This is the NTK-aware way: a larger base. Interpolation divides all frequencies by the "
     "factor."),
    ("not_stretched", lambda p, dim, s: p[:, None] * frequencies(dim),
     "Nothing is stretched: `factor` plays no part."),
    ("whole_positions", lambda p, dim, s: (p // s)[:, None] * frequencies(dim),
     "Positions were rounded down to whole numbers, so neighbours share one. Fractions are the "
     "point: 1/4, 2/4, 3/4 lie *between* the old positions."),
    ("full_exponent", lambda p, dim, s: p[:, None] * 10_000.0 ** -(np.arange(dim // 2) / dim) / s,
     "The frequencies are 10000^(-i/dim). The exponent is 2i/dim."),
    ("frequencies_alone", lambda p, dim, s: frequencies(dim) / s,
     "These are the frequencies. The angles are positions times frequencies, (T, dim/2)."),
    ("slowest_alone", lambda p, dim, s: p[:, None] * np.where(
        np.arange(dim // 2) < dim // 4, 1.0, 1 / s) * frequencies(dim),
     "Only the slower half of the pairs was slowed: nearer to YaRN. Interpolation slows all."),
    ("root_of_factor", lambda p, dim, s: p[:, None] * frequencies(dim) / np.sqrt(s),
     "Divided by the root of the factor. Position factor · n should look as n did: divide by the "
     "factor itself."),
    ("each_twice", lambda p, dim, s: np.repeat(p[:, None] * frequencies(dim) / s, 2, axis=1),
     "Each angle stands there twice, (T, dim). One for each pair: (T, dim/2)."),
    ("sines", lambda p, dim, s: np.sin(p[:, None] * frequencies(dim) / s),
     "These are sines of the angles. The angles themselves are asked for."),
)  # fmt: skip


# 9


@exercise(
    title="Which pairing is this?",
    difficulty="easy",
    minutes=3,
    options={
        "a": "Neighbours would be `x[:, 0::2]` and `x[:, 1::2]`. What lies in `a`, for D = 8?",
        "b": "Yes: i and i + D/2, the half-split layout of Hugging Face's Llama and GPT-NeoX. "
        "Weights made for neighbours need their rows reordered first.",
        "c": "`b` is not reversed: its first column is D/2, not D - 1.",
        "d": "`cos` and `sin` have D/2 columns, one for each pair, and both results use all of "
        "them: every feature turns.",
        "e": "Not so: a rotation of (a, b) is just (a cos - b sin, a sin + b cos). The minus is "
        "where it belongs.",
        "f": "Scores are the same only if the rows of both weights were reordered to fit. With the "
        "weights left as they are, other features are paired.",
    },
    hints=(
        "Write down the columns of `a` and `b` for D = 8.",
        "Column 0 of `a` turns with column 0 of `b`.",
    ),
)
def which_pairing():
    """Which features turn together in the code shown: a letter from a to f."""
    return "b"


# 10


@exercise(
    title="Past the trained length",
    difficulty="easy",
    minutes=3,
    options={
        "a": "That is a learned table. RoPE computes its angles, one for any position.",
        "b": "The score does depend on m - n alone, but the differences grow too: from 2048 on "
        "they are as new as the positions.",
        "c": "These have turned hundreds of times in 2048 tokens: every angle was met. Which pairs "
        "have not been round once?",
        "d": "Yes. A pair with a wavelength above 2048 has been round less than once, and beyond "
        "comes an angle that it never made. Fast pairs have seen the whole circle. Hence YaRN.",
        "e": "That is ALiBi. RoPE only turns: nothing in it makes the score of a far key small.",
        "f": "A turn never changes a length, at any position.",
        "g": "Angles come round again: a pair of wavelength 6 has met them all in 6 tokens. For "
        "which pairs is that not so?",
    },
    hints=(
        "Pair i comes round after 2π · 10000^(2i/D) tokens. How long is that for the first pair, "
        "and for the last?",
        "From 6 tokens to more than 50000. Which angles has a pair met in 2048 tokens?",
    ),
)
def past_the_trained_length():
    """What is new to a RoPE model beyond its trained length: a letter from a to g."""
    return "d"
