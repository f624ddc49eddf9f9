"""RoPE beside Hugging Face's Llama: one process, one thread, wall time.

    python -m benchmarks positions

Queries and keys of 12 heads of 64, the tables of cosines and sines made before on both sides. What
should agree is compared, through the permutation between the two layouts.
"""

import time

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from lib.positions import Rope

HEADS, HEAD_DIM = 12, 64
GOAL = "3x, aim 8x"  # at T = 1024


def seconds(function, repeat=60):
    """The least wall time of `repeat` calls."""
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def compare(T):
    """Print our time and theirs for queries and keys of T tokens."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, HEADS, T, HEAD_DIM)
    where, rope = torch.arange(T), Rope(HEAD_DIM)
    config = LlamaConfig(hidden_size=HEADS * HEAD_DIM, num_attention_heads=HEADS)
    cos, sin = LlamaRotaryEmbedding(config)(q, where[None])
    order = torch.cat((torch.arange(0, HEAD_DIM, 2), torch.arange(1, HEAD_DIM, 2)))
    theirs = apply_rotary_pos_emb(q[..., order], k[..., order], cos, sin)
    for x, y in zip((q, k), theirs):
        # their angles are float32: off by some 1e-7 of the position
        torch.testing.assert_close(
            rope.rotate(x, where)[..., order], y, atol=2e-6 + 3e-7 * T, rtol=0
        )
    ours = seconds(lambda: (rope.rotate(q, where), rope.rotate(k, where)))
    peer = seconds(lambda: apply_rotary_pos_emb(q, k, cos, sin))
    goal = f"   goal {GOAL}" if T == 1024 else ""
    print(f"T {T:5}: ours {1e3 * ours:7.3f} ms, Hugging Face {1e3 * peer:7.3f} ms, "
          f"{peer / ours:4.1f}x{goal}")  # fmt: skip


def main():
    torch.set_num_threads(1)
    for T in (1, 128, 1024, 4096):
        compare(T)


if __name__ == "__main__":
    main()
