"""lib/reference.py against torch, and against what the formulas say."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lib.reference import attention, attention_weights, causal_mask, cross_entropy, entropy, softmax

finite = st.floats(-1e4, 1e4)
scores = arrays(float, array_shapes(min_dims=1, max_dims=3, max_side=6), elements=finite)


@given(scores, st.floats(0.05, 50))
def test_softmax_is_torchs_softmax_of_the_scores_over_the_temperature(z, temperature):
    theirs = torch.softmax(torch.from_numpy(z) / temperature, -1).numpy()
    np.testing.assert_allclose(softmax(z, temperature), theirs, atol=1e-14)


@given(scores)
def test_softmax_rows_are_probabilities(z):
    p = softmax(z)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-12)


@given(scores, finite)
def test_a_constant_added_to_all_scores_changes_nothing(z, shift):
    np.testing.assert_allclose(softmax(z + shift), softmax(z), atol=1e-8)


def test_softmax_along_another_axis():
    z = np.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(softmax(z, axis=0), softmax(z.T).T)


def test_softmax_of_a_row_with_nothing_to_see_gives_zeros_not_nan():
    z = np.array([[-np.inf, -np.inf], [0.0, -np.inf]])
    assert softmax(z).tolist() == [[0.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("temperature", [0, -1.0, np.nan, np.inf])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be a positive number, got"):
        softmax(np.zeros(3), temperature)


def test_entropy_of_certainty_is_zero_and_of_v_equal_chances_is_log2_v():
    assert entropy(np.array([0.0, 1.0, 0.0])) == 0
    np.testing.assert_allclose(entropy(np.full((2, 8), 1 / 8)), [3.0, 3.0])


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 9))
def test_cross_entropy_is_torchs(seed, T, V):
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(scale=20, size=(T, V)), rng.integers(0, V, T)
    theirs = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(targets))
    np.testing.assert_allclose(cross_entropy(logits, targets), theirs.item(), atol=1e-12)


def test_cross_entropy_of_logits_in_the_thousands_does_not_overflow():
    assert cross_entropy(np.array([[5000.0, 0.0]]), np.array([1])) == 5000


def test_nan_scores_stay_nan_and_do_not_become_certainty():
    assert np.isnan(softmax(np.array([np.nan, 1.0, 2.0]))).all()


def test_entropy_of_certainty_prints_as_zero():
    assert str(entropy(np.array([1.0, 0.0]))) == "0.0"


def test_cross_entropy_names_what_does_not_fit():
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(3,\)"):
        cross_entropy(np.zeros((2, 3)), np.zeros(3, int))
    with pytest.raises(TypeError, match="targets are ids, integers: got an array of bool"):
        cross_entropy(np.zeros((2, 3)), np.array([True, False]))
    with pytest.raises(ValueError, match=r"targets must be in 0\.\.2: got 0\.\.3"):
        cross_entropy(np.zeros((2, 3)), np.array([0, 3]))


# ---- attention ----------------------------------------------------------------------------------


def qkv(seed, T, S, D, Dv):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(T, D)), rng.normal(size=(S, D)), rng.normal(size=(S, Dv))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 5), st.integers(1, 6))
def test_attention_is_torchs_for_any_mask(seed, T, S, D):
    q, k, v = qkv(seed, T, S, D, D)
    mask = np.random.default_rng(seed).random((T, S)) < 0.6
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *(torch.tensor(x)[None] for x in (q, k, v)), attn_mask=torch.tensor(mask)
    )
    np.testing.assert_allclose(attention(q, k, v, mask), theirs[0].numpy(), atol=1e-13)


def test_attention_by_hand():
    q, k = [[2.0, 0.0, 0.0, 0.0]], [[np.log(3), 0, 0, 0], [0.0, 5, 5, 5]]
    # q·k is 2 ln 3 and 0; over √4 that is ln 3 and 0; the weights are 3 to 1
    np.testing.assert_allclose(attention_weights(q, k), [[0.75, 0.25]])
    np.testing.assert_allclose(attention(q, k, [[4.0, 0.0], [0.0, 8.0]]), [[3.0, 2.0]])


def test_a_causal_mask_is_aligned_at_the_bottom_right():
    assert causal_mask(2, 4).tolist() == [[True, True, True, False], [True] * 4]
    np.testing.assert_array_equal(causal_mask(5, 5), np.tri(5, dtype=bool))


def test_a_query_that_may_see_nothing_gets_zeros():
    q, k, v = qkv(0, 2, 3, 4, 5)
    mask = np.array([[False] * 3, [True] * 3])
    assert attention(q, k, v, mask)[0].tolist() == [0] * 5
    assert attention_weights(q, k, mask).sum(1).tolist() == [0, pytest.approx(1)]


def test_attention_names_what_does_not_fit():
    q, k, v = qkv(0, 2, 3, 4, 5)
    with pytest.raises(
        ValueError, match=r"q must be \(T, D\) and k \(S, D\): got \(2, 4\) and \(3, 5\)"
    ):
        attention(q, v, v)
    with pytest.raises(ValueError, match=r"one for each of the 3 keys: got \(2, 5\)"):
        attention(q, k, v[:2])
    with pytest.raises(ValueError, match=r"mask must be \(T, S\) = \(2, 3\): got \(3, 2\)"):
        attention(q, k, v, np.ones((3, 2), dtype=bool))
    with pytest.raises(TypeError, match=r"mask must be boolean, True = may be seen: got float64"):
        attention(q, k, v, np.ones((2, 3)))
    with pytest.raises(ValueError, match="got T=3, S=2"):
        causal_mask(3, 2)
