"""Multi-head latent attention: every head has keys and values of its own, made from one latent.

    MLA              the layer: one small row a token in the cache, two orders of the same products
    softmax_scale    what scores are multiplied by, YaRN's sharpening included

A token leaves one row in the cache, R + P numbers for all heads together. Each head makes its own
keys and values of it, with its maps W_UK and W_UV, both in `wkv_b`:

    row         [c | rotary key]            c: latent of R numbers, rotary key: P numbers
    one head    k = [W_UK c | rotary key]   v = W_UV c        q = [without | with position]

In the scores without position and in the values, products may be taken in two orders:

    naive       q · (W_UK c)      Σ weight · (W_UV c)     all keys and values rebuilt
    absorbed    (W_UKᵀ q) · c     W_UV (Σ weight · c)     rows read as they lie in the cache

Absorbed, all heads are queries to one wide key: MQA. Were the keys W_UK c rotated, a rotation that
differs from distance to distance would stand between q and W_UK, and forbid it. So position has P
features of its own: their key is made from the token directly, and rotated before it is cached.

DeepSeek-AI 2024 (DeepSeek-V2), section 2.1, https://arxiv.org/abs/2405.04434. Left out: dropout,
biases, attention that looks ahead, and kernels of our own.
"""

import math
from functools import partial

import torch
from torch import nn
from torch.nn.functional import pad

from lib.attention import (
    _check_float,
    _check_mask,
    _check_sizes,
    attention,
    mask_to_bias,
    padding_bias,
)
from lib.positions import Rope, _check_even, yarn_mscale


class MLA(nn.Module):
    """Causal self-attention whose cache keeps kv_lora_rank + qk_rope_head_dim numbers a token.

    The sizes have DeepSeek's names. Queries and keys of a head are [nope | rope] wide, without and
    with position; values have a width of their own. `q_lora_rank` sends queries through a latent,
    too: it saves parameters, not cache. `theta` and `scaling` are those of `Rope`.

    >>> sizes = {"qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
    >>> layer = MLA(d_model=64, n_heads=8, kv_lora_rank=16, **sizes)
    >>> tuple(layer(torch.randn(1, 3, 64)).shape), tuple(layer.wkv_a.weight.shape)
    ((1, 3, 64), (20, 64))

    Raises ValueError or TypeError for sizes, inputs and caches that do not fit.
    """

    def __init__(
        self, d_model, n_heads, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim,
        q_lora_rank=None, theta=10_000.0, scaling=None, norm_eps=1e-6,
    ):  # fmt: skip
        super().__init__()
        _check_sizes(
            d_model=d_model, n_heads=n_heads, kv_lora_rank=kv_lora_rank, v_head_dim=v_head_dim,
            qk_nope_head_dim=qk_nope_head_dim, qk_rope_head_dim=qk_rope_head_dim,
        )  # fmt: skip
        _check_even("qk_rope_head_dim", qk_rope_head_dim)
        qk_head_dim = qk_nope_head_dim + qk_rope_head_dim
        self.n_heads, self.v_head_dim = n_heads, v_head_dim
        self.kv_lora_rank, self.q_lora_rank = kv_lora_rank, q_lora_rank
        self.qk_nope_head_dim, self.qk_rope_head_dim = qk_nope_head_dim, qk_rope_head_dim
        self.position = Rope(qk_rope_head_dim, theta, scaling)
        self.scale = softmax_scale(qk_head_dim, scaling)
        linear = partial(nn.Linear, bias=False)
        if q_lora_rank is None:
            self.wq = linear(d_model, n_heads * qk_head_dim)
        else:
            _check_sizes(q_lora_rank=q_lora_rank)
            self.wq_a, self.q_norm = linear(d_model, q_lora_rank), nn.RMSNorm(q_lora_rank, norm_eps)
            self.wq_b = linear(q_lora_rank, n_heads * qk_head_dim)
        self.wkv_a = linear(d_model, kv_lora_rank + qk_rope_head_dim)
        self.kv_norm = nn.RMSNorm(kv_lora_rank, norm_eps)
        self.wkv_b = linear(kv_lora_rank, n_heads * (qk_nope_head_dim + v_head_dim))
        self.wo = linear(n_heads * v_head_dim, d_model)

    def forward(self, x, *, mask=None, cache=None, absorb=True):
        """x (B, T, C) -> (B, T, C).

        Args:
            mask: boolean (B, S), True where a key may be seen; S counts cached tokens, too.
            cache: holds the rows of the tokens before x, and gets those of x.
            absorb: changes the order of the products, never the result. Absorbed is the one for
                single tokens; to read a long prompt, naive costs less.
        """
        y = attention(*self.qkv(x, mask=mask, cache=cache, absorb=absorb))
        if absorb:  # y averages whole rows: values are made from the latents in them
            _, w_uv = self.up_maps()
            y = torch.einsum("bhtr,hvr->bhtv", y[..., : self.kv_lora_rank], w_uv)
        y = y[..., : self.v_head_dim]  # naive values came padded
        return self.wo(y.transpose(1, 2).flatten(2))  # (B, H, T, v) -> (B, T, H·v) -> (B, T, C)

    def qkv(self, x, *, mask=None, cache=None, absorb=True):
        """What `forward` hands to `attention`: q, k, v and the bias, in either order.

        Naive, all have H heads of width nope + P, v padded to it: torch's fused kernel wants one
        width. Absorbed, q is (B, H, T, R + P), and the rows as they lie in the cache, (B, 1, S,
        R + P), are keys and values both. The weights are the same.
        """
        self._check_input(x, mask, cache)
        start = 0 if cache is None else cache.length
        positions = torch.arange(start, start + x.shape[1], device=x.device)  # (T,)
        q_nope, q_rope = self.queries(x, positions)
        rows = self.rows(x, positions)
        if cache is not None:
            (rows,) = cache.append(rows)  # (B, 1, T, R + P) -> (B, 1, S, R + P)
        if absorb:
            w_uk, _ = self.up_maps()
            q_latent = torch.einsum("bhtn,hnr->bhtr", q_nope, w_uk)
            q, k, v = torch.cat((q_latent, q_rope), -1), rows, rows
        else:
            q = torch.cat((q_nope, q_rope), -1)
            k, v = self.keys_values(rows)
            v = pad(v, (0, max(0, k.shape[-1] - v.shape[-1])))
        q = q * (self.scale * math.sqrt(q.shape[-1]))  # attention divides by the root of q's width
        return q, k, v, self._bias(positions, mask, cache)

    def queries(self, x, positions):
        """x (B, T, C) -> (B, H, T, nope), and (B, H, T, P) rotated."""
        q = self.wq(x) if self.q_lora_rank is None else self.wq_b(self.q_norm(self.wq_a(x)))
        q = q.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (B, H, T, nope + P)
        q_nope, q_rope = q.split((self.qk_nope_head_dim, self.qk_rope_head_dim), -1)
        return q_nope, self.position.rotate(q_rope, positions)

    def rows(self, x, positions):
        """x (B, T, C) -> what is cached, (B, 1, T, R + P): normalised latents, rotated keys."""
        row = self.wkv_a(x)[:, None]  # (B, T, C) -> (B, 1, T, R + P)
        latent, k_rope = row.split((self.kv_lora_rank, self.qk_rope_head_dim), -1)
        return torch.cat((self.kv_norm(latent), self.position.rotate(k_rope, positions)), -1)

    def keys_values(self, rows):
        """Cached rows (B, 1, S, R + P) -> keys (B, H, S, nope + P) and values (B, H, S, v)."""
        latent, k_rope = rows.split((self.kv_lora_rank, self.qk_rope_head_dim), -1)
        kv = self.wkv_b(latent[:, 0]).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        k_nope, v = kv.split((self.qk_nope_head_dim, self.v_head_dim), -1)  # (B, H, S, ·)
        return torch.cat((k_nope, k_rope.expand(-1, self.n_heads, -1, -1)), -1), v

    def up_maps(self):
        """W_UK (H, nope, R) and W_UV (H, v, R), the two parts of `wkv_b` for each head."""
        w = self.wkv_b.weight.unflatten(0, (self.n_heads, -1))  # (H, nope + v, R)
        return w.split((self.qk_nope_head_dim, self.v_head_dim), 1)

    def _bias(self, positions, mask, cache):
        """-inf where a query may not look -> fits (B, H, T, S)."""
        seen = positions <= positions[:, None] if cache is None else cache.visible(positions)
        bias = mask_to_bias(seen)  # (T, S)
        if mask is not None:
            k_positions = positions if cache is None else cache.positions
            bias = bias + padding_bias(mask[:, k_positions])  # (B, 1, 1, S)
        return bias

    def _check_input(self, x, mask, cache):
        weight = self.wkv_a.weight
        _check_float("x", x)
        if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != weight.shape[1]:
            raise ValueError(f"x must be (B, T, {weight.shape[1]}): got {tuple(x.shape)}")
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"x is {x.dtype}, the layer's weights are {weight.dtype}")
        _check_mask(mask, x, cache)


def softmax_scale(qk_head_dim, scaling=None):
    """1/√qk_head_dim, times m² under YaRN with an `mscale_all_dim`, m = `yarn_mscale`.

    qk_head_dim counts both parts of a naive query, nope + rope, in either order of the products:
    absorbed queries are wider, their scores are the same. DeepSeek-V3, inference/model.py,
    https://github.com/deepseek-ai/DeepSeek-V3

    >>> yarn = {"kind": "yarn", "factor": 40, "original_max_seq_len": 4096, "mscale_all_dim": 1.0}
    >>> round(softmax_scale(192), 5), round(softmax_scale(192, yarn), 5)
    (0.07217, 0.13523)
    """
    scaling = {} if scaling is None else scaling
    yarn = scaling.get("kind") == "yarn"
    m = yarn_mscale(scaling["factor"], scaling.get("mscale_all_dim", 0.0)) if yarn else 1.0
    return m**2 / math.sqrt(qk_head_dim)
