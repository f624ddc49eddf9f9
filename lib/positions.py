"""Where a token stands: the three places in which a model can be told.

    NoPosition    tells it nowhere; the base class of all the others

A scheme acts on the embeddings before the first layer (`embed`), on queries and keys (`rotate`), or
on the scores (`bias`), and inherits "nothing happens" for the other two. Positions are integer
tensors, so that a cache can say which ones it holds.
"""

from torch import nn


class NoPosition(nn.Module):
    """No encoding at all (NoPE). A subclass overrides one of the three methods.

    Without an encoding a decoder still knows a little of order from its causal mask: Haviv et al.
    2022, https://arxiv.org/abs/2203.16634

    >>> NoPosition().rotate("as it was", positions=None)
    'as it was'
    """

    def embed(self, x, positions):
        """Embeddings x (B, T, C) at positions (T,) -> x (B, T, C), before the first layer."""
        return x

    def rotate(self, x, positions):
        """Queries or keys x (B, H, T, D) at positions (T,) -> x (B, H, T, D), before the scores."""
        return x

    def bias(self, q_positions, k_positions):
        """Positions (T,) and (S,) -> (H, T, S), added to the scores; here 0.0, which fits all."""
        return 0.0
