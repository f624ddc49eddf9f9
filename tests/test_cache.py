"""lib/cache.py: everything comes back as it went in, and nothing is lost without a word.

Every kind of cache against full attention without one, against whole models, and Hugging Face's.
"""

import math
import re
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from lib.accounting import kv_cache_bytes
from lib.attention import Attention, attention, mask_to_bias
from lib.cache import Cache, Int8Cache, PagedCache, PagePool, SlidingWindowCache, to_int8
from lib.config import ModelConfig
from lib.positions import Alibi, NoPosition, Rope
from lib.transformer import Transformer, from_llama
from tests.test_transformer import noisy, widen

KINDS = {
    "plain": lambda: Cache(16),
    "window": lambda: SlidingWindowCache(4),
    "window and sinks": lambda: SlidingWindowCache(3, sinks=2),
    "int8": lambda: Int8Cache(16),
    "paged": lambda: PagedCache(PagePool(8, 3)),
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
chunks = st.lists(st.integers(0, 5), min_size=1, max_size=6)


def seeded(*shape, dtype=torch.float64, seed=0):
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return numbers.to(dtype)


def close(ours, theirs, atol=1e-10):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


# ---- The plain cache ----------------------------------------------------------------------------


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


def test_what_comes_back_is_a_writable_view_of_the_cache():
    cache = Cache(4)
    (rows,) = cache.append(torch.zeros(1, 2, 3))
    rows[:, 0] = 7.0
    assert torch.equal(cache.append(torch.zeros(1, 0, 3))[0][0, :, 0], torch.tensor([7.0, 0.0]))


def test_a_cache_that_began_in_inference_mode_goes_on_there_only():
    for begins, error in ((False, None), (True, RuntimeError)):
        cache, x = Cache(4), torch.ones(1, 1, 2)
        with torch.inference_mode(begins):
            cache.append(x)
        with torch.inference_mode():
            cache.append(x)
        if error:
            with pytest.raises(error, match="inference"):
                cache.append(x)
        else:
            assert cache.append(x)[0].shape == (1, 3, 2)


@settings(deadline=None)
@given(chunks)
def test_a_query_sees_what_is_not_behind_it(sizes):
    cache, end = Cache(32), 0
    for size in sizes:
        start, end = end, end + size
        cache.append(torch.ones(1, size, 2))
        visible = cache.visible(torch.arange(start, end))
        assert visible.tolist() == [[s <= t for s in range(end)] for t in range(start, end)]


# ---- What all kinds have in common --------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("first", [3, 7])  # tokens: less and more than a window
def test_changing_the_input_afterwards_does_not_change_the_cache(make, first):
    x, cache = torch.ones(1, first, 3), make()
    cache.append(x)
    x.zero_()
    (back,) = cache.append(torch.ones(1, 1, 3))
    assert back.min() == 1


@each_kind
def test_two_caches_share_nothing(make):
    one, two = make(), make()
    one.append(torch.ones(1, 2, 3))
    two.append(torch.zeros(1, 1, 3))
    assert (one.length, two.length) == (2, 1)
    (back,) = one.append(torch.ones(1, 1, 3))
    assert back.min() == 1 and back.shape == (1, 3, 3)


@each_kind
def test_no_gradient_flows_through_a_cache_and_no_graph_grows(make):
    x, cache = torch.randn(1, 2, 3, requires_grad=True), make()
    assert not cache.append(x)[0].requires_grad
    (back,) = cache.append(x)
    assert not back.requires_grad


@each_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rows_come_back_in_the_type_they_came_in_whatever_their_axes(make, dtype):
    for shape in [(3, 4), (2, 3, 4), (2, 5, 3, 4), (1, 2, 5, 3, 4)]:
        x, cache = seeded(*shape, dtype=dtype), make()
        cache.append(x)
        (back,) = cache.append(x[..., :1, :])
        assert back.dtype == dtype
        close(back, torch.cat([x, x[..., :1, :]], -2)[..., cache.positions, :], 0.02)


@each_kind
def test_one_tensor_or_three_of_different_widths(make):
    tensors = [seeded(2, 5, 4, 3, seed=0), seeded(2, 5, 4, 1, seed=1), seeded(2, 1, 4, 7, seed=2)]
    for some in (tensors[:1], tensors):
        back = make().append(*some)
        assert len(back) == len(some)
        for ours, theirs in zip(back, some):
            close(ours, theirs, 0.02)


@each_kind
def test_nothing_new_is_welcome_before_and_after(make):
    x, cache = seeded(1, 2, 3), make()
    assert cache.positions.tolist() == [] and (cache.length, cache.nbytes) == (0, 0)
    assert cache.append(x[:, :0])[0].shape == (1, 0, 3)
    cache.append(x)
    (back,) = cache.append(x[:, :0])
    close(back, x, 0.02)
    assert cache.length == 2 and cache.positions.tolist() == [0, 1]


# ---- Sliding window -----------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(chunks, st.integers(1, 6), st.integers(0, 3))
def test_a_window_returns_and_shows_exactly_what_its_queries_may_see(sizes, window, sinks):
    cache, end, x = SlidingWindowCache(window, sinks), 0, seeded(2, 32, 3)
    for size in sizes:
        start, end = end, end + size
        (rows,) = cache.append(x[:, start:end])
        positions = cache.positions.tolist()
        assert torch.equal(rows, x[:, positions]) and len(set(positions)) == len(positions)
        seen = cache.visible(torch.arange(start, end))
        for t, row in zip(range(start, end), seen.tolist()):
            expected = {s for s in range(t + 1) if t - s < window or s < sinks}
            assert {s for s, sees in zip(positions, row) if sees} == expected
        assert (cache.length, cache.nbytes) == (end, 2 * (window + sinks) * 3 * 8)


def test_memory_of_a_window_does_not_grow_and_a_single_step_copies_nothing():
    cache = SlidingWindowCache(3, sinks=1)
    cache.append(torch.zeros(1, 50, 2))
    places = set()
    for t in range(9):
        (rows,) = cache.append(torch.full((1, 1, 2), float(t)))
        places.add(rows.data_ptr())
        assert rows.shape == (1, 4, 2) and cache.nbytes == 4 * 2 * 4
    assert len(places) == 1 and cache.length == 59
    assert sorted(cache.positions.tolist()) == [0, 56, 57, 58]


def test_a_window_and_a_sequence_of_pages_have_no_length_of_their_own():
    window, pages = SlidingWindowCache(2), PagedCache(PagePool(9, 999))
    for cache in (window, pages):
        for _ in range(2):
            cache.append(torch.zeros(1, 4000, 2))
        assert cache.length == 8000
    assert window.nbytes == 2 * 2 * 4


def test_positions_asked_for_earlier_stay_as_they_were():
    cache = SlidingWindowCache(2)
    cache.append(torch.zeros(1, 2, 2))
    cache.append(torch.zeros(1, 1, 2))
    before = cache.positions
    cache.append(torch.zeros(1, 1, 2))
    assert (before.tolist(), cache.positions.tolist()) == ([2, 1], [2, 3])


# ---- int8 ---------------------------------------------------------------------------------------

SIZES = [1e-30, 1e-6, 1e-3, 1.0, 300.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
def test_no_number_in_int8_is_off_by_more_than_half_a_step(dtype, size):
    x = (size * seeded(2, 3, 50, 16)).to(dtype)
    (back,) = Int8Cache(50).append(x)
    largest = x.double().abs().amax(-1, keepdim=True)
    info = torch.finfo(dtype)
    rounding = 2 * largest * info.eps + info.smallest_normal * info.eps  # of what comes back
    off = (back.double() - x.double()).abs()
    assert (off <= largest / 127 / 2 + rounding + 2e-38).all()
    if dtype == torch.float64 and size > 1e-6:
        assert (off / (largest / 127)).max() > 0.499  # and the bound is reached
        assert (off / (largest / 127)).mean() == pytest.approx(0.25, abs=0.02)


def test_every_row_has_its_own_scale():
    x = seeded(2, 3, 4, 8)
    with_outlier = x.clone()
    with_outlier[1, 2, 3, 5] = 1e4
    (a,), (b,) = Int8Cache(4).append(x), Int8Cache(4).append(with_outlier)
    same = torch.ones(2, 3, 4, dtype=torch.bool)
    same[1, 2, 3] = False
    assert torch.equal(a[same], b[same])
    assert b[1, 2, 3].tolist() == [0.0] * 5 + [1e4] + [0.0] * 2  # the others of its row are lost


def test_codes_by_hand():
    codes, scale = to_int8(torch.tensor([[1.27, 0.013, -0.5], [-254.0, 3.1, 0.9]]))
    assert codes.tolist() == [[127, 1, -50], [-127, 2, 0]] and codes.dtype == torch.int8
    close(scale, torch.tensor([[0.01], [2.0]]), 1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_rows_of_zeros_and_of_the_smallest_numbers_there_are_stay_finite(dtype):
    tiny = torch.finfo(dtype).tiny
    x = torch.tensor([[0.0, 0.0], [tiny / 4, -tiny / 4], [1.0, tiny]], dtype=dtype)
    (back,) = Int8Cache(3).append(x)
    assert to_int8(x)[1].min() > 0  # no row is divided by 0
    assert back[0].tolist() == [0, 0] and back[2].tolist() == [1, 0]
    close(back[1], x[1], tiny)


def test_rows_in_int8_are_rounded_once_and_stay_as_they_are():
    x, cache = seeded(1, 9, 5), Int8Cache(9)
    (first,) = cache.append(x[:, :3])
    for t in range(3, 9):
        (back,) = cache.append(x[:, t : t + 1])
    assert torch.equal(back[:, :3], first)
    assert torch.equal(back, Int8Cache(9).append(x)[0])
    close(Int8Cache(9).append(back)[0], back)  # what is on the grid stays there


@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.float16, 4), (torch.float32, 4), (torch.float64, 8)]
)
def test_int8_holds_a_byte_a_number_and_a_scale_a_row(dtype, scale):
    cache = Int8Cache(10)
    cache.append(*[torch.ones(2, 3, 4, 16, dtype=dtype)] * 2)
    assert cache.nbytes == 2 * 2 * 3 * 10 * (16 + scale)


def test_what_has_no_scale_is_refused_and_changes_nothing():
    cache, x = Int8Cache(4), torch.ones(1, 2, 3)
    finite = "the largest number of a row sets its scale, be it finite: got"
    integers = "only floating point numbers can be rounded to int8: got torch.int64"
    one_row = torch.tensor([[1.0], [-math.inf]]) * x
    for wrong, error, message in [
        (x.long(), TypeError, integers),
        (x / 0, ValueError, f"{finite} inf"),
        (x * math.nan, ValueError, f"{finite} nan"),
        (one_row, ValueError, f"{finite} inf"),
        (x[..., :0], ValueError, "a row needs a number to set its scale: got shape (1, 2, 0)"),
    ]:
        with pytest.raises(error, match=re.escape(message)):
            cache.append(x, wrong)
        assert (cache.length, cache.nbytes) == (0, 0)
    cache.append(x)
    with pytest.raises(ValueError, match="be it finite: got nan"):
        cache.append(x * math.nan)
    assert cache.length == 2
    assert torch.equal(cache.append(x)[0], torch.ones(1, 4, 3))


# ---- Pages --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(1, 4))
def test_sequences_on_one_pool_never_disturb_each_other(data, page_size):
    """New ones, forks, appends and releases in any order, against lists of rows and of pages."""
    pool, alive, drawn = PagePool(12, page_size), [], 0
    for _ in range(data.draw(st.integers(1, 25))):
        do = data.draw(st.sampled_from(["new", "fork", "append", "append", "append", "release"]))
        which = data.draw(st.integers(0, len(alive) - 1)) if alive else None
        if do == "new" or not alive:
            alive.append((PagedCache(pool), []))
        elif do == "fork":
            cache, rows = alive[which]
            alive.append((PagedCache(pool, prefix=cache), list(rows)))
        elif do == "append":
            n, (cache, rows) = data.draw(st.integers(0, 5)), alive[which]
            started = n > 0 and len(rows) % page_size > 0
            needed = -(-(len(rows) + n) // page_size) - len(cache.table)
            needed += started and pool.uses[cache.table[-1]] > 1
            new = torch.arange(drawn, drawn + n).reshape(1, n, 1)
            before = list(cache.table), list(pool.uses), len(rows)
            if needed > pool.free:
                with pytest.raises(ValueError, match="the pool is full"):
                    cache.append(new)
                assert (cache.table, pool.uses, cache.length) == before
            else:
                rows += new.flatten().tolist()
                assert cache.append(new)[0].flatten().tolist() == rows
            drawn += n
        else:
            alive.pop(which)[0].release()
        assert pool.uses == [sum(c.table.count(p) for c, _ in alive) for p in range(12)]
        assert pool.free == pool.uses.count(0)
        for cache, rows in alive:
            assert cache.length == len(rows) and len(cache.table) == -(-len(rows) // page_size)
            if rows:
                nothing = torch.ones(1, 0, 1, dtype=torch.long)
                assert cache.append(nothing)[0].flatten().tolist() == rows


def test_a_prefix_is_shared_and_its_started_page_copied_when_it_is_written_to():
    pool, x = PagePool(8, 4), seeded(1, 20, 2)
    one = PagedCache(pool)
    one.append(x[:, :10])
    two, three = PagedCache(pool, prefix=one), PagedCache(pool, prefix=one)
    assert pool.free == 5 and one.table == two.table == three.table  # sharing takes nothing
    (b,) = two.append(x[:, 10:11])
    assert pool.free == 4 and two.table[:2] == one.table[:2] and two.table[2] != one.table[2]
    (a,) = one.append(x[:, 11:12])  # the page is shared with three still: one gets a copy, too
    assert pool.free == 3 and len({c.table[2] for c in (one, two, three)}) == 3
    (c,) = three.append(x[:, 12:13])  # now it has the page for itself
    assert pool.free == 3
    for rows, last in ((a, 11), (b, 10), (c, 12)):
        assert torch.equal(rows, torch.cat((x[:, :10], x[:, last : last + 1]), 1))


def test_a_prefix_that_ends_with_a_page_leaves_nothing_to_copy():
    pool = PagePool(4, 4)
    one = PagedCache(pool)
    one.append(torch.ones(1, 8, 2))
    two = PagedCache(pool, prefix=one)
    two.append(torch.zeros(1, 1, 2))
    assert two.table == [*one.table, 2] and pool.free == 1


def test_a_prefix_outlives_the_sequence_it_came_from():
    pool, x = PagePool(4, 4), seeded(1, 6, 2)
    one = PagedCache(pool)
    one.append(x)
    two = PagedCache(pool, prefix=one)
    one.release()
    assert pool.free == 2  # what two has is not free
    PagedCache(pool).append(0 * x[:, :4])
    assert torch.equal(two.append(x[:, :1])[0], torch.cat((x, x[:, :1]), 1))


def test_released_pages_are_used_again_and_the_pool_never_grows():
    pool = PagePool(3, 4)
    for n in (12, 1, 9, 12):
        cache = PagedCache(pool)
        cache.append(torch.ones(1, n, 2))
        assert pool.nbytes == 3 * 4 * 2 * 4
        assert cache.nbytes == math.ceil(n / 4) * 4 * 2 * 4
        assert len(cache.table) * pool.page_size - cache.length == -n % 4  # wasted
        cache.release()
        assert pool.free == 3 and (cache.length, cache.nbytes, cache.table) == (0, 0, [])
    cache.release()  # twice does no harm
    assert pool.uses == [0, 0, 0]


def test_a_pool_without_enough_free_pages_refuses_and_overwrites_nothing():
    pool, x = PagePool(4, 2), seeded(1, 9, 3)
    one = PagedCache(pool)
    one.append(x[:, :5])
    two = PagedCache(pool, prefix=one)
    two.append(x[:, 5:6])  # copies the started page: none is free now
    third = PagedCache(pool, prefix=one)
    for cache, n in ((one, 4), (two, 1), (third, 1), (PagedCache(pool), 1)):
        before = list(cache.table), list(pool.uses), cache.length
        needed = {one: 3, two: 1, third: 1}.get(cache, 1)
        message = f"the pool is full: {needed} pages needed, 0 of 4 are free; release a sequence"
        with pytest.raises(ValueError, match=re.escape(message)):
            cache.append(x[:, :n])
        assert (cache.table, pool.uses, cache.length) == before
    assert torch.equal(one.append(x[:, :0])[0], x[:, :5])
    assert torch.equal(two.append(x[:, :0])[0], x[:, :6])
    third.release()
    assert torch.equal(one.append(x[:, 5:6])[0], x[:, :6])  # its own page has room


def test_a_first_append_that_a_pool_refuses_sets_nothing_aside():
    pool = PagePool(2, 2)
    with pytest.raises(ValueError, match="3 pages needed, 2 of 2 are free"):
        PagedCache(pool).append(torch.ones(1, 5, 2))
    assert (pool.nbytes, pool.free) == (0, 2)
    PagedCache(pool).append(torch.ones(3, 4, 7))


def test_pages_stay_free_if_memory_cannot_be_set_aside(monkeypatch):
    pool = PagePool(2, 2)
    cache = PagedCache(pool)

    def none_left(*_):
        raise RuntimeError("not enough memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "new_empty", none_left)
        with pytest.raises(RuntimeError, match="not enough memory"):
            cache.append(torch.ones(1, 3, 2))
    assert (pool.free, pool.nbytes, cache.table, cache.length) == (2, 0, [], 0)
    assert torch.equal(cache.append(torch.ones(1, 3, 2))[0], torch.ones(1, 3, 2))


def test_sequences_of_one_pool_hold_rows_of_one_kind():
    pool = PagePool(4, 2)
    PagedCache(pool).append(torch.ones(1, 2, 3))
    with pytest.raises(ValueError, match=re.escape("holds (1, T, 3) of torch.float32 on cpu: got")):
        PagedCache(pool).append(torch.ones(1, 2, 4))
    assert pool.free == 3


def test_a_prefix_that_is_none_is_refused():
    pool, other = PagePool(4, 2), PagedCache(PagePool(4, 2))
    released = PagedCache(pool)
    released.release()
    for prefix in (other, released, Cache(4), [0, 1]):
        message = f"prefix must be a PagedCache on the same pool: got {type(prefix).__name__}"
        with pytest.raises(ValueError, match=re.escape(message)):
            PagedCache(pool, prefix=prefix)
    assert pool.free == 4
    with pytest.raises(TypeError, match="pool must be a PagePool: got int"):
        PagedCache(4)


def test_use_after_release_is_refused():
    pool = PagePool(4, 2)
    cache = PagedCache(pool)
    cache.append(torch.ones(1, 3, 2))
    cache.release()
    with pytest.raises(ValueError, match="this cache was released, others may have its pages"):
        cache.append(torch.ones(1, 1, 2))
    assert pool.free == 4 and cache.positions.tolist() == []


# ---- Against full attention ---------------------------------------------------------------------

CUTS = {
    "prefill": [12], "steps": [1] * 12, "chunks": [5, 1, 4, 2], "prefill and steps": [7, *[1] * 5],
    "twos": [2] * 6,
}  # fmt: skip
each_cut = pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
SCHEMES = {"rope": lambda: Rope(4), "alibi": lambda: Alibi(6), "none": NoPosition}
PADDED = torch.arange(12) >= torch.tensor([[0], [5]])  # (B, S): the second has 5 on its left


def rule(cache, T):
    """Which key a query may see, (T, T), from the definition."""
    t, s = torch.arange(T)[:, None], torch.arange(T)
    if not isinstance(cache, SlidingWindowCache):
        return s <= t
    return (s <= t) & ((t - s < cache.window) | (s < cache.sinks))


def expected(layer, x, mask, cache):
    """All tokens at once, without a cache, under the mask that the cache stands for."""
    q, k, v, bias = layer.qkv(x, mask=mask)
    if isinstance(cache, Int8Cache):
        k, v = ((codes * scale).to(x) for codes, scale in map(to_int8, (k, v)))
    y = attention(q, k, v, bias + mask_to_bias(rule(cache, x.shape[1])))
    return layer.wo(y.transpose(1, 2).flatten(2))


def in_pieces(module, x, mask, caches, cuts):
    parts, end = [], 0
    for part in x.split(cuts, 1):
        end += part.shape[1]
        seen = None if mask is None else mask[:, :end]
        parts.append(module(part, mask=seen, **caches))
    return torch.cat(parts, 1)


@torch.no_grad()
@each_kind
@each_cut
@pytest.mark.parametrize("K", [6, 2, 1])
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("mask", [None, PADDED], ids=["", "padded"])
def test_a_layer_with_any_cache_is_full_attention_under_its_mask(make, cuts, K, scheme, mask):
    torch.manual_seed(0)
    layer = Attention(24, 6, K, position=scheme()).double()
    x, cache = seeded(2, 12, 24), make()
    close(in_pieces(layer, x, mask, {"cache": cache}, cuts), expected(layer, x, mask, cache))
    single, x, cache = layer.float(), x.float(), make()
    if not isinstance(cache, Int8Cache):  # there one rounding more may move a code
        ours = in_pieces(single, x, mask, {"cache": cache}, cuts)
        close(ours, expected(single, x, mask, cache), 1e-5)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(1, 7), st.integers(0, 3),
    st.integers(0, 4),
)  # fmt: skip
@torch.no_grad()
def test_a_window_is_full_attention_under_its_mask_for_any_chunks(cuts, window, sinks, padded):
    torch.manual_seed(0)
    layer, T = Attention(8, 4, 2, position=Alibi(4)).double(), sum(cuts)
    x, cache = seeded(2, T, 8), SlidingWindowCache(window, sinks)
    mask = torch.arange(T) >= torch.tensor([[0], [min(padded, T - 1)]])
    close(in_pieces(layer, x, mask, {"cache": cache}, cuts), expected(layer, x, mask, cache))


# ---- Whole models -------------------------------------------------------------------------------

LLAMA = ModelConfig(vocab_size=50, n_layers=3, d_model=24, n_heads=6, n_kv_heads=2, d_ff=40)
CONFIGS = {
    "llama": LLAMA, "mqa": replace(LLAMA, n_kv_heads=1), "mha": replace(LLAMA, n_kv_heads=6),
    "alibi": replace(LLAMA, position="alibi"), "nope": replace(LLAMA, position="none"),
}  # fmt: skip
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def some_model(config):
    torch.manual_seed(0)
    return Transformer(config).double().eval()


def some_ids(T=12):
    return torch.randint(50, (2, T), generator=torch.Generator().manual_seed(1))


class Under(NoPosition):
    """A position scheme, and a mask on top, for a model without a cache."""

    def __init__(self, scheme, visible):
        super().__init__()
        self.rotate, self.scheme, self.mask = scheme.rotate, scheme, mask_to_bias(visible)

    def bias(self, q_positions, k_positions):
        return self.scheme.bias(q_positions, k_positions) + self.mask


def under(model, visible):
    model = deepcopy(model)
    for block in model.blocks:
        block.attention.position = Under(block.attention.position, visible)
    return model


@torch.no_grad()
@each_kind
@each_cut
@each_config
@pytest.mark.parametrize("mask", [None, PADDED], ids=["", "padded"])
def test_no_cache_changes_the_logits_of_a_model(make, cuts, config, mask):
    model, ids = some_model(config), some_ids()
    caches = [make() for _ in model.blocks]
    ours = in_pieces(model, ids, mask, {"caches": caches}, cuts)
    theirs = under(model, rule(caches[0], 12))(ids, mask=mask)
    if isinstance(caches[0], Int8Cache):
        assert 1e-6 < (ours - theirs).abs().max() < 0.05  # of logits near 3
        theirs = model(ids, caches=[make() for _ in model.blocks], mask=mask)  # in one go
    close(ours, theirs)
    if config is LLAMA and not isinstance(caches[0], Int8Cache):
        caches = [make() for _ in model.blocks]
        single = in_pieces(model.float(), ids, mask, {"caches": caches}, cuts)
        close(single.double(), theirs, 1e-5)


HF = {
    "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 6, "rms_norm_eps": 1e-5, "max_position_embeddings": 64,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
EACH_TYPE = pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["float32", "float64"]
)


def both(theirs, K, dtype):
    """Their model, its weights large enough to say something, and ours with these weights."""
    theirs = noisy(theirs, std=0.2).to(dtype)
    config = replace(LLAMA, n_kv_heads=K)
    ours = Transformer(config).to(dtype)
    ours.load_state_dict(from_llama(theirs.state_dict(), config))
    if dtype == torch.float64:
        widen(theirs, config)
    return theirs, ours


@torch.no_grad()
@pytest.mark.parametrize("K", [6, 2, 1])
@each_cut
@EACH_TYPE
@pytest.mark.parametrize("kind", ["plain", "paged"])
def test_logits_are_those_of_hugging_face_s_llama_with_its_cache(kind, cuts, K, dtype, atol):
    torch.manual_seed(0)
    theirs, ours = both(LlamaForCausalLM(LlamaConfig(num_key_value_heads=K, **HF)), K, dtype)
    past, ids = DynamicCache(), some_ids()
    parts = [theirs(part, past_key_values=past).logits for part in ids.split(cuts, 1)]
    caches = [KINDS[kind]() for _ in ours.blocks]
    expected = torch.cat(parts, 1)
    close(in_pieces(ours, ids, None, {"caches": caches}, cuts), expected, atol)
    assert expected.std() > 0.3


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 4, 11, 30])
@each_cut
@EACH_TYPE
def test_a_window_is_that_of_hugging_face_s_mistral(window, cuts, dtype, atol):
    torch.manual_seed(0)
    config = MistralConfig(num_key_value_heads=2, sliding_window=window, **HF)
    theirs, ours = both(MistralForCausalLM(config), 2, dtype)
    ids, caches = some_ids(), [SlidingWindowCache(window) for _ in ours.blocks]
    got = in_pieces(ours, ids, None, {"caches": caches}, cuts)
    close(got, theirs(ids, use_cache=False).logits, atol)
    if window < 12:
        assert (ours(ids) - got).abs().max() > 1e-3  # the window matters


# ---- Bytes --------------------------------------------------------------------------------------

BYTES = {  # caches for 30 tokens: how to make one, config, length and bytes a number to predict for
    "plain": (lambda: Cache(30), {}, 30, 8),
    "window": (lambda: SlidingWindowCache(5), {"window": 5}, 30, 8),
    "window and sinks": (lambda: SlidingWindowCache(5, 2), {"window": 7}, 30, 8),
    "int8": (lambda: Int8Cache(30), {}, 30, 1 + 8 / 4),  # a scale of 8 bytes for a row of 4
    "paged": (lambda: PagedCache(PagePool(9, 4)), {}, 32, 8),  # whole pages
}


@torch.no_grad()
@pytest.mark.parametrize("case", BYTES.values(), ids=BYTES)
@each_config
def test_bytes_held_are_bytes_predicted(case, config):
    make, other, seq_len, each = case
    model, ids = some_model(config), some_ids(30)
    caches = [make() for _ in model.blocks]
    model(ids[:, :20], caches=caches)
    for t in range(20, 30):
        model(ids[:, t : t + 1], caches=caches)
    predicted = kv_cache_bytes(replace(config, **other), seq_len, batch=2, bytes_per_number=each)
    assert sum(cache.nbytes for cache in caches) == predicted


# ---- What is refused ----------------------------------------------------------------------------

FILLED = (torch.ones(1, 2, 6, 4), torch.ones(1, 2, 6, 4))
REFUSED = {
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


@each_kind
@pytest.mark.parametrize(("new", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_with_both_values_and_changes_nothing(make, new, message):
    cache = make()
    cache.append(*FILLED)
    twin = deepcopy(cache)
    with pytest.raises(ValueError, match=re.escape(message)):
        cache.append(*new)
    assert (cache.length, cache.nbytes) == (6, twin.nbytes)
    assert cache.positions.tolist() == twin.positions.tolist()
    more = [2 * x[..., :2, :] for x in FILLED]
    for ours, theirs in zip(cache.append(*more), twin.append(*more)):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", [Cache, Int8Cache])
def test_a_token_too_many_is_refused_and_overwrites_nothing(kind):
    cache = kind(8)
    cache.append(*FILLED)
    message = "the cache is full: 6 tokens held and 3 new are more than its max_seq_len 8"
    with pytest.raises(ValueError, match=message):
        cache.append(*[torch.ones(1, 2, 3, 4)] * 2)
    assert cache.length == 6
    k, v = cache.append(*(2 * x[..., :2, :] for x in FILLED))  # the two places left are still free
    assert k.sum(-1).tolist() == v.sum(-1).tolist() == [[[4] * 6 + [8] * 2] * 2]


@pytest.mark.parametrize("kind", [Cache, Int8Cache])
def test_a_first_append_that_does_not_fit_sets_nothing_aside(kind):
    cache = kind(8)
    with pytest.raises(ValueError, match="0 tokens held and 9 new are more than its max_seq_len 8"):
        cache.append(torch.ones(1, 9, 4))
    assert (cache.length, cache.nbytes) == (0, 0)
    assert cache.append(torch.ones(3, 8, 2))[0].shape == (3, 8, 2)


MADE = {
    "max_seq_len": (Cache, Int8Cache),
    "window": (SlidingWindowCache,),
    "n_pages": (lambda n: PagePool(n, 4),),
    "page_size": (lambda n: PagePool(4, n),),
}


@pytest.mark.parametrize("size", [0, -1, 2.0, True, float("inf"), None, "8"])
@pytest.mark.parametrize("name", MADE)
def test_a_size_that_is_no_size_is_refused(name, size):
    for make in MADE[name]:
        with pytest.raises(ValueError, match=f"{name} must be an integer, 1 or more: got {size!r}"):
            make(size)


@pytest.mark.parametrize("sinks", [-1, 1.0, True, None])
def test_sinks_that_are_no_number_of_tokens_are_refused(sinks):
    with pytest.raises(ValueError, match=f"sinks must be an integer, 0 or more: got {sinks!r}"):
        SlidingWindowCache(4, sinks=sinks)


def test_sizes_from_numpy_are_welcome():
    four = np.int64(4)
    for cache in (Cache(four), Int8Cache(four), SlidingWindowCache(four, four)):
        assert cache.append(torch.ones(1, 4, 2))[0].shape == (1, 4, 2)
    assert PagedCache(PagePool(four, four)).append(torch.ones(1, 4, 2))[0].shape == (1, 4, 2)
