"""lib/transformer.py: parts and models against those of torch and Hugging Face."""

import re
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from lib.attention import Attention
from lib.cache import Cache
from lib.config import ModelConfig
from lib.positions import rope_frequencies
from lib.transformer import (
    Block,
    EncoderDecoder,
    FeedForward,
    LayerNorm,
    RMSNorm,
    Transformer,
    attention_maps,
    from_gpt2,
    from_llama,
    make_position,
    share_heads,
)

SIZES = {"vocab_size": 50, "n_layers": 3, "d_model": 24, "n_heads": 4}
LLAMA = ModelConfig(**SIZES, n_kv_heads=2, d_ff=40, theta=500.0)
GPT2 = ModelConfig(
    **SIZES, d_ff=96, position="learned", max_seq_len=32, norm="layer", activation="gelu_tanh",
    gated=False, bias=True, tied=True,
)  # fmt: skip
ORIGINAL = replace(  # the first Transformer
    GPT2, position="none", norm_first=False, activation="relu", tied=False
)
EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def rows(B=2, T=9):
    return torch.randint(50, (B, T))


def noisy(module, std=0.5):
    """Every parameter random, so that none can be forgotten: biases start at 0, norms at 1."""
    for p in module.parameters():
        nn.init.normal_(p, std=std) if p.ndim > 1 else nn.init.normal_(p, mean=0.5, std=0.5)
    return module.double().eval()


# ---- Parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "theirs"), [(RMSNorm, nn.RMSNorm), (LayerNorm, nn.LayerNorm)])
@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_norms_are_those_of_torch(ours, theirs, eps):
    a, b = noisy(ours(7, eps)), theirs(7, eps=eps).double()
    b.load_state_dict(a.state_dict())
    x = 3 * torch.randn(2, 5, 7, dtype=torch.float64) + 1
    assert torch.allclose(a(x), b(x), **EXACT)
    assert ours(7).eps == 1e-5


@pytest.mark.parametrize(
    ("name", "bend"),
    [
        ("relu", nn.ReLU()),
        ("gelu", nn.GELU()),
        ("gelu_tanh", nn.GELU(approximate="tanh")),
        ("silu", nn.SiLU()),
    ],
)
def test_feed_forward_plain_and_gated_is_its_formula(name, bend):
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    plain = noisy(FeedForward(6, 11, name, gated=False, bias=True))
    theirs = nn.Sequential(plain.up, bend, plain.down)
    assert torch.allclose(plain(x), theirs(x), **EXACT)
    gated = noisy(FeedForward(6, 11, name, gated=True))
    w = {n: p.T for n, p in gated.named_parameters()}
    assert set(w) == {"up.weight", "gate.weight", "down.weight"}
    expected = (bend(x @ w["gate.weight"]) * (x @ w["up.weight"])) @ w["down.weight"]
    assert torch.allclose(gated(x), expected, **EXACT)


def to_torch(block, layer):
    """Copy a block's weights into one of torch's own layers."""
    names = {"attention": "self_attn", "cross_attention": "multihead_attn"}
    for ours, theirs in names.items():
        if (a := getattr(block, ours)) is not None:
            b = getattr(layer, theirs)
            b.in_proj_weight.data = torch.cat([w.weight for w in (a.wq, a.wk, a.wv)]).detach()
            b.in_proj_bias.data = torch.cat([w.bias for w in (a.wq, a.wk, a.wv)]).detach()
            b.out_proj.load_state_dict(a.wo.state_dict())
    layer.linear1.load_state_dict(block.feed_forward.up.state_dict())
    layer.linear2.load_state_dict(block.feed_forward.down.state_dict())
    norms = [block.attention_norm, block.feed_forward_norm]
    if block.cross_attention is not None:
        norms.insert(1, block.cross_attention_norm)
    for number, norm in enumerate(norms, 1):
        getattr(layer, f"norm{number}").load_state_dict(norm.state_dict())
    return layer


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_an_encoder_block_is_torchs_encoder_layer(norm_first, activation):
    config = replace(ORIGINAL, causal=False, norm_first=norm_first, activation=activation)
    block = noisy(Block(config))
    theirs = nn.TransformerEncoderLayer(
        24, 4, 96, 0.0, activation, batch_first=True, norm_first=norm_first, dtype=torch.float64
    )
    to_torch(block, theirs).train()  # in eval torch takes another path
    x, mask = torch.randn(2, 7, 24, dtype=torch.float64), torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    expected = theirs(x, src_key_padding_mask=~mask)
    assert torch.allclose(block(x, mask=mask), expected, **EXACT)


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_block_with_cross_attention_is_torchs_decoder_layer(norm_first):
    block = noisy(Block(replace(ORIGINAL, norm_first=norm_first), cross=True))
    theirs = nn.TransformerDecoderLayer(
        24, 4, 96, 0.0, "relu", batch_first=True, norm_first=norm_first, dtype=torch.float64
    )
    to_torch(block, theirs).train()
    x, context = (torch.randn(2, n, 24, dtype=torch.float64) for n in (5, 8))
    mask, context_mask = torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 8, dtype=torch.bool)
    mask[0, 3:], context_mask[1, 2:4] = False, False
    expected = theirs(
        x, context, tgt_mask=torch.triu(torch.ones(5, 5, dtype=torch.bool), 1),
        tgt_key_padding_mask=~mask, memory_key_padding_mask=~context_mask,
    )  # fmt: skip
    got = block(x, mask=mask, context=context, context_mask=context_mask)
    assert torch.allclose(got, expected, **EXACT)


def test_a_block_without_d_ff_is_attention_added_to_the_stream():
    block = noisy(Block(replace(LLAMA, d_ff=None)))
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    assert torch.allclose(block(x), x + block.attention(block.attention_norm(x)), **EXACT)
    assert block.feed_forward is None and not [
        n for n, _ in block.named_parameters() if "feed" in n
    ]


def test_context_goes_with_cross_attention_and_only_with_it():
    x = torch.randn(1, 3, 24)
    for block, context in ((Block(LLAMA), x), (Block(LLAMA, cross=True), None)):
        with pytest.raises(ValueError, match="context is for cross-attention: block has it"):
            block(x, context=context)


# ---- The same logits as Hugging Face ------------------------------------------------------------


def their_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=50, n_positions=32, n_embd=24, n_layer=3, n_head=4, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return noisy(GPT2LMHeadModel(config), std=0.3)


def widen(model, config):
    """Hugging Face's Llama computes angles and norms in float32 even in float64: here it does not.

    That the angles and norms are theirs is left to the float32 cases.
    """
    frequencies, factor = rope_frequencies(config.rotary_dim, config.theta, config.scaling)

    def rotary(x, position_ids):
        angles = position_ids[..., None] * frequencies
        angles = torch.cat((angles, angles), -1)
        return angles.cos() * factor, angles.sin() * factor

    model.model.rotary_emb.forward = rotary
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            norm = nn.functional.rms_norm
            eps, weight = module.variance_epsilon, module.weight
            module.forward = partial(norm, normalized_shape=(24,), weight=weight, eps=eps)


def their_llama(kind="Llama", **other):
    import transformers

    settings = {
        "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, **other,
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**settings)
    return noisy(getattr(transformers, f"{kind}ForCausalLM")(config), std=0.2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_gpt2_of_hugging_face_gives_the_same_logits(dtype, tolerance):
    theirs = their_gpt2().to(dtype)
    ours = Transformer(GPT2).to(dtype)
    ours.load_state_dict(from_gpt2(theirs.state_dict()))
    ids = rows(3, 32)
    expected = theirs(ids).logits
    assert expected.std() > 0.3  # not a model that says nothing
    assert (ours(ids) - expected).abs().max() < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"n_kv_heads": 1}, {"num_key_value_heads": 1}),
        ({"head_dim": 10}, {"head_dim": 10}),
        ({"qkv_bias": True, "bias": True}, {"attention_bias": True, "mlp_bias": True}),
        ({"qkv_bias": True}, {"kind": "Qwen2"}),
        ({"norm_eps": 0.3}, {"rms_norm_eps": 0.3}),
        ({"tied": True}, {"tie_word_embeddings": True}),
        (
            {"scaling": {"kind": "llama3", "factor": 8.0, "original_max_seq_len": 16}},
            {
                "rope_parameters": {
                    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0,
                    "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 16,
                },
                "max_position_embeddings": 128,
            },
        ),
    ],
    ids=["gqa", "mqa", "head_dim", "bias", "qwen2", "eps", "tied", "llama3"],
)  # fmt: skip
def test_llama_of_hugging_face_gives_the_same_logits(ours, theirs, dtype, tolerance):
    config, model = replace(LLAMA, **ours), their_llama(**theirs).to(dtype)
    if dtype == torch.float64:
        widen(model, config)
    mine = Transformer(config).to(dtype)
    mine.load_state_dict(from_llama(model.state_dict(), config))
    ids = rows(3, 40)
    expected = model(ids).logits
    assert expected.std() > 0.1
    assert (mine(ids) - expected).abs().max() < tolerance


def test_masks_in_old_files_of_gpt2_are_left_out_and_other_unknown_weights_are_not():
    state = from_gpt2(their_gpt2().state_dict())
    old = {**their_gpt2().state_dict(), "transformer.h.0.attn.bias": torch.ones(1, 1, 32, 32)}
    assert set(from_gpt2({**old, "transformer.h.0.attn.masked_bias": torch.ones(())})) == set(state)
    with pytest.raises(RuntimeError, match=r"blocks\.0\.extra\.weight"):
        Transformer(GPT2).load_state_dict(from_gpt2({**old, "h.0.extra.weight": torch.ones(1)}))


def test_padding_on_the_left_leaves_rope_alone_and_shifts_learned_positions():
    ids, mask = rows(1, 9), torch.ones(1, 12, dtype=torch.bool)
    mask[:, :3] = False
    padded = torch.cat((rows(1, 3), ids), 1)
    for config, same in ((LLAMA, True), (replace(LLAMA, position="alibi"), True), (GPT2, False)):
        model = noisy(Transformer(config))
        assert torch.allclose(model(padded, mask=mask)[:, 3:], model(ids), **EXACT) is same


# ---- Counted ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "config"),
    [
        (
            124_439_808,  # GPT-2 small
            {"vocab_size": 50257, "n_layers": 12, "d_model": 768, "n_heads": 12, "d_ff": 3072,
             "position": "learned", "norm": "layer", "activation": "gelu_tanh", "gated": False,
             "bias": True, "tied": True},
        ),
        (
            8_030_261_248,  # Llama-3-8B
            {"vocab_size": 128256, "n_layers": 32, "d_model": 4096, "n_heads": 32, "n_kv_heads": 8,
             "d_ff": 14336, "theta": 500_000.0, "max_seq_len": 8192},
        ),
    ],
)  # fmt: skip
def test_models_without_memory_have_the_published_number_of_parameters(total, config):
    with torch.device("meta"):
        model = Transformer(ModelConfig(**config))
    assert sum(p.numel() for p in model.parameters()) == total


def test_one_position_scheme_serves_all_layers():
    model = Transformer(replace(LLAMA, position="t5"))
    assert len({id(block.attention.position) for block in model.blocks}) == 1
    assert sum(p.shape == (32, 4) for p in model.parameters()) == 1


def test_in_an_encoder_t5_tells_ahead_from_back():
    position = make_position(replace(LLAMA, position="t5", causal=False))
    bias = position.bias(torch.arange(3), torch.arange(3))
    places = [(1, 0), (1, 1), (1, 2), (0, 2)]  # a step back, itself, one and two ahead
    assert len({bias[0, t, s].item() for t, s in places}) == 4


# ---- What reaches what --------------------------------------------------------------------------

EACH = pytest.mark.parametrize(
    "config",
    [
        LLAMA, GPT2, ORIGINAL, replace(LLAMA, d_ff=None), replace(LLAMA, position="alibi"),
        replace(LLAMA, position="t5"), replace(LLAMA, position="sinusoidal"),
        replace(LLAMA, rotary_fraction=1 / 3),
    ],
    ids=["llama", "gpt2", "original", "attention-only", "alibi", "t5", "sinusoidal", "partial"],
)  # fmt: skip


@EACH
@pytest.mark.parametrize("chunks", [[9], [1] * 9, [4, 1, 3, 1]])
def test_a_cache_changes_no_logits(config, chunks):
    model, ids = noisy(Transformer(config)), rows()
    caches = [Cache(9) for _ in model.blocks]
    parts = [model(part, caches=caches) for part in ids.split(chunks, 1)]
    assert torch.allclose(torch.cat(parts, 1), model(ids), **EXACT)
    assert {cache.length for cache in caches} == {9}


def test_a_cache_changes_no_logits_of_a_padded_batch():
    model, ids, mask = noisy(Transformer(LLAMA)), rows(), torch.ones(2, 9, dtype=torch.bool)
    mask[1, :3] = False
    caches = [Cache(9) for _ in model.blocks]
    first = model(ids[:, :6], caches=caches, mask=mask[:, :6])
    parts = torch.cat((first, model(ids[:, 6:], caches=caches, mask=mask)), 1)
    assert torch.allclose(parts, model(ids, mask=mask), **EXACT)


@EACH
def test_a_decoder_sees_the_past_only_and_an_encoder_both_sides(config):
    ids = rows()
    changed = ids.clone()
    changed[:, 5] = (ids[:, 5] + 1) % 50
    for causal in (True, False):
        model = noisy(Transformer(replace(config, causal=causal)))
        moved = (model(ids) - model(changed)).abs().amax((0, 2)) > 1e-12
        assert moved[5:].all() and bool(moved[:5].all()) is not causal
        assert causal is False or not moved[:5].any()


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rope", "alibi", "t5"])
def test_order_matters_to_an_encoder_with_positions_and_not_without(position):
    ids, order = rows(1, 6), torch.tensor([5, 0, 3, 1, 4, 2])
    for name, same in ((position, False), ("none", True)):
        model = noisy(Transformer(replace(LLAMA, position=name, causal=False)))
        assert torch.allclose(model(ids)[:, order], model(ids[:, order]), **EXACT) is same


def test_hidden_tokens_reach_nobody():
    model, ids, mask = noisy(Transformer(LLAMA)), rows(), torch.ones(2, 9, dtype=torch.bool)
    mask[:, 2] = False
    changed = ids.clone()
    changed[:, 2] = (ids[:, 2] + 1) % 50
    a, b = model(ids, mask=mask), model(changed, mask=mask)
    keep = [0, 1, *range(3, 9)]
    assert torch.allclose(a[:, keep], b[:, keep], **EXACT)
    assert not torch.allclose(a[:, 2], b[:, 2])


# ---- Encoder and decoder ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("norm_first", [True, False])
def test_an_encoder_decoder_is_torchs_own_between_embedding_and_head(norm_first):
    config = replace(ORIGINAL, norm_first=norm_first)
    ours = noisy(EncoderDecoder(config))
    theirs = nn.Transformer(
        24, 4, 3, 3, 96, 0.0, batch_first=True, norm_first=norm_first, dtype=torch.float64
    ).train()
    for half, stack in ((ours.encoder, theirs.encoder), (ours.decoder, theirs.decoder)):
        for block, layer in zip(half.blocks, stack.layers):
            to_torch(block, layer)
        stack.norm = half.norm if norm_first else None  # post-norm ends on a norm already
    source, target = rows(2, 7), rows(2, 5)
    source_mask = torch.ones(2, 7, dtype=torch.bool)
    source_mask[1, 5:] = False
    embed = ours.decoder.embedding
    expected = theirs(
        embed(source), embed(target), tgt_mask=torch.triu(torch.ones(5, 5, dtype=torch.bool), 1),
        src_key_padding_mask=~source_mask, memory_key_padding_mask=~source_mask,
    )  # fmt: skip
    got = ours(source, target, source_mask=source_mask)
    assert torch.allclose(got, ours.decoder.head(expected), **EXACT)


@pytest.mark.parametrize("config", [LLAMA, GPT2, replace(LLAMA, position="t5")])
def test_an_encoder_decoder_with_caches_encodes_once_and_says_the_same(config):
    model, source, target = noisy(EncoderDecoder(config)), rows(2, 7), rows(2, 6)
    caches = [Cache(6) for _ in model.decoder.blocks]
    context = model.encoder(source)
    parts = [model.decoder(t, caches=caches, context=context) for t in target.split([3, 1, 2], 1)]
    assert torch.allclose(torch.cat(parts, 1), model(source, target), **EXACT)
    caches = [Cache(6) for _ in model.decoder.blocks]
    parts = [model(source, t, caches=caches) for t in target.split([3, 1, 2], 1)]
    assert torch.allclose(torch.cat(parts, 1), model(source, target), **EXACT)


def test_every_source_token_reaches_every_target_and_no_later_target_does():
    model, source, target = noisy(EncoderDecoder(LLAMA)), rows(1, 7), rows(1, 6)
    base = model(source, target)
    for s in range(7):
        changed = source.clone()
        changed[:, s] = (source[:, s] + 1) % 50
        assert ((model(changed, target) - base).abs().amax(-1) > 1e-12).all()
    changed = target.clone()
    changed[:, 3] = (target[:, 3] + 1) % 50
    moved = (model(source, changed) - base).abs().amax((0, 2)) > 1e-12
    assert moved.tolist() == [False] * 3 + [True] * 3


def test_hidden_targets_reach_no_other_target():
    model, source, target = noisy(EncoderDecoder(LLAMA)), rows(1, 4), rows(1, 6)
    mask = torch.tensor([[False, False, True, True, True, True]])
    base, changed = model(source, target, mask=mask), target.clone()
    changed[:, 1] = (target[:, 1] + 1) % 50
    got = model(source, changed, mask=mask)
    assert torch.allclose(got[:, 2:], base[:, 2:], **EXACT)


@pytest.mark.parametrize("tied", [True, False])
def test_source_and_target_share_one_embedding_and_tied_the_head_is_it(tied):
    model = EncoderDecoder(replace(LLAMA, tied=tied))
    assert model.encoder.embedding is model.decoder.embedding
    shapes = Counter(tuple(p.shape) for p in model.parameters())
    assert shapes[(50, 24)] == (1 if tied else 2)


def test_an_encoder_decoder_takes_the_decoders_config():
    with pytest.raises(ValueError, match="causal must be True for an EncoderDecoder"):
        EncoderDecoder(replace(LLAMA, causal=False))


def test_wrong_target_ids_are_refused_before_the_encoder_works():
    model = EncoderDecoder(LLAMA)
    model.encoder.forward = lambda *args, **kwargs: pytest.fail("the encoder has worked")
    with pytest.raises(ValueError, match="ids must be 0 to 49"):
        model(rows(), torch.tensor([[50]]))


# ---- How it starts ------------------------------------------------------------------------------


def test_weights_start_as_documented():
    config = ModelConfig(vocab_size=300, n_layers=8, d_model=128, n_heads=4, d_ff=512, bias=True)
    for tied in (False, True):
        model = Transformer(replace(config, tied=tied))
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                assert p.eq(0).all(), name
            elif p.ndim == 1:
                assert p.eq(1).all(), name
            else:
                expected = p.shape[1] ** -0.5
                if name.endswith(("wo.weight", "down.weight")):
                    expected /= 4  # √(2 · 8)
                if name == "embedding.weight" and not tied:
                    expected = 1.0
                assert p.std().item() == pytest.approx(expected, rel=0.05), name
                assert p.mean().abs() < 0.05 * expected, name


def test_a_start_is_the_seeds_and_nobody_elses():
    def first(seed):
        torch.manual_seed(seed)
        return Transformer(LLAMA)(torch.tensor([[1, 2]]))

    assert torch.equal(first(1), first(1)) and not torch.equal(first(1), first(2))


# ---- For pictures -------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [LLAMA, replace(LLAMA, position="alibi"), ORIGINAL])
def test_attention_maps_are_the_weights_that_were_used(config):
    model, ids = noisy(Transformer(config)), rows()
    maps = attention_maps(model, ids)
    x = model.position.embed(model.embedding(ids), torch.arange(9))
    for block, weights in zip(model.blocks, maps, strict=True):
        assert weights.shape == (2, 4, 9, 9)
        read = block.attention_norm(x) if config.norm_first else x
        v = block.attention.qkv(read)[2].repeat_interleave(4 // config.n_kv_heads, 1)
        y = block.attention.wo((weights @ v).transpose(1, 2).flatten(2))
        assert torch.allclose(y, block.attention(read), **EXACT)
        x = block(x)


def test_attention_maps_leave_no_hook_behind_even_when_the_model_fails():
    model = Transformer(LLAMA)
    attention_maps(model, rows())
    with pytest.raises(ValueError, match="ids must be 0 to 49"):
        attention_maps(model, torch.tensor([[50]]))
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_model_can_be_saved_whole_and_blocks_hold_our_attention(tmp_path):
    model = Transformer(GPT2)
    torch.save(model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(again(rows(1, 3) * 0), model(rows(1, 3) * 0))
    assert all(isinstance(block.attention, Attention) for block in model.blocks)


# ---- Fewer key heads ----------------------------------------------------------------------------

MHA = replace(LLAMA, n_kv_heads=4, qkv_bias=True)  # D = 6


def key_rows(model, n_kv_heads, layer=1):
    """Weights and biases of W_K and W_V as (K, D, C) and (K, D, 1)."""
    attention = model.blocks[layer].attention
    for linear in (attention.wk, attention.wv):
        yield linear.weight.view(n_kv_heads, 6, -1)
        yield linear.bias.view(n_kv_heads, 6, 1)


@pytest.mark.parametrize(("K", "groups"), [(2, [(0, 1), (2, 3)]), (1, [(0, 1, 2, 3)])])
def test_shared_heads_are_the_mean_of_neighbours_weights_and_biases(K, groups):
    model = noisy(Transformer(MHA))
    shared = share_heads(model, K)
    for before, after in zip(key_rows(model, 4), key_rows(shared, K)):
        for head, group in enumerate(groups):
            mean = sum(before[h] for h in group) / len(group)
            assert torch.allclose(after[head], mean, **EXACT)
    assert shared.config == replace(MHA, n_kv_heads=K)
    assert [shared.blocks[0].attention.wk.out_features, shared.blocks[0].attention.head_dim] == [
        6 * K, 6,
    ]  # fmt: skip
    fresh = Transformer(shared.config).double()
    fresh.load_state_dict(shared.state_dict())  # the shapes of a model that was built so
    assert torch.allclose(fresh(ids := rows()), shared(ids), **EXACT)


def test_pool_gets_the_rows_of_each_group_and_says_what_becomes_of_them():
    model = noisy(Transformer(MHA))
    seen = []
    first = share_heads(model, 2, pool=lambda w: seen.append(w.shape) or w[:, 0])
    assert seen[:2] == [(2, 2, 6, 24), (2, 2, 6, 1)] and len(seen) == 3 * 4
    for before, after in zip(key_rows(model, 4), key_rows(first, 2)):
        assert torch.equal(after, before[[0, 2]])


def test_queries_read_the_shared_head_of_their_neighbours():
    model = noisy(Transformer(replace(MHA, n_layers=1)))
    shared = share_heads(model, 2, pool=lambda w: w[:, 0])
    attention = model.blocks[0].attention
    for linear in (attention.wk, attention.wv):  # the same by hand: head h reads the key head of
        for p in linear.parameters():  # the first of its pair, 0 0 2 2
            p.data = p.view(4, 6, -1)[[0, 0, 2, 2]].reshape(p.shape)
    assert torch.allclose(shared(ids := rows()), model(ids), **EXACT)


@pytest.mark.parametrize("K", [1, 2])
def test_heads_that_are_equal_already_are_shared_without_a_change(K):
    model = noisy(Transformer(replace(MHA, position="t5")))
    for block in model.blocks:
        for linear in (block.attention.wk, block.attention.wv):
            for p in linear.parameters():
                equal = p.view(K, 4 // K, 6, -1)[:, :1].expand(-1, 4 // K, -1, -1)
                p.data = equal.reshape(p.shape)
    shared = share_heads(model, K)
    assert torch.allclose(shared(ids := rows()), model(ids), **EXACT)
    assert sum(p.numel() for p in shared.parameters()) < sum(p.numel() for p in model.parameters())


def test_sharing_again_is_sharing_at_once_and_the_present_number_changes_nothing():
    model, ids = noisy(Transformer(MHA)), rows()
    assert torch.equal(share_heads(model, 4)(ids), model(ids))
    twice, once = share_heads(share_heads(model, 2), 1), share_heads(model, 1)
    assert torch.allclose(twice(ids), once(ids), **EXACT)


def test_the_model_that_was_given_stays_as_it_is_and_the_new_one_trains_by_itself():
    model, ids = noisy(Transformer(replace(MHA, tied=True))), rows()
    kept, state = {n: p.clone() for n, p in model.state_dict().items()}, torch.get_rng_state()
    shared = share_heads(model, 2, pool=lambda w: w.mul_(2)[:, 0])  # even if pool writes into w
    assert torch.equal(torch.get_rng_state(), state)
    assert shared.head.weight is shared.embedding.weight
    shared(ids).sum().backward()
    with torch.no_grad():
        for p in shared.parameters():
            assert p.grad is not None and p.grad.shape == p.shape
            p += 1.0
    assert all(torch.equal(p, kept[n]) for n, p in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.config == replace(MHA, tied=True)


def test_cross_attention_shares_too_and_a_cache_still_changes_nothing():
    shared = share_heads(noisy(Transformer(MHA, cross=True)), 2)
    assert shared.blocks[0].cross_attention.wk.weight.shape == (12, 24)
    shared, ids = share_heads(noisy(Transformer(MHA)), 2), rows()
    caches = [Cache(9) for _ in shared.blocks]
    parts = [shared(part, caches=caches) for part in ids.split([4, 5], 1)]
    assert torch.allclose(torch.cat(parts, 1), shared(ids), **EXACT)
    assert caches[0].nbytes == 2 * 2 * 2 * 9 * 6 * 8  # k and v, B, K, S, D, bytes


@pytest.mark.parametrize(
    ("n_kv_heads", "message"),
    [
        (3, "n_kv_heads must divide the present 4: 3 does not"),
        (8, "n_kv_heads must divide the present 4: 8 does not"),
        (0, "n_kv_heads must be an integer, 1 or more: got 0"),
        (-2, "n_kv_heads must be an integer, 1 or more: got -2"),
        (2.0, "n_kv_heads must be an integer, 1 or more: got 2.0"),
        (True, "n_kv_heads must be an integer, 1 or more: got True"),
        (None, "n_kv_heads must be an integer, 1 or more: got None"),
    ],
)
def test_numbers_of_heads_that_cannot_be_shared_are_refused(n_kv_heads, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        share_heads(Transformer(MHA), n_kv_heads)


def test_heads_shared_already_cannot_be_told_apart_again():
    with pytest.raises(ValueError, match="n_kv_heads must divide the present 2: 4 does not"):
        share_heads(Transformer(LLAMA), 4)


def test_latent_attention_has_no_key_heads_to_share():
    latent = replace(
        LLAMA, n_kv_heads=None, kv_lora_rank=8, qk_nope_head_dim=6, qk_rope_head_dim=2, v_head_dim=6
    )
    with pytest.raises(ValueError, match=r"heads of latent attention share already.* is 8"):
        share_heads(Transformer(latent), 2)


def test_a_pool_that_keeps_all_heads_is_refused():
    message = re.escape("pool must return (K, D, C) = (2, 6, 24): got (2, 2, 6, 24)")
    with pytest.raises(ValueError, match=message):
        share_heads(Transformer(MHA), 2, pool=lambda w: w)


# ---- What does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize("id_", [50, -1, 10**6])
def test_ids_outside_the_vocabulary_are_named(id_):
    message = re.escape(f"ids must be 0 to 49, the vocabulary has 50: got {id_}")
    with pytest.raises(ValueError, match=message + "$"):
        Transformer(LLAMA)(torch.tensor([[3, id_, 7]]))


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.ones(1, 3), TypeError, "ids must be a tensor of integers, int64 or int32: got tor"),
        (torch.ones(1, 3) > 0, TypeError, "int64 or int32: got torch.bool"),
        ([[1, 2]], TypeError, "int64 or int32: got list"),
        (torch.ones(3).long(), ValueError, "ids must be (B, T), both 1 or more: got (3,)"),
        (torch.ones(1, 0).long(), ValueError, "ids must be (B, T), both 1 or more: got (1, 0)"),
    ],
)
def test_what_is_no_batch_of_ids_is_refused(ids, error, message):
    with pytest.raises(error, match=re.escape(message)):
        Transformer(LLAMA)(ids)


def test_int32_will_do():
    model, ids = Transformer(LLAMA), rows()
    assert torch.equal(model(ids), model(ids.int()))


def test_a_sequence_beyond_learned_positions_is_refused_cached_tokens_included():
    model, caches = Transformer(GPT2), [Cache(40) for _ in range(3)]
    model(rows(1, 30), caches=caches)
    with pytest.raises(ValueError, match="the table has 32 positions, 0 to 31: got 32"):
        model(rows(1, 3), caches=caches)
    assert [cache.length for cache in caches] == [30] * 3  # nothing was changed
    model(rows(1, 2), caches=caches)


@pytest.mark.parametrize("n", [0, 2, 4])
def test_a_wrong_number_of_caches_is_refused(n):
    with pytest.raises(ValueError, match=f"there are 3 layers, but {n} caches"):
        Transformer(LLAMA)(rows(), caches=[Cache(9) for _ in range(n)])


def test_caches_that_are_one_or_hold_different_texts_are_refused():
    model, one, other = Transformer(LLAMA), Cache(9), Cache(9)
    with pytest.raises(ValueError, match="each layer needs a cache of its own"):
        model(rows(), caches=[one, other, one])
    other.append(torch.ones(1, 2, 4, 4))
    with pytest.raises(ValueError, match=r"must hold the same tokens, and hold \[0, 4, 0\]"):
        model(rows(), caches=[one, other, Cache(9)])
    assert one.length == 0


def test_an_encoder_takes_no_caches():
    with pytest.raises(ValueError, match="a cache serves causal self-attention only"):
        Transformer(replace(LLAMA, causal=False))(rows(), caches=[Cache(9) for _ in range(3)])


@pytest.mark.parametrize(
    ("name", "fields"), [("window", {"window": 4}), ("n_experts", {"n_experts": 8})]
)
def test_what_is_not_built_is_refused_by_name(name, fields):
    message = f"Transformer does not support {name}: got {fields[name]}, leave it out"
    with pytest.raises(ValueError, match=message):
        Transformer(replace(LLAMA, **fields))
