"""Attention beside torch's own, and decoding with shared heads: one process, one thread, wall time.

    python -m benchmarks attention                  everything, about a minute
    python -m benchmarks.bench_attention --quick    small sizes, to see that it runs

Every row is the best of many repetitions, and what should agree is compared. Memory is what a fresh
process needs on top of its inputs.
"""

import multiprocessing
import resource
import sys
import time
from functools import partial

import torch
from torch.nn.functional import scaled_dot_product_attention

from lib.attention import Attention, attention, attention_weights, blockwise_attention, causal_bias
from lib.cache import Cache

MB = 1_000_000
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
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
            for way, function in ways.items():
                time_now = seconds(function, q, k, v, repeat=3)
                best[way, name] = min(best.get((way, name), time_now), time_now)
    rows = []
    for (way, name), ours in best.items():
        if name in GOALS:
            goal = GOALS[name] if way == "fused (ours)" else ""
            rows.append(
                (f"decode at S = {S}, {way}: {name} over MHA", ours, best[way, "MHA"], goal)
            )
    return rows, best["fused (ours)", "MHA"]


def bench_layer(S, repeat=30):
    """The same through the layer and its cache, its four maps included."""
    best, layers = {}, {name: Attention(768, 12, K) for name, K in VARIANTS.items()}
    x = torch.randn(1, 1, 768)
    for name, layer in layers.items():
        cache = Cache(S)
        cache.append(*inputs(1, S - 1 - repeat, K=VARIANTS[name])[1:])
        best[name] = seconds(lambda: layer(x, cache=cache), repeat=repeat)  # noqa: B023
    return [(f"layer at S = {S}: {n} over MHA", best[n], best["MHA"], "") for n in GOALS]


def bench_bandwidth(S, mha):
    """Bytes of keys and values a second, beside a matrix of the same bytes times a vector."""
    matrix, vector = torch.randn(2 * 12 * S // 32, 64 * 32), torch.randn(64 * 32)
    matvec = seconds(torch.mv, matrix, vector, repeat=60)
    gb = matrix.nbytes / 1e9
    return (
        f"bandwidth: MHA decode at S = {S} reads {gb / mha:.1f} GB/s, "
        f"matrix times vector {gb / matvec:.1f} GB/s"
    )


def bench_blocks(T, repeat=5):
    """Causal attention over T tokens; the goal is a ceiling on our time over the fused kernel's."""
    q, k, v = inputs(T, T)
    fused = partial(scaled_dot_product_attention, q, k, v, is_causal=True)
    apart = (blockwise_attention(q, k, v) - fused()).abs().max().item()
    note = "" if apart < 1e-5 else "; OUTPUTS DIFFER"
    theirs, ours = (
        seconds(fused, repeat=repeat),
        seconds(blockwise_attention, q, k, v, repeat=repeat),
    )
    with_bias = seconds(attention, q, k, v, causal_bias(T, T), repeat=repeat)
    return [
        (f"blockwise at T = {T} over torch's fused kernel{note}", theirs, ours, "<=1.8"),
        (f"attention with a causal bias at T = {T} over the same", theirs, with_bias, ""),
    ]


def extra_memory(way, T):
    """Peak bytes that one call needs on top of its inputs; to be called in a fresh process."""
    torch.set_num_threads(1)
    function = {
        "naive": lambda q, k, v: explicit(q, k, v, causal_bias(*q.shape[2:3] * 2)),
        "blockwise": blockwise_attention,
        "fused": partial(scaled_dot_product_attention, is_causal=True),
    }[way]
    with torch.no_grad():
        function(*inputs(256, 256))  # whatever is loaded at the first call
        q, k, v = inputs(T, T)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        function(q, k, v)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * RSS_UNIT


def bench_memory(T):
    """Return lines on the memory of each way; the goal for blockwise is a 20th of naive."""
    found = {}
    for way in ("naive", "blockwise", "fused"):
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            found[way] = fresh.apply(extra_memory, (way, T))
    sizes = ", ".join(f"{way} {size / MB:.0f} MB" for way, size in found.items())
    share = found["naive"] / found["blockwise"]
    met = "yes" if share >= 20 else "no"
    return f"memory at T = {T}: {sizes}; naive over blockwise {share:.0f}, goal 20, met: {met}"


def table(rows):
    """Return rows of (work, our seconds, their seconds, goal) as a table."""
    lines = ["work | ours | theirs | ratio | goal | met?", "--- | --- | --- | --- | --- | ---"]
    for work, ours, theirs, goal in rows:
        ratio = theirs / ours
        met = ""
        if goal:
            met = ratio <= float(goal[2:]) if goal.startswith("<=") else ratio >= float(goal)
            met = "yes" if met else "no"
        cells = (work, f"{ours * 1e3:.3f} ms", f"{theirs * 1e3:.3f} ms", f"{ratio:.2f}", goal, met)
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
