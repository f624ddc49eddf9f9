"""RoPE as a dial: a query and a key on circles, turned by their positions, computed in the page.

Each pair of features is a circle with its own speed, after Su et al. 2021,
https://arxiv.org/abs/2104.09864. Left out: stretched frequencies, and pairs (i, i + dim/2).
"""

from numbers import Integral

import numpy as np
import traitlets

from lib.widgets.attention_explorer import vectors
from lib.widgets.piece import HERE, Piece, module


class RopeDial(Piece):
    """A query and a key at positions m and n; `rope_dial(...)` makes one.

    `q` and `k` are what they are before they are turned. With a kernel, `m` and `n` are what the
    reader has moved them to, from 0 to `last`.
    """

    _esm = module("plane") + module("rope_dial")
    _css = Piece._css + (HERE / "rope_dial.css").read_text(encoding="utf-8")
    q = traitlets.List(traitlets.Float()).tag(sync=True)
    k = traitlets.List(traitlets.Float()).tag(sync=True)
    dim = traitlets.Int().tag(sync=True)
    theta = traitlets.Float().tag(sync=True)
    last = traitlets.Int().tag(sync=True)
    m = traitlets.Int().tag(sync=True)
    n = traitlets.Int().tag(sync=True)


def rope_dial(q, k, *, alt, dim=None, theta=10_000.0, m=5, n=2, last=64) -> RopeDial:
    """The score of q (D,) at position m and k (D,) at position n: D/2 circles, one for each pair.

    Pair i turns by theta^(-2i/dim) a token. Features from `dim` on do not turn, as with `Rope(dim)`
    on a wider head; all turn unless told otherwise. Positions go from 0 to `last`.

    >>> piece = rope_dial([1, 0, 0, 1], [1, 0, 0, 1], alt="two pairs", m=3, n=1)
    >>> piece, piece.dim, piece.m - piece.n
    (RopeDial: two pairs, 4, 2)

    Raises:
        ValueError: vectors that are odd, not equally wide or not finite, a `dim` that does not fit
            them, a theta below 1, or positions outside 0 to `last`.
    """
    q, k = (np.asarray(vector, dtype=float) for vector in (q, k))
    if q.ndim != 1 or k.shape != q.shape:
        raise ValueError(f"q and k must both be (D,), equally wide: got {q.shape} and {k.shape}")
    D = len(q)
    if D % 2 or not D:
        raise ValueError(f"q and k must be even and not empty, features turn in pairs: got {D}")
    dim = D if dim is None else dim
    if not _is_whole(dim) or dim % 2 or not 2 <= dim <= D:
        raise ValueError(f"dim must be even and in 2..{D}, the width of q: got {dim!r}")
    if not (np.isfinite(theta) and theta >= 1):
        raise ValueError(f"theta must be a finite number, 1 or more: got {theta}; 10000.0 is usual")
    if not _is_whole(last) or last < 1:
        raise ValueError(f"last must be an integer, 1 or more: got {last!r}")
    for name, position in (("m", m), ("n", n)):
        if not _is_whole(position) or not 0 <= position <= last:
            raise ValueError(f"{name} must be an integer in 0..{last}: got {position!r}")
    q, k = vectors("q", q, (D,)), vectors("k", k, (D,))
    theta, whole = float(theta), {"dim": int(dim), "last": int(last), "m": int(m), "n": int(n)}
    return RopeDial(alt, q=q, k=k, theta=theta, **whole)


def _is_whole(number) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)
