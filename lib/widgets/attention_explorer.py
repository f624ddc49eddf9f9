"""One query over the words of a sentence, in two dimensions, computed in the page.

All vectors are arrows: the query and the keys can be moved, and so can the temperature. Left out:
masks, several heads, and more than two dimensions, which no plane shows.
"""

import numpy as np
import traitlets

from lib.widgets.piece import HERE, Piece, module


class AttentionExplorer(Piece):
    """Words with their vectors in the plane; `attention_explorer(...)` makes one.

    `q` is one query, `k` and `v` have a row for each word, `chosen` is the word whose key the
    sliders move, None for the query. With a kernel, they are what the reader has moved them to.
    """

    _esm = module("plane") + module("attention_explorer")
    _css = Piece._css + (HERE / "attention_explorer.css").read_text(encoding="utf-8")
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    query_of = traitlets.Unicode().tag(sync=True)
    q = traitlets.List(traitlets.Float(), minlen=2, maxlen=2).tag(sync=True)
    k = traitlets.List(traitlets.List(traitlets.Float(), minlen=2, maxlen=2)).tag(sync=True)
    v = traitlets.List(traitlets.List(traitlets.Float(), minlen=2, maxlen=2)).tag(sync=True)
    temperature = traitlets.Float().tag(sync=True)
    chosen = traitlets.Int(None, allow_none=True).tag(sync=True)
    key_axes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    value_axes = traitlets.List(traitlets.Unicode()).tag(sync=True)


def attention_explorer(
    words, q, k, v, *, alt, query_of="", temperature=2**0.5, chosen=None, key_axes=(), value_axes=()
) -> AttentionExplorer:
    """softmax(q·k / temperature) v for one query q (2,) over S words: k (S, 2) and v (S, 2).

    `query_of` names the token that asks. The temperature is √d for d = 2 unless told otherwise.
    `key_axes` and `value_axes` say in words what the two dimensions stand for: (to the right, up).

    >>> piece = attention_explorer(["a", "dog"], [2, 1], [[1, 0], [0, 3]], np.eye(2), alt="a dog")
    >>> piece, piece.k
    (AttentionExplorer: a dog, [[1.0, 0.0], [0.0, 3.0]])

    Raises:
        ValueError: no words, vectors that do not fit them or are not finite, a temperature that is
            not positive, a `chosen` that is no word's number, or axes that are not two.
    """
    if isinstance(words, str):
        raise ValueError(f"words is a list of strings, got {words!r}: try {words.split()}")
    words = [str(word) for word in words]
    if not words:
        raise ValueError("words needs at least one word, got none")
    S = len(words)
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be a positive number, got {temperature}: 1.0 is plain")
    if chosen is not None and chosen not in range(S):
        raise ValueError(f"chosen must be None, for the query, or in 0..{S - 1}: got {chosen!r}")
    for name, axes in (("key_axes", key_axes), ("value_axes", value_axes)):
        if isinstance(axes, str) or len(axes) not in (0, 2):
            raise ValueError(f"{name} names 2 axes, or none: got {axes!r}")
    return AttentionExplorer(
        alt,
        words=words,
        query_of=query_of,
        q=vectors("q", q, (2,)),
        k=vectors("k", k, (S, 2)),
        v=vectors("v", v, (S, 2)),
        temperature=float(temperature),
        chosen=None if chosen is None else int(chosen),
        key_axes=list(key_axes),
        value_axes=list(value_axes),
    )


def vectors(name: str, given, shape: tuple) -> list:
    """Finite numbers of the given shape as lists, or an error that says what was given instead."""
    array = np.asarray(given, dtype=float)
    if array.shape != shape:
        rows = f", a row for each of {shape[0]} words" if len(shape) > 1 else ""
        raise ValueError(f"{name} must have shape {shape}{rows}: got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must hold finite numbers: got {array.tolist()}")
    return array.tolist()
