"""lib/reference.py against torch, and against what the formulas say."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lib.reference import cross_entropy, entropy, softmax

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
