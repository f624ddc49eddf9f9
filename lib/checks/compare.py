"""Comparing an answer with what was expected, and saying in words where they part."""

from collections.abc import Mapping

import numpy as np


def same(expected, got, tol: float) -> bool:
    """Whether two values agree: whole numbers exactly, others within `tol`.

    The tolerance is relative and absolute. Arrays need the same shape; a tuple and a list of
    the same things agree, and so do a dict and a Counter; text and bytes do not.
    """
    if isinstance(expected, Mapping):
        return (
            isinstance(got, Mapping)
            and expected.keys() == got.keys()
            and all(same(value, got[key], tol) for key, value in expected.items())
        )
    if isinstance(expected, str | bytes | set) or expected is None:
        return isinstance(got, type(expected)) and expected == got
    if isinstance(expected, tuple | list):
        if is_numeric(expected) and is_numeric(got) and not isinstance(got, tuple | list):
            return same(np.asarray(expected), got, tol)
        return (
            isinstance(got, tuple | list)
            and len(expected) == len(got)
            and all(same(e, g, tol) for e, g in zip(expected, got))
        )
    if not (is_numeric(expected) and is_numeric(got)):
        return type(expected) is type(got) and bool(expected == got)
    e, g = np.asarray(expected), np.asarray(got)
    if e.shape != g.shape:
        return False
    if e.dtype.kind in "iub" or tol == 0:
        return bool(np.array_equal(e, g, equal_nan=e.dtype.kind == "f" and g.dtype.kind == "f"))
    with np.errstate(invalid="ignore"):
        return bool(np.allclose(g, e, rtol=tol, atol=tol, equal_nan=True))


def is_numeric(value) -> bool:
    """Whether a value is a number, or an array or regular nesting of numbers."""
    try:
        return np.asarray(value).dtype.kind in "iufb"
    except Exception:
        return False


def is_listing(value) -> bool:
    """Whether a value is to be compared item by item: a text, a list of texts, an empty list."""
    return not is_numeric(value) or (isinstance(value, list | tuple) and not value)


def describe(value) -> str:
    """A value in a few words, for messages.

    >>> describe(np.zeros((2, 3))), describe(None), describe("b")
    ('an array of shape (2, 3)', 'None', "the text 'b'")
    """
    kind = type(value)
    if kind.__module__.split(".")[0] in ("numpy", "torch") and hasattr(value, "shape"):
        what = "a tensor" if kind.__module__.startswith("torch") else "an array"
        return f"{what} of shape {tuple(value.shape)}" if len(value.shape) else f"{float(value):g}"
    if value is None or value is ...:
        return str(value)
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, bytes):
        return f"the bytes {value[:40]!r}"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, dict):
        return f"a dict of length {len(value)}"
    if isinstance(value, list | tuple | set):
        return f"a {kind.__name__} of length {len(value)}"
    return f"something of type {kind.__name__}"


def where_they_differ(expected, got, axes, tol: float) -> str:
    """What separates an answer from the expected value, given that their form is the same."""
    if isinstance(expected, Mapping):
        return first_key_that_differs(expected, got, tol)
    if is_listing(expected) or np.ndim(expected) == 0:
        if isinstance(expected, list | tuple) and max(len(repr(expected)), len(repr(got))) > 100:
            return first_item_that_differs(expected, got, tol)
        return f"Expected {brief(expected)}, got {brief(got)}."
    e, g = np.asarray(expected), np.asarray(got)
    with np.errstate(invalid="ignore"):
        wrong = ~np.isclose(g, e, rtol=max(tol, 1e-12), atol=tol, equal_nan=True)
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    place = (
        ", ".join(f"{a}={i}" for a, i in zip(axes, first))
        if len(axes) == e.ndim
        else str(first)[1:-1]
    )
    share = f"{int(wrong.sum())} of {e.size} numbers differ"
    return f"{share}; the first at ({place}): expected {e[first]:.6g}, yours {g[first]:.6g}."


def part_that_differs(expected, got, parts, tol: float) -> str:
    """What separates an answer of several parts from the expected one; `parts` is {name: axes}.

    >>> part_that_differs((np.ones(2), 3), (np.ones(2), 4), {"row": "T", "sum": ""}, 0)
    'sum: Expected 3, got 4.'
    """
    if not isinstance(got, tuple | list | np.ndarray) or len(got) != len(parts):
        return f"Expected {len(parts)} things, ({', '.join(parts)}): got {describe(got)}."
    all_parts = zip(parts.items(), expected, got)
    name, axes, e, g = next(
        (n, a.split(), e, g) for (n, a), e, g in all_parts if not same(e, g, tol)
    )
    return f"{name}: {different_form(e, g, axes) or where_they_differ(e, g, axes, tol)}"


def first_key_that_differs(expected, got, tol: float) -> str:
    for key, value in expected.items():
        if key not in got:
            return f"{brief(key)} is missing: expected {brief(value)} for it."
        if not same(value, got[key], tol):
            return f"For {brief(key)} expected {brief(value)}, got {brief(got[key])}."
    extra = next(key for key in got if key not in expected)
    return f"{brief(extra)} should not be there; yours gives it {brief(got[extra])}."


def first_item_that_differs(expected, got, tol: float) -> str:
    pairs = enumerate(zip(expected, got))
    i = next((i for i, (e, g) in pairs if not same(e, g, tol)), min(len(expected), len(got)))
    e, g = (brief(items[i]) if i < len(items) else "no more" for items in (expected, got))
    return f"Expected {len(expected)} items, got {len(got)}; at [{i}] expected {e}, yours {g}."


def different_form(expected, got, axes) -> str:
    """What is wrong with the kind or the shape of an answer, or ""."""
    if isinstance(got, Exception):
        return ""
    if is_listing(expected):
        kinds = (Mapping, list | tuple, str, bytes)
        right = all(isinstance(got, kind) for kind in kinds if isinstance(expected, kind))
        return "" if right else f"Expected {describe(expected)}, got {describe(got)}."
    if not is_numeric(got):
        return f"Expected {describe(expected)}, got {describe(got)}."
    e, g = np.asarray(expected), np.asarray(got)
    if e.ndim == 0 and g.ndim:
        return f"Expected one number, got {describe(got)}."
    if e.shape != g.shape:
        named = f"({', '.join(axes)}) = " if len(axes) == e.ndim and axes else ""
        return f"Expected shape {named}{e.shape}, got {g.shape}."
    if np.isnan(g).any() and not np.isnan(e).any():
        place = tuple(int(i) for i in np.argwhere(np.isnan(g))[0]) if g.ndim else ()
        return f"There is a NaN in your answer{f' at {place}' if place else ''}: a 0/0 or ∞ − ∞?"
    return ""


def brief(value) -> str:
    if is_numeric(value) and np.ndim(value) == 0:
        number = np.asarray(value).item()
        return f"{number:.6g}" if isinstance(number, float) else f"{number}"
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
