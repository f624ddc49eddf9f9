"""lib/positions.py: the base class, which does nothing in all three places."""

import torch

from lib.positions import NoPosition


def test_no_position_leaves_embeddings_queries_and_keys_as_they_are():
    x, q, positions = torch.randn(2, 3, 8), torch.randn(2, 4, 3, 2), torch.arange(3)
    assert NoPosition().embed(x, positions) is x
    assert NoPosition().rotate(q, positions) is q


def test_no_position_adds_nothing_to_the_scores():
    scores = torch.randn(2, 4, 3, 5)
    bias = NoPosition().bias(torch.arange(2, 5), torch.arange(5))
    assert torch.equal(scores + bias, scores)


def test_no_position_has_nothing_to_learn_or_to_save():
    assert not list(NoPosition().parameters()) and not NoPosition().state_dict()


def test_a_scheme_overrides_one_place_and_inherits_the_other_two():
    class Nearer(NoPosition):
        def bias(self, q_positions, k_positions):
            return -(q_positions[:, None] - k_positions).abs().float()[None]

    x, positions = torch.randn(1, 3, 8), torch.arange(3)
    assert Nearer().embed(x, positions) is x
    assert Nearer().bias(positions, positions)[0].tolist()[0] == [0, -1, -2]
