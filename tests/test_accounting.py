"""lib/accounting.py: against models that are built, published totals, and torch's own counter."""

import re
from dataclasses import replace

import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lib.accounting import (
    flops_by_part,
    flops_per_token,
    kv_cache_bytes,
    mla_flops,
    param_count,
)
from lib.cache import Cache
from lib.config import MODELS, ModelConfig
from lib.mla import MLA
from lib.transformer import Transformer

SMALL = ModelConfig(vocab_size=50, n_layers=3, d_model=24, n_heads=4, n_kv_heads=2, d_ff=40)
RANKS = {"kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6}


def total(config):
    return sum(param_count(config).values())


# ---- Parameters ---------------------------------------------------------------------------------


def kinds(c):
    """The class of Hugging Face that a config describes, and what it calls the sizes."""
    common = {
        "vocab_size": c.vocab_size, "hidden_size": c.d_model, "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads, "tie_word_embeddings": c.tied,
    }  # fmt: skip
    grouped = {**common, "num_key_value_heads": c.n_kv_heads, "intermediate_size": c.d_ff}
    own_head = {**grouped, "head_dim": c.head_dim}
    falcon = {
        **common, "new_decoder_architecture": c.n_kv_heads > 1, "num_kv_heads": c.n_kv_heads,
        "multi_query": True, "parallel_attn": True, "bias": False, "alibi": False,
        "ffn_hidden_size": c.d_ff,
    }  # fmt: skip
    gpt2 = {
        "vocab_size": c.vocab_size, "n_embd": c.d_model, "n_layer": c.n_layers,
        "n_head": c.n_heads, "n_inner": c.d_ff, "n_positions": c.max_seq_len,
    }  # fmt: skip
    return {
        "gpt": ("GPT2", gpt2), "llama": ("Llama", grouped), "mistral": ("Mistral", own_head),
        "falcon": ("Falcon", falcon), "phi": ("Phi", grouped),
        "phi-3": ("Phi3", {**grouped, "pad_token_id": 0}),
        "gemma": ("Gemma", own_head), "gemma-2-": ("Gemma2", own_head),
        "gemma-3": ("Gemma3", own_head), "qwen2.5": ("Qwen2", grouped),
        "qwen3": ("Qwen3", own_head),
    }  # fmt: skip


def on_meta(name, config):
    """Built without memory."""
    table = kinds(config)
    kind, sizes = table[max((k for k in table if name.startswith(k)), key=len)]
    suffix = "TextConfig" if kind == "Gemma3" else "Config"
    theirs = getattr(transformers, kind + suffix)(**sizes)
    with torch.device("meta"):
        head = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
        return getattr(transformers, kind + head)(theirs)


DENSE = [name for name, config in MODELS.items() if config.n_experts is None]


@pytest.mark.parametrize("name", DENSE)
def test_a_real_model_built_by_hugging_face_has_as_many_parameters(name):
    # Two layers and three: their difference is one layer, so that all layers follow.
    few, more = (replace(MODELS[name], n_layers=n, n_global_layers=0) for n in (2, 3))
    counted = [sum(p.numel() for p in on_meta(name, c).parameters()) for c in (few, more)]
    assert [total(few), total(more)] == counted
    layer = counted[1] - counted[0]
    assert total(MODELS[name]) == counted[0] + (MODELS[name].n_layers - 2) * layer


@pytest.mark.parametrize("name", ["gpt2", "qwen3-0.6b"])
def test_the_whole_model_has_as_many_too(name):
    assert total(MODELS[name]) == sum(p.numel() for p in on_meta(name, MODELS[name]).parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("gpt2", 124_439_808),
        ("llama-3-8b", 8_030_261_248),
        ("llama-2-7b", 6_738_415_616),
        ("mistral-7b", 7_241_732_096),
    ],
)
def test_totals_are_those_that_were_published(name, published):
    assert total(MODELS[name]) == published


def parts(model):
    """Our own model's parameters, sorted by name into the same parts."""
    found = dict.fromkeys(
        ("embedding", "positions", "attention", "feed_forward", "norms", "head"), 0
    )
    for name, p in model.named_parameters():
        part = next((x for x in name.split(".") if x in found), None)
        if "position" in name:
            part = (
                "positions"  # a bias that all layers share stands under the first one's attention
            )
        elif "norm" in name:
            part = "norms"
        found[part] += p.numel()
    return found


OURS = {
    "as in Llama": {},
    "as in GPT-2": {"position": "learned", "norm": "layer", "gated": False, "bias": True,
                    "tied": True},
    "gated with biases": {"bias": True},
    "post-norm": {"norm_first": False, "norm": "layer", "position": "sinusoidal"},
    "biases on q, k, v": {"qkv_bias": True},
    "all biases but those": {"bias": True, "qkv_bias": False, "gated": False},
    "wide heads": {"head_dim": 10, "n_kv_heads": 1, "position": "alibi"},
    "attention only": {"d_ff": None, "bias": True},
    "T5's bias": {"position": "t5"},
    "an encoder": {"causal": False, "position": "t5", "n_kv_heads": 4},
    "latent": RANKS,
    "latent queries": {**RANKS, "q_lora_rank": 10, "d_ff": None},
}  # fmt: skip


@pytest.mark.parametrize("other", OURS.values(), ids=OURS)
def test_every_part_of_our_own_model_is_counted(other):
    config = replace(SMALL, **other)
    assert param_count(config) == parts(Transformer(config))


@pytest.mark.parametrize("q_lora_rank", [None, 20])
@pytest.mark.parametrize("d_ff", [40, 56])
def test_latent_attention_is_counted_as_in_deepseek(q_lora_rank, d_ff):
    sizes = {"vocab_size": 50, "n_layers": 3, "d_model": 24, "n_heads": 4, "d_ff": d_ff}
    config = ModelConfig(**sizes, **RANKS, q_lora_rank=q_lora_rank)
    theirs = transformers.DeepseekV3Config(
        vocab_size=50, num_hidden_layers=3, hidden_size=24, num_attention_heads=4,
        num_key_value_heads=4, intermediate_size=d_ff, first_k_dense_replace=3,
        q_lora_rank=q_lora_rank, **RANKS,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.DeepseekV3ForCausalLM(theirs)
    assert total(config) == sum(p.numel() for p in model.parameters())


def test_latent_attention_with_norms_on_its_keys_is_refused():
    with pytest.raises(ValueError, match="latent attention is counted without qk_norm"):
        param_count(replace(SMALL, **RANKS, extras=("qk_norm",)))


@pytest.mark.parametrize("name", ["deepseek-v2", "deepseek-v3"])
def test_mixtures_of_experts_are_refused_by_name(name):
    n = MODELS[name].n_experts
    with pytest.raises(ValueError, match=f"parameters cannot be derived .* n_experts: got {n}"):
        param_count(MODELS[name])
    with pytest.raises(ValueError, match=f"FLOPs cannot be derived .* n_experts: got {n}"):
        flops_per_token(MODELS[name], 10)


# ---- The cache ----------------------------------------------------------------------------------

PER_TOKEN = {  # bytes in bfloat16, all layers
    "gpt2": 36_864, "gpt2-medium": 98_304, "gpt2-large": 184_320, "gpt2-xl": 307_200,
    "gpt-3": 4_718_592, "llama-1-7b": 524_288, "llama-1-65b": 2_621_440, "llama-2-7b": 524_288,
    "llama-2-70b": 327_680, "llama-3-8b": 131_072, "llama-3-70b": 327_680,
    "llama-3.1-8b": 131_072, "llama-3.1-70b": 327_680, "llama-3.1-405b": 516_096,
    "mistral-7b": 131_072, "falcon-7b": 8_192, "falcon-40b": 122_880, "falcon-180b": 163_840,
    "phi-1.5": 196_608, "phi-2": 327_680, "phi-3-mini": 393_216, "gemma-2b": 18_432,
    "gemma-7b": 458_752, "gemma-2-9b": 344_064, "gemma-2-27b": 376_832, "gemma-3-4b": 139_264,
    "gemma-3-27b": 507_904, "qwen2.5-7b": 57_344, "qwen2.5-72b": 327_680, "qwen3-0.6b": 114_688,
    "qwen3-8b": 147_456, "qwen3-32b": 262_144, "deepseek-v2": 69_120, "deepseek-v3": 70_272,
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_bytes_per_token_are_those_of_the_published_shapes(name):
    assert kv_cache_bytes(MODELS[name], 1) == PER_TOKEN[name]
    assert kv_cache_bytes(MODELS[name], 1000, batch=3) == 3000 * PER_TOKEN[name]


@pytest.mark.parametrize("other", [{}, {"n_kv_heads": 1}, {"head_dim": 10}, {"n_layers": 1}, RANKS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cache_that_is_filled_takes_as_many_bytes(other, dtype):
    config = replace(SMALL, **other)
    model, caches = Transformer(config).to(dtype), [Cache(7) for _ in range(config.n_layers)]
    model(torch.zeros(5, 7, dtype=torch.long), caches=caches)
    assert sum(c.nbytes for c in caches) == kv_cache_bytes(config, 7, 5, dtype.itemsize)


def test_windowed_layers_stop_growing_and_global_ones_do_not():
    mistral, gemma = MODELS["mistral-7b"], MODELS["gemma-3-4b"]
    assert kv_cache_bytes(mistral, 32_768) == kv_cache_bytes(mistral, 4096) == 4096 * 131_072
    assert kv_cache_bytes(mistral, 4095) == 4095 * 131_072
    # 5 of 34 layers are global, 29 stop at 1024
    per_layer = 139_264 // 34
    assert kv_cache_bytes(gemma, 100_000) == per_layer * (5 * 100_000 + 29 * 1024)


def test_numbers_of_other_sizes_are_counted_in_whole_bytes():
    assert kv_cache_bytes(SMALL, 1, bytes_per_number=1) * 4 == kv_cache_bytes(
        SMALL, 1, bytes_per_number=4
    )
    assert kv_cache_bytes(SMALL, 3, bytes_per_number=0.5) == 3 * 3 * 24 // 2
    assert kv_cache_bytes(SMALL, 0) == 0
    assert isinstance(kv_cache_bytes(SMALL, 3, bytes_per_number=0.5), int)


# ---- Arithmetic ---------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [v for v in OURS.values() if v.get("causal", True)])
@pytest.mark.parametrize("seq_len", [1, 9])
def test_flops_are_those_that_torch_counts_for_one_more_token(other, seq_len):
    config = replace(SMALL, **other)
    model = Transformer(config)
    caches = [Cache(seq_len) for _ in range(config.n_layers)]
    if seq_len > 1:
        model(torch.zeros(1, seq_len - 1, dtype=torch.long), caches=caches)
    # torch does not count its fused kernel, so it must take the plain one
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(torch.zeros(1, 1, dtype=torch.long), caches=caches)
    unused = 0  # of an average of whole rows, the rotary part
    if config.kv_lora_rank:
        unused = 2 * config.n_layers * config.n_heads * config.qk_rope_head_dim * seq_len
    assert flops_per_token(config, seq_len) == counter.get_total_flops() - unused


def test_flops_are_twice_the_matrices_and_the_scores_on_top():
    config = MODELS["llama-2-7b"]
    counts, flops = param_count(config), flops_by_part(config, 4096)
    assert flops["maps"] == 2 * counts["attention"]
    assert (
        flops["feed_forward"] == 2 * counts["feed_forward"] and flops["head"] == 2 * counts["head"]
    )
    assert flops["scores"] == 32 * 4 * 32 * 128 * 4096
    assert flops_by_part(config, 8192)["scores"] == 2 * flops["scores"]


def test_a_windowed_layer_scores_no_more_than_its_window():
    windowed = replace(SMALL, window=4, n_global_layers=1)
    each = 4 * 4 * 6  # 2 products, a multiply-add is 2, 4 heads of 6
    assert flops_by_part(windowed, 9)["scores"] == each * (9 + 4 + 4)
    assert flops_by_part(windowed, 3)["scores"] == each * 9


# ---- The two orders of latent attention ---------------------------------------------------------


def counted(layer, T, S, absorb):
    """What torch counts for T new tokens after S - T cached ones, in one layer."""
    cache, x, counter = Cache(S), torch.randn(1, S, 24), FlopCounterMode(display=False)
    with torch.no_grad():
        if T < S:
            layer(x[:, T:], cache=cache)
        with sdpa_kernel(SDPBackend.MATH), counter:
            layer(x[:, :T], cache=cache, absorb=absorb)
    return counter.get_total_flops()


@pytest.mark.parametrize("absorb", [False, True])
@pytest.mark.parametrize("q_lora_rank", [None, 10])
@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 9), (4, 9), (9, 9)])
def test_either_order_takes_as_many_flops_as_torch_counts(absorb, q_lora_rank, T, S):
    config = replace(SMALL, n_layers=1, **RANKS, q_lora_rank=q_lora_rank)
    flops = mla_flops(config, S, absorb, T)
    torchs = counted(MLA(24, 4, 16, 8, 4, 6, q_lora_rank), T, S, absorb)
    pairs = T * S - T * (T - 1) // 2
    hidden = (flops["scores"] + flops["values"]) // pairs * (T * S - pairs)  # under the mask
    unused = 4 if absorb else 12 - 6  # features of rows that are no latents, of padded values
    unused = 2 * 4 * unused * T * S
    assert sum(flops.values()) == torchs - hidden - unused
    assert mla_flops(replace(config, n_layers=3), S, absorb, T)["up"] == 3 * flops["up"]


def test_in_deepseek_v3_a_row_costs_131072_multiply_adds_a_head_to_rebuild_and_1088_to_look_at():
    config, layers_and_heads = MODELS["deepseek-v3"], 2 * 61 * 128
    naive, absorbed = (mla_flops(config, 1000, absorb) for absorb in (False, True))
    assert naive["up"] == layers_and_heads * 1000 * 512 * 256
    assert naive["scores"] + naive["values"] == layers_and_heads * 1000 * (192 + 128)
    assert absorbed["up"] == layers_and_heads * 512 * 256
    assert absorbed["scores"] + absorbed["values"] == layers_and_heads * 1000 * (576 + 512)
    # maps, W_UK and W_UV are all of a layer's matrices, each met once by a token
    matrices = 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168
    assert naive["maps"] == absorbed["maps"] == 2 * 61 * matrices - absorbed["up"]


def test_absorbed_is_cheaper_for_a_token_from_the_second_on_and_naive_for_a_prompt():
    def cost(S, absorb, T=1):
        return sum(mla_flops(MODELS["deepseek-v3"], S, absorb, T).values())

    assert cost(1, True) > cost(1, False)
    assert all(cost(S, True) < cost(S, False) for S in (2, 100, 10_000))
    assert all(cost(S, True, S) > cost(S, False, S) for S in (1, 2, 100, 10_000))
    # a chunk after a long context: R (n + v) / (2 R - n - v) = 170.7 new tokens
    assert cost(10**6, True, 170) < cost(10**6, False, 170)
    assert cost(10**6, True, 171) > cost(10**6, False, 171)


# ---- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kv_cache_bytes(SMALL, -1), "seq_len must be an integer, 0 or more: got -1"),
        (lambda: kv_cache_bytes(SMALL, 1.5), "seq_len must be an integer, 0 or more: got 1.5"),
        (lambda: kv_cache_bytes(SMALL, True), "seq_len must be an integer, 0 or more: got True"),
        (lambda: kv_cache_bytes(SMALL, 1, 0), "batch must be an integer, 1 or more: got 0"),
        (
            lambda: kv_cache_bytes(SMALL, 1, 1, 0),
            "bytes_per_number must be a number above 0: got 0",
        ),
        (lambda: kv_cache_bytes(SMALL, 1, 1, "2"), "must be a number above 0: got '2'"),
        (lambda: kv_cache_bytes(replace(SMALL, causal=False), 1), "no cache with causal=False"),
        (lambda: flops_per_token(SMALL, 0), "seq_len must be an integer, 1 or more: got 0"),
        (lambda: mla_flops(SMALL, 5), "mla_flops is for latent attention: got kv_lora_rank None"),
        (
            lambda: mla_flops(replace(SMALL, **RANKS, window=4), 5),
            "FLOPs of latent attention cannot be derived from a config with window: got 4",
        ),
        (
            lambda: mla_flops(replace(SMALL, **RANKS), 5, new_tokens=0),
            "new_tokens must be an integer, 1 or more: got 0",
        ),
        (
            lambda: mla_flops(replace(SMALL, **RANKS), 5, new_tokens=6),
            "seq_len must be an integer, 6 or more: got 5",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
