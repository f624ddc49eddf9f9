"""Prefill and decode, step by step: what is computed, what is read from the cache, what is kept.

One head of one layer over a sentence, with a cache or without one. No numbers of a model are shown,
only which cells of q, K, V and the scores a step touches. Left out: windows, which forget.
"""

from numbers import Integral

import traitlets

from lib.widgets.piece import HERE, Piece, module

MOST = 10  # words that a phone has room for


class DecodeStepper(Piece):
    """The cells of a sentence and the work of each step; `decode_stepper(...)` makes one.

    With a kernel, `step` (from 0), `prompt`, `chunk` and `cached` are what the reader chose.
    """

    _esm = module("plane") + module("controls") + module("decode_stepper")
    _css = Piece._css + (HERE / "decode_stepper.css").read_text(encoding="utf-8")
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    prompt = traitlets.Int().tag(sync=True)
    chunk = traitlets.Int(None, allow_none=True).tag(sync=True)
    cached = traitlets.Bool().tag(sync=True)
    step = traitlets.Int().tag(sync=True)


def decode_stepper(words, *, alt, prompt=1, chunk=None, cached=True) -> DecodeStepper:
    """The first `prompt` words are given, the model writes the rest; the last is never read.

    The prompt is read at once, or `chunk` words at a time; then each step reads one word and says
    the next. Scores are counted as whole T × S rectangles, those that the mask hides included.

    >>> decode_stepper(["The", "cat", "sat"], prompt=2, alt="one step of prefill")
    DecodeStepper: one step of prefill

    Raises:
        ValueError: words that are no list of 2 to 10 strings, a prompt that leaves no word to be
            written, or a chunk other than None, 2 and 1.
    """
    if isinstance(words, str):
        raise ValueError(f"words is a list of strings, got {words!r}: try {words.split()}")
    words = list(words)
    if not 2 <= len(words) <= MOST:
        raise ValueError(f"words must be 2 to {MOST}, to be seen at once: got {len(words)}")
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise ValueError(f"words must be strings that can be seen: got {word!r}")
    most = len(words) - 1
    if not isinstance(prompt, Integral) or isinstance(prompt, bool) or not 1 <= prompt <= most:
        raise ValueError(
            f"prompt must be an integer in 1..{most}, for {most + 1} words: got {prompt!r}"
        )
    if chunk not in (None, 2, 1) or isinstance(chunk, bool):
        raise ValueError(f"chunk must be None, for all at once, 2 or 1: got {chunk!r}")
    if not isinstance(cached, bool):
        raise ValueError(f"cached must be True or False: got {cached!r}")
    return DecodeStepper(alt, words=words, prompt=int(prompt), chunk=chunk, cached=cached, step=0)
