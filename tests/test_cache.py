"""lib/cache.py: everything comes back as it went in, and nothing is lost without a word."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.cache import Cache

chunks = st.lists(st.integers(0, 5), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(chunks, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_what_comes_back_is_all_that_went_in_however_it_was_cut(sizes, heads, width, other_width):
    total = sum(sizes)
    k, v = torch.randn(2, heads, total, width), torch.randn(2, heads, total, other_width)
    cache, end = Cache(max(total, 1)), 0
    for size in sizes:
        start, end = end, end + size
        k_all, v_all = cache.append(k[:, :, start:end], v[:, :, start:end])
        assert torch.equal(k_all, k[:, :, :end]) and torch.equal(v_all, v[:, :, :end])
        assert cache.length == end
        assert cache.positions.tolist() == list(range(end))


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 5, 3, 4), (1, 2, 5, 3, 4)])
def test_any_number_of_axes_before_the_last_two(shape):
    x = torch.randn(shape)
    cache = Cache(4)
    (back,) = cache.append(x)
    assert torch.equal(back, x)
    (back,) = cache.append(x[..., :1, :])
    assert torch.equal(back, torch.cat([x, x[..., :1, :]], -2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8])
def test_numbers_are_kept_as_they_are(dtype):
    x = torch.arange(6).reshape(1, 3, 2).to(dtype)
    (back,) = Cache(3).append(x)
    assert back.dtype == dtype and torch.equal(back, x)


def test_memory_is_set_aside_once_at_the_first_append():
    cache = Cache(100)
    assert (cache.length, cache.nbytes, cache.positions.tolist()) == (0, 0, [])
    k, v = torch.randn(2, 3, 1, 8), torch.randn(2, 3, 1, 4)
    for _ in range(5):
        k_all, _ = cache.append(k, v)
        assert cache.nbytes == 2 * 3 * 100 * (8 + 4) * 4
    before = k_all.data_ptr()
    assert cache.append(k, v)[0].data_ptr() == before


def test_what_came_back_earlier_is_not_changed_by_later_appends():
    cache = Cache(4)
    (first,) = cache.append(torch.ones(1, 2, 3))
    cache.append(torch.zeros(1, 2, 3))
    assert torch.equal(first, torch.ones(1, 2, 3))


def test_changing_the_input_afterwards_does_not_change_the_cache():
    x, cache = torch.ones(1, 2, 3), Cache(4)
    cache.append(x)
    x.zero_()
    (back,) = cache.append(x[:, :1])
    assert back.sum() == 6


def test_two_caches_share_nothing():
    one, two = Cache(4), Cache(4)
    one.append(torch.ones(1, 2, 3))
    two.append(torch.zeros(1, 1, 3))
    assert (one.length, two.length) == (2, 1)
    (back,) = one.append(torch.ones(1, 1, 3))
    assert back.min() == 1


def test_no_gradient_flows_through_a_cache_and_no_graph_grows():
    x, cache = torch.randn(1, 2, 3, requires_grad=True), Cache(4)
    cache.append(x)
    (back,) = cache.append(x)
    assert not back.requires_grad


FILLED = (torch.ones(1, 2, 6, 4), torch.ones(1, 2, 6, 4))
REFUSED = {
    "one too many": (
        [torch.ones(1, 2, 3, 4)] * 2,
        "the cache is full: 6 tokens held and 3 new are more than its max_seq_len 8",
    ),
    "another batch": (
        [torch.ones(2, 2, 1, 4)] * 2,
        "the cache holds (1, 2, T, 4) of torch.float32 on cpu: got (2, 2, T, 4) of torch.float32",
    ),
    "another width": (
        [torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 5)],
        "the cache holds (1, 2, T, 4) of torch.float32 on cpu: got (1, 2, T, 5) of torch.float32",
    ),
    "another dtype": (
        [torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 4, dtype=torch.float64)],
        "the cache holds (1, 2, T, 4) of torch.float32 on cpu: got (1, 2, T, 4) of torch.float64",
    ),
    "another device": (
        [torch.ones(1, 2, 1, 4, device="meta")] * 2,
        "of torch.float32 on cpu: got (1, 2, T, 4) of torch.float32 on meta",
    ),
    "one fewer": ([torch.ones(1, 2, 1, 4)], "the cache holds 2 tensors: got 1"),
    "not the same tokens": (
        [torch.ones(1, 2, 1, 4), torch.ones(1, 2, 2, 4)],
        "all tensors must bring the same number of tokens: got [1, 2]",
    ),
    "nothing": ([], "append takes tensors (..., T, width): got none"),
    "a vector": ([torch.ones(3)] * 2, "append takes tensors (..., T, width): got (3,), (3,)"),
    "no tensor": ([np.ones((1, 2, 1, 4)), "k"], "append takes tensors (..., T, width): got"),
}


@pytest.mark.parametrize(("new", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_with_both_values_and_changes_nothing(new, message):
    cache = Cache(8)
    cache.append(*FILLED)
    with pytest.raises(ValueError, match=re.escape(message)):
        cache.append(*new)
    assert cache.length == 6
    k, v = cache.append(*(2 * x[..., :2, :] for x in FILLED))  # the two places left are still free
    assert k.sum(-1).tolist() == v.sum(-1).tolist() == [[[4] * 6 + [8] * 2] * 2]


def test_a_first_append_that_does_not_fit_sets_nothing_aside():
    cache = Cache(8)
    with pytest.raises(ValueError, match="0 tokens held and 9 new are more than its max_seq_len 8"):
        cache.append(torch.ones(1, 9, 4))
    assert (cache.length, cache.nbytes) == (0, 0)
    assert cache.append(torch.ones(3, 8, 2))[0].shape == (3, 8, 2)


@pytest.mark.parametrize("length", [0, -1, 2.0, True, float("inf"), None, "8"])
def test_a_length_that_is_no_length_is_refused(length):
    with pytest.raises(
        ValueError, match=f"max_seq_len must be an integer, 1 or more: got {length!r}"
    ):
        Cache(length)


def test_a_length_from_numpy_is_welcome():
    assert Cache(np.int64(4)).append(torch.ones(1, 4, 2))[0].shape == (1, 4, 2)
