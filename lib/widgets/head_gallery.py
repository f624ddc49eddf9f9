"""The attention maps of every head on several sequences: choose a head, move along the tokens.

What is drawn is what the model computed; the page only shows it. Left out: computing maps of other
text, for which a page would need the model.
"""

import base64

import numpy as np
import traitlets

from lib.figures import visible
from lib.widgets.piece import HERE, Piece, module


class HeadGallery(Piece):
    """Maps (L, H, T, T) over sequences of tokens; `head_gallery(...)` makes one.

    `sequences` holds names, tokens and maps, a byte for each weight: 255 is 1. `chosen` is where
    the reader stands: which sequence, layer, head, and query token.
    """

    _esm = module("plane") + module("head_gallery")
    _css = Piece._css + (HERE / "head_gallery.css").read_text(encoding="utf-8")
    n_layers = traitlets.Int().tag(sync=True)
    n_heads = traitlets.Int().tag(sync=True)
    sequences = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.List(traitlets.Int(), minlen=4, maxlen=4).tag(sync=True)


def head_gallery(sequences, *, alt: str, names=None, start=(0, 0, 0, 0)) -> HeadGallery:
    """Pairs of tokens (T,) and weights (L, H, T, T) -> a piece to walk through them.

    `names` are what the menu calls the sequences, by default their first tokens. `start` is the
    sequence, layer, head and query token shown first; a negative number counts from the end.
    T may differ between sequences, L and H may not.

    >>> head_gallery([(["a", "b"], np.eye(2).reshape(1, 1, 2, 2))], alt="each reads itself")
    HeadGallery: each reads itself

    Raises:
        ValueError: nothing to show, shapes or names that do not fit, weights that are negative or
            of a later token, a row that sums to neither 1 nor 0, a start that is not there.
    """
    pairs = [([*map(str, tokens)], np.asarray(maps, dtype=float)) for tokens, maps in sequences]
    if not pairs:
        raise ValueError("head_gallery needs at least one sequence, got none")
    names = (
        [opening(i, tokens) for i, (tokens, _) in enumerate(pairs, 1)] if names is None else names
    )
    if isinstance(names, str) or len(names) != len(pairs):
        raise ValueError(f"names must be a list of {len(pairs)}, one per sequence: got {names!r}")
    L, H = (*pairs[0][1].shape, 0, 0)[:2]
    for i, (tokens, maps) in enumerate(pairs):
        check(i, maps, (L, H, len(tokens), len(tokens)))
    stored = [
        {"name": str(name), "tokens": [*map(visible, tokens)], "maps": pack(maps)}
        for name, (tokens, maps) in zip(names, pairs)
    ]
    chosen = place(start, [(len(pairs), L, H, len(tokens)) for tokens, _ in pairs])
    return HeadGallery(alt, n_layers=L, n_heads=H, sequences=stored, chosen=chosen)


def opening(number: int, tokens: list[str], most: int = 12) -> str:
    """What the menu calls a sequence that has no name: its number and its first tokens.

    >>> opening(1, ["a", " b"]), opening(2, list("abcd"), most=3)
    ('1: a ·b', '2: a b c …')
    """
    more = ["…"] if len(tokens) > most else []
    return f"{number}: " + " ".join([*map(visible, tokens[:most]), *more])


def check(i: int, maps: np.ndarray, shape: tuple) -> None:
    """A ValueError that says where, unless the maps fit and each row is causal weights."""
    if maps.shape != shape or not maps.size:
        raise ValueError(f"sequence {i}: maps must be (L, H, T, T) = {shape}, got {maps.shape}")
    sums = maps.sum(-1)  # (L, H, T, T) -> (L, H, T)
    rules = {
        "has a weight that is negative or no number": (~(maps >= 0)).any(-1),
        "reads a later token; the maps must be causal": (np.triu(maps, 1) > 0).any(-1),
        "must sum to 1, or to 0 if it reads nothing": np.minimum(abs(sums - 1), abs(sums)) > 1e-3,
    }
    for rule, broken in rules.items():
        if broken.any():
            layer, head, query = map(int, np.argwhere(broken)[0])
            where = f"sequence {i}, layer {layer}, head {head}: row {query}"
            raise ValueError(f"{where} {rule}: got {maps[layer, head, query].round(3).tolist()}")


def pack(maps: np.ndarray) -> str:
    """Weights in 0..1 -> one byte each, as base64; only 0 becomes 0, so that a mask shows.

    >>> base64.b64decode(pack(np.array([0, 1e-9, 0.5, 1])))
    b'\\x00\\x01\\x80\\xff'
    """
    levels = np.maximum((maps * 255).round(), maps > 0)
    return base64.b64encode(levels.astype(np.uint8).tobytes()).decode()


def place(start, sizes: list[tuple]) -> list[int]:
    """`start` with its negative numbers counted from the end; `sizes` is of each sequence."""
    i = start[0] if len(start) == 4 and -len(sizes) <= start[0] < len(sizes) else 0
    if len(start) != 4 or not all(-n <= at < n for at, n in zip(start, sizes[i])):
        raise ValueError(f"start {tuple(start)} must lie in (sequences, L, H, T) = {sizes[i]}")
    return [int(at) % n for at, n in zip(start, sizes[i])]
