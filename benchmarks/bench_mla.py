"""Latent attention beside MHA, GQA and MQA: one process, one thread, wall time.

    python -m benchmarks mla                   everything, about a minute
    python -m benchmarks.bench_mla --quick     small sizes, to see that it runs

12 heads of 64 on 768 features, with RoPE; MLA has latents of 128 and rotary keys of 32. "Attention
alone" is what grows with the context, W_UK and W_UV of MLA included; "whole layer" adds the other
maps, of which MLA has fewer, and the cache. Many tokens at once are a whole prompt (T = S) or come
after S - T cached ones; beside the times stands what arithmetic alone predicts. Every number is the
best of many repetitions, which take turns.
"""

import sys
import time
from functools import partial

import torch
from torch.nn.functional import pad

from lib.accounting import mla_flops
from lib.attention import Attention, attention
from lib.cache import Cache
from lib.config import ModelConfig
from lib.mla import MLA
from lib.positions import Rope

SIZES = {"kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64}
CONFIG = ModelConfig(vocab_size=1, n_layers=1, d_model=768, n_heads=12, **SIZES)
KEY_HEADS = {"MHA": 12, "GQA(4)": 4, "MQA": 1}
WAYS = (*KEY_HEADS, "MLA naive", "MLA absorbed")


def best(ways, repeat):
    """The least wall time of each of `ways`, a name and a function without arguments each."""
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(repeat):
        for name, function in ways.items():
            start = time.perf_counter()
            function()
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def layers():
    torch.manual_seed(0)
    position = Rope(64)
    made = {name: Attention(768, 12, K, position=position) for name, K in KEY_HEADS.items()}
    return made | dict.fromkeys(WAYS[3:], MLA(768, 12, **SIZES))


def step(layer, name, T, S):
    """A function that reads T tokens after S - T cached ones, any number of times."""
    x, cache = torch.randn(1, T, 768), Cache(S)
    if name in KEY_HEADS:
        order, rows = {}, torch.randn(2, 1, KEY_HEADS[name], S, 64)  # keys and values
    else:
        order, rows = {"absorb": name == "MLA absorbed"}, torch.randn(1, 1, 1, S, 160)
    cache.append(*rows)

    def run():
        cache.length = S - T  # forget the last T
        return layer(x, cache=cache, **order)

    return run


def bench_layer(S, repeat):
    """One new token through the whole layer and its cache."""
    return best({name: step(layer, name, 1, S) for name, layer in layers().items()}, repeat)


def bench_attention(S, repeat):
    """The same without what does not depend on the context: maps of x, rotations, the cache."""
    made, ways = layers(), {}
    for name, K in KEY_HEADS.items():
        q, k, v = torch.randn(1, 12, 1, 64), torch.randn(1, K, S, 64), torch.randn(1, K, S, 64)
        ways[name] = lambda q=q, k=k, v=v: attention(q, k, v)
    layer, rows = made["MLA naive"], torch.randn(1, 1, S, 160)
    q_nope, q_rope = torch.randn(1, 12, 1, 64), torch.randn(1, 12, 1, 32)
    w_uk, w_uv = layer.up_maps()

    def naive():
        k, v = layer.keys_values(rows)
        return attention(torch.cat((q_nope, q_rope), -1), k, pad(v, (0, 32)))[..., :64]

    def absorbed():
        q = torch.cat((torch.einsum("bhtn,hnr->bhtr", q_nope, w_uk), q_rope), -1)
        y = attention(q * (160 / 96) ** 0.5, rows, rows)
        return torch.einsum("bhtr,hvr->bhtv", y[..., :128], w_uv)

    torch.testing.assert_close(absorbed(), naive(), atol=1e-4, rtol=1e-4)
    return best(ways | {"MLA naive": naive, "MLA absorbed": absorbed}, repeat)


def bench_many(T, S, repeat):
    """T tokens at once, of a prompt (T = S) or after a context; MHA and MLA in both orders."""
    made = layers()
    return best({n: step(made[n], n, T, S) for n in ("MHA", *WAYS[3:])}, repeat)


def decode_table(title, measure, lengths, goals):
    """One line for each length; `goals` maps a ratio to what it should be, and from which S on."""
    lines = [f"{title}, ms: S | {' | '.join(WAYS)} | MHA / absorbed | naive / absorbed"]
    for S in lengths:
        least = measure(S)
        cells = [str(S)] + [f"{least[name] * 1e3:.3f}" for name in WAYS]
        for name in ("MHA", "MLA naive"):
            ratio = least[name] / least["MLA absorbed"]
            goal, start, end = goals.get(name, (0, 1, 0))
            met = f" (goal {goal}, {'met' if ratio >= goal else 'missed'})"
            cells.append(f"{ratio:.2f}" + (met if start <= S <= end else ""))
        lines.append(" | ".join(cells))
    return "\n".join(lines)


def many_table(sizes, repeat):
    lines = ["tokens at once, ms: T | S | MHA | MLA naive | MLA absorbed | "
             "naive / absorbed | their FLOPs"]  # fmt: skip
    for T, S in sizes:
        least = bench_many(T, S, repeat)
        flops = [sum(mla_flops(CONFIG, S, absorb, T).values()) for absorb in (False, True)]
        cells = [f"{seconds * 1e3:.2f}" for seconds in least.values()]
        ratio = least["MLA naive"] / least["MLA absorbed"]
        cells += [f"{ratio:.2f}", f"{flops[0] / flops[1]:.2f}"]
        lines.append(" | ".join([str(T), str(S), *cells]))
    return "\n".join(lines)


def main(quick=False):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    lengths = (256, 1024) if quick else (256, 512, 1024, 2048, 4096, 8192)
    sizes = [(128, 128), (512, 512), (1024, 1024), (1, 4096), (32, 4096), (128, 4096), (512, 4096)]
    sizes = [(64, 64), (1, 1024)] if quick else sizes
    few, many = (3, 2) if quick else (20, 4)
    goals = {"MHA": (1.2, 4096, 4096), "MLA naive": (12, 1024, 8192)}
    with torch.no_grad():
        print(decode_table("attention alone", partial(bench_attention, repeat=few), lengths, goals))
        print(decode_table("whole layer", partial(bench_layer, repeat=few), lengths, {}))
        print(many_table(sizes, many))
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
