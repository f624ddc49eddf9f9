"""Chapters 7 and 8: the time of one decoded token, as context, batch and key heads change.

A block as wide as GPT-2 small's: 12 query heads of 64 with RoPE, a feed-forward layer of 3072.
Timed are its attention alone, over keys and values that are cached already; the attention layer,
maps and cache included; and the whole block. The same is timed when keys and values are first
repeated for every query head, and, for one sequence, in two more ways that programs have (`WAYS`)
and with latent attention, which has no attention alone.

Before each timed call a tensor larger than the processor's caches is read, and then a twin is
called, with weights and a tiny cache of its own. So weights, keys and values come from memory, as
in a model of many layers, whose other layers were read in between, but the program does not. All
ways take turns, and the parts, too, so that a busy moment hits them alike; of each, the best call
of a run counts.

    python -m experiments.decode
"""

import platform
import time
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import scaled_dot_product_attention

from experiments import write_table
from lib.attention import Attention, attention
from lib.cache import Cache
from lib.config import ModelConfig
from lib.transformer import Block

D_MODEL, HEADS, HEAD_DIM, D_FF = 768, 12, 64, 3072
KV_HEADS = {"MHA": 12, "GQA-4": 4, "GQA-2": 2, "MQA": 1}
LATENT_ROW = 160  # numbers that latent attention keeps of a token: 128, and 32 with positions
SHARING = [name for name, heads in KV_HEADS.items() if heads < HEADS]
SHARED = [(name, "grouped") for name in KV_HEADS] + [(name, "repeated") for name in SHARING]
OTHERS = [("MHA", "enable_gqa")]  # the kernel alone, without the checks of `attention`
OTHERS += [(name, way) for way in ("expanded", "enable_gqa") for name in SHARING]
LATENT = [("MLA", "absorbed"), ("MLA", "naive")]
PARTS = ("attention ms", "layer ms", "block ms")
CONTEXTS, BATCHES, RUNS = (128, 512, 2048, 4096, 8192, 16384), (1, 4, 16), 3
ROUNDS = 2 * len(PARTS)  # a multiple of the parts, so that each comes first equally often
OTHER_NUMBERS = 100_000_000  # read between two calls, 400 MB: more than processors keep near
MOST_NUMBERS = 110_000_000  # of a cache: with more, the table would need much memory and time


def repeated_attention(q, k, v, bias=0.0):
    """`attention` with `repeat_interleave`, which always copies: K heads become H, each time."""
    G = q.shape[1] // k.shape[1]
    return attention(q, k.repeat_interleave(G, 1), v.repeat_interleave(G, 1), bias)


def expanded_attention(q, k, v, bias=0.0):
    """The same with `expand` and `reshape`: a copy, too, but for K = 1, where it is a view.

    `repeat_kv` in modeling_llama.py of https://github.com/huggingface/transformers, whose plain
    ("eager") attention does so; its fused one packs a single query's heads as rows, like ours.
    """

    def for_each_query_head(x):
        x = x[:, :, None].expand(-1, -1, q.shape[1] // k.shape[1], -1, -1)  # (B, K, G, S, D)
        return x.reshape(x.shape[0], q.shape[1], *x.shape[3:])

    return attention(q, for_each_query_head(k), for_each_query_head(v), bias)


def torch_attention(q, k, v, bias=0.0):
    """torch's kernel with `enable_gqa`, which takes K heads as they are; a bias is its mask."""
    mask = bias if torch.is_tensor(bias) else None
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


WAYS = {
    "grouped": attention, "repeated": repeated_attention, "expanded": expanded_attention,
    "enable_gqa": torch_attention,
}  # fmt: skip


class OtherAttention(Attention):
    """The layer with one of `WAYS`: the same result and the same small cache."""

    def __init__(self, way, *sizes, **options):
        super().__init__(*sizes, **options)
        self.attend = WAYS[way]

    def forward(self, x, *, context=None, mask=None, cache=None):
        """x (B, T, C) -> (B, T, C)."""
        y = self.attend(*self.qkv(x, context=context, mask=mask, cache=cache))
        return self.wo(y.transpose(1, 2).flatten(2))


def build(variant, way):
    """A block of one variant, computed in one way."""
    sizes = {"n_kv_heads": KV_HEADS.get(variant)}
    if variant == "MLA":
        sizes = {"kv_lora_rank": LATENT_ROW - 32, "qk_rope_head_dim": 32,
                 "qk_nope_head_dim": HEAD_DIM, "v_head_dim": HEAD_DIM}  # fmt: skip
    config = ModelConfig(
        vocab_size=1, n_layers=1, d_model=D_MODEL, n_heads=HEADS, d_ff=D_FF, gated=False,
        activation="gelu", **sizes,
    )  # fmt: skip
    block = Block(config)
    if way in WAYS and way != "grouped":  # "grouped" is what `Attention` does
        block.attention = OtherAttention(
            way, D_MODEL, HEADS, config.n_kv_heads, position=block.attention.position
        )
    if way == "naive":
        block.attention.forward = partial(block.attention.forward, absorb=False)
    return block


def step(variant, way, batch, context):
    """What one new token costs -> functions without arguments: attention, its layer, the block."""
    block, cache, attend = build(variant, way), Cache(context), None
    x = torch.randn(batch, 1, D_MODEL)
    if variant == "MLA":
        cache.append(torch.randn(batch, 1, context, LATENT_ROW))
    else:
        kv = cache.append(*torch.randn(2, batch, KV_HEADS[variant], context, HEAD_DIM))
        attend = partial(WAYS[way], torch.randn(batch, HEADS, 1, HEAD_DIM), *kv)

    def one_more(part):
        cache.length = context - 1  # one step back, so that every call has the same context
        part(x, cache=cache)

    return attend, partial(one_more, block.attention), partial(one_more, block)


@torch.no_grad()
def measure(batch, context, rounds=ROUNDS, parts=PARTS, ways=SHARED):
    """Every variant at one batch and context -> rows with the least milliseconds of each part."""
    steps = {way: dict(zip(parts, step(*way, batch, context))) for way in ways}
    twins = {way: dict(zip(parts, step(*way, 1, 2))) for way in ways}
    best = {way: dict.fromkeys(parts, "") for way in ways}  # what cannot be timed stays empty
    others = torch.ones(OTHER_NUMBERS)
    for r in range(rounds):
        order = [parts[(i + r) % len(parts)] for i in range(len(parts))]  # each comes first in turn
        for way, functions in steps.items():
            for part in order:
                if (function := functions[part]) is not None:
                    others.sum()
                    twins[way][part]()
                    ms = milliseconds(function)
                    best[way][part] = round(min(ms, best[way][part] or ms), 5)
    place = {"batch": batch, "context": context}
    return [place | {"variant": v, "way": way} | times for (v, way), times in best.items()]


def milliseconds(function):
    """The time of one call."""
    start = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - start)


def grid():
    """The batches and contexts of the table: all whose cache is not too large with MHA."""
    numbers = 2 * HEADS * HEAD_DIM
    return [(b, s) for b in BATCHES for s in CONTEXTS if b * s * numbers <= MOST_NUMBERS]


def processor():
    """What the times were measured on, in words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"one thread of {names[0] if names else platform.processor() or platform.machine()}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    started = time.time()
    table = [
        {"run": run} | row
        for run in range(RUNS)
        for batch, context in grid()
        for row in measure(batch, context, ways=SHARED if batch > 1 else SHARED + OTHERS + LATENT)
    ]
    write_table("decode", table, started, note=processor())
