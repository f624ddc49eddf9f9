"""lib/attention.py against the loops of lib/reference.py, torch, and Hugging Face's Llama."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention

from lib import reference
from lib.attention import (
    Attention,
    attention,
    attention_weights,
    blockwise_attention,
    causal_bias,
    mask_to_bias,
    padding_bias,
    strided_bias,
    window_bias,
)
from lib.cache import Cache
from lib.positions import NoPosition, Rope, to_interleaved

DOUBLE = torch.float64
HEADS = [(6, 6), (6, 3), (6, 2), (6, 1), (1, 1)]
CUTS = {"prefill": [9], "steps": [1] * 9, "chunks": [4, 3, 2], "prefill and steps": [6, 1, 1, 1]}
each_heads = pytest.mark.parametrize(("H", "K"), HEADS)
each_T = pytest.mark.parametrize("T", [1, 4])  # a new token is computed on a path of its own


def some_qkv(B=2, H=6, K=2, T=4, S=7, D=5, dtype=DOUBLE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (B, H, T, D), (B, K, S, D), (B, K, S, D)
    return [torch.randn(shape, generator=generator, dtype=DOUBLE).to(dtype) for shape in shapes]


def some_layer(*sizes, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Attention(*sizes, **options).to(DOUBLE)


def some_x(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def close(ours, theirs, atol=1e-10):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@st.composite
def shapes(draw, causal=False):
    """B, H, K, T, S, D with K dividing H, and T <= S where the mask is causal."""
    K, G, S = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 9))
    T = draw(st.integers(1, S if causal else 9))
    B, D = draw(st.integers(1, 3)), draw(st.integers(1, 8))
    return {"B": B, "H": K * G, "K": K, "T": T, "S": S, "D": D}


# ---- Who may be seen ----------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 12))
def test_the_causal_bias_is_the_reference_mask(T, more):
    visible = causal_bias(T, T + more) == 0
    np.testing.assert_array_equal(visible.numpy(), reference.causal_mask(T, T + more))


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 12))
def test_window_and_stride_are_what_their_loops_say(T, more, n):
    S = T + more
    window, strided = window_bias(T, S, n) == 0, strided_bias(T, S, n) == 0
    for t, s in itertools.product(range(T), range(S)):
        back = S - T + t - s
        assert window[t, s] == (0 <= back < n)
        assert strided[t, s] == (0 <= back < n or (back >= 0 and back % n == 0))


def test_a_bias_is_zero_where_a_key_may_be_seen_and_minus_infinity_elsewhere():
    assert mask_to_bias(torch.tensor([True, False])).tolist() == [0, -math.inf]
    assert padding_bias(torch.tensor([[True, False]])).tolist() == [[[[0, -math.inf]]]]
    assert set(causal_bias(3, 5).unique().tolist()) == {0, -math.inf}


def test_two_layers_of_the_strided_pattern_reach_every_earlier_token():
    once = (strided_bias(16, 16, 4) == 0).float()
    assert ((once @ once > 0) == (causal_bias(16, 16) == 0)).all()


# ---- The equation -------------------------------------------------------------------------------


@each_heads
@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 7), (4, 7), (7, 7)])
def test_numpy_and_torch_agree_head_by_head(H, K, T, S):
    q, k, v = some_qkv(H=H, K=K, T=T, S=S)
    y, weights = attention(q, k, v, causal_bias(T, S)), attention_weights(q, k, causal_bias(T, S))
    mask = reference.causal_mask(T, S)
    for b, h in itertools.product(range(2), range(H)):
        one = [x.numpy() for x in (q[b, h], k[b, h // (H // K)], v[b, h // (H // K)])]
        close(y[b, h], torch.tensor(reference.attention(*one, mask)), 1e-14)
        close(weights[b, h], torch.tensor(reference.attention_weights(*one[:2], mask)), 1e-14)


def masks(B, H, T, S):
    """Every shape of bias that fits scores (B, H, T, S), some of it -inf."""
    noise, visible = some_x(B, H, T, S, seed=5), some_x(B, H, T, S, seed=6) > -0.5
    bias = noise + mask_to_bias(visible)
    for h, t, s in itertools.product((1, H), (1, T), (1, S)):
        for b in (1, B):
            yield bias[:b, :h, :t, :s]
        yield bias[0, :h, :t, :s]
    yield from (bias[0, 0], bias[0, 0, 0], causal_bias(T, S), window_bias(T, S, 2), 0.0, 1.5)


def torch_attention(q, k, v, mask):
    """torch's attention of H heads, key heads repeated in place (0 0 1 1): not its grouping."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask)


@each_heads
@pytest.mark.parametrize(("T", "S"), [(1, 7), (4, 7), (7, 7)])
def test_attention_is_torchs_with_any_bias(H, K, T, S):
    q, k, v = some_qkv(H=H, K=K, T=T, S=S)
    for bias in masks(2, H, T, S):
        full = torch.zeros(2, H, T, S, dtype=DOUBLE) + bias
        close(attention(q, k, v, bias), torch_attention(q, k, v, full))


@settings(deadline=None, max_examples=60)
@given(shapes(), st.integers(0, 99))
def test_attention_is_torchs_with_boolean_masks_of_any_shape(sizes, seed):
    q, k, v = some_qkv(**sizes, seed=seed)
    mask = some_x(sizes["B"], sizes["H"], sizes["T"], sizes["S"], seed=seed) > -0.3
    close(attention(q, k, v, mask_to_bias(mask)), torch_attention(q, k, v, mask))


@settings(deadline=None, max_examples=60)
@given(shapes(causal=True), st.integers(0, 99))
def test_attention_is_its_weights_times_the_values(sizes, seed):
    q, k, v = some_qkv(**sizes, seed=seed)
    bias = causal_bias(sizes["T"], sizes["S"])
    each_v = v.repeat_interleave(sizes["H"] // sizes["K"], dim=1)
    close(attention(q, k, v, bias), attention_weights(q, k, bias) @ each_v)


@each_T
def test_values_may_have_a_width_of_their_own(T):
    q, k, v = some_qkv(T=T)
    close(attention(q, k, v[..., :3]), attention(q, k, v)[..., :3])
    close(blockwise_attention(q, k, v[..., :3], block=2), blockwise_attention(q, k, v)[..., :3])


@settings(deadline=None, max_examples=40)
@given(shapes(), st.floats(1e-3, 1e3))
def test_rows_of_the_weights_are_probabilities(sizes, scale):
    q, k, _ = some_qkv(**sizes)
    weights = attention_weights(scale * q, k)
    assert (weights >= 0).all()
    close(weights.sum(-1), torch.ones_like(weights[..., 0]), 1e-12)


@each_heads
def test_permuted_tokens_give_permuted_outputs(H, K):
    x = some_x(2, 9, 12)
    layer = some_layer(12, H, K, causal=False)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    close(layer(x[:, order]), layer(x)[:, order])
    assert (layer(x[:, order]) - layer(x)).abs().max() > 0.01  # equivariant, not invariant


def test_the_order_of_the_keys_alone_does_not_matter():
    q, k, v = some_qkv()
    order = torch.tensor([3, 1, 0, 6, 2, 5, 4])
    close(attention(q, k[:, :, order], v[:, :, order]), attention(q, k, v))


@pytest.mark.parametrize("T", [1, 2])
def test_gradients_are_those_of_finite_differences(T):
    inputs = [x.requires_grad_() for x in some_qkv(B=1, H=2, K=1, T=T, S=3, D=2)]
    bias = some_x(2, T, 3).requires_grad_()
    assert torch.autograd.gradcheck(attention, (*inputs, bias))
    assert torch.autograd.gradcheck(attention_weights, (*inputs[:2], bias))
    assert torch.autograd.gradcheck(lambda q, k, v: blockwise_attention(q, k, v, block=2), inputs)


# ---- Nothing to see, half precision, extreme scores ---------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, DOUBLE])
@each_heads
@each_T
def test_a_query_with_nothing_to_see_gets_zeros_and_harmless_gradients(H, K, T, dtype):
    q, k, v = (x.requires_grad_() for x in some_qkv(H=H, K=K, T=T, dtype=dtype))
    blind = T // 2
    bias = torch.zeros(T, 7)
    bias[blind] = -math.inf
    y, weights = attention(q, k, v, bias), attention_weights(q, k, bias)
    assert not y[:, :, blind].any() and not weights[:, :, blind].any()
    assert y[:, :, :blind].all() and weights[:, :, :blind].all()
    for gradient in torch.autograd.grad(y.sum() + weights.square().sum(), (q, k, v)):
        assert gradient.isfinite().all()


def test_a_real_nan_is_not_hidden():
    q, k, v = some_qkv()
    q[0, 0, 0, 0] = math.nan
    assert attention(q, k, v)[0, 0, 0].isnan().all()
    assert attention_weights(q, k)[0, 0, 0].isnan().all()
    assert attention(q, k, v)[1].isfinite().all()


@pytest.mark.parametrize(
    ("dtype", "atol"),
    [(torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float32, 1e-6), (DOUBLE, 0)],
)
@each_T
def test_every_precision_stays_near_float64_and_keeps_its_dtype(dtype, atol, T):
    q, k, v = some_qkv(T=T, dtype=dtype)
    exact = [x.double() for x in (q, k, v)]
    bias = causal_bias(T, 7)
    ways = {
        "fused": lambda q, k, v: attention(q, k, v, bias),
        "weights": lambda q, k, v: attention_weights(q, k, bias),
        "blocks": lambda q, k, v: blockwise_attention(q, k, v, block=3),
    }
    for way in ways.values():
        assert way(q, k, v).dtype == dtype
        close(way(q, k, v).double(), way(*exact), atol)
    layer, x = Attention(8, 2).to(dtype), some_x(1, 3, 8).to(dtype)
    assert layer(x).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, DOUBLE])
def test_extreme_scores_do_not_overflow(dtype):
    q = torch.full((1, 1, 2, 64), 200.0, dtype=dtype)  # a score of 320,000, too much for float16
    q[:, :, 1] *= -1
    k = torch.stack([torch.full((64,), 200.0), torch.full((64,), -200.0)]).to(dtype)[None, None]
    v = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=dtype)[None, None]
    for y in (attention(q, k, v), blockwise_attention(q, k, v, causal=False, block=1)):
        assert torch.equal(y, v)
    for t in (0, 1):
        assert torch.equal(attention(q[:, :, t : t + 1], k, v), v[:, :, t : t + 1])
    assert torch.equal(attention_weights(q, k)[0, 0], torch.eye(2, dtype=dtype))


# ---- Block by block -----------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(shapes(causal=True), st.integers(1, 10), st.booleans(), st.floats(0.1, 100))
def test_blockwise_attention_is_exact_for_any_block(sizes, block, causal, scale):
    q, k, v = some_qkv(**sizes)
    bias = causal_bias(sizes["T"], sizes["S"]) if causal else 0.0
    close(blockwise_attention(scale * q, k, v, causal, block), attention(scale * q, k, v, bias))


def test_blockwise_attention_without_a_mask_takes_more_queries_than_keys():
    q, k, v = some_qkv(T=9, S=4)
    close(blockwise_attention(q, k, v, causal=False, block=2), attention(q, k, v))


def test_blockwise_attention_survives_scores_that_grow_from_block_to_block():
    q, v = torch.ones(1, 1, 1, 1, dtype=DOUBLE), some_x(1, 1, 6, 3)
    k = torch.tensor([-800.0, 0, 700, 701, 1500, 1500], dtype=DOUBLE).view(1, 1, 6, 1)
    for order in (slice(None), torch.arange(5, -1, -1)):
        y = blockwise_attention(q, k[:, :, order], v[:, :, order], block=1)
        close(y[0, 0, 0], v[0, 0, 4:].mean(0))


def test_blockwise_attention_never_makes_a_matrix_of_all_queries_and_keys(monkeypatch):
    seen = []
    exp = torch.Tensor.exp_
    monkeypatch.setattr(torch.Tensor, "exp_", lambda x: seen.append(tuple(x.shape)) or exp(x))
    q, k, v = some_qkv(T=40, S=40)
    blockwise_attention(q, k, v, block=8)
    assert max(shape[-2:] for shape in seen) == (8, 8)
    assert sum(shape[-1] == 8 for shape in seen) == 5 * 6 / 2  # blocks ahead of a query are skipped


# ---- The layer, against others ------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["self", "causal", "cross", "cross of one length", "padded"])
def test_the_layer_is_torchs_multihead_attention(kind, bias):
    theirs = torch.nn.MultiheadAttention(12, 3, bias=bias, batch_first=True, dtype=DOUBLE)
    ours = some_layer(12, 3, causal=kind == "causal", bias=bias)
    with torch.no_grad():
        for name, value in theirs.named_parameters():  # torch starts with biases of zero
            value.copy_(some_x(*value.shape, seed=len(name)))
        for i, linear in enumerate((ours.wq, ours.wk, ours.wv)):
            linear.weight.copy_(theirs.in_proj_weight.chunk(3)[i])
            if bias:
                linear.bias.copy_(theirs.in_proj_bias.chunk(3)[i])
        ours.wo.load_state_dict(theirs.out_proj.state_dict())
    S = {"cross": 8, "cross of one length": 5}.get(kind)
    x, context = some_x(2, 5, 12), S and some_x(2, S, 12, seed=3)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2]) if kind == "padded" else None
    y, weights = theirs(
        x,
        *[x if context is None else context] * 2,
        attn_mask=torch.ones(5, 5).triu(1).bool() if kind == "causal" else None,
        key_padding_mask=None if mask is None else ~mask,  # there True means hidden
        average_attn_weights=False,
    )
    close(ours(x, context=context, mask=mask), y)
    q, k, _, seen = ours.qkv(x, context=context, mask=mask)
    close(attention_weights(q, k, seen), weights)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("H", "K", "D"), [(6, 6, 4), (6, 2, 4), (6, 1, 4), (4, 2, 10)])
def test_the_layer_is_hugging_faces_llama_attention_without_its_rotation(H, K, D, bias):
    config = LlamaConfig(
        hidden_size=24, num_attention_heads=H, num_key_value_heads=K, head_dim=D,
        attention_bias=bias, attn_implementation="sdpa",
    )  # fmt: skip
    theirs = LlamaAttention(config, layer_idx=0).to(DOUBLE).eval()
    ours = some_layer(24, H, K, D, bias=bias)
    for name in "qkvo":
        getattr(ours, f"w{name}").load_state_dict(getattr(theirs, f"{name}_proj").state_dict())
    x = some_x(2, 7, 24)
    unrotated = torch.ones(1, 7, D, dtype=DOUBLE), torch.zeros(1, 7, D, dtype=DOUBLE)
    close(ours(x), theirs(x, position_embeddings=unrotated, attention_mask=None)[0])
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    both = mask[:, None, None, :] & torch.ones(7, 7).tril().bool()
    close(ours(x, mask=mask), theirs(x, position_embeddings=unrotated, attention_mask=both)[0])


@pytest.mark.parametrize("K", [6, 3, 2, 1])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS.keys())
def test_shared_heads_are_hugging_faces_llama_attention_with_both_caches(cuts, K):
    config = LlamaConfig(
        hidden_size=24, num_attention_heads=6, num_key_value_heads=K, head_dim=4,
        attn_implementation="sdpa",
    )  # fmt: skip
    theirs = LlamaAttention(config, layer_idx=0).to(DOUBLE).eval()
    ours = some_layer(24, 6, K, 4, position=Rope(4))
    for name, heads in (("q", 6), ("k", K), ("v", None), ("o", None)):
        weight = getattr(theirs, f"{name}_proj").weight
        weight = to_interleaved(weight, heads) if heads else weight  # their pairs: (i, i + D/2)
        getattr(ours, f"w{name}").load_state_dict({"weight": weight})
    x, cache, other_cache = some_x(2, 9, 24), Cache(9), DynamicCache()
    angles = torch.arange(9, dtype=DOUBLE)[:, None] * torch.tensor([1.0, 0.01], dtype=DOUBLE)
    angles = torch.cat((angles, angles), -1)[None]  # (1, S, D)
    for part, at in zip(x.split(cuts, dim=1), torch.arange(9).split(cuts)):
        seen = (torch.arange(at[-1] + 1) <= at[:, None])[None, None]
        turns = angles[:, at].cos(), angles[:, at].sin()
        y, _ = theirs(part, turns, seen, past_key_values=other_cache)
        close(ours(part, cache=cache), y)
    kept = other_cache.layers[0]
    assert cache.nbytes == kept.keys.nbytes + kept.values.nbytes  # K heads, not 6


@each_heads
@pytest.mark.parametrize(("T", "S"), [(9, 9), (3, 9), (1, 9)], ids=["prefill", "chunk", "step"])
def test_shared_heads_are_torchs_and_tiling_them_is_something_else(T, S, H, K):
    q, k, v = some_qkv(H=H, K=K, T=T, S=S)
    y, seen = attention(q, k, v, causal_bias(T, S)), causal_bias(T, S) == 0
    close(y, torch_attention(q, k, v, seen))
    if T == 1:  # ours are rows there; for more it would be the same call
        close(y, scaled_dot_product_attention(q, k, v, seen, enable_gqa=True))
    G = H // K
    tiled = (x.repeat(1, G, 1, 1) for x in (k, v))  # 0 1 0 1
    apart = (y - scaled_dot_product_attention(q, *tiled, seen)).abs().amax((0, 2, 3))  # (H,)
    heads = torch.arange(H)
    assert torch.equal(apart > 0.1, heads // G != heads % K)


def test_grouped_heads_are_full_heads_with_repeated_keys_and_values():
    grouped, full = some_layer(12, 6, 2), some_layer(12, 6)
    full.wq, full.wo = grouped.wq, grouped.wo
    for ours, theirs in ((grouped.wk, full.wk), (grouped.wv, full.wv)):
        each = ours.weight.view(2, 2, 12).repeat_interleave(3, dim=0)  # (K, D, C) -> (H, D, C)
        theirs.weight = torch.nn.Parameter(each.reshape(12, 12))
    x = some_x(2, 5, 12)
    close(grouped(x), full(x))


def test_with_values_of_one_a_map_of_identity_and_no_mask_every_token_gets_the_mean():
    layer = some_layer(4, 1, causal=False)
    with torch.no_grad():
        layer.wq.weight.zero_()
        for linear in (layer.wv, layer.wo):
            linear.weight.copy_(torch.eye(4))
    x = some_x(1, 3, 4)
    close(layer(x), x.mean(1, keepdim=True).expand_as(x))


# ---- The layer and what its arguments promise ---------------------------------------------------


def test_a_causal_layer_never_looks_ahead():
    layer, x = some_layer(12, 6, 2), some_x(1, 6, 12)
    for t in range(6):
        changed = x.clone()
        changed[:, t] += 1
        difference = (layer(changed) - layer(x)).abs().amax(-1)[0]
        assert not difference[:t].any() and difference[t:].all()


@pytest.mark.parametrize("causal", [False, True])
def test_hidden_tokens_change_nothing_wherever_they_stand(causal):
    layer, x = some_layer(12, 6, 2, causal=causal), some_x(2, 6, 12)
    mask = torch.tensor(
        [[False, False, True, True, True, True], [True, True, True, True, False, False]]
    )
    changed = torch.where(mask[..., None], x, 100.0)
    close(layer(changed, mask=mask)[mask], layer(x, mask=mask)[mask])
    alone = layer(x[:1, 2:]), layer(x[1:, :4])  # as if the padding had never been there
    close(layer(x, mask=mask)[mask], torch.cat([y[0] for y in alone]))


def test_a_layer_with_everything_hidden_gives_the_bias_of_its_last_map():
    layer = some_layer(12, 3, bias=True)
    y = layer(some_x(1, 4, 12), mask=torch.zeros(1, 4, dtype=torch.bool))
    close(y, layer.wo.bias.expand(1, 4, 12))


@pytest.mark.parametrize(("T", "S"), [(1, 5), (3, 5), (5, 3)])
def test_cross_attention_sees_all_of_the_context_causal_or_not(T, S):
    x, context = some_x(2, T, 12), some_x(2, S, 12, seed=2)
    causal, free = some_layer(12, 6, 2), some_layer(12, 6, 2, causal=False)
    close(causal(x, context=context), free(x, context=context))
    assert causal(x, context=context).shape == (2, T, 12)
    order = torch.randperm(S, generator=torch.Generator().manual_seed(3))
    close(free(x, context=context[:, order]), free(x, context=context))
    mask = torch.arange(S).expand(2, S) < S - 1
    close(free(x, context=context, mask=mask), free(x, context=context[:, :-1]))


@each_heads
@pytest.mark.parametrize("padded", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS.keys())
def test_the_cache_never_changes_the_result(cuts, padded, H, K):
    layer, x = some_layer(12, H, K), some_x(2, 9, 12)
    mask = (torch.arange(9) >= torch.tensor([[0], [3]])) if padded else None  # on the left
    cache, parts, start = Cache(9), [], 0
    with torch.no_grad():
        for n in cuts:
            seen = None if mask is None else mask[:, : start + n]
            parts.append(layer(x[:, start : start + n], mask=seen, cache=cache))
            start += n
        close(torch.cat(parts, 1), layer(x, mask=mask), 1e-12)
    assert cache.length == 9
    assert cache.nbytes == 2 * 2 * K * 9 * (12 // H) * 8  # tensors, batch, heads, tokens, width


class Turn(NoPosition):
    """A rotation by one radian a position: what RoPE does to a single pair."""

    def rotate(self, x, positions):
        c, s = torch.cos(positions.double())[:, None], torch.sin(positions.double())[:, None]
        a, b = x.chunk(2, -1)
        return torch.cat([a * c - b * s, a * s + b * c], -1)


class Slope(NoPosition):
    """Another slope for each of 6 heads, as ALiBi has it."""

    def bias(self, q_positions, k_positions):
        slopes = torch.arange(1.0, 7.0, device=q_positions.device)[:, None, None]
        return -slopes * (q_positions[:, None] - k_positions)


@pytest.mark.parametrize("position", [Turn(), Slope()], ids=["rotate", "bias"])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS.keys())
def test_positions_go_on_where_the_cache_stands(cuts, position):
    layer, x = some_layer(12, 6, 2, position=position), some_x(2, 9, 12)
    cache, parts = Cache(9), []
    with torch.no_grad():
        for part in x.split(cuts, dim=1):
            parts.append(layer(part, cache=cache))
        close(torch.cat(parts, 1), layer(x), 1e-12)
        assert (layer(x) - some_layer(12, 6, 2)(x)).abs().max() > 1e-3


def test_a_rotation_is_applied_to_queries_and_keys_before_the_scores_and_not_to_values():
    layer, plain, x = some_layer(12, 6, position=Turn()), some_layer(12, 6), some_x(1, 5, 12)
    (q, k, v, _), (q0, k0, v0, _) = layer.qkv(x), plain.qkv(x)
    close(q, Turn().rotate(q0, torch.arange(5)))
    close(k, Turn().rotate(k0, torch.arange(5)))
    assert torch.equal(v, v0)
    close(q.norm(dim=-1), q0.norm(dim=-1))


def test_a_bias_of_positions_reaches_the_scores_of_its_own_head():
    layer, x = some_layer(12, 6, 2, position=Slope()), some_x(1, 5, 12)
    q, k, _, bias = layer.qkv(x)
    weights, plain = attention_weights(q, k, bias), attention_weights(q, k, causal_bias(5, 5))
    # two weights' ratio changes by exp(slope · how much farther back one of them is)
    ratio = (weights[0, :, 4, 3] / weights[0, :, 4, 4]) / (plain[0, :, 4, 3] / plain[0, :, 4, 4])
    close(ratio, torch.exp(-torch.arange(1.0, 7.0, dtype=DOUBLE)), 1e-7)


def test_cross_attention_uses_no_positions():
    x, context = some_x(1, 3, 12), some_x(1, 5, 12, seed=2)
    for position in (Turn(), Slope()):
        layer = some_layer(12, 6, position=position)
        close(layer(x, context=context), some_layer(12, 6)(x, context=context))


class SinkAndWindow(Cache):
    """Returns only the first token and the newest two, and says so in `positions`."""

    @property
    def positions(self):
        every = super().positions
        return every[(every < 1) | (every >= self.length - 2)]

    def append(self, *new):
        every = super().append(*new)
        return tuple(x[..., self.positions, :] for x in every)


@pytest.mark.parametrize("padded", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("position", [NoPosition(), Turn(), Slope()])
def test_a_cache_may_return_fewer_tokens_if_it_says_which(position, padded):
    layer, x = some_layer(12, 6, 2, position=position), some_x(2, 7, 12)
    mask = torch.arange(7) >= torch.tensor([[0], [int(padded)]])
    cache = SinkAndWindow(7)
    sink = mask_to_bias((torch.arange(7) == 0) | (window_bias(7, 7, 2) == 0))
    with torch.no_grad():
        steps = [layer(x[:, t : t + 1], mask=mask[:, : t + 1], cache=cache) for t in range(7)]
        q, k, v, bias = layer.qkv(x, mask=mask)
        y = attention(q, k, v, bias + sink).transpose(1, 2).flatten(2)
        close(torch.cat(steps, 1), layer.wo(y))


class EveryOther(Cache):
    """Returns all it has, and shows every query every other token before it."""

    def visible(self, q_positions):
        back = q_positions[:, None] - self.positions
        return (back >= 0) & (back % 2 == 0)


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS.keys())
def test_a_cache_decides_what_a_query_sees(cuts):
    layer, x, cache = some_layer(12, 6, 2, position=Slope()), some_x(2, 9, 12), EveryOther(9)
    with torch.no_grad():
        parts = [layer(part, cache=cache) for part in x.split(cuts, dim=1)]
        q, k, v, bias = layer.qkv(x)
        odd = (torch.arange(9)[:, None] - torch.arange(9)) % 2 == 1
        y = attention(q, k, v, bias + mask_to_bias(~odd)).transpose(1, 2).flatten(2)
        close(torch.cat(parts, 1), layer.wo(y))


def test_the_layer_leaves_its_inputs_alone_and_answers_the_same_twice():
    layer, x, mask = some_layer(12, 3), some_x(1, 4, 12), torch.ones(1, 4, dtype=torch.bool)
    before = x.clone()
    assert torch.equal(layer(x, mask=mask), layer(x, mask=mask))
    assert torch.equal(x, before) and mask.all()


def test_the_maps_have_the_sizes_of_their_heads_and_the_biases_asked_for():
    layer = Attention(12, 6, 2, head_dim=5, bias=True, out_bias=False)
    sizes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    assert sizes == {
        "wq.weight": (30, 12), "wk.weight": (10, 12), "wv.weight": (10, 12), "wo.weight": (12, 30),
        "wq.bias": (30,), "wk.bias": (10,), "wv.bias": (10,),
    }  # fmt: skip
    assert Attention(12, 6, bias=True).wo.bias is not None
    assert [n for n, _ in Attention(12, 6, out_bias=True).named_parameters() if "bias" in n] == [
        "wo.bias"
    ]


def test_everything_stays_on_the_device_of_its_input():
    layer, cache = Attention(12, 6, 2, position=Slope()).to("meta"), Cache(8)
    x, mask = torch.ones(2, 4, 12, device="meta"), torch.ones(2, 4, device="meta").bool()
    assert layer(x, mask=mask).is_meta and layer(x, context=x).is_meta
    with torch.no_grad():
        assert layer(x, mask=mask, cache=cache).is_meta and cache.positions.is_meta
        assert layer(x[:, :1], cache=cache).is_meta
    q, k, v = (t.to("meta") for t in some_qkv(T=7))
    assert attention(q, k, v, causal_bias(7, 7)).is_meta
    assert attention_weights(q, k, causal_bias(7, 7)).is_meta
    assert blockwise_attention(q, k, v, block=3).is_meta


def test_a_layer_can_be_built_without_memory():
    with torch.device("meta"):
        assert Attention(8192, 64, 8).wk.weight.shape == (1024, 8192)


# ---- What does not fit --------------------------------------------------------------------------

Q, KEY = torch.ones(2, 6, 4, 5), torch.ones(2, 2, 7, 5)
X, LAYER = torch.ones(2, 4, 12), Attention(12, 6)
WRONG_KIND = {
    "q must be a tensor of floating point numbers: got torch.int64": lambda: attention(
        Q.long(), KEY, KEY
    ),
    "k must be a tensor of floating point numbers: got list": lambda: attention_weights(Q, [[1.0]]),
    "v must be a tensor of floating point numbers: got ndarray": lambda: attention(
        Q, KEY, KEY.numpy()
    ),
    "q, k and v must have one dtype: q has torch.float32, k torch.float64": lambda: attention(
        Q, KEY.double(), KEY
    ),
    "bias is added to scores: got torch.bool; mask_to_bias(mask) makes one": lambda: attention(
        Q, KEY, KEY, torch.ones(4, 7).bool()
    ),
    "bias is added to scores: got torch.bool": lambda: attention_weights(
        Q, KEY, torch.ones(4, 7).bool()
    ),
    "S must be an integer, 1 or more: got 3.5": lambda: causal_bias(2, 3.5),
    "mask must be a boolean tensor, True = may be seen: got torch.int64": lambda: padding_bias(
        torch.ones(2, 3).long()
    ),
    "True = may be seen: got list": lambda: mask_to_bias([True]),
    "n_heads must be an integer, 1 or more: got 2.0": lambda: Attention(64, 2.0),
    "d_model must be an integer, 1 or more: got inf": lambda: Attention(math.inf, 2),
    "position must be a scheme of lib.positions: got 'rope'": lambda: Attention(
        64, 2, position="rope"
    ),
    "x must be a tensor of floating point numbers: got torch.int64": lambda: LAYER(
        torch.ones(2, 4).long()
    ),
    "context must be a tensor of floating point numbers: got torch.int32": lambda: LAYER(
        X, context=X.int()
    ),
    "x is torch.float64, the layer's weights are torch.float32": lambda: LAYER(X.double()),
    "mask must be a boolean tensor, True = may be seen: got torch.float32": lambda: LAYER(
        X, mask=torch.ones(2, 4)
    ),
}
WRONG_SIZE = {
    "q must be (B, H, T, D): got shape (6, 4, 5)": lambda: attention(Q[0], KEY, KEY),
    "k (B, K, S, D) and v (B, K, S, D) must fit: got (2, 6, 4, 5), (2, 2, 7, 4)": lambda: (
        attention_weights(Q, KEY[..., :4])
    ),
    "must fit: got (1, 6, 4, 5), (2, 2, 7, 5), (2, 2, 7, 5)": lambda: attention(Q[:1], KEY, KEY),
    "must fit: got (2, 6, 4, 5), (2, 2, 7, 5), (2, 2, 6, 5)": lambda: blockwise_attention(
        Q, KEY, KEY[:, :, :6]
    ),
    "key heads must divide query heads: 2 does not divide 5": lambda: attention(Q[:, :5], KEY, KEY),
    "key heads must divide query heads: 0 does not divide 6": lambda: attention(
        Q, KEY[:, :0], KEY[:, :0]
    ),
    "bias must fit scores (B, H, T, S) = (2, 6, 4, 7): got (4, 6)": lambda: attention(
        Q, KEY, KEY, torch.zeros(4, 6)
    ),
    "bias must fit scores (B, H, T, S) = (2, 6, 4, 7): got (1, 1, 1, 1, 1)": lambda: (
        attention_weights(Q, KEY, torch.zeros(1, 1, 1, 1, 1))
    ),
    "got T = 5 and S = 3": lambda: causal_bias(5, 3),
    "got T = 6 and S = 3": lambda: window_bias(6, 3, 2),
    "the last of the S keys, T <= S: got T = 7 and S = 4": lambda: blockwise_attention(
        KEY, Q[:, :2], Q[:, :2]
    ),
    "T must be 1 or more: got 0": lambda: causal_bias(0, 3),
    "window must be 1 or more: got 0": lambda: window_bias(3, 3, 0),
    "stride must be 1 or more: got -1": lambda: strided_bias(3, 3, -1),
    "block must be 1 or more: got 0": lambda: blockwise_attention(Q, KEY, KEY, block=0),
    "mask must be (B, S): got shape (2, 1, 3)": lambda: padding_bias(torch.ones(2, 1, 3).bool()),
    "n_heads must divide d_model, unless head_dim is given: 3 does not divide 64": lambda: (
        Attention(64, 3)
    ),
    "n_kv_heads must divide n_heads: 3 does not divide 8": lambda: Attention(64, 8, 3),
    "n_kv_heads must divide n_heads: 8 does not divide 4": lambda: Attention(64, 4, 8),
    "n_heads must be 1 or more: got 0": lambda: Attention(64, 0),
    "n_kv_heads must be 1 or more: got 0": lambda: Attention(64, 8, 0),
    "n_kv_heads must be 1 or more: got -2": lambda: Attention(64, 8, -2),
    "head_dim must be 1 or more: got 0": lambda: Attention(64, 2, head_dim=0),
    "x must be (B, T, 12) and context (B, S, 12): got (2, 4, 11)": lambda: LAYER(
        torch.ones(2, 4, 11)
    ),
    "x must be (B, T, 12) and context (B, S, 12): got (4, 12)": lambda: LAYER(X[0]),
    "x must be (B, T, 12) and context (B, S, 12): got (2, 4, 12) and (3, 4, 12)": lambda: LAYER(
        X, context=torch.ones(3, 4, 12)
    ),
    "mask must be (B, S) = (2, 4), cached tokens included: got (2, 3)": lambda: LAYER(
        X, mask=torch.ones(2, 3).bool()
    ),
    "mask must be (B, S) = (2, 4), cached tokens included: got (4, 4)": lambda: LAYER(
        X, mask=torch.ones(4, 4).bool()
    ),
    "a cache serves causal self-attention only, but context brings its own keys": lambda: LAYER(
        X, context=X, cache=Cache(4)
    ),
    "a cache serves causal self-attention only, but causal is False": lambda: Attention(
        12, 6, causal=False
    )(X, cache=Cache(4)),
}


@pytest.mark.parametrize(("message", "call"), WRONG_KIND.items())
def test_the_wrong_kind_of_thing_is_refused_by_name(message, call):
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(("message", "call"), WRONG_SIZE.items())
def test_what_does_not_fit_is_refused_with_both_values(message, call):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    "wrong",
    [
        {"x": torch.ones(2, 2, 12)},
        {"x": torch.ones(1, 1, 12)},
        {"x": torch.ones(2, 1, 11)},
        {"mask": torch.ones(2, 1).bool()},
        {"mask": torch.ones(2, 4)},
    ],
    ids=["too long", "another batch", "another width", "a mask too short", "a mask of numbers"],
)
def test_a_call_that_is_refused_leaves_the_cache_as_it_was(wrong):
    layer, cache, x = some_layer(12, 3), Cache(4), some_x(2, 4, 12)
    with torch.no_grad():
        layer(x[:, :3], cache=cache)
        wrong = {"x": x[:, 3:]} | {n: w.double() if n == "x" else w for n, w in wrong.items()}
        with pytest.raises((TypeError, ValueError)):
            layer(wrong.pop("x"), **wrong, cache=cache)
        assert cache.length == 3
        close(layer(x[:, 3:], cache=cache), layer(x)[:, 3:])


@pytest.mark.parametrize("cached", [False, True])
def test_the_layer_works_under_autocast(cached):
    layer, x = some_layer(12, 6, 2, position=Rope(2)).float(), 3 * some_x(2, 5, 12).float()

    def read():
        if not cached:
            return layer(x)
        cache = Cache(5)
        return torch.cat([layer(part, cache=cache) for part in (x[:, :4], x[:, 4:])], 1)

    exact = read()
    with torch.autocast("cpu", torch.bfloat16):
        y = read()
        again = layer(y)  # what comes in is half as wide as the weights
    for ours, theirs in ((y, exact), (again, layer(exact))):
        off = (ours.float() - theirs).abs().max() / theirs.abs().max()
        assert ours.dtype == torch.bfloat16 and 0 < off < 0.03
