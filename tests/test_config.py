"""lib/config.py: what is given, what follows from it, and what is refused by the field's name."""

import re
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from lib import transformer
from lib.config import ACTIVATIONS, EXTRAS, MODELS, NORMS, POSITIONS, ModelConfig
from lib.transformer import make_position

SIZES = {"vocab_size": 100, "n_layers": 2, "d_model": 32, "n_heads": 4}
LATENT = {"kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 4}


def test_what_is_not_given_follows_from_what_is():
    config = ModelConfig(**SIZES, bias=True)
    assert (config.head_dim, config.n_kv_heads, config.qkv_bias) == (8, 4, True)
    other = ModelConfig(**SIZES, head_dim=5, n_kv_heads=2, qkv_bias=True, position="none")
    assert (other.head_dim, other.n_kv_heads, other.qkv_bias, other.bias) == (5, 2, True, False)
    assert replace(ModelConfig(**SIZES, bias=True), qkv_bias=False).qkv_bias is False


def test_heads_need_not_divide_the_width_when_their_own_is_given():
    assert ModelConfig(**{**SIZES, "n_heads": 3}, head_dim=16).head_dim == 16


def test_fields_are_given_by_name():
    with pytest.raises(TypeError, match="positional"):
        ModelConfig(100, 2, 32, 4)


def test_a_config_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        ModelConfig(**SIZES).d_model = 64


@pytest.mark.parametrize(
    ("fraction", "head_dim", "turned"),
    [(1.0, 8, 8), (0.5, 64, 32), (0.4, 80, 32), (0.7, 20, 14), (0.58, 100, 58)],
)
def test_rope_turns_the_share_of_a_head_it_is_told_to(fraction, head_dim, turned):
    config = ModelConfig(**SIZES, head_dim=head_dim, rotary_fraction=fraction)
    assert config.rotary_dim == make_position(config).dim == turned


def test_every_name_a_config_takes_can_be_built():
    assert set(transformer.NORMS) == set(NORMS)
    assert set(transformer.ACTIVATIONS) == set(ACTIVATIONS)
    for name in POSITIONS:
        make_position(ModelConfig(**SIZES, position=name))


def test_latent_attention_with_all_its_sizes_is_a_config():
    assert ModelConfig(**SIZES, **LATENT).q_lora_rank is None
    assert ModelConfig(**SIZES, **LATENT, q_lora_rank=6).q_lora_rank == 6


def test_latent_attention_has_widths_of_its_own():
    config = ModelConfig(**{**SIZES, "d_model": 31}, **LATENT, rotary_fraction=0.3)
    assert (config.head_dim, config.rotary_dim) == (6, 2) and make_position(config).dim == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        *[({n: 0}, f"{n} must be an integer, 1 or more: got 0") for n in SIZES],
        ({"d_model": 32.0}, "d_model must be an integer, 1 or more: got 32.0"),
        ({"n_heads": True}, "n_heads must be an integer, 1 or more: got True"),
        ({"n_heads": 3}, "n_heads must divide d_model, unless head_dim is given: 3 does not divid"),
        ({"n_kv_heads": 3}, "n_kv_heads must divide n_heads: 3 does not divide 4"),
        ({"n_kv_heads": 8}, "n_kv_heads must divide n_heads: 8 does not divide 4"),
        ({"n_kv_heads": 0}, "n_kv_heads must be an integer, 1 or more: got 0"),
        ({"head_dim": -8}, "head_dim must be an integer, 1 or more: got -8"),
        ({"d_ff": 0}, "d_ff must be an integer, 1 or more: got 0"),
        ({"max_seq_len": 0}, "max_seq_len must be an integer"),
        ({"window": 0}, "window must be an integer, 1 or more: got 0"),
        ({"n_experts": 0}, "n_experts must be an integer, 1 or more: got 0"),
        ({"n_global_layers": 1}, "n_global_layers must be 0 to 0, with window None and n_layers 2"),
        (
            {"window": 4, "n_global_layers": 3},
            "must be 0 to 2, with window 4 and n_layers 2: got 3",
        ),
        ({"window": 4, "n_global_layers": -1}, "n_layers 2: got -1"),
        ({"window": 4, "n_global_layers": 1.0}, "n_layers 2: got 1.0"),
        ({"extras": ("qk_norm", "moe")}, "extras must be a tuple of ('parallel', 'shared_norm', "),
        ({"extras": "qk_norm"}, "): got 'qk_norm'"),
        ({"window": 4, "causal": False}, "window looks back only: 4 needs causal=True"),
        ({"position": "rotary"}, "position must be one of ('none', 'learned', 'sinusoidal', 't5'"),
        ({"norm": "batch"}, "norm must be one of ('rms', 'layer'): got 'batch'"),
        ({"activation": "swiglu"}, "activation must be one of ('silu', 'gelu', 'gelu_tanh', 'rel"),
        ({"norm_eps": 0}, "norm_eps must lie between 0 and 1: got 0"),
        ({"norm_eps": "1e-5"}, "norm_eps must lie between 0 and 1: got '1e-5'"),
        *[
            ({n: 1}, f"{n} must be True or False: got 1")
            for n in ("norm_first", "gated", "bias", "qkv_bias", "tied", "causal")
        ],
        ({"rotary_fraction": 0}, "rotary_fraction must be above 0 and at most 1: got 0"),
        ({"rotary_fraction": 1.5}, "rotary_fraction must be above 0 and at most 1: got 1.5"),
        ({"head_dim": 5}, "rotary_fraction · head_dim must be even, for pairs turn: 1.0 · 5 = 5"),
        ({"rotary_fraction": 0.3}, "must be even, for pairs turn: 0.3 · 8 = 2.4"),
        ({"rotary_fraction": 0.05}, "must be even, for pairs turn: 0.05 · 8 = 0.4"),
        ({"theta": 0.0}, "theta must be a finite number, 1 or more: got 0.0"),
        ({"scaling": {"kind": "cubic"}}, 'scaling["kind"] must be one of'),
        ({"scaling": {"kind": "linear"}}, "needs ['factor']"),
        (
            {"scaling": {"kind": "linear", "factor": 2.0}, "position": "alibi"},
            "scaling is for position \"rope\": got position 'alibi'",
        ),
        ({"position": "sinusoidal", "d_model": 33, "n_heads": 3}, "d_model must be even"),
        ({"qk_rope_head_dim": 4}, "qk_rope_head_dim belongs to latent attention: give kv_lora_ran"),
        ({"q_lora_rank": 4}, "q_lora_rank belongs to latent attention: give kv_lora_rank, too"),
        ({"kv_lora_rank": 8, "v_head_dim": 4}, "needs ['qk_nope_head_dim', 'qk_rope_head_dim']"),
        ({**LATENT, "qk_rope_head_dim": 3}, "qk_rope_head_dim must be even: got 3"),
        (
            {**LATENT, "position": "alibi"},
            "latent attention needs position='rope': got positio",
        ),
        ({**LATENT, "causal": False}, "latent attention needs causal=True: got causal=False"),
        ({**LATENT, "bias": True}, "latent attention needs bias=False: got bias=True"),
        ({**LATENT, "qkv_bias": True}, "latent attention needs qkv_bias=False: got qkv_bias=True"),
        ({"q_lora_rank": 4.5}, "q_lora_rank must be an integer, 1 or more: got 4.5"),
        *[({**LATENT, n: 0}, f"{n} must be an integer, 1 or more: got 0") for n in LATENT],
    ],
    ids=lambda x: str(x)[:40],
)
def test_what_does_not_fit_is_refused_with_the_field_and_the_values(wrong, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ModelConfig(**{**SIZES, **wrong})


# ---- Real models --------------------------------------------------------------------------------


def test_every_model_says_where_its_sizes_were_seen():
    assert len(MODELS) == 34
    assert all("https://" in config.source for config in MODELS.values())


def test_every_choice_belongs_to_a_model_and_every_extra_to_one():
    from lib.config import _CHOICES

    assert set(_CHOICES) <= set(MODELS)
    assert {x for config in MODELS.values() for x in config.extras} == set(EXTRAS)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_built_or_refused_by_the_field_that_is_missing(name):
    config = replace(MODELS[name], n_layers=1, n_global_layers=0)
    beyond = [n for n in ("window", "n_experts", "extras") if getattr(config, n)]
    with torch.device("meta"):
        if beyond:
            with pytest.raises(ValueError, match=f"does not support {beyond[0]}: got"):
                transformer.Transformer(config)
        else:
            transformer.Transformer(config)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (
            "gpt2",
            {"position": "learned", "tied": True, "bias": True, "norm": "layer", "gated": False},
        ),
        ("llama-2-70b", {"n_kv_heads": 8, "theta": 1e4, "max_seq_len": 4096, "tied": False}),
        ("llama-3-8b", {"theta": 5e5, "scaling": None, "max_seq_len": 8192, "vocab_size": 128_256}),
        ("mistral-7b", {"window": 4096, "n_global_layers": 0, "n_kv_heads": 8}),
        ("falcon-7b", {"n_kv_heads": 1, "extras": ("parallel", "shared_norm"), "tied": True}),
        ("falcon-40b", {"n_kv_heads": 8, "extras": ("parallel",)}),
        ("phi-1.5", {"rotary_dim": 32, "head_dim": 64}),
        ("phi-2", {"rotary_dim": 32, "head_dim": 80}),
        ("gemma-7b", {"head_dim": 256, "d_model": 3072, "n_heads": 16, "tied": True}),
        ("gemma-2-27b", {"window": 4096, "n_global_layers": 23}),
        ("gemma-3-27b", {"window": 1024, "n_global_layers": 10, "theta": 1e6}),
        ("qwen2.5-7b", {"qkv_bias": True, "bias": False, "theta": 1e6}),
        ("qwen3-0.6b", {"head_dim": 128, "n_heads": 16, "d_model": 1024, "tied": True}),
        ("deepseek-v2", {"n_experts": 160, "kv_lora_rank": 512, "rotary_dim": 64, "n_layers": 60}),
        ("deepseek-v3", {"n_experts": 256, "qk_rope_head_dim": 64, "rotary_dim": 64}),
    ],
)
def test_the_table_holds_what_was_published(name, fields):
    assert {field: getattr(MODELS[name], field) for field in fields} == fields


def test_llama_3_1_stretches_its_context_and_deepseek_does_too():
    llama, deepseek = MODELS["llama-3.1-405b"].scaling, MODELS["deepseek-v2"].scaling
    assert llama == {"kind": "llama3", "factor": 8.0, "original_max_seq_len": 8192}
    assert (deepseek["kind"], deepseek["factor"], deepseek["mscale"]) == ("yarn", 40.0, 0.707)
