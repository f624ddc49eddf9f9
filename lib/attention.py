"""Attention: every token asks (query), every token offers (key) and hands over (value).

    causal_bias, padding_bias, ...    who may be seen: 0 where allowed, -inf where not
    attention_weights                 the equation up to the softmax, for reading and for pictures
    attention                         with the weighted sum, in one fused call
    blockwise_attention               the same numbers block by block, without the (T, S) matrix
    Attention                         the layer: learned maps around it, positions, cache

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762. Heads may share keys and values (K < H), and
sharing is never a case of its own: query head h reads key head h // G, with G = H // K. Left out:
dropout, and kernels of our own.
"""

import math
from numbers import Integral

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from lib.positions import NoPosition

# ---- Who may be seen ----------------------------------------------------------------------------
# A mask is a rule about how far a query looks back. With T new tokens at the end of S visible ones,
# query t stands at position S - T + t: one rule for training, prefill, chunks and single steps.


def mask_to_bias(mask):
    """Boolean mask, True where a key may be seen -> 0 there and -inf elsewhere, to add to scores.

    Added before the softmax, because exp(-inf) = 0 and the rest still sums to 1. Multiplying
    the weights by 0 afterwards loses that, and multiplying the scores by 0 hides nothing.
    """
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a boolean tensor, True = may be seen: got {got}")
    return torch.where(mask, 0.0, -math.inf)


def causal_bias(T, S):
    """(T, S): query t sees the keys up to its own position, 0 .. S - T + t.

    Aligned at the bottom right. torch's `is_causal=True` aligns at the top left, where the one
    query of a decoding step would see the first key only.

    >>> causal_bias(2, 3)
    tensor([[0., 0., -inf],
            [0., 0., 0.]])
    """
    return mask_to_bias(_look_back(T, S) >= 0)


def window_bias(T, S, window):
    """(T, S): query t sees itself and the `window` - 1 tokens before it.

    Beltagy et al. 2020 (Longformer), https://arxiv.org/abs/2004.05150
    """
    _check_sizes(window=window)
    back = _look_back(T, S)
    return mask_to_bias((back >= 0) & (back < window))


def strided_bias(T, S, stride):
    """(T, S): query t sees the last `stride` tokens, and every `stride`-th one before them.

    With `stride` near √S that is some 2√S keys a query, and two layers reach every earlier token.
    Child et al. 2019 (Sparse Transformer), section 4, https://arxiv.org/abs/1904.10509
    """
    _check_sizes(stride=stride)
    back = _look_back(T, S)
    return mask_to_bias((back >= 0) & ((back < stride) | (back % stride == 0)))


def padding_bias(mask):
    """Mask (B, S), True where a token is real -> (B, 1, 1, S), alike for all heads and queries."""
    bias = mask_to_bias(mask)
    if mask.ndim != 2:
        raise ValueError(f"mask must be (B, S): got shape {tuple(mask.shape)}")
    return bias[:, None, None, :]


def _look_back(T, S):
    """(T, S): how many tokens query t looks back to reach key s; below 0 the key is ahead."""
    T, S = _check_lengths(T, S)
    return torch.arange(S - T, S)[:, None] - torch.arange(S)


# ---- The equation -------------------------------------------------------------------------------


def attention_weights(q, k, bias=0.0):
    """softmax(q kᵀ / √D + bias): q (B, H, T, D), k (B, K, S, D) -> weights (B, H, T, S).

    Rows sum to 1. Only a query with nothing to see, bias -inf everywhere, gets zeros (not NaN).

    Vaswani et al. 2017, eq. 1, https://arxiv.org/abs/1706.03762
    """
    _check(q, k, k)
    scores = _grouped_matmul(q, k.transpose(-2, -1)) / math.sqrt(q.shape[-1])  # (B, H, T, S)
    scores = scores + _fit(bias, q, k)
    blind = (scores == -math.inf).all(-1, keepdim=True)  # (B, H, T, 1)
    weights = torch.softmax(scores.masked_fill(blind, 0.0), dim=-1).masked_fill(blind, 0.0)
    return weights.to(q.dtype)


def attention(q, k, v, bias=0.0):
    """attention_weights(q, k, bias) v: q (B, H, T, D), k and v (B, K, S, D) -> (B, H, T, D).

    MHA (K = H), GQA and MQA (K = 1) alike, in one call, which stores no weights where torch's fused
    kernel applies: values as wide as keys, and no gradient for the bias. When a single new token is
    decoded, reading k and v is what takes the time. To a key head, the G query heads that share it
    are just more queries: as G rows under each other they read it once, and that is the whole gain
    of sharing. A prompt is bound by arithmetic, and torch's own grouping serves it as well, with
    one mask for all heads. (For a handful of queries rows would still be faster.)

    Vaswani et al. 2017, eq. 1, https://arxiv.org/abs/1706.03762
    """
    _check(q, k, v)
    (B, H, T, D), (K, S) = q.shape, k.shape[1:3]
    bias = _fit(bias, q, k).to(q)  # (b, h, t, s), each 1 or B, H, T, S
    if T != 1:
        bias = bias.expand(-1, -1, -1, S)
        return scaled_dot_product_attention(q, k, v, attn_mask=bias, enable_gqa=True)
    rows = q.reshape(B, K, H // K, D)  # (B, H, 1, D) -> (B, K, G, D)
    if bias.shape[1] > 1:  # heads differ: so do the rows
        bias = bias.reshape(len(bias), K, H // K, -1)
    y = scaled_dot_product_attention(rows, k, v, attn_mask=bias.expand(-1, -1, -1, S))
    return y.reshape(B, H, 1, v.shape[-1])  # (B, K, G, D) -> (B, H, 1, D)


def blockwise_attention(q, k, v, causal=True, block=128):
    """`attention` in blocks of queries and keys: exact, and no matrix wider than one block.

    A softmax needs the largest score of a row and the total, which are known only at the end. So
    both are kept up to date, and what was summed under an old top is scaled by exp(old - new).

    Milakov & Gimelshein 2018, algorithm 3, https://arxiv.org/abs/1805.02867; in blocks, Dao
    2023 (FlashAttention-2), algorithm 1, https://arxiv.org/abs/2307.08691
    """
    _check(q, k, v)
    T, S = _check_lengths(q.shape[2], k.shape[2], causal)
    _check_sizes(block=block)
    out = []
    for t, q_t in zip(torch.arange(S - T, S).split(block), q.split(block, dim=2)):
        q_t = q_t / math.sqrt(q.shape[-1])
        top, total, y = torch.full_like(q_t[..., :1], -math.inf), 0.0, 0.0  # nothing seen yet
        for s, k_s, v_s in zip(torch.arange(S).split(block), k.split(block, 2), v.split(block, 2)):
            if causal and s[0] > t[-1]:
                break  # this block and all later ones lie ahead of every query
            scores = _grouped_matmul(q_t, k_s.transpose(-2, -1))  # (B, H, block, block)
            if causal and s[-1] > t[0]:  # on the diagonal: all earlier blocks are seen whole
                scores = scores + mask_to_bias(s <= t[:, None]).to(q.device)
            old, top = top, torch.maximum(top, scores.amax(-1, keepdim=True))
            rescale, e = (old - top).exp_(), (scores - top).exp_()
            total = rescale * total + e.sum(-1, keepdim=True)  # (B, H, block, 1)
            y = rescale * y + _grouped_matmul(e, v_s)  # (B, H, block, D)
        out.append(y / total)
    return torch.cat(out, dim=2).to(v.dtype)


def _grouped_matmul(x, y):
    """x (B, H, T, a) times y (B, K, a, b) -> (B, H, T, b): head h of x meets head h // G of y.

    Half precision is widened first: a score of 70,000 is more than float16 can hold.
    """
    (B, H, T, a), K = x.shape, y.shape[1]
    wide = torch.promote_types(x.dtype, torch.float32)
    rows = x.reshape(B, K, H // K * T, a)  # (B, H, T, a) -> (B, K, G·T, a)
    return (rows.to(wide) @ y.to(wide)).view(B, H, T, y.shape[-1])


# ---- The layer ----------------------------------------------------------------------------------


class Attention(nn.Module):
    """Self- or cross-attention with n_heads query heads and n_kv_heads key and value heads.

    n_kv_heads = n_heads is MHA, 1 is MQA (Shazeer 2019, https://arxiv.org/abs/1911.02150), anything
    between is GQA (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245):

        n_heads = 4       MHA, 4        GQA, 2         MQA, 1
        queries          0  1  2  3    0  1  2  3     0  1  2  3
                         |  |  |  |     \\/    \\/       \\ \\ / /
        keys, values     0  1  2  3      0     1           0

    `head_dim` is d_model / n_heads unless given; `position` is any scheme of `lib.positions`;
    `bias` gives the four maps one, `out_bias` decides for the last map alone.

    >>> layer = Attention(d_model=8, n_heads=4, n_kv_heads=2)
    >>> tuple(layer(torch.randn(1, 3, 8)).shape), tuple(layer.wk.weight.shape)
    ((1, 3, 8), (4, 8))

    Raises ValueError or TypeError for sizes that do not divide and inputs that do not fit.
    """

    def __init__(
        self, d_model, n_heads, n_kv_heads=None, head_dim=None, position=None, causal=True,
        bias=False, out_bias=None,
    ):  # fmt: skip
        super().__init__()
        position = NoPosition() if position is None else position
        if not isinstance(position, NoPosition):
            raise TypeError(f"position must be a scheme of lib.positions: got {position!r}")
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        out_bias = bias if out_bias is None else out_bias
        _check_sizes(d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads)
        if head_dim is None:
            _check_divides("n_heads", n_heads, "d_model", d_model, ", unless head_dim is given")
            head_dim = d_model // n_heads
        _check_sizes(head_dim=head_dim)
        _check_divides("n_kv_heads", n_kv_heads, "n_heads", n_heads)
        if position.n_heads not in (None, n_heads):
            made = f"{type(position).__name__}(n_heads={position.n_heads})"
            raise ValueError(f"position must have n_heads = {n_heads} like the layer: got {made}")
        self.head_dim, self.causal, self.position = head_dim, causal, position
        self.wq = nn.Linear(d_model, n_heads * head_dim, bias=bias)
        self.wk = nn.Linear(d_model, n_kv_heads * head_dim, bias=bias)
        self.wv = nn.Linear(d_model, n_kv_heads * head_dim, bias=bias)
        self.wo = nn.Linear(n_heads * head_dim, d_model, bias=out_bias)

    def forward(self, x, *, context=None, mask=None, cache=None):
        """x (B, T, C) -> (B, T, C).

        Args:
            context: (B, S, C), for cross-attention: keys and values come from there. Two sequences
                have no common positions, so no causal mask and no position scheme apply.
            mask: boolean (B, S), True where a key may be seen; S counts cached tokens, too.
            cache: holds keys and values of the tokens before x, and gets those of x.
        """
        y = attention(*self.qkv(x, context=context, mask=mask, cache=cache))  # (B, H, T, D)
        return self.wo(y.transpose(1, 2).flatten(2))  # (B, H, T, D) -> (B, T, H·D) -> (B, T, C)

    def qkv(self, x, *, context=None, mask=None, cache=None):
        """What `forward` hands to `attention`: q (B, H, T, D), k and v (B, K, S, D), and the bias.

        For pictures: `q, k, v, bias = layer.qkv(x)`, then `attention_weights(q, k, bias)`.
        """
        source = x if context is None else context
        self._check_input(x, source, mask, cache)
        if cache is not None and (context is not None or not self.causal):
            why = "causal is False" if context is None else "context brings its own keys"
            raise ValueError(f"a cache serves causal self-attention only, but {why}: leave it out")
        q = self._split(self.wq(x))  # (B, T, C) -> (B, T, H·D) -> (B, H, T, D)
        k, v = self._split(self.wk(source)), self._split(self.wv(source))  # (B, K, S, D)
        start = 0 if cache is None else cache.length
        q_positions = torch.arange(start, start + x.shape[1], device=x.device)  # (T,)
        k_positions = torch.arange(start, start + source.shape[1], device=x.device)
        visible = k_positions <= q_positions[:, None]  # (T, S), where nothing is cached
        if context is None:
            q, k = self.position.rotate(q, q_positions), self.position.rotate(k, k_positions)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, K, T, D) -> (B, K, S, D)
            k_positions, visible = cache.positions, cache.visible(q_positions)  # (S,) and (T, S)
        bias = 0.0 if context is not None else self._own_bias(q_positions, k_positions, visible)
        if mask is not None:
            bias = bias + padding_bias(mask[:, k_positions])  # (B, 1, 1, S)
        return q, k, v, bias

    def _own_bias(self, q_positions, k_positions, visible):
        """What the places of tokens in one sequence add to their scores -> fits (H, T, S)."""
        bias = self.position.bias(q_positions, k_positions)
        if self.causal:
            bias = bias + mask_to_bias(visible)
        return bias

    def _split(self, x):
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _check_input(self, x, source, mask, cache):
        weight = self.wq.weight
        for name, tensor in (("x", x), ("context", source)):
            _check_float(name, tensor)
            if tensor.ndim != 3 or tensor.shape[::2] != (len(x), weight.shape[1]):
                need = f"x must be (B, T, {weight.shape[1]}) and context (B, S, {weight.shape[1]})"
                raise ValueError(f"{need}: got {tuple(x.shape)} and {tuple(source.shape)}")
            if tensor.dtype != weight.dtype and not torch.is_autocast_enabled(tensor.device.type):
                raise TypeError(f"{name} is {tensor.dtype}, the layer's weights are {weight.dtype}")
        _check_mask(mask, source, cache)


# ---- What does not fit --------------------------------------------------------------------------


def _check_sizes(**sizes):
    for name, size in sizes.items():
        if not isinstance(size, Integral) or isinstance(size, bool):
            raise TypeError(f"{name} must be an integer, 1 or more: got {size!r}")
        if size < 1:
            raise ValueError(f"{name} must be 1 or more: got {size}")


def _check_lengths(T, S, causal=True):
    """Return T queries and S keys, if that many queries can stand at the end of that many keys."""
    _check_sizes(T=T, S=S)
    if causal and T > S:
        raise ValueError(
            f"under a causal mask the T queries are the last of the S keys, T <= S: "
            f"got T = {T} and S = {S}"
        )
    return T, S


def _check_divides(small, n, large, m, unless=""):
    if n == 0 or m % n:
        raise ValueError(f"{small} must divide {large}{unless}: {n} does not divide {m}")


def _check_float(name, x):
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a tensor of floating point numbers: got {got}")


def _check_mask(mask, source, cache):
    """A mask fits what is seen: tokens held by `cache`, and those of `source` (B, S, C)."""
    if mask is None:
        return
    mask_to_bias(mask)  # raises if it is not boolean
    need = len(source), source.shape[1] + (0 if cache is None else cache.length)
    if mask.shape != need:
        got = f"(B, S) = {need}, cached tokens included: got {tuple(mask.shape)}"
        raise ValueError(f"mask must be {got}")


def _check(q, k, v):
    """Queries (B, H, T, D), keys (B, K, S, D) and values (B, K, S, any width) that fit together."""
    for name, x, axes in zip("qkv", (q, k, v), ("H, T", "K, S", "K, S")):
        _check_float(name, x)
        if x.ndim != 4:
            raise ValueError(f"{name} must be (B, {axes}, D): got shape {tuple(x.shape)}")
        if x.dtype != q.dtype:
            raise TypeError(f"q, k and v must have one dtype: q has {q.dtype}, {name} {x.dtype}")
    if k.shape[:3] != v.shape[:3] or (len(q), q.shape[3]) != (len(k), k.shape[3]):
        got = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise ValueError(f"q (B, H, T, D), k (B, K, S, D) and v (B, K, S, D) must fit: got {got}")
    _check_divides("key heads", k.shape[1], "query heads", q.shape[1])


def _fit(bias, q, k):
    """A bias that broadcasts to the scores (B, H, T, S) -> four axes, each 1 or as theirs."""
    scores = (*q.shape[:3], k.shape[2])
    bias = torch.as_tensor(bias, device=q.device)
    if bias.dtype == torch.bool:
        raise TypeError("bias is added to scores: got torch.bool; mask_to_bias(mask) makes one")
    axes = zip(reversed(bias.shape), reversed(scores))
    if bias.ndim > 4 or any(n not in (1, m) for n, m in axes):
        raise ValueError(f"bias must fit scores (B, H, T, S) = {scores}: got {tuple(bias.shape)}")
    return bias[(None,) * (4 - bias.ndim)]
