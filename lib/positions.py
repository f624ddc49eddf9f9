"""Where a token stands: the three places in which a model can be told.

    NoPosition      nowhere; the base class of all the others
    Learned         a table of vectors, added to the embeddings
    Sinusoidal      the same with a formula in place of the table
    RelativeBias    a learned number for each distance, added to the scores (T5)
    Alibi           a penalty for each step back, added to the scores
    Rope            queries and keys turned by an angle that grows with the position

A scheme acts on the embeddings before the first layer (`embed`), on queries and keys (`rotate`), or
on the scores (`bias`), and inherits "nothing happens" for the other two. Positions are integer
tensors, so that a cache can say which ones it holds. `rope_frequencies` stretches RoPE beyond the
trained length: interpolation, NTK-aware, YaRN, Llama-3 bands. Left out: learned vectors for
distances (Shaw et al. 2018), rare in today's language models, and LongRoPE's searched factors.

Angles are taken in float64, and only sines and cosines are rounded to what the model computes in:
at position 100,000 an angle in float32 is off by up to 0.01 radians, in bfloat16 by hundreds.
"""

import math
from collections.abc import Mapping
from numbers import Integral, Real

import torch
from torch import nn


class NoPosition(nn.Module):
    """No encoding at all (NoPE). A subclass overrides one of the three methods.

    Without an encoding a decoder still knows a little of order from its causal mask: Haviv et al.
    2022, https://arxiv.org/abs/2203.16634

    >>> NoPosition().rotate("as it was", positions=None)
    'as it was'
    """

    n_heads = None  # how many heads a scheme is made for; None: any number

    def embed(self, x, positions):
        """Embeddings x (B, T, C) at positions (T,) -> x (B, T, C), before the first layer."""
        return x

    def rotate(self, x, positions):
        """Queries or keys x (B, H, T, D) at positions (T,) -> x (B, H, T, D), before the scores."""
        return x

    def bias(self, q_positions, k_positions):
        """Positions (T,) and (S,) -> (H, T, S), added to the scores; here 0.0, which fits all."""
        return 0.0


# ---- Added to the embeddings: absolute ----------------------------------------------------------


class Learned(NoPosition):
    """A learned vector for each position up to `max_seq_len`, as in GPT-2 and BERT.

    A later position has no row, and none can be made up: ValueError.
    """

    def __init__(self, max_seq_len, d_model):
        super().__init__()
        _check_sizes(max_seq_len=max_seq_len, d_model=d_model)
        self.table = nn.Embedding(max_seq_len, d_model)

    def embed(self, x, positions):
        _check_positions(positions)
        n = self.table.num_embeddings
        if len(positions) and positions.max() >= n:
            raise ValueError(
                f"the table has {n} positions, 0 to {n - 1}: got {int(positions.max())}; "
                "a longer text needs a longer table, and training with it"
            )
        return _add(x, self.table(positions))


class Sinusoidal(NoPosition):
    """Sines and cosines of the position at d/2 frequencies, as in the first Transformer.

        PE[p, 2i] = sin(p / 10000^(2i/d))     PE[p, 2i + 1] = cos(p / 10000^(2i/d))

    Vaswani et al. 2017, section 3.5, https://arxiv.org/abs/1706.03762

    >>> Sinusoidal(4).vectors(torch.tensor([1])).round(decimals=4)
    tensor([[0.8415, 0.5403, 0.0100, 1.0000]], dtype=torch.float64)
    """

    def __init__(self, d_model, theta=10_000.0):
        super().__init__()
        _check_sizes(d_model=d_model)
        _check_even("d_model", d_model)
        # no buffer: it stays as it is when the model is halved
        self.frequencies, _ = rope_frequencies(d_model, theta)

    def vectors(self, positions):
        """Positions (T,) -> (T, C) in float64: sine and cosine take turns."""
        angles = positions.cpu()[:, None] * self.frequencies  # (T, C/2)
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)

    def embed(self, x, positions):
        _check_positions(positions)
        return _add(x, self.vectors(positions).to(x))


def _add(x, vectors):
    """x (B, T, C) + vectors (T, C), where broadcasting would hide that T or C do not fit."""
    if x.shape[-2:] != vectors.shape:
        need = f"x must be (B, {', '.join(map(str, vectors.shape))}), as the positions and d_model"
        raise ValueError(f"{need}: got {tuple(x.shape)}")
    return x + vectors


# ---- Added to the scores: relative --------------------------------------------------------------


class RelativeBias(NoPosition):
    """A learned number for each head and each bucket of distances, as in T5.

    Near distances have a bucket each, far ones share buckets that widen like a logarithm, and all
    beyond `max_distance` share the last. With `causal=False` half of the buckets look ahead.

    Raffel et al. 2020, section 2.1, https://arxiv.org/abs/1910.10683
    """

    def __init__(self, n_heads, n_buckets=32, max_distance=128, causal=True):
        super().__init__()
        _check_sizes(n_heads=n_heads, n_buckets=n_buckets, max_distance=max_distance)
        least = 2 if causal else 4
        if n_buckets < least or n_buckets % 2:
            raise ValueError(f"n_buckets must be even, {least} or more: got {n_buckets}")
        exact = n_buckets // (2 if causal else 4)
        if max_distance <= exact:
            got = f"{max_distance} with {exact} exact buckets"
            raise ValueError(f"max_distance must exceed the distances with their own bucket: {got}")
        self.n_heads, self.max_distance, self.causal = n_heads, max_distance, causal
        self.table = nn.Embedding(n_buckets, n_heads)

    def buckets(self, distances):
        """Distances back, query position - key position, of any shape -> bucket numbers."""
        n, offset = self.table.num_embeddings, 0
        if self.causal:
            distances = distances.clamp(min=0)
        else:
            n = n // 2
            offset, distances = n * (distances < 0), distances.abs()
        exact = n // 2  # as many distances have a bucket of their own
        stretched = torch.log(distances.clamp(min=1).float() / exact)
        stretched = stretched / math.log(self.max_distance / exact) * (n - exact)
        far = (exact + stretched.long()).clamp(max=n - 1)
        return offset + torch.where(distances < exact, distances, far)

    def bias(self, q_positions, k_positions):
        distances = _distances(q_positions, k_positions)
        return self.table(self.buckets(distances)).movedim(-1, 0)  # (T, S, H) -> (H, T, S)


class Alibi(NoPosition):
    """A penalty for each step back, one slope a head: nothing learned, nothing to run out.

    The slopes of H = 2^n heads are 2^(-8/H), 2^(-16/H), ...; for other H those of the next lower
    power of two, then every other one of the next higher. `slopes` gives others. Where a query may
    look ahead, a step ahead costs the same.

    Press et al. 2022, section 3, https://arxiv.org/abs/2108.12409

    >>> Alibi(n_heads=4).slopes
    tensor([0.2500, 0.0625, 0.0156, 0.0039])
    """

    def __init__(self, n_heads, slopes=None):
        super().__init__()
        _check_sizes(n_heads=n_heads)
        slopes = _alibi_slopes(n_heads) if slopes is None else slopes
        self.n_heads = n_heads
        self.slopes = torch.as_tensor(slopes, dtype=torch.float32).clone()  # as for Sinusoidal
        if self.slopes.shape != (n_heads,):
            got = self.slopes.tolist()
            raise ValueError(f"slopes must be {n_heads} numbers, one a head: got {got}")

    def bias(self, q_positions, k_positions):
        distances = _distances(q_positions, k_positions)
        slopes = self.slopes.to(distances.device)
        return -slopes[:, None, None] * distances.abs()  # (H, 1, 1) * (T, S) -> (H, T, S)


def _alibi_slopes(n_heads):
    n = 2 ** int(math.log2(n_heads))  # the power of two that fits
    return [2 ** (-8 * h / n) for h in [*range(1, n + 1), *(h + 0.5 for h in range(n_heads - n))]]


# ---- Queries and keys turned: relative, by way of the absolute ----------------------------------


class Rope(NoPosition):
    """Each pair (2i, 2i + 1) of a query or key is turned by position · frequency i.

    Turned by m and n, a pair's part of the score depends on m - n alone. Only the first `dim` of a
    head's D features turn; with dim < D (partial rotation) the others pass as they are. Values
    are never turned. Some code bases pair (i, i + dim/2) instead: see `to_interleaved`.

    Su et al. 2021 (RoFormer), eq. 34, https://arxiv.org/abs/2104.09864

    >>> Rope(2).rotate(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([1]))
    tensor([[[[0.5403, 0.8415]]]])
    """

    def __init__(self, dim, theta=10_000.0, scaling=None):
        super().__init__()
        self.frequencies, self.factor = rope_frequencies(dim, theta, scaling)
        self.dim = dim
        self._table = torch.empty(0, dim // 2)  # no buffer: it can be made again, so is not saved

    def rotate(self, x, positions):
        _check_positions(positions)
        if not x.is_floating_point():
            raise TypeError(f"queries and keys must be floating point numbers: got {x.dtype}")
        if x.shape[-1] < self.dim or x.shape[-2] != len(positions):
            need = f"Rope({self.dim}) at {len(positions)} positions turns the first {self.dim} "
            need += f"features of x (B, H, {len(positions)}, D), D >= {self.dim}"
            raise ValueError(f"{need}: got {tuple(x.shape)}")
        wide = torch.promote_types(x.dtype, torch.float32)  # complex numbers need that much
        pairs = _to_complex(x[..., : self.dim].to(wide))  # (..., T, dim/2)
        turned = torch.view_as_real(pairs * self.turns(positions, pairs.dtype))
        turned = turned.flatten(-2).to(x.dtype)  # (..., T, dim/2, 2) -> (..., T, dim)
        return turned if x.shape[-1] == self.dim else torch.cat((turned, x[..., self.dim :]), -1)

    def turns(self, positions, dtype=torch.complex64):
        """factor · (cos + i sin) of each angle, (T, dim/2): to multiply by it is to turn a pair.

        From a table that at least doubles when a position lies beyond it: single steps stay cheap.
        """
        need, have = int(positions.max()) + 1 if len(positions) else 0, len(self._table)
        if need > have or (self._table.device, self._table.dtype) != (positions.device, dtype):
            n = max(need, 2 * have) if need > have else have
            angles = torch.arange(n, device="cpu")[:, None] * self.frequencies  # (n, dim/2)
            turns = torch.polar(torch.full_like(angles, self.factor), angles)
            self._table = turns.to(dtype).to(positions.device)
        return self._table[positions]


def _to_complex(x):
    """Real (..., dim) -> complex (..., dim/2), without a copy unless the memory begins oddly."""
    steps = *x.stride()[:-1], x.storage_offset()
    if x.stride(-1) != 1 or any(step % 2 for step in steps):
        x = x.clone(memory_format=torch.contiguous_format)
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def rope_frequencies(dim, theta=10_000.0, scaling=None):
    """The dim/2 frequencies of RoPE in float64, radians a token, and the factor on cos and sin.

    Frequency i is theta^(-2i/dim): the first pair turns once in 2π tokens, the last the slowest.
    `scaling` stretches them by `factor` for longer texts; its "kind" is one of

        "linear"   all frequencies / factor: position interpolation, Chen et al. 2023,
                   https://arxiv.org/abs/2306.15595
        "ntk"      a larger theta: the first frequency stays, the last is divided by factor; bloc97
                   2023, written up as section 3.1 of the YaRN paper
        "yarn"     pairs that turn more than `beta_fast` times in `original_max_seq_len` tokens
                   stay, those below `beta_slow` are interpolated, between the two a ramp; scores
                   are sharpened. Peng et al. 2023, https://arxiv.org/abs/2309.00071
        "llama3"   the same idea with a ramp in turns, in the code released with Llama 3.1:
                   https://github.com/meta-llama/llama-models

    Hugging Face writes rope_type for "kind" and original_max_position_embeddings for
    "original_max_seq_len", the rest alike; its "dynamic" is "ntk", with a factor that grows with
    the text. DeepSeek's "mscale" and "mscale_all_dim" replace YaRN's sharpening in the table by one
    in the softmax: see `yarn_mscale`.

    >>> rope_frequencies(4)[0]
    tensor([1.0000, 0.0100], dtype=torch.float64)

    Raises ValueError for odd widths, factors below 1, and kinds or settings there are not.
    """
    _check_sizes(dim=dim)
    _check_even("dim", dim)
    _check_number("theta", theta, least=1.0)
    pairs = torch.arange(0, dim, 2, dtype=torch.float64, device="cpu")  # on a model's "meta", too
    frequencies = theta ** -(pairs / dim)
    if scaling is None:
        return frequencies, 1.0
    kind, settings = _read_scaling(scaling)
    return _SCALINGS[kind][0](frequencies, dim, theta, **settings)


def _linear(frequencies, dim, theta, factor):
    return frequencies / factor, 1.0


def _ntk(frequencies, dim, theta, factor):
    if dim < 4:
        raise ValueError(
            f"NTK-aware scaling keeps the first pair, so dim must be 4 or more: got {dim}"
        )
    return rope_frequencies(dim, theta * factor ** (dim / (dim - 2)))


def _yarn(
    frequencies, dim, theta, factor, original_max_seq_len, beta_fast=32.0, beta_slow=1.0,
    mscale=1.0, mscale_all_dim=0.0, attention_factor=None,
):  # fmt: skip
    if not beta_fast > beta_slow > 0 or theta == 1:
        got = f"{beta_fast}, {beta_slow} and theta {theta:g}"
        raise ValueError(f"yarn needs beta_fast > beta_slow > 0, and theta above 1: got {got}")

    def pair(turns):  # the pair, as a real number, that turns so often in the trained length
        return dim * math.log(original_max_seq_len / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(math.floor(pair(beta_fast)), 0), min(math.ceil(pair(beta_slow)), dim - 1)
    pairs = torch.arange(dim // 2, dtype=torch.float64, device="cpu")
    ramp = (pairs - low) / max(high - low, 0.001)  # not through 0 / 0 where there is no ramp
    keep = 1 - ramp.clamp(0, 1)  # 1: turns often, stays; 0: turns less than once, is interpolated
    frequencies = frequencies * keep + frequencies / factor * (1 - keep)
    if attention_factor is None:
        attention_factor = yarn_mscale(factor, mscale) / yarn_mscale(factor, mscale_all_dim)
    return frequencies, float(attention_factor)


def yarn_mscale(factor, mscale=1.0):
    """0.1 · mscale · ln(factor) + 1: YaRN's sharpening, which enters a score squared."""
    return 0.1 * mscale * math.log(factor) + 1.0


def _llama3(
    frequencies, dim, theta, factor, original_max_seq_len, low_freq_factor=1.0, high_freq_factor=4.0
):
    if not high_freq_factor > low_freq_factor:
        got = f"{high_freq_factor} and {low_freq_factor}"
        raise ValueError(f"llama3 needs high_freq_factor > low_freq_factor: got {got}")
    turns = original_max_seq_len * frequencies / (2 * math.pi)  # in the trained length
    keep = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0, 1)
    return frequencies * keep + frequencies / factor * (1 - keep), 1.0


# kind: the function, and what `scaling` must say besides the factor
_SCALINGS = {
    "linear": (_linear, ()),
    "ntk": (_ntk, ()),
    "yarn": (_yarn, ("original_max_seq_len",)),
    "llama3": (_llama3, ("original_max_seq_len",)),
}


# ---- Two ways to pair ---------------------------------------------------------------------------
# Which features form a pair is a choice of layout: a permutation of the rows of W_Q and W_K turns
# one into the other, and no score changes, because q and k are permuted alike.


def to_half_split(weight, n_heads, rotary_dim=None):
    """Rows for pairs (2i, 2i + 1) -> rows for pairs (i, i + rotary_dim/2), within each head.

    `weight` is that of wq or wk, (n_heads · D, C), or a bias, (n_heads · D,). Only the first
    `rotary_dim` rows of a head move; all D unless told otherwise. Hugging Face's Llama is half
    split, Meta's own and DeepSeek's are interleaved.

    >>> to_half_split(torch.arange(4), n_heads=1)
    tensor([0, 2, 1, 3])
    """
    return _reorder(weight, n_heads, rotary_dim, lambda dim: torch.arange(dim).view(-1, 2).T)


def to_interleaved(weight, n_heads, rotary_dim=None):
    """The way back: rows for pairs (i, i + rotary_dim/2) -> rows for pairs (2i, 2i + 1).

    >>> to_interleaved(torch.tensor([0, 2, 1, 3]), n_heads=1)
    tensor([0, 1, 2, 3])
    """
    return _reorder(weight, n_heads, rotary_dim, lambda dim: torch.arange(dim).view(2, -1).T)


def _reorder(weight, n_heads, rotary_dim, order):
    _check_sizes(n_heads=n_heads)
    if len(weight) % n_heads:
        raise ValueError(f"n_heads must divide the rows: {n_heads} does not divide {len(weight)}")
    D = len(weight) // n_heads
    dim = D if rotary_dim is None else rotary_dim
    _check_sizes(rotary_dim=dim)
    _check_even("rotary_dim", dim)
    if dim > D:
        raise ValueError(f"rotary_dim must fit a head: {dim} is more than its {D} rows")
    heads = weight.unflatten(0, (n_heads, D)).clone()  # (H·D, C) -> (H, D, C)
    heads[:, :dim] = heads[:, order(dim).flatten().to(weight.device)]
    return heads.flatten(0, 1)


# ---- What does not fit --------------------------------------------------------------------------


def _distances(q_positions, k_positions):
    """(T, S): how far back each key lies; below 0 it lies ahead."""
    _check_positions(q_positions)
    _check_positions(k_positions)
    return q_positions[:, None] - k_positions


def _check_positions(positions):
    if not isinstance(positions, torch.Tensor) or positions.dtype not in (torch.int32, torch.int64):
        got = getattr(positions, "dtype", type(positions).__name__)
        raise TypeError(f"positions must be a tensor of int64 or int32: got {got}")
    if positions.ndim != 1:
        raise ValueError(f"positions must be (T,), alike for all: got {tuple(positions.shape)}")
    if len(positions) and positions.min() < 0:
        raise ValueError(f"positions start at 0: got {int(positions.min())}")


def _check_sizes(**sizes):
    for name, size in sizes.items():
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be an integer, 1 or more: got {size!r}")


def _check_even(name, size):
    if size % 2:
        raise ValueError(f"{name} must be even, features turn in pairs: got {size}")


def _check_number(name, value, least):
    if not isinstance(value, Real) or not least <= value < math.inf:
        raise ValueError(f"{name} must be a finite number, {least:g} or more: got {value!r}")


def _read_scaling(scaling):
    """A scaling's kind and settings, if they are complete and make sense."""
    if not isinstance(scaling, Mapping):
        example = '{"kind": "linear", "factor": 4.0}'
        raise TypeError(f"scaling must be a mapping like {example}: got {scaling!r}")
    settings = dict(scaling)
    kind = settings.pop("kind", None)
    if kind not in tuple(_SCALINGS):
        raise ValueError(f'scaling["kind"] must be one of {tuple(_SCALINGS)}: got {kind!r}')
    function, required = _SCALINGS[kind]
    known = function.__code__.co_varnames[3 : function.__code__.co_argcount]
    missing = [name for name in ("factor", *required) if name not in settings]
    unknown = [name for name in settings if name not in known]
    if missing or unknown:
        wrong = f"needs {missing}" if missing else f"has no setting {unknown}; it takes {known}"
        raise ValueError(f"scaling of kind {kind!r} {wrong}")
    for name, value in settings.items():  # stretching only: a factor below 1 would squeeze
        _check_number(
            f"scaling[{name!r}]", value, least=1.0 if name in ("factor", *required) else 0.0
        )
    return kind, settings
