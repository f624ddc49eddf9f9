"""lib/mla.py against Hugging Face's DeepSeek attention, and against attention over rebuilt keys."""

import itertools
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    DynamicCache,
)
from transformers.models.deepseek_v2.modeling_deepseek_v2 import (
    DeepseekV2Attention,
    DeepseekV2RotaryEmbedding,
)
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RotaryEmbedding,
)

from lib import reference
from lib.accounting import kv_cache_bytes
from lib.attention import Attention, attention_weights
from lib.cache import Cache, Int8Cache, PagedCache, PagePool, SlidingWindowCache
from lib.config import MODELS, ModelConfig
from lib.generate import generate
from lib.mla import MLA, softmax_scale
from lib.positions import Rope
from lib.transformer import Transformer, attention_maps, from_deepseek

DOUBLE = torch.float64
C, H, R, NOPE, P, V = 42, 6, 14, 8, 4, 10  # all different
YARN = {"kind": "yarn", "factor": 40.0, "original_max_seq_len": 64, "mscale": 1.0,
        "mscale_all_dim": 1.0}  # fmt: skip
SCALINGS = {
    "no scaling": None,
    "V3's YaRN": YARN,
    "V2's YaRN": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
    "two mscales": YARN | {"mscale": 0.5, "mscale_all_dim": 1.2},
    "no mscale": {k: v for k, v in YARN.items() if "mscale" not in k},
}
each_order = pytest.mark.parametrize("absorb", [False, True], ids=["naive", "absorbed"])
each_rank = pytest.mark.parametrize("q_lora_rank", [None, 12], ids=["wq", "latent queries"])
CHUNKS = {"prefill": [9], "chunks": [4, 3, 2], "decode": [1] * 9, "prefill, then decode": [6, 1, 2]}
each_chunks = pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)


def some_x(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def some_layer(*sizes, q_lora_rank=12, seed=0, **options):
    """Norms start at one: other weights show whether they act, and where."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = MLA(*(sizes or (C, H, R, NOPE, P, V)), q_lora_rank, **options).to(DOUBLE)
        for name, p in layer.named_parameters():
            if "norm" in name:
                nn.init.normal_(p, mean=1.0, std=0.3)
            else:
                nn.init.normal_(p, std=p.shape[1] ** -0.5)
    return layer


def in_chunks(layer, x, chunks, cache, mask=None, **options):
    ends = list(itertools.accumulate(chunks))
    parts = [
        layer(part, cache=cache, mask=None if mask is None else mask[:, :end], **options)
        for part, end in zip(x.split(chunks, dim=1), ends)
    ]
    return torch.cat(parts, dim=1)


def close(ours, theirs, atol=1e-10):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


# ---- Against Hugging Face -----------------------------------------------------------------------

KINDS = {
    "V3": (DeepseekV3Config, DeepseekV3Attention, DeepseekV3RotaryEmbedding),
    "V2": (DeepseekV2Config, DeepseekV2Attention, DeepseekV2RotaryEmbedding),
}


def their_config(kind, sizes, q_lora_rank, scaling, **more):
    d_model, n_heads, rank, nope, rope, v = sizes
    their_scaling = {"rope_type": "default", "rope_theta": 10_000.0}
    if scaling is not None:
        their_scaling = {("rope_type" if k == "kind" else k): v for k, v in scaling.items()}
        their_scaling["original_max_position_embeddings"] = their_scaling.pop(
            "original_max_seq_len"
        )
        their_scaling["rope_theta"] = 10_000.0
    return KINDS[kind][0](
        hidden_size=d_model, num_attention_heads=n_heads, num_key_value_heads=n_heads,
        kv_lora_rank=rank, qk_nope_head_dim=nope, qk_rope_head_dim=rope, v_head_dim=v,
        q_lora_rank=q_lora_rank, rope_parameters=their_scaling, max_position_embeddings=2560,
        head_dim=rope, attn_implementation="sdpa", **more,
    )  # fmt: skip


class WideNorm(nn.Module):
    """Their norm without its detour through float32."""

    def __init__(self, theirs):
        super().__init__()
        self.weight, self.eps = theirs.weight, theirs.variance_epsilon

    def forward(self, x):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weight


def their_layer(kind, ours, sizes, q_lora_rank, scaling, dtype):
    """Their layer with our weights, as a function of x, the position of its first token, a cache.

    Their norms and angles pass through float32. In float64 they are replaced by wide ones, but for
    V2, which also rotates in float32.
    """
    config = their_config(kind, sizes, q_lora_rank, scaling)
    layer = KINDS[kind][1](config, layer_idx=0).to(dtype).eval()
    state = from_deepseek(layer.state_dict())
    assert {n: w.shape for n, w in state.items()} == {
        n: w.shape for n, w in ours.state_dict().items()
    }
    with torch.no_grad():
        for name, weight in state.items():  # a view of their weight
            weight.copy_(ours.state_dict()[name])
    if dtype == DOUBLE:
        for name in ("q_a_layernorm", "kv_a_layernorm"):
            if getattr(layer, name) is not None:
                setattr(layer, name, WideNorm(getattr(layer, name)))
    table = KINDS[kind][2](config)

    def run(x, start=0, cache=None):
        T, S = x.shape[1], start + x.shape[1]
        at = torch.arange(start, S)[None]
        embeddings = table(x, at)
        if dtype == DOUBLE and kind == "V3":
            turns = Rope(sizes[4], scaling=scaling).turns(at[0], torch.complex128)
            embeddings = turns.real.repeat(1, 1, 2), turns.imag.repeat(1, 1, 2)
        mask = torch.ones(T, S).tril(S - T).bool()[None, None]
        y, _ = layer(
            hidden_states=x, position_embeddings=embeddings, attention_mask=mask,
            past_key_values=cache,
        )  # fmt: skip
        return y

    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS)
@each_rank
def test_the_layer_is_deepseeks_whatever_the_chunks_and_the_order(kind, scaling, q_lora_rank):
    sizes, x = (96, 6, 32, 16, 8, 20), some_x(2, 40, 96).float()
    ours = some_layer(*sizes, q_lora_rank=q_lora_rank, scaling=scaling).float()
    with torch.no_grad():
        ours.wo.weight *= 10 / ours(x).abs().mean()
        theirs = their_layer(kind, ours, sizes, q_lora_rank, scaling, torch.float32)
        y, cache = theirs(x), DynamicCache()
        starts = [0, 30, 36, 37, 38, 39, 40]
        stepped = [theirs(x[:, a:b], a, cache) for a, b in itertools.pairwise(starts)]
        close(torch.cat(stepped, 1), y, 5e-5)
        for absorb in (False, True):
            close(ours(x, absorb=absorb), y, 5e-5)
            chunks = [b - a for a, b in itertools.pairwise(starts)]
            close(in_chunks(ours, x, chunks, Cache(40), absorb=absorb), y, 5e-5)


@pytest.mark.parametrize("kind", KINDS)
@each_rank
def test_in_float64_the_layer_is_deepseeks_as_far_as_theirs_is(kind, q_lora_rank):
    sizes, x = (C, H, R, NOPE, P, V), some_x(2, 9, C)
    ours = some_layer(*sizes, q_lora_rank=q_lora_rank, scaling=YARN)
    theirs = their_layer(kind, ours, sizes, q_lora_rank, YARN, DOUBLE)
    for absorb in (False, True):
        close(ours(x, absorb=absorb), theirs(x), 1e-12 if kind == "V3" else 1e-6)


def test_what_is_cached_is_what_they_cache_but_for_the_order_of_the_rotary_pairs():
    sizes, x = (C, H, R, NOPE, P, V), some_x(2, 9, C).float()
    ours = some_layer(*sizes).float()
    their_cache, cache = DynamicCache(), Cache(9)
    their_layer("V3", ours, sizes, 12, None, torch.float32)(x, cache=their_cache)
    ours(x, cache=cache)
    latent, k_rope = their_cache.layers[0].keys, their_cache.layers[0].values
    (rows,) = cache.append(torch.empty(2, 1, 0, R + P))
    split = torch.tensor([0, 2, 1, 3])  # theirs come de-interleaved
    close(rows, torch.cat((latent, k_rope[..., split]), -1), 1e-5)


@pytest.mark.parametrize(
    ("kind", "build"), [("V3", DeepseekV3ForCausalLM), ("V2", DeepseekV2ForCausalLM)]
)
@each_rank
def test_a_dense_deepseek_model_loads_and_says_the_same(kind, build, q_lora_rank):
    sizes, scaling = (48, 4, 16, 8, 4, 12), YARN
    more = {"vocab_size": 60, "num_hidden_layers": 3, "intermediate_size": 80,
            "first_k_dense_replace": 3}  # fmt: skip
    theirs = build(their_config(kind, sizes, q_lora_rank, scaling, **more)).eval()
    config = ModelConfig(
        vocab_size=60, n_layers=3, d_model=48, n_heads=4, d_ff=80, norm_eps=1e-6, kv_lora_rank=16,
        qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=12, q_lora_rank=q_lora_rank,
        scaling=scaling,
    )  # fmt: skip
    ours = Transformer(config)
    with torch.no_grad():
        for p in theirs.parameters():
            nn.init.normal_(p, mean=float(p.ndim == 1), std=0.2)
        ours.load_state_dict(from_deepseek(theirs.state_dict()))
        ids = torch.randint(60, (2, 20), generator=torch.Generator().manual_seed(3))
        close(ours(ids), theirs(ids).logits, 1e-4 * float(theirs(ids).logits.abs().max()))
        caches = [Cache(20) for _ in range(3)]
        steps = [ours(part, caches=caches) for part in ids.split([11, 8, 1], 1)]
        close(torch.cat(steps, 1), ours(ids), 1e-4 * float(ours(ids).abs().max()))


# ---- Against attention over keys and values that are written out --------------------------------


def written_out(layer, x, visible=None, theta=10_000.0, m=1.0):
    """The same layer the long way: one token, one head at a time, no tensor of `lib.mla` used."""
    w = {name: p.detach().numpy() for name, p in layer.named_parameters()}

    def norm(z, weight):
        return z / (z @ z / len(z) + 1e-6) ** 0.5 * weight

    def turn(z, position):
        z = z.copy()
        for i in range(0, P, 2):
            angle = position * theta ** (-i / P)
            cos, sin = math.cos(angle), math.sin(angle)
            z[i], z[i + 1] = cos * z[i] - sin * z[i + 1], sin * z[i] + cos * z[i + 1]
        return z

    out = torch.zeros_like(x)
    for b, x_b in enumerate(x.numpy()):
        q, k, v = ([[None] * len(x_b) for _ in range(H)] for _ in range(3))
        for t, x_t in enumerate(x_b):
            if "wq.weight" in w:
                queries = w["wq.weight"] @ x_t
            else:
                queries = w["wq_b.weight"] @ norm(w["wq_a.weight"] @ x_t, w["q_norm.weight"])
            a = w["wkv_a.weight"] @ x_t
            c, k_rope = norm(a[:R], w["kv_norm.weight"]), turn(a[R:], t)
            for h in range(H):
                q_h = queries[h * (NOPE + P) : (h + 1) * (NOPE + P)]
                w_h = w["wkv_b.weight"][h * (NOPE + V) : (h + 1) * (NOPE + V)]
                q[h][t] = [*q_h[:NOPE], *turn(q_h[NOPE:], t)]
                k[h][t] = [*(w_h[:NOPE] @ c), *k_rope]
                v[h][t] = w_h[NOPE:] @ c
        mask = reference.causal_mask(len(x_b), len(x_b))
        if visible is not None:
            mask = mask & visible[b].numpy()
        heads = [reference.attention(m**2 * torch.tensor(q[h]), k[h], v[h], mask) for h in range(H)]
        out[b] = torch.cat([torch.tensor(y) for y in heads], 1) @ layer.wo.weight.detach().T
    return out


@each_order
@each_rank
@each_chunks
def test_the_layer_is_attention_over_keys_and_values_written_out(absorb, q_lora_rank, chunks):
    layer, x = some_layer(q_lora_rank=q_lora_rank), some_x(2, 9, C)
    exact = written_out(layer, x)
    close(layer(x, absorb=absorb), exact)
    close(in_chunks(layer, x, chunks, Cache(12), absorb=absorb), exact)


@each_order
def test_another_theta_and_the_scale_of_yarn_too(absorb):
    x = some_x(1, 6, C)
    close(some_layer(theta=50.0)(x, absorb=absorb), written_out(some_layer(), x, theta=50.0))
    short = {"kind": "yarn", "factor": 1.5, "original_max_seq_len": 10**6, "mscale_all_dim": 3.0,
             "mscale": 3.0}  # fmt: skip
    m = 0.1 * 3 * math.log(1.5) + 1  # no pair turns less than beta_fast times: frequencies stay
    close(some_layer(scaling=short)(x, absorb=absorb), written_out(some_layer(), x, m=m))


@each_order
@each_chunks
def test_hidden_keys_are_hidden_in_every_chunk(absorb, chunks):
    layer, x = some_layer(), some_x(3, 9, C)
    mask = torch.tensor([[True] * 9, [False] * 4 + [True] * 5, [True] * 3 + [False] * 6])
    exact = written_out(layer, x, mask)
    assert not exact[1, :4].any()  # nothing to see: zeros
    close(layer(x, mask=mask, absorb=absorb), exact)
    close(in_chunks(layer, x, chunks, Cache(9), mask, absorb=absorb), exact)


@each_order
def test_the_rebuilt_keys_and_values_go_through_torchs_own_attention(absorb):
    layer, x = some_layer(), some_x(2, 9, C)
    where = torch.arange(9)
    k, v = layer.keys_values(layer.rows(x, where))
    q = torch.cat(layer.queries(x, where), -1)
    assert (q.shape, k.shape, v.shape) == ((2, H, 9, NOPE + P), (2, H, 9, NOPE + P), (2, H, 9, V))
    y = scaled_dot_product_attention(q, k, v, is_causal=True)
    close(layer(x, absorb=absorb), layer.wo(y.transpose(1, 2).reshape(2, 9, H * V)))


# ---- Two orders, one result ---------------------------------------------------------------------


@st.composite
def some_sizes(draw):
    d_model, n_heads, rank, nope, rope, v = (draw(st.integers(1, 7)) for _ in range(6))
    return d_model, n_heads, rank, nope, 2 * rope, v


@settings(deadline=None, max_examples=80)
@given(
    some_sizes(), st.none() | st.integers(1, 5), st.lists(st.integers(1, 4), min_size=1, max_size=4)
)
def test_naive_is_absorbed_for_any_sizes_chunks_and_padding(sizes, q_lora_rank, chunks):
    layer, S = some_layer(*sizes, q_lora_rank=q_lora_rank, scaling=YARN), sum(chunks)
    x, mask = some_x(2, S, sizes[0]), some_x(2, S, seed=4) > -0.8
    naive = layer(x, mask=mask, absorb=False)
    close(layer(x, mask=mask), naive)
    for absorb in (False, True):
        close(in_chunks(layer, x, chunks, Cache(S), mask, absorb=absorb), naive)


def test_values_may_be_wider_than_keys():
    layer, x = some_layer(C, H, R, 2, 2, 9), some_x(2, 5, C)
    close(layer(x), layer(x, absorb=False))


def test_the_order_may_change_from_one_step_to_the_next():
    layer, x, cache = some_layer(), some_x(2, 9, C), Cache(9)
    y = [layer(x[:, a:b], cache=cache, absorb=a % 2 == 0) for a, b in ((0, 5), (5, 6), (6, 9))]
    close(torch.cat(y, 1), layer(x))


def test_both_orders_have_the_same_weights_and_gradients():
    layer, x = some_layer(), some_x(2, 9, C)
    maps, gradients = [], []
    for absorb in (False, True):
        q, k, v, bias = layer.qkv(x, absorb=absorb)
        maps.append(attention_weights(q, k, bias))
        assert v.shape == k.shape
        loss = layer(x, absorb=absorb).square().sum()
        gradients.append(torch.autograd.grad(loss, list(layer.parameters())))
    close(*maps)
    for naive, absorbed in zip(*gradients):
        assert naive.abs().max() > 1e-3
        close(absorbed, naive, 1e-10 * float(naive.abs().max()) + 1e-10)


def test_absorbed_makes_no_keys_and_reads_one_row_for_all_heads():
    layer, x = some_layer(), some_x(2, 9, C)
    q, k, v, _ = layer.qkv(x)
    assert k is v and k.shape == (2, 1, 9, R + P) and q.shape == (2, H, 9, R + P)
    cache = Cache(9)
    layer(x[:, :8], cache=cache)
    (held,) = cache.append(torch.empty(2, 1, 0, R + P, dtype=DOUBLE))
    _, k, v, _ = layer.qkv(x[:, 8:], cache=cache)
    assert k.data_ptr() == v.data_ptr() == held.data_ptr()  # the cache itself, not a copy


def test_the_parts_of_a_head_are_w_uk_and_then_w_uv():
    layer = some_layer()
    w_uk, w_uv = layer.up_maps()
    assert w_uk.shape == (H, NOPE, R) and w_uv.shape == (H, V, R)
    close(torch.cat((w_uk, w_uv), 1).flatten(0, 1), layer.wkv_b.weight.detach(), 0)


@each_order
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float16, 3e-3), (torch.bfloat16, 2e-2), (torch.float32, 2e-6)]
)
def test_every_precision_stays_near_float64_and_keeps_its_dtype(absorb, dtype, atol):
    x = some_x(2, 9, C).to(dtype)
    narrow, wide = some_layer().to(dtype), some_layer()
    wide.load_state_dict(narrow.state_dict())
    y, exact = narrow(x, absorb=absorb).detach(), wide(x.double()).detach()
    assert y.dtype == dtype
    close(y.double(), exact, atol * float(exact.abs().max()))


@each_order
def test_no_token_looks_ahead_and_every_token_looks_back(absorb):
    layer, x = some_layer(), some_x(1, 6, C)
    for t in range(6):
        changed = x.clone()
        changed[:, t] += 1
        moved = (layer(changed, absorb=absorb) - layer(x, absorb=absorb)).abs().amax(-1)[0]
        assert (moved[:t] == 0).all() and (moved[t:] > 1e-6).all()


def test_scores_depend_on_distances_alone():
    layer, x = some_layer(), some_x(1, 5, C)
    for absorb in (False, True):
        cache = Cache(50)
        layer(some_x(1, 30, C, seed=9), cache=cache)  # x comes later, and sees only itself
        mask = torch.tensor([[False] * 30 + [True] * 5])
        close(layer(x, cache=cache, mask=mask, absorb=absorb), layer(x))


# ---- What is cached -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_heads", [1, 6, 24])
@each_order
def test_a_token_leaves_r_plus_p_numbers_whatever_the_heads(n_heads, absorb):
    layer, cache = some_layer(C, n_heads, R, NOPE, P, V), Cache(9)
    layer(some_x(2, 9, C), cache=cache, absorb=absorb)
    assert cache.nbytes == 2 * 9 * (R + P) * 8


def paged(n=9):
    return PagedCache(PagePool(n, 2))


@each_order
@each_chunks
def test_paged_is_plain(absorb, chunks):
    layer, x = some_layer(), some_x(2, 9, C)
    close(in_chunks(layer, x, chunks, paged(), absorb=absorb), layer(x))


def test_two_sequences_share_the_pages_of_their_prefix():
    layer, x, other = some_layer(), some_x(1, 9, C), some_x(1, 2, C, seed=5)
    one = paged()
    layer(x[:, :7], cache=one)
    two = PagedCache(one.pool, prefix=one)
    close(layer(other, cache=two), layer(torch.cat((x[:, :7], other), 1))[:, 7:])
    close(layer(x[:, 7:], cache=one), layer(x)[:, 7:])
    assert one.table[:3] == two.table[:3]


@each_order
@each_chunks
@pytest.mark.parametrize("sinks", [0, 2])
def test_a_window_is_the_same_layer_under_a_mask(absorb, chunks, sinks):
    layer, x = some_layer(), some_x(2, 9, C)
    t = torch.arange(9)
    back = t[:, None] - t
    visible = (back < 4) | (t < sinks)
    exact = written_out(layer, x, visible.expand(2, 9, 9))
    close(in_chunks(layer, x, chunks, SlidingWindowCache(4, sinks), absorb=absorb), exact)
    mask = some_x(2, 9, seed=7) > -0.5
    exact = written_out(layer, x, visible & mask[:, None])
    close(in_chunks(layer, x, chunks, SlidingWindowCache(4, sinks), mask, absorb=absorb), exact)


@each_order
def test_int8_rounds_rows_and_nothing_else(absorb):
    layer, x, cache = some_layer(), some_x(2, 9, C), Int8Cache(9)
    y = in_chunks(layer, x, [5, 1, 3], cache, absorb=absorb)
    error = (y - layer(x)).abs().max() / layer(x).abs().max()
    assert 1e-6 < error < 0.03
    (rounded,) = cache.append(torch.empty(2, 1, 0, R + P, dtype=DOUBLE))
    k, v = layer.keys_values(rounded)
    q = torch.cat(layer.queries(x, torch.arange(9)), -1)
    exact = scaled_dot_product_attention(q, k, v, is_causal=True)
    close(y, layer.wo(exact.transpose(1, 2).flatten(2)))


def test_deepseeks_rows_have_576_numbers():
    c = MODELS["deepseek-v3"]
    widths = c.kv_lora_rank, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
    rows = MLA(8, 2, *widths).rows(torch.zeros(1, 3, 8), torch.arange(3))  # heads do not matter
    assert rows.shape == (1, 1, 3, 576)
    assert 2 * c.n_layers * rows[0, 0, 0].numel() == kv_cache_bytes(c, 1) == 70_272


def test_deepseeks_scales_are_those_that_were_published():
    v3, v2 = MODELS["deepseek-v3"].scaling, MODELS["deepseek-v2"].scaling
    assert round(softmax_scale(192, v3), 5) == 0.13523
    assert round(softmax_scale(192, v2), 5) == 0.11472
    assert (
        softmax_scale(192)
        == softmax_scale(192, {"kind": "linear", "factor": 40})
        == 1 / math.sqrt(192)
    )


# ---- Inside a model -----------------------------------------------------------------------------

MODEL = ModelConfig(
    vocab_size=50, n_layers=2, d_model=C, n_heads=H, d_ff=60, kv_lora_rank=R, qk_nope_head_dim=NOPE,
    qk_rope_head_dim=P, v_head_dim=V, q_lora_rank=12, scaling=YARN, theta=500.0, norm_eps=1e-3,
)  # fmt: skip


def test_a_model_with_a_latent_rank_is_built_of_this_layer_with_all_its_settings():
    model = Transformer(MODEL)
    for block in model.blocks:
        layer, alone = block.attention, MLA(C, H, R, NOPE, P, V, 12, 500.0, YARN, 1e-3)
        assert isinstance(layer, MLA)
        alone.load_state_dict(layer.state_dict())
        x = some_x(1, 9, C).float()
        assert torch.equal(layer(x), alone(x))
        assert layer.q_norm.eps == layer.kv_norm.eps == 1e-3


def test_a_model_generates_with_a_cache_what_it_generates_without():
    model = Transformer(MODEL).to(DOUBLE)
    ids = torch.randint(50, (2, 5), generator=torch.Generator().manual_seed(0))
    with_cache = generate(model, ids, 12, temperature=0)
    assert torch.equal(with_cache, generate(model, ids, 12, use_cache=False, temperature=0))
    assert with_cache[:, 5:].unique().numel() > 2


def test_a_models_maps_are_the_weights_of_its_layers():
    model = Transformer(MODEL)
    maps = attention_maps(model, torch.arange(6)[None])
    assert [tuple(m.shape) for m in maps] == [(1, H, 6, 6)] * 2
    for m in maps:
        close(m.sum(-1), torch.ones(1, H, 6), 1e-6)
        assert not m.triu(1).any() and m.tril().count_nonzero() == H * 21


# ---- Grouped heads are a special case, and not the other way round ------------------------------


def latent_from_grouped(gqa, K, D):
    """An MLA without norm that computes what a GQA layer without position computes.

    Its latent is the keys and values of all K heads side by side; each head's W_UK and W_UV select
    those of its group. The rotary part is silent.
    """
    n_heads, d_model = gqa.wq.out_features // D, gqa.wq.in_features
    layer = some_layer(d_model, n_heads, 2 * K * D, D, 2, D, q_lora_rank=None)
    layer.kv_norm = nn.Identity()
    with torch.no_grad():
        q = torch.zeros(n_heads, D + 2, d_model, dtype=DOUBLE)
        q[:, :D] = gqa.wq.weight.view(n_heads, D, d_model) * math.sqrt((D + 2) / D)
        layer.wq.weight.copy_(q.flatten(0, 1))
        layer.wkv_a.weight[:-2] = torch.cat((gqa.wk.weight, gqa.wv.weight))
        select = torch.eye(2 * K * D, dtype=DOUBLE).view(2, K, D, 2 * K * D)  # keys, then values
        each = select.repeat_interleave(n_heads // K, dim=1).transpose(0, 1)  # (H, 2, D, R)
        layer.wkv_b.weight.copy_(each.reshape(-1, 2 * K * D))
        layer.wo.weight.copy_(gqa.wo.weight)
    return layer


@pytest.mark.parametrize("K", [6, 3, 2, 1])
@each_order
def test_grouped_heads_are_a_latent_cache_whose_up_maps_select(K, absorb):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        gqa = Attention(C, 6, K, head_dim=5).to(DOUBLE)
    x = some_x(2, 9, C)
    close(latent_from_grouped(gqa, K, 5)(x, absorb=absorb), gqa(x))


def test_no_grouped_layer_with_as_many_numbers_cached_has_as_many_different_keys_and_values():
    # In GQA the keys of all heads are made of K·D numbers, and so are the values: half the cache
    # each. Here both are made of the same R numbers, and all of them serve both.
    def ranks(layer, n_heads):
        rows = some_x(1, 1, 50, layer.wkv_b.in_features + 2, seed=3)
        k, v = layer.keys_values(rows)
        k, v = (z[0].transpose(0, 1).flatten(1) for z in (k[..., :5], v))  # (S, H·D)
        return [int(torch.linalg.matrix_rank(z)) for z in (k, v, torch.cat((k, v), 1))]

    gqa = latent_from_grouped(Attention(C, 6, 2, head_dim=5).to(DOUBLE), 2, 5)  # caches 20 numbers
    mla = some_layer(C, 6, 20, 5, 2, 5)
    assert ranks(gqa, 6) == [10, 10, 20]
    assert ranks(mla, 6) == [20, 20, 20]


# ---- What is refused ----------------------------------------------------------------------------

SIZES = {"d_model": C, "n_heads": H, "kv_lora_rank": R, "qk_nope_head_dim": NOPE,
         "qk_rope_head_dim": P, "v_head_dim": V}  # fmt: skip


@pytest.mark.parametrize("name", [*SIZES, "q_lora_rank"])
def test_sizes_that_are_no_sizes_are_refused_by_name(name):
    for wrong, error, why in (
        (0, ValueError, "must be 1 or more: got 0"),
        (-2, ValueError, "must be 1 or more: got -2"),
        (4.0, TypeError, "must be an integer, 1 or more: got 4.0"),
        (True, TypeError, "must be an integer, 1 or more: got True"),
        (math.inf, TypeError, "must be an integer, 1 or more: got inf"),
        ("4", TypeError, "must be an integer, 1 or more: got '4'"),
    ):
        with pytest.raises(error, match=re.escape(f"{name} {why}")):
            MLA(**{**SIZES, name: wrong})


def test_features_that_find_no_partner_are_refused():
    with pytest.raises(
        ValueError, match="qk_rope_head_dim must be even, features turn in pairs: got 3"
    ):
        MLA(**{**SIZES, "qk_rope_head_dim": 3})
    with pytest.raises(ValueError, match="theta must be a finite number, 1 or more: got 0"):
        MLA(**SIZES, theta=0)
    with pytest.raises(ValueError, match="scaling of kind 'yarn' needs"):
        MLA(**SIZES, scaling={"kind": "yarn", "factor": 40})


def filled(*tensors):
    cache = Cache(9)
    cache.append(*tensors)
    return cache


SOME = torch.zeros(2, 4, C)
WRONG_INPUTS = {
    "no tensor": ({"x": [1.0]}, TypeError, "x must be a tensor of floating point num"),
    "integers": ({"x": torch.zeros(2, 4, C).long()}, TypeError, "point numbers: got torch.int64"),
    "no batch": ({"x": SOME[0]}, ValueError, f"x must be (B, T, {C}): got (4, {C})"),
    "no token": ({"x": SOME[:, :0]}, ValueError, f"x must be (B, T, {C}): got (2, 0, {C})"),
    "too narrow": ({"x": SOME[..., :7]}, ValueError, f"x must be (B, T, {C}): got (2, 4, 7)"),
    "wide numbers": ({"x": SOME.double()}, TypeError,
                     "x is torch.float64, the layer's weights are torch.float32"),
    "mask of numbers": ({"mask": torch.ones(2, 4)}, TypeError, "mask must be a boolean tensor"),
    "long mask": ({"mask": torch.ones(2, 5).bool()}, ValueError,
                  "mask must be (B, S) = (2, 4), cached tokens included: got (2, 5)"),
    "mask without what is cached": (
        {"mask": torch.ones(2, 4).bool(), "cache": filled(torch.zeros(2, 1, 3, R + P))},
        ValueError, "mask must be (B, S) = (2, 7), cached tokens included: got (2, 4)"),
    "keys and values": ({"cache": filled(torch.zeros(2, 6, 3, 8), torch.zeros(2, 6, 3, 8))},
                        ValueError, "the cache holds 2 tensors: got 1"),
    "rows of another width": (
        {"cache": filled(torch.zeros(2, 1, 3, 30))}, ValueError,
        f"the cache holds (2, 1, T, 30) of torch.float32 on cpu: got (2, 1, T, {R + P}) of torch"),
    "another batch": (
        {"cache": filled(torch.zeros(3, 1, 3, R + P))}, ValueError,
        f"the cache holds (3, 1, T, {R + P}) of torch.float32 on cpu: got (2, 1, T, {R + P})"),
    "no room": ({"cache": filled(torch.zeros(2, 1, 6, R + P))}, ValueError,
                "the cache is full: 6 tokens held and 4 new are more than its max_seq_len 9"),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG_INPUTS.values(), ids=WRONG_INPUTS)
@each_order
def test_what_does_not_fit_is_refused_and_changes_nothing(wrong, error, message, absorb):
    wrong, layer = dict(wrong), MLA(**SIZES)
    x, cache = wrong.pop("x", SOME), wrong.get("cache")
    before = getattr(cache, "length", None)
    with pytest.raises(error, match=re.escape(message)):
        layer(x, absorb=absorb, **wrong)
    assert getattr(cache, "length", None) == before


def test_gradients_do_not_flow_into_a_cache_and_do_flow_without_one():
    layer, x = some_layer(), some_x(1, 5, C).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[:, -1].sum(), x)
    assert gradient[:, 0].any()
    cache = Cache(5)
    layer(x[:, :4], cache=cache)
    (gradient,) = torch.autograd.grad(layer(x[:, 4:], cache=cache).sum(), x)
    assert not gradient[:, :4].any() and gradient[:, 4].any()
