"""lib/generate.py: distributions against Hugging Face's, draws against distributions, the loop."""

import re
from dataclasses import replace

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lib.cache import Cache, Int8Cache, PagedCache, PagePool, SlidingWindowCache
from lib.config import ModelConfig
from lib.generate import generate, probabilities, sample
from lib.tokenizer import BPETokenizer
from lib.transformer import Transformer, from_llama

LLAMA = ModelConfig(
    vocab_size=50, n_layers=3, d_model=24, n_heads=4, n_kv_heads=2, d_ff=40, max_seq_len=64
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(config=LLAMA, seed=0):
    """A model whose weights are large enough for its choices to be clear."""
    torch.manual_seed(seed)
    model = Transformer(config).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5) if p.ndim > 1 else None
    return model


# ---- Distributions ------------------------------------------------------------------------------


def theirs(logits, temperature, top_k, top_p):
    """In the order in which Hugging Face's `generate` applies them."""
    warpers = [TemperatureLogitsWarper(temperature)] if temperature != 1.0 else []
    warpers += [TopKLogitsWarper(top_k)] if top_k is not None else []
    warpers += [TopPLogitsWarper(top_p)] if top_p is not None else []
    for warper in warpers:
        logits = warper(None, logits)
    return logits.softmax(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 7, 40, 100])
@pytest.mark.parametrize("top_p", [None, 0.05, 0.5, 0.9, 1.0])
def test_distributions_are_those_of_hugging_face(temperature, top_k, top_p):
    logits = 2 * torch.randn(20, 40, dtype=torch.float64, generator=seeded())
    ours = probabilities(logits, temperature, top_k, top_p)
    expected = theirs(logits, temperature, top_k, top_p)
    assert torch.equal(ours > 0, expected > 0)
    assert torch.allclose(ours, expected, rtol=0, atol=1e-12)


def test_nothing_asked_for_is_softmax():
    logits = torch.randn(3, 9, dtype=torch.float64, generator=seeded())
    assert torch.allclose(probabilities(logits), logits.softmax(-1), rtol=0, atol=1e-15)
    assert torch.allclose(probabilities(logits, 2.0), (logits / 2).softmax(-1), rtol=0, atol=1e-15)


def dist(*probs, **settings):
    return probabilities(torch.tensor([probs], dtype=torch.float64).log(), **settings)[0].tolist()


def test_all_that_tie_with_the_last_of_top_k_are_kept():
    assert dist(0.1, 0.4, 0.1, 0.4, top_k=1) == pytest.approx([0, 0.5, 0, 0.5])
    assert dist(0.2, 0.4, 0.2, 0.2, top_k=2) == pytest.approx([0.2, 0.4, 0.2, 0.2])
    assert dist(0.3, 0.4, 0.2, 0.1, top_k=2) == pytest.approx([3 / 7, 4 / 7, 0, 0])


def test_top_p_keeps_the_token_that_crosses():
    assert dist(0.2, 0.5, 0.3, top_p=0.6) == pytest.approx([0, 0.625, 0.375])
    assert dist(0.25, 0.5, 0.25, top_p=0.5) == pytest.approx([0, 1, 0])  # reached, not crossed
    assert dist(0.25, 0.5, 0.25, top_p=0.51) == pytest.approx([1 / 3, 2 / 3, 0])  # first of equals
    assert dist(0.2, 0.5, 0.3, top_p=1e-9) == pytest.approx([0, 1, 0])
    assert min(dist(1 - 1e-18, 1e-18, 1e-300, top_p=1.0)) > 0  # 1 keeps what rounding would lose


def test_top_p_counts_what_top_k_has_left():
    # of .4 .3 .2 .1, top_k leaves 4/7 and 3/7; half of that is reached by the first
    assert dist(0.4, 0.3, 0.2, 0.1, top_k=2, top_p=0.5) == pytest.approx([1, 0, 0, 0])
    assert dist(0.4, 0.3, 0.2, 0.1, top_p=0.5) == pytest.approx([4 / 7, 3 / 7, 0, 0])


def test_temperature_comes_before_top_p():
    assert dist(0.6, 0.4, top_p=0.65, temperature=0.5) == pytest.approx([1, 0])
    assert dist(0.6, 0.4, top_p=0.65) == pytest.approx([0.6, 0.4])


def test_temperature_0_takes_the_likeliest_and_of_equals_the_first():
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 5.0]])
    assert probabilities(logits, 0).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert sample(logits, 0.0, top_k=2, top_p=0.1).tolist() == [1, 0]


def test_the_smallest_temperature_is_nearly_0_and_half_precision_does_not_overflow():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    assert probabilities(logits, 1e-300).tolist() == [[0, 1, 0]]
    half = torch.tensor([[60_000.0, 59_000.0]], dtype=torch.float16)
    assert probabilities(half, 0.1).tolist() == [[1, 0]]
    assert probabilities(half).dtype == torch.float32


def test_a_token_that_was_ruled_out_stays_so():
    logits = torch.tensor([[0.0, float("-inf"), 1.0]])
    for settings in ({}, {"top_k": 3}, {"top_p": 0.99}, {"temperature": 5.0}):
        assert probabilities(logits, **settings)[0, 1] == 0


def test_logits_are_left_as_they_were():
    logits = torch.randn(3, 9, generator=seeded())
    before = logits.clone()
    sample(logits, 0.5, 3, 0.5, seeded())
    assert torch.equal(logits, before)


# ---- Draws --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.5}, {"top_k": 4}, {"top_p": 0.7}, {"top_k": 6, "top_p": 0.8}]
)
def test_draws_follow_the_distribution(settings):
    n = 50_000
    logits = 1.5 * torch.randn(1, 10, dtype=torch.float64, generator=seeded())
    expected = n * theirs(logits, **{"temperature": 1.0, "top_k": None, "top_p": None, **settings})
    ids = sample(logits.expand(n, 10), **settings, generator=seeded(1))
    counts = ids.bincount(minlength=10)
    kept = expected[0] > 0
    assert counts[~kept].sum() == 0 and ids.shape == (n,)
    chi2 = ((counts[kept] - expected[0, kept]) ** 2 / expected[0, kept]).sum()
    assert chi2 < 33.7  # with 9 degrees of freedom or fewer, one seed in 10,000 is above


def test_rows_are_drawn_each_for_itself():
    logits = torch.eye(4).repeat(2000, 1) * 2
    ids = sample(logits, generator=seeded()).view(2000, 4)
    hits = (ids == torch.arange(4)).double().mean(0)
    expected = torch.eye(4)[0].mul(2).softmax(-1)[0]
    assert (hits - expected).abs().max() < 0.05


def test_the_same_seed_draws_the_same_and_leaves_torch_s_own_alone():
    logits, state = torch.randn(30, 9, generator=seeded()), torch.get_rng_state()
    one, two, other = (sample(logits, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


# ---- The loop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_generation_is_that_of_hugging_face(heads, use_cache):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=heads, rms_norm_eps=1e-5,
        initializer_range=0.5, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )).double().eval()  # fmt: skip
    config = replace(LLAMA, n_kv_heads=heads)
    ours = Transformer(config).double()
    ours.load_state_dict(from_llama(model.state_dict(), config))
    ids = torch.randint(50, (3, 5), generator=seeded())
    expected = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False
    )
    got = generate(ours, ids, 20, temperature=0, use_cache=use_cache)
    assert torch.equal(got, expected)
    assert len(set(got[:, 5:].flatten().tolist())) > 5  # not one token again and again


CONFIGS = {
    "rope": {},
    "learned": {"position": "learned"},
    "sinusoidal": {"position": "sinusoidal"},
    "alibi": {"position": "alibi"},
    "t5": {"position": "t5"},
    "none": {"position": "none", "n_kv_heads": 1},
}


@pytest.mark.parametrize("other", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1.3, "top_k": 20}])
def test_a_cache_never_changes_what_is_generated(other, sampling):
    model = make(replace(LLAMA, **other))
    ids = torch.randint(50, (4, 6), generator=seeded())
    runs = [
        generate(model, ids, 16, use_cache=use, generator=seeded(1), **sampling)
        for use in (True, False)
    ]
    assert torch.equal(*runs)
    assert runs[0].shape == (4, 22) and torch.equal(runs[0][:, :6], ids)
    assert runs[0].unique().numel() > 8


def test_each_token_is_drawn_from_the_logits_of_those_before_it():
    model, ids = make(), torch.randint(50, (2, 4), generator=seeded())
    got = generate(model, ids, 10, temperature=0)
    logits = model(got)
    assert torch.equal(got[:, 4:], logits[:, 3:-1].argmax(-1))


def test_the_cache_spares_reading_again():
    lengths = {True: [], False: []}
    for use, seen in lengths.items():
        model = make()
        model.register_forward_pre_hook(lambda m, args, seen=seen: seen.append(args[0].shape[1]))
        generate(model, torch.zeros(1, 3, dtype=torch.long), 4, use_cache=use)
    assert lengths == {True: [3, 1, 1, 1], False: [3, 4, 5, 6]}


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("position", ["rope", "alibi", "t5"])
def test_prompts_padded_on_the_left_go_on_as_they_would_alone(use_cache, position):
    model = make(replace(LLAMA, position=position))
    prompts = [torch.randint(50, (1, n), generator=seeded(n)) for n in (3, 7, 5)]
    alone = [generate(model, p, 9, temperature=0)[:, p.shape[1] :] for p in prompts]
    ids, mask = torch.full((3, 7), 49), torch.zeros(3, 7, dtype=torch.bool)
    for row, p in enumerate(prompts):
        ids[row, -p.shape[1] :], mask[row, -p.shape[1] :] = p, True
    before = mask.clone()
    got = generate(model, ids, 9, mask=mask, use_cache=use_cache, temperature=0)
    assert torch.equal(got[:, 7:], torch.cat(alone))
    assert torch.equal(mask, before)
    assert not torch.equal(generate(model, ids, 9, temperature=0), got)  # the mask matters


def test_a_mask_without_padding_changes_nothing_even_for_learned_positions():
    model = make(replace(LLAMA, position="learned"))
    ids = torch.randint(50, (2, 5), generator=seeded())
    mask = torch.ones_like(ids, dtype=torch.bool)
    assert torch.equal(
        generate(model, ids, 9, mask=mask, temperature=0), generate(model, ids, 9, temperature=0)
    )


KINDS = {
    "plain": lambda: Cache(40),
    "a window wide enough": lambda: SlidingWindowCache(40),
    "paged": lambda: PagedCache(PagePool(10, 4)),
}


def caches_of(kind, model):
    return [kind() for _ in model.blocks]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("padded", [False, True], ids=["", "padded"])
def test_caches_of_one_s_own_change_nothing_and_hold_all_but_the_last_token(kind, padded):
    model, ids = make(), torch.randint(50, (2, 6), generator=seeded())
    mask = torch.arange(6) >= torch.tensor([[0], [2]]) if padded else None
    caches = caches_of(kind, model)
    got = generate(model, ids, 9, caches=caches, mask=mask, temperature=0)
    assert torch.equal(got, generate(model, ids, 9, use_cache=False, mask=mask, temperature=0))
    assert [cache.length for cache in caches] == [14] * 3


@pytest.mark.parametrize("kind", [*KINDS.values(), lambda: Int8Cache(40)], ids=[*KINDS, "int8"])
@pytest.mark.parametrize("padded", [False, True], ids=["", "padded"])
def test_a_conversation_goes_on_from_what_the_caches_hold(kind, padded):
    model, generator = make(), seeded()
    ids, more = torch.randint(50, (2, 2, 6), generator=generator)
    mask = torch.arange(24) >= torch.tensor([[0], [2]]) if padded else None

    def seen(S):
        return None if mask is None else mask[:, :S]

    caches = caches_of(kind, model)
    first = generate(model, ids, 5, caches=caches, mask=seen(6), temperature=0)
    unread = torch.cat((first[:, -1:], more), 1)  # the last token was never read
    second = generate(model, unread, 7, caches=caches, mask=seen(17), temperature=0)
    assert torch.equal(second[:, :7], unread) and second.shape == (2, 14)
    whole = torch.cat((first, more), 1)
    at_once = generate(model, whole, 7, caches=caches_of(kind, model), mask=seen(17), temperature=0)
    assert torch.equal(at_once[:, 11:], second[:, 1:])
    assert at_once[:, 17:].unique().numel() > 3


def test_a_window_generates_past_its_size_from_what_it_still_sees():
    model = make(replace(LLAMA, n_layers=1))  # what left the window then has no influence at all
    ids = torch.randint(50, (2, 4), generator=seeded())
    got = generate(model, ids, 30, caches=[SlidingWindowCache(5)], temperature=0)
    for t in (8, 20, 33):  # rotary distances are what counts
        assert torch.equal(model(got[:, t - 5 : t])[:, -1].argmax(-1), got[:, t])
    full = generate(model, ids, 30, temperature=0)
    assert not torch.equal(got, full)


def test_text_goes_in_and_text_comes_out():
    tokenizer = BPETokenizer.train("the cat sat on the mat. the dog sat on the log. " * 5, 265)
    model = make(replace(LLAMA, vocab_size=tokenizer.vocab_size))
    ids = torch.tensor([tokenizer.encode("the cat")])
    got = generate(model, ids, 10, top_p=0.9, generator=seeded())[0].tolist()
    assert tokenizer.decode(got).startswith("the cat") and len(got) == ids.shape[1] + 10


def test_no_new_tokens_give_back_the_prompt_and_the_whole_context_can_be_filled():
    model, ids = make(), torch.randint(50, (2, 4), generator=seeded())
    assert torch.equal(generate(model, ids, 0), ids)
    assert generate(model, ids, 60).shape == (2, 64)
    assert generate(model, ids.int(), 3).dtype == torch.int32


def test_no_gradients_are_kept():
    model = make()
    model.register_forward_hook(lambda m, args, y: seen.append(y.requires_grad))
    seen = []
    generate(model, torch.zeros(1, 3, dtype=torch.long), 2)
    assert seen == [False, False]


# ---- What is refused ----------------------------------------------------------------------------

LOGITS = torch.zeros(2, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature must be a number, 0 or more: got -0.1"),
        ({"temperature": float("nan")}, "temperature must be a number, 0 or more: got nan"),
        ({"temperature": float("inf")}, "temperature must be a number, 0 or more: got inf"),
        ({"temperature": "hot"}, "temperature must be a number, 0 or more: got 'hot'"),
        ({"top_k": 0}, "top_k must be an integer, 1 or more, or None: got 0"),
        ({"top_k": 2.0}, "top_k must be an integer, 1 or more, or None: got 2.0"),
        ({"top_k": True}, "top_k must be an integer, 1 or more, or None: got True"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1, or None: got 0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, or None: got 1.1"),
        ({"top_p": float("nan")}, "top_p must be above 0 and at most 1, or None: got nan"),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_anything_is_read(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        sample(LOGITS, **settings)
    model = make()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model was asked"))
    with pytest.raises(ValueError, match=re.escape(message)):
        generate(model, torch.zeros(1, 3, dtype=torch.long), 2, **settings)


@pytest.mark.parametrize(
    ("logits", "error", "message"),
    [
        (LOGITS[0], ValueError, "logits must be (B, V), both 1 or more: got (5,)"),
        (LOGITS[:, :0], ValueError, "logits must be (B, V), both 1 or more: got (2, 0)"),
        (LOGITS.long(), TypeError, "must be a tensor of floating point numbers: got torch.int64"),
        ([[1.0]], TypeError, "must be a tensor of floating point numbers: got list"),
        (LOGITS / 0, ValueError, "the largest logit of every row must be finite: got [nan, nan]"),
        (LOGITS - torch.inf, ValueError, "must be finite: got [-inf, -inf]"),
        (torch.tensor([[0.0, torch.inf]]), ValueError, "must be finite: got [inf]"),
    ],
)
def test_logits_that_are_no_distribution_are_refused(logits, error, message):
    with pytest.raises(error, match=re.escape(message)):
        sample(logits)


IDS = torch.zeros(2, 3, dtype=torch.long)
MASK = torch.ones(2, 3, dtype=torch.bool)
RIGHT = torch.tensor([[True, True, True], [True, True, False]])


@pytest.mark.parametrize(
    ("ids", "new", "other", "message"),
    [
        (IDS[:, :0], 1, {}, "a prompt of 1 token or more: got (2, 0)"),
        (IDS[0], 1, {}, "a prompt of 1 token or more: got (3,)"),
        ([[1]], 1, {}, "a prompt of 1 token or more: got list"),
        (IDS, -1, {}, "max_new_tokens must be an integer, 0 or more: got -1"),
        (IDS, 1.0, {}, "max_new_tokens must be an integer, 0 or more: got 1.0"),
        (IDS, 62, {}, "a sequence may hold max_seq_len = 64 tokens: got 3 of the prompt and 62 ne"),
        (IDS + 50, 1, {}, "ids must be 0 to 49, the vocabulary has 50: got 50"),
        (IDS, 1, {"mask": MASK[:, :2]}, "mask must be boolean and as the prompt, (2, 3): got (2,"),
        (IDS, 1, {"mask": MASK.long()}, "mask must be boolean and as the prompt, (2, 3): got (2,"),
        (IDS, 1, {"mask": RIGHT}, "a prompt must end with a real token: pad on the left"),
    ],
)  # fmt: skip
def test_prompts_that_cannot_be_continued_are_refused(ids, new, other, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        generate(make(), ids, new, **other)


def held(n, *lengths):
    """One cache with room for n tokens for each of these lengths, which it holds."""
    caches = [Cache(n) for _ in lengths]
    for cache, length in zip(caches, lengths):
        cache.append(*[torch.zeros(2, 2, length, 6, dtype=torch.float64)] * 2)
    return caches


@pytest.mark.parametrize(
    ("new", "other", "message"),
    [
        (1, {"caches": held(9, 0, 0)}, "there are 3 layers, but 2 caches"),
        (1, {"caches": []}, "there are 3 layers, but 0 caches"),
        (1, {"caches": held(9, 4, 4, 3)}, "caches must hold the same tokens, and hold [4, 4, 3]"),
        (1, {"caches": held(9, 0) * 3}, "each layer needs a cache of its own: got one cache sever"),
        (1, {"caches": held(9, 0, 0, 0), "use_cache": False}, "caches are there to be used: leave"),
        (5, {"caches": held(9, 3, 3, 3)},
         "a cache has room for 9 tokens: 10 are to be read, 3 of them already in it"),
        (55, {"caches": held(70, 7, 7, 7)},
         "max_seq_len = 64 tokens: got 3 of the prompt and 55 new, 7 cached"),
        (1, {"caches": held(9, 2, 2, 2), "mask": MASK},
         "mask must be boolean and cover what is cached and the prompt, (2, 5): got (2, 3) of"),
    ],
)  # fmt: skip
def test_caches_that_do_not_fit_are_refused_and_left_as_they_are(new, other, message):
    before = [cache.length for cache in other["caches"]]
    with pytest.raises(ValueError, match=re.escape(message)):
        generate(make(), IDS, new, **other)
    assert [cache.length for cache in other["caches"]] == before


def test_caches_are_filled_to_the_last_place():
    model, caches = make(), held(9, 3, 3, 3)
    generate(model, IDS, 4, caches=caches)
    assert [cache.length for cache in caches] == [9] * 3


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_padding_that_would_shift_positions_is_refused(position):
    model = make(replace(LLAMA, position=position))
    with pytest.raises(ValueError, match=f"padding shifts '{position}' positions: give prompts"):
        generate(model, IDS, 1, mask=RIGHT.flip(1))


def test_a_model_that_sees_the_future_is_refused():
    with pytest.raises(ValueError, match="generate needs a model with causal=True"):
        generate(make(replace(LLAMA, causal=False)), IDS, 1)


def test_padding_is_refused_where_it_would_take_the_place_of_sinks():
    model, ids = make(), torch.tensor([[0, 3, 4], [5, 6, 7]])
    mask = torch.tensor([[False, True, True], [True, True, True]])
    for sinks, kept in ((0, True), (1, False)):
        caches = [SlidingWindowCache(4, sinks) for _ in model.blocks]
        if kept:
            assert generate(model, ids, 2, caches=caches, mask=mask).shape == (2, 5)
        else:
            with pytest.raises(ValueError, match="got sinks 1 and a mask with padding; give"):
                generate(model, ids, 2, caches=caches, mask=mask)
            assert generate(model, ids, 2, caches=caches).shape == (2, 5)
