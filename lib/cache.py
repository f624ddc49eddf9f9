"""What a layer remembers of the tokens it has seen, so that they need not be computed again.

    Cache    everything, up to a length that is set aside once

One cache per layer, passed to `forward` by whoever generates. A cache stores rows and never learns
which attention it serves: how much memory a variant takes is what it appends. It is also the only
counter of positions. Left out: gradients, which do not flow through a cache.
"""

from numbers import Integral

import torch


class Cache:
    """Room for `max_seq_len` tokens, allocated when the first ones come.

    `append` writes any tensors (..., T, width) behind those it holds, along axis -2, and returns
    everything so far: keys and values, or a latent, or whatever a layer wants back next time.
    `length` counts the tokens; `nbytes` is the memory set aside, whether filled or not.

    >>> cache = Cache(max_seq_len=8)
    >>> k, v = cache.append(torch.ones(1, 2, 5, 4), torch.ones(1, 2, 5, 4))
    >>> k, v = cache.append(torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 4))
    >>> tuple(k.shape), cache.length, cache.nbytes  # 2 tensors · 2 · 8 · 4 numbers of 4 bytes
    ((1, 2, 6, 4), 6, 512)
    """

    def __init__(self, max_seq_len):
        whole = isinstance(max_seq_len, Integral) and not isinstance(max_seq_len, bool)
        if not whole or max_seq_len < 1:
            raise ValueError(f"max_seq_len must be an integer, 1 or more: got {max_seq_len!r}")
        self.max_seq_len = max_seq_len
        self.length = 0
        self._held = ()  # tensors (..., max_seq_len, width), of which the first `length` rows count

    @property
    def positions(self):
        """The position of every token held, (length,)."""
        return torch.arange(self.length, device=self._held[0].device if self._held else None)

    @property
    def nbytes(self):
        return sum(held.nbytes for held in self._held)

    def append(self, *new):
        """Tensors (..., T, width) -> a tuple of all so far (..., length, width), views of ours.

        Raises ValueError, and changes nothing, if there is no room left, or if a tensor differs
        from what is held in more than T.
        """
        length = self.length + self._check(new)
        self._held = self._held or tuple(map(self._set_aside, new))
        for held, x in zip(self._held, new):
            held[..., self.length : length, :] = x.detach()  # or every step would grow one graph
        self.length = length
        return tuple(held[..., : self.length, :] for held in self._held)

    def _set_aside(self, x):
        return x.new_empty(*x.shape[:-2], self.max_seq_len, x.shape[-1])

    def _check(self, new):
        """Return T, the number of new tokens, or say what does not fit."""
        if not new or not all(isinstance(x, torch.Tensor) and x.ndim >= 2 for x in new):
            got = ", ".join(str(tuple(getattr(x, "shape", [type(x).__name__]))) for x in new)
            raise ValueError(f"append takes tensors (..., T, width): got {got or 'none'}")
        lengths = [x.shape[-2] for x in new]
        if len(set(lengths)) > 1:
            raise ValueError(f"all tensors must bring the same number of tokens: got {lengths}")
        if self._held and len(new) != len(self._held):
            raise ValueError(f"the cache holds {len(self._held)} tensors: got {len(new)}")
        for held, x in zip(self._held, new):
            if _kind(held) != _kind(x):
                raise ValueError(f"the cache holds {_kind(held)}: got {_kind(x)}")
        if self.length + lengths[0] > self.max_seq_len:
            raise ValueError(
                f"the cache is full: {self.length} tokens held and {lengths[0]} new are more than "
                f"its max_seq_len {self.max_seq_len}; make it longer, or stop here"
            )
        return lengths[0]


def _kind(x):
    """Everything about a tensor that must not change from one append to the next."""
    shape = ", ".join(map(str, (*x.shape[:-2], "T", x.shape[-1])))
    return f"({shape}) of {x.dtype} on {x.device}"
