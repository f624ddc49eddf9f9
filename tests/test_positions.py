"""lib/positions.py against Hugging Face's models, the papers' equations, and itself in pieces."""

import copy
import math
import re
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, PhiConfig, T5Config, modeling_rope_utils
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gptj import modeling_gptj
from transformers.models.llama import modeling_llama
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from transformers.models.phi import modeling_phi
from transformers.models.t5.modeling_t5 import T5Attention

from lib.attention import Attention, attention_weights, causal_bias
from lib.cache import Cache
from lib.positions import (
    Alibi,
    Learned,
    NoPosition,
    RelativeBias,
    Rope,
    Sinusoidal,
    rope_frequencies,
    to_half_split,
    to_interleaved,
    yarn_mscale,
)

DOUBLE = torch.float64
YARN = {"kind": "yarn", "factor": 8.0, "original_max_seq_len": 64}
BANDS = {"kind": "llama3", "factor": 8.0, "original_max_seq_len": 64}


def normal(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(ours, theirs, atol=1e-10):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.fixture
def theirs_in_float64(monkeypatch):
    """Hugging Face fixes float32 for angles: give its modules a torch whose float is float64."""
    wide = types.ModuleType("torch")
    wide.__getattr__ = lambda name: getattr(torch, name)
    wide.float = wide.float32 = DOUBLE
    for module in (modeling_rope_utils, modeling_llama, modeling_phi):
        monkeypatch.setattr(module, "torch", wide)


# ---- None ---------------------------------------------------------------------------------------


def test_no_position_leaves_embeddings_queries_and_keys_as_they_are():
    x, q, positions = torch.randn(2, 3, 8), torch.randn(2, 4, 3, 2), torch.arange(3)
    assert NoPosition().embed(x, positions) is x
    assert NoPosition().rotate(q, positions) is q


def test_no_position_adds_nothing_to_the_scores():
    scores = torch.randn(2, 4, 3, 5)
    bias = NoPosition().bias(torch.arange(2, 5), torch.arange(5))
    assert torch.equal(scores + bias, scores)


@pytest.mark.parametrize("scheme", [NoPosition(), Sinusoidal(8), Alibi(2), Rope(4)])
def test_only_tables_that_are_learned_are_saved(scheme):
    if isinstance(scheme, Rope):
        scheme.turns(torch.arange(9))
    assert not list(scheme.parameters()) and not scheme.state_dict()


@pytest.mark.parametrize(
    ("scheme", "place"),
    [
        (Learned(8, 4), "embed"),
        (Sinusoidal(4), "embed"),
        (Rope(4), "rotate"),
        (Alibi(2), "bias"),
        (RelativeBias(2), "bias"),
    ],
)
def test_a_scheme_acts_in_one_place_and_inherits_the_other_two(scheme, place):
    x, q, positions = normal(1, 3, 4), normal(1, 2, 3, 4), torch.arange(3)
    acts = {
        "embed": scheme.embed(x, positions) is not x,
        "rotate": scheme.rotate(q, positions) is not q,
        "bias": not isinstance(scheme.bias(positions, positions), float),
    }
    assert [name for name, is_so in acts.items() if is_so] == [place]


# ---- Added to the embeddings --------------------------------------------------------------------


def test_learned_adds_the_row_of_each_position_and_only_those_rows_get_gradients():
    scheme, x = Learned(6, 4), torch.zeros(2, 3, 4)
    positions = torch.tensor([5, 0, 2])
    out = scheme.embed(x, positions)
    assert torch.equal(out, scheme.table.weight[[5, 0, 2]].expand(2, 3, 4))
    out.sum().backward()
    assert scheme.table.weight.grad.abs().sum(-1).tolist() == [8, 0, 8, 0, 0, 8]


@pytest.mark.parametrize("C", [2, 6, 64])
def test_sinusoidal_is_the_equation_of_the_paper(C):
    vectors = Sinusoidal(C).vectors(torch.arange(50))
    for p in (0, 1, 7, 49):
        for i in range(C // 2):
            angle = p / 10000 ** (2 * i / C)
            assert vectors[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert vectors[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)


@pytest.mark.parametrize("C", [4, 10, 64])
def test_the_other_layout_sines_first_is_the_same_numbers_permuted(C):
    theirs = MarianSinusoidalPositionalEmbedding(40, C).create_weight().double()
    ours = Sinusoidal(C).vectors(torch.arange(40))
    permutation = torch.cat((torch.arange(0, C, 2), torch.arange(1, C, 2)))
    close(ours[:, permutation], theirs, atol=1e-7)  # theirs is rounded to float32
    assert not torch.allclose(ours, theirs, atol=0.1)


def test_sinusoidal_is_added_in_the_type_of_the_embeddings():
    positions, C = torch.tensor([3, 100_000]), 8
    for dtype in (torch.float32, torch.bfloat16, DOUBLE):
        out = Sinusoidal(C).to(dtype).embed(torch.zeros(1, 2, C, dtype=dtype), positions)
        assert out.dtype == dtype
        assert torch.equal(out[0], Sinusoidal(C).vectors(positions).to(dtype))


# ---- Added to the scores ------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("n_buckets", "max_distance"), [(32, 128), (8, 20), (16, 1000), (4, 5)])
def test_t5_buckets_are_hugging_faces(causal, n_buckets, max_distance):
    distances = torch.arange(-1500, 1501)
    ours = RelativeBias(2, n_buckets, max_distance, causal=causal).buckets(distances)
    theirs = T5Attention._relative_position_bucket(-distances, not causal, n_buckets, max_distance)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("causal", [True, False])
def test_the_t5_bias_is_hugging_faces_with_the_same_table(causal):
    config = T5Config(d_model=8, num_heads=3, d_kv=4, is_decoder=causal)
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    ours = RelativeBias(3, causal=causal)
    ours.table.load_state_dict(theirs.relative_attention_bias.state_dict())
    bias = ours.bias(torch.arange(200), torch.arange(200))
    assert torch.equal(bias, theirs.compute_bias(200, 200)[0])


@pytest.mark.parametrize("H", range(1, 41))
def test_alibi_slopes_are_blooms_and_mpts_for_every_number_of_heads(H):
    bloom = build_alibi_tensor(torch.ones(1, 2), H, torch.float32)[:, 0, 1]
    mpt = -build_mpt_alibi_tensor(H, 2)[:, 0, 0]
    close(Alibi(H).slopes, bloom, atol=1e-7)
    close(Alibi(H).slopes, mpt, atol=1e-7)


def test_attention_with_alibi_weighs_as_with_blooms_bias():
    H, T = 6, 9
    q, k = normal(1, H, T, 4), normal(1, H, T, 4, seed=1)
    bloom = build_alibi_tensor(torch.ones(1, T), H, DOUBLE)[None]  # (1, H, 1, T): by key alone
    ours = Alibi(H).bias(torch.arange(T), torch.arange(T))
    causal = causal_bias(T, T)
    close(attention_weights(q, k, ours + causal), attention_weights(q, k, bloom + causal), 1e-7)


def test_alibi_costs_its_slope_a_step_in_both_directions_and_nothing_at_home():
    bias = Alibi(2, slopes=[1, 0.5]).bias(torch.tensor([2, 3]), torch.arange(5))
    assert bias[0].tolist() == [[-2, -1, 0, -1, -2], [-3, -2, -1, 0, -1]]
    assert torch.equal(bias[1], bias[0] / 2)


def test_slopes_of_ones_own_are_copied_and_stay_float32():
    mine = torch.tensor([1.0, 2.0])
    scheme = Alibi(2, slopes=mine).to(torch.bfloat16)
    mine[0] = 7
    assert scheme.slopes.tolist() == [1, 2] and scheme.slopes.dtype == torch.float32


# ---- RoPE ---------------------------------------------------------------------------------------


def half_split_order(dim):
    return torch.cat((torch.arange(0, dim, 2), torch.arange(1, dim, 2)))


def llama(D=16, H=6, K=2, theta=10_000.0, rope=None, **options):
    rope = {"rope_type": "default", **(rope or {}), "rope_theta": theta}
    return LlamaConfig(
        hidden_size=24, num_attention_heads=H, num_key_value_heads=K, head_dim=D,
        max_position_embeddings=64, rope_parameters=rope, attn_implementation="sdpa", **options,
    )  # fmt: skip


def to_theirs(scaling):
    """Our mapping under Hugging Face's names."""
    if scaling is None:
        return {}
    names = {"kind": "rope_type", "original_max_seq_len": "original_max_position_embeddings"}
    if scaling["kind"] == "llama3":
        scaling = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, **scaling}
    return {names.get(name, name): value for name, value in scaling.items()}


SCALINGS = [
    {"kind": "linear", "factor": 4.0},
    {"kind": "linear", "factor": 1.0},
    YARN,
    {**YARN, "factor": 40.0, "original_max_seq_len": 4096},
    {**YARN, "beta_fast": 16.0, "beta_slow": 2.0},
    {**YARN, "mscale": 0.707, "mscale_all_dim": 0.9},
    {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
    {**YARN, "attention_factor": 1.25},
    BANDS,
    {**BANDS, "original_max_seq_len": 8192},
    {**BANDS, "low_freq_factor": 2.0, "high_freq_factor": 7.0},
]
each_scaling = pytest.mark.parametrize("scaling", SCALINGS, ids=str)
each_dim = pytest.mark.parametrize(("dim", "theta"), [(8, 100.0), (64, 10_000.0), (128, 5e5)])


def their_frequencies(dim, theta, scaling):
    config = llama(dim, theta=theta, rope=to_theirs(scaling))
    return modeling_rope_utils.ROPE_INIT_FUNCTIONS[scaling["kind"]](config, None)


@each_dim
@each_scaling
def test_frequencies_are_hugging_faces_formulas_in_float64_within_1e_9(
    dim, theta, scaling, theirs_in_float64
):
    frequencies, factor = rope_frequencies(dim, theta, scaling)
    theirs, their_factor = their_frequencies(dim, theta, scaling)
    assert theirs.dtype == frequencies.dtype == DOUBLE
    close(frequencies, theirs, atol=1e-12)
    assert factor == pytest.approx(their_factor, abs=1e-12)


@each_dim
@each_scaling
def test_frequencies_are_hugging_faces_float32_as_far_as_float32_goes(dim, theta, scaling):
    frequencies, _ = rope_frequencies(dim, theta, scaling)
    theirs = their_frequencies(dim, theta, scaling)[0]
    assert theirs.dtype == torch.float32
    torch.testing.assert_close(frequencies, theirs.double(), rtol=2e-6, atol=0)


@each_dim
def test_ntk_is_hugging_faces_dynamic_kind_at_one_length(dim, theta, theirs_in_float64):
    config = llama(dim, theta=theta, rope={"rope_type": "dynamic", "factor": 3.0})
    theirs, _ = modeling_rope_utils.ROPE_INIT_FUNCTIONS["dynamic"](config, None, seq_len=128)
    # their base grows by 3 · 128 / 64 - (3 - 1) = 4
    frequencies, factor = rope_frequencies(dim, theta, {"kind": "ntk", "factor": 4.0})
    close(frequencies, theirs, atol=1e-12)
    assert factor == 1.0


@each_dim
def test_plain_frequencies_are_the_formula_of_the_paper(dim, theta):
    frequencies, factor = rope_frequencies(dim, theta)
    expected = [theta ** (-2 * i / dim) for i in range(dim // 2)]
    close(frequencies, torch.tensor(expected, dtype=DOUBLE), atol=1e-12)
    assert factor == 1.0 and frequencies.dtype == DOUBLE


def test_what_each_scaling_does_to_the_first_and_the_last_pair():
    plain, _ = rope_frequencies(64)
    for kind, first in (("linear", 4.0), ("ntk", 1.0), ("yarn", 1.0), ("llama3", 1.0)):
        scaling = {"kind": kind, "factor": 4.0}
        if kind in ("yarn", "llama3"):
            scaling["original_max_seq_len"] = 2048
        ratio = plain / rope_frequencies(64, scaling=scaling)[0]
        close(ratio[[0, -1]], torch.tensor([first, 4.0], dtype=DOUBLE))
        assert (ratio.diff() >= -1e-12).all()  # what turns slower is stretched no less


def test_a_length_at_which_every_pair_turns_often_leaves_yarn_nothing_to_stretch():
    close(
        rope_frequencies(8, 100.0, {**YARN, "original_max_seq_len": 10**9})[0],
        rope_frequencies(8, 100.0)[0],
    )


def test_yarn_multiplies_cosine_and_sine_so_that_a_score_gets_its_factor_squared():
    q, p = normal(1, 1, 5, 8), torch.arange(5)
    rope = Rope(8, scaling=YARN)
    assert rope.factor == pytest.approx(0.1 * math.log(8) + 1) == yarn_mscale(8)
    close(rope.rotate(q, p).norm(dim=-1), rope.factor * q.norm(dim=-1))
    scores = (rope.rotate(q, p) * rope.rotate(q, p)).sum(-1)
    close(scores, yarn_mscale(8) ** 2 * (q * q).sum(-1))


def test_deepseek_v3s_two_mscales_leave_the_table_alone_and_scale_the_softmax_by_hand():
    deepseek = {"kind": "yarn", "factor": 40.0, "original_max_seq_len": 4096, "mscale": 1.0}
    assert rope_frequencies(64, scaling={**deepseek, "mscale_all_dim": 1.0})[1] == 1.0
    assert yarn_mscale(40, 1.0) == pytest.approx(1.3689, abs=5e-5)
    assert yarn_mscale(40, 0.707) == pytest.approx(1.2608, abs=5e-5)


@pytest.mark.parametrize("scaling", [None, *SCALINGS], ids=str)
def test_rotated_vectors_are_llamas_through_the_permutation(scaling, theirs_in_float64):
    D, positions = 64, torch.tensor([0, 1, 5, 63, 500, 100_000])
    q, k = normal(2, 6, 6, D), normal(2, 3, 6, D, seed=1)
    cos, sin = modeling_llama.LlamaRotaryEmbedding(llama(D, rope=to_theirs(scaling)))(
        q, positions[None]
    )
    order, rope = half_split_order(D), Rope(D, scaling=scaling)
    theirs = modeling_llama.apply_rotary_pos_emb(q[..., order], k[..., order], cos, sin)
    for x, expected in zip((q, k), theirs):
        close(rope.rotate(x, positions)[..., order], expected, atol=1e-10)


def test_rotated_float32_vectors_are_llamas_within_1e_6_where_its_angles_are_exact_enough():
    positions, D = torch.arange(6), 64
    q, k = normal(2, 6, 6, D, dtype=torch.float32), normal(2, 3, 6, D, dtype=torch.float32)
    q, k = torch.nn.functional.normalize(q, dim=-1), torch.nn.functional.normalize(k, dim=-1)
    cos, sin = modeling_llama.LlamaRotaryEmbedding(llama(D))(q, positions[None])
    order = half_split_order(D)
    theirs = modeling_llama.apply_rotary_pos_emb(q[..., order], k[..., order], cos, sin)
    for x, expected in zip((q, k), theirs):
        close(Rope(D).rotate(x, positions)[..., order], expected, atol=1e-6)


@pytest.mark.parametrize("dim", [4, 16, 32])
def test_interleaved_and_partial_rotation_is_gpt_js_without_any_permutation(dim):
    x = normal(2, 3, 7, 32, dtype=torch.float32)
    sin, cos = modeling_gptj.create_sinusoidal_positions(7, dim)[None].chunk(2, dim=-1)
    rows = x.transpose(1, 2)  # (B, T, H, D)
    turned = modeling_gptj.apply_rotary_pos_emb(rows[..., :dim], sin, cos)
    theirs = torch.cat((turned, rows[..., dim:]), -1).transpose(1, 2)
    close(Rope(dim).rotate(x, torch.arange(7)), theirs, atol=2e-6)


@pytest.mark.parametrize("D", [2, 6, 64])
def test_the_score_depends_on_the_distance_alone_for_every_pair_of_positions(D):
    rope, N = Rope(D, scaling={**YARN, "original_max_seq_len": 16} if D > 2 else None), 40
    q, k = normal(1, 1, 1, D).expand(1, 1, N, D), normal(1, 1, 1, D, seed=1).expand(1, 1, N, D)
    positions = torch.arange(N)
    scores = (rope.rotate(q, positions) @ rope.rotate(k, positions).transpose(-2, -1))[0, 0]
    for distance in range(1 - N, N):
        diagonal = scores.diagonal(distance)
        close(diagonal, diagonal[:1].expand_as(diagonal))
    assert scores[0].std() > 0.1  # and on the distance it does depend


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 60_000), st.integers(1, 16))
def test_far_shifts_change_no_score(m, n, shift, half):
    rope, q, k = Rope(2 * half), normal(1, 1, 1, 2 * half), normal(1, 1, 1, 2 * half, seed=1)

    def score(m, n):
        return (rope.rotate(q, torch.tensor([m])) * rope.rotate(k, torch.tensor([n]))).sum()

    close(score(m, n), score(m + shift, n + shift), atol=1e-8)


@settings(deadline=None)
@given(st.integers(1, 16), st.integers(0, 8), st.integers(0, 10_000))
def test_turning_keeps_norms_and_what_stands_behind_dim(half, more, position):
    x = normal(1, 2, 1, 2 * half + more)
    y = Rope(2 * half).rotate(x, torch.tensor([position]))
    close(y[..., : 2 * half].norm(dim=-1), x[..., : 2 * half].norm(dim=-1))
    assert torch.equal(y[..., 2 * half :], x[..., 2 * half :])


def test_position_0_turns_nothing():
    x = normal(1, 2, 1, 8)
    assert torch.equal(Rope(8).rotate(x, torch.tensor([0])), x)


def test_any_memory_layout_can_be_turned():
    whole, positions = normal(2, 3, 5, 9), torch.arange(5)
    odd = normal(2 * 3 * 5 * 8 + 1)[1:].view(2, 3, 5, 8)  # contiguous, but begins at number 1
    views = whole[..., 1:], whole[..., :8], whole.transpose(0, 1)[..., 1:7], whole[..., ::2]
    for x in (*views, odd):
        dim = x.shape[-1] // 2 * 2
        expected = Rope(dim).rotate(x.clone(memory_format=torch.contiguous_format), positions)
        assert torch.equal(Rope(dim).rotate(x, positions), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_rounded_only_at_the_end_even_far_out(dtype):
    rope, positions = Rope(8).to(dtype), torch.tensor([3, 100_003])
    x = normal(1, 2, 2, 8).to(dtype)
    exact = Rope(8).rotate(x.double(), positions)
    ours = rope.rotate(x, positions)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_gradients_turn_back():
    x = normal(1, 2, 3, 6).requires_grad_()
    torch.autograd.gradcheck(lambda x: Rope(4).rotate(x, torch.arange(3)), x)


def test_the_table_grows_in_doublings_and_never_otherwise():
    rope, lengths = Rope(4), set()
    for position in range(1000):
        rope.turns(torch.tensor([position]))
        lengths.add(len(rope._table))
    assert len(lengths) <= 11 and max(lengths) < 2000
    for dtype in (torch.complex128, torch.complex64) * 5:
        rope.turns(torch.tensor([3]), dtype)
    assert len(rope._table) == max(lengths)


def test_the_table_follows_the_type_that_is_asked_for():
    rope, positions = Rope(4), torch.tensor([7, 2])
    angles = positions[:, None] * rope.frequencies
    for dtype in (torch.complex64, torch.complex128):
        turns = rope.turns(positions, dtype)
        assert turns.dtype == dtype
        close(turns.to(torch.complex128).angle() % (2 * math.pi), angles % (2 * math.pi), 1e-6)
    close(rope.turns(positions, torch.complex128).real, angles.cos())


def test_a_model_made_without_memory_still_knows_its_angles():
    with torch.device("meta"):
        schemes = [Rope(4), Rope(4, scaling=YARN), Sinusoidal(4)]
    for scheme in schemes:
        assert scheme.frequencies.device.type == "cpu"
    x = normal(1, 1, 3, 4)
    assert torch.equal(schemes[0].rotate(x, torch.arange(3)), Rope(4).rotate(x, torch.arange(3)))


def test_a_table_made_while_generating_serves_training_afterwards():
    rope, x = Rope(4), normal(1, 1, 3, 4)
    with torch.inference_mode():
        rope.rotate(x, torch.arange(3))
    x.requires_grad_()
    copy.deepcopy(rope).rotate(x, torch.arange(3)).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_scheme_follows_its_model_to_another_device():
    positions, x = torch.arange(5, device="cuda"), normal(1, 2, 5, 4, dtype=torch.float32)
    for scheme in (Rope(4), Sinusoidal(4), Learned(8, 4), Alibi(2), RelativeBias(2)):
        here = [scheme.embed(x, positions.cpu()), scheme.rotate(x, positions.cpu())]
        bias = torch.as_tensor(scheme.bias(positions.cpu(), positions.cpu()))
        scheme.cuda()
        there = [scheme.embed(x.cuda(), positions), scheme.rotate(x.cuda(), positions)]
        there_bias = torch.as_tensor(scheme.bias(positions, positions), device="cuda")
        for ours, moved in zip((*here, bias), (*there, there_bias)):
            assert moved.device.type == "cuda"
            close(moved.cpu(), ours, atol=1e-6)


# ---- Two ways to pair ---------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 3), st.booleans())
def test_the_two_layouts_are_one_permutation_apart_and_back(H, half, more, is_bias):
    D = 2 * half + more
    w = normal(H * D) if is_bias else normal(H * D, 5)
    before = w.clone()
    split = to_half_split(w, H, rotary_dim=2 * half)
    for h in range(H):
        head, expected = split[h * D : (h + 1) * D], w[h * D : (h + 1) * D]
        assert torch.equal(head[: 2 * half], expected[half_split_order(2 * half)])
        assert torch.equal(head[2 * half :], expected[2 * half :])
    assert torch.equal(to_interleaved(split, H, rotary_dim=2 * half), w)
    assert torch.equal(w, before) and split.data_ptr() != w.data_ptr()


@pytest.mark.parametrize("H", [1, 3])
def test_to_half_split_is_the_reshaping_of_metas_weights_for_hugging_face(H):
    w = normal(H * 8, 5)
    theirs = w.view(H, 4, 2, 5).transpose(1, 2).reshape(H * 8, 5)
    assert torch.equal(to_half_split(w, H), theirs)


@pytest.mark.parametrize(("H", "K"), [(6, 6), (6, 2), (6, 1)])
@pytest.mark.parametrize("scaling", [None, YARN, BANDS], ids=str)
def test_attention_with_rope_is_llamas_layer_with_its_weights(H, K, scaling, theirs_in_float64):
    config = llama(16, H, K, rope=to_theirs(scaling), attention_bias=True)
    theirs = modeling_llama.LlamaAttention(config, layer_idx=0).double().eval()
    ours = Attention(24, H, K, 16, position=Rope(16, scaling=scaling), bias=True).double()
    load(ours, theirs, "qkvo", H, K, None)
    x, positions = normal(2, 9, 24), torch.arange(9)[None]
    cos_sin = modeling_llama.LlamaRotaryEmbedding(config)(x, positions)
    close(ours(x), theirs(x, position_embeddings=cos_sin, attention_mask=None)[0])


def test_attention_with_partial_rope_is_phis_layer_with_its_weights_and_biases(theirs_in_float64):
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
    config = PhiConfig(
        hidden_size=24, num_attention_heads=3, rope_parameters=rope, attn_implementation="sdpa"
    )
    theirs = modeling_phi.PhiAttention(config, layer_idx=0).double().eval()
    with torch.no_grad():
        theirs.q_proj.bias.copy_(normal(24))
    ours = Attention(24, 3, position=Rope(4), bias=True).double()
    theirs.o_proj = theirs.dense
    load(ours, theirs, "qkvo", 3, 3, 4)
    x, positions = normal(2, 9, 24), torch.arange(9)[None]
    cos_sin = modeling_phi.PhiRotaryEmbedding(config)(x, positions)
    close(ours(x), theirs(x, position_embeddings=cos_sin, attention_mask=None)[0])


def load(ours, theirs, names, H, K, rotary_dim):
    for name in names:
        for part in ("weight", "bias"):
            value = getattr(getattr(theirs, f"{name}_proj"), part)
            if value is None:
                continue
            if name in "qk":
                value = to_interleaved(value.detach(), H if name == "q" else K, rotary_dim)
            getattr(getattr(ours, f"w{name}"), part).data.copy_(value)


# ---- Through the layer and its cache ------------------------------------------------------------

SCHEMES = {
    "none": NoPosition,
    "learned": lambda: Learned(16, 12),
    "sinusoidal": lambda: Sinusoidal(12),
    "t5": lambda: RelativeBias(6, n_buckets=8, max_distance=10),
    "alibi": lambda: Alibi(6),
    "rope": lambda: Rope(4, theta=100.0),
    "partial": lambda: Rope(2),
    "yarn": lambda: Rope(4, scaling=YARN),
    "llama3": lambda: Rope(4, scaling=BANDS),
}


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("K", [6, 2, 1])
@settings(deadline=None, max_examples=15)
@given(chunks=st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_chunks_under_a_cache_give_what_the_whole_gives(name, K, chunks):
    chunks = [n for i, n in enumerate(chunks) if sum(chunks[: i + 1]) <= 16]
    T = sum(chunks)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scheme = SCHEMES[name]()
        layer = Attention(12, 6, K, head_dim=4, position=scheme).double()
    x, positions, cache = normal(2, T, 12), torch.arange(T), Cache(16)
    whole = layer(scheme.embed(x, positions))
    pieces = [
        layer(scheme.embed(x_t, t), cache=cache)
        for x_t, t in zip(x.split(chunks, dim=1), positions.split(chunks))
    ]
    close(torch.cat(pieces, dim=1), whole)


@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "none"])
def test_every_scheme_tells_two_orders_of_the_past_apart(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scheme = SCHEMES[name]()
        layer = Attention(12, 6, 2, head_dim=4, position=scheme).double()
    x, positions = normal(1, 6, 12), torch.arange(6)
    other = x[:, [3, 0, 4, 1, 2, 5]]
    last, last_other = (layer(scheme.embed(y, positions))[:, -1] for y in (x, other))
    assert (last - last_other).abs().max() > 1e-4
    plain = Attention(12, 6, 2, head_dim=4).double()
    close(plain(x)[:, -1], plain(other)[:, -1])  # without one, the last token cannot


@pytest.mark.parametrize("scheme", [Alibi(2), RelativeBias(2)])
def test_a_bias_takes_the_positions_that_a_cache_still_holds(scheme):
    kept, query = torch.tensor([0, 1, 7, 8, 9]), torch.tensor([9])
    whole = scheme.bias(query, torch.arange(10))
    assert torch.equal(scheme.bias(query, kept), whole[..., kept])


# ---- What does not fit --------------------------------------------------------------------------

SCALE = {"kind": "linear", "factor": 2.0}
X, Q, P = torch.zeros(1, 3, 4), torch.zeros(1, 2, 3, 4), torch.arange(3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Rope(7), "dim must be even, features turn in pairs: got 7"),
        (lambda: Rope(0), "dim must be an integer, 1 or more: got 0"),
        (lambda: Sinusoidal(5), "d_model must be even, features turn in pairs: got 5"),
        (lambda: Learned(0, 4), "max_seq_len must be an integer, 1 or more: got 0"),
        (lambda: Learned(4, True), "d_model must be an integer, 1 or more: got True"),
        (lambda: Rope(4, theta=0.5), "theta must be a finite number, 1 or more: got 0.5"),
        (lambda: Rope(4, theta=math.nan), "theta must be a finite number, 1 or more: got nan"),
        (lambda: Sinusoidal(4, theta="a"), "theta must be a finite number, 1 or more: got 'a'"),
        (
            lambda: Learned(3, 4).embed(X, P + 1),
            "the table has 3 positions, 0 to 2: got 3; a longer text needs a longer table",
        ),
        (lambda: Learned(3, 4).embed(X, P - 1), "positions start at 0: got -1"),
        (lambda: Sinusoidal(4).embed(X, P - 2), "positions start at 0: got -2"),
        (lambda: Rope(4).rotate(Q, P - 1), "positions start at 0: got -1"),
        (lambda: Alibi(2).bias(P - 1, P), "positions start at 0: got -1"),
        (lambda: RelativeBias(2).bias(P, P - 1), "positions start at 0: got -1"),
        (lambda: Rope(4).rotate(Q, P[None]), "positions must be (T,), alike for all: got (1, 3)"),
        (
            lambda: Learned(3, 1).embed(X, P),
            "x must be (B, 3, 1), as the positions and d_model: got (1, 3, 4)",
        ),
        (
            lambda: Sinusoidal(4).embed(X, P[:1]),
            "x must be (B, 1, 4), as the positions and d_model: got (1, 3, 4)",
        ),
        (
            lambda: Rope(6).rotate(Q, P),
            "Rope(6) at 3 positions turns the first 6 features of x (B, H, 3, D), D >= 6: "
            "got (1, 2, 3, 4)",
        ),
        (lambda: Rope(4).rotate(Q, P[:1]), "of x (B, H, 1, D), D >= 4: got (1, 2, 3, 4)"),
        (lambda: RelativeBias(2, 7), "n_buckets must be even, 2 or more: got 7"),
        (
            lambda: RelativeBias(2, 2, causal=False),
            "n_buckets must be even, 4 or more: got 2",
        ),
        (
            lambda: RelativeBias(2, 32, 16),
            "max_distance must exceed the distances with their own bucket: "
            "16 with 16 exact buckets",
        ),
        (lambda: Alibi(3, slopes=[1.0]), "slopes must be 3 numbers, one a head: got [1.0]"),
        (
            lambda: Attention(8, 4, position=Alibi(2)),
            "position must have n_heads = 4 like the layer: got Alibi(n_heads=2)",
        ),
        (
            lambda: Attention(8, 4, position=RelativeBias(1)),
            "position must have n_heads = 4 like the layer: got RelativeBias(n_heads=1)",
        ),
        (
            lambda: Rope(4, scaling={"kind": "dynamic", "factor": 2.0}),
            "must be one of ('linear', 'ntk', 'yarn', 'llama3'): got 'dynamic'",
        ),
        (lambda: Rope(4, scaling={"factor": 2.0}), "'llama3'): got None"),
        (lambda: Rope(4, scaling={"kind": "linear"}), "kind 'linear' needs ['factor']"),
        (
            lambda: Rope(4, scaling={"kind": "yarn", "factor": 2.0}),
            "kind 'yarn' needs ['original_max_seq_len']",
        ),
        (
            lambda: Rope(4, scaling={**SCALE, "beta_fast": 2}),
            "kind 'linear' has no setting ['beta_fast']; it takes ('factor',)",
        ),
        (
            lambda: Rope(4, scaling={**SCALE, "factor": 0.5}),
            "scaling['factor'] must be a finite number, 1 or more: got 0.5",
        ),
        (
            lambda: Rope(4, scaling={**SCALE, "factor": math.inf}),
            "scaling['factor'] must be a finite number, 1 or more: got inf",
        ),
        (
            lambda: Rope(4, scaling={**YARN, "original_max_seq_len": 0}),
            "scaling['original_max_seq_len'] must be a finite number, 1 or more: got 0",
        ),
        (
            lambda: Rope(4, scaling={**YARN, "mscale": -1.0}),
            "scaling['mscale'] must be a finite number, 0 or more: got -1.0",
        ),
        (
            lambda: Rope(4, scaling={**YARN, "beta_fast": 1, "beta_slow": 32}),
            "yarn needs beta_fast > beta_slow > 0, and theta above 1: got 1, 32 and theta 10000",
        ),
        (lambda: Rope(4, 1.0, scaling=YARN), "and theta above 1: got 32.0, 1.0 and theta 1"),
        (
            lambda: Rope(4, scaling={**BANDS, "high_freq_factor": 1}),
            "llama3 needs high_freq_factor > low_freq_factor: got 1 and 1.0",
        ),
        (
            lambda: Rope(2, scaling={"kind": "ntk", "factor": 2.0}),
            "NTK-aware scaling keeps the first pair, so dim must be 4 or more: got 2",
        ),
        (
            lambda: to_half_split(torch.zeros(10, 2), 3),
            "n_heads must divide the rows: 3 does not divide 10",
        ),
        (
            lambda: to_interleaved(torch.zeros(12, 2), 3, rotary_dim=6),
            "rotary_dim must fit a head: 6 is more than its 4 rows",
        ),
        (lambda: to_half_split(torch.zeros(12), 3, rotary_dim=3), "rotary_dim must be even"),
        (lambda: to_half_split(torch.zeros(9), 3), "rotary_dim must be even"),
    ],
)
def test_what_does_not_fit_is_named(wrong, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        wrong()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Learned(3, 4).embed(X, [0, 1, 2]), "must be a tensor of int64 or int32: got list"),
        (lambda: Rope(4).rotate(Q, P.float()), "tensor of int64 or int32: got torch.float32"),
        (lambda: Rope(4).rotate(Q, P > 0), "tensor of int64 or int32: got torch.bool"),
        (lambda: Alibi(2).bias(P, P.double()), "tensor of int64 or int32: got torch.float64"),
        (lambda: Rope(4).rotate(Q.long(), P), "must be floating point numbers: got torch.int64"),
        (
            lambda: Rope(4, scaling="yarn"),
            'scaling must be a mapping like {"kind": "linear", "factor": 4.0}: got \'yarn\'',
        ),
    ],
)
def test_what_is_of_the_wrong_type_is_named(wrong, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        wrong()


def test_a_refused_call_changes_neither_the_table_nor_the_cache():
    rope = Rope(6)
    layer, cache = Attention(8, 2, position=rope), Cache(8)  # head_dim 4
    with pytest.raises(ValueError, match=re.escape("Rope(6) at 3 positions")):
        layer(torch.zeros(1, 3, 8), cache=cache)
    assert cache.length == 0 and len(rope._table) == 0


def test_a_mapping_handed_in_is_not_changed():
    scaling = dict(YARN)
    Rope(8, scaling=scaling)
    assert scaling == YARN
