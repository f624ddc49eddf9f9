"""Attention beside torch's own, and decoding with shared heads: one process, one thread, wall time.

    python -m benchmarks attention                  everything, about a minute
    python -m benchmarks.bench_attention --quick    small sizes, to see that it runs

Every row is the best of many repetitions, and what should agree is compared. Memory is what a fresh
process needs on top of its inputs.
"""

import multiprocessing
import re
import resource
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import scaled_dot_product_attention

from lib.attention import Attention, attention, attention_weights, blockwise_attention, causal_bias
from lib.cache import Cache

MB = 1_000_000
VARIANTS = {"MHA": 12, "GQA(4)": 4, "GQA(2)": 2, "MQA": 1}  # key heads for 12 query heads of 64
GOALS = {"GQA(4)": "1.4", "GQA(2)": "1.7", "MQA": "3"}


def seconds(function, *args, repeat=20):
    """Return the least wall time of `repeat` calls."""
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        function(*args)
        best = min(best, time.perf_counter() - start)
    return best


def inputs(T, S, H=12, K=12, D=64):
    torch.manual_seed(0)
    return torch.randn(1, H, T, D), torch.randn(1, K, S, D), torch.randn(1, K, S, D)


def explicit(q, k, v, bias=0.0):
    """Attention as the equation has it, weights stored, heads of a group sharing one product."""
    weights = attention_weights(q, k, bias)
    return (weights.reshape(1, k.shape[1], -1, k.shape[2]) @ v).view(q.shape)


def bench_decode(S, repeat=60):
    """One new token against S cached ones; interleaved, so that all see the same machine."""
    ways = {"fused (ours)": attention, "explicit": explicit}
    ways["torch, enable_gqa"] = partial(scaled_dot_product_attention, enable_gqa=True)
    best = {}
    for _ in range(repeat):
        for name, K in VARIANTS.items():
            q, k, v = inputs(1, S, K=K)
            for function in ways.values():
                torch.testing.assert_close(function(q, k, v), attention(q, k, v))
            for way, function in ways.items():
                time_now = seconds(function, q, k, v, repeat=3)
                best[way, name] = min(best.get((way, name), time_now), time_now)
    rows = []
    for (way, name), ours in best.items():
        if name in GOALS:
            goal = GOALS[name] if way == "fused (ours)" else ""
            rows.append((f"decode at S = {S}, {way}: {name}, MHA", ours, best[way, "MHA"], goal))
    return rows, best["fused (ours)", "MHA"]


def bench_layer(S, repeat=30):
    """The same through the layer and its cache, its four maps included."""
    best, layers = {}, {name: Attention(768, 12, K) for name, K in VARIANTS.items()}
    x = torch.randn(1, 1, 768)
    for name, layer in layers.items():
        cache = Cache(S)
        cache.append(*inputs(1, S - 1 - repeat, K=VARIANTS[name])[1:])
        best[name] = seconds(lambda: layer(x, cache=cache), repeat=repeat)  # noqa: B023
    return [(f"layer at S = {S}: {n}, MHA", best[n], best["MHA"], "") for n in GOALS]


def bench_bandwidth(S, mha):
    """Bytes of keys and values a second, beside a matrix of the same bytes times a vector."""
    matrix, vector = torch.randn(2 * 12 * S // 32, 64 * 32), torch.randn(64 * 32)
    matvec = seconds(torch.mv, matrix, vector, repeat=60)
    gb = matrix.nbytes / 1e9
    return (
        f"bandwidth: MHA decode at S = {S} reads {gb / mha:.1f} GB/s, "
        f"matrix times vector {gb / matvec:.1f} GB/s"
    )


def bench_blocks(T, repeat=8):
    """Causal attention over T tokens; the goal is a ceiling on our time over the fused kernel's."""
    q, k, v = inputs(T, T)
    fused = partial(scaled_dot_product_attention, is_causal=True)
    bias = causal_bias(T, T)
    ways = {"fused": fused, "blockwise": blockwise_attention, "bias": partial(attention, bias=bias)}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeat):
        for way, function in ways.items():
            best[way] = min(best[way], seconds(function, q, k, v, repeat=1))
    apart = (blockwise_attention(q, k, v) - fused(q, k, v)).abs().max().item()
    note = "" if apart < 1e-5 else "; OUTPUTS DIFFER"
    return [
        (
            f"T = {T}: torch's fused kernel, blockwise{note}",
            best["fused"],
            best["blockwise"],
            "<=1.8",
        ),
        (f"T = {T}: the same, attention with a causal bias", best["fused"], best["bias"], ""),
    ]


def peak_memory():
    """The most bytes this process ever had in memory; Linux keeps that apart from its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def extra_memory(way, T):
    """Peak bytes that one call needs on top of its inputs; to be called in a fresh process."""
    torch.set_num_threads(1)
    function = {
        "naive": lambda q, k, v: explicit(q, k, v, causal_bias(T, T)),
        "blockwise": blockwise_attention,
        "fused": partial(scaled_dot_product_attention, is_causal=True),
    }[way]
    with torch.no_grad():
        attention(*inputs(256, 256))  # whatever is loaded at the first call
        q, k, v = inputs(T, T)
        before = peak_memory()
        function(q, k, v)
        return peak_memory() - before


def bench_memory(T):
    """Return lines on the memory of each way; the goal for blockwise is a 20th of naive."""
    found = {}
    for way in ("naive", "blockwise", "fused"):
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            found[way] = fresh.apply(extra_memory, (way, T))
    sizes = ", ".join(f"{way} {size / MB:.0f} MB" for way, size in found.items())
    share = found["naive"] / found["blockwise"]
    goal = f", goal 20, met: {'yes' if share >= 20 else 'no'}" if T >= 4096 else ""
    return f"memory at T = {T}: {sizes}; naive over blockwise {share:.0f}{goal}"


def table(rows):
    """Return rows of (work, seconds of a, seconds of b, goal for b / a) as a table."""
    lines = ["work: a, then b | a | b | b / a | goal | met?", "--- | --- | --- | --- | --- | ---"]
    for work, a, b, goal in rows:
        met = ""
        if goal:
            met = b / a <= float(goal[2:]) if goal.startswith("<=") else b / a >= float(goal)
            met = "yes" if met else "no"
        cells = (work, f"{a * 1e3:.3f} ms", f"{b * 1e3:.3f} ms", f"{b / a:.2f}", goal, met)
        lines.append(" | ".join(cells))
    return "\n".join(lines)


def main(quick=False):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    S, T = (1024, 512) if quick else (4096, 4096)
    with torch.no_grad():
        rows, mha = bench_decode(S, repeat=5 if quick else 60)
        rows += bench_layer(S) + bench_blocks(T)
        print(table(rows))
        print(bench_bandwidth(S, mha))
    print(bench_memory(T))
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
